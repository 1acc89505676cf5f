/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * The tracker against a real process: a child does random things to its memory (writes, drops, new
 * mappings at old places, moves, forks, protections, huge pages) while we scan and send; then it
 * holds still, and what was sent plus the final scan must be its memory, byte by byte. The stream
 * between is the real one (pages_send, pages_recv), through a memfd.
 *
 * A failure names its seed; the child's operations are a function of it, their interleaving with
 * the scans is not.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "pod/base/io.h"
#include "pod/base/kernel.h"
#include "pod/mem/mem.h"
#include "tests/harness.h"

#define SPAN (2ul << 20)
#define A_PAGES (6 * SPAN / PAGE)	/* anonymous */
#define B_PAGES 384ul			/* private mapping of a file */
#define PAGES (A_PAGES + B_PAGES)
#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25
#endif

/* ---- the child */

struct child {
	char *base;
	int file, pipe[2];
	uint64_t rnd;
	char st[PAGES]; /* 'w' writable, 'r' readable, 'n' neither, 'u' unmapped */
};

struct range {
	size_t at, n;
};

static uint64_t rnd(struct child *c, uint64_t below)
{
	c->rnd ^= c->rnd << 13;
	c->rnd ^= c->rnd >> 7;
	c->rnd ^= c->rnd << 17;
	return (c->rnd >> 11) % below;
}

static char *at(const struct child *c, size_t page)
{
	return c->base + page * PAGE;
}

/* A few pages, or now and then whole 2 MiB pieces; inside one of the two arenas. */
static struct range pick(struct child *c)
{
	struct range r = { 0, 0 };
	size_t end = A_PAGES;

	if (!rnd(c, 8)) {
		r.at = rnd(c, A_PAGES / 512) * 512;
		r.n = (1 + rnd(c, 2)) * 512;
	} else if (rnd(c, 3)) {
		r.at = rnd(c, A_PAGES);
		r.n = 1 + rnd(c, 40);
	} else {
		r.at = A_PAGES + rnd(c, B_PAGES);
		r.n = 1 + rnd(c, 24);
		end = PAGES;
	}
	r.n = MIN(r.n, end - r.at);
	return r;
}

static void fill(char *p, uint64_t v, size_t len)
{
	size_t i;

	for (i = 0; i + 8 <= len; i += 8)
		memcpy(p + i, &v, 8);
}

static void op_write(struct child *c, struct range r)
{
	uint64_t how = rnd(c, 4), v = c->rnd | 1;
	size_t i;

	for (i = r.at; i < r.at + r.n; i++) {
		if (c->st[i] != 'w')
			continue;
		if (how == 0)
			memset(at(c, i), 0, PAGE);
		else if (how == 1)
			at(c, i)[v % PAGE]++;
		else
			fill(at(c, i), v + i, PAGE);
	}
}

/* read(2) into it: the kernel writes */
static void op_kernel_write(struct child *c, struct range r)
{
	char word[64];

	if (c->st[r.at] != 'w')
		return;
	fill(word, c->rnd, sizeof(word));
	if (write(c->pipe[1], word, sizeof(word)) != sizeof(word) ||
	    read(c->pipe[0], at(c, r.at) + 128, sizeof(word)) != sizeof(word))
		_exit(3);
}

static void op_read(struct child *c, struct range r)
{
	volatile char sum = 0;
	size_t i;

	for (i = r.at; i < r.at + r.n; i++)
		if (c->st[i] == 'w' || c->st[i] == 'r')
			sum = (char)(sum + *at(c, i));
}

static void op_advise(struct child *c, struct range r)
{
	static const int advice[] = { MADV_DONTNEED, MADV_DONTNEED, MADV_FREE, MADV_HUGEPAGE,
				      MADV_NOHUGEPAGE, MADV_COLLAPSE, MADV_DONTNEED };

	madvise(at(c, r.at), r.n * PAGE, advice[rnd(c, ARRAY_SIZE(advice))]);
}

/*
 * In anonymous memory only: over the marker of a dropped page in a private file mapping (6.18) the
 * kernel retries MADV_GUARD_INSTALL for ever.
 */
static void op_guard(struct child *c, struct range r)
{
	if (r.at >= A_PAGES)
		return;
	madvise(at(c, r.at), r.n * PAGE, MADV_GUARD_INSTALL);
	madvise(at(c, r.at), r.n * PAGE, MADV_GUARD_REMOVE);
}

static void map_new(struct child *c, struct range r, bool file)
{
	size_t off = r.at >= A_PAGES ? (r.at - A_PAGES) * PAGE : 0;
	void *p = mmap(at(c, r.at), r.n * PAGE, PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_FIXED | (file ? 0 : MAP_ANONYMOUS), file ? c->file : -1,
		       file ? (off_t)off : 0);

	if (p == MAP_FAILED)
		_exit(4);
	memset(c->st + r.at, 'w', r.n);
}

