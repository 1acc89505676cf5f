/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Working directory and umask of a process. A root directory of its own is refused. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>

#include "pod/base/util.h"
#include "pod/dump.h"
#include "pod/kind/task_kinds.h"

static int take_cwd(struct dump *d, struct task *t, struct batch *b, uint64_t cookie, Pm__Proc *proc,
		    Pm__Thread *th, struct err *e)
{
	char path[48], link[PATH_MAX];
	struct stat root, mine, named, cwd;
	ssize_t n;

	(void)b;
	(void)cookie;
	(void)th;
	snprintf(path, sizeof(path), "/proc/%d/root", t->tid);
	if (stat(path, &mine) < 0 || fstat(d->root, &root) < 0)
		return err_sys(e, "stat '%s'", path);
	if (mine.st_ino != root.st_ino || mine.st_dev != root.st_dev)
		return err_set(e, EOPNOTSUPP, "has a root directory of its own (chroot): cannot be carried");
	snprintf(path, sizeof(path), "/proc/%d/cwd", t->tid);
	n = readlink(path, link, sizeof(link) - 1);
	if (n < 0 || stat(path, &cwd) < 0)
		return err_sys(e, "read '%s'", path);
	link[n] = 0;
	if (fstatat(d->root, link[1] ? link + 1 : ".", &named, 0) < 0 || named.st_ino != cwd.st_ino ||
	    named.st_dev != cwd.st_dev)
		return err_set(e, EOPNOTSUPP, "works in the directory '%s', which has no name any more: cannot be carried yet", link);
	proc->cwd = dump_strdup(d, link);
	return 0;
}

static int chdir_to(const Pm__Proc *proc, struct batch *b, struct err *e)
{
	if (proc->cwd[0] != '/')
		return err_set(e, EBADMSG, "working directory '%s'", proc->cwd);
	batch_add1(b, SYS_chdir, batch_data(b, proc->cwd, strlen(proc->cwd) + 1));
	return 0;
}

/* In a user's pod with the user's rights, after kind_creds: an image must not lead into directories that others keep shut. In root's
 * before, for a program that has given up its own may be in one. */
static int give_cwd(struct restore *r, const Pm__Proc *proc, const Pm__Thread *th, struct batch *b, struct err *e)
{
	(void)th;
	if (restore_of_user(r))
		return 0;
	return chdir_to(proc, b, e);
}

static int give_cwd_late(struct restore *r, const Pm__Proc *proc, const Pm__Thread *th, struct batch *b, struct err *e)
{
	(void)th;
	return restore_of_user(r) ? chdir_to(proc, b, e) : 0;
}

const struct kind kind_cwd = { .name = "cwd", .type = 112, .version = 1, .min_version = 1, .scope = KIND_PROC,
			       .take = take_cwd, .give = give_cwd };
const struct kind kind_cwd_late = { .name = "cwd", .type = 112, .version = 1, .min_version = 1, .scope = KIND_PROC,
				    .give = give_cwd_late };

static int take_umask(struct dump *d, struct task *t, struct batch *b, uint64_t cookie, Pm__Proc *proc,
		      Pm__Thread *th, struct err *e)
{
	struct proc *p = proc_by_ns(&d->procs, t->nstgid);

	(void)b;
	(void)cookie;
	(void)th;
	(void)e;
	proc->umask = p ? p->st.umask : 022;
	return 0;
}

static int give_umask(struct restore *r, const Pm__Proc *proc, const Pm__Thread *th, struct batch *b, struct err *e)
{
	(void)r;
	(void)th;
	(void)e;
	batch_add1(b, SYS_umask, proc->umask & 0777);
	return 0;
}

const struct kind kind_umask = { .name = "umask", .type = 113, .version = 1, .min_version = 1,
				 .scope = KIND_PROC, .take = take_umask, .give = give_umask };
