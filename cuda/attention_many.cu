// SPDX-License-Identifier: Apache-2.0
// Attention of many rows on the tensor cores, with the softmax carried along (FlashAttention-2, Dao 2023).
//
// A block takes 128 query rows of one head, a warp 32 of them; keys and values come through shared memory, 64 tokens
// at a time, the next ones while these are worked on. Rows in shared memory are padded by 16 bytes, so that eight of
// them fall into different banks. SIZE is the head size rounded up to one of 64, 80, 128; what is beyond is zero.
#include "cuda/attention.h"
#include "cuda/tensor.cuh"

enum { WARPS = 4, THREADS = 32 * WARPS, ROWS = 128, TOKENS = 64, TILES = 2 }; // TILES: of 16 rows, in a warp

template <int SIZE> struct shared_tiles {
    static const int pitch = SIZE + 8;
    bf16 q[ROWS][pitch]; // later the result
    bf16 k[2][TOKENS][pitch], v[2][TOKENS][pitch];
};

// `rows` rows of `d` elements to shared memory, zeros behind them and beyond d.
template <int SIZE>
static __device__ __forceinline__ void bring(bf16 (*to)[SIZE + 8], int most, const bf16 *from, int64_t stride, int rows,
                                             int d)
{
    const int words = SIZE / 8;
    for (int i = threadIdx.x; i < most * words; i += THREADS) {
        int row = i / words, word = i % words, valid = row < rows && 8 * word < d;
        copy_async(&to[row][8 * word], from + (valid ? row * stride + 8 * word : 0), valid);
    }
}

// One head's keys or values of tokens from `token` on; a tile never crosses a page.
template <int SIZE>
static __device__ __forceinline__ void bring_tokens(bf16 (*to)[SIZE + 8], const attention_job &job, const void *base,
                                                    int b, int first, int kv_head, int token, int length)
{
    int count = length - token < TOKENS ? length - token : TOKENS;
    if (job.is_paged) {
        int64_t page = job.page_table[b * job.page_stride + token / job.page_tokens];
        int64_t slot = (page * job.kv_heads + kv_head) * job.page_tokens + token % job.page_tokens;
        bring<SIZE>(to, TOKENS, (const bf16 *)base + slot * job.d, job.d, count, job.d);
    } else {
        const bf16 *from = (const bf16 *)base + (int64_t)(first + token) * job.kv_stride + (int64_t)kv_head * job.d;
        bring<SIZE>(to, TOKENS, from, job.kv_stride, count, job.d);
    }
}

// s = q k^T for this warp's 32 rows and 64 tokens.
template <int SIZE>
static __device__ __forceinline__ void score(float s[TILES][8][4], const bf16 (*q)[SIZE + 8], const bf16 (*k)[SIZE + 8],
                                             int warp, int lane)
{
#pragma unroll
    for (int step = 0; step < SIZE / 16; step++) {
        uint32_t a[TILES][4];
#pragma unroll
        for (int m = 0; m < TILES; m++) {
            load_matrices(a[m], &q[32 * warp + 16 * m + lane % 16][16 * step + lane / 16 * 8]);
        }
#pragma unroll
        for (int n = 0; n < 4; n++) {
            uint32_t b[4];
            load_matrices(b, &k[16 * n + lane % 8 + lane / 16 * 8][16 * step + lane / 8 % 2 * 8]);
#pragma unroll
            for (int m = 0; m < TILES; m++) {
                multiply_add(s[m][2 * n], a[m], b[0], b[1]);
                multiply_add(s[m][2 * n + 1], a[m], b[2], b[3]);
            }
        }
    }
}

