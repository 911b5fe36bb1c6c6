// SPDX-License-Identifier: Apache-2.0
// Attention of many rows on the tensor cores, with the softmax carried along (FlashAttention-2, Dao 2023), and the
// scores of the next tokens computed while the last ones' values are weighed (FlashAttention-3, Shah et al. 2024).
//
// A warpgroup takes 64 query rows of one head, a block two or three such. Keys and values come through shared memory,
// 64 tokens at a time: while tile j is scored and tile j - 1 weighed, the keys of j + 1 and the values of j are on
// their way. SIZE is the head size rounded up to one of 64, 80, 128; what is beyond is zero.
#include "cuda/attention.h"
#include "cuda/warpgroup.cuh"

enum { TOKENS = 64 };

template <int SIZE, int GROUPS> struct shared_tiles {
    static const int rows = 64 * GROUPS, units = SIZE / 8;
    uint4 q[units][rows]; // later the result, row by row
    uint4 k[2][units][TOKENS], v[2][units][TOKENS];
};

// `rows` rows of `d` elements to a tile of ROWS, zeros behind them and beyond d. Eight lanes take a unit of eight rows
// each: together in shared memory, and with the lanes beside them whole sectors of device memory.
template <int SIZE, int ROWS>
static __device__ __forceinline__ void bring(uint4 (*to)[ROWS], const bf16 *from, int64_t stride, int rows, int d)
{
    const int units = SIZE / 8;
    for (int i = threadIdx.x; i < ROWS * units; i += blockDim.x) {
        int row = i % 8 + i / (8 * units) * 8, unit = i / 8 % units, valid = row < rows && 8 * unit < d;
        copy_async(&to[unit][row], from + (valid ? row * stride + 8 * unit : 0), valid);
    }
}

// Where a block's keys and values are.
struct place {
    int64_t base;   // element of the first token in k and v, unless paged
    int64_t stride; // elements from token to token
    int length;     // tokens
};

static __device__ __forceinline__ int page_of(const attention_job &job, int b, int token, int length)
{
    return job.is_paged && token < length ? job.page_table[b * job.page_stride + token / job.page_tokens] : 0;
}

// One head's keys or values of the tokens from `token` on; a tile never crosses a page.
template <int SIZE>
static __device__ __forceinline__ void bring_tokens(uint4 (*to)[TOKENS], const attention_job &job, const void *from,
                                                    const place &at, int page, int kv_head, int token)
{
    int64_t first = job.is_paged
                        ? (((int64_t)page * job.kv_heads + kv_head) * job.page_tokens + token % job.page_tokens) * job.d
                        : at.base + token * at.stride;
    int count = at.length - token < TOKENS ? at.length - token : TOKENS;
    bring<SIZE, TOKENS>(to, (const bf16 *)from + first, at.stride, count, job.d);
}

// What the whole block copied is here, and what it read before is no longer needed.
static __device__ __forceinline__ void copies_arrived(void)
{
    copies_wait<0>();
    publish_shared();
    __syncthreads();
}

// s = q k^T for the warpgroup's 64 rows and 64 tokens; goes on by itself until waited for.
template <int SIZE, int ROWS>
static __device__ __forceinline__ void score(float (&s)[32], const uint4 (*q)[ROWS], const uint4 (*k)[TOKENS],
                                             int group)
{
    uint32_t a = shared_address(&q[0][64 * group]), b = shared_address(&k[0][0]);
#pragma unroll
    for (int step = 0; step < SIZE / 16; step++) {
        multiply_from_shared(s, describe(a + step * 2 * ROWS * 16, ROWS * 16, 128),
                             describe(b + step * 2 * TOKENS * 16, TOKENS * 16, 128), step > 0);
    }
    products_commit();
}

// o += p v, likewise.
template <int SIZE>
static __device__ __forceinline__ void weigh(float (&o)[SIZE / 2], const uint32_t p[4][4], const uint4 (*v)[TOKENS])
{
    uint32_t b = shared_address(&v[0][0]);
#pragma unroll
    for (int t = 0; t < 4; t++) {
        multiply_from_registers(o, p[t], describe(b + t * 16 * 16, 128, TOKENS * 16));
    }
    products_commit();
}

// Of a lane's two rows, g and g + 8 of its warp's 16: the largest score so far and the sum of the weights.
struct softmax {
    float most[2], total[2];
};

