/* SPDX-License-Identifier: GPL-3.0-or-later */
/* podctl nodes. */
#include <jansson.h>
#include <libsmartcols/libsmartcols.h>
#include <stdio.h>
#include <string.h>

#include "coordinator/cmd/client.h"
#include "pod/base/util.h"

enum { OPT_JSON = 256, OPT_NOHEADINGS };

static const struct option longs[] = {
	{ "json", no_argument, NULL, OPT_JSON },
	{ "noheadings", no_argument, NULL, OPT_NOHEADINGS },
	{ "help", no_argument, NULL, 'h' },
	{ NULL, 0, NULL, 0 },
};

static const struct {
	const char *name;
	int flags;
} columns[] = { { "NODE", 0 }, { "STATE", 0 }, { "ADDRESS", 0 }, { "PODS", SCOLS_FL_RIGHT },
		{ "CPUS", SCOLS_FL_RIGHT }, { "MEM", SCOLS_FL_RIGHT }, { "FREE", SCOLS_FL_RIGHT },
		{ "KERNEL", 0 } };

static const char *size_cell(char *buf, size_t len, uint64_t bytes)
{
	human_size(buf, len, bytes);
	for (char *s = buf; *s; s++)
		if (*s == ' ')
			memmove(s, s + 1, strlen(s));
	return buf;
}

static int add_row(struct libscols_table *t, const Pm__NodeInfo *n)
{
	struct libscols_line *l = scols_table_new_line(t, NULL);
	char pods[16], cpus[16], total[32], left[32];
	const char *cell[] = { n->name, n->state, n->address, pods, cpus, total, left, n->kernel };

	if (!l)
		return -1;
	snprintf(pods, sizeof(pods), "%u", n->pods);
	snprintf(cpus, sizeof(cpus), "%u", n->cpus);
	size_cell(total, sizeof(total), n->mem_total);
	size_cell(left, sizeof(left), n->mem_free);
	for (size_t i = 0; i < ARRAY_SIZE(cell); i++)
		if (scols_line_set_data(l, i, cell[i][0] ? cell[i] : "-") < 0)
			return -1;
	return 0;
}

static int print_table(struct ctx *c, const Pm__NodesRep *rep, bool noheadings)
{
	struct libscols_table *t = scols_new_table();
	int bad = !t;

	for (size_t i = 0; !bad && i < ARRAY_SIZE(columns); i++)
		bad = !scols_table_new_column(t, columns[i].name, 0, columns[i].flags);
	for (size_t i = 0; !bad && i < rep->n_nodes; i++)
		bad = add_row(t, rep->nodes[i]) < 0;
	if (!bad) {
		scols_table_enable_noheadings(t, noheadings);
		bad = scols_print_table(t) < 0;
	}
	scols_unref_table(t);
	return bad ? say(c, EXIT_OTHER, "no memory") : EXIT_OK;
}

static int print_json(struct ctx *c, const Pm__NodesRep *rep)
{
	json_t *list = json_array();
	int bad = !list;

	for (size_t i = 0; !bad && i < rep->n_nodes; i++) {
		const Pm__NodeInfo *n = rep->nodes[i];
		char reason[128];

		bad = json_array_append_new(
			      list, json_pack("{s:s, s:s, s:s, s:I, s:I, s:I, s:I, s:s, s:b, s:s}", "node",
					      n->name, "state", n->state, "address", n->address,
					      "pods", (json_int_t)n->pods, "cpus",
					      (json_int_t)n->cpus, "mem_total",
					      (json_int_t)n->mem_total, "mem_free",
					      (json_int_t)n->mem_free, "kernel", n->kernel, "cordoned",
					      n->cordoned, "reason", clean_copy(reason, sizeof(reason), n->reason))) < 0;
	}
	if (!bad) {
		json_dumpf(list, stdout, JSON_INDENT(2));
		putchar('\n');
	}
	json_decref(list);
	return bad ? say(c, EXIT_OTHER, "no memory") : EXIT_OK;
}

int cmd_nodes(struct ctx *c, int argc, char **argv)
{
	Pm__Envelope *rep = NULL;
	bool json = false, noheadings = false;
	int o, fd, code;

	LINK_ENVELOPE(q, nodes_req, NODES_REQ, Pm__NodesReq, pm__nodes_req__init);
	while ((o = next_option(c, argc, argv, "+:h", longs)) != -1) {
		if (o == OPT_JSON)
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
	code = client_call(c, fd, &q, PM__ENVELOPE__BODY_NODES_REP, NULL, &rep);
	close(fd);
	if (code)
		return code;
	code = json ? print_json(c, rep->nodes_rep) : print_table(c, rep->nodes_rep, noheadings);
	link_free(rep);
	return code;
}
