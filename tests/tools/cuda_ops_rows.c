// SPDX-License-Identifier: Apache-2.0
// Operations that go row by row: norms, gather, scatter, interpolate, the tower's rotary embedding; and patchify.
#include <stdio.h>
#include <string.h>

#include "tests/tools/cuda_ops.h"

// --- norms ---

static void check_norm(struct bench *b, int64_t rows, int64_t n, int layernorm)
{
    struct operand x = operand_random(b, b->type, rows, n, 2), y = operand_output(b, b->type, rows, n);
    struct operand weight = operand_vector(b, b->type, n, 1, 0.3), bias = operand_vector(b, b->type, n, 0, 0.3);
    if (layernorm) {
        b->dut->ops->layernorm(b->stream, &x.dut, &weight.dut, &bias.dut, 1e-6f, &y.dut);
        b->reference->ops->layernorm(b->reference_stream, &x.ref, &weight.ref, &bias.ref, 1e-6f, &y.ref);
    } else {
        b->dut->ops->rmsnorm(b->stream, &x.dut, &weight.dut, 1e-6f, &y.dut);
        b->reference->ops->rmsnorm(b->reference_stream, &x.ref, &weight.ref, 1e-6f, &y.ref);
    }
    judge(b, &y, bench_limit(b->type, b->type), "%s %s: rows %d, columns %d", layernorm ? "layernorm" : "rmsnorm",
          short_type(b->type), (int)rows, (int)n);
    bench_clear(b);
}

void check_norms(struct bench *b)
{
    static const int64_t sizes[][2] = {{1, 56},     {3, 72},     {7, 37},     {17, 90},     {1, 2048},
                                       {32, 2048},  {5, 2560},   {9, 4096},   {1000, 4096}, {3, 5120},
                                       {880, 1024}, {784, 1152}, {220, 4096}, {196, 4608},  {4096, 2048}};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        check_norm(b, sizes[i][0], sizes[i][1], 0);
        check_norm(b, sizes[i][0], sizes[i][1], 1);
    }
}

// --- gather, scatter, interpolate ---

// `count` distinct numbers below n, in no order.
static int32_t *distinct(struct bench *b, int64_t n, int64_t count)
{
    int32_t *all = bench_host(b, n * (int64_t)sizeof *all);
    for (int64_t i = 0; i < n; i++) {
        all[i] = (int32_t)i;
    }
    for (int64_t i = 0; i < count; i++) {
        int64_t j = i + bench_below(b, n - i);
        int32_t swap = all[i];
        all[i] = all[j];
        all[j] = swap;
    }
    return all;
}

static void check_gather(struct bench *b, int64_t n, int64_t rows, int64_t c)
{
    int32_t *index = bench_host(b, rows * (int64_t)sizeof *index);
    for (int64_t i = 0; i < rows; i++) {
        index[i] = i == 0 ? (int32_t)n - 1 : (int32_t)bench_below(b, n);
    }
    struct operand table = operand_random(b, b->type, n, c, 1), y = operand_output(b, b->type, rows, c);
    struct operand at = operand_ints(b, index, 1, rows);
    b->dut->ops->gather_rows(b->stream, &table.dut, &at.dut, &y.dut);
    b->reference->ops->gather_rows(b->reference_stream, &table.ref, &at.ref, &y.ref);
    judge(b, &y, 1e-7, "gather_rows %s: %d of %d rows, columns %d", short_type(b->type), (int)rows, (int)n, (int)c);
    bench_clear(b);
}

static void check_scatter(struct bench *b, int64_t n, int64_t rows, int64_t c, int add)
{
    struct operand x = operand_random(b, b->type, rows, c, 1), y = operand_random(b, b->type, n, c, 1);
    struct operand at = operand_ints(b, distinct(b, n, rows), 1, rows);
    b->dut->ops->scatter_rows(b->stream, &x.dut, &at.dut, add, &y.dut);
    b->reference->ops->scatter_rows(b->reference_stream, &x.ref, &at.ref, add, &y.ref);
    judge(b, &y, add ? bench_limit(b->type, b->type) : 1e-7, "scatter_rows%s %s: %d to %d rows, columns %d",
          add ? " (add)" : "", short_type(b->type), (int)rows, (int)n, (int)c);
    bench_clear(b);
}

