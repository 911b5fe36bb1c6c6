// SPDX-License-Identifier: Apache-2.0
#include "src/bench_model.h"

#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "src/clip.h"
#include "src/cost.h"
#include "src/reference.h"

enum {
    STEPS = 32,        // of one stretch of decoding
    SLACK_TOKENS = 64, // a page
    WARM_UP_TOKENS = 16,
};

struct bench {
    struct sl_bench_options o; // with what the device makes sensible
    struct sl_model model;     // without a tokenizer
    struct sl_eye *eye;
    struct sl_stream *stream; // of the thread that fills clips
    struct sl_frame *frame[2];
    int64_t kv_tokens;
    int64_t free_before;
    struct sl_bench_figures *f;
};

static const struct sl_device_ops *ops_of(const struct bench *b)
{
    return b->model.device->ops;
}

static int is_gpu(const struct bench *b)
{
    return b->f->device.threads == 0;
}

// ---- What to measure

// A CPU is given what it does in a minute or two with the smallest published model.
static void complete(struct sl_bench_options *o, int gpu)
{
    static const int64_t gpu_batch[] = {1, 8, 32};
    static const int64_t cpu_batch[] = {1, 4};
    if (o->parts == 0) {
        o->parts = SL_BENCH_LOAD | SL_BENCH_VISION | SL_BENCH_PREFILL | SL_BENCH_DECODE;
        o->parts |= gpu ? SL_BENCH_ANSWER | SL_BENCH_CHUNK : 0;
    }
    if (o->batch_count == 0) {
        o->batch_count = gpu ? 3 : 2;
        memcpy(o->batch, gpu ? gpu_batch : cpu_batch, (size_t)o->batch_count * sizeof *o->batch);
    }
    o->context = o->context > 0 ? o->context : gpu ? 4096 : 512;
    o->pairs = o->pairs > 0 ? o->pairs : gpu ? 64 : 1;
    o->prompt_tokens = o->prompt_tokens > 0 ? o->prompt_tokens : gpu ? 4096 : 2048;
    o->prefill_rows = o->prefill_rows > 0 ? o->prefill_rows : gpu ? 4096 : 2048;
    o->width = o->width > 0 ? o->width : 640;
    o->height = o->height > 0 ? o->height : 352;
    o->picture_width = o->picture_width > 0 ? o->picture_width : SL_BENCH_PICTURE_WIDTH;
    o->picture_height = o->picture_height > 0 ? o->picture_height : SL_BENCH_PICTURE_HEIGHT;
    o->answer_tokens = o->answer_tokens > 0 ? o->answer_tokens : SL_BENCH_ANSWER_TOKENS;
}

static int64_t patches_of(const struct bench *b, int64_t width, int64_t height)
{
    const struct sl_vision_config *v = &b->model.config.vision;
    int64_t unit = (int64_t)v->patch * v->merge;
    return width / unit * (height / unit) * v->merge * v->merge;
}

// Visual tokens of the picture that is answered, whose sides are rounded to whole ones: 60 x 34 for 1920x1080.
static int64_t picture_tokens(const struct bench *b)
{
    int64_t unit = (int64_t)b->model.config.vision.patch * b->model.config.vision.merge;
    int64_t columns = (b->o.picture_width + unit / 2) / unit, rows = (b->o.picture_height + unit / 2) / unit;
    return (columns > 0 ? columns : 1) * (rows > 0 ? rows : 1);
}

// The most patches of one call: all pairs at once.
static int64_t most_patches(const struct bench *b)
{
    int64_t most = 0, others[3] = {0, 0, 0};
    if (b->o.parts & (SL_BENCH_VISION | SL_BENCH_PREFILL)) {
        others[2] = patches_of(b, b->o.width, b->o.height) * b->o.pairs;
    }
    if (b->o.parts & SL_BENCH_ANSWER) {
        others[0] = picture_tokens(b) * b->model.config.vision.merge * b->model.config.vision.merge;
    }
    if (b->o.parts & SL_BENCH_CHUNK) {
        others[1] = patches_of(b, SL_BENCH_CHUNK_SIDE, SL_BENCH_CHUNK_SIDE) * SL_BENCH_CHUNK_PAIRS;
    }
    for (int i = 0; i < 3; i++) {
        most = others[i] > most ? others[i] : most;
    }
    return most;
}

