/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Which page of an image is where in the end: what came later wins, what was mapped over is gone. */
#include "pod/image/memory.h"

#include <errno.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/uio.h>

#include "control.pb-c.h"
#include "pod/base/io.h"
#include "pod/mem/mem.h"
#include "pod/mem/pack.h"
#include "tests/harness.h"

#define PID 5u
#define SHM 9u

struct builder {
	struct image_file f;
	struct stream s;
	struct page_digest hash[64];
	size_t pages;
	const char *path;
	struct page_pack pack;
};

static void begin(struct builder *b, const char *path, const char *id, const struct image *parent)
{
	static const struct image_user me = { 0 };
	Pm__ImageHead h = PM__IMAGE_HEAD__INIT;
	Pm__PodSpec spec = PM__POD_SPEC__INIT;
	char name[64], base[80];
	uint8_t packed[64];
	struct err e = { 0 };

	*b = (struct builder){ .path = path, .pack = { .mode = PACK_LZ4 } };
	T_OK(image_create(&b->f, path, &me, false, &e), &e);
	b->s = (struct stream){ .fd = b->f.fd, .deadline = deadline_ms(60000), .file = true };
	spec.created_ns = 1;
	h.spec.data = packed;
	h.spec.len = pm__pod_spec__pack(&spec, packed);
	h.version = h.compat = IMAGE_VERSION;
	snprintf(name, sizeof(name), "%s", id);
	h.id = name;
	if (parent) {
		snprintf(base, sizeof(base), "%s" IMAGE_SUFFIX, parent->head->id);
		h.parent = base;
		h.parent_digest = parent->digest;
	}
	T_OK(stream_send_msg(&b->s, REC_HEAD, 0, &h.base, &e), &e);
}

/* @n pages full of @c, of @id at page number @at. */
static void data(struct builder *b, uint32_t id, uint64_t at, size_t n, char c)
{
	char *mem = malloc((at + n) * PAGE);
	int fd = memfd_create("pages", MFD_CLOEXEC);
	struct page_known known = { 0 };
	struct runs runs = { 0 };
	struct err e = { 0 };

	memset(mem, c, n * PAGE);
	T_REQUIRE(pwrite(fd, mem, n * PAGE, (off_t)(at * PAGE)) == (ssize_t)(n * PAGE));
	T_REQUIRE(runs_add(&runs, at * PAGE, (at + n) * PAGE) == 0);
	/* compressed or not must make no difference */
	known.pack = b->pages % 2 || getenv("POD_CORPUS_DIR") ? &b->pack : NULL;
	T_OK(pages_send_file(b->s.fd, fd, id, &runs, &known, &b->s.sent, b->s.deadline, &e), &e);
	for (size_t i = 0; c && i < n; i++)
		b->hash[b->pages++] = page_digest(mem);
	runs_done(&runs);
	close(fd);
	free(mem);
}

static void drop(struct builder *b, uint64_t at, size_t n)
{
	struct runs runs = { 0 };
	struct err e = { 0 };

	T_REQUIRE(runs_add(&runs, at * PAGE, (at + n) * PAGE) == 0);
	T_OK(pages_send_drop(b->s.fd, PID, &runs, &b->s.sent, b->s.deadline, &e), &e);
	runs_done(&runs);
}

/* The page that is number @number already. */
static void same(struct builder *b, uint64_t at, uint64_t number)
{
	struct page_frame h = { .magic = PAGE_FRAME_MAGIC, .nruns = 2, .id = PID };
	struct page_run runs[2] = { { at * PAGE, 1, RUN_SAME }, { number * PAGE, 1, RUN_SAME_AT } };

	h.digest = page_frame_digest(&h, &(struct iovec){ runs, sizeof(runs) }, 1);
	T_REQUIRE(write(b->s.fd, &h, sizeof(h)) == sizeof(h) && write(b->s.fd, runs, sizeof(runs)) == sizeof(runs));
	b->s.sent += sizeof(h) + sizeof(runs);
}

struct area {
	uint64_t start, end;
	bool fresh;
	uint32_t object, flags;
};

