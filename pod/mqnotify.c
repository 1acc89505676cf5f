/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * mq_notify(2): who is to hear by a signal that a message has come to an empty POSIX message queue.
 *
 * Theory of operation. A queue's file says who has registered and for which signal, but not the value that comes with it. So the
 * signal is called for: in one batch in the registered process, with all its signals blocked, a message comes and is
 * taken, the signal is taken, and the registration is made again with the value that it brought. A batch comes to
 * its end even if the engine does not. On the target the process registers when all queues hold what they held.
 *
 * Refused by the kind (pod/kind/mqueue.c): registrations by netlink (SIGEV_THREAD), for signals that cannot be taken so, or while
 * there are messages; and here, while that signal is pending already, since another of it would not come, or not alone.
 */
#include "pod/mqnotify.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/uio.h>

#include "pod/base/io.h"
#include "pod/base/util.h"
#include "pod/kind/kinds.h"

#define CALL_MS 2000
#define AT_VALUE 24 /* of siginfo_t */
#define SIGEVENT 64

/* The calls that take the number that open(2) gives, which is known only in the task; see add_ctty() of pty.c. */
static void add_traffic(struct batch *b, const struct proc *p, int fdno, const struct mqueue_state *s)
{
	uint64_t fd = batch_data(b, NULL, sizeof(uint64_t)), buf = batch_data(b, NULL, (size_t)s->attr.mq_msgsize), local, remote;
	struct iovec from = { (void *)(uintptr_t)fd, sizeof(uint64_t) }, to[3];
	char path[32];
	unsigned c[3], k;

	snprintf(path, sizeof(path), "/proc/thread-self/fd/%d", fdno);
	k = batch_add3(b, SYS_open, batch_data(b, path, sizeof(path)), O_RDWR | O_NONBLOCK | O_CLOEXEC, 0);
	b->e[k].also = fd;
	local = batch_data(b, (struct iovec[3]){ from, from, from }, 3 * sizeof(from));
	remote = batch_data(b, NULL, sizeof(to));
	batch_add(b, SYS_process_vm_writev, (uint64_t)proc_first(p)->nstid, local, 3, remote, 3, 0);
	c[0] = batch_add(b, SYS_mq_timedsend, 0, buf, 0, 0, 0, 0);
	c[1] = batch_add(b, SYS_mq_timedreceive, 0, buf, (uint64_t)s->attr.mq_msgsize, 0, 0, 0);
	c[2] = batch_add1(b, SYS_close, 0); /* first: the owner's close ends a registration */
	for (k = 0; k < 3; k++)
		to[k] = (struct iovec){ (void *)(uintptr_t)batch_arg_addr(b, c[k], 0), sizeof(uint64_t) };
	if (!b->overflow)
		memcpy(batch_local(b, remote), to, sizeof(to));
}

/* Calls for the signal, and registers again. */
static int ask_value(struct dump *d, struct proc *p, int fdno, const struct mqueue_state *s, uint64_t *value, struct err *e)
{
	uint64_t set = 1ull << (s->signo - 1), zero[2] = { 0, 0 }, info, noise;
	struct batch *b = d->b;
	unsigned taken, k;
	int r;

	if ((p->st.sig_pnd | p->st.shd_pnd) & set)
		return err_set(e, EBUSY, "pid %d (%s): fd %d is a message queue that it is to hear of by signal %d, which is pending: cannot be carried now",
			       p->nspid, p->st.comm, fdno, s->signo);
	batch_begin(b, p->scratch);
	add_traffic(b, p, fdno, s);
	info = batch_data(b, NULL, sizeof(siginfo_t)); /* and the sigevent in it */
	noise = batch_data(b, NULL, 64);
	taken = batch_add4(b, SYS_rt_sigtimedwait, batch_data(b, &set, sizeof(set)), info, batch_data(b, zero, sizeof(zero)), 8);
	/* what it answers, the signal's number, is the sigevent's word after the value; SIGEV_SIGNAL is 0 */
	k = batch_add3(b, SYS_getrandom, noise, s->signo, 0);
	b->e[k].also = info + AT_VALUE + sizeof(uint64_t);
	k = batch_add2(b, SYS_mq_notify, fdno, info + AT_VALUE);
	r = batch_run(proc_first(p), b, deadline_ms(CALL_MS), e);
	if (r < 0)
		return r;
	if (b->e[taken].ret != s->signo || b->e[k].ret < 0)
		return err_set(e, EIO, "pid %d (%s): fd %d is a message queue that it is to hear of by signal %d: it cannot be asked for (%lld, %lld, %lld)",
			       p->nspid, p->st.comm, fdno, s->signo, (long long)b->e[0].ret, (long long)b->e[taken].ret,
			       (long long)b->e[k].ret);
	memcpy(value, (uint8_t *)batch_local(b, info) + AT_VALUE, sizeof(*value));
	return 0;
}

static int take_one(struct dump *d, struct proc *p, const struct fdref *f, Pm__Proc *m, struct err *e)
{
	autoclose int fd = kind_reopen(f->o->p.fd, O_RDONLY, e);
	struct mqueue_state s;
	Pm__MqNotify *n;
	int r = fd < 0 ? fd : kind_mqueue_state(fd, &s, e);
	size_t i;

	if (r < 0 || s.owner != p->pid)
		return r;
	for (i = 0; i < m->n_notifies; i++) /* by another fd of the same queue */
		if (dump_find_fd(d, p->nspid, (int)m->notifies[i]->fd)->p.st.st_ino == f->o->p.st.st_ino)
			return 0;
	n = dump_alloc(d, sizeof(*n));
	pm__mq_notify__init(n);
	n->fd = (uint32_t)f->fdno;
	n->how = (uint32_t)s.how;
	n->signo = (uint32_t)s.signo;
	if (s.how == SIGEV_SIGNAL && s.signo)
		r = ask_value(d, p, f->fdno, &s, &n->value, e);
	m->notifies[m->n_notifies++] = n;
	return r;
}

int mqnotify_take(struct dump *d, struct proc *p, Pm__Proc *m, struct err *e)
{
	size_t i, n = 0;
	int r = 0;

	for (i = 0; i < d->nfds; i++)
		n += d->fds[i].nspid == p->nspid && d->fds[i].o->kind == &kind_mqueue_fd;
	if (n)
		m->notifies = dump_alloc(d, n * sizeof(*m->notifies));
	for (i = 0; n && r >= 0 && i < d->nfds; i++)
		if (d->fds[i].nspid == p->nspid && d->fds[i].o->kind == &kind_mqueue_fd)
			r = take_one(d, p, &d->fds[i], m, e);
	return r;
}

/* ---- target */

int mqnotify_give(struct restore *r, struct rproc *p, struct err *e)
{
	const Pm__Proc *w = p->want;
	size_t i;
	int q;

	if (!w->n_notifies)
		return 0;
	batch_begin(r->b, r->scratch);
	for (i = 0; i < w->n_notifies; i++) {
		const Pm__MqNotify *n = w->notifies[i];
		uint64_t ev[SIGEVENT / sizeof(uint64_t)] = { n->value, n->signo | (uint64_t)n->how << 32 };

		if (n->how == SIGEV_THREAD)
			return err_set(e, EBADMSG, "pid %d: hears of messages by netlink", p->nspid);
		batch_add2(r->b, SYS_mq_notify, n->fd, batch_data(r->b, ev, sizeof(ev)));
	}
	q = batch_run_ok(p->tasks[0], r->b, deadline_ms(CALL_MS), e);
	return q < 0 ? err_wrap(e, "pid %d (%s): mq_notify", p->nspid, w->comm) : 0;
}
