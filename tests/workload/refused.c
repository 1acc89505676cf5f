/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * refused KIND: holds one thing that cannot be carried yet, so that the move must be refused before
 * anything is stopped; then the program goes on as if nothing had happened. KIND "list" prints the
 * kinds. Exit code 77 and "skip: why" if this machine does not have the thing.
 *
 * refused needs WHAT...: holds what another node may lack: open:FILE, fifo:FILE, map:FILE (private, for running),
 * cwd:DIR, shm:MIB (a file in /dev/shm), gone: (a working directory without a name), unread: (inotify events), answer: (of the kernel's, by netlink), dispatch: (of system
 * calls, by itself), vfork: (a child of it that stays), unaccepted: (data in an accept queue), node: (a device file in
 * /tmp), pidfds:N, busy: (nothing).
 */
#include "wl.h"

#include <arpa/inet.h>
#include <linux/bpf.h>
#include <linux/if_alg.h>
#include <linux/io_uring.h>
#include <linux/net_tstamp.h>
#include <linux/netlink.h>
#include <linux/filter.h>
#include <linux/if_packet.h>
#include <linux/perf_event.h>
#include <linux/rtnetlink.h>
#include <linux/seccomp.h>
#include <linux/userfaultfd.h>
#include <mqueue.h>
#include <netinet/in.h>
#include <pthread.h>
#include <sched.h>
#include <sys/epoll.h>
#include <sys/file.h>
#include <sys/fanotify.h>
#include <sys/inotify.h>
#include <sys/ipc.h>
#include <sys/mman.h>
#include <sys/msg.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/sem.h>
#include <sys/shm.h>
#include <sys/socket.h>
#include <sys/sysmacros.h>
#include <sys/un.h>

static int fd = -1;

static void skip(const char *why)
{
	printf("skip: %s: %s\n", why, strerror(errno));
	exit(77);
}

static void need(const char *what, long r)
{
	if (r < 0)
		skip(what);
	fd = (int)r;
}

static void io_uring(void)
{
	struct io_uring_params p = { 0 };

	need("io_uring_setup", syscall(SYS_io_uring_setup, 4, &p));
}

static void perf_event(void)
{
	struct perf_event_attr a = { .type = PERF_TYPE_SOFTWARE, .size = sizeof(a),
				     .config = PERF_COUNT_SW_TASK_CLOCK, .exclude_kernel = 1 };

	need("perf_event_open", syscall(SYS_perf_event_open, &a, 0, -1, -1, 0));
}

static void alg(void)
{
	struct sockaddr_alg sa = { .salg_family = AF_ALG, .salg_type = "hash",
				   .salg_name = "sha256" };

	need("AF_ALG socket", socket(AF_ALG, SOCK_SEQPACKET, 0));
	if (bind(fd, (struct sockaddr *)&sa, sizeof(sa)) < 0)
		skip("bind AF_ALG");
}

static void vsock(void)
{
	need("AF_VSOCK socket", socket(AF_VSOCK, SOCK_STREAM, 0));
}

static void netlink(void)
{
	need("netlink socket", socket(AF_NETLINK, SOCK_RAW, NETLINK_GENERIC));
}

static void packet(void)
{
	struct tpacket_req ring = { .tp_block_size = 4096, .tp_block_nr = 1, .tp_frame_size = 2048, .tp_frame_nr = 2 };

	need("packet socket", socket(AF_PACKET, SOCK_DGRAM, 0));
	WL_SYS(setsockopt(fd, SOL_PACKET, PACKET_RX_RING, &ring, sizeof(ring)));
}

static void packet_fanout(void)
{
	struct sockaddr_ll a = { .sll_family = AF_PACKET, .sll_protocol = htons(0x88b5) };
	int group = 0; /* of this number, by hash: getsockopt(2) says the same of one without */

	need("packet socket", socket(AF_PACKET, SOCK_RAW, 0));
	WL_SYS(bind(fd, (struct sockaddr *)&a, sizeof(a)));
	WL_SYS(setsockopt(fd, SOL_PACKET, PACKET_FANOUT, &group, sizeof(group)));
}

static void send_by_time(void)
{
	struct sock_txtime t = { .clockid = CLOCK_MONOTONIC };

	WL_SYS(setsockopt(fd, SOL_SOCKET, SO_TXTIME, &t, sizeof(t)));
}

