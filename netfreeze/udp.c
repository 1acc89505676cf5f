/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * UDP sockets, saved and made again from outside. This file saves; udp_restore.c
 * restores.
 *
 * The queue. MSG_PEEK with SO_PEEK_OFF walks over the datagrams without taking them. What a program
 * can learn of one is its sender, its data, and by IP_PKTINFO and its like the address it was sent
 * to, TTL and TOS: those are in its header, so they can be asked now though the program has not
 * asked before. A pending error (an ICMP message) is not carried: asking for data takes it.
 *
 * How a queue is filled again: as packets over lo with the senders' addresses, made by a raw socket
 * in the pod's namespace. A socket that shares its port or is member of a group could not be hit
 * alone, so a new socket is filled while it has a port of its own, given by the kernel, and takes
 * its real name afterwards; leaving an address by connect(AF_UNSPEC) keeps the queue. The packets
 * are routed to 127.0.0.1 whatever their header says: the receiver sees the header, a multicast or
 * broadcast address too.
 *
 * Names. A socket that was bound by its first sendto() and one bound by bind(2) look the same; both
 * are bound here. They differ in what connect(AF_UNSPEC) leaves, no more. A connected one is bound
 * to its address only if the kernel would not choose the same.
 *
 * IPv6. As with TCP (tcp.c): the addresses are ::1 and mapped ones. A dual-stack socket gets packets of
 * both sorts into one queue, and each is made again as what it was. One of IPv6 that is longer than
 * what lo takes at once comes in two fragments.
 *
 * Memberships cannot be listed, but each group of the namespace (/proc/net/igmp) can be asked for
 * by IP_MSFILTER. A socket without one has no option memory.
 *
 * Not carried, and refused by name: corked data (a socket has it if a send of nothing to nowhere
 * succeeds), SO_ZEROCOPY, IP options, IP_UNICAST_IF, encapsulation; other addresses of IPv6, its groups, IPV6_MULTICAST_IF. Not
 * seen from a socket, hence lost: pending errors, datagrams of no length behind others that were
 * peeked at, IP_MULTICAST_IF given by index alone, shutdown for writing alone,
 * SO_ATTACH_REUSEPORT programs, reception times and (for datagrams that waited) the interface,
 * which becomes lo. Multicast and broadcasts that arrive while the pod stands still are lost, too.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/sock_diag.h>
#include <netinet/udp.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <net/if.h>
#include <linux/icmp.h> /* after net/if.h, or they clash */

#include "netfreeze/udp_int.h"
#include "pod/base/io.h"
#include "pod/base/util.h"

#ifndef IP_RECVERR_RFC4884
#define IP_RECVERR_RFC4884 26
#endif
#ifndef IPV6_MULTICAST_ALL
#define IPV6_MULTICAST_ALL 29
#endif
#ifndef IPV6_RECVERR_RFC4884
#define IPV6_RECVERR_RFC4884 31
#endif
#ifndef UDP_NO_CHECK6_TX
#define UDP_NO_CHECK6_TX 101
#define UDP_NO_CHECK6_RX 102
#endif
#ifndef UDP_SEGMENT
#define UDP_SEGMENT 103
#endif
#ifndef UDP_GRO
#define UDP_GRO 104
#endif
#ifndef IP_CHECKSUM
#define IP_CHECKSUM 23
#endif
#define MSG_PROBE_ 0x10 /* linux/socket.h: all of a send but the sending */

#define U_INT(lv, nm, when, dfl) INT_OPT(lv, nm, when, IN_ALL, dfl)

