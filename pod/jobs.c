/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Job control: processes that are stopped (SIGSTOP, ^Z), and what their parents have not heard of yet.
 *
 * A tracer sees a stopped process in its stop as an EVENT_STOP with the number of the signal. It may be made to
 * run all the same: batches work in it as in any other, and when it is let go it stops again by itself, of
 * which nobody is told. So a stop needs no undoing on the source.
 *
 * Of a stop the kernel keeps whether the parent has waited for it, and of a continuation likewise; waitid()
 * with WNOWAIT, made in the parent, says so and changes nothing. On the target a process is stopped by the same
 * signal, and if its parent had heard of that, its skeleton takes the news; the SIGCHLD that this sends is
 * flushed with that of zombies (rtask.c), for those that the program has yet to see are among its pending signals.
 *
 * A stop may be in progress when all are held: one thread has begun it, the others have not seen it yet, or
 * the signal is pending while nobody runs. It is brought to its end before anything is read, since it changes
 * what the parent has pending.
 */
#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "pod/base/io.h"
#include "pod/base/util.h"
#include "pod/dump.h"
#include "pod/restore.h"

#define CALL_MS 5000
#define INFO 128
#define PER_BATCH 500

/* Through the kernel's signal code and back, without a step of user code: from a stop that is no syscall stop. */
static int go_round(struct task *t, int sig, struct err *e)
{
	int r = task_interrupt(t, e);

	if (r >= 0 && ptrace(PTRACE_CONT, t->tid, NULL, (void *)(long)sig) < 0)
		r = err_sys(e, "pid %d: continue", t->nstid);
	t->stopped = false;
	return r < 0 ? r : task_wait_stopped(t, deadline_ms(CALL_MS), e);
}

/* ---- source */

static bool in_stop(const struct proc *p)
{
	size_t i;

	for (i = 0; i < p->ntasks; i++)
		if (p->tasks[i]->stopsig)
			return true;
	return false;
}

/* A SIGSTOP that came when nobody ran any more: it is taken in the first call that is made. */
static int take_pending(struct dump *d, struct proc *p, struct err *e)
{
	struct task *t = proc_first(p);
	int r;

	batch_begin(d->b, p->scratch);
	batch_add0(d->b, SYS_getpid);
	r = batch_run(t, d->b, deadline_ms(CALL_MS), e);
	if (r >= 0)
		r = task_repair(t, e);
	return r;
}

int jobs_settle(struct dump *d, struct err *e)
{
	size_t i, k;
	int r = 0;

	for (i = 0; r >= 0 && i < d->procs.n; i++) {
		struct proc *p = d->procs.p[i];
		bool pending = (p->st.sig_pnd | p->st.shd_pnd) >> (SIGSTOP - 1) & 1;

		if (p->zombie || (!pending && !in_stop(p)))
			continue;
		if (pending)
			r = take_pending(d, p, e);
		for (k = 0; r >= 0 && k < p->ntasks; k++)
			r = go_round(p->tasks[k], 0, e);
	}
	return r;
}

/* What @parent could wait for. */
static int ask_parent(struct dump *d, struct proc *parent, struct err *e)
{
	size_t i = 0, k, n;
	int r = 0;

	while (r >= 0 && i < d->procs.n) {
		struct proc *child[PER_BATCH];

		batch_begin(d->b, parent->scratch);
		for (n = 0; i < d->procs.n && n < PER_BATCH; i++) {
			struct proc *c = d->procs.p[i];

			if (c->zombie || c->nsppid != parent->nspid || c == parent)
				continue;
			child[n++] = c;
			c->job_news = 0;
			batch_add(d->b, SYS_waitid, P_PID, (uint64_t)c->nspid, batch_data(d->b, NULL, INFO),
				  WSTOPPED | WCONTINUED | WNOHANG | WNOWAIT | __WALL, 0, 0);
		}
		r = batch_run(proc_first(parent), d->b, deadline_ms(CALL_MS), e);
		for (k = 0; r >= 0 && k < n; k++) {
			const siginfo_t *si = batch_local(d->b, d->b->e[k].arg[2]);

			if (d->b->e[k].ret == 0 && si->si_pid)
				child[k]->job_news = si->si_code == CLD_CONTINUED ? JOB_CONTINUED : JOB_STOPPED;
		}
	}
	return r;
}