static void packet_txtime(void)
{
	need("packet socket", socket(AF_PACKET, SOCK_DGRAM, 0));
	send_by_time();
}

static void raw_txtime(void)
{
	need("raw socket", socket(AF_INET, SOCK_RAW, IPPROTO_ICMP));
	send_by_time();
}

static void udp_txtime(void)
{
	need("UDP socket", socket(AF_INET, SOCK_DGRAM, 0));
	send_by_time();
}

static void raw(void)
{
	struct sock_filter all[] = { { BPF_RET | BPF_K, 0, 0, 0xffff } };
	struct sock_fprog prog = { 1, all };
	int one = 1;

	need("raw socket", socket(AF_INET, SOCK_RAW, IPPROTO_ICMP));
	WL_SYS(setsockopt(fd, SOL_SOCKET, SO_ATTACH_FILTER, &prog, sizeof(prog)));
	WL_SYS(setsockopt(fd, SOL_SOCKET, SO_LOCK_FILTER, &one, sizeof(one)));
}

static void raw6(void)
{
	need("raw socket", socket(AF_INET6, SOCK_RAW, IPPROTO_ICMPV6));
}

/* the datagram goes to nobody else, and over lo at once */
static void raw_udp(void)
{
	struct sockaddr_in to = { .sin_family = AF_INET, .sin_port = htons(9), .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	int s;

	need("raw socket", socket(AF_INET, SOCK_RAW, IPPROTO_UDP));
	s = (int)WL_SYS(socket(AF_INET, SOCK_DGRAM, 0));
	WL_EQ("sent", 1, WL_SYS(sendto(s, "?", 1, 0, (struct sockaddr *)&to, sizeof(to))));
	close(s);
}

static void device(void)
{
	/* made there by tests/refused */
	need("/home/shared/data/kmsg", open("/home/shared/data/kmsg", O_RDONLY));
}

static void posix_timer(void)
{
	struct sigevent se = { .sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGURG };
	struct itimerspec its = { { 1, 0 }, { 1000, 0 } };
	timer_t t;

	WL_SYS(timer_create(CLOCK_MONOTONIC, &se, &t));
	WL_SYS(timer_settime(t, 0, &its, NULL));
}

static void inet6(void)
{
	struct sockaddr_in6 sa = { .sin6_family = AF_INET6, .sin6_addr = IN6ADDR_LOOPBACK_INIT };
	struct ipv6_mreq m = { 0 };

	need("AF_INET6 socket", socket(AF_INET6, SOCK_DGRAM, 0));
	if (bind(fd, (struct sockaddr *)&sa, sizeof(sa)) < 0)
		skip("bind to ::1");
	m.ipv6mr_interface = 1; /* lo */
	WL_EQ("inet_pton", 1, inet_pton(AF_INET6, "ff02::4711", &m.ipv6mr_multiaddr));
	if (setsockopt(fd, IPPROTO_IPV6, IPV6_JOIN_GROUP, &m, sizeof(m)) < 0)
		skip("IPV6_JOIN_GROUP");
}

static void udp(void)
{
	struct sockaddr_in sa = { .sin_family = AF_INET,
				  .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };

	need("UDP socket", socket(AF_INET, SOCK_DGRAM, 0));
	sa.sin_port = htons(9);
	/* corked: to be sent with what comes next */
	WL_SYS(sendto(fd, "x", 1, MSG_MORE, (struct sockaddr *)&sa, sizeof(sa)));
}

static void fifo(void)
{
	WL_SYS(mkfifo("/tmp/wl-fifo", 0600));
	need("FIFO", open("/tmp/wl-fifo", O_RDWR));
	WL_SYS(link("/tmp/wl-fifo", "/tmp/wl-fifo-again"));
}

static void bpf_filter(void)
{
	struct bpf_insn code[] = { { 0xb7, 0, 0, 0, 1 }, { 0x95, 0, 0, 0, 0 } }; /* r0 = 1, exit */
	union bpf_attr a;
	int prog;

	memset(&a, 0, sizeof(a));
	a.prog_type = BPF_PROG_TYPE_SOCKET_FILTER;
	a.insns = (uintptr_t)code;
	a.insn_cnt = 2;
	a.license = (uintptr_t)"GPL";
	prog = (int)syscall(SYS_bpf, BPF_PROG_LOAD, &a, sizeof(a));
	if (prog < 0)
		skip("BPF_PROG_LOAD");
	need("unix socket", socket(AF_UNIX, SOCK_DGRAM, 0));
	WL_SYS(setsockopt(fd, SOL_SOCKET, SO_ATTACH_BPF, &prog, sizeof(prog)));
	WL_SYS(close(prog));
}

/* An epoll that is nowhere but under way. */
static void unix_rights(void)
{
	char control[CMSG_SPACE(sizeof(int))] __attribute__((aligned(8))) = { 0 };
	struct iovec iov = { control, 1 };
	struct msghdr mh = { .msg_iov = &iov, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof(control) };
	struct cmsghdr *c = CMSG_FIRSTHDR(&mh);
	int p[2], ep = (int)WL_SYS(epoll_create1(0));

	WL_SYS(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, p));
	c->cmsg_level = SOL_SOCKET;
	c->cmsg_type = SCM_RIGHTS;
	c->cmsg_len = CMSG_LEN(sizeof(int));
	memcpy(CMSG_DATA(c), &ep, sizeof(int));
	WL_EQ("sendmsg", 1, WL_SYS(sendmsg(p[0], &mh, 0)));
	WL_SYS(close(ep));
	fd = p[1];
}

