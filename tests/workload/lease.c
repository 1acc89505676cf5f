/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Leases for reading, of files in /tmp: one on a description that a child has, too, and that is dup'ed; one that a child has asked
 * for, with a signal of its own; one that comes and goes. At the end both are broken by who wants to write: he waits, the
 * holder hears of it by the right signal and the number of its fd, lets go, and the writer goes on.
 */
#include "wl.h"

#include <sys/wait.h>

static char path[3][64];
static int held, copy, passing, tell[2];
static int sig_own, sig_kid;

static int open_file(int i, int flags)
{
	return open(path[i], flags | O_CLOEXEC);
}

static void lease(int fd, int type)
{
	WL_SYS(fcntl(fd, F_SETLEASE, type));
}

static void await_breach(int fd, int sig)
{
	siginfo_t si = { 0 };
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, sig);
	WL_EQ("signal of a breach", sig, WL_SYS(sigwaitinfo(&set, &si)));
	WL_EQ("its fd", fd, si.si_fd);
	WL_EQ("what is left of the lease", F_UNLCK, WL_SYS(fcntl(fd, F_GETLEASE)));
	lease(fd, F_UNLCK);
}

/* Has a lease of its own until it is broken. */
static int keep_child(void *arg)
{
	int fd = (int)WL_SYS(open_file(1, O_RDONLY));
	char c;

	(void)arg;
	WL_SYS(fcntl(fd, F_SETSIG, sig_kid));
	lease(fd, F_RDLCK);
	WL_SYS(write(tell[1], "r", 1));
	await_breach(fd, sig_kid);
	WL_EQ("a lease that is gone", F_UNLCK, WL_SYS(fcntl(fd, F_GETLEASE)));
	WL_EQ("the first's", F_RDLCK, WL_SYS(fcntl(held, F_GETLEASE))); /* by the description */
	WL_EQ("file", 1, WL_SYS(pread(held, &c, 1, 0)));
	return 44;
}

/* Waits in open(2) until the lease is given back. */
static int write_child(void *arg)
{
	int fd = (int)WL_SYS(open_file(*(int *)arg, O_WRONLY));

	WL_EQ("written", 1, WL_SYS(write(fd, "w", 1)));
	return 45;
}

static void try_write(int i)
{
	int fd = open_file(i, O_WRONLY | O_NONBLOCK);

	WL_CHECK(fd < 0 && errno == EWOULDBLOCK, "writing to a leased file: expected %d, got %d (%d)", EWOULDBLOCK, fd, errno);
}

static void check(void)
{
	struct f_owner_ex own = { 0 };
	int fd;

	WL_EQ("lease", F_RDLCK, WL_SYS(fcntl(held, F_GETLEASE)));
	WL_EQ("lease of the copy", F_RDLCK, WL_SYS(fcntl(copy, F_GETLEASE)));
	WL_EQ("F_GETSIG", sig_own, WL_SYS(fcntl(held, F_GETSIG)));
	WL_SYS(fcntl(held, F_GETOWN_EX, &own));
	WL_EQ("owner", getpid(), own.pid);
	/* reading is no breach */
	fd = (int)WL_SYS(open_file(0, O_RDONLY));
	WL_EQ("another description has none", F_UNLCK, WL_SYS(fcntl(fd, F_GETLEASE)));
	WL_SYS(close(fd));
	lease(passing, WL_SYS(fcntl(passing, F_GETLEASE)) == F_RDLCK ? F_UNLCK : F_RDLCK);
}

int main(void)
{
	int first = 0;
	sigset_t set;
	pid_t kid, writer;
	char c;
	int i, n;

	wl_init();
	sig_own = SIGRTMIN + 1;
	sig_kid = SIGRTMIN + 2;
	sigemptyset(&set);
	sigaddset(&set, sig_own);
	sigaddset(&set, sig_kid);
	WL_SYS(sigprocmask(SIG_BLOCK, &set, NULL));
	for (i = 0; i < 3; i++) {
		snprintf(path[i], sizeof(path[i]), "/tmp/wl-lease.%d.%d", getpid(), i);
		n = (int)WL_SYS(open(path[i], O_WRONLY | O_CREAT | O_TRUNC, 0600));
		WL_SYS(write(n, "r", 1));
		WL_SYS(close(n));
	}
	copy = (int)WL_SYS(open_file(0, O_RDONLY));
	held = (int)WL_SYS(dup(copy));
	passing = (int)WL_SYS(open_file(2, O_RDONLY));
	WL_SYS(fcntl(held, F_SETSIG, sig_own));
	lease(copy, F_RDLCK); /* the lower number */
	WL_SYS(pipe(tell));
	kid = wl_spawn(keep_child, NULL);
	WL_EQ("child", 1, WL_SYS(read(tell[0], &c, 1)));
	wl_ready();
	while (!wl_stopping()) {
		check();
		wl_pace();
	}
	try_write(1);
	wl_reap(kid, 44);
	writer = wl_spawn(write_child, &first);
	await_breach(copy, sig_own);
	wl_reap(writer, 45);
	for (i = 0; i < 3; i++)
		WL_SYS(unlink(path[i]));
	wl_ok();
}
