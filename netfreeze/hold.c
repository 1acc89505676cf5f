/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Hold and replay: what arrives for a pod while its filter is up is kept and given to it later,
 * wherever it runs then. A segment that is dropped instead costs its sender a retransmission
 * timer, 200 ms at least and so many times our freeze.
 *
 * Hold: a packet socket on eth0 of the pod's namespace. Its tap sits before netfilter, so it sees
 * what the filter drops. PACKET_VNET_HDR because on a veth nothing is ever finished: frames carry
 * partial checksums and are up to 64 KiB long (GSO); the virtio_net_hdr in front of each says
 * what is missing, and the same header given to the injecting socket makes the same skb again.
 *
 * Replay: a packet socket on the host end. What it transmits there arrives at eth0, and nowhere
 * else: the bridge sees only what comes out of the pod. It works while the host end is up, on a
 * bridge or not.
 *
 * Duplicates are harmless (TCP answers them with an acknowledgement), losses are not. So, in order:
 * open, [only SYNs, while FILTER_SYN is up], hold_discard() (what came until now has reached the
 * pod), everything, FILTER_BLOCK, stop. A frame that came between the last two is delivered twice.
 *
 * The ring is the socket's receive queue; it counts the kernel's memory, not bytes of frames: a 64
 * KiB frame costs ~66 KiB, a bare acknowledgement ~0.8 KiB. hold_lost() says what did not fit.
 *
 * close(2) of a packet socket waits for an RCU grace period, 10-15 ms: after the freeze.
 */
#include <errno.h>
#include <linux/filter.h>
#include <linux/if_packet.h>
#include <linux/virtio_net.h>
#include <net/ethernet.h>
#include <net/if.h>
#include <string.h>
#include <sys/socket.h>

#include "netfreeze/netfreeze.h"
#include "pod/base/util.h"

#ifndef PACKET_IGNORE_OUTGOING
#define PACKET_IGNORE_OUTGOING 23
#endif

#define VNET_LEN   sizeof(struct virtio_net_hdr)
#define TH_SYN_BIT 0x02
#define TH_ACK_BIT 0x10

struct hold {
	int fd;
	uint64_t lost;
};

/* accept only: IPv4, TCP, not a later fragment, SYN without ACK. Offsets from the ethernet header.
 */
static struct sock_filter syn_code[] = {
	BPF_STMT(BPF_LD | BPF_H | BPF_ABS, 12),
	BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, ETHERTYPE_IP, 0, 9),
	BPF_STMT(BPF_LD | BPF_B | BPF_ABS, 23),
	BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, 6, 0, 7),
	BPF_STMT(BPF_LD | BPF_H | BPF_ABS, 20),
	BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, 0x1fff, 5, 0),
	BPF_STMT(BPF_LDX | BPF_B | BPF_MSH, 14),
	BPF_STMT(BPF_LD | BPF_B | BPF_IND, 14 + 13),
	BPF_STMT(BPF_ALU | BPF_AND | BPF_K, TH_SYN_BIT | TH_ACK_BIT),
	BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, TH_SYN_BIT, 0, 1),
	BPF_STMT(BPF_RET | BPF_K, 0xffffffff),
	BPF_STMT(BPF_RET | BPF_K, 0),
};

static struct sock_filter none_code[] = {BPF_STMT(BPF_RET | BPF_K, 0)};

static int bind_to(int fd, const char *ifname, uint16_t proto, struct err *e)
{
	struct sockaddr_ll sll = {.sll_family = AF_PACKET, .sll_protocol = htons(proto)};

	sll.sll_ifindex = (int)if_nametoindex(ifname);
	if (!sll.sll_ifindex)
		return err_sys(e, "link '%s'", ifname);
	if (bind(fd, (struct sockaddr *)&sll, sizeof(sll)) < 0)
		return err_sys(e, "bind a packet socket to '%s'", ifname);
	return 0;
}

struct opening {
	struct hold *h;
	size_t bytes;
};

