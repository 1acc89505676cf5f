/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * The other half of tcp.c (whose theory of operation covers both): a saved state becomes a socket.
 *
 *   any state    options that must come first; bind. The address is shared by force: repair mode
 * allows a bind whatever other sockets hold, and SO_REUSEADDR is 1 for those that are not in it;
 * the program's value is set by tcp_release(), and on listeners when they listen connected sequence
 * numbers, connect() (no packet: repair mode), what was negotiated, receive queue, the sent part of
 * the send queue, closing states, windows tcp_release  repair off, unsent tail, FIN if it was not
 * sent, late options
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/sock_diag.h>
#include <linux/sockios.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <time.h>

#include "netfreeze/tcp_int.h"
#include "pod/base/io.h"
#include "pod/base/kernel.h"
#include "pod/base/util.h"

#define CHUNK     (128u << 10)
#define SETTLE_MS 500
#define ROOMY_MAX (32u << 20)
#define ROOM      8 /* 32nds */
#define TCPOPT_CODE_MSS    2
#define TCPOPT_CODE_WSCALE 3
#define TCPOPT_CODE_SACK   4
#define TCPOPT_CODE_TS     8

static int bind_to(int fd, const struct tcp_state *s, struct err *e)
{
	union inet_name n;
	socklen_t len = tcp_name_of(s, false, &n);

	return bind(fd, &n.sa, len) < 0 ? err_sys(e, "bind") : 0;
}

static int connect_to(int fd, const struct tcp_state *s)
{
	union inet_name n;
	socklen_t len = tcp_name_of(s, true, &n);

	return connect(fd, &n.sa, len);
}

static int get_state(int fd, struct err *e)
{
	struct tcp_info ti = {0};
	socklen_t len = sizeof(ti);

	return getsockopt(fd, IPPROTO_TCP, TCP_INFO, &ti, &len) < 0 ? err_sys(e, "TCP_INFO")
								    : ti.tcpi_state;
}

/* An image is hostile input: what the kernel would not check is checked here. */
static int validate(const struct tcp_state *s, struct err *e)
{
	if (s->local.sin_family != AF_INET || s->nopt > ARRAY_SIZE(s->opt))
		return err_set(e, EPROTO, "TCP state: address family or options");
	if ((s->snd_len && !s->snd_queue) || (s->rcv_len && !s->rcv_queue) ||
	    s->snd_len > SOCK_BUF_MAX || s->rcv_len > SOCK_BUF_MAX)
		return err_set(e, EPROTO, "TCP state: queues");
	if (s->snd_unsent > s->snd_len + (s->snd_fin ? 1 : 0))
		return err_set(e, EPROTO, "TCP state: %u bytes unsent of %u", s->snd_unsent,
			       s->snd_len);
	return 0;
}

static int queue_seq_set(int fd, int queue, uint32_t seq, struct err *e)
{
	int r = sockopt_set(fd, IPPROTO_TCP, TCP_REPAIR_QUEUE, queue, "TCP_REPAIR_QUEUE", e);

	return r < 0 ? r : sockopt_set(fd, IPPROTO_TCP, TCP_QUEUE_SEQ, (int)seq, "TCP_QUEUE_SEQ", e);
}

static int queue_chunks(int fd, int queue, const uint8_t *p, size_t len, struct err *e)
{
	const char *name = queue == TCP_SEND_QUEUE ? "send" : "receive";
	size_t done = 0;
	int r;

	if (!len)
		return 0;
	r = sockopt_set(fd, IPPROTO_TCP, TCP_REPAIR_QUEUE, queue, "TCP_REPAIR_QUEUE", e);
	while (r == 0 && done < len) {
		ssize_t n = send(fd, p + done, MIN(len - done, CHUNK), MSG_DONTWAIT | MSG_NOSIGNAL);

		if (n <= 0)
			return err_sys(e, "fill the %s queue at %zu of %zu bytes", name, done, len);
		done += (size_t)n;
	}
	return r;
}

