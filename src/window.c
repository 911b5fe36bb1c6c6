// SPDX-License-Identifier: Apache-2.0
#include "src/window.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "core/hash.h"

int64_t sl_window_pair_us(const struct sl_window_rules *rules)
{
    return 2000000 * rules->fps_den / rules->fps_num;
}

int sl_window_frames(const struct sl_window_rules *rules)
{
    int64_t longest_us = rules->window_us + sl_window_pair_us(rules); // with a short last cell taken in
    int64_t sample_unit = rules->fps_den * 1000000;
    return (int)((longest_us * rules->fps_num + sample_unit - 1) / sample_unit) + 1;
}

int sl_window_create(int64_t start_us, int64_t end_us, struct sl_clip *clip, int pair_capacity, struct sl_window **out,
                     struct sl_error *error)
{
    struct sl_window *window = calloc(1, sizeof *window);
    struct sl_prompt_pair *pairs = calloc((size_t)pair_capacity, sizeof *pairs);
    if (window == NULL || pairs == NULL) {
        free(window);
        free(pairs);
        return sl_fail(error, SL_ERR_MEMORY, "out of memory");
    }
    window->start_us = start_us;
    window->end_us = end_us;
    window->shown_us = end_us;
    window->clip = clip;
    window->pairs = pairs;
    pthread_mutex_init(&window->lock, NULL);
    pthread_condattr_t monotonic;
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&window->change, &monotonic);
    pthread_condattr_destroy(&monotonic);
    *out = window;
    return SL_OK;
}

void sl_window_destroy(struct sl_window *window)
{
    if (window == NULL) {
        return;
    }
    sl_prompt_finish(&window->prompt);
    pthread_mutex_destroy(&window->lock);
    pthread_cond_destroy(&window->change);
    free((void *)window->answer.text);
    free((void *)window->answer.logprobs);
    free((void *)window->answer.text_ends);
    free(window->holes);
    free(window->pairs);
    free(window);
}

int sl_window_add(struct sl_window *window, struct sl_stream *stream, const struct sl_sample *sample,
                  struct sl_error *error)
{
    int status = sl_clip_add(window->clip, stream, sample->frame, error);
    if (status != SL_OK) {
        return status;
    }
    int64_t time_us = sample->sample_us - window->start_us;
    struct sl_prompt_pair *pair = &window->pairs[window->frames / 2];
    if (window->frames % 2 == 0) {
        pair->first_us = time_us;
    }
    pair->second_us = time_us; // of an odd last frame: its own
    window->frames++;
    return SL_OK;
}

int sl_window_add_hole(struct sl_window *window, int64_t start_us, int64_t end_us, const char *cause,
                       struct sl_error *error)
{
    int64_t from = start_us > window->start_us ? start_us : window->start_us;
    int64_t to = end_us < window->end_us ? end_us : window->end_us;
    if (from >= to) {
        return SL_OK;
    }
    struct sl_db_hole *grown = realloc(window->holes, ((size_t)window->hole_count + 1) * sizeof *grown);
    if (grown == NULL) {
        return sl_fail(error, SL_ERR_MEMORY, "out of memory");
    }
    window->holes = grown;
    window->holes[window->hole_count++] = (struct sl_db_hole){.start_us = from, .end_us = to, .cause = cause};
    return SL_OK;
}

static void *copy_of(const void *from, size_t size)
{
    void *to = malloc(size + 1); // + 1: the text's terminator, and never NULL for nothing
    if (to != NULL) {
        memcpy(to, from, size);
        ((char *)to)[size] = 0;
    }
    return to;
}

// On the engine's thread.
static void keep_answer(void *context, const struct sl_answer *answer)
{
    struct sl_window *window = context;
    struct sl_answer kept = *answer;
    size_t tokens = (size_t)answer->generated_tokens;
    kept.ids = NULL;
    kept.token_us = NULL;
    if (window->fixed_length && kept.finish == SL_FINISH_LENGTH) {
        kept.finish = SL_FINISH_STOP;
        kept.text = "{}";
        kept.size_bytes = 2;
    }
    kept.text = copy_of(kept.text != NULL ? kept.text : "", kept.text != NULL ? kept.size_bytes : 0);
    kept.logprobs = tokens > 0 ? copy_of(answer->logprobs, tokens * sizeof *answer->logprobs) : NULL;
    kept.text_ends = tokens > 0 ? copy_of(answer->text_ends, tokens * sizeof *answer->text_ends) : NULL;
    if (kept.text == NULL || (tokens > 0 && (kept.logprobs == NULL || kept.text_ends == NULL))) {
        kept.finish = SL_FINISH_FAILED;
        sl_fail(&kept.error, SL_ERR_MEMORY, "out of memory");
    }
    atomic_fetch_sub(&window->model->flying, 1); // before anybody may free the window
    pthread_mutex_lock(&window->lock);
    window->answer = kept;
    window->answered = 1;
    pthread_cond_broadcast(&window->change);
    pthread_mutex_unlock(&window->lock);
}

