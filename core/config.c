// SPDX-License-Identifier: Apache-2.0
#include "core/config.h"

#include <errno.h>
#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/device.h"
#include "core/json.h"

enum { MAX_JSON_BYTES = 32 << 20 };

// What the published checkpoints' files say, where a folder lacks them.
static const struct sl_video_config published_video = {
    .shortest_edge = 4096,
    .longest_edge = 25165824,
    .max_video_tokens = 768,
    .mean = {0.5f, 0.5f, 0.5f},
    .std = {0.5f, 0.5f, 0.5f},
};
static const struct sl_generation_config published_generation = {
    .eos = {151645, 151643},
    .eos_count = 2,
    .temperature = 0.7f,
    .top_p = 0.8f,
    .top_k = 20,
};

struct int_field {
    const char *path;
    int64_t least, most;
    int *out;
};

static int read_ints(const struct sl_json *json, const struct int_field *fields, size_t count, struct sl_error *error)
{
    for (size_t i = 0; i < count; i++) {
        int64_t value = 0;
        int rc = sl_json_int(json, fields[i].path, fields[i].least, fields[i].most, &value, error);
        if (rc < 0) {
            return rc;
        }
        *fields[i].out = (int)value;
    }
    return SL_OK;
}

// The string at `path` is one of the `count` in `known`; absent is fine when `optional`.
static int check_string(const struct sl_json *json, const char *path, const char *const *known, size_t count,
                        int optional, struct sl_error *error)
{
    const char *value = NULL;
    if (optional && sl_json_find(json, path) == NULL) {
        return SL_OK;
    }
    int rc = sl_json_string(json, path, &value, error);
    if (rc < 0) {
        return rc;
    }
    for (size_t i = 0; i < count; i++) {
        if (strcmp(value, known[i]) == 0) {
            return SL_OK;
        }
    }
    char list[256] = "";
    for (size_t i = 0, used = 0; i < count && used < sizeof list; i++) {
        used += (size_t)snprintf(list + used, sizeof list - used, "%s\"%s\"", i > 0 ? " and " : "", known[i]);
    }
    return sl_fail(error, json->status, "%s: %s is \"%s\": scenelog knows only %s", json->name, path, value, list);
}

// The object at `where` has no key but those: another could change what the rest means.
static int check_keys(const struct sl_json *json, const char *where, const char *const *known, size_t count,
                      struct sl_error *error)
{
    const cJSON *object = NULL;
    int rc = sl_json_object(json, where, &object, error);
    for (const cJSON *item = rc == SL_OK ? object->child : NULL; item != NULL; item = item->next) {
        size_t i = 0;
        while (i < count && strcmp(item->string, known[i]) != 0) {
            i++;
        }
        if (i == count && !cJSON_IsNull(item)) {
            return sl_fail(error, json->status, "%s: %s.%s is not known", json->name, where, item->string);
        }
    }
    return rc;
}

static int check_int(const struct sl_json *json, const char *path, int expected, struct sl_error *error)
{
    int64_t value = 0;
    return sl_json_find(json, path) == NULL ? SL_OK : sl_json_int(json, path, expected, expected, &value, error);
}

// The value at `path`, where it is, is the boolean `expected`.
static int check_bool(const struct sl_json *json, const char *path, int expected, struct sl_error *error)
{
    int value = expected;
    int rc = sl_json_find(json, path) == NULL ? SL_OK : sl_json_bool(json, path, &value, error);
    if (rc == SL_OK && value != expected) {
        return sl_fail(error, json->status, "%s: %s is %s: scenelog knows only %s", json->name, path,
                       value ? "true" : "false", expected ? "true" : "false");
    }
    return rc;
}

static int read_positive(const struct sl_json *json, const char *path, double most, double *out, struct sl_error *error)
{
    int rc = sl_json_double(json, path, out, error);
    if (rc == SL_OK && !(*out > 0 && *out <= most)) {
        return sl_fail(error, json->status, "%s: %s is %.17g, not above 0 and at most %g", json->name, path, *out,
                       most);
    }
    return rc;
}

// ---- config.json