static void op_map(struct child *c, struct range r)
{
	map_new(c, r, r.at >= A_PAGES && rnd(c, 3));
}

static void op_unmap(struct child *c, struct range r)
{
	munmap(at(c, r.at), r.n * PAGE);
	memset(c->st + r.at, 'u', r.n);
}

static void op_protect(struct child *c, struct range r)
{
	static const char st[] = "wwrn";
	static const int prot[] = { PROT_READ | PROT_WRITE, PROT_READ | PROT_WRITE, PROT_READ,
				    PROT_NONE };
	uint64_t k = rnd(c, 4);
	size_t i;

	for (i = r.at; i < r.at + r.n; i++)
		if (c->st[i] != 'u' && !mprotect(at(c, i), PAGE, prot[k]))
			c->st[i] = st[k];
}

static void op_move(struct child *c, struct range from)
{
	struct range to = { rnd(c, A_PAGES - from.n), from.n };
	bool keep = rnd(c, 4) == 0; /* MREMAP_DONTUNMAP */
	char old[PAGES];
	void *p;

	if (from.n == 512 && rnd(c, 2))
		to.at = ALIGN_DOWN(to.at, (size_t)512); /* whole tables and huge pages */
	if (from.at + from.n > A_PAGES || (to.at < from.at + from.n && from.at < to.at + to.n))
		return;
	memcpy(old, c->st, sizeof(old));
	p = mremap(at(c, from.at), from.n * PAGE, from.n * PAGE,
		   MREMAP_MAYMOVE | MREMAP_FIXED | (keep ? MREMAP_DONTUNMAP : 0), at(c, to.at));
	if (p == MAP_FAILED) { /* parts may have moved all the same */
		map_new(c, from, false);
		map_new(c, to, false);
		return;
	}
	memcpy(c->st + to.at, old + from.at, from.n);
	if (!keep)
		memset(c->st + from.at, 'u', from.n);
	if (!keep && rnd(c, 2))
		map_new(c, from, false);
}

/* Both sides of a fork write to what they share. */
static void op_fork(struct child *c, struct range r)
{
	pid_t pid = fork();

	if (pid == 0) {
		op_write(c, r);
		_exit(0);
	}
	op_write(c, r);
	if (pid > 0)
		waitpid(pid, NULL, 0);
}

static void run_ops(struct child *c, uint32_t n)
{
	static void (*const ops[])(struct child *, struct range) = {
		op_write, op_write, op_write, op_write, op_kernel_write, op_read, op_read, op_advise,
		op_advise, op_advise, op_guard, op_map, op_map, op_unmap, op_protect, op_protect,
		op_move, op_move,
	};

	while (n--) {
		struct range r = pick(c);

		if (!rnd(c, 50))
			op_fork(c, r);
		else
			ops[rnd(c, ARRAY_SIZE(ops))](c, r);
	}
}

