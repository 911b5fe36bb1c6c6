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

struct sl_experts {
    int64_t hidden, inner;
    float *gate, *up; // [experts, inner, hidden]
    float *down;      // [experts, hidden, inner]
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

static void *stub_native_context(struct sl_device *device)
{
    (void)device;
    return NULL;
}

static int stub_graph_begin(struct sl_stream *stream)
{
    (void)stream;
    return 0; // none are captured
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

static float stub_value(const struct sl_tensor *t, int64_t i)
{
    return t->dtype == SL_F32      ? ((const float *)t->data)[i]
           : t->dtype == SL_BF16   ? sl_bf16_to_f32(((const uint16_t *)t->data)[i])
           : t->dtype == SL_F8E4M3 ? sl_f8e4m3_to_f32(((const uint8_t *)t->data)[i])
                                   : sl_f16_to_f32(((const uint16_t *)t->data)[i]);
}

// The i-th value times the scale of its block.
static float stub_scaled(const struct sl_tensor *t, int64_t i)
{
    if (!t->scale) {
        return stub_value(t, i);
    }
    int64_t rows = t->shape[t->rank - 2], columns = t->shape[t->rank - 1];
    int64_t down = (rows + 127) / 128, across = (columns + 127) / 128;
    int64_t block = (i / (rows * columns) * down + i / columns % rows / 128) * across + i % columns / 128;
    return stub_value(t, i) * stub_value(t->scale, block);
}

static void stub_convert(const struct sl_tensor *host, float *to)
{
    for (int64_t i = 0; i < sl_tensor_elements(host); i++) {
        to[i] = stub_scaled(host, i);
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

// to[e][o][i] = W_e's value for output first + o and input i, from one tensor for all experts.
static float *stub_turned(const struct sl_tensor *t, int input_major, int64_t first, int64_t outputs, int64_t inputs)
{
    float *to = malloc((size_t)(t->shape[0] * outputs * inputs) * sizeof *to), *at = to;
    for (int64_t e = 0; e < t->shape[0]; e++) {
        for (int64_t o = first; o < first + outputs; o++) {
            for (int64_t i = 0; i < inputs; i++) {
                int64_t row = input_major ? i : o, column = input_major ? o : i;
                *at++ = stub_scaled(t, (e * t->shape[1] + row) * t->shape[2] + column);
            }
        }
    }
    return to;
}

// The same from every step-th of the tensors, one for each expert.
static float *stub_joined(const struct sl_tensor *t, int64_t count, int64_t step)
{
    int64_t each = sl_tensor_elements(t);
    float *to = malloc((size_t)(count * each) * sizeof *to);
    for (int64_t e = 0; e < count; e++) {
        stub_convert(&t[e * step], to + e * each);
    }
    return to;
}

static int stub_experts_create(struct sl_device *device, const struct sl_experts_source *source, enum sl_dtype compute,
                               struct sl_experts **out, struct sl_error *error)
{
    (void)device;
    if (compute != SL_F32) {
        return sl_fail(error, SL_ERR_INTERNAL, "the stub device has only f32");
    }
    int64_t hidden = source->hidden, inner = source->intermediate, n = source->experts;
    int input_major = source->layout == SL_EXPERTS_INPUT_MAJOR;
    struct sl_experts *e = calloc(1, sizeof *e);
    *e = (struct sl_experts){.hidden = hidden, .inner = inner};
    if (source->layout == SL_EXPERTS_SEPARATE) {
        e->gate = stub_joined(source->gate_up, n, 2);
        e->up = stub_joined(source->gate_up + 1, n, 2);
        e->down = stub_joined(source->down, n, 1);
    } else {
        e->gate = stub_turned(source->gate_up, input_major, 0, inner, hidden);
        e->up = stub_turned(source->gate_up, input_major, inner, inner, hidden);
        e->down = stub_turned(source->down, input_major, 0, hidden, inner);
    }
    *out = e;
    return SL_OK;
}

static void stub_experts_destroy(struct sl_experts *experts)
{
    if (experts) {
        free(experts->gate);
        free(experts->up);
        free(experts->down);
    }
    free(experts);
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

static void stub_route(struct sl_stream *stream, const struct sl_tensor *logits, int normalise,
                       const struct sl_tensor *expert, const struct sl_tensor *weight)
{
    (void)stream;
    int64_t n = logits->shape[1], top_k = expert->shape[1];
    for (int64_t r = 0; r < logits->shape[0]; r++) {
        const float *x = stub_row(logits, r);
        int32_t *chosen = (int32_t *)expert->data + r * expert->stride[0];
        double all = 0, sum = 0;
        for (int64_t i = 0; i < n; i++) {
            int64_t before = 0; // how many come first
            for (int64_t j = 0; j < n; j++) {
                before += x[j] > x[i] || (x[j] == x[i] && j < i);
            }
            if (before < top_k) {
                chosen[before] = (int32_t)i;
                sum += exp(x[i]);
            }
            all += exp(x[i]);
        }
        for (int64_t k = 0; k < top_k; k++) {
            stub_row(weight, r)[k] = (float)(exp(x[chosen[k]]) / (normalise ? sum : all));
        }
    }
}

static void stub_experts(struct sl_stream *stream, const struct sl_experts *experts, const struct sl_tensor *x,
                         const struct sl_tensor *expert, const struct sl_tensor *weight, const struct sl_tensor *y)
{
    (void)stream;
    int64_t hidden = experts->hidden, inner = experts->inner, top_k = expert->shape[1];
    float *middle = malloc((size_t)inner * sizeof *middle);
    for (int64_t pair = 0; pair < x->shape[0] * top_k; pair++) {
        int64_t r = pair / top_k, k = pair % top_k, e = (stub_ints(expert) + r * expert->stride[0])[k];
        for (int64_t i = 0; i < inner; i++) {
            float gate = stub_dot(experts->gate + (e * inner + i) * hidden, stub_row(x, r), hidden);
            float up = stub_dot(experts->up + (e * inner + i) * hidden, stub_row(x, r), hidden);
            middle[i] = gate / (1 + expf(-gate)) * up;
        }
        for (int64_t i = 0; i < hidden; i++) {
            stub_row(y, r)[i] +=
                stub_row(weight, r)[k] * stub_dot(experts->down + (e * hidden + i) * inner, middle, inner);
        }
    }
    free(middle);
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

static void stub_rmsnorm_experts(struct sl_stream *stream, const struct sl_tensor *norm, float eps,
                                 const struct sl_linear *router, int normalise, const struct sl_experts *experts,
                                 const struct sl_experts_room *room, const struct sl_tensor *y)
{
    stub_rmsnorm(stream, y, norm, eps, &room->normed);
    stub_linear(stream, router, &room->normed, SL_EPILOGUE_NONE, NULL, &room->logits);
    stub_route(stream, &room->logits, normalise, &room->expert, &room->weight);
    stub_experts(stream, experts, &room->normed, &room->expert, &room->weight, y);
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
    .native_context = stub_native_context,
    .alloc = stub_alloc,
    .release = stub_release,
    .stream_create = stub_stream_create,
    .stream_create_urgent = stub_stream_create,
    .stream_destroy = stub_stream_destroy,
    .wait = stub_wait,
    .graph_begin = stub_graph_begin,
    .upload = stub_upload,
    .download = stub_download,
    .copy = stub_upload,
    .zero = stub_zero,
    .linear_create = stub_linear_create,
    .linear_destroy = stub_linear_destroy,
    .experts_create = stub_experts_create,
    .experts_destroy = stub_experts_destroy,
    .weight_create = stub_weight_create,
    .weight_release = stub_weight_release,
    .linear = stub_linear,
    .rmsnorm_linear = stub_rmsnorm_linear,
    .route = stub_route,
    .experts = stub_experts,
    .rmsnorm_experts = stub_rmsnorm_experts,
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
