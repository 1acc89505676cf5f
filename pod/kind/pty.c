/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Terminals: pseudo terminals of the pod's own devpts, and sessions' controlling terminals.
 *
 * Theory of operation. A pair has one master description and any number of slave descriptions; all
 * carry the index. What belongs to the pair (termios, size, owner, packet mode, what nobody has read
 * yet) travels with the master. The target opens ptmx until the kernel hands out the same index (it
 * gives the lowest free one), so /dev/pts/N is the same name; slaves are opened by TIOCGPTPEER.
 *
 * Unread data cannot be peeked: it is read and put back at once. That is the one thing here that
 * touches the source; an engine that dies between the two loses it.
 *	output	read from the master (packet mode off meanwhile), written again by a slave with OPOST off
 *	input	read from a slave in raw mode, which also shows a line that is not finished; put back by
 *		TIOCSTI, which is synchronous, under a termios in which no byte has a meaning but ICANON
 *		is as it was: so line ends make lines again and an unfinished line stays unfinished. What
 *		exceeds the line discipline's buffer goes in through the master, as it had not been
 *		looked at by it in the source either.
 * IXON and its characters stay set all the time: the kernel starts a stopped terminal when IXON goes.
 *
 * Limits: an end-of-file mark (^D) that nobody has read comes back as a NUL byte; data for a slave
 * that nobody has opened yet is not carried; packet mode's pending status is lost; a description that
 * was opened as /dev/tty comes back as /dev/pts/N. A hung-up terminal comes back hung up, with another
 * index. Terminals of another devpts than the pod's are refused.
 */
#include <asm/termbits.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/uio.h>

#include "pod/base/io.h"
#include "pod/base/util.h"
#include "pod/kind/kinds.h"

#define PTMX makedev(5, 2)
#define DEV_TTY makedev(5, 0)
#define SLAVE_MAJOR_FIRST 136
#define SLAVE_MAJOR_LAST 143
#define INDEX_MAX 4096u
#define LDISC_ROOM 4095u
#define DATA_MAX (64u << 10)

static bool is_slave_dev(dev_t dev)
{
	return major(dev) >= SLAVE_MAJOR_FIRST && major(dev) <= SLAVE_MAJOR_LAST;
}

static bool match(const struct probe *p)
{
	dev_t dev = p->st.st_rdev;

	return S_ISCHR(p->st.st_mode) && !kind_is_o_path(p) &&
	       (dev == PTMX || dev == DEV_TTY || is_slave_dev(dev));
}

/* The number in /dev/pts/N. A hung-up terminal has lost its own: -EIO. */
static int get_index(const struct probe *p, uint32_t *index, struct err *e)
{
	unsigned dev = 0;

	if (ioctl(p->fd, TIOCGDEV, &dev) < 0)
		return err_sys(e, "'%s': number of a terminal", p->link);
	/* the kernel's encoding of a device number */
	*index = (dev & 0xff) | ((dev >> 12) & 0xfff00);
	dev = (dev >> 8) & 0xfff;
	if (dev < SLAVE_MAJOR_FIRST || dev > SLAVE_MAJOR_LAST)
		return KIND_REFUSE(e, "'%s' is a terminal that is no pty (device %u:%u)", p->link, dev, *index);
	*index += (dev - SLAVE_MAJOR_FIRST) << 20;
	return 0;
}

static int check_instance(struct dump *d, const struct probe *p, struct err *e)
{
	struct stat st;

	/* /dev/tty's node says nothing; the master of its terminal is looked at as well */
	if (p->st.st_rdev == DEV_TTY)
		return 0;
	if (fstatat(dump_pod_root(d), "dev/pts", &st, 0) < 0)
		return err_sys(e, "the pod's /dev/pts");
	if (st.st_dev != p->st.st_dev)
		return KIND_REFUSE(e, "'%s' is a terminal of the node, not of the pod: cannot be carried",
				   p->link);
	return 0;
}

static int refuse_discipline(int disc, struct err *e)
{
	return disc ? KIND_REFUSE(e, "a terminal with line discipline %d: cannot be carried", disc) : 0;
}

