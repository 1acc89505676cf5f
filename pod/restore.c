/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * The target's engine: the right half of a migration.
 *
 * Theory of operation. It listens on a port that is open for this one operation, takes the one
 * connection that begins with the operation's token, and then does what the records say, in the order
 * in which they come; the table below says which record is allowed in which state.
 *
 *	GREETING   -> the pod's namespaces are made, with the source's clocks; pid 1 is a skeleton
 *	NEEDS      -> what this node lacks is answered by name
 *	TREE       -> skeletons and their mappings: the landing zone (not with --stop-copy)
 *	pages      -> written in place as they come
 *	CLOCK      -> "all so far is in place"
 *	SOON       -> the pod is about to stand still: what can be made ready is
 *	FINAL      -> the tree of the cut: the landing zone is brought in line with it
 *	CUT_END    -> everything else; frozen by cgroup.freeze; READY
 *	HELD       -> frames that arrived at the source for the frozen pod; replayed after START
 *
 * Until READY any failure ends the skeletons (they die with their tracer) and removes the pod's place.
 * From READY on the agent decides. On START this engine lowers the filter, lets the sockets speak and
 * replays what was held; the pod would run without that, only slower to hear what it missed.
 */
#include "pod/restore.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>

#include "agent/link/frame.h"
#include "pod/base/fault.h"
#include "pod/base/io.h"
#include "pod/base/log.h"
#include "pod/base/prio.h"
#include "pod/base/util.h"
#include "pod/dump.h"
#include "pod/engine.h"
#include "pod/kind/kinds.h"
#include "pod/semundo.h"

#define CTL_MS 5000
#define ACCEPT_MS 30000
#define CREATE_MS 50000 /* nobody stands still for it */
#define FREEZE_MS 5000
#define STREAM_MS (7u * 86400 * 1000) /* with --bandwidth it may take long; whose source is lost is told so by his agent */
#define CLOCK_WAIT_MS 2000

/* ---- pid 1 of the landing zone */

static int skeleton(void *arg)
{
	uint64_t at = *(uint64_t *)arg;
	char byte = 1;
	void *p = mmap((void *)at, SCRATCH_LEN, PROT_READ | PROT_WRITE | PROT_EXEC,
		       MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);

	if (p != (void *)at)
		return -ENOMEM;
	memcpy(p, arch_batch_code, (size_t)(arch_batch_code_end - arch_batch_code));
	if (write(POD_NS_CHILD_FD, &byte, 1) != 1)
		return -EPIPE;
	for (;;)
		pause();
}

/* ---- connection */

static int listen_here(struct restore *r, struct err *e)
{
	LINK_ENVELOPE(env, engine_listening, ENGINE_LISTENING, Pm__EngineListening, pm__engine_listening__init);
	struct sockaddr_in sa = { .sin_family = AF_INET };
	autoclose int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	socklen_t len = sizeof(sa);
	int q;

	if (fd < 0)
		return err_sys(e, "socket");
	if (inet_pton(AF_INET, r->req->listen_address, &sa.sin_addr) != 1)
		return err_set(e, EINVAL, "'%s' is not an address", r->req->listen_address);
	setsockopt(fd, IPPROTO_TCP, TCP_CONGESTION, "cubic", 5);
	if (bind(fd, (struct sockaddr *)&sa, sizeof(sa)) < 0 || listen(fd, 4) < 0 ||
	    getsockname(fd, (struct sockaddr *)&sa, &len) < 0)
		return err_sys(e, "listen on %s", r->req->listen_address);
	env_body.port = ntohs(sa.sin_port);
	q = link_send(r->ctl, &env, deadline_ms(CTL_MS), e);
	return q < 0 ? q : take_fd(&fd);
}

/* Is it who the coordinator sent? In constant time. */
static bool token_fits(struct restore *r, int fd)
{
	uint8_t got[64], diff = 0;
	size_t n = r->req->token.len, i;

	if (n < 16 || n > sizeof(got) || io_read_full(fd, got, n, deadline_ms(2000), NULL) < 0)
		return false;
	for (i = 0; i < n; i++)
		diff |= got[i] ^ r->req->token.data[i];
	return diff == 0;
}

