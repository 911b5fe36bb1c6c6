// SPDX-License-Identifier: Apache-2.0
// route and experts, and weights of f8: what these mean is worked out here, value by value, and given to the reference
// in the type under test.
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/half.h"
#include "tests/tools/cuda_ops.h"

// --- weights of f8 ---

static int64_t blocks_of(int64_t n)
{
    return (n + SL_SCALE_BLOCK - 1) / SL_SCALE_BLOCK;
}

static float float_at(const struct sl_tensor *t, int64_t i)
{
    if (t->dtype == SL_F32) {
        return ((const float *)t->data)[i];
    }
    uint16_t half = ((const uint16_t *)t->data)[i];
    return t->dtype == SL_BF16 ? sl_bf16_to_f32(half) : sl_f16_to_f32(half);
}

static void put_float(const struct sl_tensor *t, int64_t i, float value)
{
    if (t->dtype == SL_F32) {
        ((float *)t->data)[i] = value;
    } else {
        ((uint16_t *)t->data)[i] = t->dtype == SL_BF16 ? sl_bf16_from_f32(value) : sl_f16_from_f32(value);
    }
}

// A weight for the device under test, and what it must hold of it.
struct weight {
    struct sl_tensor given, meant;
};

static struct sl_tensor room(struct bench *b, enum sl_dtype dtype, int64_t count, int64_t rows, int64_t columns)
{
    struct sl_tensor t =
        count > 0 ? sl_tensor_3d(NULL, dtype, count, rows, columns) : sl_tensor_2d(NULL, dtype, rows, columns);
    t.data = bench_host(b, sl_tensor_bytes(&t));
    return t;
}

static void make_meaning(const struct weight *w)
{
    const struct sl_tensor *t = &w->given;
    int64_t rows = t->shape[t->rank - 2], columns = t->shape[t->rank - 1], n = sl_tensor_elements(t);
    for (int64_t i = 0; i < n; i++) {
        int64_t row = i / columns, matrix = row / rows;
        int64_t block = (matrix * blocks_of(rows) + row % rows / SL_SCALE_BLOCK) * blocks_of(columns) +
                        i % columns / SL_SCALE_BLOCK;
        put_float(&w->meant, i, sl_f8e4m3_to_f32(((const uint8_t *)t->data)[i]) * float_at(t->scale, block));
    }
}

// Every byte but NaN. scale_type: of the scales.
static struct weight make_f8(struct bench *b, int64_t count, int64_t rows, int64_t columns, double size,
                             enum sl_dtype scale_type)
{
    struct weight w = {room(b, SL_F8E4M3, count, rows, columns), room(b, b->type, count, rows, columns)};
    struct sl_tensor *scale = bench_host(b, sizeof *scale);
    *scale = room(b, scale_type, count, blocks_of(rows), blocks_of(columns));
    uint8_t *bytes = w.given.data;
    for (int64_t i = 0; i < sl_tensor_elements(&w.given); i++) {
        uint64_t random = (b->random = b->random * 6364136223846793005u + 1442695040888963407u) >> 40;
        bytes[i] = (uint8_t)(random % 127 | (random >> 16 & 0x80));
    }
    for (int64_t i = 0; i < sl_tensor_elements(scale); i++) {
        put_float(scale, i, (float)(size / 60 * (0.5 + bench_uniform(b)))); // the bytes' own deviation is about 60
    }
    w.given.scale = scale;
    make_meaning(&w);
    return w;
}

static struct weight make_weight(struct bench *b, int f8, int64_t count, int64_t rows, int64_t columns, double size)
{
    static const enum sl_dtype scale_types[] = {SL_F32, SL_BF16, SL_F16};
    if (f8) {
        return make_f8(b, count, rows, columns, size, scale_types[bench_below(b, 3)]);
    }
    struct sl_tensor t = room(b, b->type, count, rows, columns);
    bench_fill(b, &t, size);
    return (struct weight){t, t};
}