static void tree(struct builder *b, enum rec_type type, const struct area *a, size_t n, uint64_t starttime)
{
	Pm__Tree t = PM__TREE__INIT;
	Pm__Proc p = PM__PROC__INIT, *procs = &p;
	Pm__Mm mm = PM__MM__INIT;
	Pm__Vma v[8], *vmas[8];
	struct err e = { 0 };

	for (size_t i = 0; i < n; i++) {
		pm__vma__init(&v[i]);
		v[i].start = a[i].start * PAGE;
		v[i].end = a[i].end * PAGE;
		v[i].fresh = a[i].fresh;
		v[i].object = a[i].object;
		v[i].flags = a[i].flags;
		vmas[i] = &v[i];
	}
	mm.vmas = vmas;
	mm.n_vmas = n;
	p.pid = PID;
	p.starttime = starttime;
	p.mm = &mm;
	t.procs = &procs;
	t.n_procs = 1;
	T_OK(stream_send_msg(&b->s, type, 0, &t.base, &e), &e);
}

/* With POD_CORPUS_DIR in the environment: the seeds of tests/fuzz/fuzz_image.c. */
static void write_seed(const char *path)
{
	static unsigned n;
	char *bytes, seed[300];
	struct err e = { 0 };
	size_t len;

	snprintf(seed, sizeof(seed), "%s/image%u", getenv("POD_CORPUS_DIR"), ++n);
	T_OK(io_read_file(path, 1 << 20, &bytes, &len, &e), &e);
	T_OK(io_replace_file(seed, bytes, len, 0644, &e), &e);
	free(bytes);
}

static void finish(struct builder *b)
{
	struct err e = { 0 };
	uint64_t digest;

	T_OK(image_hashes(&b->f, &b->s.sent, b->hash, b->pages, &e), &e);
	T_OK(image_seal(&b->f, &b->s.sent, &digest, &e), &e);
	T_OK(image_publish(&b->f, &e), &e);
	if (getenv("POD_CORPUS_DIR"))
		write_seed(b->path);
	image_done(&b->f);
	pack_done(&b->pack);
}

/* What is in pages [0, n) of the process, a letter each: '.' nothing, '0' zeros. */
static const char *look(const char *path, size_t n)
{
	static char out[65];
	struct image_chain c;
	struct image_memory m;
	struct err e = { 0 };
	char page[PAGE];

	T_OK(chain_open(&c, path, NULL, &e), &e);
	T_OK(memory_load(&c, &m, &e), &e);
	for (size_t i = 0; i < n; i++) {
		struct span x = memory_span(&m, span_pos(PID, i * PAGE), span_pos(PID, (i + 1) * PAGE));

		T_CHECK(x.start == span_pos(PID, i * PAGE) && x.end == span_pos(PID, (i + 1) * PAGE));
		if (x.kind == SPAN_PAGES)
			T_OK(chain_read(&c, x.page, 1, page, &e), &e);
		out[i] = x.kind == SPAN_PAGES ? page[i % PAGE] : x.kind == SPAN_ZERO ? '0' : '.';
	}
	out[n] = 0;
	memory_done(&m);
	chain_close(&c);
	return out;
}

#define LOOKS(path, want)                                                                \
	do {                                                                             \
		const char *got_ = look(path, strlen(want));                             \
		if (strcmp(got_, want) != 0)                                             \
			T_FAIL("pages: expected %s, got %s", want, got_);                \
	} while (0)

static void test_later_wins(void)
{
	const char *path = t_path("p.1" IMAGE_SUFFIX);
	struct area all = { 0, 16, false, 0, 0 };
	struct builder b;

	begin(&b, path, "p.1", NULL);
	data(&b, PID, 2, 8, 'a');
	data(&b, PID, 4, 2, 'b');
	data(&b, PID, 1, 2, 'c');
	data(&b, PID, 9, 3, 'd');
	data(&b, PID, 11, 2, 0);
	drop(&b, 7, 1);
	same(&b, 14, 8); /* the first that was written as 'b' */
	tree(&b, REC_FINAL, &all, 1, 1);
	finish(&b);
	LOOKS(path, ".ccabba.add00.b.");
	unlink(path);
}

static void test_mapped_over(void)
{
	const char *path = t_path("p.1" IMAGE_SUFFIX);
	struct area before[] = { { 0, 4, false, 0, 0 }, { 4, 8, false, 0, 0 }, { 8, 12, false, 3, 0 } };
	struct area after[] = { { 0, 2, false, 0, 0 }, { 2, 6, true, 0, 0 }, { 6, 10, false, 0, 0 }, { 10, 12, false, 3, 0 } };
	struct builder b;

	begin(&b, path, "p.1", NULL);
	tree(&b, REC_TREE, before, 3, 1);
	data(&b, PID, 0, 12, 'a');
	tree(&b, REC_FINAL, after, 4, 1);
	data(&b, PID, 3, 1, 'b');
	finish(&b);
	LOOKS(path, "aa.b..aa..aa");
	unlink(path);
}

