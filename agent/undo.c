/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * What a dead engine may leave in a pod that is to go on: sockets in repair mode, the filter up, the
 * cgroup frozen. (Its tracees run on by themselves, and a batch it was in ends by itself.)
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "agent/op.h"
#include "netfreeze/netfreeze.h"
#include "pod/base/io.h"
#include "pod/base/kernel.h"
#include "pod/base/util.h"

#define REPAIR_OFF_NO_WP (-1)
#define HELPER_MS 2000

static void undo_socket(int pidfd, int nr)
{
	autoclose int fd = (int)syscall(SYS_pidfd_getfd, pidfd, nr, 0);
	int on = 0, off = REPAIR_OFF_NO_WP;
	socklen_t len = sizeof(on);

	if (fd >= 0 && getsockopt(fd, IPPROTO_TCP, TCP_REPAIR, &on, &len) == 0 && on)
		setsockopt(fd, IPPROTO_TCP, TCP_REPAIR, &off, sizeof(off));
}

/* By which of its threads the process's open files are seen: one that has ended has none, if it is the first. */
static pid_t living_thread(pid_t pid)
{
	struct dirent *de;
	char path[64];
	pid_t tid = pid;
	DIR *d;

	snprintf(path, sizeof(path), "/proc/%d/exe", pid);
	if (access(path, F_OK) == 0)
		return pid;
	snprintf(path, sizeof(path), "/proc/%d/task", pid);
	d = opendir(path);
	while (d && (de = readdir(d)))
		if (atoi(de->d_name) > 0 && atoi(de->d_name) != pid)
			tid = atoi(de->d_name);
	if (d)
		closedir(d);
	return tid;
}

static void undo_process(pid_t pid)
{
	char path[64], target[64];
	pid_t tid = living_thread(pid);
	autoclose int pidfd = (int)syscall(SYS_pidfd_open, tid, tid == pid ? 0 : PIDFD_THREAD);
	struct dirent *de;
	DIR *d;

	snprintf(path, sizeof(path), "/proc/%d/fd", tid);
	d = opendir(path);
	if (!d)
		return;
	while (pidfd >= 0 && (de = readdir(d))) {
		ssize_t n = readlinkat(dirfd(d), de->d_name, target, sizeof(target) - 1);

		if (n > 0 && strncmp(target, "socket:", 7) == 0)
			undo_socket(pidfd, atoi(de->d_name));
	}
	closedir(d);
}

int undo_pod(const struct pod_place *place, int netns, struct err *e)
{
	const char *cgroup = place->cgroup;
	autoclose int helper = -1;
	autofree char *text = NULL;
	char path[PATH_MAX], *save = NULL;
	int r;

	snprintf(path, sizeof(path), "%s/cgroup.procs", cgroup);
	if (io_read_file(path, 1 << 20, &text, NULL, e) == 0)
		for (char *s = strtok_r(text, "\n", &save); s; s = strtok_r(NULL, "\n", &save))
			undo_process(atoi(s));
	r = netns >= 0 ? filter_clear(netns, e) : 0;
	if (r < 0)
		return r;
	/* of an engine that has died: it holds the pod frozen for its work, and then thaws it: pod/still.c */
	helper = still_lock(place->dir, deadline_ms(HELPER_MS), NULL);
	return pod_cgroup_thaw(cgroup, e);
}
