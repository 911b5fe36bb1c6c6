// SPDX-License-Identifier: Apache-2.0
// A layer's mixture of experts: one linear pair for each expert, over the rows that are sent to it. Experts take their
// turn in ascending order, so a row's sum has one order whatever other rows are there.
//
// Products are by our own kernels: oneDNN would make a primitive for every number of rows.
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "cpu/internal.h"
#include "cpu/kernels.h"
#include "cpu/linear.h"
#include "cpu/ops.h"

struct expert {
    struct sl_linear *gate_up, *down;
};

struct sl_experts {
    enum sl_dtype compute;
    int64_t count, hidden, intermediate;
    struct expert expert[];
};

// --- weights ---

// The matrix of one expert in a tensor of three axes, with its scales. Views of the caller's.
struct matrix {
    struct sl_tensor values, scale;
};

static struct sl_tensor slice(const struct sl_tensor *t, int64_t index)
{
    char *data = (char *)t->data + index * t->stride[0] * sl_dtype_bytes(t->dtype);
    return sl_tensor_2d(data, t->dtype, t->shape[1], t->shape[2]);
}

static void matrix_of(const struct sl_tensor *t, int64_t index, struct matrix *out)
{
    out->values = slice(t, index);
    if (t->scale) {
        out->scale = slice(t->scale, index);
        out->values.scale = &out->scale;
    }
}

static int expert_create(const struct cpu_device *cpu, const struct sl_experts_source *source, int64_t index,
                         enum sl_dtype compute, struct expert *out)
{
    if (source->layout == SL_EXPERTS_SEPARATE) {
        out->gate_up = cpu_linear_make(cpu, source->gate_up + 2 * index, 2, 0, NULL, compute);
        out->down = cpu_linear_make(cpu, source->down + index, 1, 0, NULL, compute);
    } else {
        int across = source->layout == SL_EXPERTS_INPUT_MAJOR;
        struct matrix gate_up, down;
        matrix_of(source->gate_up, index, &gate_up);
        matrix_of(source->down, index, &down);
        out->gate_up = cpu_linear_make(cpu, &gate_up.values, 1, across, NULL, compute);
        out->down = cpu_linear_make(cpu, &down.values, 1, across, NULL, compute);
    }
    return out->gate_up && out->down;
}

int cpu_experts_create(struct sl_device *device, const struct sl_experts_source *source, enum sl_dtype compute,
                       struct sl_experts **out, struct sl_error *error)
{
    struct sl_experts *experts = calloc(1, sizeof *experts + (size_t)source->experts * sizeof *experts->expert);
    *out = NULL;
    int made = experts != NULL;
    if (made) {
        experts->compute = compute;
        experts->count = source->experts;
        experts->hidden = source->hidden;
        experts->intermediate = source->intermediate;
    }
    for (int64_t e = 0; made && e < experts->count; e++) {
        made = expert_create((const struct cpu_device *)device, source, e, compute, &experts->expert[e]);
    }
    if (!made) {
        cpu_experts_destroy(experts);
        return sl_fail(error, SL_ERR_MEMORY, "out of memory: the weights of %d experts", source->experts);
    }
    *out = experts;
    return SL_OK;
}

void cpu_experts_destroy(struct sl_experts *experts)
{
    for (int64_t e = 0; experts && e < experts->count; e++) {
        cpu_linear_destroy(experts->expert[e].gate_up);
        cpu_linear_destroy(experts->expert[e].down);
    }
    free(experts);
}

// --- routing ---

struct routing {
    const struct cpu_kernels *kernels;
    const struct sl_tensor *logits, *expert, *weight;
    int normalise;
};

static int32_t best_after(const float *logits, int64_t n, const uint8_t *taken)
{
    int32_t best = -1;
    for (int32_t i = 0; i < n; i++) {
        if (!taken[i] && (best < 0 || logits[i] > logits[best])) {
            best = i;
        }
    }
    return best;
}

static void route_row(void *pointer, int64_t row, int worker)
{
    (void)worker;
    const struct routing *job = pointer;
    const float *logits = (const float *)job->logits->data + row * job->logits->stride[0];
    int32_t *expert = (int32_t *)job->expert->data + row * job->expert->stride[0];
    float *weight = (float *)job->weight->data + row * job->weight->stride[0];
    int64_t n = job->logits->shape[1], top_k = job->expert->shape[1];
    uint8_t taken[SL_MAX_EXPERTS] = {0};
    float top = job->kernels->maximum(logits, n), chosen = 0;
    float all = (float)job->kernels->sum_exp(logits, n, top);
    for (int64_t k = 0; k < top_k; k++) {
        expert[k] = best_after(logits, n, taken);
        taken[expert[k]] = 1;
        // The largest logit is the first one chosen, so the sum is never 0.
        weight[k] = expf(logits[expert[k]] - top) / all;
        chosen += weight[k];
    }
    for (int64_t k = 0; job->normalise && k < top_k; k++) {
        weight[k] /= chosen;
    }
}

