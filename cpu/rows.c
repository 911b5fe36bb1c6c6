// SPDX-License-Identifier: Apache-2.0
// Operations that go row by row: norms, gathering, scattering. Each row is taken to f32, worked on, and stored.
#include <string.h>

#include "cpu/internal.h"
#include "cpu/kernels.h"
#include "cpu/ops.h"

static char *row_of(const struct sl_tensor *t, int64_t i)
{
    return (char *)t->data + i * t->stride[0] * sl_dtype_bytes(t->dtype);
}

// `count` rows of n floats for each of the threads, in one piece.
static float *row_buffers(struct sl_stream *stream, int threads, int count, int64_t n)
{
    return cpu_scratch(stream, CPU_SLOT_A, threads * count * n * 4);
}

// A vector as f32: itself, or converted into `buffer`.
static const float *as_f32(const struct sl_stream *stream, const struct sl_tensor *t, float *buffer)
{
    if (t->dtype == SL_F32) {
        return t->data;
    }
    stream->device->kernels->to_f32(t->data, t->dtype, t->shape[0], buffer);
    return buffer;
}

struct norm_job {
    const struct cpu_kernels *kernels;
    const struct sl_tensor *x, *y;
    const float *w, *b; // b: NULL for an RMS norm
    float eps, *buffers;
};

static void norm_row(void *pointer, int64_t i, int worker)
{
    const struct norm_job *job = pointer;
    int64_t n = job->x->shape[1];
    float *row = job->buffers + worker * n;
    job->kernels->to_f32(row_of(job->x, i), job->x->dtype, n, row);
    if (job->b) {
        job->kernels->layernorm(row, job->w, job->b, job->eps, n, row);
    } else {
        job->kernels->rmsnorm(row, job->w, job->eps, n, row);
    }
    job->kernels->from_f32(row, n, job->y->dtype == SL_BF16, row_of(job->y, i));
}

// Layer norm with `bias`, RMS norm without.
static void norm(struct sl_stream *stream, const struct sl_tensor *x, const struct sl_tensor *weight,
                 const struct sl_tensor *bias, float eps, const struct sl_tensor *y)
{
    int64_t rows = x->shape[0], n = x->shape[1];
    int threads = cpu_threads(stream, rows * n / 4);
    float *buffers = row_buffers(stream, threads, 1, n), *vectors = cpu_scratch(stream, CPU_SLOT_B, 2 * n * 4);
    if (!buffers || !vectors) {
        return;
    }
    struct norm_job job = {.kernels = stream->device->kernels,
                           .x = x,
                           .y = y,
                           .w = as_f32(stream, weight, vectors),
                           .b = bias ? as_f32(stream, bias, vectors + n) : NULL,
                           .eps = eps,
                           .buffers = buffers};
    cpu_loop(stream, threads, rows, norm_row, &job);
}

void cpu_layernorm(struct sl_stream *stream, const struct sl_tensor *x, const struct sl_tensor *weight,
                   const struct sl_tensor *bias, float eps, const struct sl_tensor *y)
{
    if (cpu_begin(stream)) {
        norm(stream, x, weight, bias, eps, y);
        cpu_end(stream);
    }
}

void cpu_rmsnorm(struct sl_stream *stream, const struct sl_tensor *x, const struct sl_tensor *weight, float eps,
                 const struct sl_tensor *y)
{
    if (cpu_begin(stream)) {
        norm(stream, x, weight, NULL, eps, y);
        cpu_end(stream);
    }
}

// to = from, or to += from; the types may differ.
static void put_row(const struct cpu_kernels *kernels, const struct sl_tensor *from, int64_t i, int add,
                    const struct sl_tensor *to, int64_t j, float *buffer)
{
    int64_t n = from->shape[1];
    if (!add && from->dtype == to->dtype) {
        memcpy(row_of(to, j), row_of(from, i), (size_t)(n * sl_dtype_bytes(to->dtype)));
        return;
    }
    kernels->to_f32(row_of(from, i), from->dtype, n, buffer);
    if (add) {
        kernels->to_f32(row_of(to, j), to->dtype, n, buffer + n);
        kernels->add_scaled(buffer + n, 1.0f, n, buffer);
    }
    kernels->from_f32(buffer, n, to->dtype == SL_BF16, row_of(to, j));
}

