/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "pod/base/fault.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <time.h>

#include "pod/base/io.h"
#include "pod/base/log.h"
#include "pod/base/util.h"

#define DELAY_STEP_MS 100

/* Takes the line for @key out of the file; its action goes to @action. */
static bool take_line(const char *path, const char *key, char *action, size_t len)
{
	char buf[4096], out[4096] = "";
	autoclose int fd = open(path, O_RDWR | O_CLOEXEC);
	char *line, *save = NULL;
	bool hit = false;
	ssize_t n;

	if (fd < 0 || flock(fd, LOCK_EX) < 0)
		return false;
	n = pread(fd, buf, sizeof(buf) - 1, 0);
	if (n <= 0)
		return false;
	buf[n] = 0;
	for (line = strtok_r(buf, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
		size_t k = strlen(key);

		if (!hit && !strncmp(line, key, k) && line[k] == ':') {
			snprintf(action, len, "%s", line + k + 1);
			hit = true;
			continue;
		}
		strcat(out, line);
		strcat(out, "\n");
	}
	if (hit && (ftruncate(fd, 0) < 0 || pwrite(fd, out, strlen(out), 0) < 0))
		return false;
	return hit;
}

bool fault_word(const char *role, const char *what, char *word, size_t len)
{
	const char *path = getenv("POD_FAULT_FILE");
	char key[64];

	if (!path)
		return false;
	snprintf(key, sizeof(key), "%s@%s", role, what);
	if (!take_line(path, key, word, len))
		return false;
	log_warn("fault point %s: %s", key, word);
	return true;
}

int fault_point(const char *role, const char *stage, struct err *e)
{
	const char *path = getenv("POD_FAULT_FILE");
	char key[64], action[64];

	if (!path)
		return 0;
	snprintf(key, sizeof(key), "%s@%s", role, stage);
	if (!take_line(path, key, action, sizeof(action)))
		return 0;
	log_warn("fault point %s: %s", key, action);
	if (!strcmp(action, "kill"))
		raise(SIGKILL);
	if (!strcmp(action, "fail"))
		return err_set(e, EIO, "fault injected at %s", key);
	if (!strncmp(action, "delay=", 6)) {
		long ms;

		/* in steps, each of which a machine that stands still ends but once: who must come in time then still does */
		for (ms = strtol(action + 6, NULL, 10); ms > 0; ms -= DELAY_STEP_MS) {
			struct timespec ts = { 0, MIN(ms, DELAY_STEP_MS) * 1000000 };

			while (nanosleep(&ts, &ts) < 0 && errno == EINTR)
				;
		}
	}
	return 0;
}
