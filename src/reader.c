// SPDX-License-Identifier: Apache-2.0
// First stage: which stretches of the media are still to be done, and their samples and holes in time order.
#include <stdlib.h>

#include "core/device.h"
#include "src/decoding.h"
#include "src/model.h"
#include "src/stages.h"

void sl_item_drop(void *pointer)
{
    struct sl_item *item = pointer;
    if (item->kind == SL_ITEM_SAMPLE) {
        sl_frame_unref(item->sample.frame);
    }
    free(item);
}

// ---- Planning: windows lie in cells [k, k + 1) * window_us, whatever --from says, so that runs add up.

static int is_done(const struct sl_run *run, int64_t from_us, int64_t to_us, int *done, struct sl_error *error)
{
    *done = 0;
    if (run->job->force) {
        return SL_OK;
    }
    return sl_db_is_done(run->job->db, run->segment, run->job->task, from_us, to_us, done, error);
}

static int add_stretch(struct sl_run *run, int64_t from_us, int64_t to_us, struct sl_error *error)
{
    struct sl_stretch *grown = realloc(run->stretches, ((size_t)run->stretch_count + 1) * sizeof *grown);
    if (grown == NULL) {
        return sl_fail(error, SL_ERR_MEMORY, "out of memory");
    }
    run->stretches = grown;
    run->stretches[run->stretch_count++] = (struct sl_stretch){.from_us = from_us, .to_us = to_us};
    return SL_OK;
}

// The cells from *at_us to limit_us, which *at_us is then. Behind it *open_from_us is where an unfinished stretch
// began.
static int plan_cells(struct sl_run *run, int64_t limit_us, int64_t *at_us, int64_t *open_from_us,
                      struct sl_error *error)
{
    int64_t window_us = run->job->rules->window_us;
    while (*at_us < limit_us) {
        int64_t cell_end_us = (*at_us / window_us + 1) * window_us;
        int64_t end_us = cell_end_us < limit_us ? cell_end_us : limit_us;
        int done = 0;
        int status = is_done(run, *at_us, end_us, &done, error);
        if (status == SL_OK && done && *open_from_us != SL_NO_TIME) {
            status = add_stretch(run, *open_from_us, *at_us, error);
            *open_from_us = SL_NO_TIME;
        }
        if (status != SL_OK) {
            return status;
        }
        if (done) {
            atomic_fetch_add(&run->progress->windows_skipped, 1);
        } else if (*open_from_us == SL_NO_TIME) {
            *open_from_us = *at_us;
        }
        *at_us = end_us;
    }
    return SL_OK;
}

int sl_reader_plan(struct sl_run *run, struct sl_error *error)
{
    const struct sl_pipeline *job = run->job;
    int64_t at_us = job->from_us != SL_NO_TIME ? job->from_us : 0;
    int64_t limit_us = job->to_us != SL_NO_TIME ? job->to_us : run->duration_us;
    int64_t done_until_us = SL_NO_TIME;
    int64_t open_from_us = SL_NO_TIME;
    int status = sl_db_done_until(job->db, run->segment, job->task, &done_until_us, error);
    if (status == SL_OK && done_until_us != SL_NO_TIME) {
        // No further cell by cell: the limit may be a thousand years away, or not stated. A cell done in part is done
        // again as a whole.
        int64_t window_us = job->rules->window_us;
        int64_t last_us = (done_until_us + window_us - 1) / window_us * window_us;
        status = plan_cells(run, limit_us != SL_NO_TIME && limit_us < last_us ? limit_us : last_us, &at_us,
                            &open_from_us, error);
    }
    // Behind that, and where no end is stated or a wrong one, it is done only if the index knows where the media ends.
    if (status == SL_OK && (at_us < limit_us || job->to_us == SL_NO_TIME)) {
        int done = 0;
        status = is_done(run, at_us, job->to_us != SL_NO_TIME ? job->to_us : INT64_MAX, &done, error);
        open_from_us = open_from_us == SL_NO_TIME && !done ? at_us : open_from_us;
    }
    run->reaches_end = job->to_us == SL_NO_TIME && open_from_us != SL_NO_TIME;
    return status == SL_OK && open_from_us != SL_NO_TIME ? add_stretch(run, open_from_us, job->to_us, error) : status;
}

// ---- Reading

static int push(struct sl_run *run, const struct sl_item *item, struct sl_error *error)
{
    struct sl_item *copy = malloc(sizeof *copy);
    if (copy == NULL) {
        return sl_fail(error, SL_ERR_MEMORY, "out of memory");
    }
    *copy = *item;
    if (sl_fifo_push(run->samples, copy) != SL_OK) {
        free(copy);
        return sl_fail(error, SL_ERR_INTERRUPTED, "interrupted");
    }
    return SL_OK;
}

static int push_holes(struct sl_run *run, struct sl_source *source, struct sl_error *error)
{
    struct sl_item item = {.kind = SL_ITEM_HOLE};
    int status = SL_OK;
    while (status == SL_OK && sl_source_next_hole(source, &item.hole)) {
        status = push(run, &item, error);
    }
    return status;
}

// Holes first: they are known before the samples inside them.
static int read_one(struct sl_run *run, struct sl_source *source, struct sl_error *error)
{
    struct sl_item item = {.kind = SL_ITEM_SAMPLE};
    int status = sl_source_next(source, &item.sample, error);
    if (status < 0) {
        return status;
    }
    int pushed = push_holes(run, source, error);
    if (status == SL_END) {
        item = (struct sl_item){.kind = SL_ITEM_BREAK, .end_us = sl_source_end_us(source)};
    }
    if (pushed == SL_OK) {
        pushed = push(run, &item, error);
    }
    if (pushed != SL_OK) {
        sl_frame_unref(item.kind == SL_ITEM_SAMPLE ? item.sample.frame : NULL);
        return pushed;
    }
    return status;
}

static int read_stretch(struct sl_run *run, const struct sl_stretch *stretch, const struct sl_source_options *decoder,
                        struct sl_error *error)
{
    struct sl_source_options options = *decoder;
    options.from_us = stretch->from_us;
    options.to_us = stretch->to_us;
    options.interrupted = sl_run_must_stop;
    options.note = sl_run_note;
    options.ctx = run;
    struct sl_source *source = NULL;
    int status = sl_source_open(run->job->path, &options, &source, error);
    while (status == SL_OK) {
        status = read_one(run, source, error);
    }
    sl_source_close(source);
    return status == SL_END ? SL_OK : status;
}

void *sl_reader_thread(void *pointer)
{
    struct sl_run *run = pointer;
    struct sl_error error = {0};
    struct sl_decoding decoding;
    struct sl_source_options options;
    int status = sl_decoding_open(run->job, &decoding, &options, &error);
    for (int i = 0; i < run->stretch_count && status == SL_OK; i++) {
        status = read_stretch(run, &run->stretches[i], &options, &error);
    }
    sl_decoding_close(&decoding);
    if (status != SL_OK && status != SL_ERR_INTERRUPTED) {
        sl_run_stop(run, &error);
    }
    sl_fifo_close(run->samples);
    return NULL;
}