// *sparse: the file describes a mixture of experts.
static int check_kind(const struct sl_json *json, int *sparse, struct sl_error *error)
{
    static const char *const model[] = {"qwen3_vl", "qwen3_vl_moe"};
    static const char *const text[] = {"qwen3_vl_text"}, *const sparse_text[] = {"qwen3_vl_moe_text"};
    static const char *const vision[] = {"qwen3_vl", "qwen3_vl_vision"};
    static const char *const sparse_vision[] = {"qwen3_vl_moe", "qwen3_vl_moe_vision"};
    static const char *const absent[] = {"text_config.quantization_config", "text_config.sliding_window",
                                         "text_config.num_experts", "text_config.num_local_experts"};
    int rc = check_string(json, "model_type", model, 2, 0, error);
    if (rc < 0) {
        return rc;
    }
    *sparse = strcmp(sl_json_find(json, "model_type")->valuestring, model[1]) == 0;
    for (size_t i = 0; i < (*sparse ? 2 : 4); i++) {
        if (sl_json_find(json, absent[i]) != NULL) {
            return sl_fail(error, json->status, "%s: %s is not supported in a model of type \"%s\"", json->name,
                           absent[i], model[*sparse]);
        }
    }
    rc = check_string(json, "text_config.model_type", *sparse ? sparse_text : text, 1, 1, error);
    if (rc == SL_OK) {
        rc = check_string(json, "vision_config.model_type", *sparse ? sparse_vision : vision, 2, 1, error);
    }
    return rc;
}

// The published FP8 checkpoints. Which layers are converted is not read here: each tensor's type says so.
static int read_quantization(const struct sl_json *json, int *fp8, struct sl_error *error)
{
    static const char where[] = "quantization_config";
    static const char *const method[] = {"fp8"}, *const format[] = {"e4m3"}, *const activation[] = {"dynamic"};
    static const char *const scale[] = {"float"};
    static const char *const keys[] = {
        "quant_method",           "fmt",       "activation_scheme",  "weight_block_size", "ignored_layers",
        "modules_to_not_convert", "scale_fmt", "modules_to_convert", "dequantize",        "expert_dtype"};
    int block[2] = {0}, count = 0;
    *fp8 = sl_json_find(json, where) != NULL;
    if (!*fp8) {
        return SL_OK;
    }
    int rc = check_string(json, "quantization_config.quant_method", method, 1, 0, error);
    if (rc == SL_OK) {
        rc = check_keys(json, where, keys, sizeof keys / sizeof *keys, error);
    }
    if (rc == SL_OK) {
        rc = check_string(json, "quantization_config.fmt", format, 1, 1, error);
    }
    if (rc == SL_OK) {
        rc = check_string(json, "quantization_config.activation_scheme", activation, 1, 1, error);
    }
    if (rc == SL_OK) {
        rc = check_string(json, "quantization_config.scale_fmt", scale, 1, 1, error);
    }
    if (rc == SL_OK) {
        rc = check_string(json, "quantization_config.expert_dtype", method, 1, 1, error);
    }
    if (rc == SL_OK) {
        rc = sl_json_ints(json, "quantization_config.weight_block_size", 2, 2, block, &count, error);
    }
    if (rc == SL_OK && (block[0] != SL_SCALE_BLOCK || block[1] != SL_SCALE_BLOCK)) {
        rc = sl_fail(error, json->status, "%s: %s.weight_block_size is [%d, %d]: scenelog knows only [%d, %d]",
                     json->name, where, block[0], block[1], SL_SCALE_BLOCK, SL_SCALE_BLOCK);
    }
    return rc;
}

static int read_deepstack(const struct sl_json *json, struct sl_vision_config *v, struct sl_error *error)
{
    static const char path[] = "vision_config.deepstack_visual_indexes";
    int rc = sl_json_ints(json, path, 0, SL_MAX_DEEPSTACK, v->deepstack_layer, &v->deepstack_count, error);
    for (int i = 0; rc == SL_OK && i < v->deepstack_count; i++) {
        int previous = i > 0 ? v->deepstack_layer[i - 1] : -1;
        if (v->deepstack_layer[i] <= previous || v->deepstack_layer[i] >= v->depth) {
            rc = sl_fail(error, json->status, "%s: %s must ascend from 0 to below the depth, %d", json->name, path,
                         v->depth);
        }
    }
    return rc;
}

