/* SPDX-License-Identifier: GPL-3.0-or-later */
/* The reader of records against a peer that means ill: nothing that is not a record is taken for one. */
#include "pod/image/stream.h"

#include <errno.h>
#include <pthread.h>
#include <sys/socket.h>

#include "image.pb-c.h"
#include "pod/base/io.h"
#include "pod/mem/mem.h"
#include "tests/harness.h"

#define HEADER 24
#define RECORDS 3

static void pair(int sv[2])
{
	T_REQUIRE(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sv) == 0);
}

/* A verdict, two bytes without a message, nothing at all: the bytes of three records. */
static size_t sample(uint8_t *out, size_t max, size_t ends[RECORDS])
{
	char cause[] = "because", phase[] = "cut";
	struct stream s = { .deadline = deadline_ms(60000) };
	Pm__Verdict v = PM__VERDICT__INIT;
	struct err e = { 0 };
	ssize_t n;
	int sv[2];

	pair(sv);
	s.fd = sv[0];
	v.cause = cause;
	v.phase = phase;
	T_OK(stream_send_msg(&s, REC_VERDICT, 0, &v.base, &e), &e);
	ends[0] = s.sent;
	T_OK(stream_send(&s, REC_HELD, 77, "ab", 2, &e), &e);
	ends[1] = s.sent;
	T_OK(stream_send(&s, REC_SOON, 0, NULL, 0, &e), &e);
	ends[2] = s.sent;
	n = read(sv[1], out, max);
	T_REQUIRE(n > 0 && (size_t)n == ends[2]);
	close(sv[0]);
	close(sv[1]);
	return (size_t)n;
}

/* How many whole records the reader takes from these bytes before it refuses; *code: with what. */
static size_t take_all(const uint8_t *bytes, size_t len, int *code)
{
	struct stream s = { .deadline = deadline_ms(60000) };
	struct err e = { 0 };
	struct record rec;
	size_t n = 0;
	int sv[2], r;

	pair(sv);
	s.fd = sv[1];
	T_REQUIRE(write(sv[0], bytes, len) == (ssize_t)len);
	close(sv[0]);
	for (;;) {
		r = stream_next_is_pages(&s, &e);
		if (r == 0)
			r = stream_recv(&s, &rec, &e);
		else if (r == 1)
			r = -EBADMSG; /* to pages_recv(), which has its own tests */
		if (r < 0)
			break;
		record_done(&rec);
		n++;
	}
	*code = r;
	close(sv[1]);
	return n;
}

static void test_truncated(void)
{
	uint8_t bytes[512];
	size_t ends[RECORDS], len = sample(bytes, sizeof(bytes), ends), i;
	int code;

	T_CHECK_EQ(take_all(bytes, len, &code), RECORDS);
	T_CHECK_EQ(code, -EPIPE);
	for (i = 0; i < len; i++) {
		size_t whole = i >= ends[1] ? 2 : i >= ends[0] ? 1 : 0;
		size_t n = take_all(bytes, i, &code);

		if (n != whole || code != -EPIPE)
			T_FATAL("cut at %zu of %zu: %zu records, code %d", i, len, n, code);
	}
}

static void test_flipped(void)
{
	uint8_t bytes[512];
	size_t ends[RECORDS], len = sample(bytes, sizeof(bytes), ends), i;
	int code;

	for (i = 0; i < len * 8; i++) {
		size_t at = i / 8, whole = at >= ends[1] ? 2 : at >= ends[0] ? 1 : 0, n;

		bytes[at] ^= (uint8_t)(1u << i % 8);
		n = take_all(bytes, len, &code);
		/* a longer length may end with the stream instead of with the digest */
		if (n != whole || (code != -EBADMSG && code != -EPIPE))
			T_FATAL("bit %zu of byte %zu: %zu records, code %d", i % 8, at, n, code);
		bytes[at] ^= (uint8_t)(1u << i % 8);
	}
}

/* Only the header is there and the peer is silent: who waits for (or makes room for) the rest hangs. */
static void refused_at_once(unsigned type, uint32_t len)
{
	uint8_t h[HEADER] = { 'P', 'M', 'I', '1', (uint8_t)len, (uint8_t)(len >> 8), (uint8_t)(len >> 16),
			      (uint8_t)(len >> 24), (uint8_t)type, (uint8_t)(type >> 8), 1 };
	struct stream s = { .deadline = deadline_ms(60000) };
	struct record rec = { 0 };
	struct err e = { 0 };
	int sv[2], r;

	pair(sv);
	s.fd = sv[1];
	T_REQUIRE(write(sv[0], h, sizeof(h)) == (ssize_t)sizeof(h));
	r = stream_recv(&s, &rec, &e);
	if (r != -EBADMSG || rec.payload || s.received)
		T_FAIL("type %u, %u bytes: %d %s", type, len, r, e.msg);
	close(sv[0]);
	close(sv[1]);
}

