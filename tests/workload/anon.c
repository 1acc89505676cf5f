/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Anonymous memory: patterns, holes, dropped pages, PROT_NONE and read-only pages with contents,
 * protections that flip, areas that move and grow, a stack that grows, flags of madvise(2), and 64 MiB
 * with random writes whose sum is kept up to date. The areas' lines in /proc/self/maps are compared.
 */
#include "wl.h"

#include <sys/resource.h>

#define BIG (64ul << 20)
#define SMALL (64 * WL_PAGE)

static uint64_t *big, big_sum, rng = 42;

/* One area whose every page is in a known state. */
struct area {
	uint8_t *p;
	size_t pages;
	uint64_t seed[256]; /* per page; 0 = zeroes */
	int prot;
};
static struct area areas[6];

static void page_write(struct area *a, size_t i)
{
	a->seed[i] = wl_rand(&rng) | 1;
	wl_fill(a->p + i * WL_PAGE, WL_PAGE, a->seed[i], 0);
}

static void area_protect(struct area *a, int prot)
{
	WL_SYS(mprotect(a->p, a->pages * WL_PAGE, prot));
	a->prot = prot;
}

static void area_verify(struct area *a)
{
	int prot = a->prot;
	size_t i;

	if (!(prot & PROT_READ))
		area_protect(a, PROT_READ);
	for (i = 0; i < a->pages; i++)
		if (a->seed[i])
			wl_verify("page", a->p + i * WL_PAGE, WL_PAGE, a->seed[i], 0);
		else
			wl_verify_zero("empty page", a->p + i * WL_PAGE, WL_PAGE);
	if (prot != a->prot)
		area_protect(a, prot);
}

/* Writes, drops, moves, grows, shrinks. */
static void area_step(struct area *a)
{
	size_t i = wl_rand(&rng) % a->pages, n;
	int prot = a->prot;
	uint8_t *to;

	switch (wl_rand(&rng) % 8) {
	case 0: /* drop: reads as zeroes from now on */
		WL_SYS(madvise(a->p + i * WL_PAGE, WL_PAGE, MADV_DONTNEED));
		a->seed[i] = 0;
		break;
	case 1: /* move */
		to = wl_map(a->pages * WL_PAGE, PROT_NONE, MAP_PRIVATE);
		to = mremap(a->p, a->pages * WL_PAGE, a->pages * WL_PAGE,
			    MREMAP_MAYMOVE | MREMAP_FIXED, to);
		WL_CHECK(to != MAP_FAILED, "mremap: expected success, got %s", strerror(errno));
		a->p = to;
		break;
	case 2: /* grow or shrink */
		n = 1 + wl_rand(&rng) % 256;
		to = mremap(a->p, a->pages * WL_PAGE, n * WL_PAGE, MREMAP_MAYMOVE);
		WL_CHECK(to != MAP_FAILED, "mremap: expected success, got %s", strerror(errno));
		for (i = a->pages; i < n; i++)
			a->seed[i] = 0;
		a->p = to;
		a->pages = n;
		break;
	case 3: /* one page with a protection of its own, which splits the area */
		area_protect(a, PROT_READ | PROT_WRITE);
		page_write(a, i);
		WL_SYS(mprotect(a->p + i * WL_PAGE, WL_PAGE, PROT_NONE));
		wl_pace();
		area_protect(a, prot);
		break;
	case 4:
		area_verify(a);
		break;
	default:
		if (!(prot & PROT_WRITE))
			area_protect(a, PROT_READ | PROT_WRITE);
		for (n = 0; n < 4; n++)
			page_write(a, (i + n) % a->pages);
		if (prot != a->prot)
			area_protect(a, prot);
	}
}

static void big_step(void)
{
	size_t n;

	for (n = 0; n < 300; n++) {
		size_t i = wl_rand(&rng) % (BIG / 8);
		uint64_t v = wl_rand(&rng);

		big_sum += v - big[i];
		big[i] = v;
	}
}

static void big_verify(void)
{
	uint64_t sum = 0;
	size_t i;

	for (i = 0; i < BIG / 8; i++)
		sum += big[i];
	WL_EQ("sum of 64 MiB", big_sum, sum);
}

/* Frames of a page each with a pattern, verified on the way back. */
static __attribute__((noinline)) uint64_t deep(uint64_t depth)
{
	volatile uint8_t frame[WL_PAGE];
	uint64_t r = 0;

	wl_fill((void *)(uintptr_t)frame, sizeof(frame), depth, 0);
	if (depth)
		r = deep(depth - 1);
	else
		wl_pace();
	wl_verify("stack frame", (const void *)(uintptr_t)frame, sizeof(frame), depth, 0);
	return r + frame[0];
}

/* Areas that stay as they are; their lines in maps, and flags in smaps, too. */
static struct {
	uint8_t *ro, *none, *exec, *huge, *locked, *dontfork, *wipe, *dontdump, *noreserve, *guard;
} fixed;

static uint8_t *fixed_area(int prot, int advice)
{
	/* pages of another protection around it keep it apart from its neighbours */
	uint8_t *p = wl_map(SMALL + 2 * WL_PAGE, prot == PROT_NONE ? PROT_READ : PROT_NONE,
			    MAP_PRIVATE);

	p += WL_PAGE;
	WL_SYS(mprotect(p, SMALL, PROT_READ | PROT_WRITE));
	wl_fill(p + WL_PAGE, SMALL - 2 * WL_PAGE, (uintptr_t)p, 0);
	if (advice >= 0)
		WL_SYS(madvise(p, SMALL, advice));
	WL_SYS(mprotect(p, SMALL, prot));
	return p;
}

