// SPDX-License-Identifier: Apache-2.0
// The door of cuda/: core/device.h's operations on an NVIDIA GPU (Hopper), with our own kernels and cuBLASLt.
#ifndef SL_CUDA_CUDA_H
#define SL_CUDA_CUDA_H

#include "core/device.h"

// GPUs that can be used. 0: there is no driver, or no GPU. Negative: there is one, but not of the kind that the kernels
// are built for, or without cuBLASLt. In both cases `why` (may be NULL) says in one line what is missing.
int sl_cuda_count(struct sl_error *why);

// Opens GPU `index`. SL_ERR_DEVICE when there is none such, the driver is too old, the GPU is not of the kind that the
// kernels are built for, or cuBLASLt is not installed. `deterministic`: the same shapes give the same bits in every
// process, for some loss of speed. Close with ops->destroy.
int sl_cuda_create(int index, int deterministic, struct sl_device **out, struct sl_error *error);

#endif