// o += p v, p in the registers that held the scores.
template <int SIZE>
static __device__ __forceinline__ void weigh(float o[TILES][SIZE / 8][4], const float p[TILES][8][4],
                                             const bf16 (*v)[SIZE + 8], int lane)
{
#pragma unroll
    for (int t = 0; t < 4; t++) {
        uint32_t a[TILES][4];
#pragma unroll
        for (int m = 0; m < TILES; m++) {
            a[m][0] = pack(p[m][2 * t][0], p[m][2 * t][1]);
            a[m][1] = pack(p[m][2 * t][2], p[m][2 * t][3]);
            a[m][2] = pack(p[m][2 * t + 1][0], p[m][2 * t + 1][1]);
            a[m][3] = pack(p[m][2 * t + 1][2], p[m][2 * t + 1][3]);
        }
#pragma unroll
        for (int n = 0; n < SIZE / 16; n++) {
            uint32_t b[4];
            load_transposed(b, &v[16 * t + lane % 16][16 * n + lane / 16 * 8]);
#pragma unroll
            for (int m = 0; m < TILES; m++) {
                multiply_add(o[m][2 * n], a[m], b[0], b[1]);
                multiply_add(o[m][2 * n + 1], a[m], b[2], b[3]);
            }
        }
    }
}

// The running maximum and sum of each of a lane's rows, [tile][upper or lower half].
struct softmax {
    float most[TILES][2], total[TILES][2];
};

// Scores become weights; what was summed so far is scaled to the new maximum. `scale` includes log2(e).
template <int SIZE>
static __device__ __forceinline__ void soften(softmax &state, float s[TILES][8][4], float o[TILES][SIZE / 8][4],
                                              float scale)
{
#pragma unroll
    for (int m = 0; m < TILES; m++) {
#pragma unroll
        for (int half = 0; half < 2; half++) {
            float most = state.most[m][half];
#pragma unroll
            for (int n = 0; n < 8; n++) {
                most = fmaxf(most, fmaxf(s[m][n][2 * half], s[m][n][2 * half + 1]));
            }
            most = maximum_of_four(most);
            float base = most == -INFINITY ? 0 : most * scale; // a row that sees nothing here
            float old = exp2f(state.most[m][half] * scale - base), sum = 0;
            state.most[m][half] = most;
#pragma unroll
            for (int n = 0; n < 8; n++) {
#pragma unroll
                for (int i = 2 * half; i < 2 * half + 2; i++) {
                    s[m][n][i] = exp2f(s[m][n][i] * scale - base);
                    sum += s[m][n][i];
                }
            }
            state.total[m][half] = state.total[m][half] * old + sum;
#pragma unroll
            for (int n = 0; n < SIZE / 8; n++) {
                o[m][n][2 * half] *= old;
                o[m][n][2 * half + 1] *= old;
            }
        }
    }
}

// Takes away what a row may not see: tokens from `visible` of the block's first row on, one more for each row; or all
// rows the same.
static __device__ __forceinline__ void mask(float s[TILES][8][4], int token, int visible, int is_causal, int warp,
                                            int lane)
{
    int g = lane / 4, q = lane % 4;
#pragma unroll
    for (int m = 0; m < TILES; m++) {
#pragma unroll
        for (int n = 0; n < 8; n++) {
#pragma unroll
            for (int i = 0; i < 4; i++) {
                int row = 32 * warp + 16 * m + g + i / 2 * 8, at = token + 8 * n + 2 * q + i % 2;
                if (at >= visible + (is_causal ? row : 0)) {
                    s[m][n][i] = -INFINITY;
                }
            }
        }
    }
}

// The result of this warp's rows by way of its own part of shared memory, to write whole words.
template <int SIZE>
static __device__ __forceinline__ void put(const attention_job &job, const softmax &state, float o[TILES][SIZE / 8][4],
                                           bf16 (*to)[SIZE + 8], int first, int rows, int head, int warp, int lane)
{
    int g = lane / 4, q = lane % 4;
#pragma unroll
    for (int m = 0; m < TILES; m++) {
#pragma unroll
        for (int half = 0; half < 2; half++) {
            float total = sum_of_four(state.total[m][half]), inverse = total > 0 ? 1 / total : 0;
            int row = 32 * warp + 16 * m + 8 * half + g;
#pragma unroll
            for (int n = 0; n < SIZE / 8; n++) {
                *(uint32_t *)&to[row][8 * n + 2 * q] =
                    pack(o[m][n][2 * half] * inverse, o[m][n][2 * half + 1] * inverse);
            }
        }
    }
    __syncwarp();
    int words = job.d / 8;
    for (int i = lane; i < 32 * words; i += 32) {
        int row = 32 * warp + i / words, word = i % words;
        if (row < rows) {
            bf16 *y = (bf16 *)job.y + (int64_t)(first + row) * job.y_stride + (int64_t)head * job.d;
            *(uint4 *)(y + 8 * word) = *(const uint4 *)&to[row][8 * word];
        }
    }
}

