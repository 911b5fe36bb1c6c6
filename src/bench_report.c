// SPDX-License-Identifier: Apache-2.0
#include "src/bench_report.h"

#include <cjson/cJSON.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "src/cost.h"

static double ratio(double part, double whole)
{
    return whole > 0 ? part / whole : 0;
}

static double tower_flops(const struct sl_bench_figures *f)
{
    return ratio(f->vision_flops, f->vision_s.median);
}

// ---- The model, as a table

// "12.3 ms (12.1 to 12.9)"
static void print_ms(const struct sl_spread *s)
{
    printf("%.5g ms (%.5g to %.5g)", s->median * 1e3, s->low * 1e3, s->high * 1e3);
}

static void print_flops(double flops)
{
    int tera = flops >= 1e12;
    printf("%.4g %s", flops * (tera ? 1e-12 : 1e-9), tera ? "TFLOP/s" : "GFLOP/s");
}

static void print_of_product(const struct sl_bench_figures *f, double flops)
{
    printf(", ");
    print_flops(flops);
    if (f->product_flops > 0) {
        printf(", %.0f %% of the product", 100 * ratio(flops, f->product_flops));
    }
    printf("\n");
}

static void print_machine(const struct sl_bench_figures *f)
{
    int gpu = f->device.threads == 0;
    printf("device               %s, %s\n", f->device.name, sl_dtype_name(f->compute));
    printf("model                %s, %.2f GB of weights\n", f->model, f->weights_bytes * 1e-9);
    if (f->product_flops > 0) {
        printf("matrix product       ");
        print_flops(f->product_flops);
        printf(", alone (%s)\n", gpu ? "the device's own" : "oneDNN");
    } else if (f->parts & (SL_BENCH_VISION | SL_BENCH_PREFILL)) {
        printf("matrix product       oneDNN is not built in: no ratios\n");
    }
    if (f->memory_bytes_per_s > 0) {
        printf("memory               %.4g GB/s, %s\n", f->memory_bytes_per_s * 1e-9,
               gpu ? "copied alone, read and written" : "read alone, beside decoding");
    }
    printf("load                 %.2f s, %.2f GB/s\n", f->load_s, ratio(f->weights_bytes, f->load_s) * 1e-9);
}

static void print_prefill(const struct sl_bench_figures *f, const char *kind, int64_t tokens,
                          const struct sl_spread *seconds, double flops)
{
    printf("prefill %-12s %" PRId64 " tokens ", kind, tokens);
    if (seconds->median == 0) {
        printf("do not fit\n");
        return;
    }
    printf("in ");
    print_ms(seconds);
    printf(", %.5g tok/s", (double)tokens / seconds->median);
    print_of_product(f, flops / seconds->median);
}

static void print_prompts(const struct sl_bench_figures *f)
{
    if (f->parts & SL_BENCH_VISION) {
        printf("vision tower         %" PRId64 " pair%s of %dx%d in ", f->pairs, f->pairs == 1 ? "" : "s", f->width,
               f->height);
        print_ms(&f->vision_s);
        print_of_product(f, tower_flops(f));
    }
    if (f->parts & SL_BENCH_PREFILL) {
        print_prefill(f, "with vision", f->prefill_tokens, &f->prefill_s, f->prefill_flops);
        print_prefill(f, "of text", f->text_tokens, &f->text_s, f->text_flops);
    }
}

static void print_decoding(const struct sl_bench_figures *f)
{
    for (int i = 0; i < f->decode_count; i++) {
        const struct sl_bench_decode *d = &f->decode[i];
        printf("decode, batch %-6d ", d->batch);
        if (!d->fits) {
            printf("does not fit beside %" PRId64 " tokens of context each\n", f->context);
            continue;
        }
        printf("%.5g tok/s at %" PRId64 " tokens of context, a step in ", d->batch / d->step_s.median, f->context);
        print_ms(&d->step_s);
        printf(", %.0f %% of the memory's rate\n", 100 * ratio(d->floor_s, d->step_s.median));
    }
}

