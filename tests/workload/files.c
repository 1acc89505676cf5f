/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Regular files in the shared directory: offsets that fork and dup share and those that they do not,
 * open flags, close-on-exec, append by two processes, an unlinked file with contents, directories open with a position, /dev/null and its like, fds with numbers far apart.
 */
#include "wl.h"

#include <dirent.h>
#include <sys/sysmacros.h>

#define RECORD 64

static struct shared {
	_Atomic int stop;
	_Atomic uint64_t turn; /* odd: the child's */
	_Atomic uint64_t appended[2];
} *sh;

static char path[4096], path2[4096];
static int fd, dup_fd, other, append, gone, rdonly, wronly, high, opath, sync_fd;
static int proc_fd, proc_pos_fd, null_fd, zero_fd, full_fd, urandom_fd, dir_fd;
static uint64_t pos, gone_len;
static DIR *dir;

static void check_flags(const char *what, int f, int flags, int fdflags)
{
	WL_EQ(what, flags, WL_SYS(fcntl(f, F_GETFL)) & ~0100000); /* without O_LARGEFILE */
	WL_EQ(what, fdflags, WL_SYS(fcntl(f, F_GETFD)));
}

/* Parent and child write by turns at the one offset that they share. */
static void write_record(void)
{
	uint8_t buf[RECORD];

	pos = sh->turn * RECORD;
	WL_EQ("shared offset", pos, WL_SYS(lseek(sh->turn % 3 ? fd : dup_fd, 0, SEEK_CUR)));
	wl_fill(buf, RECORD, 1, pos);
	wl_write(sh->turn % 5 ? fd : dup_fd, buf, RECORD);
	sh->turn++;
}

static void append_record(size_t who)
{
	uint64_t rec[8];
	size_t i;

	for (i = 0; i < 8; i++)
		rec[i] = wl_word(who + 100, sh->appended[who]);
	rec[0] = who;
	rec[1] = sh->appended[who]++;
	wl_write(append, rec, sizeof(rec));
}

static int child(void *arg)
{
	(void)arg;
	while (!sh->stop) {
		if (sh->turn % 2)
			write_record();
		append_record(1);
		wl_sleep_ns(WL_MS);
	}
	return 61;
}

static void setup(const char *base)
{
	uint8_t buf[WL_PAGE];
	char p3[4200];

	snprintf(path, sizeof(path), "%s/wl-files.XXXXXX", base);
	fd = (int)WL_SYS(mkstemp(path));
	dup_fd = (int)WL_SYS(dup(fd));
	high = (int)WL_SYS(fcntl(fd, F_DUPFD_CLOEXEC, 700));
	rdonly = (int)WL_SYS(open(path, O_RDONLY | O_CLOEXEC | O_NOATIME));
	wronly = (int)WL_SYS(open(path, O_WRONLY | O_NONBLOCK));
	opath = (int)WL_SYS(open(path, O_PATH | O_CLOEXEC));
	sync_fd = (int)WL_SYS(open(path, O_RDWR | O_DSYNC | O_CLOEXEC));
	snprintf(path2, sizeof(path2), "%s/wl-append.XXXXXX", base);
	other = (int)WL_SYS(mkstemp(path2));
	append = (int)WL_SYS(open(path2, O_RDWR | O_APPEND));
	snprintf(p3, sizeof(p3), "%s/wl-gone.XXXXXX", base);
	gone = (int)WL_SYS(mkstemp(p3));
	wl_fill(buf, sizeof(buf), 3, 0);
	wl_write(gone, buf, WL_PAGE);
	wl_fill(buf, sizeof(buf), 3, WL_PAGE);
	wl_write(gone, buf, WL_PAGE);
	gone_len = 2 * WL_PAGE;
	WL_SYS(unlink(p3));
	null_fd = (int)WL_SYS(open("/dev/null", O_RDWR));
	zero_fd = (int)WL_SYS(open("/dev/zero", O_RDONLY));
	full_fd = (int)WL_SYS(open("/dev/full", O_WRONLY));
	urandom_fd = (int)WL_SYS(open("/dev/urandom", O_RDONLY | O_CLOEXEC));
	dir_fd = (int)WL_SYS(open(base, O_RDONLY | O_DIRECTORY | O_CLOEXEC));
	proc_fd = (int)WL_SYS(open("/proc/self/status", O_RDONLY));
	proc_pos_fd = (int)WL_SYS(open("/proc/self/environ", O_RDONLY | O_CLOEXEC));
	WL_SYS(lseek(proc_pos_fd, 3, SEEK_SET));
	dir = opendir("/usr/bin");
	WL_CHECK(dir, "opendir: %s", strerror(errno));
}

