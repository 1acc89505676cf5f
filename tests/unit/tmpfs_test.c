/* SPDX-License-Identifier: GPL-3.0-or-later */
/* The pod's private trees made from records that mean ill: nothing is written outside of them. */
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "pod/base/io.h"
#include "pod/private.h"
#include "pod/restore.h"
#include "tests/harness.h"

#define MAX_NODES 16

/* A "pod": a process with its own root and private trees, a directory of the node bound to /tmp/bind. */
struct world {
	pid_t pid;
	char node[256], name[4];
	Pm__PodSpec spec;
	Pm__EngineRestore req;
	Pm__Objects objs;
	Pm__Object obj[MAX_NODES], *objp[MAX_NODES];
	uint8_t bytes[MAX_NODES][256];
	struct {
		Pm__Tmpfs msg;
		Pm__TmpfsNode node[MAX_NODES], *nodep[MAX_NODES];
	} tree[2];
	struct restore r;
};

static int pod_main(const char *root, const char *node, bool own_tmp)
{
	char path[300];

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (unshare(CLONE_NEWNS) < 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0 ||
	    mount("root", root, "tmpfs", 0, NULL) < 0 || chdir(root) < 0)
		return 1;
	if (mkdir("tmp", 0755) < 0 || mkdir("run", 0755) < 0 || mkdir("dev", 0755) < 0 || mkdir("dev/shm", 0755) < 0 ||
	    mkdir("etc", 0755) < 0)
		return 2;
	if (own_tmp ? mount("t", "tmp", "tmpfs", 0, "mode=1777") < 0 : mount("/dev/shm", "tmp", NULL, MS_BIND, NULL) < 0)
		return 3;
	if (mount("t", "run", "tmpfs", 0, NULL) < 0 || mount("t", "dev/shm", "tmpfs", 0, NULL) < 0)
		return 4;
	snprintf(path, sizeof(path), "%s", "tmp/bind");
	if (own_tmp && (mkdir(path, 0755) < 0 || mount(node, path, NULL, MS_BIND, NULL) < 0))
		return 5;
	return chroot(".") < 0 ? 6 : 0;
}

static struct world *world_new(uint32_t uid, bool own_tmp)
{
	struct world *w = calloc(1, sizeof(*w));
	char root[256], c = 0;
	int p[2];

	T_REQUIRE(w);
	if (geteuid())
		T_SKIP("needs root, as the engine does");
	snprintf(root, sizeof(root), "%s", t_path("root"));
	snprintf(w->node, sizeof(w->node), "%s", t_path("node"));
	T_REQUIRE(mkdir(root, 0755) == 0 && mkdir(w->node, 0755) == 0 && pipe2(p, O_CLOEXEC) == 0);
	w->pid = fork();
	T_REQUIRE(w->pid >= 0);
	if (!w->pid) {
		c = (char)pod_main(root, w->node, own_tmp);
		if (write(p[1], &c, 1) == 1)
			pause();
		_exit(0);
	}
	close(p[1]);
	T_REQUIRE(read(p[0], &c, 1) == 1);
	close(p[0]);
	T_CHECK_EQ(c, 0);
	pm__pod_spec__init(&w->spec);
	pm__engine_restore__init(&w->req);
	w->spec.uid = w->spec.gid = uid;
	w->spec.user = w->name;
	w->name[0] = 'u';
	w->req.spec = &w->spec;
	pm__objects__init(&w->objs);
	w->objs.objects = w->objp;
	w->r = (struct restore){ .ns = { .pid = w->pid }, .req = &w->req, .objs = &w->objs };
	return w;
}

static void world_free(struct world *w)
{
	size_t i;

	for (i = 0; i < w->r.ncontents; i++) {
		close_fdp(&w->r.contents[i].fd);
		pm__body_mem__free_unpacked(w->r.contents[i].body, NULL);
	}
	free(w->r.contents);
	kill(w->pid, SIGKILL);
	waitpid(w->pid, NULL, 0);
	free(w);
}

static void content(struct world *w, uint32_t id, uint32_t source, uint32_t mode, uint32_t uid, const char *name)
{
	size_t i = w->objs.n_objects++;
	Pm__BodyMem m = PM__BODY_MEM__INIT;

	m.source = source;
	m.mode = mode;
	m.uid = m.gid = uid;
	m.name = (char *)(uintptr_t)name;
	m.size = 4096;
	w->objp[i] = &w->obj[i];
	pm__object__init(&w->obj[i]);
	w->obj[i].id = id;
	w->obj[i].type = OBJ_CONTENT;
	w->obj[i].body.len = pm__body_mem__pack(&m, w->bytes[i]);
	w->obj[i].body.data = w->bytes[i];
}

