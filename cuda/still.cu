// SPDX-License-Identifier: Apache-2.0
// One launch for each pair, since what it is compared with depends on the pair before; nothing returns to the host in
// between.
#include <math.h>

#include "cuda/copy.h"
#include "cuda/ops.h"

enum { THREADS = SL_STILL_BLOCK * SL_STILL_BLOCK };

struct still {
    const uint8_t *pictures;
    int64_t picture_bytes, line_bytes;
    int width, height;
    const int32_t *pair; // [pairs, 2]
    float level;
    float *difference; // [pairs], not negative: its bits are in order as integers
    int32_t *shown;    // [pairs]: the last pair before this one that was more than `level` away
};

// A block of threads for each block of pixels and each of the pair's two pictures.
static __global__ void __launch_bounds__(THREADS) compare(const __grid_constant__ struct still s, int pair)
{
    __shared__ int total;
    int shown = pair == 1 || s.difference[pair - 1] > s.level ? pair - 1 : s.shown[pair - 1];
    if (threadIdx.x == 0) {
        total = 0;
        if (blockIdx.x == 0 && blockIdx.y == 0 && blockIdx.z == 0) {
            s.shown[pair] = shown;
        }
    }
    __syncthreads();
    int x0 = (int)blockIdx.x * SL_STILL_BLOCK, y0 = (int)blockIdx.y * SL_STILL_BLOCK;
    int x = x0 + (int)threadIdx.x % SL_STILL_BLOCK, y = y0 + (int)threadIdx.x / SL_STILL_BLOCK, sum = 0;
    if (x < s.width && y < s.height) {
        int64_t at = y * s.line_bytes + 3 * x;
        const uint8_t *a = s.pictures + s.pair[2 * pair + (int)blockIdx.z] * s.picture_bytes + at;
        const uint8_t *b = s.pictures + s.pair[2 * shown + 1] * s.picture_bytes + at;
        sum = abs(a[0] - b[0]) + abs(a[1] - b[1]) + abs(a[2] - b[2]);
    }
    sum = __reduce_add_sync(~0u, sum);
    if (threadIdx.x % 32 == 0) {
        atomicAdd(&total, sum);
    }
    __syncthreads();
    if (threadIdx.x == 0) {
        int columns = min(s.width - x0, (int)SL_STILL_BLOCK), rows = min(s.height - y0, (int)SL_STILL_BLOCK);
        float mean = (float)total / (float)(3 * columns * rows);
        atomicMax((int *)&s.difference[pair], __float_as_int(mean));
    }
}

void cuda_pair_differences(struct sl_stream *stream, const struct sl_tensor *pictures, const struct sl_tensor *pair,
                           float level, const struct sl_tensor *difference)
{
    if (!cuda_begin(stream)) {
        return;
    }
    const float infinite = INFINITY;
    int pairs = (int)pair->shape[0];
    struct still s = {};
    s.pictures = (const uint8_t *)pictures->data;
    s.picture_bytes = pictures->stride[0];
    s.line_bytes = pictures->stride[1];
    s.height = (int)pictures->shape[1];
    s.width = (int)pictures->shape[2];
    s.pair = (const int32_t *)pair->data;
    s.level = level;
    s.difference = (float *)difference->data;
    s.shown = (int32_t *)cuda_scratch(stream, CUDA_SLOT_A, pairs * (int64_t)sizeof *s.shown);
    if (s.shown == NULL) {
        return;
    }
    cuda_zero(stream, s.difference, pairs * (int64_t)sizeof *s.difference);
    cuda_upload(stream, s.difference, &infinite, sizeof infinite);
    dim3 blocks((s.width + SL_STILL_BLOCK - 1) / SL_STILL_BLOCK, (s.height + SL_STILL_BLOCK - 1) / SL_STILL_BLOCK, 2);
    for (int i = 1; i < pairs; i++) {
        compare<<<blocks, THREADS, 0, stream->native>>>(s, i);
    }
    cuda_launched(stream, "comparing pictures");
}
