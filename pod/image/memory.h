/* SPDX-License-Identifier: GPL-3.0-or-later */
/* The memory of an image's processes at the cut: which page is where. */
#ifndef POD_IMAGE_MEMORY_H
#define POD_IMAGE_MEMORY_H

#include "pod/image/image.h"

enum span_kind {
	SPAN_NONE, /* no page of its own: zeros, or what the file has there */
	SPAN_ZERO,
	SPAN_PAGES,
};

/* Where a span begins: a process's pid, or CONTENT_FRAME + a content's id, and an address in it. */
typedef unsigned __int128 span_at;

struct span {
	span_at start, end;
	enum span_kind kind;
	uint64_t page; /* SPAN_PAGES: the number of the first of them in the chain */
};

struct image_memory {
	struct span *s; /* in order, none meets another */
	size_t n;
};

static inline span_at span_pos(uint32_t id, uint64_t addr)
{
	return (span_at)id << 64 | addr;
}

/** Reads all frames of the newest image of @c, their digests checked. Pages of older ones are not looked at. */
int memory_load(const struct image_chain *c, struct image_memory *out, struct err *e);
/**
 * The part of @m at @at, at most to @end: one stretch of one kind. SPAN_NONE where nothing is known. To walk over [at, end):
 * go on at its end.
 */
struct span memory_span(const struct image_memory *m, span_at at, span_at end);
/** Are @p's mappings such that the functions below may be given them? 0 or -EBADMSG. */
int memory_check(const Pm__Proc *p, struct err *e);
/** The same of process @pid's mapping @v, by addresses: its own pages, else those of what is mapped. */
struct span memory_of_vma(const struct image_memory *m, uint32_t pid, const Pm__Vma *v, uint64_t at,
			  uint64_t end);
/** @len bytes at @addr of @p; zeros where there is no page. */
int memory_read(const struct image_chain *c, const struct image_memory *m, const Pm__Proc *p,
		uint64_t addr, void *buf, size_t len, struct err *e);
void memory_done(struct image_memory *m);

#endif
