/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * What kinds may ask of a restore. Calls that must be made inside the pod (open, bind, a new socket)
 * are made by one thread that has entered its mount and network namespaces; it takes the user's file
 * system credentials for what the user could have opened. A file system there may never answer: who waits
 * for the thread gives up after a while, and the engine with it, as the thread cannot be called back.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <time.h>

#include "pod/base/io.h"
#include "pod/base/prio.h"
#include "pod/base/util.h"
#include "pod/dump.h"
#include "pod/kind/ipc.h"
#include "pod/restore.h"
#include "pod/sysv.h"

#define IN_POD_MS 20000

struct in_pod {
	pthread_t thread;
	pthread_mutex_t lock;
	pthread_cond_t wake, done;
	struct restore *r;
	int (*fn)(void *arg, struct err *e);
	void *arg;
	struct err *e;
	bool as_user, stop, ready;
	int ret;
};

static int enter(struct restore *r)
{
	if (unshare(CLONE_FS) < 0 || setns(r->mntns, CLONE_NEWNS) < 0)
		return -errno;
	if (setns(r->netns, CLONE_NEWNET) < 0)
		return -errno;
	return 0;
}

/* Raw calls: those of the library change the whole process. */
static int be_user(const Pm__PodSpec *spec, bool on)
{
	if (!spec->uid)
		return 0;
	if (on) {
		if (syscall(SYS_setgroups, spec->n_groups, spec->groups) < 0)
			return -errno;
		syscall(SYS_setfsgid, spec->gid);
		syscall(SYS_setfsuid, spec->uid);
	} else {
		syscall(SYS_setfsuid, 0);
		syscall(SYS_setfsgid, 0);
		if (syscall(SYS_setgroups, 0, NULL) < 0)
			return -errno;
	}
	return 0;
}

static int work(struct in_pod *p, int *entered)
{
	int q;

	if (*entered < 0)
		return err_num(p->e, *entered, "enter the pod's namespaces");
	q = p->as_user ? be_user(p->r->req->spec, true) : 0;
	q = q < 0 ? err_num(p->e, q, "take the user's credentials") : p->fn(p->arg, p->e);
	if (p->as_user && be_user(p->r->req->spec, false) < 0)
		*entered = -EPERM;
	return q;
}

static void *in_pod_main(void *arg)
{
	struct in_pod *p = arg;
	int entered, ret;

	if (!p->r->s.file)
		prio_quick(true); /* it only works while somebody waits for it */
	entered = enter(p->r);

	pthread_mutex_lock(&p->lock);
	while (!p->stop) {
		if (!p->fn) {
			pthread_cond_wait(&p->wake, &p->lock);
			continue;
		}
		pthread_mutex_unlock(&p->lock); /* a wait that gives up must get it */
		ret = work(p, &entered);
		pthread_mutex_lock(&p->lock);
		p->ret = ret;
		p->fn = NULL;
		pthread_cond_signal(&p->done);
	}
	pthread_mutex_unlock(&p->lock);
	return NULL;
}

int in_pod_start(struct restore *r, struct err *e)
{
	struct in_pod *p = r->in_pod ? NULL : calloc(1, sizeof(*p));
	pthread_condattr_t attr;
	sigset_t all, old;
	int q;

	if (r->in_pod)
		return 0;
	if (!p)
		return err_num(e, ENOMEM, "thread");
	p->r = r;
	pthread_mutex_init(&p->lock, NULL);
	pthread_cond_init(&p->wake, NULL);
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&p->done, &attr);
	pthread_condattr_destroy(&attr);
	sigfillset(&all);
	pthread_sigmask(SIG_BLOCK, &all, &old); /* the tick is for the tracer */
	q = pthread_create(&p->thread, NULL, in_pod_main, p);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	if (q) {
		free(p);
		return err_num(e, q, "thread");
	}
	r->in_pod = p;
	return 0;
}

void in_pod_stop(struct restore *r)
{
	struct in_pod *p = r->in_pod;

	if (!p)
		return;
	pthread_mutex_lock(&p->lock);
	p->stop = true;
	pthread_cond_signal(&p->wake);
	pthread_mutex_unlock(&p->lock);
	pthread_join(p->thread, NULL);
	free(p);
	r->in_pod = NULL;
}

