/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * The memory of skeletons: mappings made and changed by calls inside, pages written from outside.
 *
 * An address space is a list of segments, what it is now and what it shall be. Both are walked
 * together over all their borders: a stretch that only the present has is unmapped, one that only the
 * wish has is mapped, one with the same backing stays with its pages (its protection is changed if
 * need be), any other is mapped over. So pages that came before a mapping grew, shrank or was split
 * stay where they are.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/prctl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/shm.h>
#include <sys/syscall.h>

#include "pod/base/io.h"
#include "pod/base/log.h"
#include "pod/base/util.h"
#include "pod/restore.h"
#include "pod/rmem_int.h"

#define ARCH_MAP_VDSO_64 0x2003
#ifndef MADV_DONTNEED_LOCKED
#define MADV_DONTNEED_LOCKED 24 /* as MADV_DONTNEED, of locked memory too */
#endif
#define USER_END 0x7ffffffff000ull
#define CALL_MS 10000
#define FDS_MAX 200

/* ---- segments */

int seg_add(struct segs *l, const struct seg *s)
{
	if (l->n == l->cap) {
		size_t cap = l->cap ? l->cap * 2 : 64;
		struct seg *ns = realloc(l->s, cap * sizeof(*ns));

		if (!ns)
			return -ENOMEM;
		l->s = ns;
		l->cap = cap;
	}
	l->s[l->n++] = *s;
	return 0;
}

static bool is_kernel_made(uint32_t type)
{
	return type == VMA_VDSO || type == VMA_VVAR;
}

static int check_vma(const struct restore *r, const Pm__Vma *v, uint64_t prev_end, struct err *e)
{
	if (v->start % PAGE || v->end % PAGE || v->start >= v->end || v->start < prev_end || v->start < 65536 ||
	    v->end > USER_END || (v->prot & ~7u) || v->type > VMA_OTHER || v->pgoff % PAGE)
		return err_set(e, EBADMSG, "mapping %lx-%lx is none", (unsigned long)v->start, (unsigned long)v->end);
	if (v->start < r->scratch + SCRATCH_LEN && v->end > r->scratch)
		return err_set(e, EBUSY, "mapping %lx-%lx is where the engine works", (unsigned long)v->start,
			       (unsigned long)v->end);
	if (v->type != VMA_ANON && !is_kernel_made(v->type) && !v->object)
		return err_set(e, EBADMSG, "mapping %lx-%lx '%s' has no object", (unsigned long)v->start,
			       (unsigned long)v->end, v->name);
	return 0;
}

/* One is attached as a whole, from its beginning on: all of that must be wished for. */
static int check_sysv(struct restore *r, const Pm__Mm *mm, size_t i, struct err *e)
{
	const Pm__Vma *v = mm->vmas[i], *prev = i ? mm->vmas[i - 1] : NULL;
	const struct rcontent *c = robj_content(r, v->object);
	uint64_t end = v->end;

	if (!c || c->body->source != CONTENT_SYSV || !v->shared)
		return err_set(e, EBADMSG, "mapping %lx is of no System V segment", (unsigned long)v->start);
	if (v->pgoff && prev && prev->type == VMA_SYSV && prev->object == v->object && prev->end == v->start &&
	    prev->pgoff + (prev->end - prev->start) == v->pgoff)
		return 0;
	for (; !v->pgoff && i + 1 < mm->n_vmas && mm->vmas[i + 1]->type == VMA_SYSV && mm->vmas[i + 1]->object == v->object &&
	       mm->vmas[i + 1]->start == end && mm->vmas[i + 1]->pgoff == end - v->start;
	     i++)
		end = mm->vmas[i + 1]->end;
	if (v->pgoff || end - v->start != ALIGN_UP(c->body->size, PAGE))
		return err_set(e, EBADMSG, "mapping %lx is a part of a System V segment", (unsigned long)v->start);
	return 0;
}

