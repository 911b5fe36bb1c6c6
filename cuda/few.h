// SPDX-License-Identifier: Apache-2.0
// Products of few rows: bound by reading the weights once. bf16 only.
#ifndef SL_CUDA_FEW_H
#define SL_CUDA_FEW_H

#include "cuda/linear.h"

#ifdef __cplusplus
extern "C" {
#endif

int cuda_few_takes(const struct sl_linear *linear, const struct sl_tensor *x);
int cuda_few_takes_norm(const struct sl_linear *linear, const struct sl_tensor *x); // with the norm in front fused

// y = epilogue(x' W^T + bias) + residual, where x' is x, or its RMS norm with weight `norm` if that is not NULL.
void cuda_few(struct sl_stream *stream, const struct sl_linear *linear, const struct sl_tensor *x,
              const struct sl_tensor *norm, float eps, enum sl_epilogue epilogue, const struct sl_tensor *residual,
              const struct sl_tensor *y);

#ifdef __cplusplus
}
#endif

#endif
