/* SPDX-License-Identifier: GPL-3.0-or-later */
/* The target's side of a migration: handlers of the table in op.c. */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>

#include "agent/op.h"
#include "netfreeze/netfreeze.h"
#include "pod/base/fault.h"
#include "pod/base/io.h"
#include "pod/base/log.h"
#include "pod/base/util.h"

#define UNDO_MS 10000
#define RUN_MS 10000
#define REMOVE_MS 30000
#define PROBE_MS 30

static void refuse_incoming(struct agent *a, const char *id, int exit_code, const struct err *e)
{
	Pm__Error er;
	char phase[] = "reserve";

	pm__error__init(&er);
	er.exit_code = exit_code;
	er.phase = phase;
	er.cause = (char *)(uintptr_t)e->msg;
	LINK_ENVELOPE(env, op_failed, OP_FAILED, Pm__OpFailed, pm__op_failed__init);
	env_body.op = (char *)(uintptr_t)id;
	env_body.error = &er;
	agent_send(a, &env);
}

static int check_incoming(struct agent *a, const Pm__AgentIncoming *m, struct err *e)
{
	struct pod *p;

	if (!m->spec || !pod_name_valid(m->spec->name))
		return err_set(e, EINVAL, "the pod's name is not valid");
	p = pod_find(a, m->spec->name);
	if (p && p->state == PM__POD_STATE__POD_EXITED && !p->going)
		pod_forget(p);
	else if (p)
		return err_set(e, EBUSY, "a pod '%s' is on node '%s' already", m->spec->name,
			       a->conf.agent_name);
	return fault_point("agent-target", "check", e);
}

static void send_restore(struct op *op, struct pod *p, const Pm__AgentIncoming *m)
{
	Pm__RestoreReq image;
	char path[PATH_MAX];

	LINK_ENVELOPE(env, engine_restore, ENGINE_RESTORE, Pm__EngineRestore,
		      pm__engine_restore__init);
	env_body.op = op->id;
	env_body.spec = p->spec;
	env_body.dir = p->dir;
	env_body.cgroup = p->cgroup;
	env_body.host_link = p->host_link;
	env_body.bridge = op->agent->conf.agent_bridge;
	env_body.token = m->token;
	env_body.listen_address = op->agent->conf.agent_address;
	env_body.deadline_ms = m->deadline_ms;
	env_body.dry_run = m->dry_run;
	if (m->image) {
		image = *m->image;
		if (image.id[0]) {
			snprintf(path, sizeof(path), "%s/%s/%s.img", op->agent->conf.images_dir, p->spec->user,
				 image.id);
			image.path = path;
		}
		env_body.image = &image;
	}
	worker_send(op->worker, &env);
}

/* The coordinator hears of the port when the address is known to be free too: nothing has been stopped yet. */
static void tell_listening(struct op *op)
{
	if (!op->probed || !op->port || op->state != TGT_OPEN)
		return;
	op->state = TGT_RECV;
	LINK_ENVELOPE(out, agent_listening, AGENT_LISTENING, Pm__AgentListening,
		      pm__agent_listening__init);
	out_body.op = op->id;
	out_body.address = op->agent->conf.agent_address;
	out_body.port = op->port;
	agent_send(op->agent, &out);
	if (op->early)
		tgt_ready(op, op->early);
}

/* Beside the start of the engine. */
static void probed(struct agent *a, const char *id, int busy)
{
	struct op *op = op_find(a, id);
	struct pod *p = op ? op_pod(op) : NULL;
	struct err e;

	if (!p || op->state != TGT_OPEN)
		return;
	if (!busy) {
		op->probed = true;
		tell_listening(op);
		if (op->gone)
			tgt_gone(op, NULL);
		return;
	}
	err_set(&e, EADDRINUSE, "address %s is in use by somebody else on node '%s's network",
		p->spec->ip, a->conf.agent_name);
	op_send_failed(op, &e, 13, "");
	tgt_abort(op, NULL);
}

