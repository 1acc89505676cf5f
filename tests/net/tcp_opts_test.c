/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Sockets of IPv6 and with every option are moved between two namespaces, and what an application can see of them is the
 * same afterwards; what cannot be carried is refused, and what is carried back stays as it was.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "tests/net/ends.h"

/* ---- IPv6 */

static int listen6(struct world *w, const char *ip, uint16_t port, int v6only)
{
	struct sockaddr_in6 a = {.sin6_family = AF_INET6, .sin6_port = htons(port)};
	struct err e = {0};
	int fd;

	T_REQUIRE(inet_pton(AF_INET6, ip, &a.sin6_addr) == 1);
	T_OK(fd = netns_socket(w->at->ns, AF_INET6, SOCK_STREAM, 0, &e), &e);
	T_REQUIRE(setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &v6only, sizeof(v6only)) == 0);
	T_REQUIRE(bind(fd, (struct sockaddr *)&a, sizeof(a)) == 0);
	T_REQUIRE(listen(fd, 8) == 0);
	return fd;
}

static int connect6(struct world *w, uint16_t port)
{
	struct sockaddr_in6 a = {.sin6_family = AF_INET6, .sin6_port = htons(port),
				 .sin6_addr = IN6ADDR_LOOPBACK_INIT};
	struct err e = {0};
	int fd;

	T_OK(fd = netns_socket(w->at->ns, AF_INET6, SOCK_STREAM, 0, &e), &e);
	T_REQUIRE(connect(fd, (struct sockaddr *)&a, sizeof(a)) == 0);
	return fd;
}

static void check_name(int fd, bool peer, const char *want, uint16_t port)
{
	struct sockaddr_in6 a = {0};
	socklen_t len = sizeof(a);
	char text[INET6_ADDRSTRLEN];

	T_REQUIRE((peer ? getpeername : getsockname)(fd, (struct sockaddr *)&a, &len) == 0);
	T_CHECK_EQ(a.sin6_family, AF_INET6);
	T_CHECK_STR(inet_ntop(AF_INET6, &a.sin6_addr, text, sizeof(text)), want);
	if (port)
		T_CHECK_EQ(ntohs(a.sin6_port), port);
}

/* A listener on :: and its clients, who speak IPv4; beside it one for IPv6 alone, with an IPv4 listener
 * at the same port. */
static void test_dual_stack(void)
{
	uint32_t a = 0, b = 0, c = 0, d = 0;
	struct tcp_unheld u;
	int fds[6], q[3], i, diag;
	struct err e = {0};
	struct world w;

	world_init(&w);
	fds[0] = listen6(&w, "::", 7000, 0);
	fds[4] = listen6(&w, "::", 7001, 1);
	fds[5] = world_listen(w.at->ns, "0.0.0.0", 7001, 8);
	for (i = 0; i < 3; i++) {
		q[i] = world_connect(w.peer, POD_IP, 7000);
		if (i == 2) {
			T_OK(diag = tcp_unheld_open(w.at->ns, &e), &e);
			T_OK(tcp_unheld(diag, &u, &e), &e);
			T_CHECK_EQ(u.half_open, 1);
			close(diag);
		}
		fds[1 + i] = world_accept(fds[0]);
	}
	T_REQUIRE(shutdown(q[1], SHUT_WR) == 0);
	wait_state(fds[2], TCP_CLOSE_WAIT);
	T_REQUIRE(shutdown(fds[3], SHUT_WR) == 0);
	wait_state(fds[3], TCP_FIN_WAIT2);
	for (i = 0; i < 2; i++) {
		T_CHECK_EQ(offer(q[0], &a, 70000), 70000);
		T_CHECK_EQ(offer(fds[1], &c, 70000), 70000);
		move(&w, fds, 6);
		T_CHECK_EQ(expect(fds[1], &b, 70000), 70000);
		T_CHECK_EQ(expect(q[0], &d, 70000), 70000);
		check_name(fds[0], false, "::", 7000);
		check_name(fds[1], false, "::ffff:" POD_IP, 7000);
		check_name(fds[1], true, "::ffff:" PEER_IP, 0);
		T_CHECK_EQ(tcp_state_of(fds[2]), TCP_CLOSE_WAIT);
		T_CHECK_EQ(tcp_state_of(fds[3]), TCP_FIN_WAIT2);
	}
	for (i = 0; i < 3; i++) {
		close(fds[1 + i]);
		close(q[i]);
	}
	q[0] = world_connect(w.peer, POD_IP, 7000);
	fds[1] = world_accept(fds[0]);
	q[1] = world_connect(w.peer, POD_IP, 7001);
	fds[2] = world_accept(fds[5]);
	q[2] = connect6(&w, 7001);
	fds[3] = world_accept(fds[4]);
	check_name(fds[3], true, "::1", 0);
	for (i = 0; i < 6; i++)
		close(fds[i]);
	for (i = 0; i < 3; i++)
		close(q[i]);
	world_done(&w);
}

