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
#include "pod/base/log.h"
#include "pod/base/util.h"

const char *pod_held(struct coord *c, const char *name)
{
	struct op *op = op_of_pod(c, name);

	return op ? op->j.id : NULL;
}

/* The common part: an operation that is in the journal, and the client has heard of. */
static struct op *begin(struct client *cl, uint32_t id, struct journal_op *j, const Pm__MigrateReq *like,
			const char *words)
{
	struct coord *c = cl->coord;
	struct err e = { 0 };
	struct op *op = NULL;
	char check[] = "check";

	if (journal_begin(c->journal, j, &e) == 0)
		op = op_new(c, j);
	LINK_ENVELOPE(req, migrate_req, MIGRATE_REQ, Pm__MigrateReq, pm__migrate_req__init);
	req_body = *like;
	if (op)
		op->asked = envelope_copy(&req);
	if (!op || !op->asked) {
		client_error(cl, id, EX_OTHER, "check", words, "", "%s", e.code ? e.msg : "no memory");
		if (op)
			op_free(op);
		return NULL;
	}
	op->client = cl->serial;
	op->reply = id;
	op->dry_run = like->dry_run;
	LINK_ENVELOPE(env, progress, PROGRESS, Pm__Progress, pm__progress__init);
	env_body.op = op->j.id;
	env_body.pod = op->j.pod;
	env_body.phase = check;
	client_send(cl, id, &env);
	return op;
}

/* ---- checkpoint */

static int check_checkpoint(struct client *cl, uint32_t id, const Pm__CheckpointReq *m, const struct pod *p)
{
	const char *held = pod_held(cl->coord, m->target);

	if (!p && image_has_pod(cl, id, m->target))
		return -1;
	if (!p)
		client_error(cl, id, EX_NOTFOUND, "check", "", "see podps -a", "there is no pod '%s'", m->target);
	else if (!pod_owned(p, cl))
		client_error(cl, id, EX_DENIED, "check", "nothing was touched", "", "pod '%s' belongs to user '%s'",
			     m->target, p->info->spec->user);
	else if (p->info->state == PM__POD_STATE__POD_EXITED)
		client_error(cl, id, EX_NOTFOUND, "check", "nothing was touched", "", "pod '%s' has exited with code %d",
			     m->target, p->info->exit_code);
	else if (!p->node->up)
		client_error(cl, id, EX_UNREACHABLE, "check", "unknown until its node answers", "see podctl nodes",
			     "node '%s', where pod '%s' is, is down: %s", p->node->conf->name, m->target, p->node->why);
	else if (held)
		client_error(cl, id, EX_BUSY, "check", "nothing was touched", "", "operation %s holds pod '%s'", held,
			     m->target);
	else if (p->info->state != PM__POD_STATE__POD_RUNNING)
		client_error(cl, id, EX_BUSY, "check", "nothing was touched", "see podps",
			     "pod '%s' is not in a state to be checkpointed", m->target);
	else if (m->path[0] && m->path[0] != '/')
		client_error(cl, id, EX_BADUSE, "check", "nothing was touched", "", "'%s' is not an absolute path",
			     m->path);
	else
		return 0;
	return -1;
}

/* The engine works, the client (if there is one) has heard of it. */
static void send_off(struct op *op, const Pm__CheckpointReq *m)
{
	char image[128], path[PATH_MAX];

	LINK_ENVELOPE(env, checkpoint_req, CHECKPOINT_REQ, Pm__CheckpointReq, pm__checkpoint_req__init);
	env_body = *m;
	/* operations are numbered, "m17-...": so are images */
	snprintf(image, sizeof(image), "%s.%lu", m->target, strtoul(op->j.id + 1, NULL, 10));
	env_body.id = image;
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
	log_info("operation %s: pod '%s' on '%s' into image '%s'%s", op->j.id, op->j.pod, op->j.source, image,
		 m->term ? ", and to its end" : "");
	op_tell_outgoing(op, NULL);
	op_enter(op, ST_PRECOPY);
}

void checkpoint_request(struct client *cl, uint32_t id, const Pm__CheckpointReq *m)
{
	struct pod *p = pod_find(cl->coord, m->target);
	struct journal_op j = { .uid = cl->uid };
	Pm__MigrateReq like;
	struct op *op;

	if (check_checkpoint(cl, id, m, p) < 0)
		return;
	snprintf(j.pod, sizeof(j.pod), "%s", m->target);
	snprintf(j.source, sizeof(j.source), "%s", p->node->conf->name);
	j.epoch = p->info->epoch;
	pm__migrate_req__init(&like);
	like.target = m->target;
	like.timeout_s = m->timeout_s;
	op = begin(cl, id, &j, &like, "the pod runs on as before");
	if (op)
		send_off(op, m);
}

