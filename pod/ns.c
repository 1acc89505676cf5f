/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Making and ending a pod's namespaces.
 *
 *	engine --fork--> helper --clone3(CLONE_PARENT | NEWPID | NEWNS | ...)--> pid 1
 *
 * The helper exists because a time namespace's offsets can be written only before anybody is in it:
 * unshare(CLONE_NEWTIME) leaves the caller where it is and puts its next child inside, and a process
 * that has done this once can start no ordinary children any more. It also does what needs the
 * user's credentials, so that the engine's own never change. By CLONE_PARENT pid 1 is the engine's
 * child, not the helper's; when the engine ends it is adopted like any orphan and lives on.
 *
 * pid 1 makes its cgroup namespace itself: CLONE_NEWCGROUP with CLONE_INTO_CGROUP in one call would
 * root it at the helper's cgroup.
 *
 * Helper and pid 1 report over one SOCK_SEQPACKET pair, each with one struct report; pid 1 then
 * waits for a byte, sent when the engine has put eth0 into the namespace. Whatever goes wrong ends
 * in pod_ns_destroy(), which needs no knowledge of how far it came.
 */
#include "pod/ns.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/sched.h>
#include <net/if.h>
#include <netinet/in.h>
#include <arpa/inet.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/pidfd.h>
#include <sys/rseq.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "control.pb-c.h"
#include "netfreeze/netfreeze.h"
#include "pod/base/io.h"
#include "pod/base/util.h"
#include "pod/ns_int.h"

#define STATUS_FD (POD_NS_CHILD_FD + 1)

enum reporter { FROM_HELPER, FROM_PID1 };

struct report {
	enum reporter from;
	pid_t pid; /* FROM_HELPER: of pid 1 */
	struct err err;
};

struct create {
	const Pm__PodSpec *spec;
	const struct pod_place *place;
	const struct pod_clock *clock;
	int (*entry)(void *arg);
	void *arg;
	struct pod_mounts mounts;
	int cgroup;
	int sock[2];   /* [1] becomes POD_NS_CHILD_FD */
	int status[2]; /* [0] the engine's */
};

/* The line of @clock in /proc/self/timens_offsets, in ns against the initial time namespace. */
static int node_offset(const char *text, const char *clock, int64_t *out, struct err *e)
{
	const char *p = strstr(text, clock);
	long long sec, ns;

	if (!p || sscanf(p + strlen(clock), "%lld %lld", &sec, &ns) != 2)
		return err_set(e, EPROTO, "timens_offsets: no %s", clock);
	*out = sec * (int64_t)NSEC_PER_SEC + ns;
	return 0;
}

/* sec may be negative, ns not: floor, not truncation. */
static int format_offset(char *buf, size_t len, const char *clock, int64_t off)
{
	int64_t sec = off / (int64_t)NSEC_PER_SEC, ns = off % (int64_t)NSEC_PER_SEC;

	if (ns < 0) {
		ns += (int64_t)NSEC_PER_SEC;
		sec--;
	}
	return snprintf(buf, len, "%s %lld %lld\n", clock, (long long)sec, (long long)ns);
}

static int make_timens(const struct pod_clock *c, struct err *e)
{
	autofree char *text = NULL;
	int64_t mono, boot;
	char buf[128];
	int r, n;

	if (unshare(CLONE_NEWTIME) < 0)
		return err_sys(e, "unshare the time namespace");
	if (!c || !c->set)
		return 0; /* it starts with the offsets of the caller's */
	r = io_read_file("/proc/self/timens_offsets", 4096, &text, NULL, e);
	if (r == 0)
		r = node_offset(text, "monotonic", &mono, e);
	if (r == 0)
		r = node_offset(text, "boottime", &boot, e);
	if (r < 0)
		return r;
	mono += (int64_t)(c->mono_ns - c->at_ns);
	boot += (int64_t)(c->boot_ns - c->at_boot_ns);
	n = format_offset(buf, sizeof(buf), "monotonic", mono);
	format_offset(buf + n, sizeof(buf) - (size_t)n, "boottime", boot);
	r = io_write_file("/proc/self/timens_offsets", buf, e);
	return r < 0 ? err_wrap(e, "clock offsets of the pod") : 0;
}

static int loopback_up(struct err *e)
{
	autoclose int s = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	struct ifreq ifr = { .ifr_name = "lo", .ifr_flags = IFF_UP | IFF_RUNNING };

	if (s < 0 || ioctl(s, SIOCSIFFLAGS, &ifr) < 0)
		return err_sys(e, "bring up lo");
	return 0;
}

/* As systemd does on a node: everybody may ping, by an ICMP socket, for setuid and file capabilities are of no use in a user's pod. */
static int let_ping(struct err *e)
{
	return io_write_file("/proc/sys/net/ipv4/ping_group_range", "0 2147483647", e);
}

