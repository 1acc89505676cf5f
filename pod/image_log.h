/* SPDX-License-Identifier: GPL-3.0-or-later */
/* What a pod has printed, as records of its image. */
#ifndef POD_IMAGE_LOG_H
#define POD_IMAGE_LOG_H

#include <stdint.h>

#include "pod/image/image.h"

#define IMAGE_LOG_TAIL (16ull << 20) /* per stream */

/* The logs of a pod, as far as they go now. */
struct image_logs {
	int fd[2];
	uint64_t end[2];
};

/** Those in @dir, the pod's place; one that is not there is empty. Of a frozen pod, so that they end where its rings do. */
void image_logs_open(struct image_logs *, const char *dir);
void image_logs_close(struct image_logs *);
/** Adds LOG records to the @size bytes that were written; *@size grows. */
int image_logs_save(struct image_file *f, uint64_t *size, const struct image_logs *, struct err *e);
/** Writes the logs that are in @im, if any, into @dir. -EBADMSG: they are damaged. */
int image_logs_load(const struct image *im, const char *dir, struct err *e);

#endif
