// SPDX-License-Identifier: Apache-2.0
// Experts with many rows, on the tensor cores. An item is a tile of rows of one expert, by 256 rows of its weights; for
// gate and up these are 128 of each that belong together, so that silu(gate) * up is all that is written. Two blocks of
// a cluster share an item: each takes up to ROWS of the rows, and brings half of the weights to both.
//
// There is a block for each multiprocessor, and it goes from item to item. One warpgroup brings inputs, 64 at a time,
// into a ring of stages in shared memory; the others multiply, each for 64 of the rows, and write from registers, while
// the ring is being filled for the next item. They meet at the ring's barriers alone.
#include "cuda/act.cuh"
#include "cuda/boxes.cuh"
#include "cuda/cluster.cuh"
#include "cuda/experts.h"
#include "cuda/warpgroup.cuh"

enum {
    CLUSTER = 2, // blocks
    ROWS = CUDA_EXPERTS_MANY_ROWS / CLUSTER,
    READER_ROWS = 64,
    COLUMNS = 256,
    BOX_ROWS = COLUMNS / 2, // of weights
    STEP = CUDA_BOX_COLUMNS,
    UNITS = STEP / 8,
    STAGES = 4,
    READERS = ROWS / READER_ROWS, // warpgroups that multiply
    THREADS = 128 * (READERS + 1),
    BRINGER_REGISTERS = 40,
    READER_REGISTERS = 232,     // 504 in all, as the block begins with 168 for each thread
    APART = 128 / UNITS,        // rows between those that a thread copies
    KEPT = (ROWS / 4 + 31) / 32 // numbers of rows that a lane keeps
};

struct many_job {
    CUtensorMap weight_boxes; // of BOX_ROWS
    CUtensorMap x_boxes;      // of READER_ROWS; not of the gated product, which gathers its rows
    const bf16 *x;
    bf16 *y;
    int x_stride, y_stride;
    int in, out, top_k;  // out: what is written; the gated product has 2 out rows of weights for each expert
    int columns, across; // what is written of a row by one item, and how many items that makes
    struct experts_order order;
};

struct many_item {
    experts_tile tile; // this block's part of one, maybe without rows
    int column0;
};

// A lane's share of 64 rows: of the two halves of an item's columns, or of gate and up.
struct results {
    float of[2][BOX_ROWS / 2];
};

struct stage {
    uint4 x[ROWS * UNITS], weight[COLUMNS * UNITS]; // a panel each
};

// A stage is used for one step; uses are counted over all of a block's items.
struct many_tiles {
    stage stages[STAGES];
    uint64_t full[STAGES], free[STAGES];
};

static __device__ __forceinline__ int item_count(const many_job &m)
{
    return *m.order.tile_count * m.across;
}

// Column blocks of a tile follow one another, so that blocks at work at the same time share rows and weights. Of a
// tile's rows each block of the cluster takes as many as the other, up to 64.
static __device__ __forceinline__ many_item item_at(const many_job &m, int number)
{
    many_item item = {m.order.tiles[number / m.across], number % m.across * m.columns};
    experts_tile &t = item.tile;
    int groups = (t.rows + READER_ROWS - 1) / READER_ROWS, lower = (groups + 1) / 2 * READER_ROWS;
    if (cluster_rank() == 0) {
        t.rows = t.rows < lower ? t.rows : lower;
    } else {
        t.first += lower;
        t.rows = t.rows < lower ? 0 : t.rows - lower;
    }
    return item;
}

// ---- The warpgroup that brings

// Which rows of x this warp copies, -1 for none: eight lanes take a row, and the warp four rows of every APART. A lane
// keeps some of the numbers for all, as registers are few.
static __device__ __forceinline__ void find_rows(const many_job &m, const experts_tile &t, int (&rows)[KEPT])
{
#pragma unroll
    for (int i = 0; i < KEPT; i++) {
        int number = (int)threadIdx.x % 32 + 32 * i, row = number / 4 * APART + (int)threadIdx.x / 32 * 4 + number % 4;
        rows[i] = row < t.rows ? m.order.pair[t.first + row] / m.top_k : -1;
    }
}