static void check_f8_table(struct bench *b, int64_t rows, int64_t columns, enum sl_dtype scale_type)
{
    struct weight w = make_f8(b, 0, rows, columns, 1, scale_type);
    struct sl_tensor out;
    struct sl_error error = {0};
    char what[120];
    snprintf(what, sizeof what, "weight_create %s from f8: %d x %d, scales %s", short_type(b->type), (int)rows,
             (int)columns, sl_dtype_name(scale_type));
    if (b->dut->ops->weight_create(b->dut, &w.given, b->type, &out, &error) != SL_OK) {
        judge_plain(b, 0, what, error.text);
    } else {
        int64_t bytes = sl_tensor_bytes(&w.meant);
        void *back = bench_host(b, bytes);
        b->dut->ops->download(b->stream, back, out.data, bytes);
        if (!bench_failed_stream(b, what)) {
            judge_plain(b, out.scale == NULL && memcmp(back, w.meant.data, (size_t)bytes) == 0, what,
                        "not value x scale, rounded once");
        }
        b->dut->ops->weight_release(b->dut, &out);
    }
    bench_clear(b);
}

static void check_f8_linear(struct bench *b, int64_t out, int64_t in, int64_t rows)
{
    struct weight w[2] = {make_f8(b, 0, out / 2, in, 1 / sqrt((double)in), SL_F32),
                          make_f8(b, 0, out - out / 2, in, 1 / sqrt((double)in), SL_BF16)};
    struct sl_tensor given[2] = {w[0].given, w[1].given}, meant[2] = {w[0].meant, w[1].meant};
    struct operand x = operand_random(b, b->type, rows, in, 1), y = operand_output(b, SL_F32, rows, out);
    struct sl_linear *dut = NULL, *reference = NULL;
    struct sl_error error = {0};
    if (b->dut->ops->linear_create(b->dut, given, 2, NULL, b->type, &dut, &error) != SL_OK ||
        b->reference->ops->linear_create(b->reference, meant, 2, NULL, SL_F32, &reference, &error) != SL_OK) {
        judge_plain(b, 0, "linear_create from f8", error.text);
    } else {
        b->reference->ops->linear(b->reference_stream, reference, &x.ref, SL_EPILOGUE_NONE, NULL, &y.ref);
        b->dut->ops->linear(b->stream, dut, &x.dut, SL_EPILOGUE_NONE, NULL, &y.dut);
        judge(b, &y, 1e-4, "linear %s from f8: rows %d, in %d, out %d", short_type(b->type), (int)rows, (int)in,
              (int)out);
    }
    b->dut->ops->wait(b->stream, NULL);
    b->dut->ops->linear_destroy(dut);
    b->reference->ops->linear_destroy(reference);
    bench_clear(b);
}

void check_f8(struct bench *b)
{
    check_f8_table(b, 128, 128, SL_F32);
    check_f8_table(b, 1, 300, SL_BF16);
    check_f8_table(b, 300, 1, SL_F16);
    check_f8_table(b, 129, 257, SL_F32);
    check_f8_table(b, 1000, 520, SL_BF16);
    check_f8_table(b, 6000, 6007, SL_F32); // more than goes at once
    check_f8_linear(b, 256, 256, 5);
    check_f8_linear(b, 330, 72, 5);
    check_f8_linear(b, 300, 1000, 40);
}

// --- experts on both devices ---

static void create(struct bench *b, struct sl_device *device, struct sl_experts_source source, struct weight *w, int n,
                   int is_dut, struct sl_experts **out)
{
    struct sl_tensor *tensor = bench_host(b, n * (int64_t)sizeof *tensor);
    struct sl_error error = {0};
    for (int i = 0; i < n; i++) {
        tensor[i] = is_dut ? w[i].given : w[i].meant;
    }
    source.gate_up = tensor;
    source.down = tensor + (source.layout == SL_EXPERTS_SEPARATE ? 2 * source.experts : 1);
    if (device->ops->experts_create(device, &source, is_dut ? b->type : SL_F32, out, &error) != SL_OK) {
        judge_plain(b, 0, "experts_create", error.text);
    }
}

