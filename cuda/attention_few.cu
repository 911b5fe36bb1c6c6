// SPDX-License-Identifier: Apache-2.0
// Attention of one row for each sequence: bound by reading keys and values once, so all query heads of a key head go
// together, as the 16 rows of a tensor core's product.
//
// A sequence's tokens are split over blocks; in a block each warp has its own tokens, 16 at a time, three such tiles
// under way. Warps are added up in shared memory, blocks in device memory (Flash-Decoding, Dao et al. 2023): the blocks
// of a key head wait for each other there, and each adds up its share of the result. One block alone would be long at
// it, with all others idle.
//
// Of what the kernels of a step write this reads the new rows alone: the other tokens, and the tables, were there
// before the step began. So tiles come before the kernel before is done, but for the newest token: where that comes
// from the cache, the block that has it waits first.
//
// With TURNS, queries and the newest key and value come as the product left them: each block norms and turns its own
// queries, and the one that has the newest token also its key, and puts key and value to their page. It attends to them
// by way of shared memory, into the tile that came without them.
#include "cuda/attention.h"
#include "cuda/ops.h"
#include "cuda/rope.cuh"
#include "cuda/tensor.cuh"

enum { WARPS = 4, THREADS = 32 * WARPS, TOKENS = 16, STAGES = 3, QUERIES = 16, MOST_SPLITS = 32 };

template <int SIZE> struct warp_tiles {
    bf16 k[STAGES][TOKENS][SIZE + 8], v[STAGES][TOKENS][SIZE + 8];
};

template <int SIZE> union shared_few {
    warp_tiles<SIZE> tiles[WARPS];
    float o[WARPS][QUERIES][SIZE]; // afterwards: what each warp has summed
};

// Of each warp's sums the queries' maxima, in powers of two, and sums of weights.
struct warp_ends {
    float most[WARPS][QUERIES], total[WARPS][QUERIES];
};

// How queries and the newest key are normed and turned.
struct turns {
    rope_angles angles;
    const bf16 *q_norm, *k_norm;
    float eps;
};

struct split_job {
    attention_job job;
    turns turns;
    int splits;
    float *partial;    // [sequences, kv_heads, splits, QUERIES, part_width]: sums, maximum, total
    int32_t *counters; // [sequences, kv_heads, 2]: blocks that came to the meeting, and that left it
};

// Of a query's part of one split, in whole words of four.
template <int SIZE> static __host__ __device__ constexpr int part_width()
{
    return SIZE + 4;
}

// --- what a block does ---

// A key head of a sequence's only row, over some of the tokens.
struct piece {
    int b, kv_head, row;
    int begin, end;         // tokens
    int newest, has_newest; // the sequence's last token, and whether it is one of them
    int known;              // the end of those that come from the cache
    int blocks;             // that have tokens of this sequence
};

// 0: there are no tokens for this block, or the sequence is for another kernel.
template <bool TURNS> static __device__ __forceinline__ int find_piece(const split_job &s, piece &p)
{
    const attention_job &job = s.job;
    p.b = blockIdx.z;
    p.kv_head = blockIdx.y;
    p.row = job.row_start[p.b];
    int rows = job.row_start[p.b + 1] - p.row, length = job.kv_length[p.b];
    int each = ((length + TOKENS - 1) / TOKENS + s.splits - 1) / s.splits * TOKENS;
    p.begin = (int)blockIdx.x * each;
    p.end = p.begin + each < length ? p.begin + each : length;
    p.newest = length - 1;
    p.has_newest = p.end == length;
    p.known = TURNS && p.has_newest ? p.newest : p.end;
    p.blocks = (length + each - 1) / each;
    return rows == 1 && p.begin < p.end;
}

// Query heads of a key head.
static __device__ __forceinline__ int group_of(const attention_job &job)
{
    return job.heads / job.kv_heads;
}

static __device__ __forceinline__ int first_token_of_warp(const piece &p)
{
    return p.begin + (int)threadIdx.x / 32 * TOKENS;
}

static __device__ __forceinline__ int64_t slot_of(const attention_job &job, const piece &p, int token)
{
    int64_t page = job.page_table[p.b * job.page_stride + token / job.page_tokens];
    return (page * job.kv_heads + p.kv_head) * job.page_tokens + token % job.page_tokens;
}

// --- tiles of keys and values ---

