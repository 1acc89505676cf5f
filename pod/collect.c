/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * What a pod holds, read while it runs: processes, mappings, open files. What no kind takes is
 * refused here, by process and object, before anything is touched.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/kcmp.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <time.h>
#include <unistd.h>

#include "pod/base/io.h"
#include "pod/base/util.h"
#include "pod/dump.h"
#include "pod/kind/kinds.h"
#include "pod/sysv.h"

#define MAX_FDS (1u << 20)
#define LOOKS 8
#define WAIT_LOOKS 200 /* at a vfork */

#define REFUSE(e, ...) err_set(e, EOPNOTSUPP, __VA_ARGS__)

int collect_note(struct dump *d, int r, const struct err *e)
{
	size_t i;

	if (r != -EOPNOTSUPP || !d->noting)
		return r;
	for (i = 0; i < d->nrefused; i++)
		if (!strcmp(d->refused[i], e->msg))
			return 0;
	if (d->nrefused < MAX_REFUSED)
		d->refused[d->nrefused++] = dump_strdup(d, e->msg);
	else
		d->unlisted++;
	return 0;
}

/* ---- processes */

/* Has what a link of /proc belongs to ended? Who has just ended has no such file, or one that nobody may follow. */
static bool has_ended(const struct proc *p, int err)
{
	char path[32];

	snprintf(path, sizeof(path), "/proc/%d", p->tid);
	return err == ENOENT || err == ESRCH || (err == EACCES && access(path, F_OK) < 0);
}

/* In each of these what is in the way is noted and the rest looked at all the same, if that is asked for. */
static int check_namespaces(struct dump *d, struct proc *p, struct err *e)
{
	static const char *const ns[] = { "mnt", "net", "ipc", "uts", "user", "cgroup", "time", "pid" };
	size_t i;
	int r;

	for (i = 0; i < ARRAY_SIZE(ns); i++) {
		char path[64];
		struct stat a, b;

		snprintf(path, sizeof(path), "/proc/%d/ns/%s", d->pid1, ns[i]);
		if (stat(path, &a) < 0)
			return err_sys(e, "stat '%s'", path);
		snprintf(path, sizeof(path), "/proc/%d/ns/%s", p->tid, ns[i]);
		if (stat(path, &b) < 0)
			return has_ended(p, errno) ? -ESRCH : err_sys(e, "stat '%s'", path);
		if (a.st_ino == b.st_ino)
			continue;
		r = REFUSE(e, "pid %d (%s): is in a %s namespace of its own: cannot be carried", p->nspid, p->st.comm, ns[i]);
		if (collect_note(d, r, e) < 0)
			return r;
	}
	return 0;
}

/* What a scheduling policy needs besides a priority is the target's to grant. */
static int check_policy(const struct proc *p, const struct task *t, struct err *e)
{
	int policy = sched_getscheduler(t->tid);

	if (policy < 0 || (policy & ~SCHED_RESET_ON_FORK) <= SCHED_IDLE)
		return 0;
	return REFUSE(e, "pid %d (%s): thread %d has scheduling policy %d (%s): cannot be carried", p->nspid, p->st.comm, t->nstid,
		      policy & ~SCHED_RESET_ON_FORK, (policy & ~SCHED_RESET_ON_FORK) == 6 ? "deadline" : "of a program");
}

/* Credentials are carried per process: threads that have taken others are refused. */
static int check_threads(struct dump *d, struct proc *p, struct err *e)
{
	const struct proc_status *a = &p->st;
	size_t i;
	int r;

	p->tasks[0]->seccomp = a->seccomp;
	for (i = 0; i < p->ntasks; i++)
		if (collect_note(d, check_policy(p, p->tasks[i], e), e) < 0)
			return -EOPNOTSUPP;
	for (i = p->leaderless ? 0 : 1; i < p->ntasks; i++) {
		struct proc_status b;

		if (proc_read_status(p->pid, p->tasks[i]->tid, &b, NULL) < 0)
			continue; /* it has ended */
		if (memcmp(a->uid, b.uid, sizeof(a->uid)) || memcmp(a->gid, b.gid, sizeof(a->gid)) ||
		    memcmp(a->cap, b.cap, sizeof(a->cap)) || a->no_new_privs != b.no_new_privs ||
		    a->ngroups != b.ngroups || memcmp(a->groups, b.groups, a->ngroups * sizeof(a->groups[0]))) {
			r = REFUSE(e, "pid %d (%s): thread %d has credentials of its own: cannot be carried", p->nspid,
				   p->st.comm, p->tasks[i]->nstid);
			if (collect_note(d, r, e) < 0)
				return r;
		}
		p->tasks[i]->seccomp = b.seccomp;
	}
	return 0;
}