// Each window's draws depend on what it is, not on when it is decoded.
static uint64_t window_seed(uint64_t seed, const char *source, int64_t start_us)
{
    uint64_t part[3] = {seed, sl_hash64(source, strlen(source), 0), (uint64_t)start_us};
    return sl_hash64(part, sizeof part, 0);
}

// Leaves the times of pairs that are not shown out of the prompt; those of the others stay what they are.
static int lay_out(struct sl_window *window, struct sl_eye *eye, struct sl_stream *stream,
                   const struct sl_window_rules *rules, struct sl_error *error)
{
    struct sl_clip *clip = window->clip;
    struct sl_model *model = sl_eye_model(eye);
    window->model = model;
    sl_clip_move(clip, eye);
    int rows = 0;
    int columns = 0;
    int status = sl_clip_end(clip, stream, rules->skip_still ? rules->still_level : -1, error);
    if (status != SL_OK) {
        return status;
    }
    int pairs = sl_clip_pairs(clip);
    for (int i = 0; i < pairs; i++) {
        window->pairs[i] = window->pairs[sl_clip_kept_pair(clip, i)];
    }
    window->pairs_skipped = (window->frames + 1) / 2 - pairs;
    sl_clip_grid(clip, &rows, &columns);
    status = sl_prompt_create(model->tokenizer, &model->config, window->pairs, pairs, rows, columns,
                              sl_clip_visual(clip), NULL, rules->prompt, &window->prompt, error);
    window->grammar = (struct sl_answer_grammar){.window_us = window->shown_us - window->start_us,
                                                 .max_events = SL_WINDOW_MAX_EVENTS,
                                                 .max_text_bytes = SL_WINDOW_MAX_TEXT_BYTES};
    window->laid_out = status == SL_OK;
    return status;
}

int sl_window_submit(struct sl_window *window, struct sl_eye *eye, struct sl_stream *stream,
                     const struct sl_window_rules *rules, const char *source, struct sl_error *error)
{
    int status = window->laid_out ? SL_OK : lay_out(window, eye, stream, rules, error);
    if (status != SL_OK) {
        return status;
    }
    struct sl_model *model = window->model;
    struct sl_request request = {.segments = window->prompt.segments,
                                 .segment_count = window->prompt.segment_count,
                                 .sampling = rules->sampling,
                                 .grammar = &window->grammar,
                                 .max_new_tokens = rules->max_new_tokens,
                                 .fixed_length = rules->fixed_length,
                                 .context = window,
                                 .on_done = keep_answer};
    window->fixed_length = rules->fixed_length;
    request.sampling.seed = window_seed(rules->sampling.seed, source, window->start_us);
    if (request.sampling.top_p == 0) {
        request.sampling.top_p = model->config.generation.top_p;
        request.sampling.top_k = model->config.generation.top_k;
    }
    atomic_fetch_add(&model->flying, 1); // before the answer can come
    status = sl_engine_submit(model->engine, &request, &window->ticket, error);
    window->submitted = status == SL_OK;
    atomic_fetch_sub(&model->flying, window->submitted ? 0 : 1);
    return status;
}

int sl_eye_has_room(const struct sl_eye *eye)
{
    struct sl_model *model = sl_eye_model(eye);
    return atomic_load(&model->flying) < model->sequences;
}

struct sl_eye *sl_choice_now(const struct sl_choice *choice, int other_works)
{
    int stands_in = choice->other != NULL && !other_works && sl_eye_has_room(choice->other);
    return stands_in && !sl_eye_has_room(choice->eye) ? choice->other : choice->eye;
}

int sl_window_wait(struct sl_window *window, int timeout_ms)
{
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_nsec += (long)(timeout_ms % 1000) * 1000000;
    until.tv_sec += timeout_ms / 1000 + until.tv_nsec / 1000000000;
    until.tv_nsec %= 1000000000;
    pthread_mutex_lock(&window->lock);
    int timed_out = 0;
    while (!window->answered && !timed_out) {
        timed_out = pthread_cond_timedwait(&window->change, &window->lock, &until) != 0;
    }
    int answered = window->answered;
    pthread_mutex_unlock(&window->lock);
    return answered;
}
