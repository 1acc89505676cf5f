/* SPDX-License-Identifier: GPL-3.0-or-later */
/* podctl inspect IMAGE: what is in an image, without reading its pages. */
#include <fcntl.h>
#include <jansson.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "coordinator/cmd/image.h"
#include "pod/base/util.h"
#include "pod/image/image.h"

enum { OPT_JSON = 256, OPT_TREE, OPT_FILES, OPT_MAPS, OPT_STATS, OPT_PID };

#define TREE_DEPTH 64

struct show {
	bool tree, files, maps, stats;
	uint64_t pid; /* 0: all */
};

struct content {
	struct image_chain chain;
	Pm__PodSpec *spec;
	Pm__Tree *tree;
	Pm__Objects *objs;
};

static const Pm__Object *object_of(const struct content *x, uint32_t id)
{
	for (size_t i = 0; i < x->objs->n_objects; i++)
		if (x->objs->objects[i]->id == id)
			return x->objs->objects[i];
	return NULL;
}

static uint64_t mapped(const Pm__Proc *p)
{
	uint64_t sum = 0;

	for (size_t i = 0; p->mm && i < p->mm->n_vmas; i++)
		sum += p->mm->vmas[i]->end - p->mm->vmas[i]->start;
	return sum;
}

static const char *mode_of(uint32_t flags)
{
	static const char *const words[] = { "r", "w", "rw", "-" };

	return flags & O_PATH ? "path" : words[flags & O_ACCMODE];
}

/* ---- words */

static void show_stats(const struct content *x)
{
	const struct image *im = &x->chain.im[x->chain.n - 1];
	time_t t = (time_t)(im->head->created_ns / 1000000000u);
	uint64_t all = chain_count(&x->chain);
	char when[32], size[32], b[200];
	struct tm tm;

	strftime(when, sizeof(when), "%Y-%m-%dT%H:%M:%S", localtime_r(&t, &tm));
	printf("image    %s%s\n", clean_copy(b, sizeof(b), im->head->id), im->head->ended ? ", with which the pod ended" : "");
	printf("pod      %s", clean_copy(b, sizeof(b), x->spec->name));
	printf(" of user %s", clean_copy(b, sizeof(b), x->spec->user));
	printf(", address %s\n", x->spec->ip[0] ? clean_copy(b, sizeof(b), x->spec->ip) : "none");
	printf("made     %s on %s, format %u\n", when, clean_copy(b, sizeof(b), im->head->node), im->head->version);
	printf("size     %s, %lu pages stored here", human_size(size, sizeof(size), im->size), (unsigned long)im->npages);
	if (x->chain.n > 1)
		printf(", %lu in the %zu images that it builds on", (unsigned long)(all - im->npages), x->chain.n - 1);
	printf("\n");
}

/* The children of each stand together; in an image they may be anybody's, and each other's. */
struct family {
	const Pm__Proc **proc;
	bool *shown;
	size_t n;
};

static int by_parent(const void *a, const void *b)
{
	const Pm__Proc *x = *(const Pm__Proc *const *)a, *y = *(const Pm__Proc *const *)b;

	return x->ppid != y->ppid ? (x->ppid < y->ppid ? -1 : 1) : x->pid < y->pid ? -1 : x->pid > y->pid;
}

static void show_children(struct family *f, uint32_t parent, int depth);

static void show_proc(struct family *f, size_t i, int depth)
{
	const Pm__Proc *p = f->proc[i];
	char size[32], b[64];

	if (f->shown[i])
		return;
	f->shown[i] = true;
	if (p->zombie)
		printf("%*s%u %s (zombie)\n", 2 * depth, "", p->pid, clean_copy(b, sizeof(b), p->comm));
	else
		printf("%*s%u %s  uid %u, %zu thread%s, %zu fd%s, %s mapped\n", 2 * depth, "", p->pid,
		       clean_copy(b, sizeof(b), p->comm), p->euid, p->n_threads, p->n_threads == 1 ? "" : "s", p->n_fds,
		       p->n_fds == 1 ? "" : "s", human_size(size, sizeof(size), mapped(p)));
	if (depth < TREE_DEPTH)
		show_children(f, p->pid, depth + 1);
}

