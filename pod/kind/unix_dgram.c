/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Unix datagram sockets.
 *
 * Theory of operation. Who a socket sends to (its peer) is its own affair: the peer may have another peer, or
 * none, and then hears from everybody. A name can be connected to at any time. A socket without one has
 * got who sends to it by socketpair(2) alone; so that one is its mate, and both are made as a pair. A mate
 * that is not the pod's, or has closed, is replaced by one of the engine's that closes too.
 *
 * When all are there (second pass; the first of them does the work for all):
 *
 *	1. those whose mate is not their peer any more are parted, before anything is in their queues, as
 *	   parting empties a queue;
 *	2. queues are filled, each message by a socket of the sender's name: the mate, another one of the pod, or
 *	   one that has the name for a moment in a place of its own (unix_make.c);
 *	3. the others connect, those to whom somebody still wants to connect last, as who has a peer hears
 *	   nobody else's connect(2);
 *	4. options and shut-down halves are set.
 *
 * A peer that is not the pod's, or gone, is gone then: sending answers ECONNREFUSED, as when a daemon was started anew.
 *
 * Not kept: errors that wait (ECONNRESET of a peer that has reconnected); which of several sockets without a name
 * has sent a message, that is, whose send buffer it fills.
 */
#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "netfreeze/netfreeze.h"
#include "pod/base/util.h"
#include "pod/kind/unix_int.h"

/* key of a mate of the engine's, parked for the second pass */
#define STANDIN (1ull << 63)

static bool match(const struct probe *p)
{
	return unix_type(p) == SOCK_DGRAM;
}

static int dump(struct dump *d, struct object *o, ProtobufCMessage **body, struct err *e)
{
	Pm__BodyUnix *m = dump_alloc(d, sizeof(*m));
	struct unix_info *u = dump_alloc(d, sizeof(*u));
	int r = unix_describe(d, o, u, m, e);

	if (r < 0)
		return r;
	*body = &m->base;
	m->state = UNIX_CLOSE;
	m->shut_rd = u->shutdown & 1;
	m->shut_wr = u->shutdown & 2;
	if (u->has_peer) {
		m->state = UNIX_ESTABLISHED;
		m->peer = u->peer;
		m->dead = !u->peer;
		m->outside = u->peer && !dump_find_inode(d, o->kind, o->p.st.st_dev, u->peer, NULL);
	}
	unix_get_cred(d, o->p.fd, m);
	r = unix_get_node(d, o, m, e);
	return r < 0 ? r : unix_queue_read(d, o, SOCK_DGRAM, m, e);
}

/* ---- restore */
static const Pm__BodyUnix *body_of(const struct robject *o)
{
	return (const void *)o->body;
}

static bool connected(const Pm__BodyUnix *m)
{
	return m->state == UNIX_ESTABLISHED;
}

static bool alone(const Pm__BodyUnix *m)
{
	return connected(m) && (m->dead || m->outside);
}

/* The object that it sends to. */
static struct robject *peer_of(struct restore *r, const struct robject *o)
{
	const Pm__BodyUnix *m = body_of(o);

	if (!connected(m) || alone(m))
		return NULL;
	return m->peer == m->inode ? restore_object(r, o->msg->id) : unix_find(r, o, m->peer);
}

static struct robject *next(struct restore *r, const struct robject *o, size_t *i)
{
	struct robject *x;

	while ((x = restore_next_object(r, i)))
		if (x->kind == o->kind)
			return x;
	return NULL;
}

/* With whom it was born as a pair, as far as that can still be told. */
static struct robject *mate_of(struct restore *r, struct robject *o)
{
	const Pm__BodyUnix *m = body_of(o), *pm;
	struct robject *p = peer_of(r, o), *x;
	size_t i = 0;

	pm = p && p != o ? body_of(p) : NULL;
	if (pm && (!pm->name.len || (!m->name.len && connected(pm) && pm->peer == m->inode)))
		return p;
	while (!m->name.len && (x = next(r, o, &i)))
		if (x != o && peer_of(r, x) == o)
			return x;
	return NULL;
}

static int bind_it(struct restore *r, int fd, const Pm__BodyUnix *m, struct err *e)
{
	if (m->path[0])
		return unix_bind_in_pod(r, fd, m, e);
	return m->name.len ? unix_bind_unseen(restore_netns(r), fd, &m->name, e) : 0;
}

