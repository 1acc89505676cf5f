/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * After somebody's restart: what the journal has decided is said again to each node that comes
 * back, and a pod that reports an operation which this coordinator no longer pursues gets the
 * journal's answer. What nobody can know is left frozen for `podctl recover`.
 */
#include <stdio.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "coordinator/ops.h"
#include "pod/base/log.h"
#include "pod/base/util.h"

#define MAX_LINES 64

static void load_one(const struct journal_op *j, void *arg)
{
	struct op *op = op_new(arg, j);

	if (!op)
		return;
	log_info("operation %s (pod '%s', '%s' -> '%s') is open: %s", j->id, j->pod, j->source,
		 j->target, j->state == JOURNAL_COMMIT ? "committed" : "aborted");
	/* the nodes are not up yet: ops_node_up() says it to each */
	op_enter(op, j->state == JOURNAL_COMMIT ? ST_COMMIT : ST_UNDO);
}

int ops_load(struct coord *c, struct err *e)
{
	return journal_open_ops(c->journal, load_one, c, e);
}

void ops_node_up(struct node *n)
{
	struct op *next;

	for (struct op *op = n->coord->ops; op; op = next) {
		next = op->next;
		if (op->stage == ST_COMMIT && op->target == n)
			op_tell_commit(op);
		else if (op->stage == ST_CLEAN && op->source == n)
			op_tell_started(op);
		else if (op->stage == ST_UNDO && (op->source == n || op->target == n))
			op_tell_aborted(op, n);
	}
}

static void answer(struct node *n, const struct journal_op *j)
{
	struct op tmp = { .coord = n->coord, .j = *j, .source = n, .target = n };

	if (j->state == JOURNAL_ABORT || j->state == JOURNAL_UNDONE)
		op_tell_aborted(&tmp, n);
	else if (j->state == JOURNAL_DONE && strcmp(j->source, n->conf->name) == 0)
		op_tell_started(&tmp);
	else if (j->state == JOURNAL_DONE)
		op_tell_commit(&tmp);
}

void ops_reconcile(struct node *n)
{
	struct coord *c = n->coord;
	struct journal_op j;
	struct err e;

	for (struct pod *p = c->pods; p; p = p->next) {
		if (p->node != n || !p->info->op[0] || op_find(c, p->info->op))
			continue;
		if (p->info->state != PM__POD_STATE__POD_FROZEN &&
		    p->info->state != PM__POD_STATE__POD_INCOMING)
			continue;
		if (journal_find(c->journal, p->info->op, &j, &e) == 1)
			answer(n, &j);
		else
			log_error("pod '%s' on '%s' waits for operation %s, which the journal does not know: podctl recover",
				  p->info->spec->name, n->conf->name, p->info->op);
	}
}

/* ---- podctl recover */

struct lines {
	char *line[MAX_LINES];
	size_t n;
};

static void __attribute__((format(printf, 2, 3))) add(struct lines *l, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	if (l->n < MAX_LINES && vasprintf(&l->line[l->n], fmt, ap) >= 0)
		l->n++;
	va_end(ap);
}

static const char *const stage_words[NUM_STAGES] = {
	[ST_RESERVE] = "under way", [ST_PRECOPY] = "under way",
	[ST_COMMIT] = "committed, the target has not said that it runs",
	[ST_CLEAN] = "moved, the source has not said that its copy is gone",
	[ST_UNDO] = "aborted, not all nodes have said that it is undone",
};

static bool frozen_orphan(const struct pod *p)
{
	return (p->info->state == PM__POD_STATE__POD_FROZEN || p->info->state == PM__POD_STATE__POD_INCOMING) &&
	       p->info->op[0] && !p->pending && !op_find(p->node->coord, p->info->op);
}

static void list_open(struct coord *c, struct lines *l)
{
	struct journal_op j;
	char way[140];

	for (struct op *op = c->ops; op; op = op->next)
		add(l, "%s: pod '%s' %s: %s%s", op->j.id, op->j.pod, op_way(op, way, sizeof(way)), stage_words[op->stage],
		    op->unknown ? "; it was started there and is gone" : "");
	for (struct pod *p = c->pods; p; p = p->next)
		if (frozen_orphan(p))
			add(l, "%s: pod '%s' is %s '%s'; %s", p->info->op, p->info->spec->name,
			    p->info->state == PM__POD_STATE__POD_INCOMING ? "half made on" : "frozen on", p->node->conf->name,
			    journal_find(c->journal, p->info->op, &j, NULL) != 1 ? "the journal does not know why" :
			    p->node->up ? "its node is being told what the journal says" :
					  "its node will be told what the journal says");
	if (!l->n)
		add(l, "nothing is to be recovered");
}

