/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * TCP sockets in every state that an fd can hold, over loopback and over the pod's own address:
 * FIN_WAIT1, CLOSING and LAST_ACK whose FIN waits behind data that the peer does not take; FIN_WAIT2
 * and CLOSE_WAIT with bytes left; ends of connections that are over, with and without bytes and
 * errors left, TIME_WAIT behind them; SYN_SENT, polled and with a thread blocked in connect(2): a
 * listener whose IP_MINTTL lets no SYN in, and does later. A child holds the same descriptions, and
 * one blocks in recv(2) in FIN_WAIT2. All of them are used up and made anew again and again.
 */
#include "wl.h"
#include "wl_sock.h"

#include <arpa/inet.h>
#include <net/if.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#define CLOSED_NS (800 * WL_MS) /* so long no SYN gets in: the first is repeated after 1 s */
#define NCONN	  3		/* polled connects */

struct end {
	int fd;
	uint64_t out, in;
	uint64_t seed;
	int state;
};

enum { FIN1, FIN2, CLOSING, LAST, OVER, RESET, SELF, NPAIR };
static const int states[NPAIR][2] = {
	[FIN1] = { TCP_FIN_WAIT1, TCP_ESTABLISHED }, [FIN2] = { TCP_FIN_WAIT2, TCP_CLOSE_WAIT },
	[CLOSING] = { TCP_CLOSING, TCP_FIN_WAIT2 },  [LAST] = { TCP_LAST_ACK, TCP_FIN_WAIT2 },
	[OVER] = { TCP_CLOSE, TCP_CLOSE },	     [RESET] = { TCP_CLOSE, 0 },
	[SELF] = { TCP_ESTABLISHED, 0 },
};
static struct end pairs[NPAIR][2];
static struct sockaddr_in addr[2], closed;
static int lis[2], shut;
static uint64_t cycle, shut_since;
static int conn[NCONN];
static struct sockaddr_in names[NCONN];

static int state_of(int fd)
{
	struct tcp_info ti = { 0 };
	socklen_t len = sizeof(ti);

	WL_SYS(getsockopt(fd, IPPROTO_TCP, TCP_INFO, &ti, &len));
	return ti.tcpi_state;
}

static int stream_socket(int flags)
{
	return (int)WL_SYS(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | flags, 0));
}

static int listener(struct sockaddr_in *sa, in_addr_t ip, int ttl)
{
	socklen_t len = sizeof(*sa);
	int fd = stream_socket(SOCK_NONBLOCK);

	*sa = (struct sockaddr_in){ .sin_family = AF_INET, .sin_addr.s_addr = ip };
	WL_SYS(bind(fd, (struct sockaddr *)sa, sizeof(*sa)));
	set(fd, IPPROTO_IP, IP_MINTTL, ttl);
	set(fd, SOL_SOCKET, SO_RCVBUF, 20000);
	WL_SYS(listen(fd, 16));
	WL_SYS(getsockname(fd, (struct sockaddr *)sa, &len));
	return fd;
}

/* The pod's own address, if it has one. */
static in_addr_t own_address(void)
{
	struct ifreq ifr = { .ifr_name = "eth0" };
	in_addr_t ip = htonl(INADDR_LOOPBACK);
	int fd = stream_socket(0);

	if (ioctl(fd, SIOCGIFADDR, &ifr) == 0)
		ip = ((struct sockaddr_in *)&ifr.ifr_addr)->sin_addr.s_addr;
	WL_SYS(close(fd));
	return ip;
}

static void connection(int i)
{
	struct end *e = pairs[i];
	const int via = (int)((cycle + (uint64_t)i) % 2);
	int k;

	e[0].fd = stream_socket(0);
	set(e[0].fd, SOL_SOCKET, SO_SNDBUF, 100000);
	WL_SYS(connect(e[0].fd, (struct sockaddr *)&addr[via], sizeof(addr[via])));
	WL_AWAIT((e[1].fd = accept4(lis[via], NULL, NULL, SOCK_CLOEXEC)) >= 0, "accept");
	for (k = 0; k < 2; k++) {
		e[k].out = e[k].in = 0;
		e[k].seed = cycle * 100 + (uint64_t)(i * 2 + k);
		e[k].state = states[i][k];
	}
}

static void put(struct end *e, size_t n)
{
	uint8_t buf[8192];

	WL_CHECK(n <= sizeof(buf), "put: expected a small piece");
	wl_fill(buf, n, e->seed, e->out);
	wl_write(e->fd, buf, n);
	e->out += n;
}

