/* SPDX-License-Identifier: GPL-3.0-or-later */
/* UDP sockets are moved between two namespaces: what the workload cannot see from inside. */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/udp.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "netfreeze/udp_int.h"
#include "pod/base/io.h"
#include "tests/harness.h"
#include "tests/net/world.h"

static struct sockaddr_in at(const char *ip, uint16_t port)
{
	struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(port)};

	a.sin_addr.s_addr = inet_addr(ip);
	return a;
}

static int make(int ns, const char *ip, uint16_t port)
{
	struct sockaddr_in a = at(ip, port);
	struct err e = {0};
	int fd;

	T_OK(fd = netns_socket(ns, AF_INET, SOCK_DGRAM, IPPROTO_UDP, &e), &e);
	T_REQUIRE(bind(fd, (struct sockaddr *)&a, sizeof(a)) == 0);
	return fd;
}

static void send_to(int fd, const char *text, const char *ip, uint16_t port)
{
	struct sockaddr_in a = at(ip, port);

	T_REQUIRE(sendto(fd, text, strlen(text), 0, (struct sockaddr *)&a, sizeof(a)) ==
		  (ssize_t)strlen(text));
}

static void await_data(int fd)
{
	struct pollfd p = {.fd = fd, .events = POLLIN};

	T_REQUIRE(poll(&p, 1, 60000) == 1);
}

/* To the other place; the same fd afterwards. */
static void move(struct world *w, int fd)
{
	struct place *to = w->at == &w->a ? &w->b : &w->a;
	struct udp_state s;
	struct err e = {0};
	int n;

	T_OK(filter_set(w->at->filter, FILTER_BLOCK, &e), &e);
	T_OK(udp_save(fd, w->at->ns, &s, &e), &e);
	T_OK(n = netns_socket(to->ns, s.v6 ? AF_INET6 : AF_INET, SOCK_DGRAM, IPPROTO_UDP, &e), &e);
	T_OK(udp_restore_on(n, to->ns, &s, &e), &e);
	T_OK(udp_release(n, &s, &e), &e);
	udp_state_done(&s);
	T_REQUIRE(dup3(n, fd, O_CLOEXEC) == fd);
	close(n);
	w->at = to;
}

static void expect(int fd, const char *text, const char *from, const char *to)
{
	struct sockaddr_in a = {0};
	char buf[64] = "", control[256], ip[INET_ADDRSTRLEN];
	struct iovec v = {buf, sizeof(buf) - 1};
	struct msghdr mh = {.msg_name = &a, .msg_namelen = sizeof(a), .msg_iov = &v,
			    .msg_iovlen = 1, .msg_control = control,
			    .msg_controllen = sizeof(control)};
	struct in_pktinfo pi = {0};
	struct cmsghdr *c;

	T_REQUIRE(recvmsg(fd, &mh, MSG_DONTWAIT) >= 0);
	T_CHECK_STR(buf, text);
	T_CHECK_STR(inet_ntop(AF_INET, &a.sin_addr, ip, sizeof(ip)), from);
	for (c = CMSG_FIRSTHDR(&mh); c; c = CMSG_NXTHDR(&mh, c))
		if (c->cmsg_level == IPPROTO_IP && c->cmsg_type == IP_PKTINFO)
			memcpy(&pi, CMSG_DATA(c), sizeof(pi));
	T_CHECK_STR(inet_ntop(AF_INET, &pi.ipi_addr, ip, sizeof(ip)), to);
}

