/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Unix stream sockets.
 *
 * Theory of operation. sock_diag, asked in the pod's network namespace, tells the state, the peer's
 * inode, a listener's backlog and the clients in its accept queue. What lies in a receive queue is
 * peeked (MSG_PEEK with SO_PEEK_OFF). What a connected socket can be:
 *
 *	peer's inode is an object of the pod	 a pair: the first of both that is restored makes two
 *						 sockets and parks the other one
 *	peer's inode is not the pod's		 `outside`: reads what is queued, then EOF
 *	no inode, shut down both ways		 `dead`: the peer has closed; the same
 *	no inode, else				 `waiting` in a listener's accept queue: connects again
 *						 when the listener is there (its finish(), in order)
 *
 * A queue is filled by writing to the other end, with room made for it, before options (SO_PASSCRED
 * among them: what was sent without credentials gets none) and shut-down halves are set.
 *
 * Names. An accepted socket shares its listener's name, which only accept(2) gives; so a pair with a
 * name is made by a listener of that name in a scratch file system of one thread (unix_make.c), and the
 * pod's file system sees nothing of it. Only a socket that was bound itself gets its node: the path is
 * asked by SIOCUNIXFILE, as a program may bind relative names. A stale node in the way is removed if
 * it is a socket.
 *
 * Limits, refused by name: datagram and seqpacket sockets; descriptors in a queue (SCM_RIGHTS);
 * out-of-band data; data sent to a listener that has not accepted. A socket pair is made in the process
 * that had made it, if it lives, which is what SO_PEERCRED tells. Not kept: SO_PEERCRED of connections
 * by name (they name the engine: root, no pid of the pod); ECONNRESET that a dead peer left.
 */
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
#include "pod/base/util.h"
#include "pod/kind/unix_int.h"

#ifndef SIOCUNIXFILE
#define SIOCUNIXFILE (SIOCPROTOPRIVATE + 0)
#endif
#define QUEUE_MAX (64u << 20)
#define DELETED " (deleted)"
#define PODINIT_NAME "\0podmigrate/podinit"
#define OPT_MAX 16
#define SO_PASSPIDFD_NR 76

static const struct {
	int name;
	socklen_t len;
} options[] = {
	{ SO_PASSCRED, 4 },	    { SO_PASSSEC, 4 },	   { SO_PASSPIDFD_NR, 4 }, { SO_RCVTIMEO, 16 },
	{ SO_SNDTIMEO, 16 },	    { SO_RCVLOWAT, 4 },	   { SO_PRIORITY, 4 },	   { SO_KEEPALIVE, 4 },
	{ SO_REUSEADDR, 4 },	    { SO_OOBINLINE, 4 },   { SO_LINGER, 8 },	   { SO_PEEK_OFF, 4 },
	{ SO_TIMESTAMP, 4 },
};

static bool match(const struct probe *p)
{
	return S_ISSOCK(p->st.st_mode) && !kind_is_o_path(p) && kind_sock_int(p->fd, SO_DOMAIN) == AF_UNIX &&
	       kind_sock_int(p->fd, SO_TYPE) == SOCK_STREAM;
}

static int check(struct dump *d, const struct probe *p, struct err *e)
{
	(void)d;
	return kind_check_common(p, e);
}