static int check(struct dump *d, const struct probe *p, struct err *e)
{
	uint32_t index;
	int disc = 0, r = kind_check_common(p, e);

	if (r == 0)
		r = check_instance(d, p, e);
	if (r == 0)
		r = get_index(p, &index, e);
	if (r == 0 && ioctl(p->fd, TIOCGETD, &disc) == 0)
		r = refuse_discipline(disc, e);
	return r == -EIO ? 0 : r; /* hung up */
}

/* ---- unread data, out and in again */
static int drain(int fd, uint8_t *buf, size_t cap, size_t *len, struct err *e)
{
	struct pollfd pf = { .fd = fd, .events = POLLIN };

	*len = 0;
	/* poll(2) also waits for what is still on its way into the line discipline */
	while (*len < cap && poll(&pf, 1, 0) > 0 && (pf.revents & POLLIN)) {
		ssize_t n = read(fd, buf + *len, cap - *len);

		if (n == 0 || (n < 0 && (errno == EAGAIN || errno == EIO)))
			break;
		if (n < 0)
			return err_sys(e, "read a terminal");
		*len += (size_t)n;
	}
	return 0;
}

/* Output again: from the slave, as it is. */
static int put_output(int slave, const struct termios2 *t, const uint8_t *data, size_t len, struct err *e)
{
	struct termios2 raw = *t;
	bool on = false;
	size_t done = 0;
	int r = 0;

	if (!len)
		return 0;
	raw.c_oflag &= ~(tcflag_t)OPOST;
	if (ioctl(slave, TCSETS2, &raw) < 0)
		return err_sys(e, "TCSETS2");
	while (r == 0 && done < len) {
		ssize_t n = write(slave, data + done, len - done);

		if (n > 0)
			done += (size_t)n;
		else if (n < 0 && errno != EAGAIN)
			r = err_sys(e, "write a terminal's output back");
		else if (!on && io_wait_writable(slave, deadline_look_ms(20), NULL) < 0 && !ioctl(slave, TCXONC, TCOON))
			on = true; /* it was stopped (^S) */
		else if (io_wait_writable(slave, deadline_ms(1000), NULL) < 0)
			r = err_set(e, ETIMEDOUT, "write a terminal's output back");
	}
	if (on)
		ioctl(slave, TCXONC, TCOOFF);
	return r;
}

/* A termios in which a byte is nothing but a byte, and lines are what they were. */
static struct termios2 plain(const struct termios2 *t, bool canon)
{
	struct termios2 p = *t;
	size_t i;

	p.c_iflag &= IXON;
	p.c_lflag = canon ? t->c_lflag & ICANON : 0;
	for (i = 0; i < NCCS; i++)
		if (i != VSTART && i != VSTOP && i != VEOL && i != VEOL2)
			p.c_cc[i] = 0;
	if (!canon || !(t->c_lflag & ICANON)) {
		p.c_cc[VMIN] = 0;
		p.c_cc[VTIME] = 0;
	}
	return p;
}

static int put_input(int master, int slave, const struct termios2 *t, const uint8_t *data, size_t len,
		     struct err *e)
{
	struct termios2 as_is = plain(t, true);
	size_t i, now = MIN(len, (size_t)LDISC_ROOM);

	if (!len)
		return 0;
	if (ioctl(slave, TCSETS2, &as_is) < 0)
		return err_sys(e, "TCSETS2");
	for (i = 0; i < now; i++)
		if (ioctl(slave, TIOCSTI, data + i) < 0)
			return err_sys(e, "put a terminal's input back");
	if (ioctl(slave, TCSETS2, t) < 0)
		return err_sys(e, "TCSETS2");
	while (now < len) {
		ssize_t n;

		if (io_wait_writable(master, deadline_ms(1000), NULL) < 0)
			return err_set(e, ETIMEDOUT, "put a terminal's input back");
		n = write(master, data + now, MIN(len - now, (size_t)512));
		if (n < 0 && errno != EAGAIN)
			return err_sys(e, "put a terminal's input back");
		now += n > 0 ? (size_t)n : 0;
	}
	return 0;
}

