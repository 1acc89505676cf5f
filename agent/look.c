/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * podctl inspect of a pod that runs: an engine looks, and who asked gets what it says. The
 * connection serves that alone.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "agent/agent.h"
#include "pod/base/util.h"

struct look {
	struct conn *client;
	struct worker *worker;
};

static void refuse(struct look *l, int exit_code, const struct err *e)
{
	LINK_ENVELOPE(env, error, ERROR, Pm__Error, pm__error__init);
	env_body.exit_code = exit_code;
	env_body.cause = (char *)(uintptr_t)e->msg;
	conn_send(l->client, &env);
}

static void end(struct look *l)
{
	worker_drop(l->worker);
	conn_finish(l->client);
	free(l);
}

static void on_message(struct worker *w, const Pm__Envelope *env, void *arg)
{
	struct look *l = arg;
	struct err e;

	(void)w;
	if (env->body_case == PM__ENVELOPE__BODY_INSPECT_REP) {
		conn_send(l->client, env);
	} else {
		const Pm__Error *er = env->body_case == PM__ENVELOPE__BODY_ENGINE_FAILED
					      ? env->engine_failed->error
					      : NULL;

		err_set(&e, EIO, "%s", er ? er->cause : "pod-engine failed");
		refuse(l, er && er->exit_code ? er->exit_code : 1, &e);
	}
	end(l);
}

static void on_gone(struct worker *w, void *arg)
{
	struct look *l = arg;
	struct err e;

	(void)w;
	l->worker = NULL;
	err_set(&e, EIO, "pod-engine died");
	refuse(l, 1, &e);
	end(l);
}

static void client_message(struct conn *c, const Pm__Envelope *env, void *arg)
{
	(void)c, (void)env, (void)arg;
}

static void client_closed(struct conn *c, const struct err *e, void *arg)
{
	struct look *l = arg;

	(void)e;
	conn_free(c);
	l->client = NULL;
	end(l);
}

static const struct worker_ops worker_ops = {on_message, on_gone};
static const struct conn_ops client_ops = {client_message, client_closed, NULL};

static int begin(struct agent *a, struct look *l, const Pm__InspectReq *m, struct err *e)
{
	struct pod *p = pod_find(a, m->pod);
	Pm__InspectReq what = *m;
	Pm__PodInfo info;

	if (!p || !p->pid || p->exit_known)
		return err_set(e, ENOENT, "pod '%s' does not run on this node", m->pod);
	l->worker = worker_start(a, &worker_ops, l, e);
	if (!l->worker)
		return -EIO;
	pod_info(p, &info);
	LINK_ENVELOPE(env, engine_inspect, ENGINE_INSPECT, Pm__EngineInspect,
		      pm__engine_inspect__init);
	env_body.what = &what;
	env_body.pod = &info;
	env_body.pid = (uint32_t)p->pid;
	return worker_send(l->worker, &env) < 0 ? err_set(e, EIO, "pod-engine cannot be told") : 0;
}

void agent_look(struct agent *a, struct conn *c, const Pm__Envelope *env)
{
	struct look *l = calloc(1, sizeof(*l));
	struct err e = {0};
	int r;

	if (!l) {
		conn_free(c);
		return;
	}
	l->client = c;
	conn_set(c, HOP_TO_PODINIT, &client_ops, l);
	r = begin(a, l, env->inspect_req, &e);
	if (r < 0) {
		refuse(l, r == -ENOENT ? 3 : 1, &e);
		end(l);
	}
}
