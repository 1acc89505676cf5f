/* SPDX-License-Identifier: GPL-3.0-or-later */
/* What processes undo of System V semaphores when they end. Theory of operation: semundo.c. */
#ifndef POD_SEMUNDO_H
#define POD_SEMUNDO_H

#include "pod/dump.h"
#include "pod/restore.h"

/** In the pod's ipc namespace: who has a list of such values (proc.undo); refuses what cannot be made again. */
int semundo_look(struct dump *, bool still, struct err *);
/** In the freeze, after collect_ipc(): the values of process @p, whose scratch is there, into @m. */
int semundo_take(struct dump *, struct proc *p, Pm__Proc *m, struct err *);
/** When all sets and all skeletons are there, and before these take their credentials: gives the values, and says again who
 * changed each semaphore last. */
int semundo_apply(struct restore *, struct err *);

#endif
