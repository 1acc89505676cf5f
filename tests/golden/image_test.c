/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * The format of records, held by their bytes: for each type one record with a small fixed content.
 * The writer makes exactly these bytes, the reader takes them. They change only together with the
 * version of the format; a new type of record needs a new line here.
 *
 * With POD_CORPUS_DIR in the environment the records are also written there, one file each: the seeds
 * of tests/fuzz/fuzz_stream.c.
 */
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "image.pb-c.h"
#include "pod/base/io.h"
#include "pod/image/stream.h"
#include "pod/mem/mem.h"
#include "tests/harness.h"

#define MAX_RECORD 512

/* protobuf-c's strings are not const */
#define STR(name, text) static char name[] = text

static const ProtobufCMessage *greeting(void)
{
	static Pm__Greeting m = PM__GREETING__INIT;
	STR(op, "m1-00000001");

	m.version = 1;
	m.op = op;
	m.dry_run = true;
	return &m.base;
}

static const ProtobufCMessage *needs(void)
{
	static Pm__Needs m = PM__NEEDS__INIT;
	static Pm__HostFacts host = PM__HOST_FACTS__INIT;
	static Pm__FileNeed f = PM__FILE_NEED__INIT, *files[] = { &f };
	static uint8_t words[] = { 1, 2, 3, 4 };
	STR(kernel, "6.18.0");
	STR(path, "/lib/x");
	STR(user, "fd 7");

	host.kernel = kernel;
	host.xcr0 = 7;
	host.xstate_len = 832;
	host.cpuid.data = words;
	host.cpuid.len = sizeof(words);
	host.vdso_hash = 0x1122334455667788;
	host.vdso_len = 8192;
	f.path = path;
	f.size = 4097;
	f.mtime_ns = -1;
	f.mode = 0100644;
	f.pid = 12;
	f.user = user;
	m.host = &host;
	m.files = files;
	m.n_files = 1;
	m.shm_bytes = 65536;
	m.procs = 2;
	m.scratch = 0x100000;
	return &m.base;
}

static const ProtobufCMessage *missing(void)
{
	static Pm__Missing m = PM__MISSING__INIT;
	STR(line, "no such file");
	static char *lines[] = { line };

	m.lines = lines;
	m.n_lines = 1;
	return &m.base;
}

static const ProtobufCMessage *verdict(void)
{
	static Pm__Verdict m = PM__VERDICT__INIT;
	STR(phase, "cut");
	STR(cause, "why");

	m.exit_code = 9;
	m.phase = phase;
	m.cause = cause;
	return &m.base;
}

static const ProtobufCMessage *objects(void)
{
	static Pm__Objects m = PM__OBJECTS__INIT;
	static Pm__Object o = PM__OBJECT__INIT, *list[] = { &o };
	static uint8_t body[] = { 8, 3 };
	STR(link, "anon_inode:[eventfd]");

	o.id = 5;
	o.type = 7;
	o.version = 1;
	o.flags = 02;
	o.body.data = body;
	o.body.len = sizeof(body);
	o.link = link;
	m.objects = list;
	m.n_objects = 1;
	return &m.base;
}

static const ProtobufCMessage *tmpfs(void)
{
	static Pm__Tmpfs m = PM__TMPFS__INIT;
	static Pm__TmpfsNode n = PM__TMPFS_NODE__INIT, *list[] = { &n };
	STR(path, "/tmp/a");

	n.path = path;
	n.mode = 0100600;
	n.uid = 1000;
	n.size = 10;
	n.object = 6;
	m.nodes = list;
	m.n_nodes = 1;
	return &m.base;
}

static const ProtobufCMessage *tree(void)
{
	static Pm__Tree m = PM__TREE__INIT;
	static Pm__Proc p = PM__PROC__INIT, *procs[] = { &p };
	static Pm__Thread t = PM__THREAD__INIT, *threads[] = { &t };
	static Pm__Mm mm = PM__MM__INIT;
	static Pm__Vma v = PM__VMA__INIT, *vmas[] = { &v };
	STR(comm, "init");

	v.start = 0x1000;
	v.end = 0x3000;
	v.prot = 3;
	v.type = 1;
	mm.brk = 0x2000;
	mm.vmas = vmas;
	mm.n_vmas = 1;
	t.tid = 1;
	t.sigmask = 1ull << 63;
	p.pid = 1;
	p.sid = 1;
	p.comm = comm;
	p.threads = threads;
	p.n_threads = 1;
	p.mm = &mm;
	m.procs = procs;
	m.n_procs = 1;
	return &m.base;
}

static const ProtobufCMessage *cut_end(void)
{
	static Pm__CutEnd m = PM__CUT_END__INIT;

	m.records = 3;
	m.pages = 70000;
	m.mono_ns = 1000000007;
	m.boot_ns = 2000000011;
	return &m.base;
}

