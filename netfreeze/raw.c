/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Raw sockets of IPv4 and ICMP sockets (SOCK_DGRAM, IPPROTO_ICMP: "ping"), saved and made again from
 * outside, with the means of UDP sockets (udp.c). This file saves; raw_fill.c fills and restores.
 *
 * The queue. SO_PEEK_OFF is not for these sockets, so packets must be taken out to be read. They are
 * put back at once, in their order, on the source too; who calls raw_queues_exchange() sees to it that
 * the pod does not run meanwhile, even if the caller dies.
 *
 * How a packet gets into one queue, and nowhere else. Over lo, from a socket that marks it (SO_MARK)
 * and routes it, whatever its header says. All raw and ICMP sockets of the namespace are shielded: in
 * place of their own filters they have one that takes nothing, but the one that is being filled takes
 * what bears the mark. So they do not hear each other's packets, nor what UDP and TCP sockets are
 * filled by. The kernel hears them too: an ICMP error would reach the sockets that it is about once
 * more, a request would be answered. So they take the route to 127.255.255.255: what came by broadcast
 * the kernel's ICMP leaves alone (of requests only as long as icmp_echo_ignore_broadcasts is 1:
 * put_echo()), TCP takes no connection from it and sends no reset, and nobody says "unreachable"; a raw socket gets it all the same. An old segment of TCP is a duplicate like any
 * other. UDP would deliver a datagram again, hence raw sockets of UDP have to be empty. Replies to
 * echos go to 127.0.0.1, for only so an ICMP socket gets them; nobody else wants those.
 *
 * While one is filled its names let everything pass: not bound (of a raw socket), no device, no
 * ICMP_FILTER. It cannot leave a peer, for that ends its hearing (kernel: connect(2) to AF_UNSPEC
 * takes it off the list): on the source what came before a connect(2) and would not pass any more is
 * lost, as is a packet that a filter has cut to less than its headers.
 *
 * A raw socket's peer has no port, so getpeername(2) denies it; /proc/net/raw has its address.
 *
 * Not carried: errors that nobody has read, times of reception, the interface (it becomes lo). A
 * sender 0.0.0.0 becomes 127.0.0.1, and identification 0 of a packet that may be fragmented another.
 * Not seen: IP_ROUTER_ALERT and multicast routing.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <net/if.h>
#include <linux/icmp.h> /* after net/if.h, or they clash */
#include <netinet/ip.h>
#include <poll.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "netfreeze/raw_int.h"
#include "pod/base/fault.h"
#include "pod/base/io.h"
#include "pod/base/util.h"

#define ECHO_TO_ALL "/proc/sys/net/ipv4/icmp_echo_ignore_broadcasts"
#define LOOKS_AFTER_LOSS 100 /* several seconds for each packet would be long */
#define CONNECTED  1 /* TCP_ESTABLISHED, whatever the protocol */
#define ERRORS_MAX 8

static int get_int(int fd, int level, int name)
{
	int v = 0;
	socklen_t len = sizeof(v);

	return getsockopt(fd, level, name, &v, &len) < 0 ? 0 : v;
}

static void put_int(int fd, int level, int name, int v)
{
	setsockopt(fd, level, name, &v, sizeof(v));
}

/* ---- names */

struct names {
	int type;
	unsigned long ino;
	bool found, connected;
	bool shared; /* another ICMP socket has the same number, and who has it last hears all */
	struct sockaddr_in local, peer;
};

/* " SL: LOCAL:NUM REMOTE:PORT STATE TX:RX TR:WHEN RETR UID TIMEOUT INODE ..."; an address is
 * printed as the number that it is in memory. */