static int open_in_pod(void *arg, struct err *e)
{
	struct opening *o = arg;
	int one = 1, size = (int)MIN(o->bytes / 2, (size_t)INT32_MAX / 2), fd;

	/* protocol 0: not capturing yet, so that the options come first and bind() starts it
	 * without a pause */
	o->h->fd = fd = socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return err_sys(e, "packet socket");
	if (setsockopt(fd, SOL_PACKET, PACKET_VNET_HDR, &one, sizeof(one)) < 0)
		return err_sys(e, "PACKET_VNET_HDR");
	if (setsockopt(fd, SOL_PACKET, PACKET_IGNORE_OUTGOING, &one, sizeof(one)) < 0)
		return err_sys(e, "PACKET_IGNORE_OUTGOING");
	/* the kernel doubles the value, as for every receive buffer */
	if (setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &size, sizeof(size)) < 0 &&
	    setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &size, sizeof(size)) < 0)
		return err_sys(e, "ring of %zu bytes", o->bytes);
	return bind_to(fd, "eth0", ETH_P_ALL, e);
}

/**
 * hold_open - start to keep every frame that arrives on eth0 of @netns
 *
 * @bytes bounds the kernel memory of the ring. *@out is freed by hold_free().
 */
int hold_open(int netns, size_t bytes, struct hold **out, struct err *e)
{
	struct opening o = {calloc(1, sizeof(struct hold)), bytes};
	int r;

	if (!o.h)
		return err_num(e, ENOMEM, "hold");
	o.h->fd = -1;
	r = netns_run(netns, open_in_pod, &o, e);
	if (r < 0) {
		hold_free(o.h);
		return err_wrap(e, "hold frames");
	}
	*out = o.h;
	return 0;
}

/** hold_fd - readable when a frame is there */
int hold_fd(const struct hold *h)
{
	return h->fd;
}

/** hold_only_syn - keep from now on new SYNs alone (@on), or everything again; what is in the ring
 * stays */
int hold_only_syn(struct hold *h, bool on, struct err *e)
{
	struct sock_fprog prog = {ARRAY_SIZE(syn_code), syn_code};
	int zero = 0;

	if (on && setsockopt(h->fd, SOL_SOCKET, SO_ATTACH_FILTER, &prog, sizeof(prog)) < 0)
		return err_sys(e, "hold: SYN filter");
	if (!on && setsockopt(h->fd, SOL_SOCKET, SO_DETACH_FILTER, &zero, sizeof(zero)) < 0 &&
	    errno != ENOENT)
		return err_sys(e, "hold: SYN filter off");
	return 0;
}

/**
 * hold_stop - keep nothing more; what is in the ring can still be taken
 *
 * Before frames are replayed into the place where they were held (the source goes on): they would
 * be held again, for ever.
 */
int hold_stop(struct hold *h, struct err *e)
{
	struct sock_fprog prog = {1, none_code};

	return setsockopt(h->fd, SOL_SOCKET, SO_ATTACH_FILTER, &prog, sizeof(prog)) < 0
		       ? err_sys(e, "hold: stop")
		       : 0;
}

/**
 * hold_take - take one frame (virtio_net_hdr + ethernet) out of the ring
 *
 * @len >= HOLD_FRAME_MAX. Returns its size, 0 if there is none, or a negative errno. Never waits.
 */
int hold_take(struct hold *h, void *buf, size_t len, struct err *e)
{
	ssize_t n;

	do
		n = recv(h->fd, buf, len, MSG_DONTWAIT | MSG_TRUNC);
	while (n < 0 && (errno == EINTR || errno == ENETDOWN));
	if (n < 0)
		return errno == EAGAIN ? 0 : err_sys(e, "take a held frame");
	if ((size_t)n > len)
		return err_set(e, EMSGSIZE, "held frame of %zd bytes", n);
	return (int)n;
}

/** hold_discard - throw away what is in the ring now: it has reached the pod. Returns the number.
 */
int hold_discard(struct hold *h)
{
	char head[VNET_LEN]; /* with less the kernel answers EINVAL, having dropped the frame */
	int n = 0;

	while (recv(h->fd, head, sizeof(head), MSG_DONTWAIT) >= 0)
		n++;
	return n;
}

