/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Connections of the coordinator. Who may connect is a matter of the peer's uid ([agent] users). After
 * hello the first message decides: exec, attach and kill make the connection a console relay, inspect
 * is all that it serves; all else makes it the control channel. There is one control channel; a newer one replaces it.
 */
#include <errno.h>
#include <fcntl.h>
#include <pwd.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

#include "agent/agent.h"
#include "agent/link/unix.h"
#include "pod/base/log.h"
#include "pod/base/util.h"

struct session {
	struct session *next;
	struct agent *agent;
	struct conn *conn;
	bool greeted;
};

static void session_free(struct session *s)
{
	struct agent *a = s->agent;

	for (struct session **at = &a->sessions; *at; at = &(*at)->next)
		if (*at == s) {
			*at = s->next;
			break;
		}
	if (s->conn && a->coord == s->conn) {
		a->coord = NULL;
		log_warn("the coordinator is gone");
		ops_coord_lost(a);
	}
	conn_free(s->conn);
	free(s);
}

static void send_hello(struct session *s)
{
	struct agent *a = s->agent;
	char role[] = "agent", build[] = LINK_BUILD;

	LINK_ENVELOPE(env, hello, HELLO, Pm__Hello, pm__hello__init);
	env_body.version = LINK_VERSION;
	env_body.min_version = LINK_MIN_VERSION;
	env_body.role = role;
	env_body.name = a->conf.agent_name;
	env_body.build = build;
	env_body.state_dir = a->conf.agent_state_dir;
	env_body.boot_id = a->boot_id;
	conn_send(s->conn, &env);
}

static void become_control(struct session *s)
{
	struct agent *a = s->agent;

	for (struct session *o = a->sessions; o; o = o->next)
		if (o->conn == a->coord && o != s) {
			log_info("a newer control channel replaces the old one");
			a->coord = NULL;
			session_free(o);
			break;
		}
	a->coord = s->conn;
}

static const struct conn_ops session_ops;

static void on_message(struct conn *c, const Pm__Envelope *env, void *arg)
{
	struct session *s = arg;
	struct agent *a = s->agent;
	struct err e;

	if (!s->greeted) {
		send_hello(s);
		if (link_hello_check(env, &e) < 0) {
			log_warn("coordinator: %s", e.msg);
			session_free(s);
			return;
		}
		s->greeted = true;
		conn_set(c, HOP_FROM_COORD, &session_ops, s);
		return;
	}
	switch (env->body_case) {
	case PM__ENVELOPE__BODY_EXEC_REQ:
	case PM__ENVELOPE__BODY_ATTACH_REQ:
	case PM__ENVELOPE__BODY_KILL_REQ:
		if (c == a->coord)
			return; /* a console on the control channel: not ours to serve */
		s->conn = NULL;
		session_free(s);
		console_relay(a, c, env);
		return;
	case PM__ENVELOPE__BODY_INSPECT_REQ:
		if (c == a->coord)
			return;
		s->conn = NULL;
		session_free(s);
		agent_look(a, c, env);
		return;
	default:
		if (c != a->coord)
			become_control(s);
		dispatch(a, env);
	}
}

static void on_closed(struct conn *c, const struct err *e, void *arg)
{
	(void)c;
	if (e->code)
		log_warn("coordinator: %s", e->msg);
	session_free(arg);
}

static const struct conn_ops session_ops = { on_message, on_closed, NULL };

/* [agent] users: root is always one, our own user too */
static bool may_connect(struct agent *a, uid_t uid)
{
	char list[1024], *save = NULL;

	if (uid == 0 || uid == geteuid())
		return true;
	snprintf(list, sizeof(list), "%s", a->conf.agent_users);
	for (char *s = strtok_r(list, ", ", &save); s; s = strtok_r(NULL, ", ", &save)) {
		const struct passwd *pw = getpwnam(s);

		if (pw && pw->pw_uid == uid)
			return true;
	}
	return false;
}

static void on_connect(evutil_socket_t fd, short what, void *arg)
{
	struct agent *a = arg;
	struct session *s;
	struct ucred cred;
	int c = accept4(fd, NULL, NULL, SOCK_CLOEXEC);

	(void)what;
	if (c < 0)
		return;
	if (unix_peer(c, &cred, NULL) < 0 || !may_connect(a, cred.uid)) {
		log_warn("uid %u may not be this node's coordinator", cred.uid);
		close(c);
		return;
	}
	s = calloc(1, sizeof(*s));
	if (!s) {
		close(c);
		return;
	}
	s->agent = a;
	s->conn = conn_new(a->base, c, HOP_GREETING, &session_ops, s);
	if (!s->conn) {
		free(s);
		return;
	}
	s->next = a->sessions;
	a->sessions = s;
}

int session_listen(struct agent *a, struct err *e)
{
	struct event *ev;
	/* who may speak is decided by the peer's uid, so the file lets everybody knock */
	int fd = unix_listen(a->conf.agent_socket, 0666, e);

	if (fd < 0)
		return fd;
	ev = event_new(a->base, fd, EV_READ | EV_PERSIST, on_connect, a);
	if (!ev || event_add(ev, NULL) < 0)
		return err_set(e, ENOMEM, "listen");
	return 0;
}

void agent_send(struct agent *a, const Pm__Envelope *env)
{
	if (a->coord)
		conn_send(a->coord, env);
}

void agent_send_ok(struct agent *a, uint32_t id)
{
	LINK_ENVELOPE(env, ok, OK, Pm__Ok, pm__ok__init);
	env.id = id;
	agent_send(a, &env);
}

void agent_send_error(struct agent *a, uint32_t id, int exit_code, const struct err *e,
		      const char *state, const char *hint)
{
	LINK_ENVELOPE(env, error, ERROR, Pm__Error, pm__error__init);
	env.id = id;
	env_body.exit_code = exit_code;
	env_body.cause = (char *)(uintptr_t)e->msg;
	env_body.state = (char *)(uintptr_t)state;
	env_body.hint = (char *)(uintptr_t)hint;
	agent_send(a, &env);
}