/* glibc registered rseq for the engine, and fork keeps that. */
static void rseq_off(void)
{
	void *area = (char *)__builtin_thread_pointer() + __rseq_offset;

	if (syscall(SYS_rseq, area, __rseq_size, RSEQ_FLAG_UNREGISTER, RSEQ_SIG) < 0)
		(void)!syscall(SYS_rseq, area, 32, RSEQ_FLAG_UNREGISTER, RSEQ_SIG);
}

static int only_these_fds(struct create *c, struct err *e)
{
	autoclose int null = -1;

	/* out of the way first: one of them may sit on the other's number */
	int status = fcntl(c->status[1], F_DUPFD_CLOEXEC, STATUS_FD + 1);
	int sock = fcntl(c->sock[1], F_DUPFD_CLOEXEC, STATUS_FD + 1);

	if (status < 0 || sock < 0 || dup3(status, STATUS_FD, O_CLOEXEC) < 0 ||
	    dup2(sock, POD_NS_CHILD_FD) < 0)
		return err_sys(e, "place the fds of pid 1");
	c->status[1] = STATUS_FD;
	null = open("/dev/null", O_RDWR | O_CLOEXEC);
	if (null < 0)
		return err_sys(e, "open the pod's /dev/null");
	for (int fd = 0; fd < 3; fd++)
		if (dup2(null, fd) < 0)
			return err_sys(e, "place fd %d of pid 1", fd);
	if (null < 3)
		take_fd(&null);
	else
		close_fdp(&null);
	close_range(3, POD_NS_CHILD_FD - 1, 0);
	close_range(STATUS_FD + 1, ~0u, 0);
	return 0;
}

static int pid1_prepare(struct create *c, struct err *e)
{
	const Pm__PodSpec *s = c->spec;
	const char *host = s->hostname && s->hostname[0] ? s->hostname : s->name;
	sigset_t none;
	int r;

	/* CLONE_CLEAR_SIGHAND leaves ignored what the engine ignores */
	for (int sig = 1; sig < NSIG; sig++)
		signal(sig, SIG_DFL);
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	umask(022);
	if (setsid() < 0)
		return err_sys(e, "setsid");
	if (unshare(CLONE_NEWCGROUP) < 0)
		return err_sys(e, "unshare the cgroup namespace");
	if (sethostname(host, strlen(host)) < 0)
		return err_sys(e, "set the host name '%s'", host);
	r = loopback_up(e);
	if (r == 0)
		r = let_ping(e);
	if (r == 0)
		r = pod_mounts_enter(s, &c->mounts, c->place->dir, e);
	if (r == 0 && s->cpus && s->cpus[0])
		r = pod_cpus_set(s->cpus, e);
	return r < 0 ? r : only_these_fds(c, e);
}

static _Noreturn void pid1_main(struct create *c)
{
	struct report rep = { .from = FROM_PID1 };
	char go;

	rep.err.code = pid1_prepare(c, &rep.err);
	if (send(c->status[1], &rep, sizeof(rep), MSG_NOSIGNAL) < 0 || rep.err.code < 0)
		_exit(127);
	if (recv(c->status[1], &go, 1, 0) != 1)
		_exit(127);
	close(c->status[1]);
	rseq_off();
	_exit(c->entry(c->arg) < 0 ? 127 : 0);
}

static int helper_prepare(struct create *c, pid_t *pid, struct err *e)
{
	struct clone_args ca = {
		.flags = CLONE_NEWPID | CLONE_NEWNS | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS |
			 CLONE_PARENT | CLONE_INTO_CGROUP | CLONE_CLEAR_SIGHAND,
		.cgroup = (uint64_t)c->cgroup,
	};
	long r;

	r = pod_mounts_open(c->spec, &c->mounts, e);
	if (r == 0)
		r = make_timens(c->clock, e);
	if (r < 0)
		return (int)r;
	r = syscall(SYS_clone3, &ca, sizeof(ca));
	if (r < 0)
		return err_sys(e, "clone the pod's pid 1");
	if (r == 0)
		pid1_main(c);
	*pid = (pid_t)r;
	return 0;
}

static _Noreturn void helper_main(struct create *c)
{
	struct report rep = { .from = FROM_HELPER, .pid = -1 };

	rep.err.code = helper_prepare(c, &rep.pid, &rep.err);
	_exit(send(c->status[1], &rep, sizeof(rep), MSG_NOSIGNAL) < 0);
}

static int get_report(struct create *c, struct report *rep, uint64_t deadline, struct err *e)
{
	ssize_t n;
	int r;

	r = io_wait_readable(c->status[0], deadline, e);
	if (r < 0)
		return r;
	n = recv(c->status[0], rep, sizeof(*rep), 0);
	if (n == 0)
		return err_set(e, EPIPE, "the pod's pid 1 died while it was being made");
	if (n != (ssize_t)sizeof(*rep))
		return err_sys(e, "hear from the pod's pid 1");
	if (rep->err.code < 0 && e)
		*e = rep->err;
	return rep->err.code;
}

