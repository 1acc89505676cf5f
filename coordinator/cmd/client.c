/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "coordinator/cmd/client.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "agent/link/unix.h"
#include "pod/base/io.h"
#include "pod/base/util.h"

#define CONNECT_MS 5000

static int own_code(const struct ctx *c, int code)
{
	return code && c->own_failure ? c->own_failure : code;
}

/* The bytes of the character at @s that may be shown; 0: its first byte may not. */
static size_t showable(const unsigned char *s)
{
	size_t n = s[0] < 0xc2 ? 1 : s[0] < 0xe0 ? 2 : s[0] < 0xf0 ? 3 : s[0] < 0xf5 ? 4 : 0;

	if (n == 1)
		return s[0] >= 0x20 && s[0] < 0x7f;
	for (size_t i = 1; i < n; i++)
		if ((s[i] & 0xc0) != 0x80)
			return 0;
	/* the C1 controls, what is written longer than it need be, and what is no character: JSON cannot have it */
	return (s[0] == 0xc2 && s[1] < 0xa0) || (s[0] == 0xe0 && s[1] < 0xa0) || (s[0] == 0xf0 && s[1] < 0x90) ||
			       (s[0] == 0xed && s[1] >= 0xa0) || (s[0] == 0xf4 && s[1] >= 0x90) ?
		       0 :
		       n;
}

char *clean(char *s)
{
	for (char *p = s; *p;) {
		size_t n = showable((const unsigned char *)p);

		if (!n)
			*p = '?';
		p += n ? n : 1;
	}
	return s;
}

const char *clean_copy(char *buf, size_t len, const char *s)
{
	snprintf(buf, len, "%s", s);
	return clean(buf);
}

static void print_clean(const char *before, const char *text, const char *after)
{
	autofree char *t = strdup(text);

	fprintf(stderr, "%s%s%s", before, t ? clean(t) : "no memory", after);
}

static void vsay(const struct ctx *c, const char *fmt, va_list ap)
{
	autofree char *text = NULL;

	if (vasprintf(&text, fmt, ap) < 0)
		text = NULL;
	fprintf(stderr, "%s: %s\n", c->prog, text ? clean(text) : "no memory");
}

int say(const struct ctx *c, int code, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsay(c, fmt, ap);
	va_end(ap);
	return own_code(c, code);
}

static bool filled(const char *s)
{
	return s && s[0];
}

int say_error(const struct ctx *c, const char *subject, const Pm__Error *e)
{
	fprintf(stderr, "%s: ", c->prog);
	if (filled(subject))
		print_clean("", subject, ": ");
	if (filled(e->phase))
		print_clean("", e->phase, ": ");
	print_clean("", filled(e->cause) ? e->cause : "failed without saying why", "");
	if (filled(e->state))
		print_clean("; ", e->state, "");
	fputc('\n', stderr);
	if (filled(e->hint))
		print_clean("hint: ", e->hint, "\n");
	/* the command itself was at fault: its code is a shell's, also for podrun */
	if (e->exit_code >= 125 && e->exit_code <= 127)
		return e->exit_code;
	return own_code(c, e->exit_code ? e->exit_code : EXIT_OTHER);
}

static void print_usage(const struct ctx *c, FILE *f)
{
	fprintf(f, "usage: %s %s\n", c->prog, c->cmd ? c->cmd->usage : "COMMAND ...");
}

int usage_code(const struct ctx *c)
{
	return own_code(c, EXIT_USAGE);
}

int say_usage(const struct ctx *c, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsay(c, fmt, ap);
	va_end(ap);
	print_usage(c, stderr);
	return usage_code(c);
}

int next_option(const struct ctx *c, int argc, char **argv, const char *shorts,
		const struct option *longs)
{
	int at = optind ? optind : 1, o;

	opterr = 0;
	o = getopt_long(argc, argv, shorts, longs, NULL);
	if (o == 'h') {
		print_usage(c, stdout);
		if (c->cmd && c->cmd->help)
			fputs(c->cmd->help, stdout);
	} else if (o == ':') {
		say_usage(c, "option '%s' needs a value", argv[at]);
		o = '?';
	} else if (o == '?') {
		/* a short one may be in the middle of its word */
		if (optopt && !strncmp(argv[at], "--", 2))
			say_usage(c, "option '%s' takes no value", argv[at]);
		else if (optopt)
			say_usage(c, "unknown option '-%c'", optopt);
		else
			say_usage(c, "unknown option '%s'", argv[at]);
	}
	return o;
}

