// SPDX-License-Identifier: Apache-2.0
// The operations of core/device.h as cpu/ does them, by file; the table in cpu.c is their only caller.
#ifndef SL_CPU_OPS_H
#define SL_CPU_OPS_H

#include "core/device.h"

// linear.c
int cpu_linear_create(struct sl_device *device, const struct sl_tensor *parts, int n, const struct sl_tensor *bias,
                      enum sl_dtype compute, struct sl_linear **out, struct sl_error *error);
void cpu_linear_destroy(struct sl_linear *linear);
int cpu_weight_create(struct sl_device *device, const struct sl_tensor *host, enum sl_dtype dtype,
                      struct sl_tensor *out, struct sl_error *error);
void cpu_weight_release(struct sl_device *device, struct sl_tensor *weight);
void cpu_linear(struct sl_stream *stream, const struct sl_linear *linear, const struct sl_tensor *x,
                enum sl_epilogue epilogue, const struct sl_tensor *residual, const struct sl_tensor *y);

// experts.c
int cpu_experts_create(struct sl_device *device, const struct sl_experts_source *source, enum sl_dtype compute,
                       struct sl_experts **out, struct sl_error *error);
void cpu_experts_destroy(struct sl_experts *experts);
void cpu_route(struct sl_stream *stream, const struct sl_tensor *logits, int normalise, const struct sl_tensor *expert,
               const struct sl_tensor *weight);
void cpu_experts(struct sl_stream *stream, const struct sl_experts *experts, const struct sl_tensor *x,
                 const struct sl_tensor *expert, const struct sl_tensor *weight, const struct sl_tensor *y);
void cpu_rmsnorm_experts(struct sl_stream *stream, const struct sl_tensor *norm, float eps,
                         const struct sl_linear *router, int normalise, const struct sl_experts *experts,
                         const struct sl_experts_room *room, const struct sl_tensor *y);

// rows.c
void cpu_layernorm(struct sl_stream *stream, const struct sl_tensor *x, const struct sl_tensor *weight,
                   const struct sl_tensor *bias, float eps, const struct sl_tensor *y);
void cpu_rmsnorm_linear(struct sl_stream *stream, const struct sl_tensor *x, const struct sl_tensor *norm, float eps,
                        const struct sl_tensor *normed, const struct sl_linear *linear, enum sl_epilogue epilogue,
                        const struct sl_tensor *y);
void cpu_rmsnorm(struct sl_stream *stream, const struct sl_tensor *x, const struct sl_tensor *weight, float eps,
                 const struct sl_tensor *y);
void cpu_gather_rows(struct sl_stream *stream, const struct sl_tensor *table, const struct sl_tensor *index,
                     const struct sl_tensor *y);
void cpu_scatter_rows(struct sl_stream *stream, const struct sl_tensor *x, const struct sl_tensor *index, int add,
                      const struct sl_tensor *y);
void cpu_interpolate_rows(struct sl_stream *stream, const struct sl_tensor *table, const struct sl_tensor *index,
                          const struct sl_tensor *weight, const struct sl_tensor *y);

// still.c
void cpu_pair_differences(struct sl_stream *stream, const struct sl_tensor *pictures, const struct sl_tensor *pair,
                          float level, const struct sl_tensor *difference);

// rope.c
void cpu_rope_2d(struct sl_stream *stream, const struct sl_tensor *qkv, int heads, const struct sl_tensor *position);
void cpu_qk_norm_rope_store(struct sl_stream *stream, const struct sl_ragged *ragged, const struct sl_tensor *qkv,
                            int heads, const struct sl_tensor *q_norm, const struct sl_tensor *k_norm, float eps,
                            const struct sl_rope *rope, const struct sl_kv_layer *kv);

// attention.c
void cpu_attention_groups(struct sl_stream *stream, const struct sl_tensor *qkv, int heads,
                          const struct sl_tensor *group_start, int groups, int max_group_rows,
                          const struct sl_tensor *y);
void cpu_attention_paged(struct sl_stream *stream, const struct sl_ragged *ragged, const struct sl_tensor *qkv,
                         int heads, const struct sl_kv_layer *kv, const struct sl_tensor *y);

// sample.c
void cpu_sample(struct sl_stream *stream, const struct sl_tensor *logits, const struct sl_sample_row *rows,
                const struct sl_tensor *allowed, const struct sl_tensor *seen, const struct sl_tensor *token,
                const struct sl_tensor *logprob);

#endif