static void test_caps(void)
{
	unsigned type;

	for (type = 1; type < REC_MAX; type++) {
		refused_at_once(type, UINT32_MAX);
		refused_at_once(type, (1u << 30) + 1);
	}
	refused_at_once(REC_GREETING, (1u << 20) + 1);
	refused_at_once(REC_MISSING, (1u << 20) + 1);
	refused_at_once(REC_VERDICT, (1u << 20) + 1);
	refused_at_once(REC_CUT_END, (1u << 20) + 1);
	refused_at_once(REC_CLOCK, (1u << 20) + 1);
	refused_at_once(REC_HELD, STREAM_HELD_MAX + 1);
	refused_at_once(REC_TREE, (256u << 20) + 1);
	refused_at_once(REC_OBJECTS, (256u << 20) + 1);
	refused_at_once(REC_HELD_END, 1);
	refused_at_once(REC_SOON, 1);
	refused_at_once(0, 0);
	refused_at_once(REC_MAX, 0);
	refused_at_once(UINT16_MAX, 0);
}

/* The writer keeps the caps too: an error here is better than one there. */
static void test_writer_caps(void)
{
	static const uint8_t big[STREAM_HELD_MAX + 1];
	struct stream s = { .fd = -1, .deadline = deadline_ms(60000) };
	struct err e = { 0 };

	T_FAILS(stream_send(&s, REC_HELD, 0, big, sizeof(big), NULL), -EMSGSIZE);
	T_FAILS(stream_send(&s, REC_SOON, 0, big, 1, NULL), -EMSGSIZE);
	T_FAILS(stream_send(&s, REC_OBJECTS, 0, big, (256u << 20) + 1, &e), -EMSGSIZE);
	T_CHECK_HAS(e.msg, "too large");
	T_CHECK_HAS(e.msg, "open files");
	T_CHECK_EQ(s.sent, 0);
}

/* Far more than a program may map without a higher vm.max_map_count is neither too long nor too much unpacked. */
static void test_large_tree(void)
{
	const size_t n = 100000;
	struct stream s = { .deadline = deadline_ms(60000) };
	Pm__Vma *vma = calloc(n, sizeof(*vma)), **list = calloc(n, sizeof(*list));
	Pm__Tree tree = PM__TREE__INIT;
	Pm__Proc proc = PM__PROC__INIT, *procp = &proc;
	Pm__Mm mm = PM__MM__INIT;
	char name[] = "/usr/lib/x86_64-linux-gnu/libsomething-or-other.so.1.2.3";
	struct record rec = { .type = REC_TREE };
	struct err e = { 0 };
	ProtobufCMessage *m;
	size_t i;
	int sv[2];

	T_REQUIRE(vma && list);
	for (i = 0; i < n; i++) {
		pm__vma__init(&vma[i]);
		vma[i].start = 0x7f0000000000 + i * 8192;
		vma[i].end = vma[i].start + 4096;
		if (i % 2) /* the least that a mapping has, and much */
			vma[i].name = name;
		list[i] = &vma[i];
	}
	tree.procs = &procp;
	tree.n_procs = 1;
	proc.mm = &mm;
	mm.vmas = list;
	mm.n_vmas = n;
	pair(sv);
	s.fd = sv[0];
	close(sv[1]);
	T_FAILS(stream_send_msg(&s, REC_TREE, 0, &tree.base, NULL), -EPIPE); /* nobody reads, but its length is allowed */
	close(sv[0]);
	rec.len = pm__tree__get_packed_size(&tree);
	rec.payload = malloc(rec.len);
	T_REQUIRE(rec.payload);
	pm__tree__pack(&tree, rec.payload);
	m = record_unpack(&rec, &pm__tree__descriptor, &e);
	T_CHECK(m);
	if (m)
		protobuf_c_message_free_unpacked(m, NULL);
	record_done(&rec);
	free(vma);
	free(list);
}

/* A million empty processes: two bytes each on the wire, hundreds in memory. */
static void test_unpack_cap(void)
{
	size_t n = 1000000, i;
	struct record rec = { .type = REC_TREE, .len = 2 * n };
	struct err e = { 0 };

	rec.payload = malloc(rec.len);
	T_REQUIRE(rec.payload);
	for (i = 0; i < n; i++) {
		rec.payload[2 * i] = 0x0a;
		rec.payload[2 * i + 1] = 0;
	}
	T_CHECK(!record_unpack(&rec, &pm__tree__descriptor, &e));
	T_CHECK_EQ(e.code, -EBADMSG);
	rec.len = 2000; /* a thousand of them are within the allowance */
	{
		ProtobufCMessage *m = record_unpack(&rec, &pm__tree__descriptor, &e);

		T_REQUIRE(m);
		protobuf_c_message_free_unpacked(m, NULL);
	}
	record_done(&rec);
}

