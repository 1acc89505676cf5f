/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * UDP over AF_INET6 sockets: a server on :: in whose queue packets of IPv4 and of IPv6 wait, of all sizes, the longest of
 * which come in fragments, from senders of both families and one with mapped addresses; one for IPv6 alone beside one for IPv4
 * at the same port; connected sockets, to ::1 and to a mapped address, bound before or not; an echo to a child that
 * blocks in recvfrom(2); options; a fresh one.
 */
#include "wl.h"
#include "wl_sock.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/udp.h>
#include <sys/socket.h>

#define NWAIT 20
#define BIG   65520 /* more than a packet over lo holds with its header */

union name {
	struct sockaddr sa;
	struct sockaddr_in in;
	struct sockaddr_in6 in6;
};

static int server, sender[3], only6, only4, conn[2], mapped[2], chosen, echo, fresh, corked;
static union name server_at, sender_at[3], echo_name, only_at;
static uint64_t put_seq, got_seq, echo_seq;

static int udp(int family)
{
	return (int)WL_SYS(socket(family, SOCK_DGRAM, 0));
}

/* @port as it is in the name. */
static union name at(const char *ip, in_port_t port)
{
	union name n = { .in6 = { .sin6_family = AF_INET6, .sin6_port = port } };

	if (strchr(ip, ':'))
		WL_EQ("inet_pton", 1, inet_pton(AF_INET6, ip, &n.in6.sin6_addr));
	else
		n.in = (struct sockaddr_in){ .sin_family = AF_INET, .sin_port = port, .sin_addr.s_addr = inet_addr(ip) };
	return n;
}

static socklen_t size_of(const union name *n)
{
	return n->sa.sa_family == AF_INET6 ? sizeof(n->in6) : sizeof(n->in);
}

static union name name_of(int fd)
{
	union name n = { 0 };
	socklen_t len = sizeof(n);

	WL_SYS(getsockname(fd, &n.sa, &len));
	return n;
}

static void bind_to(int fd, union name n)
{
	WL_SYS(bind(fd, &n.sa, size_of(&n)));
}

static void connect_to(int fd, union name n)
{
	WL_SYS(connect(fd, &n.sa, size_of(&n)));
}

static void send_to(int fd, const void *buf, size_t len, union name n)
{
	WL_EQ("sent", len, WL_SYS(sendto(fd, buf, len, 0, &n.sa, size_of(&n))));
}

static void same6(const char *what, const char *ip, in_port_t port, const union name *got)
{
	char text[INET6_ADDRSTRLEN] = "?";

	WL_EQ("family", AF_INET6, got->sa.sa_family);
	inet_ntop(AF_INET6, &got->in6.sin6_addr, text, sizeof(text));
	WL_CHECK(!strcmp(text, ip) && got->in6.sin6_port == port, "%s: expected %s port %d, got %s port %d", what, ip, ntohs(port), text,
		 ntohs(got->in6.sin6_port));
}

/* ---- what waits */

static const char *const to[] = { "127.0.0.1", "::1", "::ffff:127.0.0.9" }, *const seen_from[] = { "::ffff:127.0.0.1", "::1", "::ffff:127.0.0.1" },
			 *const seen_to[] = { "::ffff:127.0.0.1", "::1", "::ffff:127.0.0.9" };

static size_t length(uint64_t seq)
{
	return seq % 9 == 4 ? 0 : seq % 21 == 1 ? BIG : seq % 21 == 5 ? 40000 : wl_mix(seq) % 1500;
}

static void put(void)
{
	static uint8_t buf[BIG];
	size_t len = length(put_seq);
	int k = (int)(put_seq % 3);

	if (k != 1 && len == BIG)
		len = 700;
	wl_fill(buf, len, 1, put_seq * 64);
	send_to(sender[k], buf, len, at(to[k], server_at.in6.sin6_port));
	put_seq++;
}

