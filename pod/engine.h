/* SPDX-License-Identifier: GPL-3.0-or-later */
/* The roles of pod-engine. Each gets the control fd and its first message, and returns the exit code. */
#ifndef POD_ENGINE_H
#define POD_ENGINE_H

#include "control.pb-c.h"
#include "pod/base/err.h"

#define ENGINE_CTL_FD 3

int engine_create(int ctl, const Pm__EngineCreate *req);
int engine_dump(int ctl, const Pm__EngineDump *req);
int engine_inspect(int ctl, const Pm__EngineInspect *req);
int engine_restore(int ctl, const Pm__EngineRestore *req);

/** Sends EngineFailed{exit_code, phase, cause = e->msg}; returns 1. */
int engine_fail(int ctl, int exit_code, const char *phase, const struct err *e);
/** The same with all that is in the way of a move, @e being its first, and what the user can do. */
int engine_refuse(int ctl, int exit_code, const char *phase, const struct err *e, char **details, size_t n,
		  const char *hint);

#endif
