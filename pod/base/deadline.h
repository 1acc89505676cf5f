/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Deadlines: absolute times of CLOCK_MONOTONIC in nanoseconds.
 *
 * A machine may stand still for many seconds (a hypervisor that has no CPU for it, a host that swaps). What expired meanwhile
 * says nothing about who was waited for: what he sent may be here, unread. So whoever finds that he himself stood still
 * gives all deadlines some time more: at most the time that was lost and DEADLINE_GRACE_MS. It is found by beats that are late
 * (of a tick, of an event loop's timer, of who asks again and again whether a deadline is past), and in io_poll().
 *
 * A look is different: a short wait after which something else is tried. It has no grace.
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
/** The same for a look. The earlier one of a look and a deadline is what it was. */
uint64_t deadline_look_ms(uint64_t ms);
/** Is it over? */
bool deadline_past(uint64_t deadline);
/** Milliseconds left until @deadline for poll(2): -1 for IO_FOREVER, never below 0 else. */
int deadline_left_ms(uint64_t deadline);
/** For a timer that has fired: what is left of the grace after a standstill, ms, else 0. Then it may be set once more. */
unsigned deadline_grace_ms(void);
/** All the time that standstills have taken so far, ns: for who measures how quick something is. */
uint64_t deadline_lost_ns(void);

/**
 * From now on deadline_beat() will be called regularly, by this process: not by what it forks. @still_ms without a
 * beat are a standstill; 0: never mind.
 */
void deadline_beats(unsigned still_ms);
/** Async-signal-safe; any thread. */
void deadline_beat(void);
/** Of who has just waited for at most @planned ns, and that took @took ns: he could not beat meanwhile. */
void deadline_waited(uint64_t planned, uint64_t took);

#endif
