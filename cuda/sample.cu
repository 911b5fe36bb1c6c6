// SPDX-License-Identifier: Apache-2.0
// Drawing tokens, in the order that cpu/ has: penalty and mask, temperature, top-k, top-p, the draw. Every row's best
// token and the sum for its log probability come from two launches: slices of the vocabulary, then what they found.
// Where a temperature is given, a cluster of blocks for each row then draws, each block from a part of the vocabulary:
// all know what all have counted, and decide the same.
#include <math.h>

#include "cuda/cluster.cuh"
#include "cuda/ops.h"
#include "cuda/sample_math.h"

enum {
    LAUNCH_ROWS = 64, // their parameters go with the launch, so that nothing is copied
    SLICE_THREADS = 256,
    SLICE = 8 * SLICE_THREADS, // tokens
    DRAW_BLOCKS = 8,           // of a row: a cluster
    DRAW_WARPS = 16,
    DRAW_THREADS = 32 * DRAW_WARPS
};

struct best {
    float value;
    int32_t id; // -1: none is allowed
};

// What is known of a slice, or of a row.
struct found {
    float top;  // the largest logit as it is
    double sum; // of e^(logit - top)
    struct best best;
};

struct sample {
    const float *logits;
    const uint32_t *allowed, *seen; // NULL: all, none
    int64_t vocab, logits_stride, allowed_stride, seen_stride;
    int slices, vectors; // vectors: four logits can be read at once
    struct found *slice; // [rows, slices]
    struct found *row;   // [rows]
    uint4 *keys;         // [rows, DRAW_BLOCKS, share], four tokens each
    int share;           // of a block, in fours
    int32_t *token;
    float *logprob;
    struct sl_sample_row how[LAUNCH_ROWS];
};

static __device__ int better(const struct best &a, const struct best &b)
{
    return a.id >= 0 && (b.id < 0 || a.value > b.value || (a.value == b.value && a.id < b.id));
}

// Two sums, each relative to its own top, as one.
static __device__ struct found merged(const struct found &a, const struct found &b)
{
    struct found m = a;
    m.top = fmaxf(a.top, b.top);
    if (m.top > -INFINITY) {
        m.sum = a.sum * (double)expf(a.top - m.top) + b.sum * (double)expf(b.top - m.top);
    }
    m.best = better(b.best, a.best) ? b.best : a.best;
    return m;
}

static __device__ struct found merged_of_warp(struct found f)
{
    for (int step = 16; step > 0; step /= 2) {
        struct found other;
        other.top = __shfl_xor_sync(~0u, f.top, step);
        other.sum = __shfl_xor_sync(~0u, f.sum, step);
        other.best.value = __shfl_xor_sync(~0u, f.best.value, step);
        other.best.id = __shfl_xor_sync(~0u, f.best.id, step);
        // The same on both sides, to the last bit.
        f = threadIdx.x & step ? merged(other, f) : merged(f, other);
    }
    return f;
}

static __device__ struct found nothing_found(void)
{
    struct found f = {-INFINITY, 0, {0, -1}};
    return f;
}

// Bits of the four tokens from `id` on, a multiple of 4.
static __device__ uint32_t four_bits(const uint32_t *bits, int64_t id)
{
    return bits[id / 32] >> (id % 32) & 15;
}

static __device__ void load_four(const struct sample &s, const float *row, int64_t id, float *x)
{
    if (s.vectors && id + 4 <= s.vocab) {
        float4 four = *(const float4 *)(row + id);
        x[0] = four.x;
        x[1] = four.y;
        x[2] = four.z;
        x[3] = four.w;
        return;
    }
    for (int k = 0; k < 4; k++) {
        x[k] = id + k < s.vocab ? row[id + k] : -INFINITY;
    }
}

