// SPDX-License-Identifier: Apache-2.0
// One request while the engine answers it: where its prompt stands, what it has generated, its text, its thinking.
// Used by the engine's thread; `ticket` and `cancelled` under the engine's lock.
#ifndef SL_LM_SEQUENCE_H
#define SL_LM_SEQUENCE_H

#include "lm/grammar.h"
#include "lm/kv.h"
#include "lm/lm.h"
#include "lm/position.h"
#include "lm/utf8.h"

// What the sequences of an engine have in common.
struct sl_vocabulary {
    const struct sl_tokenizer *tokenizer; // NULL: ids only
    int32_t stop[SL_MAX_EOS + 2];
    int stop_count;
    int32_t think, think_end; // -1: the model does not think
    int size, words;          // ids; 32-bit words of a bit set over them
    struct sl_grammar *grammar;
};

// A request as it was accepted.
struct sl_ticket {
    uint64_t number;
    struct sl_request request;
    struct sl_answer_grammar rules;      // a copy; they hold when request.grammar is not NULL
    int64_t prompt_tokens, end_position; // of its segments
    int cancelled;
};

struct sl_sequence {
    struct sl_ticket ticket; // number 0: not in use
    struct sl_prompt_walk walk;
    int64_t prefilled; // prompt tokens in the cache
    struct sl_kv_sequence kv;

    int64_t generated, capacity;
    int32_t *ids;      // [capacity]
    float *logprobs;   // [capacity]
    size_t *text_ends; // [capacity]
    int64_t *token_us; // [capacity]
    uint32_t *seen;    // [words] bits of the generated tokens, for the presence penalty
    char *text;        // whole characters
    size_t text_bytes, text_capacity;
    struct sl_utf8 utf8;
    size_t streamed; // bytes of text given to on_text
    int thinking;
    int64_t thinking_left; // tokens
    struct sl_grammar_state grammar;

    int64_t started_us, decoding_us; // CLOCK_MONOTONIC; when prefill began and ended

    int done; // 1: the answer is complete, as `finish` and `error` say; on_done comes next
    enum sl_finish finish;
    struct sl_error error;
};

int64_t sl_now_us(void);

int sl_vocabulary_init(struct sl_vocabulary *vocabulary, const struct sl_tokenizer *tokenizer,
                       const struct sl_model_config *config, struct sl_error *error);
void sl_vocabulary_finish(struct sl_vocabulary *vocabulary);

// Could the answer be given within the request's limits? SL_ERR_USAGE.
int sl_ticket_check_answer(const struct sl_ticket *ticket, const struct sl_vocabulary *vocabulary,
                           struct sl_error *error);

// Begins with the request that lies in `ticket`. The KV sequence is the caller's to start. Memory stays from request to
// request and grows to the longest answer. Errors: SL_ERR_MEMORY.
int sl_sequence_begin(struct sl_sequence *sequence, const struct sl_vocabulary *vocabulary, struct sl_error *error);

int sl_sequence_is_decoding(const struct sl_sequence *sequence);
// The draw of the next token.
struct sl_sample_row sl_sequence_draw(const struct sl_sequence *sequence);
// Is the next token bound by the grammar? Fills its mask then.
int sl_sequence_is_bound(const struct sl_sequence *sequence);
void sl_sequence_mask(const struct sl_sequence *sequence, const struct sl_vocabulary *vocabulary, uint32_t *bits);

// Takes the token that was drawn; the sequence may be done then.
void sl_sequence_take(struct sl_sequence *sequence, const struct sl_vocabulary *vocabulary, int32_t id, float logprob);

// Done before its time. `error` says why.
void sl_sequence_stop(struct sl_sequence *sequence, enum sl_finish finish, const struct sl_error *error);

// Calls on_done of a sequence that is done, and gives back its KV pages.
void sl_sequence_end(struct sl_sequence *sequence);
void sl_sequence_release(struct sl_sequence *sequence); // the memory

// on_done for a request that never began.
void sl_ticket_refuse(const struct sl_ticket *ticket, enum sl_finish finish, const struct sl_error *error);

#endif
