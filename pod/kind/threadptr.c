/* SPDX-License-Identifier: GPL-3.0-or-later */
/* What a thread has told the kernel about its own memory: clear_child_tid, robust list, rseq. */
#include <errno.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include "pod/dump.h"
#include "pod/kind/task_kinds.h"

#ifndef PR_GET_TID_ADDRESS
#define PR_GET_TID_ADDRESS 40
#endif

/* ---- clear_child_tid */

static int ask_tid(struct dump *d, struct task *t, struct batch *b, uint64_t *cookie, struct err *e)
{
	(void)d;
	(void)t;
	(void)e;
	*cookie = batch_data(b, NULL, 8);
	batch_add2(b, SYS_prctl, PR_GET_TID_ADDRESS, *cookie);
	return 0;
}

static int take_tid(struct dump *d, struct task *t, struct batch *b, uint64_t cookie, Pm__Proc *proc,
		    Pm__Thread *th, struct err *e)
{
	(void)d;
	(void)t;
	(void)proc;
	(void)e;
	memcpy(&th->clear_tid, batch_local(b, cookie), 8);
	return 0;
}

static int give_tid(struct restore *r, const Pm__Proc *proc, const Pm__Thread *th, struct batch *b, struct err *e)
{
	(void)r;
	(void)proc;
	(void)e;
	batch_add1(b, SYS_set_tid_address, th->clear_tid);
	return 0;
}

const struct kind kind_tidaddr = { .name = "clear-child-tid", .type = 105, .version = 1, .min_version = 1,
				   .scope = KIND_THREAD, .ask = ask_tid, .take = take_tid, .give = give_tid };

/* ---- robust futex list */

static int take_robust(struct dump *d, struct task *t, struct batch *b, uint64_t cookie, Pm__Proc *proc,
		       Pm__Thread *th, struct err *e)
{
	uint64_t head = 0;
	size_t len = 0;

	(void)d;
	(void)b;
	(void)cookie;
	(void)proc;
	if (syscall(SYS_get_robust_list, t->tid, &head, &len) < 0)
		return err_sys(e, "read the robust list");
	th->robust_head = head;
	th->robust_len = len;
	return 0;
}

static int give_robust(struct restore *r, const Pm__Proc *proc, const Pm__Thread *th, struct batch *b,
		       struct err *e)
{
	(void)r;
	(void)proc;
	(void)e;
	if (th->robust_head)
		batch_add2(b, SYS_set_robust_list, th->robust_head, th->robust_len);
	return 0;
}

const struct kind kind_robust = { .name = "robust-list", .type = 106, .version = 1, .min_version = 1,
				  .scope = KIND_THREAD, .take = take_robust, .give = give_robust };

/* ---- rseq: a thread inside a critical section has been sent to its abort handler by task_save() */

struct rseq_config {
	uint64_t ptr;
	uint32_t size, sig, flags, pad;
};

static int take_rseq(struct dump *d, struct task *t, struct batch *b, uint64_t cookie, Pm__Proc *proc,
		     Pm__Thread *th, struct err *e)
{
	struct rseq_config c = { 0 };

	(void)d;
	(void)b;
	(void)cookie;
	(void)proc;
	if (ptrace((enum __ptrace_request)0x420f, t->tid, sizeof(c), &c) < 0)
		return err_sys(e, "read the rseq registration");
	th->rseq = c.ptr;
	th->rseq_len = c.size;
	th->rseq_sig = c.sig;
	th->rseq_flags = c.flags;
	return 0;
}

static int give_rseq(struct restore *r, const Pm__Proc *proc, const Pm__Thread *th, struct batch *b, struct err *e)
{
	(void)r;
	(void)proc;
	(void)e;
	if (th->rseq)
		batch_add4(b, SYS_rseq, th->rseq, th->rseq_len, th->rseq_flags, th->rseq_sig);
	return 0;
}

const struct kind kind_rseq = { .name = "rseq", .type = 107, .version = 1, .min_version = 1,
				.scope = KIND_THREAD, .take = take_rseq, .give = give_rseq };
