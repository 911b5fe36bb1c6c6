// SPDX-License-Identifier: Apache-2.0
// Times operations at the shapes of the published models. A batch of launches stands between two waits; the median of
// several batches counts. Where inputs would stay in a cache, several sets of them take turns.
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "lm/kv.h"
#include "tests/tools/cuda_ops.h"

enum {
    DECODE_TOKENS = 4096, // cached, of each sequence
    PREFILL = 14601,      // rows: a prompt of 64 pairs of 640x352
    CHUNK = 512,          // rows of one step of the engine
    PATCHES = 56320,      // of 64 pairs
    GROUP = 880,
    PAIRS = 64,
    SETS = 8,
    BATCHES = 7,
};

static const double cold_bytes = 2e8; // so much stays in no cache

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

// What is timed: `run` enqueues the operation once, with inputs `set`.
struct timing {
    void (*run)(struct bench *b, const void *context, int set);
    const void *context;
    int sets;
    double bytes, flops; // of one run
};

static int compare_times(const void *x, const void *y)
{
    double a = *(const double *)x, b = *(const double *)y;
    return (a > b) - (a < b);
}

static double time_batch(struct bench *b, const struct timing *t, int runs)
{
    double start = now();
    for (int i = 0; i < runs; i++) {
        t->run(b, t->context, i % t->sets);
    }
    b->dut->ops->wait(b->stream, NULL);
    return (now() - start) / runs;
}

// 1: too much for this device to be worth waiting for.
static int too_slow(struct bench *b, double flops)
{
    return b->dut->ops->native_context(b->dut) == NULL && flops > 2e10;
}

static void measure(struct bench *b, const struct timing *t, const char *what)
{
    double seconds[BATCHES];
    time_batch(b, t, t->sets); // chooses algorithms, sizes scratch
    double once = time_batch(b, t, t->sets);
    int runs = once > 0.01 ? 1 : (int)(0.01 / once) + 1;
    runs = runs < t->sets ? t->sets : runs > 500 ? 500 : runs;
    for (int i = 0; i < BATCHES; i++) {
        seconds[i] = time_batch(b, t, runs);
    }
    qsort(seconds, BATCHES, sizeof *seconds, compare_times);
    double median = seconds[BATCHES / 2];
    if (bench_failed_stream(b, what)) {
        return;
    }
    printf("%-64s %10.1f us", what, median * 1e6);
    if (t->bytes > 0) {
        printf(" %8.0f GB/s", t->bytes / median * 1e-9);
    }
    if (t->flops > 0) {
        printf(" %8.4g TFLOP/s", t->flops / median * 1e-12);
    }
    printf("\n");
    fflush(stdout);
}

static int sets_for(double bytes)
{
    double sets = cold_bytes / (bytes + 1) + 1;
    return sets > SETS ? SETS : (int)sets;
}

// --- products ---

struct timed_layer {
    const char *name;
    int64_t out, in;
    int parts, bias;
    enum sl_epilogue epilogue;
    int residual, norm, y_is_f32;
    int rows[4]; // 0 ends them
};

#define DECODER_ROWS                                                                                                   \
    {                                                                                                                  \
        1, 8, 32, PREFILL                                                                                              \
    }
#define HEAD_ROWS                                                                                                      \
    {                                                                                                                  \
        1, 8, 32                                                                                                       \
    }
#define NONE SL_EPILOGUE_NONE

