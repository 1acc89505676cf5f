/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Raw sockets of IPv4 and ICMP sockets: the work is netfreeze's.
 *
 * Theory of operation. What waits in their queues can only be taken out and put back, and a packet
 * that is put back would be heard by all of them; so this is done with all of the pod's at once, when
 * the first is dumped: dump_while_frozen(). On the target they come before other sockets, and hear
 * nothing until all queues are filled.
 *
 * A raw socket is made with the rights of the pod's user: whom the kernel would not give one does not
 * get one from an image.
 */
#include <errno.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "netfreeze/netfreeze.h"
#include "pod/base/log.h"
#include "pod/base/util.h"
#include "pod/kind/kinds.h"

static bool match(const struct probe *p)
{
	int type;

	if (!S_ISSOCK(p->st.st_mode) || kind_is_o_path(p) || kind_sock_int(p->fd, SO_DOMAIN) != AF_INET)
		return false;
	type = kind_sock_int(p->fd, SO_TYPE);
	return type == SOCK_RAW || (type == SOCK_DGRAM && kind_sock_int(p->fd, SO_PROTOCOL) == IPPROTO_ICMP);
}

static int check(struct dump *d, const struct probe *p, struct err *e)
{
	int r = kind_check_common(p, e);

	return r < 0 ? r : raw_check(p->fd, dump_netns(d), e);
}

/* All of the pod's; a queue is kept with its object until that is dumped. */
struct all {
	struct object **o;
	int *fds;
	size_t n;
};

static struct all find_all(struct dump *d)
{
	struct all a = { 0 };
	struct object *o;
	size_t i = 0, n = 0;

	while ((o = dump_next_object(d, &i)))
		n += o->kind == &kind_raw;
	a.o = dump_alloc(d, n * sizeof(struct object *));
	a.fds = dump_alloc(d, n * sizeof(int));
	for (i = 0; (o = dump_next_object(d, &i));)
		if (o->kind == &kind_raw) {
			a.o[a.n] = o;
			a.fds[a.n++] = o->p.fd;
		}
	return a;
}

static void warn_of_loss(const struct object *o, size_t n)
{
	if (n)
		log_warn("pid %d: fd %d: %zu packets that waited at a raw socket could not be put back: they are lost if the pod goes on here",
			 o->p.nspid, o->p.fdno, n);
}

static int read_bodies(struct dump *d, const struct all *a, const struct raw_queues *q, struct err *e)
{
	size_t i;

	for (i = 0; i < a->n; i++) {
		Pm__BodyRaw *m = dump_alloc(d, sizeof(*m));
		struct raw_state s;
		int r = raw_save(a->fds[i], dump_netns(d), &s, e);

		if (r < 0)
			return r;
		pm__body_raw__init(m);
		m->sock_type = (uint32_t)s.type;
		m->protocol = (uint32_t)s.protocol;
		m->sock = dump_alloc(d, sizeof(*m->sock));
		pm__body_udp__init(m->sock);
		if (q) {
			warn_of_loss(a->o[i], raw_queues_lost(q, i));
			r = raw_queues_read(q, i, &s, e);
		}
		if (r == 0)
			kind_dgram_out(d, a->o[i], &s.u, m->sock);
		udp_state_done(&s.u);
		if (r < 0)
			return r;
		a->o[i]->priv = m;
	}
	return 0;
}

static int dump_all(struct dump *d, struct err *e)
{
	struct all a = find_all(d);
	struct raw_queues *q = NULL;
	size_t i;
	int r = 0;

	for (i = 0; i < a.n && r == 0; i++) { /* before anything is touched */
		a.o[i]->priv = NULL;
		r = kind_check_common(&a.o[i]->p, e);
		if (r == 0)
			r = raw_check(a.fds[i], dump_netns(d), e);
	}
	if (r == 0)
		r = raw_queues_open(a.fds, a.n, dump_netns(d), &q, e);
	if (r > 0)
		r = dump_while_frozen(d, raw_queues_exchange, q, e);
	if (r == 0)
		r = read_bodies(d, &a, q, e);
	raw_queues_free(q);
	return r;
}

static int dump(struct dump *d, struct object *o, ProtobufCMessage **body, struct err *e)
{
	Pm__BodyRaw *m;
	int r = o->priv ? 0 : dump_all(d, e);

	if (r < 0)
		return r;
	m = o->priv;
	o->priv = NULL;
	*body = &m->base;
	return 0;
}

/* The next freeze asks anew. */
static void undo(struct dump *d, struct object *o)
{
	(void)d;
	o->priv = NULL;
}

struct maker {
	struct restore *r;
	const Pm__BodyRaw *m;
};

static int make(void *arg, struct err *e)
{
	const struct maker *k = arg;
	int fd = socket(AF_INET, (int)k->m->sock_type | SOCK_CLOEXEC, (int)k->m->protocol);

	if (fd >= 0)
		return fd;
	if (errno == EPERM)
		return err_set(e, EPERM, "a raw socket (protocol %u), which the pod's user cannot have", k->m->protocol);
	return err_sys(e, "%s socket, protocol %u", k->m->sock_type == SOCK_RAW ? "raw" : "ICMP", k->m->protocol);
}

static int make_as_owner(void *arg, struct err *e)
{
	return restore_as_owner(((const struct maker *)arg)->r, make, arg, e);
}

static int to_state(const Pm__BodyRaw *m, struct raw_state *s, struct err *e)
{
	bool ping = m->sock_type == SOCK_DGRAM && m->protocol == IPPROTO_ICMP;

	if (!m->sock || (!ping && m->sock_type != SOCK_RAW) || !m->protocol || m->protocol > IPPROTO_RAW)
		return KIND_DAMAGED(e, "a raw socket of type %u and protocol %u", m->sock_type, m->protocol);
	s->type = (int)m->sock_type;
	s->protocol = (int)m->protocol;
	return kind_dgram_in(m->sock, &s->u, e);
}

static int restore(struct restore *r, struct robject *o, struct err *e)
{
	const Pm__BodyRaw *m = (const void *)o->body;
	struct maker k = { r, m };
	struct raw_state s = { 0 };
	autoclose int fd = -1;
	int ret = to_state(m, &s, e);

	if (ret == 0)
		ret = kind_dgram_queue_in(m->sock, &s.u, e);
	if (ret == 0)
		ret = fd = restore_in_pod(r, false, make_as_owner, &k, e);
	if (ret >= 0 && restore_may_be(r, m->sock->uid, m->sock->gid) && fchown(fd, m->sock->uid, m->sock->gid) < 0)
		ret = err_sys(e, "owner of a raw socket");
	if (ret >= 0)
		ret = raw_restore_on(fd, restore_netns(r), &s, e);
	free(s.u.queue);
	free(s.u.group);
	if (ret < 0)
		return ret;
	o->fd = take_fd(&fd);
	return 0;
}

static int finish(struct restore *r, struct robject *o, struct err *e)
{
	struct raw_state s = { 0 };
	int ret = to_state((const void *)o->body, &s, e);

	(void)r;
	return ret < 0 ? ret : raw_release(o->fd, &s, kind_filter_comes(o), e);
}

const struct kind kind_raw = {
	.name = "raw",
	.type = TYPE_RAW,
	.version = 1,
	.min_version = 1,
	.scope = KIND_FD,
	.loose = true,
	.stage = STAGE_SOCKET - 1,
	.schema = &pm__body_raw__descriptor,
	.match = match,
	.check = check,
	.dump = dump,
	.undo = undo,
	.restore = restore,
	.finish = finish,
};
