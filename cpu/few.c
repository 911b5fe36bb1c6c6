// SPDX-License-Identifier: Apache-2.0
// Products with few rows of x, as in decoding: bounded by reading the weights, so each is read from memory once for all
// rows, in the order in which it lies. A row's result does not depend on what other rows are there.
#include "cpu/linear.h"

enum {
    CHUNK_MAX = 120,      // rows of w that a thread takes at a time; even: `dots` takes two
    CHUNK_MIN = 24,       //
    CHUNK_BYTES = 400000, // what stays in the second-level cache from one group of x rows to the next
};

// All rows of x against `count` rows of w: c[x row][w row].
static void dots(const struct cpu_product *p, const char *const *w, int64_t count, float c[][CHUNK_MAX])
{
    int64_t groups = (p->rows + CPU_DOTS - 1) / CPU_DOTS, size = (p->rows + groups - 1) / groups;
    for (int64_t row = 0; row < p->rows; row += size) {
        int64_t m = p->rows - row < size ? p->rows - row : size;
        p->kernels->dots(p->bf16, count, w, p->x + row * p->x_stride_bytes, p->x_stride_bytes, (int)m, p->k, c[row],
                         CHUNK_MAX);
    }
}

static void chunk(const struct cpu_product *p, int64_t first, int64_t count)
{
    const char *w[CHUNK_MAX];
    float c[CPU_FEW][CHUNK_MAX], up[CPU_FEW][CHUNK_MAX];
    cpu_linear_rows(p->linear, first, count, w);
    dots(p, w, count, c);
    if (p->gated) {
        cpu_linear_rows(p->linear, p->columns + first, count, w);
        dots(p, w, count, up);
    }
    p->kernels->finish_rows(&p->finish, c[0], up[0], CHUNK_MAX, 0, p->rows, first, count);
}

static int64_t chunk_rows(const struct cpu_product *p, int threads)
{
    int64_t fitting = p->rows > CPU_DOTS ? CHUNK_BYTES / (p->k * (p->bf16 ? 2 : 4)) : CHUNK_MAX;
    int64_t fair = p->columns / (threads * 4);
    int64_t rows = (fitting < fair ? fitting : fair) / 12 * 12;
    return rows < CHUNK_MIN ? CHUNK_MIN : rows > CHUNK_MAX ? CHUNK_MAX : rows;
}

struct few {
    const struct cpu_product *product;
    int64_t step;
};

static void chunk_task(void *pointer, int64_t index, int worker)
{
    (void)worker;
    const struct few *few = pointer;
    int64_t first = index * few->step, left = few->product->columns - first;
    chunk(few->product, first, left < few->step ? left : few->step);
}

void cpu_product_few(struct sl_stream *stream, const struct cpu_product *product)
{
    int64_t columns = product->columns;
    int threads = cpu_threads(stream, product->linear->out * product->k * (product->rows + 3) / 64);
    int64_t step = chunk_rows(product, threads);
    struct few job = {.product = product, .step = step};
    cpu_loop(stream, threads, (columns + step - 1) / step, chunk_task, &job);
}
