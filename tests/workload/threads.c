/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * 128 threads: thread-local storage, names, signal masks, tids, robust lists; mutex and condition
 * variable traffic; a robust mutex whose owner process dies; some threads end and are joined, new
 * ones start, all the time.
 */
#include "wl.h"

#include <linux/futex.h>
#include <pthread.h>

#define THREADS 128
#define RING 4 /* threads that pass one token */

struct ring {
	pthread_mutex_t lock;
	pthread_cond_t moved;
	unsigned turn;
	uint64_t passed;
};

struct robust {
	pthread_mutex_t lock;
	int owner;
	_Atomic long deaths;
};

static struct ring rings[THREADS / RING];
static struct robust *rb;
static _Atomic int stop;
static _Atomic long started;
static _Atomic long steps[THREADS];
static pthread_key_t key;
static pthread_rwlock_t rw = PTHREAD_RWLOCK_INITIALIZER;
static uint64_t rw_a, rw_b;
static _Thread_local uint64_t tls_a;
static _Thread_local struct {
	uint64_t word[64];
} tls_b = { { 1, 2, 3 } };

static void check_thread(uint64_t id, pid_t tid, const sigset_t *mask, void *robust_head)
{
	char name[16] = "", want[16];
	size_t len, i;
	sigset_t now;
	void *head;

	WL_EQ("tid", tid, syscall(SYS_gettid));
	snprintf(want, sizeof(want), "wl-%llu", (unsigned long long)id);
	WL_SYS(prctl(PR_GET_NAME, name));
	WL_CHECK(!strcmp(name, want), "thread name: expected %s, got %s", want, name);
	WL_ZERO(pthread_sigmask(SIG_SETMASK, NULL, &now));
	for (i = 1; i < 65; i++)
		WL_CHECK(sigismember(&now, (int)i) == sigismember(mask, (int)i),
			 "mask of thread %llu, signal %zu: expected %d, got %d",
			 (unsigned long long)id, i, sigismember(mask, (int)i),
			 sigismember(&now, (int)i));
	WL_SYS(syscall(SYS_get_robust_list, 0, &head, &len));
	WL_CHECK(head == robust_head, "robust list of thread %llu: expected %p, got %p",
		 (unsigned long long)id, robust_head, head);
	WL_EQ("thread-local storage", id, tls_a);
	for (i = 0; i < 64; i++)
		WL_EQ("thread-local array", wl_word(id, i), tls_b.word[i]);
	WL_EQ("pthread key", id, (uintptr_t)pthread_getspecific(key));
}

static void pass_token(struct ring *r, unsigned me)
{
	WL_ZERO(pthread_mutex_lock(&r->lock));
	while (r->turn != me && !stop)
		WL_ZERO(pthread_cond_wait(&r->moved, &r->lock));
	if (r->turn == me) {
		r->turn = (me + 1) % RING;
		r->passed++;
		WL_ZERO(pthread_cond_broadcast(&r->moved));
	}
	WL_ZERO(pthread_mutex_unlock(&r->lock));
}

static void *short_lived(void *arg)
{
	tls_a = (uintptr_t)arg;
	wl_pace();
	return (void *)(uintptr_t)(tls_a * 3);
}

static void *body(void *arg)
{
	uint64_t id = (uintptr_t)arg, i;
	pid_t tid = (pid_t)syscall(SYS_gettid);
	pthread_t self = pthread_self();
	sigset_t mask;
	char name[16];
	void *head;
	size_t len;

	tls_a = id;
	for (i = 0; i < 64; i++)
		tls_b.word[i] = wl_word(id, i);
	WL_ZERO(pthread_setspecific(key, arg));
	snprintf(name, sizeof(name), "wl-%llu", (unsigned long long)id);
	WL_ZERO(pthread_setname_np(pthread_self(), name));
	WL_ZERO(pthread_sigmask(SIG_SETMASK, NULL, &mask));
	for (i = 0; i < 7; i++)
		if (id >> i & 1)
			sigaddset(&mask, SIGRTMIN + 2 + (int)i);
	WL_ZERO(pthread_sigmask(SIG_SETMASK, &mask, NULL));
	WL_SYS(syscall(SYS_get_robust_list, 0, &head, &len));
	atomic_fetch_add(&started, 1);
	while (!stop) {
		check_thread(id, tid, &mask, head);
		WL_CHECK(pthread_equal(self, pthread_self()), "pthread_self changed");
		pass_token(&rings[id / RING], (unsigned)(id % RING));
		if (id % 16 == 3) {
			WL_ZERO(pthread_rwlock_wrlock(&rw));
			rw_a++;
			wl_pace();
			rw_b++;
			WL_ZERO(pthread_rwlock_unlock(&rw));
		} else if (id % 16 == 5) {
			WL_ZERO(pthread_rwlock_rdlock(&rw));
			WL_EQ("read under the rwlock", rw_a, rw_b);
			WL_ZERO(pthread_rwlock_unlock(&rw));
		} else if (id % 16 == 7) {
			uintptr_t n = id * 1000 + (uintptr_t)steps[id];
			pthread_t t;
			void *res;

			WL_ZERO(pthread_create(&t, NULL, short_lived, (void *)n));
			WL_ZERO(pthread_join(t, &res));
			WL_EQ("result of a thread", n * 3, (uintptr_t)res);
		}
		steps[id]++;
		wl_sleep_ns(20 * WL_MS);
	}
	check_thread(id, tid, &mask, head);
	return (void *)(uintptr_t)(id ^ 0x5a5a);
}

