// SPDX-License-Identifier: Apache-2.0
// A kernel that has asked for the last of its own weights asks for the first of the next layer's to come into the
// second cache: else the memory would rest while one kernel of a decoding step ends and the next begins.
#ifndef SL_CUDA_AHEAD_CUH
#define SL_CUDA_AHEAD_CUH

#include "cuda/linear.h"

enum { AHEAD_CHUNK = 4096, AHEAD_BYTES = 16 << 20 }; // of 50 MiB; as much as comes while one kernel follows another

// The beginnings of the upper and of the lower half: a gated product begins with both.
struct weights_ahead {
    const char *upper, *lower;
    int chunks; // of each
};

// l: NULL for none.
static inline weights_ahead weights_of(const struct sl_linear *l)
{
    weights_ahead a = {};
    if (l != NULL && l->compute == SL_BF16 && l->in % 8 == 0) {
        int64_t half = l->out / 2 * l->in * 2, most = AHEAD_BYTES / 2;
        a.upper = (const char *)l->weight;
        a.lower = (const char *)l->weight + half;
        a.chunks = (int)((half < most ? half : most) / AHEAD_CHUNK);
    }
    return a;
}

// Each block's share; by all of its threads.
static __device__ __forceinline__ void fetch_ahead(const weights_ahead &a)
{
    int i = threadIdx.x * gridDim.x + blockIdx.x;
    if (i < 2 * a.chunks) {
        const char *from =
            i < a.chunks ? a.upper + (int64_t)i * AHEAD_CHUNK : a.lower + (int64_t)(i - a.chunks) * AHEAD_CHUNK;
        asm volatile("cp.async.bulk.prefetch.L2.global [%0], %1;" ::"l"(from), "r"((int)AHEAD_CHUNK));
    }
}

#endif