struct mixture mixture_create(struct bench *b, const struct mixture_shape *s, int with_reference)
{
    struct mixture mixture = {*s, NULL, NULL};
    struct sl_experts_source source = {
        .layout = s->layout, .experts = s->experts, .hidden = s->hidden, .intermediate = s->inner};
    double wide = 2 / sqrt(s->hidden), narrow = 2 / sqrt(s->inner);
    int n = s->layout == SL_EXPERTS_SEPARATE ? 3 * s->experts : 2;
    struct weight *w = bench_host(b, n * (int64_t)sizeof *w);
    for (int i = 0; i < n && s->layout == SL_EXPERTS_SEPARATE; i++) {
        w[i] = i < 2 * s->experts ? make_weight(b, s->f8, 0, s->inner, s->hidden, wide)
                                  : make_weight(b, s->f8, 0, s->hidden, s->inner, narrow);
    }
    if (s->layout == SL_EXPERTS_INPUT_MAJOR) {
        w[0] = make_weight(b, s->f8, s->experts, s->hidden, 2 * s->inner, wide);
        w[1] = make_weight(b, s->f8, s->experts, s->inner, s->hidden, narrow);
    } else if (s->layout == SL_EXPERTS_OUTPUT_MAJOR) {
        w[0] = make_weight(b, s->f8, s->experts, 2 * s->inner, s->hidden, wide);
        w[1] = make_weight(b, s->f8, s->experts, s->hidden, s->inner, narrow);
    }
    create(b, b->dut, source, w, n, 1, &mixture.dut);
    if (with_reference) {
        create(b, b->reference, source, w, n, 0, &mixture.reference);
    }
    return mixture;
}

void mixture_destroy(struct bench *b, struct mixture *mixture)
{
    b->dut->ops->wait(b->stream, NULL);
    b->dut->ops->experts_destroy(mixture->dut);
    b->reference->ops->experts_destroy(mixture->reference);
}

// --- routing ---

enum logits { LOGITS_ANY, LOGITS_TIES, LOGITS_EQUAL };

static struct operand make_logits(struct bench *b, int64_t rows, int64_t experts, enum logits kind)
{
    float *values = bench_host(b, rows * experts * 4);
    struct sl_tensor t = sl_tensor_2d(values, SL_F32, rows, experts);
    bench_fill(b, &t, kind == LOGITS_EQUAL ? 0 : 2);
    for (int64_t i = 0; i < rows * experts && kind == LOGITS_TIES; i++) {
        values[i] = (i % 2 ? -1.0f : 1.0f) * floorf(fabsf(values[i])); // 0 and -0 among them
    }
    struct operand o = operand_floats(b, values, rows, experts);
    o = operand_reshaped(&o, 2, (int64_t[]){rows, experts});
    o.ref.data = values; // also where the reference has no values
    return o;
}

static struct operand two_axes(struct operand o, int64_t rows, int64_t columns)
{
    return operand_reshaped(&o, 2, (int64_t[]){rows, columns});
}

// What the reference chooses.
static void choose(struct bench *b, const struct sl_tensor *logits, int normalise, struct sl_tensor *expert,
                   struct sl_tensor *weight, int64_t top_k)
{
    int64_t rows = logits->shape[0];
    *expert = sl_tensor_2d(bench_host(b, rows * top_k * 4), SL_I32, rows, top_k);
    *weight = sl_tensor_2d(bench_host(b, rows * top_k * 4), SL_F32, rows, top_k);
    b->reference->ops->route(b->reference_stream, logits, normalise, expert, weight);
}

struct sent_rows sent_rows_create(struct bench *b, const struct mixture_shape *s, int64_t rows, int evenly)
{
    struct operand logits = make_logits(b, rows, s->experts, evenly ? LOGITS_ANY : LOGITS_EQUAL);
    struct sl_tensor expert, weight;
    choose(b, &logits.ref, 1, &expert, &weight, s->top_k);
    return (struct sent_rows){two_axes(operand_ints(b, expert.data, rows, s->top_k), rows, s->top_k),
                              two_axes(operand_floats(b, weight.data, rows, s->top_k), rows, s->top_k)};
}

