// SPDX-License-Identifier: Apache-2.0
// What a model's work costs at least: operations of prefill and of the vision tower, bytes that one decoding step must
// read. For `scenelog bench`, which holds measured times against it. Pure functions.
#ifndef SL_SRC_COST_H
#define SL_SRC_COST_H

#include "core/config.h"
#include "core/device.h"

// Weights of the text model in the compute type, embedding and head included.
double sl_cost_text_bytes(const struct sl_text_config *text, enum sl_dtype compute);
// Of one token in the KV cache, all layers.
double sl_cost_kv_bytes(const struct sl_text_config *text, enum sl_dtype compute);
// Read by one decoding step of `batch` sequences of `context` tokens each: every weight once, each one's KV.
// Of the experts of a mixture, as many as so many tokens are sent to when all are as likely.
double sl_cost_step_bytes(const struct sl_text_config *text, enum sl_dtype compute, int batch, int64_t context);
// Operations of the prefill of one prompt: causal attention counted as half of all pairs, the head on one row.
double sl_cost_prefill_flops(const struct sl_text_config *text, int64_t tokens);
// Operations of the vision tower over `groups` frame pairs of `patches` each.
double sl_cost_vision_flops(const struct sl_vision_config *vision, int64_t groups, int64_t patches);

#endif
