/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * What makes a move short: memory goes over while the pod runs, and inside the freeze only the
 * difference.
 *
 * Rounds: each reads the pages written since the last one and protects them again. A round is worth
 * making while it leaves clearly less than the one before; the estimate of the freeze is the last
 * round's pages at the measured rate. Mappings that are not tracked (new ones, those of new
 * processes, of a program after exec) have all their pages sent in the cut.
 *
 * Quiesce: new connections are held back while the listeners' queues run empty, since what is in
 * them cannot be made again; then everything stands still, then the filter goes up: what arrives from
 * there on is held and replayed where the pod wakes up.
 */
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>

#include "pod/base/fault.h"
#include "pod/base/io.h"
#include "pod/base/log.h"
#include "pod/base/prio.h"
#include "pod/base/util.h"
#include "pod/dump_stages.h"
#include "pod/kind/kinds.h"
#include "pod/ns.h"
#include "pod/sysv.h"

#define HOLD_BYTES (64u << 20)
#define ACCEPT_MS 1500 /* a SYN-ACK that was lost is sent again after 1 s */
#define CLOSE_MS 300
#define QUEUE_MS 500
#define QUEUE_LOOKS 200
#define LINGER_MS 50
#define DRAIN_MS 1
#define STOP_MS 3000
#define STOP_TRIES 50
#define FREEZE_MS 5000
#define SLOW_ROUNDS 3 /* times as many: some to slow it down by and by, some that then get smaller */
#define DEFAULT_ROUNDS 8
#define DEFAULT_DOWNTIME_MS 300
#define ENOUGH_PAGES 512 /* a round that leaves less is as good as none */
#define BASE_NS (3 * NSEC_PER_MSEC)

static bool is_private(const struct dump *d, const struct vma *v)
{
	return !v->shared && !dump_in_scratch(d->scratch, v) &&
	       (v->type == VMA_ANON || v->type == VMA_FILE || v->type == VMA_MEMFD);
}

/* ---- pre-copy */

struct round {
	uint64_t pages, bytes;
	uint64_t wall_ns, ns; /* what it took; and would have taken with the CPU for itself, and nothing to hold it up */
	uint64_t saved; /* bytes, by compression */
};

static int round_vma(struct dump *d, struct proc *p, const struct vma *v, struct page_stream *ps,
		     struct round *rd, struct err *e)
{
	struct runs w = { 0 };
	int r = tracker_scan_wp(&p->tr, v, &w, e);

	if (r >= 0 && w.n) {
		rd->pages += runs_pages(&w);
		r = page_stream_pages(ps, p->tid, p->memfd, (uint32_t)p->nspid, v, &w, d->s.deadline, e);
	}
	runs_done(&w);
	return r;
}

static int round_proc(struct dump *d, struct proc *p, struct page_stream *ps, struct round *rd, struct err *e)
{
	size_t i;
	int r = 0;

	for (i = 0; r >= 0 && i < p->vmas.n; i++) {
		const struct vma *v = &p->vmas.v[i];

		if (!is_private(d, v))
			continue;
		cut_let_go(d);
		/* what a scan has reported it reports no more: any error ends the move */
		r = round_vma(d, p, v, ps, rd, e);
		if (r == -ESRCH)
			return 0; /* the process has ended; the cut will see */
		if (r >= 0)
			r = dump_poll_abort(d, e);
	}
	return r;
}

static int open_mem(struct proc *p)
{
	char path[32];

	if (p->memfd < 0) {
		snprintf(path, sizeof(path), "/proc/%d/mem", p->tid);
		p->memfd = open(path, O_RDONLY | O_CLOEXEC);
	}
	return p->memfd;
}

