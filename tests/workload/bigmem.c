/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * bigmem [MiB = 1024] [dirty MiB/s = 16] [working set MiB = all]: writes pages of a big area at a given
 * rate, at random places of the working set, and reads as many; every page has a generation that its
 * contents follow from. Prints "pages N rewritten" at the end.
 */
#include "wl.h"

static uint8_t *mem;
static uint32_t *gen; /* what each page's contents must be */

static void put(size_t i)
{
	gen[i]++;
	wl_fill(mem + i * WL_PAGE, WL_PAGE, (uint64_t)gen[i] << 32 | i, 0);
}

static void check(size_t i)
{
	wl_verify("page", mem + i * WL_PAGE, WL_PAGE, (uint64_t)gen[i] << 32 | i, 0);
}

int main(int argc, char **argv)
{
	size_t pages = (argc > 1 ? strtoul(argv[1], NULL, 0) : 1024) << 8, i;
	uint64_t rate = (argc > 2 ? strtoul(argv[2], NULL, 0) : 16) << 8; /* pages per second */
	size_t set = argc > 3 ? strtoul(argv[3], NULL, 0) << 8 : pages;
	uint64_t rng = 1, done = 0, last, now, due = 0;

	wl_init();
	mem = wl_map(pages * WL_PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE);
	gen = wl_map(pages * sizeof(*gen), PROT_READ | PROT_WRITE, MAP_PRIVATE);
	for (i = 0; i < pages; i++)
		put(i);
	wl_ready();
	last = wl_now();
	while (!wl_stopping()) {
		wl_sleep_ns(WL_MS);
		now = wl_now();
		/* after a long pause not all at once */
		due += now - last > WL_SEC / 10 ? WL_SEC / 10 : now - last;
		last = now;
		for (; rate && due >= WL_SEC / rate; due -= WL_SEC / rate) {
			put(wl_rand(&rng) % set);
			check(wl_rand(&rng) % pages);
			done++;
		}
	}
	for (i = 0; i < pages; i++)
		check(i);
	printf("pages %llu rewritten\n", (unsigned long long)done);
	wl_ok();
}