static const struct timed_layer layers[] = {
    {"2B qkv", 4096, 2048, 3, 0, NONE, 0, 1, 0, DECODER_ROWS},
    {"2B o", 2048, 2048, 1, 0, NONE, 1, 0, 0, DECODER_ROWS},
    {"2B gate_up", 12288, 2048, 2, 0, SL_EPILOGUE_SILU_GATE, 0, 1, 0, DECODER_ROWS},
    {"2B down", 2048, 6144, 1, 0, NONE, 1, 0, 0, DECODER_ROWS},
    {"2B head", 151936, 2048, 1, 0, NONE, 0, 1, 1, HEAD_ROWS},
    {"4B qkv", 6144, 2560, 3, 0, NONE, 0, 1, 0, DECODER_ROWS},
    {"4B o", 2560, 4096, 1, 0, NONE, 1, 0, 0, DECODER_ROWS},
    {"4B gate_up", 19456, 2560, 2, 0, SL_EPILOGUE_SILU_GATE, 0, 1, 0, DECODER_ROWS},
    {"4B down", 2560, 9728, 1, 0, NONE, 1, 0, 0, DECODER_ROWS},
    {"8B qkv", 6144, 4096, 3, 0, NONE, 0, 1, 0, DECODER_ROWS},
    {"8B o", 4096, 4096, 1, 0, NONE, 1, 0, 0, DECODER_ROWS},
    {"8B gate_up", 24576, 4096, 2, 0, SL_EPILOGUE_SILU_GATE, 0, 1, 0, DECODER_ROWS},
    {"8B down", 4096, 12288, 1, 0, NONE, 1, 0, 0, DECODER_ROWS},
    {"8B head", 151936, 4096, 1, 0, NONE, 0, 1, 1, HEAD_ROWS},
    {"small tower patches", 1024, 1536, 1, 1, NONE, 0, 0, 0, {PATCHES}},
    {"small tower qkv", 3072, 1024, 1, 1, NONE, 0, 0, 0, {PATCHES}},
    {"small tower proj", 1024, 1024, 1, 1, NONE, 1, 0, 0, {PATCHES}},
    {"small tower fc1", 4096, 1024, 1, 1, SL_EPILOGUE_GELU_TANH, 0, 0, 0, {PATCHES}},
    {"small tower fc2", 1024, 4096, 1, 1, NONE, 1, 0, 0, {PATCHES}},
    {"small merger fc1", 4096, 4096, 1, 1, SL_EPILOGUE_GELU_ERF, 0, 0, 0, {PATCHES / 4}},
    {"small merger fc2", 2048, 4096, 1, 1, NONE, 0, 0, 0, {PATCHES / 4}},
    {"large tower qkv", 3456, 1152, 1, 1, NONE, 0, 0, 0, {PATCHES}},
    {"large tower proj", 1152, 1152, 1, 1, NONE, 1, 0, 0, {PATCHES}},
    {"large tower fc1", 4304, 1152, 1, 1, SL_EPILOGUE_GELU_TANH, 0, 0, 0, {PATCHES}},
    {"large tower fc2", 1152, 4304, 1, 1, NONE, 1, 0, 0, {PATCHES}},
    {"large merger fc1", 4608, 4608, 1, 1, SL_EPILOGUE_GELU_ERF, 0, 0, 0, {PATCHES / 4}},
};

struct product_context {
    const struct timed_layer *t;
    const struct layer *layer;
    struct operand x, norm, normed, y;
};

static void run_product(struct bench *b, const void *context, int set)
{
    const struct product_context *c = context;
    const struct sl_linear *linear = c->layer[set].dut;
    const struct sl_device_ops *ops = b->dut->ops;
    if (c->t->norm) {
        ops->rmsnorm_linear(b->stream, &c->x.dut, &c->norm.dut, 1e-6f, &c->normed.dut, linear, c->t->epilogue,
                            &c->y.dut);
    } else {
        ops->linear(b->stream, linear, &c->x.dut, c->t->epilogue, c->t->residual ? &c->y.dut : NULL, &c->y.dut);
    }
}

static void time_rows(struct bench *b, const struct timed_layer *t, const struct layer *layer, int sets, int64_t rows)
{
    int64_t columns = t->out / (t->epilogue == SL_EPILOGUE_SILU_GATE ? 2 : 1);
    enum sl_dtype y_type = t->y_is_f32 ? SL_F32 : b->type;
    double flops = 2.0 * (double)rows * (double)t->out * (double)t->in;
    char what[100];
    snprintf(what, sizeof what, "%s, rows %d (out %d, in %d)", t->name, (int)rows, (int)t->out, (int)t->in);
    if (too_slow(b, flops)) {
        return;
    }
    struct product_context c = {t,
                                layer,
                                operand_random(b, b->type, rows, t->in, 1),
                                operand_vector(b, b->type, t->in, 1, 0.2),
                                operand_output(b, b->type, rows, t->in),
                                operand_random(b, y_type, rows, columns, 1)};
    double bytes = (double)t->out * (double)t->in * (double)sl_dtype_bytes(b->type);
    struct timing timing = {run_product, &c, sets, rows <= 32 ? bytes : 0, rows > 8 ? flops : 0};
    measure(b, &timing, what);
}

