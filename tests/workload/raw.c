/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Raw sockets of IPv4 and ICMP sockets within the pod: packets of all sizes that always wait in
 * several queues of one protocol, each with its own share (ICMP_FILTER, a bound and a connected one,
 * an own filter that cuts packets), and none with another's; sockets that are inherited and dup'ed;
 * pings by both sorts of sockets, which the kernel answers; a child that blocks in recvfrom(2);
 * IP_HDRINCL; options. Beside them TCP and UDP, whose queues are filled anew by packets that a raw
 * socket of that protocol must not hear, and which must not hear an ICMP error twice.
 */
#include "wl.h"
#include "wl_sock.h"

#include <arpa/inet.h>
#include <net/if.h>
#include <netinet/in.h>
#include <netinet/ip.h>
#include <netinet/tcp.h>
#include <linux/filter.h>
#include <linux/icmp.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#define PROTO	253 /* for experiments */
#define NWAIT	20
#define NPING	6
#define CUT	60
#define HEADER	20

static struct sockaddr_in own;
static int ear[5], mouth, cast, icmp[2], ping, pinger, hdr, child_ear, udp_raw, tcp_raw, dgram[2], stream[2], errs;
enum { ALL, BOUND, CONNECTED, SHORT, LONE };
static uint64_t put_seq, got_seq[5], ping_seq, ping_got, icmp_got, udp_seq, child_seq;
static in_port_t ping_id;

static struct sockaddr_in at(const char *ip, int port)
{
	struct sockaddr_in sa = { .sin_family = AF_INET, .sin_port = htons((uint16_t)port) };

