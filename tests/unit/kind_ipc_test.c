/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Queues and semaphore sets of an ipc namespace: gathered, made again, and records that say what cannot be. */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <mqueue.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/ipc.h>
#include <sys/msg.h>
#include <sys/sem.h>
#include <unistd.h>

#include "pod/base/util.h"
#include "tests/harness.h"
#include "tests/unit/kind_fake.h"

/* In a namespace that is empty. */
static struct fake *begin(void)
{
	struct fake *f = fake_new();

	if (unshare(CLONE_NEWIPC) < 0)
		T_SKIP("no ipc namespace: %s", strerror(errno));
	if (access("/proc/sys/kernel/msg_next_id", F_OK) < 0)
		T_SKIP("no CONFIG_CHECKPOINT_RESTORE");
	return f;
}

static void fails(struct fake *f, const struct kind *k, const void *body, int code)
{
	struct err e = { 0 };
	int r = fake_make(f, k, body, &e);

	if (r != code)
		T_FAIL("%s: %d (%s) instead of %d", k->name, r, e.msg, code);
}

static void test_mqueue(void)
{
	static const struct { unsigned prio; const char *text; } said[] = { { 1, "one" }, { 30000, "" }, { 1, "two" }, { 0, "last" } };
	static const char *const heard[] = { "", "one", "two", "last" };
	struct mq_attr attr = { .mq_maxmsg = 5, .mq_msgsize = 100 };
	struct fake *f = begin();
	struct err e = { 0 };
	const Pm__BodyMqueue *m;
	char text[100];
	unsigned prio;
	size_t n, i;
	mqd_t q = mq_open("/q", O_CREAT | O_RDWR | O_NONBLOCK, 0600, &attr);

	T_REQUIRE(q >= 0);
	for (i = 0; i < ARRAY_SIZE(said); i++)
		T_CHECK_EQ(mq_send(q, said[i].text, strlen(said[i].text), said[i].prio), 0);
	m = fake_gather(f, &kind_mqueue, 0, &n);
	T_CHECK_EQ(n, 1);
	T_REQUIRE(m && m->n_messages == 4);
	/* the queue is as it was */
	T_CHECK_EQ(mq_getattr(q, &attr), 0);
	T_CHECK_EQ(attr.mq_curmsgs, 4);
	fails(f, &kind_mqueue, m, -EEXIST);
	T_CHECK_EQ(mq_unlink("/q"), 0);
	T_OK(fake_make(f, &kind_mqueue, m, &e), &e);
	for (i = 0; i < 8; i++) {
		mqd_t both[2] = { q, mq_open("/q", O_RDWR | O_NONBLOCK) };
		ssize_t len = mq_receive(both[i / 4], text, sizeof(text), &prio);

		T_CHECK_EQ(len, (ssize_t)strlen(heard[i % 4]));
		T_CHECK(len < 0 || !memcmp(text, heard[i % 4], (size_t)len));
		T_CHECK_EQ(prio, i % 4 == 0 ? 30000 : i % 4 != 3);
		mq_close(both[1]);
	}
	mq_close(q);
	fake_free(f);
}

static void test_mqueue_damaged(void)
{
	struct fake *f = begin();
	Pm__BodyMqueue m = PM__BODY_MQUEUE__INIT;
	Pm__IpcMsg msg = PM__IPC_MSG__INIT, *msgs[] = { &msg, &msg };
	char name[] = "/q", bad[] = "q", deep[] = "/a/b";

	m.name = name;
	m.maxmsg = 1;
	m.msgsize = 4;
	m.messages = msgs;
	m.n_messages = 2;
	fails(f, &kind_mqueue, &m, -EBADMSG);
	m.n_messages = 1;
	msg.type = MQ_PRIO_MAX;
	fails(f, &kind_mqueue, &m, -EBADMSG);
	mq_unlink(name);
	msg.type = 0;
	msg.data.len = 5;
	msg.data.data = (uint8_t *)deep;
	fails(f, &kind_mqueue, &m, -EMSGSIZE);
	mq_unlink(name);
	m.n_messages = 0;
	m.maxmsg = 1ull << 40;
	fails(f, &kind_mqueue, &m, -EBADMSG);
	m.maxmsg = 100000; /* more than the kernel has at all */
	T_CHECK(fake_make(f, &kind_mqueue, &m, NULL) < 0);
	m.maxmsg = 1;
	m.name = bad;
	fails(f, &kind_mqueue, &m, -EBADMSG);
	m.name = deep;
	fails(f, &kind_mqueue, &m, -EACCES);
	m.name = name;
	m.uid = FAKE_ALIEN;
	fails(f, &kind_mqueue, &m, -EPERM);
	T_CHECK(mq_unlink(name) < 0);
	fake_free(f);
}