// Each thread: two times four tokens.
static __global__ void __launch_bounds__(SLICE_THREADS) scan_slices(const __grid_constant__ struct sample s)
{
    __shared__ struct found of_warp[SLICE_THREADS / 32];
    int row = (int)blockIdx.y, warp = (int)threadIdx.x / 32;
    const float *logits = s.logits + row * s.logits_stride;
    float x[8], presence = s.how[row].presence;
    struct found f = nothing_found();
#pragma unroll
    for (int half = 0; half < 2; half++) {
        int64_t id = (int64_t)blockIdx.x * SLICE + half * (SLICE / 2) + 4 * (int)threadIdx.x;
        load_four(s, logits, id, x + 4 * half);
        if (id >= s.vocab) {
            continue;
        }
        uint32_t allowed = s.allowed != NULL ? four_bits(s.allowed + row * s.allowed_stride, id) : 15;
        uint32_t seen = s.seen != NULL ? four_bits(s.seen + row * s.seen_stride, id) : 0;
#pragma unroll
        for (int k = 0; k < 4; k++) {
            struct best b = {x[4 * half + k] - (seen >> k & 1 ? presence : 0), (int32_t)(id + k)};
            b.id = (allowed >> k & 1) && id + k < s.vocab ? b.id : -1;
            f.best = better(b, f.best) ? b : f.best;
        }
    }
#pragma unroll
    for (int k = 0; k < 8; k++) {
        f.top = fmaxf(f.top, x[k]);
    }
    float sum = 0;
#pragma unroll
    for (int k = 0; k < 8; k++) {
        sum += f.top > -INFINITY ? expf(x[k] - f.top) : 0;
    }
    f.sum = (double)sum;
    f = merged_of_warp(f);
    if (threadIdx.x % 32 == 0) {
        of_warp[warp] = f;
    }
    __syncthreads();
    if (warp == 0) {
        f = threadIdx.x < SLICE_THREADS / 32 ? of_warp[threadIdx.x] : nothing_found();
        f = merged_of_warp(f);
        if (threadIdx.x == 0) {
            s.slice[row * s.slices + blockIdx.x] = f;
        }
    }
}

static __device__ void put_token(const struct sample &s, int row, const struct found &f, int32_t id)
{
    s.token[row] = id;
    s.logprob[row] = (float)((double)(s.logits[row * s.logits_stride + id] - f.top) - log(f.sum));
}

// One warp for each row.
static __global__ void __launch_bounds__(32) merge_slices(const __grid_constant__ struct sample s)
{
    int row = (int)blockIdx.x;
    struct found f = nothing_found();
    for (int i = (int)threadIdx.x; i < s.slices; i += 32) {
        f = merged(f, s.slice[row * s.slices + i]);
    }
    f = merged_of_warp(f);
    if (threadIdx.x == 0) {
        s.row[row] = f;
        if (f.best.id >= 0) {
            put_token(s, row, f, f.best.id);
        } else {
            s.token[row] = -1;
            s.logprob[row] = -INFINITY;
        }
    }
}

// --- drawing ---

// What the warps of a block, and the blocks of a cluster, tell each other.
struct together {
    uint64_t of_warp[DRAW_WARPS][SAMPLE_BINS];
    uint64_t of_block[2][SAMPLE_BINS]; // in turns: others may still read the last ones
    uint64_t mass[DRAW_WARPS], ties[DRAW_WARPS];
    struct sample_place place;
    int found;
    int count; // of candidates, all of them with the first block
    struct sample_candidate candidate[SAMPLE_FEW], sorted[SAMPLE_FEW];
    uint64_t sorted_mass[SAMPLE_FEW];
};

// A block's part of a row.
struct part {
    struct together *shared;
    uint4 *keys; // [fours]; 0: not allowed, or past the end
    int fours, rank;
    int64_t first; // id
    int turn;
};

// x < 2^54
static __device__ uint64_t sum_of_warp(uint64_t x)
{
    uint32_t low = __reduce_add_sync(~0u, (uint32_t)x & 0x7ffffff), high = __reduce_add_sync(~0u, (uint32_t)(x >> 27));
    return ((uint64_t)high << 27) + low;
}

