/* SPDX-License-Identifier: GPL-3.0-or-later */
/* podctl cordon, uncordon. */
#include "coordinator/cmd/cordon.h"

#include <string.h>
#include <unistd.h>

enum { OPT_REASON = 256 };

int cordon_set(struct ctx *c, const char *node, bool on, const char *reason)
{
	Pm__Envelope *rep = NULL;
	int fd = client_open(c), code;

	LINK_ENVELOPE(q, cordon_req, CORDON_REQ, Pm__CordonReq, pm__cordon_req__init);
	if (fd < 0)
		return -fd;
	q_body.node = (char *)(uintptr_t)node;
	q_body.on = on;
	q_body.reason = (char *)(uintptr_t)reason;
	code = client_call(c, fd, &q, PM__ENVELOPE__BODY_OK, node, &rep);
	close(fd);
	link_free(rep);
	return code;
}

static int set(struct ctx *c, int argc, char **argv, bool on)
{
	static const struct option longs[] = {
		{ "reason", required_argument, NULL, OPT_REASON },
		{ "help", no_argument, NULL, 'h' },
		{ NULL, 0, NULL, 0 },
	};
	const char *reason = "";
	int o;

	while ((o = next_option(c, argc, argv, ":h", on ? longs : longs + 1)) != -1) {
		if (o != OPT_REASON)
			return o == 'h' ? EXIT_OK : usage_code(c);
		reason = optarg;
	}
	if (argc - optind != 1)
		return say_usage(c, argc == optind ? "which node?" : "too many operands");
	return cordon_set(c, argv[optind], on, reason);
}

int cmd_cordon(struct ctx *c, int argc, char **argv)
{
	return set(c, argc, argv, true);
}

int cmd_uncordon(struct ctx *c, int argc, char **argv)
{
	return set(c, argc, argv, false);
}