static int read_vision(const struct sl_json *json, struct sl_vision_config *v, struct sl_error *error)
{
    static const char *const act[] = {"gelu_pytorch_tanh"}, *const rope[] = {"axial", "default"};
    int positions = 0;
    const struct int_field fields[] = {
        {"vision_config.depth", 1, 1024, &v->depth},
        {"vision_config.hidden_size", 1, 1 << 16, &v->hidden},
        {"vision_config.num_heads", 1, 1 << 10, &v->heads},
        {"vision_config.intermediate_size", 1, 1 << 18, &v->intermediate},
        {"vision_config.out_hidden_size", 1, 1 << 16, &v->out_hidden},
        {"vision_config.patch_size", 1, 256, &v->patch},
        {"vision_config.temporal_patch_size", 2, 2, &v->temporal_patch}, // a pair of frames
        {"vision_config.spatial_merge_size", 1, 16, &v->merge},
        {"vision_config.in_channels", 3, 3, &v->channels},
        {"vision_config.num_position_embeddings", 1, 1 << 24, &positions},
    };
    int rc = read_ints(json, fields, sizeof fields / sizeof *fields, error);
    if (rc == SL_OK) {
        rc = read_deepstack(json, v, error);
    }
    if (rc == SL_OK) {
        rc = check_string(json, "vision_config.hidden_act", act, 1, 0, error);
    }
    if (rc == SL_OK) {
        rc = check_string(json, "vision_config.rope_parameters.rope_type", rope, 2, 1, error);
    }
    if (rc == SL_OK) {
        rc = check_int(json, "vision_config.rope_parameters.rope_theta", 10000, error);
    }
    if (rc < 0) {
        return rc;
    }
    v->position_side = (int)sqrt((double)positions);
    if (v->position_side * v->position_side != positions) {
        return sl_fail(error, json->status, "%s: vision_config.num_position_embeddings is %d, not a square", json->name,
                       positions);
    }
    if (v->hidden % (4 * v->heads) != 0) {
        return sl_fail(error, json->status,
                       "%s: vision_config.hidden_size %d is not heads (%d) times a multiple of 4: rotary needs that",
                       json->name, v->hidden, v->heads);
    }
    return SL_OK;
}

// Rotary parameters are in text_config.rope_scaling (with rope_theta beside it) or, as transformers 5 writes them, in
// text_config.rope_parameters. A key that is not in this list could change the angles.
static int find_rope(const struct sl_json *json, const char **where, struct sl_error *error)
{
    static const char *const known[] = {
        "rope_type", "type",      "rope_theta",        "mrope_section",    "factor",
        "beta_fast", "beta_slow", "mrope_interleaved", "attention_factor", "original_max_position_embeddings"};
    int parameters = sl_json_find(json, "text_config.rope_parameters") != NULL;
    int scaling = sl_json_find(json, "text_config.rope_scaling") != NULL;
    *where = parameters ? "text_config.rope_parameters" : "text_config.rope_scaling";
    if (parameters && scaling) {
        return sl_fail(error, json->status, "%s: has both rope_parameters and rope_scaling in text_config", json->name);
    }
    return check_keys(json, *where, known, sizeof known / sizeof *known, error);
}

// "where.key", or the key alone at top level.
static const char *join(char *buffer, size_t size, const char *where, const char *key)
{
    snprintf(buffer, size, "%s%s%s", where, *where == 0 ? "" : ".", key);
    return buffer;
}

// `fallback` where the key is absent.
static int read_positive_or(const struct sl_json *json, const char *path, double most, double fallback, double *out,
                            struct sl_error *error)
{
    *out = fallback;
    return sl_json_find(json, path) == NULL ? SL_OK : read_positive(json, path, most, out, error);
}

static int read_yarn(const struct sl_json *json, const char *where, struct sl_text_config *t, struct sl_error *error)
{
    char p[128];
    t->yarn = 1;
    int rc = read_positive(json, join(p, sizeof p, where, "factor"), 1e6, &t->yarn_factor, error);
    if (rc == SL_OK) {
        rc = sl_json_int(json, join(p, sizeof p, where, "original_max_position_embeddings"), 1, 1 << 30,
                         &t->yarn_original_positions, error);
    }
    if (rc == SL_OK) {
        rc = read_positive_or(json, join(p, sizeof p, where, "beta_fast"), 1e6, 32, &t->yarn_beta_fast, error);
    }
    if (rc == SL_OK) {
        rc = read_positive_or(json, join(p, sizeof p, where, "beta_slow"), 1e6, 1, &t->yarn_beta_slow, error);
    }
    if (rc == SL_OK) {
        // YaRN (arXiv 2309.00071), section 3.4: 0.1 ln(factor) + 1.
        double usual = t->yarn_factor > 1 ? 0.1 * log(t->yarn_factor) + 1 : 1;
        rc = read_positive_or(json, join(p, sizeof p, where, "attention_factor"), 1e3, usual, &t->yarn_attention_factor,
                              error);
    }
    return rc;
}

