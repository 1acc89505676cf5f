/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * The image store's housekeeping: a directory of one user, files POD.NUMBER.img.
 *
 * What is newer is told by when it was made; numbers go back when a coordinator has lost its journal. Images that can take
 * each other's place are those of one pod: of one name and one time of birth, which survives moves and restarts.
 *
 * What is pinned stays, and what it builds on. Who writes an image holds shared locks on those that it builds on until it has
 * its name. Removal first takes an exclusive lock, then looks again at what builds on what: so either it sees the new image, or
 * the new one sees that its base goes.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "control.pb-c.h"
#include "pod/base/io.h"
#include "pod/base/util.h"
#include "pod/image/image.h"

#define PASS 128 /* images that are locked and removed at once */

struct entry {
	char file[256], pod[64], parent[256];
	unsigned long number;
	uint64_t born, made; /* the pod, the image: ns */
	int fd;		     /* locked; -1: not */
	bool bad, keep, own_name, cut, pinned;
};

struct listing {
	struct entry *x;
	size_t n, cap;
};

/* Of one pod the newest first. */
static int by_age(const void *a, const void *b)
{
	const struct entry *x = a, *y = b;
	int c = strcmp(x->pod, y->pod);

	if (c)
		return c;
	if (x->born != y->born)
		return x->born < y->born ? 1 : -1;
	if (x->made != y->made)
		return x->made < y->made ? 1 : -1;
	return x->number < y->number ? 1 : x->number > y->number ? -1 : 0;
}

static bool parse_id(const char *file, struct entry *out)
{
	const char *suffix = strrchr(file, '.'), *dot;
	char *end;

	if (!suffix || strcmp(suffix, IMAGE_SUFFIX) != 0 || file[0] == '.' || strlen(file) >= sizeof(out->file))
		return false;
	for (dot = suffix - 1; dot > file && *dot != '.'; dot--)
		;
	if (dot <= file || dot[1] < '0' || dot[1] > '9' || (size_t)(dot - file) >= sizeof(out->pod))
		return false;
	out->number = strtoul(dot + 1, &end, 10);
	if (end != suffix)
		return false;
	snprintf(out->file, sizeof(out->file), "%s", file);
	snprintf(out->pod, sizeof(out->pod), "%.*s", (int)(dot - file), file);
	return true;
}

bool store_pinned(int dir, const char *file)
{
	char pin[300];
	struct stat st;

	snprintf(pin, sizeof(pin), "%s" PIN_SUFFIX, file);
	return fstatat(dir, pin, &st, AT_SYMLINK_NOFOLLOW) == 0;
}

/* What the image says of itself. -ENOENT: it has just gone. */
static int read_head(int dir, struct entry *x, struct err *e)
{
	Pm__PodSpec *spec;
	struct image im;
	int r;

	r = image_open_at(&im, dir, x->file, e);
	if (r < 0)
		return e->code;
	spec = pm__pod_spec__unpack(NULL, im.head->spec.len, im.head->spec.data);
	if (spec) {
		x->born = spec->created_ns;
		pm__pod_spec__free_unpacked(spec, NULL);
	} else {
		r = err_set(e, EBADMSG, "'%s': it does not say what pod it is", x->file);
	}
	x->made = im.head->created_ns;
	x->cut = im.head->cut[0];
	x->own_name = image_own_name(im.head->id, x->file);
	snprintf(x->parent, sizeof(x->parent), "%s", im.head->parent);
	image_close(&im);
	return r;
}

static int add(struct listing *l, const struct entry *x)
{
	if (l->n == l->cap) {
		struct entry *nx = reallocarray(l->x, l->cap + 64, sizeof(*nx));

		if (!nx)
			return -ENOMEM;
		l->x = nx;
		l->cap += 64;
	}
	l->x[l->n++] = *x;
	return 0;
}

static void listing_done(struct listing *l)
{
	for (size_t i = 0; i < l->n; i++)
		close_fdp(&l->x[i].fd);
	free(l->x);
	*l = (struct listing){ .n = 0 };
}

/* The images of @pod (NULL: all). One that cannot be read is listed as such: nobody knows what it builds on. */
static int read_dir(const char *dir, const char *pod, const struct store_talk *t, struct listing *out, struct err *e)
{
	DIR *d = opendir(dir);
	struct dirent *de;
	int r = d ? 0 : -errno;

	*out = (struct listing){ .n = 0 };
	while (r >= 0 && (errno = 0, de = readdir(d))) {
		struct entry x = { .fd = -1 };
		struct err why = { 0 };

		if (!parse_id(de->d_name, &x) || (pod && strcmp(pod, x.pod) != 0))
			continue;
		x.pinned = store_pinned(dirfd(d), x.file);
		r = read_head(dirfd(d), &x, &why);
		if (r == -ENOENT || r == -ENOMEM || r == -EMFILE || r == -ENFILE) {
			r = r == -ENOENT ? 0 : r;
			continue;
		}
		x.bad = r < 0;
		if (x.bad && t && t->bad)
			t->bad(t->arg, x.pod, &why);
		r = add(out, &x);
	}
	if (r >= 0 && errno)
		r = -errno;
	if (d)
		closedir(d);
	if (r < 0) {
		listing_done(out);
		return err_num(e, -r, "'%s'", dir);
	}
	if (out->n)
		qsort(out->x, out->n, sizeof(*out->x), by_age);
	return 0;
}

