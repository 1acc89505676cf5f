/* SPDX-License-Identifier: GPL-3.0-or-later */
/* eventfd, signalfd, timerfd and epoll, moved; names of what is refused. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/inotify.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "pod/base/io.h"
#include "tests/harness.h"
#include "tests/unit/kind_fake.h"

static uint64_t read8(int fd)
{
	uint64_t v = 0;

	return read(fd, &v, sizeof(v)) == 8 ? v : 0;
}

static void test_eventfd(void)
{
	struct fake *f = fake_new();
	int a = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK), s = eventfd(0, EFD_SEMAPHORE | EFD_CLOEXEC | EFD_NONBLOCK);
	int z = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	uint64_t v = 0xfffffffffffffffeull, three = 3;

	T_CHECK_EQ(write(a, &v, 8), 8);
	T_CHECK_EQ(write(s, &three, 8), 8);
	fake_add(f, a);
	fake_add(f, s);
	fake_add(f, z);
	fake_move(f);
	T_CHECK(read8(a) == v);
	T_CHECK_EQ(read8(a), 0);
	T_CHECK_EQ(read8(s), 1);
	T_CHECK_EQ(read8(s), 1);
	T_CHECK_EQ(read8(s), 1);
	T_CHECK_EQ(read8(s), 0);
	T_CHECK_EQ(read8(z), 0);
	T_CHECK_EQ(errno, EAGAIN);
	close(a), close(s), close(z);
	fake_free(f);
}

static void test_signalfd(void)
{
	struct fake *f = fake_new();
	struct signalfd_siginfo si;
	sigset_t set, old;
	int fd;

	sigemptyset(&set);
	sigaddset(&set, SIGUSR1);
	sigaddset(&set, SIGRTMIN + 7);
	sigprocmask(SIG_BLOCK, &set, &old);
	fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	fake_add(f, fd);
	fake_move(f);
	T_CHECK_EQ(read(fd, &si, sizeof(si)), -1);
	raise(SIGRTMIN + 7);
	T_CHECK_EQ(read(fd, &si, sizeof(si)), sizeof(si));
	T_CHECK_EQ(si.ssi_signo, SIGRTMIN + 7);
	raise(SIGUSR1);
	T_CHECK_EQ(read(fd, &si, sizeof(si)), sizeof(si));
	T_CHECK_EQ(si.ssi_signo, SIGUSR1);
	sigprocmask(SIG_SETMASK, &old, NULL);
	close(fd);
	fake_free(f);
}

static uint64_t left_ns(int fd, uint64_t *interval)
{
	struct itimerspec it;

	T_CHECK(timerfd_gettime(fd, &it) == 0);
	*interval = (uint64_t)it.it_interval.tv_sec * NSEC_PER_SEC + (uint64_t)it.it_interval.tv_nsec;
	return (uint64_t)it.it_value.tv_sec * NSEC_PER_SEC + (uint64_t)it.it_value.tv_nsec;
}

static void test_timerfd(void)
{
	struct fake *f = fake_new();
	int once = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
	int done = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
	int every = timerfd_create(CLOCK_BOOTTIME, TFD_CLOEXEC | TFD_NONBLOCK);
	int off = timerfd_create(CLOCK_REALTIME, TFD_CLOEXEC | TFD_NONBLOCK);
	int wall = timerfd_create(CLOCK_REALTIME, TFD_CLOEXEC | TFD_NONBLOCK);
	struct itimerspec it = { { 0, 0 }, { 100, 0 } };
	struct pollfd pf = { .events = POLLIN };
	uint64_t iv, left;

	T_CHECK(timerfd_settime(once, 0, &it, NULL) == 0);
	it.it_value.tv_sec += time(NULL);
	T_CHECK(timerfd_settime(wall, TFD_TIMER_ABSTIME, &it, NULL) == 0);
	it = (struct itimerspec){ { 0, 0 }, { 0, 1000 } };
	T_CHECK(timerfd_settime(done, 0, &it, NULL) == 0);
	it = (struct itimerspec){ { 5, 0 }, { 0, 1000 } };
	T_CHECK(timerfd_settime(every, 0, &it, NULL) == 0);
	pf.fd = done;
	T_CHECK_EQ(poll(&pf, 1, 60000), 1);
	pf.fd = every;
	T_CHECK_EQ(poll(&pf, 1, 60000), 1);
	fake_add(f, once), fake_add(f, done), fake_add(f, every), fake_add(f, off), fake_add(f, wall);
	fake_move(f);
	left = left_ns(once, &iv);
	T_CHECK(left > 95 * NSEC_PER_SEC && left <= 100 * NSEC_PER_SEC && iv == 0);
	left = left_ns(wall, &iv);
	T_CHECK(left > 95 * NSEC_PER_SEC && left <= 101 * NSEC_PER_SEC);
	T_CHECK_EQ(read8(once), 0);
	T_CHECK_EQ(read8(done), 1);
	T_CHECK_EQ(read8(done), 0);
	T_CHECK_EQ(read8(every), 1);
	left = left_ns(every, &iv);
	T_CHECK(iv == 5 * NSEC_PER_SEC && left > 3 * NSEC_PER_SEC && left <= 5 * NSEC_PER_SEC);
	T_CHECK_EQ(left_ns(off, &iv), 0);
	close(once), close(done), close(every), close(off), close(wall);
	fake_free(f);
}

static void test_epoll(void)
{
	struct fake *f = fake_new();
	struct epoll_event ev = { 0 }, got[8];
	int ep = epoll_create1(EPOLL_CLOEXEC), p[2], a = eventfd(0, EFD_CLOEXEC), b = eventfd(0, EFD_CLOEXEC), dupb;
	uint64_t one = 1;
	struct err e = { 0 };
	int n, i;

	T_REQUIRE(pipe2(p, O_CLOEXEC) == 0);
	dupb = dup(b);
	ev = (struct epoll_event){ EPOLLIN, { .u64 = 0x1122334455667788ull } };
	T_CHECK(epoll_ctl(ep, EPOLL_CTL_ADD, p[0], &ev) == 0);
	ev = (struct epoll_event){ EPOLLIN | EPOLLET, { .u64 = 2 } };
	T_CHECK(epoll_ctl(ep, EPOLL_CTL_ADD, a, &ev) == 0);
	ev = (struct epoll_event){ EPOLLIN | EPOLLONESHOT, { .u64 = 3 } };
	T_CHECK(epoll_ctl(ep, EPOLL_CTL_ADD, b, &ev) == 0);
	ev = (struct epoll_event){ EPOLLIN, { .u64 = 4 } };
	T_CHECK(epoll_ctl(ep, EPOLL_CTL_ADD, dupb, &ev) == 0);
	T_CHECK_EQ(write(b, &one, 8), 8);
	n = epoll_wait(ep, got, 8, 0); /* disarms b's own item */
	T_CHECK_EQ(n, 2);
	fake_add(f, ep), fake_add(f, p[0]), fake_add(f, p[1]), fake_add(f, a), fake_add(f, b), fake_add(f, dupb);
	T_OK(fake_dump_undo(f, &e), &e);
	fake_move(f);
	n = epoll_wait(ep, got, 8, 0);
	T_CHECK_EQ(n, 1);
	T_CHECK_EQ(got[0].data.u64, 4);
	T_CHECK_EQ(write(p[1], "x", 1), 1);
	T_CHECK_EQ(write(a, &one, 8), 8);
	n = epoll_wait(ep, got, 8, 0);
	T_CHECK_EQ(n, 3);
	for (i = 0; i < n; i++)
		T_CHECK(got[i].data.u64 == 0x1122334455667788ull || got[i].data.u64 == 2 || got[i].data.u64 == 4);
	n = epoll_wait(ep, got, 8, 0);
	T_CHECK_EQ(n, 2); /* the edge is gone */
	ev = (struct epoll_event){ EPOLLIN | EPOLLONESHOT, { .u64 = 33 } };
	T_CHECK(epoll_ctl(ep, EPOLL_CTL_MOD, b, &ev) == 0);
	n = epoll_wait(ep, got, 8, 0);
	T_CHECK_EQ(n, 3);
	close(ep), close(p[0]), close(p[1]), close(a), close(b), close(dupb);
	fake_free(f);
}

