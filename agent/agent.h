/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * podagent's own structures. One thread, one event loop; what blocks (taking a pod's room down) runs
 * in a thread of its own by task_run().
 */
#ifndef AGENT_H
#define AGENT_H

#include <event2/event.h>
#include <limits.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "agent/link/conn.h"
#include "pod/base/conf.h"
#include "pod/base/err.h"
#include "pod/ns.h"

struct create;
struct keeper;
struct op;
struct session;
struct worker;

/* ---- registry.c: the pods of this node. Persisted under state_dir/pods/NAME/ as `spec` (packed
 * PodSpec) and `state` (one line of words), so that a restarted agent finds them again. */
struct pod {
	struct pod *next;
	struct agent *agent;
	Pm__PodSpec *spec; /* owned */
	Pm__PodState state;
	uint64_t epoch;
	pid_t pid;      /* pid 1, 0: none */
	uint64_t start; /* its start time, so that a re-used pid is not taken for it */
	int pidfd, netns;
	struct event *watch;
	int exit_code;
	bool exit_known;
	struct create *creating; /* create.c */
	char op[48]; /* the operation that holds it, "" = none */
	bool going;  /* its room is being taken down */
	bool forget; /* ... and then nothing of it is to be known */
	uint64_t frozen_ns; /* when it became POD_FROZEN, CLOCK_MONOTONIC */
	pid_t engine; /* of the operation, for our own restart; 0: none */
	uint64_t engine_start;
	char *dir, *cgroup, *host_link; /* owned: struct pod_place */
	struct keeper *keeper;          /* console.c: keeps its log */
	int failures;                   /* of adoption attempts, for the log's sake */
};

struct agent {
	struct event_base *base;
	struct conf conf;
	char cgroup_root[PATH_MAX]; /* where the pods' cgroups are */
	char bin_dir[PATH_MAX];     /* our own executable's directory: pod-engine is there */
	char boot_id[48];
	struct pod *pods;
	struct op *ops;
	struct session *sessions;
	struct conn *coord; /* the control channel; NULL: the coordinator is away */
	struct event *report_later;
	struct tasks *tasks;
	struct check *check; /* of this node, under way: means.c */
};

struct pod *pod_find(struct agent *a, const char *name);
/** A new entry, not persisted yet. Copies @spec. NULL without memory. */
struct pod *pod_new(struct agent *a, const Pm__PodSpec *spec, uint64_t epoch, Pm__PodState state,
		    const char *op);
/** Forgets it, on disk too (its logs as well). */
void pod_forget(struct pod *p);
/** Writes spec and state; durable. */
int pod_save(struct pod *p, struct err *e);
/** Writes the state without waiting for the disk: enough to survive the agent, not the node. */
int pod_save_quick(struct pod *p, struct err *e);
/** @pid is its pid 1: opens pidfd and netns and watches it. */
int pod_adopt_pid(struct pod *p, pid_t pid, struct err *e);
/** Its pid 1 is gone and its exit code known (or -1): takes the room down, then POD_EXITED. */
void pod_ended(struct pod *p, int exit_code);
void pod_place(const struct pod *p, struct pod_place *out);
/** Field 22 of /proc/PID/stat; 0: there is no such process. */
uint64_t process_start_time(pid_t pid);
/** Reads the registry at start. */
int registry_load(struct agent *a, struct err *e);
/** Valid until the next call for this pod's strings; fills @out by reference. */
void pod_info(struct pod *p, Pm__PodInfo *out);
/** The state of the node's pods to the coordinator, @id of its question or 0. */
void agent_report(struct agent *a, uint32_t id);
/** The same soon, once for many changes. */
void agent_report_soon(struct agent *a);
bool pod_name_valid(const char *name);
Pm__PodSpec *spec_copy(const Pm__PodSpec *spec);

/* ---- task.c */
/** Runs @fn(@arg) in a thread, then @done(@arg, result, words) in the loop. */
int task_run(struct agent *a, int (*fn)(void *arg, struct err *e),
	     void (*done)(void *arg, int r, const struct err *e), void *arg);
int tasks_init(struct agent *a, struct err *e);

