/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * podctl image diff: in what two images differ.
 *
 * Processes are the same by their pids, threads by their tids, files by the numbers of their fds,
 * memory by its addresses. Pages are compared by the digests that the images have of them: of the
 * files only the tables are read, not the pages of those that they build on. Memory that one has
 * and the other has not differs as far as it has pages.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "coordinator/cmd/inspect.h"
#include "pod/base/util.h"
#include "pod/mem/mem.h"

enum { OPT_JSON = 256 };

struct diff {
	struct content side[2];
	json_t *list;   /* of processes that differ */
	uint64_t bytes; /* of memory, in all */
	bool json;
};

static const char *const only_in[] = {"only in the first", "only in the second"};

/* ---- a line each */

static json_t *new_entry(struct diff *d, const Pm__Proc *p, const char *where)
{
	char comm[64];
	json_t *o = json_pack("{s:i, s:s, s:s}", "pid", p->pid, "comm",
			      clean_copy(comm, sizeof(comm), p->comm), "what", where);

	json_array_append_new(d->list, o);
	return o;
}

/* The entry of @p in @list under @key. */
static void note(json_t *entry, const char *key, json_t *what)
{
	json_t *list = json_object_get(entry, key);

	if (!list) {
		list = json_array();
		json_object_set_new(entry, key, list);
	}
	json_array_append_new(list, what);
}

/* ---- threads and files */

static bool has_thread(const Pm__Proc *p, uint32_t tid)
{
	for (size_t i = 0; i < p->n_threads; i++)
		if (p->threads[i]->tid == tid)
			return true;
	return false;
}

static void diff_threads(json_t *entry, const Pm__Proc *const p[2])
{
	for (size_t s = 0; s < 2; s++)
		for (size_t i = 0; i < p[s]->n_threads; i++)
			if (!has_thread(p[!s], p[s]->threads[i]->tid))
				note(entry, "threads",
				     json_pack("{s:i, s:s}", "tid", p[s]->threads[i]->tid, "what",
					       only_in[s]));
}

static const Pm__Fd *fd_of(const Pm__Proc *p, uint32_t fd)
{
	for (size_t i = 0; i < p->n_fds; i++)
		if (p->fds[i]->fd == fd)
			return p->fds[i];
	return NULL;
}

/* "rw /tmp/x at 5": a socket's or pipe's number is the node's, and says nothing. */
static void file_words(const struct content *x, const Pm__Fd *f, char *out, size_t len)
{
	const Pm__Object *o = content_object(x, f->object);
	int n = !o                                 ? 0
		: !strncmp(o->link, "socket:[", 8) ? 6
		: !strncmp(o->link, "pipe:[", 6)   ? 4
						   : (int)strlen(o->link);
	char words[4200];

	snprintf(words, sizeof(words), "%.*s", n, o ? o->link : "");
	snprintf(out, len, "%s %s", o ? open_mode(o->flags) : "?", clean(words));
	if (o && o->pos)
		snprintf(out + strlen(out), len - strlen(out), " at %ld", (long)o->pos);
}

static void diff_files(const struct diff *d, json_t *entry, const Pm__Proc *const p[2])
{
	char words[2][4300];

	for (size_t s = 0; s < 2; s++)
		for (size_t i = 0; i < p[s]->n_fds; i++) {
			const Pm__Fd *f = p[s]->fds[i], *other = fd_of(p[!s], f->fd);

			if (s && other)
				continue;
			file_words(&d->side[s], f, words[0], sizeof(words[0]));
			words[1][0] = 0;
			if (other)
				file_words(&d->side[!s], other, words[1], sizeof(words[1]));
			if (!other)
				note(entry, "files",
				     json_pack("{s:i, s:s, s:s}", "fd", f->fd, "what", only_in[s],
					       s ? "second" : "first", words[0]));
			else if (strcmp(words[0], words[1]) != 0)
				note(entry, "files",
				     json_pack("{s:i, s:s, s:s, s:s}", "fd", f->fd, "what",
					       "changed", "first", words[0], "second", words[1]));
		}
}

/* ---- memory */

/* The first that ends after @at; *@i is where the last one was. */
static const Pm__Vma *vma_at(const Pm__Proc *p, uint64_t at, size_t *i)
{
	while (p->mm && *i < p->mm->n_vmas && p->mm->vmas[*i]->end <= at)
		++*i;
	return p->mm && *i < p->mm->n_vmas ? p->mm->vmas[*i] : NULL;
}

