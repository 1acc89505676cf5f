/* SPDX-License-Identifier: GPL-3.0-or-later */
/* The dumping side of a migration: what its files share. Theory of operation: dump.c. */
#ifndef POD_DUMP_H
#define POD_DUMP_H

#include "control.pb-c.h"
#include "image.pb-c.h"
#include "netfreeze/netfreeze.h"
#include "pod/image/image.h"
#include "pod/image/stream.h"
#include "pod/kind/kind.h"
#include "pod/mem/pack.h"
#include "pod/proc.h"

/* Bytes that travel: a memfd, shared anonymous memory, an unlinked file, a file of a private tmpfs. */
struct content {
	uint32_t id;
	uint64_t dev, ino;
	enum content_source source;
	int fd; /* readable; owned */
	char *name; /* arena */
	uint64_t size;
	struct timespec mtime, ctime; /* when its pages were read */
	uint64_t read_at;	/* CLOCK_REALTIME ns of that */
	bool mapped;		/* a process maps it shared: times say nothing */
	uint64_t *hash;		/* XXH3 per page as last sent; 0 = zero page or never */
	size_t nhash;
	uint32_t mode, uid, gid, seals;
	int key;		/* of a System V segment, whose id is its inode number */
	uint32_t cuid, cgid;
	bool seen;
};

/* A file that is mapped and has a path. */
struct mapfile {
	uint32_t id;
	uint64_t dev, ino;
	char *path;
	bool rw;
	struct stat st;
	pid_t nspid;	/* who maps it, for messages */
	char *comm;
};

#define MAX_REFUSED 512

struct fdref {
	pid_t nspid;
	int fdno;
	bool cloexec;
	struct object *o;
};

/* A lock by fcntl(2) or flock(2), and who can let go of it. */
struct filelock {
	pid_t nspid;
	struct object *o;
	Pm__FileLock *msg; /* arena */
};

struct watcher {
	pid_t nspid;
	int fdno;
};

struct watched {
	pid_t nspid;
	char *path; /* arena */
	struct stat st;
};

/* Of a kind of scope POD. */
struct thing {
	const struct kind *kind;
	Pm__Object *msg;
	ProtobufCMessage *body;	/* all arena */
};

struct arena_block;

struct throttle {
	pid_t pid; /* of the helper; 0: none */
	int fd;
	unsigned level;
};

struct dump {
	int ctl;
	struct stream s;
	const Pm__EngineDump *req;
	struct image_file out;	/* of a checkpoint */
	struct image_user owner;
	struct image_chain base; /* what it builds on */
	int gone;		/* the last barrier that all pods of the job have passed */
	bool disowned;		/* the other pods' images are not known to be there: it does not count yet */
	bool unsure;		/* whether they are, nobody is left to say */
	struct dedup *dedup;
	struct page_known known;
	struct page_pack pack;
	bool live;
	bool forced;		/* live, but the freeze takes what is left, however much that is */
	struct throttle throttle;
	pid_t pid1;
	struct proc_list procs;
	struct arena_block *arena;
	struct batch *b;
	uint64_t scratch;	/* the same address in every process */
	uint64_t vdso_syscall;	/* offset of a syscall instruction in the vdso */
	int root, netns, mntns;
	uint64_t private_dev[4];
	unsigned nprivate;
	uint32_t next_id;
	struct object **objects;
	size_t nobjects;
	struct fdref *fds;
	size_t nfds;
	struct watcher *watchers; /* inotify instances */
	struct watched *watched; /* and the files of theirs that do not travel */
	size_t nwatchers, nwatched;
	struct filelock *locks;
	size_t nlocks;
	bool locks_down;	/* the pod's processes may have let go of some */
	struct thing *things;
	size_t nthings;
	struct content **contents;
	size_t ncontents;
	struct mapfile **mapfiles;
	size_t nmapfiles;
	Pm__Guard **guards;	/* guard pages */
	size_t nguards;
	struct filter *filter;
	struct page_stream *pages; /* of the cut */
	struct hold *hold;
	bool stopped, blocked, frozen, undone;
	bool touched;		/* a task was stopped, if only for a moment */
	/* figures */
	uint64_t start_ns, stop_ns, ready_ns, started_ns;
	uint64_t mono_ns, boot_ns; /* the pod's last clock readings */
	uint32_t rounds;
	uint64_t mem_bytes, page_bytes; /* of the pod, roughly; of the frames so far */
	uint64_t told_ns, told_bytes;	/* when progress was told, and of how much */
	uint64_t next_ns, paced_ns;	/* --bandwidth: when the next frame may go; how long it was slept for that so far */
	uint64_t end;			/* deadline of the rounds, by --timeout */
	double percent;
	Pm__Phase phase[16];
	unsigned nphase;
	const char *phase_name;
	uint64_t phase_ns;
	int exit_code;		/* for EngineFailed */
	bool noting;		/* what is refused is noted, and the check goes on */
	char *refused[MAX_REFUSED + 1]; /* arena */
	size_t nrefused, unlisted;
	char hint[160];		/* what the user can do about it */
};

