/* SPDX-License-Identifier: GPL-3.0-or-later */
/* System V shared memory of a pod. Theory of operation: sysv.c. */
#ifndef POD_SYSV_H
#define POD_SYSV_H

#include "pod/dump.h"
#include "pod/restore.h"

/** In the place of a device number, where segments are told by their ids. */
#define SYSV_DEV UINT64_MAX
#ifndef SHM_DEST
#define SHM_DEST 01000
#define SHM_LOCKED 02000
#endif

/** Runs @fn in the ipc namespace of @pid. Its result. */
int sysv_visit(pid_t pid, int (*fn)(void *arg, struct err *e), void *arg, struct err *e);
/** The file behind a segment, in whose namespace this is called. An fd. */
int sysv_open_segment(int id, uint64_t size, int flags, struct err *e);
/** Brings the segments among d->contents up to date. */
int sysv_collect(struct dump *, struct err *);
/** May mapping @i be carried? The error says what it is. */
int sysv_check_vma(struct dump *, const struct vma_list *, size_t i, struct err *);
/** Makes a segment; an fd to its bytes. */
int sysv_make(struct restore *, const Pm__BodyMem *, struct err *);
int sysv_remove(struct restore *, const Pm__BodyMem *, struct err *);
/** When all have attached it. */
int sysv_finish(struct restore *, struct rcontent *, struct err *);
/** Marked for destruction since it was made: its key is free at once, and it stays until sysv_finish(). */
int sysv_gone(struct restore *, struct rcontent *, struct err *);

#endif
