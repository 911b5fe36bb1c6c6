// SPDX-License-Identifier: Apache-2.0
// Up to 16 rows by the tensor cores, whose arithmetic is free here: what counts is that weights never stop coming.
//
// A block makes 16 outputs after another 16. Its warps share out the inputs, 64 at a time, and add up at the end. In
// m16n8k16 the weights are A (16 outputs by 16 inputs) and x is B (16 inputs by 8 rows). Which input stands at which k
// is ours to choose, as long as A and B agree: lane (g, q) takes 8 inputs of outputs g and g + 8 from 8q on, and the
// same 8 inputs of row g of x; words 0 and 1 of these are its part of one product, words 2 and 3 of a second.
//
// Weights come by a ring in shared memory, in which each thread has places of its own: it copies there what it will use
// itself, so that nobody waits for anybody. One block of a multiprocessor is enough for the memory's full rate. The
// other half of the multiprocessor is for the next kernel, whose ring fills while this one ends.
#include "cuda/act.cuh"
#include "cuda/few.h"
#include "cuda/tensor.cuh"

enum {
    WARPS = 8,
    THREADS = 32 * WARPS,
    OUTPUTS = 16,
    UNROLL = 2,
    STEP = 64,          // inputs of a warp, UNROLL times
    WORDS = 4 * UNROLL, // of a thread in one step
    NORM_WORDS = 2,     // of the norm's weights that a thread holds from the beginning
    ROWS_AT_ONCE = 4,
    HALF = 112 * 1024, // of a multiprocessor's shared memory, but for what a block has besides
    SHARED_LIMIT = 100 * 1024
};

struct few {
    const bf16 *weight, *bias, *x, *norm;
    const void *residual;
    void *y;
    int64_t x_stride, residual_stride, y_stride;
    int rows, in, out; // out: of the weights; SILU_GATE gives half of that
    int tiles, steps;
    float eps;
    enum sl_epilogue epilogue;
    int y_is_f32, residual_is_f32;
};

static __host__ __device__ __forceinline__ int outputs_of(const few &f)
{
    return f.epilogue == SL_EPILOGUE_SILU_GATE ? OUTPUTS / 2 : OUTPUTS;
}

// The weights' row of output g (0..15) of a tile. With a gate, outputs 8 to 15 are the upper halves' partners of
// outputs 0 to 7.
static __device__ __forceinline__ int weight_row(const few &f, int tile, int g)
{
    return f.epilogue == SL_EPILOGUE_SILU_GATE ? tile * 8 + g % 8 + (g < 8 ? 0 : f.out / 2) : tile * OUTPUTS + g;
}

static __device__ __forceinline__ int is_output(const few &f, int tile, int g)
{
    return f.epilogue == SL_EPILOGUE_SILU_GATE ? tile * 8 + g % 8 < f.out / 2 : weight_row(f, tile, g) < f.out;
}

// --- weights ---

// What comes next: the steps of one tile, then those of the block's next one.
struct cursor {
    int tile, step;
    const bf16 *low, *high; // this lane's inputs of outputs g and g + 8
};

static __device__ __forceinline__ int first_input(void)
{
    return (int)threadIdx.x / 32 * STEP + threadIdx.x % 4 * 8;
}

static __device__ __forceinline__ void aim(const few &f, cursor &at, int tile)
{
    int g = threadIdx.x % 32 / 4;
    at.tile = tile;
    at.step = 0;
    at.low = f.weight + (int64_t)(is_output(f, tile, g) ? weight_row(f, tile, g) : 0) * f.in + first_input();
    at.high = f.weight + (int64_t)(is_output(f, tile, g + 8) ? weight_row(f, tile, g + 8) : 0) * f.in + first_input();
}

// The thread's words of one step: `to` is its first place, the others are THREADS words apart. Behind the last tile
// nothing is copied, but counted.
static __device__ __forceinline__ void fetch(const few &f, cursor &at, uint32_t to)
{
    if (at.tile < f.tiles) {
#pragma unroll
        for (int i = 0; i < WORDS / 2; i++) { // halves of 32 inputs
            int k = at.step * UNROLL * WARPS * STEP + i / 2 * WARPS * STEP + i % 2 * 32;
            int valid = first_input() + k < f.in;
            copy_weights(to + 2 * i * THREADS * 16, valid ? at.low + k : f.weight, valid);
            copy_weights(to + (2 * i + 1) * THREADS * 16, valid ? at.high + k : f.weight, valid);
        }
        if (++at.step == f.steps) {
            aim(f, at, at.tile + gridDim.x);
        }
    }
    copies_commit();
}

