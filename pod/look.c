/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * A look at a pod that runs: what /proc says, in the messages in which an image says it, so that
 * a client shows both alike.
 *
 * Nothing is stopped and nothing taken out of a process; what begins or ends meanwhile may be in
 * it or not. What cannot be carried to another node is shown as well: there is no kind's word in
 * it, but of sockets what the kernel's tables say.
 */
#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "agent/link/frame.h"
#include "pod/base/io.h"
#include "pod/base/util.h"
#include "pod/dump.h"
#include "pod/engine.h"
#include "pod/kind/kinds.h"

#define SEND_MS     10000
#define ENVIRON_MAX (1u << 20)
#define TABLE_MAX   (64u << 20)

struct sock {
	uint64_t inode;
	Pm__Object *body; /* type and body */
};

struct look {
	struct dump d; /* its arena and its list of processes */
	const Pm__InspectReq *what;
	pid_t pid1;
	struct sock *socks;
	size_t nsocks;
	Pm__Object **objects;
	size_t nobjects;
};

/* ---- sockets */

static int add_sock(struct look *l, uint64_t inode, uint32_t type, const ProtobufCMessage *body)
{
	struct sock *ns =
		l->nsocks % 64 ? l->socks : reallocarray(l->socks, l->nsocks + 64, sizeof(*ns));
	Pm__Object *o;

	if (!ns)
		return -ENOMEM;
	l->socks = ns;
	o = dump_alloc(&l->d, sizeof(*o));
	pm__object__init(o);
	o->type = type;
	o->body.len = protobuf_c_message_get_packed_size(body);
	o->body.data = dump_alloc(&l->d, o->body.len);
	protobuf_c_message_pack(body, o->body.data);
	l->socks[l->nsocks++] = (struct sock){inode, o};
	return 0;
}

/* Eight or 32 hexadecimal digits: words as they lie in memory. */
static size_t parse_address(const char *s, uint8_t out[16])
{
	size_t n = strspn(s, "0123456789ABCDEFabcdef") / 8, i;

	for (i = 0; i < n && i < 4; i++) {
		char word[9] = "";
		uint32_t v;

		memcpy(word, s + i * 8, 8);
		v = (uint32_t)strtoul(word, NULL, 16);
		memcpy(out + i * 4, &v, 4);
	}
	return n * 4;
}

/* "  0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 12345 ..." */
static int inet_line(struct look *l, const char *line, uint32_t type)
{
	char local[40], peer[40];
	unsigned state, uid, lport, pport;
	uint8_t a[2][16];
	unsigned long inode;
	Pm__BodyTcp t;
	Pm__BodyUdp u;

	if (sscanf(line,
		   " %*d: %33[0-9A-Fa-f]:%x %33[0-9A-Fa-f]:%x %x %*x:%*x %*x:%*x %*x %u %*d %lu",
		   local, &lport, peer, &pport, &state, &uid, &inode) != 7)
		return 0;
	pm__body_tcp__init(&t);
	pm__body_udp__init(&u);
	u.v6 = t.v6 = parse_address(local, a[0]) == 16;
	parse_address(peer, a[1]);
	if (t.v6) {
		u.laddr6 = t.laddr6 = (ProtobufCBinaryData){16, a[0]};
		u.paddr6 = t.paddr6 = (ProtobufCBinaryData){16, a[1]};
	} else {
		memcpy(&t.laddr, a[0], 4);
		memcpy(&t.paddr, a[1], 4);
	}
	u.laddr = t.laddr;
	u.paddr = t.paddr;
	u.lport = t.lport = htons((uint16_t)lport);
	u.pport = t.pport = htons((uint16_t)pport);
	t.state = state;
	t.uid = u.uid = uid;
	return add_sock(l, inode, type, type == TYPE_TCP ? &t.base : &u.base);
}

/* As above; the number that stands where others have a port is a raw one's protocol. */
static int raw_line(struct look *l, const char *line, uint32_t sock_type)
{
	unsigned state, uid, port;
	unsigned long inode;
	Pm__BodyRaw r;
	Pm__BodyUdp u;

	pm__body_raw__init(&r);
	pm__body_udp__init(&u);
	if (sscanf(line, " %*d: %x:%x %x:%*x %x %*x:%*x %*x:%*x %*x %u %*d %lu", &u.laddr, &port, &u.paddr, &state, &uid, &inode) != 6)
		return 0;
	u.uid = uid;
	if (sock_type == SOCK_DGRAM)
		u.lport = htons((uint16_t)port);
	r.protocol = sock_type == SOCK_RAW ? port : IPPROTO_ICMP;
	r.sock_type = sock_type;
	r.sock = &u;
	return add_sock(l, inode, TYPE_RAW, &r.base);
}