static void inotify(void)
{
	int file = (int)WL_SYS(open("/tmp/wl-watched", O_RDWR | O_CREAT, 0600));

	need("inotify", inotify_init1(0));
	WL_SYS(inotify_add_watch(fd, "/tmp/wl-watched", IN_MODIFY));
	WL_SYS(unlink("/tmp/wl-watched")); /* the file lives on by its fd */
	WL_SYS(fcntl(file, F_SETFD, FD_CLOEXEC));
}

static void hold_unread(const char *path)
{
	int made;

	(void)path;
	need("inotify", inotify_init1(0));
	WL_SYS(inotify_add_watch(fd, "/tmp", IN_CREATE));
	made = (int)WL_SYS(open("/tmp/wl-new", O_RDWR | O_CREAT, 0600));
	WL_SYS(close(made));
}

/* An answer that nobody reads. */
static void hold_answer(const char *none)
{
	struct { struct nlmsghdr h; struct ifinfomsg i; } q = {
		.h = { .nlmsg_len = sizeof(q), .nlmsg_type = RTM_GETLINK, .nlmsg_flags = NLM_F_REQUEST }, .i = { .ifi_index = 1 },
	};
	struct sockaddr_nl kernel = { .nl_family = AF_NETLINK };

	(void)none;
	need("netlink socket", socket(AF_NETLINK, SOCK_RAW, NETLINK_ROUTE));
	WL_EQ("request", sizeof(q), WL_SYS(sendto(fd, &q, sizeof(q), 0, (struct sockaddr *)&kernel, sizeof(kernel))));
}

static void fanotify(void)
{
	need("fanotify", fanotify_init(FAN_CLASS_NOTIF, O_RDONLY));
}

static void userfault(void)
{
	need("userfaultfd", syscall(SYS_userfaultfd, UFFD_USER_MODE_ONLY));
}

static void bpf(void)
{
	union bpf_attr a;

	memset(&a, 0, sizeof(a));
	a.map_type = BPF_MAP_TYPE_ARRAY;
	a.key_size = a.value_size = 4;
	a.max_entries = 1;
	need("bpf map", syscall(SYS_bpf, BPF_MAP_CREATE, &a, sizeof(a)));
}

static void pidfd(void)
{
	need("pidfd", syscall(SYS_pidfd_open, getpid(), 0));
}

static void sysv_shm(void)
{
	int id = (int)syscall(SYS_shmget, IPC_PRIVATE, 4 * 4096, 0600);
	char *at;

	if (id < 0)
		skip("shmget");
	at = shmat(id, NULL, 0);
	WL_CHECK(at != (void *)-1, "shmat: %s", strerror(errno));
	WL_SYS(shmctl(id, IPC_RMID, NULL));
	WL_SYS(munmap(at + 4096, 4096)); /* the whole of one is carried */
}

