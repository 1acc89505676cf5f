/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * The receive queue of a unix socket: read without taking anything out, and filled again.
 *
 * Theory of operation. Peeking (MSG_PEEK with SO_PEEK_OFF) walks along the queue; with SO_PASSCRED, which is
 * switched on meanwhile, each message tells its sender's credentials, if it has any. A stream is told in pieces of one
 * sender each; of several messages that a piece is made of the last may have descriptions (SCM_RIGHTS).
 *
 * What was peeked at gives the engine duplicates of the descriptions. One that no process has becomes an object as one that
 * was found in a table of files, which happens when the pod stands still (unix_inside); while it runs only the first
 * message is looked at, as all else would be seen.
 *
 * A message without bytes that has been peeked at once is passed over by the kernel from then on. So a
 * queue is walked once only, and a socket in which there was one is marked (SO_MARK means nothing to unix sockets): if
 * the pod goes on, it is refused from then on until its queue has been empty. What the program itself has peeked at of
 * these is lost.
 */
#include <errno.h>
#include <linux/sockios.h>
#include <poll.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "pod/base/kernel.h"
#include "pod/base/util.h"
#include "pod/kind/unix_int.h"
#include "pod/mem/mem.h"

#define MAX_FDS 253 /* SCM_MAX_FD */
#define NOBODY 65534
#define PIECE 65536
#define MARK 0x504d5a30

struct peeked {
	ssize_t len;
	bool ancillary; /* there was a message at all */
	struct ucred cred;
	int fds[MAX_FDS];
	size_t nfds;
	struct sockaddr_un from;
	socklen_t from_len;
};

static void peeked_done(struct peeked *p)
{
	size_t i;

	for (i = 0; i < p->nfds; i++)
		close(p->fds[i]);
	p->nfds = 0;
}

static void take_control(struct msghdr *mh, struct peeked *p)
{
	struct cmsghdr *c;
	size_t n, i;

	for (c = CMSG_FIRSTHDR(mh); c; c = CMSG_NXTHDR(mh, c)) {
		p->ancillary = true;
		if (c->cmsg_level != SOL_SOCKET)
			continue;
		n = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
		if (c->cmsg_type == SCM_CREDENTIALS)
			memcpy(&p->cred, CMSG_DATA(c), sizeof(p->cred));
		for (i = 0; (c->cmsg_type == SCM_RIGHTS || c->cmsg_type == SCM_PIDFD) && i < n; i++) {
			int fd;

			memcpy(&fd, CMSG_DATA(c) + i * sizeof(int), sizeof(fd));
			if (c->cmsg_type == SCM_RIGHTS && p->nfds < MAX_FDS)
				p->fds[p->nfds++] = fd;
			else
				close(fd);
		}
	}
}

/* 0: nothing there. @flags: MSG_TRUNC for the whole length of a message. */
static int peek(int fd, void *buf, size_t len, int flags, struct peeked *p, struct err *e)
{
	char control[4096] __attribute__((aligned(8)));
	struct iovec iov = { buf, len };
	struct msghdr mh = { .msg_name = &p->from, .msg_namelen = sizeof(p->from), .msg_iov = &iov, .msg_iovlen = 1,
			     .msg_control = control, .msg_controllen = sizeof(control) };

	p->nfds = 0;
	p->ancillary = false;
	p->cred = (struct ucred){ 0, NOBODY, NOBODY };
	p->len = recvmsg(fd, &mh, MSG_PEEK | MSG_DONTWAIT | MSG_CMSG_CLOEXEC | flags);
	if (p->len < 0)
		return errno == EAGAIN ? 0 : err_sys(e, "peek into a unix socket");
	take_control(&mh, p);
	p->from_len = mh.msg_namelen;
	return p->len > 0 || p->ancillary;
}

/* ---- what peeking needs, and what the program had */
struct knobs {
	int cred, off, rights;
};

static int set_int(int fd, int name, int v)
{
	return setsockopt(fd, SOL_SOCKET, name, &v, sizeof(v));
}

static int knobs_turn(int fd, struct knobs *k, struct err *e)
{
	k->cred = kind_sock_int(fd, SO_PASSCRED);
	k->off = kind_sock_int(fd, SO_PEEK_OFF);
	k->rights = kind_sock_int(fd, SO_PASSRIGHTS); /* -1: a kernel that does not know it */
	if (set_int(fd, SO_PASSCRED, 1) < 0 || set_int(fd, SO_PEEK_OFF, 0) < 0 ||
	    (k->rights == 0 && set_int(fd, SO_PASSRIGHTS, 1) < 0))
		return err_sys(e, "options of a unix socket");
	return 0;
}

