/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Raw and ICMP sockets are moved between two namespaces: who hears what is put into whose queue. */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <net/if.h>
#include <linux/icmp.h> /* after net/if.h, or they clash */
#include <netinet/ip.h>
#include <poll.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "netfreeze/raw_int.h"
#include "pod/base/io.h"
#include "tests/harness.h"
#include "tests/net/world.h"

#define PROTO 253
#define MANY  8
#define ECHO_TO_ALL "/proc/sys/net/ipv4/icmp_echo_ignore_broadcasts"

static struct sockaddr_in at(const char *ip, uint16_t port)
{
	struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(port)};

	a.sin_addr.s_addr = inet_addr(ip);
	return a;
}

static int let_ping(void *arg, struct err *e)
{
	(void)arg;
	return io_write_file("/proc/sys/net/ipv4/ping_group_range", "0 2147483647", e);
}

static void init(struct world *w)
{
	struct err e = {0};

	world_init(w);
	T_OK(netns_run(w->a.ns, let_ping, NULL, &e), &e);
	T_OK(netns_run(w->b.ns, let_ping, NULL, &e), &e);
}

static int make(int ns, int type, int proto)
{
	struct err e = {0};
	int fd;

	T_OK(fd = netns_socket(ns, AF_INET, type, proto, &e), &e);
	return fd;
}

static void send_to(int fd, const void *p, size_t len, const char *ip)
{
	struct sockaddr_in a = at(ip, 0);

	T_REQUIRE(sendto(fd, p, len, 0, (struct sockaddr *)&a, sizeof(a)) == (ssize_t)len);
}

static void expect(int fd, const char *text)
{
	char buf[200] = "";
	ssize_t n = recv(fd, buf, sizeof(buf) - 1, MSG_DONTWAIT);

	T_REQUIRE(n >= 20);
	T_CHECK_STR(buf + 20, text);
}

static void expect_none(int fd)
{
	char buf[200];

	T_CHECK(recv(fd, buf, sizeof(buf), MSG_DONTWAIT) < 0 && errno == EAGAIN);
}

/* All of @fd[@n] to the other place, or only read; the same fds afterwards. */
static void move(struct world *w, const int *fd, size_t n, bool stay)
{
	struct place *to = w->at == &w->a ? &w->b : &w->a;
	struct raw_state s[MANY];
	struct raw_queues *q = NULL;
	struct err e = {0};
	int fresh[MANY];
	size_t i;

	T_OK(filter_set(w->at->filter, FILTER_BLOCK, &e), &e);
	T_OK(raw_queues_open(fd, n, w->at->ns, &q, &e), &e);
	if (q)
		T_REQUIRE(raw_queues_exchange(q) == 0);
	for (i = 0; i < n; i++) {
		T_OK(raw_save(fd[i], w->at->ns, &s[i], &e), &e);
		if (q)
			T_OK(raw_queues_read(q, i, &s[i], &e), &e);
	}
	raw_queues_free(q);
	for (i = 0; i < n && !stay; i++) {
		fresh[i] = make(to->ns, s[i].type, s[i].protocol);
		T_OK(raw_restore_on(fresh[i], to->ns, &s[i], &e), &e);
	}
	for (i = 0; i < n && !stay; i++) {
		T_OK(raw_release(fresh[i], &s[i], false, &e), &e);
		T_REQUIRE(dup3(fresh[i], fd[i], O_CLOEXEC) == fd[i]);
		close(fresh[i]);
	}
	for (i = 0; i < n; i++)
		udp_state_done(&s[i].u);
	if (!stay)
		w->at = to;
}

static void await_data(int fd)
{
	struct pollfd p = {.fd = fd, .events = POLLIN};

	T_REQUIRE(poll(&p, 1, 60000) == 1);
}

static void close_all(const int *fd, size_t n)
{
	size_t i;

	for (i = 0; i < n; i++)
		close(fd[i]);
}

