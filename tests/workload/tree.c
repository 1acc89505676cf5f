/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Process tree: sessions and groups, orphans of pid 1, groups and sessions whose leader is gone,
 * zombies of every sort that nobody has reaped. Every process checks its own ids and those of its
 * children over and over; the zombies are looked at without reaping and reaped at the end.
 */
#include "wl.h"

struct shared {
	_Atomic int stop, alive, gone;
	_Atomic int orphan_pid[4]; /* grand-children, told by their first parent */
	_Atomic long steps;
};
static struct shared *sh;

/* What a process must see of itself, for ever. */
struct ids {
	pid_t pid, ppid, pgrp, sid;
};

static struct ids my_ids(void)
{
	return (struct ids){ getpid(), getppid(), getpgrp(), getsid(0) };
}

static void check_ids(const char *who, const struct ids *want)
{
	struct ids now = my_ids();

	WL_CHECK(!memcmp(&now, want, sizeof(now)),
		 "%s: pid ppid pgrp sid: expected %d %d %d %d, got %d %d %d %d", who, want->pid,
		 want->ppid, want->pgrp, want->sid, now.pid, now.ppid, now.pgrp, now.sid);
}

/* Lives until told to stop, checking itself; @check is called each round. */
static void live(const char *who, const struct ids *want, void (*check)(void))
{
	atomic_fetch_add(&sh->alive, 1);
	while (!sh->stop) {
		check_ids(who, want);
		if (check)
			check();
		atomic_fetch_add(&sh->steps, 1);
		wl_sleep_ns(3 * WL_MS);
		/* orphans have no parent that takes them along when the program is killed */
		if (kill(wl_main_pid, 0) < 0 && errno == ESRCH)
			_exit(1);
	}
	check_ids(who, want);
	atomic_fetch_add(&sh->gone, 1);
}

static void check_zombie(pid_t pid, int code, int status)
{
	siginfo_t si = { 0 };

	WL_SYS(waitid(P_PID, (id_t)pid, &si, WEXITED | WNOHANG | WNOWAIT));
	WL_CHECK(si.si_pid == pid && si.si_code == code && si.si_status == status,
		 "zombie %d: expected code %d status %d, got pid %d code %d status %d", pid, code,
		 status, si.si_pid, si.si_code, si.si_status);
}

static pid_t await_zombie(pid_t pid)
{
	siginfo_t si;

	WL_SYS(waitid(P_PID, (id_t)pid, &si, WEXITED | WNOWAIT));
	return pid;
}

static pid_t zombie_exit(int code)
{
	pid_t pid = (pid_t)WL_SYS(fork());

	if (!pid)
		_exit(code);
	return await_zombie(pid);
}

static pid_t zombie_killed(int sig)
{
	pid_t pid = (pid_t)WL_SYS(fork());

	if (!pid) {
		signal(sig, SIG_DFL);
		raise(sig);
		_exit(99);
	}
	return await_zombie(pid);
}

static int plain(void *name)
{
	struct ids want = my_ids();

	live(name, &want, NULL);
	return 41;
}

/* A group of its own in the session: a job in the background, with two members. */
static int background(void *arg)
{
	static char name[] = "member of the background job";
	struct ids want;
	pid_t member;

	(void)arg;
	WL_SYS(setpgid(0, 0));
	want = my_ids();
	WL_EQ("pgrp", want.pid, want.pgrp);
	member = wl_spawn(plain, name);
	live("background job", &want, NULL);
	WL_EQ("member's group", want.pgrp, WL_SYS(getpgid(member)));
	wl_reap(member, 41);
	return 42;
}

static pid_t own_zombie;

static void check_own_zombie(void)
{
	check_zombie(own_zombie, CLD_EXITED, 7);
}

/* A session leader with a zombie of its own and a member in another group. */
static int session(void *arg)
{
	struct ids want;
	pid_t child;

	(void)arg;
	WL_SYS(setsid());
	want = my_ids();
	WL_EQ("sid", want.pid, want.sid);
	own_zombie = zombie_exit(7);
	child = wl_spawn(background, NULL);
	live("session leader", &want, check_own_zombie);
	WL_EQ("sid of a child", want.sid, WL_SYS(getsid(child)));
	wl_reap(child, 42);
	wl_reap(own_zombie, 7);
	return 43;
}

static int chain(void *arg)
{
	int depth = *(int *)arg - 1;
	struct ids want = my_ids();
	pid_t child = depth ? wl_spawn(chain, &depth) : 0;

	live("chain", &want, NULL);
	if (child)
		wl_reap(child, 50 + depth);
	return 50 + depth + 1;
}

