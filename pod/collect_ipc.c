/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * What lives in a pod's ipc namespace without anybody's fd: kinds of scope POD look at it, by a thread that has entered it,
 * since /proc/sysvipc, the ids and the mqueue file system are those of the one who looks. Shared memory: sysv.c.
 */
#include "pod/dump.h"
#include "pod/kind/kinds.h"
#include "pod/semundo.h"
#include "pod/sysv.h"

struct look {
	struct dump *d;
	bool final;
};

static int look(void *arg, struct err *e)
{
	const struct look *l = arg;
	const struct kind *const *k;
	size_t n, i;
	int r = 0;

	k = kinds_all(&n);
	for (i = 0; r >= 0 && i < n; i++)
		if (k[i]->scope == KIND_POD)
			r = collect_note(l->d, k[i]->gather(l->d, l->final, e), e);
	return r < 0 ? r : collect_note(l->d, semundo_look(l->d, l->final, e), e);
}

int collect_ipc(struct dump *d, bool final, struct err *e)
{
	struct look l = { d, final };

	if (final)
		d->nthings = 0;
	return sysv_visit(d->pid1, look, &l, e);
}
