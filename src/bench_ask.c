// SPDX-License-Identifier: Apache-2.0
#include "src/bench_ask.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

// ---- Prompts

// Numbers of their own for each seed; the first differs between seeds in any case.
static void fill_ids(int32_t *ids, int64_t count, int seed, int vocab)
{
    uint32_t state = (uint32_t)seed * 2654435761U + 1;
    for (int64_t i = 0; i < count; i++) {
        state = state * 1664525U + 1013904223U;
        ids[i] = (int32_t)((state >> 8) % (uint32_t)vocab);
    }
    ids[0] = seed % vocab;
}

static int allocate(struct sl_prompt *p, int segments, int64_t ids, struct sl_error *error)
{
    *p = (struct sl_prompt){.segments = calloc((size_t)segments, sizeof *p->segments),
                            .segment_count = segments,
                            .ids = malloc((size_t)ids * sizeof *p->ids)};
    if (p->segments == NULL || p->ids == NULL) {
        sl_prompt_finish(p);
        return sl_fail(error, SL_ERR_MEMORY, "out of memory");
    }
    return SL_OK;
}

int sl_ask_text(int64_t tokens, int seed, int vocab, struct sl_prompt *out, struct sl_error *error)
{
    int status = allocate(out, 1, tokens, error);
    if (status == SL_OK) {
        fill_ids(out->ids, tokens, seed, vocab);
        out->segments[0] = (struct sl_segment){.count = tokens, .ids = out->ids};
        out->tokens = tokens;
    }
    return status;
}

int sl_ask_clip(const struct sl_visual *visual, int pairs, int rows, int columns, int seed, int vocab,
                struct sl_prompt *out, struct sl_error *error)
{
    int64_t text = (int64_t)pairs * SL_ASK_LABEL_IDS + SL_ASK_QUESTION_IDS;
    int64_t group = (int64_t)rows * columns;
    int status = allocate(out, 2 * pairs + 1, text, error);
    if (status != SL_OK) {
        return status;
    }
    fill_ids(out->ids, text, seed, vocab);
    for (int i = 0; i <= pairs; i++) {
        out->segments[2 * i] = (struct sl_segment){.count = i < pairs ? SL_ASK_LABEL_IDS : SL_ASK_QUESTION_IDS,
                                                   .ids = out->ids + (int64_t)i * SL_ASK_LABEL_IDS};
        if (i < pairs) {
            out->segments[2 * i + 1] = (struct sl_segment){
                .count = group, .visual = visual, .visual_first = i * group, .rows = rows, .columns = columns};
        }
    }
    out->tokens = text + pairs * group;
    return SL_OK;
}

// ---- Requests

struct asking {
    pthread_mutex_t lock;
    pthread_cond_t change;
    int open; // requests that are not answered
    struct sl_error error;
};

struct request {
    struct asking *asking;
    struct sl_asked *out;
};

// On the engine's thread.
static void on_done(void *context, const struct sl_answer *answer)
{
    struct request *r = context;
    struct asking *a = r->asking;
    size_t size = (size_t)answer->generated_tokens * sizeof *answer->token_us;
    pthread_mutex_lock(&a->lock);
    if (answer->finish != SL_FINISH_LENGTH) {
        a->error = answer->error;
    } else if ((r->out->token_us = malloc(size)) == NULL) {
        sl_fail(&a->error, SL_ERR_MEMORY, "out of memory");
    } else {
        memcpy(r->out->token_us, answer->token_us, size);
        r->out->tokens = answer->generated_tokens;
        r->out->prompt_tokens = answer->prompt_tokens;
        r->out->prefill_s = (double)answer->prefill_us * 1e-6;
    }
    a->open--;
    pthread_cond_signal(&a->change);
    pthread_mutex_unlock(&a->lock);
}

static int submit(struct sl_engine *engine, const struct sl_prompt *prompt, int new_tokens, struct request *r,
                  struct sl_error *error)
{
    struct sl_request request = {.segments = prompt->segments,
                                 .segment_count = prompt->segment_count,
                                 .sampling = {.top_p = 1},
                                 .max_new_tokens = new_tokens,
                                 .fixed_length = 1,
                                 .context = r,
                                 .on_done = on_done};
    *r->out = (struct sl_asked){.start_s = sl_timing_now_s()};
    return sl_engine_submit(engine, &request, NULL, error);
}

int sl_ask(struct sl_engine *engine, const struct sl_prompt *prompts, int count, int new_tokens, struct sl_asked *out,
           struct sl_error *error)
{
    struct asking a = {.lock = PTHREAD_MUTEX_INITIALIZER, .change = PTHREAD_COND_INITIALIZER};
    struct request *requests = calloc((size_t)count, sizeof *requests);
    if (requests == NULL) {
        return sl_fail(error, SL_ERR_MEMORY, "out of memory");
    }
    memset(out, 0, (size_t)count * sizeof *out);
    int status = SL_OK;
    for (int i = 0; i < count && status == SL_OK; i++) {
        requests[i] = (struct request){.asking = &a, .out = &out[i]};
        pthread_mutex_lock(&a.lock);
        a.open++;
        pthread_mutex_unlock(&a.lock);
        status = submit(engine, &prompts[i], new_tokens, &requests[i], error);
        if (status != SL_OK) {
            pthread_mutex_lock(&a.lock);
            a.open--;
            pthread_mutex_unlock(&a.lock);
        }
    }
    pthread_mutex_lock(&a.lock);
    while (a.open > 0) {
        pthread_cond_wait(&a.change, &a.lock);
    }
    pthread_mutex_unlock(&a.lock);
    free(requests);
    if (status == SL_OK && a.error.status != SL_OK) {
        *error = a.error;
        status = a.error.status;
    }
    if (status != SL_OK) {
        sl_asked_finish(out, count);
    }
    return status;
}

void sl_asked_finish(struct sl_asked *asked, int count)
{
    for (int i = 0; i < count; i++) {
        free(asked[i].token_us);
        asked[i].token_us = NULL;
    }
}

// ---- The steady part

int sl_asked_step(const struct sl_asked *asked, int count, int repeat, struct sl_spread *out)
{
    const struct sl_asked *last = &asked[0]; // the one that began to decode last
    int64_t end_us = INT64_MAX;              // the first has all its tokens
    for (int i = 0; i < count; i++) {
        last = asked[i].token_us[0] > last->token_us[0] ? &asked[i] : last;
        int64_t done_us = asked[i].token_us[asked[i].tokens - 1];
        end_us = done_us < end_us ? done_us : end_us;
    }
    int64_t steps = 0;
    while (steps + 1 < last->tokens && last->token_us[steps + 1] <= end_us) {
        steps++;
    }
    int64_t each = steps / repeat;
    double *seconds = calloc((size_t)repeat, sizeof *seconds);
    for (int i = 0; i < repeat && seconds != NULL && each > 0; i++) {
        int64_t from_us = last->token_us[i * each];
        seconds[i] = (double)(last->token_us[(i + 1) * each] - from_us) * 1e-6 / (double)each;
    }
    int measured = seconds != NULL && each > 0;
    if (measured) {
        *out = sl_timing_spread(seconds, repeat);
    }
    free(seconds);
    return measured;
}
