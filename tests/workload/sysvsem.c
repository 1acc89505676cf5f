/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * System V semaphores: values, pids and owners; processes that wait for a value, for 0, with and without an end; and what
 * processes undo when they end: held for long, of threads together, up to the ends of the range, kept over exec. Then a
 * set that nobody has used yet, and one that is removed while somebody waits for it. And a POSIX semaphore with a name.
 */
#include "wl.h"

#include <pthread.h>
#include <semaphore.h>
#include <sys/ipc.h>
#include <sys/sem.h>

#define KEY 0x57a13000
#define TOP 32767
#define WIDE 120

union semun {
	int val;
	struct semid_ds *buf;
	unsigned short *array;
};
struct board {
	_Atomic int stop, held;
	_Atomic uint64_t rounds;
};
static struct board *board;
static int turns, held, wide, fresh, crew;
static sem_t *named[2];

static int make(int key, int n, int mode)
{
	return (int)WL_SYS(semget(key, n, IPC_CREAT | IPC_EXCL | mode));
}

static int value(int id, int num)
{
	return (int)WL_SYS(semctl(id, num, GETVAL));
}

static void op(int id, int num, int by, int flags)
{
	struct sembuf s = { (unsigned short)num, (short)by, (short)flags };

	WL_SYS(semop(id, &s, 1));
}

static void op_until(int id, int num, int by)
{
	struct sembuf s = { (unsigned short)num, (short)by, 0 };
	struct timespec ts = { 600, 0 };

	WL_SYS(semtimedop(id, &s, 1, &ts));
}

/* Takes turns by semaphores 0 and 1, and waits for 2 to be 0 and back. */
static int partner(void *arg)
{
	(void)arg;
	for (;;) {
		op(turns, 0, -1, 0);
		if (board->stop)
			return 31;
		if (board->rounds % 4 == 0)
			wl_pace();
		WL_EQ("the last one's pid", getppid(), WL_SYS(semctl(turns, 2, GETPID)));
		op(turns, 2, 0, 0);
		op(turns, 1, 1, 0);
	}
}

static void turn(void)
{
	op(turns, 2, 1, 0);
	op(turns, 0, 1, 0);
	if (board->rounds++ % 3 == 0)
		wl_pace();
	op_until(turns, 2, -1);
	op_until(turns, 1, -1);
}

/* Holds three kinds of undo until it is told to end; by hand over exec. */
static int holder(void *arg)
{
	char id[16], *args[] = { (char *)(uintptr_t)"sysvsem", (char *)(uintptr_t)"hold", id, NULL };
	struct sembuf s[3] = { { 0, -4, SEM_UNDO }, { 1, 9, SEM_UNDO }, { 2, -1, SEM_UNDO } };

	(void)arg;
	WL_SYS(semop(held, s, 3));
	snprintf(id, sizeof(id), "%d", held);
	execv("/proc/self/exe", args);
	return 1;
}

static int held_on(int id)
{
	struct sembuf s = { 3, -1, 0 };

	WL_SYS(semop(id, &s, 1));
	return 32;
}

/* The ends of the range, and what stands between others. */
static int extreme(void *arg)
{
	(void)arg;
	op(wide, 0, -TOP, SEM_UNDO);
	op(wide, 1, TOP, SEM_UNDO);
	op(wide, 2, 1, SEM_UNDO); /* -32768 */
	op(wide, 2, -1, 0);
	op(wide, 2, TOP, SEM_UNDO);
	op(wide, WIDE - 1, 5, SEM_UNDO);
	op(wide, WIDE / 2, -5, SEM_UNDO);
	board->held = 1;
	op(held, 3, -1, 0);
	return 33;
}

/* One takes, another gives: together they have nothing to undo. */
static void *mate(void *arg)
{
	long i = (long)arg;

	while (!board->stop) {
		op(crew, 0, i ? 1 : -1, SEM_UNDO);
		wl_pace();
		op(crew, 1, i ? -1 : 1, 0); /* not two steps ahead */
	}
	return NULL;
}

static int crew_of_two(void *arg)
{
	pthread_t t;

	(void)arg;
	op(crew, 2, -2, SEM_UNDO);
	WL_ZERO(pthread_create(&t, NULL, mate, (void *)1));
	mate(NULL);
	WL_ZERO(pthread_join(t, NULL));
	op(crew, 2, 3, SEM_UNDO);
	return 34;
}

/* Ends with something to undo, now and then between two moves. */
static int short_life(void *arg)
{
	int n = *(int *)arg;

	op(held, 4, -n, SEM_UNDO);
	op(held, 5, n, SEM_UNDO);
	wl_pace();
	wl_pace();
	return 35;
}

static void short_lives(int n)
{
	pid_t p = wl_spawn(short_life, &n);

	wl_reap(p, 35);
	WL_EQ("what one that ended had taken", 100, value(held, 4));
	WL_EQ("what one that ended had given", 0, value(held, 5));
}

static void *waiter(void *arg)
{
	struct sembuf s = { 0, -1, SEM_UNDO };

	/* the other one: it did not wait yet, or not again */
	WL_CHECK(semop(*(int *)arg, &s, 1) < 0 && (errno == EIDRM || errno == EINVAL), "wait for a removed set: expected EIDRM, got %s",
		 strerror(errno));
	return NULL;
}

static void removed(void)
{
	int id = make(KEY + 9, 1, 0600);
	pthread_t t;

	WL_ZERO(pthread_create(&t, NULL, waiter, &id));
	wl_pace();
	wl_pace();
	WL_SYS(semctl(id, 0, IPC_RMID));
	WL_ZERO(pthread_join(t, NULL));
}

