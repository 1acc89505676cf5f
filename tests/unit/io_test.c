/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "pod/base/io.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/harness.h"

static int count_fds(void)
{
	DIR *d = opendir("/proc/self/fd");
	int n = 0;

	T_REQUIRE(d);
	while (readdir(d))
		n++;
	closedir(d);
	return n;
}

static void test_deadlines(void)
{
	uint64_t d = deadline_ms(10000);

	T_CHECK_EQ(deadline_left_ms(IO_FOREVER), -1);
	T_CHECK_EQ(deadline_left_ms(0), 0);
	T_CHECK(deadline_left_ms(d) > 9000 && deadline_left_ms(d) <= 10000);
	T_CHECK_EQ(deadline_left_ms(IO_FOREVER - 1), INT_MAX);
}

/* A beat that comes late is a standstill, after which all have some time more; not in what was forked, nor where nobody beats. */
static void test_standstill(void)
{
	uint64_t short_one = deadline_ms(1), long_one = deadline_ms(600000), look = deadline_look_ms(1);
	pid_t pid;
	int p[2], status;
	autoclose int a = -1;
	autoclose int b = -1;

	usleep(5000);
	T_CHECK(deadline_past(short_one) && !deadline_grace_ms());
	deadline_beats(200);
	T_CHECK(deadline_past(short_one) && !deadline_past(long_one) && !deadline_past(IO_FOREVER));
	usleep(250000);
	T_CHECK(!deadline_past(short_one));
	T_CHECK(deadline_left_ms(short_one) > 0 && deadline_left_ms(short_one) <= (int)DEADLINE_GRACE_MS);
	T_CHECK(deadline_left_ms(long_one) > (int)DEADLINE_GRACE_MS);
	T_CHECK(deadline_past(look) && deadline_left_ms(look) == 0);
	pid = fork();
	T_REQUIRE(pid >= 0);
	if (pid == 0)
		_exit(deadline_past(short_one) ? 0 : 1);
	T_CHECK(waitpid(pid, &status, 0) == pid && status == 0);
	T_REQUIRE(pipe2(p, O_CLOEXEC) == 0);
	a = p[0];
	b = p[1];
	T_CHECK_EQ(write(b, "x", 1), 1);
	T_OK(io_read_full(a, p, 1, short_one, &(struct err){ 0 }), &(struct err){ 0 }); /* it has come meanwhile */
	while (!deadline_past(short_one)) {
		usleep(1000); /* there is no event for it */
		deadline_beat();
	}
	T_CHECK_EQ(io_wait_readable(a, short_one, NULL), -ETIMEDOUT);
	T_CHECK(!deadline_past(long_one));
	/* who waits himself is late with his beats, but does not stand still */
	deadline_beats(20);
	T_CHECK_EQ(io_wait_readable(a, deadline_ms(300), NULL), -ETIMEDOUT);
	deadline_beats(0);
	usleep(250000);
	T_CHECK(deadline_past(short_one));
}

static void test_read_times_out(void)
{
	autoclose int a = -1;
	autoclose int b = -1;
	struct err e = { 0 };
	int p[2];
	char buf[4];

	T_REQUIRE(pipe2(p, O_CLOEXEC) == 0);
	a = p[0];
	b = p[1];
	T_CHECK_EQ(io_wait_readable(a, deadline_ms(5), &e), -ETIMEDOUT);
	T_CHECK_EQ(write(b, "abc", 3), 3);
	T_CHECK_EQ(io_read_full(a, buf, 4, deadline_ms(5), &e), -ETIMEDOUT);
	close_fdp(&b);
	T_CHECK_EQ(io_read_full(a, buf, 4, deadline_ms(60000), &e), -EPIPE);
}

struct feeder {
	int fd;
	size_t len;
	pthread_t victim;
};

static void on_usr1(int sig)
{
	(void)sig;
}

