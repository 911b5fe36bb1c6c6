// SPDX-License-Identifier: Apache-2.0
// linear and rmsnorm_linear. Of large products the reference computes some rows only: rows do not depend on each other.
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "tests/tools/cuda_ops.h"

enum residual { RESIDUAL_NONE, RESIDUAL_SEPARATE, RESIDUAL_IS_Y };

struct product {
    int64_t rows;
    enum sl_epilogue epilogue;
    enum residual residual;
    int y_is_f32;
    int norm; // rmsnorm_linear
};

struct weights {
    int64_t out, in;
    int parts, bias;
};

static const char *const epilogue_name[] = {"none", "gelu_tanh", "gelu_erf", "silu_gate"};
static const char *const residual_name[] = {"", ", residual", ", residual is y"};

// --- layers ---

static void stop_if(int status, const struct sl_error *error, struct bench *b)
{
    if (status != SL_OK) {
        judge_plain(b, 0, "linear_create", error->text);
    }
}

struct layer layer_create(struct bench *b, int64_t out, int64_t in, int parts, int bias, int with_reference)
{
    struct layer layer = {.out = out, .in = in};
    struct sl_tensor part[3], added = sl_tensor_1d(bench_host(b, out * 4), b->type, out);
    struct sl_error error = {0};
    int64_t left = out;
    for (int i = 0; i < parts; i++) {
        int64_t rows = i == parts - 1 ? left : out / parts;
        part[i] = sl_tensor_2d(NULL, b->type, rows, in);
        part[i].data = bench_host(b, sl_tensor_bytes(&part[i]));
        bench_fill(b, &part[i], 1 / sqrt((double)in));
        left -= rows;
    }
    bench_fill(b, &added, 0.5);
    const struct sl_tensor *of_bias = bias ? &added : NULL;
    stop_if(b->dut->ops->linear_create(b->dut, part, parts, of_bias, b->type, &layer.dut, &error), &error, b);
    if (with_reference) {
        struct sl_device *cpu = b->reference;
        stop_if(cpu->ops->linear_create(cpu, part, parts, of_bias, SL_F32, &layer.reference, &error), &error, b);
    }
    return layer;
}

void layer_destroy(struct bench *b, struct layer *layer)
{
    b->dut->ops->wait(b->stream, NULL);
    b->dut->ops->linear_destroy(layer->dut);
    b->reference->ops->linear_destroy(layer->reference);
}

// --- one product ---

// The rows that the reference computes: all, or some from the first to the last.
static int64_t choose_rows(struct bench *b, const struct layer *layer, int64_t rows, int64_t row[])
{
    int64_t count = 1500000000 / (layer->out * layer->in);
    count = count < 6 ? 6 : count > 64 ? 64 : count;
    count = count > rows ? rows : count;
    for (int64_t i = 0; i < count; i++) {
        row[i] = count == rows ? i : i == 0 ? 0 : i == count - 1 ? rows - 1 : bench_below(b, rows);
    }
    return count;
}

static void run_reference(struct bench *b, const struct layer *layer, const struct product *p,
                          const struct operand *norm, const struct sl_tensor *x, const struct sl_tensor *residual,
                          const struct sl_tensor *y)
{
    const struct sl_device_ops *ops = b->reference->ops;
    if (p->norm) {
        struct sl_tensor normed = *x;
        normed.data = bench_host(b, sl_tensor_bytes(x));
        ops->rmsnorm_linear(b->reference_stream, x, &norm->ref, 1e-6f, &normed, layer->reference, p->epilogue, y);
    } else {
        ops->linear(b->reference_stream, layer->reference, x, p->epilogue, residual, y);
    }
}

static void run_dut(struct bench *b, const struct layer *layer, const struct product *p, const struct operand *norm,
                    const struct operand *x, const struct operand *residual, const struct operand *y)
{
    const struct sl_device_ops *ops = b->dut->ops;
    if (p->norm) {
        struct operand normed = operand_output(b, b->type, p->rows, layer->in);
        ops->rmsnorm_linear(b->stream, &x->dut, &norm->dut, 1e-6f, &normed.dut, layer->dut, p->epilogue, &y->dut);
    } else {
        ops->linear(b->stream, layer->dut, &x->dut, p->epilogue, residual ? &residual->dut : NULL, &y->dut);
    }
}