static void print_answers(const struct sl_bench_figures *f)
{
    if (f->answer_s.median > 0) {
        printf("first token          after ");
        print_ms(&f->first_token_s);
        printf(", one pair of 1920x1080, %" PRId64 " tokens\nanswer of %d        in ", f->answer_prompt_tokens,
               SL_BENCH_ANSWER_TOKENS);
        print_ms(&f->answer_s);
        printf("\n");
    }
    for (int i = 0; i < f->chunk_count; i++) {
        const struct sl_bench_chunk *c = &f->chunk[i];
        double rate = c->batch / c->seconds.median;
        printf("chunks, batch %-6d %d output token%s: %.4g s (%.4g to %.4g), %.4g chunks/s, %.4g streams\n", c->batch,
               c->output_tokens, c->output_tokens == 1 ? "" : "s", c->seconds.median, c->seconds.low, c->seconds.high,
               rate, rate * SL_BENCH_CHUNK_SECONDS);
    }
}

void sl_bench_print_model(const struct sl_bench_figures *f)
{
    print_machine(f);
    print_prompts(f);
    print_decoding(f);
    print_answers(f);
    if (f->peak_bytes > 0) {
        printf("peak memory          %.2f GB %s\n", (double)f->peak_bytes * 1e-9,
               f->device.threads == 0 ? "of the device" : "resident");
    }
    if (f->largest_batch > 0) {
        printf("largest batch        %" PRId64 " sequences of %" PRId64 " tokens\n", f->largest_batch, f->context);
    }
}

// ---- The model, as JSON

// cJSON's adders return NULL when memory is out; counted in `lost`.
struct writer {
    cJSON *object;
    int lost;
};

static void put(struct writer *w, const char *key, double value)
{
    w->lost += cJSON_AddNumberToObject(w->object, key, value) == NULL;
}

static void put_text(struct writer *w, const char *key, const char *value)
{
    w->lost += cJSON_AddStringToObject(w->object, key, value) == NULL;
}

// "KEY", "KEY_low", "KEY_high"; null when it was not measured.
static void put_spread(struct writer *w, const char *key, const struct sl_spread *s, double scale)
{
    static const char *const ends[] = {"", "_low", "_high"};
    double values[] = {s->median, s->low, s->high};
    for (int i = 0; i < 3; i++) {
        char name[80];
        snprintf(name, sizeof name, "%s%s", key, ends[i]);
        cJSON *added = s->median > 0 ? cJSON_AddNumberToObject(w->object, name, values[i] * scale)
                                     : cJSON_AddNullToObject(w->object, name);
        w->lost += added == NULL;
    }
}

// Null when it is not known.
static void put_known(struct writer *w, const char *key, double value)
{
    cJSON *added = value > 0 ? cJSON_AddNumberToObject(w->object, key, value) : cJSON_AddNullToObject(w->object, key);
    w->lost += added == NULL;
}

// One more object at the end of `array`.
static struct writer append(cJSON *array)
{
    struct writer w = {.object = cJSON_CreateObject()};
    w.lost = w.object == NULL || array == NULL || !cJSON_AddItemToArray(array, w.object);
    return w;
}

static void put_decoding(struct writer *w, const struct sl_bench_figures *f)
{
    cJSON *array = cJSON_AddArrayToObject(w->object, "decode");
    for (int i = 0; i < f->decode_count; i++) {
        const struct sl_bench_decode *d = &f->decode[i];
        struct writer one = append(array);
        put(&one, "batch", d->batch);
        put(&one, "context", (double)f->context);
        put_known(&one, "tok_per_s", ratio(d->batch, d->step_s.median));
        put_known(&one, "tok_per_s_low", ratio(d->batch, d->step_s.high));
        put_known(&one, "tok_per_s_high", ratio(d->batch, d->step_s.low));
        put_known(&one, "step_ms", d->step_s.median * 1e3);
        put_known(&one, "floor_ms", d->floor_s * 1e3);
        put_known(&one, "ratio", ratio(d->floor_s, d->step_s.median));
        w->lost += one.lost;
    }
    w->lost += array == NULL;
}