static int accept_source(struct restore *r, int lfd, struct err *e)
{
	uint64_t end = deadline_ms(r->req->deadline_ms ? r->req->deadline_ms : ACCEPT_MS);
	int one = 1;

	for (;;) {
		struct pollfd p[2] = { { .fd = lfd, .events = POLLIN }, { .fd = r->ctl, .events = POLLIN } };
		autoclose int fd = -1;

		if (io_poll(p, 2, end) <= 0)
			return err_set(e, ETIMEDOUT, "the source did not connect");
		if (p[1].revents)
			return err_set(e, ECANCELED, "aborted");
		fd = accept4(lfd, NULL, NULL, SOCK_CLOEXEC);
		if (fd < 0 || !token_fits(r, fd))
			continue;
		setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
		r->s.fd = take_fd(&fd);
		return 0;
	}
}

static int verdict(struct restore *r, struct err *e)
{
	Pm__Verdict v;

	if (r->s.file)
		return 0;
	pm__verdict__init(&v);
	v.ok = true;
	return stream_send_msg(&r->s, REC_VERDICT, 0, &v.base, e);
}

/* ---- check */

/* The source's clocks, as of half a round trip ago. */
static int ask_clock(struct restore *r, struct pod_clock *c, struct err *e)
{
	struct record rec;
	Pm__CutEnd *src;
	uint64_t t0 = now_ns(), rtt;
	struct timespec b;
	int q = stream_send(&r->s, REC_CLOCK, 0, NULL, 0, e);

	if (q >= 0)
		q = stream_expect(&r->s, REC_CLOCK, &rec, e);
	if (q < 0)
		return q;
	rtt = now_ns() - t0;
	src = (Pm__CutEnd *)record_unpack(&rec, &pm__cut_end__descriptor, e);
	record_done(&rec);
	if (!src)
		return -EBADMSG;
	clock_gettime(CLOCK_BOOTTIME, &b);
	c->set = true;
	c->at_ns = now_ns();
	c->at_boot_ns = (uint64_t)b.tv_sec * NSEC_PER_SEC + (uint64_t)b.tv_nsec;
	c->mono_ns = src->mono_ns + rtt / 2;
	c->boot_ns = src->boot_ns + rtt / 2;
	pm__cut_end__free_unpacked(src, NULL);
	return 0;
}

static int open_ns(struct restore *r, struct err *e)
{
	const uint8_t *vdso;
	char path[48];
	size_t len;
	int64_t off;
	int q;

	snprintf(path, sizeof(path), "/proc/%d/ns/net", r->ns.pid);
	r->netns = open(path, O_RDONLY | O_CLOEXEC);
	snprintf(path, sizeof(path), "/proc/%d/ns/mnt", r->ns.pid);
	r->mntns = open(path, O_RDONLY | O_CLOEXEC);
	if (r->netns < 0 || r->mntns < 0)
		return err_sys(e, "open '%s'", path);
	q = host_vdso(&vdso, &len, e);
	if (q < 0)
		return q;
	off = arch_find_syscall(vdso, len);
	if (off < 0)
		return err_set(e, ENOENT, "no syscall instruction in the vdso");
	r->vdso_syscall = (uint64_t)off;
	return 0;
}

static int parse_mac(const char *text, uint8_t mac[6], struct err *e)
{
	unsigned b[6];
	int i;

	if (sscanf(text, "%x:%x:%x:%x:%x:%x", &b[0], &b[1], &b[2], &b[3], &b[4], &b[5]) != 6)
		return err_set(e, EINVAL, "'%s' is not a MAC address", text);
	for (i = 0; i < 6; i++)
		mac[i] = (uint8_t)b[i];
	return 0;
}

/* Long before READY: opening these sockets takes milliseconds. */
static int prepare_network(struct restore *r, struct err *e)
{
	const Pm__PodSpec *spec = r->req->spec;
	uint8_t mac[6];
	int q;

	if (!spec->ip || !spec->ip[0])
		return 0;
	q = parse_mac(spec->mac, mac, e);
	return q < 0 ? q : wake_open(r->netns, r->place.host_link, mac, &r->wake, e);
}

