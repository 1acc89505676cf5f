/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Regular files and directories.
 *
 * Theory of operation. A file travels in one of three ways. (1) It has a name on a file system that
 * the target sees as well: the path travels, the target opens it and compares what it finds. (2) It
 * lies on a private tmpfs of the pod: its bytes travel with that tree and the path is opened
 * afterwards. (3) It has lost its name, or never had one (memfd, O_TMPFILE): its bytes travel as a
 * content object, and each description is opened anew through /proc/self/fd of that, so that
 * offsets stay separate where they were separate and shared where dup and fork shared them.
 *
 * The path is what /proc says from outside, relative to the root of the pod's mount namespace. It is
 * believed only if it leads to the same inode in the pod's root: a name that was replaced, a mount on
 * top, a file whose name really ends in " (deleted)" are told apart so.
 *
 * Limits, refused by name: a removed file that has other links on a shared file system (its bytes
 * would split from theirs), removed directories, most leases, files of sysfs and its like (open
 * them again after the move), hugetlbfs, memfd_secret.
 *
 * Files of the pod's own procfs are opened again by path, if they were open for reading: /proc/self
 * is /proc/PID in the link, and PID is the same there. What the opener may see is decided at open and
 * kept, so it is opened with the user's credentials, but for a few files of processes: the skeletons
 * are root's still, and of these files only the pod's own processes can be read.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/vfs.h>

#include "pod/base/util.h"
#include "pod/kind/kinds.h"

/* flags that make no sense on a file that exists; __O_TMPFILE without its O_DIRECTORY */
#define OPEN_ONLY (O_CREAT | O_EXCL | O_TRUNC | O_NOCTTY | O_CLOEXEC | (O_TMPFILE & ~O_DIRECTORY) | O_ASYNC)

static const struct {
	long magic;
	const char *name;
	bool dirs; /* directories may be carried: nothing but names in them */
} pseudo_fs[] = {
	{ PROC_SUPER_MAGIC, "procfs", true }, /* check_proc() comes first */
	{ SYSFS_MAGIC, "sysfs", true },
	{ CGROUP2_SUPER_MAGIC, "cgroup2", true },
	{ CGROUP_SUPER_MAGIC, "cgroup", true },
	{ NSFS_MAGIC, "nsfs (a namespace)", false },
	{ 0x50494446, "pidfs", false },
	{ DEBUGFS_MAGIC, "debugfs", false },
	{ TRACEFS_MAGIC, "tracefs", false },
	{ BPF_FS_MAGIC, "bpf", false },
	{ SECURITYFS_MAGIC, "securityfs", false },
	{ SELINUX_MAGIC, "selinuxfs", false },
	{ EFIVARFS_MAGIC, "efivarfs", false },
	{ BINFMTFS_MAGIC, "binfmt_misc", false },
	{ HUGETLBFS_MAGIC, "hugetlbfs", false },
	{ 0x5345434d, "secretmem (memfd_secret)", false },
	{ 0x19800202, "mqueue (a POSIX message queue)", false },
	{ 0x65735543, "fuse control", false },
	{ 0x0187, "autofs", false },
};

static bool match(const struct probe *p)
{
	if (p->link[0] != '/')
		return false;
	if (kind_is_o_path(p))
		return true;
	return S_ISREG(p->st.st_mode) || S_ISDIR(p->st.st_mode);
}

/* Files of /proc/PID and /proc/PID/task/TID that show their opener nothing that the process itself may not see. */
static const char *const harmless[] = {
	"status", "stat", "statm", "cmdline", "environ", "maps", "smaps", "smaps_rollup", "limits", "mountinfo",
	"mounts", "comm", "cgroup", "oom_score", "oom_score_adj", "auxv", "sched", "schedstat", "io",
};

static const char *skip_id(const char *s, const char *before)
{
	size_t n = strlen(before), digits;

	if (!s || strncmp(s, before, n))
		return NULL;
	digits = strspn(s + n, "0123456789");
	return digits && s[n + digits] == '/' ? s + n + digits : NULL;
}

static bool is_harmless(const char *path)
{
	const char *s = skip_id(path, "/proc/"), *task = skip_id(s, "/task/");
	size_t i;

	s = task ? task : s;
	for (i = 0; s && i < ARRAY_SIZE(harmless); i++)
		if (!strcmp(s + 1, harmless[i]))
			return true;
	return false;
}

