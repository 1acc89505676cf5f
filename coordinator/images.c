/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Checkpoints and restarts, as operations like a move (ops.c): one has no target, the other no source.
 *
 *	checkpoint  PRECOPY --CLEAN--> done, the pod runs on
 *	            PRECOPY --READY--> COMMIT --> CLEAN --CLEAN--> done, the pod has ended (--term)
 *	restart     RESERVE --LISTENING--> PRECOPY --READY--> COMMIT --STARTED--> done
 *
 * What an image says of its pod are wishes, as podrun's are: whose pod it is comes from the connection (or, if root asks,
 * from the owner of the image's file), and its name and address must be free.
 */
#include <arpa/inet.h>
#include <limits.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "coordinator/ops.h"
#include "pod/base/io.h"
#include "pod/base/log.h"
#include "pod/base/util.h"

#define AGAIN_S 5 /* a job of which a pod is away or busy just now is cut that much later */

const char *pod_held(struct coord *c, const char *name)
{
	struct op *op = op_of_pod(c, name);

	return op ? op->j.id : NULL;
}

/* The common part: an operation that is in the journal. @g: one of a job's, or NULL. */
static struct op *begin(struct coord *c, struct journal_op *j, const Pm__MigrateReq *like, struct group *g, struct err *e)
{
	struct op *op = NULL;

	if (journal_begin(c->journal, j, e) == 0)
		op = op_new(c, j);
	LINK_ENVELOPE(req, migrate_req, MIGRATE_REQ, Pm__MigrateReq, pm__migrate_req__init);
	req_body = *like;
	if (op)
		op->asked = envelope_copy(&req);
	if (op && op->asked) {
		op->dry_run = like->dry_run;
		if (g)
			group_join(g, op);
		return op;
	}
	if (!e->code)
		err_num(e, ENOMEM, "operation");
	if (op)
		op_free(op);
	return NULL;
}

/* Its client hears of it. */
static void announce(struct op *op, struct client *cl, uint32_t id, const char *subject)
{
	char check[] = "check";

	if (!cl)
		return;
	if (!op->group) {
		op->client = cl->serial;
		op->reply = id;
	}
	LINK_ENVELOPE(env, progress, PROGRESS, Pm__Progress, pm__progress__init);
	env_body.op = op->j.id;
	env_body.pod = (char *)(uintptr_t)subject;
	env_body.phase = check;
	client_send(cl, id, &env);
}

/* The first @n of a group that does not come to be: no node has heard of them. */
static void forget(struct group *g, struct op **op, size_t n)
{
	group_hold(g);
	while (n--) {
		journal_decide(g->coord->journal, op[n]->j.id, JOURNAL_UNDONE, NULL);
		op_free(op[n]);
	}
	group_release(g);
}

/* ---- checkpoint */

static int check_checkpoint(struct client *cl, uint32_t id, const Pm__CheckpointReq *m, const struct pod *p)
{
	const char *name = p->info->spec->name, *held = pod_held(cl->coord, name);
	char how[200];

	if (!pod_owned(p, cl))
		client_error(cl, id, EX_DENIED, "check", "nothing was touched", "", "pod '%s' belongs to user '%s'",
			     name, p->info->spec->user);
	else if (p->info->state == PM__POD_STATE__POD_EXITED)
		client_error(cl, id, EX_NOTFOUND, "check", "nothing was touched", "", "pod '%s' has exited with code %d",
			     name, p->info->exit_code);
	else if (!p->node->up)
		client_error(cl, id, EX_UNREACHABLE, "check", "unknown until its node answers", "see podctl nodes",
			     "node '%s', where pod '%s' is, is down: %s", p->node->conf->name, name, p->node->why);
	else if (held)
		client_error(cl, id, EX_BUSY, "check", "nothing was touched", "", "operation %s holds pod '%s'", held,
			     name);
	else if (!pod_runs(p))
		client_error(cl, id, EX_BUSY, "check", "nothing was touched", "see podps",
			     "pod '%s' cannot be %s now: it is %s", name, m->check ? "checked" : "checkpointed",
			     pod_condition(p, how, sizeof(how)));
	else if (m->path[0] && m->path[0] != '/')
		client_error(cl, id, EX_BADUSE, "check", "nothing was touched", "", "'%s' is not an absolute path",
			     m->path);
	else
		return 0;
	return -1;
}

