/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * TCP sockets, saved and restored from outside by TCP_REPAIR on duplicates of the program's fds.
 * This file saves; tcp_restore.c restores; tcp_opts.c has the table of socket options; forge.c
 * makes segments that only our own sockets see. hold.c keeps what arrives meanwhile.
 *
 * Sequence numbers. The kernel gives those of the ends of the queues (write_seq, rcv_nxt), a FIN
 * counting one. What travels are those of the starts: the length is subtracted, and one for a FIN
 * that was sent or queued (FIN_WAIT1/2, CLOSING, LAST_ACK) or received (CLOSE_WAIT, CLOSING,
 * LAST_ACK). SIOCINQ leaves a received FIN out; SIOCOUTQ and SIOCOUTQNSD count an unacknowledged
 * one.
 *
 * What was sent and what was not. [start, end - unsent) was sent and may have reached the peer: it
 * is queued in repair mode, which counts as sent without sending. The unsent tail goes through an
 * ordinary send() in tcp_release(). To call all of it unsent, and so to repeat at
 * once what might have been lost, is wrong: an acknowledgement beyond snd_nxt is not believed, the
 * segment that carries it is dropped whole, and the peer, who has everything, can never say
 * anything else. Tried: the streams of the test stop for good as soon as more is under way than the
 * first congestion window (10 segments). A segment that the filter drops on its way out is not
 * "sent but lost": TCP sees the error and leaves it in the unsent tail.
 *
 * The order at the new place, each step with its reason:
 *
 *   FILTER_BLOCK            or kernel answers (RST, ACK) leave, and an ARP resolution without an
 *                           answer begins, which is not repeated for 1 s
 *   tcp_restore             every socket, in any order
 *   FILTER_MUTE             what arrives passes, nothing gets out
 *   replay what was held    but not SYNs. Before the link is attached: newer segments overtook the
 *                           held ones when it was not so, and peers retransmitted by the thousand
 *   link_attach, announce, FILTER_OPEN
 *   tcp_release             the tail, and a window probe
 *   replay the SYNs         their answers must get out now: 1 s for the client else
 *   replay_nudge            an acknowledgement to the peer
 *   thaw; replay late frames, in the order of their arrival
 *   tcp_settle
 *
 * tcp_release() may also come before FILTER_MUTE, so that the pod can be woken by somebody else
 * if we die; tcp_push() takes its place in the order then.
 *
 * Who speaks first, so that nobody waits for a retransmission timer (200 ms and more):
 * - What the peer has sent meanwhile is replayed. What it does not know is what the pod had
 * received before the cut: that acknowledgement was delayed, or dropped by the filter, and a peer
 * with a full window waits for it. No call makes a socket acknowledge; an out-of-window segment
 * does. replay_nudge() gives it one (from before rcv_wup, no data), and a correct acknowledgement
 * leaves.
 * - What the pod does not know is what the peer has received: its acknowledgements are held and
 *   replayed, and the window probe of TCP_REPAIR_OFF makes it repeat the last one, with its window.
 *   (Linux answers probes once per 500 ms and connection.)
 *
 * Round trip time. A new socket has none, its retransmission timer is 3 s and its zero window probe
 * too. So the byte before the send queue, acknowledged long ago, is queued as if it were under way
 * (its value does not matter: the peer has it): the first acknowledgement that comes, at the latest
 * the answer to the probe, is a sample, and the timer is back at 200 ms. It is not written in repair
 * mode: for such bytes only the stamp that the peer echoes gives a time, and while a hole is open that
 * is the hole's age. A connection that had lost a whole window of 10 segments could then neither send
 * nor time out before the next of moves 60 ms apart, each time later: bbr sent 20 KB/s. With a true
 * sample the loss probe goes out after some 10 ms.
 *
 * Timestamps. TCP_TIMESTAMP carries the clock, but the segments of a paced connection (bbr, fq) are
 * stamped with the time when they are due. If the clock were carried as it is, the peer would drop
 * the first ones as old (PAWS), and with no round trip time known that was a stall of 3 s. So it is
 * put ahead, but by no more than can be: if what was sent is acknowledged at once, the round trip that
 * is seen first is too long by it.
 *
 * Receive memory. The peer may fill the window that was advertised before the cut. The same bytes
 * take a little more memory here, and what does not fit is dropped: a stall of 200 ms, because it is
 * the window's last and nothing behind it tells the peer. So a connection gets spare room. The
 * kernel derives windows from the buffer, and it never takes back what it has offered, even in an
 * acknowledgement that FILTER_MUTE kept in. So room that was there when a held frame was replayed
 * stays: when tcp_release() took back what the held frames had not needed, the window was larger
 * than the rest (tcp_state.window_has_room). Windows would grow from move to move (once to 200 MiB in 50): tcp_settle() binds them to what they were,
 * and 32 MiB is the end of it. A buffer size that the program has set is kept to the byte.
 *
 * Ports. In repair mode a bind is forced, so connections can share a listener's port though nobody
 * asked for SO_REUSEADDR; leaving it clears SO_REUSEADDR, which is set again. On the source
 * tcp_save() puts the program's value back at once, for tcp_undo() to find.
 *
 * Measured on the development machine, 2 cores, a load of 5-10: full-speed streams both ways, 50
 * moves: the longest stall exceeds the longest standstill by 2-20 ms (cubic), 5-45 (bbr);
 * request/reply by 3-15 ms. 1000 connections: save 31 ms, restore 21, release 11-17 (most of it
 * the ~55 option calls each). A queue costs ~0.1 ms per MiB to save and as much to restore when its
 * memory is warm, ten times that when it is not.
 *
 * IPv6. A pod has addresses of IPv4, and ::1 on lo. So AF_INET6 sockets speak IPv4 (with mapped
 * addresses; the clients of a dual-stack listener do), whose packets do not differ, or to ::1.
 *
 * Not carried, and refused by name: other addresses of IPv6 and its extension headers, MPTCP, upper
 * layer protocols (kTLS), SO_ZEROCOPY, IP options, urgent data that waits; a
 * listener with connections in its accept queue (-EBUSY: FILTER_SYN first, until tcp_pending() is
 * 0). Not seen from a socket, hence not refused: MD5 and AO keys, SO_ATTACH_REUSEPORT programs. Out
 * of reach: sockets that the program has closed and whose queue the kernel is still sending,
 * half-open connections (diag.c counts both, so that one can wait for them). Out-of-order segments
 * in the receive queue are not carried: the peer sends them again. A pending error of a connection
 * that is over becomes ECONNRESET, its local port is another one.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/sockios.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <time.h>

