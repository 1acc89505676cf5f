/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "pod/task/task.h"

#include <elf.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <sys/wait.h>

#include "pod/base/io.h"
#include "pod/base/kernel.h"
#include "pod/base/log.h"
#include "pod/base/util.h"
#include "pod/task/restart.h"

#define TICK_MS 20
#define SYSSTOP (SIGTRAP | 0x80)
#define EVENT(status) ((unsigned)(status) >> 16)

static struct {
	struct task *const *volatile t;
	volatile size_t n;
} siblings; /* of the one that is being seized */

static bool has_ended(pid_t tid)
{
	siginfo_t si = { .si_pid = 0 };

	return waitid(P_PID, (id_t)tid, &si, WEXITED | WNOHANG | WNOWAIT | __WALL) == 0 && si.si_pid &&
	       (si.si_code == CLD_EXITED || si.si_code == CLD_KILLED || si.si_code == CLD_DUMPED);
}

static void on_tick(int sig)
{
	int err = errno;
	size_t i;

	(void)sig;
	deadline_beat();
	for (i = 0; i < siblings.n; i++)
		if (siblings.t[i]->seized && has_ended(siblings.t[i]->tid))
			waitpid(siblings.t[i]->tid, NULL, __WALL | WNOHANG);
	errno = err;
}

int task_tick_start(struct err *e)
{
	struct sigaction sa = { .sa_handler = on_tick };
	struct itimerval tick = { { 0, TICK_MS * 1000 }, { 0, TICK_MS * 1000 } };

	if (sigaction(SIGALRM, &sa, NULL) < 0 || setitimer(ITIMER_REAL, &tick, NULL) < 0)
		return err_sys(e, "start the tick");
	deadline_beats(10 * TICK_MS);
	return 0;
}

int task_seize_of(struct task *t, struct task *const *all, size_t n, struct err *e)
{
	long r;

	if (t->seized)
		return 0;
	siblings.t = all;
	siblings.n = n;
	r = ptrace(PTRACE_SEIZE, t->tid, NULL, (void *)(long)PTRACE_O_TRACESYSGOOD);
	siblings.n = 0;
	if (r < 0)
		return err_sys(e, "pid %d: seize", t->nstid);
	t->seized = true;
	t->stopped = t->borrowed = t->sysstop = false;
	return 0;
}

int task_seize(struct task *t, struct err *e)
{
	return task_seize_of(t, NULL, 0, e);
}

int task_interrupt(struct task *t, struct err *e)
{
	if (ptrace(PTRACE_INTERRUPT, t->tid, NULL, NULL) < 0)
		return err_sys(e, "pid %d: interrupt", t->nstid);
	return 0;
}

int task_wait(struct task *t, int *status, uint64_t deadline, struct err *e)
{
	for (;;) {
		pid_t p = waitpid(t->tid, status, __WALL);

		if (p == t->tid)
			break;
		if (p < 0 && errno == ECHILD)
			return err_set(e, ESRCH, "pid %d is gone", t->nstid);
		if (p < 0 && errno != EINTR)
			return err_sys(e, "pid %d: wait", t->nstid);
		if (deadline_past(deadline))
			return err_set(e, ETIMEDOUT, "pid %d did not stop in time", t->nstid);
	}
	if (WIFEXITED(*status) || WIFSIGNALED(*status)) {
		t->seized = t->stopped = false;
		return err_set(e, ESRCH, "pid %d has ended", t->nstid);
	}
	t->stopped = true;
	t->sysstop = WSTOPSIG(*status) == SYSSTOP;
	return 0;
}

static int cont(struct task *t, int request, int sig, struct err *e)
{
	if (ptrace((enum __ptrace_request)request, t->tid, NULL, (void *)(long)sig) < 0)
		return err_sys(e, "pid %d: continue", t->nstid);
	t->stopped = false;
	return 0;
}

int task_wait_stopped(struct task *t, uint64_t deadline, struct err *e)
{
	for (;;) {
		int status, r = task_wait(t, &status, deadline, e);

		if (r < 0)
			return r;
		if (EVENT(status) == PTRACE_EVENT_STOP) {
			int sig = WSTOPSIG(status);

			t->stopsig = sig == SIGTRAP ? 0 : sig;
			return 0;
		}
		/* a signal that came before the interrupt: it belongs to the program */
		r = cont(t, PTRACE_CONT, EVENT(status) || t->sysstop ? 0 : WSTOPSIG(status), e);
		if (r < 0)
			return r;
	}
}

struct rseq_config {
	uint64_t ptr;
	uint32_t size, sig, flags, pad;
};

struct rseq_section {
	uint32_t version, flags;
	uint64_t start, length, abort;
};

/*
 * A thread inside an rseq critical section is sent to its abort handler, as a preemption would do. The
 * kernel would forget the section: at the first return to user mode at another place (a batch), or
 * with a new registration (on the target).
 */
