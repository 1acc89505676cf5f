/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * What a pod has printed travels in its image. podinit's rings are in its memory and hold the last half MiB of a stream; what
 * is older only the node's agent has, in files whose offsets are the streams'. The end is that of the freeze: what is printed
 * afterwards is not part of a pod that goes on from there.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "pod/base/io.h"
#include "pod/base/util.h"
#include "pod/image_log.h"
#include "pod/ns.h"

#define PIECE (256u << 10)

static const char *const name[] = { POD_LOG_OUT, POD_LOG_ERR };

void image_logs_open(struct image_logs *l, const char *dir)
{
	char path[PATH_MAX];
	struct stat st;
	int i;

	for (i = 0; i < 2; i++) {
		snprintf(path, sizeof(path), "%s/%s", dir, name[i]);
		l->fd[i] = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
		l->end[i] = l->fd[i] >= 0 && fstat(l->fd[i], &st) == 0 ? (uint64_t)st.st_size : 0;
	}
}

void image_logs_close(struct image_logs *l)
{
	close_fdp(&l->fd[0]);
	close_fdp(&l->fd[1]);
}

static int save_one(struct stream *s, const struct image_logs *l, int i, uint8_t *buf, struct err *e)
{
	uint64_t at = l->end[i] > IMAGE_LOG_TAIL ? l->end[i] - IMAGE_LOG_TAIL : 0;
	Pm__LogPiece m;
	int r = 0;

	pm__log_piece__init(&m);
	while (r >= 0 && at < l->end[i]) {
		off_t data = lseek(l->fd[i], (off_t)at, SEEK_DATA);
		ssize_t n;

		if (data < 0 || (uint64_t)data >= l->end[i])
			return 0; /* nothing but a hole */
		at = (uint64_t)data;
		n = pread(l->fd[i], buf, MIN((uint64_t)PIECE, l->end[i] - at), data);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return err_sys(e, "read the pod's log");
		if (n == 0)
			return 0;
		m.stream = (uint32_t)i + 1;
		m.offset = at;
		m.data.data = buf;
		m.data.len = (size_t)n;
		r = stream_send_msg(s, REC_LOG, 0, &m.base, e);
		at += (uint64_t)n;
	}
	return r;
}

int image_logs_save(struct image_file *f, uint64_t *size, const struct image_logs *l, struct err *e)
{
	struct stream s = { .fd = f->fd, .deadline = IO_FOREVER, .sent = *size };
	autofree uint8_t *buf = malloc(PIECE);
	int i, r = 0;

	if (!buf)
		return err_num(e, ENOMEM, "the pod's log");
	if (lseek(f->fd, (off_t)*size, SEEK_SET) < 0)
		return err_sys(e, "seek");
	for (i = 0; r >= 0 && i < 2; i++)
		r = save_one(&s, l, i, buf, e);
	*size = s.sent;
	return r;
}

/* Of a hostile image: no more than was ever saved, in order, nowhere else. */
static int load_piece(const struct record *rec, const int fd[2], uint64_t had[2], uint64_t end[2], struct err *e)
{
	Pm__LogPiece *m = (Pm__LogPiece *)record_unpack(rec, &pm__log_piece__descriptor, e);
	uint32_t i = m ? m->stream - 1 : 0;
	int r = 0;

	if (!m)
		return -EBADMSG;
	if (i > 1 || m->data.len > PIECE || m->offset < end[i] || m->offset > INT64_MAX - PIECE ||
	    had[i] + m->data.len > IMAGE_LOG_TAIL) {
		r = err_set(e, EBADMSG, "the image's log is damaged");
	} else {
		end[i] = m->offset + m->data.len;
		had[i] += m->data.len;
		r = lseek(fd[i], (off_t)m->offset, SEEK_SET) < 0 ? err_sys(e, "seek") : 0;
		if (r >= 0)
			r = io_write_full(fd[i], m->data.data, m->data.len, IO_FOREVER, e);
	}
	pm__log_piece__free_unpacked(m, NULL);
	return r;
}

int image_logs_load(const struct image *im, const char *dir, struct err *e)
{
	uint64_t had[2] = { 0 }, end[2] = { 0 };
	int fd[2] = { -1, -1 }, i, r = 0;
	char path[PATH_MAX];
	size_t k;

	for (i = 0; r >= 0 && i < 2; i++) {
		snprintf(path, sizeof(path), "%s/%s", dir, name[i]);
		fd[i] = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
		if (fd[i] < 0)
			r = err_sys(e, "open '%s'", path);
	}
	for (k = 0; r >= 0 && k < im->n; k++) {
		struct record rec;

		if (im->entry[k].type != REC_LOG)
			continue;
		r = image_record_at(im, k, &rec, e);
		if (r < 0)
			break;
		r = load_piece(&rec, fd, had, end, e);
		record_done(&rec);
	}
	close_fdp(&fd[0]);
	close_fdp(&fd[1]);
	return r;
}
