/* SPDX-License-Identifier: GPL-3.0-or-later */
/* The source's side of a migration: handlers of the table in op.c. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "agent/op.h"
#include "netfreeze/netfreeze.h"
#include "pod/base/fault.h"
#include "pod/base/io.h"
#include "pod/base/log.h"
#include "pod/base/util.h"

#define UNDO_MS 10000
#define FLUSH_MS 3000
#define CLEAN_MS 30000
#define CLEAN_RETRY_MS 1000
#define LOG_CHUNK (256u << 10)
#define LOG_TAIL (16ull << 20) /* per stream, of what follows the pod */

static int check_pod(struct agent *a, const Pm__AgentOutgoing *m, struct err *e)
{
	struct pod *p = pod_find(a, m->pod);

	if (!p)
		return err_set(e, ENOENT, "there is no pod '%s' on node '%s'", m->pod,
			       a->conf.agent_name);
	if (p->op[0])
		return err_set(e, EBUSY, "operation %s holds pod '%s'", p->op, m->pod);
	if (p->state != PM__POD_STATE__POD_RUNNING || p->exit_known)
		return err_set(e, ESRCH, "pod '%s' does not run", m->pod);
	return fault_point("agent-source", "check", e);
}

static void refuse_outgoing(struct agent *a, const char *id, int exit_code, const struct err *e)
{
	Pm__Error er;
	char check[] = "check";

	pm__error__init(&er);
	er.exit_code = exit_code;
	er.phase = check;
	er.cause = (char *)(uintptr_t)e->msg;
	LINK_ENVELOPE(env, op_failed, OP_FAILED, Pm__OpFailed, pm__op_failed__init);
	env_body.op = (char *)(uintptr_t)id;
	env_body.error = &er;
	agent_send(a, &env);
}

static void send_dump(struct op *op, struct pod *p, const Pm__AgentOutgoing *m)
{
	Pm__CheckpointReq image;
	char path[PATH_MAX];

	LINK_ENVELOPE(env, engine_dump, ENGINE_DUMP, Pm__EngineDump, pm__engine_dump__init);
	env_body.op = op->id;
	env_body.spec = p->spec;
	env_body.pid = (uint32_t)p->pid;
	env_body.dir = p->dir;
	env_body.cgroup = p->cgroup;
	env_body.host_link = p->host_link;
	env_body.address = m->address;
	env_body.port = m->port;
	env_body.token = m->token;
	env_body.options = m->options;
	if (m->options)
		env_body.target_node = m->options->node;
	env_body.epoch = p->epoch;
	env_body.node = op->agent->conf.agent_name;
	if (m->image) {
		image = *m->image;
		if (image.store) {
			snprintf(path, sizeof(path), "%s/%s/%s%s.img", op->agent->conf.images_dir, p->spec->user,
				 image.stream ? "." : "", image.id);
			image.path = path;
		}
		env_body.image = &image;
		env_body.target_node = image.store ? image.id : image.path;
	}
	worker_send(op->worker, &env);
}

/* The pod has just arrived and its engine is still tidying up: the next move waits for that. */
static bool queue_outgoing(struct agent *a, uint32_t id, const Pm__AgentOutgoing *m)
{
	struct pod *p = pod_find(a, m->pod);
	struct op *op = p && p->op[0] ? op_find(a, p->op) : NULL;

	if (!op || op->state != TGT_RUN || op->queued)
		return false;
	LINK_ENVELOPE(env, agent_outgoing, AGENT_OUTGOING, Pm__AgentOutgoing,
		      pm__agent_outgoing__init);
	env.id = id;
	env_body = *m;
	op->queued = envelope_copy(&env);
	return op->queued;
}

