// SPDX-License-Identifier: Apache-2.0
// Private to db/: the claim of a source and task, as commits need it.
#ifndef SL_DB_CLAIM_H
#define SL_DB_CLAIM_H

#include "db/store.h"

// Inside a write transaction: is the claim still ours? If so the heartbeat is renewed, else SL_ERR_BUSY.
int claim_keep(struct sl_db *db, const struct sl_db_claim *claim, struct sl_error *e);

// Columns host, machine, pid, process_start, heartbeat_us of a claim, from `column` on: is its holder alive?
int claim_is_live(sqlite3_stmt *row, int column);

#endif
