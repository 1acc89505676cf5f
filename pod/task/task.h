/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Tasks held by ptrace, and syscalls made inside them.
 *
 * Theory of operation. A task is seized and interrupted; its registers and signal mask are saved.
 * Work inside it is done by a *syscall batch*: a scratch area in the task holds a short loop and an
 * array of {nr, args, result}; one run performs them all. The loop ends with tgkill(self, SIGURG):
 * the tracer sees a signal-delivery stop, from which the saved registers can be put back with the
 * kernel's own restart rules intact. Should the tracer die in between, the loop falls into
 * rt_sigreturn on a frame prepared in the scratch, and the task goes on as if nothing had happened.
 * The scratch itself is mapped by one single-stepped remote syscall at the instruction in the vdso.
 *
 * Invariants: between task_stop() and task_release() the task runs nothing of its own; every signal
 * but SIGURG is blocked while a batch runs, so no handler can run on borrowed registers; injected
 * register sets carry orig_rax = -1, or the kernel would restart a syscall that is not there.
 *
 * States of a task:   running --seize/stop--> STOPPED --batch/remote--> BORROWED --repair--> STOPPED --release--> running
 * BORROWED tasks that were left in a syscall-exit stop are brought to an EVENT_STOP by task_repair()
 * first: only from there does the kernel look at the restart codes.
 *
 * A SIGURG of another process's may come while a batch runs (PostgreSQL wakes its processes so): it is told from the loop's
 * own by its siginfo, and queued again at the end of the batch.
 */
#ifndef POD_TASK_TASK_H
#define POD_TASK_TASK_H

#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <sys/user.h>

#include "pod/base/err.h"

#define XSTATE_MAX 16384

struct task {
	pid_t tid;	/* in the engine's pid namespace */
	pid_t nstid;	/* in the pod's */
	pid_t nstgid;
	bool seized;
	bool stopped;
	bool borrowed;	/* registers or mask differ from the saved ones */
	bool sysstop;	/* last stop was a syscall stop */
	int stopsig;	/* its process is stopped, by this signal; as of the last stop that was asked for */
	int pending_sig; /* came instead of the stop: delivered when the task is let go */
	bool guest;	/* of a pod that runs: what is done in it is not for its seccomp filters to judge */
	int seccomp;	/* its mode, as of collect_recheck() */
	bool parked;	/* stands in a batch that it shall end by itself: repair and release leave its registers alone */
	bool nobatch;	/* a real SIGURG is pending: single remote calls only */
	unsigned nurgent; /* SIGURGs of the program's that came while a batch ran, one of each queue */
	siginfo_t urgent[2];
	struct user_regs_struct regs;
	uint64_t sigmask;
	uint8_t *xstate; /* XSTATE_MAX bytes, allocated at the first save; owned */
	size_t xlen;
	int waits;	/* restart.h: what kind of call it waits in, 0 unknown */
	uint64_t slept_ns; /* restart.h: when it last ran before it was sampled (CLOCK_MONOTONIC) or later, 0 unknown */
	uint64_t switches; /* restart.h: how often it had waited by then, 0 unknown */
	bool same_wait;	/* restart.h: it is stopped in the wait that it was sampled in */
	bool same_until; /* restart.h: left_until is that wait's */
	uint64_t left_until; /* restart.h: end of the sleep it is in (CLOCK_MONOTONIC), 0 unknown */
	uint64_t until_switches; /* restart.h: how often it had waited when it was let go after that was found out */
	uint32_t sleeps_in;	/* the call behind restart_syscall, as an earlier stop has seen it; 0: not known */
	uint64_t sysinsn; /* address of a `syscall` instruction in the task */
};

/* ---- stopping */
/** A timer tick that interrupts waits so that their deadlines are seen. Once per engine. */
int task_tick_start(struct err *e);
/** PTRACE_SEIZE. -ESRCH if it is gone, -EPERM for a zombie. */
int task_seize(struct task *, struct err *e);
/**
 * The same for one of the @n threads of a process. Seizing waits for a thread that is about to start another program, and that for all
 * others to end, of whom those that are held have not before their tracer has heard of it: meanwhile it does.
 */
int task_seize_of(struct task *, struct task *const *all, size_t n, struct err *e);
/** Asks the task to stop (PTRACE_INTERRUPT) without waiting. */
int task_interrupt(struct task *, struct err *e);
/** Waits for that stop. Signals that come first are delivered. -ESRCH when the task died. Of a process that is stopped by
 * a signal it says so in t->stopsig: it can be worked with, and when it is let go it is stopped again. */
int task_wait_stopped(struct task *, uint64_t deadline, struct err *e);
/** Reads registers, xstate and mask. The task is stopped. */
int task_save(struct task *, struct err *e);
/** Is it the delivery of a SIGSTOP, which cannot be blocked? Who meets it in the middle of a call passes it on, and goes on. */
static inline bool task_is_sigstop(int status)
{
	return status >> 16 == 0 && (status >> 8 & 0xff) == SIGSTOP;
}
/** Puts saved registers and mask back if they were borrowed. */
int task_repair(struct task *, struct err *e);
/** Repairs and detaches: the task goes on. Errors of a dead task are none. -EAGAIN: it has not stopped
 * yet, stays seized, and must be released again. */
