/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "agent/agent.h"
#define STUB(fn, type) void fn(struct agent *a, uint32_t id, const type *m) { (void)a; (void)id; (void)m; }
STUB(op_incoming, Pm__AgentIncoming)
STUB(op_outgoing, Pm__AgentOutgoing)
STUB(op_commit, Pm__OpCommit)
STUB(op_started, Pm__OpStarted)
STUB(op_aborted, Pm__OpAborted)
STUB(op_query, Pm__OpQuery)
void ops_coord_lost(struct agent *a) { (void)a; }
int op_resume(struct pod *p, struct err *e) { (void)p; (void)e; return 0; }
bool op_pod_died(struct pod *p) { (void)p; return false; }
