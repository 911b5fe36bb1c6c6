// SPDX-License-Identifier: Apache-2.0
// A device for tests: the decoder's operations in the plainest f32 loops, one thread, no library, no OpenMP (whose
// barriers ThreadSanitizer does not see). A second opinion on cpu/, and slow.
//
// Only f32. Pictures and the vision tower are not there: their entries are NULL. `linears_until_failure` makes the
// n-th linear product fail, `allocations` counts what is alive. Include in one file of a program.
#ifndef SL_TESTS_SUPPORT_STUB_DEVICE_H
#define SL_TESTS_SUPPORT_STUB_DEVICE_H

#include <math.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "core/device.h"
#include "core/half.h"

struct stub_device {
    struct sl_device base;
    atomic_int allocations;            // alive
    atomic_long linears_until_failure; // 0: never
};

struct sl_stream {
    struct stub_device *device;
    struct sl_error error;
};

struct sl_linear {
    int64_t rows, columns;
    float *weight;
};

static struct stub_device *stub_of(struct sl_device *device)
{
    return (struct stub_device *)device;
}

static float *stub_row(const struct sl_tensor *t, int64_t row)
{
    return (float *)t->data + row * t->stride[0];
}

static const int32_t *stub_ints(const struct sl_tensor *t)
{
    return t->data;
}

// ---- Life, memory, streams

static void stub_destroy(struct sl_device *device)
{
    free(device);
}

static void stub_info(struct sl_device *device, struct sl_device_info *out)
{
    (void)device;
    *out = (struct sl_device_info){.name = "stub", .compute = SL_F32, .memory_bytes = 1 << 30, .threads = 1};
}

static int stub_alloc(struct sl_device *device, int64_t size_bytes, void **out, struct sl_error *error)
{
    size_t size = ((size_t)size_bytes + 63) / 64 * 64;
    *out = aligned_alloc(64, size ? size : 64);
    if (!*out) {
        return sl_fail(error, SL_ERR_MEMORY, "out of memory: %lld bytes", (long long)size_bytes);
    }
    memset(*out, 0xff, size); // NaN: what is read before it is written shows
    atomic_fetch_add(&stub_of(device)->allocations, 1);
    return SL_OK;
}

static void stub_release(struct sl_device *device, void *data)
{
    if (data) {
        atomic_fetch_sub(&stub_of(device)->allocations, 1);
    }
    free(data);
}

static int stub_stream_create(struct sl_device *device, struct sl_stream **out, struct sl_error *error)
{
    *out = calloc(1, sizeof **out);
    if (!*out) {
        return sl_fail(error, SL_ERR_MEMORY, "out of memory: stream");
    }
    (*out)->device = stub_of(device);
    return SL_OK;
}

static void stub_stream_destroy(struct sl_stream *stream)
{
    free(stream);
}

static int stub_wait(struct sl_stream *stream, struct sl_error *error)
{
    return stream->error.status ? sl_fail(error, stream->error.status, "%s", stream->error.text) : SL_OK;
}

static void stub_upload(struct sl_stream *stream, void *to, const void *host, int64_t size_bytes)
{
    (void)stream;
    memcpy(to, host, (size_t)size_bytes);
}

static void stub_download(struct sl_stream *stream, void *host, const void *from, int64_t size_bytes)
{
    (void)stream;
    memcpy(host, from, (size_t)size_bytes);
}

static void stub_zero(struct sl_stream *stream, void *to, int64_t size_bytes)
{
    (void)stream;
    memset(to, 0, (size_t)size_bytes);
}

// ---- Weights

static void stub_convert(const struct sl_tensor *host, float *to)
{
    for (int64_t i = 0; i < sl_tensor_elements(host); i++) {
        to[i] = host->dtype == SL_F32    ? ((const float *)host->data)[i]
                : host->dtype == SL_BF16 ? sl_bf16_to_f32(((const uint16_t *)host->data)[i])
                                         : sl_f16_to_f32(((const uint16_t *)host->data)[i]);
    }
}

