// SPDX-License-Identifier: Apache-2.0
// The mixture of experts of a single row, the step of one sequence: three kernels, for what costs then is the time
// between kernels. The router's logits, with the norm in front; the gated products; the second ones, with the sum.
//
// Choosing experts is so little work that every block that must know them does it for itself. The second product
// chooses while the gated one still runs: its weights, a few outputs of all the chosen experts for each block, are on
// their way then, as many as fit to registers and the rest to shared memory, so that the memory never rests. For that a
// block of either kernel fits into a multiprocessor, side by side.
#include "cuda/act.cuh"
#include "cuda/experts.h"
#include "cuda/linear.h"
#include "cuda/tensor.cuh"

enum {
    WARPS = 8,
    THREADS = 32 * WARPS,
    OUTPUTS = 16,       // of a tile; of a gated one 8, each with two rows of weights
    STAGES = 5,         // of the gated product, under way
    CHUNK = 512,        // inputs of a stage
    WORDS = 4,          // of a thread in a chunk
    HELD = 12,          // of 32 inputs of the second product, that are held in registers
    MOST_EXPERTS = 128, // half as many as threads
    MOST_HIDDEN = 4096,
    SHARED_LIMIT = 220 * 1024
};

struct one_job {
    const bf16 *norm, *router, *gate_up, *down; // [H], [E, H], [E, 2M, H], [E, H, M]
    bf16 *y, *normed, *inner;                   // [H], [H], [top_k, M]
    float *logits;                              // [E]
    int hidden, intermediate, experts, top_k, normalise;
    float eps;
};

// --- the router ---

// A block for each expert. EACH: words of eight for a thread.
template <int EACH> static __global__ void __launch_bounds__(THREADS) route_one(const one_job j)
{
    __shared__ float shared[32];
    int words = j.hidden / 8;
    eight x[EACH], norm[EACH], weight[EACH];
    let_next_begin();
#pragma unroll
    for (int k = 0; k < EACH; k++) {
        int w = threadIdx.x + k * THREADS;
        const uint4 none = make_uint4(0, 0, 0, 0);
        weight[k].word = w < words ? load_weights(j.router + (int64_t)blockIdx.x * j.hidden + 8 * w) : none;
        norm[k].word = w < words ? ((const uint4 *)j.norm)[w] : none;
    }
    wait_for_previous();
    float squares = 0, logit = 0;
#pragma unroll
    for (int k = 0; k < EACH; k++) {
        int w = threadIdx.x + k * THREADS;
        x[k].word = w < words ? ((const uint4 *)j.y)[w] : make_uint4(0, 0, 0, 0);
        for (int i = 0; i < 8; i++) {
            float value = __bfloat162float(x[k].value[i]);
            squares += value * value;
        }
    }
    float scale = rsqrtf(sum_of_block(squares, shared) / (float)j.hidden + j.eps);
#pragma unroll
    for (int k = 0; k < EACH; k++) {
        int w = threadIdx.x + k * THREADS;
        for (int i = 0; i < 8; i++) {
            x[k].value[i] =
                __float2bfloat16(__bfloat162float(x[k].value[i]) * scale * __bfloat162float(norm[k].value[i]));
            logit += __bfloat162float(x[k].value[i]) * __bfloat162float(weight[k].value[i]);
        }
        if (blockIdx.x == 0 && w < words) {
            ((uint4 *)j.normed)[w] = x[k].word;
        }
    }
    logit = sum_of_block(logit, shared);
    if (threadIdx.x == 0) {
        j.logits[blockIdx.x] = logit;
    }
}

// --- the choice ---

struct __align__(16) choice
{
    uint32_t order[MOST_EXPERTS]; // of the logits; 0 behind the last expert
    int before[2][MOST_EXPERTS];  // experts that go before this one, of the lower half and of the upper
    int expert[WARPS];            // the most probable first
    float logit[WARPS], weight[WARPS];
};

