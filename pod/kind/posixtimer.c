/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * POSIX timers (timer_create), with their ids, whom they signal, and every expiration.
 *
 * Theory of operation. /proc/PID/timers lists them; timer_gettime() tells the time left. A timer that
 * has expired waits for its signal to be taken: the kernel counts the expirations from the first on, and
 * tells the count only then. So a signal of a timer that is pending at the cut is taken (sigtimedwait) and
 * queued again with the count in it, in one batch: to the program that is the same, should it go on here.
 * For the target the entry is removed from the pending signals, and the timer is set to an absolute time
 * that lies as many periods back as were counted: it expires at once, and the kernel counts on by itself.
 *
 * Expirations between the look at the pending signals and the reading of the time are made up for the same
 * way: the next one that is due is the first after the look.
 *
 * Where the program goes on with what was queued again, the signal tells the true count; timer_getoverrun() may tell that of
 * another signal of the timer.
 *
 * Times are absolute readings of the pod's monotonic or boot clock. A timer on CLOCK_REALTIME keeps the
 * time left, as one that was set for a duration must: whether it was set for a point in time instead is not
 * to be seen from outside. CPU clocks start anew on the target: their timers keep the time left, and
 * what is pending of them travels as a pending signal.
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <time.h>

#include "pod/base/io.h"
#include "pod/base/kernel.h"
#include "pod/base/util.h"
#include "pod/dump.h"
#include "pod/dump_stages.h"
#include "pod/kind/kinds.h"
#include "pod/kind/task_kinds.h"

#define INFO 128
#define MAX_TIMERS 300
#define MAX_PEEK 64
#define SELF_PROCESS (-6) /* what clock_getcpuclockid(0) gives */
#define SELF_THREAD (-2)

/* One that was read from /proc, and where its answers will be. */
struct ptimer {
	int id, signo, notify, tid_outer, clock;
	uint64_t value;
	pid_t nstid;	 /* whom it signals by SIGEV_THREAD_ID; 0: the process */
	uint64_t now_at, its_at;
	bool pending;
};

struct ptimers {
	struct ptimer *t;
	size_t n;
};

/* What was asked of one thread. */
struct asked {
	struct ptimers *all;
	const struct task *t;
	bool first;		 /* it is asked for the process, too */
	int64_t seen[2];	 /* the pod's monotonic and boot clock before the look */
	struct {
		uint64_t at, clocks; /* what was taken; monotonic and boot clock right after */
		size_t n;
	} taken[65];		 /* of each signal */
};

static bool is_cpu(int clock)
{
	return clock == CLOCK_PROCESS_CPUTIME_ID || clock == CLOCK_THREAD_CPUTIME_ID || clock < 0;
}

/* "ID: 0\nsignal: 14/0000...\nnotify: signal/pid.77\nClockID: 0\n" */
static int parse(const char *text, struct ptimer *out, size_t max, size_t *n)
{
	const char *s = text;

	for (*n = 0; s && *s; (*n)++) {
		struct ptimer t = { 0 };
		char how[16], who[8];
		unsigned long long value;

		if (sscanf(s, "ID: %d\nsignal: %d/%llx\nnotify: %15[^/]/%7[^.].%d\nClockID: %d", &t.id, &t.signo, &value, how, who,
			   &t.tid_outer, &t.clock) != 7)
			return -EPROTO;
		t.value = value;
		t.notify = !strcmp(how, "none") ? SIGEV_NONE : !strcmp(how, "thread") ? SIGEV_THREAD : SIGEV_SIGNAL;
		if (!strcmp(who, "tid"))
			t.notify |= SIGEV_THREAD_ID;
		if (*n < max)
			out[*n] = t;
		s = strstr(s, "ClockID:");
		s = s ? strchr(s, '\n') : NULL;
		s = s ? s + 1 : NULL;
	}
	return 0;
}