/* What madvise(2) may change leaves the pages where they are; another sort of mapping has none of them. */
static void test_advice(void)
{
	const char *path = t_path("p.1" IMAGE_SUFFIX);
	struct area before[] = { { 0, 2, false, 0, 0 }, { 2, 4, false, 0, VMF_WIPEONFORK }, { 4, 6, false, 0, 0 } };
	struct area after[] = { { 0, 1, false, 0, VMF_DONTFORK },
				{ 1, 2, false, 0, VMF_DONTDUMP },
				{ 2, 4, false, 0, 0 },
				{ 4, 6, false, 0, VMF_NORESERVE } };
	struct builder b;

	begin(&b, path, "p.1", NULL);
	tree(&b, REC_TREE, before, ARRAY_SIZE(before), 1);
	data(&b, PID, 0, 6, 'a');
	tree(&b, REC_FINAL, after, ARRAY_SIZE(after), 1);
	finish(&b);
	LOOKS(path, "aaaa..");
	unlink(path);
}

static void test_another_of_that_pid(void)
{
	const char *path = t_path("p.1" IMAGE_SUFFIX);
	struct area all = { 0, 4, false, 0, 0 };
	struct builder b;

	begin(&b, path, "p.1", NULL);
	tree(&b, REC_TREE, &all, 1, 1);
	data(&b, PID, 0, 4, 'a');
	tree(&b, REC_FINAL, &all, 1, 2);
	data(&b, PID, 1, 1, 'b');
	finish(&b);
	LOOKS(path, ".b..");
	unlink(path);
}

static void test_chain_and_contents(void)
{
	char base[64], path[64], buf[6 * PAGE];
	struct area map = { 2, 6, false, SHM, 0 };
	struct builder b;
	struct image_chain c;
	struct image_memory m;
	struct err e = { 0 };
	Pm__Tree *t;

	snprintf(base, sizeof(base), "%s", t_path("p.1" IMAGE_SUFFIX));
	snprintf(path, sizeof(path), "%s", t_path("p.2" IMAGE_SUFFIX));
	begin(&b, base, "p.1", NULL);
	data(&b, PID, 0, 2, 'o');
	finish(&b);
	T_OK(chain_open(&c, base, NULL, &e), &e);
	begin(&b, path, "p.2", chain_top(&c));
	chain_close(&c);
	data(&b, CONTENT_FRAME | SHM, 0, 2, 's');
	data(&b, PID, 3, 1, 'p');
	same(&b, 5, 1);
	tree(&b, REC_FINAL, &map, 1, 1);
	finish(&b);
	T_OK(chain_open(&c, path, NULL, &e), &e);
	T_OK(memory_load(&c, &m, &e), &e);
	t = (Pm__Tree *)image_message(chain_top(&c), REC_FINAL, &pm__tree__descriptor, &e);
	T_REQUIRE(t);
	/* its own pages over those of what is mapped, the older image's where it says so, zeros outside */
	T_OK(memory_read(&c, &m, t->procs[0], PAGE + 1, buf, 5 * PAGE, &e), &e);
	T_CHECK(buf[0] == 0 && buf[PAGE - 2] == 0 && buf[PAGE - 1] == 's' && buf[2 * PAGE - 2] == 's' && buf[2 * PAGE - 1] == 'p' &&
		buf[3 * PAGE - 1] == 0 && buf[4 * PAGE - 1] == 'o' && buf[5 * PAGE - 2] == 'o' && buf[5 * PAGE - 1] == 0);
	pm__tree__free_unpacked(t, NULL);
	memory_done(&m);
	chain_close(&c);
	unlink(path);
	unlink(base);
}

static const struct test_case cases[] = {
	{ "later_wins", test_later_wins },
	{ "mapped_over", test_mapped_over },
	{ "advice", test_advice },
	{ "another_of_that_pid", test_another_of_that_pid },
	{ "chain_and_contents", test_chain_and_contents },
};
const struct test_suite image_memory_suite = { "image_memory", cases, ARRAY_SIZE(cases) };
