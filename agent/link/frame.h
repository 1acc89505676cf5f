/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Frames: {u32 little-endian length, Envelope}. This file is blocking I/O only, so that it fits into
 * the static podinit; agent/link/conn.h is the same on libevent.
 *
 * Hello goes first, in both directions, on the hops where the two programs may be of different
 * builds: client <-> coordinator, coordinator <-> agent, agent <-> podinit (its abstract socket: a
 * podinit travels with its pod). There is none on the engine's fd 3 and on POD_NS_CHILD_FD: the
 * first message there says what is wanted.
 */
#ifndef LINK_FRAME_H
#define LINK_FRAME_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "control.pb-c.h"
#include "pod/base/err.h"

#define LINK_FRAME_MAX (16u << 20)
#define LINK_HEADER 4u
#define LINK_VERSION 1
#define LINK_MIN_VERSION 1
#define LINK_BUILD "0.1"

/** Packs @env into one malloc'ed frame (header included). 0, -EMSGSIZE, -ENOMEM. */
int link_pack(const Pm__Envelope *env, uint8_t **frame, size_t *len, struct err *e);
/** Unpacks the @len bytes after a header. NULL (with words in @e) when they are no Envelope or
 * would take far more memory than a frame may. Free it by link_free(). */
Pm__Envelope *link_unpack(const uint8_t *data, size_t len, struct err *e);
/** NULL is fine. */
void link_free(Pm__Envelope *env);

/** Sends one frame. 0 or negative errno (-EPIPE, -ETIMEDOUT, ...). */
int link_send(int fd, const Pm__Envelope *env, uint64_t deadline, struct err *e);
/** Receives one frame into *@out (link_free() it). 0; -EPIPE: the other end is gone; -ETIMEDOUT;
 * -EPROTO: not our protocol. */
int link_recv(int fd, Pm__Envelope **out, uint64_t deadline, struct err *e);

/**
 * Sends our Hello and receives theirs. @role: client, coordinator, agent, engine, podinit; @name may
 * be NULL. *@theirs (may be NULL) gets their Envelope, whose ->hello is set; link_free() it.
 * -EPROTONOSUPPORT when there is no common version.
 */
int link_hello(int fd, const char *role, const char *name, Pm__Envelope **theirs,
	       uint64_t deadline, struct err *e);
/** Is @env a Hello whose version we can speak? 0, -EPROTO or -EPROTONOSUPPORT. */
int link_hello_check(const Pm__Envelope *env, struct err *e);

/** The message's name for logs ("migrate_req"); "nothing" for an empty or unknown one. */
const char *link_body_name(Pm__Envelope__BodyCase body);

/*
 * Declares `rep` holding an initialised message `rep_body`:
 *	LINK_ENVELOPE(rep, op_ready, OP_READY, Pm__OpReady, pm__op_ready__init);
 *	rep_body.op = op;
 *	link_send(fd, &rep, ...);
 */
#define LINK_ENVELOPE(var, field, CASE, type, init)                    \
	Pm__Envelope var;                                              \
	type var##_body;                                               \
	pm__envelope__init(&var);                                      \
	init(&var##_body);                                             \
	var.body_case = PM__ENVELOPE__BODY_##CASE;                     \
	var.field = &var##_body

#endif