// Integers in the order of the logits.
static __device__ __forceinline__ uint32_t order_of(float logit)
{
    uint32_t bits = __float_as_uint(logit + 0.0f); // -0 and 0 are equal
    return bits >> 31 ? ~bits : bits | 0x80000000u;
}

static __device__ __forceinline__ float logit_of(uint32_t order)
{
    return __uint_as_float(order >> 31 ? order & 0x7fffffffu : ~order);
}

// A thread's expert's logit, by way of the second cache: the router may have run two kernels ago.
static __device__ __forceinline__ float own_logit(const one_job &j)
{
    int e = threadIdx.x % MOST_EXPERTS;
    return e < j.experts ? __ldcg(j.logits + e) : 0;
}

// Of equals the lower index goes first.
static __device__ __forceinline__ int goes_before(uint32_t other, int other_index, uint32_t own, int own_index)
{
    return other > own || (other == own && other_index < own_index);
}

// By all threads: two count for each expert how many go before it, which is its place.
static __device__ __forceinline__ void choose(const one_job &j, float logit, choice &c)
{
    const int most = MOST_EXPERTS;
    int e = threadIdx.x % most, half = threadIdx.x / most, before = 0;
    uint32_t own = e < j.experts ? order_of(logit) : 0;
    if (half == 0) {
        c.order[e] = own;
    }
    __syncthreads();
#pragma unroll 4
    for (int i = half * most / 2; i < (half + 1) * most / 2 && half < 2; i += 4) {
        uint4 others = *(const uint4 *)&c.order[i];
        before += goes_before(others.x, i, own, e) + goes_before(others.y, i + 1, own, e) +
                  goes_before(others.z, i + 2, own, e) + goes_before(others.w, i + 3, own, e);
    }
    if (half < 2) {
        c.before[half][e] = before;
    }
    __syncthreads();
    int place = c.before[0][e] + c.before[1][e];
    if (half == 0 && place < j.top_k) {
        c.expert[place] = e;
        c.logit[place] = logit_of(own);
    }
    __syncthreads();
}

// By one warp, behind choose(): as route.cu does it.
static __device__ __forceinline__ void weigh(const one_job &j, choice &c)
{
    int lane = threadIdx.x % 32;
    float all = 0;
    for (int e = lane; e < j.experts; e += 32) {
        all += expf(logit_of(c.order[e]) - c.logit[0]);
    }
    all = sum_of_warp(all);
    float weight = lane < j.top_k ? expf(c.logit[lane] - c.logit[0]) / all : 0, sum = sum_of_warp(weight);
    if (lane < j.top_k) {
        c.weight[lane] = j.normalise ? weight / sum : weight;
    }
}

// --- the gated product ---

// OUTPUTS rows of weights, the gate's and the up rows of 8 outputs. Each thread has places of its own in the ring: it
// copies there what it will use itself, so that nobody waits for anybody.
struct gated_shared {
    uint4 ring[STAGES][WORDS][THREADS];
    bf16 x[MOST_HIDDEN];
    choice chosen;
    float partial[2][WARPS][OUTPUTS];
};

// The tiles of a block: those of an expert, then those of the next one.
struct gated_work {
    int across, first, end, chunks; // tiles of an expert; the block's; chunks of inputs
};

static __device__ __forceinline__ gated_work work_of(const one_job &j)
{
    int across = j.intermediate / 8, items = j.top_k * across;
    gated_work w = {across, items * (int)blockIdx.x / (int)gridDim.x, items * (int)(blockIdx.x + 1) / (int)gridDim.x,
                    (j.hidden + CHUNK - 1) / CHUNK};
    return w;
}

// What comes next: the chunks of one tile, then those of the block's next one.
struct cursor {
    int item, chunk;
    const bf16 *gate, *up; // this lane's rows
};

static __device__ __forceinline__ void aim(const one_job &j, const gated_work &w, const choice &c, cursor &at, int item)
{
    at.item = item;
    at.chunk = 0;
    if (item < w.end) {
        int64_t row =
            (int64_t)c.expert[item / w.across] * 2 * j.intermediate + item % w.across * 8 + (int)threadIdx.x % 32 / 4;
        at.gate = j.gate_up + row * j.hidden;
        at.up = at.gate + (int64_t)j.intermediate * j.hidden;
    }
}

