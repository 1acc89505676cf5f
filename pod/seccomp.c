/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Seccomp: strict mode, and filters of each thread, the oldest first.
 *
 * The engine's calls inside are made with filters suspended (PTRACE_O_SUSPEND_SECCOMP), which is set when a task
 * stands still and ends with the tracer: the program itself runs no instruction without its filters. What runs
 * when no tracer is there would meet them, so a process with a filter cannot let go of file locks by itself.
 *
 * Filters are installed before the credentials are given, since it takes no_new_privs or a capability that the
 * program may have dropped after it installed them. If all threads have the same ones, one installs them for
 * all, as with SECCOMP_FILTER_FLAG_TSYNC: they can be synchronized again later. The kernel checks the programs;
 * a filter only ever takes away. What a thread's filters did to its speculation is an attribute of its own.
 */
#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>

#include "pod/base/io.h"
#include "pod/base/kernel.h"
#include "pod/base/util.h"
#include "pod/dump.h"
#include "pod/restore.h"

#define CALL_MS 5000

#define REFUSE(e, ...) err_set(e, EOPNOTSUPP, __VA_ARGS__)

/* ---- source */

int seccomp_check(const struct proc *p, struct err *e)
{
	if (p->st.seccomp && prctl(PR_GET_SECCOMP, 0, 0, 0, 0) != 0)
		return REFUSE(e, "pid %d (%s): has a seccomp filter, and so has this node's engine: cannot be carried", p->nspid,
			      p->st.comm);
	return 0;
}

/* The index of the program in the tree, where each stands once. */
static int intern(struct dump *d, Pm__Tree *tree, const void *prog, size_t len, uint32_t flags, uint32_t *out, struct err *e)
{
	Pm__Filter *f, **nf;
	size_t i;

	for (i = 0; i < tree->n_filters; i++) {
		f = tree->filters[i];
		if (f->flags == flags && f->prog.len == len && !memcmp(f->prog.data, prog, len))
			break;
	}
	*out = (uint32_t)i;
	if (i < tree->n_filters)
		return 0;
	if (i >= SECCOMP_MAX_FILTERS * 16)
		return REFUSE(e, "more than %d seccomp filters", SECCOMP_MAX_FILTERS * 16);
	nf = dump_alloc(d, (i + 1) * sizeof(*nf));
	if (i)
		memcpy(nf, tree->filters, i * sizeof(*nf));
	f = nf[i] = dump_alloc(d, sizeof(*f));
	pm__filter__init(f);
	f->flags = flags;
	f->prog.len = len;
	f->prog.data = memcpy(dump_alloc(d, len), prog, len);
	tree->filters = nf;
	tree->n_filters = i + 1;
	return 0;
}

static int take_filters(struct dump *d, struct task *t, Pm__Tree *tree, Pm__Thread *th, struct err *e)
{
	static struct sock_filter prog[BPF_MAXINSNS];
	uint32_t list[SECCOMP_MAX_FILTERS];
	struct filter_metadata meta;
	long n;
	int r = 0;

	while (r >= 0) {
		n = ptrace((enum __ptrace_request)PTRACE_SECCOMP_GET_FILTER, t->tid, (void *)th->n_filters, prog);
		if (n < 0 && errno == ENOENT)
			break;
		meta = (struct filter_metadata){ .filter_off = th->n_filters };
		if (n < 0 || ptrace((enum __ptrace_request)PTRACE_GET_FILTER_METADATA, t->tid, (void *)sizeof(meta), &meta) < 0)
			return REFUSE(e, "thread %d has a seccomp filter that cannot be read (%s)", t->nstid, strerror(errno));
		if (th->n_filters == SECCOMP_MAX_FILTERS)
			return REFUSE(e, "thread %d has more than %d seccomp filters", t->nstid, SECCOMP_MAX_FILTERS);
		r = intern(d, tree, prog, (size_t)n * sizeof(prog[0]), (uint32_t)meta.flags, &list[th->n_filters++], e);
	}
	th->filters = dump_alloc(d, th->n_filters * sizeof(*th->filters));
	memcpy(th->filters, list, th->n_filters * sizeof(*th->filters));
	return r;
}