static int read_timers(pid_t pid, struct ptimer *out, size_t max, size_t *n, struct err *e)
{
	autofree char *text = NULL;
	char path[48];

	*n = 0;
	snprintf(path, sizeof(path), "/proc/%d/timers", pid);
	if (io_read_file(path, 1 << 20, &text, NULL, NULL) < 0)
		return 0; /* gone, or a kernel without it: then there is nothing to see */
	return parse(text, out, max, n) < 0 ? err_set(e, EPROTO, "'%s' is of an unknown form", path) : 0;
}

int kind_posixtimer_check(const struct proc *p, struct err *e)
{
	static struct ptimer t[MAX_TIMERS];
	size_t n, i;
	int r = read_timers(p->pid, t, MAX_TIMERS, &n, e);

	if (r < 0)
		return r;
	if (n > MAX_TIMERS)
		return KIND_REFUSE(e, "pid %d (%s): has %zu POSIX timers: more than %d cannot be carried", p->nspid, p->st.comm, n,
				   MAX_TIMERS);
	for (i = 0; i < n; i++) {
		bool thread = t[i].clock == CLOCK_THREAD_CPUTIME_ID || t[i].clock == SELF_THREAD;

		if (t[i].clock == CLOCK_REALTIME || t[i].clock == CLOCK_MONOTONIC || t[i].clock == CLOCK_BOOTTIME ||
		    t[i].clock == CLOCK_PROCESS_CPUTIME_ID || t[i].clock == SELF_PROCESS || (thread && p->ntasks == 1 && !p->leaderless)) {
			if (t[i].signo != SIGURG || t[i].notify == SIGEV_NONE)
				continue;
			return KIND_REFUSE(e, "pid %d (%s): has a POSIX timer that sends SIGURG: cannot be carried", p->nspid,
					   p->st.comm);
		}
		return KIND_REFUSE(e, "pid %d (%s): has a POSIX timer on %s (clock %d): cannot be carried", p->nspid, p->st.comm,
				   thread ? "the CPU time of one of its threads" : t[i].clock < 0 ? "the CPU time of another process" :
				   "a clock that wakes the node", t[i].clock);
	}
	return (int)n;
}

/* ---- source */

static struct proc *proc_of(struct dump *d, const struct task *t)
{
	return proc_by_ns(&d->procs, t->nstgid);
}

static int load(struct dump *d, struct proc *p, struct err *e)
{
	struct ptimer t[MAX_TIMERS];
	struct ptimers *all;
	size_t i, k;
	int r;

	p->timers = all = dump_alloc(d, sizeof(*all));
	r = read_timers(p->pid, t, MAX_TIMERS, &all->n, e);
	if (r < 0)
		return r;
	all->n = MIN(all->n, (size_t)MAX_TIMERS);
	all->t = dump_alloc(d, all->n * sizeof(t[0]));
	memcpy(all->t, t, all->n * sizeof(t[0]));
	for (i = 0; i < all->n; i++) {
		struct ptimer *pt = &all->t[i];

		if (!(pt->notify & SIGEV_THREAD_ID))
			continue;
		for (k = 0; k < p->ntasks; k++)
			if (p->tasks[k]->tid == pt->tid_outer)
				pt->nstid = p->tasks[k]->nstid;
		if (!pt->nstid)
			pt->notify = SIGEV_NONE; /* its thread has ended: it signals nobody any more */
	}
	return 0;
}

static bool is_mine(const struct asked *a, const struct ptimer *pt)
{
	return pt->nstid ? pt->nstid == a->t->nstid : a->first;
}

static bool is_entry_of(const siginfo_t *si, const struct ptimer *pt)
{
	return si->si_code == SI_TIMER && si->si_timerid == pt->id && si->si_signo == pt->signo;
}

/* Can any thread queue it again? One that was sent by others to the process can be by its leader alone. */
static bool is_anybodys(const struct task *t, const siginfo_t *si)
{
	return t->nstid == t->nstgid || (si->si_code < 0 && si->si_code != SI_TKILL);
}

enum { TIMERS = 1, LEADERS = 2 };

