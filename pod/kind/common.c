/* SPDX-License-Identifier: GPL-3.0-or-later */
/* What the FD kinds share. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <linux/filter.h>
#include <linux/openat2.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/syscall.h>

#include "netfreeze/netfreeze.h"
#include "pod/base/io.h"
#include "pod/base/util.h"
#include "pod/kind/kinds.h"

#define INFO_MAX (4u << 20)
#define DELETED " (deleted)"

const char *kind_info_line(const char *info, const char *key)
{
	size_t n = strlen(key);

	while (info && *info) {
		if (!strncmp(info, key, n) && info[n] == ':') {
			info += n + 1;
			return info + strspn(info, " \t");
		}
		info = strchr(info, '\n');
		if (info)
			info++;
	}
	return NULL;
}

bool kind_info_u64(const char *info, const char *key, int base, uint64_t *out)
{
	const char *p = kind_info_line(info, key);
	char *end;
	uint64_t v;

	if (!p)
		return false;
	errno = 0;
	v = strtoull(p, &end, base);
	if (errno || end == p)
		return false;
	*out = v;
	return true;
}

int kind_info_now(int fd, char **out, struct err *e)
{
	char path[48];

	snprintf(path, sizeof(path), "/proc/self/fdinfo/%d", fd);
	return io_read_file(path, INFO_MAX, out, NULL, e);
}

bool kind_is_o_path(const struct probe *p)
{
	return (p->flags & O_PATH) != 0;
}

/*
 * Nobody but the pod can open a file of a private tree, so a lease there cannot be broken while the pod stands still. One for writing
 * would be broken by us, who read the file.
 */
static int check_lease(struct dump *d, const struct probe *p, const char *line, size_t len, struct err *e)
{
	if (memmem(line, len, "DELEG", 5))
		return KIND_REFUSE(e, "'%s' holds a delegation: cannot be carried yet", p->link);
	if (!memmem(line, len, "LEASE", 5))
		return 0;
	if (!memmem(line, len, " READ ", 6) || !memmem(line, len, " ACTIVE ", 8))
		return KIND_REFUSE(e, "'%s' holds a lease for writing, or one that is being broken: cannot be carried", p->link);
	if (!dump_is_private_tmpfs(d, p->st.st_dev) || !p->st.st_nlink)
		return KIND_REFUSE(e, "'%s' holds a lease, and is not in a private tree (/tmp, /run, /dev/shm): cannot be carried", p->link);
	return 0;
}

int kind_check_leases(struct dump *d, const struct probe *p, struct err *e)
{
	const char *l = kind_info_line(p->info, "lock");
	unsigned n;
	int r = 0;

	for (n = 0; l && r == 0; n++) {
		r = check_lease(d, p, l, strcspn(l, "\n"), e);
		l = strstr(l, "\nlock:");
		l = l ? l + 6 : NULL;
	}
	if (r == 0 && n > KIND_MAX_LOCKS)
		return KIND_REFUSE(e, "'%s' holds %u locks: more than %d cannot be carried", p->link, n, KIND_MAX_LOCKS);
	return r;
}

/* A classic program can be read; one of eBPF has no words. */
static int check_filter(const struct probe *p, struct err *e)
{
	socklen_t len = 0;

	if (S_ISSOCK(p->st.st_mode) && getsockopt(p->fd, SOL_SOCKET, SO_GET_FILTER, NULL, &len) < 0 && errno == EACCES)
		return KIND_REFUSE(e, "'%s' is a socket with a filter of eBPF (SO_ATTACH_BPF): cannot be carried", p->link);
	return 0;
}

int kind_filter_get(struct dump *d, int fd, Pm__SockFilter **out, struct err *e)
{
	struct sock_filter prog[BPF_MAXINSNS];
	socklen_t len = ARRAY_SIZE(prog); /* of it, not of bytes */
	int locked = kind_sock_int(fd, SO_LOCK_FILTER) > 0;

	if (getsockopt(fd, SOL_SOCKET, SO_GET_FILTER, prog, &len) < 0)
		return err_sys(e, "filter of a socket");
	if (!len && !locked)
		return 0;
	*out = dump_alloc(d, sizeof(**out));
	pm__sock_filter__init(*out);
	(*out)->prog = kind_bytes(d, prog, len * sizeof(prog[0]));
	(*out)->locked = locked;
	return 0;
}

int kind_filter_set(int fd, const Pm__SockFilter *f, struct err *e)
{
	struct sock_fprog prog = { .len = (unsigned short)(f->prog.len / sizeof(struct sock_filter)), .filter = (void *)f->prog.data };
	int locked = 1;

	if (f->prog.len % sizeof(struct sock_filter) || f->prog.len > BPF_MAXINSNS * sizeof(struct sock_filter))
		return KIND_DAMAGED(e, "a socket's filter of %zu bytes", f->prog.len);
	if (prog.len && setsockopt(fd, SOL_SOCKET, SO_ATTACH_FILTER, &prog, sizeof(prog)) < 0)
		return err_sys(e, "filter of a socket");
	if (f->locked && setsockopt(fd, SOL_SOCKET, SO_LOCK_FILTER, &locked, sizeof(locked)) < 0)
		return err_sys(e, "lock the filter of a socket");
	return 0;
}

