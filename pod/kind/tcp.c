/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * TCP sockets: the work is netfreeze's; here its struct becomes a record and back.
 *
 * When the sockets leave repair mode. An engine that dies after READY must not leave sockets in
 * repair mode, so finish() ends it while the filter is still up. What the kernel tries to say then is
 * refused by the filter with an error, which the stack takes as "not sent": the unsent tail stays
 * unsent and a timer (3 s: no round trip was measured yet) would try again. release(), after the commit and with the
 * network open, gives the push that makes it go at once; a pod whose engine is dead just waits for
 * that timer. The receive buffer keeps its room for held frames until release().
 */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "netfreeze/netfreeze.h"
#include "pod/base/kernel.h"
#include "pod/base/util.h"
#include "pod/kind/kinds.h"

#define LOT 256 /* sockets made in one visit */

static bool match(const struct probe *p)
{
	return S_ISSOCK(p->st.st_mode) && !kind_is_o_path(p) &&
	       (kind_sock_int(p->fd, SO_DOMAIN) == AF_INET || kind_sock_int(p->fd, SO_DOMAIN) == AF_INET6) &&
	       kind_sock_int(p->fd, SO_TYPE) == SOCK_STREAM && kind_sock_int(p->fd, SO_PROTOCOL) == IPPROTO_TCP;
}

static int check(struct dump *d, const struct probe *p, struct err *e)
{
	int r = kind_check_common(p, e);

	(void)d;
	return r < 0 ? r : tcp_check(p->fd, e);
}

static int dump(struct dump *d, struct object *o, ProtobufCMessage **body, struct err *e)
{
	Pm__BodyTcp *m = dump_alloc(d, sizeof(*m));
	struct tcp_state s = { 0 };
	int r = kind_check_common(&o->p, e);

	if (r == 0)
		r = tcp_save(o->p.fd, &s, e);
	if (r < 0)
		return r;
	pm__body_tcp__init(m);
	m->state = (uint32_t)s.state;
	m->laddr = s.local.sin_addr.s_addr;
	m->lport = s.local.sin_port;
	m->paddr = s.peer.sin_addr.s_addr;
	m->pport = s.peer.sin_port;
	m->v6 = s.v6;
	if (s.v6) {
		m->laddr6 = kind_bytes(d, &s.local6, sizeof(s.local6));
		m->paddr6 = kind_bytes(d, &s.peer6, sizeof(s.peer6));
	}
	m->bound = s.bound;
	m->backlog = s.backlog;
	m->snd_seq = s.snd_seq;
	m->rcv_seq = s.rcv_seq;
	m->snd_queue = kind_bytes(d, s.snd_queue, s.snd_len);
	m->rcv_queue = kind_bytes(d, s.rcv_queue, s.rcv_len);
	m->snd_unsent = s.snd_unsent;
	m->snd_fin = s.snd_fin;
	m->rcv_fin = s.rcv_fin;
	m->mss = s.mss;
	m->ts_val = s.ts_val;
	m->snd_wscale = s.snd_wscale;
	m->rcv_wscale = s.rcv_wscale;
	m->sack = s.sack;
	m->ts = s.ts;
	m->wscale_ok = s.wscale_ok;
	m->window = kind_bytes(d, &s.window, sizeof(s.window));
	m->shut_rd = s.shut_rd;
	m->shut_wr = s.shut_wr;
	m->sndbuf = s.sndbuf;
	m->rcvbuf = s.rcvbuf;
	m->nonblock = s.nonblock;
	m->uid = o->p.st.st_uid;
	m->gid = o->p.st.st_gid;
	kind_opts_out(d, s.opt, s.nopt, &m->opts, &m->n_opts);
	tcp_state_done(&s);
	*body = &m->base;
	return r;
}

static void undo(struct dump *d, struct object *o)
{
	(void)d;
	tcp_undo(o->p.fd);
}