#include "netfreeze/tcp_int.h"
#include "pod/base/io.h"
#include "pod/base/util.h"

#define MSS_DEFAULT 536
#define PACING_RATE_AT 104u /* in the kernel's struct tcp_info */
#define PACED_BYTES (8ull * 1460)
#define AHEAD_MIN_MS 4u
#define AHEAD_MAX_MS 100u
#define QUEUE_MAX (1u << 30) /* a queue longer than that is not one of TCP's */

const char *tcp_addr(const struct sockaddr_in *a, char *buf)
{
	char ip[INET_ADDRSTRLEN] = "?";

	inet_ntop(AF_INET, &a->sin_addr, ip, sizeof(ip));
	snprintf(buf, 24, "%s:%u", ip, ntohs(a->sin_port));
	return buf;
}

socklen_t tcp_name_of(const struct tcp_state *s, bool peer, union inet_name *out)
{
	return inet_name_make(out, s->v6, peer ? &s->peer : &s->local, peer ? &s->peer6 : &s->local6);
}

void tcp_name_set(struct tcp_state *s, bool peer, const union inet_name *n)
{
	s->v6 = inet_name_read(n, peer ? &s->peer : &s->local, peer ? &s->peer6 : &s->local6);
}

static int get_int(int fd, int level, int name, int dfl)
{
	int v = dfl;
	socklen_t len = sizeof(v);

	return getsockopt(fd, level, name, &v, &len) < 0 ? dfl : v;
}

