/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Errors: functions return >= 0 or a negative errno and put the words into a struct err that the
 * caller owns. Context is put in front on the way up: "pid 812: fd 7: open '/x': No such file".
 */
#ifndef POD_BASE_ERR_H
#define POD_BASE_ERR_H

struct err {
	int code; /* negative errno, 0 when nothing is set */
	char msg[248];
};

/** Sets @e from errno: "<words>: <strerror>". Returns -errno. @e may be NULL in all four. */
int err_sys(struct err *e, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/** Sets @e from a given positive or negative errno value. Returns it as a negative number. */
int err_num(struct err *e, int num, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
/** Sets @e to the words alone with code @num (positive or negative errno). Returns it negative. */
int err_set(struct err *e, int num, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
/** Puts context in front of what @e says. Returns its code. */
int err_wrap(struct err *e, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

#endif