static void take(void)
{
	static uint8_t buf[BIG + 1];
	char control[256] __attribute__((aligned(8)));
	union name from = { 0 };
	struct iovec v = { buf, sizeof(buf) };
	struct msghdr mh = { .msg_name = &from, .msg_namelen = sizeof(from), .msg_iov = &v, .msg_iovlen = 1, .msg_control = control,
			     .msg_controllen = sizeof(control) };
	union name dest = { .in6 = { .sin6_family = AF_INET6 } };
	struct in6_pktinfo pi;
	struct cmsghdr *c;
	int k = (int)(got_seq % 3), hops = 0, class = -1;
	size_t len = length(got_seq);

	if (k != 1 && len == BIG)
		len = 700;
	WL_EQ("length", len, WL_SYS(recvmsg(server, &mh, 0)));
	WL_EQ("control data that fits", 0, mh.msg_flags & MSG_CTRUNC);
	wl_verify("datagram", buf, len, 1, got_seq * 64);
	same6("sender", seen_from[k], sender_at[k].in6.sin6_port, &from);
	for (c = CMSG_FIRSTHDR(&mh); c; c = CMSG_NXTHDR(&mh, c)) {
		if (c->cmsg_level == IPPROTO_IPV6 && c->cmsg_type == IPV6_PKTINFO) {
			memcpy(&pi, CMSG_DATA(c), sizeof(pi));
			dest.in6.sin6_addr = pi.ipi6_addr;
		} else if ((c->cmsg_level == IPPROTO_IPV6 && c->cmsg_type == IPV6_HOPLIMIT) || (c->cmsg_level == IPPROTO_IP && c->cmsg_type == IP_TTL)) {
			memcpy(&hops, CMSG_DATA(c), sizeof(hops));
		} else if (c->cmsg_level == IPPROTO_IPV6 && c->cmsg_type == IPV6_TCLASS) {
			memcpy(&class, CMSG_DATA(c), sizeof(class));
		} else if (c->cmsg_level == IPPROTO_IP && c->cmsg_type == IP_TOS) {
			class = *CMSG_DATA(c);
		}
	}
	same6("its address", seen_to[k], 0, &dest);
	WL_EQ("hops", 50 + k, hops);
	WL_EQ("class", k == 1 ? 0x28 : 8, class);
	got_seq++;
}

static void setup_server(void)
{
	int i;

	server = udp(AF_INET6);
	set(server, IPPROTO_IPV6, IPV6_V6ONLY, 0);
	set(server, SOL_SOCKET, SO_RCVBUF, 2 << 20);
	bind_to(server, at("::", 0));
	server_at = name_of(server);
	set(server, IPPROTO_IPV6, IPV6_RECVPKTINFO, 1);
	set(server, IPPROTO_IPV6, IPV6_RECVHOPLIMIT, 1);
	set(server, IPPROTO_IPV6, IPV6_RECVTCLASS, 1);
	set(server, IPPROTO_IP, IP_RECVTTL, 1);
	set(server, IPPROTO_IP, IP_RECVTOS, 1);
	for (i = 0; i < 3; i++) {
		sender[i] = udp(i ? AF_INET6 : AF_INET);
		bind_to(sender[i], at(i == 0 ? "127.0.0.1" : seen_from[i], 0));
		sender_at[i] = name_of(sender[i]);
		if (i == 1) {
			set(sender[i], IPPROTO_IPV6, IPV6_UNICAST_HOPS, 51);
			set(sender[i], IPPROTO_IPV6, IPV6_TCLASS, 0x28);
			set(sender[i], SOL_SOCKET, SO_SNDBUF, 1 << 20);
		} else {
			set(sender[i], IPPROTO_IP, IP_TTL, 50 + i);
			set(sender[i], IPPROTO_IP, IP_TOS, 8);
		}
	}
	for (i = 0; i < NWAIT; i++)
		put();
}

/* ---- the others */

static int echo_child(void *arg)
{
	int fd = *(int *)arg;
	uint8_t buf[2000];

	for (;;) {
		union name from;
		socklen_t len = sizeof(from);
		ssize_t n = WL_SYS(recvfrom(fd, buf, sizeof(buf), 0, &from.sa, &len));

		if (!n)
			return 61;
		send_to(fd, buf, (size_t)n, from);
	}
}

static void echo_some(void)
{
	uint8_t buf[2000];
	size_t n = 1 + echo_seq * 67 % sizeof(buf);

	wl_fill(buf, n, 9, echo_seq * 64);
	WL_EQ("send", n, WL_SYS(send(echo, buf, n, 0)));
	wl_pace();
	WL_EQ("echo", n, WL_SYS(recv(echo, buf, sizeof(buf), 0)));
	wl_verify("echo", buf, n, 9, echo_seq++ * 64);
}

