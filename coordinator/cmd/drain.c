/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * podctl drain: a node is cordoned, and its pods move to others, some at a time.
 *
 * Each pod is a conversation of its own, over a connection of its own; the coordinator knows nothing of drains. So whatever
 * happens to this program, each pod is moved or is where it was, and the drain can be begun again.
 *
 *	WAITS --a node has room for it--> MOVES --> MOVED
 *	  ^                                 |-----> GONE      it has ended, or somebody else has moved it
 *	  '-- busy, or another node might --|-----> SAVES --> SAVED   --on-failure checkpoint: it ended with its image
 *	                                    |-----> STAYS
 *	                                    '-----> UNSURE    the coordinator was lost in the middle
 *
 * A node that has failed a pod is not asked for that one again. A pod that another operation holds is waited for, and the node that is
 * to be emptied if it does not answer.
 */
#include <errno.h>
#include <jansson.h>
#include <libsmartcols/libsmartcols.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/signalfd.h>

#include "coordinator/cmd/cordon.h"
#include "coordinator/cmd/reasons.h"
#include "pod/base/io.h"
#include "pod/base/util.h"

#define PARALLEL_MAX 64
#define BUSY_S 120 /* somebody else's operation with a pod is waited for, and a node that is away for a moment */
#define NONE_S 10  /* so is any node that takes pods, if there is none */
#define AGAIN_MS 300
#define REQUEST_ID 1
#define ABORT_ID 2

enum { OPT_REASON = 256, OPT_TO, OPT_PARALLEL, OPT_TIMEOUT, OPT_ON_FAILURE, OPT_DRY_RUN, OPT_JSON };

static const struct option longs[] = {
	{ "reason", required_argument, NULL, OPT_REASON },
	{ "to", required_argument, NULL, OPT_TO },
	{ "max-parallel", required_argument, NULL, OPT_PARALLEL },
	{ "timeout", required_argument, NULL, OPT_TIMEOUT },
	{ "on-failure", required_argument, NULL, OPT_ON_FAILURE },
	{ "dry-run", no_argument, NULL, OPT_DRY_RUN },
	{ "json", no_argument, NULL, OPT_JSON },
	{ "help", no_argument, NULL, 'h' },
	{ NULL, 0, NULL, 0 },
};

enum state { WAITS, MOVES, SAVES, MOVED, SAVED, GONE, STAYS, UNSURE };

static const char *const state_name[] = { "waiting", "moving", "checkpointing", "moved", "checkpointed", "gone", "stays", "unknown" };

enum on_failure { SKIP, CHECKPOINT, STOP };

struct place {
	char name[65];
	unsigned pods; /* there, or on their way */
	bool takes;
};

struct move {
	char pod[65], user[65];
	enum state state;
	int to; /* place; -1: none yet */
	bool *tried; /* of each place */
	bool save;   /* no place will do */
	int fd; /* -1: no conversation */
	char op[128];
	uint64_t again_ns, busy_till_ns, none_till_ns;
	int code;
	char *words; /* why it stays; the image of one that is saved */
	uint64_t frozen_ns, total_ns;
};

struct drain {
	struct ctx *c;
	const char *node, *reason, *to;
	uint64_t parallel, timeout_s, deadline;
	enum on_failure on_failure;
	bool dry_run, json;
	struct place *place;
	size_t nplaces;
	struct move *m;
	size_t n;
	int signals;
	bool stopping, left; /* no more are begun; the user will not wait */
};

/* ---- what there is */

static bool in_list(const char *list, const char *name)
{
	size_t n = strlen(name);

	for (; list; list = strchr(list, ','), list = list ? list + 1 : NULL)
		if (!strncmp(list, name, n) && (list[n] == ',' || !list[n]))
			return true;
	return false;
}

static int ask(struct drain *d, Pm__Envelope *q, Pm__Envelope__BodyCase want, Pm__Envelope **rep)
{
	int fd = client_open(d->c), code;

	if (fd < 0)
		return -fd;
	code = client_call(d->c, fd, q, want, d->node, rep);
	close(fd);
	return code;
}

