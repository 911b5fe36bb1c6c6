// SPDX-License-Identifier: Apache-2.0
// The operations that cuda/ fills core/device.h's table with; device.c has the table. Meanings and shapes:
// core/device.h.
#ifndef SL_CUDA_OPS_H
#define SL_CUDA_OPS_H

#include "cuda/internal.h"

#ifdef __cplusplus
extern "C" {
#endif

// weights.c, linear.c, few.cu
int cuda_linear_create(struct sl_device *device, const struct sl_tensor *parts, int n, const struct sl_tensor *bias,
                       enum sl_dtype compute, struct sl_linear **out, struct sl_error *error);
void cuda_linear_destroy(struct sl_linear *linear);
int cuda_weight_create(struct sl_device *device, const struct sl_tensor *host, enum sl_dtype dtype,
                       struct sl_tensor *out, struct sl_error *error);
void cuda_weight_release(struct sl_device *device, struct sl_tensor *weight);
void cuda_linear(struct sl_stream *stream, const struct sl_linear *linear, const struct sl_tensor *x,
                 enum sl_epilogue epilogue, const struct sl_tensor *residual, const struct sl_tensor *y);
void cuda_rmsnorm_linear(struct sl_stream *stream, const struct sl_tensor *x, const struct sl_tensor *norm, float eps,
                         const struct sl_tensor *normed, const struct sl_linear *linear, enum sl_epilogue epilogue,
                         const struct sl_tensor *y);

// experts.c, route.cu
int cuda_experts_create(struct sl_device *device, const struct sl_experts_source *source, enum sl_dtype compute,
                        struct sl_experts **out, struct sl_error *error);
void cuda_experts_destroy(struct sl_experts *experts);
void cuda_route(struct sl_stream *stream, const struct sl_tensor *logits, int normalise, const struct sl_tensor *expert,
                const struct sl_tensor *weight);
void cuda_experts(struct sl_stream *stream, const struct sl_experts *experts, const struct sl_tensor *x,
                  const struct sl_tensor *expert, const struct sl_tensor *weight, const struct sl_tensor *y);
void cuda_rmsnorm_experts(struct sl_stream *stream, const struct sl_tensor *norm, float eps,
                          const struct sl_linear *router, int normalise, const struct sl_experts *experts,
                          const struct sl_experts_room *room, const struct sl_tensor *y);

// image.cu
void cuda_image_resize(struct sl_stream *stream, struct sl_frame *frame, const struct sl_tensor *out);
void cuda_patchify(struct sl_stream *stream, const struct sl_tensor *rgb, int n, int patch, int merge,
                   const float mean[3], const float std[3], const struct sl_tensor *out);

// still.cu
void cuda_pair_differences(struct sl_stream *stream, const struct sl_tensor *pictures, const struct sl_tensor *pair,
                           float level, const struct sl_tensor *difference);

// rows.cu
void cuda_layernorm(struct sl_stream *stream, const struct sl_tensor *x, const struct sl_tensor *weight,
                    const struct sl_tensor *bias, float eps, const struct sl_tensor *y);
void cuda_rmsnorm(struct sl_stream *stream, const struct sl_tensor *x, const struct sl_tensor *weight, float eps,
                  const struct sl_tensor *y);
void cuda_gather_rows(struct sl_stream *stream, const struct sl_tensor *table, const struct sl_tensor *index,
                      const struct sl_tensor *y);
void cuda_scatter_rows(struct sl_stream *stream, const struct sl_tensor *x, const struct sl_tensor *index, int add,
                       const struct sl_tensor *y);
void cuda_interpolate_rows(struct sl_stream *stream, const struct sl_tensor *table, const struct sl_tensor *index,
                           const struct sl_tensor *weight, const struct sl_tensor *y);

// rope.cu
void cuda_rope_2d(struct sl_stream *stream, const struct sl_tensor *qkv, int heads, const struct sl_tensor *position);
void cuda_qk_norm_rope_store(struct sl_stream *stream, const struct sl_ragged *ragged, const struct sl_tensor *qkv,
                             int heads, const struct sl_tensor *q_norm, const struct sl_tensor *k_norm, float eps,
                             const struct sl_rope *rope, const struct sl_kv_layer *kv);

// attention.cu
void cuda_attention_groups(struct sl_stream *stream, const struct sl_tensor *qkv, int heads,
                           const struct sl_tensor *group_start, int groups, int max_group_rows,
                           const struct sl_tensor *y);
void cuda_attention_paged(struct sl_stream *stream, const struct sl_ragged *ragged, const struct sl_tensor *qkv,
                          int heads, const struct sl_kv_layer *kv, const struct sl_tensor *y);
int cuda_turn_and_attend(struct sl_stream *stream, const struct sl_ragged *ragged, const struct sl_tensor *qkv,
                         int heads, const struct sl_tensor *q_norm, const struct sl_tensor *k_norm, float eps,
                         const struct sl_rope *rope, const struct sl_kv_layer *kv, const struct sl_tensor *y);

// sample.cu
void cuda_sample(struct sl_stream *stream, const struct sl_tensor *logits, const struct sl_sample_row *rows,
                 const struct sl_tensor *allowed, const struct sl_tensor *seen, const struct sl_tensor *token,
                 const struct sl_tensor *logprob);

#ifdef __cplusplus
}
#endif

#endif
