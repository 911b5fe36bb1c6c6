// SPDX-License-Identifier: Apache-2.0
// A decoded AVFrame as a struct sl_frame: layout, depth, colour tags, rotation, fields. Private to decode/.
//
// Planes are passed by reference where the format fits enum sl_layout; others are converted, without scaling, to the
// nearest format that does. Of an interlaced picture only the field that is shown first is passed: half the lines,
// twice the pitch (luma and chroma alike), half the sample aspect ratio. Both fields were never one moment, and the
// time is that of the first.
#ifndef SL_DECODE_SURFACE_H
#define SL_DECODE_SURFACE_H

#include <libavutil/frame.h>
#include <libswscale/swscale.h>

#include "core/frame.h"
#include "decode/input.h"

struct sl_surfaces {
    struct sl_input *input;
    struct SwsContext *scaler; // reused while size and format stay
};

void sl_surfaces_close(struct sl_surfaces *surfaces);

// A new sl_frame with one reference, which keeps the planes of `picture` alive; `picture` itself stays the caller's.
int sl_surface_make(struct sl_surfaces *surfaces, const AVFrame *picture, int64_t pts_us, struct sl_frame **frame,
                    struct sl_error *error);

// Turning for viewing, of a stream or of a picture in it (`picture` may be NULL).
void sl_surface_rotation(const AVStream *stream, const AVFrame *picture, int *rotation, int *mirrored);

#endif
