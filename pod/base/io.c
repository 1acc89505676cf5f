/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "pod/base/io.h"

#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <limits.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include "pod/base/util.h"

#define MAX_FDS 250
#define SLICE_MS 100 /* of a wait, by which a standstill is noticed */

int io_poll(struct pollfd *fds, size_t n, uint64_t deadline)
{
	for (;;) {
		int left = deadline_left_ms(deadline), ms = left < 0 ? left : MIN(left, SLICE_MS), r;
		uint64_t from = now_ns(), took;

		r = poll(fds, n, ms);
		took = now_ns() - from;
		if (ms >= 0)
			deadline_waited((uint64_t)ms * NSEC_PER_MSEC, took);
		if (r > 0)
			return r;
		if (r < 0 && errno != EINTR)
			return -errno;
		if (deadline_past(deadline))
			return 0;
	}
}

static int wait_for(int fd, short events, uint64_t deadline, struct err *e)
{
	struct pollfd p = { .fd = fd, .events = events };
	int n;

	if (fd < 0) /* poll() would wait for nothing */
		return err_num(e, EBADF, "wait for fd %d", fd);
	n = io_poll(&p, 1, deadline);
	return n > 0 ? 0 : err_num(e, n == 0 ? ETIMEDOUT : -n, "wait for fd %d", fd);
}

int io_wait_readable(int fd, uint64_t deadline, struct err *e)
{
	return wait_for(fd, POLLIN, deadline, e);
}

int io_wait_writable(int fd, uint64_t deadline, struct err *e)
{
	return wait_for(fd, POLLOUT, deadline, e);
}

int io_read_full(int fd, void *buf, size_t len, uint64_t deadline, struct err *e)
{
	char *p = buf;

	while (len) {
		ssize_t n;

		if (deadline != IO_FOREVER) {
			int r = wait_for(fd, POLLIN, deadline, e);

			if (r < 0)
				return r;
		}
		n = read(fd, p, len);
		if (n > 0) {
			p += n;
			len -= (size_t)n;
		} else if (n == 0) {
			return err_set(e, EPIPE, "the other end closed the connection");
		} else if (errno == EAGAIN) {
			int r = wait_for(fd, POLLIN, deadline, e);

			if (r < 0)
				return r;
		} else if (errno != EINTR) {
			return err_sys(e, "read");
		}
	}
	return 0;
}

static ssize_t write_some(int fd, const struct iovec *iov, int n)
{
	struct msghdr mh = { .msg_iov = (struct iovec *)(uintptr_t)iov, .msg_iovlen = (size_t)n };
	ssize_t r = sendmsg(fd, &mh, MSG_NOSIGNAL);

	return r < 0 && errno == ENOTSOCK ? writev(fd, iov, n) : r;
}

int io_writev_full(int fd, struct iovec *iov, int n, uint64_t deadline, struct err *e)
{
	while (n) {
		ssize_t w;

		if (deadline != IO_FOREVER) {
			int r = wait_for(fd, POLLOUT, deadline, e);

			if (r < 0)
				return r;
		}
		w = write_some(fd, iov, MIN(n, IOV_MAX));
		if (w < 0 && errno == EAGAIN) {
			int r = wait_for(fd, POLLOUT, deadline, e);

			if (r < 0)
				return r;
			continue;
		}
		if (w < 0 && errno == EINTR)
			continue;
		if (w < 0)
			return err_sys(e, "write");
		while (n && (size_t)w >= iov->iov_len) {
			w -= (ssize_t)iov->iov_len;
			iov++;
			n--;
		}
		if (n) {
			iov->iov_base = (char *)iov->iov_base + w;
			iov->iov_len -= (size_t)w;
		}
	}
	return 0;
}

int io_write_full(int fd, const void *buf, size_t len, uint64_t deadline, struct err *e)
{
	struct iovec iov = { .iov_base = (void *)(uintptr_t)buf, .iov_len = len };

	return io_writev_full(fd, &iov, 1, deadline, e);
}

int io_read_file_at(int dirfd, const char *path, size_t max, char **out, size_t *len, struct err *e)
{
	autofree char *buf = NULL;
	autoclose int fd = openat(dirfd, path, O_RDONLY | O_CLOEXEC);
	size_t cap = 0, n = 0;

	if (fd < 0)
		return err_sys(e, "open '%s'", path);
	for (;;) {
		ssize_t r;

		if (cap - n < 2048) {
			char *nb = realloc(buf, cap ? cap * 2 : 4096);

			if (!nb)
				return err_num(e, ENOMEM, "read '%s'", path);
			buf = nb;
			cap = cap ? cap * 2 : 4096;
		}
		r = read(fd, buf + n, cap - n - 1);
		if (r < 0 && errno == EINTR)
			continue;
		if (r < 0)
			return err_sys(e, "read '%s'", path);
		if (r == 0)
			break;
		n += (size_t)r;
		if (n > max)
			return err_num(e, EFBIG, "read '%s'", path);
	}
	buf[n] = 0;
	*out = take_ptr(&buf);
	if (len)
		*len = n;
	return 0;
}

