// SPDX-License-Identifier: Apache-2.0
#include "lm/batch.h"

#include <stdlib.h>
#include <string.h>

#include "lm/decoder.h"

struct sl_batch {
    struct sl_device *device;
    const struct sl_device_ops *ops;
    const struct sl_vocabulary *vocabulary;
    struct sl_engine_options options;
    struct sl_decoder *decoder;
    struct sl_kv *kv;
    struct sl_stream *stream;

    // Drawing, [max_sequences] each, in the order of the step's logits.
    struct sl_sequence **drawing;
    struct sl_sample_row *draw;
    int32_t *token;
    float *logprob;
    uint32_t *bits; // [max_sequences, words] on their way to the device
    void *device_token, *device_logprob, *device_seen, *device_allowed;
};

static int create_kv(struct sl_batch *b, const struct sl_text_config *text, struct sl_error *error)
{
    struct sl_kv_shape shape = {.layers = text->layers,
                                .kv_heads = text->kv_heads,
                                .head_dim = text->head_dim,
                                .dtype = b->options.compute,
                                .page_tokens = SL_KV_PAGE_TOKENS,
                                .pages = (b->options.kv_tokens + SL_KV_PAGE_TOKENS - 1) / SL_KV_PAGE_TOKENS,
                                .sequences = b->options.max_sequences};
    return sl_kv_create(b->device, &shape, &b->kv, error);
}

static int create_drawing(struct sl_batch *b, struct sl_error *error)
{
    size_t n = (size_t)b->options.max_sequences;
    int64_t words = b->vocabulary->words, four_bytes = (int64_t)(n * sizeof(int32_t));
    b->drawing = calloc(n, sizeof *b->drawing);
    b->draw = calloc(n, sizeof *b->draw);
    b->token = calloc(n, sizeof *b->token);
    b->logprob = calloc(n, sizeof *b->logprob);
    b->bits = calloc(n * (size_t)words, sizeof *b->bits);
    if (!b->drawing || !b->draw || !b->token || !b->logprob || !b->bits) {
        return sl_fail(error, SL_ERR_MEMORY, "out of memory: engine");
    }
    int rc = b->ops->alloc(b->device, four_bytes, &b->device_token, error);
    if (!rc) {
        rc = b->ops->alloc(b->device, four_bytes, &b->device_logprob, error);
    }
    if (!rc) {
        rc = b->ops->alloc(b->device, four_bytes * words, &b->device_seen, error);
    }
    if (!rc) {
        rc = b->ops->alloc(b->device, four_bytes * words, &b->device_allowed, error);
    }
    return rc;
}

int sl_batch_create(struct sl_device *device, struct sl_weights *weights, const struct sl_model_config *config,
                    const struct sl_vocabulary *vocabulary, const struct sl_engine_options *options,
                    struct sl_batch **out, struct sl_error *error)
{
    struct sl_batch *b = calloc(1, sizeof *b);
    if (!b) {
        return sl_fail(error, SL_ERR_MEMORY, "out of memory: engine");
    }
    b->device = device;
    b->ops = device->ops;
    b->vocabulary = vocabulary;
    b->options = *options;
    struct sl_decoder_limits limits = {.rows = options->prefill_rows + options->max_sequences,
                                       .sequences = options->max_sequences,
                                       .logit_rows = options->max_sequences,
                                       .kv_pages = (options->kv_tokens + SL_KV_PAGE_TOKENS - 1) / SL_KV_PAGE_TOKENS};
    int rc = b->ops->stream_create(device, &b->stream, error);
    if (!rc) {
        rc = sl_decoder_create(device, weights, config, options->compute, &limits, &b->decoder, error);
    }
    if (!rc) {
        rc = create_kv(b, &config->text, error);
    }
    if (!rc) {
        rc = create_drawing(b, error);
    }
    if (rc) {
        sl_batch_destroy(b);
        return rc;
    }
    *out = b;
    return SL_OK;
}

