/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Skeletons: the processes and threads of the pod, with their pids, before they are anybody.
 *
 * A process must be born in its session: setsid() makes a new one, nothing enters an old one. So a
 * child of a session other than its parent's is born
 *	- of its parent, before that has called setsid(), if it was in that session before;
 *	- else in the session's leader (or a stand-in with the leader's pid, if that one is dead), and
 *	  is adopted by pid 1 when the middleman ends.
 * Groups come when all are there: a group whose leader is dead is made by a stand-in, too.
 * Stand-ins are children without an exit signal, so that they leave no SIGCHLD behind.
 */
#include <errno.h>
#include <linux/sched.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "pod/base/io.h"
#include "pod/base/log.h"
#include "pod/base/util.h"
#include "pod/kind/kinds.h"
#include "pod/proc.h"
#include "pod/restore.h"

#define CALL_MS 5000
#define TEMP_FIRST 1000
#define TEMP_LAST 30000
#define THREAD_FLAGS                                                                        \
	(CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD | CLONE_SYSVSEM | \
	 CLONE_PTRACE)

struct rproc *rproc_by_ns(struct restore *r, pid_t nspid)
{
	size_t i;

	for (i = 0; i < r->nprocs; i++)
		if (r->procs[i]->nspid == nspid)
			return r->procs[i];
	return NULL;
}

static const Pm__Proc *wanted(struct restore *r, pid_t nspid)
{
	size_t i;

	for (i = 0; i < r->tree->n_procs; i++)
		if (r->tree->procs[i]->pid == (uint32_t)nspid)
			return r->tree->procs[i];
	return NULL;
}

static void rproc_free(struct rproc *p)
{
	size_t i;

	for (i = 0; i < p->ntasks; i++) {
		task_done(p->tasks[i]);
		free(p->tasks[i]);
	}
	free(p->tasks);
	free(p->have.s);
	runs_done(&p->drops);
	close_fdp(&p->memfd);
	close_fdp(&p->pagemap);
	free(p);
}

void rtree_done(struct restore *r)
{
	size_t i;

	for (i = 0; i < r->nprocs; i++)
		rproc_free(r->procs[i]);
	free(r->procs);
	r->procs = NULL;
	r->nprocs = 0;
}

static struct task *add_task(struct rproc *p, pid_t tid, pid_t nstid)
{
	struct task **nt = realloc(p->tasks, (p->ntasks + 1) * sizeof(*nt));
	struct task *t;

	if (!nt)
		return NULL;
	p->tasks = nt;
	t = calloc(1, sizeof(*t));
	if (!t)
		return NULL;
	*t = (struct task){ .tid = tid, .nstid = nstid, .nstgid = p->nspid, .seized = true, .stopped = true };
	p->tasks[p->ntasks++] = t;
	return t;
}

static struct rproc *add_proc(struct restore *r, pid_t pid, pid_t nspid)
{
	struct rproc **np = realloc(r->procs, (r->nprocs + 1) * sizeof(*np));
	struct rproc *p = np ? calloc(1, sizeof(*p)) : NULL;

	if (np)
		r->procs = np;
	if (!p)
		return NULL;
	p->pid = pid;
	p->nspid = nspid;
	p->memfd = p->pagemap = -1;
	if (!add_task(p, pid, nspid)) {
		free(p);
		return NULL;
	}
	r->procs[r->nprocs++] = p;
	return p;
}

static int run(struct restore *r, struct rproc *p, struct err *e)
{
	return batch_run_ok(p->tasks[0], r->b, deadline_ms(CALL_MS), e);
}

/* ---- births */

static int exit_signal(const Pm__Proc *w)
{
	return w->exit_signal ? (int)w->exit_signal - 1 : SIGCHLD;
}

