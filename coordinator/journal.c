/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "coordinator/journal.h"

#include <errno.h>
#include <limits.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>

#include "agent/link/unix.h"
#include "pod/base/log.h"
#include "pod/base/util.h"

#define CHECKPOINT_OPS 32 /* far below the 250 pages that the WAL file has */

static const char schema[] =
	"PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; PRAGMA locking_mode=EXCLUSIVE;"
	"CREATE TABLE IF NOT EXISTS ops(n INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT UNIQUE,"
	" pod TEXT NOT NULL, source TEXT NOT NULL, target TEXT NOT NULL, epoch INTEGER NOT NULL,"
	" uid INTEGER NOT NULL, state INTEGER NOT NULL, begun INTEGER NOT NULL);"
	"CREATE TABLE IF NOT EXISTS pods(name TEXT NOT NULL, node TEXT NOT NULL, info BLOB NOT NULL,"
	" PRIMARY KEY(name, node)) WITHOUT ROWID;"
	"CREATE TABLE IF NOT EXISTS cordons(node TEXT PRIMARY KEY, reason TEXT NOT NULL, since INTEGER NOT NULL) WITHOUT ROWID;"
	"DELETE FROM ops WHERE state > 3 AND begun < unixepoch() - 30 * 86400;"
	/* no index on the state: it would be a second page in each commit */
	"DROP INDEX IF EXISTS ops_open; PRAGMA wal_autocheckpoint=0;"
	/* grows the WAL file once, so that later commits overwrite it: their fsync has no new size to
	 * write */
	"BEGIN; CREATE TABLE warm(x); INSERT INTO warm VALUES(zeroblob(1048576)); DROP TABLE warm; COMMIT;"
	"PRAGMA wal_checkpoint(RESTART);";

enum stmt { BEGIN, DECIDE, FIND, OPEN, PUT, DEL, PODS, LAST, CORDON, UNCORDON, CORDONS, NUM_STMTS };

static const char *const sql[NUM_STMTS] = {
	[BEGIN] = "INSERT INTO ops(id, pod, source, target, epoch, uid, state, begun)"
		  " VALUES(?1, ?2, ?3, ?4, ?5, ?6, 1, unixepoch())",
	[DECIDE] = "UPDATE ops SET state = ?2 WHERE id = ?1",
	[FIND] = "SELECT id, pod, source, target, epoch, uid, state FROM ops WHERE id = ?1",
	[OPEN] = "SELECT id, pod, source, target, epoch, uid, state FROM ops"
		 " WHERE state IN (1, 2, 3) ORDER BY n",
	[PUT] = "INSERT OR REPLACE INTO pods(name, node, info) VALUES(?1, ?2, ?3)",
	[DEL] = "DELETE FROM pods WHERE name = ?1 AND node = ?2",
	[PODS] = "SELECT node, info FROM pods",
	/* not of the rows alone: old ones are deleted, their numbers never come again */
	[LAST] = "SELECT max(ifnull((SELECT max(n) FROM ops), 0),"
		 " ifnull((SELECT seq FROM sqlite_sequence WHERE name = 'ops'), 0))",
	[CORDON] = "INSERT OR REPLACE INTO cordons(node, reason, since) VALUES(?1, ?2, unixepoch())",
	[UNCORDON] = "DELETE FROM cordons WHERE node = ?1",
	[CORDONS] = "SELECT node, reason FROM cordons",
};

struct journal {
	sqlite3 *db;
	sqlite3_stmt *stmt[NUM_STMTS];
	long long last; /* number of the last operation */
	unsigned ended; /* operations since the last checkpoint */
};

static int fail(struct journal *j, struct err *e, const char *what)
{
	return err_set(e, EIO, "journal: %s: %s", what, sqlite3_errmsg(j->db));
}

