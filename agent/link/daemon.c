/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "agent/link/daemon.h"

#include <errno.h>
#include <event2/event.h>
#include <signal.h>

#include "pod/base/deadline.h"
#include "pod/base/prio.h"
#include "pod/base/util.h"

#define BEAT_US 250000
#define STILL_MS 600

struct life {
	struct event_base *base;
	int sig;
};

static void on_signal(evutil_socket_t sig, short what, void *arg)
{
	struct life *life = arg;

	(void)what;
	life->sig = (int)sig;
	event_base_loopbreak(life->base);
}

static void on_beat(evutil_socket_t fd, short what, void *arg)
{
	(void)fd;
	(void)what;
	(void)arg;
	deadline_beat();
}

int daemon_run(struct event_base *base)
{
	static const struct timeval often = { 0, BEAT_US };
	struct life life = { .base = base };
	struct event *ev[] = {
		evsignal_new(base, SIGTERM, on_signal, &life),
		evsignal_new(base, SIGINT, on_signal, &life),
		event_new(base, -1, EV_PERSIST, on_beat, NULL),
	};
	size_t i;
	int r = 0;

	for (i = 0; i < ARRAY_SIZE(ev); i++)
		if (!ev[i] || event_add(ev[i], i == 2 ? &often : NULL) < 0)
			r = -ENOMEM;
	if (r == 0) {
		prio_daemon();
		deadline_beats(STILL_MS);
		event_base_dispatch(base);
		r = life.sig;
	}
	for (i = 0; i < ARRAY_SIZE(ev); i++)
		if (ev[i])
			event_free(ev[i]);
	return r;
}
