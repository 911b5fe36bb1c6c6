// SPDX-License-Identifier: Apache-2.0
// Up to 16 rows by the tensor cores, whose arithmetic is free here: what counts is that every lane has many 16-byte
// loads of weights under way.
//
// A block makes 16 outputs after another 16. Its warps share out the inputs, 64 at a time, and add up at the end; the
// next weights, of these outputs or of the next, are under way before the last ones are used. In m16n8k16 the weights
// are A (16 outputs by 16 inputs) and x is B (16 inputs by 8 rows). Which input stands at which k is ours to choose, as
// long as A and B agree: lane (g, q) loads 8 inputs of outputs g and g + 8 from 8q on, and the same 8 inputs of row g
// of x; words 0 and 1 of these are its part of one product, words 2 and 3 of a second.
#include "cuda/act.cuh"
#include "cuda/few.h"
#include "cuda/tensor.cuh"

enum {
    WARPS = 8,
    OUTPUTS = 16,
    UNROLL = 2,
    STEP = 64,
    BLOCKS = 2, // of a multiprocessor
    SHARED_LIMIT = 100 * 1024
};

struct few {
    const bf16 *weight, *bias, *x, *norm;
    const void *residual;
    void *y;
    int64_t x_stride, residual_stride, y_stride;
    int rows, in, out; // out: of the weights; SILU_GATE gives half of that
    float eps;
    enum sl_epilogue epilogue;
    int y_is_f32, residual_is_f32;
};

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

// x, or its norm, to shared memory, a warp for each row; rows lie `pitch` elements apart, so that eight of them fall
// into different banks.
static __device__ __forceinline__ void bring_x(const few &f, bf16 *to, int pitch)
{
    int warp = threadIdx.x / 32, lane = threadIdx.x % 32, words = f.in / 8;
    for (int row = warp; row < f.rows; row += WARPS) {
        const uint4 *from = (const uint4 *)(f.x + row * f.x_stride);
        float scale = 1, sum = 0;
        if (f.norm != NULL) {
#pragma unroll 8
            for (int w = lane; w < words; w += 32) {
                eight v;
                v.word = from[w];
                for (int i = 0; i < 8; i++) {
                    float value = __bfloat162float(v.value[i]);
                    sum += value * value;
                }
            }
            scale = rsqrtf(sum_of_warp(sum) / (float)f.in + f.eps);
        }
#pragma unroll 8
        for (int w = lane; w < words; w += 32) {
            eight v;
            v.word = from[w];
            if (f.norm != NULL) {
                eight n;
                n.word = ((const uint4 *)f.norm)[w];
                for (int i = 0; i < 8; i++) {
                    v.value[i] = __float2bfloat16(__bfloat162float(v.value[i]) * scale * __bfloat162float(n.value[i]));
                }
            }
            *(uint4 *)(to + row * pitch + 8 * w) = v.word;
        }
    }
    __syncthreads();
}

static __device__ float load_any(const void *from, int is_f32, int64_t at)
{
    return is_f32 ? ((const float *)from)[at] : __bfloat162float(((const bf16 *)from)[at]);
}

// Output g of row `row`, whose sum over all warps is `value`; with a gate `up` is its partner's.
static __device__ void put(const few &f, int tile, int g, int row, float value, float up)
{
    int output = weight_row(f, tile, g);
    if (f.bias != NULL) {
        value += __bfloat162float(f.bias[output]);
        up += f.epilogue == SL_EPILOGUE_SILU_GATE ? __bfloat162float(f.bias[output + f.out / 2]) : 0;
    }
    value = f.epilogue == SL_EPILOGUE_SILU_GATE ? silu(value) * up : activate(f.epilogue, value);
    if (f.residual != NULL) {
        value += load_any(f.residual, f.residual_is_f32, row * f.residual_stride + output);
    }
    if (f.y_is_f32) {
        ((float *)f.y)[row * f.y_stride + output] = value;
    } else {
        ((bf16 *)f.y)[row * f.y_stride + output] = __float2bfloat16(value);
    }
}

// A lane's part of one step of all warps: UNROLL times 64 inputs of two outputs, in halves of 32.
struct lane_weights {
    uint4 low[UNROLL][2], high[UNROLL][2];
};

static __device__ __forceinline__ int input_of(int step, int u, int half)
{
    int warp = threadIdx.x / 32, q = threadIdx.x % 4;
    return ((step * UNROLL + u) * WARPS + warp) * STEP + half * 32 + 8 * q;
}

// What is fetched next: the steps of one tile, then those of the next.
struct cursor {
    int tile, step;
};

static __device__ __forceinline__ void fetch(const few &f, int tiles, int steps, cursor &at, lane_weights &w)
{
    int g = threadIdx.x % 32 / 4;
    const uint4 none = make_uint4(0, 0, 0, 0);
    const bf16 *low = f.weight + (int64_t)(is_output(f, at.tile, g) ? weight_row(f, at.tile, g) : 0) * f.in;
    const bf16 *high = f.weight + (int64_t)(is_output(f, at.tile, g + 8) ? weight_row(f, at.tile, g + 8) : 0) * f.in;
#pragma unroll
    for (int u = 0; u < UNROLL; u++) {
#pragma unroll
        for (int half = 0; half < 2; half++) {
            int k = input_of(at.step, u, half), valid = at.tile < tiles && k < f.in;
            w.low[u][half] = valid ? load_weights(low + k) : none;
            w.high[u][half] = valid ? load_weights(high + k) : none;
        }
    }
    if (++at.step == steps) {
        at.step = 0;
        at.tile += gridDim.x;
    }
}

