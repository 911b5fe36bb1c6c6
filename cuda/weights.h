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

// Brings `host` (contiguous; f32, bf16, f16 or f8 with its scale) to device memory `to` as `dtype`; complete when it
// returns. `turned`: each matrix of the last two axes arrives transposed. Any thread.
int cuda_weights_load(struct cuda_device *device, const struct sl_tensor *host, enum sl_dtype dtype, int turned,
                      void *to, struct sl_error *error);

// A part of a tensor on the device: elements from `first` on, in the tensor's order.
struct cuda_piece {
    const void *data;
    enum sl_dtype type;
    int64_t first, count;
    int64_t rows, columns; // of a matrix: the tensor's last two axes
    const void *scale;     // of the whole tensor; NULL: none
    enum sl_dtype scale_type;
};

// convert.cu: writes a piece's elements to their places in the whole tensor `to`, f32 or bf16.
void cuda_convert(cudaStream_t stream, const struct cuda_piece *piece, void *to, enum sl_dtype to_type);
// Likewise where the matrices of `to` are transposed; the piece is whole rows of one matrix.
void cuda_convert_turned(cudaStream_t stream, const struct cuda_piece *piece, void *to, enum sl_dtype to_type);

#ifdef __cplusplus
}
#endif

#endif