/* Feeds in odd pieces and interrupts the reader all the time. */
static void *feed(void *arg)
{
	struct feeder *f = arg;
	size_t off = 0;
	unsigned char buf[777];

	while (off < f->len) {
		size_t n = MIN(sizeof(buf), f->len - off), i;

		for (i = 0; i < n; i++)
			buf[i] = (unsigned char)((off + i) * 7);
		if (write(f->fd, buf, n) != (ssize_t)n)
			break;
		off += n;
		pthread_kill(f->victim, SIGUSR1);
	}
	return NULL;
}

static void test_read_full_over_eintr(void)
{
	struct sigaction sa = { .sa_handler = on_usr1 }, old;
	static unsigned char buf[100000];
	struct err e = { 0 };
	struct feeder f;
	pthread_t th;
	size_t i;
	int sv[2];

	sigaction(SIGUSR1, &sa, &old);
	T_REQUIRE(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sv) == 0);
	f = (struct feeder){ sv[1], sizeof(buf), pthread_self() };
	T_REQUIRE(pthread_create(&th, NULL, feed, &f) == 0);
	T_OK(io_read_full(sv[0], buf, sizeof(buf), deadline_ms(60000), &e), &e);
	pthread_join(th, NULL);
	for (i = 0; i < sizeof(buf) && buf[i] == (unsigned char)(i * 7); i++)
		;
	T_CHECK_EQ(i, sizeof(buf));
	sigaction(SIGUSR1, &old, NULL);
	close(sv[0]);
	close(sv[1]);
}

struct drain {
	int fd;
	size_t len;
	int ok;
};

static void *drain(void *arg)
{
	struct drain *d = arg;
	static unsigned char buf[1 << 20];
	struct err e;
	size_t i;

	if (io_read_full(d->fd, buf, d->len, deadline_ms(60000), &e) < 0)
		return NULL;
	for (i = 0; i < d->len && buf[i] == (unsigned char)(i / 1000); i++)
		;
	d->ok = i == d->len;
	return NULL;
}

static void test_writev_through_a_nonblocking_pipe(void)
{
	static unsigned char data[700000];
	struct iovec iov[3] = { { data, 1000 }, { data + 1000, 0 }, { data + 1000, 699000 } };
	struct err e = { 0 };
	struct drain d;
	pthread_t th;
	size_t i;
	int p[2];

	for (i = 0; i < sizeof(data); i++)
		data[i] = (unsigned char)(i / 1000);
	T_REQUIRE(pipe2(p, O_CLOEXEC) == 0);
	T_REQUIRE(fcntl(p[1], F_SETFL, O_NONBLOCK) == 0);
	d = (struct drain){ p[0], sizeof(data), 0 };
	T_REQUIRE(pthread_create(&th, NULL, drain, &d) == 0);
	T_OK(io_writev_full(p[1], iov, 3, deadline_ms(60000), &e), &e);
	pthread_join(th, NULL);
	T_CHECK(d.ok);
	close(p[0]);
	close(p[1]);
}

static void test_write_to_a_gone_peer(void)
{
	struct err e = { 0 };
	int sv[2];

	T_REQUIRE(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sv) == 0);
	close(sv[1]);
	T_CHECK_EQ(io_write_full(sv[0], "x", 1, deadline_ms(60000), &e), -EPIPE);
	close(sv[0]);
}

static void test_read_file(void)
{
	const char *path = t_path("f");
	autofree char *text = NULL;
	static char big[10000];
	struct err e = { 0 };
	size_t len = 0;

	memset(big, 'z', sizeof(big));
	T_CHECK_EQ(io_read_file(path, 100, &text, &len, &e), -ENOENT);
	T_CHECK(!text);
	T_OK(io_replace_file(path, big, sizeof(big), 0600, &e), &e);
	T_CHECK_EQ(io_read_file(path, sizeof(big) - 1, &text, &len, &e), -EFBIG);
	T_CHECK(!text);
	T_OK(io_read_file(path, sizeof(big), &text, &len, &e), &e);
	T_CHECK_EQ(len, sizeof(big));
	T_CHECK_EQ(strlen(text), sizeof(big));
}

