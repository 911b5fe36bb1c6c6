// SPDX-License-Identifier: Apache-2.0
// Live sources: connections, outages, and forgetting what is old. Files that were indexed are never forgotten here.
#include <string.h>

#include "db/derive.h"
#include "db/store.h"

static int find_source(struct sl_db *db, const char *name, int64_t *source, struct sl_error *e)
{
    if (!name[0] || strlen(name) >= SL_DB_NAME_BYTES)
        return sl_fail(e, SL_ERR_USAGE, "the name of a source has 1 to %d bytes", SL_DB_NAME_BYTES - 1);
    return store_find_or_insert(db, source, "SELECT id FROM source WHERE name = ?1",
                                "INSERT INTO source (name) VALUES (?1)", BIND(bind_text(name)), e);
}

int sl_db_source(struct sl_db *db, const char *name, int64_t *source, struct sl_error *e)
{
    int status = store_begin(db, e);
    return status == SL_OK ? store_end(db, find_source(db, name, source, e), e) : status;
}

static int insert_connection(struct sl_db *db, const char *name, const char *url, struct sl_db_media *out,
                             struct sl_error *e)
{
    int status = find_source(db, name, &out->source, e);
    if (status == SL_OK)
        status = store_run(db, "INSERT INTO media (source, path) VALUES (?1, ?2)",
                           BIND(bind_int(out->source), bind_text(url)), e);
    out->media = sqlite3_last_insert_rowid(db->sqlite);
    return status;
}

int sl_db_connection(struct sl_db *db, const char *source_name, const char *url, struct sl_db_media *out,
                     struct sl_error *e)
{
    *out = (struct sl_db_media){0};
    strncpy(out->source_name, source_name, sizeof out->source_name - 1);
    int status = store_begin(db, e);
    return status == SL_OK ? store_end(db, insert_connection(db, source_name, url, out, e), e) : status;
}

int sl_db_outage(struct sl_db *db, int64_t source, int64_t start_us, int64_t end_us, const char *cause,
                 struct sl_error *e)
{
    return store_run(db,
                     "INSERT INTO outage (source, start_us, end_us, cause) VALUES (?1, ?2, ?3, ?4)"
                     " ON CONFLICT (source, start_us) DO UPDATE SET end_us = ?3, cause = ?4",
                     BIND(bind_int(source), bind_int(start_us), bind_time(end_us), bind_text(cause)), e);
}

// --- Going on after a process that may have been killed ---

// Segments that nobody ended: they end with their last window; without any they never were.
static int close_segments(struct sl_db *db, int64_t source, struct sl_error *e)
{
    int status = store_run(db,
                           "DELETE FROM segment WHERE end_us IS NULL AND media IN"
                           " (SELECT id FROM media WHERE source = ?1 AND fingerprint IS NULL)"
                           " AND NOT EXISTS (SELECT 1 FROM window WHERE window.segment = segment.id)",
                           BIND(bind_int(source)), e);
    int64_t segment = 0, end_us = 0;
    while (status == SL_OK) {
        segment = 0;
        status = store_value(db, &segment,
                             "SELECT segment.id FROM segment JOIN media ON media.id = segment.media"
                             " WHERE source = ?1 AND fingerprint IS NULL AND segment.end_us IS NULL LIMIT 1",
                             BIND(bind_int(source)), e);
        if (status <= 0)
            return status;
        status =
            store_value(db, &end_us, "SELECT max(end_us) FROM window WHERE segment = ?1", BIND(bind_int(segment)), e);
        if (status > 0)
            status = store_run(db, "UPDATE segment SET end_us = ?2 WHERE id = ?1",
                               BIND(bind_int(segment), bind_int(end_us)), e);
        if (status == SL_OK)
            status = derive_at_all_tasks(db, segment, end_us, e);
    }
    return status;
}

