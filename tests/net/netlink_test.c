/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Links, filter, capture: what pods' networks are made of. */
#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/if_packet.h>
#include <net/ethernet.h>
#include <net/if.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "pod/base/io.h"
#include "tests/harness.h"
#include "tests/net/world.h"

#define GROUP "239.77.9.9"

/* ---- calls made inside a namespace */

struct call {
	int (*fn)(struct call *, struct err *e);
	const char *a, *b;
	uint32_t ip;
	int ms, ns;
};

static int run(void *arg, struct err *e)
{
	struct call *c = arg;

	return c->fn(c, e);
}

static int in_ns(int ns, struct call c, struct err *e)
{
	return netns_run(ns, run, &c, e);
}

static int do_busy(struct call *c, struct err *e)
{
	return link_address_busy(c->a, c->ip, c->ms, e);
}

static int do_exists(struct call *c, struct err *e)
{
	return link_exists(c->a, e);
}

static int do_delete(struct call *c, struct err *e)
{
	return link_delete(c->a, e);
}

static int do_attach(struct call *c, struct err *e)
{
	return link_attach(c->a, c->b, e);
}

static int do_inet6_lines(struct call *c, struct err *e)
{
	char *text;
	size_t i, len;
	int n = 0;

	(void)c;
	if (access("/proc/thread-self/net/if_inet6", R_OK) < 0)
		return 0;
	if (io_read_file("/proc/thread-self/net/if_inet6", 65536, &text, &len, e) < 0)
		return e->code;
	for (i = 0; i + 4 < len; i++)
		n += !strncmp(text + i, "eth0", 4);
	free(text);
	return n;
}

static int do_eth0(struct call *c, struct err *e)
{
	struct ifreq ifr = {.ifr_name = "eth0"};
	autoclose int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);

	(void)c;
	if (fd < 0 || ioctl(fd, SIOCGIFHWADDR, &ifr) < 0)
		return err_sys(e, "eth0");
	T_CHECK(!memcmp(ifr.ifr_hwaddr.sa_data, pod_mac, 6));
	if (ioctl(fd, SIOCGIFADDR, &ifr) < 0)
		return err_sys(e, "address of eth0");
	T_CHECK_EQ(((struct sockaddr_in *)(void *)&ifr.ifr_addr)->sin_addr.s_addr,
		   inet_addr(POD_IP));
	if (ioctl(fd, SIOCGIFFLAGS, &ifr) < 0)
		return err_sys(e, "flags of eth0");
	T_CHECK(ifr.ifr_flags & IFF_UP);
	return 0;
}

static int do_replay_open(struct call *c, struct err *e)
{
	int fd, r = replay_open(c->a, &fd, e);

	return r < 0 ? r : fd;
}

static void test_veth(void)
{
	struct err e = {0};
	struct world w;

	world_init(&w);
	T_OK(in_ns(w.a.ns, (struct call){.fn = do_eth0}, &e), &e);
	T_CHECK_EQ(in_ns(w.a.ns, (struct call){.fn = do_inet6_lines}, &e), 0);
	T_CHECK_EQ(in_ns(w.node, (struct call){.fn = do_exists, .a = "pma"}, &e), 1);
	/* a second one of that name: refused, and nothing changed in the namespace it was for */
	T_CHECK_EQ(link_make_veth(-1, "pma", pod_mac, 1, 16, 0, &e), -EINVAL);
	T_CHECK_EQ(in_ns(w.node, (struct call){.fn = do_attach, .a = "nosuch", .b = BRIDGE}, &e),
		   -ENODEV);
	T_CHECK_EQ(in_ns(w.node, (struct call){.fn = do_attach, .a = "pma", .b = "nosuch"}, &e),
		   -ENODEV);
	T_OK(in_ns(w.node, (struct call){.fn = do_delete, .a = "pma"}, &e), &e);
	T_CHECK_EQ(in_ns(w.node, (struct call){.fn = do_exists, .a = "pma"}, &e), 0);
	T_OK(in_ns(w.node, (struct call){.fn = do_delete, .a = "pma"}, &e), &e);
	T_CHECK(in_ns(w.a.ns, (struct call){.fn = do_eth0}, &e) < 0);
	world_done(&w);
}

