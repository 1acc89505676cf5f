/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * labhost: what the lab (see the script beside it) cannot do from a shell.
 *
 * A host of the lab is a pid 1 in namespaces of its own: pid, net, mnt, uts, ipc, cgroup, time. The
 * order in which they are made matters:
 *
 *   join HOST's cgroup, then unshare(CLONE_NEWCGROUP)   the namespace's root is the cgroup we are in
 *   move on into HOST/system                            so that HOST itself has no process and may
 *                                                       hand controllers to its children
 *   unshare(NEWTIME), write timens_offsets, then fork   offsets are fixed once a process is inside
 *
 * Pid 1 does nothing but reap. Its death by SIGKILL is the death of the node: the kernel kills all
 * that is in its pid namespace, nested pods included, and their cgroup freezer does not stop that.
 *
 * The root of a host is an overlay over the machine's /, so that a host sees all installed programs
 * and can write anywhere without a trace outside; upper and work directory live in the lab's tmpfs
 * and survive a reboot of the host. An overlay shows no mounts that are below /: those of real file
 * systems are bound, the pseudo ones are made new.
 *
 * Processes are put into a host by "exec" and "spawn": one setns(2) on the pidfd of pid 1, so that a
 * host that is dying or a reused pid cannot lead into a mixture of namespaces.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <limits.h>
#include <net/if.h>
#include <poll.h>
#include <pwd.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#ifndef CLONE_NEWTIME
#define CLONE_NEWTIME 0x00000080
#endif
#define ALL_NS (CLONE_NEWNS | CLONE_NEWNET | CLONE_NEWPID | CLONE_NEWUTS | CLONE_NEWIPC | \
		CLONE_NEWCGROUP | CLONE_NEWTIME)
#define MAX_BINDS 32

struct boot {
	const char *name, *state, *cgroup;
	long long offset; /* of CLOCK_MONOTONIC and CLOCK_BOOTTIME, seconds */
	const char *binds[MAX_BINDS];
	int n_binds;
	char root[PATH_MAX / 2];
};

static void __attribute__((noreturn, format(printf, 1, 2))) die(const char *fmt, ...)
{
	int err = errno;
	va_list ap;

	va_start(ap, fmt);
	fputs("labhost: ", stderr);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
	if (err)
		fprintf(stderr, ": %s", strerror(err));
	fputc('\n', stderr);
	exit(125);
}

static void __attribute__((format(printf, 3, 4))) path_of(char *out, size_t len, const char *fmt, ...)
{
	va_list ap;
	int n;

	va_start(ap, fmt);
	n = vsnprintf(out, len, fmt, ap);
	va_end(ap);
	errno = ENAMETOOLONG;
	if (n < 0 || (size_t)n >= len)
		die("a path is too long");
}

/* Limits are counted in ticks: a machine that stands still has none. */
#define TICK_MS 2

static void wait_tick(void)
{
	const struct timespec tick = {0, TICK_MS * 1000000};

	nanosleep(&tick, NULL);
}

static int write_text(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC);
	ssize_t n;

	if (fd < 0)
		return -1;
	n = write(fd, text, strlen(text));
	close(fd);
	return n < 0 ? -1 : 0;
}

static int mkdir_all(const char *path, mode_t mode)
{
	char buf[PATH_MAX];
	char *p;

	path_of(buf, sizeof(buf), "%s", path);
	for (p = buf + 1; *p; p++) {
		if (*p != '/')
			continue;
		*p = '\0';
		if (mkdir(buf, 0755) < 0 && errno != EEXIST)
			return -1;
		*p = '/';
	}
	return mkdir(buf, mode) < 0 && errno != EEXIST ? -1 : 0;
}

