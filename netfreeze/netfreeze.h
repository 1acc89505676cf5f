/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * netfreeze: a pod's network while the pod stands still and while it changes its place.
 *
 *   link.h-part     veth pair, addresses, MAC, bridge port, gratuitous ARP (libnl-route-3, never
 * spawning ip) filter-part     drop chains of a network namespace, both ways (libmnl + libnftnl)
 *   hold-part       AF_PACKET capture with PACKET_VNET_HDR of what arrives while the filter is up;
 * replay tcp-part        save and restore of TCP sockets by TCP_REPAIR on fds the caller holds
 *
 * All functions: 0 or negative errno with words in *e; EINTR-safe; no globals; nothing spawned.
 * "netns" is an fd of a network namespace; -1 = the caller's own. A function that must be in
 * another namespace switches a private thread, never the caller.
 */
#ifndef NETFREEZE_H
#define NETFREEZE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <netinet/in.h>
#include <netinet/tcp.h>

#include "pod/base/err.h"

/* ---- running code in another network namespace */
/** Runs @fn(@arg) in a thread that has entered @netns; returns what it returns. */
int netns_run(int netns, int (*fn)(void *arg, struct err *e), void *arg, struct err *e);
/** socket(2) made in @netns. Returns an O_CLOEXEC fd. */
int netns_socket(int netns, int domain, int type, int protocol, struct err *e);
/** @n of them into @fds[] by one thread: for sockets that are made before the freeze. All or none.
 */
int netns_sockets(int netns, int domain, int type, int protocol, int *fds, size_t n, struct err *e);

/* ---- links */
/** Makes a veth pair: @host in the caller's namespace (down, no bridge), "eth0" in @netns with
 * @mac, @ip/@prefix, up, default route by @gateway if not 0; lo up. IPv6 autoconfiguration and DAD
 * off on eth0. @ip, @gateway in network byte order. */
int link_make_veth(int netns, const char *host, const uint8_t mac[6], uint32_t ip, unsigned prefix,
		   uint32_t gateway, struct err *e);
int link_lo_up(int netns, struct err *e);
/** Puts @host on @bridge and up. */
int link_attach(const char *host, const char *bridge, struct err *e);
/** Sets @host up without a bridge: frames can be replayed into the pod, and none gets out. */
int link_up(const char *host, struct err *e);
/** Off its bridge (stays up or down as it was). */
int link_detach(const char *host, struct err *e);
/** Deletes @host (and its peer); success if there is none. */
int link_delete(const char *host, struct err *e);
/** Does @name exist; 1/0 or negative errno. */
int link_exists(const char *name, struct err *e);
/** Sends a gratuitous ARP request and reply for @ip from @mac out of @host's *peer side* as if the
 * pod spoke, i.e. into the bridge: opens AF_PACKET in @netns on eth0. Sent @count times (now; the
 * caller repeats later if it wishes). */
int link_announce(int netns, const uint8_t mac[6], uint32_t ip, int count, struct err *e);
/** The same in two steps, for the freeze: closing the socket takes 10-15 ms and is done after it.
 * Returns an fd. */
int link_announcer(int netns, struct err *e);
int link_announce_by(int fd, const uint8_t mac[6], uint32_t ip, int count, struct err *e);
/** Is @ip answered by somebody on the segment of @bridge (ARP probe, waits @ms)? 1/0 or negative
 * errno. */
int link_address_busy(const char *bridge, uint32_t ip, int ms, struct err *e);
/** The same, but an answer from @mac (the pod's own, at its old place) does not count; NULL: each
 * does. */
int link_address_taken(const char *bridge, uint32_t ip, const uint8_t *mac, int ms, struct err *e);

/* ---- filter: a nft table "podmigrate" in the namespace */
/** Makes table and chains with an empty verdict: costs nothing while the pod runs. Idempotent. */
int filter_prepare(int netns, struct err *e);
/** New SYNs (no ACK) that arrive are dropped; the rest passes. For the time before the stop; they
 * are held (hold_*) and replayed. */
int filter_syn(int netns, struct err *e);
/** Everything dropped both ways except on lo, and except UDP that goes out. One netlink transaction on a socket opened
 * beforehand: < 150 us. */
