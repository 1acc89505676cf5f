/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Reading the state of a pod's stopped tasks, and letting them go again. How they are stopped: stop.c.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/mman.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>

#include "pod/base/io.h"
#include "pod/base/log.h"
#include "pod/base/util.h"
#include "pod/dump.h"
#include "pod/mqnotify.h"
#include "pod/semundo.h"
#include "pod/sysv.h"
#include "pod/task/restart.h"

#define ATTACH_MS 300
#define MAX_DIGEST (1ull << 33)

/* ---- scratch and tracker */

static const struct vma *vma_of_type(const struct proc *p, enum vma_type type)
{
	size_t i;

	for (i = 0; i < p->vmas.n; i++)
		if (p->vmas.v[i].type == type)
			return &p->vmas.v[i];
	return NULL;
}

static const struct vma *scratch_vma(const struct dump *d, const struct proc *p)
{
	size_t i;

	for (i = 0; i < p->vmas.n; i++)
		if (dump_in_scratch(d->scratch, &p->vmas.v[i]))
			return &p->vmas.v[i];
	return NULL;
}

static int map_scratch(struct dump *d, struct task *t, uint64_t at, uint64_t len, int prot, struct err *e)
{
	const uint64_t args[6] = { at, len, (uint64_t)prot, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, (uint64_t)-1, 0 };
	int64_t ret;
	int r = task_syscall(t, SYS_mmap, args, &ret, e);

	if (r < 0 || ret == (int64_t)at)
		return r;
	if (at == d->scratch && ret == -EACCES && prot & PROT_WRITE) {
		/* nothing may be written and run there (PR_SET_MDWE): the loop in a page of its own */
		r = map_scratch(d, t, at, PAGE, PROT_READ | PROT_EXEC, e);
		return r < 0 ? r : map_scratch(d, t, at + PAGE, len - PAGE, PROT_READ | PROT_WRITE, e);
	}
	return err_num(e, (int)ret, "map the scratch");
}

static int ensure_scratch(struct dump *d, struct proc *p, struct err *e)
{
	const struct vma *vdso = vma_of_type(p, VMA_VDSO);
	struct task *t = proc_first(p);
	bool there = scratch_vma(d, p) != NULL;
	size_t i;
	int r;

	if (!vdso && !d->stopped)
		return err_set(e, ESRCH, "pid %d is on its way to another program", p->nspid);
	if (!vdso)
		return err_set(e, EOPNOTSUPP, "pid %d (%s): has no vdso", p->nspid, p->st.comm);
	for (i = 0; i < p->ntasks; i++)
		p->tasks[i]->sysinsn = vdso->start + d->vdso_syscall;
	if (p->scratch && there)
		return 0;
	if (p->scratch) { /* an exec since: what was opened belongs to memory that is gone */
		close_fdp(&p->memfd);
		close_fdp(&p->pagemap);
	}
	if (p->scratch && p->tracked) {
		tracker_done(&p->tr);
		p->tr.uffd = p->tr.pagemap = -1;
		p->tracked = false;
	}
	if (!there) {
		r = map_scratch(d, t, d->scratch, SCRATCH_LEN, PROT_READ | PROT_WRITE | PROT_EXEC, e);
		if (r < 0)
			return err_wrap(e, "pid %d (%s)", p->nspid, p->st.comm);
		r = task_repair(t, e);
		if (r < 0)
			return r;
	}
	p->scratch = d->scratch;
	return batch_install(p->tid, p->scratch, e);
}

