/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "tests/net/world.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include <netlink/route/link.h>
#include <netlink/route/link/bridge.h>

#include "pod/base/io.h"
#include "tests/harness.h"

#define HOLD_BYTES (64u << 20)

const uint8_t pod_mac[6] = {0x02, 0x50, 0x4d, 0, 0, 5};
static const uint8_t peer_mac[6] = {0x02, 0x50, 0x4d, 0, 0, 9};

static void *new_ns(void *out)
{
	int *fd = out;

	*fd = unshare(CLONE_NEWNET) < 0 ? -errno
					: open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC);
	return NULL;
}

/* The kernel's default, whatever this machine's is: 32 MiB of unread data would measure memcpy().
 */
static int usual_buffers(void *arg, struct err *e)
{
	(void)arg;
	return io_write_file("/proc/sys/net/ipv4/tcp_rmem", "4096 131072 6291456", e);
}

static int make_ns(void)
{
	struct err e = {0};
	pthread_t t;
	int fd = -1;

	T_REQUIRE(pthread_create(&t, NULL, new_ns, &fd) == 0);
	pthread_join(t, NULL);
	if (fd == -EPERM)
		T_SKIP("needs the privilege to make network namespaces");
	T_REQUIRE(fd >= 0);
	T_OK(netns_run(fd, usual_buffers, NULL, &e), &e);
	return fd;
}

static int make_bridge(void *arg, struct err *e)
{
	struct nl_sock *s = nl_socket_alloc();
	int r;

	(void)arg;
	nl_connect(s, NETLINK_ROUTE);
	r = rtnl_link_bridge_add(s, BRIDGE);
	nl_socket_free(s);
	return r < 0 ? err_set(e, EIO, "bridge: %s", nl_geterror(r)) : link_up(BRIDGE, e);
}

struct veth {
	struct world *w;
	int ns;
	const char *host, *ip;
	const uint8_t *mac;
	bool attach;
};

static int make_veth(void *arg, struct err *e)
{
	const struct veth *v = arg;
	int r = link_make_veth(v->ns, v->host, v->mac, inet_addr(v->ip), 16, inet_addr("10.77.0.1"),
			       e);

	if (r < 0)
		return r;
	return v->attach ? link_attach(v->host, BRIDGE, e) : link_up(v->host, e);
}

static void place_init(struct world *w, struct place *p, const char *host, bool attach)
{
	struct veth v = {w, 0, host, POD_IP, pod_mac, attach};
	struct err e = {0};

	p->ns = v.ns = make_ns();
	p->host = host;
	T_OK(netns_run(w->node, make_veth, &v, &e), &e);
	T_OK(p->announcer = link_announcer(p->ns, &e), &e);
	T_OK(filter_open(p->ns, &p->filter, &e), &e);
	T_OK(filter_set(p->filter, attach ? FILTER_OPEN : FILTER_BLOCK, &e), &e);
	T_OK(hold_open(p->ns, HOLD_BYTES, &p->hold, &e), &e);
	T_OK(hold_only_syn(p->hold, true, &e), &e);
}

void world_init(struct world *w)
{
	struct veth v = {w, 0, "pmpeer", PEER_IP, peer_mac, true};
	struct err e = {0};

	memset(w, 0, sizeof(*w));
	w->node = make_ns();
	T_OK(netns_run(w->node, make_bridge, NULL, &e), &e);
	w->peer = v.ns = make_ns();
	T_OK(netns_run(w->node, make_veth, &v, &e), &e);
	place_init(w, &w->a, "pma", true);
	place_init(w, &w->b, "pmb", false);
	w->at = &w->a;
	/* these wait until the pod's and the peer's ends pass frames: an ARP request that is lost takes 1 s, which is then
	 * the round trip time of a connection for many moves */
	T_OK(link_announce(w->a.ns, pod_mac, inet_addr(POD_IP), 1, &e), &e);
	T_OK(link_announce(w->b.ns, pod_mac, inet_addr(POD_IP), 1, &e), &e);
	T_OK(link_announce(w->peer, peer_mac, inet_addr(PEER_IP), 1, &e), &e);
}

struct counter {
	const char *name;
	long long value;
};

