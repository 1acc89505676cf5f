/* SPDX-License-Identifier: GPL-3.0-or-later */
/* What the commands of podctl share: the connection, errors in words and exit codes, options. */
#ifndef CMD_CLIENT_H
#define CMD_CLIENT_H

#include <getopt.h>
#include <stdbool.h>
#include <stdint.h>

#include "agent/link/frame.h"
#include "pod/base/conf.h"
#include "pod/base/err.h"

/* Exit codes of all commands; 6-11: the source is running. */
enum exit_code {
	EXIT_OK = 0, EXIT_OTHER = 1, EXIT_USAGE = 2, EXIT_NOTFOUND = 3, EXIT_UNREACHABLE = 4,
	EXIT_DENIED = 5, EXIT_CHECK = 6, EXIT_CHECKPOINT = 7, EXIT_TRANSFER = 8, EXIT_RESTORE = 9,
	EXIT_ABORTED = 10, EXIT_NOCONVERGE = 11, EXIT_PARTIAL = 12, EXIT_BUSY = 13,
	EXIT_UNKNOWN = 14, EXIT_IMAGE = 15,
	EXIT_PODRUN = 125, /* podrun's own failures, as podman's */
};

#define CALL_MS 60000

struct ctx {
	const char *prog; /* "podmigrate", "podctl exec", ... */
	const struct command *cmd;
	struct conf conf;
	int own_failure;  /* not 0: the code for every failure that is ours (podrun) */
};

struct command {
	const char *name;  /* podctl NAME */
	const char *alias; /* the same by argv[0]; NULL */
	int (*run)(struct ctx *, int argc, char **argv);
	const char *usage; /* "[-a] [-w NODE]": what follows the name */
	const char *help;  /* the options, a line each */
};

/**
 * What comes out of an image, the name of a file, a message is shown to a terminal: nothing in it may speak to that.
 * Control characters, and what is not UTF-8, become '?', in place. Returns @s.
 */
char *clean(char *s);
/** The same into @buf, of @len bytes at least 1. */
const char *clean_copy(char *buf, size_t len, const char *s);
/** "PROG: words" on stderr. Returns @code, or the command's own code for its failures. */
int say(const struct ctx *, int code, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
/** What the coordinator answered: "PROG: SUBJECT: phase: cause; state" and the hint. */
int say_error(const struct ctx *, const char *subject, const Pm__Error *);
/** A usage error: the words, the usage line, EXIT_USAGE. */
int say_usage(const struct ctx *, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/**
 * getopt_long for all commands: stops at the first operand, names what it does not know. Returns the
 * option, -1 at the end, '?' after it has said what is wrong (return usage_code()), 'h' for --help
 * after it has printed it (return 0).
 */
int next_option(const struct ctx *, int argc, char **argv, const char *shorts,
		const struct option *longs);
int usage_code(const struct ctx *);

/** Connects and greets. An fd, or the negative exit code after it has said why not. */
int client_open(const struct ctx *);
/** The same without a word; negative errno. */
int client_try(const struct ctx *, struct err *e);
/**
 * One request, one answer of the kind @want. 0 with *@rep (link_free() it), or the exit code after
 * the error was said; @subject: what it was about, may be NULL.
 */
int client_call(const struct ctx *, int fd, Pm__Envelope *req, Pm__Envelope__BodyCase want,
		const char *subject, Pm__Envelope **rep);

/** "1.2 GiB", "180 MiB". */
const char *human_size(char *buf, size_t len, uint64_t bytes);
/** "3.1 ms", "1.84 s". */
const char *human_ns(char *buf, size_t len, uint64_t ns);
/** A whole number in [@min, @max], or a usage error (-1). */
int parse_number(const struct ctx *, const char *opt, const char *text, uint64_t min, uint64_t max,
		 uint64_t *out);
/** With K, M, G, T behind it (powers of 1024), or a usage error (-1). */
int parse_size(const struct ctx *, const char *opt, const char *text, uint64_t *out);
const char *pod_state_name(const Pm__PodInfo *);

/* the commands */
int cmd_run(struct ctx *, int argc, char **argv);
int cmd_ps(struct ctx *, int argc, char **argv);
int cmd_migrate(struct ctx *, int argc, char **argv);
int cmd_nodes(struct ctx *, int argc, char **argv);
int cmd_exec(struct ctx *, int argc, char **argv);
int cmd_attach(struct ctx *, int argc, char **argv);
int cmd_logs(struct ctx *, int argc, char **argv);
int cmd_kill(struct ctx *, int argc, char **argv);
int cmd_recover(struct ctx *, int argc, char **argv);
int cmd_checkpoint(struct ctx *, int argc, char **argv);
int cmd_restore(struct ctx *, int argc, char **argv);
int cmd_image(struct ctx *, int argc, char **argv);
int cmd_check(struct ctx *, int argc, char **argv);
int cmd_inspect(struct ctx *, int argc, char **argv);
int cmd_preempt(struct ctx *, int argc, char **argv);
int cmd_drain(struct ctx *, int argc, char **argv);
int cmd_cordon(struct ctx *, int argc, char **argv);
int cmd_uncordon(struct ctx *, int argc, char **argv);
int cmd_op(struct ctx *, int argc, char **argv);

#endif
