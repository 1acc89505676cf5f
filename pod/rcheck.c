/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * What a tree of processes must be, looked at before anything is made of it.
 *
 * It must be one that processes can have become: pid 1, parents and session leaders that are there, and
 * an order in which all can be made. And in a user's pod nobody may have what that user could not have
 * given to a program: an image says nothing about privilege. What a user's own fresh pod has here is the
 * measure, that is what this engine was started with (ids and capabilities: kind creds).
 */
#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "pod/base/io.h"
#include "pod/base/util.h"
#include "pod/mem/mem.h"
#include "pod/dump.h"
#include "pod/restore.h"

#define MAX_PROCS 100000
#define MAX_PID (4u << 20)
#define IOPRIO_CLASS_RT 1

static int by_pid(const void *a, const void *b)
{
	uint32_t x = (*(Pm__Proc *const *)a)->pid, y = (*(Pm__Proc *const *)b)->pid;

	return x < y ? -1 : x > y;
}

struct index {
	Pm__Proc **p;
	uint8_t *state;
	size_t n;
};

enum { NEW, BEGUN, DONE };

static size_t find(const struct index *x, uint32_t pid)
{
	Pm__Proc key = { .pid = pid }, *k = &key, **f = bsearch(&k, x->p, x->n, sizeof(*x->p), by_pid);

	return f ? (size_t)(f - x->p) : x->n;
}

/* Whom @w is made after, one at a time: its parent, and if it is an orphan the leader of its session. x->n: nobody. */
static size_t needs(const struct index *x, const Pm__Proc *w, int k)
{
	if (w->pid == 1)
		return x->n;
	if (k == 0)
		return find(x, w->ppid);
	return w->ppid == 1 && w->sid != w->pid ? find(x, w->sid) : x->n;
}

/* Walks from @i along what is needed; whom the walk meets while it stands on him needs himself. */
static int walk(struct index *x, size_t i, size_t *stack, struct err *e)
{
	size_t depth = 0;

	stack[depth++] = i;
	x->state[i] = BEGUN;
	while (depth) {
		size_t at = stack[depth - 1], to = x->n;
		int k;

		for (k = 0; k < 2; k++) {
			to = needs(x, x->p[at], k);
			/* pid 1 is there from the beginning, whoever leads its session */
			if (to < x->n && x->p[to]->pid != 1 && x->state[to] == BEGUN)
				return err_set(e, EBADMSG, "the process tree has a loop at pid %u", x->p[to]->pid);
			if (to < x->n && x->state[to] == NEW)
				break;
		}
		if (k == 2) {
			x->state[at] = DONE;
			depth--;
			continue;
		}
		x->state[to] = BEGUN;
		stack[depth++] = to;
	}
	return 0;
}

static int check_job(const Pm__Proc *w, struct err *e)
{
	bool ok = !w->stop_signal || (w->stop_signal >= SIGSTOP && w->stop_signal <= SIGTTOU);

	if (ok && w->job_news <= JOB_CONTINUED && (w->pid != 1 || (!w->stop_signal && !w->job_news)))
		return 0;
	return err_set(e, EBADMSG, "pid %u is stopped by signal %u, news %u", w->pid, w->stop_signal, w->job_news);
}

/* One whose leader has ended has others; the leader is the first or none. */
static int check_leader(const Pm__Proc *w, struct err *e)
{
	size_t i, n = 0;

	for (i = 0; i < w->n_threads; i++)
		n += w->threads[i]->tid == w->pid;
	if (!w->leader_dead || (w->n_threads && !n && !w->zombie && w->pid != 1))
		return 0;
	return err_set(e, EBADMSG, "pid %u has ended, and has %zu threads", w->pid, w->n_threads);
}

