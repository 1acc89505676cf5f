/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Job control. Processes that stay stopped: one whose parent has waited for the stop, one whose parent has not
 * yet, a pipeline of two with threads that ^Z has stopped, one that was stopped in sleeps and in a read and
 * has a signal pending; a sleep is over in its time, stopped or not. One that goes on and whose parent has not
 * waited for that. And one that is stopped and continued over and over: each stop, each continuation and each
 * SIGCHLD is heard of once.
 */
#include "wl.h"

#include <pthread.h>
#include <signal.h>

#define LONG_SLEEP (6 * WL_SEC)
#define LATE_LOOKS 3000 /* once each ms, on a busy machine: one that stands still does not look */

enum { HEARD, UNHEARD, JOB, JOB2, READER, GOES_ON, YOYO, KIDS };

static struct shared {
	_Atomic int stop;
	_Atomic long steps[KIDS][3];
	_Atomic int handled;
	_Atomic uint64_t sleeps_from, slept_till;
} *sh;

static pid_t kid[KIDS];
static long at_stop[KIDS][3];
static int pipefd[2];
static uint64_t reader_stopped;

static void *count(void *arg)
{
	_Atomic long *steps = arg;

	while (!sh->stop) {
		(*steps)++;
		wl_sleep_ns(WL_MS);
	}
	return NULL;
}

static int counter(void *arg)
{
	long id = (long)(intptr_t)arg;
	pthread_t th[2];
	int i;

	for (i = 0; i < 2; i++)
		WL_ZERO(pthread_create(&th[i], NULL, count, (void *)(uintptr_t)&sh->steps[id][i + 1]));
	count((void *)(uintptr_t)&sh->steps[id][0]);
	for (i = 0; i < 2; i++)
		WL_ZERO(pthread_join(th[i], NULL));
	return 10 + (int)id;
}

static void *long_sleep(void *arg)
{
	struct timespec ts = { LONG_SLEEP / WL_SEC, 0 };

	(void)arg;
	sh->sleeps_from = wl_now();
	WL_SYS(syscall(SYS_nanosleep, &ts, NULL));
	sh->slept_till = wl_now();
	return NULL;
}

static void handler(int sig)
{
	(void)sig;
	sh->handled++;
}

/* One thread sleeps for 50 ms at a time, this one waits for a byte that comes at the end. */
static int reader(void *arg)
{
	struct sigaction sa = { .sa_handler = handler, .sa_flags = SA_RESTART };
	sigset_t set;
	pthread_t th, sleeper;
	char c = 0;

	(void)arg;
	WL_SYS(sigaction(SIGUSR1, &sa, NULL));
	sigemptyset(&set);
	sigaddset(&set, SIGUSR1);
	WL_ZERO(pthread_sigmask(SIG_BLOCK, &set, NULL)); /* it would end the other's sleep */
	WL_ZERO(pthread_create(&th, NULL, count, (void *)(uintptr_t)&sh->steps[READER][1]));
	WL_ZERO(pthread_create(&sleeper, NULL, long_sleep, NULL));
	WL_ZERO(pthread_sigmask(SIG_UNBLOCK, &set, NULL));
	WL_AWAIT(sh->sleeps_from, "the sleep");
	wl_sleep_ns(20 * WL_MS);
	sh->steps[READER][0] = sh->steps[READER][2] = 1;
	WL_EQ("a read that was stopped", 1, WL_SYS(read(pipefd[0], &c, 1)));
	WL_EQ("the byte", 'x', c);
	WL_ZERO(pthread_join(th, NULL));
	WL_ZERO(pthread_join(sleeper, NULL));
	return 10 + READER;
}

/* ---- what the parent sees */

static void expect_chld(pid_t pid, int code, int status)
{
	struct timespec limit = { WL_STALL / WL_SEC, 0 };
	siginfo_t si;
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGCHLD);
	WL_EQ("SIGCHLD", SIGCHLD, WL_SYS(sigtimedwait(&set, &si, &limit)));
	WL_CHECK(si.si_pid == pid && si.si_code == code && si.si_status == status,
		 "SIGCHLD: expected pid %d code %d status %d, got %d %d %d", pid, code, status, si.si_pid, si.si_code, si.si_status);
}

