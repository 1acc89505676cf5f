/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * The client's end of a session's console.
 *
 * The other end is podinit, with a ring per stream; between them are two relays which may vanish at
 * any time: a move takes the pod away under them, a daemon is restarted. So both directions count
 * bytes. Out: we know how far we have printed, and ask for the rest when we attach again. In: what
 * podinit has not acknowledged stays in a window here (WINDOW, half of podinit's buffer, so that a
 * frame of ours always fits and a signal behind it is never held up), and is sent again from where
 * podinit says it is; it drops what it knows.
 *
 *	ATTACHING --Console, ConsoleAck or Ok--> ATTACHED --EOF--> ATTACHING (with a pause) ...
 *
 * Stdin is not read before the first ConsoleAck: it says at which offset the session's stdin stands.
 * While stdout is blocked nothing more is read from the connection, so a slow reader slows the
 * command down, as a pipe would; signals are still taken.
 */
#include "coordinator/cmd/console.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <termios.h>

#include "pod/base/io.h"
#include "pod/base/util.h"

#define WINDOW (64u << 10)
#define FROM_NOW UINT64_MAX /* as an offset: the end, wherever it is */
#define SIGNALS_KEPT 16
#define ATTACH_ID 2u
#define SEND_MS 30000
#define RETRY_MS 20
#define RETRY_MAX_MS 500
/* A pod that nobody knows for so long is gone; one that cannot be reached may come back. */
#define GONE_MS 5000
#define PATIENCE_MS 600000
#define MURMUR_MS 5000 /* after that the user is told that we wait */

struct console {
	const struct ctx *ctx;
	const struct console_args *a;
	int fd, signals;
	uint64_t seen[2]; /* output printed, of stdout and stderr */
	bool ended[2], mute[2];
	struct {
		uint8_t *data; /* a frame's bytes that are on their way to our stdout */
		size_t at, len;
		int fd;
	} out;
	uint8_t in[WINDOW];
	uint64_t in_acked; /* offset of in[0] */
	size_t in_len, in_sent;
	bool in_known, in_resync, in_eof, in_eof_sent;
	struct {
		uint32_t id; /* 0: free */
		int sig;
	} unheard[SIGNALS_KEPT]; /* signals that podinit has not confirmed */
	uint32_t next_id;
	bool heard, ever; /* by podinit on this connection; on any */
	unsigned escape; /* how much of "\r~." was typed */
	bool done;
	int code;
};

static struct termios saved;
static bool raw;

static void tty_restore(void)
{
	if (raw)
		tcsetattr(0, TCSADRAIN, &saved);
	raw = false;
}

static void tty_raw(void)
{
	struct termios t;

	if (tcgetattr(0, &saved) < 0)
		return;
	t = saved;
	cfmakeraw(&t);
	if (tcsetattr(0, TCSADRAIN, &t) < 0)
		return;
	raw = true;
	atexit(tty_restore);
}

void console_size(uint32_t *rows, uint32_t *cols)
{
	struct winsize ws;

	*rows = *cols = 0;
	if (ioctl(0, TIOCGWINSZ, &ws) == 0 || ioctl(1, TIOCGWINSZ, &ws) == 0) {
		*rows = ws.ws_row;
		*cols = ws.ws_col;
	}
}

static void lost(struct console *c)
{
	close_fdp(&c->fd);
	c->heard = false;
}

static void put(struct console *c, const Pm__Envelope *env)
{
	if (c->fd >= 0 && link_send(c->fd, env, deadline_ms(SEND_MS), NULL) < 0)
		lost(c);
}

static void put_winsize(struct console *c)
{
	LINK_ENVELOPE(w, win_size, WIN_SIZE, Pm__WinSize, pm__win_size__init);
	w_body.session = c->a->session;
	console_size(&w_body.rows, &w_body.cols);
	if (c->a->tty && w_body.rows)
		put(c, &w);
}

static void send_signal(struct console *c, size_t i)
{
	LINK_ENVELOPE(s, session_signal, SESSION_SIGNAL, Pm__SessionSignal,
		      pm__session_signal__init);
	s.id = c->unheard[i].id;
	s_body.session = c->a->session;
	s_body.signal = c->unheard[i].sig;
	put(c, &s);
}

/* Kept until podinit confirms it; sent again on the next connection, where its id tells a repeat. */
static void put_signal(struct console *c, int sig)
{
	for (size_t i = 0; i < SIGNALS_KEPT; i++) {
		if (c->unheard[i].id)
			continue;
		c->unheard[i].id = c->next_id;
		c->unheard[i].sig = sig;
		c->next_id = c->next_id + 1 ? c->next_id + 1 : 3;
		if (c->heard)
			send_signal(c, i);
		return;
	}
}

