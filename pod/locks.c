/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * File locks: by fcntl(2), of the process (POSIX) or of the description (OFD), and by flock(2). And leases.
 *
 * Theory of operation. A POSIX lock belongs to a process's file table, so only that process can let
 * go of it or take it; the other two belong to the description, and any holder will do. All are
 * therefore taken by calls inside a process that has the fd, after the last file was closed there,
 * since closing any fd of an inode gives the process's POSIX locks on it up.
 *
 * Locks of the pod's own tmpfs, of memfds and of files without a name are nobody else's business: the
 * target takes them on its copy. On a file that both nodes see, the target can have a lock only when
 * the source has let go of it, and somebody outside must not get it in between:
 *
 *	source: exclusive locks become shared	(locks_share; then CUT_END)
 *	target: takes all of them shared	(then its verdict)
 *	source: lets go				(locks_drop; then LOCKS)
 *	target: makes them exclusive again	(if somebody reads by now, the move fails and is undone)
 *
 * So nobody else is ever granted an exclusive lock. A POSIX or OFD lock by an fd that is open for
 * writing only cannot be shared: for it the first step lets go and the target takes it at once.
 *
 * What the source has let go of it must have back before its program runs again, whoever dies. The
 * three steps "share, let go, take again and wait" are one batch with pauses in it, and the source's
 * process is frozen in the second pause (task->parked): thawed by anybody, it takes its locks back and
 * is the program again. An engine that is there to undo does it for all such processes before any task
 * goes on; after an engine's death other tasks of the pod may run that moment earlier.
 *
 * What cannot be avoided: when a move fails after the source has let go, the target's copy must end before the source can
 * take the locks again, and in that moment they are nobody's.
 *
 * A call that waits for a lock (F_SETLKW, flock) is one that the kernel restarts: it waits again on
 * the target.
 *
 * Leases for reading of files of the private trees go along as if they were locks, and like those of tmpfs concern nobody else. Who has
 * asked for one takes it again, by the lowest of its fds; who hears of a breach by which signal belongs to the description. Others are refused.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/syscall.h>
#include <time.h>

#include "pod/base/io.h"
#include "pod/base/log.h"
#include "pod/base/util.h"
#include "pod/dump.h"
#include "pod/kind/kinds.h"

#define CALL_MS 2000
#define BACK_MS 5000 /* a target that is told to give up has ended its copy by then */

enum { LOCK_POSIX = 1, LOCK_OFD = 2, LOCK_FLOCK = 3, LOCK_LEASE = 4 };

static const struct {
	const char *name;
	unsigned how;
} names[] = { { "POSIX", LOCK_POSIX }, { "OFDLCK", LOCK_OFD }, { "FLOCK", LOCK_FLOCK }, { "LEASE", LOCK_LEASE } };

/* ---- noting */

static struct filelock *noted(const struct dump *d, const struct object *o, uint32_t how, uint64_t first)
{
	size_t i;

	for (i = 0; i < d->nlocks; i++)
		if (d->locks[i].o == o && d->locks[i].msg->how == how && d->locks[i].msg->start == first)
			return &d->locks[i];
	return NULL;
}

static uint32_t how_of(const char *name)
{
	size_t i;

	for (i = 0; i < ARRAY_SIZE(names); i++)
		if (!strcmp(name, names[i].name))
			return names[i].how;
	return 0;
}

bool locks_outside(struct dump *d, const struct probe *p)
{
	return kind_info_line(p->info, "lock") && p->st.st_nlink && !dump_is_private_tmpfs(d, p->st.st_dev);
}

