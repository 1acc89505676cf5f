/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Kinds: one per kernel resource. kinds.c has THE table.
 *
 * Two scopes. A kind of scope FD owns open file descriptions: match() says "mine", check() refuses
 * while the program runs, dump() fills the body in the freeze, restore() makes the description anew
 * in the target's engine, place() adds what must be done inside the task when its fds are all in
 * place. A kind of scope TASK owns a property of each process or thread: ask() adds syscalls to the
 * batch that is run in the task, take() reads their results into the message; give() adds the calls
 * that put it back. A kind of scope POD owns things of the pod's ipc namespace, which need nobody to have them open:
 * gather() looks and, in the freeze, gives a body for each; restore() and finish() are as for FD, but no fd need come of them.
 *
 * No kind calls another; order comes from the stage, references go by object id.
 */
#ifndef POD_KIND_KIND_H
#define POD_KIND_KIND_H

#include <linux/limits.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <time.h>

#include "image.pb-c.h"
#include "pod/base/err.h"
#include "pod/task/task.h"

struct dump;	/* pod/dump.h */
struct restore; /* pod/restore.h */

#define KIND_NODES 64 /* of NUMA, that a memory policy can name */

enum kind_scope { KIND_FD, KIND_PROC, KIND_THREAD, KIND_POD };

/* Stages of FD kinds on restore: lower first. */
enum kind_stage { STAGE_POD = 5, STAGE_PLAIN = 10, STAGE_SOCKET = 20, STAGE_TTY = 30, STAGE_LAST = 90 };

/* What is known about one fd of one process, while it runs or in the freeze. */
struct probe {
	pid_t pid;		/* in the engine's pid namespace */
	pid_t nspid;		/* in the pod's */
	int fdno;
	int fd;			/* the engine's duplicate (pidfd_getfd): same open file description */
	bool fd_is_path;	/* while it runs: no duplicate, but O_PATH of the file */
	struct stat st;		/* of fd */
	const char *link;	/* readlink of /proc/PID/fd/N */
	const char *info;	/* text of /proc/PID/fdinfo/N */
	int64_t pos;
	uint32_t flags;		/* O_*; O_CLOEXEC included as fdinfo shows it */
	uint32_t mnt_id;
};

/* One open file description of the pod on the dumping side. */
struct object {
	uint32_t id;
	const struct kind *kind;
	struct probe p;		/* of its first holder; fd owned by the dump */
	Pm__Object *msg;	/* arena */
	void *priv;		/* the kind's, for undo(); arena or none */
};

/* The same on the restoring side. */
struct robject {
	const Pm__Object *msg;
	const struct kind *kind;
	ProtobufCMessage *body;	/* unpacked by the kind's schema */
	int fd;			/* the engine's; owned; -1: not made yet */
	bool sigio;		/* its owner for signals is set */
	bool filled;		/* of the unix kinds: what was in its queue is there */
	bool cut_back;		/* a file of a restart that has grown since the cut */
	size_t placed;		/* for place() that returns 1; 0 at the first call for a process's fd */
};

struct kind {
	const char *name;
	uint16_t type, version, min_version;
	enum kind_scope scope;
	unsigned stage;
	const ProtobufCMessageDescriptor *schema; /* FD: of the body */
	/* ---- FD */
	bool loose; /* a description can be carried that no process has, only the queue of a socket */
	bool (*match)(const struct probe *);
	/** May it be carried? Called while the program runs; must not disturb it. NULL: always. */
	int (*check)(struct dump *, const struct probe *, struct err *);
	/** Calls dump_found() for each description that is in this one (sent and not received). @still: in the freeze; else what can be
	 * seen of a running program without disturbing it. */
	int (*inside)(struct dump *, struct object *, bool still, struct err *);
	/** In the freeze: *@body from the dump's arena (dump_alloc). */
	int (*dump)(struct dump *, struct object *, ProtobufCMessage **body, struct err *);
	void (*undo)(struct dump *, struct object *);
	/** Makes the description: o->fd. Flags and position are set by the caller afterwards (fcntl F_SETFL, lseek). */
	int (*restore)(struct restore *, struct robject *o, struct err *);
	/** After all objects exist (second pass), e.g. data into queues, leaving repair mode. */
	int (*finish)(struct restore *, struct robject *o, struct err *);
	/** After the commit, when the filter is down and the link attached, before held frames are replayed. The
	 * pod must be whole without it: an engine that died after READY never calls it. */
	int (*release)(struct restore *, struct robject *o, struct err *);
	/** Called for every fd of every process. Calls to make inside process @pid, where the description is fd @fdno, after all its fds are in place.
	 * 1: the batch is full, run it and call again. */
	int (*place)(struct restore *, struct robject *o, const Pm__Proc *proc, int fdno, struct batch *b, struct err *);
	/* ---- PROC, THREAD: @t is the process's leader for PROC; @proc / @th the message to fill or read */
	int (*ask)(struct dump *, struct task *t, struct batch *b, uint64_t *cookie, struct err *);
	int (*take)(struct dump *, struct task *t, struct batch *b, uint64_t cookie, Pm__Proc *proc, Pm__Thread *th, struct err *);
	int (*give)(struct restore *, const Pm__Proc *proc, const Pm__Thread *th, struct batch *b, struct err *);
	/* ---- POD: runs in the pod's ipc namespace. While the pod runs it refuses; @final, in the freeze: dump_thing() for each. */
	int (*gather)(struct dump *, bool final, struct err *);
};

