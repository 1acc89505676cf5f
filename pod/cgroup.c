/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * A pod's cgroup: what freezes it, kills it, and tells when it is empty. Only the v2 hierarchy is
 * used, wherever it is mounted (a hybrid host has it beside the v1 controllers), and no controller
 * is needed; limits use the controllers that are there.
 *
 * Freezing is asynchronous in the kernel: cgroup.events tells when it is done, and it wakes poll()
 * with POLLPRI at each change, so nothing here spins or sleeps.
 */
#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>

#include "pod/base/io.h"
#include "pod/base/util.h"
#include "pod/ns.h"
#include "pod/ns_int.h"

#define MOUNTINFO_MAX (4u << 20)
#define EVENTS_MAX 256

/* "... MOUNTPOINT opts [tags] - cgroup2 ..." */
static bool is_cgroup2(char *line, char **mountpoint)
{
	char *tail = strstr(line, " - "), *save = NULL, *tok;

	if (!tail || strncmp(tail + 3, "cgroup2 ", 8))
		return false;
	*tail = '\0';
	tok = strtok_r(line, " ", &save);
	for (int i = 0; tok && i < 4; i++)
		tok = strtok_r(NULL, " ", &save);
	*mountpoint = tok;
	return tok != NULL;
}

int pod_cgroup_root(char *path, size_t len, struct err *e)
{
	autofree char *text = NULL;
	char *save = NULL;
	int r;

	r = io_read_file("/proc/self/mountinfo", MOUNTINFO_MAX, &text, NULL, e);
	if (r < 0)
		return r;
	for (char *l = strtok_r(text, "\n", &save); l; l = strtok_r(NULL, "\n", &save)) {
		char *where;

		if (!is_cgroup2(l, &where))
			continue;
		if (snprintf(path, len, "%s", where) >= (int)len)
			return err_set(e, ENAMETOOLONG, "cgroup v2 mount point is too long");
		return 0;
	}
	return err_set(e, ENOENT, "no cgroup v2 hierarchy is mounted on this node");
}

static int cgroup_write(const char *cgroup, const char *file, const char *text, struct err *e)
{
	char path[PATH_MAX];

	snprintf(path, sizeof(path), "%s/%s", cgroup, file);
	return io_write_file(path, text, e);
}

/* The value of @key in an open cgroup.events, or negative errno. */
static int events_get(int fd, const char *key, struct err *e)
{
	char buf[EVENTS_MAX], *p;
	ssize_t n = pread(fd, buf, sizeof(buf) - 1, 0);

	if (n < 0)
		return err_sys(e, "read cgroup.events");
	buf[n] = '\0';
	p = strstr(buf, key);
	if (!p)
		return err_set(e, ENOENT, "cgroup.events has no '%s'", key);
	return p[strlen(key) + 1] == '1';
}

static int events_wait(const char *cgroup, const char *key, int want, uint64_t deadline,
		       struct err *e)
{
	autoclose int fd = -1;
	char path[PATH_MAX];

	snprintf(path, sizeof(path), "%s/cgroup.events", cgroup);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return err_sys(e, "open '%s'", path);
	for (;;) {
		struct pollfd p = { .fd = fd, .events = POLLPRI };
		int n = events_get(fd, key, e);

		if (n < 0 || n == want)
			return n < 0 ? n : 0;
		n = io_poll(&p, 1, deadline);
		if (n == 0)
			return err_num(e, ETIMEDOUT, "cgroup '%s': waiting for %s %d", cgroup, key,
				       want);
		if (n < 0)
			return err_num(e, -n, "poll '%s'", path);
	}
}

int pod_cgroup_freeze(const char *cgroup, uint64_t deadline, struct err *e)
{
	int r = cgroup_write(cgroup, "cgroup.freeze", "1", e);

	return r < 0 ? r : events_wait(cgroup, "frozen", 1, deadline, e);
}

int pod_cgroup_thaw(const char *cgroup, struct err *e)
{
	return cgroup_write(cgroup, "cgroup.freeze", "0", e);
}

static int make_path(const char *path, struct err *e)
{
	char buf[PATH_MAX];

	if (snprintf(buf, sizeof(buf), "%s", path) >= (int)sizeof(buf))
		return err_set(e, ENAMETOOLONG, "cgroup path");
	for (char *p = buf + 1;; p++) {
		char c = *p;

		if (c != '/' && c != '\0')
			continue;
		*p = '\0';
		if (mkdir(buf, 0755) < 0 && errno != EEXIST)
			return err_sys(e, "make cgroup '%s'", buf);
		*p = c;
		if (!c)
			return 0;
	}
}

