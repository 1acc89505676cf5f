/* SPDX-License-Identifier: GPL-3.0-or-later */
/* What is left of a sleep that is stopped and says nothing of it itself: never less than is true. */
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "pod/base/io.h"
#include "pod/task/restart.h"
#include "tests/harness.h"

#define LONG_NS (600 * NSEC_PER_SEC) /* not over before it is killed, whatever the machine does */
#define LIMIT_MS 60000

static uint64_t asleep_before; /* it fell asleep before this */

static void fall_asleep(pid_t pid)
{
	uint64_t deadline = deadline_ms(LIMIT_MS);
	char path[32];

	snprintf(path, sizeof(path), "/proc/%d/wchan", pid);
	for (;;) {
		autofree char *text = NULL;
		bool sleeps = io_read_file(path, 4096, &text, NULL, NULL) == 0 && (strstr(text, "nanosleep") || strstr(text, "syscall"));

		asleep_before = now_ns();
		if (sleeps)
			return;
		T_REQUIRE(asleep_before < deadline);
		usleep(1000); /* there is no event for it */
	}
}

static void nothing(int sig)
{
	(void)sig;
}

/* Sleeps for LONG_NS, on @cpu if it is not negative, and again whenever a SIGUSR1 has ended that. */
static pid_t start(int cpu, uint64_t *from)
{
	pid_t pid;

	*from = now_ns();
	pid = fork();
	T_REQUIRE(pid >= 0);
	if (pid == 0) {
		const struct timespec ts = { (time_t)(LONG_NS / NSEC_PER_SEC), 0 };
		const struct sigaction sa = { .sa_handler = nothing };
		cpu_set_t set;

		CPU_ZERO(&set);
		CPU_SET((size_t)MAX(cpu, 0), &set);
		if (cpu >= 0 && sched_setaffinity(0, sizeof(set), &set) < 0)
			_exit(1);
		sigaction(SIGUSR1, &sa, NULL);
		while (syscall(SYS_nanosleep, &ts, NULL) < 0)
			;
		_exit(0);
	}
	fall_asleep(pid);
	return pid;
}

static void stop(struct task *t)
{
	struct err e = { 0 };

	T_OK(task_seize(t, &e), &e);
	T_OK(task_interrupt(t, &e), &e);
	T_OK(task_wait_stopped(t, deadline_ms(LIMIT_MS), &e), &e);
	T_OK(task_save(t, &e), &e);
	restart_saw(t);
}

static uint64_t take(struct task *t)
{
	uint64_t left;
	uint32_t nr;

	restart_take(t, &nr, &left);
	T_CHECK_EQ(nr, SYS_nanosleep);
	return left;
}

static void end(struct task *t)
{
	kill(t->tid, SIGKILL);
	waitpid(t->tid, NULL, __WALL);
	task_done(t);
}

/* Each CPU has a clock of its own, by which it counts. */
static void test_time_slept(void)
{
	struct err e = { 0 };
	cpu_set_t mine;
	int cpu, seen = 0;

	T_OK(task_tick_start(&e), &e);
	T_REQUIRE(sched_getaffinity(0, sizeof(mine), &mine) == 0);
	for (cpu = 0; cpu < CPU_SETSIZE && seen < 4; cpu++) {
		struct task t = { 0 };
		uint64_t from, left, slept;
		cpu_set_t now;

		if (!CPU_ISSET((size_t)cpu, &mine))
			continue;
		seen++;
		t.tid = t.nstid = start(cpu, &from);
		while (now_ns() < from + 100 * NSEC_PER_MSEC)
			usleep(10000); /* it is to have slept for a while */
		restart_sample(&t, t.tid);
		slept = now_ns() - asleep_before; /* at least */
		stop(&t);
		left = take(&t);
		T_CHECK(left <= LONG_NS && left >= LONG_NS - (now_ns() - from));
		T_CHECK(left < LONG_NS);
		printf("# CPU %d: slept for %.3f ms, %.3f ms are deducted\n", cpu, (double)slept / 1e6, (double)(LONG_NS - left) / 1e6);
		end(&t);
		T_CHECK(sched_getaffinity(0, sizeof(now), &now) == 0 && CPU_EQUAL(&now, &mine)); /* where it went to look */
	}
}