/* More items than a batch has entries. */
static void test_epoll_many(void)
{
	enum { N = 1700 };
	static int fds[N];
	static struct epoll_event got[N + 1];
	struct rlimit old, lim = { 8192, 8192 };
	struct fake *f = fake_new();
	struct epoll_event ev = { 0 };
	int ep = epoll_create1(EPOLL_CLOEXEC), i, n;
	uint64_t one = 1;

	T_CHECK(getrlimit(RLIMIT_NOFILE, &old) == 0);
	if (old.rlim_max < lim.rlim_cur)
		T_SKIP("needs %d open files", (int)lim.rlim_cur);
	lim.rlim_max = old.rlim_max;
	T_CHECK(setrlimit(RLIMIT_NOFILE, &lim) == 0);
	fake_add(f, ep);
	for (i = 0; i < N; i++) {
		fds[i] = eventfd(0, EFD_CLOEXEC);
		ev = (struct epoll_event){ EPOLLIN, { .u64 = (uint64_t)i } };
		T_CHECK(epoll_ctl(ep, EPOLL_CTL_ADD, fds[i], &ev) == 0);
		fake_add(f, fds[i]);
	}
	fake_move(f);
	for (i = 0; i < N; i += 17)
		T_CHECK_EQ(write(fds[i], &one, 8), 8);
	n = epoll_wait(ep, got, N + 1, 0);
	T_CHECK_EQ(n, N / 17);
	for (i = 0; i < n; i++)
		T_CHECK(got[i].data.u64 % 17 == 0);
	for (i = 0; i < N; i++)
		close(fds[i]);
	close(ep);
	fake_free(f);
	setrlimit(RLIMIT_NOFILE, &old);
}

