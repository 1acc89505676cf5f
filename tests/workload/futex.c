/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Futexes that the kernel knows more of than a word: mutexes with priority inheritance and robust ones, of
 * threads and of processes, always held by one with others waiting; an owner that dies with what it holds,
 * and of whose death the next one hears; a wait with an end; a requeue of waiters from one word to another.
 */
#include "wl.h"

#include <linux/futex.h>
#include <pthread.h>

#define THREADS 3
#define PROCS 2

struct lock {
	pthread_mutex_t m;
	long count[2]; /* always equal to who has the lock */
};

static struct shared {
	_Atomic int stop, holds, woken;
	struct lock pi, robust, both;
	pthread_mutex_t dying;
	_Atomic uint32_t from, to;
	_Atomic long rounds[PROCS][THREADS];
} *sh;

static void init(pthread_mutex_t *m, bool pi, bool robust)
{
	pthread_mutexattr_t a;

	WL_ZERO(pthread_mutexattr_init(&a));
	WL_ZERO(pthread_mutexattr_setpshared(&a, PTHREAD_PROCESS_SHARED));
	if (pi)
		WL_ZERO(pthread_mutexattr_setprotocol(&a, PTHREAD_PRIO_INHERIT));
	if (robust)
		WL_ZERO(pthread_mutexattr_setrobust(&a, PTHREAD_MUTEX_ROBUST));
	WL_ZERO(pthread_mutex_init(m, &a));
}

/* Held for a moment in which all others come to wait. */
static void turn(const char *what, struct lock *l)
{
	WL_ZERO(pthread_mutex_lock(&l->m));
	WL_EQ(what, l->count[0], l->count[1]);
	l->count[0]++;
	wl_sleep_ns(WL_MS / 2);
	l->count[1]++;
	WL_ZERO(pthread_mutex_unlock(&l->m));
}

static void *contend(void *arg)
{
	_Atomic long *rounds = arg;

	while (!sh->stop) {
		turn("priority inheritance", &sh->pi);
		turn("robust", &sh->robust);
		turn("both", &sh->both);
		(*rounds)++;
	}
	return NULL;
}

static int contenders(void *arg)
{
	size_t id = (uintptr_t)arg, i;
	pthread_t th[THREADS];

	for (i = 0; i < THREADS; i++)
		WL_ZERO(pthread_create(&th[i], NULL, contend, (void *)(uintptr_t)&sh->rounds[id][i]));
	for (i = 0; i < THREADS; i++)
		WL_ZERO(pthread_join(th[i], NULL));
	return 31 + (int)id;
}

/* Has the lock till it is told to die with it. */
static int dies(void *none)
{
	(void)none;
	WL_ZERO(pthread_mutex_lock(&sh->dying));
	sh->holds = 1;
	WL_AWAIT(sh->holds == 2, "the order to die");
	_exit(33);
}

static long futex(_Atomic uint32_t *at, int op, uint32_t val, const void *timeout, _Atomic uint32_t *other, uint32_t val3)
{
	return syscall(SYS_futex, at, op, val, timeout, other, val3);
}

/* Waits on one word and is woken from the other. */
static int requeued(void *none)
{
	(void)none;
	WL_SYS(futex(&sh->from, FUTEX_WAIT, 0, NULL, NULL, 0));
	sh->woken++;
	return 34;
}

static void *hears(void *none)
{
	int r = pthread_mutex_lock(&sh->dying);

	(void)none;
	WL_EQ("the lock of one who died", EOWNERDEAD, r);
	WL_ZERO(pthread_mutex_consistent(&sh->dying));
	WL_ZERO(pthread_mutex_unlock(&sh->dying));
	return NULL;
}

static void timed(void)
{
	struct timespec ts = { 0, 5 * WL_MS };
	_Atomic uint32_t word = 7;
	uint64_t from = wl_now();

	WL_EQ("a wait with an end", -1, futex(&word, FUTEX_WAIT, 7, &ts, NULL, 0));
	WL_EQ("errno", ETIMEDOUT, errno);
	WL_CHECK(wl_now() - from >= 5 * WL_MS, "a wait with an end: expected 5 ms, got %llu us",
		 (unsigned long long)(wl_now() - from) / 1000);
}

int main(void)
{
	pid_t kids[PROCS], dead, sleeper;
	long was[PROCS][THREADS];
	pthread_t waits;
	size_t i, k;

	wl_init();
	sh = wl_shared(sizeof(*sh));
	init(&sh->pi.m, true, false);
	init(&sh->robust.m, false, true);
	init(&sh->both.m, true, true);
	init(&sh->dying, true, true);
	for (i = 0; i < PROCS; i++)
		kids[i] = wl_spawn(contenders, (void *)i);
	dead = wl_spawn(dies, NULL);
	WL_AWAIT(sh->holds == 1, "the owner");
	WL_ZERO(pthread_create(&waits, NULL, hears, NULL));
	sleeper = wl_spawn(requeued, NULL);
	/* as soon as it waits it is moved over: it has not run since */
	WL_AWAIT(futex(&sh->from, FUTEX_CMP_REQUEUE, 0, (void *)1ul, &sh->to, 0) == 1, "the waiter");
	wl_ready();
	while (!wl_stopping()) {
		for (i = 0; i < PROCS; i++)
			for (k = 0; k < THREADS; k++)
				was[i][k] = sh->rounds[i][k];
		timed();
		for (i = 0; i < PROCS; i++)
			for (k = 0; k < THREADS; k++)
				WL_AWAIT(sh->rounds[i][k] != was[i][k], "each contender's turn");
		WL_EQ("who has been moved over", 0, sh->woken);
	}
	sh->stop = 1;
	for (i = 0; i < PROCS; i++)
		wl_reap(kids[i], 31 + (int)i);
	sh->holds = 2;
	wl_reap(dead, 33);
	WL_ZERO(pthread_join(waits, NULL));
	/* moved to another node it waits on the word that it has called for */
	WL_AWAIT(futex(&sh->to, FUTEX_WAKE, 1, NULL, NULL, 0) + futex(&sh->from, FUTEX_WAKE, 1, NULL, NULL, 0), "the waiter");
	wl_reap(sleeper, 34);
	wl_ok();
}