/* The start time of a process: with the pid it names one process for good. 0: no such process. */
static unsigned long long start_of(pid_t pid)
{
	char path[64], buf[1024];
	unsigned long long start = 0;
	const char *p;
	ssize_t n;
	int fd, i;

	path_of(path, sizeof(path), "/proc/%d/stat", pid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return 0;
	n = read(fd, buf, sizeof(buf) - 1);
	close(fd);
	if (n <= 0)
		return 0;
	buf[n] = '\0';
	p = strrchr(buf, ')');
	if (!p || p[2] == 'Z' || p[2] == 'X')
		return 0;
	for (i = 2; p && i < 22; i++)
		p = strchr(p + 1, ' ');
	if (p)
		start = strtoull(p + 1, NULL, 10);
	return start;
}

/* @id is "PID:STARTTIME". Returns a pidfd of exactly that process or -1. */
static int open_process(const char *id, pid_t *pid)
{
	unsigned long long start;
	int fd, p;

	errno = EINVAL;
	if (sscanf(id, "%d:%llu", &p, &start) != 2 || p <= 1)
		return -1;
	fd = (int)syscall(SYS_pidfd_open, p, 0);
	if (fd < 0)
		return -1;
	if (start_of(p) != start) {
		close(fd);
		errno = ESRCH;
		return -1;
	}
	*pid = p;
	return fd;
}

static void join_cgroup(const char *cgroup, const char *sub)
{
	char path[PATH_MAX];

	path_of(path, sizeof(path), "%s%s", cgroup, sub);
	if (mkdir_all(path, 0755) < 0)
		die("cgroup '%s'", path);
	path_of(path, sizeof(path), "%s%s/cgroup.procs", cgroup, sub);
	if (write_text(path, "0") < 0)
		die("join '%s'", path);
}

/* ---- the root view of a host */

static void mount_at(const struct boot *b, const char *dir, const char *type, unsigned long flags,
		     const char *data)
{
	char path[PATH_MAX];

	path_of(path, sizeof(path), "%s%s", b->root, dir);
	mkdir(path, 0755);
	if (mount(type, path, type, flags, data) < 0)
		die("mount %s on '%s'", type, path);
}

static void bind_at(const struct boot *b, const char *src, const char *dir)
{
	char path[PATH_MAX];

	path_of(path, sizeof(path), "%s%s", b->root, dir);
	if (mkdir_all(path, 0755) < 0)
		die("directory '%s'", path);
	if (mount(src, path, NULL, MS_BIND | MS_REC, NULL) < 0)
		die("bind '%s' on '%s'", src, path);
}

static bool has_prefix(const char *path, const char *dir)
{
	size_t n = strlen(dir);

	return !strncmp(path, dir, n) && (path[n] == '/' || path[n] == '\0');
}

/* Mounts of real file systems below /, e.g. a /home or /usr of its own: bound as they are. */
static void bind_submounts(const struct boot *b)
{
	static const char *const own[] = {"/proc", "/sys", "/dev", "/run", "/tmp"};
	static const char *const real[] = {"overlay", "btrfs", "zfs", "9p", "virtiofs"};
	char line[2 * PATH_MAX], dir[PATH_MAX], type[64], source[PATH_MAX];
	FILE *f = fopen("/proc/self/mountinfo", "re");
	const char *sep;
	struct stat st;
	bool skip;
	size_t i;

	if (!f)
		die("mountinfo");
	while (fgets(line, sizeof(line), f)) {
		sep = strstr(line, " - ");
		if (!sep || sscanf(line, "%*d %*d %*s %*s %4095s", dir) != 1 ||
		    sscanf(sep, " - %63s %4095s", type, source) != 2)
			continue;
		skip = source[0] != '/' && !strstr(type, "nfs") && strncmp(type, "fuse.", 5) != 0;
		for (i = 0; i < sizeof(real) / sizeof(real[0]); i++)
			skip = skip && strcmp(type, real[i]) != 0;
		for (i = 0; i < sizeof(own) / sizeof(own[0]); i++)
			skip = skip || has_prefix(dir, own[i]);
		if (skip || !strcmp(dir, "/") || has_prefix(dir, b->state) || strchr(dir, '\\') ||
		    stat(dir, &st) < 0 || !S_ISDIR(st.st_mode))
			continue;
		bind_at(b, dir, dir);
	}
	fclose(f);
}

static void make_dev(const struct boot *b)
{
	static const struct {
		const char *name;
		int major, minor;
	} nodes[] = {{"null", 1, 3}, {"zero", 1, 5}, {"full", 1, 7},  {"random", 1, 8},
		     {"urandom", 1, 9}, {"tty", 5, 0}};
	static const struct {
		const char *name, *to;
	} links[] = {{"ptmx", "pts/ptmx"}, {"fd", "/proc/self/fd"}, {"stdin", "/proc/self/fd/0"},
		     {"stdout", "/proc/self/fd/1"}, {"stderr", "/proc/self/fd/2"}};
	char path[PATH_MAX], src[64];
	size_t i;
	int fd;

	mount_at(b, "/dev", "tmpfs", MS_NOSUID, "mode=755,size=1m");
	for (i = 0; i < sizeof(nodes) / sizeof(nodes[0]); i++) {
		path_of(path, sizeof(path), "%s/dev/%s", b->root, nodes[i].name);
		if (mknod(path, S_IFCHR | 0666, makedev(nodes[i].major, nodes[i].minor)) == 0) {
			chmod(path, 0666);
			continue;
		}
		/* no CAP_MKNOD (a container): the machine's own node, bound */
		fd = open(path, O_CREAT | O_WRONLY | O_CLOEXEC, 0666);
		if (fd >= 0)
			close(fd);
		path_of(src, sizeof(src), "/dev/%s", nodes[i].name);
		if (mount(src, path, NULL, MS_BIND, NULL) < 0)
			die("device '%s'", path);
	}
	for (i = 0; i < sizeof(links) / sizeof(links[0]); i++) {
		path_of(path, sizeof(path), "%s/dev/%s", b->root, links[i].name);
		if (symlink(links[i].to, path) < 0)
			die("link '%s'", path);
	}
	mount_at(b, "/dev/pts", "devpts", MS_NOSUID | MS_NOEXEC, "newinstance,ptmxmode=0666,mode=620,gid=5");
	mount_at(b, "/dev/shm", "tmpfs", MS_NOSUID | MS_NODEV, "mode=1777");
}

static void make_root(struct boot *b)
{
	static const char *const dirs[] = {"shared", "sockets", "faults"};
	char opts[3 * PATH_MAX], path[PATH_MAX], boot_id[PATH_MAX];
	size_t i;
	int k;

	if (mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0)
		die("make / private");
	path_of(b->root, sizeof(b->root), "%s/hosts/%s/root", b->state, b->name);
	path_of(opts, sizeof(opts), "lowerdir=/,upperdir=%s/hosts/%s/upper,workdir=%s/hosts/%s/work",
		b->state, b->name, b->state, b->name);
	if (mount("overlay", b->root, "overlay", 0, opts) < 0)
		die("overlay over / for %s", b->name);
	bind_submounts(b);
	mount_at(b, "/run", "tmpfs", MS_NOSUID | MS_NODEV, "mode=755");
	mount_at(b, "/tmp", "tmpfs", MS_NOSUID | MS_NODEV, "mode=1777");
	path_of(path, sizeof(path), "%s/run/lock", b->root);
	if (mkdir(path, 01777) < 0)
		die("mkdir '%s'", path);
	make_dev(b);
	mount_at(b, "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL);
	mount_at(b, "/sys", "sysfs", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL);
	mount_at(b, "/sys/fs/cgroup", "cgroup2", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL);

	for (i = 0; i < sizeof(dirs) / sizeof(dirs[0]); i++) {
		path_of(path, sizeof(path), "%s/%s", b->state, dirs[i]);
		bind_at(b, path, path);
	}
	path_of(path, sizeof(path), "%s/shared", b->state);
	bind_at(b, path, "/home/shared");
	for (k = 0; k < b->n_binds; k++)
		bind_at(b, b->binds[k], b->binds[k]);

	path_of(boot_id, sizeof(boot_id), "%s/hosts/%s/boot_id", b->state, b->name);
	path_of(path, sizeof(path), "%s/proc/sys/kernel/random/boot_id", b->root);
	if (mount(boot_id, path, NULL, MS_BIND, NULL) < 0)
		die("a boot_id of its own for %s", b->name);
	if (chdir(b->root) < 0 || syscall(SYS_pivot_root, ".", ".") < 0 ||
	    umount2(".", MNT_DETACH) < 0 || chdir("/") < 0)
		die("pivot_root to '%s'", b->root);
}

static void link_up_lo(void)
{
	struct ifreq ifr = {.ifr_name = "lo", .ifr_flags = IFF_UP | IFF_RUNNING};
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);

	if (fd < 0 || ioctl(fd, SIOCSIFFLAGS, &ifr) < 0)
		die("lo up");
	close(fd);
	/* router solicitations and DAD would be noise; a kernel without IPv6 has no such file */
	write_text("/proc/sys/net/ipv6/conf/default/disable_ipv6", "1");
}

static void __attribute__((noreturn)) stay(void)
{
	int null = open("/dev/null", O_RDWR);

	if (null >= 0) {
		dup2(null, 0);
		dup2(null, 1);
		dup2(null, 2);
	}
	syscall(SYS_close_range, 3, ~0u, 0);
	for (;;)
		pause();
}

static void __attribute__((noreturn)) pid1(struct boot *b, int ready)
{
	umask(022);
	/* here, not in our parent: it needs the machine's /proc */
	if (unshare(CLONE_NEWNS) < 0)
		die("mount namespace");
	make_root(b);
	if (sethostname(b->name, strlen(b->name)) < 0)
		die("sethostname");
	link_up_lo();
	signal(SIGCHLD, SIG_IGN); /* the kernel reaps, those that are re-parented to us too */
	if (write(ready, "R", 1) != 1)
		_exit(125);
	stay();
}

/* Waits for the 'R' of the child that stays, prints "PID:STARTTIME". */
static int report_child(int fd, pid_t child)
{
	char c;

	if (read(fd, &c, 1) != 1)
		return 125; /* it has said why */
	printf("%d:%llu\n", child, start_of(child));
	return fflush(stdout) ? 125 : 0;
}

static int cmd_boot(int argc, char **argv)
{
	struct boot b = {0};
	char text[128];
	pid_t child;
	int p[2], opt;

	while ((opt = getopt(argc, argv, "n:s:c:t:b:")) != -1) {
		switch (opt) {
		case 'n': b.name = optarg; break;
		case 's': b.state = optarg; break;
		case 'c': b.cgroup = optarg; break;
		case 't': b.offset = atoll(optarg); break;
		case 'b':
			if (b.n_binds == MAX_BINDS)
				return 2;
			b.binds[b.n_binds++] = optarg;
			break;
		default: return 2;
		}
	}
	if (!b.name || !b.state || !b.cgroup)
		return 2;
	if (pipe2(p, O_CLOEXEC) < 0)
		die("pipe");
	join_cgroup(b.cgroup, "");
	if (unshare(CLONE_NEWCGROUP) < 0)
		die("cgroup namespace");
	join_cgroup(b.cgroup, "/system");
	if (unshare(ALL_NS & ~(CLONE_NEWCGROUP | CLONE_NEWNS)) < 0)
		die("namespaces");
	path_of(text, sizeof(text), "monotonic %lld 0\nboottime %lld 0\n", b.offset, b.offset);
	if (write_text("/proc/self/timens_offsets", text) < 0)
		die("clock offset %lld", b.offset);
	child = fork();
	if (child < 0)
		die("fork");
	if (!child) {
		setsid();
		pid1(&b, p[1]);
	}
	close(p[1]);
	return report_child(p[0], child);
}

/* A process that does nothing but hold the network namespace of the fabric. */
static int cmd_fabric(int argc, char **argv)
{
	pid_t child;
	int p[2];

	if (argc != 2)
		return 2;
	if (pipe2(p, O_CLOEXEC) < 0)
		die("pipe");
	join_cgroup(argv[1], "");
	child = fork();
	if (child < 0)
		die("fork");
	if (!child) {
		setsid();
		if (unshare(CLONE_NEWNET) < 0)
			die("network namespace");
		link_up_lo();
		if (chdir("/") < 0 || write(p[1], "R", 1) != 1)
			_exit(125);
		stay();
	}
	close(p[1]);
	return report_child(p[0], child);
}

/* ---- processes in a host */

struct enter {
	const char *host, *cgroup, *user, *log;
	char **argv;
	char cwd[PATH_MAX];
};

static pid_t exec_child;

static void forward(int sig, siginfo_t *si, void *ctx)
{
	(void)ctx;
	/* what the tty's driver sends reaches the whole foreground group by itself */
	if (si->si_code <= 0 && exec_child > 0)
		kill(exec_child, sig);
}

static void become(const char *user)
{
	struct passwd *pw;
	char *end;
	uid_t uid = (uid_t)strtoul(user, &end, 10);
	gid_t gid = uid;

	pw = *end ? getpwnam(user) : getpwuid(uid);
	errno = 0;
	if (!pw && *end)
		die("no user '%s'", user);
	if (pw) {
		uid = pw->pw_uid;
		gid = pw->pw_gid;
		setenv("HOME", pw->pw_dir, 1);
		setenv("USER", pw->pw_name, 1);
	}
	if ((pw ? initgroups(pw->pw_name, gid) : setgroups(0, NULL)) < 0 ||
	    setresgid(gid, gid, gid) < 0 || setresuid(uid, uid, uid) < 0)
		die("become %s", user);
}

static void __attribute__((noreturn)) run(const struct enter *en, int cgfd)
{
	if (write(cgfd, "0", 1) != 1)
		die("cgroup of %s", en->host);
	close(cgfd);
	if (!en->cwd[0] || chdir(en->cwd) < 0)
		if (chdir("/") < 0)
			die("chdir /");
	if (en->user)
		become(en->user);
	if (!en->log)
		prctl(PR_SET_PDEATHSIG, SIGKILL);
	execvp(en->argv[0], en->argv);
	fprintf(stderr, "labhost: '%s': %s\n", en->argv[0], strerror(errno));
	_exit(errno == ENOENT ? 127 : 126);
}

static int run_and_wait(const struct enter *en, int cgfd)
{
	static const int sigs[] = {SIGTERM, SIGINT, SIGHUP, SIGQUIT, SIGUSR1, SIGUSR2};
	struct sigaction sa = {.sa_sigaction = forward, .sa_flags = SA_SIGINFO | SA_RESTART};
	sigset_t set, old;
	int status;
	size_t i;

	sigfillset(&set);
	sigprocmask(SIG_BLOCK, &set, &old);
	exec_child = fork();
	if (exec_child < 0)
		die("fork");
	if (!exec_child) {
		sigprocmask(SIG_SETMASK, &old, NULL);
		run(en, cgfd);
	}
	for (i = 0; i < sizeof(sigs) / sizeof(sigs[0]); i++)
		sigaction(sigs[i], &sa, NULL);
	sigprocmask(SIG_SETMASK, &old, NULL);
	while (waitpid(exec_child, &status, 0) < 0)
		if (errno != EINTR)
			die("wait");
	return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
}

/* The daemon is a grandchild whose parent inside has gone: the host's pid 1 reaps it. */
static int run_detached(const struct enter *en, int cgfd, int logfd)
{
	char c = 0, ctl[CMSG_SPACE(sizeof(struct ucred))];
	struct iovec iov = {&c, 1};
	struct msghdr mh = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = ctl,
			    .msg_controllen = sizeof(ctl)};
	struct ucred cred;
	int sv[2], one = 1;
	pid_t mid;

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, sv) < 0 ||
	    setsockopt(sv[0], SOL_SOCKET, SO_PASSCRED, &one, sizeof(one)) < 0)
		die("socketpair");
	mid = fork();
	if (mid < 0)
		die("fork");
	if (!mid) {
		if (fork())
			_exit(0);
		setsid();
		close(0);
		open("/dev/null", O_RDONLY);
		dup2(logfd, 1);
		dup2(logfd, 2);
		if (send(sv[1], "p", 1, 0) != 1)
			_exit(125);
		run(en, cgfd);
	}
	close(sv[1]);
	if (recvmsg(sv[0], &mh, MSG_CMSG_CLOEXEC) != 1 || !CMSG_FIRSTHDR(&mh))
		die("no answer from the new process");
	memcpy(&cred, CMSG_DATA(CMSG_FIRSTHDR(&mh)), sizeof(cred));
	waitpid(mid, NULL, 0);
	printf("%d\n", cred.pid); /* in our pid namespace: the kernel translates */
	return 0;
}

