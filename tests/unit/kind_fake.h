/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * A little dump and restore for the tests of FD kinds: what pod/kind/kind.h lets kinds ask for, over
 * the test's own fds. fake_move() dumps them, closes them, restores them, and puts the new ones at the
 * same numbers, so that a test goes on with its fds as a program does after a move.
 */
#ifndef TESTS_UNIT_KIND_FAKE_H
#define TESTS_UNIT_KIND_FAKE_H

#include "pod/kind/kinds.h"

struct fake *fake_new(void);
void fake_free(struct fake *);
/** fd @fd of the test is to be moved (kinds are looked for in the tables of the fake). */
void fake_add(struct fake *, int fd);
/** Treats @dev as a private tmpfs of the pod. */
void fake_private(struct fake *, uint64_t dev);
/** Network namespaces on both sides (default: the caller's); closed by nobody. */
void fake_netns(struct fake *, int from, int to);
/** What happens between finish() and release(); @release: whether release() comes at all. */
void fake_on_start(struct fake *, void (*fn)(void *arg), void *arg, bool release);
/** The move. Fails the case if anything fails. */
void fake_move(struct fake *);
/** Only dump and undo; the code of the first failure, or 0. */
int fake_dump_undo(struct fake *, struct err *e);
/** Only check() of what @fd is, or the refusal if no kind takes it. */
int fake_check(struct fake *, int fd, struct err *e);
/** Body of the object behind @fd after a move. */
const void *fake_body(struct fake *, int fd);

/** What a kind of scope POD gathers: body number @i, and how many there are. */
const void *fake_gather(struct fake *, const struct kind *kind, size_t i, size_t *n);
/** Restores one such. Its result. */
int fake_make(struct fake *, const struct kind *kind, const void *body, struct err *e);
#define FAKE_ALIEN 666 /* nothing of this user's can be in the pod */

/** Runs @b, whose scratch is @scratch (SCRATCH_LEN bytes of this process), by calling its calls. */
void fake_run_batch(struct batch *b, void *scratch);

#endif