void sl_batch_destroy(struct sl_batch *b)
{
    if (!b) {
        return;
    }
    sl_kv_destroy(b->kv);
    sl_decoder_destroy(b->decoder); // before the stream: its graphs name the stream's memory
    if (b->stream) {
        b->ops->stream_destroy(b->stream);
    }
    b->ops->release(b->device, b->device_token);
    b->ops->release(b->device, b->device_logprob);
    b->ops->release(b->device, b->device_seen);
    b->ops->release(b->device, b->device_allowed);
    free(b->drawing);
    free(b->draw);
    free(b->token);
    free(b->logprob);
    free(b->bits);
    free(b);
}

int64_t sl_batch_total_tokens(const struct sl_batch *batch)
{
    return sl_kv_total_tokens(batch->kv);
}

int sl_batch_has_room(const struct sl_batch *batch, int64_t tokens)
{
    return tokens <= sl_kv_free_tokens(batch->kv);
}

// ---- Admission

static int same_segment(const struct sl_segment *a, const struct sl_segment *b)
{
    return !a->ids && !b->ids && a->visual == b->visual && a->visual_first == b->visual_first && a->rows == b->rows &&
           a->columns == b->columns;
}

// Tokens with which both prompts begin. Frame groups count as wholes.
static int64_t common_tokens(const struct sl_request *a, const struct sl_request *b)
{
    int64_t common = 0;
    for (int i = 0; i < a->segment_count && i < b->segment_count; i++) {
        const struct sl_segment *x = &a->segments[i], *y = &b->segments[i];
        if (x->ids && y->ids) {
            int64_t same = 0;
            while (same < x->count && same < y->count && x->ids[same] == y->ids[same]) {
                same++;
            }
            common += same;
            if (same < x->count || same < y->count) {
                break;
            }
        } else if (same_segment(x, y)) {
            common += x->count;
        } else {
            break;
        }
    }
    return common;
}

// Moves the prompt's walk past what is in the cache already.
static void skip_prompt(struct sl_sequence *s, int64_t tokens)
{
    struct sl_prompt_piece piece;
    for (s->prefilled = 0; s->prefilled < tokens; s->prefilled += piece.count) {
        sl_prompt_walk_next(&s->walk, tokens - s->prefilled, &piece);
    }
}

int sl_batch_admit(struct sl_batch *batch, struct sl_sequence *sequence, struct sl_sequence *const *active, int count,
                   struct sl_error *error)
{
    int64_t tokens = sequence->ticket.prompt_tokens + sequence->ticket.request.max_new_tokens, most = 0;
    const struct sl_sequence *parent = NULL;
    for (int i = 0; i < count; i++) {
        int64_t common = common_tokens(&active[i]->ticket.request, &sequence->ticket.request);
        common = common < active[i]->prefilled ? common : active[i]->prefilled;
        if (common > most) {
            most = common;
            parent = active[i];
        }
    }
    if (most == sequence->ticket.prompt_tokens) {
        most--; // one row at least, for its logits
    }
    if (most < SL_KV_PAGE_TOKENS) {
        return sl_kv_start(batch->kv, tokens, &sequence->kv, error);
    }
    int rc = sl_kv_fork(batch->stream, &parent->kv, most, tokens, &sequence->kv, error);
    if (!rc) {
        skip_prompt(sequence, most);
    }
    return rc;
}

// ---- Rows

// The rows added since `first` are one sequence's; `wants_logits` of the last of them.
static void close_rows(struct sl_batch *b, struct sl_sequence *s, int first, int wants_logits)
{
    struct sl_step *step = sl_decoder_step(b->decoder);
    sl_kv_grow(&s->kv, step->rows - first);
    step->kv[step->sequences++] = &s->kv;
    step->row_start[step->sequences] = step->rows;
    if (wants_logits) {
        b->draw[step->logit_rows] = sl_sequence_draw(s);
        b->drawing[step->logit_rows] = s;
        step->logit_row[step->logit_rows++] = step->rows - 1;
    }
}