/* Connections over ::1, in all states that need a segment of the peer's. */
static void test_loopback6(void)
{
	uint32_t a = 0, b = 0, c = 0, d = 0, n;
	int fds[9], i;
	struct world w;
	char x;

	world_init(&w);
	fds[0] = listen6(&w, "::1", 7000, 0);
	for (i = 0; i < 4; i++) {
		fds[1 + 2 * i] = connect6(&w, 7000);
		fds[2 + 2 * i] = world_accept(fds[0]);
	}
	T_REQUIRE(shutdown(fds[3], SHUT_WR) == 0); /* FIN_WAIT2, CLOSE_WAIT */
	n = 0;
	T_CHECK_EQ(offer(fds[5], &n, 500), 500);
	T_REQUIRE(shutdown(fds[5], SHUT_WR) == 0);
	T_REQUIRE(shutdown(fds[6], SHUT_WR) == 0); /* over */
	n = 0;
	T_CHECK(offer(fds[7], &n, 50 << 20) > 100000);
	for (i = 0; i < 2; i++) {
		T_CHECK_EQ(offer(fds[1], &a, 70000), 70000);
		T_CHECK_EQ(offer(fds[2], &c, 70000), 70000);
		move(&w, fds, 9);
		check_name(fds[0], false, "::1", 7000);
		check_name(fds[1], true, "::1", 7000);
		T_CHECK_EQ(expect(fds[2], &b, 70000), 70000);
		T_CHECK_EQ(expect(fds[1], &d, 70000), 70000);
		T_CHECK_EQ(tcp_state_of(fds[3]), TCP_FIN_WAIT2);
		T_CHECK_EQ(tcp_state_of(fds[4]), TCP_CLOSE_WAIT);
	}
	a = b = 0;
	T_CHECK_EQ(offer(fds[4], &a, 900), 900);
	T_CHECK_EQ(expect(fds[3], &b, 900), 900);
	b = 0;
	T_CHECK_EQ(expect(fds[6], &b, -1), 500);
	T_CHECK_EQ(recv(fds[5], &x, 1, 0), 0);
	T_REQUIRE(shutdown(fds[7], SHUT_WR) == 0);
	b = 0;
	T_CHECK_EQ(expect(fds[8], &b, -1), n);
	i = connect6(&w, 7000);
	close(i);
	for (i = 0; i < 9; i++)
		close(fds[i]);
	world_done(&w);
}

/* ---- options */

