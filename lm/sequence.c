// SPDX-License-Identifier: Apache-2.0
#include "lm/sequence.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

int64_t sl_now_us(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000 + now.tv_nsec / 1000;
}

static void add_stop(struct sl_vocabulary *v, int32_t id)
{
    if (id >= 0) {
        v->stop[v->stop_count++] = id;
    }
}

int sl_vocabulary_init(struct sl_vocabulary *vocabulary, const struct sl_tokenizer *tokenizer,
                       const struct sl_model_config *config, struct sl_error *error)
{
    struct sl_vocabulary *v = vocabulary;
    *v = (struct sl_vocabulary){
        .tokenizer = tokenizer, .size = config->text.vocab, .words = (config->text.vocab + 31) / 32};
    for (int i = 0; i < config->generation.eos_count; i++) {
        add_stop(v, config->generation.eos[i]);
    }
    v->think = v->think_end = -1;
    if (!tokenizer) {
        return SL_OK;
    }
    add_stop(v, sl_tokenizer_added(tokenizer, "<|im_end|>"));
    add_stop(v, sl_tokenizer_added(tokenizer, "<|endoftext|>"));
    v->think = sl_tokenizer_added(tokenizer, "<think>");
    v->think_end = sl_tokenizer_added(tokenizer, "</think>");
    return sl_grammar_create(tokenizer, v->size, v->stop, v->stop_count, &v->grammar, error);
}

void sl_vocabulary_finish(struct sl_vocabulary *vocabulary)
{
    sl_grammar_destroy(vocabulary->grammar);
}

// Tokens that the answer needs, one for the end of thinking aside.
static int least_answer(const struct sl_request *request)
{
    return request->grammar ? SL_GRAMMAR_MIN_TOKENS : 0;
}

int sl_ticket_check_answer(const struct sl_ticket *ticket, const struct sl_vocabulary *vocabulary,
                           struct sl_error *error)
{
    if (ticket->request.grammar && !vocabulary->grammar) {
        return sl_fail(error, SL_ERR_USAGE, "an engine without a tokenizer knows no grammar");
    }
    int tokens = ticket->request.max_new_tokens, least = least_answer(&ticket->request) + 1;
    if (tokens < least) {
        return sl_fail(error, SL_ERR_USAGE, "an answer of at most %d tokens: it needs at least %d", tokens, least);
    }
    struct sl_grammar_state state;
    return ticket->request.grammar ? sl_grammar_start(&ticket->rules, &state, error) : SL_OK;
}

static int is_stop(const struct sl_vocabulary *v, int32_t id)
{
    for (int i = 0; i < v->stop_count; i++) {
        if (v->stop[i] == id) {
            return 1;
        }
    }
    return 0;
}

// Does the prompt leave a <think> open?
static int opens_thinking(const struct sl_vocabulary *v, const struct sl_request *request)
{
    const struct sl_segment *last = &request->segments[request->segment_count - 1];
    for (int64_t i = last->ids && v->think >= 0 && v->think_end >= 0 ? last->count : 0; i-- > 0;) {
        if (last->ids[i] == v->think || last->ids[i] == v->think_end) {
            return last->ids[i] == v->think;
        }
    }
    return 0;
}

static int reserve(struct sl_sequence *s, int words, int64_t tokens)
{
    if (!s->seen) {
        s->seen = calloc((size_t)words, sizeof *s->seen);
    }
    if (tokens > s->capacity) {
        free(s->ids);
        free(s->logprobs);
        free(s->text_ends);
        free(s->token_us);
        s->ids = malloc((size_t)tokens * sizeof *s->ids);
        s->logprobs = malloc((size_t)tokens * sizeof *s->logprobs);
        s->text_ends = malloc((size_t)tokens * sizeof *s->text_ends);
        s->token_us = malloc((size_t)tokens * sizeof *s->token_us);
        s->capacity = s->ids && s->logprobs && s->text_ends && s->token_us ? tokens : 0;
    }
    return s->seen && s->capacity >= tokens;
}

