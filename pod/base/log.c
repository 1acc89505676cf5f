/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "pod/base/log.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "pod/base/io.h"
#include "pod/base/util.h"

static const char *const names[] = { "error", "warn", "info", "debug" };
static struct {
	enum log_level level;
	char program[32];
} lg = { LOG_LV_WARN, "pod" };

void log_init(const char *program, enum log_level level)
{
	const char *env = getenv("POD_LOG");
	size_t i;

	snprintf(lg.program, sizeof(lg.program), "%s", program);
	lg.level = level;
	for (i = 0; env && i < ARRAY_SIZE(names); i++)
		if (!strcmp(env, names[i]))
			lg.level = (enum log_level)i;
}

int log_enabled(enum log_level level)
{
	return level <= lg.level;
}

void log_msg(enum log_level level, const char *fmt, ...)
{
	char line[1024];
	struct timespec ts;
	struct tm tm;
	va_list ap;
	size_t n;

	if (level > lg.level)
		return;
	clock_gettime(CLOCK_REALTIME, &ts);
	gmtime_r(&ts.tv_sec, &tm);
	n = strftime(line, sizeof(line), "%FT%T", &tm);
	n += (size_t)snprintf(line + n, sizeof(line) - n, ".%06ldZ %s[%d] %s: ", ts.tv_nsec / 1000,
			      lg.program, (int)getpid(), names[level]);
	va_start(ap, fmt);
	vsnprintf(line + n, sizeof(line) - n - 1, fmt, ap);
	va_end(ap);
	n = strlen(line);
	line[n++] = '\n';
	/* one write, so that lines of several processes in one file do not mix */
	if (write(STDERR_FILENO, line, n) < 0)
		return;
}

void log_mark(const char *what, uint64_t *t)
{
	uint64_t now = now_ns();

	log_debug("mark: %s %.3f ms", what, (double)(now - *t) / 1e6);
	*t = now;
}
