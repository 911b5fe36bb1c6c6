// SPDX-License-Identifier: Apache-2.0
// A bounded queue of holes, clipped to the span that was asked for. Private to decode/; no thread safety.
#ifndef SL_DECODE_HOLES_H
#define SL_DECODE_HOLES_H

#include "decode/decode.h"

#define SL_HOLES_MAX 64

struct sl_holes {
    int64_t from_us, to_us; // SL_NO_TIME: open
    int count;
    struct sl_hole queue[SL_HOLES_MAX];
};

// `cause` is a constant. Touching holes of one cause become one. When nobody takes them and the queue is full, the last
// one grows: too wide, never too narrow.
void sl_holes_add(struct sl_holes *holes, int64_t start_us, int64_t end_us, const char *cause);

int sl_holes_take(struct sl_holes *holes, struct sl_hole *hole); // 1 and the oldest, or 0

#endif
