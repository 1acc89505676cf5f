/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * A job's checkpoint or restart: an operation for each pod (ops.c, images.c), all or none of them.
 *
 *	PRECOPY --all AT a barrier: GO--> ... --all CLEAN--> done                  (checkpoint, the pods run on)
 *	PRECOPY --all AT "precopied": GO--> --all READY--> COMMIT of all --> CLEAN  (--term)
 *	RESERVE --> PRECOPY --all READY--> COMMIT of all --> done                  (restart)
 *
 * One that fails before the commit takes the others with it. The commit is one transaction of the journal, so a coordinator
 * that dies has decided for all or for none; after that each operation ends by itself, as a lone one would. Images of pods that
 * run on count from the last barrier on: what fails then takes nobody with it, and who is cut off from the coordinator keeps
 * its image, for it cannot know.
 *
 * The client asked for one thing and hears one answer, when all operations have one.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "coordinator/ops.h"
#include "pod/base/fault.h"
#include "pod/base/io.h"
#include "pod/base/log.h"
#include "pod/base/util.h"

#define AT_READY 100 /* beyond all barriers */

struct group *group_new(struct coord *c, const char *job, struct client *cl, uint32_t reply)
{
	struct group *g = calloc(1, sizeof(*g));

	if (!g)
		return NULL;
	g->coord = c;
	g->client = cl ? cl->serial : 0;
	g->reply = reply;
	g->begun_ns = now_ns();
	snprintf(g->job, sizeof(g->job), "%s", job);
	return g;
}

void group_join(struct group *g, struct op *op)
{
	op->group = g;
	g->n++;
	g->total++;
}

static void group_free(struct group *g)
{
	for (size_t i = 0; i < g->nnotes; i++)
		free(g->notes[i]);
	link_free(g->error);
	free(g);
}

void group_hold(struct group *g)
{
	g->n++;
}

void group_release(struct group *g)
{
	if (--g->n == 0)
		group_free(g);
}

void group_leave(struct op *op)
{
	struct group *g = op->group;

	op->group = NULL;
	group_release(g);
}

/* Calls @fn for each operation in @g but @not, which may end it. */
static void each(struct group *g, const struct op *not, void (*fn)(struct op *))
{
	struct op *next;

	group_hold(g);
	for (struct op *op = g->coord->ops; op; op = next) {
		next = op->next;
		if (op->group == g && op != not)
			fn(op);
	}
	group_release(g);
}

static bool all_at(const struct group *g, int at)
{
	size_t n = 0;

	for (const struct op *op = g->coord->ops; op; op = op->next)
		n += op->group == g && op->at >= at && op->stage < ST_COMMIT;
	return n == g->total;
}

/* ---- barriers */

/* At most what the user has allowed for all of it. */
static void limit(struct op *op, uint64_t ms)
{
	uint64_t all = op->asked ? op->asked->migrate_req->timeout_s * 1000ull : 0, gone = (now_ns() - op->begun_ns) / NSEC_PER_MSEC;

	if (all)
		ms = MIN(ms, all > gone ? all - gone : 1);
	op_timer(op, (unsigned)ms);
}

static void go(struct op *op)
{
	LINK_ENVELOPE(env, op_go, OP_GO, Pm__OpGo, pm__op_go__init);
	env_body.op = op->j.id;
	env_body.barrier = (Pm__Barrier)op->group->gone;
	limit(op, op->group->gone == PM__BARRIER__BARRIER_PRECOPIED && !op->image->checkpoint_req->term ? FREEZE_MS : SAVE_MS);
	node_tell(op->source, &env);
}

void group_at(struct op *op, int barrier)
{
	struct group *g = op->group;

	if (barrier <= op->at || barrier >= AT_READY || op->stage != ST_PRECOPY)
		return;
	op->at = barrier;
	if (barrier == PM__BARRIER__BARRIER_CUT)
		limit(op, FREEZE_MS);
	else if (barrier == PM__BARRIER__BARRIER_SAVED)
		limit(op, SAVE_MS);
	if (!all_at(g, barrier) || fault_point("coord", "barrier", NULL) < 0)
		return;
	log_debug("job '%s': all %zu pods are at barrier %d", g->job, g->total, barrier);
	g->gone = barrier;
	each(g, NULL, go);
}

static void commit(struct op *op)
{
	op->j.state = JOURNAL_COMMIT;
	op_enter(op, ST_COMMIT);
}

void group_ready(struct op *op)
{
	struct group *g = op->group;
	const char *ids[GROUP_MAX];
	struct err e = { 0 };
	size_t n = 0;
	int r;

	op->at = AT_READY;
	limit(op, SAVE_MS);
	if (!all_at(g, AT_READY))
		return;
	for (struct op *o = g->coord->ops; o; o = o->next)
		if (o->group == g) {
			o->ready_ns = now_ns();
			ids[n++] = o->j.id;
		}
	r = fault_point("coord", "commit", &e);
	if (r == 0)
		r = journal_decide_all(g->coord->journal, ids, n, JOURNAL_COMMIT, &e);
	if (r < 0) {
		op_undo(op, EX_OTHER, "%s", e.msg);
		return;
	}
	g->committed = true;
	fault_point("coord", "committed", NULL);
	each(g, NULL, commit);
}

