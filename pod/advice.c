/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * What a program has told the kernel about its memory that mmap(2) and madvise(2) at the making of a
 * mapping do not carry (those are rmem.c's).
 *
 * Memory policies of mappings are asked for inside, call by call: numa_maps would walk all pages. Guard
 * pages are found by the last scan of pages and told at the end of the cut, after all pages are in place.
 * What would be in the way of the engine's own calls comes when no page will be written or dropped any more:
 * locks that bring all pages in, seals, and what holds for mappings that the program has yet to make.
 */
#include <errno.h>
#include <linux/mempolicy.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

#include "pod/base/io.h"
#include "pod/base/kernel.h"
#include "pod/base/util.h"
#include "pod/dump.h"
#include "pod/restore.h"

#define CALL_MS 10000
#define PER_BATCH 1000

/* ---- source */

static bool may_have_policy(const Pm__Vma *v)
{
	return v->type != VMA_VDSO && v->type != VMA_VVAR;
}

int advice_policies(struct dump *d, struct proc *p, Pm__Mm *mm, struct err *e)
{
	size_t i = 0, k, from;
	int r = 0;

	while (r >= 0 && i < mm->n_vmas) {
		uint64_t at[PER_BATCH];

		batch_begin(d->b, p->scratch);
		for (from = i, k = 0; i < mm->n_vmas && k < PER_BATCH; i++) {
			if (!may_have_policy(mm->vmas[i]))
				continue;
			at[k] = batch_data(d->b, NULL, 16);
			batch_add(d->b, SYS_get_mempolicy, at[k], at[k] + 8, KIND_NODES + 1, mm->vmas[i]->start, MPOL_F_ADDR, 0);
			k++;
		}
		r = batch_run(proc_first(p), d->b, deadline_ms(CALL_MS), e);
		for (k = 0; r >= 0 && from < i; from++) {
			const int *mode;

			if (!may_have_policy(mm->vmas[from]))
				continue;
			mode = batch_local(d->b, at[k]);
			if (d->b->e[k].ret == 0 && *mode) {
				mm->vmas[from]->policy = (uint32_t)*mode;
				mm->vmas[from]->nodes.len = 8;
				mm->vmas[from]->nodes.data = memcpy(dump_alloc(d, 8), batch_local(d->b, at[k] + 8), 8);
			}
			k++;
		}
	}
	return r;
}

int advice_add_guards(struct dump *d, const struct proc *p, const struct runs *guards, struct err *e)
{
	size_t i;

	for (i = 0; i < guards->n; i++) {
		Pm__Guard *g = dump_alloc(d, sizeof(*g));

		if (d->nguards % 64 == 0) {
			Pm__Guard **ng = realloc(d->guards, (d->nguards + 64) * sizeof(*ng));

			if (!ng)
				return err_num(e, ENOMEM, "guard pages");
			d->guards = ng;
		}
		pm__guard__init(g);
		g->pid = (uint32_t)p->nspid;
		g->start = guards->r[i].start;
		g->end = guards->r[i].end;
		d->guards[d->nguards++] = g;
	}
	return 0;
}

/* ---- target */

static int check_guard(struct rproc *p, const Pm__Guard *g, uint32_t *flags, struct err *e)
{
	const struct seg *s = p ? seg_at(&p->have, g->start) : NULL;

	if (!s || g->start % PAGE || g->end % PAGE || g->end <= g->start || g->end > s->end || s->shared ||
	    s->type == VMA_VDSO || s->type == VMA_VVAR)
		return err_set(e, EBADMSG, "guard pages of pid %u at %lx, where none can be", g->pid, (unsigned long)g->start);
	*flags = s->flags;
	return 0;
}

int advice_guards(struct restore *r, const Pm__CutEnd *end, struct err *e)
{
	struct rproc *p = NULL;
	size_t i;
	int q = 0;

	batch_begin(r->b, r->scratch);
	for (i = 0; q >= 0 && i < end->n_guards; i++) {
		const Pm__Guard *g = end->guards[i];
		uint32_t flags = 0;

		if (p && (p->nspid != (pid_t)g->pid || r->b->n + 3 > BATCH_MAX)) {
			q = batch_run_ok(p->tasks[0], r->b, deadline_ms(CALL_MS), e);
			batch_begin(r->b, r->scratch);
		}
		p = rproc_by_ns(r, (pid_t)g->pid);
		if (q >= 0)
			q = check_guard(p, g, &flags, e);
		if (q < 0)
			break;
		if (flags & VMF_LOCKED)
			batch_add2(r->b, SYS_munlock, g->start, g->end - g->start);
		batch_add3(r->b, SYS_madvise, g->start, g->end - g->start, MADV_GUARD_INSTALL);
		if (flags & VMF_LOCKED)
			batch_add3(r->b, SYS_mlock2, g->start, g->end - g->start, MLOCK_ONFAULT);
	}
	if (q >= 0 && p)
		q = batch_run_ok(p->tasks[0], r->b, deadline_ms(CALL_MS), e);
	return q < 0 ? err_wrap(e, "guard pages") : 0;
}

static void late_calls(struct batch *b, const Pm__Vma *v)
{
	uint64_t len = v->end - v->start;

	if (v->policy && v->nodes.len == 8)
		batch_add(b, SYS_mbind, v->start, len, v->policy, batch_data(b, v->nodes.data, 8), KIND_NODES + 1, 0);
	if (v->flags & VMF_LOCKED && !(v->flags & VMF_ONFAULT))
		batch_add3(b, SYS_mlock2, v->start, len, 0);
	if (v->flags & VMF_SEALED)
		batch_add3(b, __NR_mseal, v->start, len, 0);
}

static int run_late(struct restore *r, struct rproc *p, struct err *e)
{
	int q = batch_run(p->tasks[0], r->b, deadline_ms(CALL_MS), e);
	unsigned i;

	for (i = 0; q >= 0 && i < r->b->n; i++) {
		const struct batch_entry *en = &r->b->e[i];

		if (en->ret >= 0 || en->nr == SYS_mlock2) /* of what has no pages it fails and holds all the same */
			continue;
		if (en->nr == SYS_mbind)
			restore_note(r, "pid %d (%s): the memory policy of mapping %lx cannot be had here", p->nspid,
				     p->want->comm, (unsigned long)en->arg[0]);
		else
			return err_num(e, (int)en->ret, "pid %d (%s): call %ld for mapping %lx", p->nspid, p->want->comm,
				       (long)en->nr, (unsigned long)en->arg[0]);
	}
	batch_begin(r->b, r->scratch);
	return q < 0 ? q : 0;
}

int advice_finish(struct restore *r, struct rproc *p, struct err *e)
{
	const Pm__Mm *m = p->want->mm;
	size_t i;
	int q = 0;

	batch_begin(r->b, r->scratch);
	if (m->ksm)
		batch_add(r->b, SYS_prctl, PR_SET_MEMORY_MERGE, 1, 0, 0, 0, 0);
	for (i = 0; q >= 0 && i < m->n_vmas; i++) {
		if (r->b->n + 4 > BATCH_MAX)
			q = run_late(r, p, e);
		if (may_have_policy(m->vmas[i]))
			late_calls(r->b, m->vmas[i]);
	}
	if (m->lock_future)
		batch_add1(r->b, SYS_mlockall, MCL_FUTURE | (m->lock_future & MCL_ONFAULT));
	return q < 0 ? q : run_late(r, p, e);
}
