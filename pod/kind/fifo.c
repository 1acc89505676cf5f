/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * FIFOs: pipes that are opened by a name.
 *
 * Theory of operation. All descriptions of an inode are one pipe, as with pipe.c, whose copying and
 * filling is used. On restore the first object of an inode makes all of them, since their order counts:
 *
 *	helper			 finds the file, sets the size, writes the contents, and is the other end that an open
 *				 without waiting wants; for reading alone if there are only `unwritten` readers
 *	all but those		 opened by name, as the user; then the helper goes, and with it a reader or a
 *				 writer that was not there
 *	`unwritten` readers	 opened when there is no writer: poll(2) shows no hang-up to a reader that has
 *				 never met one
 *
 * A FIFO that has lost its name gets one for a moment in a file system of its own.
 *
 * Both ends must be in the pod. On a file system that others see as well this is looked at, in all processes
 * of the node, before the move and again in the freeze. What such a FIFO holds on the target already
 * is in the way, but for what the pod's own frozen copy has there, when both nodes are one machine.
 *
 * Limits, refused by name: several links to a FIFO in a private tree; links to a removed one.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>

#include "pod/base/util.h"
#include "pod/kind/pipe_int.h"

static bool match(const struct probe *p)
{
	return S_ISFIFO(p->st.st_mode) && p->link[0] == '/' && !kind_is_o_path(p);
}

static const Pm__BodyFifo *body_of(const struct robject *o)
{
	return (const void *)o->body;
}

/* ---- dump */

/* @look: at the node's processes, too, which is once enough for all descriptions of an inode. */
static int find(struct dump *d, const struct probe *p, bool look, struct kind_place *at, struct err *e)
{
	int r = kind_check_common(p, e);
	pid_t pid;

	if (r == 0)
		r = kind_find_place(d, p, at, e);
	if (r < 0)
		return r;
	if (at->removed && p->st.st_nlink > 0)
		return KIND_REFUSE(e, "the FIFO '%s' was removed but has other links", at->path);
	if (at->tmpfs && p->st.st_nlink > 1)
		return KIND_REFUSE(e, "the FIFO '%s' has several links in the pod's private directories: cannot be carried",
				   at->path);
	if (at->tmpfs || !look)
		return 0;
	r = dump_held_outside(d, &p->st, &pid, e);
	if (r > 0)
		return KIND_REFUSE(e, "the FIFO '%s', which process %d outside the pod has open too: cannot be carried", at->path,
				   pid);
	return r;
}

static int check(struct dump *d, const struct probe *p, struct err *e)
{
	struct kind_place at;

	return find(d, p, true, &at, e);
}

static bool has_writer(struct dump *d, const struct object *o)
{
	const struct object *x;
	size_t i = 0;

	while ((x = dump_next_object(d, &i)))
		if (x->kind == o->kind && x->p.st.st_ino == o->p.st.st_ino && x->p.st.st_dev == o->p.st.st_dev &&
		    (x->p.flags & O_ACCMODE) != O_RDONLY)
			return true;
	return false;
}

static int dump(struct dump *d, struct object *o, ProtobufCMessage **body, struct err *e)
{
	Pm__BodyFifo *m = dump_alloc(d, sizeof(*m));
	struct pollfd p = { .fd = o->p.fd, .events = POLLIN };
	struct kind_place at;
	bool packets;
	int r = find(d, &o->p, pipe_is_first(d, o, &packets), &at, e);

	if (r < 0)
		return r;
	pm__body_fifo__init(m);
	m->pipe = dump_alloc(d, sizeof(*m->pipe));
	pm__body_pipe__init(m->pipe);
	m->path = dump_strdup(d, at.path);
	m->removed = at.removed;
	m->dev = o->p.st.st_dev;
	if (poll(&p, 1, 0) < 0)
		return err_sys(e, "poll");
	m->unwritten = !has_writer(d, o) && !(p.revents & POLLHUP);
	*body = &m->base;
	return pipe_describe(d, o, m->pipe, e);
}

/* ---- restore */

static int make_removed(const Pm__BodyFifo *m, struct err *e)
{
	const char *name = strrchr(m->path, '/') + 1;
	autoclose int fs = -1, fd = -1;
	int r;

	if (!*name || !strcmp(name, ".") || !strcmp(name, ".."))
		return KIND_DAMAGED(e, "a FIFO's name '%s'", m->path);
	fs = r = kind_scratch_fs(e);
	if (r < 0)
		return r;
	if (mkfifoat(fs, name, 0600) < 0)
		return err_sys(e, "make a FIFO '%s'", name);
	fd = openat(fs, name, O_RDWR | O_NONBLOCK | O_CLOEXEC);
	if (fd < 0 || unlinkat(fs, name, 0) < 0 || fchown(fd, m->pipe->uid, m->pipe->gid) < 0 ||
	    fchmod(fd, m->pipe->mode & 0777) < 0)
		return err_sys(e, "the FIFO '%s'", name);
	return take_fd(&fd);
}

static int open_one(struct restore *r, const Pm__BodyFifo *m, int flags, int helper, struct err *e)
{
	autoclose int fd = -1;
	struct stat a, b;
	int ret;

	if (m->removed)
		return kind_reopen(helper, flags | O_NONBLOCK, e);
	fd = ret = restore_open(r, m->path, flags | O_NONBLOCK | O_CLOEXEC | O_NOCTTY, 0, e);
	if (ret < 0)
		return ret;
	if (fstat(fd, &a) < 0 || (helper >= 0 && fstat(helper, &b) < 0))
		return err_sys(e, "stat '%s'", m->path);
	if (!S_ISFIFO(a.st_mode) || (helper >= 0 && (a.st_ino != b.st_ino || a.st_dev != b.st_dev)))
		return err_set(e, ESTALE, "'%s' is another file here", m->path);
	return take_fd(&fd);
}

