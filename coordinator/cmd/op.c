/* SPDX-License-Identifier: GPL-3.0-or-later */
/* podctl op: operations that are under way, or that are over. */
#include <jansson.h>
#include <libsmartcols/libsmartcols.h>
#include <poll.h>
#include <pwd.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "coordinator/cmd/client.h"
#include "pod/base/io.h"
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
} columns[] = { { "ID", 0 }, { "KIND", 0 }, { "POD", 0 }, { "FROM", 0 }, { "TO", 0 }, { "STAGE", 0 }, { "AGE", SCOLS_FL_RIGHT },
		{ "USER", 0 }, { "WHY", 0 } };

static const char *user_name(uint32_t uid, char *buf, size_t len)
{
	const struct passwd *pw = getpwuid(uid);

	if (pw)
		snprintf(buf, len, "%s", pw->pw_name);
	else
		snprintf(buf, len, "%u", uid);
	return buf;
}

static const char *or_dash(const char *s)
{
	return s[0] ? s : "-";
}

static int add_row(struct libscols_table *t, Pm__OpInfo *o)
{
	struct libscols_line *l = scols_table_new_line(t, NULL);
	char age[32] = "-", user[64];
	const char *cell[] = { o->id, o->kind, o->pod, or_dash(o->from), or_dash(o->to), o->stage, age, user, o->cause };

	user_name(o->uid, user, sizeof(user));
	if (o->age_ms)
		snprintf(age, sizeof(age), "%.1fs", (double)o->age_ms / 1e3);
	if (o->cause[0]) /* an empty one is a constant */
		clean(o->cause);
	for (size_t i = 0; l && i < ARRAY_SIZE(cell); i++)
		if (scols_line_set_data(l, i, cell[i]) < 0)
			return -1;
	return l ? 0 : -1;
}

static int print_table(struct ctx *c, const Pm__OpsRep *rep, bool noheadings)
{
	struct libscols_table *t = scols_new_table();
	int bad = !t;

	for (size_t i = 0; !bad && i < ARRAY_SIZE(columns); i++)
		bad = !scols_table_new_column(t, columns[i].name, 0, columns[i].flags);
	for (size_t i = 0; !bad && i < rep->n_ops; i++)
		bad = add_row(t, rep->ops[i]) < 0;
	if (!bad) {
		scols_table_enable_noheadings(t, noheadings);
		bad = scols_print_table(t) < 0;
	}
	scols_unref_table(t);
	return bad ? say(c, EXIT_OTHER, "no memory") : EXIT_OK;
}

static int print_json(struct ctx *c, const Pm__OpsRep *rep)
{
	json_t *list = json_array();
	int bad = !list;
	char user[64];

	for (size_t i = 0; !bad && i < rep->n_ops; i++) {
		const Pm__OpInfo *o = rep->ops[i];

		bad = json_array_append_new(list, json_pack("{s:s, s:s, s:s, s:s, s:s, s:s, s:s, s:s, s:I, s:s}", "op", o->id, "kind",
							    o->kind, "pod", o->pod, "job", o->job, "from", o->from, "to", o->to,
							    "stage", o->stage, "user", user_name(o->uid, user, sizeof(user)),
							    "age_ms", (json_int_t)o->age_ms, "cause", o->cause)) < 0;
	}
	if (!bad) {
		json_dumpf(list, stdout, JSON_INDENT(2) | JSON_ENSURE_ASCII);
		putchar('\n');
	}
	json_decref(list);
	return bad ? say(c, EXIT_OTHER, "no memory") : EXIT_OK;
}

static int ask(struct ctx *c, const char *id, Pm__Envelope **rep)
{
	int fd = client_open(c), code;

	LINK_ENVELOPE(q, ops_req, OPS_REQ, Pm__OpsReq, pm__ops_req__init);
	if (fd < 0)
		return -fd;
	q_body.id = (char *)(uintptr_t)id;
	code = client_call(c, fd, &q, PM__ENVELOPE__BODY_OPS_REP, id, rep);
	close(fd);
	return code;
}

