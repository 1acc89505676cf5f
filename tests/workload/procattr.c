/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Small attributes of processes and threads beyond credentials: scheduling policy (real-time too, and reset
 * on fork) and slice, I/O priority, timer slack, child subreaper, keep-caps, personality, OOM score
 * adjustment, core dump filter, the nice value of its session's autogroup, thread-wise nice value and affinity, the machine check policy, transparent
 * huge pages switched off; a child without the time stamp counter, whose end another signal than SIGCHLD tells.
 */
#include "wl.h"

#include <pthread.h>
#include <sched.h>
#include <sys/personality.h>
#include <sys/resource.h>

static struct shared {
	_Atomic int stop, nice_set;
} *sh;

struct attrs {
	int policy, prio, nice, ioprio, slack, subreaper, keepcaps, personality, mce, thp, spec, oom, core;
	uint64_t slice;
	cpu_set_t cpus;
};

/* Of sched_setattr(2), as far as it is looked at here. */
struct sched {
	uint32_t size, policy;
	uint64_t flags;
	int32_t nice;
	uint32_t prio;
	uint64_t runtime, deadline, period;
};

static int number_in(const char *path, int base)
{
	char text[32] = "";
	int fd = (int)WL_SYS(open(path, O_RDONLY | O_CLOEXEC));

	WL_SYS(read(fd, text, sizeof(text) - 1));
	close(fd);
	return (int)strtol(text, NULL, base);
}

/* " nice 7"; the number before it is the kernel's own. */
static void autogroup(char text[64])
{
	char line[64] = "", *at;
	int fd = (int)WL_SYS(open("/proc/self/autogroup", O_RDONLY | O_CLOEXEC));

	WL_SYS(read(fd, line, sizeof(line) - 1));
	close(fd);
	at = strchr(line, ' ');
	WL_CHECK(at, "/proc/self/autogroup: expected a nice value, got '%s'", line);
	strcpy(text, at);
}

static void write_to(const char *path, const char *text)
{
	int fd = (int)WL_SYS(open(path, O_WRONLY | O_CLOEXEC));

	WL_SYS(write(fd, text, strlen(text)));
	close(fd);
}

/* @proc: with what only procfs says; not in the loop, for its open files cannot be carried. */
static struct attrs look(bool proc)
{
	struct attrs a;
	struct sched sched = { .size = sizeof(sched) };

	memset(&a, 0, sizeof(a));
	WL_SYS(syscall(SYS_sched_getattr, 0, &sched, sizeof(sched), 0));
	a.slice = sched.runtime;
	a.prio = (int)sched.prio;
	a.policy = (int)WL_SYS(sched_getscheduler(0));
	a.nice = getpriority(PRIO_PROCESS, 0);
	a.ioprio = (int)WL_SYS(syscall(SYS_ioprio_get, 1, 0));
	a.slack = (int)WL_SYS(prctl(PR_GET_TIMERSLACK));
	WL_SYS(prctl(PR_GET_CHILD_SUBREAPER, &a.subreaper));
	a.keepcaps = (int)WL_SYS(prctl(PR_GET_KEEPCAPS));
	a.personality = personality(0xffffffff);
	a.mce = prctl(PR_MCE_KILL_GET, 0, 0, 0, 0);
	a.thp = prctl(PR_GET_THP_DISABLE, 0, 0, 0, 0);
	a.spec = prctl(PR_GET_SPECULATION_CTRL, PR_SPEC_STORE_BYPASS, 0, 0, 0);
	a.oom = proc ? number_in("/proc/self/oom_score_adj", 10) : 0;
	a.core = proc ? number_in("/proc/self/coredump_filter", 16) : 0;
	WL_SYS(sched_getaffinity(0, sizeof(a.cpus), &a.cpus));
	return a;
}

