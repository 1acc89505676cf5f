/* SPDX-License-Identifier: GPL-3.0-or-later */
/* What ns.c, mounts.c and cgroup.c share; nobody else includes it. */
#ifndef POD_NS_INT_H
#define POD_NS_INT_H

#include "control.pb-c.h"
#include "pod/base/err.h"

#define POD_DEV_NODES 6
#define POD_BINDS_MAX 64

/** Mount trees that were cloned on the node, before the pod's mount namespace exists. */
struct pod_mounts {
	int root;
	int dev[POD_DEV_NODES];
	int bind[POD_BINDS_MAX];
	size_t nbind;
};

/** The fs uid, gid and groups of the pod's user, so that a path is opened with the user's rights. */
int pod_as_user(const Pm__PodSpec *spec, struct err *e);
/** Back to root's. */
int pod_as_root(struct err *e);

/** Clones root, device nodes and bind sources; the user's paths with the user's credentials. */
int pod_mounts_open(const Pm__PodSpec *spec, struct pod_mounts *m, struct err *e);
/** In pid 1, in its new mount namespace: makes the pod's view. @aside: a directory of the node. */
int pod_mounts_enter(const Pm__PodSpec *spec, const struct pod_mounts *m, const char *aside,
		     struct err *e);

/** Makes the cgroup with the limits of @spec; -EBUSY when something lives in it. Returns an fd. */
int pod_cgroup_make(const char *path, const Pm__PodSpec *spec, struct err *e);
/** Kills what is in it, waits until it is empty, removes it. Success if there is none. */
int pod_cgroup_remove(const char *path, uint64_t deadline, struct err *e);
/** Binds the caller to the CPUs of @list ("0-3,5"). */
int pod_cpus_set(const char *list, struct err *e);

#endif
