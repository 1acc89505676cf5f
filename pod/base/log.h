/* SPDX-License-Identifier: GPL-3.0-or-later */
/* One line per message on stderr: time, program, level, words. Libraries stay at debug. */
#ifndef POD_BASE_LOG_H
#define POD_BASE_LOG_H

#include <stdint.h>

enum log_level { LOG_LV_ERROR, LOG_LV_WARN, LOG_LV_INFO, LOG_LV_DEBUG };

/** Sets the program's name in the lines and the level; POD_LOG=error|warn|info|debug overrides. */
void log_init(const char *program, enum log_level level);
void log_msg(enum log_level level, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
int log_enabled(enum log_level level);
/** At debug: what has been done since *@t, in ms; sets *@t (now_ns()) to now. */
void log_mark(const char *what, uint64_t *t);

#define log_error(...) log_msg(LOG_LV_ERROR, __VA_ARGS__)
#define log_warn(...) log_msg(LOG_LV_WARN, __VA_ARGS__)
#define log_info(...) log_msg(LOG_LV_INFO, __VA_ARGS__)
#define log_debug(...)                                    \
	do {                                              \
		if (log_enabled(LOG_LV_DEBUG))            \
			log_msg(LOG_LV_DEBUG, __VA_ARGS__); \
	} while (0)

#endif