// The first of eight inputs of a thread: a warp takes whole lines of 64 inputs.
static __device__ __forceinline__ int input_of(int chunk, int i)
{
    return chunk * CHUNK + (int)threadIdx.x / 32 * 64 + 32 * i + (int)threadIdx.x % 4 * 8;
}

// The thread's words of one chunk. Behind the last tile nothing is copied, but counted.
static __device__ __forceinline__ void fetch(const one_job &j, const gated_work &w, const choice &c, cursor &at,
                                             uint4 (*to)[THREADS])
{
    if (at.item < w.end) {
#pragma unroll
        for (int i = 0; i < WORDS / 2; i++) {
            int k = input_of(at.chunk, i), valid = k < j.hidden;
            copy_weights(shared_address(&to[2 * i][threadIdx.x]), valid ? at.gate + k : j.gate_up, valid);
            copy_weights(shared_address(&to[2 * i + 1][threadIdx.x]), valid ? at.up + k : j.gate_up, valid);
        }
        if (++at.chunk == w.chunks) {
            aim(j, w, c, at, at.item + 1);
        }
    }
    copies_commit();
}

// All columns of B are the same row, so all of the result are the same, too.
static __device__ __forceinline__ void use(const one_job &j, const bf16 *x, int chunk, const uint4 (*from)[THREADS],
                                           float c[2][4])
{
#pragma unroll
    for (int i = 0; i < WORDS / 2; i++) {
        int k = input_of(chunk, i);
        uint4 b = k < j.hidden ? *(const uint4 *)(x + k) : make_uint4(0, 0, 0, 0);
        multiply_words(c[i % 2], from[2 * i][threadIdx.x], from[2 * i + 1][threadIdx.x], b);
    }
}

// The warps' sums become outputs. Two buffers in turn, so that one barrier is enough.
static __device__ __forceinline__ void finish(const one_job &j, const gated_work &w, int item, float (*sums)[OUTPUTS],
                                              float c[2][4])
{
    int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    if (lane % 4 == 0) {
        sums[warp][lane / 4] = c[0][0] + c[1][0];
        sums[warp][lane / 4 + 8] = c[0][2] + c[1][2];
    }
    __syncthreads();
    if (threadIdx.x < 8) {
        float gate = 0, up = 0;
#pragma unroll
        for (int k = 0; k < WARPS; k++) {
            gate += sums[k][threadIdx.x];
            up += sums[k][threadIdx.x + 8];
        }
        j.inner[item / w.across * j.intermediate + item % w.across * 8 + threadIdx.x] =
            __float2bfloat16(silu(gate) * up);
    }
}

static __global__ void __launch_bounds__(THREADS, 2) gated_one(const one_job j)
{
    extern __shared__ __align__(128) unsigned char dynamic[];
    gated_shared &s = *(gated_shared *)dynamic;
    wait_for_previous();
    let_next_begin(); // not before: the next kernel reads the logits at once
    float logit = own_logit(j);
    for (int w = threadIdx.x; w < j.hidden / 8; w += THREADS) {
        ((uint4 *)s.x)[w] = __ldcg((const uint4 *)j.normed + w);
    }
    choose(j, logit, s.chosen); // and x is there
    gated_work w = work_of(j);
    cursor next = {};
    aim(j, w, s.chosen, next, w.first);
    for (int i = 0; i < STAGES; i++) {
        fetch(j, w, s.chosen, next, s.ring[i]);
    }
    int stage = 0;
    for (int item = w.first; item < w.end; item++) {
        float c[2][4] = {};
        for (int chunk = 0; chunk < w.chunks; chunk++) {
            copies_wait<STAGES - 1>();
            use(j, s.x, chunk, s.ring[stage], c);
            fetch(j, w, s.chosen, next, s.ring[stage]);
            stage = stage + 1 < STAGES ? stage + 1 : 0;
        }
        finish(j, w, item, s.partial[item % 2], c);
    }
}

