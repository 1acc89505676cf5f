/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Syscall batches: see task.h. Layout of a scratch area:
 *   0       code of the loop
 *   4 KiB   frame for rt_sigreturn (registers and extended state of the task)
 *   32 KiB  entries
 *   160 KiB data; in front of it a siginfo
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#include "pod/base/io.h"
#include "pod/base/util.h"
#include "pod/task/task.h"

#define OFF_FRAME 4096u
#define OFF_ENTRIES (32u * 1024)
#define OFF_DATA (160u * 1024)
#define OFF_INFO (OFF_DATA - 256)
_Static_assert(OFF_ENTRIES + BATCH_MAX * sizeof(struct batch_entry) <= OFF_INFO, "entries fit");
_Static_assert(OFF_DATA + BATCH_DATA <= SCRATCH_LEN, "data fits");
_Static_assert(sizeof(struct batch_entry) == 72, "the loop steps by 72");

void batch_begin(struct batch *b, uint64_t scratch)
{
	b->scratch = scratch;
	b->n = 0;
	b->used = 0;
	b->overflow = false;
}

unsigned batch_add(struct batch *b, long nr, uint64_t a0, uint64_t a1, uint64_t a2, uint64_t a3,
		   uint64_t a4, uint64_t a5)
{
	if (b->n >= BATCH_MAX) {
		b->overflow = true;
		return 0;
	}
	b->e[b->n] = (struct batch_entry){ .nr = nr, .arg = { a0, a1, a2, a3, a4, a5 } };
	return b->n++;
}

uint64_t batch_scratch_data(uint64_t scratch)
{
	return scratch + OFF_DATA;
}

uint64_t batch_arg_addr(const struct batch *b, unsigned i, unsigned k)
{
	return b->scratch + OFF_ENTRIES + i * sizeof(struct batch_entry) +
	       offsetof(struct batch_entry, arg) + k * sizeof(uint64_t);
}

uint64_t batch_data(struct batch *b, const void *in, size_t len)
{
	size_t at = b->used;

	if (len > BATCH_DATA - at) {
		b->overflow = true;
		return b->scratch + OFF_DATA;
	}
	if (in)
		memcpy(b->data + at, in, len);
	else
		memset(b->data + at, 0, len);
	b->used = MIN(ALIGN_UP(at + len, (size_t)16), (size_t)BATCH_DATA);
	return b->scratch + OFF_DATA + at;
}

void *batch_local(struct batch *b, uint64_t addr)
{
	uint64_t at = addr - b->scratch - OFF_DATA;

	return b->data + (at < sizeof(b->data) ? at : 0); /* what has been in the program's memory may be anything */
}

int batch_install(pid_t pid, uint64_t scratch, struct err *e)
{
	size_t len = (size_t)(arch_batch_code_end - arch_batch_code);
	struct iovec l = { (void *)(uintptr_t)arch_batch_code, len };
	struct iovec r = { (void *)scratch, len };
	autoclose int fd = -1;
	char path[32];

	if (process_vm_writev(pid, &l, 1, &r, 1, 0) == (ssize_t)len)
		return 0;
	/* its page may not be writable for the program itself */
	snprintf(path, sizeof(path), "/proc/%d/mem", pid);
	fd = open(path, O_RDWR | O_CLOEXEC);
	if (fd < 0 || pwrite(fd, arch_batch_code, len, (off_t)scratch) != (ssize_t)len)
		return err_sys(e, "write the batch loop");
	return 0;
}

static int put(struct task *t, struct batch *b, const uint8_t *frame, size_t flen, struct err *e)
{
	struct iovec l[3] = { { (void *)(uintptr_t)frame, flen },
			      { b->e, b->n * sizeof(b->e[0]) },
			      { b->data, b->used } };
	struct iovec r[3] = { { (void *)(b->scratch + OFF_FRAME), flen },
			      { (void *)(b->scratch + OFF_ENTRIES), l[1].iov_len },
			      { (void *)(b->scratch + OFF_DATA), b->used } };
	size_t len = flen + l[1].iov_len + b->used;

	if (process_vm_writev(t->tid, l, 3, r, 3, 0) != (ssize_t)len)
		return err_sys(e, "pid %d: write a batch", t->nstid);
	return 0;
}

