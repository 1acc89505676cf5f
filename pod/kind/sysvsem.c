/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * System V semaphore sets: values, the pid that changed each last, and whether any was changed ever (a set whose time of the last
 * semop is 0 has not got its first values yet, for programs that go by that). What processes undo at their end belongs to
 * them: pod/semundo.c, which also says the pids again. Calls that wait in semop are made again (pod/task/restart.h);
 * times are the move's.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sem.h>
#include <unistd.h>

#include "pod/base/util.h"
#include "pod/kind/ipc.h"
#include "pod/kind/kinds.h"

#define NEXT_ID "/proc/sys/kernel/sem_next_id"
#define WHAT "System V semaphore set"
#define MAX_SEMS 65535u
#define MAX_VALUE 32767u

union semun {
	int val;
	struct semid_ds *buf;
	unsigned short *array;
};

struct look {
	struct dump *d;
	bool final;
};

static int read_set(struct dump *d, int id, Pm__BodySemSet *m, struct err *e)
{
	struct semid_ds ds;
	autofree unsigned short *val = NULL;
	size_t i;

	if (semctl(id, 0, IPC_STAT, (union semun){ .buf = &ds }) < 0)
		return err_sys(e, "look at the " WHAT " %d", id);
	val = calloc(ds.sem_nsems + 1, sizeof(*val));
	if (!val)
		return err_num(e, ENOMEM, WHAT " %d", id);
	if (semctl(id, 0, GETALL, (union semun){ .array = val }) < 0)
		return err_sys(e, "read the " WHAT " %d", id);
	m->perm = ipc_perm_out(d, id, &ds.sem_perm);
	m->used = ds.sem_otime != 0;
	m->values = dump_alloc(d, ds.sem_nsems * sizeof(*m->values));
	m->pids = dump_alloc(d, ds.sem_nsems * sizeof(*m->pids));
	m->n_values = m->n_pids = ds.sem_nsems;
	for (i = 0; i < ds.sem_nsems; i++) {
		m->values[i] = val[i];
		m->pids[i] = (uint32_t)dump_nspid(d, semctl(id, (int)i, GETPID));
	}
	return 0;
}

static int look_one(void *arg, int id, const char *line, struct err *e)
{
	const struct look *l = arg;
	Pm__BodySemSet *m;
	char name[64];
	int r;

	(void)line;
	if (access(NEXT_ID, F_OK) < 0)
		return KIND_REFUSE(e, "the pod has a " WHAT ", id %d, and the kernel gives out no ids (CONFIG_CHECKPOINT_RESTORE): cannot be carried", id);
	if (!l->final)
		return 0;
	m = dump_alloc(l->d, sizeof(*m));
	pm__body_sem_set__init(m);
	r = read_set(l->d, id, m, e);
	if (r < 0)
		return r;
	snprintf(name, sizeof(name), WHAT " %d", id);
	dump_thing(l->d, &kind_sysvsem, name, &m->base);
	return 0;
}

static int gather(struct dump *d, bool final, struct err *e)
{
	struct look l = { d, final };

	return ipc_each("sem", look_one, &l, e);
}

/* ---- target */

static int get(const void *arg, key_t key, int flags)
{
	const Pm__BodySemSet *m = arg;

	return semget(key, (int)m->n_values, flags);
}

/* Changes nothing, but is a semop. */
static int touch(int id, unsigned value, struct err *e)
{
	struct sembuf s[2] = { { 0, 1, IPC_NOWAIT }, { 0, -1, IPC_NOWAIT } };

	if (value == MAX_VALUE)
		s[0].sem_op = -1, s[1].sem_op = 1;
	return semop(id, s, 2) < 0 ? err_sys(e, "use the " WHAT " %d", id) : 0;
}

static int make(void *arg, struct err *e)
{
	const Pm__BodySemSet *m = arg;
	autofree unsigned short *val = NULL;
	struct semid_ds ds;
	size_t i;
	int id;

	if (!m->n_values || m->n_values > MAX_SEMS || m->n_pids != m->n_values)
		return KIND_DAMAGED(e, "a set of %zu semaphores", m->n_values);
	val = calloc(m->n_values, sizeof(*val));
	if (!val)
		return err_num(e, ENOMEM, WHAT);
	for (i = 0; i < m->n_values; i++) {
		if (m->values[i] > MAX_VALUE)
			return KIND_DAMAGED(e, "a semaphore's value is %u", m->values[i]);
		val[i] = (unsigned short)m->values[i];
	}
	id = ipc_create("sem", WHAT, m->perm, get, m, e);
	if (id < 0)
		return id;
	ds.sem_perm = ipc_perm_in(m->perm);
	if (semctl(id, 0, SETALL, (union semun){ .array = val }) < 0 || semctl(id, 0, IPC_SET, (union semun){ .buf = &ds }) < 0)
		return err_sys(e, "set up the " WHAT " %d", id);
	return m->used ? touch(id, m->values[0], e) : 0;
}

static int restore(struct restore *r, struct robject *o, struct err *e)
{
	const Pm__BodySemSet *m = (const void *)o->body;
	int q = ipc_check(r, WHAT, m->perm, e);

	return q < 0 ? q : restore_in_ipc(r, make, o->body, e);
}

const struct kind kind_sysvsem = {
	.name = "sysvsem",
	.type = TYPE_SYSVSEM,
	.version = 1,
	.min_version = 1,
	.scope = KIND_POD,
	.stage = STAGE_POD,
	.schema = &pm__body_sem_set__descriptor,
	.gather = gather,
	.restore = restore,
};
