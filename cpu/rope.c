// SPDX-License-Identifier: Apache-2.0
// Rotary embeddings: of the vision tower by patch coordinates, of the decoder by three axes, there together with the
// norms of q and k and the store into the cache.
#include <math.h>
#include <string.h>

#include "cpu/internal.h"
#include "cpu/kernels.h"
#include "cpu/ops.h"
#include "cpu/ragged.h"

// --- vision ---

#define BASE 10000.0

// cosine[p * quarter + j], then the sines: one axis at positions 0..last.
static float *axis_table(struct sl_stream *stream, int64_t last, int64_t quarter)
{
    int64_t size = (last + 1) * quarter;
    float *table = cpu_scratch(stream, CPU_SLOT_B, 2 * size * 4);
    for (int64_t i = 0; table && i < size; i++) {
        float frequency = (float)pow(BASE, -(double)(i % quarter) / (double)quarter);
        float angle = (float)(i / quarter) * frequency;
        table[i] = cosf(angle);
        table[size + i] = sinf(angle);
    }
    return table;
}

static int64_t last_position(struct sl_stream *stream, const int32_t *position, int64_t count)
{
    int32_t last = 0;
    for (int64_t i = 0; i < count; i++) {
        if (position[i] < 0 || position[i] > 1 << 20) {
            cpu_fail(stream, SL_ERR_INTERNAL, "rope_2d: position %d", position[i]);
            return -1;
        }
        last = position[i] > last ? position[i] : last;
    }
    return last;
}

struct rotation {
    const struct cpu_kernels *kernels;
    const struct sl_tensor *qkv;
    const int32_t *at; // row, column
    int64_t heads, d;  // q heads and k heads together
    const float *cosine, *sine;
    float *buffers;
};

static void rotate_patch(void *pointer, int64_t i, int worker)
{
    const struct rotation *r = pointer;
    int64_t d = r->d, quarter = d / 4, n = r->heads * d;
    char *row = (char *)r->qkv->data + i * r->qkv->stride[0] * sl_dtype_bytes(r->qkv->dtype);
    float *x = r->buffers + worker * (n + d), *c = x + n, *s = c + d / 2;
    for (int axis = 0; axis < 2; axis++) {
        int64_t p = r->at[2 * i + axis] * quarter;
        memcpy(c + axis * quarter, r->cosine + p, (size_t)quarter * sizeof *c);
        memcpy(s + axis * quarter, r->sine + p, (size_t)quarter * sizeof *s);
    }
    r->kernels->to_f32(row, r->qkv->dtype, n, x);
    for (int64_t h = 0; h < r->heads; h++) {
        r->kernels->rotate(x + h * d, c, s, d / 2);
    }
    r->kernels->from_f32(x, n, r->qkv->dtype == SL_BF16, row);
}

static void rotate_patches(struct sl_stream *stream, const struct sl_tensor *qkv, int heads,
                           const struct sl_tensor *position)
{
    const int32_t *at = position->data;
    int64_t rows = qkv->shape[0], d = qkv->shape[1] / (3 * heads), quarter = d / 4, n = 2 * heads * d;
    int threads = cpu_threads(stream, rows * n / 4);
    int64_t last = last_position(stream, at, 2 * rows);
    float *buffers = cpu_scratch(stream, CPU_SLOT_A, threads * (n + d) * 4);
    float *cosine = last < 0 ? NULL : axis_table(stream, last, quarter);
    if (!buffers || !cosine) {
        return;
    }
    struct rotation job = {.kernels = stream->device->kernels,
                           .qkv = qkv,
                           .at = at,
                           .heads = 2 * heads,
                           .d = d,
                           .cosine = cosine,
                           .sine = cosine + (last + 1) * quarter,
                           .buffers = buffers};
    cpu_loop(stream, threads, rows, rotate_patch, &job);
}

void cpu_rope_2d(struct sl_stream *stream, const struct sl_tensor *qkv, int heads, const struct sl_tensor *position)
{
    if (!cpu_begin(stream)) {
        return;
    }
    if (qkv->shape[1] % (12 * heads) == 0) {
        rotate_patches(stream, qkv, heads, position);
    } else {
        cpu_fail(stream, SL_ERR_INTERNAL, "rope_2d: the head size is not a multiple of four");
    }
    cpu_end(stream);
}

