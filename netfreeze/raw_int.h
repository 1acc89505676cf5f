/* SPDX-License-Identifier: GPL-3.0-or-later */
/* What raw.c and raw_fill.c share; nobody else includes it. */
#ifndef NETFREEZE_RAW_INT_H
#define NETFREEZE_RAW_INT_H

#include "netfreeze/udp_int.h"

#define RAW_PACKET_MAX 65535

/** Shielded by raw_shield(), @fd takes the next packet of ours, of which it keeps @len bytes. */
int raw_open_for(int fd, uint32_t len, struct err *e);

/** Sockets that packets for others' queues go out by. */
struct raw_via {
	int fd;
	unsigned looks; /* at a queue, until a packet is in it: UDP_LOOKS, or less */
};
int raw_via_open(int netns, struct raw_via *, struct err *e);
void raw_via_close(struct raw_via *);

/** Puts @d into the queue of @fd, which has room and whose names let it pass. */
int raw_inject(const struct raw_via *, int fd, int type, const struct udp_dgram *d, struct err *e);
/** Can @d be put into a queue, as it is? */
int raw_check_packet(int type, const struct udp_dgram *d, struct err *e);

#endif