static void check_routing(struct bench *b, int64_t rows, int64_t experts, int64_t top_k, enum logits kind,
                          int normalise)
{
    static const char *const kinds[] = {"any", "ties", "equal"};
    struct operand logits = make_logits(b, rows, experts, kind);
    struct sl_tensor wanted;
    struct operand weight = operand_output(b, SL_F32, rows, top_k);
    struct operand expert = two_axes(operand_ints(b, bench_host(b, rows * top_k * 4), rows, top_k), rows, top_k);
    choose(b, &logits.ref, normalise, &wanted, &weight.ref, top_k);
    b->dut->ops->route(b->stream, &logits.dut, normalise, &expert.dut, &weight.dut);
    char what[120];
    snprintf(what, sizeof what, "route: rows %d, %d of %d, logits %s%s", (int)rows, (int)top_k, (int)experts,
             kinds[kind], normalise ? ", normalised" : "");
    judge(b, &weight, 2e-5, "%s: weights", what);
    operand_fetch(b, &expert);
    judge_plain(b, memcmp(expert.host.data, wanted.data, (size_t)(rows * top_k) * 4) == 0, what, "other experts");
    bench_clear(b);
}

void check_route(struct bench *b)
{
    static const int64_t rows[] = {1, 2, 5, 33, 1000},
                         shape[][2] = {{128, 8}, {8, 8}, {1, 1}, {60, 4}, {129, 3}, {256, 32}, {1024, 32}, {700, 10}};
    if (b->dut->ops->route == NULL) {
        return;
    }
    for (size_t i = 0; i < sizeof shape / sizeof *shape; i++) {
        for (size_t r = 0; r < sizeof rows / sizeof *rows; r++) {
            for (int kind = LOGITS_ANY; kind <= LOGITS_EQUAL; kind++) {
                check_routing(b, rows[r], shape[i][0], shape[i][1], (enum logits)kind, (int)r % 2);
                check_routing(b, rows[r], shape[i][0], shape[i][1], (enum logits)kind, !(r % 2));
            }
        }
    }
    check_routing(b, 14601, 128, 8, LOGITS_ANY, 1);
}

// --- mixtures ---

static const char *const layout_name[] = {"input major", "output major", "separate"};

enum { MOST_COMPARED = 200 };

// Some rows of a tensor with two axes and values of four bytes.
static struct sl_tensor some_rows(struct bench *b, const struct sl_tensor *t, const int64_t *row, int64_t count)
{
    struct sl_tensor rows = sl_tensor_2d(NULL, t->dtype, count, t->shape[1]);
    rows.data = bench_host(b, sl_tensor_bytes(&rows));
    for (int64_t i = 0; i < count; i++) {
        memcpy((char *)rows.data + i * t->shape[1] * 4, (const char *)t->data + row[i] * t->shape[1] * 4,
               (size_t)t->shape[1] * 4);
    }
    return rows;
}

static void check_mixture(struct bench *b, const struct mixture *m, int64_t rows, int evenly, enum sl_dtype y_type)
{
    const struct mixture_shape *s = &m->shape;
    struct sent_rows sent = sent_rows_create(b, s, rows, evenly);
    struct operand x = operand_random(b, b->type, rows, s->hidden, 1);
    struct operand y = operand_random(b, y_type, rows, s->hidden, 0.5);
    int64_t row[MOST_COMPARED], count = rows < MOST_COMPARED ? rows : MOST_COMPARED;
    for (int64_t i = 0; i < count; i++) {
        row[i] = count == rows ? i : i == 0 ? 0 : i == count - 1 ? rows - 1 : bench_below(b, rows);
    }
    struct sl_tensor of_x = operand_reference_rows(b, &x, row, count), of_y = operand_reference_rows(b, &y, row, count);
    struct sl_tensor expert = some_rows(b, &sent.expert.ref, row, count);
    struct sl_tensor weight = some_rows(b, &sent.weight.ref, row, count);
    b->reference->ops->experts(b->reference_stream, m->reference, &of_x, &expert, &weight, &of_y);
    b->dut->ops->experts(b->stream, m->dut, &x.dut, &sent.expert.dut, &sent.weight.dut, &y.dut);
    char what[200];
    snprintf(what, sizeof what, "experts %s%s, %s: rows %d%s, %d of %d, hidden %d, inner %d%s", short_type(b->type),
             s->f8 ? " from f8" : "", layout_name[s->layout], (int)rows, evenly ? "" : " to the same", s->top_k,
             s->experts, s->hidden, s->inner, y_type == b->type ? "" : ", y f32");
    judge_rows(b, &y, &of_y, row, count, bench_limit(y_type, b->type), what);
}