int task_release(struct task *, struct err *e);
void task_done(struct task *);
/** Waits for the next stop of the task: its raw wait status. */
int task_wait(struct task *, int *status, uint64_t deadline, struct err *e);
/** Writes registers to the stopped task (not the saved copy). */
int task_set_regs(struct task *, const struct user_regs_struct *, struct err *e);
int task_set_xstate(struct task *, const void *xstate, size_t len, struct err *e);
int task_set_sigmask(struct task *, uint64_t mask, struct err *e);

/* ---- one syscall */
/** Makes one syscall in the stopped task at t->sysinsn. Result (raw, negative errno) in *ret. */
int task_syscall(struct task *, long nr, const uint64_t args[6], int64_t *ret, struct err *e);
/** The stopped task ends itself by exit(2), at t->sysinsn, while other threads of its process go on: on the way it is let go of, and
 * nothing is said of its end. @options: the ptrace options that it keeps until then. */
int task_exit(struct task *t, long options, struct err *e);

/* ---- batches */
#define SCRATCH_LEN (256u * 1024)
#define BATCH_MAX 1500u
#define BATCH_DATA (96u * 1024)

struct batch_entry {
	int64_t nr;
	uint64_t arg[6];
	int64_t ret;
	uint64_t also; /* address in the task where the result is stored as well, or 0 */
};

struct batch {
	uint64_t scratch; /* its address in the task */
	unsigned n;
	size_t used;	  /* bytes of data */
	bool overflow;	  /* something did not fit: batch_run() refuses */
	struct batch_entry e[BATCH_MAX];
	uint8_t data[BATCH_DATA];
};

/** Empties @b for a task whose scratch lies at @scratch. */
void batch_begin(struct batch *b, uint64_t scratch);
/** Adds a call; the index of its entry. */
unsigned batch_add(struct batch *b, long nr, uint64_t a0, uint64_t a1, uint64_t a2, uint64_t a3, uint64_t a4, uint64_t a5);
#define batch_add0(b, nr) batch_add(b, nr, 0, 0, 0, 0, 0, 0)
#define batch_add1(b, nr, x) batch_add(b, nr, (uint64_t)(x), 0, 0, 0, 0, 0)
#define batch_add2(b, nr, x, y) batch_add(b, nr, (uint64_t)(x), (uint64_t)(y), 0, 0, 0, 0)
#define batch_add3(b, nr, x, y, z) batch_add(b, nr, (uint64_t)(x), (uint64_t)(y), (uint64_t)(z), 0, 0, 0)
#define batch_add4(b, nr, x, y, z, w) batch_add(b, nr, (uint64_t)(x), (uint64_t)(y), (uint64_t)(z), (uint64_t)(w), 0, 0)
/** Address of the data of a scratch: free between batches. */
uint64_t batch_scratch_data(uint64_t scratch);
/** Address in the task of argument @k of entry @i: for `also` of an earlier entry whose result it shall take. */
uint64_t batch_arg_addr(const struct batch *b, unsigned i, unsigned k);
/** Reserves @len bytes (8-aligned) of the scratch's data: its address in the task. Copied in from @in, zeroed if NULL. */
uint64_t batch_data(struct batch *b, const void *in, size_t len);
/** The engine's copy of data at task address @addr: after a run, what the calls left there. */
void *batch_local(struct batch *b, uint64_t addr);
/** Runs the batch in the stopped task. Results are in the entries. A failing call is not an error of the run. */
int batch_run(struct task *, struct batch *b, uint64_t deadline, struct err *e);
/** Adds a place where batch_run() returns, with the results so far; not in a task with nobatch. */
void batch_add_pause(struct batch *b, const struct task *t);
/** Runs on from there. @b is as it was when it was started. Should nobody come to do it, the task runs on by itself. */
int batch_go_on(struct task *, struct batch *b, uint64_t deadline, struct err *e);
/** The task will run it when it is let go, and then be itself again; nobody hears of the results. It is parked. */
int batch_leave(struct task *, struct batch *b, struct err *e);
/** As batch_run(), and the first entry with ret in [-4095, -1] is an error: "call <what>: ...". */
int batch_run_ok(struct task *, struct batch *b, uint64_t deadline, struct err *e);
/** Writes loop code into a fresh scratch at @scratch of @pid (once per scratch). */
int batch_install(pid_t pid, uint64_t scratch, struct err *e);

/* ---- arch_x86_64.c */
extern const uint8_t arch_batch_code[];
extern const uint8_t arch_batch_code_told[]; /* where the loop is after it has sent its signal */
extern const uint8_t arch_batch_code_end[];
/** Fills an rt_sigreturn frame at @addr that continues the saved task; @buf of @len; its size or negative errno. The value for
 * rsp at rt_sigreturn goes to *@rsp. */
int arch_sigframe(const struct task *, uint64_t addr, uint8_t *buf, size_t len, uint64_t *rsp);
/** Offset of a `syscall` instruction in a vdso image, or -ENOENT. */
int64_t arch_find_syscall(const uint8_t *vdso, size_t len);

#endif
