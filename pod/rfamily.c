/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Families: neighbouring anonymous mappings that differ in protection only.
 *
 * The kernel merges two mappings only if they share an anon_vma (or one has none yet); mremap() across
 * a border that should not be there fails. A program whose area was one mapping, was split by
 * mprotect() and will be one again, relies on that. On the target a family that is made by one mmap()
 * and then split shares its anon_vma. But a family may also come together out of parts that were made
 * at different times: then its pages are set aside, it is made anew as one, and they are put back.
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/uio.h>

#include "pod/base/util.h"
#include "pod/rmem_int.h"

bool family_member(const struct seg *s)
{
	return s->type == VMA_ANON && !s->shared && (s->flags & VMF_ACCOUNT) &&
	       !(s->flags & (VMF_GROWSDOWN | VMF_NORESERVE));
}

bool family_joins(const struct seg *prev, const struct seg *s)
{
	return family_member(prev) && family_member(s) && prev->end == s->start && prev->flags == s->flags;
}

/* The first part of @have that @w keeps, at or after index *@i. */
static const struct seg *kept(const struct segs *have, size_t *i, const struct seg *w)
{
	for (; *i < have->n && have->s[*i].start < w->end; (*i)++) {
		const struct seg *h = &have->s[*i];

		if (h->end > w->start && !w->fresh && seg_same_backing(h, w))
			return h;
	}
	return NULL;
}

void family_number(struct rproc *p, const struct segs *have, struct segs *want)
{
	size_t i = 0, k;

	for (k = 0; k < want->n; k++) {
		struct seg *w = &want->s[k];
		const struct seg *h;

		while (i < have->n && have->s[i].end <= w->start)
			i++;
		h = kept(have, &(size_t){ i }, w);
		if (h)
			w->family = h->family;
		else if (k && family_joins(&want->s[k - 1], w))
			w->family = want->s[k - 1].family;
		else
			w->family = ++p->last_family;
	}
}

static int save_part(struct rproc *p, const struct seg *h, uint64_t from, uint64_t to, struct saved_pages *out,
		     struct err *e)
{
	struct vma v = { .start = from, .end = to, .prot = (int)h->prot, .type = VMA_ANON };
	struct runs runs = { 0 };
	size_t i;
	int q = pagemap_scan_present(p->pagemap, &v, &runs, e);

	for (i = 0; q >= 0 && i < runs.n; i++) {
		uint64_t len = runs.r[i].end - runs.r[i].start;
		struct saved_run *nr = realloc(out->r, (out->n + 1) * sizeof(*nr));
		void *data = nr ? malloc(len) : NULL;

		if (nr)
			out->r = nr;
		if (!data) {
			q = err_num(e, ENOMEM, "set pages aside");
			break;
		}
		if (pread(p->memfd, data, len, (off_t)runs.r[i].start) != (ssize_t)len) {
			q = err_sys(e, "read pages at %lx", (unsigned long)runs.r[i].start);
			free(data);
			break;
		}
		nr[out->n++] = (struct saved_run){ runs.r[i].start, len, data };
	}
	runs_done(&runs);
	return q;
}

/* Takes [from, to) out of @have: what lies there is made anew. */
static int cut_out(struct segs *have, uint64_t from, uint64_t to, struct err *e)
{
	struct segs out = { 0 };
	size_t i;

	for (i = 0; i < have->n; i++) {
		struct seg left = have->s[i], right = have->s[i];

		if (left.end <= from || left.start >= to) {
			if (seg_add(&out, &left) < 0)
				return err_num(e, ENOMEM, "mappings");
			continue;
		}
		left.end = from;
		right.start = to;
		right.pgoff += to - have->s[i].start;
		if ((left.start < left.end && seg_add(&out, &left) < 0) ||
		    (right.start < right.end && seg_add(&out, &right) < 0))
			return err_num(e, ENOMEM, "mappings");
	}
	free(have->s);
	*have = out;
	return 0;
}

static bool in_conflict(const struct segs *have, const struct segs *want, size_t k, size_t n)
{
	uint32_t id = 0;
	size_t i;

	for (; k < n; k++)
		for (i = 0; i < have->n; i++) {
			const struct seg *h = &have->s[i];

			if (h->end <= want->s[k].start || h->start >= want->s[k].end || want->s[k].fresh ||
			    !seg_same_backing(h, &want->s[k]))
				continue;
			if (id && h->family != id)
				return true;
			id = h->family;
		}
	return false;
}

int family_set_aside(struct rproc *p, struct segs *have, const struct segs *want, struct saved_pages *out, struct err *e)
{
	size_t k, n, i;
	int q = 0;

	for (k = 0; q >= 0 && k < want->n; k = n) {
		for (n = k + 1; n < want->n && family_joins(&want->s[n - 1], &want->s[n]); n++)
			;
		if (!have->n || !family_member(&want->s[k]) || !in_conflict(have, want, k, n))
			continue;
		for (; q >= 0 && k < n; k++)
			for (i = 0; q >= 0 && i < have->n; i++) {
				const struct seg *h = &have->s[i], *w = &want->s[k];

				if (h->end > w->start && h->start < w->end && !w->fresh && seg_same_backing(h, w))
					q = save_part(p, h, MAX(h->start, w->start), MIN(h->end, w->end), out, e);
			}
		for (i = n; q >= 0 && i-- > 0 && (i + 1 == n || family_joins(&want->s[i], &want->s[i + 1]));)
			q = cut_out(have, want->s[i].start, want->s[i].end, e);
	}
	return q;
}

int family_put_back(struct rproc *p, const struct segs *now, struct saved_pages *s, struct err *e)
{
	size_t i;
	int q = 0;

	for (i = 0; q >= 0 && i < s->n; i++) {
		uint64_t at = s->r[i].addr, end = at + s->r[i].len;
		const char *data = s->r[i].data;

		while (q >= 0 && at < end) {
			const struct seg *g = seg_at(now, at);
			uint64_t n;

			if (!g)
				break;
			n = MIN(end, g->end) - at;
			q = pages_put(p->pid, p->memfd, g->prot & PROT_WRITE, at, data, n, e);
			at += n;
			data += n;
		}
	}
	for (i = 0; i < s->n; i++)
		free(s->r[i].data);
	free(s->r);
	*s = (struct saved_pages){ 0 };
	return q;
}