static const struct opt_row rows[] = {
	RAW_OPT(SOL_SOCKET, SO_BINDTODEVICE, IFNAMSIZ, OPT_BIND, IN_ALL),
	U_INT(SOL_SOCKET, SO_REUSEPORT, OPT_BIND, 0),
	U_INT(SOL_SOCKET, SO_REUSEADDR, OPT_RELEASE, 0),
	U_INT(SOL_SOCKET, SO_KEEPALIVE, OPT_EARLY, 0),
	U_INT(SOL_SOCKET, SO_PRIORITY, OPT_LATE, 0), /* IP_TOS sets it too */
	U_INT(SOL_SOCKET, SO_MARK, OPT_LATE, 0),
	U_INT(SOL_SOCKET, SO_BROADCAST, OPT_EARLY, 0),
	U_INT(SOL_SOCKET, SO_DONTROUTE, OPT_EARLY, 0),
	U_INT(SOL_SOCKET, SO_NO_CHECK, OPT_EARLY, 0),
	U_INT(SOL_SOCKET, SO_TIMESTAMP, OPT_EARLY, 0),
	U_INT(SOL_SOCKET, SO_TIMESTAMPNS, OPT_EARLY, 0),
	RAW_OPT(SOL_SOCKET, SO_TIMESTAMPING, 8, OPT_EARLY, IN_ALL),
	U_INT(SOL_SOCKET, SO_RXQ_OVFL, OPT_EARLY, 0),
	U_INT(SOL_SOCKET, SO_BUSY_POLL, OPT_EARLY, ALWAYS),
	U_INT(SOL_SOCKET, SO_INCOMING_CPU, OPT_RELEASE, -1),
	U_INT(SOL_SOCKET, SO_PEEK_OFF, OPT_RELEASE, -1),
	U_INT(SOL_SOCKET, SO_BUF_LOCK, OPT_RELEASE, ALWAYS),
	U_INT(SOL_SOCKET, SO_RCVLOWAT, OPT_RELEASE, 1),
	RAW_OPT(SOL_SOCKET, SO_LINGER, sizeof(struct linger), OPT_EARLY, IN_ALL),
	RAW_OPT(SOL_SOCKET, SO_RCVTIMEO, sizeof(struct timeval), OPT_RELEASE, IN_ALL),
	RAW_OPT(SOL_SOCKET, SO_SNDTIMEO, sizeof(struct timeval), OPT_RELEASE, IN_ALL),

	U_INT(IPPROTO_IP, IP_TOS, OPT_EARLY, 0),
	U_INT(IPPROTO_IP, IP_TTL, OPT_EARLY, ALWAYS),
	U_INT(IPPROTO_IP, IP_MTU_DISCOVER, OPT_EARLY, ALWAYS),
	U_INT(IPPROTO_IP, IP_TRANSPARENT, OPT_EARLY, 0),
	U_INT(IPPROTO_IP, IP_FREEBIND, OPT_EARLY, 0),
	U_INT(IPPROTO_IP, IP_RECVERR, OPT_EARLY, 0),
	U_INT(IPPROTO_IP, IP_RECVERR_RFC4884, OPT_EARLY, 0),
	U_INT(IPPROTO_IP, IP_PKTINFO, OPT_EARLY, 0),
	U_INT(IPPROTO_IP, IP_RECVTOS, OPT_EARLY, 0),
	U_INT(IPPROTO_IP, IP_RECVTTL, OPT_EARLY, 0),
	U_INT(IPPROTO_IP, IP_RECVOPTS, OPT_EARLY, 0),
	U_INT(IPPROTO_IP, IP_RETOPTS, OPT_EARLY, 0),
	U_INT(IPPROTO_IP, IP_RECVORIGDSTADDR, OPT_EARLY, 0),
	U_INT(IPPROTO_IP, IP_CHECKSUM, OPT_EARLY, 0),
	U_INT(IPPROTO_IP, IP_MINTTL, OPT_LATE, 0),
	U_INT(IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, OPT_EARLY, 0),
	U_INT(IPPROTO_IP, IP_LOCAL_PORT_RANGE, OPT_LATE, 0),
	U_INT(IPPROTO_IP, IP_MULTICAST_TTL, OPT_EARLY, 1),
	U_INT(IPPROTO_IP, IP_MULTICAST_LOOP, OPT_EARLY, 1),
	U_INT(IPPROTO_IP, IP_MULTICAST_ALL, OPT_BIND, 1), /* what waits may be of no group */
	RAW_OPT(IPPROTO_IP, IP_MULTICAST_IF, sizeof(struct in_addr), OPT_BIND, IN_ALL),

	U_INT(IPPROTO_IPV6, IPV6_V6ONLY, OPT_EARLY, ALWAYS),
	U_INT(IPPROTO_IPV6, IPV6_UNICAST_HOPS, OPT_EARLY, ALWAYS),
	U_INT(IPPROTO_IPV6, IPV6_MULTICAST_HOPS, OPT_EARLY, 1),
	U_INT(IPPROTO_IPV6, IPV6_MULTICAST_LOOP, OPT_EARLY, 1),
	U_INT(IPPROTO_IPV6, IPV6_MULTICAST_ALL, OPT_EARLY, 1),
	U_INT(IPPROTO_IPV6, IPV6_TCLASS, OPT_EARLY, 0),
	U_INT(IPPROTO_IPV6, IPV6_MTU_DISCOVER, OPT_EARLY, ALWAYS),
	U_INT(IPPROTO_IPV6, IPV6_DONTFRAG, OPT_EARLY, 0),
	U_INT(IPPROTO_IPV6, IPV6_RECVERR, OPT_EARLY, 0),
	U_INT(IPPROTO_IPV6, IPV6_RECVERR_RFC4884, OPT_EARLY, 0),
	U_INT(IPPROTO_IPV6, IPV6_RECVPKTINFO, OPT_EARLY, 0),
	U_INT(IPPROTO_IPV6, IPV6_2292PKTINFO, OPT_EARLY, 0),
	U_INT(IPPROTO_IPV6, IPV6_RECVTCLASS, OPT_EARLY, 0),
	U_INT(IPPROTO_IPV6, IPV6_RECVHOPLIMIT, OPT_EARLY, 0),
	U_INT(IPPROTO_IPV6, IPV6_2292HOPLIMIT, OPT_EARLY, 0),
	U_INT(IPPROTO_IPV6, IPV6_RECVPATHMTU, OPT_EARLY, 0),
	U_INT(IPPROTO_IPV6, IPV6_RECVORIGDSTADDR, OPT_EARLY, 0),
	U_INT(IPPROTO_IPV6, IPV6_RECVFRAGSIZE, OPT_EARLY, 0),
	U_INT(IPPROTO_IPV6, IPV6_TRANSPARENT, OPT_EARLY, 0),
	U_INT(IPPROTO_IPV6, IPV6_FREEBIND, OPT_EARLY, 0),
	U_INT(IPPROTO_IPV6, IPV6_MINHOPCOUNT, OPT_LATE, 0),
	U_INT(IPPROTO_IPV6, IPV6_AUTOFLOWLABEL, OPT_EARLY, ALWAYS),

	INT_OPT(IPPROTO_IP, IP_HDRINCL, OPT_EARLY, IN_RAW, ALWAYS),
	INT_OPT(IPPROTO_IP, IP_NODEFRAG, OPT_EARLY, IN_RAW, 0),
	RAW_OPT(SOL_RAW, ICMP_FILTER, sizeof(uint32_t), OPT_LATE, IN_RAW),

	U_INT(IPPROTO_UDP, UDP_NO_CHECK6_TX, OPT_EARLY, 0),
	U_INT(IPPROTO_UDP, UDP_NO_CHECK6_RX, OPT_EARLY, 0),
	U_INT(IPPROTO_UDP, UDP_SEGMENT, OPT_LATE, 0),
	U_INT(IPPROTO_UDP, UDP_GRO, OPT_LATE, 0),
	U_INT(IPPROTO_UDP, UDP_CORK, OPT_RELEASE, 0),
};
const struct opt_table udp_opts = {rows, ARRAY_SIZE(rows), IN_ALL};
const struct opt_table raw_opts = {rows, ARRAY_SIZE(rows), IN_ALL | IN_RAW};

