/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * The conversation about an operation (a move, a checkpoint, a restart): how it goes, how it ended.
 *
 * Progress goes to stderr (one line that is rewritten on a terminal, else one every 5 s), the result
 * to stdout. The first Ctrl-C asks the coordinator to abort and waits for what it says, for the operation
 * may be past the point of no return; the second leaves without knowing.
 */
#include "coordinator/cmd/operation.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/signalfd.h>

#include "pod/base/io.h"
#include "pod/base/util.h"

#define PLAIN_EVERY_NS (5 * NSEC_PER_SEC)
#define REQUEST_ID 1
#define ABORT_ID 2

/* ---- what is shown */

bool operation_compress(struct ctx *c, const char *text, Pm__Compress *out)
{
	static const struct {
		const char *name;
		Pm__Compress value;
	} words[] = { { "auto", PM__COMPRESS__COMPRESS_AUTO },
		      { "lz4", PM__COMPRESS__COMPRESS_LZ4 },
		      { "none", PM__COMPRESS__COMPRESS_NONE } };

	for (size_t i = 0; i < ARRAY_SIZE(words); i++)
		if (!strcmp(words[i].name, text)) {
			*out = words[i].value;
			return true;
		}
	say_usage(c, "--compress: '%s' is not auto, lz4 or none", text);
	return false;
}

void operation_close_line(struct operation *m)
{
	if (m->line_open)
		fputc('\n', stderr);
	m->line_open = false;
}

void operation_json_line(const struct operation *m, json_t *o)
{
	FILE *f = m->json ? stdout : stderr;

	if (!o)
		return;
	json_dumpf(o, f, JSON_COMPACT | JSON_ENSURE_ASCII);
	fputc('\n', f);
	fflush(f);
	json_decref(o);
}

/* "1.02 GiB": the last line has one digit more than a progress line. */
const char *operation_size(char *buf, size_t len, uint64_t bytes)
{
	static const char *const unit[] = { "B", "KiB", "MiB", "GiB", "TiB" };
	double v = (double)bytes;
	size_t u = 0;

	for (; v >= 1024 && u + 1 < ARRAY_SIZE(unit); u++)
		v /= 1024;
	snprintf(buf, len, u ? "%.2f %s" : "%.0f %s", v, unit[u]);
	return buf;
}

static json_t *progress_json(const Pm__Progress *p)
{
	return json_pack("{s:s, s:s, s:s, s:s, s:s, s:f, s:I, s:I, s:I, s:I, s:I}", "event",
			 "progress", "op", p->op, "pod", p->pod, "node", p->node, "phase", p->phase,
			 "percent", p->percent, "round", (json_int_t)p->round, "rate",
			 (json_int_t)p->rate, "dirty_rate", (json_int_t)p->dirty_rate, "left",
			 (json_int_t)p->left, "est_downtime_ns", (json_int_t)p->est_downtime_ns);
}

static void progress_words(const struct operation *m, const Pm__Progress *p, char *buf, size_t len)
{
	char rate[32], dirty[32], left[32], down[32];

	/* never 100 % before the commit, whatever the rounding says */
	snprintf(buf, len, "%s -> %s  %.2f %%  round %u  %s/s  dirty %s/s  left %s  est. downtime %s",
		 m->subject, m->to, MIN(p->percent, 99.99), p->round,
		 human_size(rate, sizeof(rate), p->rate),
		 human_size(dirty, sizeof(dirty), p->dirty_rate),
		 human_size(left, sizeof(left), p->left),
		 human_ns(down, sizeof(down), p->est_downtime_ns));
	clean(buf);
}

