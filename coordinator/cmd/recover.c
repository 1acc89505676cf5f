/* SPDX-License-Identifier: GPL-3.0-or-later */
/* podctl recover: operations whose outcome is not known. */
#include <stdio.h>

#include "coordinator/cmd/client.h"
#include "pod/base/util.h"

static const struct option longs[] = { { "help", no_argument, NULL, 'h' }, { NULL, 0, NULL, 0 } };

int cmd_recover(struct ctx *c, int argc, char **argv)
{
	Pm__Envelope *rep = NULL;
	int o, fd, code;

	LINK_ENVELOPE(q, recover_req, RECOVER_REQ, Pm__RecoverReq, pm__recover_req__init);
	while ((o = next_option(c, argc, argv, "+:h", longs)) != -1)
		return o == 'h' ? EXIT_OK : usage_code(c);
	if (argc - optind > 1)
		return say_usage(c, "what is '%s'?", argv[optind + 1]);
	if (optind < argc)
		q_body.id = argv[optind];
	fd = client_open(c);
	if (fd < 0)
		return -fd;
	code = client_call(c, fd, &q, PM__ENVELOPE__BODY_RECOVER_REP, q_body.id, &rep);
	close(fd);
	if (code)
		return code;
	for (size_t i = 0; i < rep->recover_rep->n_lines; i++)
		puts(rep->recover_rep->lines[i]);
	if (!rep->recover_rep->n_lines)
		puts("nothing to recover: every operation's outcome is known");
	link_free(rep);
	return EXIT_OK;
}