const char *udp_addr(const struct sockaddr_in *a, char *buf)
{
	char ip[INET_ADDRSTRLEN] = "?";

	inet_ntop(AF_INET, &a->sin_addr, ip, sizeof(ip));
	snprintf(buf, 24, "%s:%u", ip, ntohs(a->sin_port));
	return buf;
}

static int get_int(int fd, int level, int name, int dfl)
{
	int v = dfl;
	socklen_t len = sizeof(v);

	return getsockopt(fd, level, name, &v, &len) < 0 ? dfl : v;
}

static int refuse(struct err *e, const char *what)
{
	return err_set(e, EOPNOTSUPP, "%s: cannot be carried", what);
}

/* Sending to port 0 is an error, but what is corked has its destination already. */
static bool has_corked_data(int fd)
{
	union inet_name at = {0}, nowhere = {0};
	socklen_t len = sizeof(at);

	/* the port is at the same place in both */
	if (getsockname(fd, &at.sa, &len) < 0 || !at.in.sin_port)
		return false; /* or the question would bind it */
	nowhere.sa.sa_family = at.sa.sa_family;
	return sendto(fd, "", 0, MSG_PROBE_ | MSG_MORE | MSG_DONTWAIT | MSG_NOSIGNAL, &nowhere.sa,
		      len) == 0;
}

