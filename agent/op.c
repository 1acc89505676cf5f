/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * A migration on this node: theory of operation.
 *
 * Both sides are state machines fed by three mouths: the engine (a process that may die at any time),
 * the coordinator (which may be away), and our own timers and threads. What to do is in the table
 * below, one line per (state, event); an event that has no line is ignored.
 *
 *	source:  DUMP --READY--> READY --STARTED--> FLUSH --DONE, dead, late--> CLEAN --> gone
 *	          |                '--ABORT--> UNDO --> (REPAIR) --> the pod runs
 *	          '--ABORT, coordinator lost--> UNDO ; engine failed --> the pod runs ; engine dead --> REPAIR
 *
 *	target:  OPEN --LISTENING--> RECV --READY--> READY --COMMIT--> RUN --DONE, dead--> an ordinary pod
 *	          '----- all else ----+----------------'--ABORT--> UNDO --> REMOVE --> gone
 *
 * Invariants. Before READY a side acts alone: any trouble undoes it. From READY on it does not: the
 * source thaws only on ABORT from the coordinator, is killed only on STARTED; the target thaws
 * only after START is on its disk, is removed only after REFUSED is. cgroup.freeze holds both still, so
 * neither an engine's death nor ours changes anything; after our restart op_resume() finds the state
 * again from three things: the pod's registry entry, cgroup.freeze, and the record.
 */
#include "agent/op.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>

#include "pod/base/fault.h"
#include "pod/base/io.h"
#include "pod/base/log.h"
#include "pod/base/util.h"

#define ENGINE_LAST_MS 5000 /* what an engine of our former life gets to undo and exit */

static const struct {
	enum op_state state;
	enum op_event event;
	op_handler *handle;
} table[] = {
	{ SRC_DUMP, EV_PROGRESS, op_forward_progress },
	{ SRC_DUMP, EV_AT, src_at },
	{ SRC_DUMP, EV_GO, src_go },
	{ SRC_DUMP, EV_READY, src_ready },
	{ SRC_DUMP, EV_FAILED, op_keep_last },
	{ SRC_DUMP, EV_DONE, op_keep_last },
	{ SRC_DUMP, EV_GONE, src_dump_gone },
	{ SRC_DUMP, EV_ABORT, src_abort },
	{ SRC_DUMP, EV_LOST, src_left_alone },
	{ SRC_DUMP, EV_DIED, src_left_alone },
	{ SRC_READY, EV_PROGRESS, op_forward_progress },
	{ SRC_READY, EV_FAILED, op_keep_last },
	{ SRC_READY, EV_GONE, src_orphaned },
	{ SRC_READY, EV_STARTED, src_started },
	{ SRC_READY, EV_ABORT, src_ready_abort },
	{ SRC_FLUSH, EV_DONE, src_flushed },
	{ SRC_FLUSH, EV_FAILED, src_flushed },
	{ SRC_FLUSH, EV_GONE, src_flushed },
	{ SRC_FLUSH, EV_LATE, src_flushed },
	{ SRC_CLEAN, EV_CLEANED, src_cleaned },
	{ SRC_CLEAN, EV_LATE, src_flushed },
	{ SRC_UNDO, EV_FAILED, op_keep_last },
	{ SRC_UNDO, EV_DONE, op_keep_last },
	{ SRC_UNDO, EV_GONE, src_undo_gone },
	{ SRC_UNDO, EV_LATE, src_kill_engine },
	{ SRC_REPAIR, EV_CLEANED, src_undone },

	{ TGT_OPEN, EV_LISTENING, tgt_listening },
	{ TGT_OPEN, EV_READY, tgt_early },
	{ TGT_OPEN, EV_FAILED, op_keep_last },
	{ TGT_OPEN, EV_DONE, op_keep_last },
	{ TGT_OPEN, EV_GONE, tgt_gone },
	{ TGT_OPEN, EV_ABORT, tgt_abort },
	{ TGT_OPEN, EV_LOST, tgt_abort },
	{ TGT_RECV, EV_PROGRESS, op_forward_progress },
	{ TGT_RECV, EV_READY, tgt_ready },
	{ TGT_RECV, EV_FAILED, op_keep_last },
	{ TGT_RECV, EV_DONE, op_keep_last },
	{ TGT_RECV, EV_GONE, tgt_gone },
	{ TGT_RECV, EV_ABORT, tgt_abort },
	{ TGT_RECV, EV_LOST, tgt_abort },
	{ TGT_READY, EV_GONE, tgt_orphaned }, /* REFUSED */
	{ TGT_READY, EV_COMMIT, tgt_commit },
	{ TGT_READY, EV_ABORT, tgt_abort },
	{ TGT_READY, EV_DIED, tgt_abort },
	{ TGT_RUN, EV_COMMIT, tgt_recommit },
	{ TGT_RUN, EV_DONE, tgt_run_done },
	{ TGT_RUN, EV_FAILED, op_keep_last },
	{ TGT_RUN, EV_GONE, tgt_run_done },
	{ TGT_RUN, EV_LATE, tgt_kill_engine },
	{ TGT_RUN, EV_DIED, tgt_run_died },
	{ TGT_RUN, EV_ABORT, tgt_run_fenced },
	{ TGT_UNDO, EV_GONE, tgt_undo_gone },
	{ TGT_UNDO, EV_LATE, tgt_kill_engine },
	{ TGT_REMOVE, EV_CLEANED, tgt_removed },
};