// Zeros from `known` on and beyond d.
template <int SIZE>
static __device__ __forceinline__ void bring_tile(warp_tiles<SIZE> &tiles, int stage, const attention_job &job,
                                                  const piece &p, int token)
{
    const int words = SIZE / 8;
    int64_t slot = token < p.known ? slot_of(job, p, token) : 0;
    for (int i = threadIdx.x % 32; i < TOKENS * words; i += 32) {
        int row = i / words, word = i % words, valid = token + row < p.known && 8 * word < job.d;
        int64_t at = valid ? (slot + row) * job.d + 8 * word : 0;
        copy_async(&tiles.k[stage][row][8 * word], (const bf16 *)job.k + at, valid);
        copy_async(&tiles.v[stage][row][8 * word], (const bf16 *)job.v + at, valid);
    }
    copies_commit();
}

template <int SIZE, bool TURNS>
static __device__ __forceinline__ void bring_first_tiles(warp_tiles<SIZE> &tiles, const attention_job &job,
                                                         const piece &p)
{
    if (!TURNS && p.has_newest) {
        wait_for_previous(); // which puts it to the cache
    }
    for (int i = 0; i < STAGES; i++) {
        bring_tile<SIZE>(tiles, i, job, p, first_token_of_warp(p) + i * WARPS * TOKENS);
    }
}

// --- queries and the newest token ---

// What a block turns itself. Filled in two parts: what is constant, then what the product before gives.
template <int SIZE> struct turned {
    float cosine[SIZE / 2], sine[SIZE / 2], q_norm[SIZE], k_norm[SIZE];
    bf16 q[QUERIES][SIZE], k[SIZE], v[SIZE];
};

template <int SIZE>
static __device__ __forceinline__ void prepare_turns(turned<SIZE> &t, const turns &turns, int row, int d)
{
    for (int i = threadIdx.x; i < d; i += THREADS) {
        t.q_norm[i] = __bfloat162float(turns.q_norm[i]);
        t.k_norm[i] = __bfloat162float(turns.k_norm[i]);
        if (i < d / 2) {
            angle_of(turns.angles, row, i, &t.cosine[i], &t.sine[i]);
        }
    }
    __syncthreads();
}

// A warp for each query of the key head; where the newest token is, one for its key and one for its value. `slot`:
// where in the cache that token lies.
template <int SIZE>
static __device__ __forceinline__ void turn(turned<SIZE> &t, const split_job &s, const piece &p, int64_t slot)
{
    const attention_job &job = s.job;
    int warp = threadIdx.x / 32, lane = threadIdx.x % 32, group = group_of(job), d = job.d;
    int has_newest = p.has_newest;
    const bf16 *q = (const bf16 *)job.q + p.row * job.q_stride, *k = q + (int64_t)(job.heads + p.kv_head) * d;
    const bf16 *v = k + (int64_t)job.kv_heads * d;
    for (int i = warp; i < group + 2 * has_newest; i += WARPS) {
        if (i < group) {
            norm_and_turn<1>(q + (int64_t)(p.kv_head * group + i) * d, t.q_norm, d / 2, s.turns.eps, t.cosine, t.sine,
                             t.q[i]);
        } else if (i == group) {
            norm_and_turn<1>(k, t.k_norm, d / 2, s.turns.eps, t.cosine, t.sine, t.k);
        } else {
            for (int w = lane; w < d / 2; w += 32) {
                ((uint32_t *)t.v)[w] = ((const uint32_t *)v)[w];
            }
        }
    }
    __syncthreads();
    for (int w = threadIdx.x; w < d / 8 && has_newest; w += THREADS) {
        ((uint4 *)((bf16 *)job.k + slot * d))[w] = ((const uint4 *)t.k)[w];
        ((uint4 *)((bf16 *)job.v + slot * d))[w] = ((const uint4 *)t.v)[w];
    }
}

// Queries as A: rows beyond the group and columns beyond d are zero.
template <int SIZE>
static __device__ __forceinline__ void load_queries(uint32_t a[SIZE / 16][4], const bf16 *q, int group, int d,
                                                    int pitch)
{
    int lane = threadIdx.x % 32, g = lane / 4, c = lane % 4 * 2;
#pragma unroll
    for (int step = 0; step < SIZE / 16; step++) {
#pragma unroll
        for (int i = 0; i < 4; i++) {
            int row = g + i % 2 * 8, column = 16 * step + c + i / 2 * 8;
            a[step][i] = row < group && column < d ? *(const uint32_t *)(q + row * pitch + column) : 0;
        }
    }
}

