/* SPDX-License-Identifier: GPL-3.0-or-later */
/* signalfd: its mask. The signals themselves are the reading task's pending ones and travel with it. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/syscall.h>

#include "pod/base/util.h"
#include "pod/kind/kinds.h"

static bool match(const struct probe *p)
{
	return !strcmp(p->link, "anon_inode:[signalfd]") && !kind_is_o_path(p);
}

static int check(struct dump *d, const struct probe *p, struct err *e)
{
	(void)d;
	return kind_check_common(p, e);
}

static int dump(struct dump *d, struct object *o, ProtobufCMessage **body, struct err *e)
{
	Pm__BodySignalfd *m = dump_alloc(d, sizeof(*m));
	autofree char *info = NULL;
	int r = kind_check_common(&o->p, e);

	if (r == 0)
		r = kind_info_now(o->p.fd, &info, e);
	if (r < 0)
		return r;
	pm__body_signalfd__init(m);
	if (!kind_info_u64(info, "sigmask", 16, &m->mask))
		return err_set(e, EPROTO, "fdinfo of a signalfd without a mask");
	*body = &m->base;
	return 0;
}

static int restore(struct restore *r, struct robject *o, struct err *e)
{
	const Pm__BodySignalfd *m = (const void *)o->body;
	uint64_t mask = m->mask;

	(void)r;
	/* the kernel's own call: glibc's takes a sigset_t of another size */
	o->fd = (int)syscall(SYS_signalfd4, -1, &mask, sizeof(mask), O_CLOEXEC);
	return o->fd < 0 ? err_sys(e, "signalfd") : 0;
}

const struct kind kind_signalfd = {
	.name = "signalfd",
	.type = TYPE_SIGNALFD,
	.version = 1,
	.min_version = 1,
	.scope = KIND_FD,
	.loose = true,
	.stage = STAGE_PLAIN,
	.schema = &pm__body_signalfd__descriptor,
	.match = match,
	.check = check,
	.dump = dump,
	.restore = restore,
};