void cpu_route(struct sl_stream *stream, const struct sl_tensor *logits, int normalise, const struct sl_tensor *expert,
               const struct sl_tensor *weight)
{
    if (!cpu_begin(stream)) {
        return;
    }
    int64_t rows = logits->shape[0], n = logits->shape[1], top_k = expert->shape[1];
    if (n > SL_MAX_EXPERTS || top_k > n || expert->shape[0] != rows || weight->shape[0] != rows ||
        weight->shape[1] != top_k) {
        cpu_fail(stream, SL_ERR_INTERNAL, "route: shapes do not fit together");
    } else {
        struct routing job = {stream->device->kernels, logits, expert, weight, normalise};
        cpu_loop(stream, cpu_threads(stream, rows * n * top_k), rows, route_row, &job);
    }
    cpu_end(stream);
}

// --- the products ---

// A pair is a row and one of its experts; pairs are sorted by expert.
struct mixture {
    const struct cpu_kernels *kernels;
    const struct sl_experts *experts;
    const struct sl_tensor *x, *expert, *weight, *y;
    int64_t top_k;
    int64_t start[SL_MAX_EXPERTS + 1]; // of each expert's pairs
    int32_t *pair;                     // [rows * top_k] row * top_k + k
    struct sl_tensor taken, inner;     // an expert's [rows of it, ...]: of x, and between the two products
    float *out;                        // [rows of it, hidden]
    float *sum;                        // [rows, hidden]
    const int32_t *turn;               // the pairs of the expert whose turn it is
};

static char *row_at(const struct sl_tensor *t, int64_t row)
{
    return (char *)t->data + row * t->stride[0] * sl_dtype_bytes(t->dtype);
}

static int32_t expert_of(const struct mixture *m, int64_t pair)
{
    return ((const int32_t *)m->expert->data)[pair / m->top_k * m->expert->stride[0] + pair % m->top_k];
}

// Counting sort; 0 when an index is no expert's.
static int sort_pairs(struct mixture *m, int64_t pairs)
{
    int64_t at[SL_MAX_EXPERTS];
    memset(m->start, 0, sizeof m->start);
    for (int64_t i = 0; i < pairs; i++) {
        int32_t e = expert_of(m, i);
        if (e < 0 || e >= m->experts->count) {
            return 0;
        }
        m->start[e + 1]++;
    }
    for (int64_t e = 0; e < m->experts->count; e++) {
        m->start[e + 1] += m->start[e];
        at[e] = m->start[e];
    }
    for (int64_t i = 0; i < pairs; i++) {
        m->pair[at[expert_of(m, i)]++] = (int32_t)i;
    }
    return 1;
}

static int64_t aligned(int64_t bytes)
{
    return (bytes + 63) / 64 * 64;
}

// All of it in one piece of scratch, for the case that one expert gets every row.
static int make_room(struct sl_stream *stream, struct mixture *m)
{
    int64_t rows = m->x->shape[0], hidden = m->experts->hidden, inner = m->experts->intermediate;
    int64_t pair_bytes = aligned(rows * m->top_k * 4), wide_bytes = aligned(rows * hidden * 4);
    m->taken = sl_tensor_2d(NULL, m->x->dtype, rows, hidden);
    m->inner = sl_tensor_2d(NULL, m->experts->compute, rows, inner);
    int64_t taken_bytes = aligned(sl_tensor_bytes(&m->taken)), inner_bytes = aligned(sl_tensor_bytes(&m->inner));
    char *room = cpu_scratch(stream, CPU_SLOT_EXPERTS, pair_bytes + taken_bytes + inner_bytes + 2 * wide_bytes);
    if (!room) {
        return 0;
    }
    m->pair = (int32_t *)room;
    m->taken.data = room + pair_bytes;
    m->inner.data = room + pair_bytes + taken_bytes;
    m->out = (float *)(room + pair_bytes + taken_bytes + inner_bytes);
    m->sum = m->out + wide_bytes / 4;
    return 1;
}

static void take_row(void *pointer, int64_t i, int worker)
{
    (void)worker;
    const struct mixture *m = pointer;
    memcpy(row_at(&m->taken, i), row_at(m->x, m->turn[i] / m->top_k),
           (size_t)(m->x->shape[1] * sl_dtype_bytes(m->x->dtype)));
}

