/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "pod/base/prio.h"

#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>

#include "pod/base/deadline.h"
#include "pod/base/io.h"
#include "pod/base/util.h"

static const struct sched_param lowest = { .sched_priority = 1 };
static const struct sched_param none = { .sched_priority = 0 };

void prio_quick(bool on)
{
	sched_setscheduler(0, on ? SCHED_FIFO : SCHED_OTHER, on ? &lowest : &none);
}

void prio_daemon(void)
{
	sched_setscheduler(0, SCHED_FIFO | SCHED_RESET_ON_FORK, &lowest);
}

uint64_t prio_waited_ns(void)
{
	static _Thread_local uint64_t last;
	autofree char *text = NULL;
	uint64_t waited;

	if (io_read_file("/proc/thread-self/schedstat", 256, &text, NULL, NULL) < 0 ||
	    sscanf(text, "%*u %" SCNu64, &waited) != 1)
		waited = deadline_lost_ns();
	return last = MAX(last, waited);
}

/* 1: it could run now, and had @ran_ns of a CPU so far. */
static int could_run(pid_t pid, uint64_t *ran_ns)
{
	autofree char *stat = NULL, *sched = NULL;
	char path[48];
	const char *at;

	snprintf(path, sizeof(path), "/proc/%d/stat", pid);
	if (io_read_file(path, 4096, &stat, NULL, NULL) < 0)
		return -ESRCH;
	at = strrchr(stat, ')'); /* the name may hold anything */
	if (!at || strncmp(at, ") R", 3) != 0)
		return 0;
	snprintf(path, sizeof(path), "/proc/%d/schedstat", pid);
	if (io_read_file(path, 256, &sched, NULL, NULL) < 0 || sscanf(sched, "%" SCNu64, ran_ns) != 1)
		return -EOPNOTSUPP;
	return 1;
}

/* SCHED_RR is nobody else's: the helped one asks for SCHED_FIFO himself when he wants to be quick. */
bool prio_feed(pid_t pid, uint64_t *ran_ns)
{
	uint64_t ran = UINT64_MAX;
	int policy = sched_getscheduler(pid);

	if (policy == (SCHED_RR | SCHED_RESET_ON_FORK))
		sched_setscheduler(pid, SCHED_OTHER, &none);
	else if (policy == SCHED_OTHER && could_run(pid, &ran) == 1 && ran == *ran_ns)
		return sched_setscheduler(pid, SCHED_RR | SCHED_RESET_ON_FORK, &lowest) == 0;
	*ran_ns = ran;
	return false;
}