/* "0000000000000000: 00000002 00000000 00010000 0001 01 12345 /run/x" */
static int unix_line(struct look *l, const char *line, uint32_t type)
{
	unsigned flags, sock_type, state;
	unsigned long inode;
	int at = 0;
	Pm__BodyUnix u;

	if (sscanf(line, " %*x: %*x %*x %x %x %x %lu%n", &flags, &sock_type, &state, &inode, &at) !=
	    4)
		return 0;
	pm__body_unix__init(&u);
	u.inode = inode;
	u.sock_type = sock_type;
	u.state = flags & 0x10000 ? TCP_LISTEN : state == 3 ? TCP_ESTABLISHED : TCP_CLOSE;
	u.path = dump_strdup(&l->d, line[at] == ' ' ? line + at + 1 : "");
	return add_sock(l, inode, type, &u.base);
}

/* "sk Eth Pid Groups Rmem Wmem Dump Locks Drops Inode" */
static int netlink_line(struct look *l, const char *line, uint32_t type)
{
	Pm__BodyNetlink n;
	unsigned long inode;

	pm__body_netlink__init(&n);
	if (sscanf(line, "%*s %u %u %*x %*d %*d %*d %*d %*u %lu", &n.protocol, &n.port, &inode) != 3 || !inode)
		return 0;
	return add_sock(l, inode, type, &n.base);
}

/* "sk RefCnt Type Proto Iface R Rmem User Inode" */
static int packet_line(struct look *l, const char *line, uint32_t type)
{
	Pm__BodyPacket p;
	unsigned long inode;

	pm__body_packet__init(&p);
	if (sscanf(line, "%*s %*d %u %x %*d %*d %*u %*u %lu", &p.sock_type, &p.protocol, &inode) != 3)
		return 0;
	p.protocol = htons((uint16_t)p.protocol);
	return add_sock(l, inode, type, &p.base);
}

/* One that is in no table: not bound, or of another kind. */
static void add_unlisted(struct look *l, const char *path, uint64_t inode)
{
	char name[32] = "";
	Pm__BodyTcp t;
	Pm__BodyUdp u;
	Pm__BodyNetlink n;
	Pm__BodyRaw r;

	if (getxattr(path, "system.sockprotoname", name, sizeof(name) - 1) < 0)
		return;
	pm__body_tcp__init(&t);
	pm__body_udp__init(&u);
	pm__body_netlink__init(&n);
	pm__body_raw__init(&r);
	r.sock_type = SOCK_DGRAM;
	r.protocol = IPPROTO_ICMP;
	r.sock = &u;
	n.protocol = UINT32_MAX; /* nothing tells */
	t.state = TCP_CLOSE;
	t.v6 = !strcmp(name, "TCPv6");
	u.v6 = !strcmp(name, "UDPv6");
	if (!strncmp(name, "TCP", 3))
		add_sock(l, inode, TYPE_TCP, &t.base);
	else if (!strncmp(name, "UDP", 3))
		add_sock(l, inode, TYPE_UDP, &u.base);
	else if (!strcmp(name, "PING"))
		add_sock(l, inode, TYPE_RAW, &r.base);
	else if (!strcmp(name, "NETLINK"))
		add_sock(l, inode, TYPE_NETLINK, &n.base);
}

static int by_inode(const void *a, const void *b)
{
	const struct sock *x = a, *y = b;

	return x->inode < y->inode ? -1 : x->inode > y->inode;
}

static int read_sockets(struct look *l, struct err *e)
{
	static const struct {
		const char *name;
		uint32_t type; /* or what the function knows it as */
		int (*line)(struct look *, const char *, uint32_t);
	} tables[] = {{"tcp", TYPE_TCP, inet_line},
		      {"tcp6", TYPE_TCP, inet_line},
		      {"udp", TYPE_UDP, inet_line},
		      {"udp6", TYPE_UDP, inet_line},
		      {"raw", SOCK_RAW, raw_line},
		      {"icmp", SOCK_DGRAM, raw_line},
		      {"packet", TYPE_PACKET, packet_line},
		      {"netlink", TYPE_NETLINK, netlink_line},
		      {"unix", TYPE_UNIX, unix_line}};
	int r = 0;

	for (size_t i = 0; r >= 0 && i < ARRAY_SIZE(tables); i++) {
		autofree char *text = NULL;
		char path[64], *save = NULL;

		snprintf(path, sizeof(path), "/proc/%d/net/%s", l->pid1, tables[i].name);
		if (io_read_file(path, TABLE_MAX, &text, NULL, e) < 0)
			continue; /* no IPv6 here */
		for (char *s = strtok_r(text, "\n", &save); r >= 0 && s;
		     s = strtok_r(NULL, "\n", &save))
			r = tables[i].line(l, s, tables[i].type);
	}
	*e = (struct err){0};
	if (r < 0)
		return err_num(e, -r, "sockets");
	if (l->nsocks)
		qsort(l->socks, l->nsocks, sizeof(*l->socks), by_inode);
	return 0;
}