static void test_sysvmsg(void)
{
	struct { long type; char text[8]; } msg = { 3, "abc" };
	struct fake *f = begin();
	int id, gap = msgget(IPC_PRIVATE, 0600);
	struct err e = { 0 };
	Pm__BodyMsgQueue *m;
	struct msqid_ds ds;
	size_t n;

	id = msgget(0x1234, IPC_CREAT | 0640);
	T_REQUIRE(gap >= 0 && id >= 0);
	T_CHECK_EQ(msgctl(gap, IPC_RMID, NULL), 0);
	T_CHECK_EQ(msgsnd(id, &msg, 3, 0), 0);
	msg.type = 2;
	T_CHECK_EQ(msgsnd(id, &msg, 0, 0), 0);
	m = (Pm__BodyMsgQueue *)(uintptr_t)fake_gather(f, &kind_sysvmsg, 0, &n);
	T_CHECK_EQ(n, 1);
	T_REQUIRE(m && m->n_messages == 2);
	T_CHECK_EQ(msgctl(id, IPC_RMID, NULL), 0);
	T_OK(fake_make(f, &kind_sysvmsg, m, &e), &e);
	T_CHECK_EQ(msgget(0x1234, 0), id);
	T_CHECK_EQ(msgctl(id, IPC_STAT, &ds), 0);
	T_CHECK_EQ(ds.msg_qnum, 2);
	T_CHECK_EQ(ds.msg_perm.mode, 0640);
	T_CHECK_EQ(msgrcv(id, &msg, 8, 0, IPC_NOWAIT), 3);
	T_CHECK_EQ(msg.type, 3);
	fails(f, &kind_sysvmsg, m, -EEXIST);
	msgctl(id, IPC_RMID, NULL);
	m->messages[0]->type = 0;
	fails(f, &kind_sysvmsg, m, -EINVAL);
	msgctl(id, IPC_RMID, NULL);
	m->perm->cuid = FAKE_ALIEN;
	fails(f, &kind_sysvmsg, m, -EPERM);
	m->perm->id = 0x80000000;
	fails(f, &kind_sysvmsg, m, -EBADMSG);
	m->perm = NULL;
	fails(f, &kind_sysvmsg, m, -EBADMSG);
	fake_free(f);
}

static void test_sysvsem(void)
{
	struct sembuf up[] = { { 0, 5, 0 }, { 2, 32767, 0 } };
	struct fake *f = begin();
	int id = semget(0x1234, 3, IPC_CREAT | 0600), fresh = semget(IPC_PRIVATE, 1, 0600);
	struct err e = { 0 };
	Pm__BodySemSet *m, *u;
	size_t n;

	T_REQUIRE(id >= 0 && fresh >= 0);
	T_CHECK_EQ(semop(id, up, 2), 0);
	m = (Pm__BodySemSet *)(uintptr_t)fake_gather(f, &kind_sysvsem, 0, &n);
	T_CHECK_EQ(n, 2);
	T_REQUIRE(m && m->n_values == 3 && m->n_pids == 3);
	T_CHECK(m->used);
	T_CHECK_EQ(m->pids[0], getpid());
	u = (Pm__BodySemSet *)(uintptr_t)fake_gather(f, &kind_sysvsem, 1, &n);
	T_CHECK(u && !u->used);
	T_CHECK_EQ(semctl(id, 0, IPC_RMID), 0);
	T_OK(fake_make(f, &kind_sysvsem, m, &e), &e);
	T_CHECK_EQ(semget(0x1234, 3, 0), id);
	T_CHECK_EQ(semctl(id, 0, GETVAL), 5);
	T_CHECK_EQ(semctl(id, 1, GETVAL), 0);
	T_CHECK_EQ(semctl(id, 2, GETVAL), 32767);
	semctl(id, 0, IPC_RMID);
	m->values[1] = 32768;
	fails(f, &kind_sysvsem, m, -EBADMSG);
	m->values[1] = 0;
	m->n_pids = 2;
	fails(f, &kind_sysvsem, m, -EBADMSG);
	m->n_pids = m->n_values = 0;
	fails(f, &kind_sysvsem, m, -EBADMSG);
	m->perm->cuid = FAKE_ALIEN;
	fails(f, &kind_sysvsem, m, -EPERM);
	fake_free(f);
}

static const struct test_case cases[] = {
	{ "mqueue", test_mqueue },
	{ "mqueue_damaged", test_mqueue_damaged },
	{ "sysvmsg", test_sysvmsg },
	{ "sysvsem", test_sysvsem },
};
const struct test_suite kind_ipc_suite = { "kind_ipc", cases, ARRAY_SIZE(cases) };
