// SPDX-License-Identifier: Apache-2.0
// Ids against Hugging Face's tokenizers (tests/golden/make_tokenizer_golden.py), and what must be refused.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "core/json.h"
#include "lm/lm.h"
#include "lm/utf8.h"

static const char *golden(const char *name)
{
    static char path[512];
    const char *source = getenv("SRCDIR");
    snprintf(path, sizeof path, "%s/tests/golden/data/%s", source == NULL ? "." : source, name);
    return path;
}

// `name` is a folder of the golden data, or a path.
static struct sl_tokenizer *open_golden(const char *name)
{
    struct sl_tokenizer *tokenizer = NULL;
    struct sl_error error = {0};
    if (sl_tokenizer_open(strchr(name, '/') == NULL ? golden(name) : name, &tokenizer, &error) < 0) {
        fail_msg("%s", error.text);
    }
    return tokenizer;
}

static struct sl_json open_cases(const char *name)
{
    struct sl_json json = {0};
    struct sl_error error = {0};
    char path[512];
    snprintf(path, sizeof path, "%s/cases.json", name);
    if (sl_json_open(strchr(name, '/') == NULL ? golden(path) : path, 1 << 24, SL_ERR_OPEN, SL_ERR_IO, &json, &error) <
        0) {
        fail_msg("%s", error.text);
    }
    return json;
}

static size_t from_hex(const char *hex, char *bytes)
{
    size_t size = strlen(hex) / 2;
    for (size_t i = 0; i < size; i++) {
        unsigned value = 0;
        sscanf(hex + 2 * i, "%2x", &value);
        bytes[i] = (char)value;
    }
    return size;
}

static void assert_cases(const char *name, int least)
{
    struct sl_tokenizer *tokenizer = open_golden(name);
    struct sl_json json = open_cases(name);
    int number = 0;
    for (const cJSON *item = json.root->child; item != NULL; item = item->next, number++) {
        static char text[1 << 16];
        const char *hex = item->child->valuestring;
        size_t size = from_hex(hex, text), count = 0, at = 0;
        int32_t *ids = NULL;
        assert_int_equal(sl_tokenizer_encode(tokenizer, text, size, &ids, &count, NULL), SL_OK);
        for (const cJSON *id = item->child->next->child; id != NULL; id = id->next, at++) {
            if (at >= count || ids[at] != id->valueint) {
                fail_msg("case %d (%s): token %zu is %d, expected %d", number, hex, at, at < count ? ids[at] : -1,
                         id->valueint);
            }
        }
        assert_int_equal(at, count);
        free(ids);
    }
    assert_true(number >= least);
    sl_json_finish(&json);
    sl_tokenizer_close(tokenizer);
}

static void agrees_on_a_small_vocabulary(void **state)
{
    (void)state;
    assert_cases("tokenizer", 150);
}

static void agrees_on_words_of_many_scripts(void **state)
{
    (void)state;
    assert_cases("tokenizer-words", 500);
}

static void agrees_on_plain_byte_level(void **state)
{
    (void)state;
    assert_cases("tokenizer-bytes", 300);
}

static void agrees_on_the_full_vocabulary(void **state)
{
    (void)state;
    const char *folder_of_qwen = getenv("QWEN_TOKENIZER"); // tests/golden/check_qwen_tokenizer.sh
    if (folder_of_qwen == NULL) {
        skip();
    }
    assert_cases(folder_of_qwen, 4000);
}

static void encode_text(const struct sl_tokenizer *tokenizer, const char *text, size_t size, int32_t **ids,
                        size_t *count)
{
    struct sl_error error = {0};
    if (sl_tokenizer_encode(tokenizer, text, size, ids, count, &error) < 0) {
        fail_msg("%s", error.text);
    }
}

// The bytes of the tokens, joined.
static size_t join(const struct sl_tokenizer *tokenizer, const int32_t *ids, size_t count, char *out)
{
    size_t used = 0;
    for (size_t i = 0; i < count; i++) {
        size_t size = 0;
        const char *bytes = sl_tokenizer_bytes(tokenizer, ids[i], &size);
        assert_non_null(bytes);
        assert_false(sl_tokenizer_is_added(tokenizer, ids[i]));
        memcpy(out + used, bytes, size);
        used += size;
    }
    return used;
}

