/* SPDX-License-Identifier: GPL-3.0-or-later */
/* What is in an image or a pod, for the commands that show it: inspect.c, diff.c. */
#ifndef CMD_INSPECT_H
#define CMD_INSPECT_H

#include <jansson.h>

#include "coordinator/cmd/image.h"
#include "pod/image/image.h"
#include "pod/image/memory.h"

struct content {
	struct image_chain chain; /* of an image */
	struct image_memory mem;  /* if it was asked for */
	Pm__Envelope *rep;	  /* of a pod that runs: its answer */
	Pm__PodSpec *spec;
	Pm__Tree *tree;
	Pm__Objects *objs;
	Pm__Needs *needs;
};

/** Reads the image at @path, with @memory where its pages are. An exit code, after all was said. */
int content_load(struct ctx *, const char *path, bool memory, struct content *);
void content_unload(struct content *);
const Pm__Object *content_object(const struct content *, uint32_t id);
/** "rw", "r", "w", "path". */
const char *open_mode(uint32_t flags);

#endif
