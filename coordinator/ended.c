/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Pods that a checkpoint has ended. Who asks for one, or was attached to it, hears that, and of the image, instead of "there is
 * no pod". Kept in memory: a restarted coordinator has the plainer words only.
 */
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "coordinator/ops.h"

#define KEPT_MAX 200

struct in_image {
	struct in_image *next; /* the newest first */
	uid_t uid;
	char pod[64], image[PATH_MAX]; /* image: "" if it is not known */
};

void image_left(struct coord *c, const char *name)
{
	struct in_image **at = &c->in_images;
	unsigned n = 0;

	while (*at) {
		struct in_image *x = *at;

		if (strcmp(x->pod, name) == 0 || ++n == KEPT_MAX) {
			*at = x->next;
			free(x);
		} else {
			at = &x->next;
		}
	}
}

void image_ended(struct op *op)
{
	struct pod *p = pod_find_at(op->coord, op->j.pod, op->source);
	struct in_image *x;

	if (!p)
		return;
	image_left(op->coord, op->j.pod);
	x = calloc(1, sizeof(*x));
	if (!x)
		return;
	x->uid = p->info->spec->uid;
	snprintf(x->pod, sizeof(x->pod), "%s", op->j.pod);
	if (op->image) {
		const Pm__CheckpointReq *m = op->image->checkpoint_req;

		snprintf(x->image, sizeof(x->image), "%s", m->store ? m->id : m->path);
	}
	/* the engine may have found the number taken */
	if (op->result && op->result->op_clean->result && op->result->op_clean->result->image[0])
		snprintf(x->image, sizeof(x->image), "%s", op->result->op_clean->result->image);
	x->next = op->coord->in_images;
	op->coord->in_images = x;
}

bool image_has_pod(struct client *cl, uint32_t id, const char *name)
{
	char state[PATH_MAX + 32] = "", hint[PATH_MAX + 32] = "see podctl image list";
	char cause[] = "it was ended by a checkpoint";
	struct in_image *x = cl->coord->in_images;

	while (x && strcmp(x->pod, name) != 0)
		x = x->next;
	if (!x || (cl->uid != 0 && cl->uid != x->uid))
		return false;
	if (x->image[0]) {
		snprintf(state, sizeof(state), "it is in image %s", x->image);
		snprintf(hint, sizeof(hint), "podctl restore %s", x->image);
	}
	LINK_ENVELOPE(env, error, ERROR, Pm__Error, pm__error__init);
	env_body.exit_code = EX_NOTFOUND;
	env_body.cause = cause;
	env_body.state = state;
	env_body.hint = hint;
	env_body.final = true;
	client_send(cl, id, &env);
	return true;
}