	sa.sin_addr.s_addr = ip ? inet_addr(ip) : own.sin_addr.s_addr;
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

static int sock(int type, int proto)
{
	return (int)WL_SYS(socket(AF_INET, type, proto));
}

static void empty(const char *what, int fd)
{
	uint8_t b[64];
	ssize_t n = recv(fd, b, sizeof(b), MSG_DONTWAIT);

	WL_CHECK(n < 0 && errno == EAGAIN, "%s: expected an empty queue, got %zd (%s); protocol %d", what, n, strerror(errno), n > 9 ? b[9] : 0);
}

static void find_own(void)
{
	struct ifreq ifr = { .ifr_name = "eth0" };
	int fd = sock(SOCK_DGRAM, 0);

	own = at("127.0.0.1", 0);
	if (ioctl(fd, SIOCGIFADDR, &ifr) == 0)
		own.sin_addr = ((struct sockaddr_in *)&ifr.ifr_addr)->sin_addr;
	WL_SYS(close(fd));
}

/* ---- packets of a protocol of our own */

static size_t length(uint64_t seq)
{
	return seq % 13 == 5 ? 30000 : seq % 7 == 3 ? 0 : wl_mix(seq) % 1400;
}

static const char *to_of(uint64_t seq)
{
	return seq % 2 ? "127.0.0.2" : "127.0.0.1";
}

static void put(void)
{
	static uint8_t buf[30000];
	struct sockaddr_in to = at(to_of(put_seq), 0);
	size_t len = length(put_seq);

	wl_fill(buf, len, 3, put_seq * 64);
	set(mouth, IPPROTO_IP, IP_TTL, 30 + (int)(put_seq % 16));
	WL_EQ("sent", len, WL_SYS(sendto(mouth, buf, len, 0, (struct sockaddr *)&to, sizeof(to))));
	put_seq++;
}

/* Does this ear hear what goes to that one's address? Connecting has bound it, too. */
static bool hears(int i, uint64_t seq)
{
	return i == BOUND ? seq % 2 : i == CONNECTED ? !(seq % 2) : true;
}

static void take(int i)
{
	static uint8_t buf[30100];
	struct sockaddr_in from = { 0 }, to;
	socklen_t fromlen = sizeof(from);
	struct iphdr ip;
	uint64_t seq;
	size_t len;

	while (!hears(i, got_seq[i]))
		got_seq[i]++;
	seq = got_seq[i]++;
	len = HEADER + length(seq);
	if (i == SHORT && len > CUT)
		len = CUT;
	to = at(to_of(seq), 0);
	WL_EQ("length", len, WL_SYS(recvfrom(ear[i], buf, sizeof(buf), 0, (struct sockaddr *)&from, &fromlen)));
	memcpy(&ip, buf, sizeof(ip));
	WL_EQ("header's protocol", PROTO, ip.protocol);
	WL_EQ("header's length", HEADER + length(seq), ntohs(ip.tot_len));
	WL_EQ("header's TTL", 30 + seq % 16, ip.ttl);
	WL_EQ("header's TOS", 8, ip.tos);
	WL_EQ("receiver", ntohl(to.sin_addr.s_addr), ntohl(ip.daddr));
	WL_EQ("sender", INADDR_LOOPBACK, ntohl(ip.saddr));
	WL_EQ("sender's name", INADDR_LOOPBACK, ntohl(from.sin_addr.s_addr));
	wl_verify("packet", buf + HEADER, len - HEADER, 3, seq * 64);
}

static void setup_ears(void)
{
	struct sock_filter cut[] = { BPF_STMT(BPF_RET | BPF_K, CUT) };
	struct sock_fprog prog = { 1, cut };
	int i;

	mouth = sock(SOCK_RAW, PROTO);
	bind_to(mouth, at("127.0.0.1", 0));
	set(mouth, IPPROTO_IP, IP_TOS, 8);
	WL_SYS(shutdown(mouth, SHUT_RD) == 0 || errno == ENOTCONN ? 0 : -1);
	for (i = 0; i < LONE; i++) {
		ear[i] = sock(SOCK_RAW, PROTO);
		set(ear[i], SOL_SOCKET, SO_RCVBUF, 1 << 20);
	}
	ear[LONE] = sock(SOCK_RAW, PROTO + 1);
	bind_to(ear[BOUND], at("127.0.0.2", 0));
	connect_to(ear[CONNECTED], at("127.0.0.1", 0));
	WL_SYS(setsockopt(ear[SHORT], SOL_SOCKET, SO_ATTACH_FILTER, &prog, sizeof(prog)));
	for (i = 0; i < NWAIT; i++)
		put();
}

/* ---- a packet of a group that the one at which it waits has never joined, and from which it would take none now */

static void setup_cast(void)
{
	struct ip_mreqn group = { .imr_multiaddr.s_addr = inet_addr("239.9.8.7"), .imr_address.s_addr = htonl(INADDR_LOOPBACK) };
	struct sockaddr_in to = at("239.9.8.7", 0);
	int s = sock(SOCK_RAW, PROTO - 2);

	cast = sock(SOCK_RAW, PROTO - 2);
	WL_SYS(setsockopt(s, IPPROTO_IP, IP_ADD_MEMBERSHIP, &group, sizeof(group)));
	WL_SYS(setsockopt(s, IPPROTO_IP, IP_MULTICAST_IF, &group, sizeof(group)));
	WL_EQ("sent to a group", 4, WL_SYS(sendto(s, "many", 4, 0, (struct sockaddr *)&to, sizeof(to))));
	set(cast, IPPROTO_IP, IP_MULTICAST_ALL, 0);
	WL_SYS(close(s));
}

static void finish_cast(void)
{
	char buf[100];

	WL_EQ("IP_MULTICAST_ALL", 0, get(cast, IPPROTO_IP, IP_MULTICAST_ALL));
	WL_EQ("packet of a group", HEADER + 4, WL_SYS(recv(cast, buf, sizeof(buf), 0)));
	WL_EQ("its bytes", 0, memcmp(buf + HEADER, "many", 4));
	empty("after the packet of a group", cast);
}

/* ---- pings */

static void fill_echo(struct icmphdr *h, uint64_t seq, uint16_t id)
{
	*h = (struct icmphdr){ .type = ICMP_ECHO, .un.echo = { .id = id, .sequence = htons((uint16_t)seq) } };
}

static void send_ping(void)
{
	uint8_t buf[sizeof(struct icmphdr) + 700];
	size_t len = wl_mix(ping_seq) % 700;
	struct sockaddr_in to = at("127.0.0.1", 0);

	fill_echo((void *)buf, ping_seq, 0);
	wl_fill(buf + sizeof(struct icmphdr), len, 5, ping_seq * 64);
	WL_EQ("ping", sizeof(struct icmphdr) + len, WL_SYS(sendto(ping, buf, sizeof(struct icmphdr) + len, 0, (struct sockaddr *)&to, sizeof(to))));
	ping_seq++;
}

/* The reply at the ICMP socket. */
static void take_ping(void)
{
	uint8_t buf[1000], control[256];
	struct sockaddr_in from = { 0 };
	struct iovec v = { buf, sizeof(buf) };
	struct msghdr mh = { .msg_name = &from, .msg_namelen = sizeof(from), .msg_iov = &v, .msg_iovlen = 1,
			     .msg_control = control, .msg_controllen = sizeof(control) };
	size_t len = wl_mix(ping_got) % 700;
	struct cmsghdr *c;
	struct icmphdr h;
	int ttl = 0;

	WL_EQ("reply", sizeof(h) + len, WL_SYS(recvmsg(ping, &mh, 0)));
	memcpy(&h, buf, sizeof(h));
	WL_EQ("type of a reply", ICMP_ECHOREPLY, h.type);
	WL_EQ("its number", ntohs(ping_id), ntohs(h.un.echo.id));
	WL_EQ("its sequence", (uint16_t)ping_got, ntohs(h.un.echo.sequence));
	WL_EQ("from", INADDR_LOOPBACK, ntohl(from.sin_addr.s_addr));
	wl_verify("reply", buf + sizeof(h), len, 5, ping_got * 64);
	for (c = CMSG_FIRSTHDR(&mh); c; c = CMSG_NXTHDR(&mh, c))
		if (c->cmsg_level == IPPROTO_IP && c->cmsg_type == IP_TTL)
			memcpy(&ttl, CMSG_DATA(c), sizeof(ttl));
	WL_EQ("its TTL", 64, ttl);
	ping_got++;
}

/* The same reply at a raw socket, whose ICMP_FILTER lets nothing else pass; and nothing of the pinger's. */
static void take_icmp(void)
{
	uint8_t buf[1000];
	size_t len = wl_mix(icmp_got) % 700;
	struct icmphdr h;

	WL_EQ("reply, raw", HEADER + sizeof(h) + len, WL_SYS(recv(icmp[0], buf, sizeof(buf), 0)));
	memcpy(&h, buf + HEADER, sizeof(h));
	WL_EQ("type", ICMP_ECHOREPLY, h.type);
	WL_EQ("sequence", (uint16_t)icmp_got, ntohs(h.un.echo.sequence));
	wl_verify("reply, raw", buf + HEADER + sizeof(h), len, 5, icmp_got * 64);
	icmp_got++;
}

static void setup_pings(void)
{
	struct icmp_filter only_reply = { ~(1u << ICMP_ECHOREPLY) };
	struct sockaddr_in me = { 0 };
	socklen_t len = sizeof(me);
	int i;

	ping = sock(SOCK_DGRAM, IPPROTO_ICMP);
	bind_to(ping, at("0.0.0.0", 0));
	WL_SYS(getsockname(ping, (struct sockaddr *)&me, &len));
	ping_id = me.sin_port;
	WL_CHECK(ping_id, "number of an ICMP socket: expected one, got 0");
	set(ping, IPPROTO_IP, IP_RECVTTL, 1);
	pinger = sock(SOCK_DGRAM | SOCK_NONBLOCK, IPPROTO_ICMP); /* nothing of it yet, not even a number */
	icmp[0] = sock(SOCK_RAW, IPPROTO_ICMP);
	WL_SYS(setsockopt(icmp[0], SOL_RAW, ICMP_FILTER, &only_reply, sizeof(only_reply)));
	icmp[1] = (int)WL_SYS(dup(icmp[0]));
	for (i = 0; i < NPING; i++)
		send_ping();
}

/* ---- others: what they hear must not come from a move */

static int tcp_state(int fd)
{
	struct tcp_info info = { 0 };
	socklen_t len = sizeof(info);

	WL_SYS(getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &len));
	return info.tcpi_state;
}

