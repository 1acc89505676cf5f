/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Images of a job: one file for each pod, whose heads name the cut that they belong to and all of its pods. There is no
 * other list of them: a cut is there when all of its files are, so it appears with the last and is gone with the first.
 */
#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "coordinator/cmd/cut.h"
#include "coordinator/cmd/image.h"
#include "pod/base/io.h"
#include "pod/base/util.h"

/* In a directory that others may write to stands what they like. Root restores anybody's. */
bool image_is_ours(int fd)
{
	struct stat st;

	return geteuid() == 0 || (fstat(fd, &st) == 0 && st.st_uid == geteuid());
}

static void member_done(struct member *m)
{
	if (m->spec)
		pm__pod_spec__free_unpacked(m->spec, NULL);
	if (m->head)
		pm__image_head__free_unpacked(m->head, NULL);
}

void cut_done(struct cut *c)
{
	for (size_t i = 0; i < c->n; i++)
		member_done(&c->m[i]);
	free(c->m);
	*c = (struct cut){ .n = 0 };
}

/* 1: @m is it; 0: it is no image of a cut that is looked for. */
static int read_member(int dir, const char *file, const char *name, const char *job, struct member *m)
{
	struct err e = { 0 };
	struct image im;
	struct stat st;

	*m = (struct member){ .head = NULL };
	if (image_open_at(&im, dir, file, &e) < 0)
		return 0; /* who lists images says so */
	if (im.head->cut[0] && image_own_name(im.head->id, file) && image_is_ours(im.fd) && (!name || strcmp(name, im.head->cut_name) == 0) &&
	    fstat(im.fd, &st) == 0)
		m->spec = pm__pod_spec__unpack(NULL, im.head->spec.len, im.head->spec.data);
	if (m->spec && (!job || strcmp(job, m->spec->job) == 0)) {
		m->head = im.head;
		im.head = NULL;
		m->uid = st.st_uid;
		m->gid = st.st_gid;
		snprintf(m->file, sizeof(m->file), "%s", file);
	}
	image_close(&im);
	if (!m->head)
		member_done(m);
	return m->head != NULL;
}

static int read_members(const char *path, const char *name, const char *job, struct cut *all)
{
	DIR *d = opendir(path);
	struct dirent *de;
	size_t cap = 0;

	*all = (struct cut){ .n = 0 };
	snprintf(all->dir, sizeof(all->dir), "%s", path);
	while (d && (de = readdir(d))) {
		const char *dot = strrchr(de->d_name, '.');
		struct member *more;

		if (!dot || strcmp(dot, IMAGE_SUFFIX) != 0 || de->d_name[0] == '.')
			continue;
		if (all->n == cap) {
			more = reallocarray(all->m, cap + 64, sizeof(*more));
			if (!more)
				break;
			all->m = more;
			cap += 64;
		}
		all->n += (size_t)read_member(dirfd(d), de->d_name, name, job, &all->m[all->n]);
	}
	if (d)
		closedir(d);
	return d ? 0 : -1;
}

/* Those of a cut side by side, by the names of their pods. */
static int by_cut(const void *a, const void *b)
{
	const struct member *x = a, *y = b;
	int r = strcmp(x->head->cut, y->head->cut);

	if (r)
		return r;
	if (x->uid != y->uid) /* what another user calls his is no part of it */
		return x->uid < y->uid ? -1 : 1;
	return strcmp(x->spec->name, y->spec->name);
}

static const char *lacks(const struct member *m, size_t n)
{
	const Pm__ImageHead *h = m->head;

	for (size_t i = 0; i < h->n_cut_pods; i++) {
		size_t k = 0;

		while (k < n && strcmp(m[k].spec->name, h->cut_pods[i]) != 0)
			k++;
		if (k == n)
			return h->cut_pods[i];
	}
	return n == h->n_cut_pods ? NULL : "";
}