static int one_round(struct dump *d, struct page_stream *ps, struct round *rd, struct err *e)
{
	/* what says nothing of how long the freeze would take */
	uint64_t waited = prio_waited_ns(), paced = d->paced_ns, lost;
	uint64_t before = d->s.sent, start = now_ns(), sent = 0, saved = d->pack.saved;
	size_t i;
	int r = 0;

	*rd = (struct round){ 0 };
	for (i = 0; r >= 0 && i < d->procs.n; i++)
		if (d->procs.p[i]->tracked) {
			if (open_mem(d->procs.p[i]) < 0)
				continue; /* it has ended; the cut will see */
			r = round_proc(d, d->procs.p[i], ps, rd, e);
		}
	if (r >= 0)
		r = page_stream_flush(ps, &sent, NULL, e);
	d->s.sent += sent;
	if (r >= 0)
		r = content_send(d, false, e);
	if (r >= 0)
		r = stream_send(&d->s, REC_CLOCK, 0, NULL, 0, e);
	if (r >= 0)
		r = dump_expect_ok(d, e); /* all of it is in place there */
	rd->bytes = d->s.sent - before;
	rd->saved = d->pack.saved - saved;
	lost = prio_waited_ns() - waited + d->paced_ns - paced;
	rd->ns = rd->wall_ns = now_ns() - start;
	log_debug("round of %.1f ms, %.1f of them without a CPU or held up: %llu bytes, %llu pages", (double)rd->ns / 1e6, (double)lost / 1e6,
		  (unsigned long long)rd->bytes, (unsigned long long)rd->pages);
	rd->ns -= MIN(lost, rd->ns);
	return r;
}

/* How long the rest will take in the freeze, where nothing is compressed. */
static uint64_t estimate(const struct dump *d, const struct round *rd)
{
	uint64_t ns = MAX(rd->ns, rd->wall_ns / 100); /* not much can be said of a round that was held up nearly all the time */
	uint64_t left = rd->pages * PAGE, plain = rd->bytes + rd->saved, rate = ns ? plain * NSEC_PER_SEC / ns : 0;

	if (!rate)
		return BASE_NS;
	return BASE_NS + left * NSEC_PER_SEC / MAX(rate, 1u << 20) +
	       (rd->saved ? pack_link_ns(&d->pack, (uint64_t)((double)left * (double)rd->saved / (double)plain)) : 0);
}

int stage_precopy(struct dump *d, struct err *e)
{
	const Pm__MigrateReq *o = d->req->options;
	unsigned max = (o->max_rounds ? o->max_rounds : DEFAULT_ROUNDS) * (o->auto_converge ? SLOW_ROUNDS : 1);
	uint64_t limit = (o->max_downtime_ms ? o->max_downtime_ms : DEFAULT_DOWNTIME_MS) * NSEC_PER_MSEC;
	uint64_t est = 0, last = 0;
	struct page_stream *ps = page_stream_new(d->s.fd, dump_known(d));
	struct round rd = { 0 };
	int r = ps ? 0 : err_num(e, ENOMEM, "page stream");

	if (o->timeout_s)
		d->end = deadline_look_ms(o->timeout_s * 1000ull);
	while (r >= 0 && d->rounds < max) {
		uint64_t rate;

		r = one_round(d, ps, &rd, e);
		if (r < 0)
			break;
		d->rounds++;
		rate = rd.wall_ns ? rd.bytes * NSEC_PER_SEC / rd.wall_ns : 0;
		est = estimate(d, &rd);
		dump_progress(d, 99.0 * (1.0 - (double)rd.pages / (double)(rd.pages + last + 1)), rate,
			      d->rounds > 1 && rd.wall_ns ? rd.pages * PAGE * NSEC_PER_SEC / rd.wall_ns : 0, rd.pages * PAGE, est);
		if (rd.pages < ENOUGH_PAGES)
			break;
		if (d->rounds > 2 && rd.pages > last * 3 / 4 && !(o->auto_converge && est > limit && throttle_more(d)))
			break;
		if (deadline_past(d->end) && o->timeout_stop_copy)
			break;
		if (deadline_past(d->end)) {
			d->exit_code = 10;
			r = err_set(e, ETIMEDOUT, "the time limit of %u s passed after %u rounds", o->timeout_s, d->rounds);
		}
		last = rd.pages;
	}
	page_stream_free(ps);
	throttle_end(d);
	d->forced = o->timeout_stop_copy && est > limit;
	if (r >= 0 && est > limit && d->rounds > 1 && !d->forced && !d->req->image) {
		d->exit_code = 11;
		r = err_set(e, ETIMEDOUT,
			    "did not converge: after %u rounds the freeze would take %.0f ms, the limit is %.0f ms",
			    d->rounds, (double)est / 1e6, (double)limit / 1e6);
	}
	return r;
}

