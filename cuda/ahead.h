// SPDX-License-Identifier: Apache-2.0
// Which weights a decoding step reads next. Layers are created in the order in which a step uses them, so each learns
// from the creation of the next one. A kernel that has asked for the last of its own weights asks for those to come
// into the second cache: else the memory would rest while one kernel ends and the next begins (ahead.cuh).
#ifndef SL_CUDA_AHEAD_H
#define SL_CUDA_AHEAD_H

#include "cuda/internal.h"

#ifdef __cplusplus
extern "C" {
#endif

// A place in a layer for the one that comes after it.
struct cuda_ahead {
    struct sl_linear *linear; // NULL: none, or of a kind whose weights are not known beforehand
};

// A layer was created, and holds `own`; `linear` is the layer itself if what it reads is known, else NULL.
void cuda_ahead_follow(struct cuda_device *device, struct cuda_ahead *own, struct sl_linear *linear);
// Before the layer goes.
void cuda_ahead_forget(struct cuda_device *device, struct cuda_ahead *own, struct sl_linear *linear);

#ifdef __cplusplus
}
#endif

#endif
