/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * The source's engine: one dump of one pod into one connection.
 *
 * Theory of operation. The stages are a table; each runs to its end or fails, and whatever was done
 * is undone by undo(), in one place, whose steps look at what is there. Nothing in the pod is touched
 * before "reserve". Until the target has answered READY this engine owns the decision: any error, an
 * abort, a lost connection or the end of the agent makes it undo and leave the pod running. When it
 * has told the agent READY, the pod stands still by cgroup.freeze, no task is traced, and the engine
 * only waits: for STARTED (the pod runs elsewhere; late packets are forwarded, then it ends) or for
 * an abort (undo). If it dies in that wait, the freeze stays and the agent decides.
 *
 *	check      collect, refuse what no kind takes; the target compares what it has
 *	reserve    trackers; the tree and its mappings go over: the landing zone
 *	precopy    rounds of written pages while they pay
 *	quiesce    new connections held; all tasks stopped; the wire drained; filter up
 *	cut        what changed since; registers back, cgroup frozen; READY
 *	save       of a checkpoint: the image gets its index and its name (dump_image.c)
 *	commit     wait
 *
 * With --stop-copy reserve and precopy are left out: the cut carries everything.
 */
#include "pod/dump.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

#include "agent/link/frame.h"
#include "pod/base/fault.h"
#include "pod/base/io.h"
#include "pod/base/log.h"
#include "pod/base/prio.h"
#include "pod/base/util.h"
#include "pod/dump_stages.h"
#include "pod/engine.h"
#include "pod/ns.h"
#include "pod/private.h"

#define CTL_MS 5000
#define PACE_NS NSEC_PER_MSEC /* less is not slept for */
#define CUT_MS 15000
#define ALL_MS 1800000
#define PRECOPY_MS (7u * 86400 * 1000) /* as long as --timeout may be; who waits for us has his own idea of when we are dead */
/* A target that acknowledges nothing for so long is dead. While the pod runs nothing hurries, and it may only stand still. */
#define SILENT_RUNS_MS 30000
#define SILENT_STOPPED_MS 4000

/* ---- phases and progress */

void dump_phase(struct dump *d, const char *name)
{
	uint64_t now = now_ns();

	if (d->phase_name && d->nphase < ARRAY_SIZE(d->phase)) {
		pm__phase__init(&d->phase[d->nphase]);
		d->phase[d->nphase].name = (char *)(uintptr_t)d->phase_name;
		d->phase[d->nphase++].ns = now - d->phase_ns;
	}
	d->phase_name = name;
	d->phase_ns = now;
}

void dump_progress(struct dump *d, double percent, uint64_t rate, uint64_t dirty_rate, uint64_t left, uint64_t est_ns)
{
	LINK_ENVELOPE(env, progress, PROGRESS, Pm__Progress, pm__progress__init);

	env_body.op = d->req->op;
	env_body.pod = d->req->spec->name;
	env_body.node = d->req->target_node;
	env_body.phase = (char *)(uintptr_t)d->phase_name;
	d->percent = MAX(percent, d->percent); /* it never goes back, whatever is estimated anew */
	env_body.percent = d->percent;
	env_body.round = d->rounds;
	env_body.rate = rate;
	env_body.dirty_rate = dirty_rate;
	env_body.left = left;
	env_body.est_downtime_ns = est_ns;
	d->told_ns = now_ns();
	d->told_bytes = d->page_bytes;
	link_send(d->ctl, &env, deadline_ms(CTL_MS), NULL);
}

/* Who waits for us must not think that we are dead, and may change their mind. */
static int tell(struct dump *d, struct err *e)
{
	uint64_t now = now_ns(), all = MAX(d->mem_bytes, 1ull), rate;

	if (now - d->told_ns < NSEC_PER_SEC)
		return 0;
	rate = (d->page_bytes - d->told_bytes) * NSEC_PER_SEC / (now - d->told_ns);
	dump_progress(d, MIN(99.0 * (double)d->page_bytes / (double)all, 99.0), rate, 0,
		      all > d->page_bytes ? all - d->page_bytes : 0, 0);
	return dump_poll_abort(d, e);
}

/*
 * The user's limit on bytes per second, while the pod runs. What has to be frozen anyway when the time is over (--timeout-action
 * stop-copy) is not held up by it any more.
 */