/* Does @parent wait for a child that has its memory until it execs? Such a wait begins a moment after the child. */
static bool in_vfork(const struct proc *parent)
{
	size_t i;
	int tries;

	for (tries = 0; tries < 20; tries++) {
		struct timespec ts = { 0, 1000000 };

		for (i = 0; i < parent->ntasks; i++) {
			autofree char *text = NULL;
			char path[64];

			snprintf(path, sizeof(path), "/proc/%d/task/%d/wchan", parent->pid, parent->tasks[i]->tid);
			if (io_read_file(path, 4096, &text, NULL, NULL) >= 0 &&
			    (strstr(text, "clone") || strstr(text, "vfork")))
				return true;
		}
		nanosleep(&ts, NULL);
	}
	return false;
}

/* Threads and forked children share what they should: one memory, one fd table and one fs per process. */
static int check_sharing(struct dump *d, struct proc *p, bool still, struct err *e)
{
	static const struct { int type; const char *what; } shared[] = {
		{ KCMP_VM, "memory" }, { KCMP_FILES, "file table" }, { KCMP_FS, "working directory" },
		{ KCMP_SIGHAND, "signal handlers" },
	};
	struct proc *parent = proc_by_ns(&d->procs, p->nsppid);
	size_t i, k;
	int r;

	for (i = 1; i < p->ntasks; i++)
		for (k = 1; k < 3; k++) {
			if (!proc_differs(p->tid, p->tasks[i]->tid, shared[k].type, still))
				continue;
			r = REFUSE(e, "pid %d (%s): thread %d has a %s of its own: cannot be carried", p->nspid, p->st.comm,
				   p->tasks[i]->nstid, shared[k].what);
			if (collect_note(d, r, e) < 0)
				return r;
		}
	for (k = 0; parent && !parent->zombie && k < ARRAY_SIZE(shared); k++) {
		if (syscall(SYS_kcmp, p->tid, parent->tid, shared[k].type, 0, 0) != 0)
			continue;
		if (k == 0 && !still && (in_vfork(parent) ||
					 syscall(SYS_kcmp, p->tid, parent->tid, KCMP_VM, 0, 0) != 0))
			return 0; /* a vfork in progress: that is over when all stand still */
		r = REFUSE(e, "pid %d (%s): shares its %s with pid %d: cannot be carried", p->nspid, p->st.comm, shared[k].what,
			   parent->nspid);
		if (collect_note(d, r, e) < 0)
			return r;
	}
	return 0;
}

int collect_waiting(struct dump *d, unsigned ms, struct err *e)
{
	const struct timespec ts = { 0, 5000000 };
	uint64_t end = deadline_ms(ms);
	unsigned looks = 0; /* at all of them: who waits for the one has waited for the others */
	size_t i;

	for (i = 0; i < d->procs.n; i++) {
		const struct proc *p = d->procs.p[i], *parent = proc_by_ns(&d->procs, p->nsppid);

		if (p->zombie || !parent || parent->zombie || syscall(SYS_kcmp, p->tid, parent->tid, KCMP_VM, 0, 0) != 0 ||
		    !in_vfork(parent))
			continue;
		/* time that passes for a machine that stands still does not count */
		for (; syscall(SYS_kcmp, p->tid, parent->tid, KCMP_VM, 0, 0) == 0 && (looks < WAIT_LOOKS || now_ns() < end);
		     looks++)
			nanosleep(&ts, NULL);
		if (syscall(SYS_kcmp, p->tid, parent->tid, KCMP_VM, 0, 0) != 0)
			continue;
		cut_refuse_vfork(parent, p, e);
		collect_note(d, -EOPNOTSUPP, e);
	}
	return 0;
}