static __device__ void make_keys(const struct sample &s, int row, float best, const struct part &p)
{
    const float *logits = s.logits + row * s.logits_stride;
    float temperature = s.how[row].temperature, presence = s.how[row].presence;
#pragma unroll 1
    for (int i = (int)threadIdx.x; i < p.fours; i += DRAW_THREADS) {
        int64_t id = p.first + 4 * i;
        uint32_t key[4] = {};
        if (id < s.vocab) {
            float x[4];
            load_four(s, logits, id, x);
            uint32_t allowed = s.allowed != NULL ? four_bits(s.allowed + row * s.allowed_stride, id) : 15;
            uint32_t seen = s.seen != NULL ? four_bits(s.seen + row * s.seen_stride, id) : 0;
#pragma unroll
            for (int k = 0; k < 4; k++) {
                uint32_t scaled = sample_scaled(x[k] - (seen >> k & 1 ? presence : 0), best, temperature);
                key[k] = (allowed >> k & 1) && id + k < s.vocab ? scaled : 0;
            }
        }
        p.keys[i] = make_uint4(key[0], key[1], key[2], key[3]);
    }
    __syncthreads();
}

// Sums of what the threads of the block have; after it every block can read those of all.
template <int N> static __device__ void tell(struct part *p, const uint64_t *value)
{
    struct together *t = p->shared;
    p->turn ^= 1;
#pragma unroll
    for (int i = 0; i < N; i++) {
        uint64_t sum = sum_of_warp(value[i]);
        if (threadIdx.x % 32 == 0) {
            t->of_warp[threadIdx.x / 32][i] = sum;
        }
    }
    __syncthreads();
    if (threadIdx.x < N) {
        uint64_t sum = 0;
        for (int w = 0; w < DRAW_WARPS; w++) {
            sum += t->of_warp[w][threadIdx.x];
        }
        t->of_block[p->turn][threadIdx.x] = sum;
    }
    cluster_meet();
}

// Replaces what the threads have, SAMPLE_BINS each, by the sums over the cluster.
static __device__ void sum_of_cluster(struct part *p, uint64_t *value)
{
    int lane = (int)threadIdx.x % 32;
    uint64_t sum = 0;
    tell<SAMPLE_BINS>(p, value);
#pragma unroll
    for (int first = 0; first < DRAW_BLOCKS; first += 32 / SAMPLE_BINS) {
        sum += *place_in(&p->shared->of_block[p->turn][lane % SAMPLE_BINS], first + lane / SAMPLE_BINS);
    }
#pragma unroll
    for (int step = SAMPLE_BINS; step < 32; step *= 2) {
        sum += __shfl_xor_sync(~0u, sum, step);
    }
#pragma unroll
    for (int i = 0; i < SAMPLE_BINS; i++) {
        value[i] = __shfl_sync(~0u, sum, i);
    }
}

static __device__ void each_of(const uint4 &four, uint32_t *key)
{
    key[0] = four.x;
    key[1] = four.y;
    key[2] = four.z;
    key[3] = four.w;
}

// How many tokens lie in each bin.
static __device__ void count_bins(const struct part &p, const struct sample_search &s, uint64_t *bins)
{
    uint32_t count[SAMPLE_BINS] = {};
#pragma unroll 2
    for (int i = (int)threadIdx.x; i < p.fours; i += DRAW_THREADS) {
        uint32_t key[4];
        each_of(p.keys[i], key);
#pragma unroll
        for (int k = 0; k < 4; k++) {
            int bin = key[k] > 0 ? sample_bin(&s, key[k]) : -1;
#pragma unroll
            for (int b = 0; b < SAMPLE_BINS; b++) {
                count[b] += bin == b;
            }
        }
    }
#pragma unroll
    for (int b = 0; b < SAMPLE_BINS; b++) {
        bins[b] = count[b];
    }
}

