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
#define UNIX_MESSAGES_MAX 65536
#define UNIX_QUEUE_MAX (64u << 20) /* bytes */

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

/** Makes a connected pair of sockets of @type in @netns. The names may be empty; @listener: fd of a socket that listens
 * under @server_name already and whose queue is empty, or -1. */
int unix_make_pair(int netns, int type, int listener, const ProtobufCBinaryData *server_name,
		   const ProtobufCBinaryData *client_name, int *server, int *client, struct err *e);
/** A pair without names, by the process that had made it, if it lives. */
int unix_make_nameless(struct restore *, const Pm__BodyUnix *m, int *mine, int *other, struct err *e);
/** Binds @fd to @name. A path exists afterwards only for the socket itself: nothing can reach it. */
int unix_bind_unseen(int netns, int fd, const ProtobufCBinaryData *name, struct err *e);
/** Binds @fd in the pod, to @name, so that the node appears at m->path with its mode and owner. */
int unix_bind_in_pod(struct restore *, int fd, const Pm__BodyUnix *m, struct err *e);
/** A leftover of a socket at m->path, as the file that it is. */
int unix_make_node(struct restore *, const Pm__BodyUnix *m, struct err *e);

/* ---- unix_props.c */
/** SOCK_*, or -1 if it is no unix socket. */
int unix_type(const struct probe *);
/** check() of the kinds. */
int unix_check(struct dump *, const struct probe *, struct err *);
/** What sock_diag says of @o, into @u; and what all have, into @m: inode, type, owner, names, options. */
int unix_describe(struct dump *, const struct object *o, struct unix_info *u, Pm__BodyUnix *m, struct err *);
/** A name as in sun_path: without a path's closing NUL. */
ProtobufCBinaryData unix_get_name(struct dump *, const struct sockaddr_un *, socklen_t len);
bool unix_same_name(const ProtobufCBinaryData *, const ProtobufCBinaryData *);
/** Path, mode and owner of the node that the socket is bound to, if it can still be reached. */
int unix_get_node(struct dump *, const struct object *, Pm__BodyUnix *, struct err *);
/** SO_PEERCRED, if that is a process of the pod. */
void unix_get_cred(struct dump *, int fd, Pm__BodyUnix *);
int unix_validate(const Pm__BodyUnix *, struct err *);
int unix_set_options(int fd, const Pm__BodyUnix *, struct err *);
int unix_shut(int fd, const Pm__BodyUnix *, struct err *);
/** The object of @o's kind with this inode. */
struct robject *unix_find(struct restore *, const struct robject *o, uint64_t inode);
/** An address by which the engine reaches the socket @fd that has @name, whatever is at the path; *@node: to be closed afterwards. */
int unix_reach(int fd, const ProtobufCBinaryData *name, struct sockaddr_un *sa, socklen_t *len, int *node, struct err *e);

/* ---- unix_queue.c */
/** Peeks into the receive queue: m->data, or m->queue if there are messages, credentials or descriptions in it. */
int unix_queue_read(struct dump *, struct object *, int type, Pm__BodyUnix *m, struct err *);
/** Refuses a queue that cannot be seen whole any more. */
int unix_queue_check(int fd, struct err *);
/** Tells the dump what descriptions are in the queue (struct kind, inside()). */
int unix_inside(struct dump *, struct object *, bool still, struct err *);
/** Sends all of m's queue from @fd, to its peer. */
int unix_queue_fill(struct restore *, int fd, const Pm__BodyUnix *m, struct err *);
/** Sends one message; @sa NULL: to the peer. Room must have been made. */
int unix_queue_send(struct restore *, int fd, const struct sockaddr_un *sa, socklen_t len, const Pm__UnixMsg *, struct err *);
/** Lets @fd send @bytes in @n messages that nobody reads yet; gives back its SO_SNDBUF, or negative. */
int unix_queue_room(int fd, size_t bytes, size_t n, struct err *);
void unix_queue_room_end(int fd, int old);

#endif
