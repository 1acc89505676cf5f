/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * What skeletons are given: contents (bytes that travelled), the private tmpfs trees, open files.
 *
 * Paths come out of an image, so they are not trusted: tmpfs nodes are made beneath the three private
 * directories only, no symbolic link is followed on the way; files of the node are opened in the
 * pod's own mount namespace with the user's credentials.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/vfs.h>

#include "pod/base/io.h"
#include "pod/base/util.h"
#include "pod/restore.h"

#define MAX_FDS_CALL 200
/* files that are made for their inode numbers alone, 2 us each: before the freeze, or if everything is in it; and in it */
#define FILLERS 50000
#define FILLERS_LATE 1000
#ifndef MFD_EXEC
#define MFD_EXEC 0x10u
#endif

/* ---- handing fds to skeletons */

int robj_send(struct restore *r, const int *fds, size_t n, struct err *e)
{
	return io_send_fds(r->ns.sock, fds, n, e);
}

unsigned robj_recv_call(struct batch *b, int sock, size_t n)
{
	size_t space = CMSG_SPACE(n * sizeof(int));
	uint64_t byte = batch_data(b, NULL, 8), ctl = batch_data(b, NULL, space);
	struct iovec iov = { (void *)byte, 1 };
	struct msghdr mh = { .msg_iov = (void *)batch_data(b, &iov, sizeof(iov)), .msg_iovlen = 1,
			     .msg_control = (void *)ctl, .msg_controllen = space };

	return batch_add3(b, SYS_recvmsg, sock, batch_data(b, &mh, sizeof(mh)), 0);
}

/* ---- contents */

struct rcontent *robj_content(struct restore *r, uint32_t id)
{
	size_t i;

	for (i = 0; i < r->ncontents; i++)
		if (r->contents[i].id == id)
			return &r->contents[i];
	return NULL;
}

int robj_fd_of(struct restore *r, uint32_t id)
{
	struct rcontent *c = robj_content(r, id);
	size_t i;

	if (c)
		return c->fd;
	for (i = 0; i < r->nmapfiles; i++)
		if (r->mapfiles[i].id == id)
			return r->mapfiles[i].fd;
	return -1;
}

static int make_shmem(uint64_t size, struct err *e)
{
	char path[96];
	void *at = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	int fd;

	if (at == MAP_FAILED)
		return err_sys(e, "shared memory of %lu bytes", (unsigned long)size);
	snprintf(path, sizeof(path), "/proc/self/map_files/%lx-%lx", (unsigned long)at,
		 (unsigned long)at + (unsigned long)ALIGN_UP(size, PAGE));
	fd = open(path, O_RDWR | O_CLOEXEC);
	if (fd < 0)
		fd = err_sys(e, "open '%s'", path);
	munmap(at, size);
	return fd;
}

static int make_memfd(const char *name, struct err *e)
{
	char copy[200];
	int fd;

	snprintf(copy, sizeof(copy), "%s", name);
	fd = memfd_create(copy, MFD_CLOEXEC | MFD_ALLOW_SEALING | MFD_EXEC);
	if (fd < 0 && errno == EINVAL)
		fd = memfd_create(copy, MFD_CLOEXEC | MFD_ALLOW_SEALING);
	return fd < 0 ? err_sys(e, "memfd '%s'", name) : fd;
}

static int size_content(struct rcontent *c, struct err *e)
{
	if (c->fd < 0)
		return 0;
	if (c->body->source != CONTENT_SHMEM && ftruncate(c->fd, (off_t)c->body->size) < 0)
		return err_sys(e, "'%s' of %lu bytes", c->body->name, (unsigned long)c->body->size);
	if (fchmod(c->fd, c->body->mode & 07777) < 0 && c->body->source != CONTENT_SHMEM)
		return err_sys(e, "mode of '%s'", c->body->name);
	if (c->body->source != CONTENT_SHMEM && fchown(c->fd, c->body->uid, c->body->gid) < 0)
		return err_sys(e, "owner of '%s'", c->body->name);
	return 0;
}

