/* SPDX-License-Identifier: GPL-3.0-or-later */
/* What the commands about images share: image.c, prune.c, core.c. */
#ifndef CMD_IMAGE_H
#define CMD_IMAGE_H

#include "coordinator/cmd/operation.h"

/** The caller's directory in the image store. */
void own_store(struct ctx *, char *out, size_t len);
/** The path of the image that the user names, by path or by id (then *@in_store, which may be NULL). An exit code. */
int find_image(struct ctx *, const char *name, char *out, size_t len, bool *in_store);
/** Is there an image of that name, for find_image()? Says nothing. */
bool have_image(struct ctx *, const char *name);
/** Says what is wrong with an image; the exit code for it. */
int image_error(struct ctx *, const struct err *);
/** Asks for the pod in the image at @path (as this client sees it), under another @name if that is not NULL. */
int restore_image(struct ctx *, struct operation *, Pm__RestoreReq *, const char *path, const char *name);
/** For commands that take images and no option but --help: at optind on. -1: *@code is the exit code. */
int image_operands(struct ctx *, int argc, char **argv, int *code);
int image_prune(struct ctx *, int argc, char **argv);
int image_remove(struct ctx *, int argc, char **argv);
int image_pin(struct ctx *, int argc, char **argv);
int image_unpin(struct ctx *, int argc, char **argv);
int image_diff(struct ctx *, int argc, char **argv);
int image_core(struct ctx *, int argc, char **argv);

#endif
