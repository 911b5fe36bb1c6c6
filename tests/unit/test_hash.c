// SPDX-License-Identifier: Apache-2.0
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "core/hash.h"

// Of the first `size` bytes of i * 37 + 11; from the Python package xxhash 3 (a binding of the reference library).
static const struct {
    size_t size;
    uint64_t seed, hash;
} references[] = {
    {0, 0, 0xef46db3751d8e999},   {0, 0x9e3779b97f4a7c15, 0xc4349fc93c010000},
    {1, 0, 0xf592c0c7639c4cb6},   {1, 0x9e3779b97f4a7c15, 0x3f7ebbd0a20f83cc},
    {3, 0, 0x22c08528601d4f27},   {3, 0x9e3779b97f4a7c15, 0xb829b5fbba7f12fb},
    {4, 0, 0xfb1e5cf2f1ae4d95},   {4, 0x9e3779b97f4a7c15, 0x4d32e4c842c6371e},
    {7, 0, 0x5613ac510496c04e},   {7, 0x9e3779b97f4a7c15, 0x566314bf1bda8aab},
    {8, 0, 0x57cb2b7521f3e21a},   {8, 0x9e3779b97f4a7c15, 0x696e1fe0e0df37f4},
    {12, 0, 0x2f53b00266039e64},  {12, 0x9e3779b97f4a7c15, 0x2d0207f88149b069},
    {31, 0, 0xe4a0e629e519a4ae},  {31, 0x9e3779b97f4a7c15, 0xa348b910bc65b7bd},
    {32, 0, 0xcc6b8aaada790b2d},  {32, 0x9e3779b97f4a7c15, 0x41c2eada450d18f0},
    {33, 0, 0x35ec49850475a832},  {33, 0x9e3779b97f4a7c15, 0xb6f8c0b76af8f9da},
    {63, 0, 0xbf9f0ba3cf95b28a},  {63, 0x9e3779b97f4a7c15, 0xdcfe31720304f52b},
    {64, 0, 0x155ccce4bf32befc},  {64, 0x9e3779b97f4a7c15, 0x4779d2a26a5085a9},
    {100, 0, 0x4826e367566ea023}, {100, 0x9e3779b97f4a7c15, 0xe38491a6daeb0e8a},
    {199, 0, 0xc2f64bc669817a94}, {199, 0x9e3779b97f4a7c15, 0x8874a4fdd442c5e5},
    {200, 0, 0x2f074b6dd9094e34}, {200, 0x9e3779b97f4a7c15, 0x6ed28da9cdbd792d},
};

static void equals_the_reference(void **state)
{
    (void)state;
    uint8_t data[200];
    for (int i = 0; i < 200; i++) {
        data[i] = (uint8_t)(i * 37 + 11);
    }
    for (size_t i = 0; i < sizeof references / sizeof *references; i++) {
        assert_true(sl_hash64(data, references[i].size, references[i].seed) == references[i].hash);
    }
}

struct file {
    char path[32];
    int descriptor;
};

static int make_file(void **state)
{
    struct file *file = calloc(1, sizeof *file);
    strcpy(file->path, "/tmp/test_hash.XXXXXX");
    file->descriptor = mkstemp(file->path);
    *state = file;
    return file->descriptor < 0;
}

static int remove_file(void **state)
{
    struct file *file = *state;
    close(file->descriptor);
    unlink(file->path);
    free(file);
    return 0;
}

static struct sl_fingerprint of(const struct file *file, int64_t size_bytes)
{
    struct sl_fingerprint print = {0};
    struct sl_error e = {0};
    if (sl_fingerprint_file(file->path, size_bytes, &print, &e) != SL_OK) {
        fail_msg("%s", e.text);
    }
    return print;
}

static void small_files_are_read_whole(void **state)
{
    struct file *file = *state;
    assert_int_equal(pwrite(file->descriptor, "abc", 3, 0), 3);
    struct sl_fingerprint print = of(file, -1);
    assert_int_equal(print.size_bytes, 3);
    assert_true(print.hash == sl_hash64("abc", 3, 3));
    assert_int_equal(pwrite(file->descriptor, "X", 1, 300000), 1);
    struct sl_fingerprint longer = of(file, -1);
    assert_int_equal(pwrite(file->descriptor, "X", 1, 123456), 1);
    assert_true(of(file, -1).hash != longer.hash);
    assert_int_equal(longer.size_bytes, 300001);
    assert_true(of(file, 3).hash == print.hash); // grown, and recognised
}

static void large_files_are_sampled(void **state)
{
    struct file *file = *state;
    int64_t size = 100ll << 30; // a hole: no disk is used
    assert_int_equal(ftruncate(file->descriptor, size), 0);
    struct sl_fingerprint print = of(file, -1);
    assert_int_equal(print.size_bytes, size);
    const int64_t seen[] = {0, 65535, size - 1, size - 65536, (size - 65536) / 15};
    for (size_t i = 0; i < sizeof seen / sizeof *seen; i++) {
        assert_int_equal(pwrite(file->descriptor, "X", 1, seen[i]), 1);
        assert_true(of(file, -1).hash != print.hash);
        assert_int_equal(pwrite(file->descriptor, "", 1, seen[i]), 1);
        assert_true(of(file, -1).hash == print.hash);
    }
    assert_true(of(file, size - 1).hash != print.hash);
}

static void says_what_cannot_be_read(void **state)
{
    struct file *file = *state;
    struct sl_fingerprint print;
    struct sl_error e = {0};
    assert_int_equal(sl_fingerprint_file(file->path, -1, &print, &e), SL_ERR_EMPTY);
    assert_int_equal(pwrite(file->descriptor, "abc", 3, 0), 3);
    assert_int_equal(sl_fingerprint_file(file->path, 4, &print, &e), SL_ERR_TRUNCATED);
    assert_int_equal(sl_fingerprint_file("/", -1, &print, &e), SL_ERR_OPEN);
    assert_int_equal(sl_fingerprint_file("/nothing/here", -1, &print, &e), SL_ERR_OPEN);
    assert_non_null(strstr(e.text, "/nothing/here"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(equals_the_reference),
        cmocka_unit_test_setup_teardown(small_files_are_read_whole, make_file, remove_file),
        cmocka_unit_test_setup_teardown(large_files_are_sampled, make_file, remove_file),
        cmocka_unit_test_setup_teardown(says_what_cannot_be_read, make_file, remove_file),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
