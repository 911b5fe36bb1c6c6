// SPDX-License-Identifier: Apache-2.0
// The pictures of one window, at the model's size, and their way into the engine: a clip is filled frame by frame by
// the windowing thread, then read, group by group, by the engine's thread while prefill advances.
//
// A clip's pictures live in device memory as RGB bytes: 3 bytes a pixel instead of the features of every token.
#ifndef SL_SRC_CLIP_H
#define SL_SRC_CLIP_H

#include "core/frame.h"
#include "src/model.h"

// The vision tower with the buffers of one call. Used by the engine's thread alone.
struct sl_eye;
int sl_eye_create(struct sl_model *model, struct sl_eye **out, struct sl_error *error);
void sl_eye_destroy(struct sl_eye *eye); // accepts NULL
struct sl_model *sl_eye_model(const struct sl_eye *eye);

struct sl_clip;
// capacity: frames of a full window. max_tokens_per_pair as in sl_vision_picture_size.
int sl_clip_create(struct sl_eye *eye, int capacity, int max_tokens_per_pair, struct sl_clip **out,
                   struct sl_error *error);
void sl_clip_destroy(struct sl_clip *clip); // accepts NULL

// Empties the clip for a window of `frames` sampled frames.
void sl_clip_begin(struct sl_clip *clip, int frames);
// Resizes one more frame into the clip. The first decides the picture size of the whole window; the same frame again
// (held on screen) is not resized again. `stream` is the caller's.
int sl_clip_add(struct sl_clip *clip, struct sl_stream *stream, struct sl_frame *frame, struct sl_error *error);
// All frames are in: an odd last one is paired with itself, still pairs are left out, the pictures are waited for.
// still_level: as of src/still.h; negative: all pairs are kept.
int sl_clip_end(struct sl_clip *clip, struct sl_stream *stream, float still_level, struct sl_error *error);

// A full clip is shown to another model than it was filled for: one on the same device that sees alike.
void sl_clip_move(struct sl_clip *clip, struct sl_eye *eye);

int sl_clip_pairs(const struct sl_clip *clip);                          // that are kept
int sl_clip_kept_pair(const struct sl_clip *clip, int i);               // which of all pairs the i-th kept one is
void sl_clip_grid(const struct sl_clip *clip, int *rows, int *columns); // merged tokens of a pair
const struct sl_visual *sl_clip_visual(struct sl_clip *clip);           // for the prompt; lives as long as the clip

#endif