/* ---- processes */

static int add_fd(struct look *l, int dir, const char *name, Pm__Proc *m)
{
	char link[PATH_MAX], info_name[300];
	autofree char *info = NULL;
	struct probe pr = {.fdno = atoi(name)};
	ssize_t n = readlinkat(dir, name, link, sizeof(link) - 1);
	Pm__Object **no = l->nobjects % 64
				  ? l->objects
				  : reallocarray(l->objects, l->nobjects + 64, sizeof(*no));
	struct sock key = {0}, *s = NULL;
	Pm__Object *o;
	Pm__Fd *f;

	if (no)
		l->objects = no;
	snprintf(info_name, sizeof(info_name), "../fdinfo/%s", name);
	if (n < 0 || !no || io_read_file_at(dir, info_name, 1 << 22, &info, NULL, NULL) < 0)
		return no ? 0 : -ENOMEM; /* closed by now */
	link[n] = 0;
	pr.info = info;
	probe_parse_info(&pr);
	o = dump_alloc(&l->d, sizeof(*o));
	pm__object__init(o);
	if (sscanf(link, "socket:[%lu]", &key.inode) == 1) {
		size_t listed = l->nsocks;

		s = listed ? bsearch(&key, l->socks, listed, sizeof(key), by_inode) : NULL;
		snprintf(info_name, sizeof(info_name), "/proc/self/fd/%d/%s", dir, name);
		if (!s)
			add_unlisted(l, info_name, key.inode);
		if (l->nsocks > listed) { /* not to be found again: it would have to be sorted in */
			s = &key;
			s->body = l->socks[--l->nsocks].body;
		}
	}
	if (s)
		*o = *s->body;
	o->id = (uint32_t)l->nobjects + 1;
	o->flags = pr.flags;
	o->pos = pr.pos;
	o->link = dump_strdup(&l->d, link);
	o->owner_pid = m->pid;
	o->owner_fd = (uint32_t)pr.fdno;
	l->objects[l->nobjects++] = o;
	f = dump_alloc(&l->d, sizeof(*f));
	pm__fd__init(f);
	f->fd = (uint32_t)pr.fdno;
	f->object = o->id;
	f->cloexec = pr.flags & O_CLOEXEC;
	m->fds[m->n_fds++] = f;
	return 0;
}

static int add_fds(struct look *l, const struct proc *p, Pm__Proc *m)
{
	char path[48];
	struct dirent **names;
	autoclose int dir = -1;
	int n, r = 0;

	snprintf(path, sizeof(path), "/proc/%d/fd", p->tid);
	dir = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	n = dir < 0 ? -1 : scandirat(dir, ".", &names, NULL, versionsort);
	if (n < 0)
		return 0;
	m->fds = dump_alloc(&l->d, (size_t)n * sizeof(*m->fds));
	for (int i = 0; i < n; i++) {
		if (r >= 0 && names[i]->d_name[0] != '.')
			r = add_fd(l, dir, names[i]->d_name, m);
		free(names[i]);
	}
	free(names);
	return r;
}

static void add_maps(struct look *l, struct proc *p, Pm__Proc *m)
{
	Pm__Mm *mm = dump_alloc(&l->d, sizeof(*mm));

	pm__mm__init(mm);
	m->mm = mm;
	if (maps_read(p->tid, &p->vmas, NULL) < 0)
		return;
	mm->vmas = dump_alloc(&l->d, p->vmas.n * sizeof(*mm->vmas));
	for (size_t i = 0; i < p->vmas.n; i++) {
		const struct vma *v = &p->vmas.v[i];
		Pm__Vma *o = dump_alloc(&l->d, sizeof(*o));

		if (v->type == VMA_VSYSCALL)
			continue;
		pm__vma__init(o);
		o->start = v->start;
		o->end = v->end;
		o->prot = (uint32_t)v->prot;
		o->shared = v->shared;
		o->type = v->type;
		o->pgoff = v->pgoff;
		if (l->what->maps)
			o->name = dump_strdup(&l->d, v->name);
		mm->vmas[mm->n_vmas++] = o;
	}
}

static void add_environ(struct look *l, const struct proc *p, Pm__Proc *m)
{
	autofree char *text = NULL;
	char path[48];
	size_t len;

	snprintf(path, sizeof(path), "/proc/%d/environ", p->tid);
	if (io_read_file(path, ENVIRON_MAX, &text, &len, NULL) < 0)
		return;
	m->environ.len = len;
	m->environ.data = memcpy(dump_alloc(&l->d, len), text, len);
}

