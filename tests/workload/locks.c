/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * File locks: POSIX, OFD and flock, shared and exclusive, ranges and to the end, by an fd that can only
 * write, of a description that only a child has any more, on a file that both nodes see, in the pod's
 * own /tmp, on an unlinked file and a memfd. A prober tries all the time to get what is held. Workers
 * wait for locks and count under them: nobody may ever be in there with somebody else.
 *
 * locks DIR alone: nobody in the pod asks for what is held.
 * locks probe DIR: the same question from outside, until SIGTERM: an exclusive lock on what a program in DIR
 * holds must never be granted. "ok", or how often it was.
 */
#include "wl.h"

#include <dirent.h>
#include <sys/file.h>

#define WORKERS 3
#define WAYS 3
enum { POSIX, OFD, FLOCK };

static struct shared {
	_Atomic int stop;
	_Atomic int inside[2][WAYS];
	_Atomic uint64_t turns[2][WAYS];
} *sh;

/* What is held all the time, by byte 0 of each range. */
static const struct held {
	short type;
	off_t start, len;
	int how;
	int open_flags;
} held[] = {
	{ F_WRLCK, 0, 100, POSIX, O_RDWR },    { F_RDLCK, 200, 100, POSIX, O_RDWR }, { F_WRLCK, 1000, 0, POSIX, O_RDWR },
	{ F_WRLCK, 400, 10, POSIX, O_WRONLY }, { F_WRLCK, 0, 50, OFD, O_RDWR },	     { F_RDLCK, 100, 50, OFD, O_RDONLY },
	{ F_WRLCK, 200, 0, OFD, O_RDWR },      { F_WRLCK, 0, 0, FLOCK, O_RDONLY },   { F_RDLCK, 0, 0, FLOCK, O_RDWR },
};
static char dir[2][256];
static int worker_dir, worker_way;

static int open_in(int d, const char *name, int n, int flags)
{
	char path[300];

	snprintf(path, sizeof(path), "%s/%s%d", dir[d], name, n);
	return (int)WL_SYS(open(path, flags | O_CREAT, 0666));
}

static int try_lock(int fd, int how, short type, off_t start, off_t len, bool wait)
{
	struct flock f = { .l_type = type, .l_whence = SEEK_SET, .l_start = start, .l_len = len };

	if (how == FLOCK)
		return flock(fd, (type == F_WRLCK ? LOCK_EX : type == F_RDLCK ? LOCK_SH : LOCK_UN) | (wait ? 0 : LOCK_NB));
	if (how == OFD)
		return fcntl(fd, wait ? F_OFD_SETLKW : F_OFD_SETLK, &f);
	return fcntl(fd, wait ? F_SETLKW : F_SETLK, &f);
}

/* POSIX locks in one file, the others in a file each: what one way of locking sees of another differs. */
static int open_held(int d, size_t i, int flags)
{
	return open_in(d, "held", held[i].how == FLOCK ? (int)i : held[i].how + 100, flags);
}

static void take_all(int d)
{
	size_t i;

	for (i = 0; i < ARRAY_SIZE(held); i++) {
		int fd = open_held(d, i, held[i].open_flags);

		WL_SYS(try_lock(fd, held[i].how, held[i].type, held[i].start, held[i].len, false));
	}
}

static void must_fail(int fd, size_t i, short type)
{
	int r = try_lock(fd, held[i].how, type, held[i].start, 1, false);

	WL_CHECK(r < 0 && (errno == EAGAIN || errno == EACCES), "lock %zu is held, type %d: expected EAGAIN, got %s", i, type,
		 r < 0 ? strerror(errno) : "success");
}

/* Whom does the kernel say it is? */
static void ask(int fd, size_t i)
{
	struct flock f = { .l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = held[i].start, .l_len = 1 };

	if (held[i].how == FLOCK)
		return;
	WL_SYS(fcntl(fd, held[i].how == OFD ? F_OFD_GETLK : F_GETLK, &f));
	WL_EQ("F_GETLK type", held[i].type, f.l_type);
	WL_EQ("F_GETLK start", held[i].start, f.l_start);
	WL_EQ("F_GETLK length", held[i].len, f.l_len);
	WL_EQ("F_GETLK pid", held[i].how == OFD ? -1 : getppid(), f.l_pid);
}

