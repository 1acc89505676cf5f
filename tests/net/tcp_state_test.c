/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Sockets in every state are moved between two namespaces, and what an
 * application can see of them is the same afterwards.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/sock_diag.h>
#include <poll.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "tests/net/ends.h"

static const struct move_opts plain;

/* ---- closing states; x: who has closed, what is still queued */

static void test_peer_closed(void)
{
	uint32_t a = 0, b = 0, c = 0, d = 0;
	struct world w;
	int p, q, round;

	world_init(&w);
	pair(&w, 7000, &p, &q);
	T_CHECK_EQ(offer(q, &a, 5000), 5000);
	T_REQUIRE(shutdown(q, SHUT_WR) == 0);
	wait_state(p, TCP_CLOSE_WAIT);
	for (round = 0; round < 2; round++) { /* with the FIN unread, then read */
		move(&w, &p, 1);
		T_CHECK_EQ(tcp_state_of(p), TCP_CLOSE_WAIT);
		if (round == 0)
			T_CHECK_EQ(expect(p, &b, -1), 5000);
		T_CHECK_EQ(offer(p, &c, 3000), 3000);
		T_CHECK_EQ(expect(q, &d, 3000), 3000);
	}
	/* our FIN, unacknowledged by nobody: LAST_ACK is over at once */
	T_REQUIRE(shutdown(p, SHUT_WR) == 0);
	T_CHECK_EQ(expect(q, &d, -1), 0);
	close(p);
	close(q);
	world_done(&w);
}

static void test_pod_closed(void)
{
	uint32_t a = 0, b = 0, c = 0, d = 0;
	struct world w;
	int p, q;

	world_init(&w);
	pair(&w, 7000, &p, &q);
	T_CHECK_EQ(offer(p, &a, 5000), 5000);
	T_REQUIRE(shutdown(p, SHUT_WR) == 0);
	T_CHECK_EQ(expect(q, &b, -1), 5000);
	wait_state(p, TCP_FIN_WAIT2);
	move(&w, &p, 1);
	T_CHECK_EQ(tcp_state_of(p), TCP_FIN_WAIT2);
	T_CHECK(send(p, "x", 1, MSG_NOSIGNAL | MSG_DONTWAIT) < 0 && errno == EPIPE);
	T_CHECK_EQ(offer(q, &c, 7000), 7000);
	T_CHECK_EQ(expect(p, &d, 7000), 7000);
	move(&w, &p, 1);
	close(q);
	T_CHECK_EQ(expect(p, &d, -1), 0);
	close(p);
	world_done(&w);
}

/* The peer does not read: the pod's FIN waits behind data that no window admits. */
static void test_fin_behind_full_window(void)
{
	uint32_t a = 0, b = 0;
	struct world w;
	long sent, more;
	int p, q, i;

	world_init(&w);
	pair(&w, 7000, &p, &q);
	sent = offer(p, &a, 100 << 20);
	T_CHECK(sent > 100000);
	move(&w, &p, 1);
	more = offer(p, &a,
		     1 << 20); /* the peer's window opens a little when its kernel collapses */
	T_REQUIRE(shutdown(p, SHUT_WR) == 0);
	for (i = 0; i < 3; i++) {
		T_CHECK_EQ(tcp_state_of(p), TCP_FIN_WAIT1);
		move(&w, &p, 1);
	}
	T_CHECK_EQ(expect(q, &b, -1), sent + more);
	close(p);
	close(q);
	world_done(&w);
}

static void test_both_closed_unacked(void)
{
	uint32_t a = 0, b = 0, c = 0, d = 0;
	struct world w;
	long sent;
	int p, q;

	world_init(&w);
	pair(&w, 7000, &p, &q);
	sent = offer(p, &a, 100 << 20); /* nobody reads, so our FIN stays behind it */
	T_REQUIRE(shutdown(p, SHUT_WR) == 0);
	T_CHECK_EQ(offer(q, &c, 999), 999);
	T_REQUIRE(shutdown(q, SHUT_WR) == 0);
	wait_state(p, TCP_CLOSING);
	move(&w, &p, 1);
	/* the unsent FIN is sent after the peer's now, which is LAST_ACK; on the wire it is the
	 * same */
	T_CHECK(tcp_state_of(p) == TCP_LAST_ACK || tcp_state_of(p) == TCP_CLOSING);
	T_CHECK_EQ(expect(p, &d, -1), 999);
	T_CHECK_EQ(expect(q, &b, -1), sent);
	close(p);
	close(q);
	world_done(&w);
}

