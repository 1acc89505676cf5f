/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Operations, as users see them: what is under way, and what became of one. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "coordinator/ops.h"
#include "pod/base/deadline.h"
#include "pod/base/util.h"

struct waiter {
	struct waiter *next;
	uint64_t client; /* serial */
	uint32_t reply;
};

static const char *kind(const struct op *op)
{
	if (op->dry_run)
		return "check";
	return op_is_checkpoint(op) ? "checkpoint" : op_is_restart(op) ? "restore" : "move";
}

/* Strings are borrowed. */
static void describe(const struct op *op, Pm__OpInfo *o)
{
	pm__op_info__init(o);
	o->id = (char *)(uintptr_t)op->j.id;
	o->kind = (char *)(uintptr_t)kind(op);
	o->pod = (char *)(uintptr_t)op->j.pod;
	if (op->group)
		o->job = op->group->job;
	o->from = (char *)(uintptr_t)op->j.source;
	o->to = (char *)(uintptr_t)op->j.target;
	o->stage = (char *)(uintptr_t)op_stage_name(op);
	o->uid = op->uid;
	o->age_ms = (now_ns() - op->begun_ns) / NSEC_PER_MSEC;
	if (op->error)
		o->cause = op->error->error->cause;
}

static void send_one(struct client *cl, uint32_t id, Pm__OpInfo *o)
{
	LINK_ENVELOPE(env, ops_rep, OPS_REP, Pm__OpsRep, pm__ops_rep__init);
	env_body.ops = &o;
	env_body.n_ops = 1;
	client_send(cl, id, &env);
}

static void send_all(struct client *cl, uint32_t id)
{
	autofree Pm__OpInfo *infos = NULL;
	autofree Pm__OpInfo **list = NULL;
	size_t n = 0;

	for (struct op *op = cl->coord->ops; op; op = op->next)
		n++;
	infos = calloc(n + 1, sizeof(*infos));
	list = calloc(n + 1, sizeof(Pm__OpInfo *));
	n = 0;
	for (struct op *op = cl->coord->ops; infos && list && op; op = op->next) {
		describe(op, &infos[n]);
		list[n] = &infos[n];
		n++;
	}
	LINK_ENVELOPE(env, ops_rep, OPS_REP, Pm__OpsRep, pm__ops_rep__init);
	env_body.ops = list;
	env_body.n_ops = n;
	client_send(cl, id, &env);
}

/* One that is over: what the journal says of it. */
static void send_past(struct client *cl, uint32_t id, const char *name)
{
	char done[] = "done", undone[] = "undone";
	struct err e = { 0 };
	Pm__OpInfo o;
	struct op op = { .coord = cl->coord };
	int r = journal_find(cl->coord->journal, name, &op.j, &e);

	if (r < 0) {
		client_error(cl, id, EX_OTHER, "", "", "", "%s", e.msg);
		return;
	}
	if (!r) {
		client_error(cl, id, EX_NOTFOUND, "", "", "see podctl op list", "there is no operation '%s'", name);
		return;
	}
	op.uid = op.j.uid;
	op.begun_ns = now_ns();
	describe(&op, &o);
	o.stage = op.j.state == JOURNAL_DONE ? done : undone;
	o.age_ms = 0;
	send_one(cl, id, &o);
}

void op_tell_waiters(struct op *op)
{
	char done[] = "done", undone[] = "undone";
	struct waiter *next;
	Pm__OpInfo o;

	describe(op, &o);
	o.stage = op->j.state == JOURNAL_DONE || op->dry_ok ? done : undone;
	o.age_ms = 0;
	for (struct waiter *w = op->waiters; w; w = next) {
		struct client *cl = client_by_serial(op->coord, w->client);

		next = w->next;
		if (cl)
			send_one(cl, w->reply, &o);
		free(w);
	}
	op->waiters = NULL;
}

/* One for each client: who asks again is answered under the new id. */
static struct waiter *waiter_of(struct op *op, const struct client *cl)
{
	struct waiter *w;

	for (w = op->waiters; w; w = w->next)
		if (w->client == cl->serial)
			return w;
	w = calloc(1, sizeof(*w));
	if (!w)
		return NULL;
	w->next = op->waiters;
	w->client = cl->serial;
	return op->waiters = w;
}

void ops_request(struct client *cl, uint32_t id, const Pm__OpsReq *m)
{
	struct op *op = m->id[0] ? op_find(cl->coord, m->id) : NULL;
	struct waiter *w;
	Pm__OpInfo o;

	if (!m->id[0]) {
		send_all(cl, id);
	} else if (!op) {
		send_past(cl, id, m->id);
	} else if (!m->wait) {
		describe(op, &o);
		send_one(cl, id, &o);
	} else if ((w = waiter_of(op, cl))) {
		w->reply = id;
	} else {
		client_error(cl, id, EX_OTHER, "", "", "", "no memory");
	}
}
