/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * UDP sockets: the work is netfreeze's; here its struct becomes a record and back.
 *
 * The queue is filled by restore(), before the socket takes its name; what arrived while the pod
 * stood still is replayed later, so it comes after what had waited.
 */
#include <errno.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "netfreeze/netfreeze.h"
#include "pod/base/util.h"
#include "pod/kind/kinds.h"

static bool match(const struct probe *p)
{
	return S_ISSOCK(p->st.st_mode) && !kind_is_o_path(p) &&
	       (kind_sock_int(p->fd, SO_DOMAIN) == AF_INET || kind_sock_int(p->fd, SO_DOMAIN) == AF_INET6) &&
	       kind_sock_int(p->fd, SO_TYPE) == SOCK_DGRAM && kind_sock_int(p->fd, SO_PROTOCOL) == IPPROTO_UDP;
}

static int check(struct dump *d, const struct probe *p, struct err *e)
{
	int r = kind_check_common(p, e);

	return r < 0 ? r : udp_check(p->fd, dump_netns(d), e);
}

static int dump(struct dump *d, struct object *o, ProtobufCMessage **body, struct err *e)
{
	Pm__BodyUdp *m = dump_alloc(d, sizeof(*m));
	struct udp_state s = { 0 };
	int r = kind_check_common(&o->p, e);

	if (r == 0)
		r = udp_save(o->p.fd, dump_netns(d), &s, e);
	if (r < 0)
		return r;
	pm__body_udp__init(m);
	kind_dgram_out(d, o, &s, m);
	udp_state_done(&s);
	*body = &m->base;
	return 0;
}

static int restore(struct restore *r, struct robject *o, struct err *e)
{
	const Pm__BodyUdp *m = (const void *)o->body;
	autoclose int fd = -1;
	struct udp_state s = { 0 };
	int ret = kind_dgram_in(m, &s, e);

	if (ret == 0)
		ret = kind_dgram_queue_in(m, &s, e);
	if (ret == 0)
		ret = fd = netns_socket(restore_netns(r), m->v6 ? AF_INET6 : AF_INET, SOCK_DGRAM, IPPROTO_UDP, e);
	if (ret >= 0 && fchown(fd, m->uid, m->gid) < 0)
		ret = err_sys(e, "owner of a UDP socket");
	if (ret >= 0)
		ret = udp_restore_on(fd, restore_netns(r), &s, e);
	free(s.queue);
	free(s.group);
	if (ret < 0)
		return ret;
	o->fd = take_fd(&fd);
	return 0;
}

static int finish(struct restore *r, struct robject *o, struct err *e)
{
	struct udp_state s = { 0 };
	int ret = kind_dgram_in((const void *)o->body, &s, e);

	(void)r;
	return ret < 0 ? ret : udp_release(o->fd, &s, e);
}

const struct kind kind_udp = {
	.name = "udp",
	.type = TYPE_UDP,
	.version = 2, /* 2: IPv6 */
	.min_version = 1,
	.scope = KIND_FD,
	.loose = true,
	.stage = STAGE_SOCKET,
	.schema = &pm__body_udp__descriptor,
	.match = match,
	.check = check,
	.dump = dump,
	.restore = restore,
	.finish = finish,
};
