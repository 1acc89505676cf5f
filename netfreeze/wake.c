/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * The network of a pod that wakes up at a new place, in the order that tcp.c explains:
 *
 *   wake_open      before READY; FILTER_BLOCK is up, the sockets may be there or come later
 *   wake_hear      held frames reach the pod's sockets while nothing gets out (FILTER_MUTE). A SYN
 * is put aside: its answer has to get out wake_speak     the link is attached: filter open, then
 * the SYNs that were put aside (tcp_push or tcp_release of every connection) wake_nudge     every
 * connection acknowledges what it has received wake_hear      late frames, as they come wake_free
 * later, when nobody waits: it takes 20-50 ms (RCU grace periods)
 *
 * Frames that are not for the pod, or would harm it, are left out here (frame_is_for_pod()).
 */
#include <errno.h>
#include <string.h>

#include "netfreeze/netfreeze.h"
#include "pod/base/util.h"

#define SYNS_MAX 1024 /* more clients than that wait for their timer */
#define SYN_LEN  192

struct wake {
	struct filter *filter;
	int replay;
	uint8_t mac[6];
	enum { ASLEEP, HEARS, SPEAKS } state;
	size_t nsyn;
	struct {
		size_t len;
		uint8_t frame[SYN_LEN];
	} * syn; /* [SYNS_MAX] */
};

/**
 * wake_open - get ready to wake the pod of @netns behind @host with @mac
 *
 * Changes nothing. @host is a link of the caller's namespace, and is up when wake_hear() is called.
 */
int wake_open(int netns, const char *host, const uint8_t mac[6], struct wake **out, struct err *e)
{
	struct wake *w = calloc(1, sizeof(*w));
	int r;

	if (!w)
		return err_num(e, ENOMEM, "wake");
	w->replay = -1;
	memcpy(w->mac, mac, sizeof(w->mac));
	w->syn = malloc(SYNS_MAX * sizeof(*w->syn));
	r = w->syn ? filter_open(netns, &w->filter, e) : err_num(e, ENOMEM, "wake");
	if (r == 0)
		r = replay_open(host, &w->replay, e);
	if (r < 0) {
		wake_free(w, false);
		return r;
	}
	*out = w;
	return 0;
}

/**
 * wake_hear - let a held frame arrive at the pod
 *
 * 1: it has, or will in wake_speak(); 0: it was not for the pod; or a negative errno.
 */
int wake_hear(struct wake *w, const void *frame, size_t len, struct err *e)
{
	int r;

	if (!frame_is_for_pod(frame, len, w->mac))
		return 0;
	if (w->state == ASLEEP) {
		r = filter_set(w->filter, FILTER_MUTE, e);
		if (r < 0)
			return r;
		w->state = HEARS;
	}
	if (w->state == HEARS && frame_is_syn(frame, len) && len <= SYN_LEN) {
		if (w->nsyn == SYNS_MAX)
			return 0;
		memcpy(w->syn[w->nsyn].frame, frame, len);
		w->syn[w->nsyn++].len = len;
		return 1;
	}
	r = replay_send(w->replay, frame, len, e);
	return r < 0 ? r : 1;
}

/** wake_speak - open the filter and let the SYNs arrive; the link is attached. Once. */
int wake_speak(struct wake *w, struct err *e)
{
	int r = filter_set(w->filter, FILTER_OPEN, e);
	size_t i;

	w->state = SPEAKS;
	for (i = 0; r == 0 && i < w->nsyn; i++)
		r = replay_send(w->replay, w->syn[i].frame, w->syn[i].len, e);
	w->nsyn = 0;
	return r;
}

/** wake_nudge - replay_nudge() for the connection @s */
int wake_nudge(struct wake *w, const struct tcp_state *s, struct err *e)
{
	return replay_nudge(w->replay, w->mac, s, e);
}

/** wake_free - free the handle, and with @clear also the filter's table. 20-50 ms. */
void wake_free(struct wake *w, bool clear)
{
	if (!w)
		return;
	if (clear && w->filter)
		filter_remove(w->filter, NULL);
	filter_free(w->filter);
	close_fdp(&w->replay);
	free(w->syn);
	free(w);
}
