/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "pod/base/err.h"

#include <errno.h>
#include <string.h>

#include "tests/harness.h"

static void test_sys(void)
{
	struct err e = { 0 };

	errno = ENOENT;
	T_CHECK_EQ(err_sys(&e, "open '%s'", "/x"), -ENOENT);
	T_CHECK_EQ(e.code, -ENOENT);
	T_CHECK_STR(e.msg, "open '/x': No such file or directory");
}

static void test_sign_does_not_matter(void)
{
	struct err e = { 0 };

	T_CHECK_EQ(err_num(&e, EPERM, "a"), -EPERM);
	T_CHECK_EQ(err_num(&e, -EPERM, "a"), -EPERM);
	T_CHECK_STR(e.msg, "a: Operation not permitted");
	T_CHECK_EQ(err_set(&e, -EBUSY, "b %d", 7), -EBUSY);
	T_CHECK_STR(e.msg, "b 7");
}

static void test_no_errno_is_still_an_error(void)
{
	struct err e = { 0 };

	errno = 0;
	T_CHECK(err_sys(&e, "lost") < 0);
	T_CHECK(e.code < 0);
	T_CHECK(err_set(NULL, 0, "x") < 0);
}

static void test_wrap(void)
{
	struct err e = { 0 };

	err_set(&e, ENOSPC, "write");
	T_CHECK_EQ(err_wrap(&e, "fd %d", 7), -ENOSPC);
	T_CHECK_EQ(err_wrap(&e, "pid %d", 812), -ENOSPC);
	T_CHECK_STR(e.msg, "pid 812: fd 7: write");
	T_CHECK(err_wrap(NULL, "x") < 0);
}

static void test_long_words_are_cut(void)
{
	struct err e = { 0 };
	char big[1000];
	int i;

	memset(big, 'a', sizeof(big) - 1);
	big[sizeof(big) - 1] = 0;
	T_CHECK_EQ(err_num(&e, EIO, "%s", big), -EIO);
	T_CHECK_EQ(strlen(e.msg), sizeof(e.msg) - 1);
	for (i = 0; i < 40; i++)
		T_CHECK_EQ(err_wrap(&e, "context number %d", i), -EIO);
	T_CHECK(strlen(e.msg) < sizeof(e.msg));
	T_CHECK(!strncmp(e.msg, "context number 39: context number 38: ", 38));
}

static void test_null_is_allowed(void)
{
	errno = EBADF;
	T_CHECK_EQ(err_sys(NULL, "x"), -EBADF);
	T_CHECK_EQ(err_num(NULL, EINVAL, "x"), -EINVAL);
	T_CHECK_EQ(err_set(NULL, EINVAL, "x"), -EINVAL);
}

static const struct test_case cases[] = {
	{ "sys", test_sys },
	{ "sign_does_not_matter", test_sign_does_not_matter },
	{ "no_errno_is_still_an_error", test_no_errno_is_still_an_error },
	{ "wrap", test_wrap },
	{ "long_words_are_cut", test_long_words_are_cut },
	{ "null_is_allowed", test_null_is_allowed },
};
const struct test_suite err_suite = { "err", cases, ARRAY_SIZE(cases) };
