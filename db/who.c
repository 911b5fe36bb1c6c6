// SPDX-License-Identifier: Apache-2.0
// Sources, media, segments, tasks and runs: finding or making their rows.
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/utsname.h>

#include "core/hash.h"
#include "db/derive.h"
#include "db/store.h"

// --- Files ---

struct file {
    char *path; // absolute
    int64_t inode, size_bytes, mtime_us;
    char fingerprint[48];
};

static int fingerprint(const char *path, int64_t size_bytes, char text[48], struct sl_error *e)
{
    struct sl_fingerprint print;
    int status = sl_fingerprint_file(path, size_bytes, &print, e);
    if (status == SL_OK)
        snprintf(text, 48, "%" PRId64 "-%016" PRIx64, print.size_bytes, print.hash);
    return status;
}

static int look_at(const char *path, struct file *file, struct sl_error *e)
{
    struct stat info;
    file->path = realpath(path, NULL);
    if (!file->path || stat(file->path, &info) != 0)
        return sl_fail(e, SL_ERR_OPEN, "cannot open %s: %s", path, strerror(errno));
    file->inode = (int64_t)info.st_ino;
    file->size_bytes = info.st_size;
    file->mtime_us = (int64_t)info.st_mtim.tv_sec * 1000000 + info.st_mtim.tv_nsec / 1000;
    return SL_OK;
}

// In the searches below `source` 0 means any; the newest media wins.

static int find_by_inode(struct sl_db *db, const struct file *file, int64_t source, int64_t *media, struct sl_error *e)
{
    return store_value(
        db, media,
        "SELECT id FROM media WHERE inode = ?1 AND size_bytes = ?2 AND mtime_us = ?3"
        " AND (?4 = 0 OR source = ?4) ORDER BY id DESC LIMIT 1",
        BIND(bind_int(file->inode), bind_int(file->size_bytes), bind_int(file->mtime_us), bind_int(source)), e);
}

static int find_by_content(struct sl_db *db, const struct file *file, int64_t source, int64_t *media,
                           struct sl_error *e)
{
    return store_value(db, media,
                       "SELECT id FROM media WHERE fingerprint = ?1 AND (?2 = 0 OR source = ?2)"
                       " ORDER BY id DESC LIMIT 1",
                       BIND(bind_text(file->fingerprint), bind_int(source)), e);
}

// A shorter file at the same place whose content is how this one begins.
static int find_grown(struct sl_db *db, const struct file *file, int64_t source, int64_t *media, struct sl_error *e)
{
    sqlite3_stmt *candidates;
    int status = store_prepare(
        db, &candidates,
        "SELECT id, size_bytes, fingerprint FROM media WHERE size_bytes < ?1"
        " AND (inode = ?2 OR path = ?3) AND (?4 = 0 OR source = ?4) ORDER BY id DESC",
        BIND(bind_int(file->size_bytes), bind_int(file->inode), bind_text(file->path), bind_int(source)), e);
    if (status != SL_OK)
        return status;
    int found = 0;
    while (!found && (status = store_step(db, candidates, e)) > 0) {
        char print[48];
        status = fingerprint(file->path, sqlite3_column_int64(candidates, 1), print, e);
        if (status != SL_OK)
            break;
        found = strcmp(print, store_text(candidates, 2)) == 0;
        if (found)
            *media = sqlite3_column_int64(candidates, 0);
    }
    store_done(db, candidates);
    return status < 0 ? status : found;
}

// 1 when the file is known, 0 when not.
static int find_media(struct sl_db *db, struct file *file, int64_t source, struct sl_db_media *out, struct sl_error *e)
{
    int status = find_by_inode(db, file, source, &out->media, e);
    if (status != 0)
        return status;
    status = fingerprint(file->path, -1, file->fingerprint, e);
    if (status == SL_OK)
        status = find_by_content(db, file, source, &out->media, e);
    if (status != 0)
        return status;
    status = find_grown(db, file, source, &out->media, e);
    out->grown = status > 0;
    return status;
}

static int find_source(struct sl_db *db, const char *name, int64_t *source, struct sl_error *e)
{
    return store_find_or_insert(db, source, "SELECT id FROM source WHERE name = ?1",
                                "INSERT INTO source (name) VALUES (?1)", BIND(bind_text(name)), e);
}