// The queries of this key head as A, once the kernel before is done.
template <int SIZE, bool TURNS>
static __device__ __forceinline__ void take_queries(uint32_t a[SIZE / 16][4], turned<TURNS ? SIZE : 16> &own,
                                                    const split_job &s, const piece &p)
{
    const attention_job &job = s.job;
    if constexpr (TURNS) {
        int64_t slot = slot_of(job, p, p.newest);
        prepare_turns<SIZE>(own, s.turns, p.row, job.d);
        wait_for_previous();
        turn<SIZE>(own, s, p, slot);
        load_queries<SIZE>(a, own.q[0], group_of(job), job.d, SIZE);
    } else {
        wait_for_previous();
        const bf16 *q = (const bf16 *)job.q + p.row * job.q_stride + (int64_t)p.kv_head * group_of(job) * job.d;
        load_queries<SIZE>(a, q, group_of(job), job.d, job.d);
    }
}

// The newest token into its place in a tile that came without it.
template <int SIZE>
static __device__ __forceinline__ void put_newest(warp_tiles<SIZE> &tiles, int stage, int place, const turned<SIZE> &t,
                                                  int d)
{
    int lane = threadIdx.x % 32;
    if (8 * lane < d) {
        *(uint4 *)&tiles.k[stage][place][8 * lane] = ((const uint4 *)t.k)[lane];
        *(uint4 *)&tiles.v[stage][place][8 * lane] = ((const uint4 *)t.v)[lane];
    }
    __syncwarp();
}

// --- attending ---

// What a warp has summed so far of a lane's two queries, g and g + 8; maxima are in powers of two.
template <int SIZE> struct sums {
    float o[SIZE / 8][4], most[2], total[2];
};

// Scores of a tile of tokens from `token` on become weights; what was summed so far shrinks with them.
template <int SIZE>
static __device__ __forceinline__ void soften(sums<SIZE> &sum, float (&score)[2][4], int token, int end, float scale)
{
#pragma unroll
    for (int half = 0; half < 2; half++) {
        float larger = sum.most[half];
#pragma unroll
        for (int i = 0; i < 4; i++) {
            int n = i / 2, c = 2 * half + i % 2, at = token + 8 * n + threadIdx.x % 4 * 2 + i % 2;
            score[n][c] = at < end ? score[n][c] * scale : -INFINITY;
            larger = fmaxf(larger, score[n][c]);
        }
        larger = maximum_of_four(larger); // finite: a tile has one token at least
        float old = power_of_two(sum.most[half] - larger), total = 0;
        sum.most[half] = larger;
#pragma unroll
        for (int i = 0; i < 4; i++) {
            int n = i / 2, c = 2 * half + i % 2;
            score[n][c] = power_of_two(score[n][c] - larger);
            total += score[n][c];
        }
        sum.total[half] = sum.total[half] * old + total;
#pragma unroll
        for (int n = 0; n < SIZE / 8; n++) {
            sum.o[n][2 * half] *= old;
            sum.o[n][2 * half + 1] *= old;
        }
    }
}

// By a warp: a tile that is there, for the queries `a`.
template <int SIZE>
static __device__ __forceinline__ void attend(sums<SIZE> &sum, const uint32_t a[SIZE / 16][4],
                                              const warp_tiles<SIZE> &tiles, int stage, int token, int end, float scale)
{
    int lane = threadIdx.x % 32;
    float score[2][4] = {};
#pragma unroll
    for (int step = 0; step < SIZE / 16; step++) {
        uint32_t k[4];
        load_matrices(k, &tiles.k[stage][lane % 8 + lane / 16 * 8][16 * step + lane / 8 % 2 * 8]);
        multiply_add(score[0], a[step], k[0], k[1]);
        multiply_add(score[1], a[step], k[2], k[3]);
    }
    soften<SIZE>(sum, score, token, end, scale);
    uint32_t p[4] = {pack(score[0][0], score[0][1]), pack(score[0][2], score[0][3]), pack(score[1][0], score[1][1]),
                     pack(score[1][2], score[1][3])};
#pragma unroll
    for (int n = 0; n < SIZE / 16; n++) {
        uint32_t v[4];
        load_transposed(v, &tiles.v[stage][lane % 16][16 * n + lane / 16 * 8]);
        multiply_add(sum.o[2 * n], p, v[0], v[1]);
        multiply_add(sum.o[2 * n + 1], p, v[2], v[3]);
    }
}

