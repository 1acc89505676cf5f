/* SPDX-License-Identifier: GPL-3.0-or-later */
/* A digest of a stretch of a process's memory: for tests that ask for it, it reads everything. */
#include <stdlib.h>
#include <unistd.h>
#include <xxhash.h>

#include "pod/base/util.h"
#include "pod/mem/mem.h"

#define CHUNK (256u << 10)

uint64_t mem_digest(int memfd, uint64_t start, uint64_t end)
{
	static uint8_t buf[CHUNK], zeros[PAGE];
	XXH3_state_t *st = XXH3_createState();
	uint64_t at, h;

	if (!st)
		return 0;
	XXH3_64bits_reset(st);
	for (at = start; at < end;) {
		ssize_t n = pread(memfd, buf, MIN((uint64_t)CHUNK, end - at), (off_t)at);

		if (n <= 0) { /* what cannot be read (beyond the end of a file) counts as zeros */
			XXH3_64bits_update(st, zeros, PAGE);
			at += PAGE;
			continue;
		}
		XXH3_64bits_update(st, buf, (size_t)n);
		at += (uint64_t)n;
	}
	h = XXH3_64bits_digest(st);
	XXH3_freeState(st);
	return h ? h : 1;
}