static bool is_proc(const char *path, uint32_t mode)
{
	return S_ISREG(mode) && !strncmp(path, "/proc/", 6);
}

static int check_proc(struct dump *d, const struct probe *p, struct err *e)
{
	struct stat own, node;

	if (fstatat(dump_pod_root(d), "proc", &own, 0) < 0 || stat("/proc", &node) < 0)
		return err_sys(e, "stat '/proc'");
	if (own.st_dev != p->st.st_dev || own.st_dev == node.st_dev || strncmp(p->link, "/proc/", 6))
		return KIND_REFUSE(e, "'%s' is a file of a procfs that is not the pod's own: cannot be carried",
				   p->link);
	if ((p->flags & O_ACCMODE) != O_RDONLY && !kind_is_o_path(p))
		return KIND_REFUSE(e, "'%s', a file of procfs, is open for writing: cannot be carried", p->link);
	if (!is_harmless(p->link) && (!(p->st.st_mode & S_IROTH) || p->st.st_size))
		return KIND_REFUSE(e, "'%s' is a file of procfs that only root may read: cannot be carried", p->link);
	return 0;
}

static int check_fs(struct dump *d, const struct probe *p, struct err *e)
{
	struct statfs fs;
	size_t i;

	if (fstatfs(p->fd, &fs) < 0)
		return err_sys(e, "statfs '%s'", p->link);
	if ((long)fs.f_type == PROC_SUPER_MAGIC && S_ISREG(p->st.st_mode))
		return check_proc(d, p, e);
	for (i = 0; i < ARRAY_SIZE(pseudo_fs); i++)
		if ((long)fs.f_type == pseudo_fs[i].magic &&
		    !(pseudo_fs[i].dirs && S_ISDIR(p->st.st_mode)))
			return KIND_REFUSE(e, "'%s' is a file of %s: cannot be carried", p->link,
					   pseudo_fs[i].name);
	return 0;
}

/* The same with what only the bytes of a regular file can be made again from. */
static int find_place(struct dump *d, const struct probe *p, struct kind_place *at, struct err *e)
{
	int r = kind_find_place(d, p, at, e);

	if (r < 0 || !at->removed)
		return r;
	if (kind_is_o_path(p))
		return KIND_REFUSE(e, "'%s' was removed and is held by O_PATH", at->path);
	if (S_ISDIR(p->st.st_mode))
		return KIND_REFUSE(e, "directory '%s' was removed", at->path);
	if (p->st.st_nlink > 0 && !at->tmpfs)
		return KIND_REFUSE(e, "'%s' was removed but has other links", at->path);
	return 0;
}

static int check(struct dump *d, const struct probe *p, struct err *e)
{
	struct kind_place at;
	int r = check_fs(d, p, e);

	if (r == 0)
		r = kind_check_leases(d, p, e);
	return r < 0 ? r : find_place(d, p, &at, e);
}

static int dump(struct dump *d, struct object *o, ProtobufCMessage **body, struct err *e)
{
	Pm__BodyFile *m = dump_alloc(d, sizeof(*m));
	struct kind_place at;
	struct stat st;
	int r = check_fs(d, &o->p, e);

	if (r == 0)
		r = kind_check_leases(d, &o->p, e);
	if (r == 0)
		r = find_place(d, &o->p, &at, e);
	if (r < 0)
		return r;
	if (fstat(o->p.fd, &st) < 0)
		return err_sys(e, "stat '%s'", o->p.link);
	pm__body_file__init(m);
	m->path = dump_strdup(d, at.path);
	m->size = (uint64_t)st.st_size;
	m->mtime_ns = st.st_mtim.tv_sec * 1000000000ll + st.st_mtim.tv_nsec;
	m->mode = st.st_mode;
	m->inode = st.st_ino;
	m->uid = st.st_uid;
	m->gid = st.st_gid;
	m->tmpfs = at.tmpfs;
	m->deleted = at.removed;
	if (at.removed) {
		r = dump_add_content(d, &o->p, &m->content, e);
		if (r < 0)
			return r;
	}
	*body = &m->base;
	return 0;
}

