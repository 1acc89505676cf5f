/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * What programs tell the kernel about their memory: advice of madvise(2) of every sort, also such that
 * changes while the pod is moved; locked memory, present and future; guard regions, in anonymous memory
 * and in a private mapping of a file; sealed mappings; a stack that grows downwards; a reservation of
 * 128 GiB; memory policies; merging; memory that may be written or run, but not both.
 *
 * What a system call can tell is looked at all the time; the flags in smaps before and at the end, since
 * an open file of procfs cannot be carried.
 */
#include "wl.h"

#include <linux/mempolicy.h>

#define LEN (64 * WL_PAGE)
#define RESERVE (128ul << 30)

#ifndef MADV_GUARD_INSTALL
#define MADV_GUARD_INSTALL 102
#define MADV_GUARD_REMOVE 103
#endif
#ifndef PR_SET_MEMORY_MERGE
#define PR_SET_MEMORY_MERGE 67
#define PR_GET_MEMORY_MERGE 68
#endif
#ifndef PR_SET_MDWE
#define PR_SET_MDWE 65
#define PR_GET_MDWE 66
#define PR_MDWE_REFUSE_EXEC_GAIN 1
#endif
#define SYS_MSEAL 462

static struct shared {
	_Atomic int stop, ready;
} *sh;

/* ---- flags in smaps */

struct flags {
	char perms[8], text[128];
};

/* Of the mapping that begins at @at. */
static struct flags flags_of(const void *at)
{
	char line[1024];
	struct flags f = { "", "" };
	FILE *s = fopen("/proc/self/smaps", "re");
	bool mine = false;

	WL_CHECK(s, "open smaps: %s", strerror(errno));
	while (fgets(line, sizeof(line), s)) {
		unsigned long start, end;
		char perms[8];

		if (sscanf(line, "%lx-%lx %7s", &start, &end, perms) == 3) {
			mine = start == (unsigned long)at;
			if (mine)
				strcpy(f.perms, perms);
		} else if (mine && !strncmp(line, "VmFlags:", 8)) {
			snprintf(f.text, sizeof(f.text), "%.*s", (int)strcspn(line + 9, "\n"), line + 9);
		}
	}
	fclose(s);
	WL_CHECK(f.text[0], "a mapping at %p: expected one, got none", at);
	return f;
}

static void same_flags(const char *what, const struct flags *want, const void *at)
{
	struct flags f = flags_of(at);

	WL_CHECK(!strcmp(f.text, want->text) && !strcmp(f.perms, want->perms),
		 "flags of the area '%s': expected %s %s, got %s %s", what, want->perms, want->text, f.perms, f.text);
}

/* ---- areas that keep what they are */

static const struct {
	const char *name;
	int advice[3], prot;
} kept[] = {
	{ "not forked, not dumped", { MADV_DONTFORK, MADV_DONTDUMP }, PROT_READ | PROT_WRITE },
	{ "wiped on fork", { MADV_WIPEONFORK }, PROT_READ | PROT_WRITE },
	{ "huge", { MADV_HUGEPAGE }, PROT_READ | PROT_WRITE },
	{ "not huge", { MADV_NOHUGEPAGE, MADV_SEQUENTIAL }, PROT_READ },
	{ "mergeable", { MADV_MERGEABLE, MADV_RANDOM }, PROT_READ | PROT_WRITE },
	{ "all of it", { MADV_DONTDUMP, MADV_RANDOM, MADV_NOHUGEPAGE }, PROT_NONE },
};
static uint8_t *kept_at[ARRAY_SIZE(kept)];
static struct flags kept_flags[ARRAY_SIZE(kept)];

/* Neighbours may not merge: a hole follows each. */
static uint8_t *area(size_t len, int prot, int flags)
{
	uint8_t *p = wl_map(len + 2 * WL_PAGE, PROT_NONE, MAP_PRIVATE | MAP_NORESERVE), *q;

	q = mmap(p + WL_PAGE, len, prot, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | flags, -1, 0);
	WL_CHECK(q != MAP_FAILED, "mmap: %s", strerror(errno));
	return q;
}

static void make_kept(void)
{
	size_t i, k;

	for (i = 0; i < ARRAY_SIZE(kept); i++) {
		kept_at[i] = area(LEN, PROT_READ | PROT_WRITE, 0);
		wl_fill(kept_at[i], LEN, 100 + i, 0);
		for (k = 0; k < 3 && kept[i].advice[k]; k++)
			WL_SYS(madvise(kept_at[i], LEN, kept[i].advice[k]));
		WL_SYS(mprotect(kept_at[i], LEN, kept[i].prot));
	}
	for (i = 0; i < ARRAY_SIZE(kept); i++)
		kept_flags[i] = flags_of(kept_at[i]);
}