static int pace(struct dump *d, uint64_t bytes, struct err *e)
{
	const Pm__MigrateReq *o = d->req->options;
	uint64_t now = now_ns(), start = now, waited;
	int r = 0;

	if (!o->bandwidth || d->stopped)
		return 0;
	waited = prio_waited_ns();
	d->next_ns = MAX(d->next_ns, now) + (uint64_t)((double)bytes * 1e9 / (double)o->bandwidth);
	while (r >= 0 && now + PACE_NS < d->next_ns && !(o->timeout_stop_copy && deadline_past(d->end))) {
		struct timespec ts = { (time_t)(d->next_ns / NSEC_PER_SEC), (long)(d->next_ns % NSEC_PER_SEC) };

		clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &ts, NULL); /* until the tick at most */
		r = tell(d, e);
		now = now_ns();
	}
	waited = prio_waited_ns() - waited; /* of it: counted by itself */
	d->paced_ns += now - start - MIN(waited, now - start);
	return r;
}

/* In the middle of pages. */
static int tick(void *arg, uint64_t bytes, struct err *e)
{
	struct dump *d = arg;
	int r = pace(d, bytes, e);

	d->page_bytes += bytes;
	return r < 0 ? r : tell(d, e);
}

int dump_poll_abort(struct dump *d, struct err *e)
{
	struct pollfd p = { .fd = d->ctl, .events = POLLIN };
	Pm__Envelope *env;
	int r;

	if (poll(&p, 1, 0) <= 0)
		return 0;
	r = link_recv(d->ctl, &env, deadline_ms(CTL_MS), e);
	d->unsure |= r < 0;
	if (r < 0)
		return err_set(e, ECANCELED, "the node's agent has gone");
	r = env->body_case == PM__ENVELOPE__BODY_ENGINE_ABORT;
	d->unsure |= r && env->engine_abort->unsure;
	if (env->body_case == PM__ENVELOPE__BODY_OP_GO) /* for who waits at a barrier, between two looks */
		d->gone = MAX(d->gone, (int)env->op_go->barrier);
	link_free(env);
	if (r)
		d->exit_code = 10;
	return r ? err_set(e, ECANCELED, "aborted") : 0;
}

/* ---- connection */

static int finish_connect(int fd, uint64_t deadline)
{
	struct pollfd p = { .fd = fd, .events = POLLOUT };
	socklen_t len = sizeof(int);
	int n, soerr = 0;

	n = io_poll(&p, 1, deadline);
	if (n == 0)
		soerr = ETIMEDOUT;
	else if (n < 0)
		soerr = -n;
	else if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &soerr, &len) < 0)
		soerr = errno;
	errno = soerr;
	return n > 0 && !soerr ? 0 : -1;
}

static int connect_target(struct dump *d, struct err *e)
{
	struct sockaddr_in sa = { .sin_family = AF_INET, .sin_port = htons((uint16_t)d->req->port) };
	autoclose int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	struct timeval tv = { 5, 0 };
	unsigned silent = d->live ? SILENT_RUNS_MS : SILENT_STOPPED_MS;
	int one = 1;

	d->exit_code = 4;
	if (fd < 0)
		return err_sys(e, "socket");
	if (inet_pton(AF_INET, d->req->address, &sa.sin_addr) != 1)
		return err_set(e, EINVAL, "'%s' is not an address", d->req->address);
	/* the default congestion control may be one that paces: far too slow between neighbours */
	setsockopt(fd, IPPROTO_TCP, TCP_CONGESTION, "cubic", 5);
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &tv, sizeof(tv));
	setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &silent, sizeof(silent));
	/* the tick of the tracer may interrupt it: then it goes on by itself, and poll says when it is done */
	if (connect(fd, (struct sockaddr *)&sa, sizeof(sa)) < 0 && (errno != EINTR || finish_connect(fd, d->s.deadline) < 0))
		return err_sys(e, "connect to %s port %u", d->req->address, d->req->port);
	d->s.fd = take_fd(&fd);
	d->exit_code = 8;
	return io_write_full(d->s.fd, d->req->token.data, d->req->token.len, d->s.deadline, e);
}

