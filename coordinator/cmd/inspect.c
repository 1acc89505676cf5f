/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * podctl inspect: what is in an image, without reading its pages (but for environments, which are
 * in them); or in a pod that runs, of which its node says the same in the same messages
 * (pod/look.c).
 */
#include <arpa/inet.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "coordinator/cmd/inspect.h"
#include "pod/base/util.h"
#include "pod/kind/kinds.h"
#include "pod/mem/mem.h"

enum { OPT_JSON = 256, OPT_TREE, OPT_FILES, OPT_SOCKETS, OPT_MOUNTS, OPT_MAPS, OPT_ENV, OPT_STATS, OPT_PID };

#define TREE_DEPTH 64
#define ENVIRON_MAX (1u << 20)

struct show {
	bool tree, files, sockets, mounts, maps, env, stats;
	uint64_t pid; /* 0: all */
};

const Pm__Object *content_object(const struct content *x, uint32_t id)
{
	for (size_t i = 0; i < x->objs->n_objects; i++)
		if (x->objs->objects[i]->id == id)
			return x->objs->objects[i];
	return NULL;
}

static uint64_t mapped(const Pm__Proc *p)
{
	uint64_t sum = 0;

	for (size_t i = 0; p->mm && i < p->mm->n_vmas; i++)
		sum += p->mm->vmas[i]->end - p->mm->vmas[i]->start;
	return sum;
}

const char *open_mode(uint32_t flags)
{
	static const char *const words[] = { "r", "w", "rw", "-" };

	return flags & O_PATH ? "path" : words[flags & O_ACCMODE];
}

/* ---- words */

static void show_pod_stats(const struct content *x)
{
	const Pm__PodInfo *p = x->rep->inspect_rep->pod;
	char b[200], size[32];
	size_t threads = 0;

	for (size_t i = 0; i < x->tree->n_procs; i++)
		threads += x->tree->procs[i]->n_threads;
	printf("pod      %s", clean_copy(b, sizeof(b), x->spec->name));
	printf(" of user %s", clean_copy(b, sizeof(b), x->spec->user));
	printf(", address %s\n", x->spec->ip[0] ? clean_copy(b, sizeof(b), x->spec->ip) : "none");
	printf("state    %s on %s, epoch %lu\n", pod_state_name(p), clean_copy(b, sizeof(b), p->node),
	       (unsigned long)p->epoch);
	printf("size     %s resident, %zu processes, %zu threads\n", human_size(size, sizeof(size), p->mem), x->tree->n_procs,
	       threads);
}

static void show_stats(const struct content *x)
{
	const struct image *im = &x->chain.im[x->chain.n - 1];
	time_t t = (time_t)(im->head->created_ns / 1000000000u);
	uint64_t all = chain_count(&x->chain), packed;
	char when[32], size[32], b[200];
	struct tm tm;

	strftime(when, sizeof(when), "%Y-%m-%dT%H:%M:%S", localtime_r(&t, &tm));
	printf("image    %s%s\n", clean_copy(b, sizeof(b), im->head->id), im->head->ended ? ", with which the pod ended" : "");
	printf("pod      %s", clean_copy(b, sizeof(b), x->spec->name));
	printf(" of user %s", clean_copy(b, sizeof(b), x->spec->user));
	printf(", address %s\n", x->spec->ip[0] ? clean_copy(b, sizeof(b), x->spec->ip) : "none");
	printf("made     %s on %s, format %u\n", when, clean_copy(b, sizeof(b), im->head->node), im->head->version);
	printf("size     %s, %lu pages stored here", human_size(size, sizeof(size), im->size), (unsigned long)im->npages);
	if (image_stored(im, &packed), packed)
		printf(", compressed to %lu %%", (unsigned long)(image_stored(im, &packed) * 100 / (im->npages * PAGE)));
	if (x->chain.n > 1)
		printf(", %lu in the %zu image%s that it builds on", (unsigned long)(all - im->npages), x->chain.n - 1,
		       x->chain.n == 2 ? "" : "s");
	printf("\n");
}

