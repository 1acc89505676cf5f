/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Attributes of a task that few programs set: I/O priority, personality, machine-check policy, memory
 * policy, the time stamp counter, mitigations of speculation; of a process: OOM score, core dump filter,
 * transparent huge pages, merging, memory that is locked from the start, PR_SET_MDWE.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

#include "pod/base/io.h"
#include "pod/base/kernel.h"
#include "pod/base/util.h"
#include "pod/dump.h"
#include "pod/kind/task_kinds.h"

#define IOPRIO_WHO_PROCESS 1
#define MCE_DEFAULT 2 /* PR_MCE_KILL_DEFAULT */

#define SPECS 3 /* PR_SPEC_STORE_BYPASS and the next two */

struct thread_attrs {
	int32_t tsc, mode;
	uint64_t nodes;
};

static int ask_thread(struct dump *d, struct task *t, struct batch *b, uint64_t *cookie, struct err *e)
{
	unsigned i, first = b->n;
	uint64_t at;

	(void)d;
	(void)t;
	(void)e;
	batch_add2(b, SYS_ioprio_get, IOPRIO_WHO_PROCESS, 0);
	batch_add1(b, SYS_personality, 0xffffffff);
	batch_add(b, SYS_prctl, PR_MCE_KILL_GET, 0, 0, 0, 0, 0);
	for (i = 0; i < SPECS; i++)
		batch_add(b, SYS_prctl, PR_GET_SPECULATION_CTRL, i, 0, 0, 0, 0);
	at = batch_data(b, NULL, sizeof(struct thread_attrs));
	batch_add2(b, SYS_prctl, PR_GET_TSC, at + offsetof(struct thread_attrs, tsc));
	batch_add(b, SYS_get_mempolicy, at + offsetof(struct thread_attrs, mode), at + offsetof(struct thread_attrs, nodes),
		  KIND_NODES + 1, 0, 0, 0);
	*cookie = (uint64_t)first << 32 | (at - b->scratch);
	return 0;
}

static int take_thread(struct dump *d, struct task *t, struct batch *b, uint64_t cookie, Pm__Proc *proc,
		       Pm__Thread *th, struct err *e)
{
	const struct batch_entry *en = &b->e[cookie >> 32];
	const struct thread_attrs *a = batch_local(b, b->scratch + (uint32_t)cookie);
	unsigned i;

	(void)t;
	(void)proc;
	(void)e;
	th->ioprio = (uint32_t)en[0].ret;
	th->personality = (uint32_t)en[1].ret;
	th->mce_kill = (uint32_t)en[2].ret;
	for (i = 0; i < SPECS; i++)
		if (en[3 + i].ret > 0)
			th->spec |= (uint32_t)(en[3 + i].ret & 0xff) << 8 * i;
	th->no_tsc = a->tsc == PR_TSC_SIGSEGV;
	if (en[4 + SPECS].ret == 0 && a->mode) {
		th->policy_mem = (uint32_t)a->mode;
		th->nodes.len = sizeof(a->nodes);
		th->nodes.data = memcpy(dump_alloc(d, sizeof(a->nodes)), &a->nodes, sizeof(a->nodes));
	}
	return 0;
}

static int give_thread(struct restore *r, const Pm__Proc *proc, const Pm__Thread *th, struct batch *b, struct err *e)
{
	const uint32_t off = PR_SPEC_DISABLE | PR_SPEC_FORCE_DISABLE | PR_SPEC_DISABLE_NOEXEC;
	unsigned i;

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
	for (i = 0; i < SPECS; i++)
		if ((th->spec >> 8 * i & PR_SPEC_PRCTL) && (th->spec >> 8 * i & off))
			batch_add(b, SYS_prctl, PR_SET_SPECULATION_CTRL, i, th->spec >> 8 * i & off, 0, 0, 0);
	if (th->policy_mem && th->nodes.len == 8) /* may fail where there are fewer nodes: rtask.c */
		batch_add3(b, SYS_set_mempolicy, th->policy_mem, batch_data(b, th->nodes.data, 8), KIND_NODES + 1);
	if (th->no_tsc)
		batch_add2(b, SYS_prctl, PR_SET_TSC, PR_TSC_SIGSEGV);
	return 0;
}

const struct kind kind_attrs = { .name = "attrs", .type = 117, .version = 1, .min_version = 1, .scope = KIND_THREAD,
				 .ask = ask_thread, .take = take_thread, .give = give_thread };