static void time_layer(struct bench *b, const struct timed_layer *t)
{
    struct layer layer[SETS];
    int sets = t->rows[0] > 32 ? 1 : sets_for((double)t->out * (double)t->in * 2);
    for (int i = 0; i < sets; i++) {
        layer[i] = layer_create(b, t->out, t->in, t->parts, t->bias, 0);
    }
    struct bench_memory *held = b->memory;
    for (int i = 0; i < 4 && t->rows[i] > 0; i++) {
        b->memory = NULL;
        time_rows(b, t, layer, t->rows[i] > 32 ? 1 : sets, t->rows[i]);
        bench_clear(b);
    }
    b->memory = held;
    for (int i = 0; i < sets; i++) {
        layer_destroy(b, &layer[i]);
    }
    bench_clear(b);
}

static void time_products(struct bench *b)
{
    for (size_t i = 0; i < sizeof layers / sizeof *layers; i++) {
        time_layer(b, &layers[i]);
    }
}

// --- experts: 30B-A3B's layer ---

struct mixture_context {
    const struct mixture *mixture;
    struct operand x, y, logits;
    struct sent_rows sent[SETS];
};

static void run_experts(struct bench *b, const void *context, int set)
{
    const struct mixture_context *c = context;
    b->dut->ops->experts(b->stream, c->mixture->dut, &c->x.dut, &c->sent[set].expert.dut, &c->sent[set].weight.dut,
                         &c->y.dut);
}

static void run_route(struct bench *b, const void *context, int set)
{
    const struct mixture_context *c = context;
    b->dut->ops->route(b->stream, &c->logits.dut, 1, &c->sent[set].expert.dut, &c->sent[set].weight.dut);
}

static int experts_used(const struct sent_rows *sent, int experts)
{
    const int32_t *expert = sent->expert.host.data;
    uint8_t used[SL_MAX_EXPERTS] = {0};
    int count = 0;
    for (int64_t i = 0; i < sl_tensor_elements(&sent->expert.host); i++) {
        used[expert[i]] = 1;
    }
    for (int e = 0; e < experts; e++) {
        count += used[e];
    }
    return count;
}

static void time_mixture(struct bench *b, const struct mixture *mixture, int64_t rows)
{
    const struct mixture_shape *s = &mixture->shape;
    double each = 3.0 * s->hidden * s->inner, flops = 2 * each * (double)rows * s->top_k, used = 0;
    char what[100];
    if (too_slow(b, flops)) {
        return;
    }
    struct mixture_context c = {.mixture = mixture,
                                .x = operand_random(b, b->type, rows, s->hidden, 1),
                                .y = operand_random(b, b->type, rows, s->hidden, 1),
                                .logits = operand_random(b, SL_F32, rows, s->experts, 2)};
    int sets = rows > 32 ? 1 : SETS;
    for (int i = 0; i < sets; i++) {
        c.sent[i] = sent_rows_create(b, s, rows, 1);
        used += experts_used(&c.sent[i], s->experts) / (double)sets;
    }
    snprintf(what, sizeof what, "30B-A3B experts, rows %d (%.0f experts)", (int)rows, used);
    double bytes = rows <= 32 ? used * each * (double)sl_dtype_bytes(b->type) : 0;
    measure(b, &(struct timing){run_experts, &c, sets, bytes, rows > 8 ? flops : 0}, what);
    snprintf(what, sizeof what, "30B-A3B route, rows %d", (int)rows);
    measure(b, &(struct timing){run_route, &c, sets, 0, 0}, what);
}

struct block_context {
    const struct mixture *mixture;
    const struct layer *router;
    struct operand norm, y[SETS], normed, logits;
    struct sent_rows sent;
};

static void run_block(struct bench *b, const void *context, int set)
{
    const struct block_context *c = context;
    struct sl_experts_room room = {c->normed.dut, c->logits.dut, c->sent.expert.dut, c->sent.weight.dut};
    b->dut->ops->rmsnorm_experts(b->stream, &c->norm.dut, 1e-6f, c->router->dut, 1, c->mixture->dut, &room,
                                 &c->y[set].dut);
}

static void time_block(struct bench *b, const struct mixture *mixture, const struct layer *router, int64_t rows)
{
    const struct mixture_shape *s = &mixture->shape;
    struct block_context c = {.mixture = mixture,
                              .router = router,
                              .norm = operand_vector(b, b->type, s->hidden, 1, 0.2),
                              .normed = operand_output(b, b->type, rows, s->hidden),
                              .logits = operand_output(b, SL_F32, rows, s->experts),
                              .sent = sent_rows_create(b, s, rows, 1)};
    double bytes = 3.0 * s->hidden * s->inner * s->top_k * (double)sl_dtype_bytes(b->type);
    char what[100];
    for (int i = 0; i < SETS; i++) {
        c.y[i] = operand_random(b, b->type, rows, s->hidden, 1);
    }
    snprintf(what, sizeof what, "30B-A3B norm, route and experts, rows %d", (int)rows);
    measure(b, &(struct timing){run_block, &c, SETS, rows == 1 ? bytes : 0, 0}, what);
    bench_clear(b);
}

