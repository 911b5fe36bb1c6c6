// SPDX-License-Identifier: Apache-2.0
// Is the file whole, and does what is derived in it follow from the rest? And how much there is.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "db/derive.h"
#include "db/store.h"

struct report {
    int (*fault)(const char *line, void *);
    void *user;
    int stopped; // by the callback
};

static void say(struct report *report, const char *line)
{
    report->stopped = report->stopped || report->fault(line, report->user);
}

// Each row of `sql` gives one text, which is a fault unless it is "ok".
static int run_check(struct sl_db *db, const char *sql, struct report *report, struct sl_error *e)
{
    sqlite3_stmt *row;
    int status = store_prepare(db, &row, sql, NULL, e);
    if (status != SL_OK)
        return status;
    while (!report->stopped && (status = store_step(db, row, e)) > 0) {
        const char *line = store_text(row, 0);
        if (line && sqlite3_stricmp(line, "ok") != 0)
            say(report, line);
    }
    store_done(db, row);
    return status < 0 ? status : SL_OK;
}

static const char *const checks[] = {
    "PRAGMA integrity_check(20)",
    "SELECT 'row ' || rowid || ' of ' || \"table\" || ' refers to a row of ' || parent || ' that is not there'"
    " FROM pragma_foreign_key_check LIMIT 20",
    "SELECT 'piece ' || piece.id || ' reaches beyond its window' FROM piece JOIN window ON window.id = piece.window"
    " WHERE piece.start_us < window.start_us OR piece.end_us > window.end_us LIMIT 20",
};

// FTS5 can check itself only under the write lock, which would stop writers for as long as it takes. So: index the
// events once more beside the file, and compare how many events and times each term has.
static const char *const words_again[] = {
    ("CREATE VIRTUAL TABLE temp.again USING fts5 (text, content = '', columnsize = 0,"
     " tokenize = 'porter unicode61 remove_diacritics 2')"), // as in schema.sql
    "INSERT INTO temp.again (rowid, text) SELECT id, text FROM event_words",
    "CREATE VIRTUAL TABLE temp.terms USING fts5vocab (main, event_fts, row)",
    "CREATE VIRTUAL TABLE temp.terms_again USING fts5vocab (temp, again, row)",
};
static const char compare_words[] =
    "SELECT 'the word index does not match the events at \"' || term || '\"' FROM"
    " (SELECT * FROM (SELECT * FROM temp.terms EXCEPT SELECT * FROM temp.terms_again) UNION"
    "  SELECT * FROM (SELECT * FROM temp.terms_again EXCEPT SELECT * FROM temp.terms)) LIMIT 1";
static const char forget_words[] =
    "DROP TABLE IF EXISTS temp.terms; DROP TABLE IF EXISTS temp.terms_again; DROP TABLE IF EXISTS temp.again";

static int check_words(struct sl_db *db, struct report *report, struct sl_error *e)
{
    int status = SL_OK;
    for (size_t i = 0; i < sizeof words_again / sizeof *words_again && status == SL_OK; i++)
        status = store_run(db, words_again[i], NULL, e);
    if (status == SL_OK)
        status = run_check(db, compare_words, report, e);
    sqlite3_exec(db->sqlite, forget_words, NULL, NULL, NULL);
    return status;
}

// Which window answers where, laid out anew from the done windows.
struct layer {
    int64_t window, start_us, end_us;
};
struct layers { // in the order of time, without overlaps
    struct layer *items;
    size_t count, room;
};

