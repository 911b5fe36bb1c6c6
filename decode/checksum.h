// SPDX-License-Identifier: Apache-2.0
// One number for the samples of a decoded picture, whoever decoded it: the same for planes that are interleaved (NV12,
// P010) and planes that are not, in host memory and on a GPU. Private to decode/.
#ifndef SL_DECODE_CHECKSUM_H
#define SL_DECODE_CHECKSUM_H

#include <stdint.h>

#include <libavutil/frame.h>

// 1 and *sum, of size, format and all samples; 0 if they cannot be had.
int sl_checksum(const AVFrame *picture, uint32_t *sum);

#endif
