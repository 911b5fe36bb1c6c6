// SPDX-License-Identifier: Apache-2.0
// Where the rows and the cached tokens of a decoder step are.
#ifndef SL_CPU_RAGGED_H
#define SL_CPU_RAGGED_H

#include "cpu/internal.h"

struct cpu_sequence {
    int64_t first_row, rows; // in the step
    int64_t length;          // tokens in the cache after the step; row r has index length - rows + r
    const int32_t *page;     // its pages
};

struct cpu_sequence cpu_sequence_at(const struct sl_ragged *ragged, int b);

// Marks the stream and returns 0 when a row or a page lies outside of what is there.
int cpu_ragged_check(struct sl_stream *stream, const struct sl_ragged *ragged, const struct sl_kv_layer *kv);

#endif
