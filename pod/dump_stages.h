/* SPDX-License-Identifier: GPL-3.0-or-later */
/* The stages of a dump that have files of their own, and what dump.c lends them. */
#ifndef POD_DUMP_STAGES_H
#define POD_DUMP_STAGES_H

#include "pod/dump.h"

int stage_precopy(struct dump *, struct err *); /* live.c */
int stage_quiesce(struct dump *, struct err *); /* live.c */
int stage_cut(struct dump *, struct err *);	/* live.c */
/** Notes what stage_quiesce() would wait for in vain. live.c */
int quiesce_foresee(struct dump *, struct err *);
int stage_save(struct dump *, struct err *);	/* dump_image.c */
/** A job's, with an image: barrier.c */
int stage_join(struct dump *, struct err *);
int stage_hold(struct dump *, struct err *);
int stage_agree(struct dump *, struct err *);
/** One round more while the pod runs. live.c */
int precopy_again(struct dump *, struct err *);
/** Opens the image and writes its beginning, where a move connects to its target. dump_image.c */
int image_begin(struct dump *, struct err *);
void image_end(struct dump *);
/** Removes what the new one makes superfluous. */
void image_prune(struct dump *);

/** Tells the agent (and through it the client) how far it is. Percent never 100 before the commit. */
void dump_progress(struct dump *, double percent, uint64_t rate, uint64_t dirty_rate, uint64_t left, uint64_t est_ns);
/** Has the agent asked for an abort, or died? 0 or -ECANCELED. */
int dump_poll_abort(struct dump *, struct err *);
/** Objects, file trees and processes, as they are now. */
int dump_send_layout(struct dump *, Pm__Tree *tree, bool final, struct err *);
/** The pod's CLOCK_MONOTONIC and CLOCK_BOOTTIME now, ns. */
int pod_clock_read(struct dump *, uint64_t *mono, uint64_t *boot, struct err *);
/** Waits for the target's "done so far". */
int dump_expect_ok(struct dump *, struct err *);

#endif