static int take_uffd(struct dump *d, struct proc *p, struct err *e)
{
	struct task *t = proc_first(p);
	int64_t theirs;
	int fd, r;
	size_t i;

	batch_begin(d->b, p->scratch);
	batch_add1(d->b, SYS_userfaultfd, tracker_uffd_flags());
	r = batch_run(t, d->b, deadline_ms(1000), e);
	if (r < 0)
		return r;
	theirs = d->b->e[0].ret;
	if (theirs < 0)
		return err_num(e, (int)theirs, "pid %d (%s): userfaultfd", p->nspid, p->st.comm);
	fd = (int)syscall(SYS_pidfd_getfd, p->pidfd, (int)theirs, 0);
	r = fd < 0 ? err_sys(e, "pid %d: take the userfaultfd", p->nspid) : 0;
	batch_begin(d->b, p->scratch);
	batch_add1(d->b, SYS_close, theirs);
	if (batch_run(t, d->b, deadline_ms(1000), r < 0 ? NULL : e) < 0 || r < 0) {
		close_fdp(&fd);
		return r < 0 ? r : -EIO;
	}
	r = tracker_init(&p->tr, p->tid, fd, e);
	if (r < 0)
		return r;
	p->tracked = true;
	for (i = 0; i < p->vmas.n; i++) {
		const struct vma *v = &p->vmas.v[i];

		if (!dump_in_scratch(d->scratch, v) && !v->shared && (v->type == VMA_ANON || v->type == VMA_FILE ||
							     v->type == VMA_MEMFD))
			if (tracker_register(&p->tr, v, NULL) < 0)
				log_debug("pid %d: mapping %lx is not tracked", p->nspid, (unsigned long)v->start);
	}
	return 0;
}

/* Tasks that did not stop in time when they were asked to, and have since: they go on. */
void cut_let_go(struct dump *d)
{
	size_t i, k;

	for (i = 0; i < d->procs.n; i++)
		for (k = 0; k < d->procs.p[i]->ntasks; k++)
			if (d->procs.p[i]->tasks[k]->seized)
				task_release(d->procs.p[i]->tasks[k], NULL);
}

/* All threads of one running process stand still: nobody changes its mappings meanwhile. */
static int stop_proc(struct dump *d, struct proc *p, struct err *e)
{
	uint64_t left;
	uint32_t nr;
	size_t i;
	int r = proc_update_threads(p, e), lost = 0;

	for (i = 0; r >= 0 && i < p->ntasks; i++)
		restart_sample(p->tasks[i], p->pid);
	do {
		r = r < 0 ? r : stop_interrupt(p, e);
		if (r >= 0)
			r = lost = stop_wait(d, p, deadline_ms(ATTACH_MS), e);
		if (r >= 0)
			r = proc_update_threads(p, e);
	} while (r > 0 || (r == 0 && lost));
	if (r >= 0 && !proc_first(p)->stopped)
		r = err_set(e, ESRCH, "pid %d has ended", p->nspid);
	for (i = 0; r >= 0 && i < p->ntasks; i++)
		restart_take(p->tasks[i], &nr, &left);
	if (r >= 0)
		r = maps_read(p->tid, &p->vmas, e);
	if (r >= 0)
		proc_first(p)->nobatch = ((p->st.sig_pnd | p->st.shd_pnd) >> 22) & 1;
	return r;
}

int cut_attach(struct dump *d, struct proc *p, struct err *e)
{
	size_t i;
	int r;

	d->touched = true;
	r = stop_proc(d, p, e);

	if (r >= 0)
		r = ensure_scratch(d, p, e);
	if (r >= 0 && !p->tracked)
		r = take_uffd(d, p, e);
	if (r == -ETIMEDOUT && proc_first(p)->borrowed)
		r = -EIO; /* not one that is only slow to stop: a call in it hangs */
	for (i = 0; i < p->ntasks; i++)
		task_release(p->tasks[i], NULL);
	return r;
}

/* ---- state */

static Pm__Thread *new_thread(struct dump *d, struct task *t)
{
	Pm__Thread *th = dump_alloc(d, sizeof(*th));

	pm__thread__init(th);
	th->tid = (uint32_t)t->nstid;
	return th;
}

static void thread_regs(struct dump *d, struct task *t, Pm__Thread *th)
{
	th->gp.len = sizeof(t->regs);
	th->gp.data = memcpy(dump_alloc(d, sizeof(t->regs)), &t->regs, sizeof(t->regs));
	th->xstate.len = t->xlen;
	th->xstate.data = memcpy(dump_alloc(d, t->xlen), t->xstate, t->xlen);
	th->sigmask = t->sigmask;
}

static uint32_t exe_object(struct dump *d, struct proc *p)
{
	char path[48];
	struct stat st;
	size_t i;

	snprintf(path, sizeof(path), "/proc/%d/exe", p->tid);
	if (stat(path, &st) < 0)
		return 0;
	for (i = 0; i < d->nmapfiles; i++)
		if (d->mapfiles[i]->st.st_ino == st.st_ino && d->mapfiles[i]->st.st_dev == st.st_dev)
			return d->mapfiles[i]->id;
	for (i = 0; i < d->ncontents; i++)
		if (d->contents[i]->ino == st.st_ino)
			return d->contents[i]->id;
	return 0;
}