/* Five sockets of one protocol, of which each has heard something else. */
static void test_queues_apart(void)
{
	struct sock_filter keep[] = {BPF_STMT(BPF_RET | BPF_K, 23)};
	struct sock_fprog prog = {1, keep};
	struct sockaddr_in bound = at("127.0.0.2", 0), peer = at("127.0.0.1", 0);
	struct world w;
	int fd[5], out, i, round;

	init(&w);
	out = make(w.a.ns, SOCK_RAW, PROTO);
	T_REQUIRE(bind(out, (struct sockaddr *)&peer, sizeof(peer)) == 0);
	fd[0] = make(w.a.ns, SOCK_RAW, PROTO);
	send_to(out, "one", 3, "127.0.0.1");
	fd[1] = make(w.a.ns, SOCK_RAW, PROTO);
	T_REQUIRE(bind(fd[1], (struct sockaddr *)&bound, sizeof(bound)) == 0);
	send_to(out, "two", 3, "127.0.0.2");
	fd[2] = make(w.a.ns, SOCK_RAW, PROTO);
	send_to(out, "three", 5, "127.0.0.1"); /* before it has a name by which it would not hear this */
	T_REQUIRE(bind(fd[2], (struct sockaddr *)&bound, sizeof(bound)) == 0);
	fd[3] = make(w.a.ns, SOCK_RAW, PROTO);
	T_REQUIRE(setsockopt(fd[3], SOL_SOCKET, SO_ATTACH_FILTER, &prog, sizeof(prog)) == 0);
	send_to(out, "four", 4, "127.0.0.3");
	fd[4] = make(w.a.ns, SOCK_RAW, PROTO);
	close(out);
	for (round = 0; round < 3; round++) {
		move(&w, fd, 5, false);
		move(&w, fd, 5, true); /* a checkpoint: once more in the same place */
	}
	expect(fd[0], "one");
	expect(fd[0], "two");
	expect(fd[0], "three");
	expect(fd[0], "four");
	expect(fd[1], "two");
	expect(fd[2], "three");
	expect(fd[3], "fou"); /* cut by its filter */
	for (i = 0; i < 5; i++)
		expect_none(fd[i]);
	/* names and filters are as they were */
	out = make(w.at->ns, SOCK_RAW, PROTO);
	send_to(out, "five", 4, "127.0.0.1");
	send_to(out, "six", 3, "127.0.0.2");
	expect(fd[0], "five");
	expect(fd[0], "six");
	expect(fd[1], "six");
	expect_none(fd[1]);
	expect(fd[2], "six");
	expect(fd[4], "five");
	close(out);
	close_all(fd, 5);
	world_done(&w);
}

static size_t icmp(uint8_t *buf, uint8_t type, uint8_t code, const void *body, size_t len)
{
	struct icmphdr h = {.type = type, .code = code};

	memcpy(buf, &h, sizeof(h));
	memcpy(buf + sizeof(h), body, len);
	h.checksum = inet_fold(inet_sum(buf, sizeof(h) + len, 0));
	memcpy(buf, &h, sizeof(h));
	return sizeof(h) + len;
}

/* What waits is heard by the kernel once more: a request gets no second answer, an error reaches
 * nobody again. */