void op_incoming(struct agent *a, uint32_t id, const Pm__AgentIncoming *m)
{
	struct err e = { 0 };
	struct pod *p;
	struct op *op;
	int r = check_incoming(a, m, &e);

	if (r < 0) {
		refuse_incoming(a, m->op, r == -EBUSY ? 13 : 9, &e);
		return;
	}
	p = pod_new(a, m->spec, m->epoch, PM__POD_STATE__POD_INCOMING, m->op);
	op = p ? op_new(a, m->op, p, TGT_OPEN) : NULL;
	if (!op)
		return;
	op->reply = id;
	op->dry_run = m->dry_run;
	op->image = m->image;
	op->record = record_open(a, m->op, &op->outcome, &e);
	r = op->record < 0 ? op->record : 0;
	if (r == 0 && op->outcome != OP_NONE)
		r = err_set(&e, EEXIST, "operation %s is decided already", m->op);
	if (r == 0)
		r = op_engine_start(op, &e);
	if (r == 0)
		r = pod_save(p, &e);
	if (r < 0) {
		refuse_incoming(a, m->op, 9, &e);
		if (op->worker)
			worker_kill(op->worker);
		op_finish(op);
		pod_forget(p);
		return;
	}
	send_restore(op, p, m);
	probe_address(a, p->spec, op->id, PROBE_MS, probed);
}

void tgt_listening(struct op *op, const Pm__Envelope *env)
{
	fault_point("agent-target", "reserve", NULL);
	op->port = env->engine_listening->port;
	tell_listening(op);
}

/* ---- it does not come: REFUSED first, then nothing of it stays */

static void refuse(struct op *op)
{
	struct err e;

	if (op->outcome != OP_NONE)
		return;
	if (record_write(op->record, OP_REFUSED, op->epoch, op->name, &e) < 0)
		log_error("operation %s: %s", op->id, e.msg);
	/* even if the disk failed: nothing after this line can START it, and a restart finds no pid */
	op->outcome = OP_REFUSED;
}

static int remove_thread(void *arg, struct err *e)
{
	struct op *op = arg;

	fault_point("agent-target", "undo", NULL);
	return pod_ns_destroy(&op->place, deadline_ms(REMOVE_MS), e);
}

static void remove_rest(struct op *op)
{
	op->state = TGT_REMOVE;
	op_timer(op, 0);
	op_thread(op, remove_thread);
}

void tgt_gone(struct op *op, const Pm__Envelope *env)
{
	struct err e;

	(void)env;
	if (op->dry_run && op->image && op->state == TGT_OPEN && op->last &&
	    op->last->body_case == PM__ENVELOPE__BODY_ENGINE_DONE) {
		op->gone = true; /* the answer waits for the address */
		return;
	}
	if (op->dry_run && op->last && op->last->body_case == PM__ENVELOPE__BODY_ENGINE_DONE) {
		if (op->image) { /* there is no source to say it */
			LINK_ENVELOPE(out, op_clean, OP_CLEAN, Pm__OpClean, pm__op_clean__init);
			out_body.op = op->id;
			out_body.result = op->last->engine_done->result;
			agent_send(op->agent, &out);
		}
		remove_rest(op);
		return;
	}
	refuse(op);
	err_set(&e, EIO, "the target's pod-engine died");
	op_send_failed(op, &e, 9, "");
	remove_rest(op);
}

static void send_refused(struct agent *a, const char *id, uint64_t epoch)
{
	LINK_ENVELOPE(env, op_refused, OP_REFUSED, Pm__OpRefused, pm__op_refused__init);
	env_body.op = (char *)(uintptr_t)id;
	env_body.epoch = epoch;
	agent_send(a, &env);
}

void tgt_abort(struct op *op, const Pm__Envelope *env)
{
	bool was_ready = op->state == TGT_READY;

	(void)env;
	refuse(op);
	if (was_ready)
		send_refused(op->agent, op->id, op->epoch);
	if (!op->worker) {
		remove_rest(op);
		return;
	}
	op->state = TGT_UNDO;
	op_timer(op, UNDO_MS);
	op_tell_engine_abort(op, false);
}

