/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Packet sockets: two that speak to each other over lo by a protocol of their own, one of which is
 * heard by a child, too, that waits in recv(2) on its copy; one that hears all on eth0 in promiscuous
 * mode and two multicast addresses, with a filter; one of which nothing is known yet; one that has a
 * protocol and no link, and is full. Frames may be lost, at a move, but are not mixed up, and come
 * from the sender alone.
 */
#include "wl.h"
#include "wl_sock.h"

#include <arpa/inet.h>
#include <linux/filter.h>
#include <linux/if_packet.h>
#include <linux/net_tstamp.h>
#include <linux/rtnetlink.h>
#include <net/ethernet.h>
#include <net/if.h>
#include <poll.h>
#include <sys/socket.h>

#define PROTO 0x88b5 /* for experiments */
#define OTHER 0x88b6
#define NFULL 7

static int mouth, ear, kid_ear, all, fresh, full;
static const char *wire;
static uint64_t seq;
static const struct { int type, count; uint8_t addr[6]; } members[] = {
	{ PACKET_MR_PROMISC, 2, { 0 } },
	{ PACKET_MR_MULTICAST, 1, { 1, 0, 0x5e, 1, 2, 3 } },
	{ PACKET_MR_MULTICAST, 3, { 0x33, 0x33, 0, 0x77, 0x77, 0x77 } },
};

static struct sockaddr_ll at(const char *link, int proto)
{
	struct sockaddr_ll a = { .sll_family = AF_PACKET, .sll_protocol = htons((uint16_t)proto), .sll_halen = 6 };

	a.sll_ifindex = link ? (int)WL_SYS(if_nametoindex(link) ?: (unsigned)-1) : 0;
	return a;
}

static int packet(int type, const char *link, int proto)
{
	struct sockaddr_ll a = at(link, proto);
	int fd = (int)WL_SYS(socket(AF_PACKET, type, 0));

	WL_SYS(bind(fd, (struct sockaddr *)&a, sizeof(a)));
	return fd;
}

static void check_name(const char *what, int fd, const char *link, int proto)
{
	struct sockaddr_ll a = { 0 }, b = at(link, proto);
	socklen_t len = sizeof(a);

	WL_SYS(getsockname(fd, (struct sockaddr *)&a, &len));
	WL_CHECK(a.sll_ifindex == b.sll_ifindex && a.sll_protocol == b.sll_protocol, "%s: expected link %d, protocol %#x, got %d, %#x", what,
		 b.sll_ifindex, proto, a.sll_ifindex, ntohs(a.sll_protocol));
}

static void put(int fd, int proto, uint64_t v)
{
	struct sockaddr_ll a = at("lo", proto);
	uint64_t frame[8];

	wl_fill(frame, sizeof(frame), 4, v * 64);
	frame[0] = v;
	WL_EQ("sent", sizeof(frame), WL_SYS(sendto(fd, frame, sizeof(frame), 0, (struct sockaddr *)&a, sizeof(a))));
}

/* The number of the next frame, which is whole; 0: it does not come. */
static uint64_t take(int fd, int proto, int wait)
{
	struct pollfd p = { .fd = fd, .events = POLLIN };
	struct sockaddr_ll a = { 0 };
	socklen_t len = sizeof(a);
	uint64_t frame[9];
	ssize_t n;

	if (poll(&p, 1, wait) != 1)
		return 0;
	n = recvfrom(fd, frame, sizeof(frame), MSG_DONTWAIT, (struct sockaddr *)&a, &len);
	if (n < 0 && errno == EAGAIN) /* a move since poll(2): what waited is lost */
		return 0;
	WL_EQ("length of a frame", sizeof(frame[0]) * 8, WL_SYS(n));
	WL_EQ("its protocol", proto, ntohs(a.sll_protocol));
	WL_EQ("its link", if_nametoindex("lo"), a.sll_ifindex);
	WL_EQ("its type", PACKET_HOST, a.sll_pkttype);
	wl_verify("frame", frame + 1, sizeof(frame) - 16, 4, frame[0] * 64 + 8);
	return frame[0];
}

/* Said again until it is heard; what is heard twice was said twice. */
static void talk(void)
{
	uint64_t got = 0;
	int tries;

	seq++;
	for (tries = 0; got != seq; tries++) {
		WL_CHECK(tries < 600, "frame %llu: expected to be heard, was not", (unsigned long long)seq);
		put(mouth, PROTO, seq);
		while (got != seq && (got = take(ear, PROTO, 100)))
			WL_CHECK(got <= seq && got + 1 >= seq, "frame: expected %llu, got %llu", (unsigned long long)seq, (unsigned long long)got);
	}
	while ((got = take(ear, PROTO, 0)))
		WL_EQ("the same again", seq, got);
}