static void check_shape(struct bench *b, const struct mixture_shape *shape, int64_t most_rows)
{
    static const int64_t rows[] = {1, 2, 8, 32, 100, 1000, 5000};
    struct mixture m = mixture_create(b, shape, 1);
    struct bench_memory *held = b->memory;
    for (size_t i = 0; i < sizeof rows / sizeof *rows && rows[i] <= most_rows; i++) {
        b->memory = NULL;
        check_mixture(b, &m, rows[i], 1, b->type);
        check_mixture(b, &m, rows[i], 0, SL_F32);
        bench_clear(b);
    }
    b->memory = held;
    mixture_destroy(b, &m);
    bench_clear(b);
}

// Routing and experts captured once, launched with other content. Where nothing is captured they run at once.
static void check_graph(struct bench *b, const struct mixture_shape *shape, int64_t rows)
{
    const struct sl_device_ops *ops = b->dut->ops;
    struct mixture m = mixture_create(b, shape, 1);
    struct operand logits = make_logits(b, rows, shape->experts, LOGITS_ANY);
    struct sent_rows sent = sent_rows_create(b, shape, rows, 1);
    struct operand x = operand_random(b, b->type, rows, shape->hidden, 1);
    struct operand y = operand_random(b, b->type, rows, shape->hidden, 0.5);
    struct sl_tensor expert, weight;
    struct sl_graph *graph = NULL;
    int capturing = ops->graph_begin(b->stream);
    if (!capturing && ops->native_context(b->dut) != NULL) {
        judge_plain(b, 0, "graph_begin", "a GPU captures nothing");
    }
    ops->route(b->stream, &logits.dut, 1, &sent.expert.dut, &sent.weight.dut);
    ops->experts(b->stream, m.dut, &x.dut, &sent.expert.dut, &sent.weight.dut, &y.dut);
    if (capturing && !ops->graph_end(b->stream, &graph)) {
        judge_plain(b, 0, "graph_end", "nothing was captured");
    }
    for (int round = 0; round < (graph != NULL ? 3 : 1); round++) {
        if (graph != NULL) {
            bench_fill(b, &x.host, 1);
            bench_fill(b, &logits.ref, 2);
            ops->upload(b->stream, x.dut.data, x.host.data, sl_tensor_bytes(&x.host));
            ops->upload(b->stream, logits.dut.data, logits.ref.data, sl_tensor_bytes(&logits.ref));
            operand_take_over(b, &x);
            operand_take_over(b, &y);
            ops->graph_launch(graph, b->stream);
        }
        choose(b, &logits.ref, 1, &expert, &weight, shape->top_k);
        b->reference->ops->experts(b->reference_stream, m.reference, &x.ref, &expert, &weight, &y.ref);
        judge(b, &y, bench_limit(b->type, b->type), "graph %s: route and experts, rows %d, %d of %d, %s",
              short_type(b->type), (int)rows, shape->top_k, shape->experts,
              graph != NULL ? "launched" : "not captured");
    }
    ops->graph_destroy(graph);
    mixture_destroy(b, &m);
    bench_clear(b);
}

// --- the block of a decoder ---