int journal_open(const char *state_dir, struct journal **out, struct err *e)
{
	struct journal *j;
	char path[PATH_MAX], *words = NULL;
	int r = make_dirs(state_dir, 0711, e);
	mode_t old;

	if (r < 0)
		return r;
	snprintf(path, sizeof(path), "%s/journal.db", state_dir);
	j = calloc(1, sizeof(*j));
	if (!j)
		return err_num(e, ENOMEM, "journal");
	old = umask(0077); /* users' environments are in there */
	r = sqlite3_open(path, &j->db);
	if (r == SQLITE_OK)
		r = sqlite3_exec(j->db, schema, NULL, NULL, &words);
	umask(old);
	if (r != SQLITE_OK) {
		r = err_set(e, EIO, "journal '%s': %s", path, sqlite3_errmsg(j->db));
		sqlite3_free(words);
		journal_close(j);
		return r;
	}
	for (int i = 0; i < NUM_STMTS; i++)
		if (sqlite3_prepare_v3(j->db, sql[i], -1, SQLITE_PREPARE_PERSISTENT, &j->stmt[i],
				       NULL) != SQLITE_OK) {
			r = fail(j, e, "prepare");
			journal_close(j);
			return r;
		}
	if (sqlite3_step(j->stmt[LAST]) == SQLITE_ROW)
		j->last = sqlite3_column_int64(j->stmt[LAST], 0);
	sqlite3_reset(j->stmt[LAST]);
	*out = j;
	return 0;
}

void journal_close(struct journal *j)
{
	if (!j)
		return;
	for (int i = 0; i < NUM_STMTS; i++)
		sqlite3_finalize(j->stmt[i]);
	sqlite3_close(j->db);
	free(j);
}

static int run(struct journal *j, sqlite3_stmt *s, struct err *e, const char *what)
{
	int r = sqlite3_step(s) == SQLITE_DONE ? 0 : fail(j, e, what);

	sqlite3_reset(s);
	return r;
}

int journal_begin(struct journal *j, struct journal_op *op, struct err *e)
{
	sqlite3_stmt *s = j->stmt[BEGIN];
	uint32_t rnd = 0;

	/* random: a journal that was lost must not make ids again that agents still know */
	if (getrandom(&rnd, sizeof(rnd), 0) != sizeof(rnd))
		return err_sys(e, "getrandom");
	snprintf(op->id, sizeof(op->id), "m%lld-%08x", ++j->last, rnd);
	op->state = JOURNAL_BEGUN;
	sqlite3_bind_text(s, 1, op->id, -1, SQLITE_STATIC);
	sqlite3_bind_text(s, 2, op->pod, -1, SQLITE_STATIC);
	sqlite3_bind_text(s, 3, op->source, -1, SQLITE_STATIC);
	sqlite3_bind_text(s, 4, op->target, -1, SQLITE_STATIC);
	sqlite3_bind_int64(s, 5, (sqlite3_int64)op->epoch);
	sqlite3_bind_int64(s, 6, op->uid);
	return run(j, s, e, "begin");
}

int journal_decide(struct journal *j, const char *id, enum journal_state state, struct err *e)
{
	sqlite3_stmt *s = j->stmt[DECIDE];

	sqlite3_bind_text(s, 1, id, -1, SQLITE_STATIC);
	sqlite3_bind_int(s, 2, state);
	return run(j, s, e, "decide");
}

int journal_decide_all(struct journal *j, const char *const *ids, size_t n, enum journal_state state, struct err *e)
{
	int r = sqlite3_exec(j->db, "BEGIN IMMEDIATE", NULL, NULL, NULL) == SQLITE_OK ? 0 : fail(j, e, "begin of several");

	if (r < 0)
		return r;
	for (size_t i = 0; r == 0 && i < n; i++)
		r = journal_decide(j, ids[i], state, e);
	if (r == 0 && sqlite3_exec(j->db, "COMMIT", NULL, NULL, NULL) != SQLITE_OK)
		r = fail(j, e, "decide several");
	if (r < 0)
		sqlite3_exec(j->db, "ROLLBACK", NULL, NULL, NULL);
	return r;
}

/* Checkpoints are ours to place: never inside a freeze. */
void journal_rest(struct journal *j)
{
	if (++j->ended < CHECKPOINT_OPS)
		return;
	j->ended = 0;
	if (sqlite3_wal_checkpoint_v2(j->db, NULL, SQLITE_CHECKPOINT_RESTART, NULL, NULL) != SQLITE_OK)
		log_warn("journal: checkpoint: %s", sqlite3_errmsg(j->db));
}

static void column_text(sqlite3_stmt *s, int i, char *buf, size_t len)
{
	const unsigned char *t = sqlite3_column_text(s, i);

	snprintf(buf, len, "%s", t ? (const char *)t : "");
}