static void compare(const char *who, const struct attrs *w, bool proc)
{
	struct attrs a = look(proc);

	WL_CHECK(!memcmp(&a, w, sizeof(a)),
		 "%s: policy prio nice ioprio slack subreaper keepcaps personality mce thp spec oom core slice: expected "
		 "%d %d %d %x %d %d %d %x %d %d %x %d %x %llu, got %d %d %d %x %d %d %d %x %d %d %x %d %x %llu%s",
		 who, w->policy, w->prio, w->nice, w->ioprio, w->slack, w->subreaper, w->keepcaps, w->personality, w->mce,
		 w->thp, w->spec, w->oom, w->core, (unsigned long long)w->slice, a.policy, a.prio, a.nice, a.ioprio, a.slack,
		 a.subreaper, a.keepcaps, a.personality, a.mce, a.thp, a.spec, a.oom, a.core, (unsigned long long)a.slice,
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

/* Real-time, where that is allowed; what it forks is ordinary. */
static void *quick(void *arg)
{
	struct sched_param sp = { .sched_priority = 2 };
	struct attrs want;
	bool rt = sched_setscheduler(0, SCHED_RR | SCHED_RESET_ON_FORK, &sp) == 0;

	(void)arg;
	WL_CHECK(rt || errno == EPERM, "SCHED_RR: %s", strerror(errno));
	want = look(false);
	while (!sh->stop) {
		compare("real-time thread", &want, false);
		wl_sleep_ns(5 * WL_MS);
	}
	return NULL;
}

/* With a slice of its own, where the kernel has that. */
static void *sliced(void *arg)
{
	struct sched s = { .size = sizeof(s), .nice = 1, .runtime = 7 * WL_MS };
	struct attrs want;

	(void)arg;
	WL_SYS(syscall(SYS_sched_setattr, 0, &s, 0));
	want = look(false);
	while (!sh->stop) {
		compare("thread with a slice", &want, false);
		wl_sleep_ns(5 * WL_MS);
	}
	return NULL;
}

/* Its end is told by SIGWINCH, and only who asks for such children is told of it. */
static pid_t clone_child(void)
{
	pid_t pid = (pid_t)WL_SYS(syscall(SYS_clone, SIGWINCH, 0, 0, 0, 0));

	if (!pid) {
		int tsc;

		WL_SYS(prctl(PR_SET_PDEATHSIG, SIGKILL));
		WL_SYS(prctl(PR_SET_TSC, PR_TSC_SIGSEGV)); /* it reads no clock */
		while (!sh->stop) {
			WL_SYS(prctl(PR_GET_TSC, &tsc));
			WL_EQ("PR_GET_TSC", PR_TSC_SIGSEGV, tsc);
			wl_sleep_ns(2 * WL_MS);
		}
		_exit(13);
	}
	return pid;
}

static void check_clone_child(pid_t pid)
{
	siginfo_t si;

	WL_EQ("an ordinary wait for the child that is none", -1, waitid(P_PID, (id_t)pid, &si, WEXITED | WNOHANG | WNOWAIT));
	WL_EQ("errno", ECHILD, errno);
	WL_SYS(waitid(P_PID, (id_t)pid, &si, WEXITED | WNOHANG | WNOWAIT | __WCLONE));
}

static int child(void *arg)
{
	struct attrs want, brief;

	(void)arg;
	WL_SYS(personality(PER_LINUX | ADDR_NO_RANDOMIZE));
	WL_SYS(prctl(PR_SET_CHILD_SUBREAPER, 1));
	WL_SYS(prctl(PR_SET_KEEPCAPS, 1));
	WL_SYS(prctl(PR_MCE_KILL, PR_MCE_KILL_SET, PR_MCE_KILL_EARLY, 0, 0));
	/* but for who has asked for them, on a kernel that knows of that */
	if (prctl(PR_SET_THP_DISABLE, 1, 2, 0, 0) < 0)
		WL_SYS(prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0));
	write_to("/proc/self/oom_score_adj", "321");
	write_to("/proc/self/coredump_filter", "0x2b");
	prctl(PR_SET_SPECULATION_CTRL, PR_SPEC_STORE_BYPASS, PR_SPEC_DISABLE, 0, 0); /* where it can be switched */
	want = look(true);
	brief = look(false);
	while (!sh->stop) {
		compare("child", &brief, false);
		wl_sleep_ns(2 * WL_MS);
	}
	compare("child", &want, true);
	return 12;
}

/* What procfs says, before and after: its open files cannot be carried. */
static int session(void *arg)
{
	char was[64] = "", is[64] = "";

	(void)arg;
	WL_SYS(setsid());
	if (wl_session_nice(7))
		autogroup(was);
	sh->nice_set = 1;
	while (!sh->stop)
		wl_sleep_ns(2 * WL_MS);
	if (was[0])
		autogroup(is);
	WL_CHECK(!strcmp(was, is), "autogroup: expected '%s', got '%s'", was, is);
	return 14;
}

int main(void)
{
	void *(*const fn[])(void *) = { thread, thread, quick, sliced };
	struct attrs want;
	pthread_t th[4];
	uintptr_t i;
	pid_t pid, other, leader;
	int status;

	wl_init();
	sh = wl_shared(sizeof(*sh));
	pid = wl_spawn(child, NULL);
	leader = wl_spawn(session, NULL);
	WL_AWAIT(sh->nice_set, "the other session");
	other = clone_child();
	for (i = 0; i < ARRAY_SIZE(th); i++)
		WL_ZERO(pthread_create(&th[i], NULL, fn[i], (void *)i));
	want = look(false);
	wl_ready();
	while (!wl_stopping()) {
		compare("main", &want, false);
		check_clone_child(other);
		wl_pace();
	}
	sh->stop = 1;
	for (i = 0; i < ARRAY_SIZE(th); i++)
		WL_ZERO(pthread_join(th[i], NULL));
	wl_reap(pid, 12);
	wl_reap(leader, 14);
	WL_EQ("waitpid", other, WL_SYS(waitpid(other, &status, __WCLONE)));
	WL_EQ("its exit status", 13 << 8, status);
	wl_ok();
}
