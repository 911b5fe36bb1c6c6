// SPDX-License-Identifier: Apache-2.0
// Linear layers as cpu/ holds them: the rows of each part as they lie in the mapped file, when the type is the
// compute type, or a converted copy. Shared by linear.c, which makes them, experts.c, which has many of them, and the
// products that read them.
#ifndef SL_CPU_LINEAR_H
#define SL_CPU_LINEAR_H

#include "cpu/internal.h"
#include "cpu/kernels.h"

struct cpu_linear_part {
    const char *data; // [rows, in]; 16-bit rows have an even number of values. `across`: [in, out]
    void *owned;      // the converted copy, or NULL
    int64_t rows, stride_bytes;
};

struct sl_linear {
    enum sl_dtype compute;
    int64_t in, out;
    int across;  // 1: y = x W, and one part
    float *bias; // [out] or NULL
    int n;
    struct cpu_linear_part part[];
};

enum { CPU_FEW = 32 };

// Everything about one product.
struct cpu_product {
    const struct sl_linear *linear;
    const struct cpu_kernels *kernels;
    int bf16, gated;
    int64_t rows, columns; // of y
    int64_t k;             // values of a row of x, padded to whole steps
    const char *x;         // [rows, k], compute type
    int64_t x_stride_bytes;
    struct cpu_finish finish;
};

// Of parts [out_i, in], or one [in, out] when `across`. NULL: no memory.
struct sl_linear *cpu_linear_make(const struct cpu_device *cpu, const struct sl_tensor *parts, int n, int across,
                                  const struct sl_tensor *bias, enum sl_dtype compute);
// The product, between cpu_begin and cpu_end. By our own kernels, or by oneDNN too.
void cpu_linear_multiply(struct sl_stream *stream, const struct sl_linear *linear, const struct sl_tensor *x,
                         enum sl_epilogue epilogue, const struct sl_tensor *residual, int own_kernels,
                         const struct sl_tensor *y);

// Addresses of w's rows [first, first + count); not of `across`.
void cpu_linear_rows(const struct sl_linear *linear, int64_t first, int64_t count, const char **row);

void cpu_product_few(struct sl_stream *stream, const struct cpu_product *product);  // few.c: up to CPU_FEW rows
void cpu_product_many(struct sl_stream *stream, const struct cpu_product *product); // many.c

#endif
