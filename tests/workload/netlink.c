/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Netlink sockets: one that asks the kernel without a pause, by short answers and by dumps that are read in pieces with
 * rests between; one with a port of its own and groups, below 32 and above, whose reader waits in poll(2) in a child; two
 * between programs, connected to one another, with a child that is blocked in recv(2); a group of such, if
 * this user may hear it; one for events of devices, with the options that udev's have; a fresh one and one of another name; dups.
 */
#include "wl.h"
#include "wl_sock.h"

#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <poll.h>
#include <sys/socket.h>

#ifndef SOL_NETLINK
#define SOL_NETLINK 270
#endif
#define OWN_PORT 0x00abc001u
#define ECHO_PORT 0x00abc002u
#define ASK_PORT 0x00abc003u

struct request {
	struct nlmsghdr h;
	struct ifinfomsg i;
};

static struct shared {
	_Atomic int stop;
	_Atomic uint64_t events;
} *sh;

static int asker, asker_dup, watcher, echo, ask, talker = -1, listener = -1, uevent, fresh, diag;
static uint32_t asker_port, seq = 1000;

static int nl(int type, int protocol)
{
	return (int)WL_SYS(socket(AF_NETLINK, type, protocol));
}

static int bind_to(int fd, uint32_t port, uint32_t groups)
{
	struct sockaddr_nl at = { .nl_family = AF_NETLINK, .nl_pid = port, .nl_groups = groups };

	return bind(fd, (struct sockaddr *)&at, sizeof(at));
}

static struct sockaddr_nl name_of(int fd)
{
	struct sockaddr_nl at = { 0 };
	socklen_t len = sizeof(at);

	WL_SYS(getsockname(fd, (struct sockaddr *)&at, &len));
	return at;
}

static void send_request(int fd, unsigned type, unsigned flags)
{
	struct request q = { .h = { .nlmsg_len = sizeof(q), .nlmsg_type = (uint16_t)type, .nlmsg_flags = (uint16_t)(NLM_F_REQUEST | flags),
				    .nlmsg_seq = ++seq },
			     .i = { .ifi_family = AF_UNSPEC, .ifi_index = flags & NLM_F_DUMP ? 0 : 1 } };
	struct sockaddr_nl kernel = { .nl_family = AF_NETLINK };

	WL_EQ("request", sizeof(q), WL_SYS(sendto(fd, &q, sizeof(q), 0, (struct sockaddr *)&kernel, sizeof(kernel))));
}

/* The answers to a request: how many, until the last one is there. @slow: with rests, the queue has something in them. */
static unsigned answers(int fd, bool dump, bool slow)
{
	static char buf[16384] __attribute__((aligned(8)));
	struct sockaddr_nl from = { 0 };
	struct iovec v = { buf, sizeof(buf) };
	unsigned n = 0;

	for (;;) {
		struct msghdr mh = { .msg_name = &from, .msg_namelen = sizeof(from), .msg_iov = &v, .msg_iovlen = 1 };
		struct nlmsghdr *h = (void *)buf;
		ssize_t len;

		if (slow)
			wl_pace();
		len = WL_SYS(recvmsg(fd, &mh, 0));
		WL_EQ("from the kernel", 0, from.nl_pid);
		for (; NLMSG_OK(h, len); h = NLMSG_NEXT(h, len)) {
			WL_EQ("number of an answer", seq, h->nlmsg_seq);
			WL_EQ("port of an answer", asker_port, h->nlmsg_pid);
			if (h->nlmsg_type == NLMSG_DONE)
				return n;
			WL_EQ("type of an answer", RTM_NEWLINK, h->nlmsg_type);
			n++;
			if (!dump)
				return n;
		}
	}
}

static void ask_kernel(uint64_t round)
{
	int fd = round % 2 ? asker : asker_dup;

	send_request(fd, RTM_GETLINK, 0);
	if (round % 3 == 1)
		wl_pace();
	WL_EQ("answers", 1, answers(fd, false, false));
	send_request(fd, RTM_GETLINK, NLM_F_DUMP);
	WL_CHECK(answers(fd, true, round % 4 == 3) > 0, "links: expected some, got none");
	WL_EQ("port of the asking socket", asker_port, name_of(fd).nl_pid);
}

/* ---- groups of the kernel's */

static bool is_member(int fd, unsigned group)
{
	uint32_t bits[32] = { 0 };
	socklen_t len = sizeof(bits);

	WL_SYS(getsockopt(fd, SOL_NETLINK, NETLINK_LIST_MEMBERSHIPS, bits, &len));
	return group <= len * 8 && group <= 1024 && (bits[(group - 1) / 32] & 1u << (group - 1) % 32);
}

static unsigned memberships(int fd)
{
	unsigned g, n = 0;

	for (g = 1; g <= 1024; g++)
		n += is_member(fd, g);
	return n;
}

