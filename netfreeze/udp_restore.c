/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * The other half of udp.c (whose theory of operation covers both): a saved state becomes a socket.
 * Options that the queue may see; the queue, at a port of the kernel's choice; what must stand
 * before bind; bind, memberships, connect; sizes and the rest. The address is shared by force, with
 * SO_REUSEADDR; udp_release() gives the program's value back.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/sock_diag.h>
#include <netinet/ip.h>
#include <netinet/ip6.h>
#include <netinet/udp.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>

#include "netfreeze/udp_int.h"
#include "pod/base/io.h"
#include "pod/base/util.h"

#define LOOKS_AT_ONCE 100
#define MSG_PROBE_ 0x10
#define WHOLE_MAX  (65536 - sizeof(struct ip6_hdr)) /* lo's MTU */
#define FRAGMENT   32768

static int options(int fd, const struct udp_state *s, enum opt_when when, struct err *e)
{
	return sockopt_apply(fd, &udp_opts, s->opt, s->nopt, when, e);
}

/* An image is hostile input: what the kernel would not check is checked here. */
int udp_validate(const struct udp_state *s, size_t longest, struct err *e)
{
	size_t i;

	if (s->local.sin_family != AF_INET || s->nopt > ARRAY_SIZE(s->opt) ||
	    (s->peer.sin_port && s->peer.sin_family != AF_INET))
		return err_set(e, EPROTO, "UDP state: address family or options");
	if (s->nqueue > UDP_QUEUE_MAX || s->ngroup > UDP_GROUP_MAX)
		return err_set(e, EPROTO, "UDP state: %zu datagrams, %zu groups", s->nqueue,
			       s->ngroup);
	for (i = 0; i < s->nqueue; i++)
		if (s->queue[i].len > longest || (s->queue[i].v6 && !s->v6) || (s->queue[i].len && !s->queue[i].data))
			return err_set(e, EPROTO, "UDP state: a datagram of %u bytes",
				       s->queue[i].len);
	for (i = 0; i < s->ngroup; i++)
		if (s->group[i].nsrc > UDP_SOURCES)
			return err_set(e, EPROTO, "UDP state: a group of %u sources",
				       s->group[i].nsrc);
	return 0;
}

/* The family's names of it. */
static socklen_t name_of(const struct udp_state *s, bool peer, union inet_name *out)
{
	return inet_name_make(out, s->v6, peer ? &s->peer : &s->local, peer ? &s->peer6 : &s->local6);
}

/* ---- the queue */

uint32_t udp_queued_memory(int fd)
{
	uint32_t mem[SK_MEMINFO_VARS] = {0};
	socklen_t len = sizeof(mem);

	getsockopt(fd, SOL_SOCKET, SO_MEMINFO, mem, &len);
	return mem[SK_MEMINFO_RMEM_ALLOC];
}

/* A packet over lo is queued by the time sendto() returns, unless ksoftirqd has it; and that may be late. The time in which
 * nobody runs does not count, looks do: of a millisecond each, but for the first ones. */
int udp_await_arrival(int fd, uint32_t before, unsigned looks, struct err *e)
{
	const struct timespec ms = {0, NSEC_PER_MSEC};
	unsigned i;

	for (i = 0; udp_queued_memory(fd) == before; i++) {
		if (i == looks)
			return err_set(e, ETIMEDOUT, "a datagram does not get into its queue");
		if (i < LOOKS_AT_ONCE)
			sched_yield();
		else
			nanosleep(&ms, NULL);
	}
	return 0;
}

