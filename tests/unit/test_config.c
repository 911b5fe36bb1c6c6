// SPDX-License-Identifier: Apache-2.0
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "core/config.h"

// The values of the 2B model in the published style.
static const char published[] =
    "{\"architectures\": [\"Qwen3VLForConditionalGeneration\"], \"image_token_id\": 151655,"
    " \"model_type\": \"qwen3_vl\", \"text_config\": {\"attention_bias\": false, \"attention_dropout\": 0.0,"
    " \"bos_token_id\": 151643, \"dtype\": \"bfloat16\", \"eos_token_id\": 151645, \"head_dim\": 128,"
    " \"hidden_act\": \"silu\", \"hidden_size\": 2048, \"initializer_range\": 0.02, \"intermediate_size\": 6144,"
    " \"max_position_embeddings\": 262144, \"model_type\": \"qwen3_vl_text\", \"num_attention_heads\": 16,"
    " \"num_hidden_layers\": 28, \"num_key_value_heads\": 8, \"rms_norm_eps\": 1e-06,"
    " \"rope_scaling\": {\"mrope_interleaved\": true, \"mrope_section\": [24, 20, 20], \"rope_type\": \"default\"},"
    " \"rope_theta\": 5000000, \"tie_word_embeddings\": true, \"use_cache\": true, \"vocab_size\": 151936},"
    " \"tie_word_embeddings\": true, \"transformers_version\": \"4.57.0.dev0\", \"video_token_id\": 151656,"
    " \"vision_config\": {\"deepstack_visual_indexes\": [5, 11, 17], \"depth\": 24,"
    " \"hidden_act\": \"gelu_pytorch_tanh\", \"hidden_size\": 1024, \"in_channels\": 3, \"initializer_range\": 0.02,"
    " \"intermediate_size\": 4096, \"model_type\": \"qwen3_vl\", \"num_heads\": 16,"
    " \"num_position_embeddings\": 2304, \"out_hidden_size\": 2048, \"patch_size\": 16, \"spatial_merge_size\": 2,"
    " \"temporal_patch_size\": 2}, \"vision_end_token_id\": 151653, \"vision_start_token_id\": 151652}";
static const char rope_published[] =
    "\"rope_scaling\": {\"mrope_interleaved\": true, \"mrope_section\": [24, 20, 20], \"rope_type\": \"default\"},"
    " \"rope_theta\": 5000000,";
static const char video[] =
    "{\"size\": {\"longest_edge\": 25165824, \"shortest_edge\": 4096}, \"patch_size\": 16, \"temporal_patch_size\": 2,"
    " \"merge_size\": 2, \"image_mean\": [0.5, 0.5, 0.5], \"image_std\": [0.5, 0.25, 0.5], \"resample\": 3,"
    " \"rescale_factor\": 0.00392156862745098, \"do_resize\": true,"
    " \"video_processor_type\": \"Qwen3VLVideoProcessor\"}";

static char folder[64];

static int make_folder(void **state)
{
    (void)state;
    strcpy(folder, "test_config.XXXXXX");
    return mkdtemp(folder) == NULL;
}

static const char *in_folder(const char *name)
{
    static char path[256];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    return path;
}

static int remove_folder(void **state)
{
    (void)state;
    const char *names[] = {"config.json",          "generation_config.json", "video_preprocessor_config.json",
                           "chat_template.jinja",  "chat_template.json",     "tokenizer_config.json",
                           "processor_config.json"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        unlink(in_folder(names[i]));
    }
    return rmdir(folder);
}

