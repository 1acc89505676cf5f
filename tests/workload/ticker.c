/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * A tick each millisecond: the longest gaps that the pod's own clocks show. On SIGUSR1 and at the end
 * it prints "ticks N gap_monotonic_us N gap_realtime_us N back_monotonic N back_realtime N" and begins
 * anew. CLOCK_MONOTONIC must not go backward. argv[1] = processes that tick (default 1; the first one
 * prints, the others only add load).
 */
#include "wl.h"

static struct {
	uint64_t ticks, gap_mono, gap_real, back_mono, back_real;
} st;

static void report(void)
{
	printf("ticks %llu gap_monotonic_us %llu gap_realtime_us %llu back_monotonic %llu "
	       "back_realtime %llu\n",
	       (unsigned long long)st.ticks, (unsigned long long)st.gap_mono / 1000,
	       (unsigned long long)st.gap_real / 1000, (unsigned long long)st.back_mono,
	       (unsigned long long)st.back_real);
	fflush(stdout);
	memset(&st, 0, sizeof(st));
}

static int other(void *arg)
{
	(void)arg;
	for (;;)
		wl_sleep_ns(WL_MS);
	return 0;
}

int main(int argc, char **argv)
{
	uint64_t mono, real, m, r;
	struct timespec zero = { 0, 0 };
	sigset_t set;
	int i;

	wl_init();
	sigemptyset(&set);
	sigaddset(&set, SIGUSR1);
	WL_SYS(sigprocmask(SIG_BLOCK, &set, NULL));
	for (i = 1; argc > 1 && i < atoi(argv[1]); i++)
		wl_spawn(other, NULL);
	wl_ready();
	mono = wl_now();
	real = wl_clock(CLOCK_REALTIME);
	while (!wl_stopping()) {
		wl_sleep_ns(WL_MS);
		m = wl_now();
		r = wl_clock(CLOCK_REALTIME);
		WL_CHECK(m >= mono, "CLOCK_MONOTONIC: expected %llu or more, got %llu",
			 (unsigned long long)mono, (unsigned long long)m);
		st.ticks++;
		st.back_real += r < real;
		if (m - mono > st.gap_mono)
			st.gap_mono = m - mono;
		if (r > real && r - real > st.gap_real)
			st.gap_real = r - real;
		mono = m;
		real = r;
		if (sigtimedwait(&set, NULL, &zero) == SIGUSR1)
			report();
	}
	report();
	wl_ok();
}