static int64_t tokens_of_clip(int64_t pairs, int64_t per_pair)
{
    return pairs * (per_pair + SL_ASK_LABEL_IDS) + SL_ASK_QUESTION_IDS;
}

static int64_t tokens_of_chunk(const struct bench *b)
{
    int merge = b->model.config.vision.merge;
    return tokens_of_clip(SL_BENCH_CHUNK_PAIRS,
                          patches_of(b, SL_BENCH_CHUNK_SIDE, SL_BENCH_CHUNK_SIDE) / merge / merge);
}

// Tokens that each sequence of a batch generates: while the others are prefilled, and then for the measuring.
static int64_t decode_tokens(const struct bench *b, int64_t batch)
{
    int64_t filling = (batch * b->o.context + b->o.prefill_rows - 1) / b->o.prefill_rows + batch;
    return filling + b->o.repeat * STEPS + 1;
}

static int64_t tokens_of_batch(const struct bench *b, int64_t batch)
{
    return batch * (b->o.context + decode_tokens(b, batch) + SLACK_TOKENS);
}

static void raise_to(int64_t *most, int64_t value)
{
    *most = value > *most ? value : *most;
}

// KV tokens and sequences that all parts want.
static void plan(const struct bench *b, int64_t *kv_tokens, int64_t *sequences)
{
    const struct sl_bench_options *o = &b->o;
    int64_t area = (int64_t)b->model.config.vision.merge * b->model.config.vision.merge;
    *kv_tokens = *sequences = 1;
    if (o->parts & SL_BENCH_PREFILL) {
        raise_to(kv_tokens, tokens_of_clip(o->pairs, patches_of(b, o->width, o->height) / area) + SLACK_TOKENS);
        raise_to(kv_tokens, o->prompt_tokens + SLACK_TOKENS);
    }
    for (int i = 0; i < o->batch_count && o->parts & SL_BENCH_DECODE; i++) {
        raise_to(kv_tokens, tokens_of_batch(b, o->batch[i]));
        raise_to(sequences, o->batch[i]);
    }
    if (o->parts & SL_BENCH_ANSWER) {
        raise_to(kv_tokens, tokens_of_clip(1, picture_tokens(b)) + o->answer_tokens + SLACK_TOKENS);
    }
    if (o->parts & SL_BENCH_CHUNK) {
        raise_to(kv_tokens, SL_BENCH_MAX_CHUNKS * (tokens_of_chunk(b) + 100 + SLACK_TOKENS));
        raise_to(sequences, SL_BENCH_MAX_CHUNKS);
    }
}

// ---- Opening

static void free_frame(struct sl_frame *frame)
{
    free(frame->owner);
    free(frame);
}

// A picture in memory, 4:2:0, of smooth noise.
static struct sl_frame *make_frame(int width, int height, int seed)
{
    struct sl_frame *frame = calloc(1, sizeof *frame);
    int half = (width + 1) / 2;
    int64_t luma = (int64_t)width * height, chroma = (int64_t)half * ((height + 1) / 2);
    uint8_t *bytes = malloc((size_t)(luma + 2 * chroma));
    if (frame == NULL || bytes == NULL) {
        free(frame);
        free(bytes);
        return NULL;
    }
    for (int64_t i = 0; i < luma + 2 * chroma; i++) {
        bytes[i] = (uint8_t)(64 + (i * 31 + seed * 97 + i / width * 17) % 128);
    }
    *frame = (struct sl_frame){.wall_us = SL_NO_TIME,
                               .width = width,
                               .height = height,
                               .layout = SL_LAYOUT_YUV_PLANAR,
                               .bit_depth = 8,
                               .chroma_shift_x = 1,
                               .chroma_shift_y = 1,
                               .plane = {bytes, bytes + luma, bytes + luma + chroma},
                               .pitch = {width, half, half},
                               .sar_num = 1,
                               .sar_den = 1,
                               .references = 1,
                               .release = free_frame,
                               .owner = bytes};
    return frame;
}

