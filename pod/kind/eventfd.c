/* SPDX-License-Identifier: GPL-3.0-or-later */
/* eventfd: a count and the semaphore flag, both read from fdinfo (reading the fd would take the count). */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/eventfd.h>

#include "pod/base/util.h"
#include "pod/kind/kinds.h"

static bool match(const struct probe *p)
{
	return !strncmp(p->link, "anon_inode:[eventfd]", 20) && !kind_is_o_path(p);
}

static int check(struct dump *d, const struct probe *p, struct err *e)
{
	(void)d;
	return kind_check_common(p, e);
}

static int dump(struct dump *d, struct object *o, ProtobufCMessage **body, struct err *e)
{
	Pm__BodyEventfd *m = dump_alloc(d, sizeof(*m));
	autofree char *info = NULL;
	uint64_t semaphore = 0;
	int r = kind_check_common(&o->p, e);

	if (r == 0)
		r = kind_info_now(o->p.fd, &info, e);
	if (r < 0)
		return r;
	pm__body_eventfd__init(m);
	if (!kind_info_u64(info, "eventfd-count", 16, &m->count))
		return err_set(e, EPROTO, "fdinfo of an eventfd without a count");
	kind_info_u64(info, "eventfd-semaphore", 10, &semaphore);
	m->semaphore = semaphore != 0;
	*body = &m->base;
	return 0;
}

static int restore(struct restore *r, struct robject *o, struct err *e)
{
	const Pm__BodyEventfd *m = (const void *)o->body;
	autoclose int fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK | (m->semaphore ? EFD_SEMAPHORE : 0));

	(void)r;
	if (fd < 0)
		return err_sys(e, "eventfd");
	if (m->count && write(fd, &m->count, sizeof(m->count)) != (ssize_t)sizeof(m->count))
		return err_sys(e, "count of an eventfd");
	o->fd = take_fd(&fd);
	return 0;
}

const struct kind kind_eventfd = {
	.name = "eventfd",
	.type = TYPE_EVENTFD,
	.version = 1,
	.min_version = 1,
	.scope = KIND_FD,
	.loose = true,
	.stage = STAGE_PLAIN,
	.schema = &pm__body_eventfd__descriptor,
	.match = match,
	.check = check,
	.dump = dump,
	.restore = restore,
};
