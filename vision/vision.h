// SPDX-License-Identifier: Apache-2.0
// Frames to visual tokens: picture size under a pixel budget, and the Qwen3-VL vision tower with its merger and
// DeepStack taps. The pixel work itself (colour, resize, patches) is an operation of the device.
//
// Attention in the tower stays inside one two-frame group, so groups may be encoded in any batch and any order.
// A tower belongs to the caller and is used by one thread at a time; its weights stay mapped while it lives.
#ifndef SL_VISION_VISION_H
#define SL_VISION_VISION_H

#include "core/config.h"
#include "core/device.h"
#include "core/weights.h"

struct sl_vision;

// Size in pixels to which every frame of a clip of `frames` sampled frames is resized; multiples of patch * merge.
// width x height: the picture as shown (square pixels, rotated). max_tokens_per_pair: the user's limit, 0 if none, then
// the whole-clip and per-frame limits of the model's processor config and 768 tokens a pair hold together.
// Errors: SL_ERR_USAGE for an aspect ratio above 200 or an empty picture.
int sl_vision_picture_size(const struct sl_model_config *config, int64_t width, int64_t height, int frames,
                           int max_tokens_per_pair, int *out_width, int *out_height, struct sl_error *error);

// The frame's picture as shown: square pixels by sample aspect ratio (only ever enlarging an axis), then rotated.
void sl_vision_shown_size(const struct sl_frame *frame, int64_t *width, int64_t *height);

// max_patches: the most patches (all groups together) of one encode call; buffers are sized for it here.
int sl_vision_create(struct sl_device *device, struct sl_weights *weights, const struct sl_model_config *config,
                     enum sl_dtype compute, int64_t max_patches, struct sl_vision **out, struct sl_error *error);
void sl_vision_destroy(struct sl_vision *vision); // accepts NULL

// Enqueues the tower over `groups` two-frame groups of grid_h x grid_w patches each (both multiples of merge).
// tokens = groups * grid_h * grid_w / merge^2. All tensors in the compute type.
int sl_vision_encode(struct sl_vision *vision, struct sl_stream *stream,
                     const struct sl_tensor *patches /* [groups*grid_h*grid_w, channels*temporal*patch*patch] */,
                     int groups, int grid_h, int grid_w, const struct sl_tensor *features /* [tokens, out_hidden] */,
                     const struct sl_tensor *deepstack /* deepstack_count x [tokens, out_hidden] */,
                     struct sl_error *error);

#endif