// Lays a newer window over the others: what it covers of them goes, what sticks out stays.
static int lay(struct layers *layers, struct layer top, struct sl_error *e)
{
    if (layers->count + 2 > layers->room) {
        size_t room = layers->room * 2 + 64;
        struct layer *larger = realloc(layers->items, room * sizeof *larger);
        if (!larger)
            return sl_fail(e, SL_ERR_MEMORY, "verifying: out of memory");
        layers->items = larger;
        layers->room = room;
    }
    size_t from = layers->count, to;
    while (from > 0 && layers->items[from - 1].end_us > top.start_us)
        from--;
    for (to = from; to < layers->count && layers->items[to].start_us < top.end_us;)
        to++;
    struct layer put[3];
    size_t puts = 0;
    if (from < to && layers->items[from].start_us < top.start_us)
        put[puts++] = (struct layer){layers->items[from].window, layers->items[from].start_us, top.start_us};
    put[puts++] = top;
    if (from < to && layers->items[to - 1].end_us > top.end_us)
        put[puts++] = (struct layer){layers->items[to - 1].window, top.end_us, layers->items[to - 1].end_us};
    memmove(layers->items + from + puts, layers->items + to, (layers->count - to) * sizeof *put);
    memcpy(layers->items + from, put, puts * sizeof *put);
    layers->count = layers->count - (to - from) + puts;
    return SL_OK;
}

static struct layer layer_of(sqlite3_stmt *row)
{
    return (struct layer){sqlite3_column_int64(row, 0), sqlite3_column_int64(row, 1), sqlite3_column_int64(row, 2)};
}

static int lay_windows(struct sl_db *db, int64_t segment, int64_t task, struct layers *layers, struct sl_error *e)
{
    sqlite3_stmt *row;
    int status = store_prepare(db, &row,
                               "SELECT id, start_us, end_us FROM window WHERE segment = ?1 AND task = ?2"
                               " AND state = 'done' ORDER BY id",
                               BIND(bind_int(segment), bind_int(task)), e);
    if (status != SL_OK)
        return status;
    while ((status = store_step(db, row, e)) > 0 && (status = lay(layers, layer_of(row), e)) == SL_OK)
        ;
    store_done(db, row);
    return status;
}

// 1 if the index has the same layers.
static int has_layers(struct sl_db *db, int64_t segment, int64_t task, const struct layers *layers, struct sl_error *e)
{
    sqlite3_stmt *row;
    size_t count = 0;
    int same = 1;
    int status = store_prepare(db, &row,
                               "SELECT window, start_us, end_us FROM answer WHERE segment = ?1 AND task = ?2"
                               " ORDER BY end_us, start_us",
                               BIND(bind_int(segment), bind_int(task)), e);
    if (status != SL_OK)
        return status;
    while (same && (status = store_step(db, row, e)) > 0) {
        struct layer layer = layer_of(row);
        same = count < layers->count && memcmp(&layer, &layers->items[count], sizeof layer) == 0;
        count++;
    }
    store_done(db, row);
    return status < 0 ? status : same && count == layers->count;
}

static void say_of(struct report *report, int64_t segment, int64_t task, const char *what)
{
    char line[160];
    snprintf(line, sizeof line, "segment %lld, task %lld: %s", (long long)segment, (long long)task, what);
    say(report, line);
}

static int check_segment(struct sl_db *db, int64_t segment, int64_t task, struct report *report, struct sl_error *e)
{
    struct layers layers = {0};
    int64_t differences = 0;
    int status = lay_windows(db, segment, task, &layers, e);
    int same = status == SL_OK ? has_layers(db, segment, task, &layers, e) : status;
    free(layers.items);
    if (same < 0)
        return same;
    if (!same)
        say_of(report, segment, task, "the answers do not follow from the windows");
    status = derive_compare(db, segment, task, &differences, e);
    char what[80];
    snprintf(what, sizeof what, "%lld differences between events and pieces", (long long)differences);
    if (differences)
        say_of(report, segment, task, what);
    return status;
}