// Rows that the tile lacks keep what was there: it comes into no row that is written.
static __device__ __forceinline__ void gather(stage &to, const many_job &m, const int (&rows)[KEPT], int k)
{
    int unit = threadIdx.x % UNITS, valid = k + 8 * unit < m.in;
    const bf16 *from = m.x + (valid ? k + 8 * unit : 0);
    uint32_t x = shared_address(to.x + place_of((int)threadIdx.x / UNITS, unit, ROWS));
#pragma unroll
    for (int j = 0; j < ROWS / APART; j++) {
        int row = __shfl_sync(0xffffffffu, rows[j * 4 / 32], j * 4 % 32 + (int)threadIdx.x % 32 / UNITS);
        if (row >= 0) {
            copy_to_shared(x + j * APART * UNITS * 16, from + (int64_t)row * m.x_stride, valid);
        }
    }
}

// By one thread: inputs from k on of half the weights, for both blocks, and of x where its rows stand together. Boxes
// may reach into other experts' rows; these, too, come into nothing that is written.
template <bool GATED>
static __device__ __forceinline__ void bring(stage &to, uint64_t *full, const many_job &m, const many_item &item, int k)
{
    const experts_tile &t = item.tile;
    int rows = GATED ? 0 : (t.rows + READER_ROWS - 1) / READER_ROWS * READER_ROWS;
    barrier_expect(full, (COLUMNS + rows) * STEP * (int)sizeof(bf16));
    for (int i = 0; i < rows; i += READER_ROWS) {
        bring_box(to.x + i * UNITS, &m.x_boxes, k, t.first + i, full);
    }
    int half = cluster_rank(), apart = GATED ? m.out : BOX_ROWS;
    int row = t.expert * (GATED ? 2 : 1) * m.out + item.column0 + half * apart;
    bring_box_to((1 << CLUSTER) - 1, to.weight + half * BOX_ROWS * UNITS, &m.weight_boxes, k, row, full);
}

// By the whole warpgroup where rows are gathered, otherwise by its first thread.
template <bool GATED> static __device__ __forceinline__ void bring_items(const many_job &m, many_tiles &tiles)
{
    int items = item_count(m), use = 0;
    for (int i = blockIdx.x / CLUSTER; i < items; i += gridDim.x / CLUSTER) {
        many_item item = item_at(m, i);
        int rows[KEPT];
        if constexpr (GATED) {
            find_rows(m, item.tile, rows);
        }
        for (int k = 0; k < m.in; k += STEP, use++) {
            int at = use % STAGES;
            barrier_wait(&tiles.free[at], parity_of<STAGES>(use) ^ 1);
            if (threadIdx.x == 0) {
                bring<GATED>(tiles.stages[at], &tiles.full[at], m, item, k);
            }
            if constexpr (GATED) {
                gather(tiles.stages[at], m, rows, k);
                barrier_arrive_with_copies(&tiles.full[at]);
            }
        }
    }
}

// ---- Those that multiply

// This warp is through with a stage, which both blocks bring to.
static __device__ __forceinline__ void release(many_tiles &tiles, int use)
{
    int lane = threadIdx.x % 32;
    if (lane < CLUSTER) {
        barrier_arrive_in(&tiles.free[use % STAGES], lane);
    }
}

// One step for the warpgroup's 64 rows; goes on by itself until waited for.
static __device__ __forceinline__ void multiply(results &d, const stage &s, int reader, int accumulate)
{
    uint32_t a = shared_address(s.x) / 16 + READER_ROWS * UNITS * reader, b = shared_address(s.weight) / 16;
    products_begin();
#pragma unroll
    for (int i = 0; i < STEP / 16; i++) {
        multiply_from_shared(*(float(*)[COLUMNS / 2]) & d, matrix_at(a + 2 * i, ROWS), matrix_at(b + 2 * i, COLUMNS),
                             accumulate || i > 0);
    }
    products_commit();
}

