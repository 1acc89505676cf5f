/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * System V message queues: receivers and senders that wait, by type, by the lowest type, without a message or without room; messages
 * of all lengths that stay for long, in their order; ids with gaps, keys, owners, modes and limits; a queue that holds more than it
 * may by now; one that is removed while somebody waits for a message of it.
 */
#include "wl.h"

#include <pthread.h>
#include <sys/ipc.h>
#include <sys/msg.h>

#define KEY 0x57a12000
#define BIG 8192
#define STAY 40
#define SMALL 200 /* bytes that the narrow queue may hold */

struct message {
	long type;
	char data[BIG];
};
static int talk, stay, narrow, full;
static struct msqid_ds made;

static int make(int key, int mode)
{
	return (int)WL_SYS(msgget(key, IPC_CREAT | IPC_EXCL | mode));
}

static struct msqid_ds stat_of(int id)
{
	struct msqid_ds ds;

	WL_SYS(msgctl(id, IPC_STAT, &ds));
	return ds;
}

static void say(int id, long type, uint64_t n)
{
	struct { long type; uint64_t n; } m = { type, n };

	WL_SYS(msgsnd(id, &m, sizeof(m.n), 0));
}

static uint64_t hear(int id, long type, long *got)
{
	struct { long type; uint64_t n; } m;

	WL_EQ("length", sizeof(m.n), WL_SYS(msgrcv(id, &m, sizeof(m.n), type, 0)));
	if (got)
		*got = m.type;
	return m.n;
}

/* Answers a question of type 1 or 2, whichever is lower, by type 10 and what it was. */
static int answerer(void *arg)
{
	(void)arg;
	for (;;) {
		long type;
		uint64_t n = hear(talk, -2, &type);

		if (!n)
			return 21;
		say(talk, 10 + type, n);
		if (n % 4 == 0)
			wl_pace();
	}
}

/* Waits for room most of the time. */
static int producer(void *arg)
{
	uint64_t n;

	(void)arg;
	for (n = 1;; n++) {
		struct message m = { .type = (long)n };
		size_t len = n % (SMALL / 2);

		wl_fill(m.data, len, 12, n * 16);
		WL_SYS(msgsnd(narrow, &m, len, 0));
		if (stat_of(full).msg_perm.mode & 0100) /* how it is told to end */
			return 22;
	}
}

static void consume(uint64_t *n)
{
	struct message m;
	size_t len = ++*n % (SMALL / 2);

	WL_EQ("length from the narrow queue", len, WL_SYS(msgrcv(narrow, &m, BIG, 0, 0)));
	WL_EQ("number from the narrow queue", *n, m.type);
	wl_verify("from the narrow queue", m.data, len, 12, *n * 16);
}

static size_t length(uint64_t i)
{
	return i == 3 ? 0 : i == 5 ? BIG : (i * 977) % 300;
}

static void put(uint64_t i)
{
	struct message m = { .type = (long)(i % 3) + 1 };
	size_t len = length(i % STAY);

	wl_fill(m.data, len, 7, i * 8);
	WL_SYS(msgsnd(stay, &m, len, IPC_NOWAIT));
}

/* The oldest goes and comes again as the newest. */
static void rotate(uint64_t i)
{
	struct message m;

	WL_EQ("length of the oldest message", length(i % STAY), WL_SYS(msgrcv(stay, &m, BIG, 0, IPC_NOWAIT)));
	WL_EQ("type of the oldest message", (long)(i % 3) + 1, m.type);
	wl_verify("the oldest message", m.data, length(i % STAY), 7, i * 8);
	put(i + STAY);
}

