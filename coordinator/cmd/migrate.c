/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * podmigrate: asks for a move, shows how it goes, tells the truth at the end.
 *
 * Progress goes to stderr (one line that is rewritten on a terminal, else one every 5 s), the result
 * to stdout. The first Ctrl-C asks the coordinator to abort and waits for what it says, for the move
 * may be past the point of no return; the second leaves without knowing.
 */
#include <errno.h>
#include <jansson.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/signalfd.h>

#include "coordinator/cmd/client.h"
#include "pod/base/io.h"
#include "pod/base/util.h"

#define PLAIN_EVERY_NS (5 * NSEC_PER_SEC)
#define REQUEST_ID 1
#define ABORT_ID 2

enum progress { P_AUTO, P_PLAIN, P_JSON, P_NONE, P_TTY };

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
	struct ctx *c;
	Pm__MigrateReq req;
	enum progress progress;
	bool json, times;
	int fd, signals;
	char op[128]; /* known from the first Progress on */
	bool abort_wanted, abort_sent, line_open;
	uint64_t last_plain;
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
	static const char *const compress[] = { "auto", "lz4", "none" };
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
		/* "auto" is what the engine does anyhow */
		r = choice(c, "--compress", optarg, compress, ARRAY_SIZE(compress));
		if (r > 0)
			fprintf(stderr, "%s: --compress %s is not built yet: auto\n", c->prog,
				optarg);
		break;
	case OPT_DRY_RUN:
		m->req.dry_run = true;
		break;
	case OPT_DETACH:
		m->req.detach = true;
		break;
	case OPT_PROGRESS:
		r = choice(c, "--progress", optarg, shows, ARRAY_SIZE(shows));
		m->progress = (enum progress)r;
		break;
	case OPT_JSON:
		m->json = true;
		break;
	default:
		m->times = true;
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
	if (m->json)
		m->progress = P_JSON;
	else if (m->progress == P_AUTO)
		m->progress = isatty(2) ? P_TTY : P_PLAIN;
	return 0;
}

/* ---- what is shown */

static void close_line(struct migrate *m)
{
	if (m->line_open)
		fputc('\n', stderr);
	m->line_open = false;
}

static void json_line(const struct migrate *m, json_t *o)
{
	FILE *f = m->json ? stdout : stderr;

	if (!o)
		return;
	json_dumpf(o, f, JSON_COMPACT);
	fputc('\n', f);
	fflush(f);
	json_decref(o);
}

static json_t *progress_json(const Pm__Progress *p)
{
	return json_pack("{s:s, s:s, s:s, s:s, s:s, s:f, s:I, s:I, s:I, s:I, s:I}", "event",
			 "progress", "op", p->op, "pod", p->pod, "node", p->node, "phase", p->phase,
			 "percent", p->percent, "round", (json_int_t)p->round, "rate",
			 (json_int_t)p->rate, "dirty_rate", (json_int_t)p->dirty_rate, "left",
			 (json_int_t)p->left, "est_downtime_ns", (json_int_t)p->est_downtime_ns);
}

static void progress_words(const struct migrate *m, const Pm__Progress *p, char *buf, size_t len)
{
	char rate[32], dirty[32], left[32], down[32];

	/* never 100 % before the commit, whatever the rounding says */
	snprintf(buf, len, "%s -> %s  %.2f %%  round %u  %s/s  dirty %s/s  left %s  est. downtime %s",
		 m->req.target, m->req.node, MIN(p->percent, 99.99), p->round,
		 human_size(rate, sizeof(rate), p->rate),
		 human_size(dirty, sizeof(dirty), p->dirty_rate),
		 human_size(left, sizeof(left), p->left),
		 human_ns(down, sizeof(down), p->est_downtime_ns));
}