static void test_address_busy(void)
{
	struct call busy = {.fn = do_busy, .a = BRIDGE, .ip = inet_addr(POD_IP), .ms = 1000};
	struct err e = {0};
	struct world w;

	world_init(&w);
	T_CHECK_EQ(in_ns(w.node, busy, &e), 1); /* the pod at a answers; b is not on the bridge */
	busy.ip = inet_addr("10.77.128.77");
	busy.ms = 60;
	T_CHECK_EQ(in_ns(w.node, busy, &e), 0);
	busy.ip = inet_addr(POD_IP);
	/* the filter stops IP, not ARP: a blocked pod still holds its address */
	T_OK(filter_set(w.a.filter, FILTER_BLOCK, &e), &e);
	busy.ms = 1000;
	T_CHECK_EQ(in_ns(w.node, busy, &e), 1);
	T_OK(in_ns(w.node, (struct call){.fn = do_delete, .a = "pma"}, &e), &e);
	busy.ms = 60;
	T_CHECK_EQ(in_ns(w.node, busy, &e), 0);
	busy.a = "nosuch";
	T_CHECK_EQ(in_ns(w.node, busy, &e), -ENODEV);
	world_done(&w);
}

static int do_remake(struct call *c, struct err *e)
{
	int r = link_delete(c->a, e);

	if (r == 0)
		r = link_make_veth(c->ns, c->a, pod_mac, c->ip, 16, inet_addr("10.77.0.1"), e);
	return r < 0 ? r : link_attach(c->a, BRIDGE, e);
}

static int do_listen_arp(struct call *c, struct err *e)
{
	struct sockaddr_ll a = {.sll_family = AF_PACKET, .sll_protocol = htons(ETH_P_ARP)};
	autoclose int fd = socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	a.sll_ifindex = (int)if_nametoindex(c->a);
	if (fd < 0 || bind(fd, (struct sockaddr *)&a, sizeof(a)) < 0)
		return err_sys(e, "packet socket");
	return take_fd(&fd);
}

/* A link that came up this instant must not lose the announcement: neighbours and bridges would go on
 * sending to where the address was before. */
static void test_announce_at_once(void)
{
	struct call remake = {.fn = do_remake, .a = "pma", .ip = inet_addr(POD_IP)};
	struct call listen = {.fn = do_listen_arp, .a = "eth0"};
	struct err e = {0};
	struct world w;
	int fd, i;

	world_init(&w);
	remake.ns = w.a.ns;
	T_OK(fd = in_ns(w.peer, listen, &e), &e);
	for (i = 0; i < 20; i++) {
		struct pollfd p = {.fd = fd, .events = POLLIN};
		uint8_t frame[128];

		T_OK(in_ns(w.node, remake, &e), &e);
		T_OK(link_announce(w.a.ns, pod_mac, inet_addr(POD_IP), 1, &e), &e);
		T_CHECK_EQ(poll(&p, 1, 60000), 1);
		while (recv(fd, frame, sizeof(frame), 0) >= 12)
			T_CHECK(!memcmp(frame + 6, pod_mac, 6));
	}
	close(fd);
	world_done(&w);
}

/* ---- filter */

/* Does a datagram from the peer arrive at the pod within @ms? */
static int udp_passes(int rx, int tx, int ms)
{
	struct pollfd p = {.fd = rx, .events = POLLIN};
	char c;

	while (recv(rx, &c, 1, MSG_DONTWAIT) >= 0)
		;
	if (send(tx, "x", 1, MSG_DONTWAIT) < 0)
		return 0;
	return poll(&p, 1, ms);
}

static int make(int ns, int type, int proto, const char *ip, const char *to)
{
	struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(5000)};
	struct err e = {0};
	int fd;

	T_OK(fd = netns_socket(ns, AF_INET, type, proto, &e), &e);
	a.sin_addr.s_addr = inet_addr(ip);
	T_REQUIRE(bind(fd, (struct sockaddr *)&a, sizeof(a)) == 0);
	a.sin_addr.s_addr = inet_addr(to);
	T_REQUIRE(connect(fd, (struct sockaddr *)&a, sizeof(a)) == 0);
	return fd;
}

static int udp(int ns, const char *ip, const char *to)
{
	return make(ns, SOCK_DGRAM, 0, ip, to);
}

static int raw(int ns, int proto, const char *ip, const char *to)
{
	return make(ns, SOCK_RAW, proto, ip, to);
}

