/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Int options of sockets. */
#ifndef TESTS_WORKLOAD_WL_SOCK_H
#define TESTS_WORKLOAD_WL_SOCK_H

#include <sys/socket.h>

#include "wl.h"

static inline int set(int fd, int level, int opt, int v)
{
	WL_SYS(setsockopt(fd, level, opt, &v, sizeof(v)));
	return fd;
}

static inline int get(int fd, int level, int opt)
{
	socklen_t len = sizeof(int);
	int v = -1;

	WL_SYS(getsockopt(fd, level, opt, &v, &len));
	return v;
}

#endif