void op_outgoing(struct agent *a, uint32_t id, const Pm__AgentOutgoing *m)
{
	struct err e = { 0 };
	struct pod *p;
	struct op *op;
	int r;

	if (queue_outgoing(a, id, m))
		return;
	r = check_pod(a, m, &e);
	if (r < 0) {
		refuse_outgoing(a, m->op, r == -ENOENT || r == -ESRCH ? 3 : r == -EBUSY ? 13 : 7, &e);
		return;
	}
	p = pod_find(a, m->pod);
	op = op_new(a, m->op, p, SRC_DUMP);
	if (!op)
		return;
	op->epoch = m->epoch;
	op->reply = id;
	op->dry_run = m->options && m->options->dry_run;
	op->image = m->image;
	op->netns = fcntl(p->netns, F_DUPFD_CLOEXEC, 0);
	p->state = PM__POD_STATE__POD_MIGRATING;
	r = op_engine_start(op, &e);
	if (r == 0)
		r = pod_save(p, &e); /* who restarts us must find the operation */
	if (r < 0) {
		refuse_outgoing(a, m->op, 7, &e);
		if (op->worker)
			worker_kill(op->worker);
		p->state = PM__POD_STATE__POD_RUNNING;
		p->op[0] = '\0';
		op_finish(op);
		return;
	}
	send_dump(op, p, m);
}

/* ---- it does not move: the pod goes on here */

/* Its state is reported, and the caller tells of the operation's end after that: who hears of it may ask for the next at once. */

static void goes_on(struct op *op)
{
	struct pod *p = op_pod(op);
	struct agent *a = op->agent;
	struct pollfd pfd = { .events = POLLIN };
	struct err e;

	fault_point("agent-source", "goes-on", NULL);
	if (p) {
		p->op[0] = '\0';
		p->engine = 0;
		p->state = PM__POD_STATE__POD_RUNNING;
		pfd.fd = p->pidfd;
		if (p->pidfd < 0 || poll(&pfd, 1, 0) > 0) {
			pod_ended(p, -1);
		} else {
			if (pod_save(p, &e) < 0 || keeper_start(p, &e) < 0)
				log_error("pod '%s': %s", p->spec->name, e.msg);
			log_info("operation %s: pod '%s' goes on here", op->id, op->name);
		}
	}
	agent_report(a, 0);
}

static const char *state_words(struct op *op, char *buf, size_t len)
{
	const struct pod *p = pod_find(op->agent, op->name);
	bool runs = p && !p->going && p->state != PM__POD_STATE__POD_EXITED;

	snprintf(buf, len, "pod '%s' %s on node '%s'%s", op->name, runs ? "runs" : "has ended", op->agent->conf.agent_name,
		 runs ? " as before" : "");
	return buf;
}

static int repair_thread(void *arg, struct err *e)
{
	struct op *op = arg;

	return undo_pod(&op->place, op->netns, e);
}

static void repair(struct op *op)
{
	op->state = SRC_REPAIR;
	op_timer(op, 0);
	op_thread(op, repair_thread);
}

void src_undone(struct op *op, const Pm__Envelope *env)
{
	char words[160], path[PATH_MAX];
	struct err e;

	(void)env;
	snprintf(path, sizeof(path), "%s/sleeps", op->place.dir); /* what it noted may be wrong: see pod/task/restart.h */
	unlink(path);
	err_set(&e, EIO, "the source's pod-engine died");
	goes_on(op);
	op_send_failed(op, &e, 7, state_words(op, words, sizeof(words)));
	op_send_aborted(op->agent, op->id);
	op_finish(op);
}

void src_dump_gone(struct op *op, const Pm__Envelope *env)
{
	char words[160];

	if (op->last && op->last->body_case == PM__ENVELOPE__BODY_ENGINE_FAILED) {
		goes_on(op);
		op_send_failed(op, NULL, 7, state_words(op, words, sizeof(words)));
		op_finish(op);
	} else if (op->last && (op->dry_run || op->image)) {
		goes_on(op);
		LINK_ENVELOPE(out, op_clean, OP_CLEAN, Pm__OpClean, pm__op_clean__init);
		out_body.op = op->id;
		out_body.result = op->last->engine_done->result;
		agent_send(op->agent, &out);
		op_finish(op);
	} else {
		(void)env;
		repair(op);
	}
}

static void abort_engine(struct op *op, bool unsure)
{
	op->state = SRC_UNDO;
	op_timer(op, UNDO_MS);
	op_tell_engine_abort(op, unsure);
}