static struct entry *find(const struct listing *l, const char *file)
{
	for (size_t i = 0; i < l->n; i++)
		if (strcmp(l->x[i].file, file) == 0)
			return &l->x[i];
	return NULL;
}

static void keep_with_parents(const struct listing *l, struct entry *x)
{
	while (x && !x->keep) {
		x->keep = true;
		x = x->parent[0] ? find(l, x->parent) : NULL;
	}
}

static const struct entry *bad_one(const struct listing *l, const char *pod)
{
	for (size_t i = 0; i < l->n; i++)
		if (l->x[i].bad && strcmp(l->x[i].pod, pod) == 0)
			return &l->x[i];
	return NULL;
}

/* Of each pod the newest that is of a job's cut stays as well: the other pods' are of no use without it. */
static void mark(const struct listing *l, const struct store_scope *s, size_t keep)
{
	bool cut_seen = false;
	size_t seen = 0;

	for (size_t i = 0; i < l->n; i++) {
		struct entry *x = &l->x[i];

		seen = i && strcmp(x[-1].pod, x->pod) == 0 && x[-1].born == x->born ? seen + 1 : 0;
		cut_seen = seen && cut_seen;
		if (seen < keep || x->pinned || (keep && x->cut && !cut_seen) ||
		    (s->pod && strcmp(s->pod, x->pod) != 0) || (s->born && *s->born != x->born) ||
		    (s->fresh && strcmp(s->fresh, x->file) == 0) || bad_one(l, x->pod))
			keep_with_parents(l, x);
		cut_seen |= x->cut;
	}
}

/* Exclusively, or -EBUSY. A file system without locks has nobody who holds one. */
static int lock_file(const char *path)
{
	/* some file systems give exclusive locks only to who may write */
	int fd = open(path, O_RDWR | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY);

	if (fd < 0)
		fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY);
	if (fd < 0)
		return -errno;
	if (flock(fd, LOCK_EX | LOCK_NB) < 0 && errno == EWOULDBLOCK) {
		close(fd);
		return -EBUSY;
	}
	return fd;
}

/* At most PASS of what is not kept is locked, the newest first; what cannot be is kept. True: that was not all. */
static bool lock_some(const char *dir, const struct listing *l)
{
	size_t n = 0;

	for (size_t i = 0; i < l->n; i++) {
		struct entry *x = &l->x[i];
		char path[PATH_MAX];

		if (x->keep)
			continue;
		if (n == PASS)
			return true;
		snprintf(path, sizeof(path), "%s/%s", dir, x->file);
		x->fd = lock_file(path);
		if (x->fd < 0)
			keep_with_parents(l, x);
		else
			n++;
	}
	return false;
}

/* The newest first: at no time does an image build on one that is not there. How many, or negative errno. */
static int unlink_some(const char *dir, const struct listing *l, const struct listing *locked, const struct store_talk *t,
		       struct err *e)
{
	int n = 0;

	for (size_t i = 0; i < l->n; i++) {
		const struct entry *x = find(locked, l->x[i].file);

		if (!l->x[i].keep && (!x || x->keep || x->fd < 0))
			keep_with_parents(l, &l->x[i]);
	}
	for (size_t i = 0; i < l->n; i++) {
		char path[PATH_MAX];

		if (l->x[i].keep)
			continue;
		snprintf(path, sizeof(path), "%s/%s", dir, l->x[i].file);
		if (unlink(path) < 0)
			return err_sys(e, "'%s'", path);
		n++;
		if (t && t->gone) {
			*strrchr(l->x[i].file, '.') = 0;
			t->gone(t->arg, l->x[i].file);
		}
	}
	return n;
}

int store_prune(const char *dir, const struct store_scope *s, size_t keep, const struct store_talk *t, struct err *e)
{
	struct store_talk quiet;
	bool more;
	int r;

	do {
		struct listing l, again;

		r = read_dir(dir, s->pod, t, &l, e);
		if (r < 0)
			return r == -ENOENT ? 0 : r;
		mark(&l, s, keep);
		more = lock_some(dir, &l);
		r = read_dir(dir, s->pod, NULL, &again, e);
		if (r >= 0) {
			mark(&again, s, keep);
			r = unlink_some(dir, &again, &l, t, e);
			listing_done(&again);
		}
		listing_done(&l);
		if (t) { /* what is bad was said */
			quiet = (struct store_talk){ t->arg, t->gone, NULL };
			t = &quiet;
		}
	} while (r > 0 && more);
	return r < 0 ? r : 0;
}

