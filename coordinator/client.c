/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Clients. Who one is says the kernel (SO_PEERCRED), what one may ask says the table. A connection
 * serves any number of requests, answered by id, until exec, attach or kill makes it a relay.
 */
#include <errno.h>
#include <pwd.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

#include "agent/link/unix.h"
#include "coordinator/coord.h"
#include "pod/base/log.h"
#include "pod/base/util.h"

static void client_unlink(struct client *cl)
{
	for (struct client **at = &cl->coord->clients; *at; at = &(*at)->next)
		if (*at == cl) {
			*at = cl->next;
			return;
		}
}

struct conn *client_take_conn(struct client *cl)
{
	struct conn *conn = cl->conn;

	client_unlink(cl);
	free(cl);
	return conn;
}

struct client *client_by_serial(struct coord *c, uint64_t serial)
{
	for (struct client *cl = c->clients; cl; cl = cl->next)
		if (cl->serial == serial)
			return cl;
	return NULL;
}

void client_send(struct client *cl, uint32_t id, Pm__Envelope *env)
{
	env->id = id;
	conn_send(cl->conn, env);
}

void client_error(struct client *cl, uint32_t id, int exit_code, const char *phase,
		  const char *state, const char *hint, const char *fmt, ...)
{
	char cause[512];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(cause, sizeof(cause), fmt, ap);
	va_end(ap);
	LINK_ENVELOPE(env, error, ERROR, Pm__Error, pm__error__init);
	env_body.exit_code = exit_code;
	env_body.phase = (char *)(uintptr_t)phase;
	env_body.cause = cause;
	env_body.state = (char *)(uintptr_t)state;
	env_body.hint = (char *)(uintptr_t)hint;
	client_send(cl, id, &env);
}

static void do_nodes(struct client *cl, const Pm__Envelope *env)
{
	nodes_list(cl->coord, cl, env->id);
}

static void do_cordon(struct client *cl, const Pm__Envelope *env)
{
	cordon_request(cl, env->id, env->cordon_req);
}

static void do_pods(struct client *cl, const Pm__Envelope *env)
{
	pods_list(cl->coord, cl, env->id, env->pods_req);
}

static void do_run(struct client *cl, const Pm__Envelope *env)
{
	run_request(cl, env->id, env->run_req);
}

static void do_migrate(struct client *cl, const Pm__Envelope *env)
{
	migrate_request(cl, env->id, env->migrate_req);
}

static void do_checkpoint(struct client *cl, const Pm__Envelope *env)
{
	checkpoint_request(cl, env->id, env->checkpoint_req);
}

static void do_restore(struct client *cl, const Pm__Envelope *env)
{
	restore_request(cl, env->id, env->restore_req);
}

static void do_restore_job(struct client *cl, const Pm__Envelope *env)
{
	restore_job_request(cl, env->id, env->restore_job_req);
}

static void do_abort(struct client *cl, const Pm__Envelope *env)
{
	abort_request(cl, env->id, env->op_abort_req);
}

static void do_ops(struct client *cl, const Pm__Envelope *env)
{
	ops_request(cl, env->id, env->ops_req);
}

static void do_recover(struct client *cl, const Pm__Envelope *env)
{
	recover_request(cl, env->id, env->recover_req);
}

static void do_check_node(struct client *cl, const Pm__Envelope *env)
{
	node_check(cl, env->id, env->check_node_req);
}

