/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Tables of socket options that travel; for TCP and UDP, and the kinds of other sockets. */
#ifndef NETFREEZE_SOCKOPT_H
#define NETFREEZE_SOCKOPT_H

#include "netfreeze/netfreeze.h"
#include "pod/base/kernel.h"

/* When a carried option is set on the new socket. */
enum opt_when {
	OPT_EARLY,   /* before bind and connect */
	OPT_BIND,    /* UDP: before bind, but after the queue has been filled */
	OPT_LATE,    /* when the queues are there; TCP: still in repair mode */
	OPT_NOTE,    /* never: something about the socket that travels in the form of an option */
	OPT_RELEASE, /* when repair mode is off: leaving it, or sending, would spoil them; when all
			sockets exist */
};

/* in which states an option is read and set */
#define IN_CLOSE  1
#define IN_LISTEN 2
#define IN_CONN   4
#define IN_ALL    7
#define IN_RAW    8 /* of datagram sockets: of SOCK_RAW alone */

#define ALWAYS INT32_MIN /* there is no constant default */

struct opt_row {
	const char *text;
	int level, name;
	uint8_t len; /* of an int, or of what is stored with an all-zero default */
	uint8_t when, states;
	int32_t dfl;
};

struct opt_table {
	const struct opt_row *rows;
	size_t n;
	int states; /* of the socket: one of IN_* */
};

#define INT_OPT(lv, nm, when, states, dfl)                                                         \
	{                                                                                          \
#nm, lv, nm, sizeof(int), when, states, dfl                                        \
	}
#define RAW_OPT(lv, nm, len, when, states)                                                         \
	{                                                                                          \
#nm, lv, nm, len, when, states, 0                                                  \
	}

/** Reads what @o says from @fd: 1 *@out is to be carried, 0 it is not (its default, a note, not in
 * this kernel), or negative errno. */
int sockopt_read(int fd, const struct opt_row *o, struct sock_opt *out, struct err *e);
/** Sets those of @opt[@n] that belong to @when. A name that is not in the table is refused: an image
 * is hostile. */
int sockopt_apply(int fd, const struct opt_table *, const struct sock_opt *opt, unsigned n,
		  enum opt_when when, struct err *e);
/** Are packets of @fd sent at times that the program gives (SO_TXTIME)? By CLOCK_REALTIME and without flags is not seen. */
bool sockopt_has_txtime(int fd);
/** Sets an int option; @text is its name. */
int sockopt_set(int fd, int level, int name, int v, const char *text, struct err *e);
#define SOCK_BUF_MAX (1u << 30)
/** Sizes of both buffers as getsockopt(2) shows them, at most SOCK_BUF_MAX: the kernel doubles what it is given. */
int sockopt_set_buffers(int fd, uint64_t snd, uint64_t rcv, struct err *e);
/** The value of a carried int option, or @dfl. */
int sockopt_int(const struct sock_opt *opt, unsigned n, int level, int name, int dfl);

#endif
