// SPDX-License-Identifier: Apache-2.0
#include "cpu/ragged.h"

struct cpu_sequence cpu_sequence_at(const struct sl_ragged *ragged, int b)
{
    const int32_t *start = ragged->row_start.data, *length = ragged->kv_length.data;
    return (struct cpu_sequence){
        .first_row = start[b],
        .rows = start[b + 1] - start[b],
        .length = length[b],
        .page = (const int32_t *)ragged->page_table.data + b * ragged->page_table.stride[0],
    };
}

int cpu_ragged_check(struct sl_stream *stream, const struct sl_ragged *ragged, const struct sl_kv_layer *kv)
{
    int64_t page_tokens = kv->k.shape[2];
    for (int b = 0; b < ragged->sequences; b++) {
        struct cpu_sequence s = cpu_sequence_at(ragged, b);
        int64_t pages = (s.length + page_tokens - 1) / page_tokens;
        int right = s.first_row >= 0 && s.rows >= 0 && s.first_row + s.rows <= ragged->rows && s.length >= s.rows &&
                    pages <= ragged->page_table.shape[1];
        for (int64_t i = 0; right && i < pages; i++) {
            right = s.page[i] >= 0 && s.page[i] < kv->k.shape[0];
        }
        if (!right) {
            cpu_fail(stream, SL_ERR_INTERNAL, "decoder step: rows or pages of sequence %d are out of range", b);
            return 0;
        }
    }
    return 1;
}