/* Datagrams in a queue, which stays as it is. */
static uint64_t waiting(int fd)
{
	uint64_t n = 0, v;

	set(fd, SOL_SOCKET, SO_PEEK_OFF, 0);
	while (recv(fd, &v, sizeof(v), MSG_PEEK | MSG_DONTWAIT) == sizeof(v))
		n++;
	set(fd, SOL_SOCKET, SO_PEEK_OFF, -1);
	return n;
}

/* The kernel may have said too much of late: one more try, when the answer to the last cannot come any more. */
static bool is_refused(void)
{
	static unsigned looks;
	char c;

	if (looks++ % 5000 == 0)
		WL_SYS(send(errs, "?", 1, 0));
	return recv(errs, &c, 1, MSG_DONTWAIT) < 0 && errno == ECONNREFUSED;
}

static void setup_others(void)
{
	struct sockaddr_in a = { 0 };
	socklen_t len = sizeof(a);
	int one = 1, l = sock(SOCK_STREAM, 0), i;

	for (i = 0; i < 2; i++) {
		dgram[i] = sock(SOCK_DGRAM, 0);
		bind_to(dgram[i], at("127.0.0.1", 0));
	}
	WL_SYS(getsockname(dgram[1], (struct sockaddr *)&a, &len));
	connect_to(dgram[0], a);
	for (i = 0; i < 8; i++, udp_seq++)
		WL_SYS(send(dgram[0], &udp_seq, sizeof(udp_seq), 0));
	bind_to(l, at("127.0.0.1", 0));
	WL_SYS(listen(l, 1));
	WL_SYS(getsockname(l, (struct sockaddr *)&a, &len));
	stream[0] = sock(SOCK_STREAM, 0);
	connect_to(stream[0], a);
	stream[1] = (int)WL_SYS(accept(l, NULL, NULL));
	WL_SYS(shutdown(stream[1], SHUT_WR)); /* the way into this state is a packet */
	WL_SYS(close(l));
	WL_AWAIT(tcp_state(stream[1]) == TCP_FIN_WAIT2, "acknowledgement of an end");
	/* an error that has been read: nobody listens there; the raw socket has its message, and keeps it */
	errs = sock(SOCK_DGRAM, 0);
	connect_to(errs, at("127.0.0.1", 9));
	hdr = sock(SOCK_RAW, IPPROTO_ICMP);
	set(hdr, IPPROTO_IP, IP_HDRINCL, 1);
	set(hdr, IPPROTO_IP, IP_RECVERR, 1);
	set(hdr, SOL_SOCKET, SO_BROADCAST, one);
	WL_AWAIT(is_refused(), "error of a send to nobody");
	/* made when the others have spoken, and been heard: they must stay empty */
	WL_AWAIT(waiting(dgram[1]) == udp_seq, "datagrams");
	udp_raw = sock(SOCK_RAW, IPPROTO_UDP);
	tcp_raw = sock(SOCK_RAW, IPPROTO_TCP);
}