static void check_interpolate(struct bench *b, int64_t n, int64_t rows, int64_t c)
{
    int32_t *index = bench_host(b, rows * 4 * (int64_t)sizeof *index);
    float *weight = bench_host(b, rows * 4 * (int64_t)sizeof *weight);
    for (int64_t i = 0; i < rows * 4; i++) {
        index[i] = (int32_t)bench_below(b, n);
        weight[i] = i % 8 == 0 ? 0 : (float)bench_uniform(b);
    }
    struct operand table = operand_random(b, b->type, n, c, 1), y = operand_random(b, b->type, rows, c, 1);
    struct operand at = operand_ints(b, index, rows, 4), by = operand_floats(b, weight, rows, 4);
    b->dut->ops->interpolate_rows(b->stream, &table.dut, &at.dut, &by.dut, &y.dut);
    b->reference->ops->interpolate_rows(b->reference_stream, &table.ref, &at.ref, &by.ref, &y.ref);
    judge(b, &y, bench_limit(b->type, b->type), "interpolate_rows %s: rows %d, columns %d", short_type(b->type),
          (int)rows, (int)c);
    bench_clear(b);
}

void check_rows(struct bench *b)
{
    static const int64_t sizes[][3] = {{9, 1, 56}, {50, 13, 72}, {41, 5, 37}, {700, 333, 2048}, {1500, 800, 4096}};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        check_gather(b, sizes[i][0], sizes[i][1], sizes[i][2]);
        check_scatter(b, sizes[i][0], sizes[i][1], sizes[i][2], 0);
        check_scatter(b, sizes[i][0], sizes[i][1], sizes[i][2], 1);
    }
    if (b->type == SL_BF16) {
        check_gather(b, 151936, 100, 2048);
    }
    check_interpolate(b, 16, 5, 72);
    check_interpolate(b, 2304, 880, 1024);
    check_interpolate(b, 2304, 784, 1152);
}

// --- rope_2d ---

static void check_rotation(struct bench *b, int64_t rows, int heads, int64_t d)
{
    int32_t *where = bench_host(b, rows * 2 * (int64_t)sizeof *where);
    for (int64_t i = 0; i < rows * 2; i++) {
        where[i] = (int32_t)bench_below(b, 120);
    }
    struct operand qkv = operand_random(b, b->type, rows, 3 * heads * d, 1);
    struct operand position = operand_ints(b, where, rows, 2);
    b->dut->ops->rope_2d(b->stream, &qkv.dut, heads, &position.dut);
    b->reference->ops->rope_2d(b->reference_stream, &qkv.ref, heads, &position.ref);
    judge(b, &qkv, bench_limit(b->type, b->type), "rope_2d %s: rows %d, heads %d, d %d", short_type(b->type), (int)rows,
          heads, (int)d);
    bench_clear(b);
}

void check_rope_2d(struct bench *b)
{
    check_rotation(b, 5, 1, 72);
    check_rotation(b, 23, 3, 80);
    check_rotation(b, 7, 2, 128);
    check_rotation(b, 880, 16, 64);
    check_rotation(b, 1568, 16, 72);
}

// --- patchify ---

static void check_patches(struct bench *b, int width, int height, int n, int patch, int merge)
{
    static const float mean[3] = {0.5f, 0.48f, 0.41f}, deviation[3] = {0.5f, 0.26f, 0.3f};
    struct operand picture[2];
    struct sl_tensor dut[2], reference[2];
    int64_t bytes = (int64_t)width * height * 3, rows = (int64_t)(width / patch) * (height / patch);
    const int64_t shape[3] = {height, width, 3};
    for (int i = 0; i < n; i++) {
        uint8_t *pixels = bench_host(b, bytes);
        for (int64_t k = 0; k < bytes; k++) {
            pixels[k] = (uint8_t)bench_below(b, 256);
        }
        picture[i] = operand_bytes(b, pixels, 1, bytes);
        picture[i] = operand_reshaped(&picture[i], 3, shape);
        dut[i] = picture[i].dut;
        reference[i] = picture[i].ref;
    }
    struct operand out = operand_output(b, b->type, rows, 3 * n * patch * patch);
    b->dut->ops->patchify(b->stream, dut, n, patch, merge, mean, deviation, &out.dut);
    b->reference->ops->patchify(b->reference_stream, reference, n, patch, merge, mean, deviation, &out.ref);
    judge(b, &out, bench_limit(b->type, b->type), "patchify %s: %d of %dx%d, patch %d, merge %d", short_type(b->type),
          n, width, height, patch, merge);
    bench_clear(b);
}

void check_patchify(struct bench *b)
{
    check_patches(b, 32, 32, 2, 16, 2);
    check_patches(b, 48, 16, 1, 8, 1);
    check_patches(b, 24, 40, 2, 4, 2);
    check_patches(b, 48, 72, 2, 12, 2);
    check_patches(b, 640, 352, 2, 16, 2);
}
