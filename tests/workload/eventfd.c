/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * eventfd: counters that keep a value, as semaphore, nearly full with a writer that is blocked, a
 * reader that is blocked, shared with a child, by dup, with flags.
 */
#include "wl.h"

#include <poll.h>
#include <pthread.h>
#include <sys/eventfd.h>

static struct shared {
	_Atomic int stop;
	_Atomic uint64_t added, taken;
} *sh;

static int counter, sem, full, empty, both, flags_fd, dup_fd;
static _Atomic uint64_t woken, unblocked, allowed = 1;

static void put(int fd, uint64_t v)
{
	WL_EQ("eventfd write", 8, WL_SYS(write(fd, &v, 8)));
}

static uint64_t take(int fd)
{
	uint64_t v = 0;

	WL_EQ("eventfd read", 8, WL_SYS(read(fd, &v, 8)));
	return v;
}

/* Takes what the parent adds to the shared one. */
static int child(void *arg)
{
	(void)arg;
	for (;;) {
		uint64_t v = take(both);

		sh->taken += v & 0xffffffff;
		if (v >> 40)
			return 15;
	}
}

static void *blocked_reader(void *arg)
{
	(void)arg;
	for (;;) {
		uint64_t v = take(empty);

		woken += v & 0xffff;
		if (v >> 40)
			return NULL;
	}
}

/* The counter is at its maximum minus one: each write waits until somebody reads. */
static void *blocked_writer(void *arg)
{
	(void)arg;
	for (;;) {
		WL_AWAIT(allowed > unblocked, "leave to write");
		put(full, 2);
		unblocked++;
	}
	return NULL;
}

int main(void)
{
	uint64_t round = 0, rung = 0, value = 4711;
	pthread_t th[2];
	pid_t pid;

	wl_init();
	sh = wl_shared(sizeof(*sh));
	counter = (int)WL_SYS(eventfd(0, EFD_CLOEXEC));
	sem = (int)WL_SYS(eventfd(5, EFD_SEMAPHORE | EFD_NONBLOCK));
	full = (int)WL_SYS(eventfd(0, 0));
	empty = (int)WL_SYS(eventfd(0, 0));
	both = (int)WL_SYS(eventfd(0, EFD_CLOEXEC));
	flags_fd = (int)WL_SYS(eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC));
	dup_fd = (int)WL_SYS(dup(counter));
	put(full, UINT64_MAX - 1);
	put(counter, value);
	pid = wl_spawn(child, NULL);
	WL_ZERO(pthread_create(&th[0], NULL, blocked_reader, NULL));
	WL_ZERO(pthread_create(&th[1], NULL, blocked_writer, NULL));
	wl_ready();
	while (!wl_stopping()) {
		struct pollfd p = { .fd = flags_fd, .events = POLLIN | POLLOUT };
		uint64_t v;

		/* the value stays in the counter over the pause */
		put(round % 2 ? counter : dup_fd, round);
		wl_pace();
		WL_EQ("counter", value + round, take(round % 3 ? counter : dup_fd));
		value = round * 77;
		put(counter, value ? value : 1);
		value = value ? value : 1;
		/* semaphore: between 5 and 6 */
		put(sem, 1);
		WL_EQ("semaphore", 1, take(sem));
		errno = 0;
		WL_EQ("empty eventfd", -1, read(flags_fd, &v, 8));
		WL_EQ("errno", EAGAIN, errno);
		WL_SYS(poll(&p, 1, 0));
		WL_EQ("events", POLLOUT, p.revents);
		WL_EQ("flags", O_RDWR | O_NONBLOCK, WL_SYS(fcntl(flags_fd, F_GETFL)));
		WL_EQ("flags", O_RDWR, WL_SYS(fcntl(counter, F_GETFL)));
		WL_EQ("close-on-exec", FD_CLOEXEC, WL_SYS(fcntl(counter, F_GETFD)));
		WL_EQ("close-on-exec of a dup", 0, WL_SYS(fcntl(dup_fd, F_GETFD)));
		put(both, 3);
		sh->added += 3;
		put(empty, 1);
		rung++;
		if (round % 16 == 0) {
			uint64_t was = unblocked;

			WL_AWAIT(woken == rung, "the reader");
			WL_AWAIT(sh->taken == sh->added, "the child");
			WL_EQ("writes to a full counter", was, unblocked);
			WL_CHECK(take(full) == UINT64_MAX - 1, "full counter: expected its maximum");
			WL_AWAIT(unblocked == was + 1, "the writer");
			put(full, UINT64_MAX - 3);
			allowed++;
		}
		round++;
	}
	put(both, 1ull << 40);
	wl_reap(pid, 15);
	WL_EQ("taken by the child", sh->added, sh->taken);
	put(empty, 1ull << 40);
	WL_ZERO(pthread_join(th[0], NULL));
	WL_EQ("woken", rung, woken);
	WL_EQ("counter at the end", value, take(counter));
	wl_ok();
}
