/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * TCP over AF_INET6 sockets, as servers use them: a listener on :: whose clients speak IPv4 (mapped
 * addresses) to 127.0.0.1 and to the pod's own address, and IPv6 to ::1; one for IPv6 alone beside an
 * IPv4 listener at the same port; bytes queued both ways on each sort of connection; an echo to a
 * child; halves shut down; connections that are over; options; new connections all the time; sockets
 * bound, fresh, and in SYN_SENT.
 */
#include "wl.h"
#include "wl_sock.h"

#include <arpa/inet.h>
#include <net/if.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#define QUEUED 9000
#define NSORT  4 /* clients: IPv4 to lo, IPv4 to the own address, mapped to lo, IPv6 to ::1 */

union name {
	struct sockaddr sa;
	struct sockaddr_in in;
	struct sockaddr_in6 in6;
};

static in_addr_t own;
static int dual, only6, only4, deaf, bound, fresh, syn;
static in_port_t dual_port, only_port, deaf_port;
static int idle[NSORT][2], half[NSORT][2], over[2], echo[2];
static uint64_t idle_off[NSORT][2], echo_in, echo_out;
static bool native;

static union name name6(const char *ip, in_port_t port)
{
	union name n = { .in6 = { .sin6_family = AF_INET6, .sin6_port = port } };

	WL_EQ("inet_pton", 1, inet_pton(AF_INET6, ip, &n.in6.sin6_addr));
	return n;
}

static union name name4(in_addr_t ip, in_port_t port)
{
	return (union name){ .in = { .sin_family = AF_INET, .sin_port = port, .sin_addr.s_addr = ip } };
}

static socklen_t size_of(const union name *n)
{
	return n->sa.sa_family == AF_INET6 ? sizeof(n->in6) : sizeof(n->in);
}

static int stream(int family, int flags)
{
	return (int)WL_SYS(socket(family, SOCK_STREAM | flags, 0));
}

static in_port_t port_of(int fd)
{
	union name n;
	socklen_t len = sizeof(n);

	WL_SYS(getsockname(fd, &n.sa, &len));
	return n.in.sin_port; /* at the same place in both */
}

static int listener(union name n, int v6only)
{
	int fd = stream(n.sa.sa_family, SOCK_CLOEXEC | SOCK_NONBLOCK);

	if (n.sa.sa_family == AF_INET6)
		set(fd, IPPROTO_IPV6, IPV6_V6ONLY, v6only);
	WL_SYS(bind(fd, &n.sa, size_of(&n)));
	WL_SYS(listen(fd, 9));
	return fd;
}

static in_addr_t own_address(void)
{
	struct ifreq ifr = { .ifr_name = "eth0" };
	in_addr_t ip = htonl(INADDR_LOOPBACK);
	int fd = stream(AF_INET, 0);

	if (ioctl(fd, SIOCGIFADDR, &ifr) == 0)
		ip = ((struct sockaddr_in *)&ifr.ifr_addr)->sin_addr.s_addr;
	WL_SYS(close(fd));
	return ip;
}

static union name way(int sort, in_port_t port)
{
	switch (sort) {
	case 0: return name4(htonl(INADDR_LOOPBACK), port);
	case 1: return name4(own, port);
	case 2: return name6("::ffff:127.0.0.1", port);
	default: return native ? name6("::1", port) : name6("::ffff:127.0.0.2", port);
	}
}

static int accept_at(int lis)
{
	int fd;

	WL_AWAIT((fd = accept4(lis, NULL, NULL, SOCK_CLOEXEC)) >= 0, "accept");
	return fd;
}

static void connection(int fd[2], int sort)
{
	union name n = way(sort, dual_port);

	fd[0] = stream(n.sa.sa_family, 0);
	WL_SYS(connect(fd[0], &n.sa, size_of(&n)));
	fd[1] = accept_at(dual);
}

/* What the accepted side says of the client, and of itself. */
static void check_names(const int fd[2], int sort)
{
	union name a = { 0 }, b = { 0 }, want = way(sort, dual_port);
	socklen_t len = sizeof(a);

	WL_SYS(getsockname(fd[0], &a.sa, &len));
	len = sizeof(b);
	WL_SYS(getpeername(fd[1], &b.sa, &len));
	WL_EQ("family of an accepted socket's peer", AF_INET6, b.sa.sa_family);
	WL_EQ("ports of two ends", a.in.sin_port, b.in.sin_port);
	len = sizeof(b);
	WL_SYS(getsockname(fd[1], &b.sa, &len));
	WL_EQ("port", dual_port, b.in6.sin6_port);
	if (want.sa.sa_family == AF_INET6) {
		WL_CHECK(!memcmp(&want.in6.sin6_addr, &b.in6.sin6_addr, 16),
			 "address of sort %d: expected the one connected to", sort);
	} else {
		WL_CHECK(IN6_IS_ADDR_V4MAPPED(&b.in6.sin6_addr), "address: expected a mapped one");
		WL_CHECK(!memcmp(&want.in.sin_addr, &b.in6.sin6_addr.s6_addr[12], 4),
			 "address of sort %d: expected the one connected to", sort);
	}
}

