// SPDX-License-Identifier: Apache-2.0
// Weights on their way to the GPU: from the mapped checkpoint through two pinned buffers, read by one copy while the
// other is filled, and converted on the device.
#ifndef SL_CUDA_WEIGHTS_H
#define SL_CUDA_WEIGHTS_H

#include "cuda/internal.h"

#ifdef __cplusplus
extern "C" {
#endif

int cuda_staging_create(struct cuda_staging **out, struct sl_error *error);
void cuda_staging_destroy(struct cuda_staging *staging); // accepts NULL

// Brings `host` (contiguous; f32, bf16 or f16) to device memory `to` as `dtype`; complete when it returns. Any thread.
int cuda_weights_load(struct cuda_device *device, const struct sl_tensor *host, enum sl_dtype dtype, void *to,
                      struct sl_error *error);

// convert.cu: `count` elements from one type to the other, f32, bf16 or f16 to f32 or bf16.
void cuda_convert(cudaStream_t stream, const void *from, enum sl_dtype from_type, void *to, enum sl_dtype to_type,
                  int64_t count);

#ifdef __cplusplus
}
#endif

#endif