static int read_mrope_section(const struct sl_json *json, const char *where, struct sl_text_config *t,
                              struct sl_error *error)
{
    char p[128];
    int count = 0, interleaved = 0, pairs = t->head_dim / 2;
    int *section = t->mrope_section;
    int rc = sl_json_bool(json, join(p, sizeof p, where, "mrope_interleaved"), &interleaved, error);
    if (rc == SL_OK && !interleaved) {
        return sl_fail(error, json->status, "%s: %s is false: scenelog knows only true", json->name, p);
    }
    if (rc == SL_OK) {
        rc = sl_json_ints(json, join(p, sizeof p, where, "mrope_section"), 3, 3, section, &count, error);
    }
    if (rc < 0) {
        return rc;
    }
    // Pair 1 + 3i is H's i-th, pair 2 + 3i W's; T has the others. So each must find room for its share.
    if (section[0] < 0 || section[1] < 0 || section[2] < 0 || section[0] > pairs || section[1] > (pairs + 1) / 3 ||
        section[2] > pairs / 3 || section[0] + section[1] + section[2] != pairs) {
        return sl_fail(error, json->status, "%s: %s [%d, %d, %d] does not share out the %d pairs of head_dim %d",
                       json->name, p, section[0], section[1], section[2], pairs, t->head_dim);
    }
    return SL_OK;
}

static int read_rope(const struct sl_json *json, struct sl_text_config *t, struct sl_error *error)
{
    static const char *const types[] = {"default", "yarn"};
    const char *where = NULL;
    char p[128], type_path[128];
    int rc = find_rope(json, &where, error);
    if (rc < 0) {
        return rc;
    }
    // "type" is the older name.
    join(type_path, sizeof type_path, where, "rope_type");
    if (sl_json_find(json, type_path) == NULL) {
        join(type_path, sizeof type_path, where, "type");
    }
    rc = check_string(json, type_path, types, 2, 0, error);
    if (rc == SL_OK) {
        join(p, sizeof p, where, "rope_theta");
        const char *theta = sl_json_find(json, p) != NULL ? p : "text_config.rope_theta";
        rc = read_positive(json, theta, 1e12, &t->rope_theta, error);
    }
    if (rc == SL_OK) {
        rc = read_mrope_section(json, where, t, error);
    }
    if (rc == SL_OK && strcmp(sl_json_find(json, type_path)->valuestring, "yarn") == 0) {
        rc = read_yarn(json, where, t, error);
    }
    return rc;
}

// The flag stands at top level or in text_config. Where they differ, the head is tied if there is no lm_head.weight,
// and that is what `tied` means to who reads it.
static int read_tied(const struct sl_json *json, int *tied, struct sl_error *error)
{
    static const char top[] = "tie_word_embeddings", text[] = "text_config.tie_word_embeddings";
    int in_top = 0, in_text = 0, rc = SL_OK;
    if (sl_json_find(json, text) != NULL) {
        rc = sl_json_bool(json, text, &in_text, error);
    }
    if (rc == SL_OK && (sl_json_find(json, top) != NULL || sl_json_find(json, text) == NULL)) {
        rc = sl_json_bool(json, top, &in_top, error);
    }
    *tied = in_top || in_text;
    return rc;
}

// The layers in mlp_only_layers are dense, and of the others all but every decoder_sparse_step-th.
static int read_sparse_layers(const struct sl_json *json, struct sl_text_config *t, struct sl_error *error)
{
    static const char path[] = "text_config.mlp_only_layers";
    int dense[SL_MAX_LAYERS], count = 0;
    int64_t step = 0;
    int rc = sl_json_int(json, "text_config.decoder_sparse_step", 1, SL_MAX_LAYERS, &step, error);
    for (int i = 0; rc == SL_OK && i < t->layers; i++) {
        t->sparse[i] = (i + 1) % step == 0;
    }
    if (rc == SL_OK && sl_json_find(json, path) != NULL) {
        rc = sl_json_ints(json, path, 0, SL_MAX_LAYERS, dense, &count, error);
    }
    for (int i = 0; rc == SL_OK && i < count; i++) {
        if (dense[i] < 0 || dense[i] >= t->layers) {
            return sl_fail(error, json->status, "%s: %s names layer %d of %d", json->name, path, dense[i], t->layers);
        }
        t->sparse[dense[i]] = 0;
    }
    return rc;
}

