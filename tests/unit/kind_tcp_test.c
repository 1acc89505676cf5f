/* SPDX-License-Identifier: GPL-3.0-or-later */
/* TCP by way of records: what netfreeze's own tests do not see is when sockets leave repair mode. */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "pod/base/io.h"
#include "tests/harness.h"
#include "tests/net/world.h"
#include "tests/unit/kind_fake.h"

struct stage {
	struct world w;
	int l, s, c;
};

static void setup(struct stage *t)
{
	world_init(&t->w);
	t->l = world_listen(t->w.a.ns, POD_IP, 4000, 8);
	t->c = world_connect(t->w.peer, POD_IP, 4000);
	t->s = world_accept(t->l);
}

static int do_attach(void *arg, struct err *e)
{
	return link_attach(arg, BRIDGE, e);
}

static int do_detach(void *arg, struct err *e)
{
	return link_detach(arg, e);
}

static void start(void *arg)
{
	struct world *w = arg;
	struct err e = { 0 };

	T_OK(netns_run(w->node, do_detach, (void *)(uintptr_t)w->a.host, &e), &e);
	T_OK(netns_run(w->node, do_attach, (void *)(uintptr_t)w->b.host, &e), &e);
	T_OK(filter_set(w->b.filter, FILTER_OPEN, &e), &e);
	T_OK(link_announce_by(w->b.announcer, pod_mac, inet_addr(POD_IP), 1, &e), &e);
}

/* Within @ms looks of a millisecond: a machine that stands still meanwhile takes one of them. */
static void check_get(int fd, const char *want, unsigned ms)
{
	struct pollfd p = { .fd = fd, .events = POLLIN };
	size_t len = strlen(want), n = 0;
	char buf[64] = "";
	ssize_t k = 1;
	unsigned i;

	for (i = 0; i < ms && n < len && k > 0; i++)
		if (poll(&p, 1, 1) == 1) {
			k = read(fd, buf + n, len - n);
			n += k > 0 ? (size_t)k : 0;
		}
	T_CHECK_STR(buf, want);
}

static void move(struct stage *t, struct fake *f, bool release)
{
	fake_netns(f, t->w.a.ns, t->w.b.ns);
	fake_add(f, t->l);
	fake_add(f, t->s);
	fake_on_start(f, start, &t->w, release);
	fake_move(f);
}

static void teardown(struct stage *t, struct fake *f)
{
	close(t->l);
	close(t->s);
	close(t->c);
	fake_free(f);
	world_done(&t->w);
}

static void test_queues_both_ways(void)
{
	struct fake *f = fake_new();
	struct stage t;
	struct err e = { 0 };
	int c2, s2, on = 1;
	socklen_t len = sizeof(on);

	setup(&t);
	T_CHECK(setsockopt(t.s, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on)) == 0);
	T_CHECK_EQ(send(t.c, "to the pod", 10, 0), 10);
	T_OK(io_wait_readable(t.s, deadline_ms(60000), &e), &e);
	T_OK(filter_set(t.w.a.filter, FILTER_BLOCK, &e), &e);
	T_CHECK_EQ(send(t.s, "from the pod", 12, 0), 12); /* cannot leave */
	move(&t, f, true);
	check_get(t.c, "from the pod", 150); /* pushed, not by a timer of 200 ms */
	check_get(t.s, "to the pod", 1000);
	T_CHECK_EQ(send(t.s, "more", 4, 0), 4);
	check_get(t.c, "more", 150);
	T_CHECK_EQ(send(t.c, "back", 4, 0), 4);
	check_get(t.s, "back", 150);
	on = 0;
	T_CHECK(getsockopt(t.s, IPPROTO_TCP, TCP_NODELAY, &on, &len) == 0 && on == 1);
	c2 = world_connect(t.w.peer, POD_IP, 4000);
	s2 = world_accept(t.l);
	T_CHECK_EQ(send(c2, "new", 3, 0), 3);
	check_get(s2, "new", 1000);
	close(c2);
	close(s2);
	close(t.s);
	t.s = -1;
	T_CHECK_EQ(io_read_full(t.c, &on, 1, deadline_ms(60000), &e), -EPIPE); /* FIN */
	teardown(&t, f);
}

/* An engine that died after READY: nobody calls release(), the kernel's timer does it. */
static void test_without_release(void)
{
	struct fake *f = fake_new();
	struct stage t;
	struct err e = { 0 };

	setup(&t);
	T_OK(filter_set(t.w.a.filter, FILTER_BLOCK, &e), &e);
	T_CHECK_EQ(send(t.s, "late", 4, 0), 4);
	move(&t, f, false);
	check_get(t.c, "late", 8000); /* 3 s: the first timeout of a connection without a measured round trip */
	T_CHECK_EQ(send(t.c, "back", 4, 0), 4);
	check_get(t.s, "back", 1000);
	teardown(&t, f);
}

static void test_undo(void)
{
	struct fake *f = fake_new();
	struct stage t;
	struct err e = { 0 };

	setup(&t);
	T_CHECK_EQ(send(t.c, "abc", 3, 0), 3);
	T_OK(io_wait_readable(t.s, deadline_ms(60000), &e), &e);
	fake_netns(f, t.w.a.ns, t.w.b.ns);
	fake_add(f, t.l);
	fake_add(f, t.s);
	T_OK(fake_dump_undo(f, &e), &e);
	check_get(t.s, "abc", 1000);
	T_CHECK_EQ(send(t.s, "on", 2, 0), 2);
	check_get(t.c, "on", 1000);
	teardown(&t, f);
}

static const struct test_case cases[] = {
	{ "queues_both_ways", test_queues_both_ways },
	{ "without_release", test_without_release },
	{ "undo", test_undo },
};
const struct test_suite kind_tcp_suite = { "kind_tcp", cases, ARRAY_SIZE(cases) };
