// SPDX-License-Identifier: Apache-2.0
// A layer's mixture of experts: weights and the operation (experts.c), sorting (experts_sort.cu), products of few rows,
// of many and of any kind (experts_few.cu, experts_many.cu, experts_any.cu), the weighted sum (experts_mix.cu), and all
// of it for a single row (experts_one.cu).
//
// A pair is a row and one of its experts, number row * top_k + k. Sorted by expert, pairs stand in slots. Between the
// two products rows lie by slot, behind the second by pair; the generic product knows no slots, only pairs.
#ifndef SL_CUDA_EXPERTS_H
#define SL_CUDA_EXPERTS_H

#include "cuda/internal.h"

#ifdef __cplusplus
extern "C" {
#endif

struct sl_experts {
    struct cuda_device *device;
    enum sl_dtype compute;
    int count, hidden, intermediate; // E, H, M
    void *gate_up;                   // [E, 2M, H], compute type
    void *down;                      // [E, H, M]
};

// Slots of one expert that a block takes together.
struct experts_tile {
    int expert, first, rows;
};

// What sorting leaves on the device.
struct experts_order {
    int *pair;                  // [pairs] of each slot
    int *tile_count;            // [1]
    struct experts_tile *tiles; // [at most most_tiles]
    int *counts;                // of blocks while sorting
    int pairs, most_tiles, tile_rows;
};

struct experts_job {
    const struct sl_experts *experts;
    const struct sl_tensor *x;      // [rows, H]
    const struct sl_tensor *expert; // [rows, top_k] i32
    const struct sl_tensor *weight; // [rows, top_k] f32
    const struct sl_tensor *y;      // [rows, H]
    int rows, top_k;
    struct experts_order order;
    void *inner; // [pairs, M], compute type
    void *out;   // [pairs, H], compute type
};

// Bytes of a job's order, and its arrays laid out in `room` of that many. `tile_rows` is set before.
int64_t cuda_experts_order_bytes(const struct experts_job *job);
void cuda_experts_order_place(struct experts_job *job, void *room);
void cuda_experts_sort(struct sl_stream *stream, const struct experts_job *job);

// bf16 in whole words of eight.
int cuda_experts_few_takes(const struct experts_job *job);
void cuda_experts_few(struct sl_stream *stream, const struct experts_job *job);
void cuda_experts_many(struct sl_stream *stream, const struct experts_job *job);
void cuda_experts_any(struct sl_stream *stream, const struct experts_job *job);

void cuda_experts_mix(struct sl_stream *stream, const struct experts_job *job);

// A whole block of a decoder for a single row: y += the experts of rmsnorm(y).
struct experts_one {
    const struct sl_tensor *norm, *y;
    float eps;
    int normalise;
    const struct sl_linear *router;
    const struct sl_experts *experts;
    const struct sl_experts_room *room;
};

int cuda_experts_one_takes(const struct experts_one *one);
void cuda_experts_one(struct sl_stream *stream, const struct experts_one *one);

enum { CUDA_EXPERTS_FEW_ROWS = 8, CUDA_EXPERTS_MANY_ROWS = 256 }; // of a tile

#ifdef __cplusplus
}
#endif

#endif