static void child_main(int sock, int file, uint64_t seed)
{
	static struct child c;
	uint32_t n;
	char *base;
	int uffd;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	alarm(20);
	c.rnd = seed * 0x9e3779b97f4a7c15ull + 1;
	c.file = file;
	base = mmap(NULL, PAGES * PAGE + 2 * SPAN, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (base == MAP_FAILED || pipe2(c.pipe, O_CLOEXEC))
		_exit(1);
	munmap(base, PAGES * PAGE + 2 * SPAN);
	c.base = (char *)ALIGN_UP((uintptr_t)base, SPAN);
	map_new(&c, (struct range){ 0, A_PAGES }, false);
	map_new(&c, (struct range){ A_PAGES, B_PAGES }, true);
	if (seed % 2)
		madvise(c.base, A_PAGES * PAGE, MADV_HUGEPAGE);
	run_ops(&c, 30); /* some memory from before the tracker */
	uffd = (int)syscall(SYS_userfaultfd, tracker_uffd_flags());
	if (uffd < 0 || io_send_fds(sock, &uffd, 1, NULL) || close(uffd) ||
	    write(sock, &c.base, sizeof(c.base)) != sizeof(c.base))
		_exit(2);
	while (read(sock, &n, sizeof(n)) == sizeof(n)) {
		run_ops(&c, n);
		if (write(sock, &n, sizeof(n)) != sizeof(n))
			break;
	}
	_exit(0);
}

/* ---- our side */

struct subject {
	uint64_t seed;
	pid_t pid;
	int sock, memfd, stream;
	uint64_t base;
	const char *file; /* its bytes */
	char *model; /* what the target has */
	struct tracker t;
	struct vma_list list;
};

static bool inside(const struct subject *s, const struct vma *v)
{
	return v->start >= s->base && v->end <= s->base + PAGES * PAGE;
}

/* What a page that the process does not have reads as. */
static void model_drop(struct subject *s, uint64_t addr)
{
	const struct vma *v = vma_find(&s->list, addr);
	char *to = s->model + (addr - s->base);

	if (v && v->type != VMA_ANON)
		memcpy(to, s->file + v->pgoff + (addr - v->start), PAGE);
	else
		memset(to, 0, PAGE);
}

static int model_run(void *arg, uint32_t id, uint64_t addr, uint64_t len, int kind,
		     const void *data, struct err *e)
{
	struct subject *s = arg;
	uint64_t i;

	if (id != 7 || addr < s->base || addr + len > s->base + PAGES * PAGE)
		return err_set(e, EPROTO, "outside");
	if (kind == RUN_DATA)
		memcpy(s->model + (addr - s->base), data, len);
	else if (kind == RUN_ZERO)
		memset(s->model + (addr - s->base), 0, len);
	for (i = 0; kind == RUN_DROP && i < len; i += PAGE)
		model_drop(s, addr + i);
	return 0;
}

static void stream_apply(struct subject *s)
{
	const struct page_sink sink = { .arg = s, .run = model_run };
	off_t end = lseek(s->stream, 0, SEEK_CUR);
	struct err e = { 0 };
	uint64_t got = 0;

	T_REQUIRE(lseek(s->stream, 0, SEEK_SET) == 0);
	while ((off_t)got < end)
		T_OK(pages_recv(s->stream, &sink, &got, deadline_ms(60000), &e), &e);
	T_CHECK_EQ(got, end);
	T_REQUIRE(ftruncate(s->stream, 0) == 0 && lseek(s->stream, 0, SEEK_SET) == 0);
}

/* One round while the child runs. */
static void scan_round(struct subject *s)
{
	struct runs out = { 0 };
	struct err e = { 0 };
	size_t i;
	int r;

	T_OK(maps_read(s->pid, &s->list, &e), &e);
	for (i = 0; i < s->list.n; i++) {
		const struct vma *v = &s->list.v[i];

		if (!inside(s, v))
			continue;
		tracker_register(&s->t, v, &e); /* may be gone already */
		out.n = 0;
		T_OK(tracker_scan_wp(&s->t, v, &out, &e), &e);
		r = pages_send(s->stream, s->pid, s->memfd, 7, v, &out, NULL, deadline_ms(60000), &e);
		T_OK(r, &e);
	}
	runs_done(&out);
	stream_apply(s);
}

static void compare(struct subject *s, const struct vma *v)
{
	static char page[PAGE];
	uint64_t a, entry, is, should;

	for (a = v->start; a < v->end; a += PAGE) {
		if (pread(s->memfd, page, PAGE, (off_t)a) != (ssize_t)PAGE)
			T_FATAL("seed %llu: cannot read %llx", (unsigned long long)s->seed,
				(unsigned long long)a);
		if (!memcmp(page, s->model + (a - s->base), PAGE))
			continue;
		memcpy(&is, s->model + (a - s->base), 8);
		memcpy(&should, page, 8);
		if (pread(s->t.pagemap, &entry, 8, (off_t)(a / PAGE * 8)) != 8)
			entry = 0;
		T_FATAL("seed %llu: page %llu of mapping %llx-%llx '%s' differs: has %llx, should have "
			"%llx; pagemap %llx",
			(unsigned long long)s->seed, (unsigned long long)((a - s->base) / PAGE),
			(unsigned long long)v->start, (unsigned long long)v->end, v->name,
			(unsigned long long)is, (unsigned long long)should,
			(unsigned long long)entry);
	}
}

/* The child holds still. */
static void scan_last(struct subject *s)
{
	struct runs written = { 0 }, dropped = { 0 };
	struct page_stream *ps = page_stream_new(s->stream, NULL);
	uint64_t sent = 0, skipped = 0;
	struct err e = { 0 };
	size_t i;

	T_REQUIRE(ps);
	T_OK(maps_read(s->pid, &s->list, &e), &e);
	for (i = 0; i < s->list.n; i++) {
		const struct vma *v = &s->list.v[i];

		if (!inside(s, v))
			continue;
		written.n = dropped.n = 0;
		T_OK(tracker_scan_final(&s->t, v, &written, &dropped, NULL, &e), &e);
		T_OK(page_stream_drop(ps, 7, &dropped, deadline_ms(60000), &e), &e);
		T_OK(page_stream_pages(ps, s->pid, s->memfd, 7, v, &written, deadline_ms(60000), &e),
		     &e);
	}
	T_OK(page_stream_flush(ps, &sent, &skipped, &e), &e);
	T_CHECK_EQ(skipped, 0);
	T_CHECK_EQ(sent, lseek(s->stream, 0, SEEK_CUR));
	page_stream_free(ps);
	stream_apply(s);
	for (i = 0; i < s->list.n; i++)
		if (inside(s, &s->list.v[i]))
			compare(s, &s->list.v[i]);
	runs_done(&written);
	runs_done(&dropped);
}

static void subject_start(struct subject *s, int file)
{
	struct err e = { 0 };
	char path[64];
	int sv[2], uffd;

	T_REQUIRE(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sv) == 0);
	s->pid = fork();
	T_REQUIRE(s->pid >= 0);
	if (!s->pid) {
		close(sv[0]);
		child_main(sv[1], file, s->seed);
	}
	close(sv[1]);
	s->sock = sv[0];
	T_OK(io_recv_fds(s->sock, &uffd, 1, deadline_ms(60000), &e), &e);
	T_OK(io_read_full(s->sock, &s->base, sizeof(s->base), deadline_ms(60000), &e), &e);
	T_OK(tracker_init(&s->t, s->pid, uffd, &e), &e);
	snprintf(path, sizeof(path), "/proc/%d/mem", (int)s->pid);
	s->memfd = open(path, O_RDWR | O_CLOEXEC);
	s->stream = memfd_create("stream", MFD_CLOEXEC);
	s->model = calloc(PAGES, PAGE);
	T_REQUIRE(s->memfd >= 0 && s->stream >= 0 && s->model);
}