/* The children of each stand together; in an image they may be anybody's, and each other's. */
struct family {
	const Pm__Proc **proc;
	bool *shown;
	size_t n;
};

static int by_parent(const void *a, const void *b)
{
	const Pm__Proc *x = *(const Pm__Proc *const *)a, *y = *(const Pm__Proc *const *)b;

	return x->ppid != y->ppid ? (x->ppid < y->ppid ? -1 : 1) : x->pid < y->pid ? -1 : x->pid > y->pid;
}

static void show_children(struct family *f, uint32_t parent, int depth);

static void show_proc(struct family *f, size_t i, int depth)
{
	const Pm__Proc *p = f->proc[i];
	char size[32], b[64];

	if (f->shown[i])
		return;
	f->shown[i] = true;
	if (p->zombie)
		printf("%*s%u %s (zombie)\n", 2 * depth, "", p->pid, clean_copy(b, sizeof(b), p->comm));
	else
		printf("%*s%u %s  uid %u, %zu thread%s, %zu fd%s, %s mapped\n", 2 * depth, "", p->pid,
		       clean_copy(b, sizeof(b), p->comm), p->euid, p->n_threads, p->n_threads == 1 ? "" : "s", p->n_fds,
		       p->n_fds == 1 ? "" : "s", human_size(size, sizeof(size), mapped(p)));
	if (depth < TREE_DEPTH)
		show_children(f, p->pid, depth + 1);
}

static void show_children(struct family *f, uint32_t parent, int depth)
{
	size_t lo = 0, hi = f->n;

	while (lo < hi) {
		size_t mid = lo + (hi - lo) / 2;

		if (f->proc[mid]->ppid < parent)
			lo = mid + 1;
		else
			hi = mid;
	}
	/* of two with one pid, only the first has the children */
	if (lo < f->n && f->shown[lo])
		return;
	for (; lo < f->n && f->proc[lo]->ppid == parent; lo++)
		show_proc(f, lo, depth);
}

/* Each once, whatever they say of one another; who is nobody's child, or too deep, begins a tree of his own. */
static void show_tree(const struct content *x)
{
	struct family f = { .n = x->tree->n_procs };

	f.proc = calloc(f.n + 1, sizeof(*f.proc));
	f.shown = calloc(f.n + 1, sizeof(*f.shown));
	if (f.proc && f.shown) {
		for (size_t i = 0; i < f.n; i++)
			f.proc[i] = x->tree->procs[i];
		qsort(f.proc, f.n, sizeof(*f.proc), by_parent);
		show_children(&f, 0, 0);
		for (size_t i = 0; i < f.n; i++)
			show_proc(&f, i, 0);
	}
	free(f.proc);
	free(f.shown);
}

static void show_files(const struct content *x, const Pm__Proc *p)
{
	char b[4200];

	for (size_t i = 0; i < p->n_fds; i++) {
		const Pm__Object *o = content_object(x, p->fds[i]->object);

		printf("%u %u %s %s\n", p->pid, p->fds[i]->fd, o ? open_mode(o->flags) : "-",
		       o ? clean_copy(b, sizeof(b), o->link) : "?");
	}
}

static void show_maps(const struct content *x, const Pm__Proc *p)
{
	char b[4200];

	for (size_t i = 0; p->mm && i < p->mm->n_vmas; i++) {
		const Pm__Vma *v = p->mm->vmas[i];
		const Pm__Object *o = v->object ? content_object(x, v->object) : NULL;

		printf("%u %lx-%lx %c%c%c%c %s\n", p->pid, (unsigned long)v->start, (unsigned long)v->end,
		       v->prot & 1 ? 'r' : '-', v->prot & 2 ? 'w' : '-', v->prot & 4 ? 'x' : '-', v->shared ? 's' : 'p',
		       clean_copy(b, sizeof(b), o ? o->link : v->name));
	}
}

/* ---- sockets */

struct socket_words {
	const char *protocol, *state;
	char local[128], peer[128];
};

