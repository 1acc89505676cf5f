/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * One pod-engine: started with a socket on fd 3, heard until it has exited. It is not tied to our
 * life by a signal: when we die it sees EOF on fd 3 and undoes what it may still undo.
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "agent/agent.h"
#include "pod/base/log.h"
#include "pod/base/prio.h"
#include "pod/base/util.h"

#define LOOK_US 250000

struct worker {
	struct agent *agent;
	pid_t pid;
	int pidfd;
	struct event *ev, *look;
	uint64_t ran_ns; /* at the last look */
	struct conn *conn; /* NULL: it has closed its end */
	bool exited;
	const struct worker_ops *ops; /* NULL: dropped */
	void *arg;
};

static void worker_check(struct worker *w)
{
	if (!w->exited || w->conn)
		return;
	if (w->ops)
		w->ops->gone(w, w->arg);
	event_free(w->ev);
	event_free(w->look);
	close(w->pidfd);
	free(w);
}

static void on_message(struct conn *c, const Pm__Envelope *env, void *arg)
{
	struct worker *w = arg;

	(void)c;
	if (w->ops)
		w->ops->message(w, env, w->arg);
}

static void on_closed(struct conn *c, const struct err *e, void *arg)
{
	struct worker *w = arg;

	if (e->code) /* also when it exits with a word of ours unread */
		log_debug("pod-engine %d: %s", w->pid, e->msg);
	conn_free(c);
	w->conn = NULL;
	worker_check(w);
}

static const struct conn_ops conn_ops = { on_message, on_closed, NULL };

static void on_exit_event(evutil_socket_t fd, short what, void *arg)
{
	struct worker *w = arg;
	int status = 0;

	(void)fd;
	(void)what;
	if (waitpid(w->pid, &status, WNOHANG) == 0)
		return;
	event_del(w->ev);
	event_del(w->look);
	if (WIFSIGNALED(status))
		log_warn("pod-engine %d was killed by signal %d", w->pid, WTERMSIG(status));
	else if (WEXITSTATUS(status) > 1)
		log_warn("pod-engine %d exited with %d", w->pid, WEXITSTATUS(status));
	if (w->conn)
		conn_drain(w->conn); /* a skeleton may hold fd 3 open: no EOF would come */
	w->exited = true;
	worker_check(w);
}

/* While the program runs an engine is an ordinary process: it must get on nevertheless. */
static void on_look(evutil_socket_t fd, short what, void *arg)
{
	struct worker *w = arg;

	(void)fd;
	(void)what;
	if (prio_feed(w->pid, &w->ran_ns))
		log_debug("pod-engine %d: has had no CPU for %d ms", w->pid, LOOK_US / 1000);
}

static pid_t spawn(const char *path, int sock)
{
	char *argv[] = { (char[]){ "pod-engine" }, NULL };
	sigset_t none;
	pid_t pid = fork();

	if (pid)
		return pid;
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	signal(SIGPIPE, SIG_DFL);
	if (sock == 3)
		sock = dup(sock);
	if (dup2(sock, 3) == 3)
		execv(path, argv);
	_exit(127);
}

struct worker *worker_start(struct agent *a, const struct worker_ops *ops, void *arg, struct err *e)
{
	static const struct timeval look = { 0, LOOK_US };
	char path[PATH_MAX + 16];
	struct worker *w = calloc(1, sizeof(*w));
	int sv[2] = { -1, -1 };

	if (!w) {
		err_num(e, ENOMEM, "pod-engine");
		return NULL;
	}
	snprintf(path, sizeof(path), "%s/pod-engine", a->bin_dir);
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sv) < 0) {
		err_sys(e, "socketpair");
		free(w);
		return NULL;
	}
	*w = (struct worker){ .agent = a, .ops = ops, .arg = arg };
	w->pid = spawn(path, sv[1]);
	close(sv[1]);
	if (w->pid < 0) {
		err_sys(e, "start pod-engine");
		close(sv[0]);
		free(w);
		return NULL;
	}
	w->pidfd = (int)syscall(SYS_pidfd_open, w->pid, 0);
	w->ev = event_new(a->base, w->pidfd, EV_READ | EV_PERSIST, on_exit_event, w);
	event_add(w->ev, NULL);
	w->look = event_new(a->base, -1, EV_PERSIST, on_look, w);
	event_add(w->look, &look);
	w->conn = conn_new(a->base, sv[0], HOP_FROM_ENGINE, &conn_ops, w);
	return w;
}

int worker_send(struct worker *w, const Pm__Envelope *env)
{
	return w->conn ? conn_send(w->conn, env) : -EPIPE;
}

void worker_drop(struct worker *w)
{
	if (!w)
		return;
	w->ops = NULL;
	conn_free(w->conn);
	w->conn = NULL;
	worker_check(w);
}

pid_t worker_pid(const struct worker *w)
{
	return w->pid;
}

void worker_kill(struct worker *w)
{
	if (!w->exited)
		syscall(SYS_pidfd_send_signal, w->pidfd, SIGKILL, NULL, 0);
}
