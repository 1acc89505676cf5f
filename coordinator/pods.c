/* SPDX-License-Identifier: GPL-3.0-or-later */
/* The pods, as the agents report them. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "coordinator/coord.h"
#include "coordinator/journal.h"
#include "pod/base/log.h"
#include "pod/base/util.h"

#define GATHER_MS 1000

static Pm__PodInfo *info_copy(const Pm__PodInfo *info)
{
	size_t n = pm__pod_info__get_packed_size(info);
	autofree uint8_t *buf = malloc(n ? n : 1);

	if (!buf)
		return NULL;
	pm__pod_info__pack(info, buf);
	return pm__pod_info__unpack(NULL, n, buf);
}

/* Which report of a pod counts: one that lives before one that has exited, then the newer epoch.
 * One that is still arriving never does. */
static int weight(const struct pod *p)
{
	switch (p->info->state) {
	case PM__POD_STATE__POD_INCOMING:
		return 0;
	case PM__POD_STATE__POD_EXITED:
		return 1;
	default:
		return 2;
	}
}

struct pod *pod_find(struct coord *c, const char *name)
{
	struct pod *best = NULL;

	for (struct pod *p = c->pods; p; p = p->next) {
		if (weight(p) == 0 || strcmp(p->info->spec->name, name) != 0)
			continue;
		if (!best || weight(p) > weight(best) ||
		    (weight(p) == weight(best) && p->info->epoch > best->info->epoch))
			best = p;
	}
	return best;
}

struct pod *pod_find_at(struct coord *c, const char *name, const struct node *n)
{
	for (struct pod *p = c->pods; p; p = p->next)
		if (p->node == n && strcmp(p->info->spec->name, name) == 0)
			return p;
	return NULL;
}

struct pod *pod_add(struct coord *c, struct node *n, const Pm__PodInfo *info)
{
	struct pod *p = calloc(1, sizeof(*p));

	if (!p)
		return NULL;
	p->info = info_copy(info);
	if (!p->info) {
		free(p);
		return NULL;
	}
	p->node = n;
	p->next = c->pods;
	c->pods = p;
	return p;
}

void pod_remove(struct coord *c, struct pod *p)
{
	if (p->noted)
		journal_pod_del(c->journal, p->info->spec->name, p->node->conf->name, NULL);
	for (struct pod **at = &c->pods; *at; at = &(*at)->next)
		if (*at == p) {
			*at = p->next;
			break;
		}
	pm__pod_info__free_unpacked(p->info, NULL);
	free(p);
}

void pod_reported(struct node *n, const Pm__PodInfo *info)
{
	struct pod *p;
	Pm__PodInfo *copy;

	if (!info->spec || !info->spec->name[0])
		return;
	p = pod_find_at(n->coord, info->spec->name, n);
	if (!p) {
		pod_add(n->coord, n, info);
		return;
	}
	copy = info_copy(info);
	if (!copy)
		return;
	pm__pod_info__free_unpacked(p->info, NULL);
	p->info = copy;
	p->pending = false;
	p->stale = false;
}

/* Names and addresses stay taken while a node is away and we were restarted: the journal knows them. */
static void note(struct pod *p)
{
	struct journal *j = p->node->coord->journal;
	const char *name = p->info->spec->name, *node = p->node->conf->name;
	bool want = p->info->state != PM__POD_STATE__POD_EXITED &&
		    p->info->state != PM__POD_STATE__POD_INCOMING && !p->stale;
	struct err e = { 0 };

	if (want && !(p->noted && p->noted_epoch == p->info->epoch)) {
		size_t n = pm__pod_info__get_packed_size(p->info);
		autofree uint8_t *buf = malloc(n ? n : 1);

		if (!buf)
			return;
		pm__pod_info__pack(p->info, buf);
		journal_pod_put(j, name, node, buf, n, &e);
	} else if (!want && p->noted) {
		journal_pod_del(j, name, node, &e);
	}
	if (e.code)
		log_warn("%s", e.msg);
	p->noted = want;
	p->noted_epoch = p->info->epoch;
}

static void load_one(const char *node, const void *data, size_t len, void *arg)
{
	struct coord *c = arg;
	struct node *n = node_find(c, node);
	Pm__PodInfo *info = pm__pod_info__unpack(NULL, len, data);
	struct pod *p = n && info && info->spec ? pod_add(c, n, info) : NULL;

	if (p) {
		p->noted = true;
		p->noted_epoch = info->epoch;
	}
	if (info)
		pm__pod_info__free_unpacked(info, NULL);
}

int pods_load(struct coord *c, struct err *e)
{
	return journal_pods(c->journal, load_one, c, e);
}

void pods_reported(struct node *n, const Pm__AgentPods *m)
{
	struct coord *c = n->coord;
	struct pod *next;

	for (struct pod *p = c->pods; p; p = p->next)
		p->stale = p->node == n && !p->pending;
	for (size_t i = 0; i < m->n_pods; i++)
		pod_reported(n, m->pods[i]);
	for (struct pod *p = c->pods; p; p = next) {
		next = p->next;
		if (p->node == n && !p->pending)
			note(p);
		if (p->stale)
			pod_remove(c, p);
	}
	ops_reconcile(n);
}

