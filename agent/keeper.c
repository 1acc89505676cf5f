/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Keeps a pod's log: attached to session 0 of its podinit from the offset where the log file ends, so
 * nothing is missed and nothing doubled over our own restart. A log file's offsets are the stream's;
 * what is older than LOG_KEEP is punched out of the file. When the command has ended, its exit
 * code is made durable before podinit is told that it may go.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include "agent/agent.h"
#include "agent/link/unix.h"
#include "netfreeze/netfreeze.h"
#include "pod/base/io.h"
#include "pod/base/log.h"
#include "pod/base/util.h"

#define PODINIT_SOCKET "@podmigrate/podinit"
#define LOG_KEEP (64ull << 20)
#define RETRY_MS 100

struct keeper {
	struct pod *pod;
	struct conn *conn;
	struct event *retry;
	bool greeted;
	int fd[3]; /* by stream; [0] is not used */
	uint64_t punched[3];
};

static const char *const log_name[] = { NULL, POD_LOG_OUT, POD_LOG_ERR };

int log_open(const struct pod *p, int stream, int flags, struct err *e)
{
	char path[PATH_MAX];
	int fd;

	snprintf(path, sizeof(path), "%s/%s", p->dir, log_name[stream]);
	fd = open(path, flags | O_CLOEXEC, 0600);
	return fd < 0 ? err_sys(e, "open '%s'", path) : fd;
}

int podinit_connect(const struct pod *p, struct err *e)
{
	autoclose int fd = -1;
	struct sockaddr_un sa;
	socklen_t len;
	int r;

	if (p->netns < 0)
		return err_set(e, ENOENT, "pod '%s' has no process", p->spec->name);
	r = unix_address(PODINIT_SOCKET, &sa, &len, e);
	if (r < 0)
		return r;
	fd = netns_socket(p->netns, AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, e);
	if (fd < 0)
		return err_wrap(e, "pod '%s'", p->spec->name);
	if (connect(fd, (struct sockaddr *)&sa, len) < 0)
		return err_sys(e, "podinit of pod '%s'", p->spec->name);
	return take_fd(&fd);
}

static void later(struct keeper *k)
{
	struct timeval tv = { .tv_usec = RETRY_MS * 1000 };

	conn_free(k->conn);
	k->conn = NULL;
	event_add(k->retry, &tv);
}

static void punch(struct keeper *k, int s, uint64_t end)
{
	uint64_t keep_from = end > LOG_KEEP ? end - LOG_KEEP : 0;

	if (keep_from < k->punched[s] + (LOG_KEEP / 8))
		return;
	fallocate(k->fd[s], FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, (off_t)keep_from);
	k->punched[s] = keep_from;
}

static void on_console(struct keeper *k, const Pm__Console *m)
{
	size_t done = 0;

	if (m->session != 0 || m->stream < 1 || m->stream > 2)
		return;
	while (done < m->data.len) {
		ssize_t n = pwrite(k->fd[m->stream], m->data.data + done, m->data.len - done,
				   (off_t)(m->offset + done));

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0) {
			log_error("log of pod '%s': %s", k->pod->spec->name, strerror(errno));
			return;
		}
		done += (size_t)n;
	}
	punch(k, m->stream, m->offset + m->data.len);
}

static void on_session_exit(struct keeper *k, const Pm__SessionExit *m)
{
	struct pod *p = k->pod;
	struct err e = { 0 };

	if (m->session != 0)
		return;
	for (int s = 1; s <= 2; s++)
		fdatasync(k->fd[s]);
	p->exit_known = true;
	p->exit_code = m->code;
	if (pod_save(p, &e) < 0)
		log_error("pod '%s': %s", p->spec->name, e.msg);
	LINK_ENVELOPE(env, kill_req, KILL_REQ, Pm__KillReq, pm__kill_req__init);
	env_body.pod = p->spec->name;
	conn_send(k->conn, &env);
}

