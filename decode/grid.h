// SPDX-License-Identifier: Apache-2.0
// The sampling grid: sample k stands at k / fps, rounded down to microseconds. Private to decode/.
#ifndef SL_DECODE_GRID_H
#define SL_DECODE_GRID_H

#include "decode/decode.h"

int64_t sl_grid_us(const struct sl_source_options *options, int64_t index);

// The first sample that is not before `us` (SL_NO_TIME, or before the media: 0).
int64_t sl_grid_first(const struct sl_source_options *options, int64_t us);

#endif
