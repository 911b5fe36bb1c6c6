// SPDX-License-Identifier: Apache-2.0
// Antialiased bicubic resampling of RGBx rows, as PyTorch does it on 8-bit pictures: one axis after the other, 16-bit
// fixed-point weights, 8-bit values between the passes. A cpu_resample lives in the caller's memory and is read-only
// once made.
#ifndef SL_CPU_RESAMPLE_H
#define SL_CPU_RESAMPLE_H

#include <stdint.h>

struct cpu_resample {
    int in, out;      // samples along the axis
    int taps;         // of every output sample, even; unused ones have weight 0
    int precision;    // fractional bits of the weights
    int32_t *first;   // [out] first input sample
    int32_t *weights; // [out, taps, 4]: 16 significant bits, once for each channel of a pixel
};

// memory: cpu_resample_bytes(in, out) bytes, aligned for double.
int64_t cpu_resample_bytes(int in, int out);
void cpu_resample_init(struct cpu_resample *axis, int in, int out, void *memory);

// One row along the horizontal axis. scratch: cpu_resample_scratch_bytes(axis) bytes.
int64_t cpu_resample_scratch_bytes(const struct cpu_resample *axis);
void cpu_resample_row(const struct cpu_resample *axis, const uint8_t *in /* RGBx */, int32_t *scratch,
                      uint8_t *out /* RGBx */);
// Output row y of the vertical axis: the first `bytes` bytes, from rows that lie `pitch` bytes apart.
void cpu_resample_column(const struct cpu_resample *axis, int y, const uint8_t *rows, int64_t pitch, int64_t bytes,
                         uint8_t *out);

#endif
