// SPDX-License-Identifier: Apache-2.0
// Events by time and by words.
//
// First a list of what is asked (`pick`): segments with their task and the span in the segment's own media time. Then
// for each the three bounded scans of the index event_span (schema.sql); or, where words are asked for over a long
// span, the word index first. The statement sorts ids and times alone; texts are read as rows go out.
#include <stdlib.h>
#include <string.h>

#include "db/store.h"
#include "db/text.h"

// Far beyond all times, with room to add and subtract them.
static const int64_t far_us = INT64_MAX / 4;

// Up to so many events of a span are looked up in the word index one by one; beyond, the word index leads.
enum { WORD_BY_WORD = 1000 };

// ?1 from, ?2 to, ?3 wall, ?4 source glob, ?5 task, ?6 limit, ?7 match, ?8 segment
#define PICK                                                                                                           \
    "WITH pick AS MATERIALIZED ("                                                                                      \
    " SELECT segment.id AS segment, claim.task AS task, source.name AS source,"                                        \
    "  segment.wall_start_us - segment.start_us AS shift_us,"                                                          \
    "  CASE WHEN ?3 THEN ?1 - segment.wall_start_us + segment.start_us ELSE ?1 END AS from_us,"                        \
    "  CASE WHEN ?3 THEN ?2 - segment.wall_start_us + segment.start_us ELSE ?2 END AS to_us"                           \
    " FROM source JOIN claim ON claim.source = source.id JOIN media ON media.source = source.id"                       \
    " JOIN segment ON segment.media = media.id"                                                                        \
    " WHERE (?4 IS NULL OR source.name GLOB ?4) AND (NOT ?3 OR segment.wall_start_us IS NOT NULL)"                     \
    " AND (?8 = 0 OR segment.id = ?8)"                                                                                 \
    " AND claim.task = CASE WHEN ?5 THEN ?5 ELSE (SELECT newest.task FROM claim AS newest"                             \
    "  WHERE newest.source = source.id AND answered_us IS NOT NULL ORDER BY answered_us DESC, task DESC LIMIT 1) END)"

#define SCAN(class, reach)                                                                                             \
    " SELECT event.id, event.start_us, event.end_us, pick.shift_us, pick.source FROM pick"                             \
    " CROSS JOIN event INDEXED BY event_span ON event.segment = pick.segment AND event.task = pick.task"               \
    " AND event.span_class = " #class " AND event.start_us < pick.to_us AND event.end_us > pick.from_us" reach

#define BY_TIME                                                                                                        \
    PICK ", found AS (" SCAN(0, " AND event.start_us > pick.from_us - 60000000") " UNION ALL" SCAN(                    \
        1, " AND event.start_us > pick.from_us - 600000000") " UNION ALL" SCAN(2, "") ")"

#define BY_WORDS                                                                                                       \
    PICK ", found AS (SELECT event.id, event.start_us, event.end_us, pick.shift_us, pick.source FROM event_fts"        \
         " CROSS JOIN event ON event.id = event_fts.rowid"                                                             \
         " JOIN pick ON pick.segment = event.segment AND pick.task = event.task"                                       \
         " WHERE event_fts MATCH ?7 AND event.start_us < pick.to_us AND event.end_us > pick.from_us)"

#define HAS_WORDS " WHERE EXISTS (SELECT 1 FROM event_fts WHERE event_fts MATCH ?7 AND event_fts.rowid = found.id)"

#define IN_ORDER " ORDER BY start_us + ifnull(shift_us, 0), end_us + ifnull(shift_us, 0), source, id LIMIT ?6"

#define FOUND " SELECT id, shift_us, source FROM found"

static int prepare(struct sl_db *db, const struct sl_db_query *query, const char *match, const char *sql,
                   sqlite3_stmt **out, struct sl_error *e)
{
    return store_prepare(db, out, sql,
                         BIND(bind_int(query->from_us == SL_NO_TIME ? -far_us : query->from_us),
                              bind_int(query->to_us == SL_NO_TIME ? far_us : query->to_us), bind_int(query->wall),
                              bind_text(query->source_glob), bind_int(query->task),
                              bind_int(query->limit > 0 ? query->limit : -1), bind_text(match),
                              bind_int(query->segment)),
                         e);
}

// Which way is shorter? Counts at most WORD_BY_WORD index entries.
static int words_lead(struct sl_db *db, const struct sl_db_query *query, struct sl_error *e)
{
    sqlite3_stmt *row;
    struct sl_db_query some = *query;
    some.limit = WORD_BY_WORD;
    int status = prepare(db, &some, NULL, BY_TIME " SELECT count(*) FROM (SELECT 1 FROM found LIMIT ?6)", &row, e);
    if (status != SL_OK)
        return status;
    status = store_step(db, row, e);
    if (status > 0)
        status = sqlite3_column_int(row, 0) == WORD_BY_WORD;
    store_done(db, row);
    return status;
}