static void time_experts(struct bench *b)
{
    static const int64_t rows[] = {1, 2, 4, 8, 16, 32, 64, 128, CHUNK, PREFILL};
    static const struct mixture_shape shape = {SL_EXPERTS_OUTPUT_MAJOR, 0, 128, 2048, 768, 8};
    if (b->dut->ops->experts == NULL) {
        return;
    }
    struct mixture mixture = mixture_create(b, &shape, 0);
    struct bench_memory *held = b->memory;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        b->memory = NULL;
        time_mixture(b, &mixture, rows[i]);
        bench_clear(b);
    }
    struct layer router = layer_create(b, shape.experts, shape.hidden, 1, 0, 0);
    for (int64_t count = 1; count <= 8; count *= 2) {
        struct bench_memory *of_router = b->memory;
        b->memory = NULL;
        time_block(b, &mixture, &router, count);
        b->memory = of_router;
    }
    layer_destroy(b, &router);
    bench_clear(b);
    b->memory = held;
    mixture_destroy(b, &mixture);
    bench_clear(b);
}

// --- attention ---

static void run_paged(struct bench *b, const void *context, int set)
{
    const struct paged *p = (const struct paged *)context + set;
    b->dut->ops->attention_paged(b->stream, &p->dut, &p->qkv.dut, p->shape.heads, &p->dut_kv, &p->y.dut);
}

static void run_store(struct bench *b, const void *context, int set)
{
    const struct paged *p = (const struct paged *)context + set;
    b->dut->ops->qk_norm_rope_store(b->stream, &p->dut, &p->qkv.dut, p->shape.heads, &p->q_norm.dut, &p->k_norm.dut,
                                    1e-6f, &p->dut_rope, &p->dut_kv);
}

static void run_at_once(struct bench *b, const void *context, int set)
{
    const struct paged *p = (const struct paged *)context + set;
    (void)b->dut->ops->turn_and_attend(b->stream, &p->dut, &p->qkv.dut, p->shape.heads, &p->q_norm.dut, &p->k_norm.dut,
                                       1e-6f, &p->dut_rope, &p->dut_kv, &p->y.dut);
}

// `count` sequences alike.
static void time_paged(struct bench *b, int heads, int count, int rows, int length)
{
    struct paged_shape shape = {heads, 8, 128, SL_KV_PAGE_TOKENS};
    struct batch_sequence sequence[32];
    struct paged p[SETS];
    double d = 128, kv_bytes = (double)count * length * 8 * d * 2 * 2;
    double pairs = (double)count * ((double)rows * (length - rows) + (double)rows * (rows + 1) / 2);
    int sets = rows == 1 ? sets_for(kv_bytes) : 1;
    char what[100];
    if (too_slow(b, 4 * pairs * heads * d)) {
        return;
    }
    for (int i = 0; i < count; i++) {
        sequence[i] = (struct batch_sequence){rows, length};
    }
    for (int i = 0; i < sets; i++) {
        p[i] = paged_create(b, shape, sequence, count);
    }
    double row_bytes = (double)count * rows * (heads + 16) * d * 2 * 2;
    struct timing store = {run_store, p, sets, row_bytes, 0};
    snprintf(what, sizeof what, "qk_norm_rope_store, heads %d/8, %d x %d rows", heads, count, rows);
    measure(b, &store, what);
    struct timing attention = {run_paged, p, sets, rows == 1 ? kv_bytes : 0, 4 * pairs * heads * d};
    snprintf(what, sizeof what, "attention_paged, heads %d/8, %d x %d rows, length %d", heads, count, rows, length);
    measure(b, &attention, what);
    if (rows == 1 && b->dut->ops->turn_and_attend != NULL) {
        struct timing at_once = {run_at_once, p, sets, kv_bytes, 4 * pairs * heads * d};
        snprintf(what, sizeof what, "turn_and_attend, heads %d/8, %d sequences, length %d", heads, count, length);
        measure(b, &at_once, what);
    }
    bench_clear(b);
}

struct groups_context {
    struct operand qkv, position, start, y;
    int heads;
};

static void run_groups(struct bench *b, const void *context, int set)
{
    const struct groups_context *c = context;
    (void)set;
    b->dut->ops->attention_groups(b->stream, &c->qkv.dut, c->heads, &c->start.dut, PAIRS, GROUP, &c->y.dut);
}