static const ProtobufCMessage *head(void)
{
	static Pm__ImageHead m = PM__IMAGE_HEAD__INIT;
	static uint8_t spec[] = { 10, 1, 'p' };
	STR(id, "p.1");
	STR(node, "n1");
	STR(build, "0.1");

	m.version = 1;
	m.compat = 1;
	m.spec.data = spec;
	m.spec.len = sizeof(spec);
	m.id = id;
	m.node = node;
	m.created_ns = 1700000000000000000;
	m.epoch = 3;
	m.build = build;
	m.ended = true;
	return &m.base;
}

static const ProtobufCMessage *log_piece(void)
{
	static Pm__LogPiece m = PM__LOG_PIECE__INIT;
	static uint8_t text[] = { 'h', 'i', '\n' };

	m.stream = 2;
	m.offset = 70000;
	m.data.data = text;
	m.data.len = sizeof(text);
	return &m.base;
}

/* one entry: a frame of 4136 bytes at 0 */
static const uint8_t index_entry[] = { 0, 0, 0, 0, 0, 0, 0, 0, 0x28, 0x10, 0, 0, 0xff, 0xff, 0, 0 };
/* INDEX at 4136, one entry, some digest */
static const uint8_t image_end[] = { 0x28, 0x10, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 8, 7, 6, 5, 4, 3, 2, 1 };
static const uint8_t frame[] = { 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2, 0, 0, 0, 0, 1, 8, 6 };

static const struct golden {
	enum rec_type type;
	uint32_t id;
	const char *name;
	const ProtobufCMessage *(*message)(void); /* NULL: raw bytes, or none */
	const uint8_t *raw;
	size_t raw_len;
	const char *hex;
} golden[] = {
#include "tests/golden/image_bytes.inc"
};
_Static_assert(ARRAY_SIZE(golden) == REC_MAX - 1, "each type of record has its golden bytes");

static size_t unhex(const char *hex, uint8_t *out, size_t max)
{
	size_t n = 0;
	unsigned b;

	for (; n < max && sscanf(hex, "%2x", &b) == 1; hex += 2)
		out[n++] = (uint8_t)b;
	return n;
}

static const char *tohex(const uint8_t *p, size_t n, char *out)
{
	size_t i;

	for (i = 0; i < n; i++)
		sprintf(out + 2 * i, "%02x", p[i]);
	out[2 * n] = 0;
	return out;
}

static size_t write_one(const struct golden *g, uint8_t *out)
{
	struct err e = { 0 };
	struct stream s = { .deadline = deadline_ms(60000) };
	ssize_t n;
	int sv[2];

	T_REQUIRE(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sv) == 0);
	s.fd = sv[0];
	if (g->message)
		T_OK(stream_send_msg(&s, g->type, g->id, g->message(), &e), &e);
	else
		T_OK(stream_send(&s, g->type, g->id, g->raw, g->raw_len, &e), &e);
	n = read(sv[1], out, MAX_RECORD);
	close(sv[0]);
	close(sv[1]);
	T_REQUIRE(n > 0 && (uint64_t)n == s.sent);
	return (size_t)n;
}

static void write_seed(const char *dir, const struct golden *g, const uint8_t *data, size_t len)
{
	struct err e = { 0 };
	char path[512];

	snprintf(path, sizeof(path), "%s/%s", dir, g->name);
	T_OK(io_replace_file(path, data, len, 0644, &e), &e);
}

static void test_written(void)
{
	size_t i;

	for (i = 0; i < ARRAY_SIZE(golden); i++) {
		const struct golden *g = &golden[i];
		uint8_t want[MAX_RECORD], got[MAX_RECORD];
		char hex[2 * MAX_RECORD + 1];
		size_t n = write_one(g, got), w = unhex(g->hex, want, sizeof(want));

		if (n != w || memcmp(got, want, n))
			T_FAIL("%s: the bytes are now %s", g->name, tohex(got, n, hex));
		if (getenv("POD_CORPUS_DIR"))
			write_seed(getenv("POD_CORPUS_DIR"), g, got, n);
	}
}

