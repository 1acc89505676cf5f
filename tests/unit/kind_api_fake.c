/* SPDX-License-Identifier: GPL-3.0-or-later */
/* See kind_fake.h. */
#include <errno.h>
#include <fcntl.h>
#include <linux/kcmp.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/sendfile.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>

#include "pod/base/io.h"
#include "tests/harness.h"
#include "tests/unit/kind_fake.h"

#define MAX_OBJ 2048
#define MAX_REF 2048

static const struct kind *const kinds[] = { &kind_file,	    &kind_pipe,	   &kind_fifo, &kind_tcp,	  &kind_unix, &kind_unix_dgram,
					    &kind_epoll,    &kind_eventfd, &kind_signalfd, &kind_timerfd,
					    &kind_chardev,  &kind_pty };

struct ref {
	int fdno;
	unsigned obj;
};

struct fake {
	void *blocks[32768];
	size_t nblocks;
	struct object *objs[MAX_OBJ];
	struct robject robjs[MAX_OBJ];
	uint8_t *packed[MAX_OBJ];
	size_t nobjs;
	struct ref refs[MAX_REF];
	size_t nrefs;
	int root, own_netns, netns, to_netns;
	void (*on_start)(void *arg);
	void *start_arg;
	bool no_release;
	uint64_t private_dev;
	struct { uint64_t dev, ino; int fd; } content[16];
	size_t ncontent;
	struct { uint16_t type; uint64_t key; int fd; } parked[64];
	size_t nparked;
	struct { const struct kind *kind; ProtobufCMessage *body; } things[16];
	size_t nthings;
};

/* the contexts that kinds get are the fake itself */
static struct fake *of_dump(struct dump *d)
{
	return (struct fake *)(void *)d;
}

static struct fake *of_restore(struct restore *r)
{
	return (struct fake *)(void *)r;
}

struct fake *fake_new(void)
{
	struct fake *f = calloc(1, sizeof(*f));

	T_REQUIRE(f);
	if (geteuid() != 0)
		T_SKIP("needs root, as the engine does");
	f->root = open("/", O_PATH | O_DIRECTORY | O_CLOEXEC);
	f->own_netns = f->netns = f->to_netns = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);
	T_REQUIRE(f->root >= 0 && f->netns >= 0);
	return f;
}

static void drop_parked(struct fake *f)
{
	size_t i;

	for (i = 0; i < f->nparked; i++)
		close_fdp(&f->parked[i].fd);
	f->nparked = 0;
}

void fake_free(struct fake *f)
{
	size_t i;

	drop_parked(f);
	for (i = 0; i < f->nobjs; i++) {
		close_fdp(&f->objs[i]->p.fd);
		close_fdp(&f->robjs[i].fd);
		if (f->robjs[i].body)
			protobuf_c_message_free_unpacked(f->robjs[i].body, NULL);
		free(f->packed[i]);
	}
	for (i = 0; i < f->ncontent; i++)
		close(f->content[i].fd);
	for (i = 0; i < f->nblocks; i++)
		free(f->blocks[i]);
	close(f->root);
	close(f->own_netns);
	free(f);
}

void fake_private(struct fake *f, uint64_t dev)
{
	f->private_dev = dev;
}

void fake_netns(struct fake *f, int from, int to)
{
	f->netns = from;
	f->to_netns = to;
}

void fake_on_start(struct fake *f, void (*fn)(void *arg), void *arg, bool release)
{
	f->on_start = fn;
	f->start_arg = arg;
	f->no_release = !release;
}

/* ---- the dump's side of the API */
void *dump_alloc(struct dump *d, size_t len)
{
	struct fake *f = of_dump(d);
	void *p = calloc(1, len ? len : 1);

	T_REQUIRE(p && f->nblocks < ARRAY_SIZE(f->blocks));
	return f->blocks[f->nblocks++] = p;
}

char *dump_strdup(struct dump *d, const char *s)
{
	return strcpy(dump_alloc(d, strlen(s) + 1), s);
}

