/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * The last calls in every skeleton, after which it is the program again.
 *
 * Per process: memory layout, open files, then each thread's properties (the leader's last: what
 * belongs to the whole process, like dumpable, must follow every thread's change of credentials),
 * then a leader that has ended on the source ends, before anybody is told to hear of its parent's end,
 * then the scratch is unmapped by the `syscall` of the restored vdso, and every thread gets its
 * registers. The stop that the registers are set in is one from which the kernel applies its own
 * rules for interrupted syscalls.
 */
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>

#include "pod/base/io.h"
#include "pod/base/kernel.h"
#include "pod/base/util.h"
#include "pod/dump.h"
#include "pod/mqnotify.h"
#include "pod/proc.h"
#include "pod/restore.h"
#include "pod/task/restart.h"

#define CALL_MS 5000
#define AFFINITY_BYTES 1024

static void flush(struct batch *b, int signal)
{
	uint64_t set = 1ull << (signal - 1), at = batch_data(b, &set, sizeof(set));

	batch_add4(b, SYS_rt_sigtimedwait, at, 0, batch_data(b, NULL, 16), 8);
}

/* What the making of stand-ins and zombies has left behind in @w. */
static void flush_news(struct restore *r, const Pm__Proc *w, struct batch *b)
{
	size_t i;

	flush(b, SIGCHLD);
	for (i = 0; i < r->tree->n_procs; i++) {
		const Pm__Proc *c = r->tree->procs[i];

		if (c->ppid == w->pid && c->zombie && c->exit_signal > 1 && c->exit_signal != SIGCHLD + 1 && b->n < 64)
			flush(b, (int)c->exit_signal - 1);
	}
}

static bool has_sigurg(const ProtobufCBinaryData *infos)
{
	size_t i;

	for (i = 0; i + 128 <= infos->len; i += 128) {
		int signo;

		memcpy(&signo, infos->data + i, sizeof(signo));
		if (signo == SIGURG)
			return true;
	}
	return false;
}

/* Single calls are made there while the scratch is mapped. */
static uint64_t scratch_sysinsn(const struct restore *r)
{
	return r->scratch + (uint64_t)arch_find_syscall(arch_batch_code, (size_t)(arch_batch_code_end - arch_batch_code));
}

/* @all: what belongs to the process, too. */
static int give(struct restore *r, struct rproc *p, const Pm__Thread *th, bool all, struct err *e)
{
	const Pm__Proc *w = p->want;
	struct task *t = rproc_task(p, (pid_t)th->tid);
	const struct kind *const *kinds;
	size_t n, i;
	unsigned first;
	int q = 0;

	if (!t)
		return err_set(e, EIO, "thread %u of pid %d was not made", th->tid, p->nspid);
	kinds = kinds_all(&n);
	batch_begin(r->b, r->scratch);
	flush_news(r, w, r->b);
	first = r->b->n;
	for (i = 0; q >= 0 && i < n; i++) {
		const struct kind *k = kinds[i];

		if (!k->give || k->scope == KIND_FD || (k->scope == KIND_PROC && !all))
			continue;
		q = k->give(r, w, th, r->b, e);
		if (q < 0)
			return err_wrap(e, "pid %d: %s", p->nspid, k->name);
	}
	t->sysinsn = scratch_sysinsn(r);
	t->nobatch = has_sigurg(&th->siginfos) || (all && has_sigurg(&w->siginfos));
	q = batch_run(t, r->b, deadline_ms(CALL_MS), e);
	for (i = first; q >= 0 && i < r->b->n; i++)
		if (r->b->e[i].ret < 0 && r->b->e[i].nr == SYS_set_mempolicy)
			restore_note(r, "pid %d (%s): its memory policy cannot be had here", p->nspid, w->comm);
		else if (r->b->e[i].ret < 0 && r->b->e[i].ret >= -4095)
			q = err_num(e, (int)r->b->e[i].ret, "pid %d (%s): thread %u: syscall %ld(%#lx, %#lx, %#lx)", p->nspid,
				    w->comm, th->tid, (long)r->b->e[i].nr, (long)r->b->e[i].arg[0],
				    (long)r->b->e[i].arg[1], (long)r->b->e[i].arg[2]);
	return q;
}

