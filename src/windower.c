// SPDX-License-Identifier: Apache-2.0
// Second stage: cuts the stream of samples into windows, resizes their pictures, and asks the engine.
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "src/stages.h"

struct windower {
    struct sl_run *run;
    struct sl_window *window; // the one being filled
    struct sl_hole *holes;    // those that reach beyond the last window
    int hole_count;
    int stretch;        // which of the run's is being read
    int64_t covered_us; // end of its last window
    int tone_mapping_said, hole_said;
};

// The end of the cell, or of the media where that is known. A last cell of less than one frame pair is no window of its
// own: the model would see a single moment; the window before it takes it in.
static int64_t window_end(const struct sl_run *run, int64_t start_us)
{
    const struct sl_window_rules *rules = run->job->rules;
    int64_t end_us = (start_us / rules->window_us + 1) * rules->window_us;
    int64_t limit_us = run->duration_us;
    if (run->job->to_us != SL_NO_TIME && (limit_us == SL_NO_TIME || run->job->to_us < limit_us)) {
        limit_us = run->job->to_us;
    }
    if (run->job->to_us != SL_NO_TIME && run->job->to_us < end_us) {
        return run->job->to_us;
    }
    return limit_us > end_us && limit_us - end_us < sl_window_pair_us(rules) ? limit_us : end_us;
}

static int begin_window(struct windower *w, int64_t start_us, int with_clip, struct sl_error *error)
{
    struct sl_run *run = w->run;
    const struct sl_window_rules *rules = run->job->rules;
    int64_t end_us = window_end(run, start_us);
    void *clip = NULL;
    if (with_clip && sl_fifo_pop(run->clips, &clip) != SL_OK) {
        return sl_fail(error, SL_ERR_INTERRUPTED, "interrupted");
    }
    if (clip != NULL) {
        int64_t sample_unit = rules->fps_den * 1000000;
        sl_clip_begin(clip, (int)(((end_us - start_us) * rules->fps_num + sample_unit - 1) / sample_unit));
    }
    return sl_window_create(start_us, end_us, clip, run->frames_per_window / 2 + 1, &w->window, error);
}

static int take_holes(struct windower *w, struct sl_error *error)
{
    int kept = 0;
    for (int i = 0; i < w->hole_count; i++) {
        struct sl_hole hole = w->holes[i];
        int status = sl_window_add_hole(w->window, hole.start_us, hole.end_us, hole.cause, error);
        if (status != SL_OK) {
            return status;
        }
        if (hole.end_us > w->window->end_us) {
            w->holes[kept++] = hole;
        }
    }
    w->hole_count = kept;
    return SL_OK;
}

static int ask(struct windower *w, struct sl_error *error)
{
    const struct sl_run *run = w->run;
    struct sl_eye *eye = sl_choice_now(&run->choice, 0); // files come one by one: nobody else has work
    for (;;) {
        int status = sl_window_submit(w->window, eye, run->stream, run->job->rules, run->media.source_name, error);
        if (status != SL_ERR_BUSY || atomic_load(&run->stopping)) {
            return status;
        }
        nanosleep(&(struct timespec){.tv_nsec = 10000000}, NULL); // the engine serves others too: its list is full
    }
}

// A fault of the machine ends the run; one of this window alone becomes its row.
static int ends_run(int status)
{
    return status == SL_ERR_MEMORY || status == SL_ERR_DEVICE || status == SL_ERR_INTERNAL ||
           status == SL_ERR_INTERRUPTED;
}

// Asks the engine and hands the window to the writer.
static int end_window(struct windower *w, struct sl_error *error)
{
    int status = take_holes(w, error);
    if (status == SL_OK && w->window->clip != NULL) {
        status = ask(w, error);
    }
    if (status != SL_OK && ends_run(status)) {
        return status;
    }
    if (!w->window->submitted) {
        w->window->answer.finish = SL_FINISH_FAILED;
        if (status != SL_OK) {
            w->window->answer.error = *error;
        } else {
            sl_fail(&w->window->answer.error, SL_ERR_TRUNCATED, "no picture could be decoded");
        }
        w->window->answered = 1;
    }
    int64_t end_us = w->window->end_us; // the writer may free the window at once
    if (sl_fifo_push(w->run->windows, w->window) != SL_OK) {
        return sl_fail(error, SL_ERR_INTERRUPTED, "interrupted");
    }
    w->covered_us = end_us;
    w->window = NULL;
    return SL_OK;
}

static void say_tone_mapping(struct windower *w, const struct sl_frame *frame)
{
    if (frame->transfer != SL_TRANSFER_SDR && !w->tone_mapping_said) {
        w->tone_mapping_said = 1;
        sl_run_note(w->run, frame->transfer == SL_TRANSFER_PQ ? "HDR (PQ) is shown to the model tone-mapped"
                                                              : "HDR (HLG) is shown to the model tone-mapped");
    }
}

