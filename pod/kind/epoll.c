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
 * holds both the epoll and, at the item's number, its file. Waiting programs see what they would have
 * seen: level-triggered items are looked at anew; an edge-triggered item whose file is ready is
 * reported once more, which epoll(7) permits.
 *
 * Limits, refused by name: nested epolls; items whose number no process has any more. Not told apart:
 * a disarmed EPOLLONESHOT item comes back listening for errors and hang-ups, as the kernel always
 * adds those two.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/kcmp.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/syscall.h>

#include "pod/base/util.h"
#include "pod/kind/kinds.h"

#define EPOLL_LINK "anon_inode:[eventpoll]"

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
	const char *info = p->info;
	struct item it;
	int r = kind_check_common(p, e);

	(void)d;
	if (r < 0)
		return r;
	while (next_item(&info, &it)) {
		char path[64], link[64];
		ssize_t n;

		snprintf(path, sizeof(path), "/proc/%d/fd/%u", p->pid, it.fd);
		n = readlink(path, link, sizeof(link) - 1);
		if (n < 0)
			continue;
		link[n] = 0;
		if (!strcmp(link, EPOLL_LINK))
			return KIND_REFUSE(e, "an epoll that watches another epoll (fd %u): cannot be carried yet",
					   it.fd);
	}
	return 0;
}

/* Is @x the description behind the @nth item with number @fd? */
static bool is_target(const struct object *o, const struct object *x, uint32_t fd, uint32_t nth)
{
	struct kcmp_epoll_slot slot = { (uint32_t)o->p.fd, fd, nth };
	pid_t self = getpid();

	return syscall(SYS_kcmp, self, self, KCMP_EPOLL_TFD, x->p.fd, &slot) == 0;
}

/* A process that has the epoll, and the item's file at its number. */
static int find_holder(struct dump *d, struct object *o, const struct item *it, uint32_t nth,
		       Pm__EpollItem *m, struct err *e)
{
	const struct object *x, *known = NULL;
	pid_t nspid;
	size_t i = 0;
	int epfd;

	while (dump_next_holder(d, o, &i, &nspid, &epfd)) {
		x = dump_find_fd(d, nspid, (int)it->fd);
		if (!x || (x != known && !is_target(o, x, it->fd, nth)))
			continue;
		known = x;
		if (x->kind == o->kind)
			return KIND_REFUSE(e, "an epoll that watches another epoll (fd %u): cannot be carried yet",
					   it->fd);
		m->pid = (uint32_t)nspid;
		m->epfd = (uint32_t)epfd;
		m->object = x->id;
		return 0;
	}
	return KIND_REFUSE(e,
			   "an epoll watches a file that was added as fd %u and is no longer there in any process",
			   it->fd);
}

static int add_item(struct dump *d, struct object *o, Pm__BodyEpoll *m, const struct item *it,
		    struct err *e)
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
	m->items[m->n_items++] = x;
	return find_holder(d, o, it, nth, x, e);
}

static int dump(struct dump *d, struct object *o, ProtobufCMessage **body, struct err *e)
{
	Pm__BodyEpoll *m = dump_alloc(d, sizeof(*m));
	autofree char *text = NULL;
	const char *info;
	struct item it;
	size_t n = 0;
	int r = kind_check_common(&o->p, e);

	if (r == 0)
		r = kind_info_now(o->p.fd, &text, e);
	if (r < 0)
		return r;
	pm__body_epoll__init(m);
	for (info = text; next_item(&info, &it);)
		n++;
	m->items = dump_alloc(d, n * sizeof(*m->items));
	for (info = text; r == 0 && next_item(&info, &it);)
		r = add_item(d, o, m, &it, e);
	*body = &m->base;
	return r;
}

static int restore(struct restore *r, struct robject *o, struct err *e)
{
	(void)r;
	o->fd = epoll_create1(EPOLL_CLOEXEC);
	return o->fd < 0 ? err_sys(e, "epoll_create1") : 0;
}

static int place(struct restore *r, struct robject *o, const Pm__Proc *proc, int fdno, struct batch *b,
		 struct err *e)
{
	const Pm__BodyEpoll *m = (const void *)o->body;

	(void)r;
	(void)e;
	for (; o->placed < m->n_items; o->placed++) {
		const Pm__EpollItem *it = m->items[o->placed];
		struct epoll_event ev = { .events = it->events, .data = { .u64 = it->data } };

		if (it->pid != proc->pid || it->epfd != (uint32_t)fdno)
			continue;
		if (b->n + 4 > BATCH_MAX)
			return 1;
		batch_add4(b, SYS_epoll_ctl, fdno, EPOLL_CTL_ADD, it->fd, batch_data(b, &ev, sizeof(ev)));
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