static int stub_linear_create(struct sl_device *device, const struct sl_tensor *parts, int n,
                              const struct sl_tensor *bias, enum sl_dtype compute, struct sl_linear **out,
                              struct sl_error *error)
{
    if (compute != SL_F32 || bias) {
        return sl_fail(error, SL_ERR_INTERNAL, "the stub device has only f32 and no bias");
    }
    struct sl_linear *l = calloc(1, sizeof *l);
    l->columns = parts[0].shape[1];
    for (int i = 0; i < n; i++) {
        l->rows += parts[i].shape[0];
    }
    l->weight = malloc((size_t)(l->rows * l->columns) * sizeof(float));
    float *at = l->weight;
    for (int i = 0; i < n; at += sl_tensor_elements(&parts[i++])) {
        stub_convert(&parts[i], at);
    }
    (void)device;
    *out = l;
    return SL_OK;
}

static void stub_linear_destroy(struct sl_linear *linear)
{
    if (linear) {
        free(linear->weight);
    }
    free(linear);
}

static int stub_weight_create(struct sl_device *device, const struct sl_tensor *host, enum sl_dtype dtype,
                              struct sl_tensor *out, struct sl_error *error)
{
    if (dtype != SL_F32) {
        return sl_fail(error, SL_ERR_INTERNAL, "the stub device has only f32");
    }
    *out = host->rank == 1 ? sl_tensor_1d(NULL, SL_F32, host->shape[0])
                           : sl_tensor_2d(NULL, SL_F32, host->shape[0], host->shape[1]);
    int rc = stub_alloc(device, sl_tensor_bytes(out), &out->data, error);
    if (!rc) {
        stub_convert(host, out->data);
    }
    return rc;
}

static void stub_weight_release(struct sl_device *device, struct sl_tensor *weight)
{
    stub_release(device, weight->data);
    weight->data = NULL;
}

// ---- Operations

static float stub_dot(const float *a, const float *b, int64_t n)
{
    float sum = 0;
    for (int64_t i = 0; i < n; i++) {
        sum += a[i] * b[i];
    }
    return sum;
}

static void stub_linear(struct sl_stream *stream, const struct sl_linear *linear, const struct sl_tensor *x,
                        enum sl_epilogue epilogue, const struct sl_tensor *residual, const struct sl_tensor *y)
{
    atomic_long *until = &stream->device->linears_until_failure;
    if (atomic_load(until) && atomic_fetch_sub(until, 1) == 1) {
        sl_fail(&stream->error, SL_ERR_DEVICE, "stub device: failed as told");
    }
    int64_t outputs = epilogue == SL_EPILOGUE_SILU_GATE ? linear->rows / 2 : linear->rows;
    for (int64_t r = 0; r < x->shape[0]; r++) {
        for (int64_t i = 0; i < outputs; i++) {
            float value = stub_dot(linear->weight + i * linear->columns, stub_row(x, r), linear->columns);
            if (epilogue == SL_EPILOGUE_SILU_GATE) {
                value = value / (1 + expf(-value)) *
                        stub_dot(linear->weight + (outputs + i) * linear->columns, stub_row(x, r), linear->columns);
            }
            stub_row(y, r)[i] = value + (residual ? stub_row(residual, r)[i] : 0);
        }
    }
}

static void stub_normalise(const float *x, int64_t n, const float *weight, float eps, float *y)
{
    float scale = 1 / sqrtf(stub_dot(x, x, n) / (float)n + eps);
    for (int64_t i = 0; i < n; i++) {
        y[i] = x[i] * scale * weight[i];
    }
}

static void stub_rmsnorm(struct sl_stream *stream, const struct sl_tensor *x, const struct sl_tensor *weight, float eps,
                         const struct sl_tensor *y)
{
    (void)stream;
    for (int64_t r = 0; r < x->shape[0]; r++) {
        stub_normalise(stub_row(x, r), x->shape[1], weight->data, eps, stub_row(y, r));
    }
}

static void stub_rmsnorm_linear(struct sl_stream *stream, const struct sl_tensor *x, const struct sl_tensor *norm,
                                float eps, const struct sl_tensor *normed, const struct sl_linear *linear,
                                enum sl_epilogue epilogue, const struct sl_tensor *y)
{
    stub_rmsnorm(stream, x, norm, eps, normed);
    stub_linear(stream, linear, normed, epilogue, NULL, y);
}