/* A line of names follows a line of values, with the same first word and as many. */
static int read_counter(void *arg, struct err *e)
{
	struct counter *c = arg;
	autofree char *text = NULL;
	char *line, *names = NULL, *at, *name, *value, *in_names, *in_values;
	int r = io_read_file("/proc/thread-self/net/netstat", 1 << 20, &text, NULL, e);

	for (line = r < 0 ? NULL : strtok_r(text, "\n", &at); line; line = strtok_r(NULL, "\n", &at)) {
		if (!names) {
			names = line;
			continue;
		}
		name = strtok_r(names, " ", &in_names);
		value = strtok_r(line, " ", &in_values);
		for (; name && value; name = strtok_r(NULL, " ", &in_names), value = strtok_r(NULL, " ", &in_values))
			if (!strcmp(name, c->name))
				c->value = atoll(value);
		names = NULL;
	}
	return r;
}

long long world_counter(int ns, const char *name)
{
	struct counter c = {name, -1};
	struct err e = {0};

	T_OK(netns_run(ns, read_counter, &c, &e), &e);
	return c.value;
}

static void place_done(struct place *p)
{
	filter_free(p->filter);
	hold_free(p->hold);
	close(p->announcer);
	close(p->ns);
}

void world_done(struct world *w)
{
	place_done(&w->a);
	place_done(&w->b);
	close(w->peer);
	close(w->node);
}

static int attach(void *arg, struct err *e)
{
	return link_attach(arg, BRIDGE, e);
}

static int detach(void *arg, struct err *e)
{
	return link_detach(arg, e);
}