/* How many entries of @signo are pending. @what: one comes from a timer of this thread; one could not be queued again. */
static size_t peek(struct task *t, bool shared, int signo, const struct asked *a, unsigned *what)
{
	static siginfo_t si[MAX_PEEK];
	struct __ptrace_peeksiginfo_args args = { .flags = shared ? PTRACE_PEEKSIGINFO_SHARED : 0, .nr = MAX_PEEK };
	size_t n = 0, k;
	long r, i;

	while ((r = ptrace(PTRACE_PEEKSIGINFO, t->tid, &args, si)) > 0) {
		for (i = 0; i < r; i++) {
			if (si[i].si_signo != signo)
				continue;
			n++;
			if (shared && !is_anybodys(t, &si[i]))
				*what |= LEADERS;
			for (k = 0; k < a->all->n; k++)
				if (is_entry_of(&si[i], &a->all->t[k]) && is_mine(a, &a->all->t[k])) {
					a->all->t[k].pending = true;
					*what |= TIMERS;
				}
		}
		args.off += (uint64_t)r;
	}
	return n;
}

/* Takes all entries of @signo and queues them again, in their order: what was taken says how often its timer has expired. */
static void count_signal(struct task *t, struct batch *b, int signo, size_t n_private, size_t n, struct asked *a)
{
	uint64_t set = 1ull << (signo - 1), set_at = batch_data(b, &set, sizeof(set)), zero = batch_data(b, NULL, 16);
	uint64_t at = batch_data(b, NULL, n * INFO), clocks = batch_data(b, NULL, 2 * sizeof(struct timespec));
	unsigned base = b->n;
	size_t i;

	for (i = 0; i < n; i++) {
		unsigned again = base + 2 + (unsigned)(n + i);

		batch_add4(b, SYS_rt_sigtimedwait, set_at, at + i * INFO, zero, 8);
		/* what was not there (dropped by the kernel: of a timer that is gone) gives an error for a signal's number */
		b->e[base + i].also = batch_arg_addr(b, again, i < n_private ? 2 : 1);
	}
	batch_add2(b, SYS_clock_gettime, CLOCK_MONOTONIC, clocks);
	batch_add2(b, SYS_clock_gettime, CLOCK_BOOTTIME, clocks + sizeof(struct timespec));
	for (i = 0; i < n; i++)
		if (i < n_private)
			batch_add4(b, SYS_rt_tgsigqueueinfo, t->nstgid, t->nstid, 0, at + i * INFO);
		else
			batch_add3(b, SYS_rt_sigqueueinfo, t->nstgid, 0, at + i * INFO);
	a->taken[signo].at = at;
	a->taken[signo].clocks = clocks;
	a->taken[signo].n = n;
}

static void ask_pending(struct task *t, struct batch *b, struct asked *a)
{
	bool done[65] = { false };
	size_t i;

	for (i = 0; i < a->all->n; i++) {
		const struct ptimer *pt = &a->all->t[i];
		unsigned what = 0;
		size_t priv, n;

		if (!is_mine(a, pt) || pt->signo < 1 || pt->signo > 64 || done[pt->signo] || pt->notify == SIGEV_NONE)
			continue;
		done[pt->signo] = true;
		n = priv = peek(t, false, pt->signo, a, &what);
		if (a->first)
			n += peek(t, true, pt->signo, a, &what);
		if (what == TIMERS && n <= MAX_PEEK && !t->nobatch)
			count_signal(t, b, pt->signo, priv, n, a);
	}
}

static int64_t ns(const struct timespec *ts)
{
	return ts->tv_sec * 1000000000ll + ts->tv_nsec;
}