/* Until nothing more goes in. */
static void fill(struct end *e)
{
	uint8_t buf[4096];
	ssize_t n;

	for (;;) {
		wl_fill(buf, sizeof(buf), e->seed, e->out);
		n = send(e->fd, buf, sizeof(buf), MSG_DONTWAIT);
		if (n < 0)
			break;
		e->out += (size_t)n;
	}
	WL_EQ("errno when full", EAGAIN, errno);
}

/* All that @from has sent or is still sending, to its end. */
static void take_all(struct end *to, struct end *from)
{
	static uint8_t buf[30000];
	ssize_t n;

	while ((n = WL_SYS(recv(to->fd, buf, sizeof(buf), 0))) > 0) {
		wl_verify("bytes to the end", buf, (size_t)n, from->seed, to->in);
		to->in += (size_t)n;
	}
	WL_EQ("bytes to the end", from->out, to->in);
}

static void shut_wr(struct end *e)
{
	WL_SYS(shutdown(e->fd, SHUT_WR));
}

/* Two sockets that connect to each other, or one to itself, without a listener: the kernel allows it. */
static void self_connection(struct end *e)
{
	struct sockaddr_in sa = { .sin_family = AF_INET,
				  .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t len = sizeof(sa);

	e->fd = stream_socket(0);
	WL_SYS(bind(e->fd, (struct sockaddr *)&sa, sizeof(sa)));
	WL_SYS(getsockname(e->fd, (struct sockaddr *)&sa, &len));
	WL_SYS(connect(e->fd, (struct sockaddr *)&sa, sizeof(sa)));
	e->out = e->in = 0;
	e->seed = cycle * 100 + 99;
	e->state = TCP_ESTABLISHED;
	put(e, 700);
}

/* A state may be reached a moment after the call that leads there. */
static void await_states(void)
{
	int i, k;

	for (i = 0; i < NPAIR; i++)
		for (k = 0; k < 2; k++)
			if (pairs[i][k].fd >= 0)
				WL_AWAIT(state_of(pairs[i][k].fd) == pairs[i][k].state,
					 "a closing state");
}

static void make(void)
{
	struct linger reset = { 1, 0 };
	int i;

	for (i = 0; i < SELF; i++)
		connection(i);
	put(&pairs[FIN1][1], 77);
	fill(&pairs[FIN1][0]);
	shut_wr(&pairs[FIN1][0]);

	put(&pairs[FIN2][0], 3000);
	shut_wr(&pairs[FIN2][0]);

	fill(&pairs[CLOSING][0]);
	shut_wr(&pairs[CLOSING][0]);
	put(&pairs[CLOSING][1], 999);
	shut_wr(&pairs[CLOSING][1]);

	put(&pairs[LAST][1], 555);
	shut_wr(&pairs[LAST][1]);
	WL_AWAIT(state_of(pairs[LAST][0].fd) == TCP_CLOSE_WAIT, "CLOSE_WAIT");
	fill(&pairs[LAST][0]);
	shut_wr(&pairs[LAST][0]);

	put(&pairs[OVER][0], 1234);
	shut_wr(&pairs[OVER][0]);
	shut_wr(&pairs[OVER][1]);

	WL_SYS(setsockopt(pairs[RESET][1].fd, SOL_SOCKET, SO_LINGER, &reset, sizeof(reset)));
	WL_SYS(close(pairs[RESET][1].fd));
	pairs[RESET][1].fd = -1;
	self_connection(&pairs[SELF][0]);
	pairs[SELF][1].fd = -1;
	await_states();
}

static int events(int fd)
{
	struct pollfd p = { .fd = fd, .events = POLLIN | POLLOUT | POLLRDHUP };

	WL_SYS(poll(&p, 1, 0));
	return p.revents;
}

static void check_states(void)
{
	int i, k, st;

	for (i = 0; i < NPAIR; i++)
		for (k = 0; k < 2; k++) {
			if (pairs[i][k].fd < 0)
				continue;
			st = state_of(pairs[i][k].fd);
			/* a FIN that was never sent: on the wire there is no difference */
			if (pairs[i][k].state == TCP_CLOSING && st == TCP_LAST_ACK)
				continue;
			WL_CHECK(st == pairs[i][k].state,
				 "end %d of connection %d: expected state %d, got %d", k, i,
				 pairs[i][k].state, st);
		}
	WL_CHECK(!(events(pairs[FIN1][0].fd) & POLLRDHUP), "FIN_WAIT1: expected no POLLRDHUP");
	WL_EQ("events of FIN_WAIT2", 0, events(pairs[FIN2][0].fd) & (POLLIN | POLLRDHUP));
	WL_EQ("events of CLOSE_WAIT", POLLIN | POLLOUT | POLLRDHUP, events(pairs[FIN2][1].fd));
	WL_CHECK(events(pairs[OVER][0].fd) & POLLHUP, "an end: expected POLLHUP");
	WL_CHECK(events(pairs[RESET][0].fd) & POLLERR, "a reset: expected POLLERR");
	errno = 0;
	WL_EQ("send after shutdown", -1,
	      send(pairs[FIN1][0].fd, "x", 1, MSG_NOSIGNAL | MSG_DONTWAIT));
	WL_EQ("errno", EPIPE, errno);
}

/* The side that is open still speaks, and it is heard; pieces cross in the middle of a move. */
static void speak(uint64_t round)
{
	uint8_t buf[256];
	struct end *from, *to;
	size_t n = 1 + round * 37 % sizeof(buf);
	int i;

	for (i = 0; i < 3; i++) {
		from = i == 2 ? &pairs[SELF][0] : &pairs[i == 0 ? FIN1 : FIN2][1];
		to = i == 2 ? from : &pairs[i == 0 ? FIN1 : FIN2][0];
		put(from, n);
		wl_read(to->fd, buf, n);
		wl_verify("the open side", buf, n, from->seed, to->in);
		to->in += n;
	}
}

static int late_reader(void *arg)
{
	struct end e = pairs[FIN2][0];

	(void)arg;
	/* blocks until the other side's end */
	take_all(&e, &(struct end){ .out = e.in, .seed = 0 });
	return 88;
}

/* They come to their ends in the order in which their holders like it. */
static void use_up(void)
{
	socklen_t len = sizeof(int);
	int err = 0, i, k;
	uint8_t c;
	pid_t kid;

	WL_EQ("bytes behind an open side", 0, pairs[FIN2][1].in);
	kid = wl_spawn(late_reader, NULL);
	take_all(&pairs[FIN1][1], &pairs[FIN1][0]);
	shut_wr(&pairs[FIN1][1]);
	take_all(&pairs[FIN1][0], &pairs[FIN1][1]);
	take_all(&pairs[FIN2][1], &pairs[FIN2][0]);
	wl_pace();
	shut_wr(&pairs[FIN2][1]);
	wl_reap(kid, 88);
	take_all(&pairs[FIN2][0], &pairs[FIN2][1]);
	take_all(&pairs[CLOSING][0], &pairs[CLOSING][1]);
	take_all(&pairs[CLOSING][1], &pairs[CLOSING][0]);
	take_all(&pairs[LAST][1], &pairs[LAST][0]);
	take_all(&pairs[LAST][0], &pairs[LAST][1]);
	take_all(&pairs[OVER][1], &pairs[OVER][0]);
	take_all(&pairs[OVER][0], &pairs[OVER][1]);
	WL_SYS(getsockopt(pairs[RESET][0].fd, SOL_SOCKET, SO_ERROR, &err, &len));
	WL_EQ("SO_ERROR of a reset connection", ECONNRESET, err);
	WL_EQ("read after a reset", 0, WL_SYS(recv(pairs[RESET][0].fd, &c, 1, 0)));
	shut_wr(&pairs[SELF][0]);
	take_all(&pairs[SELF][0], &pairs[SELF][0]);
	for (i = 0; i < NPAIR; i++)
		for (k = 0; k < 2; k++)
			if (pairs[i][k].fd >= 0)
				WL_SYS(close(pairs[i][k].fd));
}

/* ---- SYN_SENT */

struct blocked {
	pthread_t thread;
	int fd;
	_Atomic int done;
};
static struct blocked blocked;

static void *connector(void *arg)
{
	struct blocked *b = arg;

	WL_SYS(connect(b->fd, (struct sockaddr *)&closed, sizeof(closed)));
	b->done = 1;
	return NULL;
}

static void begin_connects(void)
{
	socklen_t len = sizeof(names[0]);
	int i;

	set(shut, IPPROTO_IP, IP_MINTTL, 255);
	for (i = 0; i < NCONN; i++) {
		conn[i] = stream_socket(SOCK_NONBLOCK);
		if (i == 1)
			WL_SYS(bind(conn[i], (struct sockaddr *)&(struct sockaddr_in){
						     .sin_family = AF_INET,
						     .sin_addr.s_addr = htonl(INADDR_LOOPBACK) },
				    sizeof(struct sockaddr_in)));
		if (i == 2)
			set(conn[i], IPPROTO_TCP, TCP_MAXSEG, 900);
		errno = 0;
		WL_EQ("connect", -1, connect(conn[i], (struct sockaddr *)&closed, sizeof(closed)));
		WL_EQ("errno", EINPROGRESS, errno);
		WL_SYS(getsockname(conn[i], (struct sockaddr *)&names[i], &len));
	}
	blocked.fd = stream_socket(0);
	blocked.done = 0;
	WL_ZERO(pthread_create(&blocked.thread, NULL, connector, &blocked));
	WL_AWAIT(state_of(blocked.fd) == TCP_SYN_SENT, "SYN_SENT");
	shut_since = wl_now();
}

static void check_connects(void)
{
	struct sockaddr_in sa;
	socklen_t len = sizeof(sa);
	int i;

	WL_EQ("the blocked connect", 0, blocked.done);
	WL_EQ("its state", TCP_SYN_SENT, state_of(blocked.fd));
	for (i = 0; i < NCONN; i++) {
		WL_EQ("state of a connect", TCP_SYN_SENT, state_of(conn[i]));
		WL_EQ("its events", 0, events(conn[i]));
		WL_SYS(getsockname(conn[i], (struct sockaddr *)&sa, &len));
		WL_CHECK(!memcmp(&sa, &names[i], sizeof(sa)), "its name: expected port %d, got %d",
			 ntohs(names[i].sin_port), ntohs(sa.sin_port));
		errno = 0;
		WL_EQ("connect again", -1,
		      connect(conn[i], (struct sockaddr *)&closed, sizeof(closed)));
		WL_EQ("errno", EALREADY, errno);
	}
}

static void end_connects(void)
{
	struct sockaddr_in sa;
	int i, k, fd, seen = 0;
	socklen_t len;
	char c;

	set(shut, IPPROTO_IP, IP_MINTTL, 0);
	for (k = 0; k < NCONN + 1; k++) {
		len = sizeof(sa);
		WL_AWAIT((fd = accept4(shut, (struct sockaddr *)&sa, &len, SOCK_CLOEXEC)) >= 0,
			 "a connection that was not let in");
		for (i = 0; i < NCONN && sa.sin_port != names[i].sin_port; i++)
			;
		seen += 1 << i;
		c = (char)i;
		wl_write(fd, &c, 1);
		if (i == 2) {
			len = sizeof(int);
			int mss = 0;

			WL_SYS(getsockopt(fd, IPPROTO_TCP, TCP_MAXSEG, &mss, &len));
			WL_CHECK(mss <= 900, "TCP_MAXSEG: expected at most 900, got %d", mss);
		}
		WL_SYS(close(fd));
	}
	WL_EQ("connections", (1 << (NCONN + 1)) - 1, seen);
	WL_ZERO(pthread_join(blocked.thread, NULL));
	WL_EQ("the blocked connect", 1, blocked.done);
	wl_read(blocked.fd, &c, 1);
	WL_EQ("its byte", NCONN, c);
	for (i = 0; i < NCONN; i++) {
		WL_AWAIT(events(conn[i]) & POLLIN, "the byte of a connect");
		wl_read(conn[i], &c, 1);
		WL_EQ("the byte of a connect", i, c);
		WL_SYS(close(conn[i]));
	}
	WL_SYS(close(blocked.fd));
}

static int holder(void *arg)
{
	(void)arg;
	for (;;)
		pause();
	return 0;
}

int main(void)
{
	uint64_t round = 0;
	pid_t kid;

	wl_init();
	signal(SIGPIPE, SIG_IGN);
	lis[0] = listener(&addr[0], htonl(INADDR_LOOPBACK), 0);
	lis[1] = listener(&addr[1], own_address(), 0);
	shut = listener(&closed, htonl(INADDR_LOOPBACK), 255);
	make();
	begin_connects();
	kid = wl_spawn(holder, NULL);
	wl_ready();
	while (!wl_stopping()) {
		check_states();
		speak(round);
		check_connects();
		if (wl_now() - shut_since > CLOSED_NS) {
			WL_SYS(kill(kid, SIGKILL));
			WL_EQ("waitpid", kid, WL_SYS(waitpid(kid, NULL, 0)));
			end_connects();
			use_up();
			cycle++;
			make();
			begin_connects();
			kid = wl_spawn(holder, NULL);
		}
		round++;
		wl_pace();
	}
	check_states();
	WL_SYS(kill(kid, SIGKILL));
	WL_EQ("waitpid", kid, WL_SYS(waitpid(kid, NULL, 0)));
	end_connects();
	use_up();
	wl_ok();
}