static void test_shut_rd(void)
{
	uint32_t a = 0, b = 0;
	struct world w;
	int p, q;
	char c;

	world_init(&w);
	pair(&w, 7000, &p, &q);
	T_REQUIRE(shutdown(p, SHUT_RD) == 0);
	move(&w, &p, 1);
	T_CHECK_EQ(recv(p, &c, 1, MSG_DONTWAIT), 0);
	T_CHECK_EQ(tcp_state_of(p), TCP_ESTABLISHED);
	T_CHECK_EQ(offer(p, &a, 100), 100);
	T_CHECK_EQ(expect(q, &b, 100), 100);
	close(p);
	close(q);
	world_done(&w);
}

/* Connections that are over: the rest can be read, then the end; an error that nobody has seen yet
 * is seen. */
static void test_dead(void)
{
	struct linger reset = {1, 0};
	uint32_t a = 0, b = 0;
	int p[2], q[2], i, v;
	struct pollfd pf;
	socklen_t len = sizeof(v);
	struct world w;
	char c;

	world_init(&w);
	for (i = 0; i < 2; i++)
		pair(&w, (uint16_t)(7000 + i), &p[i], &q[i]);
	T_CHECK_EQ(offer(q[0], &a, 5000), 5000);
	T_REQUIRE(shutdown(q[0], SHUT_WR) == 0);
	wait_state(p[0], TCP_CLOSE_WAIT);
	T_REQUIRE(shutdown(p[0], SHUT_WR) == 0);
	T_REQUIRE(setsockopt(q[1], SOL_SOCKET, SO_LINGER, &reset, sizeof(reset)) == 0);
	close(q[1]);
	for (i = 0; i < 2; i++)
		wait_state(p[i], TCP_CLOSE);
	for (i = 0; i < 2; i++)
		move(&w, p, 2);
	T_CHECK_EQ(expect(p[0], &b, -1), 5000);
	T_CHECK_EQ(recv(p[0], &c, 1, 0), 0);
	T_CHECK(send(p[0], &c, 1, MSG_NOSIGNAL) < 0 && errno == EPIPE);
	pf = (struct pollfd){.fd = p[1], .events = POLLIN};
	T_CHECK_EQ(poll(&pf, 1, 0), 1);
	T_CHECK(pf.revents & POLLERR);
	T_REQUIRE(getsockopt(p[1], SOL_SOCKET, SO_ERROR, &v, &len) == 0);
	T_CHECK_EQ(v, ECONNRESET);
	T_CHECK_EQ(recv(p[1], &c, 1, 0), 0);
	close(p[0]);
	close(p[1]);
	close(q[0]);
	world_done(&w);
}

/* Both ends in the pod, over lo; the one that does not read has a small buffer that it has set. What
 * waits goes on at once when it reads at last. */
static void test_full_on_loopback(void)
{
	int l, fds[2], v, i;
	uint32_t a = 0, b = 0;
	struct world w;
	uint64_t t0;
	long sent;

	world_init(&w);
	l = world_listen(w.at->ns, "127.0.0.1", 7000, 8);
	v = 20000;
	T_REQUIRE(setsockopt(l, SOL_SOCKET, SO_RCVBUF, &v, sizeof(v)) == 0);
	fds[0] = world_connect(w.at->ns, "127.0.0.1", 7000);
	fds[1] = world_accept(l);
	close(l);
	v = 100000;
	T_REQUIRE(setsockopt(fds[0], SOL_SOCKET, SO_SNDBUF, &v, sizeof(v)) == 0);
	sent = offer(fds[0], &a, 100 << 20);
	T_REQUIRE(shutdown(fds[0], SHUT_WR) == 0);
	for (i = 0; i < 4; i++) {
		T_CHECK_EQ(tcp_state_of(fds[0]), TCP_FIN_WAIT1);
		move(&w, fds, 2);
	}
	t0 = now_ns();
	T_CHECK_EQ(expect(fds[1], &b, -1), sent);
	T_CHECK(ms_since(t0) < 1500);
	close(fds[0]);
	close(fds[1]);
	world_done(&w);
}

