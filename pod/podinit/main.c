/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * podinit: pid 1 of a pod.
 *
 * It is started from a memfd, gets the PodSpec on POD_NS_CHILD_FD, gives up root if the pod is not
 * root's, starts the pod's command and answers there. After that it is one epoll loop: the control
 * socket (conn.c), the commands' streams (session.c), and the signals of a pid 1.
 *
 * It is moved like everything else in the pod, so it holds only plain things: an epoll, a signalfd,
 * pipes or ptys, a listening socket with an abstract name. No timer, no thread. Its connections do
 * not move; they read as closed after one.
 *
 * When the command has ended everything else in the pod is killed, and podinit stays until the
 * output and the exit code have been fetched: until the agent says so (KillReq with signal 0), or a
 * log keeper has been told the exit and everybody has hung up. Its own exit status is the command's.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>

#include "agent/link/frame.h"
#include "pod/base/io.h"
#include "pod/base/util.h"
#include "pod/ns.h"
#include "pod/podinit/env.h"
#include "pod/podinit/podinit.h"

#define SOCKET_NAME "podmigrate/podinit"
#define START_MS 60000
#define EVENTS 32

static const int forwarded[] = { SIGTERM, SIGINT, SIGHUP, SIGQUIT, SIGUSR1, SIGUSR2 };

/* No events: out of the set, for a hang-up is reported to whoever is in it, wanted or not. */
int watch_set(struct podinit *p, struct watch *w, uint32_t events, struct err *e)
{
	struct epoll_event ev = { .events = events, .data.ptr = w };
	int op = !events ? EPOLL_CTL_DEL : w->events ? EPOLL_CTL_MOD : EPOLL_CTL_ADD;

	if (w->fd < 0 || w->events == events)
		return 0;
	if (epoll_ctl(p->epoll, op, w->fd, &ev) < 0)
		return err_sys(e, "epoll_ctl");
	w->events = events;
	return 0;
}

void watch_close(struct podinit *p, struct watch *w)
{
	if (w->fd < 0)
		return;
	/* by hand: a fork's copy of the fd would keep it in the set */
	watch_set(p, w, 0, NULL);
	close_fdp(&w->fd);
}

static int listen_control(struct podinit *p, struct err *e)
{
	struct sockaddr_un un = { .sun_family = AF_UNIX };
	socklen_t len = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + strlen(SOCKET_NAME));
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	if (fd < 0)
		return err_sys(e, "socket");
	memcpy(un.sun_path + 1, SOCKET_NAME, strlen(SOCKET_NAME));
	p->listener = (struct watch){ .kind = WATCH_LISTEN, .fd = fd };
	if (bind(fd, (struct sockaddr *)&un, len) < 0 || listen(fd, 64) < 0)
		return err_sys(e, "control socket");
	return watch_set(p, &p->listener, EPOLLIN, e);
}

static int take_signals(struct podinit *p, struct err *e)
{
	sigset_t set;
	int fd;

	sigemptyset(&set);
	sigaddset(&set, SIGCHLD);
	for (size_t i = 0; i < ARRAY_SIZE(forwarded); i++)
		sigaddset(&set, forwarded[i]);
	signal(SIGPIPE, SIG_IGN);
	if (sigprocmask(SIG_BLOCK, &set, NULL) < 0)
		return err_sys(e, "sigprocmask");
	fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	if (fd < 0)
		return err_sys(e, "signalfd");
	p->signals = (struct watch){ .kind = WATCH_SIGNAL, .fd = fd };
	return watch_set(p, &p->signals, EPOLLIN, e);
}

static void reap(struct podinit *p)
{
	for (;;) {
		int status;
		pid_t pid = waitpid(-1, &status, WNOHANG);

		if (pid < 0 && errno == EINTR)
			continue;
		p->childless = pid < 0 && errno == ECHILD;
		if (pid <= 0)
			return;
		for (size_t i = 0; i < MAX_SESSIONS; i++) {
			struct session *s = p->session[i];

			if (s && s->pid == pid && !s->exited)
				session_exited(p, s,
					       WIFEXITED(status) ? WEXITSTATUS(status) :
								   128 + WTERMSIG(status));
		}
	}
}

static void on_signals(struct podinit *p)
{
	struct signalfd_siginfo si;

	while (read(p->signals.fd, &si, sizeof(si)) == (ssize_t)sizeof(si)) {
		struct session *s = session_find(p, 0);

		if (si.ssi_signo != SIGCHLD && s)
			session_signal(s, (int)si.ssi_signo);
	}
	reap(p);
}

static void on_event(struct podinit *p, const struct epoll_event *ev)
{
	struct watch *w = ev->data.ptr;

	switch (w->kind) {
	case WATCH_LISTEN:
		conn_accept(p);
		break;
	case WATCH_SIGNAL:
		on_signals(p);
		break;
	case WATCH_CONN:
		conn_event(p, w->owner, ev->events);
		break;
	case WATCH_IN:
	case WATCH_OUT:
	case WATCH_ERR:
		break; /* settle() looks at every session */
	}
}

