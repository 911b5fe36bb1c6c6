// SPDX-License-Identifier: Apache-2.0
// What kernels share: loads and stores of either activation type, and launches that overlap.
//
// Kernels of the decoding step begin while the one before them still runs (programmatic dependent launch): they may
// fetch weights at once, and call wait_for_previous() before they touch anything that a kernel of the step writes,
// unless that kernel is known to be done: where the one between lets this one begin only after its own wait. Every
// block calls it before it ends: so a kernel is done only when all before it are, and one that has waited may overwrite
// what those read. A kernel lets the next one begin early, mostly when its own first fetches are under way.
#ifndef SL_CUDA_LAUNCH_CUH
#define SL_CUDA_LAUNCH_CUH

#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include "cuda/internal.h"

typedef __nv_bfloat16 bf16;

static __device__ __forceinline__ void wait_for_previous(void)
{
    asm volatile("griddepcontrol.wait;" ::: "memory");
}

static __device__ __forceinline__ void let_next_begin(void)
{
    asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
}

template <typename... Parameters, typename... Arguments>
static void launch_overlapping(struct sl_stream *stream, void (*kernel)(Parameters...), dim3 grid, int threads,
                               size_t shared, Arguments... arguments)
{
    cudaLaunchAttribute attribute = {};
    attribute.id = cudaLaunchAttributeProgrammaticStreamSerialization;
    attribute.val.programmaticStreamSerializationAllowed = 1;
    cudaLaunchConfig_t config = {};
    config.gridDim = grid;
    config.blockDim = dim3((unsigned)threads);
    config.dynamicSmemBytes = shared;
    config.stream = stream->native;
    config.attrs = &attribute;
    config.numAttrs = 1;
    cuda_check(stream, cudaLaunchKernelEx(&config, kernel, Parameters(arguments)...), "a launch");
}

// Lets a kernel have more than 48 KiB of shared memory, its static part of at most half of that counted in.
template <typename Kernel> static int allow_shared(struct sl_stream *stream, Kernel kernel, size_t bytes)
{
    return bytes <= 24 * 1024 ||
           cuda_check(stream, cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)bytes),
                      "shared memory");
}

// Makes all of a multiprocessor's memory shared memory while the kernel runs. Its division cannot change under a block
// that is there: without this the next kernel's blocks, which want more of it, would have to wait for the last one's.
template <typename Kernel> static int share_multiprocessor(struct sl_stream *stream, Kernel kernel)
{
    return cuda_check(
        stream,
        cudaFuncSetAttribute(kernel, cudaFuncAttributePreferredSharedMemoryCarveout, cudaSharedmemCarveoutMaxShared),
        "shared memory");
}

static __device__ __forceinline__ float to_float(float x)
{
    return x;
}

static __device__ __forceinline__ float to_float(bf16 x)
{
    return __bfloat162float(x);
}

// bf16 that can be read and written eight at once. Strides are in elements.
static inline int in_words(const void *data, int64_t stride)
{
    return stride % 8 == 0 && (uintptr_t)data % 16 == 0;
}

// Eight bf16 in one 16-byte word.
union eight {
    uint4 word;
    __nv_bfloat162 pair[4];
    bf16 value[8];
};

static __device__ __forceinline__ float sum_of_warp(float x)
{
    for (int offset = 16; offset > 0; offset /= 2) {
        x += __shfl_xor_sync(0xffffffffu, x, offset);
    }
    return x;
}

// The sum over a block of up to 1024 threads, for all of them. `shared`: 32 floats.
static __device__ __forceinline__ float sum_of_block(float x, float *shared)
{
    int warp = threadIdx.x / 32, lane = threadIdx.x % 32, warps = (blockDim.x + 31) / 32;
    x = sum_of_warp(x);
    __syncthreads(); // shared may still be read
    if (lane == 0) {
        shared[warp] = x;
    }
    __syncthreads();
    return sum_of_warp(lane < warps ? shared[lane] : 0.0f);
}

#endif
