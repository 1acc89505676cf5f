/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "pod/base/err.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int set(struct err *e, int num, const char *suffix, const char *fmt, va_list ap)
{
	if (num > 0)
		num = -num;
	if (num == 0)
		num = -EIO;
	if (e) {
		char tmp[sizeof(e->msg)];
		int n = vsnprintf(tmp, sizeof(tmp), fmt, ap);

		e->code = num;
		if (suffix && n >= 0 && (size_t)n < sizeof(tmp))
			snprintf(tmp + n, sizeof(tmp) - (size_t)n, ": %s", suffix);
		memcpy(e->msg, tmp, sizeof(tmp));
	}
	return num;
}

int err_sys(struct err *e, const char *fmt, ...)
{
	int num = errno;
	va_list ap;

	va_start(ap, fmt);
	num = set(e, num, strerror(num), fmt, ap);
	va_end(ap);
	return num;
}

int err_num(struct err *e, int num, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	num = set(e, num, strerror(abs(num)), fmt, ap);
	va_end(ap);
	return num;
}

int err_set(struct err *e, int num, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	num = set(e, num, NULL, fmt, ap);
	va_end(ap);
	return num;
}

int err_wrap(struct err *e, const char *fmt, ...)
{
	char tmp[sizeof(e->msg)];
	va_list ap;
	int n;

	if (!e)
		return -EIO;
	va_start(ap, fmt);
	n = vsnprintf(tmp, sizeof(tmp), fmt, ap);
	va_end(ap);
	if (n >= 0 && (size_t)n < sizeof(tmp))
		snprintf(tmp + n, sizeof(tmp) - (size_t)n, ": %s", e->msg);
	memcpy(e->msg, tmp, sizeof(tmp));
	return e->code ? e->code : -EIO;
}
