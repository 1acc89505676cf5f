/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * The nodes: dialled, greeted, asked every second, dialled again.
 *
 *	down --dial, hello--> up --EOF, or silent for SILENT_MS--> down (dial again each REDIAL_MS)
 *
 * A question carries an id; its answer, or NULL when the node is lost or too slow, goes to who asked.
 * Messages without an id are the node's own words: reports and operations.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "agent/link/unix.h"
#include "coordinator/coord.h"
#include "pod/base/io.h"
#include "pod/base/log.h"
#include "pod/base/util.h"

#define CHECK_MS 20000 /* the image store may be slow */
#define REDIAL_MS 200
#define PING_MS 1000
#define SILENT_MS 30000 /* a disk that takes seconds, or too much to do, is no lost node; one that is lost closes its connection */

struct ask {
	struct ask *next;
	struct node *node;
	uint32_t id;
	ask_fn *fn;
	void *arg;
	struct event *timer;
};

static void set_timer(struct node *n, unsigned ms)
{
	struct timeval tv = { .tv_sec = ms / 1000, .tv_usec = (ms % 1000) * 1000 };

	event_add(n->timer, &tv);
}

static void ask_end(struct ask *k, const Pm__Envelope *reply)
{
	struct node *n = k->node;

	for (struct ask **at = &n->asks; *at; at = &(*at)->next)
		if (*at == k) {
			*at = k->next;
			break;
		}
	event_free(k->timer);
	k->fn(n, reply, k->arg);
	free(k);
}

static void node_down(struct node *n, const char *why)
{
	bool was = n->up;

	conn_free(n->conn);
	n->conn = NULL;
	n->up = false;
	if (was || strcmp(n->why, why) != 0)
		log_warn("node '%s' is down: %s", n->conf->name, why);
	snprintf(n->why, sizeof(n->why), "%s", why);
	while (n->asks)
		ask_end(n->asks, NULL);
	if (was)
		ops_node_lost(n);
	set_timer(n, REDIAL_MS);
}

static void on_nodes_rep(struct node *n, const Pm__Envelope *env, void *arg)
{
	const Pm__NodeInfo *i;

	(void)arg;
	if (!env || env->body_case != PM__ENVELOPE__BODY_NODES_REP || !env->nodes_rep->n_nodes)
		return;
	i = env->nodes_rep->nodes[0];
	n->cpus = i->cpus;
	n->running = i->pods;
	n->mem_total = i->mem_total;
	n->mem_free = i->mem_free;
	snprintf(n->kernel, sizeof(n->kernel), "%s", i->kernel);
	snprintf(n->address, sizeof(n->address), "%s", i->address);
}

static void ping(struct node *n)
{
	LINK_ENVELOPE(env, nodes_req, NODES_REQ, Pm__NodesReq, pm__nodes_req__init);
	node_ask(n, &env, SILENT_MS, on_nodes_rep, NULL);
}

static void on_first_pods(struct node *n, const Pm__Envelope *env, void *arg)
{
	(void)arg;
	if (env && env->body_case == PM__ENVELOPE__BODY_AGENT_PODS) {
		pods_reported(n, env->agent_pods);
		ops_node_up(n);
	}
}

static void node_greeted(struct node *n, const Pm__Hello *h)
{
	n->up = true;
	n->why[0] = '\0';
	if (n->boot_id[0] && strcmp(n->boot_id, h->boot_id) != 0)
		log_info("node '%s' was rebooted", n->conf->name);
	snprintf(n->boot_id, sizeof(n->boot_id), "%s", h->boot_id);
	log_info("node '%s' is up", n->conf->name);
	ping(n);
	LINK_ENVELOPE(env, pods_req, PODS_REQ, Pm__PodsReq, pm__pods_req__init);
	node_ask(n, &env, 10000, on_first_pods, NULL);
	set_timer(n, PING_MS);
}

static const struct conn_ops node_ops;