static void signal_confirmed(struct console *c, uint32_t id)
{
	for (size_t i = 0; i < SIGNALS_KEPT; i++)
		if (c->unheard[i].id == id)
			c->unheard[i].id = 0;
}

/* The first word on a connection: what may have been lost with the last one. */
static void connected(struct console *c)
{
	c->heard = c->ever = true;
	put_winsize(c);
	for (size_t i = 0; i < SIGNALS_KEPT; i++)
		if (c->unheard[i].id)
			send_signal(c, i);
}

static void put_attach(struct console *c)
{
	LINK_ENVELOPE(q, attach_req, ATTACH_REQ, Pm__AttachReq, pm__attach_req__init);
	q.id = ATTACH_ID;
	q_body.pod = (char *)(uintptr_t)c->a->pod;
	q_body.session = c->a->session;
	q_body.out_offset = c->seen[0];
	q_body.err_offset = c->seen[1];
	q_body.follow = c->a->follow;
	q_body.want_stdin = c->a->want_stdin;
	q_body.in_offset = c->in_acked;
	c->heard = false;
	c->in_resync = true;
	put(c, &q);
}

/* ---- stdin */

static void put_stdin(struct console *c)
{
	while (c->fd >= 0 && c->in_known && !c->in_resync &&
	       (c->in_sent < c->in_len || (c->in_eof && !c->in_eof_sent))) {
		size_t n = MIN(c->in_len - c->in_sent, 32u << 10);

		LINK_ENVELOPE(f, console, CONSOLE, Pm__Console, pm__console__init);
		f_body.session = c->a->session;
		f_body.stream = PM__CONSOLE__STREAM__STDIN;
		f_body.offset = c->in_acked + c->in_sent;
		f_body.data.data = c->in + c->in_sent;
		f_body.data.len = n;
		f_body.eof = c->in_eof && c->in_sent + n == c->in_len;
		put(c, &f);
		c->in_sent += n;
		c->in_eof_sent = f_body.eof;
	}
}

/* The session's stdin stands at @offset: what is before it need not be kept. */
static void got_ack(struct console *c, uint64_t offset)
{
	size_t n;

	if (!c->in_known)
		c->in_acked = offset;
	c->in_known = true;
	n = offset > c->in_acked ? (size_t)MIN(offset - c->in_acked, c->in_len) : 0;
	memmove(c->in, c->in + n, c->in_len - n);
	c->in_len -= n;
	c->in_acked += n;
	c->in_sent -= MIN(n, c->in_sent);
	if (c->in_resync) {
		/* a new connection: all that is left goes again */
		if (!c->in_len && offset > c->in_acked)
			c->in_acked = offset; /* somebody else typed meanwhile */
		c->in_sent = 0;
		c->in_eof_sent = c->in_resync = false;
	}
	put_stdin(c);
}

/* "Enter ~ ." leaves; one that is not completed goes to the command with the rest. */
static bool escape_typed(struct console *c, const uint8_t *p, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		if (c->escape == 2 && p[i] == '.')
			return true;
		if (p[i] == '\r' || p[i] == '\n')
			c->escape = 1;
		else
			c->escape = c->escape == 1 && p[i] == '~' ? 2 : 0;
	}
	return false;
}

static void read_stdin(struct console *c)
{
	ssize_t n = read(0, c->in + c->in_len, WINDOW - c->in_len);

	if (n < 0 && (errno == EINTR || errno == EAGAIN))
		return;
	if (n <= 0) {
		c->in_eof = true; /* EIO: the terminal is gone */
	} else if (c->a->tty && escape_typed(c, c->in + c->in_len, (size_t)n)) {
		c->done = true;
		c->code = 0;
		tty_restore();
		fprintf(stderr, "\n%s: left; the pod runs on, see podctl attach %s\n", c->ctx->prog,
			c->a->pod);
		return;
	} else {
		c->in_len += (size_t)n;
	}
	put_stdin(c);
}

/* ---- output */