static int make_frames(struct bench *b, int64_t width, int64_t height, struct sl_error *error)
{
    for (int i = 0; i < 2; i++) {
        sl_frame_unref(b->frame[i]);
        b->frame[i] = make_frame((int)width, (int)height, i);
        if (b->frame[i] == NULL) {
            return sl_fail(error, SL_ERR_MEMORY, "out of memory");
        }
    }
    return SL_OK;
}

static int64_t free_bytes(const struct bench *b)
{
    struct sl_device_info info;
    ops_of(b)->info(b->model.device, &info);
    return info.free_bytes;
}

// Called when most of what a part needs is allocated.
static void note_peak(struct bench *b)
{
    struct rusage usage;
    if (is_gpu(b) && b->free_before > 0) {
        raise_to(&b->f->peak_bytes, b->free_before - free_bytes(b));
    } else if (!is_gpu(b) && getrusage(RUSAGE_SELF, &usage) == 0) {
        raise_to(&b->f->peak_bytes, (int64_t)usage.ru_maxrss * 1024);
    }
}

// Fewer KV tokens than wanted where the device has no room for all: large batches are left out then.
static int64_t limit_kv(const struct bench *b, int64_t wanted)
{
    const struct sl_text_config *t = &b->model.config.text;
    int64_t free_now = free_bytes(b);
    if (free_now == 0) {
        return wanted;
    }
    double others = sl_cost_text_bytes(t, b->model.compute) + (double)free_now / 20 + 2e9; // scratch, clips
    double room = ((double)free_now - others) / sl_cost_kv_bytes(t, b->model.compute);
    return room < (double)wanted ? room > 4096 ? (int64_t)room : 4096 : wanted;
}

static int open_engine(struct bench *b, struct sl_error *error)
{
    int64_t wanted = 0;
    int64_t sequences = 0;
    plan(b, &wanted, &sequences);
    b->kv_tokens = limit_kv(b, wanted);
    struct sl_engine_options options = {.compute = b->model.compute,
                                        .max_sequences = (int)sequences,
                                        .kv_tokens = b->kv_tokens,
                                        .prefill_rows = (int)b->o.prefill_rows};
    return sl_engine_create(b->model.device, b->model.weights, &b->model.config, NULL, &options, &b->model.engine,
                            error);
}

static int load(struct bench *b, struct sl_error *error)
{
    struct sl_model *m = &b->model;
    m->max_patches = most_patches(b);
    double start = sl_timing_now_s();
    int status = sl_vision_create(m->device, m->weights, &m->config, m->compute, m->max_patches, &m->vision, error);
    status = status == SL_OK ? open_engine(b, error) : status;
    b->f->load_s = sl_timing_now_s() - start;
    b->f->weights_bytes = (double)sl_weights_bytes(m->weights);
    if (status == SL_OK) {
        status = sl_eye_create(m, &b->eye, error);
    }
    int64_t room = free_bytes(b);
    room -= is_gpu(b) ? 0 : sl_weights_bytes(m->weights); // a CPU's are mapped: they take what counts as free
    if (room > 0) {
        double kv_bytes = sl_cost_kv_bytes(&m->config.text, m->compute);
        double tokens = (double)room / kv_bytes + (double)b->kv_tokens;
        b->f->largest_batch = (int64_t)(tokens / (double)b->o.context);
    }
    return status;
}

static int open_bench(const struct sl_bench_options *o, struct bench *b, struct sl_error *error)
{
    struct sl_model *m = &b->model;
    int status =
        o->shape != NULL ? sl_model_open_shape(o->shape, NULL, m, error) : sl_model_open_files(o->model_dir, m, error);
    status = status == SL_OK ? sl_model_open_device(o->device, (int)o->threads, 0, &m->device, error) : status;
    if (status != SL_OK) {
        return status;
    }
    ops_of(b)->info(m->device, &b->f->device);
    b->free_before = b->f->device.free_bytes;
    m->compute = b->f->device.compute;
    b->o = *o;
    complete(&b->o, is_gpu(b));
    b->f->parts = b->o.parts;
    b->f->compute = m->compute;
    memcpy(b->f->model, m->name, sizeof m->name);
    if (is_gpu(b) && sl_model_weight_bytes(m) > b->free_before) { // better said before they are loaded
        return sl_fail(
            error, SL_ERR_MEMORY, "%s: %.1f GB are free and the weights of %s take %.1f: a smaller model would fit",
            b->f->device.name, (double)b->free_before / 1e9, m->name, (double)sl_model_weight_bytes(m) / 1e9);
    }
    return ops_of(b)->stream_create(m->device, &b->stream, error);
}

