/* SPDX-License-Identifier: GPL-3.0-or-later */
/* One question to sock_diag about one unix socket: the only place where the kernel tells its peer. */
#include <errno.h>
#include <libmnl/libmnl.h>
#include <linux/netlink.h>
#include <linux/sock_diag.h>
#include <linux/unix_diag.h>
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
		o->backlog = q->udiag_wqueue; /* of a listener */
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
