// SPDX-License-Identifier: Apache-2.0
// Products with many rows of x: blocks that fit the caches, after Goto and van de Geijn, "Anatomy of high-performance
// matrix multiplication" (2008), with the parts changed: here x is packed, and w, which is larger and stays, is not.
#include "cpu/linear.h"

#include <string.h>

enum {
    STEPS = 128,     // inner block: a panel of it stays in the first-level cache
    W_ROWS = 288,    // w rows of a block; with the partial results they stay in the second-level cache
    W_ROWS_MIN = 64, //
    X_ROWS_MAX = 384 // x rows of a block
};

struct plan {
    const struct cpu_product *p;
    int64_t steps;      // of the whole inner dimension
    int64_t panel_rows; // x rows in a panel
    int64_t panels;
    int64_t x_rows; // of a block, whole panels
    int64_t w_rows; // of a block; of both halves together when gated
    const float *packed;
    float *results;  // of each worker, one block
    float *laid;     // of each worker, STEPS of a w that lies across; NULL otherwise
    int64_t columns; // of y in a block
    int64_t down;    // blocks of x rows
};

static int vectors_of(const struct plan *plan, int64_t panel)
{
    int64_t left = plan->p->rows - panel * plan->panel_rows;
    int64_t rows = left < plan->panel_rows ? left : plan->panel_rows, lanes = plan->p->kernels->lanes;
    return (int)((rows + lanes - 1) / lanes);
}

static const float *panel_at(const struct plan *plan, int64_t panel)
{
    return plan->packed + panel * plan->panel_rows * plan->steps;
}

static void pack(const struct plan *plan, int64_t panel)
{
    const struct cpu_product *p = plan->p;
    int64_t row = panel * plan->panel_rows, left = p->rows - row;
    p->kernels->pack(p->x + row * p->x_stride_bytes, p->x_stride_bytes,
                     (int)(left < plan->panel_rows ? left : plan->panel_rows), plan->steps, vectors_of(plan, panel),
                     (float *)panel_at(plan, panel));
}

// Steps [s, s + steps) of columns [column, column + columns) of a w that lies across, one step's columns side by side.
static void lay(const struct cpu_product *p, int64_t column, int64_t columns, int64_t s, int64_t steps, float *to)
{
    const struct cpu_linear_part *part = p->linear->part;
    int64_t in_step = p->bf16 ? 2 : 1, first = s * in_step, rows = steps * in_step;
    const char *row[2 * STEPS];
    rows = rows < part->rows - first ? rows : part->rows - first;
    for (int64_t i = 0; i < rows; i++) {
        row[i] = part->data + (first + i) * part->stride_bytes + column * (p->bf16 ? 2 : 4);
    }
    if (p->bf16) {
        p->kernels->pair_rows(rows, row, columns, (uint32_t *)to);
        return;
    }
    for (int64_t i = 0; i < rows; i++) {
        memcpy(to + i * columns, row[i], (size_t)columns * sizeof *to);
    }
}

// The same for both halves, and where w's rows are then.
static void lay_block(const struct plan *plan, int64_t column, int64_t columns, int64_t s, int64_t steps, float *to,
                      const char **w)
{
    const struct cpu_product *p = plan->p;
    for (int half = 0; half < (p->gated ? 2 : 1); half++) {
        float *at = to + half * STEPS * columns;
        lay(p, half * p->columns + column, columns, s, steps, at);
        for (int64_t i = 0; i < columns; i++) {
            w[half * columns + i] = (const char *)(at + i);
        }
    }
}

static void row_addresses(const struct cpu_product *p, int64_t column, int64_t columns, const char **w)
{
    cpu_linear_rows(p->linear, column, columns, w);
    if (p->gated) {
        cpu_linear_rows(p->linear, p->columns + column, columns, w + columns);
    }
}

