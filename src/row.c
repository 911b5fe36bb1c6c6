// SPDX-License-Identifier: Apache-2.0
#include "src/row.h"

#include <stdlib.h>

static void fail_row(struct sl_row *row, const char *raw_text)
{
    row->db.state = SL_DB_FAILED;
    row->db.cause = row->cause.text;
    row->db.raw_text = raw_text;
}

static int fill_pieces(struct sl_row *row, const struct sl_window *window, struct sl_error *error)
{
    const struct sl_answer *answer = &window->answer;
    row->pieces = calloc(row->events.count + 1, sizeof *row->pieces);
    if (row->pieces == NULL) {
        return sl_fail(error, SL_ERR_MEMORY, "out of memory");
    }
    for (size_t i = 0; i < row->events.count; i++) {
        const struct sl_event *event = &row->events.events[i];
        row->pieces[i] = (struct sl_db_piece){
            .start_us = window->start_us + event->start_us,
            .end_us = window->start_us + event->end_us,
            .text = event->text,
            .confidence = sl_event_confidence(answer->logprobs, answer->text_ends, (size_t)answer->generated_tokens,
                                              event->text_begin, event->text_end),
        };
    }
    row->db.pieces = row->pieces;
    row->db.piece_count = (int64_t)row->events.count;
    return SL_OK;
}

// An answer that was cut by its length or number says nothing about what came after the last event it began.
static int note_cut(const struct sl_row *row, struct sl_window *window, struct sl_error *error)
{
    int64_t from_us = window->start_us;
    for (size_t i = 0; i < row->events.count; i++) {
        int64_t start_us = window->start_us + row->events.events[i].start_us;
        from_us = start_us > from_us ? start_us : from_us;
    }
    return sl_window_add_hole(window, from_us, window->end_us, "answer cut at its longest", error);
}

int sl_row_fill(struct sl_row *row, struct sl_window *window, const struct sl_model *meant, struct sl_error *error)
{
    const struct sl_answer *answer = &window->answer;
    const struct sl_model *model = window->model != NULL ? window->model : meant;
    row->db = (struct sl_db_window){
        .start_us = window->start_us,
        .end_us = window->end_us,
        .state = SL_DB_DONE,
        .model_name = model->name,
        .model_hash = model->hash,
        .frames_seen = window->frames,
        .pairs_skipped = window->pairs_skipped,
        .prompt_tokens = answer->prompt_tokens,
        .generated_tokens = answer->generated_tokens,
        .elapsed_ms = (answer->prefill_us + answer->decode_us) / 1000,
    };
    int status = SL_OK;
    if (answer->finish == SL_FINISH_FAILED || answer->finish == SL_FINISH_CANCELLED) {
        row->cause = answer->error;
        fail_row(row, answer->text != NULL && *answer->text != 0 ? answer->text : NULL);
    } else if (sl_event_parse(answer->text, answer->size_bytes, window->grammar.window_us, &row->events, &row->cause) !=
               SL_OK) {
        fail_row(row, answer->text);
    } else {
        status = fill_pieces(row, window, error);
        if (status == SL_OK && (answer->finish == SL_FINISH_LENGTH || row->events.count >= SL_WINDOW_MAX_EVENTS)) {
            status = note_cut(row, window, error);
        }
    }
    row->db.holes = window->holes;
    row->db.hole_count = window->hole_count;
    return status;
}

void sl_row_finish(struct sl_row *row)
{
    sl_event_list_finish(&row->events);
    free(row->pieces);
}
