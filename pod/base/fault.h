/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Fault points for the tests. When POD_FAULT_FILE names a file, each fault point reads it; its lines
 * are "ROLE@STAGE:ACTION" with ACTION = kill (SIGKILL to itself), fail (the point returns -EIO) or
 * delay=MS. A line fires once: it is taken out of the file before it acts. Without the variable a
 * point costs one load.
 */
#ifndef POD_BASE_FAULT_H
#define POD_BASE_FAULT_H

#include <stdbool.h>
#include <stddef.h>

#include "pod/base/err.h"

/** @role e.g. "engine-source", "agent", "coord"; @stage e.g. "precopy". 0, or -EIO with words in @e. */
int fault_point(const char *role, const char *stage, struct err *e);

/**
 * Takes the line "ROLE@WHAT:WORD" and gives its word: for tests that need another answer from this
 * machine than it would give ("engine-target@host:cpuid": a CPU without any feature).
 */
bool fault_word(const char *role, const char *what, char *word, size_t len);

#endif