static int ask(int fd, unsigned long req, const char *text, uint32_t *out, struct err *e)
{
	int v = 0;

	if (ioctl(fd, req, &v) < 0)
		return err_sys(e, "%s", text);
	if (v < 0 || (unsigned)v > QUEUE_MAX)
		return err_set(e, EPROTO, "%s says %d", text, v);
	*out = (uint32_t)v;
	return 0;
}

/* only as much of tcp_info as every kernel and header knows */
static int info(int fd, struct tcp_info *ti, struct err *e)
{
	socklen_t len = sizeof(*ti);

	memset(ti, 0, sizeof(*ti));
	return getsockopt(fd, IPPROTO_TCP, TCP_INFO, ti, &len) < 0 ? err_sys(e, "TCP_INFO") : 0;
}

/* states in which a socket has a peer, sequence numbers and queues */
static bool is_connected(int state)
{
	switch (state) {
	case TCP_ESTABLISHED:
	case TCP_CLOSE_WAIT:
	case TCP_FIN_WAIT1:
	case TCP_FIN_WAIT2:
	case TCP_CLOSING:
	case TCP_LAST_ACK: return true;
	default: return false;
	}
}

static bool fin_received(int state)
{
	return state == TCP_CLOSE_WAIT || state == TCP_CLOSING || state == TCP_LAST_ACK;
}

static bool fin_queued(int state)
{
	return state == TCP_FIN_WAIT1 || state == TCP_FIN_WAIT2 || state == TCP_CLOSING ||
	       state == TCP_LAST_ACK;
}

/* ---- what cannot be carried */

static int refuse(struct err *e, const char *what)
{
	return err_set(e, EOPNOTSUPP, "%s cannot be carried", what);
}

/**
 * tcp_check - can the socket @fd be carried? While the program runs.
 *
 * 0, -EOPNOTSUPP with the reason, or another negative errno. What changes by itself (urgent data, a
 * half-open connection) is looked at again by tcp_save(). TCP-MD5 keys cannot be seen from a
 * socket.
 */
int tcp_check(int fd, struct err *e)
{
	char ulp[16] = "", opts[40];
	socklen_t len;
	struct pollfd p = {.fd = fd, .events = POLLPRI};

	switch (get_int(fd, SOL_SOCKET, SO_DOMAIN, -1)) {
	case AF_INET: break;
	case AF_INET6:
		if (inet_check_v6(fd, "a TCP socket", e) < 0)
			return e ? e->code : -EOPNOTSUPP;
		break;
	default: return err_set(e, EOPNOTSUPP, "not a TCP socket");
	}
	if (get_int(fd, SOL_SOCKET, SO_PROTOCOL, -1) == IPPROTO_MPTCP)
		return refuse(e, "a multipath TCP socket");
	if (get_int(fd, SOL_SOCKET, SO_TYPE, -1) != SOCK_STREAM ||
	    get_int(fd, SOL_SOCKET, SO_PROTOCOL, -1) != IPPROTO_TCP)
		return err_set(e, EOPNOTSUPP, "not a TCP socket");
	len = sizeof(ulp);
	if (getsockopt(fd, IPPROTO_TCP, TCP_ULP, ulp, &len) == 0 && len > 0 && ulp[0])
		return err_set(
			e, EOPNOTSUPP,
			"a TCP socket with the upper layer protocol '%.15s' cannot be carried",
			ulp);
	if (get_int(fd, SOL_SOCKET, SO_ZEROCOPY, 0))
		return refuse(e, "a TCP socket with SO_ZEROCOPY");
	len = sizeof(opts);
	if (getsockopt(fd, IPPROTO_IP, IP_OPTIONS, opts, &len) == 0 && len > 0)
		return refuse(e, "a TCP socket with IP options");
	if (poll(&p, 1, 0) == 1 && (p.revents & POLLPRI))
		return refuse(e, "urgent data waiting in a TCP socket");
	return 0;
}

