/* SPDX-License-Identifier: GPL-3.0-or-later */
/* What the commands about images share: image.c, prune.c. */
#ifndef CMD_IMAGE_H
#define CMD_IMAGE_H

#include "coordinator/cmd/client.h"

/** The caller's directory in the image store. */
void own_store(struct ctx *, char *out, size_t len);
int image_prune(struct ctx *, int argc, char **argv);
int image_remove(struct ctx *, int argc, char **argv);

#endif
