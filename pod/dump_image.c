/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * A checkpoint: the stages of a move with an image in the place of the target.
 *
 * The image is written while the pod runs, the difference inside the freeze. Then, if the pod is to run on, it does so at
 * once: what remains (index, fsync, name) needs it no more. If it is to end, it stays frozen until the image has its name;
 * READY then asks the coordinator for the commit, after which the agent ends it. A failure at any point before leaves the
 * pod running and no image.
 */
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
#include "pod/mem/mem.h"

#define NUMBERS_TRIED 1000

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

/* @newest: when the pod's last image was made. */
static int write_head(struct dump *d, uint64_t newest, struct err *e)
{
	const Pm__PodSpec *spec = d->req->spec;
	Pm__ImageHead h;
	const Pm__Cut *cut = d->req->image->cut;
	char build[] = LINK_BUILD, parent[256];
	struct timespec now;

	pm__image_head__init(&h);
	clock_gettime(CLOCK_REALTIME, &now);
	h.version = IMAGE_VERSION;
	h.compat = d->pack.mode == PACK_NONE ? 1 : IMAGE_VERSION;
	h.id = d->req->image->id;
	h.node = d->req->node;
	h.created_ns = (uint64_t)now.tv_sec * NSEC_PER_SEC + (uint64_t)now.tv_nsec;
	if (h.created_ns <= newest) /* another node's clock */
		h.created_ns = newest + 1;
	h.epoch = d->req->epoch;
	h.build = build;
	h.ended = d->req->image->term;
	if (d->base.n) {
		snprintf(parent, sizeof(parent), "%s" IMAGE_SUFFIX, chain_top(&d->base)->head->id);
		h.parent = parent;
		h.parent_digest = chain_top(&d->base)->digest;
	}
	if (cut) {
		h.cut = cut->id;
		h.cut_name = cut->name;
		h.cut_pods = cut->pods;
		h.n_cut_pods = cut->n_pods;
	}
	h.spec.len = pm__pod_spec__get_packed_size(spec);
	h.spec.data = dump_alloc(d, h.spec.len);
	pm__pod_spec__pack(spec, h.spec.data);
	return stream_send_msg(&d->s, REC_HEAD, 0, &h.base, e);
}

const struct page_known *dump_known(struct dump *d)
{
	return &d->known;
}

static int look_up(void *arg, const void *page, uint64_t *number)
{
	return dedup_page(arg, page, number);
}

#define CHECK_PAGES 64u	 /* at once: 256 KiB */
#define POLL_PAGES 4096u /* between two looks for an abort */
#define CHECK_MS 30000	 /* for what of the stage goes to the stream */

/* The pod's life will hang on them: all pages, each compared with its digest. */
static int check_base(struct dump *d, struct err *e)
{
	uint64_t n = chain_count(&d->base), at, told = now_ns();
	char *buf = malloc((size_t)CHECK_PAGES * PAGE);
	int r = buf ? 0 : err_num(e, ENOMEM, "images");

	for (at = 0; r >= 0 && at < n; at += CHECK_PAGES) {
		if (at % POLL_PAGES == 0)
			r = dump_poll_abort(d, e);
		if (r >= 0)
			r = chain_read(&d->base, at, MIN(n - at, (uint64_t)CHECK_PAGES), buf, e);
		if (now_ns() - told > NSEC_PER_SEC) { /* who waits must not think that we are dead */
			dump_progress(d, 0, 0, 0, 0, 0);
			told = now_ns();
		}
	}
	free(buf);
	d->s.deadline = deadline_ms(CHECK_MS); /* that was not the stream's time */
	return r;
}

static void store_dir(struct dump *d, char *out, size_t len)
{
	const char *path = d->req->image->path;

	snprintf(out, len, "%.*s", (int)(strrchr(path, '/') - path), path);
}

/* The newest image of this pod in the store, if there is one, it is sound and stays. */
static int open_base(struct dump *d, uint64_t *newest, bool *stuck, struct err *e)
{
	const Pm__PodSpec *spec = d->req->spec;
	char dir[PATH_MAX], file[PATH_MAX];
	struct err back;
	int r;

	store_dir(d, dir, sizeof(dir));
	r = image_be_user(&d->owner, e);
	if (r >= 0)
		r = store_newest(dir, spec->name, spec->created_ns, file, sizeof(file), newest, e);
	if (image_be_user(NULL, &back) < 0) {
		*stuck = true;
		return err_set(e, EPERM, "%s", back.msg);
	}
	if (r <= 0 || d->req->image->full)
		return r;
	r = chain_open(&d->base, file, &d->owner, e);
	if (r < 0)
		return r;
	if (d->base.n == CHAIN_MAX) {
		chain_close(&d->base);
		return 0;
	}
	r = chain_hold(&d->base, e);
	if (r >= 0 && d->req->image->term)
		r = check_base(d, e);
	if (r < 0)
		chain_close(&d->base);
	return r;
}

