/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * podinit's parts: main.c (start, event loop, reaping), session.c (a command with its streams),
 * conn.c (connections to the control socket), ring.c.
 */
#ifndef PODINIT_H
#define PODINIT_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "control.pb-c.h"
#include "pod/base/err.h"
#include "pod/podinit/ring.h"

#define RING_SIZE (512u << 10)
/* What was sent may still be in a connection's buffer, and end with it; it is dropped only when so
 * much more has been sent. */
#define MARGIN (256u << 10)
/* Twice what a client may have unacknowledged, so that a frame of stdin always finds room. */
#define STDIN_SIZE (128u << 10)
#define MAX_CONNS 64
#define MAX_SESSIONS 64
/* Sessions that are over are kept for clients that were cut off from them, the latest few. */
#define KEEP_SESSIONS 8
/* Output waits that long for somebody to come (back) before the oldest is overwritten. */
#define ORPHAN_NS (30ull * 1000000000ull)
/* And so long for the client that was cut off, or has started the session and is about to attach. */
#define RESERVE_NS (10ull * 1000000000ull)
#define DATA_MAX (32u << 10)

enum watch_kind { WATCH_LISTEN, WATCH_SIGNAL, WATCH_CONN, WATCH_IN, WATCH_OUT, WATCH_ERR };

/** An fd in the epoll set. */
struct watch {
	enum watch_kind kind;
	int fd; /* -1: not there */
	uint32_t events; /* 0: not in the set */
	void *owner;
};

struct stream {
	struct watch w;
	struct ring ring;
	bool eof;
};

struct session {
	uint32_t id;
	pid_t pid; /* of the command = its session and process group */
	bool tty;
	int slave;	       /* pty: held until the command is gone; -1 */
	struct stream out[2];  /* stdout (or the pty's master), stderr */
	struct watch in;       /* stdin's pipe; fd = -1 for a pty */
	struct ring in_ring;   /* tail: written to the command, head: received */
	bool in_open, in_eof;  /* takes stdin; the client has sent the end of it */
	bool exited, finished; /* command gone; and all its output read */
	int code;
	uint32_t last_signal_id;
	bool delivered;	       /* its exit reached a log keeper */
	unsigned consumers;
	uint64_t orphan_since; /* CLOCK_MONOTONIC, when consumers fell to 0 */
	uint64_t reserved_since; /* when the client that types was lost; 0: none is */
	uint64_t reserved[2];	 /* the output that it had been sent */
	bool dead;
};

struct conn {
	struct watch w;
	bool greeted, dead, stalled;
	uint8_t *in, *out;
	size_t in_len, in_cap, out_at, out_len;
	struct session *s; /* attached to; NULL */
	uint32_t attach_id;
	bool follow, owner, want_stdin;
	bool eof_sent[2], exit_sent;
	uint64_t sent[2], limit[2];
	uint64_t acked;
};

struct podinit {
	int epoll;
	struct watch listener, signals;
	Pm__PodSpec *spec;
	struct session *session[MAX_SESSIONS];
	struct conn *conn[MAX_CONNS];
	uint32_t next_session;
	bool leave; /* told to go */
	bool childless; /* nobody else is left in the pod */
	bool busy;	/* the last round moved something */
};

/* main.c */
int watch_set(struct podinit *p, struct watch *w, uint32_t events, struct err *e);
void watch_close(struct podinit *p, struct watch *w);

/* session.c */
struct session_args {
	char **argv;
	char **envp;
	const char *cwd;
	bool tty, stdin_open;
	uint32_t rows, cols;
};
/** Starts a command. On failure *@code is 126 or 127 when the command itself is at fault. */
int session_start(struct podinit *p, const struct session_args *a, struct session **out, int *code,
		  struct err *e);
struct session *session_find(struct podinit *p, uint32_t id);
void session_exited(struct podinit *p, struct session *s, int code);
/** Reads output, writes stdin, sees the end; called whenever something may have changed. */
void session_pump(struct podinit *p, struct session *s);
/** Bytes of @data at @offset of stdin: how many were taken or dropped as known; -EPROTO: a gap. */
ssize_t session_stdin(struct session *s, uint64_t offset, const uint8_t *data, size_t len);
/** Until when held-back output waits for somebody (CLOCK_MONOTONIC); IO_FOREVER: it does not. */
uint64_t session_patience(const struct session *s);
void session_winsize(struct session *s, uint32_t rows, uint32_t cols);
int session_signal(struct session *s, int sig);
void session_free(struct podinit *p, struct session *s);

/* conn.c */
int conn_accept(struct podinit *p);
void conn_event(struct podinit *p, struct conn *c, uint32_t events);
/** Sends what there is to send for @c's session. */
void conn_pump(struct podinit *p, struct conn *c);
void conn_retry(struct podinit *p, struct conn *c);
void conn_free(struct podinit *p, struct conn *c);

#endif
