/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Resource limits of a process. Given after its memory and its fds, which a low limit would refuse. */
#include <errno.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "pod/dump.h"
#include "pod/kind/task_kinds.h"

#define NLIMITS 16

/* Asked inside: from outside only CAP_SYS_RESOURCE may read another user's. */
static int ask(struct dump *d, struct task *t, struct batch *b, uint64_t *cookie, struct err *e)
{
	int i;

	(void)d;
	(void)t;
	(void)e;
	*cookie = batch_data(b, NULL, NLIMITS * 16);
	for (i = 0; i < NLIMITS; i++)
		batch_add4(b, SYS_prlimit64, 0, i, 0, *cookie + (uint64_t)i * 16);
	return 0;
}

static int take(struct dump *d, struct task *t, struct batch *b, uint64_t cookie, Pm__Proc *proc, Pm__Thread *th,
		struct err *e)
{
	(void)t;
	(void)th;
	(void)e;
	proc->rlimits.len = NLIMITS * 16;
	proc->rlimits.data = memcpy(dump_alloc(d, NLIMITS * 16), batch_local(b, cookie), NLIMITS * 16);
	return 0;
}

static int give(struct restore *r, const Pm__Proc *proc, const Pm__Thread *th, struct batch *b, struct err *e)
{
	int i;

	(void)r;
	(void)th;
	if (proc->rlimits.len != NLIMITS * 16)
		return err_set(e, EBADMSG, "limits of %zu bytes", proc->rlimits.len);
	for (i = 0; i < NLIMITS; i++)
		batch_add4(b, SYS_prlimit64, 0, i, batch_data(b, proc->rlimits.data + i * 16, 16), 0);
	return 0;
}

const struct kind kind_rlimit = { .name = "rlimit", .type = 110, .version = 1, .min_version = 1,
				  .scope = KIND_PROC, .ask = ask, .take = take, .give = give };