static int resume(struct sl_db *db, int64_t source, int64_t now_us, const char *cause, struct sl_error *e)
{
    int64_t last_us = SL_NO_TIME;
    int status = close_segments(db, source, e);
    if (status == SL_OK)
        status = store_run(db, "UPDATE outage SET end_us = ?2 WHERE source = ?1 AND end_us IS NULL",
                           BIND(bind_int(source), bind_int(now_us)), e);
    if (status == SL_OK)
        status = store_value(db, &last_us,
                             "SELECT max(us) FROM (SELECT wall_start_us + segment.end_us - start_us AS us FROM segment"
                             " JOIN media ON media.id = segment.media WHERE source = ?1 AND fingerprint IS NULL"
                             " UNION ALL SELECT end_us FROM outage WHERE source = ?1)",
                             BIND(bind_int(source)), e);
    if (status < 0 || last_us == SL_NO_TIME || last_us >= now_us)
        return status < 0 ? status : SL_OK;
    return sl_db_outage(db, source, last_us, now_us, cause, e);
}

int sl_db_resume(struct sl_db *db, int64_t source, int64_t now_us, const char *cause, struct sl_error *e)
{
    int status = store_begin(db, e);
    return status == SL_OK ? store_end(db, resume(db, source, now_us, cause, e), e) : status;
}

// --- Forgetting ---

// The segment begins at the end of its last window that is old enough; all before it goes.
static int cut_segment(struct sl_db *db, int64_t segment, int64_t before_us, struct sl_error *e)
{
    int64_t cut_us = SL_NO_TIME;
    int status = store_value(db, &cut_us,
                             "SELECT max(window.end_us) FROM window JOIN segment ON segment.id = segment"
                             " WHERE segment = ?1 AND window.end_us - segment.start_us + segment.wall_start_us <= ?2",
                             BIND(bind_int(segment), bind_int(before_us)), e);
    if (status < 0 || cut_us == SL_NO_TIME)
        return status < 0 ? status : SL_OK;
    status = store_run(db, "DELETE FROM window WHERE segment = ?1 AND end_us <= ?2",
                       BIND(bind_int(segment), bind_int(cut_us)), e);
    if (status == SL_OK)
        status = store_run(db,
                           "DELETE FROM event WHERE segment = ?1 AND start_us < ?2"
                           " AND NOT EXISTS (SELECT 1 FROM part WHERE part.event = event.id)",
                           BIND(bind_int(segment), bind_int(cut_us)), e);
    if (status == SL_OK)
        status = store_run(db,
                           "UPDATE segment SET wall_start_us = wall_start_us + ?2 - start_us, start_us = ?2"
                           " WHERE id = ?1 AND start_us < ?2",
                           BIND(bind_int(segment), bind_int(cut_us)), e);
    return status == SL_OK ? derive_at_all_tasks(db, segment, cut_us, e) : status;
}

static int cut_segments(struct sl_db *db, int64_t before_us, struct sl_error *e)
{
    sqlite3_stmt *row;
    int status = store_prepare(db, &row,
                               "SELECT segment.id FROM segment JOIN media ON media.id = segment.media"
                               " WHERE fingerprint IS NULL AND wall_start_us < ?1",
                               BIND(bind_int(before_us)), e);
    if (status != SL_OK)
        return status;
    while ((status = store_step(db, row, e)) > 0 &&
           (status = cut_segment(db, sqlite3_column_int64(row, 0), before_us, e)) == SL_OK)
        ;
    store_done(db, row);
    return status;
}