static void read_row(sqlite3_stmt *s, struct journal_op *o)
{
	column_text(s, 0, o->id, sizeof(o->id));
	column_text(s, 1, o->pod, sizeof(o->pod));
	column_text(s, 2, o->source, sizeof(o->source));
	column_text(s, 3, o->target, sizeof(o->target));
	o->epoch = (uint64_t)sqlite3_column_int64(s, 4);
	o->uid = (uint32_t)sqlite3_column_int64(s, 5);
	o->state = (enum journal_state)sqlite3_column_int(s, 6);
}

int journal_find(struct journal *j, const char *id, struct journal_op *out, struct err *e)
{
	sqlite3_stmt *s = j->stmt[FIND];
	int r, rc;

	sqlite3_bind_text(s, 1, id, -1, SQLITE_STATIC);
	rc = sqlite3_step(s);
	if (rc == SQLITE_ROW) {
		read_row(s, out);
		r = 1;
	} else {
		r = rc == SQLITE_DONE ? 0 : fail(j, e, "find");
	}
	sqlite3_reset(s);
	return r;
}

int journal_open_ops(struct journal *j, void (*fn)(const struct journal_op *op, void *arg),
		     void *arg, struct err *e)
{
	struct journal_op *list = NULL;
	sqlite3_stmt *s = j->stmt[OPEN];
	size_t n = 0;
	int rc;

	while ((rc = sqlite3_step(s)) == SQLITE_ROW) {
		struct journal_op *more = reallocarray(list, n + 1, sizeof(*list));

		if (!more)
			break;
		list = more;
		read_row(s, &list[n++]);
	}
	sqlite3_reset(s);
	for (size_t i = 0; i < n; i++) /* after the read: @fn may write */
		fn(&list[i], arg);
	free(list);
	return rc == SQLITE_DONE ? 0 : fail(j, e, "read");
}

int journal_pod_put(struct journal *j, const char *name, const char *node, const void *info,
		    size_t len, struct err *e)
{
	sqlite3_stmt *s = j->stmt[PUT];

	sqlite3_bind_text(s, 1, name, -1, SQLITE_STATIC);
	sqlite3_bind_text(s, 2, node, -1, SQLITE_STATIC);
	sqlite3_bind_blob(s, 3, info, (int)len, SQLITE_STATIC);
	return run(j, s, e, "pod");
}

int journal_pod_del(struct journal *j, const char *name, const char *node, struct err *e)
{
	sqlite3_stmt *s = j->stmt[DEL];

	sqlite3_bind_text(s, 1, name, -1, SQLITE_STATIC);
	sqlite3_bind_text(s, 2, node, -1, SQLITE_STATIC);
	return run(j, s, e, "pod");
}

int journal_pods(struct journal *j,
		 void (*fn)(const char *node, const void *info, size_t len, void *arg), void *arg,
		 struct err *e)
{
	sqlite3_stmt *s = j->stmt[PODS];
	int rc;

	while ((rc = sqlite3_step(s)) == SQLITE_ROW)
		fn((const char *)sqlite3_column_text(s, 0), sqlite3_column_blob(s, 1),
		   (size_t)sqlite3_column_bytes(s, 1), arg);
	sqlite3_reset(s);
	return rc == SQLITE_DONE ? 0 : fail(j, e, "read pods");
}

int journal_cordon(struct journal *j, const char *node, const char *reason, struct err *e)
{
	sqlite3_stmt *s = j->stmt[reason ? CORDON : UNCORDON];

	sqlite3_bind_text(s, 1, node, -1, SQLITE_STATIC);
	if (reason)
		sqlite3_bind_text(s, 2, reason, -1, SQLITE_STATIC);
	return run(j, s, e, "cordon");
}

int journal_cordons(struct journal *j, void (*fn)(const char *node, const char *reason, void *arg), void *arg, struct err *e)
{
	sqlite3_stmt *s = j->stmt[CORDONS];
	int rc;

	while ((rc = sqlite3_step(s)) == SQLITE_ROW)
		fn((const char *)sqlite3_column_text(s, 0), (const char *)sqlite3_column_text(s, 1), arg);
	sqlite3_reset(s);
	return rc == SQLITE_DONE ? 0 : fail(j, e, "read cordons");
}
