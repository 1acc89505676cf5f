/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Whether the data of page frames is compressed, and by how much. LZ4 alone. */
#ifndef POD_MEM_PACK_H
#define POD_MEM_PACK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "pod/base/err.h"

enum pack_mode { PACK_AUTO, PACK_LZ4, PACK_NONE };

/* Lasts over the streams of one dump. All zeros: automatic, into a file. */
struct page_pack {
	enum pack_mode mode;
	bool link; /* to a peer: it pays if that is slower; a file: if it becomes much smaller */
	uint64_t rate_max; /* bytes per second that the link may carry; 0: no limit */
	/* its own */
	char *buf;
	bool on;            /* what the last sample said */
	unsigned wait, gap; /* frames to the next one; between two */
	uint64_t bytes, ns; /* written of late */
	uint64_t saved;     /* bytes, in all */
};

/** Is it worth while for the next frame? @data, @len: a piece of it. */
bool pack_wants(struct page_pack *p, const char *data, size_t len);
/** How many bytes, at *@out until the next call, instead of the @len at @data; 0: it does not become smaller. */
size_t pack_data(struct page_pack *p, const char *data, size_t len, const char **out);
/** A frame of @bytes has taken @ns to be written. */
void pack_written(struct page_pack *p, uint64_t bytes, uint64_t ns);
/** What the link takes for @bytes if nothing limits it, ns. */
uint64_t pack_link_ns(const struct page_pack *p, uint64_t bytes);
void pack_done(struct page_pack *p);

/** @len bytes at @packed become exactly @want at @out, or -EBADMSG. */
int pack_undo(const char *packed, size_t len, char *out, size_t want, struct err *e);

#endif