static void setup(void)
{
	static uint8_t buf[QUEUED];
	union name n;
	int i, k;

	dual = listener(name6("::", 0), 0);
	dual_port = port_of(dual);
	only6 = listener(name6("::", 0), 1);
	only_port = port_of(only6);
	only4 = listener(name4(htonl(INADDR_ANY), only_port), 0);
	for (i = 0; i < NSORT; i++) {
		connection(idle[i], i);
		connection(half[i], i);
		for (k = 0; k < 2; k++) {
			wl_fill(buf, QUEUED, (uint64_t)(10 * i + k), 0);
			wl_write(idle[i][k], buf, QUEUED);
		}
		wl_fill(buf, 3000, 7, 0);
		wl_write(half[i][i % 2], buf, 3000);
		WL_SYS(shutdown(half[i][i % 2], SHUT_WR));
	}
	connection(over, 3);
	wl_write(over[0], buf, 1000);
	for (k = 0; k < 2; k++)
		WL_SYS(shutdown(over[k], SHUT_WR));
	connection(echo, 3);
	set(idle[3][0], IPPROTO_IPV6, IPV6_TCLASS, 0x20);
	set(idle[3][0], IPPROTO_IPV6, IPV6_UNICAST_HOPS, 44);
	set(idle[2][0], IPPROTO_IP, IP_TOS, 0x10);
	set(idle[2][0], IPPROTO_TCP, TCP_NODELAY, 1);
	bound = stream(AF_INET6, SOCK_NONBLOCK);
	n = name6("::1", 0);
	if (!native)
		n = name6("::ffff:127.0.0.1", 0);
	WL_SYS(bind(bound, &n.sa, size_of(&n)));
	fresh = stream(AF_INET6, SOCK_CLOEXEC);
	set(fresh, IPPROTO_IPV6, IPV6_V6ONLY, 1);
	/* no SYN gets in here until the end */
	deaf = listener(name6("::", 0), 0);
	deaf_port = port_of(deaf);
	set(deaf, IPPROTO_IP, IP_MINTTL, 255);
	syn = stream(AF_INET6, SOCK_NONBLOCK);
	n = name6("::ffff:127.0.0.1", deaf_port);
	errno = 0;
	WL_EQ("connect", -1, connect(syn, &n.sa, size_of(&n)));
	WL_EQ("errno", EINPROGRESS, errno);
}

static int echo_child(void *arg)
{
	static uint8_t buf[30000];
	ssize_t n;

	(void)arg;
	WL_SYS(close(echo[0]));
	while ((n = WL_SYS(recv(echo[1], buf, sizeof(buf), 0))) > 0)
		wl_write(echo[1], buf, (size_t)n);
	return 77;
}

/* Some bytes out, as many in: always QUEUED bytes wait on each side. */
static void idle_step(int i, uint64_t round)
{
	size_t n = 1 + round * 17 % 500, k;
	uint8_t buf[500];
	int avail;

	for (k = 0; k < 2; k++) {
		const uint64_t seed = (uint64_t)(10 * i) + k;

		wl_read(idle[i][1 - k], buf, n);
		wl_verify("queued bytes", buf, n, seed, idle_off[i][k]);
		idle_off[i][k] += n;
		wl_fill(buf, n, seed, idle_off[i][k] + QUEUED - n);
		wl_write(idle[i][k], buf, n);
		WL_AWAIT((ioctl(idle[i][1 - k], FIONREAD, &avail), avail == QUEUED), "sent bytes");
	}
}

static void echo_some(uint64_t round)
{
	static uint8_t buf[20000];
	size_t n = 1 + round * 1009 % sizeof(buf);

	wl_fill(buf, n, 5, echo_in);
	wl_write(echo[0], buf, n);
	echo_in += n;
	while (echo_in - echo_out > 40000) {
		wl_read(echo[0], buf, 10000);
		wl_verify("echo", buf, 10000, 5, echo_out);
		echo_out += 10000;
	}
}

static void check_half(int i)
{
	int from = half[i][i % 2], to = half[i][1 - i % 2];
	struct pollfd p = { .fd = to, .events = POLLIN | POLLRDHUP };
	uint8_t buf[4000];
	char c = 'y';

	WL_EQ("peek", 3000, WL_SYS(recv(to, buf, sizeof(buf), MSG_PEEK)));
	wl_verify("bytes before the FIN", buf, 3000, 7, 0);
	WL_SYS(poll(&p, 1, 0));
	WL_EQ("events of a half closed connection", POLLIN | POLLRDHUP, p.revents);
	wl_write(to, &c, 1);
	wl_read(from, &c, 1);
}

