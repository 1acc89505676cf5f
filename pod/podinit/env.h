/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Argument and environment vectors for a session. */
#ifndef PODINIT_ENV_H
#define PODINIT_ENV_H

#include "control.pb-c.h"

/** A NULL-terminated copy of the vector; the strings stay the message's. free() it. */
char **env_argv(char **argv, size_t n);
/** The pod's environment, with @n more over it. env_free() it. */
char **env_merge(const Pm__PodSpec *spec, Pm__KeyValue **more, size_t n);
void env_free(char **envp);

#endif