/* A delayed acknowledgement must not be answered with a reset because the other end, which is in the
 * pod, too, has not been made yet. */
static void test_slow_restore(void)
{
	struct pollfd pf = {.events = 0};
	struct tcp_state st[2];
	struct err e = {0};
	struct world w;
	int l, old[2], fds[2], i;
	uint32_t a = 0, b = 0;

	world_init(&w);
	l = world_listen(w.at->ns, "127.0.0.1", 7000, 8);
	old[0] = world_connect(w.at->ns, "127.0.0.1", 7000);
	old[1] = world_accept(l);
	close(l);
	T_CHECK_EQ(offer(old[1], &a, 3000), 3000);
	T_REQUIRE(shutdown(old[1], SHUT_WR) == 0);
	wait_state(old[0], TCP_CLOSE_WAIT);
	for (i = 0; i < 2; i++) {
		T_OK(tcp_save(old[i], &st[i], &e), &e);
		T_OK(fds[i] = tcp_restore(w.b.ns, &st[i], &e), &e);
		pf.fd = fds[i];
		T_CHECK_EQ(poll(&pf, 1, 150), 0); /* no POLLERR, no POLLHUP */
	}
	for (i = 0; i < 2; i++) {
		T_OK(tcp_release(fds[i], &st[i], &e), &e);
		tcp_state_done(&st[i]);
	}
	T_CHECK_EQ(tcp_state_of(fds[0]), TCP_CLOSE_WAIT);
	T_CHECK_EQ(tcp_state_of(fds[1]), TCP_FIN_WAIT2);
	T_CHECK_EQ(expect(fds[0], &b, -1), 3000);
	a = b = 0;
	T_CHECK_EQ(offer(fds[0], &a, 500), 500);
	T_CHECK_EQ(expect(fds[1], &b, 500), 500);
	for (i = 0; i < 2; i++) {
		close(old[i]);
		close(fds[i]);
	}
	world_done(&w);
}

static int mss_of(int fd)
{
	int v = -1;
	socklen_t len = sizeof(v);

	T_REQUIRE(getsockopt(fd, IPPROTO_TCP, TCP_MAXSEG, &v, &len) == 0);
	return v;
}

/* TCP_MAXSEG of a socket without a connection may show the segment size of the one it had, over lo
 * one that cannot be set. What the program has set is carried, in SYN_SENT too. */
static void test_segment_size_set(void)
{
	struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(7001)};
	int l, p[5], k, v = 1000;
	struct filter *f;
	struct err e = {0};
	struct world w;
	char c;

	world_init(&w);
	l = world_listen(w.at->ns, "127.0.0.1", 7000, 8);
	p[0] = world_connect(w.at->ns, "127.0.0.1", 7000);
	p[1] = world_accept(l);
	close(l);
	for (k = 0; k < 2; k++)
		T_REQUIRE(shutdown(p[k], SHUT_WR) == 0);
	for (k = 0; k < 2; k++)
		wait_state(p[k], TCP_CLOSE);
	T_CHECK(mss_of(p[0]) > TCP_MSS_MOST); /* or this is no test */
	p[2] = world_listen(w.at->ns, POD_IP, 7000, 8);
	for (k = 3; k < 5; k++)
		T_OK(p[k] = netns_socket(w.at->ns, AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0, &e), &e);
	for (k = 2; k < 5; k++)
		T_REQUIRE(setsockopt(p[k], IPPROTO_TCP, TCP_MAXSEG, &v, sizeof(v)) == 0);
	T_OK(filter_open(w.peer, &f, &e), &e);
	T_OK(filter_set(f, FILTER_SYN, &e), &e);
	l = world_listen(w.peer, PEER_IP, 7001, 8);
	a.sin_addr.s_addr = inet_addr(PEER_IP);
	T_REQUIRE(connect(p[4], (struct sockaddr *)&a, sizeof(a)) < 0 && errno == EINPROGRESS);
	move(&w, p, 5);
	T_CHECK_EQ(tcp_state_of(p[4]), TCP_SYN_SENT);
	T_OK(filter_set(f, FILTER_OPEN, &e), &e);
	move(&w, p, 5); /* its SYN is sent anew */
	T_CHECK_EQ(recv(p[0], &c, 1, MSG_DONTWAIT), 0);
	T_CHECK_EQ(mss_of(p[2]), 1000);
	T_CHECK_EQ(mss_of(p[3]), 1000);
	k = world_accept(l);
	T_CHECK(mss_of(k) <= 1000); /* what the SYN has said */
	close(k);
	close(l);
	for (k = 0; k < 5; k++)
		close(p[k]);
	filter_free(f);
	world_done(&w);
}