int precopy_again(struct dump *d, struct err *e)
{
	struct page_stream *ps = page_stream_new(d->s.fd, dump_known(d));
	struct round rd = { 0 };
	int r = ps ? one_round(d, ps, &rd, e) : err_num(e, ENOMEM, "page stream");

	page_stream_free(ps);
	if (r >= 0)
		d->rounds++;
	return r;
}

/* ---- quiesce */

/* Duplicates of the pod's TCP sockets that do not listen. */
static size_t tcp_fds(struct dump *d, int **out)
{
	size_t n = 0, i;

	*out = dump_alloc(d, (d->nobjects + 1) * sizeof(int));
	for (i = 0; i < d->nobjects; i++) {
		int accepting = 0;
		socklen_t len = sizeof(accepting);

		if (d->objects[i]->kind != &kind_tcp)
			continue;
		if (getsockopt(d->objects[i]->p.fd, SOL_SOCKET, SO_ACCEPTCONN, &accepting, &len) < 0)
			continue;
		if (!accepting)
			(*out)[n++] = d->objects[i]->p.fd;
	}
	return n;
}

/*
 * Until the program has taken every connection, and, for a short time, until what it has closed is with the peer: nobody
 * has an fd of such a connection, so what it has not sent yet would be lost. Returns how many are left all the same.
 */
static int hold_connections(struct dump *d, int nl, struct err *e)
{
	uint64_t end = deadline_ms(ACCEPT_MS), soon = deadline_ms(CLOSE_MS);
	struct tcp_unheld n = { 0 };
	int r = filter_set(d->filter, FILTER_SYN, e);

	while (r >= 0) {
		struct timespec ts = { 0, 500000 };

		r = tcp_unheld(nl, &n, e);
		if (r < 0 || (!n.half_open && (!n.closing || now_ns() > soon)))
			break;
		if (deadline_past(end)) {
			d->exit_code = 7;
			return err_set(e, EBUSY, "%u connections wait in an accept queue and the program does not take them",
				       n.half_open);
		}
		nanosleep(&ts, NULL);
	}
	return r < 0 ? r : (int)n.closing;
}

/* Who has the socket with inode @ino, and what is in its way. */
static int refuse_queue(struct dump *d, uint64_t ino, const char *what, struct err *e)
{
	char path[64], link[64], want[64];
	size_t i;
	int fd;

	snprintf(want, sizeof(want), "socket:[%lu]", (unsigned long)ino);
	for (i = 0; i < d->procs.n; i++)
		for (fd = 0; fd < 4096; fd++) {
			const struct proc *p = d->procs.p[i];
			ssize_t n;

			snprintf(path, sizeof(path), "/proc/%d/fd/%d", p->tid, fd);
			n = readlink(path, link, sizeof(link) - 1);
			if (n < 0)
				continue;
			link[n] = 0;
			if (!strcmp(link, want))
				return err_set(e, EBUSY, "pid %d (%s): fd %d is %s that the program does not take: cannot be carried",
					       p->nspid, p->st.comm, fd, what);
		}
	return err_set(e, EBUSY, "there is %s that no program takes: cannot be carried", what);
}

static int refuse_unread(struct dump *d, const struct watcher *w, struct err *e)
{
	const struct proc *p = proc_by_ns(&d->procs, w->nspid);

	return err_set(e, EBUSY, "pid %d (%s): fd %d is an inotify instance with events that the program does not read: cannot be carried",
		       w->nspid, p ? p->st.comm : "", w->fdno);
}

struct filled {
	struct tcp_unheld tcp;
	uint64_t listener;	/* a unix socket's inode */
	uint64_t netlink;	/* and a netlink socket's */
	const struct watcher *w;
};

