/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Migrations: theory of operation.
 *
 *	RESERVE --LISTENING--> PRECOPY --both READY--> COMMIT --STARTED--> CLEAN --CLEAN--> done
 *	   '---------------------'----- failure ---> UNDO <--REFUSED--'
 *
 * The journal decides: before COMMIT is in it any trouble (a failure, a lost node, a deadline, the user)
 * leads to UNDO; after it only the target's REFUSED does. What was decided is said again to a node that
 * comes back until it has answered, by this life of the coordinator or the next (recover.c): OpCommit,
 * OpStarted and OpAborted may be heard any number of times.
 *
 * Frozen time: between the second READY and OpCommit there is one transaction, between OpStarted
 * and OpStarted to the source nothing. Keep it so.
 */
#include "coordinator/ops.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "pod/base/fault.h"
#include "pod/base/io.h"
#include "pod/base/log.h"
#include "pod/base/util.h"

#define SILENT_MS 60000 /* no progress at all for so long: given up */
#define RESERVE_MS 60000 /* nobody stands still for it, and who is lost is noticed otherwise */
#define CONNECT_MS 30000
#define LOST_MS 5000 /* the user waits so long for a lost node */

static void enter_reserve(struct op *op);
static void enter_precopy(struct op *op);
static void enter_commit(struct op *op);
static void enter_clean(struct op *op);
static void enter_undo(struct op *op);
static void late_before_commit(struct op *op);
static void late_commit(struct op *op);
static void late_clean(struct op *op);
static void late_undo(struct op *op);

static const struct {
	const char *name;
	unsigned deadline_ms;
	void (*enter)(struct op *op);
	void (*late)(struct op *op);
} stages[NUM_STAGES] = {
	[ST_RESERVE] = { "reserve", RESERVE_MS, enter_reserve, late_before_commit },
	[ST_PRECOPY] = { "precopy", SILENT_MS, enter_precopy, late_before_commit },
	[ST_COMMIT] = { "commit", 5000, enter_commit, late_commit },
	[ST_CLEAN] = { "clean", 30000, enter_clean, late_clean },
	[ST_UNDO] = { "undo", 20000, enter_undo, late_undo },
};

const char *op_stage_name(const struct op *op)
{
	return op->stage == ST_PRECOPY && op->phase[0] ? op->phase : stages[op->stage].name;
}

/* ---- life */

void op_timer(struct op *op, unsigned ms)
{
	struct timeval tv = { .tv_sec = ms / 1000, .tv_usec = (ms % 1000) * 1000 };

	event_add(op->timer, &tv);
}

void op_enter(struct op *op, enum stage stage)
{
	op->stage = stage;
	op_timer(op, stages[stage].deadline_ms);
	stages[stage].enter(op);
}

/* Has it taken as long as the user allows? */
static bool users_time_over(const struct op *op)
{
	const Pm__MigrateReq *m = op->asked ? op->asked->migrate_req : NULL;

	return op->stage == ST_PRECOPY && m && m->timeout_s && !m->timeout_stop_copy &&
	       now_ns() - op->begun_ns >= m->timeout_s * NSEC_PER_SEC;
}

static void on_timer(evutil_socket_t fd, short what, void *arg)
{
	struct op *op = arg;
	unsigned more = users_time_over(op) ? 0 : deadline_grace_ms();

	(void)fd;
	(void)what;
	if (more)
		op_timer(op, more); /* the machine stood still: what it waits for may be on its way */
	else
		stages[op->stage].late(op);
}

struct op *op_new(struct coord *c, const struct journal_op *j)
{
	struct op *op = calloc(1, sizeof(*op));

	if (!op)
		return NULL;
	op->coord = c;
	op->j = *j;
	op->uid = j->uid;
	op->source = node_find(c, j->source);
	op->target = node_find(c, j->target);
	op->begun_ns = now_ns();
	op->timer = event_new(c->base, -1, 0, on_timer, op);
	if (!op->timer) {
		free(op);
		return NULL;
	}
	op->next = c->ops;
	c->ops = op;
	return op;
}