static int wish(struct restore *r, const Pm__Mm *mm, struct segs *out, struct err *e)
{
	uint64_t prev = 0;
	size_t i;
	int q;

	for (i = 0; i < mm->n_vmas; i++) {
		const Pm__Vma *v = mm->vmas[i];
		struct seg s = { v->start, v->end, v->prot, v->type, v->object, v->flags, v->shared, v->fresh, v->pgoff, 0 };

		q = check_vma(r, v, prev, e);
		if (q < 0)
			return q;
		if (v->type == VMA_SYSV) {
			q = check_sysv(r, mm, i, e);
			if (q < 0)
				return q;
		}
		prev = v->end;
		if (seg_add(out, &s) < 0)
			return err_num(e, ENOMEM, "mappings");
	}
	return 0;
}

bool seg_same_backing(const struct seg *a, const struct seg *b)
{
	if (a->type != b->type || a->shared != b->shared || a->object != b->object ||
	    ((a->flags ^ b->flags) & VMF_FOR_GOOD))
		return false;
	if (is_kernel_made(a->type))
		return a->start == b->start && a->end == b->end;
	return a->type == VMA_ANON || a->pgoff - a->start == b->pgoff - b->start;
}

/* ---- calls */

struct plan {
	struct restore *r;
	struct rproc *p;
	uint32_t obj[FDS_MAX]; /* objects whose fds are in the task, in order */
	size_t nobj;
	uint64_t vdso;	       /* lowest address of the kernel's pages that are to be mapped; 0: none */
};

static int run(struct plan *pl, struct err *e)
{
	struct restore *r = pl->r;
	int q = batch_run_ok(pl->p->tasks[0], r->b, deadline_ms(CALL_MS), e);

	batch_begin(r->b, r->scratch);
	return q < 0 ? err_wrap(e, "memory of pid %d", pl->p->nspid) : 0;
}

static int room(struct plan *pl, struct err *e)
{
	return pl->r->b->n + 24 > BATCH_MAX ? run(pl, e) : 0;
}

static int fd_index(struct plan *pl, uint32_t object)
{
	size_t i;

	for (i = 0; i < pl->nobj; i++)
		if (pl->obj[i] == object)
			return (int)i;
	return -1;
}

/* Brings a mapping from the advice of @had to that of @flags. */
static void call_advice(struct batch *b, uint64_t at, uint64_t len, uint32_t had, uint32_t flags)
{
	static const struct { uint32_t flag; int on, off; } table[] = {
		{ VMF_SEQ, MADV_SEQUENTIAL, MADV_NORMAL },    { VMF_RAND, MADV_RANDOM, MADV_NORMAL },
		{ VMF_DONTFORK, MADV_DONTFORK, MADV_DOFORK }, { VMF_DONTDUMP, MADV_DONTDUMP, MADV_DODUMP },
		{ VMF_WIPEONFORK, MADV_WIPEONFORK, MADV_KEEPONFORK }, { VMF_MERGEABLE, MADV_MERGEABLE, MADV_UNMERGEABLE },
		/* the one ends the other */
		{ VMF_HUGEPAGE, MADV_HUGEPAGE, 0 },	      { VMF_NOHUGEPAGE, MADV_NOHUGEPAGE, 0 },
	};
	size_t i;

	for (i = 0; i < ARRAY_SIZE(table); i++)
		if (had & ~flags & table[i].flag && table[i].off)
			batch_add3(b, SYS_madvise, at, len, table[i].off);
	for (i = 0; i < ARRAY_SIZE(table); i++)
		if (flags & ~had & table[i].flag)
			batch_add3(b, SYS_madvise, at, len, table[i].on);
	if (flags & ~had & VMF_LOCKED) /* what is there is locked; the rest at the end, advice.c */
		batch_add3(b, SYS_mlock2, at, len, MLOCK_ONFAULT);
	else if (had & ~flags & VMF_LOCKED)
		batch_add2(b, SYS_munlock, at, len);
}