/* Is what it maps from now on locked? Seen at a page that is mapped to see it. */
static void ask_lock_future(struct dump *d, struct batch *b)
{
	uint64_t at = d->scratch + SCRATCH_LEN; /* kept free, collect.c */

	batch_add(b, SYS_mmap, at, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, (uint64_t)-1, 0);
	batch_add3(b, SYS_msync, at, PAGE, MS_ASYNC | MS_INVALIDATE); /* EBUSY: locked */
	batch_add3(b, SYS_mincore, at, PAGE, batch_data(b, NULL, 1));
	batch_add2(b, SYS_munmap, at, PAGE);
}

static uint32_t lock_future(struct batch *b, const struct batch_entry *en)
{
	if (en[0].ret == -EAGAIN) /* more than may be locked */
		return MCL_FUTURE;
	if (en[0].ret < 0 || en[1].ret != -EBUSY)
		return 0;
	return *(uint8_t *)batch_local(b, en[2].arg[2]) & 1 ? MCL_FUTURE : MCL_FUTURE | MCL_ONFAULT;
}

static int ask_proc(struct dump *d, struct task *t, struct batch *b, uint64_t *cookie, struct err *e)
{
	(void)t;
	(void)e;
	*cookie = batch_add(b, SYS_prctl, PR_GET_THP_DISABLE, 0, 0, 0, 0, 0);
	batch_add(b, SYS_prctl, PR_GET_MDWE, 0, 0, 0, 0, 0);
	batch_add(b, SYS_prctl, PR_GET_MEMORY_MERGE, 0, 0, 0, 0, 0);
	ask_lock_future(d, b);
	return 0;
}

static int read_number(pid_t pid, const char *name, int base, long *out, struct err *e)
{
	autofree char *text = NULL;
	char path[48];
	int r;

	snprintf(path, sizeof(path), "/proc/%d/%s", pid, name);
	r = io_read_file(path, 64, &text, NULL, e);
	if (r >= 0)
		*out = strtol(text, NULL, base);
	return r;
}

/* "/autogroup-7 nice 5"; nothing for the first session, no file for a kernel without autogroups. */
static int32_t autogroup_of(pid_t pid)
{
	autofree char *text = NULL;
	char path[48];
	int nice;

	snprintf(path, sizeof(path), "/proc/%d/autogroup", pid);
	if (io_read_file(path, 64, &text, NULL, NULL) < 0 || sscanf(text, "%*s nice %d", &nice) != 1)
		return 0;
	return nice;
}

static int take_proc(struct dump *d, struct task *t, struct batch *b, uint64_t cookie, Pm__Proc *proc,
		     Pm__Thread *th, struct err *e)
{
	const struct batch_entry *en = &b->e[cookie];
	long oom, filter;
	int r;

	(void)d;
	(void)th;
	if (en[0].ret > 0) {
		proc->thp_disable = en[0].ret & 1;
		proc->thp_flags = (uint32_t)en[0].ret & ~1u;
	}
	if (en[1].ret > 0)
		proc->mm->mdwe = (uint32_t)en[1].ret;
	proc->mm->ksm = en[2].ret == 1;
	proc->mm->lock_future = lock_future(b, en + 3);
	r = read_number(t->tid, "oom_score_adj", 10, &oom, e);
	if (r >= 0)
		r = read_number(t->tid, "coredump_filter", 16, &filter, e);
	if (r < 0)
		return r;
	proc->oom_adj = (int32_t)oom;
	if (proc->sid == proc->pid) /* all of a session share it, and nobody can have another's */
		proc->autogroup = autogroup_of(t->tid);
	proc->core_filter = (uint32_t)filter + 1;
	return 0;
}

static int give_proc(struct restore *r, const Pm__Proc *proc, const Pm__Thread *th, struct batch *b, struct err *e)
{
	(void)r;
	(void)th;
	(void)e;
	if (proc->thp_disable)
		batch_add(b, SYS_prctl, PR_SET_THP_DISABLE, 1, proc->thp_flags, 0, 0, 0);
	if (proc->mm->mdwe)
		batch_add(b, SYS_prctl, PR_SET_MDWE, proc->mm->mdwe, 0, 0, 0, 0);
	return 0; /* OOM score and core dump filter are files of /proc: written from outside, rtask.c; the rest: advice.c */
}

const struct kind kind_proc_attrs = { .name = "proc-attrs", .type = 118, .version = 1, .min_version = 1,
				      .scope = KIND_PROC, .ask = ask_proc, .take = take_proc, .give = give_proc };