static void run_rope_2d(struct bench *b, const void *context, int set)
{
    const struct groups_context *c = context;
    (void)set;
    b->dut->ops->rope_2d(b->stream, &c->qkv.dut, c->heads, &c->position.dut);
}

static void time_groups(struct bench *b, int d)
{
    enum { HEADS = 16 };
    int32_t start[PAIRS + 1], *where = bench_host(b, PATCHES * 2 * (int64_t)sizeof *where);
    double flops = 4.0 * PAIRS * GROUP * GROUP * HEADS * d;
    char what[100];
    if (too_slow(b, flops)) {
        return;
    }
    for (int i = 0; i <= PAIRS; i++) {
        start[i] = i * GROUP;
    }
    for (int i = 0; i < PATCHES; i++) {
        where[2 * i] = i % GROUP / 40;
        where[2 * i + 1] = i % 40;
    }
    struct groups_context c = {operand_random(b, b->type, PATCHES, 3 * HEADS * d, 1),
                               operand_ints(b, where, PATCHES, 2), operand_ints(b, start, 1, PAIRS + 1),
                               operand_output(b, b->type, PATCHES, HEADS * d), HEADS};
    snprintf(what, sizeof what, "attention_groups, d %d, %d groups of %d", d, PAIRS, GROUP);
    measure(b, &(struct timing){run_groups, &c, 1, 0, flops}, what);
    snprintf(what, sizeof what, "rope_2d, d %d, rows %d", d, PATCHES);
    measure(b, &(struct timing){run_rope_2d, &c, 1, 4.0 * PATCHES * 2 * HEADS * d, 0}, what);
    bench_clear(b);
}

static void time_attention(struct bench *b)
{
    for (int heads = 16; heads <= 32; heads += 16) {
        time_paged(b, heads, 1, 1, DECODE_TOKENS);
        time_paged(b, heads, 8, 1, DECODE_TOKENS);
        time_paged(b, heads, 32, 1, DECODE_TOKENS);
        time_paged(b, heads, 1, CHUNK, PREFILL);
        time_paged(b, heads, 1, PREFILL, PREFILL);
    }
    time_groups(b, 64);
    time_groups(b, 72);
}

// --- rows, pictures, tokens ---

struct rows_context {
    struct operand x, y, weight, bias;
};

static void run_rmsnorm(struct bench *b, const void *context, int set)
{
    const struct rows_context *c = context;
    (void)set;
    b->dut->ops->rmsnorm(b->stream, &c->x.dut, &c->weight.dut, 1e-6f, &c->y.dut);
}

static void run_layernorm(struct bench *b, const void *context, int set)
{
    const struct rows_context *c = context;
    (void)set;
    b->dut->ops->layernorm(b->stream, &c->x.dut, &c->weight.dut, &c->bias.dut, 1e-6f, &c->y.dut);
}

static void time_norm(struct bench *b, int64_t rows, int64_t n, int layernorm)
{
    struct rows_context c = {operand_random(b, b->type, rows, n, 1), operand_output(b, b->type, rows, n),
                             operand_vector(b, b->type, n, 1, 0.1), operand_vector(b, b->type, n, 0, 0.1)};
    char what[100];
    snprintf(what, sizeof what, "%s, rows %d, columns %d", layernorm ? "layernorm" : "rmsnorm", (int)rows, (int)n);
    measure(b, &(struct timing){layernorm ? run_layernorm : run_rmsnorm, &c, 1, 4.0 * (double)(rows * n), 0}, what);
    bench_clear(b);
}

struct picture_context {
    struct sl_frame *frame;
    struct operand rgb[2], patches;
};

static void run_resize(struct bench *b, const void *context, int set)
{
    const struct picture_context *c = context;
    b->dut->ops->image_resize(b->stream, c->frame, &c->rgb[set].dut);
}

static void run_patchify(struct bench *b, const void *context, int set)
{
    static const float half[3] = {0.5f, 0.5f, 0.5f};
    const struct picture_context *c = context;
    struct sl_tensor rgb[2] = {c->rgb[0].dut, c->rgb[1].dut};
    (void)set;
    b->dut->ops->patchify(b->stream, rgb, 2, 16, 2, half, half, &c->patches.dut);
}

struct still_context {
    struct operand pictures, pair, difference;
};

