/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Unix stream and seqpacket sockets, which are connected.
 *
 * Theory of operation. sock_diag, asked in the pod's network namespace, tells the state, the peer's
 * inode, a listener's backlog and the clients in its accept queue. What a connected socket can be:
 *
 *	peer's inode is an object of the pod	 a pair: the first of both that is restored makes two
 *						 sockets and parks the other one
 *	peer's inode is not the pod's		 `outside`: reads what is queued, then EOF
 *	no inode, shut down both ways		 `dead`: the peer has closed; the same
 *	no inode, else				 `waiting` in a listener's accept queue: connects again
 *						 when the listener is there (its finish(), in order)
 *
 * A queue (unix_queue.c) is filled in the second pass, as descriptions in it may be of any kind, by writing to the
 * other end. Options (SO_PASSCRED among them: what was sent without credentials gets none) and shut-down halves are
 * set when the queues of both ends are full.
 *
 * Names. An accepted socket shares its listener's name, which only accept(2) gives; so a pair with a
 * name is made by a listener of that name in a scratch file system of one thread (unix_make.c), and the
 * pod's file system sees nothing of it. Only a socket that was bound itself gets its node: the path is
 * asked by SIOCUNIXFILE, as a program may bind relative names. A stale node in the way is removed if
 * it is a socket.
 *
 * Limits, refused by name: out-of-band data; data sent to a listener that has not accepted. A socket pair is made in
 * the process that had made it, if it lives, which is what SO_PEERCRED tells. Not kept: SO_PEERCRED of connections
 * by name (they name the engine: root, no pid of the pod); ECONNRESET that a dead peer left.
 */
#include <errno.h>
#include <linux/sockios.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "netfreeze/netfreeze.h"
#include "pod/base/util.h"
#include "pod/kind/unix_int.h"

#define PODINIT_NAME "\0podmigrate/podinit"
/* key of the other end of one whose peer is not the pod's, parked for the second pass */
#define ALONE (1ull << 63)

static bool match(const struct probe *p)
{
	int type = unix_type(p);

	return type == SOCK_STREAM || type == SOCK_SEQPACKET;
}

/* Is there a socket in the pod that was bound to this name and not just born with it? */
static bool has_binder(struct dump *d, const struct object *o, const ProtobufCBinaryData *name)
{
	struct sockaddr_un sa;
	struct object *x;
	size_t i = 0;

	while ((x = dump_next_object(d, &i))) {
		socklen_t len = sizeof(sa), plen = sizeof(sa);
		ProtobufCBinaryData n;

		if (x == o || x->kind != o->kind || getsockname(x->p.fd, (void *)&sa, &len) < 0)
			continue;
		n = unix_get_name(d, &sa, len);
		if (unix_same_name(&n, name) && getpeername(x->p.fd, (void *)&sa, &plen) < 0)
			return true;
	}
	return false;
}

static int get_pending(struct dump *d, struct object *o, const struct unix_info *u, Pm__BodyUnix *m,
		       struct err *e)
{
	bool podinit = m->name.len == sizeof(PODINIT_NAME) - 1 &&
		       !memcmp(m->name.data, PODINIT_NAME, m->name.len);
	size_t i;

	m->pending = dump_alloc(d, u->npending * sizeof(*m->pending));
	for (i = 0; i < u->npending; i++) {
		struct object *x = dump_find_inode(d, o->kind, o->p.st.st_dev, u->pending[i], o);
		int sent = 0;

		if (u->pending[i] && x) {
			if (ioctl(x->p.fd, SIOCOUTQ, &sent) < 0)
				return err_sys(e, "SIOCOUTQ");
			if (sent)
				return err_set(e, EAGAIN, "a unix socket's accept queue holds data");
			m->pending[m->n_pending++] = u->pending[i];
		} else if (!podinit) {
			/* podinit's callers come again by themselves */
			return err_set(e, EAGAIN, "a client that is %s waits in a unix socket's accept queue",
				       u->pending[i] ? "outside the pod" : "gone");
		}
	}
	return 0;
}

static int get_connection(struct dump *d, struct object *o, const struct unix_info *u, Pm__BodyUnix *m,
			  struct err *e)
{
	int sent = 0;

