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
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/ipc.h>
#include <sys/shm.h>
#include <sys/syscall.h>

#include "pod/base/util.h"
#include "pod/kind/ipc.h"

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
int sysv_open_segment(int id, uint64_t size, int flags, struct err *e)
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

/* ---- target */

struct make {
	const Pm__BodyMem *m;
	int op;
};

static int get(const void *arg, key_t key, int flags)
{
	const Pm__BodyMem *m = arg;

	return shmget(key, m->size, flags);
}

static int make(void *arg, struct err *e)
{
	const Pm__BodyMem *m = ((struct make *)arg)->m;
	struct shmid_ds ds = { .shm_perm = { .uid = m->uid, .gid = m->gid, .mode = (unsigned short)(m->mode & 0777) } };
	Pm__IpcPerm p = PM__IPC_PERM__INIT;
	int id;

	p.id = m->sysv_id;
	p.key = m->mode & SHM_DEST ? IPC_PRIVATE : m->sysv_key;
	p.mode = m->mode;
	p.cuid = m->cuid;
	p.cgid = m->cgid;
	id = ipc_create("shm", "System V segment", &p, get, m, e);
	if (id < 0)
		return id;
	if (shmctl(id, IPC_SET, &ds) < 0)
		return err_sys(e, "owner of the System V segment %d", id);
	return sysv_open_segment(id, m->size, O_RDWR, e);
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
