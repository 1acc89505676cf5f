/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * What lies where in the memory of an image's processes, without a process to put it into.
 *
 * Page frames come in order, and a later one wins over an earlier one; so does a mapping that is
 * another than the one at its place in the tree before: what came for that one is gone. All of
 * that are stretches of addresses with a kind. The list of them is halved, each half settled, and
 * the newer half laid over the older, so that the order in which a program writes its memory does
 * not matter for the time it takes.
 */
#include "pod/image/memory.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "pod/base/io.h"
#include "pod/base/util.h"
#include "pod/mem/mem.h"

struct spans {
	struct span *s;
	size_t n, cap;
};

static bool joins(const struct span *a, const struct span *b)
{
	return a->end == b->start && a->kind == b->kind &&
	       (a->kind != SPAN_PAGES || a->page + (uint64_t)(a->end - a->start) / PAGE == b->page);
}

static int push(struct spans *l, struct span x)
{
	if (l->n && joins(&l->s[l->n - 1], &x)) {
		l->s[l->n - 1].end = x.end;
		return 0;
	}
	if (l->n == l->cap) {
		size_t cap = l->cap ? l->cap * 2 : 256;
		struct span *ns = reallocarray(l->s, cap, sizeof(*ns));

		if (!ns)
			return -ENOMEM;
		l->s = ns;
		l->cap = cap;
	}
	l->s[l->n++] = x;
	return 0;
}

/* The part of @x in [@from, @to). */
static struct span clip(const struct span *x, span_at from, span_at to)
{
	struct span out = *x;

	out.start = MAX(x->start, from);
	out.end = MIN(x->end, to);
	out.page += (uint64_t)(out.start - x->start) / PAGE;
	return out;
}

/* ---- the newer over the older */

static int overlay(const struct spans *older, const struct spans *newer, struct spans *out)
{
	span_at at = 0; /* what is before is settled */
	size_t i = 0, k;
	int r = 0;

	for (k = 0; r >= 0 && k <= newer->n; k++) {
		const struct span *x = k < newer->n ? &newer->s[k] : NULL;

		for (; r >= 0 && i < older->n && (!x || older->s[i].start < x->start); i++) {
			const struct span *o = &older->s[i];

			if (o->end > at && (!x || at < x->start))
				r = push(out, clip(o, at, x ? x->start : o->end));
			if (x && o->end > x->start)
				break;
		}
		if (r >= 0 && x) {
			r = push(out, *x);
			at = x->end;
		}
	}
	return r;
}

/* @in[0..n) in the order of time, into @out in the order of addresses. */
static int settle(const struct span *in, size_t n, struct spans *out)
{
	struct spans older = {0}, newer = {0};
	int r;

	if (n <= 1)
		return n ? push(out, *in) : 0;
	r = settle(in, n / 2, &older);
	if (r >= 0)
		r = settle(in + n / 2, n - n / 2, &newer);
	if (r >= 0)
		r = overlay(&older, &newer, out);
	free(older.s);
	free(newer.s);
	return r;
}

/* ---- what comes in the image */

struct load {
	struct spans all;
	uint64_t stored; /* pages, up to here */
	Pm__Tree *tree;  /* the last one */
};

static int add(struct load *l, uint32_t id, uint64_t addr, uint64_t len, enum span_kind kind,
	       uint64_t page, struct err *e)
{
	struct span x = {span_pos(id, addr), span_pos(id, addr + len), kind, page};

	return push(&l->all, x) < 0 ? err_num(e, ENOMEM, "the pages of an image") : 0;
}

static int on_run(void *arg, uint32_t id, uint64_t addr, uint64_t len, int kind, const void *data,
		  struct err *e)
{
	struct load *l = arg;
	int r = add(l, id, addr, len,
		    data               ? SPAN_PAGES
		    : kind == RUN_ZERO ? SPAN_ZERO
				       : SPAN_NONE,
		    data ? l->stored : 0, e);

