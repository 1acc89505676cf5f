/* SPDX-License-Identifier: GPL-3.0-or-later */
/* The two ends of a connection of the pod's, as an application has them, and what goes over it. */
#ifndef TESTS_NET_ENDS_H
#define TESTS_NET_ENDS_H

#include <errno.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "netfreeze/tcp_int.h"
#include "pod/base/io.h"
#include "tests/harness.h"
#include "tests/net/world.h"

/* A connection between pod (*@p) and peer (*@q). */
static inline void pair(struct world *w, uint16_t port, int *p, int *q)
{
	int l = world_listen(w->at->ns, POD_IP, port, 8);

	*q = world_connect(w->peer, POD_IP, port);
	*p = world_accept(l);
	close(l);
}

static inline int tcp_state_of(int fd)
{
	struct tcp_info ti = {0};
	socklen_t len = sizeof(ti);

	T_REQUIRE(getsockopt(fd, IPPROTO_TCP, TCP_INFO, &ti, &len) == 0);
	return ti.tcpi_state;
}

static inline void wait_state(int fd, int want)
{
	uint64_t end = deadline_ms(60000);

	while (tcp_state_of(fd) != want)
		T_REQUIRE(now_ns() < end);
}

/* Reads exactly @n bytes of the sequence that begins at *@at, or to the end if @n < 0; returns
 * their number. */
static inline long expect(int fd, uint32_t *at, long n)
{
	uint8_t buf[16384];
	long got = 0;

	while (n < 0 || got < n) {
		struct pollfd p = {.fd = fd, .events = POLLIN};
		ssize_t k, i;

		if (poll(&p, 1, 3000) != 1) {
			T_FAIL("%ld bytes of %ld came", got, n);
			break;
		}
		k = recv(fd, buf, n < 0 ? sizeof(buf) : (size_t)MIN(n - got, (long)sizeof(buf)),
			 MSG_DONTWAIT);
		if (k < 0)
			T_FAIL("recv: %s", strerror(errno));
		if (k <= 0)
			break;
		for (i = 0; i < k; i++)
			if (buf[i] != (uint8_t)((*at + i) * 31 >> 3))
				T_FATAL("wrong byte at %u", *at + (uint32_t)i);
		*at += (uint32_t)k;
		got += k;
	}
	return got;
}

/* Sends up to @n bytes of the same sequence without waiting; returns their number. */
static inline long offer(int fd, uint32_t *at, long n)
{
	uint8_t buf[16384];
	long sent = 0;

	while (sent < n) {
		ssize_t k, i, len = MIN(n - sent, (long)sizeof(buf));

		for (i = 0; i < len; i++)
			buf[i] = (uint8_t)((*at + i) * 31 >> 3);
		k = send(fd, buf, (size_t)len, MSG_DONTWAIT | MSG_NOSIGNAL);
		if (k < 0 && errno == EAGAIN)
			break;
		T_REQUIRE(k > 0);
		*at += (uint32_t)k;
		sent += k;
	}
	return sent;
}

static inline void move(struct world *w, const int *fds, unsigned n)
{
	struct move_times t;

	world_move(w, fds, n, &(struct move_opts){0}, &t, NULL, NULL);
}

static inline double ms_since(uint64_t t)
{
	return (double)(now_ns() - t) / 1e6;
}

#endif
