/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Attributes of a task that few programs set: I/O priority, personality, machine-check policy; of a
 * process: OOM score, transparent huge pages. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

#include "pod/base/io.h"
#include "pod/base/util.h"
#include "pod/dump.h"
#include "pod/kind/task_kinds.h"

#define IOPRIO_WHO_PROCESS 1
#define MCE_DEFAULT 2 /* PR_MCE_KILL_DEFAULT */

static int ask_thread(struct dump *d, struct task *t, struct batch *b, uint64_t *cookie, struct err *e)
{
	(void)d;
	(void)t;
	(void)e;
	*cookie = batch_add2(b, SYS_ioprio_get, IOPRIO_WHO_PROCESS, 0);
	batch_add1(b, SYS_personality, 0xffffffff);
	batch_add(b, SYS_prctl, PR_MCE_KILL_GET, 0, 0, 0, 0, 0);
	return 0;
}

static int take_thread(struct dump *d, struct task *t, struct batch *b, uint64_t cookie, Pm__Proc *proc,
		       Pm__Thread *th, struct err *e)
{
	(void)d;
	(void)t;
	(void)proc;
	(void)e;
	th->ioprio = (uint32_t)b->e[cookie].ret;
	th->personality = (uint32_t)b->e[cookie + 1].ret;
	th->mce_kill = (uint32_t)b->e[cookie + 2].ret;
	return 0;
}

static int give_thread(struct restore *r, const Pm__Proc *proc, const Pm__Thread *th, struct batch *b, struct err *e)
{
	(void)r;
	(void)proc;
	(void)e;
	/* class 0 is "by nice": what get says then is not what set takes */
	if (th->ioprio >> 13)
		batch_add3(b, SYS_ioprio_set, IOPRIO_WHO_PROCESS, 0, th->ioprio);
	if (th->personality)
		batch_add1(b, SYS_personality, th->personality);
	if (th->mce_kill != MCE_DEFAULT)
		batch_add(b, SYS_prctl, PR_MCE_KILL, PR_MCE_KILL_SET, th->mce_kill, 0, 0, 0);
	return 0;
}

const struct kind kind_attrs = { .name = "attrs", .type = 117, .version = 1, .min_version = 1, .scope = KIND_THREAD,
				 .ask = ask_thread, .take = take_thread, .give = give_thread };

static int ask_proc(struct dump *d, struct task *t, struct batch *b, uint64_t *cookie, struct err *e)
{
	(void)d;
	(void)t;
	(void)e;
	*cookie = batch_add(b, SYS_prctl, PR_GET_THP_DISABLE, 0, 0, 0, 0, 0);
	return 0;
}

static int take_proc(struct dump *d, struct task *t, struct batch *b, uint64_t cookie, Pm__Proc *proc,
		     Pm__Thread *th, struct err *e)
{
	autofree char *text = NULL;
	char path[48];
	int r;

	(void)d;
	(void)th;
	proc->thp_disable = b->e[cookie].ret == 1;
	snprintf(path, sizeof(path), "/proc/%d/oom_score_adj", t->tid);
	r = io_read_file(path, 64, &text, NULL, e);
	if (r < 0)
		return r;
	proc->oom_adj = (int32_t)strtol(text, NULL, 10);
	return 0;
}

static int give_proc(struct restore *r, const Pm__Proc *proc, const Pm__Thread *th, struct batch *b, struct err *e)
{
	(void)r;
	(void)th;
	(void)e;
	if (proc->thp_disable)
		batch_add(b, SYS_prctl, PR_SET_THP_DISABLE, 1, 0, 0, 0, 0);
	return 0; /* the OOM score is a file of /proc: written from outside, rtask.c */
}

const struct kind kind_proc_attrs = { .name = "proc-attrs", .type = 118, .version = 1, .min_version = 1,
				      .scope = KIND_PROC, .ask = ask_proc, .take = take_proc, .give = give_proc };
