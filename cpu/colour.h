// SPDX-License-Identifier: Apache-2.0
// Rows of a decoded frame, whatever its layout and depth, to rows of RGBx: 4 bytes a pixel, the last of no meaning.
// Rules: "Pictures" in ARCHITECTURE.md. A cpu_colour refers to its frame and to the caller's tables, owns nothing, and
// may be read by many threads.
#ifndef SL_CPU_COLOUR_H
#define SL_CPU_COLOUR_H

#include <stdint.h>

#include "core/picture.h"

struct cpu_colour {
    const struct sl_frame *frame;
    struct sl_colour_matrix samples;
    const float *light;     // HDR: signal to light, 1 is SDR white
    const uint8_t *encoded; // HDR: square root of light to 8 bits
};

// tables: cpu_colour_table_bytes(frame) bytes, which must live as long as *colour; 0 bytes for SDR.
int64_t cpu_colour_table_bytes(const struct sl_frame *frame);
void cpu_colour_init(struct cpu_colour *colour, const struct sl_frame *frame, void *tables);

// scratch: cpu_colour_scratch_bytes(frame) bytes, one for each thread. rgbx: frame->width pixels.
int64_t cpu_colour_scratch_bytes(const struct sl_frame *frame);
void cpu_colour_row(const struct cpu_colour *colour, int row, float *scratch, uint8_t *rgbx);

#endif