/* Takes all that is held and lets it arrive at @to. Returns the number of frames. */
static unsigned replay_all(struct hold *h, struct wake *to)
{
	static _Thread_local uint8_t frame[HOLD_FRAME_MAX];
	struct err e = {0};
	unsigned n = 0;
	int len, r;

	while ((len = hold_take(h, frame, sizeof(frame), &e)) > 0) {
		T_OK(r = wake_hear(to, frame, (size_t)len, &e), &e);
		n += (unsigned)r;
	}
	T_OK(len, &e);
	return n;
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

static void move_abort(struct world *w, struct wake *wake, const int *fds, unsigned n,
		       struct tcp_state *st, struct move_times *t)
{
	struct err e = {0};
	unsigned i;

	T_OK(wake_speak(wake, &e), &e);
	for (i = 0; i < n; i++)
		tcp_undo(fds[i]);
	T_OK(hold_stop(w->at->hold, &e), &e);
	t->held = replay_all(w->at->hold, wake);
	for (i = 0; i < n; i++) {
		T_OK(wake_nudge(wake, &st[i], &e), &e);
		tcp_state_done(&st[i]);
	}
}

void world_move(struct world *w, const int *fds, unsigned n, const struct move_opts *o,
		struct move_times *t, void (*thaw)(void *arg), void *arg)
{
	struct place *from = w->at, *to = from == &w->a ? &w->b : &w->a;
	struct waking k = {.p = o->abort ? from : to};
	struct timespec pause = {0, (long)o->pause_ns};
	struct tcp_state *st = calloc(n, sizeof(*st));
	int *made = calloc(n, sizeof(*made));
	struct err e = {0};
	uint64_t t0, t1;
	unsigned i;

	T_REQUIRE(st && made);
	memset(t, 0, sizeof(*t));
	T_OK(netns_sockets(to->ns, AF_INET, SOCK_STREAM, 0, made, n, &e), &e);
	for (i = 0; i < n; i++) {
		int family = AF_INET;
		socklen_t len = sizeof(family);

		getsockopt(fds[i], SOL_SOCKET, SO_DOMAIN, &family, &len);
		if (family != AF_INET6)
			continue;
		close(made[i]);
		T_OK(made[i] = netns_socket(to->ns, AF_INET6, SOCK_STREAM, 0, &e), &e);
	}
	T_OK(netns_run(w->node, open_wake, &k, &e), &e);
	t0 = now_ns();
	if (o->drain)
		T_OK(t->drained = (unsigned)drain_wire(fds, n, now_ns() + NSEC_PER_MSEC, &e), &e);
	if (!o->keep_syns)
		hold_discard(from->hold);
	T_OK(hold_only_syn(from->hold, false, &e), &e);
	T_OK(filter_set(from->filter, FILTER_BLOCK, &e), &e);
	t1 = now_ns();
	for (i = 0; i < n; i++)
		T_OK(tcp_save(fds[i], &st[i], &e), &e);
	t->save = now_ns() - t1;
	if (o->pause_ns)
		nanosleep(&pause, NULL); /* the move is to take so long */
	if (o->meanwhile)
		o->meanwhile(o->meanwhile_arg);
	t1 = now_ns();
	for (i = 0; i < n; i++)
		T_OK(tcp_restore_on(made[i], to->ns, &st[i], &e), &e);
	t->restore = now_ns() - t1;
	for (i = 0; i < n && o->early_release; i++)
		T_OK(tcp_release(made[i], &st[i], &e), &e);
	for (i = 0; i < n; i++)
		T_OK(wake_know(k.wake, &st[i], &e), &e);
	if (o->abort) {
		for (i = 0; i < n; i++)
			close(made[i]);
		move_abort(w, k.wake, fds, n, st, t);
		t->frozen = now_ns() - t0;
		if (thaw)
			thaw(arg);
		goto out;
	}
	if (!o->no_replay)
		t->held = replay_all(from->hold, k.wake);
	T_OK(netns_run(w->node, attach, (void *)(uintptr_t)to->host, &e), &e);
	T_OK(wake_speak(k.wake, &e), &e);
	T_OK(link_announce_by(to->announcer, pod_mac, inet_addr(POD_IP), 1, &e), &e);
	t1 = now_ns();
	for (i = 0; i < n; i++)
		if (o->early_release)
			tcp_push(made[i], &st[i]);
		else
			T_OK(tcp_release(made[i], &st[i], &e), &e);
	t->release = now_ns() - t1;
	for (i = 0; i < n; i++) {
		if (!o->no_nudge)
			T_OK(wake_nudge(k.wake, &st[i], &e), &e);
		T_REQUIRE(dup3(made[i], fds[i], O_CLOEXEC) == fds[i]);
		close(made[i]);
	}
	w->at = to;
	t->frozen = now_ns() - t0;
	if (thaw)
		thaw(arg);
	/* what came to the old place before the bridge had learnt */
	t->late = replay_all(from->hold, k.wake);
	T_OK(netns_run(w->node, detach, (void *)(uintptr_t)from->host, &e), &e);
	t->late += replay_all(from->hold, k.wake);
	for (i = 0; i < n; i++) {
		tcp_settle(fds[i], &st[i]);
		tcp_state_done(&st[i]);
	}
out:
	t->lost = (unsigned)hold_lost(from->hold);
	T_OK(hold_only_syn(from->hold, true, &e), &e);
	hold_discard(from->hold);
	wake_free(k.wake, false);
	free(st);
	free(made);
}

static struct sockaddr_in addr(const char *ip, uint16_t port)
{
	struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(port)};

	a.sin_addr.s_addr = inet_addr(ip);
	return a;
}

int world_listen(int ns, const char *ip, uint16_t port, int backlog)
{
	struct sockaddr_in a = addr(ip, port);
	struct err e = {0};
	int fd, one = 1;

	T_OK(fd = netns_socket(ns, AF_INET, SOCK_STREAM, 0, &e), &e);
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	T_REQUIRE(bind(fd, (struct sockaddr *)&a, sizeof(a)) == 0);
	T_REQUIRE(listen(fd, backlog) == 0);
	return fd;
}

int world_connect(int ns, const char *ip, uint16_t port)
{
	struct sockaddr_in a = addr(ip, port);
	struct err e = {0};
	int fd;

	T_OK(fd = netns_socket(ns, AF_INET, SOCK_STREAM, 0, &e), &e);
	T_REQUIRE(connect(fd, (struct sockaddr *)&a, sizeof(a)) == 0);
	return fd;
}

int world_accept(int lfd)
{
	struct err e = {0};
	int fd;

	T_OK(io_wait_readable(lfd, deadline_ms(60000), &e), &e);
	fd = accept4(lfd, NULL, NULL, SOCK_CLOEXEC);
	T_REQUIRE(fd >= 0);
	return fd;
}
