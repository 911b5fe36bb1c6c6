// SPDX-License-Identifier: Apache-2.0
#ifndef SL_CUDA_ACT_CUH
#define SL_CUDA_ACT_CUH

#include "cuda/internal.h"

static __device__ __forceinline__ float silu(float x)
{
    return __fdividef(x, 1.0f + __expf(-x));
}

// GELU of one value. The tanh form by way of the logistic function: (1 + tanh u) / 2 = 1 / (1 + e^(-2u)).
static __device__ __forceinline__ float activate(enum sl_epilogue epilogue, float x)
{
    if (epilogue == SL_EPILOGUE_GELU_TANH) {
        float u = 0.7978845608028654f * (x + 0.044715f * x * x * x);
        return x / (1.0f + __expf(-2.0f * u));
    }
    return epilogue == SL_EPILOGUE_GELU_ERF ? 0.5f * x * (1.0f + erff(x * 0.7071067811865476f)) : x;
}

#endif
