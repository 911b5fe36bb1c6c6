// SPDX-License-Identifier: Apache-2.0
// What a checkpoint's json files say: config.json (published style and the one transformers 5 writes),
// generation_config.json, video_preprocessor_config.json (or its part of processor_config.json), and the chat template
// (chat_template.jinja, chat_template.json or tokenizer_config.json).
// A needed key that is missing, or a value that scenelog does not implement, is an error, never a guess.
// Plain data: copy freely.
#ifndef SL_CORE_CONFIG_H
#define SL_CORE_CONFIG_H

#include <stdint.h>

#include "core/error.h"

enum { SL_MAX_DEEPSTACK = 8, SL_MAX_EOS = 8, SL_MAX_LAYERS = 1024 };

struct sl_vision_config {
    int depth, hidden, heads, intermediate, out_hidden;
    int patch, temporal_patch, merge, channels;
    int position_side; // the position table is position_side x position_side
    int deepstack_count;
    int deepstack_layer[SL_MAX_DEEPSTACK]; // tower blocks whose outputs are tapped, ascending
};

struct sl_text_config {
    int vocab, hidden, layers, heads, kv_heads, head_dim;
    int intermediate; // of the dense feed-forward; 0 where every layer is sparse
    int experts;      // 0: every layer is dense; else the next four hold
    int experts_per_token, expert_intermediate;
    int normalise_routing;         // the weights of a token's experts are divided by their sum
    uint8_t sparse[SL_MAX_LAYERS]; // 1: the layer's feed-forward is a mixture of experts
    float rms_eps;
    double rope_theta;
    int mrope_section[3]; // rotary pairs of T, H, W; interleaved
    int yarn;             // 1: the next five hold
    double yarn_factor, yarn_beta_fast, yarn_beta_slow, yarn_attention_factor;
    int64_t yarn_original_positions;
    int64_t max_positions;
    int tied; // head = embedding; a checkpoint with lm_head.weight overrules (1: as the config says)
};

struct sl_video_config {
    int64_t shortest_edge, longest_edge; // pixels of a whole clip, frames x height x width
    int cap_pixels_per_frame;            // 1: also max_video_tokens per frame
    int max_video_tokens;
    float mean[3], std[3];
};

struct sl_generation_config {
    int eos[SL_MAX_EOS];
    int eos_count;
    float temperature, top_p; // temperature 0: the file does not ask for sampling
    int top_k;
};

struct sl_model_config {
    struct sl_vision_config vision;
    struct sl_text_config text;
    struct sl_video_config video;
    struct sl_generation_config generation;
    int image_token, video_token, vision_start, vision_end; // ids
    int thinking;                                           // the chat template opens <think>
    int fp8; // weights may be SL_F8E4M3 with block scales; which are, the tensors say
};

// Reads the folder's json files. Only config.json must be there; the published values stand in for absent
// processor and generation files. Errors: SL_ERR_MODEL_MISSING, SL_ERR_MODEL_CONFIG.
int sl_config_read(const char *model_dir, struct sl_model_config *out, struct sl_error *error);

// Reads one config.json alone (for measuring with random weights).
int sl_config_read_file(const char *path, struct sl_model_config *out, struct sl_error *error);

#endif
