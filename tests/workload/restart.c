/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Blocking system calls, one thread or process each, that are there at any moment: sleeps and waits
 * with and without a timeout. None may answer EINTR or too early; none may last longer than asked
 * except by the time for which the whole program was not running, which a ticker thread adds up.
 *
 * The calls that the kernel itself ends with EINTR at any stop are in restart_hard.c.
 */
#include "wl.h"

#include <linux/futex.h>
#include <poll.h>
#include <pthread.h>
#include <semaphore.h>
#include <sys/eventfd.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "restart.h"

static int quiet[2]; /* a pipe in which nothing is ever written */
static int bell[2];  /* one byte from time to time, read by poll(-1) */
static int data[2];  /* one byte from time to time, read by read() */
static sem_t never, now_and_then;
static uint32_t futex_never, futex_bell;
static _Atomic long rung, seen_poll, seen_read, seen_sem, seen_futex;

static void t_nanosleep_rem(uint64_t ns)
{
	struct timespec ts = ts_of(ns), rem; /* a stop writes it, too, so it says nothing */

	WL_SYS(nanosleep(&ts, &rem));
}

static void t_nanosleep(uint64_t ns)
{
	struct timespec ts = ts_of(ns);

	WL_SYS(nanosleep(&ts, NULL));
}

static void t_clock_rel(uint64_t ns)
{
	struct timespec ts = ts_of(ns);

	WL_ZERO(clock_nanosleep(CLOCK_MONOTONIC, 0, &ts, NULL));
}

static void t_clock_rel_boot(uint64_t ns)
{
	struct timespec ts = ts_of(ns);

	WL_ZERO(clock_nanosleep(CLOCK_BOOTTIME, 0, &ts, NULL));
}

static void t_clock_abs(uint64_t ns)
{
	struct timespec ts = ts_of(wl_now() + ns);

	WL_ZERO(clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &ts, NULL));
}

static void t_clock_abs_real(uint64_t ns)
{
	struct timespec ts = ts_of(wl_clock(CLOCK_REALTIME) + ns);

	WL_ZERO(clock_nanosleep(CLOCK_REALTIME, TIMER_ABSTIME, &ts, NULL));
}

static void t_poll(uint64_t ns)
{
	struct pollfd p = { .fd = quiet[0], .events = POLLIN };

	WL_EQ("poll", 0, WL_SYS(poll(&p, 1, (int)(ns / WL_MS))));
}

static void t_ppoll(uint64_t ns)
{
	struct timespec ts = ts_of(ns);
	struct pollfd p = { .fd = quiet[0], .events = POLLIN };
	sigset_t none;

	sigemptyset(&none);
	sigaddset(&none, SIGTERM);
	WL_EQ("ppoll", 0, WL_SYS(ppoll(&p, 1, &ts, &none)));
}

static void t_select(uint64_t ns)
{
	struct timeval tv = { (time_t)(ns / WL_SEC), (suseconds_t)(ns % WL_SEC / 1000) };
	fd_set r;

	FD_ZERO(&r);
	FD_SET(quiet[0], &r);
	WL_EQ("select", 0, WL_SYS(select(quiet[0] + 1, &r, NULL, NULL, &tv)));
}

static void t_pselect(uint64_t ns)
{
	struct timespec ts = ts_of(ns);

	WL_EQ("pselect", 0, WL_SYS(pselect(0, NULL, NULL, NULL, &ts, NULL)));
}

static void t_futex_rel(uint64_t ns)
{
	struct timespec ts = ts_of(ns);

	errno = 0;
	WL_EQ("futex", -1, syscall(SYS_futex, &futex_never, FUTEX_WAIT_PRIVATE, 0, &ts, NULL, 0));
	WL_EQ("errno of futex", ETIMEDOUT, errno);
}

static void t_futex_abs(uint64_t ns)
{
	struct timespec ts = ts_of(wl_now() + ns);

	errno = 0;
	WL_EQ("futex", -1, syscall(SYS_futex, &futex_never, FUTEX_WAIT_BITSET_PRIVATE, 0, &ts, NULL, ~0u));
	WL_EQ("errno of futex", ETIMEDOUT, errno);
}

static void t_sem_timedwait(uint64_t ns)
{
	struct timespec ts = ts_of(wl_clock(CLOCK_REALTIME) + ns);

	errno = 0;
	WL_EQ("sem_timedwait", -1, sem_timedwait(&never, &ts));
	WL_EQ("errno of sem_timedwait", ETIMEDOUT, errno);
}

