/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * What skeletons are given: mapped files, open files. Files of the node are opened in the pod's own mount
 * namespace with the user's credentials. Contents and the private tmpfs trees: rtmpfs.c.
 */
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#include "pod/base/io.h"
#include "pod/base/util.h"
#include "pod/kind/kinds.h"
#include "pod/restore.h"

#define MAX_FDS_CALL 200

/* ---- handing fds to skeletons */

int robj_send(struct restore *r, const int *fds, size_t n, struct err *e)
{
	return io_send_fds(r->ns.sock, fds, n, e);
}

unsigned robj_recv_call(struct batch *b, int sock, size_t n)
{
	size_t space = CMSG_SPACE(n * sizeof(int));
	uint64_t byte = batch_data(b, NULL, 8), ctl = batch_data(b, NULL, space);
	struct iovec iov = { (void *)byte, 1 };
	struct msghdr mh = { .msg_iov = (void *)batch_data(b, &iov, sizeof(iov)), .msg_iovlen = 1,
			     .msg_control = (void *)ctl, .msg_controllen = space };

	return batch_add3(b, SYS_recvmsg, sock, batch_data(b, &mh, sizeof(mh)), 0);
}

/* ---- mapped files */

int robj_fd_of(struct restore *r, uint32_t id)
{
	struct rcontent *c = robj_content(r, id);
	size_t i;

	if (c)
		return c->fd;
	for (i = 0; i < r->nmapfiles; i++)
		if (r->mapfiles[i].id == id)
			return r->mapfiles[i].fd;
	return -1;
}

/* O_NONBLOCK: should there be a FIFO or a device in its place, opening it must not wait. */
static int open_mapfile(struct restore *r, const char *path, uint32_t mode, struct err *e)
{
	autoclose int fd = restore_open(r, path, (int)mode | O_NONBLOCK, 0, e);
	struct stat st;

	if (fd < 0)
		return fd;
	if (fstat(fd, &st) < 0)
		return err_sys(e, "stat '%s'", path);
	if (!S_ISREG(st.st_mode))
		return err_set(e, ESTALE, "'%s', which is mapped, is not a regular file here", path);
	return take_fd(&fd);
}

int robj_mapfiles(struct restore *r, struct err *e)
{
	size_t i;

	for (i = 0; i < r->objs->n_objects; i++) {
		const Pm__Object *o = r->objs->objects[i];
		struct rmapfile *nm;
		Pm__BodyFile *f;
		int fd;

		if (o->type != OBJ_MAPFILE || robj_fd_of(r, o->id) >= 0)
			continue;
		f = pm__body_file__unpack(NULL, o->body.len, o->body.data);
		if (!f)
			return err_set(e, EBADMSG, "mapped file %u is damaged", o->id);
		fd = open_mapfile(r, f->path, o->flags & O_ACCMODE, e);
		pm__body_file__free_unpacked(f, NULL);
		if (fd < 0)
			return fd;
		nm = realloc(r->mapfiles, (r->nmapfiles + 1) * sizeof(*nm));
		if (!nm) {
			close(fd);
			return err_num(e, ENOMEM, "mapped files");
		}
		r->mapfiles = nm;
		nm[r->nmapfiles++] = (struct rmapfile){ o->id, fd };
	}
	return 0;
}

/* ---- open file descriptions */

static int by_stage(const void *a, const void *b)
{
	const struct robject *x = a, *y = b;

	if (x->kind->stage != y->kind->stage)
		return x->kind->stage < y->kind->stage ? -1 : 1;
	return x->msg->id < y->msg->id ? -1 : 1;
}

