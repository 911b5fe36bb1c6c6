// SPDX-License-Identifier: Apache-2.0
// Weights from the checkpoint's type to the compute type: value x scale in f32, rounded once.
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_fp8.h>

#include "cuda/weights.h"

enum { TILE = 32, TILE_THREADS_Y = 8 };

// What the element at `row` and `column` of matrix `matrix` is multiplied by.
static __device__ __forceinline__ float scale_of(const cuda_piece &p, int64_t matrix, int64_t row, int64_t column)
{
    if (p.scale == NULL) {
        return 1;
    }
    int64_t down = (p.rows + SL_SCALE_BLOCK - 1) / SL_SCALE_BLOCK;
    int64_t across = (p.columns + SL_SCALE_BLOCK - 1) / SL_SCALE_BLOCK;
    int64_t at = (matrix * down + row / SL_SCALE_BLOCK) * across + column / SL_SCALE_BLOCK;
    if (p.scale_type == SL_F32) {
        return ((const float *)p.scale)[at];
    }
    return p.scale_type == SL_BF16 ? float(((const __nv_bfloat16 *)p.scale)[at]) : float(((const __half *)p.scale)[at]);
}

template <typename To, typename From> static __global__ void convert(const cuda_piece p, To *to)
{
    int64_t step = (int64_t)gridDim.x * blockDim.x;
    for (int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x; i < p.count; i += step) {
        int64_t at = p.first + i, row = at / p.columns; // of all matrices, one under the other
        float value = float(((const From *)p.data)[i]);
        to[at] = To(value * scale_of(p, row / p.rows, row % p.rows, at % p.columns));
    }
}

// A tile goes through shared memory, so that both sides are read and written along their rows.
template <typename To, typename From> static __global__ void turn(const cuda_piece p, To *to)
{
    __shared__ float tile[TILE][TILE + 1];
    int64_t matrix = p.first / p.columns / p.rows, row0 = p.first / p.columns % p.rows, rows = p.count / p.columns;
    int64_t across = (p.columns + TILE - 1) / TILE, tiles = (rows + TILE - 1) / TILE * across;
    for (int64_t t = blockIdx.x; t < tiles; t += gridDim.x) {
        int64_t top = t / across * TILE, left = t % across * TILE;
        int64_t column = left + threadIdx.x;
        for (int y = threadIdx.y; y < TILE; y += TILE_THREADS_Y) {
            if (top + y < rows && column < p.columns) {
                float value = float(((const From *)p.data)[(top + y) * p.columns + column]);
                tile[y][threadIdx.x] = value * scale_of(p, matrix, row0 + top + y, column);
            }
        }
        __syncthreads();
        int64_t row = top + threadIdx.x;
        for (int y = threadIdx.y; y < TILE; y += TILE_THREADS_Y) {
            if (row < rows && left + y < p.columns) {
                to[(matrix * p.columns + left + y) * p.rows + row0 + row] = To(tile[threadIdx.x][y]);
            }
        }
        __syncthreads();
    }
}

template <typename To, typename From> static void launch(cudaStream_t stream, const cuda_piece &p, To *to, int turned)
{
    int64_t blocks = p.count / (turned ? TILE * TILE : 256) + 1;
    dim3 grid((unsigned)(blocks < 4096 ? blocks : 4096));
    if (turned) {
        turn<To, From><<<grid, dim3(TILE, TILE_THREADS_Y), 0, stream>>>(p, to);
    } else {
        convert<To, From><<<grid, 256, 0, stream>>>(p, to);
    }
}

template <typename To> static void from_any(cudaStream_t stream, const cuda_piece &p, To *to, int turned)
{
    if (p.type == SL_F32) {
        launch<To, float>(stream, p, to, turned);
    } else if (p.type == SL_BF16) {
        launch<To, __nv_bfloat16>(stream, p, to, turned);
    } else if (p.type == SL_F8E4M3) {
        launch<To, __nv_fp8_e4m3>(stream, p, to, turned);
    } else {
        launch<To, __half>(stream, p, to, turned);
    }
}

static void to_any(cudaStream_t stream, const cuda_piece &p, void *to, enum sl_dtype to_type, int turned)
{
    if (to_type == SL_F32) {
        from_any(stream, p, (float *)to, turned);
    } else {
        from_any(stream, p, (__nv_bfloat16 *)to, turned);
    }
}

void cuda_convert(cudaStream_t stream, const struct cuda_piece *piece, void *to, enum sl_dtype to_type)
{
    to_any(stream, *piece, to, to_type, 0);
}

void cuda_convert_turned(cudaStream_t stream, const struct cuda_piece *piece, void *to, enum sl_dtype to_type)
{
    to_any(stream, *piece, to, to_type, 1);
}
