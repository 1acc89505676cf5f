/* SPDX-License-Identifier: GPL-3.0-or-later */
/* What unix sockets of all types have: names, the node of a name, options, halves that are shut down. */
#include <errno.h>
#include <fcntl.h>
#include <linux/netlink.h>
#include <linux/openat2.h>
#include <linux/sockios.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "netfreeze/netfreeze.h"
#include "pod/base/io.h"
#include "pod/base/kernel.h"
#include "pod/base/util.h"
#include "pod/kind/unix_int.h"

#ifndef SIOCUNIXFILE
#define SIOCUNIXFILE (SIOCPROTOPRIVATE + 0)
#endif

static const struct {
	int name;
	socklen_t len;
} options[] = {
	{ SO_PASSCRED, 4 },	    { SO_PASSSEC, 4 },	   { SO_PASSPIDFD, 4 }, { SO_RCVTIMEO, 16 },
	{ SO_SNDTIMEO, 16 },	    { SO_RCVLOWAT, 4 },	   { SO_PRIORITY, 4 },	   { SO_KEEPALIVE, 4 },
	{ SO_REUSEADDR, 4 },	    { SO_OOBINLINE, 4 },   { SO_LINGER, 8 },	   { SO_PEEK_OFF, 4 },
	{ SO_TIMESTAMP, 4 },     { SO_PASSRIGHTS, 4 },
};

int unix_type(const struct probe *p)
{
	if (!S_ISSOCK(p->st.st_mode) || kind_is_o_path(p) || kind_sock_int(p->fd, SO_DOMAIN) != AF_UNIX)
		return -1;
	return kind_sock_int(p->fd, SO_TYPE);
}

ProtobufCBinaryData unix_get_name(struct dump *d, const struct sockaddr_un *sa, socklen_t len)
{
	size_t off = offsetof(struct sockaddr_un, sun_path);
	size_t n = len > off ? len - off : 0;

	if (n && sa->sun_path[0])
		n = strnlen(sa->sun_path, MIN(n, sizeof(sa->sun_path)));
	return kind_bytes(d, sa->sun_path, n);
}

bool unix_same_name(const ProtobufCBinaryData *a, const ProtobufCBinaryData *b)
{
	return a->len == b->len && (!a->len || !memcmp(a->data, b->data, a->len));
}

static void get_options(struct dump *d, int fd, Pm__BodyUnix *m)
{
	static const int bufs[] = { SO_SNDBUF, SO_RCVBUF };
	size_t i, n = 0, all = ARRAY_SIZE(options) + ARRAY_SIZE(bufs);

	m->opts = dump_alloc(d, all * sizeof(*m->opts));
	for (i = 0; i < all; i++) {
		bool buf = i < ARRAY_SIZE(bufs);
		int name = buf ? bufs[i] : options[i - ARRAY_SIZE(bufs)].name;
		socklen_t len = buf ? 4 : options[i - ARRAY_SIZE(bufs)].len;
		uint8_t val[16];
		Pm__SockOpt *o;

		if (getsockopt(fd, SOL_SOCKET, name, val, &len) < 0)
			continue; /* a kernel that does not know it */
		o = dump_alloc(d, sizeof(*o));
		pm__sock_opt__init(o);
		o->level = SOL_SOCKET;
		o->name = name;
		o->val = kind_bytes(d, val, len);
		m->opts[n++] = o;
	}
	m->n_opts = n;
}

int unix_get_node(struct dump *d, const struct object *o, Pm__BodyUnix *m, struct err *e)
{
	struct open_how how = { .flags = O_PATH | O_CLOEXEC | O_NOFOLLOW,
				.resolve = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS };
	autoclose int node = -1, there = -1;
	char self[48], path[PATH_MAX];
	struct stat a, b;
	ssize_t n;

	if (!m->name.len || !m->name.data[0])
		return 0;
	node = ioctl(o->p.fd, SIOCUNIXFILE, 0);
	if (node < 0)
		return errno == ENOENT ? 0 : err_sys(e, "SIOCUNIXFILE");
	fcntl(node, F_SETFD, FD_CLOEXEC);
	snprintf(self, sizeof(self), "/proc/self/fd/%d", node);
	n = readlink(self, path, sizeof(path) - 1);
	if (n < 0 || fstat(node, &a) < 0)
		return err_sys(e, "node of a unix socket");
	path[n] = 0;
	there = (int)syscall(SYS_openat2, dump_pod_root(d), path, &how, sizeof(how));
	if (there < 0 || fstat(there, &b) < 0 || a.st_ino != b.st_ino || a.st_dev != b.st_dev)
		return 0; /* removed, replaced or hidden: it has its name and no node */
	m->path = dump_strdup(d, path);
	m->mode = a.st_mode & 07777;
	m->uid = a.st_uid;
	m->gid = a.st_gid;
	return 0;
}

void unix_get_cred(struct dump *d, int fd, Pm__BodyUnix *m)
{
	struct ucred cred;
	socklen_t len = sizeof(cred);
	pid_t pid;

	if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &cred, &len) < 0 || cred.pid <= 0)
		return;
	pid = dump_nspid(d, cred.pid);
	if (!pid)
		return; /* it has ended, or is not the pod's */
	m->cred_pid = (uint32_t)pid;
	m->cred_uid = cred.uid;
	m->cred_gid = cred.gid;
}

struct robject *unix_find(struct restore *r, const struct robject *o, uint64_t inode)
{
	struct robject *x;
	size_t i = 0;