/* ---- IPv6 */

struct member {
	int fd;
	bool is;
};

/* "Index Device Address Users ...": the groups of the namespace. */
static int find_group6(void *arg, struct err *e)
{
	struct member *m = arg;
	autofree char *text = NULL;
	char *line, *save = NULL;
	int r = io_read_file("/proc/thread-self/net/igmp6", 16u << 20, &text, NULL, e);

	for (line = r < 0 ? NULL : strtok_r(text, "\n", &save); line && !m->is;
	     line = strtok_r(NULL, "\n", &save)) {
		struct sockaddr_in6 group = {.sin6_family = AF_INET6};
		struct group_filter f = {0};
		socklen_t len = GROUP_FILTER_SIZE(0);
		unsigned i, b;
		int at = 0;

		if (sscanf(line, "%u %*s %n", &f.gf_interface, &at) != 1 || !at)
			continue;
		for (i = 0; i < 16 && sscanf(line + at + 2 * i, "%2x", &b) == 1; i++)
			group.sin6_addr.s6_addr[i] = (uint8_t)b;
		memcpy(&f.gf_group, &group, sizeof(group));
		m->is = getsockopt(m->fd, IPPROTO_IPV6, MCAST_MSFILTER, &f, &len) == 0;
	}
	return r == -ENOENT ? 0 : MIN(r, 0);
}

static int check_v6(int fd, int netns, struct err *e)
{
	uint32_t mem[SK_MEMINFO_VARS] = {0};
	struct member m = {.fd = fd};
	socklen_t len = sizeof(mem);
	int r = inet_check_v6(fd, "a UDP socket", e);

	if (r >= 0 && get_int(fd, IPPROTO_IPV6, IPV6_MULTICAST_IF, 0))
		return refuse(e, "a UDP socket with IPV6_MULTICAST_IF");
	if (r >= 0 && get_int(fd, IPPROTO_IPV6, IPV6_UNICAST_IF, 0))
		return refuse(e, "a UDP socket with IPV6_UNICAST_IF");
	/* a socket without a group has no option memory */
	if (r < 0 || (getsockopt(fd, SOL_SOCKET, SO_MEMINFO, mem, &len) == 0 &&
		      !mem[SK_MEMINFO_OPTMEM]))
		return r;
	r = netns_run(netns, find_group6, &m, e);
	return r >= 0 && m.is ? refuse(e, "a UDP socket that is member of a group of IPv6") : r;
}

/**
 * udp_check - can the socket @fd be carried? While the program runs.
 *
 * 0, -EOPNOTSUPP with the reason, or another negative errno.
 */