int filter_block(int netns, struct err *e);
/** Table gone. Idempotent: success if there is none. */
int filter_clear(int netns, struct err *e);
/*
 * The four above take up to 30 ms: closing an nf_tables socket waits until the kernel has freed
 * what was deleted. In the freeze: a handle that was opened before and is freed after it.
 */
/** A prepared netlink socket in the namespace, so that block/clear in the freeze need no thread. */
struct filter;
int filter_open(int netns, struct filter **out, struct err *e);
enum filter_state {
	FILTER_OPEN,
	FILTER_SYN,   /* as filter_syn() */
	FILTER_BLOCK, /* as filter_block() */
	FILTER_MUTE,  /* what arrives passes, nothing gets out: while held frames are replayed into
			 restored sockets */
};
int filter_set(struct filter *, enum filter_state state, struct err *e);
/** Table gone, by the prepared socket. Idempotent. */
int filter_remove(struct filter *, struct err *e);
void filter_free(struct filter *); /* leaves the namespace's state as it is */

/* ---- hold and replay */
struct hold;
/** Starts capturing every frame that arrives on eth0 of @netns (PACKET_VNET_HDR; own outgoing
 * frames not). Bounded ring of @bytes of kernel memory (SO_RCVBUFFORCE or the hard limit). */
int hold_open(int netns, size_t bytes, struct hold **out, struct err *e);
/** fd to poll. */
int hold_fd(const struct hold *);
/** Takes one frame (virtio_net_hdr + ethernet) if there is one: its size, 0 if none, negative
 * errno. @buf >= HOLD_FRAME_MAX. */
#define HOLD_FRAME_MAX (10 + 14 + 65536 + 64)
int hold_take(struct hold *, void *buf, size_t len, struct err *e);
/** Keeps from now on only new SYNs (while filter_syn is up; a busy pod's stream is not copied
 * then), or everything again. */
int hold_only_syn(struct hold *, bool on, struct err *e);
/** Keeps nothing more; what is there can be taken. Needed before a replay into the same namespace
 * (abort), or the replayed is held again. */
int hold_stop(struct hold *, struct err *e);
/** Throws away what was captured so far (it reached the pod: the filter was not up yet). Returns
 * the number of frames. */
int hold_discard(struct hold *);
/** Frames that did not fit into the ring so far. */
uint64_t hold_lost(struct hold *);
/** Closing packet sockets (this, replay_open's, link_announcer's) takes 10-15 ms each: after the
 * freeze. */
void hold_free(struct hold *);
/** Opens the injection socket: frames sent to it arrive at eth0 of the pod: AF_PACKET on the host
 * end @host, PACKET_VNET_HDR, PACKET_QDISC_BYPASS. */
int replay_open(const char *host, int *fd, struct err *e);
int replay_send(int fd, const void *frame, size_t len, struct err *e);
/** Makes the pod's kernel tell the peer of @s at once what it has received (tcp.c, "Who speaks
 * first"). After tcp_release(). */
struct tcp_state;
int replay_nudge(int fd, const uint8_t mac[6], const struct tcp_state *s, struct err *e);
/** Is this captured frame a new SYN (SYN without ACK, IPv4 TCP)? For the frames held while
 * filter_syn was up. */
bool frame_is_syn(const void *frame, size_t len);
/** Is it one that must not be replayed elsewhere (ARP for others, IPv6 ND, multicast)? */
bool frame_is_for_pod(const void *frame, size_t len, const uint8_t mac[6]);

/* ---- sockets */
/** An option that travels with a socket. */
struct sock_opt {
	int level, name;
	uint32_t len;
	uint8_t val[64];
};

