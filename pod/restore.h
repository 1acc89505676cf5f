/* SPDX-License-Identifier: GPL-3.0-or-later */
/* The restoring side: what its files share. Theory of operation: restore.c. */
#ifndef POD_RESTORE_H
#define POD_RESTORE_H

#include <pthread.h>
#include <sys/resource.h>

#include "control.pb-c.h"
#include "image.pb-c.h"
#include "netfreeze/netfreeze.h"
#include "pod/image/image.h"
#include "pod/image/stream.h"
#include "pod/kind/kind.h"
#include "pod/mem/mem.h"
#include "pod/ns.h"

#define MAX_NOTES 64

/* A stretch of a skeleton's address space as it is now. */
struct seg {
	uint64_t start, end;
	uint32_t prot, type, object, flags;
	bool shared, fresh;
	uint64_t pgoff;
	uint32_t family; /* rfamily.c */
};

struct segs {
	struct seg *s;
	size_t n, cap;
};

struct rproc {
	pid_t pid, nspid;	/* outer, the pod's */
	pid_t sid, pgid, parent; /* as they are now */
	int exit_signal;
	uint64_t starttime;
	struct task **tasks;	/* leader first, unless it has ended as it shall; owned */
	size_t ntasks;
	struct segs have;
	uint32_t last_family;
	int memfd, pagemap;
	const Pm__Proc *want;	/* of the tree that is being applied; NULL: to go */
	struct runs drops;	/* to be dropped by a call inside */
	bool zombie;		/* has been made one */
};

/* Bytes that travelled: see struct content of the dump. */
struct rcontent {
	uint32_t id;
	int fd;			/* read-write; owned */
	Pm__BodyMem *body;
	void *held;		/* a System V segment, attached here until all others have it */
};

struct rmapfile {
	uint32_t id;
	int fd;
};

struct parked {
	uint16_t type;
	uint64_t key;
	int fd;
};

#define RLIMITS 16

/* What a fresh pod of this node has, and no user's pod may have more of. */
struct bounds {
	int nice;
	int32_t oom_adj;
	uint32_t core_filter;
	uint64_t hard[RLIMITS];
};

struct restore {
	int ctl;
	struct stream s;
	const Pm__EngineRestore *req;
	struct pod_place place;
	struct pod_ns ns;
	bool made;		/* namespaces exist */
	int netns, mntns;
	uint64_t scratch, vdso_syscall;
	struct batch *b;
	struct rproc **procs;
	size_t nprocs;
	Pm__Tree *tree;		/* last one received; owned */
	Pm__Objects *objs;	/* owned */
	Pm__Tmpfs *tmpfs, *old_tmpfs; /* the last one and the one before; owned */
	struct robject *objects; /* final: of kinds */
	size_t nobjects;
	struct rcontent *contents;
	size_t ncontents;
	struct rmapfile *mapfiles;
	size_t nmapfiles;
	struct parked *parked;
	size_t nparked;
	struct in_pod *in_pod;	/* the thread inside */
	uint32_t temp_pid;
	uint64_t slack;		/* timer slack of skeletons */
	bool final, frozen;
	struct wake *wake;
	uint8_t **held;		/* frames, u32 length in front */
	size_t nheld, held_bytes;
	int exit_code;
	const char *phase;
	struct bounds bounds;
	struct image_chain im;	/* of a restart */
	struct pod_clock clock;	/* the pod's, as they shall be */
	char *notes[MAX_NOTES];	/* what is not as it was; owned */
	size_t nnotes;
	const char *hint;	/* what the user can do; NULL: nothing */
	struct tail *tails;	/* cut off files, to be given back if the pod does not come to run; owned */
	size_t ntails;
	int tails_fd;		/* their bytes; -1 */
	uint64_t tails_len;
	uint64_t told_ns;	/* when progress was told */
};

/* restore_image.c */
/** Opens the image that the order names, as its user, and lets the stream begin in it. */
int image_source(struct restore *, struct err *);
/** page_sink.same: pages that are stored elsewhere in the image, or in one that it builds on. */
int image_same(void *arg, uint32_t id, uint64_t addr, uint64_t npages, uint64_t at, struct err *e);
void image_source_done(struct restore *);
/** Objects are there: has anybody written to the pod's files since the cut? */
int image_check_files(struct restore *, struct err *);
/** The last step before READY: what was appended since goes. */
int image_cut_back(struct restore *, struct err *);
/** The pod has not run, nor will: the files get it back. */
void image_uncut(struct restore *);

/* rcheck.c */
/** Can processes be so? -EBADMSG if not; nothing else relies on anything else. */
int rcheck_tree(const Pm__Tree *, struct err *);
/** Reads the bounds off the calling process, before it has changed itself. */
int rcheck_bounds(struct bounds *, struct err *);
/** -EPERM if a process of a user's pod has what that user could not have given it. */
int rcheck_policy(const Pm__PodSpec *, const struct bounds *, const Pm__Tree *, struct err *);