static void check_all_flags(void)
{
	check_flags("flags of a plain file", fd, O_RDWR, 0);
	check_flags("flags of its dup", dup_fd, O_RDWR, 0);
	check_flags("flags of a high fd", high, O_RDWR, FD_CLOEXEC);
	check_flags("flags of a read-only file", rdonly, O_RDONLY | O_NOATIME, FD_CLOEXEC);
	check_flags("flags of a write-only file", wronly, O_WRONLY | O_NONBLOCK, 0);
	check_flags("flags of a path fd", opath, O_PATH, FD_CLOEXEC);
	check_flags("flags of a synchronous file", sync_fd, O_RDWR | O_DSYNC, FD_CLOEXEC);
	check_flags("flags of an appending file", append, O_RDWR | O_APPEND, 0);
	errno = 0;
	WL_EQ("write to a read-only fd", -1, write(rdonly, "", 1));
	WL_EQ("errno", EBADF, errno);
	errno = 0;
	WL_EQ("fd that was never open", -1, fcntl(500, F_GETFD));
	WL_EQ("errno", EBADF, errno);
}

static void check_same(int a, int b)
{
	struct stat sa, sb;

	WL_SYS(fstat(a, &sa));
	WL_SYS(fstat(b, &sb));
	WL_EQ("inode", sa.st_ino, sb.st_ino);
	WL_EQ("device", sa.st_dev, sb.st_dev);
}

static void check_devices(void)
{
	uint8_t buf[64];
	struct stat st;

	WL_EQ("write to /dev/null", 64, write(null_fd, buf, 64));
	WL_EQ("read from /dev/null", 0, read(null_fd, buf, 64));
	WL_EQ("read from /dev/zero", 64, read(zero_fd, buf, 64));
	wl_verify_zero("/dev/zero", buf, 64);
	errno = 0;
	WL_EQ("write to /dev/full", -1, write(full_fd, buf, 64));
	WL_EQ("errno", ENOSPC, errno);
	WL_EQ("read from /dev/urandom", 64, read(urandom_fd, buf, 64));
	WL_SYS(fstat(null_fd, &st));
	WL_EQ("device number", makedev(1, 3), st.st_rdev);
}

/* The unlinked file grows and keeps what it had. */
static void check_gone(uint64_t round)
{
	uint8_t buf[WL_PAGE];
	struct stat st;
	uint64_t off = wl_mix(round) % (gone_len - WL_PAGE);

	if (gone_len < 1 << 20) {
		wl_fill(buf, 100, 3, gone_len);
		WL_EQ("pwrite", 100, WL_SYS(pwrite(gone, buf, 100, (off_t)gone_len)));
		gone_len += 100;
	}
	WL_SYS(fstat(gone, &st));
	WL_EQ("size of an unlinked file", gone_len, st.st_size);
	WL_EQ("its links", 0, st.st_nlink);
	WL_EQ("its offset", 2 * WL_PAGE, WL_SYS(lseek(gone, 0, SEEK_CUR)));
	WL_EQ("pread", WL_PAGE, WL_SYS(pread(gone, buf, WL_PAGE, (off_t)off)));
	wl_verify("unlinked file", buf, WL_PAGE, 3, off);
}

