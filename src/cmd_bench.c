// SPDX-License-Identifier: Apache-2.0
// `scenelog bench`: a model's speed on this machine, each figure beside what the machine reaches alone in the same run:
// prefill and the vision tower against one matrix product of the MLP's size, decoding against the memory's read rate.
//
// The ratios are what counts: absolute times of a shared machine are noise.
#include <getopt.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cpu/cpu.h"
#include "src/commands.h"
#include "src/model.h"
#include "src/options.h"
#include "src/reference.h"
#include "src/timing.h"

enum { PROMPT_TOKENS = 2048, DECODE_TOKENS = 32, PAIR_SIDE = 448, REPEATS = 5 };

struct bench {
    struct sl_device *device;
    struct sl_weights *weights;
    struct sl_model_config config;
    enum sl_dtype compute;
    struct sl_device_info info;
    struct sl_stream *stream;
};

struct figures {
    double load_s;
    double gemm_flops, read_bytes_per_s;                         // what the machine reaches
    double prefill_s, prefill_flops;                             // operations a second
    double decode_s_per_token, decode_bytes_per_s, decode_ratio; // ratio: median of runs, each to the reading beside it
    double tower_s, tower_flops;
};

// ---- The decoder, through the engine

struct wait {
    pthread_mutex_t lock;
    pthread_cond_t change;
    int done;
    struct sl_answer answer;
};

static void on_done(void *context, const struct sl_answer *answer)
{
    struct wait *w = context;
    pthread_mutex_lock(&w->lock);
    w->answer = *answer;
    w->done = 1;
    pthread_cond_signal(&w->change);
    pthread_mutex_unlock(&w->lock);
}

static int ask(struct sl_engine *engine, const int32_t *ids, int64_t count, int new_tokens, struct sl_answer *out,
               struct sl_error *e)
{
    struct wait w = {.lock = PTHREAD_MUTEX_INITIALIZER, .change = PTHREAD_COND_INITIALIZER};
    struct sl_segment segment = {.count = count, .ids = ids};
    struct sl_request request = {.segments = &segment,
                                 .segment_count = 1,
                                 .sampling = {.top_p = 1},
                                 .max_new_tokens = new_tokens,
                                 .context = &w,
                                 .on_done = on_done};
    uint64_t ticket = 0;
    int status = sl_engine_submit(engine, &request, &ticket, e);
    if (status != SL_OK) {
        return status;
    }
    pthread_mutex_lock(&w.lock);
    while (!w.done) {
        pthread_cond_wait(&w.change, &w.lock);
    }
    pthread_mutex_unlock(&w.lock);
    *out = w.answer;
    if (w.answer.finish == SL_FINISH_FAILED && e != NULL) {
        *e = w.answer.error;
    }
    return w.answer.finish == SL_FINISH_FAILED ? (int)w.answer.error.status : SL_OK;
}

static double layer_parameters(const struct sl_text_config *t)
{
    double attention = (double)t->hidden * t->head_dim * (2.0 * t->heads + 2.0 * t->kv_heads);
    return attention + 3.0 * t->hidden * t->intermediate;
}

static int measure_prefill(const struct bench *b, struct sl_engine *engine, const int32_t *ids, struct figures *f,
                           struct sl_error *e)
{
    const struct sl_text_config *t = &b->config.text;
    double seconds[REPEATS];
    for (int i = -1; i < REPEATS; i++) { // the first is the warm-up
        struct sl_answer answer = {0};
        int status = ask(engine, ids, PROMPT_TOKENS, 1, &answer, e);
        if (status != SL_OK) {
            return status;
        }
        if (i >= 0) {
            seconds[i] = (double)answer.prefill_us * 1e-6;
        }
    }
    double n = PROMPT_TOKENS;
    double linear = 2 * n * layer_parameters(t) * t->layers + 2.0 * t->hidden * t->vocab; // the head runs on one row
    double attention = 2 * n * (n + 1) * t->heads * t->head_dim * t->layers;              // causal: half of all pairs
    f->prefill_s = sl_timing_median(seconds, REPEATS);
    f->prefill_flops = (linear + attention) / f->prefill_s;
    return SL_OK;
}