/* Takes what the kernel says of links and addresses, which a move may cause. */
static int watch(void *arg)
{
	char buf[16384];

	(void)arg;
	while (!sh->stop) {
		struct pollfd p[2] = { { .fd = watcher, .events = POLLIN }, { .fd = uevent, .events = POLLIN } };
		int i;

		if (!WL_SYS(poll(p, 2, 20)))
			continue;
		for (i = 0; i < 2; i++)
			while (recv(p[i].fd, buf, sizeof(buf), MSG_DONTWAIT) > 0)
				sh->events++;
	}
	return 17;
}

static void setup_watcher(void)
{
	struct timeval tv = { 21, 0 };

	watcher = nl(SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);
	WL_SYS(bind_to(watcher, OWN_PORT, RTMGRP_LINK | RTMGRP_IPV4_IFADDR));
	set(watcher, SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, RTNLGRP_BRVLAN);
	set(watcher, SOL_NETLINK, NETLINK_PKTINFO, 1);
	set(watcher, SOL_NETLINK, NETLINK_EXT_ACK, 1);
	set(watcher, SOL_NETLINK, NETLINK_CAP_ACK, 1);
	set(watcher, SOL_NETLINK, NETLINK_GET_STRICT_CHK, 1);
	set(watcher, SOL_SOCKET, SO_RCVBUF, 131072);
	WL_SYS(setsockopt(watcher, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof(tv)));
	uevent = nl(SOCK_RAW | SOCK_NONBLOCK | SOCK_CLOEXEC, NETLINK_KOBJECT_UEVENT);
	WL_SYS(bind_to(uevent, 0, 2)); /* udev's own: nobody speaks there */
	set(uevent, SOL_SOCKET, SO_PASSCRED, 1);
	set(uevent, SOL_NETLINK, NETLINK_NO_ENOBUFS, 1);
	set(uevent, SOL_NETLINK, NETLINK_BROADCAST_ERROR, 1);
}

static void check_watcher(uint32_t uevent_port)
{
	struct timeval tv = { 0 };
	socklen_t len = sizeof(tv);

	WL_EQ("port", OWN_PORT, name_of(watcher).nl_pid);
	WL_EQ("groups", RTMGRP_LINK | RTMGRP_IPV4_IFADDR, name_of(watcher).nl_groups);
	WL_EQ("a group above 32", 1, is_member(watcher, RTNLGRP_BRVLAN));
	WL_EQ("groups in all", 3, memberships(watcher));
	WL_EQ("NETLINK_PKTINFO", 1, get(watcher, SOL_NETLINK, NETLINK_PKTINFO));
	WL_EQ("NETLINK_EXT_ACK", 1, get(watcher, SOL_NETLINK, NETLINK_EXT_ACK));
	WL_EQ("NETLINK_CAP_ACK", 1, get(watcher, SOL_NETLINK, NETLINK_CAP_ACK));
	WL_EQ("NETLINK_GET_STRICT_CHK", 1, get(watcher, SOL_NETLINK, NETLINK_GET_STRICT_CHK));
	WL_EQ("NETLINK_NO_ENOBUFS", 0, get(watcher, SOL_NETLINK, NETLINK_NO_ENOBUFS));
	WL_EQ("SO_RCVBUF", 262144, get(watcher, SOL_SOCKET, SO_RCVBUF));
	WL_SYS(getsockopt(watcher, SOL_SOCKET, SO_RCVTIMEO, &tv, &len));
	WL_EQ("SO_RCVTIMEO", 21, tv.tv_sec);
	WL_EQ("type", SOCK_RAW, get(watcher, SOL_SOCKET, SO_TYPE));
	WL_EQ("flags", O_RDWR, WL_SYS(fcntl(watcher, F_GETFL)));
	WL_EQ("close-on-exec", FD_CLOEXEC, WL_SYS(fcntl(watcher, F_GETFD)));

	WL_EQ("port for devices", uevent_port, name_of(uevent).nl_pid);
	WL_EQ("groups for devices", 2, name_of(uevent).nl_groups);
	WL_EQ("protocol", NETLINK_KOBJECT_UEVENT, get(uevent, SOL_SOCKET, SO_PROTOCOL));
	WL_EQ("SO_PASSCRED", 1, get(uevent, SOL_SOCKET, SO_PASSCRED));
	WL_EQ("NETLINK_NO_ENOBUFS", 1, get(uevent, SOL_NETLINK, NETLINK_NO_ENOBUFS));
	WL_EQ("NETLINK_BROADCAST_ERROR", 1, get(uevent, SOL_NETLINK, NETLINK_BROADCAST_ERROR));
	WL_EQ("NETLINK_PKTINFO", 0, get(uevent, SOL_NETLINK, NETLINK_PKTINFO));
	WL_EQ("flags", O_RDWR | O_NONBLOCK, WL_SYS(fcntl(uevent, F_GETFL)));

	WL_EQ("port of a fresh socket", 0, name_of(fresh).nl_pid);
	WL_EQ("groups of a fresh socket", 0, memberships(fresh));
	WL_EQ("type", SOCK_DGRAM, get(fresh, SOL_SOCKET, SO_TYPE));
	WL_EQ("protocol", NETLINK_SOCK_DIAG, get(diag, SOL_SOCKET, SO_PROTOCOL));
}

/* ---- between programs */