static void check_others(void)
{
	uint8_t seg[HEADER + sizeof(struct tcphdr) + 40];

	WL_EQ("an error that was read long ago", 0, get(errs, SOL_SOCKET, SO_ERROR));
	/* the kernel may ask and answer; but no end comes twice */
	while (recv(tcp_raw, seg, sizeof(seg), MSG_DONTWAIT) > 0)
		WL_EQ("flags of a segment", 0, seg[HEADER + 13] & (TH_FIN | TH_RST | TH_SYN));
	empty("a raw socket of UDP", udp_raw);
	empty("of another protocol", ear[LONE]);
	WL_EQ("IP_HDRINCL", 1, get(hdr, IPPROTO_IP, IP_HDRINCL));
	WL_EQ("IP_HDRINCL of another", 0, get(icmp[0], IPPROTO_IP, IP_HDRINCL));
	WL_EQ("IP_RECVERR", 1, get(hdr, IPPROTO_IP, IP_RECVERR));
	WL_EQ("O_NONBLOCK", O_NONBLOCK, WL_SYS(fcntl(pinger, F_GETFL)) & O_NONBLOCK);
}

/* The UDP queue itself, at the end alone: a raw socket would hear what is sent. */
static void finish_others(void)
{
	uint64_t i, v = 0;
	uint8_t buf[200];
	struct icmphdr h;

	for (i = 0; i < udp_seq; i++) {
		WL_EQ("datagram", sizeof(v), WL_SYS(recv(dgram[1], &v, sizeof(v), 0)));
		WL_EQ("its number", i, v);
	}
	empty("UDP", dgram[1]);
	WL_EQ("end of a stream", 0, WL_SYS(recv(stream[0], &v, 1, 0)));
	/* the message of the error is among the first that this one has heard */
	do {
		WL_CHECK(WL_SYS(recv(hdr, buf, sizeof(buf), MSG_DONTWAIT)) >= (long)(HEADER + sizeof(h)), "message of an error: too short");
		memcpy(&h, buf + HEADER, sizeof(h));
	} while (h.type != ICMP_DEST_UNREACH);
}

