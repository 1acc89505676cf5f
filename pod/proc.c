/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "pod/proc.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "pod/base/io.h"
#include "pod/base/kernel.h"
#include "pod/base/util.h"

#define LOOKS 20 /* at a thread that ends */
#define TRIES 100 /* of listing a process whose threads come and go */

/* ---- stat and status */

static uint64_t last_number(const char *s)
{
	uint64_t v = 0;

	while (*s && *s != '\n') {
		char *end;

		v = strtoull(s, &end, 10);
		if (end == s)
			break;
		s = end;
		while (*s == ' ' || *s == '\t')
			s++;
	}
	return v;
}

static unsigned count_numbers(const char *s)
{
	unsigned n = 0;

	while (*s && *s != '\n') {
		while (*s == ' ' || *s == '\t')
			s++;
		if (isdigit((unsigned char)*s))
			n++;
		while (isdigit((unsigned char)*s))
			s++;
	}
	return n;
}

static void four(const char *s, uint32_t out[4])
{
	char *end;
	int i;

	for (i = 0; i < 4; i++, s = end)
		out[i] = (uint32_t)strtoul(s, &end, 10);
}

static void groups(const char *s, struct proc_status *o)
{
	o->ngroups = 0;
	while (*s && *s != '\n' && o->ngroups < MAX_GROUPS) {
		char *end;
		unsigned long v = strtoul(s, &end, 10);

		if (end == s)
			break;
		o->groups[o->ngroups++] = (uint32_t)v;
		s = end;
		while (*s == ' ' || *s == '\t')
			s++;
	}
}

static void status_line(const char *l, struct proc_status *o)
{
	static const char *const caps[] = { "CapInh:", "CapPrm:", "CapEff:", "CapBnd:", "CapAmb:" };
	size_t i;

#define IS(k) (!strncmp(l, k, sizeof(k) - 1) && (l += sizeof(k) - 1))
	for (i = 0; i < ARRAY_SIZE(caps); i++)
		if (!strncmp(l, caps[i], 7)) {
			o->cap[i] = strtoull(l + 7, NULL, 16);
			return;
		}
	if (IS("Umask:"))
		o->umask = (uint32_t)strtoul(l, NULL, 8);
	else if (IS("TracerPid:"))
		o->tracer = (pid_t)strtol(l, NULL, 10);
	else if (IS("Uid:"))
		four(l, o->uid);
	else if (IS("Gid:"))
		four(l, o->gid);
	else if (IS("Groups:"))
		groups(l, o);
	else if (IS("NSpid:")) {
		o->nspid = (pid_t)last_number(l);
		o->ns_depth = count_numbers(l);
	} else if (IS("NSpgid:"))
		o->pgid = (pid_t)last_number(l);
	else if (IS("NSsid:"))
		o->sid = (pid_t)last_number(l);
	else if (IS("SigPnd:"))
		o->sig_pnd = strtoull(l, NULL, 16);
	else if (IS("ShdPnd:"))
		o->shd_pnd = strtoull(l, NULL, 16);
	else if (IS("NoNewPrivs:"))
		o->no_new_privs = (int)strtol(l, NULL, 10);
	else if (IS("Seccomp:"))
		o->seccomp = (int)strtol(l, NULL, 10);
#undef IS
}

/* Fields of stat after the command's name, counted as proc(5) does. */
static int parse_stat(char *text, struct proc_status *o)
{
	char *open = strchr(text, '('), *close = strrchr(text, ')');
	int field = 2;
	char *p;

	if (!open || !close || close < open)
		return -EPROTO;
	snprintf(o->comm, sizeof(o->comm), "%.*s", (int)(close - open - 1), open + 1);
	for (p = close + 1; *p;) {
		uint64_t v;

		while (*p == ' ')
			p++;
		if (!*p || *p == '\n')
			break;
		field++;
		if (field == 3)
			o->state = *p;
		v = strtoull(p, NULL, 10); /* negative ones wrap and are cast back */
		switch (field) {
		case 4: o->ppid_outer = (pid_t)v; break;
		case 7: o->tty_nr = (int)v; break;
		case 8: o->tpgid_outer = (int)v; break;
		case 20: o->nthreads = (unsigned)v; break;
		case 22: o->starttime = v; break;
		case 26: o->mm[0] = v; break;
		case 27: o->mm[1] = v; break;
		case 28: o->mm[6] = v; break;
		case 38: o->exit_signal = (int)v; break;
		case 45: o->mm[2] = v; break;
		case 46: o->mm[3] = v; break;
		case 47: o->mm[4] = v; break;
		case 48: o->mm[7] = v; break;
		case 49: o->mm[8] = v; break;
		case 50: o->mm[9] = v; break;
		case 51: o->mm[10] = v; break;
		case 52: o->exit_code = (uint32_t)v; break;
		default: break;
		}
		while (*p && *p != ' ')
			p++;
	}
	return field >= 52 ? 0 : -EPROTO;
}

