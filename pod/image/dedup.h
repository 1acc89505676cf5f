/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Pages that an image need not hold: those that it, or an image that it builds on, holds already.
 *
 * Pages are known by their digests (XXH3, 128 bits), so it does not matter which process has one, or where, or whether
 * anybody has kept track of what was written: what is equal costs a reference, what differs is stored. An aborted
 * checkpoint, or a move in between, cannot make the next one wrong. The price is that all pages are read; that is done
 * while the pod runs.
 *
 * Pages that are stored are numbered: those of the oldest image of a chain first.
 */
#ifndef POD_IMAGE_DEDUP_H
#define POD_IMAGE_DEDUP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "pod/base/err.h"

struct page_digest {
	uint64_t lo, hi; /* little-endian in a file */
};

struct dedup;

struct dedup *dedup_new(void); /* NULL: ENOMEM */
/** Adds @n pages of an older image, in their order. */
int dedup_add(struct dedup *, const struct page_digest *, size_t n, struct err *e);
/** All that were added until now are older images': what follows is this one's own. */
void dedup_begin(struct dedup *);
/** 1 and its number in *@number: it is there. 0: it is not, and has the next number now. -ENOMEM. */
int dedup_page(struct dedup *, const void *page, uint64_t *number);
/** Those of this image: *@n of them. */
const struct page_digest *dedup_own(const struct dedup *, size_t *n);
void dedup_free(struct dedup *);

struct page_digest page_digest(const void *page);

#endif
