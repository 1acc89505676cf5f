/* SPDX-License-Identifier: GPL-3.0-or-later */
/* One side of one migration on this node; see op.c. Only the op_*.c files include this. */
#ifndef AGENT_OP_H
#define AGENT_OP_H

#include "agent/agent.h"

enum op_state {
	SRC_DUMP,   /* the engine works; the pod may go on at any time */
	SRC_READY,  /* frozen; only STARTED or ABORTED from the coordinator changes that */
	SRC_FLUSH,  /* the target runs; the engine forwards late packets */
	SRC_CLEAN,  /* being removed */
	SRC_UNDO,   /* the engine undoes */
	SRC_REPAIR, /* the engine is dead: a thread undoes what it left */
	TGT_OPEN,   /* the engine makes its port */
	TGT_RECV,   /* pages arrive */
	TGT_READY,  /* frozen here; START or REFUSED not written yet */
	TGT_RUN,    /* START is on disk */
	TGT_UNDO,   /* REFUSED is on disk; the engine undoes */
	TGT_REMOVE, /* a thread removes what is left */
	NUM_OP_STATES
};

enum op_event {
	EV_PROGRESS, EV_LISTENING, EV_AT, EV_READY, EV_DONE, EV_FAILED, EV_GONE, /* engine */
	EV_GO, EV_COMMIT, EV_STARTED, EV_ABORT, EV_LOST,                         /* coordinator, or its absence */
	EV_LATE, EV_DIED, EV_CLEANED,                                  /* timer, pod, thread */
	NUM_OP_EVENTS
};

enum op_outcome { OP_NONE, OP_START, OP_REFUSED };

struct op {
	struct op *next;
	struct agent *agent;
	char id[48], name[64];
	uint64_t epoch; /* the pod's at the target */
	enum op_state state;
	bool image;           /* source: into an image; target: out of one */
	Pm__Envelope *early;  /* target: READY came before the address was known to be free, owned */
	bool dry_run, hushed; /* hushed: the coordinator has been told how it ended */
	uint32_t reply;       /* id of the question that started it */
	bool probed;          /* target: nobody else answers for the pod's address */
	bool gone;            /* target: a dry run out of an image was over before that was known */
	uint32_t port;        /* target: the engine listens there; 0: not yet */
	struct worker *worker;
	struct event *timer;
	char phase[16];          /* last heard of, for messages */
	Pm__Envelope *last;      /* EngineDone or EngineFailed, owned */
	Pm__Envelope *queued;    /* TGT_RUN: the AgentOutgoing of the pod's next move, owned */
	int record;              /* target: fd of the START/REFUSED record */
	enum op_outcome outcome;
	struct pod_place place;  /* owned strings, for the threads */
	int netns;               /* a duplicate, for the threads */
};

/* op.c */
void op_event(struct op *op, enum op_event ev, const Pm__Envelope *env);
struct op *op_find(struct agent *a, const char *id);
struct op *op_new(struct agent *a, const char *id, struct pod *p, enum op_state state);
void op_finish(struct op *op);
struct pod *op_pod(struct op *op);
int op_engine_start(struct op *op, struct err *e);
/** @unsure: it is not the coordinator's word. */
void op_tell_engine_abort(struct op *op, bool unsure);
void op_timer(struct op *op, unsigned ms); /* 0: off */
/** To the coordinator: OpFailed made of what the engine said, or of @e. Once. */
void op_send_failed(struct op *op, const struct err *e, int exit_code, const char *state);
void op_send_aborted(struct agent *a, const char *id);
void op_forward_progress(struct op *op, const Pm__Envelope *env);
/** Runs @fn in a thread; EV_CLEANED comes at its end. */
void op_thread(struct op *op, int (*fn)(void *op, struct err *e));
/** A packed copy; NULL without memory. link_free() it. */
Pm__Envelope *envelope_copy(const Pm__Envelope *env);
void op_keep_last(struct op *op, const Pm__Envelope *env);

/* op_source.c, op_target.c: handlers of the table in op.c */
typedef void op_handler(struct op *op, const Pm__Envelope *env);
op_handler src_at, src_go, src_ready, src_dump_gone, src_abort, src_left_alone, src_undo_gone, src_undone,
	src_started, src_flushed, src_cleaned, src_orphaned, src_kill_engine,
	src_ready_abort;
op_handler tgt_listening, tgt_ready, tgt_early, tgt_failed, tgt_gone, tgt_abort, tgt_commit, tgt_recommit,
	tgt_run_done, tgt_run_died, tgt_run_fenced, tgt_removed, tgt_kill_engine, tgt_undo_gone, tgt_orphaned;
/** The administrator has decided for the source although @id was started here: that copy ends. */
void tgt_fence(struct agent *a, const char *id);
int src_resume(struct op *op, bool alive, struct err *e);
int tgt_resume(struct op *op, bool alive, struct err *e);

/* record.c: the node's word. First write wins. */
/** Makes the record of @id (durable, undecided) or opens the one there is. Its fd. */
int record_open(struct agent *a, const char *id, enum op_outcome *outcome, struct err *e);
/** Overwrites in place what record_open() made: one fdatasync, no change of the file's size. */
int record_write(int fd, enum op_outcome outcome, uint64_t epoch, const char *pod, struct err *e);
/** What a record says. */
struct record {
	enum op_outcome outcome;
	uint64_t epoch;
	char pod[64];
};
/** Reads the record of @id; OP_NONE also when there is none. */
int record_read(struct agent *a, const char *id, struct record *out, struct err *e);

/* undo.c */
/** Lets a pod go on whose engine died: sockets out of repair mode, filter down, thaw. For a thread. */
int undo_pod(const struct pod_place *place, int netns, struct err *e);

#endif
