// SPDX-License-Identifier: Apache-2.0
#include "decode/holes.h"

#include <string.h>

void sl_holes_add(struct sl_holes *holes, int64_t start_us, int64_t end_us, const char *cause)
{
    int64_t first_us = holes->from_us == SL_NO_TIME ? 0 : holes->from_us;
    if (start_us < first_us) {
        start_us = first_us;
    }
    if (holes->to_us != SL_NO_TIME && end_us > holes->to_us) {
        end_us = holes->to_us;
    }
    if (start_us >= end_us) {
        return;
    }
    struct sl_hole *last = holes->count > 0 ? &holes->queue[holes->count - 1] : NULL;
    int touches = last != NULL && start_us <= last->end_us && strcmp(cause, last->cause) == 0;
    if (touches || holes->count == SL_HOLES_MAX) {
        last->end_us = end_us > last->end_us ? end_us : last->end_us;
        return;
    }
    holes->queue[holes->count++] = (struct sl_hole){start_us, end_us, cause};
}

int sl_holes_take(struct sl_holes *holes, struct sl_hole *hole)
{
    if (holes->count == 0) {
        return 0;
    }
    *hole = holes->queue[0];
    holes->count--;
    memmove(holes->queue, holes->queue + 1, (size_t)holes->count * sizeof holes->queue[0]);
    return 1;
}
