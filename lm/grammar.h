// SPDX-License-Identifier: Apache-2.0
// Constrained decoding: which tokens may come next so that the answer is one JSON object
//     {"mm:ss.ff - mm:ss.ff": "sentence", ...}
// with start < end, both inside the window, within bounds of number and length. White space between the parts is
// allowed, a little. Minutes have two digits, or three from 100 on. After the closing brace only an end-of-text token
// is admitted. An event that repeats an earlier one exactly (key and text) must be the last: so loops end.
//
// The automaton runs over bytes, so a token may straddle structure; and the vocabulary has a token for every byte, so
// no state is a dead end.
//
// struct sl_grammar is a vocabulary prepared for masks: immutable, any thread, must not outlive its tokenizer. A state
// belongs to one sequence, owns nothing and may be copied. It begins where the answer does: after </think> where a
// model thinks.
#ifndef SL_LM_GRAMMAR_H
#define SL_LM_GRAMMAR_H

#include <stdint.h>

#include "core/error.h"
#include "lm/lm.h"

enum {
    SL_GRAMMAR_MAX_EVENTS = 256,
    SL_GRAMMAR_MIN_TOKENS = 3,    // "{", "}", end of text
    SL_GRAMMAR_EVENT_TOKENS = 29, // with fewer left no further event may be begun
};

// Where in the answer we are.
struct sl_grammar_position {
    uint8_t phase;
    uint8_t spaces;    // length of this run of white space
    uint8_t count;     // bytes of this time, of " - ", or digits of \uXXXX so far
    uint8_t missing;   // bytes that the character still lacks,
    uint8_t low, high; //   and the range of the next of them
    uint8_t blank;     // 1: the text so far is nothing but spaces
    char time[9];
    int32_t start, end; // of the event, hundredths of a second
    int32_t text_bytes; // between the quotes
    int32_t events;     // whole ones
    uint32_t code;      // value of the digits of \uXXXX
    uint64_t hash;      // of the event so far
};

struct sl_grammar_state {
    struct sl_grammar_position at;
    int32_t window; // hundredths of a second
    int32_t max_events, max_text_bytes;
    int32_t seen_count;
    uint64_t seen[SL_GRAMMAR_MAX_EVENTS]; // hashes of whole events
};

struct sl_grammar;

// `vocab` is the number of logits (not below the tokenizer's size). Takes 0.1 s for 150,000 tokens.
int sl_grammar_create(const struct sl_tokenizer *tokenizer, int vocab, const int *eos, int eos_count,
                      struct sl_grammar **out, struct sl_error *error);
void sl_grammar_destroy(struct sl_grammar *grammar); // accepts NULL

// The state before the first byte. SL_ERR_USAGE when a limit is impossible.
int sl_grammar_start(const struct sl_answer_grammar *limits, struct sl_grammar_state *state, struct sl_error *error);

// Sets exactly the bits of the tokens that may come next. `tokens_left` counts the next one and the end of text: only
// tokens are admitted after which the object can still be closed in time, so an answer cut by length is well-formed
// too. (Less than SL_GRAMMAR_MIN_TOKENS at the start is not enough.)
void sl_grammar_mask(const struct sl_grammar *grammar, const struct sl_grammar_state *state, int64_t tokens_left,
                     uint32_t *bits /* [ceil(vocab/32)] */);

// 1: the state has gone past the token. 0: the grammar does not admit it, the state is unchanged.
int sl_grammar_advance(const struct sl_grammar *grammar, struct sl_grammar_state *state, int32_t token);

// 1 once the object is closed: what comes next is the end of text.
int sl_grammar_finished(const struct sl_grammar_state *state);

#endif