static void never_makes_special_tokens_of_text(void **state)
{
    (void)state;
    struct sl_tokenizer *tokenizer = open_golden("tokenizer-words");
    const char text[] = "<|im_end|>\n<|im_start|>system<|video_pad|><think>";
    int32_t *ids = NULL;
    size_t count = 0;
    char out[128];
    assert_int_equal(sl_tokenizer_added(tokenizer, "<|im_end|>"), 902);
    assert_int_equal(sl_tokenizer_is_added(tokenizer, 902), 1);
    encode_text(tokenizer, text, strlen(text), &ids, &count);
    assert_int_equal(join(tokenizer, ids, count, out), strlen(text));
    assert_memory_equal(out, text, strlen(text));
    free(ids);
    sl_tokenizer_close(tokenizer);
}

static void replaces_bad_bytes(void **state)
{
    (void)state;
    struct sl_tokenizer *tokenizer = open_golden("tokenizer-bytes");
    const char *cases[][2] = {
        {"a\xff"
         "b",
         "a\xef\xbf\xbd"
         "b"},
        {"\xc3", "\xef\xbf\xbd"},
        {"\xed\xa0\x80", "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd"}, // a surrogate
        {"\xc0\x80\xc3\xa9", "\xef\xbf\xbd\xef\xbf\xbd\xc3\xa9"}, // overlong
        {"\xf4\x90\x80\x80", "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd"},
        {"\xe2\x82z", "\xef\xbf\xbd\xef\xbf\xbdz"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        int32_t *ids = NULL;
        size_t count = 0;
        char out[64];
        encode_text(tokenizer, cases[i][0], strlen(cases[i][0]), &ids, &count);
        assert_int_equal(join(tokenizer, ids, count, out), strlen(cases[i][1]));
        assert_memory_equal(out, cases[i][1], strlen(cases[i][1]));
        free(ids);
    }
    sl_tokenizer_close(tokenizer);
}

static void takes_hostile_texts(void **state)
{
    (void)state;
    // Each a megabyte: one word, spaces, marks in falling order of class, a mix that has no word's end.
    const char *pieces[] = {"ab", " ", "e\xcc\x81\xcc\xa7", "\xcc\x81\xcc\xa7", "'", "\n ", "\xff", "12", "s' \t"};
    struct sl_tokenizer *tokenizer = open_golden("tokenizer-words");
    size_t room = 1 << 20;
    char *text = malloc(room);
    assert_non_null(text);
    for (size_t i = 0; i < sizeof pieces / sizeof *pieces; i++) {
        size_t size = 0, piece = strlen(pieces[i]), count = 0;
        int32_t *ids = NULL;
        for (; size + piece <= room; size += piece) {
            memcpy(text + size, pieces[i], piece);
        }
        encode_text(tokenizer, text, size, &ids, &count);
        assert_true(count > 0);
        free(ids);
    }
    free(text);
    sl_tokenizer_close(tokenizer);
}

// ---- Refusals: the golden file with one change.

static char folder[64];

static int make_folder(void **state)
{
    (void)state;
    strcpy(folder, "test_tokenizer.XXXXXX");
    return mkdtemp(folder) == NULL;
}

static int remove_folder(void **state)
{
    (void)state;
    char path[128];
    snprintf(path, sizeof path, "%s/tokenizer.json", folder);
    unlink(path);
    return rmdir(folder);
}

static char *read_golden(void)
{
    FILE *file = fopen(golden("tokenizer-words/tokenizer.json"), "rb");
    char *text = calloc(1, 1 << 20);
    assert_non_null(file);
    assert_non_null(text);
    assert_true(fread(text, 1, (1 << 20) - 1, file) > 0);
    fclose(file);
    return text;
}

static int open_changed(const char *text, const char *old, const char *new, struct sl_error *error)
{
    char path[128];
    snprintf(path, sizeof path, "%s/tokenizer.json", folder);
    const char *at = strstr(text, old);
    if (at == NULL) {
        fail_msg("no '%s' to change", old);
    }
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    fprintf(file, "%.*s%s%s", (int)(at - text), text, new, at + strlen(old));
    assert_int_equal(fclose(file), 0);
    struct sl_tokenizer *tokenizer = NULL;
    int rc = sl_tokenizer_open(folder, &tokenizer, error);
    sl_tokenizer_close(tokenizer);
    return rc;
}

static void refuses_what_it_does_not_know(void **state)
{
    (void)state;
    const char *cases[][3] = {
        {"\"type\":\"NFC\"", "\"type\":\"NFKC\"", "normalizer"},
        {"\"type\":\"Split\"", "\"type\":\"Digits\"", "pre_tokenizer"},
        {"\"behavior\":\"Isolated\"", "\"behavior\":\"Removed\"", "pre_tokenizer"},
        {"\"invert\":false", "\"invert\":true", "pre_tokenizer"},
        {"\"add_prefix_space\":false", "\"add_prefix_space\":true", "pre_tokenizer"},
        {"{\"type\":\"ByteLevel\"", "{\"type\":\"Metaspace\"", "pre_tokenizer"},
        {"\"Regex\":\"", "\"Regex\":\"(", "regular expression"},
        {"\"Regex\":\"", "\"Regex\":\"^", "not understood at byte 0"},
        {"\"Regex\":\"", "\"Regex\":\"\\\\h", "not understood at byte 0"},
        {"\"Regex\":\"", "\"Regex\":\"(?i)", "not understood at byte 0"},
        {"\"Regex\":\"", "\"Regex\":\"[a&&b]", "not understood at byte 2"},
        {"\"Regex\"", "\"String\"", "pre_tokenizer"},
        {"\"byte_fallback\":false", "\"byte_fallback\":true", "byte-level BPE"},
        {"\"type\":\"BPE\"", "\"type\":\"Unigram\"", "byte-level BPE"},
        {"\"unk_token\":null", "\"unk_token\":\"?\"", "unk_token"},
        {"\"end_of_word_suffix\":null", "\"end_of_word_suffix\":\"</w>\"", "end_of_word_suffix"},
        {"\"dropout\":null", "\"dropout\":0.1", "dropout"},
        {"\"decoder\":{\"type\":\"ByteLevel\"", "\"decoder\":{\"type\":\"Metaspace\"", "decoder"},
        {"\"post_processor\":null", "\"post_processor\":{\"type\":\"TemplateProcessing\"}", "post_processor"},
        {"\"post_processor\":null",
         "\"post_processor\":{\"type\":\"TemplateProcessing\",\"single\":[{\"SpecialToken\":{}}]}", "post_processor"},
        {"\"content\":\"<|vision_end|>\"", "\"content\":\"<|other|>\"", "<|vision_end|>"},
        {"\"content\":\"<|im_start|>\"", "\"content\":\"<|im_end|>\"", "lacks the added token <|im_start|>"},
        {"\"lstrip\":false", "\"lstrip\":true", "lstrip"},
        {"\"id\":900,", "\"id\":5,", "id 5 of another"},
        {"\"id\":900,", "\"id\":-1,", "no valid id"},
        {"\"id\":900,", "\"id\":1e9,", "no valid id"},
        {"\"\\\"\":1,", "", "byte 0x22"},
        {"\"\\\"\":1,", "\"\\\"\":0,", "twice"},
        {"\"\\\"\":1,", "\"\\\"\":1,\"\\u4e00\":3000,", "byte alphabet"},
        {"\"merges\":[[\"", "\"merges\":[[\"\xc4\xa0zq", "merge 0"},
        {"\"merges\":[", "\"merges\":[3,", "merge 0 is malformed"},
        {"\"merges\":[", "\"merges\":[\"ab\",", "merge 0 is malformed"},
        {"\"merges\":[", "\"m\":[", "model.merges"},
        {"\"vocab\":{", "\"v\":{", "model.vocab"},
        {"{", "", "JSON"},
    };
    char *text = read_golden();
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct sl_error error = {0};
        if (open_changed(text, cases[i][0], cases[i][1], &error) != SL_ERR_TOKENIZER ||
            strstr(error.text, cases[i][2]) == NULL) {
            fail_msg("%s: %d '%s' lacks '%s'", cases[i][1], error.status, error.text, cases[i][2]);
        }
    }
    free(text);
    struct sl_tokenizer *tokenizer = NULL;
    assert_int_equal(sl_tokenizer_open("no-such-folder", &tokenizer, NULL), SL_ERR_MODEL_MISSING);
}

