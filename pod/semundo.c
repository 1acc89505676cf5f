/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * SEM_UNDO.
 *
 * Theory of operation. A process that changes a semaphore with SEM_UNDO has a number beside it that is added to the value
 * when it ends. No interface shows these numbers, but they have a range, and semop(2) refuses to leave it, with ERANGE. An
 * array of operations is all or nothing. So an array that first makes room in the value, then asks for as much undo as
 * would leave the range if the number is above t, and ends with an operation that never succeeds, tells by its error whether the
 * number is above t, and never changes anything: sixteen questions find it, one or two find that all of a set's
 * are 0, as mostly. An engine that is killed in the middle leaves no trace but the one that asking leaves: the process has an
 * entry for the set, with zeroes, and its end counts as a use of the set, by sem_otime. Sets that nobody has used are not
 * asked about: nobody can have something to undo there.
 *
 * The numbers are in a list that the threads of a process share, and that is made by the first SEM_UNDO, or the first
 * thread. kcmp(2) tells lists apart; a task that has just entered an ipc namespace has none, so it tells too who has none,
 * and is not asked. On the target the skeleton's threads share a list in the same way; an array of operations that leaves
 * the values as they are gives it its numbers. Then whoever has changed a semaphore last does so again, to no effect,
 * for the pid to be right.
 *
 * Refused: threads with lists of their own, and processes that share one (by clone(2); no library does that); a set that its process
 * may not change any more, so that nothing can be asked.
 *
 * Kernel facts relied on: the range is -32768..32767; values of arrays that fail are put back, undo numbers too, under the
 * set's lock; the error of the first operation that does not succeed is the array's.
 */
#include "pod/semundo.h"

#include <errno.h>
#include <linux/capability.h>
#include <linux/kcmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sem.h>
#include <sys/syscall.h>
#include <time.h>

#include "pod/base/io.h"
#include "pod/base/util.h"
#include "pod/kind/ipc.h"
#include "pod/kind/kinds.h"

#define TOP 32767
#define BOTTOM (-32768)
#define GROUP 40 /* semaphores that one array asks about; a namespace allows 500 operations in one */
#define OPS_MAX (GROUP * 4 + 2)
#define CALL_MS 5000

#define REFUSE(e, ...) err_set(e, EOPNOTSUPP, __VA_ARGS__)

/* ---- who has a list */

static int same_list(pid_t a, pid_t b)
{
	long r = syscall(SYS_kcmp, a, b, KCMP_SYSVSEM, 0, 0);

	return r < 0 ? -errno : r == 0;
}

static int look_at(struct proc *p, bool still, struct err *e)
{
	int r = same_list((pid_t)syscall(SYS_gettid), p->tid);
	size_t i;

	p->undo = !r;
	if (r == -ENOSYS || r == -EOPNOTSUPP)
		return REFUSE(e, "the pod has System V semaphores, and the kernel does not show who undoes what (CONFIG_KCMP): cannot be carried");
	if (r < 0)
		return still ? err_num(e, r, "pid %d (%s): kcmp", p->nspid, p->st.comm) : 0;
	for (i = 1; i < p->ntasks; i++)
		if (!p->undo || proc_differs(p->tid, p->tasks[i]->tid, KCMP_SYSVSEM, still))
			return REFUSE(e, "pid %d (%s): thread %d undoes semaphore operations by itself (clone without CLONE_SYSVSEM): cannot be carried",
				      p->nspid, p->st.comm, p->tasks[i]->nstid);
	return 0;
}

static int by_list(const void *a, const void *b)
{
	const struct proc *x = *(struct proc *const *)a, *y = *(struct proc *const *)b;
	long r = syscall(SYS_kcmp, x->tid, y->tid, KCMP_SYSVSEM, 0, 0);

	return r == 1 ? -1 : r == 2;
}

struct look {
	struct proc **p; /* who has a list */
	size_t n;
	bool any;	/* any set */
	struct dump *d;
	bool still;
};

static bool in_group(const struct proc_status *st, uint32_t gid)
{
	bool in = st->gid[1] == gid;
	size_t i;

	for (i = 0; !in && i < st->ngroups; i++)
		in = st->groups[i] == gid;
	return in;
}

static int refuse_denied(const struct proc *p, unsigned id, struct err *e)
{
	return REFUSE(e, "pid %d (%s): may have to undo operations on the System V semaphore set %u, which it may not change: cannot be carried",
		      p->nspid, p->st.comm, id);
}