/* Takes the robust mutex and is killed while it holds it. */
static int robust_victim(void *arg)
{
	(void)arg;
	WL_ZERO(pthread_mutex_lock(&rb->lock));
	rb->owner = getpid();
	for (;;)
		pause();
	return 0;
}

static void robust_round(void)
{
	pid_t pid = wl_spawn(robust_victim, NULL);
	int r, status;

	WL_AWAIT(*(volatile int *)&rb->owner == pid, "owner of the robust mutex");
	wl_pace();
	WL_SYS(kill(pid, SIGKILL));
	r = pthread_mutex_lock(&rb->lock);
	WL_EQ("lock of a dead owner", EOWNERDEAD, r);
	WL_ZERO(pthread_mutex_consistent(&rb->lock));
	WL_EQ("owner", pid, rb->owner);
	rb->owner = 0;
	rb->deaths++;
	WL_ZERO(pthread_mutex_unlock(&rb->lock));
	WL_EQ("waitpid", pid, WL_SYS(waitpid(pid, &status, 0)));
	WL_EQ("status", SIGKILL, status);
}

static void setup(void)
{
	pthread_mutexattr_t ma;
	size_t i;

	rb = wl_shared(sizeof(*rb));
	WL_ZERO(pthread_mutexattr_init(&ma));
	WL_ZERO(pthread_mutexattr_setpshared(&ma, PTHREAD_PROCESS_SHARED));
	WL_ZERO(pthread_mutexattr_setrobust(&ma, PTHREAD_MUTEX_ROBUST));
	WL_ZERO(pthread_mutex_init(&rb->lock, &ma));
	WL_ZERO(pthread_key_create(&key, NULL));
	for (i = 0; i < ARRAY_SIZE(rings); i++) {
		WL_ZERO(pthread_mutex_init(&rings[i].lock, NULL));
		WL_ZERO(pthread_cond_init(&rings[i].moved, NULL));
	}
}

int main(void)
{
	pthread_t th[THREADS];
	uint64_t i, rounds = 0;
	void *res;

	wl_init();
	setup();
	for (i = 0; i < THREADS; i++)
		WL_ZERO(pthread_create(&th[i], NULL, body, (void *)(uintptr_t)i));
	WL_AWAIT(started == THREADS, "128 threads");
	wl_ready();
	while (!wl_stopping()) {
		robust_round();
		rounds++;
		wl_sleep_ns(10 * WL_MS);
	}
	/* every thread must still make progress */
	for (i = 0; i < THREADS; i++) {
		long was = steps[i];

		WL_AWAIT(steps[i] > was, "a step of each thread");
	}
	stop = 1;
	for (i = 0; i < ARRAY_SIZE(rings); i++) {
		WL_ZERO(pthread_mutex_lock(&rings[i].lock));
		WL_ZERO(pthread_cond_broadcast(&rings[i].moved));
		WL_ZERO(pthread_mutex_unlock(&rings[i].lock));
	}
	for (i = 0; i < THREADS; i++) {
		WL_ZERO(pthread_join(th[i], &res));
		WL_EQ("result of a thread", i ^ 0x5a5a, (uintptr_t)res);
	}
	WL_EQ("owners that died", rounds, rb->deaths);
	wl_ok();
}
