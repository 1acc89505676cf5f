/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Stopping the tasks of a pod.
 *
 * A listing races with fork and clone: it is repeated until it finds nobody new, which ends because
 * what is stopped starts nothing. A vfork parent cannot be stopped before its child has let go of the
 * memory: the child is let run until then.
 *
 * Who is not stopped yet may end his process, or start another program, which ends its other threads: stopped ones, too. So
 * each pass looks again at them. A leader that ends while others run is told of to nobody; that is seen in /proc.
 */
#include <errno.h>
#include <linux/kcmp.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "pod/base/io.h"
#include "pod/base/util.h"
#include "pod/dump.h"
#include "pod/task/restart.h"

#define VFORK_MS 20

/* Is it held by us under another name? A thread that starts another program becomes the leader. */
static bool is_held(const struct proc *p, const struct task *t)
{
	struct proc_status st;

	return proc_read_status(p->pid, t->tid, &st, NULL) >= 0 && st.tracer == getpid() && !strchr("ZX", st.state);
}

/* It is asked to stop once more, whether it stands still or not: its stop is then one that has not been waited for. -ESRCH: it has ended. */
static int stop_anew(struct task *t, struct err *e)
{
	int status = 0, r;
	pid_t w = waitpid(t->tid, &status, __WALL | WNOHANG);

	t->seized = !(w < 0 || (w > 0 && !WIFSTOPPED(status)));
	t->stopped = t->borrowed = false;
	if (!t->seized)
		return -ESRCH;
	r = task_interrupt(t, e);
	if (r >= 0 && ptrace(PTRACE_CONT, t->tid, NULL, (void *)(long)(status >> 16 || !status ? 0 : WSTOPSIG(status))) < 0 && errno != ESRCH)
		r = err_sys(e, "pid %d: continue", t->nstid);
	return r;
}

int stop_interrupt(struct proc *p, struct err *e)
{
	size_t i;
	int n = 0;

	for (i = 0; i < p->ntasks;) {
		struct task *t = p->tasks[i];
		int r = 0;

		if (!t->seized) {
			r = task_seize_of(t, p->tasks, p->ntasks, e);
			if (r == -EPERM && is_held(p, t))
				r = stop_anew(t, e);
			else if (r >= 0)
				r = task_interrupt(t, e);
			n++;
		}
		if (r == -ESRCH || r == -EPERM) { /* it ended; EPERM is what a zombie gives */
			if (t->tid == p->pid) {
				t->seized = false;
				if (!proc_lost_leader(p))
					return n;
				i = 0;
				continue;
			}
			proc_remove_task(p, i);
			continue;
		}
		if (r < 0)
			return r;
		i++;
	}
	return n;
}

/* Lets the stopped children of @p run on: one of them may hold it in vfork. */
static void free_children(struct dump *d, struct proc *p)
{
	size_t i, k;

	for (i = 0; i < d->procs.n; i++) {
		struct proc *c = d->procs.p[i];

		if (c->nsppid != p->nspid)
			continue;
		for (k = 0; k < c->ntasks; k++)
			task_release(c->tasks[k], NULL);
	}
}

int cut_refuse_vfork(const struct proc *p, const struct proc *child, struct err *e)
{
	return err_set(e, ETIMEDOUT, "pid %d (%s): waits for its vfork child, pid %d, which neither ends nor runs another program",
		       p->nspid, p->st.comm, child->nspid);
}

/* Why it does not stop: a vfork whose child takes its time? */
static int name_vfork(struct dump *d, const struct proc *p, int r, struct err *e)
{
	size_t i;

	for (i = 0; i < d->procs.n; i++) {
		const struct proc *c = d->procs.p[i];

		if (c->nsppid == p->nspid && !c->zombie && syscall(SYS_kcmp, c->tid, p->tid, KCMP_VM, 0, 0) == 0)
			return cut_refuse_vfork(p, c, e);
	}
	return r;
}