/*
 * The byte that gives the round trip time. What is written in repair mode gives none, only the stamp that the peer echoes,
 * which is as old as the hole if one is open. So it is written outside, corked, and pushed inside, which counts it as sent.
 * MSG_EOR: nothing is added to it.
 */
static int queue_sample(int fd, struct err *e)
{
	int r = sockopt_set(fd, IPPROTO_TCP, TCP_REPAIR, TCP_REPAIR_OFF_NO_WP, "TCP_REPAIR", e);

	if (r == 0)
		r = sockopt_set(fd, IPPROTO_TCP, TCP_CORK, 1, "TCP_CORK", e);
	if (r == 0 && send(fd, "", 1, MSG_EOR | MSG_DONTWAIT | MSG_NOSIGNAL) != 1)
		r = err_sys(e, "send the byte before the queue");
	if (r == 0)
		r = sockopt_set(fd, IPPROTO_TCP, TCP_REPAIR, TCP_REPAIR_ON, "TCP_REPAIR", e);
	if (r == 0)
		r = sockopt_set(fd, IPPROTO_TCP, TCP_REPAIR_QUEUE, TCP_SEND_QUEUE, "TCP_REPAIR_QUEUE", e);
	return r < 0 ? r : sockopt_set(fd, IPPROTO_TCP, TCP_CORK, 0, "TCP_CORK", e);
}

static int set_negotiated(int fd, const struct tcp_state *s, struct err *e)
{
	struct tcp_repair_opt o[4];
	int n = 0;

	o[n++] = (struct tcp_repair_opt){TCPOPT_CODE_MSS, s->mss};
	if (s->wscale_ok)
		o[n++] = (struct tcp_repair_opt){TCPOPT_CODE_WSCALE,
						 s->snd_wscale | (uint32_t)s->rcv_wscale << 16};
	if (s->sack)
		o[n++] = (struct tcp_repair_opt){TCPOPT_CODE_SACK, 0};
	if (s->ts)
		o[n++] = (struct tcp_repair_opt){TCPOPT_CODE_TS, 0};
	if (setsockopt(fd, IPPROTO_TCP, TCP_REPAIR_OPTIONS, o, (socklen_t)n * sizeof(o[0])) < 0)
		return err_sys(e, "TCP_REPAIR_OPTIONS");
	if (s->ts && sockopt_set(fd, IPPROTO_TCP, TCP_TIMESTAMP, (int)s->ts_val, "TCP_TIMESTAMP", e) < 0)
		return e ? e->code : -EIO;
	return 0;
}

/* connect() worked out the segment size with the default of 536; empty IP options make the kernel
 * do it again. Also when the window is known: segments larger than half of the largest window would
 * wait for a timer of 3 s, each. */
static int segment_size(int fd, struct err *e)
{
	return setsockopt(fd, IPPROTO_IP, IP_OPTIONS, NULL, 0) < 0 ? err_sys(e, "IP_OPTIONS") : 0;
}

static int set_window(int fd, const struct tcp_state *s, bool before_fin, struct err *e)
{
	struct tcp_repair_window w = s->window;

	if (before_fin && w.rcv_wup == s->rcv_seq + s->rcv_len + 1)
		w.rcv_wup--; /* not acknowledged before it has come */
	return setsockopt(fd, IPPROTO_TCP, TCP_REPAIR_WINDOW, &w, sizeof(w)) < 0
		       ? err_sys(e, "TCP_REPAIR_WINDOW")
		       : 0;
}

/* A segment over lo is taken by the time sendto() returns, unless ksoftirqd has it. */
static int wait_state(int fd, int want, struct err *e)
{
	static const struct timespec nap = {0, 20000};
	uint64_t end = deadline_ms(SETTLE_MS);
	int st;

	for (;;) {
		st = get_state(fd, e);
		if (st < 0 || st == want)
			return st < 0 ? st : 0;
		if (deadline_past(end))
			return err_set(e, ETIMEDOUT, "is in state %d and does not reach %d", st,
				       want);
		nanosleep(&nap, NULL);
	}
}