/* All processes with lists can be asked about this set, can they? */
static int look_set(void *arg, int id, const char *line, struct err *e)
{
	struct look *l = arg;
	unsigned mode, uid, gid, cuid, cgid;
	size_t i;
	int r = 0;

	l->any = true;
	if (sscanf(line, " %o %*u %u %u %u %u", &mode, &uid, &gid, &cuid, &cgid) != 5)
		return err_set(e, EPROTO, "'/proc/sysvipc/sem' is of an unknown form");
	for (i = 0; r >= 0 && i < l->n; i++) {
		const struct proc_status *st = &l->p[i]->st;
		unsigned w = st->uid[1] == uid || st->uid[1] == cuid		    ? 0200 :
			     in_group(st, gid) || in_group(st, cgid) ? 020 : 02;

		if (!(mode & w) && !(st->cap[2] & 1ull << CAP_IPC_OWNER))
			r = collect_note(l->d, refuse_denied(l->p[i], (unsigned)id, e), e);
	}
	return r;
}

static int look_procs(struct look *l, struct err *e)
{
	size_t i;
	int r = 0;

	for (i = 0; r >= 0 && i < l->d->procs.n; i++) {
		struct proc *p = l->d->procs.p[i];

		p->undo = false;
		if (p->zombie)
			continue;
		r = collect_note(l->d, look_at(p, l->still, e), e);
		if (p->undo)
			l->p[l->n++] = p;
	}
	return r;
}

static int look_shared(struct look *l, struct err *e)
{
	size_t i;
	int r = 0;

	qsort(l->p, l->n, sizeof(struct proc *), by_list);
	for (i = 1; r >= 0 && i < l->n; i++) {
		const struct proc *a = l->p[i - 1], *b = l->p[i];

		if (same_list(a->tid, b->tid) == 1)
			r = collect_note(l->d, REFUSE(e, "pid %d (%s): undoes semaphore operations together with pid %d (CLONE_SYSVSEM): cannot be carried",
						      b->nspid, b->st.comm, a->nspid), e);
	}
	return r;
}

int semundo_look(struct dump *d, bool still, struct err *e)
{
	struct look l = { dump_alloc(d, d->procs.n * sizeof(struct proc *)), .d = d, .still = still };
	int r = ipc_each("sem", look_set, &l, e);

	if (r >= 0 && l.any)
		r = look_procs(&l, e);
	if (r >= 0 && l.n)
		r = ipc_each("sem", look_set, &l, e);
	return r < 0 || !l.n ? r : look_shared(&l, e);
}

/* ---- operations */

struct ops {
	struct sembuf s[OPS_MAX];
	unsigned n;
};

static void add(struct ops *o, unsigned num, int op, int flags)
{
	if (op) /* 0 would wait for a 0 */
		o->s[o->n++] = (struct sembuf){ (unsigned short)num, (short)op, (short)(IPC_NOWAIT | flags) };
}

/* Adds @sum to the undo number, of a semaphore whose value is @v: a number beyond the range in steps. The value afterwards. */
static int undo_by(struct ops *o, unsigned num, int v, int sum)
{
	int rest = TOP - v, step;

	for (; sum > 0; sum -= step, rest = step) { /* by taking from the value: it is as high as can be */
		step = MIN(sum, TOP);
		add(o, num, rest, 0);
		add(o, num, -step, SEM_UNDO);
		v = TOP - step;
	}
	for (rest = v; sum < 0; sum += step, rest = step) {
		step = MIN(-sum, TOP);
		add(o, num, -rest, 0);
		add(o, num, step, SEM_UNDO);
		v = step;
	}
	return v;
}

/* ERANGE if the number is above @t. The error never is another of these two: nothing is ever done. */
static void ask_above(struct ops *o, unsigned num, int v, int t)
{
	undo_by(o, num, v, TOP - t);
}

static void ask_below(struct ops *o, unsigned num, int v, int t)
{
	undo_by(o, num, v, BOTTOM - t);
}

/* @last: an operation that never succeeds is the last, on semaphore @num. */
static unsigned add_call(struct batch *b, uint32_t set, struct ops *o, bool last, unsigned num)
{
	if (last)
		add(o, num, BOTTOM, 0);
	return batch_add3(b, SYS_semop, set, batch_data(b, o->s, o->n * sizeof(o->s[0])), o->n);
}

/* ---- source */

struct ask {
	struct dump *d;
	struct proc *p;
	const Pm__BodySemSet *set;
	int32_t *adj;
};

static int run(struct ask *a, struct err *e)
{
	return batch_run(proc_first(a->p), a->d->b, deadline_ms(CALL_MS), e);
}