static int make_place(struct restore *r, const struct pod_clock *clock, struct err *e)
{
	const Pm__PodSpec *spec = r->req->spec;
	int q = pod_ns_create(spec, &r->place, clock, skeleton, &r->scratch, deadline_ms(CREATE_MS), &r->ns, e);

	if (q < 0)
		return q;
	r->made = true;
	q = open_ns(r, e);
	/* up before the first socket exists there: what the stack would say too early is not said */
	if (q >= 0 && spec->ip && spec->ip[0]) {
		q = filter_prepare(r->netns, e);
		if (q >= 0)
			q = filter_block(r->netns, e);
		/* now, though on no bridge: the kernel takes a link into use asynchronously, up to a second late */
		if (q >= 0)
			q = link_up(r->place.host_link, e);
		if (q >= 0)
			q = prepare_network(r, e);
	}
	return q < 0 ? q : task_tick_start(e);
}

/* What is missing here the source tells the user, with what it found itself, and its end is seen here; or nothing of it is needed
 * any more. */
static bool taken_back(struct restore *r)
{
	struct record rec;

	if (r->s.file || stream_expect(&r->s, REC_NEEDS, &rec, NULL) < 0)
		return false;
	record_done(&rec);
	return true;
}

static int stage_check(struct restore *r, struct err *e)
{
	Pm__Missing miss;
	struct record rec;
	Pm__Needs *needs;
	size_t i;
	int q = stream_expect(&r->s, REC_GREETING, &rec, e);

	pm__missing__init(&miss);
	miss.lz4 = true;
	if (q < 0)
		return q;
	record_done(&rec);
	q = r->s.file ? 0 : ask_clock(r, &r->clock, e);
	if (q >= 0)
		q = stream_expect(&r->s, REC_NEEDS, &rec, e);
	if (q < 0)
		return q;
	needs = (Pm__Needs *)record_unpack(&rec, &pm__needs__descriptor, e);
	record_done(&rec);
	if (!needs)
		return -EBADMSG;
	r->scratch = needs->scratch;
	if (r->scratch % PAGE || r->scratch < 65536 || r->scratch > 1ull << 46)
		q = err_set(e, EBADMSG, "no place for the engine's calls");
	if (q >= 0)
		q = make_place(r, &r->clock, e);
	if (q >= 0 && r->s.file)
		q = rneeds_of_cut(chain_top(&r->im), needs, e);
	if (q >= 0)
		q = rneeds_check(r, needs, &miss, e);
	pm__needs__free_unpacked(needs, NULL);
	if (q >= 0 && !r->s.file)
		q = stream_send_msg(&r->s, REC_MISSING, 0, &miss.base, e);
	if (q >= 0 && miss.n_lines && !taken_back(r))
		q = err_set(e, EOPNOTSUPP, "%s", miss.lines[0]);
	for (i = 0; r->s.file && i < miss.n_lines; i++)
		restore_note(r, "%s", miss.lines[i]);
	rneeds_done(&miss);
	return q;
}

/* ---- records */

static int take_objects(struct restore *r, const struct record *rec, struct err *e)
{
	Pm__Objects *o = (Pm__Objects *)record_unpack(rec, &pm__objects__descriptor, e);

	if (!o)
		return -EBADMSG;
	if (r->objs)
		pm__objects__free_unpacked(r->objs, NULL);
	r->objs = o;
	return 0;
}

static int take_tmpfs(struct restore *r, const struct record *rec, struct err *e)
{
	Pm__Tmpfs *t = (Pm__Tmpfs *)record_unpack(rec, &pm__tmpfs__descriptor, e);

	if (!t)
		return -EBADMSG;
	if (r->old_tmpfs)
		pm__tmpfs__free_unpacked(r->old_tmpfs, NULL);
	r->old_tmpfs = r->tmpfs;
	r->tmpfs = t;
	return 0;
}

static int take_tree(struct restore *r, const struct record *rec, struct err *e)
{
	Pm__Tree *t = (Pm__Tree *)record_unpack(rec, &pm__tree__descriptor, e), *old = r->tree;
	int q;

	if (!t)
		return -EBADMSG;
	if (!r->objs || !r->tmpfs) {
		pm__tree__free_unpacked(t, NULL);
		return err_set(e, EPROTO, "a tree before its objects");
	}
	r->tree = t;
	q = rcheck_tree(t, e);
	if (q >= 0)
		q = rcheck_policy(r->req->spec, &r->bounds, t, e);
	if (q >= 0 && !r->nprocs)
		q = rtree_begin(r, e);
	if (q >= 0)
		q = robj_contents(r, e);
	if (q >= 0)
		q = robj_tmpfs(r, e);
	if (q >= 0)
		q = robj_mapfiles(r, e);
	if (q >= 0)
		q = rtree_apply(r, e);
	if (q >= 0)
		q = rmem_apply(r, e);
	if (old)
		pm__tree__free_unpacked(old, NULL);
	return q;
}