static void read_line(struct names *n, const char *line, bool others)
{
	unsigned addr[2], port[2], state;
	unsigned long ino;

	if (sscanf(line, " %*d: %x:%x %x:%x %x %*x:%*x %*x:%*x %*x %*u %*d %lu", &addr[0], &port[0],
		   &addr[1], &port[1], &state, &ino) != 6)
		return;
	if (others) {
		n->shared |= ino != n->ino && htons((in_port_t)port[0]) == n->local.sin_port;
		return;
	}
	if (ino != n->ino)
		return;
	n->found = true;
	n->local.sin_addr.s_addr = addr[0];
	n->local.sin_port = htons((in_port_t)(n->type == SOCK_RAW ? 0 : port[0])); /* of a raw one the protocol */
	n->connected = state == CONNECTED;
	if (n->connected)
		n->peer = (struct sockaddr_in){.sin_family = AF_INET, .sin_addr.s_addr = addr[1]};
}

static int find_names(void *arg, struct err *e)
{
	struct names *n = arg;
	autofree char *text = NULL;
	const char *line, *path = n->type == SOCK_RAW ? "/proc/thread-self/net/raw" : "/proc/thread-self/net/icmp";
	int r = io_read_file(path, 16u << 20, &text, NULL, e), pass;

	if (r < 0)
		return r;
	for (pass = 0; pass < 2; pass++) {
		if (pass && (!n->found || n->type == SOCK_RAW))
			break;
		for (line = text; line; line = strchr(line, '\n'), line = line ? line + 1 : NULL)
			read_line(n, line, pass);
	}
	return 0;
}

static int read_names(int fd, int netns, struct names *n, struct err *e)
{
	struct sockaddr_in peer = {0};
	socklen_t len = sizeof(peer);
	struct stat st;
	int r;

	if (fstat(fd, &st) < 0)
		return err_sys(e, "stat a socket");
	*n = (struct names){.type = get_int(fd, SOL_SOCKET, SO_TYPE), .ino = st.st_ino, .local.sin_family = AF_INET};
	r = netns_run(netns, find_names, n, e);
	if (r == 0 && n->connected && getpeername(fd, (struct sockaddr *)&peer, &len) == 0)
		n->peer.sin_port = peer.sin_port;
	return r;
}

/* ---- looking */

static int refuse(struct err *e, const char *what)
{
	return err_set(e, EOPNOTSUPP, "%s: cannot be carried", what);
}

static bool is_readable(int fd)
{
	struct pollfd p = {.fd = fd, .events = POLLIN};

	/* after shutdown(2), too; and errors have memory, too */
	return poll(&p, 1, 0) == 1 && (p.revents & POLLIN) && udp_queued_memory(fd);
}

/**
 * raw_check - can the socket @fd be carried? While the program runs.
 *
 * 0, -EOPNOTSUPP with the reason, or another negative errno.
 */
int raw_check(int fd, int netns, struct err *e)
{
	int type = get_int(fd, SOL_SOCKET, SO_TYPE), proto = get_int(fd, SOL_SOCKET, SO_PROTOCOL), i, r;
	struct names n;
	char opts[40];
	socklen_t len = sizeof(opts);

	if (get_int(fd, SOL_SOCKET, SO_DOMAIN) != AF_INET ||
	    (type != SOCK_RAW && (type != SOCK_DGRAM || proto != IPPROTO_ICMP)))
		return err_set(e, EOPNOTSUPP, "not a raw socket of IPv4");
	if (get_int(fd, SOL_SOCKET, SO_LOCK_FILTER))
		return refuse(e, "a raw socket with a locked filter (SO_LOCK_FILTER)");
	if (get_int(fd, SOL_SOCKET, SO_ZEROCOPY))
		return refuse(e, "a raw socket with SO_ZEROCOPY");
	if (sockopt_has_txtime(fd))
		return refuse(e, "a raw socket with SO_TXTIME");
	if (get_int(fd, IPPROTO_IP, IP_UNICAST_IF))
		return refuse(e, "a raw socket with IP_UNICAST_IF");
	if (getsockopt(fd, IPPROTO_IP, IP_OPTIONS, opts, &len) == 0 && len > 0)
		return refuse(e, "a raw socket with IP options");
	r = read_names(fd, netns, &n, e);
	if (r < 0)
		return r;
	if (type == SOCK_RAW && !n.found)
		return refuse(e, "a raw socket that has left its peer (connect(2) to AF_UNSPEC) and hears nothing any more");
	if (n.shared)
		return refuse(e, "an ICMP socket that has its number together with another");
	/* a running program reads; only one that does not is in the way */
	for (i = 0; type == SOCK_RAW && proto == IPPROTO_UDP && is_readable(fd); i++) {
		if (i == 10)
			return refuse(e, "a raw socket for UDP at which packets wait");
		poll(NULL, 0, 5);
	}
	return 0;
}

