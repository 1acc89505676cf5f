/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * UDP over IPv4 within the pod: datagrams of all sizes that always wait in a queue, from several
 * senders and to several addresses of one socket; an echo to a child that blocks in recvfrom(2); a
 * SO_REUSEPORT group whose members each have a queue, and a socket that shares its port by
 * SO_REUSEADDR; connected sockets that were bound before, or not, and share a server's port; multicast
 * memberships with and without sources; options of every sort; a corked socket; a fresh one.
 */
#include "wl.h"
#include "wl_sock.h"

#include <arpa/inet.h>
#include <net/if.h>
#include <netinet/in.h>
#include <netinet/udp.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#define NSEND	3
#define NWAIT	24	/* datagrams that wait at the server */
#define NMEMBER 3	/* of the SO_REUSEPORT group */
#define RING	64
#define GROUP	"239.77.1.2"
#define GROUP2	"239.77.1.3"

static struct sockaddr_in own, server_at, group_at, cast_at;
static int server, sender[NSEND], conn[2], dual, member[NMEMBER], echo, cast[3], caster, corked,
	cork_to, fresh, deaf;
static struct sockaddr_in sender_at[NSEND], corked_at;
static uint64_t put_seq, got_seq, echo_seq, cast_seq;
/* what each member is to say next */
static uint64_t expected[NMEMBER][RING], group_seq;
static unsigned first[NMEMBER], last[NMEMBER];
static const char *to_addr[] = { "127.0.0.1", "127.0.0.9", NULL };

static int udp(void)
{
	return (int)WL_SYS(socket(AF_INET, SOCK_DGRAM, 0));
}

static struct sockaddr_in at(const char *ip, int port)
{
	struct sockaddr_in sa = { .sin_family = AF_INET, .sin_port = htons((uint16_t)port) };

	sa.sin_addr.s_addr = ip ? inet_addr(ip) : own.sin_addr.s_addr;
	return sa;
}

static struct sockaddr_in name_of(int fd)
{
	struct sockaddr_in sa = { 0 };
	socklen_t len = sizeof(sa);

	WL_SYS(getsockname(fd, (struct sockaddr *)&sa, &len));
	return sa;
}

static void bind_to(int fd, struct sockaddr_in sa)
{
	WL_SYS(bind(fd, (struct sockaddr *)&sa, sizeof(sa)));
}

static void connect_to(int fd, struct sockaddr_in sa)
{
	WL_SYS(connect(fd, (struct sockaddr *)&sa, sizeof(sa)));
}

static void send_to(int fd, const void *buf, size_t len, const struct sockaddr_in *sa)
{
	WL_EQ("sent", len, WL_SYS(sendto(fd, buf, len, 0, (const void *)sa, sizeof(*sa))));
}

static void same(const char *what, const struct sockaddr_in *a, const struct sockaddr_in *b)
{
	WL_CHECK(a->sin_port == b->sin_port && a->sin_addr.s_addr == b->sin_addr.s_addr,
		 "%s: expected %08x:%d, got %08x:%d", what, ntohl(a->sin_addr.s_addr),
		 ntohs(a->sin_port), ntohl(b->sin_addr.s_addr), ntohs(b->sin_port));
}

static void find_own(void)
{
	struct ifreq ifr = { .ifr_name = "eth0" };
	int fd = udp();

	own = at("127.0.0.1", 0);
	if (ioctl(fd, SIOCGIFADDR, &ifr) == 0)
		own.sin_addr = ((struct sockaddr_in *)&ifr.ifr_addr)->sin_addr;
	WL_SYS(close(fd));
}

/* ---- datagrams that wait */

static size_t length(uint64_t seq)
{
	return seq % 7 == 3 ? 0 : seq % 29 == 5 ? 40000 : wl_mix(seq) % 1500;
}

