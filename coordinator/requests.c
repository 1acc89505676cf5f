/* SPDX-License-Identifier: GPL-3.0-or-later */
/* What users ask of operations: a move, an abort, or nothing more because they have gone. Their life is in ops.c. */
#include <stdio.h>
#include <string.h>
#include <sys/random.h>

#include "coordinator/ops.h"
#include "pod/base/log.h"
#include "pod/base/util.h"

static int check_migrate(struct client *cl, uint32_t id, const Pm__MigrateReq *m, struct pod *p,
			 struct node *to)
{
	struct coord *c = cl->coord;
	struct pod *there = to ? pod_find_at(c, m->target, to) : NULL;
	char how[200];

	if (!p && image_has_pod(cl, id, m->target))
		return -1;
	if (!p)
		client_error(cl, id, EX_NOTFOUND, "check", "", "see podps -a", "there is no pod '%s'",
			     m->target);
	else if (!pod_owned(p, cl))
		client_error(cl, id, EX_DENIED, "check", "nothing was touched", "",
			     "pod '%s' belongs to user '%s'", m->target, p->info->spec->user);
	else if (!pod_is_at(cl, id, p, m->source))
		return -1;
	else if (!to)
		client_error(cl, id, EX_NOTFOUND, "check", "nothing was touched",
			     "see podctl nodes", "there is no node '%s'", m->node);
	else if (p->info->state == PM__POD_STATE__POD_EXITED)
		client_error(cl, id, EX_NOTFOUND, "check", "nothing was touched", "",
			     "pod '%s' has exited with code %d", m->target, p->info->exit_code);
	else if (!p->node->up)
		client_error(cl, id, EX_UNREACHABLE, "check", "unknown until its node answers",
			     "see podctl nodes", "node '%s', where pod '%s' is, is down: %s",
			     p->node->conf->name, m->target, p->node->why);
	else if (p->node == to)
		client_error(cl, id, EX_BADUSE, "check", "the pod runs on as before", "",
			     "pod '%s' is on node '%s' already", m->target, m->node);
	else if (!node_takes(cl, id, to, "check", "the pod runs on as before"))
		return -1;
	else if (!pod_runs(p))
		client_error(cl, id, EX_BUSY, "check", "nothing was touched", "see podps",
			     "pod '%s' cannot be moved now: it is %s", m->target, pod_condition(p, how, sizeof(how)));
	else if (there && there->info->state != PM__POD_STATE__POD_EXITED)
		client_error(cl, id, EX_BUSY, "check", "the pod runs on as before", "",
			     "node '%s' has a pod '%s' already", m->node, m->target);
	else
		return 0;
	return -1;
}

/* One that only waits for its target to hear of its end, or to tidy up, holds no pod that runs at the source. A restart has no
 * source: its pod can be made again once its target has nothing of it, or is away. */
struct op *op_of_pod(struct coord *c, const char *pod)
{
	for (struct op *op = c->ops; op; op = op->next)
		if (strcmp(op->j.pod, pod) == 0 &&
		    !(op->stage == ST_UNDO && op->src_undone && !(op_is_restart(op) && op->target && op->target->up)))
			return op;
	return NULL;
}

void migrate_request(struct client *cl, uint32_t id, const Pm__MigrateReq *m)
{
	struct coord *c = cl->coord;
	struct node *to = node_find(c, m->node);
	struct pod *p = pod_find(c, m->target);
	struct op *op = op_of_pod(c, m->target);
	struct journal_op j = { .uid = cl->uid };
	char check[] = "check";
	struct err e;

	if (check_migrate(cl, id, m, p, to) < 0)
		return;
	if (op) {
		client_error(cl, id, EX_BUSY, "check", "nothing was touched", "",
			     "operation %s holds pod '%s'", op->j.id, m->target);
		return;
	}
	snprintf(j.pod, sizeof(j.pod), "%s", m->target);
	snprintf(j.source, sizeof(j.source), "%s", p->node->conf->name);
	snprintf(j.target, sizeof(j.target), "%s", m->node);
	j.epoch = p->info->epoch + 1;
	if (journal_begin(c->journal, &j, &e) < 0 || !(op = op_new(c, &j))) {
		client_error(cl, id, EX_OTHER, "check", "the pod runs on as before", "", "%s",
			     e.msg);
		return;
	}
	LINK_ENVELOPE(req, migrate_req, MIGRATE_REQ, Pm__MigrateReq, pm__migrate_req__init);
	req_body = *m;
	op->asked = envelope_copy(&req);
	op->dry_run = m->dry_run;
	op->client = cl->serial;
	op->reply = id;
	op->spec = p->info->spec;
	LINK_ENVELOPE(env, progress, PROGRESS, Pm__Progress, pm__progress__init);
	env_body.op = op->j.id;
	env_body.pod = op->j.pod;
	env_body.node = op->j.target;
	env_body.phase = check;
	client_send(cl, id, &env);
	if (!op->asked || getrandom(op->token, sizeof(op->token), 0) != sizeof(op->token)) {
		op_undo(op, EX_OTHER, "no memory or no random numbers");
		return;
	}
	log_info("operation %s: pod '%s' from '%s' to '%s'%s", op->j.id, op->j.pod, op->j.source,
		 op->j.target, op->dry_run ? " (dry run)" : "");
	op_enter(op, ST_RESERVE);
	op->spec = NULL; /* the next report replaces it */
}

static struct op *op_of_client(struct client *cl, const char *id)
{
	for (struct op *op = cl->coord->ops; op; op = op->next)
		if (id[0] ? strcmp(op->j.id, id) == 0 : op_waiting(op) == cl->serial)
			return op;
	return NULL;
}

void abort_request(struct client *cl, uint32_t id, const Pm__OpAbortReq *m)
{
	struct op *op = op_of_client(cl, m->op);

	if (!op) {
		client_error(cl, id, EX_NOTFOUND, "", "", "", "there is no operation '%s'", m->op);
		return;
	}
	if (cl->uid != 0 && cl->uid != op->uid) {
		client_error(cl, id, EX_DENIED, "", "", "", "operation %s is not yours", op->j.id);
		return;
	}
	if (op->stage >= ST_COMMIT && op->stage != ST_UNDO) {
		client_error(cl, id, EX_BUSY, "commit", "the move is decided", "",
			     "operation %s is past the commit", op->j.id);
		return;
	}
	LINK_ENVELOPE(ok, ok, OK, Pm__Ok, pm__ok__init);
	client_send(cl, id, &ok);
	if (op->stage != ST_UNDO)
		op_undo(op, EX_ABORTED, "aborted by user '%s'", cl->user);
}

void ops_client_gone(struct client *cl)
{
	struct op *next;

	for (struct op *op = cl->coord->ops; op; op = next) {
		next = op->next;
		if (op_waiting(op) != cl->serial)
			continue;
		op->client = 0;
		if (op->group)
			op->group->client = 0;
		if (op->stage < ST_COMMIT && !(op->asked && op->asked->migrate_req->detach))
			op_undo(op, EX_ABORTED, "the client went away");
	}
}