static void check_rest(void)
{
	struct pollfd p = { .fd = over[1], .events = POLLIN | POLLRDHUP };
	uint8_t buf[2000];
	struct tcp_info ti = { 0 };
	socklen_t len = sizeof(ti);

	WL_EQ("bytes left", 1000, WL_SYS(recv(over[1], buf, sizeof(buf), MSG_PEEK)));
	WL_SYS(poll(&p, 1, 0));
	WL_EQ("events of an end", POLLIN | POLLRDHUP | POLLHUP, p.revents);
	WL_EQ("IPV6_V6ONLY", 1, get(only6, IPPROTO_IPV6, IPV6_V6ONLY));
	WL_EQ("IPV6_V6ONLY of a dual listener", 0, get(dual, IPPROTO_IPV6, IPV6_V6ONLY));
	WL_EQ("IPV6_V6ONLY of a fresh socket", 1, get(fresh, IPPROTO_IPV6, IPV6_V6ONLY));
	WL_EQ("IPV6_TCLASS", 0x20, get(idle[3][0], IPPROTO_IPV6, IPV6_TCLASS));
	WL_EQ("IPV6_UNICAST_HOPS", 44, get(idle[3][0], IPPROTO_IPV6, IPV6_UNICAST_HOPS));
	WL_EQ("IP_TOS", 0x10, get(idle[2][0], IPPROTO_IP, IP_TOS));
	WL_EQ("TCP_NODELAY", 1, get(idle[2][0], IPPROTO_TCP, TCP_NODELAY));
	WL_EQ("SO_ACCEPTCONN", 1, get(only4, SOL_SOCKET, SO_ACCEPTCONN));
	WL_SYS(getsockopt(syn, IPPROTO_TCP, TCP_INFO, &ti, &len));
	WL_EQ("state of a connect", TCP_SYN_SENT, ti.tcpi_state);
}

static void new_connection(uint64_t round)
{
	const int sort = (int)(round % NSORT);
	uint8_t buf[700];
	union name n;
	int c[2];

	connection(c, sort);
	check_names(c, sort);
	wl_fill(buf, sizeof(buf), round, 0);
	wl_write(c[round % 2], buf, sizeof(buf));
	WL_SYS(shutdown(c[round % 2], SHUT_WR));
	wl_pace();
	wl_read(c[1 - round % 2], buf, sizeof(buf));
	wl_verify("new connection", buf, sizeof(buf), round, 0);
	WL_SYS(close(c[1 - round % 2]));
	WL_SYS(close(c[round % 2]));
	/* the two that share a port */
	n = name4(htonl(INADDR_LOOPBACK), only_port);
	c[0] = stream(AF_INET, 0);
	WL_SYS(connect(c[0], &n.sa, size_of(&n)));
	WL_SYS(close(accept_at(only4)));
	WL_SYS(close(c[0]));
}

static void finish(pid_t kid)
{
	static uint8_t buf[20000];
	struct pollfd p = { .fd = syn, .events = POLLOUT };
	ssize_t n;
	char c = 'z';
	int fd;

	WL_SYS(shutdown(echo[0], SHUT_WR));
	while ((n = WL_SYS(read(echo[0], buf, sizeof(buf)))) > 0) {
		wl_verify("echo", buf, (size_t)n, 5, echo_out);
		echo_out += (uint64_t)n;
	}
	WL_EQ("bytes of the echo", echo_in, echo_out);
	wl_reap(kid, 77);
	wl_read(over[1], buf, 1000);
	WL_EQ("end of file", 0, WL_SYS(read(over[1], buf, 1)));
	set(deaf, IPPROTO_IP, IP_MINTTL, 0);
	fd = accept_at(deaf);
	WL_EQ("poll", 1, WL_SYS(poll(&p, 1, 10000)));
	WL_EQ("SO_ERROR", 0, get(syn, SOL_SOCKET, SO_ERROR));
	wl_write(syn, &c, 1);
	wl_read(fd, &c, 1);
	WL_SYS(listen(bound, 1));
	if (native) {
		union name to = name6("::1", only_port);

		WL_SYS(connect(fresh, &to.sa, size_of(&to)));
		WL_SYS(close(accept_at(only6)));
	}
}

int main(void)
{
	union name one = name6("::1", 0);
	uint64_t round = 0;
	pid_t kid;
	int i, fd;

	wl_init();
	signal(SIGPIPE, SIG_IGN);
	fd = socket(AF_INET6, SOCK_STREAM, 0);
	if (fd < 0) {
		printf("skip: no IPv6 here\n");
		return 0;
	}
	native = bind(fd, &one.sa, sizeof(one.in6)) == 0;
	WL_SYS(close(fd));
	own = own_address();
	setup();
	kid = wl_spawn(echo_child, NULL);
	WL_SYS(close(echo[1]));
	wl_ready();
	while (!wl_stopping()) {
		for (i = 0; i < NSORT; i++) {
			idle_step(i, round);
			check_half(i);
			check_names(idle[i], i);
		}
		echo_some(round);
		check_rest();
		if (round % 4 == 0)
			new_connection(round / 4);
		round++;
		wl_pace();
	}
	finish(kid);
	wl_ok();
}
