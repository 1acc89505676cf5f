/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Making unix sockets with the names they had.
 *
 * A socket's name is a string that was given to bind(2), and a path in it need not lead anywhere any
 * more. To give such a name without touching the pod's files, a thread takes a private root: a tmpfs
 * that is mounted nowhere, with the directories that the path wants. Bound there, the socket has its
 * name, its node goes away with the thread. A connected pair in which one end has a name is a real
 * listener, connect and accept in that place.
 *
 * A node that must be seen is made with the pod user's credentials in the pod's own root; the string
 * and the place agree when the thread stands where the program stood (its directory, or its chroot).
 */
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "netfreeze/netfreeze.h"
#include "pod/base/util.h"
#include "pod/kind/unix_int.h"

int unix_addr(const ProtobufCBinaryData *name, struct sockaddr_un *sa, socklen_t *len, struct err *e)
{
	if (!name->len || name->len > sizeof(sa->sun_path))
		return KIND_DAMAGED(e, "a unix socket's name of %zu bytes", name->len);
	memset(sa, 0, sizeof(*sa));
	sa->sun_family = AF_UNIX;
	memcpy(sa->sun_path, name->data, name->len);
	*len = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + name->len);
	/* getsockname(2) counts the closing NUL of a path, if there was room for it */
	if (sa->sun_path[0] && name->len < sizeof(sa->sun_path))
		*len += 1;
	return 0;
}

static int bind_to(int fd, const ProtobufCBinaryData *name, struct err *e)
{
	struct sockaddr_un sa;
	socklen_t len;
	int r = unix_addr(name, &sa, &len, e);

	if (r < 0)
		return r;
	if (bind(fd, (void *)&sa, len) < 0)
		return err_sys(e, "bind a unix socket to '%s%.*s'", sa.sun_path[0] ? "" : "@",
			       (int)name->len - !sa.sun_path[0], sa.sun_path + !sa.sun_path[0]);
	return 0;
}

/* ---- unseen */
static int private_root(struct err *e)
{
	autoclose int mnt = -1;
	int r;

	if (unshare(CLONE_FS) < 0)
		return err_sys(e, "unshare");
	mnt = r = kind_scratch_fs(e);
	if (r < 0)
		return r;
	if (fchdir(mnt) < 0 || chroot(".") < 0)
		return err_sys(e, "a scratch root");
	umask(022);
	return 0;
}

/* The directories that a path wants. */
static int make_parents(const ProtobufCBinaryData *name, struct err *e)
{
	char path[sizeof(((struct sockaddr_un *)NULL)->sun_path) + 1] = "";
	char *p = path;

	memcpy(path, name->data, name->len);
	while ((p = strchr(p + 1, '/'))) {
		*p = 0;
		if (mkdir(path, 0700) < 0 && errno != EEXIST)
			return err_sys(e, "scratch directory '%s'", path);
		*p = '/';
	}
	return 0;
}

static int bind_here(int fd, const ProtobufCBinaryData *name, struct err *e)
{
	int r = 0;

	if (name->len && name->data[0])
		r = make_parents(name, e);
	return r < 0 ? r : bind_to(fd, name, e);
}

struct bind_req {
	int fd;
	const ProtobufCBinaryData *name;
};

static int do_bind_unseen(void *arg, struct err *e)
{
	struct bind_req *q = arg;
	int r = private_root(e);

	return r < 0 ? r : bind_here(q->fd, q->name, e);
}

int unix_bind_unseen(int netns, int fd, const ProtobufCBinaryData *name, struct err *e)
{
	struct bind_req q = { fd, name };

	if (name->len && !name->data[0])
		return bind_to(fd, name, e);
	return netns_run(netns, do_bind_unseen, &q, e);
}

struct pair_req {
	int type, listener;
	const ProtobufCBinaryData *sname, *cname;
	int server, client;
};

static int do_make_pair(void *arg, struct err *e)
{
	struct pair_req *q = arg;
	autoclose int own = -1, c = -1, s = -1;
	struct sockaddr_un sa;
	socklen_t len;
	int l = q->listener, r = 0, sv[2];

	if (!q->sname->len && !q->cname->len) {
		if (socketpair(AF_UNIX, q->type | SOCK_CLOEXEC, 0, sv) < 0)
			return err_sys(e, "socketpair");
		q->server = sv[0];
		q->client = sv[1];
		return 0;
	}
	c = socket(AF_UNIX, q->type | SOCK_CLOEXEC, 0);
	own = socket(AF_UNIX, q->type | SOCK_CLOEXEC, 0);
	if (c < 0 || own < 0)
		return err_sys(e, "socket");
	r = private_root(e);
	if (r < 0)
		return r;
	/* a listener whose name is a path is not reached from here: it gets a namesake */
	if (l < 0 || q->sname->data[0]) {
		l = own;
		r = bind_here(own, q->sname, e);
		if (r == 0 && listen(own, 1) < 0)
			r = err_sys(e, "listen");
	}
	if (r == 0)
		r = unix_addr(q->sname, &sa, &len, e);
	if (r == 0 && q->cname->len)
		r = bind_here(c, q->cname, e);
	if (r < 0)
		return r;
	if (connect(c, (void *)&sa, len) < 0)
		return err_sys(e, "connect a unix socket");
	s = accept4(l, NULL, NULL, SOCK_CLOEXEC);
	if (s < 0)
		return err_sys(e, "accept a unix socket");
	q->server = take_fd(&s);
	q->client = take_fd(&c);
	return 0;
}