// TILES: rows of x by eight. SHARED: x lies in shared memory, else where it was.
template <int TILES, bool SHARED>
static __device__ __forceinline__ void use(const few &f, const bf16 *x, int pitch, int step, const lane_weights &w,
                                           float c[TILES][4])
{
    int g = threadIdx.x % 32 / 4;
#pragma unroll
    for (int u = 0; u < UNROLL; u++) {
#pragma unroll
        for (int half = 0; half < 2; half++) {
            int k = input_of(step, u, half);
#pragma unroll
            for (int t = 0; t < TILES; t++) {
                int row = 8 * t + g;
                uint4 b = make_uint4(0, 0, 0, 0);
                if (row < f.rows && k < f.in) {
                    b = SHARED ? *(const uint4 *)(x + row * pitch + k) : *(const uint4 *)(f.x + row * f.x_stride + k);
                }
                multiply_words(c[t], w.low[u][half], w.high[u][half], b);
            }
        }
    }
}

template <int TILES> struct partial_sums {
    float of[WARPS][OUTPUTS][8 * TILES + 1];
};

// The warps' sums become outputs. Two buffers in turn, so that one barrier is enough.
template <int TILES>
static __device__ __forceinline__ void finish(const few &f, int tile, partial_sums<TILES> &sums, float c[TILES][4])
{
    int warp = threadIdx.x / 32, g = threadIdx.x % 32 / 4, q = threadIdx.x % 4;
#pragma unroll
    for (int t = 0; t < TILES; t++) {
        sums.of[warp][g][8 * t + 2 * q] = c[t][0];
        sums.of[warp][g][8 * t + 2 * q + 1] = c[t][1];
        sums.of[warp][g + 8][8 * t + 2 * q] = c[t][2];
        sums.of[warp][g + 8][8 * t + 2 * q + 1] = c[t][3];
        c[t][0] = c[t][1] = c[t][2] = c[t][3] = 0;
    }
    __syncthreads();
    int gated = f.epilogue == SL_EPILOGUE_SILU_GATE, outputs = gated ? 8 : OUTPUTS;
    for (int i = threadIdx.x; i < outputs * f.rows; i += blockDim.x) {
        int output = i % outputs, row = i / outputs;
        float value = 0, up = 0;
#pragma unroll
        for (int w = 0; w < WARPS; w++) {
            value += sums.of[w][output][row];
            up += gated ? sums.of[w][output + 8][row] : 0;
        }
        if (is_output(f, tile, output)) {
            put(f, tile, output, row, value, up);
        }
    }
}

// To the next step; behind a tile's last one its outputs are written.
template <int TILES>
static __device__ __forceinline__ void advance(const few &f, int steps, cursor &now, partial_sums<TILES> partial[2],
                                               int &turn, float c[TILES][4])
{
    if (++now.step == steps) {
        finish<TILES>(f, now.tile, partial[turn], c);
        turn ^= 1;
        now.step = 0;
        now.tile += gridDim.x;
    }
}

template <int TILES, bool SHARED>
static __global__ void __launch_bounds__(32 * WARPS, BLOCKS) few_kernel(const few f, int tiles, int steps)
{
    extern __shared__ __align__(16) unsigned char dynamic[];
    __shared__ partial_sums<TILES> partial[2];
    bf16 *x = (bf16 *)dynamic;
    int pitch = f.in + 8, turn = 0;
    float c[TILES][4] = {};
    lane_weights even, odd;
    cursor next = {(int)blockIdx.x, 0}, now = next;
    fetch(f, tiles, steps, next, even);
    fetch(f, tiles, steps, next, odd);
    wait_for_previous(); // the weights are on their way: now for what the kernel before wrote
    if (SHARED) {
        bring_x(f, x, pitch);
    }
    while (now.tile < tiles) {
        use<TILES, SHARED>(f, x, pitch, now.step, even, c);
        fetch(f, tiles, steps, next, even);
        advance<TILES>(f, steps, now, partial, turn, c);
        if (now.tile < tiles) {
            use<TILES, SHARED>(f, x, pitch, now.step, odd, c);
            fetch(f, tiles, steps, next, odd);
            advance<TILES>(f, steps, now, partial, turn, c);
        }
    }
    let_next_begin(); // not before: its blocks would take the room of this kernel's
}

static int64_t shared_bytes(const struct sl_tensor *x)
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
    return cuda_few_takes(linear, x) && shared_bytes(x) <= SHARED_LIMIT;
}

template <int TILES, bool SHARED> static void launch(struct sl_stream *stream, const few &f, size_t shared)
{
    int gated = f.epilogue == SL_EPILOGUE_SILU_GATE, outputs = gated ? f.out / 2 : f.out;
    int tiles = (outputs + (gated ? 8 : OUTPUTS) - 1) / (gated ? 8 : OUTPUTS);
    int steps = (f.in + WARPS * UNROLL * STEP - 1) / (WARPS * UNROLL * STEP);
    int blocks = BLOCKS * stream->device->multiprocessors;
    if (allow_shared(stream, few_kernel<TILES, SHARED>, shared)) {
        launch_overlapping(stream, few_kernel<TILES, SHARED>, dim3((unsigned)(tiles < blocks ? tiles : blocks)),
                           32 * WARPS, shared, f, tiles, steps);
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
    size_t shared = (size_t)shared_bytes(x);
    if (shared > SHARED_LIMIT) {
        f.rows <= 8 ? launch<1, false>(stream, f, 0) : launch<2, false>(stream, f, 0);
    } else {
        f.rows <= 8 ? launch<1, true>(stream, f, shared) : launch<2, true>(stream, f, shared);
    }
}
