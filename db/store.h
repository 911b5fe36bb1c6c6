// SPDX-License-Identifier: Apache-2.0
// Private to db/: the connection, and the few helpers that every statement goes through.
// Helpers return SL_OK or fill `e`; store_step and store_value return 1 for a row, 0 for none, negative for an error.
#ifndef SL_DB_STORE_H
#define SL_DB_STORE_H

#include <sqlite3.h>

#include "db/db.h"

enum { STORE_SCHEMA_VERSION = 2, STORE_APPLICATION_ID = 0x534c4f47, STORE_KEPT = 64 };

// A statement to be used again, as preparing it takes longer than most of them run.
struct store_kept {
    const char *sql; // a constant of the program: known by its address
    sqlite3_stmt *statement;
    int in_use;
};

struct sl_db {
    sqlite3 *sqlite;
    char *path;
    struct store_kept kept[STORE_KEPT]; // used from the front
};

// A value to bind; made by the functions below, so that the compiler checks the types.
struct store_bind {
    enum { BIND_END, BIND_NULL, BIND_INT, BIND_REAL, BIND_TEXT } kind;
    int64_t integer;
    double real;
    const char *text;
};
struct store_bind bind_int(int64_t value);
struct store_bind bind_time(int64_t value_us);  // SL_NO_TIME: null
struct store_bind bind_real(double value);      // negative: null
struct store_bind bind_text(const char *value); // NULL: null; must outlive the statement's use
#define BIND(...)                                                                                                      \
    (const struct store_bind[])                                                                                        \
    {                                                                                                                  \
        __VA_ARGS__,                                                                                                   \
        {                                                                                                              \
            .kind = BIND_END                                                                                           \
        }                                                                                                              \
    }

// The SQLite error of the connection as one of ours: "doing: index PATH: what SQLite says".
int store_fail(struct sl_db *db, const char *doing, struct sl_error *e);

// `sql` is a constant of the program. `binds` NULL: none. On success the caller gives *out back with store_done.
int store_prepare(struct sl_db *db, sqlite3_stmt **out, const char *sql, const struct store_bind *binds,
                  struct sl_error *e);
void store_done(struct sl_db *db, sqlite3_stmt *statement); // accepts NULL
int store_step(struct sl_db *db, sqlite3_stmt *statement, struct sl_error *e);
int store_run(struct sl_db *db, const char *sql, const struct store_bind *binds, struct sl_error *e);
// The first column of the first row; null gives SL_NO_TIME. No row leaves *out alone.
int store_value(struct sl_db *db, int64_t *out, const char *sql, const struct store_bind *binds, struct sl_error *e);
// Finds a row id by `find`; if there is none, runs `insert` with the same binds and takes its row id.
int store_find_or_insert(struct sl_db *db, int64_t *id, const char *find, const char *insert,
                         const struct store_bind *binds, struct sl_error *e);

int64_t store_time(sqlite3_stmt *statement, int column);     // null: SL_NO_TIME
const char *store_text(sqlite3_stmt *statement, int column); // null: NULL

// A write transaction. store_end commits if status is SL_OK, else rolls back; returns the status of it all.
int store_begin(struct sl_db *db, struct sl_error *e);
int store_end(struct sl_db *db, int status, struct sl_error *e);

int64_t store_now_us(void); // Unix time

#endif
