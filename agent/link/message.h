/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Which message may travel on which hop, in which direction, in which state of a connection. */
#ifndef LINK_MESSAGE_H
#define LINK_MESSAGE_H

#include <stdbool.h>

#include "control.pb-c.h"

enum link_hop {
	HOP_GREETING,     /* nothing but hello has been said */
	HOP_FROM_CLIENT,  /* client -> coordinator */
	HOP_TO_CLIENT,    /* coordinator -> client */
	HOP_FROM_COORD,   /* coordinator -> agent, control */
	HOP_TO_COORD,     /* agent -> coordinator, control */
	HOP_FROM_ENGINE,  /* pod-engine -> agent */
	HOP_TO_PODINIT,   /* a relayed console connection, towards the pod */
	HOP_FROM_PODINIT, /* the same, towards the client */
	NUM_HOPS
};

/** May a message of kind @body arrive on @hop? */
bool link_allowed(enum link_hop hop, Pm__Envelope__BodyCase body);

#endif
