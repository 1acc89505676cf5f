/* SPDX-License-Identifier: GPL-3.0-or-later */
/* A node that is cordoned takes no more pods: no new ones, none that move, no restarts. Those that are there run on. */
#include <stdio.h>
#include <string.h>

#include "coordinator/coord.h"
#include "coordinator/journal.h"
#include "pod/base/log.h"

static void load_one(const char *name, const char *reason, void *arg)
{
	struct node *n = node_find(arg, name);

	if (!n)
		return;
	n->cordoned = true;
	snprintf(n->reason, sizeof(n->reason), "%s", reason);
}

int cordons_load(struct coord *c, struct err *e)
{
	return journal_cordons(c->journal, load_one, c, e);
}

bool node_takes(struct client *cl, uint32_t id, const struct node *n, const char *phase, const char *state)
{
	char hint[160];

	if (!n->cordoned) {
		if (n->up)
			return true;
		client_error(cl, id, EX_UNREACHABLE, phase, state, "see podctl nodes", "node '%s' is down: %s", n->conf->name, n->why);
		return false;
	}
	snprintf(hint, sizeof(hint), "another node, or as root: podctl uncordon %s", n->conf->name);
	client_error(cl, id, EX_CHECK, phase, state, hint, "node '%s' is cordoned, it takes no more pods%s%s", n->conf->name,
		     n->reason[0] ? ": " : "", n->reason);
	return false;
}

void cordon_request(struct client *cl, uint32_t id, const Pm__CordonReq *m)
{
	struct node *n = node_find(cl->coord, m->node);
	char reason[sizeof(n->reason)];
	struct err e = { 0 };

	snprintf(reason, sizeof(reason), "%s", m->on ? m->reason : "");
	if (!n) {
		client_error(cl, id, EX_NOTFOUND, "", "", "see podctl nodes", "there is no node '%s'", m->node);
		return;
	}
	if (cl->uid != 0) {
		client_error(cl, id, EX_DENIED, "", "nothing was changed", "", "only root may do that to a node");
		return;
	}
	if (m->on ? !n->cordoned || strcmp(n->reason, reason) != 0 : n->cordoned) {
		if (journal_cordon(cl->coord->journal, m->node, m->on ? reason : NULL, &e) < 0) {
			client_error(cl, id, EX_OTHER, "", "nothing was changed", "", "%s", e.msg);
			return;
		}
		log_info("node '%s' %s, says user '%s'%s%s", m->node, m->on ? "is cordoned" : "takes pods again", cl->user,
			 reason[0] ? ": " : "", reason);
	}
	n->cordoned = m->on;
	memcpy(n->reason, reason, sizeof(reason));
	LINK_ENVELOPE(ok, ok, OK, Pm__Ok, pm__ok__init);
	client_send(cl, id, &ok);
}