static int take_sample(struct windower *w, const struct sl_sample *sample, struct sl_error *error)
{
    int status = SL_OK;
    say_tone_mapping(w, sample->frame);
    if (w->window != NULL && sample->sample_us >= w->window->end_us) {
        status = end_window(w, error);
    }
    if (status == SL_OK && w->window == NULL) {
        int64_t window_us = w->run->job->rules->window_us;
        int64_t cell_us = sample->sample_us / window_us * window_us;
        int64_t from_us = w->run->stretches[w->stretch].from_us;     // before it nothing is shown
        from_us = w->covered_us > from_us ? w->covered_us : from_us; // a media longer than stated goes on behind it
        status = begin_window(w, cell_us > from_us ? cell_us : from_us, 1, error);
    }
    return status == SL_OK ? sl_window_add(w->window, w->run->stream, sample, error) : status;
}

// Once: coverage has them all.
static void say_hole(struct windower *w, const struct sl_hole *hole)
{
    if (!w->hole_said) {
        w->hole_said = 1;
        char line[200];
        snprintf(line, sizeof line,
                 "at %.3f s pictures are lost or damaged (%s); 'scenelog check' shows all such spans",
                 (double)hole->start_us / 1e6, hole->cause);
        sl_run_note(w->run, line);
    }
}

static int take_hole(struct windower *w, const struct sl_hole *hole, struct sl_error *error)
{
    say_hole(w, hole);
    struct sl_hole *grown = realloc(w->holes, ((size_t)w->hole_count + 1) * sizeof *grown);
    if (grown == NULL) {
        return sl_fail(error, SL_ERR_MEMORY, "out of memory");
    }
    w->holes = grown;
    w->holes[w->hole_count++] = *hole;
    return SL_OK;
}

// From `from_us` on the media goes on, as it says, but there are no pictures: known to have failed, as one window, for
// a media may say that it goes on for a thousand years.
static int fail_rest(struct windower *w, int64_t from_us, int64_t end_us, struct sl_error *error)
{
    if (from_us >= end_us) {
        return SL_OK;
    }
    int status = begin_window(w, from_us, 0, error);
    if (status != SL_OK) {
        return status;
    }
    w->window->end_us = end_us;
    return end_window(w, error);
}

// The stretch's pictures end at end_us; a hole may reach beyond, to where the media says that it ends.
static int take_break(struct windower *w, int64_t end_us, struct sl_error *error)
{
    int64_t media_end_us = end_us;
    for (int i = 0; i < w->hole_count; i++) {
        media_end_us = w->holes[i].end_us > media_end_us ? w->holes[i].end_us : media_end_us;
    }
    int64_t covered_us = end_us;
    int status = SL_OK;
    if (w->window != NULL) {
        struct sl_window *window = w->window;
        if (window->end_us > media_end_us) {
            window->end_us = media_end_us;
        } else if (window->end_us < end_us) {
            window->end_us = end_us; // pictures end later than stated, but before another sample
        }
        window->shown_us = window->end_us < end_us ? window->end_us : end_us;
        covered_us = window->end_us;
        status = end_window(w, error);
    }
    if (status == SL_OK && media_end_us > end_us) {
        atomic_store(&w->run->truncated, 1);
        status = fail_rest(w, covered_us, media_end_us, error);
    }
    // Asked for from somewhere behind the end, decode/ does not tell where that is.
    if (w->covered_us > 0 || media_end_us <= w->run->duration_us) {
        atomic_store(&w->run->end_us, media_end_us);
    }
    w->hole_count = 0;
    w->covered_us = 0;
    w->stretch++;
    return status;
}

static int take_item(struct windower *w, const struct sl_item *item, struct sl_error *error)
{
    switch (item->kind) {
    case SL_ITEM_SAMPLE:
        return take_sample(w, &item->sample, error);
    case SL_ITEM_HOLE:
        return take_hole(w, &item->hole, error);
    case SL_ITEM_BREAK:
        break;
    }
    return take_break(w, item->end_us, error);
}

void *sl_windower_thread(void *pointer)
{
    struct windower w = {.run = pointer};
    struct sl_error error = {0};
    int status = SL_OK;
    void *item = NULL;
    while (status == SL_OK && sl_fifo_pop(w.run->samples, &item) == SL_OK) {
        status = take_item(&w, item, &error);
        sl_item_drop(item);
    }
    if (status != SL_OK && status != SL_ERR_INTERRUPTED) {
        sl_run_stop(w.run, &error);
    }
    if (w.window != NULL && !w.window->submitted) {
        sl_window_destroy(w.window); // not full yet when the run was stopped
    }
    free(w.holes);
    sl_fifo_close(w.run->windows);
    return NULL;
}