static void check_product(struct bench *b, const struct layer *layer, const struct weights *w, const struct product *p)
{
    int64_t columns = layer->out / (p->epilogue == SL_EPILOGUE_SILU_GATE ? 2 : 1), row[64];
    enum sl_dtype y_type = p->y_is_f32 ? SL_F32 : b->type;
    struct operand x = operand_random(b, b->type, p->rows, layer->in, 1);
    struct operand norm = operand_vector(b, b->type, layer->in, 1, 0.2);
    struct operand separate = operand_random(b, y_type, p->rows, columns, 1);
    struct operand y = operand_output(b, y_type, p->rows, columns);
    if (p->residual == RESIDUAL_IS_Y) {
        y = operand_random(b, y_type, p->rows, columns, 1);
    }
    const struct operand *residual = p->residual == RESIDUAL_IS_Y ? &y : p->residual ? &separate : NULL;
    int64_t count = choose_rows(b, layer, p->rows, row);
    struct sl_tensor x_rows = operand_reference_rows(b, &x, row, count);
    struct sl_tensor y_rows = operand_reference_rows(b, &y, row, count), residual_rows = y_rows;
    if (p->residual == RESIDUAL_SEPARATE) {
        residual_rows = operand_reference_rows(b, &separate, row, count);
    }
    run_reference(b, layer, p, &norm, &x_rows, residual ? &residual_rows : NULL, &y_rows);
    run_dut(b, layer, p, &norm, &x, residual, &y);
    char what[200];
    snprintf(what, sizeof what, "%s %s: rows %d, in %d, out %d, %s%s%s%s", p->norm ? "rmsnorm_linear" : "linear",
             short_type(b->type), (int)p->rows, (int)layer->in, (int)layer->out, epilogue_name[p->epilogue],
             w->bias ? ", bias" : "", residual_name[p->residual], p->y_is_f32 && b->type != SL_F32 ? ", y f32" : "");
    // Into f32 without a rounding on the way only the order of the sums differs.
    double limit = y_type == SL_F32 && !p->norm ? 1e-4 : bench_limit(y_type, b->type);
    if (p->norm && p->epilogue == SL_EPILOGUE_SILU_GATE) {
        limit *= 1.6; // a rounding more, in two factors
    }
    judge_rows(b, &y, &y_rows, row, count, limit, what);
}

static void check_and_clear(struct bench *b, const struct weights *w, const struct product *product, int count)
{
    struct layer layer = layer_create(b, w->out, w->in, w->parts, w->bias, 1);
    // What the layer was made of is freed with the last product; so these are held back.
    struct bench_memory *held = b->memory;
    for (int i = 0; i < count; i++) {
        b->memory = NULL;
        check_product(b, &layer, w, &product[i]);
        bench_clear(b);
    }
    b->memory = held;
    layer_destroy(b, &layer);
    bench_clear(b);
}

// --- the cases ---

static const int64_t all_rows[] = {1,  2,  3,  4,  5,  6,  7,  8,   9,   10,   11,  12,
                                   13, 14, 15, 16, 17, 32, 64, 100, 512, 1000, 4096};
enum { ALL_ROWS = sizeof all_rows / sizeof *all_rows };

// Every epilogue with every residual, into both types.
static void check_kinds(struct bench *b, const struct weights *w, int norm)
{
    static const int64_t some_rows[] = {1, 3, 8, 16, 17, 33, 100};
    struct product product[7 * 4 * 3 * 2];
    int n = 0;
    for (int i = 0; i < 7 * 4 * 3 * 2; i++) {
        struct product p = {some_rows[i / 24], (enum sl_epilogue)(i % 4), (enum residual)(i / 4 % 3), i / 12 % 2, norm};
        int possible = (p.epilogue != SL_EPILOGUE_SILU_GATE || w->out % 2 == 0) && !(norm && p.residual) &&
                       !(p.y_is_f32 && b->type == SL_F32);
        product[n] = p;
        n += possible;
    }
    check_and_clear(b, w, product, n);
}

static const struct weights small_weights[] = {{64, 72, 1, 1},  {48, 64, 2, 0},  {50, 104, 2, 1}, {331, 72, 1, 0},
                                               {104, 88, 3, 1}, {103, 90, 1, 1}, {38, 37, 2, 1}};

