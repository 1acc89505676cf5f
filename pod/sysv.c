/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * System V shared memory.
 *
 * Theory of operation. Segments belong to the pod's ipc namespace, attached or not; /proc/sysvipc/shm of a
 * thread in that namespace lists them. Each is a content (content.c) whose bytes are read and written through
 * the file behind it: attached for a moment by that thread, opened through map_files, detached. On the target it
 * is made with its id (shm_next_id), key and creator, and skeletons attach it with shmat(), so that it counts its
 * users and shmdt() finds it: rmem.c. One that is marked for destruction has a private key meanwhile and is marked when
 * all have attached. What was removed since the landing zone was made is removed there.
 *
 * A program that counts the users of a segment that nobody has attached may find one more for that moment.
 *
 * Refused: segments on huge pages, or locked in memory; an attachment of which a part was unmapped. Times, and the pids of the creator
 * and the last user, are the move's.
 */
#include "pod/sysv.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/ipc.h>
#include <sys/shm.h>
#include <sys/syscall.h>
#include <sys/vfs.h>

#include "pod/base/io.h"
#include "pod/base/util.h"

#define REFUSE(e, ...) err_set(e, EOPNOTSUPP, __VA_ARGS__)
#define SHM_FILE "/proc/sysvipc/shm"

/* ---- in the pod's ipc namespace */

struct visit {
	pid_t pid;
	int (*fn)(void *arg, struct err *e);
	void *arg;
	struct err *e;
	int ret;
};

static void *visit_main(void *arg)
{
	struct visit *v = arg;
	char path[48];
	autoclose int ns = -1;

	snprintf(path, sizeof(path), "/proc/%d/ns/ipc", v->pid);
	ns = open(path, O_RDONLY | O_CLOEXEC);
	if (ns < 0 || setns(ns, CLONE_NEWIPC) < 0)
		v->ret = err_sys(v->e, "enter '%s'", path);
	else
		v->ret = v->fn(v->arg, v->e);
	return NULL;
}

int sysv_visit(pid_t pid, int (*fn)(void *arg, struct err *e), void *arg, struct err *e)
{
	struct visit v = { pid, fn, arg, e, 0 };
	sigset_t all, old;
	pthread_t t;
	int r;

	sigfillset(&all);
	pthread_sigmask(SIG_BLOCK, &all, &old); /* the tick is for the tracer */
	r = pthread_create(&t, NULL, visit_main, &v);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	if (r)
		return err_num(e, r, "start a thread");
	pthread_join(t, NULL);
	return v.ret;
}

/* The file behind a segment. */
static int open_segment(int id, uint64_t size, int flags, struct err *e)
{
	char path[96];
	void *at = shmat(id, NULL, flags == O_RDONLY ? SHM_RDONLY : 0);
	int fd;

	if (at == (void *)-1)
		return err_sys(e, "attach the System V segment %d", id);
	snprintf(path, sizeof(path), "/proc/self/map_files/%lx-%lx", (unsigned long)at,
		 (unsigned long)at + (unsigned long)ALIGN_UP(size, PAGE));
	fd = open(path, flags | O_CLOEXEC);
	if (fd < 0)
		fd = err_sys(e, "open '%s'", path);
	shmdt(at);
	return fd;
}

/* ---- source */

struct look {
	struct dump *d;
	char *text;
};

static struct content *by_id(struct dump *d, int id)
{
	return content_by_inode(d, SYSV_DEV, (uint64_t)id);
}

/* By the mapping of a process that has it attached: the program may count who has. */
static int open_attached(struct dump *d, int id)
{
	char path[96];
	size_t i, k;

	for (i = 0; i < d->procs.n; i++)
		for (k = 0; !d->procs.p[i]->zombie && k < d->procs.p[i]->vmas.n; k++) {
			const struct vma *v = &d->procs.p[i]->vmas.v[k];
			struct stat st;
			int fd;

			if (v->type != VMA_SYSV || (int)v->ino != id)
				continue;
			snprintf(path, sizeof(path), "/proc/%d/map_files/%lx-%lx", d->procs.p[i]->pid, (unsigned long)v->start,
				 (unsigned long)v->end);
			fd = open(path, O_RDONLY | O_CLOEXEC);
			if (fd >= 0 && fstat(fd, &st) == 0 && (int)st.st_ino == id)
				return fd;
			close_fdp(&fd);
		}
	return -1;
}