void src_abort(struct op *op, const Pm__Envelope *env)
{
	(void)env;
	abort_engine(op, false);
}

/* By the coordinator, or by the pod. */
void src_left_alone(struct op *op, const Pm__Envelope *env)
{
	(void)env;
	abort_engine(op, true);
}

void src_kill_engine(struct op *op, const Pm__Envelope *env)
{
	(void)env;
	log_warn("operation %s: pod-engine does not undo, it is killed", op->id);
	if (op->worker)
		worker_kill(op->worker);
}

void src_undo_gone(struct op *op, const Pm__Envelope *env)
{
	char words[160];

	(void)env;
	if (op->image && op->last && op->last->body_case == PM__ENVELOPE__BODY_ENGINE_DONE) {
		goes_on(op);
		LINK_ENVELOPE(out, op_clean, OP_CLEAN, Pm__OpClean, pm__op_clean__init);
		out_body.op = op->id;
		out_body.result = op->last->engine_done->result;
		agent_send(op->agent, &out); /* the abort came too late: there is an image, and the pod runs */
		op_send_aborted(op->agent, op->id);
		op_finish(op);
		return;
	}
	if (!op->last || op->last->body_case != PM__ENVELOPE__BODY_ENGINE_FAILED) {
		repair(op);
		return;
	}
	goes_on(op);
	op_send_failed(op, NULL, 10, state_words(op, words, sizeof(words)));
	op_send_aborted(op->agent, op->id);
	op_finish(op);
}

/* ---- one of a job's: it waits for the others, between its engine and the coordinator */

void src_at(struct op *op, const Pm__Envelope *env)
{
	LINK_ENVELOPE(out, op_at, OP_AT, Pm__OpAt, pm__op_at__init);
	out_body.op = op->id;
	out_body.barrier = env->op_at->barrier;
	agent_send(op->agent, &out);
}

void src_go(struct op *op, const Pm__Envelope *env)
{
	if (op->worker)
		worker_send(op->worker, env);
}

/* ---- READY */

void src_ready(struct op *op, const Pm__Envelope *env)
{
	struct pod *p = op_pod(op);

	if (fault_point("agent-source", "ready", NULL) < 0) {
		src_abort(op, NULL);
		return;
	}
	if (p) {
		p->state = PM__POD_STATE__POD_FROZEN;
		p->frozen_ns = now_ns();
	}
	op->state = SRC_READY;
	snprintf(op->phase, sizeof(op->phase), "commit");
	LINK_ENVELOPE(out, op_ready, OP_READY, Pm__OpReady, pm__op_ready__init);
	out_body.op = op->id;
	out_body.digest = env->engine_ready->digest;
	agent_send(op->agent, &out);
}

void src_orphaned(struct op *op, const Pm__Envelope *env)
{
	(void)env;
	log_warn("operation %s: pod-engine died after READY; pod '%s' stays frozen until the outcome is known",
		 op->id, op->name);
}

void src_ready_abort(struct op *op, const Pm__Envelope *env)
{
	if (op->worker)
		src_abort(op, env);
	else
		repair(op);
}

/* ---- the target runs: this copy goes */

static int clean_thread(void *arg, struct err *e)
{
	struct op *op = arg;
	/* first the link: no FIN or RST of the dying sockets may escape */
	int r = link_delete(op->place.host_link, e);

	if (r < 0)
		return r;
	return pod_ns_destroy(&op->place, deadline_ms(CLEAN_MS), e);
}

static void send_log(struct op *op, struct pod *p, int stream)
{
	autoclose int fd = log_open(p, stream, O_RDONLY, NULL);
	autofree uint8_t *buf = malloc(LOG_CHUNK);
	struct stat st;
	off_t at;

	if (fd < 0 || !buf || fstat(fd, &st) < 0)
		return;
	at = (uint64_t)st.st_size > LOG_TAIL ? st.st_size - (off_t)LOG_TAIL : 0;
	while (at < st.st_size) {
		ssize_t n;

		at = lseek(fd, at, SEEK_DATA);
		n = at < 0 ? 0 : pread(fd, buf, LOG_CHUNK, at);
		if (n <= 0)
			return;
		LINK_ENVELOPE(env, op_log, OP_LOG, Pm__OpLog, pm__op_log__init);
		env_body.op = op->id;
		env_body.pod = op->name;
		env_body.stream = (uint32_t)stream;
		env_body.offset = (uint64_t)at;
		env_body.data.data = buf;
		env_body.data.len = (size_t)n;
		agent_send(op->agent, &env);
		at += n;
	}
}

