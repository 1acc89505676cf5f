/* SPDX-License-Identifier: GPL-3.0-or-later */
/* podctl image prune, rm, pin, unpin: what no image that is kept builds on goes. */
#include <errno.h>
#include <limits.h>
#include <stdio.h>

#include "coordinator/cmd/cut.h"
#include "coordinator/cmd/image.h"
#include "pod/image/image.h"

static void print_gone(void *arg, const char *id)
{
	(void)arg;
	printf("%s\n", id);
}

static void say_bad(void *arg, const char *pod, const struct err *e)
{
	say(arg, EXIT_IMAGE, "%s: no image of '%s' is removed: it may need them", e->msg, pod);
}

int image_prune(struct ctx *c, int argc, char **argv)
{
	static const struct option longs[] = { { "keep", required_argument, NULL, 'k' },
					       { "help", no_argument, NULL, 'h' },
					       { NULL, 0, NULL, 0 } };
	const struct store_talk talk = { c, print_gone, say_bad };
	struct store_scope what = { 0 };
	struct err e = { 0 };
	char dir[PATH_MAX];
	uint64_t keep = 1;
	int o;

	while ((o = next_option(c, argc, argv, ":k:h", longs)) != -1) {
		if (o != 'k' || parse_number(c, "--keep", optarg, 0, 1000000, &keep) < 0)
			return o == 'h' ? EXIT_OK : usage_code(c);
	}
	if (argc - optind > 1)
		return say_usage(c, "too many operands");
	own_store(c, dir, sizeof(dir));
	what.pod = optind < argc ? argv[optind] : NULL;
	if (store_prune(dir, &what, (size_t)keep, &talk, &e) < 0)
		return say(c, EXIT_OTHER, "%s", e.msg);
	return EXIT_OK;
}

/* The images of a cut; @e says that there is none. */
static int each_of_job(struct ctx *c, const char *dir, const char *name,
		       int (*one)(const char *dir, const char *id, struct err *e), struct err *e)
{
	struct cut cut;
	int r = cut_find(c, dir, name, NULL, &cut);

	if (r <= 0)
		return r < 0 ? -r : -ENOENT; /* it has said what is wrong */
	*e = (struct err){ 0 };
	for (size_t i = 0; r >= 0 && i < cut.n; i++) {
		r = one(dir, cut.m[i].head->id, e);
		if (r < 0 && i)
			r = say(c, EXIT_PARTIAL, "%s; it was done for %zu of the %zu images of '%s'", e->msg, i, cut.n, name);
		if (r > 0)
			break;
	}
	cut_done(&cut);
	return r;
}

/* @one for each image that is named, in the caller's directory. */
static int each_image(struct ctx *c, int argc, char **argv, int (*one)(const char *dir, const char *id, struct err *e),
		      const char *what_not)
{
	char dir[PATH_MAX];
	int code = EXIT_OK;

	if (image_operands(c, argc, argv, &code) < 0)
		return code;
	own_store(c, dir, sizeof(dir));
	for (int i = optind; i < argc; i++) {
		struct err e = { 0 };
		int r = one(dir, argv[i], &e);

		if (r == -ENOENT)
			r = each_of_job(c, dir, argv[i], one, &e);
		if (r < 0)
			r = say(c, r == -ENOENT ? EXIT_NOTFOUND : r == -EBUSY ? EXIT_BUSY : EXIT_OTHER, "%s; nothing was %s",
				e.msg, what_not);
		code = code ? code : r;
	}
	return code;
}

static int pin_one(const char *dir, const char *id, struct err *e)
{
	return store_pin(dir, id, true, e);
}

static int unpin_one(const char *dir, const char *id, struct err *e)
{
	return store_pin(dir, id, false, e);
}

int image_remove(struct ctx *c, int argc, char **argv)
{
	return each_image(c, argc, argv, store_remove, "removed");
}

int image_pin(struct ctx *c, int argc, char **argv)
{
	return each_image(c, argc, argv, pin_one, "pinned");
}

int image_unpin(struct ctx *c, int argc, char **argv)
{
	return each_image(c, argc, argv, unpin_one, "unpinned");
}
