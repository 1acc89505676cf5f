/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * ITIMER_VIRTUAL and ITIMER_PROF: by CPU time, periodic and far away. ITIMER_REAL: periodic with a handler that counts, in a process; one that is pending and blocked
 * whenever it is looked at; one far away whose remaining time must agree with the clock; one-shots.
 */
#include "wl.h"

#include <pthread.h>
#include <sys/time.h>

static struct shared {
	_Atomic int stop;
	_Atomic uint64_t pending_ticks, shots, cpu_ticks;
} *sh;
static _Atomic uint64_t ticks;

static void set_timer(uint64_t value, uint64_t interval)
{
	struct itimerval it = { { (time_t)(interval / WL_SEC), (suseconds_t)(interval % WL_SEC / 1000) },
				{ (time_t)(value / WL_SEC), (suseconds_t)(value % WL_SEC / 1000) } };

	WL_SYS(setitimer(ITIMER_REAL, &it, NULL));
}

static void get_timer(uint64_t *value, uint64_t *interval)
{
	struct itimerval it;

	WL_SYS(getitimer(ITIMER_REAL, &it));
	*value = (uint64_t)it.it_value.tv_sec * WL_SEC + (uint64_t)it.it_value.tv_usec * 1000;
	*interval = (uint64_t)it.it_interval.tv_sec * WL_SEC +
		    (uint64_t)it.it_interval.tv_usec * 1000;
}

static void on_alarm(int sig)
{
	(void)sig;
	ticks++;
}

/* The only thread that takes SIGALRM. */
static void *receiver(void *arg)
{
	sigset_t set;

	(void)arg;
	sigemptyset(&set);
	sigaddset(&set, SIGALRM);
	WL_ZERO(pthread_sigmask(SIG_UNBLOCK, &set, NULL));
	for (;;)
		pause();
	return NULL;
}

static sigset_t alarm_set(void)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGALRM);
	return set;
}

/* Blocked, and left pending for a while: the timer stands still then, and must start again. */
static int pending_child(void *arg)
{
	struct timespec zero = { 0, 0 };
	sigset_t set = alarm_set(), now;
	uint64_t value, interval;

	(void)arg;
	set_timer(4 * WL_MS, 4 * WL_MS);
	while (!sh->stop) {
		WL_AWAIT((sigpending(&now), sigismember(&now, SIGALRM)), "a pending SIGALRM");
		wl_pace();
		get_timer(&value, &interval);
		WL_EQ("interval", 4 * WL_MS, interval);
		WL_EQ("sigtimedwait", SIGALRM, sigtimedwait(&set, NULL, &zero));
		sh->pending_ticks++;
	}
	return 33;
}

static int far_child(void *arg)
{
	uint64_t t0 = wl_now(), value, interval, passed;

	(void)arg;
	set_timer(10000 * WL_SEC, 17 * WL_SEC);
	while (!sh->stop) {
		get_timer(&value, &interval);
		passed = wl_now() - t0;
		WL_EQ("interval", 17 * WL_SEC, interval);
		WL_CHECK(value + passed > 9999 * WL_SEC && value + passed < 10001 * WL_SEC,
			 "time left: expected 10000 s less %llu ms, got %llu ms",
			 (unsigned long long)(passed / WL_MS), (unsigned long long)(value / WL_MS));
		wl_sleep_ns(2 * WL_MS);
	}
	return 34;
}

static int shot_child(void *arg)
{
	sigset_t set = alarm_set(), now;
	struct timespec zero = { 0, 0 };

	(void)arg;
	while (!sh->stop) {
		uint64_t ns = (50 + sh->shots % 3 * 300) * WL_MS, t0 = wl_now(), value, interval;

		set_timer(ns, 0);
		WL_AWAIT((sigpending(&now), sigismember(&now, SIGALRM)), "a one-shot");
		WL_CHECK(wl_now() - t0 + WL_MS >= ns, "one-shot: expected %llu ms, got %llu us",
			 (unsigned long long)(ns / WL_MS),
			 (unsigned long long)(wl_now() - t0) / 1000);
		get_timer(&value, &interval);
		WL_EQ("a one-shot afterwards", 0, value + interval);
		WL_EQ("sigtimedwait", SIGALRM, sigtimedwait(&set, NULL, &zero));
		sh->shots++;
	}
	return 35;
}