static void got_output(struct console *c, const Pm__Console *f)
{
	unsigned i = f->stream == PM__CONSOLE__STREAM__STDERR;
	uint64_t skip;

	if (f->stream == PM__CONSOLE__STREAM__STDIN)
		return;
	if (c->seen[i] == FROM_NOW)
		c->seen[i] = f->offset;
	if (f->offset > c->seen[i] && f->data.len) {
		fprintf(stderr, "%s: %llu bytes of output are no longer kept%s", c->ctx->prog,
			(unsigned long long)(f->offset - c->seen[i]), raw ? "\r\n" : "\n");
		c->seen[i] = f->offset;
	}
	skip = f->offset < c->seen[i] ? MIN(c->seen[i] - f->offset, f->data.len) : 0;
	if (f->eof)
		c->ended[i] = true;
	if (f->data.len == skip)
		return;
	c->seen[i] = f->offset + f->data.len;
	if (c->mute[i])
		return;
	c->out.len = f->data.len - skip;
	c->out.at = 0;
	c->out.fd = i ? 2 : 1;
	c->out.data = malloc(c->out.len);
	if (!c->out.data) {
		c->out.len = 0;
		return;
	}
	memcpy(c->out.data, f->data.data + skip, c->out.len);
}

/* Our fd is writable. A pipe takes at least PIPE_BUF then; more might block. */
static void write_out(struct console *c)
{
	struct stat st;
	size_t n = c->out.len - c->out.at;
	ssize_t w;

	if (fstat(c->out.fd, &st) < 0 || !S_ISREG(st.st_mode))
		n = MIN(n, (size_t)PIPE_BUF);
	w = write(c->out.fd, c->out.data + c->out.at, n);
	if (w > 0) {
		c->out.at += (size_t)w;
	} else if (w < 0 && errno != EINTR && errno != EAGAIN) {
		/* nobody reads us: the command learns it as it would without us between */
		if (errno == EPIPE && !c->mute[c->out.fd == 2] && c->a->want_stdin)
			put_signal(c, SIGPIPE);
		c->mute[c->out.fd == 2] = true;
		c->out.at = c->out.len;
		if (!c->a->want_stdin)
			c->done = true; /* logs | head */
	}
	if (c->out.at == c->out.len) {
		free(c->out.data);
		c->out.data = NULL;
		c->out.at = c->out.len = 0;
	}
}

/* ---- the connection */

/* 0: go on; 1: worth trying again; else done. */
static int got_error(struct console *c, const Pm__Error *e)
{
	if (!e->final && (e->exit_code == EXIT_BUSY || e->exit_code == EXIT_UNREACHABLE ||
			  (e->exit_code == EXIT_NOTFOUND &&
			   (c->ever || c->seen[0] || c->seen[1] || c->in_known))))
		return 1;
	tty_restore();
	c->code = say_error(c->ctx, c->a->pod, e);
	c->done = true;
	return 0;
}

static int got_frame(struct console *c, const Pm__Envelope *env)
{
	switch (env->body_case) {
	case PM__ENVELOPE__BODY_OK:
		if (env->id != ATTACH_ID)
			signal_confirmed(c, env->id);
		break;
	case PM__ENVELOPE__BODY_CONSOLE:
		got_output(c, env->console);
		break;
	case PM__ENVELOPE__BODY_CONSOLE_ACK:
		got_ack(c, env->console_ack->in_offset);
		break;
	case PM__ENVELOPE__BODY_SESSION_EXIT:
		c->code = c->a->logs ? EXIT_OK : env->session_exit->code;
		c->done = true;
		break;
	case PM__ENVELOPE__BODY_ERROR:
		return got_error(c, env->error);
	default:
		return 0;
	}
	/* the agent's log may speak first; podinit's Ok is the sign that it listens */
	if (!c->heard && env->body_case == PM__ENVELOPE__BODY_OK)
		connected(c);
	if (!c->a->follow && c->ended[0] && c->ended[1])
		c->done = true;
	return 0;
}

static void read_frame(struct console *c, int *retry_reason)
{
	Pm__Envelope *env = NULL;
	struct err e = { 0 };

	if (link_recv(c->fd, &env, deadline_ms(SEND_MS), &e) < 0) {
		lost(c);
		return;
	}
	if (got_frame(c, env)) {
		*retry_reason = env->error->exit_code;
		lost(c);
	}
	link_free(env);
}

static void read_signals(struct console *c)
{
	struct signalfd_siginfo si;

	while (read(c->signals, &si, sizeof(si)) == (ssize_t)sizeof(si)) {
		if (si.ssi_signo == SIGWINCH) {
			put_winsize(c);
		} else if (c->a->want_stdin) {
			put_signal(c, (int)si.ssi_signo);
		} else {
			c->done = true; /* only looking */
			c->code = 128 + (int)si.ssi_signo;
		}
	}
}