static void mqueue_notify(void)
{
	struct sigevent ev = { .sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGURG };
	mqd_t q = mq_open("/refused", O_RDWR | O_CREAT, 0600, NULL);

	need("mq_open", q);
	WL_SYS(mq_notify(q, &ev));
}

static void proc_file(void)
{
	need("/proc/self/comm", open("/proc/self/comm", O_RDWR));
}

static void leased(const char *dir, int flags, int type)
{
	char path[64];
	int made;

	snprintf(path, sizeof(path), "%s/wl-lease.%d", dir, getpid());
	made = (int)WL_SYS(open(path, O_RDWR | O_CREAT, 0600));
	WL_SYS(close(made));
	need("file", open(path, flags));
	if (fcntl(fd, F_SETLEASE, type) < 0)
		skip("F_SETLEASE");
}

/* where others can open it, too */
static void lease(void)
{
	leased("/home/shared/data", O_RDONLY, F_RDLCK);
}

static void lease_write(void)
{
	leased("/tmp", O_RDWR, F_WRLCK);
}

static void flock_device(void)
{
	need("device", open("/dev/null", O_RDWR));
	WL_SYS(flock(fd, LOCK_EX));
}

/* ---- tasks that are not like the others of their process */

static void *idle(void *arg)
{
	(void)arg;
	for (;;)
		pause();
	return NULL;
}

static _Atomic bool changed;

static void *other_user(void *arg)
{
	WL_SYS(syscall(SYS_setresuid, 1, 1, 1)); /* this thread alone */
	changed = true;
	return idle(arg);
}

static void thread_creds(void)
{
	pthread_t t;

	WL_ZERO(pthread_create(&t, NULL, other_user, NULL));
	WL_AWAIT(changed, "the thread's ids");
}

/* A set that this process has something to undo of. */
static void undo(void)
{
	int id = semget(IPC_PRIVATE, 1, 0600);
	struct sembuf s = { 0, 1, SEM_UNDO };

	if (id < 0)
		skip("semget");
	WL_SYS(semop(id, &s, 1));
}

static void *undo_alone(void *arg)
{
	WL_SYS(unshare(CLONE_SYSVSEM));
	changed = true;
	return idle(arg);
}

static void sem_thread(void)
{
	pthread_t t;

	undo();
	WL_ZERO(pthread_create(&t, NULL, undo_alone, NULL));
	WL_AWAIT(changed, "the thread's list");
}

static void sem_shared(void)
{
	undo();
	if (!WL_SYS(syscall(SYS_clone, CLONE_SYSVSEM | SIGCHLD, 0, 0, 0, 0))) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		for (;;)
			pause();
	}
}

static void sem_denied(void)
{
	undo();
	WL_SYS(setresuid(1234, 1234, 1234));
	WL_SYS(prctl(PR_SET_DUMPABLE, 1));
}

/* A process takes its locks back by itself if the engine is gone: under its filter. */
static void seccomp_lock(void)
{
	struct sock_filter allow = { BPF_RET | BPF_K, 0, 0, SECCOMP_RET_ALLOW };
	struct sock_fprog prog = { 1, &allow };

	need("/home/shared/data", open("/home/shared/data/wl-lock", O_RDWR | O_CREAT | O_CLOEXEC, 0600));
	WL_SYS(flock(fd, LOCK_EX));
	WL_SYS(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
	WL_SYS(prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &prog));
}

static int sharer(void *arg)
{
	idle(arg);
	return 0;
}

static void shared_memory(void)
{
	static char stack[65536] __attribute__((aligned(16)));

	WL_SYS(prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0));
	WL_SYS(clone(sharer, stack + sizeof(stack), CLONE_VM | SIGCHLD, NULL));
}

static void deadline(void)
{
	struct { uint32_t size, policy; uint64_t flags; int32_t nice; uint32_t prio; uint64_t runtime, deadline, period; } a = {
		.size = sizeof(a), .policy = 6, .runtime = 2 * WL_MS, .deadline = 20 * WL_MS, .period = 20 * WL_MS,
	};

	if (syscall(SYS_sched_setattr, 0, &a, 0) < 0)
		skip("SCHED_DEADLINE");
}

/* A child that has gone where its parent is not, before anybody looks. */
static int apart(void *arg)
{
	int (*go)(void) = (int (*)(void))(uintptr_t)arg;

	if (go() < 0)
		return errno;
	WL_SYS(kill(getpid(), SIGSTOP));
	return sharer(NULL);
}