/* The engine works. @cut: of a job's pod, else NULL. */
static void send_off(struct op *op, const Pm__CheckpointReq *m, const Pm__Cut *cut)
{
	char image[128], path[PATH_MAX];

	LINK_ENVELOPE(env, checkpoint_req, CHECKPOINT_REQ, Pm__CheckpointReq, pm__checkpoint_req__init);
	env_body = *m;
	env_body.target = op->j.pod;
	/* operations are numbered, "m17-...": so are images */
	snprintf(image, sizeof(image), "%s.%lu", op->j.pod, strtoul(op->j.id + 1, NULL, 10));
	env_body.id = image;
	env_body.cut = (Pm__Cut *)(uintptr_t)cut;
	env_body.store = !m->path[0];
	if (m->path[0] && m->path[strlen(m->path) - 1] == '/') {
		snprintf(path, sizeof(path), "%s%s.img", m->path, image);
		env_body.path = path;
	}
	op->image = envelope_copy(&env);
	if (!op->image) {
		op_undo(op, EX_OTHER, "no memory");
		return;
	}
	if (op->dry_run)
		log_info("operation %s: pod '%s' on '%s' is checked", op->j.id, op->j.pod, op->j.source);
	else
		log_info("operation %s: pod '%s' on '%s' into image '%s'%s", op->j.id, op->j.pod, op->j.source, image,
			 m->term ? ", and to its end" : "");
	op_tell_outgoing(op, NULL);
	op_enter(op, ST_PRECOPY);
}

static struct op *begin_checkpoint(struct pod *p, uid_t uid, const Pm__CheckpointReq *m, struct group *g, struct err *e)
{
	struct journal_op j = { .uid = uid, .epoch = p->info->epoch };
	Pm__MigrateReq like;

	snprintf(j.pod, sizeof(j.pod), "%s", p->info->spec->name);
	snprintf(j.source, sizeof(j.source), "%s", p->node->conf->name);
	pm__migrate_req__init(&like);
	like.target = j.pod;
	like.timeout_s = m->timeout_s;
	like.dry_run = m->check;
	return begin(p->node->coord, &j, &like, g, e);
}

/* The pods of @p's job that are not over: @out has room for GROUP_MAX. How many there are. One that only comes into being
 * or moves is among them: it is not cut, but refused. */
static size_t pods_of_job(const struct pod *p, struct pod **out)
{
	const Pm__PodSpec *spec = p->info->spec, *other;
	struct coord *c = p->node->coord;
	size_t n = 0;

	for (struct pod *q = c->pods; q; q = q->next) {
		const struct pod *counts;

		other = q->info->spec;
		counts = pod_find(c, other->name);
		if (strcmp(other->job, spec->job) != 0 || other->uid != spec->uid ||
		    q->info->state == PM__POD_STATE__POD_EXITED || (counts && counts != q))
			continue;
		if (n < GROUP_MAX)
			out[n] = q;
		n++;
	}
	return n;
}

/* All of @pod[@n] into images of one cut. 0, or -1 and *@e: nothing was begun. */
static int cut_job(struct group *g, struct pod **pod, size_t n, uid_t uid, const Pm__CheckpointReq *m, struct err *e)
{
	char *names[GROUP_MAX];
	struct op *op[GROUP_MAX];
	Pm__Cut cut;

	for (size_t i = 0; i < n; i++) {
		op[i] = begin_checkpoint(pod[i], uid, m, g, e);
		if (op[i]) {
			names[i] = op[i]->j.pod;
			continue;
		}
		forget(g, op, i);
		return -1;
	}
	pm__cut__init(&cut);
	cut.id = op[0]->j.id;
	cut.name = g->image;
	cut.pods = names;
	cut.n_pods = n;
	snprintf(g->image, sizeof(g->image), "%s.%lu", g->job, strtoul(op[0]->j.id + 1, NULL, 10));
	log_info("job '%s': %zu pods into image '%s'", g->job, n, g->image);
	announce(op[0], client_by_serial(g->coord, g->client), g->reply, g->job);
	group_hold(g); /* it may fail at once */
	for (size_t i = 0; i < n; i++) {
		Pm__CheckpointReq own = *m;

		if (!g->client) /* by itself: as each was run */
			own.keep = pod[i]->info->spec->keep;
		if (op[i]->stage < ST_COMMIT)
			send_off(op[i], &own, &cut);
	}
	group_release(g);
	return 0;
}

