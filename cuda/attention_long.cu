// SPDX-License-Identifier: Apache-2.0
// Causal attention of many rows over the paged cache for the published head size, 128 (FlashAttention-3, Shah et al.
// 2024). A block is one warpgroup that brings queries, keys and values, 128 tokens at a time, and two that each attend
// with 64 query rows of one head. They meet at barriers in shared memory alone, so that while one of the two is busy
// with its softmax the tensor cores work for the other. A block stays on its multiprocessor and does one piece of work
// after the other: while the two end one, what the next begins with is on its way.
//
// PAIR is 2 where two query heads at a time have the same keys and values: then a cluster of two blocks has these
// heads, and each block brings half of every tile for both.
#include "cuda/attention_tiles.cuh"
#include "cuda/boxes.cuh"
#include "cuda/cluster.cuh"

enum {
    SIZE = 128,
    TOKENS = 128,
    READERS = 2, // warpgroups that attend
    ROWS = 64 * READERS,
    STAGES = 2,
    PAGE_PART = 64, // tokens that lie in one page for sure
    ROW_UNITS = SIZE / 8,
    THREADS = 128 * (READERS + 1),
    K = 0, // keys or values
    V = 1,
    SIDES = 2,
    TURNS = 1, // the first of the readers' barriers
};

struct queries {
    uint4 units[64 * ROW_UNITS];
};

struct stage {
    uint4 units[TOKENS * ROW_UNITS];
};

struct long_tiles {
    queries q[READERS];
    uint4 y[READERS][64 * ROW_UNITS]; // the result, row by row
    stage kv[SIDES][STAGES];
    uint64_t q_full[READERS], q_free[READERS];
    uint64_t full[SIDES][STAGES], free[SIDES][STAGES];
};

// ---- What a block does

// ROWS query rows of one head.
struct piece {
    const int32_t *pages;
    int head, kv_head;
    int first, left;           // of all query rows the first one, and how many of the sequence there are from it on
    int visible, seen, length; // tokens: to its first row, to its last one, in all
};

// Of a sequence those that see most are first, all heads beside each other. 0: there is no such piece, or it is not for
// this kernel.
template <int PAIR> static __device__ __forceinline__ int find_piece(const attention_job &job, int number, piece &p)
{
    int blocks = (job.max_rows + ROWS - 1) / ROWS, groups = job.heads / PAIR, rest = number / groups;
    int b = rest / blocks, row0 = (blocks - 1 - rest % blocks) * ROWS;
    int begin = job.row_start[b], rows = job.row_start[b + 1] - begin;
    p.pages = job.page_table + b * job.page_stride;
    p.head = number % groups * PAIR + blockIdx.x % PAIR;
    p.kv_head = p.head / (job.heads / job.kv_heads);
    p.first = begin + row0;
    p.left = rows - row0;
    p.length = job.kv_length[b];
    p.visible = p.length - rows + row0 + 1;
    p.seen = p.visible + ROWS - 1 < p.length ? p.visible + ROWS - 1 : p.length;
    return p.left > 0 && rows >= job.least_rows;
}

// The cluster's piece in a round; every other round goes backwards, so that all have about as much to do.
template <int PAIR> static __device__ __forceinline__ int number_of(int round)
{
    uint32_t clusters = gridDim.x / PAIR, own = blockIdx.x / PAIR;
    return (int)(round * clusters + (round % 2 ? clusters - 1 - own : own));
}

// ---- The warpgroup that brings

// The first of a page's rows of this head, where `token` is, as boxes count them.
static __device__ __forceinline__ int row_of(const attention_job &job, const piece &p, int token)
{
    return (p.pages[token / job.page_tokens] * job.kv_heads + p.kv_head) * job.page_tokens + token % job.page_tokens;
}

// All of its tokens are there: by the copy engine, for which one thread asks.
template <int PAIR>
static __device__ __forceinline__ void bring_whole(const attention_job &job, const piece &p, const CUtensorMap *boxes,
                                                   stage *tile, uint64_t *full, int token)
{
    if (threadIdx.x > 0) {
        barrier_arrive(full);
        return;
    }
    barrier_expect(full, sizeof(stage));
    // Of a pair each brings half of it, for both.
    int own = blockIdx.x % PAIR * PAGE_PART;
#pragma unroll
    for (int part = own; part < own + TOKENS / PAIR; part += PAGE_PART) {
        int row = row_of(job, p, token + part);
        bring_box_to((1 << PAIR) - 1, &tile->units[place_of(part, 0, TOKENS)], boxes, 0, row, full);
        bring_box_to((1 << PAIR) - 1, &tile->units[place_of(part, PANEL_UNITS, TOKENS)], boxes, CUDA_BOX_COLUMNS, row,
                     full);
    }
}

