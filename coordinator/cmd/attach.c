/* SPDX-License-Identifier: GPL-3.0-or-later */
/* podctl attach: this terminal becomes the console of a pod's command. podctl logs: its past. */
#include <stdio.h>
#include <string.h>

#include "coordinator/cmd/console.h"
#include "pod/base/util.h"

enum { OPT_NOSTDIN = 256 };

static const struct option attach_longs[] = {
	{ "no-stdin", no_argument, NULL, OPT_NOSTDIN },
	{ "help", no_argument, NULL, 'h' },
	{ NULL, 0, NULL, 0 },
};

static const struct option logs_longs[] = {
	{ "follow", no_argument, NULL, 'f' },
	{ "help", no_argument, NULL, 'h' },
	{ NULL, 0, NULL, 0 },
};

/* Has the pod's command a terminal? Unknown pods are the attach's to name. */
static int pod_has_tty(struct ctx *c, int fd, const char *pod, bool *tty)
{
	Pm__Envelope *rep = NULL;
	int code;

	LINK_ENVELOPE(q, pods_req, PODS_REQ, Pm__PodsReq, pm__pods_req__init);
	q_body.all = true;
	code = client_call(c, fd, &q, PM__ENVELOPE__BODY_PODS_REP, pod, &rep);
	if (code)
		return code;
	for (size_t i = 0; i < rep->pods_rep->n_pods; i++) {
		const Pm__PodSpec *s = rep->pods_rep->pods[i]->spec;

		if (s && !strcmp(s->name, pod))
			*tty = s->tty;
	}
	link_free(rep);
	return 0;
}

int cmd_attach(struct ctx *c, int argc, char **argv)
{
	struct console_args a = { .want_stdin = true, .follow = true, .from_now = true };
	bool tty = false;
	int o, fd, code;

	while ((o = next_option(c, argc, argv, "+:h", attach_longs)) != -1) {
		if (o != OPT_NOSTDIN)
			return o == 'h' ? EXIT_OK : usage_code(c);
		a.want_stdin = false;
	}
	if (argc - optind != 1)
		return say_usage(c, "which pod?");
	a.pod = argv[optind];
	fd = client_open(c);
	if (fd < 0)
		return -fd;
	code = pod_has_tty(c, fd, a.pod, &tty);
	if (code) {
		close(fd);
		return code;
	}
	a.tty = tty && a.want_stdin && isatty(0) && isatty(1);
	return console_run(c, &a, fd);
}

int cmd_logs(struct ctx *c, int argc, char **argv)
{
	struct console_args a = { .logs = true };
	int o, fd;

	while ((o = next_option(c, argc, argv, "+:fh", logs_longs)) != -1) {
		if (o != 'f')
			return o == 'h' ? EXIT_OK : usage_code(c);
		a.follow = true;
	}
	if (argc - optind != 1)
		return say_usage(c, "which pod?");
	a.pod = argv[optind];
	fd = client_open(c);
	if (fd < 0)
		return -fd;
	return console_run(c, &a, fd);
}