int udp_check(int fd, int netns, struct err *e)
{
	int i, r, family = get_int(fd, SOL_SOCKET, SO_DOMAIN, -1);
	char opts[40];
	socklen_t len;

	if ((family != AF_INET && family != AF_INET6) ||
	    get_int(fd, SOL_SOCKET, SO_TYPE, -1) != SOCK_DGRAM ||
	    get_int(fd, SOL_SOCKET, SO_PROTOCOL, -1) != IPPROTO_UDP)
		return err_set(e, EOPNOTSUPP, "not a UDP socket");
	r = family == AF_INET6 ? check_v6(fd, netns, e) : 0;
	if (r < 0)
		return r;
	if (get_int(fd, SOL_SOCKET, SO_ZEROCOPY, 0))
		return refuse(e, "a UDP socket with SO_ZEROCOPY");
	if (sockopt_has_txtime(fd))
		return refuse(e, "a UDP socket with SO_TXTIME");
	if (get_int(fd, IPPROTO_UDP, UDP_ENCAP, 0))
		return refuse(e, "a UDP socket with UDP_ENCAP");
	if (get_int(fd, IPPROTO_IP, IP_UNICAST_IF, 0))
		return refuse(e, "a UDP socket with IP_UNICAST_IF");
	len = sizeof(opts);
	if (getsockopt(fd, IPPROTO_IP, IP_OPTIONS, opts, &len) == 0 && len > 0)
		return refuse(e, "a UDP socket with IP options");
	/* a running program corks and sends; only one that leaves it so is in the way */
	for (i = 0; has_corked_data(fd); i++) {
		if (i == 10)
			return refuse(e, "corked data (UDP_CORK, MSG_MORE) of a UDP socket");
		poll(NULL, 0, 5);
	}
	return 0;
}

/* ---- the queue */

/* The first of them, or all, of an AF_INET6 socket, which gets both sorts of packets. */
static const struct {
	int level, name, on;
} asked[] = {
	{SOL_SOCKET, SO_PEEK_OFF, 0},
	{IPPROTO_IP, IP_PKTINFO, 1},
	{IPPROTO_IP, IP_RECVTTL, 1},
	{IPPROTO_IP, IP_RECVTOS, 1},
	{IPPROTO_IPV6, IPV6_RECVPKTINFO, 1},
	{IPPROTO_IPV6, IPV6_RECVHOPLIMIT, 1},
	{IPPROTO_IPV6, IPV6_RECVTCLASS, 1},
};
#define ASKED_V4 4

static int ask_for(int fd, int *was, size_t n, struct err *e)
{
	size_t i;

	for (i = 0; i < n; i++)
		was[i] = get_int(fd, asked[i].level, asked[i].name, 0);
	for (i = 0; i < n; i++)
		if (setsockopt(fd, asked[i].level, asked[i].name, &asked[i].on, sizeof(int)) < 0)
			return err_sys(e, "ask for the particulars of datagrams");
	return 0;
}

static void ask_no_more(int fd, const int *was, size_t n)
{
	size_t i;

	for (i = 0; i < n; i++)
		setsockopt(fd, asked[i].level, asked[i].name, &was[i], sizeof(int));
}