// --- decoder ---

// What the angles depend on, kept in front of the table: all layers of a step have the same, so only the first pays.
static int64_t key_of(const struct sl_ragged *ragged, const struct sl_rope *rope, int32_t *key)
{
    int64_t rows = ragged->rows, half = rope->inv_freq.shape[0], n = 0;
    for (int axis = 0; axis < 3; axis++, n += rows) {
        const int32_t *position = (const int32_t *)ragged->position.data + axis * ragged->position.stride[0];
        memcpy(key + n, position, (size_t)rows * 4);
    }
    memcpy(key + n, rope->inv_freq.data, (size_t)half * 4);
    memcpy(key + n + half, rope->axis.data, (size_t)half * 4);
    memcpy(key + n + 2 * half, &rope->scale, 4);
    return n + 2 * half + 1;
}

struct angles {
    const struct sl_ragged *ragged;
    const struct sl_rope *rope;
    float *table;
};

static void fill_table_row(void *pointer, int64_t i, int worker)
{
    (void)worker;
    const struct angles *a = pointer;
    int64_t half = a->rope->inv_freq.shape[0];
    const float *frequency = a->rope->inv_freq.data;
    const int32_t *axis = a->rope->axis.data, *position = a->ragged->position.data;
    for (int64_t j = 0; j < half; j++) {
        float angle = (float)position[axis[j] * a->ragged->position.stride[0] + i] * frequency[j];
        a->table[2 * i * half + j] = cosf(angle) * a->rope->scale;
        a->table[(2 * i + 1) * half + j] = sinf(angle) * a->rope->scale;
    }
}

// [rows][2][half]: cosines, sines.
static const float *angle_table(struct sl_stream *stream, const struct sl_ragged *ragged, const struct sl_rope *rope)
{
    int64_t rows = ragged->rows, half = rope->inv_freq.shape[0];
    int64_t table_size = 2 * rows * half, key_room = 3 * rows + 2 * half + 1;
    int32_t *key = cpu_scratch(stream, CPU_SLOT_C, key_room * 4);
    int same = stream->rope_rows == rows && stream->rope_half == half;
    stream->rope_rows = 0;
    float *table = cpu_scratch(stream, CPU_SLOT_ROPE, (table_size + key_room) * 4);
    if (!key || !table) {
        return NULL;
    }
    int64_t size = key_of(ragged, rope, key);
    if (!same || memcmp(key, table + table_size, (size_t)size * 4) != 0) {
        struct angles job = {.ragged = ragged, .rope = rope, .table = table};
        cpu_loop(stream, cpu_threads(stream, table_size * 10), rows, fill_table_row, &job);
        memcpy(table + table_size, key, (size_t)size * 4);
    }
    stream->rope_rows = rows;
    stream->rope_half = half;
    return table;
}

struct norm_rope {
    const struct cpu_kernels *kernels;
    const struct sl_tensor *qkv;
    int64_t d, heads, kv_heads;
    const float *q_norm, *k_norm, *table;
    float eps;
    const struct sl_kv_layer *kv;
    const struct cpu_sequence *sequence;
    float *buffers; // of each worker, one row of q and k
};

static void norm_and_rotate(const struct norm_rope *job, int64_t row, int64_t heads, const float *norm, float *x)
{
    for (int64_t h = 0; h < heads; h++) {
        const float *cosine = job->table + row * job->d;
        job->kernels->rmsnorm(x + h * job->d, norm, job->eps, job->d, x + h * job->d);
        job->kernels->rotate(x + h * job->d, cosine, cosine + job->d / 2, job->d / 2);
    }
}

