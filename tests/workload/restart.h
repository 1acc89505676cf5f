/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Threads that make one timed call each, again and again, and check how long it took. */
#ifndef TESTS_WORKLOAD_RESTART_H
#define TESTS_WORKLOAD_RESTART_H

#include "wl.h"

#include <pthread.h>
#include <stdbool.h>

struct timed_call {
	const char *name;
	void (*call)(uint64_t ns);
	uint64_t ms;
};

/* Timed by CLOCK_REALTIME, which goes on while the pod is an image. */
static void (*by_real_time[4])(uint64_t);

/* The kernel keeps no record of the time left in this one: made anew it waits anew. */
static void (*waits_anew)(uint64_t);

static _Atomic int stop;
/* Time in which nothing of the program ran: frozen, or the machine is busy. */
static _Atomic uint64_t lost_ns, lost_real_ns, lost_looks;

static inline struct timespec ts_of(uint64_t ns)
{
	return (struct timespec){ (time_t)(ns / WL_SEC), (long)(ns % WL_SEC) };
}

static inline void *lost_time_ticker(void *arg)
{
	uint64_t last = wl_now(), last_real = wl_clock(CLOCK_REALTIME);

	(void)arg;
	for (;;) {
		uint64_t now, real;

		wl_sleep_ns(WL_MS);
		now = wl_now();
		real = wl_clock(CLOCK_REALTIME);
		if (now - last > 2 * WL_MS)
			lost_ns += now - last - WL_MS;
		if (real - last_real > 2 * WL_MS)
			lost_real_ns += real - last_real - WL_MS;
		last = now;
		last_real = real;
		lost_looks++;
	}
	return NULL;
}

static inline bool is_by_real_time(void (*call)(uint64_t))
{
	size_t i;

	for (i = 0; i < sizeof(by_real_time) / sizeof(by_real_time[0]); i++)
		if (by_real_time[i] == call)
			return true;
	return false;
}

static inline void *timed_call_loop(void *arg)
{
	const struct timed_call *c = arg;
	const clockid_t clock = is_by_real_time(c->call) ? CLOCK_REALTIME : CLOCK_MONOTONIC;
	_Atomic uint64_t *all_lost = is_by_real_time(c->call) ? &lost_real_ns : &lost_ns;

	do {
		uint64_t ns = c->ms * WL_MS, lost = *all_lost, looks, t0 = wl_clock(clock), took;

		c->call(ns);
		took = wl_clock(clock) - t0;
		/* calls with an absolute CLOCK_REALTIME may be off by what that clock is adjusted */
		WL_CHECK(took + 2 * WL_MS >= ns, "%s: expected %llu ms, got only %llu us", c->name,
			 (unsigned long long)c->ms, (unsigned long long)took / 1000);
		looks = lost_looks;
		WL_AWAIT(lost_looks >= looks + 2, "the ticker"); /* it has seen the gap, too */
		lost = *all_lost - lost;
		WL_CHECK(took <= (c->call == waits_anew ? 5 * ns : ns) + lost + 300 * WL_MS,
			 "%s: expected %llu ms (and %llu us lost), got %llu us", c->name,
			 (unsigned long long)c->ms, (unsigned long long)lost / 1000,
			 (unsigned long long)took / 1000);
	} while (!stop);
	return NULL;
}

static inline void start_calls(const struct timed_call *calls, size_t n, pthread_t *th)
{
	pthread_t ticker;
	size_t i;

	WL_ZERO(pthread_create(&ticker, NULL, lost_time_ticker, NULL));
	for (i = 0; i < n; i++)
		WL_ZERO(pthread_create(&th[i], NULL, timed_call_loop,
				       (void *)(uintptr_t)&calls[i]));
}

#endif
