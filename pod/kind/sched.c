/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Nice value, scheduling policy, slice and CPU affinity of a thread. */
#include <errno.h>
#include <sched.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "pod/base/kernel.h"
#include "pod/base/util.h"
#include "pod/dump.h"
#include "pod/kind/task_kinds.h"

#define MASK_BYTES 128

static bool all_cpus(const uint8_t *mask, size_t len)
{
	long n = sysconf(_SC_NPROCESSORS_ONLN), i;

	for (i = 0; i < n; i++)
		if ((size_t)i / 8 >= len || !(mask[i / 8] >> (i % 8) & 1))
			return false;
	return true;
}

/* 0: not one of the fair scheduler, or an old kernel's */
static uint64_t slice_of(pid_t tid)
{
	struct sched_attrs a = { .size = sizeof(a) };

	if (syscall(SYS_sched_getattr, tid, &a, sizeof(a), 0) < 0 || (a.policy != SCHED_OTHER && a.policy != SCHED_BATCH))
		return 0;
	return a.runtime;
}

static int take(struct dump *d, struct task *t, struct batch *b, uint64_t cookie, Pm__Proc *proc, Pm__Thread *th,
		struct err *e)
{
	uint8_t mask[MASK_BYTES] = { 0 };
	struct sched_param sp;
	long n;

	(void)b;
	(void)cookie;
	(void)proc;
	n = syscall(SYS_sched_getaffinity, t->tid, sizeof(mask), mask);
	if (n < 0)
		return err_sys(e, "read the affinity");
	if (!all_cpus(mask, (size_t)n)) { /* no restriction is none on the target either */
		th->affinity.len = (size_t)n;
		th->affinity.data = memcpy(dump_alloc(d, (size_t)n), mask, (size_t)n);
	}
	th->nice = getpriority(PRIO_PROCESS, (id_t)t->tid);
	th->policy = (uint32_t)sched_getscheduler(t->tid);
	th->slice_ns = slice_of(t->tid);
	if (th->slice_ns == slice_of(d->pid1)) /* the usual one: nobody sets podinit's */
		th->slice_ns = 0;
	if (sched_getparam(t->tid, &sp) == 0)
		th->rt_prio = (uint32_t)sp.sched_priority;
	return 0;
}

/* Affinity and policy come last and from outside (rtask.c): until then a skeleton is its engine's. */
static int give(struct restore *r, const Pm__Proc *proc, const Pm__Thread *th, struct batch *b, struct err *e)
{
	(void)r;
	(void)proc;
	(void)e;
	if (th->nice)
		batch_add3(b, SYS_setpriority, PRIO_PROCESS, 0, (uint64_t)(int64_t)th->nice);
	return 0;
}

const struct kind kind_sched = { .name = "sched", .type = 111, .version = 1, .min_version = 1,
				 .scope = KIND_THREAD, .take = take, .give = give };
