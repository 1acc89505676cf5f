/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * A session is one command with its streams: session 0 is the pod's own, the others come by exec.
 *
 * Output goes from a pipe (or the pty's master) into a ring. It is read only while the ring has room
 * for it: the bytes that the slowest attached consumer has not been sent are not dropped, so a
 * consumer that does not read holds the command back, as a pipe would. With no consumer attached the
 * bytes wait ORPHAN_NS for one (a move and an agent's restart take less), then the oldest go. A log
 * keeper that is there is not enough while the client that types is being waited for (RESERVE_NS).
 *
 * Stdin goes the other way through a ring of its own; offsets make a re-sent piece harmless.
 */
#include <errno.h>
#include <fcntl.h>
#include <pty.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/wait.h>

#include "pod/base/io.h"
#include "pod/base/util.h"
#include "pod/podinit/podinit.h"

struct fds {
	int in[2], out[2], err[2]; /* [0] read end, [1] write end */
	int master, slave;
	int report[2]; /* errno of a failed exec; closed by a good one */
};

static void fds_close(struct fds *f)
{
	int *all = (int *)f;

	for (size_t i = 0; i < sizeof(*f) / sizeof(int); i++)
		close_fdp(&all[i]);
}

static int open_pty(struct fds *f, const struct session_args *a, struct err *e)
{
	struct winsize ws = { .ws_row = (unsigned short)a->rows,
			      .ws_col = (unsigned short)a->cols };
	int unlock = 0;

	f->master = open("/dev/ptmx", O_RDWR | O_NOCTTY | O_CLOEXEC | O_NONBLOCK);
	if (f->master < 0)
		return err_sys(e, "open /dev/ptmx");
	if (ioctl(f->master, TIOCSPTLCK, &unlock) < 0)
		return err_sys(e, "unlock the pty");
	/* With O_CLOEXEC here the kernel keeps the flag in the open file, and fdinfo then shows it for
	 * every duplicate: the command's 0-2 would be moved as close-on-exec. */
	f->slave = ioctl(f->master, TIOCGPTPEER, O_RDWR | O_NOCTTY);
	if (f->slave < 0 || fcntl(f->slave, F_SETFD, FD_CLOEXEC) < 0)
		return err_sys(e, "open the pty's other end");
	if (ws.ws_row && ws.ws_col)
		(void)!ioctl(f->master, TIOCSWINSZ, &ws);
	return 0;
}

static int open_pipes(struct fds *f, const struct session_args *a, struct err *e)
{
	if (pipe2(f->out, O_CLOEXEC) < 0 || pipe2(f->err, O_CLOEXEC) < 0)
		return err_sys(e, "pipe");
	if (a->stdin_open) {
		if (pipe2(f->in, O_CLOEXEC) < 0)
			return err_sys(e, "pipe");
	} else {
		f->in[0] = open("/dev/null", O_RDONLY | O_CLOEXEC);
		if (f->in[0] < 0)
			return err_sys(e, "open /dev/null");
	}
	/* our ends; the command's are other open files and stay blocking */
	if (fcntl(f->out[0], F_SETFL, O_NONBLOCK) < 0 || fcntl(f->err[0], F_SETFL, O_NONBLOCK) < 0 ||
	    (a->stdin_open && fcntl(f->in[1], F_SETFL, O_NONBLOCK) < 0))
		return err_sys(e, "O_NONBLOCK");
	return 0;
}

static _Noreturn void child_fail(int report, int num)
{
	(void)!write(report, &num, sizeof(num));
	_exit(127);
}

static _Noreturn void child_main(const struct fds *f, const struct session_args *a)
{
	int in = a->tty ? f->slave : f->in[0];
	int out = a->tty ? f->slave : f->out[1];
	int err = a->tty ? f->slave : f->err[1];
	sigset_t none;

	if (setsid() < 0)
		child_fail(f->report[1], errno);
	if (a->tty && ioctl(f->slave, TIOCSCTTY, 0) < 0)
		child_fail(f->report[1], errno);
	/* none of ours is below 3: podinit holds /dev/null there */
	if (dup2(in, 0) < 0 || dup2(out, 1) < 0 || dup2(err, 2) < 0)
		child_fail(f->report[1], errno);
	if (a->cwd && a->cwd[0] && chdir(a->cwd) < 0) {
		dprintf(2, "podinit: cannot enter '%s': %s; starting in /\n", a->cwd,
			strerror(errno));
		(void)!chdir("/");
	}
	signal(SIGPIPE, SIG_DFL);
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	environ = a->envp;
	execvp(a->argv[0], a->argv);
	child_fail(f->report[1], errno);
}

/* 0 when the command runs, else -errno of its exec. */
static int exec_result(int fd)
{
	int num;
	ssize_t n;

	do
		n = read(fd, &num, sizeof(num));
	while (n < 0 && errno == EINTR);
	return n == (ssize_t)sizeof(num) ? -num : 0;
}

static int adopt_stream(struct podinit *p, struct session *s, unsigned i, int *fd, struct err *e)
{
	struct stream *st = &s->out[i];
	int r;

	r = ring_init(&st->ring, RING_SIZE, e);
	if (r < 0)
		return r;
	st->w = (struct watch){ .kind = i ? WATCH_ERR : WATCH_OUT, .fd = take_fd(fd), .owner = s };
	return watch_set(p, &st->w, EPOLLIN, e);
}

/* Takes our ends out of @f. */
static int adopt(struct podinit *p, struct session *s, struct fds *f, const struct session_args *a,
		 struct err *e)
{
	int r = adopt_stream(p, s, 0, a->tty ? &f->master : &f->out[0], e);

	if (r < 0)
		return r;
	s->in = (struct watch){ .kind = WATCH_IN, .fd = -1, .owner = s };
	s->in_open = a->tty || a->stdin_open;
	if (s->in_open && (r = ring_init(&s->in_ring, STDIN_SIZE, e)) < 0)
		return r;
	if (a->tty) {
		s->slave = take_fd(&f->slave);
		s->out[1].eof = true;
		return 0;
	}
	s->in.fd = a->stdin_open ? take_fd(&f->in[1]) : -1;
	return adopt_stream(p, s, 1, &f->err[0], e);
}

static int slot_for(struct podinit *p, struct session *s, struct err *e)
{
	for (size_t i = 0; i < MAX_SESSIONS; i++)
		if (!p->session[i]) {
			p->session[i] = s;
			return 0;
		}
	return err_set(e, EBUSY, "the pod has %d sessions already", MAX_SESSIONS);
}

int session_start(struct podinit *p, const struct session_args *a, struct session **out, int *code,
		  struct err *e)
{
	struct fds f = { { -1, -1 }, { -1, -1 }, { -1, -1 }, -1, -1, { -1, -1 } };
	struct session *s = calloc(1, sizeof(*s));
	int r;

	*code = 125;
	if (!s)
		return err_num(e, ENOMEM, "session");
	s->slave = s->in.fd = s->out[0].w.fd = s->out[1].w.fd = -1;
	s->tty = a->tty;
	s->orphan_since = now_ns();
	/* who feeds it will attach; a detached one has nobody to wait for */
	s->reserved_since = a->tty || a->stdin_open ? s->orphan_since : 0;
	r = slot_for(p, s, e);
	if (r < 0) {
		free(s);
		return r;
	}
	r = a->tty ? open_pty(&f, a, e) : open_pipes(&f, a, e);
	if (r == 0 && pipe2(f.report, O_CLOEXEC) < 0)
		r = err_sys(e, "pipe");
	if (r == 0) {
		s->pid = fork();
		if (s->pid == 0)
			child_main(&f, a);
		if (s->pid < 0)
			r = err_sys(e, "fork");
	}
	if (r == 0) {
		close_fdp(&f.report[1]);
		r = exec_result(f.report[0]);
		if (r < 0) {
			*code = r == -ENOENT || r == -ENOTDIR ? 127 : 126;
			err_num(e, r, "%s", a->argv[0]);
			waitpid(s->pid, NULL, 0);
		} else {
			r = adopt(p, s, &f, a, e);
			if (r < 0)
				kill(-s->pid, SIGKILL);
		}
	}
	fds_close(&f);
	if (r < 0) {
		session_free(p, s);
		return r;
	}
	s->id = p->next_session++;
	*out = s;
	return 0;
}

struct session *session_find(struct podinit *p, uint32_t id)
{
	for (size_t i = 0; i < MAX_SESSIONS; i++)
		if (p->session[i] && p->session[i]->id == id && !p->session[i]->dead)
			return p->session[i];
	return NULL;
}

void session_free(struct podinit *p, struct session *s)
{
	for (size_t i = 0; i < MAX_SESSIONS; i++)
		if (p->session[i] == s)
			p->session[i] = NULL;
	watch_close(p, &s->in);
	close_fdp(&s->slave);
	for (int i = 0; i < 2; i++) {
		watch_close(p, &s->out[i].w);
		ring_done(&s->out[i].ring);
	}
	ring_done(&s->in_ring);
	free(s);
}

static bool reserved(const struct session *s, uint64_t now)
{
	return s->reserved_since && now - s->reserved_since < RESERVE_NS;
}

/* Output before this offset is not needed by anybody any more. */
static uint64_t stream_floor(const struct podinit *p, const struct session *s, unsigned i)
{
	const struct ring *r = &s->out[i].ring;
	uint64_t floor = r->head, now = now_ns();

	if (!s->consumers && now - s->orphan_since < ORPHAN_NS)
		return r->tail;
	for (size_t k = 0; k < MAX_CONNS; k++) {
		const struct conn *c = p->conn[k];

		if (c && !c->dead && c->s == s)
			floor = MIN(floor, c->sent[i]);
	}
	if (reserved(s, now))
		floor = MIN(floor, s->reserved[i]);
	else if (!s->consumers)
		return r->head;
	return floor > MARGIN ? floor - MARGIN : 0;
}

uint64_t session_patience(const struct session *s)
{
	uint64_t until = IO_FOREVER, now = now_ns();
	bool held = false;

	for (unsigned i = 0; i < 2; i++)
		held |= s->out[i].w.fd >= 0 && !(s->out[i].w.events & EPOLLIN);
	if (!held || s->finished)
		return IO_FOREVER;
	if (!s->consumers && now - s->orphan_since < ORPHAN_NS)
		until = s->orphan_since + ORPHAN_NS;
	if (reserved(s, now))
		until = MIN(until, s->reserved_since + RESERVE_NS);
	return until;
}

/* Reads what there is and fits. Returns true when the pipe was seen empty or at its end. */
static bool stream_read(struct podinit *p, struct session *s, unsigned i)
{
	struct stream *st = &s->out[i];

	while (!st->eof) {
		uint8_t *at;
		size_t room = ring_space(&st->ring, stream_floor(p, s, i), &at);
		ssize_t n;

		if (!room) {
			watch_set(p, &st->w, st->w.events & ~(uint32_t)EPOLLIN, NULL);
			return false;
		}
		n = read(st->w.fd, at, room);
		if (n > 0) {
			ring_commit(&st->ring, (size_t)n);
			p->busy = true;
			continue;
		}
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && errno == EAGAIN)
			break;
		/* the end; EIO is a pty's way of saying so */
		st->eof = true;
		if (s->tty)
			s->in_open = false;
		watch_close(p, &st->w);
	}
	if (!st->eof)
		watch_set(p, &st->w, st->w.events | EPOLLIN, NULL);
	return true;
}

static void stdin_closed(struct podinit *p, struct session *s)
{
	s->in_open = false;
	watch_close(p, &s->in);
	ring_drop(&s->in_ring, s->in_ring.head);
}

/* A terminal's end of input is a character. */
static void stdin_end(struct podinit *p, struct session *s)
{
	static const char eot = 4;

	if (!s->tty)
		stdin_closed(p, s);
	else if (write(s->out[0].w.fd, &eot, 1) == 1)
		s->in_eof = false;
}

static void stdin_write(struct podinit *p, struct session *s)
{
	struct watch *w = s->tty ? &s->out[0].w : &s->in;
	uint32_t rest;

	while (s->in_open && s->in_ring.tail < s->in_ring.head) {
		const uint8_t *at;
		size_t n = ring_peek(&s->in_ring, s->in_ring.tail, &at);
		ssize_t w_n = write(w->fd, at, n);

		if (w_n > 0) {
			ring_drop(&s->in_ring, s->in_ring.tail + (uint64_t)w_n);
			p->busy = true;
		} else if (w_n < 0 && errno == EINTR) {
			continue;
		} else if (w_n < 0 && errno == EAGAIN) {
			break;
		} else {
			stdin_closed(p, s); /* nobody reads it any more */
		}
	}
	if (!s->in_open)
		return;
	if (s->in_ring.tail == s->in_ring.head && s->in_eof)
		stdin_end(p, s);
	if (w->fd < 0)
		return;
	rest = s->in_ring.tail < s->in_ring.head || (s->in_open && s->in_eof) ? EPOLLOUT : 0;
	watch_set(p, w, (w->events & ~(uint32_t)EPOLLOUT) | rest, NULL);
}

void session_pump(struct podinit *p, struct session *s)
{
	bool empty = true;

	if (s->dead || s->finished)
		return;
	stdin_write(p, s);
	for (unsigned i = 0; i < 2; i++)
		empty &= stream_read(p, s, i);
	if (!s->exited || !empty)
		return;
	/* the pod's own command: what it left behind was killed and may still have said something */
	if (s->id == 0 && !p->childless && !(s->out[0].eof && s->out[1].eof))
		return;
	s->finished = p->busy = true;
	stdin_closed(p, s);
	for (unsigned i = 0; i < 2; i++) {
		s->out[i].eof = true;
		watch_close(p, &s->out[i].w);
	}
}

void session_exited(struct podinit *p, struct session *s, int code)
{
	s->exited = true;
	s->code = code;
	close_fdp(&s->slave);
	if (s->id == 0)
		kill(-1, SIGKILL); /* the pod lives as long as its command */
	session_pump(p, s);
}

ssize_t session_stdin(struct session *s, uint64_t offset, const uint8_t *data, size_t len)
{
	uint64_t head = s->in_ring.head;
	size_t done = 0;

	if (!s->in_open)
		return (ssize_t)len; /* as a closed pipe with nobody to tell */
	if (offset > head)
		return -EPROTO;
	if (head - offset >= len)
		return (ssize_t)len;
	done = (size_t)(head - offset);
	while (done < len) {
		uint8_t *at;
		size_t n = MIN(ring_space(&s->in_ring, s->in_ring.tail, &at), len - done);

		if (!n)
			break;
		memcpy(at, data + done, n);
		ring_commit(&s->in_ring, n);
		done += n;
	}
	return (ssize_t)done;
}

void session_winsize(struct session *s, uint32_t rows, uint32_t cols)
{
	struct winsize ws = { .ws_row = (unsigned short)rows, .ws_col = (unsigned short)cols };

	if (s->tty && s->out[0].w.fd >= 0)
		(void)!ioctl(s->out[0].w.fd, TIOCSWINSZ, &ws);
}

int session_signal(struct session *s, int sig)
{
	pid_t fg;

	if (s->exited)
		return -ESRCH;
	/* what a terminal's user would hit: the job in the foreground */
	if (s->tty && s->out[0].w.fd >= 0 && !ioctl(s->out[0].w.fd, TIOCGPGRP, &fg) && fg > 1 &&
	    fg != s->pid)
		(void)!kill(-fg, sig);
	return kill(-s->pid, sig) < 0 ? -errno : 0;
}
