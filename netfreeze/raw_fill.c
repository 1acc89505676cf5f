/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * The other half of raw.c, whose theory of operation covers both: packets get into the queue of one
 * socket, and a saved state becomes a socket.
 *
 * A packet is padded where a filter of the program has cut it, and cut again by ours: a raw socket's
 * to the length that its header says, an ICMP message until its checksum is right.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <linux/filter.h>
#include <linux/icmp.h>
#include <netinet/ip.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>

#include "netfreeze/raw_int.h"
#include "pod/base/util.h"

#define MARK	     0x70726177
#define ICMP_HEADER  8
#define OPT_ROUTER   148 /* router alert */
#define EXTENDED_ECHO_REPLY 43

/* ---- the shield */

static int set_filter(int fd, struct sock_filter *code, unsigned short n, struct err *e)
{
	struct sock_fprog prog = {n, code};

	return setsockopt(fd, SOL_SOCKET, SO_ATTACH_FILTER, &prog, sizeof(prog)) < 0
		       ? err_sys(e, "shield a socket")
		       : 0;
}

int raw_shield(int fd, struct err *e)
{
	struct sock_filter nothing[] = {BPF_STMT(BPF_RET | BPF_K, 0)};

	return set_filter(fd, nothing, ARRAY_SIZE(nothing), e);
}

int raw_open_for(int fd, uint32_t len, struct err *e)
{
	struct sock_filter ours[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, (uint32_t)(SKF_AD_OFF + SKF_AD_MARK)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, MARK, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, len),
		BPF_STMT(BPF_RET | BPF_K, 0),
	};

	return set_filter(fd, ours, ARRAY_SIZE(ours), e);
}

/* ---- packets */

int raw_via_open(int netns, struct raw_via *v, struct err *e)
{
	int one = 1, size = 1 << 20, mark = MARK;

	v->looks = UDP_LOOKS;
	v->fd = netns_socket(netns, AF_INET, SOCK_RAW, IPPROTO_RAW, e);
	if (v->fd < 0)
		return v->fd;
	if (setsockopt(v->fd, SOL_SOCKET, SO_MARK, &mark, sizeof(mark)) == 0 &&
	    setsockopt(v->fd, SOL_SOCKET, SO_BROADCAST, &one, sizeof(one)) == 0 &&
	    setsockopt(v->fd, SOL_SOCKET, SO_SNDBUFFORCE, &size, sizeof(size)) == 0 && raw_shield(v->fd, e) == 0)
		return 0;
	err_sys(e, "a socket for packets");
	close_fdp(&v->fd);
	return -EIO;
}

void raw_via_close(struct raw_via *v)
{
	close_fdp(&v->fd);
}

/* Others are changed by the kernel when they come in once more. */
static bool options_stay(const uint8_t *opt, size_t len)
{
	size_t i = 0;

	while (i < len && opt[i] != IPOPT_EOL) {
		if (opt[i] == IPOPT_NOP) {
			i++;
			continue;
		}
		if (opt[i] != OPT_ROUTER || i + 1 >= len || opt[i + 1] != 4)
			return false;
		i += 4;
	}
	return true;
}

/* The length of an ICMP message with the bytes behind it that make its checksum right, if it is not. */
static size_t mended_length(const uint8_t *msg, size_t len)
{
	return inet_fold(inet_sum(msg, len, 0)) ? len + len % 2 + sizeof(uint16_t) : len;
}

int raw_check_packet(int type, const struct udp_dgram *d, struct err *e)
{
	const uint8_t *p = d->data;
	struct iphdr ip;

	if (type == SOCK_DGRAM) {
		if (d->len < ICMP_HEADER || (p[0] != ICMP_ECHOREPLY && p[0] != EXTENDED_ECHO_REPLY) ||
		    sizeof(ip) + mended_length(p, d->len) > RAW_PACKET_MAX)
			return err_set(e, EOPNOTSUPP, "what waits at a raw socket is no whole packet: cannot be carried now");
		return 0;
	}
	if (d->len >= sizeof(ip))
		memcpy(&ip, p, sizeof(ip));
	if (d->len < sizeof(ip) || ip.version != 4 || ip.ihl < 5 || ip.ihl * 4u > d->len ||
	    (ip.frag_off & htons(0x3fff)) || ntohs(ip.tot_len) < d->len)
		return err_set(e, EOPNOTSUPP, "what waits at a raw socket is no whole packet: cannot be carried now");
	if (!options_stay(p + sizeof(ip), ip.ihl * 4u - sizeof(ip)))
		return err_set(e, EOPNOTSUPP, "a packet with IP options waits at a raw socket: cannot be carried now");
	return 0;
}