static int call_map(struct plan *pl, const struct seg *s, uint64_t from, uint64_t to, struct err *e)
{
	uint64_t flags = MAP_FIXED | (s->shared ? MAP_SHARED : MAP_PRIVATE), off = 0;
	int fd = -1, q = room(pl, e);

	if (q < 0)
		return q;
	if (is_kernel_made(s->type)) {
		if (!pl->vdso || s->start < pl->vdso)
			pl->vdso = s->start;
		return 0;
	}
	if (s->type == VMA_SYSV) {
		/* its beginning attaches all of it; then each part gets its protection */
		if (!s->pgoff && from == s->start)
			batch_add3(pl->r->b, SYS_shmat, robj_content(pl->r, s->object)->body->sysv_id, from,
				   SHM_REMAP | (s->flags & VMF_MAYWRITE ? 0 : SHM_RDONLY));
		batch_add3(pl->r->b, SYS_mprotect, from, to - from, s->prot);
		call_advice(pl->r->b, from, to - from, 0, s->flags);
		return 0;
	}
	if (s->type == VMA_ANON) {
		flags |= MAP_ANONYMOUS;
		if (s->flags & VMF_GROWSDOWN)
			flags |= MAP_GROWSDOWN;
	} else {
		fd = fd_index(pl, s->object);
		off = s->pgoff + (from - s->start);
	}
	if (s->flags & VMF_NORESERVE)
		flags |= MAP_NORESERVE;
	/* memory that is accounted for, though not writable now, was writable once: it must be accounted for
	 * here as well, or it would never merge with its neighbours again */
	if ((s->flags & VMF_ACCOUNT) && !s->shared && !(s->prot & PROT_WRITE)) {
		batch_add(pl->r->b, SYS_mmap, from, to - from, s->prot | PROT_WRITE, flags, (uint64_t)(int64_t)fd, off);
		if (s->type == VMA_ANON) /* or mprotect() would end the account */
			batch_add3(pl->r->b, SYS_madvise, from, PAGE, MADV_POPULATE_WRITE);
		batch_add3(pl->r->b, SYS_mprotect, from, to - from, s->prot);
	} else {
		batch_add(pl->r->b, SYS_mmap, from, to - from, s->prot, flags, (uint64_t)(int64_t)fd, off);
	}
	call_advice(pl->r->b, from, to - from, 0, s->flags);
	return 0;
}

/* One stretch between two borders; either may be NULL. */
static int change(struct plan *pl, const struct seg *h, const struct seg *w, uint64_t from, uint64_t to, struct err *e)
{
	int q = room(pl, e);

	if (q < 0 || (!h && !w))
		return q;
	if (!w) {
		batch_add2(pl->r->b, SYS_munmap, from, to - from);
		return 0;
	}
	if (!h || w->fresh || !seg_same_backing(h, w)) {
		if (h && is_kernel_made(w->type))
			batch_add2(pl->r->b, SYS_munmap, from, to - from);
		return call_map(pl, w, from, to, e);
	}
	if (h->flags != w->flags && !is_kernel_made(w->type))
		call_advice(pl->r->b, from, to - from, h->flags, w->flags);
	if ((h->prot != w->prot && !is_kernel_made(w->type)) || w->type == VMA_SYSV)
		batch_add3(pl->r->b, SYS_mprotect, from, to - from, w->prot);
	return 0;
}