int client_try(const struct ctx *c, struct err *e)
{
	autoclose int fd = -1;
	int r;

	fd = unix_connect(c->conf.client_coordinator, deadline_ms(CONNECT_MS), e);
	if (fd < 0)
		return fd;
	r = link_hello(fd, "client", c->prog, NULL, deadline_ms(CONNECT_MS), e);
	return r < 0 ? r : take_fd(&fd);
}

int client_open(const struct ctx *c)
{
	struct err e = { 0 };
	int fd = client_try(c, &e);

	if (fd >= 0)
		return fd;
	fd = say(c, EXIT_UNREACHABLE, "cannot reach the coordinator: %s", e.msg);
	fprintf(stderr, "hint: is podcoord running, and its socket in [client] coordinator of "
			"the configuration?\n");
	return -fd;
}

int client_call(const struct ctx *c, int fd, Pm__Envelope *req, Pm__Envelope__BodyCase want,
		const char *subject, Pm__Envelope **rep)
{
	uint64_t deadline = deadline_ms(CALL_MS);
	struct err e = { 0 };
	Pm__Envelope *env = NULL;
	int r;

	req->id = 1;
	r = link_send(fd, req, deadline, &e);
	if (r == 0)
		r = link_recv(fd, &env, deadline, &e);
	if (r < 0)
		return say(c, EXIT_UNREACHABLE, "the coordinator does not answer: %s", e.msg);
	if (env->body_case == want) {
		*rep = env;
		return 0;
	}
	if (env->body_case == PM__ENVELOPE__BODY_ERROR)
		r = say_error(c, subject, env->error);
	else
		r = say(c, EXIT_OTHER, "the coordinator answered %s",
			link_body_name(env->body_case));
	link_free(env);
	return r;
}

const char *human_size(char *buf, size_t len, uint64_t bytes)
{
	static const char *const unit[] = { "B", "KiB", "MiB", "GiB", "TiB", "PiB" };
	double v = (double)bytes;
	size_t u = 0;

	while (v >= 1024 && u + 1 < ARRAY_SIZE(unit)) {
		v /= 1024;
		u++;
	}
	snprintf(buf, len, v < 9.95 && u ? "%.1f %s" : "%.0f %s", v, unit[u]);
	return buf;
}

const char *human_ns(char *buf, size_t len, uint64_t ns)
{
	if (ns < NSEC_PER_SEC)
		snprintf(buf, len, "%.1f ms", (double)ns / 1e6);
	else
		snprintf(buf, len, "%.2f s", (double)ns / 1e9);
	return buf;
}

int parse_number(const struct ctx *c, const char *opt, const char *text, uint64_t min, uint64_t max,
		 uint64_t *out)
{
	char *end;
	unsigned long long v;

	errno = 0;
	v = strtoull(text, &end, 10);
	if (errno || end == text || *end || text[0] == '-' || v < min || v > max) {
		say_usage(c, "%s: '%s' is not a number between %" PRIu64 " and %" PRIu64, opt, text,
			  min, max);
		return -1;
	}
	*out = v;
	return 0;
}

int parse_size(const struct ctx *c, const char *opt, const char *text, uint64_t *out)
{
	static const char units[] = "KMGT";
	unsigned shift = 0;
	const char *u;
	double v;
	char *end;

	v = strtod(text, &end);
	if (end != text && *end && (u = strchr(units, *end & ~0x20))) {
		shift = 10 * (unsigned)(u - units + 1);
		end++;
		if (*end == 'i')
			end++;
		if (*end == 'B')
			end++;
	}
	v *= (double)(1ull << shift);
	if (end == text || *end || !(v >= 1) || v > 1e18) {
		say_usage(c, "%s: '%s' is not a size (like 512M or 2G)", opt, text);
		return -1;
	}
	*out = (uint64_t)v;
	return 0;
}

const char *pod_state_name(const Pm__PodInfo *p)
{
	static const char *const name[] = { "unknown", "starting", "running", "migrating",
					    "frozen",  "exited",   "lost",    "incoming" };

	if (p->ending && p->state != PM__POD_STATE__POD_EXITED)
		return "ending";
	return (unsigned)p->state < ARRAY_SIZE(name) ? name[p->state] : "unknown";
}
