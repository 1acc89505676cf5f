/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * What the checking clients share: time, the stop flag, a reproducible byte stream, connecting, and
 * the summary. A client prints "ready" when its connections stand and have answered once, checks
 * every byte until it is told to stop (SIGTERM, SIGINT, -t SECONDS or -n REQUESTS), and ends with
 * one line of JSON. Its exit code is 0 only if there was traffic and no error.
 */
#ifndef TESTS_CLIENT_H
#define TESTS_CLIENT_H

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <netdb.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define SEC 1000000000ull
#define MSEC 1000000ull

/** How long an answer may stay out before that is an error. */
#define ANSWER_NS (30 * SEC)

static volatile sig_atomic_t cl_stop;

static inline void cl_on_stop(int sig)
{
	(void)sig;
	cl_stop = 1;
}

static inline void cl_init(void)
{
	struct sigaction sa = {.sa_handler = cl_on_stop};

	sigaction(SIGTERM, &sa, NULL);
	sigaction(SIGINT, &sa, NULL);
	signal(SIGPIPE, SIG_IGN);
	setvbuf(stdout, NULL, _IOLBF, 0);
}

static inline uint64_t cl_now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * SEC + (uint64_t)t.tv_nsec;
}

/** splitmix64: the n-th word depends on the seed alone. */
static inline uint64_t cl_next(uint64_t *state)
{
	uint64_t z = (*state += 0x9e3779b97f4a7c15ull);

	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
	return z ^ (z >> 31);
}

static inline uint64_t cl_seed(void)
{
	uint64_t s;

	if (getrandom(&s, sizeof(s), 0) != (ssize_t)sizeof(s))
		s = cl_now();
	return s;
}

static inline void __attribute__((noreturn, format(printf, 1, 2))) cl_die(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
	fputc('\n', stderr);
	exit(2);
}

static inline struct sockaddr_in cl_addr(const char *host, const char *port)
{
	struct addrinfo hints = {.ai_family = AF_INET, .ai_socktype = SOCK_STREAM}, *ai;
	struct sockaddr_in sa;
	int rc = getaddrinfo(host, port, &hints, &ai);

	if (rc)
		cl_die("%s:%s: %s", host, port, gai_strerror(rc));
	memcpy(&sa, ai->ai_addr, sizeof(sa));
	freeaddrinfo(ai);
	return sa;
}

static inline int cl_socket(void)
{
	int one = 1, fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

	if (fd < 0)
		cl_die("socket: %s", strerror(errno));
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	return fd;
}

/** A connection that stands, non-blocking; tries again while it is refused, for at most @wait_s. */
static inline int cl_connect(const struct sockaddr_in *sa, int wait_s)
{
	uint64_t end = cl_now() + (uint64_t)wait_s * SEC;
	struct timespec tick = {0, 20000000};
	socklen_t len = sizeof(int);
	int fd, err;

	for (;;) {
		struct pollfd p = {.events = POLLOUT};

		fd = cl_socket();
		p.fd = fd;
		err = connect(fd, (const struct sockaddr *)sa, sizeof(*sa)) < 0 ? errno : 0;
		if (err == EINPROGRESS && poll(&p, 1, wait_s * 1000) == 1)
			getsockopt(fd, SOL_SOCKET, SO_ERROR, &err, &len);
		if (!err)
			return fd;
		close(fd);
		if (err != ECONNREFUSED || cl_now() > end || cl_stop)
			cl_die("connect: %s", strerror(err));
		nanosleep(&tick, NULL);
	}
}

#endif