/* A new family (rfamily.c) is made as one, touched, and split by protection. Returns where it ends. */
static uint64_t map_family(struct plan *pl, const struct segs *want, size_t k, uint64_t limit, struct err *e)
{
	const struct seg *first = &want->s[k];
	struct batch *b = pl->r->b;
	size_t n = k + 1, i;
	uint64_t end;

	while (n < want->n && n - k < 256 && family_joins(&want->s[n - 1], &want->s[n]) && want->s[n].end <= limit &&
	       (!first->fresh || want->s[n].fresh))
		n++;
	if (n == k + 1)
		return 0;
	end = want->s[n - 1].end;
	if (b->n + (n - k) * 2 + 24 > BATCH_MAX && run(pl, e) < 0)
		return 0;
	batch_add(b, SYS_mmap, first->start, end - first->start, PROT_READ | PROT_WRITE,
		  MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, (uint64_t)-1, 0);
	batch_add3(b, SYS_madvise, first->start, PAGE, MADV_POPULATE_WRITE);
	for (i = k; i < n; i++)
		if (want->s[i].prot != (PROT_READ | PROT_WRITE))
			batch_add3(b, SYS_mprotect, want->s[i].start, want->s[i].end - want->s[i].start, want->s[i].prot);
	call_advice(b, first->start, end - first->start, 0, first->flags);
	return end;
}

static int walk(struct plan *pl, const struct segs *have, const struct segs *want, struct err *e)
{
	size_t i = 0, k = 0;
	uint64_t at = 0;
	int q = 0;

	while (q >= 0) {
		const struct seg *h, *w;
		uint64_t next = UINT64_MAX;

		while (i < have->n && have->s[i].end <= at)
			i++;
		while (k < want->n && want->s[k].end <= at)
			k++;
		h = i < have->n ? &have->s[i] : NULL;
		w = k < want->n ? &want->s[k] : NULL;
		if (!h && !w)
			break;
		if (h)
			next = MIN(next, h->start > at ? h->start : h->end);
		if (w)
			next = MIN(next, w->start > at ? w->start : w->end);
		if (w && w->start == at && (w->fresh || !h || h->start > at)) {
			uint64_t end = map_family(pl, want, k, h && !w->fresh ? h->start : UINT64_MAX, e);

			if (!end && w->fresh && w->type == VMA_ANON) {
				q = call_map(pl, w, w->start, w->end, e);
				end = w->end;
			}
			if (end) {
				at = end;
				continue;
			}
		}
		q = change(pl, h && h->start <= at ? h : NULL, w && w->start <= at ? w : NULL, at, next, e);
		at = next;
	}
	return q;
}

static int open_proc_file(struct rproc *p, const char *name, int flags, int *fd, struct err *e)
{
	char path[48];

	if (*fd >= 0)
		return *fd;
	snprintf(path, sizeof(path), "/proc/%d/%s", p->pid, name);
	*fd = open(path, flags | O_CLOEXEC);
	return *fd < 0 ? err_sys(e, "open '%s'", path) : *fd;
}

/* The files that new mappings need are handed in at once: they become fds 0, 1, 2 ... */
static int hand_in(struct plan *pl, const struct segs *want, struct err *e)
{
	struct restore *r = pl->r;
	int fds[FDS_MAX];
	size_t i;

	for (i = 0; i < want->n; i++) {
		uint32_t id = want->s[i].object;

		if (!id || want->s[i].type == VMA_SYSV || fd_index(pl, id) >= 0)
			continue;
		if (pl->nobj == FDS_MAX)
			return err_set(e, E2BIG, "pid %d maps more than %d files", pl->p->nspid, FDS_MAX);
		fds[pl->nobj] = robj_fd_of(r, id);
		if (fds[pl->nobj] < 0)
			return err_set(e, EBADMSG, "mapping %lx has the unknown object %u",
				       (unsigned long)want->s[i].start, id);
		pl->obj[pl->nobj++] = id;
	}
	if (!pl->nobj)
		return 0;
	robj_recv_call(r->b, POD_NS_CHILD_FD, pl->nobj);
	return robj_send(r, fds, pl->nobj, e);
}

static bool same_segs(const struct segs *a, const struct segs *b)
{
	size_t i;

	if (a->n != b->n)
		return false;
	for (i = 0; i < a->n; i++) {
		const struct seg *x = &a->s[i], *y = &b->s[i];

		if (x->start != y->start || x->end != y->end || x->prot != y->prot || x->type != y->type ||
		    x->object != y->object || x->flags != y->flags || x->shared != y->shared || x->pgoff != y->pgoff || y->fresh)
			return false;
	}
	return true;
}

