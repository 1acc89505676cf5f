/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * A small world for the network suites, made of network namespaces that only fds hold: a node with
 * a bridge, a peer on it, and one pod's place twice (a and b: same address, same MAC, at most one
 * of the two host ends on the bridge). Everything is gone when the fds are closed.
 */
#ifndef TESTS_NET_WORLD_H
#define TESTS_NET_WORLD_H

#include <stdbool.h>
#include <stdint.h>

#include "netfreeze/netfreeze.h"

#define POD_IP  "10.77.128.5"
#define PEER_IP "10.77.0.9"
#define BRIDGE  "br0"
extern const uint8_t pod_mac[6];

struct place {
	int ns;
	const char *host;
	struct filter *filter;
	struct hold *hold;
	int announcer;
};

struct world {
	int node, peer;
	struct place a, b;
	struct place *at; /* where the pod is */
};

/** Skips the case where it may not be made (no privilege). The pod is at a, b is blocked. */
void world_init(struct world *);
void world_done(struct world *);

/** What one move did, ns. */
struct move_times {
	uint64_t frozen, save, restore, release;
	unsigned held, drained, late, lost;
};

struct move_opts {
	bool drain; /* wait up to 1 ms for an empty wire */
	bool no_nudge;
	bool early_release; /* tcp_release() while the filter is up, tcp_push() afterwards */
	bool keep_syns;     /* FILTER_SYN was set: what is held until now has not reached the pod */
	bool no_replay;     /* what a filter without hold costs */
	uint64_t pause_ns;  /* stay frozen so long in the middle */
	void (*meanwhile)(void *arg); /* called in the middle, with @meanwhile_arg */
	void *meanwhile_arg;
	bool abort;         /* undo at the last moment: the pod goes on where it was */
};

/** Moves the sockets @fds[@n] (the same numbers afterwards) to the other place. The caller's
 * threads stand still; @thaw(@arg), if given, wakes them, and the clearing up that nobody waits for
 * follows. */
void world_move(struct world *, const int *fds, unsigned n, const struct move_opts *,
		struct move_times *, void (*thaw)(void *arg), void *arg);

/** The value of @name in the namespace's /proc/net/netstat; -1 if there is none. */
long long world_counter(int ns, const char *name);

/** A socket listening in @ns on @ip:@port. */
int world_listen(int ns, const char *ip, uint16_t port, int backlog);
/** A connection from @ns to @ip:@port, blocking. */
int world_connect(int ns, const char *ip, uint16_t port);
/** accept(2) within 2 s. */
int world_accept(int lfd);

#endif
