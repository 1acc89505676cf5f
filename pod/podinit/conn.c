/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Connections to the control socket. They come from outside the pod only, by way of the agent:
 * a peer that has a pid in our namespace is a program of the pod and is shown the door.
 *
 * A connection greets (Hello both ways), asks (ExecReq, KillReq), and may attach to one session;
 * from then on the session's output is sent down it, from the offsets it named, and stdin, window
 * sizes and signals come up it. A connection may break at any moment (a move breaks all): nothing
 * depends on it, and what it was not sent is still in the ring.
 *
 * Both buffers are bounded; a connection whose stdin finds no room is not read until there is.
 */
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include "agent/link/frame.h"
#include "pod/base/io.h"
#include "pod/base/util.h"
#include "pod/podinit/env.h"
#include "pod/podinit/podinit.h"

#define IN_BASE (64u << 10)
#define IN_MAX (1u << 20)
#define OUT_CAP (160u << 10)
#define OUT_ROOM (DATA_MAX + 256) /* a Console frame */
static_assert(OUT_CAP < MARGIN, "a cut-off client finds in the ring what it was not sent");

static void conn_kill(struct podinit *p, struct conn *c)
{
	if (c->dead)
		return;
	c->dead = p->busy = true;
	watch_close(p, &c->w);
	if (!c->s)
		return;
	if (!--c->s->consumers)
		c->s->orphan_since = now_ns();
	if (c->owner) {
		c->s->reserved_since = now_ns();
		memcpy(c->s->reserved, c->sent, sizeof(c->sent));
	}
}

static void conn_flush(struct podinit *p, struct conn *c)
{
	while (!c->dead && c->out_at < c->out_len) {
		ssize_t n = send(c->w.fd, c->out + c->out_at, c->out_len - c->out_at, MSG_NOSIGNAL);

		if (n > 0) {
			c->out_at += (size_t)n;
			p->busy = true; /* there is room again for what conn_pump() left */
		} else if (n < 0 && errno == EAGAIN) {
			watch_set(p, &c->w, c->w.events | EPOLLOUT, NULL);
			return;
		} else if (n == 0 || errno != EINTR) {
			conn_kill(p, c);
			return;
		}
	}
	c->out_at = c->out_len = 0;
	if (!c->dead)
		watch_set(p, &c->w, c->w.events & ~(uint32_t)EPOLLOUT, NULL);
}

static size_t out_room(struct conn *c)
{
	if (c->out_at) {
		memmove(c->out, c->out + c->out_at, c->out_len - c->out_at);
		c->out_len -= c->out_at;
		c->out_at = 0;
	}
	return OUT_CAP - c->out_len;
}

/* Puts one frame into the out buffer; a peer that lets answers pile up is cut off. */
static void conn_put(struct podinit *p, struct conn *c, const Pm__Envelope *env)
{
	size_t n = pm__envelope__get_packed_size(env);
	uint8_t *at;

	if (c->dead)
		return;
	if (out_room(c) < n + LINK_HEADER) {
		conn_kill(p, c);
		return;
	}
	at = c->out + c->out_len;
	for (unsigned i = 0; i < LINK_HEADER; i++)
		at[i] = (uint8_t)(n >> (8 * i));
	pm__envelope__pack(env, at + LINK_HEADER);
	c->out_len += LINK_HEADER + n;
}

static void put_ok(struct podinit *p, struct conn *c, uint32_t id)
{
	LINK_ENVELOPE(rep, ok, OK, Pm__Ok, pm__ok__init);
	rep.id = id;
	conn_put(p, c, &rep);
}

static void put_error(struct podinit *p, struct conn *c, uint32_t id, int exit_code,
		      const char *cause)
{
	char words[256];

	LINK_ENVELOPE(rep, error, ERROR, Pm__Error, pm__error__init);
	snprintf(words, sizeof(words), "%s", cause);
	rep.id = id;
	rep_body.exit_code = exit_code;
	rep_body.cause = words;
	conn_put(p, c, &rep);
}

