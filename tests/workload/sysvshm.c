/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * System V shared memory: ids with gaps, keys, owners and modes; attached twice by one process, inherited,
 * attached by nobody; split by mprotect; marked for destruction while in use; removed and made anew under the same key,
 * attached and detached all the time.
 */
#include "wl.h"

#include <sys/ipc.h>
#include <sys/shm.h>

#define KEY 0x57a11000
#define SIZE_A (5 * WL_PAGE + 100)
#define SIZE_B (64 * WL_PAGE)
#define SIZE_C (3 * WL_PAGE)
#ifndef SHM_DEST
#define SHM_DEST 01000
#endif

struct board {
	_Atomic int stop;
	_Atomic uint64_t ping, pong;
};
static int a, b, c, split_id;
static char *at_a, *ro_a, *at_c, *at_split;
static struct shmid_ds made_b;

static int make(int key, size_t size, int mode)
{
	return (int)WL_SYS(shmget(key, size, IPC_CREAT | IPC_EXCL | mode));
}

static void *attach(int id, int flags)
{
	void *p = shmat(id, NULL, flags);

	WL_CHECK(p != (void *)-1, "shmat %d: expected success, got %s", id, strerror(errno));
	return p;
}

static struct shmid_ds stat_of(int id)
{
	struct shmid_ds ds;

	WL_SYS(shmctl(id, IPC_STAT, &ds));
	return ds;
}

/* Answers in the segment that it has inherited. */
static int child(void *arg)
{
	struct board *s = (void *)at_a;
	uint64_t n = 0;

	(void)arg;
	while (!s->stop) {
		if (s->ping == s->pong) {
			wl_pace();
			continue;
		}
		n = s->ping;
		WL_EQ("the twin mapping", n, ((struct board *)(void *)ro_a)->ping);
		wl_fill(at_c + WL_PAGE, WL_PAGE, 31, n);
		s->pong = n;
	}
	WL_SYS(shmdt(ro_a));
	return 41;
}

static void ping(uint64_t n)
{
	struct board *s = (void *)at_a;

	s->ping = n;
	WL_AWAIT(s->pong == n, "the child's answer");
	wl_verify("what the child wrote", at_c + WL_PAGE, WL_PAGE, 31, n);
}

/* Nobody has it attached in between. */
static void check_b(uint64_t n)
{
	char *p = attach(b, n % 2 ? SHM_RDONLY : 0);
	struct shmid_ds ds = stat_of(b);

	wl_verify("the segment that nobody attaches", p, SIZE_B, 77, n - 1);
	if (n % 2 == 0)
		wl_fill(p, SIZE_B, 77, n);
	/* who moves the pod may have it for a moment, too, since nobody else had */
	WL_CHECK(ds.shm_nattch == 1 || ds.shm_nattch == 2, "nattch: expected 1, got %lu", (unsigned long)ds.shm_nattch);
	WL_SYS(shmdt(p));
	if (n % 2)
		wl_fill(p = attach(b, 0), SIZE_B, 77, n), WL_SYS(shmdt(p));
}

static void check_ids(void)
{
	struct shmid_ds ds = stat_of(a);

	WL_EQ("id by key", a, shmget(KEY, 0, 0));
	WL_EQ("size", SIZE_A, ds.shm_segsz);
	WL_EQ("mode", 0640, ds.shm_perm.mode & 0777);
	WL_EQ("nattch of what is attached twice by two", 4, ds.shm_nattch);
	ds = stat_of(b);
	WL_EQ("key", KEY + 1, ds.shm_perm.__key);
	WL_EQ("mode", 0604, ds.shm_perm.mode & 0777);
	WL_EQ("uid", made_b.shm_perm.uid, ds.shm_perm.uid);
	WL_EQ("gid", made_b.shm_perm.gid, ds.shm_perm.gid);
	WL_EQ("cuid", made_b.shm_perm.cuid, ds.shm_perm.cuid);
	ds = stat_of(c);
	WL_EQ("mode of what is to be destroyed", SHM_DEST | 0600, ds.shm_perm.mode & 01777);
	WL_EQ("nattch", 2, ds.shm_nattch);
	WL_CHECK(shmget(KEY + 2, 0, 0) < 0 && errno == ENOENT, "a destroyed key is there");
}