static int open_slave(int master, int flags, struct err *e)
{
	/* This call keeps O_CLOEXEC in the open file, where fdinfo shows it for every duplicate: the next
	 * dump would take them all for close-on-exec. */
	int fd = ioctl(master, TIOCGPTPEER, (flags & ~O_CLOEXEC) | O_NOCTTY);

	if (fd >= 0)
		(void)!fcntl(fd, F_SETFD, FD_CLOEXEC);
	return fd < 0 ? err_sys(e, "open a terminal's slave") : fd;
}

/* Takes both queues and puts them back. The pair's termios is @t throughout, seen from the program. */
static int copy_queues(struct dump *d, int master, int slave, const struct termios2 *t, Pm__BodyPty *m,
		       struct err *e)
{
	struct termios2 raw = plain(t, false);
	uint8_t *in = dump_alloc(d, DATA_MAX), *out = dump_alloc(d, DATA_MAX);
	int zero = 0, one = 1, r, back;

	if (m->packet && ioctl(master, TIOCPKT, &zero) < 0)
		return err_sys(e, "TIOCPKT");
	m->output.data = out;
	m->input.data = in;
	r = drain(master, out, DATA_MAX, &m->output.len, e);
	if (r == 0 && ioctl(slave, TCSETS2, &raw) < 0)
		r = err_sys(e, "TCSETS2");
	if (r == 0)
		r = drain(slave, in, DATA_MAX, &m->input.len, e);
	/* all of it goes back, whatever failed */
	back = put_input(master, slave, t, in, m->input.len, e);
	r = r < 0 ? r : back;
	back = put_output(slave, t, out, m->output.len, e);
	r = r < 0 ? r : back;
	if (ioctl(slave, TCSETS2, t) < 0 && r == 0)
		r = err_sys(e, "TCSETS2");
	if (m->packet)
		ioctl(master, TIOCPKT, &one);
	return r;
}

/* ---- dump */
static bool has_slave(struct dump *d, const struct object *o, uint32_t index)
{
	struct object *x;
	uint32_t i2;
	size_t i = 0;

	while ((x = dump_next_object(d, &i)))
		if (x != o && x->kind == o->kind && x->p.st.st_rdev != PTMX &&
		    get_index(&x->p, &i2, NULL) == 0 && i2 == index)
			return true;
	return false;
}

static int dump_queues(struct dump *d, struct object *o, const struct termios2 *t, Pm__BodyPty *m,
		       struct err *e)
{
	autoclose int slave = -1;
	int unlock = 0, one = 1, r;

	if (m->locked)
		ioctl(o->p.fd, TIOCSPTLCK, &unlock);
	slave = r = open_slave(o->p.fd, O_RDWR | O_NONBLOCK, e);
	if (r >= 0)
		r = copy_queues(d, o->p.fd, slave, t, m, e);
	if (m->locked)
		ioctl(o->p.fd, TIOCSPTLCK, &one);
	return r;
}

static int dump_master(struct dump *d, struct object *o, Pm__BodyPty *m, struct err *e)
{
	struct pollfd pf = { .fd = o->p.fd };
	struct termios2 t;
	struct winsize ws;
	int locked = 0, packet = 0, disc = 0;
	char path[32];
	struct stat st;

	if (ioctl(o->p.fd, TCGETS2, &t) < 0 || ioctl(o->p.fd, TIOCGWINSZ, &ws) < 0 ||
	    ioctl(o->p.fd, TIOCGPTLCK, &locked) < 0 || ioctl(o->p.fd, TIOCGPKT, &packet) < 0 ||
	    ioctl(o->p.fd, TIOCGETD, &disc) < 0)
		return err_sys(e, "state of a terminal");
	if (disc)
		return refuse_discipline(disc, e);
	m->termios = kind_bytes(d, &t, sizeof(t));
	m->winsize = kind_bytes(d, &ws, sizeof(ws));
	m->locked = locked;
	m->packet = packet;
	snprintf(path, sizeof(path), "dev/pts/%u", m->index);
	if (fstatat(dump_pod_root(d), path, &st, AT_SYMLINK_NOFOLLOW) < 0)
		return err_sys(e, "'/%s'", path);
	m->uid = st.st_uid;
	m->gid = st.st_gid;
	m->mode = st.st_mode & 07777;
	m->hup = poll(&pf, 1, 0) > 0 && (pf.revents & POLLHUP);
	if (!m->hup && !has_slave(d, o, m->index))
		return 0; /* never opened: it has not written, and opening it now would be seen */
	return dump_queues(d, o, &t, m, e);
}

