/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * The network of a pod that wakes up at a new place, in the order that tcp.c explains:
 *
 *   wake_open      before READY; FILTER_BLOCK is up, the sockets may be there or come later
 *   wake_know      for every connection that was restored
 *   wake_hear      held frames reach the pod's sockets while nothing gets out (FILTER_MUTE); a SYN is
 *                  put aside, as its answer has to get out
 *   wake_speak     the link is attached: the filter opens, then come the SYNs that were put aside
 *   (tcp_push() or tcp_release() of every connection)
 *   wake_nudge     every connection acknowledges what it has received
 *   wake_hear      late frames, as they come
 *   wake_free      later, when nobody waits: it takes 20-50 ms (RCU grace periods)
 *
 * Frames that are not for the pod, or would harm it, are left out here (frame_is_for_pod()).
 *
 * Old acknowledgements. Frames of one connection overtake one another (its peer's two CPUs suffice), so
 * data may come with an acknowledgement that is older than one that had come before the cut. That is
 * harmless to a socket that has had max_window bytes acknowledged; a younger one, and a restored one
 * is young, takes it for an attack (RFC 5961, 5.2) and drops the data: a whole window at once, hence a
 * timer of 200 ms. So in frames with data an acknowledgement from before the cut becomes the one that
 * was known at the cut (wake_know()). The window such a frame tells is older than the last one's and
 * is not used.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <linux/virtio_net.h>
#include <net/ethernet.h>
#include <netinet/ip.h>
#include <string.h>

#include "netfreeze/tcp_int.h"
#include "pod/base/util.h"

#define SYNS_MAX 1024 /* more clients than that wait for their timer */
#define SYN_LEN  192

struct conn {
	uint32_t peer, local; /* network byte order, as the ports */
	uint16_t peer_port, local_port;
	uint32_t una;     /* acknowledged by the peer at the cut */
	uint32_t max_age; /* what is older by so many bytes is no acknowledgement of this peer */
};

struct wake {
	struct filter *filter;
	int replay;
	uint8_t mac[6];
	enum { ASLEEP, HEARS, SPEAKS } state;
	size_t nsyn;
	struct {
		size_t len;
		uint8_t frame[SYN_LEN];
	} * syn; /* [SYNS_MAX] */
	struct conn *conn;
	size_t nconn, room;
	uint8_t frame[HOLD_FRAME_MAX]; /* one that is changed */
};

/**
 * wake_open - get ready to wake the pod of @netns behind @host with @mac
 *
 * Changes nothing. @host is a link of the caller's namespace, and is up when wake_hear() is called.
 */
int wake_open(int netns, const char *host, const uint8_t mac[6], struct wake **out, struct err *e)
{
	struct wake *w = calloc(1, sizeof(*w));
	int r;

	if (!w)
		return err_num(e, ENOMEM, "wake");
	w->replay = -1;
	memcpy(w->mac, mac, sizeof(w->mac));
	w->syn = malloc(SYNS_MAX * sizeof(*w->syn));
	r = w->syn ? filter_open(netns, &w->filter, e) : err_num(e, ENOMEM, "wake");
	if (r == 0)
		r = replay_open(host, &w->replay, e);
	if (r < 0) {
		wake_free(w, false);
		return r;
	}
	*out = w;
	return 0;
}

/**
 * wake_know - held frames may come for the connection @s
 *
 * Before wake_hear(). 0, also for a socket without a peer, or -ENOMEM.
 */
int wake_know(struct wake *w, const struct tcp_state *s, struct err *e)
{
	if (!s->peer.sin_port || s->state == TCP_SYN_SENT || tcp_is_native6(s))
		return 0;
	if (w->nconn == w->room) {
		size_t room = w->room ? 2 * w->room : 16;
		struct conn *c = realloc(w->conn, room * sizeof(*c));

		if (!c)
			return err_num(e, ENOMEM, "wake");
		w->conn = c;
		w->room = room;
	}
	w->conn[w->nconn++] = (struct conn){
		.peer = s->peer.sin_addr.s_addr,
		.local = s->local.sin_addr.s_addr,
		.peer_port = s->peer.sin_port,
		.local_port = s->local.sin_port,
		.una = s->snd_seq,
		.max_age = s->window.max_window,
	};
	return 0;
}

static const struct conn *find_conn(const struct wake *w, const struct iphdr *ip, const struct tcphdr *th)
{
	size_t i;

	for (i = 0; i < w->nconn; i++) {
		const struct conn *c = &w->conn[i];

		if (c->peer_port == th->th_sport && c->local_port == th->th_dport && c->peer == ip->saddr &&
		    c->local == ip->daddr)
			return c;
	}
	return NULL;
}

/* RFC 1624: the sum @sum after the 32 bits @was have become @is; all as they are in the frame. */
static uint16_t sum_changed(uint16_t sum, uint32_t was, uint32_t is)
{
	uint32_t s = (uint16_t)~sum;

	s += (uint16_t)~(was & 0xffff) + (uint16_t)~(was >> 16);
	s += (is & 0xffff) + (is >> 16);
	while (s >> 16)
		s = (s & 0xffff) + (s >> 16);
	return (uint16_t)~s;
}

/* The frame, or a copy of it in w->frame with a newer acknowledgement; see "Old acknowledgements". */
static const void *renew_ack(struct wake *w, const void *frame, size_t len)
{
	const size_t at_ip = sizeof(struct virtio_net_hdr) + ETH_HLEN;
	struct virtio_net_hdr vh;
	const struct conn *c;
	struct iphdr ip;
	struct tcphdr th;
	size_t at_tcp;
	uint32_t was;

	if (len > sizeof(w->frame) || len < at_ip + sizeof(ip) + sizeof(th))
		return frame;
	memcpy(&vh, frame, sizeof(vh));
	memcpy(&ip, (const uint8_t *)frame + at_ip, sizeof(ip));
	at_tcp = at_ip + ip.ihl * 4u;
	if (ip.version != 4 || ip.ihl < 5 || ip.protocol != IPPROTO_TCP || (ntohs(ip.frag_off) & 0x3fff) ||
	    len < at_tcp + sizeof(th))
		return frame;
	memcpy(&th, (const uint8_t *)frame + at_tcp, sizeof(th));
	if (!(th.th_flags & TH_ACK) || (th.th_flags & (TH_SYN | TH_RST)) || len <= at_tcp + th.th_off * 4u ||
	    ntohs(ip.tot_len) <= (ip.ihl + th.th_off) * 4u)
		return frame;
	c = find_conn(w, &ip, &th);
	if (!c || ntohl(th.th_ack) == c->una || c->una - ntohl(th.th_ack) > c->max_age)
		return frame;
	was = th.th_ack;
	th.th_ack = htonl(c->una);
	if (!(vh.flags & VIRTIO_NET_HDR_F_NEEDS_CSUM))
		th.th_sum = sum_changed(th.th_sum, was, th.th_ack);
	memcpy(w->frame, frame, len);
	memcpy(w->frame + at_tcp, &th, sizeof(th));
	return w->frame;
}

/**
 * wake_hear - let a held frame arrive at the pod
 *
 * 1: it has, or will in wake_speak(); 0: it was not for the pod; or a negative errno.
 */
int wake_hear(struct wake *w, const void *frame, size_t len, struct err *e)
{
	int r;

	if (!frame_is_for_pod(frame, len, w->mac))
		return 0;
	if (w->state == ASLEEP) {
		r = filter_set(w->filter, FILTER_MUTE, e);
		if (r < 0)
			return r;
		w->state = HEARS;
	}
	if (w->state == HEARS && frame_is_syn(frame, len) && len <= SYN_LEN) {
		if (w->nsyn == SYNS_MAX)
			return 0;
		memcpy(w->syn[w->nsyn].frame, frame, len);
		w->syn[w->nsyn++].len = len;
		return 1;
	}
	r = replay_send(w->replay, renew_ack(w, frame, len), len, e);
	return r < 0 ? r : 1;
}

/** wake_speak - open the filter and let the SYNs arrive; the link is attached. Once. */
int wake_speak(struct wake *w, struct err *e)
{
	int r = filter_set(w->filter, FILTER_OPEN, e);
	size_t i;

	w->state = SPEAKS;
	for (i = 0; r == 0 && i < w->nsyn; i++)
		r = replay_send(w->replay, w->syn[i].frame, w->syn[i].len, e);
	w->nsyn = 0;
	return r;
}

/** wake_nudge - replay_nudge() for the connection @s */
int wake_nudge(struct wake *w, const struct tcp_state *s, struct err *e)
{
	return replay_nudge(w->replay, w->mac, s, e);
}

/** wake_free - free the handle, and with @clear also the filter's table. 20-50 ms. */
void wake_free(struct wake *w, bool clear)
{
	if (!w)
		return;
	if (clear && w->filter)
		filter_remove(w->filter, NULL);
	filter_free(w->filter);
	close_fdp(&w->replay);
	free(w->syn);
	free(w->conn);
	free(w);
}