/**
 * raw_save - the state of the socket @fd of @netns, but for its queue: raw_queues_read()
 *
 * As udp_save(). @out->u is the caller's to free with udp_state_done().
 */
int raw_save(int fd, int netns, struct raw_state *out, struct err *e)
{
	struct raw_state s = {.type = get_int(fd, SOL_SOCKET, SO_TYPE),
			      .protocol = get_int(fd, SOL_SOCKET, SO_PROTOCOL)};
	struct names n;
	int r = raw_check(fd, netns, e);

	if (r == 0)
		r = read_names(fd, netns, &n, e);
	if (r < 0)
		return r;
	s.u.local = n.local;
	s.u.peer = n.peer;
	udp_read_common(fd, &s.u);
	r = udp_read_options(fd, s.type == SOCK_RAW ? &raw_opts : &udp_opts, &s.u, e);
	if (r == 0)
		r = udp_read_groups(fd, netns, &s.u, e);
	if (r < 0)
		udp_state_done(&s.u);
	else
		*out = s;
	return r;
}

/* ---- out and in again */

static const int asked[] = {IP_PKTINFO, IP_RECVTTL, IP_RECVTOS};

/* A socket, and what of it is changed meanwhile. */
struct member {
	int fd, type, protocol;
	struct names n;
	struct sock_filter *prog;
	unsigned short nprog;
	int rcvbuf, lock, multicast, freebind, was[ARRAY_SIZE(asked)];
	uint32_t icmp;
	char dev[IFNAMSIZ];
	socklen_t devlen;
};

struct packet {
	uint32_t member, len;
	struct in_addr from, to;
	uint8_t ttl, tos;
	bool lost; /* it could not be put back */
	uint8_t data[];
};

enum { SHIELD, TAKE, PUT, UNSHIELD, DONE };

/* Shared with the process that does it. */
struct exchange {
	_Atomic unsigned phase;
	_Atomic size_t used;  /* of data; whole packets */
	_Atomic size_t given; /* of these, are back */
	_Atomic int error;
	size_t room;
	uint8_t data[];
};

struct raw_queues {
	struct member *m;
	size_t n, size;
	struct raw_via via;
	int echo; /* the namespace's ECHO_TO_ALL */
	char echo_was;
	struct exchange *x;
};

static size_t packet_size(size_t len)
{
	return (sizeof(struct packet) + len + 7) & ~(size_t)7;
}

static int read_filter(struct member *m, struct err *e)
{
	socklen_t len = BPF_MAXINSNS; /* of it, not of bytes */

	m->prog = calloc(len, sizeof(*m->prog));
	if (!m->prog)
		return err_num(e, ENOMEM, "filter of a socket");
	if (getsockopt(m->fd, SOL_SOCKET, SO_GET_FILTER, m->prog, &len) < 0)
		return err_sys(e, "filter of a socket");
	m->nprog = (unsigned short)len;
	return 0;
}

