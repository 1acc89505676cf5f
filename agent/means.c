/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * podctl check NODE: has this node what pods and their moves need? Each means is a probe of its own that does
 * the thing, or asks the kernel for it, and leaves nothing; a table. It runs in a thread, since the image store may be a
 * file system that does not answer, and the filter is tried in a network namespace that goes with the thread. There is never
 * more than one such thread, since any user may ask, and one may never come to its end.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/kcmp.h>
#include <linux/magic.h>
#include <net/if.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sched.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "agent/agent.h"
#include "netfreeze/netfreeze.h"
#include "pod/base/fault.h"
#include "pod/base/io.h"
#include "pod/base/kernel.h"
#include "pod/base/util.h"

#define ROOM_LOW (1ull << 30)
#define MEMORY_LOW (256ull << 20)
#define ASKERS_MAX 64

/* Copies of what the loop may change. */
struct place {
	char cgroup_root[PATH_MAX], bin_dir[PATH_MAX], images[PATH_MAX], bridge[64];
};

/* A probe says in words what there is, or (false) what there is not. */
typedef bool probe_fn(const struct place *p, char *text, size_t len);

static bool say(char *text, size_t len, bool ok, const char *fmt, ...) __attribute__((format(printf, 4, 5)));

static bool say(char *text, size_t len, bool ok, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, len, fmt, ap);
	va_end(ap);
	return ok;
}

/* ---- the kernel */

static bool probe_kernel(const struct place *p, char *text, size_t len)
{
	struct utsname u = { .release = "" };
	unsigned major = 0, minor = 0;
	bool ok;

	(void)p;
	uname(&u);
	sscanf(u.release, "%u.%u", &major, &minor);
	ok = major > 6 || (major == 6 && minor >= 7);
	return say(text, len, ok, "kernel %s%s", u.release, ok ? "" : ": 6.7 or newer is needed");
}

static bool probe_pagemap(const struct place *p, char *text, size_t len)
{
	static char page[4096] __attribute__((aligned(4096)));
	struct page_region region;
	struct pm_scan_arg a = { .size = sizeof(a), .start = (uintptr_t)page, .end = (uintptr_t)page + sizeof(page),
				 .vec = (uintptr_t)&region, .vec_len = 1, .category_mask = PAGE_IS_PRESENT,
				 .return_mask = PAGE_IS_PRESENT };
	autoclose int fd = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
	bool ok = fd >= 0 && ioctl(fd, PAGEMAP_SCAN, &a) >= 0;

	(void)p;
	if (ok)
		return say(text, len, true, "PAGEMAP_SCAN");
	return say(text, len, false,
		   "no PAGEMAP_SCAN (%s): which pages were written cannot be read; kernel "
		   "6.7 or newer", strerror(errno));
}

static bool probe_userfaultfd(const struct place *p, char *text, size_t len)
{
	struct uffdio_api api = { .api = UFFD_API, .features = UFFD_FEATURE_WP_ASYNC | UFFD_FEATURE_WP_UNPOPULATED };
	autoclose int fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK | UFFD_USER_MODE_ONLY);
	bool ok = fd >= 0 && ioctl(fd, UFFDIO_API, &api) == 0;

	(void)p;
	if (ok)
		return say(text, len, true, "userfaultfd, write-protecting by itself");
	return say(text, len, false,
		   "no userfaultfd that write-protects by itself (%s): kernel 6.7 or "
		   "newer with CONFIG_USERFAULTFD, CONFIG_PTE_MARKER_UFFD_WP", strerror(errno));
}

static bool probe_checkpoint(const struct place *p, char *text, size_t len)
{
	unsigned size = 0;
	bool ok = prctl(PR_SET_MM, PR_SET_MM_MAP_SIZE, &size, 0, 0) == 0 && access("/proc/self/map_files", X_OK) == 0;

	(void)p;
	if (ok)
		return say(text, len, true, "CONFIG_CHECKPOINT_RESTORE");
	return say(text, len, false,
		   "the kernel was built without CONFIG_CHECKPOINT_RESTORE: the state of "
		   "programs cannot be read or made");
}

