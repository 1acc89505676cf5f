/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Small things that a task sets by prctl(2), and its program break: asked and given inside. */
#include <errno.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

#include "pod/dump.h"
#include "pod/kind/task_kinds.h"

/* ---- name of a thread */

static int ask_comm(struct dump *d, struct task *t, struct batch *b, uint64_t *cookie, struct err *e)
{
	(void)d;
	(void)t;
	(void)e;
	*cookie = batch_data(b, NULL, 16);
	batch_add2(b, SYS_prctl, PR_GET_NAME, *cookie);
	return 0;
}

static int take_comm(struct dump *d, struct task *t, struct batch *b, uint64_t cookie, Pm__Proc *proc,
		     Pm__Thread *th, struct err *e)
{
	(void)t;
	(void)proc;
	(void)e;
	th->comm = dump_alloc(d, 17);
	memcpy(th->comm, batch_local(b, cookie), 16);
	return 0;
}

static int give_comm(struct restore *r, const Pm__Proc *proc, const Pm__Thread *th, struct batch *b, struct err *e)
{
	char name[16] = { 0 };

	(void)r;
	(void)proc;
	(void)e;
	strncpy(name, th->comm, sizeof(name) - 1);
	batch_add2(b, SYS_prctl, PR_SET_NAME, batch_data(b, name, sizeof(name)));
	return 0;
}

const struct kind kind_comm = { .name = "comm", .type = 114, .version = 1, .min_version = 1,
				.scope = KIND_THREAD, .ask = ask_comm, .take = take_comm, .give = give_comm };

/* ---- pdeathsig and timer slack */

struct thread_prctl {
	int32_t pdeathsig, pad;
	uint64_t slack_entry;
};

static int ask_thread(struct dump *d, struct task *t, struct batch *b, uint64_t *cookie, struct err *e)
{
	struct thread_prctl p = { 0 };

	(void)d;
	(void)t;
	(void)e;
	p.slack_entry = batch_add1(b, SYS_prctl, PR_GET_TIMERSLACK);
	*cookie = batch_data(b, &p, sizeof(p));
	batch_add2(b, SYS_prctl, PR_GET_PDEATHSIG, *cookie);
	return 0;
}

static int take_thread(struct dump *d, struct task *t, struct batch *b, uint64_t cookie, Pm__Proc *proc,
		       Pm__Thread *th, struct err *e)
{
	const struct thread_prctl *p = batch_local(b, cookie);

	(void)d;
	(void)t;
	(void)proc;
	(void)e;
	th->pdeathsig = (uint32_t)p->pdeathsig;
	th->timer_slack = (uint64_t)b->e[p->slack_entry].ret;
	return 0;
}

static int give_thread(struct restore *r, const Pm__Proc *proc, const Pm__Thread *th, struct batch *b, struct err *e)
{
	(void)r;
	(void)proc;
	(void)e;
	if (th->timer_slack)
		batch_add2(b, SYS_prctl, PR_SET_TIMERSLACK, th->timer_slack);
	if (th->pdeathsig)
		batch_add2(b, SYS_prctl, PR_SET_PDEATHSIG, th->pdeathsig);
	return 0;
}

const struct kind kind_thread_prctl = { .name = "pdeathsig", .type = 115, .version = 1, .min_version = 1,
					.scope = KIND_THREAD, .ask = ask_thread, .take = take_thread,
					.give = give_thread };

/* ---- dumpable, subreaper, break of a process */

struct proc_prctl {
	int32_t subreaper, pad;
	uint64_t dumpable_entry, brk_entry;
};

static int ask_proc(struct dump *d, struct task *t, struct batch *b, uint64_t *cookie, struct err *e)
{
	struct proc_prctl p = { 0 };

	(void)d;
	(void)t;
	(void)e;
	p.dumpable_entry = batch_add1(b, SYS_prctl, PR_GET_DUMPABLE);
	p.brk_entry = batch_add1(b, SYS_brk, 0);
	*cookie = batch_data(b, &p, sizeof(p));
	batch_add2(b, SYS_prctl, PR_GET_CHILD_SUBREAPER, *cookie);
	return 0;
}

static int take_proc(struct dump *d, struct task *t, struct batch *b, uint64_t cookie, Pm__Proc *proc,
		     Pm__Thread *th, struct err *e)
{
	const struct proc_prctl *p = batch_local(b, cookie);

	(void)d;
	(void)t;
	(void)th;
	(void)e;
	proc->subreaper = p->subreaper;
	proc->mm->dumpable = (uint32_t)b->e[p->dumpable_entry].ret;
	proc->mm->brk = (uint64_t)b->e[p->brk_entry].ret;
	return 0;
}

static int give_proc(struct restore *r, const Pm__Proc *proc, const Pm__Thread *th, struct batch *b, struct err *e)
{
	(void)r;
	(void)th;
	(void)e;
	if (proc->subreaper)
		batch_add2(b, SYS_prctl, PR_SET_CHILD_SUBREAPER, 1);
	/* 2 (root only) cannot be set by prctl; 0 is what remains of it */
	batch_add2(b, SYS_prctl, PR_SET_DUMPABLE, proc->mm->dumpable == 1);
	return 0;
}

const struct kind kind_proc_prctl = { .name = "dumpable", .type = 116, .version = 1, .min_version = 1,
				      .scope = KIND_PROC, .ask = ask_proc, .take = take_proc, .give = give_proc };
