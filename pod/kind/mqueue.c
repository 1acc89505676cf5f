/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * POSIX message queues: files of the ipc namespace's mqueue file system, named and without anybody who has one open, or
 * open and without a name. A queue is a thing of the pod (kind mqueue), a description of it an fd (kind mqueue-fd) that is
 * opened once more through the queue's.
 *
 * Theory of operation. Messages cannot be looked at, only received. So in the freeze they are taken out and put back at once, in
 * their order, which is that of priorities and then of age: taken all, from the first; put back from the first. Nobody waits in
 * the queue then, as every task stands still with its call interrupted, and nobody sees it empty: dump_while_frozen().
 * What was taken stands in memory that the helper shares with the engine, and how far it has come is read off the queue itself: how
 * many messages are in it, and how many bytes, from which the length of one follows that was taken by who died before it
 * could write that down.
 *
 * Putting a message into an empty queue would use up a registration for a signal (mq_notify): a queue that has both messages and
 * a registration is not carried. Registrations: pod/mqnotify.c.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/mount.h>
#include <mqueue.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <time.h>
#include <unistd.h>

#include "pod/base/fault.h"
#include "pod/base/io.h"
#include "pod/base/util.h"
#include "pod/kind/ipc.h"
#include "pod/kind/kinds.h"

#define MQUEUE_FS 0x19800202
#define LIMITS "/proc/sys/fs/mqueue/"
#define PUT_TRIES 2000
#define MAX_NOTIFY 65536 /* bytes that a message may have where a registration is */

/* ---- what a queue says of itself */

int kind_mqueue_state(int fd, struct mqueue_state *out, struct err *e)
{
	char text[128] = "";
	ssize_t n = pread(fd, text, sizeof(text) - 1, 0);
	unsigned long long bytes;

	if (n < 0 || mq_getattr(fd, &out->attr) < 0)
		return err_sys(e, "look at a message queue");
	if (sscanf(text, "QSIZE:%llu NOTIFY:%d SIGNO:%d NOTIFY_PID:%d", &bytes, &out->how, &out->signo, &out->owner) != 4)
		return err_set(e, EPROTO, "a message queue says '%s'", text);
	out->n = (uint64_t)out->attr.mq_curmsgs;
	out->bytes = bytes;
	return 0;
}

/* Signals that do something before they are taken, or are ours. */
static bool takes_no(int signo)
{
	static const int none[] = { SIGKILL, SIGSTOP, SIGCONT, SIGTSTP, SIGTTIN, SIGTTOU, SIGURG };
	size_t i;

	for (i = 0; i < ARRAY_SIZE(none); i++)
		if (signo == none[i])
			return true;
	return false;
}

/* A registration that pod/mqnotify.c cannot carry. */
static int refuse_registered(const char *name, const struct mqueue_state *s, struct err *e)
{
	if (!s->owner || s->how == SIGEV_NONE)
		return 0;
	if (s->how != SIGEV_SIGNAL)
		return KIND_REFUSE(e, "the POSIX message queue '%s' has a thread registered for its messages (mq_notify): cannot be carried", name);
	if (takes_no(s->signo) || s->attr.mq_msgsize > MAX_NOTIFY)
		return KIND_REFUSE(e, "the POSIX message queue '%s' has a process registered for its messages by signal %d (mq_notify): cannot be carried",
				   name, s->signo);
	return 0;
}

/* ---- out and in again */

struct taken {
	unsigned prio;
	uint64_t at;
	_Atomic uint64_t len;
};

enum { START, TAKE, PUT, DONE };

struct exchange {
	int fd;
	uint64_t n, bytes, longest;
	size_t size; /* of all this */
	_Atomic unsigned phase;
	_Atomic uint64_t i; /* so many are taken, and written down */
	uint64_t base;	    /* what was left in it when putting began */
	uint8_t *data;
	struct taken m[];
};