static void put(void)
{
	static uint8_t buf[40000];
	size_t len = length(put_seq);
	struct sockaddr_in to = at(to_addr[put_seq % 3], ntohs(server_at.sin_port));

	wl_fill(buf, len, 1, put_seq * 64);
	send_to(sender[put_seq % NSEND], buf, len, &to);
	put_seq++;
}

static void take(void)
{
	static uint8_t buf[40001];
	char control[256];
	struct sockaddr_in from = { 0 }, to = at(to_addr[got_seq % 3], 0);
	struct iovec v = { buf, sizeof(buf) };
	struct msghdr mh = { .msg_name = &from, .msg_namelen = sizeof(from), .msg_iov = &v,
			     .msg_iovlen = 1, .msg_control = control,
			     .msg_controllen = sizeof(control) };
	struct cmsghdr *c;
	struct in_pktinfo pi = { 0 };
	int ttl = 0, tos = 0;

	WL_EQ("length", length(got_seq), WL_SYS(recvmsg(server, &mh, 0)));
	wl_verify("datagram", buf, length(got_seq), 1, got_seq * 64);
	same("sender", &sender_at[got_seq % NSEND], &from);
	for (c = CMSG_FIRSTHDR(&mh); c; c = CMSG_NXTHDR(&mh, c)) {
		if (c->cmsg_type == IP_PKTINFO)
			memcpy(&pi, CMSG_DATA(c), sizeof(pi));
		else if (c->cmsg_type == IP_TTL)
			memcpy(&ttl, CMSG_DATA(c), sizeof(ttl));
		else if (c->cmsg_type == IP_TOS)
			tos = *CMSG_DATA(c);
	}
	WL_EQ("its address", ntohl(to.sin_addr.s_addr), ntohl(pi.ipi_addr.s_addr));
	WL_EQ("TTL", 50 + got_seq % NSEND, ttl);
	WL_EQ("TOS", 8, tos);
	got_seq++;
}

static void setup_server(void)
{
	int i;

	server = udp();
	set(server, SOL_SOCKET, SO_REUSEADDR, 1);
	set(server, SOL_SOCKET, SO_RCVBUF, 1 << 20);
	bind_to(server, at("0.0.0.0", 0));
	server_at = name_of(server);
	set(server, IPPROTO_IP, IP_PKTINFO, 1);
	set(server, IPPROTO_IP, IP_RECVTTL, 1);
	set(server, IPPROTO_IP, IP_RECVTOS, 1);
	for (i = 0; i < NSEND; i++) {
		sender[i] = udp();
		bind_to(sender[i], at("127.0.0.1", 0));
		set(sender[i], IPPROTO_IP, IP_TTL, 50 + i);
		set(sender[i], IPPROTO_IP, IP_TOS, 8);
		sender_at[i] = name_of(sender[i]);
	}
	for (i = 0; i < NWAIT; i++)
		put();
}

/* ---- connections, one of them on the server's port */

static void setup_connections(void)
{
	struct sockaddr_in sa;

	conn[0] = udp();
	bind_to(conn[0], at("127.0.0.5", 0));
	conn[1] = udp();
	set(conn[1], SOL_SOCKET, SO_REUSEADDR, 1);
	bind_to(conn[1], at("127.0.0.6", ntohs(server_at.sin_port)));
	connect_to(conn[1], name_of(conn[0]));
	connect_to(conn[0], name_of(conn[1]));
	dual = udp(); /* a port of the kernel's choice, never bound */
	sa = at("127.0.0.1", 9);
	connect_to(dual, sa);
}

