/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Netlink sockets of the protocols by which programs watch and ask the kernel: NETLINK_ROUTE, NETLINK_SOCK_DIAG,
 * NETLINK_KOBJECT_UEVENT, and NETLINK_USERSOCK between programs.
 *
 * Theory of operation. A socket is its port id, the groups it hears, whom it is connected to, its options and sizes; all
 * of it can be asked for and said again. The new one is opened, bound and joined to groups as the pod's user: for what may be
 * asked the kernel looks at who has opened the socket, too.
 *
 * What waits in a queue comes from port 0, the kernel, and nobody else can send as that; and only the first message can be
 * peeked at. So the pod is stopped only when the queues are empty and no dump is under way (kind_netlink_unread(), asked by
 * pod/live.c until a program has read its answer); a program that does not read is refused. Every socket of the
 * namespace that is bound stands in one table, so that those are seen as well that are made for one question (getaddrinfo(3));
 * one that hears a group without being bound is not in it, and what waits there is met in the freeze only.
 *
 * Refused by name: other protocols, whose kernel side knows the socket (NETLINK_NETFILTER: queues, NETLINK_AUDIT) or whose
 * numbers are another kernel's (NETLINK_GENERIC: families); NETLINK_LISTEN_ALL_NSID.
 *
 * Lost: what groups would have heard while the pod stood still. Not seen: that a socket is connected to the kernel itself,
 * which keeps other programs from sending to it.
 */
#include <errno.h>
#include <linux/netlink.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

#include "netfreeze/sockopt.h"
#include "pod/base/io.h"
#include "pod/base/util.h"
#include "pod/dump.h"
#include "pod/kind/kinds.h"

#define GROUPS_MAX 1024
#define TABLE_MAX (16u << 20)

#define N_INT(lv, nm, when, dfl) INT_OPT(lv, nm, when, IN_ALL, dfl)

static const struct opt_row rows[] = {
	N_INT(SOL_NETLINK, NETLINK_PKTINFO, OPT_EARLY, 0),
	N_INT(SOL_NETLINK, NETLINK_BROADCAST_ERROR, OPT_EARLY, 0),
	N_INT(SOL_NETLINK, NETLINK_NO_ENOBUFS, OPT_EARLY, 0),
	N_INT(SOL_NETLINK, NETLINK_CAP_ACK, OPT_EARLY, 0),
	N_INT(SOL_NETLINK, NETLINK_EXT_ACK, OPT_EARLY, 0),
	N_INT(SOL_NETLINK, NETLINK_GET_STRICT_CHK, OPT_EARLY, 0),
	N_INT(SOL_SOCKET, SO_PASSCRED, OPT_EARLY, 0),
	N_INT(SOL_SOCKET, SO_PASSSEC, OPT_EARLY, 0),
	N_INT(SOL_SOCKET, SO_REUSEADDR, OPT_EARLY, 0),
	N_INT(SOL_SOCKET, SO_BROADCAST, OPT_EARLY, 0),
	N_INT(SOL_SOCKET, SO_PRIORITY, OPT_EARLY, 0),
	N_INT(SOL_SOCKET, SO_MARK, OPT_EARLY, 0),
	N_INT(SOL_SOCKET, SO_TIMESTAMP, OPT_EARLY, 0),
	N_INT(SOL_SOCKET, SO_TIMESTAMPNS, OPT_EARLY, 0),
	N_INT(SOL_SOCKET, SO_RXQ_OVFL, OPT_EARLY, 0),
	N_INT(SOL_SOCKET, SO_RCVLOWAT, OPT_EARLY, 1),
	RAW_OPT(SOL_SOCKET, SO_RCVTIMEO, sizeof(struct timeval), OPT_EARLY, IN_ALL),
	RAW_OPT(SOL_SOCKET, SO_SNDTIMEO, sizeof(struct timeval), OPT_EARLY, IN_ALL),
	N_INT(SOL_SOCKET, SO_BUF_LOCK, OPT_LATE, ALWAYS),
};
static const struct opt_table opts = { rows, ARRAY_SIZE(rows), IN_ALL };

static const struct {
	int number;
	const char *name;
	bool carried;
} protocols[] = {
	{ NETLINK_ROUTE, "NETLINK_ROUTE", true },
	{ NETLINK_USERSOCK, "NETLINK_USERSOCK", true },
	{ NETLINK_SOCK_DIAG, "NETLINK_SOCK_DIAG", true },
	{ NETLINK_KOBJECT_UEVENT, "NETLINK_KOBJECT_UEVENT", true },
	{ NETLINK_XFRM, "NETLINK_XFRM", false },
	{ NETLINK_AUDIT, "NETLINK_AUDIT", false },
	{ NETLINK_CONNECTOR, "NETLINK_CONNECTOR", false },
	{ NETLINK_NETFILTER, "NETLINK_NETFILTER", false },
	{ NETLINK_GENERIC, "NETLINK_GENERIC", false },
	{ NETLINK_CRYPTO, "NETLINK_CRYPTO", false },
	{ NETLINK_RDMA, "NETLINK_RDMA", false },
};