static void setup_others(void)
{
	only6 = udp(AF_INET6);
	set(only6, IPPROTO_IPV6, IPV6_V6ONLY, 1);
	bind_to(only6, at("::", 0));
	only_at = name_of(only6);
	only4 = udp(AF_INET);
	bind_to(only4, at("0.0.0.0", only_at.in6.sin6_port));
	conn[0] = udp(AF_INET6);
	conn[1] = udp(AF_INET6);
	bind_to(conn[0], at("::1", 0));
	bind_to(conn[1], at("::1", 0));
	connect_to(conn[0], name_of(conn[1]));
	connect_to(conn[1], name_of(conn[0]));
	mapped[0] = udp(AF_INET6);
	mapped[1] = udp(AF_INET6);
	bind_to(mapped[0], at("::ffff:127.0.0.5", 0));
	bind_to(mapped[1], at("::ffff:127.0.0.6", 0));
	connect_to(mapped[0], name_of(mapped[1]));
	connect_to(mapped[1], name_of(mapped[0]));
	chosen = udp(AF_INET6);
	connect_to(chosen, at("::1", htons(9)));
	corked = udp(AF_INET6);
	connect_to(corked, server_at);
	set(corked, IPPROTO_UDP, UDP_CORK, 1);
	fresh = (int)WL_SYS(socket(AF_INET6, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
	set(fresh, IPPROTO_IPV6, IPV6_RECVERR, 1);
	set(fresh, IPPROTO_IPV6, IPV6_MULTICAST_HOPS, 7);
	set(fresh, IPPROTO_IPV6, IPV6_MULTICAST_LOOP, 0);
}

static void check_pair(const int fd[2], uint64_t round)
{
	char c = (char)round, d = 0;
	int i;

	for (i = 0; i < 2; i++) {
		WL_EQ("send", 1, WL_SYS(send(fd[i], &c, 1, 0)));
		WL_EQ("recv", 1, WL_SYS(recv(fd[1 - i], &d, 1, 0)));
		WL_EQ("byte of a connection", c, d);
	}
}

static void check_others(uint64_t round)
{
	union name n = name_of(mapped[0]), peer = { 0 };
	in_port_t port = only_at.in6.sin6_port;
	socklen_t len = sizeof(peer);
	char c = 0;

	check_pair(conn, round);
	check_pair(mapped, round);
	same6("name of a mapped one", "::ffff:127.0.0.5", n.in6.sin6_port, &n);
	WL_SYS(getpeername(chosen, &peer.sa, &len));
	same6("peer", "::1", htons(9), &peer);
	n = name_of(chosen);
	same6("address of the kernel's choice", "::1", n.in6.sin6_port, &n);
	/* each has its own of the same port */
	send_to(sender[0], "4", 1, at("127.0.0.1", port));
	send_to(sender[1], "6", 1, at("::1", port));
	WL_EQ("recv", 1, WL_SYS(recv(only4, &c, 1, 0)));
	WL_EQ("for IPv4", '4', c);
	WL_EQ("recv", 1, WL_SYS(recv(only6, &c, 1, 0)));
	WL_EQ("for IPv6", '6', c);
	WL_EQ("IPV6_V6ONLY", 1, get(only6, IPPROTO_IPV6, IPV6_V6ONLY));
	WL_EQ("IPV6_V6ONLY", 0, get(server, IPPROTO_IPV6, IPV6_V6ONLY));
	WL_EQ("IPV6_UNICAST_HOPS", 51, get(sender[1], IPPROTO_IPV6, IPV6_UNICAST_HOPS));
	WL_EQ("UDP_CORK", 1, get(corked, IPPROTO_UDP, UDP_CORK));
	WL_EQ("IPV6_RECVERR", 1, get(fresh, IPPROTO_IPV6, IPV6_RECVERR));
	WL_EQ("IPV6_MULTICAST_HOPS", 7, get(fresh, IPPROTO_IPV6, IPV6_MULTICAST_HOPS));
	WL_EQ("IPV6_MULTICAST_LOOP", 0, get(fresh, IPPROTO_IPV6, IPV6_MULTICAST_LOOP));
	WL_EQ("flags", O_RDWR | O_NONBLOCK, WL_SYS(fcntl(fresh, F_GETFL)));
	n = name_of(fresh);
	same6("a fresh one", "::", 0, &n);
}

static void finish(pid_t kid)
{
	struct sockaddr none = { .sa_family = AF_UNSPEC };
	union name n;

	while (got_seq < put_seq)
		take();
	WL_SYS(send(echo, "", 0, 0));
	wl_reap(kid, 61);
	WL_SYS(connect(mapped[0], &none, sizeof(none)));
	n = name_of(mapped[0]);
	same6("address that was bound", "::ffff:127.0.0.5", n.in6.sin6_port, &n);
	WL_SYS(connect(chosen, &none, sizeof(none)));
	n = name_of(chosen);
	same6("address that was not", "::", n.in6.sin6_port, &n);
	bind_to(fresh, at("::1", 0));
}

int main(void)
{
	uint64_t round = 0;
	int echo_fd;
	pid_t kid;

	wl_init();
	echo_fd = socket(AF_INET6, SOCK_DGRAM, 0);
	echo_name = at("::1", 0);
	if (echo_fd < 0 || bind(echo_fd, &echo_name.sa, size_of(&echo_name)) < 0) {
		printf("skip: no IPv6 here: %s\n", strerror(errno));
		return 77;
	}
	setup_server();
	setup_others();
	echo = udp(AF_INET6);
	connect_to(echo, name_of(echo_fd));
	kid = wl_spawn(echo_child, &echo_fd);
	wl_ready();
	while (!wl_stopping()) {
		take();
		put();
		echo_some();
		check_others(round++);
		wl_pace();
	}
	finish(kid);
	wl_ok();
}