static int prober(void *arg)
{
	int d = *(int *)arg, fd[ARRAY_SIZE(held)];
	size_t i;

	for (i = 0; i < ARRAY_SIZE(held); i++)
		fd[i] = open_held(d, i, O_RDWR);
	while (!sh->stop) {
		for (i = 0; i < ARRAY_SIZE(held); i++) {
			must_fail(fd[i], i, F_WRLCK);
			if (held[i].type == F_WRLCK)
				must_fail(fd[i], i, F_RDLCK);
			ask(fd[i], i);
		}
		/* what nobody holds is free */
		WL_SYS(try_lock(fd[0], POSIX, F_WRLCK, 100, 100, false));
		WL_SYS(try_lock(fd[0], POSIX, F_UNLCK, 100, 100, false));
		wl_pace();
	}
	return 0;
}

/* Holds a lock by a description that its parent has closed. */
static int heir(void *arg)
{
	int fd = *(int *)arg;

	while (!sh->stop) {
		wl_pace();
		WL_SYS(fcntl(fd, F_GETFL));
	}
	return 0;
}

static int worker(void *arg)
{
	int d = worker_dir, way = worker_way, fd = open_in(d, "turn", way, O_RDWR), n = 0;

	(void)arg;
	while (!sh->stop) {
		uint64_t v = 0;
		int i;

		WL_SYS(try_lock(fd, way, F_WRLCK, 0, 8, true));
		WL_EQ("workers inside", 0, sh->inside[d][way]++);
		WL_SYS(pread(fd, &v, 8, 0));
		for (i = n++ % 8; i > 0; i--)
			wl_pace();
		v++;
		WL_EQ("pwrite", 8, WL_SYS(pwrite(fd, &v, 8, 0)));
		sh->turns[d][way]++;
		sh->inside[d][way]--;
		WL_SYS(try_lock(fd, way, F_UNLCK, 0, 8, false));
		if (n % 16 == 0)
			wl_sleep_ns(WL_MS);
	}
	return 0;
}

struct nameless {
	int a, b;
};

static struct nameless unlinked(void)
{
	struct nameless n;
	char path[300];

	snprintf(path, sizeof(path), "%s/gone", dir[0]);
	n.a = open_in(0, "gone", 0, O_RDWR);
	n.b = open_in(0, "gone", 0, O_RDWR);
	snprintf(path, sizeof(path), "%s/gone0", dir[0]);
	WL_SYS(unlink(path));
	WL_SYS(flock(n.a, LOCK_EX | LOCK_NB));
	WL_SYS(try_lock(n.a, OFD, F_WRLCK, 7, 3, false));
	return n;
}

static struct nameless memfd(void)
{
	struct nameless n = { .a = (int)WL_SYS(memfd_create("locks", 0)) };
	char path[48];

	snprintf(path, sizeof(path), "/proc/self/fd/%d", n.a);
	n.b = (int)WL_SYS(open(path, O_RDWR));
	WL_SYS(flock(n.a, LOCK_EX | LOCK_NB));
	WL_SYS(try_lock(n.a, OFD, F_WRLCK, 7, 3, false));
	return n;
}

static void check_nameless(const struct nameless *n)
{
	WL_CHECK(flock(n->b, LOCK_SH | LOCK_NB) < 0 && errno == EWOULDBLOCK, "flock of a nameless file was lost");
	WL_CHECK(try_lock(n->b, OFD, F_RDLCK, 9, 1, false) < 0 && errno == EAGAIN, "OFD lock of a nameless file was lost");
	WL_SYS(try_lock(n->b, OFD, F_WRLCK, 10, 1, false));
	WL_SYS(try_lock(n->b, OFD, F_UNLCK, 10, 1, false));
}

