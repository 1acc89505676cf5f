/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Threads that make one timed call each, again and again, and check how long it took. */
#ifndef TESTS_WORKLOAD_RESTART_H
#define TESTS_WORKLOAD_RESTART_H

#include "wl.h"

#include <pthread.h>

struct timed_call {
	const char *name;
	void (*call)(uint64_t ns);
	uint64_t ms;
};

/* The kernel keeps no record of the time left in this one: made anew it waits anew. */
static void (*waits_anew)(uint64_t);

static _Atomic int stop;
/* Time in which nothing of the program ran: frozen, or the machine is busy. */
static _Atomic uint64_t lost_ns;

static inline struct timespec ts_of(uint64_t ns)
{
	return (struct timespec){ (time_t)(ns / WL_SEC), (long)(ns % WL_SEC) };
}

static inline void *lost_time_ticker(void *arg)
{
	uint64_t last = wl_now();

	(void)arg;
	for (;;) {
		uint64_t now;

		wl_sleep_ns(WL_MS);
		now = wl_now();
		if (now - last > 2 * WL_MS)
			lost_ns += now - last - WL_MS;
		last = now;
	}
	return NULL;
}

static inline void *timed_call_loop(void *arg)
{
	const struct timed_call *c = arg;

	do {
		uint64_t ns = c->ms * WL_MS, lost = lost_ns, t0 = wl_now(), took;

		c->call(ns);
		took = wl_now() - t0;
		/* calls with an absolute CLOCK_REALTIME may be off by what that clock is adjusted */
		WL_CHECK(took + 2 * WL_MS >= ns, "%s: expected %llu ms, got only %llu us", c->name,
			 (unsigned long long)c->ms, (unsigned long long)took / 1000);
		wl_sleep_ns(3 * WL_MS); /* so that the ticker has seen the gap, too */
		lost = lost_ns - lost;
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