static int on_tree(struct restore *r, const struct record *rec, struct err *e)
{
	int q = take_tree(r, rec, e);

	r->phase = "precopy";
	if (q >= 0)
		q = fault_point("engine-target", "precopy", e);
	return q < 0 ? q : verdict(r, e);
}

static int on_soon(struct restore *r, const struct record *rec, struct err *e)
{
	(void)rec;
	if (fault_point("engine-target", "quiesce", e) < 0)
		return e->code;
	if (!r->s.file) /* no frozen pod waits for an image's */
		prio_quick(true);
	return in_pod_start(r, e);
}

static int on_final(struct restore *r, const struct record *rec, struct err *e)
{
	uint64_t t = now_ns();
	int q;

	r->phase = "cut";
	r->final = true;
	q = fault_point("engine-target", "cut", e);
	if (q >= 0)
		q = take_tree(r, rec, e);
	if (q >= 0 && !r->s.file)
		rtask_quick(r);
	log_mark("target tree", &t);
	/* while the source reads its last pages */
	if (q >= 0)
		q = robj_restore(r, e);
	if (q >= 0 && r->s.file)
		q = image_check_files(r, e);
	log_mark("target objects", &t);
	return q;
}

static int on_clock(struct restore *r, const struct record *rec, struct err *e)
{
	(void)rec;
	return verdict(r, e);
}

/* The pod must not see its clock go back. */
static int wait_clock(struct restore *r, const Pm__CutEnd *end, struct err *e)
{
	int64_t mine[2] = { 0 }, pod[2] = { 0 };
	uint64_t limit = deadline_ms(CLOCK_WAIT_MS);
	struct timespec m, b;
	int q = host_timens_offsets(getpid(), mine, e);

	if (q >= 0)
		q = host_timens_offsets(r->ns.pid, pod, e);
	while (q >= 0) {
		clock_gettime(CLOCK_MONOTONIC, &m);
		clock_gettime(CLOCK_BOOTTIME, &b);
		if ((uint64_t)(m.tv_sec * 1000000000ll + m.tv_nsec - mine[0] + pod[0]) >= end->mono_ns &&
		    (uint64_t)(b.tv_sec * 1000000000ll + b.tv_nsec - mine[1] + pod[1]) >= end->boot_ns)
			return 0;
		if (deadline_past(limit))
			return err_set(e, ETIMEDOUT, "the pod's clock is more than %d ms behind the source's", CLOCK_WAIT_MS);
	}
	return q;
}

/* What the pod has locked is ours as well: the source lets go of it. */
static int await_locks(struct restore *r, struct err *e)
{
	struct record rec;
	int q = verdict(r, e);

	if (q >= 0)
		q = stream_expect(&r->s, REC_LOCKS, &rec, e);
	if (q < 0)
		return q;
	record_done(&rec);
	return fault_point("engine-target", "locks", e);
}

static int on_cut_end(struct restore *r, const struct record *rec, struct err *e)
{
	Pm__CutEnd *end = (Pm__CutEnd *)record_unpack(rec, &pm__cut_end__descriptor, e);
	uint64_t t = now_ns();
	int q = end ? 0 : -EBADMSG;

	if (q >= 0 && !r->final)
		q = err_set(e, EPROTO, "the end of a cut without its tree");
	if (q >= 0)
		q = rmem_flush_drops(r, e);
	if (q >= 0)
		q = advice_guards(r, end, e);
	if (q >= 0)
		q = rmem_verify(r, e);
	log_mark("target drops", &t);
	if (q >= 0)
		q = robj_seal(r, e);
	if (q >= 0)
		q = robj_tmpfs_times(r, e);
	if (q >= 0)
		q = rtree_zombies(r, e);
	if (q >= 0)
		q = semundo_apply(r, e);
	if (q >= 0)
		q = jobs_stop(r, e);
	if (q >= 0)
		q = rtask_give(r, e);
	if (q >= 0 && end->locks && !r->s.file)
		q = await_locks(r, e);
	if (q >= 0)
		q = rtask_finish(r, e);
	log_mark("target tasks", &t);
	if (q >= 0)
		q = rtree_verify(r, e);
	if (q >= 0)
		q = pod_cgroup_freeze(r->place.cgroup, deadline_ms(FREEZE_MS), e);
	if (q >= 0)
		q = rtask_release(r, e);
	robj_leave_ends(r);
	if (q >= 0)
		q = wait_clock(r, end, e);
	if (q >= 0 && r->s.file)
		q = image_cut_back(r, e);
	log_mark("target freeze", &t);
	if (end)
		pm__cut_end__free_unpacked(end, NULL);
	if (q >= 0)
		q = fault_point("engine-target", "ready", e);
	if (q >= 0) {
		r->frozen = true;
		q = verdict(r, e);
	}
	return q < 0 ? q : 1;
}