	unix_get_cred(d, o->p.fd, m);
	m->peer = u->peer;
	m->shut_rd = u->shutdown & 1;
	m->shut_wr = u->shutdown & 2;
	if (u->has_peer && u->peer)
		m->outside = !dump_find_inode(d, o->kind, o->p.st.st_dev, u->peer, o);
	else if (!u->has_peer || u->shutdown == 3)
		m->dead = true;
	else
		m->waiting = true;
	if (m->waiting) {
		if (ioctl(o->p.fd, SIOCOUTQ, &sent) < 0)
			return err_sys(e, "SIOCOUTQ");
		if (sent)
			return err_set(e, EAGAIN, "a unix socket's accept queue holds data");
	}
	return unix_queue_read(d, o, (int)m->sock_type, m, e);
}

static int describe(struct dump *d, struct object *o, const struct unix_info *u, Pm__BodyUnix *m,
		    struct err *e)
{
	int r;

	m->state = u->state;
	if (u->state != UNIX_ESTABLISHED || !has_binder(d, o, &m->name)) {
		r = unix_get_node(d, o, m, e);
		if (r < 0)
			return r;
		m->node_only = m->path[0] && u->state == UNIX_ESTABLISHED;
	}
	if (u->state == UNIX_LISTEN) {
		m->backlog = (int)u->backlog;
		return get_pending(d, o, u, m, e);
	}
	return u->state == UNIX_ESTABLISHED ? get_connection(d, o, u, m, e) : 0;
}

static int dump(struct dump *d, struct object *o, ProtobufCMessage **body, struct err *e)
{
	Pm__BodyUnix *m = dump_alloc(d, sizeof(*m));
	struct unix_info *u = dump_alloc(d, sizeof(*u));
	int r = unix_describe(d, o, u, m, e);

	*body = &m->base;
	return r < 0 ? r : describe(d, o, u, m, e);
}

/* ---- restore */
/* A socket of the pod that listens under @name already. */
static int find_listener(struct restore *r, const struct robject *o, const ProtobufCBinaryData *name)
{
	uint32_t type = ((const Pm__BodyUnix *)(const void *)o->body)->sock_type;
	struct robject *x;
	size_t i = 0;

	while (name->len && (x = restore_next_object(r, &i))) {
		const Pm__BodyUnix *m = (const void *)x->body;

		if (x->kind == o->kind && x->fd >= 0 && m->state == UNIX_LISTEN &&
		    m->sock_type == type && unix_same_name(&m->name, name))
			return x->fd;
	}
	return -1;
}

struct listener {
	int fd, backlog;
};

static int start_listening(void *arg, struct err *e)
{
	const struct listener *l = arg;

	return listen(l->fd, l->backlog) < 0 ? err_sys(e, "listen") : 0;
}

/* One that is not connected: free, bound, listening, or a client that will connect in finish(). */
static int make_single(struct restore *r, struct robject *o, const Pm__BodyUnix *m, struct err *e)
{
	autoclose int fd = netns_socket(restore_netns(r), AF_UNIX, (int)m->sock_type, 0, e);
	int ret = 0;

	if (fd < 0)
		return fd;
	if (m->path[0] && !m->node_only)
		ret = unix_bind_in_pod(r, fd, m, e);
	else if (m->name.len)
		ret = unix_bind_unseen(restore_netns(r), fd, &m->name, e);
	if (ret < 0)
		return ret;
	/* who listens is what clients see of the other end */
	if (m->state == UNIX_LISTEN)
		ret = restore_as_owner(r, start_listening, &(struct listener){ fd, m->backlog }, e);
	if (ret < 0)
		return ret;
	o->fd = take_fd(&fd);
	return 0;
}

static int make_connected(struct restore *r, struct robject *o, const Pm__BodyUnix *m, struct err *e)
{
	bool alone = m->dead || m->outside;
	const ProtobufCBinaryData none = { 0 };
	autoclose int mine = -1, other = -1;
	struct robject *peer;
	int ret;

	mine = restore_unpark(r, TYPE_UNIX, m->inode);
	if (mine >= 0) { /* the peer came first */
		o->fd = take_fd(&mine);
		return 0;
	}
	peer = alone ? NULL : unix_find(r, o, m->peer);
	if (!alone && !peer)
		return KIND_DAMAGED(e, "a unix socket without its peer");
	if (!m->name.len && !m->peer_name.len)
		ret = unix_make_nameless(r, m, &mine, &other, e);
	else if (m->name.len)
		ret = unix_make_pair(restore_netns(r), (int)m->sock_type, find_listener(r, o, &m->name), &m->name,
				     alone ? &none : &m->peer_name, &mine, &other, e);
	else
		ret = unix_make_pair(restore_netns(r), (int)m->sock_type, find_listener(r, o, &m->peer_name), &m->peer_name,
				     &none, &other, &mine, e);
	if (ret == 0)
		ret = restore_park(r, TYPE_UNIX, peer ? m->peer : m->inode | ALONE, take_fd(&other), e);
	if (ret < 0)
		return ret;
	o->fd = take_fd(&mine);
	return 0;
}

