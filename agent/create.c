/* SPDX-License-Identifier: GPL-3.0-or-later */
/* A new pod: a pod-engine makes its room and pid 1; from then on we watch it. */
#include <errno.h>
#include <grp.h>
#include <pwd.h>
#include <stdio.h>
#include <string.h>

#include "agent/agent.h"
#include "netfreeze/netfreeze.h"
#include "pod/base/log.h"
#include "pod/base/util.h"

#define PROBE_MS 40

struct create {
	struct agent *agent;
	uint32_t id;
	char name[64];
	struct worker *worker;
	bool answered;
};

static void create_failed(struct create *c, int exit_code, const struct err *e)
{
	struct pod *p = pod_find(c->agent, c->name);

	if (c->answered)
		return;
	c->answered = true;
	log_warn("pod '%s' cannot be made: %s", c->name, e->msg);
	agent_send_error(c->agent, c->id, exit_code, e, "no pod was made", "");
	if (p)
		pod_forget(p);
}

static void created(struct create *c, pid_t pid)
{
	struct agent *a = c->agent;
	struct pod *p = pod_find(a, c->name);
	struct err e = { 0 };
	Pm__PodInfo info;
	int r = 0;

	if (!p)
		return;
	r = pod_adopt_pid(p, pid, &e);
	if (r == 0 && p->spec->ip[0] && a->conf.agent_bridge[0])
		r = link_attach(p->host_link, a->conf.agent_bridge, &e);
	if (r == 0) {
		p->state = PM__POD_STATE__POD_RUNNING;
		p->engine = 0;
		r = pod_save(p, &e);
	}
	if (r < 0) {
		struct pod_place place;

		pod_place(p, &place);
		pod_ns_destroy(&place, UINT64_MAX, NULL);
		create_failed(c, 1, &e);
		return;
	}
	if (keeper_start(p, &e) < 0)
		log_warn("pod '%s': %s", c->name, e.msg);
	log_info("pod '%s' runs, pid %d", c->name, pid);
	c->answered = true;
	pod_info(p, &info);
	LINK_ENVELOPE(env, run_rep, RUN_REP, Pm__RunRep, pm__run_rep__init);
	env.id = c->id;
	env_body.pod = &info;
	agent_send(a, &env);
	agent_report(a, 0);
}

static void on_message(struct worker *w, const Pm__Envelope *env, void *arg)
{
	struct create *c = arg;
	struct err e;

	(void)w;
	if (env->body_case == PM__ENVELOPE__BODY_ENGINE_CREATED) {
		created(c, (pid_t)env->engine_created->pid);
	} else if (env->body_case == PM__ENVELOPE__BODY_ENGINE_FAILED) {
		const Pm__Error *er = env->engine_failed->error;

		err_set(&e, EIO, "%s", er ? er->cause : "pod-engine failed");
		create_failed(c, er && er->exit_code ? er->exit_code : 1, &e);
	}
}

static void on_gone(struct worker *w, void *arg)
{
	struct create *c = arg;
	struct pod *p = pod_find(c->agent, c->name);
	struct err e;

	(void)w;
	if (!c->answered && p) {
		/* nobody knows how far it came: take down what there is */
		err_set(&e, EIO, "pod-engine died");
		agent_send_error(c->agent, c->id, 1, &e, "no pod was made", "");
		p->forget = true;
		pod_ended(p, -1);
	}
	free(c);
}

static const struct worker_ops worker_ops = { on_message, on_gone };

/* The user's supplementary groups are this node's business: uids are cluster-wide, names are known here. */
static void fill_groups(Pm__PodSpec *spec)
{
	const struct passwd *pw = getpwuid(spec->uid);
	gid_t groups[128];
	int n = ARRAY_SIZE(groups);

	if (!pw || spec->n_groups || getgrouplist(pw->pw_name, spec->gid, groups, &n) < 0)
		return;
	spec->groups = calloc((size_t)n, sizeof(*spec->groups));
	if (!spec->groups)
		return;
	spec->n_groups = (size_t)n;
	for (int i = 0; i < n; i++)
		spec->groups[i] = groups[i];
}

static int check_run(struct agent *a, const Pm__AgentRun *m, struct err *e)
{
	struct pod *p;

	if (!m->spec || !pod_name_valid(m->spec->name))
		return err_set(e, EINVAL, "the pod's name is not valid");
	if (m->spec->n_argv == 0)
		return err_set(e, EINVAL, "no command");
	p = pod_find(a, m->spec->name);
	if (p && p->state == PM__POD_STATE__POD_EXITED)
		pod_forget(p);
	else if (p)
		return err_set(e, EEXIST, "pod '%s' lives on this node", m->spec->name);
	return 0;
}

static void send_create(struct create *c, struct pod *p)
{
	LINK_ENVELOPE(env, engine_create, ENGINE_CREATE, Pm__EngineCreate, pm__engine_create__init);
	env_body.spec = p->spec;
	env_body.dir = p->dir;
	env_body.cgroup = p->cgroup;
	env_body.host_link = p->host_link;
	env_body.bridge = c->agent->conf.agent_bridge;
	worker_send(c->worker, &env);
}

/* The address is free: on with it. @name finds the pod, ->creating what is known of the request. */
static void probed(struct agent *a, const char *name, int busy)
{
	struct pod *p = pod_find(a, name);
	struct create *c = p ? p->creating : NULL;
	struct err e = { 0 };

	if (!c)
		return;
	p->creating = NULL;
	if (busy) {
		err_set(&e, EADDRINUSE, "address %s is in use on this network", p->spec->ip);
		create_failed(c, 13, &e);
		free(c);
		return;
	}
	c->worker = worker_start(a, &worker_ops, c, &e);
	if (!c->worker) {
		create_failed(c, 1, &e);
		free(c);
		return;
	}
	p->engine = worker_pid(c->worker);
	p->engine_start = process_start_time(p->engine);
	if (pod_save(p, &e) < 0) {
		create_failed(c, 1, &e);
		worker_kill(c->worker); /* on_gone() frees @c */
		return;
	}
	send_create(c, p);
}

void agent_run(struct agent *a, uint32_t id, const Pm__AgentRun *m)
{
	struct create *c;
	struct err e = { 0 };
	struct pod *p;
	int r = check_run(a, m, &e);

	if (r < 0) {
		agent_send_error(a, id, r == -EEXIST ? 13 : 2, &e, "no pod was made", "");
		return;
	}
	c = calloc(1, sizeof(*c));
	p = pod_new(a, m->spec, m->epoch, PM__POD_STATE__POD_STARTING, "");
	if (!c || !p) {
		err_num(&e, ENOMEM, "pod");
		agent_send_error(a, id, 1, &e, "no pod was made", "");
		free(c);
		return;
	}
	fill_groups(p->spec);
	c->agent = a;
	c->id = id;
	snprintf(c->name, sizeof(c->name), "%s", m->spec->name);
	p->creating = c;
	probe_address(a, p->spec, c->name, PROBE_MS, probed);
}
