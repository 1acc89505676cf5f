/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * podctl check: why a pod cannot go, all of it, while it runs; what a node lacks.
 *
 * For a pod it is the check phase of an operation and no more: of a checkpoint, or with --to of a move to that node.
 * The pods of a job are asked about one after the other. What is found goes to stdout; what else is wrong to stderr.
 */
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "coordinator/cmd/client.h"
#include "coordinator/cmd/reasons.h"
#include "pod/base/io.h"
#include "pod/base/util.h"

enum { OPT_TO = 256, OPT_JSON };

struct check {
	struct ctx *c;
	int fd;
	const char *to; /* NULL: the pod's own refusals */
	json_t *pods, *nodes; /* with --json */
	int code;	/* of all so far */
};

/* One that cannot go is what the caller must hear; else the first thing that went wrong. */
static void note_code(struct check *k, int code)
{
	if (code == EXIT_CHECK || !k->code)
		k->code = code;
}

/* ---- a refusal */

/* "pid 812 (solver): fd 7 is ...": what of it is there. */
static json_t *refusal_json(const char *text)
{
	const struct reason *why = reason_find(text);
	int pid = 0, fd = -1, at = 0;
	const char *end = NULL;
	json_t *o = json_pack("{s:s, s:s, s:s, s:s, s:n, s:n, s:n}", "text", text, "reason", why->name, "hint", why->hint,
			      "where", why->target ? "target" : "pod", "pid", "program", "fd");

	if (!o || sscanf(text, "pid %d%n", &pid, &at) != 1)
		return o;
	json_object_set_new(o, "pid", json_integer(pid));
	if (!strncmp(text + at, " (", 2))
		end = strstr(text + at, "): ");
	if (end)
		json_object_set_new(o, "program", json_stringn(text + at + 2, (size_t)(end - text) - (size_t)at - 2));
	if (sscanf(end ? end + 1 : text + at, ": fd %d", &fd) == 1)
		json_object_set_new(o, "fd", json_integer(fd));
	return o;
}

static void show_refusal(const char *text)
{
	const struct reason *why = reason_find(text);

	printf("  %s\n", text);
	/* some words have their remedy with them */
	if (why->hint[0] && !strstr(text, why->hint))
		printf("    hint: %s\n", why->hint);
}

/* ---- a pod */

/* The answer to the operation that only checks; progress is passed over. NULL after it was said. */
static Pm__Envelope *ask(struct check *k, Pm__Envelope *q)
{
	struct err e = { 0 };
	Pm__Envelope *env = NULL;

	q->id = 1;
	if (link_send(k->fd, q, deadline_ms(CALL_MS), &e) < 0)
		goto lost;
	for (;;) {
		if (link_recv(k->fd, &env, deadline_ms(CALL_MS), &e) < 0)
			goto lost;
		if (env->body_case != PM__ENVELOPE__BODY_PROGRESS)
			return env;
		link_free(env);
	}
lost:
	note_code(k, say(k->c, EXIT_UNREACHABLE, "the coordinator does not answer: %s", e.msg));
	return NULL;
}

static Pm__Envelope *ask_pod(struct check *k, const char *pod)
{
	LINK_ENVELOPE(move, migrate_req, MIGRATE_REQ, Pm__MigrateReq, pm__migrate_req__init);
	LINK_ENVELOPE(image, checkpoint_req, CHECKPOINT_REQ, Pm__CheckpointReq, pm__checkpoint_req__init);
	move_body.target = (char *)(uintptr_t)pod;
	move_body.node = (char *)(uintptr_t)k->to;
	move_body.dry_run = true;
	image_body.target = move_body.target;
	image_body.check = true;
	return ask(k, k->to ? &move : &image);
}

/* The last line of a list that would be too long is "and 44 more". */
static unsigned unlisted(const Pm__Error *e)
{
	unsigned more = 0;
	int at = 0;

	if (!e || !e->n_details || sscanf(e->details[e->n_details - 1], "and %u more%n", &more, &at) != 1 || !at)
		return 0;
	return e->details[e->n_details - 1][at] ? 0 : more;
}

static void show_pod(const struct check *k, const char *pod, const char *node, const Pm__Error *e)
{
	char way[300];
	unsigned more = unlisted(e);
	size_t n = e ? e->n_details - !!more : 0;

	snprintf(way, sizeof(way), "%s: %s%s%s", pod, node, k->to ? " -> " : "", k->to ? k->to : "");
	clean(way);
	if (!e)
		printf("%s: nothing is in the way%s\n", way, k->to ? "" : " of a move or a checkpoint");
	else
		printf("%s: %zu thing%s in the way\n", way, n + more, n + more == 1 ? " is" : "s are");
	for (size_t i = 0; i < n; i++)
		show_refusal(clean(e->details[i]));
	if (more)
		printf("  and %u more\n", more);
}

