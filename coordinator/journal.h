/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * The journal of operations: SQLite, WAL, synchronous=FULL, so that a call that returned 0 is on the
 * disk. One row per operation:
 *
 *	BEGUN --journal_decide(COMMIT)--> COMMIT --> DONE (the source is gone)
 *	  |                                  '-----> ABORT (the target had REFUSED; or podctl recover)
 *	  '---- journal_decide(ABORT) ------------> ABORT --> UNDONE (both sides have said so)
 *
 * An operation that is found BEGUN after a restart was never committed: it is aborted. COMMIT and ABORT
 * are kept up until all have heard of them.
 */
#ifndef COORD_JOURNAL_H
#define COORD_JOURNAL_H

#include <stddef.h>
#include <stdint.h>

#include "pod/base/err.h"

enum journal_state { JOURNAL_NONE, JOURNAL_BEGUN, JOURNAL_COMMIT, JOURNAL_ABORT, JOURNAL_DONE,
		     JOURNAL_UNDONE };

struct journal;

struct journal_op {
	char id[48], pod[64], source[64], target[64];
	uint64_t epoch; /* the pod's at the target */
	uint32_t uid;
	enum journal_state state;
};

int journal_open(const char *state_dir, struct journal **out, struct err *e);
void journal_close(struct journal *j);
/** Writes @op as BEGUN and chooses its id. */
int journal_begin(struct journal *j, struct journal_op *op, struct err *e);
/** The one write inside the frozen time: a prepared statement, one fsync. */
int journal_decide(struct journal *j, const char *id, enum journal_state state, struct err *e);
/** The same for @n operations, in one transaction: for all of them or for none. */
int journal_decide_all(struct journal *j, const char *const *ids, size_t n, enum journal_state state, struct err *e);
/** An operation has ended: a good moment for the journal's housekeeping if nothing is frozen. */
void journal_rest(struct journal *j);
/** Remembers pod @name on @node (@info: packed PodInfo), for the time that its node is away. */
int journal_pod_put(struct journal *j, const char *name, const char *node, const void *info,
		    size_t len, struct err *e);
int journal_pod_del(struct journal *j, const char *name, const char *node, struct err *e);
int journal_pods(struct journal *j,
		 void (*fn)(const char *node, const void *info, size_t len, void *arg), void *arg,
		 struct err *e);
/** Remembers that @node takes no more pods; @reason NULL: that it does again. */
int journal_cordon(struct journal *j, const char *node, const char *reason, struct err *e);
int journal_cordons(struct journal *j, void (*fn)(const char *node, const char *reason, void *arg), void *arg, struct err *e);
/** 1 and *@out; 0 when there is none; negative errno. */
int journal_find(struct journal *j, const char *id, struct journal_op *out, struct err *e);
/** Calls @fn for each operation that is not DONE or UNDONE. */
int journal_open_ops(struct journal *j, void (*fn)(const struct journal_op *op, void *arg),
		     void *arg, struct err *e);

#endif