/** THE table, ended by a kind without a name. POD_KINDS_WITHOUT=a,b takes kinds out (tests of the tests). */
const struct kind *const *kinds_all(size_t *n);
const struct kind *kind_of_type(uint16_t type);
/** The FD kind that takes this probe, or NULL. */
const struct kind *kind_match(const struct probe *);

/* ---- what kinds may ask of the dump (pod/dump_api.c) */
/** Zeroed memory that lives as long as the dump. */
void *dump_alloc(struct dump *, size_t len);
char *dump_strdup(struct dump *, const char *s);
/** Object whose inode (st_ino) and device match and whose kind is @kind; @skip: not this one. NULL: none. */
struct object *dump_find_inode(struct dump *, const struct kind *kind, uint64_t dev, uint64_t ino, const struct object *skip);
/** The object that process @nspid has at @fdno (by the fd tables of the freeze), or NULL. */
struct object *dump_find_fd(struct dump *, pid_t nspid, int fdno);
/** Iterates over the holders of @o (by the fd tables of the freeze): *@i starts at 0. False at the end. */
bool dump_next_holder(struct dump *, const struct object *o, size_t *i, pid_t *nspid, int *fdno);
/** Iterates over all objects: *@i starts at 0. NULL at the end. */
struct object *dump_next_object(struct dump *, size_t *i);
/** For inside(): the engine's @fd, borrowed, is of a description in @carrier. */
int dump_found(struct dump *, const struct object *carrier, int fd, struct err *);
/** Id of the object whose description the engine's @fd is; 0: none. */
uint32_t dump_object_id(struct dump *, int fd);
/** fds the engine holds on the pod's namespaces. */
int dump_netns(struct dump *);
int dump_pod_root(struct dump *); /* O_PATH of the pod's root directory */
/** Is @dev one of the pod's private tmpfs instances? */
bool dump_is_private_tmpfs(struct dump *, uint64_t dev);
/** Has a process that is not the pod's this inode open? 1 and which, or 0. Looks at all of the node's: 1-2 us per fd. */
int dump_held_outside(struct dump *, const struct stat *, pid_t *pid, struct err *);
/** Registers content (unlinked file, memfd) to be carried as pages of a memory object; returns the content id (same inode: same id). */
int dump_add_content(struct dump *, const struct probe *, uint32_t *id, struct err *);
/** A thing of scope POD, carried as @body (arena); @link: what messages call it. */
void dump_thing(struct dump *, const struct kind *, const char *link, ProtobufCMessage *body);
/**
 * Runs @fn in a process of its own while the freezer holds the pod, so that it comes to its end, and the pod sees nothing of it, even if
 * the engine dies. Should that process die instead, @fn is run once more, here: it goes on where it was. pod/still.c
 */
int dump_while_frozen(struct dump *, int (*fn)(void *arg), void *arg, struct err *);
/** The pod's number of the process that is @pid to the engine; 0: none of the pod's. */
pid_t dump_nspid(struct dump *, pid_t pid);

/* ---- what kinds may ask of the restore (pod/restore_api.c) */
/** Is the peer at this address (network byte order) gone? At a restart all outside the pod are. */
bool restore_peer_gone(struct restore *, uint32_t addr);
/** Is the pod a user's, not root's? */
bool restore_of_user(struct restore *);
/** Calls @fn with this thread being the pod's user: for what remembers who made it, or what the kernel may let only root have. */
int restore_as_owner(struct restore *, int (*fn)(void *arg, struct err *e), void *arg, struct err *e);
/** A line that tells the user what is not as it was. */
void restore_note(struct restore *, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
int restore_netns(struct restore *);
/** open(2)/other calls inside the pod's mount namespace: runs @fn in a thread that is in the pod's mnt and net namespaces, fs root =
 * the pod's root, with the pod user's fs credentials if @as_user. */
int restore_in_pod(struct restore *, bool as_user, int (*fn)(void *arg, struct err *e), void *arg, struct err *);
/** The same in the pod's ipc namespace, as root. */
int restore_in_ipc(struct restore *, int (*fn)(void *arg, struct err *e), void *arg, struct err *);
/** -EPERM if what belongs to this user and group cannot be of a pod of this one's user. */
int restore_check_owner(struct restore *, uint32_t uid, uint32_t gid, const char *name, struct err *);
/** openat in the pod's root. */
int restore_open(struct restore *, const char *path, int flags, mode_t mode, struct err *);
/** The other description made with the same key (a pipe's inode, a socket's inode): fds parked by one object's restore for another.
 * park: the restore owns fd. unpark: takes it, or -1. */
int restore_park(struct restore *, uint16_t type, uint64_t key, int fd, struct err *);
int restore_unpark(struct restore *, uint16_t type, uint64_t key);
struct robject *restore_next_object(struct restore *, size_t *i);
struct robject *restore_object(struct restore *, uint32_t id);
/** The pod's CLOCK_MONOTONIC now. */
int restore_pod_clock(struct restore *, struct timespec *out, struct err *);
/** fd (borrowed) of the content object @id: a memfd or an O_TMPFILE file that already holds the bytes. */
int restore_content(struct restore *, uint32_t id, struct err *);
/** socketpair(2) of unix sockets of @type made inside process @nspid under these ids, for SO_PEERCRED. -ESRCH: no such process. */
int restore_socketpair(struct restore *, int type, pid_t nspid, uid_t uid, gid_t gid, int sv[2], struct err *);
/** May something in the pod claim to be of these ids? */
bool restore_may_be(struct restore *, uid_t uid, gid_t gid);
/** The engine's number of the pod's process @nspid; 0: there is none. */
pid_t restore_host_pid(struct restore *, pid_t nspid);
/** Remembers that a process's session needs this terminal etc. is done through place(). */

#endif
