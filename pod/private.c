/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "pod/private.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/vfs.h>

#include "pod/base/io.h"
#include "pod/base/util.h"

#define MOUNTINFO_MAX (16u << 20)

const char *const private_tops[PRIVATE_TOPS] = { "tmp", "run", "dev/shm" };

int private_top_of(const char *path, const char **rest)
{
	int i;

	for (i = 0; i < PRIVATE_TOPS; i++) {
		size_t n = strlen(private_tops[i]);

		if (!strncmp(path, private_tops[i], n) && (!path[n] || path[n] == '/')) {
			*rest = path + n + (path[n] == '/');
			return i;
		}
	}
	return -1;
}

int private_open(int root, const char *dir)
{
	struct open_how how = { .flags = O_RDONLY | O_DIRECTORY | O_CLOEXEC,
				.resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS };
	int fd = (int)syscall(SYS_openat2, root, dir, &how, sizeof(how));

	return fd < 0 ? -errno : fd;
}

/* Is a file system of this device mounted where we are? If that cannot be told: yes. */
static bool mounted_here(dev_t dev)
{
	autofree char *text = NULL;
	char *line, *save = NULL;
	unsigned ma, mi;

	if (io_read_file("/proc/thread-self/mountinfo", MOUNTINFO_MAX, &text, NULL, NULL) < 0)
		return true;
	for (line = strtok_r(text, "\n", &save); line; line = strtok_r(NULL, "\n", &save))
		if (sscanf(line, "%*u %*u %u:%u", &ma, &mi) != 2 || makedev(ma, mi) == dev)
			return true;
	return false;
}

bool private_is(int fd)
{
	struct statfs fs;
	struct stat st;

	return fstatfs(fd, &fs) == 0 && fs.f_type == TMPFS_MAGIC && fstat(fd, &st) == 0 && !mounted_here(st.st_dev);
}