static int read_experts(const struct sl_json *json, struct sl_text_config *t, struct sl_error *error)
{
    // transformers 5 writes the other name.
    const char *experts = sl_json_find(json, "text_config.num_local_experts") != NULL ? "text_config.num_local_experts"
                                                                                      : "text_config.num_experts";
    const struct int_field fields[] = {
        {experts, 1, SL_MAX_EXPERTS, &t->experts},
        {"text_config.num_experts_per_tok", 1, SL_MAX_TOP_K, &t->experts_per_token},
        {"text_config.moe_intermediate_size", 1, 1 << 18, &t->expert_intermediate},
    };
    int rc = read_ints(json, fields, sizeof fields / sizeof *fields, error);
    if (rc == SL_OK && t->experts_per_token > t->experts) {
        rc = sl_fail(error, json->status, "%s: text_config: %d experts a token of %d experts", json->name,
                     t->experts_per_token, t->experts);
    }
    // The model's class in transformers does not have this key: it normalises always, as the published files say.
    t->normalise_routing = 1;
    if (rc == SL_OK && sl_json_find(json, "text_config.norm_topk_prob") != NULL) {
        rc = sl_json_bool(json, "text_config.norm_topk_prob", &t->normalise_routing, error);
    }
    return rc == SL_OK ? read_sparse_layers(json, t, error) : rc;
}

// intermediate_size stands in every file, and means something where a layer is dense.
static int read_feed_forward(const struct sl_json *json, int sparse, struct sl_text_config *t, struct sl_error *error)
{
    const struct int_field dense = {"text_config.intermediate_size", 1, 1 << 20, &t->intermediate};
    int rc = sparse ? read_experts(json, t, error) : SL_OK;
    return rc < 0 || memchr(t->sparse, 0, (size_t)t->layers) == NULL ? rc : read_ints(json, &dense, 1, error);
}

static int read_text(const struct sl_json *json, int sparse, struct sl_text_config *t, struct sl_error *error)
{
    static const char *const act[] = {"silu"};
    double eps = 0;
    const struct int_field fields[] = {
        {"text_config.vocab_size", 1, 1 << 24, &t->vocab},
        {"text_config.hidden_size", 1, 1 << 16, &t->hidden},
        {"text_config.num_hidden_layers", 1, SL_MAX_LAYERS, &t->layers},
        {"text_config.num_attention_heads", 1, 1 << 10, &t->heads},
        {"text_config.num_key_value_heads", 1, 1 << 10, &t->kv_heads},
        {"text_config.head_dim", 2, 1 << 10, &t->head_dim}, // hidden / heads is wrong for most sizes
    };
    int rc = read_ints(json, fields, sizeof fields / sizeof *fields, error);
    if (rc == SL_OK) {
        rc = read_feed_forward(json, sparse, t, error);
    }
    if (rc == SL_OK) {
        rc = sl_json_int(json, "text_config.max_position_embeddings", 1, 1 << 30, &t->max_positions, error);
    }
    if (rc == SL_OK) {
        rc = read_positive(json, "text_config.rms_norm_eps", 0.1, &eps, error);
        t->rms_eps = (float)eps;
    }
    if (rc == SL_OK) {
        rc = check_string(json, "text_config.hidden_act", act, 1, 0, error);
    }
    if (rc == SL_OK) {
        rc = check_bool(json, "text_config.attention_bias", 0, error);
    }
    if (rc == SL_OK) {
        rc = check_bool(json, "text_config.use_sliding_window", 0, error);
    }
    if (rc == SL_OK) {
        rc = check_int(json, "text_config.partial_rotary_factor", 1, error);
    }
    if (rc == SL_OK && (t->heads % t->kv_heads != 0 || t->head_dim % 2 != 0)) {
        rc = sl_fail(error, json->status, "%s: text_config: %d heads over %d key-value heads of size %d do not fit",
                     json->name, t->heads, t->kv_heads, t->head_dim);
    }
    return rc < 0 ? rc : read_rope(json, t, error);
}

// What config.json says about the tokens that end an answer, or the published ids; generation_config.json overrules.
static int read_eos(const struct sl_json *json, const char *path, struct sl_generation_config *g,
                    struct sl_error *error)
{
    const cJSON *item = sl_json_find(json, path);
    if (item == NULL) {
        return SL_OK;
    }
    if (cJSON_IsArray(item)) {
        return sl_json_ints(json, path, 1, SL_MAX_EOS, g->eos, &g->eos_count, error);
    }
    int64_t id = 0;
    int rc = sl_json_int(json, path, 0, INT_MAX, &id, error);
    g->eos[0] = (int)id;
    g->eos_count = 1;
    return rc;
}