static int add_segment(struct dump *d, int id, uint64_t size, int key, struct content **out, struct err *e)
{
	char name[32];
	struct statfs fs;
	autoclose int fd = open_attached(d, id);
	int r;

	if (fd < 0)
		fd = open_segment(id, size, O_RDONLY, e);

	if (fd < 0)
		return fd;
	if (fstatfs(fd, &fs) < 0)
		return err_sys(e, "statfs the System V segment %d", id);
	if (fs.f_type != TMPFS_MAGIC)
		return REFUSE(e, "the System V segment %d (key 0x%x) is on huge pages: cannot be carried yet", id, (unsigned)key);
	snprintf(name, sizeof(name), "SYSV%08x", (unsigned)key);
	r = content_add_as(d, take_fd(&fd), CONTENT_SYSV, name, SYSV_DEV, (uint64_t)id, out, e);
	return r;
}

static int look_line(struct dump *d, const char *line, struct err *e)
{
	unsigned perms, uid, gid, cuid, cgid, users;
	unsigned long long size;
	struct content *c;
	int key, id, r = 0;

	if (sscanf(line, "%d %d %o %llu %*d %*d %u %u %u %u %u", &key, &id, &perms, &size, &users, &uid, &gid, &cuid,
		   &cgid) != 9)
		return err_set(e, EPROTO, "'%s' is of an unknown form", SHM_FILE);
	if (perms & SHM_LOCKED)
		return REFUSE(e, "the System V segment %d (key 0x%x) is locked in memory: cannot be carried yet", id, (unsigned)key);
	c = by_id(d, id);
	if (!c && users && !d->stopped) {
		autoclose int fd = open_attached(d, id);

		if (fd < 0)
			return 0; /* attached a moment ago: the cut will see */
	}
	if (!c)
		r = add_segment(d, id, size, key, &c, e);
	if (r < 0)
		return r;
	c->mapped = c->seen = true;
	c->key = key;
	c->mode = perms;
	c->uid = uid;
	c->gid = gid;
	c->cuid = cuid;
	c->cgid = cgid;
	return 0;
}

static int look(void *arg, struct err *e)
{
	struct dump *d = arg;
	autofree char *text = NULL;
	const char *line;
	int r = io_read_file(SHM_FILE, 16u << 20, &text, NULL, e);

	if (r == -ENOENT)
		return 0; /* a kernel without it */
	line = r < 0 ? NULL : strchr(text, '\n'); /* after the headings */
	while (r >= 0 && line && line[1]) {
		r = look_line(d, line + 1, e);
		if (r == -EINVAL || r == -EIDRM)
			r = 0; /* removed meanwhile */
		r = collect_note(d, r, e);
		line = strchr(line + 1, '\n');
	}
	return r;
}

int sysv_collect(struct dump *d, struct err *e)
{
	size_t i, n = 0;
	int r;

	for (i = 0; i < d->ncontents; i++)
		d->contents[i]->seen = false;
	r = sysv_visit(d->pid1, look, d, e);
	for (i = 0; r >= 0 && i < d->ncontents; i++) {
		struct content *c = d->contents[i];

		if (c->source == CONTENT_SYSV && !c->seen)
			content_free(c);
		else
			d->contents[n++] = c;
	}
	if (r >= 0)
		d->ncontents = n;
	return r;
}

/* Does mapping @b of @l go on where @a ends, in the same attachment? */
static bool goes_on(const struct vma *a, const struct vma *b)
{
	return a->type == VMA_SYSV && b->type == VMA_SYSV && a->ino == b->ino && a->end == b->start && b->pgoff &&
	       a->pgoff + (a->end - a->start) == b->pgoff;
}

int sysv_check_vma(struct dump *d, const struct vma_list *l, size_t i, struct err *e)
{
	const struct content *c = by_id(d, (int)l->v[i].ino);
	size_t first = i, last = i;

	if (!c && !d->stopped)
		return 0; /* made and removed while we look: the cut will see */
	if (!c)
		return REFUSE(e, "is of a System V segment that is not in the pod's ipc namespace: cannot be carried");
	while (first && goes_on(&l->v[first - 1], &l->v[first]))
		first--;
	while (last + 1 < l->n && goes_on(&l->v[last], &l->v[last + 1]))
		last++;
	if (!l->v[first].pgoff && l->v[last].end - l->v[first].start == ALIGN_UP(c->size, PAGE))
		return 0;
	return REFUSE(e, "is a part of a System V segment: cannot be carried yet");
}

