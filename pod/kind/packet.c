/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Packet sockets (AF_PACKET): type, protocol, the link that they are bound to, memberships (promiscuous mode, multicast
 * addresses), options and sizes.
 *
 * Theory of operation. What getsockopt(2) does not say of one, its memberships, rings and fanout, the kernel tells by
 * packet_diag. A link is known by its name; a pod has lo and eth0, and others stay where they are. The socket is made
 * with the rights of the pod's user, and hears nothing (raw_shield()) until all sockets are there, by whatever their
 * queues are filled.
 *
 * What waits in the queue is lost, as packet sockets may lose frames at any time: it can only be read by taking it out,
 * and not be put back, as the kernel hears what a link receives, too. Who restores is told. What comes by eth0 while the
 * pod stands still is heard on the target, like by any other socket; but if the pod goes on where it was (a checkpoint,
 * a move that is undone), twice.
 *
 * Refused by name: rings (memory of the kernel's), fanout, SO_TXTIME, SOCK_PACKET, links of the program's own. Not seen, as
 * the kernel does not tell of them: PACKET_COPY_THRESH, SO_TXTIME by CLOCK_REALTIME without flags. The statistics begin anew,
 * since reading them would do that on the source.
 */
#include <errno.h>
#include <libmnl/libmnl.h>
#include <linux/if_packet.h>
#include <linux/packet_diag.h>
#include <linux/sock_diag.h>
#include <net/if.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "netfreeze/sockopt.h"
#include "pod/base/io.h"
#include "pod/base/util.h"
#include "pod/kind/kinds.h"

#ifndef PACKET_IGNORE_OUTGOING
#define PACKET_IGNORE_OUTGOING 23
#endif
#ifndef PACKET_VNET_HDR_SZ
#define PACKET_VNET_HDR_SZ 24
#endif
#define MEMBERS_MAX 256
#define ANSWER_MS 2000
#define ADDR_MAX 8 /* of struct packet_mreq */

#define P_INT(lv, nm, when, dfl) INT_OPT(lv, nm, when, IN_ALL, dfl)

static const struct opt_row rows[] = {
	P_INT(SOL_PACKET, PACKET_AUXDATA, OPT_EARLY, 0),
	P_INT(SOL_PACKET, PACKET_ORIGDEV, OPT_EARLY, 0),
	P_INT(SOL_PACKET, PACKET_VERSION, OPT_EARLY, 0),
	P_INT(SOL_PACKET, PACKET_RESERVE, OPT_EARLY, 0),
	P_INT(SOL_PACKET, PACKET_LOSS, OPT_EARLY, 0),
	P_INT(SOL_PACKET, PACKET_VNET_HDR_SZ, OPT_EARLY, 0), /* PACKET_VNET_HDR is one size of it */
	P_INT(SOL_PACKET, PACKET_TIMESTAMP, OPT_EARLY, 0),
	P_INT(SOL_PACKET, PACKET_TX_HAS_OFF, OPT_EARLY, 0),
	P_INT(SOL_PACKET, PACKET_QDISC_BYPASS, OPT_EARLY, 0),
	P_INT(SOL_PACKET, PACKET_IGNORE_OUTGOING, OPT_EARLY, 0),
	P_INT(SOL_SOCKET, SO_PRIORITY, OPT_EARLY, 0),
	P_INT(SOL_SOCKET, SO_MARK, OPT_EARLY, 0),
	P_INT(SOL_SOCKET, SO_TIMESTAMP, OPT_EARLY, 0),
	P_INT(SOL_SOCKET, SO_TIMESTAMPNS, OPT_EARLY, 0),
	RAW_OPT(SOL_SOCKET, SO_TIMESTAMPING, 8, OPT_EARLY, IN_ALL),
	P_INT(SOL_SOCKET, SO_NOFCS, OPT_EARLY, 0),
	P_INT(SOL_SOCKET, SO_RXQ_OVFL, OPT_EARLY, 0),
	P_INT(SOL_SOCKET, SO_RCVLOWAT, OPT_EARLY, 1),
	RAW_OPT(SOL_SOCKET, SO_RCVTIMEO, sizeof(struct timeval), OPT_EARLY, IN_ALL),
	RAW_OPT(SOL_SOCKET, SO_SNDTIMEO, sizeof(struct timeval), OPT_EARLY, IN_ALL),
	P_INT(SOL_SOCKET, SO_BUF_LOCK, OPT_LATE, ALWAYS),
};
static const struct opt_table opts = { rows, ARRAY_SIZE(rows), IN_ALL };

static bool match(const struct probe *p)
{
	return S_ISSOCK(p->st.st_mode) && !kind_is_o_path(p) && kind_sock_int(p->fd, SO_DOMAIN) == AF_PACKET;
}

/* ---- what the kernel says of one */

struct member {
	char link[IFNAMSIZ];
	struct packet_diag_mclist m;
};

struct look {
	uint32_t inode;
	int ifindex;
	bool found, ring, fanout, crowded;
	char link[IFNAMSIZ];
	struct member member[MEMBERS_MAX];
	size_t n;
};

static void read_members(const struct nlattr *a, struct look *l)
{
	const uint8_t *p = mnl_attr_get_payload(a);
	size_t left = mnl_attr_get_payload_len(a);

	for (; left >= sizeof(struct packet_diag_mclist); left -= sizeof(struct packet_diag_mclist)) {
		if (l->n == MEMBERS_MAX) {
			l->crowded = true;
			return;
		}
		memcpy(&l->member[l->n++].m, p, sizeof(struct packet_diag_mclist));
		p += sizeof(struct packet_diag_mclist);
	}
}

static int read_one(const struct nlmsghdr *h, void *arg)
{
	const struct packet_diag_msg *m = mnl_nlmsg_get_payload(h);
	struct look *l = arg;
	const struct nlattr *a;

	if (m->pdiag_ino != l->inode)
		return MNL_CB_OK;
	l->found = true;
	mnl_attr_for_each(a, h, sizeof(*m)) {
		int type = mnl_attr_get_type(a);

		if (type == PACKET_DIAG_MCLIST)
			read_members(a, l);
		l->ring |= type == PACKET_DIAG_RX_RING || type == PACKET_DIAG_TX_RING;
		l->fanout |= type == PACKET_DIAG_FANOUT;
	}
	return MNL_CB_OK;
}

static int ask(int nl, struct look *l, struct err *e)
{
	struct {
		struct nlmsghdr h;
		struct packet_diag_req r;
	} q = { { sizeof(q), SOCK_DIAG_BY_FAMILY, NLM_F_REQUEST | NLM_F_DUMP, 1, 0 },
		{ .sdiag_family = AF_PACKET, .pdiag_show = PACKET_SHOW_MCLIST | PACKET_SHOW_RING_CFG | PACKET_SHOW_FANOUT } };
	char buf[32768];
	ssize_t n;
	int r;

	if (send(nl, &q, sizeof(q), 0) < 0)
		return err_sys(e, "ask for packet sockets");
	do {
		r = io_wait_readable(nl, deadline_ms(ANSWER_MS), e);
		if (r < 0)
			return r;
		n = recv(nl, buf, sizeof(buf), 0);
		if (n < 0)
			return err_sys(e, "answer about packet sockets");
		r = mnl_cb_run(buf, (size_t)n, 1, 0, read_one, l);
	} while (r > MNL_CB_STOP);
	return r < 0 ? err_sys(e, "what the kernel says of packet sockets (packet_diag)") : 0;
}

/* In the pod's namespace; a link that is gone has no name. */
static int name_links(void *arg, struct err *e)
{
	struct look *l = arg;
	size_t i;

	(void)e;
	if (l->ifindex && !if_indextoname((unsigned)l->ifindex, l->link))
		strcpy(l->link, "?");
	for (i = 0; i < l->n; i++)
		if (!if_indextoname(l->member[i].m.pdmc_index, l->member[i].link))
			strcpy(l->member[i].link, "?");
	return 0;
}

/* ---- source */

static bool has_link(const char *name)
{
	return !name[0] || !strcmp(name, "lo") || !strcmp(name, "eth0");
}

static int look_at(struct dump *d, const struct probe *p, struct sockaddr_ll *at, struct look *l, struct err *e)
{
	autoclose int nl = netns_socket(dump_netns(d), AF_NETLINK, SOCK_RAW, NETLINK_SOCK_DIAG, e);
	socklen_t len = sizeof(*at);
	size_t i;
	int r;

	memset(l, 0, sizeof(*l));
	l->inode = (uint32_t)p->st.st_ino;
	if (nl < 0)
		return nl;
	if (getsockname(p->fd, (struct sockaddr *)at, &len) < 0)
		return err_sys(e, "name of a packet socket");
	l->ifindex = at->sll_ifindex;
	r = ask(nl, l, e);
	if (r == -ENOENT)
		return KIND_REFUSE(e, "a packet socket, of which this kernel does not tell all (packet_diag): cannot be carried");
	if (r < 0)
		return r;
	if (!l->found)
		return KIND_REFUSE(e, "a packet socket of another network namespace: cannot be carried");
	r = netns_run(dump_netns(d), name_links, l, e);
	if (r < 0)
		return r;
	if (l->ring)
		return KIND_REFUSE(e, "a packet socket with a ring (PACKET_RX_RING, PACKET_TX_RING): cannot be carried");
	if (l->fanout)
		return KIND_REFUSE(e, "a packet socket in a fanout group: cannot be carried");
	for (i = 0; i < l->n && has_link(l->member[i].link) && l->member[i].m.pdmc_alen <= ADDR_MAX; i++)
		;
	if (i < l->n || l->crowded || !has_link(l->link))
		return KIND_REFUSE(e, "a packet socket on a link that does not move, or with more than %d memberships: cannot be carried",
				   MEMBERS_MAX);
	return 0;
}

static int check(struct dump *d, const struct probe *p, struct err *e)
{
	int type = kind_sock_int(p->fd, SO_TYPE), r = kind_check_common(p, e);
	struct sockaddr_ll at;
	struct look l;

	if (r < 0)
		return r;
	if (type != SOCK_RAW && type != SOCK_DGRAM)
		return KIND_REFUSE(e, "a packet socket of type %d: cannot be carried", type);
	if (sockopt_has_txtime(p->fd))
		return KIND_REFUSE(e, "a packet socket with SO_TXTIME: cannot be carried");
	return look_at(d, p, &at, &l, e);
}

static void put_members(struct dump *d, const struct look *l, Pm__BodyPacket *m)
{
	size_t i;

	m->members = dump_alloc(d, l->n * sizeof(*m->members));
	for (i = 0; i < l->n; i++) {
		Pm__PacketMember *x = dump_alloc(d, sizeof(*x));

		pm__packet_member__init(x);
		x->link = dump_strdup(d, l->member[i].link);
		x->type = l->member[i].m.pdmc_type;
		x->count = l->member[i].m.pdmc_count;
		x->addr = kind_bytes(d, l->member[i].m.pdmc_addr, l->member[i].m.pdmc_alen);
		m->members[m->n_members++] = x;
	}
}

static int dump(struct dump *d, struct object *o, ProtobufCMessage **body, struct err *e)
{
	Pm__BodyPacket *m = dump_alloc(d, sizeof(*m));
	uint32_t mem[SK_MEMINFO_VARS] = { 0 };
	struct sock_opt opt[ARRAY_SIZE(rows)];
	socklen_t len = sizeof(mem);
	struct sockaddr_ll at;
	struct look l;
	unsigned n = 0;
	size_t i;
	int r = check(d, &o->p, e);

	if (r >= 0)
		r = look_at(d, &o->p, &at, &l, e);
	for (i = 0; i < ARRAY_SIZE(rows) && r >= 0; i++) {
		r = sockopt_read(o->p.fd, &rows[i], &opt[n], e);
		n += r > 0;
	}
	if (r < 0)
		return r;
	pm__body_packet__init(m);
	m->sock_type = (uint32_t)kind_sock_int(o->p.fd, SO_TYPE);
	m->protocol = at.sll_protocol;
	m->link = dump_strdup(d, l.link);
	kind_opts_out(d, opt, n, &m->opts, &m->n_opts);
	put_members(d, &l, m);
	m->sndbuf = (uint32_t)kind_sock_int(o->p.fd, SO_SNDBUF);
	m->rcvbuf = (uint32_t)kind_sock_int(o->p.fd, SO_RCVBUF);
	m->uid = o->p.st.st_uid;
	m->gid = o->p.st.st_gid;
	m->unread = getsockopt(o->p.fd, SOL_SOCKET, SO_MEMINFO, mem, &len) == 0 && mem[SK_MEMINFO_RMEM_ALLOC];
	*body = &m->base;
	return 0;
}

/* ---- the new one */

struct maker {
	struct restore *r;
	const Pm__BodyPacket *m;
	const struct sock_opt *opt;
	unsigned n;
};

static int link_index(const char *name, int *out, struct err *e)
{
	*out = name[0] ? (int)if_nametoindex(name) : 0;
	return name[0] && !*out ? err_sys(e, "link '%.15s' of a packet socket", name) : 0;
}

static int take_members(int fd, const Pm__BodyPacket *m, struct err *e)
{
	size_t i;
	uint32_t k;
	int r = 0;

	for (i = 0; i < m->n_members && r == 0; i++) {
		const Pm__PacketMember *x = m->members[i];
		struct packet_mreq q = { .mr_type = (unsigned short)x->type, .mr_alen = (unsigned short)x->addr.len };

		if (x->addr.len > ADDR_MAX || x->count > MEMBERS_MAX)
			return KIND_DAMAGED(e, "a packet socket's membership");
		if (x->addr.len)
			memcpy(q.mr_address, x->addr.data, x->addr.len);
		r = link_index(x->link, &q.mr_ifindex, e);
		for (k = 0; k < x->count && r == 0; k++)
			if (setsockopt(fd, SOL_PACKET, PACKET_ADD_MEMBERSHIP, &q, sizeof(q)) < 0)
				r = err_sys(e, "membership %u of a packet socket", x->type);
	}
	return r;
}

/* The protocol last: with it frames come. */
static int make(void *arg, struct err *e)
{
	const struct maker *k = arg;
	autoclose int fd = socket(AF_PACKET, (int)k->m->sock_type | SOCK_CLOEXEC, 0);
	struct sockaddr_ll at = { .sll_family = AF_PACKET, .sll_protocol = (unsigned short)k->m->protocol };
	socklen_t len = sizeof(int);
	int r = 0, error;

	if (fd < 0)
		return errno == EPERM ? err_set(e, EPERM, "a packet socket, which the pod's user cannot have") :
					err_sys(e, "packet socket");
	r = raw_shield(fd, e);
	if (r >= 0)
		r = sockopt_apply(fd, &opts, k->opt, k->n, OPT_EARLY, e);
	if (r >= 0)
		r = take_members(fd, k->m, e);
	if (r >= 0)
		r = link_index(k->m->link, &at.sll_ifindex, e);
	if (r >= 0 && (at.sll_ifindex || at.sll_protocol) && bind(fd, (struct sockaddr *)&at, sizeof(at)) < 0)
		r = err_sys(e, "bind a packet socket to '%.15s'", k->m->link);
	if (r < 0)
		return r;
	getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &len); /* the link may not be up yet, and says so */
	return take_fd(&fd);
}

