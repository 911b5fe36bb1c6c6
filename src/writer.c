// SPDX-License-Identifier: Apache-2.0
// Third stage: waits for the windows' answers in time order, reads events out of them, and commits.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "src/row.h"
#include "src/stages.h"
#include "src/timing.h"

enum { WAIT_MS = 100, HEARTBEAT_MS = 5000 };

struct writer {
    struct sl_run *run;
    int64_t last_beat_ms;
};

// Keeps the claim alive; stops the run when it is lost. Called often, whatever is waited for.
static int beat(struct writer *w, struct sl_error *error)
{
    if (sl_timing_now_ms() - w->last_beat_ms <= HEARTBEAT_MS) {
        return SL_OK;
    }
    w->last_beat_ms = sl_timing_now_ms();
    int status = sl_db_heartbeat(w->run->job->db, &w->run->claim, error);
    if (status != SL_OK) {
        sl_run_stop(w->run, error);
    }
    return status;
}

// Waits for the answer, even when the claim is lost: the engine still holds the window. Cancels it when the run stops.
static int await(struct writer *w, struct sl_window *window, struct sl_error *error)
{
    int cancelled = 0;
    int status = SL_OK;
    for (;;) {
        int stopping = sl_run_must_stop(w->run); // seen even when no window has to be waited for
        if (stopping && window->submitted && !cancelled) {
            sl_engine_cancel(window->model->engine, window->ticket);
            cancelled = 1;
        }
        if (!window->submitted || sl_window_wait(window, WAIT_MS)) {
            return status;
        }
        status = status == SL_OK ? beat(w, error) : status;
    }
}

// ---- Committing

static void count(struct sl_run *run, const struct sl_row *row)
{
    struct sl_pipeline_progress *progress = run->progress;
    if (row->db.state == SL_DB_DONE) {
        atomic_fetch_add(&progress->windows_done, 1);
    } else {
        atomic_fetch_add(&progress->windows_failed, 1);
        char line[640];
        snprintf(line, sizeof line, "window at %.3f s failed: %s", (double)row->db.start_us / 1e6, row->db.cause);
        sl_run_note(run, line);
    }
    atomic_fetch_add(&progress->events, row->db.piece_count);
    atomic_fetch_add(&progress->generated_tokens, row->db.generated_tokens);
    atomic_fetch_add(&progress->prompt_tokens, row->db.prompt_tokens);
    atomic_store(&progress->media_us, row->db.end_us);
}

static int commit(struct writer *w, struct sl_window *window, struct sl_error *error)
{
    struct sl_row row = {0};
    int status = sl_row_fill(&row, window, sl_eye_model(w->run->choice.eye), error);
    row.db.segment = w->run->segment;
    row.db.run = w->run->job->run;
    if (status == SL_OK) {
        status = sl_db_commit(w->run->job->db, &w->run->claim, &row.db, error);
        w->last_beat_ms = sl_timing_now_ms();
    }
    if (status == SL_OK) {
        count(w->run, &row);
    }
    sl_row_finish(&row);
    return status;
}

// ---- The thread

static int finish_media(struct sl_run *run, struct sl_error *error)
{
    int64_t end_us = atomic_load(&run->end_us);
    if (!run->reaches_end || end_us == SL_NO_TIME || atomic_load(&run->stopping)) {
        return SL_OK;
    }
    return sl_db_segment_end(run->job->db, run->segment, end_us, error);
}

// Commits the window once it is answered, unless something went wrong before, and gives its clip back.
static int take_window(struct writer *w, struct sl_window *window, int status, struct sl_error *error)
{
    struct sl_run *run = w->run;
    int waited = await(w, window, error);
    status = status == SL_OK ? waited : status;
    int abandoned = window->answer.finish == SL_FINISH_CANCELLED && atomic_load(&run->stopping);
    if (status == SL_OK && !abandoned) {
        status = commit(w, window, error);
        if (status != SL_OK) {
            sl_run_stop(run, error);
        }
    }
    if (window->clip != NULL) {
        (void)sl_fifo_push(run->clips, window->clip); // cancelled: the run owns all clips and frees them
    }
    sl_window_destroy(window);
    return status;
}

void *sl_writer_thread(void *pointer)
{
    struct writer w = {.run = pointer, .last_beat_ms = sl_timing_now_ms()};
    struct sl_run *run = w.run;
    struct sl_error error = {0};
    int status = SL_OK;
    int popped = SL_OK;
    // Goes on after a fault, without committing: the windows in flight must be awaited before they are freed.
    while (popped != SL_END) {
        void *window = NULL;
        popped = sl_fifo_pop_within(run->windows, WAIT_MS, &window);
        if (popped == SL_OK) {
            status = take_window(&w, window, status, &error);
        } else if (popped == SL_ERR_BUSY && status == SL_OK) {
            status = beat(&w, &error);
        }
    }
    if (status == SL_OK) {
        status = finish_media(run, &error);
        if (status != SL_OK) {
            sl_run_stop(run, &error);
        }
    }
    atomic_store(&run->written, 1);
    return NULL;
}
