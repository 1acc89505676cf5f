/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Between tests/main.cc and tests/harness.cc only. */
#ifndef TESTS_HARNESS_RUN_H
#define TESTS_HARNESS_RUN_H

#include "tests/harness.h"

/** Runs one case; failures go to Google Test. */
void run_case(const struct test_case &c);

#endif