static const struct {
	enum rec_type type;
	int (*take)(struct restore *, const struct record *, struct err *);
	bool final_too; /* may come again, as part of the cut */
} records[] = {
	{ REC_OBJECTS, take_objects, false }, { REC_TMPFS, take_tmpfs, false }, { REC_TREE, on_tree, false },
	{ REC_CLOCK, on_clock, false },	      { REC_FINAL, on_final, false },	{ REC_CUT_END, on_cut_end, true },
	{ REC_SOON, on_soon, false },
};

static int one_record(struct restore *r, struct err *e)
{
	struct record rec;
	size_t i;
	int q = stream_recv(&r->s, &rec, e);

	if (q < 0)
		return q;
	for (i = 0; i < ARRAY_SIZE(records); i++)
		if (records[i].type == rec.type)
			break;
	if (i == ARRAY_SIZE(records) || (r->final && !records[i].final_too))
		q = err_set(e, EPROTO, "record %d is not due", (int)rec.type);
	else
		q = records[i].take(r, &rec, e);
	record_done(&rec);
	return q;
}

/* The agent's abort is seen between records: the source sees the connection end. */
static int poll_ctl(struct restore *r, struct err *e)
{
	struct pollfd p = { .fd = r->ctl, .events = POLLIN };

	if (poll(&p, 1, 0) > 0) {
		r->exit_code = 10;
		return err_set(e, ECANCELED, "aborted, or the node's agent has gone");
	}
	return 0;
}

/* Out of an image there is no source that tells how it goes: once a second, how far the file has been read. */
static void tell_progress(struct restore *r)
{
	LINK_ENVELOPE(env, progress, PROGRESS, Pm__Progress, pm__progress__init);
	const struct image *im = chain_top(&r->im);
	off_t at = lseek(r->s.fd, 0, SEEK_CUR);
	char phase[] = "precopy";

	if (now_ns() - r->told_ns < NSEC_PER_SEC || at < 0)
		return;
	r->told_ns = now_ns();
	env_body.op = r->req->op;
	env_body.pod = r->req->spec->name;
	env_body.phase = phase;
	env_body.percent = 99.0 * (double)at / (double)MAX(im->size, 1ull);
	env_body.left = im->size - MIN((uint64_t)at, im->size);
	link_send(r->ctl, &env, deadline_ms(CTL_MS), NULL);
}

static int receive_all(struct restore *r, struct err *e)
{
	struct page_sink sink = { .arg = r, .run = rmem_frame, .same = r->s.file ? image_same : NULL };
	int q = 0;

	r->phase = "reserve";
	r->s.cancel = r->ctl;
	while (q == 0) {
		q = poll_ctl(r, e);
		if (r->s.file)
			tell_progress(r);
		if (q == 0)
			q = stream_next_is_pages(&r->s, e);
		if (q == 1) {
			uint64_t got = 0;

			q = r->nprocs ? pages_recv(r->s.fd, &sink, &got, r->s.deadline, e) :
					err_set(e, EPROTO, "pages before a tree");
			r->s.received += got;
			if (q > 0)
				q = 0;
		} else if (q == 0) {
			q = one_record(r, e);
		}
	}
	r->s.cancel = 0;
	if (q == -ECANCELED)
		r->exit_code = 10;
	return q < 0 ? q : 0;
}

/* ---- after READY */