/* Is that so? */
static int answer(struct ask *a, unsigned entry, struct err *e)
{
	int64_t ret = a->d->b->e[entry].ret;

	if (ret == -ERANGE || ret == -EAGAIN)
		return ret == -ERANGE;
	if (ret == -EACCES)
		return refuse_denied(a->p, a->set->perm->id, e);
	return err_num(e, ret < 0 ? (int)ret : -EIO, "pid %d (%s): ask for what it undoes of the System V semaphore set %u", a->p->nspid,
		       a->p->st.comm, a->set->perm->id);
}

/* A number that is looked for: in [lo, hi]. */
struct range {
	unsigned num, at;
	int lo, hi;
};

static int middle(const struct range *g)
{
	return g->lo + (g->hi - g->lo) / 2;
}

/* Which of the semaphores [first, end) have a number that is not 0: how many. */
static int find_some(struct ask *a, unsigned first, unsigned end, struct range *out, struct err *e)
{
	unsigned above[GROUP], below[GROUP], i;
	int r, n = 0;

	batch_begin(a->d->b, a->p->scratch);
	for (i = first; i < end; i++) {
		struct ops x = { .n = 0 }, y = { .n = 0 };

		ask_above(&x, i, (int)a->set->values[i], 0);
		ask_below(&y, i, (int)a->set->values[i], 0);
		above[i - first] = add_call(a->d->b, a->set->perm->id, &x, true, i);
		below[i - first] = add_call(a->d->b, a->set->perm->id, &y, true, i);
	}
	r = run(a, e);
	for (i = first; r >= 0 && i < end; i++) {
		r = answer(a, above[i - first], e);
		if (r > 0)
			out[n++] = (struct range){ .num = i, .lo = 1, .hi = TOP };
		else if (r == 0 && (r = answer(a, below[i - first], e)) > 0)
			out[n++] = (struct range){ .num = i, .lo = BOTTOM, .hi = -1 };
	}
	return r < 0 ? r : n;
}

/* The numbers of semaphores [first, end), of which one at least is not 0: all at once. */
static int find(struct ask *a, unsigned first, unsigned end, struct err *e)
{
	struct range g[GROUP];
	int n = find_some(a, first, end, g, e), r = n, i, round;

	for (round = 0; r >= 0 && round < 15; round++) {
		batch_begin(a->d->b, a->p->scratch);
		for (i = 0; i < n; i++) {
			struct ops o = { .n = 0 };

			ask_above(&o, g[i].num, (int)a->set->values[g[i].num], middle(&g[i]));
			g[i].at = add_call(a->d->b, a->set->perm->id, &o, true, g[i].num);
		}
		r = run(a, e);
		for (i = 0; r >= 0 && i < n; i++) {
			int mid = middle(&g[i]);

			r = answer(a, g[i].at, e);
			if (r > 0)
				g[i].lo = MIN(mid + 1, g[i].hi);
			else if (r == 0)
				g[i].hi = mid;
		}
	}
	for (i = 0; i < n; i++)
		a->adj[g[i].num] = g[i].lo;
	return r < 0 ? r : n > 0;
}

/* 1: some are not 0, and in @adj. */
static int ask_group(struct ask *a, unsigned first, unsigned end, struct err *e)
{
	struct ops above = { .n = 0 }, below = { .n = 0 };
	unsigned i, x, y;
	int r, q;

	batch_begin(a->d->b, a->p->scratch);
	for (i = first; i < end; i++) {
		ask_above(&above, i, (int)a->set->values[i], 0);
		ask_below(&below, i, (int)a->set->values[i], 0);
	}
	x = add_call(a->d->b, a->set->perm->id, &above, true, first);
	y = add_call(a->d->b, a->set->perm->id, &below, true, first);
	r = run(a, e);
	if (r >= 0)
		r = answer(a, x, e);
	q = r < 0 ? r : answer(a, y, e);
	return q < 0 ? q : r || q ? find(a, first, end, e) : 0;
}

static int ask_set(struct ask *a, Pm__Proc *m, struct err *e)
{
	unsigned n = (unsigned)a->set->n_values, i;
	Pm__SemUndo *u;
	int r = 0, any = 0;

	a->adj = dump_alloc(a->d, n * sizeof(*a->adj));
	for (i = 0; r >= 0 && i < n; i += GROUP) {
		r = ask_group(a, i, MIN(i + GROUP, n), e);
		any |= r > 0;
	}
	if (r < 0 || !any)
		return r;
	u = dump_alloc(a->d, sizeof(*u));
	pm__sem_undo__init(u);
	u->set = a->set->perm->id;
	u->n_adj = n;
	u->adj = a->adj;
	m->undos[m->n_undos++] = u;
	return 0;
}