int sl_sequence_begin(struct sl_sequence *sequence, const struct sl_vocabulary *vocabulary, struct sl_error *error)
{
    struct sl_sequence *s = sequence;
    const struct sl_request *request = &s->ticket.request;
    int tokens = request->max_new_tokens;
    s->walk = (struct sl_prompt_walk){.segments = request->segments, .segment_count = request->segment_count};
    s->prefilled = s->generated = 0;
    s->text_bytes = s->streamed = 0;
    s->utf8 = (struct sl_utf8){0};
    s->started_us = sl_now_us();
    s->decoding_us = 0;
    s->done = 0;
    s->error = (struct sl_error){0};
    if (!reserve(s, vocabulary->words, tokens)) {
        return sl_fail(error, SL_ERR_MEMORY, "out of memory: answer of %d tokens", tokens);
    }
    memset(s->seen, 0, (size_t)vocabulary->words * sizeof *s->seen);
    s->thinking = opens_thinking(vocabulary, request);
    s->thinking_left = tokens - 1 - least_answer(request);
    if (s->thinking_left > tokens / 2) {
        s->thinking_left = tokens / 2;
    }
    return request->grammar ? sl_grammar_start(&s->ticket.rules, &s->grammar, error) : SL_OK;
}

int sl_sequence_is_decoding(const struct sl_sequence *sequence)
{
    return sequence->prefilled == sequence->ticket.prompt_tokens;
}

// A number of [0, 1) that depends on seed and step alone (SplitMix64), so that batching changes no draw.
static float uniform(uint64_t seed, uint64_t step)
{
    uint64_t x = seed + (step + 1) * 0x9e3779b97f4a7c15u;
    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9u;
    x = (x ^ x >> 27) * 0x94d049bb133111ebu;
    x ^= x >> 31;
    return (float)(x >> 40) * 0x1p-24f;
}

struct sl_sample_row sl_sequence_draw(const struct sl_sequence *sequence)
{
    const struct sl_sampling *sampling = &sequence->ticket.request.sampling;
    return (struct sl_sample_row){.temperature = sampling->temperature,
                                  .top_p = sampling->top_p,
                                  .top_k = sampling->top_k,
                                  .presence = sampling->presence,
                                  .uniform = uniform(sampling->seed, (uint64_t)sequence->generated)};
}

int sl_sequence_is_bound(const struct sl_sequence *sequence)
{
    return sequence->ticket.request.grammar && !sequence->thinking;
}

void sl_sequence_mask(const struct sl_sequence *sequence, const struct sl_vocabulary *vocabulary, uint32_t *bits)
{
    int64_t left = sequence->ticket.request.max_new_tokens - sequence->generated;
    sl_grammar_mask(vocabulary->grammar, &sequence->grammar, left, bits);
}

static void stream_text(struct sl_sequence *s)
{
    const struct sl_request *request = &s->ticket.request;
    if (request->on_text && s->text_bytes > s->streamed) {
        request->on_text(request->context, s->text + s->streamed, s->text_bytes - s->streamed);
    }
    s->streamed = s->text_bytes;
}

static int reserve_text(struct sl_sequence *s, size_t more)
{
    if (s->text_bytes + more > s->text_capacity) {
        size_t capacity = 2 * (s->text_bytes + more);
        char *grown = realloc(s->text, capacity);
        if (!grown) {
            return 0;
        }
        s->text = grown;
        s->text_capacity = capacity;
    }
    return 1;
}

// The token's part in the text: none while thinking, none of added tokens.
static int add_text(struct sl_sequence *s, const struct sl_vocabulary *v, int32_t id)
{
    size_t size = 0;
    const char *bytes = v->tokenizer ? sl_tokenizer_bytes(v->tokenizer, id, &size) : NULL;
    if (s->thinking || !bytes || sl_tokenizer_is_added(v->tokenizer, id)) {
        return 1;
    }
    if (!reserve_text(s, 3 * (size + 3))) {
        return 0;
    }
    s->text_bytes += sl_utf8_push(&s->utf8, bytes, size, s->text + s->text_bytes);
    return 1;
}

static void finish(struct sl_sequence *s, enum sl_finish how)
{
    s->done = 1;
    s->finish = how;
}

static void fail(struct sl_sequence *s, enum sl_status status, const char *why)
{
    finish(s, SL_FINISH_FAILED);
    sl_fail(&s->error, status, "%s", why);
}

// Thinking ends by itself, or when its tokens are used up; an answer that is bound is given even where the model
// would rather stop.
static int32_t guide_thinking(struct sl_sequence *s, const struct sl_vocabulary *v, int32_t id)
{
    int stops = s->ticket.request.grammar && is_stop(v, id);
    if (id != v->think_end && (stops || s->thinking_left-- == 0)) {
        id = v->think_end;
    }
    return id;
}

