// SPDX-License-Identifier: Apache-2.0
// V4L2 devices, where configure found the header of FFmpeg's libavdevice; the library is opened when it is first asked
// for. Private to decode/.
#ifndef SL_DECODE_V4L2_H
#define SL_DECODE_V4L2_H

#include <libavformat/avformat.h>

#include "core/error.h"

// "v4l2:PATH" and "/dev/video..." name a device: its path, part of `url`. Else NULL.
const char *sl_v4l2_path(const char *url);

// What to open it with. SL_ERR_NO_VIDEO where there is nothing; `name` is what messages call it.
int sl_v4l2_format(const char *name, const AVInputFormat **out, struct sl_error *error);

#endif