static int dump(struct dump *d, struct object *o, ProtobufCMessage **body, struct err *e)
{
	Pm__BodyPty *m = dump_alloc(d, sizeof(*m));
	int r = kind_check_common(&o->p, e), excl = 0;

	if (r == 0)
		r = check_instance(d, &o->p, e);
	if (r < 0)
		return r;
	pm__body_pty__init(m);
	*body = &m->base;
	m->master = o->p.st.st_rdev == PTMX;
	m->tty_link = o->p.st.st_rdev == DEV_TTY;
	r = get_index(&o->p, &m->index, e);
	if (r == -EIO && !m->master) {
		m->hup = true;
		return 0;
	}
	if (r < 0)
		return r;
	if (ioctl(o->p.fd, TIOCGEXCL, &excl) < 0)
		return err_sys(e, "state of a terminal");
	m->excl = excl;
	return m->master ? dump_master(d, o, m, e) : 0;
}

/* ---- restore */
static int open_index(struct restore *r, uint32_t index, struct err *e)
{
	autofree int *held = NULL;
	uint32_t n = 0, i;
	int fd = -1, ret = 0;

	if (index >= INDEX_MAX)
		return KIND_DAMAGED(e, "terminal %u", index);
	held = calloc(index + 1, sizeof(*held));
	if (!held)
		return err_num(e, ENOMEM, "terminal %u", index);
	while (fd < 0 && n <= index) {
		int got = 0;

		fd = ret = restore_open(r, "/dev/pts/ptmx", O_RDWR | O_NOCTTY | O_CLOEXEC, 0, e);
		if (ret < 0)
			break;
		if (ioctl(fd, TIOCGPTN, &got) < 0) {
			ret = err_sys(e, "TIOCGPTN");
			close_fdp(&fd);
			break;
		}
		if ((uint32_t)got == index)
			break;
		held[n++] = take_fd(&fd);
	}
	for (i = 0; i < n; i++)
		close(held[i]);
	if (fd >= 0)
		return fd;
	return ret < 0 ? ret : err_set(e, EBUSY, "/dev/pts/%u is taken", index);
}

static int find_master(struct restore *r, const struct robject *o, uint32_t index, struct robject **out)
{
	struct robject *x;
	size_t i = 0;

	while ((x = restore_next_object(r, &i))) {
		const Pm__BodyPty *m = (const void *)x->body;

		if (x->kind == o->kind && m->master && m->index == index) {
			*out = x;
			return 0;
		}
	}
	return -ENOENT;
}

/* The engine's fd of the pair's master: the object's own, or parked until its turn comes. Borrowed. */
static int borrow_master(struct restore *r, struct robject *o, uint32_t index, struct err *e)
{
	struct robject *mo;
	int fd, unlock = 0, ret;

	if (find_master(r, o, index, &mo) < 0)
		return KIND_DAMAGED(e, "terminal %u has no master", index);
	if (mo->fd >= 0)
		return mo->fd;
	fd = restore_unpark(r, TYPE_PTY, index);
	if (fd < 0) {
		fd = open_index(r, index, e);
		if (fd < 0)
			return fd;
		if (ioctl(fd, TIOCSPTLCK, &unlock) < 0) {
			close(fd);
			return err_sys(e, "TIOCSPTLCK");
		}
	}
	ret = restore_park(r, TYPE_PTY, index, fd, e);
	return ret < 0 ? ret : fd;
}