static void test_kernel_leaves_it(void)
{
	struct {
		struct iphdr ip;
		uint16_t port[4];
	} about = {.ip = {.version = 4, .ihl = 5, .protocol = IPPROTO_UDP, .ttl = 64}};
	struct sockaddr_in a = at("127.0.0.1", 7000), b = at("127.0.0.1", 9);
	uint8_t buf[200];
	struct world w;
	int fd[2], out, udp, v = 0, i;
	socklen_t len = sizeof(v);
	size_t n;

	init(&w);
	udp = make(w.a.ns, SOCK_DGRAM, IPPROTO_UDP);
	T_REQUIRE(bind(udp, (struct sockaddr *)&a, sizeof(a)) == 0);
	T_REQUIRE(connect(udp, (struct sockaddr *)&b, sizeof(b)) == 0);
	fd[0] = make(w.a.ns, SOCK_RAW, IPPROTO_ICMP);
	fd[1] = make(w.a.ns, SOCK_DGRAM, IPPROTO_ICMP);
	out = make(w.a.ns, SOCK_RAW, IPPROTO_ICMP);
	about.ip.saddr = about.ip.daddr = htonl(INADDR_LOOPBACK);
	about.port[0] = a.sin_port;
	about.port[1] = b.sin_port;
	n = icmp(buf, ICMP_DEST_UNREACH, ICMP_PORT_UNREACH, &about, sizeof(about));
	send_to(out, buf, n, "127.0.0.1");
	T_REQUIRE(getsockopt(udp, SOL_SOCKET, SO_ERROR, &v, &len) == 0);
	T_CHECK_EQ(v, ECONNREFUSED);
	n = icmp(buf, ICMP_ECHO, 0, "request", 8);
	send_to(fd[1], buf, n, "127.0.0.1"); /* what it hears are the request and the answer */
	close(out);
	for (i = 0; i < 3; i++)
		move(&w, fd, 2, true);
	T_REQUIRE(getsockopt(udp, SOL_SOCKET, SO_ERROR, &v, &len) == 0);
	T_CHECK_EQ(v, 0);
	move(&w, fd, 2, false);
	T_REQUIRE(recv(fd[0], buf, sizeof(buf), MSG_DONTWAIT) > 28);
	T_CHECK_EQ(buf[20], ICMP_DEST_UNREACH);
	T_REQUIRE(recv(fd[0], buf, sizeof(buf), MSG_DONTWAIT) > 28);
	T_CHECK_EQ(buf[20], ICMP_ECHO);
	T_REQUIRE(recv(fd[0], buf, sizeof(buf), MSG_DONTWAIT) > 28);
	T_CHECK_EQ(buf[20], ICMP_ECHOREPLY);
	expect_none(fd[0]);
	T_REQUIRE(recv(fd[1], buf, sizeof(buf), MSG_DONTWAIT) == 16);
	T_CHECK_EQ(buf[0], ICMP_ECHOREPLY);
	T_CHECK_STR((char *)buf + 8, "request");
	expect_none(fd[1]);
	close(udp);
	close_all(fd, 2);
	world_done(&w);
}

static int answer_all(void *arg, struct err *e)
{
	(void)arg;
	return io_write_file(ECHO_TO_ALL, "0", e);
}

struct counted {
	long replies;
	char to_all;
};

/* The echo replies that the kernel has sent: a column of the lines "Icmp:", whose first one has its names. */
static int count(void *arg, struct err *e)
{
	struct counted *c = arg;
	autofree char *text = NULL, *echo = NULL;
	char *name, *value, *n, *v;
	int r = io_read_file("/proc/thread-self/net/snmp", 1u << 20, &text, NULL, e);

	if (r == 0)
		r = io_read_file(ECHO_TO_ALL, 16, &echo, NULL, e);
	if (r < 0)
		return r;
	c->to_all = echo[0];
	c->replies = -1;
	name = strstr(text, "\nIcmp: ");
	value = name ? strstr(name + 1, "\nIcmp: ") : NULL;
	if (!value)
		return 0;
	for (name++, value++; (n = strsep(&name, " ")) && (v = strsep(&value, " "));)
		if (!strcmp(n, "OutEchoReps"))
			c->replies = strtol(v, NULL, 10);
	return 0;
}

/* Root in the pod lets the kernel answer what comes by broadcast, too. */
static void test_answers_to_all(void)
{
	uint32_t requests = ~(1u << ICMP_ECHO);
	struct counted before, after;
	struct err e = {0};
	uint8_t buf[200];
	struct world w;
	int fd, out;
	size_t n;

	init(&w);
	T_OK(netns_run(w.a.ns, answer_all, NULL, &e), &e);
	fd = make(w.a.ns, SOCK_RAW, IPPROTO_ICMP);
	/* a reply that is put back would be counted, too */
	T_REQUIRE(setsockopt(fd, SOL_RAW, ICMP_FILTER, &requests, sizeof(requests)) == 0);
	out = make(w.a.ns, SOCK_RAW, IPPROTO_ICMP);
	n = icmp(buf, ICMP_ECHO, 0, "request", 8);
	send_to(out, buf, n, "127.0.0.1");
	close(out);
	T_OK(netns_run(w.a.ns, count, &before, &e), &e);
	T_CHECK_EQ(before.replies, 1);
	move(&w, &fd, 1, true);
	T_OK(netns_run(w.a.ns, count, &after, &e), &e);
	T_CHECK_EQ(after.replies, 1);
	T_CHECK_EQ(after.to_all, '0');
	close(fd);
	world_done(&w);
}

