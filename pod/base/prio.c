/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "pod/base/prio.h"

#include <sched.h>

void prio_quick(bool on)
{
	struct sched_param sp = { .sched_priority = on ? 1 : 0 };

	sched_setscheduler(0, on ? SCHED_FIFO | SCHED_RESET_ON_FORK : SCHED_OTHER, &sp);
}