static int one_content(struct restore *r, const Pm__Object *o, struct err *e)
{
	Pm__BodyMem *body = pm__body_mem__unpack(NULL, o->body.len, o->body.data);
	struct rcontent *c = robj_content(r, o->id), *nc;

	if (!body)
		return err_set(e, EBADMSG, "content %u is damaged", o->id);
	if (!c) {
		nc = realloc(r->contents, (r->ncontents + 1) * sizeof(*nc));
		if (!nc) {
			pm__body_mem__free_unpacked(body, NULL);
			return err_num(e, ENOMEM, "contents");
		}
		r->contents = nc;
		c = &nc[r->ncontents++];
		*c = (struct rcontent){ .id = o->id, .fd = -1 };
		if (body->source == CONTENT_SHMEM)
			c->fd = make_shmem(body->size, e);
		else if (body->source == CONTENT_MEMFD || body->source == CONTENT_UNLINKED)
			c->fd = make_memfd(body->name, e);
		if (c->fd < 0 && body->source != CONTENT_TMPFS) {
			r->ncontents--;
			pm__body_mem__free_unpacked(body, NULL);
			return e->code;
		}
	}
	if (c->body)
		pm__body_mem__free_unpacked(c->body, NULL);
	c->body = body;
	return size_content(c, e);
}

int robj_contents(struct restore *r, struct err *e)
{
	size_t i;
	int q = 0;

	for (i = 0; q >= 0 && i < r->objs->n_objects; i++)
		if (r->objs->objects[i]->type == OBJ_CONTENT)
			q = one_content(r, r->objs->objects[i], e);
	return q;
}

int robj_seal(struct restore *r, struct err *e)
{
	size_t i;

	for (i = 0; i < r->ncontents; i++) {
		const struct rcontent *c = &r->contents[i];

		if (c->body->source == CONTENT_MEMFD && c->body->seals &&
		    fcntl(c->fd, F_ADD_SEALS, c->body->seals) < 0)
			return err_sys(e, "seals of memfd '%s'", c->body->name);
	}
	return 0;
}

/* ---- mapped files */

int robj_mapfiles(struct restore *r, struct err *e)
{
	size_t i;

	for (i = 0; i < r->objs->n_objects; i++) {
		const Pm__Object *o = r->objs->objects[i];
		struct rmapfile *nm;
		Pm__BodyFile *f;
		int fd;

		if (o->type != OBJ_MAPFILE || robj_fd_of(r, o->id) >= 0)
			continue;
		f = pm__body_file__unpack(NULL, o->body.len, o->body.data);
		if (!f)
			return err_set(e, EBADMSG, "mapped file %u is damaged", o->id);
		fd = restore_open(r, f->path, (int)(o->flags & O_ACCMODE), 0, e);
		pm__body_file__free_unpacked(f, NULL);
		if (fd < 0)
			return fd;
		nm = realloc(r->mapfiles, (r->nmapfiles + 1) * sizeof(*nm));
		if (!nm) {
			close(fd);
			return err_num(e, ENOMEM, "mapped files");
		}
		r->mapfiles = nm;
		nm[r->nmapfiles++] = (struct rmapfile){ o->id, fd };
	}
	return 0;
}

/* ---- tmpfs trees */

static const char *const tops[] = { "tmp", "run", "dev/shm" };

static bool path_is_private(const char *path)
{
	size_t i;

	for (i = 0; i < ARRAY_SIZE(tops); i++) {
		size_t n = strlen(tops[i]);

		if (!strncmp(path, tops[i], n) && (!path[n] || path[n] == '/'))
			return true;
	}
	return false;
}

/* The directory that a node is in, and its last name. */
static int open_parent(int root, const char *path, const char **name, struct err *e)
{
	struct open_how how = { .flags = O_PATH | O_DIRECTORY | O_CLOEXEC,
				.resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS };
	const char *slash = strrchr(path, '/');
	char dir[PATH_MAX];
	int fd;

	if (!path_is_private(path) || strlen(path) >= sizeof(dir))
		return err_set(e, EBADMSG, "'%s' is not in the pod's private directories", path);
	snprintf(dir, sizeof(dir), "%.*s", slash ? (int)(slash - path) : 1, slash ? path : ".");
	*name = slash ? slash + 1 : path;
	if (!**name || !strcmp(*name, ".") || !strcmp(*name, ".."))
		return err_set(e, EBADMSG, "'%s' is not a name", path);
	fd = (int)syscall(SYS_openat2, root, dir, &how, sizeof(how));
	return fd < 0 ? err_sys(e, "open '/%s'", dir) : fd;
}