static int make_eth0(const struct create *c, pid_t pid, struct err *e)
{
	const Pm__PodSpec *s = c->spec;
	autoclose int netns = -1;
	struct in_addr ip, gw = { 0 };
	uint8_t mac[6];
	char path[64];

	if (!s->ip || !s->ip[0])
		return 0;
	if (inet_pton(AF_INET, s->ip, &ip) != 1)
		return err_set(e, EINVAL, "'%s' is no IPv4 address", s->ip);
	if (s->gateway && s->gateway[0] && inet_pton(AF_INET, s->gateway, &gw) != 1)
		return err_set(e, EINVAL, "'%s' is no IPv4 address", s->gateway);
	if (!s->mac || sscanf(s->mac, "%2hhx:%2hhx:%2hhx:%2hhx:%2hhx:%2hhx", &mac[0], &mac[1],
			      &mac[2], &mac[3], &mac[4], &mac[5]) != 6)
		return err_set(e, EINVAL, "'%s' is no MAC address", s->mac ? s->mac : "");
	snprintf(path, sizeof(path), "/proc/%d/ns/net", pid);
	netns = open(path, O_RDONLY | O_CLOEXEC);
	if (netns < 0)
		return err_sys(e, "open '%s'", path);
	return link_make_veth(netns, c->place->host_link, mac, ip.s_addr, s->prefix, gw.s_addr, e);
}

/* From the helper's start to a pid 1 that waits for the word to go. */
static int run_helper(struct create *c, struct pod_ns *ns, uint64_t deadline, struct err *e)
{
	struct report rep = { .pid = -1 };
	pid_t helper;
	int r;

	helper = fork();
	if (helper < 0)
		return err_sys(e, "fork");
	if (helper == 0)
		helper_main(c);
	close_fdp(&c->status[1]);
	for (bool pid1_ready = false; !pid1_ready || ns->pid < 0;) {
		r = get_report(c, &rep, deadline, e);
		if (rep.from == FROM_HELPER && r == 0)
			ns->pid = rep.pid;
		if (r < 0)
			break;
		pid1_ready |= rep.from == FROM_PID1;
	}
	if (r < 0)
		kill(helper, SIGKILL);
	waitpid(helper, NULL, 0);
	if (r < 0)
		return r;
	ns->pidfd = pidfd_open(ns->pid, 0);
	if (ns->pidfd < 0)
		return err_sys(e, "pidfd of the pod's pid 1");
	return make_eth0(c, ns->pid, e);
}

static void create_done(struct create *c)
{
	close_fdp(&c->cgroup);
	for (int i = 0; i < 2; i++) {
		close_fdp(&c->sock[i]);
		close_fdp(&c->status[i]);
	}
}

int pod_ns_create(const Pm__PodSpec *spec, const struct pod_place *place,
		  const struct pod_clock *clock, int (*entry)(void *arg), void *arg,
		  uint64_t deadline, struct pod_ns *out, struct err *e)
{
	struct create c = { .spec = spec, .place = place, .clock = clock, .entry = entry,
			    .arg = arg,	  .cgroup = -1,	  .sock = { -1, -1 }, .status = { -1, -1 } };
	struct pod_ns ns = { .pid = -1, .pidfd = -1, .sock = -1 };
	int r;

	c.cgroup = r = pod_cgroup_make(place->cgroup, spec, e);
	if (r < 0)
		return r;
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, c.sock) < 0 ||
	    socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, c.status) < 0)
		r = err_sys(e, "socketpair");
	else
		r = run_helper(&c, &ns, deadline, e);
	if (r == 0 && send(c.status[0], "g", 1, MSG_NOSIGNAL) != 1)
		r = err_sys(e, "start the pod's pid 1");
	if (r == 0)
		ns.sock = take_fd(&c.sock[0]);
	create_done(&c);
	if (r < 0) {
		pod_ns_destroy(place, deadline_ms(5000), NULL);
		if (ns.pid > 0)
			waitpid(ns.pid, NULL, 0);
		pod_ns_done(&ns);
		return r;
	}
	*out = ns;
	return 0;
}

int pod_ns_destroy(const struct pod_place *place, uint64_t deadline, struct err *e)
{
	int r = 0, r2;

	/* the link first: a dying pod must not say FIN or RST to anybody */
	if (place->host_link && place->host_link[0])
		r = link_delete(place->host_link, e);
	r2 = pod_cgroup_remove(place->cgroup, deadline, r < 0 ? NULL : e);
	return r < 0 ? r : r2;
}

void pod_ns_done(struct pod_ns *ns)
{
	close_fdp(&ns->pidfd);
	close_fdp(&ns->sock);
	ns->pid = -1;
}