static int open_pod(struct dump *d, struct err *e)
{
	static const char *const dirs[] = { "tmp", "run", "dev/shm", "dev" };
	const uint8_t *vdso;
	char path[64];
	size_t i, len;
	int64_t off;
	int r;

	snprintf(path, sizeof(path), "/proc/%d/root", d->pid1);
	d->root = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (d->root < 0)
		return err_sys(e, "open '%s'", path);
	snprintf(path, sizeof(path), "/proc/%d/ns/net", d->pid1);
	d->netns = open(path, O_RDONLY | O_CLOEXEC);
	if (d->netns < 0)
		return err_sys(e, "open '%s'", path);
	for (i = 0; i < ARRAY_SIZE(dirs); i++) {
		autoclose int fd = private_open(d->root, dirs[i]);
		struct stat st;

		if (fd >= 0 && private_is(fd) && fstat(fd, &st) == 0)
			d->private_dev[d->nprivate++] = st.st_dev;
	}
	r = host_vdso(&vdso, &len, e);
	if (r < 0)
		return r;
	off = arch_find_syscall(vdso, len);
	if (off < 0)
		return err_set(e, ENOENT, "no syscall instruction in the vdso");
	d->vdso_syscall = (uint64_t)off;
	return 0;
}

/* ---- check */

static void *facts_alloc(void *arg, size_t len)
{
	return dump_alloc(arg, len);
}

/* The target sets the pod's clocks by the time this takes. */
static int answer_clock(struct dump *d, struct err *e)
{
	Pm__CutEnd now;
	struct record rec;
	int r = stream_expect(&d->s, REC_CLOCK, &rec, e);

	pm__cut_end__init(&now);
	if (r < 0)
		return r;
	record_done(&rec);
	r = pod_clock_read(d, &now.mono_ns, &now.boot_ns, e);
	return r < 0 ? r : stream_send_msg(&d->s, REC_CLOCK, 0, &now.base, e);
}

static int send_needs(struct dump *d, Pm__Needs *needs, struct err *e)
{
	Pm__HostFacts facts;
	int r = host_facts(&facts, facts_alloc, d, e);

	needs->host = &facts;
	if (r >= 0)
		r = collect_needs(d, needs, e);
	d->mem_bytes = needs->mem_bytes;
	if (r >= 0)
		r = stream_send_msg(&d->s, REC_NEEDS, 0, &needs->base, e);
	needs->host = NULL;
	return r;
}

/* What the target lacks; but not files that programs have closed and removed, or written, since they were listed. */
static int take_missing(struct dump *d, const Pm__Needs *needs, const Pm__Missing *miss, struct err *e)
{
	size_t i, k, left = 0;
	Pm__Needs none;

	for (i = k = 0; i < miss->n_lines; i++) {
		const Pm__MissingFile *f = k < miss->n_files && miss->files[k]->line == i ? miss->files[k++] : NULL;

		if (f && f->file < needs->n_files && need_is_past(d, needs->files[f->file], f->absent))
			continue;
		left++;
		if (d->nrefused < MAX_REFUSED)
			d->refused[d->nrefused++] = dump_strdup(d, miss->lines[i]);
		else
			d->unlisted++;
	}
	pm__needs__init(&none);
	return !left && miss->n_lines ? stream_send_msg(&d->s, REC_NEEDS, 0, &none.base, e) : 0;
}

static int ask_target(struct dump *d, struct err *e)
{
	Pm__Greeting hello;
	struct record rec;
	Pm__Missing *miss;
	Pm__Needs needs;
	int r;

	pm__needs__init(&needs);
	pm__greeting__init(&hello);
	hello.version = 1;
	hello.op = d->req->op;
	hello.dry_run = d->req->options->dry_run;
	r = stream_send_msg(&d->s, REC_GREETING, 0, &hello.base, e);
	if (r >= 0)
		r = answer_clock(d, e);
	if (r >= 0)
		r = send_needs(d, &needs, e);
	if (r >= 0)
		r = stream_expect(&d->s, REC_MISSING, &rec, e);
	if (r < 0)
		return r;
	miss = (Pm__Missing *)record_unpack(&rec, &pm__missing__descriptor, e);
	record_done(&rec);
	if (!miss)
		return -EBADMSG;
	r = take_missing(d, &needs, miss, e);
	if (!miss->lz4)
		d->pack.mode = PACK_NONE;
	pm__missing__free_unpacked(miss, NULL);
	return r;
}

