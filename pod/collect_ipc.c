/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * What lives in a pod's ipc namespace without anybody's fd: System V semaphores and queues, and
 * POSIX message queues (shared memory: sysv.c). Nothing takes them yet, and nothing in a process shows most of them, so the
 * namespace is asked: by a thread that has entered it, since both /proc/sysvipc and the mqueue file
 * system show the namespace of the one who looks.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/mount.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>

#include "pod/base/io.h"
#include "pod/base/util.h"
#include "pod/dump.h"

#define REFUSE(e, ...) err_set(e, EOPNOTSUPP, __VA_ARGS__)

struct look {
	pid_t pid1;
	struct err *e;
	int ret;
};

static const struct {
	const char *path, *words;
	char rm;
} sysv[] = {
	{ "/proc/sysvipc/sem", "semaphore set", 's' },
	{ "/proc/sysvipc/msg", "message queue", 'q' },
};

static int look_sysv(struct err *e)
{
	size_t i;

	for (i = 0; i < ARRAY_SIZE(sysv); i++) {
		autofree char *text = NULL;
		const char *line;
		long key;
		int id, r = io_read_file(sysv[i].path, 16u << 20, &text, NULL, e);

		if (r == -ENOENT)
			continue; /* a kernel without it */
		if (r < 0)
			return r;
		line = strchr(text, '\n'); /* after the headings */
		if (line && sscanf(line + 1, "%ld %d", &key, &id) == 2)
			return REFUSE(e,
				      "the pod has a System V %s, id %d, key 0x%lx: cannot be carried yet (let its program remove it, or ipcrm -%c %d)",
				      sysv[i].words, id, key & 0xffffffff, sysv[i].rm, id);
	}
	return 0;
}

static int look_mqueue(struct err *e)
{
	autoclose int fs = (int)syscall(SYS_fsopen, "mqueue", FSOPEN_CLOEXEC);
	autoclose int mnt = -1;
	char name[256] = "";
	struct dirent *de;
	int fd;
	DIR *dir;

	if (fs < 0)
		return errno == ENODEV ? 0 : err_sys(e, "open the mqueue file system");
	if (syscall(SYS_fsconfig, fs, FSCONFIG_CMD_CREATE, NULL, NULL, 0) < 0)
		return err_sys(e, "set the mqueue file system up");
	mnt = (int)syscall(SYS_fsmount, fs, FSMOUNT_CLOEXEC, 0); /* as by O_PATH */
	fd = mnt < 0 ? -1 : openat(mnt, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	dir = fd < 0 ? NULL : fdopendir(fd);
	if (!dir) {
		close_fdp(&fd);
		return err_sys(e, "mount the mqueue file system");
	}
	while ((de = readdir(dir)))
		if (de->d_name[0] != '.')
			snprintf(name, sizeof(name), "%s", de->d_name);
	closedir(dir);
	return name[0] ? REFUSE(e, "the pod has a POSIX message queue, '/%s': cannot be carried yet", name) : 0;
}

static void *look_thread(void *arg)
{
	struct look *l = arg;
	char path[48];
	autoclose int ns = -1;

	snprintf(path, sizeof(path), "/proc/%d/ns/ipc", l->pid1);
	ns = open(path, O_RDONLY | O_CLOEXEC);
	if (ns < 0 || setns(ns, CLONE_NEWIPC) < 0) {
		l->ret = err_sys(l->e, "enter '%s'", path);
		return NULL;
	}
	l->ret = look_sysv(l->e);
	if (l->ret == 0)
		l->ret = look_mqueue(l->e);
	return NULL;
}

int collect_ipc(struct dump *d, struct err *e)
{
	struct look l = { d->pid1, e, 0 };
	pthread_t t;
	int r = pthread_create(&t, NULL, look_thread, &l);

	if (r)
		return err_num(e, r, "start a thread");
	pthread_join(t, NULL);
	return l.ret;
}
