/* SPDX-License-Identifier: GPL-3.0-or-later */
/* podctl exec: one more command in a pod. */
#include <stdio.h>
#include <string.h>

#include "coordinator/cmd/console.h"
#include "pod/base/util.h"

#define ENV_MAX 256

static const struct option longs[] = {
	{ "env", required_argument, NULL, 'e' },
	{ "workdir", required_argument, NULL, 'w' },
	{ "no-tty", no_argument, NULL, 'T' },
	{ "help", no_argument, NULL, 'h' },
	{ NULL, 0, NULL, 0 },
};

static bool add_env(Pm__ExecReq *q, Pm__KeyValue *kv, char *entry)
{
	char *eq = strchr(entry, '=');

	if (!eq || eq == entry || q->n_env == ENV_MAX)
		return false;
	*eq = '\0';
	pm__key_value__init(&kv[q->n_env]);
	kv[q->n_env].key = entry;
	kv[q->n_env].value = eq + 1;
	q->env[q->n_env] = &kv[q->n_env];
	q->n_env++;
	return true;
}

int cmd_exec(struct ctx *c, int argc, char **argv)
{
	Pm__KeyValue kv[ENV_MAX], *env[ENV_MAX];
	struct console_args a = { .want_stdin = true, .follow = true, .own = true };
	Pm__Envelope *rep = NULL;
	char term[128];
	int o, fd, code;

	LINK_ENVELOPE(q, exec_req, EXEC_REQ, Pm__ExecReq, pm__exec_req__init);
	q_body.env = env;
	q_body.tty = isatty(0) && isatty(1);
	if (q_body.tty && getenv("TERM")) {
		snprintf(term, sizeof(term), "TERM=%s", getenv("TERM"));
		add_env(&q_body, kv, term);
	}
	while ((o = next_option(c, argc, argv, "+:e:w:Th", longs)) != -1) {
		if (o == 'w')
			q_body.cwd = optarg;
		else if (o == 'T')
			q_body.tty = false;
		else if (o == 'e' && !add_env(&q_body, kv, optarg))
			return say_usage(c, "-e '%s' is not K=V", optarg);
		else if (o != 'e')
			return o == 'h' ? EXIT_OK : usage_code(c);
	}
	if (argc - optind < 2)
		return say_usage(c, "which pod, which command?");
	q_body.pod = argv[optind];
	q_body.argv = argv + optind + 1;
	if (!strcmp(q_body.argv[0], "--"))
		q_body.argv++;
	q_body.n_argv = (size_t)(argv + argc - q_body.argv);
	if (!q_body.n_argv)
		return say_usage(c, "which command?");
	q_body.stdin_open = true;
	if (q_body.tty)
		console_size(&q_body.rows, &q_body.cols);
	fd = client_open(c);
	if (fd < 0)
		return -fd;
	code = client_call(c, fd, &q, PM__ENVELOPE__BODY_EXEC_REP, q_body.pod, &rep);
	if (code) {
		close(fd);
		return code;
	}
	a.pod = q_body.pod;
	a.session = rep->exec_rep->session;
	a.tty = q_body.tty;
	link_free(rep);
	return console_run(c, &a, fd);
}