static int apply_proc(struct restore *r, struct rproc *p, struct err *e)
{
	struct plan pl = { .r = r, .p = p };
	struct saved_pages saved = { 0 };
	struct segs want = { 0 };
	int q;

	if (!p->want->mm)
		return err_set(e, EBADMSG, "pid %d has no memory", p->nspid);
	q = wish(r, p->want->mm, &want, e);
	if (q < 0 || same_segs(&p->have, &want)) {
		free(want.s);
		return q;
	}
	family_number(p, &p->have, &want);
	if (p->have.n) {
		q = open_proc_file(p, "mem", O_RDWR, &p->memfd, e);
		if (q >= 0)
			q = open_proc_file(p, "pagemap", O_RDONLY, &p->pagemap, e);
		if (q >= 0)
			q = family_set_aside(p, &p->have, &want, &saved, e);
	}
	batch_begin(r->b, r->scratch);
	if (q >= 0)
		q = hand_in(&pl, &want, e);
	if (q >= 0)
		q = walk(&pl, &p->have, &want, e);
	if (q >= 0 && pl.vdso)
		batch_add2(r->b, SYS_arch_prctl, ARCH_MAP_VDSO_64, pl.vdso);
	if (q >= 0 && pl.nobj)
		batch_add3(r->b, SYS_close_range, 0, POD_NS_CHILD_FD - 1, 0);
	if (q >= 0)
		q = run(&pl, e);
	free(p->have.s);
	p->have = want;
	return q < 0 ? q : family_put_back(p, &p->have, &saved, e);
}

int rmem_apply(struct restore *r, struct err *e)
{
	size_t i;
	int q = 0;

	for (i = 0; q >= 0 && i < r->nprocs; i++)
		if (r->procs[i]->want && !r->procs[i]->want->zombie)
			q = apply_proc(r, r->procs[i], e);
	return q;
}

int rmem_strip(struct restore *r, struct rproc *p, struct err *e)
{
	uint64_t end = r->scratch + SCRATCH_LEN;

	batch_begin(r->b, r->scratch);
	batch_add2(r->b, SYS_munmap, 0, r->scratch);
	batch_add2(r->b, SYS_munmap, end, USER_END - end);
	batch_add3(r->b, SYS_close_range, 0, POD_NS_CHILD_FD - 1, 0);
	batch_add3(r->b, SYS_close_range, POD_NS_CHILD_FD + 1, ~0u, 0);
	p->have.n = 0;
	return batch_run_ok(p->tasks[0], r->b, deadline_ms(CALL_MS), e);
}

/* ---- pages */

static int put_content(struct restore *r, uint32_t id, uint64_t off, uint64_t len, int kind, const void *data,
		       struct err *e)
{
	struct rcontent *c = robj_content(r, id);

	if (!c)
		return err_set(e, EBADMSG, "pages of the unknown object %u", id);
	/* before the cut it may have grown since its size was told; the cut tells it again */
	if (off > 1ull << 46 || (r->final && (off >= c->body->size || len > ALIGN_UP(c->body->size, PAGE) - off)))
		return err_set(e, EBADMSG, "pages beyond the end of '%s'", c->body->name);
	if (c->body->source == CONTENT_SYSV && off >= c->body->size)
		return err_set(e, EBADMSG, "pages beyond the end of '%s'", c->body->name);
	if (r->final || c->body->source == CONTENT_SYSV)
		len = MIN(len, c->body->size - off);
	if (kind != RUN_DATA) {
		if (fallocate(c->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)off, (off_t)len) < 0)
			return err_sys(e, "punch a hole into '%s'", c->body->name);
		return 0;
	}
	while (len) {
		ssize_t n = pwrite(c->fd, data, len, (off_t)off);

		if (n <= 0)
			return err_sys(e, "write '%s'", c->body->name);
		data = (const char *)data + n;
		off += (uint64_t)n;
		len -= (uint64_t)n;
	}
	return 0;
}

