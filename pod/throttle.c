/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * A pod that writes faster than its pages can be sent is slowed down: it stands still for a part of each period, by the freezer of
 * its cgroup (podmigrate --auto-converge).
 *
 * A helper does it, which is real-time: on a busy node the pod would stand still for longer than was meant. It hears by a pipe how
 * much, and ends, with the pod thawed, when that is closed: also when the engine has died. If the helper dies the engine thaws. As all
 * helpers that outlive their engine it has the lock of still.c.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include "pod/base/fault.h"
#include "pod/base/io.h"
#include "pod/base/log.h"
#include "pod/base/prio.h"
#include "pod/base/util.h"
#include "pod/dump.h"
#include "pod/ns.h"

#define PERIOD_MS 100

static const uint8_t percent[] = { 0, 50, 75, 90, 95 };

/* For @ms, unless there is news. False: the end. */
static bool hear(int fd, int ms, uint8_t *still)
{
	struct pollfd p = { .fd = fd, .events = POLLIN };
	int n = poll(&p, 1, ms);

	return n == 0 || (n < 0 && errno == EINTR) || (n > 0 && read(fd, still, 1) == 1);
}

/* No signal that ends others with it, from a terminal or by their group, ends it: it thaws first. */
static _Noreturn void work(int fd, const struct dump *d)
{
	const char *cgroup = d->req->cgroup;
	uint8_t still = 0;
	sigset_t all;
	int lock;
	bool go;

	sigfillset(&all);
	sigprocmask(SIG_BLOCK, &all, NULL);
	setsid();
	lock = still_lock(d->req->dir, deadline_ms(PERIOD_MS), NULL); /* until it ends: the agent waits for that */
	go = lock >= 0;
	prio_quick(true);
	while (go) {
		int ms = PERIOD_MS * still / 100;

		if (still && pod_cgroup_freeze(cgroup, deadline_ms(PERIOD_MS), NULL) >= 0)
			go = hear(fd, ms, &still);
		pod_cgroup_thaw(cgroup, NULL);
		if (go)
			go = hear(fd, PERIOD_MS - ms, &still);
	}
	_exit(0);
}

bool throttle_more(struct dump *d)
{
	struct throttle *t = &d->throttle;
	uint8_t still;
	int p[2];

	if (t->level + 1 == ARRAY_SIZE(percent))
		return false;
	if (!t->pid) {
		if (pipe2(p, O_CLOEXEC) < 0)
			return false;
		t->pid = fork();
		if (!t->pid) {
			close(p[1]);
			work(p[0], d);
		}
		close(p[0]);
		t->fd = p[1];
	}
	still = percent[t->level + 1];
	if (t->pid < 0 || write(t->fd, &still, 1) != 1) {
		throttle_end(d);
		return false;
	}
	t->level++;
	fault_point("engine-source", "throttle", NULL);
	log_info("%s: stands still for %u %% of the time, for it writes faster than can be sent", d->req->spec->name, still);
	return true;
}

void throttle_end(struct dump *d)
{
	struct throttle *t = &d->throttle;

	if (!t->pid)
		return;
	close(t->fd);
	while (t->pid > 0 && waitpid(t->pid, NULL, __WALL) < 0 && errno == EINTR)
		;
	pod_cgroup_thaw(d->req->cgroup, NULL);
	*t = (struct throttle){ .level = ARRAY_SIZE(percent) - 1 };
}