// TILES: rows of x by eight. SHARED: x lies in shared memory, else where it was. Two sums in turn, so that one product
// need not wait for the last.
template <int TILES, bool SHARED>
static __device__ __forceinline__ void use(const few &f, const bf16 *x, int pitch, int step, const uint4 *w,
                                           float c[TILES][2][4])
{
    int g = threadIdx.x % 32 / 4;
#pragma unroll
    for (int i = 0; i < WORDS / 2; i++) {
        int k = first_input() + step * UNROLL * WARPS * STEP + i / 2 * WARPS * STEP + i % 2 * 32;
        uint4 low = w[2 * i * THREADS], high = w[(2 * i + 1) * THREADS];
#pragma unroll
        for (int t = 0; t < TILES; t++) {
            int row = 8 * t + g;
            uint4 b = make_uint4(0, 0, 0, 0);
            if (row < f.rows && k < f.in) {
                b = SHARED ? *(const uint4 *)(x + row * pitch + k) : *(const uint4 *)(f.x + row * f.x_stride + k);
            }
            multiply_words(c[t][i % 2], low, high, b);
        }
    }
}

// --- x ---

// Thread t's first words of the norm's weights: constant, so they may come before the kernel before is done.
static __device__ __forceinline__ void load_norm(const few &f, eight n[NORM_WORDS])
{
#pragma unroll
    for (int i = 0; i < NORM_WORDS; i++) {
        int w = threadIdx.x + i * THREADS;
        n[i].word = f.norm != NULL && 8 * w < f.in ? ((const uint4 *)f.norm)[w] : make_uint4(0, 0, 0, 0);
    }
}

static __device__ __forceinline__ float square(const eight &v)
{
    float sum = 0;
#pragma unroll
    for (int i = 0; i < 8; i++) {
        float value = __bfloat162float(v.value[i]);
        sum += value * value;
    }
    return sum;
}

// Word w of all rows times the norm's scale and weights.
static __device__ __forceinline__ void scale_rows(const few &f, bf16 *x, int pitch, int w, const eight &n,
                                                  const float squares[CUDA_MAX_ROWS_FEW][WARPS])
{
    for (int row = 0; row < f.rows; row++) {
        float sum = 0;
#pragma unroll
        for (int i = 0; i < WARPS; i++) {
            sum += squares[row][i];
        }
        float scale = rsqrtf(sum / (float)f.in + f.eps);
        uint4 *at = (uint4 *)(x + row * pitch + 8 * w);
        eight v;
        v.word = *at;
#pragma unroll
        for (int i = 0; i < 8; i++) {
            v.value[i] = __float2bfloat16(__bfloat162float(v.value[i]) * scale * __bfloat162float(n.value[i]));
        }
        *at = v.word;
    }
}

// x, or its norm, to shared memory, by all threads; rows lie `pitch` elements apart, so that eight of them fall into
// different banks. A thread scales the words that it has brought itself.
static __device__ __forceinline__ void bring_x(const few &f, bf16 *to, int pitch, const eight n[NORM_WORDS])
{
    __shared__ float squares[CUDA_MAX_ROWS_FEW][WARPS];
    int warp = threadIdx.x / 32, lane = threadIdx.x % 32, words = f.in / 8;
    for (int first = 0; first < f.rows; first += ROWS_AT_ONCE) {
        float sum[ROWS_AT_ONCE] = {};
#pragma unroll 2
        for (int w = threadIdx.x; w < words; w += THREADS) {
            eight v[ROWS_AT_ONCE];
#pragma unroll
            for (int r = 0; r < ROWS_AT_ONCE; r++) {
                if (first + r < f.rows) {
                    v[r].word = ((const uint4 *)(f.x + (first + r) * f.x_stride))[w];
                }
            }
#pragma unroll
            for (int r = 0; r < ROWS_AT_ONCE; r++) {
                if (first + r < f.rows) {
                    sum[r] += square(v[r]);
                    *(uint4 *)(to + (first + r) * pitch + 8 * w) = v[r].word;
                }
            }
        }
#pragma unroll
        for (int r = 0; r < ROWS_AT_ONCE; r++) {
            if (f.norm != NULL && first + r < f.rows) {
                sum[r] = sum_of_warp(sum[r]);
                if (lane == 0) {
                    squares[first + r][warp] = sum[r];
                }
            }
        }
    }
    __syncthreads();
    if (f.norm == NULL) {
        return;
    }
#pragma unroll
    for (int i = 0; i < NORM_WORDS; i++) {
        int w = threadIdx.x + i * THREADS;
        if (w < words) {
            scale_rows(f, to, pitch, w, n[i], squares);
        }
    }
    for (int w = threadIdx.x + NORM_WORDS * THREADS; w < words; w += THREADS) {
        eight more;
        more.word = ((const uint4 *)f.norm)[w];
        scale_rows(f, to, pitch, w, more, squares);
    }
    __syncthreads();
}