static int member_read(struct member *m, int fd, int netns, struct err *e)
{
	int r = read_names(fd, netns, &m->n, e);
	socklen_t len = sizeof(m->icmp);
	size_t i;

	if (r < 0)
		return r;
	m->fd = fd;
	m->type = m->n.type;
	m->protocol = get_int(fd, SOL_SOCKET, SO_PROTOCOL);
	m->rcvbuf = get_int(fd, SOL_SOCKET, SO_RCVBUF);
	m->lock = get_int(fd, SOL_SOCKET, SO_BUF_LOCK);
	m->multicast = get_int(fd, IPPROTO_IP, IP_MULTICAST_ALL);
	m->freebind = get_int(fd, IPPROTO_IP, IP_FREEBIND);
	for (i = 0; i < ARRAY_SIZE(asked); i++)
		m->was[i] = get_int(fd, IPPROTO_IP, asked[i]);
	if (getsockopt(fd, SOL_RAW, ICMP_FILTER, &m->icmp, &len) < 0)
		m->icmp = 0;
	m->devlen = sizeof(m->dev);
	if (getsockopt(fd, SOL_SOCKET, SO_BINDTODEVICE, m->dev, &m->devlen) < 0)
		return err_sys(e, "device of a socket");
	return read_filter(m, e);
}

/* Root may have changed it in a pod: then the kernel answers what comes by broadcast. */
static int open_echo(void *queues, struct err *e)
{
	struct raw_queues *q = queues;

	q->echo = open(ECHO_TO_ALL, O_RDWR | O_CLOEXEC);
	return q->echo < 0 || pread(q->echo, &q->echo_was, 1, 0) != 1 ? err_sys(e, "open '%s'", ECHO_TO_ALL) : 0;
}

static void put_echo(const struct raw_queues *q, char v)
{
	if (q->echo_was != '1')
		(void)!pwrite(q->echo, &v, 1, 0);
}

/**
 * raw_queues_open - prepare for reading what waits at @fds[@n], sockets of @netns
 *
 * They are all that the namespace has, or others would hear the packets once more. 1, or 0 and no *@out:
 * nothing waits anywhere.
 */
int raw_queues_open(const int *fds, size_t n, int netns, struct raw_queues **out, struct err *e)
{
	size_t i, room = 1u << 20;
	struct raw_queues *q;
	bool any = false;
	int r = 0;

	for (i = 0; i < n; i++) {
		any |= is_readable(fds[i]);
		room += 2 * (size_t)udp_queued_memory(fds[i]);
	}
	if (!any)
		return 0;
	q = calloc(1, sizeof(*q));
	if (!q)
		return err_num(e, ENOMEM, "queues of raw sockets");
	q->via.fd = q->echo = -1;
	q->m = calloc(n, sizeof(*q->m));
	q->size = sizeof(*q->x) + room;
	q->x = mmap(NULL, q->size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (q->x == MAP_FAILED || !q->m) {
		q->x = q->x == MAP_FAILED ? NULL : q->x;
		r = err_num(e, ENOMEM, "queues of raw sockets");
	} else {
		q->x->room = room;
	}
	for (i = 0; i < n && r == 0; i++, q->n++)
		r = member_read(&q->m[i], fds[i], netns, e);
	if (r == 0)
		r = raw_via_open(netns, &q->via, e);
	if (r == 0)
		r = netns_run(netns, open_echo, q, e);
	if (r < 0) {
		raw_queues_free(q);
		return r;
	}
	*out = q;
	return 1;
}

void raw_queues_free(struct raw_queues *q)
{
	size_t i;

	if (!q)
		return;
	for (i = 0; q->m && i < q->n; i++)
		free(q->m[i].prog);
	free(q->m);
	if (q->x)
		munmap(q->x, q->size);
	raw_via_close(&q->via);
	close_fdp(&q->echo);
	free(q);
}

/* One packet: 1 it is written down, 0 there is none. */
static int take_one(struct raw_queues *q, uint32_t i)
{
	struct exchange *x = q->x;
	struct packet *p = (void *)(x->data + x->used);
	struct iovec v = {p->data, RAW_PACKET_MAX};
	struct sockaddr_in from = {0};
	char control[512];
	struct msghdr mh;
	struct udp_dgram d;
	int errors = 0;
	size_t part;
	ssize_t n;

	if (x->room - x->used < packet_size(RAW_PACKET_MAX))
		return -ENOBUFS;
	do {
		d = (struct udp_dgram){.ttl = 64};
		mh = (struct msghdr){.msg_name = &from, .msg_namelen = sizeof(from), .msg_iov = &v, .msg_iovlen = 1,
				     .msg_control = control, .msg_controllen = sizeof(control)};
		n = recvmsg(q->m[i].fd, &mh, MSG_DONTWAIT);
	} while (n < 0 && errno != EAGAIN && errors++ < ERRORS_MAX); /* an ICMP message's error is taken by asking */
	if (n < 0)
		return 0;
	udp_read_control(&mh, &d, &part);
	p->member = i;
	p->len = (uint32_t)n;
	p->lost = false;
	p->from = from.sin_addr;
	p->to = d.to;
	p->ttl = d.ttl;
	p->tos = d.tos;
	x->used += packet_size((size_t)n);
	return 1;
}

static int take_all(struct raw_queues *q)
{
	static const int one = 1;
	uint32_t i;
	size_t k;
	int r = 0;

	for (i = 0; i < q->n && r == 0; i++) {
		for (k = 0; k < ARRAY_SIZE(asked); k++)
			put_int(q->m[i].fd, IPPROTO_IP, asked[k], one);
		while ((r = take_one(q, i)) > 0)
			;
		for (k = 0; k < ARRAY_SIZE(asked); k++)
			put_int(q->m[i].fd, IPPROTO_IP, asked[k], q->m[i].was[k]);
	}
	return r;
}

static void rebind(const struct member *m, in_addr_t addr)
{
	struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = addr};

	if (m->type != SOCK_RAW || m->n.connected || !m->n.local.sin_addr.s_addr)
		return;
	put_int(m->fd, IPPROTO_IP, IP_FREEBIND, 1);
	bind(m->fd, (struct sockaddr *)&at, sizeof(at));
	put_int(m->fd, IPPROTO_IP, IP_FREEBIND, m->freebind);
}