/* ---- queues and windows */

/* Both sides have written until nothing more went in, and nobody reads; over several moves. */
static void test_full_windows(void)
{
	uint32_t a = 0, b = 0, c = 0, d = 0;
	struct world w;
	int p, q, i;

	world_init(&w);
	pair(&w, 7000, &p, &q);
	for (i = 0; i < 4; i++) {
		offer(p, &a, 100 << 20);
		offer(q, &c, 100 << 20);
		move(&w, &p, 1);
	}
	T_CHECK(a > 100000 && c > 100000);
	while (b < a || d < c) {
		if (b < a && expect(q, &b, MIN(100000, (long)(a - b))) <= 0)
			break;
		if (d < c && expect(p, &d, MIN(100000, (long)(c - d))) <= 0)
			break;
	}
	T_CHECK_EQ(b, a);
	T_CHECK_EQ(d, c);
	close(p);
	close(q);
	world_done(&w);
}

#define RCV_WND_AT  (232u / 4) /* in the kernel's struct tcp_info */
#define BIG_RCVBUF  (4 << 20)
#define ROUNDS      16 /* until the window is all of that, as good as */

static int big_buffers(void *arg, struct err *e)
{
	(void)arg;
	return io_write_file("/proc/sys/net/ipv4/tcp_rmem", "4096 4194304 4194304", e);
}

/* The window that @fd has offered last; without @fd's kernel telling it the case is skipped. */
static uint32_t offered(int fd)
{
	uint32_t ti[RCV_WND_AT + 1] = {0};
	socklen_t len = sizeof(ti);

	T_REQUIRE(getsockopt(fd, IPPROTO_TCP, TCP_INFO, ti, &len) == 0);
	if (len < sizeof(ti))
		T_SKIP("a kernel that does not tell the window it has offered");
	return ti[RCV_WND_AT];
}

struct sender {
	int fd;
	uint32_t at;
};

static void send_two_mib(void *arg)
{
	struct sender *s = arg;

	T_CHECK_EQ(offer(s->fd, &s->at, 2 << 20), 2 << 20);
}

/*
 * Frames are held that take half of a large window. Their acknowledgements at the new place, which nobody hears, offer
 * anew what the buffer allows, and that must have its room in the end: a frame without is dropped, and its sender waits
 * for a timer. @early: tcp_release() before the replay.
 */