/* exec -p PID:START -c CGROUP [-u USER] [-d LOG] -- CMD... */
static int cmd_exec(int argc, char **argv)
{
	struct enter en = {0};
	char path[PATH_MAX];
	int opt, pidfd, cgfd, logfd = -1;
	struct stat want, got;
	pid_t pid;

	while ((opt = getopt(argc, argv, "+p:c:u:d:")) != -1) {
		switch (opt) {
		case 'p': en.host = optarg; break;
		case 'c': en.cgroup = optarg; break;
		case 'u': en.user = optarg; break;
		case 'd': en.log = optarg; break;
		default: return 2;
		}
	}
	en.argv = argv + optind;
	if (!en.host || !en.cgroup || !en.argv[0])
		return 2;
	pidfd = open_process(en.host, &pid);
	if (pidfd < 0)
		die("the host is not running (%s)", en.host);
	path_of(path, sizeof(path), "%s/system/cgroup.procs", en.cgroup);
	cgfd = open(path, O_WRONLY | O_CLOEXEC);
	if (cgfd < 0)
		die("open '%s'", path);
	if (en.log) {
		logfd = open(en.log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
		if (logfd < 0)
			die("open '%s'", en.log);
	}
	if (!getcwd(en.cwd, sizeof(en.cwd)) || en.log)
		en.cwd[0] = '\0';
	path_of(path, sizeof(path), "/proc/%d/root", pid);
	if (stat(path, &want) < 0 || setns(pidfd, ALL_NS) < 0 || stat("/", &got) < 0)
		die("enter the host");
	errno = 0;
	if (want.st_dev != got.st_dev || want.st_ino != got.st_ino)
		die("the lab cannot work below chroot(2): its namespaces' root is elsewhere");
	close(pidfd);
	return en.log ? run_detached(&en, cgfd, logfd) : run_and_wait(&en, cgfd);
}

/* ---- small things */

/* kill PID:START SIGNAL MS: sends it and waits for the end; SIGKILL when MS are over. */
static int cmd_kill(int argc, char **argv)
{
	struct pollfd p = {.events = POLLIN};
	pid_t pid;

	if (argc != 4)
		return 2;
	p.fd = open_process(argv[1], &pid);
	if (p.fd < 0)
		return 0;
	if (syscall(SYS_pidfd_send_signal, p.fd, atoi(argv[2]), NULL, 0) < 0 && errno != ESRCH)
		die("signal %s to %s", argv[2], argv[1]);
	if (poll(&p, 1, atoi(argv[3])) == 1)
		return 0;
	syscall(SYS_pidfd_send_signal, p.fd, SIGKILL, NULL, 0);
	if (poll(&p, 1, 10000) != 1)
		die("process %d does not end", pid);
	return 0;
}

/* alive PID:START... : succeeds if all are */
static int cmd_alive(int argc, char **argv)
{
	int i, fd;
	pid_t pid;

	for (i = 1; i < argc; i++) {
		fd = open_process(argv[i], &pid);
		if (fd < 0)
			return 1;
		close(fd);
	}
	return 0;
}

/* wait-socket PATH MS [PID:START]: until something accepts there, or that process is gone */
static int cmd_wait_socket(int argc, char **argv)
{
	struct sockaddr_un sa = {.sun_family = AF_UNIX};
	int fd, pidfd, ticks;
	pid_t pid;

	if (argc < 3 || strlen(argv[1]) >= sizeof(sa.sun_path))
		return 2;
	strcpy(sa.sun_path, argv[1]);
	ticks = atoi(argv[2]) / TICK_MS;
	do {
		fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
		if (fd < 0)
			die("socket");
		if (connect(fd, (struct sockaddr *)&sa, sizeof(sa)) == 0)
			return 0;
		close(fd);
		if (argc > 3) {
			pidfd = open_process(argv[3], &pid);
			if (pidfd < 0)
				return 1;
			close(pidfd);
		}
		wait_tick();
	} while (ticks-- > 0);
	return 1;
}

static bool cgroup_populated(const char *dir)
{
	char path[PATH_MAX], buf[256] = "";
	ssize_t n;
	int fd;

	path_of(path, sizeof(path), "%s/cgroup.events", dir);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return false;
	n = read(fd, buf, sizeof(buf) - 1);
	close(fd);
	return n > 0 && strstr(buf, "populated 1");
}

static int rmdir_tree(const char *dir)
{
	struct dirent *de;
	char path[PATH_MAX];
	DIR *d = opendir(dir);

	if (!d)
		return errno == ENOENT ? 0 : -1;
	while ((de = readdir(d))) {
		if (de->d_type != DT_DIR || !strcmp(de->d_name, ".") || !strcmp(de->d_name, ".."))
			continue;
		path_of(path, sizeof(path), "%s/%s", dir, de->d_name);
		rmdir_tree(path);
	}
	closedir(d);
	return rmdir(dir) < 0 && errno != ENOENT ? -1 : 0;
}

/* cgdown PATH MS: kills everything in a cgroup and below, removes the directories. */
static int cmd_cgdown(int argc, char **argv)
{
	char path[PATH_MAX];
	int ticks;

	if (argc != 3)
		return 2;
	ticks = atoi(argv[2]) / TICK_MS;
	path_of(path, sizeof(path), "%s/cgroup.kill", argv[1]);
	while (access(argv[1], F_OK) == 0) {
		if (write_text(path, "1") < 0 && errno != ENOENT && errno != ENODEV)
			die("write '%s'", path);
		if (!cgroup_populated(argv[1]) && rmdir_tree(argv[1]) == 0)
			return 0;
		if (ticks-- <= 0)
			die("cgroup '%s' does not become empty", argv[1]);
		wait_tick();
	}
	return 0;
}

/* id PID: prints PID:START */
static int cmd_id(int argc, char **argv)
{
	unsigned long long start = argc == 2 ? start_of(atoi(argv[1])) : 0;

	if (!start)
		return 1;
	printf("%s:%llu\n", argv[1], start);
	return 0;
}

int main(int argc, char **argv)
{
	static const struct {
		const char *name;
		int (*fn)(int argc, char **argv);
	} commands[] = {{"boot", cmd_boot}, {"fabric", cmd_fabric}, {"exec", cmd_exec},
			{"kill", cmd_kill}, {"alive", cmd_alive}, {"cgdown", cmd_cgdown},
			{"wait-socket", cmd_wait_socket}, {"id", cmd_id}};
	size_t i;

	for (i = 0; argc > 1 && i < sizeof(commands) / sizeof(commands[0]); i++)
		if (!strcmp(argv[1], commands[i].name))
			return commands[i].fn(argc - 1, argv + 1);
	fputs("labhost is a part of deploy/lab/lab\n", stderr);
	return 2;
}