static int unpack_objects(struct restore *r, struct err *e)
{
	size_t i;

	r->objects = calloc(r->objs->n_objects + 1, sizeof(*r->objects));
	if (!r->objects)
		return err_num(e, ENOMEM, "open files");
	for (i = 0; i < r->objs->n_objects; i++) {
		const Pm__Object *o = r->objs->objects[i];
		struct robject *x = &r->objects[r->nobjects];

		if (o->type == OBJ_CONTENT || o->type == OBJ_MAPFILE)
			continue;
		x->msg = o;
		x->fd = -1;
		x->kind = o->type < OBJ_MAPFILE ? kind_of_type((uint16_t)o->type) : NULL;
		if (!x->kind || !x->kind->restore || (x->kind->scope != KIND_FD && x->kind->scope != KIND_POD) ||
		    o->version < x->kind->min_version || o->version > x->kind->version)
			return err_set(e, EOPNOTSUPP, "'%s': kind %u version %u is not known here", o->link, o->type,
				       o->version);
		if (x->kind->schema) {
			x->body = protobuf_c_message_unpack(x->kind->schema, NULL, o->body.len, o->body.data);
			if (!x->body)
				return err_set(e, EBADMSG, "'%s': its record is damaged", o->link);
		}
		r->nobjects++;
	}
	qsort(r->objects, r->nobjects, sizeof(*r->objects), by_stage);
	return 0;
}

/* Flags and position belong to the description, whatever its kind. */
static int set_common(struct robject *o, struct err *e)
{
	const uint32_t settable = O_APPEND | O_NONBLOCK | O_DIRECT | O_NOATIME;
	int have = fcntl(o->fd, F_GETFL);
	struct stat st;
	char buf[4096];

	if (have < 0 || fstat(o->fd, &st) < 0)
		return err_sys(e, "flags");
	if ((o->msg->flags & O_PATH) == 0 && (((uint32_t)have ^ o->msg->flags) & settable) &&
	    fcntl(o->fd, F_SETFL, (have & (int)~settable) | (int)(o->msg->flags & settable)) < 0)
		return err_sys(e, "set flags %#o", o->msg->flags);
	/* ext4 takes the end's position for a beginning if nothing was read before it: rewound, it would read nothing */
	if (S_ISDIR(st.st_mode) && !(o->msg->flags & O_PATH) && o->msg->pos &&
	    syscall(SYS_getdents64, o->fd, buf, sizeof(buf)) < 0)
		return err_sys(e, "read the directory");
	if ((S_ISREG(st.st_mode) || S_ISDIR(st.st_mode)) && !(o->msg->flags & O_PATH) &&
	    lseek(o->fd, o->msg->pos, SEEK_SET) < 0)
		return err_sys(e, "set the position");
	return 0;
}

/* What is set by us is not asked of the user: what only CAP_NET_ADMIN may set is not in a user's pod, so not in its image. */
static int check_options(struct restore *r, const struct robject *o, struct err *e)
{
	static const struct {
		int level, name, max;
		const char *text;
	} limits[] = {
		{ SOL_SOCKET, SO_MARK, 0, "SO_MARK" },
		{ SOL_SOCKET, SO_PRIORITY, 6, "SO_PRIORITY" },
		{ IPPROTO_IP, IP_TRANSPARENT, 0, "IP_TRANSPARENT" }, /* of IPv6 it is the same bit */
	};
	int domain = kind_sock_int(o->fd, SO_DOMAIN);
	size_t i;

	if (!r->req->spec->uid || (domain != AF_INET && domain != AF_INET6))
		return 0;
	for (i = 0; i < ARRAY_SIZE(limits); i++) {
		socklen_t len = sizeof(int);
		int v = 0;

		if (getsockopt(o->fd, limits[i].level, limits[i].name, &v, &len) == 0 && v > limits[i].max)
			return err_set(e, EPERM, "%s %d of a socket, which user '%s' cannot have set", limits[i].text, v,
				       r->req->spec->user);
	}
	return 0;
}

static int set_filter(void *arg, struct err *e)
{
	const struct robject *o = arg;
	int q = kind_filter_set(o->fd, o->msg->filter, e);

	return q < 0 ? err_wrap(e, "pid %u: fd %u (%s)", o->msg->owner_pid, o->msg->owner_fd, o->msg->link) : 0;
}