/* ---- a child that waits in recvfrom(2) on an inherited socket */

static int listen_child(void *arg)
{
	uint64_t v[4], seq = 0;
	int fd = *(int *)arg;

	for (;;) {
		WL_EQ("child's packet", HEADER + sizeof(v[0]), WL_SYS(recv(fd, v, sizeof(v), 0)));
		memcpy(v, (uint8_t *)v + HEADER, sizeof(v[0]));
		if (v[0] == UINT64_MAX)
			return 77;
		WL_EQ("its number", seq, v[0]);
		seq++;
	}
}

static void tell_child(uint64_t v)
{
	struct iphdr ip = { .version = 4, .ihl = 5, .ttl = 9, .protocol = PROTO - 1, .daddr = htonl(INADDR_LOOPBACK) };
	struct sockaddr_in to = at("127.0.0.1", 0);
	uint8_t buf[HEADER + sizeof(v)];

	memcpy(buf, &ip, sizeof(ip));
	memcpy(buf + HEADER, &v, sizeof(v));
	WL_EQ("with a header of ours", sizeof(buf), WL_SYS(sendto(hdr, buf, sizeof(buf), 0, (struct sockaddr *)&to, sizeof(to))));
}

static void finish(pid_t kid)
{
	struct sockaddr_in to = at("127.0.0.1", 0);
	struct icmphdr h, back;
	int i;

	for (i = 0; i < LONE; i++)
		while (got_seq[i] + !hears(i, got_seq[i]) < put_seq)
			take(i);
	for (i = 0; i < LONE; i++)
		empty("at the end", ear[i]);
	while (ping_got < ping_seq)
		take_ping();
	while (icmp_got < ping_seq)
		take_icmp();
	empty("ICMP socket", ping);
	empty("raw ICMP socket", icmp[1]);
	finish_others();
	finish_cast();
	tell_child(UINT64_MAX);
	wl_reap(kid, 77);
	/* a number of its own at last */
	fill_echo(&h, 1, 0);
	WL_SYS(sendto(pinger, &h, sizeof(h), 0, (struct sockaddr *)&to, sizeof(to)));
	WL_SYS(fcntl(pinger, F_SETFL, 0));
	WL_EQ("reply", sizeof(back), WL_SYS(recv(pinger, &back, sizeof(back), 0)));
}

int main(void)
{
	pid_t kid;
	int i;

	wl_init();
	find_own();
	setup_pings();
	setup_ears();
	setup_cast();
	setup_others();
	child_ear = sock(SOCK_RAW, PROTO - 1);
	kid = wl_spawn(listen_child, &child_ear);
	wl_ready();
	while (!wl_stopping()) {
		put();
		put();
		for (i = 0; i < LONE; i++)
			take(i);
		take(ALL);
		take(SHORT);
		take_ping();
		send_ping();
		take_icmp();
		tell_child(child_seq++);
		check_others();
		wl_pace();
	}
	finish(kid);
	wl_ok();
}
