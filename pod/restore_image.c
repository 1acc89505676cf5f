/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * A restart: the right half of a move, with an image in the place of the source.
 *
 * The stream is read from the file as it would be from the wire, and nothing answers it. What differs: the clocks are those
 * of the cut, which the index finds before anything is made; the world has gone on since. Files that the pod has open for
 * writing and that have grown behind its back are cut back, if it only ever appended; if anything else was changed in them
 * the restart is refused. TCP connections to peers outside the pod are closed with a reset.
 *
 * The image is its user's, and hostile: it is opened with that user's rights, and what the pod may do comes from the
 * coordinator's PodSpec, never from it.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
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

int image_source(struct restore *r, struct err *e)
{
	LINK_ENVELOPE(env, engine_listening, ENGINE_LISTENING, Pm__EngineListening, pm__engine_listening__init);
	const Pm__PodSpec *spec = r->req->spec;
	const struct image *im;
	const struct image_user u = { spec->uid, spec->gid, spec->groups, spec->n_groups };
	int q = chain_open(&r->im, r->req->image->path, &u, e);

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

int image_cut_back(struct restore *r, struct err *e)
{
	size_t i;

	for (i = 0; i < r->nobjects; i++) {
		struct robject *o = &r->objects[i];
		const Pm__BodyFile *m = writable_file(o);

		if (!m || !o->cut_back)
			continue;
		if (ftruncate(o->fd, (off_t)m->size) < 0)
			return err_sys(e, "cut '%s' back to %lu bytes", m->path, (unsigned long)m->size);
		restore_note(r, "'%s' was cut back to %lu bytes: what was appended after the image was made is gone", m->path,
			     (unsigned long)m->size);
	}
	return 0;
}