/* Its directories have names, by which the target finds them. */
static int check_directories(struct dump *d, struct proc *p, struct err *e)
{
	char path[48], link[PATH_MAX];
	struct stat root, mine, named, cwd;
	autoclose int fd = -1;
	ssize_t n;

	snprintf(path, sizeof(path), "/proc/%d/root", p->tid);
	if (fstat(d->root, &root) < 0)
		return err_sys(e, "stat the pod's root");
	if (stat(path, &mine) < 0)
		return has_ended(p, errno) ? -ESRCH : err_sys(e, "stat '%s'", path);
	if (mine.st_ino != root.st_ino || mine.st_dev != root.st_dev)
		return REFUSE(e, "pid %d (%s): has a root directory of its own (chroot): cannot be carried",
			      p->nspid, p->st.comm);
	/* taken once: the program may go elsewhere between two looks */
	snprintf(path, sizeof(path), "/proc/%d/cwd", p->tid);
	fd = open(path, O_PATH | O_CLOEXEC);
	if (fd < 0)
		return has_ended(p, errno) ? -ESRCH : err_sys(e, "open '%s'", path);
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	n = readlink(path, link, sizeof(link) - 1);
	if (n <= 0 || fstat(fd, &cwd) < 0)
		return err_sys(e, "read '%s'", path);
	link[n] = 0;
	if (fstatat(d->root, link[1] ? link + 1 : ".", &named, 0) < 0 || named.st_ino != cwd.st_ino ||
	    named.st_dev != cwd.st_dev)
		return REFUSE(e, "pid %d (%s): works in '%s', a directory without a name: cannot be carried yet",
			      p->nspid, p->st.comm, link);
	return 0;
}

static int check_state(struct dump *d, const struct proc *p, bool still, struct err *e)
{
	int r = 0;

	if (p->st.tracer && !still)
		r = REFUSE(e, "pid %d (%s): is traced by another process (a debugger, strace)", p->nspid, p->st.comm);
	r = collect_note(d, r, e);
	if (r >= 0 && p->st.state == 'T' && p->nspid == 1)
		r = REFUSE(e, "pid 1 (%s): is stopped, which nobody in the pod can have done: continue it first", p->st.comm);
	r = collect_note(d, r, e);
	if (r >= 0 && p->st.ns_depth != d->procs.p[0]->st.ns_depth)
		r = REFUSE(e, "pid %d (%s): is in a pid namespace of its own: cannot be carried", p->nspid, p->st.comm);
	return collect_note(d, r, e);
}

/* What no kind carries. @still: all tasks are stopped by us; looked at again, since a program may have come to it since. */
static int check_proc(struct dump *d, struct proc *p, bool still, struct err *e)
{
	int r;

	if (p->zombie)
		return 0;
	if (p->no_thread_fd)
		return REFUSE(e, "pid %d (%s): its main thread has ended, and this kernel (before 6.9) gives no pidfd of another: cannot be carried",
			      p->nspid, p->st.comm);
	r = check_state(d, p, still, e);
	if (r >= 0)
		r = check_namespaces(d, p, e);
	if (r >= 0)
		r = collect_note(d, kind_posixtimer_check(p, e), e);
	if (r >= 0)
		r = check_sharing(d, p, still, e);
	if (r >= 0)
		r = check_threads(d, p, e);
	if (r >= 0)
		r = collect_note(d, seccomp_check(p, e), e);
	if (r >= 0 && !still) /* in the cut kind cwd looks */
		r = check_directories(d, p, e);
	return r;
}

int collect_recheck(struct dump *d, struct err *e)
{
	size_t i;
	int r = 0;

	for (i = 0; r >= 0 && i < d->procs.n; i++) {
		struct proc *p = d->procs.p[i];

		if (!p->zombie)
			r = proc_refresh(p, e);
		if (r >= 0)
			r = check_proc(d, p, true, e);
	}
	return r;
}

/* ---- mappings */

/* smaps is slow (it walks the pages): in the freeze it is read only for a process whose mappings differ
 * from when it was read last. */
