/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Images that build on one another: finding the parents, and the pages that are stored in them. */
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "pod/base/io.h"
#include "pod/base/util.h"
#include "pod/image/image.h"
#include "pod/mem/mem.h"

/* The frames that hold pages, with the number of their first one within the image; and the digests of all. */
struct chain_pages {
	uint64_t first; /* of the image's pages in the chain */
	struct {
		uint64_t at;
		const struct image_entry *entry;
	} *frame;
	size_t n;
	struct page_digest *hash;
	char *cache;   /* the pages of the compressed frame that was read last; NULL: none was */
	size_t cached; /* which it was */
};

static int load_hashes(const struct image *im, struct chain_pages *p, struct err *e)
{
	uint64_t got = 0;
	size_t i;
	int r = 0;

	p->hash = calloc(im->npages + 1, sizeof(*p->hash));
	if (!p->hash)
		return err_num(e, ENOMEM, "digests of an image");
	for (i = 0; r >= 0 && i < im->n; i++) {
		struct record rec;
		uint64_t n;

		if (im->entry[i].type != REC_HASHES)
			continue;
		r = image_record_at(im, i, &rec, e);
		if (r < 0)
			break;
		n = rec.len / sizeof(*p->hash);
		if (rec.len % sizeof(*p->hash) || n > im->npages - got)
			r = err_set(e, EBADMSG, "the image has more digests than pages");
		else
			memcpy(p->hash + got, rec.payload, rec.len);
		got += n;
		record_done(&rec);
	}
	if (r >= 0 && got != im->npages)
		r = err_set(e, EBADMSG, "the image has %lu digests of %lu pages", (unsigned long)got,
			    (unsigned long)im->npages);
	return r;
}

static int load_pages(const struct image *im, struct chain_pages *p, struct err *e)
{
	uint64_t at = 0;
	size_t i;

	p->frame = calloc(im->n, sizeof(*p->frame));
	if (!p->frame)
		return err_num(e, ENOMEM, "frames of an image");
	for (i = 0; i < im->n; i++) {
		if (!entry_is_frame(&im->entry[i]) || !im->entry[i].pages)
			continue;
		p->frame[p->n].at = at;
		p->frame[p->n++].entry = &im->entry[i];
		at += im->entry[i].pages;
	}
	return load_hashes(im, p, e);
}

/* Newest first, then turned round. */
static int open_all(struct image_chain *c, const char *path, const struct image_user *u, struct err *e)
{
	char next[PATH_MAX], *slash;
	uint64_t want = 0;
	int r;

	if ((size_t)snprintf(next, sizeof(next), "%s", path) >= sizeof(next))
		return err_num(e, ENAMETOOLONG, "'%s'", path);
	for (;;) {
		struct image *im = &c->im[c->n];

		r = image_open(im, next, u, e);
		if (r == -ENOENT && c->n)
			r = err_set(e, EBADMSG, "'%s', which the image builds on, is not there", next);
		if (r < 0)
			return r;
		c->n++;
		if (c->n > 1 && im->digest != want)
			return err_set(e, EBADMSG, "'%s' is not the image that the newer one builds on", next);
		if (!im->head->parent[0])
			return 0;
		if (c->n == CHAIN_MAX)
			return err_set(e, EBADMSG, "more than %d images that build on one another", CHAIN_MAX);
		if (strchr(im->head->parent, '/') || im->head->parent[0] == '.')
			return err_set(e, EBADMSG, "'%s' is no name of an image", im->head->parent);
		want = im->head->parent_digest;
		slash = strrchr(next, '/');
		if ((size_t)snprintf(slash ? slash + 1 : next, sizeof(next) - (slash ? (size_t)(slash + 1 - next) : 0), "%s",
				     im->head->parent) >= sizeof(next) - (slash ? (size_t)(slash + 1 - next) : 0))
			return err_num(e, ENAMETOOLONG, "'%s'", im->head->parent);
	}
}

int chain_open(struct image_chain *c, const char *path, const struct image_user *u, struct err *e)
{
	uint64_t first = 0;
	size_t i;
	int r;

	*c = (struct image_chain){ .n = 0 };
	r = open_all(c, path, u, e);
	for (i = 0; i < c->n / 2; i++) {
		struct image swap = c->im[i];

		c->im[i] = c->im[c->n - 1 - i];
		c->im[c->n - 1 - i] = swap;
	}
	if (r >= 0)
		c->pages = calloc(c->n, sizeof(*c->pages));
	if (r >= 0 && !c->pages)
		r = err_num(e, ENOMEM, "images");
	for (i = 0; r >= 0 && i < c->n; i++) {
		c->pages[i].first = first;
		c->im[i].older = first;
		first += c->im[i].npages;
		r = load_pages(&c->im[i], &c->pages[i], e);
	}
	if (r < 0)
		chain_close(c);
	return r;
}

int chain_known(const struct image_chain *c, struct dedup *out, struct err *e)
{
	size_t i;
	int r = 0;

	for (i = 0; r >= 0 && i < c->n; i++)
		r = dedup_add(out, c->pages[i].hash, c->im[i].npages, e);
	return r;
}