/* Edges that were reported are not reported again, those that were not are; on the source too, after undo. */
static void test_epoll_edges(void)
{
	struct fake *f = fake_new();
	struct epoll_event ev = { 0 }, got[8];
	int ep = epoll_create1(EPOLL_CLOEXEC), fd[4], i, n, p[2];
	uint64_t one = 1;
	struct err e = { 0 };

	for (i = 0; i < 4; i++) {
		fd[i] = eventfd(i < 3, EFD_CLOEXEC);
		ev = (struct epoll_event){ EPOLLIN | (i < 2 ? EPOLLET : i == 2 ? 0 : EPOLLET | EPOLLONESHOT),
					   { .u64 = 10 + (uint64_t)i } };
		T_CHECK(epoll_ctl(ep, EPOLL_CTL_ADD, fd[i], &ev) == 0);
	}
	T_REQUIRE(pipe2(p, O_CLOEXEC) == 0);
	ev = (struct epoll_event){ EPOLLIN | EPOLLONESHOT, { .u64 = 20 } };
	T_CHECK(epoll_ctl(ep, EPOLL_CTL_ADD, p[0], &ev) == 0);
	T_CHECK_EQ(write(p[1], "x", 1), 1);
	n = epoll_wait(ep, got, 8, 0); /* 0, 1, 2 and the pipe, which is disarmed */
	T_CHECK_EQ(n, 4);
	close(p[1]); /* a hang-up: not for a disarmed item */
	T_CHECK_EQ(write(fd[1], &one, 8), 8);
	T_CHECK_EQ(write(fd[3], &one, 8), 8);
	fake_add(f, ep), fake_add(f, p[0]);
	for (i = 0; i < 4; i++)
		fake_add(f, fd[i]);
	T_OK(fake_dump_undo(f, &e), &e);
	T_OK(fake_dump_undo(f, &e), &e);
	fake_move(f);
	n = epoll_wait(ep, got, 8, 0);
	T_CHECK_EQ(n, 3);
	for (i = 0; i < n; i++)
		T_CHECK(got[i].data.u64 >= 11 && got[i].data.u64 <= 13);
	n = epoll_wait(ep, got, 8, 0);
	T_CHECK_EQ(n, 1); /* the level */
	T_CHECK_EQ(write(fd[0], &one, 8), 8);
	T_CHECK_EQ(write(fd[3], &one, 8), 8);
	n = epoll_wait(ep, got, 8, 0);
	T_CHECK_EQ(n, 2); /* a new edge, the level; 13 is disarmed */
	close(ep), close(p[0]);
	for (i = 0; i < 4; i++)
		close(fd[i]);
	fake_free(f);
}