static void close_bench(struct bench *b)
{
    sl_frame_unref(b->frame[0]);
    sl_frame_unref(b->frame[1]);
    sl_engine_destroy(b->model.engine); // before the eye that it looks through
    b->model.engine = NULL;
    sl_eye_destroy(b->eye);
    if (b->stream != NULL) {
        ops_of(b)->stream_destroy(b->stream);
    }
    sl_model_close(&b->model);
}

// ---- What the device reaches alone

// Before and after all else: the better one, for a shared machine may have been busy once.
static int measure_product(struct bench *b, struct sl_error *error)
{
    const struct sl_text_config *t = &b->model.config.text;
    double flops = 0;
    int status = SL_OK;
    int wide = t->intermediate > 0 ? t->intermediate : 3 * t->hidden; // of experts alone: as dense models are wide
    if (!(b->o.parts & (SL_BENCH_VISION | SL_BENCH_PREFILL))) {
        return SL_OK; // nothing is held against it
    }
    if (is_gpu(b)) {
        status = sl_reference_device_product(b->model.device, 8192, wide, t->hidden, &flops, error);
    } else {
        flops = sl_reference_product(b->model.compute, b->f->device.threads, 2048, wide, t->hidden);
    }
    b->f->product_flops = flops > b->f->product_flops ? flops : b->f->product_flops;
    return status;
}

// A CPU's beside each decoding: it changes while we look.
static int measure_memory(struct bench *b, struct sl_error *error)
{
    int wanted = is_gpu(b) && b->o.parts & SL_BENCH_DECODE;
    return wanted ? sl_reference_copy(b->model.device, &b->f->memory_bytes_per_s, error) : SL_OK;
}

// ---- Vision

// Pictures of noise as patches, for zeros cost a GPU less power and make it faster.
static int fill_patches(struct bench *b, int height, int width, const struct sl_tensor *patches, struct sl_error *error)
{
    const struct sl_vision_config *v = &b->model.config.vision;
    const struct sl_video_config *video = &b->model.config.video;
    const struct sl_device_ops *ops = ops_of(b);
    int64_t size = (int64_t)height * width * 3;
    int64_t rows = patches->shape[0] / b->o.pairs;
    uint8_t *noise = malloc((size_t)(2 * size));
    void *pixels = NULL;
    int status = noise != NULL ? ops->alloc(b->model.device, 2 * size, &pixels, error)
                               : sl_fail(error, SL_ERR_MEMORY, "out of memory");
    uint32_t state = 1;
    for (int64_t i = 0; i < 2 * size && noise != NULL; i++) {
        state = state * 1664525U + 1013904223U;
        noise[i] = (uint8_t)(state >> 24);
    }
    if (status == SL_OK) {
        struct sl_tensor rgb[2] = {sl_tensor_3d(pixels, SL_U8, height, width, 3),
                                   sl_tensor_3d((uint8_t *)pixels + size, SL_U8, height, width, 3)};
        ops->upload(b->stream, pixels, noise, 2 * size);
        for (int64_t g = 0; g < b->o.pairs; g++) {
            struct sl_tensor target = sl_tensor_rows(patches, g * rows, rows);
            ops->patchify(b->stream, rgb, 2, v->patch, v->merge, video->mean, video->std, &target);
        }
        status = ops->wait(b->stream, error);
    }
    ops->release(b->model.device, pixels);
    free(noise);
    return status;
}