void tgt_kill_engine(struct op *op, const Pm__Envelope *env)
{
	(void)env;
	log_warn("operation %s: pod-engine does not end, it is killed", op->id);
	if (op->worker)
		worker_kill(op->worker);
}

void tgt_undo_gone(struct op *op, const Pm__Envelope *env)
{
	(void)env;
	remove_rest(op);
}

void tgt_removed(struct op *op, const Pm__Envelope *env)
{
	struct pod *p = op_pod(op);
	struct agent *a = op->agent;

	(void)env;
	if (p)
		pod_forget(p);
	agent_report(a, 0); /* who hears that nothing is left may use its name and address at once */
	op_send_aborted(a, op->id);
	log_info("operation %s: nothing of pod '%s' is left here", op->id, op->name);
	op_finish(op);
}

/* ---- READY, COMMIT */

/* Out of an image it goes faster than the address can be probed. */
void tgt_early(struct op *op, const Pm__Envelope *env)
{
	link_free(op->early);
	op->early = envelope_copy(env);
}

void tgt_ready(struct op *op, const Pm__Envelope *env)
{
	struct pod *p = op_pod(op);
	struct err e = { 0 };
	int r = fault_point("agent-target", "ready", &e);

	if (r == 0 && !p)
		r = err_set(&e, ENOENT, "the pod's entry is gone");
	if (r == 0)
		r = pod_adopt_pid(p, (pid_t)env->engine_ready->pid, &e);
	if (r == 0)
		r = pod_save_quick(p, &e);
	if (r < 0) {
		op_send_failed(op, &e, 9, "");
		tgt_abort(op, NULL);
		return;
	}
	op->netns = fcntl(p->netns, F_DUPFD_CLOEXEC, 0);
	op->state = TGT_READY;
	snprintf(op->phase, sizeof(op->phase), "commit");
	LINK_ENVELOPE(out, op_ready, OP_READY, Pm__OpReady, pm__op_ready__init);
	out_body.op = op->id;
	out_body.digest = env->engine_ready->digest;
	out_body.notes = env->engine_ready->notes;
	out_body.n_notes = env->engine_ready->n_notes;
	agent_send(op->agent, &out);
}

/* START is not written: the source's copy has all that was held for the pod, this one has lost it. */
void tgt_orphaned(struct op *op, const Pm__Envelope *env)
{
	struct err e;

	err_set(&e, EIO, "the target's pod-engine died after READY");
	op_send_failed(op, &e, 9, "");
	tgt_abort(op, env);
}

struct announcement {
	int netns;
	uint8_t mac[6];
	struct in_addr ip;
	char name[64];
};

static int announce_thread(void *arg, struct err *e)
{
	struct announcement *x = arg;

	return link_announce(x->netns, x->mac, x->ip.s_addr, 1, e);
}

static void announced(void *arg, int r, const struct err *e)
{
	struct announcement *x = arg;

	if (r < 0)
		log_warn("pod '%s': %s", x->name, e->msg);
	close(x->netns);
	free(x);
}

/* In a thread: closing a packet socket waits for an RCU grace period, 7 ms that nobody has here. */
static void announce(struct pod *p)
{
	struct announcement *x = calloc(1, sizeof(*x));

	if (!x)
		return;
	x->netns = fcntl(p->netns, F_DUPFD_CLOEXEC, 0);
	snprintf(x->name, sizeof(x->name), "%s", p->spec->name);
	if (x->netns < 0 || inet_pton(AF_INET, p->spec->ip, &x->ip) != 1 ||
	    !parse_mac(p->spec->mac, x->mac) ||
	    task_run(p->agent, announce_thread, announced, x) < 0) {
		close_fdp(&x->netns);
		free(x);
	}
}

