/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "pod/task/restart.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/futex.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>

#include "pod/base/io.h"
#include "pod/base/log.h"
#include "pod/base/prio.h"
#include "pod/base/util.h"

#define ERESTARTNOHAND_RET ((uint64_t)-514)
#define RESTARTBLOCK ((int64_t)-516)
#define RESTART_SYSCALL 219
#define CLOCK_AGE_NS (20 * NSEC_PER_MSEC)
/* A wait counts anew when the task comes back from a stop or the freezer, and for each signal that only wakes it. */
#define AGAIN 10

/* ---- the scheduler's clock */

struct sched {
	uint64_t exec_start; /* ns of its CPU's clock */
	uint64_t switches; /* voluntary ones: once for each wait */
};

static int read_sched(const char *task, struct sched *s)
{
	autofree char *text = NULL;
	char path[64], *p, *q;

	snprintf(path, sizeof(path), "/proc/%s/sched", task);
	if (io_read_file(path, 65536, &text, NULL, NULL) < 0)
		return -1;
	p = strstr(text, "se.exec_start");
	q = strstr(text, "nr_voluntary_switches");
	p = p ? strchr(p, ':') : NULL;
	q = q ? strchr(q, ':') : NULL;
	if (!p || !q)
		return -1;
	s->exec_start = (uint64_t)(strtod(p + 1, NULL) * 1e6);
	s->switches = strtoull(q + 1, NULL, 10);
	return s->exec_start ? 0 : -1;
}

uint64_t restart_switches(pid_t tid)
{
	char task[16];
	struct sched s;

	snprintf(task, sizeof(task), "%d", tid);
	return read_sched(task, &s) < 0 ? 0 : s.switches;
}

/* Of a task that waits: the CPU it ran on last. */
static int last_cpu(pid_t tid)
{
	autofree char *text = NULL;
	char path[32], *p;
	int i;

	snprintf(path, sizeof(path), "/proc/%d/stat", tid);
	if (io_read_file(path, 4096, &text, NULL, NULL) < 0)
		return -1;
	p = strrchr(text, ')');
	for (i = 2; p && i < 39; i++) /* to field 39 of proc(5) */
		p = strchr(p + 1, ' ');
	return p ? atoi(p) : -1;
}

/* What CLOCK_MONOTONIC is ahead of a CPU's clock: by what it finds when it runs there. */
struct clock {
	uint64_t ahead, at;
};

static bool look_at_clock(int cpu, struct clock *c)
{
	bool ordinary = sched_getscheduler(0) == SCHED_OTHER;
	cpu_set_t was, there;
	struct sched s;
	uint64_t now;
	bool ok;

	CPU_ZERO(&there);
	CPU_SET(cpu, &there);
	if (sched_getaffinity(0, sizeof(was), &was) < 0)
		return false;
	if (ordinary)
		prio_quick(true); /* others are at work there */
	ok = sched_setaffinity(0, sizeof(there), &there) == 0;
	if (ok) {
		sched_yield(); /* its own exec_start is that of now */
		ok = read_sched("thread-self", &s) == 0;
		now = now_ns();
		ok = ok && now > s.exec_start;
		if (ok)
			*c = (struct clock){ now - s.exec_start, now };
		sched_setaffinity(0, sizeof(was), &was);
	}
	if (ordinary)
		prio_quick(false);
	return ok;
}

/*
 * When, by CLOCK_MONOTONIC, a waiting task last ran: then or before, never later. The clock that
 * exec_start is of stands still while the hypervisor or an interrupt has the CPU, so it falls behind ever more, on each CPU
 * by another amount. How much it was behind when the wait began nobody knows, but not more than it is now.
 */
static uint64_t ran_until(const struct sched *s, int cpu)
{
	static struct clock clocks[CPU_SETSIZE];
	uint64_t now = now_ns(), ns;
	struct clock *c;

	if (cpu < 0 || cpu >= CPU_SETSIZE)
		return 0;
	c = &clocks[cpu];
	if ((!c->at || now - c->at > CLOCK_AGE_NS) && !look_at_clock(cpu, c))
		return 0;
	ns = s->exec_start + c->ahead;
	return ns <= c->at ? ns : now_ns(); /* it ran after that look: a moment ago */
}

