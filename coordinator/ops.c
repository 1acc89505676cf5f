/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "coordinator/coord.h"
void migrate_request(struct client *cl, uint32_t id, const Pm__MigrateReq *m) { (void)m; client_error(cl, id, 1, "", "", "", "not yet"); }
void abort_request(struct client *cl, uint32_t id, const Pm__OpAbortReq *m) { (void)m; client_error(cl, id, 1, "", "", "", "not yet"); }
void recover_request(struct client *cl, uint32_t id, const Pm__RecoverReq *m) { (void)m; client_error(cl, id, 1, "", "", "", "not yet"); }
void op_message(struct node *n, const Pm__Envelope *env) { (void)n; (void)env; }
void ops_node_lost(struct node *n) { (void)n; }
void ops_node_up(struct node *n) { (void)n; }
void ops_client_gone(struct client *cl) { (void)cl; }
void ops_reconcile(struct node *n) { (void)n; }
int ops_load(struct coord *c, struct err *e) { (void)c; (void)e; return 0; }
