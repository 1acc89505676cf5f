/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * A restart: the right half of a move, with an image in the place of the source.
 *
 * The stream is read from the file as it would be from the wire, and nothing answers it. What differs: the clocks are those
 * of the cut, which the index finds before anything is made; the world has gone on since. Files that the pod has open for
 * writing and that have grown behind its back are cut back, if it only ever appended (and get all of it again if the restart
 * comes to nothing, unless the engine or the agent dies in that moment); if anything else was changed in them the restart is refused. TCP connections to peers outside the pod are closed with a reset.
 *
 * The image is its user's, and hostile: it is opened with that user's rights, and what the pod may do comes from the
 * coordinator's PodSpec, never from it.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
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
#include "pod/image_log.h"
#include "pod/kind/kinds.h"
#include "pod/restore.h"

#define CTL_MS 5000
#define TAILS_MAX (512ull << 20) /* of what is cut off files: given back within the time that an undo has */

void restore_note(struct restore *r, const char *fmt, ...)
{
	va_list ap;
	char *line = NULL;

	if (r->nnotes == MAX_NOTES)
		return;
	va_start(ap, fmt);
	if (vasprintf(&line, fmt, ap) >= 0)
		r->notes[r->nnotes++] = line;
	va_end(ap);
}

/* The pod's clocks go on from the cut. */
static int read_clock(struct restore *r, struct err *e)
{
	Pm__CutEnd *end = (Pm__CutEnd *)image_message(chain_top(&r->im), REC_CUT_END, &pm__cut_end__descriptor, e);
	struct pod_clock *c = &r->clock;
	struct timespec b;

	if (!end)
		return e->code ? e->code : -EBADMSG;
	clock_gettime(CLOCK_BOOTTIME, &b);
	c->set = true;
	c->at_ns = now_ns();
	c->at_boot_ns = (uint64_t)b.tv_sec * NSEC_PER_SEC + (uint64_t)b.tv_nsec;
	c->mono_ns = end->mono_ns;
	c->boot_ns = end->boot_ns;
	pm__cut_end__free_unpacked(end, NULL);
	return 0;
}

/* A log is no reason not to run: what cannot be written is said. */
static int load_logs(struct restore *r, struct err *e)
{
	int q = r->req->dry_run ? 0 : image_logs_load(chain_top(&r->im), r->req->dir, e);

	if (q == -EBADMSG)
		r->exit_code = 15;
	if (q >= 0 || q == -EBADMSG)
		return q;
	restore_note(r, "what it printed before is not complete: %s", e->msg);
	*e = (struct err){ 0 };
	return 0;
}

/* Whoever asked looked at the file by its name, which may be another's by now: whose pod it is was decided from that. */
static int check_owner(const struct image_chain *c, uid_t uid, struct err *e)
{
	struct stat st;
	size_t i;

	for (i = 0; i < c->n; i++) {
		if (fstat(c->im[i].fd, &st) < 0)
			return err_sys(e, "stat an image");
		if (st.st_uid != uid)
			return err_set(e, EPERM, "image '%s' is a file of uid %u: a pod of uid %u is not made from it",
				       c->im[i].head->id, st.st_uid, uid);
	}
	return 0;
}

int image_source(struct restore *r, struct err *e)
{
	LINK_ENVELOPE(env, engine_listening, ENGINE_LISTENING, Pm__EngineListening, pm__engine_listening__init);
	const Pm__PodSpec *spec = r->req->spec;
	const struct image *im;
	const struct image_user u = { spec->uid, spec->gid, spec->groups, spec->n_groups };
	int q = chain_open(&r->im, r->req->image->path, &u, e);

	if (q >= 0)
		q = check_owner(&r->im, spec->uid, e);
	if (q < 0) {
		r->exit_code = q == -EBADMSG ? 15 : q == -ENOENT ? 3 : q == -EACCES || q == -EPERM ? 5 : 9;
		return q;
	}
	q = read_clock(r, e);
	if (q >= 0)
		q = load_logs(r, e);
	if (q < 0)
		return q;
	im = chain_top(&r->im);
	r->s.fd = im->fd;
	r->s.file = true;
	if (im->n < 2 || lseek(r->s.fd, (off_t)im->entry[1].off, SEEK_SET) < 0)
		return err_set(e, EBADMSG, "an image without a pod");
	env_body.port = 1; /* nobody connects: "ready to be decided on" */
	return link_send(r->ctl, &env, deadline_ms(CTL_MS), e);
}

