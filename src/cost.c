// SPDX-License-Identifier: Apache-2.0
#include "src/cost.h"

#include <math.h>

// Of all layers, of a mixture with that many experts in each.
static double layer_parameters(const struct sl_text_config *t, double experts)
{
    double sum = 0;
    for (int i = 0; i < t->layers; i++) {
        sum += (double)t->hidden * t->head_dim * (2.0 * t->heads + 2.0 * t->kv_heads);
        sum += t->sparse[i] ? t->hidden * (t->experts + 3.0 * experts * t->expert_intermediate)
                            : 3.0 * t->hidden * t->intermediate;
    }
    return sum;
}

// How many different experts get one of so many rows, when each is as likely as the other.
static double experts_touched(const struct sl_text_config *t, int rows)
{
    return t->experts == 0 ? 0 : t->experts * (1 - pow(1 - (double)t->experts_per_token / t->experts, rows));
}

static double head_parameters(const struct sl_text_config *t)
{
    return (double)t->hidden * t->vocab;
}

double sl_cost_text_bytes(const struct sl_text_config *text, enum sl_dtype compute)
{
    double tables = head_parameters(text) * (text->tied ? 1 : 2);
    return (layer_parameters(text, text->experts) + tables) * (double)sl_dtype_bytes(compute);
}

double sl_cost_kv_bytes(const struct sl_text_config *text, enum sl_dtype compute)
{
    return 2.0 * text->layers * text->kv_heads * text->head_dim * (double)sl_dtype_bytes(compute);
}

double sl_cost_step_bytes(const struct sl_text_config *text, enum sl_dtype compute, int batch, int64_t context)
{
    double weights = layer_parameters(text, experts_touched(text, batch)) + head_parameters(text);
    return weights * (double)sl_dtype_bytes(compute) + batch * (double)context * sl_cost_kv_bytes(text, compute);
}

double sl_cost_prefill_flops(const struct sl_text_config *text, int64_t tokens)
{
    double n = (double)tokens;
    double linear = 2 * n * layer_parameters(text, text->experts_per_token) + 2 * head_parameters(text);
    double attention = 2 * n * (n + 1) * text->heads * text->head_dim * text->layers;
    return linear + attention;
}

double sl_cost_vision_flops(const struct sl_vision_config *vision, int64_t groups, int64_t patches)
{
    const struct sl_vision_config *v = vision;
    double rows = (double)(groups * patches);
    double merged = rows / (v->merge * v->merge);
    double wide = (double)v->hidden * v->merge * v->merge;
    double blocks = v->depth * (2 * rows * v->hidden * (4.0 * v->hidden + 2.0 * v->intermediate) +
                                4 * rows * (double)patches * v->hidden);
    double mergers = (1 + v->deepstack_count) * 2 * merged * wide * (wide + v->out_hidden);
    return blocks + mergers + 2 * rows * v->hidden * v->channels * v->temporal_patch * v->patch * v->patch;
}
