/* SPDX-License-Identifier: GPL-3.0-or-later */
/* inotify instances that were seen in the check: what they watch, and whether their queues are empty when the pod is to stop. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "pod/base/util.h"
#include "pod/dump.h"

int dump_add_watcher(struct dump *d, const struct probe *p, struct err *e)
{
	struct watcher *nw = realloc(d->watchers, (d->nwatchers + 1) * sizeof(*nw));

	if (!nw)
		return err_num(e, ENOMEM, "watchers");
	d->watchers = nw;
	nw[d->nwatchers++] = (struct watcher){ p->nspid, p->fdno };
	return 0;
}

int dump_add_watched(struct dump *d, const struct probe *p, const char *path, const struct stat *st, struct err *e)
{
	struct watched *nw;

	if (dump_is_private_tmpfs(d, st->st_dev) || !strncmp(path, "/proc/", 6))
		return 0;
	nw = realloc(d->watched, (d->nwatched + 1) * sizeof(*nw));
	if (!nw)
		return err_num(e, ENOMEM, "watched files");
	d->watched = nw;
	nw[d->nwatched++] = (struct watched){ p->nspid, dump_strdup(d, path), *st };
	return 0;
}

bool watcher_unread(const struct dump *d, const struct watcher *w)
{
	const struct proc *p = proc_by_ns(&d->procs, w->nspid);
	autoclose int fd = p && !p->zombie ? (int)syscall(SYS_pidfd_getfd, p->pidfd, w->fdno, 0) : -1;
	char self[48], link[32] = "";
	int left = 0;

	if (fd < 0)
		return false;
	snprintf(self, sizeof(self), "/proc/self/fd/%d", fd);
	return readlink(self, link, sizeof(link) - 1) > 0 && !strcmp(link, "anon_inode:inotify") &&
	       ioctl(fd, FIONREAD, &left) == 0 && left;
}

int watchers_unread(struct dump *d, const struct watcher **who)
{
	size_t i;

	for (i = 0; i < d->nwatchers; i++)
		if (watcher_unread(d, &d->watchers[i])) {
			*who = &d->watchers[i];
			return 1;
		}
	return 0;
}