static void test_not_the_message(void)
{
	uint8_t bytes[] = { 0x0a, 0x7f, 1, 2, 3 }; /* a field of 127 bytes in a payload of five */
	struct record rec = { .type = REC_TREE, .payload = bytes, .len = sizeof(bytes) };
	struct err e = { 0 };

	T_CHECK(!record_unpack(&rec, &pm__tree__descriptor, &e));
	T_CHECK_EQ(e.code, -EBADMSG);
	T_CHECK_HAS(e.msg, "Tree");
}

static int expect_after(enum rec_type sent, const ProtobufCMessage *msg, enum rec_type due, struct err *e)
{
	struct stream s = { .deadline = deadline_ms(60000) };
	struct record rec = { 0 };
	int sv[2], r;

	pair(sv);
	s.fd = sv[0];
	r = msg ? stream_send_msg(&s, sent, 0, msg, e) : stream_send(&s, sent, 0, NULL, 0, e);
	T_OK(r, e);
	s.fd = sv[1];
	r = stream_expect(&s, due, &rec, e);
	if (r >= 0)
		record_done(&rec);
	else
		T_CHECK(!rec.payload);
	close(sv[0]);
	close(sv[1]);
	return r;
}

static void test_expect(void)
{
	Pm__Verdict v = PM__VERDICT__INIT;
	char cause[] = "no room";
	struct err e = { 0 };

	T_CHECK_EQ(expect_after(REC_SOON, NULL, REC_SOON, &e), 0);
	T_CHECK_EQ(expect_after(REC_SOON, NULL, REC_CLOCK, &e), -EPROTO);
	v.cause = cause;
	T_CHECK_EQ(expect_after(REC_VERDICT, &v.base, REC_CLOCK, &e), -EREMOTEIO);
	T_CHECK_STR(e.msg, "no room");
	T_CHECK_EQ(expect_after(REC_VERDICT, &v.base, REC_VERDICT, &e), -EREMOTEIO);
	v.ok = true;
	T_CHECK_EQ(expect_after(REC_VERDICT, &v.base, REC_VERDICT, &e), 0);
	T_CHECK_EQ(expect_after(REC_VERDICT, &v.base, REC_CLOCK, &e), -EPROTO);
}

static void *feed_slowly(void *arg)
{
	const uint32_t magic = PAGE_FRAME_MAGIC;
	int fd = *(int *)arg;
	size_t i;

	for (i = 0; i < sizeof(magic); i++) {
		if (write(fd, (const uint8_t *)&magic + i, 1) != 1)
			break;
		usleep(2000); /* apart, so that the reader sees a magic that is not whole */
	}
	return NULL;
}

static void test_next_is_pages(void)
{
	struct stream s = { .deadline = deadline_ms(60000) };
	const struct page_frame pf = { .magic = PAGE_FRAME_MAGIC };
	uint8_t head[sizeof(pf)];
	struct record rec;
	struct err e = { 0 };
	pthread_t t;
	int sv[2];

	pair(sv);
	/* a record, a page frame, a record */
	s.fd = sv[0];
	T_OK(stream_send(&s, REC_SOON, 0, NULL, 0, &e), &e);
	T_REQUIRE(write(sv[0], &pf, sizeof(pf)) == (ssize_t)sizeof(pf));
	T_OK(stream_send(&s, REC_SOON, 0, NULL, 0, &e), &e);
	s.fd = sv[1];
	T_CHECK_EQ(stream_next_is_pages(&s, &e), 0);
	T_OK(stream_recv(&s, &rec, &e), &e);
	record_done(&rec);
	T_CHECK_EQ(stream_next_is_pages(&s, &e), 1);
	T_FAILS(stream_recv(&s, &rec, &e), -EBADMSG); /* it is no record; this has taken 24 bytes */
	close(sv[0]);
	close(sv[1]);

	pair(sv);
	s.fd = sv[1];
	T_REQUIRE(pthread_create(&t, NULL, feed_slowly, &sv[0]) == 0);
	T_CHECK_EQ(stream_next_is_pages(&s, &e), 1);
	pthread_join(t, NULL);
	T_OK(io_read_full(sv[1], head, 4, deadline_ms(60000), &e), &e);
	/* part of a magic and then silence, then the end: neither may hang */
	T_REQUIRE(write(sv[0], "PM", 2) == 2);
	s.deadline = deadline_ms(20);
	T_FAILS(stream_next_is_pages(&s, &e), -ETIMEDOUT);
	s.deadline = deadline_ms(60000);
	close(sv[0]);
	T_CHECK_EQ(stream_next_is_pages(&s, &e), 0);
	T_FAILS(stream_recv(&s, &rec, &e), -EPIPE);
	close(sv[1]);
}

static const struct test_case cases[] = {
	{ "truncated", test_truncated },     { "flipped", test_flipped },
	{ "caps", test_caps },		     { "writer_caps", test_writer_caps },
	{ "large_tree", test_large_tree },
	{ "unpack_cap", test_unpack_cap },   { "not_the_message", test_not_the_message },
	{ "expect", test_expect },	     { "next_is_pages", test_next_is_pages },
};
const struct test_suite stream_suite = { "stream", cases, ARRAY_SIZE(cases) };