int proc_read_status(pid_t pid, pid_t tid, struct proc_status *out, struct err *e)
{
	char path[64];
	autofree char *stat = NULL;
	autofree char *status = NULL;
	char *l;
	int r;

	memset(out, 0, sizeof(*out));
	if (tid)
		snprintf(path, sizeof(path), "/proc/%d/task/%d/stat", pid, tid);
	else
		snprintf(path, sizeof(path), "/proc/%d/stat", pid);
	r = io_read_file(path, 65536, &stat, NULL, e);
	if (r < 0)
		return r == -ENOENT ? err_set(e, ESRCH, "pid %d is gone", pid) : r;
	r = parse_stat(stat, out);
	if (r < 0)
		return err_num(e, r, "parse '%s'", path);
	strcat(path, "us");
	r = io_read_file(path, 65536, &status, NULL, e);
	if (r < 0)
		return r == -ENOENT ? err_set(e, ESRCH, "pid %d is gone", pid) : r;
	for (l = status; l && *l; l = strchr(l, '\n') ? strchr(l, '\n') + 1 : NULL)
		status_line(l, out);
	return 0;
}

/* ---- the list */

bool proc_differs(pid_t a, pid_t b, int type, bool still)
{
	const struct timespec ts = { 0, 1000000 };
	int i;

	for (i = 0; i < LOOKS; i++) {
		if (syscall(SYS_kcmp, a, b, type, 0, 0) <= 0)
			return false;
		if (still)
			return true;
		nanosleep(&ts, NULL);
	}
	return true;
}

struct proc *proc_by_outer(const struct proc_list *list, pid_t pid)
{
	size_t i;

	for (i = 0; i < list->n; i++)
		if (list->p[i]->pid == pid)
			return list->p[i];
	return NULL;
}

struct proc *proc_by_ns(const struct proc_list *list, pid_t nspid)
{
	size_t i;

	for (i = 0; i < list->n; i++)
		if (list->p[i]->nspid == nspid)
			return list->p[i];
	return NULL;
}

static void proc_free(struct proc *p)
{
	size_t i;

	for (i = 0; i < p->ntasks; i++) {
		task_done(p->tasks[i]);
		free(p->tasks[i]);
	}
	free(p->tasks);
	vma_list_done(&p->vmas);
	if (p->tracked)
		tracker_done(&p->tr);
	close_fdp(&p->pidfd);
	close_fdp(&p->memfd);
	close_fdp(&p->pagemap);
	free(p);
}

void proc_list_done(struct proc_list *list)
{
	size_t i;

	for (i = 0; i < list->n; i++)
		proc_free(list->p[i]);
	free(list->p);
	memset(list, 0, sizeof(*list));
}

static struct task *add_task(struct proc *p, pid_t tid, pid_t nstid)
{
	struct task **nt = realloc(p->tasks, (p->ntasks + 1) * sizeof(*nt));
	struct task *t;

	if (!nt)
		return NULL;
	p->tasks = nt;
	t = calloc(1, sizeof(*t));
	if (!t)
		return NULL;
	t->tid = tid;
	t->nstid = nstid;
	t->nstgid = p->nspid;
	t->guest = true;
	p->tasks[p->ntasks++] = t;
	return t;
}

/* Who stands for the process. */
static void choose(struct proc *p)
{
	pid_t tid = p->ntasks ? p->tasks[0]->tid : p->pid;

	if (tid == p->tid && p->pidfd >= 0)
		return;
	close_fdp(&p->pidfd);
	p->tid = tid;
	p->pidfd = (int)syscall(SYS_pidfd_open, tid, tid == p->pid ? 0 : PIDFD_THREAD);
	p->no_thread_fd = p->pidfd < 0 && errno == EINVAL;
	if (p->pidfd < 0 && errno == ESRCH && p->ntasks && tid != p->pid && !p->tasks[0]->seized)
		proc_remove_task(p, 0); /* it ended meanwhile: the next one */
}