void udp_read_control(struct msghdr *mh, struct udp_dgram *d, size_t *part)
{
	struct cmsghdr *c;
	struct in_pktinfo pi;
	struct in6_pktinfo pi6;
	int v;

	for (c = CMSG_FIRSTHDR(mh); c; c = CMSG_NXTHDR(mh, c)) {
		if (c->cmsg_level == IPPROTO_IP && c->cmsg_type == IP_PKTINFO) {
			memcpy(&pi, CMSG_DATA(c), sizeof(pi));
			d->to = pi.ipi_addr;
		} else if (c->cmsg_level == IPPROTO_IP && c->cmsg_type == IP_TTL) {
			memcpy(&v, CMSG_DATA(c), sizeof(v));
			d->ttl = (uint8_t)v;
		} else if (c->cmsg_level == IPPROTO_IP && c->cmsg_type == IP_TOS) {
			d->tos = *CMSG_DATA(c);
		} else if (c->cmsg_level == IPPROTO_IPV6 && c->cmsg_type == IPV6_PKTINFO) {
			memcpy(&pi6, CMSG_DATA(c), sizeof(pi6));
			d->to6 = pi6.ipi6_addr;
			if (IN6_IS_ADDR_V4MAPPED(&d->to6))
				memcpy(&d->to, &d->to6.s6_addr[12], sizeof(d->to));
		} else if (c->cmsg_level == IPPROTO_IPV6 && c->cmsg_type == IPV6_HOPLIMIT) {
			memcpy(&v, CMSG_DATA(c), sizeof(v));
			d->ttl = (uint8_t)v;
		} else if (c->cmsg_level == IPPROTO_IPV6 && c->cmsg_type == IPV6_TCLASS) {
			memcpy(&v, CMSG_DATA(c), sizeof(v));
			d->tos = (uint8_t)v;
		} else if (c->cmsg_level == IPPROTO_UDP && c->cmsg_type == UDP_GRO) {
			memcpy(&v, CMSG_DATA(c), sizeof(v));
			*part = v > 0 ? (size_t)v : *part;
		}
	}
}

int udp_add_dgram(struct udp_state *s, const struct udp_dgram *d, const void *data, size_t len,
		  struct err *e)
{
	struct udp_dgram *q = s->queue;
	size_t room = s->nqueue ? s->nqueue & (s->nqueue - 1) : 0;

	if (s->nqueue == UDP_QUEUE_MAX)
		return err_set(e, EOVERFLOW, "more than %d datagrams wait", UDP_QUEUE_MAX);
	if (!room) { /* a power of two is full */
		q = realloc(q, sizeof(*q) * (s->nqueue ? 2 * s->nqueue : 1));
		if (!q)
			return err_num(e, ENOMEM, "queue of datagrams");
		s->queue = q;
	}
	q[s->nqueue] = *d;
	q[s->nqueue].len = (uint32_t)len;
	q[s->nqueue].data = malloc(len + 1);
	if (!q[s->nqueue].data)
		return err_num(e, ENOMEM, "datagram of %zu bytes", len);
	memcpy(q[s->nqueue].data, data, len);
	s->nqueue++;
	return 0;
}

/* One peek: 1 it is in the queue of @s, 0 there is none. @skip: it is known already. */
static int peek_one(int fd, struct udp_state *s, uint8_t *buf, bool skip, struct err *e)
{
	struct udp_dgram d = {.ttl = 64};
	struct iovec v = {buf, UDP_DATA_MAX + 1};
	union inet_name from = {0};
	char control[512];
	struct msghdr mh = {.msg_name = &from,
			    .msg_namelen = sizeof(from),
			    .msg_iov = &v,
			    .msg_iovlen = 1,
			    .msg_control = control,
			    .msg_controllen = sizeof(control)};
	size_t off = 0, part;
	int r = 0, errors = 0;
	ssize_t n;

	do /* an ICMP message's error is taken by asking */
		n = recvmsg(fd, &mh, MSG_PEEK | MSG_DONTWAIT);
	while (n < 0 && errno != EAGAIN && errors++ < 8);
	if (n < 0)
		return errno == EAGAIN ? 0 : err_sys(e, "read the queue");
	if (skip)
		return 1;
	part = n ? (size_t)n : 1;
	d.v6 = inet_name_read(&from, &d.from, &d.from6) && !IN6_IS_ADDR_V4MAPPED(&d.from6);
	udp_read_control(&mh, &d, &part);
	do {
		r = udp_add_dgram(s, &d, buf + off, MIN(part, (size_t)n - off), e);
		off += part;
	} while (r == 0 && off < (size_t)n);
	return r < 0 ? r : 1;
}

/*
 * The walk leaves out datagrams of no length that somebody has peeked at before, which may be the
 * program, or we before a move that was undone. The first one is seen even so, without an offset.
 */