static void show_children(struct family *f, uint32_t parent, int depth)
{
	size_t lo = 0, hi = f->n;

	while (lo < hi) {
		size_t mid = lo + (hi - lo) / 2;

		if (f->proc[mid]->ppid < parent)
			lo = mid + 1;
		else
			hi = mid;
	}
	/* of two with one pid, only the first has the children */
	if (lo < f->n && f->shown[lo])
		return;
	for (; lo < f->n && f->proc[lo]->ppid == parent; lo++)
		show_proc(f, lo, depth);
}

/* Each once, whatever they say of one another; who is nobody's child, or too deep, begins a tree of his own. */
static void show_tree(const struct content *x)
{
	struct family f = { .n = x->tree->n_procs };

	f.proc = calloc(f.n + 1, sizeof(*f.proc));
	f.shown = calloc(f.n + 1, sizeof(*f.shown));
	if (f.proc && f.shown) {
		for (size_t i = 0; i < f.n; i++)
			f.proc[i] = x->tree->procs[i];
		qsort(f.proc, f.n, sizeof(*f.proc), by_parent);
		show_children(&f, 0, 0);
		for (size_t i = 0; i < f.n; i++)
			show_proc(&f, i, 0);
	}
	free(f.proc);
	free(f.shown);
}

static void show_files(const struct content *x, const Pm__Proc *p)
{
	char b[4200];

	for (size_t i = 0; i < p->n_fds; i++) {
		const Pm__Object *o = object_of(x, p->fds[i]->object);

		printf("%u %u %s %s\n", p->pid, p->fds[i]->fd, o ? mode_of(o->flags) : "-",
		       o ? clean_copy(b, sizeof(b), o->link) : "?");
	}
}

static void show_maps(const struct content *x, const Pm__Proc *p)
{
	char b[4200];

	for (size_t i = 0; p->mm && i < p->mm->n_vmas; i++) {
		const Pm__Vma *v = p->mm->vmas[i];
		const Pm__Object *o = v->object ? object_of(x, v->object) : NULL;

		printf("%u %lx-%lx %c%c%c%c %s\n", p->pid, (unsigned long)v->start, (unsigned long)v->end,
		       v->prot & 1 ? 'r' : '-', v->prot & 2 ? 'w' : '-', v->prot & 4 ? 'x' : '-', v->shared ? 's' : 'p',
		       clean_copy(b, sizeof(b), o ? o->link : v->name));
	}
}

/* ---- JSON */

static json_t *proc_json(const struct content *x, const Pm__Proc *p, const struct show *s)
{
	json_t *o = json_pack("{s:i, s:i, s:i, s:i, s:s, s:b, s:i, s:I, s:I}", "pid", p->pid, "ppid", p->ppid, "pgid",
			      p->pgid, "sid", p->sid, "comm", clean(p->comm), "zombie", p->zombie, "uid", p->euid, "threads",
			      (json_int_t)p->n_threads, "mapped", (json_int_t)mapped(p));
	json_t *fds = s->files ? json_array() : NULL, *maps = s->maps ? json_array() : NULL;

	for (size_t i = 0; fds && i < p->n_fds; i++) {
		const Pm__Object *f = object_of(x, p->fds[i]->object);

		json_array_append_new(fds, json_pack("{s:i, s:s, s:s, s:I}", "fd", p->fds[i]->fd, "mode",
						     f ? mode_of(f->flags) : "-", "what", f ? clean(f->link) : "", "pos",
						     (json_int_t)(f ? f->pos : 0)));
	}
	for (size_t i = 0; maps && p->mm && i < p->mm->n_vmas; i++) {
		const Pm__Vma *v = p->mm->vmas[i];

		json_array_append_new(maps, json_pack("{s:I, s:I, s:i, s:b, s:s}", "start", (json_int_t)v->start, "end",
						      (json_int_t)v->end, "prot", v->prot, "shared", v->shared, "name",
						      clean(v->name)));
	}
	if (fds)
		json_object_set_new(o, "fds", fds);
	if (maps)
		json_object_set_new(o, "maps", maps);
	return o;
}