static void test_filter_states(void)
{
	static const struct {
		enum filter_state state;
		int in, out;
	} want[] = {
		{FILTER_OPEN, 1, 1},  {FILTER_BLOCK, 0, 0}, {FILTER_MUTE, 1, 0}, {FILTER_SYN, 1, 1},
		{FILTER_BLOCK, 0, 0}, {FILTER_BLOCK, 0, 0}, {FILTER_OPEN, 1, 1},
	};
	struct err e = {0};
	struct world w;
	int pod, peer, lo1, lo2, udp1, udp2, raw1, raw2;
	size_t i;

	world_init(&w);
	/* no segment that TCP would know, but of its protocol */
	pod = raw(w.a.ns, IPPROTO_TCP, POD_IP, PEER_IP);
	peer = raw(w.peer, IPPROTO_TCP, PEER_IP, POD_IP);
	lo1 = raw(w.a.ns, IPPROTO_TCP, "127.0.0.1", "127.0.0.2");
	lo2 = raw(w.a.ns, IPPROTO_TCP, "127.0.0.2", "127.0.0.1");
	udp1 = udp(w.a.ns, POD_IP, PEER_IP);
	udp2 = udp(w.peer, PEER_IP, POD_IP);
	raw1 = raw(w.a.ns, 253, POD_IP, PEER_IP);
	raw2 = raw(w.peer, 253, PEER_IP, POD_IP);
	T_CHECK_EQ(udp_passes(pod, peer, 60000), 1);
	T_CHECK_EQ(udp_passes(peer, pod, 60000), 1);
	for (i = 0; i < ARRAY_SIZE(want); i++) {
		T_OK(filter_set(w.a.filter, want[i].state, &e), &e);
		T_CHECK_EQ(udp_passes(pod, peer, want[i].in ? 60000 : 30), want[i].in);
		T_CHECK_EQ(udp_passes(peer, pod, want[i].out ? 60000 : 30), want[i].out);
		T_CHECK_EQ(udp_passes(lo1, lo2, 60000), 1);
		/* a program that sends UDP, or something of its own, sees no error, in whatever state it is woken */
		T_CHECK_EQ(udp_passes(udp1, udp2, want[i].in ? 60000 : 30), want[i].in);
		T_CHECK_EQ(udp_passes(udp2, udp1, 60000), 1);
		T_CHECK_EQ(udp_passes(raw1, raw2, want[i].in ? 60000 : 30), want[i].in);
		T_CHECK_EQ(udp_passes(raw2, raw1, 60000), 1);
	}
	/* another handle, as an agent without the engine has it */
	T_OK(filter_block(w.a.ns, &e), &e);
	T_CHECK_EQ(udp_passes(pod, peer, 30), 0);
	T_OK(filter_clear(w.a.ns, &e), &e);
	T_OK(filter_clear(w.a.ns, &e), &e);
	T_CHECK_EQ(udp_passes(pod, peer, 60000), 1);
	/* and the old handle after the table is gone */
	T_OK(filter_set(w.a.filter, FILTER_BLOCK, &e), &e);
	T_CHECK_EQ(udp_passes(pod, peer, 30), 0);
	T_OK(filter_remove(w.a.filter, &e), &e);
	T_OK(filter_remove(w.a.filter, &e), &e);
	T_CHECK_EQ(udp_passes(pod, peer, 60000), 1);
	close(pod);
	close(peer);
	close(udp1);
	close(udp2);
	close(lo1);
	close(lo2);
	close(raw1);
	close(raw2);
	world_done(&w);
}

static int do_multicast(struct call *c, struct err *e)
{
	struct ip_mreqn m = {.imr_address.s_addr = inet_addr(c->a), .imr_multiaddr.s_addr = inet_addr(GROUP)};
	struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons(5000)};
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);

	at.sin_addr.s_addr = inet_addr(GROUP);
	if (fd < 0 || bind(fd, (struct sockaddr *)&at, sizeof(at)) < 0 ||
	    setsockopt(fd, IPPROTO_IP, IP_ADD_MEMBERSHIP, &m, sizeof(m)) < 0)
		return err_sys(e, "multicast at %s", c->a);
	return fd;
}