/* From outside, to the pod's address and to a group, also over a device that it is bound to. */
static void test_from_outside(void)
{
	struct ip_mreq m = {.imr_interface.s_addr = inet_addr(POD_IP),
			    .imr_multiaddr.s_addr = inet_addr("239.77.0.1")};
	struct in_addr out = {inet_addr(PEER_IP)};
	char dev[16] = "";
	socklen_t len = sizeof(dev);
	struct err e = {0};
	struct world w;
	int p, q, one = 1, i, marker;

	world_init(&w);
	p = make(w.at->ns, "0.0.0.0", 5000);
	q = make(w.peer, PEER_IP, 5001);
	T_REQUIRE(setsockopt(p, SOL_SOCKET, SO_BINDTODEVICE, "eth0", 5) == 0);
	T_REQUIRE(setsockopt(p, IPPROTO_IP, IP_PKTINFO, &one, sizeof(one)) == 0);
	T_REQUIRE(setsockopt(p, IPPROTO_IP, IP_ADD_MEMBERSHIP, &m, sizeof(m)) == 0);
	T_REQUIRE(setsockopt(q, IPPROTO_IP, IP_MULTICAST_IF, &out, sizeof(out)) == 0);
	send_to(q, "unicast", POD_IP, 5000);
	await_data(p);
	send_to(q, "multicast", "239.77.0.1", 5000);
	send_to(q, "unicast again", POD_IP, 5000);
	marker = make(w.at->ns, POD_IP, 5002);
	send_to(q, "all have come", POD_IP, 5002);
	await_data(marker);
	close(marker);
	for (i = 0; i < 3; i++) {
		move(&w, p);
		T_CHECK(getsockopt(p, SOL_SOCKET, SO_BINDTODEVICE, dev, &len) == 0);
		T_CHECK_STR(dev, "eth0");
		len = sizeof(dev);
	}
	expect(p, "unicast", PEER_IP, POD_IP);
	expect(p, "multicast", PEER_IP, "239.77.0.1");
	expect(p, "unicast again", PEER_IP, POD_IP);
	T_REQUIRE(setsockopt(p, IPPROTO_IP, IP_DROP_MEMBERSHIP, &m, sizeof(m)) == 0);
	T_OK(filter_set(w.at->filter, FILTER_OPEN, &e), &e);
	close(p);
	close(q);
	world_done(&w);
}

/* Looking leaves the socket as it was, whatever the program has asked for. */
static void test_save_only(void)
{
	struct udp_state s;
	struct err e = {0};
	struct world w;
	int p, v = 3, i;
	char buf[8] = "";

	world_init(&w);
	p = make(w.at->ns, "127.0.0.1", 5000);
	for (i = 0; i < 3; i++)
		send_to(p, i ? "abc" : "", "127.0.0.1", 5000);
	T_REQUIRE(setsockopt(p, SOL_SOCKET, SO_PEEK_OFF, &v, sizeof(v)) == 0);
	for (i = 0; i < 2; i++) {
		socklen_t len = sizeof(v);

		T_OK(udp_save(p, w.at->ns, &s, &e), &e);
		T_CHECK_EQ(s.nqueue, 3);
		T_CHECK_EQ(s.queue[0].len, 0);
		T_CHECK_EQ(s.queue[1].len, 3);
		udp_state_done(&s);
		T_REQUIRE(getsockopt(p, SOL_SOCKET, SO_PEEK_OFF, &v, &len) == 0);
		T_CHECK_EQ(v, 3);
		T_REQUIRE(getsockopt(p, IPPROTO_IP, IP_PKTINFO, &v, &len) == 0);
		T_CHECK_EQ(v, 0);
		if (i == 0)
			move(&w, p);
	}
	T_CHECK_EQ(recv(p, buf, sizeof(buf), MSG_DONTWAIT), 0);
	T_CHECK_EQ(recv(p, buf, sizeof(buf), MSG_DONTWAIT), 3);
	T_CHECK_EQ(recv(p, buf, sizeof(buf), MSG_DONTWAIT), 3);
	T_CHECK(recv(p, buf, sizeof(buf), MSG_DONTWAIT) < 0);
	close(p);
	world_done(&w);
}

