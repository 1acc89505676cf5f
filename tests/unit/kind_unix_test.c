/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Unix sockets, moved. */
#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <poll.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "pod/base/io.h"
#include "tests/harness.h"
#include "tests/unit/kind_fake.h"

static void check_recv(int fd, const char *want)
{
	char buf[256] = "";
	ssize_t n = recv(fd, buf, sizeof(buf) - 1, MSG_DONTWAIT);

	T_CHECK_EQ(n, strlen(want));
	T_CHECK_STR(buf, want);
}

static void check_talk(int a, int b)
{
	T_CHECK_EQ(send(a, "ping", 4, MSG_NOSIGNAL), 4);
	check_recv(b, "ping");
	T_CHECK_EQ(send(b, "pong!", 5, MSG_NOSIGNAL), 5);
	check_recv(a, "pong!");
}

static socklen_t addr(struct sockaddr_un *sa, const char *name)
{
	memset(sa, 0, sizeof(*sa));
	sa->sun_family = AF_UNIX;
	strcpy(sa->sun_path, name);
	if (name[0] == '@') {
		sa->sun_path[0] = 0;
		return (socklen_t)(offsetof(struct sockaddr_un, sun_path) + strlen(name));
	}
	return sizeof(*sa);
}

static int listener(const char *name, int backlog)
{
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	struct sockaddr_un sa;

	T_REQUIRE(bind(fd, (void *)&sa, addr(&sa, name)) == 0 && listen(fd, backlog) == 0);
	return fd;
}

static int client(const char *name)
{
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	struct sockaddr_un sa;

	T_REQUIRE(connect(fd, (void *)&sa, addr(&sa, name)) == 0);
	return fd;
}

static void check_name(int fd, bool peer, const char *want)
{
	struct sockaddr_un sa = { 0 };
	socklen_t len = sizeof(sa);

	T_CHECK((peer ? getpeername(fd, (void *)&sa, &len) : getsockname(fd, (void *)&sa, &len)) == 0);
	if (len > offsetof(struct sockaddr_un, sun_path) && !sa.sun_path[0]) {
		sa.sun_path[0] = '@';
		sa.sun_path[len - offsetof(struct sockaddr_un, sun_path)] = 0;
	}
	T_CHECK_STR(len > offsetof(struct sockaddr_un, sun_path) ? sa.sun_path : "", want);
}

static void test_pair(void)
{
	struct fake *f = fake_new();
	struct err e = { 0 };
	int sv[2], on = 1, buf = 50000;
	struct timeval tv = { 3, 0 };
	socklen_t len = sizeof(tv);

	T_REQUIRE(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sv) == 0);
	T_CHECK_EQ(send(sv[0], "to one", 6, 0), 6);
	T_CHECK_EQ(send(sv[1], "to zero", 7, 0), 7);
	T_CHECK(setsockopt(sv[0], SOL_SOCKET, SO_PASSCRED, &on, 4) == 0);
	T_CHECK(setsockopt(sv[1], SOL_SOCKET, SO_SNDBUF, &buf, 4) == 0);
	T_CHECK(setsockopt(sv[1], SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof(tv)) == 0);
	T_CHECK(fcntl(sv[1], F_SETFL, O_NONBLOCK) == 0);
	fake_add(f, sv[0]);
	fake_add(f, sv[1]);
	T_OK(fake_dump_undo(f, &e), &e);
	fake_move(f);
	check_recv(sv[1], "to one");
	check_recv(sv[0], "to zero");
	check_talk(sv[0], sv[1]);
	len = 4;
	T_CHECK(getsockopt(sv[0], SOL_SOCKET, SO_PASSCRED, &on, &len) == 0 && on == 1);
	T_CHECK(getsockopt(sv[1], SOL_SOCKET, SO_SNDBUF, &buf, &len) == 0);
	T_CHECK_EQ(buf, 100000);
	len = sizeof(tv);
	tv.tv_sec = 0;
	T_CHECK(getsockopt(sv[1], SOL_SOCKET, SO_RCVTIMEO, &tv, &len) == 0 && tv.tv_sec == 3);
	T_CHECK(fcntl(sv[1], F_GETFL) & O_NONBLOCK);
	close(sv[0]);
	T_CHECK_EQ(recv(sv[1], &on, 1, MSG_DONTWAIT), 0);
	close(sv[1]);
	fake_free(f);
}

