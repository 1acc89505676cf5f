/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * THE table of kinds. Kinds of scope FD are tried in this order, so a special one stands before a
 * general one. Kinds of scope PROC and THREAD are asked and given in this order: what a change of
 * credentials resets comes after creds, what a limit would refuse comes before rlimit.
 */
#include "pod/kind/kinds.h"

#include <stdlib.h>
#include <string.h>

#include "pod/base/util.h"
#include "pod/kind/task_kinds.h"

static const struct kind *const table[] = {
	&kind_chardev, &kind_pty, &kind_pipe, &kind_fifo, &kind_tcp, &kind_udp, &kind_raw, &kind_unix, &kind_unix_dgram, &kind_netlink, &kind_packet, &kind_eventfd, &kind_signalfd, &kind_timerfd, &kind_inotify,
	&kind_epoll, &kind_mqueue_fd, &kind_file,
	/* of the pod */
	&kind_sysvmsg, &kind_sysvsem, &kind_mqueue,
	/* tasks */
	&kind_comm, &kind_sigaction, &kind_altstack, &kind_tidaddr, &kind_robust, &kind_umask, &kind_cwd,
	&kind_ctty, &kind_sched, &kind_attrs, &kind_proc_attrs, &kind_itimer, &kind_sigpending_proc, &kind_sigpending_thread, &kind_posixtimer, &kind_rlimit,
	&kind_creds, &kind_cwd_late, &kind_proc_prctl, &kind_thread_prctl, &kind_rseq, &kind_filelock,
};

/* Is @name in the comma-separated list of POD_KINDS_WITHOUT? */
static bool taken_out(const char *name)
{
	const char *p = getenv("POD_KINDS_WITHOUT");
	size_t n = strlen(name);

	while (p && *p) {
		if (!strncmp(p, name, n) && (p[n] == ',' || !p[n]))
			return true;
		p = strchr(p, ',');
		p = p ? p + 1 : NULL;
	}
	return false;
}

const struct kind *const *kinds_all(size_t *n)
{
	static const struct kind *used[ARRAY_SIZE(table)];
	static size_t count;
	size_t i;

	if (!count)
		for (i = 0; i < ARRAY_SIZE(table); i++)
			if (!taken_out(table[i]->name))
				used[count++] = table[i];
	*n = count;
	return used;
}

const struct kind *kind_of_type(uint16_t type)
{
	size_t n, i;
	const struct kind *const *k = kinds_all(&n);

	for (i = 0; i < n; i++)
		if (k[i]->type == type)
			return k[i];
	return NULL;
}

const struct kind *kind_match(const struct probe *p)
{
	size_t n, i;
	const struct kind *const *k = kinds_all(&n);

	for (i = 0; i < n; i++)
		if (k[i]->scope == KIND_FD && k[i]->match(p))
			return k[i];
	return NULL;
}