// An item's steps, from this use of the ring on.
template <bool GATED>
static __device__ __forceinline__ void multiply_all(results &d, many_tiles &tiles, int reader, int steps, int use)
{
    for (int step = 0; step < steps; step++) {
        int at = (use + step) % STAGES;
        barrier_wait(&tiles.full[at], parity_of<STAGES>(use + step));
        if (GATED) {
            publish_shared(); // what others copied, to this warpgroup's products
        }
        multiply(d, tiles.stages[at], reader, step > 0);
        products_wait<1>();
        if (step > 0) {
            release(tiles, use + step - 1);
        }
    }
    products_wait<0>();
    release(tiles, use + steps - 1);
}

// An item without rows for this warpgroup. In step with the ring: no warp may be a round behind its own first lane.
static __device__ __forceinline__ void pass_all(many_tiles &tiles, int steps, int use)
{
    for (int step = 0; step < steps; step++) {
        barrier_wait(&tiles.full[(use + step) % STAGES], parity_of<STAGES>(use + step));
        __syncwarp();
        release(tiles, use + step);
    }
}

// Words of four units of a row, a word of each in every lane of four: lane q gets unit q.
static __device__ __forceinline__ uint4 turn(uint32_t w0, uint32_t w1, uint32_t w2, uint32_t w3)
{
    int odd = threadIdx.x & 1, high = threadIdx.x & 2;
    uint32_t near01 = __shfl_xor_sync(0xffffffffu, odd ? w0 : w1, 1);
    uint32_t near23 = __shfl_xor_sync(0xffffffffu, odd ? w2 : w3, 1);
    w0 = odd ? near01 : w0; // now of unit q % 2, words q / 2 * 2 and the next
    w1 = odd ? w1 : near01;
    w2 = odd ? near23 : w2; // and of unit q % 2 + 2
    w3 = odd ? w3 : near23;
    uint32_t far0 = __shfl_xor_sync(0xffffffffu, high ? w0 : w2, 2);
    uint32_t far1 = __shfl_xor_sync(0xffffffffu, high ? w1 : w3, 2);
    return high ? make_uint4(far0, far1, w2, w3) : make_uint4(w0, w1, far0, far1);
}

// Two neighbours of unit n of what is written, of this lane's upper or lower row.
template <bool GATED> static __device__ __forceinline__ uint32_t result(const results &d, int n, int half)
{
    int at = 4 * (n % (BOX_ROWS / 8)) + 2 * half, part = n / (BOX_ROWS / 8);
    if constexpr (GATED) {
        return pack(silu(d.of[0][at]) * d.of[1][at], silu(d.of[0][at + 1]) * d.of[1][at + 1]);
    }
    return pack(d.of[part][at], d.of[part][at + 1]);
}

// Where this lane's rows of a tile go, -1 for none: it has `row` and the one eight behind.
template <bool GATED>
static __device__ __forceinline__ void find_targets(const many_job &m, const experts_tile &t, int row, int (&target)[2])
{
#pragma unroll
    for (int half = 0; half < 2; half++) {
        int slot = t.first + row + 8 * half;
        target[half] = row + 8 * half >= t.rows ? -1 : GATED ? slot : m.order.pair[slot];
    }
}

template <bool GATED>
static __device__ __forceinline__ void put(const many_job &m, int column0, const int (&target)[2], const results &d)
{
    const int units = (GATED ? COLUMNS / 2 : COLUMNS) / 8;
    int column = column0 + 8 * (threadIdx.x % 4);
#pragma unroll
    for (int half = 0; half < 2; half++) {
        bf16 *y = m.y + (int64_t)target[half] * m.y_stride + column;
#pragma unroll
        for (int n = 0; n < units; n += 4) {
            uint4 unit = turn(result<GATED>(d, n, half), result<GATED>(d, n + 1, half), result<GATED>(d, n + 2, half),
                              result<GATED>(d, n + 3, half));
            if (target[half] >= 0 && column + 8 * n < m.out) {
                *(uint4 *)(y + 8 * n) = unit;
            }
        }
    }
}

