// SPDX-License-Identifier: Apache-2.0
// Functions for kernels and, in plain C, for the tests that hold them against cpu/ where there is no GPU.
#ifndef SL_CUDA_BOTH_H
#define SL_CUDA_BOTH_H

#ifdef __CUDACC__
#define CUDA_BOTH static __host__ __device__ __forceinline__
#else
#define CUDA_BOTH static inline
#endif

#endif
