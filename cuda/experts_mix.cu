// SPDX-License-Identifier: Apache-2.0
// y += the weighted sum of a row's experts, in the order they were chosen, so that it is the same every time.
#include "cuda/experts.h"
#include "cuda/launch.cuh"

struct mix_job {
    const void *out; // [rows * top_k, columns]
    const float *weight;
    void *y;
    int64_t weight_stride, y_stride;
    int columns, top_k;
};

template <typename Out, typename Y> static __global__ void mix_any(const mix_job m)
{
    let_next_begin();
    wait_for_previous();
    int64_t row = blockIdx.x;
    int column = (int)(blockIdx.y * blockDim.x + threadIdx.x);
    if (column >= m.columns) {
        return;
    }
    float sum = 0;
    for (int k = 0; k < m.top_k; k++) {
        float value = to_float(((const Out *)m.out)[(row * m.top_k + k) * m.columns + column]);
        sum += m.weight[row * m.weight_stride + k] * value;
    }
    Y *y = (Y *)m.y + row * m.y_stride + column;
    *y = Y(to_float(*y) + sum);
}

// The common case by eight.
static __global__ void mix_words(const mix_job m)
{
    let_next_begin();
    wait_for_previous();
    int64_t row = blockIdx.x;
    int words = m.columns / 8, word = (int)(blockIdx.y * blockDim.x + threadIdx.x);
    if (word >= words) {
        return;
    }
    uint4 *y = (uint4 *)((bf16 *)m.y + row * m.y_stride) + word;
    const uint4 *out = (const uint4 *)m.out + row * m.top_k * words + word;
    float sum[8] = {};
    eight old;
    old.word = *y;
#pragma unroll 8
    for (int k = 0; k < m.top_k; k++) {
        float weight = m.weight[row * m.weight_stride + k];
        eight v;
        v.word = out[(int64_t)k * words];
        for (int i = 0; i < 8; i++) {
            sum[i] += weight * __bfloat162float(v.value[i]);
        }
    }
    for (int i = 0; i < 8; i++) {
        old.value[i] = __float2bfloat16(__bfloat162float(old.value[i]) + sum[i]);
    }
    *y = old.word;
}

void cuda_experts_mix(struct sl_stream *stream, const struct experts_job *job)
{
    const struct sl_tensor *y = job->y;
    mix_job m = {};
    m.out = job->out;
    m.weight = (const float *)job->weight->data;
    m.weight_stride = job->weight->stride[0];
    m.y = y->data;
    m.y_stride = y->stride[0];
    m.columns = job->experts->hidden;
    m.top_k = job->top_k;
    int is_f32 = job->experts->compute == SL_F32;
    int words = !is_f32 && y->dtype == SL_BF16 && m.columns % 8 == 0 && in_words(m.y, m.y_stride);
    int threads = words ? 64 : 256, each = words ? 8 : 1;
    dim3 grid((unsigned)job->rows, (unsigned)((m.columns / each + threads - 1) / threads));
    void (*kernel)(const mix_job) = mix_words;
    if (!words && y->dtype == SL_F32) {
        kernel = is_f32 ? mix_any<float, float> : mix_any<bf16, float>;
    } else if (!words) {
        kernel = is_f32 ? mix_any<float, bf16> : mix_any<bf16, bf16>;
    }
    launch_overlapping(stream, kernel, grid, threads, 0, m);
}