/* The struct that netfreeze takes; its queues are the record's, so tcp_state_done() is not called. */
static int to_state(const Pm__BodyTcp *m, struct tcp_state *s, struct err *e)
{
	memset(s, 0, sizeof(*s));
	if (m->snd_queue.len > UINT32_MAX || m->rcv_queue.len > UINT32_MAX || m->window.len != sizeof(s->window) ||
	    m->lport > UINT16_MAX || m->pport > UINT16_MAX || m->snd_wscale > 14 || m->rcv_wscale > 14)
		return KIND_DAMAGED(e, "a TCP socket's numbers");
	s->state = (int)m->state;
	s->local.sin_family = AF_INET;
	s->local.sin_addr.s_addr = m->laddr;
	s->local.sin_port = (in_port_t)m->lport;
	if (m->pport || m->paddr) {
		s->peer.sin_family = AF_INET;
		s->peer.sin_addr.s_addr = m->paddr;
		s->peer.sin_port = (in_port_t)m->pport;
	}
	s->v6 = m->v6;
	if (s->v6) {
		if (m->laddr6.len != sizeof(s->local6) || m->paddr6.len != sizeof(s->peer6))
			return KIND_DAMAGED(e, "a TCP socket's addresses");
		memcpy(&s->local6, m->laddr6.data, sizeof(s->local6));
		memcpy(&s->peer6, m->paddr6.data, sizeof(s->peer6));
	}
	s->bound = m->bound;
	s->backlog = m->backlog;
	s->snd_seq = m->snd_seq;
	s->rcv_seq = m->rcv_seq;
	s->snd_queue = m->snd_queue.data;
	s->snd_len = (uint32_t)m->snd_queue.len;
	s->rcv_queue = m->rcv_queue.data;
	s->rcv_len = (uint32_t)m->rcv_queue.len;
	s->snd_unsent = m->snd_unsent;
	s->snd_fin = m->snd_fin;
	s->rcv_fin = m->rcv_fin;
	s->mss = m->mss;
	s->ts_val = m->ts_val;
	s->snd_wscale = (uint8_t)m->snd_wscale;
	s->rcv_wscale = (uint8_t)m->rcv_wscale;
	s->sack = m->sack;
	s->ts = m->ts;
	s->wscale_ok = m->wscale_ok;
	memcpy(&s->window, m->window.data, sizeof(s->window));
	s->shut_rd = m->shut_rd;
	s->shut_wr = m->shut_wr;
	s->sndbuf = m->sndbuf;
	s->rcvbuf = m->rcvbuf;
	s->nonblock = m->nonblock;
	return kind_opts_in(m->opts, m->n_opts, s->opt, ARRAY_SIZE(s->opt), &s->nopt, e);
}

/* The sockets of all that are still to be made come in lots: each visit to the pod's namespace is a thread. */
static int new_socket(struct restore *r, bool v6, struct err *e)
{
	int fds[LOT], fd = restore_unpark(r, TYPE_TCP, v6), ret;
	struct robject *o;
	size_t i = 0, n = 0;

	if (fd >= 0)
		return fd;
	while (n < LOT && (o = restore_next_object(r, &i)))
		n += o->kind == &kind_tcp && o->fd < 0 && ((const Pm__BodyTcp *)(const void *)o->body)->v6 == v6;
	n = n ? n : 1;
	ret = netns_sockets(restore_netns(r), v6 ? AF_INET6 : AF_INET, SOCK_STREAM, IPPROTO_TCP, fds, n, e);
	if (ret < 0)
		return ret;
	for (i = 1; i < n; i++) { /* the first error stays; every fd has an owner or is closed */
		if (ret < 0)
			close(fds[i]);
		else
			ret = restore_park(r, TYPE_TCP, v6, fds[i], e);
	}
	if (ret < 0)
		close(fds[0]);
	return ret < 0 ? ret : fds[0];
}

