/* SPDX-License-Identifier: GPL-3.0-or-later */
/* What the files of the unix kind share. */
#ifndef POD_KIND_UNIX_INT_H
#define POD_KIND_UNIX_INT_H

#include <sys/socket.h>
#include <sys/un.h>

#include "pod/kind/kinds.h"

/* the kernel's names for the states of a stream socket, as sock_diag says them */
enum { UNIX_ESTABLISHED = 1, UNIX_CLOSE = 7, UNIX_LISTEN = 10 };

#define UNIX_PENDING_MAX 1000

/* What the kernel says of one socket. */
struct unix_info {
	uint8_t state, shutdown; /* shutdown: 1 = receive, 2 = send */
	bool has_peer;
	uint32_t peer;	    /* its inode; 0: it has none (closed, or not accepted yet) */
	uint32_t backlog; /* of a listener; else memory of what was sent and not read */
	uint32_t pending[UNIX_PENDING_MAX]; /* a listener's: inodes of the clients that wait */
	size_t npending;
};

/** Asks sock_diag on @nl (NETLINK_SOCK_DIAG in the pod's network namespace) about inode @ino. */
int unix_diag_get(int nl, uint32_t ino, struct unix_info *out, struct err *e);

/** The address @name (as in sun_path; a first byte 0: abstract): its length for bind(2), or negative. */
int unix_addr(const ProtobufCBinaryData *name, struct sockaddr_un *sa, socklen_t *len, struct err *e);

/** Makes a connected pair of stream sockets in @netns. The names may be empty; @listener: fd of a socket that listens
 * under @server_name already and whose queue is empty, or -1. */
int unix_make_pair(int netns, int listener, const ProtobufCBinaryData *server_name,
		   const ProtobufCBinaryData *client_name, int *server, int *client, struct err *e);
/** Binds @fd to @name. A path exists afterwards only for the socket itself: nothing can reach it. */
int unix_bind_unseen(int netns, int fd, const ProtobufCBinaryData *name, struct err *e);
/** Binds @fd in the pod, to @name, so that the node appears at m->path with its mode and owner. */
int unix_bind_in_pod(struct restore *, int fd, const Pm__BodyUnix *m, struct err *e);
/** A leftover of a socket at m->path, as the file that it is. */
int unix_make_node(struct restore *, const Pm__BodyUnix *m, struct err *e);

#endif