static int peek_all(int fd, struct udp_state *s, struct err *e)
{
	autofree uint8_t *buf = malloc(UDP_DATA_MAX + 1);
	int r, zero = 0, none = -1;

	if (!buf)
		return err_num(e, ENOMEM, "buffer");
	if (setsockopt(fd, SOL_SOCKET, SO_PEEK_OFF, &none, sizeof(none)) < 0)
		return err_sys(e, "SO_PEEK_OFF");
	r = peek_one(fd, s, buf, false, e);
	if (r <= 0)
		return r;
	if (setsockopt(fd, SOL_SOCKET, SO_PEEK_OFF, &zero, sizeof(zero)) < 0)
		return err_sys(e, "SO_PEEK_OFF");
	if (s->queue[0].len)
		r = peek_one(fd, s, buf, true, e);
	while (r > 0)
		r = peek_one(fd, s, buf, false, e);
	return r;
}

static int save_queue(int fd, struct udp_state *s, struct err *e)
{
	struct pollfd p = {.fd = fd, .events = POLLIN};
	size_t n = s->v6 ? ARRAY_SIZE(asked) : ASKED_V4;
	int was[ARRAY_SIZE(asked)], r;

	if (poll(&p, 1, 0) != 1)
		return 0;
	r = ask_for(fd, was, n, e);
	if (r == 0)
		r = peek_all(fd, s, e);
	ask_no_more(fd, was, n);
	return r;
}

/* ---- memberships */

struct visit {
	int fd;
	struct udp_state *s;
};

static int iface_addr(int fd, const char *name, struct in_addr *a)
{
	struct ifreq ifr = {0};

	snprintf(ifr.ifr_name, sizeof(ifr.ifr_name), "%s", name);
	if (ioctl(fd, SIOCGIFADDR, &ifr) < 0)
		return -errno;
	*a = ((struct sockaddr_in *)&ifr.ifr_addr)->sin_addr;
	return 0;
}

static int ask_group(int fd, struct in_addr group, struct in_addr iface, struct udp_state *s,
		     struct err *e)
{
	union {
		struct ip_msfilter f;
		char room[IP_MSFILTER_SIZE(UDP_SOURCES)];
	} u = {.f = {.imsf_multiaddr = group, .imsf_interface = iface, .imsf_numsrc = UDP_SOURCES}};
	socklen_t len = sizeof(u);
	struct udp_group *g;

	if (getsockopt(fd, IPPROTO_IP, IP_MSFILTER, &u, &len) < 0)
		return errno == EADDRNOTAVAIL ? 0 : err_sys(e, "IP_MSFILTER");
	if (u.f.imsf_numsrc > UDP_SOURCES || s->ngroup == UDP_GROUP_MAX)
		return err_set(e, EOPNOTSUPP,
			       "a multicast group with %u sources, or more than %d groups",
			       u.f.imsf_numsrc, UDP_GROUP_MAX);
	g = realloc(s->group, sizeof(*g) * (s->ngroup + 1));
	if (!g)
		return err_num(e, ENOMEM, "multicast groups");
	s->group = g;
	g += s->ngroup++;
	memset(g, 0, sizeof(*g));
	g->group = group;
	g->iface = iface;
	g->mode = u.f.imsf_fmode;
	g->nsrc = u.f.imsf_numsrc;
	memcpy(g->src, u.f.imsf_slist, g->nsrc * sizeof(g->src[0]));
	return 0;
}

/* "Idx Device : Count Querier" begins an interface, "\t\t\t\tADDRESS USERS" is a group of it. */
static int read_groups(void *arg, struct err *e)
{
	struct visit *v = arg;
	autofree char *text = NULL;
	struct in_addr iface = {0}, group;
	char name[IFNAMSIZ + 1], *line, *save = NULL;
	bool known = false;
	int r = io_read_file("/proc/thread-self/net/igmp", 16u << 20, &text, NULL, e);

	if (r < 0)
		return r;
	for (line = strtok_r(text, "\n", &save); line && r == 0;
	     line = strtok_r(NULL, "\n", &save)) {
		if (line[0] != '\t') {
			known = sscanf(line, "%*u %16s", name) == 1 &&
				iface_addr(v->fd, name, &iface) == 0;
			continue;
		}
		/* printed as the number that the address is in memory */
		if (known && sscanf(line, " %8x", &group.s_addr) == 1)
			r = ask_group(v->fd, group, iface, v->s, e);
	}
	return r;
}

