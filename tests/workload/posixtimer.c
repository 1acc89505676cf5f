/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * POSIX timers: ids with gaps, periodic ones whose signals wait while they go on expiring, so that
 * signals and overruns together must be what the clock says; one-shot, pending, disarmed and silent ones; to a thread;
 * on CPU time; the C library's own (SIGEV_THREAD).
 */
#include "wl.h"

#include <pthread.h>

#define SHORT (1 * WL_MS)
#define SLACK (5 * WL_MS)

/* Periodic, its signal blocked and taken now and then. */
static struct periodic {
	clockid_t clock;
	uint64_t period;
	int id, signo;
	bool thread;
	uint64_t start, count;
} per[] = {
	{ .clock = CLOCK_MONOTONIC, .period = SHORT, .signo = 40 },	  { .clock = CLOCK_REALTIME, .period = 3 * WL_MS, .signo = 41 },
	{ .clock = CLOCK_BOOTTIME, .period = 7 * WL_MS, .signo = SIGALRM }, { .clock = CLOCK_MONOTONIC, .period = 250000, .signo = 43 },
	{ .clock = CLOCK_MONOTONIC, .period = 700 * WL_MS, .signo = 44 },
};
static struct periodic own = { .clock = CLOCK_MONOTONIC, .period = 2 * WL_MS, .signo = 45, .thread = true };
static int far_id, pending_id, off_id, silent_id, cpu_id;
static uint64_t far_end, silent_start;
static _Atomic int stop;
static _Atomic uint64_t calls;

static struct timespec ts_of(uint64_t ns)
{
	return (struct timespec){ (time_t)(ns / WL_SEC), (long)(ns % WL_SEC) };
}

static uint64_t ns_of(struct timespec ts)
{
	return (uint64_t)ts.tv_sec * WL_SEC + (uint64_t)ts.tv_nsec;
}

/* The kernel's own ids, not the library's. */
static int create(clockid_t clock, int notify, int signo, pid_t tid, uintptr_t value)
{
	struct sigevent sev = { .sigev_notify = notify, .sigev_signo = signo };
	int id = -1;

	sev.sigev_value.sival_ptr = (void *)value;
	sev._sigev_un._tid = tid;
	WL_SYS(syscall(SYS_timer_create, clock, &sev, &id));
	return id;
}

static void set(int id, int flags, uint64_t value, uint64_t interval)
{
	struct itimerspec its = { ts_of(interval), ts_of(value) };

	WL_SYS(syscall(SYS_timer_settime, id, flags, &its, NULL));
}

static struct itimerspec get(int id)
{
	struct itimerspec its;

	WL_SYS(syscall(SYS_timer_gettime, id, &its));
	return its;
}

static uintptr_t value_of(const struct periodic *p)
{
	return (uintptr_t)p ^ 0x5a5a0000;
}

/* A duration on the wall clock does not end earlier because that clock goes on while the pod is an image. */
static clockid_t clock_of(const struct periodic *p)
{
	return p->clock == CLOCK_REALTIME ? CLOCK_MONOTONIC : p->clock;
}

static void start(struct periodic *p, pid_t tid)
{
	p->id = create(p->clock, p->thread ? SIGEV_THREAD_ID : SIGEV_SIGNAL, p->signo, tid, value_of(p));
	p->start = wl_clock(clock_of(p)) + p->period;
	if (p->clock == CLOCK_REALTIME)
		set(p->id, 0, p->period, p->period);
	else
		set(p->id, TIMER_ABSTIME, p->start, p->period);
}

static bool take(int signo, siginfo_t *si)
{
	struct timespec zero = { 0, 0 };
	sigset_t s;
	int r;

	sigemptyset(&s);
	sigaddset(&s, signo);
	do
		r = sigtimedwait(&s, si, &zero);
	while (r < 0 && errno == EINTR);
	WL_CHECK(r == signo || errno == EAGAIN, "sigtimedwait: %s", strerror(errno));
	return r == signo;
}

