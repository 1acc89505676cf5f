/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * A pod's view of the file system.
 *
 * It is made in two halves. On the node, outside, every path that a user may name (--root, the
 * sources of --bind) is opened with that user's credentials and cloned into a detached mount tree;
 * inside, in pid 1's fresh mount namespace, the trees are put together. So a path is never looked
 * up by root on a user's behalf on the node, and inside there is nothing of the node left to reach
 * once pivot_root is done.
 *
 * The order and the options of the mounts depend on the PodSpec alone. The landing zone of a move
 * uses the same code, so that a pod finds the same mounts on every node:
 *
 *	/  /proc  /sys  /tmp  /run  /dev  /dev/pts  /dev/shm  /dev/{null,...}  binds as listed
 *
 * Inside, all further lookups go through openat2(RESOLVE_IN_ROOT) and what root writes goes through
 * the fds of the mounts just made, never through a path: a user who owns --root could swap
 * directories for links meanwhile and have root write through them.
 *
 * A non-root user's mounts are nosuid,nodev, the six device nodes excepted: they are the node's own.
 */
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <limits.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <string.h>
#include <sys/fsuid.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#include "pod/base/util.h"
#include "pod/ns.h"
#include "pod/ns_int.h"

static const char *const dev_nodes[POD_DEV_NODES] = { "null",   "zero",	   "full",
						      "random", "urandom", "tty" };
static const struct {
	const char *name, *target;
} dev_links[] = {
	{ "ptmx", "pts/ptmx" },
	{ "fd", "/proc/self/fd" },
	{ "stdin", "/proc/self/fd/0" },
	{ "stdout", "/proc/self/fd/1" },
	{ "stderr", "/proc/self/fd/2" },
};

#define USER_FLAGS (MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV)

int pod_as_user(const Pm__PodSpec *spec, struct err *e)
{
	gid_t groups[256];
	size_t n = MIN(spec->n_groups, ARRAY_SIZE(groups));

	if (!spec->uid)
		return 0;
	for (size_t i = 0; i < n; i++)
		groups[i] = spec->groups[i];
	if (setgroups(n, groups) < 0)
		return err_sys(e, "setgroups");
	setfsgid(spec->gid);
	setfsuid(spec->uid); /* the kernel takes CAP_DAC_* and the like away with it */
	if ((uid_t)setfsuid(-1) != spec->uid || (gid_t)setfsgid(-1) != spec->gid)
		return err_set(e, EPERM, "cannot take the credentials of uid %u", spec->uid);
	return 0;
}

int pod_as_root(struct err *e)
{
	setfsuid(0);
	setfsgid(0);
	if (setfsuid(-1) != 0)
		return err_set(e, EPERM, "cannot go back to root's credentials");
	if (setgroups(0, NULL) < 0)
		return err_sys(e, "setgroups");
	return 0;
}

static int openat2_sys(int at, const char *path, uint64_t flags, uint64_t resolve)
{
	struct open_how how = { .flags = flags | O_CLOEXEC, .resolve = resolve };

	return (int)syscall(SYS_openat2, at, path, &how, sizeof(how));
}

/* O_PATH fd of a path that the user named; refused when the user could not read it. */
static int open_user_path(const char *path, const char *what, struct err *e)
{
	autoclose int fd = -1;
	struct stat st;

	if (path[0] != '/')
		return err_set(e, EINVAL, "%s '%s': not an absolute path", what, path);
	fd = openat2_sys(AT_FDCWD, path, O_PATH, RESOLVE_NO_MAGICLINKS);
	if (fd < 0)
		return err_sys(e, "%s '%s'", what, path);
	if (fstat(fd, &st) < 0)
		return err_sys(e, "%s '%s'", what, path);
	if (syscall(SYS_faccessat2, fd, "", R_OK | (S_ISDIR(st.st_mode) ? X_OK : 0),
		    AT_EMPTY_PATH | AT_EACCESS) < 0)
		return err_sys(e, "%s '%s'", what, path);
	return take_fd(&fd);
}