static void address(char *out, size_t len, bool v6, const ProtobufCBinaryData *six, uint32_t four, uint32_t port)
{
	char text[INET6_ADDRSTRLEN] = "::";

	if (v6 && six->len == 16)
		inet_ntop(AF_INET6, six->data, text, sizeof(text));
	else if (!v6)
		inet_ntop(AF_INET, &four, text, sizeof(text));
	snprintf(out, len, v6 ? "[%s]:%u" : "%s:%u", text, ntohs((uint16_t)port));
}

static const char *tcp_state(uint32_t s)
{
	static const char *const words[] = { "?", "ESTABLISHED", "SYN_SENT", "SYN_RECV", "FIN_WAIT1", "FIN_WAIT2", "TIME_WAIT",
					     "CLOSE", "CLOSE_WAIT", "LAST_ACK", "LISTEN", "CLOSING" };

	return words[s < ARRAY_SIZE(words) ? s : 0];
}

static bool tcp_words(const Pm__Object *o, struct socket_words *w)
{
	Pm__BodyTcp *t = pm__body_tcp__unpack(NULL, o->body.len, o->body.data);

	if (!t)
		return false;
	w->protocol = t->v6 ? "tcp6" : "tcp";
	w->state = tcp_state(t->state);
	address(w->local, sizeof(w->local), t->v6, &t->laddr6, t->laddr, t->lport);
	if (t->pport)
		address(w->peer, sizeof(w->peer), t->v6, &t->paddr6, t->paddr, t->pport);
	pm__body_tcp__free_unpacked(t, NULL);
	return true;
}

static void dgram_words(const Pm__BodyUdp *u, struct socket_words *w)
{
	w->state = u->pport || u->paddr ? "ESTABLISHED" : "CLOSE";
	address(w->local, sizeof(w->local), u->v6, &u->laddr6, u->laddr, u->lport);
	if (u->pport || u->paddr)
		address(w->peer, sizeof(w->peer), u->v6, &u->paddr6, u->paddr, u->pport);
}

static bool udp_words(const Pm__Object *o, struct socket_words *w)
{
	Pm__BodyUdp *u = pm__body_udp__unpack(NULL, o->body.len, o->body.data);

	if (!u)
		return false;
	w->protocol = u->v6 ? "udp6" : "udp";
	dgram_words(u, w);
	pm__body_udp__free_unpacked(u, NULL);
	return true;
}

static bool raw_words(const Pm__Object *o, struct socket_words *w)
{
	Pm__BodyRaw *r = pm__body_raw__unpack(NULL, o->body.len, o->body.data);

	if (!r || !r->sock) {
		pm__body_raw__free_unpacked(r, NULL);
		return false;
	}
	w->protocol = r->sock_type == SOCK_DGRAM ? "icmp" : "raw";
	dgram_words(r->sock, w);
	pm__body_raw__free_unpacked(r, NULL);
	return true;
}

static bool unix_words(const Pm__Object *o, struct socket_words *w)
{
	Pm__BodyUnix *u = pm__body_unix__unpack(NULL, o->body.len, o->body.data);
	size_t n;

	if (!u)
		return false;
	w->protocol = "unix";
	w->state = tcp_state(u->state);
	n = MIN(u->name.len, sizeof(w->local) - 1);
	if (u->path[0])
		snprintf(w->local, sizeof(w->local), "%s", u->path);
	else if (n)
		memcpy(w->local, u->name.data, n);
	if (n && !u->path[0] && !w->local[0])
		w->local[0] = '@';
	clean(w->local);
	pm__body_unix__free_unpacked(u, NULL);
	return true;
}

static bool netlink_words(const Pm__Object *o, struct socket_words *w)
{
	static const char *const names[] = { [0] = "route", [2] = "usersock", [4] = "sock_diag", [15] = "kobject_uevent" };
	Pm__BodyNetlink *n = pm__body_netlink__unpack(NULL, o->body.len, o->body.data);

	if (!n)
		return false;
	w->protocol = "netlink";
	w->state = n->protocol < ARRAY_SIZE(names) && names[n->protocol] ? names[n->protocol] : "?";
	if (n->port)
		snprintf(w->local, sizeof(w->local), "%u", n->port);
	if (n->peer_port)
		snprintf(w->peer, sizeof(w->peer), "%u", n->peer_port);
	pm__body_netlink__free_unpacked(n, NULL);
	return true;
}

