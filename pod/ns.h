/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * A pod's room on a node: its namespaces, mounts, cgroup, and the veth pair (by netfreeze/link.h).
 * The same code makes it for a new pod (pid 1 = podinit) and for one that arrives (pid 1 = the
 * skeleton of the podinit that is on its way).
 */
#ifndef POD_NS_H
#define POD_NS_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "pod/base/err.h"

struct Pm__PodSpec;

/** Where a pod lives on this node; strings are borrowed for the duration of the call. */
struct pod_place {
	const char *dir;       /* a directory of its own under the agent's state, e.g. for logs */
	const char *cgroup;    /* absolute path of its cgroup v2 directory; created if missing */
	const char *host_link; /* name of the veth's end on the node, <= 15 characters */
};

/* In ->dir: what the pod's command has printed; a byte's offset is that in the stream. */
#define POD_LOG_OUT "out.log"
#define POD_LOG_ERR "err.log"

/**
 * Offsets of the pod's clocks. Readings, not offsets: "the pod's CLOCK_MONOTONIC shall read
 * mono_ns (CLOCK_BOOTTIME boot_ns) when this node's CLOCK_MONOTONIC (of the caller's own time
 * namespace) reads at_ns". set = false: the pod starts with the caller's clocks.
 */
struct pod_clock {
	bool set;
	uint64_t at_ns, at_boot_ns; /* the caller's CLOCK_MONOTONIC / CLOCK_BOOTTIME */
	uint64_t mono_ns, boot_ns;  /* the pod's at that moment */
};

struct pod_ns {
	pid_t pid;  /* pid 1 of the pod, in the caller's pid namespace; -1: none */
	int pidfd;  /* of it; -1: none. Owned. */
	int sock;   /* engine's end of a SOCK_STREAM socketpair whose other end is POD_NS_CHILD_FD in pid 1; owned */
};

/** The fd number of the child's end of pod_ns.sock inside pid 1 while @entry runs. */
#define POD_NS_CHILD_FD 1000

/**
 * Makes the namespaces (pid, net, ipc, uts, mnt, cgroup, time), puts pid 1 into the cgroup, sets up
 * the pod's mounts (root or --root with the user's credentials, binds likewise; private /proc,
 * /sys read-only, /tmp, /run, /dev with its own shm, mqueue-less, devpts newinstance), host name
 * and loopback, makes the veth pair if the spec has an ip (eth0 in the pod with address and MAC,
 * down on the host side and on no bridge), then calls @entry(@arg) in pid 1, which must not
 * return. pid 1 has then: full root capabilities (each later process drops them by the pod's
 * policy), fds 0-2 = /dev/null, POD_NS_CHILD_FD, nothing else; rseq unregistered; all signals
 * default and unblocked.
 *
 * The caller must be single-threaded. On failure nothing is left. Deadline: @deadline (io.h).
 */
int pod_ns_create(const struct Pm__PodSpec *spec, const struct pod_place *place,
		  const struct pod_clock *clock, int (*entry)(void *arg), void *arg,
		  uint64_t deadline, struct pod_ns *out, struct err *e);

/** Kills pid 1 and with it all, waits for the cgroup to be empty, removes it and the veth. Idempotent. */
int pod_ns_destroy(const struct pod_place *place, uint64_t deadline, struct err *e);
void pod_ns_done(struct pod_ns *);

/** Policy for a process of the pod that is about to run user code (pid 1 itself is podinit and stays
 * root inside). A non-root user's: setgroups, setgid, setuid, empty bounding set, no_new_privs. */
int pod_ns_drop(const struct Pm__PodSpec *spec, struct err *e);

/** cgroup.freeze = 1 and wait until frozen; = 0 without a wait. */
int pod_cgroup_freeze(const char *cgroup, uint64_t deadline, struct err *e);
int pod_cgroup_thaw(const char *cgroup, struct err *e);
/** The cgroup v2 mount point of this node (found in /proc/self/mountinfo) into @path[PATH_MAX]. */
int pod_cgroup_root(char *path, size_t len, struct err *e);

/** Who works on a frozen pod and outlives its engine has this lock, in the pod's directory on its node: pod/still.c, agent/undo.c. An
 * fd; -ETIMEDOUT. */
int still_lock(const char *dir, uint64_t deadline, struct err *e);

#endif