// The tower on patches that lie on the device.
static int measure_vision(struct bench *b, struct sl_error *error)
{
    const struct sl_vision_config *v = &b->model.config.vision;
    const struct sl_device_ops *ops = ops_of(b);
    int grid_h = (int)(b->o.height / (v->patch * v->merge)) * v->merge;
    int grid_w = (int)(b->o.width / (v->patch * v->merge)) * v->merge;
    int64_t rows = (int64_t)grid_h * grid_w * b->o.pairs;
    int64_t columns = (int64_t)v->channels * v->temporal_patch * v->patch * v->patch;
    void *memory[2 + SL_MAX_DEEPSTACK] = {NULL};
    struct sl_tensor tensor[2 + SL_MAX_DEEPSTACK]; // patches, features, taps
    int count = 2 + v->deepstack_count;
    int status = SL_OK;
    for (int i = 0; i < count && status == SL_OK; i++) {
        tensor[i] = i == 0 ? sl_tensor_2d(NULL, b->model.compute, rows, columns)
                           : sl_tensor_2d(NULL, b->model.compute, rows / (v->merge * v->merge), v->out_hidden);
        status = ops->alloc(b->model.device, sl_tensor_bytes(&tensor[i]), &memory[i], error);
        tensor[i].data = memory[i];
    }
    status = status == SL_OK ? fill_patches(b, grid_h * v->patch, grid_w * v->patch, &tensor[0], error) : status;
    double *seconds = calloc((size_t)b->o.repeat, sizeof *seconds);
    status = status == SL_OK && seconds == NULL ? sl_fail(error, SL_ERR_MEMORY, "out of memory") : status;
    for (int i = -1; i < b->o.repeat && status == SL_OK; i++) {
        double start = sl_timing_now_s();
        status = sl_vision_encode(b->model.vision, b->stream, &tensor[0], (int)b->o.pairs, grid_h, grid_w, &tensor[1],
                                  &tensor[2], error);
        status = status == SL_OK ? ops->wait(b->stream, error) : status;
        if (i >= 0) {
            seconds[i] = sl_timing_now_s() - start;
        }
    }
    if (status == SL_OK) {
        b->f->vision_s = sl_timing_spread(seconds, (int)b->o.repeat);
        b->f->vision_flops = sl_cost_vision_flops(v, b->o.pairs, (int64_t)grid_h * grid_w);
        note_peak(b);
    }
    free(seconds);
    for (int i = 0; i < count; i++) {
        ops->release(b->model.device, memory[i]);
    }
    return status;
}

// ---- Requests with pictures

// `count` clips of `pairs` pairs and their prompts.
struct clips {
    struct sl_clip *clip[SL_BENCH_MAX_CHUNKS];
    struct sl_prompt prompt[SL_BENCH_MAX_CHUNKS];
    int count, pairs;
};

// Anew before each measurement: the tower's features of the last one must not be found again.
static int fill_clips(struct bench *b, struct clips *c, struct sl_error *error)
{
    int status = SL_OK;
    for (int i = 0; i < c->count && status == SL_OK; i++) {
        sl_clip_begin(c->clip[i], 2 * c->pairs);
        for (int k = 0; k < 2 * c->pairs && status == SL_OK; k++) {
            status = sl_clip_add(c->clip[i], b->stream, b->frame[k % 2], error);
        }
        status = status == SL_OK ? sl_clip_end(c->clip[i], b->stream, -1, error) : status;
    }
    return status;
}

static void free_clips(struct clips *c)
{
    for (int i = 0; i < c->count; i++) {
        sl_prompt_finish(&c->prompt[i]);
        sl_clip_destroy(c->clip[i]);
    }
    c->count = 0;
}

