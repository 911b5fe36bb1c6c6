// SPDX-License-Identifier: Apache-2.0
// What devices must agree on to make the same picture of a frame ("Pictures" in ARCHITECTURE.md): tables and geometry,
// computed on the host in float64. No pixels are touched here. Any thread.
#ifndef SL_CORE_PICTURE_H
#define SL_CORE_PICTURE_H

#include <stdint.h>

#include "core/frame.h"

#ifdef __cplusplus
extern "C" {
#endif

// --- colour ---

enum { SL_HDR_STEPS = 4096 };

// R, G, B = matrix x samples as stored + offset, on a scale of 0..255, or with HDR of 0..SL_HDR_STEPS-1. The offset has
// the half that makes truncation round.
struct sl_colour_matrix {
    float matrix[3][3], offset[3];
};

int sl_frame_is_yuv(const struct sl_frame *frame);
int sl_frame_is_rgb(const struct sl_frame *frame);
void sl_colour_matrix_init(struct sl_colour_matrix *colour, const struct sl_frame *frame);
// PQ and HLG. light: signal to light, 1 is SDR white. encoded: square root of light to 8 bits. Both [SL_HDR_STEPS].
void sl_hdr_tables(enum sl_transfer transfer, float *light, uint8_t *encoded);

// Where component 0, 1 or 2 is: its plane, the place of its first sample in a line and the distance to the next one.
struct sl_component {
    int plane, first, step;
};
struct sl_component sl_frame_component(const struct sl_frame *frame, int component);

// --- size ---

// Antialiased bicubic (a = -0.5) from `in` to `out` samples along one axis, in fixed point.
int sl_resample_taps(int in, int out); // of every output sample, even
// first: [out], first input sample. weights: [out, taps], 16 significant bits, 0 past the edge. value: [taps], room to
// compute in. Returns the number of fractional bits. A run of taps ends inside the input, if it is that long.
int sl_resample_weights(int in, int out, double *value, int32_t *first, int32_t *weights);

// --- turning ---

// Where a frame's pixels, once resized but as stored, go in the upright picture: bytes from its beginning to the first
// pixel, from pixel to pixel, from row to row.
struct sl_placement {
    int64_t origin, along, below;
};

int sl_frame_lies_on_its_side(const struct sl_frame *frame);
// Of a picture of width x height upright, whose lines and pixels are so many bytes apart.
struct sl_placement sl_frame_place(const struct sl_frame *frame, int64_t width, int64_t height, int64_t line_bytes,
                                   int64_t pixel_bytes);

#ifdef __cplusplus
}
#endif

#endif
