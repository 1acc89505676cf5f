/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Filters of sockets (SO_ATTACH_FILTER): of UDP, of unix datagrams and packets, of netlink, of a TCP listener, whose
 * connections have it, too, and of a connection; by which some is dropped and some is cut off. A queue that
 * holds what the filter, which came later, would have dropped. Locked ones, one that is locked without a filter. The longest
 * there can be. A child shares them.
 */
#include "wl.h"

#include <linux/filter.h>
#include <linux/netlink.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/un.h>

#define HELD 3

/* Only what has an even byte at its offset; of that @keep bytes. */
#define EVEN_ONLY(offset, keep)                                                          \
	{                                                                                \
		BPF_STMT(BPF_LD | BPF_B | BPF_ABS, offset), BPF_STMT(BPF_ALU | BPF_AND | BPF_K, 1), \
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, 0, 0, 1), BPF_STMT(BPF_RET | BPF_K, keep),      \
		BPF_STMT(BPF_RET | BPF_K, 0),                                            \
	}

static struct sock_filter udp_code[] = EVEN_ONLY(8, 8 + 6), unix_code[] = EVEN_ONLY(0, 4), netlink_code[] = EVEN_ONLY(0, 0x40000),
			  all_code[] = { BPF_STMT(BPF_RET | BPF_K, 0x40000) }, long_code[BPF_MAXINSNS];

static struct filtered {
	int to, from;
	struct sock_filter *code;
	unsigned len;
	size_t says;	/* bytes that come of those that were sent */
	bool locked;
} way[4];
static _Atomic int *stop;
static bool tcp_too; /* newer kernels let only root filter TCP */
static int held, held_from, listener, conn[2], bare, longest;

static void attach(int fd, struct sock_filter *code, size_t n)
{
	struct sock_fprog p = { (unsigned short)n, code };

	WL_SYS(setsockopt(fd, SOL_SOCKET, SO_ATTACH_FILTER, &p, sizeof(p)));
}

static void lock(int fd)
{
	int on = 1;

	WL_SYS(setsockopt(fd, SOL_SOCKET, SO_LOCK_FILTER, &on, sizeof(on)));
}

static void check_filter(const char *what, int fd, const struct sock_filter *code, size_t n, bool locked)
{
	static struct sock_filter got[BPF_MAXINSNS];
	socklen_t len = ARRAY_SIZE(got), ilen = sizeof(int);
	int v = -1;

	WL_SYS(getsockopt(fd, SOL_SOCKET, SO_GET_FILTER, got, &len));
	WL_EQ(what, n, len);
	WL_CHECK(!memcmp(got, code, n * sizeof(*code)), "%s: the filter is another one", what);
	WL_SYS(getsockopt(fd, SOL_SOCKET, SO_LOCK_FILTER, &v, &ilen));
	WL_EQ("SO_LOCK_FILTER", locked, v);
	if (!locked)
		return;
	errno = 0;
	WL_EQ("taking off a filter that is locked", -1, setsockopt(fd, SOL_SOCKET, SO_DETACH_FILTER, &v, sizeof(v)));
	WL_EQ("errno", EPERM, errno);
}

static void connect_udp(int from, int to)
{
	struct sockaddr_in at = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t len = sizeof(at);

	WL_SYS(bind(to, (struct sockaddr *)&at, sizeof(at)));
	WL_SYS(getsockname(to, (struct sockaddr *)&at, &len));
	WL_SYS(connect(from, (struct sockaddr *)&at, sizeof(at)));
}

static void connect_netlink(int from, int to)
{
	struct sockaddr_nl at = { .nl_family = AF_NETLINK, .nl_pid = 0x00abd001 };

	WL_SYS(bind(to, (struct sockaddr *)&at, sizeof(at)));
	WL_SYS(connect(from, (struct sockaddr *)&at, sizeof(at)));
}

static void setup_ways(void)
{
	int sv[2];
	size_t i;

	way[0] = (struct filtered){ (int)WL_SYS(socket(AF_INET, SOCK_DGRAM, 0)), (int)WL_SYS(socket(AF_INET, SOCK_DGRAM, 0)), udp_code,
				    ARRAY_SIZE(udp_code), 6, false };
	connect_udp(way[0].from, way[0].to);
	WL_SYS(socketpair(AF_UNIX, SOCK_DGRAM, 0, sv));
	way[1] = (struct filtered){ sv[0], sv[1], unix_code, ARRAY_SIZE(unix_code), 4, true };
	WL_SYS(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, sv));
	way[2] = (struct filtered){ sv[0], sv[1], unix_code, ARRAY_SIZE(unix_code), 4, false };
	way[3] = (struct filtered){ (int)WL_SYS(socket(AF_NETLINK, SOCK_DGRAM, NETLINK_USERSOCK)),
				    (int)WL_SYS(socket(AF_NETLINK, SOCK_DGRAM, NETLINK_USERSOCK)), netlink_code, ARRAY_SIZE(netlink_code), 10, true };
	connect_netlink(way[3].from, way[3].to);
	for (i = 0; i < ARRAY_SIZE(way); i++) {
		attach(way[i].to, way[i].code, way[i].len);
		if (way[i].locked)
			lock(way[i].to);
	}
}

