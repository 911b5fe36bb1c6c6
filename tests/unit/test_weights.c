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

#include "core/half.h"
#include "core/weights.h"

static char folder[64];

static int make_folder(void **state)
{
    (void)state;
    strcpy(folder, "test_weights.XXXXXX");
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
    const char *names[] = {"model.safetensors", "model.safetensors.index.json", "a.safetensors", "b.safetensors"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        unlink(in_folder(names[i]));
    }
    return rmdir(folder);
}

static void write_file(const char *name, const void *bytes, size_t size)
{
    FILE *file = fopen(in_folder(name), "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(bytes, 1, size, file), size);
    assert_int_equal(fclose(file), 0);
}

// A safetensors file of this header and `data_size` bytes 0, 1, 2, ...
static void write_tensors_as(const char *name, uint64_t header_length, const char *header, size_t data_size)
{
    size_t size = 8 + strlen(header) + data_size;
    uint8_t *bytes = malloc(size);
    assert_non_null(bytes);
    memcpy(bytes, &header_length, 8);
    memcpy(bytes + 8, header, strlen(header));
    for (size_t i = 0; i < data_size; i++) {
        bytes[8 + strlen(header) + i] = (uint8_t)i;
    }
    write_file(name, bytes, size);
    free(bytes);
}

static void write_tensors(const char *name, const char *header, size_t data_size)
{
    write_tensors_as(name, strlen(header), header, data_size);
}

static void assert_refused(enum sl_status status, const char *words)
{
    struct sl_weights *weights = NULL;
    struct sl_error error = {0};
    assert_int_equal(sl_weights_open(folder, &weights, &error), status);
    assert_null(weights);
    assert_int_equal(error.status, status);
    if (strstr(error.text, words) == NULL) {
        fail_msg("'%s' lacks '%s'", error.text, words);
    }
}

static struct sl_weights *open_folder(void)
{
    struct sl_weights *weights = NULL;
    struct sl_error error = {0};
    if (sl_weights_open(folder, &weights, &error) < 0) {
        fail_msg("%s", error.text);
    }
    return weights;
}

// Padded to a multiple of 8, as writers do.
#define TWO                                                                                                            \
    "{\"__metadata__\":{\"format\":\"pt\"},\"b\":{\"dtype\":\"BF16\",\"shape\":[2,3],\"data_offsets\":[8,20]},"        \
    "\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}}                "

static void reads_one_file(void **state)
{
    (void)state;
    write_tensors("model.safetensors", TWO, 20);
    struct sl_weights *weights = open_folder();
    struct sl_tensor t;
    assert_int_equal(sl_weights_find(weights, "c", &t), 0);
    assert_int_equal(sl_weights_find(weights, "b", &t), 1);
    assert_int_equal(t.dtype, SL_BF16);
    assert_int_equal(t.rank, 2);
    assert_int_equal(t.shape[0], 2);
    assert_int_equal(t.shape[1], 3);
    assert_int_equal(t.stride[0], 3);
    assert_int_equal(((uint8_t *)t.data)[0], 8);
    assert_int_equal(((uint8_t *)t.data)[11], 19);
    assert_int_equal(sl_weights_bytes(weights), (int64_t)(8 + strlen(TWO) + 20));
    sl_weights_close(weights);
}

static void requires_shape_and_type(void **state)
{
    (void)state;
    write_tensors("model.safetensors",
                  "{\"a\":{\"dtype\":\"I64\",\"shape\":[1],\"data_offsets\":[0,8]},"
                  "\"odd\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[8,9]},"
                  "\"new\":{\"dtype\":\"F3\",\"shape\":[9],\"data_offsets\":[9,11]},"
                  "\"five\":{\"dtype\":\"BF16\",\"shape\":[2,1,2,1,3],\"data_offsets\":[11,35]}}",
                  35);
    struct sl_weights *weights = open_folder();
    struct sl_tensor t;
    struct sl_error error = {0};
    assert_int_equal(sl_weights_require(weights, "b", 1, (int64_t[]){1}, &t, &error), SL_ERR_MODEL_SHAPE);
    assert_non_null(strstr(error.text, "model.safetensors: tensor b is missing"));
    assert_int_equal(sl_weights_require(weights, "a", 2, (int64_t[]){1, 7}, &t, &error), SL_ERR_MODEL_SHAPE);
    assert_non_null(strstr(error.text, "[1]"));
    assert_non_null(strstr(error.text, "[1, 7]"));
    assert_int_equal(sl_weights_require(weights, "a", 1, (int64_t[]){1}, &t, &error), SL_ERR_MODEL_SHAPE);
    assert_non_null(strstr(error.text, "I64"));
    assert_int_equal(sl_weights_require(weights, "new", 1, (int64_t[]){9}, &t, &error), SL_ERR_MODEL_SHAPE);
    assert_int_equal(sl_weights_find(weights, "new", &t), 1);
    assert_null(t.data);
    assert_int_equal(sl_weights_find(weights, "five", &t), 1);
    assert_int_equal(t.rank, 2);
    assert_int_equal(t.shape[1], 6);
    // Which of the two holds depends on the header's length.
    int rc = sl_weights_require(weights, "five", 5, (int64_t[]){2, 1, 2, 1, 3}, &t, &error);
    assert_int_equal(rc, (uintptr_t)t.data % 2 ? SL_ERR_MODEL_FORMAT : SL_OK);
    sl_weights_close(weights);
}

static void refuses_malformed_files(void **state)
{
    (void)state;
    assert_refused(SL_ERR_MODEL_MISSING, folder);
    write_file("model.safetensors", "", 0);
    assert_refused(SL_ERR_MODEL_FORMAT, "0 bytes");
    write_tensors_as("model.safetensors", 100000, TWO, 20);
    assert_refused(SL_ERR_MODEL_FORMAT, "longer than the file");
    write_tensors_as("model.safetensors", UINT64_MAX, TWO, 20);
    assert_refused(SL_ERR_MODEL_FORMAT, "longer than the format allows");
    write_tensors_as("model.safetensors", strlen(TWO) - 30, TWO, 20);
    assert_refused(SL_ERR_MODEL_FORMAT, "JSON");
    write_tensors("model.safetensors", "[1]", 0);
    assert_refused(SL_ERR_MODEL_FORMAT, "not a JSON object");
    write_tensors("model.safetensors", TWO, 19);
    assert_refused(SL_ERR_MODEL_FORMAT, "tensor b: data at bytes");
    write_tensors("model.safetensors", TWO, 21);
    assert_refused(SL_ERR_MODEL_FORMAT, "belong to no tensor");
    write_tensors("model.safetensors",
                  "{\"a\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[0,4]},"
                  "\"b\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[3,7]}}",
                  7);
    assert_refused(SL_ERR_MODEL_FORMAT, "overlapping");
    write_tensors("model.safetensors", "{\"a\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[1,5]}}", 5);
    assert_refused(SL_ERR_MODEL_FORMAT, "hole");
    write_tensors("model.safetensors",
                  "{\"a\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]},"
                  "\"a\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[1,2]}}",
                  2);
    assert_refused(SL_ERR_MODEL_FORMAT, "stored twice");
}

static void refuses_malformed_entries(void **state)
{
    (void)state;
    const char *entries[] = {
        "1",
        "{}",
        "{\"dtype\":\"F32\",\"shape\":[1]}",
        "{\"dtype\":4,\"shape\":[1],\"data_offsets\":[0,4]}",
        "{\"dtype\":\"F32\",\"shape\":1,\"data_offsets\":[0,4]}",
        "{\"dtype\":\"F32\",\"shape\":[-1],\"data_offsets\":[0,4]}",
        "{\"dtype\":\"F32\",\"shape\":[0.5],\"data_offsets\":[0,4]}",
        "{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,4]}",
        "{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[4,0]}",
        "{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4,8]}",
        "{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,-4]}",
        "{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,1e300]}",
        "{\"dtype\":\"F4\",\"shape\":[3],\"data_offsets\":[0,4]}",
        "{\"dtype\":\"F32\",\"shape\":[1,1,1,1,1,1,1,1,1],\"data_offsets\":[0,4]}",
        "{\"dtype\":\"F32\",\"shape\":[4294967296,4294967296],\"data_offsets\":[0,4]}",
        "{\"dtype\":\"F32\",\"shape\":[4611686018427387905],\"data_offsets\":[0,4]}",
        "{\"dtype\":\"F32\",\"shape\":[0,4294967296,4294967296],\"data_offsets\":[0,0]}",
    };
    for (size_t i = 0; i < sizeof entries / sizeof *entries; i++) {
        char header[256];
        snprintf(header, sizeof header, "{\"some.tensor\":%s}", entries[i]);
        write_tensors("model.safetensors", header, 4);
        assert_refused(SL_ERR_MODEL_FORMAT, "tensor some.tensor");
    }
}

static void write_index(const char *map)
{
    char text[512];
    snprintf(text, sizeof text, "{\"metadata\":{\"total_size\":8},\"weight_map\":{%s}}", map);
    write_file("model.safetensors.index.json", text, strlen(text));
}

static void reads_shards(void **state)
{
    (void)state;
    write_tensors("a.safetensors", "{\"x\":{\"dtype\":\"U8\",\"shape\":[3],\"data_offsets\":[0,3]}}", 3);
    write_index("\"x\":\"a.safetensors\",\"y\":\"b.safetensors\"");
    assert_refused(SL_ERR_MODEL_MISSING, "b.safetensors");
    write_tensors("b.safetensors", "{\"z\":{\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[0,2]}}", 2);
    assert_refused(SL_ERR_MODEL_SHAPE, "tensor y");
    write_tensors("b.safetensors", "{\"y\":{\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[0,2]}}", 2);
    struct sl_weights *weights = open_folder();
    struct sl_tensor t;
    assert_int_equal(sl_weights_find(weights, "x", &t), 1);
    assert_int_equal(sl_weights_find(weights, "y", &t), 1);
    assert_int_equal(t.shape[0], 2);
    uint64_t hash = sl_weights_hash(weights);
    sl_weights_close(weights);
    weights = open_folder();
    assert_true(hash == sl_weights_hash(weights));
    sl_weights_close(weights);
    write_tensors("b.safetensors", "{\"y\":{\"dtype\":\"I8\",\"shape\":[2],\"data_offsets\":[0,2]}}", 2);
    weights = open_folder();
    assert_true(hash != sl_weights_hash(weights));
    sl_weights_close(weights);
}

static void refuses_bad_indexes(void **state)
{
    (void)state;
    write_index("\"x\":\"../a.safetensors\"");
    assert_refused(SL_ERR_MODEL_FORMAT, "tensor x: its shard must be a plain file name");
    write_index("\"x\":\"..\"");
    assert_refused(SL_ERR_MODEL_FORMAT, "plain file name");
    write_index("\"x\":7");
    assert_refused(SL_ERR_MODEL_FORMAT, "plain file name");
    write_file("model.safetensors.index.json", "{}", 2);
    assert_refused(SL_ERR_MODEL_FORMAT, "weight_map");
    write_file("model.safetensors.index.json", "{", 1);
    assert_refused(SL_ERR_MODEL_FORMAT, "JSON");
}

static double value_at(const struct sl_tensor *t, int64_t i)
{
    if (t->dtype == SL_F32) {
        return ((float *)t->data)[i];
    }
    uint16_t half = ((uint16_t *)t->data)[i];
    return t->dtype == SL_BF16 ? sl_bf16_to_f32(half) : sl_f16_to_f32(half);
}

// A matrix of 2 x 3 blocks and its scales, with one part of the header replaced.
static struct sl_weights *open_f8(const char *old, const char *new)
{
    char header[512] = "{\"w\":{\"dtype\":\"F8_E4M3\",\"shape\":[130,257],\"data_offsets\":[24,33434]},"
                       "\"w_scale_inv\":{\"dtype\":\"F32\",\"shape\":[2,3],\"data_offsets\":[0,24]}}";
    char *at = strstr(header, old), rest[512];
    assert_non_null(at);
    strcpy(rest, at + strlen(old));
    sprintf(at, "%s%s", new, rest);
    for (size_t n = strlen(header); n % 8 != 0; n++) {
        strcat(header, " ");
    }
    write_tensors("model.safetensors", header, 33434);
    return open_folder();
}

static void hands_out_f8_with_its_scale(void **state)
{
    (void)state;
    const int64_t shape[] = {130, 257};
    struct sl_weights *weights = open_f8("w_scale_inv", "w_scale_inv");
    struct sl_tensor t;
    struct sl_error error = {0};
    assert_int_equal(sl_weights_require(weights, "w", 2, shape, &t, &error), SL_OK);
    assert_int_equal(t.dtype, SL_F8E4M3);
    assert_int_equal(((uint8_t *)t.data)[1], 25);
    assert_int_equal(t.scale->dtype, SL_F32);
    assert_int_equal(t.scale->shape[0] * 10 + t.scale->shape[1], 23);
    assert_int_equal(((uint8_t *)t.scale->data)[23], 23);
    sl_weights_close(weights);
    const struct {
        const char *old, *new, *words;
    } cases[] = {
        {"w_scale_inv", "w_scale", "tensor w is F8_E4M3, and its scale w_scale_inv is missing"},
        {"[2,3]", "[3,2]", "tensor w_scale_inv has shape [3, 2], config.json needs [2, 3]"},
        {"F32", "I32", "tensor w_scale_inv has type I32"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        weights = open_f8(cases[i].old, cases[i].new);
        assert_int_equal(sl_weights_require(weights, "w", 2, shape, &t, &error), SL_ERR_MODEL_SHAPE);
        if (!strstr(error.text, cases[i].words)) {
            fail_msg("'%s' lacks '%s'", error.text, cases[i].words);
        }
        sl_weights_close(weights);
    }
    // A vector has no blocks.
    weights = open_f8("[130,257]", "[33410]");
    assert_int_equal(sl_weights_require(weights, "w", 1, (int64_t[]){33410}, &t, &error), SL_ERR_MODEL_SHAPE);
    sl_weights_close(weights);
}

static void makes_random_weights(void **state)
{
    (void)state;
    const enum sl_dtype dtypes[] = {SL_F32, SL_BF16, SL_F16};
    for (int d = 0; d < 3; d++) {
        struct sl_weights *weights = NULL;
        struct sl_tensor t, again, norm, bias;
        assert_int_equal(sl_weights_random(dtypes[d], 7, &weights, NULL), SL_OK);
        assert_int_equal(sl_weights_find(weights, "w.weight", &t), 0);
        assert_int_equal(sl_weights_require(weights, "w.weight", 2, (int64_t[]){1500, 1000}, &t, NULL), SL_OK);
        assert_int_equal(sl_weights_require(weights, "norm1.weight", 1, (int64_t[]){5}, &norm, NULL), SL_OK);
        assert_int_equal(sl_weights_require(weights, "a.bias", 1, (int64_t[]){5}, &bias, NULL), SL_OK);
        assert_int_equal(sl_weights_require(weights, "w.weight", 2, (int64_t[]){1500, 1000}, &again, NULL), SL_OK);
        assert_ptr_equal(t.data, again.data);
        assert_int_equal(sl_weights_require(weights, "w.weight", 1, (int64_t[]){5}, &again, NULL), SL_ERR_MODEL_SHAPE);
        double sum = 0, squares = 0;
        for (int64_t i = 0; i < 1500000; i++) {
            double value = value_at(&t, i);
            sum += value;
            squares += value * value;
        }
        assert_true(fabs(sum / 1.5e6) < 1e-4);
        assert_true(fabs(sqrt(squares / 1.5e6) - 0.019) < 5e-4);
        assert_true(memcmp(t.data, (char *)t.data + 1000 * sl_dtype_bytes(dtypes[d]), 40) != 0);
        assert_true(value_at(&norm, 4) == 1);
        assert_true(value_at(&bias, 4) == 0);
        sl_weights_close(weights);
    }
}

// More than the memory that large models share: the second tensor begins in it and goes on at its beginning.
static void random_weights_share_memory(void **state)
{
    (void)state;
    struct sl_weights *weights = NULL;
    struct sl_tensor t[2];
    const int64_t rows = 400, columns = 1000003;
    assert_int_equal(sl_weights_random(SL_BF16, 7, &weights, NULL), SL_OK);
    for (int k = 0; k < 2; k++) {
        const char *name = k ? "b.weight" : "a.weight";
        assert_int_equal(sl_weights_require(weights, name, 2, (int64_t[]){rows, columns}, &t[k], NULL), SL_OK);
        for (int64_t i = 0; i < rows * columns; i += 2047) {
            double size = fabs(value_at(&t[k], i));
            assert_true(size >= 0.0078125 && size < 0.03125);
        }
        assert_true(memcmp(t[k].data, (uint16_t *)t[k].data + columns, 40) != 0); // rows differ
    }
    assert_true(memcmp(t[0].data, t[1].data, 40) != 0);
    int64_t before_b = (rows * columns * 2 + 4095) / 4096 * 2048;
    assert_memory_equal(t[0].data, (uint16_t *)t[1].data + ((1 << 29) - before_b), 4096);
    assert_int_equal(sl_weights_bytes(weights), 2 * rows * columns * 2);
    sl_weights_close(weights);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(reads_one_file, make_folder, remove_folder),
        cmocka_unit_test_setup_teardown(requires_shape_and_type, make_folder, remove_folder),
        cmocka_unit_test_setup_teardown(refuses_malformed_files, make_folder, remove_folder),
        cmocka_unit_test_setup_teardown(refuses_malformed_entries, make_folder, remove_folder),
        cmocka_unit_test_setup_teardown(reads_shards, make_folder, remove_folder),
        cmocka_unit_test_setup_teardown(refuses_bad_indexes, make_folder, remove_folder),
        cmocka_unit_test_setup_teardown(hands_out_f8_with_its_scale, make_folder, remove_folder),
        cmocka_unit_test(makes_random_weights),
        cmocka_unit_test(random_weights_share_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
