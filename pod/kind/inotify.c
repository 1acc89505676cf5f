/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * inotify: watches with their numbers.
 *
 * Theory of operation. fdinfo tells each watch's number, mask, and the file handle of what is watched; opened
 * by it beneath the mount that has its device, it tells its path, which is believed only if it leads to the same
 * inode in the pod's root. The target watches what it finds there, with the user's rights, under the same number
 * (INOTIFY_IOC_SETNEXTWD); not before all bytes and times of files are in place, which would be events.
 *
 * Events that wait in the queue can be read but not be put into another. So the pod is stopped only when the
 * queues are empty, which a program that reads them sees to (pod/live.c); one that does not is refused.
 *
 * Limits, refused by name: a watched file without a name. Reading the files of the pod's own tmpfs for the move
 * is seen by who watches them for being opened and read.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>

#include "pod/base/io.h"
#include "pod/base/util.h"
#include "pod/dump.h"
#include "pod/kind/kinds.h"

#define SET_NEXT_WD _IOW('I', 0, int32_t)
#define MAX_WATCHES 8192

static bool match(const struct probe *p)
{
	return !strcmp(p->link, "anon_inode:inotify") && !kind_is_o_path(p);
}

struct handle {
	struct file_handle fh;
	uint8_t bytes[MAX_HANDLE_SZ];
};

struct watch {
	int wd;
	uint32_t mask;
	unsigned long ino, dev;
	struct handle h;
};

/* "wd:1 ino:6dd15 sdev:800003 mask:fce ignored_mask:0 fhandle-bytes:8 fhandle-type:1 f_handle:15dd060036b8d9d1" */
static int parse_watch(const char *line, struct watch *w, struct err *e)
{
	unsigned bytes, type, i, b;
	int at = 0;

	if (sscanf(line, "wd:%x ino:%lx sdev:%lx mask:%x ignored_mask:%*x fhandle-bytes:%x fhandle-type:%x f_handle:%n", (unsigned *)&w->wd,
		   &w->ino, &w->dev, &w->mask, &bytes, &type, &at) != 6 || !at || bytes > MAX_HANDLE_SZ)
		return err_set(e, EPROTO, "a watch of an unknown form: %.60s", line);
	for (i = 0; i < bytes; i++) {
		if (sscanf(line + at + i * 2, "%2x", &b) != 1)
			return err_set(e, EPROTO, "a watch without its file: %.60s", line);
		w->h.bytes[i] = (uint8_t)b;
	}
	w->h.fh.handle_bytes = bytes;
	w->h.fh.handle_type = (int)type;
	return 0;
}

static const char *next_watch(const char *info)
{
	const char *s = info ? strstr(info, "\ninotify ") : NULL;

	return s ? s + strlen("\ninotify ") : NULL;
}

/* The path by which the pod finds it. */
static int path_beneath(struct dump *d, int mnt, struct watch *w, char *path, size_t len, struct stat *st)
{
	struct open_how how = { .flags = O_PATH | O_CLOEXEC | O_NOFOLLOW, .resolve = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS };
	autoclose int fd = open_by_handle_at(mnt, &w->h.fh, O_PATH | O_CLOEXEC), named = -1;
	char self[48];
	ssize_t n;

	if (fd < 0)
		return -errno;
	snprintf(self, sizeof(self), "/proc/self/fd/%d", fd);
	n = readlink(self, path, len - 1);
	if (n <= 0)
		return -ENOENT;
	path[n] = 0;
	named = (int)syscall(SYS_openat2, dump_pod_root(d), path, &how, sizeof(how));
	if (named < 0 || fstat(named, st) < 0)
		return -ENOENT;
	return st->st_ino == w->ino && major(st->st_dev) == w->dev >> 20 && minor(st->st_dev) == (w->dev & 0xfffff) ? 0 : -ENOENT;
}

/* Tries the mounts of the pod that have its device. */
static int find_path(struct dump *d, struct watch *w, char *path, size_t len, struct stat *st, struct err *e)
{
	struct open_how how = { .flags = O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY, .resolve = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS };
	autofree char *text = NULL;
	char file[48], point[PATH_MAX];
	const char *l;
	unsigned maj, min;
	int r;

	snprintf(file, sizeof(file), "/proc/%d/mountinfo", d->pid1);
	r = io_read_file(file, 16u << 20, &text, NULL, e);
	for (l = r < 0 ? NULL : text; l && *l; l = strchr(l, '\n') ? strchr(l, '\n') + 1 : NULL) {
		autoclose int mnt = -1;

		if (sscanf(l, "%*d %*d %u:%u %*s %4095s", &maj, &min, point) != 3 || maj != w->dev >> 20 || min != (w->dev & 0xfffff))
			continue;
		mnt = (int)syscall(SYS_openat2, dump_pod_root(d), point, &how, sizeof(how));
		if (mnt >= 0 && path_beneath(d, mnt, w, path, len, st) == 0)
			return 0;
	}
	return r < 0 ? r : KIND_REFUSE(e, "watches a file (inode %lu of device %lu:%lu) that has no name: cannot be carried", w->ino,
				       w->dev >> 20, w->dev & 0xfffff);
}