static void test_full_queues(void)
{
	struct fake *f = fake_new();
	static char buf[4096], got[4096];
	size_t total = 0, back = 0;
	int sv[2];
	ssize_t n;

	T_REQUIRE(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, sv) == 0);
	for (;;) {
		memset(buf, (int)(total / 4096), sizeof(buf));
		n = send(sv[0], buf, sizeof(buf), 0);
		if (n <= 0)
			break;
		total += (size_t)n;
	}
	T_CHECK(total > 100000);
	fake_add(f, sv[0]);
	fake_add(f, sv[1]);
	fake_move(f);
	while (back < total) {
		n = recv(sv[1], got, 4096 - back % 4096, 0);
		if (n <= 0)
			break;
		T_CHECK_EQ((unsigned char)got[0], (unsigned char)(back / 4096));
		back += (size_t)n;
	}
	T_CHECK_EQ(back, total);
	check_talk(sv[0], sv[1]);
	close(sv[0]);
	close(sv[1]);
	fake_free(f);
}

static void test_dead_and_outside(void)
{
	struct fake *f = fake_new();
	int a[2], b[2];

	signal(SIGPIPE, SIG_IGN);
	T_REQUIRE(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, a) == 0);
	T_REQUIRE(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, b) == 0);
	T_CHECK_EQ(send(a[1], "bye", 3, 0), 3);
	T_CHECK_EQ(send(b[1], "out", 3, 0), 3);
	close(a[1]);
	fake_add(f, a[0]);
	fake_add(f, b[0]);
	fake_move(f);
	check_recv(a[0], "bye");
	check_recv(a[0], "");
	T_CHECK_EQ(send(a[0], "x", 1, MSG_NOSIGNAL), -1);
	T_CHECK_EQ(errno, EPIPE);
	check_recv(b[0], "out");
	check_recv(b[0], "");
	close(a[0]);
	close(b[0]);
	close(b[1]);
	signal(SIGPIPE, SIG_DFL);
	fake_free(f);
}

static void test_halves(void)
{
	struct fake *f = fake_new();
	int a[2];

	T_REQUIRE(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, a) == 0);
	T_CHECK_EQ(send(a[0], "end", 3, 0), 3);
	T_CHECK(shutdown(a[0], SHUT_WR) == 0);
	fake_add(f, a[0]);
	fake_add(f, a[1]);
	fake_move(f);
	check_recv(a[1], "end");
	check_recv(a[1], "");
	T_CHECK_EQ(send(a[0], "x", 1, MSG_NOSIGNAL), -1);
	T_CHECK_EQ(send(a[1], "still", 5, MSG_NOSIGNAL), 5);
	check_recv(a[0], "still");
	close(a[0]);
	close(a[1]);
	fake_free(f);
}

/* Listener, an accepted connection, and two clients that wait. */
static void move_server(const char *name)
{
	struct fake *f = fake_new();
	int l = listener(name, 5), c = client(name), s = accept4(l, NULL, NULL, SOCK_CLOEXEC);
	int w1 = client(name), w2 = client(name), s1, s2, c3, s3;
	struct err e = { 0 };

	T_CHECK_EQ(send(s, "hello", 5, 0), 5);
	fake_add(f, c);
	fake_add(f, s);
	fake_add(f, w1);
	fake_add(f, l);
	fake_add(f, w2);
	T_OK(fake_dump_undo(f, &e), &e);
	fake_move(f);
	check_recv(c, "hello");
	check_talk(c, s);
	check_name(s, false, name);
	check_name(c, true, name);
	check_name(c, false, "");
	check_name(l, false, name);
	T_CHECK_EQ(send(w1, "1", 1, MSG_NOSIGNAL), 1);
	T_CHECK_EQ(send(w2, "2", 1, MSG_NOSIGNAL), 1);
	T_CHECK(fcntl(l, F_SETFL, O_NONBLOCK) == 0);
	s1 = accept4(l, NULL, NULL, SOCK_CLOEXEC);
	s2 = accept4(l, NULL, NULL, SOCK_CLOEXEC);
	check_recv(s1, "1");
	check_recv(s2, "2");
	check_talk(w1, s1);
	T_CHECK_EQ(accept4(l, NULL, NULL, SOCK_CLOEXEC), -1);
	c3 = client(name);
	s3 = accept4(l, NULL, NULL, SOCK_CLOEXEC);
	check_talk(c3, s3);
	close(l), close(c), close(s), close(w1), close(w2), close(s1), close(s2), close(c3), close(s3);
	fake_free(f);
}