/** hold_lost - number of frames that did not fit so far */
uint64_t hold_lost(struct hold *h)
{
	struct tpacket_stats st = {0};
	socklen_t len = sizeof(st);

	if (getsockopt(h->fd, SOL_PACKET, PACKET_STATISTICS, &st, &len) == 0)
		h->lost += st.tp_drops; /* reading resets the kernel's counter */
	return h->lost;
}

/** hold_free - stop holding; what is in the ring is lost. 10-15 ms. */
void hold_free(struct hold *h)
{
	if (!h)
		return;
	close_fdp(&h->fd);
	free(h);
}

/**
 * replay_open - the socket whose frames arrive at eth0 of the pod behind @host
 *
 * @host is a link of the caller's namespace. To be opened before the freeze and closed after it.
 */
int replay_open(const char *host, int *fd, struct err *e)
{
	autoclose int s = socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, 0);
	int one = 1, size = 8 << 20, r;

	if (s < 0)
		return err_sys(e, "packet socket");
	if (setsockopt(s, SOL_PACKET, PACKET_VNET_HDR, &one, sizeof(one)) < 0)
		return err_sys(e, "PACKET_VNET_HDR");
	if (setsockopt(s, SOL_PACKET, PACKET_QDISC_BYPASS, &one, sizeof(one)) < 0)
		return err_sys(e, "PACKET_QDISC_BYPASS");
	/* frames count here until the pod has taken them off its backlog */
	if (setsockopt(s, SOL_SOCKET, SO_SNDBUFFORCE, &size, sizeof(size)) < 0)
		setsockopt(s, SOL_SOCKET, SO_SNDBUF, &size, sizeof(size));
	r = bind_to(s, host, 0, e);
	if (r < 0)
		return r;
	*fd = take_fd(&s);
	return 0;
}

/** replay_send - let one held frame arrive at the pod. 0 or negative errno. */
int replay_send(int fd, const void *frame, size_t len, struct err *e)
{
	ssize_t n;

	do
		n = send(fd, frame, len, 0);
	while (n < 0 && errno == EINTR);
	if (n < 0)
		return err_sys(e, "replay a frame of %zu bytes", len);
	return 0;
}

/* ---- what is in a frame */

/* The TCP flags byte of an IPv4 frame that begins a TCP segment, or -1. */
static int tcp_flags(const uint8_t *f, size_t len)
{
	size_t ip = VNET_LEN + 14, ihl;

	if (len < ip + 20 || f[VNET_LEN + 12] != 0x08 || f[VNET_LEN + 13] != 0x00)
		return -1;
	if (f[ip] >> 4 != 4 || f[ip + 9] != 6)
		return -1;
	if ((f[ip + 6] & 0x1f) || f[ip + 7])
		return -1; /* a later fragment */
	ihl = (f[ip] & 15u) * 4;
	if (ihl < 20 || len < ip + ihl + 14)
		return -1;
	return f[ip + ihl + 13];
}

/** frame_is_syn - does this held frame ask for a new connection (SYN without ACK, IPv4)? */
bool frame_is_syn(const void *frame, size_t len)
{
	int flags = tcp_flags(frame, len);

	return flags >= 0 && (flags & (TH_SYN_BIT | TH_ACK_BIT)) == TH_SYN_BIT;
}

/**
 * frame_is_for_pod - may this held frame be given to the pod at its new place?
 *
 * IPv4 to the pod's @mac and nothing else: ARP and ND are answered anew there, multicast was not
 * for it alone. A SYN-ACK is left out: a socket in SYN_SENT sends its SYN again with a new
 * timestamp base, would take the old SYN-ACK for a forgery and reset the peer, who answers the new
 * SYN anyway.
 */
bool frame_is_for_pod(const void *frame, size_t len, const uint8_t mac[6])
{
	const uint8_t *f = frame;
	int flags;

	if (len < VNET_LEN + 14 + 20 || memcmp(f + VNET_LEN, mac, 6))
		return false;
	if (f[VNET_LEN + 12] != 0x08 || f[VNET_LEN + 13] != 0x00)
		return false;
	flags = tcp_flags(f, len);
	return flags < 0 || (flags & (TH_SYN_BIT | TH_ACK_BIT)) != (TH_SYN_BIT | TH_ACK_BIT);
}