/* The next newly attached task: its outer id. It is stopped before its first instruction. */
static int wait_newborn(pid_t *tid, struct err *e)
{
	uint64_t end = deadline_ms(CALL_MS);
	int status;

	for (;;) {
		pid_t p = waitpid(-1, &status, __WALL);

		if (p > 0 && WIFSTOPPED(status) && (unsigned)status >> 16 == PTRACE_EVENT_STOP) {
			*tid = p;
			return 0;
		}
		if (p > 0)
			return err_set(e, EPROTO, "task %d stopped with status %#x", p, status);
		if (errno != EINTR)
			return err_sys(e, "wait for a new task");
		if (deadline_past(end))
			return err_set(e, ETIMEDOUT, "a new task does not come");
	}
}

/* Adds a clone3 to the batch. */
static void call_clone(struct batch *b, uint64_t flags, int exit_signal, const pid_t *nspid)
{
	struct clone_args a = { .flags = flags, .exit_signal = (uint64_t)exit_signal, .set_tid_size = 1 };

	a.set_tid = batch_data(b, nspid, sizeof(*nspid));
	batch_add2(b, SYS_clone3, batch_data(b, &a, sizeof(a)), sizeof(a));
}

static int birth(struct restore *r, struct rproc *parent, pid_t nspid, int signal, struct rproc **out,
		 struct err *e)
{
	struct rproc *p;
	pid_t outer;
	int q;

	batch_begin(r->b, r->scratch);
	call_clone(r->b, CLONE_PTRACE, signal, &nspid);
	q = run(r, parent, e);
	if (q >= 0)
		q = wait_newborn(&outer, e);
	if (q < 0)
		return err_wrap(e, "make pid %d", nspid);
	p = add_proc(r, outer, nspid);
	if (!p)
		return err_num(e, ENOMEM, "processes");
	p->sid = parent->sid;
	p->pgid = parent->pgid;
	p->parent = parent->nspid;
	p->exit_signal = signal;
	*out = p;
	q = task_save(p->tasks[0], e);
	/* a child of a parent that has its memory already is a copy of it */
	return q < 0 ? q : rmem_strip(r, p, e);
}

/* The leader takes its terminal at once: processes get theirs by birth alone. */
static int call_setsid(struct restore *r, struct rproc *p, struct err *e)
{
	const Pm__Proc *w = wanted(r, p->nspid);
	int q;

	if (p->sid == p->nspid)
		return 0;
	batch_begin(r->b, r->scratch);
	batch_add0(r->b, SYS_setsid);
	q = w && !w->zombie ? kind_ctty_early(r, w, r->b, e) : 0;
	if (q >= 0)
		q = run(r, p, e);
	p->sid = p->pgid = p->nspid;
	return q < 0 ? err_wrap(e, "session of pid %d", p->nspid) : 0;
}

static void forget(struct restore *r, struct rproc *p)
{
	size_t i;

	for (i = 0; i < r->nprocs; i++)
		if (r->procs[i] == p) {
			memmove(&r->procs[i], &r->procs[i + 1], (r->nprocs - i - 1) * sizeof(*r->procs));
			r->nprocs--;
			rproc_free(p);
			return;
		}
}

/* Ends a skeleton and has its parent take the remains. */
static int end_proc(struct restore *r, struct rproc *p, struct err *e)
{
	struct rproc *parent = rproc_by_ns(r, p->parent), *c;
	uint64_t end = deadline_ms(CALL_MS);
	size_t i;
	int q = 0;

	kill(p->pid, SIGKILL);
	for (i = p->ntasks; i-- > 0;) {
		int status;

		for (;;) {
			pid_t w = waitpid(p->tasks[i]->tid, &status, __WALL);

			if ((w < 0 && errno == ECHILD) || (w > 0 && (WIFEXITED(status) || WIFSIGNALED(status))))
				break;
			if (deadline_past(end))
				return err_set(e, ETIMEDOUT, "pid %d does not end", p->nspid);
		}
	}
	if (parent && !parent->zombie) {
		batch_begin(r->b, r->scratch);
		batch_add4(r->b, SYS_wait4, p->nspid, 0, __WALL, 0);
		q = run(r, parent, e);
	}
	for (i = 0; i < r->nprocs; i++) {
		c = r->procs[i];
		if (c->parent == p->nspid)
			c->parent = 1;
	}
	forget(r, p);
	return q;
}

