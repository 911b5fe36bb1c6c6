// SPDX-License-Identifier: Apache-2.0
// sl-trace: every stage from sampled frames to the greedy continuation, written into one safetensors file, so that
// anyone can hold scenelog against another implementation.
//
//   sl-trace -m MODEL_DIR -o OUT.safetensors [--fps R] [--from T] [--to T] [--prompt TEXT] [--max-tokens-per-pair N]
//            [--device auto|cpu|cuda[:N]] [--compute f32|bf16] [--new-tokens N] [--threads N] VIDEO | --frames DIR
//
// --frames DIR takes pictures and times from DIR/model.safetensors instead of a video: "pixels" U8 [T, H, W, 3],
// already at the model's size, and "sample_us" I32 [T].
//
// Tensors written: sample_us and pts_us I64 [T]; pixels U8 [T, H, W, 3]; patches F32 [patches, columns]; grid_thw I32
// [3]; token_ids I32 [L] (visual tokens as the video token); position_ids I32 [3, L]; vision F32 [tokens, hidden];
// deepstack_K F32 [tokens, hidden]; logits F32 [vocab] of the last prompt position; continuation I32 [N].
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/half.h"
#include "decode/decode.h"
#include "lm/decoder.h"
#include "lm/kv.h"
#include "lm/lm.h"
#include "lm/position.h"
#include "src/model.h"
#include "src/options.h"
#include "tests/tools/tensor_file.h"
#include "vision/vision.h"

struct options {
    const char *model_dir, *out, *video, *frames_dir, *prompt, *device;
    struct sl_source_options source;
    int64_t max_tokens_per_pair, new_tokens, threads;
    enum sl_dtype compute;
};

struct trace {
    struct options o;
    struct sl_model_config config;
    struct sl_weights *weights, *given;
    struct sl_tokenizer *tokenizer;
    struct sl_device *device;
    struct sl_stream *stream;
    struct tensor_file file;
    int frames, width, height, grid_h, grid_w;
    int64_t *sample_us, *pts_us;
    uint8_t *pixels; // [frames, height, width, 3]
    void *patches, *vision_out, *taps[SL_MAX_DEEPSTACK];
    struct sl_tensor features, deepstack[SL_MAX_DEEPSTACK];
    int64_t visual_tokens;
    struct sl_prompt prompt;
};

static int out_of_memory(struct sl_error *e)
{
    return sl_fail(e, SL_ERR_MEMORY, "out of memory");
}

static int keep(struct trace *t, const char *name, const char *dtype, int rank, const int64_t *shape, const void *data,
                struct sl_error *e)
{
    return tensor_file_add(&t->file, name, dtype, rank, shape, data) ? SL_OK : out_of_memory(e);
}

// Keeps a device tensor as F32.
static int keep_device(struct trace *t, const char *name, const struct sl_tensor *tensor, struct sl_error *e)
{
    int64_t n = sl_tensor_elements(tensor);
    uint16_t *raw = malloc((size_t)sl_tensor_bytes(tensor));
    float *values = malloc((size_t)n * sizeof *values);
    int status = raw != NULL && values != NULL ? SL_OK : out_of_memory(e);
    if (status == SL_OK) {
        t->device->ops->download(t->stream, raw, tensor->data, sl_tensor_bytes(tensor));
        status = t->device->ops->wait(t->stream, e);
    }
    for (int64_t i = 0; i < n && status == SL_OK; i++) {
        values[i] = tensor->dtype == SL_BF16 ? sl_bf16_to_f32(raw[i]) : ((float *)(void *)raw)[i];
    }
    if (status == SL_OK) {
        status = keep(t, name, "F32", tensor->rank, tensor->shape, values, e);
    }
    free(raw);
    free(values);
    return status;
}

// ---- Frames

static int grow_frames(struct trace *t, struct sl_error *e)
{
    size_t n = (size_t)t->frames + 2; // one more, and the pair of an odd last frame
    int64_t *samples = realloc(t->sample_us, n * sizeof *samples);
    t->sample_us = samples != NULL ? samples : t->sample_us;
    int64_t *pts = realloc(t->pts_us, n * sizeof *pts);
    t->pts_us = pts != NULL ? pts : t->pts_us;
    return samples != NULL && pts != NULL ? SL_OK : out_of_memory(e);
}