// One block of y: w rows of columns [column, column + columns), x rows [x_row, x_row + plan->x_rows).
static void block(const struct plan *plan, int64_t column, int64_t columns, int64_t x_row, float *c, float *laid)
{
    const struct cpu_product *p = plan->p;
    const char *w[2 * W_ROWS];
    int64_t n = p->gated ? 2 * columns : columns, ldc = plan->x_rows, lanes = p->kernels->lanes;
    int64_t x_end = x_row + plan->x_rows < p->rows ? x_row + plan->x_rows : p->rows;
    if (!laid) {
        row_addresses(p, column, columns, w);
    }
    for (int64_t s = 0; s < plan->steps; s += STEPS) {
        int64_t steps = plan->steps - s < STEPS ? plan->steps - s : STEPS;
        if (laid) {
            lay_block(plan, column, columns, s, steps, laid, w);
        }
        for (int64_t row = x_row; row < x_end; row += plan->panel_rows) {
            int64_t panel = row / plan->panel_rows;
            int vectors = vectors_of(plan, panel);
            p->kernels->product(p->bf16, n, w, laid ? 0 : s * 4, laid ? 4 * columns : 4,
                                panel_at(plan, panel) + s * vectors * lanes, vectors, steps, c + (row - x_row), ldc,
                                s > 0);
        }
    }
    p->kernels->finish_columns(&p->finish, c, c + columns * ldc, ldc, x_row, x_end - x_row, column, columns);
}

static int64_t round_up(int64_t x, int64_t to)
{
    return (x + to - 1) / to * to;
}

// Every thread gets equal stripes of w, unless there is too little of it.
static void choose(struct plan *plan, const struct cpu_product *p, int threads)
{
    plan->p = p;
    plan->steps = p->bf16 ? p->k / 2 : p->k;
    plan->panel_rows = p->kernels->vectors * p->kernels->lanes;
    plan->panels = (p->rows + plan->panel_rows - 1) / plan->panel_rows;
    int64_t x_blocks = (p->rows + X_ROWS_MAX - 1) / X_ROWS_MAX;
    plan->x_rows = round_up((p->rows + x_blocks - 1) / x_blocks, plan->panel_rows);
    int64_t stripes = round_up((p->linear->out + W_ROWS - 1) / W_ROWS, threads);
    int64_t w_rows = round_up((p->linear->out + stripes - 1) / stripes, 32);
    plan->w_rows = w_rows < W_ROWS_MIN ? W_ROWS_MIN : w_rows;
}

static void pack_task(void *plan, int64_t panel, int worker)
{
    (void)worker;
    pack(plan, panel);
}

static void block_task(void *pointer, int64_t index, int worker)
{
    const struct plan *plan = pointer;
    int64_t column = index / plan->down * plan->columns, left = plan->p->columns - column;
    block(plan, column, left < plan->columns ? left : plan->columns, index % plan->down * plan->x_rows,
          plan->results + worker * plan->w_rows * plan->x_rows,
          plan->laid ? plan->laid + worker * plan->w_rows * STEPS : NULL);
}

void cpu_product_many(struct sl_stream *stream, const struct cpu_product *product)
{
    struct plan plan;
    int threads = cpu_threads(stream, product->linear->out * product->k / 64 * product->rows);
    choose(&plan, product, threads);
    int64_t columns = product->gated ? plan.w_rows / 2 : plan.w_rows;
    int64_t across = (product->columns + columns - 1) / columns;
    int64_t down = (product->rows + plan.x_rows - 1) / plan.x_rows;
    float *packed = cpu_scratch(stream, CPU_SLOT_A, plan.panels * plan.panel_rows * plan.steps * 4);
    int64_t block_floats = threads * plan.w_rows * plan.x_rows;
    int64_t laid_floats = product->linear->across ? threads * plan.w_rows * STEPS : 0;
    float *results = cpu_scratch(stream, CPU_SLOT_B, (block_floats + laid_floats) * 4);
    if (!packed || !results) {
        return;
    }
    plan.packed = packed;
    plan.results = results;
    plan.laid = laid_floats ? results + block_floats : NULL;
    plan.columns = columns;
    plan.down = down;
    cpu_loop(stream, threads, plan.panels, pack_task, &plan);
    cpu_loop(stream, threads, across * down, block_task, &plan);
}