static int maps_keep_flags(struct proc *p, uint64_t scratch, struct err *e)
{
	size_t n = p->vmas.n, i, k = 0;
	bool same = true;
	struct { uint64_t start, end; uint32_t flags; int prot; } *old = malloc((n + 1) * sizeof(*old));
	int r;

	if (!old)
		return err_num(e, ENOMEM, "mappings");
	for (i = 0; i < n; i++) {
		old[i].start = p->vmas.v[i].start;
		old[i].end = p->vmas.v[i].end;
		old[i].flags = p->vmas.v[i].flags;
		old[i].prot = p->vmas.v[i].prot;
	}
	r = maps_read(p->tid, &p->vmas, e);
	for (i = 0; r >= 0 && i < p->vmas.n; i++) {
		struct vma *v = &p->vmas.v[i];

		if (dump_in_scratch(scratch, v))
			continue; /* ours, and new to the list */
		while (k < n && (old[k].end <= v->start || old[k].start - scratch < SCRATCH_LEN))
			k++;
		if (k < n && old[k].start == v->start && old[k].end == v->end && old[k].prot == v->prot)
			v->flags = old[k].flags;
		else
			same = false;
	}
	free(old);
	if (r >= 0 && !same)
		r = maps_read_flags(p->tid, &p->vmas, e);
	return r;
}

int collect_maps(struct dump *d, bool flags, struct err *e)
{
	size_t i;
	int r = 0;

	for (i = 0; r >= 0 && i < d->procs.n; i++) {
		struct proc *p = d->procs.p[i];

		if (p->zombie)
			continue;
		r = flags ? maps_read_all(p->tid, &p->vmas, e) : maps_keep_flags(p, d->scratch, e);
		if (r == -ESRCH || r == -ENOENT)
			r = 0; /* it ended; the next listing will say so */
	}
	return r;
}

/* What is written through a shared mapping must have reached the file before another node maps it. */
int collect_sync_files(struct dump *d, struct err *e)
{
	size_t i;

	for (i = 0; i < d->nmapfiles; i++) {
		const struct mapfile *m = d->mapfiles[i];
		autoclose int fd = -1;

		if (!m->rw || dump_is_private_tmpfs(d, m->st.st_dev))
			continue;
		fd = openat(d->root, m->path + 1, O_RDONLY | O_CLOEXEC);
		if (fd < 0 || fsync(fd) < 0)
			return err_sys(e, "write '%s' back", m->path);
	}
	return 0;
}

static int check_vma(struct dump *d, struct proc *p, const struct vma *v, struct err *e)
{
	const char *why = NULL;

	if (dump_in_scratch(d->scratch, v))
		return 0;
	if (v->type == VMA_OTHER)
		why = "a mapping of a device or of a kind that no kind takes";
	else if (v->flags & VMF_HUGETLB)
		why = "huge pages of hugetlbfs: cannot be carried yet";
	else if (v->flags & (VMF_IO | VMF_PFNMAP) && v->type != VMA_VVAR && v->type != VMA_VDSO)
		why = "memory of a device";
	else if (v->flags & VMF_DROPPABLE)
		why = "droppable memory";
	else if (v->flags & VMF_SHADOW)
		why = "a shadow stack: cannot be carried";
	else if (v->flags & VMF_PKEY)
		why = "memory with a protection key: cannot be carried yet";
	if (!why && v->type == VMA_SYSV) {
		if (sysv_check_vma(d, &p->vmas, (size_t)(v - p->vmas.v), e) < 0)
			return err_wrap(e, "pid %d (%s): mapping %lx-%lx '%s'", p->nspid, p->st.comm, (unsigned long)v->start,
					(unsigned long)v->end, v->name);
		return 0;
	}
	if (!why)
		return 0;
	return REFUSE(e, "pid %d (%s): mapping %lx-%lx '%s' is %s", p->nspid, p->st.comm,
		      (unsigned long)v->start, (unsigned long)v->end, v->name, why);
}

static int open_map(struct proc *p, const struct vma *v, int flags)
{
	char path[96];

	snprintf(path, sizeof(path), "/proc/%d/map_files/%lx-%lx", p->tid, (unsigned long)v->start,
		 (unsigned long)v->end);
	return open(path, flags | O_CLOEXEC);
}

static struct mapfile *find_mapfile(struct dump *d, const struct vma *v)
{
	bool rw = v->shared && (v->prot & PROT_WRITE);
	size_t i;