// Each run between two passes of plain reading: the memory's rate changes while we look.
static int measure_decoding(const struct bench *b, struct sl_engine *engine, const int32_t *ids, struct figures *f,
                            struct sl_error *e)
{
    const struct sl_text_config *t = &b->config.text;
    double bytes =
        (layer_parameters(t) * t->layers + (double)t->hidden * t->vocab) * (double)sl_dtype_bytes(b->compute);
    struct sl_reading *reading = sl_reading_create(b->info.threads);
    if (reading == NULL) {
        return sl_fail(e, SL_ERR_MEMORY, "out of memory");
    }
    double seconds[REPEATS];
    double rate[REPEATS];
    double ratio[REPEATS];
    int status = SL_OK;
    for (int i = 0; i < REPEATS && status == SL_OK; i++) {
        struct sl_answer answer = {0};
        double before = sl_reading_pass(reading);
        status = ask(engine, ids, 16, DECODE_TOKENS + 1, &answer, e);
        int64_t steps = answer.generated_tokens > 1 ? answer.generated_tokens - 1 : 1;
        seconds[i] = (double)answer.decode_us * 1e-6 / (double)steps;
        rate[i] = (before + sl_reading_pass(reading)) / 2;
        ratio[i] = bytes / seconds[i] / rate[i];
    }
    sl_reading_destroy(reading);
    if (status == SL_OK) {
        f->decode_s_per_token = sl_timing_median(seconds, REPEATS);
        f->decode_bytes_per_s = bytes / f->decode_s_per_token;
        f->read_bytes_per_s = sl_timing_median(rate, REPEATS);
        f->decode_ratio = sl_timing_median(ratio, REPEATS);
    }
    return status;
}

static int measure_decoder(struct bench *b, struct figures *f, struct sl_error *e)
{
    struct sl_engine_options options = {.compute = b->compute,
                                        .max_sequences = 1,
                                        .kv_tokens = PROMPT_TOKENS + 2 * DECODE_TOKENS + 128,
                                        .prefill_rows = PROMPT_TOKENS,
                                        .deterministic = 1};
    struct sl_engine *engine = NULL;
    double start = sl_timing_now_s();
    int status = sl_engine_create(b->device, b->weights, &b->config, NULL, &options, &engine, e);
    f->load_s = sl_timing_now_s() - start;
    int32_t ids[PROMPT_TOKENS];
    for (int i = 0; i < PROMPT_TOKENS; i++) {
        ids[i] = (int32_t)((i * 7919L + 13) % ((b->config.text.vocab + 1) / 2));
    }
    status = status == SL_OK ? measure_prefill(b, engine, ids, f, e) : status;
    status = status == SL_OK ? measure_decoding(b, engine, ids, f, e) : status;
    sl_engine_destroy(engine);
    return status;
}

// ---- The vision tower

static double tower_flops(const struct sl_vision_config *v, double patches)
{
    double merged = patches / (v->merge * v->merge);
    double wide = (double)v->hidden * v->merge * v->merge;
    double blocks = v->depth * (2 * patches * v->hidden * (4.0 * v->hidden + 2.0 * v->intermediate) +
                                4 * patches * patches * v->hidden);
    double mergers = (1 + v->deepstack_count) * 2 * merged * wide * (wide + v->out_hidden);
    return blocks + mergers + 2 * patches * v->hidden * v->channels * v->temporal_patch * v->patch * v->patch;
}

