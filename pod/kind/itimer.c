/* SPDX-License-Identifier: GPL-3.0-or-later */
/* The three interval timers of a process. */
#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>

#include "pod/dump.h"
#include "pod/kind/task_kinds.h"

#define NTIMERS 3

static int ask(struct dump *d, struct task *t, struct batch *b, uint64_t *cookie, struct err *e)
{
	int i;

	(void)d;
	(void)t;
	(void)e;
	*cookie = batch_data(b, NULL, NTIMERS * sizeof(struct itimerval));
	for (i = 0; i < NTIMERS; i++)
		batch_add2(b, SYS_getitimer, i, *cookie + (uint64_t)i * sizeof(struct itimerval));
	return 0;
}

static uint64_t us(const struct timeval *tv)
{
	return (uint64_t)tv->tv_sec * 1000000 + (uint64_t)tv->tv_usec;
}

static int take(struct dump *d, struct task *t, struct batch *b, uint64_t cookie, Pm__Proc *proc, Pm__Thread *th,
		struct err *e)
{
	const struct itimerval *v = batch_local(b, cookie);
	int i;

	(void)t;
	(void)th;
	(void)e;
	proc->n_itimers = NTIMERS * 2;
	proc->itimers = dump_alloc(d, NTIMERS * 2 * sizeof(uint64_t));
	for (i = 0; i < NTIMERS; i++) {
		proc->itimers[i * 2] = us(&v[i].it_value);
		proc->itimers[i * 2 + 1] = us(&v[i].it_interval);
		/* expired with its signal pending: it reads as stopped, but its next period is due */
		if (!proc->itimers[i * 2] && proc->itimers[i * 2 + 1])
			proc->itimers[i * 2] = proc->itimers[i * 2 + 1];
	}
	return 0;
}

/* What is to be asked for so that @value is left: the kernel adds a tick of its clock to what counts CPU time, each time it is set. */
static uint64_t less_tick(size_t timer, uint64_t value)
{
	struct timespec tick;
	uint64_t more;

	if (timer == ITIMER_REAL || !value || clock_getres(CLOCK_MONOTONIC_COARSE, &tick) < 0)
		return value;
	more = (uint64_t)tick.tv_nsec / 1000;
	return value > more ? value - more : 1;
}

static int give(struct restore *r, const Pm__Proc *proc, const Pm__Thread *th, struct batch *b, struct err *e)
{
	size_t i;

	(void)r;
	(void)th;
	if (proc->n_itimers != NTIMERS * 2)
		return err_set(e, EBADMSG, "%zu interval timer values", proc->n_itimers);
	for (i = 0; i < NTIMERS; i++) {
		uint64_t value = less_tick(i, proc->itimers[i * 2]), interval = proc->itimers[i * 2 + 1];
		struct itimerval v = { { (time_t)(interval / 1000000), (suseconds_t)(interval % 1000000) },
				       { (time_t)(value / 1000000), (suseconds_t)(value % 1000000) } };

		if (value)
			batch_add3(b, SYS_setitimer, i, batch_data(b, &v, sizeof(v)), 0);
	}
	return 0;
}

const struct kind kind_itimer = { .name = "itimer", .type = 108, .version = 1, .min_version = 1,
				  .scope = KIND_PROC, .ask = ask, .take = take, .give = give };
