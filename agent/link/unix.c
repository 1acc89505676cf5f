/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "agent/link/unix.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/time.h>

#include "pod/base/io.h"
#include "pod/base/util.h"

int make_dirs(const char *path, mode_t mode, struct err *e)
{
	char buf[PATH_MAX];
	size_t len = strlen(path);

	if (len >= sizeof(buf))
		return err_set(e, ENAMETOOLONG, "path of %zu bytes", len);
	memcpy(buf, path, len + 1);
	for (char *p = buf + 1;; p++) {
		char c = *p;

		if (c != '/' && c != '\0')
			continue;
		*p = '\0';
		if (mkdir(buf, mode) < 0 && errno != EEXIST)
			return err_sys(e, "make directory '%s'", buf);
		if (c == '\0')
			return 0;
		*p = c;
	}
}

int unix_address(const char *path, struct sockaddr_un *sa, socklen_t *len, struct err *e)
{
	size_t n = strlen(path);

	if (n >= sizeof(sa->sun_path))
		return err_set(e, ENAMETOOLONG, "socket path '%s' is longer than %zu bytes", path,
			       sizeof(sa->sun_path) - 1);
	memset(sa, 0, sizeof(*sa));
	sa->sun_family = AF_UNIX;
	memcpy(sa->sun_path, path, n);
	*len = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + n);
	if (path[0] == '@')
		sa->sun_path[0] = '\0';
	else
		++*len;
	return 0;
}

static int connect_fd(int fd, const char *path, uint64_t deadline, struct err *e)
{
	struct sockaddr_un sa;
	struct timeval tv = { 0 };
	socklen_t len;
	int ms, r;

	r = unix_address(path, &sa, &len, e);
	if (r < 0)
		return r;
	ms = deadline_left_ms(deadline);
	if (ms >= 0) {
		/* a full backlog makes a unix connect wait: SO_SNDTIMEO bounds it */
		tv.tv_sec = ms / 1000;
		tv.tv_usec = (ms % 1000) * 1000 + 1;
		if (setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &tv, sizeof(tv)) < 0)
			return err_sys(e, "socket timeout");
	}
	do {
		r = connect(fd, (struct sockaddr *)&sa, len);
	} while (r < 0 && errno == EINTR);
	if (r < 0)
		return err_sys(e, "connect to '%s'", path);
	tv = (struct timeval){ 0 };
	setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &tv, sizeof(tv));
	return 0;
}

int unix_connect(const char *path, uint64_t deadline, struct err *e)
{
	autoclose int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	int r;

	if (fd < 0)
		return err_sys(e, "socket");
	r = connect_fd(fd, path, deadline, e);
	return r < 0 ? r : take_fd(&fd);
}

int unix_listen(const char *path, mode_t mode, struct err *e)
{
	autoclose int fd = -1;
	struct sockaddr_un sa;
	char dir[sizeof(sa.sun_path)], *slash;
	socklen_t len;
	int r;

	r = unix_address(path, &sa, &len, e);
	if (r < 0)
		return r;
	snprintf(dir, sizeof(dir), "%s", path);
	slash = strrchr(dir, '/');
	if (slash && slash != dir) {
		*slash = '\0';
		r = make_dirs(dir, 0755, e);
		if (r < 0)
			return r;
	}
	r = unix_connect(path, deadline_ms(1000), NULL);
	if (r >= 0) {
		close(r);
		return err_num(e, EADDRINUSE, "somebody listens at '%s'", path);
	}
	if (unlink(path) < 0 && errno != ENOENT)
		return err_sys(e, "remove '%s'", path);
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return err_sys(e, "socket");
	if (bind(fd, (struct sockaddr *)&sa, len) < 0)
		return err_sys(e, "bind '%s'", path);
	if (chmod(path, mode) < 0)
		return err_sys(e, "chmod '%s'", path);
	if (listen(fd, 128) < 0)
		return err_sys(e, "listen at '%s'", path);
	return take_fd(&fd);
}

int unix_peer(int fd, struct ucred *out, struct err *e)
{
	socklen_t len = sizeof(*out);

	if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, out, &len) < 0)
		return err_sys(e, "SO_PEERCRED");
	return 0;
}