static int add_sample(struct trace *t, struct sl_frame ***held, const struct sl_sample *sample, struct sl_error *e)
{
    struct sl_frame **grown = realloc(*held, ((size_t)t->frames + 1) * sizeof(struct sl_frame *));
    if (grown == NULL) {
        sl_frame_unref(sample->frame);
        return out_of_memory(e);
    }
    *held = grown;
    int status = grow_frames(t, e);
    if (status != SL_OK) {
        sl_frame_unref(sample->frame);
        return status;
    }
    grown[t->frames] = sample->frame;
    t->sample_us[t->frames] = sample->sample_us;
    t->pts_us[t->frames++] = sample->frame->pts_us;
    return SL_OK;
}

static int resize_all(struct trace *t, struct sl_frame **held, struct sl_error *e)
{
    int64_t shown_w = 0;
    int64_t shown_h = 0;
    sl_vision_shown_size(held[0], &shown_w, &shown_h);
    int status = sl_vision_picture_size(&t->config, shown_w, shown_h, t->frames, (int)t->o.max_tokens_per_pair,
                                        &t->width, &t->height, e);
    if (status != SL_OK) {
        return status;
    }
    size_t picture = (size_t)t->width * (size_t)t->height * 3;
    t->pixels = malloc(picture * ((size_t)t->frames + 1));
    void *device = NULL;
    status = t->pixels != NULL ? t->device->ops->alloc(t->device, (int64_t)picture, &device, e) : out_of_memory(e);
    for (int i = 0; i < t->frames && status == SL_OK; i++) {
        struct sl_tensor out = sl_tensor_3d(device, SL_U8, t->height, t->width, 3);
        t->device->ops->image_resize(t->stream, held[i], &out);
        t->device->ops->download(t->stream, t->pixels + (size_t)i * picture, device, (int64_t)picture);
        status = t->device->ops->wait(t->stream, e);
    }
    t->device->ops->release(t->device, device);
    return status;
}

static int frames_of_video(struct trace *t, struct sl_error *e)
{
    struct sl_source *source = NULL;
    struct sl_frame **held = NULL;
    int status = sl_source_open(t->o.video, &t->o.source, &source, e);
    while (status == SL_OK) {
        struct sl_sample sample;
        status = sl_source_next(source, &sample, e);
        if (status == SL_OK) {
            status = add_sample(t, &held, &sample, e);
        }
    }
    sl_source_close(source);
    if (status == SL_END) {
        status = t->frames > 0 ? resize_all(t, held, e) : sl_fail(e, SL_ERR_USAGE, "no samples in this span");
    }
    for (int i = 0; i < t->frames && held != NULL; i++) {
        sl_frame_unref(held[i]);
    }
    free(held);
    return status;
}

static int frames_of_file(struct trace *t, struct sl_error *e)
{
    struct sl_tensor pixels;
    struct sl_tensor times;
    int status = sl_weights_open(t->o.frames_dir, &t->given, e);
    if (status != SL_OK) {
        return status;
    }
    if (!sl_weights_find(t->given, "pixels", &pixels) || !sl_weights_find(t->given, "sample_us", &times) ||
        pixels.dtype != SL_U8 || pixels.rank != 4 || times.dtype != SL_I32 || times.shape[0] != pixels.shape[0]) {
        return sl_fail(e, SL_ERR_USAGE, "%s: needs pixels U8 [T, H, W, 3] and sample_us I32 [T]", t->o.frames_dir);
    }
    t->height = (int)pixels.shape[1];
    t->width = (int)pixels.shape[2];
    size_t picture = (size_t)t->width * (size_t)t->height * 3;
    t->pixels = malloc(picture * ((size_t)pixels.shape[0] + 1));
    if (t->pixels == NULL) {
        return out_of_memory(e);
    }
    memcpy(t->pixels, pixels.data, picture * (size_t)pixels.shape[0]);
    for (t->frames = 0; t->frames < pixels.shape[0]; t->frames++) {
        status = grow_frames(t, e);
        if (status != SL_OK) {
            return status;
        }
        t->sample_us[t->frames] = ((const int32_t *)times.data)[t->frames];
        t->pts_us[t->frames] = t->sample_us[t->frames];
    }
    return SL_OK;
}

