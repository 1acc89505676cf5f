/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * A framed connection on libevent. A message is checked against the table of its hop before the
 * owner sees it; a connection that says something else is closed. Sending tries the socket at once,
 * so that a commit does not wait for a turn of the loop; what does not fit is queued.
 */
#ifndef LINK_CONN_H
#define LINK_CONN_H

#include <event2/event.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "agent/link/frame.h"
#include "agent/link/message.h"
#include "pod/base/err.h"

struct conn;

struct conn_ops {
	/** @env is borrowed. The callee may conn_free(@c). */
	void (*message)(struct conn *c, const Pm__Envelope *env, void *arg);
	/** The connection ended (@e->code 0: properly). The owner must conn_free() it, now or later. */
	void (*closed)(struct conn *c, const struct err *e, void *arg);
	/** What was queued has left; may be NULL. */
	void (*drained)(struct conn *c, void *arg);
};

/** Takes @fd over, on failure too. NULL without memory. */
struct conn *conn_new(struct event_base *base, int fd, enum link_hop in, const struct conn_ops *ops,
		      void *arg);
/** No callback comes after it. NULL is fine. */
void conn_free(struct conn *c);
/** Frees it when all that is queued has been sent, or after 5 s; no callback comes after this. */
void conn_finish(struct conn *c);
/** Other owner, other table. */
void conn_set(struct conn *c, enum link_hop in, const struct conn_ops *ops, void *arg);
int conn_fd(const struct conn *c);
/** Nothing is sent on a closed connection. 0 or negative errno. */
int conn_send(struct conn *c, const Pm__Envelope *env);
/** The frame that the message callback is looking at, for relays. */
void conn_current(const struct conn *c, const uint8_t **frame, size_t *len);
int conn_send_frame(struct conn *c, const uint8_t *frame, size_t len);
/** Stop or go on with reading (the other side of a relay is slow). */
void conn_read_enable(struct conn *c, bool on);
/** The peer's process is dead: takes what it has still sent, then ends as if it had closed (another
 * process may hold its socket open). */
void conn_drain(struct conn *c);
/** Bytes waiting to be sent. */
size_t conn_queued(const struct conn *c);

#endif