/* ---- eth0: what the kernel says of the link */

static uint32_t promiscuity(void)
{
	struct {
		struct nlmsghdr h;
		struct ifinfomsg i;
	} q = { { sizeof(q), RTM_GETLINK, NLM_F_REQUEST, 1, 0 }, { .ifi_index = (int)if_nametoindex(wire) } };
	static _Alignas(8) char buf[32768];
	int fd = (int)WL_SYS(socket(AF_NETLINK, SOCK_RAW, NETLINK_ROUTE));
	const struct nlmsghdr *h = (void *)buf;
	const struct rtattr *a;
	uint32_t n = 0;
	long len;

	WL_SYS(send(fd, &q, sizeof(q), 0));
	WL_SYS(recv(fd, buf, sizeof(buf), 0));
	WL_SYS(close(fd));
	WL_EQ("answer about a link", RTM_NEWLINK, h->nlmsg_type);
	a = (const void *)(buf + NLMSG_SPACE(sizeof(struct ifinfomsg)));
	for (len = h->nlmsg_len - NLMSG_SPACE(sizeof(struct ifinfomsg)); RTA_OK(a, len); a = RTA_NEXT(a, len))
		if (a->rta_type == IFLA_PROMISCUITY)
			memcpy(&n, RTA_DATA(a), sizeof(n));
	return n;
}

static int heard(const char *addr)
{
	char line[200], link[32], hex[64];
	int users = 0, n = 0;
	FILE *f = fopen("/proc/net/dev_mcast", "r");

	WL_CHECK(f, "/proc/net/dev_mcast: expected a file");
	while (fgets(line, sizeof(line), f))
		if (sscanf(line, "%*d %31s %d %*d %63s", link, &users, hex) == 3 && !strcmp(link, wire) && !strcmp(hex, addr))
			n = users;
	fclose(f);
	return n;
}

static void setup_all(void)
{
	struct sock_filter none[] = { BPF_STMT(BPF_RET | BPF_K, 0) };
	struct sock_fprog prog = { 1, none };
	size_t i;
	int k;

	all = (int)WL_SYS(socket(AF_PACKET, SOCK_RAW, 0));
	set(all, SOL_PACKET, PACKET_AUXDATA, 1);
	set(all, SOL_PACKET, PACKET_VNET_HDR, 1);
	set(all, SOL_SOCKET, SO_RCVBUF, 300000);
	set(all, SOL_SOCKET, SO_TIMESTAMPING, SOF_TIMESTAMPING_RX_SOFTWARE | SOF_TIMESTAMPING_SOFTWARE);
	set(all, SOL_SOCKET, SO_NOFCS, 1);
	WL_SYS(setsockopt(all, SOL_SOCKET, SO_ATTACH_FILTER, &prog, sizeof(prog)));
	for (i = 0; i < sizeof(members) / sizeof(members[0]); i++)
		for (k = 0; k < members[i].count; k++) {
			struct packet_mreq q = { .mr_ifindex = (int)if_nametoindex(wire), .mr_type = (unsigned short)members[i].type };

			q.mr_alen = members[i].type == PACKET_MR_PROMISC ? 0 : 6;
			memcpy(q.mr_address, members[i].addr, 6);
			WL_SYS(setsockopt(all, SOL_PACKET, PACKET_ADD_MEMBERSHIP, &q, sizeof(q)));
		}
	struct sockaddr_ll a = at(wire, ETH_P_ALL);

	WL_SYS(bind(all, (struct sockaddr *)&a, sizeof(a)));
}

static void check_all(void)
{
	char c;

	check_name("of all", all, wire, ETH_P_ALL);
	WL_EQ("PACKET_AUXDATA", 1, get(all, SOL_PACKET, PACKET_AUXDATA));
	WL_EQ("PACKET_VNET_HDR", 1, get(all, SOL_PACKET, PACKET_VNET_HDR));
	WL_EQ("SO_TIMESTAMPING", SOF_TIMESTAMPING_RX_SOFTWARE | SOF_TIMESTAMPING_SOFTWARE, get(all, SOL_SOCKET, SO_TIMESTAMPING));
	WL_EQ("SO_NOFCS", 1, get(all, SOL_SOCKET, SO_NOFCS));
	WL_EQ("SO_RCVBUF", 600000, get(all, SOL_SOCKET, SO_RCVBUF));
	/* for each socket the link counts each once */
	WL_EQ("promiscuity", 1, promiscuity());
	WL_EQ("a multicast address", 1, heard("01005e010203"));
	WL_EQ("another", 1, heard("333300777777"));
	errno = 0;
	WL_EQ("what a filter drops", -1, recv(all, &c, 1, MSG_DONTWAIT));
	WL_EQ("errno", EAGAIN, errno);
	WL_EQ("SO_ERROR", 0, get(all, SOL_SOCKET, SO_ERROR));
}