/* Everything passes; and as it was. */
static void names_off(const struct member *m)
{
	uint32_t none = 0;

	setsockopt(m->fd, SOL_SOCKET, SO_BINDTODEVICE, "", 0);
	rebind(m, INADDR_ANY);
	setsockopt(m->fd, SOL_RAW, ICMP_FILTER, &none, sizeof(none));
	put_int(m->fd, IPPROTO_IP, IP_MULTICAST_ALL, 1);
	put_int(m->fd, SOL_SOCKET, SO_RCVBUFFORCE, INT32_MAX / 4);
}

static void names_on(const struct member *m)
{
	put_int(m->fd, SOL_SOCKET, SO_RCVBUFFORCE, m->rcvbuf / 2); /* the kernel doubles it */
	put_int(m->fd, SOL_SOCKET, SO_BUF_LOCK, m->lock);
	put_int(m->fd, IPPROTO_IP, IP_MULTICAST_ALL, m->multicast);
	setsockopt(m->fd, SOL_RAW, ICMP_FILTER, &m->icmp, sizeof(m->icmp));
	rebind(m, m->n.local.sin_addr.s_addr);
	setsockopt(m->fd, SOL_SOCKET, SO_BINDTODEVICE, m->dev, m->devlen);
}

static struct udp_dgram dgram_of(struct packet *p)
{
	return (struct udp_dgram){.from = {.sin_family = AF_INET, .sin_addr = p->from},
				  .to = p->to, .ttl = p->ttl, .tos = p->tos, .len = p->len, .data = p->data};
}

/* Would it be heard? Others cannot be put back; nor what is less than its headers. */
static bool passes(const struct member *m, const struct udp_dgram *d)
{
	struct iphdr ip;

	if (m->type != SOCK_RAW)
		return d->len >= sizeof(struct icmphdr);
	if (d->len < sizeof(ip))
		return false;
	memcpy(&ip, d->data, sizeof(ip));
	return ntohs(ip.tot_len) >= d->len && (!m->n.connected || (ip.saddr == m->n.peer.sin_addr.s_addr &&
		(!m->n.local.sin_addr.s_addr || ip.daddr == m->n.local.sin_addr.s_addr)));
}