/* ---- before the stop */

void restart_sample(struct task *t, pid_t tgid)
{
	autofree char *text = NULL;
	char path[64], task[16];
	struct sched s;

	t->waits = 0;
	t->slept_ns = t->switches = 0;
	snprintf(path, sizeof(path), "/proc/%d/task/%d/wchan", tgid, t->tid);
	if (io_read_file(path, 4096, &text, NULL, NULL) < 0)
		return;
	if (strstr(text, "nanosleep"))
		t->waits = SYS_nanosleep;
	else if (strstr(text, "futex"))
		t->waits = SYS_futex;
	else if (strstr(text, "poll"))
		t->waits = SYS_poll;
	else if (!strstr(text, "restart") && !strstr(text, "syscall") && !strstr(text, "signal_stop"))
		return;
	snprintf(task, sizeof(task), "%d", t->tid);
	if (read_sched(task, &s) < 0)
		return;
	t->slept_ns = ran_until(&s, last_cpu(t->tid));
	t->switches = s.switches;
}

/* ---- at the stop */

/* Calls that the kernel ends with EINTR when a tracer stops them, although no signal came. Should a
 * real one be pending, its handler runs and the program sees the EINTR it would have seen anyway. */
static bool ends_with_eintr(uint64_t nr)
{
	static const uint16_t calls[] = { SYS_epoll_wait, SYS_epoll_pwait, 441 /* epoll_pwait2 */,
					  SYS_rt_sigtimedwait, SYS_semop, SYS_semtimedop, SYS_io_getevents,
					  SYS_msgrcv, SYS_msgsnd, SYS_recvfrom, SYS_recvmsg, SYS_recvmmsg,
					  SYS_sendto, SYS_sendmsg, SYS_sendmmsg, SYS_read, SYS_readv,
					  SYS_write, SYS_writev, SYS_accept, SYS_accept4, SYS_mq_timedsend,
					  SYS_mq_timedreceive };
	size_t i;

	for (i = 0; i < ARRAY_SIZE(calls); i++)
		if (nr == calls[i])
			return true;
	return false;
}

static bool peek(const struct task *t, uint64_t addr, void *buf, size_t len)
{
	struct iovec l = { buf, len }, r = { (void *)addr, len };

	return addr && process_vm_readv(t->tid, &l, 1, &r, 1, 0) == (ssize_t)len;
}

static void by_arguments(struct task *t, uint64_t nr)
{
	t->regs.rax = ERESTARTNOHAND_RET;
	t->regs.orig_rax = nr;
	t->borrowed = true;
}

/* The call behind restart_syscall: its arguments are still in the registers. */
static uint64_t real_call(const struct task *t)
{
	if (t->regs.orig_rax != RESTART_SYSCALL)
		return t->regs.orig_rax;
	if (t->waits == SYS_futex || t->waits == SYS_poll)
		return (uint64_t)t->waits;
	/* it may have been on its way into the wait when we looked */
	if (t->sleeps_in && t->waits != SYS_nanosleep)
		return t->sleeps_in;
	/* no `rem` is as low as a number of fds */
	if (!t->waits && t->regs.rsi && t->regs.rsi < 65536 && t->regs.rdi > UINT16_MAX)
		return t->regs.rsi & 127 ? SYS_poll : 0;
	/* a sleep that goes on has no function of its own to wait in; a clock's id is a small number, positive
	 * or negative, a pointer is not */
	return t->regs.rdi + 4096 < 8192 || t->regs.rdi > UINT64_MAX / 2 ? SYS_clock_nanosleep : SYS_nanosleep;
}