/* Waits by a name in /dev/shm. */
static int posix(void *arg)
{
	(void)arg;
	while (!board->stop) {
		WL_SYS(sem_wait(named[0]));
		WL_SYS(sem_post(named[1]));
	}
	return 36;
}

static void check_sets(void)
{
	struct semid_ds ds;

	WL_EQ("id by key", held, semget(KEY + 1, 0, 0));
	WL_SYS(semctl(held, 0, IPC_STAT, (union semun){ .buf = &ds }));
	WL_EQ("size", 6, ds.sem_nsems);
	WL_EQ("mode", 0664, ds.sem_perm.mode);
	WL_EQ("uid", 1234, ds.sem_perm.uid);
	WL_CHECK(ds.sem_otime, "a set that is used looks unused");
	WL_EQ("value while it is held", 6, value(held, 0));
	WL_EQ("value while more is given", 10, value(held, 1));
	WL_EQ("value while it is locked", 0, value(held, 2));
	WL_SYS(semctl(fresh, 0, IPC_STAT, (union semun){ .buf = &ds }));
	WL_EQ("time of the last use of a set that is not used", 0, ds.sem_otime);
	WL_EQ("value set", 7, value(fresh, 1));
	WL_EQ("pid that set it", getpid(), WL_SYS(semctl(fresh, 1, GETPID)));
	WL_EQ("value in a set without a key", TOP, value(wide, 3));
}

static void setup(void)
{
	struct semid_ds ds;
	int gap = make(IPC_PRIVATE, 1, 0600);

	turns = make(KEY, 3, 0600);
	held = make(KEY + 1, 6, 0600);
	wide = make(IPC_PRIVATE, WIDE, 0600);
	fresh = make(IPC_PRIVATE, 2, 0600);
	crew = make(KEY + 2, 3, 0600);
	WL_SYS(semctl(gap, 0, IPC_RMID));
	WL_SYS(semctl(held, 0, IPC_STAT, (union semun){ .buf = &ds }));
	ds.sem_perm.uid = 1234;
	ds.sem_perm.mode = 0664;
	WL_SYS(semctl(held, 0, IPC_SET, (union semun){ .buf = &ds }));
	WL_SYS(semctl(held, 0, SETALL, (union semun){ .array = (unsigned short[]){ 10, 1, 1, 0, 100, 0 } }));
	WL_SYS(semctl(wide, 0, SETVAL, TOP));
	WL_SYS(semctl(wide, 3, SETVAL, TOP));
	WL_SYS(semctl(wide, WIDE / 2, SETVAL, 5));
	WL_SYS(semctl(fresh, 1, SETVAL, 7));
	WL_SYS(semctl(crew, 0, SETVAL, 3));
	WL_SYS(semctl(crew, 1, SETVAL, 1));
	WL_SYS(semctl(crew, 2, SETVAL, 4));
	sem_unlink("/wl0");
	sem_unlink("/wl1");
	named[0] = sem_open("/wl0", O_CREAT | O_EXCL, 0600, 0);
	named[1] = sem_open("/wl1", O_CREAT | O_EXCL, 0600, 0);
	WL_CHECK(named[0] != SEM_FAILED && named[1] != SEM_FAILED, "sem_open: %s", strerror(errno));
}

/* All that was held comes back. */
static void check_undone(void)
{
	WL_EQ("what was taken", 10, value(held, 0));
	WL_EQ("what was given", 1, value(held, 1));
	WL_EQ("what was locked", 1, value(held, 2));
	WL_EQ("the most taken", TOP, value(wide, 0));
	WL_EQ("the most given", 0, value(wide, 1));
	WL_EQ("more given than there is", 0, value(wide, 2));
	WL_EQ("one given at the end", 0, value(wide, WIDE - 1));
	WL_EQ("one taken in the middle", 5, value(wide, WIDE / 2));
}

int main(int argc, char **argv)
{
	pid_t p, h, x, c, s;
	int n = 0;

	wl_init();
	if (argc == 3)
		return held_on((int)strtol(argv[2], NULL, 10));
	board = wl_shared(sizeof(*board));
	setup();
	p = wl_spawn(partner, NULL);
	h = wl_spawn(holder, NULL);
	x = wl_spawn(extreme, NULL);
	c = wl_spawn(crew_of_two, NULL);
	s = wl_spawn(posix, NULL);
	WL_AWAIT(value(held, 2) == 0 && board->held && value(crew, 2) == 2, "what the others hold");
	wl_ready();
	while (!wl_stopping()) {
		turn();
		check_sets();
		short_lives(1 + n++ % 50);
		if (n % 8 == 0)
			removed();
		WL_SYS(sem_post(named[0]));
		WL_SYS(sem_wait(named[1]));
	}
	board->stop = 1;
	op(turns, 0, 1, 0);
	wl_reap(p, 31);
	WL_SYS(sem_post(named[0]));
	wl_reap(s, 36);
	op(crew, 1, 10, 0);
	op(crew, 0, 10, 0);
	wl_reap(c, 34);
	/* both have made as many steps as each other, give or take the last one, which its end undoes */
	WL_EQ("what two threads did together", 13, value(crew, 0));
	WL_EQ("what a crew took and gave", 4, value(crew, 2));
	op(held, 3, 2, 0);
	wl_reap(h, 32);
	wl_reap(x, 33);
	check_undone();
	wl_ok();
}
