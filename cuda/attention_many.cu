// SPDX-License-Identifier: Apache-2.0
// Attention of many rows on the tensor cores, with the softmax carried along (FlashAttention-2, Dao 2023), and the
// scores of the next tokens computed while the last ones' values are weighed (FlashAttention-3, Shah et al. 2024).
//
// A warpgroup takes 64 query rows of one head, a block two or three such. Keys and values come through shared memory,
// 64 tokens at a time: while tile j is scored and tile j - 1 weighed, the keys of j + 1 and the values of j are on
// their way. SIZE is the head size rounded up to one of 64, 80, 128; what is beyond is zero.
#include "cuda/attention_tiles.cuh"

enum { TOKENS = 64 }; // of a tile: a page's, or a part of them

template <int SIZE, int GROUPS> struct shared_tiles {
    uint4 q[64 * GROUPS * row_units<SIZE>()]; // later the result, row by row
    uint4 k[2][TOKENS * row_units<SIZE>()], v[2][TOKENS * row_units<SIZE>()];
};

// `rows` rows of `d` elements to a tile of ROWS, zeros behind them and beyond d.
template <int SIZE, int ROWS>
static __device__ __forceinline__ void bring(uint4 *to, const bf16 *from, int64_t stride, int rows, int d)
{
    const int units = SIZE / 8;
    for (int i = threadIdx.x; i < ROWS * units; i += blockDim.x) {
        int row = i / units, unit = i % units, valid = row < rows && 8 * unit < d;
        copy_async(to + place_of(row, unit, ROWS), from + (valid ? row * stride + 8 * unit : 0), valid);
    }
}

// A thread's share of a tile of keys or values: the same places in every tile, so they are found once. Units beyond d
// are not copied: they are zero from the beginning.
template <int SIZE, int THREADS> struct copier {
    static const int count = (TOKENS * SIZE / 8 + THREADS - 1) / THREADS;
    uint32_t to[count]; // bytes
    int from[count];    // elements; negative: nothing
    int row[count];     // of the tile
};

template <int SIZE, int THREADS>
static __device__ __forceinline__ void prepare(copier<SIZE, THREADS> &c, int64_t stride, int d)
{
    const int units = SIZE / 8;
#pragma unroll
    for (int n = 0; n < c.count; n++) {
        int i = threadIdx.x + n * THREADS, unit = i % units;
        c.row[n] = i / units;
        c.to[n] = place_of(c.row[n], unit, TOKENS) * 16;
        c.from[n] = i < TOKENS * units && 8 * unit < d ? (int)(c.row[n] * stride) + 8 * unit : -1;
    }
}

// Tokens of a tile, `left` of them there; zeros behind.
template <int SIZE, int THREADS>
static __device__ __forceinline__ void copy_tile(const copier<SIZE, THREADS> &c, uint32_t to, const bf16 *from,
                                                 int left)
{
#pragma unroll
    for (int n = 0; n < c.count; n++) {
        if (c.from[n] >= 0) {
            copy_to_shared(to + c.to[n], from + c.from[n], c.row[n] < left);
        }
    }
}

// Where tiles of one head's keys and values lie: in pages, which no tile crosses, or in rows.
struct source {
    const bf16 *k, *v;
    int64_t stride; // elements from token to token, or from page to page
    int page_tokens, token_elements;
    const int32_t *pages; // NULL: rows
};

static __device__ __forceinline__ int64_t offset_of(const source &from, int token, int seen)
{
    if (from.pages == NULL) {
        return token * from.stride;
    }
    int page = token < seen ? from.pages[token / from.page_tokens] : 0;
    return page * from.stride + (int64_t)(token % from.page_tokens) * from.token_elements;
}

static __device__ __forceinline__ source source_of(const attention_job &job, int b, int begin, int kv_head)
{
    int64_t first = (int64_t)kv_head * job.d * (job.is_paged ? job.page_tokens : 1);
    first += job.is_paged ? 0 : begin * job.kv_stride;
    source from = {
        (const bf16 *)job.k + first, (const bf16 *)job.v + first, job.kv_stride, job.page_tokens, job.d, NULL};
    if (job.is_paged) {
        from.stride = (int64_t)job.kv_heads * job.page_tokens * job.d;
        from.pages = job.page_table + b * job.page_stride;
    }
    return from;
}

// Before the first copy: what no copy fills.
template <typename Tiles> static __device__ __forceinline__ void clear_tiles(Tiles &tiles)
{
    for (int i = threadIdx.x; i < (int)(sizeof tiles.k + sizeof tiles.v) / 16; i += blockDim.x) {
        (&tiles.k[0][0])[i] = make_uint4(0, 0, 0, 0);
    }
    __syncthreads();
}

// What the whole block copied is here, and what it read before is no longer needed.
static __device__ __forceinline__ void copies_arrived(void)
{
    copies_wait<0>();
    publish_shared();
    __syncthreads();
}

// ROWS query rows of one head of a sequence, or what is left of them at its end.
struct piece {
    source from;
    int head, first, left;     // of all rows the first one, and how many of the sequence there are from it on
    int visible, seen, length; // tokens: to its first row, to its last one, in all
};

