// SPDX-License-Identifier: Apache-2.0
// The first weights of the next layer, into the second cache. See ahead.h.
#ifndef SL_CUDA_AHEAD_CUH
#define SL_CUDA_AHEAD_CUH

#include "cuda/ahead.h"
#include "cuda/linear.h"

enum { AHEAD_CHUNK = 4096, AHEAD_BYTES = 16 << 20 }; // of 50 MiB; as much as comes while one kernel follows another

// The beginnings of the upper and of the lower half: a gated product begins with both.
struct weights_ahead {
    const char *upper, *lower;
    int chunks; // of each
};

static inline weights_ahead weights_of(const cuda_ahead &next)
{
    weights_ahead a = {};
    const struct sl_linear *l = next.linear;
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
