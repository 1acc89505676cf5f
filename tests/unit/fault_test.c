/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "pod/base/fault.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include "pod/base/io.h"
#include "tests/harness.h"

static const char *plan(const char *text)
{
	const char *path = t_path("faults");
	struct err e = { 0 };

	T_OK(io_replace_file(path, text, strlen(text), 0600, &e), &e);
	setenv("POD_FAULT_FILE", path, 1);
	return path;
}

static void check_left(const char *path, const char *want)
{
	char *text = NULL;
	struct err e = { 0 };

	T_OK(io_read_file(path, 4096, &text, NULL, &e), &e);
	T_CHECK_STR(text, want);
	free(text);
}

static void test_off(void)
{
	unsetenv("POD_FAULT_FILE");
	T_CHECK_EQ(fault_point("coord", "commit", NULL), 0);
	setenv("POD_FAULT_FILE", t_path("not-there"), 1);
	T_CHECK_EQ(fault_point("coord", "commit", NULL), 0);
	unsetenv("POD_FAULT_FILE");
}

static void test_fires_once(void)
{
	const char *path = plan("coord@commit:fail\nengine-source@cut:kill\ncoord@commit:fail\n");
	struct err e = { 0 };

	T_CHECK_EQ(fault_point("coord", "comm", &e), 0);
	T_CHECK_EQ(fault_point("coord", "commit", &e), -EIO);
	T_CHECK_HAS(e.msg, "coord@commit");
	check_left(path, "engine-source@cut:kill\ncoord@commit:fail\n");
	T_CHECK_EQ(fault_point("coord", "commit", &e), -EIO);
	T_CHECK_EQ(fault_point("coord", "commit", &e), 0);
	check_left(path, "engine-source@cut:kill\n");
	unsetenv("POD_FAULT_FILE");
}

static void test_kill(void)
{
	const char *path = plan("engine-target@cut:kill\n");
	int status;
	pid_t pid = fork();

	if (!pid) {
		close(STDERR_FILENO);
		fault_point("engine-target", "cut", NULL);
		_exit(0);
	}
	T_CHECK_EQ(waitpid(pid, &status, 0), pid);
	T_CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
	check_left(path, "");
	unsetenv("POD_FAULT_FILE");
}

static void test_delay(void)
{
	uint64_t t0;

	plan("agent-source@ready:delay=30\n");
	t0 = now_ns();
	T_CHECK_EQ(fault_point("agent-source", "ready", NULL), 0);
	T_CHECK(now_ns() - t0 >= 30 * NSEC_PER_MSEC);
	unsetenv("POD_FAULT_FILE");
}

static const struct test_case cases[] = {
	{ "off", test_off },
	{ "fires_once", test_fires_once },
	{ "kill", test_kill },
	{ "delay", test_delay },
};
const struct test_suite fault_suite = { "fault", cases, ARRAY_SIZE(cases) };