static void rseq_abort(struct task *t)
{
	struct rseq_config c = { 0 };
	struct rseq_section cs;
	uint64_t ptr = 0;
	struct iovec l = { &ptr, sizeof(ptr) }, r;

	if (ptrace((enum __ptrace_request)0x420f /* PTRACE_GET_RSEQ_CONFIGURATION */, t->tid, sizeof(c), &c) < 0 ||
	    !c.ptr)
		return;
	r = (struct iovec){ (void *)(c.ptr + 8), sizeof(ptr) };
	if (process_vm_readv(t->tid, &l, 1, &r, 1, 0) != sizeof(ptr) || !ptr)
		return;
	l = (struct iovec){ &cs, sizeof(cs) };
	r = (struct iovec){ (void *)ptr, sizeof(cs) };
	if (process_vm_readv(t->tid, &l, 1, &r, 1, 0) != sizeof(cs))
		return;
	if (t->regs.rip - cs.start < cs.length) {
		t->regs.rip = cs.abort;
		t->borrowed = true;
	}
}

/* Has it seccomp filters? */
static bool is_filtered(const struct task *t)
{
	autofree char *text = NULL;
	char path[48], *l;

	snprintf(path, sizeof(path), "/proc/%d/status", t->tid);
	if (io_read_file(path, 65536, &text, NULL, NULL) < 0)
		return false;
	l = strstr(text, "\nSeccomp:");
	return l && strtol(l + 9, NULL, 10);
}

/* Its calls would come to a handler of the program's, and the engine's with them (Wine). */
static int check_dispatch(struct task *t, struct err *e)
{
	struct dispatch_config c = { 0 };

	if (ptrace((enum __ptrace_request)PTRACE_GET_DISPATCH, t->tid, sizeof(c), &c) < 0 || !c.mode)
		return 0;
	return err_set(e, EOPNOTSUPP, "pid %d: thread %d dispatches its system calls itself (PR_SET_SYSCALL_USER_DISPATCH): cannot be carried",
		       t->nstgid, t->nstid);
}

/* Not before it stands still: until then its filters hold. */
static int suspend_seccomp(struct task *t, struct err *e)
{
	if (ptrace(PTRACE_SETOPTIONS, t->tid, NULL, (void *)(long)(PTRACE_O_TRACESYSGOOD | PTRACE_O_SUSPEND_SECCOMP)) == 0 ||
	    !is_filtered(t))
		return 0;
	return err_sys(e, "pid %d: suspend its seccomp filters", t->nstid);
}

int task_save(struct task *t, struct err *e)
{
	struct iovec gp = { &t->regs, sizeof(t->regs) };
	struct iovec xs;
	int r;

	if (!t->xstate) {
		t->xstate = aligned_alloc(64, XSTATE_MAX);
		if (!t->xstate)
			return err_num(e, ENOMEM, "xstate");
	}
	xs = (struct iovec){ t->xstate, XSTATE_MAX };
	if (ptrace(PTRACE_GETREGSET, t->tid, (void *)(long)NT_PRSTATUS, &gp) < 0 ||
	    ptrace(PTRACE_GETREGSET, t->tid, (void *)(long)NT_X86_XSTATE, &xs) < 0 ||
	    ptrace(PTRACE_GETSIGMASK, t->tid, (void *)8L, &t->sigmask) < 0)
		return err_sys(e, "pid %d: read registers", t->nstid);
	t->xlen = xs.iov_len;
	t->borrowed = false;
	rseq_abort(t);
	r = t->guest ? check_dispatch(t, e) : 0;
	return r < 0 || !t->guest ? r : suspend_seccomp(t, e);
}

int task_set_regs(struct task *t, const struct user_regs_struct *regs, struct err *e)
{
	struct iovec gp = { (void *)(uintptr_t)regs, sizeof(*regs) };

	if (ptrace(PTRACE_SETREGSET, t->tid, (void *)(long)NT_PRSTATUS, &gp) < 0)
		return err_sys(e, "pid %d: set registers", t->nstid);
	return 0;
}

int task_set_xstate(struct task *t, const void *xstate, size_t len, struct err *e)
{
	struct iovec xs = { (void *)(uintptr_t)xstate, len };

	if (ptrace(PTRACE_SETREGSET, t->tid, (void *)(long)NT_X86_XSTATE, &xs) < 0)
		return err_sys(e, "pid %d: set the extended registers", t->nstid);
	return 0;
}

int task_set_sigmask(struct task *t, uint64_t mask, struct err *e)
{
	if (ptrace(PTRACE_SETSIGMASK, t->tid, (void *)8L, &mask) < 0)
		return err_sys(e, "pid %d: set the signal mask", t->nstid);
	return 0;
}

/* From a syscall stop to an EVENT_STOP, without a step of user code. */
static int leave_sysstop(struct task *t, struct err *e)
{
	int r = task_interrupt(t, e);

	if (r < 0)
		return r;
	r = cont(t, PTRACE_CONT, 0, e);
	if (r < 0)
		return r;
	return task_wait_stopped(t, deadline_ms(1000), e);
}

int task_repair(struct task *t, struct err *e)
{
	int r;

	if (!t->borrowed || t->parked)
		return 0;
	if (t->sysstop) {
		r = leave_sysstop(t, e);
		if (r < 0)
			return r;
	}
	r = task_set_regs(t, &t->regs, e);
	if (r < 0)
		return r;
	r = task_set_sigmask(t, t->sigmask, e);
	if (r < 0)
		return r;
	t->borrowed = false;
	return 0;
}

