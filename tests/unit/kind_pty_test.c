/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Terminals, moved. */
#include <asm/termbits.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/harness.h"
#include "tests/unit/kind_fake.h"

static int master(unsigned *index)
{
	int fd = open("/dev/pts/ptmx", O_RDWR | O_NOCTTY | O_CLOEXEC), zero = 0;

	if (fd < 0)
		T_SKIP("no /dev/pts/ptmx");
	T_CHECK(ioctl(fd, TIOCSPTLCK, &zero) == 0 && ioctl(fd, TIOCGPTN, index) == 0);
	return fd;
}

static int slave(int m)
{
	int fd = ioctl(m, TIOCGPTPEER, O_RDWR | O_NOCTTY | O_CLOEXEC);

	T_REQUIRE(fd >= 0);
	return fd;
}

static void check_read(int fd, const char *want)
{
	struct pollfd pf = { .fd = fd, .events = POLLIN };
	char buf[256] = "";
	ssize_t n = poll(&pf, 1, 60000) == 1 ? read(fd, buf, sizeof(buf) - 1) : -1;

	T_CHECK_EQ(n, strlen(want));
	T_CHECK_STR(buf, want);
}

static void put(int fd, const char *s)
{
	T_CHECK_EQ(write(fd, s, strlen(s)), strlen(s));
}

static bool readable(int fd)
{
	struct pollfd pf = { .fd = fd, .events = POLLIN };

	return poll(&pf, 1, 0) == 1;
}

/* A line, a half line, output: all there on the source after a dump, and after the move. */
static void test_queues(void)
{
	struct fake *f = fake_new();
	struct err e = { 0 };
	struct winsize ws = { 33, 111, 0, 0 };
	struct termios2 t, t2;
	unsigned idx, idx2;
	int m = master(&idx), s = slave(m), s2 = slave(m), round;
	char path[32];
	struct stat st;

	T_CHECK(ioctl(m, TIOCSWINSZ, &ws) == 0);
	T_CHECK(ioctl(s, TCGETS2, &t) == 0);
	t.c_lflag &= ~(tcflag_t)ECHO;
	t.c_cc[VKILL] = 'K';
	T_CHECK(ioctl(s, TCSETS2, &t) == 0);
	snprintf(path, sizeof(path), "/dev/pts/%u", idx);
	T_CHECK(chmod(path, 0622) == 0 && chown(path, 7, 5) == 0);
	put(m, "line one\nhalf");
	put(s, "out\n");
	fake_add(f, s), fake_add(f, m), fake_add(f, s2);
	for (round = 0; round < 3; round++) {
		if (round < 2)
			T_OK(fake_dump_undo(f, &e), &e);
		else
			fake_move(f);
	}
	check_read(m, "out\r\n");
	check_read(s2, "line one\n");
	T_CHECK(!readable(s));
	put(m, " done\n");
	check_read(s, "half done\n");
	T_CHECK(!readable(m)); /* no echo of anything */
	put(m, "lostKkept\n");
	check_read(s, "kept\n");
	memset(&ws, 0, sizeof(ws));
	T_CHECK(ioctl(s, TIOCGWINSZ, &ws) == 0 && ws.ws_row == 33 && ws.ws_col == 111);
	T_CHECK(ioctl(s, TCGETS2, &t2) == 0);
	T_CHECK(!memcmp(&t, &t2, sizeof(t)));
	T_CHECK(ioctl(m, TIOCGPTN, &idx2) == 0);
	T_CHECK_EQ(idx2, idx);
	T_CHECK(stat(path, &st) == 0 && (st.st_mode & 07777) == 0622 && st.st_uid == 7 && st.st_gid == 5);
	close(s);
	close(s2);
	T_CHECK(readable(m)); /* hang-up */
	close(m);
	fake_free(f);
}