void proc_remove_task(struct proc *p, size_t i)
{
	task_done(p->tasks[i]);
	free(p->tasks[i]);
	memmove(&p->tasks[i], &p->tasks[i + 1], (p->ntasks - i - 1) * sizeof(p->tasks[0]));
	p->ntasks--;
	if (p->ntasks)
		choose(p);
}

/* The leader, and whom nobody holds and /proc shows no more. */
static void drop_ended(struct proc *p)
{
	char path[64];
	size_t i;

	for (i = p->ntasks; i-- > 0;) {
		const struct task *t = p->tasks[i];

		snprintf(path, sizeof(path), "/proc/%d/task/%d", p->pid, t->tid);
		if (t->tid == p->pid || (!t->seized && access(path, F_OK) < 0))
			proc_remove_task(p, i);
	}
}

int proc_update_threads(struct proc *p, struct err *e)
{
	char path[64];
	struct dirent *de;
	int fresh = 0;
	DIR *d;

	if (p->zombie)
		return 0;
	if (p->leaderless)
		drop_ended(p);
	snprintf(path, sizeof(path), "/proc/%d/task", p->pid);
	d = opendir(path);
	if (!d)
		return errno == ENOENT ? err_set(e, ESRCH, "pid %d is gone", p->nspid) :
					 err_sys(e, "open '%s'", path);
	while ((de = readdir(d))) {
		pid_t tid = (pid_t)strtol(de->d_name, NULL, 10);
		struct proc_status st;
		size_t i;

		if (tid <= 0 || (p->leaderless && tid == p->pid))
			continue;
		for (i = 0; i < p->ntasks && p->tasks[i]->tid != tid; i++)
			;
		if (i < p->ntasks)
			continue;
		if (proc_read_status(p->pid, tid, &st, NULL) < 0 || (p->leaderless && strchr("ZX", st.state)))
			continue; /* it ended meanwhile */
		if (!add_task(p, tid, st.nspid)) {
			closedir(d);
			return err_num(e, ENOMEM, "threads");
		}
		fresh++;
	}
	closedir(d);
	choose(p);
	return p->ntasks ? fresh : err_set(e, ESRCH, "pid %d is ending", p->nspid);
}

/* What a leader that has ended shows no more is asked of a thread that runs. */
static void merge_living(struct proc *p)
{
	struct proc_status st;

	if (!p->leaderless || proc_read_status(p->tid, 0, &st, NULL) < 0)
		return;
	p->st.state = st.state;
	memcpy(p->st.mm, st.mm, sizeof(st.mm));
	p->st.umask = st.umask;
	p->st.tracer = st.tracer;
	p->st.sig_pnd = st.sig_pnd;
	p->st.seccomp = st.seccomp;
	p->st.no_new_privs = st.no_new_privs;
}

int proc_refresh(struct proc *p, struct err *e)
{
	int r = proc_read_status(p->pid, 0, &p->st, e);

	if (r >= 0)
		merge_living(p);
	return r;
}

/* A program that such a thread starts has a leader again. */
static void take_status(struct proc *p, const struct proc_status *st)
{
	p->st = *st;
	p->leaderless = st->state == 'Z' && st->nthreads > 1;
	p->zombie = (st->state == 'Z' || st->state == 'X') && !p->leaderless;
	/* it has ended on the way to its stop, and its parent is not told before its tracer is */
	if (p->zombie && st->tracer == getpid())
		waitpid(p->pid, NULL, __WALL | WNOHANG);
	if (p->leaderless) {
		proc_update_threads(p, NULL);
	} else if (!p->ntasks || p->tasks[0]->tid != p->pid) {
		while (p->ntasks)
			proc_remove_task(p, p->ntasks - 1);
		if (add_task(p, p->pid, p->nspid))
			choose(p);
	}
	merge_living(p);
}

bool proc_lost_leader(struct proc *p)
{
	struct proc_status st;

	if (p->leaderless || proc_read_status(p->pid, 0, &st, NULL) < 0 || st.state != 'Z' || st.nthreads < 2)
		return false;
	take_status(p, &st);
	return true;
}

