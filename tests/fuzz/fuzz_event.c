// SPDX-License-Identifier: Apache-2.0
// The parser of answers must take any bytes: what it accepts lies inside the window and inside the answer.
#include <stdlib.h>

#include "src/event.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    enum { WINDOW_US = 30000000 };
    struct sl_event_list list;
    struct sl_error error = {0};
    if (sl_event_parse((const char *)data, size, WINDOW_US, &list, &error) != SL_OK) {
        if (error.text[0] == 0 || list.count != 0) {
            abort();
        }
        return 0;
    }
    for (size_t i = 0; i < list.count; i++) {
        const struct sl_event *e = &list.events[i];
        if (e->start_us < 0 || e->start_us >= e->end_us || e->end_us > WINDOW_US || e->text[0] == 0 ||
            e->text_begin > e->text_end || e->text_end > size) {
            abort();
        }
    }
    sl_event_list_finish(&list);
    return 0;
}