static void knobs_back(int fd, const struct knobs *k)
{
	set_int(fd, SO_PASSCRED, k->cred);
	set_int(fd, SO_PEEK_OFF, k->off);
	if (k->rights == 0)
		set_int(fd, SO_PASSRIGHTS, 0);
}

int unix_queue_check(int fd, struct err *e)
{
	struct pollfd p = { .fd = fd, .events = POLLIN };

	if (kind_sock_int(fd, SO_MARK) != MARK)
		return 0;
	if (poll(&p, 1, 0) > 0)
		return KIND_REFUSE(e, "a unix socket's queue has had a message without bytes when an earlier image or move looked: "
				      "cannot be carried before it has been empty");
	return set_int(fd, SO_MARK, 0) < 0 ? err_sys(e, "SO_MARK") : 0;
}

/* ---- reading */
struct reading {
	struct dump *d;
	const struct object *o;
	int fd;
	bool found; /* descriptions become objects; else they must be ones */
	Pm__UnixMsg **msg;
	size_t n, cap, bytes;
};

static int add_fds(struct reading *q, const struct peeked *p, Pm__UnixMsg *m, struct err *e)
{
	size_t i;
	int r = 0;

	m->objects = dump_alloc(q->d, p->nfds * sizeof(*m->objects));
	for (i = 0; i < p->nfds; i++) {
		if (q->found)
			r = dump_found(q->d, q->o, p->fds[i], e);
		if (r < 0)
			return r;
		m->objects[i] = dump_object_id(q->d, p->fds[i]);
		if (!m->objects[i])
			return err_set(e, EAGAIN, "a unix socket's queue has got a descriptor that was not there before");
	}
	m->n_objects = p->nfds;
	return 0;
}

static int add(struct reading *q, uint8_t *data, size_t len, const struct peeked *p, bool with_fds, struct err *e)
{
	Pm__UnixMsg *m = dump_alloc(q->d, sizeof(*m));

	if (q->n == UNIX_MESSAGES_MAX || q->bytes + len > UNIX_QUEUE_MAX)
		return KIND_REFUSE(e, "a unix socket has more than %u messages or %u MiB in its queue: cannot be carried",
				   UNIX_MESSAGES_MAX, UNIX_QUEUE_MAX >> 20);
	if (q->n == q->cap) {
		Pm__UnixMsg **nm = dump_alloc(q->d, (q->cap * 2 + 16) * sizeof(*nm));

		if (q->n)
			memcpy(nm, q->msg, q->n * sizeof(*nm));
		q->msg = nm;
		q->cap = q->cap * 2 + 16;
	}
	pm__unix_msg__init(m);
	m->data.data = data;
	m->data.len = len;
	if (p->from_len > offsetof(struct sockaddr_un, sun_path))
		m->from = unix_get_name(q->d, &p->from, p->from_len);
	m->cred = p->cred.pid || p->cred.uid != NOBODY || p->cred.gid != NOBODY;
	m->pid = (uint32_t)dump_nspid(q->d, p->cred.pid);
	m->uid = m->cred ? p->cred.uid : 0;
	m->gid = m->cred ? p->cred.gid : 0;
	q->msg[q->n++] = m;
	q->bytes += len;
	if (!len && set_int(q->fd, SO_MARK, MARK) < 0)
		return err_sys(e, "SO_MARK");
	return with_fds ? add_fds(q, p, m, e) : 0;
}

/*
 * Where the message with descriptions begins that ends at @to, in the piece from @from on. Into a buffer that is one byte too
 * short, with nothing mapped behind it, messages are copied as long as they fit whole; so that one does not.
 */
