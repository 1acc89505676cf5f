/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Segments that a pod's socket is to take for its peer's. Two uses, both between a socket that we
 * have just made and its own namespace; nothing forged ever leaves the node:
 *
 *   forge_deliver()  over lo, to lead a restored socket into a closing state: the kernel knows no
 *                    other way into CLOSE_WAIT than a FIN that arrives
 *   replay_nudge()   a stale segment after which the kernel says at once what it has received
 * (tcp.c)
 */
#include <arpa/inet.h>
#include <errno.h>
#include <linux/virtio_net.h>
#include <netinet/ip.h>
#include <netinet/ip6.h>
#include <string.h>
#include <sys/socket.h>

#include "netfreeze/tcp_int.h"
#include "pod/base/util.h"

#define SEGMENT_LEN (sizeof(struct iphdr) + sizeof(struct tcphdr))

/* IPv4 and TCP headers, no options, no data, both checksums right. From the peer to the local end.
 */
static void build(uint8_t buf[SEGMENT_LEN], const struct tcp_state *s, uint32_t seq, uint32_t ack,
		  uint8_t flags)
{
	struct iphdr ip = {
		.version = 4,
		.ihl = 5,
		.tot_len = htons(SEGMENT_LEN),
		.frag_off = htons(0x4000),
		.ttl = 64,
		.protocol = IPPROTO_TCP,
		.saddr = s->peer.sin_addr.s_addr,
		.daddr = s->local.sin_addr.s_addr,
	};
	struct tcphdr th = {
		.th_sport = s->peer.sin_port,
		.th_dport = s->local.sin_port,
		.th_seq = htonl(seq),
		.th_ack = htonl(ack),
		.th_off = 5,
		.th_flags = flags,
		.th_win = htons(0xffff),
	};
	uint32_t pseudo = IPPROTO_TCP + sizeof(th);

	pseudo = inet_sum(&ip.saddr, 4, pseudo);
	pseudo = inet_sum(&ip.daddr, 4, pseudo);
	th.th_sum = inet_fold(inet_sum(&th, sizeof(th), pseudo));
	ip.check = inet_fold(inet_sum(&ip, sizeof(ip), 0));
	memcpy(buf, &ip, sizeof(ip));
	memcpy(buf + sizeof(ip), &th, sizeof(th));
}

/* The same over ::1. */
static int deliver6(int netns, const struct tcp_state *s, const void *seg, struct err *e)
{
	struct sockaddr_in6 to = {.sin6_family = AF_INET6, .sin6_addr = s->local6};
	struct {
		struct ip6_hdr ip;
		struct tcphdr th;
	} p = {.ip = {.ip6_src = s->peer6, .ip6_dst = s->local6}};
	autoclose int fd = netns_socket(netns, AF_INET6, SOCK_RAW, IPPROTO_RAW, e);
	uint32_t pseudo = IPPROTO_TCP + sizeof(p.th);

	if (fd < 0)
		return fd;
	p.ip.ip6_vfc = 6 << 4;
	p.ip.ip6_plen = htons(sizeof(p.th));
	p.ip.ip6_nxt = IPPROTO_TCP;
	p.ip.ip6_hlim = 64;
	memcpy(&p.th, (const uint8_t *)seg + sizeof(struct iphdr), sizeof(p.th));
	p.th.th_sum = 0;
	pseudo = inet_sum(&p.ip.ip6_src, 32, pseudo);
	p.th.th_sum = inet_fold(inet_sum(&p.th, sizeof(p.th), pseudo));
	if (sendto(fd, &p, sizeof(p), 0, (struct sockaddr *)&to, sizeof(to)) < 0)
		return err_sys(e, "deliver a segment to ::1");
	return 0;
}

int forge_deliver(int netns, const struct tcp_state *s, uint32_t seq, uint32_t ack, uint8_t flags,
		  struct err *e)
{
	struct sockaddr_in to = {.sin_family = AF_INET, .sin_addr = s->local.sin_addr};
	autoclose int fd = -1;
	uint8_t seg[SEGMENT_LEN];

	build(seg, s, seq, ack, flags);
	if (tcp_is_native6(s))
		return deliver6(netns, s, seg, e);
	fd = netns_socket(netns, AF_INET, SOCK_RAW, IPPROTO_RAW, e);
	if (fd < 0)
		return fd;
	/* to a local address, so by way of lo, which the filter lets pass */
	if (sendto(fd, seg, sizeof(seg), 0, (struct sockaddr *)&to, sizeof(to)) < 0)
		return err_sys(e, "deliver a segment to %s", inet_ntoa(to.sin_addr));
	return 0;
}

/**
 * replay_nudge - make the pod's kernel acknowledge what connection @s has received
 *
 * A segment from before the window (a keepalive probe, in effect) is put before the pod by the
 * replay socket @fd; TCP answers it with an acknowledgement to the real peer. After tcp_release(),
 * when the host end is on the bridge. Does nothing in states that have no peer.
 */
int replay_nudge(int fd, const uint8_t mac[6], const struct tcp_state *s, struct err *e)
{
	struct virtio_net_hdr vh = {0};
	uint8_t frame[sizeof(vh) + 14 + SEGMENT_LEN] = {0};

	if (!s->peer.sin_port || s->state == TCP_SYN_SENT || tcp_is_native6(s))
		return 0;
	memcpy(frame, &vh, sizeof(vh));
	memcpy(frame + sizeof(vh), mac, 6);
	frame[sizeof(vh) + 6] = 0x02; /* some local source address; nobody answers to it */
	frame[sizeof(vh) + 12] = 0x08;
	build(frame + sizeof(vh) + 14, s, s->window.rcv_wup - 1, s->snd_seq, FORGE_ACK);
	return replay_send(fd, frame, sizeof(frame), e);
}
