// SPDX-License-Identifier: Apache-2.0
#include "src/model.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "config.h"
#include "cpu/cpu.h"
#if SL_HAVE_CUDA
#include "cuda/cuda.h"
#endif

enum {
    TOKENS_AROUND_PAIR = 12,  // "<1234.5 seconds>", vision start and end
    TOKENS_OF_REQUEST = 4096, // the question, system text and chat frame, at most
    MAX_TOKENS_PER_PAIR = 768,
};

#define ALGORITHM_BYTES ((int64_t)1 << 30) // for those of products

// What suits a kind of device.
struct pace {
    int64_t tower_patches; // of one call: enough rows for a matrix product to reach its rate
    int prefill_rows;      // prompt rows of one step: decode steps of other windows wait no longer than this
    int sequences;         // windows in flight
};

// On a CPU prefill is most of the work, and more windows take memory alone. A GPU decodes 32 in the time of a few.
static const struct pace cpu_pace = {4096, 512, 4}, gpu_pace = {32768, 4096, 32};

#if SL_HAVE_CUDA
static int open_cuda(int index, int deterministic, struct sl_device **out, struct sl_error *error)
{
    return sl_cuda_create(index, deterministic, out, error);
}

// Who has a GPU and gets the CPU is told why.
static int gpu_is_here(void)
{
    struct sl_error why = {0};
    int count = sl_cuda_count(&why);
    if (count < 0) {
        fprintf(stderr, "scenelog: %s; the CPU is used\n", why.text);
    }
    return count > 0;
}
#else
static int open_cuda(int index, int deterministic, struct sl_device **out, struct sl_error *error)
{
    (void)deterministic;
    *out = NULL;
    return sl_fail(error, SL_ERR_DEVICE, "cuda:%d: this scenelog was built without CUDA; use --device cpu", index);
}

static int gpu_is_here(void)
{
    return 0;
}
#endif

// "auto": the first GPU where there is one, else the CPU.
int sl_model_open_device(const char *name, int threads, int deterministic, struct sl_device **out,
                         struct sl_error *error)
{
    if (strcmp(name, "cpu") == 0 || (strcmp(name, "auto") == 0 && !gpu_is_here())) {
        return sl_cpu_create(threads, out, error);
    }
    if (strcmp(name, "auto") == 0 || strcmp(name, "cuda") == 0) {
        return open_cuda(0, deterministic, out, error);
    }
    char *end = NULL;
    long index = strncmp(name, "cuda:", 5) == 0 ? strtol(name + 5, &end, 10) : -1;
    if (end == NULL || end == name + 5 || *end != 0 || index < 0 || index > 1023) {
        return sl_fail(error, SL_ERR_USAGE, "--device %s: must be auto, cpu, cuda or cuda:N", name);
    }
    return open_cuda((int)index, deterministic, out, error);
}

static void name_of_folder(const char *dir, char *out, size_t size)
{
    size_t end = strlen(dir);
    while (end > 1 && dir[end - 1] == '/') {
        end--;
    }
    size_t begin = end;
    while (begin > 0 && dir[begin - 1] != '/') {
        begin--;
    }
    snprintf(out, size, "%.*s", (int)(end - begin), dir + begin);
}

int sl_model_open_files(const char *dir, struct sl_model *out, struct sl_error *error)
{
    *out = (struct sl_model){0};
    name_of_folder(dir, out->name, sizeof out->name);
    int status = sl_config_read(dir, &out->config, error);
    if (status == SL_OK) {
        status = sl_tokenizer_open(dir, &out->tokenizer, error);
    }
    if (status == SL_OK) {
        status = sl_weights_open(dir, &out->weights, error);
    }
    if (status == SL_OK) {
        snprintf(out->hash, sizeof out->hash, "%016" PRIx64, sl_weights_hash(out->weights));
    }
    return status;
}

