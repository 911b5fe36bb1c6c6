// SPDX-License-Identifier: Apache-2.0
// What the attention kernels of many rows share: scores of a tile of tokens, the softmax that is carried along, and the
// sum of values. SIZE is the head size rounded up to whole steps, TOKENS a tile's. All of it is done by a warpgroup for
// 64 query rows.
#ifndef SL_CUDA_ATTENTION_TILES_CUH
#define SL_CUDA_ATTENTION_TILES_CUH

#include "cuda/attention.h"
#include "cuda/warpgroup.cuh"

// Units of a row as they lie: whole panels.
template <int SIZE> static __host__ __device__ constexpr int row_units()
{
    return (SIZE + 63) / 64 * 8;
}

// s = q k^T for the warpgroup's 64 rows; goes on by itself until waited for. q, k: units of 16 bytes.
template <int SIZE, int ROWS, int TOKENS>
static __device__ __forceinline__ void score(float (&s)[TOKENS / 2], uint32_t q, uint32_t k)
{
#pragma unroll
    for (int step = 0; step < SIZE / 16; step++) {
        int panel = step / 4 * PANEL_UNITS, unit = step % 4 * 2;
        multiply_from_shared(s, matrix_at(q + panel * ROWS + unit, ROWS), matrix_at(k + panel * TOKENS + unit, TOKENS),
                             step > 0);
    }
    products_commit();
}

// o += p v, likewise.
template <int SIZE, int TOKENS>
static __device__ __forceinline__ void weigh(float (&o)[SIZE / 2], const uint32_t p[TOKENS / 16][4], uint32_t v)
{
#pragma unroll
    for (int t = 0; t < TOKENS / 16; t++) {
        multiply_from_registers(o, p[t], matrix_at(v + 16 * PANEL_UNITS * t, TOKENS));
    }
    products_commit();
}

// Of a lane's two rows, g and g + 8 of its warp's 16: the largest score so far and the sum of the weights.
struct softmax {
    float most[2], total[2];
};

// Scores become weights. old: what the results so far shrink by. `scale` includes log2(e).
template <int TOKENS>
static __device__ __forceinline__ void soften(softmax &state, float (&s)[TOKENS / 2], float old[2], float scale)
{
#pragma unroll
    for (int half = 0; half < 2; half++) {
        float most = state.most[half], sum = 0;
#pragma unroll
        for (int n = 0; n < TOKENS / 8; n++) {
            most = fmaxf(most, fmaxf(s[4 * n + 2 * half], s[4 * n + 2 * half + 1]));
        }
        most = maximum_of_four(most);
        float base = most == -INFINITY ? 0 : most * scale; // a row that sees nothing here
        old[half] = most == state.most[half] ? 1 : power_of_two(state.most[half] * scale - base);
        state.most[half] = most;
#pragma unroll
        for (int n = 0; n < TOKENS / 8; n++) {
#pragma unroll
            for (int i = 2 * half; i < 2 * half + 2; i++) {
                s[4 * n + i] = power_of_two(s[4 * n + i] * scale - base);
                sum += s[4 * n + i];
            }
        }
        state.total[half] = state.total[half] * old[half] + sum;
    }
}

// Weights as the A of the next product: its lanes hold the same places as those of a result.
template <int TOKENS>
static __device__ __forceinline__ void pack_weights(uint32_t p[TOKENS / 16][4], const float (&s)[TOKENS / 2])
{
#pragma unroll
    for (int t = 0; t < TOKENS / 16; t++) {
#pragma unroll
        for (int i = 0; i < 4; i++) {
            p[t][i] = pack(s[8 * t + 2 * i], s[8 * t + 2 * i + 1]);
        }
    }
}

template <int SIZE> static __device__ __forceinline__ void shrink(float (&o)[SIZE / 2], const float old[2])
{
#pragma unroll
    for (int i = 0; i < SIZE / 2; i++) {
        o[i] *= old[i / 2 % 2];
    }
}

// Takes away what a row may not see: tokens from `visible` of the block's first row on, one more for each row; or all
// rows the same.
template <int TOKENS>
static __device__ __forceinline__ void mask(float (&s)[TOKENS / 2], int token, int visible, int is_causal, int row)
{
    int lane = threadIdx.x % 32;
#pragma unroll
    for (int i = 0; i < TOKENS / 2; i++) {
        int at = token + i / 4 * 8 + lane % 4 * 2 + i % 2, own = row + i / 2 % 2 * 8;
        if (at >= visible + (is_causal ? own : 0)) {
            s[i] = -INFINITY;
        }
    }
}

// The result by way of shared memory, to write whole words. Units of a row are turned by its number, so that eight rows
// fall into different banks.
template <int SIZE>
static __device__ __forceinline__ void put(const attention_job &job, const softmax &state, const float (&o)[SIZE / 2],
                                           uint4 *to, int row, int first, int rows, int head)
{
    const int units = SIZE / 8;
    int lane = threadIdx.x % 32;
#pragma unroll
    for (int half = 0; half < 2; half++) {
        float total = sum_of_four(state.total[half]), inverse = total > 0 ? 1 / total : 0;
        int own = row + 8 * half;
#pragma unroll
        for (int n = 0; n < units; n++) {
            uint32_t *unit = (uint32_t *)&to[own * units + (n + own) % units];
            unit[lane % 4] = pack(o[4 * n + 2 * half] * inverse, o[4 * n + 2 * half + 1] * inverse);
        }
    }
    __syncwarp();
    int begin = row - lane / 4, words = job.d / 8; // the warp's 16 rows
    for (int i = lane; i < 16 * words; i += 32) {
        int own = begin + i / words, unit = i % words;
        if (own < rows) {
            bf16 *y = (bf16 *)job.y + (int64_t)(first + own) * job.y_stride + (int64_t)head * job.d;
            *(uint4 *)(y + 8 * unit) = to[own * units + (unit + own) % units];
        }
    }
}

#endif
