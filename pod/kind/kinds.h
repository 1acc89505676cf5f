/* SPDX-License-Identifier: GPL-3.0-or-later */
/* All kinds, their type numbers in an image, and what the FD kinds share. */
#ifndef POD_KIND_KINDS_H
#define POD_KIND_KINDS_H

#include <mqueue.h>

#include "pod/kind/kind.h"

/* Never reused, never renumbered: they are in images. */
enum {
	TYPE_FILE = 1,
	TYPE_PIPE = 2,
	TYPE_TCP = 3,
	TYPE_UNIX = 4,
	TYPE_EPOLL = 5,
	TYPE_EVENTFD = 6,
	TYPE_SIGNALFD = 7,
	TYPE_TIMERFD = 8,
	TYPE_CHARDEV = 9,
	TYPE_PTY = 10,
	TYPE_CTTY = 11,
	TYPE_INOTIFY = 12,
	TYPE_UDP = 20,
	TYPE_FIFO = 21,
	TYPE_UNIX_DGRAM = 22,
	TYPE_NETLINK = 23,
	TYPE_RAW = 24,
	TYPE_PACKET = 25,
	TYPE_SYSVMSG = 30,
	TYPE_SYSVSEM = 31,
	TYPE_MQUEUE = 32,
	TYPE_MQUEUE_FD = 33,
};

extern const struct kind kind_file, kind_pipe, kind_fifo, kind_tcp, kind_udp, kind_unix, kind_unix_dgram, kind_epoll, kind_eventfd,
	kind_signalfd, kind_timerfd, kind_inotify, kind_chardev, kind_pty, kind_netlink, kind_raw, kind_packet;
/** Scope POD. */
extern const struct kind kind_sysvmsg, kind_sysvsem, kind_mqueue;
extern const struct kind kind_mqueue_fd;
/* What a POSIX message queue says of itself. */
struct mqueue_state {
	uint64_t n, bytes; /* of messages */
	int how, signo;	   /* SIGEV_*, for the process that has registered by mq_notify(2) */
	pid_t owner;	   /* to the engine; 0: nobody */
	struct mq_attr attr;
};
int kind_mqueue_state(int fd, struct mqueue_state *, struct err *e);
/** Scope PROC: a session leader's controlling terminal and its foreground group (pty.c). */
extern const struct kind kind_ctty;

/** To be run with setsid() in a session leader's skeleton, before its session's other processes are born: only by birth do they get
 * its terminal, too. Keeps the terminal's master parked until its object is restored. Nothing for others. */
int kind_ctty_early(struct restore *, const Pm__Proc *proc, struct batch *b, struct err *e);

/** Does a unix socket of the pod listen whose accept queue holds what cannot be made again: data, or a client that has
 * gone? 1 and its inode, or 0. @nl: a NETLINK_SOCK_DIAG socket of the pod's network namespace. */
int kind_unix_unaccepted(int nl, uint64_t *listener, struct err *e);

/** Has a netlink socket of a kind that is carried, in the network namespace of process @pid, messages that nobody has read, or a
 * dump under way? 1 and its inode, or 0. */
int kind_netlink_unread(pid_t pid, uint64_t *inode, struct err *e);

struct proc;
/** Refuses POSIX timers that cannot be carried; else how many the process has. */
int kind_posixtimer_check(const struct proc *, struct err *e);

struct wake;
/** wake_know() of a TCP connection, before held frames are heard; nothing for other objects. */
int kind_tcp_know(const struct robject *, struct wake *, struct err *e);
/** wake_nudge() of a TCP connection, after its release(); nothing for other objects. */
int kind_tcp_nudge(const struct robject *, struct wake *, struct err *e);
/** tcp_settle() of a TCP connection, when no late frames come any more; false for other objects. */
bool kind_tcp_settle(const struct robject *);

/** Names what an object is that no kind takes, and a remedy where there is one. Returns -EOPNOTSUPP. */
int kind_refusal(const struct probe *, char *why, size_t len);

/* ---- common.c */
#define KIND_REFUSE(e, ...) err_set(e, EOPNOTSUPP, __VA_ARGS__)
/** A damaged or hostile record. */
#define KIND_DAMAGED(e, ...) err_set(e, EBADMSG, __VA_ARGS__)

/** The rest of the line of fdinfo that begins with "@key:" (blanks skipped), or NULL. */
const char *kind_info_line(const char *info, const char *key);
/** Number in that line. False if there is no such line. */
bool kind_info_u64(const char *info, const char *key, int base, uint64_t *out);
/** fdinfo of the engine's own @fd, now; the caller frees. */
int kind_info_now(int fd, char **out, struct err *e);
/** What stays behind with any open file: locks, leases, filters of eBPF. Refused by name. */
int kind_check_common(const struct probe *, struct err *);
/** The same for files, whose locks are carried (pod/locks.c): leases but those for reading in a private tree, too many locks. */
#define KIND_MAX_LOCKS 256
int kind_check_leases(struct dump *, const struct probe *, struct err *);
/** Another description of the inode behind the engine's @fd. */
int kind_reopen(int fd, int flags, struct err *e);
bool kind_is_o_path(const struct probe *);
/** Where a file is, in the pod's root. */
struct kind_place {
	char path[PATH_MAX];
	bool removed; /* it has lost this name */
	bool tmpfs;   /* in one of the pod's private trees */
};
int kind_find_place(struct dump *, const struct probe *, struct kind_place *, struct err *);
/** O_PATH of the root of a tmpfs that is mounted nowhere: it goes with its last file. */
int kind_scratch_fs(struct err *);
/** Copies @len bytes into the dump's arena. */
ProtobufCBinaryData kind_bytes(struct dump *, const void *p, size_t len);

/** An int option of SOL_SOCKET, or -1. */
int kind_sock_int(int fd, int name);
struct sock_opt;
/** Options as netfreeze has them into a record (of the dump's arena), and back; at most @max. */
void kind_opts_out(struct dump *, const struct sock_opt *, unsigned n, Pm__SockOpt ***out, size_t *nout);
int kind_opts_in(Pm__SockOpt *const *, size_t n, struct sock_opt *out, size_t max, unsigned *nout, struct err *);

struct udp_state;
/** A datagram socket's state into a record (of the dump's arena), and back; not its queue. dgram.c */
void kind_dgram_out(struct dump *, const struct object *, const struct udp_state *, Pm__BodyUdp *);
int kind_dgram_in(const Pm__BodyUdp *, struct udp_state *, struct err *);
/** Its queue and its groups; the datagrams' bytes stay the record's: the caller frees queue and group alone. */
int kind_dgram_queue_in(const Pm__BodyUdp *, struct udp_state *, struct err *);

/** The classic filter of a socket, of any kind, into *@out (of the dump's arena; left alone if there is none), and back: when nothing
 * that travels with sockets is still to be delivered to it. */
int kind_filter_get(struct dump *, int fd, Pm__SockFilter **out, struct err *);
int kind_filter_set(int fd, const Pm__SockFilter *, struct err *);
/** Will there be one? */
bool kind_filter_comes(const struct robject *);

#endif