int robj_restore(struct restore *r, struct err *e)
{
	int q = unpack_objects(r, e);
	size_t i;

	for (i = 0; q >= 0 && i < r->nobjects; i++) {
		struct robject *o = &r->objects[i];

		q = o->kind->restore(r, o, e);
		if (o->kind->scope == KIND_POD) {
			if (q < 0)
				return err_wrap(e, "%s", o->msg->link);
			continue;
		}
		if (q >= 0 && o->fd < 0)
			q = err_set(e, EIO, "was not made");
		if (q >= 0)
			q = set_common(o, e);
		if (q >= 0)
			q = check_options(r, o, e);
		if (q < 0)
			return err_wrap(e, "pid %u: fd %u (%s)", o->msg->owner_pid, o->msg->owner_fd, o->msg->link);
	}
	for (i = 0; q >= 0 && i < r->nobjects; i++) {
		struct robject *o = &r->objects[i];

		if (o->kind->finish)
			q = o->kind->finish(r, o, e);
		if (q < 0)
			return err_wrap(e, "pid %u: fd %u (%s)", o->msg->owner_pid, o->msg->owner_fd, o->msg->link);
	}
	for (i = 0; q >= 0 && i < r->nobjects; i++) /* not before all queues are filled, by whichever socket */
		if (r->objects[i].msg->filter)
			q = restore_as_owner(r, set_filter, &r->objects[i], e);
	return q;
}

/* ---- fds of a process */

static int cmp_fd(const void *a, const void *b)
{
	uint32_t x = (*(Pm__Fd *const *)a)->fd, y = (*(Pm__Fd *const *)b)->fd;

	return x < y ? -1 : x > y;
}

/*
 * Received fds take the lowest free numbers, so the j-th lands at or below the number it shall have;
 * moved in descending order none stands in another's way.
 */
static int receive(struct restore *r, struct rproc *p, Pm__Fd **fd, size_t n, int sock, struct err *e)
{
	int fds[MAX_FDS_CALL];
	size_t i, k;
	int q = 0;

	for (i = 0; q >= 0 && i < n; i += k) {
		for (k = 0; k < MAX_FDS_CALL && i + k < n; k++) {
			struct robject *o = restore_object(r, fd[i + k]->object);

			if (!o || o->kind->scope != KIND_FD)
				return err_set(e, EBADMSG, "pid %d: fd %u is of the unknown object %u", p->nspid, fd[i + k]->fd,
					       fd[i + k]->object);
			fds[k] = o->fd;
		}
		robj_recv_call(r->b, sock, k);
		q = robj_send(r, fds, k, e);
		if (q >= 0) {
			q = batch_run_ok(p->tasks[0], r->b, deadline_ms(5000), e);
			batch_begin(r->b, r->scratch);
		}
	}
	return q;
}

static int move(struct restore *r, struct rproc *p, Pm__Fd **fd, size_t n, struct err *e)
{
	size_t j;
	int q = 0;

	for (j = n; q >= 0 && j-- > 0;) {
		uint32_t to = fd[j]->fd;

		if (to == j) {
			if (fd[j]->cloexec)
				batch_add3(r->b, SYS_fcntl, j, F_SETFD, FD_CLOEXEC);
		} else {
			batch_add3(r->b, SYS_dup3, j, to, fd[j]->cloexec ? O_CLOEXEC : 0);
			batch_add1(r->b, SYS_close, j);
		}
		if (r->b->n + 4 > BATCH_MAX) {
			q = batch_run_ok(p->tasks[0], r->b, deadline_ms(5000), e);
			batch_begin(r->b, r->scratch);
		}
	}
	return q;
}

/* Whom the description sends signals, told by a process of the pod, as pids are its own there. O_ASYNC comes last: what
 * was queued before sends none. */
