/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef CMD_CORDON_H
#define CMD_CORDON_H

#include "coordinator/cmd/client.h"

/** Asks that @node take no more pods, for @reason, or that it do so again. An exit code, after it was said why not. */
int cordon_set(struct ctx *, const char *node, bool on, const char *reason);

#endif
