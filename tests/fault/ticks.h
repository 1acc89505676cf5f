/* SPDX-License-Identifier: GPL-3.0-or-later */
/* What the copies of commit_test's pod write into shared memory. Times are CLOCK_MONOTONIC, ns. */
#ifndef TESTS_FAULT_TICKS_H
#define TESTS_FAULT_TICKS_H

#include <stdint.h>
#include <sys/types.h>

#define TICK_SLOTS 8

struct ticks {
	uint32_t n; /* copies so far */
	struct tick_slot {
		pid_t pid;
		uint64_t first, last, ticks;
	} slot[TICK_SLOTS];
};

#endif
