/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Contents: the bytes behind shared memory, memfds, unlinked files and the files of a pod's private
 * tmpfs. They may be written in ways that no page table of the pod shows (write(2), another mapper
 * that has gone since), so a content is compared page by page, by digest, with what was last sent.
 * Between rounds what nobody maps shared is trusted by its times, unless they are too close to the last
 * reading to tell (the kernel's clock for file times is coarse); in the cut everything is compared.
 *
 * While the pod runs a page may change between two readings, and back again: what is sent then is what was digested,
 * from a copy of the pages that differ.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/sysmacros.h>
#include <time.h>
#include <xxhash.h>

#include "pod/base/io.h"
#include "pod/base/util.h"
#include "pod/dump.h"
#include "pod/private.h"

#define COARSE_NS (20 * NSEC_PER_MSEC)
#define CHUNK_PAGES 256
#define COPY_BYTES (64u << 20)
#define MAX_DEPTH 64
#define REREADS 32 /* of directories that change meanwhile */

struct content *content_by_inode(struct dump *d, uint64_t dev, uint64_t ino)
{
	size_t i;

	for (i = 0; i < d->ncontents; i++)
		if (d->contents[i]->ino == ino && d->contents[i]->dev == dev)
			return d->contents[i];
	return NULL;
}

void content_free(struct content *c)
{
	close_fdp(&c->fd);
	free(c->hash);
	free(c);
}

static int refresh(struct content *c, struct err *e)
{
	struct stat st;
	int seals;

	if (fstat(c->fd, &st) < 0)
		return err_sys(e, "stat '%s'", c->name);
	c->size = (uint64_t)st.st_size;
	if (c->source == CONTENT_SYSV)
		return 0; /* sysv_collect.c knows the rest */
	c->mode = st.st_mode & 07777;
	c->uid = st.st_uid;
	c->gid = st.st_gid;
	seals = fcntl(c->fd, F_GET_SEALS);
	c->seals = c->source == CONTENT_MEMFD && seals > 0 ? (uint32_t)seals : 0;
	return 0;
}

int content_add_as(struct dump *d, int fd, enum content_source source, const char *name, uint64_t dev, uint64_t ino,
		   struct content **out, struct err *e)
{
	autoclose int own = fd;
	struct content **nc, *c;

	nc = realloc(d->contents, (d->ncontents + 1) * sizeof(*nc));
	if (!nc)
		return err_num(e, ENOMEM, "contents");
	d->contents = nc;
	c = calloc(1, sizeof(*c));
	if (!c)
		return err_num(e, ENOMEM, "contents");
	*c = (struct content){ .id = ++d->next_id, .dev = dev, .ino = ino,
			       .source = source, .fd = take_fd(&own), .name = dump_strdup(d, name) };
	d->contents[d->ncontents++] = c;
	*out = c;
	return refresh(c, e);
}

int content_add(struct dump *d, int fd, enum content_source source, const char *name, uint32_t *id,
		struct err *e)
{
	autoclose int own = fd;
	struct content *c;
	struct stat st;
	int r = 0;

	if (fstat(fd, &st) < 0)
		return err_sys(e, "stat '%s'", name);
	c = content_by_inode(d, st.st_dev, st.st_ino);
	if (!c)
		r = content_add_as(d, take_fd(&own), source, name, st.st_dev, st.st_ino, &c, e);
	if (r >= 0)
		*id = c->id;
	return r;
}

static bool same_time(const struct timespec *a, const struct timespec *b)
{
	return a->tv_sec == b->tv_sec && a->tv_nsec == b->tv_nsec;
}

static uint64_t ts_ns(const struct timespec *t)
{
	return (uint64_t)t->tv_sec * NSEC_PER_SEC + (uint64_t)t->tv_nsec;
}

/* Nothing can have changed since the last reading. */
static bool untouched(const struct content *c, const struct stat *st)
{
	return c->read_at && !c->mapped && c->size == (uint64_t)st->st_size &&
	       same_time(&c->mtime, &st->st_mtim) && same_time(&c->ctime, &st->st_ctim) &&
	       ts_ns(&st->st_mtim) + COARSE_NS < c->read_at &&
	       ts_ns(&st->st_ctim) + COARSE_NS < c->read_at;
}

static int grow_hashes(struct content *c, struct err *e)
{
	size_t n = (c->size + PAGE - 1) / PAGE;
	uint64_t *h;

	if (n == c->nhash)
		return 0;
	h = realloc(c->hash, MAX(n, (size_t)1) * sizeof(*h));
	if (!h)
		return err_num(e, ENOMEM, "'%s'", c->name);
	if (n > c->nhash)
		memset(h + c->nhash, 0, (n - c->nhash) * sizeof(*h));
	c->hash = h;
	c->nhash = n;
	return 0;
}

static bool all_zero(const uint8_t *p, size_t n)
{
	return n == 0 || (p[0] == 0 && !memcmp(p, p + 1, n - 1));
}

/* What one look at a content finds. */
struct changes {
	struct runs runs;
	int copy;	/* where the pages that differ are kept; -1: all stands still */
	uint64_t copied;
};

/* Compares one stretch of data with what was sent. */
static int compare(struct content *c, uint64_t off, const uint8_t *buf, size_t len, struct changes *out)
{
	size_t i;

	for (i = 0; i < len; i += PAGE) {
		size_t n = MIN((size_t)PAGE, len - i), page = (off + i) / PAGE;
		uint64_t h = all_zero(buf + i, n) ? 0 : XXH3_64bits(buf + i, n) | 1;

		if (h == c->hash[page])
			continue;
		c->hash[page] = h;
		if (runs_add(&out->runs, off + i, off + i + PAGE) < 0)
			return -ENOMEM;
		if (out->copy < 0 || !h) /* zeroes are a hole of the copy */
			continue;
		if (pwrite(out->copy, buf + i, n, (off_t)(off + i)) != (ssize_t)n)
			return -ENOMEM;
		out->copied += n;
	}
	return 0;
}

/* Sends what was found so far. */
static int flush(struct dump *d, struct content *c, struct changes *ch, struct err *e)
{
	int r = 0;

	if (ch->runs.n)
		r = pages_send_file(d->s.fd, ch->copy >= 0 ? ch->copy : c->fd, c->id | CONTENT_FRAME, &ch->runs, dump_known(d),
				    &d->s.sent, d->s.deadline, e);
	ch->runs.n = 0;
	ch->copied = 0;
	if (r >= 0 && ch->copy >= 0 && (ftruncate(ch->copy, 0) < 0 || ftruncate(ch->copy, (off_t)c->size) < 0))
		r = err_sys(e, "copy of '%s'", c->name);
	return r;
}

/* What is a hole now but was data when it was sent. */
static int holes(struct content *c, uint64_t from, uint64_t to, struct changes *out)
{
	uint64_t off;

	for (off = from; off < to; off += PAGE)
		if (c->hash[off / PAGE]) {
			c->hash[off / PAGE] = 0;
			if (runs_add(&out->runs, off, off + PAGE) < 0)
				return -ENOMEM;
		}
	return 0;
}

static int scan(struct dump *d, struct content *c, struct changes *out, struct err *e)
{
	static uint8_t buf[CHUNK_PAGES * PAGE];
	struct runs data = { 0 };
	uint64_t at = 0;
	size_t i;
	int r = file_data_runs(c->fd, c->size, &data, e);

	for (i = 0; r >= 0 && i < data.n; i++) {
		uint64_t off = data.r[i].start, end = MIN(data.r[i].end, c->size);

		r = holes(c, at, off, out);
		while (r >= 0 && off < end) {
			ssize_t n = pread(c->fd, buf, MIN(sizeof(buf), end - off), (off_t)off);

			if (n <= 0) {
				r = n < 0 ? err_sys(e, "read '%s'", c->name) :
					    err_set(e, EIO, "'%s' became shorter", c->name);
				break;
			}
			r = compare(c, off, buf, (size_t)n, out);
			if (r >= 0 && out->copied >= COPY_BYTES)
				r = flush(d, c, out, e);
			off += ALIGN_UP((uint64_t)n, PAGE);
		}
		at = data.r[i].end;
	}
	if (r >= 0)
		r = holes(c, MIN(at, c->nhash * PAGE), c->nhash * PAGE, out);
	runs_done(&data);
	return r == -ENOMEM ? err_num(e, ENOMEM, "'%s'", c->name) : r;
}

static int send_one(struct dump *d, struct content *c, bool final, struct err *e)
{
	autoclose int copy = -1;
	struct changes changed = { .copy = -1 };
	struct timespec now;
	struct stat st;
	int r;

	if (fstat(c->fd, &st) < 0)
		return err_sys(e, "stat '%s'", c->name);
	/* not in the cut: who maps a file, writes and lets go again changes no times */
	if (!final && untouched(c, &st))
		return 0;
	clock_gettime(CLOCK_REALTIME, &now);
	c->size = (uint64_t)st.st_size;
	r = grow_hashes(c, e);
	if (r >= 0 && !d->stopped) {
		copy = changed.copy = memfd_create("pages", MFD_CLOEXEC);
		if (copy < 0 || ftruncate(copy, (off_t)c->size) < 0)
			r = err_sys(e, "copy of '%s'", c->name);
	}
	if (r >= 0)
		r = scan(d, c, &changed, e);
	if (r >= 0)
		r = flush(d, c, &changed, e);
	runs_done(&changed.runs);
	if (r < 0)
		return err_wrap(e, "content of '%s'", c->name);
	c->mtime = st.st_mtim;
	c->ctime = st.st_ctim;
	c->read_at = ts_ns(&now);
	return 0;
}

int content_send(struct dump *d, bool final, struct err *e)
{
	size_t i;
	int r = 0;

	for (i = 0; r >= 0 && i < d->ncontents; i++) {
		r = refresh(d->contents[i], e);
		if (r >= 0)
			r = send_one(d, d->contents[i], final, e);
	}
	return r;
}

int content_messages(struct dump *d, Pm__Object ***out, size_t *n, struct err *e)
{
	size_t i;

	*out = dump_alloc(d, (d->ncontents + d->nmapfiles + d->nobjects + d->nthings + 1) * sizeof(**out));
	*n = 0;
	for (i = 0; i < d->ncontents; i++) {
		struct content *c = d->contents[i];
		Pm__Object *o = dump_alloc(d, sizeof(*o));
		Pm__BodyMem m;
		int r = refresh(c, e);

		if (r < 0)
			return r;
		pm__object__init(o);
		pm__body_mem__init(&m);
		m.name = c->name;
		m.size = c->size;
		m.inode = c->ino;
		m.seals = c->seals;
		m.source = c->source;
		m.mode = c->mode;
		m.uid = c->uid;
		m.gid = c->gid;
		if (c->source == CONTENT_SYSV) {
			m.sysv_id = (uint32_t)c->ino;
			m.sysv_key = c->key;
			m.cuid = c->cuid;
			m.cgid = c->cgid;
		}
		o->id = c->id;
		o->type = OBJ_CONTENT;
		o->link = c->name;
		o->body.len = pm__body_mem__get_packed_size(&m);
		o->body.data = dump_alloc(d, o->body.len);
		pm__body_mem__pack(&m, o->body.data);
		(*out)[(*n)++] = o;
	}
	return 0;
}

/* ---- the private tmpfs trees */

struct walk {
	struct dump *d;
	Pm__TmpfsNode **nodes;
	size_t n, cap;
	dev_t dev;
	int rereads;
	const char *locks; /* text of /proc/locks */
};

static int add_node(struct walk *w, const char *path, const struct stat *st, Pm__TmpfsNode **out, struct err *e)
{
	Pm__TmpfsNode *node;

	if (w->n == w->cap) {
		size_t cap = w->cap ? w->cap * 2 : 64;
		Pm__TmpfsNode **nn = dump_alloc(w->d, cap * sizeof(*nn));

		if (w->n)
			memcpy(nn, w->nodes, w->n * sizeof(*nn));
		w->nodes = nn;
		w->cap = cap;
	}
	if (w->n > 1000000)
		return err_set(e, E2BIG, "more than a million files in the pod's /tmp, /run and /dev/shm");
	node = dump_alloc(w->d, sizeof(*node));
	pm__tmpfs_node__init(node);
	node->path = dump_strdup(w->d, path);
	node->mode = st->st_mode;
	node->uid = st->st_uid;
	node->gid = st->st_gid;
	node->mtime_ns = (int64_t)ts_ns(&st->st_mtim);
	node->size = (uint64_t)st->st_size;
	node->inode = st->st_ino;
	w->nodes[w->n++] = node;
	*out = node;
	return 0;
}

static int walk_dir(struct walk *w, int dirfd, const char *path, int depth, struct err *e);

static int add_file(struct walk *w, int fd, const struct stat *st, const char *path, struct err *e)
{
	Pm__TmpfsNode *node;
	struct content *c;
	int r = add_node(w, path, st, &node, e);

	if (r < 0) {
		close(fd);
		return r;
	}
	r = content_add(w->d, fd, CONTENT_TMPFS, path, &node->object, e);
	c = content_by_inode(w->d, st->st_dev, st->st_ino);
	if (r >= 0 && c && c->source == CONTENT_UNLINKED) {
		/* it is open or mapped by a name that has gone, or by none; this one is another or new (sem_open makes its semaphores so) */
		c->source = CONTENT_TMPFS;
		c->name = dump_strdup(w->d, path);
	}
	return r;
}

/* "1: LEASE  ACTIVE    WRITE 123 00:2d:5 0 EOF": to open such a file breaks the lease, and its holder may not survive the signal. */
static bool is_leased(const struct walk *w, const struct stat *st)
{
	unsigned long long ino;
	unsigned maj, min;
	const char *l;

	for (l = strstr(w->locks, "LEASE"); l; l = strstr(l + 1, "LEASE"))
		if (sscanf(l, "LEASE %*s WRITE %*d %x:%x:%llu", &maj, &min, &ino) == 3 && ino == st->st_ino &&
		    makedev(maj, min) == st->st_dev)
			return true;
	return false;
}

static int walk_entry(struct walk *w, int dirfd, const char *name, const char *path, int depth, struct err *e)
{
	Pm__TmpfsNode *node;
	struct stat st;
	int r;

	if (fstatat(dirfd, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
		return errno == ENOENT ? 0 : err_sys(e, "stat '/%s'", path);
	if (st.st_dev != w->dev || S_ISSOCK(st.st_mode))
		return 0; /* a mount point; sockets are made by whoever is bound to them */
	if (S_ISREG(st.st_mode) && is_leased(w, &st))
		return collect_note(w->d, err_set(e, EOPNOTSUPP, "'/%s' has a lease for writing: cannot be carried", path), e);
	if (S_ISREG(st.st_mode)) {
		autoclose int fd = openat(dirfd, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);

		if (fd < 0 && errno != ENOENT && errno != ELOOP)
			return err_sys(e, "open '/%s'", path);
		/* the program runs: the name may be another file's by now, of another kind even */
		if (fd < 0 || fstat(fd, &st) < 0 || !S_ISREG(st.st_mode))
			return 0;
		return add_file(w, take_fd(&fd), &st, path, e);
	}
	r = add_node(w, path, &st, &node, e);
	if (r < 0)
		return r;
	if (S_ISLNK(st.st_mode)) {
		char target[PATH_MAX];
		ssize_t n = readlinkat(dirfd, name, target, sizeof(target) - 1);

		if (n < 0)
			return errno == ENOENT ? 0 : err_sys(e, "read link '/%s'", path);
		target[n] = 0;
		node->target = dump_strdup(w->d, target);
	} else if (S_ISDIR(st.st_mode)) {
		autoclose int fd = openat(dirfd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);

		if (fd < 0)
			return errno == ENOENT ? 0 : err_sys(e, "open '/%s'", path);
		return walk_dir(w, fd, path, depth + 1, e);
	} else if (!S_ISFIFO(st.st_mode)) {
		return collect_note(w->d, err_set(e, EOPNOTSUPP, "'/%s' is a device file in the pod's private tmpfs: cannot be carried", path),
				    e);
	}
	return 0;
}

static int read_dir(struct walk *w, int dirfd, const char *path, int depth, struct err *e)
{
	int fd = openat(dirfd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *dir = fd >= 0 ? fdopendir(fd) : NULL;
	struct dirent *de;
	int r = 0;

	if (!dir) {
		r = err_sys(e, "read '/%s'", path);
		close_fdp(&fd);
		return r;
	}
	while (r >= 0 && (de = readdir(dir))) {
		char child[PATH_MAX];

		if (!strcmp(de->d_name, ".") || !strcmp(de->d_name, ".."))
			continue;
		if ((size_t)snprintf(child, sizeof(child), "%s/%s", path, de->d_name) >= sizeof(child))
			r = err_num(e, ENAMETOOLONG, "'/%s/%s'", path, de->d_name);
		else
			r = walk_entry(w, dirfd, de->d_name, child, depth, e);
	}
	closedir(dir);
	return r;
}

/* Of two files that change names while a directory is read, one may be seen twice and the other not at all, which then gets
 * another inode number on the target: so it is read again, but not for ever. */
static int walk_dir(struct walk *w, int dirfd, const char *path, int depth, struct err *e)
{
	struct stat before, after;
	size_t n = w->n;
	int r;

	if (depth > MAX_DEPTH)
		return err_set(e, ELOOP, "'/%s' is too deep", path);
	do {
		w->n = n;
		if (fstat(dirfd, &before) < 0)
			return err_sys(e, "stat '/%s'", path);
		r = read_dir(w, dirfd, path, depth, e);
		if (r >= 0 && fstat(dirfd, &after) < 0)
			return err_sys(e, "stat '/%s'", path);
	} while (r >= 0 && !same_time(&before.st_mtim, &after.st_mtim) && w->rereads++ < REREADS);
	return r;
}

int content_tmpfs(struct dump *d, Pm__Tmpfs *out, struct err *e)
{
	autofree char *locks = NULL;
	struct walk w = { .d = d };
	size_t i;
	int r = 0;

	/* To read that takes 15 ms, in which the kernel waits for all CPUs. Of a pod that stands still all files have been looked at: a lease
	 * for writing was refused. */
	if (!d->stopped)
		r = io_read_file("/proc/locks", 64u << 20, &locks, NULL, e);
	w.locks = locks ? locks : "";
	pm__tmpfs__init(out);
	for (i = 0; r >= 0 && i < PRIVATE_TOPS; i++) {
		autoclose int fd = private_open(d->root, private_tops[i]);
		Pm__TmpfsNode *top;
		struct stat st;

		if (fd < 0)
			continue;
		if (fstat(fd, &st) < 0)
			return err_sys(e, "stat '/%s'", private_tops[i]);
		if (!dump_is_private_tmpfs(d, st.st_dev))
			continue; /* e.g. --bind onto /tmp: the node's own */
		w.dev = st.st_dev;
		r = add_node(&w, private_tops[i], &st, &top, e);
		if (r >= 0)
			r = walk_dir(&w, fd, private_tops[i], 0, e);
	}
	out->nodes = w.nodes;
	out->n_nodes = w.n;
	return r;
}