static void test_server_path(void)
{
	struct stat st;

	move_server(t_path("sock"));
	T_CHECK(stat(t_path("sock"), &st) == 0 && S_ISSOCK(st.st_mode));
}

static void test_server_abstract(void)
{
	char name[64];

	snprintf(name, sizeof(name), "@podmigrate-test/%d", getpid());
	move_server(name);
}

static void test_relative_and_modes(void)
{
	struct fake *f = fake_new();
	int l, u, old = open(".", O_RDONLY | O_DIRECTORY | O_CLOEXEC), c;
	struct stat st;

	T_CHECK(chdir(t_dir()) == 0);
	l = listener("rel", 3);
	u = listener("gone", 3);
	T_CHECK(unlink("gone") == 0);
	T_CHECK(chmod("rel", 0612) == 0 && chown("rel", 3, 4) == 0);
	fake_add(f, l);
	fake_add(f, u);
	fake_move(f);
	T_CHECK(stat("rel", &st) == 0 && (st.st_mode & 07777) == 0612 && st.st_uid == 3 && st.st_gid == 4);
	T_CHECK(stat("gone", &st) < 0);
	check_name(l, false, "rel");
	check_name(u, false, "gone");
	c = client("rel");
	close(c);
	close(l);
	close(u);
	T_CHECK(fchdir(old) == 0);
	close(old);
	fake_free(f);
}

static void test_bound_client(void)
{
	struct fake *f = fake_new();
	const char *name = t_path("srv"), *mine = t_path("cli");
	int l = listener(name, 3), c = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0), s;
	struct sockaddr_un sa;

	T_REQUIRE(bind(c, (void *)&sa, addr(&sa, mine)) == 0);
	T_REQUIRE(connect(c, (void *)&sa, addr(&sa, name)) == 0);
	s = accept4(l, NULL, NULL, SOCK_CLOEXEC);
	close(l);
	fake_add(f, s);
	fake_add(f, c);
	fake_move(f);
	check_name(c, false, mine);
	check_name(s, true, mine);
	check_name(s, false, name);
	check_talk(c, s);
	close(c);
	close(s);
	fake_free(f);
}

static void send_with(int fd, const char *words, const int *fds, size_t n)
{
	char control[CMSG_SPACE(4 * sizeof(int))] __attribute__((aligned(8))) = { 0 };
	struct iovec iov = { (void *)(uintptr_t)words, strlen(words) };
	struct msghdr mh = { .msg_iov = &iov, .msg_iovlen = 1, .msg_control = control, .msg_controllen = CMSG_SPACE(n * sizeof(int)) };
	struct cmsghdr *c = CMSG_FIRSTHDR(&mh);

	c->cmsg_level = SOL_SOCKET;
	c->cmsg_type = SCM_RIGHTS;
	c->cmsg_len = CMSG_LEN(n * sizeof(int));
	memcpy(CMSG_DATA(c), fds, n * sizeof(int));
	T_CHECK_EQ(sendmsg(fd, &mh, 0), iov.iov_len);
}

/* At most @room bytes; the descriptors that come with them, which must be @n. */
static void recv_with(int fd, size_t room, const char *want, int *fds, size_t n)
{
	char buf[64] = "", control[256] __attribute__((aligned(8)));
	struct iovec iov = { buf, room };
	struct msghdr mh = { .msg_iov = &iov, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof(control) };
	struct cmsghdr *c;

	T_CHECK_EQ(recvmsg(fd, &mh, MSG_DONTWAIT | MSG_CMSG_CLOEXEC), strlen(want));
	T_CHECK_STR(buf, want);
	c = CMSG_FIRSTHDR(&mh);
	T_CHECK_EQ(c && c->cmsg_type == SCM_RIGHTS ? (c->cmsg_len - CMSG_LEN(0)) / sizeof(int) : 0, n);
	if (c && n)
		memcpy(fds, CMSG_DATA(c), n * sizeof(int));
}