static void give_row(void *pointer, int64_t i, int worker)
{
    (void)worker;
    const struct mixture *m = pointer;
    int64_t row = m->turn[i] / m->top_k, k = m->turn[i] % m->top_k, hidden = m->experts->hidden;
    float weight = ((const float *)m->weight->data)[row * m->weight->stride[0] + k];
    m->kernels->add_scaled(m->out + i * hidden, weight, hidden, m->sum + row * hidden);
}

static void add_row(void *pointer, int64_t row, int worker)
{
    (void)worker;
    const struct mixture *m = pointer;
    int64_t hidden = m->experts->hidden;
    float *old = m->out + row * hidden;
    m->kernels->to_f32(row_at(m->y, row), m->y->dtype, hidden, old);
    m->kernels->add_scaled(m->sum + row * hidden, 1.0f, hidden, old);
    m->kernels->from_f32(old, hidden, m->y->dtype == SL_BF16, row_at(m->y, row));
}

static void run_expert(struct sl_stream *stream, struct mixture *m, int64_t e)
{
    int64_t rows = m->start[e + 1] - m->start[e], hidden = m->experts->hidden;
    int threads = cpu_threads(stream, rows * hidden);
    struct sl_tensor taken = sl_tensor_rows(&m->taken, 0, rows), inner = sl_tensor_rows(&m->inner, 0, rows);
    struct sl_tensor out = sl_tensor_2d(m->out, SL_F32, rows, hidden);
    m->turn = m->pair + m->start[e];
    cpu_loop(stream, threads, rows, take_row, m);
    cpu_linear_multiply(stream, m->experts->expert[e].gate_up, &taken, SL_EPILOGUE_SILU_GATE, NULL, 1, &inner);
    cpu_linear_multiply(stream, m->experts->expert[e].down, &inner, SL_EPILOGUE_NONE, NULL, 1, &out);
    cpu_loop(stream, threads, rows, give_row, m);
}

static void mix(struct sl_stream *stream, struct mixture *m)
{
    int64_t rows = m->x->shape[0], hidden = m->experts->hidden;
    if (!make_room(stream, m)) {
        return;
    }
    if (!sort_pairs(m, rows * m->top_k)) {
        cpu_fail(stream, SL_ERR_INTERNAL, "experts: an index is not below %lld", (long long)m->experts->count);
        return;
    }
    memset(m->sum, 0, (size_t)(rows * hidden) * sizeof *m->sum);
    for (int64_t e = 0; e < m->experts->count; e++) {
        if (m->start[e + 1] > m->start[e]) {
            run_expert(stream, m, e);
        }
    }
    cpu_loop(stream, cpu_threads(stream, rows * hidden), rows, add_row, m);
}

static int fits(const struct mixture *m)
{
    int64_t rows = m->x->shape[0], hidden = m->experts->hidden;
    return m->experts->count <= SL_MAX_EXPERTS && m->x->shape[1] == hidden && m->y->shape[0] == rows &&
           m->y->shape[1] == hidden && m->expert->shape[0] == rows && m->weight->shape[0] == rows &&
           m->weight->shape[1] == m->top_k;
}

void cpu_experts(struct sl_stream *stream, const struct sl_experts *experts, const struct sl_tensor *x,
                 const struct sl_tensor *expert, const struct sl_tensor *weight, const struct sl_tensor *y)
{
    if (!cpu_begin(stream)) {
        return;
    }
    struct mixture m = {.kernels = stream->device->kernels,
                        .experts = experts,
                        .x = x,
                        .expert = expert,
                        .weight = weight,
                        .y = y,
                        .top_k = expert->shape[1]};
    if (fits(&m)) {
        mix(stream, &m);
    } else {
        cpu_fail(stream, SL_ERR_INTERNAL, "experts: shapes do not fit together");
    }
    cpu_end(stream);
}

void cpu_rmsnorm_experts(struct sl_stream *stream, const struct sl_tensor *norm, float eps,
                         const struct sl_linear *router, int normalise, const struct sl_experts *experts,
                         const struct sl_experts_room *room, const struct sl_tensor *y)
{
    cpu_rmsnorm(stream, y, norm, eps, &room->normed);
    cpu_linear(stream, router, &room->normed, SL_EPILOGUE_NONE, NULL, &room->logits);
    cpu_route(stream, &room->logits, normalise, &room->expert, &room->weight);
    cpu_experts(stream, experts, &room->normed, &room->expert, &room->weight, y);
}
