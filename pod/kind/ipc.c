/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "pod/kind/ipc.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "pod/base/io.h"
#include "pod/base/util.h"

#define LIST_MAX (16u << 20)

/* Raw calls: those of the library change the whole process. */
int ipc_become(uint32_t uid, uint32_t gid)
{
	if (syscall(SYS_setresgid, -1, gid, -1) < 0 || syscall(SYS_setresuid, -1, uid, -1) < 0)
		return -errno;
	return 0;
}

int ipc_each(const char *file, int (*fn)(void *arg, int id, const char *line, struct err *e), void *arg, struct err *e)
{
	autofree char *text = NULL;
	char path[48], *line;
	int id, at, r;

	snprintf(path, sizeof(path), "/proc/sysvipc/%s", file);
	r = io_read_file(path, LIST_MAX, &text, NULL, e);
	if (r == -ENOENT)
		return 0; /* a kernel without it */
	line = r < 0 ? NULL : strchr(text, '\n'); /* after the headings */
	for (; r >= 0 && line && line[1]; line = strchr(line + 1, '\n')) {
		if (sscanf(line + 1, "%*d %d%n", &id, &at) != 1)
			return err_set(e, EPROTO, "'%s' is of an unknown form", path);
		r = fn(arg, id, line + 1 + at, e);
		if (r == -EINVAL || r == -EIDRM)
			r = 0;
	}
	return r < 0 ? r : 0;
}

Pm__IpcPerm *ipc_perm_out(struct dump *d, int id, const struct ipc_perm *p)
{
	Pm__IpcPerm *m = dump_alloc(d, sizeof(*m));

	pm__ipc_perm__init(m);
	m->id = (uint32_t)id;
	m->key = p->__key;
	m->mode = p->mode & 0777;
	m->uid = p->uid;
	m->gid = p->gid;
	m->cuid = p->cuid;
	m->cgid = p->cgid;
	return m;
}

struct ipc_perm ipc_perm_in(const Pm__IpcPerm *m)
{
	return (struct ipc_perm){ .uid = m->uid, .gid = m->gid, .mode = (unsigned short)(m->mode & 0777) };
}

int ipc_check(struct restore *r, const char *what, const Pm__IpcPerm *p, struct err *e)
{
	if (!p || p->id > INT32_MAX)
		return err_set(e, EBADMSG, "a %s without an id", what);
	return restore_check_owner(r, p->cuid, p->cgid, what, e);
}

int ipc_create(const char *file, const char *what, const Pm__IpcPerm *p, int (*get)(const void *arg, key_t key, int flags),
	       const void *arg, struct err *e)
{
	char path[64], text[16];
	int id, q, err;

	snprintf(path, sizeof(path), "/proc/sys/kernel/%s_next_id", file);
	snprintf(text, sizeof(text), "%u", p->id);
	q = io_write_file(path, text, e);
	if (q < 0)
		return q;
	/* who made it is who it is when it is made */
	q = ipc_become(p->cuid, p->cgid);
	id = q < 0 ? -1 : get(arg, p->key, IPC_CREAT | IPC_EXCL | (int)(p->mode & 0777));
	err = errno;
	if (ipc_become(0, 0) < 0 || q < 0)
		return err_num(e, q < 0 ? q : -EPERM, "make a %s as user %u", what, p->cuid);
	if (id < 0)
		return err_num(e, err, "make the %s %u (key 0x%x)", what, p->id, (unsigned)p->key);
	if (id != (int)p->id)
		return err_set(e, EEXIST, "the %s %u would be %d here", what, p->id, id);
	return id;
}

int ipc_limit_raise(struct ipc_limit *l, const char *path, uint64_t need, struct err *e)
{
	autofree char *text = NULL;
	char want[24];
	int r = io_read_file(path, 64, &text, NULL, e);

	l->path = NULL;
	if (r < 0)
		return r;
	l->old = strtoull(text, NULL, 10);
	if (l->old >= need)
		return 0;
	snprintf(want, sizeof(want), "%llu", (unsigned long long)need);
	l->path = path;
	return io_write_file(path, want, e);
}

void ipc_limit_back(struct ipc_limit *l)
{
	char text[24];

	if (!l->path)
		return;
	snprintf(text, sizeof(text), "%llu", (unsigned long long)l->old);
	io_write_file(l->path, text, NULL);
	l->path = NULL;
}