static int forked(void *none)
{
	unsigned char there;

	(void)none;
	WL_EQ("memory that is not forked", -1, mincore(kept_at[0], WL_PAGE, &there));
	wl_verify_zero("memory that is wiped on fork", kept_at[1], LEN);
	wl_verify("memory that is forked", kept_at[2], LEN, 102, 0);
	return 5;
}

/* ---- locked */

static bool locked(void *at)
{
	int r = msync(at, WL_PAGE, MS_ASYNC | MS_INVALIDATE);

	WL_CHECK(r == 0 || errno == EBUSY, "msync: %s", strerror(errno));
	return r < 0;
}

static uint8_t *lock_now, *lock_late, *turned;
static struct flags lock_flags[2];

static void present(const char *what, const uint8_t *at, size_t page, int want)
{
	unsigned char there = 0;

	WL_SYS(mincore((void *)(uintptr_t)(at + page * WL_PAGE), WL_PAGE, &there));
	WL_EQ(what, want, there & 1);
}

static void make_locked(void)
{
	lock_now = area(LEN, PROT_READ | PROT_WRITE, 0);
	lock_late = area(LEN, PROT_READ | PROT_WRITE, 0);
	WL_SYS(mlock(lock_now, LEN));
	WL_SYS(mlock2(lock_late, LEN, MLOCK_ONFAULT));
	lock_late[7 * WL_PAGE] = 1;
	lock_flags[0] = flags_of(lock_now);
	lock_flags[1] = flags_of(lock_late);
}

static void check_locked(void)
{
	WL_EQ("mlock", 1, locked(lock_now));
	WL_EQ("mlock2", 1, locked(lock_late));
	present("a locked page that was never touched", lock_now, 3, 1);
	present("a page locked on fault that was touched", lock_late, 7, 1);
	wl_verify("advice that changes", turned, LEN, 60, 0);
}

static int future(void *arg)
{
	int how = *(int *)arg;
	struct flags f;

	WL_SYS(mlockall(how));
	sh->ready++;
	while (!sh->stop) {
		void *p = wl_map(WL_PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE);

		WL_EQ("a new mapping is locked", 1, locked(p));
		if (!(how & MCL_ONFAULT))
			present("a new locked mapping", p, 0, 1);
		WL_SYS(munmap(p, WL_PAGE));
		wl_sleep_ns(2 * WL_MS);
	}
	f = flags_of(wl_map(WL_PAGE, PROT_READ | PROT_WRITE, MAP_SHARED));
	WL_EQ("a new mapping is locked on fault", (how & MCL_ONFAULT) != 0, strstr(f.text, " lf") != NULL);
	return 6;
}

/* ---- guard regions: of the pages 5 to 8, and one that comes and goes */

static uint8_t *guarded[2], *sealed[2];
static bool guards, seals;

/* Can the page be read? Asked from outside, so that no signal comes. */
static bool readable(const uint8_t *at)
{
	uint8_t byte;
	struct { void *base; size_t len; } l = { &byte, 1 }, r = { (void *)(uintptr_t)at, 1 };

	return syscall(SYS_process_vm_readv, getpid(), &l, 1ul, &r, 1ul, 0ul) == 1;
}

static void make_guards(const char *dir)
{
	char path[256];
	uint8_t *text = wl_map(LEN, PROT_READ | PROT_WRITE, MAP_PRIVATE);
	size_t i;
	int fd;

	snprintf(path, sizeof(path), "%s/wl-memflags.%d", dir, getpid());
	fd = (int)WL_SYS(open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600));
	wl_fill(text, LEN, 31, 0);
	wl_write(fd, text, LEN);
	guarded[0] = area(LEN, PROT_READ | PROT_WRITE, 0);
	wl_fill(guarded[0], LEN, 30, 0);
	guarded[1] = mmap(NULL, LEN, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0);
	WL_CHECK(guarded[1] != MAP_FAILED, "mmap: %s", strerror(errno));
	close(fd);
	guards = madvise(guarded[0] + 5 * WL_PAGE, 4 * WL_PAGE, MADV_GUARD_INSTALL) == 0;
	for (i = 0; guards && i < 2; i++)
		guards = madvise(guarded[i] + 5 * WL_PAGE, 4 * WL_PAGE, MADV_GUARD_INSTALL) == 0;
}