static void put_chunks(struct writer *w, const struct sl_bench_figures *f)
{
    cJSON *array = cJSON_AddArrayToObject(w->object, "chunk");
    for (int i = 0; i < f->chunk_count; i++) {
        const struct sl_bench_chunk *c = &f->chunk[i];
        struct writer one = append(array);
        put(&one, "batch", c->batch);
        put(&one, "output_tokens", c->output_tokens);
        put(&one, "prompt_tokens", (double)c->prompt_tokens);
        put_spread(&one, "seconds", &c->seconds, 1);
        put(&one, "chunks_per_s", c->batch / c->seconds.median);
        put(&one, "streams", c->batch / c->seconds.median * SL_BENCH_CHUNK_SECONDS);
        w->lost += one.lost;
    }
    w->lost += array == NULL;
}

static void put_prompts(struct writer *w, const struct sl_bench_figures *f)
{
    put(w, "vision_pairs", (double)f->pairs);
    put(w, "vision_width", f->width);
    put(w, "vision_height", f->height);
    put_spread(w, "vision_ms", &f->vision_s, 1e3);
    put_known(w, "vision_gflops", tower_flops(f) * 1e-9);
    put_known(w, "vision_ratio", ratio(tower_flops(f), f->product_flops));
    put_known(w, "prefill_tokens", (double)f->prefill_tokens);
    put_spread(w, "prefill_ms", &f->prefill_s, 1e3);
    put_known(w, "prefill_tok_per_s", ratio((double)f->prefill_tokens, f->prefill_s.median));
    put_known(w, "prefill_gflops", ratio(f->prefill_flops, f->prefill_s.median) * 1e-9);
    put_known(w, "prefill_ratio", ratio(ratio(f->prefill_flops, f->prefill_s.median), f->product_flops));
    put_known(w, "text_prefill_tokens", (double)f->text_tokens);
    put_spread(w, "text_prefill_ms", &f->text_s, 1e3);
    put_known(w, "text_prefill_tok_per_s", ratio((double)f->text_tokens, f->text_s.median));
    put_known(w, "text_prefill_gflops", ratio(f->text_flops, f->text_s.median) * 1e-9);
    put_known(w, "text_prefill_ratio", ratio(ratio(f->text_flops, f->text_s.median), f->product_flops));
}

// Prints and frees the object.
static int finish(struct writer *w, struct sl_error *error)
{
    char *text = w->object != NULL && w->lost == 0 ? cJSON_PrintUnformatted(w->object) : NULL;
    cJSON_Delete(w->object);
    if (text == NULL) {
        return sl_fail(error, SL_ERR_MEMORY, "out of memory");
    }
    puts(text);
    free(text);
    return SL_OK;
}

int sl_bench_print_model_json(const struct sl_bench_figures *f, struct sl_error *error)
{
    struct writer w = {.object = cJSON_CreateObject()};
    put_text(&w, "device", f->device.name);
    put(&w, "threads", f->device.threads);
    put_text(&w, "compute", sl_dtype_name(f->compute));
    put_text(&w, "model", f->model);
    put(&w, "weights_bytes", f->weights_bytes);
    put_known(&w, "gemm_gflops", f->product_flops * 1e-9);
    put_known(&w, "memory_gb_per_s", f->memory_bytes_per_s * 1e-9);
    put(&w, "load_s", f->load_s);
    put(&w, "load_gb_per_s", ratio(f->weights_bytes, f->load_s) * 1e-9);
    put_prompts(&w, f);
    put_decoding(&w, f);
    put_known(&w, "answer_prompt_tokens", (double)f->answer_prompt_tokens);
    put_spread(&w, "first_token_ms", &f->first_token_s, 1e3);
    put_spread(&w, "answer_512_ms", &f->answer_s, 1e3);
    put_chunks(&w, f);
    put_known(&w, "peak_bytes", (double)f->peak_bytes);
    put_known(&w, "largest_batch", (double)f->largest_batch);
    put(&w, "largest_batch_context", (double)f->context);
    return finish(&w, error);
}

