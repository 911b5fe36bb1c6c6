// SPDX-License-Identifier: Apache-2.0
// A linear layer: cuBLASLt for many rows (linear.c), our own kernels for few (few.cu).
#ifndef SL_CUDA_LINEAR_H
#define SL_CUDA_LINEAR_H

#include "cuda/internal.h"

#ifdef __cplusplus
extern "C" {
#endif

struct sl_linear {
    struct cuda_device *device;
    enum sl_dtype compute;
    int64_t out, in;
    void *weight; // [out, in], compute type
    void *bias;   // [out], compute type; NULL: none
};

// 1 when cuBLASLt's library can be opened; else `why`.
int cuda_blas_available(struct sl_error *why);
// deterministic: no algorithm is chosen by a clock.
int cuda_blas_create(struct cuda_device *device, int deterministic, struct cuda_blas **out, struct sl_error *error);
void cuda_blas_destroy(struct cuda_blas *blas); // accepts NULL

#ifdef __cplusplus
}
#endif

#endif
