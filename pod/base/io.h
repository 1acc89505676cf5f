/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Blocking I/O with deadlines (deadline.h). EINTR is handled here and nowhere else.
 */
#ifndef POD_BASE_IO_H
#define POD_BASE_IO_H

#include <poll.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <sys/uio.h>

#include "pod/base/deadline.h"
#include "pod/base/err.h"

/** poll(2) until @deadline: more than 0, 0 when that is past, or negative errno. A signal does not end it. */
int io_poll(struct pollfd *fds, size_t n, uint64_t deadline);
/** Waits until @fd is readable (or at EOF). 0, -ETIMEDOUT or another negative errno. */
int io_wait_readable(int fd, uint64_t deadline, struct err *e);
/** The same until it takes data. */
int io_wait_writable(int fd, uint64_t deadline, struct err *e);
/** Reads exactly @len bytes. 0; -EPIPE at an early end; -ETIMEDOUT; other negative errno. */
int io_read_full(int fd, void *buf, size_t len, uint64_t deadline, struct err *e);
/** Writes exactly @len bytes (no SIGPIPE on sockets). 0 or negative errno as above. */
int io_write_full(int fd, const void *buf, size_t len, uint64_t deadline, struct err *e);
/** The same from a vector, which is modified. */
int io_writev_full(int fd, struct iovec *iov, int n, uint64_t deadline, struct err *e);
/**
 * Reads a whole small file (procfs included) into a fresh NUL-terminated buffer.
 * *@out is the caller's to free, *@len may be NULL. Refuses more than @max bytes with -EFBIG.
 */
int io_read_file(const char *path, size_t max, char **out, size_t *len, struct err *e);
/** The same with the path relative to @dirfd. */
int io_read_file_at(int dirfd, const char *path, size_t max, char **out, size_t *len,
		    struct err *e);
/** Writes a small string to an existing file (procfs, cgroupfs) in one write(2). */
int io_write_file(const char *path, const char *text, struct err *e);
/** Writes @path whole or not at all: aside, fsync, rename, fsync of the directory. */
int io_replace_file(const char *path, const void *data, size_t len, mode_t mode, struct err *e);

/** Sends @n fds (<= 250) with one byte of data over unix socket @sock. */
int io_send_fds(int sock, const int *fds, size_t n, struct err *e);
/** Receives exactly @n fds, all O_CLOEXEC. On failure none is left open. */
int io_recv_fds(int sock, int *fds, size_t n, uint64_t deadline, struct err *e);

#endif