// The sequence ends in it: zeros behind the end, since what lies there may be no number even times a weight of 0.
static __device__ __forceinline__ void bring_end(const attention_job &job, const piece &p, const void *all, stage *tile,
                                                 uint64_t *full, int token)
{
    int unit = threadIdx.x % ROW_UNITS, first = threadIdx.x / ROW_UNITS;
#pragma unroll 1 // registers are few
    for (int part = 0; part < TOKENS; part += PAGE_PART) {
        int64_t row = token + part < p.length ? row_of(job, p, token + part) : 0;
        const bf16 *from = (const bf16 *)all + row * SIZE + 8 * unit;
#pragma unroll 1
        for (int own = first; own < PAGE_PART; own += 128 / ROW_UNITS) {
            copy_async(&tile->units[place_of(part + own, unit, TOKENS)], from + own * SIZE,
                       token + part + own < p.length);
        }
    }
    barrier_arrive_with_copies(full);
}

template <int PAIR>
static __device__ __forceinline__ void bring_tile(const attention_job &job, const piece &p, const void *all,
                                                  const CUtensorMap *boxes, stage *tile, uint64_t *full, int token)
{
    if (token + TOKENS <= p.length) {
        bring_whole<PAIR>(job, p, boxes, tile, full, token);
    } else {
        bring_end(job, p, all, tile, full, token);
    }
}

// By one thread.
static __device__ __forceinline__ void bring_queries(const CUtensorMap *boxes, long_tiles &tiles, const piece &p,
                                                     int parity)
{
    for (int reader = 0; reader < READERS; reader++) {
        queries *q = &tiles.q[reader];
        uint64_t *full = &tiles.q_full[reader];
        int row = p.first + 64 * reader; // those behind the sequence's last give results that are not written
        barrier_wait(&tiles.q_free[reader], parity);
        barrier_expect(full, sizeof(queries));
        bring_box(&q->units[place_of(0, 0, 64)], boxes, p.head * SIZE, row, full);
        bring_box(&q->units[place_of(0, PANEL_UNITS, 64)], boxes, p.head * SIZE + CUDA_BOX_COLUMNS, row, full);
    }
}

template <int PAIR>
static __device__ __forceinline__ void bring_all(const attention_job &job, const CUtensorMap *q, const CUtensorMap *k,
                                                 const CUtensorMap *v, long_tiles &tiles, int pieces)
{
    uint32_t use = 0, done = 0; // tiles and pieces so far
    piece p;
    for (int round = 0; number_of<PAIR>(round) < pieces; round++) {
        if (!find_piece<PAIR>(job, number_of<PAIR>(round), p)) {
            continue;
        }
        for (int token = 0; token < p.seen; token += TOKENS, use++) {
            uint32_t at = use % STAGES, before = parity_of<STAGES>(use) ^ 1;
#pragma unroll 1 // registers are few
            for (int side = 0; side < SIDES; side++) {
                barrier_wait(&tiles.free[side][at], before);
                bring_tile<PAIR>(job, p, side == K ? job.k : job.v, side == K ? k : v, &tiles.kv[side][at],
                                 &tiles.full[side][at], token);
                if (token == 0 && side == K && threadIdx.x == 0) {
                    bring_queries(q, tiles, p, parity_of<1>(done) ^ 1);
                }
            }
        }
        done++;
    }
}

// ---- Those that attend

// is_whole: it came by the copy engine.
static __device__ __forceinline__ void wait_for_tile(uint64_t *full, int parity, int is_whole)
{
    barrier_wait(full, parity);
    if (!is_whole) {
        publish_shared(); // what others copied, to this warpgroup's products
    }
}

// By each warp.
static __device__ __forceinline__ void let_go(uint64_t *free)
{
    if (threadIdx.x % 32 == 0) {
        barrier_arrive(free);
    }
}

// In all blocks of a pair.
template <int PAIR> static __device__ __forceinline__ void let_go_tile(uint64_t *free)
{
    int lane = threadIdx.x % 32;
    if (lane < PAIR) {
        barrier_arrive_in(free, lane);
    }
}