int seccomp_take(struct dump *d, struct proc *p, Pm__Tree *tree, Pm__Proc *m, struct err *e)
{
	size_t i;
	int r = 0;

	for (i = 0; r >= 0 && i < p->ntasks; i++) {
		m->threads[i]->seccomp = (uint32_t)p->tasks[i]->seccomp;
		if (p->tasks[i]->seccomp == SECCOMP_MODE_FILTER)
			r = take_filters(d, p->tasks[i], tree, m->threads[i], e);
	}
	return r < 0 ? err_wrap(e, "pid %d (%s)", p->nspid, p->st.comm) : 0;
}

/* ---- target */

static bool same_filters(const Pm__Thread *a, const Pm__Thread *b)
{
	return a->seccomp == b->seccomp && a->n_filters == b->n_filters &&
	       (!a->n_filters || !memcmp(a->filters, b->filters, a->n_filters * sizeof(a->filters[0])));
}

static int run(struct restore *r, struct task *t, struct err *e)
{
	unsigned i;
	int q = batch_run(t, r->b, deadline_ms(CALL_MS), e);

	for (i = 0; q >= 0 && i < r->b->n; i++)
		if (r->b->e[i].ret) /* a number is that of a thread that is in the way */
			q = err_num(e, r->b->e[i].ret < 0 ? (int)r->b->e[i].ret : -EINVAL, "install a seccomp filter");
	batch_begin(r->b, r->scratch);
	return q;
}

static int install(struct restore *r, struct task *t, const Pm__Thread *th, uint32_t sync, struct err *e)
{
	size_t i;
	int q = 0;

	batch_begin(r->b, r->scratch);
	if (th->seccomp == SECCOMP_MODE_STRICT)
		batch_add(r->b, SYS_prctl, PR_SET_SECCOMP, SECCOMP_MODE_STRICT, 0, 0, 0, 0);
	for (i = 0; q >= 0 && i < th->n_filters; i++) {
		const Pm__Filter *f = r->tree->filters[th->filters[i]];
		struct sock_fprog prog = { .len = (unsigned short)(f->prog.len / sizeof(struct sock_filter)) };

		if (r->b->used + f->prog.len + 64 > BATCH_DATA || r->b->n == BATCH_MAX)
			q = run(r, t, e);
		prog.filter = (void *)batch_data(r->b, f->prog.data, f->prog.len);
		batch_add3(r->b, SYS_seccomp, SECCOMP_SET_MODE_FILTER, f->flags | SECCOMP_FILTER_FLAG_SPEC_ALLOW | sync,
			   batch_data(r->b, &prog, sizeof(prog)));
	}
	return q < 0 ? q : run(r, t, e);
}

long seccomp_options(const Pm__Proc *w)
{
	long options = PTRACE_O_TRACESYSGOOD | PTRACE_O_EXITKILL;
	size_t i;

	for (i = 0; i < w->n_threads; i++)
		if (w->threads[i]->seccomp)
			options |= PTRACE_O_SUSPEND_SECCOMP;
	return options;
}

int seccomp_give(struct restore *r, struct rproc *p, struct err *e)
{
	const Pm__Proc *w = p->want;
	bool same = true, any = seccomp_options(w) & PTRACE_O_SUSPEND_SECCOMP;
	size_t i;
	int q = 0;

	for (i = 0; i < w->n_threads; i++)
		same = same && same_filters(w->threads[0], w->threads[i]);
	for (i = 0; any && q >= 0 && i < p->ntasks; i++)
		if (ptrace(PTRACE_SETOPTIONS, p->tasks[i]->tid, NULL, (void *)seccomp_options(w)) < 0)
			q = err_sys(e, "suspend seccomp");
	if (same && any && w->n_threads > 1 && w->threads[0]->seccomp == SECCOMP_MODE_FILTER) {
		if (q >= 0)
			q = install(r, p->tasks[0], w->threads[0], SECCOMP_FILTER_FLAG_TSYNC, e);
	} else {
		for (i = 0; any && q >= 0 && i < w->n_threads; i++) {
			struct task *t = rproc_task(p, (pid_t)w->threads[i]->tid);

			q = t ? install(r, t, w->threads[i], 0, e) : err_set(e, EIO, "thread %u was not made", w->threads[i]->tid);
		}
	}
	return q < 0 ? err_wrap(e, "pid %d (%s)", p->nspid, w->comm) : 0;
}
