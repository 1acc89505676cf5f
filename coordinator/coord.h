/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * podcoord's own structures. One thread, one event loop. What it knows of pods it knows from the
 * agents' reports; what it decides is in the journal before anybody hears of it.
 */
#ifndef COORD_H
#define COORD_H

#include <event2/event.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "agent/link/conn.h"
#include "pod/base/conf.h"
#include "pod/base/err.h"

/* exit codes of the commands: reference in podmigrate(1) */
enum {
	EX_OTHER = 1, EX_BADUSE = 2, EX_NOTFOUND = 3, EX_UNREACHABLE = 4, EX_DENIED = 5, EX_CHECK = 6,
	EX_TRANSFER = 8, EX_RESTORE = 9, EX_ABORTED = 10, EX_PARTIAL = 12, EX_BUSY = 13, EX_UNKNOWN = 14,
};

struct journal;
struct op;
struct ask;

struct node {
	struct coord *coord;
	const struct conf_node *conf;
	struct conn *conn;
	bool up; /* hello was exchanged */
	char boot_id[64];
	struct event *timer; /* dials again, or watches over its silence */
	uint64_t heard_ns;   /* CLOCK_MONOTONIC */
	struct ask *asks;
	uint32_t next_id;
	uint32_t cpus, running;
	uint64_t mem_total, mem_free;
	char kernel[65], address[64];
	char why[200]; /* why it is down */
	bool cordoned; /* takes no more pods, says root: */
	char reason[128];
};

/* One report of a pod by one node. A pod on the move has two; pod_find() knows which counts. */
struct pod {
	struct pod *next;
	struct node *node;
	Pm__PodInfo *info; /* owned */
	bool pending;      /* podrun is under way: the agent does not report it yet */
	bool stale;        /* scratch of a report */
	uint64_t checkpoint_ns; /* podrun -i: when the next one is due; 0: not known yet */
	bool noted;        /* the journal knows of it, as it was in: */
	uint64_t noted_epoch;
};

struct client {
	struct client *next;
	struct coord *coord;
	struct conn *conn;
	uint64_t serial; /* how late answers find out whether it is still there */
	bool greeted;
	uid_t uid;
	gid_t gid;
	char user[64];
};

struct coord {
	uint32_t next_ip; /* in the pool, counted from its first */
	struct event_base *base;
	struct conf conf;
	struct node *nodes;
	size_t nnodes;
	struct pod *pods;
	struct client *clients;
	uint64_t next_serial;
	struct journal *journal;
	struct op *ops;
	struct in_image *in_images;
};

/* ---- nodes.c */
int nodes_start(struct coord *c, struct err *e);
struct node *node_find(struct coord *c, const char *name);
typedef void ask_fn(struct node *n, const Pm__Envelope *reply, void *arg);
/** Asks; @fn gets the answer, or NULL when the node is lost or @ms have passed. */
void node_ask(struct node *n, Pm__Envelope *env, unsigned ms, ask_fn *fn, void *arg);
/** Tells; nothing when the node is down. */
void node_tell(struct node *n, const Pm__Envelope *env);
void nodes_list(struct coord *c, struct client *cl, uint32_t id);
/** Asks a node what is wrong with it. */
void node_check(struct client *cl, uint32_t id, const Pm__CheckNodeReq *m);

/* ---- cordon.c: nodes that shall be emptied */
void cordon_request(struct client *cl, uint32_t id, const Pm__CordonReq *m);
/** After nodes_start(). */
int cordons_load(struct coord *c, struct err *e);
/** May a pod come to @n? False: the client has been told why not, in @phase, and that @state. */
bool node_takes(struct client *cl, uint32_t id, const struct node *n, const char *phase, const char *state);