/* The newest cut in @all that is whole stays in it. True: there is one; else *@part and *@without are one that is not. */
static bool choose(struct cut *all, char *part, char *without, size_t len)
{
	size_t i, n, best = 0, nbest = 0;
	uint64_t newest = 0;

	if (all->n)
		qsort(all->m, all->n, sizeof(*all->m), by_cut);
	for (i = 0; i < all->n; i += n) {
		const char *missing;
		uint64_t made = 0;

		for (n = 0; i + n < all->n && strcmp(all->m[i].head->cut, all->m[i + n].head->cut) == 0 &&
			    all->m[i].uid == all->m[i + n].uid; n++)
			made = MAX(made, all->m[i + n].head->created_ns);
		missing = lacks(&all->m[i], n);
		if (missing) {
			snprintf(part, len, "%s", all->m[i].head->cut_name);
			snprintf(without, len, "%s", missing);
		} else if (made > newest) {
			newest = made;
			best = i;
			nbest = n;
		}
	}
	for (i = 0; i < all->n; i++)
		if (i < best || i >= best + nbest)
			member_done(&all->m[i]);
	memmove(all->m, all->m + best, nbest * sizeof(*all->m));
	all->n = nbest;
	all->made_ns = newest;
	return nbest;
}

int cut_find(struct ctx *c, const char *dir, const char *name, const char *job, struct cut *out)
{
	char part[256] = "", without[256] = "";

	if (read_members(dir, name, job, out) == 0 && choose(out, part, without, sizeof(part)))
		return 1;
	cut_done(out);
	if (!part[0])
		return 0;
	clean(part);
	clean(without);
	return -say(c, EXIT_IMAGE, "image '%s' in '%s' is not whole: that of pod '%s' is missing", part, dir, without);
}

int cut_find_in_store(struct ctx *c, const char *name, const char *job, struct cut *out)
{
	char dir[PATH_MAX];
	struct dirent *de;
	struct cut x;
	DIR *d;
	int r;

	own_store(c, dir, sizeof(dir));
	r = cut_find(c, dir, name, job, out);
	d = r == 0 && geteuid() == 0 ? opendir(c->conf.images_dir) : NULL;
	while (d && r >= 0 && (de = readdir(d))) {
		if (de->d_name[0] == '.' || de->d_type == DT_LNK ||
		    (size_t)snprintf(dir, sizeof(dir), "%s/%s", c->conf.images_dir, de->d_name) >= sizeof(dir))
			continue;
		if (cut_find(c, dir, name, job, &x) != 1)
			continue;
		if (r == 1 && x.made_ns < out->made_ns) {
			cut_done(&x);
			continue;
		}
		if (r == 1)
			cut_done(out);
		*out = x;
		r = 1;
	}
	if (d)
		closedir(d);
	return r;
}

/* The @i-th of a list of names that are separated by commas, round and round. */
static char *nth_node(const char *list, size_t i)
{
	size_t n = 1;
	const char *s;

	for (s = list; *s; s++)
		n += *s == ',';
	for (s = list, i %= n; i; s++)
		i -= *s == ',';
	return strndup(s, strcspn(s, ","));
}

/* What is asked for one of them; strings of our own in node and id or path. False: no memory. */
static bool member_req(const Pm__RestoreReq *like, const struct cut *cut, size_t i, bool in_store, Pm__RestoreReq *out)
{
	const struct member *x = &cut->m[i];
	char **name = in_store ? &out->id : &out->path;

	*out = *like;
	out->spec = x->spec;
	out->epoch = x->head->epoch;
	out->owner = x->uid;
	out->owner_gid = x->gid;
	out->node = nth_node(like->node, i);
	if ((in_store ? asprintf(name, "%s", x->head->id) : asprintf(name, "%s/%s", cut->dir, x->file)) < 0)
		*name = NULL;
	return out->node && *name;
}

int cut_restore(struct operation *m, const Pm__RestoreReq *like, const struct cut *cut, bool in_store)
{
	Pm__RestoreReq *req = calloc(cut->n, sizeof(*req)), **ptr = calloc(cut->n, sizeof(*ptr));
	bool ok = req && ptr;
	int code = EXIT_OTHER;

	LINK_ENVELOPE(q, restore_job_req, RESTORE_JOB_REQ, Pm__RestoreJobReq, pm__restore_job_req__init);
	for (q_body.n_pods = 0; ok && q_body.n_pods < cut->n; q_body.n_pods++) {
		ptr[q_body.n_pods] = &req[q_body.n_pods];
		ok = member_req(like, cut, q_body.n_pods, in_store, ptr[q_body.n_pods]);
	}
	if (ok) {
		q_body.job = cut->m[0].spec->job;
		q_body.pods = ptr;
		m->subject = q_body.job;
		code = operation_run(m, &q);
	}
	for (size_t i = 0; i < q_body.n_pods; i++) {
		free(req[i].node);
		free(in_store ? req[i].id : req[i].path);
	}
	free(req);
	free(ptr);
	return code;
}
