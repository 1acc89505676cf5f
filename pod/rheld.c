/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Frames that arrived at the source for the pod, as they come after READY. The agent's START must not wait
 * for a source that is stuck, dead or not itself: what is no held frame, whole and soon, ends the stream.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "pod/base/io.h"
#include "pod/base/util.h"
#include "pod/restore.h"

#define MAX_HELD 100000
#define MAX_HELD_BYTES (64u << 20)
/* from the first byte of a held frame to its last: who waits for START must not wait for a source that is stuck */
#define HELD_MS 100
_Static_assert(STREAM_HELD_MAX == HOLD_FRAME_MAX, "the format of records");

int held_keep(struct restore *r, const struct record *rec)
{
	uint32_t len = (uint32_t)rec->len;
	uint8_t **nh;

	if (r->nheld % 256 == 0) {
		nh = realloc(r->held, (r->nheld + 256) * sizeof(*nh));
		if (!nh)
			return -ENOMEM;
		r->held = nh;
	}
	if (r->nheld == MAX_HELD || r->held_bytes + len > MAX_HELD_BYTES)
		return 0; /* the peers will send again */
	r->held[r->nheld] = malloc(sizeof(len) + len);
	if (!r->held[r->nheld])
		return -ENOMEM;
	memcpy(r->held[r->nheld], &len, sizeof(len));
	memcpy(r->held[r->nheld] + sizeof(len), rec->payload, len);
	r->nheld++;
	r->held_bytes += len;
	return 0;
}

int held_take(struct restore *r, struct record *rec)
{
	int q;

	r->s.deadline = deadline_look_ms(HELD_MS);
	q = stream_recv(&r->s, rec, NULL);
	if (q >= 0 && rec->type == REC_HELD)
		return 1;
	if (q >= 0 && rec->type != REC_HELD_END)
		q = rec->type == REC_VERDICT ? -ECANCELED : -EPROTO;
	if (q >= 0 || q == -EPROTO || q == -ECANCELED)
		record_done(rec);
	if (q < 0)
		close_fdp(&r->s.fd);
	return q < 0 ? q : 0;
}
