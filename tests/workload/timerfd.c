/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * timerfd: periodic timers whose expirations add up to what the clock says, one-shot, absolute on
 * three clocks, disarmed, far in the future, expired and not read, blocked readers, shared with a child.
 */
#include "wl.h"

#include <poll.h>
#include <pthread.h>
#include <sys/timerfd.h>

static const clockid_t clocks[] = { CLOCK_MONOTONIC, CLOCK_REALTIME, CLOCK_BOOTTIME };

static struct shared {
	_Atomic int stop;
	_Atomic uint64_t child_ticks;
} *sh;

/* Periodic; the number of expirations since @start. */
struct periodic {
	int fd;
	clockid_t clock;
	uint64_t start, period, ticks;
};
static struct periodic per[3], shared_per;
static int far[3], off, unread, nonblock, abs_far;
static _Atomic int stop;

static struct timespec ts_of(uint64_t ns)
{
	return (struct timespec){ (time_t)(ns / WL_SEC), (long)(ns % WL_SEC) };
}

static uint64_t ns_of(struct timespec ts)
{
	return (uint64_t)ts.tv_sec * WL_SEC + (uint64_t)ts.tv_nsec;
}

static int timer(clockid_t clock, int flags, int how, uint64_t value, uint64_t interval)
{
	struct itimerspec its = { ts_of(interval), ts_of(value) };
	int fd = (int)WL_SYS(timerfd_create(clock, flags));

	WL_SYS(timerfd_settime(fd, how, &its, NULL));
	return fd;
}

static uint64_t take(int fd)
{
	uint64_t v = 0;

	WL_EQ("timerfd read", 8, WL_SYS(read(fd, &v, 8)));
	return v;
}

static void start(struct periodic *p, clockid_t clock, uint64_t period)
{
	p->clock = clock;
	p->period = period;
	p->start = wl_clock(clock);
	p->fd = timer(clock, TFD_CLOEXEC, TFD_TIMER_ABSTIME, p->start + period, period);
}

/* After a blocking read there are exactly as many ticks as periods have passed. */
static void tick(struct periodic *p)
{
	uint64_t before = (wl_clock(p->clock) - p->start) / p->period, after;

	p->ticks += take(p->fd);
	after = (wl_clock(p->clock) - p->start) / p->period;
	WL_CHECK(p->ticks >= before && p->ticks <= after,
		 "expirations on clock %d: expected %llu to %llu, got %llu", p->clock,
		 (unsigned long long)before, (unsigned long long)after,
		 (unsigned long long)p->ticks);
}

static void *periodic_thread(void *arg)
{
	while (!stop)
		tick(arg);
	return NULL;
}

/* A one-shot, relative or absolute, expires once and not before its time. */
static void *oneshot_thread(void *arg)
{
	clockid_t clock = clocks[(uintptr_t)arg % 3];
	uint64_t n = 0;

	while (!stop) {
		uint64_t ns = (n++ % 3 == 0 ? 700 : 40) * WL_MS, t0 = wl_clock(clock), now;
		struct itimerspec its;
		int fd = n % 2 ? timer(clock, 0, 0, ns, 0) :
				 timer(clock, 0, TFD_TIMER_ABSTIME, t0 + ns, 0);

		WL_EQ("expirations of a one-shot", 1, take(fd));
		now = wl_clock(clock);
		WL_CHECK(now - t0 + WL_MS >= ns, "one-shot: expected after %llu us, got %llu",
			 (unsigned long long)ns / 1000, (unsigned long long)(now - t0) / 1000);
		WL_SYS(timerfd_gettime(fd, &its));
		WL_EQ("a one-shot afterwards", 0, ns_of(its.it_value));
		WL_SYS(close(fd));
	}
	return NULL;
}

static int child(void *arg)
{
	(void)arg;
	while (!sh->stop)
		sh->child_ticks += take(shared_per.fd);
	return 14;
}

static void check_still(uint64_t born)
{
	struct pollfd p = { .fd = unread, .events = POLLIN };
	struct itimerspec its;
	uint64_t left, v, passed;
	size_t i;

	for (i = 0; i < 3; i++) { /* 1000 s, every 5 s, counted from the start */
		WL_SYS(timerfd_gettime(far[i], &its));
		left = ns_of(its.it_value);
		passed = wl_now() - born;
		WL_EQ("interval", 5 * WL_SEC, ns_of(its.it_interval));
		WL_CHECK(left + passed > 999 * WL_SEC && left + passed < 1001 * WL_SEC,
			 "time left: expected 1000 s less %llu ms, got %llu ms",
			 (unsigned long long)(passed / WL_MS), (unsigned long long)(left / WL_MS));
	}
	WL_SYS(timerfd_gettime(off, &its));
	WL_EQ("disarmed timer", 0, ns_of(its.it_value));
	WL_SYS(timerfd_gettime(abs_far, &its));
	WL_CHECK(ns_of(its.it_value) > 900 * WL_SEC, "absolute timer: expected far, got %llu ms",
		 (unsigned long long)(ns_of(its.it_value) / WL_MS));
	WL_EQ("poll of an expired timer", 1, WL_SYS(poll(&p, 1, 0)));
	errno = 0;
	WL_EQ("read of a timer that has not expired", -1, read(nonblock, &v, 8));
	WL_EQ("errno", EAGAIN, errno);
	WL_EQ("flags", O_RDWR | O_NONBLOCK, WL_SYS(fcntl(nonblock, F_GETFL)));
	WL_EQ("close-on-exec", FD_CLOEXEC, WL_SYS(fcntl(per[0].fd, F_GETFD)));
}

int main(void)
{
	uint64_t born, n;
	pthread_t th[6];
	uintptr_t i;
	pid_t pid;

	wl_init();
	sh = wl_shared(sizeof(*sh));
	born = wl_now();
	for (i = 0; i < 3; i++) {
		far[i] = timer(clocks[i], 0, 0, 1000 * WL_SEC, 5 * WL_SEC);
		start(&per[i], clocks[i], (7 + 4 * i) * WL_MS);
	}
	off = (int)WL_SYS(timerfd_create(CLOCK_MONOTONIC, 0));
	nonblock = timer(CLOCK_MONOTONIC, TFD_NONBLOCK, 0, 5000 * WL_SEC, 0);
	abs_far = timer(CLOCK_REALTIME, 0, TFD_TIMER_ABSTIME,
			wl_clock(CLOCK_REALTIME) + 5000 * WL_SEC, 0);
	unread = timer(CLOCK_MONOTONIC, 0, 0, 1, 0);
	start(&shared_per, CLOCK_MONOTONIC, 9 * WL_MS);
	pid = wl_spawn(child, NULL);
	for (i = 0; i < 3; i++) {
		WL_ZERO(pthread_create(&th[i], NULL, periodic_thread, &per[i]));
		WL_ZERO(pthread_create(&th[3 + i], NULL, oneshot_thread, (void *)i));
	}
	wl_ready();
	while (!wl_stopping()) {
		check_still(born);
		wl_pace();
	}
	check_still(born);
	stop = 1;
	sh->stop = 1;
	for (i = 0; i < 6; i++)
		WL_ZERO(pthread_join(th[i], NULL));
	wl_reap(pid, 14);
	n = (wl_now() - shared_per.start) / shared_per.period;
	WL_CHECK(sh->child_ticks <= n && sh->child_ticks + 100 > n,
		 "expirations in the child: expected about %llu, got %llu", (unsigned long long)n,
		 (unsigned long long)sh->child_ticks);
	WL_EQ("expirations that nobody had read", 1, take(unread));
	wl_ok();
}