static void no_chld(void)
{
	struct timespec zero = { 0, 0 };
	siginfo_t si;
	sigset_t set;
	int r;

	sigemptyset(&set);
	sigaddset(&set, SIGCHLD);
	r = sigtimedwait(&set, &si, &zero);
	WL_CHECK(r < 0, "SIGCHLD: expected none, got one of pid %d code %d status %d", si.si_pid, si.si_code, si.si_status);
}

/* What there is to be waited for, without taking it. */
static void expect_news(const char *what, pid_t pid, int code, int status)
{
	siginfo_t si = { 0 };

	WL_SYS(waitid(P_PID, (id_t)pid, &si, WSTOPPED | WCONTINUED | WNOHANG | WNOWAIT));
	WL_CHECK(si.si_pid == (code ? pid : 0) && si.si_code == code && si.si_status == status,
		 "%s: expected code %d status %d, got pid %d code %d status %d", what, code, status, si.si_pid, si.si_code,
		 si.si_status);
}

static void stop_and_hear(int id, int sig)
{
	int status;

	WL_SYS(kill(kid[id], sig));
	expect_chld(kid[id], CLD_STOPPED, sig); /* before it is waited for, which takes the signal's number */
	WL_EQ("waitpid", kid[id], WL_SYS(waitpid(kid[id], &status, WUNTRACED)));
	WL_CHECK(WIFSTOPPED(status) && WSTOPSIG(status) == sig, "stop: expected signal %d, got status %x", sig, status);
}

static void continue_and_hear(int id)
{
	int status;

	WL_SYS(kill(kid[id], SIGCONT));
	expect_chld(kid[id], CLD_CONTINUED, SIGCONT);
	WL_EQ("waitpid", kid[id], WL_SYS(waitpid(kid[id], &status, WCONTINUED)));
	WL_CHECK(WIFCONTINUED(status), "continuation: expected such a status, got %x", status);
}

static void await_steps(int id)
{
	long was[3];
	int i;

	for (i = 0; i < 3; i++)
		was[i] = sh->steps[id][i];
	for (i = 0; i < 3; i++)
		WL_AWAIT(sh->steps[id][i] != was[i] || (id == READER && i != 1), "steps");
}

static void remember(int id)
{
	int i;

	for (i = 0; i < 3; i++)
		at_stop[id][i] = sh->steps[id][i];
}

static void stands_still(const char *what, int id)
{
	int i;

	for (i = 0; i < 3; i++)
		WL_CHECK(sh->steps[id][i] == at_stop[id][i], "%s, thread %d: expected to stand still at %ld, got %ld", what, i,
			 at_stop[id][i], sh->steps[id][i]);
}

static void start(int id, int (*fn)(void *))
{
	int i;

	kid[id] = wl_spawn(fn, (void *)(intptr_t)id);
	for (i = 0; i < 3; i++)
		WL_AWAIT(sh->steps[id][i], "the first step");
}

static void make_all(void)
{
	int id;

	WL_SYS(pipe2(pipefd, O_CLOEXEC));
	for (id = 0; id < KIDS; id++)
		start(id, id == READER ? reader : counter);
	/* a job of two, a group of its own */
	WL_SYS(setpgid(kid[JOB], kid[JOB]));
	WL_SYS(setpgid(kid[JOB2], kid[JOB]));
	stop_and_hear(HEARD, SIGSTOP);
	stop_and_hear(READER, SIGSTOP);
	reader_stopped = wl_now();
	WL_SYS(kill(kid[READER], SIGUSR1));
	WL_SYS(kill(-kid[JOB], SIGTSTP));
	WL_SYS(waitpid(kid[JOB], NULL, WUNTRACED)); /* one of the two */
	expect_news("the other of the job", kid[JOB], 0, 0);
	WL_AWAIT(({ siginfo_t si = { 0 }; waitid(P_PID, (id_t)kid[JOB2], &si, WSTOPPED | WNOHANG | WNOWAIT); si.si_pid; }), "stop of the other");
	WL_SYS(kill(kid[UNHEARD], SIGSTOP));
	WL_AWAIT(({ siginfo_t si = { 0 }; waitid(P_PID, (id_t)kid[UNHEARD], &si, WSTOPPED | WNOHANG | WNOWAIT); si.si_pid; }), "stop");
	WL_SYS(kill(kid[GOES_ON], SIGSTOP));
	WL_SYS(waitpid(kid[GOES_ON], NULL, WUNTRACED));
	WL_SYS(kill(kid[GOES_ON], SIGCONT));
	await_steps(GOES_ON);
	for (id = 0; id < GOES_ON; id++)
		remember(id);
}