static void checkpoint_pod(struct client *cl, uint32_t id, const Pm__CheckpointReq *m, struct pod *p)
{
	struct err e = { 0 };
	struct op *op;

	if (check_checkpoint(cl, id, m, p) < 0)
		return;
	op = begin_checkpoint(p, cl->uid, m, NULL, &e);
	if (!op) {
		client_error(cl, id, EX_OTHER, "check", "the pod runs on as before", "", "%s", e.msg);
		return;
	}
	announce(op, cl, id, p->info->spec->name);
	send_off(op, m, NULL);
}

static void checkpoint_job(struct client *cl, uint32_t id, const Pm__CheckpointReq *m, const struct pod *first)
{
	struct pod *pod[GROUP_MAX];
	size_t n = pods_of_job(first, pod);
	struct err e = { 0 };
	struct group *g;

	if (n == 1) {
		checkpoint_pod(cl, id, m, pod[0]);
		return;
	}
	if (m->path[0] && m->path[strlen(m->path) - 1] != '/') {
		client_error(cl, id, EX_BADUSE, "check", "nothing was touched", "name a directory that exists",
			     "'%s' is a job of %zu pods: its image is one file for each, in a directory", m->target, n);
		return;
	}
	if (m->stream) {
		client_error(cl, id, EX_BADUSE, "check", "nothing was touched", "name one of its pods, or a directory",
			     "'%s' is a job of %zu pods: its image is one file for each", m->target, n);
		return;
	}
	if (!n || n > GROUP_MAX) {
		client_error(cl, id, EX_BUSY, "check", "nothing was touched", "", "job '%s' has %zu pods: 1 to %d can be cut",
			     m->target, n, GROUP_MAX);
		return;
	}
	for (size_t i = 0; i < n; i++)
		if (check_checkpoint(cl, id, m, pod[i]) < 0)
			return;
	g = group_new(cl->coord, m->target, cl, id);
	if (!g || cut_job(g, pod, n, cl->uid, m, &e) < 0)
		client_error(cl, id, EX_OTHER, "check", "the job runs on as before", "", "%s", g ? e.msg : "no memory");
}

/* A pod, or the pods of a job. Other users' are not there, unless nothing else is meant. */
void checkpoint_request(struct client *cl, uint32_t id, const Pm__CheckpointReq *m)
{
	struct pod *p = m->job ? NULL : pod_find(cl->coord, m->target), *one = NULL, *foreign = NULL;
	bool alive = p && p->info->state != PM__POD_STATE__POD_EXITED && pod_owned(p, cl), others = false;

	if (m->source[0]) { /* that pod, or nothing */
		if (!p)
			client_error(cl, id, EX_NOTFOUND, "check", "", "see podps -a", "there is no pod '%s'", m->target);
		else if (pod_is_at(cl, id, p, m->source))
			checkpoint_pod(cl, id, m, p);
		return;
	}
	for (struct pod *q = m->check ? NULL : cl->coord->pods; q; q = q->next) {
		if (!m->target[0] || strcmp(q->info->spec->job, m->target) != 0 || !pod_owned(q, cl) ||
		    q->info->state == PM__POD_STATE__POD_EXITED)
			continue;
		if (one && one->info->spec->uid != q->info->spec->uid)
			foreign = q;
		others |= q != p;
		one = q;
	}
	if (alive && others)
		client_error(cl, id, EX_BADUSE, "check", "nothing was touched", "name the job's pods one by one",
			     "'%s' is a pod and a job", m->target);
	else if (alive || (p && !one))
		checkpoint_pod(cl, id, m, p);
	else if (foreign)
		client_error(cl, id, EX_BADUSE, "check", "nothing was touched", "name its pods",
			     "users '%s' and '%s' both have a job '%s'", one->info->spec->user, foreign->info->spec->user,
			     m->target);
	else if (one)
		checkpoint_job(cl, id, m, one);
	else if (!image_has_pod(cl, id, m->target))
		client_error(cl, id, EX_NOTFOUND, "check", "", "see podps -a", "there is no pod%s '%s'",
			     m->check ? "" : " or job", m->target);
}