static int read_config(const struct sl_json *json, struct sl_model_config *out, struct sl_error *error)
{
    int sparse = 0;
    int rc = check_kind(json, &sparse, error);
    if (rc == SL_OK) {
        rc = read_quantization(json, &out->fp8, error);
    }
    if (rc == SL_OK) {
        rc = read_vision(json, &out->vision, error);
    }
    if (rc == SL_OK) {
        rc = read_text(json, sparse, &out->text, error);
    }
    if (rc == SL_OK) {
        rc = read_tied(json, &out->text.tied, error);
    }
    if (rc < 0) {
        return rc;
    }
    if (out->vision.out_hidden != out->text.hidden) {
        return sl_fail(error, json->status, "%s: vision_config.out_hidden_size %d is not text_config.hidden_size %d",
                       json->name, out->vision.out_hidden, out->text.hidden);
    }
    if (out->vision.deepstack_count > out->text.layers) {
        return sl_fail(error, json->status, "%s: %d deepstack taps for %d decoder layers", json->name,
                       out->vision.deepstack_count, out->text.layers);
    }
    int last = out->text.vocab - 1;
    const struct int_field ids[] = {
        {"image_token_id", 0, last, &out->image_token},
        {"video_token_id", 0, last, &out->video_token},
        {"vision_start_token_id", 0, last, &out->vision_start},
        {"vision_end_token_id", 0, last, &out->vision_end},
    };
    rc = read_ints(json, ids, sizeof ids / sizeof *ids, error);
    out->video = published_video;
    out->generation = published_generation;
    return rc < 0 ? rc : read_eos(json, "text_config.eos_token_id", &out->generation, error);
}

static int check_eos(const struct sl_model_config *config, const char *path, struct sl_error *error)
{
    const struct sl_generation_config *g = &config->generation;
    for (int i = 0; i < g->eos_count; i++) {
        if (g->eos[i] < 0 || g->eos[i] >= config->text.vocab) {
            return sl_fail(error, SL_ERR_MODEL_CONFIG, "%s: eos_token_id %d is outside the vocabulary of %d", path,
                           g->eos[i], config->text.vocab);
        }
    }
    return SL_OK;
}

int sl_config_read_file(const char *path, struct sl_model_config *out, struct sl_error *error)
{
    struct sl_json json = {0};
    memset(out, 0, sizeof *out);
    int rc = sl_json_open(path, MAX_JSON_BYTES, SL_ERR_MODEL_MISSING, SL_ERR_MODEL_CONFIG, &json, error);
    if (rc == SL_OK) {
        rc = read_config(&json, out, error);
    }
    sl_json_finish(&json);
    return rc;
}

// ---- Files beside config.json

static int file_path(char *to, size_t size, const char *dir, const char *name, struct sl_error *error)
{
    if ((size_t)snprintf(to, size, "%s/%s", dir, name) >= size) {
        return sl_fail(error, SL_ERR_MODEL_MISSING, "model folder's path is too long: %s", dir);
    }
    return SL_OK;
}

// 1: *json is open; 0: there is no such file.
static int open_beside(const char *dir, const char *name, struct sl_json *json, struct sl_error *error)
{
    char path[PATH_MAX];
    int rc = file_path(path, sizeof path, dir, name, error);
    if (rc < 0 || access(path, F_OK) != 0) {
        return rc;
    }
    rc = sl_json_open(path, MAX_JSON_BYTES, SL_ERR_MODEL_MISSING, SL_ERR_MODEL_CONFIG, json, error);
    return rc < 0 ? rc : 1;
}

static int read_number_or(const struct sl_json *json, const char *path, double least, double most, float *out,
                          float fallback, struct sl_error *error)
{
    double value = (double)fallback;
    int rc = sl_json_find(json, path) == NULL ? SL_OK : sl_json_double(json, path, &value, error);
    if (rc == SL_OK && !(value >= least && value <= most)) {
        return sl_fail(error, json->status, "%s: %s is %.17g, not from %g to %g", json->name, path, value, least, most);
    }
    *out = (float)value;
    return rc;
}

static int read_generation(const struct sl_json *json, struct sl_generation_config *g, struct sl_error *error)
{
    int sample = 0;
    int64_t top_k = 0;
    int rc = read_eos(json, "eos_token_id", g, error);
    if (rc == SL_OK) {
        rc = read_number_or(json, "temperature", 0, 100, &g->temperature, 1, error);
    }
    if (rc == SL_OK) {
        rc = read_number_or(json, "top_p", 1e-6, 1, &g->top_p, 1, error);
    }
    if (rc == SL_OK && sl_json_find(json, "top_k") != NULL) {
        rc = sl_json_int(json, "top_k", 0, INT_MAX, &top_k, error);
    }
    if (rc == SL_OK && sl_json_find(json, "do_sample") != NULL) {
        rc = sl_json_bool(json, "do_sample", &sample, error);
    }
    g->top_k = (int)top_k;
    g->temperature = sample ? g->temperature : 0;
    return rc;
}