static int in_range(struct sl_stream *stream, const char *what, const int32_t *index, int64_t count, int64_t limit)
{
    for (int64_t i = 0; i < count; i++) {
        if (index[i] < 0 || index[i] >= limit) {
            cpu_fail(stream, SL_ERR_INTERNAL, "%s: index %d is not below %lld", what, index[i], (long long)limit);
            return 0;
        }
    }
    return 1;
}

void cpu_gather_rows(struct sl_stream *stream, const struct sl_tensor *table, const struct sl_tensor *index,
                     const struct sl_tensor *y)
{
    if (!cpu_begin(stream)) {
        return;
    }
    const int32_t *from = index->data;
    float *buffer = row_buffers(stream, 1, 2, table->shape[1]);
    if (buffer && in_range(stream, "gather_rows", from, y->shape[0], table->shape[0])) {
        for (int64_t i = 0; i < y->shape[0]; i++) {
            put_row(stream->device->kernels, table, from[i], 0, y, i, buffer);
        }
    }
    cpu_end(stream);
}

void cpu_scatter_rows(struct sl_stream *stream, const struct sl_tensor *x, const struct sl_tensor *index, int add,
                      const struct sl_tensor *y)
{
    if (!cpu_begin(stream)) {
        return;
    }
    const int32_t *to = index->data;
    float *buffer = row_buffers(stream, 1, 2, x->shape[1]);
    if (buffer && in_range(stream, "scatter_rows", to, x->shape[0], y->shape[0])) {
        for (int64_t i = 0; i < x->shape[0]; i++) {
            put_row(stream->device->kernels, x, i, add, y, to[i], buffer);
        }
    }
    cpu_end(stream);
}

struct interpolation {
    const struct cpu_kernels *kernels;
    const struct sl_tensor *table, *y;
    const int32_t *from; // four of each row
    const float *by;
    float *buffers;
};

static void interpolate_row(void *pointer, int64_t i, int worker)
{
    const struct interpolation *job = pointer;
    int64_t n = job->y->shape[1];
    float *sum = job->buffers + worker * 2 * n, *corner = sum + n;
    job->kernels->to_f32(row_of(job->y, i), job->y->dtype, n, sum);
    for (int64_t k = 4 * i; k < 4 * i + 4; k++) {
        job->kernels->to_f32(row_of(job->table, job->from[k]), job->table->dtype, n, corner);
        job->kernels->add_scaled(corner, job->by[k], n, sum);
    }
    job->kernels->from_f32(sum, n, job->y->dtype == SL_BF16, row_of(job->y, i));
}

static void interpolate(struct sl_stream *stream, const struct sl_tensor *table, const struct sl_tensor *index,
                        const struct sl_tensor *weight, const struct sl_tensor *y)
{
    int64_t rows = y->shape[0], n = y->shape[1];
    int threads = cpu_threads(stream, rows * n);
    float *buffers = row_buffers(stream, threads, 2, n);
    if (!buffers || !in_range(stream, "interpolate_rows", index->data, 4 * rows, table->shape[0])) {
        return;
    }
    struct interpolation job = {.kernels = stream->device->kernels,
                                .table = table,
                                .y = y,
                                .from = index->data,
                                .by = weight->data,
                                .buffers = buffers};
    cpu_loop(stream, threads, rows, interpolate_row, &job);
}

void cpu_interpolate_rows(struct sl_stream *stream, const struct sl_tensor *table, const struct sl_tensor *index,
                          const struct sl_tensor *weight, const struct sl_tensor *y)
{
    if (cpu_begin(stream)) {
        interpolate(stream, table, index, weight, y);
        cpu_end(stream);
    }
}