static void stub_gather_rows(struct sl_stream *stream, const struct sl_tensor *table, const struct sl_tensor *index,
                             const struct sl_tensor *y)
{
    (void)stream;
    for (int64_t r = 0; r < y->shape[0]; r++) {
        memcpy(stub_row(y, r), stub_row(table, stub_ints(index)[r]), (size_t)y->shape[1] * sizeof(float));
    }
}

static void stub_scatter_rows(struct sl_stream *stream, const struct sl_tensor *x, const struct sl_tensor *index,
                              int add, const struct sl_tensor *y)
{
    (void)stream;
    for (int64_t r = 0; r < x->shape[0]; r++) {
        float *to = stub_row(y, stub_ints(index)[r]);
        for (int64_t i = 0; i < x->shape[1]; i++) {
            to[i] = stub_row(x, r)[i] + (add ? to[i] : 0);
        }
    }
}

static float *stub_slot(const struct sl_tensor *pages, const int32_t *page, int64_t head, int64_t token)
{
    int64_t slots = pages->shape[2];
    return (float *)pages->data + page[token / slots] * pages->stride[0] + head * pages->stride[1] +
           token % slots * pages->stride[2];
}

static void stub_rotate(float *x, int64_t d, const struct sl_rope *rope, const struct sl_tensor *position, int64_t row)
{
    for (int64_t j = 0; j < d / 2; j++) {
        int32_t p = stub_ints(position)[stub_ints(&rope->axis)[j] * position->stride[0] + row];
        float angle = (float)p * ((const float *)rope->inv_freq.data)[j];
        float c = cosf(angle) * rope->scale, s = sinf(angle) * rope->scale, a = x[j], b = x[j + d / 2];
        x[j] = a * c - b * s;
        x[j + d / 2] = b * c + a * s;
    }
}

static void stub_qk_norm_rope_store(struct sl_stream *stream, const struct sl_ragged *ragged,
                                    const struct sl_tensor *qkv, int heads, const struct sl_tensor *q_norm,
                                    const struct sl_tensor *k_norm, float eps, const struct sl_rope *rope,
                                    const struct sl_kv_layer *kv)
{
    (void)stream;
    int64_t kv_heads = kv->k.shape[1], d = kv->k.shape[3];
    const int32_t *start = stub_ints(&ragged->row_start);
    for (int b = 0; b < ragged->sequences; b++) {
        const int32_t *page = stub_ints(&ragged->page_table) + b * ragged->page_table.stride[0];
        int32_t first = stub_ints(&ragged->kv_length)[b] - (start[b + 1] - start[b]);
        for (int32_t r = start[b]; r < start[b + 1]; r++) {
            int32_t token = first + r - start[b];
            for (int64_t h = 0; h < heads + kv_heads; h++) {
                float *x = stub_row(qkv, r) + h * d;
                stub_normalise(x, d, h < heads ? q_norm->data : k_norm->data, eps, x);
                stub_rotate(x, d, rope, &ragged->position, r);
            }
            for (int64_t h = 0; h < kv_heads; h++) {
                const float *k = stub_row(qkv, r) + (heads + h) * d;
                memcpy(stub_slot(&kv->k, page, h, token), k, (size_t)d * sizeof(float));
                memcpy(stub_slot(&kv->v, page, h, token), k + kv_heads * d, (size_t)d * sizeof(float));
            }
        }
    }
}

// Softmax on the fly: a running maximum and sum.
static void stub_attend(const float *q, const struct sl_kv_layer *kv, const int32_t *page, int64_t head, int64_t tokens,
                        float *y)
{
    int64_t d = kv->k.shape[3];
    float most = -INFINITY, sum = 0, scale = 1 / sqrtf((float)d);
    memset(y, 0, (size_t)d * sizeof *y);
    for (int64_t t = 0; t < tokens; t++) {
        float score = stub_dot(q, stub_slot(&kv->k, page, head, t), d) * scale;
        float shrink = score > most ? expf(most - score) : 1;
        most = score > most ? score : most;
        float weight = expf(score - most);
        const float *v = stub_slot(&kv->v, page, head, t);
        for (int64_t i = 0; i < d; i++) {
            y[i] = y[i] * shrink + weight * v[i];
        }
        sum = sum * shrink + weight;
    }
    for (int64_t i = 0; i < d; i++) {
        y[i] /= sum;
    }
}

