// SPDX-License-Identifier: Apache-2.0
// Windows: committing them, and which are done already.
#include <stdlib.h>
#include <string.h>

#include "db/claim.h"
#include "db/derive.h"
#include "db/store.h"
#include "db/text.h"

static const char *const state_names[] = {"done", "failed", "dropped"};

// A piece on its way into the file.
struct draft {
    int64_t start_us, end_us, key;
    double confidence;
    const char *text;
};

static int by_key_and_start(const void *left, const void *right)
{
    const struct draft *a = left, *b = right;
    if (a->key != b->key)
        return a->key < b->key ? -1 : 1;
    if (a->start_us != b->start_us)
        return a->start_us < b->start_us ? -1 : 1;
    return strcmp(a->text, b->text);
}

static int by_start(const void *left, const void *right)
{
    const struct draft *a = left, *b = right;
    if (a->start_us != b->start_us)
        return a->start_us < b->start_us ? -1 : 1;
    if (a->end_us != b->end_us)
        return a->end_us < b->end_us ? -1 : 1;
    return strcmp(a->text, b->text);
}

// The same text over overlapping or touching spans is one piece, of the earliest's text and the least known
// confidence. Leaves the drafts in the order of time; returns how many there are.
static int64_t merge_repeats(struct draft *drafts, int64_t count)
{
    if (!count)
        return 0;
    qsort(drafts, (size_t)count, sizeof *drafts, by_key_and_start);
    int64_t last = 0;
    for (int64_t i = 1; i < count; i++) {
        struct draft *into = &drafts[last], *from = &drafts[i];
        if (from->key != into->key || from->start_us > into->end_us) {
            drafts[++last] = *from;
            continue;
        }
        if (from->end_us > into->end_us)
            into->end_us = from->end_us;
        if (from->confidence >= 0 && (into->confidence < 0 || from->confidence < into->confidence))
            into->confidence = from->confidence;
    }
    qsort(drafts, (size_t)last + 1, sizeof *drafts, by_start);
    return last + 1;
}

static int is_inside(const struct sl_db_window *window, int64_t start_us, int64_t end_us)
{
    return window->start_us <= start_us && start_us < end_us && end_us <= window->end_us;
}

static int draft_pieces(const struct sl_db_window *window, struct draft *drafts, struct sl_error *e)
{
    for (int64_t i = 0; i < window->piece_count; i++) {
        const struct sl_db_piece *piece = &window->pieces[i];
        if (!is_inside(window, piece->start_us, piece->end_us) || !piece->text[0])
            return sl_fail(e, SL_ERR_INTERNAL, "piece %lld [%lld, %lld) us is empty or not inside its window",
                           (long long)i, (long long)piece->start_us, (long long)piece->end_us);
        drafts[i] = (struct draft){piece->start_us, piece->end_us, 0, piece->confidence, piece->text};
        int status = text_key(piece->text, &drafts[i].key, e);
        if (status != SL_OK)
            return status;
    }
    return SL_OK;
}

static int check_window(const struct sl_db_window *window, struct sl_error *e)
{
    int done = window->state == SL_DB_DONE;
    if (window->start_us >= window->end_us || done != !window->cause || (!done && window->piece_count))
        return sl_fail(e, SL_ERR_INTERNAL, "window [%lld, %lld) us: bad span, or cause or pieces against its state",
                       (long long)window->start_us, (long long)window->end_us);
    for (int64_t i = 0; i < window->hole_count; i++)
        if (!is_inside(window, window->holes[i].start_us, window->holes[i].end_us))
            return sl_fail(e, SL_ERR_INTERNAL, "hole %lld is empty or not inside its window", (long long)i);
    return SL_OK;
}

// The claim is ours and the segment is of its source.
static int check_claim(struct sl_db *db, const struct sl_db_claim *claim, int64_t segment, struct sl_error *e)
{
    int status = claim_keep(db, claim, e);
    if (status != SL_OK)
        return status;
    int64_t source = 0;
    status = store_value(db, &source,
                         "SELECT source FROM segment JOIN media ON media.id = segment.media WHERE segment.id = ?1",
                         BIND(bind_int(segment)), e);
    if (status >= 0 && source != claim->source)
        return sl_fail(e, SL_ERR_INTERNAL, "segment %lld is not of the claimed source", (long long)segment);
    return status < 0 ? status : SL_OK;
}

static int insert_window(struct sl_db *db, int64_t task, const struct sl_db_window *window, int64_t *id,
                         struct sl_error *e)
{
    int64_t model;
    int status = store_find_or_insert(db, &model, "SELECT id FROM model WHERE name = ?1 AND hash = ?2",
                                      "INSERT INTO model (name, hash) VALUES (?1, ?2)",
                                      BIND(bind_text(window->model_name), bind_text(window->model_hash)), e);
    if (status != SL_OK)
        return status;
    status = store_run(db,
                       "INSERT INTO window (segment, task, run, model, start_us, end_us, state, cause, frames_seen,"
                       " pairs_skipped, prompt_tokens, generated_tokens, elapsed_ms, raw_text, committed_us)"
                       " VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15)",
                       BIND(bind_int(window->segment), bind_int(task), bind_int(window->run), bind_int(model),
                            bind_int(window->start_us), bind_int(window->end_us), bind_text(state_names[window->state]),
                            bind_text(window->cause), bind_int(window->frames_seen), bind_int(window->pairs_skipped),
                            bind_int(window->prompt_tokens), bind_int(window->generated_tokens),
                            bind_int(window->elapsed_ms), bind_text(window->raw_text), bind_int(store_now_us())),
                       e);
    *id = sqlite3_last_insert_rowid(db->sqlite);
    return status;
}