// --- outputs ---

static __device__ __forceinline__ float load_any(const void *from, int is_f32, int64_t at)
{
    return is_f32 ? ((const float *)from)[at] : __bfloat162float(((const bf16 *)from)[at]);
}

// There are threads enough for one output each of 16 rows. What it is added to comes long before it is wanted.
struct own_output {
    int g, row;
    float residual;
};

static __device__ __forceinline__ void load_residual(const few &f, int tile, own_output &own)
{
    own.residual = 0;
    if (f.residual != NULL && own.row < f.rows && tile < f.tiles && is_output(f, tile, own.g)) {
        own.residual =
            load_any(f.residual, f.residual_is_f32, own.row * f.residual_stride + weight_row(f, tile, own.g));
    }
}

// The output whose sum over all warps is `value`; with a gate `up` is its partner's.
static __device__ __forceinline__ void put(const few &f, int tile, const own_output &own, float value, float up)
{
    int output = weight_row(f, tile, own.g);
    if (f.bias != NULL) {
        value += __bfloat162float(f.bias[output]);
        up += f.epilogue == SL_EPILOGUE_SILU_GATE ? __bfloat162float(f.bias[output + f.out / 2]) : 0;
    }
    value = f.epilogue == SL_EPILOGUE_SILU_GATE ? silu(value) * up : activate(f.epilogue, value);
    value += own.residual;
    if (f.y_is_f32) {
        ((float *)f.y)[own.row * f.y_stride + output] = value;
    } else {
        ((bf16 *)f.y)[own.row * f.y_stride + output] = __float2bfloat16(value);
    }
}

static __host__ __device__ __forceinline__ int sums_pitch(const few &f)
{
    return f.rows | 1;
}

// The warps' sums become outputs. Two buffers in turn, so that one barrier is enough.
template <int TILES>
static __device__ __forceinline__ void finish(const few &f, int tile, float *sums, const own_output &own,
                                              const float c[TILES][2][4])
{
    int warp = threadIdx.x / 32, g = threadIdx.x % 32 / 4, q = threadIdx.x % 4, pitch = sums_pitch(f);
    float *mine = sums + (warp * OUTPUTS + g) * pitch;
#pragma unroll
    for (int t = 0; t < TILES; t++) {
#pragma unroll
        for (int i = 0; i < 4; i++) {
            int row = 8 * t + 2 * q + i % 2;
            if (row < f.rows) {
                mine[i / 2 * 8 * pitch + row] = c[t][0][i] + c[t][1][i];
            }
        }
    }
    __syncthreads();
    if (own.row < f.rows && is_output(f, tile, own.g)) {
        float value = 0, up = 0;
#pragma unroll
        for (int w = 0; w < WARPS; w++) {
            value += sums[(w * OUTPUTS + own.g) * pitch + own.row];
            up += f.epilogue == SL_EPILOGUE_SILU_GATE ? sums[(w * OUTPUTS + own.g + 8) * pitch + own.row] : 0;
        }
        put(f, tile, own, value, up);
    }
}

// --- the kernel ---

static __host__ __device__ __forceinline__ int ring_bytes(int stages)
{
    return stages * WORDS * THREADS * 16;
}