/* What cannot be put back is said to be lost; the others are there. */
static void test_lost(void)
{
	struct sockaddr_in peer = at(POD_IP, 0);
	struct raw_queues *q = NULL;
	struct err e = {0};
	struct world w;
	int fd[2], out, i;

	init(&w);
	for (i = 0; i < 2; i++)
		fd[i] = make(w.a.ns, SOCK_RAW, PROTO);
	out = make(w.a.ns, SOCK_RAW, PROTO);
	send_to(out, "one", 3, "127.0.0.1");
	send_to(out, "two", 3, "127.0.0.1");
	close(out);
	T_REQUIRE(connect(fd[1], (struct sockaddr *)&peer, sizeof(peer)) == 0);
	T_OK(raw_queues_open(fd, 2, w.a.ns, &q, &e), &e);
	T_REQUIRE(q != NULL);
	T_REQUIRE(raw_queues_exchange(q) == 0);
	T_CHECK_EQ(raw_queues_lost(q, 0), 0);
	T_CHECK_EQ(raw_queues_lost(q, 1), 2);
	raw_queues_free(q);
	expect(fd[0], "one");
	expect(fd[0], "two");
	expect_none(fd[0]);
	expect_none(fd[1]);
	close_all(fd, 2);
	world_done(&w);
}

/* Nothing goes out: a packet is not in its queue, and is said to be lost. */
static int lo_down(void *arg, struct err *e)
{
	struct ifreq ifr = {.ifr_name = "lo"};
	autoclose int s = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);

	(void)arg;
	return s < 0 || ioctl(s, SIOCSIFFLAGS, &ifr) < 0 ? err_sys(e, "lo down") : 0;
}

static void test_no_way_back(void)
{
	struct raw_queues *q = NULL;
	struct err e = {0};
	struct world w;
	int fd, out;

	init(&w);
	fd = make(w.a.ns, SOCK_RAW, PROTO);
	out = make(w.a.ns, SOCK_RAW, PROTO);
	send_to(out, "one", 3, "127.0.0.1");
	close(out);
	T_OK(raw_queues_open(&fd, 1, w.a.ns, &q, &e), &e);
	T_REQUIRE(q != NULL);
	T_OK(netns_run(w.a.ns, lo_down, NULL, &e), &e);
	T_REQUIRE(raw_queues_exchange(q) == 0);
	T_CHECK_EQ(raw_queues_lost(q, 0), 1);
	raw_queues_free(q);
	close(fd);
	world_done(&w);
}

/* A datagram that comes a second late comes. */
static void test_late(void)
{
	struct sockaddr_in a = at("127.0.0.1", 0);
	socklen_t len = sizeof(a);
	struct err e = {0};
	struct world w;
	int fd, status;
	pid_t pid;

	init(&w);
	fd = make(w.a.ns, SOCK_DGRAM, IPPROTO_UDP);
	T_REQUIRE(bind(fd, (struct sockaddr *)&a, sizeof(a)) == 0);
	T_REQUIRE(getsockname(fd, (struct sockaddr *)&a, &len) == 0);
	pid = fork();
	T_REQUIRE(pid >= 0);
	if (!pid) {
		poll(NULL, 0, 1000);
		_exit(sendto(fd, "late", 4, 0, (struct sockaddr *)&a, sizeof(a)) != 4);
	}
	T_OK(udp_await_arrival(fd, 0, UDP_LOOKS, &e), &e);
	T_REQUIRE(waitpid(pid, &status, 0) == pid);
	T_CHECK_EQ(status, 0);
	T_CHECK_EQ(udp_await_arrival(fd, udp_queued_memory(fd), 1, &e), -ETIMEDOUT);
	close(fd);
	world_done(&w);
}