bool pod_owned(const struct pod *p, const struct client *cl)
{
	return cl->uid == 0 || cl->uid == p->info->spec->uid;
}

const char *pod_condition(const struct pod *p, char *buf, size_t len)
{
	static const char *const words[] = {
		[PM__POD_STATE__POD_UNKNOWN] = "in a state that its node has not told yet",
		[PM__POD_STATE__POD_STARTING] = "still starting",
		[PM__POD_STATE__POD_RUNNING] = "running",
		[PM__POD_STATE__POD_MIGRATING] = "migrating, or being checkpointed",
		[PM__POD_STATE__POD_FROZEN] = "frozen until the outcome of its move is known",
		[PM__POD_STATE__POD_EXITED] = "over",
		[PM__POD_STATE__POD_LOST] = "lost: its node does not answer",
		[PM__POD_STATE__POD_INCOMING] = "incoming: it does not run there yet",
	};
	const char *op = p->info->op;
	unsigned s = (unsigned)p->info->state;

	if (p->info->ending && s != PM__POD_STATE__POD_EXITED) {
		snprintf(buf, len, "ending");
		return buf;
	}
	snprintf(buf, len, "%s%s%s%s", s < ARRAY_SIZE(words) ? words[s] : words[0], op[0] ? " (operation " : "", op,
		 op[0] ? ")" : "");
	return buf;
}

const struct pod *pod_with_ip(struct coord *c, const char *ip)
{
	for (struct pod *p = c->pods; p; p = p->next)
		if (p->info->state != PM__POD_STATE__POD_EXITED && strcmp(p->info->spec->ip, ip) == 0)
			return p;
	return NULL;
}

bool pod_runs(const struct pod *p)
{
	return p->info->state == PM__POD_STATE__POD_RUNNING && !p->info->ending;
}

bool pod_is_at(struct client *cl, uint32_t id, const struct pod *p, const char *node)
{
	if (!node[0] || !strcmp(p->node->conf->name, node))
		return true;
	client_error(cl, id, EX_NOTFOUND, "check", "nothing was touched", "see podps", "pod '%s' is not on node '%s' any more, but on '%s'",
		     p->info->spec->name, node, p->node->conf->name);
	return false;
}

/* ---- podps: all nodes are asked, who does not answer in time is answered for from memory */

struct gather {
	struct coord *coord;
	uint64_t client;
	uint32_t id;
	unsigned waiting;
	char node[64], user[64];
	bool all;
};

static bool wanted(const struct gather *g, const struct pod *p)
{
	if (g->node[0] && strcmp(g->node, p->node->conf->name) != 0)
		return false;
	if (g->user[0] && strcmp(g->user, p->info->spec->user) != 0)
		return false;
	if (p->info->state == PM__POD_STATE__POD_EXITED && !g->all)
		return false;
	return pod_find(g->coord, p->info->spec->name) == p;
}

static void lost(Pm__PodInfo *info)
{
	info->state = PM__POD_STATE__POD_LOST;
	info->ending = false;
}

static void gathered(struct gather *g)
{
	struct coord *c = g->coord;
	struct client *cl = client_by_serial(c, g->client);
	autofree Pm__PodInfo *infos = NULL;
	autofree Pm__PodInfo **list = NULL;
	size_t n = 0;

	for (struct pod *p = c->pods; p; p = p->next)
		n++;
	infos = calloc(n + 1, sizeof(*infos));
	list = calloc(n + 1, sizeof(Pm__PodInfo *));
	n = 0;
	for (struct pod *p = c->pods; infos && list && p; p = p->next) {
		if (!wanted(g, p))
			continue;
		infos[n] = *p->info;
		infos[n].node = p->node->conf->name;
		if (!p->node->up && p->info->state != PM__POD_STATE__POD_EXITED)
			lost(&infos[n]);
		list[n] = &infos[n];
		n++;
	}
	LINK_ENVELOPE(env, pods_rep, PODS_REP, Pm__PodsRep, pm__pods_rep__init);
	env_body.pods = list;
	env_body.n_pods = n;
	if (cl)
		client_send(cl, g->id, &env);
	free(g);
}

static void on_report(struct node *n, const Pm__Envelope *env, void *arg)
{
	struct gather *g = arg;

	if (env && env->body_case == PM__ENVELOPE__BODY_AGENT_PODS)
		pods_reported(n, env->agent_pods);
	if (--g->waiting == 0)
		gathered(g);
}

void pods_list(struct coord *c, struct client *cl, uint32_t id, const Pm__PodsReq *m)
{
	struct gather *g = calloc(1, sizeof(*g));

	if (!g)
		return;
	g->coord = c;
	g->client = cl->serial;
	g->id = id;
	g->all = m->all;
	snprintf(g->node, sizeof(g->node), "%s", m->node);
	snprintf(g->user, sizeof(g->user), "%s", m->user);
	g->waiting = 1;
	for (size_t i = 0; i < c->nnodes; i++) {
		LINK_ENVELOPE(env, pods_req, PODS_REQ, Pm__PodsReq, pm__pods_req__init);
		g->waiting++;
		node_ask(&c->nodes[i], &env, GATHER_MS, on_report, g);
	}
	if (--g->waiting == 0)
		gathered(g);
}
