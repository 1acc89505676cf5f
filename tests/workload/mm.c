/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Fields of the address space: the heap's end, which grows and shrinks; exe, argv, environ, auxv and
 * the limits in stat; the vdso, called from several threads, whose clocks never go backward and agree
 * with the system call; a rewritten title; memory below the heap's start untouched.
 */
#include "wl.h"

#include <elf.h>
#include <pthread.h>
#include <sys/auxv.h>

static char exe[4096], cmdline[8192], environ_text[65536], auxv[4096], stat_fields[1024];
static size_t cmdline_len, environ_len, auxv_len;
static _Atomic int stop;
static uint8_t *heap;
static size_t heap_len;

static size_t slurp(const char *path, char *buf, size_t max)
{
	int fd = (int)WL_SYS(open(path, O_RDONLY | O_CLOEXEC));
	size_t n = 0;
	ssize_t r;

	while (n < max && (r = WL_SYS(read(fd, buf + n, max - n))) > 0)
		n += (size_t)r;
	close(fd);
	return n;
}

/* Fields 26-28 and 45-51 of stat: code, stack, data, brk, arguments, environment. */
static void limits(char *out, size_t max)
{
	char text[2048] = "", *p, *save = NULL;
	int field = 3;
	size_t n = 0;

	slurp("/proc/self/stat", text, sizeof(text) - 1);
	p = strtok_r(strrchr(text, ')') + 1, " ", &save);
	for (; p; p = strtok_r(NULL, " ", &save), field++)
		if ((field >= 26 && field <= 28) || (field >= 45 && field <= 51))
			n += (size_t)snprintf(out + n, max - n, "%s ", p);
}

static void compare(const char *path, const char *want, size_t len)
{
	static char buf[65536];
	size_t n = slurp(path, buf, sizeof(buf));

	WL_CHECK(n == len && !memcmp(buf, want, len), "%s: expected %zu bytes, got %zu others",
		 path, len, n);
}

static void check_proc(void)
{
	char now[4096] = "";

	WL_SYS(readlink("/proc/self/exe", now, sizeof(now) - 1));
	WL_CHECK(!strcmp(now, exe), "exe: expected %s, got %s", exe, now);
	compare("/proc/self/cmdline", cmdline, cmdline_len);
	compare("/proc/self/environ", environ_text, environ_len);
	compare("/proc/self/auxv", auxv, auxv_len);
	limits(now, sizeof(now));
	WL_CHECK(!strcmp(now, stat_fields), "limits in stat: expected %s, got %s", stat_fields,
		 now);
}

static void heap_step(uint64_t *rng)
{
	size_t want = WL_PAGE * (1 + wl_rand(rng) % 600);
	uint8_t *end = (uint8_t *)(uintptr_t)syscall(SYS_brk, 0);

	WL_CHECK(end == heap + heap_len, "brk: expected %p, got %p", (void *)(heap + heap_len),
		 (void *)end);
	end = (uint8_t *)(uintptr_t)syscall(SYS_brk, heap + want);
	WL_CHECK(end == heap + want, "brk: expected %p, got %p", (void *)(heap + want),
		 (void *)end);
	if (want > heap_len) {
		wl_verify_zero("new heap", heap + heap_len, want - heap_len);
		wl_fill(heap + heap_len, want - heap_len, 1, heap_len);
	}
	heap_len = want;
	wl_verify("heap", heap, heap_len, 1, 0);
}

static uint64_t by_syscall(clockid_t id)
{
	struct timespec ts;

	WL_SYS(syscall(SYS_clock_gettime, id, &ts));
	return (uint64_t)ts.tv_sec * WL_SEC + (uint64_t)ts.tv_nsec;
}

/* Library (vdso) and kernel by turns: one order. CLOCK_REALTIME is the node's and may be set. */
static void *clock_thread(void *arg)
{
	static const clockid_t ids[] = { CLOCK_MONOTONIC, CLOCK_BOOTTIME, CLOCK_MONOTONIC_RAW,
					 CLOCK_MONOTONIC };
	clockid_t id = ids[(uintptr_t)arg % 4];
	uint64_t last = wl_clock(id), now;
	unsigned n;

	while (!stop) {
		for (n = 0; n < 400; n++) {
			now = n % 64 == 63 ? by_syscall(id) : wl_clock(id);
			WL_CHECK(now >= last, "clock %d: expected %llu or more, got %llu less", id,
				 (unsigned long long)last, (unsigned long long)(last - now));
			last = now;
		}
		wl_pace();
	}
	return NULL;
}

static void check_vdso(void)
{
	const Elf64_Ehdr *h = (const Elf64_Ehdr *)getauxval(AT_SYSINFO_EHDR);
	char line[512];
	bool seen = false;
	FILE *f;

	WL_CHECK(h && !memcmp(h->e_ident, ELFMAG, SELFMAG), "vdso: expected ELF at %p",
		 (const void *)h);
	f = fopen("/proc/self/maps", "re");
	WL_CHECK(f, "maps: %s", strerror(errno));
	while (fgets(line, sizeof(line), f))
		if (strstr(line, "[vdso]"))
			seen = strtoul(line, NULL, 16) == (unsigned long)(uintptr_t)h;
	fclose(f);
	WL_CHECK(seen, "maps: expected [vdso] at %p, got another place", (const void *)h);
}

int main(int argc, char **argv)
{
	uint64_t rng = 3;
	pthread_t th[4];
	uintptr_t i;

	wl_init();
	/* a title over the arguments, as servers write it */
	if (argc > 0 && strlen(argv[0]) > 6)
		memcpy(argv[0], "title:", 6);
	for (i = 0; i < 4; i++) /* first, so that their stacks and arenas are there */
		WL_ZERO(pthread_create(&th[i], NULL, clock_thread, (void *)i));
	heap = (uint8_t *)(uintptr_t)syscall(SYS_brk, 0);
	WL_SYS(readlink("/proc/self/exe", exe, sizeof(exe) - 1));
	cmdline_len = slurp("/proc/self/cmdline", cmdline, sizeof(cmdline));
	environ_len = slurp("/proc/self/environ", environ_text, sizeof(environ_text));
	auxv_len = slurp("/proc/self/auxv", auxv, sizeof(auxv));
	limits(stat_fields, sizeof(stat_fields));
	wl_ready();
	while (!wl_stopping()) {
		heap_step(&rng);
		wl_pace();
	}
	/* only now: an open file of procfs cannot be carried */
	check_proc();
	check_vdso();
	stop = 1;
	for (i = 0; i < 4; i++)
		WL_ZERO(pthread_join(th[i], NULL));
	wl_ok();
}