static int restore_hung_up(struct restore *r, struct robject *o, int flags, struct err *e)
{
	autoclose int master = restore_open(r, "/dev/pts/ptmx", O_RDWR | O_NOCTTY | O_CLOEXEC, 0, e);
	int unlock = 0, fd;

	if (master < 0)
		return master;
	if (ioctl(master, TIOCSPTLCK, &unlock) < 0)
		return err_sys(e, "TIOCSPTLCK");
	fd = open_slave(master, flags, e);
	if (fd < 0)
		return fd;
	o->fd = fd;
	return 0; /* closing the master hangs it up */
}

static int restore(struct restore *r, struct robject *o, struct err *e)
{
	const Pm__BodyPty *m = (const void *)o->body;
	int flags = (int)(o->msg->flags & O_ACCMODE), fd;

	if (!m->master && m->hup)
		return restore_hung_up(r, o, flags, e);
	fd = borrow_master(r, o, m->index, e);
	if (fd < 0)
		return fd;
	if (m->master) {
		o->fd = restore_unpark(r, TYPE_PTY, m->index);
		return o->fd < 0 ? KIND_DAMAGED(e, "terminal %u has two masters", m->index) : 0;
	}
	fd = open_slave(fd, flags, e);
	if (fd < 0)
		return fd;
	o->fd = fd;
	return 0;
}

/* The name's owner, without opening the terminal. */
static int set_owner(struct restore *r, const Pm__BodyPty *m, struct err *e)
{
	char path[48];
	autoclose int node = -1;

	snprintf(path, sizeof(path), "/dev/pts/%u", m->index);
	node = restore_open(r, path, O_PATH | O_NOFOLLOW | O_CLOEXEC, 0, e);
	if (node < 0)
		return node;
	if (fchownat(node, "", m->uid, m->gid, AT_EMPTY_PATH) < 0)
		return err_sys(e, "owner of '%s'", path);
	snprintf(path, sizeof(path), "/proc/self/fd/%d", node);
	return chmod(path, m->mode & 0777) < 0 ? err_sys(e, "mode of terminal %u", m->index) : 0;
}

static int apply_queues(int master, const struct termios2 *t, const Pm__BodyPty *m, struct err *e)
{
	autoclose int slave = open_slave(master, O_RDWR | O_NONBLOCK, e);
	int r;

	if (slave < 0)
		return slave;
	r = put_input(master, slave, t, m->input.data, m->input.len, e);
	if (r == 0)
		r = put_output(slave, t, m->output.data, m->output.len, e);
	if (r == 0 && ioctl(slave, TCSETS2, t) < 0)
		r = err_sys(e, "TCSETS2");
	return r;
}

static int finish_master(struct restore *r, struct robject *o, const Pm__BodyPty *m, struct err *e)
{
	struct termios2 t;
	struct winsize ws;
	int one = 1, ret;

	if (m->termios.len != sizeof(t) || m->winsize.len != sizeof(ws) || m->input.len > DATA_MAX ||
	    m->output.len > DATA_MAX)
		return KIND_DAMAGED(e, "terminal %u", m->index);
	memcpy(&t, m->termios.data, sizeof(t));
	memcpy(&ws, m->winsize.data, sizeof(ws));
	ret = set_owner(r, m, e);
	if (ret < 0)
		return ret;
	if (ioctl(o->fd, TIOCSWINSZ, &ws) < 0 || ioctl(o->fd, TCSETS2, &t) < 0)
		return err_sys(e, "state of terminal %u", m->index);
	/* a slave that was never opened stays so: once opened and closed, the master sees a hang-up, which is m->hup */
	if (m->hup || m->input.len || m->output.len) {
		ret = apply_queues(o->fd, &t, m, e);
		if (ret < 0)
			return ret;
	}
	if ((m->packet && ioctl(o->fd, TIOCPKT, &one) < 0) ||
	    (m->locked && ioctl(o->fd, TIOCSPTLCK, &one) < 0))
		return err_sys(e, "state of terminal %u", m->index);
	return 0;
}