static const char *const state_name[NUM_OP_STATES] = {
	"dump", "ready", "flush", "clean", "undo", "repair",
	"open", "recv", "ready", "run",	  "undo", "remove",
};

void op_event(struct op *op, enum op_event ev, const Pm__Envelope *env)
{
	log_debug("operation %s in state %s: event %d", op->id, state_name[op->state], ev);
	for (size_t i = 0; i < ARRAY_SIZE(table); i++)
		if (table[i].state == op->state && table[i].event == ev) {
			table[i].handle(op, env);
			return;
		}
	log_debug("operation %s in state %s: event %d means nothing", op->id,
		  state_name[op->state], ev);
}

/* ---- what both sides use */

struct op *op_find(struct agent *a, const char *id)
{
	for (struct op *op = a->ops; op; op = op->next)
		if (strcmp(op->id, id) == 0)
			return op;
	return NULL;
}

struct pod *op_pod(struct op *op)
{
	struct pod *p = pod_find(op->agent, op->name);

	return p && strcmp(p->op, op->id) == 0 ? p : NULL;
}

void op_timer(struct op *op, unsigned ms)
{
	struct timeval tv = { .tv_sec = ms / 1000, .tv_usec = (ms % 1000) * 1000 };

	if (ms)
		event_add(op->timer, &tv);
	else
		event_del(op->timer);
}

static void on_timer(evutil_socket_t fd, short what, void *arg)
{
	unsigned more = deadline_grace_ms();

	(void)fd;
	(void)what;
	if (more)
		op_timer(arg, more); /* the machine stood still: what it waits for may be on its way */
	else
		op_event(arg, EV_LATE, NULL);
}

struct op *op_new(struct agent *a, const char *id, struct pod *p, enum op_state state)
{
	struct op *op = calloc(1, sizeof(*op));

	if (!op)
		return NULL;
	op->agent = a;
	op->state = state;
	op->record = op->netns = -1;
	op->epoch = p->epoch;
	snprintf(op->id, sizeof(op->id), "%s", id);
	snprintf(op->name, sizeof(op->name), "%s", p->spec->name);
	snprintf(op->phase, sizeof(op->phase), "check");
	op->place.dir = strdup(p->dir);
	op->place.cgroup = strdup(p->cgroup);
	op->place.host_link = strdup(p->host_link);
	op->timer = event_new(a->base, -1, 0, on_timer, op);
	snprintf(p->op, sizeof(p->op), "%s", id);
	op->next = a->ops;
	a->ops = op;
	return op;
}

void op_finish(struct op *op)
{
	for (struct op **at = &op->agent->ops; *at; at = &(*at)->next)
		if (*at == op) {
			*at = op->next;
			break;
		}
	worker_drop(op->worker);
	event_free(op->timer);
	link_free(op->last);
	link_free(op->queued);
	link_free(op->early);
	close_fdp(&op->record);
	close_fdp(&op->netns);
	free((void *)(uintptr_t)op->place.dir);
	free((void *)(uintptr_t)op->place.cgroup);
	free((void *)(uintptr_t)op->place.host_link);
	free(op);
}