int jobs_take(struct dump *d, struct err *e)
{
	size_t i;
	int r = 0;

	for (i = 0; r >= 0 && i < d->procs.n; i++)
		if (!d->procs.p[i]->zombie)
			r = ask_parent(d, d->procs.p[i], e);
	return r;
}

/* ---- target */

/* The signal that was sent is there: all others are blocked. */
static int await_sigstop(struct task *t, struct err *e)
{
	int status, r, tries;

	for (tries = 0; tries < 8; tries++) {
		if (ptrace(PTRACE_CONT, t->tid, NULL, NULL) < 0)
			return err_sys(e, "pid %d: continue", t->nstid);
		t->stopped = false;
		r = task_wait(t, &status, deadline_ms(CALL_MS), e);
		if (r < 0 || (status >> 16 == 0 && WSTOPSIG(status) == SIGSTOP))
			return r;
	}
	return err_set(e, EIO, "pid %d: cannot be stopped", t->nstid);
}

static int stop_group(struct rproc *p, int sig, struct err *e)
{
	struct task *t = p->tasks[0];
	size_t i;
	int q = task_set_sigmask(t, ~(1ull << (sig - 1)), e);

	t->borrowed = true;
	if (q >= 0 && syscall(SYS_tgkill, p->pid, t->tid, SIGSTOP) < 0)
		q = err_sys(e, "pid %d: stop", p->nspid);
	if (q >= 0)
		q = await_sigstop(t, e);
	if (q >= 0)
		q = go_round(t, sig, e);
	for (i = 1; q >= 0 && i < p->ntasks; i++)
		q = go_round(p->tasks[i], 0, e);
	for (i = 0; q >= 0 && i < p->ntasks; i++)
		if (p->tasks[i]->stopsig != sig)
			return err_set(e, EIO, "pid %d (%s): is not stopped by signal %d", p->nspid, p->want->comm, sig);
	return q;
}

/* Its parent has not heard yet that it goes on. */
static int go_on(struct restore *r, struct rproc *p, struct err *e)
{
	uint64_t set = 1ull << (SIGCONT - 1);
	size_t i;
	int q = 0;

	if (kill(p->pid, SIGCONT) < 0)
		return err_sys(e, "pid %d: continue", p->nspid);
	for (i = 0; q >= 0 && i < p->ntasks; i++)
		q = go_round(p->tasks[i], 0, e);
	if (q < 0)
		return q;
	batch_begin(r->b, r->scratch);
	batch_add4(r->b, SYS_rt_sigtimedwait, batch_data(r->b, &set, sizeof(set)), 0, batch_data(r->b, NULL, 16), 8);
	return batch_run(p->tasks[0], r->b, deadline_ms(CALL_MS), e);
}

static int hear_of(struct restore *r, struct rproc *parent, const struct rproc *p, struct err *e)
{
	batch_begin(r->b, r->scratch);
	batch_add(r->b, SYS_waitid, P_PID, (uint64_t)p->nspid, batch_data(r->b, NULL, INFO), WSTOPPED | WNOHANG | __WALL, 0, 0);
	return batch_run_ok(parent->tasks[0], r->b, deadline_ms(CALL_MS), e);
}

int jobs_stop(struct restore *r, struct err *e)
{
	size_t i;
	int q = 0;

	for (i = 0; q >= 0 && i < r->nprocs; i++) {
		struct rproc *p = r->procs[i], *parent = rproc_by_ns(r, p->parent);
		const Pm__Proc *w = p->want;

		if (p->zombie || (!w->stop_signal && w->job_news != JOB_CONTINUED))
			continue;
		q = stop_group(p, w->stop_signal ? (int)w->stop_signal : SIGSTOP, e);
		if (q >= 0 && !w->stop_signal)
			q = go_on(r, p, e);
		else if (q >= 0 && w->job_news != JOB_STOPPED && parent && !parent->zombie)
			q = hear_of(r, parent, p, e);
	}
	return q < 0 ? err_wrap(e, "job control") : 0;
}