/* A pid for somebody who ends soon. */
static pid_t free_pid(struct restore *r, struct err *e)
{
	unsigned i;

	for (i = 0; i < TEMP_LAST - TEMP_FIRST; i++) {
		r->temp_pid = r->temp_pid > TEMP_FIRST ? r->temp_pid - 1 : TEMP_LAST;
		if (!wanted(r, (pid_t)r->temp_pid) && !rproc_by_ns(r, (pid_t)r->temp_pid))
			return (pid_t)r->temp_pid;
	}
	return err_set(e, EBADMSG, "all pids from %d to %d are taken", TEMP_FIRST, TEMP_LAST);
}

static int make(struct restore *r, const Pm__Proc *w, int depth, struct err *e);

/* Somebody in session @sid that children can be born of. *@temp: a stand-in that the caller ends. */
static int session_member(struct restore *r, pid_t sid, int depth, struct rproc **out, bool *temp, struct err *e)
{
	struct rproc *leader = rproc_by_ns(r, sid), *one = rproc_by_ns(r, 1);
	const Pm__Proc *w = wanted(r, sid);
	pid_t pid;
	int q;

	*temp = false;
	if (!leader && w) {
		if (w->sid != w->pid)
			return err_set(e, EBADMSG, "session %d is led by nobody", sid);
		q = make(r, w, depth + 1, e);
		if (q < 0)
			return q;
		leader = rproc_by_ns(r, sid);
	}
	*temp = true;
	if (leader) {
		q = call_setsid(r, leader, e);
		if (q >= 0)
			q = pid = free_pid(r, e);
		return q < 0 ? q : birth(r, leader, pid, 0, out, e);
	}
	q = birth(r, one, sid, 0, out, e);
	return q < 0 ? q : call_setsid(r, *out, e);
}

/* Born in another session than its parent's: by a middleman, and adopted by pid 1. */
static int make_adopted(struct restore *r, const Pm__Proc *w, int depth, struct err *e)
{
	struct rproc *mid, *p;
	bool temp;
	size_t i;
	int q = session_member(r, (pid_t)w->sid, depth, &mid, &temp, e);

	/* all orphans of that session at once: a stand-in for its dead leader can be made only once */
	for (i = 0; q >= 0 && i < r->tree->n_procs; i++) {
		const Pm__Proc *o = r->tree->procs[i];

		if (o->sid != w->sid || o->ppid != w->ppid || o->pid == o->sid || rproc_by_ns(r, (pid_t)o->pid))
			continue;
		q = birth(r, mid, (pid_t)o->pid, exit_signal(o), &p, e);
	}
	if (q >= 0 && temp)
		q = end_proc(r, mid, e);
	return q;
}

/* Children of @p that were in the session @p was born into must come before its own setsid(). */
static int make_early_children(struct restore *r, struct rproc *p, struct err *e)
{
	struct rproc *c;
	size_t i;
	int q = 0;

	for (i = 0; q >= 0 && i < r->tree->n_procs; i++) {
		const Pm__Proc *o = r->tree->procs[i];

		if (o->ppid == (uint32_t)p->nspid && o->sid == (uint32_t)p->sid && o->pid != o->sid &&
		    !rproc_by_ns(r, (pid_t)o->pid))
			q = birth(r, p, (pid_t)o->pid, exit_signal(o), &c, e);
	}
	return q;
}