static int keep_frames(struct trace *t, struct sl_error *e)
{
    int64_t shape[4] = {t->frames, t->height, t->width, 3};
    int status = keep(t, "sample_us", "I64", 1, shape, t->sample_us, e);
    status = status == SL_OK ? keep(t, "pts_us", "I64", 1, shape, t->pts_us, e) : status;
    status = status == SL_OK ? keep(t, "pixels", "U8", 4, shape, t->pixels, e) : status;
    if (t->frames % 2 != 0) {
        size_t picture = (size_t)t->width * (size_t)t->height * 3;
        memcpy(t->pixels + (size_t)t->frames * picture, t->pixels + (size_t)(t->frames - 1) * picture, picture);
        t->sample_us[t->frames] = t->sample_us[t->frames - 1];
        t->frames++;
    }
    return status;
}

// ---- Vision

static int run_vision(struct trace *t, struct sl_error *e)
{
    const struct sl_vision_config *v = &t->config.vision;
    const struct sl_device_ops *ops = t->device->ops;
    t->grid_h = t->height / v->patch;
    t->grid_w = t->width / v->patch;
    int groups = t->frames / 2;
    int64_t rows = (int64_t)t->grid_h * t->grid_w;
    int64_t columns = (int64_t)v->channels * v->temporal_patch * v->patch * v->patch;
    size_t picture = (size_t)t->width * (size_t)t->height * 3;
    t->visual_tokens = rows * groups / (v->merge * v->merge);
    struct sl_tensor patches = sl_tensor_2d(NULL, t->o.compute, rows * groups, columns);
    t->features = sl_tensor_2d(NULL, t->o.compute, t->visual_tokens, v->out_hidden);
    void *rgb = NULL;
    struct sl_vision *vision = NULL;
    int status = ops->alloc(t->device, (int64_t)picture * t->frames, &rgb, e);
    status = status == SL_OK ? ops->alloc(t->device, sl_tensor_bytes(&patches), &t->patches, e) : status;
    status = status == SL_OK ? ops->alloc(t->device, sl_tensor_bytes(&t->features), &t->vision_out, e) : status;
    for (int k = 0; k < v->deepstack_count && status == SL_OK; k++) {
        status = ops->alloc(t->device, sl_tensor_bytes(&t->features), &t->taps[k], e);
        t->deepstack[k] = t->features;
        t->deepstack[k].data = t->taps[k];
    }
    patches.data = t->patches;
    t->features.data = t->vision_out;
    if (status == SL_OK) {
        status = sl_vision_create(t->device, t->weights, &t->config, t->o.compute, rows * groups, &vision, e);
    }
    if (status == SL_OK) {
        ops->upload(t->stream, rgb, t->pixels, (int64_t)picture * t->frames);
    }
    for (int g = 0; g < groups && status == SL_OK; g++) {
        struct sl_tensor pair[2];
        for (int i = 0; i < 2; i++) {
            pair[i] = sl_tensor_3d((uint8_t *)rgb + (size_t)(2 * g + i) * picture, SL_U8, t->height, t->width, 3);
        }
        struct sl_tensor target = sl_tensor_rows(&patches, g * rows, rows);
        ops->patchify(t->stream, pair, 2, v->patch, v->merge, t->config.video.mean, t->config.video.std, &target);
    }
    if (status == SL_OK) {
        status =
            sl_vision_encode(vision, t->stream, &patches, groups, t->grid_h, t->grid_w, &t->features, t->deepstack, e);
    }
    int32_t thw[3] = {groups, t->grid_h, t->grid_w};
    int64_t three = 3;
    status = status == SL_OK ? keep(t, "grid_thw", "I32", 1, &three, thw, e) : status;
    status = status == SL_OK ? keep_device(t, "patches", &patches, e) : status;
    status = status == SL_OK ? keep_device(t, "vision", &t->features, e) : status;
    for (int k = 0; k < v->deepstack_count && status == SL_OK; k++) {
        char name[32];
        snprintf(name, sizeof name, "deepstack_%d", k);
        status = keep_device(t, name, &t->deepstack[k], e);
    }
    sl_vision_destroy(vision);
    ops->release(t->device, rgb);
    return status;
}

