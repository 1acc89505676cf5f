/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * standstill COMMAND...: runs it on a machine that hardly gets on now and then, for 4 to 25 s each 15 to 60 s, as one does whose
 * hypervisor has no CPU for it: real-time tasks take every CPU meanwhile. The kernel leaves a twentieth to the others, so
 * that each of them stands still for nearly a second at a time. The command's status is ours; 1 where there are no real-time
 * tasks. For `make check-standstill`.
 */
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "pod/base/deadline.h"

#define STILL_MIN_MS 4000u
#define STILL_MAX_MS 25000u
#define RUNS_MIN_MS 15000u
#define RUNS_MAX_MS 60000u
#define LOOK_US 2000

static _Atomic uint64_t still_till;

static void *spin(void *arg)
{
	const struct sched_param first = { .sched_priority = sched_get_priority_max(SCHED_FIFO) }, ordinary = { 0 };
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET((size_t)(uintptr_t)arg, &set);
	if (sched_setaffinity(0, sizeof(set), &set) < 0)
		return NULL; /* not a CPU of ours */
	for (;;) {
		while (now_ns() >= still_till)
			usleep(LOOK_US);
		if (sched_setscheduler(0, SCHED_FIFO, &first) < 0) {
			perror("standstill: SCHED_FIFO");
			exit(1);
		}
		while (now_ns() < still_till)
			;
		sched_setscheduler(0, SCHED_OTHER, &ordinary);
	}
	return NULL;
}

static unsigned between(unsigned from, unsigned to)
{
	return from + (unsigned)rand() % (to - from + 1);
}

/* True: it has ended. */
static bool wait_ms(pid_t pid, unsigned ms, int *status)
{
	uint64_t end = deadline_ms(ms);

	while (now_ns() < end) {
		if (waitpid(pid, status, WNOHANG) == pid)
			return true;
		usleep(LOOK_US * 10);
	}
	return false;
}

int main(int argc, char **argv)
{
	long i, cpus = sysconf(_SC_NPROCESSORS_CONF);
	int status = 0;
	pthread_t t;
	pid_t pid;

	if (argc < 2) {
		fprintf(stderr, "usage: standstill COMMAND...\n");
		return 2;
	}
	srand((unsigned)time(NULL));
	pid = fork();
	if (pid == 0) {
		execvp(argv[1], argv + 1);
		perror(argv[1]);
		_exit(127);
	}
	for (i = 0; pid > 0 && i < cpus; i++)
		if (pthread_create(&t, NULL, spin, (void *)(uintptr_t)i) != 0)
			return 1;
	while (pid > 0 && !wait_ms(pid, between(RUNS_MIN_MS, RUNS_MAX_MS), &status)) {
		unsigned ms = between(STILL_MIN_MS, STILL_MAX_MS);

		printf("# hardly any CPU for %.1f s\n", ms / 1e3);
		fflush(stdout);
		still_till = deadline_ms(ms);
		if (wait_ms(pid, ms, &status))
			break;
	}
	return pid > 0 && WIFEXITED(status) ? WEXITSTATUS(status) : 1;
}