// --- the second product ---

// Of 32 inputs: what does not fit into registers comes by shared memory, where each thread has places of its own.
static __host__ __device__ __forceinline__ int shared_steps(const one_job &j)
{
    return j.intermediate / 32 > HELD ? j.intermediate / 32 - HELD : 0;
}

// Words of a warp's weights there.
static __host__ __device__ __forceinline__ int shared_words(const one_job &j)
{
    return 2 * 32 * shared_steps(j);
}

static __host__ __device__ __forceinline__ int down_bytes(const one_job &j)
{
    return j.top_k * (16 * shared_words(j) + 2 * j.intermediate);
}

// A lane's words of weights that wait in registers: of the outputs g and g + 8.
struct held {
    uint4 low[HELD], high[HELD];
};

// A lane's inputs of the outputs g (`from`) and g + 8: the first ones to its own places, the rest to registers.
static __device__ __forceinline__ void bring_words(const one_job &j, const bf16 *from, const uint4 *to, held &rest)
{
    int steps = shared_steps(j);
    for (int step = 0; step < steps; step++) {
        copy_weights(shared_address(to + 64 * step), from + 32 * step, 1);
        copy_weights(shared_address(to + 64 * step + 32), from + 8 * j.intermediate + 32 * step, 1);
    }
    copies_commit();
    from += 32 * steps;
#pragma unroll
    for (int i = 0; i < HELD; i++) {
        if (steps + i < j.intermediate / 32) {
            rest.low[i] = load_weights(from + 32 * i);
            rest.high[i] = load_weights(from + 8 * j.intermediate + 32 * i);
        }
    }
}

// By a warp: its expert's sums of these outputs. Four sums in turn, so that products need not wait for each other.
static __device__ __forceinline__ void multiply_rows(const one_job &j, const bf16 *x, const uint4 *words,
                                                     const held &rest, float *sums)
{
    int lane = threadIdx.x % 32, g = lane / 4, q = lane % 4, steps = shared_steps(j);
    float c[4][4] = {};
#pragma unroll
    for (int i = 0; i < HELD; i++) {
        if (steps + i < j.intermediate / 32) {
            multiply_words(c[i % 4], rest.low[i], rest.high[i], *(const uint4 *)(x + 32 * (steps + i) + 8 * q));
        }
    }
    copies_wait<0>();
    for (int step = 0; step < steps; step += 4) {
#pragma unroll
        for (int i = 0; i < 4; i++) {
            if (step + i < steps) {
                multiply_words(c[i], words[64 * (step + i)], words[64 * (step + i) + 32],
                               *(const uint4 *)(x + 32 * (step + i) + 8 * q));
            }
        }
    }
    if (q == 0) {
        sums[g] = (c[0][0] + c[1][0]) + (c[2][0] + c[3][0]);
        sums[g + 8] = (c[0][2] + c[1][2]) + (c[2][2] + c[3][2]);
    }
}

// The experts' sums, weighed, on top of what y had.
static __device__ __forceinline__ void add_experts(const one_job &j, const choice &c, const float (*sums)[OUTPUTS],
                                                   bf16 *y, bf16 old)
{
    float sum = 0;
    for (int k = 0; k < j.top_k; k++) {
        sum += c.weight[k] * sums[k][threadIdx.x];
    }
    *y = __float2bfloat16(__bfloat162float(old) + sum);
}