// Three numbers, one a channel.
static int read_channels(const struct sl_json *json, const char *path, float out[3], struct sl_error *error)
{
    const cJSON *array = sl_json_find(json, path);
    if (!cJSON_IsArray(array) || cJSON_GetArraySize(array) != 3) {
        return sl_fail(error, json->status, "%s: %s must be three numbers", json->name, path);
    }
    int i = 0;
    for (const cJSON *item = array->child; item != NULL; item = item->next) {
        if (!cJSON_IsNumber(item) || !isfinite((float)item->valuedouble)) {
            return sl_fail(error, json->status, "%s: %s must be three numbers", json->name, path);
        }
        out[i++] = (float)item->valuedouble;
    }
    return SL_OK;
}

// The processor cuts patches as the model wants them, from pixels resized (bicubic), scaled to [0, 1] and normalised.
static int check_processing(const struct sl_json *json, const char *where, const struct sl_vision_config *v,
                            struct sl_error *error)
{
    static const char *const switches[] = {"do_resize", "do_rescale", "do_normalize"};
    const struct {
        const char *key;
        int value;
    } fixed[] = {{"patch_size", v->patch},
                 {"temporal_patch_size", v->temporal_patch},
                 {"merge_size", v->merge},
                 {"resample", 3}};
    char p[128];
    for (size_t i = 0; i < sizeof switches / sizeof *switches; i++) {
        int rc = check_bool(json, join(p, sizeof p, where, switches[i]), 1, error);
        if (rc < 0) {
            return rc;
        }
    }
    for (size_t i = 0; i < sizeof fixed / sizeof *fixed; i++) {
        int rc = check_int(json, join(p, sizeof p, where, fixed[i].key), fixed[i].value, error);
        if (rc < 0) {
            return rc;
        }
    }
    double factor = 0;
    int rc = read_positive_or(json, join(p, sizeof p, where, "rescale_factor"), 1, 1.0 / 255, &factor, error);
    if (rc == SL_OK && fabs(factor * 255 - 1) > 1e-6) {
        rc = sl_fail(error, json->status, "%s: %s is %.17g: scenelog knows only 1/255", json->name, p, factor);
    }
    return rc;
}

static int read_video(const struct sl_json *json, const char *where, struct sl_model_config *out,
                      struct sl_error *error)
{
    const int64_t most = (int64_t)1 << 50;
    struct sl_video_config *video = &out->video;
    char p[128];
    int rc = check_processing(json, where, &out->vision, error);
    if (rc == SL_OK) {
        join(p, sizeof p, where, "size.shortest_edge");
        rc = sl_json_int(json, p, 1, most, &video->shortest_edge, error);
    }
    if (rc == SL_OK) {
        join(p, sizeof p, where, "size.longest_edge");
        rc = sl_json_int(json, p, video->shortest_edge, most, &video->longest_edge, error);
    }
    if (rc == SL_OK && sl_json_find(json, join(p, sizeof p, where, "cap_pixels_per_frame")) != NULL) {
        rc = sl_json_bool(json, p, &video->cap_pixels_per_frame, error);
    }
    if (rc == SL_OK && sl_json_find(json, join(p, sizeof p, where, "max_video_tokens")) != NULL) {
        const struct int_field tokens = {p, 1, INT_MAX, &video->max_video_tokens};
        rc = read_ints(json, &tokens, 1, error);
    }
    if (rc == SL_OK) {
        rc = read_channels(json, join(p, sizeof p, where, "image_mean"), video->mean, error);
    }
    if (rc == SL_OK) {
        rc = read_channels(json, join(p, sizeof p, where, "image_std"), video->std, error);
    }
    for (int i = 0; rc == SL_OK && i < 3; i++) {
        if (video->std[i] <= 0) {
            rc = sl_fail(error, json->status, "%s: %s must be above 0", json->name, p);
        }
    }
    return rc;
}

// The video processor's values have a file of their own, or a part of the one that transformers 5 writes.
static int read_video_file(const char *dir, struct sl_model_config *out, struct sl_error *error)
{
    struct sl_json json = {0};
    int rc = open_beside(dir, "video_preprocessor_config.json", &json, error);
    if (rc == 1) {
        rc = read_video(&json, "", out, error);
    } else if (rc == 0) {
        rc = open_beside(dir, "processor_config.json", &json, error);
        if (rc == 1) {
            rc = sl_json_find(&json, "video_processor") == NULL ? SL_OK
                                                                : read_video(&json, "video_processor", out, error);
        }
    }
    sl_json_finish(&json);
    return rc;
}