/* ---- worker.c: one pod-engine */
struct worker_ops {
	void (*message)(struct worker *w, const Pm__Envelope *env, void *arg);
	/** It has exited and all it said was heard. The owner must not use it afterwards. */
	void (*gone)(struct worker *w, void *arg);
};
struct worker *worker_start(struct agent *a, const struct worker_ops *ops, void *arg, struct err *e);
int worker_send(struct worker *w, const Pm__Envelope *env);
/** Nobody is interested any more: it sees EOF, is reaped, no callback comes. NULL is fine. */
void worker_drop(struct worker *w);
pid_t worker_pid(const struct worker *w);
void worker_kill(struct worker *w);

/* ---- probe.c */
/**
 * Asks the segment, in a thread, whether somebody else has the pod's address; then @done(@agent, @key,
 * 1 = yes, 0 = no or cannot be known). At once when there is nothing to ask.
 */
void probe_address(struct agent *a, const Pm__PodSpec *spec, const char *key, int ms,
		   void (*done)(struct agent *a, const char *key, int busy));
/** Parses a spec's MAC. False when it is none. */
bool parse_mac(const char *text, uint8_t mac[6]);

/* ---- means.c */
/** Answers what is wrong with this node. Who asks meanwhile gets the same answer. */
void agent_check(struct agent *a, uint32_t id, const Pm__CheckNodeReq *m);

/* ---- create.c: a new pod */
void agent_run(struct agent *a, uint32_t id, const Pm__AgentRun *m);

/* ---- console.c: relays; keeper.c: the log */
/** Turns connection @c into a relay for the request @env (exec, attach, kill). Takes @c over. */
void console_relay(struct agent *a, struct conn *c, const Pm__Envelope *env);
/** Connects to the pod's podinit. A blocking fd. */
int podinit_connect(const struct pod *p, struct err *e);
int keeper_start(struct pod *p, struct err *e);
void keeper_stop(struct pod *p);
/** The log of @stream (STDOUT or STDERR): an fd whose offsets are the stream's; @flags of open(2). */
int log_open(const struct pod *p, int stream, int flags, struct err *e);

/* ---- look.c */
/** Serves the InspectReq @env on connection @c, which it takes over. */
void agent_look(struct agent *a, struct conn *c, const Pm__Envelope *env);

/* ---- session.c */
int session_listen(struct agent *a, struct err *e);
/** To the coordinator, if it is there. */
void agent_send(struct agent *a, const Pm__Envelope *env);
void agent_send_ok(struct agent *a, uint32_t id);
/** An Error with a pod's state and a hint ("" for none). */
void agent_send_error(struct agent *a, uint32_t id, int exit_code, const struct err *e,
		      const char *state, const char *hint);

/* ---- dispatch.c */
void dispatch(struct agent *a, const Pm__Envelope *env);

/* ---- op.c */
void op_incoming(struct agent *a, uint32_t id, const Pm__AgentIncoming *m);
void op_outgoing(struct agent *a, uint32_t id, const Pm__AgentOutgoing *m);
void op_commit(struct agent *a, uint32_t id, const Pm__OpCommit *m);
void op_started(struct agent *a, uint32_t id, const Pm__OpStarted *m);
void op_aborted(struct agent *a, uint32_t id, const Pm__OpAborted *m);
void op_log(struct agent *a, uint32_t id, const Pm__OpLog *m);
void op_go(struct agent *a, uint32_t id, const Pm__OpGo *m);
void op_query(struct agent *a, uint32_t id, const Pm__OpQuery *m);
/** The coordinator is away: what is before READY is undone. */
void ops_coord_lost(struct agent *a);
/** After a restart: the pod @p was held by an operation; @alive: its pid 1 was found again. */
int op_resume(struct pod *p, bool alive, struct err *e);
/** Waits (bounded) until an engine that our former life started for @p has ended. */
void engine_wait(struct pod *p);
/** Removes records of operations of long ago. */
void records_prune(struct agent *a);
/** @p's pid 1 died while an operation holds it. True: the operation deals with it. */
bool op_pod_died(struct pod *p);

#endif