// A warp's tiles, one after the other.
template <int SIZE, bool TURNS>
static __device__ __forceinline__ void attend_all(sums<SIZE> &sum, const uint32_t a[SIZE / 16][4],
                                                  warp_tiles<SIZE> &tiles, const turned<TURNS ? SIZE : 16> &own,
                                                  const attention_job &job, const piece &p)
{
    float scale = job.scale * 1.4426950408889634f;
    int stage = 0;
    for (int token = first_token_of_warp(p); token < p.end; token += WARPS * TOKENS, stage = (stage + 1) % STAGES) {
        copies_wait<STAGES - 1>();
        __syncwarp();
        if constexpr (TURNS) {
            if (token <= p.newest && p.newest < token + TOKENS) {
                put_newest<SIZE>(tiles, stage, p.newest - token, own, job.d);
            }
        }
        attend<SIZE>(sum, a, tiles, stage, token, p.end, scale);
        __syncwarp();
        bring_tile<SIZE>(tiles, stage, job, p, token + STAGES * WARPS * TOKENS);
    }
    copies_wait<0>();
}

// --- the warps become the block's part ---

// What each warp has summed, to shared memory, in place of the tiles.
template <int SIZE> static __device__ void put_warp(shared_few<SIZE> &shared, warp_ends &ends, const sums<SIZE> &sum)
{
    int warp = threadIdx.x / 32, g = threadIdx.x % 32 / 4, q = threadIdx.x % 4;
    __syncthreads(); // the tiles are no longer read
#pragma unroll
    for (int half = 0; half < 2; half++) {
        float total = sum_of_four(sum.total[half]);
        if (q == 0) {
            ends.most[warp][g + 8 * half] = sum.most[half];
            ends.total[warp][g + 8 * half] = total;
        }
#pragma unroll
        for (int n = 0; n < SIZE / 8; n++) {
            shared.o[warp][g + 8 * half][8 * n + 2 * q] = sum.o[n][2 * half];
            shared.o[warp][g + 8 * half][8 * n + 2 * q + 1] = sum.o[n][2 * half + 1];
        }
    }
    __syncthreads();
}

static __device__ __forceinline__ void put(const attention_job &job, const piece &p, int head, int column, float4 value)
{
    bf16 *y = (bf16 *)job.y + (int64_t)job.row_start[p.b] * job.y_stride + (int64_t)head * job.d;
    *(uint2 *)(y + column) = make_uint2(pack(value.x, value.y), pack(value.z, value.w));
}

static __device__ __forceinline__ float4 scaled(const float4 &x, float scale)
{
    return make_float4(scale * x.x, scale * x.y, scale * x.z, scale * x.w);
}

// The block's part, or where it is the only one the result. `partial`: of the key head.
template <int SIZE>
static __device__ void put_block(const attention_job &job, const piece &p, const shared_few<SIZE> &shared,
                                 const warp_ends &ends, float *partial)
{
    int words = job.d / 4, group = group_of(job);
    for (int i = threadIdx.x; i < group * words; i += THREADS) {
        int query = i / words, column = i % words * 4;
        float most = -INFINITY, total = 0;
        float4 sum = make_float4(0, 0, 0, 0);
#pragma unroll
        for (int w = 0; w < WARPS; w++) {
            most = fmaxf(most, ends.most[w][query]);
        }
#pragma unroll
        for (int w = 0; w < WARPS; w++) {
            float weight = power_of_two(ends.most[w][query] - most); // 0 of a warp without tokens
            float4 part = scaled(*(const float4 *)&shared.o[w][query][column], weight);
            sum = make_float4(sum.x + part.x, sum.y + part.y, sum.z + part.z, sum.w + part.w);
            total += weight * ends.total[w][query];
        }
        if (p.blocks == 1) {
            put(job, p, p.kv_head * group + query, column, scaled(sum, 1 / total));
        } else {
            float *to = partial + ((int64_t)blockIdx.x * QUERIES + query) * part_width<SIZE>();
            *(float4 *)(to + column) = sum;
            if (column == 0) {
                *(float2 *)(to + SIZE) = make_float2(most, total);
            }
        }
    }
}

// --- the blocks become the result ---

// Until all `count` blocks of this key head are here, each with its part written. It does not last, as blocks begin in
// the order of their numbers, a key head's one after another, and splits_of() leaves room for those of several kernels.
static __device__ __forceinline__ void wait_for_blocks(int32_t *arrived, int count)
{
    __syncthreads();
    if (threadIdx.x == 0) {
        int here = 0;
        asm volatile("red.release.gpu.global.add.s32 [%0], 1;" ::"l"(arrived) : "memory");
        while (here < count) {
            asm volatile("ld.relaxed.gpu.global.s32 %0, [%1];" : "=r"(here) : "l"(arrived) : "memory");
        }
        asm volatile("fence.acq_rel.gpu;" ::: "memory");
    }
    __syncthreads();
}