/* Items under numbers that are closed, or are other files now. */
static void test_epoll_numbers(void)
{
	struct fake *f = fake_new();
	struct epoll_event ev = { EPOLLIN, { .u64 = 1 } }, got[4];
	int ep = epoll_create1(EPOLL_CLOEXEC), a = eventfd(0, EFD_CLOEXEC), b = eventfd(0, EFD_CLOEXEC), a2, b2;
	int n, num_a = a, num_b = b;
	uint64_t one = 1;

	T_CHECK(epoll_ctl(ep, EPOLL_CTL_ADD, a, &ev) == 0);
	ev.data.u64 = 2;
	T_CHECK(epoll_ctl(ep, EPOLL_CTL_ADD, b, &ev) == 0);
	a2 = fcntl(a, F_DUPFD_CLOEXEC, 60);
	b2 = fcntl(b, F_DUPFD_CLOEXEC, 60);
	close(a);
	T_CHECK(dup2(ep, b) == b); /* the epoll's second number is the item's */
	close(b);
	b = open("/dev/null", O_RDWR | O_CLOEXEC);
	T_CHECK_EQ(b, num_a);
	T_CHECK(dup2(b, num_b) == num_b);
	fake_add(f, ep), fake_add(f, a2), fake_add(f, b2), fake_add(f, num_b);
	close(b);
	fake_move(f);
	T_CHECK_EQ(write(a2, &one, 8), 8);
	n = epoll_wait(ep, got, 4, 0);
	T_CHECK_EQ(n, 1);
	T_CHECK_EQ(got[0].data.u64, 1);
	T_CHECK_EQ(write(b2, &one, 8), 8);
	n = epoll_wait(ep, got, 4, 0);
	T_CHECK_EQ(n, 2);
	T_CHECK_EQ(fcntl(num_a, F_GETFD), -1);
	T_CHECK_EQ(write(num_b, "null", 4), 4); /* what was there is there */
	T_CHECK(dup2(b2, num_b) == num_b);
	T_CHECK(epoll_ctl(ep, EPOLL_CTL_DEL, num_b, &ev) == 0); /* the item has the old number */
	close(ep), close(a2), close(b2), close(num_b);
	fake_free(f);
}

/* One that watches one that watches one, in an order in which the outer ones come first. */
static void test_epoll_nested(void)
{
	struct fake *f = fake_new();
	struct epoll_event ev = { EPOLLIN, { .u64 = 1 } }, got[4];
	int top = epoll_create1(EPOLL_CLOEXEC), mid = epoll_create1(EPOLL_CLOEXEC), low = epoll_create1(EPOLL_CLOEXEC);
	int a = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK), b = eventfd(0, EFD_CLOEXEC);

	T_CHECK(epoll_ctl(low, EPOLL_CTL_ADD, a, &ev) == 0);
	ev.data.u64 = 2;
	T_CHECK(epoll_ctl(mid, EPOLL_CTL_ADD, low, &ev) == 0);
	ev.data.u64 = 3;
	T_CHECK(epoll_ctl(top, EPOLL_CTL_ADD, mid, &ev) == 0);
	ev = (struct epoll_event){ EPOLLIN | EPOLLEXCLUSIVE, { .u64 = 4 } };
	T_CHECK(epoll_ctl(top, EPOLL_CTL_ADD, b, &ev) == 0);
	T_CHECK_EQ(write(a, (uint64_t[]){ 1 }, 8), 8);
	fake_add(f, top), fake_add(f, mid), fake_add(f, low), fake_add(f, a), fake_add(f, b);
	fake_move(f);
	T_CHECK_EQ(epoll_wait(top, got, 4, 0), 1);
	T_CHECK_EQ(got[0].data.u64, 3);
	T_CHECK(epoll_wait(mid, got, 4, 0) == 1 && got[0].data.u64 == 2);
	T_CHECK(epoll_wait(low, got, 4, 0) == 1 && got[0].data.u64 == 1);
	read8(a);
	T_CHECK_EQ(epoll_wait(top, got, 4, 0), 0);
	T_CHECK_EQ(write(b, (uint64_t[]){ 1 }, 8), 8);
	T_CHECK(epoll_wait(top, got, 4, 0) == 1 && got[0].data.u64 == 4);
	T_CHECK(epoll_ctl(top, EPOLL_CTL_MOD, b, &ev) < 0 && errno == EINVAL); /* as it is exclusive */
	close(top), close(mid), close(low), close(a), close(b);
	fake_free(f);
}