static bool probe_fds(const struct place *p, char *text, size_t len)
{
	autoclose int pidfd = (int)syscall(SYS_pidfd_open, getpid(), 0), fd = -1;
	bool ok;

	(void)p;
	fd = pidfd < 0 ? -1 : (int)syscall(SYS_pidfd_getfd, pidfd, pidfd, 0);
	ok = fd >= 0 && syscall(SYS_kcmp, getpid(), getpid(), KCMP_FILE, pidfd, fd) == 0;
	if (ok)
		return say(text, len, true, "pidfd_getfd, kcmp");
	return say(text, len, false,
		   "pidfd_getfd or kcmp does not work (%s): CONFIG_KCMP, CAP_SYS_PTRACE", strerror(errno));
}

static bool probe_namespaces(const struct place *p, char *text, size_t len)
{
	static const char *const names[] = { "pid", "net", "ipc", "uts", "mnt", "cgroup", "time" };
	char path[40];
	size_t i;

	(void)p;
	for (i = 0; i < ARRAY_SIZE(names); i++) {
		snprintf(path, sizeof(path), "/proc/self/ns/%s", names[i]);
		if (access(path, F_OK) < 0)
			return say(text, len, false, "the kernel has no %s namespaces", names[i]);
	}
	return say(text, len, true, "namespaces, of clocks too");
}

static bool probe_cgroup(const struct place *p, char *text, size_t len)
{
	autoclose int dir = open(p->cgroup_root, O_PATH | O_DIRECTORY | O_CLOEXEC);
	struct statfs fs = { .f_type = 0 };

	if (dir < 0 || fstatfs(dir, &fs) < 0 || fs.f_type != CGROUP2_SUPER_MAGIC)
		return say(text, len, false, "'%s' is no directory of cgroup v2: pods cannot be held together", p->cgroup_root);
	if (faccessat(dir, "cgroup.freeze", W_OK, 0) < 0)
		return say(text, len, false, "'%s' has no cgroup.freeze (%s)", p->cgroup_root, strerror(errno));
	return say(text, len, true, "cgroup v2 with its freezer");
}

static bool probe_memory_controller(const struct place *p, char *text, size_t len)
{
	autofree char *list = NULL;
	char path[PATH_MAX + 32];
	bool ok;

	snprintf(path, sizeof(path), "%s/cgroup.controllers", p->cgroup_root);
	ok = io_read_file(path, 4096, &list, NULL, NULL) >= 0 && strstr(list, "memory");
	if (ok)
		return say(text, len, true, "memory controller");
	return say(text, len, false, "cgroup v2 has no memory controller here: podrun --memory is refused");
}

static bool probe_timers(const struct place *p, char *text, size_t len)
{
	bool ok = prctl(PR_TIMER_CREATE_RESTORE_IDS, PR_TIMER_CREATE_RESTORE_IDS_GET, 0, 0, 0) >= 0;

	(void)p;
	if (ok)
		return say(text, len, true, "POSIX timers keep their numbers");
	return say(text, len, false, "no pod with POSIX timers (timer_create) can come here: kernel 6.15 or newer");
}

/* ---- the network */

static bool probe_repair(const struct place *p, char *text, size_t len)
{
	autoclose int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	int one = 1;
	bool ok = fd >= 0 && setsockopt(fd, IPPROTO_TCP, TCP_REPAIR, &one, sizeof(one)) == 0;

	(void)p;
	if (ok)
		return say(text, len, true, "TCP_REPAIR");
	return say(text, len, false, "no TCP_REPAIR (%s): connections cannot be carried", strerror(errno));
}