static void show_progress(struct migrate *m, const Pm__Progress *p)
{
	char words[320];

	if (m->progress == P_JSON) {
		json_line(m, progress_json(p));
	} else if (m->progress == P_TTY) {
		progress_words(m, p, words, sizeof(words));
		fprintf(stderr, "\r%s\033[K", words);
		fflush(stderr);
		m->line_open = true;
	} else if (m->progress == P_PLAIN && now_ns() - m->last_plain >= PLAIN_EVERY_NS) {
		m->last_plain = now_ns();
		progress_words(m, p, words, sizeof(words));
		fprintf(stderr, "%s\n", words);
	}
}

static json_t *result_json(const struct migrate *m, const Pm__MigrateRep *r)
{
	json_t *phases = json_array();

	for (size_t i = 0; phases && i < r->n_phases; i++)
		json_array_append_new(phases, json_pack("{s:s, s:I}", "name", r->phases[i]->name,
							"ns", (json_int_t)r->phases[i]->ns));
	return json_pack("{s:s, s:s, s:s, s:s, s:s, s:I, s:I, s:I, s:I, s:b, s:o}", "event", "done",
			 "op", r->op, "pod", r->pod, "from", r->from, "to", r->to, "total_ns",
			 (json_int_t)r->total_ns, "frozen_ns", (json_int_t)r->frozen_ns, "rounds",
			 (json_int_t)r->rounds, "sent", (json_int_t)r->sent, "dry_run",
			 m->req.dry_run, "phases", phases);
}

/* "1.02 GiB": the last line has one digit more than a progress line. */
static const char *size2(char *buf, size_t len, uint64_t bytes)
{
	static const char *const unit[] = { "B", "KiB", "MiB", "GiB", "TiB" };
	double v = (double)bytes;
	size_t u = 0;

	for (; v >= 1024 && u + 1 < ARRAY_SIZE(unit); u++)
		v /= 1024;
	snprintf(buf, len, u ? "%.2f %s" : "%.0f %s", v, unit[u]);
	return buf;
}

static int show_result(struct migrate *m, const Pm__MigrateRep *r)
{
	char total[32], frozen[32], sent[32], ns[32];

	close_line(m);
	if (m->progress == P_JSON) {
		json_line(m, result_json(m, r));
		if (m->json)
			return EXIT_OK;
	}
	if (m->req.dry_run) {
		printf("%s: %s -> %s can be done; nothing was stopped\n", r->pod, r->from, r->to);
		return EXIT_OK;
	}
	printf("%s: %s -> %s in %s, frozen %s, %u round%s, %s sent\n", r->pod, r->from, r->to,
	       human_ns(total, sizeof(total), r->total_ns),
	       human_ns(frozen, sizeof(frozen), r->frozen_ns), r->rounds, r->rounds == 1 ? "" : "s",
	       size2(sent, sizeof(sent), r->sent));
	for (size_t i = 0; m->times && i < r->n_phases; i++)
		printf("  %-20s %12s\n", r->phases[i]->name,
		       human_ns(ns, sizeof(ns), r->phases[i]->ns));
	return EXIT_OK;
}

static int show_error(struct migrate *m, const Pm__Error *e)
{
	json_t *details = json_array();
	int code;

	close_line(m);
	for (size_t i = 0; details && i < e->n_details; i++)
		json_array_append_new(details, json_string(e->details[i]));
	if (m->progress == P_JSON)
		json_line(m, json_pack("{s:s, s:s, s:i, s:s, s:s, s:s, s:s, s:O}", "event", "error",
				       "pod", m->req.target, "exit_code",
				       e->exit_code ? e->exit_code : EXIT_OTHER, "phase", e->phase,
				       "cause", e->cause, "state", e->state, "hint", e->hint,
				       "details", details));
	json_decref(details);
	code = say_error(m->c, m->req.target, e);
	for (size_t i = 0; m->req.dry_run && i < e->n_details; i++)
		fprintf(stderr, "  %s\n", e->details[i]);
	return code;
}

/* ---- the conversation */