/* ---- pods.c */
struct pod *pod_find(struct coord *c, const char *name);
struct pod *pod_find_at(struct coord *c, const char *name, const struct node *n);
/** Takes a copy of @info. */
struct pod *pod_add(struct coord *c, struct node *n, const Pm__PodInfo *info);
void pod_remove(struct coord *c, struct pod *p);
/** Pods of nodes that have not answered yet, as the journal remembers them. */
int pods_load(struct coord *c, struct err *e);
/** One of them. */
void pod_reported(struct node *n, const Pm__PodInfo *info);
void pods_reported(struct node *n, const Pm__AgentPods *m);
void pods_list(struct coord *c, struct client *cl, uint32_t id, const Pm__PodsReq *m);
/** May @cl do things to @p: its owner or root. */
bool pod_owned(const struct pod *p, const struct client *cl);
/** "frozen, held by operation m17-...": the state of a pod that does not run, in words. */
const char *pod_condition(const struct pod *p, char *buf, size_t len);
/** The pod that has it and has not exited, or NULL. */
const struct pod *pod_with_ip(struct coord *c, const char *ip);
bool pod_runs(const struct pod *p);
/** Is @p on @node, or is that ""? False: the client has been told. */
bool pod_is_at(struct client *cl, uint32_t id, const struct pod *p, const char *node);

/* ---- run.c */
void run_request(struct client *cl, uint32_t id, const Pm__RunReq *m);

/* ---- relay.c */
/** Turns the client's connection into a console relay; @cl is freed. */
void relay_request(struct client *cl, const Pm__Envelope *env);

/* ---- client.c */
int clients_listen(struct coord *c, struct err *e);
struct client *client_by_serial(struct coord *c, uint64_t serial);
void client_send(struct client *cl, uint32_t id, Pm__Envelope *env);
/** @state and @hint may be "". */
void client_error(struct client *cl, uint32_t id, int exit_code, const char *phase,
		  const char *state, const char *hint, const char *fmt, ...)
	__attribute__((format(printf, 7, 8)));
/** Frees @cl without its connection, which is returned. */
struct conn *client_take_conn(struct client *cl);

/* ---- ops.c */
void migrate_request(struct client *cl, uint32_t id, const Pm__MigrateReq *m);
void checkpoint_request(struct client *cl, uint32_t id, const Pm__CheckpointReq *m);
void restore_request(struct client *cl, uint32_t id, const Pm__RestoreReq *m);
void restore_job_request(struct client *cl, uint32_t id, const Pm__RestoreJobReq *m);
/** Tells @cl that there is no pod @name because a checkpoint ended it; false: it did not, or it was not @cl's. */
bool image_has_pod(struct client *cl, uint32_t id, const char *name);
/** There is a pod of this name again. */
void image_left(struct coord *c, const char *name);
/** Begins a checkpoint of @p that nobody waits for. */
int checkpoint_begin(struct coord *c, struct pod *p);
int interval_start(struct coord *c);
/** Is there an operation that makes or moves pod @name? Its id, or NULL. */
const char *pod_held(struct coord *c, const char *name);
/** The node that is up, takes pods and has the fewest; NULL: there is none. */
struct node *node_least_loaded(struct coord *c);
/** A locally administered address that name and IPv4 address settle. */
void pod_mac(const char *name, const char *ip, char out[18]);
bool pod_name_ok(const char *name);
void abort_request(struct client *cl, uint32_t id, const Pm__OpAbortReq *m);
/** What is under way, or what became of it: ops_list.c. */
void ops_request(struct client *cl, uint32_t id, const Pm__OpsReq *m);
void recover_request(struct client *cl, uint32_t id, const Pm__RecoverReq *m);
/** A message of a node about an operation. */
void op_message(struct node *n, const Pm__Envelope *env);
void ops_node_lost(struct node *n);
void ops_node_up(struct node *n);
void ops_client_gone(struct client *cl);
/** After a report: pods that are held by operations. */
void ops_reconcile(struct node *n);
int ops_load(struct coord *c, struct err *e);

#endif
