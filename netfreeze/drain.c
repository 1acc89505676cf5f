/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Draining: the fewer bytes are on the wire at the cut, the less depends on hold and replay. The
 * goal is an empty wire, not empty queues: towards a peer with a zero window a queue never empties.
 * A request/reply peer acknowledges late (40 ms), so this is bounded to ~1 ms by the caller, and
 * what is left travels in the queues.
 */
#include <errno.h>
#include <string.h>
#include <time.h>

#include "netfreeze/netfreeze.h"
#include "pod/base/io.h"
#include "pod/base/util.h"

#define NAP_NS 50000

/**
 * drain_wire - wait until no byte of the connections @fds[@n] is unacknowledged, at most to
 * @deadline
 *
 * Returns how many are still busy, or a negative errno. Each socket is asked again only while it is
 * busy. @deadline_ns as in pod/base/io.h.
 */
int drain_wire(const int *fds, size_t n, uint64_t deadline_ns, struct err *e)
{
	static const struct timespec nap = {0, NAP_NS};
	autofree int *busy = malloc(n * sizeof(*busy) + 1);
	size_t left = n, i, kept;
	int r;

	if (!busy)
		return err_num(e, ENOMEM, "drain");
	memcpy(busy, fds, n * sizeof(*busy));
	for (;;) {
		for (i = kept = 0; i < left; i++) {
			r = tcp_wire_empty(busy[i], e);
			if (r < 0)
				return r;
			if (r == 0)
				busy[kept++] = busy[i];
		}
		left = kept;
		if (left == 0 || now_ns() >= deadline_ns)
			return (int)left;
		nanosleep(&nap, NULL);
	}
}