/* Each membership goes away as often as it was asked for. */
static void finish_all(void)
{
	size_t i;
	int k;

	for (i = 0; i < sizeof(members) / sizeof(members[0]); i++) {
		struct packet_mreq q = { .mr_ifindex = (int)if_nametoindex(wire), .mr_type = (unsigned short)members[i].type };

		q.mr_alen = members[i].type == PACKET_MR_PROMISC ? 0 : 6;
		memcpy(q.mr_address, members[i].addr, 6);
		for (k = 0; k < members[i].count; k++) {
			WL_EQ("promiscuity before the last", i ? 0 : 1, promiscuity());
			WL_SYS(setsockopt(all, SOL_PACKET, PACKET_DROP_MEMBERSHIP, &q, sizeof(q)));
		}
	}
	WL_EQ("promiscuity at the end", 0, promiscuity());
	WL_EQ("a multicast address at the end", 0, heard("333300777777"));
}

/* ---- a child */

static int listen_child(void *arg)
{
	uint64_t frame[9], last = 0;
	int fd = *(int *)arg;

	for (;;) {
		WL_EQ("child's frame", 64, WL_SYS(recv(fd, frame, sizeof(frame), 0)));
		if (frame[0] == UINT64_MAX)
			return 55;
		WL_CHECK(frame[0] > last, "child's frame: expected one after %llu, got %llu", (unsigned long long)last, (unsigned long long)frame[0]);
		last = frame[0];
	}
}

static bool is_gone(pid_t kid)
{
	siginfo_t si = { 0 };

	put(mouth, OTHER, UINT64_MAX);
	WL_SYS(waitid(P_PID, (id_t)kid, &si, WEXITED | WNOHANG | WNOWAIT));
	return si.si_pid == kid;
}

int main(void)
{
	uint64_t told = 0, v, last = 0;
	pid_t kid;

	wl_init();
	wire = if_nametoindex("eth0") ? "eth0" : "lo";
	ear = packet(SOCK_DGRAM, "lo", PROTO);
	kid_ear = packet(SOCK_DGRAM, "lo", OTHER);
	mouth = (int)WL_SYS(socket(AF_PACKET, SOCK_DGRAM, 0));
	kid = wl_spawn(listen_child, &kid_ear);
	WL_SYS(close(kid_ear));
	setup_all();
	fresh = (int)WL_SYS(socket(AF_PACKET, SOCK_RAW | SOCK_NONBLOCK, 0));
	set(fresh, SOL_PACKET, PACKET_IGNORE_OUTGOING, 1);
	set(fresh, SOL_SOCKET, SO_PRIORITY, 5);
	full = (int)WL_SYS(socket(AF_PACKET, SOCK_DGRAM, htons(OTHER + 1)));
	wl_ready();
	while (!wl_stopping()) {
		talk();
		put(mouth, OTHER, ++told);
		check_all();
		check_name("ear", ear, "lo", PROTO);
		check_name("fresh", fresh, NULL, 0);
		check_name("of any link", full, NULL, OTHER + 1);
		WL_EQ("PACKET_IGNORE_OUTGOING", 1, get(fresh, SOL_PACKET, PACKET_IGNORE_OUTGOING));
		WL_EQ("SO_PRIORITY", 5, get(fresh, SOL_SOCKET, SO_PRIORITY));
		WL_EQ("O_NONBLOCK", O_NONBLOCK, WL_SYS(fcntl(fresh, F_GETFL)) & O_NONBLOCK);
		/* some wait, and are lost with a move; in order they are */
		put(mouth, OTHER + 1, told);
		for (; told % NFULL == 0 && (v = take(full, OTHER + 1, 0)); last = v)
			WL_CHECK(v > last, "frame that waited: expected one after %llu, got %llu", (unsigned long long)last, (unsigned long long)v);
		wl_pace();
	}
	talk();
	WL_AWAIT(is_gone(kid), "the child's end");
	wl_reap(kid, 55);
	finish_all();
	wl_ok();
}
