/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * The configuration: INI, $PODMIGRATE_CONF or /etc/podmigrate/podmigrate.conf. An unknown section or
 * key is an error with file:line. A file that is missing is an error only when the variable names it.
 *
 *   [client]       coordinator = SOCKET
 *   [coordinator]  socket, state_dir, pool = A.B.C.D/BITS, prefix = BITS, gateway
 *   [node NAME]    socket, address (of the migration network)
 *   [agent]        name, socket, state_dir, bridge, address, users = root, alice (who may be coordinator),
 *                  cgroup = podmigrate (directory of the pods below the cgroup v2 root)
 *   [images]       dir = DIRECTORY of checkpoints, on a file system that all nodes and users share
 */
#ifndef POD_BASE_CONF_H
#define POD_BASE_CONF_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "pod/base/err.h"

#define CONF_PATH "/etc/podmigrate/podmigrate.conf"

struct conf_node {
	char *name, *socket, *address;
};

struct conf {
	char *client_coordinator; /* never NULL */
	char *coord_socket, *coord_state_dir, *coord_gateway; /* never NULL; gateway may be "" */
	uint32_t pool_first, pool_last; /* host byte order; addresses that --ip auto may hand out */
	unsigned prefix;
	struct conf_node *nodes;
	size_t nnodes;
	char *agent_name, *agent_socket, *agent_state_dir, *agent_bridge, *agent_address,
		*agent_users, *agent_cgroup; /* never NULL */
	char *images_dir; /* never NULL */
};

/** Reads @path, or what the environment says when it is NULL. 0 or negative errno. */
int conf_load(const char *path, struct conf *out, struct err *e);
void conf_done(struct conf *);

#endif
