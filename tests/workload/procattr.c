/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Small attributes of processes and threads beyond credentials: scheduling policy, I/O priority, timer
 * slack, child subreaper, keep-caps, personality, OOM score adjustment, thread-wise nice value and
 * affinity, the machine check policy, transparent huge pages switched off, memory policy.
 */
#include "wl.h"

#include <pthread.h>
#include <sched.h>
#include <sys/personality.h>
#include <sys/resource.h>

static struct shared {
	_Atomic int stop;
} *sh;

struct attrs {
	int policy, nice, ioprio, slack, subreaper, keepcaps, personality, mce, thp, oom;
	cpu_set_t cpus;
};

static int oom_adj(void)
{
	char text[32] = "";
	int fd = (int)WL_SYS(open("/proc/self/oom_score_adj", O_RDONLY | O_CLOEXEC));

	WL_SYS(read(fd, text, sizeof(text) - 1));
	close(fd);
	return atoi(text);
}

/* @proc: with what only procfs says; not in the loop, for its open files cannot be carried. */
static struct attrs look(bool proc)
{
	struct attrs a;

	memset(&a, 0, sizeof(a));
	a.policy = (int)WL_SYS(sched_getscheduler(0));
	a.nice = getpriority(PRIO_PROCESS, 0);
	a.ioprio = (int)WL_SYS(syscall(SYS_ioprio_get, 1, 0));
	a.slack = (int)WL_SYS(prctl(PR_GET_TIMERSLACK));
	WL_SYS(prctl(PR_GET_CHILD_SUBREAPER, &a.subreaper));
	a.keepcaps = (int)WL_SYS(prctl(PR_GET_KEEPCAPS));
	a.personality = personality(0xffffffff);
	a.mce = prctl(PR_MCE_KILL_GET, 0, 0, 0, 0);
	a.thp = prctl(PR_GET_THP_DISABLE, 0, 0, 0, 0);
	a.oom = proc ? oom_adj() : 0;
	WL_SYS(sched_getaffinity(0, sizeof(a.cpus), &a.cpus));
	return a;
}

static void compare(const char *who, const struct attrs *w, bool proc)
{
	struct attrs a = look(proc);

	WL_CHECK(!memcmp(&a, w, sizeof(a)),
		 "%s: policy nice ioprio slack subreaper keepcaps personality mce thp oom: expected "
		 "%d %d %x %d %d %d %x %d %d %d, got %d %d %x %d %d %d %x %d %d %d%s",
		 who, w->policy, w->nice, w->ioprio, w->slack, w->subreaper, w->keepcaps,
		 w->personality, w->mce, w->thp, w->oom, a.policy, a.nice, a.ioprio, a.slack,
		 a.subreaper, a.keepcaps, a.personality, a.mce, a.thp, a.oom,
		 memcmp(&a.cpus, &w->cpus, sizeof(a.cpus)) ? " (and other CPUs)" : "");
}

static void *thread(void *arg)
{
	size_t id = (uintptr_t)arg;
	struct sched_param sp = { 0 };
	struct attrs want;
	cpu_set_t set;
	int cpu = 0;

	WL_SYS(sched_setscheduler(0, id ? SCHED_BATCH : SCHED_IDLE, &sp));
	WL_SYS(setpriority(PRIO_PROCESS, 0, 3 + (int)id * 4));
	WL_SYS(prctl(PR_SET_TIMERSLACK, 70000 + id));
	WL_SYS(syscall(SYS_ioprio_set, 1, 0, 2 << 13 | (int)(id + 5)));
	WL_SYS(sched_getaffinity(0, sizeof(set), &set));
	while (!CPU_ISSET(cpu, &set))
		cpu++;
	CPU_ZERO(&set);
	CPU_SET(cpu, &set);
	WL_SYS(sched_setaffinity(0, sizeof(set), &set));
	want = look(false);
	while (!sh->stop) {
		compare(id ? "second thread" : "first thread", &want, false);
		wl_sleep_ns(2 * WL_MS);
	}
	return NULL;
}

static int child(void *arg)
{
	struct attrs want, brief;
	int fd;

	(void)arg;
	WL_SYS(personality(PER_LINUX | ADDR_NO_RANDOMIZE));
	WL_SYS(prctl(PR_SET_CHILD_SUBREAPER, 1));
	WL_SYS(prctl(PR_SET_KEEPCAPS, 1));
	WL_SYS(prctl(PR_MCE_KILL, PR_MCE_KILL_SET, PR_MCE_KILL_EARLY, 0, 0));
	WL_SYS(prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0));
	fd = (int)WL_SYS(open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC));
	WL_SYS(write(fd, "321", 3));
	close(fd);
	want = look(true);
	brief = look(false);
	while (!sh->stop) {
		compare("child", &brief, false);
		wl_sleep_ns(2 * WL_MS);
	}
	compare("child", &want, true);
	return 12;
}

int main(void)
{
	struct attrs want;
	pthread_t th[2];
	uintptr_t i;
	pid_t pid;

	wl_init();
	sh = wl_shared(sizeof(*sh));
	pid = wl_spawn(child, NULL);
	for (i = 0; i < 2; i++)
		WL_ZERO(pthread_create(&th[i], NULL, thread, (void *)i));
	want = look(false);
	wl_ready();
	while (!wl_stopping()) {
		compare("main", &want, false);
		wl_pace();
	}
	sh->stop = 1;
	for (i = 0; i < 2; i++)
		WL_ZERO(pthread_join(th[i], NULL));
	wl_reap(pid, 12);
	wl_ok();
}
