/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Credentials and limits, each process with its own: ids, groups, capability sets, no_new_privs,
 * securebits, dumpable, parent death signal, resource limits, nice value, affinity, umask, working
 * directory. Each process compares what the kernel says of it with what it said after the setup.
 * Without root the parts that need it are left out.
 */
#include "wl.h"

#include <grp.h>
#include <linux/capability.h>
#include <linux/securebits.h>
#include <sched.h>
#include <sys/fsuid.h>
#include <sys/resource.h>

static struct shared {
	_Atomic int stop, ready;
	_Atomic long rounds[16];
} *sh;
static char home[64];

static size_t ids(char *out, size_t max)
{
	struct __user_cap_header_struct h = { _LINUX_CAPABILITY_VERSION_3, 0 };
	struct __user_cap_data_struct d[2];
	uid_t u[3];
	gid_t g[3], groups[64];
	int n, i;
	size_t k;

	WL_SYS(getresuid(&u[0], &u[1], &u[2]));
	WL_SYS(getresgid(&g[0], &g[1], &g[2]));
	WL_SYS(syscall(SYS_capget, &h, d));
	n = (int)WL_SYS(getgroups(64, groups));
	k = (size_t)snprintf(out, max,
			     "uid %u %u %u fs %d gid %u %u %u fs %d nnp %d caps %x %x %x %x %x %x groups",
			     u[0], u[1], u[2], setfsuid((uid_t)-1), g[0], g[1], g[2],
			     setfsgid((gid_t)-1), prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0),
			     d[0].effective, d[0].permitted, d[0].inheritable, d[1].effective,
			     d[1].permitted, d[1].inheritable);
	for (i = 0; i < n; i++)
		k += (size_t)snprintf(out + k, max - k, " %u", groups[i]);
	for (i = 0; i < 41; i++)
		k += (size_t)snprintf(out + k, max - k, "%s%d%d", i ? "," : "\nbounding ambient ",
				      prctl(PR_CAPBSET_READ, i) == 1,
				      prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_IS_SET, i, 0, 0) == 1);
	return k + (size_t)snprintf(out + k, max - k, "\n");
}

/*
 * All that is compared, as text. @proc: with what only procfs says; not in the loop, for an open file
 * of procfs cannot be carried.
 */
static size_t facts(char *out, size_t max, bool proc)
{
	static const char *const keys[] = { "Uid:",    "Gid:",	  "Groups:", "CapInh:",
					    "CapPrm:", "CapEff:", "CapBnd:", "CapAmb:",
					    "NoNewPrivs:", "Umask:", "Cpus_allowed:" };
	char line[4096], cwd[4096] = "";
	FILE *f = proc ? fopen("/proc/thread-self/status", "re") : NULL;
	struct rlimit rl;
	size_t n, i;
	int sig = 0;

	n = ids(out, max);
	WL_CHECK(f || !proc, "status: %s", strerror(errno));
	while (f && fgets(line, sizeof(line), f))
		for (i = 0; i < ARRAY_SIZE(keys); i++)
			if (!strncmp(line, keys[i], strlen(keys[i])))
				n += (size_t)snprintf(out + n, max - n, "%s", line);
	if (f)
		fclose(f);
	for (i = 0; i < RLIM_NLIMITS; i++) {
		WL_SYS(getrlimit((__rlimit_resource_t)i, &rl));
		n += (size_t)snprintf(out + n, max - n, "rlimit %zu %llx %llx\n", i,
				      (unsigned long long)rl.rlim_cur,
				      (unsigned long long)rl.rlim_max);
	}
	errno = 0;
	n += (size_t)snprintf(out + n, max - n, "nice %d\n", getpriority(PRIO_PROCESS, 0));
	WL_SYS(prctl(PR_GET_PDEATHSIG, &sig));
	n += (size_t)snprintf(out + n, max - n, "dumpable %d securebits %d pdeathsig %d\n",
			      prctl(PR_GET_DUMPABLE), prctl(PR_GET_SECUREBITS), sig);
	WL_CHECK(getcwd(cwd, sizeof(cwd)), "getcwd: %s", strerror(errno));
	n += (size_t)snprintf(out + n, max - n, "cwd %s\n", cwd);
	return n;
}

static void compare(const char *who, const char *want, bool proc)
{
	char now[8192], *a, *b, *sa = NULL, *sb = NULL, copy[8192];

	facts(now, sizeof(now), proc);
	if (!strcmp(now, want))
		return;
	snprintf(copy, sizeof(copy), "%s", want);
	a = strtok_r(copy, "\n", &sa);
	b = strtok_r(now, "\n", &sb);
	while (a && b && !strcmp(a, b)) {
		a = strtok_r(NULL, "\n", &sa);
		b = strtok_r(NULL, "\n", &sb);
	}
	wl_fail("%s: expected '%s', got '%s'", who, a ? a : "", b ? b : "");
}

static void set_caps(uint32_t eff, uint32_t prm, uint32_t inh)
{
	struct __user_cap_header_struct h = { _LINUX_CAPABILITY_VERSION_3, 0 };
	struct __user_cap_data_struct d[2] = { { eff, prm, inh }, { 0, 0, 0 } };

	WL_SYS(syscall(SYS_capset, &h, d));
}

static void as_user(void)
{
	WL_SYS(setgroups(3, (gid_t[]){ 5, 60, 700 }));
	WL_SYS(setresgid(10, 11, 12));
	WL_SYS(setresuid(20, 21, 22));
}

