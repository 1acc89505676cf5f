/* SPDX-License-Identifier: GPL-3.0-or-later */
/* What udp.c and udp_restore.c share, with raw.c; nobody else includes it. */
#ifndef NETFREEZE_UDP_INT_H
#define NETFREEZE_UDP_INT_H

#include "netfreeze/inet.h"
#include "netfreeze/sockopt.h"

#define UDP_DATA_MAX 65527 /* over IPv6; 20 less over IPv4 */
#define UDP_QUEUE_MAX 65536 /* datagrams in one queue */
#define UDP_GROUP_MAX 256   /* memberships of one socket */

/** The socket options that travel. */
extern const struct opt_table udp_opts, raw_opts;

/** "10.0.0.1:80" of @a into @buf (>= 24 bytes), for messages. */
const char *udp_addr(const struct sockaddr_in *a, char *buf);

/** Parts of udp_save(): options of that table; memberships; flags, sizes and shutdown; one more datagram of a queue; what it
 * says beside its data (@part: bytes of one, if many came as one). */
int udp_read_options(int fd, const struct opt_table *, struct udp_state *, struct err *e);
int udp_read_groups(int fd, int netns, struct udp_state *, struct err *e);
void udp_read_common(int fd, struct udp_state *);
int udp_add_dgram(struct udp_state *, const struct udp_dgram *, const void *data, size_t len, struct err *e);
void udp_read_control(struct msghdr *, struct udp_dgram *, size_t *part);

/** Parts of udp_restore_on(). */
int udp_join(int fd, const struct udp_group *, struct err *e);
/** After names: shutdown and O_NONBLOCK. */
int udp_set_common(int fd, const struct udp_state *, struct err *e);
/** Bytes of memory in the receive queue; waits until it is not @before any more. */
uint32_t udp_queued_memory(int fd);
int udp_await_arrival(int fd, uint32_t before, unsigned looks, struct err *e);
#define UDP_LOOKS 5000 /* several seconds */
/** What the kernel would not check of an image's state; @longest: of a datagram. */
int udp_validate(const struct udp_state *, size_t longest, struct err *e);

#endif