void op_free(struct op *op)
{
	struct coord *c = op->coord;

	op_tell_waiters(op);
	for (struct op **at = &op->coord->ops; *at; at = &(*at)->next)
		if (*at == op) {
			*at = op->next;
			break;
		}
	if (op->group)
		group_leave(op);
	event_free(op->timer);
	link_free(op->asked);
	link_free(op->error);
	link_free(op->result);
	link_free(op->image);
	link_free(op->ready);
	free(op);
	if (!c->ops)
		journal_rest(c->journal);
}

struct op *op_find(struct coord *c, const char *id)
{
	for (struct op *op = c->ops; op; op = op->next)
		if (strcmp(op->j.id, id) == 0)
			return op;
	return NULL;
}

Pm__Envelope *envelope_copy(const Pm__Envelope *env)
{
	autofree uint8_t *frame = NULL;
	size_t len;

	if (link_pack(env, &frame, &len, NULL) < 0)
		return NULL;
	return link_unpack(frame + LINK_HEADER, len - LINK_HEADER, NULL);
}

static struct client *op_client(struct op *op)
{
	uint64_t serial = op_waiting(op);

	return serial ? client_by_serial(op->coord, serial) : NULL;
}

/* Inside the freeze a failing journal means ABORT, which needs no journal: BEGUN aborts by itself. */
static void decide(struct op *op, enum journal_state state)
{
	struct err e;

	if (journal_decide(op->coord->journal, op->j.id, state, &e) < 0)
		log_error("operation %s: %s", op->j.id, e.msg);
	op->j.state = state;
}

/* ---- failure */

static void keep_error(struct op *op, const Pm__Error *er)
{
	if (op->error)
		return;
	LINK_ENVELOPE(env, error, ERROR, Pm__Error, pm__error__init);
	env_body = *er;
	op->error = envelope_copy(&env);
}

static void keep_failure(struct op *op, int exit_code, const char *cause)
{
	Pm__Error er;

	pm__error__init(&er);
	er.exit_code = exit_code;
	er.phase = op->stage == ST_PRECOPY && op->phase[0] ?
			   op->phase :
			   (char *)(uintptr_t)stages[op->stage].name;
	er.cause = (char *)(uintptr_t)cause;
	keep_error(op, &er);
}

const char *op_way(const struct op *op, char *buf, size_t len)
{
	snprintf(buf, len, "%s -> %s", op_is_restart(op) ? "image" : op->j.source,
		 op_is_checkpoint(op) ? "image" : op->j.target);
	return buf;
}

void op_undo(struct op *op, int exit_code, const char *fmt, ...)
{
	char cause[400], way[140];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(cause, sizeof(cause), fmt, ap);
	va_end(ap);
	keep_failure(op, exit_code, cause);
	log_warn("operation %s (%s: %s): %s", op->j.id, op->j.pod, op_way(op, way, sizeof(way)), cause);
	op_enter(op, ST_UNDO);
}

/* @settled: it will not change any more. */
static void reply_error(struct op *op, const char *state, const char *hint, bool settled)
{
	struct client *cl = op_client(op);
	Pm__Error er;

	op->client = 0;
	if (!cl && !op->group)
		return;
	pm__error__init(&er);
	if (op->error)
		er = *op->error->error;
	if (!er.exit_code)
		er.exit_code = EX_OTHER;
	er.state = (char *)(uintptr_t)state;
	if (!er.hint[0])
		er.hint = (char *)(uintptr_t)hint;
	if (op->group) {
		group_error(op, &er, state, settled);
		return;
	}
	LINK_ENVELOPE(env, error, ERROR, Pm__Error, pm__error__init);
	env_body = er;
	client_send(cl, op->reply, &env);
}

