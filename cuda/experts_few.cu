// SPDX-License-Identifier: Apache-2.0
// Experts with few rows each: bound by reading the weights of those that are used once. The products are those of
// few.cu: 16 outputs by 8 rows, weights as A, the inputs of a product permuted so that a lane loads whole words. So is
// the way of the weights: by a ring in shared memory, in which each thread has places of its own, one block for each
// multiprocessor.
//
// Work is a list: each tile of up to 8 rows of one expert with each tile of outputs. Every block takes an equal part of
// it, one item after another. Of a single row every expert is a tile, and nothing needs sorting.
//
// Which experts there are is known once routing or sorting has ended. The gated product waits for that, and lets the
// next kernel begin only then: so the second product may fetch its first weights while the gated one still runs. At the
// sizes of 30B-A3B both fit into a multiprocessor.
#include "cuda/act.cuh"
#include "cuda/experts.h"
#include "cuda/tensor.cuh"

enum {
    WARPS = 8,
    THREADS = 32 * WARPS,
    OUTPUTS = 16,
    ROWS = CUDA_EXPERTS_FEW_ROWS,
    MOST_INPUTS = 6144 // whose 8 rows find room beside the ring
};

// Stages of the ring; a stage is HALVES times 32 inputs of each warp.
template <int HALVES> static __host__ __device__ constexpr int stages_of()
{
    return HALVES == 2 ? 5 : 3;
}

struct few_job {
    const bf16 *weight, *x;
    bf16 *y;
    int64_t x_stride, y_stride;
    int in, out, top_k;    // out: what is written; the gated product has 2 out rows of weights for each expert
    const int32_t *single; // the experts of the only row; NULL: there are more, and they are sorted
    int experts;
    struct experts_order order;
};

// By way of the second cache: what other kernels wrote before the one that may still run.
static __device__ __forceinline__ int tiles_of(const few_job &f)
{
    return f.single != NULL ? f.top_k : __ldcg(f.order.tile_count);
}

static __device__ __forceinline__ experts_tile tile_of(const few_job &f, int i)
{
    experts_tile t = {0, i, 1};
    if (f.single != NULL) {
        int e = __ldcg(f.single + i);
        t.expert = (unsigned)e < (unsigned)f.experts ? e : 0;
    } else {
        const experts_tile *from = &f.order.tiles[i];
        t.expert = __ldcg(&from->expert);
        t.first = __ldcg(&from->first);
        t.rows = __ldcg(&from->rows);
    }
    return t;
}

static __device__ __forceinline__ int pair_of(const few_job &f, int slot)
{
    return f.single != NULL ? slot : f.order.pair[slot];
}

template <int HALVES> static __device__ __forceinline__ int input_of(int step, int half)
{
    int warp = threadIdx.x / 32, q = threadIdx.x % 4;
    return ((step * WARPS + warp) * HALVES + half) * 32 + 8 * q;
}

// The first row of the weights of output g, and whether there is such an output. GATED: outputs 8 to 15 are the up rows
// of outputs 0 to 7.
template <bool GATED> static __device__ __forceinline__ int weight_row(const few_job &f, int tile, int g)
{
    return GATED ? tile * 8 + g % 8 + (g < 8 ? 0 : f.out) : tile * OUTPUTS + g;
}

template <bool GATED> static __device__ __forceinline__ int is_output(const few_job &f, int tile, int g)
{
    return (GATED ? tile * 8 + g % 8 : tile * OUTPUTS + g) < f.out;
}

// A block's part of the list, which is made of `across` tiles of outputs for each tile of rows.
struct part {
    int across, first, end, steps; // steps of an item
};

// What comes next: the steps of one item, then those of the next one.
struct cursor {
    int item, step, rows;   // rows: number of the tile of rows
    const bf16 *expert;     // its weights
    const bf16 *low, *high; // this lane's rows of weights, of outputs g and g + 8
};

template <bool GATED> static __device__ __forceinline__ void aim(const few_job &f, const part &p, cursor &at, int item)
{
    int g = threadIdx.x % 32 / 4, rows = item / p.across, tile = item % p.across;
    at.item = item;
    at.step = 0;
    if (item >= p.end) {
        return;
    }
    if (rows != at.rows) {
        at.rows = rows;
        at.expert = f.weight + (int64_t)tile_of(f, rows).expert * (GATED ? 2 : 1) * f.out * f.in;
    }
    at.low = at.expert + (int64_t)(is_output<GATED>(f, tile, g) ? weight_row<GATED>(f, tile, g) : 0) * f.in;
    at.high = at.expert + (int64_t)(is_output<GATED>(f, tile, g + 8) ? weight_row<GATED>(f, tile, g + 8) : 0) * f.in;
}