/* ---- TCP */
/** A TCP socket's whole state. Queues are owned by the struct (malloc), tcp_state_done() frees. */
struct tcp_state {
	int state; /* TCP_ESTABLISHED, TCP_LISTEN, TCP_CLOSE (also not yet connected),
		      TCP_CLOSE_WAIT, TCP_FIN_WAIT1/2, ... */
	struct sockaddr_in local, peer; /* peer all zero if none; local port 0 if unbound */
	bool v6; /* an AF_INET6 socket: its addresses are these, and above are their IPv4 halves, of
		    ::1 lo's */
	struct in6_addr local6, peer6;
	bool bound;
	int backlog;
	uint32_t snd_seq,
		rcv_seq; /* of the *start* of the queues (queue lengths and FIN subtracted) */
	void *snd_queue, *rcv_queue;
	uint32_t snd_len, rcv_len; /* bytes */
	uint32_t snd_unsent; /* the tail never sent; an unsent FIN counts one: <= snd_len + snd_fin
			      */
	bool snd_fin, rcv_fin;
	uint32_t mss, ts_val;
	uint8_t snd_wscale, rcv_wscale;
	bool sack, ts, wscale_ok;
	struct tcp_repair_window window;
	bool shut_rd, shut_wr;
	struct sock_opt opt[64];
	unsigned nopt;           /* the table of carried socket options, see tcp.c */
	uint32_t sndbuf, rcvbuf; /* with their locks (SOCK_SNDBUF_LOCK) */
	bool nonblock;
};
/** Reads everything of @fd (a duplicate by pidfd_getfd of a socket in a stopped pod with the filter
 * up). Leaves the socket in repair mode if it is connected: tcp_undo() or destroying the namespace
 * ends it. Refuses by name (-EOPNOTSUPP) what cannot be carried. */
int tcp_save(int fd, struct tcp_state *out, struct err *e);
/** The source goes on: leaves repair mode. After filter_clear(). Cannot fail; nothing to do on a
 * socket not in repair mode. */
void tcp_undo(int fd);
/** Makes a new socket in @netns with that state. eth0 there is up with its address and FILTER_BLOCK
 * is set (a detached link is not enough: what the kernel wants to say would begin an ARP resolution
 * that is not repeated for 1 s). Listening sockets listen, connected ones are left in repair mode
 * until tcp_release(). Any order of sockets will do. Returns an O_CLOEXEC fd. */
int tcp_restore(int netns, const struct tcp_state *, struct err *e);
/** The same on the fresh TCP socket @fd (netns_sockets() before the freeze: a visit to @netns costs
 * 50 us). */
int tcp_restore_on(int fd, int netns, const struct tcp_state *, struct err *e);
/** Ends repair mode, sends the unsent tail, sets the options that had to wait. On every socket,
 * when all exist. Either with the link attached and the filter open, or before (so that the pod can
 * be woken without us): then tcp_push() when it is. */
int tcp_release(int fd, const struct tcp_state *, struct err *e);
/** The peer of a connection that was restored and released is gone for good: it resets it, as we say. */
int tcp_reset(int fd, int netns, const struct tcp_state *s, struct err *e);
/** After a tcp_release() that came before the filter was open: sends what is queued, and a window
 * probe. */
void tcp_push(int fd, const struct tcp_state *);
/** Some ms after tcp_release(), when no late frames are forwarded any more: the window, which has
 * spare room now, is bound to what it was. Without it windows grow from move to move. */
void tcp_settle(int fd, const struct tcp_state *);
void tcp_state_done(struct tcp_state *);
/** Can @fd be carried? Cheap; while the program runs. 0 or -EOPNOTSUPP with the reason. */
int tcp_check(int fd, struct err *e);
/** Sum over the listeners @fds[n]: connections in SYN_RECV or in an accept queue (tcpi_unacked). */
int tcp_pending(const int *fds, size_t n, struct err *e);
/** TCP connections of a namespace that no program holds, hence that nobody can carry (diag.c). */
struct tcp_unheld {
	unsigned half_open; /* SYN_RECV or not accepted: 0 before the stop, with FILTER_SYN up */
	unsigned closing; /* closed by the program, not yet acknowledged by the peer: wait a little
			   */
};
int tcp_unheld_open(int netns, struct err *e);
int tcp_unheld(int fd, struct tcp_unheld *out, struct err *e);
/** Nothing in flight either way on @fd (SIOCOUTQ == SIOCOUTQNSD). 1/0 or negative errno. */
int tcp_wire_empty(int fd, struct err *e);
/** Waits until that is so on all of @fds[n], at most until @deadline_ns (pod/base/io.h). Returns
 * how many are still busy. */
int drain_wire(const int *fds, size_t n, uint64_t deadline_ns, struct err *e);

