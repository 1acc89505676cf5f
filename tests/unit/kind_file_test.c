/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Regular files, directories, devices and pipes, moved. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "tests/harness.h"
#include "tests/unit/kind_fake.h"

static void put(const char *path, const char *text)
{
	int fd = open(path, O_CREAT | O_WRONLY | O_TRUNC | O_CLOEXEC, 0640);

	T_REQUIRE(fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text));
	close(fd);
}

static void check_read(int fd, const char *want)
{
	char buf[256] = "";
	ssize_t n = read(fd, buf, sizeof(buf) - 1);

	T_CHECK_EQ(n, strlen(want));
	T_CHECK_STR(buf, want);
}

static void test_offsets_and_sharing(void)
{
	struct fake *f = fake_new();
	int a, b, c, w;

	put(t_path("x"), "0123456789");
	a = open(t_path("x"), O_RDONLY | O_CLOEXEC);
	b = dup(a);
	c = open(t_path("x"), O_RDONLY | O_CLOEXEC);
	w = open(t_path("x"), O_WRONLY | O_APPEND | O_CREAT | O_TRUNC * 0 | O_CLOEXEC, 0600);
	T_CHECK_EQ(lseek(a, 4, SEEK_SET), 4);
	T_CHECK_EQ(lseek(c, 7, SEEK_SET), 7);
	fake_add(f, a);
	fake_add(f, b);
	fake_add(f, c);
	fake_add(f, w);
	fake_move(f);
	T_CHECK_EQ(write(w, "ab", 2), 2);
	T_CHECK(fcntl(w, F_GETFL) & O_APPEND);
	T_CHECK_EQ(lseek(b, 1, SEEK_CUR), 5);
	check_read(a, "56789ab"); /* one offset for both */
	check_read(b, "");
	check_read(c, "789ab");
	close(a);
	close(b);
	close(c);
	close(w);
	fake_free(f);
}

static void test_unlinked(void)
{
	struct fake *f = fake_new();
	int a, b;

	put(t_path("gone"), "abcdef");
	a = open(t_path("gone"), O_RDWR | O_CLOEXEC);
	b = open(t_path("gone"), O_RDONLY | O_CLOEXEC);
	T_CHECK(unlink(t_path("gone")) == 0);
	T_CHECK_EQ(lseek(a, 3, SEEK_SET), 3);
	fake_add(f, a);
	fake_add(f, b);
	fake_move(f);
	T_CHECK_EQ(write(a, "XY", 2), 2);
	check_read(b, "abcXYf");
	T_CHECK_EQ(write(b, "no", 2), -1);
	close(a);
	close(b);
	fake_free(f);
}

static void test_memfd(void)
{
	struct fake *f = fake_new();
	int a = memfd_create("m", MFD_CLOEXEC);

	T_CHECK_EQ(write(a, "memory", 6), 6);
	T_CHECK_EQ(lseek(a, 2, SEEK_SET), 2);
	fake_add(f, a);
	fake_move(f);
	check_read(a, "mory");
	T_CHECK_EQ(fcntl(a, F_GETFL) & O_ACCMODE, O_RDWR);
	close(a);
	fake_free(f);
}

static void test_named_deleted(void)
{
	struct fake *f = fake_new();
	int a;

	put(t_path("x (deleted)"), "named so");
	a = open(t_path("x (deleted)"), O_RDONLY | O_CLOEXEC);
	fake_add(f, a);
	fake_move(f);
	check_read(a, "named so");
	close(a);
	fake_free(f);
}

static void test_refusals(void)
{
	struct fake *f = fake_new();
	struct err e = { 0 };
	int a;

	put(t_path("x"), "abc");
	T_CHECK(link(t_path("x"), t_path("y")) == 0);
	a = open(t_path("x"), O_RDONLY | O_CLOEXEC);
	T_OK(fake_check(f, a, &e), &e);
	T_CHECK(unlink(t_path("x")) == 0);
	T_FAILS(fake_check(f, a, &e), -EOPNOTSUPP);
	T_CHECK_HAS(e.msg, "other links");
	close(a);
	a = open(t_path("y"), O_RDONLY | O_CLOEXEC);
	T_CHECK(flock(a, LOCK_EX) == 0);
	T_OK(fake_check(f, a, &e), &e); /* carried: pod/locks.c */
	if (fcntl(a, F_SETLEASE, F_RDLCK) == 0) {
		T_FAILS(fake_check(f, a, &e), -EOPNOTSUPP);
		T_CHECK_HAS(e.msg, "lease");
	}
	close(a);
	a = open("/proc/self/maps", O_RDONLY | O_CLOEXEC);
	T_FAILS(fake_check(f, a, &e), -EOPNOTSUPP);
	T_CHECK_HAS(e.msg, "procfs");
	close(a);
	a = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);
	T_FAILS(fake_check(f, a, &e), -EOPNOTSUPP);
	close(a);
	T_CHECK(mkdir(t_path("d"), 0700) == 0);
	a = open(t_path("d"), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	T_OK(fake_check(f, a, &e), &e);
	T_CHECK(rmdir(t_path("d")) == 0);
	T_FAILS(fake_check(f, a, &e), -EOPNOTSUPP);
	T_CHECK_HAS(e.msg, "was removed");
	close(a);
	fake_free(f);
}