/* ---- save */

/*
 * A queue's last @want bytes into a fresh buffer. The kernel copies the send queue by whole
 * segments: of one that is acknowledged in part it gives the acknowledged beginning too, and it
 * says the full length even when the buffer was too short.
 */
static int peek_queue(int fd, int queue, uint32_t want, void **out, struct err *e)
{
	const char *name = queue == TCP_SEND_QUEUE ? "send" : "receive";
	autofree uint8_t *buf = NULL;
	size_t size = want;
	ssize_t n;
	int r;

	*out = NULL;
	if (want == 0)
		return 0;
	r = sockopt_set(fd, IPPROTO_TCP, TCP_REPAIR_QUEUE, queue, "TCP_REPAIR_QUEUE", e);
	if (r < 0)
		return r;
	for (;;) {
		free(buf);
		buf = malloc(size);
		if (!buf)
			return err_num(e, ENOMEM, "%s queue of %zu bytes", name, size);
		n = recv(fd, buf, size, MSG_PEEK | MSG_DONTWAIT);
		if (n < 0)
			return err_sys(e, "read the %s queue", name);
		if ((size_t)n <= size || size > want)
			break;
		size = (size_t)n;
	}
	if ((size_t)n < want || (size_t)n > size)
		return err_set(e, EAGAIN, "%s queue of %u bytes gave %zd: it is not still", name,
			       want, n);
	if ((size_t)n > want)
		memmove(buf, buf + (size_t)n - want, want);
	*out = take_ptr(&buf);
	return 0;
}

static int queue_seq(int fd, int queue, uint32_t *seq, struct err *e)
{
	socklen_t len = sizeof(*seq);
	int r = sockopt_set(fd, IPPROTO_TCP, TCP_REPAIR_QUEUE, queue, "TCP_REPAIR_QUEUE", e);

	if (r < 0)
		return r;
	return getsockopt(fd, IPPROTO_TCP, TCP_QUEUE_SEQ, seq, &len) < 0
		       ? err_sys(e, "TCP_QUEUE_SEQ")
		       : 0;
}

static void save_negotiated(const struct tcp_info *ti, struct tcp_state *s)
{
	s->sack = ti->tcpi_options & TCPI_OPT_SACK;
	s->ts = ti->tcpi_options & TCPI_OPT_TIMESTAMPS;
	s->wscale_ok = ti->tcpi_options & TCPI_OPT_WSCALE;
	s->snd_wscale = ti->tcpi_snd_wscale;
	s->rcv_wscale = ti->tcpi_rcv_wscale;
}

/* Lengths and sequence numbers. The kernel gives those of the ends, a FIN included; ours are of the
 * starts. */
static int save_queues(int fd, struct tcp_state *s, struct err *e)
{
	uint32_t outq, unsent, snd_end, rcv_end;
	int r;

	s->rcv_fin = fin_received(s->state);
	s->snd_fin = fin_queued(s->state);
	r = ask(fd, SIOCINQ, "SIOCINQ", &s->rcv_len, e);
	if (r < 0)
		return r;
	r = ask(fd, SIOCOUTQ, "SIOCOUTQ", &outq, e);
	if (r < 0)
		return r;
	r = ask(fd, SIOCOUTQNSD, "SIOCOUTQNSD", &unsent, e);
	if (r < 0)
		return r;
	r = queue_seq(fd, TCP_SEND_QUEUE, &snd_end, e);
	if (r < 0)
		return r;
	r = queue_seq(fd, TCP_RECV_QUEUE, &rcv_end, e);
	if (r < 0)
		return r;
	/* a FIN that is acknowledged is no longer in SIOCOUTQ, one that is not counts one there */
	s->snd_len = s->snd_fin && outq > 0 ? outq - 1 : outq;
	s->snd_unsent = unsent;
	s->snd_seq = snd_end - s->snd_len - (s->snd_fin ? 1 : 0);
	s->rcv_seq = rcv_end - s->rcv_len - (s->rcv_fin ? 1 : 0);
	if (s->snd_unsent > outq)
		return err_set(e, EPROTO, "%u bytes unsent of %u", unsent, outq);
	r = peek_queue(fd, TCP_SEND_QUEUE, s->snd_len, &s->snd_queue, e);
	if (r < 0)
		return r;
	return peek_queue(fd, TCP_RECV_QUEUE, s->rcv_len, &s->rcv_queue, e);
}

