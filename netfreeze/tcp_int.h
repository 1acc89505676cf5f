/* SPDX-License-Identifier: GPL-3.0-or-later */
/* What tcp.c and tcp_opts.c share; nobody else includes it. */
#ifndef NETFREEZE_TCP_INT_H
#define NETFREEZE_TCP_INT_H

#include "netfreeze/inet.h"
#include "netfreeze/netfreeze.h"
#include "netfreeze/sockopt.h"

/* what may be set as TCP_MAXSEG */
#define TCP_MSS_LEAST 88
#define TCP_MSS_MOST  32767

/** Options of @fd that are not at the kernel's constant default, into @s->opt[]. Before repair
 * mode. */
int tcp_opts_save(int fd, struct tcp_state *s, struct err *e);
/** Sets those of @s that belong to @when. A name that is not in the table is refused: an image is
 * hostile. */
int tcp_opts_restore(int fd, const struct tcp_state *s, enum opt_when when, struct err *e);
/** The value of a carried int option, or @dfl. */
int tcp_opts_get(const struct tcp_state *s, int level, int name, int dfl);

/** Adds an int to the carried options: a note (OPT_NOTE), or one that was asked otherwise. */
void tcp_opts_note(struct tcp_state *s, int level, int name, int v);
/** Sets one carried int option again, if it was carried; errors do not matter. */
void tcp_opts_set(int fd, const struct tcp_state *s, int level, int name);
#define FORGE_ACK 0x10
#define FORGE_FIN 0x11
#define FORGE_RST 0x14
/** Lets a segment {@seq, @ack, @flags} from @s's peer arrive at its local end, over lo of @netns.
 */
int forge_deliver(int netns, const struct tcp_state *s, uint32_t seq, uint32_t ack, uint8_t flags,
		  struct err *e);

/** The name as bind(2) or connect(2) want it; its length. */
socklen_t tcp_name_of(const struct tcp_state *s, bool peer, union inet_name *out);
/** Takes over what getsockname(2) has said. */
void tcp_name_set(struct tcp_state *s, bool peer, const union inet_name *n);
/** Do its packets have IPv6 headers? */
static inline bool tcp_is_native6(const struct tcp_state *s)
{
	return s->v6 && !IN6_IS_ADDR_V4MAPPED(&s->local6);
}

/** "10.0.0.1:80" of @a into @buf (>= 24 bytes), for messages. */
const char *tcp_addr(const struct sockaddr_in *a, char *buf);

#endif