static int ask(struct dump *d, struct task *t, struct batch *b, uint64_t *cookie, struct err *e)
{
	struct proc *p = proc_of(d, t);
	struct asked *a = dump_alloc(d, sizeof(*a));
	uint64_t mono, boot;
	size_t i;
	int r = 0;

	*cookie = (uint64_t)(uintptr_t)a;
	if (!p)
		return err_set(e, ESRCH, "no process %d", t->nstgid);
	a->t = t;
	a->first = t == proc_first(p);
	if (a->first)
		r = load(d, p, e);
	a->all = p->timers;
	if (r < 0 || !a->all || !a->all->n)
		return r;
	r = pod_clock_read(d, &mono, &boot, e);
	if (r < 0)
		return r;
	a->seen[0] = (int64_t)mono;
	a->seen[1] = (int64_t)boot;
	ask_pending(t, b, a);
	for (i = 0; i < a->all->n; i++) {
		struct ptimer *pt = &a->all->t[i];

		if (!is_mine(a, pt))
			continue;
		pt->now_at = batch_data(b, NULL, sizeof(struct timespec));
		pt->its_at = batch_data(b, NULL, sizeof(struct itimerspec));
		batch_add2(b, SYS_clock_gettime, pt->clock == CLOCK_BOOTTIME ? CLOCK_BOOTTIME : CLOCK_MONOTONIC, pt->now_at);
		batch_add2(b, SYS_timer_gettime, pt->id, pt->its_at);
	}
	return 0;
}

/* Expirations that the taken entries stand for. */
static uint64_t count_taken(struct batch *b, const struct asked *a, const struct ptimer *pt)
{
	size_t i, entries = pt->signo < 1 || pt->signo > 64 ? 0 : a->taken[pt->signo].n;
	uint64_t n = 0;

	for (i = 0; i < entries; i++) {
		siginfo_t si;

		memcpy(&si, (const uint8_t *)batch_local(b, a->taken[pt->signo].at) + i * INFO, sizeof(si));
		if (is_entry_of(&si, pt))
			n += (uint64_t)MAX(si.si_overrun, 0) + 1;
	}
	return n;
}

/* The target's own timer will send them. Returns how many there were. */
static size_t drop_entries(ProtobufCBinaryData *infos, const struct ptimer *pt)
{
	size_t i, n = 0, dropped = 0;

	for (i = 0; i + INFO <= infos->len; i += INFO) {
		siginfo_t si;

		memcpy(&si, infos->data + i, sizeof(si));
		if (is_entry_of(&si, pt)) {
			dropped++;
			continue;
		}
		memmove(infos->data + n, infos->data + i, INFO);
		n += INFO;
	}
	infos->len = n;
	return dropped;
}

static void take_one(struct batch *b, const struct asked *a, const struct ptimer *pt, Pm__PosixTimer *m, ProtobufCBinaryData *infos)
{
	const struct itimerspec *its = batch_local(b, pt->its_at);
	size_t of = pt->signo < 1 || pt->signo > 64 ? 0 : (size_t)pt->signo;
	bool boot = pt->clock == CLOCK_BOOTTIME;
	int64_t left = ns(&its->it_value), every = ns(&its->it_interval), due, since;
	size_t entries;

	m->id = (uint32_t)pt->id;
	m->clock = pt->clock;
	m->signo = (uint32_t)pt->signo;
	m->notify = (uint32_t)pt->notify;
	m->tid = (uint32_t)pt->nstid;
	m->value = pt->value;
	m->interval_ns = (uint64_t)every;
	if (is_cpu(pt->clock)) {
		m->armed = left != 0;
		m->due_ns = (uint64_t)left;
		return;
	}
	entries = pt->notify == SIGEV_NONE ? 0 : drop_entries(infos, pt);
	m->missed = count_taken(b, a, pt);
	due = ns(batch_local(b, pt->now_at)) + left;
	if (!left && entries) { /* once, and its signal waits */
		m->missed = MAX(m->missed, 1u);
		due = 1;
	} else if (left && every && pt->notify != SIGEV_NONE) {
		since = a->seen[boot];
		if (pt->pending && a->taken[of].n)
			since = ns((const struct timespec *)batch_local(b, a->taken[of].clocks) + boot);
		if (due - every > since)
			due -= (due - since - 1) / every * every;
	}
	if (pt->pending && entries && !m->missed)
		m->missed = 1; /* could not be counted */
	m->armed = left || m->missed;
	m->due_ns = (uint64_t)due;
}

