/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * A checkpoint: the stages of a move with an image in the place of the target.
 *
 * The image is written while the pod runs, the difference inside the freeze. Then, if the pod is to run on, it does so at
 * once: what remains (index, fsync, name) needs it no more. If it is to end, it stays frozen until the image has its name;
 * READY then asks the coordinator for the commit, after which the agent ends it. A failure at any point before leaves the
 * pod running and no image.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "agent/link/frame.h"
#include "pod/base/io.h"
#include "pod/base/log.h"
#include "pod/base/util.h"
#include "pod/dump_stages.h"
#include "pod/image_log.h"

/* The store has a directory for each user, which is that user's own. */
static int make_store(struct dump *d, struct err *e)
{
	const Pm__PodSpec *spec = d->req->spec;
	const char *path = d->req->image->path, *slash = strrchr(path, '/');
	char user[PATH_MAX], *top;
	struct stat st;

	if (!slash || (size_t)snprintf(user, sizeof(user), "%.*s", (int)(slash - path), path) >= sizeof(user))
		return err_set(e, EINVAL, "'%s' is not a path for an image", path);
	top = strrchr(user, '/');
	if (top && top != user) {
		*top = 0;
		if (mkdir(user, 0755) < 0 && errno != EEXIST)
			return err_sys(e, "make the image store '%s'", user);
		*top = '/';
	}
	if (mkdir(user, 0700) == 0) {
		if (chown(user, spec->uid, spec->gid) < 0)
			return err_sys(e, "owner of '%s'", user);
	} else if (errno != EEXIST) {
		return err_sys(e, "make '%s'", user);
	}
	if (lstat(user, &st) < 0 || !S_ISDIR(st.st_mode) || st.st_uid != spec->uid)
		return err_set(e, EPERM, "'%s' is not a directory of user '%s'", user, spec->user);
	return 0;
}

static int write_head(struct dump *d, struct err *e)
{
	const Pm__PodSpec *spec = d->req->spec;
	Pm__ImageHead h;
	char build[] = LINK_BUILD, parent[256];
	struct timespec now;

	pm__image_head__init(&h);
	clock_gettime(CLOCK_REALTIME, &now);
	h.version = IMAGE_VERSION;
	h.compat = 1;
	h.id = d->req->image->id;
	h.node = d->req->node;
	h.created_ns = (uint64_t)now.tv_sec * NSEC_PER_SEC + (uint64_t)now.tv_nsec;
	h.epoch = d->req->epoch;
	h.build = build;
	h.ended = d->req->image->term;
	if (d->base.n) {
		snprintf(parent, sizeof(parent), "%s" IMAGE_SUFFIX, chain_top(&d->base)->head->id);
		h.parent = parent;
		h.parent_digest = chain_top(&d->base)->digest;
	}
	h.spec.len = pm__pod_spec__get_packed_size(spec);
	h.spec.data = dump_alloc(d, h.spec.len);
	pm__pod_spec__pack(spec, h.spec.data);
	return stream_send_msg(&d->s, REC_HEAD, 0, &h.base, e);
}

const struct page_known *dump_known(struct dump *d)
{
	return d->dedup ? &d->known : NULL;
}

static int look_up(void *arg, const void *page, uint64_t *number)
{
	return dedup_page(arg, page, number);
}

/* The number in "POD.NUMBER.img", or 0: it is none of this pod's. */
static unsigned long number_of(const char *file, const char *pod)
{
	size_t n = strlen(pod);
	unsigned long number;
	char *end;

	if (strncmp(file, pod, n) != 0 || file[n] != '.' || file[n + 1] < '0' || file[n + 1] > '9')
		return 0;
	number = strtoul(file + n + 1, &end, 10);
	return strcmp(end, IMAGE_SUFFIX) == 0 ? number : 0;
}