static int own_fin(int fd, struct err *e)
{
	int r = sockopt_set(fd, IPPROTO_TCP, TCP_REPAIR_QUEUE, TCP_SEND_QUEUE, "TCP_REPAIR_QUEUE", e);

	if (r < 0)
		return r;
	if (shutdown(fd, SHUT_WR) < 0)
		return err_sys(e, "shutdown");
	return sockopt_set(fd, IPPROTO_TCP, TCP_REPAIR_QUEUE, TCP_NO_QUEUE, "TCP_REPAIR_QUEUE", e);
}

/* From ESTABLISHED into the closing state, in the order in which the FINs came: ours, when it was
 * sent, by shutdown() in repair mode; the peer's, and its acknowledgement of ours, as segments over
 * lo. */
static int close_states(int fd, int netns, const struct tcp_state *s, struct err *e)
{
	const bool sent_fin = s->snd_fin && s->snd_unsent == 0;
	const uint32_t rcv_end = s->rcv_seq + s->rcv_len;
	int r = 0;

	if (sent_fin && s->state != TCP_LAST_ACK)
		r = own_fin(fd, e);
	if (r == 0 && s->state == TCP_FIN_WAIT2) {
		r = forge_deliver(netns, s, rcv_end, s->snd_seq + s->snd_len + 1, FORGE_ACK, e);
		if (r == 0)
			r = wait_state(fd, TCP_FIN_WAIT2, e);
	}
	if (r == 0 && s->rcv_fin) {
		r = set_window(fd, s, true, e);
		if (r == 0)
			r = forge_deliver(netns, s, rcv_end, s->snd_seq, FORGE_FIN, e);
		if (r == 0)
			r = wait_state(fd,
				       sent_fin && s->state == TCP_CLOSING ? TCP_CLOSING
									   : TCP_CLOSE_WAIT,
				       e);
	}
	if (r == 0 && sent_fin && s->state == TCP_LAST_ACK)
		r = own_fin(fd, e);
	if (r == 0 && s->shut_rd && !s->rcv_fin && shutdown(fd, SHUT_RD) < 0)
		r = err_sys(e, "shutdown");
	return r;
}

static bool rcvbuf_locked(const struct tcp_state *s)
{
	return tcp_opts_get(s, SOL_SOCKET, SO_BUF_LOCK, 0) & SOCK_RCVBUF_LOCK;
}

static uint32_t queued_memory(int fd)
{
	uint32_t mem[SK_MEMINFO_VARS] = {0};
	socklen_t len = sizeof(mem);

	getsockopt(fd, SOL_SOCKET, SO_MEMINFO, mem, &len);
	return mem[SK_MEMINFO_RMEM_ALLOC];
}

/*
 * The receive buffer that holds what is queued and what the peer may send into the advertised
 * window. The same bytes take a little more memory here than they took there: the queue was
 * refilled, and each replayed frame keeps its ~1.3 KiB of overhead (8 % with frames of 16 KiB). What
 * does not fit is dropped, a stall of 200 ms. @part of 32 is what is added for that.
 */
static uint32_t roomy_rcvbuf(int fd, const struct tcp_state *s, unsigned part)
{
	uint64_t wnd = s->window.rcv_wnd, came = 0, need;
	int now = 0;

	if (ioctl(fd, SIOCINQ, &now) == 0 && now > 0 && (uint32_t)now > s->rcv_len)
		came = (uint32_t)now - s->rcv_len;
	wnd -= MIN(wnd, came);
	need = queued_memory(fd) + wnd + wnd * part / 32 + (64u << 10);
	return (uint32_t)MAX(s->rcvbuf, MIN(need, (uint64_t)ROOMY_MAX));
}