static void check_guards(unsigned step)
{
	bool there = step & 1;
	size_t i, k;

	for (i = 0; guards && i < 2; i++) {
		for (k = 0; k < 30; k++)
			if (readable(guarded[i] + k * WL_PAGE) != (k < 5 || k > 8) && (k != 20 || !there))
				wl_fail("page %zu of guarded area %zu: expected %s, got the other", k, i,
					k < 5 || k > 8 ? "readable" : "a guard");
		WL_EQ("the guard that comes and goes", !there, readable(guarded[i] + 20 * WL_PAGE));
		wl_verify("before the guards", guarded[i], 5 * WL_PAGE, 30 + i, 0);
		wl_verify("after the guards", guarded[i] + 9 * WL_PAGE, 4 * WL_PAGE, 30 + i, 9 * WL_PAGE);
		WL_SYS(madvise(guarded[i] + 20 * WL_PAGE, WL_PAGE, there ? MADV_GUARD_REMOVE : MADV_GUARD_INSTALL));
	}
}

/* ---- sealed */

static void make_seals(void)
{
	size_t i;

	for (i = 0; i < 2; i++) {
		sealed[i] = area(LEN, PROT_READ | PROT_WRITE, 0);
		wl_fill(sealed[i], LEN, 40 + i, 0);
	}
	WL_SYS(mprotect(sealed[1], LEN, PROT_READ));
	for (i = 0, seals = true; i < 2 && seals; i++)
		seals = syscall(SYS_MSEAL, sealed[i], LEN, 0) == 0;
}

static void check_seals(unsigned step)
{
	size_t i;

	for (i = 0; i < 2 && seals; i++) {
		WL_EQ("munmap of sealed memory", -1, munmap(sealed[i], LEN));
		WL_EQ("errno", EPERM, errno);
		WL_EQ("mprotect of sealed memory", -1, mprotect(sealed[i], LEN, PROT_READ | PROT_WRITE | PROT_EXEC));
		wl_verify("sealed memory", sealed[i], LEN, 40 + i + (i ? 0 : step), 0);
	}
	wl_fill(sealed[0], LEN, 40 + step + 1, 0);
}

/* ---- advice that changes all the time */

static const int turns[] = {
	MADV_HUGEPAGE, MADV_NOHUGEPAGE, MADV_SEQUENTIAL, MADV_RANDOM, MADV_NORMAL, MADV_MERGEABLE, MADV_UNMERGEABLE,
	MADV_DONTDUMP, MADV_DODUMP, MADV_DONTFORK, MADV_DOFORK, MADV_WIPEONFORK, MADV_KEEPONFORK,
};

static void turn(unsigned step)
{
	WL_SYS(madvise(turned, LEN, turns[step % ARRAY_SIZE(turns)]));
	if (step % 5 == 0)
		WL_SYS(step % 10 ? munlock(turned, LEN) : mlock2(turned, LEN, step % 20 ? MLOCK_ONFAULT : 0));
}

/* Another one that the same was done to is like it, also if that was never moved. */
static void check_turned(unsigned steps)
{
	uint8_t *was = turned, *twin;
	struct flags f;
	unsigned i, from = steps > 520 ? steps - steps % 260 - 260 : 0;

	twin = area(LEN, PROT_READ | PROT_WRITE, 0);
	turned = twin;
	for (i = from; i < steps; i++)
		turn(i);
	wl_fill(twin, LEN, 60, 0);
	f = flags_of(twin);
	same_flags("turned", &f, was);
}

/* ---- a stack that grows, and a reservation */

static uint8_t *grows, *reserved;
static struct flags grows_flags, reserved_flags;
static size_t grown;

static void make_growing(void)
{
	uint8_t *p = wl_map(1024 * WL_PAGE, PROT_NONE, MAP_PRIVATE | MAP_NORESERVE);

	WL_SYS(munmap(p, 1024 * WL_PAGE));
	grows = mmap(p + 1020 * WL_PAGE, 2 * WL_PAGE, PROT_READ | PROT_WRITE,
		     MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE | MAP_GROWSDOWN, -1, 0);
	WL_CHECK(grows == p + 1020 * WL_PAGE, "mmap: %s", strerror(errno));
	grows_flags = flags_of(grows);
	reserved = wl_map(RESERVE, PROT_NONE, MAP_PRIVATE | MAP_NORESERVE);
	WL_SYS(mprotect(reserved + (RESERVE / 2), LEN, PROT_READ | PROT_WRITE));
	wl_fill(reserved + RESERVE / 2, LEN, 50, 0);
	reserved_flags = flags_of(reserved + RESERVE / 2);
}

/* One page further down, a few times a second; each is touched again. */
static void grow(unsigned step)
{
	size_t i;

	if (step % 200 == 0 && grown < 500) {
		grown++;
		grows[-(long)(grown * WL_PAGE)] = (uint8_t)grown;
	}
	for (i = 1; i <= grown; i++)
		WL_EQ("a page of the stack that grows", (uint8_t)i, grows[-(long)(i * WL_PAGE)]);
	wl_verify("in the reservation", reserved + RESERVE / 2, LEN, 50, 0);
	WL_EQ("the reservation's end", 0, readable(reserved + RESERVE - WL_PAGE));
}