static int check_derivation(struct sl_db *db, struct report *report, struct sl_error *e)
{
    sqlite3_stmt *row;
    int status =
        store_prepare(db, &row,
                      "SELECT DISTINCT segment, task FROM window UNION SELECT DISTINCT segment, task FROM answer"
                      " UNION SELECT DISTINCT segment, task FROM event",
                      NULL, e);
    if (status != SL_OK)
        return status;
    while (!report->stopped && (status = store_step(db, row, e)) > 0 &&
           (status = check_segment(db, sqlite3_column_int64(row, 0), sqlite3_column_int64(row, 1), report, e)) == SL_OK)
        ;
    store_done(db, row);
    return status < 0 ? status : SL_OK;
}

int sl_db_verify(struct sl_db *db, int (*fault)(const char *line, void *), void *user, struct sl_error *e)
{
    struct report report = {fault, user, 0};
    int status = store_run(db, "BEGIN", NULL, e); // all of it about one moment, while others write
    for (size_t i = 0; i < sizeof checks / sizeof *checks && status == SL_OK && !report.stopped; i++)
        status = run_check(db, checks[i], &report, e);
    if (status == SL_OK && !report.stopped)
        status = check_words(db, &report, e);
    if (status == SL_OK && !report.stopped)
        status = check_derivation(db, &report, e);
    sqlite3_exec(db->sqlite, "ROLLBACK", NULL, NULL, NULL);
    return status;
}

int sl_db_stats(struct sl_db *db, struct sl_db_stats *out, struct sl_error *e)
{
    int64_t version = 0, page_bytes = 0, pages = 0, free_pages = 0;
    const struct {
        const char *sql;
        int64_t *value;
    } figures[] = {
        {"PRAGMA user_version", &version},
        {"PRAGMA page_size", &page_bytes},
        {"PRAGMA page_count", &pages},
        {"PRAGMA freelist_count", &free_pages},
        {"SELECT count(*) FROM source", &out->sources},
        {"SELECT count(*) FROM media", &out->media},
        {"SELECT count(*) FROM segment", &out->segments},
        {"SELECT count(DISTINCT task) FROM claim", &out->tasks},
        {"SELECT count(*) FROM run", &out->runs},
        {"SELECT count(*) FROM window WHERE state = 'done'", &out->windows_done},
        {"SELECT count(*) FROM window WHERE state = 'failed'", &out->windows_failed},
        {"SELECT count(*) FROM window WHERE state = 'dropped'", &out->windows_dropped},
        {"SELECT count(*) FROM piece", &out->pieces},
        {"SELECT count(*) FROM event", &out->events},
    };
    *out = (struct sl_db_stats){0};
    for (size_t i = 0; i < sizeof figures / sizeof *figures; i++) {
        int status = store_value(db, figures[i].value, figures[i].sql, NULL, e);
        if (status < 0)
            return status;
    }
    out->schema_version = (int)version;
    out->file_bytes = pages * page_bytes;
    out->free_bytes = free_pages * page_bytes;
    return SL_OK;
}

int sl_db_models(struct sl_db *db, int (*row)(const struct sl_db_model *, void *), void *user, struct sl_error *e)
{
    sqlite3_stmt *found;
    int status = store_prepare(db, &found,
                               "SELECT name, hash, sum(state = 'done'), sum(state = 'failed'), sum(state = 'dropped'),"
                               " (SELECT count(*) FROM event WHERE event.model = model.id)"
                               " FROM model JOIN window ON window.model = model.id GROUP BY model.id"
                               " ORDER BY min(window.id)",
                               NULL, e);
    if (status != SL_OK)
        return status;
    while ((status = store_step(db, found, e)) > 0) {
        struct sl_db_model model = {
            .name = store_text(found, 0),
            .hash = store_text(found, 1),
            .windows_done = sqlite3_column_int64(found, 2),
            .windows_failed = sqlite3_column_int64(found, 3),
            .windows_dropped = sqlite3_column_int64(found, 4),
            .events = sqlite3_column_int64(found, 5),
        };
        if (row(&model, user))
            break;
    }
    store_done(db, found);
    return status < 0 ? status : SL_OK;
}
