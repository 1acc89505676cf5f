/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * epoll: level, edge and one-shot entries over pipe, eventfd, timerfd and socket; the
 * same file watched by two fds; an entry whose fd number has been closed while a dup lives; a set
 * shared with a child; an event that has been reported once by edge must not be reported again.
 */
#include "wl.h"

#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/timerfd.h>

enum { LEVEL, EDGE, ONESHOT, TIMER, SOCKET, CLOSED, QUIET, NUM };
#define DATA(i) (0xabcdef0000000000ull + (uint64_t)(i) * 0x1001)

static struct shared {
	_Atomic int stop;
	_Atomic uint64_t child_events;
} *sh;

static int ep, pipe_fd[2], edge_fd, once_fd, timer, sock[2], closed[2], quiet[2];
static int shared_ep, shared_pipe[2];

static int low, mid, top, edged, low_pipe[2], excl, excl_fd, done, done_fd;

static void add(int set, int fd, uint32_t events, uint64_t data)
{
	struct epoll_event ev = { .events = events, .data.u64 = data };

	WL_SYS(epoll_ctl(set, EPOLL_CTL_ADD, fd, &ev));
}

static void mod(int set, int fd, uint32_t events, uint64_t data)
{
	struct epoll_event ev = { .events = events, .data.u64 = data };

	WL_SYS(epoll_ctl(set, EPOLL_CTL_MOD, fd, &ev));
}

static void bump(int fd)
{
	uint64_t one = 1;

	wl_write(fd, &one, 8);
}

static uint64_t take(int fd)
{
	uint64_t v = 0;

	wl_read(fd, &v, 8);
	return v;
}

/* What is ready now: a bit per entry; the events and data must be the right ones. */
static unsigned ready(void)
{
	static const uint32_t want[NUM] = { EPOLLIN, EPOLLIN, EPOLLIN, EPOLLIN,
					    EPOLLIN, EPOLLIN, 0 };
	struct epoll_event ev[NUM + 2];
	unsigned bits = 0;
	int n, i;
	size_t k;

	n = (int)WL_SYS(epoll_wait(ep, ev, NUM + 2, 0));
	for (i = 0; i < n; i++) {
		for (k = 0; k < NUM && ev[i].data.u64 != DATA(k); k++)
			;
		WL_CHECK(k < NUM, "data of an event: got %llx", (unsigned long long)ev[i].data.u64);
		WL_CHECK(!(bits >> k & 1), "entry %zu: reported twice in one call", k);
		WL_EQ("events", want[k], ev[i].events);
		bits |= 1u << k;
	}
	return bits;
}

static void expect(const char *when, unsigned want)
{
	unsigned got = ready();

	WL_CHECK(got == want, "ready set %s: expected %x, got %x", when, want, got);
}

static void setup(void)
{
	struct itimerspec its = { { 0, 0 }, { 1000000, 0 } };

	ep = (int)WL_SYS(epoll_create1(EPOLL_CLOEXEC));
	WL_SYS(pipe(pipe_fd));
	WL_SYS(pipe(closed));
	WL_SYS(pipe(quiet));
	edge_fd = (int)WL_SYS(eventfd(0, 0));
	once_fd = (int)WL_SYS(eventfd(0, 0));
	timer = (int)WL_SYS(timerfd_create(CLOCK_MONOTONIC, 0));
	WL_SYS(timerfd_settime(timer, 0, &its, NULL));
	WL_SYS(socketpair(AF_UNIX, SOCK_STREAM, 0, sock));
	add(ep, pipe_fd[0], EPOLLIN, DATA(LEVEL));
	add(ep, edge_fd, EPOLLIN | EPOLLET, DATA(EDGE));
	add(ep, once_fd, EPOLLIN | EPOLLONESHOT, DATA(ONESHOT));
	add(ep, timer, EPOLLIN, DATA(TIMER));
	add(ep, sock[0], EPOLLIN | EPOLLRDHUP, DATA(SOCKET));
	/* the entry was made with a number that is closed now; the file lives in a dup */
	{
		int d = (int)WL_SYS(fcntl(closed[0], F_DUPFD, 200));

		add(ep, closed[0], EPOLLIN, DATA(CLOSED));
		WL_SYS(close(closed[0]));
		closed[0] = d;
	}
	add(ep, quiet[0], EPOLLIN | EPOLLET, DATA(QUIET));
	shared_ep = (int)WL_SYS(epoll_create1(0));
	WL_SYS(pipe(shared_pipe));
	add(shared_ep, shared_pipe[0], EPOLLIN, 99);
}