/* A program that is woken before the filter is open hears its own multicast; nobody else's yet. */
static void test_filter_own_multicast(void)
{
	struct err e = {0};
	struct world w;
	int group, own, other;

	world_init(&w);
	T_OK(group = in_ns(w.a.ns, (struct call){.fn = do_multicast, .a = POD_IP}, &e), &e);
	own = udp(w.a.ns, POD_IP, GROUP);
	other = udp(w.peer, PEER_IP, GROUP);
	T_CHECK_EQ(udp_passes(group, own, 10000), 1);
	T_CHECK_EQ(udp_passes(group, other, 10000), 1);
	T_OK(filter_set(w.a.filter, FILTER_BLOCK, &e), &e);
	T_CHECK_EQ(udp_passes(group, own, 10000), 1);
	T_CHECK_EQ(udp_passes(group, other, 30), 0);
	close(group);
	close(own);
	close(other);
	world_done(&w);
}

static void test_filter_is_quick(void)
{
	struct err e = {0};
	uint64_t best = UINT64_MAX, t;
	struct world w;
	int i;

	world_init(&w);
	for (i = 0; i < 50; i++) {
		T_OK(filter_set(w.a.filter, FILTER_OPEN, &e), &e);
		t = now_ns();
		T_OK(filter_set(w.a.filter, FILTER_BLOCK, &e), &e);
		best = MIN(best, now_ns() - t);
	}
	printf("# filter_set(BLOCK): best of 50: %.0f us\n", (double)best / 1e3);
	T_CHECK(best < 1000000);
	world_done(&w);
}

/* ---- hold */

/* Takes all that is held; how much of it came from the pod itself. Others may say things unasked. */
static int held_from_pod(struct hold *h)
{
	static uint8_t frame[HOLD_FRAME_MAX];
	struct err e;
	int n, own = 0;

	while ((n = hold_take(h, frame, sizeof(frame), &e)) > 0)
		own += n >= 10 + 12 && !memcmp(frame + 10 + 6, pod_mac, 6);
	return n < 0 ? n : own;
}

static void test_hold_and_replay(void)
{
	static uint8_t frame[HOLD_FRAME_MAX];
	struct err e = {0};
	struct world w;
	int pod, peer, n, fd;
	char c;

	world_init(&w);
	pod = udp(w.a.ns, POD_IP, PEER_IP);
	peer = udp(w.peer, PEER_IP, POD_IP);
	T_CHECK_EQ(udp_passes(pod, peer, 60000), 1);
	T_CHECK_EQ(recv(pod, &c, 1, MSG_DONTWAIT), 1);
	T_OK(hold_only_syn(w.a.hold, false, &e), &e);
	T_OK(filter_set(w.a.filter, FILTER_BLOCK, &e), &e);
	hold_discard(w.a.hold);
	T_CHECK_EQ(held_from_pod(w.a.hold), 0);
	T_CHECK_EQ(send(peer, "y", 1, 0), 1);
	do {
		T_OK(io_wait_readable(hold_fd(w.a.hold), deadline_ms(60000), &e), &e);
		T_OK(n = hold_take(w.a.hold, frame, sizeof(frame), &e), &e);
	} while (!frame_is_for_pod(frame, (size_t)n, pod_mac));
	T_CHECK(n > 42 && !frame_is_syn(frame, (size_t)n));
	T_CHECK(recv(pod, &c, 1, MSG_DONTWAIT) < 0);
	/* what the pod itself sends is not held */
	T_OK(filter_set(w.a.filter, FILTER_OPEN, &e), &e);
	T_CHECK_EQ(udp_passes(peer, pod, 60000), 1);
	T_CHECK_EQ(held_from_pod(w.a.hold), 0);
	/* replayed to the same place: not held again */
	T_OK(hold_stop(w.a.hold, &e), &e);
	hold_discard(w.a.hold);
	T_OK(fd = in_ns(w.node, (struct call){.fn = do_replay_open, .a = "pma"}, &e), &e);
	T_OK(replay_send(fd, frame, (size_t)n, &e), &e);
	close(fd);
	T_OK(io_wait_readable(pod, deadline_ms(60000), &e), &e);
	T_CHECK_EQ(recv(pod, &c, 1, MSG_DONTWAIT), 1);
	T_CHECK_EQ(c, 'y');
	T_CHECK_EQ(hold_take(w.a.hold, frame, sizeof(frame), &e), 0);
	T_CHECK_EQ(hold_lost(w.a.hold), 0);
	close(pod);
	close(peer);
	world_done(&w);
}