struct object *dump_find_inode(struct dump *d, const struct kind *kind, uint64_t dev, uint64_t ino,
			       const struct object *skip)
{
	struct fake *f = of_dump(d);
	size_t i;

	for (i = 0; i < f->nobjs; i++)
		if (f->objs[i] != skip && f->objs[i]->kind == kind && f->objs[i]->p.st.st_dev == dev &&
		    f->objs[i]->p.st.st_ino == ino)
			return f->objs[i];
	return NULL;
}

struct object *dump_find_fd(struct dump *d, pid_t nspid, int fdno)
{
	struct fake *f = of_dump(d);
	size_t i;

	for (i = 0; nspid == getpid() && i < f->nrefs; i++)
		if (f->refs[i].fdno == fdno)
			return f->objs[f->refs[i].obj];
	return NULL;
}

struct object *dump_next_object(struct dump *d, size_t *i)
{
	return *i < of_dump(d)->nobjs ? of_dump(d)->objs[(*i)++] : NULL;
}

bool dump_next_holder(struct dump *d, const struct object *o, size_t *i, pid_t *nspid, int *fdno)
{
	struct fake *f = of_dump(d);

	for (; *i < f->nrefs; (*i)++) {
		if (f->objs[f->refs[*i].obj] != o)
			continue;
		*nspid = getpid();
		*fdno = f->refs[(*i)++].fdno;
		return true;
	}
	return false;
}

int dump_netns(struct dump *d)
{
	return of_dump(d)->netns;
}

int dump_pod_root(struct dump *d)
{
	return of_dump(d)->root;
}

bool dump_is_private_tmpfs(struct dump *d, uint64_t dev)
{
	return of_dump(d)->private_dev && of_dump(d)->private_dev == dev;
}

uint32_t dump_object_id(struct dump *d, int fd)
{
	struct fake *f = of_dump(d);
	size_t i;

	for (i = 0; i < f->nobjs; i++)
		if (syscall(SYS_kcmp, getpid(), getpid(), KCMP_FILE, f->objs[i]->p.fd, fd) == 0)
			return f->objs[i]->id;
	return 0;
}

int dump_found(struct dump *d, const struct object *carrier, int fd, struct err *e)
{
	(void)carrier;
	(void)e;
	if (!dump_object_id(d, fd)) {
		fake_add(of_dump(d), fd);
		of_dump(d)->nrefs--; /* nobody has it */
	}
	return 0;
}

int dump_held_outside(struct dump *d, const struct stat *st, pid_t *pid, struct err *e)
{
	(void)d;
	(void)st;
	(void)pid;
	(void)e;
	return 0;
}

int dump_add_content(struct dump *d, const struct probe *p, uint32_t *id, struct err *e)
{
	struct fake *f = of_dump(d);
	off_t at = 0;
	int src, mem;
	size_t i;

	for (i = 0; i < f->ncontent; i++) {
		if (f->content[i].dev == p->st.st_dev && f->content[i].ino == p->st.st_ino) {
			*id = (uint32_t)i + 1;
			return 0;
		}
	}
	src = kind_reopen(p->fd, O_RDONLY, e);
	if (src < 0)
		return src;
	mem = memfd_create("content", MFD_CLOEXEC);
	T_REQUIRE(mem >= 0 && ftruncate(mem, p->st.st_size) == 0);
	T_REQUIRE(sendfile(mem, src, &at, (size_t)p->st.st_size) == p->st.st_size);
	close(src);
	f->content[f->ncontent].dev = p->st.st_dev;
	f->content[f->ncontent].ino = p->st.st_ino;
	f->content[f->ncontent++].fd = mem;
	*id = (uint32_t)f->ncontent;
	return 0;
}

/* ---- the restore's */
int restore_netns(struct restore *r)
{
	return of_restore(r)->to_netns;
}

struct visit {
	int (*fn)(void *arg, struct err *e);
	void *arg;
	struct err *e;
	int ret;
};

