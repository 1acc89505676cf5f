/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Character devices without a state: null, zero, full, random, urandom. They are opened again in the
 * pod by path, and what is found there must be the same device. /dev/tty is a terminal: see pty.c.
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/sysmacros.h>

#include "pod/base/util.h"
#include "pod/kind/kinds.h"

#define MEM_MAJOR 1

static const char *const mem_devices[] = { [3] = "/dev/null",	[5] = "/dev/zero",
					   [7] = "/dev/full",	[8] = "/dev/random",
					   [9] = "/dev/urandom" };

static const char *device_path(uint32_t mode, dev_t dev)
{
	if (!S_ISCHR(mode) || major(dev) != MEM_MAJOR || minor(dev) >= ARRAY_SIZE(mem_devices))
		return NULL;
	return mem_devices[minor(dev)];
}

static bool match(const struct probe *p)
{
	return !kind_is_o_path(p) && device_path(p->st.st_mode, p->st.st_rdev);
}

static int check(struct dump *d, const struct probe *p, struct err *e)
{
	(void)d;
	return kind_check_common(p, e);
}

static int dump(struct dump *d, struct object *o, ProtobufCMessage **body, struct err *e)
{
	Pm__BodyFile *m = dump_alloc(d, sizeof(*m));
	int r = kind_check_common(&o->p, e);

	if (r < 0)
		return r;
	pm__body_file__init(m);
	m->path = dump_strdup(d, device_path(o->p.st.st_mode, o->p.st.st_rdev));
	m->mode = o->p.st.st_mode;
	*body = &m->base;
	return 0;
}

static int restore(struct restore *r, struct robject *o, struct err *e)
{
	const Pm__BodyFile *m = (const void *)o->body;
	uint32_t flags = o->msg->flags & (O_ACCMODE | O_APPEND);
	autoclose int fd = -1;
	const char *path;
	struct stat st;

	fd = restore_open(r, m->path, (int)flags | O_NONBLOCK | O_NOCTTY | O_CLOEXEC, 0, e);
	if (fd < 0)
		return fd;
	if (fstat(fd, &st) < 0)
		return err_sys(e, "stat '%s'", m->path);
	path = device_path(st.st_mode, st.st_rdev);
	if (!path || strcmp(path, m->path))
		return err_set(e, ESTALE, "'%s' is not that device here", m->path);
	o->fd = take_fd(&fd);
	return 0;
}

const struct kind kind_chardev = {
	.name = "chardev",
	.type = TYPE_CHARDEV,
	.version = 1,
	.min_version = 1,
	.scope = KIND_FD,
	.loose = true,
	.stage = STAGE_PLAIN,
	.schema = &pm__body_file__descriptor,
	.match = match,
	.check = check,
	.dump = dump,
	.restore = restore,
};