/* However long it takes; Ctrl-C leaves, and nothing happens to the operation. */
static int await_end(struct ctx *c, const char *id, Pm__OpInfo **out, Pm__Envelope **rep)
{
	int fd = client_open(c), r;
	struct err e = { 0 };

	LINK_ENVELOPE(q, ops_req, OPS_REQ, Pm__OpsReq, pm__ops_req__init);
	if (fd < 0)
		return -fd;
	q.id = 1;
	q_body.id = (char *)(uintptr_t)id;
	q_body.wait = true;
	r = link_send(fd, &q, deadline_ms(CALL_MS), &e);
	if (r == 0)
		r = link_recv(fd, rep, IO_FOREVER, &e);
	close(fd);
	if (r < 0)
		return say(c, EXIT_UNKNOWN, "%s: the coordinator is gone: %s; ask again", id, e.msg);
	if ((*rep)->body_case == PM__ENVELOPE__BODY_ERROR)
		return say_error(c, id, (*rep)->error);
	if ((*rep)->body_case != PM__ENVELOPE__BODY_OPS_REP || !(*rep)->ops_rep->n_ops)
		return say(c, EXIT_OTHER, "the coordinator answered %s", link_body_name((*rep)->body_case));
	*out = (*rep)->ops_rep->ops[0];
	return EXIT_OK;
}

/* @want_undone: that is what the user asked for. */
static int report(struct ctx *c, const char *id, bool want_undone)
{
	Pm__Envelope *rep = NULL;
	Pm__OpInfo *o = NULL;
	int code = await_end(c, id, &o, &rep);
	bool done = o && !strcmp(o->stage, "done");

	if (!code) {
		if (o->cause[0])
			clean(o->cause);
		printf("%s: %s of pod '%s' is %s%s%s\n", id, o->kind, o->pod, o->stage, !done && o->cause[0] ? ": " : "",
		       done ? "" : o->cause);
		code = done == want_undone ? (done ? EXIT_BUSY : EXIT_ABORTED) : EXIT_OK;
	}
	link_free(rep);
	return code;
}

static int abort_it(struct ctx *c, const char *id)
{
	Pm__Envelope *rep = NULL;
	int fd = client_open(c), code;

	LINK_ENVELOPE(q, op_abort_req, OP_ABORT_REQ, Pm__OpAbortReq, pm__op_abort_req__init);
	if (fd < 0)
		return -fd;
	q_body.op = (char *)(uintptr_t)id;
	code = client_call(c, fd, &q, PM__ENVELOPE__BODY_OK, id, &rep);
	close(fd);
	link_free(rep);
	return code ? code : report(c, id, true);
}

static int show(struct ctx *c, const char *id, bool json, bool noheadings)
{
	Pm__Envelope *rep = NULL;
	int code = ask(c, id, &rep);

	if (!code)
		code = json ? print_json(c, rep->ops_rep) : print_table(c, rep->ops_rep, noheadings);
	link_free(rep);
	return code;
}

int cmd_op(struct ctx *c, int argc, char **argv)
{
	bool json = false, noheadings = false, list;
	const char *verb, *id;
	int o;

	while ((o = next_option(c, argc, argv, ":h", longs)) != -1) {
		if (o == OPT_JSON)
			json = true;
		else if (o == OPT_NOHEADINGS)
			noheadings = true;
		else
			return o == 'h' ? EXIT_OK : usage_code(c);
	}
	verb = optind < argc ? argv[optind] : "";
	list = !strcmp(verb, "list");
	if (!list && strcmp(verb, "show") && strcmp(verb, "wait") && strcmp(verb, "abort"))
		return say_usage(c, verb[0] ? "what is '%s'?" : "what about operations?", verb);
	if (argc - optind != (list ? 1 : 2))
		return say_usage(c, list ? "too many operands" : "which operation?");
	id = list ? "" : argv[optind + 1];
	if (!list && !id[0])
		return say_usage(c, "which operation?");
	if (!strcmp(verb, "wait"))
		return report(c, id, false);
	if (!strcmp(verb, "abort"))
		return abort_it(c, id);
	return show(c, id, json, noheadings);
}
