/* SPDX-License-Identifier: GPL-3.0-or-later */
/* POSIX message queues: refused by name. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/mount.h>
#include <stdio.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "pod/base/io.h"
#include "pod/base/util.h"
#include "pod/kind/kinds.h"

static int gather(struct dump *d, bool final, struct err *e)
{
	autoclose int fs = (int)syscall(SYS_fsopen, "mqueue", FSOPEN_CLOEXEC);
	autoclose int mnt = -1;
	char name[256] = "";
	struct dirent *de;
	int fd;
	DIR *dir;

	(void)d;
	(void)final;
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
	return name[0] ? KIND_REFUSE(e, "the pod has a POSIX message queue, '/%s': cannot be carried yet", name) : 0;
}

const struct kind kind_mqueue = {
	.name = "mqueue",
	.type = TYPE_MQUEUE,
	.version = 1,
	.min_version = 1,
	.scope = KIND_POD,
	.stage = STAGE_POD,
	.gather = gather,
};
