/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Work in another network namespace is done by a short-lived thread of ours that enters it, so that
 * the caller never stands in a namespace it did not choose, whatever fails. setns() to a network
 * namespace is per thread. The price is about 50 us, hence everything that the freeze needs (filter
 * socket, sockets for the connections, capture) is opened before it.
 */
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>

#include "netfreeze/netfreeze.h"
#include "pod/base/util.h"

struct visit {
	int netns;
	int (*fn)(void *arg, struct err *e);
	void *arg;
	struct err err;
	int ret;
	pid_t tid;
};

static void *visit_thread(void *p)
{
	struct visit *v = p;

	v->tid = (pid_t)syscall(SYS_gettid);
	if (setns(v->netns, CLONE_NEWNET) < 0)
		v->ret = err_sys(&v->err, "enter network namespace");
	else
		v->ret = v->fn(v->arg, &v->err);
	return NULL;
}

/**
 * netns_run - run @fn(@arg) in a thread that has entered @netns
 *
 * Returns what @fn returns, or a negative errno. When it returns, the thread is gone from the
 * thread group: the caller may at once make calls that want a single-threaded process.
 */
int netns_run(int netns, int (*fn)(void *arg, struct err *e), void *arg, struct err *e)
{
	struct visit v = {.netns = netns, .fn = fn, .arg = arg};
	sigset_t all, old;
	pthread_t t;
	int r;

	if (netns < 0)
		return fn(arg, e);
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	r = pthread_create(&t, NULL, visit_thread, &v);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	if (r)
		return err_num(e, r, "start a thread");
	pthread_join(t, NULL);
	/* join returns when the thread's memory is free, which is a little before it has left the
	 * group */
	while (syscall(SYS_tgkill, getpid(), v.tid, 0) == 0)
		sched_yield();
	if (v.ret < 0 && e)
		*e = v.err;
	return v.ret;
}

struct socket_req {
	int domain, type, protocol;
	size_t n;
	int *fds;
};

static int make_sockets(void *arg, struct err *e)
{
	struct socket_req *q = arg;
	size_t i;
	int r;

	for (i = 0; i < q->n; i++) {
		q->fds[i] = socket(q->domain, q->type | SOCK_CLOEXEC, q->protocol);
		if (q->fds[i] < 0) {
			r = err_sys(e, "socket");
			while (i > 0) {
				i--;
				close(q->fds[i]);
				q->fds[i] = -1;
			}
			return r;
		}
	}
	return 0;
}

/** netns_sockets - make @n sockets in @netns into @fds[]: all (0) or none (negative errno). */
int netns_sockets(int netns, int domain, int type, int protocol, int *fds, size_t n, struct err *e)
{
	struct socket_req q = {domain, type, protocol, n, fds};

	return netns_run(netns, make_sockets, &q, e);
}

/** netns_socket - socket(2) in @netns; an O_CLOEXEC fd or a negative errno */
int netns_socket(int netns, int domain, int type, int protocol, struct err *e)
{
	int fd = -1;
	int r = netns_sockets(netns, domain, type, protocol, &fd, 1, e);

	return r < 0 ? r : fd;
}