static void *visit(void *p)
{
	struct visit *v = p;

	v->ret = unshare(CLONE_FS) < 0 ? err_sys(v->e, "unshare") : v->fn(v->arg, v->e);
	return NULL;
}

int restore_in_pod(struct restore *r, bool as_user, int (*fn)(void *arg, struct err *e), void *arg,
		   struct err *e)
{
	struct visit v = { fn, arg, e, 0 };
	pthread_t t;

	(void)r;
	(void)as_user;
	T_REQUIRE(pthread_create(&t, NULL, visit, &v) == 0);
	pthread_join(t, NULL);
	return v.ret;
}

bool restore_peer_gone(struct restore *r, uint32_t addr)
{
	(void)r;
	(void)addr;
	return false;
}

void restore_note(struct restore *r, const char *fmt, ...)
{
	(void)r;
	(void)fmt;
}

int restore_open(struct restore *r, const char *path, int flags, mode_t mode, struct err *e)
{
	int fd = open(path, flags, mode);

	(void)r;
	return fd < 0 ? err_sys(e, "open '%s'", path) : fd;
}

int restore_park(struct restore *r, uint16_t type, uint64_t key, int fd, struct err *e)
{
	struct fake *f = of_restore(r);

	(void)e;
	T_REQUIRE(f->nparked < ARRAY_SIZE(f->parked));
	f->parked[f->nparked].type = type;
	f->parked[f->nparked].key = key;
	f->parked[f->nparked++].fd = fd;
	return 0;
}

int restore_unpark(struct restore *r, uint16_t type, uint64_t key)
{
	struct fake *f = of_restore(r);
	size_t i;

	for (i = 0; i < f->nparked; i++)
		if (f->parked[i].fd >= 0 && f->parked[i].type == type && f->parked[i].key == key)
			return take_fd(&f->parked[i].fd);
	return -1;
}

int restore_socketpair(struct restore *r, int type, pid_t nspid, uid_t uid, gid_t gid, int sv[2], struct err *e)
{
	(void)r;
	T_CHECK_EQ(nspid, getpid());
	T_CHECK(uid == geteuid() && gid == getegid());
	return socketpair(AF_UNIX, type | SOCK_CLOEXEC, 0, sv) < 0 ? err_sys(e, "socketpair") : 0;
}

int restore_as_owner(struct restore *r, int (*fn)(void *arg, struct err *e), void *arg, struct err *e)
{
	(void)r;
	return fn(arg, e);
}

bool restore_may_be(struct restore *r, uid_t uid, gid_t gid)
{
	(void)r;
	(void)uid;
	(void)gid;
	return true;
}

pid_t restore_host_pid(struct restore *r, pid_t nspid)
{
	(void)r;
	return nspid;
}

struct robject *restore_next_object(struct restore *r, size_t *i)
{
	return *i < of_restore(r)->nobjs ? &of_restore(r)->robjs[(*i)++] : NULL;
}

struct robject *restore_object(struct restore *r, uint32_t id)
{
	return id - 1 < of_restore(r)->nobjs ? &of_restore(r)->robjs[id - 1] : NULL;
}

int restore_content(struct restore *r, uint32_t id, struct err *e)
{
	struct fake *f = of_restore(r);

	if (id - 1 >= f->ncontent)
		return err_set(e, EBADMSG, "no content %u", id);
	return f->content[id - 1].fd;
}

/* ---- probes */
static const struct kind *find_kind(const struct probe *p)
{
	size_t i;

	for (i = 0; i < ARRAY_SIZE(kinds); i++)
		if (kinds[i]->match(p))
			return kinds[i];
	return NULL;
}

