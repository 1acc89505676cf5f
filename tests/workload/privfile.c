/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Private mappings of files with some pages copied on write: the program's own file (read-only, not at
 * its beginning), a data file in the shared directory; with a child that has copied other pages.
 */
#include "wl.h"

#define PAGES 96

static struct shared {
	_Atomic int stop;
	_Atomic long rounds;
} *sh;

struct map {
	const char *what;
	int fd;
	off_t off;
	size_t pages;
	uint8_t *p;
	uint64_t seed[PAGES]; /* 0: as in the file */
};
static struct map maps[3];
static uint64_t rng = 7;

static void map_file(struct map *m, const char *what, const char *path, off_t off, size_t pages,
		     int prot)
{
	m->what = what;
	m->fd = (int)WL_SYS(open(path, O_RDONLY | O_CLOEXEC));
	m->off = off;
	m->pages = pages;
	m->p = mmap(NULL, pages * WL_PAGE, prot, MAP_PRIVATE, m->fd, off);
	WL_CHECK(m->p != MAP_FAILED, "mmap %s: %s", path, strerror(errno));
}

static void check_page(struct map *m, size_t i)
{
	uint8_t want[WL_PAGE];

	if (m->seed[i]) {
		wl_verify(m->what, m->p + i * WL_PAGE, WL_PAGE, m->seed[i], 0);
		return;
	}
	memset(want, 0, sizeof(want));
	WL_SYS(pread(m->fd, want, WL_PAGE, m->off + (off_t)(i * WL_PAGE)));
	WL_CHECK(!memcmp(want, m->p + i * WL_PAGE, WL_PAGE),
		 "%s: page %zu: expected what is in the file, got something else", m->what, i);
}

static void check_all(void)
{
	size_t m, i;

	for (m = 0; m < ARRAY_SIZE(maps); m++)
		for (i = 0; i < maps[m].pages; i++)
			check_page(&maps[m], i);
}

static void write_page(struct map *m, size_t i)
{
	m->seed[i] = wl_rand(&rng) | 1;
	wl_fill(m->p + i * WL_PAGE, WL_PAGE, m->seed[i], 0);
}

static void step(void)
{
	struct map *m = &maps[wl_rand(&rng) % 2];
	size_t i = wl_rand(&rng) % m->pages;

	if (wl_rand(&rng) % 4) {
		write_page(m, i);
	} else { /* back to what the file says */
		WL_SYS(madvise(m->p + i * WL_PAGE, WL_PAGE, MADV_DONTNEED));
		m->seed[i] = 0;
	}
	check_page(m, wl_rand(&rng) % m->pages);
}

static int child(void *arg)
{
	(void)arg;
	rng = 99;
	while (!sh->stop) {
		step();
		check_all();
		sh->rounds++;
		wl_sleep_ns(5 * WL_MS);
	}
	check_all();
	return 5;
}

int main(int argc, char **argv)
{
	char path[4096];
	uint8_t buf[WL_PAGE];
	struct stat st;
	size_t i, n;
	pid_t pid;
	int fd;

	wl_init();
	sh = wl_shared(sizeof(*sh));
	snprintf(path, sizeof(path), "%s/wl-privfile.XXXXXX", wl_dir(argc, argv));
	fd = (int)WL_SYS(mkstemp(path));
	for (i = 0; i < PAGES; i++) { /* the last page only in part */
		wl_fill(buf, sizeof(buf), 1000 + i, 0);
		wl_write(fd, buf, i + 1 < PAGES ? WL_PAGE : 1000);
	}
	WL_SYS(close(fd));
	map_file(&maps[0], "data file", path, 0, PAGES, PROT_READ | PROT_WRITE);
	fd = (int)WL_SYS(open("/proc/self/exe", O_RDONLY));
	WL_SYS(fstat(fd, &st));
	n = (size_t)st.st_size / WL_PAGE - 1;
	map_file(&maps[1], "own program", "/proc/self/exe", WL_PAGE, n < PAGES ? n : PAGES,
		 PROT_READ | PROT_WRITE);
	map_file(&maps[2], "read-only mapping", path, 16 * WL_PAGE, 16, PROT_READ);
	/* read-only with copied pages: as the dynamic linker leaves relocated data */
	WL_SYS(mprotect(maps[2].p, 16 * WL_PAGE, PROT_READ | PROT_WRITE));
	for (i = 0; i < 16; i += 3)
		write_page(&maps[2], i);
	WL_SYS(mprotect(maps[2].p, 16 * WL_PAGE, PROT_READ));
	for (i = 0; i < 40; i++)
		step();
	pid = wl_spawn(child, NULL);
	wl_ready();
	while (!wl_stopping()) {
		step();
		check_all();
		wl_pace();
		WL_EQ("child that ended", 0, WL_SYS(waitpid(pid, NULL, WNOHANG)));
	}
	check_all();
	sh->stop = 1;
	wl_reap(pid, 5);
	WL_SYS(unlink(path));
	wl_ok();
}