static bool packet_words(const Pm__Object *o, struct socket_words *w)
{
	Pm__BodyPacket *p = pm__body_packet__unpack(NULL, o->body.len, o->body.data);

	if (!p)
		return false;
	w->protocol = "packet";
	w->state = p->protocol ? "HEARS" : "CLOSE";
	snprintf(w->local, sizeof(w->local), "0x%04x", ntohs((uint16_t)p->protocol));
	pm__body_packet__free_unpacked(p, NULL);
	return true;
}

/* What the kind of the object says of it, if it is a socket. */
static bool socket_words(const Pm__Object *o, struct socket_words *w)
{
	*w = (struct socket_words){ .protocol = "" };
	switch (o ? o->type : 0) {
	case TYPE_TCP:
		return tcp_words(o, w);
	case TYPE_UDP:
		return udp_words(o, w);
	case TYPE_RAW:
		return raw_words(o, w);
	case TYPE_PACKET:
		return packet_words(o, w);
	case TYPE_UNIX:
	case TYPE_UNIX_DGRAM:
		return unix_words(o, w);
	case TYPE_NETLINK:
		return netlink_words(o, w);
	default: /* of a kind that cannot be carried */
		w->protocol = w->state = "?";
		return o && !strncmp(o->link, "socket:", 7);
	}
}

static void show_sockets(const struct content *x, const Pm__Proc *p)
{
	struct socket_words w;

	for (size_t i = 0; i < p->n_fds; i++)
		if (socket_words(content_object(x, p->fds[i]->object), &w))
			printf("%u %u %s %s %s %s\n", p->pid, p->fds[i]->fd, w.protocol, w.state, w.local[0] ? w.local : "-",
			       w.peer[0] ? w.peer : "-");
}

static json_t *sockets_json(const struct content *x, const Pm__Proc *p)
{
	json_t *list = json_array();
	struct socket_words w;

	for (size_t i = 0; i < p->n_fds; i++)
		if (socket_words(content_object(x, p->fds[i]->object), &w))
			json_array_append_new(list, json_pack("{s:i, s:s, s:s, s:s, s:s}", "fd", p->fds[i]->fd, "protocol",
							      w.protocol, "state", w.state, "local", w.local, "peer", w.peer));
	return list;
}

/* ---- mounts */

static json_t *mount_json(const char *path, const char *source, bool ro, uint64_t bytes)
{
	char b[2][4200];

	return json_pack("{s:s, s:s, s:b, s:I}", "path", clean_copy(b[0], sizeof(b[0]), path), "source",
			 clean_copy(b[1], sizeof(b[1]), source), "ro", ro, "bytes", (json_int_t)bytes);
}

/* Its root, what is bound into it, and the file systems that are its own, with what is in them. */
static json_t *mounts_json(const struct content *x)
{
	json_t *list = json_array();

	json_array_append_new(list, mount_json("/", x->spec->root[0] ? x->spec->root : "/", false, 0));
	for (size_t i = 0; i < x->spec->n_binds; i++)
		json_array_append_new(list, mount_json(x->spec->binds[i]->dst, x->spec->binds[i]->src, x->spec->binds[i]->ro, 0));
	for (size_t i = 0; i < x->needs->n_mounts; i++)
		json_array_append_new(list, mount_json(x->needs->mounts[i]->path, "tmpfs", false, x->needs->mounts[i]->bytes));
	return list;
}

static void show_mounts(const struct content *x)
{
	json_t *list = mounts_json(x), *m;
	char size[32];
	size_t i;

	json_array_foreach(list, i, m) {
		json_int_t bytes = json_integer_value(json_object_get(m, "bytes"));
		const char *source = json_string_value(json_object_get(m, "source"));

		printf("%s %s %s", json_string_value(json_object_get(m, "path")), source,
		       json_is_true(json_object_get(m, "ro")) ? "ro" : "rw");
		if (!strcmp(source, "tmpfs"))
			printf(" %s", human_size(size, sizeof(size), (uint64_t)bytes));
		printf("\n");
	}
	json_decref(list);
}