static bool needs_object(const struct vma *v)
{
	return v->type != VMA_ANON && v->type != VMA_VDSO && v->type != VMA_VVAR && v->type != VMA_VSYSCALL;
}

/*
 * The list of a running process may be torn (overlaps), and what is mapped may have gone since. Such a
 * mapping is in neither the landing zone nor the rounds: no page of it counts as sent before the cut.
 */
static void drop_unsure(struct dump *d, struct proc *p)
{
	bool *part = dump_alloc(d, p->vmas.n * sizeof(*part));
	uint64_t prev = 0;
	size_t i, n = 0;

	for (i = 0; i < p->vmas.n; i++)
		part[i] = p->vmas.v[i].type == VMA_SYSV && sysv_check_vma(d, &p->vmas, i, NULL) < 0;
	for (i = 0; i < p->vmas.n; i++) {
		const struct vma *v = &p->vmas.v[i];

		if (v->start < prev || part[i] || (needs_object(v) && !collect_vma_object(d, v)))
			continue;
		prev = v->end;
		p->vmas.v[n++] = *v;
	}
	p->vmas.n = n;
}

static int fill_mm(struct dump *d, struct proc *p, Pm__Proc *m, struct err *e)
{
	autofree char *auxv = NULL;
	Pm__Mm *mm = dump_alloc(d, sizeof(*mm));
	const uint64_t *s = p->st.mm;
	char path[48];
	size_t len, i;
	int r;

	pm__mm__init(mm);
	m->mm = mm;
	mm->start_code = s[0];
	mm->end_code = s[1];
	mm->start_data = s[2];
	mm->end_data = s[3];
	mm->start_brk = s[4];
	mm->start_stack = s[6];
	mm->arg_start = s[7];
	mm->arg_end = s[8];
	mm->env_start = s[9];
	mm->env_end = s[10];
	snprintf(path, sizeof(path), "/proc/%d/auxv", p->tid);
	r = io_read_file(path, 65536, &auxv, &len, e);
	if (r < 0)
		return r;
	mm->auxv.len = len;
	mm->auxv.data = memcpy(dump_alloc(d, len), auxv, len);
	if (!len)
		return -ESRCH; /* a process that is about to be a zombie has no memory */
	mm->exe = exe_object(d, p);
	if (!mm->exe && !d->stopped)
		return -ESRCH; /* an exec since its mappings were listed: the cut will see */
	if (!mm->exe)
		return err_set(e, EOPNOTSUPP, "pid %d (%s): its program file is not mapped", p->nspid, p->st.comm);
	mm->vmas = dump_alloc(d, p->vmas.n * sizeof(*mm->vmas));
	if (!d->stopped)
		drop_unsure(d, p);
	for (i = 0; i < p->vmas.n; i++) {
		const struct vma *v = &p->vmas.v[i];
		Pm__Vma *o;

		if (v->type == VMA_VSYSCALL || dump_in_scratch(d->scratch, v))
			continue;
		if (v->type == VMA_SYSV && sysv_check_vma(d, &p->vmas, i, e) < 0)
			return err_wrap(e, "pid %d (%s): mapping %lx-%lx '%s'", p->nspid, p->st.comm, (unsigned long)v->start,
					(unsigned long)v->end, v->name);
		o = dump_alloc(d, sizeof(*o));
		pm__vma__init(o);
		o->start = v->start;
		o->end = v->end;
		o->prot = (uint32_t)v->prot;
		o->shared = v->shared;
		o->type = v->type;
		o->pgoff = v->pgoff;
		o->flags = v->flags;
		o->name = dump_strdup(d, v->name);
		o->object = collect_vma_object(d, v);
		if (p->tracked && d->stopped && v->type == VMA_ANON && !v->shared)
			o->fresh = tracker_covers(&p->tr, v, NULL) == 0;
		if (!o->object && needs_object(v))
			return err_set(e, EOPNOTSUPP, "pid %d (%s): mapping %lx-%lx '%s' cannot be carried", p->nspid,
				       p->st.comm, (unsigned long)v->start, (unsigned long)v->end, v->name);
		mm->vmas[mm->n_vmas++] = o;
	}
	return 0;
}

