/* SPDX-License-Identifier: GPL-3.0-or-later */
/* podrun -i: pods that are checkpointed by themselves, each so many seconds after the last one has ended. */
#include "coordinator/coord.h"
#include "pod/base/io.h"
#include "pod/base/log.h"
#include "pod/base/util.h"

static bool is_due(struct coord *c, struct pod *p)
{
	uint64_t every = p->info->spec->interval_s * NSEC_PER_SEC;

	if (!every || !pod_runs(p) || !p->node->up ||
	    pod_find(c, p->info->spec->name) != p)
		return false;
	if (pod_held(c, p->info->spec->name)) {
		p->checkpoint_ns = now_ns() + every; /* counted from its end */
		return false;
	}
	if (!p->checkpoint_ns)
		p->checkpoint_ns = now_ns() + every;
	return now_ns() >= p->checkpoint_ns;
}

static void on_second(evutil_socket_t fd, short what, void *arg)
{
	struct coord *c = arg;

	(void)fd;
	(void)what;
	for (struct pod *p = c->pods; p; p = p->next) {
		if (!is_due(c, p))
			continue;
		p->checkpoint_ns = now_ns() + p->info->spec->interval_s * NSEC_PER_SEC;
		if (checkpoint_begin(c, p) < 0)
			log_warn("pod '%s': its checkpoint could not be begun", p->info->spec->name);
	}
}

int interval_start(struct coord *c)
{
	static const struct timeval second = { 1, 0 };
	struct event *ev = event_new(c->base, -1, EV_PERSIST, on_second, c);

	return !ev || event_add(ev, &second) < 0 ? -1 : 0;
}
