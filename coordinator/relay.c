/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Relays: client -> coordinator -> agent (-> podinit), frame by frame. The first request (exec, attach,
 * kill, inspect) names the pod and is checked here; the rest is passed on as it is. Each relay has a
 * connection of its own to the agent.
 */
#include <stdio.h>

#include "agent/link/unix.h"
#include "coordinator/coord.h"
#include "pod/base/io.h"
#include "pod/base/log.h"
#include "pod/base/util.h"

#define QUEUE_MAX (1u << 20)

struct relay {
	struct conn *client, *agent;
	uint8_t *first;
	size_t first_len;
	bool greeted;
};

static void relay_free(struct relay *r)
{
	conn_finish(r->client);
	conn_free(r->agent);
	free(r->first);
	free(r);
}

static void forward(struct conn *from, struct conn *to)
{
	const uint8_t *frame;
	size_t len;

	conn_current(from, &frame, &len);
	conn_send_frame(to, frame, len);
	if (conn_queued(to) > QUEUE_MAX)
		conn_read_enable(from, false);
}

static void client_message(struct conn *c, const Pm__Envelope *env, void *arg)
{
	struct relay *r = arg;

	(void)env;
	forward(c, r->agent);
}

static void client_closed(struct conn *c, const struct err *e, void *arg)
{
	struct relay *r = arg;

	(void)e;
	conn_free(c);
	r->client = NULL;
	relay_free(r);
}

static void client_drained(struct conn *c, void *arg)
{
	struct relay *r = arg;

	(void)c;
	conn_read_enable(r->agent, true);
}

static void agent_drained(struct conn *c, void *arg)
{
	struct relay *r = arg;

	(void)c;
	if (r->greeted)
		conn_read_enable(r->client, true);
}

static const struct conn_ops client_ops = { client_message, client_closed, client_drained };
static const struct conn_ops agent_ops;

static void agent_message(struct conn *c, const Pm__Envelope *env, void *arg)
{
	struct relay *r = arg;
	struct err e;

	if (r->greeted) {
		forward(c, r->client);
		return;
	}
	if (link_hello_check(env, &e) < 0) {
		log_warn("relay: %s", e.msg);
		relay_free(r);
		return;
	}
	r->greeted = true;
	conn_set(c, HOP_FROM_PODINIT, &agent_ops, r);
	conn_send_frame(c, r->first, r->first_len);
	conn_read_enable(r->client, true);
}

static void agent_closed(struct conn *c, const struct err *e, void *arg)
{
	struct relay *r = arg;

	(void)e;
	conn_free(c);
	r->agent = NULL;
	relay_free(r);
}

static const struct conn_ops agent_ops = { agent_message, agent_closed, agent_drained };

static const char *pod_of(const Pm__Envelope *env)
{
	switch (env->body_case) {
	case PM__ENVELOPE__BODY_EXEC_REQ:
		return env->exec_req->pod;
	case PM__ENVELOPE__BODY_ATTACH_REQ:
		return env->attach_req->pod;
	case PM__ENVELOPE__BODY_INSPECT_REQ:
		return env->inspect_req->pod;
	default:
		return env->kill_req->pod;
	}
}

static int connect_agent(struct coord *c, struct relay *r, struct node *n, struct err *e)
{
	char role[] = "coordinator", build[] = LINK_BUILD;
	int fd = unix_connect(n->conf->socket, deadline_ms(200), e);

	if (fd < 0)
		return fd;
	r->agent = conn_new(c->base, fd, HOP_GREETING, &agent_ops, r);
	if (!r->agent)
		return err_set(e, 12, "connection");
	LINK_ENVELOPE(env, hello, HELLO, Pm__Hello, pm__hello__init);
	env_body.version = LINK_VERSION;
	env_body.min_version = LINK_MIN_VERSION;
	env_body.role = role;
	env_body.build = build;
	conn_send(r->agent, &env);
	return 0;
}

/* The pod that @env is about, if @cl may; else the error was sent. */
static struct pod *permitted(struct client *cl, const Pm__Envelope *env)
{
	struct pod *p = pod_find(cl->coord, pod_of(env));

	if (!p && image_has_pod(cl, env->id, pod_of(env)))
		return NULL;
	if (!p) {
		client_error(cl, env->id, EX_NOTFOUND, "", "", "see podps -a",
			     "there is no pod '%s'", pod_of(env));
		return NULL;
	}
	if (!pod_owned(p, cl)) {
		client_error(cl, env->id, EX_DENIED, "", "", "", "pod '%s' belongs to user '%s'",
			     pod_of(env), p->info->spec->user);
		return NULL;
	}
	if (!p->node->up) {
		client_error(cl, env->id, EX_UNREACHABLE, "", "unknown until its node answers",
			     "see podctl nodes", "pod '%s' is on node '%s', which is down: %s",
			     pod_of(env), p->node->conf->name, p->node->why);
		return NULL;
	}
	return p;
}

void relay_request(struct client *cl, const Pm__Envelope *env)
{
	struct coord *c = cl->coord;
	struct pod *p = permitted(cl, env);
	struct relay *r;
	struct err e;

	if (!p)
		return;
	r = calloc(1, sizeof(*r));
	if (!r || link_pack(env, &r->first, &r->first_len, &e) < 0 ||
	    connect_agent(c, r, p->node, &e) < 0) {
		client_error(cl, env->id, EX_UNREACHABLE, "", "", "", "node '%s': %s",
			     p->node->conf->name, r ? e.msg : "no memory");
		if (r) {
			conn_free(r->agent);
			free(r->first);
			free(r);
		}
		return;
	}
	r->client = client_take_conn(cl);
	conn_set(r->client, HOP_TO_PODINIT, &client_ops, r);
	conn_read_enable(r->client, false);
}
