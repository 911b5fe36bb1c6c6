// SPDX-License-Identifier: Apache-2.0
// Causal attention of many rows over the paged cache for the published head size, 128 (FlashAttention-3, Shah et al.
// 2024). A block is one warpgroup that brings keys and values, 128 tokens at a time, and two that each attend with 64
// query rows of one head. They meet at barriers in shared memory alone, so that while one of the two is busy with its
// softmax the tensor cores work for the other.
#include "cuda/attention_tiles.cuh"
#include "cuda/barrier.cuh"

enum {
    SIZE = 128,
    TOKENS = 128,
    READERS = 2, // warpgroups that attend
    ROWS = 64 * READERS,
    STAGES = 2,
    PAGE_PART = 64, // tokens that lie in one page for sure
    ROW_UNITS = SIZE / 8,
    THREADS = 128 * (READERS + 1),
};

struct stage {
    uint4 units[TOKENS * ROW_UNITS];
};

struct long_tiles {
    uint4 q[READERS][64 * ROW_UNITS]; // later the result, row by row
    stage k[STAGES], v[STAGES];
    uint64_t k_full[STAGES], v_full[STAGES], k_free[STAGES], v_free[STAGES];
};

// ---- The warpgroup that brings

struct bringer {
    const int32_t *pages;
    int64_t own; // this thread's first element of a page
    uint32_t to; // bytes from the beginning of a tile
    int row, seen;
};

static __device__ __forceinline__ void bring_tile(const attention_job &job, const bringer &w, const void *all,
                                                  stage *tile, int token)
{
    uint32_t to = shared_address(tile) + w.to;
#pragma unroll
    for (int part = 0; part < TOKENS / PAGE_PART; part++, token += PAGE_PART) {
        int64_t page = token < w.seen ? w.pages[token / job.page_tokens] : 0;
        const bf16 *from = (const bf16 *)all + page * job.kv_heads * job.page_tokens * SIZE +
                           (int64_t)(token % job.page_tokens) * SIZE + w.own;
#pragma unroll
        for (int n = 0; n < PAGE_PART / 8; n++) {
            int row = part * PAGE_PART + 8 * n;
            copy_to_shared(to + row * PANEL_UNITS * 16, from + 8 * n * SIZE, token + w.row + 8 * n < w.seen);
        }
    }
}

static __device__ __forceinline__ void bring_all(const attention_job &job, long_tiles &tiles, int b, int kv_head,
                                                 int seen)
{
    int unit = threadIdx.x % ROW_UNITS;
    bringer w = {job.page_table + b * job.page_stride, 0, 0, (int)threadIdx.x / ROW_UNITS, seen};
    w.own = ((int64_t)kv_head * job.page_tokens + w.row) * SIZE + 8 * unit;
    w.to = place_of(w.row, unit, TOKENS) * 16;
    for (int tile = 0; tile * TOKENS < seen; tile++) {
        int at = tile % STAGES, before = parity_of<STAGES>(tile) ^ 1;
        barrier_wait(&tiles.k_free[at], before);
        bring_tile(job, w, job.k, &tiles.k[at], tile * TOKENS);
        barrier_arrive_with_copies(&tiles.k_full[at]);
        barrier_wait(&tiles.v_free[at], before);
        bring_tile(job, w, job.v, &tiles.v[at], tile * TOKENS);
        barrier_arrive_with_copies(&tiles.v_full[at]);
    }
}

// ---- Those that attend

static __device__ __forceinline__ void bring_queries(uint4 *to, const bf16 *from, int64_t stride, int rows, int reader)
{
    for (int i = threadIdx.x % 128; i < 64 * ROW_UNITS; i += 128) {
        int row = i / ROW_UNITS, unit = i % ROW_UNITS, valid = row < rows;
        copy_async(to + place_of(row, unit, 64), from + (valid ? row * stride + 8 * unit : 0), valid);
    }
    copies_commit();
    copies_wait<0>();
    publish_shared();
    meet(1 + reader, 128);
}

static __device__ __forceinline__ void wait_for_tile(uint64_t *full, int parity)
{
    barrier_wait(full, parity);
    publish_shared(); // what others copied, to this warpgroup's products
}

// By each warp.
static __device__ __forceinline__ void let_go(uint64_t *free)
{
    if (threadIdx.x % 32 == 0) {
        barrier_arrive(free);
    }
}