/* Else what the check stumbled over. */
static bool is_refusal(const Pm__Error *e)
{
	return e && e->exit_code == EXIT_CHECK && e->n_details;
}

static json_t *pod_json(const struct check *k, const char *pod, const char *node, const Pm__Error *e)
{
	json_t *list = json_array(), *o;
	bool refused = is_refusal(e);
	unsigned more = unlisted(e);

	for (size_t i = 0; refused && i < e->n_details - !!more; i++)
		json_array_append_new(list, refusal_json(clean(e->details[i])));
	o = json_pack("{s:s, s:s, s:s?, s:b, s:n, s:o, s:i}", "pod", pod, "node", node, "to", k->to, "ok", !e, "error",
		      "refusals", list, "unlisted", (int)more);
	if (o && e && !refused)
		json_object_set_new(o, "error", json_pack("{s:i, s:s, s:s, s:s}", "exit_code",
							  e->exit_code ? e->exit_code : EXIT_OTHER, "cause", clean(e->cause),
							  "state", clean(e->state), "hint", clean(e->hint)));
	return o;
}

static void check_pod(struct check *k, const char *name, const char *node)
{
	char pod[256];
	Pm__Envelope *env = ask_pod(k, name);
	const Pm__Error *e = env && env->body_case == PM__ENVELOPE__BODY_ERROR ? env->error : NULL;
	bool good = env && env->body_case == PM__ENVELOPE__BODY_MIGRATE_REP;

	if (!env)
		return;
	clean_copy(pod, sizeof(pod), name);
	if (!e && !good)
		note_code(k, say(k->c, EXIT_OTHER, "the coordinator answered %s", link_body_name(env->body_case)));
	else if (k->pods)
		json_array_append_new(k->pods, pod_json(k, pod, node, e));
	else if (good || is_refusal(e))
		show_pod(k, pod, node, e);
	/* a refusal has said all above */
	if (is_refusal(e))
		note_code(k, EXIT_CHECK);
	else if (e)
		note_code(k, say_error(k->c, pod, e));
	link_free(env);
}

/* ---- a node */

static json_t *node_json(const Pm__CheckNodeRep *m, bool ok)
{
	json_t *list = json_array();

	for (size_t i = 0; i < m->n_findings; i++) {
		const Pm__Finding *f = m->findings[i];

		json_array_append_new(list, json_pack("{s:s, s:b, s:b, s:s}", "name", clean(f->name), "ok", f->ok,
						      "needed", f->needed, "text", clean(f->text)));
	}
	return json_pack("{s:s, s:b, s:o}", "node", m->node, "ok", ok, "findings", list);
}

static void show_node(const Pm__CheckNodeRep *m, bool ok)
{
	printf("%s: %s\n", m->node, ok ? "pods can run here, and come and go" : "pods cannot be moved from or to here");
	for (size_t i = 0; i < m->n_findings; i++)
		printf("  %-8s %-20s %s\n", m->findings[i]->ok ? "ok" : m->findings[i]->needed ? "MISSING" : "warning",
		       clean(m->findings[i]->name), clean(m->findings[i]->text));
}

static void check_node(struct check *k, const char *node)
{
	Pm__Envelope *rep = NULL;
	const Pm__CheckNodeRep *m;
	bool ok = true;
	int code;

	LINK_ENVELOPE(q, check_node_req, CHECK_NODE_REQ, Pm__CheckNodeReq, pm__check_node_req__init);
	q_body.node = (char *)(uintptr_t)node;
	code = client_call(k->c, k->fd, &q, PM__ENVELOPE__BODY_CHECK_NODE_REP, NULL, &rep);
	if (code) {
		note_code(k, code);
		if (k->nodes)
			json_array_append_new(k->nodes, json_pack("{s:s, s:b, s:[]}", "node", node, "ok", false, "findings"));
		return;
	}
	m = rep->check_node_rep;
	for (size_t i = 0; i < m->n_findings; i++)
		ok &= m->findings[i]->ok || !m->findings[i]->needed;
	if (k->nodes)
		json_array_append_new(k->nodes, node_json(m, ok));
	else
		show_node(m, ok);
	if (!ok)
		note_code(k, EXIT_CHECK);
	link_free(rep);
}

/* ---- what is meant */

static bool alive(const Pm__PodInfo *p)
{
	return p->state != PM__POD_STATE__POD_EXITED;
}

static bool is_ours(const Pm__PodInfo *p)
{
	return geteuid() == 0 || p->spec->uid == geteuid();
}

