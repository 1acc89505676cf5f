/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Registrations for messages of POSIX queues. Theory of operation: mqnotify.c. */
#ifndef POD_MQNOTIFY_H
#define POD_MQNOTIFY_H

#include "pod/dump.h"
#include "pod/restore.h"

/** In the freeze, after collect_ipc(): what process @p has registered for, into @m; its scratch is there. */
int mqnotify_take(struct dump *, struct proc *p, Pm__Proc *m, struct err *);
/** When its files are in place. */
int mqnotify_give(struct restore *, struct rproc *p, struct err *);

#endif