/* In a queue of each type: one that the test has too, one that nobody has, a socket with one in its own queue. */
static void rights(int type)
{
	struct fake *f = fake_new();
	int sv[2], in[2], kept = eventfd(7, EFD_CLOEXEC), lone = eventfd(9, EFD_CLOEXEC), got[3], deep;
	struct err e = { 0 };
	uint64_t v;

	T_REQUIRE(socketpair(AF_UNIX, type | SOCK_CLOEXEC, 0, sv) == 0);
	T_REQUIRE(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, in) == 0);
	send_with(in[0], "deep", &lone, 1);
	T_CHECK_EQ(send(sv[0], "plain", 5, 0), 5);
	send_with(sv[0], "one", (int[]){ kept }, 1);
	T_CHECK_EQ(send(sv[0], "between", 7, 0), 7);
	send_with(sv[0], "two", (int[]){ in[1], lone }, 2);
	send_with(sv[0], "itself", (int[]){ sv[1] }, 1);
	close(lone), close(in[0]), close(in[1]);
	fake_add(f, sv[0]), fake_add(f, sv[1]), fake_add(f, kept);
	T_OK(fake_dump_undo(f, &e), &e);
	fake_move(f);
	recv_with(sv[1], 5, "plain", NULL, 0);
	recv_with(sv[1], 60, "one", got, 1);
	T_CHECK(write(kept, (uint64_t[]){ 1 }, 8) == 8 && read(got[0], &v, 8) == 8 && v == 8);
	close(got[0]);
	recv_with(sv[1], 7, "between", NULL, 0);
	recv_with(sv[1], 60, "two", got, 2);
	recv_with(got[0], 60, "deep", &deep, 1);
	/* both ways it is the same description */
	T_CHECK(write(deep, (uint64_t[]){ 1 }, 8) == 8 && read(got[1], &v, 8) == 8 && v == 10);
	T_CHECK_EQ(read(got[0], &v, 1), 0);
	close(deep), close(got[0]), close(got[1]);
	recv_with(sv[1], 60, "itself", got, 1);
	close(got[0]), close(kept), close(sv[0]), close(sv[1]);
	fake_free(f);
}

static void test_rights_stream(void)
{
	rights(SOCK_STREAM);
}

static void test_rights_seqpacket(void)
{
	rights(SOCK_SEQPACKET);
}

static void test_rights_dgram(void)
{
	rights(SOCK_DGRAM);
}

/* One that has been seen once is not seen again: the second time it must be refused, until it has been read. */
static void test_no_bytes(void)
{
	struct fake *f = fake_new();
	struct err e = { 0 };
	int sv[2], again[2];

	T_REQUIRE(socketpair(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0, sv) == 0);
	T_REQUIRE(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, again) == 0);
	T_CHECK(send(again[0], "one", 3, 0) == 3 && send(again[0], "", 0, 0) == 0 && shutdown(again[0], SHUT_WR) == 0);
	T_CHECK(send(sv[0], "one", 3, 0) == 3 && send(sv[0], "", 0, 0) == 0 && send(sv[0], "three", 5, 0) == 5);
	fake_add(f, sv[0]), fake_add(f, sv[1]), fake_add(f, again[0]), fake_add(f, again[1]);
	fake_move(f);
	check_recv(sv[1], "one");
	check_recv(sv[1], "");
	check_recv(again[1], "one");
	check_recv(again[1], "");
	check_recv(again[1], "");
	T_CHECK(recv(again[1], &e, 1, MSG_DONTWAIT) == 0);
	fake_free(f);

	f = fake_new();
	T_CHECK_EQ(send(sv[0], "", 0, 0), 0);
	fake_add(f, sv[0]), fake_add(f, sv[1]);
	T_OK(fake_dump_undo(f, &e), &e);
	T_FAILS(fake_check(f, sv[1], &e), -EOPNOTSUPP);
	T_CHECK_HAS(e.msg, "without bytes");
	check_recv(sv[1], "three");
	T_FAILS(fake_check(f, sv[1], &e), -EOPNOTSUPP);
	check_recv(sv[1], "");
	T_OK(fake_check(f, sv[1], &e), &e);
	close(sv[0]), close(sv[1]), close(again[0]), close(again[1]);
	fake_free(f);
}

