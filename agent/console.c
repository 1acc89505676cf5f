/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Console relays. A connection whose first message is exec, attach or kill belongs to one pod from
 * then on; its frames go to the pod's podinit and back as they are.
 *
 *	START -> (attach to session 0 with offsets inside our log file:) LOG -> GREET -> RELAY
 *
 * LOG sends what podinit's ring may no longer have. For a pod that has ended LOG is all there is, and
 * ends with the exit code. The relay has no state worth keeping: when it breaks (a move, our death)
 * the client attaches again from the offsets it has reached.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "agent/agent.h"
#include "pod/base/io.h"
#include "pod/base/log.h"
#include "pod/base/util.h"

#define CHUNK (64u << 10)
#define FROZEN_MS 5000
#define QUEUE_MAX (1u << 20) /* bytes for a slow end before the fast one has to wait */

struct relay {
	struct agent *agent;
	struct conn *client, *pod;
	char name[64];
	uint8_t *first; /* the request's frame for podinit */
	size_t first_len;
	bool greeted;
	/* LOG */
	int log[3];
	uint64_t at[3], end[3];
	Pm__AttachReq attach; /* strings are not kept */
	bool ended;
	int exit_code;
};

static void relay_free(struct relay *r)
{
	conn_finish(r->client);
	conn_free(r->pod);
	for (int s = 0; s < 3; s++)
		close_fdp(&r->log[s]);
	free(r->first);
	free(r);
}

static void relay_refuse(struct relay *r, int exit_code, const char *hint, const struct err *e)
{
	LINK_ENVELOPE(env, error, ERROR, Pm__Error, pm__error__init);
	env_body.exit_code = exit_code;
	env_body.cause = (char *)(uintptr_t)e->msg;
	env_body.hint = (char *)(uintptr_t)hint;
	conn_send(r->client, &env);
	relay_free(r);
}

/* ---- RELAY */

static void forward(struct relay *r, struct conn *from, struct conn *to)
{
	const uint8_t *frame;
	size_t len;

	(void)r;
	conn_current(from, &frame, &len);
	conn_send_frame(to, frame, len);
	if (conn_queued(to) > QUEUE_MAX)
		conn_read_enable(from, false);
}

static void client_message(struct conn *c, const Pm__Envelope *env, void *arg)
{
	struct relay *r = arg;

	/* signal 0 is our own word to podinit: "you may go" */
	if (env->body_case == PM__ENVELOPE__BODY_KILL_REQ && env->kill_req->signal == 0)
		return;
	if (r->pod && r->greeted)
		forward(r, c, r->pod);
}

static void client_closed(struct conn *c, const struct err *e, void *arg)
{
	struct relay *r = arg;

	(void)e;
	conn_free(c);
	r->client = NULL;
	relay_free(r);
}

static void log_step(struct relay *r);

static void client_drained(struct conn *c, void *arg)
{
	struct relay *r = arg;

	(void)c;
	if (r->pod && r->greeted)
		conn_read_enable(r->pod, true);
	else if (r->log[1] >= 0)
		log_step(r);
}

static void pod_drained(struct conn *c, void *arg)
{
	struct relay *r = arg;

	(void)c;
	conn_read_enable(r->client, true);
}

static const struct conn_ops client_ops = { client_message, client_closed, client_drained };
static const struct conn_ops pod_ops;

static void pod_message(struct conn *c, const Pm__Envelope *env, void *arg)
{
	struct relay *r = arg;
	struct err e;

	if (r->greeted) {
		forward(r, c, r->client);
		return;
	}
	if (link_hello_check(env, &e) < 0) {
		err_wrap(&e, "podinit of pod '%s'", r->name);
		relay_refuse(r, 1, "", &e);
		return;
	}
	r->greeted = true;
	conn_set(c, HOP_FROM_PODINIT, &pod_ops, r);
	conn_send_frame(c, r->first, r->first_len);
	conn_read_enable(r->client, true);
}

static void pod_closed(struct conn *c, const struct err *e, void *arg)
{
	struct relay *r = arg;

	(void)e;
	conn_free(c);
	r->pod = NULL;
	relay_free(r);
}

static const struct conn_ops pod_ops = { pod_message, pod_closed, pod_drained };

/* ---- GREET */

static void greet(struct relay *r)
{
	struct pod *p = pod_find(r->agent, r->name);
	char role[] = "agent", build[] = LINK_BUILD;
	struct err e;
	int fd;

	if (!p) {
		err_set(&e, ENOENT, "pod '%s' has left this node", r->name);
		relay_refuse(r, 3, "", &e);
		return;
	}
	fd = podinit_connect(p, &e);
	if (fd < 0) {
		relay_refuse(r, 13, "try again", &e);
		return;
	}
	r->pod = conn_new(r->agent->base, fd, HOP_GREETING, &pod_ops, r);
	if (!r->pod) {
		relay_free(r);
		return;
	}
	LINK_ENVELOPE(env, hello, HELLO, Pm__Hello, pm__hello__init);
	env_body.version = LINK_VERSION;
	env_body.min_version = LINK_MIN_VERSION;
	env_body.role = role;
	env_body.build = build;
	conn_send(r->pod, &env);
}

/* ---- LOG */

static void send_console(struct relay *r, int s, const uint8_t *data, size_t len, bool eof)
{
	LINK_ENVELOPE(env, console, CONSOLE, Pm__Console, pm__console__init);
	env_body.stream = (Pm__Console__Stream)s;
	env_body.offset = r->at[s];
	env_body.data.data = (uint8_t *)(uintptr_t)data;
	env_body.data.len = len;
	env_body.eof = eof;
	conn_send(r->client, &env);
}

