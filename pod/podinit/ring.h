/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * A bounded ring of a stream's latest bytes, addressed by their offset in the stream. The bytes
 * [tail, head) are there. Writing beyond the size drops the oldest; the caller says, by a floor,
 * which bytes it can do without.
 */
#ifndef PODINIT_RING_H
#define PODINIT_RING_H

#include <stddef.h>
#include <stdint.h>

#include "pod/base/err.h"

struct ring {
	uint8_t *buf;
	size_t size; /* a power of two */
	uint64_t head, tail;
};

/** @size: a power of two, at least a page. */
int ring_init(struct ring *r, size_t size, struct err *e);
void ring_done(struct ring *r);
/** Where the next bytes go: *@p and how many fit in one piece if those before @floor may be lost. */
size_t ring_space(const struct ring *r, uint64_t floor, uint8_t **p);
/** @n bytes were put where ring_space() said. */
void ring_commit(struct ring *r, size_t n);
/** The bytes from @offset on, in one piece: *@p and how many. @offset within [tail, head]. */
size_t ring_peek(const struct ring *r, uint64_t offset, const uint8_t **p);
/** Everything before @offset may go. */
void ring_drop(struct ring *r, uint64_t offset);

#endif