// Their mass, of what is kept; ties apart.
static __device__ void weigh_bins(const struct part &p, const struct sample_search &s, const struct sample_kept &kept,
                                  uint64_t *bins)
{
#pragma unroll 1
    for (int i = (int)threadIdx.x; i < p.fours; i += DRAW_THREADS) {
        uint32_t key[4];
        each_of(p.keys[i], key);
#pragma unroll
        for (int k = 0; k < 4; k++) {
            int bin = key[k] > kept.key ? sample_bin(&s, key[k]) : -1;
            if (bin < 0 || bin >= SAMPLE_BINS) {
                continue;
            }
            uint64_t mass = sample_mass(key[k]);
#pragma unroll
            for (int b = 0; b < SAMPLE_BINS; b++) {
                bins[b] += bin == b ? mass : 0;
            }
        }
    }
}

// Which tokens top-k keeps, or so few that others can tell.
static __device__ struct sample_search search_count(struct part *p, int top_k)
{
    struct sample_search s = sample_search_for((uint64_t)top_k);
    while (s.shift >= 0 && !sample_is_few(&s)) {
        uint64_t bins[SAMPLE_BINS];
        count_bins(*p, s, bins);
        sum_of_cluster(p, bins);
        sample_narrow(&s, bins);
    }
    return s;
}

// Which of those top-p keeps.
static __device__ struct sample_search search_mass(struct part *p, uint64_t wanted, const struct sample_kept &kept)
{
    struct sample_search s = sample_search_for(wanted);
    while (s.shift >= 0) {
        uint64_t bins[SAMPLE_BINS] = {};
        weigh_bins(*p, s, kept, bins);
        sum_of_cluster(p, bins);
        int bin = kept.ties > 0 ? sample_bin(&s, kept.key) : -1;
#pragma unroll
        for (int b = 0; b < SAMPLE_BINS; b++) {
            bins[b] += bin == b ? kept.ties * sample_mass(kept.key) : 0;
        }
        sample_narrow(&s, bins);
    }
    return s;
}

// A thread's share, every `step`th from `begin` on, of the mass above kept.key and of the ties at it; the block's
// tokens are counted from 0.
static __device__ void weigh(const struct part &p, int begin, int end, int step, const struct sample_kept &kept,
                             uint64_t *mass, uint64_t *ties)
{
    const uint32_t *keys = (const uint32_t *)p.keys;
#pragma unroll 1
    for (int i = begin; i < end; i += step) {
        uint32_t key = keys[i];
        *mass += key > kept.key ? sample_mass(key) : 0;
        *ties += key == kept.key;
    }
}

// Mass of all that is kept.
static __device__ uint64_t total_mass(struct part *p, const struct sample_kept &kept)
{
    uint64_t sums[SAMPLE_BINS] = {}, ties = 0;
    weigh(*p, (int)threadIdx.x, 4 * p->fours, DRAW_THREADS, kept, &sums[0], &ties);
    sum_of_cluster(p, sums);
    return sums[0] + (kept.ties > 0 ? kept.ties * sample_mass(kept.key) : 0);
}

// Whose part has the drawn token. Into t->place and t->found.
static __device__ void find_block(struct part *p, const struct sample &s, float uniform, uint64_t total,
                                  const struct sample_kept &kept)
{
    struct together *t = p->shared;
    uint64_t sums[2] = {};
    weigh(*p, (int)threadIdx.x, 4 * p->fours, DRAW_THREADS, kept, &sums[0], &sums[1]);
    tell<2>(p, sums);
    if (threadIdx.x < DRAW_BLOCKS) {
        const uint64_t *there = place_in(t->of_block[p->turn], (int)threadIdx.x);
        t->mass[threadIdx.x] = there[0];
        t->ties[threadIdx.x] = there[1];
    }
    __syncthreads();
    if (threadIdx.x == 0) {
        t->place = sample_place_for(0, s.vocab, uniform, total);
        t->found = sample_choose_part(&t->place, &kept, 4 * p->fours, DRAW_BLOCKS, t->mass, t->ties);
    }
    __syncthreads();
}