static int find_start(int fd, size_t from, size_t to, size_t *out, struct err *e)
{
	size_t room = to - from - 1, len = ALIGN_UP(room, PAGE);
	struct iovec iov = { NULL, room + 1 };
	struct msghdr mh = { .msg_iov = &iov, .msg_iovlen = 1 };
	uint8_t *map;
	ssize_t n;

	*out = from;
	if (!room)
		return 0;
	map = mmap(NULL, len + PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (map == MAP_FAILED || mprotect(map + len, PAGE, PROT_NONE) < 0 || set_int(fd, SO_PEEK_OFF, (int)from) < 0)
		return err_sys(e, "look for a message in a unix socket");
	iov.iov_base = map + len - room;
	n = recvmsg(fd, &mh, MSG_PEEK | MSG_DONTWAIT);
	munmap(map, len + PAGE);
	if ((n < 0 && errno != EFAULT) || n > (ssize_t)room || set_int(fd, SO_PEEK_OFF, (int)to) < 0)
		return err_sys(e, "look for a message in a unix socket");
	*out = n > 0 ? from + (size_t)n : from;
	return 0;
}

static int read_stream(struct reading *q, struct err *e)
{
	size_t done = 0, start;
	struct peeked p;
	uint8_t *buf;
	int len = 0, r;

	if (ioctl(q->fd, SIOCINQ, &len) < 0)
		return err_sys(e, "SIOCINQ");
	if (len <= 0)
		return 0;
	buf = dump_alloc(q->d, (size_t)len);
	do {
		r = peek(q->fd, buf + done, (size_t)len - done, 0, &p, e);
		if (r <= 0 || p.len <= 0)
			break;
		start = done;
		if (p.nfds)
			r = find_start(q->fd, done, done + (size_t)p.len, &start, e);
		if (r >= 0 && p.nfds && start > done)
			r = add(q, buf + done, start - done, &p, false, e);
		if (r >= 0)
			r = add(q, buf + start, done + (size_t)p.len - start, &p, true, e);
		done += (size_t)p.len;
		peeked_done(&p);
	} while (r >= 0 && done < (size_t)len);
	if (r >= 0 && done != (size_t)len)
		return KIND_REFUSE(e, "a unix socket has out-of-band data in its queue: cannot be carried yet");
	return r < 0 ? r : 0;
}

/* First the length, which moves nothing on, then the bytes. */
static int read_messages(struct reading *q, struct err *e)
{
	struct peeked p, again;
	uint8_t *buf;
	int r;

	while ((r = peek(q->fd, NULL, 0, MSG_TRUNC, &p, e)) > 0) {
		size_t len = (size_t)p.len;

		buf = dump_alloc(q->d, len);
		if (len) {
			r = peek(q->fd, buf, len, 0, &again, e);
			if (r >= 0 && (r == 0 || (size_t)again.len != len))
				r = err_set(e, EAGAIN, "a unix socket's queue changes");
			peeked_done(&again);
		}
		if (r >= 0)
			r = add(q, buf, len, &p, true, e);
		peeked_done(&p);
		if (r < 0)
			break;
	}
	return r;
}

static int read_all(struct reading *q, int type, struct err *e)
{
	struct knobs k;
	int r = unix_queue_check(q->fd, e);

	if (r < 0)
		return r;
	r = knobs_turn(q->fd, &k, e);
	if (r == 0)
		r = type == SOCK_STREAM ? read_stream(q, e) : read_messages(q, e);
	knobs_back(q->fd, &k);
	return r;
}

/* A stream without credentials and descriptions is its bytes. */
static bool is_plain(const struct reading *q, int type)
{
	size_t i;

	for (i = 0; i < q->n; i++)
		if (q->msg[i]->cred || q->msg[i]->n_objects)
			return false;
	return type == SOCK_STREAM;
}

int unix_queue_read(struct dump *d, struct object *o, int type, Pm__BodyUnix *m, struct err *e)
{
	struct reading fresh = { .d = d, .o = o, .fd = o->p.fd }, *q = o->priv ? o->priv : &fresh;
	uint8_t *at;
	size_t i;
	int r = o->priv ? 0 : read_all(q, type, e);

	if (r < 0)
		return r;
	if (!is_plain(q, type)) {
		m->queue = q->msg;
		m->n_queue = q->n;
		return 0;
	}
	m->data.data = at = dump_alloc(d, q->bytes);
	m->data.len = q->bytes;
	for (i = 0; i < q->n; i++) {
		memcpy(at, q->msg[i]->data.data, q->msg[i]->data.len);
		at += q->msg[i]->data.len;
	}
	return 0;
}

/* One look at the first message, if that does not move anything on. */
static int look(struct dump *d, const struct object *o, struct err *e)
{
	struct peeked p;
	size_t i;
	char c;
	int r;

	if (kind_sock_int(o->p.fd, SO_PEEK_OFF) >= 0)
		return 0;
	r = peek(o->p.fd, &c, 1, 0, &p, NULL);
	r = r > 0 && p.len == 0 && set_int(o->p.fd, SO_MARK, MARK) == 0 ? unix_queue_check(o->p.fd, e) : 0;
	for (i = 0; r >= 0 && i < p.nfds; i++)
		r = dump_found(d, o, p.fds[i], e);
	peeked_done(&p);
	return r;
}

int unix_inside(struct dump *d, struct object *o, bool still, struct err *e)
{
	struct reading *q;
	uint64_t n = 0;

	if (!kind_info_u64(o->p.info, "scm_fds", 10, &n) || !n || kind_sock_int(o->p.fd, SO_ACCEPTCONN) > 0)
		return 0;
	if (!still)
		return look(d, o, e);
	q = o->priv = dump_alloc(d, sizeof(*q));
	*q = (struct reading){ .d = d, .o = o, .fd = o->p.fd, .found = true };
	return read_all(q, unix_type(&o->p), e);
}

/* ---- filling */
int unix_queue_room(int fd, size_t bytes, size_t n, struct err *e)
{
	/* each message takes its own page or so */
	int old = kind_sock_int(fd, SO_SNDBUF), room = (int)(2 * bytes + n * 8192 + (512u << 10));

	if (setsockopt(fd, SOL_SOCKET, SO_SNDBUFFORCE, &room, sizeof(room)) < 0)
		return err_sys(e, "SO_SNDBUFFORCE");
	return old;
}

void unix_queue_room_end(int fd, int old)
{
	old /= 2; /* the kernel doubles what it is given */
	setsockopt(fd, SOL_SOCKET, SO_SNDBUFFORCE, &old, sizeof(old));
}

static void *put_control(struct msghdr *mh, int type, size_t len)
{
	struct cmsghdr *c = (void *)((char *)mh->msg_control + mh->msg_controllen);

	c->cmsg_level = SOL_SOCKET;
	c->cmsg_type = type;
	c->cmsg_len = CMSG_LEN(len);
	mh->msg_controllen += CMSG_SPACE(len);
	return CMSG_DATA(c);
}

/* Who is not of the pod is nobody here; the engine's number is none in the pod. */
static void put_cred(struct restore *r, struct msghdr *mh, const Pm__UnixMsg *m)
{
	bool may = restore_may_be(r, m->uid, m->gid);
	pid_t pid = m->pid ? restore_host_pid(r, (pid_t)m->pid) : 0;
	struct ucred c = { pid > 0 ? pid : getpid(), may ? m->uid : NOBODY, may ? m->gid : NOBODY };

	memcpy(put_control(mh, SCM_CREDENTIALS, sizeof(c)), &c, sizeof(c));
}

static int put_fds(struct restore *r, struct msghdr *mh, const Pm__UnixMsg *m, struct err *e)
{
	int fds[MAX_FDS];
	size_t i;

	if (m->n_objects > MAX_FDS)
		return KIND_DAMAGED(e, "%zu descriptors in one message", m->n_objects);
	for (i = 0; i < m->n_objects; i++) {
		const struct robject *o = restore_object(r, m->objects[i]);

		if (!o || o->fd < 0 || o->kind->scope != KIND_FD)
			return KIND_DAMAGED(e, "a descriptor of the unknown object %u in a message", m->objects[i]);
		fds[i] = o->fd;
	}
	memcpy(put_control(mh, SCM_RIGHTS, i * sizeof(int)), fds, i * sizeof(int));
	return 0;
}

int unix_queue_send(struct restore *r, int fd, const struct sockaddr_un *sa, socklen_t len, const Pm__UnixMsg *m, struct err *e)
{
	char control[4096] __attribute__((aligned(8)));
	size_t done = 0;
	int ret = 0;

	do {
		struct iovec iov = { m->data.len ? m->data.data + done : NULL, m->data.len - done };
		struct msghdr mh = { .msg_name = (void *)(uintptr_t)sa, .msg_namelen = sa ? len : 0, .msg_iov = &iov, .msg_iovlen = 1,
				     .msg_control = control };
		ssize_t n;

		memset(control, 0, sizeof(control));
		if (m->cred)
			put_cred(r, &mh, m);
		if (m->n_objects && !done)
			ret = put_fds(r, &mh, m, e);
		if (ret < 0)
			return ret;
		n = sendmsg(fd, &mh, MSG_DONTWAIT | MSG_NOSIGNAL);
		if (n < 0)
			return err_sys(e, "fill a unix socket's queue with %zu bytes", m->data.len - done);
		done += (size_t)n;
		if (!n)
			break;
	} while (done < m->data.len);
	return done == m->data.len ? 0 : err_set(e, EIO, "fill a unix socket's queue");
}

int unix_queue_fill(struct restore *r, int fd, const Pm__BodyUnix *m, struct err *e)
{
	size_t bytes = m->data.len, i, at;
	int old, ret = 0;

	for (i = 0; i < m->n_queue; i++)
		bytes += m->queue[i]->data.len;
	if (!bytes && !m->n_queue)
		return 0;
	if (bytes > UNIX_QUEUE_MAX)
		return KIND_DAMAGED(e, "%zu bytes in a unix socket's queue", bytes);
	old = unix_queue_room(fd, bytes, m->n_queue, e);
	if (old < 0)
		return old;
	for (at = 0; ret == 0 && at < m->data.len; at += PIECE) {
		Pm__UnixMsg one = PM__UNIX_MSG__INIT;

		one.data.data = m->data.data + at;
		one.data.len = MIN(m->data.len - at, (size_t)PIECE);
		ret = unix_queue_send(r, fd, NULL, 0, &one, e);
	}
	for (i = 0; ret == 0 && i < m->n_queue; i++)
		ret = unix_queue_send(r, fd, NULL, 0, m->queue[i], e);
	unix_queue_room_end(fd, old);
	return ret;
}
