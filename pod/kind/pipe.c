/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Pipes.
 *
 * Theory of operation. One pipe (an inode of pipefs) has any number of open descriptions: a read and a
 * write end from pipe2(), more when somebody opens /proc/PID/fd/N. The object with the smallest id of
 * an inode carries the contents, copied without taking them out: tee(2) into a pipe of ours. Packets
 * (O_DIRECT) keep their boundaries, as tee copies the marks.
 *
 * On restore the first object of an inode makes the pipe, keeps its end and parks the other one; any
 * further description is opened through /proc/self/fd. What is still parked in the second pass is closed, and
 * that is a reader or a writer that was gone. Owner and mode of the inode are set: they decide who may open
 * /dev/stdout and the like.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>

#include "pod/base/util.h"
#include "pod/kind/pipe_int.h"

static bool match(const struct probe *p)
{
	return S_ISFIFO(p->st.st_mode) && !strncmp(p->link, "pipe:[", 6) && !kind_is_o_path(p);
}

static int check(struct dump *d, const struct probe *p, struct err *e)
{
	(void)d;
	return kind_check_common(p, e);
}

/* Does any end write packets? */
bool pipe_is_first(struct dump *d, const struct object *o, bool *packets)
{
	const struct object *x;
	bool first = true;
	size_t i = 0;

	*packets = false;
	while ((x = dump_next_object(d, &i))) {
		if (x->kind != o->kind || x->p.st.st_ino != o->p.st.st_ino ||
		    x->p.st.st_dev != o->p.st.st_dev)
			continue;
		if (x->id < o->id)
			first = false;
		if (x->p.flags & O_DIRECT)
			*packets = true;
	}
	return first;
}

/* Reads the copy: its bytes, and the lengths of its packets if it has any. */
static int read_copy(struct dump *d, int fd, size_t len, Pm__BodyPipe *m, struct err *e)
{
	uint8_t *buf = dump_alloc(d, len);
	size_t done = 0, cap = 0;

	while (done < len) {
		ssize_t n = read(fd, buf + done, len - done);

		if (n <= 0)
			return err_sys(e, "read the copy of a pipe");
		if (m->n_packets == cap) {
			uint32_t *np = dump_alloc(d, (cap * 2 + 16) * sizeof(*np));

			if (m->n_packets)
				memcpy(np, m->packets, m->n_packets * sizeof(*np));
			m->packets = np;
			cap = cap * 2 + 16;
		}
		m->packets[m->n_packets++] = (uint32_t)n;
		done += (size_t)n;
	}
	m->data.data = buf;
	m->data.len = len;
	return 0;
}

static int copy_contents(struct dump *d, const struct object *o, bool packets, Pm__BodyPipe *m,
			 struct err *e)
{
	autoclose int in = -1, rd = -1, wr = -1;
	int p[2], len = 0;
	ssize_t n;
	int r;

	if (ioctl(o->p.fd, FIONREAD, &len) < 0)
		return err_sys(e, "FIONREAD");
	if (len <= 0)
		return 0;
	/* by an own description: the read end may be absent, and must not become non-blocking */
	in = r = kind_reopen(o->p.fd, O_RDONLY | O_NONBLOCK, e);
	if (r < 0)
		return r;
	if (pipe2(p, O_CLOEXEC | O_NONBLOCK) < 0)
		return err_sys(e, "pipe");
	rd = p[0];
	wr = p[1];
	if (fcntl(wr, F_SETPIPE_SZ, (int)m->size) < 0)
		return err_sys(e, "a pipe of %u bytes for the copy", m->size);
	n = tee(in, wr, (size_t)len, SPLICE_F_NONBLOCK);
	if (n < 0)
		return err_sys(e, "copy a pipe");
	if (n != len)
		return err_set(e, EIO, "copied %zd of the %d bytes in a pipe", n, len);
	r = read_copy(d, rd, (size_t)len, m, e);
	/* one read that got all: a plain stream or one packet, which the ends' flags tell */
	if (r == 0 && m->n_packets == 1 && !packets)
		m->n_packets = 0;
	return r;
}

int pipe_describe(struct dump *d, const struct object *o, Pm__BodyPipe *m, struct err *e)
{
	int size = fcntl(o->p.fd, F_GETPIPE_SZ);
	bool packets;

	if (size < 0)
		return err_sys(e, "size of a pipe");
	m->inode = o->p.st.st_ino;
	m->writer = (o->p.flags & O_ACCMODE) != O_RDONLY;
	m->size = (uint32_t)size;
	m->uid = o->p.st.st_uid;
	m->gid = o->p.st.st_gid;
	m->mode = o->p.st.st_mode & 07777;
	return pipe_is_first(d, o, &packets) ? copy_contents(d, o, packets, m, e) : 0;
}

static int dump(struct dump *d, struct object *o, ProtobufCMessage **body, struct err *e)
{
	Pm__BodyPipe *m = dump_alloc(d, sizeof(*m));
	int r = kind_check_common(&o->p, e);

	pm__body_pipe__init(m);
	*body = &m->base;
	return r < 0 ? r : pipe_describe(d, o, m, e);
}