static void send_exit(struct relay *r)
{
	LINK_ENVELOPE(env, session_exit, SESSION_EXIT, Pm__SessionExit, pm__session_exit__init);
	env_body.code = r->exit_code;
	conn_send(r->client, &env);
}

/* One chunk of stream @s. 1: sent one; 0: the end. */
static int log_chunk(struct relay *r, int s)
{
	static uint8_t buf[CHUNK];
	off_t data;
	ssize_t n;

	if (r->at[s] >= r->end[s])
		return 0;
	data = lseek(r->log[s], (off_t)r->at[s], SEEK_DATA);
	if (data < 0 || (uint64_t)data >= r->end[s]) {
		r->at[s] = r->end[s]; /* nothing but holes: punched or never seen */
		return 0;
	}
	r->at[s] = (uint64_t)data;
	n = pread(r->log[s], buf, MIN(sizeof(buf), r->end[s] - r->at[s]), data);
	if (n <= 0) {
		r->at[s] = r->end[s];
		return 0;
	}
	send_console(r, s, buf, (size_t)n, false);
	r->at[s] += (size_t)n;
	return 1;
}

static int keep_first(struct relay *r, const Pm__Envelope *env)
{
	struct err e;
	int n;

	free(r->first);
	r->first = NULL;
	n = link_pack(env, &r->first, &r->first_len, &e);
	if (n < 0)
		log_error("%s", e.msg);
	return n;
}

static void log_step(struct relay *r)
{
	while (conn_queued(r->client) < QUEUE_MAX) {
		if (log_chunk(r, 1) || log_chunk(r, 2))
			continue;
		for (int s = 1; s <= 2; s++)
			close_fdp(&r->log[s]);
		if (r->ended) {
			send_console(r, 1, NULL, 0, true);
			send_console(r, 2, NULL, 0, true);
			send_exit(r);
			relay_free(r);
			return;
		}
		LINK_ENVELOPE(env, attach_req, ATTACH_REQ, Pm__AttachReq, pm__attach_req__init);
		env_body = r->attach;
		env_body.pod = r->name;
		env_body.out_offset = r->at[1];
		env_body.err_offset = r->at[2];
		if (keep_first(r, &env) < 0)
			relay_free(r);
		else
			greet(r);
		return;
	}
}

static void log_start(struct relay *r, struct pod *p, const Pm__AttachReq *m)
{
	struct stat st;

	r->attach = *m;
	r->ended = p->exit_known;
	r->exit_code = p->exit_code;
	r->at[1] = m->out_offset;
	r->at[2] = m->err_offset;
	for (int s = 1; s <= 2; s++) {
		r->log[s] = log_open(p, s, O_RDONLY, NULL);
		if (r->log[s] >= 0 && fstat(r->log[s], &st) == 0)
			r->end[s] = (uint64_t)st.st_size;
	}
	log_step(r);
}

/* ---- START */

static int check_pod(struct pod *p, const char *name, struct err *e)
{
	if (!p)
		return err_set(e, ENOENT, "no pod '%s' on this node", name);
	if (p->state == PM__POD_STATE__POD_INCOMING || p->state == PM__POD_STATE__POD_STARTING)
		return err_set(e, EBUSY, "pod '%s' is just arriving on this node", name);
	/* a move's freeze is milliseconds: one waits. Longer, and podinit will not answer */
	if (p->state == PM__POD_STATE__POD_FROZEN &&
	    now_ns() - p->frozen_ns > FROZEN_MS * NSEC_PER_MSEC)
		return err_set(e, EBUSY, "pod '%s' is frozen by operation %s", name, p->op);
	return 0;
}

static void start(struct relay *r, const Pm__Envelope *env)
{
	struct pod *p = pod_find(r->agent, r->name);
	struct err e;
	int n = check_pod(p, r->name, &e);

	if (n < 0) {
		relay_refuse(r, n == -EBUSY ? 13 : 3, n == -EBUSY ? "try again; podctl recover" : "", &e);
		return;
	}
	if (env->body_case == PM__ENVELOPE__BODY_ATTACH_REQ && env->attach_req->session == 0) {
		log_start(r, p, env->attach_req);
		return;
	}
	if (p->exit_known || p->state == PM__POD_STATE__POD_EXITED) {
		err_set(&e, ESRCH, "pod '%s' has exited with code %d", r->name, p->exit_code);
		relay_refuse(r, 3, "", &e);
		return;
	}
	if (env->body_case == PM__ENVELOPE__BODY_KILL_REQ && env->kill_req->signal == 0) {
		LINK_ENVELOPE(ok, ok, OK, Pm__Ok, pm__ok__init);
		conn_send(r->client, &ok);
		relay_free(r);
		return;
	}
	if (keep_first(r, env) < 0)
		relay_free(r);
	else
		greet(r);
}

static const char *pod_of(const Pm__Envelope *env)
{
	switch (env->body_case) {
	case PM__ENVELOPE__BODY_EXEC_REQ:
		return env->exec_req->pod;
	case PM__ENVELOPE__BODY_ATTACH_REQ:
		return env->attach_req->pod;
	default:
		return env->kill_req->pod;
	}
}

void console_relay(struct agent *a, struct conn *c, const Pm__Envelope *env)
{
	struct relay *r = calloc(1, sizeof(*r));

	if (!r) {
		conn_free(c);
		return;
	}
	r->agent = a;
	r->client = c;
	r->log[0] = r->log[1] = r->log[2] = -1;
	snprintf(r->name, sizeof(r->name), "%s", pod_of(env));
	conn_set(c, HOP_TO_PODINIT, &client_ops, r);
	conn_read_enable(c, false); /* until podinit has greeted */
	start(r, env);
}