static void add_threads(struct look *l, struct proc *p, Pm__Proc *m)
{
	char path[64];

	proc_update_threads(p, NULL);
	m->threads = dump_alloc(&l->d, p->ntasks * sizeof(*m->threads));
	for (size_t i = 0; i < p->ntasks; i++) {
		Pm__Thread *t = dump_alloc(&l->d, sizeof(*t));
		autofree char *comm = NULL;

		pm__thread__init(t);
		t->tid = (uint32_t)p->tasks[i]->nstid;
		snprintf(path, sizeof(path), "/proc/%d/task/%d/comm", p->pid, p->tasks[i]->tid);
		if (io_read_file(path, 64, &comm, NULL, NULL) >= 0)
			t->comm = dump_strdup(&l->d, strtok(comm, "\n") ? comm : "");
		m->threads[m->n_threads++] = t;
	}
}

static int look_at(struct look *l, struct proc *p, Pm__Tree *t)
{
	Pm__Proc *m = dump_alloc(&l->d, sizeof(*m));
	int r = 0;

	pm__proc__init(m);
	m->pid = (uint32_t)p->nspid;
	m->ppid = (uint32_t)p->nsppid;
	m->pgid = (uint32_t)p->st.pgid;
	m->sid = (uint32_t)p->st.sid;
	m->zombie = p->zombie;
	m->leader_dead = p->leaderless;
	m->exit_code = p->st.exit_code;
	m->comm = dump_strdup(&l->d, p->st.comm);
	m->uid = p->st.uid[0];
	m->euid = p->st.uid[1];
	if (!p->zombie) {
		add_threads(l, p, m);
		add_maps(l, p, m);
		if (l->what->env)
			add_environ(l, p, m);
		r = add_fds(l, p, m);
	}
	t->procs[t->n_procs++] = m;
	return r;
}

/* ---- the answer */

static void look_at_mounts(struct look *l, Pm__Needs *needs)
{
	static const char *const tops[] = {"/tmp", "/run", "/dev/shm"};

	needs->mounts = dump_alloc(&l->d, ARRAY_SIZE(tops) * sizeof(*needs->mounts));
	for (size_t i = 0; i < ARRAY_SIZE(tops); i++) {
		Pm__MountNeed *m = dump_alloc(&l->d, sizeof(*m));
		char path[64];
		struct statvfs v;

		snprintf(path, sizeof(path), "/proc/%d/root%s", l->pid1, tops[i]);
		if (statvfs(path, &v) < 0)
			continue;
		pm__mount_need__init(m);
		m->path = dump_strdup(&l->d, tops[i]);
		m->bytes = (v.f_blocks - v.f_bfree) * v.f_frsize;
		needs->mounts[needs->n_mounts++] = m;
	}
}

static ProtobufCBinaryData pack(struct look *l, const ProtobufCMessage *m)
{
	ProtobufCBinaryData out = {protobuf_c_message_get_packed_size(m), NULL};

	out.data = dump_alloc(&l->d, out.len);
	protobuf_c_message_pack(m, out.data);
	return out;
}

static int look_round(struct look *l, Pm__InspectRep *rep, struct err *e)
{
	Pm__Tree tree;
	Pm__Objects objs;
	Pm__Needs needs;
	int r = proc_list_update(&l->d.procs, l->pid1, e);

	pm__tree__init(&tree);
	pm__objects__init(&objs);
	pm__needs__init(&needs);
	tree.procs = dump_alloc(&l->d, l->d.procs.n * sizeof(*tree.procs));
	if (r >= 0)
		r = read_sockets(l, e);
	for (size_t i = 0; r >= 0 && i < l->d.procs.n; i++)
		if (look_at(l, l->d.procs.p[i], &tree) < 0)
			r = err_num(e, ENOMEM, "open files");
	if (r < 0)
		return r;
	look_at_mounts(l, &needs);
	objs.objects = l->objects;
	objs.n_objects = l->nobjects;
	rep->tree = pack(l, &tree.base);
	rep->objects = pack(l, &objs.base);
	rep->needs = pack(l, &needs.base);
	return 0;
}

int engine_inspect(int ctl, const Pm__EngineInspect *req)
{
	struct look l = {.what = req->what, .pid1 = (pid_t)req->pid};
	struct err e = {0};
	int r;

	LINK_ENVELOPE(env, inspect_rep, INSPECT_REP, Pm__InspectRep, pm__inspect_rep__init);
	r = look_round(&l, &env_body, &e);
	if (r >= 0) {
		env_body.pod = req->pod;
		r = link_send(ctl, &env, deadline_ms(SEND_MS), &e);
	}
	r = r < 0 ? engine_fail(ctl, r == -EMSGSIZE ? 1 : 3, "", &e) : 0;
	proc_list_done(&l.d.procs);
	free(l.socks);
	free(l.objects);
	dump_arena_done(&l.d);
	return r;
}