static int dgram(const char *name)
{
	int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	struct sockaddr_un sa;

	T_REQUIRE(!name || bind(fd, (void *)&sa, addr(&sa, name)) == 0);
	return fd;
}

static void connect_to(int fd, const char *name)
{
	struct sockaddr_un sa;

	T_REQUIRE(connect(fd, (void *)&sa, addr(&sa, name)) == 0);
}

/* a sends to b, b to c, c to nobody; d, whose name is gone, to b before; a pair whose ends have parted. */
static void test_dgram_peers(void)
{
	struct sockaddr_un sa, none = { .sun_family = AF_UNSPEC };
	int a = dgram(NULL), b = dgram("@pm-b"), c = dgram("@pm-c"), d = dgram(t_path("d")), sv[2];
	struct fake *f = fake_new();
	socklen_t len = sizeof(sa);
	char buf[8];

	T_REQUIRE(socketpair(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0, sv) == 0);
	T_REQUIRE(connect(sv[1], (void *)&none, sizeof(none.sun_family)) == 0);
	getsockopt(sv[0], SOL_SOCKET, SO_ERROR, buf, &(socklen_t){ 4 });
	connect_to(a, "@pm-b");
	connect_to(d, "@pm-b");
	T_CHECK(send(d, "d", 1, 0) == 1 && send(a, "a", 1, 0) == 1 && send(sv[0], "s", 1, 0) == 1);
	close(d);
	T_REQUIRE(unlink(t_path("d")) == 0);
	connect_to(b, "@pm-c");
	/* in an order in which none can just be connected */
	fake_add(f, b), fake_add(f, sv[1]), fake_add(f, a), fake_add(f, c), fake_add(f, sv[0]);
	fake_move(f);
	T_CHECK_EQ(recvfrom(b, buf, sizeof(buf), MSG_DONTWAIT, (void *)&sa, &len), 1);
	T_CHECK(buf[0] == 'd' && !strcmp(sa.sun_path, t_path("d")));
	check_recv(b, "a");
	check_name(a, true, "@pm-b");
	check_name(b, true, "@pm-c");
	check_recv(sv[1], "s");
	T_CHECK(getpeername(sv[1], (void *)&sa, &len) < 0 && errno == ENOTCONN);
	T_CHECK(send(sv[0], "t", 1, 0) == 1 && send(b, "b", 1, 0) == 1);
	check_recv(sv[1], "t");
	check_recv(c, "b");
	T_CHECK(send(a, "x", 1, MSG_DONTWAIT) == -1 && errno == EPERM);
	close(a), close(b), close(c), close(sv[0]), close(sv[1]);
	fake_free(f);
}

/* What an image may not say. */
static void hostile(struct fake *f, const struct kind *k, Pm__BodyUnix *m)
{
	Pm__Object msg = PM__OBJECT__INIT;
	struct robject o = { .msg = &msg, .kind = k, .body = &m->base, .fd = -1 };
	struct err e = { 0 };

	T_FAILS(k->restore((struct restore *)(void *)f, &o, &e), -EBADMSG);
	T_CHECK_EQ(o.fd, -1);
}

static void test_hostile(void)
{
	static uint8_t big[4096];
	struct fake *f = fake_new();
	Pm__BodyUnix m = PM__BODY_UNIX__INIT;
	Pm__UnixMsg one = PM__UNIX_MSG__INIT, *queue[] = { &one };

	m.sock_type = SOCK_DGRAM;
	m.state = 7;
	m.queue = queue;
	m.n_queue = 1;
	one.from = (ProtobufCBinaryData){ sizeof(big), big };
	hostile(f, &kind_unix_dgram, &m);
	one.from.len = 0;
	one.data = (ProtobufCBinaryData){ 65u << 20, big };
	hostile(f, &kind_unix_dgram, &m);
	one.data.len = 1;
	m.n_queue = 70000;
	hostile(f, &kind_unix_dgram, &m);
	m.n_queue = 0;
	m.data = (ProtobufCBinaryData){ 5, big };
	hostile(f, &kind_unix_dgram, &m);
	m.data.len = 0;
	hostile(f, &kind_unix, &m);
	m.sock_type = SOCK_SEQPACKET;
	m.state = 1;
	hostile(f, &kind_unix, &m); /* connected with nobody */
	m.state = 10;
	hostile(f, &kind_unix_dgram, &m);
	fake_free(f);
}