/* On CPU time; the clock of it begins anew with each move. */
static int cpu_child(void *arg)
{
	struct itimerval virt = { { 0, 10000 }, { 0, 10000 } }, prof = { { 13, 0 }, { 5000, 0 } }, now;
	struct timespec zero = { 0, 0 };
	volatile unsigned i;
	sigset_t set;

	(void)arg;
	sigemptyset(&set);
	sigaddset(&set, SIGVTALRM);
	sigaddset(&set, SIGPROF);
	WL_SYS(sigprocmask(SIG_BLOCK, &set, NULL));
	WL_SYS(setitimer(ITIMER_VIRTUAL, &virt, NULL));
	WL_SYS(setitimer(ITIMER_PROF, &prof, NULL));
	while (!sh->stop) {
		int sig;

		for (i = 0; i < 100000; i++)
			;
		WL_SYS(getitimer(ITIMER_VIRTUAL, &now));
		WL_EQ("interval of ITIMER_VIRTUAL", 10000, now.it_interval.tv_usec);
		/* a tick of the kernel more than was asked for */
		WL_CHECK(now.it_value.tv_sec == 0 && now.it_value.tv_usec <= 20000, "ITIMER_VIRTUAL: %ld us left",
			 (long)now.it_value.tv_usec);
		WL_SYS(getitimer(ITIMER_PROF, &now));
		WL_EQ("interval of ITIMER_PROF", 13, now.it_interval.tv_sec);
		WL_CHECK(now.it_value.tv_sec > 4900 && now.it_value.tv_sec <= 5000, "ITIMER_PROF: %ld s left",
			 (long)now.it_value.tv_sec);
		sig = sigtimedwait(&set, NULL, &zero);
		WL_CHECK(sig == SIGVTALRM || errno == EAGAIN || errno == EINTR, "sigtimedwait: %s, signal %d", strerror(errno), sig);
		sh->cpu_ticks += sig > 0;
		wl_sleep_ns(WL_MS);
	}
	return 36;
}

int main(void)
{
	struct sigaction sa = { .sa_handler = on_alarm };
	uint64_t start, value, interval, seen, pend, shots;
	sigset_t set = alarm_set();
	pid_t pid[4];
	pthread_t th;

	wl_init();
	sh = wl_shared(sizeof(*sh));
	WL_SYS(sigprocmask(SIG_BLOCK, &set, NULL));
	WL_SYS(sigaction(SIGALRM, &sa, NULL));
	pid[0] = wl_spawn(pending_child, NULL);
	pid[1] = wl_spawn(far_child, NULL);
	pid[2] = wl_spawn(shot_child, NULL);
	pid[3] = wl_spawn(cpu_child, NULL);
	WL_ZERO(pthread_create(&th, NULL, receiver, NULL));
	start = wl_now();
	set_timer(5 * WL_MS, 5 * WL_MS);
	wl_ready();
	while (!wl_stopping()) {
		get_timer(&value, &interval);
		WL_EQ("interval", 5 * WL_MS, interval);
		WL_CHECK(value <= 5 * WL_MS, "time left: expected 5 ms at most, got %llu us",
			 (unsigned long long)value / 1000);
		seen = ticks;
		WL_CHECK(seen <= (wl_now() - start) / (5 * WL_MS) + 1,
			 "ticks: expected %llu at most, got %llu",
			 (unsigned long long)((wl_now() - start) / (5 * WL_MS) + 1),
			 (unsigned long long)seen);
		WL_AWAIT(ticks > seen, "a tick");
		wl_pace();
	}
	seen = ticks;
	pend = sh->pending_ticks;
	shots = sh->shots;
	WL_AWAIT(ticks > seen + 2, "ticks");
	WL_AWAIT(sh->pending_ticks > pend + 2, "ticks that were pending");
	WL_AWAIT(sh->shots > shots, "a one-shot");
	pend = sh->cpu_ticks;
	WL_AWAIT(sh->cpu_ticks > pend, "a tick on CPU time");
	sh->stop = 1;
	wl_reap(pid[0], 33);
	wl_reap(pid[1], 34);
	wl_reap(pid[2], 35);
	wl_reap(pid[3], 36);
	wl_ok();
}