static void check_connections(uint64_t round)
{
	char c = (char)round, d = 0;
	struct sockaddr_in a = name_of(conn[0]), b = { 0 };
	socklen_t len = sizeof(b);
	int i;

	for (i = 0; i < 2; i++) {
		WL_EQ("send", 1, WL_SYS(send(conn[i], &c, 1, 0)));
		WL_EQ("recv", 1, WL_SYS(recv(conn[1 - i], &d, 1, 0)));
		WL_EQ("byte of a connection", c, d);
	}
	WL_SYS(getpeername(conn[1], (struct sockaddr *)&b, &len));
	same("peer", &a, &b);
	WL_SYS(getpeername(dual, (struct sockaddr *)&b, &len));
	WL_EQ("peer's port", 9, ntohs(b.sin_port));
	WL_EQ("address", INADDR_LOOPBACK, ntohl(name_of(dual).sin_addr.s_addr));
	/* nobody else may speak to a connected socket */
	send_to(sender[0], &c, 1, &a);
	errno = 0;
	WL_EQ("a stranger's datagram", -1, recv(conn[0], &d, 1, MSG_DONTWAIT));
	WL_EQ("errno", EAGAIN, errno);
}

/* ---- the group */

/* Walks over a member's queue and leaves it as it is. */
static bool has_it(int fd, uint64_t seq)
{
	bool found = false;
	uint64_t v;

	set(fd, SOL_SOCKET, SO_PEEK_OFF, 0);
	while (!found && recv(fd, &v, sizeof(v), MSG_PEEK | MSG_DONTWAIT) == sizeof(v))
		found = v == seq;
	set(fd, SOL_SOCKET, SO_PEEK_OFF, -1);
	return found;
}

static void group_put(void)
{
	int i, n = 0, fd = udp(); /* each from a new port */

	send_to(fd, &group_seq, sizeof(group_seq), &group_at);
	WL_SYS(close(fd));
	for (i = 0; i < NMEMBER; i++)
		if (has_it(member[i], group_seq)) {
			expected[i][last[i]++ % RING] = group_seq;
			n++;
		}
	WL_EQ("members that have it", 1, n);
	group_seq++;
}

static void group_take(void)
{
	uint64_t v = 0;
	int i;

	for (i = 0; i < NMEMBER; i++)
		while (last[i] - first[i] > 8) {
			WL_EQ("length", sizeof(v), WL_SYS(recv(member[i], &v, sizeof(v), 0)));
			WL_EQ("a member's next", expected[i][first[i]++ % RING], v);
		}
}

static void setup_group(void)
{
	int i;

	for (i = 0; i < NMEMBER; i++) {
		member[i] = udp();
		set(member[i], SOL_SOCKET, SO_REUSEPORT, 1);
		bind_to(member[i], i ? group_at : at("127.0.0.1", 0));
		group_at = name_of(member[0]);
	}
	for (i = 0; i < 20; i++)
		group_put();
}

/* ---- multicast */

static void setup_multicast(void)
{
	struct ip_mreqn m = { .imr_address = own.sin_addr };
	struct ip_mreq_source ms = { .imr_interface = own.sin_addr };
	int i;

	cast_at = at(GROUP, 0);
	for (i = 0; i < 3; i++) {
		cast[i] = udp();
		set(cast[i], SOL_SOCKET, SO_REUSEADDR, 1);
		bind_to(cast[i], at("0.0.0.0", ntohs(cast_at.sin_port)));
		set(cast[i], IPPROTO_IP, IP_MULTICAST_ALL, 0);
		cast_at.sin_port = name_of(cast[i]).sin_port;
	}
	m.imr_multiaddr.s_addr = inet_addr(GROUP);
	WL_SYS(setsockopt(cast[0], IPPROTO_IP, IP_ADD_MEMBERSHIP, &m, sizeof(m)));
	/* only from ourselves; and the third only from somebody else */
	ms.imr_multiaddr.s_addr = inet_addr(GROUP);
	ms.imr_sourceaddr = own.sin_addr;
	WL_SYS(setsockopt(cast[1], IPPROTO_IP, IP_ADD_SOURCE_MEMBERSHIP, &ms, sizeof(ms)));
	ms.imr_sourceaddr.s_addr = inet_addr("192.0.2.77");
	WL_SYS(setsockopt(cast[2], IPPROTO_IP, IP_ADD_SOURCE_MEMBERSHIP, &ms, sizeof(ms)));
	m.imr_multiaddr.s_addr = inet_addr(GROUP2);
	WL_SYS(setsockopt(cast[2], IPPROTO_IP, IP_ADD_MEMBERSHIP, &m, sizeof(m)));
	caster = udp();
	WL_SYS(setsockopt(caster, IPPROTO_IP, IP_MULTICAST_IF, &own.sin_addr, sizeof(own.sin_addr)));
	set(caster, IPPROTO_IP, IP_MULTICAST_TTL, 7);
	for (i = 0; i < 5; i++) {
		send_to(caster, &cast_seq, sizeof(cast_seq), &cast_at);
		cast_seq++;
	}
}

