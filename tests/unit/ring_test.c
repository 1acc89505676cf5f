/* SPDX-License-Identifier: GPL-3.0-or-later */
/* podinit's ring: offsets go on for ever, the buffer does not. */
#include "pod/podinit/ring.h"

#include <stdbool.h>
#include <string.h>

#include "tests/harness.h"

#define SIZE 4096u

/* Byte @off of the test's stream. */
static uint8_t stream_byte(uint64_t off)
{
	return (uint8_t)(off * 31 + (off >> 8) * 7 + (off >> 16));
}

static size_t put(struct ring *r, uint64_t floor, size_t want)
{
	uint8_t *p;
	size_t n = MIN(ring_space(r, floor, &p), want);

	for (size_t i = 0; i < n; i++)
		p[i] = stream_byte(r->head + i);
	ring_commit(r, n);
	return n;
}

static bool same(const struct ring *r, uint64_t from)
{
	for (uint64_t at = from; at < r->head;) {
		const uint8_t *p;
		size_t n = ring_peek(r, at, &p);

		if (!n)
			return false;
		for (size_t i = 0; i < n; i++)
			if (p[i] != stream_byte(at + i))
				return false;
		at += n;
	}
	return true;
}

static void test_empty(void)
{
	struct ring r;
	const uint8_t *q;
	uint8_t *p;
	struct err e = { 0 };

	T_OK(ring_init(&r, SIZE, &e), &e);
	T_CHECK_EQ(ring_space(&r, 0, &p), SIZE);
	T_CHECK_EQ(ring_peek(&r, 0, &q), 0);
	ring_done(&r);
	T_CHECK(!r.buf);
}

static void test_full_when_nothing_may_go(void)
{
	struct ring r;
	uint8_t *p;
	struct err e = { 0 };

	T_OK(ring_init(&r, SIZE, &e), &e);
	T_CHECK_EQ(put(&r, 0, 3000), 3000);
	T_CHECK_EQ(put(&r, 0, 3000), SIZE - 3000);
	T_CHECK_EQ(ring_space(&r, 0, &p), 0);
	T_CHECK(same(&r, 0));
	/* a consumer took 100 bytes */
	T_CHECK_EQ(put(&r, 100, 3000), 100);
	T_CHECK_EQ(r.tail, 100);
	T_CHECK_EQ(ring_space(&r, 100, &p), 0);
	T_CHECK(same(&r, 100));
	ring_done(&r);
}

static void test_overwrites_what_may_go(void)
{
	struct ring r;
	struct err e = { 0 };
	uint64_t total = 0;

	T_OK(ring_init(&r, SIZE, &e), &e);
	while (total < 100000)
		total += put(&r, r.head, 777);
	T_CHECK_EQ(r.head, total);
	T_CHECK_EQ(r.tail, total - SIZE);
	T_CHECK(same(&r, r.tail));
	ring_done(&r);
}

/* A floor behind the tail or beyond the head is a caller's who was away or is early. */
static void test_odd_floors(void)
{
	struct ring r;
	uint8_t *p;
	struct err e = { 0 };

	T_OK(ring_init(&r, SIZE, &e), &e);
	for (int i = 0; i < 10; i++)
		put(&r, r.head, 1000);
	T_CHECK_EQ(ring_space(&r, 0, &p), 0);
	T_CHECK(ring_space(&r, r.head + 5000, &p) > 0);
	T_CHECK(ring_space(&r, UINT64_MAX, &p) <= SIZE);
	ring_drop(&r, UINT64_MAX);
	T_CHECK_EQ(r.tail, r.head);
	ring_done(&r);
}

static void test_reader_in_step(void)
{
	struct ring r;
	struct err e = { 0 };
	uint64_t seen = 0;
	bool good = true;

	T_OK(ring_init(&r, SIZE, &e), &e);
	for (int i = 0; i < 5000; i++) {
		const uint8_t *p;
		size_t n;

		put(&r, seen, (size_t)(i * 37 % 1500));
		n = MIN(ring_peek(&r, seen, &p), (size_t)(i * 53 % 1700));
		for (size_t k = 0; k < n; k++)
			good &= p[k] == stream_byte(seen + k);
		seen += n;
		good &= r.tail <= seen && seen <= r.head && r.head - r.tail <= SIZE;
	}
	T_CHECK(good);
	T_CHECK(seen > 100 * SIZE);
	ring_done(&r);
}

static const struct test_case cases[] = {
	{ "empty", test_empty },
	{ "full_when_nothing_may_go", test_full_when_nothing_may_go },
	{ "overwrites_what_may_go", test_overwrites_what_may_go },
	{ "odd_floors", test_odd_floors },
	{ "reader_in_step", test_reader_in_step },
};
const struct test_suite ring_suite = { "ring", cases, ARRAY_SIZE(cases) };