static int make(struct restore *r, struct robject *o, const Pm__BodyUnix *m, struct err *e)
{
	struct robject *mate = mate_of(r, o);
	autoclose int mine = restore_unpark(r, TYPE_UNIX_DGRAM, m->inode), other = -1;
	bool standin = !mate && ((alone(m) && !m->peer_name.len) || (!m->name.len && m->n_queue));
	int ret = 0;

	if (mine < 0 && (mate || standin)) {
		ret = unix_make_nameless(r, m, &mine, &other, e);
		if (ret == 0)
			ret = restore_park(r, TYPE_UNIX_DGRAM, mate ? body_of(mate)->inode : m->inode | STANDIN, take_fd(&other), e);
	} else if (mine < 0) {
		mine = ret = netns_socket(restore_netns(r), AF_UNIX, SOCK_DGRAM, 0, e);
	}
	if (ret < 0)
		return ret;
	o->fd = take_fd(&mine);
	return bind_it(r, o->fd, m, e);
}

static int restore(struct restore *r, struct robject *o, struct err *e)
{
	const Pm__BodyUnix *m = body_of(o);
	int ret = unix_validate(m, e);

	if (ret == 0 && (m->sock_type != SOCK_DGRAM || m->state == UNIX_LISTEN || m->n_pending || m->data.len))
		ret = KIND_DAMAGED(e, "a unix datagram socket in state %u", m->state);
	if (ret == 0)
		ret = make(r, o, m, e);
	if (ret == 0 && fchown(o->fd, m->sk_uid, m->sk_gid) < 0)
		ret = err_sys(e, "owner of a unix socket");
	return ret;
}

/* ---- the second pass */
struct second {
	struct restore *r;
	const struct robject *any; /* of the kind */
	struct err *e;
};

static int part(struct second *s, struct robject *o)
{
	struct sockaddr_un none = { .sun_family = AF_UNSPEC };
	struct robject *mate = mate_of(s->r, o);

	if (!mate || peer_of(s->r, o) == mate)
		return 0;
	if (connect(o->fd, (void *)&none, sizeof(none.sun_family)) < 0)
		return err_sys(s->e, "part a unix socket from its peer");
	kind_sock_int(mate->fd, SO_ERROR); /* takes the ECONNRESET */
	return 0;
}

static struct robject *by_name(struct second *s, const ProtobufCBinaryData *name)
{
	struct robject *x;
	size_t i = 0;

	while (name->len && (x = next(s->r, s->any, &i)))
		if (unix_same_name(&body_of(x)->name, name))
			return x;
	return NULL;
}

/* A socket that has @name for a moment; another one may have it by now. */
static int standin(struct second *s, const ProtobufCBinaryData *name)
{
	int fd = netns_socket(restore_netns(s->r), AF_UNIX, SOCK_DGRAM, 0, s->e);
	int ret = fd < 0 || !name->len ? 0 : unix_bind_unseen(restore_netns(s->r), fd, name, s->e);

	if (ret == -EADDRINUSE)
		ret = 0;
	if (ret < 0)
		close_fdp(&fd);
	return ret < 0 ? ret : fd;
}

static int send_one(struct second *s, struct robject *o, int own, const Pm__UnixMsg *q)
{
	const Pm__BodyUnix *m = body_of(o);
	struct robject *mate = mate_of(s->r, o), *from = by_name(s, &q->from);
	autoclose int node = -1, made = -1;
	struct sockaddr_un sa;
	socklen_t len = 0;
	bool direct = own >= 0 || (mate && peer_of(s->r, mate) == o && unix_same_name(&body_of(mate)->name, &q->from));
	int fd, old, ret = 0;

	if (!direct && !m->name.len)
		return KIND_DAMAGED(s->e, "a message that nobody can have sent");
	if (own >= 0)
		fd = own;
	else if (direct || from)
		fd = direct ? mate->fd : from->fd;
	else
		fd = ret = made = standin(s, &q->from);
	if (ret >= 0 && !direct)
		ret = unix_reach(o->fd, &m->name, &sa, &len, &node, s->e);
	if (ret < 0)
		return ret;
	old = unix_queue_room(fd, q->data.len, UNIX_MESSAGES_MAX / 8, s->e);
	if (old < 0)
		return old;
	ret = unix_queue_send(s->r, fd, direct ? NULL : &sa, len, q, s->e);
	unix_queue_room_end(fd, old);
	return ret;
}

