/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Socket options that travel: read and set by tables. */
#include <errno.h>
#include <linux/net_tstamp.h>
#include <string.h>
#include <sys/socket.h>

#include "netfreeze/sockopt.h"
#include "pod/base/util.h"

static bool is_default(const struct opt_row *o, const void *val, size_t len)
{
	static const uint8_t zero[64];
	int v;

	if (o->dfl == ALWAYS)
		return false;
	if (o->len != sizeof(int) || len != sizeof(int))
		return !memcmp(val, zero, len);
	memcpy(&v, val, sizeof(v));
	return v == o->dfl;
}

int sockopt_read(int fd, const struct opt_row *o, struct sock_opt *out, struct err *e)
{
	socklen_t len = o->len;

	if (o->when == OPT_NOTE)
		return 0;
	memset(out, 0, sizeof(*out));
	if (getsockopt(fd, o->level, o->name, out->val, &len) < 0) {
		if (errno == ENOPROTOOPT || errno == EOPNOTSUPP)
			return 0; /* this kernel has no such option, so it is not set */
		return err_sys(e, "read %s", o->text);
	}
	if (is_default(o, out->val, len))
		return 0;
	out->level = o->level;
	out->name = o->name;
	out->len = len;
	return 1;
}

static const struct opt_row *find_row(const struct opt_table *t, int level, int name)
{
	size_t i;

	for (i = 0; i < t->n; i++)
		if (t->rows[i].level == level && t->rows[i].name == name &&
		    (t->rows[i].states & t->states))
			return &t->rows[i];
	return NULL;
}

int sockopt_apply(int fd, const struct opt_table *t, const struct sock_opt *opt, unsigned n,
		  enum opt_when when, struct err *e)
{
	unsigned i;

	for (i = 0; i < n; i++) {
		const struct opt_row *o = find_row(t, opt[i].level, opt[i].name);

		if (!o || opt[i].len > o->len)
			return err_set(e, EPROTO,
				       "socket option %d/%d of %u bytes is not one that is carried",
				       opt[i].level, opt[i].name, opt[i].len);
		if (o->when != when)
			continue;
		if (setsockopt(fd, o->level, o->name, opt[i].val, opt[i].len) < 0)
			return err_sys(e, "set %s", o->text);
	}
	return 0;
}

bool sockopt_has_txtime(int fd)
{
	struct sock_txtime t = {0};
	socklen_t len = sizeof(t);

	return getsockopt(fd, SOL_SOCKET, SO_TXTIME, &t, &len) == 0 && (t.clockid || t.flags);
}

int sockopt_set(int fd, int level, int name, int v, const char *text, struct err *e)
{
	return setsockopt(fd, level, name, &v, sizeof(v)) < 0 ? err_sys(e, "set %s", text) : 0;
}

int sockopt_set_buffers(int fd, uint64_t snd, uint64_t rcv, struct err *e)
{
	int r = sockopt_set(fd, SOL_SOCKET, SO_SNDBUFFORCE, (int)(MIN(snd, SOCK_BUF_MAX) / 2), "SO_SNDBUF", e);

	return r < 0 ? r : sockopt_set(fd, SOL_SOCKET, SO_RCVBUFFORCE, (int)(MIN(rcv, SOCK_BUF_MAX) / 2), "SO_RCVBUF", e);
}

int sockopt_int(const struct sock_opt *opt, unsigned n, int level, int name, int dfl)
{
	unsigned i;
	int v;

	for (i = 0; i < n; i++)
		if (opt[i].level == level && opt[i].name == name && opt[i].len == sizeof(v)) {
			memcpy(&v, opt[i].val, sizeof(v));
			return v;
		}
	return dfl;
}