// visible: what the warpgroup's first row sees; seen: what the block's last one does.
static __device__ __forceinline__ void attend(const attention_job &job, long_tiles &tiles, int reader, int row,
                                              int visible, int seen, float (&o)[SIZE / 2], softmax &state)
{
    float scale = job.scale * 1.4426950408889634f, s[TOKENS / 2], old[2];
    uint32_t p[TOKENS / 16][4];
    uint32_t q = shared_address(tiles.q[reader]) / 16, k = shared_address(tiles.k) / 16;
    uint32_t v = shared_address(tiles.v) / 16;
    const int stage_units = sizeof(stage) / 16;
    wait_for_tile(&tiles.k_full[0], 0);
    products_begin();
    score<SIZE, 64, TOKENS>(s, q, k);
    products_wait<0>();
    let_go(&tiles.k_free[0]);
    if (TOKENS > visible) {
        mask<TOKENS>(s, 0, visible, 1, row);
    }
    soften<TOKENS>(state, s, old, scale);
    pack_weights<TOKENS>(p, s);
    int tile = 1;
    for (; tile * TOKENS < seen; tile++) {
        int now = tile % STAGES, last = (tile - 1) % STAGES;
        wait_for_tile(&tiles.k_full[now], parity_of<STAGES>(tile));
        products_begin();
        score<SIZE, 64, TOKENS>(s, q, k + now * stage_units);
        wait_for_tile(&tiles.v_full[last], parity_of<STAGES>(tile - 1));
        weigh<SIZE, TOKENS>(o, p, v + last * stage_units);
        products_wait<1>();
        let_go(&tiles.k_free[now]);
        if ((tile + 1) * TOKENS > visible) {
            mask<TOKENS>(s, tile * TOKENS, visible, 1, row);
        }
        soften<TOKENS>(state, s, old, scale);
        products_wait<0>();
        let_go(&tiles.v_free[last]);
        shrink<SIZE>(o, old);
        pack_weights<TOKENS>(p, s);
    }
    int last = (tile - 1) % STAGES;
    wait_for_tile(&tiles.v_full[last], parity_of<STAGES>(tile - 1));
    products_begin();
    weigh<SIZE, TOKENS>(o, p, v + last * stage_units);
    products_wait<0>();
}

static __device__ __forceinline__ void create_barriers(long_tiles &tiles)
{
    if (threadIdx.x == 0) {
        for (int i = 0; i < STAGES; i++) {
            barrier_create(&tiles.k_full[i], 128);
            barrier_create(&tiles.v_full[i], 128);
            barrier_create(&tiles.k_free[i], 4 * READERS);
            barrier_create(&tiles.v_free[i], 4 * READERS);
        }
    }
    __syncthreads();
}

static __global__ void __launch_bounds__(THREADS, 1) attention_long(const attention_job job)
{
    extern __shared__ unsigned char dynamic[];
    long_tiles &tiles = *(long_tiles *)aligned_shared(dynamic);
    int group = __shfl_sync(0xffffffffu, (int)threadIdx.x / 128, 0); // the compiler sees that a warp has one
    int head = blockIdx.y, b = blockIdx.z, kv_head = head / (job.heads / job.kv_heads);
    int begin = job.row_start[b], rows = job.row_start[b + 1] - begin, length = job.kv_length[b];
    int row0 = (int)(gridDim.x - 1 - blockIdx.x) * ROWS; // those that see most go first
    if (row0 >= rows || rows < job.least_rows) {
        return;
    }
    int visible = length - rows + row0 + 1; // to the block's first row
    int seen = visible + ROWS - 1 < length ? visible + ROWS - 1 : length;
    create_barriers(tiles);
    if (group == 0) {
        give_registers_up<40>();
        bring_all(job, tiles, b, kv_head, seen);
        return;
    }
    take_registers<232>();
    int reader = group - 1, row = threadIdx.x / 32 % 4 * 16 + threadIdx.x % 32 / 4; // this lane's first of the 64
    int first = begin + row0 + 64 * reader, left = rows - row0 - 64 * reader;
    const bf16 *q = (const bf16 *)job.q + (int64_t)(left > 0 ? first : begin) * job.q_stride + (int64_t)head * SIZE;
    float o[SIZE / 2] = {};
    softmax state = {{-INFINITY, -INFINITY}, {0, 0}};
    bring_queries(tiles.q[reader], q, job.q_stride, left, reader);
    attend(job, tiles, reader, row, visible + 64 * reader, seen, o, state);
    meet(1 + reader, 128); // the queries are no longer read
    put<SIZE>(job, state, o, tiles.q[reader], row, first, left, head);
}

int cuda_attention_long(struct sl_stream *stream, const struct attention_job *job)
{
    if (job->is_f32 || !job->is_paged || job->d != SIZE || !in_words(job->q, job->q_stride) ||
        !in_words(job->y, job->y_stride) || job->page_tokens % PAGE_PART != 0) {
        return 0;
    }
    dim3 grid((unsigned)((job->max_rows + ROWS - 1) / ROWS), (unsigned)job->heads, (unsigned)job->sequences);
    size_t shared = sizeof(long_tiles) + 1024;
    if (allow_shared(stream, attention_long, shared)) {
        attention_long<<<grid, THREADS, shared, stream->native>>>(*job);
    }
    return 1;
}