// A block for each 16 outputs, a warp for each expert.
//
// It reads the logits, and y, before it waits. So it must run directly behind gated_one, which lets it begin only after
// a wait of its own: then the router is done, and all that wrote to y before. Only `inner` is still being written.
static __global__ void __launch_bounds__(THREADS) down_one(const one_job j)
{
    extern __shared__ __align__(128) unsigned char dynamic[];
    __shared__ choice chosen;
    __shared__ float sums[WARPS][OUTPUTS];
    int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    let_next_begin();
    choose(j, own_logit(j), chosen);
    const uint4 *words = (const uint4 *)dynamic + warp * shared_words(j) + lane;
    bf16 *x = (bf16 *)(dynamic + 16 * j.top_k * shared_words(j)) + warp * j.intermediate;
    held rest;
    if (warp < j.top_k) {
        int64_t row = (int64_t)chosen.expert[warp] * j.hidden + blockIdx.x * OUTPUTS + lane / 4;
        bring_words(j, j.down + row * j.intermediate + lane % 4 * 8, words, rest);
    }
    if (warp == 0) {
        weigh(j, chosen);
    }
    bf16 *y = j.y + blockIdx.x * OUTPUTS + threadIdx.x % OUTPUTS, old = __ldcg(y); // as it was before the router ran
    wait_for_previous();
    if (warp < j.top_k) {
        const uint4 *inner = (const uint4 *)(j.inner + warp * j.intermediate);
#pragma unroll 3
        for (int w = lane; w < j.intermediate / 8; w += 32) {
            ((uint4 *)x)[w] = __ldcg(inner + w);
        }
        __syncwarp();
        multiply_rows(j, x, words, rest, sums[warp]);
    }
    __syncthreads();
    if (threadIdx.x < OUTPUTS) {
        add_experts(j, chosen, sums, y, old);
    }
}

// --- the operation ---

static one_job job_of(const struct experts_one *one)
{
    one_job j = {};
    j.norm = (const bf16 *)one->norm->data;
    j.router = (const bf16 *)one->router->weight;
    j.gate_up = (const bf16 *)one->experts->gate_up;
    j.down = (const bf16 *)one->experts->down;
    j.y = (bf16 *)one->y->data;
    j.normed = (bf16 *)one->room->normed.data;
    j.logits = (float *)one->room->logits.data;
    j.hidden = one->experts->hidden;
    j.intermediate = one->experts->intermediate;
    j.experts = one->experts->count;
    j.top_k = (int)one->room->expert.shape[1];
    j.normalise = one->normalise;
    j.eps = one->eps;
    return j;
}

int cuda_experts_one_takes(const struct experts_one *one)
{
    const struct sl_experts *e = one->experts;
    one_job j = job_of(one);
    return one->y->shape[0] == 1 && e->compute == SL_BF16 && one->y->dtype == SL_BF16 &&
           one->router->compute == SL_BF16 && one->router->bias == NULL && one->router->out == e->count &&
           one->router->in == e->hidden && e->count <= MOST_EXPERTS && j.top_k <= WARPS && e->hidden % OUTPUTS == 0 &&
           e->hidden <= MOST_HIDDEN && e->intermediate % 32 == 0 && down_bytes(j) <= SHARED_LIMIT &&
           (uintptr_t)j.y % 16 == 0 && (uintptr_t)j.normed % 16 == 0;
}

void cuda_experts_one(struct sl_stream *stream, const struct experts_one *one)
{
    one_job j = job_of(one);
    j.inner = (bf16 *)cuda_scratch(stream, CUDA_SLOT_B, (int64_t)j.top_k * j.intermediate * 2);
    void (*route)(const one_job) = j.hidden <= 8 * THREADS ? route_one<1> : route_one<2>;
    size_t shared = (size_t)down_bytes(j);
    if (j.inner == NULL || !share_multiprocessor(stream, route) || !share_multiprocessor(stream, gated_one) ||
        !share_multiprocessor(stream, down_one) || !allow_shared(stream, gated_one, sizeof(gated_shared)) ||
        !allow_shared(stream, down_one, shared)) {
        return;
    }
    int items = j.top_k * j.intermediate / 8, blocks = stream->device->multiprocessors;
    launch_overlapping(stream, route, dim3((unsigned)j.experts), THREADS, 0, j);
    launch_overlapping(stream, gated_one, dim3((unsigned)(items < blocks ? items : blocks)), THREADS,
                       sizeof(gated_shared), j);
    launch_overlapping(stream, down_one, dim3((unsigned)(j.hidden / OUTPUTS)), THREADS, shared, j);
    cuda_launched(stream, "a mixture of experts of one row");
}