template <int SIZE> static __global__ void __launch_bounds__(THREADS, 2) attention_many(const attention_job job)
{
    extern __shared__ __align__(16) unsigned char dynamic[];
    shared_tiles<SIZE> &tiles = *(shared_tiles<SIZE> *)dynamic;
    int warp = threadIdx.x / 32, lane = threadIdx.x % 32, head = blockIdx.y, b = blockIdx.z;
    int begin = job.row_start[b], rows = job.row_start[b + 1] - begin;
    int row0 = (int)(gridDim.x - 1 - blockIdx.x) * ROWS; // those that see most go first
    if (row0 >= rows || rows < job.least_rows) {
        return;
    }
    int kv_head = head / (job.heads / job.kv_heads), length = job.is_paged ? job.kv_length[b] : rows;
    int visible = job.is_paged ? length - rows + row0 + 1 : length; // to the first row of the block
    int seen = job.is_paged && visible + ROWS - 1 < length ? visible + ROWS - 1 : length;
    const bf16 *q = (const bf16 *)job.q + (int64_t)(begin + row0) * job.q_stride + (int64_t)head * job.d;
    float scale = job.scale * 1.4426950408889634f, o[TILES][SIZE / 8][4] = {};
    softmax state;
    for (int m = 0; m < TILES; m++) {
        state.most[m][0] = state.most[m][1] = -INFINITY;
        state.total[m][0] = state.total[m][1] = 0;
    }
    bring<SIZE>(tiles.q, ROWS, q, job.q_stride, rows - row0, job.d);
    bring_tokens<SIZE>(tiles.k[0], job, job.k, b, begin, kv_head, 0, length);
    bring_tokens<SIZE>(tiles.v[0], job, job.v, b, begin, kv_head, 0, length);
    copies_commit();
    for (int token = 0, stage = 0; token < seen; token += TOKENS, stage ^= 1) {
        if (token + TOKENS < seen) {
            bring_tokens<SIZE>(tiles.k[stage ^ 1], job, job.k, b, begin, kv_head, token + TOKENS, length);
            bring_tokens<SIZE>(tiles.v[stage ^ 1], job, job.v, b, begin, kv_head, token + TOKENS, length);
            copies_commit();
            copies_wait<1>();
        } else {
            copies_wait<0>();
        }
        __syncthreads();
        float s[TILES][8][4] = {};
        score<SIZE>(s, tiles.q, tiles.k[stage], warp, lane);
        if (token + TOKENS > visible) {
            mask(s, token, visible, job.is_paged, warp, lane);
        }
        soften<SIZE>(state, s, o, scale);
        weigh<SIZE>(o, s, tiles.v[stage], lane);
        __syncthreads();
    }
    put<SIZE>(job, state, o, tiles.q, begin + row0, rows - row0, head, warp, lane);
}

template <int SIZE> static void launch(struct sl_stream *stream, const struct attention_job *job)
{
    dim3 grid((unsigned)((job->max_rows + ROWS - 1) / ROWS), (unsigned)job->heads, (unsigned)job->sequences);
    size_t shared = sizeof(shared_tiles<SIZE>);
    if (allow_shared(stream, attention_many<SIZE>, shared)) {
        attention_many<SIZE><<<grid, THREADS, shared, stream->native>>>(*job);
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
        launch<64>(stream, job);
    } else if (job->d <= 80) {
        launch<80>(stream, job);
    } else {
        launch<128>(stream, job);
    }
    return 1;
}
