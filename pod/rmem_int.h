/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Between rmem.c and rfamily.c. */
#ifndef POD_RMEM_INT_H
#define POD_RMEM_INT_H

#include "pod/restore.h"

struct saved_run {
	uint64_t addr, len;
	void *data;
};
struct saved_pages {
	struct saved_run *r;
	size_t n;
};

int seg_add(struct segs *l, const struct seg *s); /* 0 or -ENOMEM */
bool seg_same_backing(const struct seg *a, const struct seg *b);

/** May @s be part of a family; does @s go on where @prev ends? */
bool family_member(const struct seg *s);
bool family_joins(const struct seg *prev, const struct seg *s);
/** Gives every segment of @want the number of the family it is made in. */
void family_number(struct rproc *p, const struct segs *have, struct segs *want);
/** Families of @want whose parts were made at different times: pages copied to @out, parts taken out of @have. */
int family_set_aside(struct rproc *p, struct segs *have, const struct segs *want, struct saved_pages *out, struct err *e);
/** Puts the pages back and frees them. */
int family_put_back(struct rproc *p, const struct segs *now, struct saved_pages *, struct err *e);

#endif