/* All expirations up to now; as many as the clock says, give or take the one that is just due. False: too few. */
static bool drain_once(struct periodic *p, bool last)
{
	uint64_t before = wl_clock(clock_of(p)), after, least, most;
	siginfo_t si;
	bool few;

	while (take(p->signo, &si)) {
		WL_EQ("si_code", SI_TIMER, si.si_code);
		WL_EQ("si_timerid", p->id, si.si_timerid);
		WL_EQ("si_value", value_of(p), (uintptr_t)si.si_ptr);
		WL_SYS(syscall(SYS_timer_getoverrun, p->id));
		p->count += (uint64_t)si.si_overrun + 1;
	}
	after = wl_clock(clock_of(p));
	least = before < p->start ? 0 : (before - p->start) / p->period + 1;
	most = after < p->start ? 0 : (after - p->start) / p->period + 1;
	/* a signal may come a little after its time, and a timer on the wall clock keeps its duration, not its time */
	few = p->count + 1 + 100000 / p->period < least;
	if ((few && last) || p->count > most + 1 + 100000 / p->period)
		wl_fail("timer %d, period %llu: expected %llu to %llu expirations, got %llu", p->id,
			(unsigned long long)p->period, (unsigned long long)least, (unsigned long long)most,
			(unsigned long long)p->count);
	return !few;
}

/* The CPU that has the timer may stand still for a while, on a virtual machine: what is only late comes, what is lost does not. */
static void drain(struct periodic *p)
{
	int looks = 0;

	while (!drain_once(p, looks == 1000)) {
		looks++;
		wl_sleep_ns(WL_MS);
	}
}

static void *thread(void *arg)
{
	(void)arg;
	start(&own, (pid_t)syscall(SYS_gettid));
	while (!stop) {
		wl_sleep_ns(WL_MS + own.count % 7 * 3 * WL_MS);
		drain(&own);
	}
	return NULL;
}

static void called(union sigval v)
{
	WL_EQ("sival_int of SIGEV_THREAD", 77, v.sival_int);
	calls++;
}

static void check_still(void)
{
	uint64_t before = wl_now(), left, now, phase;
	struct itimerspec its = get(far_id);

	now = wl_now(); /* a busy machine may have let us wait on either side of the call */
	left = ns_of(its.it_value);
	WL_CHECK(left <= far_end - before + SLACK && left + SLACK >= far_end - now, "time left: expected %llu, got %llu",
		 (unsigned long long)(far_end - now), (unsigned long long)left);
	its = get(off_id);
	WL_EQ("a disarmed timer", 0, ns_of(its.it_value));
	before = wl_now();
	its = get(silent_id);
	now = wl_now();
	WL_EQ("interval", 10 * WL_MS, ns_of(its.it_interval));
	phase = (now - silent_start + ns_of(its.it_value)) % (10 * WL_MS);
	WL_CHECK(now - before > WL_MS || phase < 2 * WL_MS || phase > 8 * WL_MS, "phase of a silent timer: expected about 0, got %llu",
		 (unsigned long long)phase);
	its = get(cpu_id);
	WL_EQ("interval on CPU time", 20 * WL_MS, ns_of(its.it_interval));
	WL_CHECK(ns_of(its.it_value) <= 20 * WL_MS, "left on CPU time: %llu", (unsigned long long)ns_of(its.it_value));
}

static void block(void)
{
	size_t i;
	sigset_t s;

	sigemptyset(&s);
	for (i = 0; i < ARRAY_SIZE(per); i++)
		sigaddset(&s, per[i].signo);
	sigaddset(&s, own.signo);
	sigaddset(&s, 50);
	sigaddset(&s, 51);
	WL_SYS(sigprocmask(SIG_BLOCK, &s, NULL));
}

