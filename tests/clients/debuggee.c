/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * A program to look at in a debugger: threads that wait in known functions, values in every sort of memory. Each
 * SIGUSR1 is a step: the values change by one.
 */
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define THREADS 4
#define PLAIN __attribute__((noinline, optimize("O0")))

struct far {
	char room[1 << 20];
	long value;
};

volatile long in_data = 1000;			  /* written */
volatile long left_alone[1024] = { [512] = 4242 }; /* as it is in the file */
volatile long in_bss;
const char *const text = "a constant string";
struct far *on_heap, *shared;
static pthread_barrier_t all;
_Thread_local long mine;

static PLAIN double wait_here(long number, double weight)
{
	double sum = weight * 2;

	mine = number;
	pthread_barrier_wait(&all);
	for (;;)
		pause();
	return sum;
}

static PLAIN double deeper(long number)
{
	return wait_here(number + 1, (double)number / 4) + 1;
}

static void *thread(void *arg)
{
	return deeper((long)arg * 100) > 0 ? arg : NULL;
}

static PLAIN void step(int n)
{
	in_data++;
	in_bss = n;
	on_heap->value = 7000 + n;
	shared->value = 9000 + n;
	printf("step %d\n", n);
	fflush(stdout);
}

int main(void)
{
	int n = 0, sig;
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGUSR1);
	sigprocmask(SIG_BLOCK, &set, NULL);
	on_heap = calloc(1, sizeof(*on_heap));
	shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (!on_heap || shared == MAP_FAILED)
		return 1;
	strcpy(on_heap->room, "at its beginning");
	pthread_barrier_init(&all, NULL, THREADS + 1);
	for (long i = 1; i <= THREADS; i++) {
		pthread_t t;

		if (pthread_create(&t, NULL, thread, (void *)i) != 0)
			return 1;
	}
	pthread_barrier_wait(&all);
	step(n);
	while (sigwait(&set, &sig) == 0)
		step(++n);
	return 0;
}
