/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Calls that the stop has interrupted.
 *
 * Most restart by their own arguments: the kernel does that from the registers alone. Some return
 * ERESTART_RESTARTBLOCK (-516): how to go on is in the kernel's restart block, which nobody can read
 * or write. Calls without an end or with an absolute one are made again with their arguments. Of a
 * relative sleep the time left is found out; on the target the call is made with that and
 * interrupted at once, which fills a restart block there, so that the program's own call goes on.
 *
 * The time left is what the kernel has written to the call's `rem`; where there is none, the time
 * asked for less the time since the task last ran (exec_start in /proc, sampled before the stop), if the count of
 * its waits says that it is the same wait. A call that had been interrupted before (its number reads restart_syscall) is told by where it
 * waits; its end is that which an earlier stop has found out, if the count says that it has gone back to it and no
 * further. What is not sure is not deducted: it may sleep longer than it asked for, never shorter.
 */
#ifndef POD_TASK_RESTART_H
#define POD_TASK_RESTART_H

#include <stdint.h>

#include "pod/base/err.h"
#include "pod/task/task.h"

/** File in a pod's directory on its node, "tid end call switches": sleeps that an engine has set going again, their end (CLOCK_MONOTONIC
 * ns), and restart_switches() then. */
#define RESTART_NOTES "sleeps"
/** Replaces the notes in @dir; not durable, as they do not outlive the pod. Errors do not matter: such sleeps take longer. */
void restart_write_notes(const char *dir, const char *text, size_t len);
/** An engine before this one has noted that the task sleeps in @call till @until, when it had @switches. */
void restart_noted(struct task *, uint64_t until, uint32_t call, uint64_t switches);
/** How often the task has waited, stops included, since it was made. 0: not known. */
uint64_t restart_switches(pid_t tid);

/** The task has been stopped and saved, to whatever end: whether it is in the wait that it was sampled in, what call it is in, for
 * a later stop that cannot tell; and one that the stop has ended with EINTR is made again when it goes on. */
void restart_saw(struct task *t);
/** Before the stop: where the task waits and when it last ran. Errors do not matter. May run on other CPUs for a moment. */
void restart_sample(struct task *t, pid_t tgid);
/**
 * The task is stopped and saved. Rewrites saved registers where the kernel can restart the call from
 * them. *@nr: the call to be replayed with *@left_ns, or 0.
 */
void restart_take(struct task *t, uint32_t *nr, uint64_t *left_ns);
/**
 * On the target: makes call @nr of the final registers @want in the stopped task, with @left_ns, and
 * interrupts it; @want's rax and orig_rax are set by what came of it. @data: 16 free bytes in the task.
 */
int restart_replay(struct task *t, struct user_regs_struct *want, uint32_t nr, uint64_t left_ns, uint64_t data,
		   struct err *e);

#endif