static bool is_carried(int protocol)
{
	size_t i;

	for (i = 0; i < ARRAY_SIZE(protocols); i++)
		if (protocols[i].number == protocol)
			return protocols[i].carried;
	return false;
}

static bool match(const struct probe *p)
{
	return S_ISSOCK(p->st.st_mode) && !kind_is_o_path(p) && kind_sock_int(p->fd, SO_DOMAIN) == AF_NETLINK;
}

static int check(struct dump *d, const struct probe *p, struct err *e)
{
	int protocol = kind_sock_int(p->fd, SO_PROTOCOL), all = 0, r = kind_check_common(p, e);
	socklen_t len = sizeof(all);
	size_t i;

	(void)d;
	if (r < 0)
		return r;
	if (!is_carried(protocol)) {
		for (i = 0; i < ARRAY_SIZE(protocols) && protocols[i].number != protocol; i++)
			;
		return KIND_REFUSE(e, "is a netlink socket of protocol %d (%s): cannot be carried", protocol,
				   i < ARRAY_SIZE(protocols) ? protocols[i].name : "unknown");
	}
	if (getsockopt(p->fd, SOL_NETLINK, NETLINK_LISTEN_ALL_NSID, &all, &len) == 0 && all)
		return KIND_REFUSE(e, "is a netlink socket that hears other network namespaces (NETLINK_LISTEN_ALL_NSID): cannot be carried");
	return 0;
}

struct line {
	int protocol, rmem, dump;
	unsigned long inode;
};

/* "sk Eth Pid Groups Rmem Wmem Dump Locks Drops Inode" */
static int read_table(pid_t pid, char **text, struct err *e)
{
	char path[48];

	snprintf(path, sizeof(path), "/proc/%d/net/netlink", (int)pid);
	return io_read_file(path, TABLE_MAX, text, NULL, e);
}

static bool next_line(char **save, char *text, struct line *l)
{
	char *s;

	while ((s = strtok_r(text, "\n", save))) {
		text = NULL;
		if (sscanf(s, "%*s %d %*u %*x %d %*d %d %*d %*u %lu", &l->protocol, &l->rmem, &l->dump, &l->inode) == 4)
			return true;
	}
	return false;
}

int kind_netlink_unread(pid_t pid, uint64_t *inode, struct err *e)
{
	autofree char *text = NULL;
	char *save = NULL, *at;
	struct line l;
	int r = read_table(pid, &text, e);

	for (at = text; r >= 0 && next_line(&save, at, &l); at = NULL) {
		if (!l.inode || !is_carried(l.protocol) || (l.rmem <= 0 && !l.dump))
			continue;
		*inode = l.inode;
		return 1;
	}
	return MIN(r, 0);
}

/* Nothing waits, no error either, and the kernel has nothing more to say. */
static int check_quiet(const struct dump *d, const struct object *o, struct err *e)
{
	struct pollfd p = { .fd = o->p.fd, .events = POLLIN };
	autofree char *text = NULL;
	char *save = NULL, *at;
	struct line l;
	int r;

	if (poll(&p, 1, 0) < 0)
		return err_sys(e, "queue of a netlink socket");
	r = read_table(d->pid1, &text, e);
	for (at = text; r >= 0 && next_line(&save, at, &l); at = NULL)
		if (l.inode == o->p.st.st_ino && l.dump)
			p.revents |= POLLIN;
	if (r >= 0 && p.revents & (POLLIN | POLLERR))
		return err_set(e, EBUSY, "a netlink socket has messages or an error that the program has not read");
	return MIN(r, 0);
}

static int get_groups(struct dump *d, int fd, Pm__BodyNetlink *m, struct err *e)
{
	uint32_t bits[GROUPS_MAX / 32] = { 0 };
	socklen_t len = sizeof(bits);
	uint32_t i;

	if (getsockopt(fd, SOL_NETLINK, NETLINK_LIST_MEMBERSHIPS, bits, &len) < 0)
		return err_sys(e, "groups of a netlink socket");
	if (len > sizeof(bits))
		return KIND_REFUSE(e, "a netlink socket of a protocol with %u groups: cannot be carried", len * 8);
	m->groups = dump_alloc(d, GROUPS_MAX * sizeof(*m->groups));
	for (i = 0; i < len * 8; i++)
		if (bits[i / 32] & 1u << i % 32)
			m->groups[m->n_groups++] = i + 1;
	return 0;
}

static int get_options(struct dump *d, int fd, Pm__BodyNetlink *m, struct err *e)
{
	struct sock_opt opt[ARRAY_SIZE(rows)];
	unsigned n = 0;
	size_t i;
	int r;

	for (i = 0; i < ARRAY_SIZE(rows); i++) {
		r = sockopt_read(fd, &rows[i], &opt[n], e);
		if (r < 0)
			return r;
		n += (unsigned)r;
	}
	kind_opts_out(d, opt, n, &m->opts, &m->n_opts);
	return 0;
}