static int restore(struct restore *r, struct robject *o, struct err *e)
{
	const Pm__BodyTcp *m = (const void *)o->body;
	autoclose int fd = -1;
	struct tcp_state s;
	int ret = to_state(m, &s, e);

	if (ret == 0)
		ret = fd = new_socket(r, m->v6, e);
	if (ret >= 0 && fchown(fd, m->uid, m->gid) < 0)
		ret = err_sys(e, "owner of a TCP socket");
	if (ret >= 0)
		ret = tcp_restore_on(fd, restore_netns(r), &s, e);
	if (ret < 0)
		return ret;
	o->fd = take_fd(&fd);
	return 0;
}

static bool is_live(const struct tcp_state *s)
{
	return s->peer.sin_port && s->state != TCP_SYN_SENT;
}

static int finish(struct restore *r, struct robject *o, struct err *e)
{
	int room = kind_sock_int(o->fd, SO_RCVBUF) / 2; /* the kernel doubles what it is given */
	struct tcp_state s;
	int ret = to_state((const void *)o->body, &s, e), lock;

	if (ret == 0)
		ret = tcp_release(o->fd, &s, e);
	if (ret < 0 || !is_live(&s))
		return ret;
	if (restore_peer_gone(r, s.peer.sin_addr.s_addr)) {
		restore_note(r, "pid %u: fd %u: the connection with %s port %u is closed with a reset", o->msg->owner_pid,
			     o->msg->owner_fd, inet_ntoa(s.peer.sin_addr), ntohs(s.peer.sin_port));
		return tcp_reset(o->fd, restore_netns(r), &s, e);
	}
	/* a size that the program has set is its own, and it may be looking already when release() comes */
	lock = kind_sock_int(o->fd, SO_BUF_LOCK);
	if (lock < 0 || (lock & SOCK_RCVBUF_LOCK))
		return 0;
	if (setsockopt(o->fd, SOL_SOCKET, SO_RCVBUFFORCE, &room, sizeof(room)) < 0 ||
	    setsockopt(o->fd, SOL_SOCKET, SO_BUF_LOCK, &lock, sizeof(lock)) < 0)
		return err_sys(e, "room of a TCP socket");
	return 0;
}

static int release(struct restore *r, struct robject *o, struct err *e)
{
	struct tcp_state s;
	int ret = to_state((const void *)o->body, &s, e);

	(void)r;
	if (ret >= 0 && is_live(&s))
		tcp_push(o->fd, &s);
	return ret < 0 ? ret : 0;
}

bool kind_tcp_settle(const struct robject *o)
{
	struct tcp_state s;

	if (o->kind != &kind_tcp || o->fd < 0 || to_state((const void *)o->body, &s, NULL) < 0 || !is_live(&s))
		return false;
	tcp_settle(o->fd, &s);
	return true;
}

int kind_tcp_know(const struct robject *o, struct wake *w, struct err *e)
{
	struct tcp_state s;
	int ret;

	if (o->kind != &kind_tcp)
		return 0;
	ret = to_state((const void *)o->body, &s, e);
	return ret < 0 ? ret : wake_know(w, &s, e);
}

int kind_tcp_nudge(const struct robject *o, struct wake *w, struct err *e)
{
	struct tcp_state s;
	int ret;

	if (o->kind != &kind_tcp)
		return 0;
	ret = to_state((const void *)o->body, &s, e);
	return ret < 0 ? ret : wake_nudge(w, &s, e);
}

const struct kind kind_tcp = {
	.name = "tcp",
	.type = TYPE_TCP,
	.version = 1,
	.min_version = 1,
	.scope = KIND_FD,
	.loose = true,
	.stage = STAGE_SOCKET,
	.schema = &pm__body_tcp__descriptor,
	.match = match,
	.check = check,
	.dump = dump,
	.undo = undo,
	.restore = restore,
	.finish = finish,
	.release = release,
};