	l->stored += data ? len / PAGE : 0;
	return r;
}

static int on_same(void *arg, uint32_t id, uint64_t addr, uint64_t npages, uint64_t at,
		   struct err *e)
{
	return add(arg, id, addr, npages * PAGE, SPAN_PAGES, at, e);
}

static const Pm__Proc *proc_of(const Pm__Tree *t, uint32_t pid)
{
	for (size_t i = 0; t && i < t->n_procs; i++)
		if (t->procs[i]->pid == pid)
			return t->procs[i];
	return NULL;
}

/* As the target of a move decides whether the pages stay (rmem.c). */
static bool same_backing(const Pm__Vma *a, const Pm__Vma *b)
{
	return !b->fresh && a->type == b->type && a->shared == b->shared &&
	       a->object == b->object && !((a->flags ^ b->flags) & VMF_FOR_GOOD) &&
	       (a->type == VMA_ANON || a->pgoff - a->start == b->pgoff - b->start);
}

/* The stretches of @p that are not what they were in @was. */
static int drop_changed(struct load *l, const Pm__Proc *was, const Pm__Proc *p, struct err *e)
{
	size_t k = 0;
	int r = 0;

	for (size_t i = 0; r >= 0 && i < p->mm->n_vmas; i++) {
		const Pm__Vma *v = p->mm->vmas[i];
		uint64_t at = v->start;

		while (r >= 0 && at < v->end) {
			const Pm__Vma *o;
			uint64_t to = v->end;
			bool same = false;

			while (k < was->mm->n_vmas && was->mm->vmas[k]->end <= at)
				k++;
			o = k < was->mm->n_vmas ? was->mm->vmas[k] : NULL;
			if (o && o->start > at)
				to = MIN(to, o->start);
			else if (o) {
				to = MIN(to, o->end);
				same = same_backing(o, v);
			}
			if (!same)
				r = add(l, p->pid, at, to - at, SPAN_NONE, 0, e);
			at = to;
		}
	}
	return r;
}

static int on_tree(struct load *l, const struct record *rec, struct err *e)
{
	Pm__Tree *t = (Pm__Tree *)record_unpack(rec, &pm__tree__descriptor, e);
	int r = t ? 0 : -EBADMSG;

	for (size_t i = 0; r >= 0 && i < t->n_procs; i++) {
		const Pm__Proc *p = t->procs[i], *was = proc_of(l->tree, p->pid);

		if (!p->mm || !was)
			continue;
		if (was->mm && was->starttime == p->starttime)
			r = drop_changed(l, was, p, e);
		else /* another of that pid */
			r = add(l, p->pid, 0, PAGE_ADDR_MAX, SPAN_NONE, 0, e);
	}
	if (l->tree)
		pm__tree__free_unpacked(l->tree, NULL);
	l->tree = t;
	return r;
}

/* One that the index leads to; frames must hold as many pages as it says, for that numbers those that follow. */
static int load_entry(struct load *l, const struct image *im, size_t i, struct err *e)
{
	const struct page_sink sink = {.arg = l, .run = on_run, .same = on_same};
	const struct image_entry *en = &im->entry[i];
	uint64_t was = l->stored;
	struct record rec;
	int r;

	if (!entry_is_frame(en) && en->type != REC_TREE && en->type != REC_FINAL)
		return 0;
	if (!entry_is_frame(en)) {
		r = image_record_at(im, i, &rec, e);
		if (r < 0)
			return r;
		r = on_tree(l, &rec, e);
		record_done(&rec);
		return r;
	}
	if (lseek(im->fd, (off_t)en->off, SEEK_SET) < 0)
		return err_sys(e, "seek");
	r = image_read_error(pages_recv(im->fd, &sink, NULL, IO_FOREVER, e), e);
	if (r >= 0 && l->stored - was != en->pages)
		r = err_set(e, EBADMSG, "the image's index is not that of its frames");
	return r;
}