static const struct {
	const char *text;
	int level, name, val;
} opts[] = {
	{"SO_REUSEADDR", SOL_SOCKET, SO_REUSEADDR, 1},
	{"SO_REUSEPORT", SOL_SOCKET, SO_REUSEPORT, 1},
	{"SO_KEEPALIVE", SOL_SOCKET, SO_KEEPALIVE, 1},
	{"SO_OOBINLINE", SOL_SOCKET, SO_OOBINLINE, 1},
	{"SO_PRIORITY", SOL_SOCKET, SO_PRIORITY, 5},
	{"SO_RCVLOWAT", SOL_SOCKET, SO_RCVLOWAT, 9},
	{"SO_MARK", SOL_SOCKET, SO_MARK, 17},
	{"SO_DONTROUTE", SOL_SOCKET, SO_DONTROUTE, 1},
	{"SO_RCVBUF", SOL_SOCKET, SO_RCVBUF, 70000},
	{"SO_SNDBUF", SOL_SOCKET, SO_SNDBUF, 60000},
	{"SO_MAX_PACING_RATE", SOL_SOCKET, SO_MAX_PACING_RATE, 1 << 30},
	{"IP_TOS", IPPROTO_IP, IP_TOS, 0x10},
	{"IP_TTL", IPPROTO_IP, IP_TTL, 33},
	{"IP_MTU_DISCOVER", IPPROTO_IP, IP_MTU_DISCOVER, IP_PMTUDISC_PROBE},
	{"IP_FREEBIND", IPPROTO_IP, IP_FREEBIND, 1},
	{"IP_TRANSPARENT", IPPROTO_IP, IP_TRANSPARENT, 1},
	{"TCP_NODELAY", IPPROTO_TCP, TCP_NODELAY, 1},
	{"TCP_CORK", IPPROTO_TCP, TCP_CORK, 1},
	{"TCP_KEEPIDLE", IPPROTO_TCP, TCP_KEEPIDLE, 77},
	{"TCP_KEEPINTVL", IPPROTO_TCP, TCP_KEEPINTVL, 7},
	{"TCP_KEEPCNT", IPPROTO_TCP, TCP_KEEPCNT, 3},
	{"TCP_USER_TIMEOUT", IPPROTO_TCP, TCP_USER_TIMEOUT, 12345},
	{"TCP_SYNCNT", IPPROTO_TCP, TCP_SYNCNT, 3},
	{"TCP_LINGER2", IPPROTO_TCP, TCP_LINGER2, 11},
	{"TCP_NOTSENT_LOWAT", IPPROTO_TCP, TCP_NOTSENT_LOWAT, 40000},
	{"TCP_INQ", IPPROTO_TCP, TCP_INQ, 1},
};

static void check_options(int fd, const int *want, const char *what)
{
	struct linger lg = {0};
	struct timeval tv = {0};
	char cc[16] = "";
	socklen_t len;
	size_t i;
	int v;

	for (i = 0; i < ARRAY_SIZE(opts); i++) {
		len = sizeof(v);
		T_REQUIRE(getsockopt(fd, opts[i].level, opts[i].name, &v, &len) == 0);
		if (v != want[i])
			T_FAIL("%s socket: %s is %d, was %d", what, opts[i].text, v, want[i]);
	}
	len = sizeof(lg);
	T_REQUIRE(getsockopt(fd, SOL_SOCKET, SO_LINGER, &lg, &len) == 0);
	T_CHECK(lg.l_onoff == 1 && lg.l_linger == 5);
	len = sizeof(tv);
	T_REQUIRE(getsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &tv, &len) == 0);
	T_CHECK_EQ(tv.tv_sec, 44);
	len = sizeof(cc);
	T_REQUIRE(getsockopt(fd, IPPROTO_TCP, TCP_CONGESTION, cc, &len) == 0);
	T_CHECK_STR(cc, "reno");
	T_CHECK(fcntl(fd, F_GETFL) & O_NONBLOCK);
}

static void set_options(int fd, int *want)
{
	struct linger lg = {1, 5};
	struct timeval tv = {44, 0};
	socklen_t len;
	size_t i;

	for (i = 0; i < ARRAY_SIZE(opts); i++) {
		if (setsockopt(fd, opts[i].level, opts[i].name, &opts[i].val, sizeof(int)) < 0)
			T_FATAL("%s: %s", opts[i].text, strerror(errno));
	}
	for (i = 0; i < ARRAY_SIZE(opts); i++) {
		len = sizeof(int);
		T_REQUIRE(getsockopt(fd, opts[i].level, opts[i].name, &want[i], &len) == 0);
	}
	T_REQUIRE(setsockopt(fd, SOL_SOCKET, SO_LINGER, &lg, sizeof(lg)) == 0);
	T_REQUIRE(setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof(tv)) == 0);
	T_REQUIRE(setsockopt(fd, IPPROTO_TCP, TCP_CONGESTION, "reno", 4) == 0);
	T_REQUIRE(fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK) == 0);
}

/* Listening, fresh and connected sockets with every option; and a connection with none of them,
 * whose buffers stay the kernel's to tune. */
