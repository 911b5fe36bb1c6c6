// SPDX-License-Identifier: Apache-2.0
// Is the file whole, and does what is derived in it follow from the rest? And how much there is.
#include <stdio.h>

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
    "SELECT 'answers ' || a.id || ' and ' || b.id || ' overlap' FROM answer a JOIN answer b ON b.segment = a.segment"
    " AND b.task = a.task AND b.end_us > a.start_us AND b.start_us < a.end_us AND b.id > a.id LIMIT 20",
    "SELECT 'answer ' || answer.id || ' is not of the newest done window there' FROM answer JOIN window"
    " ON window.segment = answer.segment AND window.task = answer.task AND window.state = 'done'"
    " AND window.end_us > answer.start_us AND window.start_us < answer.end_us AND window.id > answer.window LIMIT 20",
    "SELECT 'answer ' || answer.id || ' reaches beyond its window, or that is not done' FROM answer JOIN window"
    " ON window.id = answer.window WHERE window.state <> 'done' OR answer.start_us < window.start_us"
    " OR answer.end_us > window.end_us OR window.segment <> answer.segment OR window.task <> answer.task LIMIT 20",
    "SELECT 'done window ' || window.id || ' is not answered for everywhere' FROM window WHERE state = 'done'"
    " AND end_us - start_us > (SELECT total(min(answer.end_us, window.end_us) - max(answer.start_us, window.start_us))"
    " FROM answer WHERE answer.segment = window.segment AND answer.task = window.task"
    " AND answer.end_us > window.start_us AND answer.start_us < window.end_us) LIMIT 20",
    "SELECT 'piece ' || piece.id || ' reaches beyond its window' FROM piece JOIN window ON window.id = piece.window"
    " WHERE piece.start_us < window.start_us OR piece.end_us > window.end_us LIMIT 20",
};

// FTS5 can check itself only under the write lock, which would stop writers for as long as it takes. So: index the
// events once more beside the file, and compare how many events and times each term has.
static const char *const words_again[] = {
    "CREATE VIRTUAL TABLE temp.again USING fts5 (text, content = '', columnsize = 0,"
    " tokenize = 'porter unicode61 remove_diacritics 2')", // as in schema.sql
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

static int check_derivation(struct sl_db *db, struct report *report, struct sl_error *e)
{
    sqlite3_stmt *row;
    int status = store_prepare(
        db, &row, "SELECT DISTINCT segment, task FROM answer UNION SELECT DISTINCT segment, task FROM event", NULL, e);
    if (status != SL_OK)
        return status;
    while (!report->stopped && (status = store_step(db, row, e)) > 0) {
        int64_t segment = sqlite3_column_int64(row, 0), task = sqlite3_column_int64(row, 1), differences = 0;
        status = derive_compare(db, segment, task, &differences, e);
        if (status != SL_OK)
            break;
        char line[128];
        snprintf(line, sizeof line, "segment %lld, task %lld: %lld differences between events and pieces",
                 (long long)segment, (long long)task, (long long)differences);
        if (differences)
            say(report, line);
    }
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