static void attach(struct keeper *k)
{
	struct stat st[3];

	for (int s = 1; s <= 2; s++)
		if (fstat(k->fd[s], &st[s]) < 0)
			st[s].st_size = 0;
	LINK_ENVELOPE(env, attach_req, ATTACH_REQ, Pm__AttachReq, pm__attach_req__init);
	env_body.pod = k->pod->spec->name;
	env_body.out_offset = (uint64_t)st[1].st_size;
	env_body.err_offset = (uint64_t)st[2].st_size;
	env_body.follow = true;
	conn_send(k->conn, &env);
}

static const struct conn_ops keeper_conn_ops;

static void on_message(struct conn *c, const Pm__Envelope *env, void *arg)
{
	struct keeper *k = arg;
	struct err e;

	if (!k->greeted) {
		if (link_hello_check(env, &e) < 0) {
			log_error("podinit of pod '%s': %s", k->pod->spec->name, e.msg);
			later(k);
			return;
		}
		k->greeted = true;
		conn_set(c, HOP_FROM_PODINIT, &keeper_conn_ops, k);
		attach(k);
		return;
	}
	switch (env->body_case) {
	case PM__ENVELOPE__BODY_CONSOLE:
		on_console(k, env->console);
		break;
	case PM__ENVELOPE__BODY_SESSION_EXIT:
		on_session_exit(k, env->session_exit);
		break;
	case PM__ENVELOPE__BODY_ERROR:
		log_warn("podinit of pod '%s': %s", k->pod->spec->name, env->error->cause);
		break;
	default:
		break;
	}
}

static void on_closed(struct conn *c, const struct err *e, void *arg)
{
	(void)c;
	(void)e;
	later(arg);
}

static const struct conn_ops keeper_conn_ops = { on_message, on_closed, NULL };

static void keeper_connect(struct keeper *k)
{
	char role[] = "agent", build[] = LINK_BUILD;
	struct err e;
	int fd = podinit_connect(k->pod, &e);

	if (fd < 0) {
		log_debug("%s", e.msg);
		later(k);
		return;
	}
	k->greeted = false;
	k->conn = conn_new(k->pod->agent->base, fd, HOP_GREETING, &keeper_conn_ops, k);
	if (!k->conn)
		return;
	LINK_ENVELOPE(env, hello, HELLO, Pm__Hello, pm__hello__init);
	env_body.version = LINK_VERSION;
	env_body.min_version = LINK_MIN_VERSION;
	env_body.role = role;
	env_body.build = build;
	conn_send(k->conn, &env);
}

static void on_retry(evutil_socket_t fd, short what, void *arg)
{
	(void)fd;
	(void)what;
	keeper_connect(arg);
}

int keeper_start(struct pod *p, struct err *e)
{
	struct keeper *k;

	if (p->keeper)
		return 0;
	k = calloc(1, sizeof(*k));
	if (!k)
		return err_num(e, ENOMEM, "log of pod '%s'", p->spec->name);
	k->pod = p;
	k->fd[0] = k->fd[1] = k->fd[2] = -1;
	p->keeper = k;
	k->retry = event_new(p->agent->base, -1, 0, on_retry, k);
	for (int s = 1; s <= 2; s++) {
		k->fd[s] = log_open(p, s, O_RDWR | O_CREAT, e);
		if (k->fd[s] < 0 || !k->retry) {
			int r = k->fd[s] < 0 ? k->fd[s] : -ENOMEM;

			keeper_stop(p);
			return r;
		}
	}
	keeper_connect(k);
	return 0;
}

void keeper_stop(struct pod *p)
{
	struct keeper *k = p->keeper;

	if (!k)
		return;
	p->keeper = NULL;
	conn_free(k->conn);
	if (k->retry)
		event_free(k->retry);
	close_fdp(&k->fd[1]);
	close_fdp(&k->fd[2]);
	free(k);
}
