/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * A job's checkpoint: its pods are cut together.
 *
 * Each has an engine of its own that takes the stages of a checkpoint; at three barriers it tells the coordinator where it is
 * and waits until all are there:
 *
 *	join	the rounds are over: all pods stop at about the same time, so nobody stands still for a slow one
 *	hold	every pod stands still with its network held: only now may one run again
 *	agree	every image has its name: only now do they count
 *
 * Hold is what makes the cut consistent. Between the stop of the first pod and that of the last, those that still run may
 * send, and what they send is not taken: for TCP it was never received. What must not be is that a pod hears of something
 * that another did after its cut, and nobody does anything after its cut before the last one is made.
 * Meanwhile the freezer holds it, not the tracer: if the engine dies it runs only when the agent has opened its network again.
 *
 * With --term there is no hold and no agree: the pods stay frozen until READY, and the commit is one for all.
 */
#include <errno.h>
#include <poll.h>

#include "agent/link/frame.h"
#include "pod/base/io.h"
#include "pod/base/util.h"
#include "pod/dump_stages.h"

#define CTL_MS 5000
#define LOOK_MS 5	    /* tasks that run are let go on if a signal has stopped them */
#define ROUND_NS (2 * NSEC_PER_SEC)
#define ROUNDS_MAX 8u	    /* while it waits: what they write stays in the image */

static int tell(struct dump *d, Pm__Barrier b, struct err *e)
{
	LINK_ENVELOPE(env, op_at, OP_AT, Pm__OpAt, pm__op_at__init);

	env_body.op = d->req->op;
	env_body.barrier = b;
	return link_send(d->ctl, &env, deadline_ms(CTL_MS), e);
}

/* @runs: the pod runs meanwhile, and is looked after. The coordinator has the deadline, and aborts. */
static int wait_all(struct dump *d, Pm__Barrier b, bool runs, struct err *e)
{
	uint64_t told = now_ns(), round = told;
	unsigned rounds = 0;
	int r = tell(d, b, e);

	while (r == 0 && d->gone < (int)b) {
		struct pollfd p = { .fd = d->ctl, .events = POLLIN };

		if (runs)
			cut_let_go(d);
		if (poll(&p, 1, runs ? LOOK_MS : 500) < 0 && errno != EINTR)
			return err_sys(e, "poll");
		r = dump_poll_abort(d, e);
		if (r == 0 && runs && now_ns() - told > NSEC_PER_SEC) {
			dump_progress(d, 0, 0, 0, 0, 0);
			told = now_ns();
		}
		if (r == 0 && runs && d->gone < (int)b && rounds < ROUNDS_MAX && now_ns() - round > ROUND_NS) {
			r = precopy_again(d, e);
			round = now_ns();
			rounds++;
		}
	}
	return r < 0 ? r : 0;
}

int stage_join(struct dump *d, struct err *e)
{
	d->exit_code = 7;
	return wait_all(d, PM__BARRIER__BARRIER_PRECOPIED, true, e);
}

int stage_hold(struct dump *d, struct err *e)
{
	return wait_all(d, PM__BARRIER__BARRIER_CUT, false, e);
}

int stage_agree(struct dump *d, struct err *e)
{
	int r = wait_all(d, PM__BARRIER__BARRIER_SAVED, false, e);

	if (r >= 0) {
		d->disowned = false;
		image_prune(d);
	}
	return r;
}
