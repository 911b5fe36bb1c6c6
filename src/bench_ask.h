// SPDX-License-Identifier: Apache-2.0
// Requests of a measurement: prompts of ids that mean nothing, answers of a fixed length, and when each of their tokens
// came. The caller owns prompts and outcomes.
#ifndef SL_SRC_BENCH_ASK_H
#define SL_SRC_BENCH_ASK_H

#include "lm/lm.h"
#include "src/timing.h"

// Ids of text in front of a frame group, behind it, and after the last, as a prompt for a video has them.
enum { SL_ASK_LABEL_IDS = 10, SL_ASK_QUESTION_IDS = 80 };

// `tokens` pseudo-random ids. Prompts of different seeds have not even the first in common: no prefill is shared.
int sl_ask_text(int64_t tokens, int seed, int vocab, struct sl_prompt *out, struct sl_error *error);
// Frame groups of rows x columns tokens, with labels and a question of random ids. Free with sl_prompt_finish.
int sl_ask_clip(const struct sl_visual *visual, int pairs, int rows, int columns, int seed, int vocab,
                struct sl_prompt *out, struct sl_error *error);

// What became of one request. Times are CLOCK_MONOTONIC, as sl_timing_now_s() has it.
struct sl_asked {
    int64_t *token_us; // [tokens] when each was drawn
    int64_t tokens, prompt_tokens;
    double start_s, prefill_s; // when it was submitted; from its admission to its first token
};

// Submits a request for exactly new_tokens with each prompt, waits for all. On failure nothing is to be freed.
int sl_ask(struct sl_engine *engine, const struct sl_prompt *prompts, int count, int new_tokens,
           struct sl_asked *out /* [count] */, struct sl_error *error);
void sl_asked_finish(struct sl_asked *asked, int count);

// Seconds of one decoding step while all of them decode and none is prefilled, in `repeat` equal stretches of that
// time. 0: there was no such time, or too little.
int sl_asked_step(const struct sl_asked *asked, int count, int repeat, struct sl_spread *out);

#endif