/* A ring that is too small says how much it has lost. */
static void test_hold_overflow(void)
{
	struct hold *h;
	struct err e = {0};
	char buf[1400] = {0};
	struct world w;
	int pod, peer, i;

	world_init(&w);
	pod = udp(w.a.ns, POD_IP, PEER_IP);
	peer = udp(w.peer, PEER_IP, POD_IP);
	T_CHECK_EQ(udp_passes(pod, peer, 60000), 1);
	T_OK(hold_open(w.a.ns, 16384, &h, &e), &e);
	for (i = 0; i < 200; i++)
		T_CHECK_EQ(send(peer, buf, sizeof(buf), 0), (int)sizeof(buf));
	T_CHECK_EQ(udp_passes(pod, peer, 60000), 1);
	T_CHECK(hold_lost(h) > 100);
	T_CHECK(hold_discard(h) > 0);
	hold_free(h);
	close(pod);
	close(peer);
	world_done(&w);
}

/* Whatever bytes a frame has, looking at it stays inside them (run with ASan). */
static void test_frame_lengths(void)
{
	static const uint8_t syn[] = {
		[10] = 2,
		0x50,
		0x4d,
		0,
		0,
		5,
		2,
		0,
		0,
		0,
		0,
		9,
		8,
		0,
		0x45,
		0,
		0,
		40,
		0,
		0,
		0,
		0,
		64,
		6,
		[10 + 14 + 20 + 13] = 2,
		[10 + 14 + 39] = 0,
	};
	uint8_t *copy;
	size_t len;

	T_CHECK(frame_is_syn(syn, sizeof(syn)));
	T_CHECK(frame_is_for_pod(syn, sizeof(syn), pod_mac));
	for (len = 0; len < sizeof(syn); len++) {
		copy = malloc(len + 1);
		T_REQUIRE(copy);
		memcpy(copy, syn, len);
		copy = realloc(copy, len ? len : 1);
		frame_is_for_pod(copy, len, pod_mac);
		T_CHECK_EQ(frame_is_syn(copy, len), len >= 10 + 14 + 20 + 14);
		free(copy);
	}
	copy = malloc(sizeof(syn));
	T_REQUIRE(copy);
	memcpy(copy, syn, sizeof(syn));
	copy[10 + 14 + 20 + 13] = 0x12; /* SYN-ACK */
	T_CHECK(!frame_is_syn(copy, sizeof(syn)) && !frame_is_for_pod(copy, sizeof(syn), pod_mac));
	copy[10 + 14 + 20 + 13] = 2;
	copy[10 + 14] = 0x4f; /* a header longer than the frame */
	T_CHECK(!frame_is_syn(copy, sizeof(syn)));
	copy[10 + 14] = 0x45;
	copy[10 + 14 + 7] = 1; /* a later fragment */
	T_CHECK(!frame_is_syn(copy, sizeof(syn)));
	copy[10] ^= 1;
	T_CHECK(!frame_is_for_pod(copy, sizeof(syn), pod_mac));
	free(copy);
}

static int count_fds(void)
{
	DIR *d = opendir("/proc/self/fd");
	int n = 0;

	T_REQUIRE(d);
	while (readdir(d))
		n++;
	closedir(d);
	return n;
}

static void test_nothing_left(void)
{
	int before = count_fds(), threads = 0;
	struct dirent *de;
	struct world w;
	DIR *d;

	world_init(&w);
	world_done(&w);
	T_CHECK_EQ(count_fds(), before);
	d = opendir("/proc/self/task");
	T_REQUIRE(d);
	while ((de = readdir(d)))
		threads += de->d_name[0] != '.';
	closedir(d);
	T_CHECK_EQ(threads, 1);
}

static const struct test_case cases[] = {
	{"veth", test_veth},
	{"address_busy", test_address_busy},
	{"announce_at_once", test_announce_at_once},
	{"filter_states", test_filter_states},
	{"filter_own_multicast", test_filter_own_multicast},
	{"filter_is_quick", test_filter_is_quick},
	{"hold_and_replay", test_hold_and_replay},
	{"hold_overflow", test_hold_overflow},
	{"frame_lengths", test_frame_lengths},
	{"nothing_left", test_nothing_left},
};

const struct test_suite net_link_suite = {"net_link", cases, ARRAY_SIZE(cases)};