/* "1: POSIX  ADVISORY  WRITE 123 08:01:4567 0 EOF" */
static int note_line(struct dump *d, const struct probe *p, struct object *o, const char *line, struct err *e)
{
	char how[16], type[16], last[24];
	struct filelock *nl;
	unsigned long long first;
	Pm__FileLock *m;
	int pid;

	if (sscanf(line, " %*d: %15s %*s %15s %d %*s %llu %23s", how, type, &pid, &first, last) != 5)
		return err_set(e, EPROTO, "a lock of an unknown form: %.60s", line);
	m = dump_alloc(d, sizeof(*m));
	pm__file_lock__init(m);
	m->how = how_of(how);
	if (!m->how || o->kind != &kind_file)
		return KIND_REFUSE(e, "pid %d: fd %d ('%s') holds a lock (%s): cannot be carried yet", p->nspid, p->fdno, p->link,
				   how);
	nl = m->how == LOCK_POSIX ? NULL : noted(d, o, m->how, first);
	if (nl && m->how == LOCK_LEASE && pid == p->pid && nl->nspid != p->nspid) { /* by its number there signals name it */
		nl->nspid = p->nspid;
		nl->msg->fd = (uint32_t)p->fdno;
	}
	if (nl)
		return 0; /* of the description: another process showed it */
	m->fd = (uint32_t)p->fdno;
	m->write = !strcmp(type, "WRITE");
	m->start = first;
	m->last = strcmp(last, "EOF") ? strtoull(last, NULL, 10) : UINT64_MAX;
	m->outside = locks_outside(d, p);
	m->steps = m->outside && m->write && (m->how == LOCK_FLOCK || (p->flags & O_ACCMODE) != O_WRONLY);
	if (d->nlocks % 64 == 0) {
		nl = realloc(d->locks, (d->nlocks + 64) * sizeof(*nl));
		if (!nl)
			return err_num(e, ENOMEM, "file locks");
		d->locks = nl;
	}
	d->locks[d->nlocks++] = (struct filelock){ p->nspid, o, m };
	return 0;
}

int locks_note(struct dump *d, const struct probe *p, struct object *o, struct err *e)
{
	const char *l = kind_info_line(p->info, "lock");
	int r = 0;

	while (l && r >= 0) {
		r = note_line(d, p, o, l, e);
		l = strstr(l, "\nlock:");
		l = l ? l + 6 : NULL;
	}
	return r;
}

/* ---- calls */

unsigned locks_call(struct batch *b, const Pm__FileLock *l, int type, bool wait)
{
	struct flock f = { .l_type = (short)type, .l_whence = SEEK_SET, .l_start = (off_t)l->start };

	if (l->how == LOCK_LEASE)
		return batch_add3(b, SYS_fcntl, l->fd, F_SETLEASE, (uint64_t)type);
	if (l->how == LOCK_FLOCK)
		return batch_add2(b, SYS_flock, l->fd, (type == F_UNLCK ? LOCK_UN : type == F_WRLCK ? LOCK_EX : LOCK_SH) |
							(wait ? 0 : LOCK_NB));
	if (l->last != UINT64_MAX)
		f.l_len = (off_t)(l->last - l->start + 1);
	return batch_add3(b, SYS_fcntl, l->fd, l->how == LOCK_OFD ? (wait ? F_OFD_SETLKW : F_OFD_SETLK) :
								     (wait ? F_SETLKW : F_SETLK),
			  batch_data(b, &f, sizeof(f)));
}

static size_t outside_locks(const struct dump *d, const struct proc *p)
{
	size_t i, n = 0;

	for (i = 0; i < d->nlocks; i++)
		n += d->locks[i].nspid == p->nspid && d->locks[i].msg->outside;
	return n;
}

enum step { SHARE, DROP, BACK };

static void add_step(struct dump *d, struct proc *p, enum step step, bool wait)
{
	size_t i;

	for (i = 0; i < d->nlocks; i++) {
		const Pm__FileLock *l = d->locks[i].msg;

		if (d->locks[i].nspid != p->nspid || !l->outside)
			continue;
		if (step == DROP)
			locks_call(d->b, l, F_UNLCK, wait);
		else if (step == BACK)
			locks_call(d->b, l, l->write ? F_WRLCK : F_RDLCK, wait);
		else if (l->write)
			locks_call(d->b, l, l->steps ? F_RDLCK : F_UNLCK, wait);
	}
}

/* The same in each step: what it has run of it is in the process. */
static void whole_batch(struct dump *d, struct proc *p)
{
	batch_begin(d->b, p->scratch);
	add_step(d, p, SHARE, false);
	batch_add_pause(d->b, proc_first(p));
	add_step(d, p, DROP, false);
	batch_add_pause(d->b, proc_first(p));
	add_step(d, p, BACK, true);
}

static int check_results(struct dump *d, struct proc *p, unsigned n, struct err *e)
{
	unsigned i;

	for (i = 0; i < n; i++)
		if (d->b->e[i].ret < 0)
			return err_num(e, (int)d->b->e[i].ret, "pid %d (%s): let go of the lock by fd %lu", p->nspid,
				       p->st.comm, (unsigned long)d->b->e[i].arg[0]);
	return 0;
}