int memory_load(const struct image_chain *c, struct image_memory *out, struct err *e)
{
	const struct image *im = &c->im[c->n - 1];
	struct load l = {.stored = im->older};
	struct spans done = {0};
	int r = 0;

	for (size_t i = 0; r >= 0 && i < im->n; i++) {
		r = load_entry(&l, im, i, e);
		if (r < 0)
			err_wrap(e, "image '%s': at byte %lu", im->head->id,
				 (unsigned long)im->entry[i].off);
	}
	if (r >= 0 && settle(l.all.s, l.all.n, &done) < 0)
		r = err_num(e, ENOMEM, "the pages of an image");
	free(l.all.s);
	if (l.tree)
		pm__tree__free_unpacked(l.tree, NULL);
	if (r < 0) {
		free(done.s);
		return r;
	}
	*out = (struct image_memory){done.s, done.n};
	return 0;
}

struct span memory_span(const struct image_memory *m, span_at at, span_at end)
{
	size_t lo = 0, hi = m->n;
	struct span none = {at, end, SPAN_NONE, 0};

	while (lo < hi) {
		size_t mid = lo + (hi - lo) / 2;

		if (m->s[mid].end <= at)
			lo = mid + 1;
		else
			hi = mid;
	}
	if (lo < m->n && m->s[lo].start <= at)
		return clip(&m->s[lo], at, end);
	if (lo < m->n)
		none.end = MIN(end, m->s[lo].start);
	return none;
}

int memory_check(const Pm__Proc *p, struct err *e)
{
	for (size_t i = 0; p->mm && i < p->mm->n_vmas; i++) {
		const Pm__Vma *v = p->mm->vmas[i];

		if (v->start >= v->end || v->start % PAGE || v->end % PAGE || v->pgoff % PAGE ||
		    v->end > PAGE_ADDR_MAX || v->pgoff > PAGE_ADDR_MAX ||
		    (i && v->start < p->mm->vmas[i - 1]->end))
			return err_set(e, EBADMSG, "pid %u: mapping %lx-%lx is none", p->pid,
				       (unsigned long)v->start, (unsigned long)v->end);
	}
	return 0;
}

struct span memory_of_vma(const struct image_memory *m, uint32_t pid, const Pm__Vma *v, uint64_t at,
			  uint64_t end)
{
	struct span own = memory_span(m, span_pos(pid, at), span_pos(pid, end)), x;
	uint64_t off = v->pgoff + (at - v->start), to = at + (uint64_t)(own.end - own.start);

	if (own.kind == SPAN_NONE && v->object) {
		x = memory_span(m, span_pos(CONTENT_FRAME | v->object, off),
				span_pos(CONTENT_FRAME | v->object, off + (to - at)));
		own.kind = x.kind;
		own.page = x.page;
		to = at + (uint64_t)(x.end - x.start);
	}
	own.start = at;
	own.end = to;
	return own;
}

int memory_read(const struct image_chain *c, const struct image_memory *m, const Pm__Proc *p,
		uint64_t addr, void *buf, size_t len, struct err *e)
{
	char page[PAGE], *to = buf;

	memset(buf, 0, len);
	for (size_t i = 0; p->mm && i < p->mm->n_vmas; i++) {
		const Pm__Vma *v = p->mm->vmas[i];
		uint64_t at = MAX(addr, v->start), end = MIN(addr + len, v->end);

		while (at < end) {
			uint64_t from = ALIGN_DOWN(at, PAGE), n = MIN(end, from + PAGE) - at;
			struct span x = memory_of_vma(m, p->pid, v, from, from + PAGE);
			int r = x.kind == SPAN_PAGES ? chain_read(c, x.page, 1, page, e) : 0;

			if (r < 0)
				return r;
			if (x.kind == SPAN_PAGES)
				memcpy(to + (at - addr), page + (at - from), n);
			at += n;
		}
	}
	return 0;
}

void memory_done(struct image_memory *m)
{
	free(m->s);
	*m = (struct image_memory){.n = 0};
}
