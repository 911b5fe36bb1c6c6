// SPDX-License-Identifier: Apache-2.0
// Products with few rows of x, as in decoding: bounded by reading the weights, so each is read from memory once for all
// rows, in the order in which it lies. A row's result does not depend on what other rows are there.
#include "cpu/linear.h"

#include <string.h>

enum {
    ACROSS_MAX = 768,     // columns of a w that lies across, that a thread takes at a time
    ACROSS_ROWS = 8,      // rows of it that stream through the processor side by side
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

// All rows of x against columns [first, first + count) of a w that lies across, and the up half's: rows of w are scaled
// and added as they come from memory.
static void chunk_across(const struct cpu_product *p, const float *x, int64_t first, int64_t count)
{
    float c[2][CPU_FEW * ACROSS_MAX];
    const struct cpu_linear_part *part = p->linear->part;
    int halves = p->gated ? 2 : 1;
    for (int half = 0; half < halves; half++) {
        memset(c[half], 0, (size_t)(p->rows * count) * sizeof *c[half]);
    }
    for (int64_t i = 0; i < part->rows; i += ACROSS_ROWS) {
        int64_t n = part->rows - i < ACROSS_ROWS ? part->rows - i : ACROSS_ROWS;
        for (int half = 0; half < halves; half++) {
            const char *w = part->data + (half * p->columns + first) * (p->bf16 ? 2 : 4), *row[ACROSS_ROWS];
            for (int64_t k = 0; k < n; k++) {
                row[k] = w + (i + k) * part->stride_bytes;
            }
            p->kernels->add_rows(p->bf16, n, row, x + i, p->k, (int)p->rows, count, c[half], count);
        }
    }
    p->kernels->finish_rows(&p->finish, c[0], c[1], count, 0, p->rows, first, count);
}

// Long stretches of w's rows, as far as that leaves something for each thread.
static int64_t across_columns(const struct cpu_product *p, int threads)
{
    int64_t columns = ((p->columns + threads - 1) / threads + CPU_LANES - 1) / CPU_LANES * CPU_LANES;
    return columns > ACROSS_MAX ? ACROSS_MAX : columns;
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
    const float *x; // of a w that lies across: f32
    int64_t step;
};

static void chunk_task(void *pointer, int64_t index, int worker)
{
    (void)worker;
    const struct few *few = pointer;
    int64_t first = index * few->step, left = few->product->columns - first,
            count = left < few->step ? left : few->step;
    if (few->x) {
        chunk_across(few->product, few->x, first, count);
    } else {
        chunk(few->product, first, count);
    }
}

// The rows of x as f32, NULL when there is no memory.
static const float *widened(struct sl_stream *stream, const struct cpu_product *p)
{
    float *x = cpu_scratch(stream, CPU_SLOT_A, p->rows * p->k * 4);
    for (int64_t i = 0; x && i < p->rows; i++) {
        p->kernels->to_f32(p->x + i * p->x_stride_bytes, p->bf16 ? SL_BF16 : SL_F32, p->k, x + i * p->k);
    }
    return x;
}

void cpu_product_few(struct sl_stream *stream, const struct cpu_product *product)
{
    int64_t columns = product->columns;
    int threads = cpu_threads(stream, product->linear->out * product->k * (product->rows + 3) / 64);
    int across = product->linear->across;
    struct few job = {.product = product,
                      .x = across ? widened(stream, product) : NULL,
                      .step = across ? across_columns(product, threads) : chunk_rows(product, threads)};
    if (!across || job.x) {
        cpu_loop(stream, threads, (columns + job.step - 1) / job.step, chunk_task, &job);
    }
}
