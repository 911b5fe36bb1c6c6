// SPDX-License-Identifier: Apache-2.0
// A matrix in device memory as the copy engine of a multiprocessor knows it (CUDA Driver API, "Tensor Map Object
// Management"): one thread asks for a whole box of it, and the box arrives in shared memory as a panel of
// warpgroup.cuh's tiles. What lies outside the matrix arrives as zeros.
#ifndef SL_CUDA_BOXES_H
#define SL_CUDA_BOXES_H

#include <cuda.h>

#include "cuda/internal.h"

#ifdef __cplusplus
extern "C" {
#endif

enum { CUDA_BOX_COLUMNS = 64 }; // bf16: a panel's 128 bytes

// A row-major matrix of bf16, `data` a multiple of 16 bytes, columns a multiple of 8; boxes of box_rows (1 to 256) rows
// by CUDA_BOX_COLUMNS. To be handed to a kernel as a __grid_constant__ parameter. 0 after marking the stream.
int cuda_boxes(struct sl_stream *stream, CUtensorMap *boxes, const void *data, int64_t rows, int64_t columns,
               int box_rows);

#ifdef __cplusplus
}
#endif

#endif
