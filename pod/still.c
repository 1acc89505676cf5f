/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Work on something of the pod's that must not be seen half done, nor be left so.
 *
 * Theory of operation. The engine's own stops end with the engine: its tracees would run in the middle of it. So the work is done
 * by a helper that outlives the engine, and the freezer holds the pod meanwhile. If the engine dies, the helper ends the
 * work and thaws; if the helper dies, the engine ends it: the work tells by what it finds how far it has come. The agent, which thaws
 * the pods of dead engines, waits for the helper: it holds a lock in the pod's directory, which is root's, before it freezes. Only if
 * both die in that time (some 10 us for each message of a queue) is the work left half done.
 */
#include <errno.h>
#include <fcntl.h>
#include <sys/file.h>
#include <sys/wait.h>
#include <unistd.h>

#include "pod/base/fault.h"
#include "pod/base/io.h"
#include "pod/base/util.h"
#include "pod/dump.h"
#include "pod/ns.h"

#define FREEZE_MS 2000

/* @parent: whose helper this is; it does not begin what nobody has waited for. */
static int work(const struct dump *d, pid_t parent, int (*fn)(void *arg), void *arg, struct err *e)
{
	autoclose int fd = still_lock(d->req->dir, deadline_ms(FREEZE_MS), e);
	int r;

	if (fd < 0)
		return fd;
	if (parent && getppid() != parent)
		return err_num(e, ESRCH, "the engine");
	r = pod_cgroup_freeze(d->req->cgroup, deadline_ms(FREEZE_MS), e);
	if (r >= 0) {
		r = fn(arg);
		if (r < 0)
			err_num(e, r, "what is done in the frozen pod");
	}
	pod_cgroup_thaw(d->req->cgroup, NULL);
	return r;
}

int dump_while_frozen(struct dump *d, int (*fn)(void *arg), void *arg, struct err *e)
{
	pid_t self = getpid(), pid = fork();
	int status = 0, r;

	if (pid < 0)
		return err_sys(e, "fork");
	if (!pid) {
		r = work(d, self, fn, arg, NULL);
		_exit(r < 0 ? MIN(-r, 255) : 0);
	}
	fault_point("engine-source", "helped", NULL);
	while (waitpid(pid, &status, __WALL) < 0)
		if (errno != EINTR)
			return err_sys(e, "wait for a helper");
	if (!WIFEXITED(status)) /* it was killed */
		return work(d, 0, fn, arg, e);
	return WEXITSTATUS(status) ? err_num(e, WEXITSTATUS(status), "what is done in the frozen pod") : 0;
}