/* It is begun by one who dies, and ended by another. */
static void test_begun_by_another(void)
{
	struct sockaddr_in a = at("127.0.0.1", 0);
	struct raw_queues *q = NULL;
	struct raw_state s;
	struct err e = {0};
	struct world w;
	int fd, out, again;

	init(&w);
	fd = make(w.a.ns, SOCK_RAW, PROTO);
	out = make(w.a.ns, SOCK_RAW, PROTO + 1);
	T_REQUIRE(bind(fd, (struct sockaddr *)&a, sizeof(a)) == 0);
	close(out);
	out = make(w.a.ns, SOCK_RAW, PROTO);
	send_to(out, "first", 5, "127.0.0.1");
	send_to(out, "second", 6, "127.0.0.1");
	close(out);
	T_OK(raw_queues_open(&fd, 1, w.a.ns, &q, &e), &e);
	T_REQUIRE(q != NULL);
	for (again = 0; again < 3; again++) /* done is done */
		T_REQUIRE(raw_queues_exchange(q) == 0);
	T_OK(raw_save(fd, w.a.ns, &s, &e), &e);
	T_OK(raw_queues_read(q, 0, &s, &e), &e);
	T_CHECK_EQ(s.u.nqueue, 2);
	udp_state_done(&s.u);
	raw_queues_free(q);
	expect(fd, "first");
	expect(fd, "second");
	expect_none(fd);
	close(fd);
	world_done(&w);
}

/* What waits was let in by what is not so any more: IP_MULTICAST_ALL is off, an ICMP socket has got an address by connect(2). */
static void test_let_in_before(void)
{
	struct ip_mreqn lo = {.imr_multiaddr.s_addr = inet_addr("239.1.2.3"), .imr_address.s_addr = htonl(INADDR_LOOPBACK)};
	struct sockaddr_in peer = at(POD_IP, 0);
	struct world w;
	int fd[2], out, off = 0, round;
	socklen_t len = sizeof(off);
	uint8_t buf[200];
	size_t n;

	init(&w);
	fd[0] = make(w.a.ns, SOCK_RAW, PROTO);
	out = make(w.a.ns, SOCK_RAW, PROTO);
	T_REQUIRE(setsockopt(out, IPPROTO_IP, IP_ADD_MEMBERSHIP, &lo, sizeof(lo)) == 0);
	T_REQUIRE(setsockopt(out, IPPROTO_IP, IP_MULTICAST_IF, &lo, sizeof(lo)) == 0);
	send_to(out, "many", 4, "239.1.2.3");
	T_REQUIRE(setsockopt(fd[0], IPPROTO_IP, IP_MULTICAST_ALL, &off, sizeof(off)) == 0);
	close(out);
	fd[1] = make(w.a.ns, SOCK_DGRAM, IPPROTO_ICMP);
	n = icmp(buf, ICMP_ECHO, 0, "request", 8);
	send_to(fd[1], buf, n, "127.0.0.1");
	await_data(fd[1]);
	T_REQUIRE(connect(fd[1], (struct sockaddr *)&peer, sizeof(peer)) == 0);
	for (round = 0; round < 6; round++)
		move(&w, fd, 2, round % 2);
	expect(fd[0], "many");
	expect_none(fd[0]);
	T_REQUIRE(recv(fd[1], buf, sizeof(buf), MSG_DONTWAIT) == 16);
	T_CHECK_EQ(buf[0], ICMP_ECHOREPLY);
	expect_none(fd[1]);
	T_REQUIRE(getsockopt(fd[0], IPPROTO_IP, IP_MULTICAST_ALL, &off, &len) == 0);
	T_CHECK_EQ(off, 0);
	close_all(fd, 2);
	world_done(&w);
}

struct waking {
	struct place *p;
	struct wake *wake;
};

static int open_wake(void *arg, struct err *e)
{
	struct waking *k = arg;

	return wake_open(k->p->ns, k->p->host, pod_mac, &k->wake, e);
}

static int attach(void *arg, struct err *e)
{
	return link_attach(arg, BRIDGE, e);
}