static void set_sigio(struct restore *r, struct robject *o, int fdno)
{
	const uint32_t flags = O_APPEND | O_NONBLOCK | O_DIRECT | O_NOATIME | O_ASYNC;
	const Pm__Object *m = o->msg;
	struct f_owner_ex own = { (int)m->sigio_type - 1, m->sigio_pid };

	if (o->sigio || (m->flags & O_PATH))
		return;
	o->sigio = true;
	if (m->sigio_type)
		batch_add3(r->b, SYS_fcntl, fdno, F_SETOWN_EX, batch_data(r->b, &own, sizeof(own)));
	if (m->sigio_signal)
		batch_add3(r->b, SYS_fcntl, fdno, F_SETSIG, m->sigio_signal);
	if (m->flags & O_ASYNC)
		batch_add3(r->b, SYS_fcntl, fdno, F_SETFL, m->flags & flags);
}

/* What a kind adds inside the process; an epoll may have more items than a batch has entries. */
static int place_one(struct restore *r, struct rproc *p, struct robject *o, int fdno, struct err *e)
{
	int more = 1, q = 0;

	set_sigio(r, o, fdno);
	o->placed = 0;
	while (q >= 0 && more > 0 && o->kind->place) {
		more = q = o->kind->place(r, o, p->want, fdno, r->b, e);
		if (q >= 0 && (more || r->b->n > BATCH_MAX / 2)) {
			q = batch_run_ok(p->tasks[0], r->b, deadline_ms(5000), e);
			batch_begin(r->b, r->scratch);
		}
	}
	return q;
}

int robj_place(struct restore *r, struct rproc *p, struct err *e)
{
	const Pm__Proc *w = p->want;
	int sock = POD_NS_CHILD_FD, q = 0;
	size_t i;

	qsort(w->fds, w->n_fds, sizeof(*w->fds), cmp_fd);
	for (i = 1; i < w->n_fds; i++)
		if (w->fds[i]->fd == w->fds[i - 1]->fd)
			return err_set(e, EBADMSG, "pid %d: fd %u twice", p->nspid, w->fds[i]->fd);
	batch_begin(r->b, r->scratch);
	if (w->n_fds && w->fds[w->n_fds - 1]->fd >= POD_NS_CHILD_FD) {
		sock = (int)w->fds[w->n_fds - 1]->fd + 1;
		batch_add3(r->b, SYS_dup3, POD_NS_CHILD_FD, sock, 0);
		batch_add1(r->b, SYS_close, POD_NS_CHILD_FD);
	}
	q = receive(r, p, w->fds, w->n_fds, sock, e);
	if (q >= 0)
		q = move(r, p, w->fds, w->n_fds, e);
	for (i = 0; q >= 0 && i < w->n_fds; i++)
		q = place_one(r, p, restore_object(r, w->fds[i]->object), (int)w->fds[i]->fd, e);
	if (q >= 0) {
		batch_add1(r->b, SYS_close, sock);
		q = batch_run_ok(p->tasks[0], r->b, deadline_ms(5000), e);
	}
	return q < 0 ? err_wrap(e, "pid %d (%s): open files", p->nspid, w->comm) : 0;
}

void robj_leave_ends(struct restore *r)
{
	for (size_t i = 0; i < r->nobjects; i++)
		if (r->objects[i].kind == &kind_pipe || r->objects[i].kind == &kind_fifo)
			close_fdp(&r->objects[i].fd);
}

void robj_done(struct restore *r)
{
	size_t i;

	for (i = 0; i < r->nobjects; i++) {
		close_fdp(&r->objects[i].fd);
		if (r->objects[i].body)
			protobuf_c_message_free_unpacked(r->objects[i].body, NULL);
	}
	for (i = 0; i < r->ncontents; i++) {
		close_fdp(&r->contents[i].fd);
		if (r->contents[i].body)
			pm__body_mem__free_unpacked(r->contents[i].body, NULL);
	}
	for (i = 0; i < r->nmapfiles; i++)
		close_fdp(&r->mapfiles[i].fd);
	for (i = 0; i < r->nparked; i++)
		close_fdp(&r->parked[i].fd);
	free(r->objects);
	free(r->contents);
	free(r->mapfiles);
	free(r->parked);
}
