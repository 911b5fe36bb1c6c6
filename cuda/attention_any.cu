// SPDX-License-Identifier: Apache-2.0
// Attention of any type and head size: a warp for each row and head, one key after another.
#include "cuda/attention.h"
#include "cuda/launch.cuh"

enum { WARPS = 4, MOST = 8 }; // elements of a head in one lane: heads of up to 256

static __device__ int64_t place_of(const attention_job &job, int b, int head, int token)
{
    if (!job.is_paged) {
        return (job.row_start[b] + token) * job.kv_stride + (int64_t)head * job.d;
    }
    int64_t page = job.page_table[b * job.page_stride + token / job.page_tokens];
    return ((page * job.kv_heads + head) * job.page_tokens + token % job.page_tokens) * job.d;
}

template <typename T> static __global__ void attention_any(const attention_job job)
{
    int b = blockIdx.z, head = blockIdx.y, lane = threadIdx.x % 32, row = (int)(blockIdx.x * WARPS + threadIdx.x / 32);
    int first = job.row_start[b], rows = job.row_start[b + 1] - first;
    if (row >= rows || rows < job.least_rows) {
        return;
    }
    int visible = job.is_paged ? job.kv_length[b] - rows + row + 1 : rows;
    int kv_head = head / (job.heads / job.kv_heads);
    const T *q = (const T *)job.q + (int64_t)(first + row) * job.q_stride + (int64_t)head * job.d;
    float query[MOST] = {}, sum[MOST] = {}, most = -INFINITY, total = 0;
    for (int i = 0; i < MOST; i++) {
        int at = lane + 32 * i;
        query[i] = at < job.d ? to_float(q[at]) * job.scale : 0;
    }
    for (int token = 0; token < visible; token++) {
        int64_t place = place_of(job, b, kv_head, token);
        const T *k = (const T *)job.k + place, *v = (const T *)job.v + place;
        float score = 0;
        for (int i = 0; i < MOST; i++) {
            int at = lane + 32 * i;
            score += at < job.d ? query[i] * to_float(k[at]) : 0;
        }
        score = sum_of_warp(score);
        float larger = fmaxf(most, score), old = expf(most - larger), now = expf(score - larger);
        total = total * old + now;
        for (int i = 0; i < MOST; i++) {
            int at = lane + 32 * i;
            sum[i] = sum[i] * old + (at < job.d ? now * to_float(v[at]) : 0);
        }
        most = larger;
    }
    T *y = (T *)job.y + (int64_t)(first + row) * job.y_stride + (int64_t)head * job.d;
    for (int i = 0; i < MOST; i++) {
        int at = lane + 32 * i;
        if (at < job.d) {
            y[at] = T(sum[i] / total);
        }
    }
}

void cuda_attention_any(struct sl_stream *stream, const struct attention_job *job)
{
    if (job->d > 32 * MOST) {
        cuda_fail(stream, SL_ERR_MODEL_CONFIG, "heads of %d: the GPU's kernels take at most %d", job->d, 32 * MOST);
        return;
    }
    dim3 grid((unsigned)((job->max_rows + WARPS - 1) / WARPS), (unsigned)job->heads, (unsigned)job->sequences);
    if (job->is_f32) {
        attention_any<float><<<grid, 32 * WARPS, 0, stream->native>>>(*job);
    } else {
        attention_any<bf16><<<grid, 32 * WARPS, 0, stream->native>>>(*job);
    }
}