/* Each name of --to must be a node, or a slip would send all pods elsewhere. */
static int check_to(struct drain *d)
{
	autofree char *list = d->to ? strdup(d->to) : NULL;
	char *save = NULL;
	size_t i;

	for (char *w = list ? strtok_r(list, ",", &save) : NULL; w; w = strtok_r(NULL, ",", &save)) {
		if (!strcmp(w, d->node))
			return say_usage(d->c, "--to: '%s' is the node that is to be emptied", w);
		for (i = 0; i < d->nplaces && strcmp(d->place[i].name, w); i++)
			;
		if (i == d->nplaces)
			return say(d->c, EXIT_NOTFOUND, "--to: there is no node '%s'; nothing was done", w);
	}
	return EXIT_OK;
}

static bool takes(const struct drain *d, const Pm__NodeInfo *n)
{
	return !strcmp(n->state, "up") && (!d->to || in_list(d->to, n->name));
}

static int ask_nodes(struct drain *d, Pm__Envelope **rep)
{
	LINK_ENVELOPE(q, nodes_req, NODES_REQ, Pm__NodesReq, pm__nodes_req__init);
	return ask(d, &q, PM__ENVELOPE__BODY_NODES_REP, rep);
}

/* Is the node itself down, for the moment perhaps? Of the others, too, it is looked at which are. */
static bool is_down(struct drain *d)
{
	Pm__Envelope *rep = NULL;
	bool down = false;

	if (ask_nodes(d, &rep))
		return false;
	for (size_t i = 0; i < rep->nodes_rep->n_nodes; i++) {
		const Pm__NodeInfo *n = rep->nodes_rep->nodes[i];

		down |= !strcmp(n->name, d->node) && !strcmp(n->state, "down");
		for (size_t k = 0; k < d->nplaces; k++)
			if (!strcmp(d->place[k].name, n->name))
				d->place[k].takes = takes(d, n);
	}
	link_free(rep);
	return down;
}

static int find_places(struct drain *d)
{
	Pm__Envelope *rep = NULL;
	bool found = false;
	int code = ask_nodes(d, &rep);

	if (code)
		return code;
	d->place = calloc(rep->nodes_rep->n_nodes + 1, sizeof(*d->place));
	for (size_t i = 0; d->place && i < rep->nodes_rep->n_nodes; i++) {
		const Pm__NodeInfo *n = rep->nodes_rep->nodes[i];
		struct place *p = &d->place[d->nplaces];

		if (!strcmp(n->name, d->node)) {
			found = true;
			if (!strcmp(n->state, "down"))
				code = say(d->c, EXIT_UNREACHABLE, "node '%s' is down: its pods cannot be moved; nothing was done", d->node);
			continue;
		}
		snprintf(p->name, sizeof(p->name), "%s", n->name);
		p->pods = n->pods;
		p->takes = takes(d, n);
		d->nplaces++;
	}
	link_free(rep);
	if (!d->place)
		return say(d->c, EXIT_OTHER, "no memory");
	if (!found)
		return say(d->c, EXIT_NOTFOUND, "there is no node '%s'; nothing was done", d->node);
	return code ? code : check_to(d);
}

static int add_pod(struct drain *d, const Pm__PodSpec *s)
{
	struct move *m;
	size_t i;

	for (i = 0; i < d->n; i++)
		if (!strcmp(d->m[i].pod, s->name))
			return EXIT_OK;
	m = reallocarray(d->m, d->n + 1, sizeof(*m));
	if (!m)
		return say(d->c, EXIT_OTHER, "no memory");
	d->m = m;
	m = &d->m[d->n];
	*m = (struct move){ .to = -1, .fd = -1, .tried = calloc(d->nplaces + 1, sizeof(bool)) };
	if (!m->tried)
		return say(d->c, EXIT_OTHER, "no memory");
	snprintf(m->pod, sizeof(m->pod), "%s", s->name);
	snprintf(m->user, sizeof(m->user), "%s", s->user);
	d->n++;
	return EXIT_OK;
}