/* If it cannot build on another, this one stands alone. */
static int choose_base(struct dump *d, uint64_t *newest, struct err *e)
{
	struct err why = { 0 };
	bool stuck = false; /* with the user's rights: nothing can go on */

	d->dedup = dedup_new();
	if (!d->dedup)
		return err_num(e, ENOMEM, "the pages of an image");
	d->known.look = look_up;
	d->known.arg = d->dedup;
	if (d->req->image->store && !d->req->image->stream && open_base(d, newest, &stuck, &why) < 0) {
		if (why.code == -ECANCELED || stuck) {
			*e = why;
			return why.code;
		}
		log_warn("%s: %s: the new image stands alone", d->req->spec->name, why.msg);
	}
	if (d->base.n && chain_known(&d->base, d->dedup, e) < 0)
		return e->code;
	dedup_begin(d->dedup);
	return 0;
}

/* Numbers come again when a coordinator has lost its journal: then the next free one is taken. */
static int next_id(struct dump *d, struct err *e)
{
	Pm__CheckpointReq *req = d->req->image;
	char *dot = strrchr(req->id, '.'), *slash = strrchr(req->path, '/'), *id, *path;
	unsigned long n = dot ? strtoul(dot + 1, NULL, 10) : 0;

	if (!dot || !n || n == ULONG_MAX)
		return err_set(e, EINVAL, "'%s' is no name of an image", req->id);
	if (asprintf(&id, "%.*s.%lu", (int)(dot - req->id), req->id, n + 1) < 0)
		return err_num(e, ENOMEM, "image");
	if (asprintf(&path, "%.*s/%s" IMAGE_SUFFIX, (int)(slash - req->path), req->path, id) < 0) {
		free(id);
		return err_num(e, ENOMEM, "image");
	}
	free(req->id);
	free(req->path);
	req->id = id;
	req->path = path;
	return 0;
}

/* Was its name made from its number, in the store or in a directory that the user has named? */
static bool is_numbered(const Pm__CheckpointReq *req)
{
	return (req->store && !req->stream) || (req->id[0] && image_own_name(req->id, strrchr(req->path, '/') + 1));
}

static int create(struct dump *d, struct err *e)
{
	const Pm__CheckpointReq *req = d->req->image;
	bool numbered = strchr(req->path, '/') && is_numbered(req);
	int r = image_create(&d->out, req->path, &d->owner, !numbered, e);

	for (int i = 0; numbered && r == -EEXIST && i < NUMBERS_TRIED; i++) {
		*e = (struct err){ 0 };
		r = next_id(d, e);
		if (r >= 0)
			r = image_create(&d->out, req->path, &d->owner, false, e);
	}
	return r;
}

/* What the check of a move asks the target is left to the day of the restart. */
int image_begin(struct dump *d, struct err *e)
{
	const Pm__CheckpointReq *req = d->req->image;
	const Pm__PodSpec *spec = d->req->spec;
	uint64_t newest = 0;
	Pm__Greeting hello;
	int r;

	d->exit_code = 7;
	d->owner = (struct image_user){ spec->uid, spec->gid, spec->groups, spec->n_groups };
	r = req->store ? make_store(d, e) : 0;
	if (r >= 0)
		r = create(d, e);
	if (r < 0)
		return r;
	d->out.pin = req->pin && req->store && !req->stream;
	d->s.fd = d->out.fd;
	d->s.file = true;
	r = choose_base(d, &newest, e);
	if (r < 0)
		return r;
	pm__greeting__init(&hello);
	hello.version = 1;
	hello.op = d->req->op;
	r = write_head(d, newest, e);
	return r < 0 ? r : stream_send_msg(&d->s, REC_GREETING, 0, &hello.base, e);
}

static void log_bad(void *arg, const char *pod, const struct err *e)
{
	(void)arg;
	log_warn("%s: %s: no image is removed, it may need them", pod, e->msg);
}

/* The image is there: that an old one cannot be removed is no failure. */
void image_prune(struct dump *d)
{
	const struct store_talk talk = { .bad = log_bad };
	const Pm__PodSpec *spec = d->req->spec;
	struct store_scope what = { spec->name, &spec->created_ns, d->out.name };
	struct err e = { 0 }, back;
	char dir[PATH_MAX];

	if (!d->req->image->store || d->req->image->stream || !d->req->image->keep || !d->out.published)
		return;
	store_dir(d, dir, sizeof(dir));
	if (image_be_user(&d->owner, &e) >= 0)
		store_prune(dir, &what, d->req->image->keep, &talk, &e);
	if (image_be_user(NULL, &back) < 0)
		e = back;
	if (e.code < 0)
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
		r = dump_poll_abort(d, e);
	d->disowned = d->req->image->cut && !d->req->image->term; /* until all have theirs */
	if (r >= 0)
		r = image_publish(&d->out, e);
	log_mark("to the disk", &t);
	if (r >= 0 && !d->req->image->term && !d->req->image->cut)
		image_prune(d);
	return r;
}

/* With --term only now it is known whether the pod has ended: an image of one that runs on after all says what is not so. */
void image_end(struct dump *d)
{
	if ((d->req->image->term && d->undone) || (d->disowned && !d->unsure))
		image_retract(&d->out);
	else if (d->req->image->term)
		image_prune(d);
	image_done(&d->out);
	chain_close(&d->base);
	dedup_free(d->dedup);
	d->dedup = NULL;
}