static struct exchange *exchange_new(int fd, const struct mqueue_state *s, struct err *e)
{
	size_t size = sizeof(struct exchange) + s->n * sizeof(struct taken) + s->bytes + (size_t)s->attr.mq_msgsize;
	struct exchange *x = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);

	if (x == MAP_FAILED) {
		err_sys(e, "memory for %llu messages", (unsigned long long)s->n);
		return NULL;
	}
	x->fd = fd;
	x->n = s->n;
	x->bytes = s->bytes;
	x->longest = (uint64_t)s->attr.mq_msgsize;
	x->size = size;
	x->data = (uint8_t *)&x->m[s->n];
	return x;
}

static uint64_t end_of(const struct exchange *x, uint64_t i)
{
	return i ? x->m[i - 1].at + x->m[i - 1].len : 0;
}

static int take_all(struct exchange *x, const struct mqueue_state *now)
{
	if (x->n - now->n > x->i) {
		x->m[x->i].len = x->bytes - end_of(x, x->i) - now->bytes;
		x->i++;
	}
	while (x->i < x->n) {
		struct taken *m = &x->m[x->i];
		ssize_t len;

		m->at = end_of(x, x->i);
		len = mq_receive(x->fd, (char *)x->data + m->at, x->longest, &m->prio);
		if (len < 0)
			return -errno;
		m->len = (uint64_t)len;
		x->i++;
	}
	return 0;
}

static int put_all(struct exchange *x, const struct mqueue_state *now)
{
	uint64_t i = now->n - x->base;
	int tries = 0;

	while (i < x->i) {
		struct timespec ts = { 0, 1000000 };

		if (mq_send(x->fd, (const char *)x->data + x->m[i].at, x->m[i].len, x->m[i].prio) == 0)
			i++;
		else if (tries++ < PUT_TRIES)
			nanosleep(&ts, NULL); /* no memory: it gets some when there is any */
		else
			return -errno;
	}
	return 0;
}

/* May be begun by one process and ended by another. */
static int exchange(struct exchange *x)
{
	struct mqueue_state now;
	int r = 0;

	if (x->phase == DONE)
		return 0;
	if (kind_mqueue_state(x->fd, &now, NULL) < 0)
		return -EIO;
	if (x->phase == START) {
		if (now.n != x->n || now.bytes != x->bytes || now.owner)
			return -EAGAIN; /* the pod has run since: whom this was for is dead */
		x->phase = TAKE;
	}
	if (x->phase == TAKE) {
		r = take_all(x, &now);
		fault_point("engine-source", "taken", NULL);
		if (kind_mqueue_state(x->fd, &now, NULL) < 0)
			return -EIO;
		x->base = now.n;
		x->phase = PUT;
	}
	if (put_all(x, &now) < 0)
		return -ENOBUFS;
	x->phase = DONE;
	return r;
}

/* ---- source */

struct queue {
	char *name;
	int fd;
	bool unlinked;
	struct stat st;
	struct mqueue_state s;
	struct exchange *x;
};

struct queues {
	struct dump *d;
	struct queue *q;
	size_t n;
};

static int add_queue(struct queues *l, const char *name, int fd, bool unlinked, struct err *e)
{
	struct queue *nq = realloc(l->q, (l->n + 1) * sizeof(*nq)), *q;
	int r;

	if (!nq) {
		close(fd);
		return err_num(e, ENOMEM, "message queues");
	}
	l->q = nq;
	q = &nq[l->n];
	*q = (struct queue){ .name = dump_strdup(l->d, name), .fd = fd, .unlinked = unlinked };
	if (fstat(fd, &q->st) < 0) {
		close(fd);
		return err_sys(e, "stat the message queue '%s'", name);
	}
	l->n++;
	r = kind_mqueue_state(fd, &q->s, e);
	return r < 0 ? r : refuse_registered(q->name, &q->s, e);
}