void restart_saw(struct task *t)
{
	uint64_t now, more;

	t->same_wait = t->same_until = false;
	if ((int64_t)t->regs.orig_rax >= 0 && (int64_t)t->regs.rax == -EINTR && ends_with_eintr(t->regs.orig_rax))
		by_arguments(t, t->regs.orig_rax);
	if ((int64_t)t->regs.orig_rax < 0 || (int64_t)t->regs.rax != RESTARTBLOCK) {
		t->sleeps_in = 0;
		return;
	}
	if (t->regs.orig_rax != RESTART_SYSCALL)
		t->sleeps_in = (uint32_t)t->regs.orig_rax;
	now = restart_switches(t->tid);
	more = now - t->switches;
	/* That it stands still is one more, two if a signal had stopped it: the tracer comes, and asks for its own stop. With any other
	 * it may have been in a wait before this one when it was sampled. */
	t->same_wait = t->switches && (more == 1 || (t->stopsig && more == 2));
	t->same_until = t->left_until && t->until_switches && now - t->until_switches <= AGAIN && (t->stopsig || t->regs.orig_rax == RESTART_SYSCALL);
	log_debug("thread %d: call %llu, stopped in the wait it was seen in: %d, whose end is known: %d", t->nstid, t->regs.orig_rax,
		  t->same_wait, t->same_until);
}

void restart_noted(struct task *t, uint64_t until, uint32_t call, uint64_t switches)
{
	t->left_until = until;
	t->sleeps_in = call;
	t->until_switches = switches;
}

static uint64_t ts_ns(const int64_t ts[2])
{
	return ts[0] < 0 ? 0 : (uint64_t)ts[0] * NSEC_PER_SEC + (uint64_t)ts[1];
}

/* Less the time since it last ran before the stop; or till the end that an earlier stop has found out. */
static uint64_t less_elapsed(const struct task *t, uint64_t want)
{
	uint64_t now = now_ns(), since = t->same_wait && t->slept_ns ? now - MIN(t->slept_ns, now) : 0;

	if (t->same_until)
		return t->left_until > now ? t->left_until - now : 1;
	return want > since ? want - since : 1;
}

static uint64_t sleep_left(const struct task *t, uint64_t req, uint64_t rem)
{
	int64_t ts[2];

	/* what the kernel has written when the sleep was interrupted: now, or by the stop */
	if (rem && peek(t, rem, ts, sizeof(ts)))
		return t->stopsig ? less_elapsed(t, ts_ns(ts)) : MAX(ts_ns(ts), (uint64_t)1);
	return peek(t, req, ts, sizeof(ts)) ? less_elapsed(t, ts_ns(ts)) : 0;
}

void restart_take(struct task *t, uint32_t *nr, uint64_t *left_ns)
{
	const struct user_regs_struct *r = &t->regs;
	uint64_t call, left = 0;
	int64_t ts[2];

	*nr = 0;
	*left_ns = 0;
	if ((int64_t)r->orig_rax < 0 || (int64_t)r->rax != RESTARTBLOCK)
		t->left_until = 0; /* it does not sleep: what was noted is over */
	if ((int64_t)r->orig_rax < 0)
		return;
	if ((int64_t)r->rax != RESTARTBLOCK)
		return;
	call = real_call(t);
	log_debug("thread %d: call %lu (%s at the stop, waits %d)", t->nstid, (unsigned long)call,
		  r->orig_rax == RESTART_SYSCALL ? "restarted" : "fresh", t->waits);
	switch (call) {
	case SYS_nanosleep:
		left = sleep_left(t, r->rdi, r->rsi);
		break;
	case SYS_clock_nanosleep:
		left = sleep_left(t, r->rdx, r->r10);
		break;
	case SYS_poll:
		if ((int32_t)r->rdx < 0) {
			by_arguments(t, call);
			return;
		}
		left = less_elapsed(t, (uint64_t)(uint32_t)r->rdx * NSEC_PER_MSEC);
		break;
	case SYS_futex:
		if ((r->rsi & FUTEX_CMD_MASK) != FUTEX_WAIT || !peek(t, r->r10, ts, sizeof(ts))) {
			by_arguments(t, call); /* an absolute end */
			return;
		}
		left = less_elapsed(t, ts_ns(ts));
		break;
	default:
		return; /* nobody knows which call it was: the program sees EINTR */
	}
	*nr = (uint32_t)call;
	*left_ns = left;
	t->left_until = now_ns() + left;
	t->same_until = true;
}