static void test_raw_and_much(void)
{
	struct fake *f = fake_new();
	static char buf[6000], got[6000];
	struct termios2 t;
	unsigned idx;
	int m = master(&idx), s = slave(m), mp;
	size_t i, n = 0;
	ssize_t k;

	T_CHECK(ioctl(s, TCGETS2, &t) == 0);
	t.c_iflag = 0;
	t.c_oflag = 0;
	t.c_lflag = 0;
	t.c_cc[VMIN] = 1;
	t.c_cc[VTIME] = 0;
	T_CHECK(ioctl(s, TCSETS2, &t) == 0);
	for (i = 0; i < sizeof(buf); i++)
		buf[i] = (char)(i * 7 + i / 256);
	T_CHECK_EQ(write(m, buf, sizeof(buf)), sizeof(buf));
	T_CHECK_EQ(write(s, buf, 5000), 5000);
	mp = 1;
	fake_add(f, m), fake_add(f, s);
	fake_move(f);
	T_CHECK(fcntl(s, F_SETFL, O_NONBLOCK) == 0 && fcntl(m, F_SETFL, O_NONBLOCK) == 0);
	while (n < sizeof(buf) && mp++ < 200) {
		struct pollfd pf = { .fd = s, .events = POLLIN };

		if (poll(&pf, 1, 60000) != 1)
			break;
		k = read(s, got + n, sizeof(got) - n);
		n += k > 0 ? (size_t)k : 0;
	}
	T_CHECK_EQ(n, sizeof(buf));
	T_CHECK(!memcmp(buf, got, sizeof(buf)));
	for (n = 0, mp = 0; n < 5000 && mp++ < 200;) {
		struct pollfd pf = { .fd = m, .events = POLLIN };

		if (poll(&pf, 1, 60000) != 1)
			break;
		k = read(m, got + n, sizeof(got) - n);
		n += k > 0 ? (size_t)k : 0;
	}
	T_CHECK_EQ(n, 5000);
	T_CHECK(!memcmp(buf, got, 5000));
	close(s);
	close(m);
	fake_free(f);
}

static void test_packet_and_hup(void)
{
	struct fake *f = fake_new();
	unsigned idx;
	int m = master(&idx), s = slave(m), one = 1, v = 0, m2 = master(&idx), s2 = slave(m2), m3 = master(&idx);

	T_CHECK(ioctl(m, TIOCPKT, &one) == 0);
	put(s, "p");
	close(s);
	close(m2); /* s2 is hung up */
	fake_add(f, m), fake_add(f, s2), fake_add(f, m3);
	fake_move(f);
	T_CHECK(ioctl(m, TIOCGPKT, &v) == 0 && v == 1);
	{
		char buf[8];

		T_CHECK_EQ(read(m, buf, sizeof(buf)), 2);
		T_CHECK(buf[0] == 0 && buf[1] == 'p');
		T_CHECK_EQ(read(m, buf, sizeof(buf)), -1);
		T_CHECK_EQ(errno, EIO);
		T_CHECK_EQ(write(s2, "x", 1), -1);
		T_CHECK_EQ(errno, EIO);
		T_CHECK_EQ(read(s2, buf, 1), 0);
	}
	T_CHECK(!readable(m3)); /* its slave was never opened: no hang-up */
	s = slave(m3);
	put(s, "ok");
	check_read(m3, "ok");
	close(s), close(m), close(s2), close(m3);
	fake_free(f);
}

/* In a session of its own: the leader holds no fd of its terminal. */
static void ctty_child(unsigned index)
{
	struct batch *b = calloc(1, sizeof(*b));
	void *scratch = calloc(1, SCRATCH_LEN);
	struct err e = { 0 };
	Pm__Proc proc;
	int fd, gate[2];
	pid_t kid, fg = -1;
	char c;

	if (!b || !scratch || setsid() < 0 || pipe2(gate, O_CLOEXEC) < 0)
		_exit(2);
	kid = fork();
	if (kid == 0) {
		close(gate[1]);
		_exit(read(gate[0], &c, 1) == 0 ? 0 : 1);
	}
	if (setpgid(kid, kid) < 0)
		_exit(3);
	pm__proc__init(&proc);
	proc.pid = (uint32_t)getpid();
	proc.sid = proc.pid;
	proc.tty = index + 1;
	proc.tty_fg = kid;
	batch_begin(b, (uintptr_t)scratch);
	if (kind_ctty.give(NULL, &proc, NULL, b, &e) < 0 || b->overflow)
		_exit(4);
	fake_run_batch(b, scratch);
	fd = open("/dev/tty", O_RDWR | O_CLOEXEC);
	if (fd < 0)
		_exit(5);
	if (ioctl(fd, TIOCGPGRP, &fg) < 0 || fg != kid)
		_exit(6);
	signal(SIGHUP, SIG_IGN);
	close(gate[1]);
	waitpid(kid, NULL, 0);
	_exit(0);
}

static void test_controlling_terminal(void)
{
	unsigned idx;
	int m = master(&idx), st = -1;
	pid_t pid = fork();

	if (pid == 0)
		ctty_child(idx);
	T_CHECK_EQ(waitpid(pid, &st, 0), pid);
	T_CHECK(WIFEXITED(st));
	T_CHECK_EQ(WEXITSTATUS(st), 0);
	close(m);
}

static const struct test_case cases[] = {
	{ "queues", test_queues },
	{ "raw_and_much", test_raw_and_much },
	{ "packet_and_hup", test_packet_and_hup },
	{ "controlling_terminal", test_controlling_terminal },
};
const struct test_suite kind_pty_suite = { "kind_pty", cases, ARRAY_SIZE(cases) };