// The thread's words of one step: `to` is its first place, the others are THREADS words apart. Behind the last item
// nothing is copied, but counted.
template <int HALVES, bool GATED>
static __device__ __forceinline__ void fetch(const few_job &f, const part &p, cursor &at, const uint4 *to)
{
    if (at.item < p.end) {
#pragma unroll
        for (int half = 0; half < HALVES; half++) {
            int k = input_of<HALVES>(at.step, half), valid = k < f.in;
            copy_weights(shared_address(to + 2 * half * THREADS), valid ? at.low + k : f.weight, valid);
            copy_weights(shared_address(to + (2 * half + 1) * THREADS), valid ? at.high + k : f.weight, valid);
        }
        if (++at.step == p.steps) {
            aim<GATED>(f, p, at, at.item + 1);
        }
    }
    copies_commit();
}

// Two sums in turn, so that one product need not wait for the last.
template <int HALVES>
static __device__ __forceinline__ void use(const few_job &f, const bf16 *x, int pitch, int rows, int step,
                                           const uint4 *w, float c[2][4])
{
    int g = threadIdx.x % 32 / 4;
#pragma unroll
    for (int half = 0; half < HALVES; half++) {
        int k = input_of<HALVES>(step, half);
        uint4 b = make_uint4(0, 0, 0, 0);
        if (g < rows && k < f.in) {
            b = *(const uint4 *)(x + g * pitch + k);
        }
        multiply_words(c[half % 2], w[2 * half * THREADS], w[(2 * half + 1) * THREADS], b);
    }
}

// The tile's rows to shared memory, `pitch` elements apart, so that eight of them fall into different banks.
template <bool GATED> static __device__ void bring_x(const few_job &f, const experts_tile &t, bf16 *to, int pitch)
{
    int words = f.in / 8;
    __syncthreads(); // the last tile's are no longer read
    for (int row = 0; row < t.rows; row++) {
        int64_t from = GATED ? pair_of(f, t.first + row) / f.top_k : t.first + row;
        const uint4 *x = (const uint4 *)(f.x + from * f.x_stride);
        for (int w = threadIdx.x; w < words; w += blockDim.x) {
            *(uint4 *)(to + row * pitch + 8 * w) = x[w];
        }
    }
    __syncthreads();
}

struct partial_sums {
    float of[WARPS][OUTPUTS][ROWS + 1];
};

// The warps' sums become outputs. Two buffers in turn, so that one barrier is enough.
template <bool GATED>
static __device__ __forceinline__ void finish(const few_job &f, const experts_tile &t, int tile, partial_sums &sums,
                                              const float c[2][4])
{
    int warp = threadIdx.x / 32, g = threadIdx.x % 32 / 4, q = threadIdx.x % 4;
    sums.of[warp][g][2 * q] = c[0][0] + c[1][0];
    sums.of[warp][g][2 * q + 1] = c[0][1] + c[1][1];
    sums.of[warp][g + 8][2 * q] = c[0][2] + c[1][2];
    sums.of[warp][g + 8][2 * q + 1] = c[0][3] + c[1][3];
    __syncthreads();
    const int outputs = GATED ? 8 : OUTPUTS;
    int output = threadIdx.x % outputs, row = threadIdx.x / outputs; // there are threads enough
    if (row >= t.rows || !is_output<GATED>(f, tile, output)) {
        return;
    }
    float value = 0, up = 0;
#pragma unroll
    for (int w = 0; w < WARPS; w++) {
        value += sums.of[w][output][row];
        up += GATED ? sums.of[w][output + 8][row] : 0;
    }
    int64_t to = GATED ? t.first + row : pair_of(f, t.first + row);
    f.y[to * f.y_stride + weight_row<GATED>(f, tile, output)] = __float2bfloat16(GATED ? silu(value) * up : value);
}

template <bool GATED> static __device__ __forceinline__ part part_of(const few_job &f, int step_inputs)
{
    const int outputs = GATED ? 8 : OUTPUTS;
    int across = (f.out + outputs - 1) / outputs;
    int64_t items = (int64_t)tiles_of(f) * across;
    part p = {across, (int)(items * blockIdx.x / gridDim.x), (int)(items * (blockIdx.x + 1) / gridDim.x),
              (f.in + step_inputs - 1) / step_inputs};
    return p;
}

