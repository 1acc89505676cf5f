/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Mappings, and pages on a stream: what arrives is what was there, and hostile frames are refused. */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <sys/wait.h>

#include "pod/base/io.h"
#include "pod/mem/mem.h"
#include "pod/mem/pack.h"
#include "tests/harness.h"

/* ---- maps */

static const struct vma *at(const struct vma_list *l, const void *p)
{
	const struct vma *v = vma_find(l, (uintptr_t)p);

	T_REQUIRE(v);
	return v;
}

static void test_maps_types(void)
{
	autoclose int mfd = memfd_create("a b", MFD_CLOEXEC);
	autoclose int fd = open(t_path("odd\nname (deleted)"), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	autoclose int null = open("/dev/zero", O_RDWR | O_CLOEXEC);
	struct vma_list l = { 0 };
	struct err e = { 0 };
	const struct vma *v;
	struct stat st;
	char *anon, *shm, *mem, *file, *zero;
	int local;

	T_REQUIRE(mfd >= 0 && fd >= 0 && null >= 0 && !ftruncate(mfd, 8 * PAGE) &&
		  !ftruncate(fd, 8 * PAGE) && !fstat(fd, &st));
	anon = mmap(NULL, 3 * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	shm = mmap(NULL, 3 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	mem = mmap(NULL, 2 * PAGE, PROT_READ, MAP_PRIVATE, mfd, 3 * PAGE);
	file = mmap(NULL, 2 * PAGE, PROT_READ | PROT_EXEC, MAP_SHARED, fd, PAGE);
	zero = mmap(NULL, PAGE, PROT_READ, MAP_PRIVATE, null, 0);
	T_OK(maps_read(getpid(), &l, &e), &e);

	v = at(&l, anon + 2 * PAGE);
	T_CHECK(v->type == VMA_ANON && !v->prot && !v->shared && !*v->name);
	v = at(&l, shm);
	T_CHECK(v->type == VMA_SHMEM && v->shared && v->prot == (PROT_READ | PROT_WRITE));
	T_CHECK(v->deleted && v->ino);
	v = at(&l, mem);
	T_CHECK(v->type == VMA_MEMFD && !v->shared && v->pgoff == 3 * PAGE && v->deleted);
	T_CHECK_STR(v->name, "/memfd:a b");
	v = at(&l, file);
	T_CHECK(v->type == VMA_FILE && v->shared && v->prot == (PROT_READ | PROT_EXEC));
	T_CHECK(v->ino == st.st_ino && v->pgoff == PAGE);
	T_CHECK_HAS(v->name, "odd\nname");
	T_CHECK_EQ(at(&l, zero)->type, VMA_ANON);
	v = at(&l, &local);
	T_CHECK_STR(v->name, "[stack]");
	T_CHECK_EQ(v->type, VMA_ANON);
	T_OK(maps_read_flags(getpid(), &l, &e), &e);
	T_CHECK(at(&l, &local)->flags & VMF_GROWSDOWN);
	T_CHECK_EQ(at(&l, shm)->flags & VMF_GROWSDOWN, 0);

	munmap(anon, 3 * PAGE);
	munmap(shm, 3 * PAGE);
	munmap(mem, 2 * PAGE);
	munmap(file, 2 * PAGE);
	T_OK(maps_read(getpid(), &l, &e), &e);
	T_CHECK(!vma_find(&l, (uintptr_t)shm));
	T_CHECK_EQ(maps_read(0x7fffffff, &l, &e), -ENOENT);
	T_CHECK_EQ(l.n, 0);
	munmap(zero, PAGE);
	vma_list_done(&l);
}

/* A file whose name pretends to be a memfd is none. */
static void test_maps_are_not_fooled(void)
{
	autoclose int fd = -1;
	struct vma_list l = { 0 };
	struct err e = { 0 };
	char name[] = "/memfd:podmigrate-test-XXXXXX";
	void *p;

	fd = mkstemp(name);
	if (fd < 0)
		T_SKIP("cannot write to /");
	unlink(name);
	T_REQUIRE(!ftruncate(fd, PAGE));
	p = mmap(NULL, PAGE, PROT_READ, MAP_SHARED, fd, 0);
	T_OK(maps_read(getpid(), &l, &e), &e);
	T_CHECK_EQ(at(&l, p)->type, VMA_OTHER);
	munmap(p, PAGE);
	vma_list_done(&l);
}

static void test_find_hole(void)
{
	struct vma a[] = { { .start = 0x10000, .end = 0x20000 }, { .start = 0x30000, .end = 0x40000 } };
	struct vma b[] = { { .start = 0x20000, .end = 0x21000 }, { .start = 0x50000, .end = 0x60000 } };
	struct vma_list la = { .v = a, .n = 2 }, lb = { .v = b, .n = 2 };
	const struct vma_list *both[] = { &la, &lb };

	T_CHECK_EQ(vma_find_hole(both, 1, 0x10000, PAGE), 0x20000);
	T_CHECK_EQ(vma_find_hole(both, 2, 0x10000, PAGE), 0x21000);
	T_CHECK_EQ(vma_find_hole(both, 2, 0x10000, 0xf000), 0x21000);
	T_CHECK_EQ(vma_find_hole(both, 2, 0x10000, 0x10000), 0x40000);
	T_CHECK_EQ(vma_find_hole(both, 2, 0x10000, 0x10001), 0x60000);
	T_CHECK_EQ(vma_find_hole(both, 2, 1, PAGE), 0x1000);
	T_CHECK_EQ(vma_find_hole(both, 2, 0x10000, 1ull << 47), 0);
	T_CHECK_EQ(vma_find_hole(both, 2, 0x7ffffffff000ull, PAGE), 0);
	T_CHECK_EQ(vma_find_hole(both, 2, UINT64_MAX, PAGE), 0);
}

static void test_runs(void)
{
	struct runs r = { 0 };

	T_CHECK_EQ(runs_add(&r, 0x1000, 0x3000), 0);
	T_CHECK_EQ(runs_add(&r, 0x3000, 0x4000), 0);
	T_CHECK_EQ(runs_add(&r, 0x4000, 0x4000), 0);
	T_CHECK_EQ(runs_add(&r, 0x8000, 0x9000), 0);
	T_CHECK_EQ(r.n, 2);
	T_CHECK_EQ(runs_pages(&r), 4);
	runs_done(&r);
}

/* ---- pages */

#define N 5000ul

struct copy {
	uint64_t base;
	char *to;
	unsigned runs, drops, frames;
};

static int copy_run(void *arg, uint32_t id, uint64_t addr, uint64_t len, int kind,
		    const void *data, struct err *e)
{
	struct copy *c = arg;

	if (id != 3 || addr < c->base || addr + len > c->base + N * PAGE)
		return err_set(e, EPROTO, "outside");
	c->runs++;
	if (kind == RUN_DATA)
		memcpy(c->to + (addr - c->base), data, len);
	else
		memset(c->to + (addr - c->base), kind == RUN_DROP ? 0xdd : 0, len);
	c->drops += kind == RUN_DROP;
	return 0;
}

static void receive_all(int fd, struct copy *c)
{
	const struct page_sink sink = { .arg = c, .run = copy_run };
	off_t end = lseek(fd, 0, SEEK_CUR);
	struct err e = { 0 };
	uint64_t got = 0;

	T_REQUIRE(lseek(fd, 0, SEEK_SET) == 0);
	for (c->frames = 0; (off_t)got < end; c->frames++)
		T_OK(pages_recv(fd, &sink, &got, deadline_ms(60000), &e), &e);
	T_CHECK_EQ(got, end);
}

/* Data, zeros, unreadable and missing pages, scattered and in long runs. */
static void test_pages_arrive(void)
{
	autoclose int mem = open("/proc/self/mem", O_RDWR | O_CLOEXEC);
	autoclose int stream = memfd_create("stream", MFD_CLOEXEC);
	char *p = mmap(NULL, N * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	struct copy c = { .base = (uintptr_t)p, .to = malloc(N * PAGE) };
	struct runs all = { 0 }, drop = { 0 };
	struct err e = { 0 };
	uint64_t i, sent = 0;
	char *want = malloc(N * PAGE);

	T_REQUIRE(p != MAP_FAILED && c.to && want && mem >= 0);
	for (i = 0; i < N * PAGE; i += PAGE)
		if (i / PAGE % 7 < 4) /* one byte anywhere makes a page */
			p[i + i * 2654435761u % PAGE] = (char)(1 + i / PAGE % 100);
	memcpy(want, p, N * PAGE);
	memset(c.to, 0xee, N * PAGE);
	T_REQUIRE(mprotect(p + 40 * PAGE, 9 * PAGE, PROT_NONE) == 0);
	T_REQUIRE(mprotect(p + 140 * PAGE, PAGE, PROT_NONE) == 0);
	T_REQUIRE(munmap(p + 200 * PAGE, 3 * PAGE) == 0);
	memset(want + 200 * PAGE, 0xee, 3 * PAGE);
	for (i = 0; i < 400; i += 2) /* scattered */
		runs_add(&all, c.base + i * PAGE, c.base + (i + 1) * PAGE);
	for (i = 1; i < 400; i += 2)
		runs_add(&all, c.base + i * PAGE, c.base + (i + 1) * PAGE);
	runs_add(&all, c.base + 400 * PAGE, c.base + N * PAGE);
	T_CHECK_EQ(pages_send(stream, getpid(), mem, 3, NULL, &all, &sent, deadline_ms(60000), &e), 3);
	T_CHECK_EQ(sent, lseek(stream, 0, SEEK_CUR));
	T_CHECK(sent < N * PAGE * 4 / 7 + 200 * PAGE);
	runs_add(&drop, c.base + 10 * PAGE, c.base + 12 * PAGE);
	memset(want + 10 * PAGE, 0xdd, 2 * PAGE);
	T_OK(pages_send_drop(stream, 3, &drop, &sent, deadline_ms(60000), &e), &e);
	receive_all(stream, &c);
	T_CHECK_EQ(c.drops, 1);
	for (i = 0; i < N; i++)
		if (memcmp(c.to + i * PAGE, want + i * PAGE, PAGE))
			T_FATAL("page %llu differs", (unsigned long long)i);
	munmap(p, N * PAGE);
	runs_done(&all);
	runs_done(&drop);
	free(c.to);
	free(want);
}

/* An empty gigabyte is one frame of one run. */
static void test_zeros_are_small(void)
{
	autoclose int stream = memfd_create("stream", MFD_CLOEXEC);
	char *p = mmap(NULL, N * PAGE, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	struct runs all = { 0 };
	struct err e = { 0 };
	uint64_t sent = 0;

	runs_add(&all, (uintptr_t)p, (uintptr_t)p + N * PAGE);
	T_OK(pages_send(stream, getpid(), -1, 3, NULL, &all, &sent, deadline_ms(60000), &e), &e);
	T_CHECK_EQ(sent, sizeof(struct page_frame) + sizeof(struct page_run));
	munmap(p, N * PAGE);
	runs_done(&all);
}

static void test_file_object(void)
{
	autoclose int stream = memfd_create("stream", MFD_CLOEXEC);
	autoclose int obj = memfd_create("object", MFD_CLOEXEC);
	struct copy c = { .to = calloc(N, PAGE) };
	const uint64_t size = 99 * PAGE + 17;
	struct runs r = { 0 };
	struct err e = { 0 };
	uint64_t sent = 0;

	T_REQUIRE(c.to && !ftruncate(obj, (off_t)size) && pwrite(obj, "a", 1, 5 * PAGE + 1) == 1 &&
		  pwrite(obj, "bc", 2, 50 * PAGE - 1) == 2 && pwrite(obj, "d", 1, 99 * PAGE) == 1);
	T_REQUIRE(lseek(obj, 33, SEEK_SET) == 33);
	T_OK(file_data_runs(obj, size, &r, &e), &e);
	T_CHECK_EQ(lseek(obj, 0, SEEK_CUR), 33);
	T_REQUIRE(r.n == 3);
	T_CHECK_EQ(r.r[0].start, 5 * PAGE);
	T_CHECK_EQ(r.r[1].start, 49 * PAGE);
	T_CHECK_EQ(r.r[1].end, 51 * PAGE);
	T_CHECK_EQ(r.r[2].end, 100 * PAGE);
	T_CHECK_EQ(pages_send_file(stream, obj, 3, &r, NULL, &sent, deadline_ms(60000), &e), 0);
	receive_all(stream, &c);
	T_CHECK(c.to[5 * PAGE + 1] == 'a' && c.to[50 * PAGE - 1] == 'b' && c.to[50 * PAGE] == 'c' &&
		c.to[99 * PAGE] == 'd');
	runs_done(&r);
	free(c.to);
}

/* A process that ends in the middle leaves the stream whole, and the next one's pages arrive. */
static void test_process_gone(void)
{
	autoclose int out = memfd_create("stream", MFD_CLOEXEC);
	char *p = mmap(NULL, 2 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	struct copy c = { .base = (uintptr_t)p, .to = calloc(N, PAGE) };
	struct page_stream *ps = page_stream_new(out, NULL);
	uint64_t sent = 0, skipped = 0;
	struct runs all = { 0 };
	struct err e = { 0 };
	pid_t pid = fork();

	if (!pid)
		_exit(0);
	T_REQUIRE(pid > 0 && ps && c.to && waitpid(pid, NULL, 0) == pid);
	p[0] = 'x';
	runs_add(&all, c.base, c.base + 2 * PAGE);
	T_OK(page_stream_pages(ps, pid, -1, 2, NULL, &all, deadline_ms(60000), &e), &e);
	T_OK(page_stream_pages(ps, getpid(), -1, 3, NULL, &all, deadline_ms(60000), &e), &e);
	T_OK(page_stream_flush(ps, &sent, &skipped, &e), &e);
	T_CHECK_EQ(skipped, 2);
	receive_all(out, &c);
	T_CHECK(c.to[0] == 'x' && c.runs == 2);
	page_stream_free(ps);
	runs_done(&all);
	free(c.to);
	munmap(p, 2 * PAGE);
}

static void test_put(void)
{
	autoclose int mem = open("/proc/self/mem", O_RDWR | O_CLOEXEC);
	autoclose int pagemap = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
	char *p = mmap(NULL, 16 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	uint64_t a = (uintptr_t)p;
	const struct page_run runs[] = { { a, 1, RUN_DATA }, { a + 2 * PAGE, 2, RUN_ZERO },
					 { a + 5 * PAGE, 2, RUN_DATA }, { a + 9 * PAGE, 1, RUN_DATA } };
	const struct vma v = { .start = a, .end = a + 16 * PAGE, .type = VMA_ANON };
	struct runs there = { 0 };
	struct err e = { 0 };
	char data[4 * PAGE];
	int i;

	for (i = 0; i < 4; i++)
		memset(data + (uint64_t)i * PAGE, 'a' + i, PAGE);
	T_REQUIRE(mem >= 0 && pagemap >= 0 && mprotect(p + 6 * PAGE, PAGE, PROT_READ) == 0);
	T_OK(pages_put_runs(getpid(), mem, true, runs, ARRAY_SIZE(runs), data, &e), &e);
	T_CHECK(p[0] == 'a' && p[5 * PAGE] == 'b' && p[6 * PAGE] == 'c' && p[10 * PAGE - 1] == 'd');
	T_OK(pages_zero_present(getpid(), mem, pagemap, true, &v, a + 4 * PAGE, 4 * PAGE, &e), &e);
	T_CHECK(p[0] == 'a' && p[5 * PAGE] == 0 && p[6 * PAGE] == 0 && p[9 * PAGE] == 'd');
	T_OK(pagemap_scan_present(pagemap, &v, &there, &e), &e);
	T_CHECK_EQ(runs_pages(&there), 4);
	T_CHECK_EQ(pages_put(getpid(), mem, true, a + 16 * PAGE + (1ull << 46), data, PAGE, &e) < 0,
		   1);
	runs_done(&there);
	munmap(p, 16 * PAGE);
}

/* ---- hostile frames */

static int no_run(void *arg, uint32_t id, uint64_t addr, uint64_t len, int kind, const void *data,
		  struct err *e)
{
	(void)id, (void)addr, (void)len, (void)kind, (void)data, (void)e;
	++*(int *)arg;
	return 0;
}

static int feed(const void *bytes, size_t len)
{
	autoclose int fd = memfd_create("frame", MFD_CLOEXEC);
	int called = 0, r;
	const struct page_sink sink = { .arg = &called, .run = no_run };
	struct err e = { 0 };

	T_REQUIRE(pwrite(fd, bytes, len, 0) == (ssize_t)len);
	r = pages_recv(fd, &sink, NULL, deadline_ms(60000), &e);
	T_CHECK_EQ(r < 0, called == 0);
	T_CHECK_EQ(r < 0, e.code < 0);
	return r;
}

struct expected {
	uint64_t got;
};

static int expect_run(void *arg, uint32_t id, uint64_t addr, uint64_t len, int kind, const void *data, struct err *e)
{
	struct expected *x = arg;

	(void)e;
	T_CHECK_EQ(id, 7);
	T_CHECK(kind == RUN_DATA || kind == RUN_ZERO);
	T_CHECK(!data || memcmp((const void *)(uintptr_t)addr, data, len) == 0);
	x->got += len;
	return 0;
}

/* All frames on @fd together are @len bytes of our own memory. */
static void expect_same(int fd, uint64_t bytes, uint64_t len)
{
	struct expected x = { 0 };
	const struct page_sink sink = { .arg = &x, .run = expect_run };
	struct err e = { 0 };
	uint64_t got = 0;

	while (got < bytes)
		T_OK(pages_recv(fd, &sink, &got, deadline_ms(60000), &e), &e);
	T_CHECK_EQ(x.got, len);
}

static void test_hostile_frames(void)
{
	struct {
		struct page_frame h;
		struct page_run r[2];
		char data[PAGE];
	} f, good = { .h = { PAGE_FRAME_MAGIC, 2, 3, PAGE },
		      .r = { { 0x1000, 1, RUN_DATA }, { 0x5000, 9, RUN_ZERO } } };
	const struct iovec rest[] = { { good.r, sizeof(good.r) + sizeof(good.data) } };
	static const size_t all = sizeof(good);
	size_t cut;

	good.h.digest = page_frame_digest(&good.h, rest, 1);
	T_CHECK_EQ(feed(&good, all), 0);
#define BAD(change, code)                             \
	do {                                          \
		f = good;                             \
		change;                               \
		T_CHECK_EQ(feed(&f, all), code);      \
	} while (0)
	BAD(f.h.magic ^= 1, -EPROTO);
	BAD(f.h.nruns = 0, -EPROTO);
	BAD(f.h.nruns = PAGE_FRAME_RUNS_MAX + 1, -EPROTO);
	BAD(f.h.nruns = UINT32_MAX, -EPROTO);
	BAD(f.h.nruns = PAGE_FRAME_RUNS_MAX, -EPIPE);
	BAD(f.h.bytes = 0, -EPROTO);
	BAD(f.h.bytes = 2 * PAGE, -EPROTO);
	BAD(f.h.bytes = PAGE + 1, -EPROTO);
	BAD(f.h.bytes = PAGE_FRAME_DATA_MAX + PAGE, -EPROTO);
	BAD(f.h.bytes = 0xfffff000u, -EPROTO);
	BAD(f.r[0].addr += 1, -EPROTO);
	BAD(f.r[0].npages = 0, -EPROTO);
	BAD(f.r[0].npages = 2, -EPROTO);
	BAD(f.r[0].npages = UINT32_MAX, -EPROTO);
	BAD(f.r[0].addr = UINT64_MAX - PAGE + 1, -EPROTO);
	BAD(f.r[0].addr = PAGE_ADDR_MAX, -EPROTO);
	BAD(f.r[1].npages = PAGE_RUN_PAGES_MAX + 1, -EPROTO);
	BAD(f.r[1].addr = PAGE_ADDR_MAX - PAGE, -EPROTO);
	BAD(f.r[1].kind = RUN_DATA, -EPROTO);
	BAD(f.r[1].kind = 3, -EPROTO);
	BAD(f.r[1].kind = UINT32_MAX, -EPROTO);
	BAD(f.r[1].npages = 8, -EBADMSG);
	BAD(f.r[0].addr = 0x2000, -EBADMSG);
	BAD(f.h.id = 4, -EBADMSG);
	BAD(f.h.digest ^= 1, -EBADMSG);
	BAD(f.data[PAGE - 1] = 1, -EBADMSG);
#undef BAD
	for (cut = 0; cut < all; cut += cut < 64 ? 1 : 499)
		T_CHECK_EQ(feed(&good, cut), -EPIPE);
}

/* One page of words that repeat, as LZ4 leaves them. */
static size_t packed_page(char *out, char *page)
{
	struct page_pack p = { .mode = PACK_LZ4 };
	const char *at;
	size_t n;

	for (size_t i = 0; i < PAGE; i++)
		page[i] = (char)(i % 7 + i / 1024);
	T_REQUIRE(pack_wants(&p, page, PAGE));
	n = pack_data(&p, page, PAGE, &at);
	T_REQUIRE(n > 0 && n < 200);
	memcpy(out, at, n);
	pack_done(&p);
	return n;
}

static void test_hostile_compressed(void)
{
	struct {
		struct page_frame h;
		struct page_run r[2];
		char data[PAGE];
	} f, good = { .h = { PAGE_FRAME_LZ4, 2, 3, 0 }, .r = { { 0x1000, 1, RUN_DATA }, { 0x5000, 9, RUN_ZERO } } };
	static char page[PAGE], out[PAGE_FRAME_DATA_MAX];
	size_t n = packed_page(good.data, page), all = sizeof(good) - PAGE + n, cut;
	struct err e = { 0 };

	good.h.bytes = (uint32_t)n;
#define SEAL(x) (x).h.digest = page_frame_digest(&(x).h, &(struct iovec){ (x).r, sizeof((x).r) + (x).h.bytes }, 1)
	SEAL(good);
	T_CHECK_EQ(feed(&good, all), 0);
	T_CHECK_EQ(page_frame_unpack(&good, all, out, &e), (int)PAGE);
	T_CHECK(memcmp(out, page, PAGE) == 0);
	for (cut = 0; cut < all; cut++) {
		T_CHECK_EQ(feed(&good, cut), -EPIPE);
		T_CHECK(page_frame_unpack(&good, cut, out, &e) < 0);
	}
#define BAD(change, code)                        \
	do {                                     \
		f = good;                        \
		change;                          \
		if (f.h.bytes <= PAGE)           \
			SEAL(f);                 \
		T_CHECK_EQ(feed(&f, sizeof(f)), code); \
	} while (0)
	BAD(f.h.bytes = 0, -EPROTO);
	BAD(f.h.bytes = PAGE, -EPROTO); /* not smaller */
	BAD(f.h.bytes = UINT32_MAX, -EPROTO);
	BAD(f.h.bytes = PAGE_FRAME_DATA_MAX + 1, -EPROTO);
	BAD(f.h.bytes -= 1, -EBADMSG);
	BAD(f.h.bytes += 1, -EBADMSG);
	BAD(f.r[0].npages = 2, -EBADMSG); /* it becomes less than they say */
	BAD(f.r[0].npages = PAGE_FRAME_DATA_MAX / PAGE + 1, -EPROTO);
	BAD(f.r[0].npages = PAGE_RUN_PAGES_MAX, -EPROTO);
	BAD(f.r[0].kind = RUN_ZERO, -EPROTO);
	BAD(f.r[1].kind = RUN_DATA, -EBADMSG);
	/* whatever is in the block: an answer, and no byte outside */
	for (size_t i = 0; i < n; i++)
		for (int bit = 0; bit < 8; bit++) {
			int r;

			f = good;
			f.data[i] ^= (char)(1 << bit);
			SEAL(f);
			r = feed(&f, all);
			T_CHECK(r == 0 || r == -EBADMSG);
		}
#undef BAD
	f = good;
	f.data[0] ^= 1;
	T_CHECK_EQ(feed(&f, all), -EBADMSG); /* by its digest */
#undef SEAL
}

static void fill_noise(char *p, size_t len)
{
	uint64_t x = 88172645463325252ull;

	for (size_t i = 0; i < len; i += 8) {
		x ^= x << 13;
		x ^= x >> 7;
		x ^= x << 17;
		memcpy(p + i, &x, 8);
	}
}

/* Compressed where a sample says so, and the same bytes in the end. */
static void test_pack_chooses(void)
{
	enum { LEN = 4 << 20 };
	char *src = mmap(NULL, LEN, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	static const struct {
		enum pack_mode mode;
		bool noise, link;
		uint64_t rate;
		bool smaller;
	} cases[] = {
		{ PACK_AUTO, false, false, 0, true },	      { PACK_AUTO, true, false, 0, false },
		{ PACK_LZ4, false, false, 0, true },	      { PACK_LZ4, true, false, 0, false },
		{ PACK_NONE, false, false, 0, false },	      { PACK_AUTO, false, true, 1 << 20, true },
		{ PACK_AUTO, false, true, 1ull << 50, false }, { PACK_AUTO, true, true, 1 << 20, false },
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct page_pack pack = { .mode = cases[i].mode, .link = cases[i].link, .rate_max = cases[i].rate };
		struct page_known known = { .pack = &pack };
		struct runs runs = { 0 };
		struct err e = { 0 };
		uint64_t sent = 0;
		int out = memfd_create("stream", MFD_CLOEXEC);
		struct page_stream *ps = page_stream_new(out, &known);

		fill_noise(src, LEN);
		for (size_t k = 0; !cases[i].noise && k < LEN; k++)
			src[k] = (char)('a' + k / PAGE % 16 + k % 3);
		memset(src + 5 * PAGE, 0, PAGE); /* a hole in a frame */
		if (cases[i].link && cases[i].rate > 1 << 30)
			pack_written(&pack, 1ull << 40, 1); /* a very fast one */
		T_REQUIRE(ps && runs_add(&runs, (uintptr_t)src, (uintptr_t)src + LEN) == 0);
		T_OK(page_stream_pages(ps, getpid(), -1, 7, NULL, &runs, deadline_ms(60000), &e), &e);
		T_OK(page_stream_flush(ps, &sent, NULL, &e), &e);
		page_stream_free(ps);
		if ((sent < LEN / 2) != cases[i].smaller)
			T_FAIL("case %zu: %lu bytes", i, (unsigned long)sent);
		T_CHECK(cases[i].smaller || sent < LEN + 4096);
		T_CHECK_EQ(lseek(out, 0, SEEK_SET), 0);
		expect_same(out, sent, LEN);
		runs_done(&runs);
		pack_done(&pack);
		close(out);
	}
	munmap(src, LEN);
}

/* The same bytes, the same digest, whatever memory the hash gets to work in. */
static void test_digest_is_stable(void)
{
	static char data[3 * PAGE];
	const struct page_frame h = { PAGE_FRAME_MAGIC, 1, 3, sizeof(data), 0 };
	const struct iovec whole[] = { { data, sizeof(data) } };
	const struct iovec parts[] = { { data, PAGE }, { data + PAGE, 2 * PAGE } };
	uint64_t want = page_frame_digest(&h, whole, 1);
	int i, k;

	for (i = 0; i < 300; i++) {
		struct page_frame other = h;
		void *junk[8];

		for (k = 0; k < 8; k++) {
			junk[k] = malloc(600);
			memset(junk[k], i, 600);
		}
		for (k = 0; k < 8; k++)
			free(junk[k]);
		other.id = (uint32_t)(3 + i % 2);
		T_CHECK_EQ(page_frame_digest(&other, parts, 2) == want, i % 2 == 0);
		T_CHECK_EQ(page_frame_digest(&h, whole, 1), want);
	}
}

static const struct test_case cases[] = {
	{ "digest_is_stable", test_digest_is_stable },
	{ "hostile_compressed", test_hostile_compressed },
	{ "pack_chooses", test_pack_chooses },
	{ "maps_types", test_maps_types },
	{ "maps_are_not_fooled", test_maps_are_not_fooled },
	{ "find_hole", test_find_hole },
	{ "runs", test_runs },
	{ "pages_arrive", test_pages_arrive },
	{ "zeros_are_small", test_zeros_are_small },
	{ "file_object", test_file_object },
	{ "process_gone", test_process_gone },
	{ "put", test_put },
	{ "hostile_frames", test_hostile_frames },
};
const struct test_suite mem_suite = { "mem", cases, ARRAY_SIZE(cases) };