/* The image that holds page @at, of which there is one. */
static size_t image_of(const struct image_chain *c, uint64_t at)
{
	size_t k = c->n - 1;

	while (c->pages[k].first > at || !c->im[k].npages)
		k--;
	return k;
}

const struct page_digest *chain_digest(const struct image_chain *c, uint64_t at)
{
	size_t k;

	if (at >= chain_count(c))
		return NULL;
	k = image_of(c, at);
	return &c->pages[k].hash[at - c->pages[k].first];
}

int chain_hold(const struct image_chain *c, struct err *e)
{
	struct stat st;

	for (size_t i = 0; i < c->n; i++) {
		if (flock(c->im[i].fd, LOCK_SH | LOCK_NB) < 0 && errno == EWOULDBLOCK)
			return err_set(e, EBUSY, "image '%s' is about to be removed", c->im[i].head->id);
		if (fstat(c->im[i].fd, &st) < 0)
			return err_sys(e, "stat");
		if (!st.st_nlink)
			return err_set(e, EBUSY, "image '%s' has been removed", c->im[i].head->id);
	}
	return 0;
}

uint64_t chain_count(const struct image_chain *c)
{
	return c->n ? c->pages[c->n - 1].first + c->im[c->n - 1].npages : 0;
}

/* The frame that holds page @local of an image. */
static size_t frame_of(const struct chain_pages *p, uint64_t local)
{
	size_t lo = 0, hi = p->n;

	while (hi - lo > 1) {
		size_t mid = lo + (hi - lo) / 2;

		if (p->frame[mid].at <= local)
			lo = mid;
		else
			hi = mid;
	}
	return lo;
}

/* All pages of frame @f, which is compressed, into the cache: they are mostly asked for one after the other. */
static int read_packed(const struct image *im, struct chain_pages *p, size_t f, struct err *e)
{
	const struct image_entry *entry = p->frame[f].entry;
	autofree char *frame = NULL;
	int r;

	if (p->cache && p->cached == f)
		return 0;
	if (entry->len > PAGE_FRAME_MAX)
		return err_set(e, EBADMSG, "the image's index is damaged");
	frame = malloc(entry->len);
	if (!p->cache)
		p->cache = malloc(PAGE_FRAME_DATA_MAX);
	p->cached = SIZE_MAX;
	if (!frame || !p->cache)
		return err_num(e, ENOMEM, "a frame of an image");
	r = image_read_at(im->fd, entry->off, frame, entry->len, e);
	if (r >= 0)
		r = image_read_error(page_frame_unpack(frame, entry->len, p->cache, e), e);
	if (r >= 0 && (uint64_t)r != entry->pages * PAGE)
		r = err_set(e, EBADMSG, "the image's index is not that of its frames");
	if (r >= 0)
		p->cached = f;
	return r;
}

/* As many of the pages as one frame holds. */
static int read_some(const struct image *im, struct chain_pages *p, uint64_t local, size_t n, char *buf,
		     struct err *e)
{
	size_t f = frame_of(p, local), i;
	const struct image_entry *entry = p->frame[f].entry;
	uint64_t in = local - p->frame[f].at, left = entry->pages - in;
	uint64_t off = entry->off + entry->len - left * PAGE;
	int r;

	n = MIN(n, left);
	if (entry->type == IMAGE_FRAME_LZ4) {
		r = read_packed(im, p, f, e);
		if (r >= 0)
			memcpy(buf, p->cache + in * PAGE, n * PAGE);
	} else {
		r = image_read_at(im->fd, off, buf, n * PAGE, e);
	}
	if (r < 0)
		return r;
	for (i = 0; i < n; i++) {
		struct page_digest d = page_digest(buf + i * PAGE);

		if (memcmp(&d, &p->hash[local + i], sizeof(d)) != 0)
			return err_set(e, EBADMSG, "image '%s': page %lu is damaged", im->head->id,
				       (unsigned long)(local + i));
	}
	return (int)n;
}

int chain_read(const struct image_chain *c, uint64_t at, size_t n, void *buf, struct err *e)
{
	char *to = buf;
	size_t k;
	int r;

	if (at >= chain_count(c) || n > chain_count(c) - at)
		return err_set(e, EBADMSG, "the image refers to page %lu of %lu", (unsigned long)at,
			       (unsigned long)chain_count(c));
	while (n) {
		k = image_of(c, at);
		r = read_some(&c->im[k], &c->pages[k], at - c->pages[k].first, n, to, e);
		if (r < 0)
			return r;
		at += (uint64_t)r;
		n -= (size_t)r;
		to += (size_t)r * PAGE;
	}
	return 0;
}

void chain_close(struct image_chain *c)
{
	size_t i;

	for (i = 0; i < c->n; i++) {
		if (c->pages) {
			free(c->pages[i].frame);
			free(c->pages[i].hash);
			free(c->pages[i].cache);
		}
		image_close(&c->im[i]);
	}
	free(c->pages);
	c->pages = NULL;
	c->n = 0;
}
