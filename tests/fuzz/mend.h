/* SPDX-License-Identifier: GPL-3.0-or-later */
/* For fuzzers: makes the digests of records right, so that what is behind them is reached. Page frames are stepped over. */
#ifndef TESTS_FUZZ_MEND_H
#define TESTS_FUZZ_MEND_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <xxhash.h>

#include "pod/mem/mem.h"

#define HEADER 24

static inline void mend(uint8_t *bytes, size_t len)
{
	while (len >= HEADER) {
		struct page_frame h;
		uint64_t n, d;
		uint32_t plen;

		memcpy(&h, bytes, sizeof(h));
		if (page_frame_is(h.magic)) {
			n = (uint64_t)h.nruns * sizeof(struct page_run) + h.bytes;
			if (n > len - HEADER)
				return;
		} else {
			memcpy(&plen, bytes + 4, sizeof(plen));
			if (plen > len - HEADER) {
				plen = (uint32_t)(len - HEADER);
				memcpy(bytes + 4, &plen, sizeof(plen));
			}
			n = plen;
			d = XXH3_64bits_withSeed(bytes + HEADER, n, XXH3_64bits(bytes, 16));
			memcpy(bytes + 16, &d, sizeof(d));
		}
		bytes += HEADER + n;
		len -= HEADER + n;
	}
}

#endif