static void show_progress(struct operation *m, const Pm__Progress *p)
{
	char words[320];

	if (m->progress == P_JSON) {
		operation_json_line(m, progress_json(p));
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

static int show_error(struct operation *m, const Pm__Error *e)
{
	json_t *details = json_array();
	int code;

	operation_close_line(m);
	for (size_t i = 0; details && i < e->n_details; i++)
		json_array_append_new(details, json_string(e->details[i]));
	if (m->progress == P_JSON)
		operation_json_line(m, json_pack("{s:s, s:s, s:i, s:s, s:s, s:s, s:s, s:O}", "event", "error",
				       "pod", m->subject, "exit_code",
				       e->exit_code ? e->exit_code : EXIT_OTHER, "phase", e->phase,
				       "cause", e->cause, "state", e->state, "hint", e->hint,
				       "details", details));
	json_decref(details);
	code = say_error(m->c, m->subject, e);
	for (size_t i = 0; m->dry_run && i < e->n_details; i++)
		fprintf(stderr, "  %s\n", clean(e->details[i]));
	return code;
}

/* ---- the conversation */

static void ask_abort(struct operation *m)
{
	LINK_ENVELOPE(q, op_abort_req, OP_ABORT_REQ, Pm__OpAbortReq, pm__op_abort_req__init);
	q.id = ABORT_ID;
	q_body.op = m->op;
	m->abort_sent = true;
	link_send(m->fd, &q, deadline_ms(CALL_MS), NULL);
}

/* True: leave now. */
static bool on_signal(struct operation *m)
{
	struct signalfd_siginfo si;

	if (read(m->signals, &si, sizeof(si)) != (ssize_t)sizeof(si))
		return false;
	if (m->abort_wanted)
		return true;
	m->abort_wanted = true;
	operation_close_line(m);
	fprintf(stderr, "%s: aborting; once more to leave without waiting\n", m->c->prog);
	if (m->op[0])
		ask_abort(m);
	return false;
}

static int unknown(struct operation *m, const char *why)
{
	operation_close_line(m);
	say(m->c, EXIT_UNKNOWN, "%s: %s; the outcome is not known here", m->subject,
	    why);
	fprintf(stderr, "hint: see podps, and podctl recover%s%s\n", m->op[0] ? " " : "", m->op);
	return EXIT_UNKNOWN;
}

/* One message. -1: go on, else the exit code. */
static int on_message(struct operation *m, const Pm__Envelope *env)
{
	switch (env->body_case) {
	case PM__ENVELOPE__BODY_PROGRESS:
		if (!m->op[0])
			snprintf(m->op, sizeof(m->op), "%s", env->progress->op);
		if (m->abort_wanted && !m->abort_sent)
			ask_abort(m);
		if (m->detach) {
			printf("%s\n", m->op);
			return EXIT_OK;
		}
		show_progress(m, env->progress);
		return -1;
	case PM__ENVELOPE__BODY_MIGRATE_REP:
		return m->result(m, env->migrate_rep);
	case PM__ENVELOPE__BODY_ERROR:
		/* an abort that came too late: the move goes on to its end */
		if (env->id == ABORT_ID) {
			operation_close_line(m);
			say_error(m->c, m->subject, env->error);
			return -1;
		}
		return show_error(m, env->error);
	default:
		return -1;
	}
}

static int converse(struct operation *m)
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

int operation_run(struct operation *m, Pm__Envelope *q)
{
	struct ctx *c = m->c;
	struct err e = { 0 };
	sigset_t set;
	int code;

	if (m->json)
		m->progress = P_JSON;
	else if (m->progress == P_AUTO)
		m->progress = isatty(2) ? P_TTY : P_PLAIN;
	m->fd = client_open(c);
	if (m->fd < 0)
		return -m->fd;
	sigemptyset(&set);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGTERM);
	sigprocmask(SIG_BLOCK, &set, NULL);
	m->signals = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	q->id = REQUEST_ID;
	m->last_plain = now_ns();
	if (link_send(m->fd, q, deadline_ms(CALL_MS), &e) < 0)
		code = say(c, EXIT_UNREACHABLE, "cannot ask the coordinator: %s; nothing was done",
			   e.msg);
	else
		code = converse(m);
	close(m->signals);
	close(m->fd);
	return code;
}