static void check_all(void)
{
	stands_still("stopped and heard of", HEARD);
	stands_still("stopped and not heard of", UNHEARD);
	stands_still("the job", JOB);
	stands_still("the other of the job", JOB2);
	stands_still("stopped in a read", READER);
	WL_EQ("the handler of who is stopped", 0, sh->handled);
	expect_news("stopped and heard of", kid[HEARD], 0, 0);
	expect_news("stopped and not heard of", kid[UNHEARD], CLD_STOPPED, SIGSTOP);
	expect_news("the job", kid[JOB], 0, 0);
	expect_news("the other of the job", kid[JOB2], CLD_STOPPED, SIGTSTP);
	expect_news("stopped in a read", kid[READER], 0, 0);
	expect_news("goes on", kid[GOES_ON], CLD_CONTINUED, SIGCONT);
}

static void yoyo(void)
{
	no_chld();
	stop_and_hear(YOYO, SIGSTOP);
	expect_news("heard of once", kid[YOYO], 0, 0);
	no_chld();
	remember(YOYO);
	wl_sleep_ns(3 * WL_MS);
	stands_still("stopped a moment ago", YOYO);
	continue_and_hear(YOYO);
	expect_news("heard of once", kid[YOYO], 0, 0);
	no_chld();
	await_steps(YOYO);
}

/* Never early; late by what nobody can know, the time that it had slept when it was stopped. */
static void await_sleeper(void)
{
	uint64_t due = reader_stopped + LONG_SLEEP;
	int looks = 0;

	while (!sh->slept_till && looks < LATE_LOOKS) {
		wl_sleep_ns(WL_MS);
		looks += wl_now() > due;
	}
	WL_CHECK(sh->slept_till, "a sleep of %llu s: expected its end by now, got none %llu ms after it began, looked for it %d times",
		 LONG_SLEEP / WL_SEC, (unsigned long long)((wl_now() - sh->sleeps_from) / WL_MS), looks);
	WL_CHECK(sh->slept_till + WL_MS >= sh->sleeps_from + LONG_SLEEP, "a sleep of %llu s: expected no less, got %llu ms",
		 LONG_SLEEP / WL_SEC, (unsigned long long)((sh->slept_till - sh->sleeps_from) / WL_MS));
}

static void wake_all(void)
{
	int id, status;

	WL_EQ("waitpid", kid[UNHEARD], WL_SYS(waitpid(kid[UNHEARD], &status, WUNTRACED)));
	WL_EQ("waitpid", kid[JOB2], WL_SYS(waitpid(kid[JOB2], &status, WUNTRACED)));
	WL_EQ("waitpid", kid[GOES_ON], WL_SYS(waitpid(kid[GOES_ON], &status, WCONTINUED)));
	for (id = 0; id < GOES_ON; id++) {
		continue_and_hear(id);
		await_steps(id);
	}
	WL_AWAIT(sh->handled == 1, "the handler");
	await_sleeper();
}

int main(void)
{
	sigset_t set;
	int id;

	wl_init();
	sh = wl_shared(sizeof(*sh));
	sigemptyset(&set);
	sigaddset(&set, SIGCHLD);
	WL_SYS(sigprocmask(SIG_BLOCK, &set, NULL));
	make_all();
	/* one SIGCHLD stands for all that came while it was pending */
	WL_AWAIT(({ struct timespec zero = { 0, 0 }; sigtimedwait(&set, NULL, &zero) < 0; }), "no SIGCHLD");
	wl_ready();
	while (!wl_stopping()) {
		check_all();
		yoyo();
		wl_pace();
	}
	check_all();
	wake_all();
	sh->stop = 1;
	WL_SYS(write(pipefd[1], "x", 1));
	for (id = 0; id < KIDS; id++)
		wl_reap(kid[id], 10 + id);
	wl_ok();
}