/* top and edged watch mid, which watches low, which watches a pipe. */
static void setup_nested(void)
{
	uint64_t one = 1;

	top = (int)WL_SYS(epoll_create1(0));
	edged = (int)WL_SYS(epoll_create1(EPOLL_CLOEXEC));
	mid = (int)WL_SYS(epoll_create1(0));
	low = (int)WL_SYS(epoll_create1(EPOLL_CLOEXEC));
	WL_SYS(pipe(low_pipe));
	add(low, low_pipe[0], EPOLLIN | EPOLLET, 201);
	add(mid, low, EPOLLIN, 202);
	add(top, mid, EPOLLIN, 203);
	add(edged, mid, EPOLLIN | EPOLLET, 204);
	excl = (int)WL_SYS(epoll_create1(0));
	excl_fd = (int)WL_SYS(eventfd(0, EFD_NONBLOCK));
	add(excl, excl_fd, EPOLLIN | EPOLLEXCLUSIVE, 205);
	done = (int)WL_SYS(epoll_create1(0));
	done_fd = (int)WL_SYS(eventfd(0, 0));
	wl_write(done_fd, &one, 8);
	add(done, done_fd, EPOLLIN | EPOLLONESHOT, 206);
	add(done, low_pipe[1], EPOLLOUT | EPOLLET | EPOLLONESHOT, 207);
}

static void one_event(const char *what, int set, int want, uint64_t data)
{
	struct epoll_event ev = { .events = 0 };

	WL_EQ(what, want, WL_SYS(epoll_wait(set, &ev, 1, 0)));
	WL_CHECK(!want || (ev.data.u64 == data && ev.events == EPOLLIN), "%s: expected event of %llu, got %x of %llu", what,
		 (unsigned long long)data, ev.events, (unsigned long long)ev.data.u64);
}

static void nested(void)
{
	struct epoll_event ev = { .events = EPOLLIN };
	char c = 'n';

	one_event("nested, not ready", top, 0, 0);
	one_event("nested by edge, not ready", edged, 0, 0);
	wl_write(low_pipe[1], &c, 1);
	one_event("nested by edge", edged, 1, 204);
	one_event("nested", top, 1, 203);
	wl_pace();
	one_event("nested, again", top, 1, 203);
	one_event("in the middle", mid, 1, 202);
	one_event("the innermost", low, 1, 201);
	wl_pace();
	/* its edge has been reported: so there is nothing for the others either */
	one_event("the innermost, by edge, again", low, 0, 0);
	one_event("nested, after the edge", top, 0, 0);
	wl_read(low_pipe[0], &c, 1);
	one_event("exclusive, not ready", excl, 0, 0);
	bump(excl_fd);
	wl_pace();
	one_event("exclusive", excl, 1, 205);
	WL_EQ("eventfd", 1, take(excl_fd));
	errno = 0;
	WL_EQ("change of an exclusive entry", -1, epoll_ctl(excl, EPOLL_CTL_MOD, excl_fd, &ev));
	WL_EQ("errno", EINVAL, errno);
	one_event("one-shot, ready and disarmed", done, 0, 0);
}

