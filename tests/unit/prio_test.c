/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "pod/base/prio.h"

#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "pod/base/io.h"
#include "tests/harness.h"

#define FED (SCHED_RR | SCHED_RESET_ON_FORK)

static cpu_set_t before;

/* On this CPU alone, before all others: who is ordinary there gets nothing until we sleep. */
static void keep_cpu(bool on)
{
	const struct sched_param sp = { .sched_priority = on ? 2 : 0 };
	cpu_set_t one;
	int cpu = sched_getcpu();

	T_REQUIRE(cpu >= 0);
	CPU_ZERO(&one);
	CPU_SET(cpu, &one);
	if (on)
		T_REQUIRE(sched_getaffinity(0, sizeof(before), &before) == 0);
	T_REQUIRE(sched_setaffinity(0, sizeof(one), on ? &one : &before) == 0);
	if (sched_setscheduler(0, on ? SCHED_FIFO : SCHED_OTHER, &sp) < 0)
		T_SKIP("real-time priority: %s", strerror(errno));
}

/* Born by an ordinary process, on the one CPU. When it has run, @p can be read from. */
static pid_t busy_child(int p[2], bool sleeps)
{
	pid_t pid;
	char c;

	T_REQUIRE(pipe(p) == 0);
	pid = fork();
	T_REQUIRE(pid >= 0);
	if (!pid) {
		const struct sched_param sp = { .sched_priority = 0 };

		prctl(PR_SET_PDEATHSIG, SIGKILL);
		sched_setscheduler(0, SCHED_OTHER, &sp);
		if (write(p[1], "x", 1) != 1)
			_exit(1);
		for (;;)
			if (sleeps)
				pause();
	}
	T_REQUIRE(read(p[0], &c, 1) == 1);
	return pid;
}

static void end_child(pid_t pid, int p[2])
{
	T_CHECK_EQ(kill(pid, SIGKILL), 0);
	T_CHECK_EQ(waitpid(pid, NULL, 0), pid);
	close(p[0]);
	close(p[1]);
}

/* Looked at until it has had nothing in between: others, too, may hold us up. */
static bool fed(pid_t pid, uint64_t *ran)
{
	int i;

	for (i = 0; i < 1000; i++)
		if (prio_feed(pid, ran))
			return true;
	return false;
}

static void test_who_starves_is_fed(void)
{
	const struct sched_param sp = { .sched_priority = 1 };
	uint64_t ran = 0;
	pid_t pid;
	int p[2];

	keep_cpu(true);
	pid = busy_child(p, false);
	T_CHECK(!prio_feed(pid, &ran)); /* it has had something since it was born */
	T_CHECK_EQ(sched_getscheduler(pid), SCHED_OTHER);
	T_CHECK(fed(pid, &ran));
	T_CHECK_EQ(sched_getscheduler(pid), FED);
	T_CHECK(!prio_feed(pid, &ran));
	T_CHECK_EQ(sched_getscheduler(pid), SCHED_OTHER);
	T_CHECK(!prio_feed(pid, &ran)); /* what it had meanwhile is not known */
	T_CHECK(fed(pid, &ran));
	/* it has asked for more itself: that is its own business */
	T_CHECK_EQ(sched_setscheduler(pid, SCHED_FIFO, &sp), 0);
	T_CHECK(!prio_feed(pid, &ran));
	T_CHECK(!prio_feed(pid, &ran));
	T_CHECK_EQ(sched_getscheduler(pid), SCHED_FIFO);
	end_child(pid, p);
	keep_cpu(false);
}

static void test_who_sleeps_is_not(void)
{
	uint64_t end = deadline_ms(60000), ran = 0;
	char path[32], *stat;
	bool sleeps;
	pid_t pid;
	int p[2], i;

	pid = busy_child(p, true);
	snprintf(path, sizeof(path), "/proc/%d/stat", pid);
	do {
		T_REQUIRE(!deadline_past(end));
		T_REQUIRE(io_read_file(path, 4096, &stat, NULL, NULL) >= 0);
		sleeps = strstr(stat, ") S");
		free(stat);
	} while (!sleeps);
	for (i = 0; i < 3; i++)
		T_CHECK(!prio_feed(pid, &ran));
	T_CHECK_EQ(sched_getscheduler(pid), SCHED_OTHER);
	end_child(pid, p);
	T_CHECK(!prio_feed(pid, &ran));
}

static const struct test_case cases[] = {
	{ "who_starves_is_fed", test_who_starves_is_fed },
	{ "who_sleeps_is_not", test_who_sleeps_is_not },
};
const struct test_suite prio_suite = { "prio", cases, ARRAY_SIZE(cases) };