static int measure_tower(struct bench *b, struct figures *f, struct sl_error *e)
{
    const struct sl_vision_config *v = &b->config.vision;
    const struct sl_device_ops *ops = b->device->ops;
    int grid = PAIR_SIDE / (v->patch * v->merge) * v->merge;
    int64_t rows = (int64_t)grid * grid;
    int64_t tokens = rows / (v->merge * v->merge);
    int64_t columns = (int64_t)v->channels * v->temporal_patch * v->patch * v->patch;
    struct sl_vision *vision = NULL;
    void *memory[2 + SL_MAX_DEEPSTACK] = {NULL};
    struct sl_tensor tensor[2 + SL_MAX_DEEPSTACK];
    int count = 2 + v->deepstack_count; // patches, features, taps
    int status = sl_vision_create(b->device, b->weights, &b->config, b->compute, rows, &vision, e);
    for (int i = 0; i < count && status == SL_OK; i++) {
        tensor[i] = i == 0 ? sl_tensor_2d(NULL, b->compute, rows, columns)
                           : sl_tensor_2d(NULL, b->compute, tokens, v->out_hidden);
        status = ops->alloc(b->device, sl_tensor_bytes(&tensor[i]), &memory[i], e);
        tensor[i].data = memory[i];
    }
    double seconds[REPEATS + 1];
    for (int i = 0; i <= REPEATS && status == SL_OK; i++) {
        if (i == 0) {
            ops->zero(b->stream, memory[0], sl_tensor_bytes(&tensor[0]));
        }
        double start = sl_timing_now_s();
        status = sl_vision_encode(vision, b->stream, &tensor[0], 1, grid, grid, &tensor[1], &tensor[2], e);
        status = status == SL_OK ? ops->wait(b->stream, e) : status;
        seconds[i] = sl_timing_now_s() - start;
    }
    if (status == SL_OK) {
        f->tower_s = sl_timing_median(seconds + 1, REPEATS);
        f->tower_flops = tower_flops(v, (double)rows) / f->tower_s;
    }
    for (int i = 0; i < count; i++) {
        ops->release(b->device, memory[i]);
    }
    sl_vision_destroy(vision);
    return status;
}

// ---- The command

static double percent(double part, double whole)
{
    return whole > 0 ? 100 * part / whole : 0;
}

static void print_table(const struct bench *b, const struct figures *f)
{
    printf("device               %s, %s\n", b->info.name, sl_dtype_name(b->compute));
    printf("engine ready in      %.2f s\n", f->load_s);
    printf("matrix product       %.0f GFLOP/s, oneDNN alone%s\n", f->gemm_flops * 1e-9,
           f->gemm_flops > 0 ? "" : " (not built in: no ratios)");
    printf("memory               %.1f GB/s read alone, beside decoding\n", f->read_bytes_per_s * 1e-9);
    printf("prefill              %d tokens in %.0f ms, %.0f tok/s, %.0f GFLOP/s, %.0f %% of the product\n",
           PROMPT_TOKENS, f->prefill_s * 1e3, PROMPT_TOKENS / f->prefill_s, f->prefill_flops * 1e-9,
           percent(f->prefill_flops, f->gemm_flops));
    printf("decode, batch 1      %.1f tok/s, %.1f GB/s, %.0f %% of the memory\n", 1 / f->decode_s_per_token,
           f->decode_bytes_per_s * 1e-9, 100 * f->decode_ratio);
    printf("tower, one %dx%d pair  %.0f ms, %.0f GFLOP/s, %.0f %% of the product\n", PAIR_SIDE, PAIR_SIDE,
           f->tower_s * 1e3, f->tower_flops * 1e-9, percent(f->tower_flops, f->gemm_flops));
}

static void print_json(const struct bench *b, const struct figures *f)
{
    printf("{\"threads\":%d,\"compute\":\"%s\",\"load_s\":%.4f,\"gemm_gflops\":%.2f,\"read_gb_per_s\":%.2f,"
           "\"prefill_tokens\":%d,\"prefill_ms\":%.3f,\"prefill_gflops\":%.2f,\"prefill_ratio\":%.4f,"
           "\"decode_tok_per_s\":%.3f,\"decode_gb_per_s\":%.2f,\"decode_ratio\":%.4f,"
           "\"tower_ms\":%.3f,\"tower_gflops\":%.2f,\"tower_ratio\":%.4f}\n",
           b->info.threads, sl_dtype_name(b->compute), f->load_s, f->gemm_flops * 1e-9, f->read_bytes_per_s * 1e-9,
           PROMPT_TOKENS, f->prefill_s * 1e3, f->prefill_flops * 1e-9, percent(f->prefill_flops, f->gemm_flops) / 100,
           1 / f->decode_s_per_token, f->decode_bytes_per_s * 1e-9, f->decode_ratio, f->tower_s * 1e3,
           f->tower_flops * 1e-9, percent(f->tower_flops, f->gemm_flops) / 100);
}

