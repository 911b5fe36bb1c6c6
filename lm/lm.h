// SPDX-License-Identifier: Apache-2.0
// Tokens to text: tokenizer, prompt layout with timestamps, and the engine: a loaded decoder that takes requests from
// any thread and decodes many sequences in one batch.
//
// The engine owns its thread, KV pages and buffers; a request's segments and visual provider belong to the caller and
// must live until on_done. Tokenizers are immutable after opening and may be used by any thread.
#ifndef SL_LM_LM_H
#define SL_LM_LM_H

#include "core/config.h"
#include "core/device.h"
#include "core/weights.h"

// ---- Tokenizer: byte-level BPE as tokenizer.json states it.

struct sl_tokenizer;

// Errors: SL_ERR_MODEL_MISSING, SL_ERR_TOKENIZER (malformed, an unknown part, or a special token of the chat format
// missing).
int sl_tokenizer_open(const char *model_dir, struct sl_tokenizer **out, struct sl_error *error);
void sl_tokenizer_close(struct sl_tokenizer *tokenizer);

// Text to ids. Special tokens inside the text are split as ordinary text, never as ids; a byte that is no UTF-8 counts
// as U+FFFD. *ids is malloc'ed.
int sl_tokenizer_encode(const struct sl_tokenizer *tokenizer, const char *text, size_t size_bytes, int32_t **ids,
                        size_t *count, struct sl_error *error);
// Id of an added token such as "<|im_end|>"; -1 when there is none.
int32_t sl_tokenizer_added(const struct sl_tokenizer *tokenizer, const char *content);
// The bytes a token stands for (not always whole UTF-8); NULL for ids without a token. Owned by the tokenizer.
const char *sl_tokenizer_bytes(const struct sl_tokenizer *tokenizer, int32_t id, size_t *size_bytes);
int sl_tokenizer_is_added(const struct sl_tokenizer *tokenizer, int32_t id);
int32_t sl_tokenizer_size(const struct sl_tokenizer *tokenizer); // highest id + 1

// ---- Prompt

// Gives the visual features of a clip while prefill advances. Called on the engine's thread; enqueues on `stream`.
// Its tokens stay the same while any request that names it is unanswered: requests over one clip share their prefill.
struct sl_visual {
    void *context;
    // Tokens [first, first + count) of the clip, groups one after another.
    int (*features)(void *context, struct sl_stream *stream, int64_t first, int64_t count,
                    const struct sl_tensor *out /* [count, hidden] */,
                    const struct sl_tensor *deepstack /* deepstack_count x [count, hidden] */, struct sl_error *error);
};

// A prompt is a list of segments: text ids, or one frame group of a clip.
struct sl_segment {
    int64_t count;                  // tokens
    const int32_t *ids;             // text; NULL for a frame group
    const struct sl_visual *visual; // frame group: its provider,
    int64_t visual_first;           //   its first token there,
    int rows, columns;              //   its grid of merged tokens; rows * columns == count
};

struct sl_prompt_pair {
    int64_t first_us, second_us; // sample times of the two frames, counted from the window's start
};

struct sl_prompt {
    struct sl_segment *segments;
    int segment_count;
    int64_t tokens;
    int32_t *ids; // storage of all text segments
};

// user turn: for each pair "<t seconds>" and its visual tokens, then `text`; then the assistant's opening (and <think>
// where the model thinks). t is the mean of the pair's times, one decimal. system may be NULL.
int sl_prompt_create(const struct sl_tokenizer *tokenizer, const struct sl_model_config *config,
                     const struct sl_prompt_pair *pairs, int pair_count, int rows, int columns,
                     const struct sl_visual *visual, const char *system, const char *text, struct sl_prompt *out,
                     struct sl_error *error);
void sl_prompt_finish(struct sl_prompt *prompt);

// ---- Engine

struct sl_engine;

struct sl_engine_options {
    enum sl_dtype compute; // SL_F32 or SL_BF16
    int max_sequences;     // sequences decoded in one batch
    int64_t kv_tokens;     // tokens that the KV pages hold in all
    int prefill_rows;      // the most prompt rows of one step
    int deterministic;     // one sequence at a time, fixed shapes
};

struct sl_sampling {
    float temperature; // 0: greedy
    float top_p;       // 1: off
    int top_k;         // 0: off
    float presence;    // presence penalty; 0: off
    uint64_t seed;
};

// Constrains the answer to one JSON object of "mm:ss.ff - mm:ss.ff": "sentence" pairs, start < end, both inside
// [0, window_us], at most max_events of max_text_bytes each, no endless repetition.
struct sl_answer_grammar {
    int64_t window_us;
    int max_events;
    int max_text_bytes;
};

enum sl_finish {
    SL_FINISH_STOP,
    SL_FINISH_LENGTH, // max_new_tokens are used up; or nearly, so that the grammar may have closed the answer early
    SL_FINISH_CANCELLED,
    SL_FINISH_FAILED,
};

// What a request came to. Valid during on_done only.
struct sl_answer {
    enum sl_finish finish;
    struct sl_error error; // why, when cancelled or failed
    const char *text;      // UTF-8 without special tokens; thinking removed
    size_t size_bytes;
    const int32_t *ids;      // all generated tokens
    const float *logprobs;   // of each, at temperature 1 before mask and penalty
    const size_t *text_ends; // bytes of `text` after each token
    const int64_t *token_us; // CLOCK_MONOTONIC, when each was drawn
    int64_t generated_tokens, prompt_tokens;
    int64_t prefill_us, decode_us;
};

struct sl_request {
    const struct sl_segment *segments;
    int segment_count;
    struct sl_sampling sampling;
    const struct sl_answer_grammar *grammar; // NULL: free text
    int max_new_tokens;
    int fixed_length;    // 1, for measuring: exactly max_new_tokens; an answer that ends sooner is begun anew
    int priority;        // higher first
    int64_t deadline_us; // CLOCK_MONOTONIC, 0: none
    void *context;
    void (*on_text)(void *context, const char *text,
                    size_t size_bytes);                             // whole UTF-8 characters as they come; may be NULL
    void (*on_done)(void *context, const struct sl_answer *answer); // exactly once for every accepted request
};

// Weights, config and tokenizer stay the caller's and open while the engine lives. Without a tokenizer (NULL, for
// measuring) answers have ids only, and no grammar.
int sl_engine_create(struct sl_device *device, struct sl_weights *weights, const struct sl_model_config *config,
                     const struct sl_tokenizer *tokenizer, const struct sl_engine_options *options,
                     struct sl_engine **out, struct sl_error *error);
// Cancels what is left, waits for the engine's thread. Accepts NULL.
void sl_engine_destroy(struct sl_engine *engine);

// Any thread. SL_ERR_BUSY when the waiting list is full; SL_ERR_USAGE when the request can never fit.
int sl_engine_submit(struct sl_engine *engine, const struct sl_request *request, uint64_t *ticket,
                     struct sl_error *error);
void sl_engine_cancel(struct sl_engine *engine, uint64_t ticket); // on_done still comes

#endif