int checkpoint_begin(struct coord *c, struct pod *p)
{
	struct pod *pod[GROUP_MAX];
	struct err e = { 0 };
	Pm__CheckpointReq m;
	struct group *g;
	struct op *op;
	size_t n = p->info->spec->job[0] ? pods_of_job(p, pod) : 1;

	pm__checkpoint_req__init(&m);
	m.keep = p->info->spec->keep;
	if (n > GROUP_MAX)
		return -1;
	if (n < 2) {
		op = begin_checkpoint(p, p->info->spec->uid, &m, NULL, &e);
		if (!op)
			return -1;
		send_off(op, &m, NULL);
		return 0;
	}
	for (size_t i = 0; i < n; i++)
		if (!pod_runs(pod[i]) || !pod[i]->node->up ||
		    pod_held(c, pod[i]->info->spec->name)) {
			p->checkpoint_ns = now_ns() + AGAIN_S * NSEC_PER_SEC;
			return 0;
		}
	for (size_t i = 0; i < n; i++)
		pod[i]->checkpoint_ns = p->checkpoint_ns; /* it was theirs too */
	g = group_new(c, p->info->spec->job, NULL, 0);
	return g && cut_job(g, pod, n, p->info->spec->uid, &m, &e) == 0 ? 0 : -1;
}

/* ---- restart */

struct restart {
	Pm__PodSpec spec;
	uint64_t epoch;
	struct node *node;
	char user[64], mac[18];
};

/* Whose pod it will be. */
static void settle_user(struct restart *r, struct client *cl, const Pm__RestoreReq *m)
{
	const struct passwd *pw;

	r->spec.uid = cl->uid;
	r->spec.gid = cl->gid;
	r->spec.n_groups = 0;
	r->spec.groups = NULL;
	snprintf(r->user, sizeof(r->user), "%s", cl->user);
	r->spec.user = r->user;
	if (cl->uid != 0 || m->owner == 0)
		return;
	pw = getpwuid(m->owner);
	r->spec.uid = m->owner;
	r->spec.gid = pw ? pw->pw_gid : m->owner_gid;
	snprintf(r->user, sizeof(r->user), "%u", m->owner); /* as clients without a name are called */
	if (pw)
		snprintf(r->user, sizeof(r->user), "%s", pw->pw_name);
}

static int check_address(struct client *cl, uint32_t id, const Pm__PodSpec *spec)
{
	const struct conf *conf = &cl->coord->conf;
	const struct pod *has;
	struct in_addr a;

	if (!spec->ip[0])
		return 0;
	has = pod_with_ip(cl->coord, spec->ip);
	if (inet_pton(AF_INET, spec->ip, &a) != 1)
		client_error(cl, id, EX_BADUSE, "check", "nothing was made", "", "'%s' is not an IPv4 address",
			     spec->ip);
	else if (cl->uid != 0 && (ntohl(a.s_addr) < conf->pool_first || ntohl(a.s_addr) > conf->pool_last))
		client_error(cl, id, EX_DENIED, "check", "nothing was made", "",
			     "address %s, which the image's pod had, is not in the pool: only root may take it", spec->ip);
	else if (has)
		client_error(cl, id, EX_BUSY, "check", "nothing was made", "see podps",
			     "address %s, which the image's pod had, is that of pod '%s' on node '%s'", spec->ip,
			     has->info->spec->name, has->node->conf->name);
	else
		return 0;
	return -1;
}

static struct node *choose_node(struct client *cl, uint32_t id, const char *asked)
{
	struct coord *c = cl->coord;
	struct node *best = asked[0] ? node_find(c, asked) : NULL;

	if (asked[0] && !best) {
		client_error(cl, id, EX_NOTFOUND, "check", "nothing was made", "see podctl nodes",
			     "there is no node '%s'", asked);
		return NULL;
	}
	if (asked[0] && !node_takes(cl, id, best, "check", "nothing was made"))
		return NULL;
	if (!best)
		best = node_least_loaded(c);
	if (!best)
		client_error(cl, id, EX_UNREACHABLE, "check", "nothing was made", "see podctl nodes", "no node is up and takes pods");
	return best;
}

/* An id in the store is a pod's name and a number, and never leads out of its directory. */
static bool id_ok(const char *id)
{
	return id[0] != '.' && !strchr(id, '/') && strlen(id) < 128;
}

