/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Unix stream sockets: listen, connect, who is there. */
#ifndef LINK_UNIX_H
#define LINK_UNIX_H

#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>
#include <sys/types.h>
#include <sys/un.h>

#include "pod/base/err.h"

/** Fills @sa from a path, or from an abstract name when it begins with '@'. Its length or -ENAMETOOLONG. */
int unix_address(const char *path, struct sockaddr_un *sa, socklen_t *len, struct err *e);
/** Listens at @path with file mode @mode, in place of a dead socket of that name; its directory is
 * made. -EADDRINUSE when somebody listens there. A non-blocking O_CLOEXEC fd. */
int unix_listen(const char *path, mode_t mode, struct err *e);
/** Connects within the deadline. A blocking O_CLOEXEC fd. */
int unix_connect(const char *path, uint64_t deadline, struct err *e);
/** SO_PEERCRED. */
int unix_peer(int fd, struct ucred *out, struct err *e);
/** mkdir -p. */
int make_dirs(const char *path, mode_t mode, struct err *e);

#endif