int io_read_file(const char *path, size_t max, char **out, size_t *len, struct err *e)
{
	return io_read_file_at(AT_FDCWD, path, max, out, len, e);
}

int io_write_file(const char *path, const char *text, struct err *e)
{
	autoclose int fd = open(path, O_WRONLY | O_CLOEXEC);

	if (fd < 0)
		return err_sys(e, "open '%s'", path);
	if (write(fd, text, strlen(text)) < 0)
		return err_sys(e, "write '%s' to '%s'", text, path);
	return 0;
}

int io_replace_file(const char *path, const void *data, size_t len, mode_t mode, struct err *e)
{
	char tmp[PATH_MAX], dir[PATH_MAX];
	autoclose int fd = -1;
	autoclose int dfd = -1;
	int r;

	if ((size_t)snprintf(tmp, sizeof(tmp), "%s.tmp.%d", path, (int)getpid()) >= sizeof(tmp))
		return err_num(e, ENAMETOOLONG, "'%s'", path);
	snprintf(dir, sizeof(dir), "%s", path);
	fd = open(tmp, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, mode);
	if (fd < 0)
		return err_sys(e, "create '%s'", tmp);
	r = io_write_full(fd, data, len, IO_FOREVER, e);
	if (r < 0) {
		unlink(tmp);
		return err_wrap(e, "'%s'", tmp);
	}
	if (fsync(fd) < 0 || rename(tmp, path) < 0) {
		r = err_sys(e, "replace '%s'", path);
		unlink(tmp);
		return r;
	}
	dfd = open(dirname(dir), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (dfd < 0 || fsync(dfd) < 0)
		return err_sys(e, "sync the directory of '%s'", path);
	return 0;
}

int io_send_fds(int sock, const int *fds, size_t n, struct err *e)
{
	union {
		struct cmsghdr h;
		char buf[CMSG_SPACE(sizeof(int) * MAX_FDS)];
	} c = { 0 };
	char byte = 'F';
	struct iovec iov = { &byte, 1 };
	struct msghdr mh = { .msg_iov = &iov, .msg_iovlen = 1, .msg_control = c.buf };
	struct cmsghdr *h;
	ssize_t r;

	if (n > MAX_FDS)
		return err_num(e, E2BIG, "send %zu fds", n);
	mh.msg_controllen = CMSG_SPACE(sizeof(int) * n);
	h = CMSG_FIRSTHDR(&mh);
	h->cmsg_level = SOL_SOCKET;
	h->cmsg_type = SCM_RIGHTS;
	h->cmsg_len = CMSG_LEN(sizeof(int) * n);
	memcpy(CMSG_DATA(h), fds, sizeof(int) * n);
	do
		r = sendmsg(sock, &mh, MSG_NOSIGNAL);
	while (r < 0 && errno == EINTR);
	return r < 0 ? err_sys(e, "send %zu fds", n) : 0;
}

int io_recv_fds(int sock, int *fds, size_t n, uint64_t deadline, struct err *e)
{
	union {
		struct cmsghdr h;
		char buf[CMSG_SPACE(sizeof(int) * MAX_FDS)];
	} c = { 0 };
	char byte;
	struct iovec iov = { &byte, 1 };
	struct msghdr mh = { .msg_iov = &iov, .msg_iovlen = 1, .msg_control = c.buf,
			     .msg_controllen = sizeof(c.buf) };
	struct cmsghdr *h;
	size_t got, i;
	ssize_t r;
	int w = wait_for(sock, POLLIN, deadline, e);

	if (w < 0)
		return w;
	do
		r = recvmsg(sock, &mh, MSG_CMSG_CLOEXEC);
	while (r < 0 && errno == EINTR);
	if (r < 0)
		return err_sys(e, "receive fds");
	h = CMSG_FIRSTHDR(&mh);
	if (!h || h->cmsg_level != SOL_SOCKET || h->cmsg_type != SCM_RIGHTS)
		return err_set(e, EPROTO, "expected %zu fds, got none", n);
	got = (h->cmsg_len - CMSG_LEN(0)) / sizeof(int);
	if (got != n || (mh.msg_flags & MSG_CTRUNC)) {
		for (i = 0; i < got; i++)
			close(((int *)(void *)CMSG_DATA(h))[i]);
		return err_set(e, EPROTO, "expected %zu fds, got %zu", n, got);
	}
	memcpy(fds, CMSG_DATA(h), sizeof(int) * n);
	return 0;
}
