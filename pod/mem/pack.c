/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * When compression pays.
 *
 * LZ4 takes 0.5 to 1 ns for each byte, and a fast network or the page cache not half of that: to
 * compress blindly makes most moves slower. So now and then 16 KiB of a frame are compressed for
 * a try. Into a file it pays if the data becomes a good deal smaller: that is space for as long
 * as the image lives. To a peer it pays if the time on the link that is saved is more than the
 * time that it takes; both are measured, the link by how long writes have blocked of late, or by
 * the limit that the user has set. As long as tries fail they become rare: on data that cannot be
 * compressed they cost 1 % or less.
 *
 * In the freeze nothing is compressed (live.c).
 */
#include "pod/mem/pack.h"

#include <errno.h>
#include <lz4.h>
#include <stdlib.h>

#include "pod/base/io.h"
#include "pod/base/util.h"
#include "pod/mem/mem.h"

#define SAMPLE        (16u << 10)
#define GAP_MIN       8u
#define GAP_MAX       64u
#define FILE_PERCENT  60u           /* of its size, at most, that data in a file shall have */
#define SAVED_PERCENT 90u           /* of the time: else it is not worth the trouble */
#define FORGET        (64ull << 20) /* bytes after which what the link did counts half */

static bool have_buffer(struct page_pack *p)
{
	if (!p->buf)
		p->buf = malloc((size_t)LZ4_COMPRESSBOUND(PAGE_FRAME_DATA_MAX));
	return p->buf;
}

uint64_t pack_link_ns(const struct page_pack *p, uint64_t bytes)
{
	return p->bytes ? (uint64_t)((double)p->ns / (double)p->bytes * (double)bytes) : 0;
}

static uint64_t wire_ns(const struct page_pack *p, size_t bytes)
{
	uint64_t limited = p->rate_max ? bytes * NSEC_PER_SEC / p->rate_max : 0;

	return MAX(pack_link_ns(p, bytes), limited);
}

static bool pays(const struct page_pack *p, size_t len, size_t packed, uint64_t ns)
{
	if (!p->link)
		return packed * 100 <= len * FILE_PERCENT;
	return ns + wire_ns(p, packed) < wire_ns(p, len) * SAVED_PERCENT / 100;
}

static bool try_sample(struct page_pack *p, const char *data, size_t len)
{
	uint64_t t = now_ns();
	int n;

	len = MIN(len, (size_t)SAMPLE);
	n = LZ4_compress_default(data, p->buf, (int)len, LZ4_COMPRESSBOUND(SAMPLE));
	return n > 0 && pays(p, len, (size_t)n, now_ns() - t);
}

bool pack_wants(struct page_pack *p, const char *data, size_t len)
{
	if (p->mode == PACK_NONE || !have_buffer(p))
		return false;
	if (p->mode == PACK_LZ4)
		return true;
	if (p->wait) {
		p->wait--;
		return p->on;
	}
	p->on = try_sample(p, data, len);
	p->gap = p->on || !p->gap ? GAP_MIN : MIN(p->gap * 2, GAP_MAX);
	p->wait = p->gap;
	return p->on;
}

size_t pack_data(struct page_pack *p, const char *data, size_t len, const char **out)
{
	int n = LZ4_compress_default(data, p->buf, (int)len,
				     LZ4_COMPRESSBOUND(PAGE_FRAME_DATA_MAX));
	/* to take it apart again costs the other side, too */
	bool small = n > 0 && (size_t)n < len - len / 8;

	if (!small)
		p->on = false; /* until the next sample */
	else
		p->saved += len - (size_t)n;
	*out = p->buf;
	return small ? (size_t)n : 0;
}

void pack_written(struct page_pack *p, uint64_t bytes, uint64_t ns)
{
	p->bytes += bytes;
	p->ns += ns;
	if (p->bytes > FORGET) {
		p->bytes /= 2;
		p->ns /= 2;
	}
}

void pack_done(struct page_pack *p)
{
	free(p->buf);
	p->buf = NULL;
}

int pack_undo(const char *packed, size_t len, char *out, size_t want, struct err *e)
{
	int n = want > PAGE_FRAME_DATA_MAX || len > want
			? -1
			: LZ4_decompress_safe(packed, out, (int)len, (int)want);

	return n >= 0 && (size_t)n == want
		       ? 0
		       : err_set(e, EBADMSG, "page frame: its compressed data is damaged");
}
