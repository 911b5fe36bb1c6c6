// SPDX-License-Identifier: Apache-2.0
// Experts with few rows each: bound by reading the weights of those that are used once. The products are those of
// few.cu: 16 outputs by 8 rows, weights as A, the inputs of a product permuted so that a lane loads whole words.
//
// Work is a list: each tile of up to 8 rows of one expert with each tile of outputs. Every block takes an equal part of
// it, one item after another, the next item's weights under way before the last ones are used. Of a single row every
// expert is a tile, and nothing needs sorting.
//
// Which experts there are is known once routing or sorting has ended. The gated product waits for that, and lets the
// next kernel begin only then: so the second product may fetch its first weights while the gated one still runs.
#include "cuda/act.cuh"
#include "cuda/experts.h"
#include "cuda/tensor.cuh"

enum {
    WARPS = 8,
    OUTPUTS = 16,
    ROWS = CUDA_EXPERTS_FEW_ROWS,
    BLOCKS = 2,        // of a multiprocessor
    MOST_INPUTS = 6144 // whose 8 rows fit into shared memory twice
};

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

// A lane's part of one step of all warps: HALVES times 32 inputs of two outputs.
template <int HALVES> struct lane_weights {
    uint4 low[HALVES], high[HALVES];
};

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

template <int HALVES, bool GATED>
static __device__ __forceinline__ void fetch(const few_job &f, int expert, int tile, int step, lane_weights<HALVES> &w)
{
    int g = threadIdx.x % 32 / 4;
    const uint4 none = make_uint4(0, 0, 0, 0);
    const bf16 *weight = f.weight + (int64_t)expert * (GATED ? 2 : 1) * f.out * f.in;
    const bf16 *low = weight + (int64_t)(is_output<GATED>(f, tile, g) ? weight_row<GATED>(f, tile, g) : 0) * f.in;
    const bf16 *high =
        weight + (int64_t)(is_output<GATED>(f, tile, g + 8) ? weight_row<GATED>(f, tile, g + 8) : 0) * f.in;
#pragma unroll
    for (int half = 0; half < HALVES; half++) {
        int k = input_of<HALVES>(step, half);
        w.low[half] = k < f.in ? load_weights(low + k) : none;
        w.high[half] = k < f.in ? load_weights(high + k) : none;
    }
}

template <int HALVES>
static __device__ __forceinline__ void use(const few_job &f, const bf16 *x, int pitch, int rows, int step,
                                           const lane_weights<HALVES> &w, float c[4])
{
    int g = threadIdx.x % 32 / 4;
#pragma unroll
    for (int half = 0; half < HALVES; half++) {
        int k = input_of<HALVES>(step, half);
        uint4 b = make_uint4(0, 0, 0, 0);
        if (g < rows && k < f.in) {
            b = *(const uint4 *)(x + g * pitch + k);
        }
        multiply_words(c, w.low[half], w.high[half], b);
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
                                              float c[4])
{
    int warp = threadIdx.x / 32, g = threadIdx.x % 32 / 4, q = threadIdx.x % 4;
    sums.of[warp][g][2 * q] = c[0];
    sums.of[warp][g][2 * q + 1] = c[1];
    sums.of[warp][g + 8][2 * q] = c[2];
    sums.of[warp][g + 8][2 * q + 1] = c[3];
    c[0] = c[1] = c[2] = c[3] = 0;
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

template <int HALVES, bool GATED>
static __global__ void __launch_bounds__(32 * WARPS, BLOCKS) experts_few(const few_job f)
{
    extern __shared__ __align__(16) unsigned char dynamic[];
    __shared__ partial_sums partial[2];
    bf16 *x = (bf16 *)dynamic;
    const int step_inputs = WARPS * HALVES * 32, tile_outputs = GATED ? 8 : OUTPUTS;
    int pitch = f.in + 8, steps = (f.in + step_inputs - 1) / step_inputs;
    int across = (f.out + tile_outputs - 1) / tile_outputs;
    if (GATED) {
        wait_for_previous();
    }
    let_next_begin();
    int64_t items = (int64_t)tiles_of(f) * across;
    int first = (int)(items * blockIdx.x / gridDim.x), end = (int)(items * (blockIdx.x + 1) / gridDim.x);
    if (first >= end) {
        wait_for_previous();
        return;
    }
    float c[4] = {};
    lane_weights<HALVES> now, next;
    int here = first / across, tile = first % across; // which rows, which outputs
    experts_tile rows = tile_of(f, here);
    fetch<HALVES, GATED>(f, rows.expert, tile, 0, now);
    if (!GATED) {
        wait_for_previous();
    }
    bring_x<GATED>(f, rows, x, pitch);
    for (int item = first, turn = 0; item < end; item++, turn ^= 1) {
        int next_tile = tile + 1 < across ? tile + 1 : 0, moves = next_tile == 0 && item + 1 < end;
        experts_tile next_rows = moves ? tile_of(f, here + 1) : rows;
        for (int step = 0; step < steps; step++) {
            if (step + 1 < steps) {
                fetch<HALVES, GATED>(f, rows.expert, tile, step + 1, next);
            } else if (item + 1 < end) {
                fetch<HALVES, GATED>(f, next_rows.expert, next_tile, 0, next);
            }
            use<HALVES>(f, x, pitch, rows.rows, step, now, c);
            now = next;
        }
        finish<GATED>(f, rows, tile, partial[turn], c);
        if (moves) {
            bring_x<GATED>(f, next_rows, x, pitch);
        }
        here += moves;
        rows = next_rows;
        tile = next_tile;
    }
}

// One expert's weights are read once for each eight of its rows; beyond a few rows an expert that costs more than
// tiles that are mostly empty.
int cuda_experts_few_takes(const struct experts_job *job)
{
    const struct sl_experts *e = job->experts;
    return job->order.pairs <= 4 * e->count && e->hidden <= MOST_INPUTS && e->intermediate <= MOST_INPUTS;
}

template <int HALVES, bool GATED> static void launch(struct sl_stream *stream, const few_job &f)
{
    size_t shared = (size_t)ROWS * (size_t)(f.in + 8) * sizeof(bf16);
    int64_t items = (int64_t)(f.single != NULL ? f.top_k : f.order.most_tiles) *
                    ((f.out + (GATED ? 7 : 15)) / (GATED ? 8 : OUTPUTS));
    int blocks = BLOCKS * stream->device->multiprocessors;
    if (allow_shared(stream, experts_few<HALVES, GATED>, shared)) {
        launch_overlapping(stream, experts_few<HALVES, GATED>, dim3((unsigned)(items < blocks ? items : blocks)),
                           32 * WARPS, shared, f);
    }
}

// The warps take 1024 inputs in a step, or 768, whichever leaves fewer idle.
template <bool GATED> static void multiply(struct sl_stream *stream, const few_job &f)
{
    int in_fours = (f.in + 1023) / 1024 * 1024, in_threes = (f.in + 767) / 768 * 768;
    if (in_threes < in_fours) {
        launch<3, GATED>(stream, f);
    } else {
        launch<4, GATED>(stream, f);
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
    f.weight = (const bf16 *)e->down;
    f.x = (const bf16 *)job->inner;
    f.x_stride = e->intermediate;
    f.y = (bf16 *)job->out;
    f.y_stride = e->hidden;
    f.in = e->intermediate;
    f.out = e->hidden;
    multiply<false>(stream, f);
}
