// SPDX-License-Identifier: Apache-2.0
#include "decode/h264.h"

enum { FIRST_SLICE = 1, IDR_SLICE = 5 };

static int type_of(uint8_t header)
{
    return header & 0x1f;
}

static int is_slice(int type)
{
    return type >= FIRST_SLICE && type <= IDR_SLICE;
}

// The type of the first slice among units that follow their lengths of `width` bytes, or -1.
static int first_by_length(const uint8_t *at, const uint8_t *end, int width)
{
    while (end - at > width) {
        int64_t size = 0;
        for (int i = 0; i < width; i++) {
            size = size << 8 | *at++;
        }
        if (size > 0 && is_slice(type_of(*at))) {
            return type_of(*at);
        }
        if (size > end - at) {
            return -1;
        }
        at += size;
    }
    return -1;
}

// The same among units that follow 0, 0, 1.
static int first_by_start_code(const uint8_t *at, const uint8_t *end)
{
    for (; end - at > 3; at++) {
        if (at[0] == 0 && at[1] == 0 && at[2] == 1 && is_slice(type_of(at[3]))) {
            return type_of(at[3]);
        }
    }
    return -1;
}

int sl_h264_is_idr(const AVCodecParameters *codec, const AVPacket *packet)
{
    if (packet->data == NULL) {
        return 0;
    }
    const uint8_t *end = packet->data + packet->size;
    if (codec->extradata_size > 4 && codec->extradata[0] == 1) {
        return first_by_length(packet->data, end, (codec->extradata[4] & 3) + 1) == IDR_SLICE;
    }
    return first_by_start_code(packet->data, end) == IDR_SLICE;
}
