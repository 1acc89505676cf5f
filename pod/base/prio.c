/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "pod/base/prio.h"

#include <sched.h>

static void set(bool on, int flag)
{
	struct sched_param sp = { .sched_priority = on ? 1 : 0 };

	sched_setscheduler(0, on ? SCHED_FIFO | flag : SCHED_OTHER, &sp);
}

void prio_quick(bool on)
{
	set(on, 0);
}

void prio_daemon(bool on)
{
	set(on, SCHED_RESET_ON_FORK);
}
