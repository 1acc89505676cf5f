/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Open files that were sent over a unix socket and not received: they are in its queue, and perhaps in no process any
 * more. Such a description becomes an object as any other; on the target it is made like any other, and sent again.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/kcmp.h>
#include <stdio.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "pod/base/util.h"
#include "pod/dump.h"
#include "pod/kind/kinds.h"

uint32_t dump_object_id(struct dump *d, int fd)
{
	pid_t self = getpid();
	struct stat st;
	size_t i;

	if (fstat(fd, &st) < 0)
		return 0;
	for (i = 0; i < d->nobjects; i++) {
		const struct object *o = d->objects[i];

		if (o->p.st.st_ino == st.st_ino && o->p.st.st_dev == st.st_dev && !o->p.fd_is_path &&
		    syscall(SYS_kcmp, self, self, KCMP_FILE, o->p.fd, fd) == 0)
			return o->id;
	}
	return 0;
}

/* No process has it: so nobody can be asked for its locks, nor told whom it sends signals. */
static int check_loose(struct dump *d, const struct probe *pr, const struct kind *k, struct err *e)
{
	struct f_owner_ex own = { .pid = 0 };
	char why[200];

	if (!k) {
		kind_refusal(pr, why, sizeof(why));
		return KIND_REFUSE(e, "a unix socket has %s, in its queue", why);
	}
	if (!k->loose)
		return KIND_REFUSE(e, "a unix socket has '%s' in its queue, which no process has: cannot be carried", pr->link);
	if (kind_info_line(pr->info, "lock"))
		return KIND_REFUSE(e, "a unix socket has '%s' in its queue, with a lock: cannot be carried", pr->link);
	if ((pr->flags & O_ASYNC) || (fcntl(pr->fd, F_GETOWN_EX, &own) == 0 && own.pid))
		return KIND_REFUSE(e, "a unix socket has '%s' in its queue, which tells a process by a signal: cannot be carried", pr->link);
	return k->check && !d->stopped ? k->check(d, pr, e) : 0;
}

int dump_found(struct dump *d, const struct object *carrier, int fd, struct err *e)
{
	struct probe pr = { .pid = carrier->p.pid, .nspid = carrier->p.nspid, .fdno = carrier->p.fdno };
	autofree char *info = NULL;
	char path[48], link[PATH_MAX];
	const struct kind *k;
	struct object *o;
	ssize_t n;
	int r;

	if (dump_object_id(d, fd))
		return 0;
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	n = readlink(path, link, sizeof(link) - 1);
	r = kind_info_now(fd, &info, e);
	if (n < 0 || r < 0 || fstat(fd, &pr.st) < 0)
		return err_sys(e, "what is in the queue of a socket");
	link[n] = 0;
	pr.link = link;
	pr.info = info;
	pr.fd = fd;
	probe_parse_info(&pr);
	pr.flags &= ~(uint32_t)O_CLOEXEC;
	k = kind_match(&pr);
	r = check_loose(d, &pr, k, e);
	if (r < 0)
		return err_wrap(e, "pid %d: fd %d", pr.nspid, pr.fdno);
	pr.fd = fcntl(fd, F_DUPFD_CLOEXEC, 0);
	return pr.fd < 0 ? err_sys(e, "duplicate") : collect_add_object(d, &pr, k, &o, e);
}

int collect_inside(struct dump *d, bool final, struct err *e)
{
	size_t i;
	int r = 0;

	/* what is found adds to the list, and may have something inside itself */
	for (i = 0; r >= 0 && i < d->nobjects; i++)
		if (d->objects[i]->kind->inside)
			r = collect_note(d, d->objects[i]->kind->inside(d, d->objects[i], final, e), e);
	return r;
}
