/* SPDX-License-Identifier: GPL-3.0-or-later */
/* A job's images; see cut.c. */
#ifndef CMD_CUT_H
#define CMD_CUT_H

#include <limits.h>

#include "coordinator/cmd/operation.h"
#include "pod/image/image.h"

struct member {
	char file[NAME_MAX + 1];
	Pm__ImageHead *head; /* owned, as is: */
	Pm__PodSpec *spec;
	uid_t uid; /* of the file */
	gid_t gid;
};

struct cut {
	char dir[PATH_MAX];
	struct member *m;
	size_t n;
	uint64_t made_ns; /* CLOCK_REALTIME */
};

/**
 * cut_find - the newest whole image of a job in @dir
 * @name: as users call it, or NULL; @job: of that job, or NULL
 * @out: cut_done() it
 *
 * 1; 0: there is none; else a negative exit code, after it has said what is missing.
 */
int cut_find(struct ctx *c, const char *dir, const char *name, const char *job, struct cut *out);
/** In the caller's store; root looks in everybody's. */
int cut_find_in_store(struct ctx *c, const char *name, const char *job, struct cut *out);
void cut_done(struct cut *);
/** Asks for all of its pods. @like: what is the same for all; its node may be a list, separated by commas. The exit code. */
int cut_restore(struct operation *m, const Pm__RestoreReq *like, const struct cut *cut, bool in_store);
/** Is the file the caller's, or the caller root? */
bool image_is_ours(int fd);

#endif