static void ask_abort(struct migrate *m)
{
	LINK_ENVELOPE(q, op_abort_req, OP_ABORT_REQ, Pm__OpAbortReq, pm__op_abort_req__init);
	q.id = ABORT_ID;
	q_body.op = m->op;
	m->abort_sent = true;
	link_send(m->fd, &q, deadline_ms(CALL_MS), NULL);
}

/* True: leave now. */
static bool on_signal(struct migrate *m)
{
	struct signalfd_siginfo si;

	if (read(m->signals, &si, sizeof(si)) != (ssize_t)sizeof(si))
		return false;
	if (m->abort_wanted)
		return true;
	m->abort_wanted = true;
	close_line(m);
	fprintf(stderr, "%s: aborting; once more to leave without waiting\n", m->c->prog);
	if (m->op[0])
		ask_abort(m);
	return false;
}

static int unknown(struct migrate *m, const char *why)
{
	close_line(m);
	say(m->c, EXIT_UNKNOWN, "%s: %s; the outcome of the move is not known here", m->req.target,
	    why);
	fprintf(stderr, "hint: see podps, and podctl recover%s%s\n", m->op[0] ? " " : "", m->op);
	return EXIT_UNKNOWN;
}

/* One message. -1: go on, else the exit code. */
static int on_message(struct migrate *m, const Pm__Envelope *env)
{
	switch (env->body_case) {
	case PM__ENVELOPE__BODY_PROGRESS:
		if (!m->op[0])
			snprintf(m->op, sizeof(m->op), "%s", env->progress->op);
		if (m->abort_wanted && !m->abort_sent)
			ask_abort(m);
		if (m->req.detach) {
			printf("%s\n", m->op);
			return EXIT_OK;
		}
		show_progress(m, env->progress);
		return -1;
	case PM__ENVELOPE__BODY_MIGRATE_REP:
		return show_result(m, env->migrate_rep);
	case PM__ENVELOPE__BODY_ERROR:
		/* an abort that came too late: the move goes on to its end */
		if (env->id == ABORT_ID) {
			close_line(m);
			say_error(m->c, m->req.target, env->error);
			return -1;
		}
		return show_error(m, env->error);
	default:
		return -1;
	}
}

static int converse(struct migrate *m)
{
	for (;;) {
		struct pollfd p[] = { { .fd = m->fd, .events = POLLIN },
				      { .fd = m->signals, .events = POLLIN } };
		Pm__Envelope *env = NULL;
		struct err e = { 0 };
		int r;

		if (poll(p, ARRAY_SIZE(p), -1) < 0 && errno != EINTR)
			return say(m->c, EXIT_OTHER, "poll: %s", strerror(errno));
		if (p[1].revents && on_signal(m))
			return unknown(m, "left at your word");
		if (!p[0].revents)
			continue;
		if (link_recv(m->fd, &env, deadline_ms(CALL_MS), &e) < 0)
			return unknown(m, "the coordinator is gone");
		r = on_message(m, env);
		link_free(env);
		if (r >= 0)
			return r;
	}
}

int cmd_migrate(struct ctx *c, int argc, char **argv)
{
	struct migrate m = { .c = c, .fd = -1, .signals = -1 };
	Pm__Envelope q;
	struct err e = { 0 };
	sigset_t set;
	int code = 0;

	if (parse(c, &m, argc, argv, &code) < 0)
		return code;
	m.fd = client_open(c);
	if (m.fd < 0)
		return -m.fd;
	sigemptyset(&set);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGTERM);
	sigprocmask(SIG_BLOCK, &set, NULL);
	m.signals = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	pm__envelope__init(&q);
	q.id = REQUEST_ID;
	q.body_case = PM__ENVELOPE__BODY_MIGRATE_REQ;
	q.migrate_req = &m.req;
	m.last_plain = now_ns();
	if (link_send(m.fd, &q, deadline_ms(CALL_MS), &e) < 0)
		code = say(c, EXIT_UNREACHABLE, "cannot ask the coordinator: %s; nothing was done",
			   e.msg);
	else
		code = converse(&m);
	close(m.signals);
	close(m.fd);
	return code;
}
