// SPDX-License-Identifier: Apache-2.0
// What of H.264 has to be read from the bytes of a packet. Private to decode/.
#ifndef SL_DECODE_H264_H
#define SL_DECODE_H264_H

#include <libavcodec/avcodec.h>

// Is the packet's first slice one of an IDR picture (nal_unit_type 5, ITU-T H.264 7.4.1)? Nothing after that refers to
// anything before it. `codec` says how the units are told apart: by lengths (avcC, ISO/IEC 14496-15) or by start codes.
// 0 also for a packet that cannot be read.
int sl_h264_is_idr(const AVCodecParameters *codec, const AVPacket *packet);

#endif
