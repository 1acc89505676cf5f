/* SPDX-License-Identifier: GPL-3.0-or-later */
/* The kinds of scope PROC and THREAD. */
#ifndef POD_KIND_TASK_KINDS_H
#define POD_KIND_TASK_KINDS_H

#include "pod/kind/kind.h"

extern const struct kind kind_sigaction, kind_sigpending_proc, kind_sigpending_thread, kind_altstack, kind_tidaddr,
	kind_robust, kind_rseq, kind_itimer, kind_creds, kind_rlimit, kind_sched, kind_cwd, kind_cwd_late, kind_umask, kind_comm,
	kind_thread_prctl, kind_proc_prctl, kind_attrs, kind_proc_attrs, kind_filelock, kind_posixtimer;

#endif