void restart_write_notes(const char *dir, const char *text, size_t len)
{
	char path[PATH_MAX], temp[PATH_MAX];
	autoclose int fd = -1;

	snprintf(path, sizeof(path), "%s/" RESTART_NOTES, dir);
	snprintf(temp, sizeof(temp), "%s/" RESTART_NOTES ".new", dir);
	if (!len) {
		unlink(path);
		return;
	}
	fd = open(temp, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (fd < 0 || write(fd, text, len) != (ssize_t)len || rename(temp, path) < 0) {
		unlink(temp);
		unlink(path);
	}
}

/* ---- on the target */

static int to_entry(struct task *t, struct err *e)
{
	int status, r;

	do {
		if (ptrace(PTRACE_SYSCALL, t->tid, NULL, NULL) < 0)
			return err_sys(e, "pid %d: replay a call", t->nstid);
		t->stopped = false;
		r = task_wait(t, &status, deadline_ms(2000), e);
		if (r < 0)
			return r;
	} while (!t->sysstop);
	return 0;
}

int restart_replay(struct task *t, struct user_regs_struct *want, uint32_t nr, uint64_t left_ns, uint64_t data,
		   struct err *e)
{
	int64_t ts[2] = { (int64_t)(left_ns / NSEC_PER_SEC), (int64_t)(left_ns % NSEC_PER_SEC) };
	struct iovec l = { ts, sizeof(ts) }, rm = { (void *)data, sizeof(ts) };
	struct user_regs_struct regs = *want;
	struct iovec gp = { &regs, sizeof(regs) };
	int r;

	if (process_vm_writev(t->tid, &l, 1, &rm, 1, 0) != (ssize_t)sizeof(ts))
		return err_sys(e, "pid %d: time left", t->nstid);
	switch (nr) {
	case SYS_nanosleep: regs.rdi = data; break;
	case SYS_clock_nanosleep: regs.rdx = data; regs.rsi = 0; break;
	case SYS_poll: regs.rdx = (uint32_t)((left_ns + NSEC_PER_MSEC - 1) / NSEC_PER_MSEC); break;
	case SYS_futex: regs.r10 = data; break;
	default: return err_set(e, EBADMSG, "pid %d: call %u is none that is replayed", t->nstid, nr);
	}
	regs.rip = t->sysinsn;
	regs.rax = nr;
	regs.orig_rax = (uint64_t)-1;
	t->borrowed = true;
	r = task_set_sigmask(t, ~0ull, e);
	if (r >= 0)
		r = task_set_regs(t, &regs, e);
	if (r >= 0)
		r = to_entry(t, e);
	if (r >= 0)
		r = task_interrupt(t, e); /* it will find a signal to look at as soon as it would sleep */
	if (r < 0)
		return r;
	if (ptrace(PTRACE_CONT, t->tid, NULL, NULL) < 0)
		return err_sys(e, "pid %d: replay a call", t->nstid);
	t->stopped = false;
	r = task_wait_stopped(t, deadline_ms(2000), e);
	if (r < 0)
		return r;
	if (ptrace(PTRACE_GETREGSET, t->tid, (void *)1L /* NT_PRSTATUS */, &gp) < 0)
		return err_sys(e, "pid %d: read registers", t->nstid);
	t->left_until = now_ns() + left_ns; /* at the latest: it began before it was stopped */
	want->rax = regs.rax;
	/* it may have had its result at once: then that is the call's */
	want->orig_rax = (int64_t)regs.rax == RESTARTBLOCK ? nr : (uint64_t)-1;
	return 0;
}