// Scores become weights. old: what the results so far shrink by. `scale` includes log2(e).
static __device__ __forceinline__ void soften(softmax &state, float (&s)[32], float old[2], float scale)
{
#pragma unroll
    for (int half = 0; half < 2; half++) {
        float most = state.most[half], sum = 0;
#pragma unroll
        for (int n = 0; n < 8; n++) {
            most = fmaxf(most, fmaxf(s[4 * n + 2 * half], s[4 * n + 2 * half + 1]));
        }
        most = maximum_of_four(most);
        float base = most == -INFINITY ? 0 : most * scale; // a row that sees nothing here
        old[half] = power_of_two(state.most[half] * scale - base);
        state.most[half] = most;
#pragma unroll
        for (int n = 0; n < 8; n++) {
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
static __device__ __forceinline__ void pack_weights(uint32_t p[4][4], const float (&s)[32])
{
#pragma unroll
    for (int t = 0; t < 4; t++) {
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
static __device__ __forceinline__ void mask(float (&s)[32], int token, int visible, int is_causal, int row)
{
    int lane = threadIdx.x % 32;
#pragma unroll
    for (int i = 0; i < 32; i++) {
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

template <int SIZE, int GROUPS>
static __global__ void __launch_bounds__(128 * GROUPS, SIZE < 128 ? 2 : 1) attention_many(const attention_job job)
{
    extern __shared__ __align__(128) unsigned char dynamic[];
    const int block_rows = 64 * GROUPS;
    shared_tiles<SIZE, GROUPS> &tiles = *(shared_tiles<SIZE, GROUPS> *)dynamic;
    int group = threadIdx.x / 128, head = blockIdx.y, b = blockIdx.z;
    int row = threadIdx.x / 32 * 16 + threadIdx.x % 32 / 4; // of the block: this lane's first
    int begin = job.row_start[b], rows = job.row_start[b + 1] - begin;
    int row0 = (int)(gridDim.x - 1 - blockIdx.x) * block_rows; // those that see most go first
    if (row0 >= rows || rows < job.least_rows) {
        return;
    }
    int kv_head = head / (job.heads / job.kv_heads), length = job.is_paged ? job.kv_length[b] : rows;
    int visible = job.is_paged ? length - rows + row0 + 1 : length; // to the first row of the block
    int seen = job.is_paged && visible + block_rows - 1 < length ? visible + block_rows - 1 : length;
    const bf16 *q = (const bf16 *)job.q + (int64_t)(begin + row0) * job.q_stride + (int64_t)head * job.d;
    place at = {begin * job.kv_stride + (int64_t)kv_head * job.d, job.is_paged ? job.d : job.kv_stride, length};
    float scale = job.scale * 1.4426950408889634f, o[SIZE / 2] = {}, s[32], old[2];
    uint32_t p[4][4];
    softmax state = {{-INFINITY, -INFINITY}, {0, 0}};
    int page = page_of(job, b, 0, seen), next_page = page_of(job, b, TOKENS, seen);
    bring<SIZE, block_rows>(tiles.q, q, job.q_stride, rows - row0, job.d);
    bring_tokens<SIZE>(tiles.k[0], job, job.k, at, page, kv_head, 0);
    copies_commit();
    copies_arrived();
    products_begin();
    score<SIZE, block_rows>(s, tiles.q, tiles.k[0], group);
    bring_tokens<SIZE>(tiles.k[1], job, job.k, at, next_page, kv_head, TOKENS); // zeros behind the end
    bring_tokens<SIZE>(tiles.v[0], job, job.v, at, page, kv_head, 0);
    copies_commit();
    products_wait<0>();
    if (TOKENS > visible) {
        mask(s, 0, visible, job.is_paged, row);
    }
    soften(state, s, old, scale);
    pack_weights(p, s);
    for (int token = TOKENS, stage = 1; token < seen; token += TOKENS, stage ^= 1) {
        page = next_page;
        next_page = page_of(job, b, token + TOKENS, seen);
        copies_arrived(); // the keys of this tile and the values of the last
        products_begin();
        score<SIZE, block_rows>(s, tiles.q, tiles.k[stage], group);
        weigh<SIZE>(o, p, tiles.v[stage ^ 1]);
        bring_tokens<SIZE>(tiles.k[stage ^ 1], job, job.k, at, next_page, kv_head, token + TOKENS);
        bring_tokens<SIZE>(tiles.v[stage], job, job.v, at, page, kv_head, token);
        copies_commit();
        products_wait<1>();
        if (token + TOKENS > visible) {
            mask(s, token, visible, job.is_paged, row);
        }
        soften(state, s, old, scale);
        products_wait<0>();
        shrink<SIZE>(o, old);
        pack_weights(p, s);
    }
    copies_arrived();
    products_begin();
    weigh<SIZE>(o, p, tiles.v[(seen - 1) / TOKENS % 2]);
    products_wait<0>();
    put<SIZE>(job, state, o, &tiles.q[0][0], row, begin + row0, rows - row0, head);
}

template <int SIZE, int GROUPS> static void launch(struct sl_stream *stream, const struct attention_job *job)
{
    const int rows = 64 * GROUPS;
    dim3 grid((unsigned)((job->max_rows + rows - 1) / rows), (unsigned)job->heads, (unsigned)job->sequences);
    size_t shared = sizeof(shared_tiles<SIZE, GROUPS>);
    if (allow_shared(stream, attention_many<SIZE, GROUPS>, shared)) {
        attention_many<SIZE, GROUPS><<<grid, 128 * GROUPS, shared, stream->native>>>(*job);
    }
}

static int in_words(const void *data, int64_t stride)
{
    return stride % 8 == 0 && (uintptr_t)data % 16 == 0;
}

int cuda_attention_many(struct sl_stream *stream, const struct attention_job *job)
{
    if (job->is_f32 || job->d > 128 || job->d % 8 != 0 || !in_words(job->q, job->q_stride) ||
        !in_words(job->y, job->y_stride) || (job->is_paged && job->page_tokens % TOKENS != 0)) {
        return 0;
    }
    if (job->d <= 64) {
        launch<64, 2>(stream, job);
    } else if (job->d <= 80) {
        launch<80, 2>(stream, job);
    } else {
        launch<128, 3>(stream, job);
    }
    return 1;
}