/* Is what it shall hold there already, by the frozen copy on the same machine? 1/0; what others have put there is an error. */
static int holds(int helper, const Pm__BodyFifo *m, struct err *e)
{
	autofree uint8_t *buf = NULL;
	autoclose int rd = -1, wr = -1;
	int len = 0, pair[2];
	size_t done = 0;
	ssize_t n;

	if (ioctl(helper, FIONREAD, &len) < 0)
		return err_sys(e, "FIONREAD");
	if (len <= 0)
		return 0;
	if (pipe2(pair, O_CLOEXEC | O_NONBLOCK) < 0)
		return err_sys(e, "pipe");
	rd = pair[0];
	wr = pair[1];
	if ((size_t)len == m->pipe->data.len && fcntl(wr, F_SETPIPE_SZ, fcntl(helper, F_GETPIPE_SZ)) >= 0 &&
	    tee(helper, wr, (size_t)len, SPLICE_F_NONBLOCK) == len) {
		buf = malloc((size_t)len);
		while (buf && done < (size_t)len && (n = read(rd, buf + done, (size_t)len - done)) > 0)
			done += (size_t)n;
	}
	if (buf && done == (size_t)len && !memcmp(buf, m->pipe->data.data, done))
		return 1;
	return err_set(e, EBUSY, "the FIFO '%s' is in use here: it holds %d bytes of others", m->path, len);
}

static bool same_inode(const Pm__BodyFifo *a, const Pm__BodyFifo *b)
{
	return a->pipe->inode == b->pipe->inode && a->dev == b->dev && a->removed == b->removed;
}

static int open_all(struct restore *r, const struct robject *o, bool unwritten, int helper, struct err *e)
{
	const Pm__BodyFifo *m = body_of(o);
	struct robject *x;
	size_t i = 0;
	int ret;

	while ((x = restore_next_object(r, &i))) {
		const Pm__BodyFifo *b = body_of(x);

		if (x->kind != o->kind || x->fd >= 0 || !b->pipe || !same_inode(b, m) || b->unwritten != unwritten)
			continue;
		ret = open_one(r, b, (int)(x->msg->flags & O_ACCMODE), helper, e);
		if (ret < 0)
			return ret;
		x->fd = ret;
	}
	return 0;
}

static int fill_all(struct restore *r, const struct robject *o, int helper, struct err *e)
{
	const Pm__BodyFifo *m = body_of(o);
	struct robject *x;
	size_t i = 0;
	int ret = 0;

	while (ret >= 0 && (x = restore_next_object(r, &i))) {
		const Pm__BodyFifo *b = body_of(x);

		if (x->kind != o->kind || !b->pipe || !same_inode(b, m))
			continue;
		ret = pipe_validate(x, b->pipe, e);
		if (ret == 0 && b->pipe->data.len) {
			ret = holds(helper, b, e);
			if (ret == 0)
				ret = pipe_fill(helper, b->pipe, e);
		}
	}
	return ret;
}

/* Nothing in it, and only readers that have met no writer: none may come, as on one machine the source's readers would meet it. */
static bool is_unwritten(struct restore *r, const struct robject *o)
{
	struct robject *x;
	size_t i = 0;

	while ((x = restore_next_object(r, &i))) {
		const Pm__BodyFifo *b = body_of(x);

		if (x->kind == o->kind && b->pipe && same_inode(b, body_of(o)) && (!b->unwritten || b->pipe->data.len))
			return false;
	}
	return true;
}

static int restore(struct restore *r, struct robject *o, struct err *e)
{
	const Pm__BodyFifo *m = body_of(o);
	autoclose int helper = -1, keep = -1;
	int ret;

	if (o->fd >= 0)
		return 0;
	if (!m->pipe || m->path[0] != '/')
		return KIND_DAMAGED(e, "a FIFO '%s'", m->path);
	ret = pipe_validate(o, m->pipe, e);
	if (ret == 0)
		helper = ret = m->removed ? make_removed(m, e) : open_one(r, m, is_unwritten(r, o) ? O_RDONLY : O_RDWR, -1, e);
	if (ret < 0)
		return ret;
	if (fcntl(helper, F_GETPIPE_SZ) != (int)m->pipe->size && fcntl(helper, F_SETPIPE_SZ, (int)m->pipe->size) < 0)
		return err_sys(e, "a FIFO of %u bytes", m->pipe->size);
	ret = fill_all(r, o, helper, e);
	if (ret >= 0)
		ret = open_all(r, o, false, helper, e);
	if (ret >= 0) /* the contents stay while there is no other description */
		keep = ret = kind_reopen(helper, O_RDONLY | O_NONBLOCK, e);
	if (ret < 0)
		return ret;
	close_fdp(&helper);
	return open_all(r, o, true, keep, e);
}

const struct kind kind_fifo = {
	.name = "fifo",
	.type = TYPE_FIFO,
	.version = 1,
	.min_version = 1,
	.scope = KIND_FD,
	.loose = true,
	.stage = STAGE_PLAIN,
	.schema = &pm__body_fifo__descriptor,
	.match = match,
	.check = check,
	.dump = dump,
	.restore = restore,
};