struct options {
    const char *model_dir, *config_path;
    int64_t threads;
    int random, json;
};

static int parse(int argc, char **argv, struct options *o, struct sl_error *e)
{
    static const struct option long_options[] = {
        {"model", required_argument, NULL, 'm'}, {"config", required_argument, NULL, 'c'},
        {"random", no_argument, NULL, 'r'},      {"threads", required_argument, NULL, 't'},
        {"json", no_argument, NULL, 'j'},        {NULL, 0, NULL, 0}};
    opterr = 0;
    int option = 0;
    int status = SL_OK;
    while (status == SL_OK && (option = getopt_long(argc, argv, ":m:", long_options, NULL)) != -1) {
        switch (option) {
        case 'm':
            o->model_dir = optarg;
            break;
        case 'c':
            o->config_path = optarg;
            break;
        case 'r':
            o->random = 1;
            break;
        case 't':
            status = sl_option_int("--threads", optarg, 1, 1024, &o->threads, e);
            break;
        case 'j':
            o->json = 1;
            break;
        default:
            status = sl_fail(e, SL_ERR_USAGE, "bench: %s: unknown or without its value; see 'scenelog help bench'",
                             argv[optind - 1]);
        }
    }
    if (status == SL_OK && (optind != argc || (o->config_path != NULL) != (o->random != 0) ||
                            (o->config_path != NULL && o->model_dir != NULL))) {
        status = sl_fail(e, SL_ERR_USAGE, "bench: takes either --model DIR, or --config FILE with --random");
    }
    return status;
}

static int open_bench(const struct options *o, struct bench *b, struct sl_error *e)
{
    int status = sl_cpu_create((int)o->threads, &b->device, e);
    if (status != SL_OK) {
        return status;
    }
    b->device->ops->info(b->device, &b->info);
    b->compute = b->info.compute;
    status = b->device->ops->stream_create(b->device, &b->stream, e);
    if (status != SL_OK) {
        return status;
    }
    if (o->random) {
        status = sl_config_read_file(o->config_path, &b->config, e);
        return status == SL_OK ? sl_weights_random(b->compute, 1, &b->weights, e) : status;
    }
    const char *dir = o->model_dir != NULL ? o->model_dir : sl_default_model();
    status = sl_config_read(dir, &b->config, e);
    return status == SL_OK ? sl_weights_open(dir, &b->weights, e) : status;
}

static void close_bench(struct bench *b)
{
    if (b->stream != NULL) {
        b->device->ops->stream_destroy(b->stream);
    }
    if (b->device != NULL) {
        b->device->ops->destroy(b->device);
    }
    sl_weights_close(b->weights);
}

// Before and after: the better one, for the machine may have been busy once.
static void measure_alone(const struct bench *b, struct figures *f)
{
    const struct sl_text_config *t = &b->config.text;
    double product = sl_reference_product(b->compute, b->info.threads, PROMPT_TOKENS, t->intermediate, t->hidden);
    f->gemm_flops = product > f->gemm_flops ? product : f->gemm_flops;
}

int sl_cmd_bench(int argc, char **argv)
{
    struct options options = {0};
    struct bench bench = {0};
    struct figures figures = {0};
    struct sl_error error = {0};
    int status = parse(argc, argv, &options, &error);
    status = status == SL_OK ? open_bench(&options, &bench, &error) : status;
    if (status == SL_OK) {
        measure_alone(&bench, &figures);
    }
    status = status == SL_OK ? measure_decoder(&bench, &figures, &error) : status;
    status = status == SL_OK ? measure_tower(&bench, &figures, &error) : status;
    if (status == SL_OK) {
        measure_alone(&bench, &figures);
    }
    close_bench(&bench);
    if (status != SL_OK) {
        return sl_report(&error);
    }
    (options.json ? print_json : print_table)(&bench, &figures);
    return 0;
}
