/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Deadlines: absolute times of CLOCK_MONOTONIC in nanoseconds.
 *
 * A machine may stand still for many seconds (a hypervisor that has no CPU for it, a host that swaps). What happened to
 * expire meanwhile says nothing about who was waited for: he stood still, too. Whoever beats regularly notices that, and then all
 * deadlines of the process are given DEADLINE_GRACE_MS from the time when it goes on, so that what was late can still come. Who does
 * not beat notices it while it waits in io.h.
 */
#ifndef POD_BASE_DEADLINE_H
#define POD_BASE_DEADLINE_H

#include <stdbool.h>
#include <stdint.h>

#define IO_FOREVER UINT64_MAX /* no deadline: only for waits that another deadline bounds */
#define NSEC_PER_MSEC 1000000ull
#define NSEC_PER_SEC 1000000000ull
#define DEADLINE_GRACE_MS 5000u

/** CLOCK_MONOTONIC now, ns. */
uint64_t now_ns(void);
/** The deadline @ms milliseconds from now. */
uint64_t deadline_ms(uint64_t ms);
/** Is it over? */
bool deadline_past(uint64_t deadline);
/** Milliseconds left until @deadline for poll(2): -1 for IO_FOREVER, never below 0 else. */
int deadline_left_ms(uint64_t deadline);

/** The grace that is left of a standstill that has just ended, ms, else 0: what expires now may be waited for that much longer. */
unsigned deadline_grace_ms(void);

/**
 * From now on deadline_beat() will be called regularly, by this process: not by what it forks. @still_ms without a
 * beat are a standstill; 0: never mind.
 */
void deadline_beats(unsigned still_ms);
/** Async-signal-safe; any thread. */
void deadline_beat(void);
bool deadline_has_beats(void);
/** We stood still until now: for who finds that out otherwise. */
void deadline_stood_still(void);

#endif