/* Those that are not known yet: one may have been on its way to the node when that was cordoned. */
static int find_pods(struct drain *d)
{
	Pm__Envelope *rep = NULL;
	int code;

	LINK_ENVELOPE(q, pods_req, PODS_REQ, Pm__PodsReq, pm__pods_req__init);
	q_body.node = (char *)(uintptr_t)d->node;
	code = ask(d, &q, PM__ENVELOPE__BODY_PODS_REP, &rep);
	for (size_t i = 0; !code && i < rep->pods_rep->n_pods; i++)
		if (rep->pods_rep->pods[i]->spec)
			code = add_pod(d, rep->pods_rep->pods[i]->spec);
	link_free(rep);
	return code;
}

/* ---- one pod */

static void say_progress(struct drain *d, const struct move *m)
{
	char frozen[32];
	size_t done = 0;

	for (size_t i = 0; i < d->n; i++)
		done += d->m[i].state >= MOVED;
	if (d->json)
		return;
	fprintf(stderr, "[%zu/%zu] %s: ", done, d->n, m->pod);
	if (m->state == MOVED && d->dry_run)
		fprintf(stderr, "can move to %s\n", d->place[m->to].name);
	else if (m->state == MOVED)
		fprintf(stderr, "%s -> %s, frozen %s\n", d->node, d->place[m->to].name, human_ns(frozen, sizeof(frozen), m->frozen_ns));
	else if (m->state == SAVED)
		fprintf(stderr, "ended with its image %s\n", m->words);
	else
		fprintf(stderr, "%s%s%s\n", state_name[m->state], m->words ? ": " : "", m->words ? m->words : "");
}

static void hang_up(struct move *m)
{
	close_fdp(&m->fd);
	m->op[0] = '\0';
}

static void finish(struct drain *d, struct move *m, enum state state, int code, const char *words)
{
	autofree char *text = words ? strdup(words) : NULL;

	hang_up(m);
	m->state = state;
	m->code = code;
	free(m->words);
	m->words = text ? clean(take_ptr(&text)) : NULL;
	if (state >= STAYS && d->on_failure == STOP)
		d->stopping = true;
	say_progress(d, m);
}

static void stays(struct drain *d, struct move *m, int code, const Pm__Error *e)
{
	char words[1024];

	snprintf(words, sizeof(words), "%s%s%s%s%s", e->phase, e->phase[0] ? ": " : "", e->cause, e->state[0] ? "; " : "", e->state);
	finish(d, m, code == EXIT_UNKNOWN ? UNSURE : STAYS, code, words);
}

/* Where the fewest pods are. */
static int choose(const struct drain *d, const struct move *m)
{
	int best = -1;

	for (size_t i = 0; i < d->nplaces; i++)
		if (d->place[i].takes && !m->tried[i] && (best < 0 || d->place[i].pods < d->place[best].pods))
			best = (int)i;
	return best;
}

static int send_request(struct drain *d, struct move *m, Pm__Envelope *q)
{
	struct err e = { 0 };
	int r;

	m->fd = client_try(d->c, &e);
	q->id = REQUEST_ID;
	r = m->fd < 0 ? m->fd : link_send(m->fd, q, deadline_ms(CALL_MS), &e);
	if (r < 0)
		finish(d, m, STAYS, EXIT_UNREACHABLE, e.msg);
	return r;
}

static uint32_t seconds_left(const struct drain *d)
{
	return d->timeout_s ? (uint32_t)deadline_left_ms(d->deadline) / 1000 + 1 : 0;
}

static void begin_move(struct drain *d, struct move *m)
{
	LINK_ENVELOPE(q, migrate_req, MIGRATE_REQ, Pm__MigrateReq, pm__migrate_req__init);
	q_body.target = m->pod;
	q_body.node = d->place[m->to].name;
	q_body.source = (char *)(uintptr_t)d->node; /* it may have gone, and another have its name */
	q_body.max_downtime_ms = 300;
	q_body.max_rounds = 8;
	q_body.timeout_s = seconds_left(d);
	q_body.dry_run = d->dry_run;
	m->state = MOVES;
	if (send_request(d, m, &q) == 0)
		d->place[m->to].pods++;
}