static void window_has_room(bool early)
{
	uint32_t got = 0, mem[SK_MEMINFO_VARS] = {0};
	struct sender s = {0};
	struct move_opts o = {.early_release = early, .meanwhile = send_two_mib, .meanwhile_arg = &s};
	struct move_times t;
	struct err e = {0};
	socklen_t len = sizeof(mem);
	int p, q, size = 2 * BIG_RCVBUF, i;
	struct world w;

	world_init(&w);
	T_OK(netns_run(w.a.ns, big_buffers, NULL, &e), &e);
	pair(&w, 7000, &p, &q);
	s.fd = q;
	T_REQUIRE(setsockopt(q, IPPROTO_TCP, TCP_CONGESTION, "reno", 4) == 0); /* it does not stop to grow early */
	T_REQUIRE(setsockopt(q, SOL_SOCKET, SO_SNDBUFFORCE, &size, sizeof(size)) == 0);
	for (i = 0; i < ROUNDS; i++) {
		long n = offer(q, &s.at, BIG_RCVBUF / 2);

		T_REQUIRE(expect(p, &got, n) == n);
	}
	world_move(&w, &p, 1, &o, &t, NULL, NULL);
	T_CHECK(t.held > 0);
	T_REQUIRE(getsockopt(p, SOL_SOCKET, SO_MEMINFO, mem, &len) == 0);
	printf("# %u frames held, %u in the queue, %u offered, room for %u\n", t.held, mem[SK_MEMINFO_RMEM_ALLOC],
	       offered(p), mem[SK_MEMINFO_RCVBUF]);
	T_CHECK(mem[SK_MEMINFO_RMEM_ALLOC] + offered(p) <= mem[SK_MEMINFO_RCVBUF]);
	T_CHECK_EQ(expect(p, &got, s.at - got), 2 << 20);
	T_CHECK_EQ(world_counter(w.b.ns, "TCPRcvQDrop"), 0);
	close(p);
	close(q);
	world_done(&w);
}

static void test_window_has_room(void)
{
	window_has_room(false);
}

static void test_window_has_room_early(void)
{
	window_has_room(true);
}

/*
 * A frame with data is late: it is held after the pod has heard an acknowledgement that its sender has sent later. A restored
 * socket has no use for older ones.
 */
static void test_overtaken_data(void)
{
	struct move_opts o = {.keep_syns = true};
	uint32_t sent = 0, got = 0, there = 0, come = 0;
	uint64_t end = deadline_ms(60000);
	struct filter *mute;
	struct move_times t;
	struct err e = {0};
	struct world w;
	int p, q;

	world_init(&w);
	pair(&w, 7000, &p, &q);
	T_OK(filter_set(w.a.filter, FILTER_BLOCK, &e), &e);
	T_OK(hold_only_syn(w.a.hold, false, &e), &e);
	T_CHECK_EQ(offer(q, &sent, 1000), 1000);
	T_OK(filter_set(w.a.filter, FILTER_OPEN, &e), &e);
	T_CHECK_EQ(offer(p, &there, 3000), 3000);
	T_CHECK_EQ(expect(q, &come, 3000), 3000);
	while (tcp_wire_empty(p, &e) == 0)
		T_REQUIRE(now_ns() < end);
	/* it cannot send them again */
	T_OK(filter_open(w.peer, &mute, &e), &e);
	T_OK(filter_set(mute, FILTER_BLOCK, &e), &e);
	world_move(&w, &p, 1, &o, &t, NULL, NULL);
	T_CHECK(t.held > 0);
	T_CHECK_EQ(expect(p, &got, 1000), 1000);
	filter_free(mute);
	close(p);
	close(q);
	world_done(&w);
}

/* A segment size that connect() had not negotiated yet must not stick: the window fills with full
 * segments. */
static void test_segment_size(void)
{
	struct tcp_info ti = {0};
	socklen_t len = sizeof(ti);
	uint32_t a = 0, b = 0;
	unsigned before;
	struct world w;
	int p, q;

	world_init(&w);
	pair(&w, 7000, &p, &q);
	T_REQUIRE(getsockopt(p, IPPROTO_TCP, TCP_INFO, &ti, &len) == 0);
	before = ti.tcpi_snd_mss;
	move(&w, &p, 1);
	T_CHECK_EQ(offer(p, &a, 50000), 50000);
	T_CHECK_EQ(expect(q, &b, 50000), 50000);
	T_REQUIRE(getsockopt(p, IPPROTO_TCP, TCP_INFO, &ti, &len) == 0);
	T_CHECK_EQ(ti.tcpi_snd_mss, before);
	T_CHECK(ti.tcpi_options & TCPI_OPT_TIMESTAMPS && ti.tcpi_options & TCPI_OPT_SACK &&
		ti.tcpi_options & TCPI_OPT_WSCALE);
	close(p);
	close(q);
	world_done(&w);
}