	for (i = 0; i < d->nmapfiles; i++)
		if (d->mapfiles[i]->ino == v->ino && d->mapfiles[i]->dev == v->dev &&
		    d->mapfiles[i]->rw == rw && !strcmp(d->mapfiles[i]->path, v->name))
			return d->mapfiles[i];
	return NULL;
}

static bool is_path_of(int fd, const char *path)
{
	char self[48], link[PATH_MAX];
	ssize_t n;

	snprintf(self, sizeof(self), "/proc/self/fd/%d", fd);
	n = readlink(self, link, sizeof(link));
	return n > 0 && (size_t)n == strlen(path) && !memcmp(link, path, (size_t)n);
}

static int add_mapfile(struct dump *d, struct proc *p, const struct vma *v, struct err *e)
{
	struct mapfile **nm = realloc(d->mapfiles, (d->nmapfiles + 1) * sizeof(*nm));
	autoclose int fd = open_map(p, v, O_PATH);
	struct mapfile *m;
	struct stat named;

	if (!nm)
		return err_num(e, ENOMEM, "mapped files");
	d->mapfiles = nm;
	m = dump_alloc(d, sizeof(*m));
	m->dev = v->dev;
	m->ino = v->ino;
	m->rw = v->shared && (v->prot & PROT_WRITE);
	m->nspid = p->nspid;
	m->comm = dump_strdup(d, p->st.comm);
	m->path = dump_strdup(d, v->name);
	if (fd < 0)
		return errno == ENOENT ? -ESRCH : err_sys(e, "pid %d: mapping of '%s'", p->nspid, v->name);
	if (fstat(fd, &m->st) < 0)
		return err_sys(e, "stat '%s'", v->name);
	if (fstatat(d->root, v->name[0] == '/' ? v->name + 1 : v->name, &named, 0) < 0 ||
	    named.st_ino != m->st.st_ino || named.st_dev != m->st.st_dev) {
		if (!d->stopped && !is_path_of(fd, v->name))
			return -ESRCH; /* another mapping by now, or the file has been removed: the next look tells */
		return REFUSE(e, "pid %d (%s): maps '%s', which has been replaced or removed since: cannot be carried yet",
			      p->nspid, p->st.comm, v->name);
	}
	m->id = ++d->next_id;
	d->mapfiles[d->nmapfiles++] = m;
	return 0;
}

/* Deleted files, memfds and shared anonymous memory travel with their bytes. */
static int add_map_content(struct dump *d, struct proc *p, const struct vma *v, struct err *e)
{
	enum content_source src = v->type == VMA_SHMEM ? CONTENT_SHMEM :
				  v->type == VMA_MEMFD ? CONTENT_MEMFD : CONTENT_UNLINKED;
	const char *name = v->type == VMA_MEMFD && !strncmp(v->name, "/memfd:", 7) ? v->name + 7 : v->name;
	struct content *c = content_by_inode(d, v->dev, v->ino);
	uint32_t id;
	int fd, r;

	if (!c) {
		fd = open_map(p, v, O_RDONLY);
		if (fd < 0)
			return errno == ENOENT ? -ESRCH :
						 err_sys(e, "pid %d: mapping of '%s'", p->nspid, v->name);
		r = content_add(d, fd, src, name, &id, e);
		if (r < 0)
			return r;
		c = content_by_inode(d, v->dev, v->ino);
		if (!c) {
			/* a file system whose maps show another device than stat(2): key it as maps do */
			c = d->contents[d->ncontents - 1];
			c->dev = v->dev;
			c->ino = v->ino;
		}
	}
	c->mapped |= v->shared;
	return 0;
}

static struct content *content_of(struct dump *d, const struct vma *v)
{
	return content_by_inode(d, v->type == VMA_SYSV ? SYSV_DEV : v->dev, v->ino);
}

static bool needs_content(const struct vma *v)
{
	return v->type == VMA_SHMEM || v->type == VMA_MEMFD || v->type == VMA_SYSV || (v->type == VMA_FILE && v->deleted);
}