static void t_cond_timedwait(uint64_t ns)
{
	pthread_mutex_t m = PTHREAD_MUTEX_INITIALIZER;
	pthread_cond_t c = PTHREAD_COND_INITIALIZER;
	struct timespec ts = ts_of(wl_clock(CLOCK_REALTIME) + ns);
	int r;

	WL_ZERO(pthread_mutex_lock(&m));
	do
		r = pthread_cond_timedwait(&c, &m, &ts);
	while (r == 0);
	WL_EQ("pthread_cond_timedwait", ETIMEDOUT, r);
	WL_ZERO(pthread_mutex_unlock(&m));
}

/* The lock must also come back when it is only free after a while: a child that sleeps, then exits. */
static int sleeper(void *arg)
{
	wl_sleep_ns(*(uint64_t *)arg);
	return 33;
}

static void t_wait4(uint64_t ns)
{
	wl_reap(wl_spawn(sleeper, &ns), 33);
}

static void t_waitid(uint64_t ns)
{
	pid_t pid = wl_spawn(sleeper, &ns);
	siginfo_t si = { 0 };

	WL_SYS(waitid(P_PID, (id_t)pid, &si, WEXITED));
	WL_EQ("si_status", 33, si.si_status);
}

static void t_vfork(uint64_t ns)
{
	pid_t pid = vfork();

	if (!pid) {
		struct timespec ts = ts_of(ns);

		syscall(SYS_nanosleep, &ts, NULL);
		_exit(34);
	}
	WL_SYS(pid);
	wl_reap(pid, 34);
}

static const struct timed_call calls[] = {
	{ "nanosleep with rem", t_nanosleep_rem, 2000 },
	{ "nanosleep", t_nanosleep, 1900 },
	{ "clock_nanosleep relative", t_clock_rel, 2100 },
	{ "clock_nanosleep relative boottime", t_clock_rel_boot, 1500 },
	{ "clock_nanosleep absolute", t_clock_abs, 1700 },
	{ "clock_nanosleep absolute realtime", t_clock_abs_real, 1300 },
	{ "poll", t_poll, 2300 },
	{ "ppoll", t_ppoll, 1800 },
	{ "select", t_select, 1600 },
	{ "pselect", t_pselect, 1400 },
	{ "futex relative", t_futex_rel, 2200 },
	{ "futex absolute", t_futex_abs, 1200 },
	{ "sem_timedwait", t_sem_timedwait, 2050 },
	{ "pthread_cond_timedwait", t_cond_timedwait, 1950 },
	{ "short nanosleep", t_nanosleep, 3 },
	{ "short poll", t_poll, 3 },
	{ "short futex", t_futex_rel, 3 },
	{ "wait4", t_wait4, 700 },
	{ "waitid", t_waitid, 600 },
	{ "vfork", t_vfork, 20 },
};

/* Waits without end, ended by main's bell. */
static void *w_poll(void *arg)
{
	struct pollfd p = { .fd = bell[0], .events = POLLIN };
	char c;

	(void)arg;
	for (;;) {
		WL_EQ("poll without end", 1, WL_SYS(poll(&p, 1, -1)));
		wl_read(bell[0], &c, 1);
		seen_poll++;
		if (c == 'q')
			return NULL;
	}
}

static void *w_read(void *arg)
{
	char c;

	(void)arg;
	do {
		wl_read(data[0], &c, 1);
		seen_read++;
	} while (c != 'q');
	return NULL;
}

static void *w_sem(void *arg)
{
	(void)arg;
	while (!stop) {
		WL_SYS(sem_wait(&now_and_then));
		seen_sem++;
	}
	return NULL;
}

static void *w_futex(void *arg)
{
	uint32_t was = 0;

	(void)arg;
	while (!stop) {
		long r = syscall(SYS_futex, &futex_bell, FUTEX_WAIT_PRIVATE, was, NULL, NULL, 0);

		WL_CHECK(r == 0 || errno == EAGAIN, "futex without end: expected 0, got %s",
			 strerror(errno));
		was = __atomic_load_n(&futex_bell, __ATOMIC_SEQ_CST);
		seen_futex++;
	}
	return NULL;
}

/* Two processes that wait for a signal: pause() and sigsuspend() must answer only for one. */
static volatile sig_atomic_t usr1;
static _Atomic long *sigs; /* shared: how often each child has seen it */

static void on_usr1(int sig)
{
	(void)sig;
	usr1++;
}

