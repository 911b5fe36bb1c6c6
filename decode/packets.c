// SPDX-License-Identifier: Apache-2.0
#include "decode/packets.h"

#include <string.h>

#include "decode/grid.h"

void sl_packets_clear(struct sl_packets *packets)
{
    for (int i = 0; i < packets->count; i++) {
        av_packet_free(&packets->queue[i]);
    }
    packets->count = 0;
    packets->status = SL_OK;
    packets->turn = 0;
    packets->key_us = SL_NO_TIME;
    for (int i = 0; i < SL_PACKETS_AHEAD; i++) {
        packets->passed[i] = SL_NO_TIME;
    }
}

// ---- Is a picture referred to by others?

// Bytes of a unit's length in front of it, as MP4 and Matroska store them; 0 if it is not so, or not sure that a unit
// says whether its picture is referred to.
static int length_bytes(const AVCodecParameters *codec)
{
    const uint8_t *extra = codec->extradata;
    if (extra == NULL || codec->extradata_size < 7 || extra[0] != 1) {
        return 0;
    }
    if (codec->codec_id == AV_CODEC_ID_H264) {
        return (extra[4] & 3) + 1;
    }
    // HEVC's units say whether they are referred to inside their temporal layer: there must be one alone.
    if (codec->codec_id == AV_CODEC_ID_HEVC && codec->extradata_size >= 23 && (extra[21] >> 3 & 7) == 1) {
        return (extra[21] & 3) + 1;
    }
    return 0;
}

enum unit { UNIT_OTHER, UNIT_UNREFERRED, UNIT_NEEDED };

static enum unit unit_kind(enum AVCodecID codec, const uint8_t *unit, uint32_t size)
{
    if (codec == AV_CODEC_ID_H264) {
        int type = unit[0] & 31;
        if (type == 6 || type == 9 || type == 12) { // SEI, delimiter, filler
            return UNIT_OTHER;
        }
        return type == 1 && (unit[0] >> 5 & 3) == 0 ? UNIT_UNREFERRED : UNIT_NEEDED;
    }
    int type = unit[0] >> 1 & 63;
    int layer = size > 1 ? (unit[0] & 1) << 5 | unit[1] >> 3 : 1;
    int temporal = size > 1 ? (unit[1] & 7) - 1 : 1;
    if (type == 35 || type == 38 || type == 39 || type == 40) { // delimiter, filler, SEI
        return UNIT_OTHER;
    }
    return type < 10 && type % 2 == 0 && layer == 0 && temporal == 0 ? UNIT_UNREFERRED : UNIT_NEEDED;
}

// 1 if the packet is one picture, whole, that no other refers to, and nothing else of consequence.
static int is_unreferred(const AVCodecParameters *codec, const AVPacket *packet)
{
    int prefix = length_bytes(codec);
    if (prefix == 0 || packet->side_data_elems > 0 ||
        (packet->flags & (AV_PKT_FLAG_KEY | AV_PKT_FLAG_CORRUPT | AV_PKT_FLAG_DISCARD)) != 0) {
        return 0;
    }
    int slices = 0;
    const uint8_t *at = packet->data;
    int64_t left = packet->size;
    while (left > prefix) {
        uint32_t size = 0;
        for (int i = 0; i < prefix; i++) {
            size = size << 8 | *at++;
        }
        left -= prefix;
        if (size == 0 || size > left) {
            return 0;
        }
        enum unit kind = unit_kind(codec->codec_id, at, size);
        if (kind == UNIT_NEEDED) {
            return 0;
        }
        slices += kind == UNIT_UNREFERRED;
        at += size;
        left -= size;
    }
    return left == 0 && slices > 0;
}

// ---- Is it on screen at a sample?

// SL_NO_TIME: it is not sure that the picture will be shown at all.
static int64_t time_on_screen(const struct sl_input *input, const AVPacket *packet)
{
    int is_doubtful = (packet->flags & (AV_PKT_FLAG_CORRUPT | AV_PKT_FLAG_DISCARD)) != 0;
    return is_doubtful ? SL_NO_TIME : sl_input_media_us(input, packet->pts);
}

static int64_t earlier(int64_t until_us, int64_t other_us, int64_t pts_us)
{
    return other_us > pts_us && (until_us == SL_NO_TIME || other_us < until_us) ? other_us : until_us;
}

static int is_shown(const struct sl_packets *packets, const struct sl_input *input, int64_t pts_us)
{
    int64_t until_us = SL_NO_TIME;
    for (int i = 0; i < SL_PACKETS_AHEAD; i++) {
        until_us = earlier(until_us, packets->passed[i], pts_us);
    }
    for (int i = 0; i < packets->count; i++) {
        until_us = earlier(until_us, time_on_screen(input, packets->queue[i]), pts_us);
    }
    return until_us == SL_NO_TIME || sl_grid_us(input->options, sl_grid_first(input->options, pts_us)) < until_us;
}

static int needs(struct sl_packets *packets, const struct sl_input *input, const AVPacket *packet)
{
    int64_t pts_us = sl_input_media_us(input, packet->pts);
    if (packets->key_us == SL_NO_TIME && (packet->flags & AV_PKT_FLAG_KEY) != 0) {
        packets->key_us = pts_us;
    }
    if (packets->key_us == SL_NO_TIME) {
        return 1; // after a jump such packets are dropped
    }
    // Before the first key picture may lie the first picture of all, which stands in for those that are missing.
    int needed = pts_us == SL_NO_TIME || pts_us <= packets->key_us || !is_unreferred(input->stream->codecpar, packet) ||
                 is_shown(packets, input, pts_us);
    packets->passed[packets->turn++ % SL_PACKETS_AHEAD] = time_on_screen(input, packet);
    return needed;
}

static void fill(struct sl_packets *packets, struct sl_input *input)
{
    while (packets->status == SL_OK && packets->count < SL_PACKETS_AHEAD) {
        AVPacket *packet = av_packet_alloc();
        packets->status = packet != NULL
                              ? sl_input_read(input, packet, &packets->error)
                              : sl_fail(&packets->error, SL_ERR_MEMORY, "out of memory reading %s", input->path);
        if (packets->status == SL_OK) {
            packets->queue[packets->count++] = packet;
        } else {
            av_packet_free(&packet);
        }
    }
}

int sl_packets_next(struct sl_packets *packets, struct sl_input *input, AVPacket *packet, int *is_needed,
                    struct sl_error *error)
{
    fill(packets, input);
    if (packets->count == 0 || packets->status < 0) {
        if (error != NULL && packets->status < 0) {
            *error = packets->error;
        }
        return packets->status;
    }
    AVPacket *first = packets->queue[0];
    packets->count--;
    memmove(packets->queue, packets->queue + 1, (size_t)packets->count * sizeof packets->queue[0]);
    *is_needed = needs(packets, input, first);
    av_packet_move_ref(packet, first);
    av_packet_free(&first);
    return SL_OK;
}