int collect_map_objects(struct dump *d, struct err *e)
{
	size_t i, k;
	int r = 0;

	for (i = 0; r >= 0 && i < d->procs.n; i++) {
		struct proc *p = d->procs.p[i];

		for (k = 0; !p->zombie && r >= 0 && k < p->vmas.n; k++) {
			const struct vma *v = &p->vmas.v[k];
			struct content *c;

			if (needs_content(v) && v->type != VMA_SYSV)
				r = add_map_content(d, p, v, e);
			else if (v->type == VMA_FILE && !find_mapfile(d, v))
				r = collect_note(d, add_mapfile(d, p, v, e), e);
			if (r >= 0 && v->type == VMA_FILE && v->shared &&
			    (c = content_by_inode(d, v->dev, v->ino)))
				c->mapped = true;
			if (r == -ESRCH)
				r = 0; /* unmapped meanwhile, or the process has ended */
		}
	}
	return r;
}

uint32_t collect_vma_object(struct dump *d, const struct vma *v)
{
	if (needs_content(v)) {
		struct content *c = content_of(d, v);

		return c ? c->id : 0;
	}
	if (v->type == VMA_FILE) {
		struct mapfile *m = find_mapfile(d, v);

		return m ? m->id : 0;
	}
	return 0;
}

/* ---- open files */

void probe_parse_info(struct probe *pr)
{
	const char *s;

	s = strstr(pr->info, "pos:");
	if (s)
		pr->pos = strtoll(s + 4, NULL, 10);
	s = strstr(pr->info, "flags:");
	if (s)
		pr->flags = (uint32_t)strtoul(s + 6, NULL, 8);
	s = strstr(pr->info, "mnt_id:");
	if (s)
		pr->mnt_id = (uint32_t)strtoul(s + 7, NULL, 10);
}

/* Is this the open file description of an object that is known already? */
static struct object *same_description(struct dump *d, const struct probe *pr)
{
	pid_t self = getpid();
	size_t i;

	for (i = 0; i < d->nobjects; i++) {
		struct object *o = d->objects[i];

		if (o->p.st.st_ino != pr->st.st_ino || o->p.st.st_dev != pr->st.st_dev ||
		    ((o->p.flags ^ pr->flags) & ~(uint32_t)O_CLOEXEC))
			continue;
		if (syscall(SYS_kcmp, self, self, KCMP_FILE, o->p.fd, pr->fd) == 0)
			return o;
	}
	return NULL;
}

int collect_add_object(struct dump *d, const struct probe *pr, const struct kind *k, struct object **out, struct err *e)
{
	struct object **no = realloc(d->objects, (d->nobjects + 1) * sizeof(*no));
	struct object *o;

	if (!no)
		return err_num(e, ENOMEM, "open files");
	d->objects = no;
	o = dump_alloc(d, sizeof(*o));
	o->id = ++d->next_id;
	o->kind = k;
	o->p = *pr;
	o->p.link = dump_strdup(d, pr->link);
	o->p.info = dump_strdup(d, pr->info);
	d->objects[d->nobjects++] = o;
	*out = o;
	return 0;
}

static int add_fdref(struct dump *d, const struct probe *pr, struct object *o, struct err *e)
{
	struct fdref *nf;

	if (d->nfds % 64 == 0) {
		nf = realloc(d->fds, (d->nfds + 64) * sizeof(*nf));
		if (!nf)
			return err_num(e, ENOMEM, "open files");
		d->fds = nf;
	}
	d->fds[d->nfds++] = (struct fdref){ pr->nspid, pr->fdno, (pr->flags & O_CLOEXEC) != 0, o };
	return 0;
}

/* Is fd @fdno still the file that was looked at? A program that runs may have closed, reopened or unlinked it meanwhile. */
static bool still_same(struct proc *p, int dirfd, const struct probe *pr)
{
	char name[32], link[PATH_MAX];
	ssize_t n;

	snprintf(name, sizeof(name), "fd/%d", pr->fdno);
	n = readlinkat(dirfd, name, link, sizeof(link) - 1);
	if (n < 0)
		return false;
	link[n] = 0;
	if (pr->fd_is_path)
		return !strcmp(link, pr->link);
	return !strcmp(link, pr->link) &&
	       syscall(SYS_kcmp, getpid(), p->tid, KCMP_FILE, pr->fd, pr->fdno) == 0;
}

/*
 * A FIFO is not duplicated while the program runs: who opens it would meet the duplicate of a description that the program
 * has closed, and then nobody.
 */
