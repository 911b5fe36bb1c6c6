// SPDX-License-Identifier: Apache-2.0
// Opening, making and upgrading the file.
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#include "db/store.h"
#include "schema.h"

// upgrades[v - 1] makes version v + 1 of version v; schema.sql makes the newest of nothing.
static const char *const upgrades[STORE_SCHEMA_VERSION - 1] = {
    "CREATE TABLE outage (id INTEGER PRIMARY KEY, source INTEGER NOT NULL REFERENCES source (id) ON DELETE CASCADE,"
    " start_us INTEGER NOT NULL, end_us INTEGER, cause TEXT NOT NULL, UNIQUE (source, start_us)) STRICT",
};

// Reads what the file says about itself. *tables: how many, so that an empty file is told from a foreign one.
static int read_identity(struct sl_db *db, int64_t *application, int64_t *version, int64_t *tables, struct sl_error *e)
{
    int status = store_value(db, application, "PRAGMA application_id", NULL, e);
    if (status >= 0)
        status = store_value(db, version, "PRAGMA user_version", NULL, e);
    if (status >= 0)
        status = store_value(db, tables, "SELECT count(*) FROM sqlite_schema", NULL, e);
    return status < 0 ? status : SL_OK;
}

// *version: 0 for an empty file.
static int check_identity(struct sl_db *db, int64_t *version, struct sl_error *e)
{
    int64_t application = 0, tables = 0;
    int status = read_identity(db, &application, version, &tables, e);
    if (status != SL_OK)
        return status;
    int empty = application == 0 && tables == 0 && *version == 0;
    if (!empty && (application != STORE_APPLICATION_ID || *version < 1))
        return sl_fail(e, SL_ERR_INDEX, "%s is an SQLite file but no index of scenelog: give another path with -d",
                       db->path);
    if (*version > STORE_SCHEMA_VERSION)
        return sl_fail(e, SL_ERR_INDEX_VERSION,
                       "index %s has schema version %lld, this scenelog knows up to %d: use a newer scenelog", db->path,
                       (long long)*version, STORE_SCHEMA_VERSION);
    return SL_OK;
}

static int execute(struct sl_db *db, const char *sql, struct sl_error *e)
{
    return sqlite3_exec(db->sqlite, sql, NULL, NULL, NULL) == SQLITE_OK ? SL_OK : store_fail(db, "preparing", e);
}

static int upgrade(struct sl_db *db, struct sl_error *e)
{
    int64_t version = 0;
    int status = check_identity(db, &version, e); // again: another process may have been first
    if (status == SL_OK && version == 0) {
        status = execute(db, schema_sql, e);
        version = STORE_SCHEMA_VERSION;
    }
    for (; status == SL_OK && version < STORE_SCHEMA_VERSION; version++)
        status = execute(db, upgrades[version - 1], e);
    char pragmas[96];
    snprintf(pragmas, sizeof pragmas, "PRAGMA application_id = %d; PRAGMA user_version = %d", STORE_APPLICATION_ID,
             STORE_SCHEMA_VERSION);
    return status == SL_OK ? execute(db, pragmas, e) : status;
}

// SQLite does not wait by itself for the lock that the change of mode needs, so we do. A file system that cannot do WAL
// keeps the old journal, which is as safe.
static int enter_wal(struct sl_db *db, struct sl_error *e)
{
    for (int waited_ms = 0;; waited_ms += 20) {
        int status = execute(db, "PRAGMA journal_mode = WAL", e);
        if (status != SL_ERR_BUSY || waited_ms >= SL_DB_WAIT_MS)
            return status;
        nanosleep(&(struct timespec){.tv_nsec = 20 * 1000 * 1000}, NULL);
    }
}

static int prepare_writing(struct sl_db *db, struct sl_error *e)
{
    int64_t version = 0;
    int status = check_identity(db, &version, e);
    if (status != SL_OK)
        return status;
    if (version < STORE_SCHEMA_VERSION) {
        // Both must precede the first table; neither does anything to a file that has one.
        status = execute(db, "PRAGMA page_size = 4096; PRAGMA auto_vacuum = incremental", e);
        if (status == SL_OK)
            status = store_begin(db, e);
        if (status == SL_OK)
            status = store_end(db, upgrade(db, e), e);
    }
    if (status == SL_OK)
        status = enter_wal(db, e);
    // NORMAL: a power cut may lose the last windows but nothing is torn; a killed process loses nothing.
    return status == SL_OK ? execute(db, "PRAGMA foreign_keys = ON; PRAGMA synchronous = NORMAL", e) : status;
}