// Row `r` of the sequence: q back in its place, k and v to their slot of the sequence's pages.
static void one_row(void *pointer, int64_t r, int worker)
{
    const struct norm_rope *job = pointer;
    const struct cpu_sequence *sequence = job->sequence;
    const struct sl_kv_layer *kv = job->kv;
    float *x = job->buffers + worker * (job->heads + job->kv_heads) * job->d;
    int64_t row = sequence->first_row + r;
    int64_t size = sl_dtype_bytes(job->qkv->dtype), d = job->d, q = job->heads * d, k = job->kv_heads * d;
    char *from = (char *)job->qkv->data + row * job->qkv->stride[0] * size;
    job->kernels->to_f32(from, job->qkv->dtype, q + k, x);
    norm_and_rotate(job, row, job->heads, job->q_norm, x);
    norm_and_rotate(job, row, job->kv_heads, job->k_norm, x + q);
    job->kernels->from_f32(x, q, job->qkv->dtype == SL_BF16, from);
    int64_t index = sequence->length - sequence->rows + row - sequence->first_row, page_tokens = kv->k.shape[2];
    int64_t page = sequence->page[index / page_tokens], slot = index % page_tokens;
    for (int64_t h = 0; h < job->kv_heads; h++) {
        int64_t k_at = page * kv->k.stride[0] + h * kv->k.stride[1] + slot * kv->k.stride[2];
        int64_t v_at = page * kv->v.stride[0] + h * kv->v.stride[1] + slot * kv->v.stride[2];
        job->kernels->from_f32(x + q + h * d, d, job->qkv->dtype == SL_BF16, (char *)kv->k.data + k_at * size);
        memcpy((char *)kv->v.data + v_at * size, from + (q + k + h * d) * size, (size_t)(d * size));
    }
}

static const float *norm_weight(const struct cpu_kernels *kernels, const struct sl_tensor *weight, float *buffer)
{
    if (weight->dtype == SL_F32) {
        return weight->data;
    }
    kernels->to_f32(weight->data, weight->dtype, weight->shape[0], buffer);
    return buffer;
}

static void norm_rope_store(struct sl_stream *stream, const struct sl_ragged *ragged, struct norm_rope *job,
                            const struct sl_tensor *q_norm, const struct sl_tensor *k_norm, const struct sl_rope *rope,
                            const struct sl_kv_layer *kv)
{
    int64_t n = (job->heads + job->kv_heads) * job->d;
    int threads = cpu_threads(stream, ragged->rows * n / 2);
    float *buffers = cpu_scratch(stream, CPU_SLOT_A, threads * n * 4);
    float *norms = cpu_scratch(stream, CPU_SLOT_B, 2 * job->d * 4);
    if (!buffers || !norms || !cpu_ragged_check(stream, ragged, kv)) {
        return;
    }
    job->q_norm = norm_weight(job->kernels, q_norm, norms);
    job->k_norm = norm_weight(job->kernels, k_norm, norms + job->d);
    job->table = angle_table(stream, ragged, rope);
    if (!job->table) {
        return;
    }
    job->buffers = buffers;
    job->kv = kv;
    for (int b = 0; b < ragged->sequences; b++) {
        struct cpu_sequence sequence = cpu_sequence_at(ragged, b);
        job->sequence = &sequence;
        cpu_loop(stream, sequence.rows < threads ? (int)sequence.rows : threads, sequence.rows, one_row, job);
    }
}

void cpu_qk_norm_rope_store(struct sl_stream *stream, const struct sl_ragged *ragged, const struct sl_tensor *qkv,
                            int heads, const struct sl_tensor *q_norm, const struct sl_tensor *k_norm, float eps,
                            const struct sl_rope *rope, const struct sl_kv_layer *kv)
{
    if (!cpu_begin(stream)) {
        return;
    }
    struct norm_rope job = {.kernels = stream->device->kernels,
                            .qkv = qkv,
                            .d = kv->k.shape[3],
                            .heads = heads,
                            .kv_heads = kv->k.shape[1],
                            .eps = eps};
    if (qkv->shape[1] != (heads + 2 * job.kv_heads) * job.d || rope->inv_freq.shape[0] * 2 != job.d ||
        kv->k.dtype != qkv->dtype) {
        cpu_fail(stream, SL_ERR_INTERNAL, "qk_norm_rope_store: heads, head size or types do not fit together");
    } else {
        norm_rope_store(stream, ragged, &job, q_norm, k_norm, rope, kv);
    }
    cpu_end(stream);
}
