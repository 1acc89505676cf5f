/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Shared anonymous memory between a parent and children: a token that goes round, atomic counters, a
 * process-shared mutex and condition, a mapping of which one process keeps only a piece at another
 * address, one that is read-only in a child, one that the parent itself has given up.
 */
#include "wl.h"

#include <pthread.h>

#define KIDS 3
#define PAGES 512 /* 2 MiB of pages that are handed on */

struct shared {
	_Atomic int stop, up;
	_Atomic uint64_t turn; /* whose turn = turn % (KIDS + 1) */
	_Atomic uint64_t total, each[KIDS + 1];
	uint64_t version[PAGES];
	pthread_mutex_t lock;
	pthread_cond_t moved;
	uint64_t plain; /* under the lock */
	_Atomic uint64_t plain_each[KIDS + 1];
};

static struct shared *sh;
static uint8_t *pages, *left, *readonly;
static _Atomic uint64_t *ro_version;

/* On my turn: the page that my predecessor wrote is right; write the next one. */
static void token(size_t me)
{
	uint64_t t = sh->turn;
	size_t i = t % PAGES, next = (t + 1) % PAGES;

	if (t % (KIDS + 1) != me)
		return;
	wl_verify("page of the predecessor", pages + i * WL_PAGE, WL_PAGE, t, 0);
	WL_EQ("its version", t, sh->version[i]);
	wl_fill(pages + next * WL_PAGE, WL_PAGE, t + 1, 0);
	sh->version[next] = t + 1;
	sh->turn = t + 1;
}

static void count(size_t me)
{
	int i;

	for (i = 0; i < 1000; i++) {
		sh->total++;
		sh->each[me]++;
	}
	WL_ZERO(pthread_mutex_lock(&sh->lock));
	sh->plain++;
	sh->plain_each[me]++;
	WL_ZERO(pthread_cond_broadcast(&sh->moved));
	WL_ZERO(pthread_mutex_unlock(&sh->lock));
}

/* Keeps the second half of the pages only, somewhere else; it must be the same memory. */
static void check_piece(uint8_t *piece)
{
	size_t i = PAGES / 2 + (size_t)(wl_now() / 1000 % (PAGES / 2));
	uint8_t *p = piece + (i - PAGES / 2) * WL_PAGE;
	uint64_t was, now;

	do {
		was = ((volatile uint64_t *)sh->version)[i];
		if (was && was + PAGES > sh->turn + 8)
			wl_verify("page seen through another mapping", p, WL_PAGE, was, 0);
		now = ((volatile uint64_t *)sh->version)[i];
	} while (now != was);
}

static int kid(void *arg)
{
	size_t me = *(size_t *)arg;
	uint8_t *piece = NULL, *to;
	uint64_t was = 0;

	if (me == 1) {
		WL_SYS(mprotect(readonly, 4 * WL_PAGE, PROT_READ));
	} else if (me == 2) {
		to = wl_map(PAGES / 2 * WL_PAGE, PROT_NONE, MAP_PRIVATE);
		piece = mremap(pages + PAGES / 2 * WL_PAGE, 0, PAGES / 2 * WL_PAGE,
			       MREMAP_MAYMOVE | MREMAP_FIXED, to);
		WL_CHECK(piece != MAP_FAILED, "mremap: %s", strerror(errno));
	}
	sh->up++;
	while (!sh->stop) {
		token(me);
		count(me);
		if (me == 1) {
			uint64_t v = *ro_version;

			WL_CHECK(v >= was, "read-only page: expected %llu or more, got %llu",
				 (unsigned long long)was, (unsigned long long)v);
			was = v;
		} else if (me == 2) {
			check_piece(piece);
		} else { /* memory that the parent no longer maps, shared among children */
			(*(_Atomic uint64_t *)left)++;
		}
		if (me != 1)
			(*(_Atomic uint64_t *)(left + WL_PAGE))++;
		wl_sleep_ns(200000);
	}
	if (me == 1)
		WL_AWAIT(*ro_version == UINT64_MAX, "the last write of the parent");
	else
		wl_verify("page that only the children have", left + 2 * WL_PAGE, WL_PAGE, 4711, 0);
	return (int)me + 10;
}

int main(void)
{
	pthread_mutexattr_t ma;
	pthread_condattr_t ca;
	uint64_t sum = 0, plain = 0;
	size_t ids[KIDS + 1], i;
	pid_t pid[KIDS + 1];

	wl_init();
	sh = wl_shared(sizeof(*sh));
	pages = wl_shared(PAGES * WL_PAGE);
	left = wl_shared(4 * WL_PAGE);
	readonly = wl_shared(4 * WL_PAGE);
	ro_version = (_Atomic uint64_t *)(readonly + WL_PAGE);
	WL_ZERO(pthread_mutexattr_init(&ma));
	WL_ZERO(pthread_mutexattr_setpshared(&ma, PTHREAD_PROCESS_SHARED));
	WL_ZERO(pthread_mutex_init(&sh->lock, &ma));
	WL_ZERO(pthread_condattr_init(&ca));
	WL_ZERO(pthread_condattr_setpshared(&ca, PTHREAD_PROCESS_SHARED));
	WL_ZERO(pthread_cond_init(&sh->moved, &ca));
	wl_fill(pages, WL_PAGE, 0, 0);
	wl_fill(left + 2 * WL_PAGE, WL_PAGE, 4711, 0);
	for (i = 1; i <= KIDS; i++) {
		ids[i] = i;
		pid[i] = wl_spawn(kid, &ids[i]);
	}
	WL_AWAIT(sh->up == KIDS, "children");
	WL_SYS(munmap(left, 4 * WL_PAGE));
	wl_ready();
	while (!wl_stopping()) {
		uint64_t t = sh->turn;

		token(0);
		count(0);
		++*ro_version;
		WL_ZERO(pthread_mutex_lock(&sh->lock));
		plain = sh->plain;
		while (sh->plain == plain)
			WL_ZERO(pthread_cond_wait(&sh->moved, &sh->lock));
		WL_ZERO(pthread_mutex_unlock(&sh->lock));
		if (t % (KIDS + 1) == 0) /* it must come back */
			WL_AWAIT(sh->turn % (KIDS + 1) == 0, "the token");
	}
	sh->stop = 1;
	*ro_version = UINT64_MAX;
	for (i = 1; i <= KIDS; i++)
		wl_reap(pid[i], (int)i + 10);
	for (i = 0, plain = 0; i <= KIDS; i++) {
		sum += sh->each[i];
		plain += sh->plain_each[i];
	}
	WL_EQ("atomic counter", sum, sh->total);
	WL_EQ("counter under the mutex", plain, sh->plain);
	wl_ok();
}
