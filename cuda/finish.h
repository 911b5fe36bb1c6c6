// SPDX-License-Identifier: Apache-2.0
// What follows a product and cuBLASLt does not fuse.
#ifndef SL_CUDA_FINISH_H
#define SL_CUDA_FINISH_H

#include "cuda/internal.h"

#ifdef __cplusplus
extern "C" {
#endif

// y = epilogue(x + bias) + residual; bias may be NULL, residual NULL or y. x: [rows, n], of SL_EPILOGUE_SILU_GATE
// [rows, 2n].
void cuda_finish(struct sl_stream *stream, const struct sl_tensor *x, const void *bias, enum sl_dtype bias_type,
                 enum sl_epilogue epilogue, const struct sl_tensor *residual, const struct sl_tensor *y);

#ifdef __cplusplus
}
#endif

#endif
