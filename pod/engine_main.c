/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * main() of pod-engine: reads the first message on fd 3 and does what it says. Blocking, for one
 * operation only; what it leaves behind (a pod, or nothing) does not depend on its life.
 */
#include "pod/engine.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>

#include "agent/link/frame.h"
#include "pod/base/io.h"
#include "pod/base/log.h"
#include "pod/base/util.h"

#define FIRST_MS 30000
#define ANSWER_MS 10000

int engine_fail(int ctl, int exit_code, const char *phase, const struct err *e)
{
	return engine_refuse(ctl, exit_code, phase, e, NULL, 0, "");
}

int engine_refuse(int ctl, int exit_code, const char *phase, const struct err *e, char **details, size_t n,
		  const char *hint)
{
	LINK_ENVELOPE(rep, engine_failed, ENGINE_FAILED, Pm__EngineFailed,
		      pm__engine_failed__init);
	Pm__Error error;

	pm__error__init(&error);
	error.exit_code = exit_code;
	error.phase = (char *)(uintptr_t)phase;
	error.cause = (char *)(uintptr_t)e->msg;
	error.details = details;
	error.n_details = n;
	error.hint = (char *)(uintptr_t)hint;
	rep_body.error = &error;
	if (link_send(ctl, &rep, deadline_ms(ANSWER_MS), NULL) < 0)
		log_error("%s: %s", phase, e->msg);
	return 1;
}

static int run_create(int ctl, const Pm__Envelope *env)
{
	return engine_create(ctl, env->engine_create);
}

static int run_dump(int ctl, const Pm__Envelope *env)
{
	return engine_dump(ctl, env->engine_dump);
}

static int run_restore(int ctl, const Pm__Envelope *env)
{
	return engine_restore(ctl, env->engine_restore);
}

static int run_inspect(int ctl, const Pm__Envelope *env)
{
	return engine_inspect(ctl, env->engine_inspect);
}

static const struct {
	Pm__Envelope__BodyCase body;
	int (*run)(int ctl, const Pm__Envelope *env);
} roles[] = {
	{ PM__ENVELOPE__BODY_ENGINE_CREATE, run_create },
	{ PM__ENVELOPE__BODY_ENGINE_DUMP, run_dump },
	{ PM__ENVELOPE__BODY_ENGINE_RESTORE, run_restore },
	{ PM__ENVELOPE__BODY_ENGINE_INSPECT, run_inspect },
};

int main(void)
{
	Pm__Envelope *env = NULL;
	struct err e = { 0 };
	int r;

	log_init("pod-engine", LOG_LV_INFO);
	signal(SIGPIPE, SIG_IGN);
	r = link_recv(ENGINE_CTL_FD, &env, deadline_ms(FIRST_MS), &e);
	if (r < 0) {
		log_error("no order on fd %d: %s", ENGINE_CTL_FD, e.msg);
		return 2;
	}
	for (size_t i = 0; i < ARRAY_SIZE(roles); i++) {
		if (roles[i].body != env->body_case)
			continue;
		r = roles[i].run(ENGINE_CTL_FD, env);
		link_free(env);
		return r;
	}
	err_set(&e, EPROTO, "the engine has no role for %s", link_body_name(env->body_case));
	link_free(env);
	return engine_fail(ENGINE_CTL_FD, 1, "", &e);
}
