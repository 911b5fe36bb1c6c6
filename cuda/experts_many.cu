// SPDX-License-Identifier: Apache-2.0
// Experts with many rows: for each tile of up to 128 rows of one expert a block for every 256 rows of its weights, on
// the tensor cores. For gate and up these are 128 of each that belong together, so that silu(gate) * up is all that is
// written.
//
// One warpgroup brings inputs, 64 at a time, through four stages of shared memory; two multiply, each for 64 of the
// rows, or one where there are no more. They meet at barriers in shared memory alone.
#include "cuda/act.cuh"
#include "cuda/barrier.cuh"
#include "cuda/experts.h"
#include "cuda/warpgroup.cuh"

enum {
    ROWS = CUDA_EXPERTS_MANY_ROWS,
    COLUMNS = 256,
    STEP = 64,
    UNITS = STEP / 8,
    STAGES = 4,
    READERS = 2, // warpgroups that multiply
    THREADS = 128 * (READERS + 1),
    APART = 128 / UNITS // rows between those that a thread copies
};

struct many_job {
    const bf16 *weight, *x;
    bf16 *y;
    int64_t x_stride, y_stride;
    int in, out, top_k; // out: what is written; the gated product has 2 out rows of weights for each expert
    struct experts_order order;
};

struct stage {
    uint4 x[ROWS * UNITS], weight[COLUMNS * UNITS]; // a panel each
};

struct many_tiles {
    stage stages[STAGES]; // later the result, row by row
    uint64_t full[STAGES], free[STAGES];
};

// ---- The warpgroup that brings

// What a thread copies in every step: one unit of some rows of x and of the weights; eight lanes take a row.
struct sources {
    const bf16 *x[ROWS / APART]; // NULL: a row of zeros
    const bf16 *weight[2];       // of the first row, and of the first in the tile's second half
    int64_t apart;               // elements between rows of weights that a thread copies
    int columns;                 // of the weights, from the thread's first row on
    int row, unit;               // of the tile
};

template <bool GATED>
static __device__ __forceinline__ void find_sources(const many_job &m, const experts_tile &t, int column0, sources &s)
{
    s.row = threadIdx.x / UNITS;
    s.unit = threadIdx.x % UNITS;
#pragma unroll
    for (int j = 0; j < ROWS / APART; j++) {
        int row = s.row + j * APART;
        s.x[j] = NULL;
        if (row < t.rows) {
            int64_t from = GATED ? m.order.pair[t.first + row] / m.top_k : t.first + row;
            s.x[j] = m.x + from * m.x_stride + 8 * s.unit;
        }
    }
    const bf16 *weight = m.weight + (int64_t)t.expert * (GATED ? 2 : 1) * m.out * m.in;
    s.weight[0] = weight + (int64_t)(column0 + s.row) * m.in + 8 * s.unit;
    s.weight[1] = s.weight[0] + (int64_t)(GATED ? m.out : COLUMNS / 2) * m.in;
    s.apart = (int64_t)APART * m.in;
    s.columns = m.out - column0 - s.row;
}

// Inputs from k on.
template <bool GATED>
static __device__ __forceinline__ void bring(stage &to, const many_job &m, const sources &s, int k)
{
    int is_input = k + 8 * s.unit < m.in;
    uint32_t x = shared_address(to.x + place_of(s.row, s.unit, ROWS));
    uint32_t weight = shared_address(to.weight + place_of(s.row, s.unit, COLUMNS));
#pragma unroll
    for (int j = 0; j < ROWS / APART; j++) {
        int valid = is_input && s.x[j] != NULL;
        copy_to_shared(x + j * APART * UNITS * 16, valid ? s.x[j] + k : m.x, valid);
    }
    const int half = COLUMNS / 2 / APART;
#pragma unroll
    for (int j = 0; j < 2 * half; j++) {
        int valid = is_input && (GATED ? j % half : j) * APART < s.columns;
        const bf16 *from = s.weight[j / half] + j % half * s.apart + k;
        copy_to_shared(weight + j * APART * UNITS * 16, valid ? from : m.weight, valid);
    }
}

template <bool GATED>
static __device__ __forceinline__ void bring_all(const many_job &m, many_tiles &tiles, const experts_tile &t,
                                                 int column0, int steps)
{
    sources s;
    find_sources<GATED>(m, t, column0, s);
    for (int step = 0; step < steps; step++) {
        int at = step % STAGES;
        barrier_wait(&tiles.free[at], parity_of<STAGES>(step) ^ 1);
        bring<GATED>(tiles.stages[at], m, s, step * STEP);
        barrier_arrive_with_copies(&tiles.full[at]);
    }
}

// ---- Those that multiply

// One step for the warpgroup's 64 rows; goes on by itself until waited for.
static __device__ __forceinline__ void multiply(float (&d)[COLUMNS / 2], const stage &s, int group, int accumulate)
{
    uint32_t a = shared_address(s.x) / 16 + 64 * UNITS * group, b = shared_address(s.weight) / 16;
    products_begin();
#pragma unroll
    for (int i = 0; i < STEP / 16; i++) {
        multiply_from_shared(d, matrix_at(a + 2 * i, ROWS), matrix_at(b + 2 * i, COLUMNS), accumulate || i > 0);
    }
    products_commit();
}

