/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Bytes that travelled (contents), and the private tmpfs trees that name some of them.
 *
 * An image is not trusted. Root writes here what a user may have written the names of, so a name is
 * looked up beneath the pod's own /tmp, /run and /dev/shm only: each is opened once, must be a tmpfs that
 * nobody else has (private.h), and from there no lookup leaves it, by no `..`, link or mount. Owners and
 * modes are set through what was opened, never by a name whose last step could lead over a mount.
 *
 * The tree may come twice, for the landing zone and for the cut, and programs rename meanwhile: names of
 * the second tree may be in each other's way, and the last name of a file may go before its new one
 * comes. So the second time all files that change names are held by another name first, then the names
 * that are not wanted any more go, and then all is made that is not there.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#include "pod/base/io.h"
#include "pod/base/util.h"
#include "pod/private.h"
#include "pod/restore.h"
#include "pod/sysv.h"

/* files that are made for their inode numbers alone, 2 us each: before the freeze, or if everything is in it; and in it */
#define FILLERS 50000
#define FILLERS_LATE 1000
#define HOLD_TRIES 16
#ifndef MFD_EXEC
#define MFD_EXEC 0x10u
#endif

/* ---- contents */

struct rcontent *robj_content(struct restore *r, uint32_t id)
{
	size_t i;

	for (i = 0; i < r->ncontents; i++)
		if (r->contents[i].id == id)
			return &r->contents[i];
	return NULL;
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

bool rtmpfs_may_be(const Pm__PodSpec *spec, uint32_t uid, uint32_t gid)
{
	bool ok = !spec->uid || (uid == spec->uid && gid == spec->gid);
	size_t i;

	for (i = 0; !ok && uid == spec->uid && i < spec->n_groups; i++)
		ok = spec->groups[i] == gid;
	return ok;
}

/*
 * What an image says of owners gains nobody anything: in a user's pod a file of its private trees is the user's. What
 * was removed, or came as an fd, may have been another's; then it is no program that would run as that other.
 */
int rtmpfs_owner(const Pm__PodSpec *spec, uint32_t uid, uint32_t gid, const char *name, struct err *e)
{
	return rtmpfs_may_be(spec, uid, gid) ? 0 :
					      err_set(e, EPERM, "'%s' belongs to %u:%u, which user '%s' is not", name, uid, gid, spec->user);
}

static int check_content(struct restore *r, const Pm__BodyMem *b, struct err *e)
{
	if (b->source == CONTENT_SYSV)
		return rtmpfs_owner(r->req->spec, b->cuid, b->cgid, "a System V segment", e);
	if (b->source == CONTENT_SHMEM || (b->source != CONTENT_TMPFS && !(b->mode & (S_ISUID | S_ISGID))))
		return 0;
	return rtmpfs_owner(r->req->spec, b->uid, b->gid, b->name, e);
}

static int size_content(struct rcontent *c, struct err *e)
{
	if (c->fd < 0 || c->body->source == CONTENT_SYSV)
		return 0;
	if (c->body->source == CONTENT_SHMEM) {
		fchmod(c->fd, c->body->mode & 0777);
		return 0;
	}
	if (ftruncate(c->fd, (off_t)c->body->size) < 0)
		return err_sys(e, "'%s' of %lu bytes", c->body->name, (unsigned long)c->body->size);
	/* in this order: a change of owner takes setuid bits away */
	if (fchown(c->fd, c->body->uid, c->body->gid) < 0)
		return err_sys(e, "owner of '%s'", c->body->name);
	if (fchmod(c->fd, c->body->mode & 07777) < 0)
		return err_sys(e, "mode of '%s'", c->body->name);
	return 0;
}

static int one_content(struct restore *r, const Pm__Object *o, struct err *e)
{
	Pm__BodyMem *body = pm__body_mem__unpack(NULL, o->body.len, o->body.data);
	struct rcontent *c = robj_content(r, o->id), *nc;

	if (!body)
		return err_set(e, EBADMSG, "content %u is damaged", o->id);
	if (check_content(r, body, e) < 0) {
		pm__body_mem__free_unpacked(body, NULL);
		return e->code;
	}
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
		else if (body->source == CONTENT_SYSV)
			c->fd = sysv_make(r, body, e);
		else if (body->source == CONTENT_MEMFD)
			c->fd = make_memfd(body->name, e);
		if (c->fd < 0 && body->source != CONTENT_TMPFS && body->source != CONTENT_UNLINKED) {
			r->ncontents--;
			pm__body_mem__free_unpacked(body, NULL);
			return e->code;
		}
	}
	if (c->body && (c->body->source == CONTENT_SYSV || body->source == CONTENT_SYSV) &&
	    (c->body->source != body->source || c->body->sysv_id != body->sysv_id || c->body->size != body->size)) {
		pm__body_mem__free_unpacked(body, NULL);
		return err_set(e, EBADMSG, "content %u has become another", o->id);
	}
	if (c->body && body->source == CONTENT_SYSV && (body->mode & ~c->body->mode & SHM_DEST) && sysv_gone(r, c, e) < 0) {
		pm__body_mem__free_unpacked(body, NULL);
		return e->code;
	}
	if (c->body)
		pm__body_mem__free_unpacked(c->body, NULL);
	c->body = body;
	return size_content(c, e);
}

