/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Signal dispositions: read and put back inside, 64 calls of one batch (flags of a default are seen, too). */
#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/syscall.h>

#include "pod/dump.h"
#include "pod/kind/task_kinds.h"

#define NSIG_KERNEL 64
#define ACTION 32 /* the kernel's struct sigaction: handler, flags, restorer, mask */

static int ask(struct dump *d, struct task *t, struct batch *b, uint64_t *cookie, struct err *e)
{
	int sig;

	(void)d;
	(void)t;
	(void)e;
	*cookie = batch_data(b, NULL, NSIG_KERNEL * ACTION);
	for (sig = 1; sig <= NSIG_KERNEL; sig++)
		if (sig != SIGKILL && sig != SIGSTOP)
			batch_add4(b, SYS_rt_sigaction, sig, 0, *cookie + (uint64_t)(sig - 1) * ACTION, 8);
	return 0;
}

static int take(struct dump *d, struct task *t, struct batch *b, uint64_t cookie, Pm__Proc *proc, Pm__Thread *th,
		struct err *e)
{
	(void)t;
	(void)th;
	(void)e;
	proc->sigactions.len = NSIG_KERNEL * ACTION;
	proc->sigactions.data = dump_alloc(d, NSIG_KERNEL * ACTION);
	memcpy(proc->sigactions.data, batch_local(b, cookie), NSIG_KERNEL * ACTION);
	return 0;
}

static int give(struct restore *r, const Pm__Proc *proc, const Pm__Thread *th, struct batch *b, struct err *e)
{
	int sig;

	(void)r;
	(void)th;
	if (proc->sigactions.len != NSIG_KERNEL * ACTION)
		return err_set(e, EBADMSG, "signal dispositions of %zu bytes", proc->sigactions.len);
	for (sig = 1; sig <= NSIG_KERNEL; sig++) {
		const uint8_t *a = proc->sigactions.data + (sig - 1) * ACTION;

		if (sig == SIGKILL || sig == SIGSTOP)
			continue;
		batch_add4(b, SYS_rt_sigaction, sig, batch_data(b, a, ACTION), 0, 8);
	}
	return 0;
}

const struct kind kind_sigaction = { .name = "sigaction", .type = 101, .version = 1, .min_version = 1,
				     .scope = KIND_PROC, .ask = ask, .take = take, .give = give };