static void read_one(const struct golden *g)
{
	struct err e = { 0 };
	struct stream s = { .deadline = deadline_ms(60000) };
	struct record rec;
	uint8_t bytes[MAX_RECORD];
	size_t n = unhex(g->hex, bytes, sizeof(bytes)), again;
	int sv[2];

	T_REQUIRE(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sv) == 0);
	T_REQUIRE(write(sv[0], bytes, n) == (ssize_t)n);
	s.fd = sv[1];
	T_CHECK_EQ(stream_next_is_pages(&s, &e), 0);
	T_OK(stream_recv(&s, &rec, &e), &e);
	T_CHECK_EQ(rec.type, g->type);
	T_CHECK_EQ(rec.id, g->id);
	T_CHECK_EQ(s.received, n);
	if (g->message) {
		const ProtobufCMessage *want = g->message();
		ProtobufCMessage *m = record_unpack(&rec, want->descriptor, &e);
		uint8_t packed[MAX_RECORD];

		T_REQUIRE(m && protobuf_c_message_get_packed_size(m) <= sizeof(packed));
		again = protobuf_c_message_pack(m, packed);
		T_CHECK(again == rec.len && !memcmp(packed, rec.payload, again));
		T_CHECK_EQ(m->n_unknown_fields, 0);
		protobuf_c_message_free_unpacked(m, NULL);
	} else {
		T_CHECK(rec.len == g->raw_len && !memcmp(rec.payload, g->raw ? g->raw : rec.payload, rec.len));
	}
	record_done(&rec);
	close(sv[0]);
	close(sv[1]);
}

static void test_read(void)
{
	size_t i;

	for (i = 0; i < ARRAY_SIZE(golden); i++)
		read_one(&golden[i]);
}

/* Field by field, so that a change of the header is seen as such and not as 13 changes. */
static void test_header(void)
{
	static const uint8_t want[16] = { 'P', 'M', 'I', '1', 14, 0, 0, 0, REC_HELD, 0, 1, 0, 9, 0, 0, 0 };
	uint8_t got[MAX_RECORD];
	size_t i;

	for (i = 0; i < ARRAY_SIZE(golden); i++)
		if (golden[i].type == REC_HELD)
			break;
	T_REQUIRE(i < ARRAY_SIZE(golden));
	T_CHECK_EQ(write_one(&golden[i], got), 24 + sizeof(frame));
	T_CHECK(!memcmp(got, want, sizeof(want)));
	T_CHECK(!memcmp(got + 24, frame, sizeof(frame)));
}

/* A compressed frame of format 2: whatever library writes one, this is read. */
static const uint8_t packed_frame[] = {
	0x50, 0x4d, 0x5a, 0x33, 0x02, 0x00, 0x00, 0x00, 0x07, 0x00, 0x00, 0x00, 0x34, 0x00, 0x00, 0x00,
	0x93, 0x9d, 0x25, 0xf8, 0xa7, 0xda, 0x25, 0x7e, 0x00, 0x00, 0x40, 0x00, 0x00, 0x00, 0x00, 0x00,
	0x02, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x50, 0x00, 0x00, 0x00, 0x00, 0x00,
	0x03, 0x00, 0x00, 0x00, 0x01, 0x00, 0x00, 0x00, 0xbf, 0x70, 0x6f, 0x64, 0x6d, 0x69, 0x67, 0x72,
	0x61, 0x74, 0x65, 0x20, 0x0b, 0x00, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
	0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
	0xff, 0xff, 0xff, 0xff, 0xff, 0xfc, 0x50, 0x6d, 0x69, 0x67, 0x72, 0x61,
};

static int packed_run(void *arg, uint32_t id, uint64_t addr, uint64_t len, int kind, const void *data, struct err *e)
{
	unsigned *n = arg;

	(void)e;
	T_CHECK_EQ(id, 7);
	T_CHECK_EQ(addr, *n ? 0x500000 : 0x400000);
	T_CHECK_EQ(len, *n ? 3 * PAGE : 2 * PAGE);
	T_CHECK_EQ(kind, *n ? RUN_ZERO : RUN_DATA);
	for (size_t i = 0; data && i < len; i++)
		if (((const char *)data)[i] != "podmigrate "[i % 11])
			T_FATAL("byte %zu", i);
	++*n;
	return 0;
}

static void test_packed_frame(void)
{
	int fd = memfd_create("frame", MFD_CLOEXEC);
	unsigned n = 0;
	const struct page_sink sink = { .arg = &n, .run = packed_run };
	uint64_t got = 0;
	struct err e = { 0 };

	T_REQUIRE(pwrite(fd, packed_frame, sizeof(packed_frame), 0) == (ssize_t)sizeof(packed_frame));
	T_OK(pages_recv(fd, &sink, &got, deadline_ms(60000), &e), &e);
	T_CHECK_EQ(n, 2);
	T_CHECK_EQ(got, sizeof(packed_frame));
	close(fd);
}

static const struct test_case cases[] = {
	{ "packed_frame", test_packed_frame },
	{ "header", test_header },
	{ "written", test_written },
	{ "read", test_read },
};
const struct test_suite image_golden_suite = { "image_golden", cases, ARRAY_SIZE(cases) };