// Products of the two take turns, so that a softmax runs beside the other's products, not half as fast beside half of
// them. Barrier TURNS + reader: the other has let this one begin.
static __device__ __forceinline__ void take_turn(int reader)
{
    meet(TURNS + reader, 128 * READERS);
}

static __device__ __forceinline__ void end_turn(int reader)
{
    announce(TURNS + READERS - 1 - reader, 128 * READERS);
}

// use: the tiles before. Returns those with this piece's.
template <int PAIR>
static __device__ __forceinline__ uint32_t attend(const attention_job &job, long_tiles &tiles, const piece &piece,
                                                  int reader, int row, uint32_t use, float (&o)[SIZE / 2],
                                                  softmax &state)
{
    float scale = job.scale * 1.4426950408889634f, s[TOKENS / 2], old[2];
    uint32_t p[TOKENS / 16][4];
    uint32_t q = shared_address(&tiles.q[reader]) / 16, k = shared_address(tiles.kv[K]) / 16;
    uint32_t v = shared_address(tiles.kv[V]) / 16;
    const int stage_units = sizeof(stage) / 16;
    int visible = piece.visible + 64 * reader, seen = piece.seen, length = piece.length;
    uint32_t at = use % STAGES;
    wait_for_tile(&tiles.full[K][at], parity_of<STAGES>(use), TOKENS <= length);
    products_begin();
    score<SIZE, 64, TOKENS>(s, q, k + at * stage_units);
    products_wait<0>();
    let_go_tile<PAIR>(&tiles.free[K][at]);
    if (TOKENS > visible) {
        mask<TOKENS>(s, 0, visible, 1, row);
    }
    soften<TOKENS>(state, s, old, scale);
    pack_weights<TOKENS>(p, s);
    use++;
    for (int token = TOKENS; token < seen; token += TOKENS) {
        uint32_t now = use % STAGES, last = (use - 1) % STAGES;
        wait_for_tile(&tiles.full[K][now], parity_of<STAGES>(use), token + TOKENS <= length);
        take_turn(reader);
        products_begin();
        score<SIZE, 64, TOKENS>(s, q, k + now * stage_units);
        wait_for_tile(&tiles.full[V][last], parity_of<STAGES>(use - 1), 1); // the sequence does not end there
        weigh<SIZE, TOKENS>(o, p, v + last * stage_units);
        end_turn(reader);
        products_wait<1>();
        let_go_tile<PAIR>(&tiles.free[K][now]);
        if (token + TOKENS > visible) {
            mask<TOKENS>(s, token, visible, 1, row);
        }
        soften<TOKENS>(state, s, old, scale);
        // Seldom, behind the first tiles. The branch also keeps the compiler from waiting before the softmax.
        if (__any_sync(0xffffffffu, old[0] != 1 || old[1] != 1)) {
            products_wait<0>();
            shrink<SIZE>(o, old);
        }
        products_wait<0>();
        let_go_tile<PAIR>(&tiles.free[V][last]);
        pack_weights<TOKENS>(p, s);
        use++;
    }
    let_go(&tiles.q_free[reader]);
    uint32_t last = (use - 1) % STAGES;
    wait_for_tile(&tiles.full[V][last], parity_of<STAGES>(use - 1), (seen + TOKENS - 1) / TOKENS * TOKENS <= length);
    products_begin();
    weigh<SIZE, TOKENS>(o, p, v + last * stage_units);
    products_wait<0>();
    let_go_tile<PAIR>(&tiles.free[V][last]);
    return use;
}

template <int PAIR>
static __device__ __forceinline__ void attend_all(const attention_job &job, long_tiles &tiles, int reader, int pieces)
{
    int row = threadIdx.x / 32 % 4 * 16 + threadIdx.x % 32 / 4; // this lane's first of the 64
    uint32_t use = 0, done = 0;                                 // tiles and pieces so far
    piece p;
    if (reader == 1) {
        end_turn(reader); // the other goes first
    }
    for (int round = 0; number_of<PAIR>(round) < pieces; round++) {
        if (!find_piece<PAIR>(job, number_of<PAIR>(round), p)) {
            continue;
        }
        float o[SIZE / 2] = {};
        softmax state = {{-INFINITY, -INFINITY}, {0, 0}};
        barrier_wait(&tiles.q_full[reader], parity_of<1>(done));
        use = attend<PAIR>(job, tiles, p, reader, row, use, o, state);
        put<SIZE>(job, state, o, tiles.y[reader], row, p.first + 64 * reader, p.left - 64 * reader, p.head);
        done++;
    }
    if (reader == 0) {
        take_turn(reader); // as often as the other gave it
    }
}