/* Between the look and the stop it has woken and gone to sleep again. */
static void test_another_sleep(void)
{
	struct task t = { 0 };
	uint64_t from;

	t.tid = t.nstid = start(-1, &from);
	restart_sample(&t, t.tid);
	T_CHECK(t.switches > 0 && t.slept_ns);
	T_REQUIRE(kill(t.tid, SIGUSR1) == 0);
	while (restart_switches(t.tid) == t.switches && now_ns() < from + LONG_NS / 10)
		usleep(1000); /* there is no event for it */
	fall_asleep(t.tid);
	stop(&t);
	T_CHECK_EQ(take(&t), LONG_NS);
	end(&t);
}

/* It goes on, and is stopped again; by another engine in the end, which knows of it by a note. */
static void test_stopped_again(void)
{
	struct task t = { 0 }, other = { 0 };
	uint64_t from, until;
	struct err e = { 0 };

	t.tid = t.nstid = start(-1, &from);
	restart_sample(&t, t.tid);
	stop(&t);
	take(&t);
	until = t.left_until;
	T_CHECK(until >= from + LONG_NS);
	T_OK(task_release(&t, &e), &e);
	fall_asleep(t.tid);
	restart_sample(&t, t.tid);
	stop(&t);
	T_CHECK_EQ(t.regs.orig_rax, SYS_restart_syscall);
	take(&t);
	T_CHECK(t.left_until >= until && t.left_until < until + 60 * NSEC_PER_SEC);
	until = t.left_until;
	T_OK(task_release(&t, &e), &e);
	fall_asleep(t.tid);

	other.tid = other.nstid = t.tid;
	restart_noted(&other, until, SYS_nanosleep, t.until_switches);
	restart_sample(&other, t.tid);
	stop(&other);
	take(&other);
	T_CHECK(other.left_until >= until && other.left_until < until + 60 * NSEC_PER_SEC);
	T_OK(task_release(&other, &e), &e);
	fall_asleep(t.tid);

	/* a note of another sleep, which ends earlier */
	task_done(&other);
	other = (struct task){ .tid = t.tid, .nstid = t.tid };
	restart_noted(&other, until - LONG_NS / 2, SYS_nanosleep, t.until_switches - 100);
	restart_sample(&other, t.tid);
	stop(&other);
	take(&other);
	T_CHECK(other.left_until >= from + LONG_NS);
	end(&other);
	task_done(&t);
}

/* The time in which a signal had stopped it counts, too. */
static void test_stopped_by_a_signal(void)
{
	struct err e = { 0 };
	uint64_t from, till;
	int i, status;

	for (i = 0; i < 8; i++) {
		struct task t = { 0 };
		uint64_t left;

		t.tid = t.nstid = start(-1, &from);
		T_REQUIRE(kill(t.tid, SIGSTOP) == 0 && waitpid(t.tid, &status, WUNTRACED) == t.tid && WIFSTOPPED(status));
		for (till = now_ns() + 40 * NSEC_PER_MSEC; now_ns() < till;)
			usleep(10000); /* it is to have been stopped for a while */
		restart_sample(&t, t.tid);
		stop(&t);
		T_CHECK(t.stopsig == SIGSTOP);
		left = take(&t);
		T_CHECK(left >= LONG_NS - (now_ns() - from));
		T_CHECK(left <= LONG_NS - 20 * NSEC_PER_MSEC);
		T_OK(task_release(&t, &e), &e);
		end(&t);
	}
}

static const struct test_case cases[] = {
	{ "time_slept", test_time_slept },
	{ "another_sleep", test_another_sleep },
	{ "stopped_again", test_stopped_again },
	{ "stopped_by_a_signal", test_stopped_by_a_signal },
};
const struct test_suite restart_suite = { "restart", cases, ARRAY_SIZE(cases) };
