/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "pod/podinit/env.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define DEFAULT_PATH "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

char **env_argv(char **argv, size_t n)
{
	char **out = calloc(n + 1, sizeof(*out));

	if (out)
		memcpy(out, argv, n * sizeof(*out));
	return out;
}

/* Replaces the entry with the same key or appends; 0 on no memory. */
static int env_put(char **envp, const char *key, const char *value, int only_if_missing)
{
	size_t len = strlen(key), i;
	char *entry;

	if (!len || strchr(key, '='))
		return 1;
	for (i = 0; envp[i]; i++)
		if (!strncmp(envp[i], key, len) && envp[i][len] == '=')
			break;
	if (envp[i] && only_if_missing)
		return 1;
	if (asprintf(&entry, "%s=%s", key, value) < 0)
		return 0;
	free(envp[i]);
	envp[i] = entry;
	return 1;
}

char **env_merge(const Pm__PodSpec *spec, Pm__KeyValue **more, size_t n)
{
	char **out = calloc(spec->n_env + n + 4, sizeof(*out));
	int ok = out != NULL;

	for (size_t i = 0; ok && i < spec->n_env; i++)
		ok = env_put(out, spec->env[i]->key, spec->env[i]->value, 0);
	for (size_t i = 0; ok && i < n; i++)
		ok = env_put(out, more[i]->key, more[i]->value, 0);
	ok = ok && env_put(out, "PATH", DEFAULT_PATH, 1) &&
	     env_put(out, "PODMIGRATE_POD", spec->name, 0);
	if (!ok) {
		env_free(out);
		return NULL;
	}
	return out;
}

void env_free(char **envp)
{
	for (size_t i = 0; envp && envp[i]; i++)
		free(envp[i]);
	free(envp);
}