/* In a network of its own, which is gone with it: this thread does nothing else. */
static bool probe_nftables(const struct place *p, char *text, size_t len)
{
	struct err e = { 0 };
	autoclose int netns = -1;
	struct filter *f = NULL;
	int r;

	(void)p;
	if (unshare(CLONE_NEWNET) < 0)
		return say(text, len, false, "no network namespace can be made (%s)", strerror(errno));
	netns = open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC);
	r = netns < 0 ? err_sys(&e, "the namespace") : filter_prepare(netns, &e);
	if (r >= 0)
		r = filter_open(netns, &f, &e);
	if (r >= 0)
		r = filter_set(f, FILTER_BLOCK, &e);
	filter_free(f);
	if (r >= 0)
		return say(text, len, true, "nftables");
	return say(text, len, false, "nftables do not work (%s): the pod's network cannot be held", e.msg);
}

static bool probe_diag(const struct place *p, char *text, size_t len)
{
	autoclose int netns = open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC);
	struct tcp_unheld n;
	struct err e = { 0 };
	autoclose int fd = netns < 0 ? -1 : tcp_unheld_open(netns, &e);
	bool ok = fd >= 0 && tcp_unheld(fd, &n, &e) >= 0;

	(void)p;
	if (ok)
		return say(text, len, true, "sock_diag");
	return say(text, len, false, "the kernel does not list sockets (%s): CONFIG_INET_DIAG", e.msg);
}

static bool probe_bridge(const struct place *p, char *text, size_t len)
{
	if (!p->bridge[0])
		return say(text, len, true, "no bridge is configured: pods have no network outside");
	if (!if_nametoindex(p->bridge))
		return say(text, len, false, "there is no bridge '%s' ([agent] bridge): pods get no address", p->bridge);
	return say(text, len, true, "bridge '%s'", p->bridge);
}

/* ---- what is installed, and room */

static bool probe_programs(const struct place *p, char *text, size_t len)
{
	static const char *const names[] = { "pod-engine", "podinit" };
	char path[PATH_MAX + 16];
	size_t i;

	for (i = 0; i < ARRAY_SIZE(names); i++) {
		snprintf(path, sizeof(path), "%s/%s", p->bin_dir, names[i]);
		if (access(path, X_OK) < 0)
			return say(text, len, false, "'%s': %s", path, strerror(errno));
	}
	return say(text, len, true, "pod-engine and podinit");
}

static bool probe_images(const struct place *p, char *text, size_t len)
{
	struct statvfs v;
	uint64_t room;

	if (statvfs(p->images, &v) < 0)
		return say(text, len, false, "the image store '%s': %s; no checkpoint goes there", p->images, strerror(errno));
	room = (uint64_t)v.f_bavail * v.f_frsize;
	if (v.f_flag & ST_RDONLY)
		return say(text, len, false, "the image store '%s' is read-only: no checkpoint goes there", p->images);
	return say(text, len, room >= ROOM_LOW, "%s%lu MiB of room for images in '%s'", room >= ROOM_LOW ? "" : "only ",
		   (unsigned long)(room >> 20), p->images);
}

static bool probe_memory(const struct place *p, char *text, size_t len)
{
	autofree char *all = NULL;
	const char *s;
	uint64_t room = 0;

	(void)p;
	s = io_read_file("/proc/meminfo", 65536, &all, NULL, NULL) < 0 ? NULL : strstr(all, "MemAvailable:");
	if (s)
		room = strtoull(s + strlen("MemAvailable:"), NULL, 10) * 1024;
	return say(text, len, room >= MEMORY_LOW, "%s%lu MiB of memory are available", room >= MEMORY_LOW ? "" : "only ",
		   (unsigned long)(room >> 20));
}

