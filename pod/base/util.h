/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Small things every room uses: sizes, cleanup attributes, ownership of fds.
 */
#ifndef POD_BASE_UTIL_H
#define POD_BASE_UTIL_H

#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <unistd.h>

#define ARRAY_SIZE(a) (sizeof(a) / sizeof((a)[0]))
#define MIN(a, b) ((a) < (b) ? (a) : (b))
#define MAX(a, b) ((a) > (b) ? (a) : (b))
#define ALIGN_UP(x, a) (((x) + (a)-1) & ~((a)-1))
#define ALIGN_DOWN(x, a) ((x) & ~((a)-1))

static inline void close_fdp(int *fd)
{
	if (*fd >= 0)
		close(*fd);
	*fd = -1;
}

static inline void free_ptrp(void *p)
{
	free(*(void **)p);
	*(void **)p = NULL;
}

/** Closes the fd when the variable leaves its scope; start it at -1. */
#define autoclose __attribute__((cleanup(close_fdp)))
/** Frees the pointer when the variable leaves its scope; start it at NULL. */
#define autofree __attribute__((cleanup(free_ptrp)))

/** Hands the fd in @fd to the caller: an autoclose variable no longer owns it. */
static inline int take_fd(int *fd)
{
	int r = *fd;

	*fd = -1;
	return r;
}

/** Hands the pointer at @p to the caller: an autofree variable no longer owns it. */
static inline void *take_ptr(void *p)
{
	void *r = *(void **)p;

	*(void **)p = NULL;
	return r;
}

#endif
