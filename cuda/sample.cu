// SPDX-License-Identifier: Apache-2.0
// Drawing tokens, in the order that cpu/ has: penalty and mask, temperature, top-k, top-p, the draw. Every row's best
// token and the sum for its log probability come from two launches: slices of the vocabulary, then what they found.
// Where a temperature is given, a block for each row then draws.
#include <math.h>

#include "cuda/ops.h"
#include "cuda/sample_math.h"

enum {
    LAUNCH_ROWS = 64, // their parameters go with the launch, so that nothing is copied
    SLICE_THREADS = 256,
    SLICE = 8 * SLICE_THREADS, // tokens
    DRAW_THREADS = 32 * SAMPLE_PARTS
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

// The tokens of one row as keys.
struct keys {
    const float *logits;
    const uint32_t *allowed, *seen;
    float best, temperature, presence;
};

static __device__ int has_bit(const uint32_t *bits, int64_t id)
{
    return bits[id / 32] >> (id % 32) & 1;
}

static __device__ uint32_t key_of(const struct keys &k, int64_t id)
{
    if (k.allowed != NULL && !has_bit(k.allowed, id)) {
        return 0;
    }
    float penalty = k.seen != NULL && has_bit(k.seen, id) ? k.presence : 0;
    return sample_scaled(k.logits[id] - penalty, k.best, k.temperature);
}

static __device__ uint64_t sum_of_warp(uint64_t x)
{
    for (int step = 16; step > 0; step /= 2) {
        x += __shfl_xor_sync(~0u, x, step);
    }
    return x;
}

// What the warps of a block tell each other.
struct together {
    uint64_t bins[SAMPLE_PARTS][SAMPLE_BINS];
    uint64_t mass[SAMPLE_PARTS], ties[SAMPLE_PARTS];
    struct sample_search search;
    struct sample_place place;
    int found;
};

// What one token counts for: 1, or with `by_mass` its mass. Ties of top-k are not counted here.
static __device__ uint64_t measure(uint32_t key, int by_mass, const struct sample_kept &kept)
{
    if (key <= kept.key) {
        return 0;
    }
    return by_mass ? sample_mass(key) : 1;
}

// Narrows t->search until it is found. All threads of the block.
static __device__ void search(struct together *t, const struct keys &k, int64_t vocab, int by_mass,
                              const struct sample_kept &kept)
{
    int warp = (int)threadIdx.x / 32, lane = (int)threadIdx.x % 32;
    while (t->search.shift >= 0) {
        struct sample_search s = t->search;
        uint64_t bins[SAMPLE_BINS] = {};
        for (int64_t id = threadIdx.x; id < vocab; id += DRAW_THREADS) {
            uint32_t key = key_of(k, id);
            int bin = sample_bin(&s, key);
            uint64_t more = bin >= 0 && bin < SAMPLE_BINS ? measure(key, by_mass, kept) : 0;
#pragma unroll
            for (int i = 0; i < SAMPLE_BINS; i++) {
                bins[i] += bin == i ? more : 0;
            }
        }
#pragma unroll
        for (int i = 0; i < SAMPLE_BINS; i++) {
            uint64_t sum = sum_of_warp(bins[i]);
            if (lane == 0) {
                t->bins[warp][i] = sum;
            }
        }
        __syncthreads();
        if (threadIdx.x == 0) {
            for (int i = 0; i < SAMPLE_BINS; i++) {
                bins[i] = 0;
                for (int w = 0; w < SAMPLE_PARTS; w++) {
                    bins[i] += t->bins[w][i];
                }
            }
            int bin = sample_bin(&s, kept.key);
            if (kept.ties > 0 && bin >= 0 && bin < SAMPLE_BINS) {
                bins[bin] += kept.ties * sample_mass(kept.key);
            }
            sample_narrow(&t->search, bins);
        }
        __syncthreads();
    }
}

static __device__ void begin_search(struct together *t, uint64_t wanted)
{
    __syncthreads();
    if (threadIdx.x == 0) {
        t->search = sample_search_for(wanted);
    }
    __syncthreads();
}

// Mass above kept.key and number of ties at it in [begin, end), by the threads of one warp.
static __device__ void weigh(const struct keys &k, int64_t begin, int64_t end, const struct sample_kept &kept,
                             uint64_t *mass, uint64_t *ties)
{
    uint64_t m = 0, n = 0;
    for (int64_t id = begin + threadIdx.x % 32; id < end; id += 32) {
        uint32_t key = key_of(k, id);
        m += key > kept.key ? sample_mass(key) : 0;
        n += key == kept.key;
    }
    *mass = sum_of_warp(m);
    *ties = sum_of_warp(n);
}

// Mass of all that is kept.
static __device__ uint64_t total_mass(struct together *t, const struct keys &k, int64_t vocab,
                                      const struct sample_kept &kept)
{
    int warp = (int)threadIdx.x / 32;
    int64_t size = (vocab + SAMPLE_PARTS - 1) / SAMPLE_PARTS, begin = warp * size, end = begin + size;
    uint64_t mass, ties, total = kept.ties > 0 ? kept.ties * sample_mass(kept.key) : 0;
    weigh(k, begin, end < vocab ? end : vocab, kept, &mass, &ties);
    if (threadIdx.x % 32 == 0) {
        t->mass[warp] = mass;
    }
    __syncthreads();
    for (int w = 0; w < SAMPLE_PARTS; w++) {
        total += t->mass[w];
    }
    return total;
}

// The token, or -1.
static __device__ int32_t find_token(struct together *t, const struct keys &k, const struct sample_kept &kept)
{
    int warp = (int)threadIdx.x / 32;
    while (t->found && t->place.end - t->place.begin > 1) {
        struct sample_place p = t->place;
        int64_t size = sample_part_size(&p), begin = p.begin + warp * size, end = begin + size;
        uint64_t mass, ties;
        weigh(k, begin, end < p.end ? end : p.end, kept, &mass, &ties);
        if (threadIdx.x % 32 == 0) {
            t->mass[warp] = mass;
            t->ties[warp] = ties;
        }
        __syncthreads();
        if (threadIdx.x == 0) {
            t->found = sample_choose_part(&t->place, &kept, t->mass, t->ties);
        }
        __syncthreads();
    }
    return t->found ? (int32_t)t->place.begin : -1;
}

// One block for each row with a temperature.
static __global__ void __launch_bounds__(DRAW_THREADS) draw(const __grid_constant__ struct sample s)
{
    __shared__ struct together t;
    int row = (int)blockIdx.x;
    const struct sl_sample_row &how = s.how[row];
    struct found f = s.row[row];
    if (how.temperature <= 0 || f.best.id < 0) {
        return;
    }
    struct keys k = {s.logits + row * s.logits_stride,
                     s.allowed != NULL ? s.allowed + row * s.allowed_stride : NULL,
                     s.seen != NULL ? s.seen + row * s.seen_stride : NULL,
                     f.best.value,
                     how.temperature,
                     how.presence};
    struct sample_kept kept = {0, 0};
    if (how.top_k > 0 && how.top_k < s.vocab) {
        begin_search(&t, (uint64_t)how.top_k);
        search(&t, k, s.vocab, 0, kept);
        kept = sample_keep_count(&t.search);
    }
    uint64_t total = total_mass(&t, k, s.vocab, kept);
    if (how.top_p < 1) {
        begin_search(&t, sample_wanted_mass(how.top_p, total));
        search(&t, k, s.vocab, 1, kept);
        kept = sample_keep_mass(&t.search);
        total = t.search.above + kept.ties * sample_mass(kept.key);
    }
    __syncthreads();
    if (threadIdx.x == 0) {
        t.place = sample_place_for(s.vocab, how.uniform, total);
        t.found = 1;
    }
    __syncthreads();
    int32_t id = find_token(&t, k, kept);
    if (threadIdx.x == 0 && id >= 0) {
        put_token(s, row, f, id);
    }
}

// --- host ---

static const uint32_t *bits_from(const struct sl_tensor *bits, int64_t first_row, int64_t *stride)
{
    *stride = bits != NULL ? bits->stride[0] : 0;
    return bits != NULL ? (const uint32_t *)bits->data + first_row * bits->stride[0] : NULL;
}

static void launch(struct sl_stream *stream, const struct sample *s, int rows)
{
    int draws = 0;
    for (int i = 0; i < rows; i++) {
        draws |= s->how[i].temperature > 0;
    }
    scan_slices<<<dim3(s->slices, rows), SLICE_THREADS, 0, stream->native>>>(*s);
    merge_slices<<<rows, 32, 0, stream->native>>>(*s);
    if (draws) {
        draw<<<rows, DRAW_THREADS, 0, stream->native>>>(*s);
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
