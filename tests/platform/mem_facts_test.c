/* SPDX-License-Identifier: GPL-3.0-or-later */
/* What pod/mem relies on of the kernel, one case per fact, so that a kernel that breaks one is named. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>

#include "pod/base/io.h"
#include "pod/base/kernel.h"
#include "pod/mem/mem.h"
#include "tests/harness.h"

#define SPAN (2ul << 20)
#define FAST PAGE_IS_WRITTEN

struct area {
	struct tracker t;
	char *at;
	struct vma v;
};

static struct vma vma_of(char *at, size_t len, enum vma_type type)
{
	return (struct vma){ .start = (uintptr_t)at, .end = (uintptr_t)at + len, .type = type,
			     .prot = PROT_READ | PROT_WRITE, .name = (char *)(uintptr_t)"" };
}

/* @len bytes of our own memory at a 2 MiB boundary (with a gap around), tracked and protected. */
static void area_make(struct area *a, size_t len, int file, int advice)
{
	int fd = (int)syscall(SYS_userfaultfd, tracker_uffd_flags());
	struct runs out = { 0 };
	struct err e = { 0 };
	char *p;

	if (fd < 0 || tracker_init(&a->t, getpid(), fd, &e))
		T_SKIP("no userfaultfd with WP_ASYNC (Linux 6.7)");
	p = mmap(NULL, len + 3 * SPAN, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	T_REQUIRE(p != MAP_FAILED);
	a->at = (char *)ALIGN_UP((uintptr_t)p, SPAN) + SPAN;
	p = mmap(a->at, len, PROT_READ | PROT_WRITE,
		 MAP_FIXED | MAP_PRIVATE | (file < 0 ? MAP_ANONYMOUS : 0), file, 0);
	T_REQUIRE(p == a->at);
	a->v = vma_of(a->at, len, file < 0 ? VMA_ANON : VMA_FILE);
	madvise(a->at, len, advice);
	memset(a->at, 1, len);
	T_OK(tracker_register(&a->t, &a->v, &e), &e);
	T_OK(tracker_scan_wp(&a->t, &a->v, &out, &e), &e);
	T_CHECK_EQ(runs_pages(&out), len / PAGE);
	runs_done(&out);
}

static void area_done(struct area *a)
{
	tracker_done(&a->t);
	munmap(a->at - SPAN, a->v.end - a->v.start + 2 * SPAN);
}

/* The number of pages in [@at, @at + @len) that the query selects; negative errno. */
static long count(const struct area *a, char *at, size_t len, uint64_t flags, uint64_t inverted,
		  uint64_t mask, uint64_t anyof)
{
	struct page_region vec[1024];
	struct pm_scan_arg arg = {
		.size = sizeof(arg), .flags = flags, .start = (uintptr_t)at,
		.end = (uintptr_t)at + len, .vec = (uintptr_t)vec, .vec_len = ARRAY_SIZE(vec),
		.category_inverted = inverted, .category_mask = mask, .category_anyof_mask = anyof,
		.return_mask = mask & PAGE_IS_WRITTEN,
	};
	int i, n = ioctl(a->t.pagemap, PAGEMAP_SCAN, &arg);
	long pages = 0;

	for (i = 0; i < n; i++)
		pages += (long)((vec[i].end - vec[i].start) / PAGE);
	return n < 0 ? -errno : pages;
}

static long count_written(const struct area *a, char *at, size_t len)
{
	return count(a, at, len, 0, 0, FAST, 0);
}

static void test_write_clears_the_bit(void)
{
	struct area a;
	int p[2];

	area_make(&a, 64 * PAGE, -1, MADV_NORMAL);
	T_CHECK_EQ(count_written(&a, a.at, 64 * PAGE), 0);
	a.at[5 * PAGE] = 2;
	T_CHECK_EQ(count_written(&a, a.at, 64 * PAGE), 1);
	/* the kernel's own writes too, though the fd is UFFD_USER_MODE_ONLY */
	T_REQUIRE(pipe2(p, O_CLOEXEC) == 0);
	T_CHECK_EQ(write(p[1], "x", 1), 1);
	T_CHECK_EQ(read(p[0], a.at + 9 * PAGE, 1), 1);
	T_CHECK_EQ(count_written(&a, a.at + 9 * PAGE, PAGE), 1);
	T_CHECK_EQ(count_written(&a, a.at, 64 * PAGE), 2);
	close(p[0]);
	close(p[1]);
	area_done(&a);
}

static void test_fast_scan_reports_dropped_pages(void)
{
	struct area a;

	area_make(&a, 64 * PAGE, -1, MADV_NOHUGEPAGE);
	T_REQUIRE(madvise(a.at + 3 * PAGE, 2 * PAGE, MADV_DONTNEED) == 0);
	T_CHECK_EQ(count_written(&a, a.at, 64 * PAGE), 2);
	T_CHECK_EQ(count(&a, a.at, 64 * PAGE, 0, 0, FAST, PAGE_IS_PRESENT | PAGE_IS_SWAPPED), 0);
	T_CHECK(a.at[3 * PAGE] == 0); /* the zero page */
	T_CHECK_EQ(count(&a, a.at, 64 * PAGE, 0, 0, FAST | PAGE_IS_PFNZERO, 0), 1);
	area_done(&a);
}

/* Nor does it matter that there is no page table at all. */
static void test_fast_scan_reports_holes(void)
{
	struct runs written = { 0 }, dropped = { 0 };
	struct err e = { 0 };
	struct area a;

	area_make(&a, 3 * SPAN, -1, MADV_HUGEPAGE);
	T_REQUIRE(madvise(a.at + SPAN, SPAN, MADV_DONTNEED) == 0);
	T_CHECK_EQ(count(&a, a.at + SPAN, SPAN, 0, 0, 0, PAGE_IS_PRESENT | PAGE_IS_SWAPPED), 0);
	T_CHECK_EQ(count_written(&a, a.at, 3 * SPAN), SPAN / PAGE);
	T_OK(tracker_scan_final(&a.t, &a.v, &written, &dropped, NULL, &e), &e);
	T_CHECK_EQ(written.n, 0);
	T_REQUIRE(dropped.n == 1);
	T_CHECK_EQ(dropped.r[0].start, (uintptr_t)a.at + SPAN);
	T_CHECK_EQ(dropped.r[0].end, (uintptr_t)a.at + 2 * SPAN);
	runs_done(&written);
	runs_done(&dropped);
	area_done(&a);
}

static void test_untracked_is_eperm(void)
{
	struct area a;
	char *p;

	area_make(&a, 64 * PAGE, -1, MADV_NORMAL);
	T_CHECK_EQ(count(&a, a.at, 64 * PAGE, PM_SCAN_CHECK_WPASYNC, 0, FAST, 0), 0);
	p = mmap(a.at, 4 * PAGE, PROT_READ | PROT_WRITE, MAP_FIXED | MAP_PRIVATE | MAP_ANONYMOUS, -1,
		 0);
	T_REQUIRE(p == a.at);
	T_CHECK_EQ(count(&a, a.at, 4 * PAGE, PM_SCAN_CHECK_WPASYNC, 0, FAST, 0), -EPERM);
	T_CHECK_EQ(count(&a, a.at + 4 * PAGE, 60 * PAGE, PM_SCAN_CHECK_WPASYNC, 0, FAST, 0), 0);
	/* a move leaves tracking behind */
	p = mremap(a.at + 4 * PAGE, PAGE, PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, a.at - SPAN);
	T_REQUIRE(p == a.at - SPAN);
	T_CHECK_EQ(count(&a, p, PAGE, PM_SCAN_CHECK_WPASYNC, 0, FAST, 0), -EPERM);
	/* the end of the tracker does, too */
	close_fdp(&a.t.uffd);
	T_CHECK_EQ(count(&a, a.at + 8 * PAGE, PAGE, PM_SCAN_CHECK_WPASYNC, 0, FAST, 0), -EPERM);
	T_CHECK_EQ(count_written(&a, a.at + 8 * PAGE, PAGE), 1);
	area_done(&a);
}

static void test_fork_child_is_untracked(void)
{
	struct area a;
	int status = 0;
	pid_t pid;

	area_make(&a, 64 * PAGE, -1, MADV_NORMAL);
	pid = fork();
	T_REQUIRE(pid >= 0);
	if (!pid) {
		a.t.pagemap = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
		_exit(count(&a, a.at, PAGE, PM_SCAN_CHECK_WPASYNC, 0, FAST, 0) == -EPERM &&
				      count_written(&a, a.at, 64 * PAGE) == 64 ?
			      0 :
			      1);
	}
	T_REQUIRE(waitpid(pid, &status, 0) == pid);
	T_CHECK_EQ(status, 0);
	T_CHECK_EQ(count_written(&a, a.at, 64 * PAGE), 0); /* and the parent as before */
	area_done(&a);
}

/*
 * A tracked piece moved to where it merges with a tracked neighbour ends the neighbour's tracking
 * and leaves its bits; a page that is written then keeps its bit (seen on 6.18). Whatever a kernel
 * does here: after tracker_register() a write must be seen.
 */
static void test_move_to_a_neighbour(void)
{
	struct runs out = { 0 };
	struct err e = { 0 };
	struct area a;
	struct vma v;
	char *p;

	area_make(&a, 64 * PAGE, -1, MADV_NORMAL);
	p = mmap(a.at + 32 * PAGE, 32 * PAGE, PROT_NONE, MAP_FIXED | MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	T_REQUIRE(p == a.at + 32 * PAGE);
	p = mmap(a.at + 40 * PAGE, 4 * PAGE, PROT_READ | PROT_WRITE,
		 MAP_FIXED | MAP_PRIVATE | MAP_ANONYMOUS, -1, 0); /* never touched: merges anywhere */
	T_REQUIRE(p == a.at + 40 * PAGE);
	v = vma_of(p, 4 * PAGE, VMA_ANON);
	T_OK(tracker_register(&a.t, &v, &e), &e);
	p = mremap(p, 4 * PAGE, 4 * PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, a.at + 32 * PAGE);
	T_REQUIRE(p == a.at + 32 * PAGE);
	a.at[2 * PAGE] = 7; /* without tracking */
	v = vma_of(a.at, 36 * PAGE, VMA_ANON);
	T_OK(tracker_register(&a.t, &v, &e), &e);
	a.at[3 * PAGE] = 8;
	T_OK(tracker_scan_wp(&a.t, &v, &out, &e), &e);
	T_CHECK(out.n && out.r[0].start <= (uintptr_t)a.at + 2 * PAGE &&
		out.r[0].end >= (uintptr_t)a.at + 4 * PAGE);
	a.at[2 * PAGE] = 9;
	a.at[20 * PAGE] = 9;
	T_CHECK_EQ(count(&a, a.at, 36 * PAGE, 0, 0, FAST, PAGE_IS_PRESENT), 2);
	runs_done(&out);
	area_done(&a);
}

/* Only pages that were copied on write count in a private file mapping, and a drop is found. */
static void test_private_file(void)
{
	autoclose int fd = memfd_create("file", MFD_CLOEXEC);
	struct runs written = { 0 }, dropped = { 0 };
	struct err e = { 0 };
	struct area a;
	volatile char c;

	T_REQUIRE(fd >= 0 && ftruncate(fd, 16 * PAGE) == 0);
	area_make(&a, 16 * PAGE, fd, MADV_NORMAL);
	T_REQUIRE(madvise(a.at, 8 * PAGE, MADV_DONTNEED) == 0);
	c = a.at[0]; /* the file's page again; the others left a marker or nothing */
	T_CHECK_EQ(c, 0);
	T_CHECK_EQ(count(&a, a.at, PAGE, 0, 0, PAGE_IS_PRESENT | PAGE_IS_FILE, 0), 1);
	T_CHECK_EQ(count(&a, a.at, 16 * PAGE, 0, PAGE_IS_FILE, PAGE_IS_FILE, PAGE_IS_PRESENT), 8);
	T_OK(tracker_scan_final(&a.t, &a.v, &written, &dropped, NULL, &e), &e);
	T_CHECK_EQ(runs_pages(&written) + runs_pages(&dropped), 8);
	T_CHECK(dropped.n && dropped.r[0].start == (uintptr_t)a.at);
	runs_done(&written);
	runs_done(&dropped);
	area_done(&a);
}

static void test_probe(void)
{
	struct err e = { 0 };
	struct area a;

	area_make(&a, PAGE, -1, MADV_NORMAL);
	area_done(&a);
	T_OK(tracker_probe(&e), &e);
}

static void test_guard_pages(void)
{
	struct runs guard = { 0 }, own = { 0 };
	struct err e = { 0 };
	struct area a;
	int r;

	area_make(&a, 16 * PAGE, -1, MADV_NOHUGEPAGE);
	if (madvise(a.at + PAGE, 2 * PAGE, MADV_GUARD_INSTALL))
		T_SKIP("no MADV_GUARD_INSTALL (Linux 6.13)");
	r = pagemap_scan_guard(a.t.pagemap, &a.v, &guard, &e);
	if (r == -EINVAL)
		T_SKIP("no PAGE_IS_GUARD (Linux 6.15)");
	T_OK(r, &e);
	T_CHECK_EQ(runs_pages(&guard), 2);
	T_OK(pagemap_scan_present(a.t.pagemap, &a.v, &own, &e), &e);
	T_CHECK_EQ(runs_pages(&own), 14);
	runs_done(&guard);
	runs_done(&own);
	area_done(&a);
}

/* Neither a second mapping nor pwrite() shows: whoever tracks shared memory must know all mappers. */
static void test_shared_writes_elsewhere_are_unseen(void)
{
	autoclose int fd = memfd_create("shared", MFD_CLOEXEC);
	struct runs out = { 0 };
	struct err e = { 0 };
	char *one, *two;
	struct area a;
	struct vma v;

	area_make(&a, PAGE, -1, MADV_NORMAL);
	T_REQUIRE(fd >= 0 && ftruncate(fd, 4 * PAGE) == 0);
	one = mmap(NULL, 4 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	two = mmap(NULL, 4 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	T_REQUIRE(one != MAP_FAILED && two != MAP_FAILED);
	memset(one, 1, 4 * PAGE);
	v = vma_of(one, 4 * PAGE, VMA_MEMFD);
	v.shared = true;
	T_OK(tracker_register(&a.t, &v, &e), &e);
	T_OK(tracker_scan_wp(&a.t, &v, &out, &e), &e);
	T_CHECK_EQ(runs_pages(&out), 4);
	two[0] = 2;
	T_CHECK_EQ(pwrite(fd, "x", 1, PAGE), 1);
	T_CHECK_EQ(count_written(&a, one, 4 * PAGE), 0);
	one[2 * PAGE] = 2;
	T_CHECK_EQ(count_written(&a, one, 4 * PAGE), 1);
	runs_done(&out);
	munmap(one, 4 * PAGE);
	munmap(two, 4 * PAGE);
	area_done(&a);
}

/* process_vm_writev respects protections, /proc/PID/mem does not (in private mappings). */
static void test_proc_mem_writes_anywhere(void)
{
	autoclose int mem = open("/proc/self/mem", O_RDWR | O_CLOEXEC);
	char *p = mmap(NULL, 2 * PAGE, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	struct iovec local = { (void *)(uintptr_t) "abc", 3 }, remote = { p, 3 };
	char got[3] = "";

	T_REQUIRE(mem >= 0 && p != MAP_FAILED);
	T_CHECK_EQ(process_vm_writev(getpid(), &local, 1, &remote, 1, 0), -1);
	T_CHECK_EQ(errno, EFAULT);
	T_CHECK_EQ(pwrite(mem, "abc", 3, (off_t)(uintptr_t)p), 3);
	T_CHECK(!memcmp(p, "abc", 3));
	T_REQUIRE(mprotect(p, 2 * PAGE, PROT_NONE) == 0);
	T_CHECK_EQ(pread(mem, got, 3, (off_t)(uintptr_t)p), 3);
	T_CHECK(!memcmp(got, "abc", 3));
	munmap(p, 2 * PAGE);
}

static const struct test_case cases[] = {
	{ "write_clears_the_bit", test_write_clears_the_bit },
	{ "fast_scan_reports_dropped_pages", test_fast_scan_reports_dropped_pages },
	{ "fast_scan_reports_holes", test_fast_scan_reports_holes },
	{ "untracked_is_eperm", test_untracked_is_eperm },
	{ "fork_child_is_untracked", test_fork_child_is_untracked },
	{ "move_to_a_neighbour", test_move_to_a_neighbour },
	{ "private_file", test_private_file },
	{ "probe", test_probe },
	{ "guard_pages", test_guard_pages },
	{ "shared_writes_elsewhere_are_unseen", test_shared_writes_elsewhere_are_unseen },
	{ "proc_mem_writes_anywhere", test_proc_mem_writes_anywhere },
};
const struct test_suite mem_facts_suite = { "mem_facts", cases, ARRAY_SIZE(cases) };