static void begin_save(struct drain *d, struct move *m)
{
	LINK_ENVELOPE(q, checkpoint_req, CHECKPOINT_REQ, Pm__CheckpointReq, pm__checkpoint_req__init);
	q_body.target = m->pod;
	q_body.term = true;
	q_body.source = (char *)(uintptr_t)d->node;
	q_body.timeout_s = seconds_left(d);
	m->state = SAVES;
	send_request(d, m, &q);
}

static void wait_again(struct move *m)
{
	hang_up(m);
	m->state = WAITS;
	m->again_ns = now_ns() + AGAIN_MS * NSEC_PER_MSEC;
}

static bool may_save(const struct drain *d)
{
	return d->on_failure == CHECKPOINT && !d->dry_run;
}

/* Somebody has said that it is to stay. */
static bool is_wish(const Pm__Error *e)
{
	return e->exit_code == EXIT_ABORTED && !strncmp(e->cause, "aborted by user ", 16);
}

/* Would another node help? What the pod itself is refused for it is refused for everywhere. */
static bool is_of_node(const Pm__Error *e)
{
	if (e->exit_code == EXIT_UNREACHABLE || e->exit_code == EXIT_TRANSFER || e->exit_code == EXIT_RESTORE ||
	    e->exit_code == EXIT_ABORTED)
		return true;
	if (e->exit_code != EXIT_CHECK)
		return false;
	for (size_t i = 0; i < e->n_details; i++)
		if (!reason_find(e->details[i])->target)
			return false;
	return true;
}

static void on_error(struct drain *d, struct move *m, const Pm__Error *e)
{
	int code = e->exit_code ? e->exit_code : EXIT_OTHER;

	if (m->state == MOVES)
		d->place[m->to].pods--;
	if (code == EXIT_NOTFOUND) {
		finish(d, m, GONE, 0, NULL);
	} else if (code == EXIT_UNKNOWN || is_wish(e) || d->stopping || deadline_past(d->deadline)) {
		stays(d, m, code, e);
	} else if (code == EXIT_BUSY || (code == EXIT_UNREACHABLE && is_down(d))) {
		if (!m->busy_till_ns)
			m->busy_till_ns = now_ns() + BUSY_S * NSEC_PER_SEC;
		if (now_ns() < m->busy_till_ns)
			wait_again(m);
		else
			stays(d, m, code, e);
	} else if (m->state == MOVES) {
		bool other = is_of_node(e);

		if (other)
			m->tried[m->to] = true;
		other = other && choose(d, m) >= 0;
		m->save = !other && may_save(d) && code != EXIT_USAGE && code != EXIT_DENIED;
		if (other || m->save)
			wait_again(m);
		else
			stays(d, m, code, e);
	} else {
		stays(d, m, code, e);
	}
}

static void send_abort(struct move *m)
{
	LINK_ENVELOPE(q, op_abort_req, OP_ABORT_REQ, Pm__OpAbortReq, pm__op_abort_req__init);
	q.id = ABORT_ID;
	q_body.op = m->op;
	link_send(m->fd, &q, deadline_ms(CALL_MS), NULL);
}

static void on_message(struct drain *d, struct move *m)
{
	Pm__Envelope *env = NULL;
	struct err e = { 0 };

	if (link_recv(m->fd, &env, deadline_ms(CALL_MS), &e) < 0) {
		finish(d, m, UNSURE, EXIT_UNKNOWN, "the coordinator is gone; the outcome is not known here: see podps, and podctl recover");
		return;
	}
	if (env->body_case == PM__ENVELOPE__BODY_PROGRESS && !m->op[0]) {
		snprintf(m->op, sizeof(m->op), "%s", env->progress->op);
		if (d->stopping && d->on_failure != STOP)
			send_abort(m);
	} else if (env->body_case == PM__ENVELOPE__BODY_MIGRATE_REP) {
		m->frozen_ns = env->migrate_rep->frozen_ns;
		m->total_ns = env->migrate_rep->total_ns;
		finish(d, m, m->state == SAVES ? SAVED : MOVED, 0, m->state == SAVES ? env->migrate_rep->image : NULL);
	} else if (env->body_case == PM__ENVELOPE__BODY_ERROR && env->id == REQUEST_ID) {
		on_error(d, m, env->error);
	} /* an abort that came too late is no news: the move goes on to its end */
	link_free(env);
}