int main(void)
{
	struct sigevent sev = { .sigev_notify = SIGEV_THREAD, .sigev_notify_function = called };
	struct itimerspec every = { { 0, 5000000 }, { 0, 5000000 } };
	uint64_t last_calls = 0, cpu = 0, t0, n;
	int gap[4], used[16], k, i;
	pthread_t t;
	timer_t lib;
	siginfo_t si;

	wl_init();
	block();
	for (k = 0; k < 4; k++)
		gap[k] = create(CLOCK_MONOTONIC, SIGEV_NONE, 0, 0, 0);
	pending_id = create(CLOCK_MONOTONIC, SIGEV_SIGNAL, 50, 0, 4242);
	for (i = 0; i < (int)ARRAY_SIZE(per); i++)
		start(&per[i], 0);
	for (k = 0; k < 3; k++)
		WL_SYS(syscall(SYS_timer_delete, gap[k]));
	off_id = create(CLOCK_MONOTONIC, SIGEV_SIGNAL, 51, 0, 0);
	set(off_id, 0, WL_SEC, WL_SEC);
	set(off_id, 0, 0, 0);
	far_id = create(CLOCK_MONOTONIC, SIGEV_SIGNAL, 51, 0, 0);
	far_end = wl_now() + 3600 * WL_SEC;
	set(far_id, TIMER_ABSTIME, far_end, 0);
	silent_id = create(CLOCK_MONOTONIC, SIGEV_NONE, 0, 0, 0);
	silent_start = wl_now();
	set(silent_id, TIMER_ABSTIME, silent_start, 10 * WL_MS);
	cpu_id = create(CLOCK_PROCESS_CPUTIME_ID, SIGEV_SIGNAL, 51, 0, 99);
	set(cpu_id, 0, 20 * WL_MS, 20 * WL_MS);
	set(pending_id, 0, 1000, 0);
	sev.sigev_value.sival_int = 77;
	WL_SYS(timer_create(CLOCK_MONOTONIC, &sev, &lib));
	WL_SYS(timer_settime(lib, 0, &every, NULL));
	WL_ZERO(pthread_create(&t, NULL, thread, NULL));
	wl_ready();
	t0 = wl_now();
	for (n = 0; !wl_stopping(); n++) {
		/* some wait long with a signal pending, some not */
		for (i = 0; i < (int)ARRAY_SIZE(per); i++)
			if (n % (uint64_t)(1 + i * 50) == 0)
				drain(&per[i]);
		check_still();
		while (take(51, &si)) {
			WL_EQ("only the timer on CPU time signals", cpu_id, si.si_timerid);
			cpu += (uint64_t)si.si_overrun + 1;
		}
		if (n % 64 == 0) {
			/* a new one gets a number that nobody has */
			used[0] = create(CLOCK_MONOTONIC, SIGEV_NONE, 0, 0, 0);
			for (i = 0; i < (int)ARRAY_SIZE(per); i++)
				WL_CHECK(used[0] != per[i].id && used[0] != far_id, "a new timer has the number of an old one");
			WL_SYS(syscall(SYS_timer_delete, used[0]));
			WL_CHECK(syscall(SYS_timer_delete, gap[0]) < 0 && errno == EINVAL, "a deleted timer lives");
		}
		if (n % 512 == 511) {
			WL_AWAIT(calls > last_calls, "a call by SIGEV_THREAD");
			last_calls = calls;
		}
		wl_pace();
	}
	stop = 1;
	WL_ZERO(pthread_join(t, NULL));
	for (i = 0; i < (int)ARRAY_SIZE(per); i++)
		drain(&per[i]);
	/* expired at the beginning, once, and nobody took it */
	WL_CHECK(take(50, &si), "a pending signal of a timer was lost");
	WL_EQ("its timer", pending_id, si.si_timerid);
	WL_EQ("its value", 4242, (uintptr_t)si.si_ptr);
	WL_EQ("its overruns", 0, si.si_overrun);
	WL_CHECK(!take(50, &si), "it came twice");
	WL_EQ("the last gap's neighbour", 0, ns_of(get(gap[3]).it_value));
	n = (wl_now() - t0) / (5 * WL_MS);
	WL_CHECK(calls <= n + 20, "calls by SIGEV_THREAD: expected at most %llu, got %llu", (unsigned long long)n,
		 (unsigned long long)calls);
	WL_CHECK(cpu || wl_clock(CLOCK_PROCESS_CPUTIME_ID) < 100 * WL_MS, "no signal by CPU time");
	wl_ok();
}