// TWINS: two experts each have the same row, so that their logits are equal, and the choice may fall between them.
static struct layer make_router(struct bench *b, const struct mixture_shape *s, int twins)
{
    struct layer router = {NULL, NULL, s->experts, s->hidden};
    struct sl_tensor host = sl_tensor_2d(NULL, b->type, s->experts, s->hidden);
    struct sl_error error = {0};
    int64_t row_bytes = s->hidden * sl_dtype_bytes(b->type);
    host.data = bench_host(b, sl_tensor_bytes(&host));
    bench_fill(b, &host, 2 / sqrt(s->hidden));
    for (int64_t i = 1; twins && i < s->experts; i += 2) {
        memcpy((char *)host.data + i * row_bytes, (char *)host.data + (i - 1) * row_bytes, (size_t)row_bytes);
    }
    if (b->dut->ops->linear_create(b->dut, &host, 1, NULL, b->type, &router.dut, &error) != SL_OK ||
        b->reference->ops->linear_create(b->reference, &host, 1, NULL, SL_F32, &router.reference, &error) != SL_OK) {
        judge_plain(b, 0, "linear_create of a router", error.text);
    }
    return router;
}

struct block {
    struct mixture mixture;
    struct layer router;
    struct operand norm, y, normed, logits, expert, weight;
    int normalise;
};

static struct sl_experts_room room_of(const struct block *k, int is_dut)
{
    return is_dut ? (struct sl_experts_room){k->normed.dut, k->logits.dut, k->expert.dut, k->weight.dut}
                  : (struct sl_experts_room){k->normed.ref, k->logits.ref, k->expert.ref, k->weight.ref};
}

static void block_rows(struct bench *b, struct block *k, int64_t rows)
{
    const struct mixture_shape *s = &k->mixture.shape;
    k->norm = operand_vector(b, b->type, s->hidden, 1, 0.2);
    k->y = operand_random(b, b->type, rows, s->hidden, 1);
    k->normed = operand_output(b, b->type, rows, s->hidden);
    k->logits = operand_output(b, SL_F32, rows, s->experts);
    k->expert = two_axes(operand_ints(b, bench_host(b, rows * s->top_k * 4), rows, s->top_k), rows, s->top_k);
    k->weight = operand_output(b, SL_F32, rows, s->top_k);
}

// The reference chooses by the rounded norm, as a device does: or another expert might be as good.
static void block_reference(struct bench *b, struct block *k)
{
    const struct sl_device_ops *ops = b->reference->ops;
    struct sl_experts_room room = room_of(k, 0);
    float *normed = room.normed.data;
    ops->rmsnorm(b->reference_stream, &k->y.ref, &k->norm.ref, 1e-6f, &room.normed);
    for (int64_t i = 0; b->type == SL_BF16 && i < sl_tensor_elements(&room.normed); i++) {
        normed[i] = sl_bf16_to_f32(sl_bf16_from_f32(normed[i]));
    }
    ops->linear(b->reference_stream, k->router.reference, &room.normed, SL_EPILOGUE_NONE, NULL, &room.logits);
    ops->route(b->reference_stream, &room.logits, k->normalise, &room.expert, &room.weight);
    ops->experts(b->reference_stream, k->mixture.reference, &room.normed, &room.expert, &room.weight, &k->y.ref);
}

// Captured once where it can be, and launched with other rows.
static void check_block(struct bench *b, struct block *k, int64_t rows, int twins)
{
    const struct sl_device_ops *ops = b->dut->ops;
    const struct mixture_shape *s = &k->mixture.shape;
    struct sl_graph *graph = NULL;
    block_rows(b, k, rows);
    struct sl_experts_room room = room_of(k, 1);
    for (int round = 0; round < 4; round++) {
        if (round > 0) {
            bench_fill(b, &k->y.host, round);
            ops->upload(b->stream, k->y.dut.data, k->y.host.data, sl_tensor_bytes(&k->y.host));
            operand_take_over(b, &k->y);
        }
        int capturing = round == 1 && ops->graph_begin(b->stream);
        if (graph == NULL) {
            ops->rmsnorm_experts(b->stream, &k->norm.dut, 1e-6f, k->router.dut, k->normalise, k->mixture.dut, &room,
                                 &k->y.dut);
        }
        if (capturing && !ops->graph_end(b->stream, &graph)) {
            judge_plain(b, 0, "graph_end", "nothing was captured");
        }
        if (graph != NULL) {
            ops->graph_launch(graph, b->stream);
        }
        block_reference(b, k);
        judge(b, &k->y, bench_limit(b->type, b->type),
              "rmsnorm_experts %s: rows %d, %d of %d, hidden %d, inner %d%s%s%s", short_type(b->type), (int)rows,
              s->top_k, s->experts, s->hidden, s->inner, twins ? ", twins" : "", k->normalise ? ", normalised" : "",
              graph != NULL ? ", graph" : "");
    }
    ops->graph_destroy(graph);
}