// A lane's part of a word of four columns of a query: what its split has, weighed; afterwards, of all splits.
struct word_part {
    float4 sum;
    float total;
};

// Over each `lanes` lanes, a power of two.
static __device__ __forceinline__ void add_lanes(word_part &part, int lanes)
{
    for (int offset = lanes / 2; offset > 0; offset /= 2) {
        part.sum.x += __shfl_xor_sync(0xffffffffu, part.sum.x, offset);
        part.sum.y += __shfl_xor_sync(0xffffffffu, part.sum.y, offset);
        part.sum.z += __shfl_xor_sync(0xffffffffu, part.sum.z, offset);
        part.sum.w += __shfl_xor_sync(0xffffffffu, part.sum.w, offset);
        part.total += __shfl_xor_sync(0xffffffffu, part.total, offset);
    }
}

static __device__ __forceinline__ float maximum_of_lanes(float x, int lanes)
{
    for (int offset = lanes / 2; offset > 0; offset /= 2) {
        x = fmaxf(x, __shfl_xor_sync(0xffffffffu, x, offset));
    }
    return x;
}

// The block's share of the key head's result, in words of four columns of a query: a lane for each split, two words
// at once.
template <int SIZE> static __device__ void add_splits(const attention_job &job, const piece &p, const float *partial)
{
    int lanes = 1, words = job.d / 4, group = group_of(job), count = p.blocks;
    while (lanes < count) {
        lanes *= 2;
    }
    int split = (int)threadIdx.x % lanes, apart = THREADS / lanes, share = (group * words + count - 1) / count;
    for (int begin = 0; begin < share; begin += 2 * apart) { // by all threads, as lanes ask each other
        int first = begin + (int)threadIdx.x / lanes;
        float2 ends[2]; // maximum and total
        word_part part[2] = {};
        int query[2], column[2], is_word[2];
#pragma unroll
        for (int i = 0; i < 2; i++) {
            int own = first + i * apart, word = blockIdx.x * share + own;
            is_word[i] = own < share && word < group * words;
            query[i] = is_word[i] ? word / words : 0;
            column[i] = is_word[i] ? word % words * 4 : 0;
            const float *from = partial + ((split < count ? split : 0) * QUERIES + query[i]) * part_width<SIZE>();
            ends[i] = __ldcg((const float2 *)(from + SIZE));
            part[i].sum = __ldcg((const float4 *)(from + column[i]));
        }
#pragma unroll
        for (int i = 0; i < 2; i++) {
            float most = maximum_of_lanes(split < count ? ends[i].x : -INFINITY, lanes);
            float weight = split < count ? power_of_two(ends[i].x - most) : 0;
            part[i] = {scaled(part[i].sum, weight), weight * ends[i].y};
            add_lanes(part[i], lanes);
            if (split == 0 && is_word[i]) {
                put(job, p, p.kv_head * group + query[i], column[i], scaled(part[i].sum, 1 / part[i].total));
            }
        }
    }
}

// The other blocks' parts, too, become the result. The last block to leave makes the counters what they were.
template <int SIZE>
static __device__ void meet_and_add(const split_job &s, const piece &p, int place, const float *partial)
{
    int32_t *arrived = s.counters + 2 * place, *left = arrived + 1;
    int before = 0;
    wait_for_blocks(arrived, p.blocks);
    if (threadIdx.x == 0) {
        before = atomicAdd(left, 1);
    }
    add_splits<SIZE>(s.job, p, partial);
    if (threadIdx.x == 0 && before == p.blocks - 1) {
        *arrived = 0;
        *left = 0;
    }
}

// --- the operation ---

