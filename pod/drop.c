/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Loss of privilege. It is in a file of its own because podinit, which is static, has it too.
 */
#include <errno.h>
#include <grp.h>
#include <linux/capability.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "control.pb-c.h"
#include "pod/base/util.h"
#include "pod/ns.h"

#define NGROUPS_MAX_POD 1024

static int drop_bounding(struct err *e)
{
	for (int cap = 0; prctl(PR_CAPBSET_READ, cap, 0, 0, 0) >= 0; cap++)
		if (prctl(PR_CAPBSET_DROP, cap, 0, 0, 0) < 0)
			return err_sys(e, "drop capability %d from the bounding set", cap);
	return 0;
}

/* setresuid() clears permitted and effective, but not what an odd parent left inheritable. */
static int drop_sets(struct err *e)
{
	struct __user_cap_header_struct h = { .version = _LINUX_CAPABILITY_VERSION_3 };
	struct __user_cap_data_struct d[2] = { { 0 }, { 0 } };

	if (prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0) < 0)
		return err_sys(e, "clear ambient capabilities");
	if (syscall(SYS_capset, &h, d) < 0)
		return err_sys(e, "capset");
	return 0;
}

int pod_ns_drop(const Pm__PodSpec *spec, struct err *e)
{
	gid_t groups[NGROUPS_MAX_POD];
	size_t n = MIN(spec->n_groups, (size_t)NGROUPS_MAX_POD);
	int r;

	if (!spec->uid)
		return 0;
	for (size_t i = 0; i < n; i++)
		groups[i] = spec->groups[i];
	r = drop_bounding(e);
	if (r < 0)
		return r;
	if (setgroups(n, groups) < 0)
		return err_sys(e, "setgroups");
	if (setresgid(spec->gid, spec->gid, spec->gid) < 0)
		return err_sys(e, "setresgid %u", spec->gid);
	if (setresuid(spec->uid, spec->uid, spec->uid) < 0)
		return err_sys(e, "setresuid %u", spec->uid);
	r = drop_sets(e);
	if (r < 0)
		return r;
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
		return err_sys(e, "no_new_privs");
	return 0;
}
