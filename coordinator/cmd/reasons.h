/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Why a pod is refused: each reason by a name that stays, the same as in the table of podmigrate(7). */
#ifndef CMD_REASONS_H
#define CMD_REASONS_H

#include <stdbool.h>

struct reason {
	const char *name;
	const char *pattern; /* of the words that nodes send, as for a file name: fnmatch(3) */
	const char *hint;    /* what can be done about it */
	bool target;	     /* the other node lacks it: the pod itself could go */
};

/** Never NULL: what has no name of its own is "other". */
const struct reason *reason_find(const char *words);

#endif