int image_same(void *arg, uint32_t id, uint64_t addr, uint64_t npages, uint64_t at, struct err *e)
{
	static char buf[PAGE_FRAME_DATA_MAX] __attribute__((aligned(4096)));
	struct restore *r = arg;
	int q = 0;

	while (q >= 0 && npages) {
		size_t n = MIN(npages, sizeof(buf) / PAGE);

		q = chain_read(&r->im, at, n, buf, e);
		if (q >= 0)
			q = rmem_frame(r, id, addr, n * PAGE, RUN_DATA, buf, e);
		addr += n * PAGE;
		at += n;
		npages -= n;
	}
	return q;
}

void image_source_done(struct restore *r)
{
	size_t i;

	r->s.fd = -1; /* it is the image's */
	chain_close(&r->im);
	for (i = 0; i < r->nnotes; i++)
		free(r->notes[i]);
	r->nnotes = 0;
}

/* ---- files that were written after the cut */

static int look_at_file(struct restore *r, struct robject *o, const Pm__BodyFile *m, struct err *e)
{
	bool appends = o->msg->flags & O_APPEND || (uint64_t)o->msg->pos == m->size;
	struct stat st;
	int64_t mtime;

	if (fstat(o->fd, &st) < 0)
		return err_sys(e, "stat '%s'", m->path);
	mtime = st.st_mtim.tv_sec * 1000000000ll + st.st_mtim.tv_nsec;
	if ((uint64_t)st.st_size == m->size && mtime == m->mtime_ns)
		return 0;
	if (r->req->image->force_files) {
		restore_note(r, "'%s' was written after the image was made, and is taken as it is", m->path);
		return 0;
	}
	if ((uint64_t)st.st_size > m->size && appends) {
		o->cut_back = true;
		return 0;
	}
	return err_set(e, ESTALE, "'%s' was written after the image was made", m->path);
}

static const Pm__BodyFile *writable_file(const struct robject *o)
{
	const Pm__BodyFile *m = (const void *)o->body;

	if (o->kind != &kind_file || !S_ISREG(m->mode) || m->deleted || m->tmpfs || o->msg->flags & O_PATH ||
	    (o->msg->flags & O_ACCMODE) == O_RDONLY)
		return NULL;
	return m;
}

int image_check_files(struct restore *r, struct err *e)
{
	size_t i;
	int q = 0;

	for (i = 0; q >= 0 && i < r->nobjects; i++) {
		struct robject *o = &r->objects[i];
		const Pm__BodyFile *m = writable_file(o);

		if (m)
			q = look_at_file(r, o, m, e);
		if (q < 0) {
			r->hint = "--force=files takes such files as they are";
			return err_wrap(e, "pid %u: fd %u", o->msg->owner_pid, o->msg->owner_fd);
		}
	}
	return q;
}

/* What a file had after @size, kept until the pod runs. */
struct tail {
	int fd;			/* the object's, not owned */
	uint64_t at, len;	/* in r->tails_fd */
	struct timespec times[2];
};

/* From @from at @at to @to at @to_at; to an end, if @to only appends. */
static int copy_bytes(int from, uint64_t at, int to, uint64_t to_at, uint64_t len, struct err *e)
{
	static char buf[1 << 18];

	while (len) {
		ssize_t n = pread(from, buf, MIN(len, sizeof(buf)), (off_t)at), done = 0;

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n < 0 ? err_sys(e, "read") : err_set(e, ESTALE, "it became shorter meanwhile");
		while (done < n) {
			ssize_t w = pwrite(to, buf + done, (size_t)(n - done), (off_t)(to_at + (uint64_t)done));

			if (w < 0 && errno != EINTR)
				return err_sys(e, "write");
			done += MAX(w, 0);
		}
		at += (uint64_t)n;
		to_at += (uint64_t)n;
		len -= (uint64_t)n;
	}
	return 0;
}