static int send_ready(struct restore *r, struct err *e)
{
	LINK_ENVELOPE(env, engine_ready, ENGINE_READY, Pm__EngineReady, pm__engine_ready__init);

	env_body.pid = (uint32_t)r->ns.pid;
	env_body.notes = r->notes;
	env_body.n_notes = r->nnotes;
	return link_send(r->ctl, &env, deadline_ms(CTL_MS), e);
}

/* Waits for the agent's word, taking held frames meanwhile. 1: started. 0: aborted, by the agent or by a source that has not
 * come to READY. Negative: the agent has gone. */
static int wait_start(struct restore *r, struct err *e)
{
	for (;;) {
		struct pollfd p[2] = { { .fd = r->ctl, .events = POLLIN }, { .fd = r->s.fd, .events = POLLIN } };
		Pm__Envelope *env;
		struct record rec;
		int q;

		if (poll(p, 2, -1) < 0) {
			if (errno == EINTR)
				continue;
			return err_sys(e, "poll");
		}
		if (p[1].revents) {
			q = held_take(r, &rec);
			if (q == -ECANCELED)
				return 0;
			if (q == 1) {
				held_keep(r, &rec);
				record_done(&rec);
			}
		}
		if (!p[0].revents)
			continue;
		q = link_recv(r->ctl, &env, deadline_ms(CTL_MS), e);
		if (q < 0)
			return q;
		q = env->body_case == PM__ENVELOPE__BODY_ENGINE_START;
		link_free(env);
		return q;
	}
}

/* In the order of netfreeze/wake.c. Nothing here can undo the commit: what fails is said, and the pod's
 * own timers see to the rest. */
static void release_network(struct restore *r)
{
	const char *name = r->req->spec->name;
	struct err e = { 0 };
	struct record rec;
	uint64_t end;
	size_t i;

	for (i = 0; r->wake && i < r->nobjects; i++)
		kind_tcp_know(&r->objects[i], r->wake, NULL);
	for (i = 0; r->wake && i < r->nheld; i++) {
		uint32_t len;

		memcpy(&len, r->held[i], sizeof(len));
		wake_hear(r->wake, r->held[i] + sizeof(len), len, NULL);
	}
	if (r->wake && wake_speak(r->wake, &e) < 0)
		log_warn("%s: %s", name, e.msg);
	for (i = 0; i < r->nobjects; i++)
		if (r->objects[i].kind->release && r->objects[i].kind->release(r, &r->objects[i], &e) < 0)
			log_warn("%s: %s: %s", name, r->objects[i].msg->link, e.msg);
	for (i = 0; r->wake && i < r->nobjects; i++)
		kind_tcp_nudge(&r->objects[i], r->wake, NULL);
	/* the pod's files are its own from here on: a close() in it must be the last. Connections follow. */
	for (i = 0; i < r->nobjects; i++)
		if (r->objects[i].kind != &kind_tcp)
			close_fdp(&r->objects[i].fd);
	/* what still arrives at the source, until the bridges have learnt */
	end = deadline_look_ms(1000);
	while (r->s.fd >= 0 && now_ns() < end && io_wait_readable(r->s.fd, end, NULL) >= 0 && held_take(r, &rec) == 1) {
		if (r->wake)
			wake_hear(r->wake, rec.payload, rec.len, NULL);
		record_done(&rec);
	}
	for (i = 0; i < r->nobjects; i++) {
		kind_tcp_settle(&r->objects[i]);
		close_fdp(&r->objects[i].fd);
	}
	wake_free(r->wake, true);
	r->wake = NULL;
}

static int commit(struct restore *r, struct err *e)
{
	int q = send_ready(r, e);

	if (r->s.file)
		r->s.fd = -1; /* there is nobody who could still say something */
	r->phase = "commit";
	fault_point("engine-target", "commit", NULL);
	if (q >= 0)
		q = wait_start(r, e);
	if (q < 0) {
		log_warn("%s: the node's agent has gone; the pod stays frozen", r->req->spec->name);
		_exit(1);
	}
	if (q == 0) {
		r->exit_code = 10;
		return err_set(e, ECANCELED, "aborted");
	}
	fault_point("engine-target", "started", NULL);
	release_network(r);
	fault_point("engine-target", "clean", NULL);
	prio_quick(false);
	return 0;
}

