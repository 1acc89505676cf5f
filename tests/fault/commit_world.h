/* SPDX-License-Identifier: GPL-3.0-or-later */
/* The world of commit_test.c: a directory with a coordinator and two agents, and what can be asked of them. */
#ifndef TESTS_FAULT_COMMIT_WORLD_H
#define TESTS_FAULT_COMMIT_WORLD_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "agent/link/frame.h"
#include "tests/fault/ticks.h"

#define WAIT_MS 60000
#define POD "p"

enum who { COORD, AGENT_A, AGENT_B, NUM_WHO };
enum death { NO_DEATH, PROCESS, NODE }; /* what dies with a killed agent */

struct world {
	char dir[256], bin[300];
	char cgroup[NUM_WHO][4096]; /* of a node's pods */
	char daemons[NUM_WHO][4096]; /* of its agent and engines */
	pid_t pid[NUM_WHO];
	unsigned boots[NUM_WHO];
	struct ticks *ticks;
	int client;
	bool failed;
	char why[512];
	/* the answer to migrate */
	bool moved, refused, answered;
	int exit_code;
	uint64_t commit_ns;
	char op[64], cause[300];
};

extern struct world w;

/** The first reason why the running case has failed. */
void flunk(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
/** A moment between two looks at something; who looks does so for WAIT_MS at most. */
void nap(void);
/** Loopback up, directories, the programs to run; once. */
int lo_up(void);
int prepare(void);
/** A path below the case's directory; valid until the next calls. */
const char *in_dir(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
void put_file(const char *path, const char *text);
void write_confs(void);
void start(enum who who);
void kill_cgroup(const char *cgroup);

struct view { /* what podps says of the pod */
	bool found;
	char node;
	Pm__PodState state;
};

int ask_fd(void);
/** Sends one message as a client; the answer, or NULL. */
Pm__Envelope *ask(const Pm__Envelope *env);
bool both_up(void);
bool look(struct view *v);
/** podctl recover [ID]: the first line */
bool recover(const char *id, char *line, size_t len);
bool nothing_open(void);
/** Does this copy of the pod make steps? Waits for them. */
bool runs(const struct tick_slot *s);
/** It makes none for a tenth of a second. */
bool stands(const struct tick_slot *s);
bool pod_dir(enum who who);

#endif