static void test_options(void)
{
	int want[3][ARRAY_SIZE(opts)], fds[4], q[2], i, v, lock0, round;
	struct linger off = {0};
	struct err e = {0};
	struct world w;
	socklen_t len = sizeof(v);

	world_init(&w);
	fds[0] = world_listen(w.at->ns, POD_IP, 7000, 8);
	q[0] = world_connect(w.peer, POD_IP, 7000);
	fds[1] = world_accept(fds[0]);
	q[1] = world_connect(w.peer, POD_IP, 7000);
	fds[3] = world_accept(fds[0]);
	T_OK(fds[2] = netns_socket(w.at->ns, AF_INET, SOCK_STREAM, 0, &e), &e);
	for (i = 0; i < 3; i++)
		set_options(fds[i], want[i]);
	T_REQUIRE(getsockopt(fds[3], SOL_SOCKET, 72 /* SO_BUF_LOCK */, &lock0, &len) == 0);
	for (round = 0; round < 2; round++) {
		move(&w, fds, 4);
		check_options(fds[0], want[0], "listening");
		check_options(fds[1], want[1], "connected");
		check_options(fds[2], want[2], "fresh");
		T_REQUIRE(getsockopt(fds[3], SOL_SOCKET, 72, &v, &len) == 0);
		T_CHECK_EQ(v, lock0);
		T_REQUIRE(getsockopt(fds[3], SOL_SOCKET, SO_KEEPALIVE, &v, &len) == 0);
		T_CHECK_EQ(v, 0);
	}
	for (i = 0; i < 4; i++) {
		setsockopt(fds[i], SOL_SOCKET, SO_LINGER, &off, sizeof(off));
		close(fds[i]);
	}
	close(q[0]);
	close(q[1]);
	world_done(&w);
}

/* ---- refusals, and an undo that leaves the socket as it was */

static void test_refusals(void)
{
	struct sock_filter {
		uint16_t c;
		uint8_t t, f;
		uint32_t k;
	} all = {0x06, 0, 0, 0xffffffff};
	struct {
		uint16_t n;
		void *p;
	} prog = {1, &all};
	struct sockaddr_in6 far = {.sin6_family = AF_INET6};
	struct err e = {0};
	struct world w;
	int p, q, u, one = 1;

	T_REQUIRE(inet_pton(AF_INET6, "2001:db8::1", &far.sin6_addr) == 1);
	world_init(&w);
	pair(&w, 7000, &p, &q);
	T_CHECK_EQ(tcp_check(p, &e), 0);
	T_REQUIRE(send(q, "u", 1, MSG_OOB) == 1);
	{
		struct pollfd pf = {.fd = p, .events = POLLPRI};

		T_REQUIRE(poll(&pf, 1, 60000) == 1);
	}
	T_FAILS(tcp_check(p, &e), -EOPNOTSUPP);
	T_CHECK_HAS(e.msg, "urgent");
	T_REQUIRE(setsockopt(q, SOL_SOCKET, SO_ATTACH_FILTER, &prog, sizeof(prog)) == 0);
	T_OK(tcp_check(q, &e), &e); /* carried as any socket's */
	T_OK(u = netns_socket(w.peer, AF_INET, SOCK_STREAM, 0, &e), &e);
	T_REQUIRE(setsockopt(u, SOL_SOCKET, SO_ZEROCOPY, &one, sizeof(one)) == 0);
	T_FAILS(tcp_check(u, &e), -EOPNOTSUPP);
	T_CHECK_HAS(e.msg, "SO_ZEROCOPY");
	close(u);
	T_OK(u = netns_socket(w.peer, AF_INET6, SOCK_STREAM, 0, &e), &e);
	T_OK(tcp_check(u, &e), &e);
	T_REQUIRE(setsockopt(u, IPPROTO_IPV6, IPV6_FREEBIND, &one, sizeof(one)) == 0);
	T_REQUIRE(bind(u, (struct sockaddr *)&far, sizeof(far)) == 0);
	T_FAILS(tcp_check(u, &e), -EOPNOTSUPP);
	T_CHECK_HAS(e.msg, "2001:db8::1");
	close(u);
	u = netns_socket(w.peer, AF_INET, SOCK_STREAM, IPPROTO_MPTCP, &e);
	if (u >= 0) {
		T_FAILS(tcp_check(u, &e), -EOPNOTSUPP);
		T_CHECK_HAS(e.msg, "multipath");
		close(u);
	}
	T_OK(u = netns_socket(w.peer, AF_INET, SOCK_DGRAM, 0, &e), &e);
	T_FAILS(tcp_check(u, &e), -EOPNOTSUPP);
	close(u);
	close(p);
	close(q);
	world_done(&w);
}