static void reply_result(struct op *op)
{
	struct client *cl = op_client(op);
	Pm__Phase commit, *phases[32];
	char name[] = "commit";
	Pm__MigrateRep *got = op->result && op->result->op_clean->result ?
				      op->result->op_clean->result :
				      NULL;
	size_t n = 0;

	op->client = 0;
	if (!cl && !op->group)
		return;
	LINK_ENVELOPE(env, migrate_rep, MIGRATE_REP, Pm__MigrateRep, pm__migrate_rep__init);
	if (got) {
		env_body = *got;
		for (size_t i = 0; i < got->n_phases && n < ARRAY_SIZE(phases) - 1; i++)
			if (strcmp(got->phases[i]->name, name) != 0) /* ours is the true one */
				phases[n++] = got->phases[i];
	}
	pm__phase__init(&commit);
	commit.name = name;
	commit.ns = op->started_ns - op->ready_ns;
	if (op->started_ns)
		phases[n++] = &commit;
	env_body.phases = phases;
	env_body.n_phases = n;
	env_body.op = op->j.id;
	env_body.pod = op->j.pod;
	env_body.from = op->j.source;
	env_body.to = op->j.target;
	if (op->ready) {
		env_body.notes = op->ready->op_ready->notes;
		env_body.n_notes = op->ready->op_ready->n_notes;
	}
	if (op_is_checkpoint(op) && !env_body.image[0] && op->image) /* nobody is left to say it */
		env_body.image = op->image->checkpoint_req->store ? op->image->checkpoint_req->id :
								    op->image->checkpoint_req->path;
	if (op_is_restart(op))
		env_body.frozen_ns = 0;
	else if (!env_body.frozen_ns && op->started_ns && op->froze_ns)
		env_body.frozen_ns = op->started_ns - op->froze_ns; /* the source's engine died */
	env_body.total_ns = (op->started_ns ? op->started_ns : now_ns()) - op->begun_ns;
	if (op->group)
		group_result(op, &env_body);
	else
		client_send(cl, op->reply, &env);
}

/* ---- RESERVE */

static void enter_reserve(struct op *op)
{
	struct err e;

	if (fault_point("coord", "check", &e) < 0) {
		op_undo(op, EX_OTHER, "%s", e.msg);
		return;
	}
	LINK_ENVELOPE(env, agent_incoming, AGENT_INCOMING, Pm__AgentIncoming,
		      pm__agent_incoming__init);
	env_body.op = op->j.id;
	env_body.spec = op->spec;
	env_body.epoch = op->j.epoch;
	env_body.token.data = op->token;
	env_body.token.len = sizeof(op->token);
	env_body.deadline_ms = CONNECT_MS;
	env_body.dry_run = op->dry_run;
	if (op_is_restart(op))
		env_body.image = op->image->restore_req;
	node_tell(op->target, &env);
}

static void late_before_commit(struct op *op)
{
	if (group_waits(op))
		op_undo(op, EX_ABORTED, "other pods of job '%s' were not ready in time", op->group->job);
	else if (op->src_ready || op->tgt_ready)
		op_undo(op, EX_ABORTED, "the %s was not ready in time",
			op->src_ready ? "target" : "source");
	else if (op->asked->migrate_req->timeout_s && op->stage == ST_PRECOPY)
		op_undo(op, EX_ABORTED, "not done within %u s",
			op->asked->migrate_req->timeout_s);
	else
		op_undo(op, EX_ABORTED, "node '%s' gave no sign of progress in time",
			op->stage == ST_RESERVE || op_is_restart(op) ? op->j.target : op->j.source);
}

/* ---- PRECOPY */

static void on_listening(struct op *op, struct node *n, const Pm__Envelope *env)
{
	if (n != op->target || op->stage != ST_RESERVE)
		return;
	if (fault_point("coord", "reserve", NULL) < 0) {
		op_undo(op, EX_OTHER, "fault injected");
		return;
	}
	if (!op_is_restart(op))
		op_tell_outgoing(op, env->agent_listening);
	op_enter(op, ST_PRECOPY);
}

void op_tell_outgoing(struct op *op, const Pm__AgentListening *at)
{
	LINK_ENVELOPE(out, agent_outgoing, AGENT_OUTGOING, Pm__AgentOutgoing,
		      pm__agent_outgoing__init);
	op->stage = ST_PRECOPY;
	out_body.op = op->j.id;
	out_body.pod = op->j.pod;
	out_body.epoch = op->j.epoch;
	if (at) {
		out_body.address = at->address[0] ? at->address : op->target->conf->address;
		out_body.port = at->port;
		out_body.token.data = op->token;
		out_body.token.len = sizeof(op->token);
	}
	out_body.options = op->asked->migrate_req;
	if (op_is_checkpoint(op))
		out_body.image = op->image->checkpoint_req;
	node_tell(op->source, &out);
}