/* ---- dump */
static int peek_once(int fd, uint8_t *buf, size_t len, struct err *e)
{
	char control[2048] __attribute__((aligned(8)));
	struct iovec iov = { buf, len };
	struct msghdr mh = { .msg_iov = &iov,
			     .msg_iovlen = 1,
			     .msg_control = control,
			     .msg_controllen = sizeof(control) };
	ssize_t n = recvmsg(fd, &mh, MSG_PEEK | MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
	struct cmsghdr *c;
	bool fds = false;

	if (n <= 0)
		return n == 0 || errno == EAGAIN ? 0 : err_sys(e, "peek into a unix socket");
	for (c = CMSG_FIRSTHDR(&mh); c; c = CMSG_NXTHDR(&mh, c)) {
		int *p = (int *)(void *)CMSG_DATA(c);
		size_t k;

		if (c->cmsg_level != SOL_SOCKET)
			continue;
		/* what was peeked was given to us as well; pidfds of SO_PASSPIDFD too */
		for (k = 0; (c->cmsg_type == SCM_RIGHTS || c->cmsg_type == 0x04) &&
			    k < (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
		     k++)
			close(p[k]);
		if (c->cmsg_type == SCM_RIGHTS)
			fds = true;
	}
	if (fds)
		return KIND_REFUSE(e, "a unix socket has descriptors (SCM_RIGHTS) in its queue: cannot be carried yet");
	return (int)n;
}

static int peek_queue(struct dump *d, int fd, ProtobufCBinaryData *out, struct err *e)
{
	int off = kind_sock_int(fd, SO_PEEK_OFF), zero = 0, len = 0, n;
	size_t done = 0;

	if (ioctl(fd, SIOCINQ, &len) < 0)
		return err_sys(e, "SIOCINQ");
	if (len <= 0)
		return 0;
	out->data = dump_alloc(d, (size_t)len);
	if (setsockopt(fd, SOL_SOCKET, SO_PEEK_OFF, &zero, sizeof(zero)) < 0)
		return err_sys(e, "SO_PEEK_OFF");
	do {
		n = peek_once(fd, out->data + done, (size_t)len - done, e);
		if (n > 0)
			done += (size_t)n;
	} while (n > 0 && done < (size_t)len);
	setsockopt(fd, SOL_SOCKET, SO_PEEK_OFF, &off, sizeof(off));
	if (n < 0)
		return n;
	if (done != (size_t)len)
		return KIND_REFUSE(e, "a unix socket has out-of-band data in its queue: cannot be carried yet");
	out->len = done;
	return 0;
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

/* A name as in sun_path: without a path's closing NUL. */
static ProtobufCBinaryData get_name(struct dump *d, const struct sockaddr_un *sa, socklen_t len)
{
	size_t off = offsetof(struct sockaddr_un, sun_path);
	size_t n = len > off ? len - off : 0;

	if (n && sa->sun_path[0])
		n = strnlen(sa->sun_path, MIN(n, sizeof(sa->sun_path)));
	return kind_bytes(d, sa->sun_path, n);
}

static bool same_name(const ProtobufCBinaryData *a, const ProtobufCBinaryData *b)
{
	return a->len == b->len && (!a->len || !memcmp(a->data, b->data, a->len));
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
		n = get_name(d, &sa, len);
		if (same_name(&n, name) && getpeername(x->p.fd, (void *)&sa, &plen) < 0)
			return true;
	}
	return false;
}

/* Path, mode and owner of the node that the socket is bound to, if it can still be reached. */
static int get_node(struct dump *d, struct object *o, Pm__BodyUnix *m, struct err *e)
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
	if (m->state == UNIX_ESTABLISHED) {
		if (has_binder(d, o, &m->name))
			return 0;
		m->node_only = true;
	}
	m->path = dump_strdup(d, path);
	m->mode = a.st_mode & 07777;
	m->uid = a.st_uid;
	m->gid = a.st_gid;
	return 0;
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

/* Who is at the other end, by the pod's own number: that of a socket pair is made again in that process. */
static void get_cred(struct dump *d, int fd, Pm__BodyUnix *m)
{
	autofree char *text = NULL;
	struct ucred cred;
	socklen_t len = sizeof(cred);
	const char *p, *end;
	char path[48];

	(void)d;
	if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &cred, &len) < 0 || cred.pid <= 0)
		return;
	snprintf(path, sizeof(path), "/proc/%d/status", cred.pid);
	if (io_read_file(path, 65536, &text, NULL, NULL) < 0)
		return; /* it has ended */
	p = kind_info_line(text, "NSpid");
	end = p ? strchr(p, '\n') : NULL;
	if (!end)
		return;
	while (end > p && end[-1] >= '0' && end[-1] <= '9')
		end--;
	m->cred_pid = (uint32_t)strtoul(end, NULL, 10);
	m->cred_uid = cred.uid;
	m->cred_gid = cred.gid;
}

static int get_connection(struct dump *d, struct object *o, const struct unix_info *u, Pm__BodyUnix *m,
			  struct err *e)
{
	int sent = 0;

	get_cred(d, o->p.fd, m);
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
	return peek_queue(d, o->p.fd, &m->data, e);
}

static int describe(struct dump *d, struct object *o, const struct unix_info *u, Pm__BodyUnix *m,
		    struct err *e)
{
	struct sockaddr_un sa;
	socklen_t len = sizeof(sa);
	int r;

	m->inode = o->p.st.st_ino;
	m->sock_type = SOCK_STREAM;
	m->state = u->state;
	m->sk_uid = o->p.st.st_uid;
	m->sk_gid = o->p.st.st_gid;
	if (getsockname(o->p.fd, (void *)&sa, &len) < 0)
		return err_sys(e, "getsockname");
	m->name = get_name(d, &sa, len);
	len = sizeof(sa);
	if (getpeername(o->p.fd, (void *)&sa, &len) == 0)
		m->peer_name = get_name(d, &sa, len);
	get_options(d, o->p.fd, m);
	r = get_node(d, o, m, e);
	if (r < 0)
		return r;
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
	autoclose int nl = -1;
	int r = kind_check_common(&o->p, e);