/*
 * A leader that has ended, and is there for its number's sake, takes what belongs to the process as if it lived, and then ends. It has
 * told the kernel nothing about its memory (clear_child_tid, a robust list): what its end did to that was done on the source.
 * Who it has as children get another thread of its for a parent, and hear of that by pdeathsig if they are to: they come later.
 */
static int end_leader(struct restore *r, struct rproc *p, struct err *e)
{
	const struct timespec nap = { 0, 50000 };
	const struct sched_param sp = { .sched_priority = 0 };
	const Pm__Proc *w = p->want;
	struct task *t = p->tasks[0];
	struct proc_status st;
	Pm__Thread th;
	uint64_t end;
	int q;

	pm__thread__init(&th);
	th.tid = w->pid;
	th.comm = w->comm;
	th.ss_flags = SS_DISABLE;
	th.mce_kill = PR_MCE_KILL_DEFAULT;
	q = give(r, p, &th, true, e);
	if (q < 0)
		return q;
	sched_setscheduler(t->tid, SCHED_OTHER, &sp);
	q = task_exit(t, seccomp_options(w), e);
	end = deadline_ms(CALL_MS);
	while (q >= 0 && (q = proc_read_status(p->pid, 0, &st, e)) >= 0 && st.state != 'Z') {
		if (deadline_past(end))
			return err_set(e, ETIMEDOUT, "pid %d (%s): its main thread does not end", p->nspid, w->comm);
		nanosleep(&nap, NULL);
	}
	if (q < 0)
		return q;
	p->tasks[1]->nobatch |= t->nobatch;
	task_done(t);
	free(t);
	memmove(&p->tasks[0], &p->tasks[1], --p->ntasks * sizeof(p->tasks[0]));
	return 0;
}

static int drop_scratch(struct restore *r, struct rproc *p, struct err *e)
{
	const uint64_t args[6] = { r->scratch, SCRATCH_LEN };
	struct task *t = p->tasks[0];
	int64_t ret;
	size_t i;
	int q;

	for (i = 0; i < p->have.n && p->have.s[i].type != VMA_VDSO; i++)
		;
	if (i == p->have.n)
		return err_set(e, EBADMSG, "pid %d has no vdso", p->nspid);
	t->sysinsn = p->have.s[i].start + r->vdso_syscall;
	q = task_syscall(t, SYS_munmap, args, &ret, e);
	if (q >= 0 && ret < 0)
		q = err_num(e, (int)ret, "pid %d: unmap the scratch", p->nspid);
	return q;
}

/* Must be made while the scratch is there; what is left to do in this thread then is registers. */
static int replay(struct restore *r, struct rproc *p, const Pm__Thread *th, struct err *e)
{
	struct task *t = rproc_task(p, (pid_t)th->tid);
	struct user_regs_struct want;
	int q;

	if (!th->restart || th->gp.len != sizeof(want))
		return 0;
	memcpy(&want, th->gp.data, sizeof(want));
	t->sysinsn = scratch_sysinsn(r);
	q = restart_replay(t, &want, th->restart, th->restart_left_ns, batch_scratch_data(r->scratch), e);
	memcpy(th->gp.data, &want, sizeof(want));
	return q;
}

static int set_registers(struct restore *r, struct rproc *p, const Pm__Thread *th, struct err *e)
{
	struct task *t = rproc_task(p, (pid_t)th->tid);
	int q;

	(void)r;
	if (th->gp.len != sizeof(t->regs) || th->xstate.len < 576 || th->xstate.len > XSTATE_MAX)
		return err_set(e, EBADMSG, "pid %d: registers of %zu and %zu bytes", p->nspid, th->gp.len, th->xstate.len);
	memcpy(&t->regs, th->gp.data, sizeof(t->regs));
	/* selectors are the kernel's business: what an image says of them could be refused, or worse */
	t->regs.cs = 0x33;
	t->regs.ss = 0x2b;
	t->sigmask = th->sigmask;
	t->borrowed = true;
	q = task_repair(t, e);
	return q < 0 ? q : task_set_xstate(t, th->xstate.data, th->xstate.len, e);
}

static int write_number(struct rproc *p, const char *name, long n, struct err *e)
{
	char path[48], text[24];

	snprintf(path, sizeof(path), "/proc/%d/%s", p->pid, name);
	snprintf(text, sizeof(text), "%ld", n);
	return io_write_file(path, text, e);
}