int udp_read_groups(int fd, int netns, struct udp_state *s, struct err *e)
{
	uint32_t mem[SK_MEMINFO_VARS] = {0};
	struct visit v = {fd, s};
	socklen_t len = sizeof(mem);

	if (getsockopt(fd, SOL_SOCKET, SO_MEMINFO, mem, &len) == 0 && !mem[SK_MEMINFO_OPTMEM])
		return 0;
	return netns_run(netns, read_groups, &v, e);
}

/* ---- all of it */

int udp_read_options(int fd, const struct opt_table *t, struct udp_state *s, struct err *e)
{
	size_t i;
	int r;

	for (i = 0; i < t->n; i++) {
		if (!(t->rows[i].states & t->states))
			continue;
		if (s->nopt == ARRAY_SIZE(s->opt))
			return err_set(e, EOVERFLOW, "more than %u socket options", s->nopt);
		r = sockopt_read(fd, &t->rows[i], &s->opt[s->nopt], e);
		if (r < 0)
			return r;
		s->nopt += (unsigned)r;
	}
	return 0;
}

void udp_read_common(int fd, struct udp_state *s)
{
	struct pollfd p = {.fd = fd, .events = POLLRDHUP};

	s->nonblock = fcntl(fd, F_GETFL) & O_NONBLOCK;
	s->sndbuf = (uint32_t)get_int(fd, SOL_SOCKET, SO_SNDBUF, 0);
	s->rcvbuf = (uint32_t)get_int(fd, SOL_SOCKET, SO_RCVBUF, 0);
	if (poll(&p, 1, 0) == 1) {
		s->shut_rd = p.revents & POLLRDHUP;
		s->shut_wr = p.revents & POLLHUP;
	}
}

static int save_all(int fd, int netns, struct udp_state *s, struct err *e)
{
	union inet_name at = {0}, peer = {0};
	socklen_t len = sizeof(at);
	int r;

	if (getsockname(fd, &at.sa, &len) < 0)
		return err_sys(e, "getsockname");
	s->v6 = inet_name_read(&at, &s->local, &s->local6);
	len = sizeof(peer);
	if (getpeername(fd, &peer.sa, &len) == 0)
		inet_name_read(&peer, &s->peer, &s->peer6);
	udp_read_common(fd, s);
	r = udp_read_options(fd, &udp_opts, s, e);
	if (r == 0)
		r = save_queue(fd, s, e);
	return r < 0 ? r : udp_read_groups(fd, netns, s, e);
}

/**
 * udp_save - the whole state of the UDP socket @fd of @netns
 *
 * The filter is up and no task of the pod runs. The socket stays as it is, so there is nothing to
 * undo. *@out is valid after success only and is the caller's to free with udp_state_done().
 */
int udp_save(int fd, int netns, struct udp_state *out, struct err *e)
{
	struct udp_state s = {0};
	char a[24], b[24];
	int r = udp_check(fd, netns, e);

	if (r == 0)
		r = save_all(fd, netns, &s, e);
	if (r < 0) {
		udp_state_done(&s);
		return err_wrap(e, "UDP %s -> %s", udp_addr(&s.local, a), udp_addr(&s.peer, b));
	}
	*out = s;
	return 0;
}

/** udp_state_done - free what a saved state owns */
void udp_state_done(struct udp_state *s)
{
	size_t i;

	for (i = 0; i < s->nqueue; i++)
		free(s->queue[i].data);
	free(s->queue);
	free(s->group);
	s->queue = NULL;
	s->group = NULL;
	s->nqueue = s->ngroup = 0;
}