/* Of --timeout, which is also the engine's limit. */
static unsigned rest_ms(const struct op *op)
{
	uint64_t all = op->asked->migrate_req->timeout_s * 1000ull, gone = (now_ns() - op->begun_ns) / NSEC_PER_MSEC;

	return gone < all ? (unsigned)(all - gone) : 0;
}

static void enter_precopy(struct op *op)
{
	const Pm__MigrateReq *m = op->asked->migrate_req;

	/* with --timeout-action stop-copy the engine ends the rounds itself; we only watch over it */
	if (m->timeout_s)
		op_timer(op, m->timeout_stop_copy ? rest_ms(op) + SILENT_MS : m->timeout_s * 1000);
}

static void on_progress(struct op *op, struct node *n, const Pm__Envelope *env)
{
	const Pm__MigrateReq *m = op->asked->migrate_req;
	struct client *cl = op_client(op);

	(void)n;
	if (op->stage != ST_PRECOPY)
		return;
	snprintf(op->phase, sizeof(op->phase), "%s", env->progress->phase);
	fault_point("coord", env->progress->phase, NULL);
	if (!op->src_ready && !op->tgt_ready && (!m->timeout_s || m->timeout_stop_copy) && !(op->group && op->group->gone > op->at))
		op_timer(op, strcmp(op->phase, "save") == 0 ? SAVE_MS : rest_ms(op) + SILENT_MS);
	if (cl) {
		Pm__Envelope copy = *env;
		Pm__Progress p = *env->progress;

		if (!op_is_checkpoint(op))
			p.node = op->j.target;
		if (p.percent > 99.99)
			p.percent = 99.99;
		copy.progress = &p;
		client_send(cl, op->reply, &copy);
	}
}

static void on_ready(struct op *op, struct node *n, const Pm__Envelope *env)
{
	if (op->stage != ST_PRECOPY)
		return;
	if (n == op->source)
		op->src_ready = true;
	else if (n == op->target)
		op->tgt_ready = true;
	if (n == op->target && !op->ready)
		op->ready = envelope_copy(env);
	if (!op->froze_ns)
		op->froze_ns = now_ns();
	if ((!op->src_ready && !op_is_restart(op)) || (!op->tgt_ready && !op_is_checkpoint(op)))
		op_timer(op, FREEZE_MS);
	else if (op->group)
		group_ready(op);
	else
		op_enter(op, ST_COMMIT);
}

static void on_at(struct op *op, struct node *n, const Pm__Envelope *env)
{
	if (op->group && n == op->source)
		group_at(op, (int)env->op_at->barrier);
}

/* ---- COMMIT */

void op_tell_commit(struct op *op)
{
	LINK_ENVELOPE(env, op_commit, OP_COMMIT, Pm__OpCommit, pm__op_commit__init);
	env_body.op = op->j.id;
	env_body.epoch = op->j.epoch;
	if (op->target)
		node_tell(op->target, &env);
}

static void committed(struct op *op)
{
	if (op_is_checkpoint(op)) /* nobody else has to agree: the source's copy ends */
		op_enter(op, ST_CLEAN);
	else
		op_tell_commit(op);
}

static void enter_commit(struct op *op)
{
	uint64_t t = now_ns();
	struct err e;
	int r;

	if (op->j.state == JOURNAL_COMMIT) { /* with its group */
		committed(op);
		return;
	}
	op->ready_ns = now_ns();
	r = fault_point("coord", "commit", &e);
	if (r == 0)
		r = journal_decide(op->coord->journal, op->j.id, JOURNAL_COMMIT, &e);
	log_mark("journal", &t);
	if (r < 0) {
		op_undo(op, EX_OTHER, "%s", e.msg);
		return;
	}
	op->j.state = JOURNAL_COMMIT;
	fault_point("coord", "committed", NULL);
	committed(op);
}

static void late_commit(struct op *op)
{
	char state[200];

	keep_failure(op, EX_UNKNOWN, "the target has not answered the commit");
	if (op_is_restart(op))
		snprintf(state, sizeof(state), "pod '%s' may run on '%s', which says nothing; the image is as it was",
			 op->j.pod, op->j.target);
	else
		snprintf(state, sizeof(state),
			 "pod '%s' is frozen on '%s' until '%s' says whether it runs there", op->j.pod,
			 op->j.source, op->j.target);
	log_warn("operation %s: %s", op->j.id, state);
	reply_error(op, state, "podctl recover", false);
}

