/* SPDX-License-Identifier: GPL-3.0-or-later */
/* podrun: describes the pod, has it made, and is its console unless -d. */
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>

#include "coordinator/cmd/console.h"
#include "pod/base/util.h"

#define BINDS_MAX 64
#define ENV_MAX 4096

struct run {
	Pm__PodSpec spec;
	const char *node;
	Pm__Bind bind[BINDS_MAX], *binds[BINDS_MAX];
	Pm__KeyValue kv[ENV_MAX], *env[ENV_MAX];
	char cwd[PATH_MAX];
	bool detach;
};

enum { OPT_IP = 256, OPT_ROOT, OPT_BIND, OPT_MEMORY, OPT_CPUS, OPT_EVACUATE, OPT_KEEP };

static const struct option longs[] = {
	{ "name", required_argument, NULL, 'n' },
	{ "node", required_argument, NULL, 'N' },
	{ "job", required_argument, NULL, 'j' },
	{ "ip", required_argument, NULL, OPT_IP },
	{ "root", required_argument, NULL, OPT_ROOT },
	{ "bind", required_argument, NULL, OPT_BIND },
	{ "env", required_argument, NULL, 'e' },
	{ "memory", required_argument, NULL, OPT_MEMORY },
	{ "cpus", required_argument, NULL, OPT_CPUS },
	{ "checkpoint-interval", required_argument, NULL, 'i' },
	{ "keep", required_argument, NULL, OPT_KEEP },
	{ "evacuate", required_argument, NULL, OPT_EVACUATE },
	{ "detach", no_argument, NULL, 'd' },
	{ "help", no_argument, NULL, 'h' },
	{ NULL, 0, NULL, 0 },
};

/* @entry ("K=V") is cut in two. False when there is no room. */
static bool add_env(struct run *r, char *entry)
{
	char *eq = strchr(entry, '=');
	Pm__KeyValue *kv;

	if (!eq || eq == entry)
		return true;
	if (r->spec.n_env == ENV_MAX)
		return false;
	*eq = '\0';
	kv = &r->kv[r->spec.n_env];
	pm__key_value__init(kv);
	kv->key = entry;
	kv->value = eq + 1;
	r->env[r->spec.n_env++] = kv;
	return true;
}

/* The caller's environment travels, as with srun; -e comes later and wins. */
static void add_environ(struct run *r)
{
	for (char **e = environ; *e; e++) {
		char *copy = strdup(*e);

		if (copy && !add_env(r, copy))
			break;
	}
}

/* Against our directory, not resolved: the links of the pod's node count. */
static char *absolute(const struct run *r, const char *path)
{
	char *out = NULL;

	if (path[0] == '/')
		return strdup(path);
	return asprintf(&out, "%s/%s", r->cwd, path) < 0 ? NULL : out;
}

static int add_bind(struct ctx *c, struct run *r, char *arg)
{
	char *dst = strchr(arg, ':'), *opt = dst ? strchr(dst + 1, ':') : NULL;
	Pm__Bind *b;

	if (!dst || dst == arg || dst[1] != '/' || (opt && strcmp(opt, ":ro")))
		return say_usage(c, "--bind '%s' is not SRC:DST or SRC:DST:ro, DST absolute", arg);
	if (r->spec.n_binds == BINDS_MAX)
		return say_usage(c, "more than %d binds", BINDS_MAX);
	*dst++ = '\0';
	if (opt)
		*opt = '\0';
	b = &r->bind[r->spec.n_binds];
	pm__bind__init(b);
	b->src = absolute(r, arg);
	b->dst = dst;
	b->ro = opt != NULL;
	r->binds[r->spec.n_binds++] = b;
	return 0;
}

