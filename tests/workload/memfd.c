/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * memfd: one file that a child maps and writes through, another child writes with pwrite(2), and the
 * parent reads by both ways; it grows all the time. Others: sealed, never mapped, mapped privately,
 * mapped but closed, with a hole.
 */
#include "wl.h"

#define PAGES 256

struct shared {
	_Atomic int stop;
	_Atomic uint64_t mapped, written; /* last generation finished by either writer */
};

static struct shared *sh;
static int fd, sealed, plain, priv;
static uint8_t *map_closed, *map_priv, *map_ro;

/* Even pages belong to the writer by mapping, odd ones to the writer by pwrite. */
static size_t page_of(uint64_t gen)
{
	return gen % (PAGES / 2) * 2;
}

static int by_mapping(void *arg)
{
	uint8_t *p = mmap(NULL, PAGES * WL_PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	uint64_t gen = 0;

	(void)arg;
	WL_CHECK(p != MAP_FAILED, "mmap: %s", strerror(errno));
	while (!sh->stop) {
		gen++;
		wl_fill(p + page_of(gen) * WL_PAGE, WL_PAGE, gen, 0);
		sh->mapped = gen;
		if (gen > 1) {
			uint64_t other = sh->written;
			size_t i = page_of(other) + 1;

			if (other && sh->written < other + PAGES / 4)
				wl_verify("page written by pwrite, in a mapping", p + i * WL_PAGE,
					  WL_PAGE, other + 1000000, 0);
		}
		wl_pace();
	}
	return 21;
}

static int by_pwrite(void *arg)
{
	uint8_t page[WL_PAGE];
	uint64_t gen = 0;

	(void)arg;
	while (!sh->stop) {
		gen++;
		wl_fill(page, WL_PAGE, gen + 1000000, 0);
		WL_EQ("pwrite", WL_PAGE,
		      WL_SYS(pwrite(fd, page, WL_PAGE, (off_t)((page_of(gen) + 1) * WL_PAGE))));
		sh->written = gen;
		wl_pace();
	}
	return 22;
}

/* A generation that cannot be overwritten while it is being looked at. */
static void check_both(uint8_t *p)
{
	uint64_t m = sh->mapped, w = sh->written;
	uint8_t page[WL_PAGE];

	if (m) {
		size_t i = page_of(m);

		WL_EQ("pread", WL_PAGE, WL_SYS(pread(fd, page, WL_PAGE, (off_t)(i * WL_PAGE))));
		if (sh->mapped < m + PAGES / 4)
			wl_verify("page written in a mapping, by pread", page, WL_PAGE, m, 0);
	}
	if (w) {
		uint8_t *q = p + (page_of(w) + 1) * WL_PAGE;

		memcpy(page, q, WL_PAGE);
		if (sh->written < w + PAGES / 4)
			wl_verify("page written by pwrite, in a mapping", page, WL_PAGE,
				  w + 1000000, 0);
	}
}

static void check_link(int f, const char *want)
{
	char path[64], to[256] = "";

	snprintf(path, sizeof(path), "/proc/self/fd/%d", f);
	WL_SYS(readlink(path, to, sizeof(to) - 1));
	WL_CHECK(!strcmp(to, want), "link of fd %d: expected %s, got %s", f, want, to);
}

static void setup(void)
{
	uint8_t page[WL_PAGE];
	int f;

	fd = (int)WL_SYS(memfd_create("wl-main", MFD_CLOEXEC));
	WL_SYS(ftruncate(fd, PAGES * WL_PAGE));
	sealed = (int)WL_SYS(memfd_create("wl-sealed", MFD_CLOEXEC | MFD_ALLOW_SEALING));
	wl_fill(page, WL_PAGE, 1, 0);
	wl_write(sealed, page, 3000);
	WL_SYS(fcntl(sealed, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE));
	plain = (int)WL_SYS(memfd_create("wl-plain", 0));
	wl_fill(page, WL_PAGE, 2, 0);
	wl_write(plain, page, WL_PAGE);
	/* a hole of a gigabyte */
	WL_EQ("pwrite", 1000, WL_SYS(pwrite(plain, page, 1000, 1 << 30)));
	f = (int)WL_SYS(memfd_create("wl-closed", MFD_CLOEXEC));
	WL_SYS(ftruncate(f, 4 * WL_PAGE));
	map_closed = mmap(NULL, 4 * WL_PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, f, 0);
	WL_CHECK(map_closed != MAP_FAILED, "mmap: %s", strerror(errno));
	WL_SYS(close(f));
	wl_fill(map_closed, WL_PAGE, 3, 0);
	priv = (int)WL_SYS(memfd_create("wl-priv", MFD_CLOEXEC));
	wl_fill(page, WL_PAGE, 4, 0);
	wl_write(priv, page, WL_PAGE);
	wl_write(priv, page, WL_PAGE);
	map_priv = mmap(NULL, 2 * WL_PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE, priv, 0);
	WL_CHECK(map_priv != MAP_FAILED, "mmap: %s", strerror(errno));
	wl_fill(map_priv + WL_PAGE, WL_PAGE, 5, 0);
	map_ro = mmap(NULL, WL_PAGE, PROT_READ, MAP_SHARED, priv, 0);
	WL_CHECK(map_ro != MAP_FAILED, "mmap: %s", strerror(errno));
}

static void check_others(uint64_t gen)
{
	uint8_t page[WL_PAGE];

	memset(page, 0, sizeof(page));
	WL_EQ("size of a sealed memfd", 3000, WL_SYS(pread(sealed, page, WL_PAGE, 0)));
	wl_verify("sealed memfd", page, 3000, 1, 0);
	WL_EQ("seals", F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE,
	      WL_SYS(fcntl(sealed, F_GET_SEALS)));
	errno = 0;
	WL_EQ("write to a sealed memfd", -1, pwrite(sealed, page, 1, 0));
	WL_EQ("errno", EPERM, errno);
	WL_EQ("close-on-exec", FD_CLOEXEC, WL_SYS(fcntl(sealed, F_GETFD)));
	WL_EQ("close-on-exec", 0, WL_SYS(fcntl(plain, F_GETFD)));
	WL_EQ("size with a hole", (1 << 30) + 1000, WL_SYS(lseek(plain, 0, SEEK_END)));
	WL_EQ("end of the hole", 1 << 30, WL_SYS(lseek(plain, WL_PAGE, SEEK_DATA)));
	WL_EQ("pread", 1000, WL_SYS(pread(plain, page, WL_PAGE, 1 << 30)));
	wl_verify("memfd behind a hole", page, 1000, 2, 0);
	wl_verify("memfd that is only mapped", map_closed, WL_PAGE, 3, 0);
	WL_EQ("counter in it", gen - 1, *(uint64_t *)(map_closed + WL_PAGE));
	*(uint64_t *)(map_closed + WL_PAGE) = gen;
	wl_verify("private page of a memfd, untouched", map_priv, WL_PAGE, 4, 0);
	wl_verify("private page of a memfd, copied", map_priv + WL_PAGE, WL_PAGE, 5, 0);
	wl_verify("read-only shared page", map_ro, WL_PAGE, 4, 0);
	WL_EQ("pread", WL_PAGE, WL_SYS(pread(priv, page, WL_PAGE, WL_PAGE)));
	wl_verify("memfd under a copied page", page, WL_PAGE, 4, 0);
	check_link(fd, "/memfd:wl-main (deleted)");
	check_link(plain, "/memfd:wl-plain (deleted)");
}

int main(void)
{
	uint64_t gen = 0;
	uint8_t *p;
	pid_t a, b;

	wl_init();
	sh = wl_shared(sizeof(*sh));
	setup();
	p = mmap(NULL, PAGES * WL_PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	WL_CHECK(p != MAP_FAILED, "mmap: %s", strerror(errno));
	a = wl_spawn(by_mapping, NULL);
	b = wl_spawn(by_pwrite, NULL);
	WL_AWAIT(sh->mapped && sh->written, "writers");
	wl_ready();
	while (!wl_stopping()) {
		check_both(p);
		check_others(++gen);
		/* the offset belongs to the open file, which the children share */
		WL_EQ("offset", (off_t)(gen - 1) * 8, WL_SYS(lseek(fd, 0, SEEK_CUR)));
		WL_SYS(lseek(fd, 8, SEEK_CUR));
		wl_pace();
	}
	sh->stop = 1;
	wl_reap(a, 21);
	wl_reap(b, 22);
	check_both(p);
	WL_SYS(ftruncate(fd, (PAGES + 1) * WL_PAGE));
	check_others(++gen);
	wl_ok();
}