static void test_directory_and_o_path(void)
{
	struct fake *f = fake_new();
	int a, b, c;

	put(t_path("x"), "abc");
	a = open(t_dir(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	b = open(t_path("x"), O_PATH | O_CLOEXEC);
	fake_add(f, a);
	fake_add(f, b);
	fake_move(f);
	c = openat(a, "x", O_RDONLY | O_CLOEXEC);
	check_read(c, "abc");
	T_CHECK_EQ(fcntl(b, F_GETFL) & O_PATH, O_PATH);
	close(a);
	close(b);
	close(c);
	fake_free(f);
}

static void test_devices(void)
{
	struct fake *f = fake_new();
	int n = open("/dev/null", O_WRONLY | O_CLOEXEC), z = open("/dev/zero", O_RDWR | O_CLOEXEC);
	char c = 1;

	fake_add(f, n);
	fake_add(f, z);
	fake_move(f);
	T_CHECK_EQ(write(n, "x", 1), 1);
	T_CHECK_EQ(read(z, &c, 1), 1);
	T_CHECK_EQ(c, 0);
	close(n);
	close(z);
	fake_free(f);
}

/* ---- pipes */
static void test_pipe_contents(void)
{
	struct fake *f = fake_new();
	int p[2], r2;
	struct err e = { 0 };
	struct stat st;

	T_REQUIRE(pipe2(p, O_CLOEXEC) == 0);
	T_CHECK(fcntl(p[0], F_SETPIPE_SZ, 16384) == 16384);
	T_CHECK(fcntl(p[0], F_SETFL, O_NONBLOCK) == 0);
	T_CHECK(fchown(p[0], 12, 34) == 0);
	r2 = kind_reopen(p[0], O_RDONLY, &e);
	T_CHECK_EQ(write(p[1], "hello", 5), 5);
	fake_add(f, p[1]);
	fake_add(f, p[0]);
	fake_add(f, r2);
	T_OK(fake_dump_undo(f, &e), &e);
	fake_move(f);
	T_CHECK_EQ(fcntl(p[1], F_GETPIPE_SZ), 16384);
	T_CHECK_EQ(fcntl(p[0], F_GETFL) & O_NONBLOCK, O_NONBLOCK);
	T_CHECK_EQ(fcntl(r2, F_GETFL) & O_NONBLOCK, 0);
	T_CHECK(fstat(p[1], &st) == 0 && st.st_uid == 12 && st.st_gid == 34);
	T_CHECK_EQ(write(p[1], "!", 1), 1);
	check_read(r2, "hello!");
	close(p[1]);
	check_read(p[0], "");
	close(p[0]);
	close(r2);
	fake_free(f);
}

static void test_pipe_full(void)
{
	struct fake *f = fake_new();
	static char buf[70000], got[70000];
	int p[2];
	ssize_t n, i;

	for (i = 0; i < (ssize_t)sizeof(buf); i++)
		buf[i] = (char)(i * 31);
	T_REQUIRE(pipe2(p, O_CLOEXEC | O_NONBLOCK) == 0);
	n = write(p[1], buf, sizeof(buf));
	T_CHECK_EQ(n, 65536);
	fake_add(f, p[0]);
	fake_add(f, p[1]);
	fake_move(f);
	T_CHECK_EQ(write(p[1], "x", 1), -1);
	T_CHECK_EQ(errno, EAGAIN);
	T_CHECK_EQ(read(p[0], got, sizeof(got)), n);
	T_CHECK(!memcmp(buf, got, (size_t)n));
	close(p[0]);
	close(p[1]);
	fake_free(f);
}

static void test_pipe_dead_ends(void)
{
	struct fake *f = fake_new();
	int p[2], q[2];

	signal(SIGPIPE, SIG_IGN);
	T_REQUIRE(pipe2(p, O_CLOEXEC) == 0 && pipe2(q, O_CLOEXEC) == 0);
	T_CHECK_EQ(write(p[1], "last", 4), 4);
	close(p[1]);
	close(q[0]);
	fake_add(f, p[0]);
	fake_add(f, q[1]);
	fake_move(f);
	check_read(p[0], "last");
	check_read(p[0], "");
	T_CHECK_EQ(write(q[1], "x", 1), -1);
	T_CHECK_EQ(errno, EPIPE);
	signal(SIGPIPE, SIG_DFL);
	close(p[0]);
	close(q[1]);
	fake_free(f);
}

static void test_pipe_packets(void)
{
	struct fake *f = fake_new();
	int p[2];

	T_REQUIRE(pipe2(p, O_CLOEXEC | O_DIRECT) == 0);
	T_CHECK_EQ(write(p[1], "one", 3), 3);
	T_CHECK_EQ(write(p[1], "three", 5), 5);
	fake_add(f, p[0]);
	fake_add(f, p[1]);
	fake_move(f);
	check_read(p[0], "one");
	check_read(p[0], "three");
	T_CHECK(fcntl(p[1], F_GETFL) & O_DIRECT);
	close(p[0]);
	close(p[1]);
	fake_free(f);
}

static short events(int fd)
{
	struct pollfd p = { .fd = fd, .events = POLLIN };

	return poll(&p, 1, 0) < 0 ? -1 : p.revents;
}

/* By a name and without one: what a writer has left, and who has met none. */
static void test_fifo(bool named)
{
	struct fake *f = fake_new();
	struct stat before, after;
	int rd, wr, left, unmet;

	T_REQUIRE(mkfifo(t_path("one"), 0620) == 0 && mkfifo(t_path("two"), 0600) == 0 && mkfifo(t_path("three"), 0600) == 0);
	rd = open(t_path("one"), O_RDWR | O_CLOEXEC);
	wr = open(t_path("one"), O_WRONLY | O_CLOEXEC);
	left = open(t_path("two"), O_RDWR | O_CLOEXEC);
	unmet = open(t_path("three"), O_RDONLY | O_NONBLOCK | O_CLOEXEC);
	T_REQUIRE(rd >= 0 && wr >= 0 && left >= 0 && unmet >= 0);
	T_CHECK_EQ(write(wr, "data", 4), 4);
	T_CHECK_EQ(write(left, "left", 4), 4);
	T_REQUIRE(dup2(open(t_path("two"), O_RDONLY | O_CLOEXEC), left) == left);
	T_CHECK(fcntl(wr, F_SETPIPE_SZ, 16384) == 16384 && fstat(rd, &before) == 0);
	T_REQUIRE(named || (unlink(t_path("one")) == 0 && unlink(t_path("two")) == 0 && unlink(t_path("three")) == 0));
	fake_add(f, rd), fake_add(f, wr), fake_add(f, left), fake_add(f, unmet);
	fake_move(f);
	T_CHECK(fstat(wr, &after) == 0 && after.st_mode == before.st_mode && after.st_uid == before.st_uid);
	T_CHECK_EQ(after.st_ino == before.st_ino, named);
	T_CHECK_EQ(fcntl(rd, F_GETPIPE_SZ), 16384);
	T_CHECK_EQ(fcntl(wr, F_GETFL) & O_ACCMODE, O_WRONLY);
	check_read(rd, "data");
	T_CHECK_EQ(write(wr, "more", 4), 4);
	check_read(rd, "more");
	T_CHECK_EQ(events(left), POLLIN | POLLHUP);
	check_read(left, "left");
	check_read(left, "");
	T_CHECK_EQ(events(unmet), 0);
	check_read(unmet, "");
	close(rd), close(wr), close(left), close(unmet);
	fake_free(f);
}

static void test_fifo_named(void)
{
	test_fifo(true);
}

static void test_fifo_removed(void)
{
	test_fifo(false);
}

static const struct test_case cases[] = {
	{ "offsets_and_sharing", test_offsets_and_sharing },
	{ "unlinked", test_unlinked },
	{ "memfd", test_memfd },
	{ "named_deleted", test_named_deleted },
	{ "refusals", test_refusals },
	{ "directory_and_o_path", test_directory_and_o_path },
	{ "devices", test_devices },
	{ "pipe_contents", test_pipe_contents },
	{ "pipe_full", test_pipe_full },
	{ "pipe_dead_ends", test_pipe_dead_ends },
	{ "pipe_packets", test_pipe_packets },
	{ "fifo_named", test_fifo_named },
	{ "fifo_removed", test_fifo_removed },
};
const struct test_suite kind_file_suite = { "kind_file", cases, ARRAY_SIZE(cases) };
