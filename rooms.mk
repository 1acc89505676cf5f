# SPDX-License-Identifier: GPL-3.0-or-later
# The source files of each room. One line per file, so that changes do not meet.
LINK_SRC += agent/link/frame.c
LINK_SRC += pod/base/conf.c
LINK_SRC += agent/link/message.c agent/link/unix.c agent/link/conn.c
NET_SRC += netfreeze/netns.c netfreeze/link.c netfreeze/filter.c
ENGINE_SRC += pod/mem/maps.c
AGENT_SRC += agent/main.c agent/session.c agent/dispatch.c agent/task.c agent/worker.c agent/registry.c
AGENT_SRC += agent/create.c agent/console.c agent/keeper.c agent/op.c
NS_SRC += pod/ns.c pod/mounts.c pod/cgroup.c pod/drop.c
PODINIT_SRC += pod/podinit/main.c pod/podinit/session.c pod/podinit/conn.c pod/podinit/ring.c
PODINIT_SRC += pod/podinit/env.c pod/drop.c agent/link/frame.c
ENGINE_SRC += pod/engine_main.c pod/create.c pod/engine_todo.c
ENGINE_SRC += pod/mem/track.c
ENGINE_SRC += pod/mem/pages.c
COORD_SRC += coordinator/main.c coordinator/nodes.c coordinator/pods.c coordinator/run.c coordinator/relay.c
COORD_SRC += coordinator/client.c coordinator/journal.c coordinator/ops.c
NET_SRC += netfreeze/hold.c netfreeze/drain.c netfreeze/forge.c netfreeze/tcp.c netfreeze/tcp_opts.c netfreeze/tcp_restore.c