static bool is_told(const struct restore *r, uint32_t id)
{
	size_t i;

	for (i = 0; i < r->objs->n_objects; i++)
		if (r->objs->objects[i]->id == id && r->objs->objects[i]->type == OBJ_CONTENT)
			return true;
	return false;
}

/* Segments that the program has removed; who still maps one here lets go of it with its mapping. */
static int remove_segments(struct restore *r, struct err *e)
{
	size_t i;
	int q = 0;

	for (i = 0; q >= 0 && i < r->ncontents; i++) {
		struct rcontent *c = &r->contents[i];

		if (c->body->source != CONTENT_SYSV || c->fd < 0 || is_told(r, c->id))
			continue;
		q = sysv_remove(r, c->body, e);
		close_fdp(&c->fd);
	}
	return q;
}

int robj_contents(struct restore *r, struct err *e)
{
	size_t i;
	int q = remove_segments(r, e); /* one may have been made anew under the same key */

	for (i = 0; q >= 0 && i < r->objs->n_objects; i++)
		if (r->objs->objects[i]->type == OBJ_CONTENT)
			q = one_content(r, r->objs->objects[i], e);
	return q;
}

int robj_seal(struct restore *r, struct err *e)
{
	size_t i;

	for (i = 0; i < r->ncontents; i++) {
		struct rcontent *c = &r->contents[i];

		if (c->body->source == CONTENT_SYSV && c->fd >= 0 && sysv_finish(r, c, e) < 0)
			return e->code;
		if (c->body->source == CONTENT_MEMFD && c->body->seals &&
		    fcntl(c->fd, F_ADD_SEALS, c->body->seals) < 0)
			return err_sys(e, "seals of memfd '%s'", c->body->name);
		if (c->body->source == CONTENT_TMPFS) /* an event for who watches it; nobody does yet */
			close_fdp(&c->fd);
	}
	return 0;
}

/* ---- the private trees */

struct trees {
	int top[PRIVATE_TOPS];	/* -1: not the pod's own */
	int hold[PRIVATE_TOPS]; /* where names are kept for a moment */
	char hold_name[PRIVATE_TOPS][32];
	int dir;		/* the directory that was looked up last */
	int dir_top;
	char dir_path[PATH_MAX];
};

static void trees_close(struct trees *t)
{
	int i;

	for (i = 0; i < PRIVATE_TOPS; i++) {
		close_fdp(&t->top[i]);
		close_fdp(&t->hold[i]);
	}
	close_fdp(&t->dir);
}

