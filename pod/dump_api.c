/* SPDX-License-Identifier: GPL-3.0-or-later */
/* What kinds may ask of a dump: memory that lives as long as it, and its objects. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sysmacros.h>

#include "pod/base/util.h"
#include "pod/dump.h"

#define BLOCK (256u * 1024)

struct arena_block {
	struct arena_block *next;
	size_t used, size;
	uint8_t data[] __attribute__((aligned(16)));
};

/* A dump without memory for a few more bytes has nothing to go back to: the engine ends, and with it
 * every ptrace stop; the pod runs on. */
void *dump_alloc(struct dump *d, size_t len)
{
	struct arena_block *b = d->arena;
	void *p;

	len = ALIGN_UP(len ? len : 1, (size_t)16);
	if (!b || b->size - b->used < len) {
		size_t size = MAX((size_t)BLOCK, len);

		b = calloc(1, sizeof(*b) + size);
		if (!b)
			abort();
		b->size = size;
		b->next = d->arena;
		d->arena = b;
	}
	p = b->data + b->used;
	b->used += len;
	return p;
}

void dump_arena_done(struct dump *d)
{
	while (d->arena) {
		struct arena_block *next = d->arena->next;

		free(d->arena);
		d->arena = next;
	}
}

char *dump_strdup(struct dump *d, const char *s)
{
	size_t n = strlen(s) + 1;

	return memcpy(dump_alloc(d, n), s, n);
}

struct object *dump_find_inode(struct dump *d, const struct kind *kind, uint64_t dev, uint64_t ino,
			       const struct object *skip)
{
	size_t i;

	for (i = 0; i < d->nobjects; i++) {
		struct object *o = d->objects[i];

		if (o != skip && o->kind == kind && o->p.st.st_ino == ino && o->p.st.st_dev == dev)
			return o;
	}
	return NULL;
}

struct object *dump_find_fd(struct dump *d, pid_t nspid, int fdno)
{
	size_t i;

	for (i = 0; i < d->nfds; i++)
		if (d->fds[i].nspid == nspid && d->fds[i].fdno == fdno)
			return d->fds[i].o;
	return NULL;
}

bool dump_next_holder(struct dump *d, const struct object *o, size_t *i, pid_t *nspid, int *fdno)
{
	for (; *i < d->nfds; (*i)++) {
		const struct fdref *f = &d->fds[*i];

		if (f->o != o)
			continue;
		*nspid = f->nspid;
		*fdno = f->fdno;
		(*i)++;
		return true;
	}
	return false;
}

struct object *dump_next_object(struct dump *d, size_t *i)
{
	return *i < d->nobjects ? d->objects[(*i)++] : NULL;
}

void dump_thing(struct dump *d, const struct kind *kind, const char *link, ProtobufCMessage *body)
{
	struct thing *nt = realloc(d->things, (d->nthings + 1) * sizeof(*nt));
	Pm__Object *m = dump_alloc(d, sizeof(*m));

	if (!nt)
		abort(); /* as dump_alloc() */
	d->things = nt;
	pm__object__init(m);
	m->id = ++d->next_id;
	m->type = kind->type;
	m->version = kind->version;
	m->link = dump_strdup(d, link);
	m->body.len = protobuf_c_message_get_packed_size(body);
	m->body.data = dump_alloc(d, m->body.len);
	protobuf_c_message_pack(body, m->body.data);
	nt[d->nthings++] = (struct thing){ kind, m, body };
}

pid_t dump_nspid(struct dump *d, pid_t pid)
{
	size_t i;

	for (i = 0; i < d->procs.n; i++)
		if (d->procs.p[i]->pid == pid)
			return d->procs.p[i]->nspid;
	return 0;
}

int dump_netns(struct dump *d)
{
	return d->netns;
}

int dump_pod_root(struct dump *d)
{
	return d->root;
}

bool dump_is_private_tmpfs(struct dump *d, uint64_t dev)
{
	unsigned i;

	for (i = 0; i < d->nprivate; i++)
		if (d->private_dev[i] == dev)
			return true;
	return false;
}

/* What cannot be looked at has ended. DONT_SYNC: a server that does not answer must not hold us. */
static bool has_open(int procfs, const char *pid, const struct stat *st)
{
	char path[32];
	struct dirent *de;
	bool found = false;
	DIR *dir;
	int fd;

	snprintf(path, sizeof(path), "%.20s/fd", pid);
	fd = openat(procfs, path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	dir = fd < 0 ? NULL : fdopendir(fd);
	if (!dir) {
		close_fdp(&fd);
		return false;
	}
	while (!found && (de = readdir(dir))) {
		struct statx x;

		found = de->d_name[0] != '.' &&
			statx(dirfd(dir), de->d_name, AT_STATX_DONT_SYNC, STATX_INO, &x) == 0 &&
			x.stx_ino == st->st_ino && makedev(x.stx_dev_major, x.stx_dev_minor) == st->st_dev;
	}
	closedir(dir);
	return found;
}

int dump_held_outside(struct dump *d, const struct stat *st, pid_t *pid, struct err *e)
{
	DIR *dir = opendir("/proc");
	struct dirent *de;
	int found = 0;

	if (!dir)
		return err_sys(e, "read '/proc'");
	while (!found && (de = readdir(dir))) {
		*pid = (pid_t)strtol(de->d_name, NULL, 10);
		if (*pid > 0 && *pid != getpid() && !dump_nspid(d, *pid))
			found = has_open(dirfd(dir), de->d_name, st);
	}
	closedir(dir);
	return found;
}

int dump_add_content(struct dump *d, const struct probe *p, uint32_t *id, struct err *e)
{
	bool memfd = !strncmp(p->link, "/memfd:", 7);
	char name[PATH_MAX];
	struct content *c = content_by_inode(d, p->st.st_dev, p->st.st_ino);
	char self[64];
	autoclose int fd = -1;

	size_t n;

	if (c) {
		*id = c->id;
		return 0;
	}
	n = (size_t)snprintf(name, sizeof(name), "%s", memfd ? p->link + 7 : p->link);
	if (n > 10 && n < sizeof(name) && !strcmp(name + n - 10, " (deleted)"))
		name[n - 10] = 0;
	snprintf(self, sizeof(self), "/proc/self/fd/%d", p->fd);
	fd = open(self, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return err_sys(e, "pid %d: fd %d: open '%s' for reading", p->nspid, p->fdno, p->link);
	return content_add(d, take_fd(&fd), memfd ? CONTENT_MEMFD : CONTENT_UNLINKED, name, id, e);
}