static void on_message(struct conn *c, const Pm__Envelope *env, void *arg)
{
	struct node *n = arg;
	struct err e;

	n->heard_ns = now_ns();
	if (!n->up) {
		if (link_hello_check(env, &e) < 0) {
			node_down(n, e.msg);
			return;
		}
		if (strcmp(env->hello->name, n->conf->name) != 0) {
			err_set(&e, EPROTO, "the agent there calls itself '%s'", env->hello->name);
			node_down(n, e.msg);
			return;
		}
		conn_set(c, HOP_TO_COORD, &node_ops, n);
		node_greeted(n, env->hello);
		return;
	}
	for (struct ask *k = n->asks; env->id && k; k = k->next)
		if (k->id == env->id) {
			ask_end(k, env);
			return;
		}
	if (env->body_case == PM__ENVELOPE__BODY_AGENT_PODS)
		pods_reported(n, env->agent_pods);
	else
		op_message(n, env);
}

static void on_closed(struct conn *c, const struct err *e, void *arg)
{
	(void)c;
	node_down(arg, e->code ? e->msg : "the agent closed the connection");
}

static const struct conn_ops node_ops = { on_message, on_closed, NULL };

static void dial(struct node *n)
{
	char role[] = "coordinator", build[] = LINK_BUILD;
	struct err e;
	int fd = unix_connect(n->conf->socket, deadline_ms(200), &e);

	if (fd < 0) {
		node_down(n, e.msg);
		return;
	}
	n->conn = conn_new(n->coord->base, fd, HOP_GREETING, &node_ops, n);
	if (!n->conn) {
		node_down(n, "no memory");
		return;
	}
	n->heard_ns = now_ns();
	LINK_ENVELOPE(env, hello, HELLO, Pm__Hello, pm__hello__init);
	env_body.version = LINK_VERSION;
	env_body.min_version = LINK_MIN_VERSION;
	env_body.role = role;
	env_body.build = build;
	conn_send(n->conn, &env);
	set_timer(n, PING_MS);
}

static void on_timer(evutil_socket_t fd, short what, void *arg)
{
	struct node *n = arg;

	(void)fd;
	(void)what;
	if (!n->conn) {
		dial(n);
	} else if (deadline_past(n->heard_ns + SILENT_MS * NSEC_PER_MSEC)) {
		node_down(n, "the agent does not answer");
	} else {
		if (n->up)
			ping(n);
		set_timer(n, PING_MS);
	}
}

int nodes_start(struct coord *c, struct err *e)
{
	c->nodes = calloc(c->conf.nnodes + 1, sizeof(*c->nodes));
	if (!c->nodes)
		return err_num(e, ENOMEM, "nodes");
	for (size_t i = 0; i < c->conf.nnodes; i++) {
		struct node *n = &c->nodes[i];

		n->coord = c;
		n->conf = &c->conf.nodes[i];
		snprintf(n->why, sizeof(n->why), "not yet dialled");
		n->timer = event_new(c->base, -1, 0, on_timer, n);
		if (!n->timer)
			return err_num(e, ENOMEM, "nodes");
		set_timer(n, 0);
		c->nnodes++;
	}
	return 0;
}

struct node *node_find(struct coord *c, const char *name)
{
	for (size_t i = 0; i < c->nnodes; i++)
		if (strcmp(c->nodes[i].conf->name, name) == 0)
			return &c->nodes[i];
	return NULL;
}

static void ask_timer(struct ask *k, unsigned ms)
{
	struct timeval tv = { .tv_sec = ms / 1000, .tv_usec = (ms % 1000) * 1000 };

	event_add(k->timer, &tv);
}

static void on_ask_timeout(evutil_socket_t fd, short what, void *arg)
{
	unsigned more = deadline_grace_ms();
	struct ask *k = arg;

	(void)fd;
	(void)what;
	if (more) /* the machine stood still: the answer may be on its way */
		ask_timer(k, more);
	else
		ask_end(k, NULL);
}