static void check_queues(void)
{
	struct msqid_ds ds = stat_of(stay);

	WL_EQ("id by key", stay, msgget(KEY + 1, 0));
	WL_EQ("messages", STAY, ds.msg_qnum);
	WL_EQ("mode", 0640, ds.msg_perm.mode);
	WL_EQ("uid", 1234, ds.msg_perm.uid);
	WL_EQ("gid", 4321, ds.msg_perm.gid);
	WL_EQ("cuid", made.msg_perm.cuid, ds.msg_perm.cuid);
	WL_EQ("limit", made.msg_qbytes, ds.msg_qbytes);
	ds = stat_of(full);
	WL_EQ("limit below what is in it", 10, ds.msg_qbytes);
	WL_EQ("bytes above the limit", 60, ds.__msg_cbytes);
	WL_CHECK(msgsnd(full, &(struct message){ 1, "" }, 1, IPC_NOWAIT) < 0 && errno == EAGAIN, "a full queue takes more");
	WL_EQ("limit of the narrow queue", SMALL, stat_of(narrow).msg_qbytes);
}

static void *waiter(void *arg)
{
	struct message m;

	/* the other one: it did not wait yet, or not again */
	WL_CHECK(msgrcv(*(int *)arg, &m, BIG, 0, 0) < 0 && (errno == EIDRM || errno == EINVAL),
		 "wait for a removed queue: expected EIDRM, got %s", strerror(errno));
	return NULL;
}

static void removed(void)
{
	int id = make(KEY + 4, 0600);
	pthread_t t;

	WL_ZERO(pthread_create(&t, NULL, waiter, &id));
	wl_pace();
	wl_pace();
	WL_SYS(msgctl(id, IPC_RMID, NULL));
	WL_ZERO(pthread_join(t, NULL));
}

static void setup(void)
{
	struct message m = { .type = 5 };
	int gap = make(IPC_PRIVATE, 0600);
	struct msqid_ds ds;
	uint64_t i;

	talk = make(KEY, 0600);
	stay = make(KEY + 1, 0600);
	narrow = make(KEY + 2, 0666);
	full = make(IPC_PRIVATE, 0600);
	WL_SYS(msgctl(gap, IPC_RMID, NULL));
	ds = stat_of(stay);
	ds.msg_perm.uid = 1234;
	ds.msg_perm.gid = 4321;
	ds.msg_perm.mode = 0640;
	ds.msg_qbytes -= 77;
	WL_SYS(msgctl(stay, IPC_SET, &ds));
	made = stat_of(stay);
	ds = stat_of(narrow);
	ds.msg_qbytes = SMALL;
	WL_SYS(msgctl(narrow, IPC_SET, &ds));
	WL_SYS(msgsnd(full, &m, 60, 0));
	ds = stat_of(full);
	ds.msg_qbytes = 10;
	WL_SYS(msgctl(full, IPC_SET, &ds));
	for (i = 0; i < STAY; i++)
		put(i);
}

int main(void)
{
	uint64_t n = 0, got = 0, i = 0;
	struct message m;
	struct msqid_ds ds;
	siginfo_t info = { .si_pid = 0 };
	pid_t a, p;

	wl_init();
	setup();
	a = wl_spawn(answerer, NULL);
	p = wl_spawn(producer, NULL);
	wl_ready();
	while (!wl_stopping()) {
		long type = 1 + (long)(++n % 2);

		say(talk, type, n);
		WL_EQ("answer", n, hear(talk, 10 + type, NULL));
		rotate(i++);
		if (n % 3 == 0)
			wl_pace();
		consume(&got);
		check_queues();
		if (n % 16 == 0)
			removed();
	}
	say(talk, 1, 0);
	wl_reap(a, 21);
	ds = stat_of(full);
	ds.msg_perm.mode |= 0100;
	WL_SYS(msgctl(full, IPC_SET, &ds));
	do /* room for one more */
		msgrcv(narrow, &m, BIG, 0, IPC_NOWAIT);
	while (waitid(P_PID, (id_t)p, &info, WEXITED | WNOWAIT | WNOHANG) == 0 && !info.si_pid);
	wl_reap(p, 22);
	for (n = 0; n < STAY; n++)
		rotate(i++);
	wl_ok();
}