static void put_all(struct raw_queues *q)
{
	struct exchange *x = q->x;
	const struct member *open = NULL;

	/* one that is full again stays open: it is shielded */
	while (x->given < x->used) {
		struct packet *p = (void *)(x->data + x->given);
		const struct member *m = &q->m[p->member];
		struct udp_dgram d = dgram_of(p);

		if (m != open)
			names_off(m);
		open = m;
		if (m->type == SOCK_DGRAM && m->n.local.sin_addr.s_addr)
			d.to = m->n.local.sin_addr; /* or it would not be this one's */
		p->lost = !passes(m, &d);
		if (!p->lost && raw_inject(&q->via, m->fd, m->type, &d, NULL) < 0) {
			p->lost = true;
			q->via.looks = LOOKS_AFTER_LOSS;
		}
		x->given += packet_size(p->len);
	}
}

static bool has_packets(const struct raw_queues *q, size_t i)
{
	const struct packet *p;
	size_t at;

	for (at = 0; at < q->x->used; at += packet_size(p->len)) {
		p = (const void *)(q->x->data + at);
		if (p->member == i)
			return true;
	}
	return false;
}

static void unshield(const struct raw_queues *q, size_t i)
{
	const struct member *m = &q->m[i];
	struct sock_fprog prog = {m->nprog, m->prog};

	if (has_packets(q, i))
		names_on(m);
	if (m->nprog)
		setsockopt(m->fd, SOL_SOCKET, SO_ATTACH_FILTER, &prog, sizeof(prog));
	else
		put_int(m->fd, SOL_SOCKET, SO_DETACH_FILTER, 0);
}

/** raw_queues_lost - how many packets of the socket @i are not back in its queue */
size_t raw_queues_lost(const struct raw_queues *q, size_t i)
{
	const struct packet *p;
	size_t at, n = 0;

	for (at = 0; at < q->x->used; at += packet_size(p->len)) {
		p = (const void *)(q->x->data + at);
		n += p->member == i && p->lost;
	}
	return n;
}

int raw_queues_exchange(void *queues)
{
	struct raw_queues *q = queues;
	struct exchange *x = q->x;
	size_t i;

	if (x->phase == SHIELD) {
		for (i = 0; i < q->n; i++)
			x->error = raw_shield(q->m[i].fd, NULL) < 0 ? -EPERM : x->error;
		x->phase = x->error ? UNSHIELD : TAKE;
	}
	if (x->phase == TAKE) {
		x->error = take_all(q);
		fault_point("engine-source", "taken", NULL);
		x->phase = PUT;
	}
	if (x->phase == PUT) {
		put_echo(q, '1');
		put_all(q);
		put_echo(q, q->echo_was);
		x->phase = UNSHIELD;
	}
	for (i = 0; x->phase == UNSHIELD && i < q->n; i++)
		unshield(q, i);
	x->phase = DONE;
	return x->error;
}

/** raw_queues_read - adds what waits at the socket @i of raw_queues_open() to the queue of @s; it
 * may be what cannot be carried */
int raw_queues_read(const struct raw_queues *q, size_t i, struct raw_state *s, struct err *e)
{
	struct exchange *x = q->x;
	size_t at = 0;
	int r = 0;

	while (r == 0 && at < x->used) {
		struct packet *p = (void *)(x->data + at);
		struct udp_dgram d = dgram_of(p);

		at += packet_size(p->len);
		if (p->member != i)
			continue;
		r = raw_check_packet(s->type, &d, e);
		if (r == 0)
			r = udp_add_dgram(&s->u, &d, p->data, p->len, e);
	}
	return r;
}