/* What the thread works on is the caller's: if it does not come back, neither may we. */
static void wait_done(struct restore *r, struct in_pod *p)
{
	uint64_t end = deadline_ms(IN_POD_MS);
	struct err late = { 0 };

	while (p->fn && !deadline_past(end)) {
		uint64_t until = deadline_ms((uint64_t)deadline_left_ms(end));
		struct timespec ts = { (time_t)(until / NSEC_PER_SEC), (long)(until % NSEC_PER_SEC) };

		pthread_cond_timedwait(&p->done, &p->lock, &ts);
	}
	if (!p->fn)
		return;
	err_set(&late, ETIMEDOUT, "a file of the pod has not been opened within %d s on the target", IN_POD_MS / 1000);
	restore_give_up(r, &late);
}

int restore_in_pod(struct restore *r, bool as_user, int (*fn)(void *arg, struct err *e), void *arg, struct err *e)
{
	struct in_pod *p;
	int q = in_pod_start(r, e);

	if (q < 0)
		return q;
	p = r->in_pod;
	pthread_mutex_lock(&p->lock);
	p->as_user = as_user;
	p->arg = arg;
	p->e = e;
	p->fn = fn;
	pthread_cond_signal(&p->wake);
	wait_done(r, p);
	q = p->ret;
	pthread_mutex_unlock(&p->lock);
	return q;
}

int restore_netns(struct restore *r)
{
	return r->netns;
}

bool restore_peer_gone(struct restore *r, uint32_t addr)
{
	struct in_addr own = { 0 };

	if (!r->req->image || ntohl(addr) >> 24 == 127)
		return false;
	for (size_t i = 0; i < r->req->image->n_peers; i++) /* cut together with this pod */
		if (inet_pton(AF_INET, r->req->image->peers[i], &own) == 1 && own.s_addr == addr)
			return false;
	return !r->req->spec->ip || inet_pton(AF_INET, r->req->spec->ip, &own) != 1 || own.s_addr != addr;
}

struct open_arg {
	const char *path;
	int flags;
	mode_t mode;
	const Pm__PodSpec *spec;
};

static int be_owner(const Pm__PodSpec *spec, bool on)
{
	return !spec->uid ? 0 : on ? ipc_become(spec->uid, spec->gid) : ipc_become(0, 0);
}

/* Wholly the user, not only for the file system: an open file remembers who opened it, and files of /proc ask that at each read.
 * What setfsuid() had said goes with it. */
static int open_as(const struct open_arg *o)
{
	int fd, err;

	if (be_owner(o->spec, true) < 0)
		return -1;
	fd = open(o->path, o->flags | O_CLOEXEC | O_NOCTTY, o->mode);
	err = errno;
	if (be_owner(o->spec, false) < 0)
		abort(); /* with the user's rights nothing can go on, nor be undone */
	syscall(SYS_setfsgid, o->spec->gid);
	syscall(SYS_setfsuid, o->spec->uid);
	errno = err;
	return fd;
}

static int do_open(void *arg, struct err *e)
{
	const struct open_arg *o = arg;
	int fd = o->spec->uid ? open_as(o) : open(o->path, o->flags | O_CLOEXEC | O_NOCTTY, o->mode);

	return fd < 0 ? err_sys(e, "open '%s'", o->path) : fd;
}

int restore_in_ipc(struct restore *r, int (*fn)(void *arg, struct err *e), void *arg, struct err *e)
{
	return sysv_visit(r->ns.pid, fn, arg, e);
}

int restore_check_owner(struct restore *r, uint32_t uid, uint32_t gid, const char *name, struct err *e)
{
	return rtmpfs_owner(r->req->spec, uid, gid, name, e);
}

int restore_open(struct restore *r, const char *path, int flags, mode_t mode, struct err *e)
{
	struct open_arg o = { path, flags, mode, r->req->spec };

	return restore_in_pod(r, true, do_open, &o, e);
}

int restore_park(struct restore *r, uint16_t type, uint64_t key, int fd, struct err *e)
{
	struct parked *np = realloc(r->parked, (r->nparked + 1) * sizeof(*np));

	if (!np) {
		close(fd);
		return err_num(e, ENOMEM, "parked files");
	}
	r->parked = np;
	np[r->nparked++] = (struct parked){ type, key, fd };
	return 0;
}

int restore_unpark(struct restore *r, uint16_t type, uint64_t key)
{
	size_t i;

	for (i = 0; i < r->nparked; i++)
		if (r->parked[i].fd >= 0 && r->parked[i].type == type && r->parked[i].key == key)
			return take_fd(&r->parked[i].fd);
	return -1;
}