/** Is the mapping, of a process of the pod, ours? */
static inline bool dump_in_scratch(uint64_t scratch, const struct vma *v)
{
	return scratch && v->start >= scratch && v->end <= scratch + SCRATCH_LEN;
}

/* collect.c: while it runs */
int collect_check(struct dump *, struct err *);
/** A refusal (-EOPNOTSUPP in @r) during the check becomes a line of d->refused and 0; all else stays as it is. */
int collect_note(struct dump *, int r, const struct err *);
/** What the target must have. needs.c */
int collect_needs(struct dump *, Pm__Needs *needs, struct err *);
/** Is that a file which has gone (@absent: which the target has not), or changed, since it was listed? */
bool need_is_past(struct dump *, const Pm__FileNeed *, bool absent);
/** Reads every fd of every process into d->objects and d->fds (replacing what was there). @final: in the freeze. */
int collect_fds(struct dump *, bool final, struct err *);
/** throttle.c: slows the pod down, or further down; false: that cannot be, or is as far as it goes. */
bool throttle_more(struct dump *);
/** It goes on at its own speed. */
void throttle_end(struct dump *);
int collect_add_object(struct dump *, const struct probe *, const struct kind *, struct object **out, struct err *);
/** Adds what is in the objects' queues. inside.c */
int collect_inside(struct dump *, bool final, struct err *);
/** pos, flags and mount of an fd, out of its info. */
void probe_parse_info(struct probe *);
/** When all tasks are stopped: refuses what the check would, and a memory that two processes share. */
int collect_recheck(struct dump *, struct err *);
/** Notes who still waits for a vfork child after @ms. */
int collect_waiting(struct dump *, unsigned ms, struct err *);
int collect_maps(struct dump *, bool flags, struct err *);
/** Gives mappings their objects (files, contents). */
int collect_map_objects(struct dump *, struct err *);
/** Shared mappings of files on shared file systems are written back. */
int collect_sync_files(struct dump *, struct err *);
uint32_t collect_vma_object(struct dump *, const struct vma *);
/** What lives in the pod's ipc namespace: refusals, and if @final d->things. */
int collect_ipc(struct dump *, bool final, struct err *);
void collect_drop_objects(struct dump *, bool undo);

/* content.c */
int content_add(struct dump *, int fd, enum content_source, const char *name, uint32_t *id, struct err *);
/** The same under a key of the caller's in the place of device and inode number. */
int content_add_as(struct dump *, int fd, enum content_source, const char *name, uint64_t dev, uint64_t ino, struct content **out,
		   struct err *);
struct content *content_by_inode(struct dump *, uint64_t dev, uint64_t ino);
/** Walks the private tmpfs trees: nodes for the stream, contents for their files. */
int content_tmpfs(struct dump *, Pm__Tmpfs *out, struct err *);
/** Sends what changed in all contents since the last call. */
int content_send(struct dump *, bool final, struct err *);
int content_messages(struct dump *, Pm__Object ***out, size_t *n, struct err *);
void content_free(struct content *);

/* stop.c */
int cut_stop(struct dump *, uint64_t deadline, struct err *);
/** Seizes and interrupts every task of the process that is not held yet. Returns how many. */
int stop_interrupt(struct proc *, struct err *);
/** Waits until they stand still. 1: they are to be looked at again, for some have ended. */
int stop_wait(struct dump *, struct proc *, uint64_t deadline, struct err *);
int cut_refuse_vfork(const struct proc *, const struct proc *child, struct err *);