static int insert_media(struct sl_db *db, const struct file *file, struct sl_db_media *out, struct sl_error *e)
{
    int status = store_run(db,
                           "INSERT INTO media (source, path, fingerprint, size_bytes, mtime_us, inode)"
                           " VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
                           BIND(bind_int(out->source), bind_text(file->path), bind_text(file->fingerprint),
                                bind_int(file->size_bytes), bind_int(file->mtime_us), bind_int(file->inode)),
                           e);
    out->media = sqlite3_last_insert_rowid(db->sqlite);
    return status;
}

// The last segment of grown media goes on: its end, and that its last events are over, are no longer true.
static int reopen_segment(struct sl_db *db, int64_t media, struct sl_error *e)
{
    sqlite3_stmt *last;
    int status =
        store_prepare(db, &last, "SELECT id, end_us FROM segment WHERE media = ?1 ORDER BY start_us DESC LIMIT 1",
                      BIND(bind_int(media)), e);
    if (status != SL_OK)
        return status;
    status = store_step(db, last, e);
    int64_t segment = status > 0 ? sqlite3_column_int64(last, 0) : 0;
    int64_t end_us = status > 0 ? store_time(last, 1) : SL_NO_TIME;
    store_done(db, last);
    if (status <= 0 || end_us == SL_NO_TIME)
        return status < 0 ? status : SL_OK;
    status = store_run(db, "UPDATE segment SET end_us = NULL WHERE id = ?1", BIND(bind_int(segment)), e);
    return status == SL_OK ? derive_at_all_tasks(db, segment, end_us, e) : status;
}

// Where a known file is now; and when it has grown, what it is now.
static int update_media(struct sl_db *db, const struct file *file, struct sl_db_media *out, struct sl_error *e)
{
    int status = store_run(db, "UPDATE media SET path = ?2, inode = ?3, mtime_us = ?4, size_bytes = ?5 WHERE id = ?1",
                           BIND(bind_int(out->media), bind_text(file->path), bind_int(file->inode),
                                bind_int(file->mtime_us), bind_int(file->size_bytes)),
                           e);
    if (status != SL_OK || !out->grown)
        return status;
    status = store_run(db, "UPDATE media SET fingerprint = ?2, duration_us = NULL WHERE id = ?1",
                       BIND(bind_int(out->media), bind_text(file->fingerprint)), e);
    return status == SL_OK ? reopen_segment(db, out->media, e) : status;
}

static int read_source(struct sl_db *db, struct sl_db_media *out, struct sl_error *e)
{
    sqlite3_stmt *row;
    int status = store_prepare(db, &row,
                               "SELECT source.id, name FROM media JOIN source ON source.id = media.source"
                               " WHERE media.id = ?1",
                               BIND(bind_int(out->media)), e);
    if (status != SL_OK)
        return status;
    status = store_step(db, row, e);
    if (status > 0) {
        out->source = sqlite3_column_int64(row, 0);
        snprintf(out->source_name, sizeof out->source_name, "%s", store_text(row, 1));
    }
    store_done(db, row);
    return status < 0 ? status : SL_OK;
}

static int resolve_file(struct sl_db *db, struct file *file, const char *source_name, struct sl_db_media *out,
                        struct sl_error *e)
{
    int status = SL_OK;
    if (source_name)
        status = find_source(db, source_name, &out->source, e);
    if (status == SL_OK)
        status = find_media(db, file, out->source, out, e);
    out->known = status > 0;
    if (status > 0) {
        status = update_media(db, file, out, e);
    } else if (status == 0) {
        if (!source_name)
            status = find_source(db, strrchr(file->path, '/') + 1, &out->source, e);
        if (status == SL_OK)
            status = insert_media(db, file, out, e);
    }
    return status == SL_OK ? read_source(db, out, e) : status;
}

int sl_db_file(struct sl_db *db, const char *path, const char *source_name, struct sl_db_media *out, struct sl_error *e)
{
    struct file file = {0};
    *out = (struct sl_db_media){0};
    if (source_name && (!source_name[0] || strlen(source_name) >= SL_DB_NAME_BYTES))
        return sl_fail(e, SL_ERR_USAGE, "the name of a source has 1 to %d bytes", SL_DB_NAME_BYTES - 1);
    int status = look_at(path, &file, e);
    if (status == SL_OK)
        status = store_begin(db, e);
    if (status == SL_OK)
        status = store_end(db, resolve_file(db, &file, source_name, out, e), e);
    free(file.path);
    return status;
}

