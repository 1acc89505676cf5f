/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * POSIX message queues: receivers and senders that wait, with and without an end; messages of all lengths and priorities that stay, in
 * their order; several descriptions of a queue, inherited and dup'ed, with modes and flags of their own; queues that have lost
 * their name, one of which another queue has by now; one that nobody has open.
 */
#include "wl.h"

#include <limits.h>
#include <mqueue.h>
#include <poll.h>

#define BIG 8192
#define STAY 10

struct board {
	_Atomic int stop;
};
static struct board *board;
static mqd_t told, silent, ask, answer, stay, narrow, lost, lost_dup, lost_ro, same_old, same_new;
static const unsigned prios[STAY] = { 5, 0, MQ_PRIO_MAX - 1, 5, 0, 31, 5, 0, 7, 31 };

static mqd_t make(const char *name, int flags, long maxmsg, long msgsize)
{
	struct mq_attr a = { .mq_maxmsg = maxmsg, .mq_msgsize = msgsize };
	mqd_t q = (mqd_t)WL_SYS(mq_open(name, O_RDWR | O_CREAT | O_EXCL | flags, 0640, &a));

	WL_SYS(fchmod(q, 0640));
	return q;
}

static void say(mqd_t q, uint64_t n, unsigned prio)
{
	WL_SYS(mq_send(q, (const char *)&n, sizeof(n), prio));
}

static uint64_t hear(mqd_t q)
{
	struct timespec end;
	uint64_t n[2];

	WL_SYS(clock_gettime(CLOCK_REALTIME, &end));
	end.tv_sec += 600;
	WL_EQ("length", sizeof(n[0]), WL_SYS(mq_timedreceive(q, (char *)n, sizeof(n), NULL, &end)));
	return n[0];
}

static int answerer(void *arg)
{
	uint64_t n;

	(void)arg;
	for (;;) {
		WL_EQ("length", sizeof(n), WL_SYS(mq_receive(ask, (char *)&n, sizeof(n), NULL)));
		if (!n)
			return 51;
		if (n % 4 == 0)
			wl_pace();
		say(answer, n, n % 3);
		/* the description that it has inherited */
		WL_EQ("flags of what is shared", O_NONBLOCK, ({ struct mq_attr a; WL_SYS(mq_getattr(lost_ro, &a)); a.mq_flags; }));
	}
}

/* Waits for room most of the time. */
static int producer(void *arg)
{
	uint64_t n;

	(void)arg;
	for (n = 1; !board->stop; n++)
		say(narrow, n, 1);
	return 52;
}

static size_t length(unsigned i)
{
	return i == 2 ? 0 : i == 4 ? BIG : i * 321 % 2000;
}

static void put_stay(unsigned i, uint64_t round)
{
	static char data[BIG];

	wl_fill(data, length(i), 9 + i, round * 8);
	WL_SYS(mq_send(stay, data, length(i), prios[i]));
}

/* All come in their order, and go back. */
static void turn_over(uint64_t round)
{
	static char data[BIG];
	static const unsigned order[STAY] = { 2, 5, 9, 8, 0, 3, 6, 1, 4, 7 }; /* by priority, then by age */
	unsigned k, i, prio, got;

	for (k = 0; k < STAY; k++) {
		i = order[k];
		got = (unsigned)WL_SYS(mq_receive(stay, data, BIG, &prio));
		WL_EQ("length of one that stayed", length(i), got);
		WL_EQ("priority of one that stayed", prios[i], prio);
		wl_verify("one that stayed", data, got, 9 + i, round * 8);
	}
	for (i = 0; i < STAY; i++)
		put_stay(i, round + 1);
}

static void check_lost(uint64_t n)
{
	struct mq_attr a;
	struct stat st, other, again;
	char c[16];

	/* one message is in it all the time, another comes and goes */
	say(lost_dup, n, 3);
	WL_EQ("from a queue without a name", n, hear(lost));
	WL_SYS(mq_getattr(lost, &a));
	WL_EQ("messages in a queue without a name", 1, a.mq_curmsgs);
	WL_EQ("its room", 4, a.mq_maxmsg);
	WL_EQ("its size", 16, a.mq_msgsize);
	WL_EQ("flags", 0, a.mq_flags);
	WL_CHECK(mq_send(lost_ro, c, 1, 0) < 0 && errno == EBADF, "a description that only reads sends");
	do { /* a queue made anew has another number */
		WL_SYS(fstat(lost_ro, &st));
		WL_SYS(fstat(lost, &other));
		WL_SYS(fstat(lost_ro, &again));
	} while (st.st_ino != again.st_ino);
	WL_EQ("its names", 0, st.st_nlink);
	WL_EQ("its inode", st.st_ino, other.st_ino);
	WL_SYS(mq_getattr(same_old, &a));
	WL_EQ("the older of two", 3, a.mq_maxmsg);
	WL_EQ("what is in it", 2, a.mq_curmsgs);
	WL_SYS(mq_getattr(same_new, &a));
	WL_EQ("the newer of two", 5, a.mq_maxmsg);
	WL_EQ("what is in it", 0, a.mq_curmsgs);
	WL_CHECK(mq_receive(same_new, c, sizeof(c), NULL) < 0 && errno == EAGAIN, "an empty queue: expected EAGAIN, got %s", strerror(errno));
	WL_SYS(fstat(same_new, &st));
	WL_EQ("mode", 0640, st.st_mode & 0777);
	WL_EQ("uid", geteuid() ? geteuid() : 1234, st.st_uid);
}