static int trees_open(struct restore *r, struct trees *t, struct err *e)
{
	autoclose int root = -1;
	char path[48];
	int i;

	t->dir = -1;
	for (i = 0; i < PRIVATE_TOPS; i++)
		t->top[i] = t->hold[i] = -1;
	snprintf(path, sizeof(path), "/proc/%d/root", r->ns.pid);
	root = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (root < 0)
		return err_sys(e, "open '%s'", path);
	for (i = 0; i < PRIVATE_TOPS; i++) {
		t->top[i] = private_open(root, private_tops[i]);
		if (t->top[i] >= 0 && !private_is(t->top[i]))
			close_fdp(&t->top[i]);
	}
	return 0;
}

static int open_beneath(int at, const char *path, uint64_t flags)
{
	struct open_how how = { .flags = flags | O_CLOEXEC,
				.resolve = RESOLVE_BENEATH | RESOLVE_NO_XDEV | RESOLVE_NO_SYMLINKS |
					   RESOLVE_NO_MAGICLINKS };

	return (int)syscall(SYS_openat2, at, path, &how, sizeof(how));
}

/* Only plain names between the slashes? */
static bool is_plain(const char *rest)
{
	for (;;) {
		size_t n = strcspn(rest, "/");

		if (!n || n > NAME_MAX || (rest[0] == '.' && (n == 1 || (n == 2 && rest[1] == '.'))))
			return false;
		if (!rest[n])
			return true;
		rest += n + 1;
	}
}

/* The directory that a node is in, and its last name, NULL for a top itself. The fd is borrowed until the next call. */
static int parent_of(struct trees *t, const char *path, const char **name, struct err *e)
{
	const char *rest = "", *slash;
	int top = private_top_of(path, &rest);
	char dir[PATH_MAX];

	if (top < 0 || strlen(path) >= sizeof(dir) || (path[strlen(private_tops[top])] && !is_plain(rest)))
		return err_set(e, EBADMSG, "'%s' is not in the pod's private directories", path);
	if (t->top[top] < 0)
		return err_set(e, EBADMSG, "'%s': the pod's /%s is not its own here", path, private_tops[top]);
	*name = NULL;
	if (!*rest)
		return t->top[top];
	slash = strrchr(rest, '/');
	*name = slash ? slash + 1 : rest;
	if (!slash)
		return t->top[top];
	snprintf(dir, sizeof(dir), "%.*s", (int)(slash - rest), rest);
	if (t->dir >= 0 && t->dir_top == top && !strcmp(t->dir_path, dir))
		return t->dir;
	close_fdp(&t->dir);
	t->dir = open_beneath(t->top[top], dir, O_PATH | O_DIRECTORY);
	if (t->dir < 0)
		return err_sys(e, "open '/%s/%s'", private_tops[top], dir);
	t->dir_top = top;
	memcpy(t->dir_path, dir, strlen(dir) + 1);
	return t->dir;
}

/* The node itself, O_PATH, whatever it is; for a top a duplicate. */
static int open_node(struct trees *t, const char *path, struct err *e)
{
	const char *name;
	int dir = parent_of(t, path, &name, e), fd;

	if (dir < 0)
		return dir;
	fd = open_beneath(dir, name ? name : ".", O_PATH | O_NOFOLLOW);
	return fd < 0 ? err_sys(e, "open '/%s'", path) : fd;
}

static bool is_top(const char *path)
{
	const char *rest = "";
	int top = private_top_of(path, &rest);

	return top >= 0 && !path[strlen(private_tops[top])];
}

static int link_fd(int fd, int dir, const char *name)
{
	char self[48];

	snprintf(self, sizeof(self), "/proc/self/fd/%d", fd);
	return linkat(AT_FDCWD, self, dir, name, AT_SYMLINK_FOLLOW);
}