int sl_model_open_shape(const char *config_path, const char *tokenizer_dir, struct sl_model *out,
                        struct sl_error *error)
{
    *out = (struct sl_model){0};
    name_of_folder(config_path, out->name, sizeof out->name);
    out->name[strcspn(out->name, ".")] = 0; // "2b"
    int status = sl_config_read_file(config_path, &out->config, error);
    if (status == SL_OK && tokenizer_dir != NULL) {
        status = sl_tokenizer_open(tokenizer_dir, &out->tokenizer, error);
    }
    if (status == SL_OK && tokenizer_dir != NULL) {
        out->config.video_token = sl_tokenizer_added(out->tokenizer, "<|video_pad|>");
        out->config.vision_start = sl_tokenizer_added(out->tokenizer, "<|vision_start|>");
        out->config.vision_end = sl_tokenizer_added(out->tokenizer, "<|vision_end|>");
    }
    if (status == SL_OK) {
        status = sl_weights_random(SL_BF16, 1, &out->weights, error); // as published checkpoints are
    }
    if (status == SL_OK) {
        snprintf(out->hash, sizeof out->hash, "%016" PRIx64, sl_weights_hash(out->weights));
    }
    return status;
}

// The most visual tokens that one pair can have under all limits.
static int64_t tokens_per_pair(const struct sl_model_config *config, const struct sl_model_options *options)
{
    if (options->max_tokens_per_pair > 0) {
        return options->max_tokens_per_pair;
    }
    int64_t tokens = MAX_TOKENS_PER_PAIR;
    if (config->video.cap_pixels_per_frame && config->video.max_video_tokens < tokens) {
        tokens = config->video.max_video_tokens;
    }
    return tokens;
}

static int is_gpu(const struct sl_device_info *info)
{
    return info->threads == 0;
}

static double gib(int64_t bytes)
{
    return (double)bytes / (1024.0 * 1024 * 1024);
}

static const struct pace *pace_of(const struct sl_device_info *info)
{
    return is_gpu(info) ? &gpu_pace : &cpu_pace;
}

static int64_t visual_tokens_per_window(const struct sl_model_options *options, const struct sl_model *model)
{
    int64_t visual = tokens_per_pair(&model->config, options) * options->pairs_per_window;
    int merged = model->config.vision.patch * model->config.vision.merge;
    int64_t whole_clip = model->config.video.longest_edge / ((int64_t)merged * merged * 2);
    if (options->max_tokens_per_pair == 0 && visual > whole_clip) {
        visual = whole_clip + options->pairs_per_window;
    }
    return visual;
}

static int64_t tokens_per_window(const struct sl_model_options *options, const struct sl_model *model)
{
    return visual_tokens_per_window(options, model) + TOKENS_AROUND_PAIR * options->pairs_per_window +
           TOKENS_OF_REQUEST + options->max_new_tokens;
}

// The pictures of a window in flight: two to a pair, 3 bytes a pixel (clip.c).
static int64_t picture_bytes(const struct sl_model_options *options, const struct sl_model *model)
{
    int64_t merged = (int64_t)model->config.vision.patch * model->config.vision.merge;
    return visual_tokens_per_window(options, model) * merged * merged * 2 * 3;
}

// What is allocated behind the engine: patches and features of one call of the tower (clip.c), and the pictures of the
// window that is being filled.
static int64_t later_bytes(const struct sl_model_options *options, const struct sl_model *model)
{
    const struct sl_vision_config *v = &model->config.vision;
    int64_t patch = (int64_t)v->channels * v->temporal_patch * v->patch * v->patch;
    int64_t tokens = model->max_patches / ((int64_t)v->merge * v->merge);
    int64_t elements = model->max_patches * patch + tokens * (1 + v->deepstack_count) * v->out_hidden;
    return elements * sl_dtype_bytes(model->compute) + picture_bytes(options, model);
}

// Numbers in the blocks and mergers of the tower.
static int64_t tower_parameters(const struct sl_model *model)
{
    const struct sl_vision_config *v = &model->config.vision;
    int64_t merged = (int64_t)v->hidden * v->merge * v->merge;
    int64_t block = (int64_t)v->hidden * (4 * (int64_t)v->hidden + 2 * (int64_t)v->intermediate);
    int64_t mergers = (1 + v->deepstack_count) * merged * (merged + v->out_hidden);
    return block * v->depth + mergers;
}