/* ---- all of them */

static size_t under_way(const struct drain *d)
{
	size_t n = 0;

	for (size_t i = 0; i < d->n; i++)
		n += d->m[i].fd >= 0;
	return n;
}

/* None takes it just now: for how long has that been so? */
static bool await_place(struct drain *d, struct move *m)
{
	if (!m->none_till_ns)
		m->none_till_ns = now_ns() + NONE_S * NSEC_PER_SEC;
	is_down(d);
	return now_ns() < m->none_till_ns;
}

/* What could be begun is. Milliseconds until the next can be, -1: none waits. */
static int begin_more(struct drain *d)
{
	int wait = -1;

	for (size_t i = 0; i < d->n; i++) {
		struct move *m = &d->m[i];
		uint64_t now = now_ns();

		if (m->state != WAITS)
			continue;
		if (d->stopping || (d->timeout_s && deadline_past(d->deadline))) {
			finish(d, m, STAYS, EXIT_ABORTED, d->stopping ? "not tried: the drain was ended" : "not tried: there was no time left");
			continue;
		}
		if (m->again_ns <= now && !m->save && (m->to = choose(d, m)) < 0) {
			if (await_place(d, m)) {
				wait_again(m);
			} else if (may_save(d)) {
				m->save = true;
			} else {
				finish(d, m, STAYS, EXIT_UNREACHABLE, "no other node is up and takes pods");
				continue;
			}
		}
		if (m->again_ns > now) {
			int ms = (int)((m->again_ns - now) / NSEC_PER_MSEC) + 1;

			wait = wait < 0 ? ms : MIN(wait, ms);
		} else if (under_way(d) < d->parallel) {
			if (m->save)
				begin_save(d, m);
			else
				begin_move(d, m);
		}
	}
	return wait;
}

/* The first ends the drain, the second leaves. */
static void on_signal(struct drain *d)
{
	struct signalfd_siginfo si;

	if (read(d->signals, &si, sizeof(si)) != (ssize_t)sizeof(si))
		return;
	if (d->stopping && d->on_failure != STOP) {
		d->left = true;
		return;
	}
	d->stopping = true;
	d->on_failure = SKIP;
	fprintf(stderr, "%s: aborting what is under way; once more to leave without waiting\n", d->c->prog);
	for (size_t i = 0; i < d->n; i++)
		if (d->m[i].fd >= 0 && d->m[i].op[0])
			send_abort(&d->m[i]);
}

static int converse(struct drain *d)
{
	for (;;) {
		struct pollfd p[PARALLEL_MAX + 1] = { { .fd = d->signals, .events = POLLIN } };
		size_t who[PARALLEL_MAX + 1], n = 1;
		int wait = begin_more(d);

		for (size_t i = 0; i < d->n && n <= PARALLEL_MAX; i++)
			if (d->m[i].fd >= 0) {
				who[n] = i;
				p[n++] = (struct pollfd){ .fd = d->m[i].fd, .events = POLLIN };
			}
		if (n == 1 && wait < 0)
			return EXIT_OK;
		if (poll(p, n, wait) < 0 && errno != EINTR)
			return say(d->c, EXIT_OTHER, "poll: %s", strerror(errno));
		if (p[0].revents)
			on_signal(d);
		if (d->left)
			return say(d->c, EXIT_UNKNOWN, "left at your word; what was under way is aborted unless it was decided: see podps");
		for (size_t i = 1; i < n; i++)
			if (p[i].revents)
				on_message(d, &d->m[who[i]]);
	}
}

/* ---- the end */

static const struct {
	const char *name;
	int flags;
} columns[] = { { "POD", 0 }, { "USER", 0 }, { "RESULT", 0 }, { "NODE", 0 }, { "FROZEN", SCOLS_FL_RIGHT },
		{ "TIME", SCOLS_FL_RIGHT }, { "WHY", 0 } };