/* Data in a queue that cannot be read there, or an event? */
static int data_filled(struct dump *d, int nl, struct filled *f, struct err *e)
{
	int r = kind_unix_unaccepted(nl, &f->listener, e);

	if (!r)
		r = kind_netlink_unread(d->pid1, &f->netlink, e);
	return r ? r : watchers_unread(d, &f->w);
}

/* These, or a connection that cannot be made again? */
static int queues_filled(struct dump *d, int nl, struct filled *f, struct err *e)
{
	int r;

	*f = (struct filled){ .w = NULL };
	r = tcp_unheld(nl, &f->tcp, e);
	if (r < 0 || f->tcp.half_open)
		return r < 0 ? r : 1;
	return data_filled(d, nl, f, e);
}

static int refuse_accept(struct dump *d, uint64_t listener, struct err *e)
{
	return refuse_queue(d, listener, "a unix socket whose accept queue holds data", e);
}

static int refuse_netlink(struct dump *d, uint64_t ino, struct err *e)
{
	return refuse_queue(d, ino, "a netlink socket with messages", e);
}

/* How long a program may take to read its queues: time that passes for a machine that stands still does not count. */
struct patience {
	uint64_t end;
	unsigned looks;
};

static bool look_again(struct patience *p)
{
	struct timespec ts = { 0, 500000 };

	nanosleep(&ts, NULL);
	return ++p->looks < QUEUE_LOOKS || now_ns() < p->end;
}

/* Until the program has taken what is in its queues. */
static int await_queues(struct dump *d, int nl, struct err *e)
{
	struct patience p = { deadline_ms(QUEUE_MS), 0 };
	struct filled f;
	int r;

	do {
		r = queues_filled(d, nl, &f, e);
		if (r <= 0)
			return r;
	} while (look_again(&p));
	if (f.w)
		return refuse_unread(d, f.w, e);
	if (f.tcp.half_open)
		return err_set(e, EBUSY, "%u connections wait in an accept queue and the program does not take them",
			       f.tcp.half_open);
	if (f.netlink)
		return refuse_netlink(d, f.netlink, e);
	return refuse_accept(d, f.listener, e);
}

/*
 * The same for who only asks, and not of TCP: connections that wait to be accepted are held back before a move waits for
 * the last of them.
 */
int quiesce_foresee(struct dump *d, struct err *e)
{
	autoclose int nl = tcp_unheld_open(d->netns, e);
	struct filled f = { .w = NULL };
	struct patience p;
	size_t i;
	int r = nl < 0 ? nl : collect_waiting(d, STOP_MS, e);

	p = (struct patience){ deadline_ms(QUEUE_MS), 0 };
	if (r >= 0)
		r = data_filled(d, nl, &f, e);
	while (r > 0 && look_again(&p))
		r = data_filled(d, nl, &f, e);
	if (r <= 0)
		return r;
	/* that was the first of them */
	for (i = 0; i < d->nwatchers; i++)
		if (watcher_unread(d, &d->watchers[i])) {
			refuse_unread(d, &d->watchers[i], e);
			collect_note(d, -EOPNOTSUPP, e);
		}
	r = kind_unix_unaccepted(nl, &f.listener, e);
	if (r > 0) {
		refuse_accept(d, f.listener, e);
		collect_note(d, -EOPNOTSUPP, e);
	}
	if (r >= 0)
		r = kind_netlink_unread(d->pid1, &f.netlink, e);
	if (r > 0) {
		refuse_netlink(d, f.netlink, e);
		collect_note(d, -EOPNOTSUPP, e);
	}
	return r < 0 ? r : 0;
}

/* What tasks closed until they stood still; @left: those whose peer has not answered for long. */
static int drain_closing(int nl, int left, struct err *e)
{
	uint64_t end = deadline_ms(LINGER_MS);
	struct tcp_unheld n = { 0 };
	int r;

	do
		r = tcp_unheld(nl, &n, e);
	while (r >= 0 && n.closing > (unsigned)left && now_ns() < end);
	log_debug("%u connections are still closing, %d of them for long", n.closing, left);
	return r;
}

/*
 * A client of the pod's own may connect between the last look at the accept queues and the stop: then
 * all go on for a moment, and it is tried again.
 */