/* @here: so many of the refusals are this node's own. */
static void refusal_hint(struct dump *d, size_t here)
{
	const char *todo = here ? "close what cannot be carried" : "give the target what it lacks";

	if (d->req->image) {
		snprintf(d->hint, sizeof(d->hint), "close what cannot be carried");
		return;
	}

	snprintf(d->hint, sizeof(d->hint), "%s%s%s", todo, here ? "" : ", or choose another node",
		 d->nrefused > 1 && !d->req->options->dry_run ? "; podmigrate --dry-run lists all" : "");
}

/* Who only asks wants to hear as well what a move would meet later, as far as it can be seen while the pod runs. */
static int look_ahead(struct dump *d, struct err *e)
{
	Pm__Tmpfs tmpfs;
	int r;

	d->noting = true;
	r = content_tmpfs(d, &tmpfs, e);
	if (r >= 0)
		r = quiesce_foresee(d, e);
	d->noting = false;
	return r;
}

/* The check's last word: the first of what is in the way, and how much more there is. */
static int refuse_all(struct dump *d, size_t here, struct err *e)
{
	char more[64];

	refusal_hint(d, here);
	d->exit_code = 6;
	err_set(e, EOPNOTSUPP, "%s", d->refused[0]);
	if (d->nrefused > 1)
		err_set(e, EOPNOTSUPP, "%s (and %zu more)", d->refused[0], d->nrefused - 1 + d->unlisted);
	snprintf(more, sizeof(more), "and %zu more", d->unlisted);
	if (d->unlisted)
		d->refused[d->nrefused++] = dump_strdup(d, more);
	return -EOPNOTSUPP;
}

static int stage_check(struct dump *d, struct err *e)
{
	Pm__Needs needs;
	size_t here;
	int r;

	pm__needs__init(&needs);
	d->exit_code = 6;
	r = open_pod(d, e);
	if (r >= 0)
		r = collect_check(d, e);
	if (r >= 0)
		cut_read_notes(d);
	if (r >= 0 && d->req->options->dry_run)
		r = look_ahead(d, e);
	here = d->nrefused;
	/* who tries it first wants to hear everything; else what is found here will do */
	if (r >= 0 && d->req->image && d->req->options->dry_run) {
		; /* the pod's own refusals are all that is asked */
	} else if (r >= 0 && d->req->image) {
		if (!d->nrefused)
			r = image_begin(d, e);
		if (r >= 0 && !d->nrefused)
			r = send_needs(d, &needs, e);
	} else if (r >= 0 && (!d->nrefused || d->req->options->dry_run)) {
		r = connect_target(d, e);
	}
	if (d->s.fd >= 0 && !d->s.file && r >= 0)
		r = ask_target(d, e);
	if (r >= 0 && d->nrefused)
		r = refuse_all(d, here, e);
	/* a file or a connection that the program closes shall be closed, not live on in us */
	collect_drop_objects(d, false);
	return r;
}

/* ---- reserve */

int dump_send_layout(struct dump *d, Pm__Tree *tree, bool final, struct err *e)
{
	Pm__Objects objs;
	Pm__Tmpfs tmpfs;
	size_t n, i;
	int r = content_tmpfs(d, &tmpfs, e);

	pm__objects__init(&objs);
	if (r >= 0)
		r = content_messages(d, &objs.objects, &n, e);
	if (r < 0)
		return r;
	for (i = 0; i < d->nmapfiles; i++) {
		Pm__Object *o = dump_alloc(d, sizeof(*o));
		Pm__BodyFile f;
		struct mapfile *m = d->mapfiles[i];

		pm__body_file__init(&f);
		pm__object__init(o);
		f.path = m->path;
		f.size = (uint64_t)m->st.st_size;
		o->flags = m->rw ? O_RDWR : O_RDONLY;
		o->id = m->id;
		o->type = OBJ_MAPFILE;
		o->link = m->path;
		o->body.len = pm__body_file__get_packed_size(&f);
		o->body.data = dump_alloc(d, o->body.len);
		pm__body_file__pack(&f, o->body.data);
		objs.objects[n++] = o;
	}
	for (i = 0; final && i < d->nthings; i++)
		objs.objects[n++] = d->things[i].msg;
	for (i = 0; final && i < d->nobjects; i++)
		objs.objects[n++] = d->objects[i]->msg;
	objs.n_objects = n;
	r = stream_send_msg(&d->s, REC_OBJECTS, 0, &objs.base, e);
	if (r >= 0)
		r = stream_send_msg(&d->s, REC_TMPFS, 0, &tmpfs.base, e);
	if (r >= 0)
		r = stream_send_msg(&d->s, final ? REC_FINAL : REC_TREE, 0, &tree->base, e);
	return r;
}