int conn_accept(struct podinit *p)
{
	struct ucred uc;
	socklen_t len = sizeof(uc);
	int fd = accept4(p->listener.fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	struct conn *c;
	size_t i;

	if (fd < 0)
		return -errno;
	for (i = 0; i < MAX_CONNS && p->conn[i]; i++)
		;
	if (i == MAX_CONNS || getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &uc, &len) < 0 || uc.pid ||
	    !(c = calloc(1, sizeof(*c)))) {
		close(fd);
		return 0;
	}
	c->w = (struct watch){ .kind = WATCH_CONN, .fd = fd, .owner = c };
	c->in = malloc(IN_BASE);
	c->out = malloc(OUT_CAP);
	c->in_cap = IN_BASE;
	p->conn[i] = c;
	if (!c->in || !c->out || watch_set(p, &c->w, EPOLLIN, NULL) < 0) {
		conn_free(p, c);
		return 0;
	}
	LINK_ENVELOPE(hello, hello, HELLO, Pm__Hello, pm__hello__init);
	hello_body.version = LINK_VERSION;
	hello_body.min_version = LINK_MIN_VERSION;
	hello_body.role = (char *)(uintptr_t)"podinit";
	hello_body.build = (char *)(uintptr_t)LINK_BUILD;
	conn_put(p, c, &hello);
	conn_flush(p, c);
	return 0;
}

void conn_free(struct podinit *p, struct conn *c)
{
	conn_kill(p, c);
	for (size_t i = 0; i < MAX_CONNS; i++)
		if (p->conn[i] == c)
			p->conn[i] = NULL;
	free(c->in);
	free(c->out);
	free(c);
}

/* ---- output */

static void put_ack(struct podinit *p, struct conn *c, uint64_t offset)
{
	LINK_ENVELOPE(ack, console_ack, CONSOLE_ACK, Pm__ConsoleAck, pm__console_ack__init);
	ack.id = c->attach_id;
	ack_body.session = c->s->id;
	ack_body.in_offset = offset;
	c->acked = offset;
	conn_put(p, c, &ack);
}

static void put_console(struct podinit *p, struct conn *c, unsigned i, const uint8_t *data,
			size_t len, bool eof)
{
	LINK_ENVELOPE(f, console, CONSOLE, Pm__Console, pm__console__init);
	f.id = c->attach_id;
	f_body.session = c->s->id;
	f_body.stream = i ? PM__CONSOLE__STREAM__STDERR : PM__CONSOLE__STREAM__STDOUT;
	f_body.offset = c->sent[i];
	f_body.data.data = (uint8_t *)(uintptr_t)data;
	f_body.data.len = len;
	f_body.eof = eof;
	conn_put(p, c, &f);
	c->sent[i] += len;
	p->busy = true;
	c->eof_sent[i] |= eof;
}

/* One stream's next piece; false when there is none or no room for it. */
static bool pump_stream(struct podinit *p, struct conn *c, unsigned i)
{
	struct stream *st = &c->s->out[i];
	uint64_t end = MIN(st->ring.head, c->limit[i]);
	const uint8_t *at;
	size_t n;

	if (c->dead || c->eof_sent[i] || out_room(c) < OUT_ROOM)
		return false;
	if (c->sent[i] < st->ring.tail)
		c->sent[i] = st->ring.tail; /* the gap shows in the offset */
	if (c->sent[i] < end) {
		n = MIN(ring_peek(&st->ring, c->sent[i], &at), DATA_MAX);
		put_console(p, c, i, at, MIN(n, (size_t)(end - c->sent[i])), false);
		return true;
	}
	if ((st->eof && c->sent[i] == st->ring.head) || (!c->follow && c->sent[i] >= c->limit[i]))
		put_console(p, c, i, NULL, 0, true);
	return false;
}

static void put_exit(struct podinit *p, struct conn *c)
{
	LINK_ENVELOPE(x, session_exit, SESSION_EXIT, Pm__SessionExit, pm__session_exit__init);
	x.id = c->attach_id;
	x_body.session = c->s->id;
	x_body.code = c->s->code;
	conn_put(p, c, &x);
	c->exit_sent = true;
	if (!c->want_stdin)
		c->s->delivered = true;
}

void conn_pump(struct podinit *p, struct conn *c)
{
	bool more = true;

	if (c->dead)
		return;
	while (more && c->s) {
		more = pump_stream(p, c, 0);
		more |= pump_stream(p, c, 1);
		/* full: make room, or wait for it */
		if (c->out_len - c->out_at > OUT_CAP / 2 || !more)
			conn_flush(p, c);
		if (c->dead)
			return;
	}
	if (c->s && c->owner && c->acked < c->s->in_ring.tail)
		put_ack(p, c, c->s->in_ring.tail);
	if (c->s && c->s->finished && !c->exit_sent && c->eof_sent[0] && c->eof_sent[1] &&
	    out_room(c) >= OUT_ROOM)
		put_exit(p, c);
	conn_flush(p, c);
}