static void test_thousand(void)
{
	enum { N = 1000 };
	int *p = calloc(N + 1, sizeof(*p)), *q = calloc(N, sizeof(*q)), i, round;
	uint32_t out[2] = {0}, in[2] = {0};
	struct rlimit rl = {8192, 8192};
	struct move_times t;
	struct world w;
	uint64_t t0;

	T_REQUIRE(p && q);
	if (setrlimit(RLIMIT_NOFILE, &rl) < 0)
		T_SKIP("needs 8192 file descriptors");
	world_init(&w);
	p[N] = world_listen(w.at->ns, POD_IP, 7000, 1024);
	for (i = 0; i < N; i++) {
		q[i] = world_connect(w.peer, POD_IP, 7000);
		p[i] = world_accept(p[N]);
	}
	for (round = 0; round < 2; round++) {
		for (i = 0; i < N; i++) {
			uint32_t x = out[0], y = out[1];

			T_CHECK_EQ(offer(q[i], &x, 700), 700);
			T_CHECK_EQ(offer(p[i], &y, 300), 300);
		}
		world_move(&w, p, N + 1, &plain, &t, NULL, NULL);
		t0 = now_ns();
		for (i = 0; i < N; i++) {
			uint32_t x = in[0], y = in[1];

			T_CHECK_EQ(expect(p[i], &x, 700), 700);
			T_CHECK_EQ(expect(q[i], &y, 300), 300);
		}
		out[0] = in[0] += 700;
		out[1] = in[1] += 300;
		printf("# 1000 connections: frozen %.1f ms, save %.1f, restore %.1f, release %.1f, "
		       "all answered"
		       " after %.1f ms, held %u\n",
		       (double)t.frozen / 1e6, (double)t.save / 1e6, (double)t.restore / 1e6,
		       (double)t.release / 1e6, ms_since(t0), t.held);
		T_CHECK(t.frozen < 1000000000);
	}
	for (i = 0; i < N; i++) {
		close(p[i]);
		close(q[i]);
	}
	close(p[N]);
	world_done(&w);
	free(p);
	free(q);
}

/* ---- listeners */

/* A SYN that comes while the filter is up is not refused and not lost: the connection exists at
 * once afterwards, without the client's retransmission timer of 1 s. */
static void test_pending_syn(void)
{
	struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(7000)};
	struct err e = {0};
	struct move_times t;
	struct tcp_info ti;
	socklen_t len;
	struct world w;
	int l, q, i, p;
	uint32_t x = 0, y = 0;

	world_init(&w);
	a.sin_addr.s_addr = inet_addr(POD_IP);
	l = world_listen(w.at->ns, POD_IP, 7000, 8);
	for (i = 0; i < 6; i++) {
		T_OK(q = netns_socket(w.peer, AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0, &e), &e);
		T_OK(filter_set(w.at->filter, FILTER_SYN, &e), &e);
		T_REQUIRE(connect(q, (struct sockaddr *)&a, sizeof(a)) < 0 && errno == EINPROGRESS);
		T_OK(io_wait_readable(hold_fd(w.at->hold), deadline_ms(60000), &e), &e);
		T_CHECK_EQ(tcp_pending(&l, 1, &e), 0);
		world_move(&w, &l, 1, &(struct move_opts){.keep_syns = true}, &t, NULL, NULL);
		p = world_accept(l);
		len = sizeof(ti);
		T_CHECK(getsockopt(q, IPPROTO_TCP, TCP_INFO, &ti, &len) == 0 && ti.tcpi_state == TCP_ESTABLISHED);
		T_CHECK_EQ(ti.tcpi_total_retrans, 0);
		T_CHECK_EQ(offer(q, &x, 10), 10);
		T_CHECK_EQ(expect(p, &y, 10), 10);
		close(p);
		close(q);
	}
	close(l);
	world_done(&w);
}