static int make(struct restore *r, const Pm__Proc *w, int depth, struct err *e)
{
	struct rproc *parent, *p = NULL;
	const Pm__Proc *pw;
	int q;

	if (rproc_by_ns(r, (pid_t)w->pid))
		return 0;
	if (depth > 1000)
		return err_set(e, EBADMSG, "the process tree has a loop at pid %u", w->pid);
	pw = wanted(r, (pid_t)w->ppid);
	if (!pw || pw->zombie)
		return err_set(e, EBADMSG, "pid %u: its parent %u is not in the image", w->pid, w->ppid);
	q = make(r, pw, depth + 1, e);
	if (q < 0)
		return q;
	if (rproc_by_ns(r, (pid_t)w->pid))
		return 0; /* made early, with its parent */
	parent = rproc_by_ns(r, (pid_t)w->ppid);
	if (w->sid == w->pid || (pid_t)w->sid == parent->sid)
		q = birth(r, parent, (pid_t)w->pid, exit_signal(w), &p, e);
	else if (w->ppid == 1)
		return make_adopted(r, w, depth, e);
	else
		return err_set(e, EOPNOTSUPP, "pid %u (%s): its session %u is neither its parent's nor one that can be entered",
			       w->pid, w->comm, w->sid);
	if (q < 0 || w->sid != w->pid)
		return q;
	q = make_early_children(r, p, e);
	return q < 0 ? q : call_setsid(r, p, e);
}

/* ---- groups */

static int call_setpgid(struct restore *r, struct rproc *p, pid_t pgid, struct err *e)
{
	int q;

	batch_begin(r->b, r->scratch);
	batch_add2(r->b, SYS_setpgid, 0, pgid);
	q = run(r, p, e);
	if (q < 0)
		return err_wrap(e, "group of pid %d", p->nspid);
	p->pgid = pgid ? pgid : p->nspid;
	return 0;
}

static bool group_exists(struct restore *r, pid_t pgid, pid_t sid)
{
	size_t i;

	for (i = 0; i < r->nprocs; i++)
		if (r->procs[i]->pgid == pgid && r->procs[i]->sid == sid)
			return true;
	return false;
}

static int apply_group(struct restore *r, struct rproc *p, const Pm__Proc *w, struct err *e)
{
	struct rproc *stand_in = NULL;
	pid_t pgid = (pid_t)w->pgid;
	int q = 0;

	if (p->pgid == pgid || p->sid == p->nspid)
		return 0;
	if (!group_exists(r, pgid, p->sid)) {
		q = birth(r, p, pgid, 0, &stand_in, e);
		if (q >= 0)
			q = call_setpgid(r, stand_in, 0, e);
	}
	if (q >= 0)
		q = call_setpgid(r, p, pgid, e);
	if (q >= 0 && stand_in)
		q = end_proc(r, stand_in, e);
	return q;
}

static int apply_groups(struct restore *r, struct err *e)
{
	size_t i;
	int q = 0;

	/* leaders first, so that there is a group to enter */
	for (i = 0; q >= 0 && i < r->nprocs; i++) {
		struct rproc *p = r->procs[i];
		const Pm__Proc *w = wanted(r, p->nspid);

		if (w && w->pgid == w->pid && p->pgid != p->nspid && p->sid != p->nspid)
			q = call_setpgid(r, p, 0, e);
	}
	for (i = 0; q >= 0 && i < r->tree->n_procs; i++) {
		struct rproc *p = rproc_by_ns(r, (pid_t)r->tree->procs[i]->pid);

		if (p)
			q = apply_group(r, p, r->tree->procs[i], e);
	}
	return q;
}

/* ---- threads */

struct task *rproc_task(const struct rproc *p, pid_t nstid)
{
	size_t i;

	for (i = 0; i < p->ntasks; i++)
		if (p->tasks[i]->nstid == nstid)
			return p->tasks[i];
	return NULL;
}

static bool wants_thread(const Pm__Proc *w, pid_t nstid)
{
	size_t i;

	for (i = 0; i < w->n_threads; i++)
		if (w->threads[i]->tid == (uint32_t)nstid)
			return true;
	return false;
}

/* The pod's id of a task of ours, by what /proc says. */
static int ns_tid(pid_t tgid, pid_t tid, pid_t *out, struct err *e)
{
	struct proc_status st;
	int q = proc_read_status(tgid, tid, &st, e);

	*out = st.nspid;
	return q;
}