int unix_make_pair(int netns, int type, int listener, const ProtobufCBinaryData *server_name,
		   const ProtobufCBinaryData *client_name, int *server, int *client, struct err *e)
{
	struct pair_req q = { type, listener, server_name, client_name, -1, -1 };
	int r;

	if (!server_name->len && client_name->len) { /* the one with the name must listen */
		q.sname = client_name;
		q.cname = server_name;
		r = netns_run(netns, do_make_pair, &q, e);
		*server = q.client;
		*client = q.server;
	} else {
		r = netns_run(netns, do_make_pair, &q, e);
		*server = q.server;
		*client = q.client;
	}
	return r;
}

/* Both ends of a socket pair have its maker's credentials. */
int unix_make_nameless(struct restore *r, const Pm__BodyUnix *m, int *mine, int *other, struct err *e)
{
	const ProtobufCBinaryData none = { 0 };
	int sv[2], ret = -ESRCH;

	if (m->cred_pid && restore_may_be(r, m->cred_uid, m->cred_gid))
		ret = restore_socketpair(r, (int)m->sock_type, (pid_t)m->cred_pid, m->cred_uid, m->cred_gid, sv, e);
	if (ret == -ESRCH)
		return unix_make_pair(restore_netns(r), (int)m->sock_type, -1, &none, &none, mine, other, e);
	if (ret < 0)
		return ret;
	*mine = sv[0];
	*other = sv[1];
	return 0;
}

/* ---- in the pod */
struct node_req {
	int fd;
	const Pm__BodyUnix *m;
};

/* Stands where @name, looked up, is @path. The name that then leads there; NULL: there is no such place. */
static const char *stand_at(const char *path, const char *name, char *dir, size_t len)
{
	size_t pl = strlen(path), nl = strlen(name);
	size_t keep = pl - MIN(pl, nl);

	if (nl > pl || strcmp(path + keep, name) || keep >= len)
		return NULL;
	if (name[0] != '/' && (!keep || path[keep - 1] != '/'))
		return NULL;
	memcpy(dir, path, keep);
	dir[keep] = 0;
	if (!keep)
		return name;
	if (name[0] == '/' ? chroot(dir) < 0 || chdir("/") < 0 : chdir(dir) < 0)
		return NULL;
	return name;
}

static void node_owner(const char *node, const Pm__BodyUnix *m)
{
	/* a user's own node has these anyway; what a user may not set, stays */
	if (lchown(node, m->uid, m->gid) < 0 || fchmodat(AT_FDCWD, node, m->mode & 07777, 0) < 0)
		errno = 0;
}

static int bind_there(const struct node_req *q, struct err *e)
{
	const Pm__BodyUnix *m = q->m;
	char name[sizeof(((struct sockaddr_un *)NULL)->sun_path) + 1] = "", dir[PATH_MAX];
	const char *node;
	struct stat st;
	int r;

	memcpy(name, m->name.data, m->name.len);
	node = stand_at(m->path, name, dir, sizeof(dir));
	if (!node) { /* a name with links or dots in it: the place counts more than the words */
		size_t cut = (size_t)(strrchr(m->path, '/') - m->path);

		if (cut >= sizeof(dir) || strlen(m->path + cut + 1) >= sizeof(name))
			return err_set(e, ENAMETOOLONG, "path of a unix socket '%s'", m->path);
		memcpy(dir, m->path, cut);
		strcpy(dir + cut, cut ? "" : "/");
		if (chdir(dir) < 0)
			return err_sys(e, "directory of the unix socket '%s'", m->path);
		node = strcpy(name, m->path + cut + 1);
	}
	if (lstat(node, &st) == 0) {
		if (!S_ISSOCK(st.st_mode))
			return err_set(e, EADDRINUSE, "'%s' is not a socket here", m->path);
		if (unlink(node) < 0)
			return err_sys(e, "remove the stale socket '%s'", m->path);
	}
	r = bind_to(q->fd, &(ProtobufCBinaryData){ strlen(name), (uint8_t *)name }, e);
	if (r < 0)
		return r;
	node_owner(node, m);
	return 0;
}

/* The thread is used for other work afterwards: it goes back to where it stood. */
static int do_bind_in_pod(void *arg, struct err *e)
{
	autoclose int root = open("/", O_PATH | O_DIRECTORY | O_CLOEXEC);
	int r;

	if (root < 0)
		return err_sys(e, "open the pod's root");
	r = bind_there(arg, e);
	if (fchdir(root) < 0 || chroot(".") < 0)
		return err_sys(e, "go back to the pod's root");
	return r;
}

int unix_bind_in_pod(struct restore *r, int fd, const Pm__BodyUnix *m, struct err *e)
{
	struct node_req q = { fd, m };

	if (!m->name.len || !m->name.data[0] || !m->path[0])
		return KIND_DAMAGED(e, "a unix socket's path without a name");
	return restore_in_pod(r, true, do_bind_in_pod, &q, e);
}

static int do_make_node(void *arg, struct err *e)
{
	const Pm__BodyUnix *m = ((struct node_req *)arg)->m;

	if (mknod(m->path, S_IFSOCK | (m->mode & 0777), 0) < 0)
		return errno == EEXIST ? 0 : err_sys(e, "node of a unix socket '%s'", m->path);
	node_owner(m->path, m);
	return 0;
}

int unix_make_node(struct restore *r, const Pm__BodyUnix *m, struct err *e)
{
	struct node_req q = { -1, m };

	return restore_in_pod(r, true, do_make_node, &q, e);
}