int sl_db_describe(struct sl_db *db, int64_t media, const struct sl_db_media_info *info, struct sl_error *e)
{
    return store_run(
        db, "UPDATE media SET duration_us = ?2, format = ?3, codec = ?4 WHERE id = ?1",
        BIND(bind_int(media), bind_time(info->duration_us), bind_text(info->format), bind_text(info->codec)), e);
}

// --- Segments ---

static const char *const clock_names[] = {"none", "user", "arrival", "camera"};

static int resolve_segment(struct sl_db *db, const struct sl_db_segment *segment, int64_t *id, struct sl_error *e)
{
    int status = store_find_or_insert(db, id, "SELECT id FROM segment WHERE media = ?1 AND start_us = ?2",
                                      "INSERT INTO segment (media, start_us, clock) VALUES (?1, ?2, 'none')",
                                      BIND(bind_int(segment->media), bind_int(segment->start_us)), e);
    if (status != SL_OK || segment->wall_start_us == SL_NO_TIME)
        return status;
    return store_run(db, "UPDATE segment SET wall_start_us = ?2, clock = ?3, error_us = ?4 WHERE id = ?1",
                     BIND(bind_int(*id), bind_int(segment->wall_start_us), bind_text(clock_names[segment->clock]),
                          bind_time(segment->error_us)),
                     e);
}

int sl_db_segment(struct sl_db *db, const struct sl_db_segment *segment, int64_t *id, struct sl_error *e)
{
    int status = store_begin(db, e);
    return status == SL_OK ? store_end(db, resolve_segment(db, segment, id, e), e) : status;
}

static int end_segment(struct sl_db *db, int64_t segment, int64_t end_us, struct sl_error *e)
{
    int64_t before = SL_NO_TIME;
    int status = store_value(db, &before, "SELECT end_us FROM segment WHERE id = ?1", BIND(bind_int(segment)), e);
    if (status < 0 || before == end_us)
        return status < 0 ? status : SL_OK;
    status =
        store_run(db, "UPDATE segment SET end_us = ?2 WHERE id = ?1", BIND(bind_int(segment), bind_int(end_us)), e);
    if (status == SL_OK && before != SL_NO_TIME)
        status = derive_at_all_tasks(db, segment, before, e);
    return status == SL_OK ? derive_at_all_tasks(db, segment, end_us, e) : status;
}

int sl_db_segment_end(struct sl_db *db, int64_t segment, int64_t end_us, struct sl_error *e)
{
    int status = store_begin(db, e);
    return status == SL_OK ? store_end(db, end_segment(db, segment, end_us, e), e) : status;
}

// --- Tasks and runs ---

int sl_db_task(struct sl_db *db, const char *text, int64_t pair_us, int64_t *task, struct sl_error *e)
{
    int status = store_begin(db, e);
    if (status != SL_OK)
        return status;
    status = store_find_or_insert(db, task, "SELECT id FROM task WHERE text = ?1 AND ?2 = ?2",
                                  "INSERT INTO task (text, pair_us) VALUES (?1, ?2)",
                                  BIND(bind_text(text), bind_int(pair_us)), e);
    return store_end(db, status, e);
}

int sl_db_run_begin(struct sl_db *db, const char *version, const char *arguments, int64_t *run, struct sl_error *e)
{
    struct utsname machine;
    if (uname(&machine) != 0)
        strcpy(machine.nodename, "");
    int status = store_run(
        db, "INSERT INTO run (version, host, arguments, started_us) VALUES (?1, ?2, ?3, ?4)",
        BIND(bind_text(version), bind_text(machine.nodename), bind_text(arguments), bind_int(store_now_us())), e);
    *run = sqlite3_last_insert_rowid(db->sqlite);
    return status;
}

int sl_db_run_end(struct sl_db *db, int64_t run, int exit_status, struct sl_error *e)
{
    return store_run(db, "UPDATE run SET ended_us = ?2, exit_status = ?3 WHERE id = ?1",
                     BIND(bind_int(run), bind_int(store_now_us()), bind_int(exit_status)), e);
}