static int end_thread(struct restore *r, struct rproc *p, size_t i, struct err *e)
{
	struct task *t = p->tasks[i];
	int q;

	batch_begin(r->b, r->scratch);
	batch_add1(r->b, SYS_exit, 0);
	q = batch_run(t, r->b, deadline_ms(CALL_MS), e);
	if (q != -ESRCH)
		return q < 0 ? q : err_set(e, EIO, "thread %d of pid %d does not end", t->nstid, p->nspid);
	task_done(t);
	free(t);
	memmove(&p->tasks[i], &p->tasks[i + 1], (p->ntasks - i - 1) * sizeof(*p->tasks));
	p->ntasks--;
	return 0;
}

#define THREADS_PER_BATCH 200

static int make_threads(struct restore *r, struct rproc *p, const Pm__Proc *w, struct err *e)
{
	size_t i = 0, n, k;
	int q = 0;

	while (q >= 0 && i < w->n_threads) {
		batch_begin(r->b, r->scratch);
		for (n = 0; i < w->n_threads && n < THREADS_PER_BATCH; i++) {
			pid_t tid = (pid_t)w->threads[i]->tid;

			if (rproc_task(p, tid))
				continue;
			call_clone(r->b, THREAD_FLAGS, 0, &tid);
			n++;
		}
		q = run(r, p, e);
		if (q < 0)
			return err_wrap(e, "threads of pid %d", p->nspid);
		for (k = 0; q >= 0 && k < n; k++) {
			pid_t outer, nstid;
			struct task *t;

			q = wait_newborn(&outer, e);
			if (q >= 0)
				q = ns_tid(p->pid, outer, &nstid, e);
			if (q < 0)
				break;
			t = add_task(p, outer, nstid);
			q = t ? task_save(t, e) : err_num(e, ENOMEM, "threads");
		}
	}
	return q;
}

static int apply_threads(struct restore *r, struct rproc *p, const Pm__Proc *w, struct err *e)
{
	size_t i;
	int q = 0;

	if (!w->n_threads || (w->threads[0]->tid == w->pid) == w->leader_dead)
		return err_set(e, EBADMSG, "pid %u: no main thread", w->pid);
	for (i = p->ntasks; q >= 0 && i-- > 1;)
		if (!wants_thread(w, p->tasks[i]->nstid))
			q = end_thread(r, p, i, e);
	return q < 0 ? q : make_threads(r, p, w, e);
}

/* ---- all of it */

int rtree_begin(struct restore *r, struct err *e)
{
	struct rproc *p = add_proc(r, r->ns.pid, 1);
	struct proc_status st = { 0 };
	struct task *t;
	char byte;
	int q;

	if (!p)
		return err_num(e, ENOMEM, "processes");
	t = p->tasks[0];
	t->seized = t->stopped = false;
	q = io_read_full(r->ns.sock, &byte, 1, deadline_ms(CALL_MS), e);
	if (q < 0)
		return err_wrap(e, "pid 1 of the pod");
	q = task_seize(t, e);
	if (q >= 0)
		q = task_interrupt(t, e);
	if (q >= 0)
		q = task_wait_stopped(t, deadline_ms(CALL_MS), e);
	/* until its cgroup is frozen no skeleton may outlive its engine */
	if (q >= 0 && ptrace(PTRACE_SETOPTIONS, t->tid, NULL,
			     (void *)(long)(PTRACE_O_TRACESYSGOOD | PTRACE_O_EXITKILL)) < 0)
		q = err_sys(e, "ptrace options");
	if (q >= 0)
		q = task_save(t, e);
	if (q >= 0)
		q = proc_read_status(p->pid, 0, &st, e);
	p->sid = st.sid;
	p->pgid = st.pgid;
	return q < 0 ? q : rmem_strip(r, p, e);
}

static bool still_wanted(const Pm__Proc *w, const struct rproc *p)
{
	return w && (!p->starttime || p->starttime == w->starttime);
}

