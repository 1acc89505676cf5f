/* SPDX-License-Identifier: GPL-3.0-or-later */
/* System V shared memory on the source: which segments there are, and which mappings are of them. Theory of operation: sysv.c. */
#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/vfs.h>

#include "pod/base/io.h"
#include "pod/base/util.h"
#include "pod/sysv.h"

#define REFUSE(e, ...) err_set(e, EOPNOTSUPP, __VA_ARGS__)
#define SHM_FILE "/proc/sysvipc/shm"

static struct content *by_id(struct dump *d, int id)
{
	return content_by_inode(d, SYSV_DEV, (uint64_t)id);
}

/* By the mapping of a process that has it attached: the program may count who has. */
static int open_attached(struct dump *d, int id)
{
	char path[96];
	size_t i, k;

	for (i = 0; i < d->procs.n; i++)
		for (k = 0; !d->procs.p[i]->zombie && k < d->procs.p[i]->vmas.n; k++) {
			const struct vma *v = &d->procs.p[i]->vmas.v[k];
			struct stat st;
			int fd;

			if (v->type != VMA_SYSV || (int)v->ino != id)
				continue;
			snprintf(path, sizeof(path), "/proc/%d/map_files/%lx-%lx", d->procs.p[i]->tid, (unsigned long)v->start,
				 (unsigned long)v->end);
			fd = open(path, O_RDONLY | O_CLOEXEC);
			if (fd >= 0 && fstat(fd, &st) == 0 && (int)st.st_ino == id)
				return fd;
			close_fdp(&fd);
		}
	return -1;
}

static int add_segment(struct dump *d, int id, uint64_t size, int key, struct content **out, struct err *e)
{
	char name[32];
	struct statfs fs;
	autoclose int fd = open_attached(d, id);
	int r;

	if (fd < 0)
		fd = sysv_open_segment(id, size, O_RDONLY, e);

	if (fd < 0)
		return fd;
	if (fstatfs(fd, &fs) < 0)
		return err_sys(e, "statfs the System V segment %d", id);
	if (fs.f_type != TMPFS_MAGIC)
		return REFUSE(e, "the System V segment %d (key 0x%x) is on huge pages: cannot be carried yet", id, (unsigned)key);
	snprintf(name, sizeof(name), "SYSV%08x", (unsigned)key);
	r = content_add_as(d, take_fd(&fd), CONTENT_SYSV, name, SYSV_DEV, (uint64_t)id, out, e);
	return r;
}

static int look_line(struct dump *d, const char *line, struct err *e)
{
	unsigned perms, uid, gid, cuid, cgid, users;
	unsigned long long size;
	struct content *c;
	int key, id, r = 0;

	if (sscanf(line, "%d %d %o %llu %*d %*d %u %u %u %u %u", &key, &id, &perms, &size, &users, &uid, &gid, &cuid,
		   &cgid) != 9)
		return err_set(e, EPROTO, "'%s' is of an unknown form", SHM_FILE);
	if (perms & SHM_LOCKED)
		return REFUSE(e, "the System V segment %d (key 0x%x) is locked in memory: cannot be carried yet", id, (unsigned)key);
	c = by_id(d, id);
	if (!c && users && !d->stopped) {
		autoclose int fd = open_attached(d, id);

		if (fd < 0)
			return 0; /* attached a moment ago: the cut will see */
	}
	if (!c)
		r = add_segment(d, id, size, key, &c, e);
	if (r < 0)
		return r;
	c->mapped = c->seen = true;
	c->key = key;
	c->mode = perms;
	c->uid = uid;
	c->gid = gid;
	c->cuid = cuid;
	c->cgid = cgid;
	return 0;
}

static int look(void *arg, struct err *e)
{
	struct dump *d = arg;
	autofree char *text = NULL;
	const char *line;
	int r = io_read_file(SHM_FILE, 16u << 20, &text, NULL, e);

	if (r == -ENOENT)
		return 0; /* a kernel without it */
	line = r < 0 ? NULL : strchr(text, '\n'); /* after the headings */
	while (r >= 0 && line && line[1]) {
		r = look_line(d, line + 1, e);
		if (r == -EINVAL || r == -EIDRM)
			r = 0; /* removed meanwhile */
		r = collect_note(d, r, e);
		line = strchr(line + 1, '\n');
	}
	return r;
}

int sysv_collect(struct dump *d, struct err *e)
{
	size_t i, n = 0;
	int r;

	for (i = 0; i < d->ncontents; i++)
		d->contents[i]->seen = false;
	r = sysv_visit(d->pid1, look, d, e);
	for (i = 0; r >= 0 && i < d->ncontents; i++) {
		struct content *c = d->contents[i];

		if (c->source == CONTENT_SYSV && !c->seen)
			content_free(c);
		else
			d->contents[n++] = c;
	}
	if (r >= 0)
		d->ncontents = n;
	return r;
}

/* Does mapping @b of @l go on where @a ends, in the same attachment? */
static bool goes_on(const struct vma *a, const struct vma *b)
{
	return a->type == VMA_SYSV && b->type == VMA_SYSV && a->ino == b->ino && a->end == b->start && b->pgoff &&
	       a->pgoff + (a->end - a->start) == b->pgoff;
}

int sysv_check_vma(struct dump *d, const struct vma_list *l, size_t i, struct err *e)
{
	const struct content *c = by_id(d, (int)l->v[i].ino);
	size_t first = i, last = i;

	if (!c && !d->stopped)
		return 0; /* made and removed while we look: the cut will see */
	if (!c)
		return REFUSE(e, "is of a System V segment that is not in the pod's ipc namespace: cannot be carried");
	while (first && goes_on(&l->v[first - 1], &l->v[first]))
		first--;
	while (last + 1 < l->n && goes_on(&l->v[last], &l->v[last + 1]))
		last++;
	if (!l->v[first].pgoff && l->v[last].end - l->v[first].start == ALIGN_UP(c->size, PAGE))
		return 0;
	return REFUSE(e, "is a part of a System V segment: cannot be carried yet");
}