static void check_fixed(uint8_t *p, int prot, const char *perms, const char *flag)
{
	char line[512], want[64], *flags;
	bool in = false, seen = false;
	FILE *f = fopen("/proc/self/smaps", "re");

	snprintf(want, sizeof(want), "%lx-%lx %s", (unsigned long)p, (unsigned long)(p + SMALL),
		 perms);
	WL_CHECK(f, "open smaps: %s", strerror(errno));
	while (fgets(line, sizeof(line), f)) {
		if (!strncmp(line, want, strlen(want)))
			in = true;
		flags = in && !strncmp(line, "VmFlags:", 8) ? line : NULL;
		if (!flags)
			continue;
		seen = true;
		WL_CHECK(!flag || strstr(flags, flag), "flags of %s: expected%s, got %s", want,
			 flag, flags);
		break;
	}
	fclose(f);
	WL_CHECK(seen, "maps: expected %s, got nothing of the kind", want);
	if (!(prot & PROT_READ))
		WL_SYS(mprotect(p, SMALL, PROT_READ));
	wl_verify_zero("first page", p, WL_PAGE);
	wl_verify("middle", p + WL_PAGE, SMALL - 2 * WL_PAGE, (uintptr_t)p, 0);
	wl_verify_zero("last page", p + SMALL - WL_PAGE, WL_PAGE);
	if (!(prot & PROT_READ))
		WL_SYS(mprotect(p, SMALL, prot));
}

static int child_sees(void *arg)
{
	(void)arg;
	wl_verify_zero("area wiped on fork", fixed.wipe, SMALL);
	wl_verify("private area in the child", fixed.ro + WL_PAGE, WL_PAGE, (uintptr_t)fixed.ro, 0);
	WL_EQ("mincore of an area not for children", -1,
	      mprotect(fixed.dontfork, WL_PAGE, PROT_READ));
	return 3;
}

static void fixed_setup(void)
{
	fixed.ro = fixed_area(PROT_READ, -1);
	fixed.none = fixed_area(PROT_NONE, -1);
	fixed.exec = fixed_area(PROT_READ | PROT_EXEC, -1);
	fixed.huge = fixed_area(PROT_READ | PROT_WRITE, MADV_NOHUGEPAGE);
	fixed.locked = fixed_area(PROT_READ | PROT_WRITE, -1);
	WL_SYS(mlock(fixed.locked, SMALL));
	fixed.dontfork = fixed_area(PROT_READ | PROT_WRITE, MADV_DONTFORK);
	fixed.wipe = fixed_area(PROT_READ | PROT_WRITE, MADV_WIPEONFORK);
	fixed.dontdump = fixed_area(PROT_READ | PROT_WRITE, MADV_DONTDUMP);
}

/* At the end only: an open file of procfs cannot be carried. */
static void fixed_verify(void)
{
	check_fixed(fixed.ro, PROT_READ, "r--p", NULL);
	check_fixed(fixed.none, PROT_NONE, "---p", NULL);
	check_fixed(fixed.exec, PROT_READ | PROT_EXEC, "r-xp", NULL);
	check_fixed(fixed.huge, PROT_READ | PROT_WRITE, "rw-p", " nh");
	check_fixed(fixed.locked, PROT_READ | PROT_WRITE, "rw-p", " lo");
	check_fixed(fixed.dontfork, PROT_READ | PROT_WRITE, "rw-p", " dc");
	check_fixed(fixed.wipe, PROT_READ | PROT_WRITE, "rw-p", " wf");
	check_fixed(fixed.dontdump, PROT_READ | PROT_WRITE, "rw-p", " dd");
	wl_reap(wl_spawn(child_sees, NULL), 3);
}

int main(void)
{
	static const int prots[] = { PROT_READ | PROT_WRITE, PROT_READ, PROT_NONE };
	uint8_t *hole;
	size_t i, k, round;

	wl_init();
	big = wl_map(BIG, PROT_READ | PROT_WRITE, MAP_PRIVATE);
	/* address space that is never touched but for two pages */
	hole = wl_map(16ul << 30, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_NORESERVE);
	wl_fill(hole + (5ul << 30), WL_PAGE, 5, 0);
	wl_fill(hole + (11ul << 30), WL_PAGE, 11, 0);
	for (i = 0; i < BIG / 8; i += 8) {
		big[i] = wl_rand(&rng);
		big_sum += big[i];
	}
	for (i = 0; i < ARRAY_SIZE(areas); i++) {
		areas[i].pages = 64;
		areas[i].p = wl_map(64 * WL_PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE);
		areas[i].prot = PROT_READ | PROT_WRITE;
		for (k = 0; k < 64; k += 3)
			page_write(&areas[i], k);
		area_protect(&areas[i], prots[i % 3]);
	}
	fixed_setup();
	wl_ready();
	for (round = 0; !wl_stopping(); round++) {
		big_step();
		for (i = 0; i < ARRAY_SIZE(areas); i++)
			area_step(&areas[i]);
		deep(wl_rand(&rng) % (round % 100 ? 8 : 400));
		if (round % 100 == 50) {
			big_verify();
			wl_reap(wl_spawn(child_sees, NULL), 3);
		}
		wl_verify("page in a hole", hole + (5ul << 30), WL_PAGE, 5, 0);
		wl_verify("page in a hole", hole + (11ul << 30), WL_PAGE, 11, 0);
		wl_pace();
	}
	big_verify();
	fixed_verify();
	wl_verify_zero("a hole", hole, 16 << 20);
	for (i = 0; i < ARRAY_SIZE(areas); i++)
		area_verify(&areas[i]);
	wl_ok();
}
