/* SPDX-License-Identifier: GPL-3.0-or-later */
/* The alternate signal stack of a thread, in use or not. */
#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/syscall.h>

#include "pod/dump.h"
#include "pod/kind/task_kinds.h"

struct altstack {
	uint64_t sp;
	int32_t flags, pad;
	uint64_t size;
};

static int ask(struct dump *d, struct task *t, struct batch *b, uint64_t *cookie, struct err *e)
{
	(void)d;
	(void)t;
	(void)e;
	*cookie = batch_data(b, NULL, sizeof(struct altstack));
	batch_add2(b, SYS_sigaltstack, 0, *cookie);
	return 0;
}

static int take(struct dump *d, struct task *t, struct batch *b, uint64_t cookie, Pm__Proc *proc, Pm__Thread *th,
		struct err *e)
{
	const struct altstack *s = batch_local(b, cookie);

	(void)d;
	(void)t;
	(void)proc;
	(void)e;
	th->ss_sp = s->sp;
	th->ss_flags = (uint32_t)s->flags;
	th->ss_size = s->size;
	return 0;
}

static int give(struct restore *r, const Pm__Proc *proc, const Pm__Thread *th, struct batch *b, struct err *e)
{
	struct altstack s = { .sp = th->ss_sp, .flags = (int32_t)(th->ss_flags & ~(uint32_t)SS_ONSTACK),
			      .size = th->ss_size };

	(void)r;
	(void)proc;
	(void)e;
	/* "on the stack" is not settable: the kernel sees it by the stack pointer */
	if (!(th->ss_flags & SS_DISABLE))
		batch_add2(b, SYS_sigaltstack, batch_data(b, &s, sizeof(s)), 0);
	return 0;
}

const struct kind kind_altstack = { .name = "altstack", .type = 104, .version = 1, .min_version = 1,
				    .scope = KIND_THREAD, .ask = ask, .take = take, .give = give };