static void add_decode_row(struct sl_batch *b, struct sl_sequence *s)
{
    struct sl_step *step = sl_decoder_step(b->decoder);
    int row = step->rows++;
    step->ids[row] = s->ids[s->generated - 1];
    for (int axis = 0; axis < 3; axis++) {
        step->position[axis][row] = (int32_t)(s->ticket.end_position + s->generated - 1);
    }
    close_rows(b, s, row, 1);
}

static int add_features(struct sl_batch *b, const struct sl_prompt_piece *piece, struct sl_error *error)
{
    struct sl_step *step = sl_decoder_step(b->decoder);
    struct sl_tensor features, deepstack[SL_MAX_DEEPSTACK];
    const struct sl_visual *visual = piece->segment->visual;
    sl_decoder_visual(b->decoder, step->visual_rows, (int)piece->count, &features, deepstack);
    for (int i = 0; i < piece->count; i++) {
        step->visual_row[step->visual_rows++] = step->rows + i;
    }
    return visual->features(visual->context, b->stream, piece->segment->visual_first + piece->offset, piece->count,
                            &features, deepstack, error);
}

static int add_piece(struct sl_batch *b, const struct sl_prompt_piece *piece, struct sl_error *error)
{
    struct sl_step *step = sl_decoder_step(b->decoder);
    int rc = SL_OK, row = step->rows;
    sl_prompt_piece_positions(piece, step->position[0] + row, step->position[1] + row, step->position[2] + row);
    if (piece->segment->ids) {
        memcpy(step->ids + row, piece->segment->ids + piece->offset, (size_t)piece->count * sizeof *step->ids);
    } else {
        memset(step->ids + row, 0, (size_t)piece->count * sizeof *step->ids);
        rc = add_features(b, piece, error);
    }
    step->rows += (int)piece->count;
    return rc;
}

// Up to `limit` rows of the prompt. A failing provider takes its request with it, not the step.
static void add_prompt_rows(struct sl_batch *b, struct sl_sequence *s, int limit)
{
    struct sl_step *step = sl_decoder_step(b->decoder);
    int first = step->rows, first_visual = step->visual_rows;
    struct sl_prompt_piece piece;
    struct sl_error error = {0};
    while (step->rows - first < limit && sl_prompt_walk_next(&s->walk, limit - (step->rows - first), &piece)) {
        if (add_piece(b, &piece, &error)) {
            step->rows = first;
            step->visual_rows = first_visual;
            sl_sequence_stop(s, SL_FINISH_FAILED, &error);
            return;
        }
    }
    s->prefilled += step->rows - first;
    close_rows(b, s, first, sl_sequence_is_decoding(s));
}

static void collect_rows(struct sl_batch *b, struct sl_sequence *const *active, int count)
{
    struct sl_step *step = sl_decoder_step(b->decoder);
    int left = b->options.prefill_rows;
    step->sequences = step->rows = step->visual_rows = step->logit_rows = 0;
    step->row_start[0] = 0;
    for (int i = 0; i < count; i++) {
        if (sl_sequence_is_decoding(active[i])) {
            add_decode_row(b, active[i]);
        }
    }
    for (int i = 0, decoding = step->rows; i < count && left > 0; i++) {
        if (!sl_sequence_is_decoding(active[i])) {
            add_prompt_rows(b, active[i], left);
            left = b->options.prefill_rows - (step->rows - decoding);
        }
    }
}

// ---- Drawing

static const struct sl_tensor *upload_bits(struct sl_batch *b, int rows, void *to, struct sl_tensor *bits)
{
    *bits = sl_tensor_2d(to, SL_I32, rows, b->vocabulary->words);
    b->ops->upload(b->stream, to, b->bits, sl_tensor_bytes(bits));
    return bits;
}