/* The terminal that a session leader controls, and the group in its foreground by the pod's number. */
static void set_terminal(struct dump *d, struct proc *p, Pm__Proc *m)
{
	unsigned dev = (unsigned)p->st.tty_nr, major = (dev >> 8) & 0xfff;
	size_t i;

	if (p->zombie || p->st.sid != p->nspid || major < 136 || major > 143)
		return;
	m->tty = ((dev & 0xff) | ((dev >> 12) & 0xfff00)) + 1;
	for (i = 0; i < d->procs.n; i++)
		if (d->procs.p[i]->pid == p->st.tpgid_outer && d->procs.p[i]->st.pgid == d->procs.p[i]->nspid)
			m->tty_fg = d->procs.p[i]->nspid;
}

static Pm__Proc *new_proc(struct dump *d, struct proc *p)
{
	Pm__Proc *m = dump_alloc(d, sizeof(*m));
	size_t i;

	pm__proc__init(m);
	m->pid = (uint32_t)p->nspid;
	m->ppid = (uint32_t)p->nsppid;
	m->pgid = (uint32_t)p->st.pgid;
	m->sid = (uint32_t)p->st.sid;
	m->zombie = p->zombie;
	m->leader_dead = p->leaderless;
	m->exit_code = p->st.exit_code;
	m->exit_signal = (uint32_t)p->st.exit_signal + 1;
	m->comm = dump_strdup(d, p->st.comm);
	m->starttime = p->st.starttime;
	m->scratch = d->scratch;
	if (d->stopped && !p->zombie) {
		m->stop_signal = (uint32_t)proc_first(p)->stopsig;
		m->job_news = p->job_news;
	}
	set_terminal(d, p, m);
	if (!p->zombie) {
		m->threads = dump_alloc(d, p->ntasks * sizeof(*m->threads));
		for (i = 0; i < p->ntasks; i++)
			m->threads[m->n_threads++] = new_thread(d, p->tasks[i]);
	}
	return m;
}

/* A process whose parent has ended while we looked is left to the cut. */
static bool has_parent(const Pm__Tree *tree, const struct proc *p)
{
	size_t i;

	for (i = 0; i < tree->n_procs; i++)
		if (tree->procs[i]->pid == (uint32_t)p->nsppid)
			return true;
	return p->nspid == 1;
}

int cut_snapshot(struct dump *d, Pm__Tree *tree, struct err *e)
{
	size_t i;
	int r = 0;

	pm__tree__init(tree);
	tree->procs = dump_alloc(d, d->procs.n * sizeof(*tree->procs));
	for (i = 0; r >= 0 && i < d->procs.n; i++) {
		struct proc *p = d->procs.p[i];
		Pm__Proc *m;

		if (!has_parent(tree, p) || (!p->zombie && !p->ntasks))
			continue;
		m = new_proc(d, p);
		r = p->zombie ? 0 : fill_mm(d, p, m, e);
		if (r == -ENOENT || r == -ESRCH) {
			r = 0; /* it has ended meanwhile */
		} else if (r >= 0) {
			tree->procs[tree->n_procs++] = m;
			p->fresh = false;
		}
	}
	return r;
}

struct asked {
	const struct kind *k;
	uint64_t cookie;
};

static int ask_task(struct dump *d, struct proc *p, size_t ti, Pm__Proc *m, struct err *e)
{
	struct task *t = p->tasks[ti];
	Pm__Thread *th = m->threads[ti];
	struct asked asked[64];
	size_t nk, i, n = 0;
	const struct kind *const *kinds = kinds_all(&nk);
	int r = 0;

	batch_begin(d->b, p->scratch);
	for (i = 0; r >= 0 && i < nk; i++) {
		const struct kind *k = kinds[i];

		if (k->scope == KIND_FD || k->scope == KIND_POD || (k->scope == KIND_PROC && ti != 0) || n == ARRAY_SIZE(asked))
			continue;
		asked[n] = (struct asked){ k, 0 };
		if (k->ask)
			r = k->ask(d, t, d->b, &asked[n].cookie, e);
		n++;
	}
	if (r >= 0)
		r = batch_run(t, d->b, deadline_ms(2000), e);
	for (i = 0; r >= 0 && i < n; i++)
		if (asked[i].k->take) {
			r = asked[i].k->take(d, t, d->b, asked[i].cookie, m, th, e);
			if (r < 0)
				err_wrap(e, "pid %d (%s): %s", p->nspid, p->st.comm, asked[i].k->name);
		}
	return r;
}