static void node(struct world *w, int tree, const char *path, uint32_t mode, uint32_t uid, uint32_t object)
{
	Pm__TmpfsNode *n;
	size_t i;

	if (!w->tree[tree].msg.base.descriptor) {
		pm__tmpfs__init(&w->tree[tree].msg);
		w->tree[tree].msg.nodes = w->tree[tree].nodep;
	}
	i = w->tree[tree].msg.n_nodes++;
	n = w->tree[tree].nodep[i] = &w->tree[tree].node[i];
	pm__tmpfs_node__init(n);
	n->path = (char *)(uintptr_t)path;
	n->mode = mode;
	n->uid = n->gid = uid;
	n->object = object;
	n->target = w->name;
}

static int apply(struct world *w, int tree, struct err *e)
{
	int q;

	memset(e, 0, sizeof(*e));
	w->r.old_tmpfs = w->r.tmpfs;
	w->r.tmpfs = &w->tree[tree].msg;
	q = robj_contents(&w->r, e);
	if (q >= 0)
		q = robj_tmpfs(&w->r, e);
	return q < 0 ? q : robj_tmpfs_times(&w->r, e);
}

static bool in_pod(struct world *w, const char *path, struct stat *st)
{
	char full[300];

	snprintf(full, sizeof(full), "/proc/%d/root/%s", w->pid, path);
	return lstat(full, st) == 0;
}

/* Only what a pod has for itself is written to. */
static void test_paths(void)
{
	static const char *const bad[] = { "tmp/../etc/x",   "tmp/./x",	  "tmp//x",	"tmp/",		"tmp/..",
					   "tmp/bind/x",     "etc/x",	  "tmpx",	"/tmp/x",	"",
					   "tmp/link/x",     "dev/x",	  "run/../../x", "tmp/x/..",	"tmp/bind",
					   "../tmp/x",	     "dev/shm/../../etc/x" };
	struct stat st, before;
	struct err e;
	size_t i;

	for (i = 0; i < ARRAY_SIZE(bad); i++) {
		struct world *w = world_new(0, true);
		char link[64];

		snprintf(link, sizeof(link), "/proc/%d/root/tmp/link", w->pid);
		T_REQUIRE(symlink("/etc", link) == 0);
		T_REQUIRE(stat(w->node, &before) == 0);
		node(w, 0, "tmp", S_IFDIR | 01777, 0, 0);
		node(w, 0, bad[i], S_IFDIR | 06777, 12, 0);
		if (apply(w, 0, &e) >= 0)
			t_fail(__FILE__, __LINE__, "'%s' was taken", bad[i]);
		T_CHECK(!in_pod(w, "etc/x", &st) && !in_pod(w, "x", &st) && !in_pod(w, "dev/x", &st));
		T_REQUIRE(stat(w->node, &st) == 0);
		T_CHECK_EQ(st.st_mode, before.st_mode);
		T_CHECK_EQ(st.st_uid, before.st_uid);
		T_CHECK_EQ(st.st_mtim.tv_nsec, before.st_mtim.tv_nsec);
		world_free(w);
		rmdir(t_path("root"));
		rmdir(t_path("node"));
	}
}

/* A tmpfs of the node that is bound to /tmp is not the pod's. */
static void test_bound_tmpfs(void)
{
	struct world *w = world_new(0, false);
	int proc = open("/proc", O_RDONLY | O_CLOEXEC);
	struct stat st;
	struct err e;

	node(w, 0, "tmp/podmigrate-unit-test", S_IFDIR | 0755, 0, 0);
	T_CHECK_EQ(apply(w, 0, &e), -EBADMSG);
	T_CHECK(!in_pod(w, "tmp/podmigrate-unit-test", &st));
	T_CHECK(!private_is(proc));
	close(proc);
	world_free(w);
}

static int one_node(uint32_t pod_uid, uint32_t uid, uint32_t mode)
{
	struct world *w = world_new(pod_uid, true);
	struct err e;
	int q;

	content(w, 1, CONTENT_TMPFS, mode, uid, "tmp/f");
	node(w, 0, "tmp", S_IFDIR | 01777, 0, 0);
	node(w, 0, "tmp/f", S_IFREG | mode, uid, 1);
	q = apply(w, 0, &e);
	if (q >= 0) {
		struct stat st = { 0 };

		T_CHECK(in_pod(w, "tmp/f", &st));
		T_CHECK_EQ(st.st_mode & 07777, mode);
		T_CHECK_EQ(st.st_uid, uid);
	}
	world_free(w);
	rmdir(t_path("root"));
	rmdir(t_path("node"));
	return q;
}

