// SPDX-License-Identifier: Apache-2.0
#include "core/frame.h"

#include <stddef.h>

struct sl_frame *sl_frame_ref(struct sl_frame *frame)
{
    atomic_fetch_add_explicit(&frame->references, 1, memory_order_relaxed);
    return frame;
}

void sl_frame_unref(struct sl_frame *frame)
{
    if (frame == NULL) {
        return;
    }
    if (atomic_fetch_sub_explicit(&frame->references, 1, memory_order_acq_rel) == 1) {
        frame->release(frame);
    }
}