static int by_name(const void *a, const void *b)
{
	const Pm__PodInfo *const *x = a, *const *y = b;

	return strcmp((*x)->spec->name, (*y)->spec->name);
}

/* A pod, or the pods of a job. False: neither, and nothing was said. */
static bool check_target(struct check *k, const char *name, const Pm__PodsRep *m)
{
	const Pm__PodInfo *pod = NULL;
	size_t n = 0;
	bool others = false;

	if (m->n_pods)
		qsort(m->pods, m->n_pods, sizeof(*m->pods), by_name);
	for (size_t i = 0; i < m->n_pods; i++) {
		const Pm__PodInfo *p = m->pods[i];
		bool member = name[0] && !strcmp(p->spec->job, name) && alive(p) && is_ours(p);

		if (!strcmp(p->spec->name, name))
			pod = p;
		n += member;
		others |= member && strcmp(p->spec->name, name) != 0;
	}
	if (pod && alive(pod) && is_ours(pod) && others) {
		note_code(k, say(k->c, EXIT_USAGE, "'%s' is a pod and a job: name the job's pods one by one", name));
		return true;
	}
	if (pod && (!n || (alive(pod) && is_ours(pod)))) {
		check_pod(k, name, pod->node);
		return true;
	}
	for (size_t i = 0; i < m->n_pods; i++)
		if (!strcmp(m->pods[i]->spec->job, name) && alive(m->pods[i]) && is_ours(m->pods[i]))
			check_pod(k, m->pods[i]->spec->name, m->pods[i]->node);
	return n;
}

/* @name NULL: all of them. False: no node of that name, and nothing was said. */
static bool check_nodes(struct check *k, const char *name)
{
	Pm__Envelope *rep = NULL;
	bool found = !name;
	int code;

	LINK_ENVELOPE(q, nodes_req, NODES_REQ, Pm__NodesReq, pm__nodes_req__init);
	code = client_call(k->c, k->fd, &q, PM__ENVELOPE__BODY_NODES_REP, NULL, &rep);
	if (code) {
		note_code(k, code);
		return true;
	}
	for (size_t i = 0; i < rep->nodes_rep->n_nodes; i++) {
		const char *node = rep->nodes_rep->nodes[i]->name;

		if (name && strcmp(name, node) != 0)
			continue;
		found = true;
		check_node(k, node);
	}
	link_free(rep);
	return found;
}

static void check_name(struct check *k, const char *name)
{
	Pm__Envelope *rep = NULL;
	bool found;
	int code;

	LINK_ENVELOPE(q, pods_req, PODS_REQ, Pm__PodsReq, pm__pods_req__init);
	q_body.all = true;
	code = client_call(k->c, k->fd, &q, PM__ENVELOPE__BODY_PODS_REP, NULL, &rep);
	if (code) {
		note_code(k, code);
		return;
	}
	found = check_target(k, name, rep->pods_rep);
	link_free(rep);
	if (!found && (k->to || !check_nodes(k, name)))
		check_pod(k, name, ""); /* the coordinator says what became of it */
}

static int print_json(struct check *k)
{
	json_t *o = json_pack("{s:b, s:i, s:o, s:o}", "ok", k->code == EXIT_OK, "exit_code", k->code, "pods", k->pods,
			      "nodes", k->nodes);

	if (!o)
		return say(k->c, EXIT_OTHER, "no memory");
	json_dumpf(o, stdout, JSON_INDENT(2) | JSON_ENSURE_ASCII);
	putchar('\n');
	json_decref(o);
	return k->code;
}

int cmd_check(struct ctx *c, int argc, char **argv)
{
	static const struct option longs[] = {
		{ "to", required_argument, NULL, OPT_TO }, { "json", no_argument, NULL, OPT_JSON },
		{ "help", no_argument, NULL, 'h' },	   { NULL, 0, NULL, 0 },
	};
	struct check k = { .c = c };
	bool json = false;
	int o;

	while ((o = next_option(c, argc, argv, ":h", longs)) != -1) {
		if (o == OPT_TO)
			k.to = optarg;
		else if (o == OPT_JSON)
			json = true;
		else
			return o == 'h' ? EXIT_OK : usage_code(c);
	}
	if (argc - optind > 1)
		return say_usage(c, "too many operands");
	if (k.to && argc == optind)
		return say_usage(c, "which pod or job, to '%s'?", k.to);
	k.fd = client_open(c);
	if (k.fd < 0)
		return -k.fd;
	if (json) {
		k.pods = json_array();
		k.nodes = json_array();
	}
	if (argc == optind)
		check_nodes(&k, NULL);
	else
		check_name(&k, argv[optind]);
	close(k.fd);
	return json ? print_json(&k) : k.code;
}