/* How far ahead of the clock, in ms, a segment may be stamped: at most by the time that one takes at
 * the pace of the connection, which may have been a quarter of what it is now. See "Timestamps". */
static uint32_t stamped_ahead(int fd)
{
	uint64_t rate, ti[PACING_RATE_AT / 8 + 1] = {0}; /* the header's struct ends before it */
	socklen_t len = sizeof(ti);

	if (getsockopt(fd, IPPROTO_TCP, TCP_INFO, ti, &len) < 0 || len < sizeof(ti))
		return AHEAD_MAX_MS;
	rate = ti[PACING_RATE_AT / 8];
	return rate ? (uint32_t)MIN(AHEAD_MIN_MS + PACED_BYTES * 1000 / rate, (uint64_t)AHEAD_MAX_MS) :
		      AHEAD_MAX_MS;
}

static int save_connected(int fd, const struct tcp_info *ti, struct tcp_state *s, struct err *e)
{
	int peek_off = tcp_opts_get(s, SOL_SOCKET, SO_PEEK_OFF, -1), r, v;
	struct pollfd p = {.fd = fd, .events = POLLRDHUP};
	socklen_t len = sizeof(s->window);

	save_negotiated(ti, s);
	if (!fin_received(s->state) && poll(&p, 1, 0) == 1)
		s->shut_rd = p.revents & POLLRDHUP;
	s->shut_wr = fin_queued(s->state);
	r = sockopt_set(fd, IPPROTO_TCP, TCP_REPAIR, TCP_REPAIR_ON, "TCP_REPAIR", e);
	if (r < 0)
		return r;
	/* repair mode says "forced" here; put back what tcp_undo() shall find */
	v = tcp_opts_get(s, SOL_SOCKET, SO_REUSEADDR, 0);
	r = sockopt_set(fd, SOL_SOCKET, SO_REUSEADDR, v, "SO_REUSEADDR", e);
	if (r < 0)
		return r;
	if (peek_off >= 0)
		sockopt_set(fd, SOL_SOCKET, SO_PEEK_OFF, -1, "SO_PEEK_OFF", NULL);
	r = save_queues(fd, s, e);
	if (peek_off >= 0)
		sockopt_set(fd, SOL_SOCKET, SO_PEEK_OFF, peek_off, "SO_PEEK_OFF", NULL);
	if (r < 0)
		return r;
	/* in repair mode: the peer's */
	s->mss = (uint32_t)get_int(fd, IPPROTO_TCP, TCP_MAXSEG, MSS_DEFAULT);
	s->ts_val = (uint32_t)get_int(fd, IPPROTO_TCP, TCP_TIMESTAMP, 0);
	s->ts_val += (stamped_ahead(fd) & ~1u) * (s->ts_val & 1 ? 1000 : 1); /* bit 0 tells the unit, and stays */
	if (getsockopt(fd, IPPROTO_TCP, TCP_REPAIR_WINDOW, &s->window, &len) < 0)
		return err_sys(e, "TCP_REPAIR_WINDOW");
	return sockopt_set(fd, IPPROTO_TCP, TCP_REPAIR_QUEUE, TCP_NO_QUEUE, "TCP_REPAIR_QUEUE", e);
}