/* May it go? */
static int check_remove(const struct listing *l, const char *id, const char *file, struct err *e)
{
	const struct entry *x = find(l, file), *bad = x && !x->bad ? bad_one(l, x->pod) : NULL;

	if (!x)
		return err_set(e, ENOENT, "there is no image '%s'", id);
	for (size_t i = 0; i < l->n; i++)
		if (strcmp(l->x[i].parent, file) == 0)
			return err_set(e, EBUSY, "image '%s.%lu' builds on '%s'", l->x[i].pod, l->x[i].number, id);
	if (x->pinned)
		return err_set(e, EBUSY, "image '%s' is pinned", id);
	if (bad)
		return err_set(e, EBUSY, "image '%s.%lu' cannot be read and may build on '%s'", bad->pod, bad->number, id);
	return 0;
}

/* Who removes images looks for the pin when it holds the lock: it is there before this lock is let go. */
static int make_pin(const char *path, const char *pin, struct err *e)
{
	autoclose int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY), mark = -1;
	struct stat st;

	if (fd < 0 || fstat(fd, &st) < 0)
		return err_sys(e, "'%s'", path);
	if (flock(fd, LOCK_SH | LOCK_NB) < 0 && errno == EWOULDBLOCK)
		return err_set(e, EBUSY, "image '%s' is about to be removed", path);
	mark = open(pin, O_WRONLY | O_CREAT | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY, 0600);
	if (mark < 0)
		return err_sys(e, "'%s'", pin);
	if (fstat(fd, &st) < 0 || st.st_nlink)
		return 0;
	unlink(pin);
	return err_set(e, ENOENT, "image '%s' has been removed", path);
}

int store_pin(const char *dir, const char *id, bool pinned, struct err *e)
{
	char path[PATH_MAX], pin[PATH_MAX], file[300];
	struct entry x;

	if ((size_t)snprintf(file, sizeof(file), "%s" IMAGE_SUFFIX, id) >= sizeof(file) || strchr(id, '/') ||
	    !parse_id(file, &x) ||
	    (size_t)snprintf(path, sizeof(path), "%s/%s", dir, file) >= sizeof(path) ||
	    (size_t)snprintf(pin, sizeof(pin), "%s" PIN_SUFFIX, path) >= sizeof(pin))
		return err_set(e, ENOENT, "there is no image '%s'", id);
	if (access(path, F_OK) < 0)
		return errno == ENOENT ? err_set(e, ENOENT, "there is no image '%s'", id) : err_sys(e, "'%s'", path);
	if (pinned)
		return make_pin(path, pin, e);
	return unlink(pin) < 0 && errno != ENOENT ? err_sys(e, "'%s'", pin) : 0;
}

int store_remove(const char *dir, const char *id, struct err *e)
{
	char path[PATH_MAX], file[300];
	struct listing l;
	int fd = -1, r;

	snprintf(file, sizeof(file), "%s" IMAGE_SUFFIX, id);
	snprintf(path, sizeof(path), "%s/%s", dir, file);
	for (int look = 0; look < 2; look++) {
		r = read_dir(dir, NULL, NULL, &l, e);
		if (r == -ENOENT || r >= 0)
			r = check_remove(&l, id, file, e);
		listing_done(&l);
		if (r >= 0 && !look) {
			fd = lock_file(path);
			r = fd == -EBUSY ? err_set(e, EBUSY, "a checkpoint that builds on image '%s' is under way", id) :
			    fd < 0	 ? err_num(e, -fd, "'%s'", path) : 0;
		}
		if (r < 0)
			break;
	}
	if (r >= 0 && unlink(path) < 0)
		r = err_sys(e, "'%s'", path);
	close_fdp(&fd);
	return r;
}

int store_newest(const char *dir, const char *pod, uint64_t born, char *file, size_t len, uint64_t *made, struct err *e)
{
	const struct entry *best = NULL;
	struct listing l;
	int r = read_dir(dir, pod, NULL, &l, e);

	if (r < 0)
		return r == -ENOENT ? 0 : r;
	for (size_t i = 0; i < l.n && !best; i++)
		if (!l.x[i].bad && l.x[i].own_name && l.x[i].born == born)
			best = &l.x[i];
	if (best) {
		snprintf(file, len, "%s/%s", dir, best->file);
		*made = best->made;
	}
	listing_done(&l);
	return best ? 1 : 0;
}