/* ---- requests: 0 = done with, 1 = later (no room), negative = cut the connection */

static int on_attach(struct podinit *p, struct conn *c, const Pm__Envelope *env)
{
	const Pm__AttachReq *q = env->attach_req;
	struct session *s = session_find(p, q->session);

	if (c->s) {
		put_error(p, c, env->id, 13, "this connection is attached already");
		return 0;
	}
	if (!s) {
		put_error(p, c, env->id, 3, "no such session in the pod");
		return 0;
	}
	c->s = s;
	s->consumers++;
	c->attach_id = env->id;
	c->follow = q->follow;
	c->want_stdin = q->want_stdin;
	c->sent[0] = MIN(q->out_offset, s->out[0].ring.head);
	c->sent[1] = MIN(q->err_offset, s->out[1].ring.head);
	for (unsigned i = 0; i < 2; i++)
		c->limit[i] = q->follow ? UINT64_MAX : s->out[i].ring.head;
	put_ok(p, c, env->id);
	if (q->want_stdin) {
		/* the latest one types; what an earlier one still sends is ignored */
		for (size_t i = 0; i < MAX_CONNS; i++)
			if (p->conn[i] && p->conn[i]->s == s)
				p->conn[i]->owner = false;
		c->owner = true;
		s->reserved_since = 0;
		put_ack(p, c, s->in_ring.head);
	}
	return 0;
}

static int on_exec(struct podinit *p, struct conn *c, const Pm__Envelope *env)
{
	const Pm__ExecReq *q = env->exec_req;
	struct session_args a = { .cwd = q->cwd, .tty = q->tty, .stdin_open = q->stdin_open,
				  .rows = q->rows, .cols = q->cols };
	struct session *s0 = session_find(p, 0), *s;
	struct err e = { 0 };
	int code, r;

	if (!q->n_argv || !s0 || s0->exited) {
		put_error(p, c, env->id, s0 && !s0->exited ? 2 : 3,
			  s0 && !s0->exited ? "no command" : "the pod's command has ended");
		return 0;
	}
	a.argv = env_argv(q->argv, q->n_argv);
	a.envp = env_merge(p->spec, q->env, q->n_env);
	r = a.argv && a.envp ? session_start(p, &a, &s, &code, &e) :
			       err_num(&e, ENOMEM, "exec");
	free(a.argv);
	env_free(a.envp);
	if (r < 0) {
		put_error(p, c, env->id, code, e.msg);
		return 0;
	}
	LINK_ENVELOPE(rep, exec_rep, EXEC_REP, Pm__ExecRep, pm__exec_rep__init);
	rep.id = env->id;
	rep_body.session = s->id;
	conn_put(p, c, &rep);
	return 0;
}

static int on_kill(struct podinit *p, struct conn *c, const Pm__Envelope *env)
{
	const Pm__KillReq *q = env->kill_req;
	struct session *s = session_find(p, 0);
	int r;

	if (q->signal == 0 && s && s->finished) {
		p->leave = true; /* the agent has all it wants */
		put_ok(p, c, env->id);
		return 0;
	}
	if (q->all)
		r = kill(-1, q->signal) < 0 ? -errno : 0;
	else
		r = s ? session_signal(s, q->signal) : -ESRCH;
	if (r < 0)
		put_error(p, c, env->id, r == -ESRCH ? 3 : 1, strerror(-r));
	else
		put_ok(p, c, env->id);
	return 0;
}

static int on_console(struct podinit *p, struct conn *c, const Pm__Envelope *env)
{
	const Pm__Console *f = env->console;
	ssize_t n;

	if (!c->s || !c->owner || f->stream != PM__CONSOLE__STREAM__STDIN)
		return 0;
	n = session_stdin(c->s, f->offset, f->data.data, f->data.len);
	if (n < 0) {
		put_error(p, c, env->id, 1, "a gap in stdin");
		return -EPROTO;
	}
	if ((size_t)n < f->data.len)
		return 1;
	if (f->eof)
		c->s->in_eof = true;
	session_pump(p, c->s);
	return 0;
}