static int save_syn_sent(int fd, struct tcp_state *s, struct err *e)
{
	uint32_t end;
	int r = sockopt_set(fd, IPPROTO_TCP, TCP_REPAIR, TCP_REPAIR_ON, "TCP_REPAIR", e), mss;

	if (r < 0)
		return r;
	sockopt_set(fd, SOL_SOCKET, SO_REUSEADDR, tcp_opts_get(s, SOL_SOCKET, SO_REUSEADDR, 0),
		"SO_REUSEADDR", NULL);
	/* before an answer has come it is in repair mode what the program has set, or 536 */
	mss = get_int(fd, IPPROTO_TCP, TCP_MAXSEG, MSS_DEFAULT);
	if (mss != MSS_DEFAULT && mss >= TCP_MSS_LEAST && mss <= TCP_MSS_MOST)
		tcp_opts_note(s, IPPROTO_TCP, TCP_MAXSEG, mss);
	r = queue_seq(fd, TCP_SEND_QUEUE, &end, e);
	if (r < 0)
		return r;
	s->snd_seq = end - 1; /* the SYN counts one */
	return sockopt_set(fd, IPPROTO_TCP, TCP_REPAIR_QUEUE, TCP_NO_QUEUE, "TCP_REPAIR_QUEUE", e);
}

static int save_names(int fd, struct tcp_state *s, struct err *e)
{
	union inet_name n = {0};
	socklen_t len = sizeof(n);

	if (getsockname(fd, &n.sa, &len) < 0)
		return err_sys(e, "getsockname");
	tcp_name_set(s, false, &n);
	s->bound = s->local.sin_port || s->local.sin_addr.s_addr;
	len = s->v6 ? sizeof(n.in6) : sizeof(n.in); /* not more than there is */
	/* unlike getpeername() it also answers in SYN_SENT, and after the end */
	if (getsockopt(fd, SOL_SOCKET, SO_PEERNAME, &n, &len) == 0)
		tcp_name_set(s, true, &n);
	return 0;
}

/* A socket whose connection is over: at its end in both directions, perhaps with data to read,
 * perhaps with an error to report (which one could only be asked by taking it). */
static int save_dead(int fd, short revents, struct tcp_state *s, struct err *e)
{
	autofree void *buf = NULL;
	ssize_t n;
	int r;

	s->shut_rd = s->shut_wr = true;
	if (revents & POLLERR)
		tcp_opts_note(s, SOL_SOCKET, SO_ERROR, ECONNRESET);
	r = ask(fd, SIOCINQ, "SIOCINQ", &s->rcv_len, e);
	if (r < 0 || s->rcv_len == 0)
		return r;
	buf = malloc(s->rcv_len);
	if (!buf)
		return err_num(e, ENOMEM, "receive queue of %u bytes", s->rcv_len);
	n = recv(fd, buf, s->rcv_len, MSG_PEEK | MSG_DONTWAIT);
	if (n < 0)
		return err_sys(e, "read the receive queue");
	s->rcv_len = (uint32_t)n;
	s->rcv_queue = take_ptr(&buf);
	return 0;
}

static int save_by_state(int fd, const struct tcp_info *ti, struct tcp_state *s, struct err *e)
{
	struct pollfd p = {.fd = fd, .events = POLLIN | POLLRDHUP};

	if (is_connected(s->state))
		return save_connected(fd, ti, s, e);
	switch (s->state) {
	case TCP_LISTEN:
		s->backlog = (int)ti->tcpi_sacked;
		if (ti->tcpi_unacked)
			return err_set(e, EBUSY, "%u connections wait to be accepted",
				       ti->tcpi_unacked);
		return 0;
	case TCP_CLOSE:
		/* a socket that had a connection is at its end in both directions, a fresh one is
		 * not */
		if (poll(&p, 1, 0) == 1 && (p.revents & POLLRDHUP))
			return save_dead(fd, p.revents, s, e);
		memset(&s->peer, 0, sizeof(s->peer));
		memset(&s->peer6, 0, sizeof(s->peer6));
		return 0;
	case TCP_SYN_SENT: return save_syn_sent(fd, s, e);
	default:
		return err_set(e, EOPNOTSUPP, "a TCP socket in state %d cannot be carried",
			       s->state);
	}
}

