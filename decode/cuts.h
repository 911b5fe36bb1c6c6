// SPDX-License-Identifier: Apache-2.0
// Where a file can be cut into parts that are decoded side by side. Private to decode/.
#ifndef SL_DECODE_CUTS_H
#define SL_DECODE_CUTS_H

#include "decode/input.h"

// Media times to seek to, in order: each finds the key picture of its index entry. Free `seek_us`.
struct sl_cuts {
    int64_t *seek_us;
    int count;
};

// 1 if it is worth looking for cuts.
int sl_cuts_are_possible(const struct sl_input *input);

// Takes the index entries between from_us and to_us (SL_NO_TIME: open) that are at least part_us apart, and from both.
// Matroska's index is read at the first jump only. Fails only for lack of memory.
int sl_cuts_find(const struct sl_input *input, int64_t from_us, int64_t to_us, int64_t part_us, struct sl_cuts *cuts,
                 struct sl_error *error);

#endif
