/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Which pages of a process were written since the last look.
 *
 * The tracker is a userfaultfd of the tracked process with WP_ASYNC: a write to a protected page
 * clears the page's protection bit in the kernel and goes on, nobody is woken. PAGEMAP_SCAN reads
 * the bits and sets them again in one step per page, so no write is lost between the two.
 *
 * Rounds, while the process runs (tracker_scan_wp): every present page whose bit is clear is
 * reported and protected. The zero page is skipped, and so are, in private file mappings, the
 * file's own pages; they are left unprotected, so that they are reported as soon as they turn into
 * data.
 *
 * In the freeze (tracker_scan_final) the copy on the target must be made exactly equal. What can
 * differ from what the rounds reported is
 *
 *   written	    bit clear, page present		  -> written
 *   dropped	    no bit, no page or the zero page	  -> dropped (MADV_DONTNEED, reclaimed MADV_FREE,
 *		    an munmap and mmap that was registered again)
 *   marker	    private file mappings only: dropping a protected page leaves a marker there that
 *		    looks like a protected page in swap   -> written (reading it gives the file's bytes)
 *   file's	    such a marker, read since: the file's page with the bit set -> dropped
 *   new mapping    not tracked at all			  -> all present pages written, the rest dropped
 *
 * The scan for WRITTEN alone is the kernel's fast path (0.2-0.4 ms per GiB). In tracked memory it
 * reports everything that carries no bit: empty entries and whole holes too. A second scan of what
 * it found (only of that: a scan for PRESENT pages costs 5-8 ms per GiB) parts written from
 * dropped.
 * tracker_probe() tries on ourselves that the running kernel has this property.
 *
 * Registering. mremap() drops tracking of what it moves; and where the kernel merges the new place
 * with a tracked neighbour, of the whole neighbour, whose pages keep their bits. Such a page is
 * written without a fault and without clearing its bit. Registered again as it is, it would look
 * clean for ever: so tracker_register() looks whether a mapping is tracked, and after registering
 * one that was not, takes all bits away. The engine registers once, when it reserves (cut.c); what is
 * mapped or moved after that is not tracked any more, and the cut, which asks tracker_covers(), sends all
 * of it.
 *
 * Limits. A fork child starts without tracking. Memory written by devices (pinned
 * buffers) is not seen. Of shared memory, only writes through this process's mapping are seen, and
 * nothing is ever reported as dropped: whoever has several mappers takes the union.
 * Two trackers on one process steal each other's bits; closing the last fd makes all pages written.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>

#include "pod/base/kernel.h"
#include "pod/base/util.h"
#include "pod/mem/mem.h"

#define SCAN_REGIONS 1024
/* Neighbours that are at most so far apart are looked at by one scan: an ioctl costs ~100 entries. */
#define SCAN_GAP (128 * PAGE)

/* ---- runs */

static int runs_push(struct runs *rs, uint64_t start, uint64_t end)
{
	if (rs->n == rs->cap) {
		size_t cap = rs->cap ? rs->cap * 2 : 64;
		struct run *r = realloc(rs->r, cap * sizeof(*r));

		if (!r)
			return -ENOMEM;
		rs->r = r;
		rs->cap = cap;
	}
	rs->r[rs->n++] = (struct run){ start, end };
	return 0;
}

/** Adds [@start, @end); merged with the last run if it follows it. 0 or -ENOMEM. */
int runs_add(struct runs *rs, uint64_t start, uint64_t end)
{
	if (start >= end)
		return 0;
	if (rs->n && rs->r[rs->n - 1].end == start) {
		rs->r[rs->n - 1].end = end;
		return 0;
	}
	return runs_push(rs, start, end);
}

uint64_t runs_pages(const struct runs *rs)
{
	uint64_t n = 0;
	size_t i;

	for (i = 0; i < rs->n; i++)
		n += (rs->r[i].end - rs->r[i].start) / PAGE;
	return n;
}

void runs_done(struct runs *rs)
{
	free(rs->r);
	memset(rs, 0, sizeof(*rs));
}

static int run_cmp(const void *a, const void *b)
{
	const struct run *x = a, *y = b;

	return x->start < y->start ? -1 : x->start > y->start;
}

/* Sorts runs[@from..] and merges what touches or overlaps. */
static void runs_normalize(struct runs *rs, size_t from)
{
	size_t i, to = from;

	if (rs->n - from < 2)
		return;
	qsort(rs->r + from, rs->n - from, sizeof(*rs->r), run_cmp);
	for (i = from + 1; i < rs->n; i++) {
		if (rs->r[i].start <= rs->r[to].end)
			rs->r[to].end = MAX(rs->r[to].end, rs->r[i].end);
		else
			rs->r[++to] = rs->r[i];
	}
	rs->n = to + 1;
}

/* Adds [@start, @end) minus the ascending runs @minus[@from..] to @out. */
static int runs_add_rest(struct runs *out, uint64_t start, uint64_t end, const struct runs *minus,
			 size_t *from)
{
	size_t i;

	while (*from < minus->n && minus->r[*from].end <= start)
		(*from)++;
	for (i = *from; i < minus->n && minus->r[i].start < end; i++) {
		if (minus->r[i].start > start && runs_add(out, start, minus->r[i].start))
			return -ENOMEM;
		start = MAX(start, minus->r[i].end);
	}
	return runs_add(out, start, end);
}

/* ---- PAGEMAP_SCAN */

struct query {
	uint64_t flags, inverted, mask, anyof;
};

/* One ioctl. Kernels before 6.15 know no guard category: asked again without it. */
static int scan_once(int pagemap, struct pm_scan_arg *a)
{
	int r = ioctl(pagemap, PAGEMAP_SCAN, a);

	if (r < 0 && errno == EINVAL && a->category_mask & PAGE_IS_GUARD && a->category_mask != PAGE_IS_GUARD) {
		a->category_mask &= ~(uint64_t)PAGE_IS_GUARD;
		a->category_inverted &= ~(uint64_t)PAGE_IS_GUARD;
		r = ioctl(pagemap, PAGEMAP_SCAN, a);
	}
	return r < 0 ? -errno : r;
}

static void scan_arg(struct pm_scan_arg *a, const struct query *q, struct page_region *vec,
		     size_t n, uint64_t start, uint64_t end)
{
	*a = (struct pm_scan_arg){
		.size = sizeof(*a),
		.flags = q->flags,
		.start = start,
		.end = end,
		.vec = (uintptr_t)vec,
		.vec_len = n,
		.category_inverted = q->inverted,
		.category_mask = q->mask,
		.category_anyof_mask = q->anyof,
		/* the fast path wants WRITTEN back; else the categories do not matter */
		.return_mask = q->mask & PAGE_IS_WRITTEN,
	};
}

/* All pages of [@start, @end) that @q selects, added to @out. */
static int scan(int pagemap, const struct query *q, uint64_t start, uint64_t end, struct runs *out,
		struct err *e)
{
	struct page_region vec[SCAN_REGIONS];
	struct pm_scan_arg a;
	int i, n;

	while (start < end) {
		scan_arg(&a, q, vec, ARRAY_SIZE(vec), start, end);
		n = scan_once(pagemap, &a);
		if (n == -EINTR)
			continue;
		if (n < 0)
			return err_num(e, n, "PAGEMAP_SCAN of %llx-%llx", (unsigned long long)start,
				       (unsigned long long)end);
		for (i = 0; i < n; i++)
			if (runs_add(out, vec[i].start, vec[i].end))
				return err_num(e, ENOMEM, "PAGEMAP_SCAN");
		/* The kernel collects 512 regions at a time; walk_end is where it last stopped for that, even
		 * when it has gone on to the end since: then regions would come twice, out of order. */
		if ((size_t)n < ARRAY_SIZE(vec))
			break;
		start = MAX(a.walk_end, vec[n - 1].end);
	}
	return 0;
}

/* The first page at or above @start that @q selects, or @end. */
static int scan_first(int pagemap, const struct query *q, uint64_t start, uint64_t end,
		      uint64_t *at, struct err *e)
{
	struct page_region one;
	struct pm_scan_arg a;
	int n;

	do {
		scan_arg(&a, q, &one, 1, start, end);
		a.max_pages = 1;
		n = scan_once(pagemap, &a);
	} while (n == -EINTR);
	if (n < 0)
		return err_num(e, n, "PAGEMAP_SCAN of %llx-%llx", (unsigned long long)start,
			       (unsigned long long)end);
	*at = n ? one.start : end;
	return 0;
}

/* What a page of the process's own is, in mapping @v. */
static struct query own_pages(const struct vma *v)
{
	uint64_t not = PAGE_IS_PFNZERO | PAGE_IS_GUARD;

	if (!v->shared && v->type != VMA_ANON)
		not |= PAGE_IS_FILE; /* still the file's */
	return (struct query){ .inverted = not, .mask = not,
			       .anyof = PAGE_IS_PRESENT | PAGE_IS_SWAPPED };
}

int pagemap_scan_present(int pagemap, const struct vma *v, struct runs *out, struct err *e)
{
	struct query q = own_pages(v);

	return scan(pagemap, &q, v->start, v->end, out, e);
}

int pagemap_scan_guard(int pagemap, const struct vma *v, struct runs *out, struct err *e)
{
	struct query q = { .mask = PAGE_IS_GUARD };
	struct err local;
	int r = scan(pagemap, &q, v->start, v->end, out, e ? e : &local);

	return r;
}

/* ---- the tracker */

int tracker_uffd_flags(void)
{
	return O_CLOEXEC | O_NONBLOCK | UFFD_USER_MODE_ONLY;
}

int tracker_init(struct tracker *t, pid_t pid, int uffd, struct err *e)
{
	struct uffdio_api api = {
		.api = UFFD_API,
		.features = UFFD_FEATURE_WP_ASYNC | UFFD_FEATURE_WP_UNPOPULATED |
			    UFFD_FEATURE_WP_HUGETLBFS_SHMEM,
	};
	char path[64];
	int pagemap;

	snprintf(path, sizeof(path), "/proc/%d/pagemap", (int)pid);
	pagemap = open(path, O_RDONLY | O_CLOEXEC);
	if (pagemap < 0)
		return err_sys(e, "open '%s'", path);
	if (uffd >= 0 && ioctl(uffd, UFFDIO_API, &api)) {
		int r = err_sys(e, "userfaultfd of %d: no WP_ASYNC (Linux 6.7)", (int)pid);

		close(pagemap);
		return r;
	}
	*t = (struct tracker){ .pid = pid, .uffd = uffd, .pagemap = pagemap };
	return 0;
}

/* Protection bits that a mapping brought along into its registration are taken away. */
static int clear_stale(struct tracker *t, const struct vma *v, struct err *e)
{
	const struct query protected = { .inverted = PAGE_IS_WRITTEN, .mask = PAGE_IS_WRITTEN,
					 .anyof = PAGE_IS_PRESENT | PAGE_IS_SWAPPED };
	struct uffdio_writeprotect wp = {
		.range = { .start = v->start, .len = v->end - v->start },
	};
	uint64_t first = v->end;
	int r;

	r = scan_first(t->pagemap, &protected, v->start, v->end, &first, e);
	if (r < 0 || first == v->end)
		return r;
	do
		r = ioctl(t->uffd, UFFDIO_WRITEPROTECT, &wp);
	while (r < 0 && errno == EAGAIN);
	return r < 0 ? -errno : 0;
}

int tracker_register(struct tracker *t, const struct vma *v, struct err *e)
{
	const struct query untracked = { .inverted = PAGE_IS_WPALLOWED, .mask = PAGE_IS_WPALLOWED };
	struct uffdio_register reg = {
		.range = { .start = v->start, .len = v->end - v->start },
		.mode = UFFDIO_REGISTER_MODE_WP,
	};
	uint64_t first = v->end;
	int r;

	if (t->uffd < 0)
		return err_set(e, EBADF, "process %d has no tracker", (int)t->pid);
	r = scan_first(t->pagemap, &untracked, v->start, v->end, &first, e);
	if (r < 0 || first == v->end)
		return r; /* tracked already, and its bits are right */
	r = ioctl(t->uffd, UFFDIO_REGISTER, &reg) ? -errno : 0;
	if (!r) {
		r = clear_stale(t, v, e);
		if (r < 0)
			ioctl(t->uffd, UFFDIO_UNREGISTER, &reg.range);
	}
	if (r < 0)
		return err_num(e, r, "process %d: tracking of %llx-%llx %s", (int)t->pid,
			       (unsigned long long)v->start, (unsigned long long)v->end, v->name);
	return 0;
}

int tracker_covers(struct tracker *t, const struct vma *v, struct err *e)
{
	const struct query untracked = { .inverted = PAGE_IS_WPALLOWED, .mask = PAGE_IS_WPALLOWED };
	uint64_t first = v->end;
	int r = scan_first(t->pagemap, &untracked, v->start, v->end, &first, e);

	return r < 0 ? r : first == v->end;
}

int tracker_scan_wp(struct tracker *t, const struct vma *v, struct runs *out, struct err *e)
{
	struct query q = own_pages(v);

	q.mask |= PAGE_IS_WRITTEN;
	q.flags = PM_SCAN_WP_MATCHING;
	return scan(t->pagemap, &q, v->start, v->end, out, e);
}

/* Everything of an untracked mapping: present pages are written, all else dropped. */
static int final_untracked(struct tracker *t, const struct vma *v, struct runs *written,
			   struct runs *dropped, struct err *e)
{
	struct runs own = { 0 };
	size_t i, from = 0;
	int r;

	r = pagemap_scan_present(t->pagemap, v, &own, e);
	for (i = 0; !r && i < own.n; i++)
		r = runs_add(written, own.r[i].start, own.r[i].end);
	if (!r && !v->shared)
		r = runs_add_rest(dropped, v->start, v->end, &own, &from);
	runs_done(&own);
	return r;
}

/* Of what the fast scan reported (@marked), the pages of the process's own into @own. */
static int final_own(int pagemap, const struct vma *v, const struct runs *marked, struct runs *own,
		     struct err *e)
{
	struct query q = own_pages(v);
	size_t i = 0, k;
	int r;

	q.mask |= PAGE_IS_WRITTEN;
	while (i < marked->n) {
		for (k = i + 1; k < marked->n; k++)
			if (marked->r[k].start - marked->r[k - 1].end > SCAN_GAP)
				break;
		r = scan(pagemap, &q, marked->r[i].start, marked->r[k - 1].end, own, e);
		if (r < 0)
			return r;
		i = k;
	}
	return 0;
}

/*
 * What dropping protected pages has left in a private file mapping (see above): markers are added
 * to @own, file pages that carry the bit to @gone. Nearly always one scan that finds nothing.
 */
static int final_file(int pagemap, const struct vma *v, struct runs *own, struct runs *gone,
		      struct err *e)
{
	struct query q = { .inverted = PAGE_IS_WRITTEN | PAGE_IS_GUARD,
			   .mask = PAGE_IS_WRITTEN | PAGE_IS_GUARD,
			   .anyof = PAGE_IS_FILE | PAGE_IS_SWAPPED };
	uint64_t first = v->end;
	int r;

	r = scan_first(pagemap, &q, v->start, v->end, &first, e);
	if (r < 0 || first == v->end)
		return r;
	q.anyof = 0;
	q.mask |= PAGE_IS_PRESENT | PAGE_IS_FILE;
	r = scan(pagemap, &q, first, v->end, gone, e);
	if (r < 0)
		return r;
	q.inverted |= PAGE_IS_PRESENT;
	q.mask = PAGE_IS_WRITTEN | PAGE_IS_GUARD | PAGE_IS_PRESENT | PAGE_IS_SWAPPED;
	r = scan(pagemap, &q, first, v->end, own, e);
	runs_normalize(own, 0);
	return r;
}

static int final_tracked(struct tracker *t, const struct vma *v, struct runs *marked,
			 struct runs *own, struct runs *dropped, struct err *e)
{
	size_t i, from = 0;
	int r;

	r = final_own(t->pagemap, v, marked, own, e);
	if (r < 0 || v->shared)
		return r;
	if (v->type != VMA_ANON) {
		r = final_file(t->pagemap, v, own, marked, e);
		if (r < 0)
			return r;
		runs_normalize(marked, 0);
	}
	for (i = 0; !r && i < marked->n; i++)
		r = runs_add_rest(dropped, marked->r[i].start, marked->r[i].end, own, &from);
	return r;
}

/* Guards are no pages: they are among what reads as written, so the rest need not be walked. */
static int final_guards(struct tracker *t, const struct runs *marked, struct runs *guards, struct err *e)
{
	const struct query q = { .mask = PAGE_IS_GUARD };
	size_t i, k;
	int r = 0;

	for (i = 0; r >= 0 && i < marked->n; i = k) {
		for (k = i + 1; k < marked->n; k++)
			if (marked->r[k].start - marked->r[k - 1].end > SCAN_GAP)
				break;
		r = scan(t->pagemap, &q, marked->r[i].start, marked->r[k - 1].end, guards, e);
	}
	return r == -EINVAL ? 0 : r;
}

int tracker_scan_final(struct tracker *t, const struct vma *v, struct runs *written,
		       struct runs *dropped, struct runs *guards, struct err *e)
{
	const struct query fast = { .flags = PM_SCAN_CHECK_WPASYNC, .mask = PAGE_IS_WRITTEN };
	struct runs marked = { 0 }, own = { 0 };
	size_t i;
	int r;

	r = scan(t->pagemap, &fast, v->start, v->end, &marked, e);
	if (r == -EPERM) {
		r = final_untracked(t, v, written, dropped, e);
		if (!r && guards && !v->shared)
			r = pagemap_scan_guard(t->pagemap, v, guards, NULL) == -ENOMEM ? -ENOMEM : 0;
		goto out;
	}
	if (!r && guards && !v->shared)
		r = final_guards(t, &marked, guards, e);
	if (!r)
		r = final_tracked(t, v, &marked, &own, dropped, e);
	for (i = 0; !r && i < own.n; i++)
		r = runs_add(written, own.r[i].start, own.r[i].end);
out:
	runs_done(&own);
	runs_done(&marked);
	return r == -ENOMEM ? err_num(e, ENOMEM, "page runs of %d", (int)t->pid) : r;
}

/* An empty 2 MiB, registered, must read as written: what tracker_scan_final() builds on. */
static int probe_hole(struct tracker *t, struct err *e)
{
	const uint64_t span = 2 << 20;
	const struct query fast = { .flags = PM_SCAN_CHECK_WPASYNC, .mask = PAGE_IS_WRITTEN };
	struct vma v = { .name = (char *)(uintptr_t)"" };
	struct runs seen = { 0 };
	void *p = mmap(NULL, 3 * span, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	int r;

	if (p == MAP_FAILED)
		return err_sys(e, "mmap");
	v.start = ALIGN_UP((uintptr_t)p, span) + span / 2;
	v.end = v.start + span;
	r = tracker_register(t, &v, e);
	if (!r)
		r = scan(t->pagemap, &fast, v.start, v.end, &seen, e);
	if (!r && runs_pages(&seen) != span / PAGE)
		r = err_set(e, ENOTSUP, "PAGEMAP_SCAN of this kernel does not report holes as written");
	runs_done(&seen);
	munmap(p, 3 * span);
	return r;
}

int tracker_probe(struct err *e)
{
	autoclose int fd = (int)syscall(SYS_userfaultfd, tracker_uffd_flags());
	struct tracker t;
	int r;

	if (fd < 0)
		return err_sys(e, "userfaultfd");
	r = tracker_init(&t, getpid(), fd, e);
	if (r < 0)
		return r;
	take_fd(&fd);
	r = probe_hole(&t, e);
	tracker_done(&t);
	return r;
}

void tracker_done(struct tracker *t)
{
	close_fdp(&t->uffd);
	close_fdp(&t->pagemap);
}