static int show_json(const struct content *x, const struct show *s)
{
	const struct image *im = &x->chain.im[x->chain.n - 1];
	json_t *procs = json_array(), *o;

	for (size_t i = 0; i < x->tree->n_procs; i++)
		if (!s->pid || x->tree->procs[i]->pid == s->pid)
			json_array_append_new(procs, proc_json(x, x->tree->procs[i], s));
	o = json_pack("{s:s, s:s, s:s, s:s, s:s, s:I, s:b, s:I, s:I, s:i, s:o}", "image", clean(im->head->id), "pod", clean(x->spec->name),
		      "user", clean(x->spec->user), "ip", clean(x->spec->ip), "node", clean(im->head->node), "created_ns",
		      (json_int_t)im->head->created_ns, "ended", im->head->ended, "bytes", (json_int_t)im->size, "pages",
		      (json_int_t)im->npages, "images", (int)x->chain.n, "processes", procs);
	if (!o)
		return EXIT_OTHER; /* no memory */
	json_dumpf(o, stdout, JSON_INDENT(2) | JSON_ENSURE_ASCII);
	putchar('\n');
	json_decref(o);
	return EXIT_OK;
}

/* ---- all of it */

static int load(struct ctx *c, const char *path, struct content *x)
{
	struct err e = { 0 };
	const struct image *im;

	if (chain_open(&x->chain, path, NULL, &e) < 0)
		return image_error(c, &e);
	im = chain_top(&x->chain);
	x->spec = pm__pod_spec__unpack(NULL, im->head->spec.len, im->head->spec.data);
	x->tree = (Pm__Tree *)image_message(im, REC_FINAL, &pm__tree__descriptor, &e);
	x->objs = (Pm__Objects *)image_message(im, REC_OBJECTS, &pm__objects__descriptor, &e);
	if (!x->spec || !x->tree || !x->objs)
		return say(c, EXIT_IMAGE, "'%s': %s", path, e.code ? e.msg : "it does not say what pod it is");
	return 0;
}

static void unload(struct content *x)
{
	if (x->spec)
		pm__pod_spec__free_unpacked(x->spec, NULL);
	if (x->tree)
		pm__tree__free_unpacked(x->tree, NULL);
	if (x->objs)
		pm__objects__free_unpacked(x->objs, NULL);
	chain_close(&x->chain);
}

static void show_words(const struct content *x, struct show *s)
{
	if (!s->tree && !s->files && !s->maps && !s->stats)
		s->tree = s->stats = true;
	if (s->stats)
		show_stats(x);
	if (s->tree)
		show_tree(x);
	for (size_t i = 0; i < x->tree->n_procs; i++) {
		const Pm__Proc *p = x->tree->procs[i];

		if (s->pid && p->pid != s->pid)
			continue;
		if (s->files)
			show_files(x, p);
		if (s->maps)
			show_maps(x, p);
	}
}

int cmd_inspect(struct ctx *c, int argc, char **argv)
{
	static const struct option longs[] = {
		{ "ps-tree", no_argument, NULL, OPT_TREE }, { "files", no_argument, NULL, OPT_FILES },
		{ "maps", no_argument, NULL, OPT_MAPS },    { "stats", no_argument, NULL, OPT_STATS },
		{ "pid", required_argument, NULL, OPT_PID }, { "json", no_argument, NULL, OPT_JSON },
		{ "help", no_argument, NULL, 'h' },	    { NULL, 0, NULL, 0 },
	};
	struct content x = { .spec = NULL };
	struct show s = { .tree = false };
	char path[PATH_MAX];
	bool json = false;
	int o, code;

	while ((o = next_option(c, argc, argv, ":h", longs)) != -1) {
		s.tree |= o == OPT_TREE;
		s.files |= o == OPT_FILES;
		s.maps |= o == OPT_MAPS;
		s.stats |= o == OPT_STATS;
		json |= o == OPT_JSON;
		if (o == 'h' || o == '?' || (o == OPT_PID && parse_number(c, "--pid", optarg, 1, 1 << 22, &s.pid) < 0))
			return o == 'h' ? EXIT_OK : usage_code(c);
	}
	if (argc - optind != 1)
		return say_usage(c, argc == optind ? "which image?" : "too many operands");
	code = find_image(c, argv[optind], path, sizeof(path), NULL);
	if (code)
		return code;
	code = load(c, path, &x);
	if (!code && json)
		code = show_json(&x, &s);
	else if (!code)
		show_words(&x, &s);
	unload(&x);
	return code;
}