static int take_file(struct proc *p, int dirfd, bool final, struct probe *pr)
{
	char name[32];
	struct stat st;

	snprintf(name, sizeof(name), "fd/%d", pr->fdno);
	pr->fd_is_path = !final && pr->link[0] == '/' && fstatat(dirfd, name, &st, 0) == 0 && S_ISFIFO(st.st_mode);
	return pr->fd_is_path ? openat(dirfd, name, O_PATH | O_CLOEXEC) : (int)syscall(SYS_pidfd_getfd, p->pidfd, pr->fdno, 0);
}

/* 1: look again. */
static int look_at_fd(struct dump *d, struct proc *p, int dirfd, int fdno, bool final, struct err *e)
{
	char name[32], link[PATH_MAX], why[200];
	autofree char *info = NULL;
	autoclose int fd = -1;
	struct probe pr = { .pid = p->tid, .nspid = p->nspid, .fdno = fdno, .link = link };
	const struct kind *k;
	struct object *o;
	ssize_t n;
	int r;

	snprintf(name, sizeof(name), "fd/%d", fdno);
	n = readlinkat(dirfd, name, link, sizeof(link) - 1);
	if (n < 0)
		return errno == ENOENT || errno == ESRCH ? 0 : err_sys(e, "pid %d: fd %d", p->nspid, fdno);
	link[n] = 0;
	fd = take_file(p, dirfd, final, &pr);
	if (fd < 0)
		return errno == EBADF || errno == ESRCH || errno == ENOENT ? 0 : err_sys(e, "pid %d: take fd %d", p->nspid, fdno);
	snprintf(name, sizeof(name), "fdinfo/%d", fdno);
	r = io_read_file_at(dirfd, name, 1 << 22, &info, NULL, e);
	if (r < 0)
		return r == -ENOENT || r == -ESRCH ? 0 : r;
	pr.info = info;
	pr.fd = fd;
	if (fstat(fd, &pr.st) < 0)
		return err_sys(e, "pid %d: stat fd %d", p->nspid, fdno);
	probe_parse_info(&pr);
	if (p->st.seccomp && locks_outside(d, &pr)) {
		r = REFUSE(e, "pid %d (%s): has a seccomp filter, and a lock on '%.80s' (fd %d) that could not be given back: cannot be carried",
			   p->nspid, p->st.comm, pr.link, fdno);
		return collect_note(d, r, e);
	}
	o = same_description(d, &pr);
	if (!o) {
		k = kind_match(&pr);
		if (!k && !final && !still_same(p, dirfd, &pr))
			return 1;
		if (!k) {
			kind_refusal(&pr, why, sizeof(why));
			r = REFUSE(e, "pid %d (%s): fd %d is %s", p->nspid, p->st.comm, fdno, why);
			return collect_note(d, r, e);
		}
		if (k->check && !final) {
			r = k->check(d, &pr, e);
			if (r < 0 && !still_same(p, dirfd, &pr))
				return 1;
			if (r < 0) {
				r = err_wrap(e, "pid %d (%s): fd %d", p->nspid, p->st.comm, fdno);
				return collect_note(d, r, e);
			}
		}
		r = collect_add_object(d, &pr, k, &o, e);
		if (r < 0)
			return r;
		take_fd(&fd);
	}
	r = final ? locks_note(d, &pr, o, e) : 0;
	return r < 0 ? r : add_fdref(d, &pr, o, e);
}

static int collect_fd(struct dump *d, struct proc *p, int dirfd, int fdno, bool final, struct err *e)
{
	int tries = 0, r;

	do
		r = look_at_fd(d, p, dirfd, fdno, final, e);
	while (r > 0 && ++tries < LOOKS);
	return r < 0 ? r : 0; /* one that changes all the time is looked at in the cut */
}

static int cmp_int(const void *a, const void *b)
{
	return *(const int *)a - *(const int *)b;
}