static int proc_fds(struct dump *d, struct proc *p, Pm__Proc *m)
{
	size_t i;

	m->fds = dump_alloc(d, d->nfds * sizeof(*m->fds));
	for (i = 0; i < d->nfds; i++) {
		Pm__Fd *f;

		if (d->fds[i].nspid != p->nspid)
			continue;
		f = dump_alloc(d, sizeof(*f));
		pm__fd__init(f);
		f->fd = (uint32_t)d->fds[i].fdno;
		f->object = d->fds[i].o->id;
		f->cloexec = d->fds[i].cloexec;
		m->fds[m->n_fds++] = f;
	}
	return 0;
}

/* Ends of sleeps that engines on this node have noted. */
void cut_read_notes(struct dump *d)
{
	unsigned long long until, switches;
	autofree char *text = NULL;
	char path[PATH_MAX], *l;
	unsigned call;
	size_t i, k;
	int tid;

	snprintf(path, sizeof(path), "%s/" RESTART_NOTES, d->req->dir);
	if (io_read_file(path, 16 << 20, &text, NULL, NULL) < 0)
		return;
	for (l = text; l && *l; l = strchr(l, '\n') ? strchr(l, '\n') + 1 : NULL) {
		if (sscanf(l, "%d %llu %u %llu", &tid, &until, &call, &switches) != 4)
			continue;
		for (i = 0; i < d->procs.n; i++)
			for (k = 0; k < d->procs.p[i]->ntasks; k++)
				if (d->procs.p[i]->tasks[k]->nstid == tid)
					restart_noted(d->procs.p[i]->tasks[k], until, call, switches);
	}
}

/* The pod goes on here: so do the sleeps that were interrupted. */
static void write_notes(struct dump *d)
{
	char *text = NULL;
	size_t len = 0, i, k;
	uint64_t now = now_ns();
	FILE *f = open_memstream(&text, &len);

	for (i = 0; f && i < d->procs.n; i++)
		for (k = 0; k < d->procs.p[i]->ntasks; k++) {
			const struct task *t = d->procs.p[i]->tasks[k];

			if (t->left_until > now)
				fprintf(f, "%d %llu %u %llu\n", t->nstid, (unsigned long long)t->left_until, t->sleeps_in,
					(unsigned long long)t->until_switches);
		}
	if (f && fclose(f) == 0)
		restart_write_notes(d->req->dir, text, len);
	free(text);
}

/* Before the stop: afterwards nobody can say what a task was waiting for. */
void cut_sample(struct dump *d)
{
	size_t i, k;

	for (i = 0; i < d->procs.n; i++)
		for (k = 0; !d->procs.p[i]->zombie && k < d->procs.p[i]->ntasks; k++)
			restart_sample(d->procs.p[i]->tasks[k], d->procs.p[i]->pid);
}

/* For tests: what the target must find. After the last call in the process, which the kernel writes rseq areas for. */
static int add_digests(struct proc *p, Pm__Proc *m, struct err *e)
{
	char path[32];
	size_t i;

	if (!getenv("POD_VERIFY"))
		return 0;
	snprintf(path, sizeof(path), "/proc/%d/mem", p->tid);
	if (p->memfd < 0)
		p->memfd = open(path, O_RDONLY | O_CLOEXEC);
	if (p->memfd < 0)
		return err_sys(e, "open '%s'", path);
	for (i = 0; i < m->mm->n_vmas; i++) {
		Pm__Vma *v = m->mm->vmas[i];

		if (!v->shared && v->end - v->start < MAX_DIGEST && v->type != VMA_VVAR && v->type != VMA_VDSO)
			v->digest = mem_digest(p->memfd, v->start, v->end);
	}
	return 0;
}

/* What is made in all before anything is read in one. */
static int cut_begin(struct dump *d, struct proc *p, struct err *e)
{
	size_t i;
	int r = proc_refresh(p, e);

	for (i = 0; r >= 0 && i < p->ntasks; i++)
		p->tasks[i]->nobatch = ((p->st.sig_pnd | p->st.shd_pnd) >> 22) & 1;
	return r < 0 ? r : ensure_scratch(d, p, e);
}