int dump_expect_ok(struct dump *d, struct err *e)
{
	struct record rec;
	int r = d->s.file ? 0 : stream_expect(&d->s, REC_VERDICT, &rec, e);

	if (r < 0 || d->s.file)
		return r;
	record_done(&rec);
	return 0;
}

static int stage_reserve(struct dump *d, struct err *e)
{
	Pm__Tree tree;
	size_t i;
	int r = 0;

	d->exit_code = 8;
	for (i = 0; r >= 0 && i < d->procs.n; i++) {
		struct proc *p = d->procs.p[i];

		if (p->zombie)
			continue;
		r = cut_attach(d, p, e);
		if (r == -ESRCH || r == -ENOENT || r == -ETIMEDOUT || r == -EPERM) /* gone, in vfork: the cut will see */
			r = 0;
	}
	if (r == -EOPNOTSUPP) /* what only a task that stands still tells of itself */
		d->exit_code = 6;
	if (r >= 0)
		r = collect_maps(d, true, e);
	if (r >= 0)
		r = collect_map_objects(d, e);
	if (r >= 0)
		r = cut_snapshot(d, &tree, e);
	if (r >= 0)
		r = dump_send_layout(d, &tree, false, e);
	if (r >= 0)
		r = dump_expect_ok(d, e);
	return r;
}

/* ---- commit: the wait after READY */

static int send_ready(struct dump *d, struct err *e)
{
	LINK_ENVELOPE(env, engine_ready, ENGINE_READY, Pm__EngineReady, pm__engine_ready__init);

	env_body.pid = (uint32_t)d->pid1;
	d->ready_ns = now_ns();
	d->s.cancel = 0; /* from here on wait_outcome() listens */
	return link_send(d->ctl, &env, deadline_ms(CTL_MS), e);
}

/* Frames that arrived for the pod go after it. */
static int forward_held(struct dump *d, struct err *e)
{
	static uint8_t frame[HOLD_FRAME_MAX];
	int n, r = 0;

	while (d->hold && (n = hold_take(d->hold, frame, sizeof(frame), e)) > 0 && r >= 0)
		r = stream_send(&d->s, REC_HELD, 0, frame, (size_t)n, e);
	return r;
}

#define LATE_MS 50

static int forward_late(struct dump *d, struct err *e)
{
	uint64_t end = deadline_look_ms(LATE_MS);
	int r = 0;

	while (r >= 0 && now_ns() < end && d->hold) {
		struct pollfd p = { .fd = hold_fd(d->hold), .events = POLLIN };

		poll(&p, 1, deadline_left_ms(end));
		r = forward_held(d, e);
	}
	return r;
}

/* 1: started elsewhere; 0: to be undone; negative: the agent is gone, the outcome unknown. */
static int wait_outcome(struct dump *d, struct err *e)
{
	for (;;) {
		/* what is held at a checkpoint is replayed here, or lost with the pod: it is nothing for the image */
		struct pollfd p[2] = { { .fd = d->ctl, .events = POLLIN },
				       { .fd = d->hold && !d->s.file ? hold_fd(d->hold) : -1, .events = POLLIN } };
		Pm__Envelope *env;
		int r;

		if (poll(p, 2, -1) < 0 && errno != EINTR)
			return err_sys(e, "poll");
		if (p[1].revents)
			forward_held(d, NULL);
		if (!p[0].revents)
			continue;
		r = link_recv(d->ctl, &env, deadline_ms(CTL_MS), e);
		if (r < 0)
			return err_set(e, EPIPE, "the node's agent has gone");
		r = env->body_case == PM__ENVELOPE__BODY_ENGINE_STARTED ? 1 :
		    env->body_case == PM__ENVELOPE__BODY_ENGINE_ABORT	? 0 : -1;
		link_free(env);
		if (r >= 0)
			return r;
	}
}