/* @text (NULL: @len zeros) from @from to @to, as an AF_INET6 socket has them. */
static void expect6(int fd, const char *text, size_t len, const char *from, const char *to)
{
	static uint8_t buf[UDP_DATA_MAX + 1];
	struct sockaddr_in6 a = {0};
	char control[256], ip[INET6_ADDRSTRLEN];
	struct iovec v = {buf, sizeof(buf)};
	struct msghdr mh = {.msg_name = &a, .msg_namelen = sizeof(a), .msg_iov = &v,
			    .msg_iovlen = 1, .msg_control = control,
			    .msg_controllen = sizeof(control)};
	struct in6_pktinfo pi = {0};
	struct cmsghdr *c;
	size_t i;

	T_CHECK_EQ(recvmsg(fd, &mh, MSG_DONTWAIT), (ssize_t)len);
	for (i = 0; i < len && buf[i] == (text ? (uint8_t)text[i] : 0); i++)
		;
	T_CHECK_EQ(i, len);
	T_CHECK_STR(inet_ntop(AF_INET6, &a.sin6_addr, ip, sizeof(ip)), from);
	for (c = CMSG_FIRSTHDR(&mh); c; c = CMSG_NXTHDR(&mh, c))
		if (c->cmsg_level == IPPROTO_IPV6 && c->cmsg_type == IPV6_PKTINFO)
			memcpy(&pi, CMSG_DATA(c), sizeof(pi));
	T_CHECK_STR(inet_ntop(AF_INET6, &pi.ipi6_addr, ip, sizeof(ip)), to);
}

/* What came from outside over IPv4 and from ::1, to one socket; the longest that there can be. */
static void test_dual_stack(void)
{
	static const uint8_t zeros[UDP_DATA_MAX];
	struct sockaddr_in6 any = {.sin6_family = AF_INET6, .sin6_port = htons(5000)}, lo = any;
	struct ipv6_mreq m = {.ipv6mr_interface = 1};
	struct err e = {0};
	struct world w;
	int p, q, r, one = 1, big = 1 << 20, i;
	socklen_t len = sizeof(i);

	world_init(&w);
	lo.sin6_addr = in6addr_loopback;
	T_OK(p = netns_socket(w.at->ns, AF_INET6, SOCK_DGRAM, IPPROTO_UDP, &e), &e);
	T_OK(r = netns_socket(w.at->ns, AF_INET6, SOCK_DGRAM, IPPROTO_UDP, &e), &e);
	T_REQUIRE(setsockopt(p, SOL_SOCKET, SO_RCVBUFFORCE, &big, sizeof(big)) == 0);
	T_REQUIRE(setsockopt(r, SOL_SOCKET, SO_SNDBUFFORCE, &big, sizeof(big)) == 0);
	T_REQUIRE(bind(p, (struct sockaddr *)&any, sizeof(any)) == 0);
	q = make(w.peer, PEER_IP, 5001);
	send_to(q, "over IPv4", POD_IP, 5000);
	await_data(p);
	T_REQUIRE(sendto(r, zeros, sizeof(zeros), 0, (struct sockaddr *)&lo, sizeof(lo)) == sizeof(zeros));
	T_REQUIRE(sendto(r, "odd", 3, 0, (struct sockaddr *)&lo, sizeof(lo)) == 3);
	for (i = 0; i < 3; i++)
		move(&w, p);
	T_REQUIRE(getsockopt(p, IPPROTO_IPV6, IPV6_RECVPKTINFO, &i, &len) == 0);
	T_CHECK_EQ(i, 0);
	T_REQUIRE(setsockopt(p, IPPROTO_IPV6, IPV6_RECVPKTINFO, &one, sizeof(one)) == 0);
	expect6(p, "over IPv4", 9, "::ffff:" PEER_IP, "::ffff:" POD_IP);
	expect6(p, NULL, sizeof(zeros), "::1", "::1");
	expect6(p, "odd", 3, "::1", "::1");
	T_OK(udp_check(r, w.a.ns, &e), &e);
	T_REQUIRE(inet_pton(AF_INET6, "ff02::4711", &m.ipv6mr_multiaddr) == 1);
	T_REQUIRE(setsockopt(r, IPPROTO_IPV6, IPV6_JOIN_GROUP, &m, sizeof(m)) == 0);
	T_FAILS(udp_check(r, w.a.ns, &e), -EOPNOTSUPP);
	T_CHECK_HAS(e.msg, "group of IPv6");
	T_REQUIRE(setsockopt(r, IPPROTO_IPV6, IPV6_LEAVE_GROUP, &m, sizeof(m)) == 0);
	T_OK(udp_check(r, w.a.ns, &e), &e);
	T_REQUIRE(setsockopt(r, IPPROTO_IPV6, IPV6_MULTICAST_IF, &one, sizeof(one)) == 0);
	T_FAILS(udp_check(r, w.a.ns, &e), -EOPNOTSUPP);
	T_CHECK_HAS(e.msg, "IPV6_MULTICAST_IF");
	close(p);
	close(q);
	close(r);
	world_done(&w);
}

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
	struct sockaddr_in a;
	struct err e = {0};
	struct world w;
	int p, q, v = 1;
	char buf[8];

	world_init(&w);
	p = make(w.at->ns, "127.0.0.1", 5000);
	q = make(w.at->ns, "127.0.0.1", 5001);
	T_OK(udp_check(p, w.at->ns, &e), &e);
	a = at("127.0.0.1", 5001);
	T_REQUIRE(sendto(p, "ab", 2, MSG_MORE, (struct sockaddr *)&a, sizeof(a)) == 2);
	T_FAILS(udp_check(p, w.at->ns, &e), -EOPNOTSUPP);
	T_CHECK_HAS(e.msg, "corked");
	T_REQUIRE(send(p, "c", 1, 0) == 1); /* what was corked knows where it goes */
	T_CHECK_EQ(recv(q, buf, sizeof(buf), MSG_DONTWAIT), 3);
	T_OK(udp_check(p, w.at->ns, &e), &e);
	T_REQUIRE(setsockopt(q, SOL_SOCKET, SO_ATTACH_FILTER, &prog, sizeof(prog)) == 0);
	T_OK(udp_check(q, w.at->ns, &e), &e); /* carried as any socket's */
	T_REQUIRE(setsockopt(p, SOL_SOCKET, SO_ZEROCOPY, &v, sizeof(v)) == 0);
	T_FAILS(udp_check(p, w.at->ns, &e), -EOPNOTSUPP);
	T_CHECK_HAS(e.msg, "SO_ZEROCOPY");
	close(p);
	close(q);
	world_done(&w);
}