static int get(struct task *t, struct batch *b, struct err *e)
{
	struct iovec l[2] = { { b->e, b->n * sizeof(b->e[0]) }, { b->data, b->used } };
	struct iovec r[2] = { { (void *)(b->scratch + OFF_ENTRIES), l[0].iov_len },
			      { (void *)(b->scratch + OFF_DATA), b->used } };

	if (process_vm_readv(t->tid, l, 2, r, 2, 0) != (ssize_t)(l[0].iov_len + b->used))
		return err_sys(e, "pid %d: read a batch", t->nstid);
	return 0;
}

/* Call by call, for a task in which the end signal of the loop would merge with a real one. */
static int run_single(struct task *t, struct batch *b, struct err *e)
{
	unsigned i;
	int r = put(t, b, NULL, 0, e);

	for (i = 0; r >= 0 && i < b->n; i++) {
		struct batch_entry *en = &b->e[i];

		r = task_syscall(t, en->nr, en->arg, &en->ret, e);
		if (r >= 0 && en->also) {
			struct iovec l = { &en->ret, 8 }, rm = { (void *)en->also, 8 };

			if (process_vm_writev(t->tid, &l, 1, &rm, 1, 0) != 8)
				r = err_sys(e, "pid %d: store a result", t->nstid);
		}
	}
	if (r >= 0) {
		struct iovec l = { b->data, b->used };
		struct iovec rm = { (void *)(b->scratch + OFF_DATA), b->used };

		if (process_vm_readv(t->tid, &l, 1, &rm, 1, 0) != (ssize_t)b->used)
			r = err_sys(e, "pid %d: read a batch", t->nstid);
	}
	return r;
}

/* Is the loop over, whoever's signal this stop is for? If a thread's own queue holds one, the loop's is merged with it. */
static bool is_over(struct task *t, uint64_t scratch)
{
	struct user_regs_struct regs;
	struct iovec gp = { &regs, sizeof(regs) };

	return ptrace(PTRACE_GETREGSET, t->tid, (void *)1L /* NT_PRSTATUS */, &gp) == 0 &&
	       regs.rip == scratch + (size_t)(arch_batch_code_told - arch_batch_code);
}

/* At a stop for SIGURG: is it the loop's own? Another is kept. */
static bool is_ours(struct task *t, uint64_t scratch)
{
	siginfo_t info;
	unsigned i;

	if (ptrace(PTRACE_GETSIGINFO, t->tid, NULL, &info) < 0 || (info.si_code == SI_TKILL && info.si_pid == t->nstgid))
		return true;
	for (i = 0; i < t->nurgent; i++)
		if ((t->urgent[i].si_code == SI_TKILL) == (info.si_code == SI_TKILL))
			break;
	if (i == t->nurgent && i < ARRAY_SIZE(t->urgent))
		t->urgent[t->nurgent++] = info; /* of two in one queue the kernel keeps one as well */
	return is_over(t, scratch);
}

/* The batch is over: what came meanwhile is the program's to see. */
static int give_back(struct task *t, struct batch *b, struct err *e)
{
	int r = 0;

	while (r >= 0 && t->nurgent) {
		siginfo_t *info = &t->urgent[t->nurgent - 1];
		bool private = info->si_code == SI_TKILL;
		uint64_t at = b->scratch + OFF_INFO, tg = (uint64_t)t->nstgid;
		const uint64_t thread[6] = { tg, (uint64_t)t->nstid, SIGURG, at }, process[6] = { tg, SIGURG, at };
		struct iovec l = { info, sizeof(*info) }, rm = { (void *)at, sizeof(*info) };
		int64_t ret = 0;

		if (process_vm_writev(t->tid, &l, 1, &rm, 1, 0) != sizeof(*info))
			return err_sys(e, "pid %d: write a signal", t->nstid);
		r = task_syscall(t, private ? SYS_rt_tgsigqueueinfo : SYS_rt_sigqueueinfo, private ? thread : process, &ret, e);
		if (r >= 0 && ret == -EPERM) /* only the main thread may say that another sent it */
			r = task_syscall(t, SYS_kill, process, &ret, e);
		if (r >= 0 && ret < 0)
			r = err_num(e, (int)ret, "pid %d: queue a signal again", t->nstid);
		t->nurgent--;
		t->nobatch = true;
	}
	return r;
}

/* Runs until our own SIGURG; other stops on the way are passed over, but a SIGSTOP takes its effect: then it is a stopped
 * process that runs on. */
