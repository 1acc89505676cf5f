/* SPDX-License-Identifier: GPL-3.0-or-later */
/* One migration; see ops.c. Only ops.c and recover.c include this. */
#ifndef COORD_OPS_H
#define COORD_OPS_H

#include "coordinator/coord.h"
#include "coordinator/journal.h"

enum stage { ST_RESERVE, ST_PRECOPY, ST_COMMIT, ST_CLEAN, ST_UNDO, NUM_STAGES };

#define FREEZE_MS 15000 /* one side is READY, or one pod of a job stands still: the others have this long */
#define SAVE_MS 1800000 /* an image goes to the disk: nobody stands still for it, or nobody can help it */
#define GROUP_MAX 1024 /* pods of a job */

/* The operations of one job; see group.c. Lives as long as they do. */
struct group {
	struct coord *coord;
	char job[64], image[128]; /* image: what a checkpoint is called; "" for a restart */
	uint64_t client;	  /* serial; 0: nobody waits */
	uint32_t reply;
	size_t n, total;	/* operations: that are left, that there were */
	size_t good, bad;	/* that have an answer */
	int gone;		/* the last barrier that all have passed */
	bool committed;
	const struct op *blamed; /* who failed first; only to compare with */
	Pm__Envelope *error;	 /* its error */
	char culprit[64], state[200];
	uint64_t begun_ns, frozen_ns, sent;
	uint32_t rounds;
	char *notes[256];
	size_t nnotes;
};

struct op {
	struct op *next;
	struct group *group; /* of a job's, or NULL */
	int at;		     /* the barrier where it waits, or that it has passed */
	bool answered;	     /* the group knows how it ended */
	struct coord *coord;
	struct journal_op j;
	struct node *source, *target; /* NULL: no longer configured, or none: see op_is_checkpoint() */
	enum stage stage;
	uint64_t client; /* serial; 0: nobody waits */
	uint32_t reply;
	uid_t uid;
	Pm__Envelope *asked; /* MigrateReq; NULL after a restart */
	Pm__Envelope *image; /* CheckpointReq or RestoreReq, if it is one; NULL after a restart */
	Pm__Envelope *ready; /* the target's READY, for its notes */
	Pm__PodSpec *spec;   /* borrowed from the report while it is needed */
	uint8_t token[32];
	char phase[16]; /* the engine's, last heard of */
	bool src_ready, tgt_ready, src_undone, tgt_undone;
	bool dry_run, dry_ok, unknown; /* unknown: the target cannot say what became of it */
	uint64_t begun_ns, froze_ns, ready_ns, started_ns; /* froze: the first READY */
	struct event *timer;
	struct waiter *waiters; /* who is told when it is over: ops_list.c */
	Pm__Envelope *error;  /* the first failure: an Error, owned */
	Pm__Envelope *result; /* OpClean, owned */
};

struct op *op_new(struct coord *c, const struct journal_op *j);
void op_timer(struct op *op, unsigned ms);
/** Its source has told that the pod is over. */
bool op_pod_ended(const struct op *op);
struct op *op_find(struct coord *c, const char *id);
void op_free(struct op *op);
void op_enter(struct op *op, enum stage stage);
void op_undo(struct op *op, int exit_code, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));
/** Into an image: it has no target. Out of one: no source. As the journal knows it, also after a restart. */
static inline bool op_is_checkpoint(const struct op *op)
{
	return !op->j.target[0];
}
static inline bool op_is_restart(const struct op *op)
{
	return !op->j.source[0];
}
/** The client that waits for it, or for its job: a serial, or 0. */
static inline uint64_t op_waiting(const struct op *op)
{
	return op->group ? op->group->client : op->client;
}
/** The pod ends with its image: who asks for it is to hear that. */
void image_ended(struct op *op);
/** A restart that never started its pod: name and address are free, whenever the node comes to say so. */
void op_unreserve(struct op *op);
/** "'A' -> 'B'", or what stands in the place of a node. */
const char *op_way(const struct op *op, char *buf, size_t len);
/** "precopy", or what the engine calls it. */
const char *op_stage_name(const struct op *op);
/** It is over: all who wait for that are told. */
void op_tell_waiters(struct op *op);
void op_tell_commit(struct op *op);
void op_tell_outgoing(struct op *op, const Pm__AgentListening *at);
struct op *op_of_pod(struct coord *c, const char *pod);
Pm__Envelope *envelope_copy(const Pm__Envelope *env);
void op_tell_started(struct op *op);
void op_tell_aborted(struct op *op, struct node *n);

/* ---- group.c */
/** @cl may be NULL. Freed with its last operation. */
struct group *group_new(struct coord *c, const char *job, struct client *cl, uint32_t reply);
void group_join(struct group *g, struct op *op);
void group_leave(struct op *op);
/** It is not freed before group_release(), whatever becomes of its operations. */
void group_hold(struct group *g);
void group_release(struct group *g);
void group_at(struct op *op, int barrier);
/** All that this operation needs for its commit is there. */
void group_ready(struct op *op);
/** It stands at a barrier where others have not come to. */
bool group_waits(const struct op *op);
/** It is being undone: so are the others. */
void group_failed(struct op *op);
void group_result(struct op *op, const Pm__MigrateRep *r);
/** @settled: nothing of it is in doubt any more. */
void group_error(struct op *op, const Pm__Error *er, const char *state, bool settled);

#endif