static int stop_all(struct dump *d, int nl, struct err *e)
{
	struct filled f;
	int tries, r = 0;

	for (tries = 0; tries < STOP_TRIES; tries++) {
		cut_sample(d);
		/* a busy program on the same CPU would hold the tracer up for ticks */
		prio_quick(true);
		d->stop_ns = now_ns();
		r = cut_stop(d, deadline_ms(STOP_MS), e);
		if (r >= 0)
			r = queues_filled(d, nl, &f, e);
		if (r <= 0)
			return r;
		r = cut_release(d, e);
		d->stopped = false;
		prio_quick(false);
		if (r >= 0)
			r = await_queues(d, nl, e);
		if (r < 0)
			return r;
	}
	return err_set(e, EBUSY, "connections and messages come faster than they are taken: there is no moment to stop in");
}

int stage_quiesce(struct dump *d, struct err *e)
{
	bool net = d->req->spec->ip && d->req->spec->ip[0];
	autoclose int nl = tcp_unheld_open(d->netns, e);
	uint64_t t;
	int *fds, r = nl, left = 0;
	size_t n;

	d->exit_code = 7;
	/* advice to a whole mapping leaves no trace in what the freeze reads; before connections are held, it takes its time */
	if (r >= 0 && d->live)
		r = collect_maps(d, true, e);
	if (r >= 0 && net) {
		r = filter_prepare(d->netns, e);
		if (r >= 0)
			r = filter_open(d->netns, &d->filter, e);
		if (r >= 0)
			r = hold_open(d->netns, HOLD_BYTES, &d->hold, e);
		if (r >= 0)
			r = hold_only_syn(d->hold, true, e);
		if (r >= 0) {
			d->blocked = true; /* SYNs are dropped from here on: undo replays them */
			left = r = hold_connections(d, nl, e);
		}
	}
	if (r >= 0)
		r = await_queues(d, nl, e);
	if (r >= 0)
		r = collect_ipc(d, false, e); /* made since the check */
	if (r < 0)
		return r;
	/* no time for it in the freeze, unless all of the memory goes then and the user will have it so */
	if (d->live || d->pack.mode != PACK_LZ4)
		d->known.pack = NULL;
	d->pages = page_stream_new(d->s.fd, dump_known(d)); /* its buffer is made before the freeze */
	r = d->pages ? stream_send(&d->s, REC_SOON, 0, NULL, 0, e) : err_num(e, ENOMEM, "page stream");
	if (r < 0)
		return r;
	r = stop_all(d, nl, e);
	if (r >= 0)
		r = collect_recheck(d, e);
	if (r >= 0)
		r = sysv_collect(d, e);
	t = d->stop_ns;
	log_mark("stop", &t);
	/* not before: what we have a duplicate of is not closed when the program closes it */
	if (r >= 0)
		r = collect_fds(d, true, e);
	if (r < 0 || !net)
		return r;
	log_mark("open files", &t);
	n = tcp_fds(d, &fds);
	r = drain_wire(fds, n, deadline_ms(DRAIN_MS), e);
	if (r >= 0)
		r = drain_closing(nl, left, e);
	if (r >= 0)
		r = hold_only_syn(d->hold, false, e);
	if (r >= 0)
		r = filter_set(d->filter, FILTER_BLOCK, e);
	log_mark("drain", &t);
	return r < 0 ? r : 0;
}

/* ---- cut */

/* Whom the description sends signals, if that is in the pod. */
static void get_sigio(struct dump *d, const struct object *o, Pm__Object *m)
{
	struct f_owner_ex own = { .pid = 0 };
	int sig = fcntl(o->p.fd, F_GETSIG);
	size_t i, k;

	m->sigio_signal = sig > 0 ? (uint32_t)sig : 0;
	if (fcntl(o->p.fd, F_GETOWN_EX, &own) < 0 || own.pid <= 0)
		return;
	for (i = 0; !m->sigio_type && i < d->procs.n; i++) {
		struct proc *p = d->procs.p[i];
		pid_t pid = 0;

		if (own.type == F_OWNER_PID && p->pid == own.pid)
			pid = p->nspid;
		else if (own.type == F_OWNER_PGRP && getpgid(p->pid) == own.pid)
			pid = p->st.pgid;
		for (k = 0; own.type == F_OWNER_TID && k < p->ntasks; k++)
			if (p->tasks[k]->tid == own.pid)
				pid = p->tasks[k]->nstid;
		if (pid > 0) {
			m->sigio_type = (uint32_t)own.type + 1;
			m->sigio_pid = pid;
		}
	}
}