static void engine_message(struct worker *w, const Pm__Envelope *env, void *arg)
{
	static const struct {
		Pm__Envelope__BodyCase body;
		enum op_event event;
	} events[] = {
		{ PM__ENVELOPE__BODY_PROGRESS, EV_PROGRESS },
		{ PM__ENVELOPE__BODY_ENGINE_LISTENING, EV_LISTENING },
		{ PM__ENVELOPE__BODY_OP_AT, EV_AT },
		{ PM__ENVELOPE__BODY_ENGINE_READY, EV_READY },
		{ PM__ENVELOPE__BODY_ENGINE_DONE, EV_DONE },
		{ PM__ENVELOPE__BODY_ENGINE_FAILED, EV_FAILED },
	};

	(void)w;
	for (size_t i = 0; i < ARRAY_SIZE(events); i++)
		if (events[i].body == env->body_case) {
			op_event(arg, events[i].event, env);
			return;
		}
}

static void engine_gone(struct worker *w, void *arg)
{
	struct op *op = arg;

	(void)w;
	op->worker = NULL;
	op_event(op, EV_GONE, NULL);
}

static const struct worker_ops engine_ops = { engine_message, engine_gone };

int op_engine_start(struct op *op, struct err *e)
{
	struct pod *p = op_pod(op);

	op->worker = worker_start(op->agent, &engine_ops, op, e);
	if (!op->worker)
		return e->code;
	if (p) {
		p->engine = worker_pid(op->worker);
		p->engine_start = process_start_time(p->engine);
	}
	return 0;
}

void op_tell_engine_abort(struct op *op, bool unsure)
{
	LINK_ENVELOPE(env, engine_abort, ENGINE_ABORT, Pm__EngineAbort, pm__engine_abort__init);
	env_body.unsure = unsure;
	worker_send(op->worker, &env);
}

Pm__Envelope *envelope_copy(const Pm__Envelope *env)
{
	autofree uint8_t *frame = NULL;
	size_t len;

	if (link_pack(env, &frame, &len, NULL) < 0)
		return NULL;
	return link_unpack(frame + LINK_HEADER, len - LINK_HEADER, NULL);
}

void op_keep_last(struct op *op, const Pm__Envelope *env)
{
	link_free(op->last);
	op->last = envelope_copy(env);
}

void op_forward_progress(struct op *op, const Pm__Envelope *env)
{
	Pm__Progress m = *env->progress;
	const char *side = op->state >= TGT_OPEN ? "agent-target" : "agent-source";

	if (m.phase[0] && strcmp(m.phase, op->phase) != 0) {
		snprintf(op->phase, sizeof(op->phase), "%s", m.phase);
		fault_point(side, op->phase, NULL);
	}
	if (op->state >= TGT_OPEN && !op->image)
		return; /* one side's word is enough for the user */
	LINK_ENVELOPE(out, progress, PROGRESS, Pm__Progress, pm__progress__init);
	out_body = m;
	out_body.op = op->id;
	out_body.pod = op->name;
	agent_send(op->agent, &out);
}

void op_send_failed(struct op *op, const struct err *e, int exit_code, const char *state)
{
	Pm__Error er;

	if (op->hushed)
		return;
	op->hushed = true;
	pm__error__init(&er);
	if (op->last && op->last->body_case == PM__ENVELOPE__BODY_ENGINE_FAILED &&
	    op->last->engine_failed->error)
		er = *op->last->engine_failed->error;
	else if (e)
		er.cause = (char *)(uintptr_t)e->msg;
	if (!er.exit_code)
		er.exit_code = exit_code;
	if (!er.phase[0])
		er.phase = op->phase;
	er.state = (char *)(uintptr_t)state;
	log_warn("operation %s failed in %s: %s", op->id, er.phase, er.cause);
	LINK_ENVELOPE(env, op_failed, OP_FAILED, Pm__OpFailed, pm__op_failed__init);
	env_body.op = op->id;
	env_body.error = &er;
	agent_send(op->agent, &env);
}

void op_send_aborted(struct agent *a, const char *id)
{
	LINK_ENVELOPE(env, op_aborted, OP_ABORTED, Pm__OpAborted, pm__op_aborted__init);
	env_body.op = (char *)(uintptr_t)id;
	agent_send(a, &env);
}