static void test_accept_queue_refused(void)
{
	struct tcp_state s;
	struct err e = {0};
	struct world w;
	int l, q, p;

	world_init(&w);
	l = world_listen(w.at->ns, POD_IP, 7000, 8);
	q = world_connect(w.peer, POD_IP, 7000);
	T_CHECK_EQ(tcp_pending(&l, 1, &e), 1);
	T_FAILS(tcp_save(l, &s, &e), -EBUSY);
	T_CHECK_HAS(e.msg, "wait to be accepted");
	T_CHECK_HAS(e.msg, POD_IP ":7000");
	p = world_accept(l);
	T_CHECK_EQ(tcp_pending(&l, 1, &e), 0);
	close(p);
	close(q);
	close(l);
	world_done(&w);
}

/* Connections without an fd are counted: in an accept queue, half-open, closed with bytes under
 * way. */
static void test_unheld(void)
{
	struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(7001)};
	uint64_t end = deadline_ms(60000);
	struct tcp_unheld n = {9, 9};
	struct err e = {0};
	uint32_t x = 0;
	struct world w;
	int diag, l, p, q;

	world_init(&w);
	T_OK(diag = tcp_unheld_open(w.at->ns, &e), &e);
	l = world_listen(w.at->ns, POD_IP, 7001, 8);
	T_OK(tcp_unheld(diag, &n, &e), &e);
	T_CHECK(n.half_open == 0 && n.closing == 0);
	q = world_connect(w.peer, POD_IP, 7001);
	T_OK(tcp_unheld(diag, &n, &e), &e);
	T_CHECK(n.half_open == 1 && n.closing == 0);
	p = world_accept(l);
	T_OK(tcp_unheld(diag, &n, &e), &e);
	T_CHECK(n.half_open == 0 && n.closing == 0);
	T_CHECK(offer(p, &x, 50 << 20) > 100000); /* more than the peer takes */
	close(p);
	T_OK(tcp_unheld(diag, &n, &e), &e);
	T_CHECK(n.half_open == 0 && n.closing == 1);
	close(q); /* a reset: bytes were unread */
	do {
		T_OK(tcp_unheld(diag, &n, &e), &e);
		T_REQUIRE(now_ns() < end);
	} while (n.closing);
	/* the SYN-ACK does not reach the peer: SYN_RECV, which tcp_pending() cannot see */
	T_OK(q = netns_socket(w.peer, AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0, &e), &e);
	T_OK(filter_set(w.at->filter, FILTER_MUTE, &e), &e);
	a.sin_addr.s_addr = inet_addr(POD_IP);
	T_REQUIRE(connect(q, (struct sockaddr *)&a, sizeof(a)) < 0 && errno == EINPROGRESS);
	do {
		T_OK(tcp_unheld(diag, &n, &e), &e);
		T_REQUIRE(now_ns() < end);
	} while (n.half_open != 1);
	T_CHECK_EQ(tcp_pending(&l, 1, &e), 0);
	close(diag);
	close(l);
	close(q);
	world_done(&w);
}

static void test_syn_sent(void)
{
	struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(7001)};
	struct filter *f;
	struct err e = {0};
	struct world w;
	int l, p, q, err = -1;
	socklen_t len = sizeof(err);
	uint32_t x = 0, y = 0;
	struct pollfd pf;

	world_init(&w);
	l = world_listen(w.peer, PEER_IP, 7001, 8);
	T_OK(filter_open(w.peer, &f, &e), &e);
	T_OK(filter_set(f, FILTER_SYN, &e), &e); /* the peer does not answer yet */
	T_OK(p = netns_socket(w.at->ns, AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0, &e), &e);
	a.sin_addr.s_addr = inet_addr(PEER_IP);
	T_REQUIRE(connect(p, (struct sockaddr *)&a, sizeof(a)) < 0 && errno == EINPROGRESS);
	T_CHECK_EQ(tcp_state_of(p), TCP_SYN_SENT);
	move(&w, &p, 1);
	T_CHECK_EQ(tcp_state_of(p), TCP_SYN_SENT);
	T_OK(filter_set(f, FILTER_OPEN, &e), &e);
	move(&w, &p, 1); /* its SYN is sent anew */
	q = world_accept(l);
	pf = (struct pollfd){.fd = p, .events = POLLOUT};
	T_CHECK_EQ(poll(&pf, 1, 60000), 1);
	T_REQUIRE(getsockopt(p, SOL_SOCKET, SO_ERROR, &err, &len) == 0);
	T_CHECK_EQ(err, 0);
	T_CHECK_EQ(offer(p, &x, 1000), 1000);
	T_CHECK_EQ(expect(q, &y, 1000), 1000);
	filter_free(f);
	close(p);
	close(q);
	close(l);
	world_done(&w);
}

