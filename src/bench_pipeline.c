// SPDX-License-Identifier: Apache-2.0
#include "src/bench_pipeline.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "config.h"
#include "src/bench_ask.h"
#include "src/decoding.h"
#include "src/signals.h"
#include "src/stages.h"

enum {
    AT_ONCE = 8, // frames resized between two looks at the clock; a decoder has only so many surfaces
    STEPS = 32,  // of one stretch of decoding
};

struct bench {
    const struct sl_bench_pipeline_options *o;
    struct sl_model model;
    struct sl_eye *eye;
    struct sl_clip *clip; // one window, for the stages alone
    struct sl_stream *stream;
    struct sl_decoding decoding;  // of the source that is open
    struct sl_prompt_pair *pairs; // of that window
    int frames;
    struct sl_bench_pipeline_figures *f;
};

const char *sl_bench_stage_name(enum sl_bench_stage stage)
{
    static const char *const names[SL_STAGES] = {"read", "resize", "vision", "prefill", "decode"};
    return names[stage];
}

// ---- The pipeline as it is

static int interrupted(void *context)
{
    (void)context;
    return sl_signals_interrupted();
}

static void note(void *context, const char *text)
{
    (void)context;
    fprintf(stderr, "scenelog: %s\n", text);
}

static struct sl_pipeline job_of(struct bench *b)
{
    return (struct sl_pipeline){.model = &b->model,
                                .eye = b->eye,
                                .rules = &b->o->rules,
                                .path = b->o->path,
                                .from_us = b->o->from_us,
                                .to_us = b->o->to_us,
                                .wall_start_us = SL_NO_TIME,
                                .threads = b->o->model.threads,
                                .decoder = b->o->decoder,
                                .decode_lanes = b->o->decode_lanes,
                                .decode_cpu_lanes = b->o->decode_cpu_lanes,
                                .decode_all = b->o->decode_all,
                                .gpu_index = b->o->gpu_index,
                                .context = b,
                                .interrupted = interrupted,
                                .note = note};
}

static double cpu_s(void)
{
    struct rusage u = {0};
    (void)getrusage(RUSAGE_SELF, &u);
    return (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) + (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec) * 1e-6;
}

static int run_into(struct bench *b, struct sl_db *db, struct sl_error *error)
{
    struct sl_pipeline job = job_of(b);
    struct sl_pipeline_progress progress = {0};
    job.db = db;
    int status = sl_db_task(db, "bench", sl_window_pair_us(&b->o->rules), &job.task, error);
    status = status == SL_OK ? sl_db_run_begin(db, SL_VERSION, "bench", &job.run, error) : status;
    double cpu = cpu_s();
    double start = sl_timing_now_s();
    status = status == SL_OK ? sl_pipeline_run(&job, &progress, error) : status;
    struct sl_bench_pipeline_figures *f = b->f;
    f->total_s = sl_timing_now_s() - start;
    f->cores = (cpu_s() - cpu) / f->total_s;
    f->windows = atomic_load(&progress.windows_done);
    f->windows_failed = atomic_load(&progress.windows_failed);
    f->prompt_tokens = atomic_load(&progress.prompt_tokens);
    f->generated_tokens = atomic_load(&progress.generated_tokens);
    f->media_s = (double)(atomic_load(&progress.media_us) - (job.from_us != SL_NO_TIME ? job.from_us : 0)) * 1e-6;
    return status;
}

static void remove_index(const char *folder)
{
    static const char *const ends[] = {"", "-wal", "-shm"};
    char path[600];
    for (size_t i = 0; i < sizeof ends / sizeof ends[0]; i++) {
        snprintf(path, sizeof path, "%s/bench.db%s", folder, ends[i]);
        (void)unlink(path);
    }
    (void)rmdir(folder);
}

static int run_pipeline(struct bench *b, struct sl_error *error)
{
    const char *temporary = getenv("TMPDIR");
    char folder[512];
    char path[600];
    snprintf(folder, sizeof folder, "%s/scenelog-XXXXXX", temporary != NULL && *temporary != 0 ? temporary : "/tmp");
    if (mkdtemp(folder) == NULL) {
        return sl_fail(error, SL_ERR_IO, "%s: no folder can be made for the index; set TMPDIR", folder);
    }
    snprintf(path, sizeof path, "%s/bench.db", folder);
    struct sl_db *db = NULL;
    int status = sl_db_open(&db, path, SL_DB_WRITE, error);
    status = status == SL_OK ? run_into(b, db, error) : status;
    sl_db_close(db);
    remove_index(folder);
    return status;
}

// ---- Stages alone: reading, and the pictures of one window