static void check_block_shape(struct bench *b, const struct mixture_shape *shape, int normalise)
{
    struct block k = {.mixture = mixture_create(b, shape, 1), .normalise = normalise};
    struct bench_memory *held = b->memory;
    for (int twins = 0; twins < 2; twins++) {
        b->memory = NULL;
        k.router = make_router(b, shape, twins);
        check_block(b, &k, 1, twins);
        check_block(b, &k, 3, twins);
        layer_destroy(b, &k.router);
        bench_clear(b);
    }
    b->memory = held;
    mixture_destroy(b, &k.mixture);
    bench_clear(b);
}

void check_rmsnorm_experts(struct bench *b)
{
    static const struct mixture_shape shapes[] = {
        {0, 0, 128, 2048, 768, 8}, // 30B-A3B
        {0, 0, 4, 64, 32, 2},      {0, 0, 1, 80, 32, 1},     {0, 0, 40, 144, 224, 5},
        {0, 0, 8, 48, 192, 8},     {0, 0, 100, 2064, 96, 7}, {0, 0, 33, 4096, 320, 3},
        {0, 0, 128, 1024, 64, 8},  {0, 0, 8, 37, 19, 3},     {0, 0, 8, 4096, 1536, 8}, // the few experts of 235B-A22B
        {0, 0, 129, 64, 32, 8},    {0, 0, 64, 64, 32, 9},
    };
    if (b->dut->ops->rmsnorm_experts == NULL) {
        return;
    }
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        if (b->type == SL_BF16 || shapes[i].hidden * shapes[i].inner < 1 << 20) {
            check_block_shape(b, &shapes[i], i % 2 == 0);
        }
    }
}

void check_experts(struct bench *b)
{
    static const struct mixture_shape small[] = {
        {0, 0, 4, 64, 32, 2},    {0, 0, 1, 72, 40, 1},   {0, 0, 40, 136, 24, 5}, {0, 0, 8, 37, 19, 3},
        {0, 0, 16, 520, 328, 4}, {0, 1, 6, 264, 136, 2}, {0, 1, 5, 130, 150, 3}, {0, 0, 300, 64, 16, 32},
    };
    static const struct mixture_shape real[] = {
        {SL_EXPERTS_INPUT_MAJOR, 0, 128, 2048, 768, 8}, // 30B-A3B
        {SL_EXPERTS_OUTPUT_MAJOR, 0, 16, 2048, 768, 8}, {SL_EXPERTS_SEPARATE, 0, 16, 2048, 768, 8},
        {SL_EXPERTS_INPUT_MAJOR, 1, 16, 2048, 768, 8},  {SL_EXPERTS_SEPARATE, 1, 16, 2048, 768, 8},
        {SL_EXPERTS_INPUT_MAJOR, 0, 12, 4096, 1536, 8}, // 235B-A22B, fewer experts
    };
    if (b->dut->ops->experts == NULL) {
        return;
    }
    for (size_t i = 0; i < sizeof small / sizeof *small; i++) {
        for (int layout = SL_EXPERTS_INPUT_MAJOR; layout <= SL_EXPERTS_SEPARATE; layout++) {
            struct mixture_shape shape = small[i];
            shape.layout = (enum sl_experts_layout)layout;
            check_shape(b, &shape, 5000);
        }
    }
    for (size_t i = 0; b->type == SL_BF16 && i < sizeof real / sizeof *real; i++) {
        check_shape(b, &real[i], i == 0 ? 5000 : 1000);
    }
    for (int64_t rows = 1; rows <= 300; rows += 299) {
        check_graph(b, &(struct mixture_shape){SL_EXPERTS_INPUT_MAJOR, 0, 32, 256, 96, 4}, rows);
    }
}