/* Everything that START allows. Each step may have been done already by a former life. */
static void start_pod(struct pod *p, struct worker *engine)
{
	struct agent *a = p->agent;
	uint64_t t = now_ns();
	struct err e;

	LINK_ENVELOPE(go, engine_start, ENGINE_START, Pm__EngineStart, pm__engine_start__init);
	if (p->spec->ip[0] && a->conf.agent_bridge[0] &&
	    link_attach(p->host_link, a->conf.agent_bridge, &e) < 0)
		log_error("pod '%s': %s", p->spec->name, e.msg);
	log_mark("attach", &t);
	if ((!engine || worker_send(engine, &go) < 0) && p->netns >= 0 &&
	    filter_clear(p->netns, &e) < 0)
		log_error("pod '%s': %s", p->spec->name, e.msg);
	if (p->spec->ip[0] && a->conf.agent_bridge[0])
		announce(p);
	log_mark("announce", &t);
	if (pod_cgroup_thaw(p->cgroup, &e) < 0)
		log_error("pod '%s': %s", p->spec->name, e.msg);
	log_mark("thaw", &t);
	p->state = PM__POD_STATE__POD_RUNNING;
}

static void send_started(struct agent *a, const char *id, uint64_t epoch)
{
	LINK_ENVELOPE(env, op_started, OP_STARTED, Pm__OpStarted, pm__op_started__init);
	env_body.op = (char *)(uintptr_t)id;
	env_body.epoch = epoch;
	agent_send(a, &env);
}

static void finish_run(struct op *op)
{
	Pm__Envelope *queued = op->queued;
	struct agent *a = op->agent;
	struct pod *p = op_pod(op);
	struct err e;

	op->queued = NULL;

	if (p) {
		p->op[0] = '\0';
		p->engine = 0;
		if (pod_save(p, &e) < 0)
			log_error("pod '%s': %s", p->spec->name, e.msg);
	}
	agent_report(a, 0);
	op_finish(op);
	if (queued)
		op_outgoing(a, queued->id, queued->agent_outgoing);
	link_free(queued);
}

void tgt_commit(struct op *op, const Pm__Envelope *env)
{
	struct pod *p = op_pod(op);
	struct err e = { 0 };
	uint64_t t = now_ns();
	int r = fault_point("agent-target", "commit", &e);

	(void)env;
	if (r == 0 && !p)
		r = err_set(&e, ENOENT, "the pod's entry is gone");
	if (r == 0)
		r = record_write(op->record, OP_START, op->epoch, op->name, &e);
	if (r < 0) {
		/* the word may or may not be on the disk: then only REFUSED on top of it is safe */
		log_error("operation %s: %s", op->id, e.msg);
		tgt_abort(op, NULL);
		return;
	}
	log_mark("record", &t);
	op->outcome = OP_START;
	op->state = TGT_RUN;
	fault_point("agent-target", "start", NULL);
	start_pod(p, op->worker);
	fault_point("agent-target", "started", NULL);
	send_started(op->agent, op->id, op->epoch);
	if (keeper_start(p, &e) < 0)
		log_warn("pod '%s': %s", op->name, e.msg);
	log_info("operation %s: pod '%s' runs here now", op->id, op->name);
	if (op->worker) {
		op_timer(op, RUN_MS);
		agent_report_soon(op->agent);
	} else {
		finish_run(op);
	}
}

void tgt_recommit(struct op *op, const Pm__Envelope *env)
{
	(void)env;
	send_started(op->agent, op->id, op->epoch);
}

void tgt_run_done(struct op *op, const Pm__Envelope *env)
{
	struct pod *p = op_pod(op);
	struct err e;

	if (!env && p) { /* it died in the middle of this: what is left to do is ours */
		log_warn("operation %s: pod-engine died after START", op->id);
		if (p->netns >= 0 && filter_clear(p->netns, &e) < 0)
			log_error("pod '%s': %s", op->name, e.msg);
	}
	finish_run(op);
}

/* The pod ended by itself just after it had started here. */
void tgt_run_died(struct op *op, const Pm__Envelope *env)
{
	struct pod *p = op_pod(op);

	(void)env;
	finish_run(op);
	if (p)
		pod_ended(p, -1);
}

