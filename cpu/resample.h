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
    int16_t *weights; // [out, taps]
};

// memory: cpu_resample_bytes(in, out) bytes, aligned for double.
int64_t cpu_resample_bytes(int in, int out);
void cpu_resample_init(struct cpu_resample *axis, int in, int out, void *memory);

// One row along the horizontal axis. `in` must have room for `taps` pixels even where the row is shorter.
void cpu_resample_row(const struct cpu_resample *axis, const uint8_t *in /* RGBx */, uint8_t *out /* RGBx */);
// Output row y of the vertical axis: `bytes` bytes, a multiple of CPU_RESAMPLE_LANES, of rows `pitch` bytes apart.
enum { CPU_RESAMPLE_LANES = 32 };
void cpu_resample_column(const struct cpu_resample *axis, int y, const uint8_t *rows, int64_t pitch, int64_t bytes,
                         uint8_t *out);

#endif