template <int SIZE, bool TURNS> static __global__ void __launch_bounds__(THREADS, 3) attention_few(const split_job s)
{
    extern __shared__ __align__(16) unsigned char dynamic[];
    __shared__ warp_ends ends;
    __shared__ __align__(16) turned<TURNS ? SIZE : 16> own;
    shared_few<SIZE> &shared = *(shared_few<SIZE> *)dynamic;
    piece p;
    int has_work = find_piece<TURNS>(s, p);
    let_next_begin();
    if (!has_work) {
        wait_for_previous(); // a kernel is not done before those that it overlaps
        return;
    }
    warp_tiles<SIZE> &tiles = shared.tiles[threadIdx.x / 32];
    uint32_t a[SIZE / 16][4];
    sums<SIZE> sum = {{}, {-INFINITY, -INFINITY}, {}};
    bring_first_tiles<SIZE, TURNS>(tiles, s.job, p);
    take_queries<SIZE, TURNS>(a, own, s, p);
    attend_all<SIZE, TURNS>(sum, a, tiles, own, s.job, p);
    put_warp<SIZE>(shared, ends, sum);
    int place = p.b * s.job.kv_heads + p.kv_head;
    float *partial = s.partial + (int64_t)place * s.splits * QUERIES * part_width<SIZE>();
    put_block<SIZE>(s.job, p, shared, ends, partial);
    if (p.blocks > 1) {
        meet_and_add<SIZE>(s, p, place, partial);
    }
}

// Of one sequence a block for each multiprocessor, so that the next kernel has room beside it. Of more two: reading
// keys and values is most of the work then. A key head's blocks wait for each other. Were all multiprocessors taken by
// blocks that wait for some that find no room, it would be for ever; as two fit into each, that takes eight kernels or
// more at the same time.
static int splits_of(const struct sl_stream *stream, const struct attention_job *job)
{
    int blocks = (job->sequences > 1 ? 2 : 1) * stream->device->multiprocessors;
    int splits = blocks / (job->sequences * job->kv_heads), most = 1 + stream->device->multiprocessors / 4;
    most = most < MOST_SPLITS ? most : MOST_SPLITS;
    return splits < 2 ? 2 : splits > most ? most : splits;
}

template <int SIZE, bool TURNS>
static void launch(struct sl_stream *stream, const struct attention_job *job, const turns &turns)
{
    split_job s = {};
    s.job = *job;
    s.turns = turns;
    s.splits = splits_of(stream, job);
    int64_t width = (int64_t)QUERIES * part_width<SIZE>() * (int64_t)sizeof(float);
    s.partial = (float *)cuda_scratch(stream, CUDA_SLOT_A, (int64_t)job->sequences * job->kv_heads * s.splits * width);
    s.counters = stream->counters;
    size_t shared = sizeof(shared_few<SIZE>);
    if (s.partial != NULL && allow_shared(stream, attention_few<SIZE, TURNS>, shared) &&
        share_multiprocessor(stream, attention_few<SIZE, TURNS>)) {
        dim3 grid((unsigned)s.splits, (unsigned)job->kv_heads, (unsigned)job->sequences);
        launch_overlapping(stream, attention_few<SIZE, TURNS>, grid, THREADS, shared, s);
    }
}

template <bool TURNS> static void launch_any(struct sl_stream *stream, const struct attention_job *job, const turns &t)
{
    if (job->d <= 64) {
        launch<64, TURNS>(stream, job, t);
    } else if (job->d <= 80) {
        launch<80, TURNS>(stream, job, t);
    } else {
        launch<128, TURNS>(stream, job, t);
    }
}

static int takes(const struct attention_job *job)
{
    return !job->is_f32 && job->d <= 128 && job->d % 8 == 0 && job->q_stride % 2 == 0 && job->y_stride % 4 == 0 &&
           (uintptr_t)job->y % 8 == 0 && job->heads / job->kv_heads <= QUERIES && job->page_tokens % TOKENS == 0 &&
           (int64_t)job->sequences * job->kv_heads * 2 <= CUDA_COUNTERS;
}

int cuda_attention_few(struct sl_stream *stream, const struct attention_job *job)
{
    if (!takes(job)) {
        return 0;
    }
    launch_any<false>(stream, job, turns{});
    return 1;
}

int cuda_turn_and_attend(struct sl_stream *stream, const struct sl_ragged *ragged, const struct sl_tensor *qkv,
                         int heads, const struct sl_tensor *q_norm, const struct sl_tensor *k_norm, float eps,
                         const struct sl_rope *rope, const struct sl_kv_layer *kv, const struct sl_tensor *y)
{
    attention_job job = cuda_attention_job(ragged, qkv, heads, kv, y);
    if (ragged->rows != ragged->sequences || ragged->max_rows != 1 || !takes(&job)) {
        return 0;
    }
    if (cuda_begin(stream)) {
        turns t = {angles_of(rope, ragged), (const bf16 *)q_norm->data, (const bf16 *)k_norm->data, eps};
        launch_any<true>(stream, &job, t);
        cuda_launched(stream, "attention of new tokens");
    }
    return 1;
}