template <int HALVES, bool GATED> static __global__ void __launch_bounds__(THREADS, 1) experts_few(const few_job f)
{
    const int stages = stages_of<HALVES>(), stage_words = 2 * HALVES * THREADS;
    extern __shared__ __align__(16) unsigned char dynamic[];
    __shared__ partial_sums partial[2];
    const uint4 *ring = (const uint4 *)dynamic + threadIdx.x;
    bf16 *x = (bf16 *)(dynamic + stages * stage_words * 16);
    int pitch = f.in + 8, stage = 0;
    if (GATED) {
        wait_for_previous();
    }
    let_next_begin();
    part p = part_of<GATED>(f, WARPS * HALVES * 32);
    cursor next = {};
    next.rows = -1;
    aim<GATED>(f, p, next, p.first);
    for (int i = 0; i < stages; i++) {
        fetch<HALVES, GATED>(f, p, next, ring + i * stage_words);
    }
    if (!GATED) {
        wait_for_previous();
    }
    experts_tile rows = {};
    for (int item = p.first; item < p.end; item++) {
        if (item == p.first || item % p.across == 0) {
            rows = tile_of(f, item / p.across);
            bring_x<GATED>(f, rows, x, pitch);
        }
        float c[2][4] = {};
        for (int step = 0; step < p.steps; step++) {
            const uint4 *w = ring + stage * stage_words;
            copies_wait<stages - 1>();
            use<HALVES>(f, x, pitch, rows.rows, step, w, c);
            fetch<HALVES, GATED>(f, p, next, w);
            stage = stage + 1 < stages ? stage + 1 : 0;
        }
        finish<GATED>(f, rows, item % p.across, partial[item % 2], c);
    }
}

// One expert's weights are read once for each eight of its rows; beyond a few rows an expert that costs more than
// tiles that are mostly empty.
int cuda_experts_few_takes(const struct experts_job *job)
{
    const struct sl_experts *e = job->experts;
    return job->order.pairs <= 4 * e->count && e->hidden <= MOST_INPUTS && e->intermediate <= MOST_INPUTS;
}

// All multiprocessors get a block; what has no item only waits.
template <int HALVES, bool GATED> static void launch(struct sl_stream *stream, const few_job &f)
{
    size_t ring = (size_t)stages_of<HALVES>() * 2 * HALVES * THREADS * 16;
    size_t shared = ring + (size_t)ROWS * (size_t)(f.in + 8) * sizeof(bf16);
    if (allow_shared(stream, experts_few<HALVES, GATED>, shared) &&
        share_multiprocessor(stream, experts_few<HALVES, GATED>)) {
        launch_overlapping(stream, experts_few<HALVES, GATED>, dim3((unsigned)stream->device->multiprocessors), THREADS,
                           shared, f);
    }
}

// The warps take 512 inputs in a step, or 768, whichever leaves fewer idle.
template <bool GATED> static void multiply(struct sl_stream *stream, const few_job &f)
{
    int in_twos = (f.in + 511) / 512 * 512, in_threes = (f.in + 767) / 768 * 768;
    if (in_threes < in_twos) {
        launch<3, GATED>(stream, f);
    } else {
        launch<2, GATED>(stream, f);
    }
}

void cuda_experts_few(struct sl_stream *stream, const struct experts_job *job)
{
    const struct sl_experts *e = job->experts;
    few_job f = {};
    f.order = job->order;
    f.top_k = job->top_k;
    f.experts = e->count;
    f.single = job->rows == 1 ? (const int32_t *)job->expert->data : NULL;
    if (f.single == NULL) {
        cuda_experts_sort(stream, job);
    }
    f.weight = (const bf16 *)e->gate_up;
    f.x = (const bf16 *)job->x->data;
    f.x_stride = job->x->stride[0];
    f.y = (bf16 *)job->inner;
    f.y_stride = e->intermediate;
    f.in = e->hidden;
    f.out = e->intermediate;
    multiply<true>(stream, f);
    if (stream->error.status != SL_OK) {
        return; // the second product relies on the first to have waited for the order
    }
    f.weight = (const bf16 *)e->down;
    f.x = (const bf16 *)job->inner;
    f.x_stride = e->intermediate;
    f.y = (bf16 *)job->out;
    f.y_stride = e->hidden;
    f.in = e->intermediate;
    f.out = e->hidden;
    multiply<false>(stream, f);
}
