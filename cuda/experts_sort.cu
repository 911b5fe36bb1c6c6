// SPDX-License-Identifier: Apache-2.0
// Pairs sorted by expert, and the tiles that the products take them by. All on the device: the host never learns how
// many rows an expert has. Small jobs are one block's; large ones are counted and placed by many.
#include "cuda/experts.h"
#include "cuda/launch.cuh"

enum { THREADS = 1024, PAIRS_OF_BLOCK = 4096 };

static_assert(int(SL_MAX_EXPERTS) <= int(THREADS), "a thread for each expert");

struct sorting {
    const int32_t *expert;
    int64_t expert_stride;
    int experts, top_k, blocks;
    struct experts_order order;
};

// An index that is none counts as 0, so that nothing is read or written where it must not be.
static __device__ __forceinline__ int expert_of(const sorting &s, int pair)
{
    int e = s.expert[pair / s.top_k * s.expert_stride + pair % s.top_k];
    return (unsigned)e < (unsigned)s.experts ? e : 0;
}

// How many of the pairs [first, end) each expert has.
static __device__ void count_pairs(const sorting &s, int first, int end, int *counts)
{
    for (int e = threadIdx.x; e < s.experts; e += blockDim.x) {
        counts[e] = 0;
    }
    __syncthreads();
    for (int pair = first + (int)threadIdx.x; pair < end; pair += blockDim.x) {
        atomicAdd(&counts[expert_of(s, pair)], 1);
    }
    __syncthreads();
}

// Likewise to their slots; next: each expert's first free one.
static __device__ void place_pairs(const sorting &s, int first, int end, int *next)
{
    for (int pair = first + (int)threadIdx.x; pair < end; pair += blockDim.x) {
        s.order.pair[atomicAdd(&next[expert_of(s, pair)], 1)] = pair;
    }
}

// The sum of x of the threads before this one, in a block of THREADS.
static __device__ int sum_before(int x, int *shared /* [32] */)
{
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32, sum = x;
    for (int offset = 1; offset < 32; offset *= 2) {
        int other = __shfl_up_sync(0xffffffffu, sum, offset);
        sum += lane >= offset ? other : 0;
    }
    __syncthreads(); // shared may still be read
    if (lane == 31) {
        shared[warp] = sum;
    }
    __syncthreads();
    int before = 0;
    for (int w = 0; w < warp; w++) {
        before += shared[w];
    }
    return before + sum - x;
}

// Thread e says how many pairs expert e has, learns its first slot, and lists its tiles.
static __device__ int plan_tiles(const sorting &s, int pairs, int *shared)
{
    int rows = s.order.tile_rows, tiles = (pairs + rows - 1) / rows;
    int first = sum_before(pairs, shared), tile = sum_before(tiles, shared);
    for (int i = 0; i < tiles; i++) {
        int left = pairs - i * rows;
        experts_tile one = {(int)threadIdx.x, first + i * rows, left < rows ? left : rows};
        s.order.tiles[tile + i] = one;
    }
    if (threadIdx.x == THREADS - 1) {
        *s.order.tile_count = tile + tiles;
    }
    return first;
}

static __global__ void __launch_bounds__(THREADS) sort_small(const sorting s)
{
    __shared__ int counts[SL_MAX_EXPERTS], shared[32];
    let_next_begin();
    wait_for_previous();
    count_pairs(s, 0, s.order.pairs, counts);
    int e = threadIdx.x, first = plan_tiles(s, e < s.experts ? counts[e] : 0, shared);
    if (e < s.experts) {
        counts[e] = first;
    }
    __syncthreads();
    place_pairs(s, 0, s.order.pairs, counts);
}

static __device__ __forceinline__ int end_of_block(const sorting &s)
{
    int end = (int)(blockIdx.x + 1) * PAIRS_OF_BLOCK;
    return end < s.order.pairs ? end : s.order.pairs;
}

static __global__ void __launch_bounds__(THREADS) sort_count(const sorting s)
{
    __shared__ int counts[SL_MAX_EXPERTS];
    let_next_begin();
    wait_for_previous();
    count_pairs(s, (int)blockIdx.x * PAIRS_OF_BLOCK, end_of_block(s), counts);
    for (int e = threadIdx.x; e < s.experts; e += blockDim.x) {
        s.order.counts[blockIdx.x * s.experts + e] = counts[e];
    }
}

// Counts become each block's first slots.
static __global__ void __launch_bounds__(THREADS) sort_plan(const sorting s)
{
    __shared__ int shared[32];
    let_next_begin();
    wait_for_previous();
    int e = threadIdx.x, pairs = 0;
    for (int b = 0; b < s.blocks && e < s.experts; b++) {
        pairs += s.order.counts[b * s.experts + e];
    }
    int first = plan_tiles(s, pairs, shared);
    for (int b = 0; b < s.blocks && e < s.experts; b++) {
        int *of_block = &s.order.counts[b * s.experts + e], count = *of_block;
        *of_block = first;
        first += count;
    }
}

static __global__ void __launch_bounds__(THREADS) sort_place(const sorting s)
{
    __shared__ int next[SL_MAX_EXPERTS];
    let_next_begin();
    wait_for_previous();
    for (int e = threadIdx.x; e < s.experts; e += blockDim.x) {
        next[e] = s.order.counts[blockIdx.x * s.experts + e];
    }
    __syncthreads();
    place_pairs(s, (int)blockIdx.x * PAIRS_OF_BLOCK, end_of_block(s), next);
}

static int blocks_of(const struct experts_job *job)
{
    return (job->order.pairs + PAIRS_OF_BLOCK - 1) / PAIRS_OF_BLOCK;
}

// Each expert with pairs may have one tile that is not full.
static int64_t tiles_of(const struct experts_job *job)
{
    int experts = job->experts->count, pairs = job->order.pairs;
    return pairs / job->order.tile_rows + (experts < pairs ? experts : pairs);
}

int64_t cuda_experts_order_bytes(const struct experts_job *job)
{
    int64_t words = job->order.pairs + 1 + 3 * tiles_of(job) + (int64_t)blocks_of(job) * job->experts->count;
    return words * (int64_t)sizeof(int32_t);
}

void cuda_experts_order_place(struct experts_job *job, void *room)
{
    struct experts_order *order = &job->order;
    order->most_tiles = (int)tiles_of(job);
    order->pair = (int *)room;
    order->tile_count = order->pair + order->pairs;
    order->tiles = (struct experts_tile *)(order->tile_count + 1);
    order->counts = (int *)(order->tiles + order->most_tiles);
}

void cuda_experts_sort(struct sl_stream *stream, const struct experts_job *job)
{
    sorting s = {};
    s.expert = (const int32_t *)job->expert->data;
    s.expert_stride = job->expert->stride[0];
    s.experts = job->experts->count;
    s.top_k = job->top_k;
    s.blocks = blocks_of(job);
    s.order = job->order;
    if (s.blocks == 1) {
        launch_overlapping(stream, sort_small, dim3(1), THREADS, 0, s);
    } else {
        launch_overlapping(stream, sort_count, dim3((unsigned)s.blocks), THREADS, 0, s);
        launch_overlapping(stream, sort_plan, dim3(1), THREADS, 0, s);
        launch_overlapping(stream, sort_place, dim3((unsigned)s.blocks), THREADS, 0, s);
    }
}
