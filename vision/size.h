// SPDX-License-Identifier: Apache-2.0
// The published rules that turn a picture's size and a pixel budget into the size the model sees. Pure arithmetic,
// in doubles where the references use Python floats, so that results agree with them to the pixel.
// `unit` is patch * merge: both axes become multiples of it, each scaled by itself (no crop, no padding).
#ifndef SL_VISION_SIZE_H
#define SL_VISION_SIZE_H

#include <stdint.h>

#include "core/config.h"

struct sl_size {
    int64_t width, height;
};

// One frame between min_pixels and max_pixels (qwen-vl-utils; images in transformers).
struct sl_size sl_size_of_frame(struct sl_size picture, int unit, double min_pixels, double max_pixels);

// The most pixels of a frame when a clip of `frames` frames may have total_pixels, counted once per two-frame group,
// and no frame falls below min_pixels (qwen-vl-utils; at most 768 tokens a frame).
double sl_size_frame_limit(int frames, int unit, double min_pixels, double total_pixels);

// A clip whose frames x height x width lies between min_pixels and max_pixels (transformers).
struct sl_size sl_size_of_clip(struct sl_size picture, int frames, int temporal, int unit, double min_pixels,
                               double max_pixels);

// The most pixels of a clip by the processor config, with its optional cap per frame (transformers).
double sl_size_clip_limit(const struct sl_video_config *video, int frames, int unit);

#endif