static void thread_done(void *arg, int r, const struct err *e)
{
	struct op *op = arg;

	if (r < 0)
		log_error("operation %s: %s", op->id, e->msg);
	op_event(op, EV_CLEANED, NULL);
}

void op_thread(struct op *op, int (*fn)(void *op, struct err *e))
{
	if (task_run(op->agent, fn, thread_done, op) < 0) {
		struct err e = { 0 };

		/* no thread: then this loop waits */
		thread_done(op, fn(op, &e), &e);
	}
}

/* ---- from the coordinator */

void op_aborted(struct agent *a, uint32_t id, const Pm__OpAborted *m)
{
	struct op *op = op_find(a, m->op);

	(void)id;
	if (op) {
		op_event(op, EV_ABORT, NULL);
		return;
	}
	for (op = a->ops; op; op = op->next)
		if (op->queued && strcmp(op->queued->agent_outgoing->op, m->op) == 0) {
			link_free(op->queued);
			op->queued = NULL;
		}
	tgt_fence(a, m->op);
	op_send_aborted(a, m->op); /* nothing of it is left here */
}

void op_go(struct agent *a, uint32_t id, const Pm__OpGo *m)
{
	struct op *op = op_find(a, m->op);

	(void)id;
	LINK_ENVELOPE(env, op_go, OP_GO, Pm__OpGo, pm__op_go__init);
	env_body = *m;
	if (op)
		op_event(op, EV_GO, &env);
}

void ops_coord_lost(struct agent *a)
{
	struct op *next;

	for (struct op *op = a->ops; op; op = next) {
		next = op->next;
		op_event(op, EV_LOST, NULL);
	}
}

bool op_pod_died(struct pod *p)
{
	struct op *op = op_find(p->agent, p->op);

	if (!p->op[0] || !op)
		return false;
	op_event(op, EV_DIED, NULL);
	return true;
}

void op_query(struct agent *a, uint32_t id, const Pm__OpQuery *m)
{
	struct record rec;
	struct err e;

	LINK_ENVELOPE(env, op_outcome_rep, OP_OUTCOME_REP, Pm__OpOutcomeRep,
		      pm__op_outcome_rep__init);
	env.id = id;
	env_body.op = m->op;
	if (record_read(a, m->op, &rec, &e) < 0)
		env_body.outcome = PM__OP_OUTCOME__OUTCOME_UNKNOWN;
	else if (rec.outcome == OP_START)
		env_body.outcome = pod_find(a, m->pod) ? PM__OP_OUTCOME__OUTCOME_START :
							 PM__OP_OUTCOME__OUTCOME_UNKNOWN;
	else if (rec.outcome == OP_REFUSED)
		env_body.outcome = PM__OP_OUTCOME__OUTCOME_REFUSED;
	else
		env_body.outcome = PM__OP_OUTCOME__OUTCOME_NONE;
	agent_send(a, &env);
}

/* ---- after our own restart */

/* The engine that our former life started has seen EOF and ends by itself; one that does not is ended. */
void engine_wait(struct pod *p)
{
	autoclose int fd = -1;
	struct pollfd pfd = { .events = POLLIN };
	pid_t pid = p->engine;

	p->engine = 0;
	if (pid <= 0 || !p->engine_start || process_start_time(pid) != p->engine_start)
		return;
	fd = (int)syscall(SYS_pidfd_open, pid, 0);
	if (fd < 0)
		return;
	pfd.fd = fd;
	if (io_poll(&pfd, 1, deadline_ms(ENGINE_LAST_MS)) > 0)
		return;
	log_warn("pod-engine %d of pod '%s' does not end by itself", pid, p->spec->name);
	syscall(SYS_pidfd_send_signal, fd, SIGKILL, NULL, 0);
	poll(&pfd, 1, 1000);
}

int op_resume(struct pod *p, bool alive, struct err *e)
{
	bool target = p->state == PM__POD_STATE__POD_INCOMING;
	char id[48];
	struct op *op;

	engine_wait(p);
	memcpy(id, p->op, sizeof(id));
	op = op_new(p->agent, id, p, target ? TGT_READY : SRC_READY);
	if (!op)
		return err_num(e, ENOMEM, "operation %s", id);
	if (p->netns >= 0)
		op->netns = fcntl(p->netns, F_DUPFD_CLOEXEC, 0);
	return target ? tgt_resume(op, alive, e) : src_resume(op, alive, e);
}
