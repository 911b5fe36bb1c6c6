// SPDX-License-Identifier: Apache-2.0
#include "db/store.h"

#include <errno.h>
#include <string.h>
#include <time.h>

struct store_bind bind_int(int64_t value)
{
    return (struct store_bind){.kind = BIND_INT, .integer = value};
}

struct store_bind bind_time(int64_t value_us)
{
    return (struct store_bind){.kind = value_us == SL_NO_TIME ? BIND_NULL : BIND_INT, .integer = value_us};
}

struct store_bind bind_real(double value)
{
    return (struct store_bind){.kind = value >= 0 ? BIND_REAL : BIND_NULL, .real = value};
}

struct store_bind bind_text(const char *value)
{
    return (struct store_bind){.kind = value ? BIND_TEXT : BIND_NULL, .text = value};
}

static int is_full(sqlite3 *sqlite, int code)
{
    int error = sqlite3_system_errno(sqlite);
    return code == SQLITE_FULL ||
           ((code == SQLITE_IOERR || code == SQLITE_CANTOPEN) && (error == ENOSPC || error == EDQUOT));
}

static enum sl_status status_of(sqlite3 *sqlite, int code)
{
    if (is_full(sqlite, code))
        return SL_ERR_DISK_FULL;
    switch (code) {
    case SQLITE_BUSY:
    case SQLITE_LOCKED:
        return SL_ERR_BUSY;
    case SQLITE_NOTADB:
    case SQLITE_CORRUPT:
    case SQLITE_FORMAT:
        return SL_ERR_INDEX;
    case SQLITE_CANTOPEN:
    case SQLITE_READONLY:
    case SQLITE_PERM:
    case SQLITE_AUTH:
        return SL_ERR_OPEN;
    case SQLITE_NOMEM:
        return SL_ERR_MEMORY;
    case SQLITE_IOERR:
        return SL_ERR_IO;
    case SQLITE_INTERRUPT:
        return SL_ERR_INTERRUPTED;
    case SQLITE_ERROR: // SQL that does not fit the tables: somebody changed them
        return SL_ERR_INDEX;
    default:
        return SL_ERR_INTERNAL;
    }
}

int store_fail(struct sl_db *db, const char *doing, struct sl_error *e)
{
    int code = sqlite3_errcode(db->sqlite) & 0xff;
    enum sl_status status = status_of(db->sqlite, code);
    const char *advice = "";
    if (status == SL_ERR_DISK_FULL)
        advice = ": make room; what was committed is safe";
    else if (status == SL_ERR_BUSY)
        advice = ": another process keeps it locked";
    return sl_fail(e, status, "%s index %s: %s%s", doing, db->path, sqlite3_errmsg(db->sqlite), advice);
}

static int bind_all(struct sl_db *db, sqlite3_stmt *statement, const struct store_bind *binds, struct sl_error *e)
{
    for (int i = 1; binds && binds->kind != BIND_END; i++, binds++) {
        int code = SQLITE_OK;
        if (binds->kind == BIND_INT)
            code = sqlite3_bind_int64(statement, i, binds->integer);
        else if (binds->kind == BIND_REAL)
            code = sqlite3_bind_double(statement, i, binds->real);
        else if (binds->kind == BIND_TEXT)
            code = sqlite3_bind_text(statement, i, binds->text, -1, SQLITE_STATIC);
        if (code != SQLITE_OK)
            return store_fail(db, "using", e);
    }
    return SL_OK;
}

// A kept statement that is free, else a new one, which is kept if there is room.
static int find_or_compile(struct sl_db *db, sqlite3_stmt **out, const char *sql)
{
    struct store_kept *kept = db->kept, *end = db->kept + STORE_KEPT;
    for (; kept < end && kept->sql; kept++) {
        if (kept->sql == sql && !kept->in_use) {
            kept->in_use = 1;
            *out = kept->statement;
            return SQLITE_OK;
        }
    }
    int code = sqlite3_prepare_v2(db->sqlite, sql, -1, out, NULL);
    if (code == SQLITE_OK && kept < end)
        *kept = (struct store_kept){sql, *out, 1};
    return code;
}

int store_prepare(struct sl_db *db, sqlite3_stmt **out, const char *sql, const struct store_bind *binds,
                  struct sl_error *e)
{
    *out = NULL;
    if (find_or_compile(db, out, sql) != SQLITE_OK)
        return store_fail(db, "using", e);
    int status = bind_all(db, *out, binds, e);
    if (status != SL_OK) {
        store_done(db, *out);
        *out = NULL;
    }
    return status;
}

void store_done(struct sl_db *db, sqlite3_stmt *statement)
{
    for (struct store_kept *kept = db->kept; kept < db->kept + STORE_KEPT && kept->sql; kept++) {
        if (kept->statement == statement) {
            sqlite3_reset(statement); // repeats the error of its last step, which was reported
            sqlite3_clear_bindings(statement);
            kept->in_use = 0;
            return;
        }
    }
    sqlite3_finalize(statement);
}

int store_step(struct sl_db *db, sqlite3_stmt *statement, struct sl_error *e)
{
    int code = sqlite3_step(statement);
    if (code == SQLITE_ROW)
        return 1;
    if (code == SQLITE_DONE)
        return 0;
    return store_fail(db, "using", e);
}

int store_run(struct sl_db *db, const char *sql, const struct store_bind *binds, struct sl_error *e)
{
    sqlite3_stmt *statement;
    int status = store_prepare(db, &statement, sql, binds, e);
    if (status != SL_OK)
        return status;
    do
        status = store_step(db, statement, e);
    while (status > 0);
    store_done(db, statement);
    return status;
}

int store_value(struct sl_db *db, int64_t *out, const char *sql, const struct store_bind *binds, struct sl_error *e)
{
    sqlite3_stmt *statement;
    int status = store_prepare(db, &statement, sql, binds, e);
    if (status != SL_OK)
        return status;
    status = store_step(db, statement, e);
    if (status > 0)
        *out = store_time(statement, 0);
    store_done(db, statement);
    return status;
}

int store_find_or_insert(struct sl_db *db, int64_t *id, const char *find, const char *insert,
                         const struct store_bind *binds, struct sl_error *e)
{
    int status = store_value(db, id, find, binds, e);
    if (status != 0)
        return status < 0 ? status : SL_OK;
    status = store_run(db, insert, binds, e);
    *id = sqlite3_last_insert_rowid(db->sqlite);
    return status;
}

int64_t store_time(sqlite3_stmt *statement, int column)
{
    return sqlite3_column_type(statement, column) == SQLITE_NULL ? SL_NO_TIME : sqlite3_column_int64(statement, column);
}

const char *store_text(sqlite3_stmt *statement, int column)
{
    return (const char *)sqlite3_column_text(statement, column);
}

int store_begin(struct sl_db *db, struct sl_error *e)
{
    return store_run(db, "BEGIN IMMEDIATE", NULL, e);
}

int store_end(struct sl_db *db, int status, struct sl_error *e)
{
    if (status == SL_OK)
        status = store_run(db, "COMMIT", NULL, e);
    // Some errors have rolled back already; otherwise nothing of a failed transaction may stay.
    if (status != SL_OK && !sqlite3_get_autocommit(db->sqlite))
        sqlite3_exec(db->sqlite, "ROLLBACK", NULL, NULL, NULL);
    return status;
}

int64_t store_now_us(void)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    return (int64_t)now.tv_sec * 1000000 + now.tv_nsec / 1000;
}