/* 0, or -1 after the client was told why not. */
static int check_restore(struct client *cl, uint32_t id, const Pm__RestoreReq *m, const struct pod *p)
{
	const char *held;

	if (!m->spec || !pod_name_ok(m->spec->name) || !(m->id[0] ? id_ok(m->id) : m->path[0] == '/')) {
		client_error(cl, id, EX_BADUSE, "check", "nothing was made", "", "not an image of a pod");
		return -1;
	}
	held = pod_held(cl->coord, m->spec->name);
	if (held)
		client_error(cl, id, EX_BUSY, "check", "nothing was made", "", "operation %s holds pod '%s'", held,
			     m->spec->name);
	else if (p && p->info->state != PM__POD_STATE__POD_EXITED)
		client_error(cl, id, EX_BUSY, "check", "nothing was made; that pod was not touched", "podctl kill ends it",
			     "pod '%s' lives on node '%s'%s: it must not be there twice", m->spec->name,
			     p->node->conf->name, p->node->up ? "" : ", which is down");
	else if (p && !pod_owned(p, cl))
		client_error(cl, id, EX_DENIED, "check", "nothing was made", "",
			     "'%s' was a pod of user '%s', whose log is kept", m->spec->name, p->info->spec->user);
	else
		return 0;
	return -1;
}

static void reserve_names(struct coord *c, struct op *op, const Pm__PodSpec *spec)
{
	struct pod *old = pod_find_at(c, spec->name, op->target), *p;
	Pm__PodInfo info;

	pm__pod_info__init(&info);
	info.spec = (Pm__PodSpec *)(uintptr_t)spec;
	info.state = PM__POD_STATE__POD_INCOMING;
	info.epoch = op->j.epoch;
	if (old)
		pod_remove(c, old);
	p = pod_add(c, op->target, &info);
	if (p) {
		p->pending = true; /* a report that is on its way knows nothing of it */
		op->spec = p->info->spec;
	}
}

void op_unreserve(struct op *op)
{
	struct pod *p = pod_find_at(op->coord, op->j.pod, op->target);

	if (p && p->info->state == PM__POD_STATE__POD_INCOMING)
		pod_remove(op->coord, p);
}

/* All but the reservation. 0, or -1 after the client was told why not. */
static int prepare(struct client *cl, uint32_t id, const Pm__RestoreReq *m, struct restart *r)
{
	struct pod *p = m->spec ? pod_find(cl->coord, m->spec->name) : NULL;

	if (check_restore(cl, id, m, p) < 0)
		return -1;
	r->spec = *m->spec;
	settle_user(r, cl, m);
	if (r->spec.ip[0])
		pod_mac(r->spec.name, r->spec.ip, r->mac);
	r->spec.mac = r->mac;
	r->spec.gateway = cl->coord->conf.coord_gateway;
	r->spec.prefix = r->spec.ip[0] ? cl->coord->conf.prefix : 0;
	r->epoch = MAX(m->epoch, p ? p->info->epoch : 0) + 1;
	if (check_address(cl, id, &r->spec) < 0)
		return -1;
	r->node = choose_node(cl, id, m->node);
	return r->node ? 0 : -1;
}

/* The operation, with the pod's name and address. @g, @peers: of a job's, else NULL and 0. */
static struct op *begin_restart(struct client *cl, const Pm__RestoreReq *m, const struct restart *r, struct group *g,
				char **peers, size_t n, struct err *e)
{
	struct journal_op j = { .uid = cl->uid, .epoch = r->epoch };
	Pm__MigrateReq like;
	struct op *op;

	snprintf(j.pod, sizeof(j.pod), "%s", r->spec.name);
	snprintf(j.target, sizeof(j.target), "%s", r->node->conf->name);
	pm__migrate_req__init(&like);
	like.target = r->spec.name;
	like.node = j.target;
	like.dry_run = m->dry_run;
	op = begin(cl->coord, &j, &like, g, e);
	if (!op)
		return NULL;
	LINK_ENVELOPE(env, restore_req, RESTORE_REQ, Pm__RestoreReq, pm__restore_req__init);
	env_body = *m;
	env_body.spec = NULL; /* it goes beside */
	env_body.peers = peers;
	env_body.n_peers = n;
	op->image = envelope_copy(&env);
	reserve_names(cl->coord, op, &r->spec);
	return op;
}