/* What both have written so far, by fds of their own with offsets of their own. */
static void check_contents(uint64_t round)
{
	uint8_t buf[4 * RECORD];
	uint64_t at = (uint64_t)WL_SYS(lseek(rdonly, 0, SEEK_CUR));
	ssize_t n = WL_SYS(read(rdonly, buf, sizeof(buf)));

	wl_verify("file", buf, (size_t)n, 1, at);
	WL_EQ("own offset", at + (uint64_t)n, WL_SYS(lseek(rdonly, 0, SEEK_CUR)));
	if (round % 500 == 0)
		WL_SYS(lseek(rdonly, 0, SEEK_SET));
	WL_EQ("offset of an fd that was not used", 0, WL_SYS(lseek(sync_fd, 0, SEEK_CUR)));
	check_same(fd, high);
	check_same(fd, rdonly);
	check_same(append, other);
}

static void check_proc(void)
{
	char buf[4096], *p;
	ssize_t n;

	WL_SYS(lseek(proc_fd, 0, SEEK_SET));
	n = WL_SYS(read(proc_fd, buf, sizeof(buf) - 1));
	buf[n] = 0;
	p = strstr(buf, "\nPid:");
	WL_CHECK(p, "/proc/self/status without a pid");
	WL_EQ("pid in /proc/self/status", getpid(), strtol(p + 5, NULL, 10));
	WL_EQ("offset in /proc/self/environ", 3, WL_SYS(lseek(proc_pos_fd, 0, SEEK_CUR)));
}

/* A directory being read: the rest comes after the move, each name once. */
static void read_dir_on(void)
{
	static uint64_t seen, hash, names, first_hash;
	struct dirent *de;
	int i;

	for (i = 0; i < 20; i++) {
		const char *p;
		uint64_t h = 1;

		errno = 0;
		de = readdir(dir);
		if (!de) {
			WL_EQ("errno of readdir", 0, errno);
			if (names) {
				WL_EQ("names in /usr/bin", names, seen);
				WL_EQ("their hash", first_hash, hash);
			}
			names = seen;
			first_hash = hash;
			seen = hash = 0;
			rewinddir(dir);
			return;
		}
		for (p = de->d_name; *p; p++)
			h = wl_mix(h + (uint8_t)*p);
		hash += h;
		seen++;
	}
}

/* Each one's records are whole, in order, none missing. */
static void check_append(void)
{
	uint64_t rec[8], next[2] = { 0, 0 };
	size_t i;

	WL_SYS(lseek(other, 0, SEEK_SET));
	while (WL_SYS(read(other, rec, sizeof(rec))) == (long)sizeof(rec)) {
		WL_CHECK(rec[0] < 2, "appended record: got one of writer %llu",
			 (unsigned long long)rec[0]);
		WL_EQ("number of an appended record", next[rec[0]], rec[1]);
		for (i = 2; i < 8; i++)
			WL_EQ("appended record", wl_word(rec[0] + 100, rec[1]), rec[i]);
		next[rec[0]]++;
	}
	WL_EQ("records of the parent", sh->appended[0], next[0]);
	WL_EQ("records of the child", sh->appended[1], next[1]);
}

int main(int argc, char **argv)
{
	uint64_t round = 0;
	pid_t pid;

	wl_init();
	sh = wl_shared(sizeof(*sh));
	setup(wl_dir(argc, argv));
	pid = wl_spawn(child, NULL);
	wl_ready();
	while (!wl_stopping()) {
		if (sh->turn % 2 == 0)
			write_record();
		append_record(0);
		check_all_flags();
		check_devices();
		check_proc();
		check_gone(round);
		check_contents(round++);
		read_dir_on();
		wl_pace();
	}
	sh->stop = 1;
	wl_reap(pid, 61);
	check_all_flags();
	check_append();
	WL_EQ("shared offset at the end", sh->turn * RECORD, WL_SYS(lseek(high, 0, SEEK_CUR)));
	WL_SYS(faccessat(dir_fd, strrchr(path, '/') + 1, F_OK, 0));
	WL_SYS(unlink(path));
	WL_SYS(unlink(path2));
	wl_ok();
}