static int dump(struct dump *d, struct object *o, ProtobufCMessage **body, struct err *e)
{
	Pm__BodyNetlink *m = dump_alloc(d, sizeof(*m));
	struct sockaddr_nl at = { 0 }, peer = { 0 };
	socklen_t len = sizeof(at), plen = sizeof(peer);
	int r = check(d, &o->p, e);

	if (r >= 0)
		r = check_quiet(d, o, e);
	if (r < 0)
		return r;
	if (getsockname(o->p.fd, (struct sockaddr *)&at, &len) < 0 || getpeername(o->p.fd, (struct sockaddr *)&peer, &plen) < 0)
		return err_sys(e, "name of a netlink socket");
	pm__body_netlink__init(m);
	m->protocol = (uint32_t)kind_sock_int(o->p.fd, SO_PROTOCOL);
	m->sock_type = (uint32_t)kind_sock_int(o->p.fd, SO_TYPE);
	m->port = at.nl_pid;
	m->peer_port = peer.nl_pid;
	m->peer_groups = peer.nl_groups;
	m->sndbuf = (uint32_t)kind_sock_int(o->p.fd, SO_SNDBUF);
	m->rcvbuf = (uint32_t)kind_sock_int(o->p.fd, SO_RCVBUF);
	m->uid = o->p.st.st_uid;
	m->gid = o->p.st.st_gid;
	r = get_groups(d, o->p.fd, m, e);
	if (r >= 0)
		r = get_options(d, o->p.fd, m, e);
	*body = &m->base;
	return r;
}

/* ---- the new one */

struct maker {
	struct restore *r;
	const Pm__BodyNetlink *m;
	const struct sock_opt *opt;
	unsigned n;
};

static int take_names(int fd, const Pm__BodyNetlink *m, struct err *e)
{
	struct sockaddr_nl at = { .nl_family = AF_NETLINK, .nl_pid = m->port };
	struct sockaddr_nl peer = { .nl_family = AF_NETLINK, .nl_pid = m->peer_port, .nl_groups = m->peer_groups };
	size_t i;

	if (m->port && bind(fd, (struct sockaddr *)&at, sizeof(at)) < 0)
		return err_sys(e, "netlink port %u", m->port);
	for (i = 0; i < m->n_groups; i++)
		if (setsockopt(fd, SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, &m->groups[i], sizeof(m->groups[i])) < 0)
			return err_sys(e, "netlink group %u", m->groups[i]);
	if ((m->peer_port || m->peer_groups) && connect(fd, (struct sockaddr *)&peer, sizeof(peer)) < 0)
		return err_sys(e, "connect to netlink port %u", m->peer_port);
	return 0;
}

static int make(void *arg, struct err *e)
{
	const struct maker *k = arg;
	autoclose int fd = socket(AF_NETLINK, (int)k->m->sock_type | SOCK_CLOEXEC, (int)k->m->protocol);
	int r = fd < 0 ? err_sys(e, "netlink socket of protocol %u", k->m->protocol) : take_names(fd, k->m, e);

	if (r >= 0)
		r = sockopt_apply(fd, &opts, k->opt, k->n, OPT_EARLY, e);
	return r < 0 ? r : take_fd(&fd);
}

/* In the thread that is in the pod's namespaces. Groups, peers and options are the user's, too: the kernel may let only root have one. */
static int make_as_owner(void *arg, struct err *e)
{
	return restore_as_owner(((const struct maker *)arg)->r, make, arg, e);
}

static int restore(struct restore *r, struct robject *o, struct err *e)
{
	const Pm__BodyNetlink *m = (const void *)o->body;
	struct sock_opt opt[ARRAY_SIZE(rows)];
	struct maker k = { r, m, opt, 0 };
	autoclose int fd = -1;
	int ret;

	if (!is_carried((int)m->protocol) || (m->sock_type != SOCK_RAW && m->sock_type != SOCK_DGRAM) || m->n_groups > GROUPS_MAX)
		return KIND_DAMAGED(e, "a netlink socket of protocol %u and type %u", m->protocol, m->sock_type);
	ret = kind_opts_in(m->opts, m->n_opts, opt, ARRAY_SIZE(opt), &k.n, e);
	if (ret >= 0)
		ret = fd = restore_in_pod(r, false, make_as_owner, &k, e);
	if (ret >= 0 && restore_may_be(r, m->uid, m->gid) && fchown(fd, m->uid, m->gid) < 0)
		ret = err_sys(e, "owner of a netlink socket");
	if (ret >= 0)
		ret = sockopt_set_buffers(fd, m->sndbuf, m->rcvbuf, e);
	if (ret >= 0)
		ret = sockopt_apply(fd, &opts, opt, k.n, OPT_LATE, e);
	if (ret < 0)
		return ret;
	o->fd = take_fd(&fd);
	return 0;
}

const struct kind kind_netlink = {
	.name = "netlink",
	.type = TYPE_NETLINK,
	.version = 1,
	.min_version = 1,
	.scope = KIND_FD,
	.loose = true,
	.stage = STAGE_SOCKET,
	.schema = &pm__body_netlink__descriptor,
	.match = match,
	.check = check,
	.dump = dump,
	.restore = restore,
};
