/* SPDX-License-Identifier: GPL-3.0-or-later */
/* What the kinds of scope POD share: things in an ipc namespace that are found by key or name and have owners and a mode. */
#ifndef POD_KIND_IPC_H
#define POD_KIND_IPC_H

#include <sys/ipc.h>

#include "pod/kind/kind.h"

/** Takes effective ids for this thread alone, and back with 0, 0. Negative errno. */
int ipc_become(uint32_t uid, uint32_t gid);
/**
 * Calls @fn with the rest of each line of /proc/sysvipc/@file, its key and its id read. What was removed meanwhile
 * (-EINVAL, -EIDRM) does not matter while the pod runs.
 */
int ipc_each(const char *file, int (*fn)(void *arg, int id, const char *line, struct err *e), void *arg, struct err *e);
/** From struct ipc_perm of a library call. @a dump's. */
Pm__IpcPerm *ipc_perm_out(struct dump *, int id, const struct ipc_perm *);
/** The other way, for IPC_SET. */
struct ipc_perm ipc_perm_in(const Pm__IpcPerm *);
/** May such a thing be in the pod? */
int ipc_check(struct restore *, const char *what, const Pm__IpcPerm *, struct err *e);
/**
 * Makes a System V object as its creator, under its id: @get as msgget(2) with what else it needs in @arg.
 * @file: "msg", "sem" or "shm", whose next id is set; @what: for messages.
 */
int ipc_create(const char *file, const char *what, const Pm__IpcPerm *, int (*get)(const void *arg, key_t key, int flags),
	       const void *arg, struct err *e);

/* A limit of the ipc namespace that what is made may be above: some were made before it was lowered. */
struct ipc_limit {
	const char *path; /* NULL: as it was */
	uint64_t old;
};
int ipc_limit_raise(struct ipc_limit *, const char *path, uint64_t need, struct err *e);
void ipc_limit_back(struct ipc_limit *);

#endif