struct robject *restore_next_object(struct restore *r, size_t *i)
{
	return *i < r->nobjects ? &r->objects[(*i)++] : NULL;
}

struct robject *restore_object(struct restore *r, uint32_t id)
{
	size_t i;

	for (i = 0; i < r->nobjects; i++)
		if (r->objects[i].msg->id == id)
			return &r->objects[i];
	return NULL;
}

int restore_pod_clock(struct restore *r, struct timespec *out, struct err *e)
{
	int64_t mine[2], pod[2], at;
	int q = host_timens_offsets(getpid(), mine, e);

	if (q >= 0)
		q = host_timens_offsets(r->ns.pid, pod, e);
	if (q < 0)
		return q;
	clock_gettime(CLOCK_MONOTONIC, out);
	at = out->tv_sec * 1000000000ll + out->tv_nsec - mine[0] + pod[0];
	*out = (struct timespec){ (time_t)(at / 1000000000), (long)(at % 1000000000) };
	return 0;
}

int restore_content(struct restore *r, uint32_t id, struct err *e)
{
	struct rcontent *c = robj_content(r, id);

	if (!c || c->fd < 0)
		return err_set(e, EBADMSG, "unknown content %u", id);
	return c->fd;
}

static int take_pair(struct restore *r, struct rproc *p, const int32_t num[2], int sv[2], struct err *e)
{
	autoclose int pidfd = (int)syscall(SYS_pidfd_open, p->pid, 0), a = -1, b = -1;

	if (pidfd < 0)
		return err_sys(e, "pidfd of %d", p->pid);
	a = (int)syscall(SYS_pidfd_getfd, pidfd, num[0], 0);
	b = (int)syscall(SYS_pidfd_getfd, pidfd, num[1], 0);
	if (a < 0 || b < 0)
		return err_sys(e, "take a socket pair out of pid %d", p->nspid);
	batch_begin(r->b, r->scratch);
	batch_add1(r->b, SYS_close, num[0]);
	batch_add1(r->b, SYS_close, num[1]);
	sv[0] = take_fd(&a);
	sv[1] = take_fd(&b);
	return 0;
}

int restore_socketpair(struct restore *r, int type, pid_t nspid, uid_t uid, gid_t gid, int sv[2], struct err *e)
{
	struct rproc *p = rproc_by_ns(r, nspid);
	int32_t num[2];
	uint64_t out;
	int q;

	if (!p || p->zombie || !p->ntasks)
		return err_num(e, ESRCH, "pid %d", nspid);
	batch_begin(r->b, r->scratch);
	out = batch_data(r->b, NULL, sizeof(num));
	/* the kernel notes the effective ids; the skeleton is root in its saved ones meanwhile */
	batch_add3(r->b, SYS_setresgid, -1, gid, -1);
	batch_add3(r->b, SYS_setresuid, -1, uid, -1);
	batch_add4(r->b, SYS_socketpair, AF_UNIX, type, 0, out);
	batch_add3(r->b, SYS_setresuid, -1, 0, -1);
	batch_add3(r->b, SYS_setresgid, -1, 0, -1);
	q = batch_run_ok(p->tasks[0], r->b, deadline_ms(5000), e);
	if (q < 0)
		return q;
	memcpy(num, batch_local(r->b, out), sizeof(num));
	q = take_pair(r, p, num, sv, e);
	if (q < 0)
		return q;
	q = batch_run_ok(p->tasks[0], r->b, deadline_ms(5000), e);
	if (q < 0) {
		close(sv[0]);
		close(sv[1]);
	}
	return q;
}

bool restore_of_user(struct restore *r)
{
	return r->req->spec->uid != 0;
}

int restore_as_owner(struct restore *r, int (*fn)(void *arg, struct err *e), void *arg, struct err *e)
{
	int q = be_owner(r->req->spec, true);

	q = q < 0 ? err_num(e, q, "take the user's credentials") : fn(arg, e);
	if (be_owner(r->req->spec, false) < 0)
		abort(); /* with the user's rights nothing can go on, nor be undone */
	return q;
}

bool restore_may_be(struct restore *r, uid_t uid, gid_t gid)
{
	return rtmpfs_may_be(r->req->spec, uid, gid);
}

pid_t restore_host_pid(struct restore *r, pid_t nspid)
{
	const struct rproc *p = rproc_by_ns(r, nspid);

	return p ? p->pid : 0;
}