// ---- Two models

// One row: a figure of both with its spread, and how the second one's median compares.
static void print_compared(const char *name, const struct sl_spread *a, const struct sl_spread *b, double scale,
                           const char *unit)
{
    printf("%-21s", name);
    for (int i = 0; i < 2; i++) {
        const struct sl_spread *s = i == 0 ? a : b;
        char text[80] = "does not fit";
        if (s->median > 0) {
            snprintf(text, sizeof text, "%.4g %s (%.4g to %.4g)", s->median * scale, unit, s->low * scale,
                     s->high * scale);
        }
        printf(" %-34s", text);
    }
    if (a->median > 0 && b->median > 0) {
        printf(" x %.3g", b->median / a->median);
    }
    printf("\n");
}

static void print_compared_number(const char *name, double a, double b, const char *format)
{
    char text[2][80] = {"not known", "not known"};
    double values[2] = {a, b};
    for (int i = 0; i < 2; i++) {
        if (values[i] > 0) {
            snprintf(text[i], sizeof text[i], format, values[i]);
        }
    }
    printf("%-21s %-34s %-34s", name, text[0], text[1]);
    if (a > 0 && b > 0) {
        printf(" x %.3g", b / a);
    }
    printf("\n");
}

void sl_bench_print_comparison(const struct sl_bench_comparison *c)
{
    const struct sl_bench_figures *a = &c->model[0], *b = &c->model[1];
    printf("device                %s, %s\n", a->device.name, sl_dtype_name(a->compute));
    printf("one at a time         a picture of %" PRId64 "x%" PRId64 ", then an answer of %" PRId64
           " tokens; median of %" PRId64 " (lowest to highest)\n\n",
           c->picture_width, c->picture_height, c->answer_tokens, c->repeat);
    printf("%-21s %-34s %s\n", "", a->model, b->model);
    print_compared_number("weights", a->weights_bytes * 1e-9, b->weights_bytes * 1e-9, "%.4g GB");
    print_compared_number("prompt", (double)a->answer_prompt_tokens, (double)b->answer_prompt_tokens, "%.0f tokens");
    print_compared("time to first token", &a->first_token_s, &b->first_token_s, 1e3, "ms");
    print_compared("decode", &a->answer_rate, &b->answer_rate, 1, "tok/s");
    print_compared("total response time", &a->answer_s, &b->answer_s, 1, "s");
    print_compared_number("peak memory", (double)a->peak_bytes * 1e-9, (double)b->peak_bytes * 1e-9, "%.4g GB");
    char sequences[64];
    snprintf(sequences, sizeof sequences, "%%.0f of %" PRId64 " tokens", a->context);
    print_compared_number("largest batch", (double)a->largest_batch, (double)b->largest_batch, sequences);
}

static void put_compared(struct writer *w, const struct sl_bench_figures *f)
{
    put_text(w, "model", f->model);
    put(w, "weights_bytes", f->weights_bytes);
    put(w, "load_s", f->load_s);
    put_known(w, "prompt_tokens", (double)f->answer_prompt_tokens);
    put_spread(w, "first_token_ms", &f->first_token_s, 1e3);
    put_spread(w, "decode_tok_per_s", &f->answer_rate, 1);
    put_spread(w, "response_ms", &f->answer_s, 1e3);
    put_known(w, "peak_bytes", (double)f->peak_bytes);
    put_known(w, "largest_batch", (double)f->largest_batch);
}