/* ---- policies of a process */

static int policies(void *none)
{
	unsigned long mask = 1, got[16];
	uint8_t *bound = area(LEN, PROT_READ | PROT_WRITE, 0);
	int mode;

	(void)none;
	WL_SYS(syscall(SYS_set_mempolicy, MPOL_INTERLEAVE, &mask, 64ul));
	WL_SYS(syscall(SYS_mbind, bound, LEN, MPOL_BIND, &mask, 64ul, 0));
	sh->ready++;
	while (!sh->stop) {
		WL_SYS(syscall(SYS_get_mempolicy, &mode, got, 1024ul, NULL, 0ul));
		WL_EQ("memory policy", MPOL_INTERLEAVE, mode);
		WL_EQ("its nodes", 1, got[0]);
		WL_SYS(syscall(SYS_get_mempolicy, &mode, got, 1024ul, bound + WL_PAGE, (unsigned long)MPOL_F_ADDR));
		WL_EQ("memory policy of a mapping", MPOL_BIND, mode);
		WL_EQ("its nodes", 1, got[0]);
		wl_sleep_ns(2 * WL_MS);
	}
	return 7;
}

static int merging(void *none)
{
	bool can;

	(void)none;
	can = prctl(PR_SET_MEMORY_MERGE, 1, 0, 0, 0) == 0;
	sh->ready++;
	while (!sh->stop) {
		WL_EQ("merging", can, prctl(PR_GET_MEMORY_MERGE, 0, 0, 0, 0) == 1);
		wl_sleep_ns(2 * WL_MS);
	}
	return 8;
}

/* Memory that may be written is never run. */
static int no_exec_gain(void *none)
{
	(void)none;
	WL_SYS(prctl(PR_SET_MDWE, PR_MDWE_REFUSE_EXEC_GAIN, 0, 0, 0));
	sh->ready++;
	while (!sh->stop) {
		void *p = mmap(NULL, WL_PAGE, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

		WL_CHECK(p == MAP_FAILED, "memory that can be written and run: expected none, got some");
		WL_EQ("PR_GET_MDWE", PR_MDWE_REFUSE_EXEC_GAIN, prctl(PR_GET_MDWE, 0, 0, 0, 0));
		wl_sleep_ns(2 * WL_MS);
	}
	return 9;
}

int main(int argc, char **argv)
{
	static int all = MCL_FUTURE, late = MCL_FUTURE | MCL_ONFAULT;
	pid_t kids[5];
	unsigned step = 0;
	size_t i;

	wl_init();
	sh = wl_shared(sizeof(*sh));
	make_kept();
	make_locked();
	make_guards(wl_dir(argc, argv));
	make_seals();
	make_growing();
	turned = area(LEN, PROT_READ | PROT_WRITE, 0);
	wl_fill(turned, LEN, 60, 0);
	kids[0] = wl_spawn(future, &all);
	kids[1] = wl_spawn(future, &late);
	kids[2] = wl_spawn(policies, NULL);
	kids[3] = wl_spawn(merging, NULL);
	kids[4] = wl_spawn(no_exec_gain, NULL);
	WL_AWAIT(sh->ready == 5, "the children");
	wl_ready();
	while (!wl_stopping()) {
		check_locked();
		check_guards(step);
		check_seals(step);
		grow(step);
		turn(step++);
		wl_pace();
	}
	/* advice given milliseconds before a stop may be lost: all of it once more, should a move have been this very moment */
	for (i = 0; i < 260; i++)
		turn(step++);
	sh->stop = 1;
	for (i = 0; i < ARRAY_SIZE(kids); i++)
		wl_reap(kids[i], 6 + (int)(i ? i - 1 : 0));
	wl_reap(wl_spawn(forked, NULL), 5);
	for (i = 0; i < ARRAY_SIZE(kept); i++) {
		same_flags(kept[i].name, &kept_flags[i], kept_at[i]);
		WL_SYS(mprotect(kept_at[i], LEN, PROT_READ));
		wl_verify(kept[i].name, kept_at[i], LEN, 100 + i, 0);
	}
	same_flags("locked", &lock_flags[0], lock_now);
	same_flags("locked on fault", &lock_flags[1], lock_late);
	same_flags("grows", &grows_flags, grows - grown * WL_PAGE);
	same_flags("in the reservation", &reserved_flags, reserved + RESERVE / 2);
	check_turned(step);
	wl_ok();
}