static void probe_fd(struct fake *f, int fd, struct probe *p)
{
	char path[64], link[PATH_MAX];
	struct err e = { 0 };
	uint64_t v = 0;
	char *info;
	ssize_t n;

	memset(p, 0, sizeof(*p));
	p->pid = p->nspid = getpid();
	p->fdno = fd;
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	n = readlink(path, link, sizeof(link) - 1);
	T_REQUIRE(n > 0);
	link[n] = 0;
	p->link = dump_strdup((struct dump *)(void *)f, link);
	T_OK(kind_info_now(fd, &info, &e), &e);
	p->info = dump_strdup((struct dump *)(void *)f, info);
	free(info);
	T_REQUIRE(kind_info_u64(p->info, "flags", 8, &v));
	p->flags = (uint32_t)v;
	if (kind_info_u64(p->info, "pos", 10, &v))
		p->pos = (int64_t)v;
	T_REQUIRE(fstat(fd, &p->st) == 0);
	p->fd = fcntl(fd, F_DUPFD_CLOEXEC, 200);
	T_REQUIRE(p->fd >= 0);
}

static bool same_file(int a, int b)
{
	return syscall(SYS_kcmp, getpid(), getpid(), KCMP_FILE, a, b) == 0;
}

void fake_add(struct fake *f, int fd)
{
	struct object *o = NULL;
	struct probe p;
	size_t i;

	probe_fd(f, fd, &p);
	for (i = 0; i < f->nobjs; i++) {
		if (same_file(f->objs[i]->p.fd, fd)) {
			close(p.fd);
			f->refs[f->nrefs++] = (struct ref){ fd, (unsigned)i };
			return;
		}
	}
	T_REQUIRE(f->nobjs < MAX_OBJ && f->nrefs < MAX_REF);
	o = dump_alloc((struct dump *)(void *)f, sizeof(*o));
	o->p = p;
	o->kind = find_kind(&p);
	if (!o->kind)
		T_FATAL("no kind takes %s", p.link);
	o->id = (uint32_t)f->nobjs + 1;
	f->refs[f->nrefs++] = (struct ref){ fd, (unsigned)f->nobjs };
	f->robjs[f->nobjs].fd = -1;
	f->objs[f->nobjs++] = o;
}

int fake_check(struct fake *f, int fd, struct err *e)
{
	const struct kind *k;
	struct probe p;
	char why[200];
	int r;

	probe_fd(f, fd, &p);
	k = find_kind(&p);
	if (!k) {
		r = kind_refusal(&p, why, sizeof(why));
		close(p.fd);
		return err_set(e, r, "%s", why);
	}
	r = k->check ? k->check((struct dump *)(void *)f, &p, e) : 0;
	close(p.fd);
	return r;
}

/* ---- moving */
static int dump_all(struct fake *f, struct err *e)
{
	size_t i;
	int r;

	for (i = 0; i < f->nobjs; i++) {
		struct object *o = f->objs[i];

		r = o->kind->inside ? o->kind->inside((struct dump *)(void *)f, o, true, e) : 0;
		if (r < 0)
			return r;
	}
	for (i = 0; i < f->nobjs; i++) {
		struct object *o = f->objs[i];
		ProtobufCMessage *body = NULL;
		Pm__Object *m = dump_alloc((struct dump *)(void *)f, sizeof(*m));

		pm__object__init(m);
		m->id = o->id;
		m->type = o->kind->type;
		m->version = o->kind->version;
		m->flags = o->p.flags & ~(uint32_t)O_CLOEXEC;
		m->pos = lseek(o->p.fd, 0, SEEK_CUR);
		m->owner_pid = (uint32_t)o->p.nspid;
		m->owner_fd = (uint32_t)o->p.fdno;
		m->link = dump_strdup((struct dump *)(void *)f, o->p.link);
		r = o->kind->dump((struct dump *)(void *)f, o, &body, e);
		if (r < 0)
			return r;
		T_REQUIRE(body && body->descriptor == o->kind->schema);
		m->body.len = protobuf_c_message_get_packed_size(body);
		free(f->packed[i]);
		f->packed[i] = malloc(m->body.len + 1);
		T_REQUIRE(f->packed[i]);
		m->body.data = f->packed[i];
		protobuf_c_message_pack(body, m->body.data);
		o->msg = m;
	}
	return 0;
}

