/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * podcoord: clients ask it, it asks the agents. It keeps little: the journal of operations (journal.c)
 * and what the agents report (pods.c). It dials the agents, never the other way round, so a node that
 * comes back is found, and a coordinator that comes back finds all (ops.c reconciles by epoch).
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <unistd.h>

#include "agent/link/daemon.h"
#include "coordinator/coord.h"
#include "coordinator/journal.h"
#include "pod/base/log.h"

static int coord_init(struct coord *c, const char *conf, struct err *e)
{
	int r = conf_load(conf, &c->conf, e);

	if (r < 0)
		return r;
	c->base = event_base_new();
	if (!c->base)
		return err_set(e, 12, "event loop");
	r = journal_open(c->conf.coord_state_dir, &c->journal, e);
	if (r == 0)
		r = clients_listen(c, e);
	if (r == 0)
		r = nodes_start(c, e);
	if (r == 0)
		r = cordons_load(c, e);
	if (r == 0)
		r = pods_load(c, e);
	if (r == 0)
		r = ops_load(c, e);
	if (r == 0 && interval_start(c) < 0)
		r = err_num(e, ENOMEM, "timer");
	return r;
}

int main(int argc, char **argv)
{
	static struct coord coord;
	const char *conf = NULL;
	struct err e = { 0 };
	int opt;

	log_init("podcoord", LOG_LV_INFO);
	while ((opt = getopt(argc, argv, "c:")) != -1) {
		if (opt != 'c') {
			fprintf(stderr, "usage: podcoord [-c CONFIG]\n");
			return 2;
		}
		conf = optarg;
	}
	signal(SIGPIPE, SIG_IGN);
	if (coord_init(&coord, conf, &e) < 0) {
		log_error("%s", e.msg);
		return 1;
	}
	log_info("listens at %s, %zu nodes", coord.conf.coord_socket, coord.nnodes);
	opt = daemon_run(coord.base);
	if (opt < 0)
		log_error("no memory");
	journal_close(coord.journal);
	unlink(coord.conf.coord_socket);
	return opt < 0;
}