void node_ask(struct node *n, Pm__Envelope *env, unsigned ms, ask_fn *fn, void *arg)
{
	struct ask *k = n->up ? calloc(1, sizeof(*k)) : NULL;

	if (k)
		k->timer = event_new(n->coord->base, -1, 0, on_ask_timeout, k);
	if (!k || !k->timer) {
		free(k);
		fn(n, NULL, arg);
		return;
	}
	k->node = n;
	k->fn = fn;
	k->arg = arg;
	k->id = env->id = ++n->next_id ? n->next_id : ++n->next_id;
	k->next = n->asks;
	n->asks = k;
	ask_timer(k, ms);
	conn_send(n->conn, env);
}

void node_tell(struct node *n, const Pm__Envelope *env)
{
	if (n->up)
		conn_send(n->conn, env);
}

void nodes_list(struct coord *c, struct client *cl, uint32_t id)
{
	char up[] = "up", down[] = "down", cordoned[] = "cordoned";
	autofree Pm__NodeInfo *infos = calloc(c->nnodes + 1, sizeof(*infos));
	autofree Pm__NodeInfo **list = calloc(c->nnodes + 1, sizeof(Pm__NodeInfo *));

	if (!infos || !list)
		return;
	for (size_t i = 0; i < c->nnodes; i++) {
		struct node *n = &c->nodes[i];
		Pm__NodeInfo *o = &infos[i];

		list[i] = o;
		pm__node_info__init(o);
		o->name = n->conf->name;
		o->state = !n->up ? down : n->cordoned ? cordoned : up;
		o->cordoned = n->cordoned;
		o->reason = n->reason;
		o->address = n->conf->address[0] ? n->conf->address : n->address;
		for (struct pod *p = c->pods; p; p = p->next)
			if (p->node == n && p->info->state != PM__POD_STATE__POD_EXITED &&
			    p->info->state != PM__POD_STATE__POD_INCOMING)
				o->pods++;
		o->cpus = n->cpus;
		o->mem_total = n->mem_total;
		o->mem_free = n->mem_free;
		o->kernel = n->kernel;
	}
	LINK_ENVELOPE(env, nodes_rep, NODES_REP, Pm__NodesRep, pm__nodes_rep__init);
	env_body.nodes = list;
	env_body.n_nodes = c->nnodes;
	client_send(cl, id, &env);
}

/* ---- what is wrong with one */

struct check {
	uint64_t client;
	uint32_t id;
};

static void on_checked(struct node *n, const Pm__Envelope *env, void *arg)
{
	struct check *k = arg;
	struct client *cl = client_by_serial(n->coord, k->client);

	if (cl && env && (env->body_case == PM__ENVELOPE__BODY_CHECK_NODE_REP || env->body_case == PM__ENVELOPE__BODY_ERROR)) {
		Pm__Envelope copy = *env;

		client_send(cl, k->id, &copy);
	} else if (cl) {
		client_error(cl, k->id, EX_UNREACHABLE, "", "", "see podctl nodes", "node '%s' does not answer%s%s", n->conf->name,
			     n->up ? "" : ": ", n->up ? "" : n->why);
	}
	free(k);
}

void node_check(struct client *cl, uint32_t id, const Pm__CheckNodeReq *m)
{
	struct node *n = node_find(cl->coord, m->node);
	struct check *k = n ? calloc(1, sizeof(*k)) : NULL;

	LINK_ENVELOPE(env, check_node_req, CHECK_NODE_REQ, Pm__CheckNodeReq, pm__check_node_req__init);
	if (!n) {
		client_error(cl, id, EX_NOTFOUND, "", "", "see podctl nodes", "there is no node '%s'", m->node);
		return;
	}
	if (!k) {
		client_error(cl, id, EX_OTHER, "", "", "", "no memory");
		return;
	}
	k->client = cl->serial;
	k->id = id;
	env_body.node = m->node;
	node_ask(n, &env, CHECK_MS, on_checked, k);
}