int sl_bench_print_comparison_json(const struct sl_bench_comparison *c, struct sl_error *error)
{
    struct writer w = {.object = cJSON_CreateObject()};
    put_text(&w, "device", c->model[0].device.name);
    put(&w, "threads", c->model[0].device.threads);
    put_text(&w, "compute", sl_dtype_name(c->model[0].compute));
    put(&w, "repeat", (double)c->repeat);
    put(&w, "picture_width", (double)c->picture_width);
    put(&w, "picture_height", (double)c->picture_height);
    put(&w, "answer_tokens", (double)c->answer_tokens);
    put(&w, "largest_batch_context", (double)c->model[0].context);
    cJSON *models = cJSON_AddArrayToObject(w.object, "models");
    w.lost += models == NULL;
    for (int i = 0; i < SL_BENCH_COMPARED; i++) {
        struct writer one = append(models);
        put_compared(&one, &c->model[i]);
        w.lost += one.lost;
    }
    return finish(&w, error);
}

// ---- The pipeline

void sl_bench_print_pipeline(const struct sl_bench_pipeline_figures *f)
{
    double windows = (double)(f->windows + f->windows_failed);
    printf("device               %s\n", f->device.name);
    printf("model                %s, ready in %.2f s\n", f->model, f->load_s);
    printf("file                 %s, %.1f s\n", f->path, f->media_s);
    printf("file to index        %.2f s, %.4g times real time, %.4g windows/s\n", f->total_s,
           ratio(f->media_s, f->total_s), ratio(windows, f->total_s));
    printf("windows              %" PRId64 " done, %" PRId64
           " failed; %d in flight; %.0f prompt and %.0f answer tokens "
           "each\n",
           f->windows, f->windows_failed, f->in_flight, ratio((double)f->prompt_tokens, windows),
           ratio((double)f->generated_tokens, windows));
    printf("pictures             %" PRId64 " decoded, %" PRId64 " shown to the model, %" PRId64
           " of these decoded into "
           "the GPU's memory\n",
           f->pictures, f->samples, f->on_device);
    printf("host                 %.2f cores busy\n", f->cores);
    for (enum sl_bench_stage s = 0; s < SL_STAGES; s++) {
        printf("%-8s alone       %.2f s, %.4g times real time\n", sl_bench_stage_name(s), f->stage_s[s],
               ratio(f->media_s, f->stage_s[s]));
    }
    printf("binds                %s\n", sl_bench_stage_name(f->binds));
}

int sl_bench_print_pipeline_json(const struct sl_bench_pipeline_figures *f, struct sl_error *error)
{
    struct writer w = {.object = cJSON_CreateObject()};
    double windows = (double)(f->windows + f->windows_failed);
    put_text(&w, "device", f->device.name);
    put_text(&w, "model", f->model);
    put_text(&w, "file", f->path);
    put(&w, "load_s", f->load_s);
    put(&w, "total_s", f->total_s);
    put(&w, "media_s", f->media_s);
    put(&w, "times_real_time", ratio(f->media_s, f->total_s));
    put(&w, "windows", (double)f->windows);
    put(&w, "windows_failed", (double)f->windows_failed);
    put(&w, "windows_per_s", ratio(windows, f->total_s));
    put(&w, "windows_in_flight", f->in_flight);
    put(&w, "prompt_tokens", (double)f->prompt_tokens);
    put(&w, "generated_tokens", (double)f->generated_tokens);
    put(&w, "pictures_decoded", (double)f->pictures);
    put(&w, "pictures_shown", (double)f->samples);
    put(&w, "pictures_on_gpu", (double)f->on_device);
    put(&w, "host_cores_busy", f->cores);
    for (enum sl_bench_stage s = 0; s < SL_STAGES; s++) {
        char key[32];
        snprintf(key, sizeof key, "%s_s", sl_bench_stage_name(s));
        put(&w, key, f->stage_s[s]);
    }
    put_text(&w, "binds", sl_bench_stage_name(f->binds));
    return finish(&w, error);
}