static int check_procs(const struct index *x, struct err *e)
{
	size_t i, at;

	for (i = 0; i < x->n; i++) {
		const Pm__Proc *w = x->p[i];

		if (!w->pid || w->pid > MAX_PID || (i && x->p[i - 1]->pid == w->pid))
			return err_set(e, EBADMSG, "pid %u is none, or there twice", w->pid);
		if (check_job(w, e) < 0 || check_leader(w, e) < 0)
			return -EBADMSG;
		if (w->exit_signal > 65)
			return err_set(e, EBADMSG, "pid %u ends with signal %u", w->pid, w->exit_signal - 1);
		at = w->pid == 1 ? x->n : find(x, w->ppid);
		if (w->pid == 1 ? w->zombie : at == x->n || x->p[at]->zombie)
			return err_set(e, EBADMSG, "pid %u: its parent %u is not in the image", w->pid, w->ppid);
		at = find(x, w->sid);
		if (at < x->n && x->p[at]->sid != w->sid)
			return err_set(e, EBADMSG, "pid %u: its session %u is led by nobody", w->pid, w->sid);
	}
	return 0;
}

static int check_filters(const Pm__Tree *t, struct err *e)
{
	size_t i, k, n;

	for (i = 0; i < t->n_filters; i++) {
		const Pm__Filter *f = t->filters[i];

		if (!f->prog.len || f->prog.len % sizeof(struct sock_filter) || f->prog.len / sizeof(struct sock_filter) > BPF_MAXINSNS ||
		    (f->flags & ~(uint32_t)SECCOMP_FILTER_FLAG_LOG))
			return err_set(e, EBADMSG, "a seccomp filter of %zu bytes, flags %x", f->prog.len, f->flags);
	}
	for (i = 0; i < t->n_procs; i++)
		for (k = 0; k < t->procs[i]->n_threads; k++) {
			const Pm__Thread *th = t->procs[i]->threads[k];

			if (th->seccomp > SECCOMP_MODE_FILTER || th->n_filters > SECCOMP_MAX_FILTERS ||
			    (th->seccomp == SECCOMP_MODE_FILTER) != (th->n_filters > 0))
				return err_set(e, EBADMSG, "thread %u: seccomp mode %u, %zu filters", th->tid, th->seccomp, th->n_filters);
			for (n = 0; n < th->n_filters; n++)
				if (th->filters[n] >= t->n_filters)
					return err_set(e, EBADMSG, "thread %u: seccomp filter %u is not in the image", th->tid, th->filters[n]);
		}
	return 0;
}

int rcheck_tree(const Pm__Tree *t, struct err *e)
{
	struct index x = { .n = t->n_procs };
	autofree size_t *stack = NULL;
	size_t i;
	int q;

	if (!t->n_procs || t->n_procs > MAX_PROCS || t->procs[0]->pid != 1)
		return err_set(e, EBADMSG, "a tree of %zu processes without pid 1", t->n_procs);
	q = check_filters(t, e);
	if (q < 0)
		return q;
	x.p = malloc(x.n * sizeof(*x.p));
	x.state = calloc(x.n, 1);
	stack = malloc(x.n * sizeof(*stack));
	q = x.p && x.state && stack ? 0 : err_num(e, ENOMEM, "the tree");
	if (q >= 0) {
		memcpy(x.p, t->procs, x.n * sizeof(*x.p));
		qsort(x.p, x.n, sizeof(*x.p), by_pid);
		q = check_procs(&x, e);
	}
	for (i = 0; q >= 0 && i < x.n; i++)
		if (x.state[i] == NEW)
			q = walk(&x, i, stack, e);
	free(x.p);
	free(x.state);
	return q;
}

/* ---- privilege */