template <bool GATED>
static __device__ __forceinline__ void multiply_items(const many_job &m, many_tiles &tiles, int reader)
{
    int items = item_count(m), steps = (m.in + STEP - 1) / STEP, use = 0;
    int row = READER_ROWS * reader + (int)threadIdx.x % 128 / 32 * 16 + (int)threadIdx.x % 32 / 4;
    for (int i = blockIdx.x / CLUSTER; i < items; i += gridDim.x / CLUSTER, use += steps) {
        many_item item = item_at(m, i);
        if (READER_ROWS * reader >= item.tile.rows) {
            pass_all(tiles, steps, use);
            continue;
        }
        results d;
        int target[2];
        find_targets<GATED>(m, item.tile, row, target);
        multiply_all<GATED>(d, tiles, reader, steps, use);
        put<GATED>(m, item.column0, target, d);
    }
}

template <bool GATED> static __device__ __forceinline__ void create_barriers(const many_job &m, many_tiles &tiles)
{
    if (threadIdx.x == 0) {
        prepare_boxes(&m.weight_boxes);
        for (int i = 0; i < STAGES; i++) {
            barrier_create(&tiles.full[i], GATED ? 129 : 1); // who asks for boxes, and who gather
            barrier_create(&tiles.free[i], 4 * READERS * CLUSTER);
        }
        publish_barriers();
        publish_barriers_to_cluster();
    }
    cluster_meet();
}

template <bool GATED>
static __global__ void __cluster_dims__(CLUSTER) __launch_bounds__(THREADS, 1)
    experts_many(const __grid_constant__ many_job m)
{
    extern __shared__ unsigned char dynamic[];
    many_tiles &tiles = *(many_tiles *)aligned_shared(dynamic);
    let_next_begin();
    create_barriers<GATED>(m, tiles);
    wait_for_previous();
    int group = __shfl_sync(0xffffffffu, (int)threadIdx.x / 128, 0); // the compiler sees that a warp has one
    if (group == 0) {
        give_registers_up<BRINGER_REGISTERS>();
        if (GATED || threadIdx.x == 0) {
            bring_items<GATED>(m, tiles);
        }
    } else {
        take_registers<READER_REGISTERS>();
        multiply_items<GATED>(m, tiles, group - 1);
    }
    cluster_meet(); // the other block may still arrive at this one's barriers
}

// `weight`: of all experts, `rows` rows in all.
template <bool GATED> static void launch(struct sl_stream *stream, many_job &m, const void *weight, int64_t rows)
{
    m.columns = GATED ? COLUMNS / 2 : COLUMNS;
    m.across = (m.out + m.columns - 1) / m.columns;
    int items = m.order.most_tiles * m.across, clusters = stream->device->multiprocessors / CLUSTER;
    const int shared = sizeof(many_tiles) + 1024;
    if (cuda_boxes(stream, &m.weight_boxes, weight, rows, m.in, BOX_ROWS) &&
        (GATED || cuda_boxes(stream, &m.x_boxes, m.x, m.order.pairs, m.in, READER_ROWS)) &&
        allow_shared(stream, experts_many<GATED>, shared)) {
        dim3 grid((unsigned)(CLUSTER * (items < clusters ? items : clusters)));
        launch_overlapping(stream, experts_many<GATED>, grid, THREADS, shared, m);
    }
}

void cuda_experts_many(struct sl_stream *stream, const struct experts_job *job)
{
    const struct sl_experts *e = job->experts;
    cuda_experts_sort(stream, job);
    many_job m = {};
    m.order = job->order;
    m.top_k = job->top_k;
    m.x = (const bf16 *)job->x->data;
    m.x_stride = (int)job->x->stride[0];
    m.y = (bf16 *)job->inner;
    m.y_stride = e->intermediate;
    m.in = e->hidden;
    m.out = e->intermediate;
    launch<true>(stream, m, e->gate_up, (int64_t)e->count * 2 * m.out);
    m.x = (const bf16 *)job->inner;
    m.x_stride = e->intermediate;
    m.y = (bf16 *)job->out;
    m.y_stride = e->hidden;
    m.in = e->intermediate;
    m.out = e->hidden;
    launch<false>(stream, m, e->down, (int64_t)e->count * m.out);
}