/* The target's copy counts from now on; its next report will say the same. */
static void moved(struct op *op)
{
	struct pod *s = pod_find_at(op->coord, op->j.pod, op->source);
	struct pod *t = pod_find_at(op->coord, op->j.pod, op->target);

	if (!t && s)
		t = pod_add(op->coord, op->target, s->info);
	if (!t)
		return;
	t->info->state = PM__POD_STATE__POD_RUNNING;
	t->info->epoch = op->j.epoch;
	if (t->info->op[0]) /* an empty one is a constant */
		t->info->op[0] = '\0';
}

static void on_started(struct op *op, struct node *n, const Pm__Envelope *env)
{
	(void)env;
	if (n != op->target || op->stage != ST_COMMIT)
		return;
	fault_point("coord", "started", NULL);
	if (op_is_restart(op)) {
		op->started_ns = now_ns();
		moved(op);
		image_left(op->coord, op->j.pod);
		decide(op, JOURNAL_DONE);
		reply_result(op);
		log_info("operation %s: pod '%s' runs on '%s' again", op->j.id, op->j.pod, op->j.target);
		op_free(op);
		return;
	}
	op_enter(op, ST_CLEAN);
	moved(op);
}

static void on_refused(struct op *op, struct node *n, const Pm__Envelope *env)
{
	(void)env;
	if (n != op->target || op->stage == ST_CLEAN || op->stage == ST_UNDO)
		return;
	op_undo(op, EX_RESTORE, "node '%s' refused to start the pod", op->j.target);
}

static void on_outcome(struct op *op, struct node *n, const Pm__Envelope *env)
{
	(void)env;
	if (n != op->target || op->stage != ST_COMMIT)
		return;
	if (op_is_restart(op)) { /* then nothing is in doubt */
		op_undo(op, EX_RESTORE, "the pod was started on '%s' and is gone", op->j.target);
		return;
	}
	op->unknown = true;
	log_error("operation %s: pod '%s' was started on '%s' and is gone from there; it stays frozen on '%s' until podctl recover",
		  op->j.id, op->j.pod, op->j.target, op->j.source);
	late_commit(op);
}

/* ---- CLEAN */

void op_tell_started(struct op *op)
{
	LINK_ENVELOPE(env, op_started, OP_STARTED, Pm__OpStarted, pm__op_started__init);
	env_body.op = op->j.id;
	env_body.epoch = op->j.epoch;
	if (op->source)
		node_tell(op->source, &env);
}

static void enter_clean(struct op *op)
{
	if (op_is_checkpoint(op))
		image_ended(op); /* before its node reports it as gone */
	op_tell_started(op);
	op->started_ns = now_ns();
	if (!op->ready_ns)
		op->ready_ns = op->started_ns;
	if (!op->source || !op->source->up)
		op_timer(op, 0); /* it has moved: nobody waits for the rest */
}

static void late_clean(struct op *op)
{
	log_warn("operation %s: '%s' has not yet removed its copy of pod '%s'", op->j.id,
		 op->j.source, op->j.pod);
	reply_result(op); /* it is decided; the rest is retried until done */
}

static void on_clean(struct op *op, struct node *n, const Pm__Envelope *env)
{
	struct pod *p;

	if (n != (op_is_restart(op) ? op->target : op->source))
		return;
	if (op->stage == ST_PRECOPY && op->dry_run) {
		op->result = envelope_copy(env);
		op->dry_ok = true;
		op_enter(op, ST_UNDO);
		return;
	}
	if (op->stage == ST_PRECOPY && op_is_checkpoint(op)) { /* the pod runs on: there is nothing to commit */
		op->result = envelope_copy(env);
		decide(op, JOURNAL_DONE);
		reply_result(op);
		log_info("operation %s: pod '%s' is in an image", op->j.id, op->j.pod);
		op_free(op);
		return;
	}
	if (op->stage == ST_UNDO && op_is_checkpoint(op)) { /* the abort came too late: there is an image, and the pod runs */
		op->result = envelope_copy(env);
		op->dry_ok = op->result;
		return;
	}
	if (op->stage != ST_CLEAN)
		return;
	fault_point("coord", "clean", NULL);
	op->result = envelope_copy(env);
	decide(op, JOURNAL_DONE);
	reply_result(op);
	if (op_is_checkpoint(op))
		image_ended(op);
	p = pod_find_at(op->coord, op->j.pod, op->source);
	if (p)
		pod_remove(op->coord, p);
	if (op_is_checkpoint(op))
		log_info("operation %s: pod '%s' has ended with its image", op->j.id, op->j.pod);
	else
		log_info("operation %s: pod '%s' moved from '%s' to '%s'", op->j.id, op->j.pod, op->j.source,
			 op->j.target);
	op_free(op);
}