/* Of two one comes. A filter's answer to who sends is success for datagrams and EPERM for those of unix. */
static void say(const struct filtered *w, uint8_t n)
{
	char buf[10] = { 0 }, got[16];
	int k;

	for (k = 1; k >= 0; k--) {
		buf[0] = (char)((n & ~1) | k);
		buf[1] = (char)n;
		if (send(w->from, buf, sizeof(buf), 0) < 0)
			WL_CHECK(k == 1 && (errno == EPERM || errno == ECONNREFUSED), "send: expected success, got %s", strerror(errno));
	}
	WL_EQ("bytes", w->says, WL_SYS(recv(w->to, got, sizeof(got), 0)));
	WL_CHECK(!memcmp(buf, got, w->says), "a message: expected %d %d, got %d %d", buf[0], buf[1], got[0], got[1]);
	errno = 0;
	WL_EQ("a message that is dropped", -1, recv(w->to, got, sizeof(got), MSG_DONTWAIT));
	WL_EQ("errno", EAGAIN, errno);
}

static void setup_others(void)
{
	struct sockaddr_in at = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t len = sizeof(at);
	size_t i;
	int sv[2];

	WL_SYS(socketpair(AF_UNIX, SOCK_DGRAM, 0, sv));
	held = sv[0];
	held_from = sv[1];
	for (i = 0; i < HELD; i++)
		WL_EQ("send", 5, WL_SYS(send(held_from, (char[]){ 1, (char)i, 0, 0, 9 }, 5, 0)));
	attach(held, unix_code, ARRAY_SIZE(unix_code));
	listener = (int)WL_SYS(socket(AF_INET, SOCK_STREAM, 0));
	tcp_too = setsockopt(listener, SOL_SOCKET, SO_ATTACH_FILTER, &(struct sock_fprog){ 1, all_code }, sizeof(struct sock_fprog)) == 0;
	WL_CHECK(tcp_too || errno == EPERM, "filter of a listener: expected success or EPERM, got %s", strerror(errno));
	WL_SYS(bind(listener, (struct sockaddr *)&at, sizeof(at)));
	WL_SYS(listen(listener, 4));
	WL_SYS(getsockname(listener, (struct sockaddr *)&at, &len));
	conn[0] = (int)WL_SYS(socket(AF_INET, SOCK_STREAM, 0));
	WL_SYS(connect(conn[0], (struct sockaddr *)&at, sizeof(at)));
	conn[1] = (int)WL_SYS(accept(listener, NULL, NULL));
	if (tcp_too)
		attach(conn[0], all_code, ARRAY_SIZE(all_code));
	lock(conn[0]);
	bare = (int)WL_SYS(socket(AF_UNIX, SOCK_STREAM, 0));
	lock(bare);
	for (i = 0; i < ARRAY_SIZE(long_code); i++)
		long_code[i] = (struct sock_filter)BPF_STMT(BPF_LD | BPF_IMM, (unsigned)i);
	long_code[i - 1] = all_code[0];
	longest = (int)WL_SYS(socket(AF_INET, SOCK_DGRAM, 0));
	attach(longest, long_code, ARRAY_SIZE(long_code));
}

static void check_all(void)
{
	size_t i;

	for (i = 0; i < ARRAY_SIZE(way); i++)
		check_filter("filter", way[i].to, way[i].code, way[i].len, way[i].locked);
	check_filter("filter of a listener", listener, all_code, tcp_too, false);
	check_filter("filter of an accepted connection", conn[1], all_code, tcp_too, false);
	check_filter("filter of a connection", conn[0], all_code, tcp_too, true);
	check_filter("filter of who has a queue", held, unix_code, ARRAY_SIZE(unix_code), false);
	check_filter("no filter, but a lock", bare, all_code, 0, true);
	check_filter("the longest", longest, long_code, ARRAY_SIZE(long_code), false);
	check_filter("none", way[0].from, all_code, 0, false);
}

static int child(void *arg)
{
	(void)arg;
	while (!*stop) {
		check_all();
		wl_pace();
	}
	return 19;
}

int main(void)
{
	uint64_t round = 0;
	char got[16];
	size_t i;
	pid_t kid;

	wl_init();
	stop = wl_shared(sizeof(*stop));
	setup_ways();
	setup_others();
	kid = wl_spawn(child, NULL);
	wl_ready();
	while (!wl_stopping()) {
		for (i = 0; i < ARRAY_SIZE(way); i++)
			say(&way[i], (uint8_t)round);
		WL_EQ("send", 1, WL_SYS(send(conn[round % 2], "x", 1, 0)));
		WL_EQ("recv", 1, WL_SYS(recv(conn[1 - round % 2], got, 1, 0)));
		wl_pace();
		round++;
	}
	*stop = 1;
	wl_reap(kid, 19);
	check_all();
	for (i = 0; i < HELD; i++) {
		WL_EQ("bytes that came before the filter", 5, WL_SYS(recv(held, got, sizeof(got), MSG_DONTWAIT)));
		WL_CHECK(got[0] == 1 && got[1] == (char)i && got[4] == 9, "what came before the filter: expected 1 %zu, got %d %d", i, got[0], got[1]);
	}
	say(&(struct filtered){ held, held_from, unix_code, 0, 4, false }, 4);
	WL_SYS(setsockopt(held, SOL_SOCKET, SO_DETACH_FILTER, &(int){ 0 }, sizeof(int)));
	WL_EQ("send without a filter", 1, WL_SYS(send(held_from, "\1", 1, 0)));
	WL_EQ("recv without a filter", 1, WL_SYS(recv(held, got, sizeof(got), MSG_DONTWAIT)));
	wl_ok();
}