static int set_proc_files(struct restore *r, struct rproc *p, struct err *e)
{
	int q = 0;

	if (p->want->oom_adj)
		q = write_number(p, "oom_score_adj", p->want->oom_adj, e);
	if (q >= 0 && p->want->core_filter && p->want->core_filter - 1 != r->bounds.core_filter)
		q = write_number(p, "coredump_filter", p->want->core_filter - 1, e);
	if (q >= 0 && p->want->autogroup) {
		q = write_number(p, "autogroup", p->want->autogroup, e);
		if (q == -ENOENT) /* a kernel without: each task has its share */
			q = 0;
	}
	return q;
}

/*
 * A sleep that goes on looks, when it is interrupted the next time, as if nobody knew its end: this
 * node's next dump of the pod finds it here.
 */
static void note_sleeps(struct restore *r)
{
	char *text = NULL;
	size_t len = 0, i, k;
	FILE *f = open_memstream(&text, &len);

	for (i = 0; f && i < r->nprocs; i++) {
		const Pm__Proc *w = r->procs[i]->want;

		for (k = 0; k < w->n_threads; k++) {
			const Pm__Thread *th = w->threads[k];
			const struct task *t = th->restart ? rproc_task(r->procs[i], (pid_t)th->tid) : NULL;

			if (t && t->left_until)
				fprintf(f, "%u %llu %u %llu\n", th->tid, (unsigned long long)t->left_until, th->restart,
					(unsigned long long)restart_switches(t->tid));
		}
	}
	if (f && fclose(f) == 0)
		restart_write_notes(r->place.dir, text, len);
	free(text);
}

/*
 * While the pod stands still its skeletons run before all ordinary tasks of the node: each call made
 * in one would wait for a free CPU otherwise. Not before all of them are there: what a real-time task
 * forks has no timer slack to go back to.
 */
void rtask_quick(struct restore *r)
{
	struct sched_param sp = { .sched_priority = 1 };
	autofree char *text = NULL;
	char path[48];
	size_t i, k;

	snprintf(path, sizeof(path), "/proc/%d/timerslack_ns", r->ns.pid);
	if (io_read_file(path, 32, &text, NULL, NULL) < 0)
		return;
	r->slack = strtoull(text, NULL, 10);
	for (i = 0; i < r->nprocs; i++)
		for (k = 0; !r->procs[i]->zombie && k < r->procs[i]->ntasks; k++)
			sched_setscheduler(r->procs[i]->tasks[k]->tid, SCHED_FIFO, &sp);
}

static int set_slice(pid_t tid, const Pm__Thread *th)
{
	struct sched_attrs a = {
		.size = sizeof(a), .policy = th->policy & ~(uint32_t)SCHED_RESET_ON_FORK, .nice = th->nice, .runtime = th->slice_ns,
		.flags = th->policy & SCHED_RESET_ON_FORK ? 1 /* SCHED_FLAG_RESET_ON_FORK */ : 0,
	};

	return (int)syscall(SYS_sched_setattr, tid, &a, 0);
}

/* The program's own CPUs and policy; and its timer slack, which a real-time thread could not be given. */
static int end_quick(struct restore *r, struct rproc *p, const Pm__Thread *th, struct err *e)
{
	struct sched_param sp = { .sched_priority = (int)th->rt_prio };
	pid_t tid = rproc_task(p, (pid_t)th->tid)->tid;
	uint8_t all[AFFINITY_BYTES];
	char path[48], text[24];

	memset(all, 0xff, sizeof(all));
	if (syscall(SYS_sched_setaffinity, tid, th->affinity.len ? th->affinity.len : sizeof(all),
		    th->affinity.len ? th->affinity.data : all) < 0)
		return err_sys(e, "pid %d: affinity", p->nspid);
	if (sched_setscheduler(tid, (int)th->policy, &sp) < 0)
		return err_sys(e, "pid %d: scheduling policy %u", p->nspid, th->policy);
	if (th->slice_ns && set_slice(tid, th) < 0)
		return err_sys(e, "pid %d: slice of %llu ns", p->nspid, (unsigned long long)th->slice_ns);
	if (!th->timer_slack || th->timer_slack == r->slack)
		return 0;
	snprintf(path, sizeof(path), "/proc/%d/timerslack_ns", tid);
	snprintf(text, sizeof(text), "%llu", (unsigned long long)th->timer_slack);
	return io_write_file(path, text, e);
}