	if (r < 0)
		return r;
	nl = netns_socket(dump_netns(d), AF_NETLINK, SOCK_RAW, NETLINK_SOCK_DIAG, e);
	if (nl < 0)
		return nl;
	r = unix_diag_get(nl, (uint32_t)o->p.st.st_ino, u, e);
	if (r < 0)
		return r;
	pm__body_unix__init(m);
	*body = &m->base;
	return describe(d, o, u, m, e);
}

/* ---- restore */
static struct robject *find_inode(struct restore *r, const struct robject *o, uint64_t inode)
{
	struct robject *x;
	size_t i = 0;

	while ((x = restore_next_object(r, &i)))
		if (x != o && x->kind == o->kind &&
		    ((const Pm__BodyUnix *)(const void *)x->body)->inode == inode)
			return x;
	return NULL;
}

/* A socket of the pod that listens under @name already. */
static int find_listener(struct restore *r, const struct robject *o, const ProtobufCBinaryData *name)
{
	struct robject *x;
	size_t i = 0;

	while (name->len && (x = restore_next_object(r, &i))) {
		const Pm__BodyUnix *m = (const void *)x->body;

		if (x->kind == o->kind && x->fd >= 0 && m->state == UNIX_LISTEN && same_name(&m->name, name))
			return x->fd;
	}
	return -1;
}

/* Writes @data into the queue of the socket that @fd is connected to. */
static int fill(int fd, const ProtobufCBinaryData *data, struct err *e)
{
	int old = kind_sock_int(fd, SO_SNDBUF), room = (int)(data->len + (512u << 10));
	size_t done = 0;
	int r = 0;

	if (!data->len)
		return 0;
	if (setsockopt(fd, SOL_SOCKET, SO_SNDBUFFORCE, &room, sizeof(room)) < 0)
		return err_sys(e, "SO_SNDBUFFORCE");
	while (r == 0 && done < data->len) {
		size_t len = MIN(data->len - done, (size_t)65536);
		ssize_t n = send(fd, data->data + done, len, MSG_DONTWAIT | MSG_NOSIGNAL);

		if (n <= 0)
			r = err_sys(e, "fill a unix socket's queue at %zu of %zu bytes", done, data->len);
		else
			done += (size_t)n;
	}
	old /= 2; /* the kernel doubles what it is given */
	setsockopt(fd, SOL_SOCKET, SO_SNDBUFFORCE, &old, sizeof(old));
	return r;
}

static int set_options(int fd, const Pm__BodyUnix *m, struct err *e)
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

static int validate(const Pm__BodyUnix *m, struct err *e)
{
	size_t cap = sizeof(((struct sockaddr_un *)NULL)->sun_path);
	size_t i;

	if (m->sock_type != SOCK_STREAM ||
	    (m->state != UNIX_ESTABLISHED && m->state != UNIX_CLOSE && m->state != UNIX_LISTEN))
		return KIND_DAMAGED(e, "a unix socket of type %u in state %u", m->sock_type, m->state);
	if (m->name.len > cap || m->peer_name.len > cap || m->data.len > QUEUE_MAX ||
	    (m->path[0] && m->path[0] != '/') || m->n_pending > UNIX_PENDING_MAX)
		return KIND_DAMAGED(e, "a unix socket's names or queue");
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

/* One that is not connected: free, bound, listening, or a client that will connect in finish(). */
static int make_single(struct restore *r, struct robject *o, const Pm__BodyUnix *m, struct err *e)
{
	autoclose int fd = netns_socket(restore_netns(r), AF_UNIX, SOCK_STREAM, 0, e);
	int ret = 0;

	if (fd < 0)
		return fd;
	if (m->path[0] && !m->node_only)
		ret = unix_bind_in_pod(r, fd, m, e);
	else if (m->name.len)
		ret = unix_bind_unseen(restore_netns(r), fd, &m->name, e);
	if (ret < 0)
		return ret;
	if (m->state == UNIX_LISTEN && listen(fd, m->backlog) < 0)
		return err_sys(e, "listen");
	o->fd = take_fd(&fd);
	return 0;
}

/* Both ends of a socket pair have its maker's credentials. */
static int make_nameless(struct restore *r, const Pm__BodyUnix *m, int *mine, int *other, struct err *e)
{
	int sv[2], ret = -ESRCH;

	if (m->cred_pid)
		ret = restore_socketpair(r, (pid_t)m->cred_pid, m->cred_uid, m->cred_gid, sv, e);
	if (ret == -ESRCH)
		return unix_make_pair(restore_netns(r), -1, &m->name, &m->name, mine, other, e);
	if (ret < 0)
		return ret;
	*mine = sv[0];
	*other = sv[1];
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
		peer = find_inode(r, o, m->peer);
		if (!peer || peer->fd < 0)
			return KIND_DAMAGED(e, "a unix socket without its peer");
		ret = fill(peer->fd, &m->data, e);
		o->fd = take_fd(&mine);
		return ret;
	}
	peer = alone ? NULL : find_inode(r, o, m->peer);
	if (!alone && !peer)
		return KIND_DAMAGED(e, "a unix socket without its peer");
	if (!m->name.len && !m->peer_name.len)
		ret = make_nameless(r, m, &mine, &other, e);
	else if (m->name.len)
		ret = unix_make_pair(restore_netns(r), find_listener(r, o, &m->name), &m->name,
				     alone ? &none : &m->peer_name, &mine, &other, e);
	else
		ret = unix_make_pair(restore_netns(r), find_listener(r, o, &m->peer_name), &m->peer_name,
				     &none, &other, &mine, e);
	if (ret == 0)
		ret = fill(other, &m->data, e);
	if (ret == 0 && peer)
		ret = restore_park(r, TYPE_UNIX, m->peer, take_fd(&other), e);
	if (ret < 0)
		return ret;
	o->fd = take_fd(&mine);
	return 0;
}