static int open_source(struct bench *b, struct sl_source **out, struct sl_error *error)
{
    struct sl_pipeline job = job_of(b);
    struct sl_source_options options;
    int status = sl_decoding_open(&job, &b->decoding, &options, error);
    if (status != SL_OK) {
        return status;
    }
    options.from_us = job.from_us != SL_NO_TIME ? job.from_us : 0;
    options.to_us = job.to_us;
    options.interrupted = interrupted;
    return sl_source_open(job.path, &options, out, error);
}

static int measure_reading(struct bench *b, struct sl_error *error)
{
    struct sl_source *source = NULL;
    double start = sl_timing_now_s();
    int status = open_source(b, &source, error);
    while (status == SL_OK) {
        struct sl_sample sample = {0};
        status = sl_source_next(source, &sample, error);
        if (status == SL_OK) {
            b->f->samples++;
            b->f->on_device += sample.frame->memory != SL_MEMORY_HOST;
            sl_frame_unref(sample.frame);
        }
    }
    b->f->stage_s[SL_STAGE_READ] = sl_timing_now_s() - start;
    if (status == SL_END) {
        b->f->pictures = sl_source_counts(source).decoded;
    }
    sl_source_close(source);
    sl_decoding_close(&b->decoding);
    return status == SL_END ? SL_OK : status;
}

static int resize(struct bench *b, struct sl_frame *const *frames, int count, double *seconds, struct sl_error *error)
{
    int status = SL_OK;
    double start = sl_timing_now_s();
    for (int i = 0; i < count && status == SL_OK; i++) {
        status = sl_clip_add(b->clip, b->stream, frames[i], error);
    }
    status = status == SL_OK ? b->model.device->ops->wait(b->stream, error) : status;
    *seconds += sl_timing_now_s() - start;
    return status;
}

// Up to AT_ONCE samples of the window; fewer at its end.
static int read_some(struct bench *b, struct sl_source *source, int most, struct sl_frame **frames, int *count,
                     struct sl_error *error)
{
    int status = SL_OK;
    for (*count = 0; *count < AT_ONCE && b->frames < most && status == SL_OK; *count += status == SL_OK) {
        struct sl_sample sample = {0};
        status = sl_source_next(source, &sample, error);
        if (status == SL_OK) {
            struct sl_prompt_pair *pair = &b->pairs[b->frames / 2];
            pair->second_us = sample.sample_us;
            pair->first_us = b->frames % 2 == 0 ? sample.sample_us : pair->first_us;
            frames[*count] = sample.frame;
            b->frames++;
        }
    }
    return status;
}

// The first window's pictures, into the clip. `seconds`: resizing alone. What the first few take on top, memory and
// tables, is not the stage's rate: they are counted as the others.
static int fill_from_file(struct bench *b, double *seconds, struct sl_error *error)
{
    const struct sl_window_rules *r = &b->o->rules;
    int most = (int)(r->window_us * r->fps_num / (r->fps_den * 1000000));
    most = most > 1 ? most : 1;
    struct sl_source *source = NULL;
    int status = open_source(b, &source, error);
    int first = 0;
    double warming = 0;
    sl_clip_begin(b->clip, most);
    while (status == SL_OK && b->frames < most) {
        struct sl_frame *frames[AT_ONCE];
        int count = 0;
        status = read_some(b, source, most, frames, &count, error);
        int resized = resize(b, frames, count, first == 0 ? &warming : seconds, error);
        first = first == 0 ? count : first;
        status = resized != SL_OK ? resized : status;
        for (int i = 0; i < count; i++) {
            sl_frame_unref(frames[i]);
        }
    }
    sl_source_close(source);
    sl_decoding_close(&b->decoding);
    if (status != SL_OK && status != SL_END) {
        return status;
    }
    *seconds = b->frames > first ? *seconds * b->frames / (b->frames - first) : warming;
    return b->frames > 0 ? sl_clip_end(b->clip, b->stream, -1, error)
                         : sl_fail(error, SL_ERR_USAGE, "%s: has no picture there", b->o->path);
}

// Of the whole span, counted in windows like the first: the last may be shorter.
static double like_the_first(const struct bench *b)
{
    return (double)b->f->samples / b->frames;
}

static int measure_resizing(struct bench *b, struct sl_error *error)
{
    double seconds = 0;
    int status = fill_from_file(b, &seconds, error);
    b->f->stage_s[SL_STAGE_RESIZE] = seconds * like_the_first(b);
    return status;
}

// ---- The engine's work alone

