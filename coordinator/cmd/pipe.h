/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Images from stdin and to stdout; see pipe.c. */
#ifndef CMD_PIPE_H
#define CMD_PIPE_H

#include "coordinator/cmd/image.h"

/** Before anything is done: can an image go to stdout? An exit code, after it was said. */
int pipe_check_stdout(struct ctx *);
/** The image that was written to @path for us goes to stdout, its id to stderr, and the file goes; @ended: the pod as well. */
int pipe_send_image(struct ctx *, const char *path, bool ended);
/** Stdin into a file, whose @path the caller removes. An exit code, and then there is no file. */
int pipe_take_image(struct ctx *, char *path, size_t len);

#endif