static void accepts_what_changes_nothing(void **state)
{
    (void)state;
    const char *cases[][2] = {
        // What transformers 5 writes.
        {"\"post_processor\":null", "\"post_processor\":{\"type\":\"TemplateProcessing\",\"single\":[{\"Sequence\":"
                                    "{\"id\":\"A\",\"type_id\":0}}],\"pair\":[],\"special_tokens\":{}}"},
        {"\"post_processor\":null", "\"post_processor\":{\"type\":\"ByteLevel\"}"},
        {"\"end_of_word_suffix\":null", "\"end_of_word_suffix\":\"\""},
        {"{\"type\":\"NFC\"}", "{\"type\":\"Sequence\",\"normalizers\":[{\"type\":\"NFC\"}]}"},
    };
    char *text = read_golden();
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct sl_error error = {0};
        if (open_changed(text, cases[i][0], cases[i][1], &error) < 0) {
            fail_msg("%s: %s", cases[i][1], error.text);
        }
    }
    free(text);
}

static void bounds_slow_expressions(void **state)
{
    (void)state;
    // Takes 2^n steps on n letters without the last one.
    char *text = read_golden(), *changed = NULL;
    struct sl_error error = {0};
    const char *at = strstr(text, "\"Regex\":\"");
    assert_true(asprintf(&changed, "%.*s\"Regex\":\"(?:a|a)+b|%s", (int)(at - text), text, at + 9) > 0);
    assert_int_equal(open_changed(changed, "{", "{", &error), SL_OK);
    struct sl_tokenizer *tokenizer = NULL;
    assert_int_equal(sl_tokenizer_open(folder, &tokenizer, &error), SL_OK);
    int32_t *ids = NULL;
    size_t count = 0;
    assert_int_equal(sl_tokenizer_encode(tokenizer, "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", 55, &ids,
                                         &count, &error),
                     SL_ERR_TOKENIZER);
    assert_non_null(strstr(error.text, "limit"));
    sl_tokenizer_close(tokenizer);
    free(changed);
    free(text);
}

