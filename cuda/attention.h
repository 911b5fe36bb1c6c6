// SPDX-License-Identifier: Apache-2.0
// What the attention kernels are given. Private to cuda/attention*.cu.
#ifndef SL_CUDA_ATTENTION_H
#define SL_CUDA_ATTENTION_H

#include "cuda/internal.h"

// Sequences (or groups) of query rows and where their keys and values lie: in pages, or beside the queries.
struct attention_job {
    const void *q, *k, *v; // paged: [pages, kv_heads, page_tokens, d]; else columns of the rows, as q
    void *y;
    int64_t q_stride, kv_stride, y_stride; // elements from row to row; kv_stride unless paged
    const int32_t *row_start;              // [sequences + 1]
    const int32_t *kv_length, *page_table; // paged only
    int64_t pages;                         // paged only: how many there are
    int64_t page_stride;                   // entries from one sequence's page list to the next one's
    int sequences, max_rows, heads, kv_heads, d, page_tokens;
    int rows;       // paged only: of q
    int is_paged;   // and causal; else every row of a group sees the whole group
    int least_rows; // sequences of fewer rows are left to another kernel
    int is_f32;
    float scale;
};

// Of a step over the paged cache.
struct attention_job cuda_attention_job(const struct sl_ragged *ragged, const struct sl_tensor *qkv, int heads,
                                        const struct sl_kv_layer *kv, const struct sl_tensor *y);

// Any type and size, slowly. attention_any.cu
void cuda_attention_any(struct sl_stream *stream, const struct attention_job *job);
// bf16, paged, heads of 128, many rows. 0: not for this job. attention_long.cu
int cuda_attention_long(struct sl_stream *stream, const struct attention_job *job);
// bf16, many rows. 0: not for this job. attention_many.cu
int cuda_attention_many(struct sl_stream *stream, const struct attention_job *job);
// bf16, paged: the sequences that have one row. 0: not for this job. attention_few.cu
int cuda_attention_few(struct sl_stream *stream, const struct attention_job *job);

#endif