/* A private detached clone of what @fd stands for. */
static int clone_tree(int at, const char *path, uint64_t attr, struct err *e)
{
	struct mount_attr ma = { .attr_set = attr, .propagation = MS_PRIVATE };
	autoclose int tree = -1;

	tree = open_tree(at, path, OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_RECURSIVE |
					   (path[0] ? 0 : AT_EMPTY_PATH));
	if (tree < 0)
		return err_sys(e, "open_tree '%s'", path);
	if (mount_setattr(tree, "", AT_EMPTY_PATH | AT_RECURSIVE, &ma, sizeof(ma)) < 0)
		return err_sys(e, "mount_setattr '%s'", path);
	return take_fd(&tree);
}

/* Opens @path as the user, clones it as root. */
static int clone_user_path(const Pm__PodSpec *spec, const char *path, const char *what,
			   uint64_t attr, struct err *e)
{
	autoclose int fd = -1;
	int r;

	r = pod_as_user(spec, e);
	if (r == 0)
		fd = r = open_user_path(path, what, e);
	if (spec->uid && pod_as_root(r < 0 ? NULL : e) < 0)
		return -EPERM;
	if (r < 0)
		return r;
	r = clone_tree(fd, "", attr, e);
	return r < 0 ? err_wrap(e, "%s '%s'", what, path) : r;
}

int pod_mounts_open(const Pm__PodSpec *spec, struct pod_mounts *m, struct err *e)
{
	uint64_t attr = spec->uid ? USER_FLAGS : 0;
	bool own_root = spec->root && spec->root[0];

	memset(m, 0xff, sizeof(*m));
	m->nbind = 0;
	if (spec->n_binds > POD_BINDS_MAX)
		return err_set(e, E2BIG, "more than %d binds", POD_BINDS_MAX);
	m->root = own_root ? clone_user_path(spec, spec->root, "--root", attr, e) :
			     clone_tree(AT_FDCWD, "/", attr, e);
	if (m->root < 0)
		return m->root;
	for (size_t i = 0; i < POD_DEV_NODES; i++) {
		char path[32];

		snprintf(path, sizeof(path), "/dev/%s", dev_nodes[i]);
		m->dev[i] = clone_tree(AT_FDCWD, path, MOUNT_ATTR_NOSUID | MOUNT_ATTR_NOEXEC, e);
		if (m->dev[i] < 0)
			return m->dev[i];
	}
	for (size_t i = 0; i < spec->n_binds; i++) {
		const Pm__Bind *b = spec->binds[i];

		m->bind[i] = clone_user_path(spec, b->src, "--bind",
					     attr | (b->ro ? MOUNT_ATTR_RDONLY : 0), e);
		if (m->bind[i] < 0)
			return m->bind[i];
		m->nbind++;
	}
	return 0;
}

static int attach(int tree, int dir, const char *path, struct err *e)
{
	autoclose int at = -1;

	at = openat2_sys(dir, path, O_PATH, RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS);
	if (at < 0)
		return err_sys(e, "mount point '%s'", path);
	if (move_mount(tree, "", at, "", MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH) < 0)
		return err_sys(e, "mount on '%s'", path);
	return 0;
}

/* One new file system instance; @opts = "key=value,key=value". Returns the mount's fd. */
static int new_fs(const char *type, const char *opts, uint64_t attr, struct err *e)
{
	autoclose int ctx = -1;
	char buf[128], *save = NULL;
	int mnt;

	ctx = fsopen(type, FSOPEN_CLOEXEC);
	if (ctx < 0)
		return err_sys(e, "fsopen %s", type);
	(void)!fsconfig(ctx, FSCONFIG_SET_STRING, "source", type, 0); /* for df */
	snprintf(buf, sizeof(buf), "%s", opts);
	for (char *o = strtok_r(buf, ",", &save); o; o = strtok_r(NULL, ",", &save)) {
		char *val = strchr(o, '=');

		*val++ = '\0';
		if (fsconfig(ctx, FSCONFIG_SET_STRING, o, val, 0) < 0)
			return err_sys(e, "%s: option %s=%s", type, o, val);
	}
	if (fsconfig(ctx, FSCONFIG_CMD_CREATE, NULL, NULL, 0) < 0)
		return err_sys(e, "make %s", type);
	mnt = fsmount(ctx, FSMOUNT_CLOEXEC, (unsigned)attr);
	return mnt < 0 ? err_sys(e, "mount %s", type) : mnt;
}