static int dump_objects(struct dump *d, struct err *e)
{
	size_t i;
	int r = 0;

	for (i = 0; r >= 0 && i < d->nobjects; i++) {
		struct object *o = d->objects[i];
		ProtobufCMessage *body = NULL;
		Pm__Object *m = dump_alloc(d, sizeof(*m));

		pm__object__init(m);
		m->id = o->id;
		m->type = o->kind->type;
		m->version = o->kind->version;
		m->flags = o->p.flags;
		m->pos = o->p.pos;
		m->link = (char *)(uintptr_t)o->p.link;
		m->owner_pid = (uint32_t)o->p.nspid;
		m->owner_fd = (uint32_t)o->p.fdno;
		o->msg = m;
		get_sigio(d, o, m);
		if (S_ISSOCK(o->p.st.st_mode) && !kind_is_o_path(&o->p))
			r = kind_filter_get(d, o->p.fd, &m->filter, e);
		if (r >= 0)
			r = o->kind->dump(d, o, &body, e);
		if (r < 0)
			return err_wrap(e, "pid %d: fd %d (%s)", o->p.nspid, o->p.fdno, o->p.link);
		if (body) {
			m->body.len = protobuf_c_message_get_packed_size(body);
			m->body.data = dump_alloc(d, m->body.len);
			protobuf_c_message_pack(body, m->body.data);
		}
	}
	return r;
}

static int cut_vma(struct dump *d, struct proc *p, const struct vma *v, struct page_stream *ps, struct err *e)
{
	struct runs w = { 0 }, drop = { 0 }, guards = { 0 };
	int r;

	if (p->tracked)
		r = tracker_scan_final(&p->tr, v, &w, &drop, &guards, e);
	else
		r = pagemap_scan_present(p->pagemap, v, &w, e);
	if (r >= 0 && !p->tracked && pagemap_scan_guard(p->pagemap, v, &guards, NULL) == -ENOMEM)
		r = err_num(e, ENOMEM, "guard pages");
	if (r >= 0)
		r = advice_add_guards(d, p, &guards, e);
	if (r >= 0 && drop.n)
		r = page_stream_drop(ps, (uint32_t)p->nspid, &drop, d->s.deadline, e);
	if (r >= 0 && w.n)
		r = page_stream_pages(ps, p->tid, p->memfd, (uint32_t)p->nspid, v, &w, d->s.deadline, e);
	runs_done(&w);
	runs_done(&drop);
	runs_done(&guards);
	return r;
}

static int cut_pages(struct dump *d, struct err *e)
{
	struct page_stream *ps = d->pages;
	uint64_t sent = 0, lost = 0;
	char path[32];
	size_t i, k;
	int r = 0;

	for (i = 0; r >= 0 && i < d->procs.n; i++) {
		struct proc *p = d->procs.p[i];

		if (p->zombie)
			continue;
		open_mem(p);
		if (!p->tracked && p->pagemap < 0) {
			snprintf(path, sizeof(path), "/proc/%d/pagemap", p->tid);
			p->pagemap = open(path, O_RDONLY | O_CLOEXEC);
		}
		for (k = 0; r >= 0 && k < p->vmas.n; k++)
			if (is_private(d, &p->vmas.v[k])) {
				r = cut_vma(d, p, &p->vmas.v[k], ps, e);
				if (r < 0)
					err_wrap(e, "pid %d: mapping %lx", p->nspid, (unsigned long)p->vmas.v[k].start);
			}
	}
	if (r >= 0)
		r = page_stream_flush(ps, &sent, &lost, e);
	d->s.sent += sent;
	if (r >= 0 && lost)
		r = err_set(e, EIO, "%lu pages could not be read", (unsigned long)lost);
	return r < 0 ? r : content_send(d, true, e);
}

