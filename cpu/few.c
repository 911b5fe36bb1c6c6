// SPDX-License-Identifier: Apache-2.0
// Products with few rows of x, as in decoding: bounded by reading the weights, so each is read once for all rows, in
// the order in which it lies. A row's result does not depend on what other rows are there.
#include "cpu/linear.h"

#define CHUNK 64 // rows of w

static void chunk(const struct cpu_product *p, int64_t first, int64_t count)
{
    const char *row[CHUNK];
    float c[CPU_DOTS][CHUNK], up[CPU_DOTS][CHUNK];
    cpu_linear_rows(p->linear, first, count, row);
    p->kernels->dots(p->bf16, count, row, p->x, p->x_stride_bytes, (int)p->rows, p->k, c[0], CHUNK);
    if (p->gated) {
        cpu_linear_rows(p->linear, p->columns + first, count, row);
        p->kernels->dots(p->bf16, count, row, p->x, p->x_stride_bytes, (int)p->rows, p->k, up[0], CHUNK);
    }
    p->kernels->finish_rows(&p->finish, c[0], up[0], CHUNK, 0, p->rows, first, count);
}

void cpu_product_few(struct sl_stream *stream, const struct cpu_product *product)
{
    int64_t columns = product->columns;
    int threads = cpu_threads(stream, product->linear->out * product->k / 16);
#pragma omp parallel for num_threads(threads) schedule(dynamic) if (threads > 1)
    for (int64_t first = 0; first < columns; first += CHUNK) {
        chunk(product, first, columns - first < CHUNK ? columns - first : CHUNK);
    }
}