	while ((x = restore_next_object(r, &i)))
		if (x != o && x->kind == o->kind &&
		    ((const Pm__BodyUnix *)(const void *)x->body)->inode == inode)
			return x;
	return NULL;
}

int unix_set_options(int fd, const Pm__BodyUnix *m, struct err *e)
{
	size_t i;

	for (i = 0; i < m->n_opts; i++) {
		const Pm__SockOpt *o = m->opts[i];
		uint8_t now[16];
		socklen_t len = sizeof(now);
		int name = o->name, half;

		if (o->level != SOL_SOCKET || o->val.len > sizeof(now))
			return KIND_DAMAGED(e, "a unix socket's option %d", name);
		if (getsockopt(fd, SOL_SOCKET, name, now, &len) < 0 || len != o->val.len ||
		    !memcmp(now, o->val.data, len))
			continue;
		if (name == SO_SNDBUF || name == SO_RCVBUF) {
			memcpy(&half, o->val.data, sizeof(half));
			half /= 2;
			if (setsockopt(fd, SOL_SOCKET, name == SO_SNDBUF ? SO_SNDBUFFORCE : SO_RCVBUFFORCE,
				       &half, sizeof(half)) < 0)
				return err_sys(e, "buffer of a unix socket");
		} else if (setsockopt(fd, SOL_SOCKET, name, o->val.data, len) < 0) {
			return err_sys(e, "option %d of a unix socket", name);
		}
	}
	return 0;
}

int unix_validate(const Pm__BodyUnix *m, struct err *e)
{
	size_t cap = sizeof(((struct sockaddr_un *)NULL)->sun_path);
	size_t i, bytes = m->data.len;

	if ((m->state != UNIX_ESTABLISHED && m->state != UNIX_CLOSE && m->state != UNIX_LISTEN))
		return KIND_DAMAGED(e, "a unix socket of type %u in state %u", m->sock_type, m->state);
	if (m->name.len > cap || m->peer_name.len > cap || m->data.len > UNIX_QUEUE_MAX ||
	    (m->path[0] && m->path[0] != '/') || m->n_pending > UNIX_PENDING_MAX ||
	    m->n_queue > UNIX_MESSAGES_MAX)
		return KIND_DAMAGED(e, "a unix socket's names or queue");
	for (i = 0; i < m->n_queue; i++) {
		bytes += m->queue[i]->data.len;
		if (m->queue[i]->from.len > cap || bytes > UNIX_QUEUE_MAX)
			return KIND_DAMAGED(e, "a message in a unix socket's queue");
	}
	for (i = 0; i < m->n_opts; i++) {
		size_t k = 0;
		int name = m->opts[i]->name;

		while (k < ARRAY_SIZE(options) && options[k].name != name)
			k++;
		if (k == ARRAY_SIZE(options) && name != SO_SNDBUF && name != SO_RCVBUF)
			return KIND_DAMAGED(e, "a unix socket's option %d", name);
	}
	return 0;
}

int unix_shut(int fd, const Pm__BodyUnix *m, struct err *e)
{
	if (!m->shut_rd && !m->shut_wr)
		return 0;
	if (shutdown(fd, m->shut_rd && m->shut_wr ? SHUT_RDWR : m->shut_rd ? SHUT_RD : SHUT_WR) < 0 &&
	    errno != ENOTCONN)
		return err_sys(e, "shut down a unix socket");
	return 0;
}

int unix_reach(int fd, const ProtobufCBinaryData *name, struct sockaddr_un *sa, socklen_t *len, int *node, struct err *e)
{
	*node = -1;
	if (!name->len || !name->data[0])
		return unix_addr(name, sa, len, e);
	memset(sa, 0, sizeof(*sa));
	sa->sun_family = AF_UNIX;
	*len = sizeof(*sa);
	*node = ioctl(fd, SIOCUNIXFILE, 0);
	if (*node < 0)
		return err_sys(e, "SIOCUNIXFILE");
	fcntl(*node, F_SETFD, FD_CLOEXEC);
	snprintf(sa->sun_path, sizeof(sa->sun_path), "/proc/self/fd/%d", *node);
	return 0;
}

int unix_check(struct dump *d, const struct probe *p, struct err *e)
{
	int r = kind_check_common(p, e);

	(void)d;
	return r < 0 ? r : unix_queue_check(p->fd, e);
}

int unix_describe(struct dump *d, const struct object *o, struct unix_info *u, Pm__BodyUnix *m, struct err *e)
{
	autoclose int nl = -1;
	struct sockaddr_un sa;
	socklen_t len = sizeof(sa);
	int r = kind_check_common(&o->p, e);

	if (r == 0)
		nl = r = netns_socket(dump_netns(d), AF_NETLINK, SOCK_RAW, NETLINK_SOCK_DIAG, e);
	if (r >= 0)
		r = unix_diag_get(nl, (uint32_t)o->p.st.st_ino, u, e);
	if (r < 0)
		return r;
	pm__body_unix__init(m);
	m->inode = o->p.st.st_ino;
	m->sock_type = (uint32_t)unix_type(&o->p);
	m->sk_uid = o->p.st.st_uid;
	m->sk_gid = o->p.st.st_gid;
	if (getsockname(o->p.fd, (void *)&sa, &len) < 0)
		return err_sys(e, "getsockname");
	m->name = unix_get_name(d, &sa, len);
	len = sizeof(sa);
	if (getpeername(o->p.fd, (void *)&sa, &len) == 0)
		m->peer_name = unix_get_name(d, &sa, len);
	get_options(d, o->p.fd, m);
	return 0;
}