/* The engine's clocks and the pod's differ by the offsets of their time namespaces. */
int pod_clock_read(struct dump *d, uint64_t *mono, uint64_t *boot, struct err *e)
{
	int64_t mine[2], pod[2];
	struct timespec m, b;
	int r = host_timens_offsets(getpid(), mine, e);

	if (r >= 0)
		r = host_timens_offsets(d->pid1, pod, e);
	if (r < 0)
		return r;
	clock_gettime(CLOCK_MONOTONIC, &m);
	clock_gettime(CLOCK_BOOTTIME, &b);
	*mono = (uint64_t)(m.tv_sec * 1000000000ll + m.tv_nsec - mine[0] + pod[0]);
	*boot = (uint64_t)(b.tv_sec * 1000000000ll + b.tv_nsec - mine[1] + pod[1]);
	return 0;
}

static int freeze(struct dump *d, struct err *e)
{
	size_t i, k;
	int r = 0;

	/* own registers first; then the freezer; only then the tracer lets go */
	for (i = 0; r >= 0 && i < d->procs.n; i++)
		for (k = 0; r >= 0 && k < d->procs.p[i]->ntasks; k++)
			if (d->procs.p[i]->tasks[k]->stopped)
				r = task_repair(d->procs.p[i]->tasks[k], e);
	if (r < 0)
		return r;
	d->frozen = true; /* even if it fails half way: thawing what is not frozen does no harm */
	r = pod_cgroup_freeze(d->req->cgroup, deadline_ms(FREEZE_MS), e);
	if (r < 0)
		return r;
	r = cut_release(d, e);
	d->stopped = false;
	return r;
}

static int hand_over_locks(struct dump *d, struct err *e)
{
	int r = dump_expect_ok(d, e);

	if (r >= 0)
		r = locks_drop(d, e);
	if (r >= 0)
		r = fault_point("engine-source", "locks", e);
	return r < 0 ? r : stream_send(&d->s, REC_LOCKS, 0, NULL, 0, e);
}

int stage_cut(struct dump *d, struct err *e)
{
	Pm__CutEnd end;
	uint64_t t = now_ns();
	Pm__Tree tree;
	int r;

	pm__cut_end__init(&end);
	prio_quick(true); /* once more: the agent may just then have seen that it starved */
	d->exit_code = 7;
	r = collect_maps(d, !d->live, e);
	if (r >= 0)
		r = collect_map_objects(d, e);
	if (r >= 0)
		r = collect_sync_files(d, e);
	log_mark("listing", &t);
	if (r >= 0)
		r = dump_objects(d, e);
	if (r >= 0)
		r = collect_ipc(d, true, e);
	log_mark("objects", &t);
	if (r >= 0)
		r = cut_tasks(d, &tree, e);
	log_mark("tasks", &t);
	if (r >= 0)
		r = pod_clock_read(d, &tree.mono_ns, &tree.boot_ns, e);
	if (r < 0)
		return r;
	d->exit_code = 8;
	r = dump_send_layout(d, &tree, true, e);
	log_mark("layout", &t);
	if (r >= 0)
		r = cut_pages(d, e);
	log_mark("pages", &t);
	if (r >= 0)
		r = pod_clock_read(d, &end.mono_ns, &end.boot_ns, e);
	end.guards = d->guards;
	end.n_guards = d->nguards;
	if (r >= 0 && !d->s.file)
		end.locks = r = locks_share(d, e);
	if (r >= 0)
		r = stream_send_msg(&d->s, REC_CUT_END, 0, &end.base, e);
	if (r >= 0 && end.locks)
		r = hand_over_locks(d, e);
	/* a pod that runs on is held by its tracer for the moment that is left, unless it waits for others */
	if (r >= 0 && !(d->req->image && !d->req->image->term && !d->req->image->cut))
		r = freeze(d, e);
	log_mark("freeze", &t);
	d->exit_code = 9;
	if (r >= 0)
		r = dump_expect_ok(d, e);
	log_mark("target", &t);
	return r >= 0 ? fault_point("engine-source", "ready", e) : r;
}