/* cut.c: state */
/** Before cut_stop(): what each task waits for. */
void cut_sample(struct dump *);
void cut_read_notes(struct dump *);
/** While the pod runs: lets go of tasks whose stop came after it was waited for. */
void cut_let_go(struct dump *);
/** Stops a running process for a moment, maps the scratch in it and takes a userfaultfd out of it. */
int cut_attach(struct dump *, struct proc *, struct err *);
int cut_tasks(struct dump *, Pm__Tree *tree, struct err *);
/** Puts every task's own registers back and lets go of it. */
int cut_release(struct dump *, struct err *);
/** After a failed or aborted dump: scratches unmapped, trackers closed, tasks going on. */
void cut_undo(struct dump *);
/** The tree without the tasks' state, for the landing zone. */
int cut_snapshot(struct dump *, Pm__Tree *tree, struct err *);

/* watchers.c */
int dump_add_watcher(struct dump *, const struct probe *, struct err *);
int dump_add_watched(struct dump *, const struct probe *, const char *path, const struct stat *, struct err *);
/** Has one of them events that were not read? 1 and whose. */
int watchers_unread(struct dump *, const struct watcher **who);
bool watcher_unread(const struct dump *, const struct watcher *);

/* jobs.c, the source's half */
enum { JOB_STOPPED = 1, JOB_CONTINUED };
/** All stand still and have scratches: stops that have begun come to their end. */
int jobs_settle(struct dump *, struct err *);
/** What the parents of who was stopped, or goes on, have not heard of: p->job_news. */
int jobs_take(struct dump *, struct err *);

/* advice.c, the source's half */
/** In the freeze: memory policies of the mappings that @mm lists. */
int advice_policies(struct dump *, struct proc *, Pm__Mm *mm, struct err *);
/** Notes guard pages, for the end of the cut. */
int advice_add_guards(struct dump *, const struct proc *, const struct runs *guards, struct err *);

/* seccomp.c, the source's half */
#define SECCOMP_MAX_FILTERS 1024 /* of one thread; the kernel allows 32768 instructions in all, and 4 more for each */
int seccomp_check(const struct proc *, struct err *);
/** In the freeze: modes and filters of all threads; the filters go into @tree. */
int seccomp_take(struct dump *, struct proc *, Pm__Tree *tree, Pm__Proc *m, struct err *);

/* locks.c */
/** Has the process locks by this fd of a file that others than the pod see? */
bool locks_outside(struct dump *, const struct probe *);
/** Notes the locks that the process holds by this fd, in d->locks. */
int locks_note(struct dump *, const struct probe *, struct object *, struct err *);
/** The three steps of the source, when all else is sent: 1 if there are locks to hand over; let go; an end to it. */
int locks_share(struct dump *, struct err *);
int locks_drop(struct dump *, struct err *);
/** Before a thaw: who let go of locks stands still until it has them back. */
void locks_hold(struct dump *);
void locks_take_back(struct dump *);
/** Adds the call: @type F_RDLCK, F_WRLCK or F_UNLCK. */
unsigned locks_call(struct batch *, const Pm__FileLock *, int type, bool wait);

/* hostfacts.c */
int host_facts(Pm__HostFacts *out, void *(*alloc)(void *, size_t), void *arg, struct err *);
#define HOST_LINES 4
/** Words on what the other host lacks to run what runs here: how many lines; 0: nothing. */
size_t host_compare(const Pm__HostFacts *source, const Pm__HostFacts *target, char why[HOST_LINES][200]);
/** Offsets of the time namespace of @pid against the initial one: monotonic, boot; ns. */
int host_timens_offsets(pid_t pid, int64_t out[2], struct err *);
int host_vdso(const uint8_t **image, size_t *len, struct err *);

/* buildid.c */
#define BUILD_ID_MAX 64
/** The GNU build-id of an ELF file; 0: it is none or has none. */
size_t elf_build_id(int fd, uint8_t out[BUILD_ID_MAX]);

/** How page streams learn which pages the image has already, and tell that they go on. dump_image.c */
const struct page_known *dump_known(struct dump *);

/* dump.c */
/** Frees all that dump_alloc() gave. */
void dump_arena_done(struct dump *);
void dump_phase(struct dump *, const char *name);
/** The pod goes on as if nothing had happened; d->started_ns says since when. May be called again. */
void dump_undo(struct dump *);

#endif