static const struct {
	Pm__Envelope__BodyCase body;
	void (*handle)(struct client *cl, const Pm__Envelope *env);
} table[] = {
	{ PM__ENVELOPE__BODY_NODES_REQ, do_nodes },
	{ PM__ENVELOPE__BODY_CORDON_REQ, do_cordon },
	{ PM__ENVELOPE__BODY_PODS_REQ, do_pods },
	{ PM__ENVELOPE__BODY_RUN_REQ, do_run },
	{ PM__ENVELOPE__BODY_MIGRATE_REQ, do_migrate },
	{ PM__ENVELOPE__BODY_CHECKPOINT_REQ, do_checkpoint },
	{ PM__ENVELOPE__BODY_RESTORE_REQ, do_restore },
	{ PM__ENVELOPE__BODY_RESTORE_JOB_REQ, do_restore_job },
	{ PM__ENVELOPE__BODY_OP_ABORT_REQ, do_abort },
	{ PM__ENVELOPE__BODY_OPS_REQ, do_ops },
	{ PM__ENVELOPE__BODY_RECOVER_REQ, do_recover },
	{ PM__ENVELOPE__BODY_CHECK_NODE_REQ, do_check_node },
	{ PM__ENVELOPE__BODY_EXEC_REQ, relay_request },
	{ PM__ENVELOPE__BODY_ATTACH_REQ, relay_request },
	{ PM__ENVELOPE__BODY_KILL_REQ, relay_request },
	{ PM__ENVELOPE__BODY_INSPECT_REQ, relay_request },
};

static void send_hello(struct client *cl)
{
	char role[] = "coordinator", build[] = LINK_BUILD;

	LINK_ENVELOPE(env, hello, HELLO, Pm__Hello, pm__hello__init);
	env_body.version = LINK_VERSION;
	env_body.min_version = LINK_MIN_VERSION;
	env_body.role = role;
	env_body.build = build;
	client_send(cl, 0, &env);
}

static const struct conn_ops client_ops;

static void client_gone(struct client *cl)
{
	ops_client_gone(cl);
	conn_finish(client_take_conn(cl));
}

static void on_message(struct conn *c, const Pm__Envelope *env, void *arg)
{
	struct client *cl = arg;
	struct err e;

	if (!cl->greeted) {
		send_hello(cl);
		if (link_hello_check(env, &e) < 0) {
			client_error(cl, 0, EX_OTHER, "", "", "", "%s", e.msg);
			client_gone(cl);
			return;
		}
		cl->greeted = true;
		conn_set(c, HOP_FROM_CLIENT, &client_ops, cl);
		return;
	}
	for (size_t i = 0; i < ARRAY_SIZE(table); i++)
		if (table[i].body == env->body_case) {
			table[i].handle(cl, env);
			return;
		}
}

static void on_closed(struct conn *c, const struct err *e, void *arg)
{
	(void)c;
	if (e->code)
		log_debug("client: %s", e->msg);
	client_gone(arg);
}

static const struct conn_ops client_ops = { on_message, on_closed, NULL };

static void on_connect(evutil_socket_t fd, short what, void *arg)
{
	struct coord *c = arg;
	const struct passwd *pw;
	struct client *cl;
	struct ucred cred;
	int s = accept4(fd, NULL, NULL, SOCK_CLOEXEC);

	(void)what;
	if (s < 0)
		return;
	cl = calloc(1, sizeof(*cl));
	if (!cl || unix_peer(s, &cred, NULL) < 0) {
		free(cl);
		close(s);
		return;
	}
	cl->coord = c;
	cl->serial = ++c->next_serial;
	cl->uid = cred.uid;
	cl->gid = cred.gid;
	pw = getpwuid(cred.uid);
	if (pw)
		snprintf(cl->user, sizeof(cl->user), "%s", pw->pw_name);
	else
		snprintf(cl->user, sizeof(cl->user), "%u", cred.uid);
	cl->conn = conn_new(c->base, s, HOP_GREETING, &client_ops, cl);
	if (!cl->conn) {
		free(cl);
		return;
	}
	cl->next = c->clients;
	c->clients = cl;
}

int clients_listen(struct coord *c, struct err *e)
{
	struct event *ev;
	/* everybody may knock; the kernel tells us who it is */
	int fd = unix_listen(c->conf.coord_socket, 0666, e);

	if (fd < 0)
		return fd;
	ev = event_new(c->base, fd, EV_READ | EV_PERSIST, on_connect, c);
	if (!ev || event_add(ev, NULL) < 0)
		return err_set(e, ENOMEM, "listen");
	return 0;
}