/* ---- UNDO */

void op_tell_aborted(struct op *op, struct node *n)
{
	LINK_ENVELOPE(env, op_aborted, OP_ABORTED, Pm__OpAborted, pm__op_aborted__init);
	env_body.op = op->j.id;
	if (n)
		node_tell(n, &env);
}

bool op_pod_ended(const struct op *op)
{
	const struct pod *p = op->source ? pod_find_at(op->coord, op->j.pod, op->source) : NULL;

	return op->source && (!p || p->info->ending || p->info->state == PM__POD_STATE__POD_EXITED);
}

/* What has become of the pod at the source: "runs on 'nodeA' as before". */
static const char *at_source(const struct op *op, char *buf, size_t len)
{
	bool ended = op_pod_ended(op);

	snprintf(buf, len, "pod '%s' %s on '%s'%s", op->j.pod, ended ? "has ended" : "runs", op->j.source,
		 ended ? "" : " as before");
	return buf;
}

static void undo_check(struct op *op)
{
	char state[300], there[200];

	if (!op->src_undone || !op->tgt_undone)
		return;
	decide(op, JOURNAL_UNDONE);
	at_source(op, there, sizeof(there));
	if (op_is_checkpoint(op))
		snprintf(state, sizeof(state), "%s; %s", there, op->dry_run ? "nothing was stopped" : "there is no new image");
	else if (op_is_restart(op))
		snprintf(state, sizeof(state), "the image is as it was; nothing is left on '%s'", op->j.target);
	else
		snprintf(state, sizeof(state), "%s; nothing is left on '%s'", there, op->j.target);
	if (op->dry_ok)
		reply_result(op);
	else
		reply_error(op, state, "", true);
	op_free(op);
}

static void enter_undo(struct op *op)
{
	if (op->j.state != JOURNAL_ABORT)
		decide(op, JOURNAL_ABORT);
	if (op_is_restart(op) && op->target)
		op_unreserve(op);
	if (!op->source)
		op->src_undone = true;
	if (!op->target)
		op->tgt_undone = true;
	op_tell_aborted(op, op->source);
	op_tell_aborted(op, op->target);
	if (op->group && !op->dry_ok)
		group_failed(op);
}

static void late_undo(struct op *op)
{
	char state[300], there[200];

	if (op->src_undone && op_is_restart(op))
		snprintf(state, sizeof(state), "the image is as it was; '%s' has not yet removed its part", op->j.target);
	else if (op->src_undone)
		snprintf(state, sizeof(state), "%s; '%s' has not yet removed its part",
			 at_source(op, there, sizeof(there)), op->j.target);
	else
		snprintf(state, sizeof(state), "unknown until node '%s' answers", op->j.source);
	reply_error(op, state, "podctl nodes", false);
}

static void on_aborted(struct op *op, struct node *n, const Pm__Envelope *env)
{
	(void)env;
	/* nothing more is asked of it; the source's answer is on its way, or its loss is heard of otherwise */
	if (op->dry_run && n == op->target && op->stage == ST_PRECOPY)
		return;
	if (op->stage < ST_COMMIT) {
		op_undo(op, EX_ABORTED, "node '%s' gave it up", n->conf->name);
		return;
	}
	if (op->stage != ST_UNDO)
		return;
	if (n == op->source)
		op->src_undone = true;
	if (n == op->target)
		op->tgt_undone = true;
	/* the user need not wait for a node that is away */
	if (op->src_undone && op->target && !op->target->up)
		late_undo(op);
	undo_check(op);
}