static uint32_t rcvbuf_now(int fd)
{
	uint32_t size = 0;
	socklen_t len = sizeof(size);

	getsockopt(fd, SOL_SOCKET, SO_RCVBUF, &size, &len);
	return size;
}

/* Without the FIN, which counts one in snd_unsent if it was not sent. */
static uint32_t unsent_bytes(const struct tcp_state *s)
{
	return s->snd_unsent - (s->snd_fin && s->snd_unsent ? 1 : 0);
}

/* Is the new socket in ESTABLISHED until tcp_release()? An unsent FIN is not there yet. */
static bool still_open(const struct tcp_state *s)
{
	return s->state == TCP_ESTABLISHED || (s->snd_fin && s->snd_unsent && !s->rcv_fin);
}

static int restore_connected(int fd, int netns, const struct tcp_state *s, struct err *e)
{
	const size_t sent = s->snd_len - unsent_bytes(s);
	/* the byte before the queue counts as under way, see "Round trip time" in tcp.c */
	const bool sampled = still_open(s);
	uint32_t room;
	int r;

	/* connect() takes its first window from the receive buffer */
	r = sockopt_set_buffers(fd, s->sndbuf, s->rcvbuf, e);
	if (r < 0)
		return r;
	r = queue_seq_set(fd, TCP_SEND_QUEUE, s->snd_seq - (sampled ? 1 : 0), e);
	if (r < 0)
		return r;
	r = queue_seq_set(fd, TCP_RECV_QUEUE, s->rcv_seq, e);
	if (r < 0)
		return r;
	if (connect_to(fd, s) < 0)
		return err_sys(e, "connect");
	r = set_negotiated(fd, s, e);
	if (r == 0)
		r = segment_size(fd, e);
	if (r < 0)
		return r;
	/* queued memory is more than its bytes; the real sizes come back later */
	r = sockopt_set_buffers(fd, MAX(s->sndbuf, 4 * s->snd_len + (1 << 20)),
			MAX(s->rcvbuf, 4 * s->rcv_len + (1 << 20)), e);
	if (r < 0)
		return r;
	r = queue_chunks(fd, TCP_RECV_QUEUE, s->rcv_queue, s->rcv_len, e);
	if (r < 0)
		return r;
	r = sampled ? queue_sample(fd, e) : 0;
	if (r < 0)
		return r;
	r = queue_chunks(fd, TCP_SEND_QUEUE, s->snd_queue, sent, e);
	if (r < 0)
		return r;
	r = sockopt_set(fd, IPPROTO_TCP, TCP_REPAIR_QUEUE, TCP_NO_QUEUE, "TCP_REPAIR_QUEUE", e);
	if (r < 0)
		return r;
	r = close_states(fd, netns, s, e);
	if (r < 0)
		return r;
	r = set_window(fd, s, false, e);
	if (r == 0)
		r = segment_size(fd, e);
	if (r < 0)
		return r;
	/* a size that the program has set is kept: a peer in the pod, which is released before, would
	 * see a window that it never sees again, and size its segments by it */
	room = rcvbuf_locked(s) ? MIN(s->rcvbuf, SOCK_BUF_MAX) : roomy_rcvbuf(fd, s, ROOM);
	r = sockopt_set(fd, SOL_SOCKET, SO_RCVBUFFORCE, (int)(room / 2), "SO_RCVBUF", e);
	/* or the window grows with the buffer while held frames are replayed */
	tcp_opts_set(fd, s, IPPROTO_TCP, TCP_WINDOW_CLAMP);
	return r < 0 ? r : tcp_opts_restore(fd, s, OPT_LATE, e);
}

static bool has_peer(const struct tcp_state *s)
{
	return s->state != TCP_CLOSE && s->state != TCP_LISTEN && s->state != TCP_SYN_SENT;
}

/* A connection that is over: one is made from nothing, given what is left to read, and reset by its
 * peer, as we say. The port stays free (this one's may have a new user), the name of the local end
 * is lost. */