static void check_multicast(void)
{
	struct sockaddr_in to = at(GROUP2, ntohs(cast_at.sin_port));
	uint64_t v = 0;
	int i;

	for (i = 0; i < 2; i++) {
		WL_EQ("recv", sizeof(v), WL_SYS(recv(cast[i], &v, sizeof(v), 0)));
		WL_EQ("a multicast datagram", cast_seq - 5, v);
	}
	errno = 0;
	WL_EQ("another's multicast", -1, recv(cast[2], &v, sizeof(v), MSG_DONTWAIT));
	WL_EQ("errno", EAGAIN, errno);
	send_to(caster, &cast_seq, sizeof(cast_seq), &cast_at);
	cast_seq++;
	v = 4711;
	send_to(caster, &v, sizeof(v), &to);
	v = 0;
	WL_EQ("recv", sizeof(v), WL_SYS(recv(cast[2], &v, sizeof(v), 0)));
	WL_EQ("the second group", 4711, v);
	WL_EQ("IP_MULTICAST_TTL", 7, get(caster, IPPROTO_IP, IP_MULTICAST_TTL));
}

/* ---- echo */

static int echo_child(void *arg)
{
	int fd = *(int *)arg;
	uint8_t buf[2000];

	for (;;) {
		struct sockaddr_in from;
		socklen_t len = sizeof(from);
		ssize_t n = WL_SYS(recvfrom(fd, buf, sizeof(buf), 0, (struct sockaddr *)&from, &len));

		if (!n)
			return 91;
		send_to(fd, buf, (size_t)n, &from);
	}
}

static void echo_some(void)
{
	uint8_t buf[2000];
	size_t n = 1 + echo_seq * 67 % sizeof(buf);
	int i;

	for (i = 0; i < 4; i++) {
		wl_fill(buf, n, 9, (echo_seq + (uint64_t)i) * 64);
		WL_EQ("send", n, WL_SYS(send(echo, buf, n, 0)));
	}
	wl_pace();
	for (i = 0; i < 4; i++) {
		WL_EQ("echo", n, WL_SYS(recv(echo, buf, sizeof(buf), 0)));
		wl_verify("echo", buf, n, 9, echo_seq++ * 64);
	}
}

/* ---- options, and sockets that wait for their use */

