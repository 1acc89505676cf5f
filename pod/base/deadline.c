/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "pod/base/deadline.h"

#include <limits.h>
#include <stdatomic.h>
#include <time.h>
#include <unistd.h>

#include "pod/base/util.h"

#define LOOK 1ull /* in the lowest bit: a nanosecond is neither here nor there */
#define STILL_NS (200 * NSEC_PER_MSEC)
#define GRACE_NS (DEADLINE_GRACE_MS * NSEC_PER_MSEC)

/* Standstills that follow one another within the grace are one. */
static struct {
	_Atomic uint64_t still_ns, at;
	_Atomic uint64_t lost_ns, grace_till, all_lost_ns;
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
	return (now_ns() + ms * NSEC_PER_MSEC) & ~LOOK;
}

uint64_t deadline_look_ms(uint64_t ms)
{
	return deadline_ms(ms) | LOOK;
}

/* What a parent has noticed is not ours. */
static void be_ours(void)
{
	pid_t self = getpid(), was = beat.pid;

	if (was == self || !atomic_compare_exchange_strong(&beat.pid, &was, self))
		return;
	beat.still_ns = 0;
	beat.lost_ns = 0;
	beat.grace_till = 0;
}

void deadline_beats(unsigned still_ms)
{
	be_ours();
	beat.at = now_ns();
	beat.still_ns = still_ms * NSEC_PER_MSEC;
}

static void stood_still(uint64_t ns)
{
	uint64_t now = now_ns();

	if (now > beat.grace_till + ns)
		beat.lost_ns = 0;
	beat.lost_ns += ns;
	beat.all_lost_ns += ns;
	beat.grace_till = now + GRACE_NS;
}

void deadline_beat(void)
{
	uint64_t now, was;

	if (!beat.still_ns || beat.pid != getpid())
		return;
	now = now_ns();
	was = atomic_exchange(&beat.at, now);
	if (now > was && now - was > beat.still_ns)
		stood_still(now - was);
}

void deadline_waited(uint64_t planned, uint64_t took)
{
	bool late = took > planned + STILL_NS;

	be_ours();
	if (!late)
		beat.at = now_ns();
	else if (beat.still_ns)
		deadline_beat(); /* unless the tick has seen it, too */
	else
		stood_still(took);
}

/* What @deadline has become by standstills. */
static uint64_t with_grace(uint64_t deadline)
{
	deadline_beat();
	if (deadline & LOOK || beat.pid != getpid() || beat.grace_till <= deadline)
		return deadline;
	return MIN((uint64_t)beat.grace_till, deadline + beat.lost_ns + GRACE_NS);
}

bool deadline_past(uint64_t deadline)
{
	return deadline != IO_FOREVER && now_ns() >= with_grace(deadline);
}

int deadline_left_ms(uint64_t deadline)
{
	uint64_t now, ms;

	if (deadline == IO_FOREVER)
		return -1;
	deadline = with_grace(deadline);
	now = now_ns();
	if (now >= deadline)
		return 0;
	ms = (deadline - now + NSEC_PER_MSEC - 1) / NSEC_PER_MSEC;
	return ms > INT_MAX ? INT_MAX : (int)ms;
}

uint64_t deadline_lost_ns(void)
{
	deadline_beat();
	return beat.all_lost_ns;
}

unsigned deadline_grace_ms(void)
{
	uint64_t now;

	deadline_beat();
	now = now_ns();
	return beat.pid == getpid() && beat.grace_till > now ? (unsigned)((beat.grace_till - now) / NSEC_PER_MSEC) + 1 : 0;
}