static int w_signal(void *arg)
{
	bool suspend = *(bool *)arg;
	struct sigaction sa = { .sa_handler = on_usr1 };
	sigset_t set, old;
	long n = 0;

	sigemptyset(&set);
	sigaddset(&set, SIGUSR1);
	WL_SYS(sigprocmask(SIG_BLOCK, &set, &old));
	WL_SYS(sigaction(SIGUSR1, &sa, NULL));
	sigs[suspend + 2] = 1;
	for (;; n++) {
		long was = usr1;
		int r;

		/* nobody sends the next one before this one is answered for: no race with pause */
		if (suspend) {
			sigs[1] = n + 1;
			r = sigsuspend(&old);
		} else {
			WL_SYS(sigprocmask(SIG_UNBLOCK, &set, NULL));
			if (usr1 == was) {
				sigs[0] = n + 1;
				r = pause();
			} else {
				r = -1;
				errno = EINTR;
			}
			WL_SYS(sigprocmask(SIG_BLOCK, &set, NULL));
		}
		WL_EQ("a wait for a signal", -1, r);
		WL_EQ("errno", EINTR, errno);
		WL_CHECK(usr1 > was, "a wait for a signal: expected one, got none");
	}
	return 0;
}

static void ring_all(char c, pid_t *kid, long *sent)
{
	size_t i, n, k;

	rung++;
	wl_write(bell[1], &c, 1);
	wl_write(data[1], &c, 1);
	WL_SYS(sem_post(&now_and_then));
	__atomic_add_fetch(&futex_bell, 1, __ATOMIC_SEQ_CST);
	WL_SYS(syscall(SYS_futex, &futex_bell, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0));
	for (i = 0; i < 2; i++) {
		/* not before the child says that it is about to wait, and sleeps */
		WL_AWAIT(sigs[i] == sent[i] + 1, "child that waits for a signal");
		wl_sleep_ns(5 * WL_MS);
		sent[i]++;
		/* the first one may come just before pause(): then once more */
		for (n = 0; sigs[i] != sent[i] + 1; n++) {
			WL_CHECK(n < 60, "child that waits for a signal: expected an answer");
			WL_SYS(kill(kid[i], SIGUSR1));
			for (k = 0; k < 1000 && sigs[i] != sent[i] + 1; k++)
				wl_sleep_ns(WL_MS);
		}
	}
}

int main(void)
{
	pthread_t th[ARRAY_SIZE(calls)], wait[4];
	bool mode[2] = { false, true };
	long sent[2] = { 0 };
	pid_t kid[2];
	size_t i;

	wl_init();
	sigs = wl_shared(4096);
	WL_SYS(pipe(quiet));
	WL_SYS(pipe(bell));
	WL_SYS(pipe(data));
	WL_SYS(sem_init(&never, 0, 0));
	WL_SYS(sem_init(&now_and_then, 0, 0));
	for (i = 0; i < 2; i++)
		kid[i] = wl_spawn(w_signal, &mode[i]);
	by_real_time[0] = t_clock_abs_real;
	by_real_time[1] = t_sem_timedwait;
	by_real_time[2] = t_cond_timedwait;
	start_calls(calls, ARRAY_SIZE(calls), th);
	WL_ZERO(pthread_create(&wait[0], NULL, w_poll, NULL));
	WL_ZERO(pthread_create(&wait[1], NULL, w_read, NULL));
	WL_ZERO(pthread_create(&wait[2], NULL, w_sem, NULL));
	WL_ZERO(pthread_create(&wait[3], NULL, w_futex, NULL));
	WL_AWAIT(sigs[0] && sigs[1], "children");
	wl_ready();
	while (!wl_stopping()) {
		ring_all('x', kid, sent);
		wl_sleep_ns(150 * WL_MS);
		WL_EQ("bytes read behind poll", rung, seen_poll);
		WL_EQ("bytes read", rung, seen_read);
		WL_EQ("semaphore posts taken", rung, seen_sem);
	}
	stop = 1;
	ring_all('q', kid, sent);
	for (i = 0; i < ARRAY_SIZE(wait); i++)
		WL_ZERO(pthread_join(wait[i], NULL));
	for (i = 0; i < ARRAY_SIZE(calls); i++)
		WL_ZERO(pthread_join(th[i], NULL));
	for (i = 0; i < 2; i++) {
		int status;

		WL_AWAIT(sigs[i] == sent[i] + 1, "child that waits for a signal");
		WL_SYS(kill(kid[i], SIGKILL));
		WL_SYS(waitpid(kid[i], &status, 0));
		WL_EQ("status of a killed child", SIGKILL, status);
	}
	wl_ok();
}
