/* SPDX-License-Identifier: GPL-3.0-or-later */
/* podmigrate: asks for a move and tells the truth at the end. */
#include <jansson.h>
#include <stdio.h>
#include <string.h>

#include "coordinator/cmd/operation.h"
#include "pod/base/util.h"

enum {
	OPT_STOP_COPY = 256, OPT_MAX_DOWNTIME, OPT_MAX_ROUNDS, OPT_TIMEOUT, OPT_TIMEOUT_ACTION,
	OPT_AUTO_CONVERGE, OPT_BANDWIDTH, OPT_COMPRESS, OPT_DRY_RUN, OPT_DETACH, OPT_PROGRESS,
	OPT_JSON,
};

static const struct option longs[] = {
	{ "stop-copy", no_argument, NULL, OPT_STOP_COPY },
	{ "max-downtime", required_argument, NULL, OPT_MAX_DOWNTIME },
	{ "max-rounds", required_argument, NULL, OPT_MAX_ROUNDS },
	{ "timeout", required_argument, NULL, OPT_TIMEOUT },
	{ "timeout-action", required_argument, NULL, OPT_TIMEOUT_ACTION },
	{ "auto-converge", no_argument, NULL, OPT_AUTO_CONVERGE },
	{ "bandwidth", required_argument, NULL, OPT_BANDWIDTH },
	{ "compress", required_argument, NULL, OPT_COMPRESS },
	{ "dry-run", no_argument, NULL, OPT_DRY_RUN },
	{ "detach", no_argument, NULL, OPT_DETACH },
	{ "progress", required_argument, NULL, OPT_PROGRESS },
	{ "times", no_argument, NULL, 't' },
	{ "json", no_argument, NULL, OPT_JSON },
	{ "help", no_argument, NULL, 'h' },
	{ NULL, 0, NULL, 0 },
};

struct migrate {
	struct operation op;
	Pm__MigrateReq req;
};

static int choice(const struct ctx *c, const char *opt, const char *text,
		  const char *const *words, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (!strcmp(words[i], text))
			return (int)i;
	say_usage(c, "%s: '%s' is unknown", opt, text);
	return -1;
}

static int one_option(struct ctx *c, struct migrate *m, int o)
{
	static const char *const shows[] = { "auto", "plain", "json", "none" };
	static const char *const actions[] = { "abort", "stop-copy" };
	uint64_t n = 0;
	int r = 0;

	switch (o) {
	case OPT_STOP_COPY:
		m->req.stop_copy = true;
		break;
	case OPT_MAX_DOWNTIME:
		r = parse_number(c, "--max-downtime", optarg, 1, 3600000, &n);
		m->req.max_downtime_ms = (uint32_t)n;
		break;
	case OPT_MAX_ROUNDS:
		r = parse_number(c, "--max-rounds", optarg, 1, 1000, &n);
		m->req.max_rounds = (uint32_t)n;
		break;
	case OPT_TIMEOUT:
		r = parse_number(c, "--timeout", optarg, 0, 86400 * 7, &n);
		m->req.timeout_s = (uint32_t)n;
		break;
	case OPT_TIMEOUT_ACTION:
		r = choice(c, "--timeout-action", optarg, actions, ARRAY_SIZE(actions));
		m->req.timeout_stop_copy = r == 1;
		break;
	case OPT_AUTO_CONVERGE:
		m->req.auto_converge = true;
		break;
	case OPT_BANDWIDTH:
		r = parse_size(c, "--bandwidth", optarg, &m->req.bandwidth);
		break;
	case OPT_COMPRESS:
		r = operation_compress(c, optarg, &m->req.compress) ? 0 : -1;
		break;
	case OPT_DRY_RUN:
		m->req.dry_run = true;
		break;
	case OPT_DETACH:
		m->req.detach = true;
		break;
	case OPT_PROGRESS:
		r = choice(c, "--progress", optarg, shows, ARRAY_SIZE(shows));
		m->op.progress = (enum progress)r;
		break;
	case OPT_JSON:
		m->op.json = true;
		break;
	default:
		m->op.times = true;
	}
	return r < 0 ? -1 : 0;
}

/* Options may come after the operands: podmigrate pod3 nodeB --stop-copy. */
static int parse(struct ctx *c, struct migrate *m, int argc, char **argv, int *code)
{
	int o;

	pm__migrate_req__init(&m->req);
	m->req.max_downtime_ms = 300;
	m->req.max_rounds = 8;
	while ((o = next_option(c, argc, argv, ":th", longs)) != -1) {
		*code = o == 'h' ? EXIT_OK : usage_code(c);
		if (o == 'h' || o == '?' || one_option(c, m, o) < 0)
			return -1;
	}
	if (argc - optind != 2) {
		*code = say_usage(c, argc - optind < 2 ? "which pod, to which node?" :
							 "too many operands");
		return -1;
	}
	m->req.target = argv[optind];
	m->req.node = argv[optind + 1];
	m->op.subject = m->req.target;
	m->op.to = m->req.node;
	m->op.dry_run = m->req.dry_run;
	m->op.detach = m->req.detach;
	return 0;
}

static json_t *result_json(const struct operation *m, const Pm__MigrateRep *r)
{
	json_t *phases = json_array();

	for (size_t i = 0; phases && i < r->n_phases; i++)
		json_array_append_new(phases, json_pack("{s:s, s:I}", "name", r->phases[i]->name,
							"ns", (json_int_t)r->phases[i]->ns));
	return json_pack("{s:s, s:s, s:s, s:s, s:s, s:I, s:I, s:I, s:I, s:b, s:o}", "event", "done",
			 "op", r->op, "pod", r->pod, "from", r->from, "to", r->to, "total_ns",
			 (json_int_t)r->total_ns, "frozen_ns", (json_int_t)r->frozen_ns, "rounds",
			 (json_int_t)r->rounds, "sent", (json_int_t)r->sent, "dry_run",
			 m->dry_run, "phases", phases);
}

static int show_result(struct operation *m, const Pm__MigrateRep *r)
{
	char total[32], frozen[32], sent[32], ns[32];

	operation_close_line(m);
	if (m->progress == P_JSON) {
		operation_json_line(m, result_json(m, r));
		if (m->json)
			return EXIT_OK;
	}
	if (m->dry_run) {
		printf("%s: %s -> %s can be done; nothing was stopped\n", r->pod, r->from, r->to);
		return EXIT_OK;
	}
	printf("%s: %s -> %s in %s, frozen %s, %u round%s, %s sent\n", r->pod, r->from, r->to,
	       human_ns(total, sizeof(total), r->total_ns),
	       human_ns(frozen, sizeof(frozen), r->frozen_ns), r->rounds, r->rounds == 1 ? "" : "s",
	       operation_size(sent, sizeof(sent), r->sent));
	for (size_t i = 0; m->times && i < r->n_phases; i++)
		printf("  %-20s %12s\n", r->phases[i]->name,
		       human_ns(ns, sizeof(ns), r->phases[i]->ns));
	return EXIT_OK;
}

int cmd_migrate(struct ctx *c, int argc, char **argv)
{
	struct migrate m = { .op = { .c = c, .fd = -1, .signals = -1, .result = show_result } };
	Pm__Envelope q;
	int code = 0;

	if (parse(c, &m, argc, argv, &code) < 0)
		return code;
	pm__envelope__init(&q);
	q.body_case = PM__ENVELOPE__BODY_MIGRATE_REQ;
	q.migrate_req = &m.req;
	return operation_run(&m.op, &q);
}