/* Mounts a new file system on @path; the fd of its root directory, for what goes into it. */
static int mount_fs(const char *type, const char *opts, uint64_t attr, int dir, const char *path,
		    struct err *e)
{
	autoclose int mnt = new_fs(type, opts, attr, e);
	int r;

	if (mnt < 0)
		return mnt;
	r = attach(mnt, dir, path, e);
	return r < 0 ? r : take_fd(&mnt);
}

static int enter_root(int tree, const char *aside, struct err *e)
{
	autoclose int old = -1;

	if (mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0)
		return err_sys(e, "make mounts private");
	old = open("/", O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (old < 0)
		return err_sys(e, "open /");
	if (move_mount(tree, "", AT_FDCWD, aside, MOVE_MOUNT_F_EMPTY_PATH) < 0)
		return err_sys(e, "mount the pod's root");
	if (fchdir(tree) < 0)
		return err_sys(e, "enter the pod's root");
	if (syscall(SYS_pivot_root, ".", ".") < 0)
		return err_sys(e, "pivot_root");
	if (fchdir(old) < 0 || umount2(".", MNT_DETACH) < 0)
		return err_sys(e, "leave the node's root");
	if (chdir("/") < 0)
		return err_sys(e, "chdir /");
	return 0;
}

/* What the node had mounted on the places that a pod has for itself. */
static void uncover(void)
{
	static const char *const own[] = { "/proc", "/sys", "/tmp", "/run", "/dev" };

	for (size_t i = 0; i < ARRAY_SIZE(own); i++)
		for (int n = 0; n < 16 && !umount2(own[i], MNT_DETACH | UMOUNT_NOFOLLOW); n++)
			;
}

/* A user's own root may lack the mount points; the user makes them then, not root. */
static int make_points(const Pm__PodSpec *spec, int root, struct err *e)
{
	static const char *const own[] = { "proc", "sys", "tmp", "run", "dev" };
	int r;

	if (!spec->root || !spec->root[0])
		return 0;
	r = pod_as_user(spec, e);
	if (r < 0)
		return r;
	for (size_t i = 0; i < ARRAY_SIZE(own); i++)
		(void)!mkdirat(root, own[i], 0755); /* attach() names the one that is missing */
	return spec->uid ? pod_as_root(e) : 0;
}

static int fill_dev(const struct pod_mounts *m, int dev, struct err *e)
{
	autoclose int pts = -1, shm = -1;
	mode_t old = umask(0);
	int r = 0;

	for (size_t i = 0; i < ARRAY_SIZE(dev_links) && r == 0; i++)
		if (symlinkat(dev_links[i].target, dev, dev_links[i].name) < 0)
			r = err_sys(e, "link /dev/%s", dev_links[i].name);
	if (r == 0 && (mkdirat(dev, "pts", 0755) < 0 || mkdirat(dev, "shm", 01777) < 0))
		r = err_sys(e, "make /dev/pts");
	for (size_t i = 0; i < POD_DEV_NODES && r == 0; i++) {
		autoclose int fd = openat(dev, dev_nodes[i], O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC,
					  0644);

		if (fd < 0)
			r = err_sys(e, "make /dev/%s", dev_nodes[i]);
	}
	umask(old);
	if (r < 0)
		return r;
	pts = mount_fs("devpts", "gid=5,mode=620,ptmxmode=666",
		       MOUNT_ATTR_NOSUID | MOUNT_ATTR_NOEXEC, dev, "pts", e);
	if (pts < 0)
		return err_wrap(e, "/dev/pts");
	shm = mount_fs("tmpfs", "mode=1777", USER_FLAGS, dev, "shm", e);
	if (shm < 0)
		return err_wrap(e, "/dev/shm");
	for (size_t i = 0; i < POD_DEV_NODES && r >= 0; i++)
		r = attach(m->dev[i], dev, dev_nodes[i], e);
	return r;
}

static int mount_own(const Pm__PodSpec *spec, const struct pod_mounts *m, int root, struct err *e)
{
	const uint64_t hard = USER_FLAGS | MOUNT_ATTR_NOEXEC;
	char run[64];
	const struct {
		const char *type, *opts, *path;
		uint64_t attr;
	} own[] = {
		{ "proc", "", "proc", hard },
		{ "sysfs", "", "sys", hard | MOUNT_ATTR_RDONLY },
		{ "tmpfs", "mode=1777", "tmp", USER_FLAGS },
		{ "tmpfs", run, "run", USER_FLAGS },
		{ "tmpfs", "mode=755", "dev", MOUNT_ATTR_NOSUID | MOUNT_ATTR_NOEXEC },
	};

	snprintf(run, sizeof(run), "mode=755,uid=%u,gid=%u", spec->uid, spec->gid);
	for (size_t i = 0; i < ARRAY_SIZE(own); i++) {
		autoclose int fd = mount_fs(own[i].type, own[i].opts, own[i].attr, root,
					    own[i].path, e);
		int r = fd;

		if (fd >= 0 && !strcmp(own[i].path, "dev"))
			r = fill_dev(m, fd, e);
		if (r < 0)
			return err_wrap(e, "the pod's /%s", own[i].path);
	}
	return 0;
}

/* A bind's mount point may be missing below the pod's own /tmp and /run: made as the user. */
static int make_bind_point(const Pm__PodSpec *spec, int root, int tree, const char *dst,
			   struct err *e)
{
	char parent[PATH_MAX], *slash;
	autoclose int dir = -1;
	struct stat st;
	int r = 0;

	if (strncmp(dst, "/tmp/", 5) && strncmp(dst, "/run/", 5))
		return 0;
	if (snprintf(parent, sizeof(parent), "%s", dst) >= (int)sizeof(parent))
		return err_set(e, ENAMETOOLONG, "--bind: '%s'", dst);
	slash = strrchr(parent, '/');
	*slash = '\0';
	if (fstat(tree, &st) < 0)
		return err_sys(e, "--bind: '%s'", dst);
	dir = openat2_sys(root, parent, O_PATH | O_DIRECTORY,
			  RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS);
	if (dir < 0)
		return 0; /* attach() says so */
	r = pod_as_user(spec, e);
	if (r < 0)
		return r;
	if (S_ISDIR(st.st_mode)) {
		(void)!mkdirat(dir, slash + 1, 0755);
	} else {
		autoclose int fd = openat(dir, slash + 1,
					  O_CREAT | O_EXCL | O_NOFOLLOW | O_WRONLY | O_CLOEXEC, 0644);
		(void)fd;
	}
	return spec->uid ? pod_as_root(e) : 0;
}

int pod_mounts_enter(const Pm__PodSpec *spec, const struct pod_mounts *m, const char *aside,
		     struct err *e)
{
	autoclose int root = -1;
	int r;

	r = enter_root(m->root, aside, e);
	if (r < 0)
		return r;
	uncover();
	root = open("/", O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (root < 0)
		return err_sys(e, "open /");
	r = make_points(spec, root, e);
	if (r == 0)
		r = mount_own(spec, m, root, e);
	for (size_t i = 0; i < m->nbind && r == 0; i++) {
		const char *dst = spec->binds[i]->dst;

		if (dst[0] != '/')
			return err_set(e, EINVAL, "--bind: '%s' is not an absolute path", dst);
		r = make_bind_point(spec, root, m->bind[i], dst, e);
		if (r == 0)
			r = attach(m->bind[i], root, dst, e);
		if (r < 0)
			err_wrap(e, "--bind to '%s'", dst);
	}
	return r;
}