int rtree_apply(struct restore *r, struct err *e)
{
	size_t i;
	int q = 0;

	for (i = r->nprocs; q >= 0 && i-- > 1;)
		if (i < r->nprocs && !still_wanted(wanted(r, r->procs[i]->nspid), r->procs[i])) {
			q = end_proc(r, r->procs[i], e);
			i = r->nprocs;
		}
	if (q >= 0 && r->tree->procs[0]->sid == 1)
		q = call_setsid(r, r->procs[0], e);
	for (i = 0; q >= 0 && i < r->tree->n_procs; i++)
		q = make(r, r->tree->procs[i], 0, e);
	for (i = 0; q >= 0 && i < r->tree->n_procs; i++) {
		const Pm__Proc *w = r->tree->procs[i];
		struct rproc *p = rproc_by_ns(r, (pid_t)w->pid);

		if (!p)
			continue;
		p->starttime = w->starttime;
		p->want = w;
		if (w->pid != 1 && p->exit_signal != exit_signal(w))
			return err_set(e, EAGAIN, "pid %u (%s): its parent has ended meanwhile, and told it would have been by signal %d",
				       w->pid, w->comm, p->exit_signal);
		if (w->sid == w->pid)
			q = call_setsid(r, p, e);
		if (q >= 0 && !w->zombie)
			q = apply_threads(r, p, w, e);
	}
	return q < 0 ? q : apply_groups(r, e);
}

int rtree_zombies(struct restore *r, struct err *e)
{
	size_t i;
	int q = 0;

	for (i = 0; q >= 0 && i < r->tree->n_procs; i++) {
		const Pm__Proc *w = r->tree->procs[i];
		struct rproc *p = w->zombie ? rproc_by_ns(r, (pid_t)w->pid) : NULL;
		int sig = (int)(w->exit_code & 0x7f), code = (int)(w->exit_code >> 8 & 0xff);

		if (!p)
			continue;
		if (sig == SIGKILL) {
			kill(p->pid, SIGKILL);
			q = task_wait(p->tasks[0], &(int){ 0 }, deadline_ms(CALL_MS), e);
		} else if (sig == 0) {
			batch_begin(r->b, r->scratch);
			batch_add1(r->b, SYS_exit_group, code);
			q = batch_run(p->tasks[0], r->b, deadline_ms(CALL_MS), e);
		} else { /* dies of the signal as its namesake did; no core of a skeleton */
			struct rlimit none = { 0, 0 };

			prlimit(p->pid, RLIMIT_CORE, &none, NULL);
			q = task_set_sigmask(p->tasks[0], 0, e);
			if (q < 0)
				return q;
			if (ptrace(PTRACE_CONT, p->pid, NULL, (void *)(long)sig) < 0)
				return err_sys(e, "end pid %d", p->nspid);
			q = task_wait(p->tasks[0], &(int){ 0 }, deadline_ms(CALL_MS), e);
		}
		if (q != -ESRCH)
			return q < 0 ? q : err_set(e, EIO, "pid %d does not become a zombie", p->nspid);
		q = 0;
		p->zombie = true;
	}
	return q;
}

int rtree_verify(struct restore *r, struct err *e)
{
	size_t i;

	for (i = 0; i < r->tree->n_procs; i++) {
		const Pm__Proc *w = r->tree->procs[i];
		struct rproc *p = rproc_by_ns(r, (pid_t)w->pid), *parent;
		struct proc_status st;
		int q;

		if (!p)
			return err_set(e, EIO, "pid %u (%s) was not made", w->pid, w->comm);
		q = proc_read_status(p->pid, 0, &st, e);
		if (q < 0)
			return q;
		parent = rproc_by_ns(r, (pid_t)w->ppid);
		if (st.nspid != (pid_t)w->pid || st.pgid != (pid_t)w->pgid || st.sid != (pid_t)w->sid ||
		    (w->pid != 1 && (!parent || parent->pid != st.ppid_outer)))
			return err_set(e, EIO,
				       "pid %u (%s): group %d session %d instead of %u %u, or another parent than %u",
				       w->pid, w->comm, st.pgid, st.sid, w->pgid, w->sid, w->ppid);
	}
	return 0;
}
