/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Questions to sock_diag about unix sockets: the only place where the kernel tells their peers. */
#include <errno.h>
#include <libmnl/libmnl.h>
#include <linux/netlink.h>
#include <linux/sock_diag.h>
#include <linux/unix_diag.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "pod/base/util.h"
#include "pod/kind/unix_int.h"

static int on_attr(const struct nlattr *a, void *data)
{
	struct unix_info *o = data;
	const struct unix_diag_rqlen *q;

	switch (mnl_attr_get_type(a)) {
	case UNIX_DIAG_PEER:
		o->has_peer = true;
		o->peer = mnl_attr_get_u32(a);
		break;
	case UNIX_DIAG_RQLEN:
		q = mnl_attr_get_payload(a);
		o->backlog = q->udiag_wqueue;
		break;
	case UNIX_DIAG_SHUTDOWN:
		o->shutdown = mnl_attr_get_u8(a);
		break;
	case UNIX_DIAG_ICONS:
		o->npending = mnl_attr_get_payload_len(a) / sizeof(uint32_t);
		if (o->npending > UNIX_PENDING_MAX)
			return MNL_CB_ERROR;
		memcpy(o->pending, mnl_attr_get_payload(a), o->npending * sizeof(uint32_t));
		break;
	default:
		break;
	}
	return MNL_CB_OK;
}

static int on_msg(const struct nlmsghdr *h, void *data)
{
	struct unix_info *o = data;
	const struct unix_diag_msg *m = mnl_nlmsg_get_payload(h);

	o->state = m->udiag_state;
	return mnl_attr_parse(h, sizeof(*m), on_attr, o) < 0 ? MNL_CB_ERROR : MNL_CB_STOP;
}

int unix_diag_get(int nl, uint32_t ino, struct unix_info *out, struct err *e)
{
	struct {
		struct nlmsghdr h;
		struct unix_diag_req q;
	} req = {
		.h = { .nlmsg_len = sizeof(req),
		       .nlmsg_type = SOCK_DIAG_BY_FAMILY,
		       .nlmsg_flags = NLM_F_REQUEST,
		       .nlmsg_seq = ino },
		.q = { .sdiag_family = AF_UNIX,
		       .udiag_states = UINT32_MAX,
		       .udiag_ino = ino,
		       .udiag_show = UDIAG_SHOW_PEER | UDIAG_SHOW_ICONS | UDIAG_SHOW_RQLEN,
		       .udiag_cookie = { UINT32_MAX, UINT32_MAX } },
	};
	char buf[16384] __attribute__((aligned(8)));
	ssize_t n;

	memset(out, 0, sizeof(*out));
	if (send(nl, &req, sizeof(req), 0) < 0)
		return err_sys(e, "sock_diag");
	n = recv(nl, buf, sizeof(buf), 0); /* the kernel has answered within send(2) */
	if (n < 0)
		return err_sys(e, "sock_diag");
	if (mnl_cb_run(buf, (size_t)n, ino, 0, on_msg, out) < 0)
		return err_sys(e, "sock_diag on socket %u", ino);
	return 0;
}

/* ---- accept queues */

#define WAITING_MAX 4096
#define PODINIT_NAME "\0podmigrate/podinit"

struct queues {
	uint32_t listener; /* of the message that is being read */
	bool podinit;
	size_t n;
	struct {
		uint32_t listener, client;
	} waiting[WAITING_MAX];
};

static int on_listener_attr(const struct nlattr *a, void *data)
{
	struct queues *q = data;
	const uint32_t *c = mnl_attr_get_payload(a);
	size_t n = mnl_attr_get_payload_len(a), i;

	if (mnl_attr_get_type(a) == UNIX_DIAG_NAME)
		q->podinit = n == sizeof(PODINIT_NAME) - 1 && !memcmp(c, PODINIT_NAME, n);
	if (mnl_attr_get_type(a) == UNIX_DIAG_ICONS && !q->podinit)
		for (i = 0; i < n / sizeof(*c) && q->n < WAITING_MAX; i++) {
			q->waiting[q->n].listener = q->listener;
			q->waiting[q->n++].client = c[i];
		}
	return MNL_CB_OK;
}

static int on_listener(const struct nlmsghdr *h, void *data)
{
	struct queues *q = data;
	const struct unix_diag_msg *m = mnl_nlmsg_get_payload(h);

	q->listener = m->udiag_ino;
	q->podinit = false;
	return mnl_attr_parse(h, sizeof(*m), on_listener_attr, q) < 0 ? MNL_CB_ERROR : MNL_CB_OK;
}

static int list_queues(int nl, struct queues *q, struct err *e)
{
	struct {
		struct nlmsghdr h;
		struct unix_diag_req q;
	} req = {
		.h = { .nlmsg_len = sizeof(req),
		       .nlmsg_type = SOCK_DIAG_BY_FAMILY,
		       .nlmsg_flags = NLM_F_REQUEST | NLM_F_DUMP },
		.q = { .sdiag_family = AF_UNIX,
		       .udiag_states = 1u << UNIX_LISTEN,
		       .udiag_show = UDIAG_SHOW_NAME | UDIAG_SHOW_ICONS },
	};
	char buf[32768] __attribute__((aligned(8)));
	int r = MNL_CB_OK;

	if (send(nl, &req, sizeof(req), 0) < 0)
		return err_sys(e, "sock_diag");
	while (r == MNL_CB_OK) {
		ssize_t n = recv(nl, buf, sizeof(buf), 0);

		if (n < 0)
			return err_sys(e, "sock_diag");
		r = mnl_cb_run(buf, (size_t)n, 0, 0, on_listener, q);
	}
	return r < 0 ? err_sys(e, "sock_diag on listening unix sockets") : 0;
}

int kind_unix_unaccepted(int nl, uint64_t *listener, struct err *e)
{
	struct queues *q = calloc(1, sizeof(*q));
	struct unix_info *u = malloc(sizeof(*u));
	int r = q && u ? list_queues(nl, q, e) : err_num(e, ENOMEM, "unix sockets");
	size_t i;

	for (i = 0; r == 0 && i < q->n; i++) {
		*listener = q->waiting[i].listener;
		if (!q->waiting[i].client)
			r = 1; /* it has gone, and what it sent waits */
		else if (unix_diag_get(nl, q->waiting[i].client, u, NULL) == 0)
			r = u->backlog > 0; /* what it sent */
	}
	free(q);
	free(u);
	return r;
}
