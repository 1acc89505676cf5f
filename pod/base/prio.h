/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef POD_BASE_PRIO_H
#define POD_BASE_PRIO_H

#include <stdbool.h>

/**
 * prio_quick - the calling thread runs before all ordinary ones, or as they do again
 *
 * For what a frozen pod waits for: on a node whose CPUs are all busy each wake-up would cost
 * milliseconds otherwise. Lowest real-time priority; not inherited by children. Without the
 * privilege nothing changes, and nothing is lost but time.
 */
void prio_quick(bool on);

#endif