/* The whole packet in @buf of @room bytes; its length, or 0: there is no room for it. */
static size_t build(uint8_t *buf, size_t room, int type, const struct udp_dgram *d)
{
	struct iphdr ip = {
		.version = 4, .ihl = 5, .tos = d->tos, .ttl = d->ttl, .protocol = IPPROTO_ICMP,
		.frag_off = htons(0x4000),
		.saddr = d->from.sin_addr.s_addr, .daddr = d->to.s_addr,
	};
	size_t len;
	uint16_t sum;

	if (type == SOCK_DGRAM) {
		len = sizeof(ip) + mended_length(d->data, d->len);
		if (len > room)
			return 0;
		sum = inet_fold(inet_sum(d->data, d->len, 0));
		memset(buf, 0, len);
		memcpy(buf, &ip, sizeof(ip));
		memcpy(buf + sizeof(ip), d->data, d->len);
		if (sum)
			memcpy(buf + len - sizeof(sum), &sum, sizeof(sum));
		return len;
	}
	memcpy(&ip, d->data, sizeof(ip));
	len = ntohs(ip.tot_len);
	if (len > room || d->len > len)
		return 0;
	memcpy(buf, d->data, d->len);
	memset(buf + d->len, 0, len - d->len);
	return len;
}

int raw_inject(const struct raw_via *v, int fd, int type, const struct udp_dgram *d, struct err *e)
{
	/* by a broadcast route the kernel itself does nothing with ICMP; but an ICMP socket gets
	 * what the kernel has taken */
	struct sockaddr_in route = {.sin_family = AF_INET,
				    .sin_addr.s_addr = htonl(type == SOCK_DGRAM ? INADDR_LOOPBACK : 0x7fffffff)};
	autofree uint8_t *buf = malloc(RAW_PACKET_MAX);
	uint32_t before = udp_queued_memory(fd);
	ssize_t n = -1;
	unsigned tries;
	size_t len;
	int r;

	if (!buf)
		return err_num(e, ENOMEM, "packet of %u bytes", d->len);
	len = build(buf, RAW_PACKET_MAX, type, d);
	if (!len)
		return err_num(e, EMSGSIZE, "packet of %u bytes", d->len);
	r = raw_open_for(fd, d->len, e);
	if (r < 0)
		return r;
	for (tries = 0; tries < v->looks; tries++) {
		n = sendto(v->fd, buf, len, MSG_DONTWAIT, (struct sockaddr *)&route, sizeof(route));
		if (n >= 0 || (errno != EAGAIN && errno != ENOBUFS && errno != ENOMEM && errno != EINTR))
			break;
		poll(NULL, 0, 1); /* what went before is still on its way, or memory is short */
	}
	if (n < 0)
		r = err_sys(e, "deliver a packet of %zu bytes", len);
	else
		r = udp_await_arrival(fd, before, v->looks, e);
	return raw_shield(fd, r < 0 ? NULL : e) < 0 && r == 0 ? -EIO : r;
}

/* ---- a socket anew */

static int options(int fd, const struct raw_state *s, enum opt_when when, struct err *e)
{
	return sockopt_apply(fd, s->type == SOCK_RAW ? &raw_opts : &udp_opts, s->u.opt, s->u.nopt, when, e);
}

/* An image is hostile input. */
static int validate(const struct raw_state *s, struct err *e)
{
	int r = udp_validate(&s->u, RAW_PACKET_MAX, e);
	size_t i;

	if (r == 0 && (s->u.v6 || (s->type != SOCK_RAW && (s->type != SOCK_DGRAM || s->protocol != IPPROTO_ICMP)) ||
		       s->protocol <= 0 || s->protocol > IPPROTO_RAW ||
		       (s->protocol == IPPROTO_UDP && s->u.nqueue)))
		return err_set(e, EPROTO, "raw state: type %d, protocol %d", s->type, s->protocol);
	for (i = 0; r == 0 && i < s->u.nqueue; i++)
		r = raw_check_packet(s->type, &s->u.queue[i], e);
	return r;
}