/* Is what was opened what was meant? A file that others may write can have grown meanwhile. */
static int verify(int fd, const Pm__BodyFile *m, uint32_t flags, struct err *e)
{
	struct stat st;

	if (fstat(fd, &st) < 0)
		return err_sys(e, "stat '%s'", m->path);
	if ((st.st_mode & S_IFMT) != (m->mode & S_IFMT))
		return err_set(e, ESTALE, "'%s' is another kind of file here", m->path);
	if (!S_ISREG(st.st_mode) || m->tmpfs || (flags & O_PATH))
		return 0;
	if ((flags & O_ACCMODE) == O_RDONLY ? (uint64_t)st.st_size != m->size :
					      (uint64_t)st.st_size < m->size)
		return err_set(e, ESTALE, "'%s' has %lld bytes here and had %llu", m->path,
			       (long long)st.st_size, (unsigned long long)m->size);
	return 0;
}

static int open_harmless(void *arg, struct err *e)
{
	const Pm__BodyFile *m = arg;
	struct open_how how = { .flags = O_RDONLY | O_CLOEXEC | O_NONBLOCK,
				.resolve = RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS };
	autoclose int fd = (int)syscall(SYS_openat2, AT_FDCWD, m->path, &how, sizeof(how));
	struct statfs fs;

	if (fd < 0 || fstatfs(fd, &fs) < 0)
		return err_sys(e, "open '%s'", m->path);
	if ((long)fs.f_type != PROC_SUPER_MAGIC)
		return KIND_DAMAGED(e, "'%s' is no file of procfs", m->path);
	return take_fd(&fd);
}

/* Opens it in the pod. O_NONBLOCK: should there be a FIFO or a device in its place, opening it must not wait. Nothing
 * else that F_GETFL would show is added. */
static int open_path(struct restore *r, const Pm__BodyFile *m, uint32_t flags, struct err *e)
{
	if (is_proc(m->path, m->mode) && is_harmless(m->path) && !(flags & (O_ACCMODE | O_PATH)))
		return restore_in_pod(r, false, open_harmless, (void *)(uintptr_t)m, e);
	return restore_open(r, m->path, (int)(flags | O_NONBLOCK | O_CLOEXEC | O_NOCTTY), 0, e);
}

static int restore(struct restore *r, struct robject *o, struct err *e)
{
	const Pm__BodyFile *m = (const void *)o->body;
	uint32_t flags = o->msg->flags & ~(uint32_t)OPEN_ONLY;
	autoclose int fd = -1;
	int ret;

	if (m->deleted) {
		int content = restore_content(r, m->content, e);

		if (content < 0)
			return err_wrap(e, "content of '%s'", m->path);
		if (flags & O_PATH)
			return KIND_DAMAGED(e, "'%s': flags 0x%x of a removed file", m->path, flags);
		/*
		 * A sealed memfd refuses O_RDWR never: seals are looked at when it is written. O_TMPFILE leaves O_DIRECTORY
		 * behind; O_NOFOLLOW, which mkstemp() of scripts uses, would be about our link.
		 */
		fd = ret = kind_reopen(content, (int)(flags & ~(uint32_t)(O_DIRECTORY | O_NOFOLLOW)), e);
		if (ret < 0)
			return err_wrap(e, "'%s'", m->path);
		o->fd = take_fd(&fd);
		return 0;
	}
	if (m->path[0] != '/')
		return KIND_DAMAGED(e, "'%s' is not an absolute path", m->path);
	if (!S_ISDIR(m->mode))
		flags &= ~(uint32_t)O_DIRECTORY;
	if (!(flags & O_PATH) && !S_ISREG(m->mode) && !S_ISDIR(m->mode))
		return KIND_DAMAGED(e, "'%s': mode 0%o", m->path, m->mode);
	fd = ret = open_path(r, m, flags, e);
	if (ret < 0)
		return ret;
	ret = verify(fd, m, flags, e);
	if (ret < 0)
		return ret;
	o->fd = take_fd(&fd);
	return 0;
}

const struct kind kind_file = {
	.name = "file",
	.type = TYPE_FILE,
	.version = 1,
	.min_version = 1,
	.scope = KIND_FD,
	.loose = true,
	.stage = STAGE_PLAIN,
	.schema = &pm__body_file__descriptor,
	.match = match,
	.check = check,
	.dump = dump,
	.restore = restore,
};