// The tower's weights, and one call's rows.
static int64_t tower_bytes(const struct sl_model *model)
{
    int64_t row = 8 * (int64_t)model->config.vision.hidden + model->config.vision.intermediate;
    return (tower_parameters(model) + row * model->max_patches) * sl_dtype_bytes(model->compute);
}

// One decoder step's rows; as much again is scratch.
static int64_t rows_bytes(const struct sl_model *model, int64_t rows)
{
    const struct sl_text_config *t = &model->config.text;
    int64_t q = (int64_t)t->heads * t->head_dim, kv = (int64_t)t->kv_heads * t->head_dim;
    int64_t wide =
        t->experts > 0 ? (int64_t)t->experts_per_token * (t->expert_intermediate + t->hidden) : t->intermediate;
    int64_t row = 12 * (int64_t)t->hidden + 2 * q + 2 * kv + 4 * wide;
    return rows * row * sl_dtype_bytes(model->compute);
}

// Numbers in the decoder, with the embedding as table and as head.
static int64_t decoder_parameters(const struct sl_model *model)
{
    const struct sl_text_config *t = &model->config.text;
    int64_t q = (int64_t)t->heads * t->head_dim, kv = (int64_t)t->kv_heads * t->head_dim;
    int64_t feed = t->experts > 0 ? (int64_t)t->experts * t->expert_intermediate : t->intermediate;
    int64_t layer = t->hidden * (2 * q + 2 * kv + 3 * feed);
    return layer * t->layers + 2 * (int64_t)t->vocab * t->hidden;
}

int64_t sl_model_weight_bytes(const struct sl_model *model)
{
    return (tower_parameters(model) + decoder_parameters(model)) * sl_dtype_bytes(model->compute);
}

// What the decoder will take beside its KV pages: weights, one step's rows twice (activations and scratch), and
// something for the algorithms.
static int64_t decoder_bytes(const struct sl_model *model, int64_t rows)
{
    return decoder_parameters(model) * sl_dtype_bytes(model->compute) + 2 * rows_bytes(model, rows) + ALGORITHM_BYTES;
}

static struct sl_device_info info_of(const struct sl_model *model)
{
    struct sl_device_info info;
    model->device->ops->info(model->device, &info);
    return info;
}

int64_t sl_model_window_bytes(const struct sl_model_options *options, const struct sl_model *model)
{
    struct sl_device_info info = info_of(model);
    const struct sl_text_config *text = &model->config.text;
    int64_t token_bytes = (int64_t)2 * text->layers * text->kv_heads * text->head_dim * sl_dtype_bytes(model->compute);
    return token_bytes * tokens_per_window(options, model) + (is_gpu(&info) ? picture_bytes(options, model) : 0);
}

int64_t sl_model_bytes(const struct sl_model_options *options, const struct sl_model *model)
{
    struct sl_device_info info = info_of(model);
    return tower_bytes(model) + decoder_bytes(model, pace_of(&info)->prefill_rows) + later_bytes(options, model);
}

int64_t sl_model_bytes_to_come(const struct sl_model_options *options, const struct sl_model *model)
{
    struct sl_device_info info = info_of(model);
    return rows_bytes(model, pace_of(&info)->prefill_rows) + ALGORITHM_BYTES + later_bytes(options, model) +
           picture_bytes(options, model) * model->sequences;
}