static int add_proc(struct proc_list *list, pid_t pid, const struct proc_status *st, pid_t nsppid,
		    struct err *e)
{
	struct proc *p;

	if (list->n == list->cap) {
		size_t cap = list->cap ? list->cap * 2 : 32;
		struct proc **np = realloc(list->p, cap * sizeof(*np));

		if (!np)
			return err_num(e, ENOMEM, "processes");
		list->p = np;
		list->cap = cap;
	}
	p = calloc(1, sizeof(*p));
	if (!p)
		return err_num(e, ENOMEM, "processes");
	p->pid = pid;
	p->nspid = st->nspid;
	p->nsppid = nsppid;
	p->fresh = true;
	p->pidfd = p->memfd = p->pagemap = -1;
	p->tr.uffd = p->tr.pagemap = -1;
	take_status(p, st);
	if (p->pidfd < 0 && !p->no_thread_fd) {
		proc_free(p);
		return err_num(e, ESRCH, "pid %d", st->nspid);
	}
	p->seen = list->round;
	list->p[list->n++] = p;
	return 0;
}

/* Children of all threads of @p go to the end of the queue. */
static int push_children(pid_t pid, pid_t **queue, size_t *n, size_t *cap, struct err *e)
{
	char path[64];
	struct dirent *de;
	DIR *d;

	snprintf(path, sizeof(path), "/proc/%d/task", pid);
	d = opendir(path);
	if (!d)
		return 0; /* gone */
	while ((de = readdir(d))) {
		autofree char *text = NULL;
		char *s, *end;

		if (!isdigit((unsigned char)de->d_name[0]))
			continue;
		snprintf(path, sizeof(path), "/proc/%d/task/%.20s/children", pid, de->d_name);
		if (io_read_file(path, 1 << 20, &text, NULL, NULL) < 0)
			continue;
		for (s = text; *s; s = end) {
			pid_t c = (pid_t)strtol(s, &end, 10);

			if (end == s)
				break;
			if (*n == *cap) {
				pid_t *q = realloc(*queue, (*cap ? *cap * 2 : 64) * sizeof(*q));

				if (!q) {
					closedir(d);
					return err_num(e, ENOMEM, "processes");
				}
				*queue = q;
				*cap = *cap ? *cap * 2 : 64;
			}
			(*queue)[(*n)++] = c;
		}
	}
	closedir(d);
	return 0;
}

static int visit(struct proc_list *list, pid_t pid, struct err *e)
{
	struct proc_status st;
	struct proc *p = proc_by_outer(list, pid), *parent;
	pid_t nsppid;
	int r, tries;

	if (proc_read_status(pid, 0, &st, NULL) < 0)
		return 0;
	if (st.state == 'X')
		return 0;
	parent = proc_by_outer(list, st.ppid_outer);
	nsppid = parent && st.nspid != 1 ? parent->nspid : 0;
	if (p && p->st.starttime == st.starttime) {
		p->nsppid = nsppid;
		take_status(p, &st);
		p->seen = list->round;
		return 0;
	}
	/* what was listed of a process that has lost its leader may have ended, and the process goes on in others */
	for (tries = 0; tries < TRIES; tries++) {
		r = add_proc(list, pid, &st, nsppid, e);
		if (r != -ESRCH || proc_read_status(pid, 0, &st, NULL) < 0 || st.state != 'Z' || st.nthreads < 2)
			return r == -ESRCH ? 0 : r; /* it has ended meanwhile */
	}
	return r;
}

int proc_list_update(struct proc_list *list, pid_t pid1, struct err *e)
{
	autofree pid_t *queue = NULL;
	size_t n = 0, cap = 0, i, k;
	int r = 0;

	list->round++;
	r = visit(list, pid1, e);
	if (r >= 0)
		r = push_children(pid1, &queue, &n, &cap, e);
	for (i = 0; r >= 0 && i < n; i++) {
		r = visit(list, queue[i], e);
		if (r >= 0)
			r = push_children(queue[i], &queue, &n, &cap, e);
	}
	for (i = k = 0; i < list->n; i++) {
		struct proc *p = list->p[i];

		if (p->seen == list->round)
			list->p[k++] = p;
		else
			proc_free(p);
	}
	list->n = k;
	return r;
}