int checkpoint_begin(struct coord *c, struct pod *p)
{
	const Pm__PodSpec *spec = p->info->spec;
	struct journal_op j = { .uid = spec->uid, .epoch = p->info->epoch };
	Pm__CheckpointReq m;
	struct err e = { 0 };
	struct op *op;

	snprintf(j.pod, sizeof(j.pod), "%s", spec->name);
	snprintf(j.source, sizeof(j.source), "%s", p->node->conf->name);
	if (journal_begin(c->journal, &j, &e) < 0 || !(op = op_new(c, &j)))
		return -1;
	LINK_ENVELOPE(req, migrate_req, MIGRATE_REQ, Pm__MigrateReq, pm__migrate_req__init);
	req_body.target = op->j.pod;
	op->asked = envelope_copy(&req);
	pm__checkpoint_req__init(&m);
	m.target = op->j.pod;
	m.keep = spec->keep;
	if (op->asked)
		send_off(op, &m);
	else
		op_undo(op, EX_OTHER, "no memory");
	return 0;
}

/* ---- restart */

struct restart {
	Pm__PodSpec spec;
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
	struct in_addr a;

	if (!spec->ip[0])
		return 0;
	if (inet_pton(AF_INET, spec->ip, &a) != 1)
		client_error(cl, id, EX_BADUSE, "check", "nothing was made", "", "'%s' is not an IPv4 address",
			     spec->ip);
	else if (cl->uid != 0 && (ntohl(a.s_addr) < conf->pool_first || ntohl(a.s_addr) > conf->pool_last))
		client_error(cl, id, EX_DENIED, "check", "nothing was made", "",
			     "address %s, which the image's pod had, is not in the pool: only root may take it", spec->ip);
	else if (ip_in_use(cl->coord, spec->ip))
		client_error(cl, id, EX_BUSY, "check", "nothing was made", "see podps",
			     "address %s, which the image's pod had, is another pod's", spec->ip);
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
	if (asked[0] && !best->up) {
		client_error(cl, id, EX_UNREACHABLE, "check", "nothing was made", "see podctl nodes",
			     "node '%s' is down: %s", asked, best->why);
		return NULL;
	}
	if (!best)
		best = node_least_loaded(c);
	if (!best)
		client_error(cl, id, EX_UNREACHABLE, "check", "nothing was made", "see podctl nodes", "no node is up");
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

void restore_request(struct client *cl, uint32_t id, const Pm__RestoreReq *m)
{
	struct pod *p = m->spec ? pod_find(cl->coord, m->spec->name) : NULL;
	struct restart r = { .user = "" };
	struct journal_op j = { .uid = cl->uid };
	Pm__MigrateReq like;
	struct node *n;
	struct op *op;

	if (check_restore(cl, id, m, p) < 0)
		return;
	r.spec = *m->spec;
	settle_user(&r, cl, m);
	if (r.spec.ip[0])
		pod_mac(r.spec.name, r.spec.ip, r.mac);
	r.spec.mac = r.mac;
	r.spec.gateway = cl->coord->conf.coord_gateway;
	r.spec.prefix = r.spec.ip[0] ? cl->coord->conf.prefix : 0;
	if (check_address(cl, id, &r.spec) < 0 || !(n = choose_node(cl, id, m->node)))
		return;
	snprintf(j.pod, sizeof(j.pod), "%s", r.spec.name);
	snprintf(j.target, sizeof(j.target), "%s", n->conf->name);
	j.epoch = MAX(m->epoch, p ? p->info->epoch : 0) + 1;
	pm__migrate_req__init(&like);
	like.target = r.spec.name;
	like.node = n->conf->name;
	like.dry_run = m->dry_run;
	op = begin(cl, id, &j, &like, "the image is as it was");
	if (!op)
		return;
	LINK_ENVELOPE(env, restore_req, RESTORE_REQ, Pm__RestoreReq, pm__restore_req__init);
	env_body = *m;
	env_body.spec = NULL; /* it goes beside */
	op->image = envelope_copy(&env);
	reserve_names(cl->coord, op, &r.spec);
	if (!op->image || !op->spec || getrandom(op->token, sizeof(op->token), 0) != sizeof(op->token)) {
		op_undo(op, EX_OTHER, "no memory or no random numbers");
		return;
	}
	log_info("operation %s: pod '%s' out of image '%s' to '%s'", op->j.id, op->j.pod, m->id[0] ? m->id : m->path, op->j.target);
	op_enter(op, ST_RESERVE);
	op->spec = NULL; /* the next report replaces it */
}
