/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Is a pod's address somebody else's? ARP on the node's bridge, in a thread. */
#include <arpa/inet.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>

#include "agent/agent.h"
#include "netfreeze/netfreeze.h"
#include "pod/base/log.h"

struct probe {
	struct agent *agent;
	char key[64];
	struct in_addr ip;
	uint8_t mac[6];
	int ms;
	void (*done)(struct agent *a, const char *key, int busy);
};

bool parse_mac(const char *text, uint8_t mac[6])
{
	return sscanf(text, "%2hhx:%2hhx:%2hhx:%2hhx:%2hhx:%2hhx", &mac[0], &mac[1], &mac[2],
		      &mac[3], &mac[4], &mac[5]) == 6;
}

static int probe_thread(void *arg, struct err *e)
{
	struct probe *x = arg;

	return link_address_taken(x->agent->conf.agent_bridge, x->ip.s_addr, x->mac, x->ms, e);
}

static void probe_done(void *arg, int r, const struct err *e)
{
	struct probe *x = arg;

	if (r < 0)
		log_warn("address of '%s': %s", x->key, e->msg);
	x->done(x->agent, x->key, r == 1);
	free(x);
}

void probe_address(struct agent *a, const Pm__PodSpec *spec, const char *key, int ms,
		   void (*done)(struct agent *a, const char *key, int busy))
{
	struct probe *x = calloc(1, sizeof(*x));

	if (!x || !a->conf.agent_bridge[0] || inet_pton(AF_INET, spec->ip, &x->ip) != 1 ||
	    !parse_mac(spec->mac, x->mac)) {
		free(x);
		done(a, key, 0);
		return;
	}
	x->agent = a;
	x->ms = ms;
	x->done = done;
	snprintf(x->key, sizeof(x->key), "%s", key);
	if (task_run(a, probe_thread, probe_done, x) < 0) {
		free(x);
		done(a, key, 0);
	}
}
