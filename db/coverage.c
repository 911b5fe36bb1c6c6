// SPDX-License-Identifier: Apache-2.0
// What was looked at: derived from answers, holes and the windows that are not done.
#include <stdlib.h>

#include "db/claim.h"
#include "db/store.h"

// One end of a span: here something begins (+1) or ends (-1).
struct edge {
    int64_t at_us;
    enum sl_db_seen seen;
    int step;
};

struct edges {
    struct edge *items;
    size_t count, room;
};

static int add_span(struct edges *edges, int64_t start_us, int64_t end_us, enum sl_db_seen seen, struct sl_error *e)
{
    if (edges->count + 2 > edges->room) {
        size_t room = edges->room ? edges->room * 2 : 64;
        struct edge *larger = realloc(edges->items, room * sizeof *larger);
        if (!larger)
            return sl_fail(e, SL_ERR_MEMORY, "coverage: out of memory");
        edges->items = larger;
        edges->room = room;
    }
    edges->items[edges->count++] = (struct edge){start_us, seen, 1};
    edges->items[edges->count++] = (struct edge){end_us, seen, -1};
    return SL_OK;
}

// Columns: start, end, enum sl_db_seen. The extent of the segment is a span that was never looked at, which all others
// outweigh; a hole outweighs the answer that it is in.
static const char spans_sql[] =
    "SELECT start_us, end_us, 3 FROM answer WHERE segment = ?1 AND task = ?2"
    " UNION ALL SELECT max(hole.start_us, answer.start_us), min(hole.end_us, answer.end_us), 4"
    "  FROM answer JOIN hole ON hole.window = answer.window"
    "  AND hole.start_us < answer.end_us AND hole.end_us > answer.start_us WHERE segment = ?1 AND task = ?2"
    " UNION ALL SELECT start_us, end_us, CASE state WHEN 'failed' THEN 2 ELSE 1 END FROM window"
    "  WHERE segment = ?1 AND task = ?2 AND state <> 'done'"
    " UNION ALL SELECT segment.start_us, coalesce(segment.end_us, segment.start_us + duration_us, segment.start_us), 0"
    "  FROM segment JOIN media ON media.id = segment.media WHERE segment.id = ?1";

static int read_edges(struct sl_db *db, int64_t segment, int64_t task, struct edges *edges, struct sl_error *e)
{
    sqlite3_stmt *row;
    int status = store_prepare(db, &row, spans_sql, BIND(bind_int(segment), bind_int(task)), e);
    if (status != SL_OK)
        return status;
    while ((status = store_step(db, row, e)) > 0 &&
           (status = add_span(edges, sqlite3_column_int64(row, 0), sqlite3_column_int64(row, 1),
                              (enum sl_db_seen)sqlite3_column_int(row, 2), e)) == SL_OK)
        ;
    store_done(db, row);
    return status;
}

static int by_time(const void *left, const void *right)
{
    const struct edge *a = left, *b = right;
    return (a->at_us > b->at_us) - (a->at_us < b->at_us);
}

// Sorts the edges, then sweeps them: each moment is the greatest thing that covers it. A gap between windows that reach
// beyond the known extent was never looked at either. Leaves edges whose `seen` holds from there to the next one.
static void sweep(struct edges *edges)
{
    int covers[SL_DB_OUTAGE + 1] = {0};
    size_t kept = 0;
    if (!edges->count)
        return;
    qsort(edges->items, edges->count, sizeof *edges->items, by_time);
    for (size_t i = 0; i < edges->count;) {
        int64_t at_us = edges->items[i].at_us;
        for (; i < edges->count && edges->items[i].at_us == at_us; i++)
            covers[edges->items[i].seen] += edges->items[i].step;
        int seen = SL_DB_OUTAGE;
        while (seen > SL_DB_NEVER && !covers[seen])
            seen--;
        if (!kept || (int)edges->items[kept - 1].seen != seen || i == edges->count)
            edges->items[kept++] = (struct edge){at_us, (enum sl_db_seen)seen, 0};
    }
    edges->count = kept;
}