/*
 * Looks again at who stands still. If another thread has ended the process, or started another program, they were killed, and a thread
 * that starts one goes on when their tracer has heard of it; then it is the leader, and what was seen of that is of no worth.
 * 1: they are not what they were.
 */
static int look_again(struct proc *p, struct err *e)
{
	int any = 0, r = 0;
	size_t i;

	for (i = p->ntasks; r >= 0 && i-- > 0;) {
		struct task *t = p->tasks[i];
		siginfo_t si = { .si_pid = 0 };

		if (!t->stopped || (waitid(P_PID, (id_t)t->tid, &si, WEXITED | WSTOPPED | WNOHANG | WNOWAIT | __WALL) == 0 && !si.si_pid))
			continue;
		any = 1;
		r = stop_anew(t, e);
		if (r == -ESRCH && t->tid != p->pid)
			proc_remove_task(p, i);
		if (r == -ESRCH)
			r = 0;
	}
	return r < 0 ? r : any;
}

int stop_wait(struct dump *d, struct proc *p, uint64_t deadline, struct err *e)
{
	size_t i;
	int q;

	for (i = 0; i < p->ntasks;) {
		struct task *t = p->tasks[i];
		int r = 0;

		if (t->seized && !t->stopped) {
			do {
				r = task_wait_stopped(t, MIN(deadline, deadline_look_ms(VFORK_MS)), e);
				if (r == -ETIMEDOUT && ((q = look_again(p, e)) || (t->tid == p->pid && proc_lost_leader(p))))
					return q < 0 ? q : 1;
				if (r == -ETIMEDOUT)
					free_children(d, p);
			} while (r == -ETIMEDOUT && !deadline_past(deadline));
			if (r == -ETIMEDOUT)
				r = name_vfork(d, p, r, e);
			if (r >= 0)
				r = task_save(t, e);
			if (r >= 0)
				restart_saw(t);
		}
		if (r == -ESRCH) {
			if (t->tid == p->pid) {
				t->seized = t->stopped = false;
				return 1;
			}
			proc_remove_task(p, i);
			continue;
		}
		if (r < 0)
			return r;
		i++;
	}
	return !p->ntasks;
}

/* Somebody who was not held yet has ended the whole process, who was held with it: that takes its time. */
static bool is_ending(const struct proc *p)
{
	return !p->zombie && p->ntasks && proc_first(p)->stopped && !strchr("tT", p->st.state);
}

int cut_stop(struct dump *d, uint64_t deadline, struct err *e)
{
	int pass, r, fresh = 1;
	size_t i;

	d->stopped = d->touched = true;
	for (pass = 0; fresh; pass++) {
		struct timespec nap = { 0, 200000 };

		fresh = 0;
		if (pass > 3) /* what is ending needs a CPU for it */
			nanosleep(&nap, NULL);
		r = pass ? proc_list_update(&d->procs, d->pid1, e) : 0;
		for (i = 0; r >= 0 && i < d->procs.n; i++) {
			struct proc *p = d->procs.p[i];

			if (p->zombie)
				continue;
			r = pass ? look_again(p, e) : 0;
			if (r < 0)
				return r;
			fresh += r || (pass && is_ending(p));
			r = proc_update_threads(p, e);
			if (r == -ESRCH) {
				r = 0;
				fresh++;
				continue;
			}
			if (r >= 0)
				r = stop_interrupt(p, e);
			if (r > 0)
				fresh += r;
		}
		for (i = 0; r >= 0 && i < d->procs.n; i++)
			if (!d->procs.p[i]->zombie) {
				r = stop_wait(d, d->procs.p[i], deadline, e);
				fresh += r > 0;
			}
		if (r < 0)
			return r;
		if (!pass)
			fresh = 1; /* at least one listing after all are still */
		if (deadline_past(deadline))
			return err_set(e, ETIMEDOUT, "the pod's processes did not stop in time");
	}
	return 0;
}