static int stage_commit(struct dump *d, struct err *e)
{
	int r = send_ready(d, e);

	if (r < 0)
		return r;
	fault_point("engine-source", "commit", NULL);
	r = wait_outcome(d, e);
	if (r < 0) {
		/* the pod stays frozen: the agent that comes back, or `podctl recover`, decides */
		log_warn("%s: %s; the pod stays frozen", d->req->spec->name, e->msg);
		_exit(1);
	}
	if (r == 0) {
		d->exit_code = 9;
		return err_set(e, ECANCELED, "the target refused to start the pod");
	}
	d->started_ns = now_ns();
	prio_quick(false);
	if (d->s.file)
		return 0;
	if (fault_point("engine-source", "started", NULL) == 0)
		forward_late(d, NULL);
	fault_point("engine-source", "clean", NULL);
	stream_send(&d->s, REC_HELD_END, 0, NULL, 0, NULL);
	return 0;
}

/* ---- undo */

/* *@fd: to be closed when the pod runs again, for the kernel takes 10 ms to forget a packet socket. */
static void undo_network(struct dump *d, int *fd)
{
	static uint8_t frame[HOLD_FRAME_MAX];
	int n;

	if (d->hold && d->blocked)
		hold_stop(d->hold, NULL);
	if (d->filter)
		filter_remove(d->filter, NULL);
	collect_drop_objects(d, true);
	if (d->hold && d->blocked && replay_open(d->req->host_link, fd, NULL) == 0)
		while ((n = hold_take(d->hold, frame, sizeof(frame), NULL)) > 0)
			replay_send(*fd, frame, (size_t)n, NULL);
	d->blocked = false;
}

/* Before READY: the target may think that all is done. */
static void refuse_target(struct dump *d)
{
	Pm__Verdict v;

	pm__verdict__init(&v);
	v.cause = (char *)(uintptr_t)"the source has given up";
	v.phase = (char *)(uintptr_t)d->phase_name;
	d->s.deadline = deadline_ms(1000);
	if (d->s.fd >= 0 && !d->started_ns)
		stream_send_msg(&d->s, REC_VERDICT, 0, &v.base, NULL);
	close_fdp(&d->s.fd);
}

void dump_undo(struct dump *d)
{
	autoclose int fd = -1;

	if (d->undone)
		return;
	d->undone = true;
	undo_network(d, &fd);
	if (d->locks_down) /* the target gives up, and with it the locks that it has */
		refuse_target(d);
	if (d->frozen) {
		locks_hold(d);
		pod_cgroup_thaw(d->req->cgroup, NULL);
	}
	locks_take_back(d);
	cut_undo(d);
	prio_quick(false);
}

static void done(struct dump *d)
{
	size_t i;

	collect_drop_objects(d, false);
	if (d->hold)
		hold_free(d->hold);
	filter_free(d->filter);
	page_stream_free(d->pages);
	pack_done(&d->pack);
	for (i = 0; i < d->ncontents; i++)
		content_free(d->contents[i]);
	proc_list_done(&d->procs);
	free(d->contents);
	free(d->mapfiles);
	free(d->guards);
	free(d->objects);
	free(d->fds);
	free(d->things);
	free(d->locks);
	free(d->watchers);
	free(d->watched);
	free(d->b);
	if (d->s.file)
		image_end(d);
	else
		close_fdp(&d->s.fd);
	close_fdp(&d->root);
	close_fdp(&d->netns);
	dump_arena_done(d);
}

/* ---- the table */

static const struct {
	const char *name;
	int (*run)(struct dump *, struct err *);
	enum { ALWAYS, LIVE, IMAGE, JOB, JOB_RUNS, COMMIT } when;
	unsigned limit_ms; /* of the whole stage on the stream; 0: as long as all the memory may take */
} stages[] = {
	{ "check", stage_check, ALWAYS, 30000 },    { "reserve", stage_reserve, LIVE, 30000 },
	{ "precopy", stage_precopy, LIVE, PRECOPY_MS },	    { "join", stage_join, JOB, 0 },
	{ "quiesce", stage_quiesce, ALWAYS, 10000 }, { "cut", stage_cut, ALWAYS, CUT_MS },
	{ "hold", stage_hold, JOB_RUNS, 0 },	    { "save", stage_save, IMAGE, 0 },
	{ "agree", stage_agree, JOB_RUNS, 0 },	    { "commit", stage_commit, COMMIT, 0 },
};