/* ---- environment */

/* Of an image it is in the memory, where the program has had it at its start. @len bytes, the caller's to free. */
static char *environ_of(const struct content *x, const Pm__Proc *p, size_t *len, struct err *e)
{
	uint64_t n = p->mm && p->mm->env_end > p->mm->env_start ? p->mm->env_end - p->mm->env_start : 0;
	char *text;

	n = x->rep ? p->environ.len : MIN(n, (uint64_t)ENVIRON_MAX);
	text = calloc(1, n + 1);
	if (!text || !n) {
		*len = 0;
		return text;
	}
	if (x->rep)
		memcpy(text, p->environ.data, n);
	else if (memory_read(&x->chain, &x->mem, p, p->mm->env_start, text, n, e) < 0)
		n = 0;
	*len = n;
	return text;
}

static json_t *environ_json(const struct content *x, const Pm__Proc *p, struct err *e)
{
	json_t *list = json_array();
	size_t len, i;
	autofree char *text = environ_of(x, p, &len, e);

	for (i = 0; text && i < len; i += strlen(text + i) + 1)
		if (text[i])
			json_array_append_new(list, json_string(clean(text + i)));
	return list;
}

static void show_environ(const struct content *x, const Pm__Proc *p, struct err *e)
{
	json_t *list = environ_json(x, p, e), *v;
	size_t i;

	json_array_foreach(list, i, v)
		printf("%u %s\n", p->pid, json_string_value(v));
	json_decref(list);
}

/* ---- JSON */

static json_t *fds_json(const struct content *x, const Pm__Proc *p)
{
	json_t *fds = json_array();

	for (size_t i = 0; i < p->n_fds; i++) {
		const Pm__Object *f = content_object(x, p->fds[i]->object);

		json_array_append_new(fds, json_pack("{s:i, s:s, s:s, s:I}", "fd", p->fds[i]->fd, "mode",
						     f ? open_mode(f->flags) : "-", "what", f ? clean(f->link) : "", "pos",
						     (json_int_t)(f ? f->pos : 0)));
	}
	return fds;
}

static json_t *maps_json(const Pm__Proc *p)
{
	json_t *maps = json_array();

	for (size_t i = 0; p->mm && i < p->mm->n_vmas; i++) {
		const Pm__Vma *v = p->mm->vmas[i];

		json_array_append_new(maps, json_pack("{s:I, s:I, s:i, s:b, s:s}", "start", (json_int_t)v->start, "end",
						      (json_int_t)v->end, "prot", v->prot, "shared", v->shared, "name",
						      clean(v->name)));
	}
	return maps;
}

static json_t *proc_json(const struct content *x, const Pm__Proc *p, const struct show *s, struct err *e)
{
	json_t *o = json_pack("{s:i, s:i, s:i, s:i, s:s, s:b, s:i, s:I, s:I}", "pid", p->pid, "ppid", p->ppid, "pgid",
			      p->pgid, "sid", p->sid, "comm", clean(p->comm), "zombie", p->zombie, "uid", p->euid, "threads",
			      (json_int_t)p->n_threads, "mapped", (json_int_t)mapped(p));

	if (s->files)
		json_object_set_new(o, "fds", fds_json(x, p));
	if (s->sockets)
		json_object_set_new(o, "sockets", sockets_json(x, p));
	if (s->maps)
		json_object_set_new(o, "maps", maps_json(p));
	if (s->env)
		json_object_set_new(o, "environment", environ_json(x, p, e));
	return o;
}