static int insert_holes(struct sl_db *db, int64_t window, const struct sl_db_hole *holes, int64_t count,
                        struct sl_error *e)
{
    int status = SL_OK;
    for (int64_t i = 0; i < count && status == SL_OK; i++)
        status = store_run(
            db, "INSERT INTO hole (window, start_us, end_us, cause) VALUES (?1, ?2, ?3, ?4)",
            BIND(bind_int(window), bind_int(holes[i].start_us), bind_int(holes[i].end_us), bind_text(holes[i].cause)),
            e);
    return status;
}

static int insert_pieces(struct sl_db *db, int64_t window, const struct draft *drafts, int64_t count,
                         struct sl_error *e)
{
    int status = SL_OK;
    for (int64_t i = 0; i < count && status == SL_OK; i++)
        status = store_run(db,
                           "INSERT INTO piece (window, start_us, end_us, text, text_key, confidence)"
                           " VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
                           BIND(bind_int(window), bind_int(drafts[i].start_us), bind_int(drafts[i].end_us),
                                bind_text(drafts[i].text), bind_int(drafts[i].key), bind_real(drafts[i].confidence)),
                           e);
    return status;
}

// What the same span had before: of a done window everything, of another one only what is not done either.
static int delete_older(struct sl_db *db, int64_t task, const struct sl_db_window *window, int64_t id,
                        struct sl_error *e)
{
    return store_run(db,
                     "DELETE FROM window WHERE segment = ?1 AND task = ?2 AND start_us = ?3 AND end_us = ?4"
                     " AND id < ?5 AND (?6 OR state <> 'done')",
                     BIND(bind_int(window->segment), bind_int(task), bind_int(window->start_us),
                          bind_int(window->end_us), bind_int(id), bind_int(window->state == SL_DB_DONE)),
                     e);
}

static int write_window(struct sl_db *db, const struct sl_db_claim *claim, const struct sl_db_window *window,
                        const struct draft *drafts, int64_t draft_count, struct sl_error *e)
{
    int64_t id;
    int status = check_claim(db, claim, window->segment, e);
    if (status == SL_OK)
        status = insert_window(db, claim->task, window, &id, e);
    if (status == SL_OK)
        status = insert_holes(db, id, window->holes, window->hole_count, e);
    if (status == SL_OK)
        status = insert_pieces(db, id, drafts, draft_count, e);
    if (status == SL_OK && window->state == SL_DB_DONE)
        status = derive_answer(db, window->segment, claim->task, id, window->start_us, window->end_us, e);
    else if (status == SL_OK)
        status = derive_again(db, window->segment, claim->task, window->start_us, window->end_us, e);
    if (status == SL_OK)
        status = delete_older(db, claim->task, window, id, e);
    if (status == SL_OK && window->state == SL_DB_DONE)
        status =
            store_run(db, "UPDATE claim SET answered_us = ?3 WHERE source = ?1 AND task = ?2 AND answered_us IS NULL",
                      BIND(bind_int(claim->source), bind_int(claim->task), bind_int(store_now_us())), e);
    return status;
}

int sl_db_commit(struct sl_db *db, const struct sl_db_claim *claim, const struct sl_db_window *window,
                 struct sl_error *e)
{
    int status = check_window(window, e);
    if (status != SL_OK)
        return status;
    struct draft *drafts = calloc((size_t)window->piece_count + 1, sizeof *drafts);
    if (!drafts)
        return sl_fail(e, SL_ERR_MEMORY, "committing a window: out of memory");
    status = draft_pieces(window, drafts, e);
    int64_t count = status == SL_OK ? merge_repeats(drafts, window->piece_count) : 0;
    if (status == SL_OK)
        status = store_begin(db, e);
    if (status == SL_OK)
        status = store_end(db, write_window(db, claim, window, drafts, count, e), e);
    free(drafts);
    return status;
}

int sl_db_is_done(struct sl_db *db, int64_t segment, int64_t task, int64_t start_us, int64_t end_us, int *done,
                  struct sl_error *e)
{
    // Behind the segment's end there is nothing to do: a stated length may be longer than the pictures.
    sqlite3_stmt *row;
    int status = store_value(db, &end_us, "SELECT min(?2, end_us) FROM segment WHERE id = ?1 AND end_us IS NOT NULL",
                             BIND(bind_int(segment), bind_int(end_us)), e);
    if (status < 0)
        return status;
    status = store_prepare(db, &row,
                           "SELECT start_us, end_us FROM answer WHERE segment = ?1 AND task = ?2 AND end_us > ?3"
                           " ORDER BY end_us",
                           BIND(bind_int(segment), bind_int(task), bind_int(start_us)), e);
    if (status != SL_OK)
        return status;
    // Answers follow each other without overlap: walk on from the start while there is no gap.
    while (start_us < end_us && (status = store_step(db, row, e)) > 0 && sqlite3_column_int64(row, 0) <= start_us)
        start_us = sqlite3_column_int64(row, 1);
    store_done(db, row);
    *done = start_us >= end_us;
    return status < 0 ? status : SL_OK;
}

int sl_db_done_until(struct sl_db *db, int64_t segment, int64_t task, int64_t *end_us, struct sl_error *e)
{
    *end_us = SL_NO_TIME;
    int status = store_value(db, end_us, "SELECT max(end_us) FROM answer WHERE segment = ?1 AND task = ?2",
                             BIND(bind_int(segment), bind_int(task)), e);
    return status < 0 ? status : SL_OK;
}