/* Fresh, bound and listening sockets, and connections that share the listener's port though nobody
 * has asked for SO_REUSEADDR; in both orders. */
static void test_shared_port(void)
{
	struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(7000)}, b;
	struct err e = {0};
	socklen_t len;
	int fds[6], back[6], q[3], i, v;
	struct world w;
	uint32_t x = 0, y = 0;

	world_init(&w);
	a.sin_addr.s_addr = inet_addr(POD_IP);
	T_OK(fds[0] = netns_socket(w.at->ns, AF_INET, SOCK_STREAM, 0, &e), &e);
	T_REQUIRE(bind(fds[0], (struct sockaddr *)&a, sizeof(a)) == 0 && listen(fds[0], 77) == 0);
	for (i = 0; i < 3; i++) {
		q[i] = world_connect(w.peer, POD_IP, 7000);
		fds[1 + i] = world_accept(fds[0]);
	}
	T_OK(fds[4] = netns_socket(w.at->ns, AF_INET, SOCK_STREAM, 0, &e), &e);
	T_OK(fds[5] = netns_socket(w.at->ns, AF_INET, SOCK_STREAM, 0, &e), &e);
	a.sin_port = htons(7777);
	T_REQUIRE(bind(fds[5], (struct sockaddr *)&a, sizeof(a)) == 0);
	for (i = 0; i < 6; i++)
		back[i] = fds[5 - i];
	move(&w, fds, 6);
	move(&w, back, 6);
	for (i = 0; i < 6; i++) {
		len = sizeof(v);
		T_REQUIRE(getsockopt(fds[i], SOL_SOCKET, SO_REUSEADDR, &v, &len) == 0);
		T_CHECK_EQ(v, 0);
	}
	T_CHECK_EQ(tcp_state_of(fds[4]), TCP_CLOSE);
	len = sizeof(b);
	T_REQUIRE(getsockname(fds[5], (struct sockaddr *)&b, &len) == 0);
	T_CHECK_EQ(ntohs(b.sin_port), 7777);
	for (i = 0; i < 3; i++) {
		x = y = 0;
		T_CHECK_EQ(offer(q[i], &x, 100), 100);
		T_CHECK_EQ(expect(fds[1 + i], &y, 100), 100);
	}
	close(fds[1]);
	close(q[0]);
	q[0] = world_connect(w.peer, POD_IP, 7000);
	fds[1] = world_accept(fds[0]);
	T_REQUIRE(listen(fds[5], 5) == 0);
	for (i = 0; i < 6; i++)
		close(fds[i]);
	for (i = 0; i < 3; i++)
		close(q[i]);
	world_done(&w);
}

static const struct test_case cases[] = {
	{"peer_closed", test_peer_closed},
	{"pod_closed", test_pod_closed},
	{"fin_behind_full_window", test_fin_behind_full_window},
	{"both_closed_unacked", test_both_closed_unacked},
	{"shut_rd", test_shut_rd},
	{"dead", test_dead},
	{"full_on_loopback", test_full_on_loopback},
	{"slow_restore", test_slow_restore},
	{"segment_size_set", test_segment_size_set},
	{"full_windows", test_full_windows},
	{"window_has_room", test_window_has_room},
	{"window_has_room_early", test_window_has_room_early},
	{"overtaken_data", test_overtaken_data},
	{"segment_size", test_segment_size},
	{"thousand", test_thousand},
	{"pending_syn", test_pending_syn},
	{"accept_queue_refused", test_accept_queue_refused},
	{"unheld", test_unheld},
	{"syn_sent", test_syn_sent},
	{"shared_port", test_shared_port},
};

const struct test_suite tcp_state_suite = {"tcp_state", cases, ARRAY_SIZE(cases)};