// Why it is so at the span's start. The caller gives *row back.
static int read_cause(struct sl_db *db, const struct sl_db_span *span, int64_t task, sqlite3_stmt **row,
                      struct sl_error *e)
{
    const char *sql = span->seen == SL_DB_OUTAGE
                          ? "SELECT cause FROM hole JOIN answer ON answer.window = hole.window"
                            " WHERE segment = ?1 AND task = ?2 AND answer.end_us > ?3 AND answer.start_us <= ?3"
                            " AND hole.start_us <= ?3 AND hole.end_us > ?3 AND ?4 = 4"
                            " ORDER BY answer.end_us LIMIT 1"
                          : "SELECT cause FROM window WHERE segment = ?1 AND task = ?2 AND end_us > ?3"
                            " AND start_us <= ?3 AND state = CASE ?4 WHEN 2 THEN 'failed' ELSE 'dropped' END"
                            " ORDER BY end_us LIMIT 1"; // without gaps the first that is looked at
    int status = store_prepare(
        db, row, sql, BIND(bind_int(span->segment), bind_int(task), bind_int(span->start_us), bind_int(span->seen)), e);
    return status == SL_OK ? store_step(db, *row, e) : status;
}

static int hand_out(struct sl_db *db, struct sl_db_span *span, int64_t task,
                    int (*row)(const struct sl_db_span *, void *), void *user, struct sl_error *e)
{
    sqlite3_stmt *cause = NULL;
    int status = SL_OK;
    span->cause = NULL;
    if (span->seen != SL_DB_SEEN && span->seen != SL_DB_NEVER) {
        status = read_cause(db, span, task, &cause, e);
        if (status > 0)
            span->cause = store_text(cause, 0);
    }
    if (status >= 0)
        status = row(span, user) ? 1 : 0;
    store_done(db, cause);
    return status;
}

// Columns of `segment`: id, wall_start_us - start_us, path.
static int cover_segment(struct sl_db *db, sqlite3_stmt *segment, int64_t task,
                         int (*row)(const struct sl_db_span *, void *), void *user, struct sl_error *e)
{
    struct edges edges = {0};
    struct sl_db_span span = {.segment = sqlite3_column_int64(segment, 0),
                              .path = store_text(segment, 2),
                              .live = sqlite3_column_int(segment, 3)};
    int64_t shift_us = store_time(segment, 1);
    int status = read_edges(db, span.segment, task, &edges, e);
    if (status == SL_OK)
        sweep(&edges);
    for (size_t i = 0; i + 1 < edges.count && status == SL_OK; i++) {
        span.start_us = edges.items[i].at_us;
        span.end_us = edges.items[i + 1].at_us;
        span.seen = edges.items[i].seen;
        span.wall_start_us = shift_us == SL_NO_TIME ? SL_NO_TIME : span.start_us + shift_us;
        status = hand_out(db, &span, task, row, user, e);
    }
    free(edges.items);
    return status;
}

static int hand_out_outages(struct sl_db *db, int64_t source, int64_t from_us, int64_t to_us,
                            int (*row)(const struct sl_db_span *, void *), void *user, struct sl_error *e)
{
    sqlite3_stmt *outage;
    int status = store_prepare(db, &outage,
                               "SELECT start_us, coalesce(end_us, ?4), cause FROM outage WHERE source = ?1"
                               " AND start_us >= ?2 AND start_us < ?3 ORDER BY start_us",
                               BIND(bind_int(source), bind_int(from_us), bind_int(to_us), bind_int(store_now_us())), e);
    if (status != SL_OK)
        return status;
    int stop = 0;
    while (!stop && (status = store_step(db, outage, e)) > 0) {
        struct sl_db_span span = {.start_us = sqlite3_column_int64(outage, 0),
                                  .end_us = sqlite3_column_int64(outage, 1),
                                  .live = 1,
                                  .seen = SL_DB_OUTAGE,
                                  .cause = store_text(outage, 2)};
        span.wall_start_us = span.start_us;
        stop = span.end_us > span.start_us && row(&span, user);
    }
    store_done(db, outage);
    return status < 0 ? status : stop;
}