const struct seg *seg_at(const struct segs *l, uint64_t addr)
{
	size_t lo = 0, hi = l->n;

	while (lo < hi) {
		size_t mid = (lo + hi) / 2;

		if (l->s[mid].end <= addr)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo < l->n && l->s[lo].start <= addr ? &l->s[lo] : NULL;
}

static int put_pages(struct rproc *p, const struct seg *s, uint64_t addr, uint64_t len, int kind, const void *data,
		     struct err *e)
{
	bool writable = s->prot & PROT_WRITE;
	struct vma v = { .start = s->start, .end = s->end, .prot = (int)s->prot, .type = (enum vma_type)s->type };
	int q = open_proc_file(p, "mem", O_RDWR, &p->memfd, e);

	if (q >= 0 && kind == RUN_DATA)
		return pages_put(p->pid, p->memfd, writable, addr, data, len, e);
	if (q >= 0 && (kind == RUN_DROP || s->type != VMA_ANON) && kind != RUN_ZERO)
		return runs_add(&p->drops, addr, addr + len);
	if (q >= 0)
		q = open_proc_file(p, "pagemap", O_RDONLY, &p->pagemap, e);
	if (q < 0)
		return q;
	if (s->type == VMA_ANON)
		return pages_zero_present(p->pid, p->memfd, p->pagemap, writable, &v, addr, len, e);
	while (len) { /* zeros in a private file mapping hide what the file has there */
		static const uint8_t zeros[PAGE];

		q = pages_put(p->pid, p->memfd, writable, addr, zeros, PAGE, e);
		if (q < 0)
			return q;
		addr += PAGE;
		len -= PAGE;
	}
	return 0;
}

int rmem_frame(void *arg, uint32_t id, uint64_t addr, uint64_t len, int kind, const void *data, struct err *e)
{
	struct restore *r = arg;
	struct rproc *p;
	int q = 0;

	if (id & CONTENT_FRAME)
		return put_content(r, id & ~CONTENT_FRAME, addr, len, kind, data, e);
	p = rproc_by_ns(r, (pid_t)id);
	if (!p)
		return err_set(e, EBADMSG, "pages of the unknown pid %u", id);
	while (q >= 0 && len) {
		const struct seg *s = seg_at(&p->have, addr);
		uint64_t n;

		if (!s) {
			if (kind == RUN_DROP)
				return 0;
			return err_set(e, EBADMSG, "pages of pid %u at %lx, where nothing is mapped", id,
				       (unsigned long)addr);
		}
		n = MIN(len, s->end - addr);
		if (s->shared || is_kernel_made(s->type))
			return err_set(e, EBADMSG, "pages of pid %u in a shared mapping", id);
		q = put_pages(p, s, addr, n, kind, data, e);
		addr += n;
		len -= n;
		data = data ? (const char *)data + n : NULL;
	}
	return q < 0 ? err_wrap(e, "pid %u", id) : 0;
}

int rmem_flush_drops(struct restore *r, struct err *e)
{
	size_t i, k;
	int q = 0;

	for (i = 0; q >= 0 && i < r->nprocs; i++) {
		struct rproc *p = r->procs[i];

		for (k = 0; q >= 0 && k < p->drops.n;) {
			batch_begin(r->b, r->scratch);
			for (; k < p->drops.n && r->b->n < BATCH_MAX; k++)
				batch_add3(r->b, SYS_madvise, p->drops.r[k].start,
					   p->drops.r[k].end - p->drops.r[k].start, MADV_DONTNEED_LOCKED);
			q = batch_run_ok(p->tasks[0], r->b, deadline_ms(CALL_MS), e);
		}
		runs_done(&p->drops);
	}
	return q;
}

/* Is every mapping one here that was one there? A torn one works until the program moves it. */
static int verify_borders(struct rproc *p, const Pm__Mm *mm, struct err *e)
{
	struct vma_list maps = { 0 };
	size_t i;
	int q = maps_read(p->pid, &maps, e);

	for (i = 0; q >= 0 && i < mm->n_vmas; i++) {
		const struct vma *v = vma_find(&maps, mm->vmas[i]->start);

		if (!v || v->end < mm->vmas[i]->end) {
			q = err_set(e, EIO, "pid %d: mapping %lx-%lx prot %u flags %x ends at %lx here (fresh %d)", p->nspid,
				    (unsigned long)mm->vmas[i]->start, (unsigned long)mm->vmas[i]->end, mm->vmas[i]->prot,
				    mm->vmas[i]->flags, v ? (unsigned long)v->end : 0, mm->vmas[i]->fresh);
			log_error("%s", e->msg);
		}
	}
	vma_list_done(&maps);
	return q;
}

int rmem_verify(struct restore *r, struct err *e)
{
	size_t i, k;
	int bad = 0;

	for (i = 0; i < r->nprocs; i++) {
		const Pm__Mm *mm = r->procs[i]->want ? r->procs[i]->want->mm : NULL;

		if (mm && getenv("POD_VERIFY") && verify_borders(r->procs[i], mm, e) < 0)
			bad = e->code;
		for (k = 0; mm && k < mm->n_vmas; k++) {
			const Pm__Vma *v = mm->vmas[k];

			if (!v->digest || open_proc_file(r->procs[i], "mem", O_RDWR, &r->procs[i]->memfd, e) < 0 ||
			    mem_digest(r->procs[i]->memfd, v->start, v->end) == v->digest)
				continue;
			bad = err_set(e, EIO, "pid %d: mapping %lx-%lx '%s' prot %u type %u differs from the source's",
				      r->procs[i]->nspid, (unsigned long)v->start, (unsigned long)v->end, v->name, v->prot,
				      v->type);
			log_error("%s", e->msg);
		}
	}
	return bad;
}

/* ---- what the kernel keeps about an address space */

int rmem_finish(struct restore *r, struct rproc *p, struct err *e)
{
	const Pm__Mm *m = p->want->mm;
	struct prctl_mm_map map = { .start_code = m->start_code, .end_code = m->end_code,
				    .start_data = m->start_data, .end_data = m->end_data,
				    .start_brk = m->start_brk, .brk = m->brk, .start_stack = m->start_stack,
				    .arg_start = m->arg_start, .arg_end = m->arg_end,
				    .env_start = m->env_start, .env_end = m->env_end, .exe_fd = 0 };
	int fd = robj_fd_of(r, m->exe), q;
	struct rcontent *c = robj_content(r, m->exe);
	autoclose int own = -1;
	char path[48];

	if (fd < 0)
		return err_set(e, EBADMSG, "pid %d: unknown program file %u", p->nspid, m->exe);
	if (c) { /* a program must not be open for writing */
		snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
		own = open(path, O_RDONLY | O_CLOEXEC);
		if (own < 0)
			return err_sys(e, "open the program of pid %d", p->nspid);
		close_fdp(&c->fd);
		c->fd = take_fd(&own);
		fd = c->fd;
	}
	batch_begin(r->b, r->scratch);
	robj_recv_call(r->b, POD_NS_CHILD_FD, 1);
	map.auxv = (void *)batch_data(r->b, m->auxv.data, m->auxv.len);
	map.auxv_size = (uint32_t)m->auxv.len;
	batch_add(r->b, SYS_prctl, PR_SET_MM, PR_SET_MM_MAP, batch_data(r->b, &map, sizeof(map)), sizeof(map), 0, 0);
	batch_add3(r->b, SYS_close_range, 0, POD_NS_CHILD_FD - 1, 0);
	q = robj_send(r, &fd, 1, e);
	if (q >= 0)
		q = batch_run_ok(p->tasks[0], r->b, deadline_ms(CALL_MS), e);
	return q < 0 ? err_wrap(e, "pid %d (%s): memory layout", p->nspid, p->want->comm) : advice_finish(r, p, e);
}