static void on_failed(struct op *op, struct node *n, const Pm__Envelope *env)
{
	const Pm__Error *er = env->op_failed->error;

	if (op->stage == ST_UNDO && er && op->error && n == op->target &&
	    op->error->error->exit_code == EX_TRANSFER) {
		/* the source only saw its connection break; this is why */
		link_free(op->error);
		op->error = NULL;
		keep_error(op, er);
	}
	if (op->stage >= ST_COMMIT)
		return;
	if (er)
		keep_error(op, er);
	op_undo(op, n == op->source ? EX_TRANSFER : EX_RESTORE, "node '%s': %s", n->conf->name,
		er ? er->cause : "failed");
}

static void on_log(struct op *op, struct node *n, const Pm__Envelope *env)
{
	if (n == op->source && op->target)
		node_tell(op->target, env);
}

/* ---- what nodes say */

static const struct {
	Pm__Envelope__BodyCase body;
	void (*handle)(struct op *op, struct node *n, const Pm__Envelope *env);
} table[] = {
	{ PM__ENVELOPE__BODY_PROGRESS, on_progress },
	{ PM__ENVELOPE__BODY_AGENT_LISTENING, on_listening },
	{ PM__ENVELOPE__BODY_OP_AT, on_at },
	{ PM__ENVELOPE__BODY_OP_READY, on_ready },
	{ PM__ENVELOPE__BODY_OP_STARTED, on_started },
	{ PM__ENVELOPE__BODY_OP_REFUSED, on_refused },
	{ PM__ENVELOPE__BODY_OP_ABORTED, on_aborted },
	{ PM__ENVELOPE__BODY_OP_CLEAN, on_clean },
	{ PM__ENVELOPE__BODY_OP_FAILED, on_failed },
	{ PM__ENVELOPE__BODY_OP_OUTCOME_REP, on_outcome },
	{ PM__ENVELOPE__BODY_OP_LOG, on_log },
};

static const char *op_id(const Pm__Envelope *env)
{
	switch (env->body_case) {
	case PM__ENVELOPE__BODY_PROGRESS:
		return env->progress->op;
	case PM__ENVELOPE__BODY_AGENT_LISTENING:
		return env->agent_listening->op;
	case PM__ENVELOPE__BODY_OP_AT:
		return env->op_at->op;
	case PM__ENVELOPE__BODY_OP_READY:
		return env->op_ready->op;
	case PM__ENVELOPE__BODY_OP_STARTED:
		return env->op_started->op;
	case PM__ENVELOPE__BODY_OP_REFUSED:
		return env->op_refused->op;
	case PM__ENVELOPE__BODY_OP_ABORTED:
		return env->op_aborted->op;
	case PM__ENVELOPE__BODY_OP_CLEAN:
		return env->op_clean->op;
	case PM__ENVELOPE__BODY_OP_FAILED:
		return env->op_failed->op;
	case PM__ENVELOPE__BODY_OP_OUTCOME_REP:
		return env->op_outcome_rep->op;
	case PM__ENVELOPE__BODY_OP_LOG:
		return env->op_log->op;
	default:
		return "";
	}
}

void op_message(struct node *n, const Pm__Envelope *env)
{
	struct op *op = op_find(n->coord, op_id(env));

	log_debug("node '%s': %s", n->conf->name, link_body_name(env->body_case));
	for (size_t i = 0; op && i < ARRAY_SIZE(table); i++)
		if (table[i].body == env->body_case) {
			table[i].handle(op, n, env);
			return;
		}
	log_debug("node '%s': '%s' is about no operation of ours", n->conf->name,
		  link_body_name(env->body_case));
}

static void lost_before_commit(struct op *op, struct node *n)
{
	op_undo(op, EX_UNREACHABLE, "node '%s' was lost: %s", n->conf->name, n->why);
	op_timer(op, LOST_MS);
}

void ops_node_lost(struct node *n)
{
	struct op *next;

	for (struct op *op = n->coord->ops; op; op = next) {
		next = op->next;
		if (op->source != n && op->target != n)
			continue;
		if (op->stage < ST_COMMIT)
			lost_before_commit(op, n);
		else if (op->stage == ST_UNDO && n == op->target && op->src_undone)
			late_undo(op);
		else if (op->stage == ST_CLEAN && n == op->source)
			late_clean(op); /* it has moved: nobody waits for the rest */
	}
}
