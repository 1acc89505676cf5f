/* SPDX-License-Identifier: GPL-3.0-or-later */
/* The image store's housekeeping: a directory of one user, files POD.NUMBER.img. */
#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "pod/base/util.h"
#include "pod/image/image.h"

struct entry {
	char file[256], pod[64], parent[256];
	unsigned long number;
	bool keep;
};

/* Of one pod the newest first. */
static int by_age(const void *a, const void *b)
{
	const struct entry *x = a, *y = b;
	int c = strcmp(x->pod, y->pod);

	return c ? c : x->number < y->number ? 1 : x->number > y->number ? -1 : 0;
}

static bool parse_id(const char *file, struct entry *out)
{
	const char *suffix = strrchr(file, '.'), *dot;
	char *end;

	if (!suffix || strcmp(suffix, IMAGE_SUFFIX) != 0 || file[0] == '.' || strlen(file) >= sizeof(out->file))
		return false;
	for (dot = suffix - 1; dot > file && *dot != '.'; dot--)
		;
	if (dot == file || (size_t)(dot - file) >= sizeof(out->pod))
		return false;
	out->number = strtoul(dot + 1, &end, 10);
	if (end != suffix)
		return false;
	snprintf(out->file, sizeof(out->file), "%s", file);
	snprintf(out->pod, sizeof(out->pod), "%.*s", (int)(dot - file), file);
	return true;
}

/* An image that cannot be read is not one that anything depends on by what it says: it is kept, and said. */
static int read_dir(const char *dir, const struct store_talk *t, struct entry **out, size_t *n)
{
	DIR *d = opendir(dir);
	struct dirent *de;
	size_t cap = 0;

	*out = NULL;
	*n = 0;
	while (d && (de = readdir(d))) {
		struct err e = { 0 };
		char path[PATH_MAX];
		struct image im;
		struct entry x = { .number = 0 };

		if (!parse_id(de->d_name, &x))
			continue;
		snprintf(path, sizeof(path), "%s/%s", dir, x.file);
		if (image_open(&im, path, NULL, &e) < 0) {
			if (t && t->bad)
				t->bad(t->arg, &e);
			continue;
		}
		snprintf(x.parent, sizeof(x.parent), "%s", im.head->parent);
		image_close(&im);
		if (*n == cap) {
			struct entry *ne = reallocarray(*out, cap + 64, sizeof(*ne));

			if (!ne)
				break;
			*out = ne;
			cap += 64;
		}
		(*out)[(*n)++] = x;
	}
	if (d)
		closedir(d);
	return d ? 0 : -errno;
}

static struct entry *find(struct entry *list, size_t n, const char *file)
{
	for (size_t i = 0; i < n; i++)
		if (strcmp(list[i].file, file) == 0)
			return &list[i];
	return NULL;
}

static void keep_with_parents(struct entry *list, size_t n, struct entry *x)
{
	while (x && !x->keep) {
		x->keep = true;
		x = x->parent[0] ? find(list, n, x->parent) : NULL;
	}
}

int store_prune(const char *dir, const char *pod, size_t keep, const struct store_talk *t, struct err *e)
{
	struct entry *list;
	size_t n, seen = 0;
	int r = read_dir(dir, t, &list, &n);

	if (r < 0)
		return r == -ENOENT ? 0 : err_num(e, r, "'%s'", dir);
	qsort(list, n, sizeof(*list), by_age);
	for (size_t i = 0; i < n; i++) {
		seen = i && strcmp(list[i - 1].pod, list[i].pod) == 0 ? seen + 1 : 0;
		if (seen < keep || (pod && strcmp(pod, list[i].pod) != 0))
			keep_with_parents(list, n, &list[i]);
	}
	/* the newest first: at no time does an image build on one that is not there */
	for (size_t i = 0; r >= 0 && i < n; i++) {
		char path[PATH_MAX];

		if (list[i].keep)
			continue;
		snprintf(path, sizeof(path), "%s/%s", dir, list[i].file);
		if (unlink(path) < 0) {
			r = err_sys(e, "'%s'", path);
		} else if (t && t->gone) {
			*strrchr(list[i].file, '.') = 0;
			t->gone(t->arg, list[i].file);
		}
	}
	free(list);
	return r;
}

int store_remove(const char *dir, const char *id, struct err *e)
{
	struct entry *list, *x, *user = NULL;
	char path[PATH_MAX], file[300];
	size_t n;
	int r = read_dir(dir, NULL, &list, &n);

	if (r < 0)
		n = 0;
	snprintf(file, sizeof(file), "%s" IMAGE_SUFFIX, id);
	x = find(list, n, file);
	for (size_t i = 0; i < n; i++)
		if (strcmp(list[i].parent, file) == 0)
			user = &list[i];
	snprintf(path, sizeof(path), "%s/%s", dir, file);
	r = 0;
	if (!x)
		r = err_set(e, ENOENT, "there is no image '%s'", id);
	else if (user)
		r = err_set(e, EBUSY, "image '%s.%lu' builds on '%s'", user->pod, user->number, id);
	else if (unlink(path) < 0)
		r = err_sys(e, "'%s'", path);
	free(list);
	return r;
}