/* ---- UDP */
/** A datagram that waits in a receive queue. */
struct udp_dgram {
	struct sockaddr_in from;
	struct in_addr to; /* as its header says */
	bool v6;           /* its header is of IPv6: of the above only the port, and these */
	struct in6_addr from6, to6;
	uint8_t ttl, tos;
	uint32_t len;
	void *data;
};
#define UDP_SOURCES 64
/** Membership of a multicast group on the interface that has address @iface. */
struct udp_group {
	struct in_addr group, iface;
	uint32_t mode; /* MCAST_EXCLUDE or MCAST_INCLUDE these */
	uint32_t nsrc;
	struct in_addr src[UDP_SOURCES];
};
/** A UDP socket's whole state. What it points at is owned; udp_state_done() frees. */
struct udp_state {
	struct sockaddr_in local, peer; /* peer all zero: not connected; local port 0: unbound */
	bool v6; /* an AF_INET6 socket, as in struct tcp_state */
	struct in6_addr local6, peer6;
	bool shut_rd, shut_wr, nonblock;
	uint32_t sndbuf, rcvbuf;
	struct sock_opt opt[64];
	unsigned nopt;
	struct udp_dgram *queue;
	size_t nqueue;
	struct udp_group *group;
	size_t ngroup;
};
/** Can @fd, of @netns, be carried? Cheap; while the program runs. 0 or -EOPNOTSUPP with the reason. */
int udp_check(int fd, int netns, struct err *e);
/** Reads everything of @fd, a socket of @netns whose pod stands still; nothing of it changes. */
int udp_save(int fd, int netns, struct udp_state *out, struct err *e);
void udp_state_done(struct udp_state *);
/** Gives the fresh UDP socket @fd of @netns that state; address there, link and filter as for
 * tcp_restore(). Any order of sockets will do; udp_release() on all of them when all exist. */
int udp_restore_on(int fd, int netns, const struct udp_state *, struct err *e);
int udp_release(int fd, const struct udp_state *, struct err *e);

/* ---- raw sockets of IPv4, and ICMP sockets (SOCK_DGRAM, "ping") */
/** In @u.queue whole packets, or of an ICMP socket whole messages. A connected one has a peer of AF_INET, whose port may be 0. */
struct raw_state {
	struct udp_state u;
	int type, protocol;
};
int raw_check(int fd, int netns, struct err *e);
/** As udp_save(), but without the queue. */
int raw_save(int fd, int netns, struct raw_state *out, struct err *e);
/** What waits at the sockets @fds[n] of one namespace, all that it has: taken out, written down and put back. */
struct raw_queues;
int raw_queues_open(const int *fds, size_t n, int netns, struct raw_queues **out, struct err *e);
/** Does it; may be begun by one process and ended by another. -ENOBUFS: more than memory was there for. */
int raw_queues_exchange(void *queues);
/** Adds what was found at @fds[i] to the queue of @s. */
int raw_queues_read(const struct raw_queues *, size_t i, struct raw_state *s, struct err *e);
/** How many packets could not be put back into @fds[i]: they are lost if the pod goes on here. */
size_t raw_queues_lost(const struct raw_queues *, size_t i);
void raw_queues_free(struct raw_queues *);
/** Makes the fresh socket @fd that; it hears nothing until raw_release(), when all sockets exist. */
int raw_restore_on(int fd, int netns, const struct raw_state *, struct err *e);
int raw_release(int fd, const struct raw_state *, bool filtered, struct err *e);
/** From now on @fd, a socket of packets, takes nothing into its queue: a filter in place of its own. And again, if its own does not
 * come in its place (@filtered). */
int raw_shield(int fd, struct err *e);
int raw_unshield(int fd, bool filtered, struct err *e);

/* ---- waking the network at a new place, in the right order (wake.c) */
struct wake;
/** Before READY: filter handle and replay socket. @host is the pod's link in the caller's
 * namespace. */
int wake_open(int netns, const char *host, const uint8_t mac[6], struct wake **out, struct err *e);
/** Before that: held frames may come for this connection. */
int wake_know(struct wake *, const struct tcp_state *, struct err *e);
/** A held or late frame arrives at the pod: 1 taken, 0 not for it. Until wake_speak() nothing gets
 * out of the pod. @host is up. */
int wake_hear(struct wake *, const void *frame, size_t len, struct err *e);
/** The link is attached: filter open, SYNs delivered. Then tcp_push() (or tcp_release()) and
 * wake_nudge() for every connection. */
int wake_speak(struct wake *, struct err *e);
int wake_nudge(struct wake *, const struct tcp_state *, struct err *e);
/** When nobody waits any more (20-50 ms). @clear: the filter's table goes too. */
void wake_free(struct wake *, bool clear);

#endif