static int run_loop(struct task *t, uint64_t scratch, uint64_t deadline, struct err *e)
{
	int status = 0, r, tries;

	for (tries = 0; tries < 16; tries++) {
		if (ptrace(PTRACE_CONT, t->tid, NULL, (void *)(long)(task_is_sigstop(status) ? SIGSTOP : 0)) < 0)
			return err_sys(e, "pid %d: run a batch", t->nstid);
		t->stopped = false;
		r = task_wait(t, &status, deadline, e);
		if (r < 0)
			return r;
		if ((status >> 16) == 0 && WSTOPSIG(status) == SIGURG) {
			if (is_ours(t, scratch))
				return 0;
			tries--; /* a program may send as many as it likes; the deadline ends it */
			if (deadline_past(deadline))
				return err_set(e, ETIMEDOUT, "pid %d: a batch does not end", t->nstid);
		}
		if ((status >> 16) == 0 && (WSTOPSIG(status) == SIGSEGV || WSTOPSIG(status) == SIGILL ||
					    WSTOPSIG(status) == SIGBUS))
			return err_set(e, EFAULT, "pid %d: signal %d inside a batch", t->nstid,
				       WSTOPSIG(status));
	}
	return err_set(e, EIO, "pid %d: a batch does not end", t->nstid);
}

static int finish(struct task *t, struct batch *b, uint64_t deadline, struct err *e)
{
	int r = run_loop(t, b->scratch, deadline, e);

	if (r >= 0)
		r = get(t, b, e);
	return r < 0 || !t->nurgent || !is_over(t, b->scratch) ? r : give_back(t, b, e);
}

/* All is in place: the task would run it if it were let go. */
static int start(struct task *t, struct batch *b, struct err *e)
{
	static uint8_t frame[OFF_ENTRIES - OFF_FRAME] __attribute__((aligned(64)));
	struct user_regs_struct regs = t->regs;
	uint64_t rsp;
	int flen, r;

	flen = arch_sigframe(t, b->scratch + OFF_FRAME, frame, sizeof(frame), &rsp);
	if (flen < 0)
		return err_num(e, flen, "pid %d: frame of %zu bytes of registers", t->nstid, t->xlen);
	r = put(t, b, frame, (size_t)flen, e);
	if (r < 0)
		return r;
	if (t->sysstop) { /* a single call came before: the loop must start from a clean stop */
		t->borrowed = true;
		r = task_repair(t, e);
		if (r < 0)
			return r;
	}
	regs.rip = b->scratch;
	regs.rax = 0;
	regs.orig_rax = (uint64_t)-1;
	regs.rbx = b->scratch + OFF_ENTRIES;
	regs.r12 = b->n;
	regs.r13 = (uint64_t)t->nstgid;
	regs.r14 = (uint64_t)t->nstid;
	regs.r15 = rsp;
	regs.eflags &= ~(uint64_t)(0x100 | 0x400); /* no single step, direction up */
	t->borrowed = true;
	r = task_set_sigmask(t, ~(1ull << (SIGURG - 1)), e);
	return r < 0 ? r : task_set_regs(t, &regs, e);
}

int batch_run(struct task *t, struct batch *b, uint64_t deadline, struct err *e)
{
	int r;

	if (b->overflow)
		return err_set(e, E2BIG, "pid %d: a batch is too long", t->nstid);
	if (b->n == 0)
		return 0;
	if (t->nobatch)
		return run_single(t, b, e);
	r = start(t, b, e);
	if (r >= 0)
		r = finish(t, b, deadline, e);
	return r;
}

void batch_add_pause(struct batch *b, const struct task *t)
{
	batch_add3(b, SYS_tgkill, t->nstgid, t->nstid, SIGURG);
}

int batch_go_on(struct task *t, struct batch *b, uint64_t deadline, struct err *e)
{
	return finish(t, b, deadline, e);
}

int batch_leave(struct task *t, struct batch *b, struct err *e)
{
	int r = b->overflow || !b->n || t->nobatch ? err_set(e, EINVAL, "pid %d: such a batch cannot run by itself", t->nstid) :
						     start(t, b, e);

	if (r >= 0)
		t->parked = true;
	return r;
}

int batch_run_ok(struct task *t, struct batch *b, uint64_t deadline, struct err *e)
{
	int r = batch_run(t, b, deadline, e);
	unsigned i;

	for (i = 0; r >= 0 && i < b->n; i++)
		if (b->e[i].ret < 0 && b->e[i].ret >= -4095)
			return err_num(e, (int)b->e[i].ret,
				       "pid %d: syscall %ld(%#lx, %#lx, %#lx, %#lx), %u of %u", t->nstid,
				       (long)b->e[i].nr, (long)b->e[i].arg[0], (long)b->e[i].arg[1],
				       (long)b->e[i].arg[2], (long)b->e[i].arg[3], i, b->n);
	return r;
}
