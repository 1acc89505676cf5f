/* SPDX-License-Identifier: GPL-3.0-or-later */
/* What netfreeze says of a datagram socket becomes a record and back: of UDP and of raw sockets. */
#include <errno.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "netfreeze/netfreeze.h"
#include "pod/base/util.h"
#include "pod/kind/kinds.h"

static void copy_queue(struct dump *d, const struct udp_state *s, Pm__BodyUdp *m)
{
	size_t i;

	m->queue = dump_alloc(d, s->nqueue * sizeof(*m->queue));
	for (i = 0; i < s->nqueue; i++) {
		const struct udp_dgram *q = &s->queue[i];
		Pm__UdpDgram *g = dump_alloc(d, sizeof(*g));

		pm__udp_dgram__init(g);
		g->addr = q->from.sin_addr.s_addr;
		g->port = q->from.sin_port;
		g->to = q->to.s_addr;
		if (q->v6) {
			g->addr6 = kind_bytes(d, &q->from6, sizeof(q->from6));
			g->to6 = kind_bytes(d, &q->to6, sizeof(q->to6));
		}
		g->ttl = q->ttl;
		g->tos = q->tos;
		g->data = kind_bytes(d, q->data, q->len);
		m->queue[i] = g;
	}
	m->n_queue = s->nqueue;
}

static void copy_groups(struct dump *d, const struct udp_state *s, Pm__BodyUdp *m)
{
	size_t i, k;

	m->groups = dump_alloc(d, s->ngroup * sizeof(*m->groups));
	for (i = 0; i < s->ngroup; i++) {
		const struct udp_group *q = &s->group[i];
		Pm__UdpGroup *g = dump_alloc(d, sizeof(*g));

		pm__udp_group__init(g);
		g->group = q->group.s_addr;
		g->iface = q->iface.s_addr;
		g->mode = q->mode;
		g->sources = dump_alloc(d, q->nsrc * sizeof(*g->sources));
		for (k = 0; k < q->nsrc; k++)
			g->sources[k] = q->src[k].s_addr;
		g->n_sources = q->nsrc;
		m->groups[i] = g;
	}
	m->n_groups = s->ngroup;
}

void kind_dgram_out(struct dump *d, const struct object *o, const struct udp_state *s, Pm__BodyUdp *m)
{
	m->laddr = s->local.sin_addr.s_addr;
	m->lport = s->local.sin_port;
	m->paddr = s->peer.sin_addr.s_addr;
	m->pport = s->peer.sin_port;
	m->v6 = s->v6;
	if (s->v6) {
		m->laddr6 = kind_bytes(d, &s->local6, sizeof(s->local6));
		m->paddr6 = kind_bytes(d, &s->peer6, sizeof(s->peer6));
	}
	m->shut_rd = s->shut_rd;
	m->shut_wr = s->shut_wr;
	m->nonblock = s->nonblock;
	m->sndbuf = s->sndbuf;
	m->rcvbuf = s->rcvbuf;
	m->uid = o->p.st.st_uid;
	m->gid = o->p.st.st_gid;
	kind_opts_out(d, s->opt, s->nopt, &m->opts, &m->n_opts);
	copy_queue(d, s, m);
	copy_groups(d, s, m);
}

int kind_dgram_queue_in(const Pm__BodyUdp *m, struct udp_state *s, struct err *e)
{
	size_t i, k;

	s->queue = calloc(m->n_queue + 1, sizeof(*s->queue));
	s->group = calloc(m->n_groups + 1, sizeof(*s->group));
	if (!s->queue || !s->group)
		return err_num(e, ENOMEM, "a socket's queue");
	for (i = 0; i < m->n_queue; i++) {
		const Pm__UdpDgram *g = m->queue[i];

		if (g->port > UINT16_MAX || g->ttl > UINT8_MAX || g->tos > UINT8_MAX ||
		    g->data.len > UINT16_MAX)
			return KIND_DAMAGED(e, "a datagram's numbers");
		s->queue[i] = (struct udp_dgram){
			.from = { .sin_family = AF_INET, .sin_port = (in_port_t)g->port,
				  .sin_addr.s_addr = g->addr },
			.to.s_addr = g->to, .ttl = (uint8_t)g->ttl, .tos = (uint8_t)g->tos,
			.len = (uint32_t)g->data.len, .data = g->data.data,
		};
		if (!g->addr6.len && !g->to6.len)
			continue;
		if (g->addr6.len != sizeof(s->queue[i].from6) || g->to6.len != sizeof(s->queue[i].to6))
			return KIND_DAMAGED(e, "a datagram's addresses");
		s->queue[i].v6 = true;
		memcpy(&s->queue[i].from6, g->addr6.data, g->addr6.len);
		memcpy(&s->queue[i].to6, g->to6.data, g->to6.len);
	}
	s->nqueue = m->n_queue;
	for (i = 0; i < m->n_groups; i++) {
		const Pm__UdpGroup *g = m->groups[i];

		if (g->n_sources > UDP_SOURCES)
			return KIND_DAMAGED(e, "a multicast group of %zu sources", g->n_sources);
		s->group[i].group.s_addr = g->group;
		s->group[i].iface.s_addr = g->iface;
		s->group[i].mode = g->mode;
		s->group[i].nsrc = (uint32_t)g->n_sources;
		for (k = 0; k < g->n_sources; k++)
			s->group[i].src[k].s_addr = g->sources[k];
	}
	s->ngroup = m->n_groups;
	return 0;
}

int kind_dgram_in(const Pm__BodyUdp *m, struct udp_state *s, struct err *e)
{
	if (m->lport > UINT16_MAX || m->pport > UINT16_MAX)
		return KIND_DAMAGED(e, "a socket's numbers");
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
			return KIND_DAMAGED(e, "a socket's addresses");
		memcpy(&s->local6, m->laddr6.data, sizeof(s->local6));
		memcpy(&s->peer6, m->paddr6.data, sizeof(s->peer6));
	}
	s->shut_rd = m->shut_rd;
	s->shut_wr = m->shut_wr;
	s->nonblock = m->nonblock;
	s->sndbuf = m->sndbuf;
	s->rcvbuf = m->rcvbuf;
	return kind_opts_in(m->opts, m->n_opts, s->opt, ARRAY_SIZE(s->opt), &s->nopt, e);
}