static int forget(struct sl_db *db, int64_t before_us, struct sl_error *e)
{
    static const char *const wholly_old[] = {
        "DELETE FROM segment WHERE wall_start_us + end_us - start_us <= ?1"
        " AND media IN (SELECT id FROM media WHERE fingerprint IS NULL)",
        "DELETE FROM media WHERE fingerprint IS NULL AND size_bytes IS NULL AND id < (SELECT max(id) FROM media)"
        " AND NOT EXISTS (SELECT 1 FROM segment WHERE segment.media = media.id) AND ?1 = ?1",
        "DELETE FROM outage WHERE end_us <= ?1",
        "DELETE FROM run WHERE ended_us <= ?1 AND NOT EXISTS (SELECT 1 FROM window WHERE window.run = run.id)",
    };
    int status = SL_OK;
    for (size_t i = 0; i < sizeof wholly_old / sizeof *wholly_old && status == SL_OK; i++)
        status = store_run(db, wholly_old[i], BIND(bind_int(before_us)), e);
    return status == SL_OK ? cut_segments(db, before_us, e) : status;
}

static int forget_before(struct sl_db *db, int64_t before_us, struct sl_error *e)
{
    int status = store_begin(db, e);
    return status == SL_OK ? store_end(db, forget(db, before_us, e), e) : status;
}

static int file_bytes(struct sl_db *db, int64_t *bytes, struct sl_error *e)
{
    int64_t pages = 0, page_bytes = 0;
    int status = store_value(db, &pages, "PRAGMA page_count", NULL, e);
    if (status >= 0)
        status = store_value(db, &page_bytes, "PRAGMA page_size", NULL, e);
    *bytes = pages * page_bytes;
    return status < 0 ? status : SL_OK;
}

// A twentieth of the time that live sources cover, at least a minute, from its oldest moment on.
static int next_cut(struct sl_db *db, int64_t *cut_us, struct sl_error *e)
{
    *cut_us = SL_NO_TIME;
    int status = store_value(db, cut_us,
                             "SELECT min(wall_start_us) + max(60000000, (?1 - min(wall_start_us)) / 20) FROM segment"
                             " JOIN media ON media.id = segment.media WHERE fingerprint IS NULL",
                             BIND(bind_int(store_now_us())), e);
    return status < 0 ? status : SL_OK;
}

// Deleted entries of the word index take room until its parts are merged.
static int give_back(struct sl_db *db, struct sl_error *e)
{
    int code = sqlite3_exec(db->sqlite,
                            "INSERT INTO event_fts (event_fts) VALUES ('optimize'); PRAGMA incremental_vacuum;"
                            " PRAGMA wal_checkpoint (TRUNCATE)",
                            NULL, NULL, NULL);
    return code == SQLITE_OK ? SL_OK : store_fail(db, "giving back room", e);
}

static int count_windows(struct sl_db *db, int64_t *count, struct sl_error *e)
{
    int status = store_value(db, count, "SELECT count(*) FROM window", NULL, e);
    return status < 0 ? status : SL_OK;
}

int sl_db_retain(struct sl_db *db, int64_t before_us, int64_t max_bytes, int64_t *forgotten, struct sl_error *e)
{
    int64_t had = 0, has = 0, bytes = 0;
    int status = count_windows(db, &had, e);
    if (status == SL_OK && before_us != SL_NO_TIME)
        status = forget_before(db, before_us, e);
    if (status == SL_OK)
        status = count_windows(db, &has, e);
    if (status == SL_OK && has != had)
        status = give_back(db, e);
    if (status == SL_OK)
        status = file_bytes(db, &bytes, e);
    if (status == SL_OK && max_bytes > 0 && bytes > max_bytes)
        status = give_back(db, e); // perhaps that is enough
    if (status == SL_OK)
        status = file_bytes(db, &bytes, e);
    for (int round = 0; status == SL_OK && max_bytes > 0 && bytes > max_bytes && round < 20; round++) {
        int64_t cut_us;
        status = next_cut(db, &cut_us, e);
        if (status != SL_OK || cut_us == SL_NO_TIME || cut_us > store_now_us())
            break; // the last minute stays, whatever the limit
        status = forget_before(db, cut_us, e);
        if (status == SL_OK)
            status = give_back(db, e);
        if (status == SL_OK)
            status = file_bytes(db, &bytes, e);
    }
    if (status == SL_OK)
        status = count_windows(db, &has, e);
    *forgotten = had - has;
    return status;
}