static int restore(struct restore *r, struct robject *o, struct err *e)
{
	const Pm__BodyUnix *m = (const void *)o->body;
	int ret = validate(m, e);

	if (ret < 0)
		return ret;
	if (m->state == UNIX_ESTABLISHED && !m->waiting)
		ret = make_connected(r, o, m, e);
	else
		ret = make_single(r, o, m, e);
	if (ret == 0 && m->path[0] && m->node_only)
		ret = unix_make_node(r, m, e);
	if (ret == 0 && fchown(o->fd, m->sk_uid, m->sk_gid) < 0)
		ret = err_sys(e, "owner of a unix socket");
	return ret < 0 ? ret : set_options(o->fd, m, e);
}

static int shut(int fd, const Pm__BodyUnix *m, struct err *e)
{
	if (!m->shut_rd && !m->shut_wr)
		return 0;
	if (shutdown(fd, m->shut_rd && m->shut_wr ? SHUT_RDWR : m->shut_rd ? SHUT_RD : SHUT_WR) < 0 &&
	    errno != ENOTCONN)
		return err_sys(e, "shut down a unix socket");
	return 0;
}

/* Clients that waited connect again, in their order. The path may be gone, so it is reached by the socket's own node. */
static int connect_pending(struct restore *r, struct robject *o, const Pm__BodyUnix *m, struct err *e)
{
	struct sockaddr_un sa = { .sun_family = AF_UNIX };
	socklen_t len = sizeof(sa);
	autoclose int node = -1;
	size_t i;
	int ret = 0;

	if (m->name.len && m->name.data[0]) {
		node = ioctl(o->fd, SIOCUNIXFILE, 0);
		if (node < 0)
			return err_sys(e, "SIOCUNIXFILE");
		snprintf(sa.sun_path, sizeof(sa.sun_path), "/proc/self/fd/%d", node);
	} else {
		ret = unix_addr(&m->name, &sa, &len, e);
	}
	for (i = 0; ret == 0 && i < m->n_pending; i++) {
		struct robject *c = find_inode(r, o, m->pending[i]);
		const Pm__BodyUnix *cm = c ? (const void *)c->body : NULL;

		if (!c || !cm->waiting || c->fd < 0)
			return KIND_DAMAGED(e, "a client in an accept queue is not there");
		if (connect(c->fd, (void *)&sa, len) < 0)
			return err_sys(e, "connect a unix socket again");
		ret = shut(c->fd, cm, e);
	}
	return ret;
}

static int finish(struct restore *r, struct robject *o, struct err *e)
{
	const Pm__BodyUnix *m = (const void *)o->body;

	if (m->n_pending)
		return connect_pending(r, o, m, e);
	return m->waiting || m->dead ? 0 : shut(o->fd, m, e);
}

const struct kind kind_unix = {
	.name = "unix",
	.type = TYPE_UNIX,
	.version = 1,
	.min_version = 1,
	.scope = KIND_FD,
	.stage = STAGE_SOCKET,
	.schema = &pm__body_unix__descriptor,
	.match = match,
	.check = check,
	.dump = dump,
	.restore = restore,
	.finish = finish,
};