/* Says back what it hears; blocked in recv(2) between. */
static int answer(void *arg)
{
	uint64_t v;

	(void)arg;
	for (;;) {
		WL_EQ("recv", sizeof(v), WL_SYS(recv(echo, &v, sizeof(v), 0)));
		if (!v)
			return 18;
		v = wl_mix(v);
		WL_EQ("send", sizeof(v), WL_SYS(send(echo, &v, sizeof(v), 0)));
	}
}

static void connect_to(int fd, uint32_t port)
{
	struct sockaddr_nl at = { .nl_family = AF_NETLINK, .nl_pid = port };

	WL_SYS(connect(fd, (struct sockaddr *)&at, sizeof(at)));
}

static void setup_echo(void)
{
	echo = nl(SOCK_DGRAM, NETLINK_USERSOCK);
	ask = nl(SOCK_DGRAM, NETLINK_USERSOCK);
	WL_SYS(bind_to(echo, ECHO_PORT, 0));
	WL_SYS(bind_to(ask, ASK_PORT, 0));
	connect_to(echo, ASK_PORT);
	connect_to(ask, ECHO_PORT);
	/* who may hear a group of these */
	listener = nl(SOCK_RAW, NETLINK_USERSOCK);
	talker = nl(SOCK_RAW, NETLINK_USERSOCK);
	if (bind_to(listener, 0, 1u << 4) < 0) {
		close(listener);
		listener = -1;
	}
}

static void say_to_peer(uint64_t round)
{
	struct sockaddr_nl peer = { 0 };
	socklen_t len = sizeof(peer);
	uint64_t v = round + 1, back = 0;

	WL_EQ("send", sizeof(v), WL_SYS(send(ask, &v, sizeof(v), 0)));
	WL_EQ("recv", sizeof(v), WL_SYS(recv(ask, &back, sizeof(back), 0)));
	WL_EQ("echo", wl_mix(v), back);
	WL_SYS(getpeername(ask, (struct sockaddr *)&peer, &len));
	WL_EQ("peer", ECHO_PORT, peer.nl_pid);
}

static void say_to_group(uint64_t round)
{
	struct sockaddr_nl all = { .nl_family = AF_NETLINK, .nl_groups = 1u << 4 };
	uint64_t back = 0;

	if (listener < 0)
		return;
	WL_EQ("groups of the listener", 1u << 4, name_of(listener).nl_groups);
	/* the kernel itself, which is port 0, does not listen to these */
	WL_EQ("sendto", -1, sendto(talker, &round, sizeof(round), 0, (struct sockaddr *)&all, sizeof(all)));
	WL_EQ("errno", ECONNREFUSED, errno);
	if (round % 5 == 0)
		wl_pace();
	WL_EQ("recv", sizeof(back), WL_SYS(recv(listener, &back, sizeof(back), 0)));
	WL_EQ("said to the group", round, back);
}

/* A socket for one question, as getaddrinfo(3) makes it. */
static void ask_once(void)
{
	int fd = nl(SOCK_RAW, NETLINK_ROUTE);
	uint32_t was = asker_port;

	WL_SYS(bind_to(fd, 0, 0));
	asker_port = name_of(fd).nl_pid;
	send_request(fd, RTM_GETLINK, NLM_F_DUMP);
	WL_CHECK(answers(fd, true, false) > 0, "links: expected some, got none");
	WL_SYS(close(fd));
	asker_port = was;
}

int main(void)
{
	uint32_t uevent_port;
	uint64_t round = 0;
	pid_t kid[2];

	wl_init();
	sh = wl_shared(sizeof(*sh));
	asker = nl(SOCK_RAW, NETLINK_ROUTE);
	WL_SYS(bind_to(asker, 0, 0));
	asker_port = name_of(asker).nl_pid;
	asker_dup = (int)WL_SYS(dup(asker));
	fresh = nl(SOCK_DGRAM, NETLINK_ROUTE);
	diag = nl(SOCK_RAW, NETLINK_SOCK_DIAG);
	setup_watcher();
	setup_echo();
	uevent_port = name_of(uevent).nl_pid;
	kid[0] = wl_spawn(watch, NULL);
	kid[1] = wl_spawn(answer, NULL);
	wl_ready();
	while (!wl_stopping()) {
		ask_kernel(round);
		wl_pace();
		check_watcher(uevent_port);
		say_to_peer(round);
		wl_pace();
		say_to_group(round);
		wl_pace();
		ask_once();
		wl_pace();
		round++;
	}
	round = 0;
	WL_EQ("send", sizeof(round), WL_SYS(send(ask, &round, sizeof(round), 0)));
	wl_reap(kid[1], 18);
	sh->stop = 1;
	wl_reap(kid[0], 17);
	WL_EQ("a port that is taken", -1, bind_to(fresh, OWN_PORT, 0));
	WL_EQ("errno", EADDRINUSE, errno);
	WL_SYS(bind_to(fresh, 0, 0));
	WL_CHECK(name_of(fresh).nl_pid != 0, "port of a socket that is bound at last: expected one, got 0");
	wl_ok();
}