// ---- Prompt and decoder

static int no_features(void *context, struct sl_stream *stream, int64_t first, int64_t count,
                       const struct sl_tensor *out, const struct sl_tensor *deepstack, struct sl_error *e)
{
    (void)context, (void)stream, (void)first, (void)count, (void)out, (void)deepstack;
    return sl_fail(e, SL_ERR_INTERNAL, "sl-trace places the features itself");
}

static int lay_out(struct trace *t, const struct sl_visual *visual, struct sl_error *e)
{
    int pairs = t->frames / 2;
    int merge = t->config.vision.merge;
    struct sl_prompt_pair *pair = calloc((size_t)pairs, sizeof *pair);
    if (pair == NULL) {
        return out_of_memory(e);
    }
    for (int i = 0; i < pairs; i++) {
        pair[i] = (struct sl_prompt_pair){t->sample_us[2 * i], t->sample_us[2 * i + 1]};
    }
    int status = sl_prompt_create(t->tokenizer, &t->config, pair, pairs, t->grid_h / merge, t->grid_w / merge, visual,
                                  NULL, t->o.prompt, &t->prompt, e);
    free(pair);
    return status;
}

// The whole prompt as one step.
static int fill_step(struct trace *t, struct sl_step *step, struct sl_error *e)
{
    struct sl_prompt_walk walk = {.segments = t->prompt.segments, .segment_count = t->prompt.segment_count};
    struct sl_prompt_piece piece;
    int row = 0;
    int visual = 0;
    while (sl_prompt_walk_next(&walk, t->prompt.tokens, &piece)) {
        sl_prompt_piece_positions(&piece, step->position[0] + row, step->position[1] + row, step->position[2] + row);
        for (int64_t i = 0; i < piece.count; i++, row++) {
            if (piece.segment->ids != NULL) {
                step->ids[row] = piece.segment->ids[piece.offset + i];
            } else {
                step->ids[row] = t->config.video_token;
                step->visual_row[visual++] = row;
            }
        }
    }
    step->rows = row;
    step->visual_rows = visual;
    step->sequences = 1;
    step->row_start[0] = 0;
    step->row_start[1] = row;
    step->logit_rows = 1;
    step->logit_row[0] = row - 1;
    int64_t shape[2] = {3, row};
    int status = keep(t, "token_ids", "I32", 1, shape + 1, step->ids, e);
    int32_t *positions = malloc((size_t)row * 3 * sizeof *positions);
    if (positions == NULL) {
        return out_of_memory(e);
    }
    for (int axis = 0; axis < 3; axis++) {
        memcpy(positions + (size_t)axis * (size_t)row, step->position[axis], (size_t)row * sizeof *positions);
    }
    status = status == SL_OK ? keep(t, "position_ids", "I32", 2, shape, positions, e) : status;
    free(positions);
    return status;
}

static int32_t argmax(const float *values, int64_t n)
{
    int64_t best = 0;
    for (int64_t i = 1; i < n; i++) {
        best = values[i] > values[best] ? i : best;
    }
    return (int32_t)best;
}

static int generate(struct trace *t, struct sl_decoder *decoder, struct sl_kv *kv, struct sl_kv_sequence *sequence,
                    struct sl_error *e)
{
    struct sl_step *step = sl_decoder_step(decoder);
    int64_t vocab = t->config.text.vocab;
    float *row = malloc((size_t)vocab * sizeof *row);
    int32_t *ids = malloc(((size_t)t->o.new_tokens + 1) * sizeof *ids);
    int64_t position = 0;
    int64_t tokens = 0;
    int status = row != NULL && ids != NULL ? SL_OK : out_of_memory(e);
    status = status == SL_OK ? sl_prompt_measure(t->prompt.segments, t->prompt.segment_count, &tokens, &position, e)
                             : status;
    int64_t made = 0;
    for (; status == SL_OK; made++) {
        struct sl_tensor logits;
        sl_kv_grow(sequence, step->rows);
        const struct sl_kv_sequence *const_sequence = sequence;
        step->kv[0] = const_sequence;
        sl_decoder_run(decoder, t->stream, kv, &logits);
        t->device->ops->download(t->stream, row, logits.data, vocab * (int64_t)sizeof *row);
        status = t->device->ops->wait(t->stream, e);
        if (status == SL_OK && made == 0) {
            status = keep(t, "logits", "F32", 1, &vocab, row, e);
        }
        if (status != SL_OK || made == t->o.new_tokens) {
            break;
        }
        ids[made] = argmax(row, vocab);
        step->rows = 1;
        step->visual_rows = 0;
        step->row_start[1] = 1;
        step->logit_row[0] = 0;
        step->ids[0] = ids[made];
        for (int axis = 0; axis < 3; axis++) {
            step->position[axis][0] = (int32_t)position;
        }
        position++;
    }
    status = status == SL_OK ? keep(t, "continuation", "I32", 1, &made, ids, e) : status;
    free(row);
    free(ids);
    return status;
}