static int make_as_owner(void *arg, struct err *e)
{
	return restore_as_owner(((const struct maker *)arg)->r, make, arg, e);
}

static int restore(struct restore *r, struct robject *o, struct err *e)
{
	const Pm__BodyPacket *m = (const void *)o->body;
	struct sock_opt opt[ARRAY_SIZE(rows)];
	struct maker k = { r, m, opt, 0 };
	autoclose int fd = -1;
	int ret;

	if ((m->sock_type != SOCK_RAW && m->sock_type != SOCK_DGRAM) || m->protocol > UINT16_MAX || m->n_members > MEMBERS_MAX)
		return KIND_DAMAGED(e, "a packet socket of type %u and protocol %u", m->sock_type, m->protocol);
	ret = kind_opts_in(m->opts, m->n_opts, opt, ARRAY_SIZE(opt), &k.n, e);
	if (ret >= 0)
		ret = fd = restore_in_pod(r, false, make_as_owner, &k, e);
	if (ret >= 0 && restore_may_be(r, m->uid, m->gid) && fchown(fd, m->uid, m->gid) < 0)
		ret = err_sys(e, "owner of a packet socket");
	if (ret >= 0)
		ret = sockopt_set_buffers(fd, m->sndbuf, m->rcvbuf, e);
	if (ret >= 0)
		ret = sockopt_apply(fd, &opts, opt, k.n, OPT_LATE, e);
	if (ret < 0)
		return ret;
	if (m->unread)
		restore_note(r, "pid %u: fd %u: what waited at a packet socket is lost", o->msg->owner_pid, o->msg->owner_fd);
	o->fd = take_fd(&fd);
	return 0;
}

static int finish(struct restore *r, struct robject *o, struct err *e)
{
	(void)r;
	return raw_unshield(o->fd, kind_filter_comes(o), e);
}

const struct kind kind_packet = {
	.name = "packet",
	.type = TYPE_PACKET,
	.version = 1,
	.min_version = 1,
	.scope = KIND_FD,
	.loose = true,
	.stage = STAGE_SOCKET,
	.schema = &pm__body_packet__descriptor,
	.match = match,
	.check = check,
	.dump = dump,
	.restore = restore,
	.finish = finish,
};