static void as_user_with_fsuid(void)
{
	WL_SYS(setgroups(0, NULL));
	WL_SYS(setresgid(0, 0, 30));
	setfsgid(31);
	setfsuid(32);
	WL_EQ("fsuid", 32, setfsuid((uid_t)-1));
}

static void as_keeper_of_caps(void)
{
	WL_SYS(prctl(PR_SET_SECUREBITS, SECBIT_KEEP_CAPS | SECBIT_NO_SETUID_FIXUP |
						 SECBIT_NO_SETUID_FIXUP_LOCKED));
	WL_SYS(setresuid(40, 40, 40));
	set_caps(1 << CAP_CHOWN, 1 << CAP_CHOWN | 1 << CAP_KILL, 1 << CAP_KILL);
	WL_SYS(prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, CAP_KILL, 0, 0));
	WL_SYS(prctl(PR_SET_DUMPABLE, 1));
	WL_SYS(prctl(PR_SET_PDEATHSIG, SIGKILL));
}

static void as_bounded(void)
{
	WL_SYS(prctl(PR_CAPBSET_DROP, CAP_SYS_BOOT));
	WL_SYS(prctl(PR_CAPBSET_DROP, CAP_SYS_TIME));
	set_caps(1 << CAP_SETUID | 1 << CAP_SETPCAP, 1 << CAP_SETUID | 1 << CAP_SETPCAP, 0);
}

static void as_no_new_privs(void)
{
	WL_SYS(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
	WL_SYS(prctl(PR_SET_DUMPABLE, 0));
	WL_SYS(prctl(PR_SET_PDEATHSIG, SIGINT));
}

static void as_limited(void)
{
	WL_SYS(setrlimit(RLIMIT_NOFILE, &(struct rlimit){ 123, 456 }));
	WL_SYS(setrlimit(RLIMIT_STACK, &(struct rlimit){ 1 << 20, 4 << 20 }));
	WL_SYS(setrlimit(RLIMIT_CORE, &(struct rlimit){ 0, 0 }));
	WL_SYS(setrlimit(RLIMIT_FSIZE, &(struct rlimit){ 1 << 30, RLIM_INFINITY }));
	WL_SYS(setrlimit(RLIMIT_CPU, &(struct rlimit){ 100000, 200000 }));
	WL_SYS(setrlimit(RLIMIT_AS, &(struct rlimit){ 1ul << 40, 1ul << 41 }));
	WL_SYS(setpriority(PRIO_PROCESS, 0, 7));
}

static void as_placed(void)
{
	cpu_set_t set;
	int cpu = 0;

	WL_SYS(sched_getaffinity(0, sizeof(set), &set));
	while (!CPU_ISSET(cpu, &set))
		cpu++;
	CPU_ZERO(&set);
	CPU_SET(cpu, &set);
	WL_SYS(sched_setaffinity(0, sizeof(set), &set));
	umask(0137);
	WL_SYS(chdir(home));
}

static const struct part {
	const char *name;
	void (*setup)(void);
	bool root;
} parts[] = {
	{ "user", as_user, true },
	{ "user by fsuid", as_user_with_fsuid, true },
	{ "keeper of capabilities", as_keeper_of_caps, true },
	{ "bounded capabilities", as_bounded, true },
	{ "no_new_privs", as_no_new_privs, false },
	{ "limits", as_limited, false },
	{ "affinity, umask, cwd", as_placed, false },
};

static int child(void *arg)
{
	size_t i = *(size_t *)arg;
	char want[8192], brief[8192];

	parts[i].setup();
	facts(want, sizeof(want), true);
	facts(brief, sizeof(brief), false);
	sh->ready++;
	while (!sh->stop) {
		compare(parts[i].name, brief, false);
		sh->rounds[i]++;
		wl_sleep_ns(2 * WL_MS);
	}
	compare(parts[i].name, want, true);
	return 20 + (int)i;
}

int main(void)
{
	pid_t pid[ARRAY_SIZE(parts)];
	size_t ids[ARRAY_SIZE(parts)], i;
	int made = 0;
	char want[8192], brief[8192];

	wl_init();
	sh = wl_shared(sizeof(*sh));
	snprintf(home, sizeof(home), "/tmp/wl-creds.%d", getpid());
	WL_SYS(mkdir(home, 0755));
	facts(want, sizeof(want), true);
	facts(brief, sizeof(brief), false);
	for (i = 0; i < ARRAY_SIZE(parts); i++) {
		ids[i] = i;
		pid[i] = parts[i].root && geteuid() ? 0 : wl_spawn(child, &ids[i]);
		made += pid[i] != 0;
	}
	WL_AWAIT(sh->ready == made, "children");
	wl_ready();
	while (!wl_stopping()) {
		compare("main", brief, false);
		wl_pace();
	}
	for (i = 0; i < ARRAY_SIZE(parts); i++) {
		long was = sh->rounds[i];

		if (pid[i])
			WL_AWAIT(sh->rounds[i] > was, "a round of each child");
	}
	sh->stop = 1;
	for (i = 0; i < ARRAY_SIZE(parts); i++)
		if (pid[i])
			wl_reap(pid[i], 20 + (int)i);
	compare("main", want, true);
	WL_SYS(rmdir(home));
	wl_ok();
}