static int make_clips(struct bench *b, int count, int64_t pairs, int64_t width, int64_t height, int64_t tokens,
                      struct clips *out, struct sl_error *error)
{
    *out = (struct clips){.pairs = (int)pairs};
    int status = make_frames(b, width, height, error);
    for (; out->count < count && status == SL_OK; out->count += status == SL_OK) {
        status = sl_clip_create(b->eye, 2 * (int)pairs, (int)tokens, &out->clip[out->count], error);
    }
    status = status == SL_OK ? fill_clips(b, out, error) : status;
    for (int i = 0; i < count && status == SL_OK; i++) {
        int rows = 0;
        int columns = 0;
        sl_clip_grid(out->clip[i], &rows, &columns);
        status = sl_ask_clip(sl_clip_visual(out->clip[i]), (int)pairs, rows, columns, i + 1, b->model.config.text.vocab,
                             &out->prompt[i], error);
    }
    if (status != SL_OK) {
        free_clips(out);
    }
    return status;
}

static int64_t pair_tokens(const struct bench *b)
{
    int merge = b->model.config.vision.merge;
    return patches_of(b, b->o.width, b->o.height) / merge / merge;
}

// Seconds from admission to the first token, `clips` filled anew each time when there are any. A prompt that the KV
// cache cannot hold is left out.
static int measure_prompt(struct bench *b, struct clips *clips, const struct sl_prompt *prompt, struct sl_spread *out,
                          struct sl_error *error)
{
    if (prompt->tokens + SLACK_TOKENS > b->kv_tokens) {
        return SL_OK;
    }
    double *seconds = calloc((size_t)b->o.repeat, sizeof *seconds);
    int status = seconds != NULL ? SL_OK : sl_fail(error, SL_ERR_MEMORY, "out of memory");
    for (int i = -1; i < b->o.repeat && status == SL_OK; i++) {
        struct sl_asked asked;
        status = clips != NULL ? fill_clips(b, clips, error) : SL_OK;
        status = status == SL_OK ? sl_ask(b->model.engine, prompt, 1, 1, &asked, error) : status;
        if (status == SL_OK) {
            seconds[i < 0 ? 0 : i] = asked.prefill_s; // the first is the warm-up
            sl_asked_finish(&asked, 1);
        }
    }
    if (status == SL_OK) {
        *out = sl_timing_spread(seconds, (int)b->o.repeat);
        note_peak(b);
    }
    free(seconds);
    return status;
}

static int measure_prefill(struct bench *b, struct sl_error *error)
{
    struct clips clips;
    int status = make_clips(b, 1, b->o.pairs, b->o.width, b->o.height, pair_tokens(b), &clips, error);
    if (status != SL_OK) {
        return status;
    }
    b->f->prefill_tokens = clips.prompt[0].tokens;
    b->f->prefill_flops =
        sl_cost_prefill_flops(&b->model.config.text, clips.prompt[0].tokens) +
        sl_cost_vision_flops(&b->model.config.vision, b->o.pairs, patches_of(b, b->o.width, b->o.height));
    status = measure_prompt(b, &clips, &clips.prompt[0], &b->f->prefill_s, error);
    free_clips(&clips);
    struct sl_prompt text = {0};
    status = status == SL_OK ? sl_ask_text(b->o.prompt_tokens, 1, b->model.config.text.vocab, &text, error) : status;
    b->f->text_tokens = text.tokens;
    b->f->text_flops = sl_cost_prefill_flops(&b->model.config.text, text.tokens);
    status = status == SL_OK ? measure_prompt(b, NULL, &text, &b->f->text_s, error) : status;
    sl_prompt_finish(&text);
    return status;
}