/* What comes from without while the pod stands still is heard once, after what had come before: at the other place, and here. */
static void test_held(void)
{
	static const char *const words[] = {"one", "two", "three"};
	static uint8_t frame[2][HOLD_FRAME_MAX];
	struct err e = {0};
	struct world w;
	int fd, out, stay, len[2], n, i, r;

	for (stay = 0; stay < 2; stay++) {
		struct waking k = {.p = stay ? &w.a : &w.b};

		init(&w);
		fd = make(w.a.ns, SOCK_RAW, PROTO);
		out = make(w.peer, SOCK_RAW, PROTO);
		T_OK(netns_run(w.node, open_wake, &k, &e), &e);
		send_to(out, words[0], strlen(words[0]), POD_IP);
		await_data(fd);
		T_OK(hold_only_syn(w.a.hold, false, &e), &e);
		hold_discard(w.a.hold);
		T_OK(filter_set(w.a.filter, FILTER_BLOCK, &e), &e);
		for (i = 1; i < 3; i++)
			send_to(out, words[i], strlen(words[i]), POD_IP);
		move(&w, &fd, 1, stay);
		if (stay)
			T_OK(wake_speak(k.wake, &e), &e);
		for (n = 0; n < 2; n += frame_is_for_pod(frame[n], (size_t)len[n], pod_mac)) {
			await_data(hold_fd(w.a.hold));
			T_OK(len[n] = hold_take(w.a.hold, frame[n], sizeof(frame[n]), &e), &e);
		}
		T_OK(hold_stop(w.a.hold, &e), &e); /* or it would hold them again */
		for (i = 0; i < 2; i++) {
			T_OK(r = wake_hear(k.wake, frame[i], (size_t)len[i], &e), &e);
			T_CHECK_EQ(r, 1);
		}
		if (!stay) {
			T_OK(netns_run(w.node, attach, (void *)(uintptr_t)w.b.host, &e), &e);
			T_OK(wake_speak(k.wake, &e), &e);
		}
		for (i = 0; i < 3; i++) {
			await_data(fd);
			expect(fd, words[i]);
		}
		expect_none(fd);
		wake_free(k.wake, false);
		close(fd);
		close(out);
		world_done(&w);
	}
}

static void test_refusals(void)
{
	struct sock_filter all[] = {BPF_STMT(BPF_RET | BPF_K, 0xffff)};
	struct sock_fprog prog = {1, all};
	struct sockaddr none = {.sa_family = AF_UNSPEC};
	uint8_t options[] = {IPOPT_NOP, IPOPT_NOP, IPOPT_NOP, IPOPT_EOL};
	struct sockaddr_in number = at("0.0.0.0", 77);
	struct err e = {0};
	struct world w;
	int fd, other, one = 1;

	init(&w);
	fd = make(w.a.ns, SOCK_RAW, PROTO);
	T_OK(raw_check(fd, w.a.ns, &e), &e);
	T_REQUIRE(setsockopt(fd, IPPROTO_IP, IP_OPTIONS, options, sizeof(options)) == 0);
	T_FAILS(raw_check(fd, w.a.ns, &e), -EOPNOTSUPP);
	close(fd);
	fd = make(w.a.ns, SOCK_RAW, PROTO);
	T_REQUIRE(setsockopt(fd, SOL_SOCKET, SO_ATTACH_FILTER, &prog, sizeof(prog)) == 0);
	T_OK(raw_check(fd, w.a.ns, &e), &e);
	T_REQUIRE(setsockopt(fd, SOL_SOCKET, SO_LOCK_FILTER, &one, sizeof(one)) == 0);
	T_FAILS(raw_check(fd, w.a.ns, &e), -EOPNOTSUPP);
	close(fd);
	fd = make(w.a.ns, SOCK_RAW, PROTO);
	T_REQUIRE(connect(fd, &none, sizeof(none)) == 0);
	T_FAILS(raw_check(fd, w.a.ns, &e), -EOPNOTSUPP);
	close(fd);
	fd = make(w.a.ns, SOCK_DGRAM, IPPROTO_ICMP);
	other = make(w.a.ns, SOCK_DGRAM, IPPROTO_ICMP);
	T_REQUIRE(bind(fd, (struct sockaddr *)&number, sizeof(number)) == 0);
	T_OK(raw_check(fd, w.a.ns, &e), &e);
	T_REQUIRE(bind(other, (struct sockaddr *)&number, sizeof(number)) == 0);
	T_FAILS(raw_check(fd, w.a.ns, &e), -EOPNOTSUPP);
	close(fd);
	T_OK(raw_check(other, w.a.ns, &e), &e);
	close(other);
	fd = make(w.a.ns, SOCK_DGRAM, IPPROTO_UDP);
	T_FAILS(raw_check(fd, w.a.ns, &e), -EOPNOTSUPP);
	close(fd);
	world_done(&w);
}