static int run_step(struct dump *d, struct proc *p, enum step step, struct err *e)
{
	struct task *t = proc_first(p);
	unsigned n;
	int r;

	batch_begin(d->b, p->scratch);
	add_step(d, p, SHARE, false);
	if (step == DROP) {
		if (t->nobatch)
			batch_begin(d->b, p->scratch);
		else
			batch_add_pause(d->b, t);
		add_step(d, p, DROP, false);
	}
	n = d->b->n;
	if (t->nobatch) { /* call by call: the rare process that has our signal pending is not protected so */
		r = batch_run(t, d->b, deadline_ms(CALL_MS), e);
	} else {
		whole_batch(d, p);
		r = step == SHARE ? batch_run(t, d->b, deadline_ms(CALL_MS), e) :
				    batch_go_on(t, d->b, deadline_ms(CALL_MS), e);
		t->parked = true;
	}
	return r < 0 ? r : check_results(d, p, n, e);
}

static int all_procs(struct dump *d, enum step step, struct err *e)
{
	size_t i;
	int r = 0;

	for (i = 0; r >= 0 && i < d->procs.n; i++)
		if (!d->procs.p[i]->zombie && outside_locks(d, d->procs.p[i]))
			r = run_step(d, d->procs.p[i], step, e);
	return r;
}

int locks_share(struct dump *d, struct err *e)
{
	size_t i;
	int r;

	for (i = 0; i < d->nlocks && !d->locks[i].msg->outside; i++)
		;
	if (i == d->nlocks)
		return 0;
	for (i = 0; i < d->procs.n; i++)
		if (outside_locks(d, d->procs.p[i]) > KIND_MAX_LOCKS)
			return KIND_REFUSE(e, "pid %d (%s): holds more than %d file locks: cannot be carried",
					   d->procs.p[i]->nspid, d->procs.p[i]->st.comm, KIND_MAX_LOCKS);
	d->locks_down = true;
	r = all_procs(d, SHARE, e);
	return r < 0 ? r : 1;
}

int locks_drop(struct dump *d, struct err *e)
{
	return all_procs(d, DROP, e);
}

/* ---- undo */

void locks_hold(struct dump *d)
{
	size_t i, k;

	for (i = 0; d->locks_down && i < d->procs.n; i++)
		for (k = 0; !d->procs.p[i]->zombie && k < d->procs.p[i]->ntasks; k++)
			if (!d->procs.p[i]->tasks[k]->seized && task_seize(d->procs.p[i]->tasks[k], NULL) >= 0)
				task_interrupt(d->procs.p[i]->tasks[k], NULL);
	for (i = 0; d->locks_down && i < d->procs.n; i++)
		for (k = 0; !d->procs.p[i]->zombie && k < d->procs.p[i]->ntasks; k++) {
			struct task *t = d->procs.p[i]->tasks[k];

			if (t->seized && !t->stopped && task_wait_stopped(t, deadline_ms(CALL_MS), NULL) >= 0 && !t->parked)
				task_save(t, NULL);
		}
}

static bool try_back(struct dump *d, struct proc *p)
{
	unsigned i;

	batch_begin(d->b, p->scratch);
	add_step(d, p, BACK, false);
	if (batch_run(proc_first(p), d->b, deadline_ms(CALL_MS), NULL) < 0)
		return false;
	for (i = 0; i < d->b->n && d->b->e[i].ret >= 0; i++)
		;
	return i == d->b->n;
}

static void take_back(struct dump *d, struct proc *p)
{
	uint64_t end = deadline_ms(BACK_MS);
	struct timespec nap = { 0, 1000000 };
	struct task *t = proc_first(p);
	struct err e;

	if (!t->stopped)
		return; /* parked: it sees to it by itself */
	t->parked = false;
	t->borrowed = true;
	while (!try_back(d, p)) {
		if (!deadline_past(end)) {
			nanosleep(&nap, NULL);
			continue;
		}
		log_warn("%s: pid %d (%s): somebody else has a lock of its by now: it waits for it", d->req->spec->name, p->nspid,
			 p->st.comm);
		batch_begin(d->b, p->scratch);
		add_step(d, p, BACK, true);
		if (batch_leave(t, d->b, &e) < 0)
			log_warn("%s", e.msg);
		else
			p->scratch = 0; /* it stays */
		return;
	}
}

void locks_take_back(struct dump *d)
{
	size_t i;

	for (i = 0; d->locks_down && i < d->procs.n; i++)
		if (!d->procs.p[i]->zombie && outside_locks(d, d->procs.p[i]))
			take_back(d, d->procs.p[i]);
	d->locks_down = false;
}