bool kind_filter_comes(const struct robject *o)
{
	return o->msg->filter && o->msg->filter->prog.len;
}

int kind_check_common(const struct probe *p, struct err *e)
{
	const char *lock = kind_info_line(p->info, "lock");

	if (lock) {
		const char *what = strstr(lock, "FLOCK") ? "a lock by flock(2)" :
				   strstr(lock, "LEASE") ? "a lease" :
				   strstr(lock, "DELEG") ? "a delegation" :
							   "a lock by fcntl(2)";

		return KIND_REFUSE(e, "'%s' holds %s: cannot be carried yet", p->link, what);
	}
	return check_filter(p, e);
}

int kind_reopen(int fd, int flags, struct err *e)
{
	char path[48];
	int n;

	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	n = open(path, flags | O_CLOEXEC | O_NOCTTY);
	return n < 0 ? err_sys(e, "open fd %d once more", fd) : n;
}

/* Does @path, in the pod's root, lead to the probe's inode? */
static bool same_at(struct dump *d, const struct probe *p, const char *path)
{
	struct open_how how = { .flags = O_PATH | O_CLOEXEC | O_NOFOLLOW,
				.resolve = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS };
	autoclose int fd = (int)syscall(SYS_openat2, dump_pod_root(d), path, &how, sizeof(how));
	struct stat st;

	return fd >= 0 && fstat(fd, &st) == 0 && st.st_ino == p->st.st_ino && st.st_dev == p->st.st_dev;
}

int kind_find_place(struct dump *d, const struct probe *p, struct kind_place *at, struct err *e)
{
	size_t len = strlen(p->link);
	bool suffix = len > strlen(DELETED) && !strcmp(p->link + len - strlen(DELETED), DELETED);

	memset(at, 0, sizeof(*at));
	if (len >= sizeof(at->path))
		return KIND_REFUSE(e, "its path is too long");
	at->tmpfs = dump_is_private_tmpfs(d, p->st.st_dev);
	if (same_at(d, p, p->link)) {
		memcpy(at->path, p->link, len + 1);
		return 0;
	}
	if (!suffix)
		return KIND_REFUSE(e, "'%s' is hidden by a mount or lies outside the pod's root", p->link);
	memcpy(at->path, p->link, len - strlen(DELETED));
	at->removed = true;
	return 0;
}

int kind_scratch_fs(struct err *e)
{
	autoclose int fs = fsopen("tmpfs", FSOPEN_CLOEXEC);
	int mnt;

	if (fs < 0 || fsconfig(fs, FSCONFIG_CMD_CREATE, NULL, NULL, 0) < 0)
		return err_sys(e, "a scratch file system");
	mnt = fsmount(fs, FSMOUNT_CLOEXEC, 0);
	return mnt < 0 ? err_sys(e, "a scratch file system") : mnt;
}

ProtobufCBinaryData kind_bytes(struct dump *d, const void *p, size_t len)
{
	ProtobufCBinaryData b = { .len = len };

	if (len) {
		b.data = dump_alloc(d, len);
		memcpy(b.data, p, len);
	}
	return b;
}

int kind_sock_int(int fd, int name)
{
	int v = -1;
	socklen_t len = sizeof(v);

	return getsockopt(fd, SOL_SOCKET, name, &v, &len) < 0 ? -1 : v;
}

void kind_opts_out(struct dump *d, const struct sock_opt *opt, unsigned n, Pm__SockOpt ***out, size_t *nout)
{
	unsigned i;

	*out = dump_alloc(d, n * sizeof(**out));
	for (i = 0; i < n; i++) {
		Pm__SockOpt *o = dump_alloc(d, sizeof(*o));

		pm__sock_opt__init(o);
		o->level = opt[i].level;
		o->name = opt[i].name;
		o->val = kind_bytes(d, opt[i].val, opt[i].len);
		(*out)[i] = o;
	}
	*nout = n;
}

int kind_opts_in(Pm__SockOpt *const *opts, size_t n, struct sock_opt *out, size_t max, unsigned *nout, struct err *e)
{
	size_t i;

	if (n > max)
		return KIND_DAMAGED(e, "a socket's %zu options", n);
	for (i = 0; i < n; i++) {
		if (opts[i]->val.len > sizeof(out->val))
			return KIND_DAMAGED(e, "a socket's option %d", opts[i]->name);
		out[i].level = opts[i]->level;
		out[i].name = opts[i]->name;
		out[i].len = (uint32_t)opts[i]->val.len;
		if (opts[i]->val.len)
			memcpy(out[i].val, opts[i]->val.data, opts[i]->val.len);
	}
	*nout = (unsigned)n;
	return 0;
}
