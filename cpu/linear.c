// SPDX-License-Identifier: Apache-2.0
#include "cpu/linear.h"

#include <stdlib.h>
#include <string.h>

#include "cpu/onednn.h"
#include "cpu/ops.h"

// --- weights ---

static void scale_row(const struct cpu_device *cpu, const struct sl_tensor *from, int64_t row, float *values)
{
    int64_t columns = from->shape[1], blocks = from->scale->shape[1];
    for (int64_t b = 0; b < blocks; b++) {
        int64_t first = b * SL_SCALE_BLOCK, end = first + SL_SCALE_BLOCK < columns ? first + SL_SCALE_BLOCK : columns;
        int64_t at = (row / SL_SCALE_BLOCK * blocks + b) * sl_dtype_bytes(from->scale->dtype);
        float scale;
        cpu->kernels->to_f32((const char *)from->scale->data + at, from->scale->dtype, 1, &scale);
        for (int64_t i = first; i < end; i++) {
            values[i] *= scale;
        }
    }
}

// Rows of `from` as `dtype`, with room for a padded last value; NULL when there is no memory.
static void *converted(const struct cpu_device *cpu, const struct sl_tensor *from, int64_t rows, int64_t columns,
                       enum sl_dtype dtype, int64_t stride_bytes)
{
    char *to = aligned_alloc(64, ((size_t)(rows * stride_bytes) + 63) / 64 * 64 + 64);
    float *row = malloc((size_t)(columns ? columns : 1) * sizeof *row);
    if (!to || !row) {
        free(to);
        free(row);
        return NULL;
    }
    for (int64_t i = 0; i < rows; i++) {
        const char *source = (const char *)from->data + i * columns * sl_dtype_bytes(from->dtype);
        char *target = to + i * stride_bytes;
        memset(target, 0, (size_t)stride_bytes);
        cpu->kernels->to_f32(source, from->dtype, columns, row);
        if (from->scale) {
            scale_row(cpu, from, i, row);
        }
        cpu->kernels->from_f32(row, columns, dtype == SL_BF16, target);
    }
    free(row);
    return to;
}

// A matrix of f8 has scales, nothing else has.
static int is_weight(const struct sl_tensor *t)
{
    return t->dtype == SL_F32 || t->dtype == SL_BF16 || t->dtype == SL_F16 ||
           (t->dtype == SL_F8E4M3 && t->rank == 2 && t->scale);
}

static int own(struct cpu_device *cpu, void *data)
{
    struct cpu_owned *owned = data ? malloc(sizeof *owned) : NULL;
    if (!owned) {
        return 0;
    }
    owned->data = data;
    cpu_turn_take(cpu);
    owned->next = cpu->owned;
    cpu->owned = owned;
    cpu_turn_give(cpu);
    return 1;
}

int cpu_weight_create(struct sl_device *device, const struct sl_tensor *host, enum sl_dtype dtype,
                      struct sl_tensor *out, struct sl_error *error)
{
    struct cpu_device *cpu = (struct cpu_device *)device;
    *out = *host;
    out->scale = NULL;
    if (dtype == host->dtype) {
        return SL_OK;
    }
    if (!is_weight(host) || (dtype != SL_F32 && dtype != SL_BF16)) {
        return sl_fail(error, SL_ERR_INTERNAL, "weight_create: no conversion from %s to %s", sl_dtype_name(host->dtype),
                       sl_dtype_name(dtype));
    }
    int64_t columns = host->shape[host->rank - 1];
    int64_t rows = columns ? sl_tensor_elements(host) / columns : 0;
    out->dtype = dtype;
    out->data = converted(cpu, host, rows, columns, dtype, columns * sl_dtype_bytes(dtype));
    if (!own(cpu, out->data)) {
        free(out->data);
        out->data = NULL;
        return sl_fail(error, SL_ERR_MEMORY, "out of memory: a weight of %lld values",
                       (long long)sl_tensor_elements(host));
    }
    return SL_OK;
}

void cpu_weight_release(struct sl_device *device, struct sl_tensor *weight)
{
    struct cpu_device *cpu = (struct cpu_device *)device;
    if (!weight || !weight->data) {
        return;
    }
    cpu_turn_take(cpu);
    struct cpu_owned **at = &cpu->owned;
    while (*at && (*at)->data != weight->data) {
        at = &(*at)->next;
    }
    if (*at) {
        struct cpu_owned *owned = *at;
        *at = owned->next;
        free(owned->data);
        free(owned);
    }
    cpu_turn_give(cpu);
    weight->data = NULL;
}

