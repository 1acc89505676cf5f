/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * The socket options that travel with a TCP socket: one table. An option is stored if its value is
 * not the kernel's constant default; where the default is a sysctl it is always stored, so that the
 * program finds on the target what it had. Options that a connection shows but that are state of
 * the protocol (MSS, window scale, ...) are in tcp.c; options that cannot be carried are refused by
 * tcp_check().
 */
#include <errno.h>
#include <string.h>
#include <sys/socket.h>

#include "netfreeze/tcp_int.h"
#include "pod/base/util.h"

static const struct opt_row rows[] = {
	/* what we forge comes by lo */
	RAW_OPT(SOL_SOCKET, SO_BINDTODEVICE, 16, OPT_LATE, IN_ALL),
	INT_OPT(SOL_SOCKET, SO_REUSEPORT, OPT_EARLY, IN_ALL, 0),
	INT_OPT(SOL_SOCKET, SO_KEEPALIVE, OPT_EARLY, IN_ALL, 0),
	INT_OPT(SOL_SOCKET, SO_OOBINLINE, OPT_EARLY, IN_ALL, 0),
	INT_OPT(SOL_SOCKET, SO_PRIORITY, OPT_LATE, IN_ALL, 0), /* IP_TOS sets it too */
	INT_OPT(SOL_SOCKET, SO_MARK, OPT_EARLY, IN_ALL, 0),
	INT_OPT(SOL_SOCKET, SO_BROADCAST, OPT_EARLY, IN_ALL, 0),
	INT_OPT(SOL_SOCKET, SO_DONTROUTE, OPT_EARLY, IN_ALL, 0),
	INT_OPT(SOL_SOCKET, SO_NO_CHECK, OPT_EARLY, IN_ALL, 0),
	INT_OPT(SOL_SOCKET, SO_TIMESTAMP, OPT_EARLY, IN_ALL, 0),
	INT_OPT(SOL_SOCKET, SO_TIMESTAMPNS, OPT_EARLY, IN_ALL, 0),
	INT_OPT(SOL_SOCKET, SO_RXQ_OVFL, OPT_EARLY, IN_ALL, 0),
	INT_OPT(SOL_SOCKET, SO_BUSY_POLL, OPT_EARLY, IN_ALL, ALWAYS),
	INT_OPT(SOL_SOCKET, SO_MAX_PACING_RATE, OPT_EARLY, IN_ALL, -1),
	INT_OPT(SOL_SOCKET, SO_INCOMING_CPU, OPT_EARLY, IN_LISTEN, -1),
	INT_OPT(SOL_SOCKET, SO_PEEK_OFF, OPT_RELEASE, IN_ALL, -1),
	/* leaving repair mode clears it: 2 (forced) -> 0 */
	INT_OPT(SOL_SOCKET, SO_REUSEADDR, OPT_RELEASE, IN_ALL, 0),
	/* setting a buffer size locks it, so after all sizes */
	INT_OPT(SOL_SOCKET, SO_BUF_LOCK, OPT_RELEASE, IN_ALL, ALWAYS),
	/* is cut to half of a locked buffer */
	INT_OPT(SOL_SOCKET, SO_RCVLOWAT, OPT_RELEASE, IN_ALL, 1),
	RAW_OPT(SOL_SOCKET, SO_LINGER, sizeof(struct linger), OPT_EARLY, IN_ALL),
	RAW_OPT(SOL_SOCKET, SO_RCVTIMEO, sizeof(struct timeval), OPT_RELEASE, IN_ALL),
	RAW_OPT(SOL_SOCKET, SO_SNDTIMEO, sizeof(struct timeval), OPT_RELEASE, IN_ALL),

	INT_OPT(IPPROTO_IP, IP_TOS, OPT_EARLY, IN_ALL, 0),
	INT_OPT(IPPROTO_IP, IP_TTL, OPT_EARLY, IN_ALL, ALWAYS),
	INT_OPT(IPPROTO_IP, IP_MTU_DISCOVER, OPT_EARLY, IN_ALL, ALWAYS),
	INT_OPT(IPPROTO_IP, IP_TRANSPARENT, OPT_EARLY, IN_ALL, 0),
	INT_OPT(IPPROTO_IP, IP_FREEBIND, OPT_EARLY, IN_ALL, 0),
	INT_OPT(IPPROTO_IP, IP_RECVERR, OPT_EARLY, IN_ALL, 0),
	INT_OPT(IPPROTO_IP, IP_PKTINFO, OPT_EARLY, IN_ALL, 0),
	INT_OPT(IPPROTO_IP, IP_RECVTOS, OPT_EARLY, IN_ALL, 0),
	INT_OPT(IPPROTO_IP, IP_RECVTTL, OPT_EARLY, IN_ALL, 0),
	INT_OPT(IPPROTO_IP, IP_MINTTL, OPT_EARLY, IN_ALL, 0),
	INT_OPT(IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, OPT_EARLY, IN_ALL, 0),
	INT_OPT(IPPROTO_IP, IP_LOCAL_PORT_RANGE, OPT_EARLY, IN_ALL, 0),

	INT_OPT(IPPROTO_IPV6, IPV6_V6ONLY, OPT_EARLY, IN_ALL, ALWAYS),
	INT_OPT(IPPROTO_IPV6, IPV6_UNICAST_HOPS, OPT_EARLY, IN_ALL, ALWAYS),
	INT_OPT(IPPROTO_IPV6, IPV6_TCLASS, OPT_EARLY, IN_ALL, 0),
	INT_OPT(IPPROTO_IPV6, IPV6_MTU_DISCOVER, OPT_EARLY, IN_ALL, ALWAYS),
	INT_OPT(IPPROTO_IPV6, IPV6_DONTFRAG, OPT_EARLY, IN_ALL, 0),
	INT_OPT(IPPROTO_IPV6, IPV6_RECVERR, OPT_EARLY, IN_ALL, 0),
	INT_OPT(IPPROTO_IPV6, IPV6_RECVPKTINFO, OPT_EARLY, IN_ALL, 0),
	INT_OPT(IPPROTO_IPV6, IPV6_RECVTCLASS, OPT_EARLY, IN_ALL, 0),
	INT_OPT(IPPROTO_IPV6, IPV6_RECVHOPLIMIT, OPT_EARLY, IN_ALL, 0),
	INT_OPT(IPPROTO_IPV6, IPV6_TRANSPARENT, OPT_EARLY, IN_ALL, 0),
	INT_OPT(IPPROTO_IPV6, IPV6_FREEBIND, OPT_EARLY, IN_ALL, 0),
	INT_OPT(IPPROTO_IPV6, IPV6_MINHOPCOUNT, OPT_EARLY, IN_ALL, 0),
	INT_OPT(IPPROTO_IPV6, IPV6_AUTOFLOWLABEL, OPT_EARLY, IN_ALL, ALWAYS),

	INT_OPT(IPPROTO_TCP, TCP_NODELAY, OPT_EARLY, IN_ALL, 0),
	INT_OPT(IPPROTO_TCP, TCP_KEEPIDLE, OPT_EARLY, IN_ALL, ALWAYS),
	INT_OPT(IPPROTO_TCP, TCP_KEEPINTVL, OPT_EARLY, IN_ALL, ALWAYS),
	INT_OPT(IPPROTO_TCP, TCP_KEEPCNT, OPT_EARLY, IN_ALL, ALWAYS),
	INT_OPT(IPPROTO_TCP, TCP_USER_TIMEOUT, OPT_EARLY, IN_ALL, 0),
	INT_OPT(IPPROTO_TCP, TCP_SYNCNT, OPT_EARLY, IN_ALL, ALWAYS),
	INT_OPT(IPPROTO_TCP, TCP_LINGER2, OPT_EARLY, IN_ALL, ALWAYS),
	INT_OPT(IPPROTO_TCP, TCP_DEFER_ACCEPT, OPT_EARLY, IN_CLOSE | IN_LISTEN, 0),
	INT_OPT(IPPROTO_TCP, TCP_THIN_LINEAR_TIMEOUTS, OPT_EARLY, IN_ALL, 0),
	INT_OPT(IPPROTO_TCP, TCP_NOTSENT_LOWAT, OPT_RELEASE, IN_ALL, 0),
	INT_OPT(IPPROTO_TCP, TCP_SAVE_SYN, OPT_EARLY, IN_CLOSE | IN_LISTEN, 0),
	INT_OPT(IPPROTO_TCP, TCP_FASTOPEN_CONNECT, OPT_EARLY, IN_CLOSE, 0),
	INT_OPT(IPPROTO_TCP, TCP_FASTOPEN_NO_COOKIE, OPT_EARLY, IN_CLOSE | IN_LISTEN, 0),
	INT_OPT(IPPROTO_TCP, TCP_FASTOPEN, OPT_EARLY, IN_CLOSE | IN_LISTEN, 0),
	INT_OPT(IPPROTO_TCP, TCP_INQ, OPT_EARLY, IN_ALL, 0),
	INT_OPT(IPPROTO_TCP, TCP_TX_DELAY, OPT_EARLY, IN_ALL, 0),
	/* see mss_was_set(); in SYN_SENT tcp_save() asks, in repair mode */
	INT_OPT(IPPROTO_TCP, TCP_MAXSEG, OPT_EARLY, IN_CLOSE | IN_LISTEN, 536),
	INT_OPT(IPPROTO_TCP, TCP_WINDOW_CLAMP, OPT_EARLY, IN_CLOSE | IN_LISTEN, 0),
	/* a change of the receive buffer moves it */
	INT_OPT(IPPROTO_TCP, TCP_WINDOW_CLAMP, OPT_RELEASE, IN_CONN, 0),
	INT_OPT(IPPROTO_TCP, TCP_CORK, OPT_LATE, IN_ALL, 0),
	INT_OPT(IPPROTO_TCP, TCP_QUICKACK, OPT_RELEASE, IN_CONN, 1),
	INT_OPT(SOL_SOCKET, SO_ERROR, OPT_NOTE, IN_CLOSE, 0),
	{"TCP_CONGESTION", IPPROTO_TCP, TCP_CONGESTION, 16, OPT_EARLY, IN_ALL, ALWAYS},
};

