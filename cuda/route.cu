// SPDX-License-Identifier: Apache-2.0
// Which experts a row is sent to: a warp for each row, all logits in its registers.
#include "cuda/launch.cuh"
#include "cuda/ops.h"

enum { WARPS = 4 };

struct routing {
    const float *logits;
    int32_t *expert;
    float *weight;
    int64_t logits_stride, expert_stride, weight_stride;
    int rows, experts, top_k, normalise;
};

// Orders (value, index): the larger value, of equals the lower index. 0 is below all of them.
static __device__ __forceinline__ uint64_t key_of(float value, int index)
{
    uint32_t bits = __float_as_uint(value + 0.0f); // -0 and 0 are equal
    bits = bits >> 31 ? ~bits : bits | 0x80000000u;
    return (uint64_t)bits << 32 | (0xffffffffu - (uint32_t)index);
}

static __device__ __forceinline__ float value_of(uint64_t key)
{
    uint32_t bits = (uint32_t)(key >> 32);
    return __uint_as_float(bits >> 31 ? bits & 0x7fffffffu : ~bits);
}

static __device__ __forceinline__ uint64_t largest_of_warp(uint64_t key)
{
    for (int offset = 16; offset > 0; offset /= 2) {
        uint64_t other = __shfl_xor_sync(0xffffffffu, key, offset);
        key = other > key ? other : key;
    }
    return key;
}

// EACH: logits of a lane; index lane + 32 i is its i-th.
template <int EACH> static __global__ void __launch_bounds__(32 * WARPS) route_rows(const routing r)
{
    int row = (int)(blockIdx.x * WARPS + threadIdx.x / 32), lane = threadIdx.x % 32;
    uint64_t key[EACH];
    let_next_begin();
    wait_for_previous();
    if (row >= r.rows) { // a whole warp
        return;
    }
    uint64_t best = 0;
#pragma unroll
    for (int i = 0; i < EACH; i++) {
        int index = lane + 32 * i;
        key[i] = index < r.experts ? key_of(r.logits[row * r.logits_stride + index], index) : 0;
        best = key[i] > best ? key[i] : best;
    }
    uint64_t chosen = largest_of_warp(best), own = 0;
    float top = value_of(chosen), all = 0;
#pragma unroll
    for (int i = 0; i < EACH; i++) {
        all += key[i] != 0 ? expf(value_of(key[i]) - top) : 0;
    }
    all = sum_of_warp(all);
    for (int k = 0; k < r.top_k; k++) {
        own = lane == k ? chosen : own;
        best = 0;
#pragma unroll
        for (int i = 0; i < EACH; i++) {
            key[i] = key[i] == chosen ? 0 : key[i];
            best = key[i] > best ? key[i] : best;
        }
        chosen = largest_of_warp(best);
    }
    float weight = own != 0 ? expf(value_of(own) - top) / all : 0;
    float sum = sum_of_warp(weight);
    if (lane < r.top_k) {
        r.expert[row * r.expert_stride + lane] = (int32_t)(0xffffffffu - (uint32_t)own);
        r.weight[row * r.weight_stride + lane] = r.normalise ? weight / sum : weight;
    }
}

void cuda_route(struct sl_stream *stream, const struct sl_tensor *logits, int normalise, const struct sl_tensor *expert,
                const struct sl_tensor *weight)
{
    int64_t rows = logits->shape[0], n = logits->shape[1], top_k = expert->shape[1];
    if (rows == 0 || !cuda_begin(stream)) {
        return;
    }
    if (n > SL_MAX_EXPERTS || top_k > n || top_k > SL_MAX_TOP_K || expert->shape[0] != rows ||
        weight->shape[0] != rows || weight->shape[1] != top_k) {
        cuda_fail(stream, SL_ERR_INTERNAL, "route: shapes do not fit together");
        return;
    }
    routing r = {};
    r.logits = (const float *)logits->data;
    r.expert = (int32_t *)expert->data;
    r.weight = (float *)weight->data;
    r.logits_stride = logits->stride[0];
    r.expert_stride = expert->stride[0];
    r.weight_stride = weight->stride[0];
    r.rows = (int)rows;
    r.experts = (int)n;
    r.top_k = (int)top_k;
    r.normalise = normalise;
    dim3 grid((unsigned)((rows + WARPS - 1) / WARPS));
    void (*kernel)(const routing) = n <= 128 ? route_rows<4> : n <= 256 ? route_rows<8> : route_rows<32>;
    launch_overlapping(stream, kernel, grid, 32 * WARPS, 0, r);
    cuda_launched(stream, "routing");
}
