// SPDX-License-Identifier: Apache-2.0
#include <limits.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "core/json.h"

static struct sl_json parsed(const char *text)
{
    struct sl_json json;
    struct sl_error e = {0};
    if (sl_json_parse(text, strlen(text), "c.json", SL_ERR_MODEL_CONFIG, &json, &e) != SL_OK) {
        fail_msg("%s", e.text);
    }
    return json;
}

static void finds_values_by_path(void **state)
{
    (void)state;
    struct sl_json json = parsed("{\"a\":{\"b\":{\"c\":7,\"cc\":8}},\"s\":\"x\",\"t\":true,\"n\":null,\"f\":2.5,"
                                 "\"l\":[1,-2,3],\"A\":9}");
    int64_t number = 0;
    double real = 0;
    int flag = 0, list[3] = {0}, count = 0;
    const char *text = NULL;
    const cJSON *object = NULL;
    assert_int_equal(sl_json_int(&json, "a.b.c", 0, 10, &number, NULL), SL_OK);
    assert_int_equal(number, 7);
    assert_int_equal(sl_json_int(&json, "A", 0, 10, &number, NULL), SL_OK);
    assert_int_equal(number, 9);
    assert_int_equal(sl_json_double(&json, "f", &real, NULL), SL_OK);
    assert_true(real == 2.5);
    assert_int_equal(sl_json_bool(&json, "t", &flag, NULL), SL_OK);
    assert_int_equal(flag, 1);
    assert_int_equal(sl_json_string(&json, "s", &text, NULL), SL_OK);
    assert_string_equal(text, "x");
    assert_int_equal(sl_json_object(&json, "a.b", &object, NULL), SL_OK);
    assert_int_equal(cJSON_GetArraySize(object), 2);
    assert_int_equal(sl_json_ints(&json, "l", 3, 3, list, &count, NULL), SL_OK);
    assert_int_equal(count, 3);
    assert_int_equal(list[1], -2);
    assert_null(sl_json_find(&json, "n"));
    assert_null(sl_json_find(&json, "a.b.c.d"));
    assert_null(sl_json_find(&json, "a.x"));
    sl_json_finish(&json);
    sl_json_finish(&json);
}

static void names_the_path_of_what_is_wrong(void **state)
{
    (void)state;
    struct sl_json json = parsed("{\"a\":{\"s\":\"x\",\"f\":2.5,\"big\":1e300,\"l\":[1,2.5]}}");
    struct sl_error e = {0};
    int64_t number = 0;
    int list[2] = {0}, count = 0;
    assert_int_equal(sl_json_int(&json, "a.b", 0, 10, &number, &e), SL_ERR_MODEL_CONFIG);
    assert_string_equal(e.text, "c.json: lacks a.b");
    assert_int_equal(sl_json_int(&json, "a.s", 0, 10, &number, &e), SL_ERR_MODEL_CONFIG);
    assert_string_equal(e.text, "c.json: a.s is not a number");
    assert_int_equal(sl_json_int(&json, "a.f", 0, 10, &number, &e), SL_ERR_MODEL_CONFIG);
    assert_string_equal(e.text, "c.json: a.f is 2.5, not a whole number from 0 to 10");
    assert_int_equal(sl_json_int(&json, "a.big", 0, INT64_MAX, &number, &e), SL_ERR_MODEL_CONFIG);
    assert_int_equal(sl_json_ints(&json, "a.l", 0, 2, list, &count, &e), SL_ERR_MODEL_CONFIG);
    assert_string_equal(e.text, "c.json: a.l[1] is not a whole number");
    assert_int_equal(sl_json_ints(&json, "a.l", 0, 1, list, &count, &e), SL_ERR_MODEL_CONFIG);
    assert_string_equal(e.text, "c.json: a.l must have 0 to 1 numbers");
    sl_json_finish(&json);
}

static void refuses(const char *text, size_t size, const char *message)
{
    struct sl_json json;
    struct sl_error e = {0};
    assert_int_equal(sl_json_parse(text, size, "c.json", SL_ERR_TOKENIZER, &json, &e), SL_ERR_TOKENIZER);
    assert_string_equal(e.text, message);
    assert_null(json.root);
}

static void refuses_what_is_not_json(void **state)
{
    (void)state;
    refuses("", 0, "c.json: is empty");
    refuses("{\"a\": x}", 8, "c.json: malformed JSON at byte 6");
    refuses("{} {}", 5, "c.json: malformed JSON at byte 3");
    refuses("{}\0 ", 4, "c.json: malformed JSON at byte 2");
    char deep[3000];
    memset(deep, '[', sizeof deep);
    refuses(deep, sizeof deep, "c.json: nested deeper than 100");
    struct sl_json json = parsed("[\"[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[\\\"[["
                                 "[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[\"]\n\t ");
    sl_json_finish(&json);
}

static void reads_files_with_a_bound(void **state)
{
    (void)state;
    char path[] = "/tmp/test_json.XXXXXX";
    int descriptor = mkstemp(path);
    assert_true(descriptor >= 0);
    FILE *file = fdopen(descriptor, "wb");
    fprintf(file, "{\"text\":\"");
    for (int i = 0; i < 10000; i++) {
        fputc('a', file);
    }
    fprintf(file, "\"}");
    fclose(file);
    struct sl_json json;
    struct sl_error e = {0};
    const char *text = NULL;
    assert_int_equal(sl_json_open(path, 10011, SL_ERR_MODEL_MISSING, SL_ERR_TOKENIZER, &json, &e), SL_OK);
    assert_int_equal(sl_json_string(&json, "text", &text, &e), SL_OK);
    assert_int_equal(strlen(text), 10000);
    sl_json_finish(&json);
    assert_int_equal(sl_json_open(path, 10010, SL_ERR_MODEL_MISSING, SL_ERR_TOKENIZER, &json, &e), SL_ERR_TOKENIZER);
    unlink(path);
    assert_int_equal(sl_json_open(path, 10010, SL_ERR_MODEL_MISSING, SL_ERR_TOKENIZER, &json, &e),
                     SL_ERR_MODEL_MISSING);
    assert_non_null(strstr(e.text, path));
    assert_int_equal(sl_json_open("/", 10010, SL_ERR_MODEL_MISSING, SL_ERR_TOKENIZER, &json, &e), SL_ERR_MODEL_MISSING);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(finds_values_by_path),
        cmocka_unit_test(names_the_path_of_what_is_wrong),
        cmocka_unit_test(refuses_what_is_not_json),
        cmocka_unit_test(reads_files_with_a_bound),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