/* In the second pass all slaves are open. */
static int finish(struct restore *r, struct robject *o, struct err *e)
{
	const Pm__BodyPty *m = (const void *)o->body;
	int ret = m->master ? finish_master(r, o, m, e) : 0;

	if (ret == 0 && m->excl && ioctl(o->fd, TIOCEXCL) < 0)
		ret = err_sys(e, "TIOCEXCL");
	return ret;
}

const struct kind kind_pty = {
	.name = "pty",
	.type = TYPE_PTY,
	.version = 1,
	.min_version = 1,
	.scope = KIND_FD,
	.stage = STAGE_TTY,
	.schema = &pm__body_pty__descriptor,
	.match = match,
	.check = check,
	.dump = dump,
	.restore = restore,
	.finish = finish,
};

/* ---- controlling terminals */

/*
 * The leader of a session need not hold its terminal open, so it opens it by name. The number that
 * open(2) gives is known only in the task: `also` brings it to one place, process_vm_writev(2) from
 * there to the calls that want it. Twice: right after setsid() (kind_ctty_early()), as the terminal is
 * inherited by fork(2) alone; and when all groups exist, to put one in the foreground.
 */
static void add_ctty(const Pm__Proc *proc, int32_t group, struct batch *b)
{
	uint64_t fd, path, local, remote;
	struct iovec from, to[3];
	unsigned o, c[3], k;
	char name[32];

	snprintf(name, sizeof(name), "/dev/pts/%u", proc->tty - 1);
	path = batch_data(b, name, strlen(name) + 1);
	fd = batch_data(b, NULL, sizeof(uint64_t));
	o = batch_add3(b, SYS_open, path, O_RDWR | O_CLOEXEC | O_NOCTTY, 0);
	if (b->overflow)
		return;
	b->e[o].also = fd;
	from = (struct iovec){ (void *)(uintptr_t)fd, sizeof(uint64_t) };
	local = batch_data(b, (struct iovec[3]){ from, from, from }, 3 * sizeof(from));
	remote = batch_data(b, NULL, sizeof(to));
	batch_add(b, SYS_process_vm_writev, proc->pid, local, 3, remote, 3, 0);
	c[0] = batch_add3(b, SYS_ioctl, 0, TIOCSCTTY, 0);
	c[1] = group > 0 ? batch_add3(b, SYS_ioctl, 0, TIOCSPGRP, batch_data(b, &group, sizeof(group))) : c[0];
	c[2] = batch_add1(b, SYS_close, 0);
	for (k = 0; k < 3; k++)
		to[k] = (struct iovec){ (void *)(uintptr_t)batch_arg_addr(b, c[k], 0), sizeof(uint64_t) };
	if (!b->overflow)
		memcpy(batch_local(b, remote), to, sizeof(to));
}

int kind_ctty_early(struct restore *r, const Pm__Proc *proc, struct batch *b, struct err *e)
{
	int fd, unlock = 0, ret;

	if (!proc->tty || proc->pid != proc->sid)
		return 0;
	fd = restore_unpark(r, TYPE_PTY, proc->tty - 1);
	if (fd < 0) {
		fd = open_index(r, proc->tty - 1, e);
		if (fd < 0)
			return fd;
	}
	ret = ioctl(fd, TIOCSPTLCK, &unlock) < 0 ? err_sys(e, "TIOCSPTLCK") : 0;
	if (ret < 0) {
		close(fd);
		return ret;
	}
	ret = restore_park(r, TYPE_PTY, proc->tty - 1, fd, e);
	if (ret == 0)
		add_ctty(proc, 0, b);
	return ret;
}

static int give_ctty(struct restore *r, const Pm__Proc *proc, const Pm__Thread *th, struct batch *b,
		     struct err *e)
{
	(void)r;
	(void)th;
	(void)e;
	if (proc->tty && proc->pid == proc->sid)
		add_ctty(proc, proc->tty_fg, b);
	return 0;
}

const struct kind kind_ctty = {
	.name = "ctty",
	.type = TYPE_CTTY,
	.version = 1,
	.min_version = 1,
	.scope = KIND_PROC,
	.give = give_ctty,
};