static bool is_due(const struct dump *d, size_t i)
{
	switch (stages[i].when) {
	case LIVE:
		return d->live;
	case IMAGE:
		return d->req->image;
	case JOB:
		return d->req->image && d->req->image->cut;
	case JOB_RUNS:
		return d->req->image && d->req->image->cut && !d->req->image->term;
	case COMMIT: /* a pod that runs on has nothing to decide */
		return !d->req->image || d->req->image->term;
	default:
		return true;
	}
}

static int report(struct dump *d)
{
	LINK_ENVELOPE(env, engine_done, ENGINE_DONE, Pm__EngineDone, pm__engine_done__init);
	Pm__MigrateRep rep;
	Pm__Phase *phases[ARRAY_SIZE(d->phase)];
	size_t i;

	pm__migrate_rep__init(&rep);
	for (i = 0; i < d->nphase; i++)
		phases[i] = &d->phase[i];
	rep.op = d->req->op;
	rep.pod = d->req->spec->name;
	rep.to = d->req->target_node;
	rep.from = (char *)(uintptr_t)"";
	rep.total_ns = now_ns() - d->start_ns;
	rep.frozen_ns = d->started_ns ? d->started_ns - d->stop_ns : 0;
	rep.rounds = d->rounds;
	rep.sent = d->s.sent;
	if (d->req->image)
		rep.image = d->req->image->store && !d->req->image->stream ? d->req->image->id : d->req->image->path;
	rep.phases = phases;
	rep.n_phases = d->nphase;
	env_body.result = &rep;
	return link_send(d->ctl, &env, deadline_ms(CTL_MS), NULL) < 0;
}

int engine_dump(int ctl, const Pm__EngineDump *req)
{
	struct dump d = { .ctl = ctl, .req = req, .s = { .fd = -1, .deadline = IO_FOREVER, .cancel = ctl }, .root = -1,
			  .netns = -1, .pid1 = (pid_t)req->pid, .start_ns = now_ns(), .end = IO_FOREVER, .exit_code = 1 };
	struct err e = { 0 };
	size_t i;
	int r;

	d.live = !req->options->stop_copy;
	/* the two enums say the same */
	d.pack.mode = (enum pack_mode)MIN((unsigned)(req->image ? req->image->compress : req->options->compress), 2u);
	d.pack.link = !req->image;
	d.pack.rate_max = req->options->bandwidth;
	d.known.pack = &d.pack;
	d.known.tick = tick;
	d.known.tick_arg = &d;
	d.told_ns = now_ns();
	d.b = malloc(sizeof(*d.b));
	r = d.b ? task_tick_start(&e) : err_num(&e, ENOMEM, "batch");
	for (i = 0; r >= 0 && i < ARRAY_SIZE(stages); i++) {
		if (!is_due(&d, i))
			continue;
		dump_phase(&d, stages[i].name);
		d.s.deadline = stages[i].limit_ms ? deadline_ms(stages[i].limit_ms) : deadline_ms(ALL_MS);
		if (stages[i].run == stage_cut && (!d.live || d.forced)) /* all of the memory is in it */
			d.s.deadline = deadline_ms(ALL_MS);
		log_debug("stage %s", stages[i].name);
		if (stages[i].run == stage_quiesce && !d.s.file)
			setsockopt(d.s.fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &(unsigned){ SILENT_STOPPED_MS }, sizeof(unsigned));
		if (stages[i].run == stage_save)
			dump_progress(&d, 99, 0, 0, 0, 0);
		if (stages[i].run != stage_commit) /* its point is where it waits */
			r = fault_point("engine-source", stages[i].name, &e);
		if (r >= 0)
			r = dump_poll_abort(&d, &e);
		if (r >= 0)
			r = stages[i].run(&d, &e);
		if (r >= 0 && req->options->dry_run)
			break;
	}
	if (r < 0) {
		const char *phase = d.phase_name ? d.phase_name : "check";

		if (req->image && (d.exit_code == 8 || d.exit_code == 9))
			d.exit_code = 7; /* there is no other side */
		if (r == -ECANCELED)
			dump_poll_abort(&d, &e); /* why, if the stream was what heard it */
		log_info("%s: %s: %s", req->spec->name, phase, e.msg);
		dump_undo(&d);
		r = engine_refuse(ctl, d.exit_code, phase, &e, d.refused, d.exit_code == 6 ? d.nrefused : 0,
				  d.hint);
	} else {
		dump_phase(&d, NULL);
		r = report(&d);
	}
	done(&d);
	return r;
}