static int restore_dead(int fd, int netns, const struct tcp_state *saved, struct err *e)
{
	struct tcp_state s = *saved;
	union inet_name n;
	socklen_t len = sizeof(n);
	int r, error = 0;

	s.local.sin_port = 0;
	r = bind_to(fd, &s, e);
	if (r < 0)
		return r;
	if (!s.peer.sin_port) {
		s.peer = (struct sockaddr_in){
			.sin_family = AF_INET, .sin_port = htons(9), .sin_addr = s.local.sin_addr};
		s.peer6 = s.local6;
	}
	s.rcv_seq = s.snd_seq = 1;
	r = queue_seq_set(fd, TCP_SEND_QUEUE, s.snd_seq, e);
	if (r == 0)
		r = queue_seq_set(fd, TCP_RECV_QUEUE, s.rcv_seq, e);
	if (r < 0)
		return r;
	if (connect_to(fd, &s) < 0 || getsockname(fd, &n.sa, &len) < 0)
		return err_sys(e, "connect");
	tcp_name_set(&s, false, &n);
	r = sockopt_set_buffers(fd, s.sndbuf, MAX(s.rcvbuf, 4 * s.rcv_len + (1 << 20)), e);
	if (r == 0)
		r = queue_chunks(fd, TCP_RECV_QUEUE, s.rcv_queue, s.rcv_len, e);
	if (r == 0)
		r = sockopt_set(fd, IPPROTO_TCP, TCP_REPAIR_QUEUE, TCP_NO_QUEUE, "TCP_REPAIR_QUEUE", e);
	if (r == 0)
		r = forge_deliver(netns, &s, s.rcv_seq + s.rcv_len, s.snd_seq, FORGE_RST, e);
	if (r == 0)
		r = wait_state(fd, TCP_CLOSE, e);
	len = sizeof(error);
	if (r == 0 && !tcp_opts_get(&s, SOL_SOCKET, SO_ERROR, 0) &&
	    getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &len) < 0) /* which takes it */
		return err_sys(e, "SO_ERROR");
	return r < 0 ? r : tcp_opts_restore(fd, &s, OPT_LATE, e);
}

/**
 * tcp_reset - the peer of connection @s, restored on @fd and out of repair mode, is gone: it sends a reset, as we say
 *
 * Nothing leaves the namespace. What was received can still be read; then the program sees ECONNRESET.
 */
int tcp_reset(int fd, int netns, const struct tcp_state *s, struct err *e)
{
	uint32_t end = s->rcv_seq + s->rcv_len + (s->rcv_fin ? 1 : 0);
	int r = forge_deliver(netns, s, end, s->snd_seq, FORGE_RST, e);

	return r < 0 ? r : wait_state(fd, TCP_CLOSE, e);
}

static int restore_by_state(int fd, int netns, const struct tcp_state *s, struct err *e)
{
	switch (s->state) {
	case TCP_ESTABLISHED:
	case TCP_CLOSE_WAIT:
	case TCP_FIN_WAIT1:
	case TCP_FIN_WAIT2:
	case TCP_CLOSING:
	case TCP_LAST_ACK: return restore_connected(fd, netns, s, e);
	case TCP_SYN_SENT:
		if (tcp_opts_restore(fd, s, OPT_LATE, e) < 0)
			return e ? e->code : -EIO;
		return queue_seq_set(fd, TCP_SEND_QUEUE, s->snd_seq, e);
	case TCP_LISTEN:
		if (sockopt_set_buffers(fd, s->sndbuf, s->rcvbuf, e) < 0 ||
		    tcp_opts_restore(fd, s, OPT_LATE, e) < 0)
			return e ? e->code : -EIO;
		return listen(fd, s->backlog) < 0 ? err_sys(e, "listen") : 0;
	case TCP_CLOSE:
		if (s->shut_rd)
			return restore_dead(fd, netns, s, e);
		return tcp_opts_restore(fd, s, OPT_LATE, e);
	default: return err_set(e, EOPNOTSUPP, "state %d cannot be restored", s->state);
	}
}