/* The kernel fills in length, checksum of the header and identification. */
static int inject(int raw, int fd, in_port_t port, const struct udp_dgram *d, struct err *e)
{
	struct sockaddr_in route = {.sin_family = AF_INET,
				    .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	struct {
		struct iphdr ip;
		struct udphdr udp;
	} h = {
		.ip = {.version = 4,
		       .ihl = 5,
		       .ttl = d->ttl,
		       .tos = d->tos,
		       .protocol = IPPROTO_UDP,
		       .saddr = d->from.sin_addr.s_addr,
		       .daddr = d->to.s_addr},
		.udp = {.source = d->from.sin_port,
			.dest = port,
			.len = htons((uint16_t)(sizeof(h.udp) + d->len))}, /* no checksum */
	};
	struct iovec v[2] = {{&h, sizeof(h)}, {d->data, d->len}};
	struct msghdr mh = {.msg_name = &route,
			    .msg_namelen = sizeof(route),
			    .msg_iov = v,
			    .msg_iovlen = d->len ? 2 : 1};
	uint32_t before = udp_queued_memory(fd);

	if (!h.ip.saddr)
		h.ip.saddr = htonl(INADDR_LOOPBACK); /* or the kernel would put one in */
	if (sendmsg(raw, &mh, MSG_DONTWAIT) < 0)
		return err_sys(e, "deliver a datagram of %u bytes", d->len);
	return udp_await_arrival(fd, before, UDP_LOOKS, e);
}

/* One packet to ::1, whatever its header says. A fragment begins at @off of the segment and is @more, or not, to the end. */
static int send6(int raw, const struct udp_dgram *d, const uint8_t *seg, size_t len, int off,
		 bool more, struct err *e)
{
	struct sockaddr_in6 route = {.sin6_family = AF_INET6, .sin6_addr = IN6ADDR_LOOPBACK_INIT};
	struct ip6_hdr ip = {.ip6_src = d->from6, .ip6_dst = d->to6};
	struct ip6_frag frag = {.ip6f_nxt = IPPROTO_UDP, .ip6f_ident = htonl((uint32_t)getpid())};
	struct iovec v[3] = {{&ip, sizeof(ip)}, {&frag, off || more ? sizeof(frag) : 0}};
	struct msghdr mh = {.msg_name = &route,
			    .msg_namelen = sizeof(route),
			    .msg_iov = v,
			    .msg_iovlen = 3};

	v[2] = (struct iovec){(void *)(uintptr_t)(seg + off), len};
	ip.ip6_flow = htonl(6u << 28 | (uint32_t)d->tos << 20);
	ip.ip6_plen = htons((uint16_t)(len + v[1].iov_len));
	ip.ip6_nxt = v[1].iov_len ? IPPROTO_FRAGMENT : IPPROTO_UDP;
	ip.ip6_hlim = d->ttl;
	frag.ip6f_offlg = htons((uint16_t)(off | more)); /* by 8 bytes, 3 bits above the flags */
	return sendmsg(raw, &mh, MSG_DONTWAIT) < 0
		       ? err_sys(e, "deliver a datagram of %u bytes", d->len)
		       : 0;
}

static int inject6(int raw, int fd, in_port_t port, const struct udp_dgram *d, struct err *e)
{
	size_t len = sizeof(struct udphdr) + d->len;
	struct udphdr h = {.source = d->from.sin_port, .dest = port, .len = htons((uint16_t)len)};
	autofree uint8_t *seg = malloc(len);
	uint32_t before = udp_queued_memory(fd), sum;
	int r;

	if (!seg)
		return err_num(e, ENOMEM, "datagram of %u bytes", d->len);
	memcpy(seg, &h, sizeof(h));
	if (d->len)
		memcpy(seg + sizeof(h), d->data, d->len);
	sum = inet_sum(&d->to6, 16, inet_sum(&d->from6, 16, IPPROTO_UDP + (uint32_t)len));
	h.check = inet_fold(inet_sum(seg, len, sum));
	if (!h.check)
		h.check = 0xffff; /* none is not allowed */
	memcpy(seg, &h, sizeof(h));
	if (len <= WHOLE_MAX) {
		r = send6(raw, d, seg, len, 0, false, e);
	} else {
		r = send6(raw, d, seg, FRAGMENT, 0, true, e);
		if (r == 0)
			r = send6(raw, d, seg, len - FRAGMENT, FRAGMENT, false, e);
	}
	return r < 0 ? r : udp_await_arrival(fd, before, UDP_LOOKS, e);
}

static int leave_address(int fd, struct err *e)
{
	struct sockaddr none = {.sa_family = AF_UNSPEC};

	return connect(fd, &none, sizeof(none)) < 0 ? err_sys(e, "leave an address") : 0;
}

/* Sending nothing gives the socket a port that it can leave again. */
static int take_any_port(int fd, bool v6, in_port_t *port, struct err *e)
{
	const struct sockaddr_in lo = {.sin_family = AF_INET,
				       .sin_port = htons(9),
				       .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	union inet_name at;
	socklen_t len = inet_name_make(&at, v6, &lo, &in6addr_loopback);

	if (sendto(fd, "", 0, MSG_PROBE_ | MSG_DONTWAIT, &at.sa, len) < 0 ||
	    getsockname(fd, &at.sa, &len) < 0)
		return err_sys(e, "take a port");
	*port = at.in.sin_port; /* at the same place in both */
	return *port ? 0 : err_set(e, EPROTO, "the kernel has given no port");
}

static int open_raw(int netns, int family, struct err *e)
{
	int size = 1 << 20, fd = netns_socket(netns, family, SOCK_RAW, IPPROTO_RAW, e);

	if (fd >= 0 && sockopt_set(fd, SOL_SOCKET, SO_SNDBUFFORCE, size, "SO_SNDBUF", e) < 0) {
		close(fd);
		return -EIO;
	}
	return fd;
}

static int fill_queue(int fd, int netns, const struct udp_state *s, struct err *e)
{
	autoclose int raw = -1, raw6 = -1;
	uint64_t room = 1u << 20;
	in_port_t port = 0;
	size_t i;
	int r;

	if (!s->nqueue)
		return 0;
	for (i = 0; i < s->nqueue; i++)
		room += 2 * s->queue[i].len + 4096;
	raw = r = open_raw(netns, AF_INET, e);
	if (r >= 0 && s->v6)
		raw6 = r = open_raw(netns, AF_INET6, e);
	if (r >= 0)
		r = sockopt_set_buffers(fd, s->sndbuf, room, e);
	if (r == 0)
		r = take_any_port(fd, s->v6, &port, e);
	for (i = 0; i < s->nqueue && r == 0; i++)
		r = s->queue[i].v6 ? inject6(raw6, fd, port, &s->queue[i], e)
				   : inject(raw, fd, port, &s->queue[i], e);
	return r < 0 ? r : leave_address(fd, e);
}

/* ---- names */

/* The address that a connected socket would get by itself need not be bound to. */
static int own_choice(int fd, const struct udp_state *s, union inet_name *name, struct err *e)
{
	union inet_name at = {0}, peer;
	socklen_t len = sizeof(at), plen = name_of(s, true, &peer);

	if (!s->peer.sin_port)
		return 0;
	if (connect(fd, &peer.sa, plen) == 0 && getsockname(fd, &at.sa, &len) == 0) {
		if (!s->v6 && at.in.sin_addr.s_addr == s->local.sin_addr.s_addr)
			name->in.sin_addr.s_addr = htonl(INADDR_ANY);
		if (s->v6 && IN6_ARE_ADDR_EQUAL(&at.in6.sin6_addr, &s->local6))
			name->in6.sin6_addr = in6addr_any;
	}
	return leave_address(fd, e);
}

int udp_join(int fd, const struct udp_group *g, struct err *e)
{
	struct ip_mreq m = {g->group, g->iface};
	union {
		struct ip_msfilter f;
		char room[IP_MSFILTER_SIZE(UDP_SOURCES)];
	} u = {.f = {.imsf_multiaddr = g->group,
		     .imsf_interface = g->iface,
		     .imsf_fmode = g->mode,
		     .imsf_numsrc = g->nsrc}};

	if (setsockopt(fd, IPPROTO_IP, IP_ADD_MEMBERSHIP, &m, sizeof(m)) < 0)
		return err_sys(e, "join multicast group %s", inet_ntoa(g->group));
	if (g->mode == MCAST_EXCLUDE && !g->nsrc)
		return 0;
	memcpy(u.f.imsf_slist, g->src, g->nsrc * sizeof(g->src[0]));
	return setsockopt(fd, IPPROTO_IP, IP_MSFILTER, &u, IP_MSFILTER_SIZE(g->nsrc)) < 0
		       ? err_sys(e, "sources of multicast group %s", inet_ntoa(g->group))
		       : 0;
}

static int take_names(int fd, const struct udp_state *s, struct err *e)
{
	union inet_name at, peer;
	socklen_t len = name_of(s, false, &at), plen = name_of(s, true, &peer);
	size_t i;
	int r = own_choice(fd, s, &at, e);

	/* others may share the port, those that come later too; the program's value: udp_release() */
	if (r == 0)
		r = sockopt_set(fd, SOL_SOCKET, SO_REUSEADDR, 1, "SO_REUSEADDR", e);
	if (r == 0)
		r = options(fd, s, OPT_BIND, e);
	if (r < 0)
		return r;
	if (s->local.sin_port && bind(fd, &at.sa, len) < 0)
		return err_sys(e, "bind");
	for (i = 0; i < s->ngroup && r == 0; i++)
		r = udp_join(fd, &s->group[i], e);
	if (r == 0 && s->peer.sin_port && connect(fd, &peer.sa, plen) < 0)
		r = err_sys(e, "connect");
	return r;
}

int udp_set_common(int fd, const struct udp_state *s, struct err *e)
{
	const int fl = fcntl(fd, F_GETFL);

	if (s->shut_rd && shutdown(fd, s->shut_wr ? SHUT_RDWR : SHUT_RD) < 0 && errno != ENOTCONN) /* said, and done */
		return err_sys(e, "shutdown");
	return fcntl(fd, F_SETFL, s->nonblock ? fl | O_NONBLOCK : fl & ~O_NONBLOCK) < 0 ? err_sys(e, "O_NONBLOCK") : 0;
}

static int restore_on(int fd, int netns, const struct udp_state *s, struct err *e)
{
	int r = udp_validate(s, UDP_DATA_MAX, e);

	if (r == 0)
		r = options(fd, s, OPT_EARLY, e);
	if (r == 0)
		r = fill_queue(fd, netns, s, e);
	if (r == 0)
		r = take_names(fd, s, e);
	if (r == 0)
		r = sockopt_set_buffers(fd, s->sndbuf, s->rcvbuf, e);
	if (r == 0)
		r = options(fd, s, OPT_LATE, e);
	if (r == 0)
		r = udp_set_common(fd, s, e);
	return r;
}

/**
 * udp_restore_on - give the fresh UDP socket @fd of @netns the state @s
 *
 * The link has its address and FILTER_BLOCK is set there. After a failure the caller closes @fd.
 */
int udp_restore_on(int fd, int netns, const struct udp_state *s, struct err *e)
{
	struct err mine = {0};
	char a[24], b[24];
	int r = restore_on(fd, netns, s, &mine);

	if (r == 0)
		return 0;
	if (e)
		*e = mine;
	return err_wrap(e, "UDP %s -> %s", udp_addr(&s->local, a), udp_addr(&s->peer, b));
}

/** udp_release - on every restored socket when all of them exist: what the program has set */
int udp_release(int fd, const struct udp_state *s, struct err *e)
{
	int r = sockopt_set(fd, SOL_SOCKET, SO_REUSEADDR, 0, "SO_REUSEADDR", e);

	return r < 0 ? r : options(fd, s, OPT_RELEASE, e);
}
