// SPDX-License-Identifier: Apache-2.0
// The first byte chooses which of the folder's files the rest is.
#include "core/config.h"
#include "core/device.h"
#include "tests/fuzz/folder.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const char sound[] =
    "{\"image_token_id\":4,\"model_type\":\"qwen3_vl\",\"text_config\":{\"attention_bias\":false,\"head_dim\":16,"
    "\"hidden_act\":\"silu\",\"hidden_size\":32,\"intermediate_size\":64,\"max_position_embeddings\":4096,"
    "\"num_attention_heads\":2,\"num_hidden_layers\":4,\"num_key_value_heads\":1,\"rms_norm_eps\":1e-06,"
    "\"rope_scaling\":{\"mrope_interleaved\":true,\"mrope_section\":[4,2,2],\"rope_type\":\"default\"},"
    "\"rope_theta\":5000000,\"vocab_size\":200000},\"tie_word_embeddings\":true,\"video_token_id\":5,"
    "\"vision_config\":{\"deepstack_visual_indexes\":[0,1],\"depth\":2,\"hidden_act\":\"gelu_pytorch_tanh\","
    "\"hidden_size\":32,\"in_channels\":3,\"intermediate_size\":64,\"num_heads\":2,\"num_position_embeddings\":16,"
    "\"out_hidden_size\":32,\"patch_size\":16,\"spatial_merge_size\":2,\"temporal_patch_size\":2},"
    "\"vision_end_token_id\":7,\"vision_start_token_id\":6}";

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char *const names[] = {
        "config.json",         "generation_config.json", "processor_config.json", "video_preprocessor_config.json",
        "chat_template.jinja", "chat_template.json",     "tokenizer_config.json"};
    if (fuzz_folder[0] == 0) {
        fuzz_make_folder();
    }
    if (size < 1) {
        return 0;
    }
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        unlink(fuzz_path(names[i]));
    }
    fuzz_write("config.json", sound, strlen(sound));
    fuzz_write(names[data[0] % (sizeof names / sizeof *names)], data + 1, size - 1);
    struct sl_model_config config;
    struct sl_error error = {0};
    if (sl_config_read(fuzz_folder, &config, &error) < 0) {
        if (error.text[0] == 0) {
            abort();
        }
        return 0;
    }
    // What others divide by and index with.
    const struct sl_text_config *t = &config.text;
    if (t->kv_heads < 1 || t->heads % t->kv_heads != 0 || t->head_dim % 2 != 0 || config.vision.heads < 1 ||
        config.vision.deepstack_count > SL_MAX_DEEPSTACK || config.generation.eos_count < 1 ||
        config.generation.eos_count > SL_MAX_EOS || config.video_token >= t->vocab ||
        config.video.shortest_edge > config.video.longest_edge) {
        abort();
    }
    for (int i = 0; i < t->layers; i++) {
        int good = t->sparse[i] ? t->experts_per_token >= 1 && t->experts_per_token <= t->experts &&
                                      t->experts <= SL_MAX_EXPERTS && t->expert_intermediate >= 1
                                : t->intermediate >= 1;
        if (!good) {
            abort();
        }
    }
    return 0;
}