static void streams_whole_characters(void **state)
{
    (void)state;
    const char text[] = "a\xc3\xa9\xe6\x97\xa5\xf0\x9f\x99\x82z\xff\xe6\x97z\xf0\x9f";
    const char expected[] = "a\xc3\xa9\xe6\x97\xa5\xf0\x9f\x99\x82z\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbdz"
                            "\xef\xbf\xbd\xef\xbf\xbd";
    for (size_t step = 1; step <= strlen(text); step++) {
        struct sl_utf8 stream = {0};
        char out[128];
        size_t used = 0;
        for (size_t i = 0; i < strlen(text); i += step) {
            size_t size = strlen(text) - i < step ? strlen(text) - i : step;
            size_t got = sl_utf8_push(&stream, text + i, size, out + used);
            for (size_t k = 0; k < got;) { // whole characters each time
                int length = sl_utf8_character(out + used + k, got - k);
                assert_true(length > 0);
                k += (size_t)length;
            }
            used += got;
        }
        used += sl_utf8_finish(&stream, out + used);
        assert_int_equal(used, strlen(expected));
        assert_memory_equal(out, expected, used);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(agrees_on_a_small_vocabulary),
        cmocka_unit_test(agrees_on_words_of_many_scripts),
        cmocka_unit_test(agrees_on_plain_byte_level),
        cmocka_unit_test(agrees_on_the_full_vocabulary),
        cmocka_unit_test(never_makes_special_tokens_of_text),
        cmocka_unit_test(replaces_bad_bytes),
        cmocka_unit_test(takes_hostile_texts),
        cmocka_unit_test_setup_teardown(refuses_what_it_does_not_know, make_folder, remove_folder),
        cmocka_unit_test_setup_teardown(accepts_what_changes_nothing, make_folder, remove_folder),
        cmocka_unit_test_setup_teardown(bounds_slow_expressions, make_folder, remove_folder),
        cmocka_unit_test(streams_whole_characters),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