static void send_restart(struct op *op)
{
	const Pm__RestoreReq *m = op->image ? op->image->restore_req : NULL;

	if (!m || !op->spec || getrandom(op->token, sizeof(op->token), 0) != sizeof(op->token)) {
		op_undo(op, EX_OTHER, "no memory or no random numbers");
		return;
	}
	log_info("operation %s: pod '%s' out of image '%s' to '%s'", op->j.id, op->j.pod, m->id[0] ? m->id : m->path, op->j.target);
	op_enter(op, ST_RESERVE);
	op->spec = NULL; /* the next report replaces it */
}

void restore_request(struct client *cl, uint32_t id, const Pm__RestoreReq *m)
{
	struct restart r = { .user = "" };
	struct err e = { 0 };
	struct op *op;

	if (prepare(cl, id, m, &r) < 0)
		return;
	op = begin_restart(cl, m, &r, NULL, NULL, 0, &e);
	if (!op) {
		client_error(cl, id, EX_OTHER, "check", "the image is as it was", "", "%s", e.msg);
		return;
	}
	announce(op, cl, id, m->spec->name);
	send_restart(op);
}

/* A request that makes sense: the coordinator knows only what is there already. */
static int check_members(struct client *cl, uint32_t id, const Pm__RestoreJobReq *m)
{
	bool ok = m->n_pods && m->n_pods <= GROUP_MAX && pod_name_ok(m->job);

	for (size_t i = 0; ok && i < m->n_pods; i++)
		ok = m->pods[i]->spec && m->pods[i]->dry_run == m->pods[0]->dry_run;
	if (!ok) {
		client_error(cl, id, EX_BADUSE, "check", "nothing was made", "", "not a job of 1 to %d pods", GROUP_MAX);
		return -1;
	}
	for (size_t i = 0; i < m->n_pods; i++)
		for (size_t k = 0; k < i; k++) {
			const Pm__PodSpec *x = m->pods[i]->spec, *y = m->pods[k]->spec;

			if (strcmp(x->name, y->name) != 0 && (!x->ip[0] || strcmp(x->ip, y->ip) != 0))
				continue;
			client_error(cl, id, EX_BADUSE, "check", "nothing was made", "",
				     "two pods of job '%s' have one name or address", m->job);
			return -1;
		}
	return 0;
}

/* One operation for each, with its place, so that the next one gets another. 0, or -1 after the client was told why not. */
static int begin_all(struct client *cl, uint32_t id, const Pm__RestoreJobReq *m, struct group *g, struct op **op)
{
	char *peers[GROUP_MAX];
	struct err e = { 0 };
	size_t i, n = 0;

	for (i = 0; i < m->n_pods; i++)
		if (m->pods[i]->spec->ip[0])
			peers[n++] = m->pods[i]->spec->ip;
	for (i = 0; i < m->n_pods; i++) {
		struct restart r = { .user = "" };

		if (prepare(cl, id, m->pods[i], &r) < 0)
			break;
		op[i] = begin_restart(cl, m->pods[i], &r, g, peers, n, &e);
		if (op[i])
			continue;
		client_error(cl, id, EX_OTHER, "check", "the images are as they were", "", "%s", e.msg);
		break;
	}
	if (i == m->n_pods)
		return 0;
	for (size_t k = 0; k < i; k++)
		op_unreserve(op[k]);
	forget(g, op, i);
	return -1;
}

void restore_job_request(struct client *cl, uint32_t id, const Pm__RestoreJobReq *m)
{
	struct op *op[GROUP_MAX];
	struct group *g;

	if (check_members(cl, id, m) < 0)
		return;
	g = group_new(cl->coord, m->job, cl, id);
	if (!g) {
		client_error(cl, id, EX_OTHER, "check", "the images are as they were", "", "no memory");
		return;
	}
	if (begin_all(cl, id, m, g, op) < 0)
		return;
	announce(op[0], cl, id, m->job);
	log_info("job '%s': %zu pods out of images", m->job, m->n_pods);
	group_hold(g); /* it may fail at once */
	for (size_t i = 0; i < m->n_pods; i++)
		if (op[i]->stage < ST_COMMIT)
			send_restart(op[i]);
	group_release(g);
}