template <int PAIR> static __device__ __forceinline__ void create_barriers(long_tiles &tiles)
{
    if (threadIdx.x == 0) {
        for (int i = 0; i < READERS; i++) {
            barrier_create(&tiles.q_full[i], 1);
            barrier_create(&tiles.q_free[i], 4);
        }
        for (int i = 0; i < STAGES; i++) {
            for (int side = 0; side < SIDES; side++) {
                barrier_create(&tiles.full[side][i], 128);
                barrier_create(&tiles.free[side][i], 4 * READERS * PAIR);
            }
        }
        publish_barriers();
        publish_barriers_to_cluster();
    }
    cluster_meet();
}

template <int PAIR>
static __global__ void __launch_bounds__(THREADS, 1)
    attention_long(const attention_job job, const __grid_constant__ CUtensorMap q,
                   const __grid_constant__ CUtensorMap k, const __grid_constant__ CUtensorMap v, int pieces)
{
    extern __shared__ __align__(1024) unsigned char dynamic[]; // as panels must be
    long_tiles &tiles = *(long_tiles *)dynamic;
    int group = __shfl_sync(0xffffffffu, (int)threadIdx.x / 128, 0); // the compiler sees that a warp has one
    create_barriers<PAIR>(tiles);
    if (group == 0) {
        give_registers_up<56>();
        bring_all<PAIR>(job, &q, &k, &v, tiles, pieces);
    } else {
        take_registers<224>();
        attend_all<PAIR>(job, tiles, group - 1, pieces);
    }
    cluster_meet(); // the other block may still write to this one
}

template <int PAIR>
static void launch(struct sl_stream *stream, const struct attention_job *job, const CUtensorMap *maps)
{
    int pieces = (job->max_rows + ROWS - 1) / ROWS * job->heads / PAIR * job->sequences, clusters = 0;
    cudaLaunchAttribute attribute = {};
    attribute.id = cudaLaunchAttributeClusterDimension;
    attribute.val.clusterDim.x = PAIR;
    attribute.val.clusterDim.y = attribute.val.clusterDim.z = 1;
    cudaLaunchConfig_t config = {};
    config.blockDim = dim3(THREADS);
    config.gridDim = dim3((unsigned)pieces * PAIR);
    config.dynamicSmemBytes = sizeof(long_tiles);
    config.stream = stream->native;
    config.attrs = &attribute;
    config.numAttrs = 1;
    if (!allow_shared(stream, attention_long<PAIR>, sizeof(long_tiles)) ||
        !cuda_check(stream, cudaOccupancyMaxActiveClusters(&clusters, attention_long<PAIR>, &config), "clusters")) {
        return;
    }
    clusters = clusters > 1 ? clusters : 1; // then the launch says what is missing
    config.gridDim = dim3((unsigned)(pieces < clusters ? pieces : clusters) * PAIR);
    cuda_check(stream, cudaLaunchKernelEx(&config, attention_long<PAIR>, *job, maps[0], maps[1], maps[2], pieces),
               "attention");
}

int cuda_attention_long(struct sl_stream *stream, const struct attention_job *job)
{
    if (job->is_f32 || !job->is_paged || job->d != SIZE || !in_words(job->q, job->q_stride) ||
        !in_words(job->y, job->y_stride) || !in_words(job->k, SIZE) || !in_words(job->v, SIZE) ||
        job->page_tokens % PAGE_PART != 0) {
        return 0;
    }
    CUtensorMap maps[3];
    int64_t tokens = job->pages * job->kv_heads * job->page_tokens;
    if (cuda_boxes(stream, &maps[0], job->q, job->rows, job->q_stride, 64) &&
        cuda_boxes(stream, &maps[1], job->k, tokens, SIZE, PAGE_PART) &&
        cuda_boxes(stream, &maps[2], job->v, tokens, SIZE, PAGE_PART)) {
        if (job->heads / job->kv_heads % 2 == 0) {
            launch<2>(stream, job, maps);
        } else {
            launch<1>(stream, job, maps);
        }
    }
    return 1;
}