static int on_winsize(struct podinit *p, struct conn *c, const Pm__Envelope *env)
{
	struct session *s = session_find(p, env->win_size->session);

	(void)c;
	if (s)
		session_winsize(s, env->win_size->rows, env->win_size->cols);
	return 0;
}

static int on_signal(struct podinit *p, struct conn *c, const Pm__Envelope *env)
{
	struct session *s = session_find(p, env->session_signal->session);

	/* a client that was cut off before our Ok says it again */
	if (s && (!env->id || env->id != s->last_signal_id))
		session_signal(s, env->session_signal->signal);
	if (s && env->id)
		s->last_signal_id = env->id;
	if (env->id)
		put_ok(p, c, env->id);
	return 0;
}

static const struct {
	Pm__Envelope__BodyCase body;
	int (*handle)(struct podinit *, struct conn *, const Pm__Envelope *);
} requests[] = {
	{ PM__ENVELOPE__BODY_ATTACH_REQ, on_attach },
	{ PM__ENVELOPE__BODY_EXEC_REQ, on_exec },
	{ PM__ENVELOPE__BODY_KILL_REQ, on_kill },
	{ PM__ENVELOPE__BODY_CONSOLE, on_console },
	{ PM__ENVELOPE__BODY_WIN_SIZE, on_winsize },
	{ PM__ENVELOPE__BODY_SESSION_SIGNAL, on_signal },
};

static int dispatch(struct podinit *p, struct conn *c, const Pm__Envelope *env)
{
	if (!c->greeted) {
		c->greeted = link_hello_check(env, NULL) == 0;
		return c->greeted ? 0 : -EPROTO;
	}
	for (size_t i = 0; i < ARRAY_SIZE(requests); i++)
		if (requests[i].body == env->body_case)
			return requests[i].handle(p, c, env);
	put_error(p, c, env->id, 1, "podinit does not know this message");
	return 0;
}

/* The frame at the front of the in buffer, if it is whole. */
static int next_frame(struct podinit *p, struct conn *c)
{
	Pm__Envelope *env;
	uint32_t len;
	int r;

	if (c->in_len < LINK_HEADER)
		return 1;
	len = (uint32_t)c->in[0] | (uint32_t)c->in[1] << 8 | (uint32_t)c->in[2] << 16 |
	      (uint32_t)c->in[3] << 24;
	if (len > IN_MAX)
		return -EMSGSIZE;
	if (c->in_len < LINK_HEADER + len) {
		uint8_t *grown;

		if (LINK_HEADER + len <= c->in_cap)
			return 1;
		grown = realloc(c->in, LINK_HEADER + len);
		if (!grown)
			return -ENOMEM;
		c->in = grown;
		c->in_cap = LINK_HEADER + len;
		return 1;
	}
	env = link_unpack(c->in + LINK_HEADER, len, NULL);
	if (!env)
		return -EPROTO;
	r = dispatch(p, c, env);
	link_free(env);
	c->stalled = r == 1;
	if (r)
		return r;
	c->in_len -= LINK_HEADER + len;
	memmove(c->in, c->in + LINK_HEADER + len, c->in_len);
	return 0;
}

void conn_retry(struct podinit *p, struct conn *c)
{
	int r;

	do
		r = c->dead ? 1 : next_frame(p, c);
	while (r == 0);
	if (c->dead)
		return;
	if (r < 0) {
		conn_flush(p, c);
		conn_kill(p, c);
		return;
	}
	watch_set(p, &c->w, c->stalled ? c->w.events & ~(uint32_t)EPOLLIN : c->w.events | EPOLLIN,
		  NULL);
	conn_pump(p, c);
}

void conn_event(struct podinit *p, struct conn *c, uint32_t events)
{
	if (c->dead)
		return;
	if (events & (EPOLLIN | EPOLLHUP | EPOLLERR) && !c->stalled) {
		ssize_t n = recv(c->w.fd, c->in + c->in_len, c->in_cap - c->in_len, 0);

		if (n > 0)
			c->in_len += (size_t)n;
		else if (n == 0 || (errno != EAGAIN && errno != EINTR)) {
			conn_kill(p, c);
			return;
		}
		conn_retry(p, c);
	} else if (events & (EPOLLHUP | EPOLLERR)) {
		conn_kill(p, c);
		return;
	}
	if (events & EPOLLOUT)
		conn_flush(p, c);
	conn_pump(p, c);
}