// From the picture to the last token, nothing left out but the decoding of the video.
static int measure_answer(struct bench *b, struct sl_error *error)
{
    if (tokens_of_clip(1, picture_tokens(b)) + b->o.answer_tokens + SLACK_TOKENS > b->kv_tokens) {
        return SL_OK; // as unmeasured
    }
    struct clips clips;
    int status = make_clips(b, 1, 1, b->o.picture_width, b->o.picture_height, picture_tokens(b), &clips, error);
    if (status != SL_OK) {
        return status;
    }
    b->f->answer_prompt_tokens = clips.prompt[0].tokens;
    double *seconds = calloc((size_t)b->o.repeat, sizeof *seconds);
    double *first = calloc((size_t)b->o.repeat, sizeof *first);
    double *rate = calloc((size_t)b->o.repeat, sizeof *rate);
    status = seconds != NULL && first != NULL && rate != NULL ? SL_OK : sl_fail(error, SL_ERR_MEMORY, "out of memory");
    for (int i = -1; i < b->o.repeat && status == SL_OK; i++) { // the first is the warm-up
        struct sl_asked asked;
        double start = sl_timing_now_s();
        status = fill_clips(b, &clips, error);
        int tokens = (int)(i < 0 && b->o.answer_tokens > WARM_UP_TOKENS ? WARM_UP_TOKENS : b->o.answer_tokens);
        status = status == SL_OK ? sl_ask(b->model.engine, clips.prompt, 1, tokens, &asked, error) : status;
        if (status == SL_OK) {
            first[i < 0 ? 0 : i] = (double)asked.token_us[0] * 1e-6 - start;
            seconds[i < 0 ? 0 : i] = (double)asked.token_us[tokens - 1] * 1e-6 - start;
            rate[i < 0 ? 0 : i] = (tokens - 1) * 1e6 / (double)(asked.token_us[tokens - 1] - asked.token_us[0] + 1);
            sl_asked_finish(&asked, 1);
        }
    }
    if (status == SL_OK) {
        b->f->answer_s = sl_timing_spread(seconds, (int)b->o.repeat);
        b->f->first_token_s = sl_timing_spread(first, (int)b->o.repeat);
        b->f->answer_rate = sl_timing_spread(rate, (int)b->o.repeat);
        note_peak(b);
    }
    free(seconds);
    free(first);
    free(rate);
    free_clips(&clips);
    return status;
}

// ---- Decoding

static int ask_batch(struct bench *b, int batch, struct sl_bench_decode *d, struct sl_error *error)
{
    struct sl_prompt *prompts = calloc((size_t)batch, sizeof *prompts);
    struct sl_asked *asked = calloc((size_t)batch, sizeof *asked);
    int status = prompts != NULL && asked != NULL ? SL_OK : sl_fail(error, SL_ERR_MEMORY, "out of memory");
    for (int i = 0; i < batch && status == SL_OK; i++) {
        status = sl_ask_text(b->o.context, i + 1, b->model.config.text.vocab, &prompts[i], error);
    }
    if (status == SL_OK) {
        status = sl_ask(b->model.engine, prompts, batch, (int)decode_tokens(b, batch), asked, error);
    }
    if (status == SL_OK && !sl_asked_step(asked, batch, (int)b->o.repeat, &d->step_s)) {
        status = sl_fail(error, SL_ERR_INTERNAL, "%d sequences never decoded at the same time", batch);
    }
    if (status == SL_OK) {
        note_peak(b);
        sl_asked_finish(asked, batch);
    }
    for (int i = 0; i < batch && prompts != NULL; i++) {
        sl_prompt_finish(&prompts[i]);
    }
    free(prompts);
    free(asked);
    return status;
}

// On a CPU between two passes of plain reading: the memory's rate changes while we look.
static int measure_batch(struct bench *b, struct sl_reading *reading, struct sl_bench_decode *d, struct sl_error *error)
{
    double rate = reading != NULL ? sl_reading_pass(reading) : b->f->memory_bytes_per_s;
    int status = ask_batch(b, d->batch, d, error);
    if (reading != NULL) {
        rate = (rate + sl_reading_pass(reading)) / 2;
        b->f->memory_bytes_per_s = rate > b->f->memory_bytes_per_s ? rate : b->f->memory_bytes_per_s;
    }
    double bytes = sl_cost_step_bytes(&b->model.config.text, b->model.compute, d->batch, b->o.context);
    d->floor_s = rate > 0 ? bytes / rate : 0;
    return status;
}

static int measure_decoding(struct bench *b, struct sl_error *error)
{
    struct sl_reading *reading = is_gpu(b) ? NULL : sl_reading_create(b->f->device.threads);
    int status = is_gpu(b) || reading != NULL ? SL_OK : sl_fail(error, SL_ERR_MEMORY, "out of memory");
    for (int i = 0; i < b->o.batch_count && status == SL_OK; i++) {
        struct sl_bench_decode *d = &b->f->decode[b->f->decode_count++];
        d->batch = (int)b->o.batch[i];
        d->fits = tokens_of_batch(b, d->batch) <= b->kv_tokens;
        status = d->fits ? measure_batch(b, reading, d, error) : SL_OK;
    }
    sl_reading_destroy(reading);
    b->f->context = b->o.context;
    return status;
}