bool group_waits(const struct op *op)
{
	return op->group && op->at > op->group->gone;
}

/* ---- failure */

static void give_up(struct op *op)
{
	struct group *g = op->group;

	if (op->stage < ST_COMMIT)
		op_undo(op, EX_ABORTED, "another pod of job '%s' could not go on", g->job);
}

void group_failed(struct op *op)
{
	struct group *g = op->group;

	if (!g->blamed)
		g->blamed = op;
	if (g->committed || g->gone == PM__BARRIER__BARRIER_SAVED || op->dry_run || g->blamed != op)
		return;
	each(g, op, give_up);
}

/* ---- the answer */

static void reply_error(struct group *g, struct client *cl)
{
	char look[] = "podctl image list, podctl restore --dry-run";
	char again[] = "podctl kill ends those that run; then restore the job again";
	char cause[600], state[300];
	Pm__Error er;

	pm__error__init(&er);
	if (g->error)
		er = *g->error->error;
	snprintf(cause, sizeof(cause), "pod '%s': %s", g->culprit, er.cause);
	er.cause = cause;
	if (!er.exit_code)
		er.exit_code = EX_OTHER;
	if (g->gone == PM__BARRIER__BARRIER_SAVED) {
		er.exit_code = EX_UNKNOWN;
		er.hint = look;
		snprintf(state, sizeof(state), "all images of '%s' were there; whether they still are, this node must say", g->image);
	} else if (g->good && g->committed) {
		er.exit_code = EX_PARTIAL;
		er.hint = again;
		snprintf(state, sizeof(state), "%zu of %zu pods of job '%s' are done; %s", g->good, g->total, g->job, g->state);
	} else if (g->state[0]) {
		snprintf(state, sizeof(state), "%s", g->state);
	} else if (g->image[0]) {
		snprintf(state, sizeof(state), "all %zu pods of job '%s' run as before; there is no new image", g->total, g->job);
	} else {
		snprintf(state, sizeof(state), "the images are as they were; no pod of job '%s' was started", g->job);
	}
	er.state = state;
	LINK_ENVELOPE(env, error, ERROR, Pm__Error, pm__error__init);
	env_body = er;
	client_send(cl, g->reply, &env);
}

static void reply_result(struct group *g, struct client *cl)
{
	char nodes[32];

	LINK_ENVELOPE(env, migrate_rep, MIGRATE_REP, Pm__MigrateRep, pm__migrate_rep__init);
	env_body.pod = g->job;
	env_body.image = g->image;
	env_body.frozen_ns = g->frozen_ns;
	env_body.total_ns = now_ns() - g->begun_ns;
	env_body.rounds = g->rounds;
	env_body.sent = g->sent;
	env_body.notes = g->notes;
	env_body.n_notes = g->nnotes;
	env_body.pods = (uint32_t)g->total;
	snprintf(nodes, sizeof(nodes), "%zu pods", g->total);
	env_body.to = nodes;
	client_send(cl, g->reply, &env);
}

static void answer(struct group *g)
{
	struct client *cl = client_by_serial(g->coord, g->client);

	if (g->good + g->bad < g->total)
		return;
	if (!g->bad)
		log_info("job '%s': %zu pods %s%s", g->job, g->total, g->image[0] ? "are in image " : "run again", g->image);
	g->client = 0;
	if (cl && g->bad)
		reply_error(g, cl);
	else if (cl)
		reply_result(g, cl);
}

static void note(struct group *g, const char *pod, const char *words)
{
	if (g->nnotes < ARRAY_SIZE(g->notes) && asprintf(&g->notes[g->nnotes], "%s: %s", pod, words) >= 0)
		g->nnotes++;
}

void group_result(struct op *op, const Pm__MigrateRep *r)
{
	struct group *g = op->group;

	if (op->answered)
		return;
	op->answered = true;
	g->good++;
	g->frozen_ns = MAX(g->frozen_ns, r->frozen_ns);
	g->rounds = MAX(g->rounds, r->rounds);
	g->sent += r->sent;
	for (size_t i = 0; i < r->n_notes; i++)
		note(g, op->j.pod, r->notes[i]);
	if (op_is_checkpoint(op)) {
		char words[80];

		snprintf(words, sizeof(words), "frozen %.1f ms", (double)r->frozen_ns / 1e6);
		note(g, op->j.pod, words);
	}
	answer(g);
}

void group_error(struct op *op, const Pm__Error *er, const char *state, bool settled)
{
	struct group *g = op->group;

	if (op->answered)
		return;
	op->answered = true;
	g->bad++;
	if (!g->error || g->blamed == op) {
		LINK_ENVELOPE(env, error, ERROR, Pm__Error, pm__error__init);
		env_body = *er;
		link_free(g->error);
		g->error = envelope_copy(&env);
		snprintf(g->culprit, sizeof(g->culprit), "%s", op->j.pod);
	}
	if (!settled || g->good || g->committed || op_pod_ended(op))
		snprintf(g->state, sizeof(g->state), "%s", state);
	answer(g);
}