static int one_dir(uint32_t pod_uid, uint32_t uid)
{
	struct world *w = world_new(pod_uid, true);
	struct err e;
	int q;

	node(w, 0, "tmp/d", S_IFDIR | 0755, uid, 0);
	q = apply(w, 0, &e);
	world_free(w);
	rmdir(t_path("root"));
	rmdir(t_path("node"));
	return q;
}

static int one_memfd(uint32_t uid, uint32_t mode)
{
	struct world *w = world_new(1000, true);
	struct err e;
	int q;

	content(w, 1, CONTENT_MEMFD, mode, uid, "m");
	node(w, 0, "tmp", S_IFDIR | 01777, 0, 0);
	q = apply(w, 0, &e);
	world_free(w);
	rmdir(t_path("root"));
	rmdir(t_path("node"));
	return q;
}

static void test_owners(void)
{
	T_CHECK_EQ(one_node(0, 0, 04755), 0);
	T_CHECK_EQ(one_node(0, 12, 06755), 0);
	T_CHECK_EQ(one_node(1000, 1000, 04755), 0);
	T_CHECK_EQ(one_node(1000, 0, 0644), -EPERM);
	T_CHECK_EQ(one_node(1000, 0, 04755), -EPERM);
	T_CHECK_EQ(one_node(1000, 1001, 0644), -EPERM);
	T_CHECK_EQ(one_dir(1000, 1000), 0);
	T_CHECK_EQ(one_dir(1000, 0), -EPERM);
	T_CHECK_EQ(one_memfd(1000, 04755), 0);
	T_CHECK_EQ(one_memfd(0, 0644), 0); /* root's file that was removed while the user had it open */
	T_CHECK_EQ(one_memfd(0, 04755), -EPERM);
}

static uint64_t inode_of(struct world *w, const char *path)
{
	struct stat st = { 0 };

	T_CHECK(in_pod(w, path, &st));
	return st.st_ino;
}

static void file(struct world *w, int tree, const char *path, uint32_t object)
{
	node(w, tree, path, S_IFREG | 0600, 0, object);
}

/* Names change places between the landing zone and the cut: a <-> b, c onto d, a directory renamed, a file for a dir. */
static void test_renames(void)
{
	struct world *w = world_new(0, true);
	uint64_t ino[6];
	struct stat st;
	struct err e;
	uint32_t i;
	int t;

	for (i = 1; i <= 6; i++)
		content(w, i, CONTENT_TMPFS, 0600, 0, "f");
	for (t = 0; t < 2; t++) {
		node(w, t, "tmp", S_IFDIR | 01777, 0, 0);
		file(w, t, "tmp/a", t ? 2 : 1);
		file(w, t, "tmp/b", t ? 1 : 2);
		if (!t)
			file(w, t, "tmp/c", 3);
		file(w, t, "tmp/d", t ? 3 : 4);
		node(w, t, t ? "tmp/new" : "tmp/old", S_IFDIR | 0700, 0, 0);
		file(w, t, t ? "tmp/new/f" : "tmp/old/f", 5);
	}
	node(w, 0, "tmp/x", S_IFDIR | 0700, 0, 0);
	file(w, 0, "tmp/x/f", 6);
	file(w, 1, "tmp/x", 6);
	T_OK(apply(w, 0, &e), &e);
	ino[0] = inode_of(w, "tmp/a");
	ino[1] = inode_of(w, "tmp/b");
	ino[2] = inode_of(w, "tmp/c");
	ino[4] = inode_of(w, "tmp/old/f");
	ino[5] = inode_of(w, "tmp/x/f");
	T_OK(apply(w, 1, &e), &e);
	T_CHECK_EQ(inode_of(w, "tmp/a"), ino[1]);
	T_CHECK_EQ(inode_of(w, "tmp/b"), ino[0]);
	T_CHECK_EQ(inode_of(w, "tmp/d"), ino[2]);
	T_CHECK_EQ(inode_of(w, "tmp/new/f"), ino[4]);
	T_CHECK_EQ(inode_of(w, "tmp/x"), ino[5]);
	T_CHECK(!in_pod(w, "tmp/c", &st) && !in_pod(w, "tmp/old", &st));
	for (i = 0; i < 3; i++) /* nothing of ours is left: one name each */
		T_CHECK(fstat(w->r.contents[i].fd, &st) == 0 && st.st_nlink == 1);
	T_REQUIRE(in_pod(w, "tmp", &st));
	T_CHECK_EQ(st.st_nlink, 2 + 2); /* "new" and "bind" */
	world_free(w);
}

static const struct test_case cases[] = {
	{ "paths", test_paths },
	{ "bound_tmpfs", test_bound_tmpfs },
	{ "owners", test_owners },
	{ "renames", test_renames },
};
const struct test_suite tmpfs_suite = { "tmpfs", cases, ARRAY_SIZE(cases) };