// Bits of the tokens generated so far; NULL when nobody has a presence penalty.
static const struct sl_tensor *upload_seen(struct sl_batch *b, int rows, struct sl_tensor *seen)
{
    size_t words = (size_t)b->vocabulary->words;
    int wanted = 0;
    for (int i = 0; i < rows; i++) {
        wanted |= b->draw[i].presence != 0;
    }
    for (int i = 0; i < rows && wanted; i++) {
        memcpy(b->bits + (size_t)i * words, b->drawing[i]->seen, words * sizeof *b->bits);
    }
    return wanted ? upload_bits(b, rows, b->device_seen, seen) : NULL;
}

// Bits of the tokens that the grammars admit; NULL when nobody is bound by one.
static const struct sl_tensor *upload_allowed(struct sl_batch *b, int rows, struct sl_tensor *allowed)
{
    size_t words = (size_t)b->vocabulary->words;
    int wanted = 0;
    for (int i = 0; i < rows; i++) {
        wanted |= sl_sequence_is_bound(b->drawing[i]);
    }
    for (int i = 0; i < rows && wanted; i++) {
        uint32_t *bits = b->bits + (size_t)i * words;
        if (sl_sequence_is_bound(b->drawing[i])) {
            sl_sequence_mask(b->drawing[i], b->vocabulary, bits);
        } else {
            memset(bits, 0xff, words * sizeof *bits);
        }
    }
    return wanted ? upload_bits(b, rows, b->device_allowed, allowed) : NULL;
}

static void draw(struct sl_batch *b, const struct sl_tensor *logits)
{
    int rows = (int)logits->shape[0];
    struct sl_tensor seen, allowed, token = sl_tensor_1d(b->device_token, SL_I32, rows);
    struct sl_tensor logprob = sl_tensor_1d(b->device_logprob, SL_F32, rows);
    b->ops->sample(b->stream, logits, b->draw, upload_allowed(b, rows, &allowed), upload_seen(b, rows, &seen), &token,
                   &logprob);
    b->ops->download(b->stream, b->token, token.data, sl_tensor_bytes(&token));
    b->ops->download(b->stream, b->logprob, logprob.data, sl_tensor_bytes(&logprob));
}

// ---- A step

// A stream that failed keeps failing; those after need another.
static void renew_stream(struct sl_batch *b)
{
    struct sl_stream *stream;
    if (b->ops->stream_create(b->device, &stream, NULL) == SL_OK) {
        sl_decoder_forget_stream(b->decoder);
        b->ops->stream_destroy(b->stream);
        b->stream = stream;
    }
}

static void fail_all(struct sl_batch *b, struct sl_sequence *const *active, int count, const struct sl_error *error)
{
    for (int i = 0; i < count; i++) {
        if (!active[i]->done) {
            sl_sequence_stop(active[i], SL_FINISH_FAILED, error);
        }
    }
    renew_stream(b);
}

void sl_batch_step(struct sl_batch *batch, struct sl_sequence *const *active, int count)
{
    struct sl_batch *b = batch;
    const struct sl_step *step = sl_decoder_step(b->decoder);
    struct sl_error error = {0};
    struct sl_tensor logits;
    collect_rows(b, active, count);
    if (step->rows) {
        sl_decoder_run(b->decoder, b->stream, b->kv, &logits);
    }
    if (step->logit_rows) {
        draw(b, &logits);
    }
    if (b->ops->wait(b->stream, &error)) {
        fail_all(b, active, count, &error);
        return;
    }
    int64_t now = sl_now_us();
    for (int i = 0; i < step->logit_rows; i++) {
        struct sl_sequence *s = b->drawing[i];
        s->decoding_us = s->decoding_us ? s->decoding_us : now;
        sl_sequence_take(s, b->vocabulary, b->token[i], b->logprob[i]);
    }
}
