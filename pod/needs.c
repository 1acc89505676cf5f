/* SPDX-License-Identifier: GPL-3.0-or-later */
/* What a pod needs of the node it goes to, listed while it runs. The target's answer: rneeds.c. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>

#include "pod/base/io.h"
#include "pod/base/util.h"
#include "pod/dump.h"
#include "pod/kind/kinds.h"

#define STATUS_MAX 65536

static const char *comm_of(struct dump *d, pid_t nspid)
{
	struct proc *p = proc_by_ns(&d->procs, nspid);

	return p ? p->st.comm : "";
}

static Pm__FileNeed *add_need(struct dump *d, Pm__Needs *needs, size_t cap, const char *path,
			      const struct stat *st, bool writable, pid_t nspid, const char *user)
{
	Pm__FileNeed *f;
	size_t i;

	for (i = 0; i < needs->n_files; i++)
		if (!strcmp(needs->files[i]->path, path))
			return needs->files[i];
	if (needs->n_files == cap)
		return NULL;
	f = dump_alloc(d, sizeof(*f));
	pm__file_need__init(f);
	f->path = dump_strdup(d, path);
	f->size = (uint64_t)st->st_size;
	f->mtime_ns = st->st_mtim.tv_sec * 1000000000ll + st->st_mtim.tv_nsec;
	f->mode = st->st_mode;
	f->writable = writable;
	f->pid = (uint32_t)nspid;
	f->comm = dump_strdup(d, comm_of(d, nspid));
	f->user = dump_strdup(d, user);
	needs->files[needs->n_files++] = f;
	return f;
}

/* Programs and libraries are compared by what they are, where they say it. */
static void add_build_id(struct dump *d, Pm__FileNeed *f)
{
	autoclose int fd = openat(d->root, f->path + 1, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
	uint8_t id[BUILD_ID_MAX];

	f->build_id.len = fd < 0 ? 0 : elf_build_id(fd, id);
	f->build_id.data = dump_alloc(d, f->build_id.len);
	memcpy(f->build_id.data, id, f->build_id.len);
}

static void need_mapped(struct dump *d, Pm__Needs *needs, size_t cap)
{
	size_t i;

	for (i = 0; i < d->nmapfiles; i++) {
		const struct mapfile *m = d->mapfiles[i];
		Pm__FileNeed *f;

		if (dump_is_private_tmpfs(d, m->st.st_dev) || m->path[0] != '/')
			continue;
		f = add_need(d, needs, cap, m->path, &m->st, m->rw, m->nspid, "mapping");
		if (f && !m->rw && S_ISREG(m->st.st_mode))
			add_build_id(d, f);
	}
}

static void need_opened(struct dump *d, Pm__Needs *needs, size_t cap)
{
	char user[48];
	size_t i;

	for (i = 0; i < d->nobjects; i++) {
		const struct object *o = d->objects[i];
		bool dir = S_ISDIR(o->p.st.st_mode), fifo = S_ISFIFO(o->p.st.st_mode);
		Pm__FileNeed *f;

		if ((!S_ISREG(o->p.st.st_mode) && !dir && !fifo) || o->p.link[0] != '/' || o->p.st.st_nlink == 0 ||
		    o->kind == &kind_mqueue_fd || dump_is_private_tmpfs(d, o->p.st.st_dev) || !strncmp(o->p.link, "/proc/", 6))
			continue;
		snprintf(user, sizeof(user), "fd %d", o->p.fdno);
		f = add_need(d, needs, cap, o->p.link, &o->p.st,
			     dir || fifo || (o->p.flags & O_ACCMODE) != O_RDONLY, o->p.nspid, user);
		if (f)
			f->build_id.len = 0; /* its bytes are read as such, not run */
	}
}

static void need_watched(struct dump *d, Pm__Needs *needs, size_t cap)
{
	size_t i;

	for (i = 0; i < d->nwatched; i++)
		add_need(d, needs, cap, d->watched[i].path, &d->watched[i].st, true, d->watched[i].nspid, "a watched file");
}

static void need_directories(struct dump *d, Pm__Needs *needs, size_t cap)
{
	char path[48], link[PATH_MAX];
	struct stat st;
	size_t i;

	for (i = 0; i < d->procs.n; i++) {
		const struct proc *p = d->procs.p[i];
		ssize_t n;

		if (p->zombie)
			continue;
		snprintf(path, sizeof(path), "/proc/%d/cwd", p->tid);
		n = readlink(path, link, sizeof(link) - 1);
		if (n <= 0 || stat(path, &st) < 0 || dump_is_private_tmpfs(d, st.st_dev))
			continue;
		link[n] = 0;
		if (strncmp(link, "/proc/", 6) != 0 && strncmp(link, "/dev/", 5) != 0)
			add_need(d, needs, cap, link, &st, true, p->nspid, "working directory");
	}
}

/* Anonymous memory of one process; what it shares with a forked child is there twice on the target. */
static uint64_t anon_bytes(const struct proc *p)
{
	static const char *const keys[] = { "\nRssAnon:", "\nVmSwap:" };
	autofree char *text = NULL;
	uint64_t sum = 0;
	char path[48];
	size_t i;

	snprintf(path, sizeof(path), "/proc/%d/status", p->tid);
	if (io_read_file(path, STATUS_MAX, &text, NULL, NULL) < 0)
		return 0;
	for (i = 0; i < ARRAY_SIZE(keys); i++) {
		const char *s = strstr(text, keys[i]);

		sum += s ? strtoull(s + strlen(keys[i]), NULL, 10) * 1024 : 0;
	}
	return sum;
}

static void need_memory(struct dump *d, Pm__Needs *needs)
{
	static const char *const tops[] = { "tmp", "run", "dev/shm" };
	Pm__MountNeed **list = dump_alloc(d, ARRAY_SIZE(tops) * sizeof(*list));
	size_t i;

	for (i = 0; i < d->procs.n; i++)
		if (!d->procs.p[i]->zombie)
			needs->mem_bytes += anon_bytes(d->procs.p[i]);
	for (i = 0; i < d->ncontents; i++) {
		struct stat st;

		if (fstat(d->contents[i]->fd, &st) == 0 && !dump_is_private_tmpfs(d, st.st_dev))
			needs->shm_bytes += (uint64_t)st.st_blocks * 512;
	}
	needs->mounts = list;
	for (i = 0; i < ARRAY_SIZE(tops); i++) {
		autoclose int fd = openat(d->root, tops[i], O_PATH | O_DIRECTORY | O_CLOEXEC);
		char path[32];
		struct statvfs v;
		struct stat st;
		Pm__MountNeed *m;

		if (fd < 0 || fstat(fd, &st) < 0 || !dump_is_private_tmpfs(d, st.st_dev) || fstatvfs(fd, &v) < 0)
			continue;
		m = dump_alloc(d, sizeof(*m));
		pm__mount_need__init(m);
		snprintf(path, sizeof(path), "/%s", tops[i]);
		m->path = dump_strdup(d, path);
		m->bytes = (v.f_blocks - v.f_bfree) * v.f_frsize;
		needs->shm_bytes += m->bytes;
		list[needs->n_mounts++] = m;
	}
}

static void need_kinds(struct dump *d, Pm__Needs *needs)
{
	static char *const timers = (char *)(uintptr_t)"posix-timer";
	size_t i;

	needs->kinds = dump_alloc(d, sizeof(*needs->kinds));
	for (i = 0; i < d->procs.n && !needs->n_kinds; i++)
		if (!d->procs.p[i]->zombie && kind_posixtimer_check(d->procs.p[i], NULL) > 0)
			needs->kinds[needs->n_kinds++] = timers;
}

int collect_needs(struct dump *d, Pm__Needs *needs, struct err *e)
{
	size_t cap = d->nmapfiles + d->nobjects + d->procs.n + d->nwatched;

	(void)e;
	needs->files = dump_alloc(d, (cap + 1) * sizeof(*needs->files));
	need_mapped(d, needs, cap);
	need_opened(d, needs, cap);
	need_directories(d, needs, cap);
	need_watched(d, needs, cap);
	need_memory(d, needs);
	need_kinds(d, needs);
	needs->procs = (uint32_t)d->procs.n;
	needs->scratch = d->scratch;
	return 0;
}

bool need_is_past(struct dump *d, const Pm__FileNeed *f, bool absent)
{
	struct stat st;

	if (fstatat(d->root, f->path + 1, &st, AT_SYMLINK_NOFOLLOW) < 0)
		return errno == ENOENT;
	return !absent && ((uint64_t)st.st_size != f->size || st.st_mtim.tv_sec * 1000000000ll + st.st_mtim.tv_nsec != f->mtime_ns);
}