static void subject_end(struct subject *s)
{
	int status;

	close(s->sock); /* it exits */
	T_REQUIRE(waitpid(s->pid, &status, 0) == s->pid);
	T_CHECK_EQ(status, 0);
	close(s->memfd);
	close(s->stream);
	free(s->model);
	tracker_done(&s->t);
	vma_list_done(&s->list);
}

static void one_seed(uint64_t seed, int file, const char *bytes)
{
	struct subject s = { .seed = seed, .file = bytes };
	struct pollfd p;
	uint32_t n;
	int part;

	subject_start(&s, file);
	p = (struct pollfd){ .fd = s.sock, .events = POLLIN };
	for (part = 0; part < 4; part++) {
		n = 40 + (uint32_t)seed * 7 % 90;
		T_REQUIRE(write(s.sock, &n, sizeof(n)) == sizeof(n));
		do
			scan_round(&s);
		while (poll(&p, 1, 0) == 0);
		if (io_read_full(s.sock, &n, sizeof(n), deadline_ms(60000), NULL)) {
			int status = 0;

			waitpid(s.pid, &status, 0);
			T_FATAL("seed %llu: the child died: %x", (unsigned long long)seed, status);
		}
		if (part & 1)
			scan_last(&s); /* and the tracker goes on, as after an abort */
	}
	subject_end(&s);
}

static void random_memory(int file, uint64_t first, uint64_t n)
{
	char *bytes = malloc(B_PAGES * PAGE);
	uint64_t seed;

	T_REQUIRE(bytes && file >= 0);
	for (seed = 0; seed < B_PAGES * PAGE / 8; seed++)
		((uint64_t *)(void *)bytes)[seed] = seed * 0x9e3779b97f4a7c15ull;
	T_OK(io_write_full(file, bytes, B_PAGES * PAGE, IO_FOREVER, NULL), NULL);
	for (seed = first; seed < first + n; seed++)
		one_seed(seed, file, bytes);
	free(bytes);
}

static int have_tracker(void)
{
	int fd = (int)syscall(SYS_userfaultfd, tracker_uffd_flags());
	struct tracker t;
	struct err e;

	if (fd < 0 || tracker_init(&t, getpid(), fd, &e)) {
		close_fdp(&fd);
		return 0;
	}
	tracker_done(&t);
	return 1;
}

static void test_random_over_file(void)
{
	autoclose int fd = open(t_path("file"), O_RDWR | O_CREAT | O_CLOEXEC, 0600);

	if (!have_tracker())
		T_SKIP("no userfaultfd with WP_ASYNC (Linux 6.7)");
	random_memory(fd, 1, 14);
}

static void test_random_over_memfd(void)
{
	autoclose int fd = memfd_create("file", MFD_CLOEXEC);

	if (!have_tracker())
		T_SKIP("no userfaultfd with WP_ASYNC (Linux 6.7)");
	random_memory(fd, 1001, 8);
}

static const struct test_case cases[] = {
	{ "random_over_file", test_random_over_file },
	{ "random_over_memfd", test_random_over_memfd },
};
const struct test_suite mem_track_suite = { "mem_track", cases, ARRAY_SIZE(cases) };