static int fill(int fd, int netns, const struct raw_state *s, struct err *e)
{
	struct raw_via via;
	uint64_t room = 1u << 20;
	char drop;
	size_t i;
	int r;

	/* from before the shield */
	while (recv(fd, &drop, 1, MSG_DONTWAIT) >= 0 || errno == EINTR)
		;
	if (!s->u.nqueue)
		return 0;
	for (i = 0; i < s->u.nqueue; i++)
		room += 2 * s->u.queue[i].len + 4096;
	r = raw_via_open(netns, &via, e);
	if (r < 0)
		return r;
	r = sockopt_set_buffers(fd, s->u.sndbuf, room, e);
	for (i = 0; i < s->u.nqueue && r == 0; i++) {
		struct udp_dgram d = s->u.queue[i];

		/* it may have got its address since, by connect(2), and takes nothing to another any more */
		if (s->type == SOCK_DGRAM && s->u.local.sin_addr.s_addr)
			d.to = s->u.local.sin_addr;
		r = raw_inject(&via, fd, s->type, &d, e);
	}
	raw_via_close(&via);
	return r;
}

static int name(int fd, const struct raw_state *s, struct err *e)
{
	struct sockaddr_in at = s->u.local;

	if (s->type == SOCK_RAW)
		at.sin_port = 0;
	if ((at.sin_port || at.sin_addr.s_addr) && bind(fd, (struct sockaddr *)&at, sizeof(at)) < 0)
		return err_sys(e, "bind");
	return 0;
}

static int join_and_connect(int fd, const struct raw_state *s, struct err *e)
{
	int r = 0;
	size_t i;

	for (i = 0; i < s->u.ngroup && r == 0; i++)
		r = udp_join(fd, &s->u.group[i], e);
	if (r == 0 && s->u.peer.sin_family && connect(fd, (const struct sockaddr *)&s->u.peer, sizeof(s->u.peer)) < 0)
		r = err_sys(e, "connect");
	return r;
}

static int restore_on(int fd, int netns, const struct raw_state *s, struct err *e)
{
	int r = validate(s, e);

	if (r == 0)
		r = raw_shield(fd, e);
	if (r == 0)
		r = options(fd, s, OPT_EARLY, e);
	if (r == 0 && s->type == SOCK_DGRAM) /* replies come to its number alone */
		r = name(fd, s, e);
	if (r == 0)
		r = fill(fd, netns, s, e);
	if (r == 0)
		r = options(fd, s, OPT_BIND, e);
	if (r == 0 && s->type == SOCK_RAW)
		r = name(fd, s, e);
	if (r == 0)
		r = join_and_connect(fd, s, e);
	if (r == 0)
		r = sockopt_set_buffers(fd, s->u.sndbuf, s->u.rcvbuf, e);
	if (r == 0)
		r = options(fd, s, OPT_LATE, e);
	return r < 0 ? r : udp_set_common(fd, &s->u, e);
}

/**
 * raw_restore_on - give the fresh socket @fd of @netns the state @s
 *
 * As for udp_restore_on(); before sockets of other protocols are filled, whose packets it would hear.
 */
int raw_restore_on(int fd, int netns, const struct raw_state *s, struct err *e)
{
	int r = restore_on(fd, netns, s, e);

	return r < 0 ? err_wrap(e, "%s socket, protocol %d", s->type == SOCK_RAW ? "raw" : "ICMP", s->protocol) : 0;
}

int raw_unshield(int fd, bool filtered, struct err *e)
{
	int none = 0;

	if (!filtered && setsockopt(fd, SOL_SOCKET, SO_DETACH_FILTER, &none, sizeof(none)) < 0)
		return err_sys(e, "unshield a socket");
	return 0;
}

/** raw_release - when all sockets exist: what the program has set, but for its filter: that comes after this (@filtered) */
int raw_release(int fd, const struct raw_state *s, bool filtered, struct err *e)
{
	int none = 0, r = 0;

	if (setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &none, sizeof(none)) < 0) /* these are born with it */
		r = err_sys(e, "SO_REUSEADDR");
	if (r == 0)
		r = options(fd, s, OPT_RELEASE, e);
	return r < 0 ? r : raw_unshield(fd, filtered, e);
}