static int add_row(struct libscols_table *t, const struct drain *d, const struct move *m)
{
	struct libscols_line *l = scols_table_new_line(t, NULL);
	bool moved = m->state == MOVED;
	char frozen[32], total[32];
	const char *cell[] = { m->pod, m->user, moved && d->dry_run ? "can move" : state_name[m->state],
			       moved ? d->place[m->to].name : m->state == STAYS ? d->node : "-",
			       moved && !d->dry_run ? human_ns(frozen, sizeof(frozen), m->frozen_ns) : "-",
			       moved && !d->dry_run ? human_ns(total, sizeof(total), m->total_ns) : "-", m->words ? m->words : "" };

	for (size_t i = 0; l && i < ARRAY_SIZE(cell); i++)
		if (scols_line_set_data(l, i, cell[i]) < 0)
			return -1;
	return l ? 0 : -1;
}

static int print_table(struct drain *d)
{
	struct libscols_table *t = scols_new_table();
	int bad = !t;

	for (size_t i = 0; !bad && i < ARRAY_SIZE(columns); i++)
		bad = !scols_table_new_column(t, columns[i].name, 0, columns[i].flags);
	for (size_t i = 0; !bad && i < d->n; i++)
		bad = add_row(t, d, &d->m[i]) < 0;
	if (!bad)
		bad = scols_print_table(t) < 0;
	scols_unref_table(t);
	return bad ? say(d->c, EXIT_OTHER, "no memory") : EXIT_OK;
}

static int print_json(struct drain *d, int exit_code)
{
	json_t *list = json_array(), *all;

	for (size_t i = 0; list && i < d->n; i++) {
		const struct move *m = &d->m[i];

		json_array_append_new(list, json_pack("{s:s, s:s, s:s, s:s?, s:i, s:s, s:I, s:I}", "pod", m->pod, "user", m->user, "result",
						      state_name[m->state], "to", m->state == MOVED ? d->place[m->to].name : NULL,
						      "exit_code", m->code, "why", m->words ? m->words : "", "frozen_ns",
						      (json_int_t)m->frozen_ns, "total_ns", (json_int_t)m->total_ns));
	}
	all = json_pack("{s:s, s:b, s:i, s:o}", "node", d->node, "dry_run", d->dry_run, "exit_code", exit_code, "pods", list);
	if (!all)
		return say(d->c, EXIT_OTHER, "no memory");
	json_dumpf(all, stdout, JSON_INDENT(2) | JSON_ENSURE_ASCII);
	putchar('\n');
	json_decref(all);
	return EXIT_OK;
}

static int report(struct drain *d, int code)
{
	size_t count[UNSURE + 1] = { 0 };
	int r;

	for (size_t i = 0; i < d->n; i++)
		count[d->m[i].state]++;
	if (!code && count[UNSURE])
		code = EXIT_UNKNOWN;
	if (!code && count[STAYS])
		code = d->dry_run ? EXIT_CHECK : EXIT_PARTIAL;
	r = d->json ? print_json(d, code) : d->n ? print_table(d) : EXIT_OK;
	if (!d->json && d->dry_run)
		printf("%s: %zu of %zu pods can move; nothing was done\n", d->node, count[MOVED], d->n);
	if (d->json || d->dry_run)
		return r ? r : code;
	printf("%s: %zu pod%s moved, ", d->node, count[MOVED], count[MOVED] == 1 ? "" : "s");
	if (count[SAVED])
		printf("%zu ended with an image, ", count[SAVED]);
	if (count[GONE])
		printf("%zu had gone, ", count[GONE]);
	if (count[UNSURE])
		printf("of %zu it is not known, ", count[UNSURE]);
	printf("%zu left; the node is cordoned until podctl uncordon %s\n", count[WAITS] + count[MOVES] + count[SAVES] + count[STAYS], d->node);
	return r ? r : code;
}