static void run_differences(struct bench *b, const void *context, int set)
{
    const struct still_context *c = context;
    (void)set;
    b->dut->ops->pair_differences(b->stream, &c->pictures.dut, &c->pair.dut, 2, &c->difference.dut);
}

// A window of 30 s at 2 frames a second, 640x352.
static void time_differences(struct bench *b)
{
    enum { WIDTH = 640, HEIGHT = 352, COUNT = 60 };
    const int64_t size = (int64_t)WIDTH * HEIGHT * 3 * COUNT;
    uint8_t *pixels = bench_host(b, size);
    int32_t pair[COUNT];
    for (int i = 0; i < COUNT; i++) {
        pair[i] = i;
    }
    struct still_context c = {operand_bytes(b, pixels, 1, size), operand_ints(b, pair, 1, COUNT),
                              operand_output(b, SL_F32, 1, COUNT / 2)};
    c.pictures = operand_reshaped(&c.pictures, 4, (int64_t[]){COUNT, HEIGHT, WIDTH, 3});
    c.pair = operand_reshaped(&c.pair, 2, (int64_t[]){COUNT / 2, 2});
    c.difference = operand_reshaped(&c.difference, 1, (int64_t[]){COUNT / 2});
    measure(b, &(struct timing){run_differences, &c, 1, (double)size, 0}, "pair_differences, 30 pairs of 640x352");
    bench_clear(b);
}

static void time_pictures(struct bench *b)
{
    enum { WIDTH = 640, HEIGHT = 352 };
    static const uint8_t none[WIDTH * HEIGHT * 3];
    struct picture_context c = {.frame = bench_frame(b, 1920, 1080)};
    for (int i = 0; i < 2; i++) {
        c.rgb[i] = operand_bytes(b, none, 1, sizeof none);
        c.rgb[i] = operand_reshaped(&c.rgb[i], 3, (int64_t[]){HEIGHT, WIDTH, 3});
    }
    c.patches = operand_output(b, b->type, GROUP, 1536);
    measure(b, &(struct timing){run_resize, &c, 2, 1920 * 1080 * 1.5, 0}, "image_resize, nv12 1920x1080 to 640x352");
    measure(b, &(struct timing){run_patchify, &c, 1, 0, 0}, "patchify, a pair of 640x352");
    bench_clear(b);
}

struct sample_context {
    struct operand logits, token, logprob;
    struct sl_sample_row rows[32];
};

static void run_sample(struct bench *b, const void *context, int set)
{
    const struct sample_context *c = context;
    (void)set;
    b->dut->ops->sample(b->stream, &c->logits.dut, c->rows, NULL, NULL, &c->token.dut, &c->logprob.dut);
}

static void time_sample(struct bench *b, int count, struct sl_sample_row how, const char *kind)
{
    struct sample_context c = {operand_random(b, SL_F32, count, 151936, 3),
                               operand_output(b, SL_F32, 1, count),
                               operand_output(b, SL_F32, 1, count),
                               {{0, 1, 0, 0, 0}}};
    char what[100];
    c.token.dut.dtype = SL_I32;
    for (int i = 0; i < count; i++) {
        c.rows[i] = how;
    }
    snprintf(what, sizeof what, "sample, %s, rows %d", kind, count);
    measure(b, &(struct timing){run_sample, &c, 1, 4.0 * count * 151936, 0}, what);
    bench_clear(b);
}

static void time_others(struct bench *b)
{
    time_norm(b, PREFILL, 2048, 0);
    time_norm(b, PREFILL, 4096, 0);
    time_norm(b, PATCHES, 1024, 1);
    time_norm(b, PATCHES, 1152, 1);
    time_pictures(b);
    time_differences(b);
    for (int count = 1; count <= 32; count += 31) {
        time_sample(b, count, (struct sl_sample_row){0, 1, 0, 0, 0}, "greedy");
        time_sample(b, count, (struct sl_sample_row){0.7f, 0.8f, 20, 0, 0.5f}, "top-k 20, top-p 0.8");
        time_sample(b, count, (struct sl_sample_row){0.7f, 0.9f, 0, 0, 0.5f}, "top-p 0.9");
    }
}

void time_all(struct bench *b)
{
    static const struct {
        const char *name;
        void (*run)(struct bench *b);
    } kinds[] = {
        {"products", time_products}, {"experts", time_experts}, {"attention", time_attention}, {"others", time_others}};
    b->type = SL_BF16;
    b->no_reference = 1;
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        if (bench_is_wanted(b, kinds[i].name)) {
            kinds[i].run(b);
        }
    }
}