static void setup_others(void)
{
	struct timeval tv = { 33, 0 };

	corked = udp();
	cork_to = udp();
	bind_to(cork_to, at("127.0.0.1", 0));
	connect_to(corked, name_of(cork_to));
	corked_at = name_of(corked);
	set(corked, IPPROTO_UDP, UDP_CORK, 1);
	set(corked, SOL_SOCKET, SO_SNDBUF, 70000);
	set(corked, SOL_SOCKET, SO_PRIORITY, 4);
	WL_SYS(setsockopt(corked, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof(tv)));
	fresh = (int)WL_SYS(socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
	set(fresh, SOL_SOCKET, SO_BROADCAST, 1);
	set(fresh, IPPROTO_IP, IP_RECVERR, 1);
	deaf = udp();
	connect_to(deaf, at("127.0.0.1", 9));
	WL_SYS(shutdown(deaf, SHUT_RD));
}

static void check_others(int snd)
{
	struct pollfd p = { .fd = deaf, .events = POLLIN | POLLRDHUP };
	struct timeval tv = { 0 };
	socklen_t len = sizeof(tv);
	struct sockaddr_in sa = name_of(corked);

	WL_EQ("UDP_CORK", 1, get(corked, IPPROTO_UDP, UDP_CORK));
	WL_EQ("SO_SNDBUF", snd, get(corked, SOL_SOCKET, SO_SNDBUF));
	WL_EQ("SO_PRIORITY", 4, get(corked, SOL_SOCKET, SO_PRIORITY));
	WL_SYS(getsockopt(corked, SOL_SOCKET, SO_RCVTIMEO, &tv, &len));
	WL_EQ("SO_RCVTIMEO", 33, tv.tv_sec);
	same("name", &corked_at, &sa);
	WL_EQ("SO_BROADCAST", 1, get(fresh, SOL_SOCKET, SO_BROADCAST));
	WL_EQ("IP_RECVERR", 1, get(fresh, IPPROTO_IP, IP_RECVERR));
	WL_EQ("flags", O_RDWR | O_NONBLOCK, WL_SYS(fcntl(fresh, F_GETFL)));
	WL_EQ("close-on-exec", FD_CLOEXEC, WL_SYS(fcntl(fresh, F_GETFD)));
	WL_EQ("port of a fresh socket", 0, name_of(fresh).sin_port);
	WL_EQ("SO_REUSEADDR", 1, get(server, SOL_SOCKET, SO_REUSEADDR));
	WL_EQ("SO_REUSEADDR of another", 0, get(sender[0], SOL_SOCKET, SO_REUSEADDR));
	WL_EQ("SO_REUSEPORT", 1, get(member[1], SOL_SOCKET, SO_REUSEPORT));
	WL_SYS(poll(&p, 1, 0));
	WL_EQ("events after shutdown", POLLIN | POLLRDHUP, p.revents);
}

static void finish(pid_t kid)
{
	struct sockaddr none = { .sa_family = AF_UNSPEC };
	char buf[8];
	int fd;

	while (got_seq < put_seq)
		take();
	WL_SYS(send(corked, "ab", 2, 0));
	WL_SYS(send(corked, "cde", 3, 0));
	set(corked, IPPROTO_UDP, UDP_CORK, 0);
	WL_EQ("corked pieces", 5, WL_SYS(recv(cork_to, buf, sizeof(buf), 0)));
	WL_SYS(send(echo, "", 0, 0));
	wl_reap(kid, 91);
	WL_SYS(connect(conn[0], &none, sizeof(none)));
	WL_EQ("address that was bound", inet_addr("127.0.0.5"), name_of(conn[0]).sin_addr.s_addr);
	WL_SYS(connect(dual, &none, sizeof(none)));
	WL_EQ("address that was not", 0, name_of(dual).sin_addr.s_addr);
	bind_to(fresh, at("127.0.0.1", 0));
	/* one more member may join */
	fd = udp();
	set(fd, SOL_SOCKET, SO_REUSEPORT, 1);
	bind_to(fd, group_at);
}

int main(void)
{
	uint64_t round = 0;
	int snd, echo_fd;
	bool multicast;
	pid_t kid;

	wl_init();
	find_own();
	multicast = own.sin_addr.s_addr != htonl(INADDR_LOOPBACK);
	setup_server();
	setup_connections();
	setup_group();
	if (multicast)
		setup_multicast();
	setup_others();
	echo_fd = udp();
	bind_to(echo_fd, at("127.0.0.1", 0));
	echo = udp();
	connect_to(echo, name_of(echo_fd));
	kid = wl_spawn(echo_child, &echo_fd);
	snd = get(corked, SOL_SOCKET, SO_SNDBUF);
	wl_ready();
	while (!wl_stopping()) {
		take();
		put();
		group_put();
		group_take();
		echo_some();
		check_connections(round);
		if (multicast)
			check_multicast();
		check_others(snd);
		round++;
		wl_pace();
	}
	finish(kid);
	wl_ok();
}