static void test_undo(void)
{
	uint32_t a = 0, b = 0, c = 0, d = 0;
	struct move_times t;
	struct world w;
	int p, q, v, i, quick = 0;
	socklen_t len = sizeof(v);
	uint64_t t0;

	world_init(&w);
	pair(&w, 7000, &p, &q);
	v = 1;
	T_REQUIRE(setsockopt(p, SOL_SOCKET, SO_REUSEADDR, &v, sizeof(v)) == 0);
	for (i = 0; i < 5; i++) {
		T_CHECK_EQ(offer(q, &a, 4000), 4000);
		T_CHECK_EQ(offer(p, &c, 4000), 4000);
		world_move(&w, &p, 1, &(struct move_opts){.abort = true}, &t, NULL, NULL);
		t0 = now_ns();
		T_CHECK_EQ(expect(p, &b, 4000), 4000);
		T_CHECK_EQ(expect(q, &d, 4000), 4000);
		quick += ms_since(t0) < 150;
		T_REQUIRE(getsockopt(p, SOL_SOCKET, SO_REUSEADDR, &v, &len) == 0);
		T_CHECK_EQ(v, 1);
		T_REQUIRE(getsockopt(p, IPPROTO_TCP, TCP_REPAIR, &v, &len) == 0);
		T_CHECK_EQ(v, 0);
		v = 1;
	}
	T_CHECK(quick >= 3); /* most: the machine may be slow in one, a retransmission would be slow in all */
	close(p);
	close(q);
	world_done(&w);
}

/* What an image may say: lies are refused before they reach the kernel. */
static void test_hostile_state(void)
{
	struct tcp_state s = {.state = TCP_CLOSE, .local = {.sin_family = AF_INET}};
	struct err e = {0};
	struct world w;
	int r;

	world_init(&w);
	s.nopt = 65;
	T_FAILS(tcp_restore(w.a.ns, &s, &e), -EPROTO);
	s.nopt = 1;
	s.opt[0].level = SOL_SOCKET;
	s.opt[0].name = SO_ATTACH_FILTER;
	s.opt[0].len = 4;
	T_FAILS(tcp_restore(w.a.ns, &s, &e), -EPROTO);
	s.opt[0].name = SO_KEEPALIVE;
	s.opt[0].len = 1000;
	T_FAILS(tcp_restore(w.a.ns, &s, &e), -EPROTO);
	s.nopt = 0;
	s.snd_len = 10;
	T_FAILS(tcp_restore(w.a.ns, &s, &e), -EPROTO);
	s.snd_len = 0;
	s.snd_unsent = 5;
	T_FAILS(tcp_restore(w.a.ns, &s, &e), -EPROTO);
	s.snd_unsent = 0;
	s.state = 99;
	T_FAILS(tcp_restore(w.a.ns, &s, &e), -EOPNOTSUPP);
	s.state = TCP_CLOSE;
	s.local.sin_family = AF_INET6;
	T_FAILS(tcp_restore(w.a.ns, &s, &e), -EPROTO);
	s.local.sin_family = AF_INET;
	s.sndbuf = s.rcvbuf = 50000;
	r = tcp_restore(w.a.ns, &s, &e);
	T_OK(r, &e);
	close(r);
	world_done(&w);
}

static const struct test_case cases[] = {
	{"dual_stack", test_dual_stack},
	{"loopback6", test_loopback6},
	{"options", test_options},
	{"refusals", test_refusals},
	{"undo", test_undo},
	{"hostile_state", test_hostile_state},
};

const struct test_suite tcp_opts_suite = {"tcp_opts", cases, ARRAY_SIZE(cases)};
