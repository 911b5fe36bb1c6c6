// SPDX-License-Identifier: Apache-2.0
// The two attention operations: which kernels do the work.
#include <math.h>

#include "cuda/attention.h"
#include "cuda/ops.h"

void cuda_attention_groups(struct sl_stream *stream, const struct sl_tensor *qkv, int heads,
                           const struct sl_tensor *group_start, int groups, int max_group_rows,
                           const struct sl_tensor *y)
{
    if (groups == 0 || !cuda_begin(stream)) {
        return;
    }
    attention_job job = {};
    int64_t hidden = qkv->shape[1] / 3, size = sl_dtype_bytes(qkv->dtype);
    job.q = qkv->data;
    job.k = (const char *)qkv->data + hidden * size;
    job.v = (const char *)qkv->data + 2 * hidden * size;
    job.y = y->data;
    job.q_stride = job.kv_stride = qkv->stride[0];
    job.y_stride = y->stride[0];
    job.row_start = (const int32_t *)group_start->data;
    job.sequences = groups;
    job.max_rows = max_group_rows;
    job.heads = job.kv_heads = heads;
    job.d = (int)(hidden / heads);
    job.is_f32 = qkv->dtype == SL_F32;
    job.scale = 1.0f / sqrtf((float)job.d);
    if (!cuda_attention_many(stream, &job)) {
        cuda_attention_any(stream, &job);
    }
    cuda_launched(stream, "attention in groups");
}

struct attention_job cuda_attention_job(const struct sl_ragged *ragged, const struct sl_tensor *qkv, int heads,
                                        const struct sl_kv_layer *kv, const struct sl_tensor *y)
{
    attention_job job = {};
    job.q = qkv->data;
    job.k = kv->k.data;
    job.v = kv->v.data;
    job.y = y->data;
    job.q_stride = qkv->stride[0];
    job.y_stride = y->stride[0];
    job.row_start = (const int32_t *)ragged->row_start.data;
    job.kv_length = (const int32_t *)ragged->kv_length.data;
    job.page_table = (const int32_t *)ragged->page_table.data;
    job.pages = kv->k.shape[0];
    job.page_stride = ragged->page_table.stride[0];
    job.sequences = ragged->sequences;
    job.rows = ragged->rows;
    job.max_rows = ragged->max_rows;
    job.heads = heads;
    job.kv_heads = (int)kv->k.shape[1];
    job.page_tokens = (int)kv->k.shape[2];
    job.d = (int)kv->k.shape[3];
    job.is_paged = 1;
    job.is_f32 = qkv->dtype == SL_F32;
    job.scale = 1.0f / sqrtf((float)job.d);
    return job;
}

void cuda_attention_paged(struct sl_stream *stream, const struct sl_ragged *ragged, const struct sl_tensor *qkv,
                          int heads, const struct sl_kv_layer *kv, const struct sl_tensor *y)
{
    if (ragged->rows == 0 || !cuda_begin(stream)) {
        return;
    }
    attention_job job = cuda_attention_job(ragged, qkv, heads, kv, y);
    int single = ragged->rows > ragged->sequences ? 0 : 1; // every sequence has one row
    if (cuda_attention_few(stream, &job)) {
        job.least_rows = 2;
    }
    if (!(job.least_rows == 2 && single) && !cuda_attention_long(stream, &job) && !cuda_attention_many(stream, &job)) {
        cuda_attention_any(stream, &job);
    }
    cuda_launched(stream, "attention");
}