static void recover_op(struct op *op, struct lines *l)
{
	bool target_up = op->target && op->target->up;

	switch (op->stage) {
	case ST_COMMIT:
		if (target_up && !op->unknown) {
			op_tell_commit(op);
			add(l, "%s: asked '%s' again", op->j.id, op->j.target);
			return;
		}
		if (op_is_restart(op))
			add(l, "%s: '%s' cannot say; the restart is given up. Do not restore the image elsewhere unless '%s' is known to be off",
			    op->j.id, op->j.target, op->j.target);
		else
			add(l, "%s: '%s' cannot say; the pod goes on from its frozen copy on '%s'",
			    op->j.id, op->j.target, op->j.source);
		add(l, "%s: should '%s' come back with the pod running, it will be killed there",
		    op->j.id, op->j.target);
		op_undo(op, EX_UNKNOWN, op_is_restart(op) ? "given up by the administrator" :
							    "recovered at the source by the administrator");
		return;
	case ST_CLEAN:
		op_tell_started(op);
		add(l, "%s: told '%s' again to remove its copy", op->j.id, op->j.source);
		return;
	case ST_UNDO:
		op_tell_aborted(op, op->source);
		op_tell_aborted(op, op->target);
		add(l, "%s: told both nodes again", op->j.id);
		return;
	default:
		add(l, "%s: is under way; nothing to recover", op->j.id);
	}
}

static void recover_orphan(struct pod *p, struct lines *l)
{
	struct coord *c = p->node->coord;
	struct journal_op j = { 0 };
	struct op tmp = { .coord = c, .source = p->node };

	if (p->info->state == PM__POD_STATE__POD_FROZEN && pod_find(c, p->info->spec->name) != p) {
		add(l, "%s: pod '%s' runs on '%s' with a newer epoch: the frozen copy stays",
		    p->info->op, p->info->spec->name,
		    pod_find(c, p->info->spec->name)->node->conf->name);
		return;
	}
	snprintf(j.id, sizeof(j.id), "%s", p->info->op);
	tmp.j = j;
	op_tell_aborted(&tmp, p->node);
	if (p->info->state == PM__POD_STATE__POD_INCOMING)
		add(l, "%s: what was made of pod '%s' on '%s' is removed", j.id, p->info->spec->name, p->node->conf->name);
	else
		add(l, "%s: pod '%s' goes on from its frozen copy on '%s'", j.id, p->info->spec->name,
		    p->node->conf->name);
}

static void recover_one(struct coord *c, const char *id, struct lines *l)
{
	for (struct op *op = c->ops; op; op = op->next)
		if (strcmp(op->j.id, id) == 0 || strcmp(op->j.pod, id) == 0) {
			recover_op(op, l);
			return;
		}
	for (struct pod *p = c->pods; p; p = p->next)
		if (frozen_orphan(p) && (strcmp(p->info->op, id) == 0 ||
					 strcmp(p->info->spec->name, id) == 0)) {
			recover_orphan(p, l);
			return;
		}
}

void recover_request(struct client *cl, uint32_t id, const Pm__RecoverReq *m)
{
	struct lines l = { .n = 0 };

	if (cl->uid != 0) {
		client_error(cl, id, EX_DENIED, "", "", "", "only root may recover operations");
		return;
	}
	if (m->id[0])
		recover_one(cl->coord, m->id, &l);
	else
		list_open(cl->coord, &l);
	if (!l.n) {
		client_error(cl, id, EX_NOTFOUND, "", "", "podctl recover lists what is open",
			     "'%s' is no open operation and no frozen pod", m->id);
		return;
	}
	LINK_ENVELOPE(env, recover_rep, RECOVER_REP, Pm__RecoverRep, pm__recover_rep__init);
	env_body.lines = l.line;
	env_body.n_lines = l.n;
	client_send(cl, id, &env);
	for (size_t i = 0; i < l.n; i++)
		free(l.line[i]);
}
