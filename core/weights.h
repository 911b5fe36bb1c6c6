// SPDX-License-Identifier: Apache-2.0
// The tensors of a checkpoint: a Hugging Face folder with model.safetensors, or shards and
// model.safetensors.index.json, mapped read-only. Or random weights of the same shapes, for measuring.
//
// The tensors handed out are host views into the mapping (or into random memory) and live until close.
// find and require may be called from one thread at a time.
#ifndef SL_CORE_WEIGHTS_H
#define SL_CORE_WEIGHTS_H

#include "core/device.h"

struct sl_weights;

// Errors: SL_ERR_MODEL_MISSING (folder, index or shard missing; a shard that lacks a tensor the index promises is
// SL_ERR_MODEL_SHAPE), SL_ERR_MODEL_FORMAT (header malformed, or longer than the file, offsets outside it or
// overlapping).
int sl_weights_open(const char *model_dir, struct sl_weights **out, struct sl_error *error);

// No files: require() makes every tensor asked for, `dtype`, small pseudo-random values that depend on `seed` and on
// what was asked for before. Memory is at most 1 GiB, which the tensors of a large model share.
int sl_weights_random(enum sl_dtype dtype, uint64_t seed, struct sl_weights **out, struct sl_error *error);

void sl_weights_close(struct sl_weights *weights);

// 1 and *out when the tensor exists, else 0. out->data is NULL when its type is none of enum sl_dtype; `scale` is not
// filled in. Random weights have no tensor until it is required.
int sl_weights_find(const struct sl_weights *weights, const char *name, struct sl_tensor *out);

// The tensor with exactly this shape and a type of f32, bf16 or f16, else SL_ERR_MODEL_SHAPE naming file, tensor, both
// shapes. Or f8, with its scale beside it as NAME_scale_inv, which is the weights' too. One of five axes and more comes
// out as two: the first, and the product of the others.
int sl_weights_require(struct sl_weights *weights, const char *name, int rank, const int64_t *shape,
                       struct sl_tensor *out, struct sl_error *error);

// Identity of the checkpoint: hash of shard names, sizes, headers and sampled blocks (not of every byte).
uint64_t sl_weights_hash(const struct sl_weights *weights);
int64_t sl_weights_bytes(const struct sl_weights *weights);

#endif