// 0: there is no such piece, or it is not for this kernel.
template <int ROWS> static __device__ __forceinline__ int find_piece(const attention_job &job, piece &p)
{
    int b = blockIdx.z, begin = job.row_start[b], rows = job.row_start[b + 1] - begin;
    int row0 = (int)(gridDim.x - 1 - blockIdx.x) * ROWS; // those that see most go first
    if (row0 >= rows || rows < job.least_rows) {
        return 0;
    }
    p.head = blockIdx.y;
    p.first = begin + row0;
    p.left = rows - row0;
    p.length = job.is_paged ? job.kv_length[b] : rows;
    p.visible = job.is_paged ? p.length - rows + row0 + 1 : p.length;
    p.seen = job.is_paged && p.visible + ROWS - 1 < p.length ? p.visible + ROWS - 1 : p.length;
    p.from = source_of(job, b, begin, p.head / (job.heads / job.kv_heads));
    return 1;
}

// Where a warpgroup's matrices lie in shared memory, in units.
struct places {
    uint32_t q, k, v;
};

// Scores of the tokens from `token` on become weights; `old`: as of soften().
static __device__ __forceinline__ void soften_seen(const attention_job &job, const piece &p, softmax &state,
                                                   float (&s)[TOKENS / 2], float old[2], int token, int row)
{
    if (token + TOKENS > p.visible) {
        mask<TOKENS>(s, token, p.visible, job.is_paged, row);
    }
    soften<TOKENS>(state, s, old, job.scale * 1.4426950408889634f);
}

// By a warpgroup, its queries on their way. row: of the block, this lane's first.
template <int SIZE, int GROUPS>
static __device__ __forceinline__ void attend(const attention_job &job, const piece &p,
                                              const copier<SIZE, 128 * GROUPS> &c, const places &at, int row,
                                              float (&o)[SIZE / 2], softmax &state)
{
    const int rows = 64 * GROUPS, tile_units = row_units<SIZE>() * TOKENS;
    float s[TOKENS / 2], old[2];
    uint32_t weights[TOKENS / 16][4];
    int64_t place = offset_of(p.from, 0, p.seen), next_place = offset_of(p.from, TOKENS, p.seen);
    copy_tile(c, at.k * 16, p.from.k + place, p.length);
    copies_commit();
    copies_arrived();
    products_begin();
    score<SIZE, rows, TOKENS>(s, at.q, at.k);
    copy_tile(c, (at.k + tile_units) * 16, p.from.k + next_place, p.length - TOKENS);
    copy_tile(c, at.v * 16, p.from.v + place, p.length);
    copies_commit();
    products_wait<0>();
    soften_seen(job, p, state, s, old, 0, row);
    pack_weights<TOKENS>(weights, s);
    uint32_t now = tile_units, last = 0; // which of the two buffers, in units
    for (int token = TOKENS; token < p.seen; token += TOKENS, now ^= tile_units, last ^= tile_units) {
        place = next_place;
        next_place = offset_of(p.from, token + TOKENS, p.seen);
        copies_arrived(); // the keys of this tile and the values of the last
        products_begin();
        score<SIZE, rows, TOKENS>(s, at.q, at.k + now);
        weigh<SIZE, TOKENS>(o, weights, at.v + last);
        copy_tile(c, (at.k + last) * 16, p.from.k + next_place, p.length - token - TOKENS);
        copy_tile(c, (at.v + now) * 16, p.from.v + place, p.length - token);
        copies_commit();
        products_wait<1>();
        soften_seen(job, p, state, s, old, token, row);
        products_wait<0>();
        shrink<SIZE>(o, old);
        pack_weights<TOKENS>(weights, s);
    }
    copies_arrived();
    products_begin();
    weigh<SIZE, TOKENS>(o, weights, at.v + last);
    products_wait<0>();
}

template <int SIZE, int GROUPS>
static __global__ void __launch_bounds__(128 * GROUPS, SIZE < 128 ? 2 : 1) attention_many(const attention_job job)
{
    extern __shared__ unsigned char dynamic[];
    shared_tiles<SIZE, GROUPS> &tiles = *(shared_tiles<SIZE, GROUPS> *)aligned_shared(dynamic);
    int group = __shfl_sync(0xffffffffu, (int)threadIdx.x / 128, 0); // the compiler sees that a warp has one
    int row = threadIdx.x / 32 * 16 + threadIdx.x % 32 / 4;
    piece p;
    if (!find_piece<64 * GROUPS>(job, p)) {
        return;
    }
    float o[SIZE / 2] = {};
    softmax state = {{-INFINITY, -INFINITY}, {0, 0}};
    places at = {shared_address(tiles.q) / 16 + 64 * PANEL_UNITS * group, shared_address(tiles.k) / 16,
                 shared_address(tiles.v) / 16};
    copier<SIZE, 128 * GROUPS> c;
    prepare(c, job.is_paged ? job.d : job.kv_stride, job.d);
    if (job.d < SIZE) {
        clear_tiles(tiles);
    }
    const bf16 *q = (const bf16 *)job.q + (int64_t)p.first * job.q_stride + (int64_t)p.head * job.d;
    bring<SIZE, 64 * GROUPS>(tiles.q, q, job.q_stride, p.left, job.d);
    attend<SIZE, GROUPS>(job, p, c, at, row, o, state);
    put<SIZE>(job, state, o, tiles.q, row, p.first, p.left, p.head);
}

template <int SIZE, int GROUPS> static void launch(struct sl_stream *stream, const struct attention_job *job)
{
    const int rows = 64 * GROUPS;
    dim3 grid((unsigned)((job->max_rows + rows - 1) / rows), (unsigned)job->heads, (unsigned)job->sequences);
    size_t shared = sizeof(shared_tiles<SIZE, GROUPS>) + 1024;
    if (allow_shared(stream, attention_many<SIZE, GROUPS>, shared)) {
        attention_many<SIZE, GROUPS><<<grid, 128 * GROUPS, shared, stream->native>>>(*job);
    }
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
