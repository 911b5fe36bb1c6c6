// SPDX-License-Identifier: Apache-2.0
// A window: the unit of work, of progress and of recovery. Its life: cut from the stream of samples (windowing thread),
// asked of the engine, answered (engine's thread), turned into pieces and committed (writing thread).
#ifndef SL_SRC_WINDOW_H
#define SL_SRC_WINDOW_H

#include <pthread.h>

#include "db/db.h"
#include "src/clip.h"

// What was asked of every window; the task of the index, and how to decode.
struct sl_window_rules {
    int64_t fps_num, fps_den;
    int64_t window_us;
    const char *prompt;      // the request's text
    int max_tokens_per_pair; // 0: no limit of the user's
    int skip_still;          // 1: pairs that are still, by still_level, are not shown
    float still_level;       // as of src/still.h
    int max_new_tokens;
    int fixed_length;            // 1, for measuring: answers of exactly max_new_tokens tokens, which count as "{}"
    struct sl_sampling sampling; // seed: the user's; each window's own is drawn from it. top_p 0: it and top_k are what
                                 // the model's makers advise
};

int64_t sl_window_pair_us(const struct sl_window_rules *rules); // one frame-pair period, 2 / fps
int sl_window_frames(const struct sl_window_rules *rules);      // the most frames of one window

enum { SL_WINDOW_MAX_EVENTS = 100, SL_WINDOW_MAX_TEXT_BYTES = 600 };

// Which models a source's windows go to.
struct sl_choice {
    struct sl_eye *eye;   // of the model that they go to,
    struct sl_eye *other; // of the one that takes them while the first is busy and it has nothing to do; NULL: none
};
// The one that a full window goes to now. other_works: `other` has windows of its own to see to.
struct sl_eye *sl_choice_now(const struct sl_choice *choice, int other_works);
int sl_eye_has_room(const struct sl_eye *eye); // its model could take another window into work at once

struct sl_window {
    int64_t start_us, end_us;     // media time
    int64_t shown_us;             // where its pictures end: end_us, or earlier when the file does
    struct sl_clip *clip;         // NULL when there are no pictures
    struct sl_prompt_pair *pairs; // [pair capacity]; those that are kept, once laid out
    int frames, pairs_skipped;
    struct sl_db_hole *holes; // causes are constants
    int hole_count;

    struct sl_model *model; // that it was given to; NULL before
    int laid_out;
    struct sl_prompt prompt;
    struct sl_answer_grammar grammar;
    uint64_t ticket;
    int submitted;
    int fixed_length; // as the rules say

    // Written by the engine's thread under the lock, read once `answered`.
    pthread_mutex_t lock;
    pthread_cond_t change;
    int answered;
    struct sl_answer answer; // text, logprobs and text_ends are the window's own copies; the others are NULL
};

// pair_capacity: frame pairs of a full window.
int sl_window_create(int64_t start_us, int64_t end_us, struct sl_clip *clip, int pair_capacity, struct sl_window **out,
                     struct sl_error *error);
void sl_window_destroy(
    struct sl_window *window); // not before it is answered, if submitted; accepts NULL; keeps the clip

int sl_window_add(struct sl_window *window, struct sl_stream *stream, const struct sl_sample *sample,
                  struct sl_error *error);
// Keeps the part of the hole that lies in [start_us, end_us), as it is now.
int sl_window_add_hole(struct sl_window *window, int64_t start_us, int64_t end_us, const char *cause,
                       struct sl_error *error);

// All samples are in: lays out the prompt for the eye's model and submits. `source` and the window's start go into its
// seed. Call again while the engine is busy; it stays with the model of the first call.
int sl_window_submit(struct sl_window *window, struct sl_eye *eye, struct sl_stream *stream,
                     const struct sl_window_rules *rules, const char *source, struct sl_error *error);
// Waits up to `timeout_ms` for the answer: 1 when it is there.
int sl_window_wait(struct sl_window *window, int timeout_ms);

#endif
