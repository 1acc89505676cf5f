/* SPDX-License-Identifier: GPL-3.0-or-later */
/* What the coordinator asks on the control channel, as a table. */
#include <stdio.h>
#include <sys/sysinfo.h>
#include <sys/utsname.h>

#include "agent/agent.h"
#include "pod/base/log.h"
#include "pod/base/util.h"

static void node_info(struct agent *a, uint32_t id)
{
	char up[] = "up";
	struct utsname u = { 0 };
	struct sysinfo si = { 0 };
	Pm__NodeInfo info, *list[] = { &info };

	pm__node_info__init(&info);
	uname(&u);
	sysinfo(&si);
	info.name = a->conf.agent_name;
	info.state = up;
	info.address = a->conf.agent_address;
	for (const struct pod *p = a->pods; p; p = p->next)
		if (p->state != PM__POD_STATE__POD_EXITED)
			info.pods++;
	info.cpus = (uint32_t)sysconf(_SC_NPROCESSORS_ONLN);
	info.mem_total = (uint64_t)si.totalram * si.mem_unit;
	info.mem_free = (uint64_t)si.freeram * si.mem_unit;
	info.kernel = u.release;
	LINK_ENVELOPE(env, nodes_rep, NODES_REP, Pm__NodesRep, pm__nodes_rep__init);
	env.id = id;
	env_body.n_nodes = 1;
	env_body.nodes = list;
	agent_send(a, &env);
}

static void do_nodes(struct agent *a, const Pm__Envelope *env)
{
	node_info(a, env->id);
}

static void do_pods(struct agent *a, const Pm__Envelope *env)
{
	agent_report(a, env->id);
}

#define FORWARD(fn, call, field)                                        \
	static void fn(struct agent *a, const Pm__Envelope *env)        \
	{                                                               \
		call(a, env->id, env->field);                           \
	}

FORWARD(do_run, agent_run, agent_run)
FORWARD(do_incoming, op_incoming, agent_incoming)
FORWARD(do_outgoing, op_outgoing, agent_outgoing)
FORWARD(do_commit, op_commit, op_commit)
FORWARD(do_started, op_started, op_started)
FORWARD(do_aborted, op_aborted, op_aborted)
FORWARD(do_go, op_go, op_go)
FORWARD(do_query, op_query, op_query)
FORWARD(do_check, agent_check, check_node_req)
FORWARD(do_log, op_log, op_log)

static const struct {
	Pm__Envelope__BodyCase body;
	void (*handle)(struct agent *a, const Pm__Envelope *env);
} table[] = {
	{ PM__ENVELOPE__BODY_NODES_REQ, do_nodes },
	{ PM__ENVELOPE__BODY_PODS_REQ, do_pods },
	{ PM__ENVELOPE__BODY_AGENT_RUN, do_run },
	{ PM__ENVELOPE__BODY_AGENT_INCOMING, do_incoming },
	{ PM__ENVELOPE__BODY_AGENT_OUTGOING, do_outgoing },
	{ PM__ENVELOPE__BODY_OP_COMMIT, do_commit },
	{ PM__ENVELOPE__BODY_OP_STARTED, do_started },
	{ PM__ENVELOPE__BODY_OP_ABORTED, do_aborted },
	{ PM__ENVELOPE__BODY_OP_GO, do_go },
	{ PM__ENVELOPE__BODY_OP_QUERY, do_query },
	{ PM__ENVELOPE__BODY_OP_LOG, do_log },
	{ PM__ENVELOPE__BODY_CHECK_NODE_REQ, do_check },
};

void dispatch(struct agent *a, const Pm__Envelope *env)
{
	for (size_t i = 0; i < ARRAY_SIZE(table); i++)
		if (table[i].body == env->body_case) {
			table[i].handle(a, env);
			return;
		}
	log_warn("nobody handles message '%s'", link_body_name(env->body_case));
}