static int fill(struct second *s, struct robject *o)
{
	const Pm__BodyUnix *m = body_of(o);
	autoclose int own = restore_unpark(s->r, TYPE_UNIX_DGRAM, m->inode | STANDIN);
	const ProtobufCBinaryData *name = m->peer_name.len ? &m->peer_name : m->n_queue ? &m->queue[0]->from : NULL;
	struct sockaddr_un none = { .sun_family = AF_UNSPEC };
	size_t i;
	int ret = 0;

	if (own >= 0 && name && name->len)
		ret = unix_bind_unseen(restore_netns(s->r), own, name, s->e);
	if (ret == -EADDRINUSE)
		ret = 0;
	for (i = 0; ret == 0 && i < m->n_queue; i++)
		ret = send_one(s, o, own, m->queue[i]);
	/* it was for the queue alone: once it is closed it is not in the way of the true peer */
	if (ret == 0 && own >= 0 && !alone(m) && !connected(m) && !m->n_queue &&
	    connect(o->fd, (void *)&none, sizeof(none.sun_family)) < 0)
		ret = err_sys(s->e, "part a unix socket from its peer");
	return ret;
}

/* Does somebody else still have to connect to @o, before @o has a peer? */
static bool is_wanted(struct second *s, const struct robject *o, const struct robject *peer)
{
	struct robject *x;
	size_t i = 0;

	while ((x = next(s->r, o, &i)))
		if (x != o && x != peer && !x->filled && peer_of(s->r, x) == o)
			return true;
	return false;
}

static int connect_to(struct second *s, int fd, int peer, const ProtobufCBinaryData *name)
{
	autoclose int node = -1;
	struct sockaddr_un sa;
	socklen_t len;
	int ret = unix_reach(peer, name, &sa, &len, &node, s->e);

	if (ret == 0 && connect(fd, (void *)&sa, len) < 0)
		ret = err_sys(s->e, "connect a unix socket");
	return ret;
}

/* 1: it must wait for others. */
static int connect_one(struct second *s, struct robject *o)
{
	const Pm__BodyUnix *m = body_of(o);
	struct robject *peer = peer_of(s->r, o);
	autoclose int gone = -1;
	struct err late = { 0 };
	int ret = 0;

	if (!connected(m) || (peer && mate_of(s->r, o) == peer))
		return 0;
	if (alone(m) && m->peer_name.len) {
		if (!m->name.len && m->n_queue)
			return 0; /* its stand-in had this name */
		gone = ret = standin(s, &m->peer_name);
		if (ret >= 0 && connect_to(&(struct second){ s->r, s->any, &late }, o->fd, gone, &m->peer_name) < 0)
			ret = 0; /* the name is another's now: it stays without a peer */
		return ret < 0 ? ret : 0;
	}
	if (alone(m))
		return 0;
	if (!peer || !body_of(peer)->name.len)
		return KIND_DAMAGED(s->e, "a unix socket without its peer");
	if (is_wanted(s, o, peer))
		return 1;
	return connect_to(s, o->fd, peer->fd, &body_of(peer)->name);
}

static int connect_all(struct second *s)
{
	bool moved = true, waits = true;
	struct robject *o;
	int ret = 0;

	while (ret >= 0 && waits && moved) {
		size_t i = 0;

		waits = moved = false;
		while (ret >= 0 && (o = next(s->r, s->any, &i))) {
			if (o->filled)
				continue;
			ret = connect_one(s, o);
			o->filled = ret == 0;
			moved |= ret == 0;
			waits |= ret > 0;
		}
	}
	return ret >= 0 && waits ? KIND_DAMAGED(s->e, "unix sockets whose peers go in a circle") : MIN(ret, 0);
}

static int for_each(struct second *s, int (*fn)(struct second *, struct robject *))
{
	struct robject *o;
	size_t i = 0;
	int ret = 0;

	while (ret == 0 && (o = next(s->r, s->any, &i)))
		ret = fn(s, o);
	return ret;
}

static int settle(struct second *s, struct robject *o)
{
	int ret = unix_set_options(o->fd, body_of(o), s->e);

	return ret < 0 ? ret : unix_shut(o->fd, body_of(o), s->e);
}

static int finish(struct restore *r, struct robject *o, struct err *e)
{
	struct second s = { r, o, e };
	int ret;

	if (o->filled)
		return 0; /* another one's did it */
	ret = for_each(&s, part);
	if (ret == 0)
		ret = for_each(&s, fill);
	if (ret == 0)
		ret = connect_all(&s);
	return ret < 0 ? ret : for_each(&s, settle);
}

const struct kind kind_unix_dgram = {
	.name = "unix-dgram",
	.type = TYPE_UNIX_DGRAM,
	.version = 1,
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