/* The newest image of this pod in the store, if it is sound: else this one stands alone. */
static int choose_base(struct dump *d, struct err *e)
{
	const char *path = d->req->image->path, *slash = strrchr(path, '/');
	unsigned long best = 0, own = number_of(slash + 1, d->req->spec->name);
	struct err why = { 0 };
	char file[PATH_MAX];
	struct dirent *de;
	DIR *dir;

	d->dedup = dedup_new();
	if (!d->dedup)
		return err_num(e, ENOMEM, "the pages of an image");
	d->known = (struct page_known){ look_up, d->dedup };
	snprintf(file, sizeof(file), "%.*s", (int)(slash - path), path);
	dir = d->req->image->store && !d->req->image->full ? opendir(file) : NULL;
	while (dir && (de = readdir(dir))) {
		unsigned long n = number_of(de->d_name, d->req->spec->name);

		if (n > best && n < own)
			best = n;
	}
	if (dir)
		closedir(dir);
	if (best) {
		snprintf(file, sizeof(file), "%.*s/%s.%lu" IMAGE_SUFFIX, (int)(slash - path), path, d->req->spec->name, best);
		if (chain_open(&d->base, file, &d->owner, &why) < 0) {
			log_warn("%s: %s: the new image stands alone", d->req->spec->name, why.msg);
		} else if (d->base.n == CHAIN_MAX) {
			chain_close(&d->base);
		} else if (chain_known(&d->base, d->dedup, e) < 0) {
			return e->code;
		}
	}
	dedup_begin(d->dedup);
	return 0;
}

/* What the check of a move asks the target is left to the day of the restart. */
int image_begin(struct dump *d, struct err *e)
{
	const Pm__CheckpointReq *req = d->req->image;
	const Pm__PodSpec *spec = d->req->spec;
	Pm__Greeting hello;
	int r;

	d->exit_code = 7;
	d->owner = (struct image_user){ spec->uid, spec->gid, spec->groups, spec->n_groups };
	r = req->store ? make_store(d, e) : 0;
	if (r >= 0)
		r = image_create(&d->out, req->path, &d->owner, !req->store, e);
	if (r < 0)
		return r;
	d->s.fd = d->out.fd;
	d->s.file = true;
	r = choose_base(d, e);
	if (r < 0)
		return r;
	pm__greeting__init(&hello);
	hello.version = 1;
	hello.op = d->req->op;
	r = write_head(d, e);
	return r < 0 ? r : stream_send_msg(&d->s, REC_GREETING, 0, &hello.base, e);
}

/* The image is there: that an old one cannot be removed is no failure. */
static void prune(struct dump *d)
{
	const char *path = d->req->image->path;
	struct err e = { 0 }, back;
	char dir[PATH_MAX];

	snprintf(dir, sizeof(dir), "%.*s", (int)(strrchr(path, '/') - path), path);
	if (image_be_user(&d->owner, &e) >= 0)
		store_prune(dir, d->req->spec->name, d->req->image->keep, NULL, &e);
	if (image_be_user(NULL, &back) < 0 || e.code < 0)
		log_warn("%s: old images: %s", d->req->spec->name, e.msg);
}

int stage_save(struct dump *d, struct err *e)
{
	uint64_t digest, t = now_ns();
	const struct page_digest *own;
	struct image_logs logs;
	size_t n;
	int r;

	d->exit_code = 7;
	image_logs_open(&logs, d->req->dir);
	if (!d->req->image->term)
		dump_undo(d);
	r = image_logs_save(&d->out, &d->s.sent, &logs, e);
	image_logs_close(&logs);
	log_mark("logs", &t);
	own = dedup_own(d->dedup, &n);
	if (r >= 0)
		r = image_hashes(&d->out, &d->s.sent, own, n, e);
	if (r >= 0)
		r = image_seal(&d->out, &d->s.sent, &digest, e);
	log_mark("index", &t);
	if (r >= 0)
		r = image_publish(&d->out, e);
	log_mark("to the disk", &t);
	if (r >= 0 && d->req->image->store && d->req->image->keep)
		prune(d);
	return r;
}

void image_end(struct dump *d)
{
	image_done(&d->out);
	chain_close(&d->base);
	dedup_free(d->dedup);
	d->dedup = NULL;
}