static _Noreturn void probe(const char *where)
{
	static const struct held *const list = held;
	unsigned granted = 0, tries = 0, n = 0;
	int fd[512], which[512];
	struct dirent *de;
	DIR *top = opendir(where);

	WL_CHECK(top, "opendir '%s': %s", where, strerror(errno));
	while ((de = readdir(top)) && n + ARRAY_SIZE(held) < ARRAY_SIZE(fd)) {
		size_t i;

		if (strncmp(de->d_name, "locks.", 6))
			continue;
		snprintf(dir[0], sizeof(dir[0]), "%s/%.40s", where, de->d_name);
		for (i = 0; i < ARRAY_SIZE(held); i++)
			if (list[i].open_flags != O_WRONLY) {
				which[n] = (int)i;
				fd[n++] = open_held(0, i, O_RDWR);
			}
	}
	WL_CHECK(n, "there is no directory of a program in '%s'", where);
	wl_ready();
	for (; !wl_stopping(); tries++) {
		unsigned k;

		for (k = 0; k < n; k++) {
			const struct held *h = &held[which[k]];

			if (try_lock(fd[k], h->how, F_WRLCK, h->start, 1, false) < 0)
				continue;
			try_lock(fd[k], h->how, F_UNLCK, h->start, 1, false);
			granted++;
		}
	}
	WL_CHECK(tries && !granted, "exclusive locks granted to a stranger: expected 0, got %u", granted);
	wl_ok();
}

int main(int argc, char **argv)
{
	static int which[2] = { 0, 1 };
	pid_t kid[64];
	struct nameless un, mem;
	bool alone = argc > 2 && !strcmp(argv[2], "alone");
	int d, w, i, n = 0, fd, again[2];
	uint64_t sum = 0, v;

	wl_init();
	if (argc > 2 && !strcmp(argv[1], "probe"))
		probe(argv[2]);
	sh = wl_shared(sizeof(*sh));
	snprintf(dir[0], sizeof(dir[0]), "%s/locks.XXXXXX", wl_dir(argc, argv));
	snprintf(dir[1], sizeof(dir[1]), "/tmp/locks.XXXXXX");
	for (d = 0; d < 2; d++) {
		WL_CHECK(mkdtemp(dir[d]), "mkdtemp '%s': %s", dir[d], strerror(errno));
		WL_SYS(chmod(dir[d], 0777));
		/* a child's alone: description and locks outlive the parent's fd */
		fd = open_in(d, "heir", 0, O_RDWR);
		WL_SYS(flock(fd, LOCK_EX | LOCK_NB));
		WL_SYS(try_lock(fd, OFD, F_WRLCK, 3, 4, false));
		kid[n++] = wl_spawn(heir, &fd);
		kid[n++] = wl_spawn(heir, &fd);
		WL_SYS(close(fd));
		for (w = 0; w < WAYS; w++)
			for (i = 0; !alone && i < WORKERS; i++) {
				worker_dir = d;
				worker_way = w;
				kid[n++] = wl_spawn(worker, NULL);
			}
		take_all(d);
		if (!alone)
			kid[n++] = wl_spawn(prober, &which[d]);
		again[d] = open_in(d, "heir", 0, O_RDWR);
	}
	un = unlinked();
	mem = memfd();
	wl_ready();
	while (!wl_stopping()) {
		for (d = 0; !alone && d < 2; d++) {
			WL_CHECK(flock(again[d], LOCK_SH | LOCK_NB) < 0 && errno == EWOULDBLOCK, "a child's flock was lost");
			WL_CHECK(try_lock(again[d], OFD, F_RDLCK, 6, 1, false) < 0 && errno == EAGAIN,
				 "a child's OFD lock was lost");
		}
		check_nameless(&un);
		check_nameless(&mem);
		wl_pace();
	}
	sh->stop = 1;
	while (n > 0)
		wl_reap(kid[--n], 0);
	for (d = 0; d < 2; d++)
		for (w = 0; !alone && w < WAYS; w++) {
			fd = open_in(d, "turn", w, O_RDONLY);
			WL_EQ("read", 8, WL_SYS(read(fd, &v, 8)));
			WL_EQ("turns counted in the file", sh->turns[d][w], v);
			WL_CHECK(v > WORKERS, "turns: expected some, got %llu", (unsigned long long)v);
			sum += v;
		}
	WL_CHECK(alone || sum, "no turns at all");
	/* with the last holder they are gone */
	WL_SYS(flock(again[0], LOCK_EX | LOCK_NB));
	wl_ok();
}