/* Over, told to somebody or old, and with nobody attached: only the latest few are kept. */
static void forget_sessions(struct podinit *p)
{
	struct session *oldest;

	for (;;) {
		unsigned n = 0;

		oldest = NULL;
		for (size_t i = 0; i < MAX_SESSIONS; i++) {
			struct session *s = p->session[i];

			if (!s || !s->finished || s->id == 0 || s->consumers)
				continue;
			n++;
			if (!oldest || s->id < oldest->id)
				oldest = s;
		}
		if (n <= KEEP_SESSIONS)
			return;
		session_free(p, oldest);
	}
}

/*
 * After a batch of events: moves what can move, one round, then drops what is over. What a round
 * moved may make room for more (p->busy): the loop then comes back without sleeping, so a stream
 * that was held back, and is out of the epoll set, is looked at again.
 */
static void settle(struct podinit *p)
{
	p->busy = false;
	for (size_t i = 0; i < MAX_SESSIONS; i++)
		if (p->session[i])
			session_pump(p, p->session[i]);
	for (size_t i = 0; i < MAX_CONNS; i++) {
		struct conn *c = p->conn[i];

		if (c && c->stalled)
			conn_retry(p, c);
		else if (c)
			conn_pump(p, c);
	}
	for (size_t i = 0; i < MAX_CONNS; i++)
		if (p->conn[i] && p->conn[i]->dead)
			conn_free(p, p->conn[i]);
	forget_sessions(p);
}

/* How long the loop may sleep: for ever, unless output waits for a consumer. */
static int patience_ms(const struct podinit *p)
{
	uint64_t until = IO_FOREVER;

	for (size_t i = 0; i < MAX_SESSIONS; i++)
		if (p->session[i])
			until = MIN(until, session_patience(p->session[i]));
	return deadline_left_ms(until);
}

static bool may_leave(struct podinit *p)
{
	struct session *s = session_find(p, 0);

	if (p->leave)
		return true;
	if (!s->finished || !s->delivered)
		return false;
	for (size_t i = 0; i < MAX_CONNS; i++)
		if (p->conn[i])
			return false;
	return true;
}

static int loop(struct podinit *p)
{
	struct epoll_event ev[EVENTS];

	for (;;) {
		int n = epoll_wait(p->epoll, ev, EVENTS, p->busy ? 0 : patience_ms(p));

		for (int i = 0; i < n; i++)
			on_event(p, &ev[i]);
		settle(p);
		if (may_leave(p))
			return session_find(p, 0)->code;
	}
}

static int start(struct podinit *p, int *code, struct err *e)
{
	const Pm__PodSpec *spec = p->spec;
	struct session_args a = { .cwd = spec->cwd, .tty = spec->tty, .rows = spec->rows,
				  .cols = spec->cols, .stdin_open = spec->stdin_open };
	struct session *s;
	int r;

	*code = 125;
	r = pod_ns_drop(spec, e);
	if (r < 0)
		return r;
	p->epoll = epoll_create1(EPOLL_CLOEXEC);
	if (p->epoll < 0)
		return err_sys(e, "epoll_create1");
	r = take_signals(p, e);
	if (r == 0)
		r = listen_control(p, e);
	if (r < 0)
		return r;
	if (!spec->n_argv)
		return err_set(e, EINVAL, "no command");
	a.argv = env_argv(spec->argv, spec->n_argv);
	a.envp = env_merge(spec, NULL, 0);
	r = a.argv && a.envp ? session_start(p, &a, &s, code, e) : err_num(e, ENOMEM, "start");
	free(a.argv);
	env_free(a.envp);
	return r;
}

static void answer(int r, int code, struct err *e)
{
	if (r == 0) {
		LINK_ENVELOPE(rep, ok, OK, Pm__Ok, pm__ok__init);
		link_send(POD_NS_CHILD_FD, &rep, deadline_ms(START_MS), NULL);
	} else {
		LINK_ENVELOPE(rep, error, ERROR, Pm__Error, pm__error__init);
		rep_body.exit_code = code;
		rep_body.cause = e->msg;
		link_send(POD_NS_CHILD_FD, &rep, deadline_ms(START_MS), NULL);
	}
	close(POD_NS_CHILD_FD);
}

int main(void)
{
	static struct podinit p;
	Pm__Envelope *env = NULL;
	struct err e = { 0 };
	int r, code = 125;

	prctl(PR_SET_NAME, "podinit");
	fcntl(POD_NS_CHILD_FD, F_SETFD, FD_CLOEXEC);
	r = link_recv(POD_NS_CHILD_FD, &env, deadline_ms(START_MS), &e);
	if (r == 0 && env->body_case != PM__ENVELOPE__BODY_AGENT_RUN)
		r = err_set(&e, EPROTO, "podinit: expected a pod's description");
	if (r == 0 && !env->agent_run->spec)
		r = err_set(&e, EPROTO, "podinit: a pod without a description");
	if (r == 0) {
		p.spec = env->agent_run->spec;
		r = start(&p, &code, &e);
	}
	answer(r, code, &e);
	return r < 0 ? code : loop(&p);
}
