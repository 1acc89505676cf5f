/* SPDX-License-Identifier: GPL-3.0-or-later */
/* podctl kill: a signal for a pod's command or for all in it. */
#include <ctype.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "coordinator/cmd/client.h"
#include "pod/base/util.h"

static const struct option longs[] = {
	{ "signal", required_argument, NULL, 's' },
	{ "all", no_argument, NULL, 'a' },
	{ "help", no_argument, NULL, 'h' },
	{ NULL, 0, NULL, 0 },
};

/* "TERM", "SIGTERM", "15"; -1 for what is none. */
static int signal_number(const char *text)
{
	if (isdigit((unsigned char)text[0])) {
		char *end;
		long n = strtol(text, &end, 10);

		return *end || n < 1 || n >= NSIG ? -1 : (int)n;
	}
	if (!strncasecmp(text, "SIG", 3))
		text += 3;
	for (int i = 1; i < NSIG; i++) {
		const char *name = sigabbrev_np(i);

		if (name && !strcasecmp(name, text))
			return i;
	}
	return -1;
}

int cmd_kill(struct ctx *c, int argc, char **argv)
{
	Pm__Envelope *rep = NULL;
	int o, fd, code;

	LINK_ENVELOPE(q, kill_req, KILL_REQ, Pm__KillReq, pm__kill_req__init);
	q_body.signal = SIGTERM;
	while ((o = next_option(c, argc, argv, "+:s:ah", longs)) != -1) {
		if (o == 's')
			q_body.signal = signal_number(optarg);
		else if (o == 'a')
			q_body.all = true;
		else
			return o == 'h' ? EXIT_OK : usage_code(c);
		if (q_body.signal < 0)
			return say_usage(c, "'%s' is no signal", optarg);
	}
	if (argc - optind != 1)
		return say_usage(c, "which pod?");
	q_body.pod = argv[optind];
	fd = client_open(c);
	if (fd < 0)
		return -fd;
	code = client_call(c, fd, &q, PM__ENVELOPE__BODY_OK, q_body.pod, &rep);
	close(fd);
	link_free(rep);
	return code;
}
