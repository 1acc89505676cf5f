/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Has this node what the pod needs? Asked, and answered by name, while the pod still runs elsewhere.
 * The pod's namespaces stand already, so that files are looked for where the pod will see them and with
 * its user's rights, and its empty tmpfs can be asked what they will hold.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/statvfs.h>

#include "pod/base/fault.h"
#include "pod/base/io.h"
#include "pod/base/kernel.h"
#include "pod/base/util.h"
#include "pod/dump.h"
#include "pod/restore.h"

#define MAX_LINES MAX_REFUSED
#define MIB(bytes) ((unsigned long)((bytes) >> 20))

static void add_line(Pm__Missing *m, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

static void add_line(Pm__Missing *m, const char *fmt, ...)
{
	va_list ap;
	char *line = NULL;

	if (m->n_lines == MAX_LINES)
		return;
	va_start(ap, fmt);
	if (vasprintf(&line, fmt, ap) >= 0)
		m->lines[m->n_lines++] = line;
	va_end(ap);
}

/* ---- files */

struct file_arg {
	const Pm__FileNeed *f;
	struct stat st;
	uint8_t id[BUILD_ID_MAX];
	size_t id_len;
};

static int look_at_file(void *arg, struct err *e)
{
	struct file_arg *a = arg;
	autoclose int fd = -1;

	if (stat(a->f->path, &a->st) < 0)
		return err_sys(e, "stat '%s'", a->f->path);
	if (!a->f->build_id.len || !S_ISREG(a->st.st_mode))
		return 0;
	fd = open(a->f->path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
	if (fd >= 0)
		a->id_len = elf_build_id(fd, a->id);
	return 0;
}

static bool same_program(const struct file_arg *a)
{
	return a->id_len && a->id_len == a->f->build_id.len && !memcmp(a->id, a->f->build_id.data, a->id_len);
}

static void check_file(struct restore *r, const Pm__FileNeed *f, Pm__Missing *m, bool *absent)
{
	struct file_arg a = { .f = f };
	struct err e = { 0 };
	char who[120];
	int64_t mtime;

	snprintf(who, sizeof(who), "pid %u (%.16s): %.32s", f->pid, f->comm, f->user);
	if (restore_in_pod(r, true, look_at_file, &a, &e) < 0) {
		add_line(m, "%s is '%s', which the target does not have for this user (%s)", who, f->path,
			 strerror(-e.code));
		*absent = true;
		return;
	}
	if ((a.st.st_mode & S_IFMT) != (f->mode & S_IFMT)) {
		add_line(m, "%s is '%s', which is something else on the target", who, f->path);
		*absent = true; /* what it should be */
		return;
	}
	if (f->writable)
		return; /* it may differ by what the program is about to write; a shared file system sees to it */
	mtime = a.st.st_mtim.tv_sec * 1000000000ll + a.st.st_mtim.tv_nsec;
	if (((uint64_t)a.st.st_size == f->size && mtime == f->mtime_ns) || same_program(&a))
		return;
	if (f->build_id.len && a.id_len)
		add_line(m, "%s is '%s', which is another program on the target (its build-id differs)", who, f->path);
	else if ((uint64_t)a.st.st_size != f->size)
		add_line(m, "%s is '%s', which has another size on the target (%lu bytes, not %lu)", who, f->path,
			 (unsigned long)a.st.st_size, (unsigned long)f->size);
	else
		add_line(m, "%s is '%s', which was changed at another time on the target", who, f->path);
}

/* ---- memory */

struct room_arg {
	const char *path;
	uint64_t room;
};

static int look_at_room(void *arg, struct err *e)
{
	struct room_arg *a = arg;
	struct statvfs v;

	if (statvfs(a->path, &v) < 0)
		return err_sys(e, "statvfs '%s'", a->path);
	a->room = v.f_bavail * v.f_frsize;
	return 0;
}

/* A path of the pod's own tmpfs, and no other. */
static bool is_top(const char *path)
{
	return !strcmp(path, "/tmp") || !strcmp(path, "/run") || !strcmp(path, "/dev/shm");
}

static int check_mounts(struct restore *r, const Pm__Needs *needs, bool full, Pm__Missing *m, struct err *e)
{
	size_t i;

	for (i = 0; i < needs->n_mounts; i++) {
		struct room_arg a = { .path = needs->mounts[i]->path };

		if (!is_top(a.path))
			return err_set(e, EBADMSG, "'%s' is no file system of a pod's own", a.path);
		if (restore_in_pod(r, false, look_at_room, &a, e) < 0)
			return e->code;
		if (full)
			a.room = 0;
		if (needs->mounts[i]->bytes > a.room)
			add_line(m, "the pod's %s holds %lu MiB, on the target there is room for %lu MiB: remove files there",
				 a.path, MIB(needs->mounts[i]->bytes + (1 << 20) - 1), MIB(a.room));
	}
	return 0;
}

static int available(uint64_t *out, struct err *e)
{
	autofree char *text = NULL;
	const char *s;
	int q = io_read_file("/proc/meminfo", 65536, &text, NULL, e);

	if (q < 0)
		return q;
	s = strstr(text, "MemAvailable:");
	if (!s)
		return err_set(e, ENOENT, "this kernel does not say how much memory is available");
	*out = strtoull(s + strlen("MemAvailable:"), NULL, 10) * 1024;
	return 0;
}

static int check_memory(const Pm__Needs *needs, bool full, Pm__Missing *m, struct err *e)
{
	uint64_t room = 0, want = needs->mem_bytes + needs->shm_bytes;
	int q = available(&room, e);

	if (q < 0)
		return q;
	if (full)
		room = 0;
	if (want < needs->mem_bytes || want > room)
		add_line(m, "the pod uses %lu MiB of memory, on the target %lu MiB are available",
			 MIB(want + (1 << 20) - 1), MIB(room));
	return 0;
}

/* ---- the host */

static void *facts_alloc(void *arg, size_t len)
{
	(void)arg;
	return calloc(1, len);
}

static void free_facts(Pm__HostFacts *f)
{
	free(f->kernel);
	free(f->cpu);
	free(f->cpuid.data);
}

static int check_host(const Pm__HostFacts *source, const char *other, Pm__Missing *m, struct err *e)
{
	char why[HOST_LINES][200];
	Pm__HostFacts mine;
	size_t n, i;
	int q = host_facts(&mine, facts_alloc, NULL, e);

	if (q < 0)
		return q;
	if (!strcmp(other, "cpuid"))
		memset(mine.cpuid.data, 0, mine.cpuid.len);
	else if (!strcmp(other, "xstate"))
		mine.xstate_len += 64;
	else if (!strcmp(other, "vdso"))
		mine.vdso_hash ^= 1;
	n = host_compare(source, &mine, why);
	for (i = 0; i < n; i++)
		add_line(m, "%s", why[i]);
	free_facts(&mine);
	return 0;
}

/* What a kind of this pod's asks of the kernel. */
static void check_kinds(const Pm__Needs *needs, Pm__Missing *m)
{
	size_t i;

	for (i = 0; i < needs->n_kinds; i++)
		if (!strcmp(needs->kinds[i], "posix-timer") && prctl(PR_TIMER_CREATE_RESTORE_IDS, PR_TIMER_CREATE_RESTORE_IDS_GET, 0, 0, 0) < 0)
			add_line(m, "the pod has POSIX timers (timer_create), and the target's kernel cannot give them their numbers: 6.15 or newer can");
}

/* ---- an image's list is older than its cut */

static bool is_open(const Pm__Objects *objs, const Pm__FileNeed *f)
{
	size_t i;

	for (i = 0; i < objs->n_objects; i++)
		if (!strcmp(objs->objects[i]->link, f->path))
			return true;
	return false;
}

static bool works_there(const Pm__Tree *tree, const Pm__FileNeed *f)
{
	size_t i;

	for (i = 0; i < tree->n_procs; i++)
		if (!strcmp(tree->procs[i]->cwd, f->path))
			return true;
	return false;
}

int rneeds_of_cut(const struct image *im, Pm__Needs *needs, struct err *e)
{
	const off_t at = lseek(im->fd, 0, SEEK_CUR); /* the stream is read from there on */
	Pm__Objects *objs = (Pm__Objects *)image_message(im, REC_OBJECTS, &pm__objects__descriptor, e);
	Pm__Tree *tree = objs ? (Pm__Tree *)image_message(im, REC_TREE, &pm__tree__descriptor, e) : NULL;
	size_t i, n = 0;

	for (i = 0; tree && i < needs->n_files; i++) {
		Pm__FileNeed *f = needs->files[i];
		bool used = !strncmp(f->user, "fd ", 3) || !strcmp(f->user, "mapping") ? is_open(objs, f) :
			    !strcmp(f->user, "working directory") ? works_there(tree, f) : true;

		if (used)
			needs->files[n++] = f;
		else
			protobuf_c_message_free_unpacked(&f->base, NULL);
	}
	if (tree)
		needs->n_files = n;
	if (objs)
		pm__objects__free_unpacked(objs, NULL);
	if (!tree)
		return e->code < 0 ? e->code : -EBADMSG;
	pm__tree__free_unpacked(tree, NULL);
	return lseek(im->fd, at, SEEK_SET) < 0 ? err_sys(e, "seek in an image") : 0;
}

static int check_files(struct restore *r, const Pm__Needs *needs, Pm__Missing *m, struct err *e)
{
	size_t i;

	m->files = calloc(MAX_LINES, sizeof(*m->files));
	if (!m->files)
		return err_num(e, ENOMEM, "answer");
	fault_point("engine-target", "files", NULL);
	for (i = 0; i < needs->n_files; i++) {
		Pm__MissingFile *f;
		size_t before = m->n_lines;
		bool absent = false;

		check_file(r, needs->files[i], m, &absent);
		if (m->n_lines == before)
			continue;
		f = malloc(sizeof(*f));
		if (!f)
			return err_num(e, ENOMEM, "answer");
		pm__missing_file__init(f);
		f->line = (uint32_t)before;
		f->file = (uint32_t)i;
		f->absent = absent;
		m->files[m->n_files++] = f;
	}
	return 0;
}

void rneeds_done(Pm__Missing *m)
{
	while (m->n_lines)
		free(m->lines[--m->n_lines]);
	while (m->n_files)
		free(m->files[--m->n_files]);
	free(m->lines);
	free(m->files);
}

int rneeds_check(struct restore *r, const Pm__Needs *needs, Pm__Missing *out, struct err *e)
{
	char other[32] = ""; /* tests only: what this node is to lack */
	int q;

	out->lines = calloc(MAX_LINES, sizeof(char *));
	if (!out->lines || !needs->host)
		return err_set(e, EBADMSG, "no description of the source host");
	fault_word("engine-target", "host", other, sizeof(other));
	q = check_host(needs->host, other, out, e);
	if (q >= 0)
		q = check_files(r, needs, out, e);
	check_kinds(needs, out);
	if (q >= 0)
		q = check_mounts(r, needs, !strcmp(other, "shm"), out, e);
	if (q >= 0)
		q = check_memory(needs, !strcmp(other, "memory"), out, e);
	return q;
}
