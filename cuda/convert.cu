// SPDX-License-Identifier: Apache-2.0
// Weights from the checkpoint's type to the compute type.
#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include "cuda/weights.h"

template <typename To, typename From> static __global__ void convert(const From *from, To *to, int64_t count)
{
    int64_t step = (int64_t)gridDim.x * blockDim.x;
    for (int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x; i < count; i += step) {
        to[i] = To(float(from[i]));
    }
}

template <typename To>
static void from_any(cudaStream_t stream, const void *from, enum sl_dtype type, To *to, int64_t n)
{
    int blocks = (int)(n / 256 + 1 < 4096 ? n / 256 + 1 : 4096);
    if (type == SL_F32) {
        convert<<<blocks, 256, 0, stream>>>((const float *)from, to, n);
    } else if (type == SL_BF16) {
        convert<<<blocks, 256, 0, stream>>>((const __nv_bfloat16 *)from, to, n);
    } else {
        convert<<<blocks, 256, 0, stream>>>((const __half *)from, to, n);
    }
}

void cuda_convert(cudaStream_t stream, const void *from, enum sl_dtype from_type, void *to, enum sl_dtype to_type,
                  int64_t count)
{
    if (to_type == SL_F32) {
        from_any(stream, from, from_type, (float *)to, count);
    } else {
        from_any(stream, from, from_type, (__nv_bfloat16 *)to, count);
    }
}
