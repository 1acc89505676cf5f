// SPDX-License-Identifier: GPL-3.0-or-later
// The C side's assertions, on top of Google Test. Leaving a case is a longjmp to run_case().
#include "tests/harness.h"

#include <gtest/gtest.h>

#include <csetjmp>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <string>

#include "tests/harness_run.h"

namespace
{
jmp_buf leave;
std::string dir;
} // namespace

void run_case(const struct test_case &c)
{
	if (setjmp(leave) == 0)
		c.fn();
	if (!dir.empty()) {
		std::error_code ec;

		std::filesystem::remove_all(dir, ec);
		dir.clear();
	}
}

extern "C" {

void t_leave(void)
{
	longjmp(leave, 1);
}

void t_fail(const char *file, int line, const char *fmt, ...)
{
	char msg[2048];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(msg, sizeof(msg), fmt, ap);
	va_end(ap);
	ADD_FAILURE_AT(file, line) << msg;
}

static void note_skip(const char *file, int line, const char *msg)
{
	GTEST_SKIP_("") << "SKIP " << msg << " (" << file << ":" << line << ")";
}

void t_skip(const char *file, int line, const char *fmt, ...)
{
	char msg[512];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(msg, sizeof(msg), fmt, ap);
	va_end(ap);
	note_skip(file, line, msg);
	t_leave();
}

const char *t_dir(void)
{
	if (dir.empty()) {
		char tmpl[] = "/tmp/pmtest-XXXXXX";

		if (!mkdtemp(tmpl)) {
			t_fail(__FILE__, __LINE__, "mkdtemp");
			t_leave();
		}
		dir = tmpl;
	}
	return dir.c_str();
}

const char *t_path(const char *name)
{
	static std::string paths[16];
	static unsigned next;
	std::string &p = paths[next++ % 16];

	p = std::string(t_dir()) + "/" + name;
	return p.c_str();
}

} // extern "C"