int semundo_take(struct dump *d, struct proc *p, Pm__Proc *m, struct err *e)
{
	struct ask a = { d, p, NULL, NULL };
	size_t i;
	int r = 0;

	if (!p->undo)
		return 0;
	m->undos = dump_alloc(d, d->nthings * sizeof(*m->undos));
	for (i = 0; r >= 0 && i < d->nthings; i++) {
		if (d->things[i].kind != &kind_sysvsem)
			continue;
		a.set = (const void *)d->things[i].body;
		if (a.set->used)
			r = ask_set(&a, m, e);
	}
	return r < 0 ? r : 0;
}

/* ---- target */

static const Pm__BodySemSet *next_set(struct restore *r, size_t *i)
{
	struct robject *o;

	while ((o = restore_next_object(r, i)))
		if (o->kind == &kind_sysvsem)
			return (const void *)o->body;
	return NULL;
}

static const Pm__BodySemSet *set_by_id(struct restore *r, uint32_t id)
{
	const Pm__BodySemSet *s;
	size_t i = 0;

	while ((s = next_set(r, &i)))
		if (s->perm->id == id)
			return s;
	return NULL;
}

/* Runs what there is, if it is @much already; the batch is empty then. */
static int flush(struct restore *r, struct rproc *p, unsigned much, struct err *e)
{
	int q;

	if (r->b->n < much && r->b->used < BATCH_DATA / 2)
		return 0;
	q = r->b->n ? batch_run_ok(p->tasks[0], r->b, deadline_ms(CALL_MS), e) : 0;
	batch_begin(r->b, r->scratch);
	return q < 0 ? err_wrap(e, "pid %d (%s): System V semaphores", p->nspid, p->want->comm) : 0;
}

static int give_undo(struct restore *r, struct rproc *p, const Pm__SemUndo *u, struct err *e)
{
	const Pm__BodySemSet *s = set_by_id(r, u->set);
	unsigned i;
	int q = 0;

	if (!s || u->n_adj != s->n_values)
		return err_set(e, EBADMSG, "pid %d: undoes %zu operations of the System V semaphore set %u", p->nspid, u->n_adj, u->set);
	for (i = 0; q >= 0 && i < u->n_adj; i++) {
		int v = (int)s->values[i];
		struct ops o = { .n = 0 };

		if (u->adj[i] < BOTTOM || u->adj[i] > TOP)
			return err_set(e, EBADMSG, "pid %d: undoes %d of a semaphore", p->nspid, u->adj[i]);
		if (!u->adj[i])
			continue;
		add(&o, i, v - undo_by(&o, i, v, u->adj[i]), 0);
		add_call(r->b, u->set, &o, false, i);
		q = flush(r, p, BATCH_MAX / 2, e);
	}
	return q;
}

/* Who was the last to change a semaphore is so again. */
static int give_pids(struct restore *r, struct rproc *p, const Pm__BodySemSet *s, struct err *e)
{
	unsigned i;
	int q = 0;

	for (i = 0; q >= 0 && i < s->n_values; i++) {
		int way = s->values[i] == TOP ? -1 : 1;
		struct ops o = { .n = 0 };

		if (s->pids[i] != (uint32_t)p->nspid)
			continue;
		add(&o, i, way, 0);
		add(&o, i, -way, 0);
		if (s->used)
			add_call(r->b, s->perm->id, &o, false, i);
		else /* it has been by semctl(2) */
			batch_add4(r->b, SYS_semctl, s->perm->id, i, SETVAL, s->values[i]);
		q = flush(r, p, BATCH_MAX / 2, e);
	}
	return q;
}

int semundo_apply(struct restore *r, struct err *e)
{
	const Pm__BodySemSet *s;
	size_t i, k;
	int q = 0, pass;

	for (pass = 0; pass < 2; pass++)
		for (i = 0; q >= 0 && i < r->nprocs; i++) {
			struct rproc *p = r->procs[i];

			if (p->zombie)
				continue;
			batch_begin(r->b, r->scratch);
			for (k = 0; !pass && q >= 0 && k < p->want->n_undos; k++)
				q = give_undo(r, p, p->want->undos[k], e);
			for (k = 0; pass && q >= 0 && (s = next_set(r, &k));)
				q = give_pids(r, p, s, e);
			if (q >= 0)
				q = flush(r, p, 1, e);
		}
	return q;
}
