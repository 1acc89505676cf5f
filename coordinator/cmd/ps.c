/* SPDX-License-Identifier: GPL-3.0-or-later */
/* podps: POD JOB NODE USER STATE PROCS MEM IP AGE. */
#include <jansson.h>
#include <libsmartcols/libsmartcols.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "coordinator/cmd/client.h"
#include "pod/base/io.h"
#include "pod/base/util.h"

enum { OPT_JSON = 256, OPT_NOHEADINGS };

static const struct option longs[] = {
	{ "all", no_argument, NULL, 'a' },	     { "node", required_argument, NULL, 'w' },
	{ "user", required_argument, NULL, 'u' },    { "json", no_argument, NULL, OPT_JSON },
	{ "noheadings", no_argument, NULL, OPT_NOHEADINGS }, { "help", no_argument, NULL, 'h' },
	{ NULL, 0, NULL, 0 },
};

static const struct {
	const char *name;
	int flags;
} columns[] = { { "POD", 0 }, { "JOB", 0 }, { "NODE", 0 }, { "USER", 0 }, { "STATE", 0 },
		{ "PROCS", SCOLS_FL_RIGHT }, { "MEM", SCOLS_FL_RIGHT }, { "IP", 0 },
		{ "AGE", SCOLS_FL_RIGHT } };

static uint64_t age_s(const Pm__PodInfo *p)
{
	uint64_t now = (uint64_t)time(NULL), born = p->spec->created_ns / NSEC_PER_SEC;

	return born && now > born ? now - born : 0;
}

static const char *human_age(char *buf, size_t len, uint64_t s)
{
	if (s < 60)
		snprintf(buf, len, "%us", (unsigned)s);
	else if (s < 3600)
		snprintf(buf, len, "%um%02us", (unsigned)(s / 60), (unsigned)(s % 60));
	else if (s < 86400)
		snprintf(buf, len, "%uh%02um", (unsigned)(s / 3600), (unsigned)(s / 60 % 60));
	else
		snprintf(buf, len, "%ud%02uh", (unsigned)(s / 86400), (unsigned)(s / 3600 % 24));
	return buf;
}

/* A cell is never empty: the columns can be counted by awk. */
static const char *or_dash(const char *s)
{
	return s && s[0] ? s : "-";
}

static int add_row(struct libscols_table *t, const Pm__PodInfo *p)
{
	struct libscols_line *l = scols_table_new_line(t, NULL);
	char procs[16], mem[32], age[32], state[32];
	const char *cell[] = { p->spec->name, p->spec->job, p->node, p->spec->user, state, procs,
			       mem, p->spec->ip, age };

	if (!l)
		return -1;
	snprintf(state, sizeof(state), "%s", pod_state_name(p));
	if (p->state == PM__POD_STATE__POD_EXITED)
		snprintf(state, sizeof(state), "exited(%d)", p->exit_code);
	snprintf(procs, sizeof(procs), "%u", p->procs);
	human_size(mem, sizeof(mem), p->mem);
	for (char *s = mem; *s; s++)
		if (*s == ' ') /* one word per cell */
			memmove(s, s + 1, strlen(s));
	human_age(age, sizeof(age), age_s(p));
	for (size_t i = 0; i < ARRAY_SIZE(cell); i++)
		if (scols_line_set_data(l, i, or_dash(cell[i])) < 0)
			return -1;
	return 0;
}

static int print_table(struct ctx *c, const Pm__PodsRep *rep, bool noheadings)
{
	struct libscols_table *t = scols_new_table();
	int bad = !t;

	for (size_t i = 0; !bad && i < ARRAY_SIZE(columns); i++)
		bad = !scols_table_new_column(t, columns[i].name, 0, columns[i].flags);
	for (size_t i = 0; !bad && i < rep->n_pods; i++)
		if (rep->pods[i]->spec)
			bad = add_row(t, rep->pods[i]) < 0;
	if (!bad) {
		scols_table_enable_noheadings(t, noheadings);
		bad = scols_print_table(t) < 0;
	}
	scols_unref_table(t);
	return bad ? say(c, EXIT_OTHER, "no memory") : EXIT_OK;
}

static json_t *pod_json(const Pm__PodInfo *p)
{
	json_t *o = json_pack("{s:s, s:s, s:s, s:s, s:s, s:I, s:I, s:s, s:I, s:I, s:s}", "pod",
			      p->spec->name, "job", p->spec->job, "node", p->node, "user",
			      p->spec->user, "state", pod_state_name(p), "procs",
			      (json_int_t)p->procs, "mem", (json_int_t)p->mem, "ip", p->spec->ip,
			      "age_s", (json_int_t)age_s(p), "epoch", (json_int_t)p->epoch, "op",
			      p->op);

	if (o && p->state == PM__POD_STATE__POD_EXITED)
		json_object_set_new(o, "exit_code", json_integer(p->exit_code));
	return o;
}

static int print_json(struct ctx *c, const Pm__PodsRep *rep)
{
	json_t *list = json_array();
	int bad = !list;

	for (size_t i = 0; !bad && i < rep->n_pods; i++)
		if (rep->pods[i]->spec)
			bad = json_array_append_new(list, pod_json(rep->pods[i])) < 0;
	if (!bad) {
		json_dumpf(list, stdout, JSON_INDENT(2));
		putchar('\n');
	}
	json_decref(list);
	return bad ? say(c, EXIT_OTHER, "no memory") : EXIT_OK;
}

int cmd_ps(struct ctx *c, int argc, char **argv)
{
	Pm__Envelope *rep = NULL;
	bool json = false, noheadings = false;
	int o, fd, code;

	LINK_ENVELOPE(q, pods_req, PODS_REQ, Pm__PodsReq, pm__pods_req__init);
	while ((o = next_option(c, argc, argv, "+:aw:u:h", longs)) != -1) {
		if (o == 'a')
			q_body.all = true;
		else if (o == 'w')
			q_body.node = optarg;
		else if (o == 'u')
			q_body.user = optarg;
		else if (o == OPT_JSON)
			json = true;
		else if (o == OPT_NOHEADINGS)
			noheadings = true;
		else
			return o == 'h' ? EXIT_OK : usage_code(c);
	}
	if (optind < argc)
		return say_usage(c, "what is '%s'?", argv[optind]);
	fd = client_open(c);
	if (fd < 0)
		return -fd;
	code = client_call(c, fd, &q, PM__ENVELOPE__BODY_PODS_REP, NULL, &rep);
	close(fd);
	if (code)
		return code;
	code = json ? print_json(c, rep->pods_rep) : print_table(c, rep->pods_rep, noheadings);
	link_free(rep);
	return code;
}