static void write_text(const char *name, const char *text)
{
    FILE *file = fopen(in_folder(name), "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(text, 1, strlen(text), file), strlen(text));
    assert_int_equal(fclose(file), 0);
}

// Writes `text` with the first `old` replaced.
static void write_changed(const char *name, const char *text, const char *old, const char *new)
{
    static char changed[8192];
    const char *at = strstr(text, old);
    if (at == NULL) {
        fail_msg("no '%s' to change", old);
    }
    snprintf(changed, sizeof changed, "%.*s%s%s", (int)(at - text), text, new, at + strlen(old));
    write_text(name, changed);
}

static struct sl_model_config read_folder(void)
{
    struct sl_model_config config;
    struct sl_error error = {0};
    if (sl_config_read(folder, &config, &error) < 0) {
        fail_msg("%s", error.text);
    }
    return config;
}

static void assert_refused(const char *words)
{
    struct sl_model_config config;
    struct sl_error error = {0};
    assert_int_equal(sl_config_read(folder, &config, &error), SL_ERR_MODEL_CONFIG);
    if (strstr(error.text, words) == NULL) {
        fail_msg("'%s' lacks '%s'", error.text, words);
    }
}

static void assert_published(const struct sl_model_config *c)
{
    assert_int_equal(c->vision.depth, 24);
    assert_int_equal(c->vision.hidden, 1024);
    assert_int_equal(c->vision.heads, 16);
    assert_int_equal(c->vision.intermediate, 4096);
    assert_int_equal(c->vision.out_hidden, 2048);
    assert_int_equal(c->vision.patch, 16);
    assert_int_equal(c->vision.temporal_patch, 2);
    assert_int_equal(c->vision.merge, 2);
    assert_int_equal(c->vision.channels, 3);
    assert_int_equal(c->vision.position_side, 48);
    assert_int_equal(c->vision.deepstack_count, 3);
    assert_int_equal(c->vision.deepstack_layer[2], 17);
    assert_int_equal(c->text.vocab, 151936);
    assert_int_equal(c->text.hidden, 2048);
    assert_int_equal(c->text.layers, 28);
    assert_int_equal(c->text.heads, 16);
    assert_int_equal(c->text.kv_heads, 8);
    assert_int_equal(c->text.head_dim, 128);
    assert_int_equal(c->text.intermediate, 6144);
    assert_true(c->text.rms_eps == 1e-6f);
    assert_true(c->text.rope_theta == 5e6);
    assert_int_equal(c->text.mrope_section[0], 24);
    assert_int_equal(c->text.mrope_section[2], 20);
    assert_int_equal(c->text.yarn, 0);
    assert_int_equal(c->text.max_positions, 262144);
    assert_int_equal(c->text.tied, 1);
    assert_int_equal(c->image_token, 151655);
    assert_int_equal(c->video_token, 151656);
    assert_int_equal(c->vision_start, 151652);
    assert_int_equal(c->vision_end, 151653);
    assert_int_equal(c->thinking, 0);
}

static void reads_the_published_style(void **state)
{
    (void)state;
    write_text("config.json", published);
    struct sl_model_config c = read_folder();
    assert_published(&c);
    assert_int_equal(c.video.longest_edge, 25165824);
    assert_int_equal(c.video.shortest_edge, 4096);
    assert_true(c.video.mean[1] == 0.5f);
    assert_int_equal(c.generation.eos_count, 1);
    assert_int_equal(c.generation.eos[0], 151645);
    write_changed("config.json", published, "\"eos_token_id\": 151645,", "");
    c = read_folder();
    assert_int_equal(c.generation.eos_count, 2);
    assert_int_equal(c.generation.eos[1], 151643);
    assert_int_equal(c.generation.top_k, 20);
}

static void reads_the_style_of_transformers_5(void **state)
{
    (void)state;
    write_changed("config.json", published, rope_published,
                  "\"pad_token_id\": null, \"rope_parameters\": {\"mrope_interleaved\": true,"
                  " \"mrope_section\": [24, 20, 20], \"rope_theta\": 5000000.0, \"rope_type\": \"default\"},");
    struct sl_model_config c = read_folder();
    assert_published(&c);
}

static void reads_yarn(void **state)
{
    (void)state;
    write_changed("config.json", published, "\"rope_type\": \"default\"",
                  "\"rope_type\": \"yarn\", \"factor\": 3.0, \"original_max_position_embeddings\": 262144");
    struct sl_model_config c = read_folder();
    assert_int_equal(c.text.yarn, 1);
    assert_true(c.text.yarn_factor == 3);
    assert_true(c.text.yarn_beta_fast == 32);
    assert_true(c.text.yarn_beta_slow == 1);
    assert_int_equal(c.text.yarn_original_positions, 262144);
    assert_true(fabs(c.text.yarn_attention_factor - 1.10986) < 1e-5);
}

static void refuses_what_it_does_not_know(void **state)
{
    (void)state;
    const struct {
        const char *old, *new, *words;
    } cases[] = {
        {"\"model_type\": \"qwen3_vl\"", "\"model_type\": \"qwen3_vl_moe\"", "text_config.model_type is"},
        {"\"model_type\": \"qwen3_vl\"", "\"model_type\": \"qwen2_vl\"", "model_type is \"qwen2_vl\""},
        {"\"model_type\": \"qwen3_vl_text\"", "\"model_type\": \"llama\"", "text_config.model_type"},
        {"\"head_dim\": 128,", "", "lacks text_config.head_dim"},
        {"\"head_dim\": 128,", "\"head_dim\": 64,", "mrope_section"},
        {"\"head_dim\": 128,", "\"head_dim\": \"128\",", "head_dim is not a number"},
        {"\"attention_bias\": false", "\"attention_bias\": true", "attention_bias is true"},
        {"\"silu\"", "\"gelu\"", "hidden_act is \"gelu\""},
        {"gelu_pytorch_tanh", "gelu", "vision_config.hidden_act"},
        {"\"rope_type\": \"default\"", "\"rope_type\": \"dynamic\"", "rope_type is \"dynamic\""},
        {"\"rope_type\": \"default\"", "\"rope_type\": \"yarn\"", "lacks text_config.rope_scaling.factor"},
        {"\"rope_type\": \"default\"", "\"rope_type\": \"default\", \"mscale\": 2", "mscale is not known"},
        {", \"rope_type\": \"default\"", "", "lacks text_config.rope_scaling.type"},
        {"\"mrope_interleaved\": true", "\"mrope_interleaved\": false", "mrope_interleaved is false"},
        {"\"mrope_interleaved\": true,", "", "lacks text_config.rope_scaling.mrope_interleaved"},
        {"[24, 20, 20]", "[16, 24, 24]", "does not share out"},
        {"[24, 20, 20]", "[24, 20]", "mrope_section must have"},
        {"\"rope_theta\": 5000000", "\"rope_theta\": 0", "rope_theta"},
        {"\"rope_theta\": 5000000,", "", "lacks text_config.rope_theta"},
        {rope_published, "", "rope_scaling"},
        {"\"num_key_value_heads\": 8", "\"num_key_value_heads\": 5", "do not fit"},
        {"[5, 11, 17]", "[5, 11, 24]", "deepstack_visual_indexes must ascend"},
        {"[5, 11, 17]", "[5, 5, 17]", "must ascend"},
        {"[5, 11, 17]", "[0,1,2,3,4,5,6,7,8]", "deepstack_visual_indexes"},
        {"\"num_position_embeddings\": 2304", "\"num_position_embeddings\": 2300", "not a square"},
        {"\"num_heads\": 16", "\"num_heads\": 15", "hidden_size 1024 is not heads"},
        {"\"out_hidden_size\": 2048", "\"out_hidden_size\": 1024", "out_hidden_size"},
        {"\"temporal_patch_size\": 2", "\"temporal_patch_size\": 1", "temporal_patch_size"},
        {"\"in_channels\": 3", "\"in_channels\": 4", "in_channels"},
        {"\"video_token_id\": 151656", "\"video_token_id\": 151936", "video_token_id"},
        {"\"use_cache\": true", "\"use_sliding_window\": true", "use_sliding_window"},
        {"\"use_cache\": true", "\"num_experts\": 128", "num_experts"},
        {"\"use_cache\": true", "\"partial_rotary_factor\": 0.5", "partial_rotary_factor"},
        {"{", "{\"quantization_config\": {\"quant_method\": \"awq\", \"bits\": 4},",
         "quantization_config.quant_method is \"awq\": scenelog knows only \"fp8\""},
        {"{", "{\"quantization_config\": {\"bits\": 4},", "lacks quantization_config.quant_method"},
        {"{", "{\"quantization_config\": {\"quant_method\": \"fp8\"},", "lacks quantization_config.weight_block_size"},
        {"{", "{\"quantization_config\": {\"quant_method\": \"fp8\", \"weight_block_size\": [128, 64]},",
         "weight_block_size is [128, 64]: scenelog knows only [128, 128]"},
        {"{", "{\"quantization_config\": {\"quant_method\": \"fp8\", \"fmt\": \"e5m2\"},", "fmt is \"e5m2\""},
        {"{", "{\"quantization_config\": {\"quant_method\": \"fp8\", \"activation_scheme\": \"static\"},",
         "activation_scheme is \"static\""},
        {"{", "{\"quantization_config\": {\"quant_method\": \"fp8\", \"turned\": true},", "turned is not known"},
        {"\"use_cache\": true", "\"quantization_config\": {}", "text_config.quantization_config"},
        {"\"rms_norm_eps\": 1e-06", "\"rms_norm_eps\": -1", "rms_norm_eps"},
        {"\"vocab_size\": 151936", "\"vocab_size\": 1e99", "vocab_size"},
        {"\"eos_token_id\": 151645", "\"eos_token_id\": 151936", "eos_token_id"},
        {"{", "[", "config.json"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        write_changed("config.json", published, cases[i].old, cases[i].new);
        assert_refused(cases[i].words);
    }
}

// The 30B-A3B model's keys, put in for the dense model's.
static const char experts[] = "\"num_experts\": 128, \"num_experts_per_tok\": 8, \"moe_intermediate_size\": 768,"
                              " \"norm_topk_prob\": true, \"decoder_sparse_step\": 1, \"mlp_only_layers\": [],";

// A mixture of experts with these keys instead, without `without`.
static void write_sparse(const char *keys, const char *without)
{
    char text[sizeof published + sizeof experts + 512] = "";
    const char *from[] = {"\"qwen3_vl\"", "\"qwen3_vl_text\"", "\"intermediate_size\": 6144,", "\"qwen3_vl\""};
    const char *to[] = {"\"qwen3_vl_moe\"", "\"qwen3_vl_moe_text\"", keys, "\"qwen3_vl_moe\""};
    const char *rest = published;
    const int order[] = {0, 2, 1, 3}; // as they stand in the file
    for (int i = 0; i < 4; i++) {
        const char *at = strstr(rest, from[order[i]]);
        assert_non_null(at);
        strncat(text, rest, (size_t)(at - rest));
        strcat(text, to[order[i]]);
        rest = at + strlen(from[order[i]]);
    }
    strcat(text, rest);
    write_changed("config.json", text, without, "");
}

static void reads_mixtures_of_experts(void **state)
{
    (void)state;
    write_sparse(experts, "");
    struct sl_model_config c = read_folder();
    assert_int_equal(c.text.experts, 128);
    assert_int_equal(c.text.experts_per_token, 8);
    assert_int_equal(c.text.expert_intermediate, 768);
    assert_int_equal(c.text.normalise_routing, 1);
    assert_int_equal(c.text.intermediate, 0);
    assert_null(memchr(c.text.sparse, 0, 28));
    assert_int_equal(c.fp8, 0);
    // As transformers 5 writes it, with dense layers among the sparse ones.
    write_sparse("\"num_local_experts\": 60, \"num_experts_per_tok\": 4, \"moe_intermediate_size\": 1408,"
                 " \"decoder_sparse_step\": 2, \"mlp_only_layers\": [3, 27], \"intermediate_size\": 5632,",
                 "");
    c = read_folder();
    assert_int_equal(c.text.experts, 60);
    assert_int_equal(c.text.intermediate, 5632);
    for (int i = 0; i < 28; i++) {
        assert_int_equal(c.text.sparse[i], i % 2 == 1 && i != 3 && i != 27);
    }
}

static void refuses_other_mixtures(void **state)
{
    (void)state;
    const struct {
        const char *without, *words;
    } missing[] = {{"\"num_experts\": 128,", "lacks text_config.num_experts"},
                   {"\"num_experts_per_tok\": 8,", "lacks text_config.num_experts_per_tok"},
                   {"\"moe_intermediate_size\": 768,", "lacks text_config.moe_intermediate_size"},
                   {"\"decoder_sparse_step\": 1,", "lacks text_config.decoder_sparse_step"}};
    for (size_t i = 0; i < sizeof missing / sizeof *missing; i++) {
        write_sparse(experts, missing[i].without);
        assert_refused(missing[i].words);
    }
    const struct {
        const char *keys, *words;
    } cases[] = {
        {"\"num_experts\": 8, \"num_experts_per_tok\": 9, \"moe_intermediate_size\": 768,", "9 experts a token of 8"},
        {"\"num_experts\": 1025, \"num_experts_per_tok\": 8, \"moe_intermediate_size\": 768,", "num_experts"},
        {"\"num_experts\": 128, \"num_experts_per_tok\": 33, \"moe_intermediate_size\": 768,", "num_experts_per_tok"},
        {"\"num_experts\": 8, \"num_experts_per_tok\": 2, \"moe_intermediate_size\": 768, \"decoder_sparse_step\": 1,"
         " \"mlp_only_layers\": [28],",
         "mlp_only_layers names layer 28 of 28"},
        {"\"num_experts\": 8, \"num_experts_per_tok\": 2, \"moe_intermediate_size\": 768, \"decoder_sparse_step\": 2,",
         "lacks text_config.intermediate_size"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        write_sparse(cases[i].keys, "");
        assert_refused(cases[i].words);
    }
}

static void reads_fp8(void **state)
{
    (void)state;
    write_changed("config.json", published, "{",
                  "{\"quantization_config\": {\"activation_scheme\": \"dynamic\", \"fmt\": \"e4m3\","
                  " \"quant_method\": \"fp8\", \"weight_block_size\": [128, 128],"
                  " \"ignored_layers\": [\"lm_head\", \"model.visual.merger\"]},");
    struct sl_model_config c = read_folder();
    assert_int_equal(c.fp8, 1);
    assert_published(&c);
}

static void asks_for_every_key(void **state)
{
    (void)state;
    const char *keys[] = {"depth",          "num_heads",           "deepstack_visual_indexes",
                          "patch_size",     "spatial_merge_size",  "num_position_embeddings",
                          "vocab_size",     "num_hidden_layers",   "num_attention_heads",
                          "hidden_act",     "num_key_value_heads", "max_position_embeddings",
                          "image_token_id", "vision_end_token_id", "vision_config",
                          "text_config",    "model_type",          "rms_norm_eps"};
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
        char old[64], new[64];
        snprintf(old, sizeof old, "\"%s\"", keys[i]);
        snprintf(new, sizeof new, "\"no_%s\"", keys[i]);
        write_changed("config.json", published, old, new);
        assert_refused(keys[i]);
    }
    unlink(in_folder("config.json"));
    struct sl_model_config config;
    struct sl_error error = {0};
    assert_int_equal(sl_config_read(folder, &config, &error), SL_ERR_MODEL_MISSING);
    assert_non_null(strstr(error.text, "config.json"));
}

static void reads_the_files_beside(void **state)
{
    (void)state;
    write_text("config.json", published);
    write_text("video_preprocessor_config.json", video);
    write_text("generation_config.json", "{\"eos_token_id\": [7, 8, 9], \"do_sample\": true, \"temperature\": 0.8,"
                                         " \"top_p\": 0.95, \"top_k\": 30, \"pad_token_id\": 7}");
    struct sl_model_config c = read_folder();
    assert_int_equal(c.generation.eos_count, 3);
    assert_int_equal(c.generation.eos[2], 9);
    assert_true(c.generation.temperature == 0.8f);
    assert_true(c.generation.top_p == 0.95f);
    assert_int_equal(c.generation.top_k, 30);
    assert_true(c.video.std[1] == 0.25f);
    assert_int_equal(c.video.cap_pixels_per_frame, 0);
    assert_int_equal(c.video.max_video_tokens, 768);
    write_text("generation_config.json", "{\"eos_token_id\": 5, \"temperature\": 0.8}");
    write_changed("video_preprocessor_config.json", video, "\"resample\"",
                  "\"cap_pixels_per_frame\": true, \"max_video_tokens\": 99, \"resample\"");
    c = read_folder();
    assert_int_equal(c.generation.eos_count, 1);
    assert_true(c.generation.temperature == 0);
    assert_int_equal(c.video.cap_pixels_per_frame, 1);
    assert_int_equal(c.video.max_video_tokens, 99);
}

static void reads_the_processor_file_of_transformers_5(void **state)
{
    (void)state;
    static char text[4096];
    write_text("config.json", published);
    snprintf(text, sizeof text, "{\"image_processor\": {\"patch_size\": 14}, \"video_processor\": %s}", video);
    write_changed("processor_config.json", text, "25165824", "99999");
    assert_int_equal(read_folder().video.longest_edge, 99999);
    write_changed("processor_config.json", text, "\"merge_size\": 2", "\"merge_size\": 4");
    assert_refused("video_processor.merge_size");
}

static void refuses_other_processing(void **state)
{
    (void)state;
    const char *cases[][2] = {
        {"\"patch_size\": 16", "\"patch_size\": 14"},
        {"\"do_resize\": true", "\"do_resize\": false"},
        {"\"resample\": 3", "\"resample\": 2"},
        {"0.00392156862745098", "1.0"},
        {"\"image_std\": [0.5, 0.25, 0.5]", "\"image_std\": [0.5, 0, 0.5]"},
        {"\"image_mean\": [0.5, 0.5, 0.5]", "\"image_mean\": [0.5, 0.5]"},
        {"\"longest_edge\": 25165824", "\"longest_edge\": 4095"},
        {"\"shortest_edge\": 4096", "\"height\": 4096"},
    };
    write_text("config.json", published);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        write_changed("video_preprocessor_config.json", video, cases[i][0], cases[i][1]);
        assert_refused("video_preprocessor_config.json");
    }
    unlink(in_folder("video_preprocessor_config.json"));
    write_text("generation_config.json", "{\"eos_token_id\": []}");
    assert_refused("eos_token_id");
    write_text("generation_config.json", "{\"top_p\": 2}");
    assert_refused("top_p");
}

static void sees_whether_the_model_thinks(void **state)
{
    (void)state;
    // The ends of templates, as the families write them.
    static const char history[] =
        "{{- '<|im_start|>' + message.role + '\\n<think>\\n' + reasoning + '\\n</think>\\n\\n' + content }}";
    static const char thinks[] =
        "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n<think>\\n' }}{%- endif %}";
    static const char answers[] = "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}";
    static const char switched[] =
        "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- if enable_thinking is false %}"
        "{{- '<think>\\n\\n</think>\\n\\n' }}{%- endif %}{%- endif %}";
    static const char closed[] =
        "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n<think>\\n\\n</think>\\n\\n' }}{%- endif %}";
    const struct {
        const char *end;
        int thinking;
    } cases[] = {{thinks, 1}, {answers, 0}, {switched, 0}, {closed, 0}};
    write_text("config.json", published);
    assert_int_equal(read_folder().thinking, 0);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char text[1024];
        snprintf(text, sizeof text, "%s%s", history, cases[i].end);
        write_text("chat_template.jinja", text);
        assert_int_equal(read_folder().thinking, cases[i].thinking);
    }
    unlink(in_folder("chat_template.jinja"));
    const char *json =
        "{\"chat_template\": \"{% if add_generation_prompt %}{{ '<|im_start|>assistant\\\\n<think>\\\\n' }}\"}";
    write_text("chat_template.json", json);
    assert_int_equal(read_folder().thinking, 1);
    unlink(in_folder("chat_template.json"));
    write_text("tokenizer_config.json", json);
    assert_int_equal(read_folder().thinking, 1);
    write_text("tokenizer_config.json", "{\"chat_template\": [1]}");
    assert_refused("chat_template");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(reads_the_published_style, make_folder, remove_folder),
        cmocka_unit_test_setup_teardown(reads_the_style_of_transformers_5, make_folder, remove_folder),
        cmocka_unit_test_setup_teardown(reads_yarn, make_folder, remove_folder),
        cmocka_unit_test_setup_teardown(refuses_what_it_does_not_know, make_folder, remove_folder),
        cmocka_unit_test_setup_teardown(reads_mixtures_of_experts, make_folder, remove_folder),
        cmocka_unit_test_setup_teardown(refuses_other_mixtures, make_folder, remove_folder),
        cmocka_unit_test_setup_teardown(reads_fp8, make_folder, remove_folder),
        cmocka_unit_test_setup_teardown(asks_for_every_key, make_folder, remove_folder),
        cmocka_unit_test_setup_teardown(reads_the_files_beside, make_folder, remove_folder),
        cmocka_unit_test_setup_teardown(reads_the_processor_file_of_transformers_5, make_folder, remove_folder),
        cmocka_unit_test_setup_teardown(refuses_other_processing, make_folder, remove_folder),
        cmocka_unit_test_setup_teardown(sees_whether_the_model_thinks, make_folder, remove_folder),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