// ---- Chunks

static int ask_chunks(struct bench *b, struct clips *clips, int output_tokens, struct sl_bench_chunk *out,
                      struct sl_error *error)
{
    struct sl_asked asked[SL_BENCH_MAX_CHUNKS];
    double *seconds = calloc((size_t)b->o.repeat, sizeof *seconds);
    int status = seconds != NULL ? SL_OK : sl_fail(error, SL_ERR_MEMORY, "out of memory");
    for (int i = 0; i < b->o.repeat && status == SL_OK; i++) {
        status = fill_clips(b, clips, error);
        double start = sl_timing_now_s();
        status = status == SL_OK ? sl_ask(b->model.engine, clips->prompt, clips->count, output_tokens, asked, error)
                                 : status;
        if (status == SL_OK) {
            seconds[i] = sl_timing_now_s() - start;
            sl_asked_finish(asked, clips->count);
        }
    }
    if (status == SL_OK) {
        *out = (struct sl_bench_chunk){.batch = clips->count,
                                       .output_tokens = output_tokens,
                                       .prompt_tokens = clips->prompt[0].tokens,
                                       .seconds = sl_timing_spread(seconds, (int)b->o.repeat)};
        note_peak(b);
    }
    free(seconds);
    return status;
}

static int measure_chunks(struct bench *b, struct sl_error *error)
{
    static const int output_tokens[] = {1, 100};
    int merge = b->model.config.vision.merge;
    int64_t per_pair = patches_of(b, SL_BENCH_CHUNK_SIDE, SL_BENCH_CHUNK_SIDE) / merge / merge;
    int status = SL_OK;
    for (int batch = 1; batch <= SL_BENCH_MAX_CHUNKS && status == SL_OK; batch *= 4) {
        if (batch * (tokens_of_chunk(b) + 100 + SLACK_TOKENS) > b->kv_tokens) {
            break;
        }
        struct clips clips;
        status = make_clips(b, batch, SL_BENCH_CHUNK_PAIRS, SL_BENCH_CHUNK_SIDE, SL_BENCH_CHUNK_SIDE, per_pair, &clips,
                            error);
        for (int i = 0; i < 2 && status == SL_OK; i++) {
            status = ask_chunks(b, &clips, output_tokens[i], &b->f->chunk[b->f->chunk_count], error);
            b->f->chunk_count += status == SL_OK;
        }
        free_clips(&clips);
    }
    return status;
}

// ---- All of it

static int measure(struct bench *b, struct sl_error *error)
{
    static const struct {
        int part;
        int (*run)(struct bench *b, struct sl_error *error);
    } parts[] = {{SL_BENCH_VISION, measure_vision},
                 {SL_BENCH_PREFILL, measure_prefill},
                 {SL_BENCH_DECODE, measure_decoding},
                 {SL_BENCH_ANSWER, measure_answer},
                 {SL_BENCH_CHUNK, measure_chunks}};
    int status = measure_product(b, error);
    status = status == SL_OK ? measure_memory(b, error) : status;
    status = status == SL_OK ? load(b, error) : status;
    for (size_t i = 0; i < sizeof parts / sizeof parts[0] && status == SL_OK; i++) {
        if (b->o.parts & parts[i].part) {
            status = parts[i].run(b, error);
        }
    }
    note_peak(b);
    return status == SL_OK ? measure_product(b, error) : status;
}

int sl_bench_model(const struct sl_bench_options *options, struct sl_bench_figures *out, struct sl_error *error)
{
    *out = (struct sl_bench_figures){0};
    struct bench b = {.f = out};
    int status = open_bench(options, &b, error);
    out->pairs = b.o.pairs;
    out->context = b.o.context;
    out->width = (int)b.o.width;
    out->height = (int)b.o.height;
    status = status == SL_OK ? measure(&b, error) : status;
    close_bench(&b);
    return status;
}
