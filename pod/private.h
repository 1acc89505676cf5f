/* SPDX-License-Identifier: GPL-3.0-or-later */
/* The file systems that a pod has for itself, and which travel with it. */
#ifndef POD_PRIVATE_H
#define POD_PRIVATE_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#include "pod/base/err.h"

#define PRIVATE_TOPS 3
extern const char *const private_tops[PRIVATE_TOPS]; /* relative to the pod's root */

/** Which of the three @path is (in) by its first components, or -1. *@rest: what follows the slash, "" for the top itself. */
int private_top_of(const char *path, const char **rest);
/** Opens a directory beneath @root, by no link. fd or negative errno. */
int private_open(int root, const char *dir);
/**
 * Is @fd on a tmpfs that nobody but the pod has? A --bind may put anything on /tmp, a tmpfs of the node
 * included; what the calling process has mounted anywhere is not the pod's own.
 */
bool private_is(int fd);

#endif