void tgt_fence(struct agent *a, const char *id)
{
	struct record rec;
	struct pod *p;
	struct err e;

	if (record_read(a, id, &rec, &e) < 0 || rec.outcome != OP_START)
		return;
	p = pod_find(a, rec.pod);
	if (!p || p->epoch != rec.epoch || p->state == PM__POD_STATE__POD_EXITED)
		return;
	log_error("operation %s was decided for the source by the administrator: pod '%s' is killed here",
		  id, rec.pod);
	p->op[0] = '\0';
	pod_ended(p, -1);
}

void tgt_run_fenced(struct op *op, const Pm__Envelope *env)
{
	struct agent *a = op->agent;
	char id[sizeof(op->id)];

	(void)env;
	memcpy(id, op->id, sizeof(id));
	finish_run(op);
	tgt_fence(a, id);
	op_send_aborted(a, id);
}

/* OpCommit; also for an operation that only the disk remembers. */
void op_commit(struct agent *a, uint32_t id, const Pm__OpCommit *m)
{
	struct op *op = op_find(a, m->op);
	enum op_outcome outcome = OP_NONE;
	struct pod *p = NULL;
	struct record rec;
	struct err e;
	int fd;

	(void)id;
	if (op && (op->state == TGT_READY || op->state == TGT_RUN)) {
		op_event(op, EV_COMMIT, NULL);
		return;
	}
	fd = record_open(a, m->op, &outcome, &e);
	if (fd >= 0 && outcome == OP_NONE && record_write(fd, OP_REFUSED, m->epoch, "-", &e) == 0)
		outcome = OP_REFUSED;
	close_fdp(&fd);
	if (outcome == OP_REFUSED) {
		send_refused(a, m->op, m->epoch);
		return;
	}
	if (outcome == OP_START && record_read(a, m->op, &rec, &e) == 0)
		p = pod_find(a, rec.pod);
	if (p && p->epoch == rec.epoch && p->state != PM__POD_STATE__POD_INCOMING) {
		send_started(a, m->op, m->epoch);
		return;
	}
	/* It was started, and is gone without a trace (a reboot): nobody knows what it did meanwhile. */
	LINK_ENVELOPE(env, op_outcome_rep, OP_OUTCOME_REP, Pm__OpOutcomeRep,
		      pm__op_outcome_rep__init);
	env_body.op = m->op;
	env_body.outcome = PM__OP_OUTCOME__OUTCOME_UNKNOWN;
	agent_send(a, &env);
}

void op_log(struct agent *a, uint32_t id, const Pm__OpLog *m)
{
	struct pod *p = pod_find(a, m->pod);
	autoclose int fd = -1;
	ssize_t n;

	(void)id;
	if (!p || m->stream < 1 || m->stream > 2)
		return;
	fd = log_open(p, (int)m->stream, O_WRONLY | O_CREAT, NULL);
	if (fd < 0)
		return;
	n = pwrite(fd, m->data.data, m->data.len, (off_t)m->offset);
	if (n < (ssize_t)m->data.len)
		log_warn("log of pod '%s': short write", m->pod);
}

/* ---- after our own restart */

int tgt_resume(struct op *op, bool alive, struct err *e)
{
	struct pod *p = op_pod(op);
	int r;

	op->record = record_open(op->agent, op->id, &op->outcome, e);
	if (op->record < 0)
		return op->record; /* stays as it is: frozen */
	if (op->outcome == OP_START && alive) {
		start_pod(p, NULL);
		r = keeper_start(p, e);
		finish_run(op);
		return r;
	}
	if (op->outcome == OP_NONE && alive) {
		op->state = TGT_READY;
		log_warn("pod '%s' is here frozen by operation %s: the coordinator decides",
			 op->name, op->id);
		return 0;
	}
	if (op->outcome != OP_START)
		refuse(op);
	remove_rest(op);
	return 0;
}