static bool is_top(const char *path)
{
	return !strcmp(path, "tmp") || !strcmp(path, "run") || !strcmp(path, "dev/shm");
}

/* A regular file: made with its content, or the name of one that is there already (renamed, hard-linked). */
static int make_file(struct restore *r, int dir, const char *name, const Pm__TmpfsNode *n, struct err *e)
{
	struct rcontent *c = robj_content(r, n->object);
	struct stat mine, there;
	char self[48];

	if (!c || c->body->source != CONTENT_TMPFS)
		return err_set(e, EBADMSG, "'/%s' has no content", n->path);
	if (c->fd < 0) {
		unlinkat(dir, name, 0);
		c->fd = openat(dir, name, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
		if (c->fd < 0)
			return err_sys(e, "create '/%s'", n->path);
	} else {
		if (fstat(c->fd, &mine) < 0)
			return err_sys(e, "stat '/%s'", n->path);
		if (fstatat(dir, name, &there, AT_SYMLINK_NOFOLLOW) == 0) {
			if (there.st_ino == mine.st_ino && there.st_dev == mine.st_dev)
				return size_content(c, e);
			unlinkat(dir, name, S_ISDIR(there.st_mode) ? AT_REMOVEDIR : 0);
		}
		snprintf(self, sizeof(self), "/proc/self/fd/%d", c->fd);
		if (linkat(AT_FDCWD, self, dir, name, AT_SYMLINK_FOLLOW) < 0)
			return err_sys(e, "link '/%s'", n->path);
	}
	return size_content(c, e);
}

static int make_other(int dir, const char *name, const Pm__TmpfsNode *n, struct err *e)
{
	struct stat st;
	int q;

	if (fstatat(dir, name, &st, AT_SYMLINK_NOFOLLOW) == 0) {
		if ((st.st_mode & S_IFMT) == (n->mode & S_IFMT) && !S_ISLNK(st.st_mode))
			return 0;
		unlinkat(dir, name, S_ISDIR(st.st_mode) ? AT_REMOVEDIR : 0);
	}
	if (S_ISDIR(n->mode))
		q = mkdirat(dir, name, 0700);
	else if (S_ISLNK(n->mode))
		q = symlinkat(n->target, dir, name);
	else if (S_ISFIFO(n->mode))
		q = mknodat(dir, name, S_IFIFO | 0600, 0);
	else
		return err_set(e, EBADMSG, "'/%s' is of no kind that is carried", n->path);
	return q < 0 ? err_sys(e, "make '/%s'", n->path) : 0;
}

static int make_node(struct restore *r, int root, const Pm__TmpfsNode *n, struct err *e)
{
	autoclose int dir = -1;
	const char *name;
	int q = 0;

	dir = open_parent(root, n->path, &name, e);
	if (dir < 0)
		return dir;
	if (!is_top(n->path))
		q = S_ISREG(n->mode) ? make_file(r, dir, name, n, e) : make_other(dir, name, n, e);
	if (q < 0)
		return q;
	if (fchownat(dir, name, n->uid, n->gid, AT_SYMLINK_NOFOLLOW) < 0 ||
	    (!S_ISLNK(n->mode) && fchmodat(dir, name, n->mode & 07777, 0) < 0))
		return err_sys(e, "owner and mode of '/%s'", n->path);
	return 0;
}

static int open_root(struct restore *r, struct err *e)
{
	char path[48];
	int fd;

	snprintf(path, sizeof(path), "/proc/%d/root", r->ns.pid);
	fd = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
	return fd < 0 ? err_sys(e, "open '%s'", path) : fd;
}

static int by_path(const void *a, const void *b)
{
	return strcmp((*(Pm__TmpfsNode *const *)a)->path, (*(Pm__TmpfsNode *const *)b)->path);
}

/* What the last tree had and this one has not. */
static int remove_stale(int root, Pm__Tmpfs *old, Pm__Tmpfs *now, struct err *e)
{
	Pm__TmpfsNode **sorted = malloc((now->n_nodes + 1) * sizeof(*sorted));
	size_t i;

	if (!sorted)
		return err_num(e, ENOMEM, "tmpfs trees");
	memcpy(sorted, now->nodes, now->n_nodes * sizeof(*sorted));
	qsort(sorted, now->n_nodes, sizeof(*sorted), by_path);
	for (i = old->n_nodes; i-- > 0;) {
		Pm__TmpfsNode *n = old->nodes[i];
		autoclose int dir = -1;
		const char *name;

		if (is_top(n->path) || bsearch(&n, sorted, now->n_nodes, sizeof(*sorted), by_path))
			continue;
		dir = open_parent(root, n->path, &name, NULL);
		if (dir >= 0)
			unlinkat(dir, name, S_ISDIR(n->mode) ? AT_REMOVEDIR : 0);
	}
	free(sorted);
	return 0;
}

/*
 * Inode numbers. Programs tell by them whether a file is still the one that they opened (SQLite: "readonly database"). A
 * tmpfs numbers its inodes in the order of their making, so they are made in that order, and what is not there any more is
 * stood for by files that vanish at once. That is bounded; what cannot be had is a new number, as before.
 */
struct inodes {
	int top;
	uint64_t next; /* the number that comes next */
	unsigned left;
};

static int make_nameless(struct inodes *s)
{
	int fd = openat(s->top, ".", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
	struct stat st;

	if (fd >= 0 && fstat(fd, &st) == 0)
		s->next = st.st_ino + 1;
	return fd;
}

/* Is @ino the next number now? */
static bool reach_inode(struct inodes *s, uint64_t ino)
{
	if (!s->next) {
		autoclose int fd = make_nameless(s);

		if (fd < 0)
			return false;
	}
	if (ino < s->next || ino - s->next > s->left)
		return false;
	while (s->next < ino) {
		autoclose int fd = make_nameless(s);

		if (fd < 0 || !s->left--)
			return false;
	}
	return s->next == ino;
}

static void make_numbered(struct restore *r, int root, struct inodes *s, const Pm__TmpfsNode *n)
{
	struct rcontent *c = S_ISREG(n->mode) ? robj_content(r, n->object) : NULL;
	autoclose int dir = -1;
	const char *name;
	struct stat st;

	if (c) {
		if (c->fd < 0 && c->body->source == CONTENT_TMPFS && reach_inode(s, n->inode))
			c->fd = make_nameless(s); /* make_file() gives it its names */
		return;
	}
	if ((!S_ISDIR(n->mode) && !S_ISFIFO(n->mode)) || is_top(n->path))
		return;
	dir = open_parent(root, n->path, &name, NULL);
	if (dir < 0 || fstatat(dir, name, &st, AT_SYMLINK_NOFOLLOW) == 0 || !reach_inode(s, n->inode))
		return;
	if (make_other(dir, name, n, NULL) == 0)
		s->next++;
}

static int by_inode(const void *a, const void *b)
{
	uint64_t x = (*(Pm__TmpfsNode *const *)a)->inode, y = (*(Pm__TmpfsNode *const *)b)->inode;

	return x < y ? -1 : x > y;
}

/* Of one of the private trees, which is a file system. */
static int keep_inodes(struct restore *r, int root, const char *top, struct err *e)
{
	struct open_how how = { .flags = O_PATH | O_DIRECTORY | O_CLOEXEC,
				.resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS };
	autoclose int fd = (int)syscall(SYS_openat2, root, top, &how, sizeof(how));
	struct inodes s = { .top = fd, .left = r->old_tmpfs ? FILLERS_LATE : FILLERS };
	size_t n = 0, i, len = strlen(top);
	Pm__TmpfsNode **sorted;
	struct statfs fs;
	struct stat st;

	if (fd < 0 || fstatfs(fd, &fs) < 0 || fs.f_type != TMPFS_MAGIC || fstat(fd, &st) < 0)
		return 0;
	if (!r->old_tmpfs && st.st_nlink == 2)
		s.next = st.st_ino + 1; /* it is new */
	sorted = malloc((r->tmpfs->n_nodes + 1) * sizeof(*sorted));
	if (!sorted)
		return err_num(e, ENOMEM, "tmpfs trees");
	for (i = 0; i < r->tmpfs->n_nodes; i++)
		if (!strncmp(r->tmpfs->nodes[i]->path, top, len) && r->tmpfs->nodes[i]->path[len] == '/')
			sorted[n++] = r->tmpfs->nodes[i];
	qsort(sorted, n, sizeof(*sorted), by_inode);
	for (i = 0; i < n; i++)
		make_numbered(r, root, &s, sorted[i]);
	free(sorted);
	return 0;
}

int robj_tmpfs(struct restore *r, struct err *e)
{
	autoclose int root = open_root(r, e);
	size_t i;
	int q = root < 0 ? root : 0;

	for (i = 0; q >= 0 && i < ARRAY_SIZE(tops); i++)
		q = keep_inodes(r, root, tops[i], e);
	for (i = 0; q >= 0 && i < r->tmpfs->n_nodes; i++)
		q = make_node(r, root, r->tmpfs->nodes[i], e);
	if (q >= 0 && r->old_tmpfs)
		q = remove_stale(root, r->old_tmpfs, r->tmpfs, e);
	return q;
}

int robj_tmpfs_times(struct restore *r, struct err *e)
{
	autoclose int root = open_root(r, e);
	size_t i;

	if (root < 0)
		return root;
	for (i = r->tmpfs->n_nodes; i-- > 0;) {
		const Pm__TmpfsNode *n = r->tmpfs->nodes[i];
		struct timespec ts[2] = { { 0, UTIME_OMIT },
					  { n->mtime_ns / 1000000000, n->mtime_ns % 1000000000 } };
		const char *name;
		autoclose int dir = open_parent(root, n->path, &name, e);

		if (dir < 0)
			return dir;
		if (utimensat(dir, name, ts, AT_SYMLINK_NOFOLLOW) < 0)
			return err_sys(e, "time of '/%s'", n->path);
	}
	return 0;
}

/* ---- open file descriptions */

static int by_stage(const void *a, const void *b)
{
	const struct robject *x = a, *y = b;

	if (x->kind->stage != y->kind->stage)
		return x->kind->stage < y->kind->stage ? -1 : 1;
	return x->msg->id < y->msg->id ? -1 : 1;
}

static int unpack_objects(struct restore *r, struct err *e)
{
	size_t i;

	r->objects = calloc(r->objs->n_objects + 1, sizeof(*r->objects));
	if (!r->objects)
		return err_num(e, ENOMEM, "open files");
	for (i = 0; i < r->objs->n_objects; i++) {
		const Pm__Object *o = r->objs->objects[i];
		struct robject *x = &r->objects[r->nobjects];

		if (o->type == OBJ_CONTENT || o->type == OBJ_MAPFILE)
			continue;
		x->msg = o;
		x->fd = -1;
		x->kind = o->type < OBJ_MAPFILE ? kind_of_type((uint16_t)o->type) : NULL;
		if (!x->kind || o->version < x->kind->min_version || o->version > x->kind->version)
			return err_set(e, EOPNOTSUPP, "'%s': kind %u version %u is not known here", o->link, o->type,
				       o->version);
		if (x->kind->schema) {
			x->body = protobuf_c_message_unpack(x->kind->schema, NULL, o->body.len, o->body.data);
			if (!x->body)
				return err_set(e, EBADMSG, "'%s': its record is damaged", o->link);
		}
		r->nobjects++;
	}
	qsort(r->objects, r->nobjects, sizeof(*r->objects), by_stage);
	return 0;
}

/* Flags and position belong to the description, whatever its kind. */
static int set_common(struct robject *o, struct err *e)
{
	const uint32_t settable = O_APPEND | O_NONBLOCK | O_DIRECT | O_NOATIME;
	int have = fcntl(o->fd, F_GETFL);
	struct stat st;
	char buf[4096];

	if (have < 0 || fstat(o->fd, &st) < 0)
		return err_sys(e, "flags");
	if ((o->msg->flags & O_PATH) == 0 && (((uint32_t)have ^ o->msg->flags) & settable) &&
	    fcntl(o->fd, F_SETFL, (have & (int)~settable) | (int)(o->msg->flags & settable)) < 0)
		return err_sys(e, "set flags %#o", o->msg->flags);
	/* ext4 takes the end's position for a beginning if nothing was read before it: rewound, it would read nothing */
	if (S_ISDIR(st.st_mode) && !(o->msg->flags & O_PATH) && o->msg->pos &&
	    syscall(SYS_getdents64, o->fd, buf, sizeof(buf)) < 0)
		return err_sys(e, "read the directory");
	if ((S_ISREG(st.st_mode) || S_ISDIR(st.st_mode)) && !(o->msg->flags & O_PATH) &&
	    lseek(o->fd, o->msg->pos, SEEK_SET) < 0)
		return err_sys(e, "set the position");
	return 0;
}

int robj_restore(struct restore *r, struct err *e)
{
	int q = unpack_objects(r, e);
	size_t i;

	for (i = 0; q >= 0 && i < r->nobjects; i++) {
		struct robject *o = &r->objects[i];

		q = o->kind->restore(r, o, e);
		if (q >= 0 && o->fd < 0)
			q = err_set(e, EIO, "was not made");
		if (q >= 0)
			q = set_common(o, e);
		if (q < 0)
			return err_wrap(e, "pid %u: fd %u (%s)", o->msg->owner_pid, o->msg->owner_fd, o->msg->link);
	}
	for (i = 0; q >= 0 && i < r->nobjects; i++) {
		struct robject *o = &r->objects[i];

		if (o->kind->finish)
			q = o->kind->finish(r, o, e);
		if (q < 0)
			return err_wrap(e, "pid %u: fd %u (%s)", o->msg->owner_pid, o->msg->owner_fd, o->msg->link);
	}
	return q;
}

/* ---- fds of a process */

static int cmp_fd(const void *a, const void *b)
{
	uint32_t x = (*(Pm__Fd *const *)a)->fd, y = (*(Pm__Fd *const *)b)->fd;

	return x < y ? -1 : x > y;
}

/*
 * Received fds take the lowest free numbers, so the j-th lands at or below the number it shall have;
 * moved in descending order none stands in another's way.
 */
static int receive(struct restore *r, struct rproc *p, Pm__Fd **fd, size_t n, int sock, struct err *e)
{
	int fds[MAX_FDS_CALL];
	size_t i, k;
	int q = 0;

	for (i = 0; q >= 0 && i < n; i += k) {
		for (k = 0; k < MAX_FDS_CALL && i + k < n; k++) {
			struct robject *o = restore_object(r, fd[i + k]->object);

			if (!o)
				return err_set(e, EBADMSG, "pid %d: fd %u is of the unknown object %u", p->nspid, fd[i + k]->fd,
					       fd[i + k]->object);
			fds[k] = o->fd;
		}
		robj_recv_call(r->b, sock, k);
		q = robj_send(r, fds, k, e);
		if (q >= 0) {
			q = batch_run_ok(p->tasks[0], r->b, deadline_ms(5000), e);
			batch_begin(r->b, r->scratch);
		}
	}
	return q;
}

static int move(struct restore *r, struct rproc *p, Pm__Fd **fd, size_t n, struct err *e)
{
	size_t j;
	int q = 0;

	for (j = n; q >= 0 && j-- > 0;) {
		uint32_t to = fd[j]->fd;

		if (to == j) {
			if (fd[j]->cloexec)
				batch_add3(r->b, SYS_fcntl, j, F_SETFD, FD_CLOEXEC);
		} else {
			batch_add3(r->b, SYS_dup3, j, to, fd[j]->cloexec ? O_CLOEXEC : 0);
			batch_add1(r->b, SYS_close, j);
		}
		if (r->b->n + 4 > BATCH_MAX) {
			q = batch_run_ok(p->tasks[0], r->b, deadline_ms(5000), e);
			batch_begin(r->b, r->scratch);
		}
	}
	return q;
}

/* Whom the description sends signals, told by a process of the pod, as pids are its own there. O_ASYNC comes last: what
 * was queued before sends none. */
static void set_sigio(struct restore *r, struct robject *o, int fdno)
{
	const uint32_t flags = O_APPEND | O_NONBLOCK | O_DIRECT | O_NOATIME | O_ASYNC;
	const Pm__Object *m = o->msg;
	struct f_owner_ex own = { (int)m->sigio_type - 1, m->sigio_pid };

	if (o->sigio || (m->flags & O_PATH))
		return;
	o->sigio = true;
	if (m->sigio_type)
		batch_add3(r->b, SYS_fcntl, fdno, F_SETOWN_EX, batch_data(r->b, &own, sizeof(own)));
	if (m->sigio_signal)
		batch_add3(r->b, SYS_fcntl, fdno, F_SETSIG, m->sigio_signal);
	if (m->flags & O_ASYNC)
		batch_add3(r->b, SYS_fcntl, fdno, F_SETFL, m->flags & flags);
}

/* What a kind adds inside the process; an epoll may have more items than a batch has entries. */
static int place_one(struct restore *r, struct rproc *p, struct robject *o, int fdno, struct err *e)
{
	int more = 1, q = 0;

	set_sigio(r, o, fdno);
	o->placed = 0;
	while (q >= 0 && more > 0 && o->kind->place) {
		more = q = o->kind->place(r, o, p->want, fdno, r->b, e);
		if (q >= 0 && (more || r->b->n > BATCH_MAX / 2)) {
			q = batch_run_ok(p->tasks[0], r->b, deadline_ms(5000), e);
			batch_begin(r->b, r->scratch);
		}
	}
	return q;
}

int robj_place(struct restore *r, struct rproc *p, struct err *e)
{
	const Pm__Proc *w = p->want;
	int sock = POD_NS_CHILD_FD, q = 0;
	size_t i;

	qsort(w->fds, w->n_fds, sizeof(*w->fds), cmp_fd);
	for (i = 1; i < w->n_fds; i++)
		if (w->fds[i]->fd == w->fds[i - 1]->fd)
			return err_set(e, EBADMSG, "pid %d: fd %u twice", p->nspid, w->fds[i]->fd);
	batch_begin(r->b, r->scratch);
	if (w->n_fds && w->fds[w->n_fds - 1]->fd >= POD_NS_CHILD_FD) {
		sock = (int)w->fds[w->n_fds - 1]->fd + 1;
		batch_add3(r->b, SYS_dup3, POD_NS_CHILD_FD, sock, 0);
		batch_add1(r->b, SYS_close, POD_NS_CHILD_FD);
	}
	q = receive(r, p, w->fds, w->n_fds, sock, e);
	if (q >= 0)
		q = move(r, p, w->fds, w->n_fds, e);
	for (i = 0; q >= 0 && i < w->n_fds; i++)
		q = place_one(r, p, restore_object(r, w->fds[i]->object), (int)w->fds[i]->fd, e);
	if (q >= 0) {
		batch_add1(r->b, SYS_close, sock);
		q = batch_run_ok(p->tasks[0], r->b, deadline_ms(5000), e);
	}
	return q < 0 ? err_wrap(e, "pid %d (%s): open files", p->nspid, w->comm) : 0;
}

void robj_done(struct restore *r)
{
	size_t i;

	for (i = 0; i < r->nobjects; i++) {
		close_fdp(&r->objects[i].fd);
		if (r->objects[i].body)
			protobuf_c_message_free_unpacked(r->objects[i].body, NULL);
	}
	for (i = 0; i < r->ncontents; i++) {
		close_fdp(&r->contents[i].fd);
		if (r->contents[i].body)
			pm__body_mem__free_unpacked(r->contents[i].body, NULL);
	}
	for (i = 0; i < r->nmapfiles; i++)
		close_fdp(&r->mapfiles[i].fd);
	for (i = 0; i < r->nparked; i++)
		close_fdp(&r->parked[i].fd);
	free(r->objects);
	free(r->contents);
	free(r->mapfiles);
	free(r->parked);
}