static int child(void *arg)
{
	struct epoll_event ev;
	char c;

	(void)arg;
	while (!sh->stop) {
		/* bounded: the kernel ends an endless epoll_wait at a stop, which restart_hard is about */
		if (WL_SYS(epoll_wait(shared_ep, &ev, 1, 0)) == 0) {
			wl_sleep_ns(300000);
			continue;
		}
		WL_EQ("data of a shared set", 99, ev.data.u64);
		wl_read(shared_pipe[0], &c, 1);
		sh->child_events++;
	}
	return 44;
}

/* One round: each entry becomes ready, is reported by its rule, and is emptied. */
static void round_of_all(uint64_t round)
{
	struct itimerspec soon = { { 0, 0 }, { 0, 1 } }, late = { { 0, 0 }, { 1000000, 0 } };
	unsigned base = 0;
	char c = 'x';

	expect("before", base);
	wl_write(pipe_fd[1], &c, 1);
	expect("level", base | 1 << LEVEL);
	wl_pace();
	expect("level again", base | 1 << LEVEL);
	bump(edge_fd);
	expect("edge", base | 1 << LEVEL | 1 << EDGE);
	wl_pace(); /* it is still readable, but was reported */
	expect("edge again", base | 1 << LEVEL);
	bump(edge_fd);
	expect("edge after new data", base | 1 << LEVEL | 1 << EDGE);
	WL_EQ("eventfd", 2, take(edge_fd));
	bump(once_fd);
	expect("one-shot", base | 1 << LEVEL | 1 << ONESHOT);
	wl_pace();
	bump(once_fd);
	expect("one-shot when it is disarmed", base | 1 << LEVEL);
	mod(ep, once_fd, EPOLLIN | EPOLLONESHOT, DATA(ONESHOT));
	expect("one-shot when it is armed again", base | 1 << LEVEL | 1 << ONESHOT);
	WL_EQ("eventfd", 2, take(once_fd));
	mod(ep, once_fd, EPOLLIN | EPOLLONESHOT, DATA(ONESHOT));
	wl_read(pipe_fd[0], &c, 1);
	WL_SYS(timerfd_settime(timer, 0, &soon, NULL));
	WL_AWAIT(ready() == 1u << TIMER, "timer");
	WL_EQ("expirations", 1, take(timer));
	WL_SYS(timerfd_settime(timer, 0, &late, NULL));
	wl_write(sock[1], &c, 1);
	wl_write(closed[1], &c, 1);
	wl_pace();
	expect("socket, closed number", 1 << SOCKET | 1 << CLOSED);
	wl_read(sock[0], &c, 1);
	wl_read(closed[0], &c, 1);
	expect("after", base);
	wl_write(shared_pipe[1], &c, 1);
	if (round % 8 == 0)
		WL_AWAIT(sh->child_events == round + 1, "the child");
}

int main(void)
{
	struct epoll_event ev[4];
	uint64_t round = 0;
	pid_t pid;

	wl_init();
	sh = wl_shared(sizeof(*sh));
	setup();
	setup_nested();
	WL_EQ("one-shot entries", 2, WL_SYS(epoll_wait(done, ev, 4, 0)));
	pid = wl_spawn(child, NULL);
	wl_ready();
	while (!wl_stopping()) {
		round_of_all(round++);
		nested();
	}
	WL_AWAIT(sh->child_events == round, "the child");
	sh->stop = 1;
	wl_reap(pid, 44);
	/* the entries are there under these numbers, and no others */
	WL_SYS(epoll_ctl(ep, EPOLL_CTL_DEL, pipe_fd[0], NULL));
	WL_SYS(epoll_ctl(ep, EPOLL_CTL_DEL, edge_fd, NULL));
	WL_SYS(epoll_ctl(ep, EPOLL_CTL_DEL, quiet[0], NULL));
	errno = 0;
	WL_EQ("removal of a strange fd", -1, epoll_ctl(ep, EPOLL_CTL_DEL, quiet[1], NULL));
	WL_EQ("errno", ENOENT, errno);
	WL_EQ("close-on-exec", FD_CLOEXEC, WL_SYS(fcntl(ep, F_GETFD)));
	wl_ok();
}