static int parse(struct drain *d, int argc, char **argv, int *code)
{
	static const char *const actions[] = { "skip", "checkpoint", "stop" };
	int o, r = 0;
	size_t i;

	while ((o = next_option(d->c, argc, argv, ":h", longs)) != -1) {
		*code = o == 'h' ? EXIT_OK : usage_code(d->c);
		if (o == 'h' || o == '?')
			return -1;
		if (o == OPT_REASON) {
			d->reason = optarg;
		} else if (o == OPT_TO) {
			d->to = optarg;
		} else if (o == OPT_PARALLEL) {
			r = parse_number(d->c, "--max-parallel", optarg, 1, PARALLEL_MAX, &d->parallel);
		} else if (o == OPT_TIMEOUT) {
			r = parse_number(d->c, "--timeout", optarg, 0, 86400 * 7, &d->timeout_s);
		} else if (o == OPT_ON_FAILURE) {
			for (i = 0; i < ARRAY_SIZE(actions) && strcmp(actions[i], optarg); i++)
				;
			d->on_failure = (enum on_failure)i;
			if (i == ARRAY_SIZE(actions))
				r = say_usage(d->c, "--on-failure: '%s' is not skip, checkpoint or stop", optarg);
		} else if (o == OPT_DRY_RUN) {
			d->dry_run = true;
		} else {
			d->json = true;
		}
		if (r)
			return -1;
	}
	if (argc - optind == 1) {
		d->node = argv[optind];
		return 0;
	}
	*code = say_usage(d->c, argc == optind ? "which node?" : "too many operands");
	return -1;
}

/* Is a pod on its way to the node, that was before it was cordoned? */
static int is_expected(struct drain *d, bool *yes)
{
	Pm__Envelope *rep = NULL;
	int code;

	LINK_ENVELOPE(q, ops_req, OPS_REQ, Pm__OpsReq, pm__ops_req__init);
	code = ask(d, &q, PM__ENVELOPE__BODY_OPS_REP, &rep);
	*yes = false;
	for (size_t i = 0; !code && i < rep->ops_rep->n_ops; i++)
		*yes |= !strcmp(rep->ops_rep->ops[i]->to, d->node) && strcmp(rep->ops_rep->ops[i]->stage, "undo") != 0;
	link_free(rep);
	return code;
}

/* All that are there, and those that come while it is done. */
static int drain_all(struct drain *d)
{
	uint64_t till = now_ns() + BUSY_S * NSEC_PER_SEC;
	bool more = true, expected = false;
	int code = 0;

	while (!code && more) {
		struct pollfd p = { .fd = d->signals, .events = POLLIN };
		size_t known = d->n;

		code = find_pods(d);
		if (!code)
			code = converse(d);
		if (!code && !d->dry_run)
			code = is_expected(d, &expected);
		more = !d->dry_run && !d->stopping && (d->n > known || (expected && now_ns() < till));
		if (!code && more && expected && poll(&p, 1, AGAIN_MS) > 0)
			on_signal(d);
	}
	if (!code && expected)
		code = say(d->c, EXIT_PARTIAL, "a pod is still on its way to node '%s': see podctl op list", d->node);
	return code;
}

int cmd_drain(struct ctx *c, int argc, char **argv)
{
	struct drain d = { .c = c, .reason = "drain", .parallel = 2, .deadline = IO_FOREVER, .signals = -1 };
	sigset_t set;
	int code = 0;

	if (parse(&d, argc, argv, &code) < 0)
		return code;
	sigemptyset(&set);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGTERM);
	sigprocmask(SIG_BLOCK, &set, NULL);
	d.signals = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	if (d.timeout_s)
		d.deadline = deadline_look_ms(d.timeout_s * 1000);
	code = find_places(&d);
	if (!code && !d.dry_run)
		code = cordon_set(c, d.node, true, d.reason);
	if (code)
		goto out;
	code = report(&d, drain_all(&d));
out:
	close_fdp(&d.signals);
	for (size_t i = 0; i < d.n; i++) {
		close_fdp(&d.m[i].fd);
		free(d.m[i].tried);
		free(d.m[i].words);
	}
	free(d.m);
	free(d.place);
	return code;
}
