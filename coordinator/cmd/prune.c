/* SPDX-License-Identifier: GPL-3.0-or-later */
/* podctl image prune, rm: what no image that is kept builds on goes. */
#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "coordinator/cmd/image.h"
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
static int read_dir(struct ctx *c, const char *dir, struct entry **out, size_t *n)
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
			say(c, EXIT_IMAGE, "%s: it is left where it is", e.msg);
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

int prune_pod(struct ctx *c, const char *pod, size_t keep, bool talk)
{
	struct entry *list;
	char dir[PATH_MAX];
	size_t n, seen = 0;
	int code = EXIT_OK, r;

	own_store(c, dir, sizeof(dir));
	r = read_dir(c, dir, &list, &n);
	if (r < 0)
		return r == -ENOENT ? EXIT_OK : say(c, EXIT_OTHER, "'%s': %s", dir, strerror(-r));
	qsort(list, n, sizeof(*list), by_age);
	for (size_t i = 0; i < n; i++) {
		seen = i && strcmp(list[i - 1].pod, list[i].pod) == 0 ? seen + 1 : 0;
		if (seen < keep || (pod && strcmp(pod, list[i].pod) != 0))
			keep_with_parents(list, n, &list[i]);
	}
	for (size_t i = 0; i < n; i++) {
		char path[PATH_MAX];

		if (list[i].keep)
			continue;
		snprintf(path, sizeof(path), "%s/%s", dir, list[i].file);
		if (unlink(path) < 0)
			code = say(c, EXIT_OTHER, "'%s': %s", path, strerror(errno));
		else if (talk)
			printf("%s.%lu\n", list[i].pod, list[i].number);
	}
	free(list);
	return code;
}

int image_prune(struct ctx *c, int argc, char **argv)
{
	static const struct option longs[] = { { "keep", required_argument, NULL, 'k' },
					       { "help", no_argument, NULL, 'h' },
					       { NULL, 0, NULL, 0 } };
	uint64_t keep = 1;
	int o;

	while ((o = next_option(c, argc, argv, ":k:h", longs)) != -1) {
		if (o != 'k' || parse_number(c, "--keep", optarg, 0, 1000000, &keep) < 0)
			return o == 'h' ? EXIT_OK : usage_code(c);
	}
	if (argc - optind > 1)
		return say_usage(c, "too many operands");
	return prune_pod(c, optind < argc ? argv[optind] : NULL, (size_t)keep, true);
}

int image_remove(struct ctx *c, int argc, char **argv)
{
	int code = EXIT_OK;

	if (argc < 2)
		return say_usage(c, "which image?");
	for (int i = 1; i < argc; i++) {
		char dir[PATH_MAX], path[PATH_MAX], file[300];
		struct entry *list, *x, *user = NULL;
		size_t n;
		int r;

		own_store(c, dir, sizeof(dir));
		if (read_dir(c, dir, &list, &n) < 0)
			n = 0;
		snprintf(file, sizeof(file), "%s" IMAGE_SUFFIX, argv[i]);
		x = find(list, n, file);
		for (size_t k = 0; k < n; k++)
			if (strcmp(list[k].parent, file) == 0)
				user = &list[k];
		snprintf(path, sizeof(path), "%s/%s", dir, file);
		r = 0;
		if (!x)
			r = say(c, EXIT_NOTFOUND, "there is no image '%s'", argv[i]);
		else if (user)
			r = say(c, EXIT_BUSY, "image '%s.%lu' builds on '%s': nothing was removed", user->pod, user->number,
				argv[i]);
		else if (unlink(path) < 0)
			r = say(c, EXIT_OTHER, "'%s': %s", path, strerror(errno));
		code = code ? code : r;
		free(list);
	}
	return code;
}
