/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * What a C test suite needs. A suite is a table of cases:
 *
 *	static void test_short_read(void) { ... T_CHECK_EQ(n, 4); ... }
 *	static const struct test_case cases[] = { { "short_read", test_short_read } };
 *	const struct test_suite io_suite = { "io", cases, ARRAY_SIZE(cases) };
 *
 * and one line `SUITE(io_suite)` in tests/suites.inc; its file goes to UNIT_SRC in tests/tests.mk (and
 * the files that it tests, beyond pod/base and the schemas, to UNIT_WITH).
 *
 * T_CHECK* note a failure and go on. T_REQUIRE, T_OK, T_FATAL and T_SKIP leave the case at once, from
 * helpers too (by longjmp: cleanup attributes are not run, so only on failure or before anything is
 * taken).
 */
#ifndef TESTS_HARNESS_H
#define TESTS_HARNESS_H

#include <stddef.h>
#include <string.h>

#include "pod/base/err.h"
#include "pod/base/util.h"

#ifdef __cplusplus
extern "C" {
#endif

struct test_case {
	const char *name;
	void (*fn)(void);
};

struct test_suite {
	const char *name;
	const struct test_case *cases;
	size_t n;
};

/** Notes a failure of the running case. */
void t_fail(const char *file, int line, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));
/** Notes that the running case is skipped and leaves it. */
void t_skip(const char *file, int line, const char *fmt, ...)
	__attribute__((format(printf, 3, 4), noreturn));
/** Leaves the running case. */
void t_leave(void) __attribute__((noreturn));
/** A fresh directory for the running case, removed with all in it afterwards. */
const char *t_dir(void);
/** "<t_dir()>/<name>"; valid until the 16th later call. */
const char *t_path(const char *name);

static inline int t_check_eq(const char *file, int line, const char *as, const char *bs,
			     long long a, long long b)
{
	if (a != b)
		t_fail(file, line, "%s == %s: %lld (0x%llx) != %lld (0x%llx)", as, bs, a,
		       (unsigned long long)a, b, (unsigned long long)b);
	return a == b;
}

static inline int t_check_str(const char *file, int line, const char *as, const char *a,
			      const char *b)
{
	int same = a && b ? !strcmp(a, b) : a == b;

	if (!same)
		t_fail(file, line, "%s: \"%s\" != \"%s\"", as, a ? a : "(null)", b ? b : "(null)");
	return same;
}

static inline int t_check_has(const char *file, int line, const char *as, const char *hay,
			      const char *needle)
{
	int has = hay && strstr(hay, needle);

	if (!has)
		t_fail(file, line, "%s: \"%s\" does not contain \"%s\"", as, hay ? hay : "(null)",
		       needle);
	return has;
}

#define T_FAIL(...) t_fail(__FILE__, __LINE__, __VA_ARGS__)
#define T_FATAL(...)                                  \
	do {                                          \
		t_fail(__FILE__, __LINE__, __VA_ARGS__); \
		t_leave();                            \
	} while (0)
#define T_SKIP(...) t_skip(__FILE__, __LINE__, __VA_ARGS__)

/** The condition holds; else note it and go on. */
#define T_CHECK(cond)                                                \
	do {                                                         \
		if (!(cond))                                         \
			t_fail(__FILE__, __LINE__, "not so: %s", #cond); \
	} while (0)
/** The condition holds; else note it and leave the case. */
#define T_REQUIRE(cond)                           \
	do {                                      \
		if (!(cond))                      \
			T_FATAL("not so: %s", #cond); \
	} while (0)
/** Two integers are equal. */
#define T_CHECK_EQ(a, b) \
	(void)t_check_eq(__FILE__, __LINE__, #a, #b, (long long)(a), (long long)(b))
/** Two strings are equal. */
#define T_CHECK_STR(a, b) (void)t_check_str(__FILE__, __LINE__, #a, (a), (b))
/** The string contains another one. */
#define T_CHECK_HAS(a, needle) (void)t_check_has(__FILE__, __LINE__, #a, (a), (needle))
/** The call returns >= 0; else its struct err * is shown and the case left. */
#define T_OK(expr, e)                                                                 \
	do {                                                                          \
		long long t_r_ = (long long)(expr);                                   \
		const struct err *t_e_ = (e);                                         \
		if (t_r_ < 0)                                                         \
			T_FATAL("%s: %lld: %s", #expr, t_r_, t_e_ ? t_e_->msg : ""); \
	} while (0)
/** The call fails with this negative errno. */
#define T_FAILS(expr, code) T_CHECK_EQ(expr, code)

#ifdef __cplusplus
}
#endif

#endif
