/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef POD_BASE_PRIO_H
#define POD_BASE_PRIO_H

#include <stdbool.h>

/*
 * For what a frozen pod waits for: on a node whose CPUs are all busy each wake-up would cost
 * milliseconds otherwise. The lowest real-time priority. Without the privilege nothing changes, and
 * nothing is lost but time.
 */

/** prio_quick - the calling thread, and those it makes, run before all ordinary ones, or no more */
void prio_quick(bool on);
/** prio_daemon - the same for a daemon that sleeps nearly all the time: not for its children and threads */
void prio_daemon(bool on);

#endif