// The result by way of shared memory, to write whole words; a warp has 16 rows to itself. Units of a row are turned by
// its number, so that eight rows fall into different banks.
template <bool GATED>
static __device__ __forceinline__ void put(const many_job &m, const experts_tile &t, int column0,
                                           const float (&d)[COLUMNS / 2], uint4 *to)
{
    const int units = GATED ? COLUMNS / 16 : COLUMNS / 8;
    int lane = threadIdx.x % 32, begin = (threadIdx.x / 32 - 4) * 16;
#pragma unroll
    for (int half = 0; half < 2; half++) {
        int own = begin + lane / 4 + 8 * half;
#pragma unroll
        for (int n = 0; n < units; n++) {
            float low = d[4 * n + 2 * half], high = d[4 * n + 2 * half + 1];
            if constexpr (GATED) {
                low = silu(low) * d[4 * (n + units) + 2 * half];
                high = silu(high) * d[4 * (n + units) + 2 * half + 1];
            }
            ((uint32_t *)&to[own * units + (n + own) % units])[lane % 4] = pack(low, high);
        }
    }
    int row = begin + lane % 16, target = 0; // where the warp's rows go
    if (row < t.rows) {
        target = GATED ? t.first + row : m.order.pair[t.first + row];
    }
    __syncwarp();
    for (int i = lane; i < 16 * units; i += 32) {
        int own = begin + i / units, unit = i % units;
        int64_t y_row = __shfl_sync(0xffffffffu, target, i / units);
        if (own < t.rows && column0 + 8 * unit < m.out) {
            *(uint4 *)(m.y + y_row * m.y_stride + column0 + 8 * unit) = to[own * units + (unit + own) % units];
        }
    }
}

static __device__ __forceinline__ void multiply_all(float (&d)[COLUMNS / 2], many_tiles &tiles, int reader, int steps)
{
    for (int step = 0; step < steps; step++) {
        int at = step % STAGES;
        barrier_wait(&tiles.full[at], parity_of<STAGES>(step));
        publish_shared(); // what others copied, to this warpgroup's products
        multiply(d, tiles.stages[at], reader, step > 0);
        products_wait<1>();
        if (step > 0 && threadIdx.x % 32 == 0) {
            barrier_arrive(&tiles.free[(step - 1) % STAGES]);
        }
    }
    products_wait<0>();
}

static __device__ __forceinline__ void create_barriers(many_tiles &tiles, int readers)
{
    if (threadIdx.x == 0) {
        for (int i = 0; i < STAGES; i++) {
            barrier_create(&tiles.full[i], 128);
            barrier_create(&tiles.free[i], 4 * readers);
        }
    }
    __syncthreads();
}

template <bool GATED> static __global__ void __launch_bounds__(THREADS, 1) experts_many(const many_job m)
{
    extern __shared__ unsigned char dynamic[];
    many_tiles &tiles = *(many_tiles *)aligned_shared(dynamic);
    let_next_begin();
    wait_for_previous();
    if ((int)blockIdx.y >= *m.order.tile_count) {
        return;
    }
    experts_tile t = m.order.tiles[blockIdx.y];
    int column0 = (int)blockIdx.x * (GATED ? COLUMNS / 2 : COLUMNS), steps = (m.in + STEP - 1) / STEP;
    int group = __shfl_sync(0xffffffffu, (int)threadIdx.x / 128, 0); // the compiler sees that a warp has one
    int readers = t.rows > 64 ? 2 : 1;
    create_barriers(tiles, readers);
    if (group == 0) {
        give_registers_up<88>();
        bring_all<GATED>(m, tiles, t, column0, steps);
        return;
    }
    take_registers<208>();
    if (group > readers) {
        return;
    }
    float d[COLUMNS / 2];
    multiply_all(d, tiles, group - 1, steps);
    meet(1, 128 * readers); // the stages are no longer read
    put<GATED>(m, t, column0, d, (uint4 *)tiles.stages);
}

template <bool GATED> static void launch(struct sl_stream *stream, const many_job &m)
{
    const int columns = GATED ? COLUMNS / 2 : COLUMNS;
    dim3 grid((unsigned)((m.out + columns - 1) / columns), (unsigned)m.order.most_tiles);
    if (allow_shared(stream, experts_many<GATED>, sizeof(many_tiles) + 1024)) {
        launch_overlapping(stream, experts_many<GATED>, grid, THREADS, sizeof(many_tiles) + 1024, m);
    }
}

void cuda_experts_many(struct sl_stream *stream, const struct experts_job *job)
{
    const struct sl_experts *e = job->experts;
    cuda_experts_sort(stream, job);
    many_job m = {};
    m.order = job->order;
    m.top_k = job->top_k;
    m.weight = (const bf16 *)e->gate_up;
    m.x = (const bf16 *)job->x->data;
    m.x_stride = job->x->stride[0];
    m.y = (bf16 *)job->inner;
    m.y_stride = e->intermediate;
    m.in = e->hidden;
    m.out = e->intermediate;
    launch<true>(stream, m);
    m.weight = (const bf16 *)e->down;
    m.x = (const bf16 *)job->inner;
    m.x_stride = e->intermediate;
    m.y = (bf16 *)job->out;
    m.y_stride = e->hidden;
    m.in = e->intermediate;
    m.out = e->hidden;
    launch<false>(stream, m);
}