// Which token of the block's part it is: t->place narrows to it.
static __device__ void find_token(const struct part &p, const struct sample_kept &kept)
{
    struct together *t = p.shared;
    int warp = (int)threadIdx.x / 32, lane = (int)threadIdx.x % 32;
    while (t->found && t->place.end - t->place.begin > 1) {
        int begin = (int)(t->place.begin - p.first), end = (int)(t->place.end - p.first);
        int size = (end - begin + DRAW_WARPS - 1) / DRAW_WARPS;
        int from = begin + warp * size, to = from + size < end ? from + size : end;
        uint64_t mass = 0, ties = 0;
        weigh(p, from + lane, to, 32, kept, &mass, &ties);
        mass = sum_of_warp(mass);
        ties = sum_of_warp(ties);
        if (lane == 0) {
            t->mass[warp] = mass;
            t->ties[warp] = ties;
        }
        __syncthreads();
        if (threadIdx.x == 0) {
            t->found = sample_choose_part(&t->place, &kept, size, DRAW_WARPS, t->mass, t->ties);
        }
        __syncthreads();
    }
}

// Any number of tokens may be kept.
static __device__ void draw_from_all(const struct sample &s, int row, struct part *p, struct sample_kept kept)
{
    const struct sl_sample_row &how = s.how[row];
    uint64_t total = total_mass(p, kept);
    if (how.top_p < 1) {
        struct sample_search found = search_mass(p, sample_wanted_mass(how.top_p, total), kept);
        kept = sample_keep_mass(&found);
        total = found.above + kept.ties * sample_mass(kept.key);
    }
    find_block(p, s, how.uniform, total, kept);
    struct together *t = p->shared;
    if (t->place.begin != p->first) {
        return; // another block's
    }
    find_token(*p, kept);
    if (threadIdx.x == 0 && t->found) {
        put_token(s, row, s.row[row], (int32_t)t->place.begin);
    }
}

// All tokens from key `low` on, SAMPLE_FEW at most, go to the first block, in no order; it draws.
static __device__ void draw_from_few(const struct sample &s, int row, const struct part &p, uint32_t low)
{
    const struct sl_sample_row &how = s.how[row];
    struct together *t = p.shared, *first = place_in(t, 0);
    int me = (int)threadIdx.x;
#pragma unroll 1
    for (int i = me; i < p.fours; i += DRAW_THREADS) {
        uint32_t key[4];
        each_of(p.keys[i], key);
#pragma unroll
        for (int k = 0; k < 4; k++) {
            if (key[k] > 0 && key[k] >= low) {
                first->candidate[atomicAdd(&first->count, 1)] = {key[k], (int32_t)(p.first + 4 * i + k)};
            }
        }
    }
    cluster_meet();
    if (p.rank > 0) {
        return;
    }
    int n = t->count, rank = me < n ? sample_rank(t->candidate, n, t->candidate[me]) : n;
    n = n < how.top_k ? n : how.top_k;
    if (rank < n) {
        t->sorted[rank] = t->candidate[me];
        t->sorted_mass[rank] = sample_mass(t->candidate[me].key);
    }
    __syncthreads();
    if (me >= n) {
        return;
    }
    struct sample_head head = sample_keep_head(t->sorted_mass, n, how.top_p);
    uint64_t wanted = sample_drawn_mass(how.uniform, head.mass);
    if (me < head.count && sample_is_drawn(t->sorted, t->sorted_mass, &head, me, wanted)) {
        put_token(s, row, s.row[row], t->sorted[me].id);
    }
}