static int run_decoder(struct trace *t, struct sl_error *e)
{
    struct sl_visual visual = {.features = no_features};
    int status = lay_out(t, &visual, e);
    if (status != SL_OK) {
        return status;
    }
    const struct sl_text_config *text = &t->config.text;
    int64_t total = t->prompt.tokens + t->o.new_tokens + 1;
    int64_t pages = total / SL_KV_PAGE_TOKENS + 2;
    struct sl_kv_shape shape = {.layers = text->layers,
                                .kv_heads = text->kv_heads,
                                .head_dim = text->head_dim,
                                .dtype = t->o.compute,
                                .page_tokens = SL_KV_PAGE_TOKENS,
                                .pages = pages,
                                .sequences = 1};
    struct sl_decoder_limits limits = {
        .rows = (int)t->prompt.tokens, .sequences = 1, .logit_rows = 1, .kv_pages = pages};
    struct sl_kv *kv = NULL;
    struct sl_decoder *decoder = NULL;
    struct sl_kv_sequence sequence = {0};
    status = sl_kv_create(t->device, &shape, &kv, e);
    status = status == SL_OK ? sl_decoder_create(t->device, t->weights, &t->config, t->o.compute, &limits, &decoder, e)
                             : status;
    status = status == SL_OK ? sl_kv_start(kv, total, &sequence, e) : status;
    status = status == SL_OK ? fill_step(t, sl_decoder_step(decoder), e) : status;
    if (status == SL_OK && t->visual_tokens > 0) {
        struct sl_tensor features;
        struct sl_tensor deepstack[SL_MAX_DEEPSTACK];
        int64_t bytes = sl_tensor_bytes(&t->features);
        sl_decoder_visual(decoder, 0, (int)t->visual_tokens, &features, deepstack);
        t->device->ops->copy(t->stream, features.data, t->features.data, bytes);
        for (int k = 0; k < t->config.vision.deepstack_count; k++) {
            t->device->ops->copy(t->stream, deepstack[k].data, t->deepstack[k].data, bytes);
        }
    }
    status = status == SL_OK ? generate(t, decoder, kv, &sequence, e) : status;
    sl_kv_finish(&sequence);
    sl_decoder_destroy(decoder);
    sl_kv_destroy(kv);
    return status;
}

// ---- The tool

static int open_model(struct trace *t, struct sl_error *e)
{
    int status = sl_config_read(t->o.model_dir, &t->config, e);
    status = status == SL_OK ? sl_tokenizer_open(t->o.model_dir, &t->tokenizer, e) : status;
    status = status == SL_OK ? sl_weights_open(t->o.model_dir, &t->weights, e) : status;
    status = status == SL_OK ? sl_model_open_device(t->o.device, (int)t->o.threads, 0, &t->device, e) : status;
    return status == SL_OK ? t->device->ops->stream_create(t->device, &t->stream, e) : status;
}