/* With a header, and what makes their checksum right, they are longer than any packet. */
static void hostile_replies(int fd, int ns)
{
	struct udp_dgram d = {.from = at("127.0.0.1", 0), .to.s_addr = htonl(INADDR_LOOPBACK), .ttl = 64};
	struct raw_state s = {.type = SOCK_DGRAM, .protocol = IPPROTO_ICMP,
			      .u = {.local.sin_family = AF_INET, .queue = &d, .nqueue = 1}};
	const unsigned most = RAW_PACKET_MAX - sizeof(struct iphdr);
	struct err e = {0};
	uint8_t *wrong;

	/* of the heap, exactly as long: a checker of memory sees what is read or written behind */
	for (d.len = RAW_PACKET_MAX; d.len > most - 3; d.len--) {
		wrong = calloc(1, d.len);
		T_REQUIRE(wrong != NULL);
		wrong[2] = 1; /* of the checksum */
		d.data = wrong;
		if (d.len + d.len % 2 + 2 > most) /* what is added */
			T_FAILS(raw_check_packet(SOCK_DGRAM, &d, &e), -EOPNOTSUPP);
		else
			T_OK(raw_check_packet(SOCK_DGRAM, &d, &e), &e);
		if (d.len > most)
			T_FAILS(raw_restore_on(fd, ns, &s, &e), -EOPNOTSUPP);
		wrong[0] = ICMP_ECHOREPLY;
		wrong[2] = 0;
		memset(wrong + 2, 0xff, 2); /* right: all else is 0 */
		if (d.len > most)
			T_FAILS(raw_check_packet(SOCK_DGRAM, &d, &e), -EOPNOTSUPP);
		else
			T_OK(raw_check_packet(SOCK_DGRAM, &d, &e), &e);
		free(wrong);
	}
}

/* An image may say anything. */
static void test_hostile_state(void)
{
	struct iphdr ip = {.version = 4, .ihl = 5, .tot_len = htons(sizeof(ip)), .protocol = PROTO};
	struct udp_dgram d = {.data = &ip, .len = sizeof(ip)};
	struct raw_state s = {.type = SOCK_RAW, .protocol = PROTO,
			      .u = {.local.sin_family = AF_INET, .queue = &d, .nqueue = 1}};
	struct err e = {0};
	struct world w;
	int fd;

	init(&w);
	fd = make(w.a.ns, SOCK_RAW, PROTO);
	ip.ihl = 15;
	T_FAILS(raw_restore_on(fd, w.a.ns, &s, &e), -EOPNOTSUPP);
	ip.ihl = 4;
	T_FAILS(raw_restore_on(fd, w.a.ns, &s, &e), -EOPNOTSUPP);
	ip.ihl = 5;
	ip.frag_off = htons(0x2000);
	T_FAILS(raw_restore_on(fd, w.a.ns, &s, &e), -EOPNOTSUPP);
	ip.frag_off = 0;
	ip.tot_len = htons(sizeof(ip) - 1);
	T_FAILS(raw_restore_on(fd, w.a.ns, &s, &e), -EOPNOTSUPP);
	d.len = 3;
	T_FAILS(raw_restore_on(fd, w.a.ns, &s, &e), -EOPNOTSUPP);
	s.type = SOCK_DGRAM;
	T_FAILS(raw_restore_on(fd, w.a.ns, &s, &e), -EPROTO);
	s.protocol = IPPROTO_ICMP;
	T_FAILS(raw_restore_on(fd, w.a.ns, &s, &e), -EOPNOTSUPP);
	hostile_replies(fd, w.a.ns);
	s.type = SOCK_RAW;
	s.protocol = IPPROTO_UDP;
	T_FAILS(raw_restore_on(fd, w.a.ns, &s, &e), -EPROTO);
	s.u.nqueue = 0;
	s.u.sndbuf = s.u.rcvbuf = 50000;
	T_OK(raw_restore_on(fd, w.a.ns, &s, &e), &e);
	close(fd);
	world_done(&w);
}

static const struct test_case cases[] = {
	{"queues_apart", test_queues_apart},
	{"kernel_leaves_it", test_kernel_leaves_it},
	{"begun_by_another", test_begun_by_another},
	{"let_in_before", test_let_in_before},
	{"answers_to_all", test_answers_to_all},
	{"lost", test_lost},
	{"no_way_back", test_no_way_back},
	{"late", test_late},
	{"held", test_held},
	{"refusals", test_refusals},
	{"hostile_state", test_hostile_state},
};

const struct test_suite raw_suite = {"raw", cases, ARRAY_SIZE(cases)};