/* rtree.c: processes and threads */
/** Starts the table of skeletons with pid 1, stopped. */
int rtree_begin(struct restore *, struct err *);
/** Makes the skeletons what r->tree says: missing ones made, others ended. @zombies: those too. */
int rtree_apply(struct restore *, struct err *);
int rtree_zombies(struct restore *, struct err *);
/** Parents, sessions and groups are as the tree wants them. */
int rtree_verify(struct restore *, struct err *);
struct rproc *rproc_by_ns(struct restore *, pid_t nspid);
struct task *rproc_task(const struct rproc *, pid_t nstid);
void rtree_done(struct restore *);

/* rmem.c: mappings, pages */
/** munmaps everything but the scratch in a skeleton that is a copy of another. */
int rmem_strip(struct restore *, struct rproc *, struct err *);
int rmem_apply(struct restore *, struct err *);
extern const struct page_sink rmem_sink; /* its arg is set by the caller's copy */
int rmem_frame(void *arg, uint32_t id, uint64_t addr, uint64_t len, int kind, const void *data, struct err *e);
/** Compares what came with the digests that were sent along, if there were any. */
int rmem_verify(struct restore *, struct err *);
int rmem_flush_drops(struct restore *, struct err *);
/** PR_SET_MM_MAP: after all pages are in place. */
int rmem_finish(struct restore *, struct rproc *, struct err *);

/** The stretch that has @addr, or NULL. */
const struct seg *seg_at(const struct segs *, uint64_t addr);

/* jobs.c, the target's half */
/** Stops who shall be; after all that ends has ended, before pending signals are given. */
int jobs_stop(struct restore *, struct err *);

/* seccomp.c, the target's half */
/** Installs the filters of all threads, suspended until the tracer lets go; before the credentials. */
int seccomp_give(struct restore *, struct rproc *, struct err *);
/** The ptrace options of a skeleton's threads, once it has been given filters. */
long seccomp_options(const Pm__Proc *);

/* advice.c, the target's half */
/** Guard pages, after all pages. */
int advice_guards(struct restore *, const Pm__CutEnd *, struct err *);
/** What follows the last change of a process's memory. */
int advice_finish(struct restore *, struct rproc *, struct err *);

/* rtmpfs.c: contents, tmpfs trees */
/** Can the pod's user make what belongs to @uid and @gid? */
bool rtmpfs_may_be(const Pm__PodSpec *, uint32_t uid, uint32_t gid);
/** -EPERM if not. */
int rtmpfs_owner(const Pm__PodSpec *, uint32_t uid, uint32_t gid, const char *name, struct err *);
int robj_contents(struct restore *, struct err *);
struct rcontent *robj_content(struct restore *, uint32_t id);
int robj_tmpfs(struct restore *, struct err *);
/** Times of the tmpfs nodes, after their bytes. */
int robj_tmpfs_times(struct restore *, struct err *);
/** Seals of memfds, after their bytes. */
int robj_seal(struct restore *, struct err *);

/* robj.c: mapped files, objects, fds */
int robj_mapfiles(struct restore *, struct err *);
int robj_restore(struct restore *, struct err *);
int robj_place(struct restore *, struct rproc *, struct err *);
int robj_fd_of(struct restore *, uint32_t id); /* of a content or mapped file; -1 */
/** Sends @n fds to the skeletons' socket; the next recvmsg inside takes them. */
int robj_send(struct restore *, const int *fds, size_t n, struct err *);
/** Adds the recvmsg of @n fds to the batch: they become the lowest free ones. Its entry. */
unsigned robj_recv_call(struct batch *b, int sock, size_t n);
/** A pipe's or FIFO's ends are the pod's alone from here on: somebody may wait for the last one, or in open(2) for the first. */
void robj_leave_ends(struct restore *);
void robj_done(struct restore *);

/* rtask.c */
/** Everything that can be given before the source has let go of its file locks: those are shared then. */
int rtask_give(struct restore *, struct err *);
/** The rest of it; afterwards nothing of ours is in them. */
int rtask_finish(struct restore *, struct err *);
/** Lets go of all: the cgroup is frozen. */
int rtask_release(struct restore *, struct err *);
/** All skeletons run before ordinary tasks until rtask_finish() comes to them. */
void rtask_quick(struct restore *r);

/* rheld.c */
/** Takes the record that has begun to come: 1 a held frame, 0 the end of them. Anything else ends the stream, but
 * -ECANCELED says too that the source has given up, which it may before it is READY. */
int held_take(struct restore *, struct record *);
/** Keeps a copy for START; what is too much is dropped, the peers will send again. */
int held_keep(struct restore *, const struct record *);

/* restore.c */
/** Before READY: undoes what can be undone, tells why and ends the engine. */
_Noreturn void restore_give_up(struct restore *, const struct err *);

/* restore_api.c */
/** The thread that works inside the pod; restore_in_pod() starts it if it is not there. */
int in_pod_start(struct restore *r, struct err *e);
void in_pod_stop(struct restore *);

/* rneeds.c */
/** Takes out of an image's list what was in use when it was begun and was not at the cut. */
int rneeds_of_cut(const struct image *, Pm__Needs *, struct err *);
/** @out, initialized by the caller, is to be given to rneeds_done() in any case. */
int rneeds_check(struct restore *, const Pm__Needs *, Pm__Missing *out, struct err *);
void rneeds_done(Pm__Missing *);

#endif
