/* SPDX-License-Identifier: GPL-3.0-or-later */
/* What udp.c and udp_restore.c share; nobody else includes it. */
#ifndef NETFREEZE_UDP_INT_H
#define NETFREEZE_UDP_INT_H

#include "netfreeze/inet.h"
#include "netfreeze/sockopt.h"

#define UDP_DATA_MAX 65527 /* over IPv6; 20 less over IPv4 */
#define UDP_QUEUE_MAX 65536 /* datagrams in one queue */
#define UDP_GROUP_MAX 256   /* memberships of one socket */

/** The socket options that travel. */
extern const struct opt_table udp_opts;

/** "10.0.0.1:80" of @a into @buf (>= 24 bytes), for messages. */
const char *udp_addr(const struct sockaddr_in *a, char *buf);

#endif