// One cluster for each row with a temperature; two blocks fit a multiprocessor, so 32 rows run at once. The best token
// stands there already, if none can be drawn.
static __global__ void __cluster_dims__(DRAW_BLOCKS) __launch_bounds__(DRAW_THREADS, 2)
    draw(const __grid_constant__ struct sample s)
{
    __shared__ struct together t;
    int row = (int)blockIdx.y, rank = cluster_rank();
    const struct sl_sample_row &how = s.how[row];
    struct best best = s.row[row].best;
    if (how.temperature <= 0 || best.id < 0) {
        return;
    }
    struct part p = {&t, s.keys + ((int64_t)row * DRAW_BLOCKS + rank) * s.share, s.share, rank, 4 * s.share * rank, 0};
    struct sample_kept kept = {0, 0};
    t.count = 0; // the first candidate comes after all blocks have met
    make_keys(s, row, best.value, p);
    struct sample_search found = sample_search_for((uint64_t)how.top_k);
    int counts = how.top_k > 0 && how.top_k < s.vocab;
    if (counts) {
        found = search_count(&p, how.top_k);
        kept = sample_keep_count(&found);
    }
    if (counts && sample_is_few(&found)) {
        draw_from_few(s, row, p, found.low);
    } else {
        draw_from_all(s, row, &p, kept);
    }
    cluster_meet(); // others may still read what this block has told
}

// --- host ---

static const uint32_t *bits_from(const struct sl_tensor *bits, int64_t first_row, int64_t *stride)
{
    *stride = bits != NULL ? bits->stride[0] : 0;
    return bits != NULL ? (const uint32_t *)bits->data + first_row * bits->stride[0] : NULL;
}

static void launch(struct sl_stream *stream, struct sample *s, int rows)
{
    int draws = 0;
    for (int i = 0; i < rows; i++) {
        draws |= s->how[i].temperature > 0;
    }
    scan_slices<<<dim3(s->slices, rows), SLICE_THREADS, 0, stream->native>>>(*s);
    merge_slices<<<rows, 32, 0, stream->native>>>(*s);
    if (draws) {
        int64_t keys_bytes = (int64_t)rows * DRAW_BLOCKS * s->share * (int64_t)sizeof *s->keys;
        s->keys = (uint4 *)cuda_scratch(stream, CUDA_SLOT_B, keys_bytes);
    }
    if (draws && s->keys != NULL) {
        draw<<<dim3(DRAW_BLOCKS, rows), DRAW_THREADS, 0, stream->native>>>(*s);
    }
    cuda_launched(stream, "sampling");
}

void cuda_sample(struct sl_stream *stream, const struct sl_tensor *logits, const struct sl_sample_row *rows,
                 const struct sl_tensor *allowed, const struct sl_tensor *seen, const struct sl_tensor *token,
                 const struct sl_tensor *logprob)
{
    if (!cuda_begin(stream)) {
        return;
    }
    int64_t count = logits->shape[0];
    struct sample s = {};
    s.vocab = logits->shape[1];
    s.logits_stride = logits->stride[0];
    s.slices = (int)((s.vocab + SLICE - 1) / SLICE);
    s.share = (int)((s.vocab + 4 * DRAW_BLOCKS - 1) / (4 * DRAW_BLOCKS));
    s.vectors = (uintptr_t)logits->data % 16 == 0 && s.logits_stride % 4 == 0;
    int64_t found_bytes = (int64_t)LAUNCH_ROWS * (s.slices + 1) * (int64_t)sizeof *s.slice;
    s.row = (struct found *)cuda_scratch(stream, CUDA_SLOT_A, found_bytes);
    s.slice = s.row + LAUNCH_ROWS;
    for (int64_t first = 0; first < count && s.row != NULL; first += LAUNCH_ROWS) {
        int n = count - first < LAUNCH_ROWS ? (int)(count - first) : LAUNCH_ROWS;
        s.logits = (const float *)logits->data + first * s.logits_stride;
        s.allowed = bits_from(allowed, first, &s.allowed_stride);
        s.seen = bits_from(seen, first, &s.seen_stride);
        s.token = (int32_t *)token->data + first;
        s.logprob = (float *)logprob->data + first;
        for (int i = 0; i < n; i++) {
            s.how[i] = rows[first + i];
        }
        launch(stream, &s, n);
    }
}