/* Hands a controller down to @path; -1 is fine: the limit's file is then missing. */
static void enable_controller(const char *path, const char *what)
{
	char parent[PATH_MAX], file[PATH_MAX + 32], *slash;
	char root[PATH_MAX];

	if (pod_cgroup_root(root, sizeof(root), NULL) < 0)
		return;
	snprintf(parent, sizeof(parent), "%s", path);
	slash = strrchr(parent, '/');
	if (!slash || strlen(parent) < strlen(root))
		return;
	snprintf(file, sizeof(file), "%s/cgroup.subtree_control", root);
	(void)!io_write_file(file, what, NULL);
	*slash = '\0';
	snprintf(file, sizeof(file), "%s/cgroup.subtree_control", parent);
	(void)!io_write_file(file, what, NULL);
}

static int set_limits(const char *path, const Pm__PodSpec *spec, struct err *e)
{
	char text[32];
	int r;

	if (!spec->memory)
		return 0;
	enable_controller(path, "+memory");
	snprintf(text, sizeof(text), "%llu", (unsigned long long)spec->memory);
	r = cgroup_write(path, "memory.max", text, e);
	if (r == -ENOENT)
		return err_set(e, EOPNOTSUPP,
			       "--memory: this node's cgroup v2 has no memory controller");
	return r;
}

int pod_cgroup_make(const char *path, const Pm__PodSpec *spec, struct err *e)
{
	autoclose int fd = -1;
	int r;

	r = make_path(path, e);
	if (r < 0)
		return r;
	fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		return err_sys(e, "open cgroup '%s'", path);
	{
		autoclose int ev = openat(fd, "cgroup.events", O_RDONLY | O_CLOEXEC);

		if (ev < 0)
			return err_sys(e, "open '%s/cgroup.events'", path);
		r = events_get(ev, "populated", e);
		if (r < 0)
			return r;
		if (r)
			return err_set(e, EBUSY, "cgroup '%s' is in use", path);
	}
	r = pod_cgroup_thaw(path, e);
	if (r == 0)
		r = set_limits(path, spec, e);
	return r < 0 ? r : take_fd(&fd);
}

/* Depth first: a root user's pod may have made cgroups of its own below. */
static int remove_tree(int at, const char *name, unsigned depth, struct err *e)
{
	int fd = openat(at, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	struct dirent *de;
	DIR *d;

	if (fd < 0)
		return errno == ENOENT ? 0 : err_sys(e, "open cgroup '%s'", name);
	d = fdopendir(fd);
	if (!d) {
		close(fd);
		return err_num(e, ENOMEM, "read cgroup '%s'", name);
	}
	while (depth && (de = readdir(d)))
		if (de->d_type == DT_DIR && de->d_name[0] != '.')
			(void)!remove_tree(dirfd(d), de->d_name, depth - 1, NULL);
	closedir(d);
	if (unlinkat(at, name, AT_REMOVEDIR) < 0 && errno != ENOENT)
		return err_sys(e, "remove cgroup '%s'", name);
	return 0;
}

int pod_cgroup_remove(const char *path, uint64_t deadline, struct err *e)
{
	int r;

	if (access(path, F_OK) < 0 && errno == ENOENT)
		return 0;
	r = cgroup_write(path, "cgroup.kill", "1", e);
	if (r < 0)
		return r == -ENOENT ? 0 : r;
	r = events_wait(path, "populated", 0, deadline, e);
	if (r < 0)
		return r;
	return remove_tree(AT_FDCWD, path, 16, e);
}

int pod_cpus_set(const char *list, struct err *e)
{
	cpu_set_t set;
	const char *p = list;

	CPU_ZERO(&set);
	while (*p) {
		char *end;
		unsigned long a, b;

		if (!isdigit((unsigned char)*p))
			return err_set(e, EINVAL, "--cpus: '%s' is no CPU list", list);
		a = b = strtoul(p, &end, 10);
		if (*end == '-' && isdigit((unsigned char)end[1]))
			b = strtoul(end + 1, &end, 10);
		if ((*end && *end != ',') || b < a || b >= CPU_SETSIZE)
			return err_set(e, EINVAL, "--cpus: '%s' is no CPU list", list);
		for (; a <= b; a++)
			CPU_SET(a, &set);
		p = *end ? end + 1 : end;
	}
	if (sched_setaffinity(0, sizeof(set), &set) < 0)
		return err_sys(e, "--cpus %s", list);
	return 0;
}

int still_lock(const char *dir, uint64_t deadline, struct err *e)
{
	const struct timespec nap = { 0, 500000 };
	autoclose int fd = -1;
	char path[PATH_MAX];

	snprintf(path, sizeof(path), "%s/still", dir);
	fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (fd < 0)
		return err_sys(e, "open '%s'", path);
	while (flock(fd, LOCK_EX | LOCK_NB) < 0) {
		if (errno != EWOULDBLOCK && errno != EINTR)
			return err_sys(e, "lock '%s'", path);
		if (deadline_past(deadline))
			return err_set(e, ETIMEDOUT, "'%s' is locked", path);
		nanosleep(&nap, NULL);
	}
	return take_fd(&fd);
}
