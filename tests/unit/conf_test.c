/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "pod/base/conf.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>

#include "tests/harness.h"

static const char *conf_with(const char *text)
{
	const char *path = t_path("conf");
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

	T_REQUIRE(fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text));
	close(fd);
	return path;
}

static void test_all_keys(void)
{
	struct conf c;
	struct err e = { 0 };

	T_OK(conf_load(conf_with("[client]\ncoordinator = /run/x.sock\n[coordinator]\n"
				 "pool = 10.1.2.0/24\nprefix = 16\n[node a]\nsocket = /a\n"
				 "address = 10.0.0.1\n[node b]\nsocket = /b\n[agent]\nname = a\n"),
		       &c, &e),
	     &e);
	T_CHECK_STR(c.client_coordinator, "/run/x.sock");
	T_CHECK_STR(c.agent_name, "a");
	T_CHECK_STR(c.agent_users, "root");
	T_CHECK_EQ(c.pool_first, ntohl(inet_addr("10.1.2.1")));
	T_CHECK_EQ(c.pool_last, ntohl(inet_addr("10.1.2.254")));
	T_CHECK_EQ(c.prefix, 16);
	T_REQUIRE(c.nnodes == 2);
	T_CHECK_STR(c.nodes[0].address, "10.0.0.1");
	T_CHECK_STR(c.nodes[1].name, "b");
	T_CHECK_STR(c.nodes[1].address, "");
	conf_done(&c);
}

static void refused(const char *text, const char *words)
{
	struct conf c;
	struct err e = { 0 };

	T_FAILS(conf_load(conf_with(text), &c, &e), -EINVAL);
	T_CHECK_HAS(e.msg, words);
}

static void test_wrong(void)
{
	struct conf c;
	struct err e = { 0 };

	refused("[client]\ncoordinatr = /x\n", "conf:2: unknown key 'coordinatr'");
	refused("[cleint]\n\ncoordinator = /x\n", "conf:3: unknown key");
	refused("[coordinator]\npool = 10.1.2.0\n", "not a valid value");
	refused("[coordinator]\npool = 10.1.2.0/33\n", "not a valid value");
	refused("[coordinator]\nprefix = 16x\n", "not a valid value");
	refused("[node]\nsocket = /x\n", "lacks the node's name");
	refused("[client]\nnonsense\n", "conf:2");
	T_FAILS(conf_load("/nonexistent/conf", &c, &e), -ENOENT);
}

static const struct test_case cases[] = {
	{ "all_keys", test_all_keys },
	{ "wrong", test_wrong },
};
const struct test_suite conf_suite = { "conf", cases, ARRAY_SIZE(cases) };