/*
 * The parent leaves at once; the child goes to pid 1 (or to what reaps here) and keeps the group, and
 * with @new_session the session, of one who no longer exists.
 */
static void orphan(int slot, bool new_session)
{
	pid_t pid = (pid_t)WL_SYS(fork()), pgrp, old;
	struct ids want;

	if (pid) {
		wl_reap(pid, 0);
		WL_AWAIT(sh->orphan_pid[slot], "orphan");
		return;
	}
	WL_SYS(new_session ? setsid() : setpgid(0, 0));
	pgrp = getpgrp();
	old = getpid();
	if (WL_SYS(fork()))
		_exit(0);
	WL_AWAIT(getppid() != old, "new parent");
	want = my_ids();
	WL_EQ("group of the dead leader", pgrp, want.pgrp);
	if (new_session)
		WL_EQ("session of the dead leader", pgrp, want.sid);
	sh->orphan_pid[slot] = want.pid;
	live(new_session ? "orphan of a dead session" : "orphan of a dead group", &want, NULL);
	_exit(0);
}

/* The leader of a group is dead but not reaped; a member lives on. */
static pid_t zombie_leader(pid_t *member)
{
	pid_t leader = (pid_t)WL_SYS(fork());

	if (!leader) {
		WL_SYS(setpgid(0, 0));
		pause();
		_exit(9);
	}
	WL_AWAIT(getpgid(leader) == leader, "group");
	*member = (pid_t)WL_SYS(fork());
	if (!*member) {
		struct ids want;

		WL_SYS(setpgid(0, leader));
		want = my_ids();
		WL_EQ("group", leader, want.pgrp);
		live("member of a zombie's group", &want, NULL);
		_exit(44);
	}
	WL_AWAIT(getpgid(*member) == leader, "member");
	WL_SYS(kill(leader, SIGKILL));
	return await_zombie(leader);
}

int main(void)
{
	pid_t z[5], kids[6], leader, member;
	struct ids want;
	static char plain_name[] = "plain";
	int depth = 4;
	size_t i;

	wl_init();
	sh = wl_shared(sizeof(*sh));
	want = my_ids();
	z[0] = zombie_exit(0);
	z[1] = zombie_exit(255);
	z[2] = zombie_killed(SIGKILL);
	z[3] = zombie_killed(SIGUSR1);
	orphan(0, false);
	orphan(1, true);
	kids[0] = wl_spawn(session, NULL);
	kids[1] = wl_spawn(background, NULL);
	kids[2] = wl_spawn(chain, &depth);
	kids[3] = wl_spawn(plain, plain_name);
	leader = zombie_leader(&member);
	z[4] = zombie_exit(130);
	/* session + its background and member, background + member, 4 of chain, plain, 2 orphans, member */
	WL_AWAIT(sh->alive == 13, "13 processes");
	wl_ready();
	while (!wl_stopping()) {
		check_ids("main", &want);
		check_zombie(z[0], CLD_EXITED, 0);
		check_zombie(z[1], CLD_EXITED, 255);
		check_zombie(z[2], CLD_KILLED, SIGKILL);
		check_zombie(z[3], CLD_KILLED, SIGUSR1);
		check_zombie(leader, CLD_KILLED, SIGKILL);
		check_zombie(z[4], CLD_EXITED, 130);
		WL_EQ("child's session", kids[0], WL_SYS(getsid(kids[0])));
		WL_EQ("child's group", kids[1], WL_SYS(getpgid(kids[1])));
		WL_EQ("child's group", want.pgrp, WL_SYS(getpgid(kids[2])));
		WL_EQ("group of a zombie leader", leader, WL_SYS(getpgid(member)));
		for (i = 0; i < 2; i++)
			WL_SYS(kill(sh->orphan_pid[i], 0));
		wl_pace();
	}
	sh->stop = 1;
	wl_reap(kids[0], 43);
	wl_reap(kids[1], 42);
	wl_reap(kids[2], 54);
	wl_reap(kids[3], 41);
	wl_reap(member, 44);
	wl_reap(z[0], 0);
	wl_reap(z[1], 255);
	wl_reap(z[4], 130);
	for (i = 0; i < 3; i++) {
		int status;
		pid_t pid = i == 2 ? leader : z[2 + i];

		WL_EQ("waitpid", pid, WL_SYS(waitpid(pid, &status, 0)));
		WL_EQ("status", i == 1 ? SIGUSR1 : SIGKILL, status);
	}
	WL_AWAIT(sh->gone == 13, "the end of all");
	WL_EQ("children left", -1, waitpid(-1, NULL, WNOHANG));
	check_ids("main", &want);
	wl_ok();
}