// *sql: what to ask, by the shorter way.
static int choose(struct sl_db *db, const struct sl_db_query *query, const char *match, const char **sql,
                  struct sl_error *e)
{
    *sql = BY_TIME FOUND IN_ORDER;
    int lead = match ? words_lead(db, query, e) : 0;
    if (match)
        *sql = lead ? BY_WORDS FOUND IN_ORDER : BY_TIME FOUND HAS_WORDS IN_ORDER;
    return lead < 0 ? lead : SL_OK;
}

// Row: columns of FOUND. Event: as in hand_out_all.
static int hand_out(struct sl_db *db, sqlite3_stmt *found, sqlite3_stmt *event,
                    int (*row)(const struct sl_db_event *, void *), void *user, struct sl_error *e)
{
    sqlite3_reset(event);
    sqlite3_bind_int64(event, 1, sqlite3_column_int64(found, 0));
    int status = store_step(db, event, e);
    if (status <= 0)
        return status; // deleted by a writer since: not there
    int64_t shift_us = store_time(found, 1);
    struct sl_db_event out = {
        .id = sqlite3_column_int64(event, 0),
        .revision = sqlite3_column_int64(event, 1),
        .task = sqlite3_column_int64(event, 2),
        .source = store_text(found, 2),
        .start_us = sqlite3_column_int64(event, 3),
        .end_us = sqlite3_column_int64(event, 4),
        .wall_start_us = SL_NO_TIME,
        .wall_end_us = SL_NO_TIME,
        .text = store_text(event, 5),
        .confidence = sqlite3_column_type(event, 6) == SQLITE_NULL ? -1 : sqlite3_column_double(event, 6),
        .open = sqlite3_column_int(event, 7),
        .model = store_text(event, 8),
        .media = sqlite3_column_int64(event, 9),
    };
    if (shift_us != SL_NO_TIME) {
        out.wall_start_us = out.start_us + shift_us;
        out.wall_end_us = out.end_us + shift_us;
    }
    return row(&out, user) ? 1 : 0;
}

static int hand_out_all(struct sl_db *db, sqlite3_stmt *found, int (*row)(const struct sl_db_event *, void *),
                        void *user, struct sl_error *e)
{
    sqlite3_stmt *event;
    int status = store_prepare(
        db, &event,
        "SELECT event.id, revision, task, event.start_us, event.end_us, text, confidence, open, model.name,"
        " media FROM event JOIN model ON model.id = event.model"
        " JOIN segment ON segment.id = event.segment WHERE event.id = ?1",
        NULL, e);
    if (status != SL_OK)
        return status;
    while ((status = store_step(db, found, e)) > 0 && (status = hand_out(db, found, event, row, user, e)) == 0)
        ;
    store_done(db, event);
    return status < 0 ? status : SL_OK;
}

int sl_db_query(struct sl_db *db, const struct sl_db_query *query, int (*row)(const struct sl_db_event *, void *),
                void *user, struct sl_error *e)
{
    char *match = NULL;
    const char *sql;
    sqlite3_stmt *found;
    int status = text_match(query->words, query->word_count, &match, e);
    if (status == SL_OK && query->word_count && !match)
        return sl_fail(e, SL_ERR_USAGE, "no letter or digit in the words to search for");
    if (status == SL_OK)
        status = choose(db, query, match, &sql, e);
    if (status == SL_OK)
        status = prepare(db, query, match, sql, &found, e);
    if (status == SL_OK) {
        status = hand_out_all(db, found, row, user, e);
        store_done(db, found);
    }
    free(match);
    return status;
}

// `sql` gives columns of FOUND.
static int hand_out_found(struct sl_db *db, const char *sql, int64_t id, int (*row)(const struct sl_db_event *, void *),
                          void *user, struct sl_error *e)
{
    sqlite3_stmt *found;
    int status = store_prepare(db, &found, sql, BIND(bind_int(id)), e);
    if (status == SL_OK) {
        status = hand_out_all(db, found, row, user, e);
        store_done(db, found);
    }
    return status;
}

#define ONE_BY_ONE                                                                                                     \
    "SELECT event.id, segment.wall_start_us - segment.start_us, source.name FROM source"                               \
    " JOIN media ON media.source = source.id JOIN segment ON segment.media = media.id"                                 \
    " JOIN event ON event.segment = segment.id"

int sl_db_open_events(struct sl_db *db, int64_t source, int (*row)(const struct sl_db_event *, void *), void *user,
                      struct sl_error *e)
{
    return hand_out_found(db,
                          ONE_BY_ONE " WHERE source.id = ?1 AND fingerprint IS NULL AND segment.end_us IS NULL"
                                     " AND event.open",
                          source, row, user, e);
}

int sl_db_event(struct sl_db *db, int64_t id, int (*row)(const struct sl_db_event *, void *), void *user,
                struct sl_error *e)
{
    return hand_out_found(db, ONE_BY_ONE " WHERE event.id = ?1", id, row, user, e);
}