// What the token means for the answer: its end, text, or a fault.
static void interpret(struct sl_sequence *s, const struct sl_vocabulary *v, int32_t id)
{
    if (sl_sequence_is_bound(s) && !sl_grammar_advance(v->grammar, &s->grammar, id)) {
        fail(s, SL_ERR_INTERNAL, "the device drew a token that the grammar does not admit");
    } else if (is_stop(v, id) && !s->ticket.request.fixed_length) {
        finish(s, SL_FINISH_STOP);
    } else if (!add_text(s, v, id)) {
        fail(s, SL_ERR_MEMORY, "out of memory: text of an answer");
    } else if (sl_sequence_is_bound(s) && sl_grammar_finished(&s->grammar) && s->ticket.request.fixed_length) {
        (void)sl_grammar_start(&s->ticket.rules, &s->grammar, NULL); // these rules were accepted before
    } else if (sl_sequence_is_bound(s) && sl_grammar_finished(&s->grammar)) {
        // With too few tokens left for another event, nobody knows whether there was one to tell.
        int64_t left = s->ticket.request.max_new_tokens - s->generated;
        finish(s, left < SL_GRAMMAR_EVENT_TOKENS ? SL_FINISH_LENGTH : SL_FINISH_STOP);
    }
}

void sl_sequence_take(struct sl_sequence *sequence, const struct sl_vocabulary *vocabulary, int32_t id, float logprob)
{
    struct sl_sequence *s = sequence;
    if (id < 0 || id >= vocabulary->size) {
        fail(s, SL_ERR_INTERNAL, "the device drew a token that is not in the vocabulary");
        return;
    }
    int32_t drawn = id;
    if (s->thinking) {
        id = guide_thinking(s, vocabulary, id);
    }
    interpret(s, vocabulary, id);
    s->thinking = s->thinking && id != vocabulary->think_end;
    s->seen[id / 32] |= 1u << (id % 32);
    s->ids[s->generated] = id;
    s->logprobs[s->generated] = id == drawn ? logprob : 0; // what was put in its place was certain
    s->token_us[s->generated] = sl_now_us();
    s->text_ends[s->generated++] = s->text_bytes;
    if (!s->done && s->generated == s->ticket.request.max_new_tokens) {
        finish(s, SL_FINISH_LENGTH);
    }
    stream_text(s);
}

void sl_sequence_stop(struct sl_sequence *sequence, enum sl_finish how, const struct sl_error *error)
{
    finish(sequence, how);
    sequence->error = *error;
}

void sl_sequence_end(struct sl_sequence *sequence)
{
    struct sl_sequence *s = sequence;
    if (s->utf8.count && reserve_text(s, 9)) { // cut off inside a character
        s->text_bytes += sl_utf8_finish(&s->utf8, s->text + s->text_bytes);
        s->text_ends[s->generated - 1] = s->text_bytes;
        stream_text(s);
    }
    sl_kv_finish(&s->kv);
    int64_t now = sl_now_us(), decoding = s->decoding_us ? s->decoding_us : now;
    struct sl_answer answer = {.finish = s->finish,
                               .error = s->error,
                               .text = s->text_bytes ? s->text : "",
                               .size_bytes = s->text_bytes,
                               .ids = s->ids,
                               .logprobs = s->logprobs,
                               .text_ends = s->text_ends,
                               .token_us = s->token_us,
                               .generated_tokens = s->generated,
                               .prompt_tokens = s->ticket.prompt_tokens,
                               .prefill_us = decoding - s->started_us,
                               .decode_us = now - decoding};
    s->ticket.request.on_done(s->ticket.request.context, &answer);
}

void sl_sequence_release(struct sl_sequence *sequence)
{
    free(sequence->ids);
    free(sequence->logprobs);
    free(sequence->text_ends);
    free(sequence->token_us);
    free(sequence->seen);
    free(sequence->text);
}

void sl_ticket_refuse(const struct sl_ticket *ticket, enum sl_finish how, const struct sl_error *error)
{
    struct sl_answer answer = {.finish = how, .error = *error, .text = "", .prompt_tokens = ticket->prompt_tokens};
    ticket->request.on_done(ticket->request.context, &answer);
}