int fake_dump_undo(struct fake *f, struct err *e)
{
	int r = dump_all(f, e);
	size_t i;

	for (i = 0; i < f->nobjs; i++)
		if (f->objs[i]->kind->undo && f->objs[i]->msg)
			f->objs[i]->kind->undo((struct dump *)(void *)f, f->objs[i]);
	return r;
}

/* Runs entries as the loop in a task does: from a scratch, in which results may change later calls. */
void fake_run_batch(struct batch *b, void *scratch)
{
	struct batch_entry *x = (void *)(uintptr_t)(batch_arg_addr(b, 0, 0) - offsetof(struct batch_entry, arg));
	struct batch none = { .scratch = b->scratch };
	unsigned i;

	memcpy(x, b->e, b->n * sizeof(*x));
	memcpy((void *)(uintptr_t)batch_data(&none, NULL, 0), b->data, b->used);
	T_CHECK_EQ(b->scratch, (uintptr_t)scratch);
	for (i = 0; i < b->n; i++, x++) {
		x->ret = syscall(x->nr, x->arg[0], x->arg[1], x->arg[2], x->arg[3], x->arg[4], x->arg[5]);
		if (x->ret < 0)
			T_FAIL("call %u (nr %ld): %s", i, (long)x->nr, strerror(errno));
		if (x->also)
			memcpy((void *)(uintptr_t)x->also, &x->ret, sizeof(x->ret));
	}
}

static void place_all(struct fake *f)
{
	struct batch *b = calloc(1, sizeof(*b));
	void *scratch = calloc(1, SCRATCH_LEN);
	Pm__Proc proc;
	struct err e = { 0 };
	Pm__Fd *list;
	size_t i;

	T_REQUIRE(b && scratch);
	pm__proc__init(&proc);
	proc.pid = (uint32_t)getpid();
	proc.sid = (uint32_t)getsid(0);
	proc.n_fds = f->nrefs;
	proc.fds = calloc(f->nrefs + 1, sizeof(*proc.fds));
	list = calloc(f->nrefs + 1, sizeof(*list));
	T_REQUIRE(proc.fds && list);
	for (i = 0; i < f->nrefs; i++) {
		pm__fd__init(&list[i]);
		list[i].fd = (uint32_t)f->refs[i].fdno;
		list[i].object = f->refs[i].obj + 1;
		proc.fds[i] = &list[i];
	}
	batch_begin(b, (uintptr_t)scratch);
	for (i = 0; i < f->nrefs; i++) {
		struct robject *o = &f->robjs[f->refs[i].obj];
		int more = 1;

		o->placed = 0;
		while (more > 0 && o->kind->place) {
			more = o->kind->place((struct restore *)(void *)f, o, &proc, f->refs[i].fdno, b, &e);
			T_OK(more, &e);
			T_CHECK(!b->overflow);
			fake_run_batch(b, scratch);
			batch_begin(b, (uintptr_t)scratch);
		}
	}
	free(proc.fds);
	free(list);
	free(b);
	free(scratch);
}

static void restore_stage(struct fake *f, unsigned stage)
{
	struct err e = { 0 };
	size_t i;

	for (i = 0; i < f->nobjs; i++) {
		struct robject *o = &f->robjs[i];

		if (o->kind->stage != stage)
			continue;
		T_OK(o->kind->restore((struct restore *)(void *)f, o, &e), &e);
		T_REQUIRE(o->fd >= 0);
		if (!(o->msg->flags & O_PATH))
			T_CHECK(fcntl(o->fd, F_SETFL, o->msg->flags) == 0);
		if (o->msg->pos > 0)
			T_CHECK_EQ(lseek(o->fd, o->msg->pos, SEEK_SET), o->msg->pos);
	}
}

