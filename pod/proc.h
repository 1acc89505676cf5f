/* SPDX-License-Identifier: GPL-3.0-or-later */
/* The processes of a pod as seen from its node: who there is, and what /proc says of each. */
#ifndef POD_PROC_H
#define POD_PROC_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "image.pb-c.h"
#include "pod/base/err.h"
#include "pod/mem/mem.h"
#include "pod/task/task.h"

#define MAX_GROUPS 256

/* What /proc/PID/stat and status say; pids are the pod's own unless they are called outer. */
struct proc_status {
	char comm[64];
	char state;		/* R S D T t Z ... */
	pid_t nspid, ppid_outer, pgid, sid, tracer;
	unsigned ns_depth;
	int tty_nr, tpgid_outer;
	uint64_t starttime;	/* clock ticks since boot of the node */
	unsigned nthreads;
	int exit_signal;
	uint32_t exit_code;
	uint64_t mm[11];	/* start_code end_code start_data end_data start_brk - start_stack arg_start arg_end env_start env_end */
	uint32_t uid[4], gid[4], groups[MAX_GROUPS], ngroups;
	uint64_t cap[5];	/* inh prm eff bnd amb */
	uint32_t umask;
	int no_new_privs, seccomp;
	uint64_t sig_pnd, shd_pnd;
};

/* One process of the pod on the dumping side. */
struct proc {
	pid_t pid, nspid, nsppid;
	pid_t tid;		/* by which /proc shows what its threads share: the leader's, or if that has ended another's */
	struct proc_status st;
	struct task **tasks;	/* leader first, if it lives; owned */
	size_t ntasks;
	bool zombie;
	bool leaderless;	/* its main thread has ended, others run: tasks may be empty when they end, too */
	bool no_thread_fd;	/* the kernel has no pidfd of a thread */
	bool undo;		/* has a list of semaphore operations to undo: semundo.c */
	bool fresh;		/* not in the snapshot that the target has */
	struct vma_list vmas;
	uint64_t scratch;	/* 0: none mapped yet */
	unsigned job_news;	/* jobs.c */
	bool tracked;
	struct tracker tr;
	int pidfd;		/* of tid */
	int memfd, pagemap;
	void *timers;		/* kind posix-timer's; arena of the cut */
	Pm__Proc *msg;		/* arena of the cut */
	uint64_t seen;		/* listing round */
};

struct proc_list {
	struct proc **p;
	size_t n, cap;
	uint64_t round;
};

/** Reads stat and status of /proc/@pid (or of /proc/@pid/task/@tid if @tid). -ESRCH if it is gone. */
int proc_read_status(pid_t pid, pid_t tid, struct proc_status *out, struct err *e);
/** Brings @list up to date with the tree below @pid1 (zombies included); processes that went are removed. */
int proc_list_update(struct proc_list *list, pid_t pid1, struct err *e);
/** Reads p->st anew. */
int proc_refresh(struct proc *p, struct err *e);
/** Brings the threads of @p up to date. Returns how many are new; -ESRCH: there are none. */
int proc_update_threads(struct proc *p, struct err *e);
/** Thread @i of @p has ended. */
void proc_remove_task(struct proc *p, size_t i);
/** Has its leader ended since the last listing, while others run on? It is no thread of @p's any more then. */
bool proc_lost_leader(struct proc *p);
/**
 * Have two tasks a @type of kcmp(2) each of their own? A thread that ends shares nothing for the moment that it can still be seen:
 * it is looked at again, unless all stand @still. False as well if the kernel does not say.
 */
bool proc_differs(pid_t a, pid_t b, int type, bool still);
struct proc *proc_by_outer(const struct proc_list *, pid_t pid);
struct proc *proc_by_ns(const struct proc_list *, pid_t nspid);
void proc_list_done(struct proc_list *);
/** Who is asked what belongs to all threads: the leader, or if that has ended another. */
static inline struct task *proc_first(const struct proc *p)
{
	return p->tasks[0];
}

#endif