static int restore_on(int fd, int netns, const struct tcp_state *s, struct err *e)
{
	int fl = fcntl(fd, F_GETFL), r;

	r = validate(s, e);
	if (r < 0)
		return r;
	/* other sockets may share the port, those that come later too; the program's value:
	 * tcp_release() */
	r = sockopt_set(fd, SOL_SOCKET, SO_REUSEADDR, 1, "SO_REUSEADDR", e);
	if (r == 0 && s->state != TCP_LISTEN)
		r = sockopt_set(fd, IPPROTO_TCP, TCP_REPAIR, TCP_REPAIR_ON, "TCP_REPAIR", e);
	if (r == 0)
		r = tcp_opts_restore(fd, s, OPT_EARLY, e);
	if (r < 0)
		return r;
	if (s->bound && !(s->state == TCP_CLOSE && s->shut_rd) && bind_to(fd, s, e) < 0)
		return e ? e->code : -EIO;
	r = restore_by_state(fd, netns, s, e);
	if (r == 0 && fcntl(fd, F_SETFL, s->nonblock ? fl | O_NONBLOCK : fl & ~O_NONBLOCK) < 0)
		r = err_sys(e, "O_NONBLOCK");
	return r;
}

/**
 * tcp_restore_on - give the fresh TCP socket @fd of @netns the state @s
 *
 * FILTER_BLOCK is set there. The socket is left in repair mode (a listening one listens) until
 * tcp_release(). After a failure the caller closes @fd.
 */
int tcp_restore_on(int fd, int netns, const struct tcp_state *s, struct err *e)
{
	struct err mine = {0};
	char a[24], b[24];
	int r = restore_on(fd, netns, s, &mine);

	if (r == 0)
		return 0;
	if (e)
		*e = mine;
	err_wrap(e, "TCP %s -> %s", tcp_addr(&s->local, a), tcp_addr(&s->peer, b));
	return r;
}

/** tcp_restore - make a TCP socket with the state @s in @netns: an O_CLOEXEC fd or a negative errno
 */
int tcp_restore(int netns, const struct tcp_state *s, struct err *e)
{
	autoclose int fd = netns_socket(netns, s->v6 ? AF_INET6 : AF_INET, SOCK_STREAM,
					IPPROTO_TCP, e);
	int r;

	if (fd < 0)
		return fd;
	r = tcp_restore_on(fd, netns, s, e);
	return r < 0 ? r : take_fd(&fd);
}

/* The tail that was never sent goes through the ordinary send path now, and so out. It has fitted
 * before: the buffer is made large enough for a moment. */
static int send_tail(int fd, const struct tcp_state *s, struct err *e)
{
	const uint32_t tail = unsent_bytes(s);
	const uint8_t *p = (const uint8_t *)s->snd_queue + (s->snd_len - tail);
	size_t done = 0;

	while (done < tail) {
		ssize_t n = send(fd, p + done, tail - done, MSG_DONTWAIT | MSG_NOSIGNAL);

		if (n < 0)
			return err_sys(e, "send the queue's tail at %zu of %u bytes", done, tail);
		done += (size_t)n;
	}
	if (s->snd_fin && s->snd_unsent && shutdown(fd, SHUT_WR) < 0)
		return err_sys(e, "shutdown");
	return 0;
}

/* With the same sequence number, so the peer sees one SYN twice. Its answer comes as to any
 * connect(2). */
static int connect_again(int fd, const struct tcp_state *s, struct err *e)
{
	int fl = fcntl(fd, F_GETFL), r;

	fcntl(fd, F_SETFL, fl | O_NONBLOCK);
	r = connect_to(fd, s);
	if (r < 0 && errno != EINPROGRESS)
		r = err_sys(e, "connect");
	else
		r = 0;
	fcntl(fd, F_SETFL, fl);
	return r;
}