static void check_small(struct bench *b, int norm)
{
    for (size_t i = 0; i < sizeof small_weights / sizeof *small_weights; i++) {
        check_kinds(b, &small_weights[i], norm);
    }
}

struct real {
    struct weights weights;
    enum sl_epilogue epilogue;
    enum residual residual;
    int y_is_f32;
    int most_rows;
};

static void check_real(struct bench *b, const struct real *real, int norm)
{
    struct product product[ALL_ROWS];
    int n = 0;
    for (int i = 0; i < ALL_ROWS && all_rows[i] <= real->most_rows; i++) {
        product[n++] = (struct product){all_rows[i], real->epilogue, real->residual, real->y_is_f32, norm};
    }
    check_and_clear(b, &real->weights, product, n);
}

// Of 2B and 8B: what follows attention and the gated product; the tower's layers; heads of fewer rows.
void check_linear(struct bench *b)
{
    static const struct real real[] = {
        {{2048, 2048, 1, 0}, SL_EPILOGUE_NONE, RESIDUAL_IS_Y, 0, 4096},
        {{2048, 6144, 1, 0}, SL_EPILOGUE_NONE, RESIDUAL_IS_Y, 0, 4096},
        {{4096, 4096, 1, 0}, SL_EPILOGUE_NONE, RESIDUAL_IS_Y, 0, 4096},
        {{4096, 12288, 1, 0}, SL_EPILOGUE_NONE, RESIDUAL_IS_Y, 0, 4096},
        {{2560, 9728, 1, 0}, SL_EPILOGUE_NONE, RESIDUAL_IS_Y, 0, 512},
        {{1024, 1536, 1, 1}, SL_EPILOGUE_NONE, RESIDUAL_NONE, 0, 4096}, // patches
        {{3072, 1024, 1, 1}, SL_EPILOGUE_NONE, RESIDUAL_NONE, 0, 4096},
        {{1024, 1024, 1, 1}, SL_EPILOGUE_NONE, RESIDUAL_IS_Y, 0, 4096},
        {{4096, 1024, 1, 1}, SL_EPILOGUE_GELU_TANH, RESIDUAL_NONE, 0, 4096},
        {{1024, 4096, 1, 1}, SL_EPILOGUE_NONE, RESIDUAL_IS_Y, 0, 4096},
        {{4304, 1152, 1, 1}, SL_EPILOGUE_GELU_TANH, RESIDUAL_NONE, 0, 4096},
        {{1152, 4304, 1, 1}, SL_EPILOGUE_NONE, RESIDUAL_IS_Y, 0, 4096},
        {{4608, 4608, 1, 1}, SL_EPILOGUE_GELU_ERF, RESIDUAL_NONE, 0, 1000}, // a merger
        {{4096, 4608, 1, 1}, SL_EPILOGUE_NONE, RESIDUAL_NONE, 0, 1000},
        {{2048, 4096, 1, 1}, SL_EPILOGUE_NONE, RESIDUAL_SEPARATE, 1, 100},
    };
    check_small(b, 0);
    for (size_t i = 0; b->type == SL_BF16 && i < sizeof real / sizeof *real; i++) {
        check_real(b, &real[i], 0);
    }
}

void check_rmsnorm_linear(struct bench *b)
{
    static const struct real real[] = {
        {{4096, 2048, 3, 0}, SL_EPILOGUE_NONE, RESIDUAL_NONE, 0, 4096},
        {{6144, 4096, 3, 0}, SL_EPILOGUE_NONE, RESIDUAL_NONE, 0, 4096},
        {{12288, 2048, 2, 0}, SL_EPILOGUE_SILU_GATE, RESIDUAL_NONE, 0, 4096},
        {{24576, 4096, 2, 0}, SL_EPILOGUE_SILU_GATE, RESIDUAL_NONE, 0, 4096},
        {{19456, 2560, 2, 0}, SL_EPILOGUE_SILU_GATE, RESIDUAL_NONE, 0, 64},
        {{151936, 2048, 1, 0}, SL_EPILOGUE_NONE, RESIDUAL_NONE, 1, 64},
        {{151936, 4096, 1, 0}, SL_EPILOGUE_NONE, RESIDUAL_NONE, 1, 2},
    };
    check_small(b, 1);
    for (size_t i = 0; b->type == SL_BF16 && i < sizeof real / sizeof *real; i++) {
        check_real(b, &real[i], 1);
    }
}
