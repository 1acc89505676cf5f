# SPDX-License-Identifier: GPL-3.0-or-later
# The source files of each room. One line per file, so that changes do not meet.
LINK_SRC += agent/link/frame.c
LINK_SRC += pod/base/conf.c
LINK_SRC += agent/link/message.c agent/link/unix.c agent/link/conn.c
NET_SRC += netfreeze/netns.c netfreeze/link.c netfreeze/filter.c
ENGINE_SRC += pod/mem/maps.c