static void leave(const char *what, int (*go)(void))
{
	pid_t pid = wl_spawn(apart, (void *)(uintptr_t)go);
	int status = -1;

	WL_EQ("waitpid", pid, WL_SYS(waitpid(pid, &status, WUNTRACED)));
	errno = WIFEXITED(status) ? WEXITSTATUS(status) : 0;
	if (!WIFSTOPPED(status))
		skip(what);
	WL_SYS(kill(pid, SIGCONT));
}

static int go_chroot(void)
{
	return chroot("/tmp");
}

static int go_unshare(void)
{
	return unshare(CLONE_NEWUTS | CLONE_NEWIPC);
}

static void chrooted(void)
{
	leave("chroot", go_chroot);
}

static void namespaces(void)
{
	leave("unshare", go_unshare);
}

/* As a debugger would. */
static void traced(void)
{
	if (ptrace(PTRACE_SEIZE, wl_spawn(sharer, NULL), NULL, NULL) < 0)
		skip("PTRACE_SEIZE");
}

static void work(void);

static pthread_t leader;

static void *rest(void *arg)
{
	(void)arg;
	WL_ZERO(pthread_join(leader, NULL));
	WL_SYS(syscall(SYS_setresgid, 12345, 12345, 12345)); /* the main thread's are as they were */
	work();
	return NULL;
}

static void leader_creds(void)
{
	pthread_t t;

	leader = pthread_self();
	WL_ZERO(pthread_create(&t, NULL, rest, NULL));
	pthread_exit(NULL);
}

/* ---- what a node may lack */

static int filefd = -1;
static unsigned char *mapped, first;

static void hold_open(const char *path)
{
	filefd = (int)WL_SYS(open(path, O_RDONLY));
}

static void hold_fifo(const char *path)
{
	filefd = (int)WL_SYS(open(path, O_RDWR));
}

static void hold_map(const char *path)
{
	int f = (int)WL_SYS(open(path, O_RDONLY));

	mapped = mmap(NULL, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE, f, 0);
	WL_CHECK(mapped != MAP_FAILED, "mmap %s: %s", path, strerror(errno));
	first = *mapped;
	close(f);
}

static void hold_cwd(const char *path)
{
	WL_SYS(chdir(path));
}

static void hold_shm(const char *mib)
{
	int f = (int)WL_SYS(open("/dev/shm/held", O_RDWR | O_CREAT | O_TRUNC, 0600));

	WL_SYS(posix_fallocate(f, 0, (off_t)atoi(mib) << 20));
	close(f);
}

static void hold_gone(const char *none)
{
	(void)none;
	WL_SYS(mkdir("/tmp/wl-gone", 0700));
	WL_SYS(chdir("/tmp/wl-gone"));
	WL_SYS(rmdir("/tmp/wl-gone"));
}

/* Every call may come to a handler; here none does. */
static void hold_dispatch(const char *none)
{
	static char allow;

	(void)none;
	if (prctl(59 /* PR_SET_SYSCALL_USER_DISPATCH */, 1, 0, 0, &allow) < 0)
		skip("PR_SET_SYSCALL_USER_DISPATCH");
}

static void *forks(void *none)
{
	pid_t pid = vfork();

	(void)none;
	if (!pid) {
		changed = true; /* for both */
		for (;;)
			pause();
	}
	return NULL;
}

static void hold_vfork(const char *none)
{
	pthread_t t;

	(void)none;
	WL_ZERO(pthread_create(&t, NULL, forks, NULL));
	WL_AWAIT(changed, "the child");
}

static void hold_unaccepted(const char *none)
{
	struct sockaddr_un at = { .sun_family = AF_UNIX, .sun_path = "/tmp/wl-listener" };
	int listener = (int)WL_SYS(socket(AF_UNIX, SOCK_STREAM, 0)), client = (int)WL_SYS(socket(AF_UNIX, SOCK_STREAM, 0));

	(void)none;
	WL_SYS(bind(listener, (struct sockaddr *)&at, sizeof(at)));
	WL_SYS(listen(listener, 1));
	WL_SYS(connect(client, (struct sockaddr *)&at, sizeof(at)));
	WL_EQ("write", 1, WL_SYS(write(client, "x", 1)));
}