// How many windows are in flight, and the KV tokens for them: on a CPU as far as a quarter of the memory goes, and one
// window in any case; on a GPU as many as fit.
static int plan_sequences(const struct sl_model_options *options, const struct sl_model_room *shared,
                          struct sl_model *model, int64_t *kv_tokens, struct sl_error *error)
{
    struct sl_device_info info = info_of(model);
    int64_t own =
        decoder_bytes(model, pace_of(&info)->prefill_rows) + later_bytes(options, model) + SL_MODEL_SURFACE_BYTES;
    int64_t room = is_gpu(&info) ? info.free_bytes - own - shared->others_bytes : info.memory_bytes / 4;
    int64_t each = sl_model_window_bytes(options, model);
    int64_t fit = room > 0 ? room / shared->sharers / each : 0;
    if (is_gpu(&info) && fit < 1) {
        return sl_fail(error, SL_ERR_MEMORY,
                       "%s: %.1f GiB are free%s, the decoder and work on pictures take %.1f and a window %.2f: a "
                       "shorter --window, a lower --max-tokens-per-pair or a smaller model would fit",
                       info.name, gib(info.free_bytes - shared->others_bytes),
                       shared->others_bytes > 0 ? " beside the other models" : "", gib(own), gib(each));
    }
    int wanted = options->sequences > 0 ? options->sequences : pace_of(&info)->sequences;
    model->sequences = options->deterministic || fit < 1 ? 1 : fit < wanted ? (int)fit : wanted;
    *kv_tokens = tokens_per_window(options, model) * model->sequences;
    return SL_OK;
}

static int open_engine(const struct sl_model_options *options, const struct sl_model_room *room, struct sl_model *model,
                       struct sl_error *error)
{
    struct sl_device_info info = info_of(model);
    int64_t kv_tokens = 0;
    int status = plan_sequences(options, room, model, &kv_tokens, error);
    if (status != SL_OK) {
        return status;
    }
    struct sl_engine_options engine = {.compute = model->compute,
                                       .max_sequences = model->sequences,
                                       .kv_tokens = kv_tokens,
                                       .prefill_rows = pace_of(&info)->prefill_rows,
                                       .deterministic = options->deterministic};
    return sl_engine_create(model->device, model->weights, &model->config, model->tokenizer, &engine, &model->engine,
                            error);
}

void sl_model_place(const struct sl_model_options *options, struct sl_device *device, struct sl_model *model)
{
    model->device = device;
    struct sl_device_info info = info_of(model);
    int merge = model->config.vision.merge;
    int64_t pair_patches = tokens_per_pair(&model->config, options) * merge * merge;
    int64_t usual = pace_of(&info)->tower_patches;
    model->compute = info.compute;
    model->max_patches = pair_patches > usual ? pair_patches : usual;
}

int sl_model_load(const struct sl_model_options *options, const struct sl_model_room *room, struct sl_model *model,
                  struct sl_error *error)
{
    int status = sl_vision_create(model->device, model->weights, &model->config, model->compute, model->max_patches,
                                  &model->vision, error);
    return status == SL_OK ? open_engine(options, room, model, error) : status;
}

int sl_model_open(const struct sl_model_options *options, struct sl_model *out, struct sl_error *error)
{
    static const struct sl_model_room alone = {.sharers = 1};
    struct sl_device *device = NULL;
    int status = options->shape != NULL ? sl_model_open_shape(options->shape, options->dir, out, error)
                                        : sl_model_open_files(options->dir, out, error);
    if (status == SL_OK) {
        status = sl_model_open_device(options->device, options->threads, options->deterministic, &device, error);
    }
    if (status != SL_OK) {
        return status;
    }
    sl_model_place(options, device, out);
    return sl_model_load(options, &alone, out, error);
}

int sl_model_sees_alike(const struct sl_model *a, const struct sl_model *b)
{
    const struct sl_model_config *p = &a->config, *q = &b->config;
    return p->vision.patch == q->vision.patch && p->vision.merge == q->vision.merge &&
           p->vision.temporal_patch == q->vision.temporal_patch && p->video.shortest_edge == q->video.shortest_edge &&
           p->video.longest_edge == q->video.longest_edge &&
           p->video.cap_pixels_per_frame == q->video.cap_pixels_per_frame &&
           p->video.max_video_tokens == q->video.max_video_tokens;
}

void sl_model_close(struct sl_model *model)
{
    sl_engine_destroy(model->engine);
    sl_vision_destroy(model->vision);
    if (model->device != NULL && !model->device_is_shared) {
        model->device->ops->destroy(model->device);
    }
    sl_tokenizer_close(model->tokenizer);
    sl_weights_close(model->weights);
    *model = (struct sl_model){0};
}