static void stub_attention_paged(struct sl_stream *stream, const struct sl_ragged *ragged, const struct sl_tensor *qkv,
                                 int heads, const struct sl_kv_layer *kv, const struct sl_tensor *y)
{
    (void)stream;
    int64_t group = heads / kv->k.shape[1], d = kv->k.shape[3];
    const int32_t *start = stub_ints(&ragged->row_start);
    for (int b = 0; b < ragged->sequences; b++) {
        const int32_t *page = stub_ints(&ragged->page_table) + b * ragged->page_table.stride[0];
        int32_t first = stub_ints(&ragged->kv_length)[b] - (start[b + 1] - start[b]);
        for (int32_t r = start[b]; r < start[b + 1]; r++) {
            for (int64_t h = 0; h < heads; h++) {
                stub_attend(stub_row(qkv, r) + h * d, kv, page, h / group, first + r - start[b] + 1,
                            stub_row(y, r) + h * d);
            }
        }
    }
}

static int stub_bit(const struct sl_tensor *bits, int64_t row, int64_t i)
{
    return (((const uint32_t *)bits->data)[row * bits->stride[0] + i / 32] >> (i % 32)) & 1;
}

// Greedy, or by the plain distribution at the temperature: no top_k and top_p here.
static void stub_sample(struct sl_stream *stream, const struct sl_tensor *logits, const struct sl_sample_row *rows,
                        const struct sl_tensor *allowed, const struct sl_tensor *seen, const struct sl_tensor *token,
                        const struct sl_tensor *logprob)
{
    (void)stream;
    int64_t vocab = logits->shape[1];
    float *score = malloc((size_t)vocab * sizeof *score);
    for (int64_t r = 0; r < logits->shape[0]; r++) {
        const float *x = stub_row(logits, r);
        int64_t best = -1;
        double all = 0, sum = 0, so_far = 0;
        for (int64_t i = 0; i < vocab; i++) {
            all += exp(x[i]);
            score[i] = x[i] - (seen && stub_bit(seen, r, i) ? rows[r].presence : 0);
            score[i] = allowed && !stub_bit(allowed, r, i) ? -INFINITY : score[i];
            best = best < 0 || score[i] > score[best] ? i : best;
            sum += rows[r].temperature > 0 ? exp(score[i] / rows[r].temperature) : 0;
        }
        for (int64_t i = 0; rows[r].temperature > 0 && i < vocab; i++) {
            so_far += exp(score[i] / rows[r].temperature);
            if (so_far > rows[r].uniform * sum) {
                best = i;
                break;
            }
        }
        ((int32_t *)token->data)[r] = (int32_t)best;
        ((float *)logprob->data)[r] = x[best] - (float)log(all);
    }
    free(score);
}

static const struct sl_device_ops stub_ops = {
    .destroy = stub_destroy,
    .info = stub_info,
    .alloc = stub_alloc,
    .release = stub_release,
    .stream_create = stub_stream_create,
    .stream_destroy = stub_stream_destroy,
    .wait = stub_wait,
    .upload = stub_upload,
    .download = stub_download,
    .copy = stub_upload,
    .zero = stub_zero,
    .linear_create = stub_linear_create,
    .linear_destroy = stub_linear_destroy,
    .weight_create = stub_weight_create,
    .weight_release = stub_weight_release,
    .linear = stub_linear,
    .rmsnorm_linear = stub_rmsnorm_linear,
    .rmsnorm = stub_rmsnorm,
    .gather_rows = stub_gather_rows,
    .scatter_rows = stub_scatter_rows,
    .qk_norm_rope_store = stub_qk_norm_rope_store,
    .attention_paged = stub_attention_paged,
    .sample = stub_sample,
};

static struct sl_device *stub_create(void)
{
    struct stub_device *device = calloc(1, sizeof *device);
    device->base.ops = &stub_ops;
    return &device->base;
}

#endif