/* What an image and a pod that runs have each for itself. */
static void add_own(const struct content *x, json_t *o)
{
	const struct image *im = x->rep ? NULL : &x->chain.im[x->chain.n - 1];
	const Pm__PodInfo *p = x->rep ? x->rep->inspect_rep->pod : NULL;
	uint64_t packed;
	json_t *own = im ? json_pack("{s:s, s:s, s:I, s:b, s:I, s:I, s:I, s:i}", "image", clean(im->head->id), "node",
				     clean(im->head->node), "created_ns", (json_int_t)im->head->created_ns, "ended",
				     im->head->ended, "bytes", (json_int_t)im->size, "pages", (json_int_t)im->npages, "stored",
				     (json_int_t)image_stored(im, &packed), "images",
				     (int)x->chain.n) :
			   json_pack("{s:n, s:s, s:s, s:I, s:I}", "image", "node", clean(p->node), "state",
				     pod_state_name(p), "epoch", (json_int_t)p->epoch, "mem", (json_int_t)p->mem);

	if (own)
		json_object_update(o, own);
	json_decref(own);
}

static int show_json(const struct content *x, const struct show *s, struct err *e)
{
	json_t *procs = json_array(), *o;

	for (size_t i = 0; i < x->tree->n_procs; i++)
		if (!s->pid || x->tree->procs[i]->pid == s->pid)
			json_array_append_new(procs, proc_json(x, x->tree->procs[i], s, e));
	o = json_pack("{s:s, s:s, s:s}", "pod", clean(x->spec->name), "user", clean(x->spec->user), "ip", clean(x->spec->ip));
	if (!o)
		return EXIT_OTHER; /* no memory */
	add_own(x, o);
	if (s->mounts)
		json_object_set_new(o, "mounts", mounts_json(x));
	json_object_set_new(o, "processes", procs);
	json_dumpf(o, stdout, JSON_INDENT(2) | JSON_ENSURE_ASCII);
	putchar('\n');
	json_decref(o);
	return EXIT_OK;
}

/* ---- all of it */

int content_load(struct ctx *c, const char *path, bool memory, struct content *x)
{
	struct err e = { 0 };
	const struct image *im;

	if (chain_open(&x->chain, path, NULL, &e) < 0)
		return image_error(c, &e);
	im = chain_top(&x->chain);
	x->spec = pm__pod_spec__unpack(NULL, im->head->spec.len, im->head->spec.data);
	x->tree = (Pm__Tree *)image_message(im, REC_FINAL, &pm__tree__descriptor, &e);
	x->objs = (Pm__Objects *)image_message(im, REC_OBJECTS, &pm__objects__descriptor, &e);
	x->needs = (Pm__Needs *)image_message(im, REC_NEEDS, &pm__needs__descriptor, &e);
	if (!x->spec || !x->tree || !x->objs || !x->needs)
		return say(c, EXIT_IMAGE, "'%s': %s", path, e.code ? e.msg : "it does not say what pod it is");
	for (size_t i = 0; memory && i < x->tree->n_procs; i++)
		if (memory_check(x->tree->procs[i], &e) < 0)
			return image_error(c, &e);
	if (memory && memory_load(&x->chain, &x->mem, &e) < 0)
		return image_error(c, &e);
	return 0;
}

/* An exit code, after all was said. */
static int load_pod(struct ctx *c, const char *name, const struct show *s, struct content *x)
{
	const Pm__InspectRep *m;
	struct err e = { 0 };
	int fd = client_try(c, &e), r;

	if (fd < 0)
		return say(c, EXIT_UNREACHABLE, "there is no image '%s', and whether there is a pod is not known: %s", name, e.msg);
	LINK_ENVELOPE(q, inspect_req, INSPECT_REQ, Pm__InspectReq, pm__inspect_req__init);
	q_body.pod = (char *)(uintptr_t)name;
	q_body.maps = s->maps;
	q_body.env = s->env;
	r = client_call(c, fd, &q, PM__ENVELOPE__BODY_INSPECT_REP, name, &x->rep);
	close(fd);
	if (r)
		return r;
	m = x->rep->inspect_rep;
	x->spec = m->pod ? m->pod->spec : NULL;
	x->tree = pm__tree__unpack(NULL, m->tree.len, m->tree.data);
	x->objs = pm__objects__unpack(NULL, m->objects.len, m->objects.data);
	x->needs = pm__needs__unpack(NULL, m->needs.len, m->needs.data);
	return x->spec && x->tree && x->objs && x->needs ? 0 : say(c, EXIT_OTHER, "the pod's node answered what is no pod");
}

