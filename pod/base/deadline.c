/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "pod/base/deadline.h"

#include <limits.h>
#include <stdatomic.h>
#include <time.h>
#include <unistd.h>

#include "pod/base/util.h"

/* A machine that does nothing else: then deadlines are what they are, until it has run for a while. */
#define GRACES_MAX 300u
#define RUNS_MS 60000u

static struct {
	_Atomic uint64_t still_ns, at, grace_till;
	_Atomic unsigned graces;
	_Atomic pid_t pid;
} beat;

uint64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * NSEC_PER_SEC + (uint64_t)ts.tv_nsec;
}

uint64_t deadline_ms(uint64_t ms)
{
	return now_ns() + ms * NSEC_PER_MSEC;
}

void deadline_beats(unsigned still_ms)
{
	beat.pid = getpid();
	beat.at = now_ns();
	beat.grace_till = 0;
	beat.graces = 0;
	beat.still_ns = still_ms * NSEC_PER_MSEC;
}

bool deadline_has_beats(void)
{
	return beat.still_ns && beat.pid == getpid();
}

void deadline_stood_still(void)
{
	if (beat.pid != getpid())
		deadline_beats(0);
	if (now_ns() > beat.grace_till + RUNS_MS * NSEC_PER_MSEC)
		beat.graces = 0;
	if (beat.graces++ < GRACES_MAX)
		beat.grace_till = deadline_ms(DEADLINE_GRACE_MS);
}

void deadline_beat(void)
{
	uint64_t now = now_ns(), was;

	if (!deadline_has_beats())
		return;
	was = atomic_exchange(&beat.at, now);
	if (now > was && now - was > beat.still_ns)
		deadline_stood_still();
}

/* What @deadline has become by standstills, seen at @now. */
static uint64_t with_grace(uint64_t deadline, uint64_t now)
{
	if (now < deadline)
		return deadline;
	deadline_beat(); /* the one that ends a standstill may not have come yet */
	return MAX(deadline, beat.pid == getpid() ? beat.grace_till : 0);
}

bool deadline_past(uint64_t deadline)
{
	uint64_t now = now_ns();

	return deadline != IO_FOREVER && now >= with_grace(deadline, now);
}

int deadline_left_ms(uint64_t deadline)
{
	uint64_t now = now_ns(), ms;

	if (deadline == IO_FOREVER)
		return -1;
	deadline = with_grace(deadline, now);
	if (now >= deadline)
		return 0;
	ms = (deadline - now + NSEC_PER_MSEC - 1) / NSEC_PER_MSEC;
	return ms > INT_MAX ? INT_MAX : (int)ms;
}

unsigned deadline_grace_ms(void)
{
	return (unsigned)deadline_left_ms(0);
}
