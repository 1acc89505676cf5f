/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Workload programs: one per kind of kernel resource. Each sets its resource up with the multiplicity
 * that real programs have (shared, dup'ed, inherited, in the middle of an operation), prints "ready",
 * and then uses and verifies it without a pause, so that it can be moved at any moment, many times.
 * On SIGTERM it verifies everything once more, prints "ok" and exits 0. On the first mismatch it
 * prints "FAIL: what: expected, got" and exits 1.
 *
 * SIGTERM is blocked everywhere and found by sigpending(): so no handler runs, and a system call that
 * answers EINTR has been disturbed from outside, which is a failure. The programs do not use a line
 * of podmigrate's own code.
 *
 * Directory for files that both nodes see: argv[1], else $WL_SHARED, else /tmp.
 */
#ifndef TESTS_WORKLOAD_WL_H
#define TESTS_WORKLOAD_WL_H

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define ARRAY_SIZE(a) (sizeof(a) / sizeof((a)[0]))
#define WL_PAGE 4096ul
#define WL_MS 1000000ull
#define WL_SEC 1000000000ull
/* A wait for another process or thread that takes this long will never end. */
#define WL_STALL (60 * WL_SEC)

static pid_t wl_main_pid;

__attribute__((format(printf, 1, 2), noreturn, unused)) static void wl_fail(const char *fmt, ...)
{
	char line[512] = "FAIL: ";
	va_list ap;
	size_t n;

	va_start(ap, fmt);
	vsnprintf(line + 6, sizeof(line) - 8, fmt, ap);
	va_end(ap);
	n = strlen(line);
	line[n++] = '\n';
	if (write(STDOUT_FILENO, line, n) < 0)
		_exit(2);
	if (getpid() != wl_main_pid)
		kill(wl_main_pid, SIGUSR2);
	_exit(1);
}

#define WL_CHECK(cond, ...)                   \
	do {                                  \
		if (!(cond))                  \
			wl_fail(__VA_ARGS__); \
	} while (0)

/* A system call that must not fail, not by EINTR either. */
#define WL_SYS(call)                                                                            \
	({                                                                                      \
		long wl_r_ = (long)(call);                                                      \
		if (wl_r_ < 0)                                                                  \
			wl_fail("%s (%s:%d): expected success, got %s", #call, __FILE__, __LINE__, \
				strerror(errno));                                               \
		wl_r_;                                                                          \
	})

/* A pthread-style call that must answer 0. */
#define WL_ZERO(call)                                                                            \
	do {                                                                                     \
		int wl_r_ = (call);                                                              \
		if (wl_r_)                                                                       \
			wl_fail("%s (%s:%d): expected 0, got %d (%s)", #call, __FILE__, __LINE__, \
				wl_r_, strerror(wl_r_));                                         \
	} while (0)

#define WL_EQ(what, expected, got) wl_eq(what, (long long)(expected), (long long)(got), __LINE__)

static inline void wl_eq(const char *what, long long expected, long long got, int line)
{
	if (expected != got)
		wl_fail("%s (line %d): expected %lld (0x%llx), got %lld (0x%llx)", what, line,
			expected, (unsigned long long)expected, got, (unsigned long long)got);
}

static inline void wl_on_child_failure(int sig)
{
	(void)sig;
	_exit(1);
}

__attribute__((unused)) static void wl_init(void)
{
	struct sigaction sa = { .sa_handler = wl_on_child_failure };
	sigset_t set;

	wl_main_pid = getpid();
	setvbuf(stdout, NULL, _IOLBF, 0);
	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	WL_SYS(sigprocmask(SIG_BLOCK, &set, NULL));
	WL_SYS(sigaction(SIGUSR2, &sa, NULL));
}

static inline void wl_ready(void)
{
	printf("ready\n");
	fflush(stdout);
}

__attribute__((noreturn)) static inline void wl_ok(void)
{
	printf("ok\n");
	fflush(stdout);
	exit(0);
}

static inline bool wl_stopping(void)
{
	sigset_t set;

	WL_SYS(sigpending(&set));
	return sigismember(&set, SIGTERM);
}

static inline uint64_t wl_clock(clockid_t id)
{
	struct timespec ts;

	WL_SYS(clock_gettime(id, &ts));
	return (uint64_t)ts.tv_sec * WL_SEC + (uint64_t)ts.tv_nsec;
}

static inline uint64_t wl_now(void)
{
	return wl_clock(CLOCK_MONOTONIC);
}

static inline void wl_sleep_ns(uint64_t ns)
{
	struct timespec ts = { (time_t)(ns / WL_SEC), (long)(ns % WL_SEC) };

	/* WL_LENIENT: to look for other faults while this one is known; no test sets it */
	while (nanosleep(&ts, &ts) < 0)
		WL_CHECK(errno == EINTR && getenv("WL_LENIENT"),
			 "nanosleep: expected success, got %s", strerror(errno));
}

/*
 * The nice value of the session's autogroup, of which the caller is one. False: the kernel has none. For a
 * program whose processes wake each other without a pause: some kernels (6.18) give the CPUs to such a session
 * for half a minute, and nothing to all the others.
 */
__attribute__((unused)) static bool wl_session_nice(int nice)
{
	uint64_t end = wl_now() + WL_STALL;
	int fd = open("/proc/self/autogroup", O_WRONLY | O_CLOEXEC);

	WL_CHECK(fd >= 0 || errno == ENOENT, "/proc/self/autogroup: %s", strerror(errno));
	if (fd < 0)
		return false;
	while (dprintf(fd, "%d", nice) < 0) { /* the kernel takes one of all users' in 100 ms */
		WL_CHECK(errno == EAGAIN && wl_now() < end, "nice value of the autogroup: %s", strerror(errno));
		wl_sleep_ns(20 * WL_MS);
	}
	close(fd);
	return true;
}

/* Between two steps: mostly asleep, sometimes computing, so that the cut meets both. */
static inline void wl_pace(void)
{
	static _Thread_local unsigned n;
	volatile unsigned i;

	if (n++ % 4)
		wl_sleep_ns(300000);
	else
		for (i = 0; i < 20000; i++)
			;
}

/* Waits for something that another process or thread does. */
#define WL_AWAIT(cond, what)                                                                 \
	do {                                                                                 \
		uint64_t wl_t0_ = wl_now();                                                  \
		while (!(cond)) {                                                            \
			if (wl_now() - wl_t0_ > WL_STALL)                                    \
				wl_fail("%s (line %d): expected soon, got nothing", what, __LINE__); \
			wl_sleep_ns(200000);                                                 \
		}                                                                            \
	} while (0)

static inline uint64_t wl_mix(uint64_t x)
{
	x ^= x >> 33;
	x *= 0xff51afd7ed558ccdull;
	x ^= x >> 33;
	x *= 0xc4ceb9fe1a85ec53ull;
	return x ^ x >> 33;
}

static inline uint64_t wl_rand(uint64_t *state)
{
	*state += 0x9e3779b97f4a7c15ull;
	return wl_mix(*state);
}

/* Word number i of the endless pattern @seed. */
static inline uint64_t wl_word(uint64_t seed, uint64_t i)
{
	return wl_mix(seed * 0x9e3779b97f4a7c15ull + i);
}

static inline uint8_t wl_byte(uint64_t seed, uint64_t off)
{
	return (uint8_t)(wl_word(seed, off / 8) >> (off % 8 * 8));
}

/* Bytes [off, off + len) of the pattern. */
__attribute__((unused)) static void wl_fill(void *buf, size_t len, uint64_t seed, uint64_t off)
{
	uint8_t *p = buf;
	size_t i = 0;

	for (; i < len && (off + i) % 8; i++)
		p[i] = wl_byte(seed, off + i);
	for (; i + 8 <= len; i += 8) {
		uint64_t w = wl_word(seed, (off + i) / 8);

		memcpy(p + i, &w, 8);
	}
	for (; i < len; i++)
		p[i] = wl_byte(seed, off + i);
}

__attribute__((unused)) static void wl_verify(const char *what, const void *buf, size_t len,
					      uint64_t seed, uint64_t off)
{
	const uint8_t *p = buf;
	size_t i;

	for (i = 0; i < len; i++) {
		uint64_t w;

		if ((off + i) % 8 == 0 && i + 8 <= len) {
			memcpy(&w, p + i, 8);
			if (w == wl_word(seed, (off + i) / 8)) {
				i += 7;
				continue;
			}
		}
		if (p[i] != wl_byte(seed, off + i))
			wl_fail("%s: pattern %llu at offset %llu: expected %02x, got %02x", what,
				(unsigned long long)seed, (unsigned long long)(off + i),
				wl_byte(seed, off + i), p[i]);
	}
}

__attribute__((unused)) static void wl_verify_zero(const char *what, const void *buf, size_t len)
{
	const uint8_t *p = buf;
	size_t i;

	for (i = 0; i < len; i++)
		WL_CHECK(!p[i], "%s: offset %zu: expected 00, got %02x", what, i, p[i]);
}

static inline void *wl_map(size_t len, int prot, int flags)
{
	void *p = mmap(NULL, len, prot, flags | MAP_ANONYMOUS, -1, 0);

	WL_CHECK(p != MAP_FAILED, "mmap of %zu bytes: expected success, got %s", len,
		 strerror(errno));
	return p;
}

static inline void *wl_shared(size_t len)
{
	return wl_map(len, PROT_READ | PROT_WRITE, MAP_SHARED);
}

/* A child that runs fn(arg) and exits with what that returns; it dies with its parent. */
__attribute__((unused)) static pid_t wl_spawn(int (*fn)(void *), void *arg)
{
	pid_t pid = (pid_t)WL_SYS(fork());

	if (!pid) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		_exit(fn(arg));
	}
	return pid;
}

/* Reaps the child, which must have exited with this code. */
__attribute__((unused)) static void wl_reap(pid_t pid, int code)
{
	int status = -1;

	WL_EQ("waitpid", pid, WL_SYS(waitpid(pid, &status, 0)));
	WL_CHECK(WIFEXITED(status) && WEXITSTATUS(status) == code,
		 "child %d: expected exit code %d, got status 0x%x", pid, code, status);
}

__attribute__((unused)) static void wl_write(int fd, const void *buf, size_t len)
{
	const char *p = buf;

	while (len) {
		ssize_t n = WL_SYS(write(fd, p, len));

		p += n;
		len -= (size_t)n;
	}
}

__attribute__((unused)) static void wl_read(int fd, void *buf, size_t len)
{
	char *p = buf;

	while (len) {
		ssize_t n = WL_SYS(read(fd, p, len));

		WL_CHECK(n > 0, "read from fd %d: expected %zu bytes more, got end of file", fd,
			 len);
		p += n;
		len -= (size_t)n;
	}
}

static inline const char *wl_dir(int argc, char **argv)
{
	const char *env = getenv("WL_SHARED");

	return argc > 1 ? argv[1] : env ? env : "/tmp";
}

#endif