static void pump(struct console *c, int timeout, int *retry_reason)
{
	bool writing = c->out.len > 0;
	bool want_in = c->a->want_stdin && c->in_known && !c->in_eof && c->in_len < WINDOW;
	struct pollfd p[] = {
		{ .fd = c->signals, .events = POLLIN },
		{ .fd = writing ? -1 : c->fd, .events = POLLIN },
		{ .fd = want_in ? 0 : -1, .events = POLLIN },
		{ .fd = writing ? c->out.fd : -1, .events = POLLOUT },
	};

	if (poll(p, ARRAY_SIZE(p), timeout) <= 0)
		return;
	if (p[0].revents)
		read_signals(c);
	if (p[3].revents)
		write_out(c);
	if (p[2].revents && !c->done)
		read_stdin(c);
	/* what was sent meanwhile may have found the connection broken */
	if (p[1].revents && c->fd >= 0 && !c->done)
		read_frame(c, retry_reason);
}

/* Attaches again, with pauses, until it holds or patience ends. */
static void reattach(struct console *c, int reason)
{
	uint64_t start = now_ns(), pause = RETRY_MS;
	bool told = false;
	struct err e = { 0 };

	while (!c->done) {
		uint64_t waited = (now_ns() - start) / NSEC_PER_MSEC;
		uint64_t until = deadline_look_ms(pause);

		if (waited > (reason == EXIT_NOTFOUND ? GONE_MS : PATIENCE_MS)) {
			tty_restore();
			c->code = say(c->ctx,
				      reason == EXIT_NOTFOUND ? EXIT_NOTFOUND : EXIT_UNREACHABLE,
				      "lost pod '%s'; its state is not known", c->a->pod);
			fprintf(stderr, "hint: see podps -a and podctl nodes\n");
			c->done = true;
			return;
		}
		if (waited > MURMUR_MS && !told) {
			fprintf(stderr, "%s: waiting for pod '%s' to be reachable again%s",
				c->ctx->prog, c->a->pod, raw ? "\r\n" : "\n");
			told = true;
		}
		while (!c->done && deadline_left_ms(until))
			pump(c, deadline_left_ms(until), &reason);
		pause = MIN(pause * 2, (uint64_t)RETRY_MAX_MS);
		if (c->done)
			return;
		c->fd = client_try(c->ctx, &e);
		if (c->fd < 0) {
			reason = EXIT_UNREACHABLE;
			continue;
		}
		reason = EXIT_UNREACHABLE;
		put_attach(c);
		until = deadline_ms(SEND_MS);
		while (c->fd >= 0 && !c->heard && !c->done && deadline_left_ms(until))
			pump(c, deadline_left_ms(until), &reason);
		if (c->fd >= 0 && c->heard)
			return;
		close_fdp(&c->fd);
	}
}

static int open_signals(const struct console_args *a)
{
	static const int taken[] = { SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGUSR1, SIGUSR2 };
	sigset_t set;

	sigemptyset(&set);
	if (a->tty)
		sigaddset(&set, SIGWINCH);
	for (size_t i = 0; i < ARRAY_SIZE(taken); i++)
		sigaddset(&set, taken[i]);
	sigprocmask(SIG_BLOCK, &set, NULL);
	signal(SIGPIPE, SIG_IGN);
	return signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
}

int console_run(const struct ctx *ctx, const struct console_args *a, int fd)
{
	static struct console c;
	int reason = EXIT_UNREACHABLE;

	memset(&c, 0, sizeof(c));
	c.ctx = ctx;
	c.a = a;
	c.fd = fd;
	c.code = EXIT_OK;
	c.ever = a->own;
	c.next_id = (uint32_t)getpid() << 12 | 0x800; /* unlikely to be another client's */
	for (int i = 0; i < 2; i++)
		c.seen[i] = a->from_now ? FROM_NOW : 0;
	c.signals = open_signals(a);
	if (c.signals < 0)
		return say(ctx, EXIT_OTHER, "signalfd: %s", strerror(errno));
	if (a->tty)
		tty_raw();
	put_attach(&c);
	while (!c.done) {
		if (c.fd < 0)
			reattach(&c, reason);
		if (!c.done)
			pump(&c, -1, &reason);
	}
	while (c.out.len && !c.mute[c.out.fd == 2])
		pump(&c, -1, &reason);
	tty_restore();
	close_fdp(&c.fd);
	close_fdp(&c.signals);
	return c.code;
}
