/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef POD_BASE_PRIO_H
#define POD_BASE_PRIO_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

/*
 * For what a frozen pod waits for: on a node whose CPUs are all busy each wake-up would cost
 * milliseconds otherwise; with some kernels (6.18 with autogroups) half a minute, if two programs of
 * another session wake each other all the time. The lowest real-time priority. Without the privilege
 * nothing changes, and nothing is lost but time.
 */

/** prio_quick - the calling thread, and those it makes, run before all ordinary ones, or no more */
void prio_quick(bool on);
/** prio_daemon - the same for a daemon that sleeps nearly all the time: not for its children and threads */
void prio_daemon(void);
/**
 * How long the calling thread has waited for a CPU so far, ns; on a kernel that does not count that, for how long it has stood
 * still (deadline.h). Never less than before.
 */
uint64_t prio_waited_ns(void);
/**
 * prio_feed - an ordinary process that gets no CPU at all runs before all others until the next look
 * @ran_ns: what it had at the last look, kept here for the next one; 0 at first
 * To be called for it again and again, by who is not ordinary himself. True: it starved.
 */
bool prio_feed(pid_t pid, uint64_t *ran_ns);

#endif