static int check(struct dump *d, const struct probe *p, struct err *e)
{
	const char *l = p->info;
	int r = kind_check_common(p, e);
	size_t n = 0;

	if (r >= 0)
		r = dump_add_watcher(d, p, e);
	while (r >= 0 && (l = next_watch(l))) {
		char path[PATH_MAX];
		struct watch w = { 0 };
		struct stat st;

		if (++n > MAX_WATCHES)
			return KIND_REFUSE(e, "has more than %d watches: cannot be carried", MAX_WATCHES);
		r = parse_watch(l, &w, e);
		if (r >= 0)
			r = find_path(d, &w, path, sizeof(path), &st, e);
		if (r >= 0)
			r = dump_add_watched(d, p, path, &st, e);
	}
	return r;
}

static int dump(struct dump *d, struct object *o, ProtobufCMessage **body, struct err *e)
{
	Pm__BodyInotify *m = dump_alloc(d, sizeof(*m));
	autofree char *info = NULL;
	const char *l;
	size_t n = 0;
	int left = 0, r = kind_info_now(o->p.fd, &info, e);

	if (r < 0)
		return r;
	if (ioctl(o->p.fd, FIONREAD, &left) < 0)
		return err_sys(e, "events of an inotify instance");
	if (left)
		return err_set(e, EBUSY, "an inotify instance has events that the program has not read");
	pm__body_inotify__init(m);
	for (l = info; (l = next_watch(l));)
		n++;
	m->watches = dump_alloc(d, (n + 1) * sizeof(*m->watches));
	for (l = info; r >= 0 && (l = next_watch(l));) {
		Pm__Watch *x = dump_alloc(d, sizeof(*x));
		char path[PATH_MAX];
		struct watch w = { 0 };
		struct stat st;

		pm__watch__init(x);
		r = parse_watch(l, &w, e);
		if (r >= 0)
			r = find_path(d, &w, path, sizeof(path), &st, e);
		if (r < 0)
			return r;
		x->wd = (uint32_t)w.wd;
		x->mask = w.mask;
		x->path = dump_strdup(d, path);
		m->watches[m->n_watches++] = x;
	}
	*body = &m->base;
	return 0;
}

static int restore(struct restore *r, struct robject *o, struct err *e)
{
	(void)r;
	o->fd = inotify_init1(IN_CLOEXEC);
	return o->fd < 0 ? err_sys(e, "inotify") : 0;
}

static int watch_all(void *arg, struct err *e)
{
	const struct robject *o = arg;
	const Pm__BodyInotify *m = (const void *)o->body;
	size_t i;

	for (i = 0; i < m->n_watches; i++) {
		const Pm__Watch *w = m->watches[i];
		int wd;

		if (w->path[0] != '/' || w->wd > INT32_MAX)
			return KIND_DAMAGED(e, "watch %u of '%s'", w->wd, w->path);
		if (ioctl(o->fd, SET_NEXT_WD, (int)w->wd) < 0)
			return err_sys(e, "number %u of the watch on '%s'", w->wd, w->path);
		wd = inotify_add_watch(o->fd, w->path, (w->mask & (IN_ALL_EVENTS | IN_ONESHOT | IN_EXCL_UNLINK)) | IN_DONT_FOLLOW);
		if (wd < 0)
			return err_sys(e, "watch '%s'", w->path);
		if (wd != (int)w->wd)
			return err_set(e, EEXIST, "the watch %u on '%s' is %d here", w->wd, w->path, wd);
	}
	return 0;
}

/* Once: with its owner's fds. */
static int place(struct restore *r, struct robject *o, const Pm__Proc *proc, int fdno, struct batch *b, struct err *e)
{
	(void)b;
	if (proc->pid != o->msg->owner_pid || fdno != (int)o->msg->owner_fd)
		return 0;
	return restore_in_pod(r, true, watch_all, o, e);
}

const struct kind kind_inotify = {
	.name = "inotify",
	.type = TYPE_INOTIFY,
	.version = 1,
	.min_version = 1,
	.scope = KIND_FD,
	.stage = STAGE_PLAIN,
	.schema = &pm__body_inotify__descriptor,
	.match = match,
	.check = check,
	.dump = dump,
	.restore = restore,
	.place = place,
};
