/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Seccomp: filters that pile up over threads and children, each known by the system call that it answers with a
 * number of its own; threads that were synchronized and one that has a filter more; a big filter; one whose
 * every forbidden call kills, so that no call of another's may be made under it; strict mode. At the end the
 * filters of all threads can be synchronized once more, where they could before.
 */
#include "wl.h"

#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <stddef.h>

#define BIG 3000 /* instructions */

static struct shared {
	_Atomic int stop, ready, synced, halted;
} *sh;

static void load(struct sock_filter *f, int n, unsigned flags)
{
	struct sock_fprog prog = { (unsigned short)n, f };

	WL_EQ("seccomp(2)", 0, WL_SYS(syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, flags, &prog)));
}

/* Call @nr answers @err from now on. @pad: so many instructions more, which do nothing. */
static void forbid(unsigned nr, unsigned err, int pad, unsigned flags)
{
	static _Thread_local struct sock_filter f[BIG + 8];
	int n = 0, i;

	f[n++] = (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr));
	for (i = 0; i < pad; i++)
		f[n++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, 100000u + (unsigned)i, 0, 0);
	f[n++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, nr, 0, 1);
	f[n++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | err);
	f[n++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
	load(f, n, flags);
}

/* Only these may be made; any other kills the process. */
static void allow_only(const unsigned *nr, int count)
{
	struct sock_filter f[64];
	int n = 0, i;

	f[n++] = (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr));
	for (i = 0; i < count; i++) {
		f[n++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, nr[i], 0, 1);
		f[n++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
	}
	f[n++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS);
	load(f, n, 0);
}

/* Calls that nobody needs here: answered by a filter, or done. */
static const struct { unsigned nr, err; } known[] = {
	{ SYS_getpgrp, EXDEV }, { SYS_getegid, ENOTTY }, { SYS_sched_yield, ELOOP }, { SYS_getgid, EDOM }, { SYS_geteuid, EPIPE },
};
enum { OF_ALL, OF_THREADS, OF_ONE, OF_CHILD, LATE };

static void check(const char *who, unsigned filters)
{
	size_t i;

	for (i = 0; i < ARRAY_SIZE(known); i++) {
		long r = syscall(known[i].nr);

		if (filters >> i & 1)
			WL_CHECK(r == -1 && errno == (int)known[i].err, "%s: call %zu: expected errno %u, got %ld, errno %d", who, i,
				 known[i].err, r, errno);
		else
			WL_CHECK(r >= 0, "%s: call %zu: expected no filter, got errno %d", who, i, errno);
	}
	WL_EQ("PR_GET_SECCOMP", SECCOMP_MODE_FILTER, prctl(PR_GET_SECCOMP));
}

static void *synchronized(void *arg)
{
	(void)arg;
	WL_AWAIT(sh->synced, "the filter of all threads");
	while (!sh->stop) {
		check("synchronized thread", 1 << OF_ALL | 1 << OF_THREADS);
		wl_sleep_ns(2 * WL_MS);
	}
	sh->halted++;
	WL_AWAIT(sh->synced == 2, "the last filter");
	check("synchronized thread", 1 << OF_ALL | 1 << OF_THREADS | 1 << LATE);
	return NULL;
}

/* Another process: threads that differ. */
static void *one_more(void *arg)
{
	(void)arg;
	forbid(known[OF_ONE].nr, known[OF_ONE].err, 0, 0);
	sh->ready++;
	while (!sh->stop) {
		check("thread with one more", 1 << OF_ALL | 1 << OF_ONE);
		wl_sleep_ns(2 * WL_MS);
	}
	return NULL;
}

static int differing(void *none)
{
	pthread_t th;

	(void)none;
	WL_ZERO(pthread_create(&th, NULL, one_more, NULL));
	sh->ready++;
	while (!sh->stop) {
		check("thread with one less", 1 << OF_ALL);
		wl_sleep_ns(2 * WL_MS);
	}
	WL_ZERO(pthread_join(th, NULL));
	return 21;
}

static int child(void *none)
{
	(void)none;
	forbid(known[OF_CHILD].nr, known[OF_CHILD].err, BIG, SECCOMP_FILTER_FLAG_LOG);
	forbid(known[OF_CHILD].nr, known[OF_CHILD].err, BIG, 0);
	forbid(known[OF_CHILD].nr, known[OF_CHILD].err, BIG, 0);
	sh->ready++;
	while (!sh->stop) {
		check("child", 1 << OF_ALL | 1 << OF_CHILD);
		wl_sleep_ns(2 * WL_MS);
	}
	return 22;
}

static int jailed(void *none)
{
	static const unsigned few[] = { SYS_clock_nanosleep, SYS_nanosleep, SYS_exit_group, SYS_restart_syscall, SYS_write };

	(void)none;
	sh->ready++;
	allow_only(few, ARRAY_SIZE(few));
	while (!sh->stop)
		wl_sleep_ns(2 * WL_MS);
	return 23;
}

/* Strict mode: read, write and exit alone. It sends back what it is sent. */
static int strict(void *arg)
{
	const int *p = arg;
	char c;

	sh->ready++;
	WL_SYS(prctl(PR_SET_SECCOMP, SECCOMP_MODE_STRICT));
	while (read(p[0], &c, 1) == 1 && c != 'q')
		if (write(p[3], &c, 1) != 1)
			break;
	syscall(SYS_exit, c == 'q' ? 24 : 1);
	return 1;
}

int main(void)
{
	int p[4];
	pid_t kids[4];
	pthread_t th[2];
	size_t i;

	wl_init();
	sh = wl_shared(sizeof(*sh));
	WL_SYS(pipe2(p, O_CLOEXEC));
	WL_SYS(pipe2(p + 2, O_CLOEXEC));
	WL_SYS(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
	kids[3] = wl_spawn(strict, p); /* while there is no filter */
	forbid(known[OF_ALL].nr, known[OF_ALL].err, 10, 0);
	kids[0] = wl_spawn(differing, NULL);
	kids[1] = wl_spawn(child, NULL);
	kids[2] = wl_spawn(jailed, NULL);
	for (i = 0; i < 2; i++)
		WL_ZERO(pthread_create(&th[i], NULL, synchronized, NULL));
	forbid(known[OF_THREADS].nr, known[OF_THREADS].err, 0, SECCOMP_FILTER_FLAG_TSYNC);
	sh->synced = 1;
	WL_AWAIT(sh->ready == 5, "the children");
	wl_ready();
	while (!wl_stopping()) {
		char c = 'a', back = 0;

		check("main", 1 << OF_ALL | 1 << OF_THREADS);
		wl_write(p[1], &c, 1);
		wl_read(p[2], &back, 1);
		WL_EQ("what strict mode sends back", c, back);
		wl_pace();
	}
	sh->stop = 1;
	WL_AWAIT(sh->halted == 2, "the threads");
	/* only threads whose filters are all its own can be given another by one of them */
	forbid(known[LATE].nr, known[LATE].err, 0, SECCOMP_FILTER_FLAG_TSYNC);
	sh->synced = 2;
	for (i = 0; i < 2; i++)
		WL_ZERO(pthread_join(th[i], NULL));
	wl_write(p[1], "q", 1);
	for (i = 0; i < 4; i++)
		wl_reap(kids[i], 21 + (int)i);
	check("main", 1 << OF_ALL | 1 << OF_THREADS | 1 << LATE);
	wl_ok();
}