template <int TILES, bool SHARED, int STAGES>
static __global__ void __launch_bounds__(THREADS, 2) few_kernel(const few f)
{
    extern __shared__ __align__(16) unsigned char dynamic[];
    const uint4 *ring = (const uint4 *)dynamic + threadIdx.x;
    float *sums = (float *)(dynamic + ring_bytes(STAGES));
    int sums_size = WARPS * OUTPUTS * sums_pitch(f), pitch = f.in + 8, turn = 0, stage = 0;
    bf16 *x = (bf16 *)(sums + 2 * sums_size);
    cursor next;
    aim(f, next, blockIdx.x);
    for (int i = 0; i < STAGES; i++) {
        fetch(f, next, shared_address(ring + i * WORDS * THREADS));
    }
    eight norm[NORM_WORDS];
    if (SHARED) {
        load_norm(f, norm);
    }
    let_next_begin();
    wait_for_previous(); // the weights are on their way: now for what the kernel before wrote
    own_output own = {(int)threadIdx.x % outputs_of(f), (int)threadIdx.x / outputs_of(f), 0};
    load_residual(f, blockIdx.x, own);
    if (SHARED) {
        bring_x(f, x, pitch, norm);
    }
    for (int tile = blockIdx.x; tile < f.tiles; tile += gridDim.x) {
        float c[TILES][2][4] = {};
        for (int step = 0; step < f.steps; step++) {
            const uint4 *w = ring + stage * WORDS * THREADS;
            copies_wait<STAGES - 1>();
            use<TILES, SHARED>(f, x, pitch, step, w, c);
            fetch(f, next, shared_address(w));
            stage = stage + 1 < STAGES ? stage + 1 : 0;
        }
        finish<TILES>(f, tile, sums + turn * sums_size, own, c);
        load_residual(f, tile + gridDim.x, own);
        turn ^= 1;
    }
}

static int64_t x_bytes(const struct sl_tensor *x)
{
    return x->shape[0] * (x->shape[1] + 8) * 2;
}

int cuda_few_takes(const struct sl_linear *linear, const struct sl_tensor *x)
{
    return x->shape[0] <= CUDA_MAX_ROWS_FEW && linear->compute == SL_BF16 && x->dtype == SL_BF16 &&
           linear->in % 8 == 0 && x->stride[0] % 8 == 0 && (uintptr_t)x->data % 16 == 0;
}

int cuda_few_takes_norm(const struct sl_linear *linear, const struct sl_tensor *x)
{
    return cuda_few_takes(linear, x) && x_bytes(x) <= SHARED_LIMIT;
}

// All multiprocessors get a block, so that those of the next kernel spread as evenly; what has no tile only waits.
template <int TILES, bool SHARED, int STAGES> static void launch(struct sl_stream *stream, const few &f, int more)
{
    size_t shared = (size_t)(ring_bytes(STAGES) + more);
    if (allow_shared(stream, few_kernel<TILES, SHARED, STAGES>, shared) &&
        share_multiprocessor(stream, few_kernel<TILES, SHARED, STAGES>)) {
        launch_overlapping(stream, few_kernel<TILES, SHARED, STAGES>, dim3((unsigned)stream->device->multiprocessors),
                           THREADS, shared, f);
    }
}

// `more`: bytes beside the ring. It is shorter where that leaves half of a multiprocessor for the next kernel.
template <int TILES> static void launch_shared(struct sl_stream *stream, const few &f, int more)
{
    if (ring_bytes(3) + more > HALF && ring_bytes(2) + more <= HALF) {
        launch<TILES, true, 2>(stream, f, more);
    } else {
        launch<TILES, true, 3>(stream, f, more);
    }
}

void cuda_few(struct sl_stream *stream, const struct sl_linear *linear, const struct sl_tensor *x,
              const struct sl_tensor *norm, float eps, enum sl_epilogue epilogue, const struct sl_tensor *residual,
              const struct sl_tensor *y)
{
    few f = {};
    f.weight = (const bf16 *)linear->weight;
    f.bias = (const bf16 *)linear->bias;
    f.x = (const bf16 *)x->data;
    f.norm = norm != NULL ? (const bf16 *)norm->data : NULL;
    f.residual = residual != NULL ? residual->data : NULL;
    f.y = y->data;
    f.x_stride = x->stride[0];
    f.residual_stride = residual != NULL ? residual->stride[0] : 0;
    f.y_stride = y->stride[0];
    f.rows = (int)x->shape[0];
    f.in = (int)linear->in;
    f.out = (int)linear->out;
    f.eps = eps;
    f.epilogue = epilogue;
    f.y_is_f32 = y->dtype == SL_F32;
    f.residual_is_f32 = residual != NULL && residual->dtype == SL_F32;
    f.tiles = (int)((y->shape[1] + outputs_of(f) - 1) / outputs_of(f));
    f.steps = (f.in + WARPS * UNROLL * STEP - 1) / (WARPS * UNROLL * STEP);
    int sums = 2 * WARPS * OUTPUTS * sums_pitch(f) * (int)sizeof(float), more = sums + (int)x_bytes(x);
    if (x_bytes(x) > SHARED_LIMIT) {
        f.rows <= 8 ? launch<1, false, 3>(stream, f, sums) : launch<2, false, 3>(stream, f, sums);
    } else {
        f.rows <= 8 ? launch_shared<1>(stream, f, more) : launch_shared<2>(stream, f, more);
    }
}