void src_started(struct op *op, const Pm__Envelope *env)
{
	(void)env;
	LINK_ENVELOPE(out, engine_started, ENGINE_STARTED, Pm__EngineStarted,
		      pm__engine_started__init);
	fault_point("agent-source", "started", NULL);
	if (!op->worker) {
		src_flushed(op, NULL);
		return;
	}
	op->state = SRC_FLUSH;
	op_timer(op, FLUSH_MS);
	worker_send(op->worker, &out);
}

/* Also the second try when something could not be removed. */
void src_flushed(struct op *op, const Pm__Envelope *env)
{
	struct pod *p = op_pod(op);

	if (env)
		op_keep_last(op, env);
	fault_point("agent-source", "clean", NULL);
	if (op->state != SRC_CLEAN && p) {
		keeper_stop(p);
		send_log(op, p, 1);
		send_log(op, p, 2);
	}
	op->state = SRC_CLEAN;
	op_timer(op, 0);
	op_thread(op, clean_thread);
}

void src_cleaned(struct op *op, const Pm__Envelope *env)
{
	struct pod *p = op_pod(op);

	(void)env;
	if (access(op->place.cgroup, F_OK) == 0 || link_exists(op->place.host_link, NULL) == 1) {
		op_timer(op, CLEAN_RETRY_MS);
		return;
	}
	if (p)
		pod_forget(p);
	LINK_ENVELOPE(out, op_clean, OP_CLEAN, Pm__OpClean, pm__op_clean__init);
	out_body.op = op->id;
	if (op->last && op->last->body_case == PM__ENVELOPE__BODY_ENGINE_DONE)
		out_body.result = op->last->engine_done->result;
	agent_report(op->agent, 0);
	agent_send(op->agent, &out);
	log_info("operation %s: pod '%s' has left this node", op->id, op->name);
	op_finish(op);
}

void op_started(struct agent *a, uint32_t id, const Pm__OpStarted *m)
{
	struct op *op = op_find(a, m->op);

	(void)id;
	if (op) {
		op_event(op, EV_STARTED, NULL);
		return;
	}
	/* said again after somebody's restart: what was left of it here has gone, or ended with the node */
	for (struct pod *p = a->pods; p; p = p->next)
		if (strcmp(p->op, m->op) == 0 && p->state == PM__POD_STATE__POD_EXITED) {
			pod_forget(p);
			break;
		}
	LINK_ENVELOPE(out, op_clean, OP_CLEAN, Pm__OpClean, pm__op_clean__init);
	out_body.op = m->op;
	agent_send(a, &out);
}

/* ---- after our own restart */

static bool is_frozen(const char *cgroup)
{
	autofree char *text = NULL;
	char path[PATH_MAX];

	snprintf(path, sizeof(path), "%s/cgroup.freeze", cgroup);
	return io_read_file(path, 64, &text, NULL, NULL) == 0 && text[0] == '1';
}

int src_resume(struct op *op, bool alive, struct err *e)
{
	struct pod *p = op_pod(op);
	int r;

	if (!alive) {
		op_finish(op);
		pod_ended(p, -1); /* its ->op stays: the target may run it */
		return 0;
	}
	if (is_frozen(op->place.cgroup)) {
		p->state = PM__POD_STATE__POD_FROZEN;
		p->frozen_ns = 0;
		log_warn("pod '%s' is frozen by operation %s: the coordinator is asked", op->name,
			 op->id);
		return 0;
	}
	r = undo_pod(&op->place, op->netns, e);
	if (r < 0)
		log_error("pod '%s': %s", op->name, e->msg);
	goes_on(op);
	op_finish(op);
	return 0;
}