static int read_generation_file(const char *dir, struct sl_model_config *out, struct sl_error *error)
{
    struct sl_json json = {0};
    char path[PATH_MAX];
    int rc = open_beside(dir, "generation_config.json", &json, error);
    if (rc == 1) {
        rc = read_generation(&json, &out->generation, error);
    }
    sl_json_finish(&json);
    if (rc == SL_OK) {
        rc = file_path(path, sizeof path, dir, "generation_config.json", error);
    }
    return rc < 0 ? rc : check_eos(out, path, error);
}

// ---- The chat template

// A newline is itself or, inside a Jinja string, a backslash and an n.
static const char *skip_newlines(const char *p)
{
    while (*p == '\n' || strncmp(p, "\\n", 2) == 0) {
        p += *p == '\n' ? 1 : 2;
    }
    return p;
}

// A model thinks when its template opens every answer with <think>: after the last mention of add_generation_prompt,
// the assistant's opening runs straight into "<think>", in one string, and is not closed at once. Templates of models
// that do not think mention the tag too, to strip it from history, or behind a switch and closed at once.
static int opens_thinking(const char *template)
{
    static const char opening[] = "<|im_start|>assistant", think[] = "<think>", close[] = "</think>";
    const char *at = template;
    for (const char *next = at; (next = strstr(next, "add_generation_prompt")) != NULL; next++) {
        at = next;
    }
    for (; (at = strstr(at, opening)) != NULL; at++) {
        const char *p = skip_newlines(at + strlen(opening));
        if (strncmp(p, think, strlen(think)) == 0) {
            p = skip_newlines(p + strlen(think));
            if (strncmp(p, close, strlen(close)) != 0) {
                return 1;
            }
        }
    }
    return 0;
}

// The file's text; *text is NULL when there is no such file.
static int read_text_file(const char *dir, const char *name, char **text, struct sl_error *error)
{
    char path[PATH_MAX];
    *text = NULL;
    int rc = file_path(path, sizeof path, dir, name, error);
    FILE *file = rc == SL_OK && access(path, F_OK) == 0 ? fopen(path, "rb") : NULL;
    if (rc < 0 || (file == NULL && access(path, F_OK) != 0)) {
        return rc;
    }
    if (file == NULL) {
        return sl_fail(error, SL_ERR_MODEL_MISSING, "%s: %s", path, strerror(errno));
    }
    size_t room = 0;
    errno = 0;
    if (getdelim(text, &room, 0, file) < 0) { // to the end: a text has no zero byte
        free(*text);
        *text = NULL;
        rc = sl_fail(error, SL_ERR_MODEL_CONFIG, "%s: %s", path, errno != 0 ? strerror(errno) : "is empty");
    }
    fclose(file);
    return rc;
}

static int read_template_json(const char *dir, const char *name, int *found, int *thinking, struct sl_error *error)
{
    struct sl_json json = {0};
    int rc = open_beside(dir, name, &json, error);
    if (rc == 1) {
        const char *template = NULL;
        rc = SL_OK;
        *found = sl_json_find(&json, "chat_template") != NULL;
        if (*found) {
            rc = sl_json_string(&json, "chat_template", &template, error);
        }
        if (template != NULL) {
            *thinking = opens_thinking(template);
        }
    }
    sl_json_finish(&json);
    return rc;
}

static int read_thinking(const char *dir, int *thinking, struct sl_error *error)
{
    char *text = NULL;
    int found = 0;
    int rc = read_text_file(dir, "chat_template.jinja", &text, error);
    if (text != NULL) {
        *thinking = opens_thinking(text);
        free(text);
        return rc;
    }
    if (rc == SL_OK) {
        rc = read_template_json(dir, "chat_template.json", &found, thinking, error);
    }
    if (rc == SL_OK && !found) {
        rc = read_template_json(dir, "tokenizer_config.json", &found, thinking, error);
    }
    return rc;
}

int sl_config_read(const char *model_dir, struct sl_model_config *out, struct sl_error *error)
{
    char path[PATH_MAX];
    int rc = file_path(path, sizeof path, model_dir, "config.json", error);
    if (rc == SL_OK) {
        rc = sl_config_read_file(path, out, error);
    }
    if (rc == SL_OK) {
        rc = read_video_file(model_dir, out, error);
    }
    if (rc == SL_OK) {
        rc = read_generation_file(model_dir, out, error);
    }
    return rc < 0 ? rc : read_thinking(model_dir, &out->thinking, error);
}