/* A regular file: made with its content, or the name of one that is there already (renamed, hard-linked). */
static int make_file(struct restore *r, int dir, const char *name, const Pm__TmpfsNode *n, struct err *e)
{
	struct rcontent *c = robj_content(r, n->object);
	struct stat mine, there;

	if (!c || c->body->source != CONTENT_TMPFS)
		return err_set(e, EBADMSG, "'/%s' has no content", n->path);
	if (c->fd < 0) {
		c->fd = openat(dir, name, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
		return c->fd < 0 ? err_sys(e, "create '/%s'", n->path) : size_content(c, e);
	}
	if (fstat(c->fd, &mine) < 0)
		return err_sys(e, "stat '/%s'", n->path);
	if (fstatat(dir, name, &there, AT_SYMLINK_NOFOLLOW) == 0 && there.st_ino == mine.st_ino &&
	    there.st_dev == mine.st_dev)
		return size_content(c, e);
	return link_fd(c->fd, dir, name) < 0 ? err_sys(e, "link '/%s'", n->path) : size_content(c, e);
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

/* Whoever may write to the pod's /tmp at all may have made what is in it; the directory itself is root's. */
static int check_node(struct restore *r, const Pm__TmpfsNode *n, struct err *e)
{
	if (is_top(n->path) && !n->uid && !n->gid)
		return 0;
	return rtmpfs_owner(r->req->spec, n->uid, n->gid, n->path, e);
}

static int make_node(struct restore *r, struct trees *t, const Pm__TmpfsNode *n, struct err *e)
{
	char self[48];
	autoclose int fd = -1;
	const char *name;
	int dir, q = check_node(r, n, e);

	if (q < 0)
		return q;
	dir = parent_of(t, n->path, &name, e);
	if (dir < 0)
		return dir;
	if (name && S_ISREG(n->mode))
		return make_file(r, dir, name, n, e); /* owner and mode are the content's */
	if (!name && !S_ISDIR(n->mode))
		return err_set(e, EBADMSG, "'/%s' is not a directory", n->path);
	q = name ? make_other(dir, name, n, e) : 0;
	if (q < 0)
		return q;
	fd = open_node(t, n->path, e);
	if (fd < 0)
		return fd;
	snprintf(self, sizeof(self), "/proc/self/fd/%d", fd);
	if (fchownat(fd, "", n->uid, n->gid, AT_EMPTY_PATH) < 0 ||
	    (!S_ISLNK(n->mode) && chmod(self, n->mode & 07777) < 0))
		return err_sys(e, "owner and mode of '/%s'", n->path);
	return 0;
}

/* ---- the second time: what is not there any more, and what has another name */

static int by_path(const void *a, const void *b)
{
	return strcmp((*(Pm__TmpfsNode *const *)a)->path, (*(Pm__TmpfsNode *const *)b)->path);
}

static int by_object(const void *a, const void *b)
{
	uint32_t x = (*(Pm__TmpfsNode *const *)a)->object, y = (*(Pm__TmpfsNode *const *)b)->object;

	return x < y ? -1 : x > y;
}

static Pm__TmpfsNode **sorted(Pm__Tmpfs *t, int (*cmp)(const void *, const void *))
{
	Pm__TmpfsNode **s = malloc((t->n_nodes + 1) * sizeof(*s));

	if (s && t->n_nodes) {
		memcpy(s, t->nodes, t->n_nodes * sizeof(*s));
		qsort(s, t->n_nodes, sizeof(*s), cmp);
	}
	return s;
}

/* Is what had this name to have it still? Links are made anew if they are in the way. */
static bool stays(Pm__TmpfsNode *old, Pm__TmpfsNode **paths, size_t n)
{
	Pm__TmpfsNode **f = bsearch(&old, paths, n, sizeof(*paths), by_path);

	return is_top(old->path) || (f && ((*f)->mode & S_IFMT) == (old->mode & S_IFMT) &&
				     (!S_ISREG(old->mode) || (*f)->object == old->object));
}

static int hold(struct restore *r, struct trees *t, const Pm__TmpfsNode *n, struct err *e)
{
	struct rcontent *c = robj_content(r, n->object);
	const char *rest;
	int top = private_top_of(n->path, &rest), i;
	char id[16];

	if (!c || c->fd < 0 || top < 0 || t->top[top] < 0)
		return 0;
	for (i = 0; t->hold[top] < 0 && i < HOLD_TRIES; i++) {
		snprintf(t->hold_name[top], sizeof(t->hold_name[top]), ".pm-%016llx", (unsigned long long)now_ns());
		if (mkdirat(t->top[top], t->hold_name[top], 0700) < 0)
			continue;
		t->hold[top] = open_beneath(t->top[top], t->hold_name[top], O_RDONLY | O_DIRECTORY);
		if (t->hold[top] < 0)
			unlinkat(t->top[top], t->hold_name[top], AT_REMOVEDIR);
	}
	if (t->hold[top] < 0)
		return err_sys(e, "hold '/%s'", n->path);
	snprintf(id, sizeof(id), "%u", n->object);
	return link_fd(c->fd, t->hold[top], id) < 0 && errno != EEXIST ? err_sys(e, "hold '/%s'", n->path) : 0;
}

static void let_go(struct trees *t, Pm__Tmpfs *old)
{
	char id[16];
	size_t k;
	int i;

	for (i = 0; i < PRIVATE_TOPS; i++) {
		if (t->hold[i] < 0)
			continue;
		for (k = 0; k < old->n_nodes; k++) {
			snprintf(id, sizeof(id), "%u", old->nodes[k]->object);
			if (S_ISREG(old->nodes[k]->mode))
				unlinkat(t->hold[i], id, 0);
		}
		unlinkat(t->top[i], t->hold_name[i], AT_REMOVEDIR);
	}
}

static int clear_way(struct restore *r, struct trees *t, Pm__Tmpfs *old, Pm__Tmpfs *now, struct err *e)
{
	autofree Pm__TmpfsNode **paths = sorted(now, by_path), **objects = sorted(now, by_object);
	size_t i;
	int q = paths && objects ? 0 : err_num(e, ENOMEM, "tmpfs trees");

	for (i = 0; q >= 0 && i < old->n_nodes; i++) {
		Pm__TmpfsNode *n = old->nodes[i];

		if (S_ISREG(n->mode) && !stays(n, paths, now->n_nodes) &&
		    bsearch(&n, objects, now->n_nodes, sizeof(*objects), by_object))
			q = hold(r, t, n, e);
	}
	for (i = old->n_nodes; q >= 0 && i-- > 0;) {
		Pm__TmpfsNode *n = old->nodes[i];
		const char *name = NULL;
		int dir;

		if (stays(n, paths, now->n_nodes))
			continue;
		dir = parent_of(t, n->path, &name, NULL);
		if (dir >= 0 && name)
			unlinkat(dir, name, S_ISDIR(n->mode) ? AT_REMOVEDIR : 0);
	}
	close_fdp(&t->dir); /* it may have been removed */
	return q;
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

static void make_numbered(struct restore *r, struct trees *t, struct inodes *s, const Pm__TmpfsNode *n)
{
	struct rcontent *c = S_ISREG(n->mode) ? robj_content(r, n->object) : NULL;
	const char *name = NULL;
	struct stat st;
	int dir;

	if (c) {
		if (c->fd < 0 && c->body->source == CONTENT_TMPFS && reach_inode(s, n->inode))
			c->fd = make_nameless(s); /* make_file() gives it its names */
		return;
	}
	if ((!S_ISDIR(n->mode) && !S_ISFIFO(n->mode)) || is_top(n->path))
		return;
	dir = parent_of(t, n->path, &name, NULL);
	if (dir < 0 || !name || fstatat(dir, name, &st, AT_SYMLINK_NOFOLLOW) == 0 || !reach_inode(s, n->inode))
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
static int keep_inodes(struct restore *r, struct trees *t, int top, struct err *e)
{
	struct inodes s = { .top = t->top[top], .left = r->old_tmpfs ? FILLERS_LATE : FILLERS };
	Pm__TmpfsNode **nodes;
	const char *rest;
	size_t n = 0, i;
	struct stat st;

	if (s.top < 0)
		return 0;
	if (fstat(s.top, &st) < 0)
		return err_sys(e, "stat '/%s'", private_tops[top]);
	if (!r->old_tmpfs && st.st_nlink == 2)
		s.next = st.st_ino + 1; /* it is new */
	nodes = malloc((r->tmpfs->n_nodes + 1) * sizeof(*nodes));
	if (!nodes)
		return err_num(e, ENOMEM, "tmpfs trees");
	for (i = 0; i < r->tmpfs->n_nodes; i++)
		if (private_top_of(r->tmpfs->nodes[i]->path, &rest) == top && *rest)
			nodes[n++] = r->tmpfs->nodes[i];
	qsort(nodes, n, sizeof(*nodes), by_inode);
	for (i = 0; i < n; i++)
		make_numbered(r, t, &s, nodes[i]);
	free(nodes);
	return 0;
}

/*
 * Files that have no name now. Those of a private tree are made in it, after those that have: linkat() may give them one
 * yet, as it does to an O_TMPFILE, or one that the source missed while names changed is found in the next round.
 */
static int make_unlinked(struct restore *r, struct trees *t, struct err *e)
{
	size_t i;
	int q = 0;

	for (i = 0; q >= 0 && i < r->ncontents; i++) {
		struct rcontent *c = &r->contents[i];
		const char *rest;
		int top;

		if (c->fd >= 0 || (c->body->source != CONTENT_UNLINKED && c->body->source != CONTENT_TMPFS))
			continue;
		top = private_top_of(c->body->name + (c->body->name[0] == '/'), &rest);
		if (top >= 0 && t->top[top] >= 0)
			c->fd = openat(t->top[top], ".", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
		else
			c->fd = make_memfd(c->body->name, e);
		q = c->fd < 0 ? err_sys(e, "make '%s'", c->body->name) : size_content(c, e);
	}
	return q;
}

int robj_tmpfs(struct restore *r, struct err *e)
{
	struct trees t;
	size_t i;
	int q = trees_open(r, &t, e);

	for (i = 0; q >= 0 && i < PRIVATE_TOPS; i++)
		q = keep_inodes(r, &t, (int)i, e);
	if (q >= 0 && r->old_tmpfs)
		q = clear_way(r, &t, r->old_tmpfs, r->tmpfs, e);
	for (i = 0; q >= 0 && i < r->tmpfs->n_nodes; i++)
		q = make_node(r, &t, r->tmpfs->nodes[i], e);
	if (q >= 0)
		q = make_unlinked(r, &t, e);
	if (r->old_tmpfs)
		let_go(&t, r->old_tmpfs);
	trees_close(&t);
	return q;
}

int robj_tmpfs_times(struct restore *r, struct err *e)
{
	struct trees t;
	size_t i;
	int q = trees_open(r, &t, e);

	for (i = r->tmpfs->n_nodes; q >= 0 && i-- > 0;) {
		const Pm__TmpfsNode *n = r->tmpfs->nodes[i];
		struct timespec ts[2] = { { 0, UTIME_OMIT },
					  { n->mtime_ns / 1000000000, n->mtime_ns % 1000000000 } };
		autoclose int fd = open_node(&t, n->path, e);

		q = fd < 0 ? fd : 0;
		if (q >= 0 && utimensat(fd, "", ts, AT_EMPTY_PATH) < 0)
			q = err_sys(e, "time of '/%s'", n->path);
	}
	trees_close(&t);
	return q;
}