static int list_fds(int dirfd, int **out, size_t *n, struct err *e)
{
	autoclose int fd = openat(dirfd, "fd", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	char buf[32768];
	size_t cap = 0;

	*out = NULL;
	*n = 0;
	if (fd < 0)
		return errno == ENOENT ? -ESRCH : err_sys(e, "list open files");
	for (;;) {
		long len = syscall(SYS_getdents64, fd, buf, sizeof(buf)), at;

		if (len < 0 && (errno == ENOENT || errno == ESRCH))
			return err_set(e, ESRCH, "it has ended");
		if (len < 0)
			return err_sys(e, "list open files");
		if (len == 0)
			break;
		for (at = 0; at < len;) {
			struct { uint64_t ino; int64_t off; uint16_t reclen; uint8_t type; char name[]; } *de =
				(void *)(buf + at);

			at += de->reclen;
			if (de->name[0] == '.')
				continue;
			if (*n == cap) {
				int *no = realloc(*out, (cap ? cap * 2 : 64) * sizeof(int));

				if (!no)
					return err_num(e, ENOMEM, "open files");
				*out = no;
				cap = cap ? cap * 2 : 64;
			}
			(*out)[(*n)++] = (int)strtol(de->name, NULL, 10);
		}
	}
	qsort(*out, *n, sizeof(int), cmp_int);
	return 0;
}

void collect_drop_objects(struct dump *d, bool undo)
{
	size_t i;

	for (i = 0; i < d->nobjects; i++) {
		struct object *o = d->objects[i];

		if (undo && o->kind->undo && o->msg)
			o->kind->undo(d, o);
		close_fdp(&o->p.fd);
	}
	d->nobjects = d->nfds = 0;
}

int collect_fds(struct dump *d, bool final, struct err *e)
{
	size_t i, k;
	int r = 0;

	collect_drop_objects(d, false);
	d->nlocks = 0;
	for (i = 0; r >= 0 && i < d->procs.n; i++) {
		struct proc *p = d->procs.p[i];
		autofree int *fds = NULL;
		autoclose int dirfd = -1;
		char path[32];
		size_t n;

		if (p->zombie)
			continue;
		snprintf(path, sizeof(path), "/proc/%d", p->tid);
		dirfd = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
		if (dirfd < 0)
			continue;
		r = list_fds(dirfd, &fds, &n, e);
		if (r == -ESRCH && !final) {
			r = 0;
			continue;
		}
		for (k = 0; r >= 0 && k < n; k++)
			r = collect_fd(d, p, dirfd, fds[k], final, e);
	}
	return r < 0 ? r : collect_inside(d, final, e);
}

/* ---- all of it */

static int find_scratch(struct dump *d, struct err *e)
{
	const struct vma_list **lists = dump_alloc(d, d->procs.n * sizeof(*lists));
	size_t n = 0, i;

	for (i = 0; i < d->procs.n; i++)
		if (!d->procs.p[i]->zombie)
			lists[n++] = &d->procs.p[i]->vmas;
	/* a page to each side, or it might become one with a mapping of the program's */
	d->scratch = vma_find_hole(lists, n, 0x100000, SCRATCH_LEN + 2 * PAGE);
	if (!d->scratch)
		return REFUSE(e, "no hole of %u KiB that is free in all processes", SCRATCH_LEN / 1024);
	d->scratch += PAGE;
	return 0;
}

/* All that is in the way is noted in d->refused; a negative result is something else. */
int collect_check(struct dump *d, struct err *e)
{
	size_t i, k;
	int r = proc_list_update(&d->procs, d->pid1, e);

	d->noting = true;
	for (i = 0; r >= 0 && i < d->procs.n; i++) {
		r = proc_update_threads(d->procs.p[i], e);
		if (r >= 0)
			r = collect_note(d, check_proc(d, d->procs.p[i], false, e), e);
		if (r == -ESRCH)
			r = 0;
	}
	if (r >= 0)
		r = collect_maps(d, true, e);
	if (r >= 0)
		r = sysv_collect(d, e);
	for (i = 0; r >= 0 && i < d->procs.n; i++)
		for (k = 0; r >= 0 && k < d->procs.p[i]->vmas.n; k++)
			r = collect_note(d, check_vma(d, d->procs.p[i], &d->procs.p[i]->vmas.v[k], e), e);
	if (r >= 0)
		r = collect_note(d, find_scratch(d, e), e);
	if (r >= 0)
		r = collect_ipc(d, false, e);
	if (r >= 0)
		r = collect_fds(d, false, e);
	if (r >= 0)
		r = collect_map_objects(d, e);
	d->noting = false;
	return r;
}