static int cut_proc(struct dump *d, struct proc *p, Pm__Tree *tree, Pm__Proc **out, struct err *e)
{
	Pm__Proc *m = new_proc(d, p);
	size_t i;
	int r;

	*out = m;
	if (p->zombie)
		return 0;
	r = fill_mm(d, p, m, e);
	for (i = 0; r >= 0 && i < p->ntasks; i++) {
		restart_take(p->tasks[i], &m->threads[i]->restart, &m->threads[i]->restart_left_ns);
		r = ask_task(d, p, i, m, e);
		if (r >= 0)
			thread_regs(d, p->tasks[i], m->threads[i]);
	}
	if (r >= 0)
		r = advice_policies(d, p, m->mm, e);
	if (r >= 0)
		r = seccomp_take(d, p, tree, m, e);
	if (r >= 0)
		r = semundo_take(d, p, m, e);
	if (r >= 0)
		r = mqnotify_take(d, p, m, e);
	if (r >= 0)
		r = add_digests(p, m, e);
	return r < 0 ? r : proc_fds(d, p, m);
}

int cut_tasks(struct dump *d, Pm__Tree *tree, struct err *e)
{
	size_t i;
	int r = 0;

	pm__tree__init(tree);
	tree->procs = dump_alloc(d, d->procs.n * sizeof(*tree->procs));
	for (i = 0; r >= 0 && i < d->procs.n; i++)
		if (!d->procs.p[i]->zombie)
			r = cut_begin(d, d->procs.p[i], e);
	if (r >= 0)
		r = jobs_settle(d, e);
	if (r >= 0)
		r = jobs_take(d, e);
	for (i = 0; r >= 0 && i < d->procs.n; i++) {
		r = cut_proc(d, d->procs.p[i], tree, &tree->procs[i], e);
		if (r >= 0)
			tree->n_procs++;
	}
	return r;
}

/* ---- letting go */

int cut_release(struct dump *d, struct err *e)
{
	size_t i, k;
	int r = 0;

	for (i = 0; i < d->procs.n; i++)
		for (k = 0; k < d->procs.p[i]->ntasks; k++) {
			int q = task_release(d->procs.p[i]->tasks[k], e);

			r = r < 0 ? r : q;
		}
	return r;
}

/* The last call made in a process: nothing of ours stays in its memory. */
static void drop_scratch(struct dump *d, struct proc *p)
{
	const uint64_t args[6] = { p->scratch, SCRATCH_LEN };
	struct task *t = proc_first(p);
	int64_t ret;
	size_t i;

	(void)d;
	if (!p->scratch)
		return;
	/* a batch that was given up may still run: its end is waited for, or the scratch stays */
	for (i = 0; i < p->ntasks; i++) {
		struct task *b = p->tasks[i];
		int status;

		if (b->seized && b->borrowed && !b->stopped &&
		    (task_wait(b, &status, deadline_ms(2000), NULL) < 0 || task_repair(b, NULL) < 0))
			return;
	}
	if (!t->stopped) {
		if (task_seize(t, NULL) < 0 || task_interrupt(t, NULL) < 0 ||
		    task_wait_stopped(t, deadline_ms(500), NULL) < 0 || task_save(t, NULL) < 0)
			return;
		restart_saw(t);
	}
	if (t->borrowed)
		task_repair(t, NULL);
	if (t->sysinsn)
		task_syscall(t, SYS_munmap, args, &ret, NULL);
	p->scratch = 0;
}

void cut_undo(struct dump *d)
{
	size_t i;

	for (i = 0; i < d->procs.n; i++) {
		struct proc *p = d->procs.p[i];

		if (p->zombie || !p->ntasks)
			continue;
		drop_scratch(d, p);
		if (!d->stopped)
			task_release(proc_first(p), NULL);
	}
	cut_release(d, NULL);
	d->stopped = false;
	if (!d->started_ns)
		d->started_ns = now_ns();
	if (d->touched)
		write_notes(d);
	/* it takes milliseconds for a big memory, and nobody stands still for it */
	for (i = 0; i < d->procs.n; i++) {
		struct proc *p = d->procs.p[i];

		if (!p->tracked)
			continue;
		tracker_done(&p->tr);
		p->tr.uffd = p->tr.pagemap = -1;
		p->tracked = false;
	}
}