int sl_db_coverage(struct sl_db *db, int64_t source, int64_t task, int (*row)(const struct sl_db_span *, void *),
                   void *user, struct sl_error *e)
{
    sqlite3_stmt *segment;
    int status =
        store_prepare(db, &segment,
                      "SELECT segment.id, wall_start_us - start_us, path, clock IN ('arrival', 'camera'), wall_start_us"
                      " FROM segment JOIN media ON media.id = segment.media WHERE media.source = ?1"
                      " ORDER BY media.id, start_us",
                      BIND(bind_int(source)), e);
    if (status != SL_OK)
        return status;
    int64_t told_us = INT64_MIN;
    int stop = 0;
    while (!stop && (status = store_step(db, segment, e)) > 0) {
        int64_t wall_us = store_time(segment, 4);
        if (sqlite3_column_int(segment, 3) && wall_us != SL_NO_TIME && wall_us > told_us) {
            stop = hand_out_outages(db, source, told_us, wall_us, row, user, e);
            told_us = wall_us;
        }
        stop = stop ? stop : cover_segment(db, segment, task, row, user, e);
    }
    store_done(db, segment);
    if (status == 0 && !stop)
        stop = hand_out_outages(db, source, told_us, INT64_MAX, row, user, e);
    return status < 0 ? status : stop < 0 ? stop : SL_OK;
}

// --- Works ---

#define COUNT_WINDOWS(state)                                                                                           \
    ", (SELECT count(*) FROM media JOIN segment ON segment.media = media.id JOIN window ON window.segment = "          \
    "segment.id WHERE media.source = claim.source AND window.task = claim.task AND state = '" state "')"

static const char works_sql[] =
    "SELECT claim.source, claim.task, source.name, task.text,"
    " (SELECT model.name FROM media JOIN segment ON segment.media = media.id"
    "  JOIN window ON window.segment = segment.id JOIN model ON model.id = window.model"
    "  WHERE media.source = claim.source AND window.task = claim.task ORDER BY window.id DESC LIMIT 1),"
    " claim.task IS (SELECT task FROM claim AS newest WHERE newest.source = claim.source AND answered_us IS NOT NULL"
    "  ORDER BY answered_us DESC, task DESC LIMIT 1),"
    " (SELECT count(*) FROM media JOIN segment ON segment.media = media.id JOIN event ON event.segment = segment.id"
    "  WHERE media.source = claim.source AND event.task = claim.task)" COUNT_WINDOWS("done") COUNT_WINDOWS("failed")
        COUNT_WINDOWS("dropped") ", token, host, machine, pid, process_start, heartbeat_us"
                                 " FROM claim JOIN source ON source.id = claim.source JOIN task ON task.id = claim.task"
                                 " WHERE ?1 IS NULL OR source.name GLOB ?1 ORDER BY source.name, claim.task";

int sl_db_works(struct sl_db *db, const char *source_glob, int (*row)(const struct sl_db_work *, void *), void *user,
                struct sl_error *e)
{
    sqlite3_stmt *found;
    int status = store_prepare(db, &found, works_sql, BIND(bind_text(source_glob)), e);
    if (status != SL_OK)
        return status;
    while ((status = store_step(db, found, e)) > 0) {
        struct sl_db_work work = {
            .source_id = sqlite3_column_int64(found, 0),
            .task = sqlite3_column_int64(found, 1),
            .source = store_text(found, 2),
            .task_text = store_text(found, 3),
            .model = store_text(found, 4),
            .newest = sqlite3_column_int(found, 5),
            .events = sqlite3_column_int64(found, 6),
            .windows_done = sqlite3_column_int64(found, 7),
            .windows_failed = sqlite3_column_int64(found, 8),
            .windows_dropped = sqlite3_column_int64(found, 9),
            .busy = sqlite3_column_type(found, 10) != SQLITE_NULL && claim_is_live(found, 11),
        };
        if (row(&work, user))
            break;
    }
    store_done(db, found);
    return status < 0 ? status : SL_OK;
}