static int state_bit(int state)
{
	return state == TCP_LISTEN                           ? IN_LISTEN
	       : state == TCP_CLOSE || state == TCP_SYN_SENT ? IN_CLOSE
							     : IN_CONN;
}

/*
 * Without a connection TCP_MAXSEG reads as what the program has set, else as the segment size of
 * the last connection (tcpi_snd_mss; over lo it is 65483, which cannot be set), else as 536. In
 * SYN_SENT it never shows what was set.
 */
static bool mss_was_set(int fd, const struct tcp_state *s, const void *val)
{
	struct tcp_info ti = {0};
	socklen_t len = sizeof(ti);
	int v;

	memcpy(&v, val, sizeof(v));
	if (s->state == TCP_SYN_SENT || v < TCP_MSS_LEAST || v > TCP_MSS_MOST)
		return false;
	/* of a listener the kernel does not tell tcpi_snd_mss, and it is 536 */
	return s->state == TCP_LISTEN || getsockopt(fd, IPPROTO_TCP, TCP_INFO, &ti, &len) < 0 ||
	       (uint32_t)v != ti.tcpi_snd_mss;
}

int tcp_opts_save(int fd, struct tcp_state *s, struct err *e)
{
	const int bit = state_bit(s->state);
	size_t i;

	s->nopt = 0;
	for (i = 0; i < ARRAY_SIZE(rows); i++) {
		const struct opt_row *o = &rows[i];
		struct sock_opt v;
		int r;

		if (!(o->states & bit) || (o->level == IPPROTO_IPV6 && !s->v6))
			continue;
		r = sockopt_read(fd, o, &v, e);
		if (r < 0)
			return r;
		if (r == 0 || (o->level == IPPROTO_TCP && o->name == TCP_MAXSEG &&
			       !mss_was_set(fd, s, v.val)))
			continue;
		if (s->nopt == ARRAY_SIZE(s->opt))
			return err_set(e, EOVERFLOW, "more than %zu socket options",
				       ARRAY_SIZE(s->opt));
		s->opt[s->nopt++] = v;
	}
	return 0;
}

int tcp_opts_restore(int fd, const struct tcp_state *s, enum opt_when when, struct err *e)
{
	const struct opt_table t = {rows, ARRAY_SIZE(rows), state_bit(s->state)};

	return sockopt_apply(fd, &t, s->opt, s->nopt, when, e);
}

int tcp_opts_get(const struct tcp_state *s, int level, int name, int dfl)
{
	return sockopt_int(s->opt, s->nopt, level, name, dfl);
}

void tcp_opts_note(struct tcp_state *s, int level, int name, int v)
{
	if (s->nopt == ARRAY_SIZE(s->opt))
		return;
	s->opt[s->nopt].level = level;
	s->opt[s->nopt].name = name;
	s->opt[s->nopt].len = sizeof(v);
	memcpy(s->opt[s->nopt].val, &v, sizeof(v));
	s->nopt++;
}

void tcp_opts_set(int fd, const struct tcp_state *s, int level, int name)
{
	unsigned i;

	for (i = 0; i < s->nopt; i++)
		if (s->opt[i].level == level && s->opt[i].name == name &&
		    s->opt[i].len <= sizeof(s->opt[i].val))
			setsockopt(fd, level, name, s->opt[i].val, s->opt[i].len);
}
