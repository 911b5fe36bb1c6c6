// SPDX-License-Identifier: Apache-2.0
// The mixture of experts of a single row, the step of one sequence: three kernels, for what costs then is the time
// between kernels. The router's logits, with the norm in front; the gated products; the second ones, with the sum.
//
// Choosing experts is so little work that every block that must know them does it for itself. The second product
// chooses while the gated one still runs: its weights, a few outputs of all the chosen experts for each block, are on
// their way then, most of them to shared memory and the rest to registers, so that the memory never rests. For that a
// block of either kernel fits into a multiprocessor, side by side.
#include "cuda/act.cuh"
#include "cuda/barrier.cuh"
#include "cuda/experts.h"
#include "cuda/linear.h"
#include "cuda/tensor.cuh"

enum {
    WARPS = 8,
    THREADS = 32 * WARPS,
    OUTPUTS = 16, // of a tile; of a gated one 8, each with two rows of weights
    STAGES = 5,   // of the gated product, under way
    CHUNK = 512,  // inputs of a stage
    CHUNK_PITCH = 2 * CHUNK + 64,
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

// OUTPUTS rows of weights, the gate's and the up rows of 8 outputs, so far apart that two that are read together fall
// into different banks.
struct gated_shared {
    unsigned char rows[STAGES][OUTPUTS][CHUNK_PITCH];
    bf16 x[MOST_HIDDEN];
    choice chosen;
    float partial[2][WARPS][OUTPUTS];
    uint64_t full[STAGES], empty[STAGES];
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

// By a warp of its own.
static __device__ __forceinline__ void bring_tiles(const one_job &j, const gated_work &w, gated_shared &s)
{
    int lane = threadIdx.x % 32, use = 0;
    for (int item = w.first; item < w.end; item++) {
        int row = item % w.across * 8 + lane % 8 + (lane < 8 ? 0 : j.intermediate);
        const bf16 *from =
            j.gate_up + ((int64_t)s.chosen.expert[item / w.across] * 2 * j.intermediate + row) * j.hidden;
        for (int chunk = 0; chunk < w.chunks; chunk++, use++) {
            int stage = use % STAGES, left = j.hidden - chunk * CHUNK, bytes = 2 * (left < CHUNK ? left : CHUNK);
            barrier_wait(&s.empty[stage], parity_of<STAGES>(use) ^ 1);
            if (lane == 0) {
                barrier_expect(&s.full[stage], OUTPUTS * bytes);
            }
            __syncwarp();
            if (lane < OUTPUTS) {
                copy_bulk(s.rows[stage][lane], from + chunk * CHUNK, bytes, &s.full[stage]);
            }
        }
    }
}

// All columns of B are the same row, so all of the result are the same, too.
static __device__ __forceinline__ void
multiply_chunk(const one_job &j, const bf16 *x, const unsigned char (*rows)[CHUNK_PITCH], int chunk, float c[2][4])
{
    int warp = threadIdx.x / 32, g = threadIdx.x % 32 / 4, q = threadIdx.x % 4;
    const uint4 none = make_uint4(0, 0, 0, 0);
#pragma unroll
    for (int i = 0; i < CHUNK / 32 / WARPS; i++) {
        int k = 32 * (warp + i * WARPS) + 8 * q, valid = chunk * CHUNK + k < j.hidden;
        uint4 gate = valid ? *(const uint4 *)(rows[g] + 2 * k) : none;
        uint4 up = valid ? *(const uint4 *)(rows[g + 8] + 2 * k) : none;
        uint4 b = valid ? *(const uint4 *)(x + chunk * CHUNK + k) : none;
        multiply_words(c[i % 2], gate, up, b);
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
    meet(1, THREADS);
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

static __device__ __forceinline__ void multiply_tiles(const one_job &j, const gated_work &w, gated_shared &s)
{
    int lane = threadIdx.x % 32, use = 0;
    for (int item = w.first; item < w.end; item++) {
        float c[2][4] = {};
        for (int chunk = 0; chunk < w.chunks; chunk++, use++) {
            int stage = use % STAGES;
            barrier_wait(&s.full[stage], parity_of<STAGES>(use));
            multiply_chunk(j, s.x, s.rows[stage], chunk, c);
            __syncwarp();
            if (lane == 0) {
                barrier_arrive(&s.empty[stage]);
            }
        }
        finish(j, w, item, s.partial[item % 2], c);
    }
}

static __global__ void __launch_bounds__(THREADS + 32) gated_one(const one_job j)
{
    extern __shared__ __align__(128) unsigned char dynamic[];
    gated_shared &s = *(gated_shared *)dynamic;
    if (threadIdx.x < STAGES) {
        barrier_create(&s.full[threadIdx.x], 1);
        barrier_create(&s.empty[threadIdx.x], WARPS);
        barriers_are_made();
    }
    wait_for_previous();
    let_next_begin(); // not before: the next kernel reads the logits at once
    float logit = own_logit(j);
    for (int w = threadIdx.x; w < j.hidden / 8; w += blockDim.x) {
        ((uint4 *)s.x)[w] = ((const uint4 *)j.normed)[w];
    }
    choose(j, logit, s.chosen); // and x and the barriers are there
    gated_work w = work_of(j);
    if (threadIdx.x < THREADS) {
        multiply_tiles(j, w, s);
    } else {
        bring_tiles(j, w, s);
    }
}

// --- the second product ---

// A warp's weights in shared memory: OUTPUTS rows so far apart that two that are read together fall into different
// banks.
static __host__ __device__ __forceinline__ int shared_steps(const one_job &j)
{
    return j.intermediate / 32 > HELD ? j.intermediate / 32 - HELD : 0;
}

static __host__ __device__ __forceinline__ int pitch_bytes(const one_job &j)
{
    return (64 * shared_steps(j) + 63) / 128 * 128 + 64;
}

static __host__ __device__ __forceinline__ int down_bytes(const one_job &j)
{
    return j.top_k * (OUTPUTS * pitch_bytes(j) + 2 * j.intermediate);
}

// By a warp: its expert's rows of this block to shared memory.
static __device__ __forceinline__ void bring_rows(const one_job &j, const bf16 *from, unsigned char *to, uint64_t *full)
{
    int lane = threadIdx.x % 32, bytes = 64 * shared_steps(j);
    if (bytes == 0) {
        return;
    }
    if (lane == 0) {
        barrier_expect(full, OUTPUTS * bytes);
    }
    __syncwarp();
    if (lane < OUTPUTS) {
        copy_bulk(to + lane * pitch_bytes(j), from + (int64_t)lane * j.intermediate, bytes, full);
    }
}

// By a warp: its expert's sums of these outputs. Four sums in turn, so that products need not wait for each other.
static __device__ __forceinline__ void multiply_rows(const one_job &j, const bf16 *x, const unsigned char *rows,
                                                     uint64_t *full, const uint4 low[HELD], const uint4 high[HELD],
                                                     float *sums)
{
    int lane = threadIdx.x % 32, g = lane / 4, q = lane % 4, steps = shared_steps(j), pitch = pitch_bytes(j);
    float c[4][4] = {};
#pragma unroll
    for (int i = 0; i < HELD; i++) {
        if (steps + i < j.intermediate / 32) {
            multiply_words(c[i % 4], low[i], high[i], *(const uint4 *)(x + 32 * (steps + i) + 8 * q));
        }
    }
    if (steps > 0) {
        barrier_wait(full, 0);
    }
    const unsigned char *at = rows + g * pitch + 16 * q;
    for (int step = 0; step < steps; step += 4) {
#pragma unroll
        for (int i = 0; i < 4; i++) {
            if (step + i < steps) {
                const unsigned char *word = at + 64 * (step + i);
                multiply_words(c[i], *(const uint4 *)word, *(const uint4 *)(word + 8 * pitch),
                               *(const uint4 *)(x + 32 * (step + i) + 8 * q));
            }
        }
    }
    if (q == 0) {
        sums[g] = (c[0][0] + c[1][0]) + (c[2][0] + c[3][0]);
        sums[g + 8] = (c[0][2] + c[1][2]) + (c[2][2] + c[3][2]);
    }
}

// A block for each 16 outputs, a warp for each expert.
static __global__ void __launch_bounds__(THREADS) down_one(const one_job j)
{
    extern __shared__ __align__(128) unsigned char dynamic[];
    __shared__ choice chosen;
    __shared__ float sums[WARPS][OUTPUTS];
    __shared__ uint64_t full[WARPS];
    int warp = threadIdx.x / 32, lane = threadIdx.x % 32, g = lane / 4, q = lane % 4;
    let_next_begin();
    if (threadIdx.x < WARPS) {
        barrier_create(&full[threadIdx.x], 1);
        barriers_are_made();
    }
    choose(j, own_logit(j), chosen);
    unsigned char *rows = dynamic + warp * OUTPUTS * pitch_bytes(j);
    bf16 *x = (bf16 *)(dynamic + j.top_k * OUTPUTS * pitch_bytes(j)) + warp * j.intermediate;
    uint4 low[HELD], high[HELD];
    if (warp < j.top_k) {
        const bf16 *from = j.down + ((int64_t)chosen.expert[warp] * j.hidden + blockIdx.x * OUTPUTS) * j.intermediate;
        bring_rows(j, from, rows, &full[warp]);
        from += g * j.intermediate + 32 * shared_steps(j) + 8 * q;
#pragma unroll
        for (int i = 0; i < HELD; i++) {
            if (shared_steps(j) + i < j.intermediate / 32) {
                low[i] = load_weights(from + 32 * i);
                high[i] = load_weights(from + 8 * j.intermediate + 32 * i);
            }
        }
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
            ((uint4 *)x)[w] = inner[w];
        }
        __syncwarp();
        multiply_rows(j, x, rows, &full[warp], low, high, sums[warp]);
    }
    __syncthreads();
    if (threadIdx.x < OUTPUTS) {
        float sum = 0;
        for (int k = 0; k < j.top_k; k++) {
            sum += chosen.weight[k] * sums[k][threadIdx.x];
        }
        *y = __float2bfloat16(__bfloat162float(old) + sum);
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

// A multiprocessor divides its memory anew only when it is empty: then kernels that want it divided otherwise could not
// overlap.
template <typename Kernel> static int prefer_shared(struct sl_stream *stream, Kernel kernel)
{
    return cuda_check(
        stream,
        cudaFuncSetAttribute(kernel, cudaFuncAttributePreferredSharedMemoryCarveout, cudaSharedmemCarveoutMaxShared),
        "shared memory");
}

void cuda_experts_one(struct sl_stream *stream, const struct experts_one *one)
{
    one_job j = job_of(one);
    j.inner = (bf16 *)cuda_scratch(stream, CUDA_SLOT_B, (int64_t)j.top_k * j.intermediate * 2);
    void (*route)(const one_job) = j.hidden <= 8 * THREADS ? route_one<1> : route_one<2>;
    size_t shared = (size_t)down_bytes(j);
    if (j.inner == NULL || !prefer_shared(stream, route) || !prefer_shared(stream, gated_one) ||
        !prefer_shared(stream, down_one) || !allow_shared(stream, gated_one, sizeof(gated_shared)) ||
        !allow_shared(stream, down_one, shared)) {
        return;
    }
    int items = j.top_k * j.intermediate / 8, blocks = stream->device->multiprocessors;
    launch_overlapping(stream, route, dim3((unsigned)j.experts), THREADS, 0, j);
    launch_overlapping(stream, gated_one, dim3((unsigned)(items < blocks ? items : blocks)), THREADS + 32,
                       sizeof(gated_shared), j);
    launch_overlapping(stream, down_one, dim3((unsigned)(j.hidden / OUTPUTS)), THREADS, shared, j);
    cuda_launched(stream, "a mixture of experts of one row");
}