// The tower over the clip's groups, as prefill asks for them. Once: after that the eye holds them.
static int encode_window(struct bench *b, const struct sl_tensor *features, const struct sl_tensor *deepstack,
                         double *seconds, struct sl_error *error)
{
    const struct sl_visual *visual = sl_clip_visual(b->clip);
    double start = sl_timing_now_s();
    int status = visual->features(visual->context, b->stream, 0, features->shape[0], features, deepstack, error);
    status = status == SL_OK ? b->model.device->ops->wait(b->stream, error) : status;
    *seconds = sl_timing_now_s() - start;
    return status;
}

static int measure_tower(struct bench *b, struct sl_error *error)
{
    const struct sl_vision_config *v = &b->model.config.vision;
    const struct sl_device_ops *ops = b->model.device->ops;
    struct sl_tensor tensor[1 + SL_MAX_DEEPSTACK]; // features, taps
    void *memory[1 + SL_MAX_DEEPSTACK] = {NULL};
    int rows = 0;
    int columns = 0;
    sl_clip_grid(b->clip, &rows, &columns);
    int64_t tokens = (int64_t)rows * columns * sl_clip_pairs(b->clip);
    int status = SL_OK;
    for (int i = 0; i <= v->deepstack_count && status == SL_OK; i++) {
        tensor[i] = sl_tensor_2d(NULL, b->model.compute, tokens, v->out_hidden);
        status = ops->alloc(b->model.device, sl_tensor_bytes(&tensor[i]), &memory[i], error);
        tensor[i].data = memory[i];
    }
    double seconds = 0;
    status = status == SL_OK ? encode_window(b, &tensor[0], &tensor[1], &seconds, error) : status;
    b->f->stage_s[SL_STAGE_VISION] = seconds * like_the_first(b);
    for (int i = 0; i <= v->deepstack_count; i++) {
        ops->release(b->model.device, memory[i]);
    }
    return status;
}

// Features that cost nothing.
static int zero_features(void *context, struct sl_stream *stream, int64_t first, int64_t count,
                         const struct sl_tensor *out, const struct sl_tensor *deepstack, struct sl_error *error)
{
    const struct bench *b = context;
    const struct sl_device_ops *ops = b->model.device->ops;
    (void)first, (void)count, (void)error;
    ops->zero(stream, out->data, sl_tensor_bytes(out));
    for (int i = 0; i < b->model.config.vision.deepstack_count; i++) {
        ops->zero(stream, deepstack[i].data, sl_tensor_bytes(&deepstack[i]));
    }
    return SL_OK;
}

static int make_prompts(struct bench *b, int count, struct sl_visual *visuals, struct sl_prompt *prompts,
                        struct sl_error *error)
{
    int rows = 0;
    int columns = 0;
    int status = SL_OK;
    sl_clip_grid(b->clip, &rows, &columns);
    for (int i = 0; i < count && status == SL_OK; i++) {
        visuals[i] = (struct sl_visual){.context = b, .features = zero_features};
        status = sl_prompt_create(b->model.tokenizer, &b->model.config, b->pairs, sl_clip_pairs(b->clip), rows, columns,
                                  &visuals[i], NULL, b->o->rules.prompt, &prompts[i], error);
    }
    return status;
}

static int measure_prefill(struct bench *b, const struct sl_prompt *prompt, struct sl_error *error)
{
    double *seconds = calloc((size_t)b->o->repeat, sizeof *seconds);
    int status = seconds != NULL ? SL_OK : sl_fail(error, SL_ERR_MEMORY, "out of memory");
    for (int i = 0; i < b->o->repeat && status == SL_OK; i++) {
        struct sl_asked asked;
        status = sl_ask(b->model.engine, prompt, 1, 1, &asked, error);
        if (status == SL_OK) {
            seconds[i] = asked.prefill_s;
            sl_asked_finish(&asked, 1);
        }
    }
    if (status == SL_OK) {
        b->f->stage_s[SL_STAGE_PREFILL] = sl_timing_median(seconds, (int)b->o->repeat) * like_the_first(b);
    }
    free(seconds);
    return status;
}

// As many windows at once as decode at the same time: the KV cache may not hold all with the longer answers that are
// needed to see them do so.
static int measure_decoding(struct bench *b, const struct sl_prompt *prompts, int count, struct sl_error *error)
{
    struct sl_asked *asked = calloc((size_t)count, sizeof *asked);
    int status = asked != NULL ? SL_OK : sl_fail(error, SL_ERR_MEMORY, "out of memory");
    struct sl_spread step = {0};
    for (; count > 0 && status == SL_OK && step.median == 0; count /= 2) {
        int64_t filling = count * (prompts[0].tokens / 256 + 2); // no device takes fewer rows in one step
        int tokens = (int)(filling + b->o->repeat * STEPS);
        status = sl_ask(b->model.engine, prompts, count, tokens, asked, error);
        if (status == SL_OK && sl_asked_step(asked, count, (int)b->o->repeat, &step)) {
            b->f->stage_s[SL_STAGE_DECODE] = step.median * (double)b->f->generated_tokens / count;
        }
        if (status == SL_OK) {
            sl_asked_finish(asked, count);
        }
    }
    free(asked);
    return status;
}