static int restore(struct restore *r, struct robject *o, struct err *e)
{
	const Pm__BodyUnix *m = (const void *)o->body;
	bool connected = m->state == UNIX_ESTABLISHED && !m->waiting;
	int ret = unix_validate(m, e);

	if (ret == 0 && m->sock_type != SOCK_STREAM && m->sock_type != SOCK_SEQPACKET)
		ret = KIND_DAMAGED(e, "a unix socket of type %u", m->sock_type);
	if (ret < 0)
		return ret;
	if (connected)
		ret = make_connected(r, o, m, e);
	else
		ret = make_single(r, o, m, e);
	if (ret == 0 && m->path[0] && m->node_only)
		ret = unix_make_node(r, m, e);
	if (ret == 0 && fchown(o->fd, m->sk_uid, m->sk_gid) < 0)
		ret = err_sys(e, "owner of a unix socket");
	return ret < 0 || connected ? ret : unix_set_options(o->fd, m, e);
}

/* Clients that waited connect again, in their order. The path may be gone, so it is reached by the socket's own node. */
static int connect_pending(struct restore *r, struct robject *o, const Pm__BodyUnix *m, struct err *e)
{
	struct sockaddr_un sa;
	socklen_t len;
	autoclose int node = -1;
	size_t i;
	int ret = unix_reach(o->fd, &m->name, &sa, &len, &node, e);

	if (ret == 0 && m->n_pending > (size_t)m->backlog + 1) /* the next one would wait for ever */
		return KIND_DAMAGED(e, "%zu clients in an accept queue of %d", m->n_pending, (int)m->backlog);
	for (i = 0; ret == 0 && i < m->n_pending; i++) {
		struct robject *c = unix_find(r, o, m->pending[i]);
		const Pm__BodyUnix *cm = c ? (const void *)c->body : NULL;

		if (!c || !cm->waiting || c->fd < 0)
			return KIND_DAMAGED(e, "a client in an accept queue is not there");
		if (connect(c->fd, (void *)&sa, len) < 0)
			return err_sys(e, "connect a unix socket again");
		ret = unix_shut(c->fd, cm, e);
	}
	return ret;
}

static int settle(const struct robject *o, struct err *e)
{
	const Pm__BodyUnix *m = (const void *)o->body;
	int ret = unix_set_options(o->fd, m, e);

	return ret < 0 || m->dead ? ret : unix_shut(o->fd, m, e);
}

static int finish(struct restore *r, struct robject *o, struct err *e)
{
	const Pm__BodyUnix *m = (const void *)o->body;
	autoclose int other = -1;
	struct robject *peer;
	int ret;

	if (m->n_pending)
		return connect_pending(r, o, m, e);
	if (m->waiting)
		return 0;
	if (m->state != UNIX_ESTABLISHED)
		return unix_shut(o->fd, m, e);
	other = restore_unpark(r, TYPE_UNIX, m->inode | ALONE);
	peer = other < 0 ? unix_find(r, o, m->peer) : NULL;
	if (other < 0 && (!peer || peer->fd < 0))
		return KIND_DAMAGED(e, "a unix socket without its peer");
	ret = unix_queue_fill(r, peer ? peer->fd : other, m, e);
	o->filled = true;
	if (ret == 0 && (!peer || peer->filled))
		ret = settle(o, e);
	if (ret == 0 && peer && peer->filled)
		ret = settle(peer, e);
	return ret;
}

const struct kind kind_unix = {
	.name = "unix",
	.type = TYPE_UNIX,
	.version = 2, /* 2: seqpacket, a queue of messages */
	.min_version = 1,
	.scope = KIND_FD,
	.stage = STAGE_SOCKET,
	.loose = true,
	.schema = &pm__body_unix__descriptor,
	.match = match,
	.check = unix_check,
	.inside = unix_inside,
	.dump = dump,
	.restore = restore,
	.finish = finish,
};
