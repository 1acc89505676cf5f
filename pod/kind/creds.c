/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Credentials: ids, groups, capability sets, securebits, no_new_privs. They are per thread in the
 * kernel; threads that differ are refused by the check. Given last but for what a change of
 * credentials resets (dumpable, pdeathsig).
 *
 * Order on restore: with NO_SETUID_FIXUP and KEEP_CAPS no id change takes capabilities away, so that
 * the bounding set, securebits and the final sets can follow while CAP_SETPCAP is still there.
 */
#include <errno.h>
#include <linux/capability.h>
#include <linux/securebits.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

#include "pod/dump.h"
#include "pod/kind/task_kinds.h"
#include "pod/restore.h"

#define LAST_CAP 40u

static int ask(struct dump *d, struct task *t, struct batch *b, uint64_t *cookie, struct err *e)
{
	(void)d;
	(void)t;
	(void)e;
	*cookie = batch_add1(b, SYS_prctl, PR_GET_SECUREBITS);
	return 0;
}

static int take(struct dump *d, struct task *t, struct batch *b, uint64_t cookie, Pm__Proc *m, Pm__Thread *th,
		struct err *e)
{
	struct proc *p = proc_by_ns(&d->procs, t->nstgid);
	uint32_t *ids[8] = { &m->uid, &m->euid, &m->suid, &m->fsuid, &m->gid, &m->egid, &m->sgid, &m->fsgid };
	const struct proc_status *s;
	int i;

	(void)th;
	if (!p)
		return err_set(e, ESRCH, "no such process");
	if (t != p->tasks[0])
		return 0;
	s = &p->st;
	for (i = 0; i < 4; i++) {
		*ids[i] = s->uid[i];
		*ids[i + 4] = s->gid[i];
	}
	m->n_groups = s->ngroups;
	m->groups = dump_alloc(d, s->ngroups * sizeof(uint32_t));
	memcpy(m->groups, s->groups, s->ngroups * sizeof(uint32_t));
	m->cap_inh = s->cap[0];
	m->cap_prm = s->cap[1];
	m->cap_eff = s->cap[2];
	m->cap_bnd = s->cap[3];
	m->cap_amb = s->cap[4];
	m->no_new_privs = s->no_new_privs;
	m->securebits = (uint32_t)b->e[cookie].ret;
	return 0;
}

static void give_caps(const Pm__Proc *m, struct batch *b)
{
	struct __user_cap_header_struct h = { _LINUX_CAPABILITY_VERSION_3, 0 };
	struct __user_cap_data_struct c[2];
	unsigned i;

	for (i = 0; i <= LAST_CAP; i++)
		if (!(m->cap_bnd >> i & 1))
			batch_add2(b, SYS_prctl, PR_CAPBSET_DROP, i);
	/* the inheritable set first, or ambient could not be raised; securebits need CAP_SETPCAP still */
	batch_add2(b, SYS_prctl, PR_SET_SECUREBITS, m->securebits);
	c[0] = (struct __user_cap_data_struct){ (uint32_t)m->cap_eff, (uint32_t)m->cap_prm, (uint32_t)m->cap_inh };
	c[1] = (struct __user_cap_data_struct){ (uint32_t)(m->cap_eff >> 32), (uint32_t)(m->cap_prm >> 32),
						(uint32_t)(m->cap_inh >> 32) };
	batch_add2(b, SYS_capset, batch_data(b, &h, sizeof(h)), batch_data(b, c, sizeof(c)));
	for (i = 0; i <= LAST_CAP; i++)
		if (m->cap_amb >> i & 1)
			batch_add3(b, SYS_prctl, PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, i);
}

static bool is_own_group(const Pm__PodSpec *spec, uint32_t gid)
{
	size_t i;

	for (i = 0; i < spec->n_groups; i++)
		if (spec->groups[i] == gid)
			return true;
	return gid == spec->gid;
}

/* An image says nothing about privilege: in a user's pod nobody is anybody else, or can become it. */
static int check_policy(const Pm__PodSpec *spec, const Pm__Proc *m, struct err *e)
{
	const uint32_t uids[] = { m->uid, m->euid, m->suid, m->fsuid }, gids[] = { m->gid, m->egid, m->sgid, m->fsgid };
	size_t i;
	bool ok = !m->cap_inh && !m->cap_prm && !m->cap_eff && !m->cap_bnd && !m->cap_amb && m->no_new_privs;

	if (!spec->uid)
		return 0;
	for (i = 0; i < 4; i++)
		ok = ok && uids[i] == spec->uid && is_own_group(spec, gids[i]);
	for (i = 0; i < m->n_groups; i++)
		ok = ok && is_own_group(spec, m->groups[i]);
	return ok ? 0 : err_set(e, EPERM, "pid %u has credentials that user '%s' does not have", m->pid, spec->user);
}

static int give(struct restore *r, const Pm__Proc *m, const Pm__Thread *th, struct batch *b, struct err *e)
{
	uint32_t keep = SECBIT_NO_SETUID_FIXUP | SECBIT_KEEP_CAPS;
	int q = check_policy(r->req->spec, m, e);

	(void)th;
	if (q < 0)
		return q;
	if (m->n_groups > MAX_GROUPS)
		return err_set(e, EBADMSG, "%zu supplementary groups", m->n_groups);
	batch_add2(b, SYS_prctl, PR_SET_SECUREBITS, keep);
	batch_add2(b, SYS_setgroups, m->n_groups, batch_data(b, m->groups, m->n_groups * sizeof(uint32_t)));
	batch_add3(b, SYS_setresgid, m->gid, m->egid, m->sgid);
	batch_add3(b, SYS_setresuid, m->uid, m->euid, m->suid);
	if (m->fsgid != m->egid)
		batch_add1(b, SYS_setfsgid, m->fsgid);
	if (m->fsuid != m->euid)
		batch_add1(b, SYS_setfsuid, m->fsuid);
	give_caps(m, b);
	if (m->no_new_privs)
		batch_add(b, SYS_prctl, PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0, 0);
	return 0;
}

const struct kind kind_creds = { .name = "creds", .type = 109, .version = 1, .min_version = 1,
				 .scope = KIND_THREAD, .ask = ask, .take = take, .give = give };