void fake_move(struct fake *f)
{
	int null = open("/dev/null", O_RDWR | O_CLOEXEC);
	struct err e = { 0 };
	size_t i;

	T_OK(dump_all(f, &e), &e);
	for (i = 0; i < f->nobjs; i++) {
		struct robject *o = &f->robjs[i];

		o->msg = f->objs[i]->msg;
		o->kind = f->objs[i]->kind;
		o->body = protobuf_c_message_unpack(o->kind->schema, NULL, o->msg->body.len, o->msg->body.data);
		T_REQUIRE(o->body);
	}
	for (i = 0; i < f->nrefs; i++)
		T_REQUIRE(dup3(null, f->refs[i].fdno, O_CLOEXEC) >= 0);
	for (i = 0; i < f->nobjs; i++)
		close_fdp(&f->objs[i]->p.fd);
	restore_stage(f, STAGE_PLAIN);
	restore_stage(f, STAGE_SOCKET);
	restore_stage(f, STAGE_TTY);
	restore_stage(f, STAGE_LAST);
	for (i = 0; i < f->nobjs; i++)
		if (f->robjs[i].kind->finish)
			T_OK(f->robjs[i].kind->finish((struct restore *)(void *)f, &f->robjs[i], &e), &e);
	for (i = 0; i < f->nrefs; i++)
		T_REQUIRE(dup3(f->robjs[f->refs[i].obj].fd, f->refs[i].fdno, O_CLOEXEC) >= 0);
	place_all(f);
	if (f->on_start)
		f->on_start(f->start_arg);
	for (i = 0; i < f->nobjs && !f->no_release; i++)
		if (f->robjs[i].kind->release)
			T_OK(f->robjs[i].kind->release((struct restore *)(void *)f, &f->robjs[i], &e), &e);
	for (i = 0; i < f->nobjs; i++)
		close_fdp(&f->robjs[i].fd);
	drop_parked(f);
	close(null);
}

const void *fake_body(struct fake *f, int fd)
{
	size_t i;

	for (i = 0; i < f->nrefs; i++)
		if (f->refs[i].fdno == fd)
			return f->robjs[f->refs[i].obj].body;
	return NULL;
}

/* ---- things of the pod */
void dump_thing(struct dump *d, const struct kind *kind, const char *link, ProtobufCMessage *body)
{
	struct fake *f = of_dump(d);

	(void)link;
	T_REQUIRE(f->nthings < ARRAY_SIZE(f->things));
	f->things[f->nthings].kind = kind;
	f->things[f->nthings++].body = body;
}

pid_t dump_nspid(struct dump *d, pid_t pid)
{
	(void)d;
	return pid == getpid() ? pid : 0;
}

int dump_while_frozen(struct dump *d, int (*fn)(void *arg), void *arg, struct err *e)
{
	int r = fn(arg);

	(void)d;
	return r < 0 ? err_num(e, r, "in the frozen pod") : 0;
}

int restore_in_ipc(struct restore *r, int (*fn)(void *arg, struct err *e), void *arg, struct err *e)
{
	(void)r;
	return fn(arg, e);
}

int restore_check_owner(struct restore *r, uint32_t uid, uint32_t gid, const char *name, struct err *e)
{
	(void)r;
	(void)gid;
	return uid == FAKE_ALIEN ? err_set(e, EPERM, "'%s'", name) : 0;
}

const void *fake_gather(struct fake *f, const struct kind *kind, size_t i, size_t *n)
{
	struct err e = { 0 };
	const void *body = NULL;
	size_t k;

	f->nthings = 0;
	T_OK(kind->gather((struct dump *)(void *)f, true, &e), &e);
	*n = f->nthings;
	for (k = 0; k < f->nthings; k++)
		if (k == i)
			body = f->things[k].body;
	return body;
}

int fake_make(struct fake *f, const struct kind *kind, const void *body, struct err *e)
{
	struct robject o = { .kind = kind, .body = (ProtobufCMessage *)(uintptr_t)body, .fd = -1 };
	int r = kind->restore((struct restore *)(void *)f, &o, e);

	close_fdp(&o.fd);
	return r;
}