static void hold_node(const char *none)
{
	(void)none;
	WL_SYS(mknod("/tmp/wl-node", S_IFCHR | 0600, makedev(1, 3)));
}

static void hold_pidfds(const char *n)
{
	int i;

	for (i = 0; i < atoi(n); i++)
		WL_SYS(syscall(SYS_pidfd_open, getpid(), 0));
}

static void hold_nothing(const char *none)
{
	(void)none;
}

static const struct {
	const char *name;
	void (*hold)(const char *arg);
} needs[] = {
	{ "open:", hold_open }, { "fifo:", hold_fifo }, { "map:", hold_map },	{ "cwd:", hold_cwd },
	{ "shm:", hold_shm },	{ "gone:", hold_gone }, { "unread:", hold_unread }, { "answer:", hold_answer }, { "dispatch:", hold_dispatch }, { "vfork:", hold_vfork },
	{ "unaccepted:", hold_unaccepted }, { "node:", hold_node }, { "pidfds:", hold_pidfds }, { "busy:", hold_nothing },
};

static void hold(const char *what)
{
	size_t i, n;

	for (i = 0; i < ARRAY_SIZE(needs); i++) {
		n = strlen(needs[i].name);
		if (!strncmp(what, needs[i].name, n)) {
			needs[i].hold(what + n);
			return;
		}
	}
	WL_CHECK(0, "'%s' is nothing to be held", what);
}

static const struct {
	const char *name;
	void (*make)(void);
} kinds[] = {
	{ "io_uring", io_uring },   { "perf_event", perf_event }, { "alg", alg },
	{ "vsock", vsock },	    { "netlink", netlink },	  { "packet", packet },
	{ "packet_fanout", packet_fanout }, { "raw6", raw6 },	    { "raw_udp", raw_udp },
	{ "packet_txtime", packet_txtime }, { "raw_txtime", raw_txtime }, { "udp_txtime", udp_txtime },
	{ "raw", raw },		    { "device", device },	  { "posix_timer", posix_timer },
	{ "inet6", inet6 },	    { "udp", udp },		  { "fifo", fifo },
	{ "bpf_filter", bpf_filter }, { "unix_rights", unix_rights }, { "inotify", inotify },	  { "fanotify", fanotify },
	{ "userfaultfd", userfault }, { "bpf", bpf },		  { "pidfd", pidfd },
	{ "sysv_shm", sysv_shm },   { "sem_thread", sem_thread },
	{ "sem_shared", sem_shared }, { "sem_denied", sem_denied }, { "mqueue_notify", mqueue_notify },
	{ "proc_file", proc_file }, { "lease", lease }, { "lease_write", lease_write }, { "flock_device", flock_device },
	{ "thread_creds", thread_creds },
	{ "seccomp_lock", seccomp_lock }, { "shared_memory", shared_memory }, { "leader_creds", leader_creds },
	{ "deadline", deadline }, { "traced", traced }, { "chroot", chrooted }, { "namespace", namespaces },
};

static void work(void)
{
	uint64_t last, now;

	wl_ready();
	last = wl_now();
	while (!wl_stopping()) {
		wl_pace();
		now = wl_now();
		WL_CHECK(now >= last, "CLOCK_MONOTONIC went backward");
		last = now;
		if (fd >= 0)
			WL_SYS(fcntl(fd, F_GETFD));
		if (filefd >= 0)
			WL_SYS(fcntl(filefd, F_GETFD));
		WL_CHECK(!mapped || *mapped == first, "the mapping has changed");
	}
	wl_ok();
}

int main(int argc, char **argv)
{
	size_t i;

	wl_init();
	if (argc > 1 && !strcmp(argv[1], "list")) {
		for (i = 0; i < ARRAY_SIZE(kinds); i++)
			printf("%s\n", kinds[i].name);
		return 0;
	}
	if (argc > 1 && !strcmp(argv[1], "needs")) {
		for (i = 2; i < (size_t)argc; i++)
			hold(argv[i]);
	} else {
		for (i = 0; i < ARRAY_SIZE(kinds); i++)
			if (argc > 1 && !strcmp(argv[1], kinds[i].name))
				break;
		WL_CHECK(i < ARRAY_SIZE(kinds), "kind: expected one of 'refused list'");
		kinds[i].make();
	}
	work();
}