int pipe_fill(int wr, const Pm__BodyPipe *m, struct err *e)
{
	uint32_t whole = (uint32_t)m->data.len;
	const uint32_t *lens = m->n_packets ? m->packets : &whole;
	size_t n = m->n_packets ? m->n_packets : (whole ? 1 : 0), at = 0, i;
	int ret = 0;

	if (n && fcntl(wr, F_SETFL, O_NONBLOCK | (m->n_packets ? O_DIRECT : 0)) < 0)
		return err_sys(e, "F_SETFL");
	for (i = 0; ret == 0 && i < n; i++) {
		if (lens[i] > m->data.len - at)
			return KIND_DAMAGED(e, "a packet beyond a pipe's contents");
		if (write(wr, m->data.data + at, lens[i]) != (ssize_t)lens[i])
			ret = err_sys(e, "fill a pipe of %u bytes with %zu", m->size, m->data.len);
		at += lens[i];
	}
	if (n && ret == 0 && fcntl(wr, F_SETFL, 0) < 0)
		ret = err_sys(e, "F_SETFL");
	return ret;
}

int pipe_validate(const struct robject *o, const Pm__BodyPipe *m, struct err *e)
{
	if (m->writer != ((o->msg->flags & O_ACCMODE) != O_RDONLY) || m->size > PIPE_BYTES_MAX || m->data.len > m->size)
		return KIND_DAMAGED(e, "a pipe's ends or size");
	return 0;
}

/* A description of the same pipe that was made before, or -1. */
static int find_made(struct restore *r, const struct robject *o, uint64_t inode)
{
	const struct robject *x;
	size_t i = 0;

	while ((x = restore_next_object(r, &i)))
		if (x != o && x->kind == o->kind && x->fd >= 0 &&
		    ((const Pm__BodyPipe *)(const void *)x->body)->inode == inode)
			return x->fd;
	return -1;
}

static int make_pipe(struct restore *r, struct robject *o, const Pm__BodyPipe *m, struct err *e)
{
	autoclose int mine = -1, other = -1;
	int p[2], ret;

	if (pipe2(p, O_CLOEXEC) < 0)
		return err_sys(e, "pipe");
	mine = p[m->writer];
	other = p[!m->writer];
	if (fcntl(mine, F_GETPIPE_SZ) != (int)m->size && fcntl(mine, F_SETPIPE_SZ, (int)m->size) < 0)
		return err_sys(e, "a pipe of %u bytes", m->size);
	if (fchmod(mine, m->mode & 0777) < 0 || fchown(mine, m->uid, m->gid) < 0)
		return err_sys(e, "owner of a pipe");
	ret = restore_park(r, TYPE_PIPE, m->inode * 2 + !m->writer, take_fd(&other), e);
	if (ret < 0)
		return ret;
	o->fd = take_fd(&mine);
	return 0;
}

static int restore(struct restore *r, struct robject *o, struct err *e)
{
	const Pm__BodyPipe *m = (const void *)o->body;
	int acc = (int)(o->msg->flags & O_ACCMODE);
	int made = find_made(r, o, m->inode);
	int fd = -1;

	if (pipe_validate(o, m, e) < 0)
		return e->code;
	if (made < 0 && acc != O_RDWR)
		return make_pipe(r, o, m, e);
	if (made < 0) { /* opened for both through /proc, and it comes first */
		int p[2];

		if (pipe2(p, O_CLOEXEC) < 0)
			return err_sys(e, "pipe");
		fd = kind_reopen(p[0], O_RDWR, e);
		close(p[0]);
		close(p[1]);
		if (fd >= 0 && (fcntl(fd, F_SETPIPE_SZ, (int)m->size) < 0 ||
				fchmod(fd, m->mode & 0777) < 0 || fchown(fd, m->uid, m->gid) < 0)) {
			close(fd);
			return err_sys(e, "a pipe of %u bytes", m->size);
		}
	} else {
		if (acc != O_RDWR)
			fd = restore_unpark(r, TYPE_PIPE, m->inode * 2 + m->writer);
		if (fd < 0) /* O_NONBLOCK: there may be no other end yet; for O_WRONLY there must be one */
			fd = kind_reopen(made, (acc == O_WRONLY ? O_RDWR : acc) | O_NONBLOCK, e);
		if (fd >= 0 && acc == O_WRONLY && (fcntl(fd, F_GETFL) & O_ACCMODE) == O_RDWR) {
			int both = fd; /* stands in for the reader while the write end is opened */

			fd = kind_reopen(both, O_WRONLY | O_NONBLOCK, e);
			close(both);
		}
	}
	if (fd < 0)
		return fd;
	o->fd = fd;
	return 0;
}

/* In the second pass, as the object that carries the bytes may hold any end. */
static int finish(struct restore *r, struct robject *o, struct err *e)
{
	const Pm__BodyPipe *m = (const void *)o->body;
	autoclose int wr = -1, gone = -1;

	/* nobody has come for it: that end is closed */
	gone = restore_unpark(r, TYPE_PIPE, m->inode * 2 + !m->writer);
	if (!m->data.len)
		return 0;
	/* by a description of our own, with a reader of our own: neither end need be there any more */
	wr = kind_reopen(o->fd, O_RDWR | O_NONBLOCK, e);
	if (wr < 0)
		return wr;
	return pipe_fill(wr, m, e);
}

const struct kind kind_pipe = {
	.name = "pipe",
	.type = TYPE_PIPE,
	.version = 1,
	.min_version = 1,
	.scope = KIND_FD,
	.loose = true,
	.stage = STAGE_PLAIN,
	.schema = &pm__body_pipe__descriptor,
	.match = match,
	.check = check,
	.dump = dump,
	.restore = restore,
	.finish = finish,
};