/* What lies at @at, to @end at most: pages, zeros, or (SPAN_NONE) what a file has or nothing. */
static struct span look(const struct content *x, const Pm__Proc *p, const Pm__Vma *v, uint64_t at,
			uint64_t end)
{
	struct span s = {at, end, SPAN_NONE, 0};

	if (v)
		s = memory_of_vma(&x->mem, p->pid, v, at, MIN(end, v->end));
	if (v && s.kind == SPAN_NONE && v->type != VMA_FILE)
		s.kind = SPAN_ZERO;
	return s;
}

/* How many pages differ in [@at, @end), which is one stretch of each. */
static uint64_t differ(const struct diff *d, const struct span *a, const struct span *b, uint64_t n)
{
	uint64_t sum = 0;

	if (a->kind != b->kind) /* pages that are stored are not all zeros */
		return a->kind == SPAN_PAGES || b->kind == SPAN_PAGES ? n : 0;
	for (uint64_t i = 0; a->kind == SPAN_PAGES && i < n; i++) {
		const struct page_digest *x = chain_digest(&d->side[0].chain, a->page + i);
		const struct page_digest *y = chain_digest(&d->side[1].chain, b->page + i);

		sum += !x || !y || memcmp(x, y, sizeof(*x)) != 0;
	}
	return sum;
}

static void note_memory(struct diff *d, json_t *entry, const Pm__Vma *v, uint64_t start,
			uint64_t end, const char *what, uint64_t pages)
{
	char name[4200];

	d->bytes += pages * PAGE;
	note(entry, "memory",
	     json_pack("{s:I, s:I, s:s, s:s, s:I}", "start", (json_int_t)start, "end",
		       (json_int_t)end, "name", clean_copy(name, sizeof(name), v->name), "what",
		       what, "bytes", (json_int_t)(pages * PAGE)));
}

/* Over all borders of the mappings of both. */
static void diff_memory(struct diff *d, json_t *entry, const Pm__Proc *const p[2])
{
	size_t i[2] = {0};
	uint64_t at = 0;

	for (;;) {
		const Pm__Vma *v[2] = {vma_at(p[0], at, &i[0]), vma_at(p[1], at, &i[1])}, *one;
		uint64_t from = UINT64_MAX, end = UINT64_MAX, pages = 0, next;

		for (size_t s = 0; s < 2; s++)
			from = v[s] ? MIN(from, MAX(v[s]->start, at)) : from;
		if (from == UINT64_MAX)
			return;
		for (size_t s = 0; s < 2; s++) {
			end = v[s] ? MIN(end, v[s]->start > from ? v[s]->start : v[s]->end) : end;
			v[s] = v[s] && v[s]->start <= from ? v[s] : NULL;
		}
		for (at = from; at < end; at = next) {
			struct span a = look(&d->side[0], p[0], v[0], at, end),
				    b = look(&d->side[1], p[1], v[1], at, (uint64_t)a.end);

			next = (uint64_t)b.end;
			pages += differ(d, &a, &b, (next - at) / PAGE);
		}
		one = v[0] ? v[0] : v[1];
		if (!v[0] || !v[1])
			note_memory(d, entry, one, from, end, only_in[!v[0]], pages);
		else if (pages || v[0]->prot != v[1]->prot)
			note_memory(d, entry, one, from, end, pages ? "changed" : "protection",
				    pages);
	}
}

/* ---- processes */

static const Pm__Proc *proc_of(const struct content *x, uint32_t pid)
{
	for (size_t i = 0; i < x->tree->n_procs; i++)
		if (x->tree->procs[i]->pid == pid)
			return x->tree->procs[i];
	return NULL;
}

static void diff_process(struct diff *d, const Pm__Proc *const p[2])
{
	static const char *const parts[] = {"threads", "files", "memory"};
	json_t *entry = new_entry(d, p[0], "changed");
	size_t n = 0;

	if (strcmp(p[0]->comm, p[1]->comm) != 0) {
		char comm[64];

		json_object_set_new(entry, "comm_second",
				    json_string(clean_copy(comm, sizeof(comm), p[1]->comm)));
		n++;
	}
	if (p[0]->zombie != p[1]->zombie) {
		json_object_set_new(entry, "ended", json_string(only_in[p[1]->zombie]));
		n++;
	}
	diff_threads(entry, p);
	diff_files(d, entry, p);
	diff_memory(d, entry, p);
	for (size_t i = 0; i < ARRAY_SIZE(parts); i++)
		n += json_array_size(json_object_get(entry, parts[i]));
	if (!n)
		json_array_remove(d->list, json_array_size(d->list) - 1);
}