// --- linear layers ---

static int part_create(const struct cpu_device *cpu, const struct sl_tensor *from, int across, enum sl_dtype compute,
                       struct cpu_linear_part *part)
{
    int64_t columns = from->shape[1];
    part->rows = from->shape[0];
    part->data = from->data;
    part->stride_bytes = columns * sl_dtype_bytes(compute);
    // A pair must not end in the next row, nor beyond the file.
    int padded = compute == SL_BF16 && columns % 2 && !across;
    if (from->dtype == compute && !padded) {
        return 1;
    }
    part->stride_bytes += padded ? 2 : 0;
    part->owned = converted(cpu, from, part->rows, columns, compute, part->stride_bytes);
    part->data = part->owned;
    return part->owned != NULL;
}

static int is_right(const struct sl_tensor *parts, int n, const struct sl_tensor *bias, enum sl_dtype compute)
{
    int64_t out = 0;
    for (int i = 0; i < n; i++) {
        if (parts[i].rank != 2 || parts[i].shape[1] != parts[0].shape[1] || !is_weight(&parts[i])) {
            return 0;
        }
        out += parts[i].shape[0];
    }
    return n > 0 && (compute == SL_F32 || compute == SL_BF16) &&
           (!bias || (is_weight(bias) && sl_tensor_elements(bias) == out));
}

static int fill(const struct cpu_device *cpu, struct sl_linear *linear, const struct sl_tensor *parts,
                const struct sl_tensor *bias)
{
    for (int i = 0; i < linear->n; i++) {
        if (!part_create(cpu, &parts[i], linear->across, linear->compute, &linear->part[i])) {
            return 0;
        }
        linear->out += parts[i].shape[linear->across];
    }
    if (bias) {
        linear->bias = malloc((size_t)linear->out * sizeof *linear->bias);
        if (!linear->bias) {
            return 0;
        }
        cpu->kernels->to_f32(bias->data, bias->dtype, linear->out, linear->bias);
    }
    return 1;
}

struct sl_linear *cpu_linear_make(const struct cpu_device *cpu, const struct sl_tensor *parts, int n, int across,
                                  const struct sl_tensor *bias, enum sl_dtype compute)
{
    struct sl_linear *linear = calloc(1, sizeof *linear + (size_t)n * sizeof *linear->part);
    if (!linear) {
        return NULL;
    }
    linear->compute = compute;
    linear->across = across;
    linear->in = parts[0].shape[!across];
    linear->n = n;
    if (!fill(cpu, linear, parts, bias)) {
        cpu_linear_destroy(linear);
        return NULL;
    }
    return linear;
}

int cpu_linear_create(struct sl_device *device, const struct sl_tensor *parts, int n, const struct sl_tensor *bias,
                      enum sl_dtype compute, struct sl_linear **out, struct sl_error *error)
{
    *out = NULL;
    if (!is_right(parts, n, bias, compute)) {
        return sl_fail(error, SL_ERR_INTERNAL, "linear_create: parts, bias and type do not fit together");
    }
    *out = cpu_linear_make((const struct cpu_device *)device, parts, n, 0, bias, compute);
    return *out ? SL_OK : sl_fail(error, SL_ERR_MEMORY, "out of memory: the weights of a linear layer");
}

void cpu_linear_destroy(struct sl_linear *linear)
{
    if (!linear) {
        return;
    }
    for (int i = 0; i < linear->n; i++) {
        free(linear->part[i].owned);
    }
    free(linear->bias);
    free(linear);
}

void cpu_linear_rows(const struct sl_linear *linear, int64_t first, int64_t count, const char **row)
{
    const struct cpu_linear_part *part = linear->part;
    while (count > 0) {
        for (; first < part->rows && count > 0; first++, count--) {
            *row++ = part->data + first * part->stride_bytes;
        }
        first -= part->rows;
        part++;
    }
}

// --- the product ---