/* Has the stop come that was asked for? Without waiting. What ends a batch is repaired by who lets go. */
static bool task_has_stopped(struct task *t)
{
	int status;
	pid_t p = waitpid(t->tid, &status, __WALL | WNOHANG);

	if (p == 0)
		return false;
	if (p < 0 || WIFEXITED(status) || WIFSIGNALED(status)) {
		t->seized = t->stopped = false;
		return false;
	}
	t->stopped = true;
	t->sysstop = WSTOPSIG(status) == SYSSTOP;
	if (!t->borrowed && EVENT(status) == 0 && !t->sysstop) /* a signal of the program's own */
		t->pending_sig = WSTOPSIG(status);
	return true;
}

int task_release(struct task *t, struct err *e)
{
	int r = 0;

	if (!t->seized)
		return 0;
	if (!t->stopped && !task_has_stopped(t))
		return t->seized ? -EAGAIN : 0; /* only a stopped task can be let go: it stays ours until then */
	r = task_repair(t, e);
	if (t->left_until)
		t->until_switches = restart_switches(t->tid);
	if (ptrace(PTRACE_DETACH, t->tid, NULL, (void *)(long)t->pending_sig) < 0 && errno != ESRCH && !r)
		r = err_sys(e, "pid %d: detach", t->nstid);
	t->seized = t->stopped = false;
	t->pending_sig = 0;
	return r == -ESRCH ? 0 : r;
}

void task_done(struct task *t)
{
	free(t->xstate);
	t->xstate = NULL;
}

int task_syscall(struct task *t, long nr, const uint64_t args[6], int64_t *ret, struct err *e)
{
	struct user_regs_struct regs = t->regs;
	int r, i, status, stop_sig = 0;

	regs.rip = t->sysinsn;
	regs.rax = (uint64_t)nr;
	regs.orig_rax = (uint64_t)-1;
	regs.rdi = args[0];
	regs.rsi = args[1];
	regs.rdx = args[2];
	regs.r10 = args[3];
	regs.r8 = args[4];
	regs.r9 = args[5];
	t->borrowed = true;
	r = task_set_sigmask(t, ~0ull, e);
	if (r < 0)
		return r;
	r = task_set_regs(t, &regs, e);
	for (i = 0; r >= 0 && i < 2; i++) {
		do {
			r = cont(t, PTRACE_SYSCALL, stop_sig, e);
			if (r >= 0)
				r = task_wait(t, &status, deadline_ms(2000), e);
			if (r >= 0 && !EVENT(status) && (WSTOPSIG(status) == SIGSEGV || WSTOPSIG(status) == SIGILL))
				r = err_set(e, EFAULT, "pid %d: signal %d at a remote call", t->nstid, WSTOPSIG(status));
			stop_sig = r >= 0 && task_is_sigstop(status) ? SIGSTOP : 0;
		} while (r >= 0 && !t->sysstop);
	}
	if (r >= 0) {
		struct iovec gp = { &regs, sizeof(regs) };

		if (ptrace(PTRACE_GETREGSET, t->tid, (void *)(long)NT_PRSTATUS, &gp) < 0)
			return err_sys(e, "pid %d: read registers", t->nstid);
		*ret = (int64_t)regs.rax;
	}
	return r;
}

int task_exit(struct task *t, long options, struct err *e)
{
	struct user_regs_struct regs = t->regs;
	int r = task_repair(t, e), status;

	regs.rip = t->sysinsn;
	regs.rax = SYS_exit;
	regs.orig_rax = (uint64_t)-1;
	regs.rdi = 0;
	if (r >= 0)
		r = task_set_sigmask(t, ~0ull, e);
	if (r >= 0)
		r = task_set_regs(t, &regs, e);
	/* of a leader's end a tracer is told when the last thread has ended: the way there is what can be waited for */
	if (r >= 0 && ptrace(PTRACE_SETOPTIONS, t->tid, NULL, (void *)(options | PTRACE_O_TRACEEXIT)) < 0)
		r = err_sys(e, "pid %d: ptrace options", t->nstid);
	status = 0;
	do {
		if (r >= 0)
			r = cont(t, PTRACE_CONT, task_is_sigstop(status) ? SIGSTOP : 0, e);
		if (r >= 0)
			r = task_wait(t, &status, deadline_ms(2000), e);
		if (r >= 0 && !EVENT(status) && (WSTOPSIG(status) == SIGSEGV || WSTOPSIG(status) == SIGILL))
			r = err_set(e, EFAULT, "pid %d: signal %d at its exit", t->nstid, WSTOPSIG(status));
	} while (r >= 0 && EVENT(status) != PTRACE_EVENT_EXIT);
	if (r >= 0 && ptrace(PTRACE_DETACH, t->tid, NULL, NULL) < 0)
		r = err_sys(e, "pid %d: detach", t->nstid);
	t->seized = t->stopped = r < 0 ? t->seized : false;
	return r;
}