void content_unload(struct content *x)
{
	if (x->spec && !x->rep)
		pm__pod_spec__free_unpacked(x->spec, NULL);
	if (x->tree)
		pm__tree__free_unpacked(x->tree, NULL);
	if (x->objs)
		pm__objects__free_unpacked(x->objs, NULL);
	if (x->needs)
		pm__needs__free_unpacked(x->needs, NULL);
	if (x->rep)
		link_free(x->rep);
	memory_done(&x->mem);
	chain_close(&x->chain);
}

static void show_words(const struct content *x, struct show *s, struct err *e)
{
	if (!s->tree && !s->files && !s->sockets && !s->mounts && !s->maps && !s->env && !s->stats)
		s->tree = s->stats = true;
	if (s->stats && x->rep)
		show_pod_stats(x);
	else if (s->stats)
		show_stats(x);
	if (s->tree)
		show_tree(x);
	if (s->mounts)
		show_mounts(x);
	for (size_t i = 0; i < x->tree->n_procs; i++) {
		const Pm__Proc *p = x->tree->procs[i];

		if (s->pid && p->pid != s->pid)
			continue;
		if (s->files)
			show_files(x, p);
		if (s->sockets)
			show_sockets(x, p);
		if (s->maps)
			show_maps(x, p);
		if (s->env)
			show_environ(x, p, e);
	}
}

/* A path, or what the store has, is an image; all else may be a pod. */
static int find(struct ctx *c, const char *name, const struct show *s, struct content *x)
{
	char path[PATH_MAX];
	int code;

	if (!strchr(name, '/') && !have_image(c, name))
		return load_pod(c, name, s, x);
	code = find_image(c, name, path, sizeof(path), NULL);
	return code ? code : content_load(c, path, s->env, x);
}

int cmd_inspect(struct ctx *c, int argc, char **argv)
{
	static const struct option longs[] = {
		{ "ps-tree", no_argument, NULL, OPT_TREE },   { "files", no_argument, NULL, OPT_FILES },
		{ "sockets", no_argument, NULL, OPT_SOCKETS }, { "mounts", no_argument, NULL, OPT_MOUNTS },
		{ "maps", no_argument, NULL, OPT_MAPS },      { "env", no_argument, NULL, OPT_ENV },
		{ "stats", no_argument, NULL, OPT_STATS },    { "pid", required_argument, NULL, OPT_PID },
		{ "json", no_argument, NULL, OPT_JSON },      { "help", no_argument, NULL, 'h' },
		{ NULL, 0, NULL, 0 },
	};
	struct content x = { .spec = NULL };
	struct show s = { .tree = false };
	struct err e = { 0 };
	bool json = false;
	int o, code;

	while ((o = next_option(c, argc, argv, ":h", longs)) != -1) {
		s.tree |= o == OPT_TREE;
		s.files |= o == OPT_FILES;
		s.sockets |= o == OPT_SOCKETS;
		s.mounts |= o == OPT_MOUNTS;
		s.maps |= o == OPT_MAPS;
		s.env |= o == OPT_ENV;
		s.stats |= o == OPT_STATS;
		json |= o == OPT_JSON;
		if (o == 'h' || o == '?' || (o == OPT_PID && parse_number(c, "--pid", optarg, 1, 1 << 22, &s.pid) < 0))
			return o == 'h' ? EXIT_OK : usage_code(c);
	}
	if (argc - optind != 1)
		return say_usage(c, argc == optind ? "which pod or image?" : "too many operands");
	code = find(c, argv[optind], &s, &x);
	if (!code && json)
		code = show_json(&x, &s, &e);
	else if (!code)
		show_words(&x, &s, &e);
	if (!code && e.code)
		code = image_error(c, &e);
	content_unload(&x);
	return code;
}
