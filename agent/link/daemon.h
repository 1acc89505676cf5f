/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef AGENT_LINK_DAEMON_H
#define AGENT_LINK_DAEMON_H

struct event_base;

/**
 * daemon_run - the life of podagent and podcoord: the loop, until SIGTERM or SIGINT
 * They run before all ordinary programs, and notice when they stood still nevertheless. Returns the signal, or
 * -ENOMEM.
 */
int daemon_run(struct event_base *base);

#endif