static void test_epoll_refusals(void)
{
	struct fake *f;
	struct epoll_event ev = { EPOLLIN, { .u64 = 1 } };
	int ep, a, b, other;
	struct err e = { 0 };

	/* the number was closed, a copy of the file lives on where nobody has the epoll */
	f = fake_new();
	ep = epoll_create1(EPOLL_CLOEXEC);
	a = eventfd(0, EFD_CLOEXEC);
	T_CHECK(epoll_ctl(ep, EPOLL_CTL_ADD, a, &ev) == 0);
	b = dup(a);
	other = eventfd(0, EFD_CLOEXEC);
	T_CHECK(dup2(other, a) == a);
	fake_add(f, ep), fake_add(f, a), fake_add(f, other);
	T_FAILS(fake_dump_undo(f, &e), -EOPNOTSUPP);
	T_CHECK_HAS(e.msg, "no process");
	close(ep), close(a), close(b), close(other);
	fake_free(f);
}

static void refused(struct fake *f, int fd, const char *words)
{
	struct err e = { 0 };

	T_REQUIRE(fd >= 0);
	T_FAILS(fake_check(f, fd, &e), -EOPNOTSUPP);
	T_CHECK_HAS(e.msg, words);
	close(fd);
}

static void test_refusals(void)
{
	struct fake *f = fake_new();
	char params[256] = { 0 };
	int ring = (int)syscall(SYS_io_uring_setup, 4, params), ends;
	struct stat st;

	refused(f, inotify_init1(IN_CLOEXEC), "inotify");
	refused(f, (int)syscall(SYS_pidfd_open, getpid(), 0), "pidfd");
	refused(f, socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0), "IPv4 datagram (UDP)");
	refused(f, socket(AF_INET6, SOCK_DGRAM, 0), "IPv6 datagram (UDP)");
	refused(f, socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, 0), "netlink");
	T_REQUIRE(mkfifo(t_path("fifo"), 0600) == 0 && link(t_path("fifo"), t_path("fifo2")) == 0);
	ends = open(t_path("fifo"), O_RDONLY | O_NONBLOCK | O_CLOEXEC);
	T_REQUIRE(unlink(t_path("fifo")) == 0);
	refused(f, ends, "has other links");
	ends = open(t_path("fifo2"), O_RDONLY | O_NONBLOCK | O_CLOEXEC);
	T_REQUIRE(link(t_path("fifo2"), t_path("fifo")) == 0 && fstat(ends, &st) == 0);
	fake_private(f, st.st_dev);
	refused(f, ends, "several links");
	refused(f, (int)syscall(SYS_userfaultfd, O_CLOEXEC | 1), "userfaultfd");
	if (access("/dev/kmsg", R_OK) == 0)
		refused(f, open("/dev/kmsg", O_RDONLY | O_CLOEXEC), "character device 1:11");
	if (ring >= 0)
		refused(f, ring, "io_uring");
	fake_free(f);
}

static const struct test_case cases[] = {
	{ "eventfd", test_eventfd },
	{ "signalfd", test_signalfd },
	{ "timerfd", test_timerfd },
	{ "epoll", test_epoll },
	{ "epoll_edges", test_epoll_edges },
	{ "epoll_numbers", test_epoll_numbers },
	{ "epoll_many", test_epoll_many },
	{ "epoll_nested", test_epoll_nested },
	{ "epoll_refusals", test_epoll_refusals },
	{ "refusals", test_refusals },
};
const struct test_suite kind_event_suite = { "kind_event", cases, ARRAY_SIZE(cases) };