static void test_hostile_state(void)
{
	struct udp_state s = {.local = {.sin_family = AF_INET}};
	struct udp_dgram d = {.len = 70000};
	struct err e = {0};
	struct world w;
	int fd;

	world_init(&w);
	T_OK(fd = netns_socket(w.a.ns, AF_INET, SOCK_DGRAM, 0, &e), &e);
	s.nopt = 65;
	T_FAILS(udp_restore_on(fd, w.a.ns, &s, &e), -EPROTO);
	s.nopt = 1;
	s.opt[0] = (struct sock_opt){SOL_SOCKET, SO_ATTACH_FILTER, 4, {0}};
	T_FAILS(udp_restore_on(fd, w.a.ns, &s, &e), -EPROTO);
	s.nopt = 0;
	s.queue = &d;
	s.nqueue = 1;
	T_FAILS(udp_restore_on(fd, w.a.ns, &s, &e), -EPROTO);
	d.len = 7;
	T_FAILS(udp_restore_on(fd, w.a.ns, &s, &e), -EPROTO);
	d.len = 0;
	d.v6 = true; /* to a socket of IPv4 */
	T_FAILS(udp_restore_on(fd, w.a.ns, &s, &e), -EPROTO);
	s.nqueue = 0;
	s.sndbuf = s.rcvbuf = 50000;
	T_OK(udp_restore_on(fd, w.a.ns, &s, &e), &e);
	close(fd);
	world_done(&w);
}

static const struct test_case cases[] = {
	{"from_outside", test_from_outside},
	{"save_only", test_save_only},
	{"dual_stack", test_dual_stack},
	{"refusals", test_refusals},
	{"hostile_state", test_hostile_state},
};

const struct test_suite udp_suite = {"udp", cases, ARRAY_SIZE(cases)};