static void register_for(mqd_t q, int how, int signo, uint64_t value)
{
	struct sigevent ev = { .sigev_notify = how, .sigev_signo = signo, .sigev_value.sival_ptr = (void *)(uintptr_t)value };

	WL_SYS(mq_notify(q, &ev));
}

/* A message to an empty queue is told of by a signal with a value, once. */
static void check_told(uint64_t n, bool again)
{
	mqd_t q = (mqd_t)WL_SYS(mq_open("/wl-told", O_WRONLY));
	struct timespec ts = { 60, 0 };
	siginfo_t info;
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGRTMIN + 3);
	WL_CHECK(sigtimedwait(&set, NULL, &(struct timespec){ 0, 0 }) < 0 && errno == EAGAIN, "told of nothing");
	say(q, n, 0);
	WL_EQ("signal", SIGRTMIN + 3, WL_SYS(sigtimedwait(&set, &info, &ts)));
	WL_EQ("value", 0xabcd00000000 + n, (uintptr_t)info.si_value.sival_ptr);
	WL_EQ("code", SI_MESGQ, info.si_code);
	WL_EQ("what came", n, hear(told));
	WL_SYS(mq_close(q)); /* before: it would end the registration */
	if (again)
		register_for(told, SIGEV_SIGNAL, SIGRTMIN + 3, 0xabcd00000000 + n + 1);
}

/* Open for a moment only. */
static void check_alone(uint64_t n)
{
	mqd_t q = (mqd_t)WL_SYS(mq_open("/wl-alone", O_RDWR));
	struct pollfd p = { .fd = q, .events = POLLIN };

	WL_EQ("poll", 1, WL_SYS(poll(&p, 1, 0)));
	WL_EQ("from the queue that nobody has open", n - 1, hear(q));
	say(q, n, 0);
	WL_SYS(mq_close(q));
}

static void setup(void)
{
	sigset_t set;
	unsigned i;
	mqd_t q;

	sigemptyset(&set);
	sigaddset(&set, SIGRTMIN + 3);
	WL_SYS(sigprocmask(SIG_BLOCK, &set, NULL));
	q = make("/wl-told", 0, 2, 8);
	told = (mqd_t)WL_SYS(mq_open("/wl-told", O_RDONLY));
	WL_SYS(mq_close(q));
	register_for(told, SIGEV_SIGNAL, SIGRTMIN + 3, 0xabcd00000001);
	silent = make("/wl-silent", 0, 2, 8);
	register_for(silent, SIGEV_NONE, 0, 0);

	ask = make("/wl-ask", 0, 10, 8);
	answer = make("/wl-answer", O_CLOEXEC, 10, 8);
	stay = make("/wl-stay", 0, STAY, BIG);
	narrow = make("/wl-narrow", 0, 2, 8);
	lost = make("/wl-lost", 0, 4, 16);
	lost_ro = (mqd_t)WL_SYS(mq_open("/wl-lost", O_RDONLY | O_NONBLOCK));
	lost_dup = (mqd_t)WL_SYS(dup(lost));
	WL_SYS(mq_unlink("/wl-lost"));
	say(lost, 99, 1);
	same_old = make("/wl-same", 0, 3, 8);
	say(same_old, 1, 1);
	say(same_old, 2, 2);
	WL_SYS(mq_unlink("/wl-same"));
	same_new = make("/wl-same", O_NONBLOCK, 5, 8);
	if (!geteuid())
		WL_SYS(fchown(same_new, 1234, 4321));
	q = make("/wl-alone", 0, 1, 8);
	say(q, 0, 0);
	WL_SYS(mq_close(q));
	for (i = 0; i < STAY; i++)
		put_stay(i, 0);
}

int main(void)
{
	uint64_t n = 0, got = 0, tells = 0, i;
	siginfo_t info = { .si_pid = 0 };
	struct mq_attr left;
	char c[16];
	pid_t a, p;

	wl_init();
	board = wl_shared(sizeof(*board));
	setup();
	a = wl_spawn(answerer, NULL);
	p = wl_spawn(producer, NULL);
	wl_ready();
	while (!wl_stopping()) {
		say(ask, ++n, 0);
		WL_EQ("answer", n, hear(answer));
		for (i = 0; i < 1 + n % 3; i++)
			WL_EQ("from the narrow queue", ++got, hear(narrow));
		if (n % 3 == 0)
			wl_pace();
		turn_over(n - 1);
		check_lost(n);
		check_alone(n);
		if (n % 64 == 0)
			check_told(++tells, true);
	}
	check_told(++tells, false);
	WL_CHECK(mq_notify(silent, &(struct sigevent){ .sigev_notify = SIGEV_NONE }) < 0 && errno == EBUSY, "a registration is gone");
	say(ask, 0, 0);
	wl_reap(a, 51);
	board->stop = 1;
	while (WL_SYS(waitid(P_PID, (id_t)p, &info, WEXITED | WNOWAIT | WNOHANG)) == 0 && !info.si_pid)
		if (WL_SYS(mq_getattr(narrow, &left)) == 0 && left.mq_curmsgs)
			WL_EQ("from the narrow queue", ++got, hear(narrow));
	wl_reap(p, 52);
	WL_SYS(mq_receive(lost, c, sizeof(c), NULL));
	WL_EQ("what stayed in a queue without a name", 99, *(uint64_t *)(void *)c);
	WL_EQ("the first of two", 2, hear(same_old));
	WL_EQ("the second of two", 1, hear(same_old));
	turn_over(n);
	wl_ok();
}