static const struct {
	const char *name;
	bool needed;
	probe_fn *probe;
} means[] = {
	{ "kernel", true, probe_kernel },
	{ "pagemap-scan", true, probe_pagemap },
	{ "userfaultfd", true, probe_userfaultfd },
	{ "checkpoint-restore", true, probe_checkpoint },
	{ "descriptors", true, probe_fds },
	{ "namespaces", true, probe_namespaces },
	{ "cgroup-freezer", true, probe_cgroup },
	{ "sock-diag", true, probe_diag },
	{ "tcp-repair", true, probe_repair },
	{ "bridge", true, probe_bridge },
	{ "nftables", true, probe_nftables }, /* from here on in another network */
	{ "programs", true, probe_programs },
	{ "memory-controller", false, probe_memory_controller },
	{ "timer-numbers", false, probe_timers },
	{ "images", false, probe_images },
	{ "memory", false, probe_memory },
};

/* ---- the answer */

struct check {
	struct agent *agent;
	uint32_t id[ASKERS_MAX]; /* whom it is answered */
	size_t n;
	struct place place;
	bool ok[ARRAY_SIZE(means)];
	char text[ARRAY_SIZE(means)][PATH_MAX + 200];
};

static int check_thread(void *arg, struct err *e)
{
	struct check *k = arg;
	char lacks[32] = ""; /* tests only */
	size_t i;

	(void)e;
	fault_word("agent", "means", lacks, sizeof(lacks));
	fault_point("agent", "check", NULL);
	for (i = 0; i < ARRAY_SIZE(means); i++) {
		k->ok[i] = means[i].probe(&k->place, k->text[i], sizeof(k->text[i]));
		if (!strcmp(lacks, means[i].name))
			k->ok[i] = say(k->text[i], sizeof(k->text[i]), false, "%s is taken away by a test", means[i].name);
	}
	return 0;
}

static void check_done(void *arg, int r, const struct err *e)
{
	struct check *k = arg;
	Pm__Finding found[ARRAY_SIZE(means)], *list[ARRAY_SIZE(means)];
	size_t i;

	(void)r;
	(void)e;
	LINK_ENVELOPE(env, check_node_rep, CHECK_NODE_REP, Pm__CheckNodeRep, pm__check_node_rep__init);
	for (i = 0; i < ARRAY_SIZE(means); i++) {
		pm__finding__init(&found[i]);
		list[i] = &found[i];
		found[i].name = (char *)(uintptr_t)means[i].name;
		found[i].ok = k->ok[i];
		found[i].needed = means[i].needed;
		found[i].text = k->text[i];
	}
	env_body.node = k->agent->conf.agent_name;
	env_body.findings = list;
	env_body.n_findings = ARRAY_SIZE(list);
	for (i = 0; i < k->n; i++) {
		env.id = k->id[i];
		agent_send(k->agent, &env);
	}
	k->agent->check = NULL;
	free(k);
}

static int begin(struct agent *a, struct err *e)
{
	struct check *k = calloc(1, sizeof(*k));

	if (!k)
		return err_num(e, ENOMEM, "check");
	k->agent = a;
	snprintf(k->place.cgroup_root, sizeof(k->place.cgroup_root), "%s", a->cgroup_root);
	snprintf(k->place.bin_dir, sizeof(k->place.bin_dir), "%s", a->bin_dir);
	snprintf(k->place.images, sizeof(k->place.images), "%s", a->conf.images_dir);
	snprintf(k->place.bridge, sizeof(k->place.bridge), "%s", a->conf.agent_bridge);
	if (task_run(a, check_thread, check_done, k) < 0) {
		free(k);
		return err_num(e, ENOMEM, "thread");
	}
	a->check = k;
	return 0;
}

void agent_check(struct agent *a, uint32_t id, const Pm__CheckNodeReq *m)
{
	struct err e = { 0 };
	int r = a->check ? 0 : begin(a, &e);

	(void)m;
	if (r >= 0 && a->check->n == ASKERS_MAX)
		r = err_set(&e, EBUSY, "a check of this node has not come to its end for long");
	if (r < 0)
		agent_send_error(a, id, 1, &e, "", "");
	else
		a->check->id[a->check->n++] = id;
}