static void test_filter(void)
{
	struct fake *f = fake_new();
	struct sock_filter code[2] = { { 0x30, 0, 0, 0 }, { 0x06, 0, 0, 7 } }, got[4];
	struct sock_fprog prog = { 2, code };
	Pm__SockFilter *none = NULL, *m = NULL, bad = PM__SOCK_FILTER__INIT;
	struct err e = { 0 };
	int a = dgram(NULL), b = dgram(NULL), on = 1;
	socklen_t len = ARRAY_SIZE(got);
	static uint8_t zeros[8 * 4097];

	T_OK(kind_filter_get((void *)f, a, &none, &e), &e);
	T_CHECK(!none);
	T_REQUIRE(setsockopt(a, SOL_SOCKET, SO_ATTACH_FILTER, &prog, sizeof(prog)) == 0);
	T_REQUIRE(setsockopt(a, SOL_SOCKET, SO_LOCK_FILTER, &on, sizeof(on)) == 0);
	T_OK(kind_filter_get((void *)f, a, &m, &e), &e);
	T_REQUIRE(m);
	T_OK(kind_filter_set(b, m, &e), &e);
	T_CHECK(getsockopt(b, SOL_SOCKET, SO_GET_FILTER, got, &len) == 0 && len == 2 && !memcmp(got, code, sizeof(code)));
	T_CHECK(setsockopt(b, SOL_SOCKET, SO_DETACH_FILTER, &on, sizeof(on)) < 0 && errno == EPERM);
	/* what an image may say */
	close(b);
	b = dgram(NULL);
	bad.prog.data = zeros;
	for (size_t n = 7; n <= sizeof(zeros); n += sizeof(zeros) - 7) {
		bad.prog.len = n;
		T_FAILS(kind_filter_set(b, &bad, &e), -EBADMSG);
	}
	bad.prog.len = 8; /* the kernel's word: it does not return */
	T_FAILS(kind_filter_set(b, &bad, &e), -EINVAL);
	close(a);
	close(b);
	fake_free(f);
}

static void test_refusals(void)
{
	struct fake *f = fake_new();
	struct sock_filter code = { 0x06, 0, 0, 0xffff };
	struct sock_fprog prog = { 1, &code };
	struct err e = { 0 };
	int l, w, dg = dgram(NULL);

	T_REQUIRE(setsockopt(dg, SOL_SOCKET, SO_ATTACH_FILTER, &prog, sizeof(prog)) == 0);
	T_OK(fake_check(f, dg, &e), &e);
	fake_free(f);

	f = fake_new();
	l = listener(t_path("s"), 3);
	w = client(t_path("s"));
	T_CHECK_EQ(send(w, "early", 5, 0), 5);
	fake_add(f, l);
	fake_add(f, w);
	T_FAILS(fake_dump_undo(f, &e), -EAGAIN);
	T_CHECK_HAS(e.msg, "accept queue holds data");
	close(l);
	close(w);
	close(dg);
	fake_free(f);
}

static const struct test_case cases[] = {
	{ "pair", test_pair },
	{ "full_queues", test_full_queues },
	{ "dead_and_outside", test_dead_and_outside },
	{ "halves", test_halves },
	{ "server_path", test_server_path },
	{ "server_abstract", test_server_abstract },
	{ "relative_and_modes", test_relative_and_modes },
	{ "bound_client", test_bound_client },
	{ "rights_stream", test_rights_stream },
	{ "rights_seqpacket", test_rights_seqpacket },
	{ "rights_dgram", test_rights_dgram },
	{ "no_bytes", test_no_bytes },
	{ "dgram_peers", test_dgram_peers },
	{ "hostile", test_hostile },
	{ "filter", test_filter },
	{ "refusals", test_refusals },
};
const struct test_suite kind_unix_suite = { "kind_unix", cases, ARRAY_SIZE(cases) };
