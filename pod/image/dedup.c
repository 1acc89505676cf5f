/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "pod/image/dedup.h"

#include <endian.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "pod/mem/mem.h"

#define MIN_SLOTS 1024
#define PAGES_MAX UINT32_MAX /* 16 TiB */

/* Open addressing; a slot holds a page's number + 1. */
struct dedup {
	struct page_digest *page;
	size_t n, cap, old;
	uint32_t *slot;
	size_t nslots; /* a power of two, at least twice n */
};

struct page_digest page_digest(const void *page)
{
	XXH128_hash_t h = XXH3_128bits(page, PAGE);

	return (struct page_digest){ htole64(h.low64), htole64(h.high64) };
}

struct dedup *dedup_new(void)
{
	struct dedup *d = calloc(1, sizeof(*d));

	if (!d)
		return NULL;
	d->nslots = MIN_SLOTS;
	d->slot = calloc(d->nslots, sizeof(*d->slot));
	if (!d->slot) {
		free(d);
		return NULL;
	}
	return d;
}

static uint32_t *find(const struct dedup *d, const struct page_digest *p)
{
	size_t i = le64toh(p->lo) & (d->nslots - 1);

	while (d->slot[i] && memcmp(&d->page[d->slot[i] - 1], p, sizeof(*p)) != 0)
		i = (i + 1) & (d->nslots - 1);
	return &d->slot[i];
}

static int grow(struct dedup *d, size_t want)
{
	size_t i;

	if (want > d->cap) {
		size_t cap = want * 3 / 2 + 1024;
		struct page_digest *np = reallocarray(d->page, cap, sizeof(*np));

		if (!np)
			return -ENOMEM;
		d->page = np;
		d->cap = cap;
	}
	if (want * 2 <= d->nslots)
		return 0;
	free(d->slot);
	while (d->nslots < want * 2)
		d->nslots *= 2;
	d->nslots *= 2;
	d->slot = calloc(d->nslots, sizeof(*d->slot));
	if (!d->slot)
		return -ENOMEM;
	for (i = 0; i < d->n; i++) {
		uint32_t *s = find(d, &d->page[i]);

		if (!*s)
			*s = (uint32_t)i + 1;
	}
	return 0;
}

int dedup_add(struct dedup *d, const struct page_digest *p, size_t n, struct err *e)
{
	size_t i;

	if (n >= PAGES_MAX - d->n || grow(d, d->n + n) < 0)
		return err_num(e, ENOMEM, "the pages of an image");
	for (i = 0; i < n; i++) {
		uint32_t *s = find(d, &p[i]);

		d->page[d->n++] = p[i];
		if (!*s)
			*s = (uint32_t)d->n;
	}
	return 0;
}

void dedup_begin(struct dedup *d)
{
	d->old = d->n;
}

int dedup_page(struct dedup *d, const void *page, uint64_t *number)
{
	struct page_digest p = page_digest(page);
	uint32_t *s;

	if (d->n + 1 >= PAGES_MAX || grow(d, d->n + 1) < 0)
		return -ENOMEM;
	s = find(d, &p);
	if (*s) {
		*number = *s - 1;
		return 1;
	}
	d->page[d->n++] = p;
	*s = (uint32_t)d->n;
	return 0;
}

const struct page_digest *dedup_own(const struct dedup *d, size_t *n)
{
	*n = d->n - d->old;
	return d->page + d->old;
}

void dedup_free(struct dedup *d)
{
	if (!d)
		return;
	free(d->slot);
	free(d->page);
	free(d);
}