static void close_all(struct trace *t)
{
    if (t->device != NULL) {
        t->device->ops->release(t->device, t->patches);
        t->device->ops->release(t->device, t->vision_out);
        for (int k = 0; k < SL_MAX_DEEPSTACK; k++) {
            t->device->ops->release(t->device, t->taps[k]);
        }
        if (t->stream != NULL) {
            t->device->ops->stream_destroy(t->stream);
        }
        t->device->ops->destroy(t->device);
    }
    sl_prompt_finish(&t->prompt);
    sl_tokenizer_close(t->tokenizer);
    sl_weights_close(t->weights);
    sl_weights_close(t->given);
    tensor_file_finish(&t->file);
    free(t->sample_us);
    free(t->pts_us);
    free(t->pixels);
}

static int run(struct trace *t, struct sl_error *e)
{
    int status = open_model(t, e);
    if (status == SL_OK) {
        status = t->o.frames_dir != NULL ? frames_of_file(t, e) : frames_of_video(t, e);
    }
    status = status == SL_OK ? keep_frames(t, e) : status;
    status = status == SL_OK ? run_vision(t, e) : status;
    status = status == SL_OK ? run_decoder(t, e) : status;
    return status == SL_OK ? tensor_file_write(&t->file, t->o.out, e) : status;
}

static int parse(int argc, char **argv, struct options *o, struct sl_error *e)
{
    enum { FPS = 256, FROM, TO, PROMPT, TOKENS, COMPUTE, NEW, THREADS, FRAMES, DEVICE };
    static const struct option names[] = {{"fps", 1, NULL, FPS},
                                          {"from", 1, NULL, FROM},
                                          {"to", 1, NULL, TO},
                                          {"prompt", 1, NULL, PROMPT},
                                          {"compute", 1, NULL, COMPUTE},
                                          {"max-tokens-per-pair", 1, NULL, TOKENS},
                                          {"new-tokens", 1, NULL, NEW},
                                          {"threads", 1, NULL, THREADS},
                                          {"frames", 1, NULL, FRAMES},
                                          {"device", 1, NULL, DEVICE},
                                          {NULL, 0, NULL, 0}};
    sl_source_defaults(&o->source);
    o->prompt = "Describe this video.";
    o->device = "cpu";
    o->new_tokens = 64;
    o->compute = SL_F32;
    opterr = 0;
    int option = 0;
    int status = SL_OK;
    while (status == SL_OK && (option = getopt_long(argc, argv, ":m:o:", names, NULL)) != -1) {
        switch (option) {
        case 'm':
            o->model_dir = optarg;
            break;
        case 'o':
            o->out = optarg;
            break;
        case FPS:
            status = sl_option_rate("--fps", optarg, &o->source.fps_num, &o->source.fps_den, e);
            break;
        case FROM:
            status = sl_option_span("--from", optarg, &o->source.from_us, e);
            break;
        case TO:
            status = sl_option_span("--to", optarg, &o->source.to_us, e);
            break;
        case PROMPT:
            o->prompt = optarg;
            break;
        case TOKENS:
            status = sl_option_int("--max-tokens-per-pair", optarg, 1, 16384, &o->max_tokens_per_pair, e);
            break;
        case NEW:
            status = sl_option_int("--new-tokens", optarg, 0, 100000, &o->new_tokens, e);
            break;
        case THREADS:
            status = sl_option_int("--threads", optarg, 1, 1024, &o->threads, e);
            break;
        case FRAMES:
            o->frames_dir = optarg;
            break;
        case DEVICE:
            o->device = optarg;
            break;
        case COMPUTE:
            o->compute = strcmp(optarg, "bf16") == 0 ? SL_BF16 : SL_F32;
            break;
        default:
            status = sl_fail(e, SL_ERR_USAGE, "%s: unknown or without its value", argv[optind - 1]);
        }
    }
    o->video = optind < argc ? argv[optind] : NULL;
    if (status == SL_OK && (o->model_dir == NULL || o->out == NULL || (o->video == NULL) == (o->frames_dir == NULL))) {
        status = sl_fail(e, SL_ERR_USAGE, "sl-trace -m MODEL_DIR -o OUT.safetensors [OPTIONS] VIDEO | --frames DIR");
    }
    return status;
}

int main(int argc, char **argv)
{
    struct trace trace = {0};
    struct sl_error error = {0};
    int status = parse(argc, argv, &trace.o, &error);
    if (status == SL_OK) {
        status = run(&trace, &error);
        close_all(&trace);
    }
    return status == SL_OK ? 0 : sl_report(&error);
}