static int prepare_reading(struct sl_db *db, struct sl_error *e)
{
    int64_t version = 0;
    int status = check_identity(db, &version, e);
    if (status == SL_OK && version < STORE_SCHEMA_VERSION)
        return version ? sl_fail(e, SL_ERR_INDEX_VERSION,
                                 "index %s has the old schema version %lld: run `scenelog index` on it once to upgrade",
                                 db->path, (long long)version)
                       : sl_fail(e, SL_ERR_INDEX, "%s is empty, no index of scenelog", db->path);
    return status;
}

static int open_sqlite(struct sl_db *db, const char *name, int flags, struct sl_error *e)
{
    int code = sqlite3_open_v2(name, &db->sqlite, flags | SQLITE_OPEN_NOMUTEX, NULL);
    if (!db->sqlite)
        return sl_fail(e, SL_ERR_MEMORY, "opening index %s: out of memory", db->path);
    if (code != SQLITE_OK)
        return store_fail(db, "opening", e);
    sqlite3_extended_result_codes(db->sqlite, 0);
    sqlite3_busy_timeout(db->sqlite, SL_DB_WAIT_MS);
    return SL_OK;
}

static void close_sqlite(struct sl_db *db)
{
    for (struct store_kept *kept = db->kept; kept < db->kept + STORE_KEPT && kept->sql; kept++)
        sqlite3_finalize(kept->statement);
    memset(db->kept, 0, sizeof db->kept);
    sqlite3_close(db->sqlite);
    db->sqlite = NULL;
}

// A file in WAL mode in a folder where nothing may be written, left by a writer that closed it properly (no -wal):
// nobody can change it through this path, so SQLite may read it without its locks.
static int open_immutable(struct sl_db *db, struct sl_error *e)
{
    char *wal = sqlite3_mprintf("%s-wal", db->path);
    struct stat info;
    int left_over = wal && stat(wal, &info) == 0 && info.st_size > 0;
    sqlite3_free(wal);
    char *uri = left_over ? NULL : malloc(strlen(db->path) * 3 + 32);
    if (!uri)
        return SL_ERR_OPEN; // the caller's first error stands
    char *at = uri + sprintf(uri, db->path[0] == '/' ? "file://" : "file:");
    for (const char *c = db->path; *c; c++)
        at += sprintf(at, strchr("%?#", *c) ? "%%%02X" : "%c", (unsigned char)*c);
    strcpy(at, "?immutable=1");
    close_sqlite(db);
    int status = open_sqlite(db, uri, SQLITE_OPEN_READONLY | SQLITE_OPEN_URI, e);
    free(uri);
    return status == SL_OK ? prepare_reading(db, e) : status;
}

static int open_reading(struct sl_db *db, struct sl_error *e)
{
    struct stat info;
    if (stat(db->path, &info) != 0)
        return sl_fail(e, SL_ERR_OPEN, "no index at %s: %s", db->path, strerror(errno));
    int status = open_sqlite(db, db->path, SQLITE_OPEN_READONLY, e);
    if (status == SL_OK)
        status = prepare_reading(db, e);
    return status == SL_ERR_OPEN ? open_immutable(db, e) : status;
}

int sl_db_open(struct sl_db **out, const char *path, enum sl_db_mode mode, struct sl_error *e)
{
    *out = NULL;
    if (!path[0])
        return sl_fail(e, SL_ERR_USAGE, "the path of the index is empty: give one with -d");
    struct sl_db *db = calloc(1, sizeof *db);
    if (!db || !(db->path = strdup(path))) {
        free(db);
        return sl_fail(e, SL_ERR_MEMORY, "opening index %s: out of memory", path);
    }
    int status;
    if (mode == SL_DB_READ) {
        status = open_reading(db, e);
    } else {
        status = open_sqlite(db, path, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE, e);
        if (status == SL_OK)
            status = prepare_writing(db, e);
    }
    if (status != SL_OK) {
        sl_db_close(db);
        return status;
    }
    *out = db;
    return SL_OK;
}

void sl_db_close(struct sl_db *db)
{
    if (!db)
        return;
    close_sqlite(db);
    free(db->path);
    free(db);
}
