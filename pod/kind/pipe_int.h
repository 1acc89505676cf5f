/* SPDX-License-Identifier: GPL-3.0-or-later */
/* What pipes and FIFOs share: a FIFO that is open is a pipe that has a name. */
#ifndef POD_KIND_PIPE_INT_H
#define POD_KIND_PIPE_INT_H

#include "pod/kind/kinds.h"

#define PIPE_BYTES_MAX (64u << 20)

/** Does @o carry the contents, of all descriptions of its inode? *@packets: some end writes packets (O_DIRECT). */
bool pipe_is_first(struct dump *, const struct object *o, bool *packets);
/** Size, owner, mode, and the contents where they belong. */
int pipe_describe(struct dump *, const struct object *, Pm__BodyPipe *, struct err *);
int pipe_validate(const struct robject *, const Pm__BodyPipe *, struct err *);
/** Writes the contents by @wr, which is open for reading as well; its flags are lost. */
int pipe_fill(int wr, const Pm__BodyPipe *, struct err *);

#endif