/* ---- target */

struct make {
	const Pm__BodyMem *m;
	int op;
};

/* Raw calls: those of the library change the whole process. */
static int become(uint32_t uid, uint32_t gid)
{
	if (syscall(SYS_setresgid, -1, gid, -1) < 0 || syscall(SYS_setresuid, -1, uid, -1) < 0)
		return -errno;
	return 0;
}

static int make(void *arg, struct err *e)
{
	const Pm__BodyMem *m = ((struct make *)arg)->m;
	struct shmid_ds ds = { .shm_perm = { .uid = m->uid, .gid = m->gid, .mode = (unsigned short)(m->mode & 0777) } };
	char text[16];
	int id, q, err;

	snprintf(text, sizeof(text), "%d", (int)m->sysv_id);
	q = io_write_file("/proc/sys/kernel/shm_next_id", text, e);
	if (q < 0)
		return q;
	/* who made it is who it is when it is made */
	q = become(m->cuid, m->cgid);
	id = q < 0 ? -1 : shmget(m->mode & SHM_DEST ? IPC_PRIVATE : m->sysv_key, m->size, IPC_CREAT | IPC_EXCL | (int)(m->mode & 0777));
	err = errno;
	if (become(0, 0) < 0 || q < 0)
		return err_num(e, q < 0 ? q : -EPERM, "make a System V segment as user %u", m->cuid);
	if (id < 0)
		return err_num(e, err, "make the System V segment %d (key 0x%x)", (int)m->sysv_id, (unsigned)m->sysv_key);
	if (id != (int)m->sysv_id) {
		shmctl(id, IPC_RMID, NULL);
		return err_set(e, EEXIST, "the System V segment %d would be %d here", (int)m->sysv_id, id);
	}
	if (shmctl(id, IPC_SET, &ds) < 0)
		return err_sys(e, "owner of the System V segment %d", id);
	return open_segment(id, m->size, O_RDWR, e);
}

static int control(void *arg, struct err *e)
{
	const struct make *a = arg;
	struct shmid_ds ds = { .shm_perm = { .uid = a->m->uid, .gid = a->m->gid,
					     .mode = (unsigned short)(a->m->mode & 0777) } };

	return shmctl((int)a->m->sysv_id, a->op, &ds) < 0 && errno != EINVAL && errno != EIDRM ?
		       err_sys(e, "System V segment %d", (int)a->m->sysv_id) : 0;
}

int sysv_make(struct restore *r, const Pm__BodyMem *m, struct err *e)
{
	struct make a = { m, 0 };

	if (!m->size || m->size > 1ull << 46)
		return err_set(e, EBADMSG, "a System V segment of %lu bytes", (unsigned long)m->size);
	return sysv_visit(r->ns.pid, make, &a, e);
}

static int hold(void *arg, struct err *e)
{
	struct rcontent *c = arg;
	void *at = shmat((int)c->body->sysv_id, NULL, SHM_RDONLY);

	if (at == (void *)-1)
		return err_sys(e, "attach the System V segment %d", (int)c->body->sysv_id);
	c->held = at;
	return shmctl((int)c->body->sysv_id, IPC_RMID, NULL) < 0 ? err_sys(e, "System V segment %d", (int)c->body->sysv_id) : 0;
}

int sysv_gone(struct restore *r, struct rcontent *c, struct err *e)
{
	return sysv_visit(r->ns.pid, hold, c, e);
}

int sysv_remove(struct restore *r, const Pm__BodyMem *m, struct err *e)
{
	struct make a = { m, IPC_RMID };

	return sysv_visit(r->ns.pid, control, &a, e);
}

int sysv_finish(struct restore *r, struct rcontent *c, struct err *e)
{
	struct make a = { c->body, IPC_SET };
	int q = c->held ? 0 : sysv_visit(r->ns.pid, control, &a, e);

	if (q >= 0 && !c->held && (c->body->mode & SHM_DEST))
		q = sysv_remove(r, c->body, e);
	if (c->held)
		shmdt(c->held);
	c->held = NULL;
	return q;
}