static const char *lock_path(struct restore *r, const Pm__Proc *w, const Pm__FileLock *l)
{
	size_t i;

	for (i = 0; i < w->n_fds; i++)
		if (w->fds[i]->fd == l->fd && restore_object(r, w->fds[i]->object))
			return restore_object(r, w->fds[i]->object)->msg->link;
	return "a file";
}

/* File locks, pod/locks.c: at @first what can be had while the source is still there, then the rest. */
static int take_locks(struct restore *r, struct rproc *p, bool first, struct err *e)
{
	const Pm__Proc *w = p->want;
	const Pm__FileLock *of[BATCH_MAX];
	size_t i;
	int q;

	batch_begin(r->b, r->scratch);
	for (i = 0; i < w->n_locks; i++) {
		const Pm__FileLock *l = w->locks[i];
		unsigned k;

		if (!first && !l->steps)
			continue;
		k = locks_call(r->b, l, l->write && !(first && l->steps) ? F_WRLCK : F_RDLCK, false);
		of[k] = l;
	}
	q = batch_run(p->tasks[0], r->b, deadline_ms(CALL_MS), e);
	for (i = 0; q >= 0 && i < r->b->n; i++)
		if (r->b->e[i].ret < 0)
			q = err_num(e, (int)r->b->e[i].ret, "pid %d (%s): the lock on '%s', fd %u", p->nspid, w->comm,
				    lock_path(r, w, of[i]), of[i]->fd);
	return q;
}

/* Before the locks are the pod's own: what closes files comes first. */
static int give_proc(struct restore *r, struct rproc *p, struct err *e)
{
	const Pm__Proc *w = p->want;
	size_t i;
	int q;

	q = rmem_finish(r, p, e);
	if (q >= 0)
		q = set_proc_files(r, p, e);
	if (q >= 0)
		q = robj_place(r, p, e);
	if (q >= 0)
		q = mqnotify_give(r, p, e);
	if (q >= 0)
		q = seccomp_give(r, p, e);
	for (i = w->n_threads; q >= 0 && i-- > 0;)
		q = give(r, p, w->threads[i], i == 0 && !w->leader_dead, e);
	if (q >= 0 && w->leader_dead)
		q = end_leader(r, p, e);
	return q < 0 ? q : take_locks(r, p, true, e);
}

static int finish_proc(struct restore *r, struct rproc *p, struct err *e)
{
	const Pm__Proc *w = p->want;
	size_t i;
	int q = take_locks(r, p, false, e);

	for (i = 0; q >= 0 && i < w->n_threads; i++)
		q = replay(r, p, w->threads[i], e);
	if (q >= 0)
		q = drop_scratch(r, p, e);
	for (i = 0; q >= 0 && i < w->n_threads; i++)
		q = set_registers(r, p, w->threads[i], e);
	for (i = 0; q >= 0 && i < w->n_threads; i++)
		q = end_quick(r, p, w->threads[i], e);
	return q;
}

int rtask_give(struct restore *r, struct err *e)
{
	size_t i;
	int q = 0;

	for (i = 0; q >= 0 && i < r->nprocs; i++)
		if (!r->procs[i]->zombie)
			q = give_proc(r, r->procs[i], e);
	return q;
}

int rtask_finish(struct restore *r, struct err *e)
{
	size_t i;
	int q = 0;

	for (i = 0; q >= 0 && i < r->nprocs; i++)
		if (!r->procs[i]->zombie)
			q = finish_proc(r, r->procs[i], e);
	if (q >= 0)
		note_sleeps(r);
	return q;
}

int rtask_release(struct restore *r, struct err *e)
{
	size_t i, k;
	int q = 0;

	for (i = 0; q >= 0 && i < r->nprocs; i++) {
		struct rproc *p = r->procs[i];

		for (k = 0; !p->zombie && q >= 0 && k < p->ntasks; k++) {
			struct task *t = p->tasks[k];

			/* frozen: from here on the engine's death changes nothing */
			if (ptrace(PTRACE_SETOPTIONS, t->tid, NULL, (void *)(long)PTRACE_O_TRACESYSGOOD) < 0)
				q = err_sys(e, "pid %d: ptrace options", p->nspid);
			if (q >= 0)
				q = task_release(t, e);
		}
	}
	return q;
}