static void diff_all(struct diff *d)
{
	for (size_t s = 0; s < 2; s++)
		for (size_t i = 0; i < d->side[s].tree->n_procs; i++) {
			const Pm__Proc *p = d->side[s].tree->procs[i],
				       *other = proc_of(&d->side[!s], p->pid);

			if (!other)
				new_entry(d, p, only_in[s]);
			else if (!s)
				diff_process(d, (const Pm__Proc *[]){p, other});
		}
}

/* ---- words */

static const char *text(const json_t *o, const char *key)
{
	const char *s = json_string_value(json_object_get(o, key));

	return s ? s : "";
}

static json_int_t number(const json_t *o, const char *key)
{
	return json_integer_value(json_object_get(o, key));
}

static void print_process(const json_t *p)
{
	char who[128], size[32];
	size_t i;
	json_t *x;

	snprintf(who, sizeof(who), "%d %s", (int)number(p, "pid"), text(p, "comm"));
	if (strcmp(text(p, "what"), "changed") != 0)
		printf("%s: %s\n", who, text(p, "what"));
	if (text(p, "comm_second")[0])
		printf("%s: is %s in the second\n", who, text(p, "comm_second"));
	if (text(p, "ended")[0])
		printf("%s: has ended, %s\n", who, text(p, "ended"));
	json_array_foreach(json_object_get(p, "threads"), i, x)
		printf("%s: thread %d %s\n", who, (int)number(x, "tid"), text(x, "what"));
	json_array_foreach(json_object_get(p, "files"), i, x)
	{
		const char *both = strcmp(text(x, "what"), "changed") ? "" : ", then ";

		printf("%s: fd %d %s: %s%s%s\n", who, (int)number(x, "fd"), text(x, "what"),
		       text(x, "first"), both, text(x, "second"));
	}
	json_array_foreach(json_object_get(p, "memory"), i, x)
		printf("%s: %lx-%lx %s %s: %s\n", who, (unsigned long)number(x, "start"),
		       (unsigned long)number(x, "end"), text(x, "name"), text(x, "what"),
		       human_size(size, sizeof(size), (uint64_t)number(x, "bytes")));
}

static void print_all(struct diff *d)
{
	char size[32];
	size_t i;
	json_t *p;

	json_array_foreach(d->list, i, p) print_process(p);
	printf("%zu process%s differ%s, %s of memory\n", json_array_size(d->list),
	       json_array_size(d->list) == 1 ? "" : "es", json_array_size(d->list) == 1 ? "s" : "",
	       human_size(size, sizeof(size), d->bytes));
}

int image_diff(struct ctx *c, int argc, char **argv)
{
	static const struct option longs[] = {{"json", no_argument, NULL, OPT_JSON},
					      {"help", no_argument, NULL, 'h'},
					      {NULL, 0, NULL, 0}};
	struct diff d = {.bytes = 0};
	char path[PATH_MAX];
	int o, code = 0;

	while ((o = next_option(c, argc, argv, ":h", longs)) != -1) {
		if (o != OPT_JSON)
			return o == 'h' ? EXIT_OK : usage_code(c);
		d.json = true;
	}
	if (argc - optind != 2)
		return say_usage(c, argc - optind < 2 ? "which two images?" : "too many operands");
	for (size_t s = 0; !code && s < 2; s++) {
		code = find_image(c, argv[optind + (int)s], path, sizeof(path), NULL);
		if (!code)
			code = content_load(c, path, true, &d.side[s]);
	}
	d.list = json_array();
	if (!code) {
		diff_all(&d);
		if (d.json) {
			json_t *all = json_pack("{s:s, s:s, s:I, s:O}", "first",
						clean(argv[optind]), "second",
						clean(argv[optind + 1]), "bytes",
						(json_int_t)d.bytes, "processes", d.list);

			json_dumpf(all, stdout, JSON_INDENT(2) | JSON_ENSURE_ASCII);
			putchar('\n');
			json_decref(all);
		} else {
			print_all(&d);
		}
	}
	json_decref(d.list);
	content_unload(&d.side[0]);
	content_unload(&d.side[1]);
	return code;
}