// The rows of x in the compute type and padded to whole steps: themselves, or a copy.
static const char *prepared(struct sl_stream *stream, const struct sl_linear *linear, const struct sl_tensor *x,
                            int64_t *stride_bytes)
{
    int64_t rows = x->shape[0], in = linear->in;
    *stride_bytes = x->stride[0] * sl_dtype_bytes(x->dtype);
    if (x->dtype == linear->compute && (x->dtype == SL_F32 || in % 2 == 0)) {
        return x->data;
    }
    const struct cpu_kernels *kernels = stream->device->kernels;
    int64_t padded = in + in % 2, source_stride = *stride_bytes;
    char *copy = cpu_scratch(stream, CPU_SLOT_C, rows * padded * sl_dtype_bytes(linear->compute));
    float *row = cpu_scratch(stream, CPU_SLOT_D, padded * 4);
    *stride_bytes = padded * sl_dtype_bytes(linear->compute);
    if (!copy || !row) {
        return NULL;
    }
    row[padded - 1] = 0;
    for (int64_t i = 0; i < rows; i++) {
        kernels->to_f32((const char *)x->data + i * source_stride, x->dtype, in, row);
        kernels->from_f32(row, padded, linear->compute == SL_BF16, copy + i * *stride_bytes);
    }
    return copy;
}

static int fits(const struct sl_linear *linear, const struct sl_tensor *x, int gated, const struct sl_tensor *residual,
                const struct sl_tensor *y)
{
    return x->shape[1] == linear->in && y->shape[0] == x->shape[0] && (!gated || linear->out % 2 == 0) &&
           y->shape[1] == linear->out / (gated ? 2 : 1) && (x->dtype == SL_F32 || x->dtype == SL_BF16) &&
           (y->dtype == SL_F32 || y->dtype == SL_BF16) &&
           (!residual || (residual->shape[0] == y->shape[0] && residual->shape[1] == y->shape[1]));
}

void cpu_linear_multiply(struct sl_stream *stream, const struct sl_linear *linear, const struct sl_tensor *x,
                         enum sl_epilogue epilogue, const struct sl_tensor *residual, int own_kernels,
                         const struct sl_tensor *y)
{
    int gated = epilogue == SL_EPILOGUE_SILU_GATE, bf16 = linear->compute == SL_BF16;
    if (!fits(linear, x, gated, residual, y)) {
        cpu_fail(stream, SL_ERR_INTERNAL, "linear: shapes or types do not fit together");
        return;
    }
    struct cpu_product product = {
        .linear = linear,
        .kernels = stream->device->kernels,
        .bf16 = bf16,
        .gated = gated,
        .rows = y->shape[0],
        .columns = y->shape[1],
        .k = bf16 ? linear->in + linear->in % 2 : linear->in,
        .finish = {.epilogue = epilogue,
                   .bias = linear->bias,
                   .bias_up = linear->bias && gated ? linear->bias + linear->out / 2 : NULL,
                   .residual = residual ? residual->data : NULL,
                   .residual_stride = residual ? residual->stride[0] : 0,
                   .residual_bf16 = residual && residual->dtype == SL_BF16,
                   .y = y->data,
                   .y_stride = y->stride[0],
                   .y_bf16 = y->dtype == SL_BF16},
    };
    product.x = prepared(stream, linear, x, &product.x_stride_bytes);
    if (!product.x || product.rows == 0) {
        return;
    }
    if (product.rows <= CPU_FEW) {
        cpu_product_few(stream, &product);
    } else if (stream->device->onednn && !own_kernels) {
        cpu_product_onednn(stream, &product);
    } else {
        cpu_product_many(stream, &product);
    }
}

void cpu_linear(struct sl_stream *stream, const struct sl_linear *linear, const struct sl_tensor *x,
                enum sl_epilogue epilogue, const struct sl_tensor *residual, const struct sl_tensor *y)
{
    if (cpu_begin(stream)) {
        cpu_linear_multiply(stream, linear, x, epilogue, residual, 0, y);
        cpu_end(stream);
    }
}

void cpu_rmsnorm_linear(struct sl_stream *stream, const struct sl_tensor *x, const struct sl_tensor *norm, float eps,
                        const struct sl_tensor *normed, const struct sl_linear *linear, enum sl_epilogue epilogue,
                        const struct sl_tensor *y)
{
    cpu_rmsnorm(stream, x, norm, eps, normed);
    cpu_linear(stream, linear, normed, epilogue, NULL, y);
}
