/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Files in /dev/shm and /tmp (in a pod: file systems of its own): mapped shared by two processes,
 * written with write(2), growing logs, unlinked while open and while mapped, directories, symbolic and
 * hard links, modes, owners, times, extended by truncation, removed and made anew all the time; files that
 * change names with each other, replace each other, and change directories.
 */
#include "wl.h"

#include <dirent.h>

#define PAGES 64

static struct shared {
	_Atomic int stop;
	_Atomic uint64_t gen;
} *sh;

struct place {
	char dir[64];
	int dfd, log, gone, map_fd;
	uint64_t log_len, gone_len;
	uint8_t *map, *gone_map, *other_map, *late_map;
	int late;
	struct timespec mtime;
	uint64_t swaps;
	ino_t swap_ino[2];
};
static struct place places[2];

static int make(struct place *pl, const char *name, mode_t mode)
{
	int fd = (int)WL_SYS(openat(pl->dfd, name, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600));

	WL_SYS(fchmod(fd, mode));
	return fd;
}

static uint8_t *map_of(int fd)
{
	uint8_t *p;

	WL_SYS(ftruncate(fd, PAGES * WL_PAGE));
	p = mmap(NULL, PAGES * WL_PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	WL_CHECK(p != MAP_FAILED, "mmap: %s", strerror(errno));
	return p;
}

/* A file that nobody maps but for the moment of a write: its times do not tell of it. */
static uint64_t brief_count;

static void brief_step(void)
{
	int fd = (int)WL_SYS(open("/dev/shm/wl-brief", O_RDWR | O_CREAT | O_CLOEXEC, 0600));
	volatile uint64_t *p;
	size_t i;

	if (!brief_count)
		WL_SYS(ftruncate(fd, PAGES * WL_PAGE));
	p = mmap(NULL, PAGES * WL_PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	WL_CHECK(p != MAP_FAILED, "mmap: %s", strerror(errno));

	for (i = 0; i < PAGES; i++)
		WL_EQ("count in a file mapped for a moment", brief_count, p[i * WL_PAGE / 8]);
	brief_count++;
	for (i = 0; i < PAGES; i++)
		p[i * WL_PAGE / 8] = brief_count;
	WL_SYS(munmap((void *)(uintptr_t)p, PAGES * WL_PAGE));
	WL_SYS(close(fd));
}

static void put(struct place *pl, const char *path, uint64_t seed)
{
	int fd = make(pl, path, 0600);
	uint8_t buf[3000];

	wl_fill(buf, sizeof(buf), seed, 0);
	wl_write(fd, buf, sizeof(buf));
	WL_SYS(close(fd));
}

static ino_t look(struct place *pl, const char *path, uint64_t seed)
{
	int fd = (int)WL_SYS(openat(pl->dfd, path, O_RDONLY | O_CLOEXEC));
	struct stat st;
	uint8_t buf[3000];

	wl_read(fd, buf, sizeof(buf));
	wl_verify(path, buf, sizeof(buf), seed, 0);
	WL_SYS(fstat(fd, &st));
	WL_EQ("links of a file that changes names", 1, st.st_nlink);
	WL_SYS(close(fd));
	return st.st_ino;
}

/* Each of them by which a name's file becomes another while the pod moves. */
static void change_names(struct place *pl)
{
	uint64_t n = ++pl->swaps, odd = n % 2;

	WL_SYS(renameat2(pl->dfd, "sub/p", pl->dfd, "sub/q", RENAME_EXCHANGE));
	put(pl, "sub/next", 40 + n);
	WL_SYS(renameat(pl->dfd, "sub/next", pl->dfd, "sub/over"));
	WL_SYS(renameat(pl->dfd, odd ? "sub/dir0" : "sub/dir1", pl->dfd, odd ? "sub/dir1" : "sub/dir0"));
	wl_pace();
	WL_EQ("inode of a file that was swapped", pl->swap_ino[odd], look(pl, "sub/p", 33 + odd));
	WL_EQ("inode of the other", pl->swap_ino[!odd], look(pl, "sub/q", 33 + !odd));
	look(pl, "sub/over", 40 + n);
	look(pl, odd ? "sub/dir1/f" : "sub/dir0/f", 35);
}

static void setup(struct place *pl, const char *base)
{
	const struct timespec times[2] = { { 1000000000, 123456789 }, { 1100000000, 987654321 } };
	uint8_t buf[5000];
	int fd;

	snprintf(pl->dir, sizeof(pl->dir), "%s/wl-tmpfs.XXXXXX", base);
	WL_CHECK(mkdtemp(pl->dir), "mkdtemp: %s", strerror(errno));
	pl->dfd = (int)WL_SYS(open(pl->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC));
	WL_SYS(mkdirat(pl->dfd, "sub", 0711));
	WL_SYS(mkdirat(pl->dfd, "sub/deep", 0750));
	WL_SYS(symlinkat("sub/deep/target", pl->dfd, "link"));
	fd = make(pl, "sub/deep/target", 0640);
	wl_fill(buf, sizeof(buf), 11, 0);
	wl_write(fd, buf, sizeof(buf));
	WL_SYS(futimens(fd, times));
	if (!geteuid())
		WL_SYS(fchown(fd, 12, 34));
	WL_SYS(close(fd));
	WL_SYS(linkat(pl->dfd, "sub/deep/target", pl->dfd, "hard", 0));
	put(pl, "sub/p", 33);
	put(pl, "sub/q", 34);
	pl->swap_ino[0] = look(pl, "sub/p", 33);
	pl->swap_ino[1] = look(pl, "sub/q", 34);
	put(pl, "sub/over", 40);
	WL_SYS(mkdirat(pl->dfd, "sub/dir0", 0700));
	put(pl, "sub/dir0/f", 35);
	pl->log = make(pl, "log", 0600);
	WL_SYS(fcntl(pl->log, F_SETFL, O_APPEND));
	pl->map_fd = make(pl, "mapped", 0666);
	pl->map = map_of(pl->map_fd);
	pl->gone = (int)WL_SYS(openat(pl->dfd, "gone", O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600));
	WL_SYS(unlinkat(pl->dfd, "gone", 0));
	fd = make(pl, "gone-mapped", 0600);
	pl->gone_map = map_of(fd);
	WL_SYS(unlinkat(pl->dfd, "gone-mapped", 0));
	WL_SYS(close(fd));
	wl_fill(pl->gone_map, PAGES * WL_PAGE, 12, 0);
	fd = make(pl, "first-name", 0600);
	pl->other_map = map_of(fd);
	WL_SYS(close(fd));
	WL_SYS(linkat(pl->dfd, "first-name", pl->dfd, "other-name", 0));
	WL_SYS(unlinkat(pl->dfd, "first-name", 0));
}

/* A file that is made without a name, or under one that it loses, and gets another while it is mapped. */
static void named_late(struct place *pl, uint64_t gen)
{
	char self[64];
	uint8_t buf[64];
	int fd;

	switch (gen % 40) {
	case 0:
		pl->late = (int)WL_SYS(openat(pl->dfd, ".", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600));
		pl->late_map = map_of(pl->late);
		wl_fill(pl->late_map, PAGES * WL_PAGE, gen, 0);
		return;
	case 10:
		snprintf(self, sizeof(self), "/proc/self/fd/%d", pl->late);
		WL_SYS(linkat(AT_FDCWD, self, pl->dfd, "late-tmp", AT_SYMLINK_FOLLOW));
		return;
	case 20:
		WL_SYS(linkat(pl->dfd, "late-tmp", pl->dfd, "late", 0));
		WL_SYS(unlinkat(pl->dfd, "late-tmp", 0));
		return;
	case 30:
		fd = (int)WL_SYS(openat(pl->dfd, "late", O_RDWR | O_CLOEXEC));
		wl_fill(buf, sizeof(buf), gen, 0);
		WL_SYS(pwrite(fd, buf, sizeof(buf), WL_PAGE));
		wl_verify("page of a file named late, by its mapping", pl->late_map + WL_PAGE, sizeof(buf), gen, 0);
		wl_fill(pl->late_map + 2 * WL_PAGE, sizeof(buf), gen + 1, 0);
		WL_SYS(pread(fd, buf, sizeof(buf), 2 * WL_PAGE));
		wl_verify("page of a file named late, by its name", buf, sizeof(buf), gen + 1, 0);
		wl_verify("its last pages", pl->late_map + 3 * WL_PAGE, (PAGES - 3) * WL_PAGE, gen - 30, 3 * WL_PAGE);
		WL_SYS(close(fd));
		WL_SYS(munmap(pl->late_map, PAGES * WL_PAGE));
		WL_SYS(close(pl->late));
		WL_SYS(unlinkat(pl->dfd, "late", 0));
		return;
	}
}

static void check_static(struct place *pl)
{
	char to[64] = "";
	uint8_t buf[6000];
	struct stat a, b;
	int fd, n = 0;
	DIR *d;

	WL_SYS(readlinkat(pl->dfd, "link", to, sizeof(to) - 1));
	WL_CHECK(!strcmp(to, "sub/deep/target"), "symbolic link: expected sub/deep/target, got %s",
		 to);
	fd = (int)WL_SYS(openat(pl->dfd, "link", O_RDONLY | O_CLOEXEC));
	WL_EQ("size", 5000, WL_SYS(read(fd, buf, sizeof(buf))));
	wl_verify("file behind a link", buf, 5000, 11, 0);
	WL_SYS(fstat(fd, &a));
	WL_SYS(close(fd));
	WL_SYS(fstatat(pl->dfd, "hard", &b, 0));
	WL_EQ("inode of a hard link", a.st_ino, b.st_ino);
	WL_EQ("number of links", 2, a.st_nlink);
	WL_EQ("mode", S_IFREG | 0640, a.st_mode);
	WL_EQ("time of modification", 1100000000, a.st_mtim.tv_sec);
	WL_EQ("its nanoseconds", 987654321, a.st_mtim.tv_nsec);
	if (!geteuid()) {
		WL_EQ("owner", 12, a.st_uid);
		WL_EQ("group", 34, a.st_gid);
	}
	WL_SYS(fstatat(pl->dfd, "sub", &a, 0));
	WL_EQ("mode of a directory", S_IFDIR | 0711, a.st_mode);
	d = opendir(pl->dir);
	WL_CHECK(d, "opendir %s: %s", pl->dir, strerror(errno));
	while (readdir(d))
		n++;
	closedir(d);
	fd = faccessat(pl->dfd, "late", F_OK, 0) == 0 || faccessat(pl->dfd, "late-tmp", F_OK, 0) == 0;
	WL_EQ("names in the directory", 2 + 6 + fd, n); /* sub link hard log mapped other-name */
}

/* Grows two files by the same record and reads some old place again. */
static void grow(struct place *pl, uint64_t gen)
{
	uint64_t off = pl->log_len ? wl_mix(gen) % pl->log_len : 0;
	size_t len = 100 + gen % 500;
	uint8_t buf[600];

	wl_fill(buf, len, 21, pl->log_len);
	wl_write(pl->log, buf, len);
	pl->log_len += len;
	wl_fill(buf, len, 22, pl->gone_len);
	wl_write(pl->gone, buf, len); /* at its own offset */
	pl->gone_len += len;
	if (pl->gone_len > 4 << 20) {
		WL_SYS(ftruncate(pl->gone, 0));
		WL_SYS(lseek(pl->gone, 0, SEEK_SET));
		WL_SYS(ftruncate(pl->log, 0));
		pl->gone_len = pl->log_len = 0;
		return;
	}
	WL_EQ("size of the log", pl->log_len, WL_SYS(lseek(pl->log, 0, SEEK_END)));
	WL_EQ("offset in an unlinked file", pl->gone_len, WL_SYS(lseek(pl->gone, 0, SEEK_CUR)));
	len = (size_t)WL_SYS(pread(pl->log, buf, 600, (off_t)off));
	wl_verify("log", buf, len, 21, off);
	WL_EQ("pread", len, WL_SYS(pread(pl->gone, buf, len, (off_t)off)));
	wl_verify("unlinked file", buf, len, 22, off);
}

/* A file that comes and goes. */
static void comes_and_goes(struct place *pl, uint64_t gen)
{
	uint8_t buf[3000];
	int fd = make(pl, "sub/short", 0600);

	wl_fill(buf, sizeof(buf), gen, 0);
	wl_write(fd, buf, sizeof(buf));
	WL_SYS(renameat(pl->dfd, "sub/short", pl->dfd, "sub/renamed"));
	wl_pace();
	WL_SYS(close(fd));
	fd = (int)WL_SYS(openat(pl->dfd, "sub/renamed", O_RDONLY | O_CLOEXEC));
	memset(buf, 0, sizeof(buf));
	wl_read(fd, buf, sizeof(buf));
	wl_verify("renamed file", buf, sizeof(buf), gen, 0);
	WL_SYS(unlinkat(pl->dfd, "sub/renamed", 0));
	WL_SYS(close(fd));
}

/* The child writes page gen % PAGES of both mapped files; the parent has asked for it. */
static int child(void *arg)
{
	uint64_t gen = 0;
	size_t i;

	(void)arg;
	while (!sh->stop) {
		if (sh->gen % 2 == 0) {
			wl_sleep_ns(100000);
			continue;
		}
		gen = sh->gen / 2;
		for (i = 0; i < 2; i++) {
			wl_fill(places[i].map + gen % PAGES * WL_PAGE, WL_PAGE, gen, 0);
			wl_fill(places[i].gone_map + gen % PAGES * WL_PAGE, WL_PAGE, gen, 0);
			wl_fill(places[i].other_map + gen % PAGES * WL_PAGE, WL_PAGE, gen, 0);
		}
		sh->gen++;
	}
	return 31;
}

static void mapped_round(uint64_t gen)
{
	uint8_t buf[WL_PAGE];
	size_t i;
	int fd;

	sh->gen = 2 * gen + 1;
	WL_AWAIT(sh->gen == 2 * gen + 2, "the other process");
	for (i = 0; i < 2; i++) {
		wl_verify("shared page", places[i].map + gen % PAGES * WL_PAGE, WL_PAGE, gen, 0);
		wl_verify("shared page of an unlinked file",
			  places[i].gone_map + gen % PAGES * WL_PAGE, WL_PAGE, gen, 0);
		WL_SYS(pread(places[i].map_fd, buf, WL_PAGE, (off_t)(gen % PAGES * WL_PAGE)));
		wl_verify("shared page, by pread", buf, WL_PAGE, gen, 0);
		fd = (int)WL_SYS(openat(places[i].dfd, "other-name", O_RDONLY | O_CLOEXEC));
		WL_SYS(pread(fd, buf, WL_PAGE, (off_t)(gen % PAGES * WL_PAGE)));
		wl_verify("shared page, by another name", buf, WL_PAGE, gen, 0);
		WL_SYS(close(fd));
		if (gen > PAGES) /* an old one, by the other way round */
			wl_verify("old shared page",
				  places[i].map + (gen + 1) % PAGES * WL_PAGE, WL_PAGE,
				  gen + 1 - PAGES, 0);
	}
}

static void cleanup(struct place *pl)
{
	static const char *const files[] = { "sub/deep/target", "link", "hard",	    "log",    "mapped",
					     "sub/p",		"sub/q", "sub/over", "other-name" };
	bool odd = pl->swaps % 2;
	size_t i;

	for (i = 0; i < ARRAY_SIZE(files); i++)
		WL_SYS(unlinkat(pl->dfd, files[i], 0));
	unlinkat(pl->dfd, "late", 0);
	unlinkat(pl->dfd, "late-tmp", 0);
	WL_SYS(unlinkat(pl->dfd, odd ? "sub/dir1/f" : "sub/dir0/f", 0));
	WL_SYS(unlinkat(pl->dfd, odd ? "sub/dir1" : "sub/dir0", AT_REMOVEDIR));
	WL_SYS(unlinkat(pl->dfd, "sub/deep", AT_REMOVEDIR));
	WL_SYS(unlinkat(pl->dfd, "sub", AT_REMOVEDIR));
	WL_SYS(rmdir(pl->dir));
}

int main(void)
{
	uint64_t gen = 0;
	pid_t pid;
	size_t i;

	wl_init();
	sh = wl_shared(sizeof(*sh));
	setup(&places[0], "/dev/shm");
	setup(&places[1], "/tmp");
	pid = wl_spawn(child, NULL);
	wl_ready();
	do {
		gen++;
		mapped_round(gen);
		brief_step();
		for (i = 0; i < 2; i++) {
			check_static(&places[i]);
			grow(&places[i], gen);
			comes_and_goes(&places[i], gen);
			change_names(&places[i]);
			named_late(&places[i], gen - 1);
		}
		wl_pace();
	} while (!wl_stopping());
	sh->stop = 1;
	wl_reap(pid, 31);
	WL_SYS(unlink("/dev/shm/wl-brief"));
	for (i = 0; i < 2; i++) {
		check_static(&places[i]);
		cleanup(&places[i]);
	}
	wl_ok();
}
