/* SPDX-License-Identifier: GPL-3.0-or-later */
/* podrun: name, node, address and identity of a new pod are settled here, the agent makes it. */
#include <arpa/inet.h>
#include <stdio.h>
#include <string.h>

#include "coordinator/coord.h"
#include "pod/base/log.h"
#include "pod/base/util.h"

#define RUN_MS 60000

struct run {
	struct coord *coord;
	uint64_t client;
	uint32_t id;
	char name[64], user[64], ip[16], mac[18];
};

static uint32_t hash(const char *s, uint32_t h)
{
	for (; *s; s++)
		h = (h ^ (uint8_t)*s) * 16777619u;
	return h;
}

bool pod_name_ok(const char *name)
{
	static const char ok[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_.-";
	size_t n = strlen(name);

	return n >= 1 && n <= 63 && strspn(name, ok) == n && name[0] != '.' && name[0] != '-';
}

static int choose_name(struct run *r, struct client *cl, const char *asked)
{
	struct pod *p;

	if (!asked[0]) {
		for (unsigned i = 1;; i++) {
			snprintf(r->name, sizeof(r->name), "pod%u", i);
			if (!pod_find(r->coord, r->name) && !pod_held(r->coord, r->name))
				return 0;
		}
	}
	if (!pod_name_ok(asked)) {
		client_error(cl, r->id, EX_BADUSE, "", "", "",
			     "'%s' is not a name for a pod: letters, digits, _ . -, at most 63",
			     asked);
		return -1;
	}
	p = pod_find(r->coord, asked);
	if (p && p->info->state != PM__POD_STATE__POD_EXITED) {
		client_error(cl, r->id, EX_BUSY, "", "no pod was made", "choose another --name",
			     "a pod '%s' lives on node '%s'", asked, p->node->conf->name);
		return -1;
	}
	if (pod_held(r->coord, asked)) {
		client_error(cl, r->id, EX_BUSY, "", "no pod was made", "choose another --name",
			     "operation %s makes, or takes down, a pod '%s'", pod_held(r->coord, asked), asked);
		return -1;
	}
	if (p && !pod_owned(p, cl)) {
		client_error(cl, r->id, EX_DENIED, "", "no pod was made", "choose another --name",
			     "'%s' was a pod of user '%s', whose log is kept", asked,
			     p->info->spec->user);
		return -1;
	}
	snprintf(r->name, sizeof(r->name), "%s", asked);
	return 0;
}

void pod_mac(const char *name, const char *ip, char out[18])
{
	uint32_t h = hash(ip, hash(name, 2166136261u));

	snprintf(out, 18, "02:%02x:%02x:%02x:%02x:%02x", h >> 24, (h >> 16) & 255, (h >> 8) & 255, h & 255,
		 hash("mac", h) & 255);
}

/* The addresses are handed out in turn: one whose pod is in an image, or has just ended, shall not be the next. */
static void next_ip(struct coord *c, char out[16])
{
	const struct conf *conf = &c->conf;
	uint32_t n = conf->pool_last - conf->pool_first + 1;

	for (uint32_t i = 0; !out[0] && i < n; i++) {
		struct in_addr a = { htonl(conf->pool_first + c->next_ip) };
		char text[INET_ADDRSTRLEN];

		c->next_ip = (c->next_ip + 1) % n;
		inet_ntop(AF_INET, &a, text, sizeof(text));
		if (!pod_with_ip(c, text) && strcmp(text, conf->coord_gateway) != 0)
			memcpy(out, text, 16);
	}
}

static int choose_ip(struct run *r, struct client *cl, const char *asked)
{
	const struct conf *conf = &r->coord->conf;
	struct in_addr a;
	uint32_t h;

	if (!asked[0] || strcmp(asked, "none") == 0)
		return 0;
	if (strcmp(asked, "auto") != 0) {
		if (inet_pton(AF_INET, asked, &a) != 1) {
			client_error(cl, r->id, EX_BADUSE, "", "no pod was made", "",
				     "'%s' is not an IPv4 address", asked);
			return -1;
		}
		h = ntohl(a.s_addr);
		if (cl->uid != 0 && (h < conf->pool_first || h > conf->pool_last)) {
			client_error(cl, r->id, EX_DENIED, "", "no pod was made", "use --ip auto",
				     "address %s is not in the pool: only root may take it", asked);
			return -1;
		}
		if (pod_with_ip(r->coord, asked)) {
			client_error(cl, r->id, EX_BUSY, "", "no pod was made", "use --ip auto",
				     "address %s is another pod's", asked);
			return -1;
		}
		inet_ntop(AF_INET, &a, r->ip, sizeof(r->ip));
	}
	next_ip(r->coord, r->ip);
	if (!r->ip[0]) {
		client_error(cl, r->id, EX_BUSY, "", "no pod was made", "",
			     "no address is left in the pool");
		return -1;
	}
	pod_mac(r->name, r->ip, r->mac);
	return 0;
}

static unsigned node_load(struct coord *c, const struct node *n)
{
	unsigned load = 0;

	for (struct pod *p = c->pods; p; p = p->next)
		load += p->node == n && p->info->state != PM__POD_STATE__POD_EXITED;
	return load;
}

struct node *node_least_loaded(struct coord *c)
{
	struct node *best = NULL;

	for (size_t i = 0; i < c->nnodes; i++)
		if (c->nodes[i].up && !c->nodes[i].cordoned &&
		    (!best || node_load(c, &c->nodes[i]) < node_load(c, best)))
			best = &c->nodes[i];
	return best;
}

static struct node *choose_node(struct run *r, struct client *cl, const char *asked)
{
	struct coord *c = r->coord;
	struct node *best = NULL;

	if (asked[0]) {
		best = node_find(c, asked);
		if (!best) {
			client_error(cl, r->id, EX_NOTFOUND, "", "no pod was made", "see podctl nodes",
				     "there is no node '%s'", asked);
		} else if (!node_takes(cl, r->id, best, "", "no pod was made")) {
			best = NULL;
		}
		return best;
	}
	best = node_least_loaded(c);
	if (!best)
		client_error(cl, r->id, EX_UNREACHABLE, "", "no pod was made", "see podctl nodes",
			     "no node is up and takes pods");
	return best;
}

static void on_answer(struct node *n, const Pm__Envelope *env, void *arg)
{
	struct run *r = arg;
	struct client *cl = client_by_serial(r->coord, r->client);
	struct pod *p = pod_find_at(r->coord, r->name, n);
	const uint32_t id = r->id;

	if (env && env->body_case == PM__ENVELOPE__BODY_RUN_REP && env->run_rep->pod)
		pod_reported(n, env->run_rep->pod); /* who is answered may move it at once */
	else if (p && p->pending)
		pod_remove(r->coord, p);
	free(r);
	if (!cl)
		return;
	if (!env) {
		client_error(cl, id, EX_UNREACHABLE, "", "it may have been made: see podps", "",
			     "node '%s' was lost while it made the pod", n->conf->name);
	} else if (env->body_case == PM__ENVELOPE__BODY_RUN_REP ||
		   env->body_case == PM__ENVELOPE__BODY_ERROR) {
		Pm__Envelope copy = *env;

		client_send(cl, id, &copy);
	} else {
		client_error(cl, id, EX_OTHER, "", "", "", "node '%s' answered nonsense",
			     n->conf->name);
	}
}

/* The spec that the agent gets: the client's wishes, our settlements. Strings are borrowed. */
static void settle(struct run *r, struct client *cl, const Pm__PodSpec *asked, Pm__PodSpec *out)
{
	struct timespec ts;

	clock_gettime(CLOCK_REALTIME, &ts);
	*out = *asked;
	out->name = r->name;
	if (!out->hostname[0])
		out->hostname = r->name;
	out->uid = cl->uid;
	out->gid = cl->gid;
	out->n_groups = 0;
	out->groups = NULL;
	out->user = cl->user;
	out->ip = r->ip;
	out->mac = r->mac;
	out->prefix = r->ip[0] ? r->coord->conf.prefix : 0;
	out->gateway = r->coord->conf.coord_gateway;
	out->created_ns = (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

void run_request(struct client *cl, uint32_t id, const Pm__RunReq *m)
{
	struct run *r = calloc(1, sizeof(*r));
	Pm__PodInfo info;
	Pm__PodSpec spec;
	struct node *n;
	struct pod *p;

	if (!r || !m->spec || m->spec->n_argv == 0) {
		free(r);
		client_error(cl, id, EX_BADUSE, "", "no pod was made", "", "no command");
		return;
	}
	if (m->spec->job[0] && !pod_name_ok(m->spec->job)) {
		free(r);
		client_error(cl, id, EX_BADUSE, "", "no pod was made", "", "'%s' is not a job's name: as a pod's", m->spec->job);
		return;
	}
	r->coord = cl->coord;
	r->client = cl->serial;
	r->id = id;
	if (choose_name(r, cl, m->spec->name) < 0 || choose_ip(r, cl, m->spec->ip) < 0 ||
	    !(n = choose_node(r, cl, m->node))) {
		free(r);
		return;
	}
	settle(r, cl, m->spec, &spec);
	p = pod_find(cl->coord, r->name);
	pm__pod_info__init(&info);
	info.spec = &spec;
	info.state = PM__POD_STATE__POD_STARTING;
	info.epoch = p ? p->info->epoch + 1 : 1;
	if (p && p->node == n)
		pod_remove(cl->coord, p);
	p = pod_add(cl->coord, n, &info);
	if (p)
		p->pending = true;
	image_left(cl->coord, r->name);
	LINK_ENVELOPE(env, agent_run, AGENT_RUN, Pm__AgentRun, pm__agent_run__init);
	env_body.spec = &spec;
	env_body.epoch = info.epoch;
	node_ask(n, &env, RUN_MS, on_answer, r);
}