int rcheck_bounds(struct bounds *b, struct err *e)
{
	autofree char *text = NULL;
	int i, q = io_read_file("/proc/self/oom_score_adj", 32, &text, NULL, e);

	if (q < 0)
		return q;
	b->oom_adj = (int32_t)strtol(text, NULL, 10);
	free(text);
	text = NULL;
	q = io_read_file("/proc/self/coredump_filter", 32, &text, NULL, e);
	if (q < 0)
		return q;
	b->core_filter = (uint32_t)strtoul(text, NULL, 16);
	b->nice = getpriority(PRIO_PROCESS, 0);
	for (i = 0; i < RLIMITS; i++) {
		struct rlimit l;

		if (getrlimit((__rlimit_resource_t)i, &l) < 0)
			return err_sys(e, "limit %d", i);
		b->hard[i] = l.rlim_max;
	}
	return 0;
}

/* What setpriority() would let the user do. */
static int32_t nice_min(const struct bounds *b)
{
	int32_t lowest = b->hard[RLIMIT_NICE] > 40 ? -20 : 20 - (int32_t)b->hard[RLIMIT_NICE];

	return MIN(MIN(b->nice, 0), lowest);
}

static int check_thread(const struct bounds *b, const Pm__Thread *th, struct err *e)
{
	/* what sched_setscheduler() would let the user do */
	uint32_t policy = th->policy & ~(uint32_t)SCHED_RESET_ON_FORK;

	if (th->nice < nice_min(b))
		return err_set(e, EPERM, "nice %d", th->nice);
	if (policy == SCHED_FIFO || policy == SCHED_RR) {
		if (!th->rt_prio || th->rt_prio > b->hard[RLIMIT_RTPRIO])
			return err_set(e, EPERM, "real-time priority %u", th->rt_prio);
	} else if (policy != SCHED_OTHER && policy != SCHED_BATCH && policy != SCHED_IDLE) {
		return err_set(e, EPERM, "scheduling policy %u", policy);
	}
	if (th->ioprio >> 16) /* the kernel looks at 16 bits */
		return err_set(e, EBADMSG, "I/O priority %u", th->ioprio);
	if (th->ioprio >> 13 == IOPRIO_CLASS_RT)
		return err_set(e, EPERM, "real-time I/O priority");
	return 0;
}

static int check_proc(const struct bounds *b, const Pm__Proc *w, struct err *e)
{
	uint64_t lim[2], locked = 0;
	size_t i;
	int q = 0;

	if (w->oom_adj < MIN(b->oom_adj, 0))
		return err_set(e, EPERM, "OOM score %d", w->oom_adj);
	if (w->autogroup < nice_min(b))
		return err_set(e, EPERM, "autogroup's nice %d", w->autogroup);
	for (i = 0; i < RLIMITS && w->rlimits.len == sizeof(lim) * RLIMITS; i++) {
		memcpy(lim, w->rlimits.data + i * sizeof(lim), sizeof(lim));
		if (lim[1] > b->hard[i])
			return err_set(e, EPERM, "limit %zu of %llu, %llu here", i, (unsigned long long)lim[1],
				       (unsigned long long)b->hard[i]);
	}
	for (i = 0; w->mm && i < w->mm->n_vmas; i++)
		if (w->mm->vmas[i]->flags & VMF_LOCKED)
			locked += w->mm->vmas[i]->end - w->mm->vmas[i]->start;
	if (locked > b->hard[RLIMIT_MEMLOCK])
		return err_set(e, EPERM, "%llu bytes of locked memory, %llu here", (unsigned long long)locked,
			       (unsigned long long)b->hard[RLIMIT_MEMLOCK]);
	for (i = 0; q >= 0 && i < w->n_threads; i++)
		q = check_thread(b, w->threads[i], e);
	return q;
}

int rcheck_policy(const Pm__PodSpec *spec, const struct bounds *b, const Pm__Tree *t, struct err *e)
{
	size_t i;

	for (i = 0; spec->uid && i < t->n_procs; i++)
		if (check_proc(b, t->procs[i], e) < 0)
			return err_wrap(e, "pid %u (%s) has what user '%s' could not give it here", t->procs[i]->pid,
					t->procs[i]->comm, spec->user);
	return 0;
}
