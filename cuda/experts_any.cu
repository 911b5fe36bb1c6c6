// SPDX-License-Identifier: Apache-2.0
// The products of experts in f32, and of sizes that are no whole words: a warp for each output, right and slow.
#include "cuda/act.cuh"
#include "cuda/experts.h"
#include "cuda/launch.cuh"

enum { WARPS = 8 };

struct any_job {
    const void *weight, *x;
    void *y; // [pairs, out]
    const int32_t *expert;
    int64_t x_stride, expert_stride;
    int experts, in, out, top_k, is_gated; // gated: of x's rows, with 2 out rows of weights; else of pairs
};

template <typename T> static __device__ float dot(const T *w, const T *x, int n)
{
    float sum = 0;
    for (int i = threadIdx.x % 32; i < n; i += 32) {
        sum += to_float(w[i]) * to_float(x[i]);
    }
    return sum_of_warp(sum);
}

template <typename T> static __global__ void __launch_bounds__(32 * WARPS) multiply_any(const any_job a)
{
    let_next_begin();
    wait_for_previous();
    int64_t pair = blockIdx.x, row = pair / a.top_k;
    int output = (int)(blockIdx.y * WARPS + threadIdx.x / 32);
    int e = a.expert[row * a.expert_stride + pair % a.top_k];
    if (output >= a.out || (unsigned)e >= (unsigned)a.experts) {
        return;
    }
    const T *weight = (const T *)a.weight + (int64_t)e * (a.is_gated ? 2 : 1) * a.out * a.in;
    const T *x = (const T *)a.x + (a.is_gated ? row : pair) * a.x_stride;
    float value = dot(weight + (int64_t)output * a.in, x, a.in);
    if (a.is_gated) {
        value = silu(value) * dot(weight + (int64_t)(output + a.out) * a.in, x, a.in);
    }
    if (threadIdx.x % 32 == 0) {
        ((T *)a.y)[pair * a.out + output] = T(value);
    }
}

static void launch(struct sl_stream *stream, const any_job &a, int pairs, enum sl_dtype type)
{
    dim3 grid((unsigned)pairs, (unsigned)((a.out + WARPS - 1) / WARPS));
    launch_overlapping(stream, type == SL_F32 ? multiply_any<float> : multiply_any<bf16>, grid, 32 * WARPS, 0, a);
}

void cuda_experts_any(struct sl_stream *stream, const struct experts_job *job)
{
    const struct sl_experts *experts = job->experts;
    any_job a = {};
    a.expert = (const int32_t *)job->expert->data;
    a.expert_stride = job->expert->stride[0];
    a.experts = experts->count;
    a.top_k = job->top_k;
    a.weight = experts->gate_up;
    a.x = job->x->data;
    a.x_stride = job->x->stride[0];
    a.y = job->inner;
    a.in = experts->hidden;
    a.out = experts->intermediate;
    a.is_gated = 1;
    launch(stream, a, job->order.pairs, experts->compute);
    a.weight = experts->down;
    a.x = job->inner;
    a.x_stride = experts->intermediate;
    a.y = job->out;
    a.in = experts->intermediate;
    a.out = experts->hidden;
    a.is_gated = 0;
    launch(stream, a, job->order.pairs, experts->compute);
}
