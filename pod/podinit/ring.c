/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "pod/podinit/ring.h"

#include <assert.h>
#include <errno.h>
#include <string.h>
#include <sys/mman.h>

#include "pod/base/util.h"

int ring_init(struct ring *r, size_t size, struct err *e)
{
	void *p;

	assert(size && !(size & (size - 1)));
	memset(r, 0, sizeof(*r));
	p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (p == MAP_FAILED)
		return err_sys(e, "map a ring of %zu bytes", size);
	r->buf = p;
	r->size = size;
	return 0;
}

void ring_done(struct ring *r)
{
	if (r->buf)
		munmap(r->buf, r->size);
	memset(r, 0, sizeof(*r));
}

size_t ring_space(const struct ring *r, uint64_t floor, uint8_t **p)
{
	uint64_t keep = MIN(MAX(floor, r->tail), r->head);
	size_t used = (size_t)(r->head - keep), at = (size_t)(r->head & (r->size - 1));

	*p = r->buf + at;
	return MIN(r->size - used, r->size - at);
}

void ring_commit(struct ring *r, size_t n)
{
	r->head += n;
	if (r->head - r->tail > r->size)
		r->tail = r->head - r->size;
}

size_t ring_peek(const struct ring *r, uint64_t offset, const uint8_t **p)
{
	size_t at = (size_t)(offset & (r->size - 1));

	assert(offset >= r->tail && offset <= r->head);
	*p = r->buf + at;
	return MIN((size_t)(r->head - offset), r->size - at);
}

void ring_drop(struct ring *r, uint64_t offset)
{
	if (offset > r->tail)
		r->tail = MIN(offset, r->head);
}