/* ---- all of it */

/*
 * Engine and skeletons on one CPU: a call inside a skeleton is two switches then, not two wake-ups of
 * an idle CPU (4 us against 40 to 80). The program gets its own affinity back (kind sched).
 */
static void stay_on_one_cpu(void)
{
	cpu_set_t set;
	int cpu = sched_getcpu();

	if (cpu < 0)
		return;
	CPU_ZERO(&set);
	CPU_SET((unsigned)cpu, &set);
	sched_setaffinity(0, sizeof(set), &set);
}

static int run(struct restore *r, struct err *e)
{
	struct rlimit lim;
	int lfd, q = rcheck_bounds(&r->bounds, e);

	if (q < 0)
		return q;
	if (getrlimit(RLIMIT_NOFILE, &lim) == 0) {
		lim.rlim_cur = lim.rlim_max;
		setrlimit(RLIMIT_NOFILE, &lim);
	}
	stay_on_one_cpu();
	r->phase = "check";
	if (r->req->image) {
		q = image_source(r, e);
	} else {
		lfd = listen_here(r, e);
		if (lfd < 0)
			return lfd;
		q = accept_source(r, lfd, e);
		close_fdp(&lfd);
	}
	if (q < 0)
		return q;
	if (q >= 0)
		q = fault_point("engine-target", "check", e);
	r->exit_code = 6;
	if (q >= 0)
		q = stage_check(r, e);
	if (q < 0 || r->req->dry_run)
		return q;
	r->exit_code = 9;
	q = fault_point("engine-target", "reserve", e);
	if (q >= 0)
		q = receive_all(r, e);
	return q < 0 ? q : commit(r, e);
}

static void tell_source(struct restore *r, const struct err *e)
{
	Pm__Verdict v;

	pm__verdict__init(&v);
	if (r->s.fd < 0 || r->s.file)
		return;
	v.cause = (char *)(uintptr_t)e->msg;
	v.phase = (char *)(uintptr_t)r->phase;
	r->s.deadline = deadline_ms(1000);
	stream_send_msg(&r->s, REC_VERDICT, 0, &v.base, NULL);
}

_Noreturn void restore_give_up(struct restore *r, const struct err *e)
{
	log_info("%s: %s: %s", r->req->spec->name, r->phase, e->msg);
	tell_source(r, e);
	if (r->made)
		pod_ns_destroy(&r->place, deadline_ms(CREATE_MS), NULL);
	_exit(engine_fail(r->ctl, r->exit_code, r->phase, e));
}

int engine_restore(int ctl, const Pm__EngineRestore *req)
{
	LINK_ENVELOPE(env, engine_done, ENGINE_DONE, Pm__EngineDone, pm__engine_done__init);
	struct restore r = { .ctl = ctl, .req = req, .s = { .fd = -1, .deadline = deadline_ms(STREAM_MS) },
			     .place = { req->dir, req->cgroup, req->host_link },
			     .ns = { -1, -1, -1 }, .tails_fd = -1, .netns = -1, .mntns = -1, .exit_code = 9, .phase = "check" };
	Pm__MigrateRep rep;
	struct err e = { 0 };
	int q;

	pm__migrate_rep__init(&rep);
	r.b = malloc(sizeof(*r.b));
	q = r.b ? run(&r, &e) : err_num(&e, ENOMEM, "batch");
	if (q < 0) {
		log_info("%s: %s: %s", req->spec->name, r.phase, e.msg);
		tell_source(&r, &e);
	}
	in_pod_stop(&r);
	if (q < 0)
		image_uncut(&r);
	if (r.made && (q < 0 || req->dry_run))
		pod_ns_destroy(&r.place, deadline_ms(CREATE_MS), NULL);
	if (q < 0 && req->image && (q == -EBADMSG || q == -EPROTO || q == -EPIPE))
		r.exit_code = 15;
	if (q < 0) {
		q = engine_refuse(ctl, r.exit_code, r.phase, &e, r.notes, r.exit_code == 6 ? r.nnotes : 0,
				  r.hint ? r.hint : "");
	} else {
		env_body.result = &rep;
		q = link_send(ctl, &env, deadline_ms(CTL_MS), NULL) < 0;
	}
	rtree_done(&r);
	robj_done(&r);
	image_source_done(&r);
	return q;
}
