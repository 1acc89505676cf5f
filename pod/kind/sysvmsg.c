/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * System V message queues. They belong to the pod's ipc namespace and need nobody to use them. Their messages are read by MSG_COPY, which
 * takes nothing, and sent again on the target in their order; there the queue has its id by msg_next_id. Limits of the
 * namespace may have been lowered since, and a queue's own below what is in it: they are put out of the way meanwhile.
 * Calls that wait in msgsnd and msgrcv are made again (pod/task/restart.h). The pids of the last sender and receiver read 0
 * after a move, and times are the move's.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/msg.h>
#include <unistd.h>

#include "pod/base/util.h"
#include "pod/kind/ipc.h"
#include "pod/kind/kinds.h"

#define NEXT_ID "/proc/sys/kernel/msg_next_id"
#define WHAT "System V message queue"

struct copy {
	long type;
	uint8_t data[];
};

struct look {
	struct dump *d;
	bool final;
};

/* The messages of the queue as it stands; none of the pod's processes runs. */
static int copy_all(struct dump *d, int id, const struct msqid_ds *ds, Pm__BodyMsgQueue *m, struct err *e)
{
	autofree struct copy *c = malloc(sizeof(*c) + ds->__msg_cbytes);

	if (!c)
		return err_num(e, ENOMEM, WHAT " %d", id);
	m->messages = dump_alloc(d, (ds->msg_qnum + 1) * sizeof(*m->messages));
	while (m->n_messages < ds->msg_qnum) {
		ssize_t n = msgrcv(id, c, ds->__msg_cbytes, (long)m->n_messages, MSG_COPY | IPC_NOWAIT);
		Pm__IpcMsg *msg = dump_alloc(d, sizeof(*msg));

		if (n < 0)
			return err_sys(e, "copy message %zu of the " WHAT " %d", m->n_messages, id);
		pm__ipc_msg__init(msg);
		msg->type = c->type;
		msg->data = kind_bytes(d, c->data, (size_t)n);
		m->messages[m->n_messages++] = msg;
	}
	return 0;
}

static int look_one(void *arg, int id, const char *line, struct err *e)
{
	const struct look *l = arg;
	Pm__BodyMsgQueue *m;
	struct msqid_ds ds;
	char name[64];
	int r;

	(void)line;
	if (access(NEXT_ID, F_OK) < 0)
		return KIND_REFUSE(e, "the pod has a " WHAT ", id %d, and the kernel shows no messages (CONFIG_CHECKPOINT_RESTORE): cannot be carried", id);
	if (!l->final)
		return 0;
	if (msgctl(id, IPC_STAT, &ds) < 0)
		return err_sys(e, "look at the " WHAT " %d", id);
	m = dump_alloc(l->d, sizeof(*m));
	pm__body_msg_queue__init(m);
	m->perm = ipc_perm_out(l->d, id, &ds.msg_perm);
	m->qbytes = ds.msg_qbytes;
	r = copy_all(l->d, id, &ds, m, e);
	if (r < 0)
		return r == -EINVAL ? -EIO : r;
	snprintf(name, sizeof(name), WHAT " %d", id);
	dump_thing(l->d, &kind_sysvmsg, name, &m->base);
	return 0;
}

static int gather(struct dump *d, bool final, struct err *e)
{
	struct look l = { d, final };

	return ipc_each("msg", look_one, &l, e);
}

/* ---- target */

static int get(const void *arg, key_t key, int flags)
{
	(void)arg;
	return msgget(key, flags);
}

static int set(int id, const Pm__BodyMsgQueue *m, uint64_t qbytes, struct err *e)
{
	struct msqid_ds ds = { .msg_perm = ipc_perm_in(m->perm), .msg_qbytes = qbytes };

	return msgctl(id, IPC_SET, &ds) < 0 ? err_sys(e, "set up the " WHAT " %d", id) : 0;
}

static int send_all(int id, const Pm__BodyMsgQueue *m, size_t longest, struct err *e)
{
	autofree struct copy *c = malloc(sizeof(*c) + longest);
	size_t i;

	if (!c)
		return err_num(e, ENOMEM, WHAT " %d", id);
	for (i = 0; i < m->n_messages; i++) {
		c->type = m->messages[i]->type;
		if (m->messages[i]->data.len)
			memcpy(c->data, m->messages[i]->data.data, m->messages[i]->data.len);
		if (msgsnd(id, c, m->messages[i]->data.len, IPC_NOWAIT) < 0)
			return err_sys(e, "message %zu of the " WHAT " %d", i, id);
	}
	return 0;
}

static int make(void *arg, struct err *e)
{
	const Pm__BodyMsgQueue *m = arg;
	struct ipc_limit one = { NULL, 0 }, all = { NULL, 0 };
	uint64_t longest = 0, bytes = 0;
	size_t i;
	int id, q;

	id = ipc_create("msg", WHAT, m->perm, get, NULL, e);
	if (id < 0)
		return id;
	for (i = 0; i < m->n_messages; i++) {
		longest = MAX(longest, (uint64_t)m->messages[i]->data.len);
		bytes += m->messages[i]->data.len;
	}
	bytes = MAX(bytes, (uint64_t)m->n_messages); /* a queue has no more messages than it may have bytes */
	q = ipc_limit_raise(&one, "/proc/sys/kernel/msgmax", longest, e);
	if (q >= 0)
		q = ipc_limit_raise(&all, "/proc/sys/kernel/msgmnb", MAX(bytes, m->qbytes), e);
	if (q >= 0)
		q = set(id, m, MAX(bytes, m->qbytes), e);
	if (q >= 0)
		q = send_all(id, m, longest, e);
	if (q >= 0)
		q = set(id, m, m->qbytes, e);
	ipc_limit_back(&all);
	ipc_limit_back(&one);
	return q;
}

static int restore(struct restore *r, struct robject *o, struct err *e)
{
	const Pm__BodyMsgQueue *m = (const void *)o->body;
	int q = ipc_check(r, WHAT, m->perm, e);

	return q < 0 ? q : restore_in_ipc(r, make, o->body, e);
}

const struct kind kind_sysvmsg = {
	.name = "sysvmsg",
	.type = TYPE_SYSVMSG,
	.version = 1,
	.min_version = 1,
	.scope = KIND_POD,
	.stage = STAGE_POD,
	.schema = &pm__body_msg_queue__descriptor,
	.gather = gather,
	.restore = restore,
};