static int one_option(struct ctx *c, struct run *r, int o)
{
	uint64_t n = 0;

	switch (o) {
	case 'n':
		r->spec.name = optarg;
		return 0;
	case 'N':
		r->node = optarg;
		return 0;
	case 'j':
		r->spec.job = optarg;
		return 0;
	case 'd':
		r->detach = true;
		return 0;
	case 'e':
		if (!strchr(optarg, '=') || optarg[0] == '=')
			return say_usage(c, "-e '%s' is not K=V", optarg);
		return add_env(r, optarg) ? 0 : say_usage(c, "too many variables");
	case OPT_IP:
		r->spec.ip = optarg;
		return 0;
	case OPT_ROOT:
		r->spec.root = absolute(r, optarg);
		return 0;
	case OPT_BIND:
		return add_bind(c, r, optarg);
	case OPT_MEMORY:
		return parse_size(c, "--memory", optarg, &r->spec.memory) ? usage_code(c) : 0;
	case OPT_CPUS:
		r->spec.cpus = optarg;
		return 0;
	case 'i':
		if (parse_number(c, "--checkpoint-interval", optarg, 1, 86400 * 365, &n) < 0)
			return usage_code(c);
		r->spec.interval_s = (uint32_t)n;
		return 0;
	case OPT_KEEP:
		if (parse_number(c, "--keep", optarg, 1, 1000000, &n) < 0)
			return usage_code(c);
		r->spec.keep = (uint32_t)n;
		return 0;
	default:
		return say(c, EXIT_OTHER, "--evacuate is not built yet; no pod was made");
	}
}

static int parse(struct ctx *c, struct run *r, int argc, char **argv, int *code)
{
	char ip[] = "auto";
	int o;

	pm__pod_spec__init(&r->spec);
	r->spec.binds = r->binds;
	r->spec.env = r->env;
	r->spec.ip = strdup(ip);
	r->node = "";
	if (!getcwd(r->cwd, sizeof(r->cwd)))
		strcpy(r->cwd, "/");
	r->spec.cwd = r->cwd;
	add_environ(r);
	while ((o = next_option(c, argc, argv, "+:n:N:j:e:i:dh", longs)) != -1) {
		*code = o == 'h' ? 0 : usage_code(c);
		if (o == 'h' || o == '?')
			return -1;
		*code = one_option(c, r, o);
		if (*code)
			return -1;
	}
	if (optind == argc) {
		*code = say_usage(c, "which command?");
		return -1;
	}
	if (r->spec.keep && !r->spec.interval_s) {
		*code = say_usage(c, "--keep goes with -i");
		return -1;
	}
	if (r->spec.interval_s && !r->spec.keep)
		r->spec.keep = 2;
	r->spec.argv = argv + optind;
	r->spec.n_argv = (size_t)(argc - optind);
	/* a pty merges stdout and stderr: only when both ends of it are a person's */
	r->spec.tty = !r->detach && isatty(0) && isatty(1);
	r->spec.stdin_open = !r->detach;
	if (r->spec.tty)
		console_size(&r->spec.rows, &r->spec.cols);
	return 0;
}

int cmd_run(struct ctx *c, int argc, char **argv)
{
	static struct run r;
	struct console_args a = { .want_stdin = true, .follow = true, .own = true };
	Pm__Envelope *rep = NULL;
	int code = 0, fd;

	if (parse(c, &r, argc, argv, &code) < 0)
		return code;
	fd = client_open(c);
	if (fd < 0)
		return -fd;
	LINK_ENVELOPE(q, run_req, RUN_REQ, Pm__RunReq, pm__run_req__init);
	q_body.spec = &r.spec;
	q_body.node = (char *)(uintptr_t)r.node;
	code = client_call(c, fd, &q, PM__ENVELOPE__BODY_RUN_REP, r.spec.name, &rep);
	if (code) {
		close(fd);
		return code;
	}
	if (!rep->run_rep->pod || !rep->run_rep->pod->spec)
		return say(c, EXIT_OTHER, "the coordinator did not say which pod it made");
	if (r.detach) {
		puts(rep->run_rep->pod->spec->name);
		close(fd);
	} else {
		a.pod = rep->run_rep->pod->spec->name;
		a.tty = r.spec.tty;
		code = console_run(c, &a, fd);
	}
	link_free(rep);
	return code;
}