static int measure_engine(struct bench *b, struct sl_error *error)
{
    int64_t windows = b->f->windows + b->f->windows_failed;
    int count = windows < b->model.sequences && windows > 0 ? (int)windows : b->model.sequences;
    struct sl_visual *visuals = calloc((size_t)count, sizeof *visuals);
    struct sl_prompt *prompts = calloc((size_t)count, sizeof *prompts);
    int status = visuals != NULL && prompts != NULL ? SL_OK : sl_fail(error, SL_ERR_MEMORY, "out of memory");
    status = status == SL_OK ? make_prompts(b, count, visuals, prompts, error) : status;
    status = status == SL_OK ? measure_prefill(b, prompts, error) : status;
    status = status == SL_OK ? measure_decoding(b, prompts, count, error) : status;
    for (int i = 0; i < count && prompts != NULL; i++) {
        sl_prompt_finish(&prompts[i]);
    }
    free(prompts);
    free(visuals);
    return status;
}

// The stages run beside each other, but for the three of the engine, which take turns: of the slowest thread its
// longest stage.
static enum sl_bench_stage find_binding(const double *seconds)
{
    double engine = seconds[SL_STAGE_VISION] + seconds[SL_STAGE_PREFILL] + seconds[SL_STAGE_DECODE];
    if (seconds[SL_STAGE_READ] > engine && seconds[SL_STAGE_READ] > seconds[SL_STAGE_RESIZE]) {
        return SL_STAGE_READ;
    }
    if (seconds[SL_STAGE_RESIZE] > engine) {
        return SL_STAGE_RESIZE;
    }
    enum sl_bench_stage longest = SL_STAGE_VISION;
    for (enum sl_bench_stage s = SL_STAGE_PREFILL; s < SL_STAGES; s++) {
        longest = seconds[s] > seconds[longest] ? s : longest;
    }
    return longest;
}

// ---- All of it

static int open_bench(struct bench *b, struct sl_error *error)
{
    struct sl_model_options model = b->o->model;
    int frames = sl_window_frames(&b->o->rules);
    model.max_tokens_per_pair = b->o->rules.max_tokens_per_pair;
    model.pairs_per_window = frames / 2 + 1;
    model.max_new_tokens = b->o->rules.max_new_tokens;
    double start = sl_timing_now_s();
    int status = sl_model_open(&model, &b->model, error);
    status = status == SL_OK ? sl_eye_create(&b->model, &b->eye, error) : status;
    b->f->load_s = sl_timing_now_s() - start;
    if (status != SL_OK) {
        return status;
    }
    const struct sl_device_ops *ops = b->model.device->ops;
    ops->info(b->model.device, &b->f->device);
    memcpy(b->f->model, b->model.name, sizeof b->f->model);
    b->f->in_flight = b->model.sequences;
    b->f->path = b->o->path;
    b->f->rules = b->o->rules;
    b->pairs = calloc((size_t)model.pairs_per_window, sizeof *b->pairs);
    status = b->pairs != NULL ? SL_OK : sl_fail(error, SL_ERR_MEMORY, "out of memory");
    status = status == SL_OK ? sl_clip_create(b->eye, frames, model.max_tokens_per_pair, &b->clip, error) : status;
    return status == SL_OK ? ops->stream_create(b->model.device, &b->stream, error) : status;
}

static void close_bench(struct bench *b)
{
    sl_engine_destroy(b->model.engine); // before the eye that it looks through
    b->model.engine = NULL;
    sl_clip_destroy(b->clip);
    free(b->pairs);
    if (b->stream != NULL) {
        b->model.device->ops->stream_destroy(b->stream);
    }
    sl_eye_destroy(b->eye);
    sl_model_close(&b->model);
}

int sl_bench_pipeline(const struct sl_bench_pipeline_options *options, struct sl_bench_pipeline_figures *out,
                      struct sl_error *error)
{
    *out = (struct sl_bench_pipeline_figures){0};
    struct bench b = {.o = options, .f = out};
    sl_signals_install();
    int status = open_bench(&b, error);
    status = status == SL_OK ? run_pipeline(&b, error) : status;
    status = status == SL_OK ? measure_reading(&b, error) : status;
    status = status == SL_OK ? measure_resizing(&b, error) : status;
    status = status == SL_OK ? measure_tower(&b, error) : status;
    status = status == SL_OK ? measure_engine(&b, error) : status;
    out->binds = find_binding(out->stage_s);
    close_bench(&b);
    return status;
}