/* The key is used again while the old one is still attached. */
static void churn(uint64_t n)
{
	int one = make(KEY + 3, SIZE_C, 0600), two;
	char *p = attach(one, 0), *q;
	struct shmid_ds ds;

	wl_fill(p, SIZE_C, 5, n);
	wl_pace();
	WL_SYS(shmctl(one, IPC_RMID, NULL));
	two = make(KEY + 3, SIZE_C * 2, 0600);
	q = attach(two, 0);
	wl_fill(q, SIZE_C * 2, 6, n);
	wl_pace();
	wl_verify("the old one", p, SIZE_C, 5, n);
	wl_verify("the new one", q, SIZE_C * 2, 6, n);
	WL_SYS(shmdt(p));
	WL_CHECK(shmctl(one, IPC_STAT, &ds) < 0 && (errno == EINVAL || errno == EIDRM), "the old one stays");
	WL_SYS(shmdt(q));
	WL_SYS(shmctl(two, IPC_RMID, NULL));
}

static void check_split(uint64_t n)
{
	char *again;

	/* three mappings of one attachment */
	wl_verify("a read-only part", at_split + 2 * WL_PAGE, WL_PAGE, 8, 1);
	WL_SYS(mprotect(at_split + 2 * WL_PAGE, WL_PAGE, PROT_READ | PROT_WRITE));
	wl_fill(at_split + 2 * WL_PAGE, WL_PAGE, 8, 1);
	WL_SYS(mprotect(at_split + 2 * WL_PAGE, WL_PAGE, PROT_READ));
	if (n % 8)
		return;
	again = at_split;
	WL_SYS(shmdt(at_split));
	WL_CHECK(stat_of(split_id).shm_nattch < 2, "nattch of what nobody has: got %lu", (unsigned long)stat_of(split_id).shm_nattch);
	WL_CHECK(madvise(again + 3 * WL_PAGE, WL_PAGE, MADV_NORMAL) < 0, "a part of a detached segment is still mapped");
	at_split = shmat(split_id, again, 0);
	WL_CHECK(at_split == again, "shmat at %p: got %p", (void *)again, (void *)at_split);
	WL_SYS(mprotect(at_split + 2 * WL_PAGE, WL_PAGE, PROT_READ));
}

int main(void)
{
	uint64_t n;
	struct board *s;
	struct shmid_ds ds;
	pid_t pid;
	char *first;
	int i, gap[3];

	wl_init();
	a = make(KEY, SIZE_A, 0640); /* in a pod its id is 0 */
	for (i = 0; i < 3; i++)
		gap[i] = make(IPC_PRIVATE, WL_PAGE, 0600);
	WL_SYS(shmctl(gap[0], IPC_RMID, NULL));
	WL_SYS(shmctl(gap[1], IPC_RMID, NULL));
	b = make(KEY + 1, SIZE_B, 0600);
	made_b = stat_of(b);
	made_b.shm_perm.mode = 0604;
	if (!getuid())
		made_b.shm_perm.uid = 1234;
	WL_SYS(shmctl(b, IPC_SET, &made_b));
	made_b = stat_of(b);
	c = make(KEY + 2, SIZE_C, 0600);
	split_id = make(IPC_PRIVATE, 5 * WL_PAGE, 0600);
	at_a = attach(a, 0);
	ro_a = attach(a, SHM_RDONLY);
	at_c = attach(c, 0);
	WL_SYS(shmctl(c, IPC_RMID, NULL));
	wl_fill(at_a + WL_PAGE, SIZE_A - WL_PAGE, 1, 0);
	pid = wl_spawn(child, NULL);
	at_split = attach(split_id, 0);
	wl_fill(at_split + 2 * WL_PAGE, WL_PAGE, 8, 1);
	WL_SYS(mprotect(at_split + 2 * WL_PAGE, WL_PAGE, PROT_READ));
	first = attach(b, 0);
	wl_fill(first, SIZE_B, 77, 0);
	WL_SYS(shmdt(first));
	n = 0;
	WL_EQ("nattch", 0, stat_of(b).shm_nattch);
	wl_ready();
	while (!wl_stopping()) {
		n++;
		ping(n);
		check_b(n);
		check_ids();
		churn(n);
		check_split(n);
		wl_verify("the inherited segment", at_a + WL_PAGE, SIZE_A - WL_PAGE, 1, 0);
		WL_CHECK(mprotect(ro_a, WL_PAGE, PROT_READ | PROT_WRITE) < 0 && errno == EACCES,
			 "an attachment for reading can be made writable");
		wl_pace();
	}
	s = (void *)at_a;
	s->stop = 1;
	wl_reap(pid, 41);
	WL_SYS(shmdt(at_c));
	WL_CHECK(shmctl(c, IPC_STAT, &ds) < 0, "what was marked for destruction lives on");
	WL_EQ("the last gap's id", WL_PAGE, stat_of(gap[2]).shm_segsz);
	wl_ok();
}