/**
 * tcp_save - the whole state of the TCP socket @fd
 *
 * The filter is up and no task of the pod runs. A connection is left in repair mode: a close then
 * sends nothing; tcp_undo() ends it. *@out is valid after success only and is the caller's to
 * free with tcp_state_done(). -EOPNOTSUPP: cannot be carried; -EBUSY: connections wait to be
 * accepted.
 */
int tcp_save(int fd, struct tcp_state *out, struct err *e)
{
	struct tcp_state s = {0};
	struct tcp_info ti;
	char a[24], b[24];
	int r;

	r = tcp_check(fd, e);
	if (r < 0)
		return r;
	r = info(fd, &ti, e);
	if (r < 0)
		return r;
	s.state = ti.tcpi_state;
	s.sndbuf = (uint32_t)get_int(fd, SOL_SOCKET, SO_SNDBUF, 0);
	s.rcvbuf = (uint32_t)get_int(fd, SOL_SOCKET, SO_RCVBUF, 0);
	s.nonblock = fcntl(fd, F_GETFL) & O_NONBLOCK;
	r = save_names(fd, &s, e);
	if (r < 0)
		return r;
	r = tcp_opts_save(fd, &s, e);
	if (r == 0)
		r = save_by_state(fd, &ti, &s, e);
	if (r < 0) {
		tcp_state_done(&s);
		tcp_undo(fd);
		return err_wrap(e, "TCP %s -> %s", tcp_addr(&s.local, a), tcp_addr(&s.peer, b));
	}
	*out = s;
	return 0;
}

/** tcp_state_done - free what a saved state owns */
void tcp_state_done(struct tcp_state *s)
{
	free(s->snd_queue);
	free(s->rcv_queue);
	s->snd_queue = s->rcv_queue = NULL;
}

/**
 * tcp_undo - the source goes on with @fd after tcp_save()
 *
 * After filter_clear(): it also pushes what TCP tried to send in vain while the filter was up,
 * which would otherwise wait for a timer of 200 ms.
 */
void tcp_undo(int fd)
{
	int reuse = get_int(fd, SOL_SOCKET, SO_REUSEADDR, 0), nodelay;

	if (get_int(fd, IPPROTO_TCP, TCP_REPAIR, 0) != 1)
		return;
	sockopt_set(fd, IPPROTO_TCP, TCP_REPAIR, TCP_REPAIR_OFF_NO_WP, "TCP_REPAIR", NULL);
	sockopt_set(fd, SOL_SOCKET, SO_REUSEADDR, reuse == 1, "SO_REUSEADDR", NULL);
	nodelay = get_int(fd, IPPROTO_TCP, TCP_NODELAY, 0);
	sockopt_set(fd, IPPROTO_TCP, TCP_NODELAY, 1, "TCP_NODELAY", NULL);
	if (!nodelay)
		sockopt_set(fd, IPPROTO_TCP, TCP_NODELAY, 0, "TCP_NODELAY", NULL);
}

/** tcp_pending - connections that wait to be accepted, over the listeners @fds[@n]; or negative
 * errno */
int tcp_pending(const int *fds, size_t n, struct err *e)
{
	struct tcp_info ti;
	int sum = 0, r;
	size_t i;

	for (i = 0; i < n; i++) {
		r = info(fds[i], &ti, e);
		if (r < 0)
			return r;
		if (ti.tcpi_state == TCP_LISTEN)
			sum += (int)ti.tcpi_unacked;
	}
	return sum;
}

/** tcp_wire_empty - 1: all that @fd has sent is acknowledged; 0: not yet; or negative errno */
int tcp_wire_empty(int fd, struct err *e)
{
	uint32_t outq, unsent;
	struct tcp_info ti;
	int r = info(fd, &ti, e);

	if (r < 0)
		return r;
	if (!is_connected(ti.tcpi_state))
		return 1;
	r = ask(fd, SIOCOUTQ, "SIOCOUTQ", &outq, e);
	if (r < 0)
		return r;
	r = ask(fd, SIOCOUTQNSD, "SIOCOUTQNSD", &unsent, e);
	return r < 0 ? r : outq == unsent;
}
