/* SPDX-License-Identifier: GPL-3.0-or-later */
/* What the commands that begin an operation share; see operation.c. */
#ifndef CMD_OPERATION_H
#define CMD_OPERATION_H

#include <jansson.h>

#include "coordinator/cmd/client.h"

enum progress { P_AUTO, P_PLAIN, P_JSON, P_NONE, P_TTY };

struct operation {
	struct ctx *c;
	const char *subject, *to; /* of messages and progress: "pod3 -> nodeB" */
	enum progress progress;
	bool json, times, dry_run, detach;
	bool pipe, ends; /* a checkpoint to stdout; one that ends its pod */
	/** Shows how it ended; returns the exit code. */
	int (*result)(struct operation *, const Pm__MigrateRep *);
	/* of the conversation */
	int fd, signals;
	char op[128]; /* known from the first Progress on */
	bool abort_wanted, abort_sent, line_open;
	uint64_t last_plain;
};

/** Sends @q and stays until it is decided. The exit code. */
int operation_run(struct operation *, Pm__Envelope *q);
/** --compress auto|lz4|none; false: a usage error, which was said. */
bool operation_compress(struct ctx *, const char *text, Pm__Compress *out);
/** Ends a line that is being rewritten. */
void operation_close_line(struct operation *);
/** One line of JSON, for which @o is given up: on stdout with --json, else on stderr. */
void operation_json_line(const struct operation *, json_t *o);
/** "1.02 GiB": the last line has one digit more than a progress line. */
const char *operation_size(char *buf, size_t len, uint64_t bytes);

#endif
