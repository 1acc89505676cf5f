/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Kernel facts that the carrying of queues and semaphores relies on (pod/semundo.c, pod/kind/sysvmsg.c, mqueue.c). */
#include <errno.h>
#include <fcntl.h>
#include <linux/kcmp.h>
#include <mqueue.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/ipc.h>
#include <sys/msg.h>
#include <sys/sem.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "pod/base/util.h"
#include "tests/harness.h"

#ifndef MSG_COPY
#define MSG_COPY 040000
#endif

static void own_namespace(void)
{
	if (geteuid() || unshare(CLONE_NEWIPC) < 0)
		T_SKIP("needs root, for an ipc namespace");
}

/* An array that asks for @undo more than there is, and cannot succeed. */
static int ask(int id, int value, int undo)
{
	struct sembuf s[] = { { 0, (short)(32767 - value), IPC_NOWAIT }, { 0, (short)-undo, IPC_NOWAIT | SEM_UNDO },
			      { 0, -32768, IPC_NOWAIT } };

	return semop(id, s, 3) < 0 ? errno : 0;
}

/* The number of the fact that does not hold. */
static int in_child(int id)
{
	struct sembuf take = { 0, -3, SEM_UNDO };
	pid_t self = getpid(), parent = getppid();

	/* a forked process has no list, and the first use makes one */
	if (syscall(SYS_kcmp, self, parent, KCMP_SYSVSEM, 0, 0) != 0)
		return 1;
	if (semop(id, &take, 1) < 0 || syscall(SYS_kcmp, self, parent, KCMP_SYSVSEM, 0, 0) <= 0)
		return 2;
	/* it undoes 3: 32764 more are within the range, 32765 are not */
	if (ask(id, 7, 32764) != EAGAIN || ask(id, 7, 32765) != ERANGE)
		return 3;
	/* and nothing is done */
	return ask(id, 7, 32764) != EAGAIN || semctl(id, 0, GETVAL) != 7 ? 4 : 0;
}

/* The range of undo is asked for, and asking changes nothing. */
static void test_undo(void)
{
	int id, status = -1;
	pid_t pid;

	own_namespace();
	id = semget(IPC_PRIVATE, 1, 0600);
	T_REQUIRE(id >= 0 && semctl(id, 0, SETVAL, 10) == 0);
	/* a task that has entered a namespace has no list either */
	T_REQUIRE(unshare(CLONE_SYSVSEM) == 0);
	pid = fork();
	if (!pid)
		_exit(in_child(id));
	T_CHECK_EQ(waitpid(pid, &status, 0), pid);
	T_CHECK_EQ(WEXITSTATUS(status), 0);
	T_CHECK(WIFEXITED(status));
	T_CHECK_EQ(semctl(id, 0, GETVAL), 10);
	semctl(id, 0, IPC_RMID);
}

/* Messages are looked at by their number, and stay. */
static void test_msg_copy(void)
{
	struct { long type; char text[4]; } m = { 4, "a" };
	struct msqid_ds ds;
	int id;

	own_namespace();
	id = msgget(IPC_PRIVATE, 0600);
	T_REQUIRE(id >= 0);
	T_CHECK_EQ(msgsnd(id, &m, 1, 0), 0);
	m.type = 5;
	T_CHECK_EQ(msgsnd(id, &m, 2, 0), 0);
	T_CHECK_EQ(msgrcv(id, &m, 4, 1, MSG_COPY | IPC_NOWAIT), 2);
	T_CHECK_EQ(m.type, 5);
	T_CHECK_EQ(msgrcv(id, &m, 4, 0, MSG_COPY | IPC_NOWAIT), 1);
	T_CHECK_EQ(m.type, 4);
	T_CHECK_EQ(msgctl(id, IPC_STAT, &ds), 0);
	T_CHECK_EQ(ds.msg_qnum, 2);
	T_CHECK_EQ(ds.msg_lrpid, 0);
	msgctl(id, IPC_RMID, NULL);
}

/* A queue without a name is opened once more by the link of an fd; its file tells the bytes in it. */
static void test_mqueue_again(void)
{
	struct mq_attr a = { .mq_maxmsg = 2, .mq_msgsize = 8 };
	char path[48], text[128] = "", c[8];
	mqd_t q, again;

	own_namespace();
	q = mq_open("/facts", O_CREAT | O_RDONLY, 0600, &a);
	T_REQUIRE(q >= 0 && mq_unlink("/facts") == 0);
	snprintf(path, sizeof(path), "/proc/self/fd/%d", q);
	again = open(path, O_RDWR | O_NONBLOCK | O_CLOEXEC);
	T_REQUIRE(again >= 0);
	T_CHECK_EQ(mq_send(again, "abc", 3, 1), 0);
	T_CHECK(pread(again, text, sizeof(text) - 1, 0) > 0);
	T_CHECK(!strncmp(text, "QSIZE:3 ", 8));
	T_CHECK_EQ(mq_receive(q, c, sizeof(c), NULL), 3);
	close(again);
	mq_close(q);
}

static const struct test_case cases[] = {
	{ "undo", test_undo },
	{ "msg_copy", test_msg_copy },
	{ "mqueue_again", test_mqueue_again },
};
const struct test_suite ipc_facts_suite = { "ipc_facts", cases, ARRAY_SIZE(cases) };
