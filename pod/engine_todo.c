/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Stands in for dump.c and restore.c until they are there; delete it then. */
#include <errno.h>

#include "pod/engine.h"

static int not_built_in(int ctl)
{
	struct err e = { 0 };

	err_set(&e, ENOSYS, "not built in");
	return engine_fail(ctl, 1, "check", &e);
}

int engine_dump(int ctl, const Pm__EngineDump *q)
{
	(void)q;
	return not_built_in(ctl);
}

int engine_restore(int ctl, const Pm__EngineRestore *q)
{
	(void)q;
	return not_built_in(ctl);
}
