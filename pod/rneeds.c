/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Has this node what the pod needs? Asked, and answered by name, while the pod still runs elsewhere. */
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysinfo.h>

#include "pod/base/util.h"
#include "pod/dump.h"
#include "pod/restore.h"

#define MAX_LINES 64

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

struct need_arg {
	const Pm__FileNeed *f;
	struct stat st;
};

static int do_stat(void *arg, struct err *e)
{
	struct need_arg *a = arg;

	return stat(a->f->path, &a->st) < 0 ? err_sys(e, "stat '%s'", a->f->path) : 0;
}

static void check_file(struct restore *r, const Pm__FileNeed *f, Pm__Missing *m)
{
	struct need_arg a = { .f = f };
	struct err e = { 0 };
	const char *node = r->req->spec ? "the target" : "";
	char who[96];
	int64_t mtime;

	if (f->pid)
		snprintf(who, sizeof(who), "pid %u: %s is", f->pid, f->user);
	else
		snprintf(who, sizeof(who), "a %s of", f->user);
	if (restore_in_pod(r, true, do_stat, &a, &e) < 0) {
		add_line(m, "%s '%s': %s has no such file for this user (%s)", who, f->path, node, strerror(-e.code));
		return;
	}
	if ((a.st.st_mode & S_IFMT) != (f->mode & S_IFMT)) {
		add_line(m, "%s '%s', which is something else on %s", who, f->path, node);
		return;
	}
	if (f->writable)
		return; /* it may differ by what the program is about to write; a shared file system sees to it */
	mtime = a.st.st_mtim.tv_sec * 1000000000ll + a.st.st_mtim.tv_nsec;
	if ((uint64_t)a.st.st_size != f->size)
		add_line(m, "%s '%s', which has another size on %s (%lu bytes, not %lu)", who, f->path, node,
			 (unsigned long)a.st.st_size, (unsigned long)f->size);
	else if (mtime != f->mtime_ns)
		add_line(m, "%s '%s', which was changed at another time on %s", who, f->path, node);
}

static void *facts_alloc(void *arg, size_t len)
{
	(void)arg;
	return calloc(1, len);
}

int rneeds_check(struct restore *r, const Pm__Needs *needs, Pm__Missing *out, struct err *e)
{
	Pm__HostFacts mine;
	struct sysinfo si;
	char why[256];
	size_t i;
	int q = host_facts(&mine, facts_alloc, NULL, e);

	if (q < 0)
		return q;
	out->lines = calloc(MAX_LINES, sizeof(char *));
	if (!out->lines || !needs->host)
		return err_set(e, EBADMSG, "no description of the source host");
	if (host_compare(needs->host, &mine, why, sizeof(why)))
		add_line(out, "%s", why);
	for (i = 0; i < needs->n_files; i++)
		check_file(r, needs->files[i], out);
	if (sysinfo(&si) == 0 && needs->mem_bytes + needs->shm_bytes > (si.freeram + si.bufferram) * (uint64_t)si.mem_unit)
		add_line(out, "not enough memory on the target: %lu MiB are needed, %lu MiB free",
			 (unsigned long)((needs->mem_bytes + needs->shm_bytes) >> 20),
			 (unsigned long)(si.freeram * (uint64_t)si.mem_unit >> 20));
	free(mine.kernel);
	free(mine.cpu);
	free(mine.cpuid.data);
	return 0;
}