static void test_replace_file(void)
{
	const char *path = t_path("dir/f");
	autofree char *text = NULL;
	struct err e = { 0 };
	struct dirent *de;
	struct stat st;
	int n = 0;
	DIR *d;

	T_CHECK_EQ(io_replace_file(path, "x", 1, 0640, &e), -ENOENT);
	T_REQUIRE(mkdir(t_path("dir"), 0700) == 0);
	T_OK(io_replace_file(path, "old", 3, 0640, &e), &e);
	T_OK(io_replace_file(path, "new!", 4, 0600, &e), &e);
	T_OK(io_read_file(path, 100, &text, NULL, &e), &e);
	T_CHECK_STR(text, "new!");
	T_REQUIRE(stat(path, &st) == 0);
	T_CHECK_EQ(st.st_mode & 0777, 0600);
	/* a directory cannot be replaced by a file: nothing may be left lying beside it */
	T_REQUIRE(mkdir(t_path("dir/sub"), 0700) == 0);
	T_CHECK_EQ(io_replace_file(t_path("dir/sub"), "x", 1, 0600, &e), -EISDIR);
	d = opendir(t_path("dir"));
	T_REQUIRE(d);
	while ((de = readdir(d)))
		n += de->d_name[0] != '.';
	closedir(d);
	T_CHECK_EQ(n, 2);
}

static void test_write_file(void)
{
	const char *path = t_path("f");
	struct err e = { 0 };

	T_CHECK_EQ(io_write_file(path, "x", &e), -ENOENT);
	T_CHECK_HAS(e.msg, path);
}

static void test_fds(void)
{
	int sv[2], p[2], out[250], in[250], i, before;
	struct err e = { 0 };
	struct stat a, b;
	char c = 0;

	T_REQUIRE(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sv) == 0);
	T_REQUIRE(pipe(p) == 0);
	before = count_fds();
	for (i = 0; i < 250; i++)
		out[i] = p[i & 1];
	T_OK(io_send_fds(sv[0], out, 250, &e), &e);
	T_OK(io_recv_fds(sv[1], in, 250, deadline_ms(60000), &e), &e);
	for (i = 0; i < 250; i++) {
		T_CHECK_EQ(fcntl(in[i], F_GETFD), FD_CLOEXEC);
		fstat(in[i], &a);
		fstat(out[i], &b);
		T_CHECK_EQ(a.st_ino, b.st_ino);
	}
	T_CHECK_EQ(write(in[1], "q", 1), 1);
	T_CHECK_EQ(read(in[0], &c, 1), 1);
	T_CHECK_EQ(c, 'q');
	for (i = 0; i < 250; i++)
		close(in[i]);
	/* another number than announced: refused, and nothing stays open */
	T_OK(io_send_fds(sv[0], out, 3, &e), &e);
	T_CHECK_EQ(io_recv_fds(sv[1], in, 2, deadline_ms(60000), &e), -EPROTO);
	T_CHECK_EQ(write(sv[0], "F", 1), 1);
	T_CHECK_EQ(io_recv_fds(sv[1], in, 1, deadline_ms(60000), &e), -EPROTO);
	T_CHECK_EQ(io_recv_fds(sv[1], in, 1, deadline_ms(5), &e), -ETIMEDOUT);
	T_CHECK_EQ(io_send_fds(sv[0], out, 251, &e), -E2BIG);
	T_CHECK_EQ(count_fds(), before);
	close(p[0]);
	close(p[1]);
	close(sv[0]);
	close(sv[1]);
}

static const struct test_case cases[] = {
	{ "deadlines", test_deadlines },
	{ "standstill", test_standstill },
	{ "read_times_out", test_read_times_out },
	{ "read_full_over_eintr", test_read_full_over_eintr },
	{ "writev_through_a_nonblocking_pipe", test_writev_through_a_nonblocking_pipe },
	{ "write_to_a_gone_peer", test_write_to_a_gone_peer },
	{ "read_file", test_read_file },
	{ "replace_file", test_replace_file },
	{ "write_file", test_write_file },
	{ "fds", test_fds },
};
const struct test_suite io_suite = { "io", cases, ARRAY_SIZE(cases) };