/* The pod's own fd may be one that only writes. The engine is root, which on a network file system may be nobody. */
static int open_to_read(struct restore *r, int fd, struct err *e)
{
	const Pm__PodSpec *spec = r->req->spec;
	const struct image_user u = { spec->uid, spec->gid, spec->groups, spec->n_groups };
	struct err back;
	char self[48];
	int in;

	snprintf(self, sizeof(self), "/proc/self/fd/%d", fd);
	in = open(self, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	if (in >= 0)
		return in;
	in = image_be_user(&u, e) < 0 ? -EPERM : open(self, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	if (in == -1)
		in = err_sys(e, "open it to read");
	if (image_be_user(NULL, &back) < 0) {
		if (in >= 0)
			close(in);
		return err_set(e, EPERM, "%s", back.msg);
	}
	return in;
}

static int keep_tail(struct restore *r, int fd, uint64_t size, const struct stat *st, struct err *e)
{
	uint64_t len = (uint64_t)st->st_size - size;
	struct tail *t = reallocarray(r->tails, r->ntails + 1, sizeof(*t));
	autoclose int in = -1;
	int q;

	if (!t)
		return err_num(e, ENOMEM, "files");
	r->tails = t;
	if (len > TAILS_MAX - r->tails_len) {
		r->hint = "--force=files takes such files as they are";
		return err_set(e, EFBIG, "more than %u MiB were appended to files after the image was made",
			       (unsigned)(TAILS_MAX >> 20));
	}
	if (r->tails_fd < 0)
		r->tails_fd = open(r->req->dir, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
	if (r->tails_fd < 0)
		return err_sys(e, "a file in '%s'", r->req->dir);
	in = open_to_read(r, fd, e);
	q = in < 0 ? in : copy_bytes(in, size, r->tails_fd, r->tails_len, len, e);
	if (q < 0)
		return q;
	r->tails[r->ntails++] = (struct tail){ fd, r->tails_len, len, { st->st_atim, st->st_mtim } };
	r->tails_len += len;
	return 0;
}

static int cut_one(struct restore *r, const struct robject *o, const Pm__BodyFile *m, struct err *e)
{
	struct stat st;

	if (fstat(o->fd, &st) < 0)
		return err_sys(e, "stat '%s'", m->path);
	if ((uint64_t)st.st_size == m->size) /* it is open twice */
		return 0;
	if ((uint64_t)st.st_size < m->size)
		return err_set(e, ESTALE, "'%s' was written after the image was made", m->path);
	if (keep_tail(r, o->fd, m->size, &st, e) < 0)
		return err_wrap(e, "what was appended to '%s' after the image was made cannot be kept for a failure", m->path);
	if (ftruncate(o->fd, (off_t)m->size) < 0) {
		r->ntails--;
		return err_sys(e, "cut '%s' back to %lu bytes", m->path, (unsigned long)m->size);
	}
	restore_note(r, "'%s' was cut back to %lu bytes: %lu that were appended after the image was made are gone", m->path,
		     (unsigned long)m->size, (unsigned long)((uint64_t)st.st_size - m->size));
	return 0;
}

int image_cut_back(struct restore *r, struct err *e)
{
	size_t i;
	int q = 0;

	for (i = 0; q >= 0 && i < r->nobjects; i++) {
		const Pm__BodyFile *m = writable_file(&r->objects[i]);

		if (m && r->objects[i].cut_back)
			q = cut_one(r, &r->objects[i], m, e);
	}
	return q;
}

/*
 * The last cut first, each to where the file ends now: should somebody else have appended meanwhile, nothing of that is lost.
 * The pod is frozen: nothing of it has run, nor will.
 */
void image_uncut(struct restore *r)
{
	while (r->ntails) {
		const struct tail *t = &r->tails[--r->ntails];
		struct err e = { 0 };
		struct stat st;

		if (fstat(t->fd, &st) < 0 || copy_bytes(r->tails_fd, t->at, t->fd, (uint64_t)st.st_size, t->len, &e) < 0)
			log_error("%s: %lu bytes that were appended to a file are lost: %s", r->req->spec->name,
				  (unsigned long)t->len, e.code ? e.msg : strerror(errno));
		else
			futimens(t->fd, t->times);
	}
	free(r->tails);
	r->tails = NULL;
	close_fdp(&r->tails_fd);
}
