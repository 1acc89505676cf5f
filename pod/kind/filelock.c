/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Locks by fcntl(2) and flock(2), in the list of a process that can take them. How they get from node to node: pod/locks.c. */
#include "pod/dump.h"
#include "pod/kind/task_kinds.h"

static int take(struct dump *d, struct task *t, struct batch *b, uint64_t cookie, Pm__Proc *proc, Pm__Thread *th,
		struct err *e)
{
	size_t i;

	(void)t;
	(void)b;
	(void)cookie;
	(void)th;
	(void)e;
	proc->locks = dump_alloc(d, d->nlocks * sizeof(*proc->locks));
	for (i = 0; i < d->nlocks; i++)
		if (d->locks[i].nspid == (pid_t)proc->pid)
			proc->locks[proc->n_locks++] = d->locks[i].msg;
	return 0;
}

const struct kind kind_filelock = { .name = "filelock", .type = 130, .version = 1, .min_version = 1,
				    .scope = KIND_PROC, .take = take };