static int take(struct dump *d, struct task *t, struct batch *b, uint64_t cookie, Pm__Proc *proc, Pm__Thread *th,
		struct err *e)
{
	const struct asked *a = (const void *)(uintptr_t)cookie;
	size_t i;

	(void)t;
	(void)e;
	if (!a->all || !a->all->n)
		return 0;
	if (!proc->timers)
		proc->timers = dump_alloc(d, a->all->n * sizeof(*proc->timers));
	for (i = 0; i < a->all->n; i++) {
		Pm__PosixTimer *m;

		if (!is_mine(a, &a->all->t[i]))
			continue;
		m = dump_alloc(d, sizeof(*m));
		pm__posix_timer__init(m);
		take_one(b, a, &a->all->t[i], m, a->all->t[i].nstid ? &th->siginfos : &proc->siginfos);
		proc->timers[proc->n_timers++] = m;
	}
	return 0;
}

/* ---- target */

static struct timespec ts_of(uint64_t v)
{
	return (struct timespec){ (time_t)(v / 1000000000), (long)(v % 1000000000) };
}

/* On the target's wall clock: when the pod's monotonic clock reads @due. */
static uint64_t wall_of(const struct timespec now[2], int64_t due)
{
	int64_t at = ns(&now[1]) + (due - ns(&now[0]));

	return at > 0 ? (uint64_t)at : 1;
}

static void give_one(const Pm__PosixTimer *m, const struct timespec now[2], struct batch *b)
{
	struct sigevent sev = { .sigev_signo = (int)m->signo, .sigev_notify = (int)m->notify };
	struct itimerspec its = { .it_interval = ts_of(m->interval_ns) };
	int32_t id = (int32_t)m->id;
	int64_t due = (int64_t)m->due_ns;

	sev.sigev_value.sival_ptr = (void *)(uintptr_t)m->value;
	sev._sigev_un._tid = (pid_t)m->tid;
	batch_add3(b, SYS_timer_create, m->clock, batch_data(b, &sev, sizeof(sev)), batch_data(b, &id, sizeof(id)));
	if (!m->armed)
		return;
	if (is_cpu(m->clock)) {
		its.it_value = ts_of(m->due_ns);
	} else {
		due -= (int64_t)(m->missed * m->interval_ns);
		if (due < 1)
			due = 1;
		its.it_value = ts_of(m->clock == CLOCK_REALTIME ? wall_of(now, due) : (uint64_t)due);
	}
	batch_add4(b, SYS_timer_settime, id, is_cpu(m->clock) ? 0 : TIMER_ABSTIME, batch_data(b, &its, sizeof(its)), 0);
}

static int give(struct restore *r, const Pm__Proc *proc, const Pm__Thread *th, struct batch *b, struct err *e)
{
	struct timespec now[2];
	size_t i;
	int q;

	if (th->tid != proc->pid || !proc->n_timers)
		return 0;
	if (proc->n_timers > MAX_TIMERS)
		return KIND_DAMAGED(e, "%zu timers", proc->n_timers);
	q = restore_pod_clock(r, &now[0], e);
	if (q < 0)
		return q;
	clock_gettime(CLOCK_REALTIME, &now[1]);
	batch_add2(b, SYS_prctl, PR_TIMER_CREATE_RESTORE_IDS, PR_TIMER_CREATE_RESTORE_IDS_ON);
	for (i = 0; i < proc->n_timers; i++)
		give_one(proc->timers[i], now, b);
	batch_add2(b, SYS_prctl, PR_TIMER_CREATE_RESTORE_IDS, PR_TIMER_CREATE_RESTORE_IDS_OFF);
	return 0;
}

const struct kind kind_posixtimer = { .name = "posix-timer", .type = 131, .version = 1, .min_version = 1,
				      .scope = KIND_THREAD, .ask = ask, .take = take, .give = give };