/**
 * tcp_release - the restored socket @fd leaves repair mode
 *
 * For sockets in every state, when all sockets of the pod exist. With FILTER_BLOCK or FILTER_MUTE
 * still up it makes a socket that lives by itself when the filter goes down, if late (a timer of
 * 0.2 to 3 s); tcp_push() then makes it speak at once. May be called again, with snd_unsent = 0, to
 * set sizes and options anew. 0 or a negative errno; the socket is out of repair mode in any case.
 */
int tcp_release(int fd, const struct tcp_state *s, struct err *e)
{
	const bool has_queues = has_peer(s);
	uint32_t rcvbuf = MIN(s->rcvbuf, SOCK_BUF_MAX);
	int r = 0;

	/* never less than there is: a window may have been offered by that, see "Receive memory" in tcp.c */
	if (has_queues && !rcvbuf_locked(s))
		rcvbuf = MAX(roomy_rcvbuf(fd, s, ROOM), rcvbuf_now(fd));
	if (s->state != TCP_LISTEN)
		r = sockopt_set(fd, IPPROTO_TCP, TCP_REPAIR,
			    still_open(s) ? TCP_REPAIR_OFF : TCP_REPAIR_OFF_NO_WP, "TCP_REPAIR", e);
	if (r == 0 && has_queues)
		r = send_tail(fd, s, e);
	if (r == 0 && s->state == TCP_SYN_SENT)
		r = connect_again(fd, s, e);
	if (r == 0)
		r = sockopt_set_buffers(fd, s->sndbuf, rcvbuf, e);
	/* unless carried, see the table */
	if (r == 0)
		r = sockopt_set(fd, SOL_SOCKET, SO_REUSEADDR, 0, "SO_REUSEADDR", e);
	if (r == 0)
		r = tcp_opts_restore(fd, s, OPT_RELEASE, e);
	return r;
}

/**
 * tcp_push - the released connection @fd speaks at once
 *
 * When the link is attached and the filter open: sends what is queued and a window probe, which
 * makes the peer say what it has received and gives the connection its round trip time (tcp.c). The
 * program may run already. Cannot fail.
 */
void tcp_push(int fd, const struct tcp_state *s)
{
	int reuse = 0, nodelay = 0;
	socklen_t len = sizeof(int);

	if (!has_peer(s))
		return;
	if (getsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &reuse, &len) == 0 &&
	    sockopt_set(fd, IPPROTO_TCP, TCP_REPAIR, TCP_REPAIR_OFF, "TCP_REPAIR", NULL) == 0)
		sockopt_set(fd, SOL_SOCKET, SO_REUSEADDR, reuse, "SO_REUSEADDR",
			NULL); /* which that cleared */
	/* setting TCP_NODELAY pushes, whatever it was */
	getsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &nodelay, &len);
	sockopt_set(fd, IPPROTO_TCP, TCP_NODELAY, 1, "TCP_NODELAY", NULL);
	if (!nodelay)
		sockopt_set(fd, IPPROTO_TCP, TCP_NODELAY, 0, "TCP_NODELAY", NULL);
}

/**
 * tcp_settle - keep the windows of a restored connection as they were
 *
 * Some milliseconds after tcp_release(), when data has come; the program runs. The spare room of
 * the receive buffer stays, because the peer may already have been told of it, but the window is
 * bound again to what it was: the kernel has tied it to the buffer with the first data, and it
 * would grow from move to move. Cannot fail.
 */
void tcp_settle(int fd, const struct tcp_state *s)
{
	int lock = 0;
	socklen_t len = sizeof(lock);

	if (!has_peer(s) || rcvbuf_locked(s))
		return;
	/* a size that the program has set meanwhile is its own business */
	if (getsockopt(fd, SOL_SOCKET, SO_BUF_LOCK, &lock, &len) < 0 || (lock & SOCK_RCVBUF_LOCK))
		return;
	tcp_opts_set(fd, s, IPPROTO_TCP, TCP_WINDOW_CLAMP);
}