static bool known(const struct queues *l, uint64_t ino)
{
	size_t i;

	for (i = 0; i < l->n; i++)
		if (l->q[i].st.st_ino == ino)
			return true;
	return false;
}

/* The directory of all queues of the namespace this thread is in; -ENODEV: the kernel has none. */
static int open_all(DIR **out, struct err *e)
{
	autoclose int fs = (int)syscall(SYS_fsopen, "mqueue", FSOPEN_CLOEXEC);
	autoclose int mnt = -1;
	int fd;

	if (fs < 0)
		return err_sys(e, "open the mqueue file system");
	if (syscall(SYS_fsconfig, fs, FSCONFIG_CMD_CREATE, NULL, NULL, 0) < 0)
		return err_sys(e, "set the mqueue file system up");
	mnt = (int)syscall(SYS_fsmount, fs, FSMOUNT_CLOEXEC, 0); /* as by O_PATH */
	fd = mnt < 0 ? -1 : openat(mnt, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	*out = fd < 0 ? NULL : fdopendir(fd);
	if (!*out) {
		close_fdp(&fd);
		return err_sys(e, "mount the mqueue file system");
	}
	return 0;
}

static int list_named(struct queues *l, struct err *e)
{
	struct dirent *de;
	DIR *dir;
	int r = open_all(&dir, e);

	if (r < 0)
		return r == -ENODEV ? 0 : r;
	while (r >= 0 && (de = readdir(dir))) {
		char name[NAME_MAX + 2];
		int fd;

		if (!strcmp(de->d_name, ".") || !strcmp(de->d_name, ".."))
			continue;
		fd = openat(dirfd(dir), de->d_name, O_RDWR | O_NONBLOCK | O_NOFOLLOW | O_CLOEXEC);
		if (fd < 0 && errno == ENOENT)
			continue;
		snprintf(name, sizeof(name), "/%s", de->d_name);
		r = fd < 0 ? err_sys(e, "open the message queue '%s'", name) : add_queue(l, name, fd, false, e);
	}
	closedir(dir);
	return r;
}

/* What somebody has open and nobody can open by a name. They come first: their names may be others' by now. */
static int list_unlinked(struct queues *l, struct err *e)
{
	struct object *o;
	size_t i = 0;
	int r = 0;

	while (r >= 0 && (o = dump_next_object(l->d, &i))) {
		char name[NAME_MAX + 2];
		char *end;
		int fd;

		if (o->kind != &kind_mqueue_fd || o->p.st.st_nlink || known(l, o->p.st.st_ino))
			continue;
		snprintf(name, sizeof(name), "%s", o->p.link);
		end = strstr(name, " (deleted)");
		if (end)
			*end = 0;
		fd = kind_reopen(o->p.fd, O_RDWR | O_NONBLOCK, e);
		r = fd < 0 ? fd : add_queue(l, name, fd, true, e);
	}
	return r;
}

static int exchange_all(void *arg)
{
	struct queues *l = arg;
	size_t i;
	int r = 0;

	for (i = 0; r >= 0 && i < l->n; i++)
		if (l->q[i].x)
			r = exchange(l->q[i].x);
	return r;
}

static int take_messages(struct queues *l, struct err *e)
{
	bool any = false;
	size_t i;

	for (i = 0; i < l->n; i++) {
		struct queue *q = &l->q[i];

		if (!q->s.n)
			continue;
		if (q->s.owner)
			return err_set(e, EBUSY, "the POSIX message queue '%s' has a process registered for the next message (mq_notify) and messages that it does not take: cannot be carried now",
				       q->name);
		q->x = exchange_new(q->fd, &q->s, e);
		if (!q->x)
			return -ENOMEM;
		any = true;
	}
	return any ? dump_while_frozen(l->d, exchange_all, l, e) : 0;
}

static void give_out(struct queues *l, const struct queue *q)
{
	Pm__BodyMqueue *m = dump_alloc(l->d, sizeof(*m));
	char name[NAME_MAX + 32];
	size_t i;

	pm__body_mqueue__init(m);
	m->name = q->name;
	m->inode = q->st.st_ino;
	m->unlinked = q->unlinked;
	m->mode = q->st.st_mode & 07777;
	m->uid = q->st.st_uid;
	m->gid = q->st.st_gid;
	m->maxmsg = (uint64_t)q->s.attr.mq_maxmsg;
	m->msgsize = (uint64_t)q->s.attr.mq_msgsize;
	m->messages = dump_alloc(l->d, (q->s.n + 1) * sizeof(*m->messages));
	for (i = 0; q->x && i < q->x->n; i++) {
		Pm__IpcMsg *msg = dump_alloc(l->d, sizeof(*msg));

		pm__ipc_msg__init(msg);
		msg->type = q->x->m[i].prio;
		msg->data = kind_bytes(l->d, q->x->data + q->x->m[i].at, q->x->m[i].len);
		m->messages[m->n_messages++] = msg;
	}
	snprintf(name, sizeof(name), "POSIX message queue '%s'", q->name);
	dump_thing(l->d, &kind_mqueue, name, &m->base);
}

static int gather(struct dump *d, bool final, struct err *e)
{
	struct queues l = { d, NULL, 0 };
	size_t i;
	int r = final ? list_unlinked(&l, e) : 0;

	if (r >= 0)
		r = list_named(&l, e);
	if (r >= 0 && final)
		r = take_messages(&l, e);
	for (i = 0; i < l.n; i++) {
		if (r >= 0 && final)
			give_out(&l, &l.q[i]);
		if (l.q[i].x)
			munmap(l.q[i].x, l.q[i].x->size);
		close(l.q[i].fd);
	}
	free(l.q);
	return r < 0 ? r : 0;
}

/* ---- target */

struct make {
	const Pm__BodyMqueue *m;
	int fd;
};

/* Its bytes count for who makes it, by the real uid. */
static int become(uint32_t uid, uint32_t gid)
{
	if (syscall(SYS_setresgid, gid, gid, 0) < 0 || syscall(SYS_setresuid, uid, uid, 0) < 0)
		return -errno;
	return 0;
}

static int create(const Pm__BodyMqueue *m, struct err *e)
{
	struct mq_attr attr = { .mq_maxmsg = (long)m->maxmsg, .mq_msgsize = (long)m->msgsize };
	int q = become(m->uid, m->gid);
	int fd = q < 0 ? -1 : mq_open(m->name, O_RDWR | O_CREAT | O_EXCL | O_NONBLOCK | O_CLOEXEC, 0600, &attr);
	int err = errno;

	if (become(0, 0) < 0 || q < 0) {
		if (fd >= 0)
			close(fd);
		return err_num(e, q < 0 ? q : -EPERM, "as user %u", m->uid);
	}
	if (fd < 0 && err == EMFILE)
		return err_num(e, err, "user %u may not have so many bytes in message queues (ulimit -q)", m->uid);
	return fd < 0 ? err_num(e, err, "mq_open") : fd;
}

static int fill(int fd, const Pm__BodyMqueue *m, struct err *e)
{
	size_t i;

	for (i = 0; i < m->n_messages; i++) {
		const Pm__IpcMsg *msg = m->messages[i];

		if (msg->type < 0 || msg->type >= MQ_PRIO_MAX)
			return KIND_DAMAGED(e, "a message's priority is %lld", (long long)msg->type);
		if (mq_send(fd, msg->data.len ? (const char *)msg->data.data : "", msg->data.len, (unsigned)msg->type) < 0)
			return err_sys(e, "message %zu", i);
	}
	if (fchown(fd, m->uid, m->gid) < 0 || fchmod(fd, m->mode & 0777) < 0)
		return err_sys(e, "owner and mode");
	if (m->unlinked && mq_unlink(m->name) < 0)
		return err_sys(e, "mq_unlink");
	return 0;
}

static int make(void *arg, struct err *e)
{
	struct make *a = arg;
	const Pm__BodyMqueue *m = a->m;
	struct ipc_limit n = { NULL, 0 }, len = { NULL, 0 };
	int q;

	if (m->name[0] != '/' || m->maxmsg > INT32_MAX || m->msgsize > INT32_MAX || m->n_messages > m->maxmsg)
		return KIND_DAMAGED(e, "it cannot be so");
	q = ipc_limit_raise(&n, LIMITS "msg_max", m->maxmsg, e);
	if (q >= 0)
		q = ipc_limit_raise(&len, LIMITS "msgsize_max", m->msgsize, e);
	if (q >= 0)
		q = a->fd = create(m, e);
	ipc_limit_back(&len);
	ipc_limit_back(&n);
	return q < 0 ? q : fill(a->fd, m, e);
}

static int restore(struct restore *r, struct robject *o, struct err *e)
{
	struct make a = { (const void *)o->body, -1 };
	int q = restore_check_owner(r, a.m->uid, a.m->gid, a.m->name, e);

	if (q >= 0)
		q = restore_in_ipc(r, make, &a, e);
	o->fd = a.fd;
	return q;
}

const struct kind kind_mqueue = {
	.name = "mqueue",
	.type = TYPE_MQUEUE,
	.version = 1,
	.min_version = 1,
	.scope = KIND_POD,
	.stage = STAGE_POD,
	.schema = &pm__body_mqueue__descriptor,
	.gather = gather,
	.restore = restore,
};

/* ---- descriptions */

static bool fd_match(const struct probe *p)
{
	struct statfs fs;

	return p->link[0] == '/' && !strchr(p->link + 1, '/') && S_ISREG(p->st.st_mode) && !kind_is_o_path(p) && fstatfs(p->fd, &fs) == 0 &&
	       fs.f_type == MQUEUE_FS;
}

static int fd_check(struct dump *d, const struct probe *p, struct err *e)
{
	autoclose int fd = -1;
	struct mqueue_state s;
	int r = kind_check_common(p, e);

	(void)d;
	fd = r < 0 ? r : kind_reopen(p->fd, O_RDONLY, e);
	r = fd < 0 ? fd : kind_mqueue_state(fd, &s, e);
	return r < 0 ? r : refuse_registered(p->link, &s, e);
}

static int fd_dump(struct dump *d, struct object *o, ProtobufCMessage **body, struct err *e)
{
	Pm__BodyMqueueFd *m = dump_alloc(d, sizeof(*m));
	int r = kind_check_common(&o->p, e);

	pm__body_mqueue_fd__init(m);
	m->inode = o->p.st.st_ino;
	*body = &m->base;
	return r;
}

static int fd_restore(struct restore *r, struct robject *o, struct err *e)
{
	const Pm__BodyMqueueFd *m = (const void *)o->body;
	struct robject *q;
	size_t i = 0;

	while ((q = restore_next_object(r, &i)))
		if (q->kind == &kind_mqueue && q->fd >= 0 && ((const Pm__BodyMqueue *)(const void *)q->body)->inode == m->inode)
			break;
	if (!q)
		return KIND_DAMAGED(e, "its message queue is not there");
	o->fd = kind_reopen(q->fd, (int)(o->msg->flags & O_ACCMODE), e);
	return o->fd < 0 ? o->fd : 0;
}

const struct kind kind_mqueue_fd = {
	.name = "mqueue-fd",
	.type = TYPE_MQUEUE_FD,
	.version = 1,
	.min_version = 1,
	.scope = KIND_FD,
	.stage = STAGE_PLAIN,
	.schema = &pm__body_mqueue_fd__descriptor,
	.match = fd_match,
	.check = fd_check,
	.dump = fd_dump,
	.restore = fd_restore,
};
