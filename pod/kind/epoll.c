/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * epoll.
 *
 * Theory of operation. An item is known by the fd number that it was added with and by the open
 * description behind it, which lives on in the epoll when that number is closed or used anew while
 * another copy is open. fdinfo shows the number alone; kcmp(KCMP_EPOLL_TFD), asked with the engine's
 * own duplicates of both, tells whether a given description is the one meant.
 *
 * The target adds the items inside the processes: for each item the dump chooses a process that
 * holds the epoll and the item's file, best at the item's number; else the file is put at that number
 * for the moment of the call, and what was there comes back.
 *
 * Level-triggered items are looked at anew by the kernel, which is right. An edge-triggered item that
 * was reported and is still ready must not be reported again; so the dump has to know what the epoll
 * would report now, and the only way to ask is to take the events: epoll_wait(2), and for each
 * edge-triggered or one-shot item that it gave, epoll_ctl(MOD) with what the item had, which makes it
 * pending again (by a thread that has the file at the item's number). On restore the items that
 * are not pending (`quiet`) are added first and what they report is thrown away. A disarmed one-shot
 * item is one of them: so it is disarmed against errors and hang-ups too.
 *
 * An epoll that watches another one is an item as any other. But that one's items may be added later, and what is put back
 * into it counts as new: so an edge that was reported of an epoll may be reported once more.
 *
 * Limits, refused by name: items whose file no process has any more that has the epoll. A disarmed one-shot item
 * hears of an error or a hang-up that comes after the move.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/kcmp.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/syscall.h>

#include "pod/base/util.h"
#include "pod/kind/kinds.h"

#define EPOLL_LINK "anon_inode:[eventpoll]"
#define ARMED_BITS (~(uint32_t)(EPOLLET | EPOLLONESHOT | EPOLLWAKEUP | EPOLLEXCLUSIVE))

static bool match(const struct probe *p)
{
	return !strcmp(p->link, EPOLL_LINK) && !kind_is_o_path(p);
}

struct item {
	uint32_t fd, events;
	uint64_t data;
};

/* The next "tfd:" line of *@info. */
static bool next_item(const char **info, struct item *it)
{
	const char *p = kind_info_line(*info, "tfd");
	unsigned long long data;
	unsigned fd, events;

	if (!p)
		return false;
	*info = strchr(p, '\n');
	*info = *info ? *info + 1 : p + strlen(p);
	if (sscanf(p, "%u events: %x data: %llx", &fd, &events, &data) != 3)
		return false;
	*it = (struct item){ fd, events, data };
	return true;
}

static int check(struct dump *d, const struct probe *p, struct err *e)
{
	(void)d;
	return kind_check_common(p, e);
}

/* ---- whose file is it */

/* Is @x the description behind the @nth item with number @fd? */
static bool is_target(const struct object *o, const struct object *x, uint32_t fd, uint32_t nth)
{
	struct kcmp_epoll_slot slot = { (uint32_t)o->p.fd, fd, nth };
	pid_t self = getpid();

	return syscall(SYS_kcmp, self, self, KCMP_EPOLL_TFD, x->p.fd, &slot) == 0;
}

/* The item's file: at its number in some process, most likely; else any. */
static struct object *find_target(struct dump *d, struct object *o, uint32_t fd, uint32_t nth)
{
	struct object *x;
	pid_t nspid;
	size_t i = 0;
	int epfd;

	while (dump_next_holder(d, o, &i, &nspid, &epfd)) {
		x = dump_find_fd(d, nspid, (int)fd);
		if (x && is_target(o, x, fd, nth))
			return x;
	}
	for (i = 0; (x = dump_next_object(d, &i));)
		if (is_target(o, x, fd, nth))
			return x;
	return NULL;
}

/* A process that has both the epoll and the file. */
static bool find_holder(struct dump *d, struct object *o, struct object *x, Pm__EpollItem *m)
{
	pid_t nspid, npid;
	size_t i, k;
	int epfd, at;

	for (i = 0; dump_next_holder(d, o, &i, &nspid, &epfd);) {
		if (dump_find_fd(d, nspid, (int)m->fd) == x) {
			m->pid = (uint32_t)nspid;
			m->epfd = (uint32_t)epfd;
			m->at = m->fd;
			return true;
		}
	}
	for (i = 0; dump_next_holder(d, o, &i, &nspid, &epfd);) {
		for (k = 0; dump_next_holder(d, x, &k, &npid, &at);) {
			/* at a number where the epoll itself is, it cannot be put */
			if (npid != nspid || (uint32_t)epfd == m->fd)
				continue;
			m->pid = (uint32_t)nspid;
			m->epfd = (uint32_t)epfd;
			m->at = (uint32_t)at;
			return true;
		}
	}
	return false;
}

static int add_item(struct dump *d, struct object *o, Pm__BodyEpoll *m, struct object **target,
		    const struct item *it, struct err *e)
{
	Pm__EpollItem *x = dump_alloc(d, sizeof(*x));
	uint32_t nth = 0;
	size_t i;

	for (i = 0; i < m->n_items; i++)
		nth += m->items[i]->fd == it->fd;
	pm__epoll_item__init(x);
	x->fd = it->fd;
	x->events = it->events;
	x->data = it->data;
	*target = find_target(d, o, it->fd, nth);
	if (!*target || !find_holder(d, o, *target, x))
		return KIND_REFUSE(e, "an epoll watches a file that was added as fd %u and that no process with the epoll has any more",
				   it->fd);
	x->object = (*target)->id;
	m->items[m->n_items++] = x;
	return 0;
}

/* ---- what would be reported */
struct put_back {
	int epfd, file;
	const Pm__EpollItem *it;
	struct err *e;
	int ret;
};

/* In a thread with an fd table of its own: any number can be taken. */
static void *put_back_thread(void *arg)
{
	struct put_back *p = arg;
	const Pm__EpollItem *it = p->it;
	struct epoll_event ev = { .events = it->events, .data = { .u64 = it->data } };
	bool excl = it->events & EPOLLEXCLUSIVE; /* cannot be modified */
	int ep = p->epfd, file = p->file, fd = (int)it->fd;

	if (unshare(CLONE_FILES) < 0) {
		p->ret = err_sys(p->e, "unshare");
		return NULL;
	}
	if (ep == fd)
		ep = fcntl(ep, F_DUPFD, fd + 1);
	if ((file != fd && dup2(file, fd) < 0) || ep < 0 ||
	    (excl ? epoll_ctl(ep, EPOLL_CTL_DEL, fd, &ev) < 0 || epoll_ctl(ep, EPOLL_CTL_ADD, fd, &ev) < 0 :
		    epoll_ctl(ep, EPOLL_CTL_MOD, fd, &ev) < 0))
		p->ret = err_sys(p->e, "put an event of fd %d back into an epoll", fd);
	return NULL;
}

static int put_back(struct object *o, const struct object *target, const Pm__EpollItem *it, struct err *e)
{
	struct put_back p = { o->p.fd, target->p.fd, it, e, 0 };
	pthread_t t;
	int q = pthread_create(&t, NULL, put_back_thread, &p);

	if (q)
		return err_num(e, q, "thread");
	pthread_join(t, NULL);
	return p.ret;
}

static bool is_armed(const Pm__EpollItem *it)
{
	return it->events & ARMED_BITS;
}

/* Takes the pending events, notes which items had one, makes them pending again. */
static int find_pending(struct dump *d, struct object *o, Pm__BodyEpoll *m, struct object **targets,
			struct err *e)
{
	size_t n = m->n_items, i;
	struct epoll_event *ev = dump_alloc(d, n * sizeof(*ev));
	int got = epoll_wait(o->p.fd, ev, (int)n, 0), k, q, r = 0;

	if (got < 0)
		return err_sys(e, "epoll_wait");
	for (i = 0; i < n; i++) {
		Pm__EpollItem *it = m->items[i];

		if (!(it->events & (EPOLLET | EPOLLONESHOT)))
			continue;
		/* an armed one-shot that is not pending is not ready */
		it->quiet = !is_armed(it) || !(it->events & EPOLLONESHOT);
		for (k = 0; k < got; k++) {
			/* items may share their data: then each of them is taken for pending */
			if (ev[k].data.u64 != it->data)
				continue;
			it->quiet = !is_armed(it);
			if (!is_armed(it))
				continue;
			q = put_back(o, targets[i], it, e);
			r = r < 0 ? r : q;
			break;
		}
	}
	return r;
}

static int dump(struct dump *d, struct object *o, ProtobufCMessage **body, struct err *e)
{
	Pm__BodyEpoll *m = dump_alloc(d, sizeof(*m));
	autofree char *text = NULL;
	struct object **targets;
	bool edges = false;
	const char *info;
	struct item it;
	size_t n = 0;
	int r = kind_check_common(&o->p, e);

	if (r == 0)
		r = kind_info_now(o->p.fd, &text, e);
	if (r < 0)
		return r;
	pm__body_epoll__init(m);
	*body = &m->base;
	for (info = text; next_item(&info, &it);)
		n++;
	m->items = dump_alloc(d, n * sizeof(*m->items));
	targets = dump_alloc(d, n * sizeof(*targets));
	for (info = text; r == 0 && next_item(&info, &it);) {
		edges = edges || (it.events & (EPOLLET | EPOLLONESHOT));
		r = add_item(d, o, m, &targets[m->n_items], &it, e);
	}
	return r == 0 && edges ? find_pending(d, o, m, targets, e) : r;
}

/* ---- restore */
static int restore(struct restore *r, struct robject *o, struct err *e)
{
	(void)r;
	o->fd = epoll_create1(EPOLL_CLOEXEC);
	return o->fd < 0 ? err_sys(e, "epoll_create1") : 0;
}

/* What the process has at @fd: 0 nothing, 1 something, 2 something that is closed on exec. */
static int number_use(const Pm__Proc *proc, uint32_t fd)
{
	size_t i;

	for (i = 0; i < proc->n_fds; i++)
		if (proc->fds[i]->fd == fd)
			return proc->fds[i]->cloexec ? 2 : 1;
	return 0;
}

/* A number that neither the process nor the engine uses. */
static uint32_t spare_number(const Pm__Proc *proc)
{
	uint32_t top = 1100; /* the engine's own fds in a process lie around 1000 or follow the highest */
	size_t i;

	for (i = 0; i < proc->n_fds; i++)
		top = MAX(top, proc->fds[i]->fd + 8);
	return top;
}

static void add_one(const Pm__Proc *proc, const Pm__EpollItem *it, int epfd, struct batch *b)
{
	struct epoll_event ev = { .events = it->events, .data = { .u64 = it->data } };
	int use = it->at == it->fd ? 0 : number_use(proc, it->fd);
	uint32_t spare = spare_number(proc);

	if (use)
		batch_add3(b, SYS_dup3, it->fd, spare, O_CLOEXEC);
	if (it->at != it->fd)
		batch_add3(b, SYS_dup3, it->at, it->fd, O_CLOEXEC);
	batch_add4(b, SYS_epoll_ctl, epfd, EPOLL_CTL_ADD, it->fd, batch_data(b, &ev, sizeof(ev)));
	if (use) {
		batch_add3(b, SYS_dup3, spare, it->fd, use == 2 ? O_CLOEXEC : 0);
		batch_add1(b, SYS_close, spare);
	} else if (it->at != it->fd) {
		batch_add1(b, SYS_close, it->fd);
	}
}

/* Two passes over the items, o->placed counts through both: quiet ones, each with its event taken, then the rest. */
static int place(struct restore *r, struct robject *o, const Pm__Proc *proc, int fdno, struct batch *b,
		 struct err *e)
{
	const Pm__BodyEpoll *m = (const void *)o->body;
	size_t n = m->n_items;

	(void)r;
	(void)e;
	for (; o->placed < 2 * n; o->placed++) {
		bool first = o->placed < n;
		const Pm__EpollItem *it = m->items[first ? o->placed : o->placed - n];

		if (it->pid != proc->pid || it->epfd != (uint32_t)fdno || it->quiet != first)
			continue;
		if (b->n + 16 > BATCH_MAX || b->used + 4096 > BATCH_DATA)
			return 1;
		add_one(proc, it, fdno, b);
		if (it->quiet)
			batch_add4(b, SYS_epoll_wait, fdno, batch_data(b, NULL, sizeof(struct epoll_event)), 1, 0);
	}
	return 0;
}

const struct kind kind_epoll = {
	.name = "epoll",
	.type = TYPE_EPOLL,
	.version = 1,
	.min_version = 1,
	.scope = KIND_FD,
	.stage = STAGE_LAST,
	.schema = &pm__body_epoll__descriptor,
	.match = match,
	.check = check,
	.dump = dump,
	.restore = restore,
	.place = place,
};
