// SPDX-License-Identifier: Apache-2.0
// Which packets begin with an IDR picture: units written by hand, by length and by start code, whole and cut.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "decode/h264.h"

static uint8_t avcc[] = {1, 100, 0, 40, 0xff}; // lengths of four bytes
static uint8_t two[] = {1, 100, 0, 40, 0xfd};  // of two

static int is_idr(uint8_t *extradata, int extradata_size, uint8_t *data, int size)
{
    AVCodecParameters codec = {.extradata = extradata, .extradata_size = extradata_size};
    AVPacket packet = {.data = data, .size = size};
    return sl_h264_is_idr(&codec, &packet);
}

static void told_by_length(void **state)
{
    (void)state;
    uint8_t idr[] = {0, 0, 0, 2, 0x09, 0x10, 0, 0, 0, 3, 0x06, 1, 2, 0, 0, 0, 2, 0x65, 0x88};
    uint8_t other[] = {0, 0, 0, 2, 0x09, 0x10, 0, 0, 0, 2, 0x41, 0x88, 0, 0, 0, 2, 0x65, 0x88};
    uint8_t narrow[] = {0, 2, 0x67, 1, 0, 2, 0x65, 0x88};
    assert_true(is_idr(avcc, sizeof avcc, idr, sizeof idr));
    assert_false(is_idr(avcc, sizeof avcc, other, sizeof other)); // the first slice counts
    assert_true(is_idr(two, sizeof two, narrow, sizeof narrow));
    for (int size = 0; size <= 17; size++) { // cut before the slice's header
        assert_false(is_idr(avcc, sizeof avcc, idr, size));
    }
    uint8_t hostile[] = {0xff, 0xff, 0xff, 0xff, 0x06, 0, 0, 0, 2, 0x65, 0x88};
    assert_false(is_idr(avcc, sizeof avcc, hostile, sizeof hostile));
    uint8_t empty[] = {0, 0, 0, 0, 0, 0, 0, 2, 0x65, 0x88};
    assert_true(is_idr(avcc, sizeof avcc, empty, sizeof empty));
}

static void told_by_start_code(void **state)
{
    (void)state;
    uint8_t idr[] = {0, 0, 0, 1, 0x67, 1, 2, 0, 0, 1, 0x68, 3, 0, 0, 1, 0x25, 4};
    uint8_t recovery[] = {0, 0, 0, 1, 0x67, 1, 2, 0, 0, 1, 0x06, 3, 0, 0, 1, 0x61, 4};
    assert_true(is_idr(NULL, 0, idr, sizeof idr));
    assert_false(is_idr(NULL, 0, recovery, sizeof recovery));
    assert_false(is_idr(NULL, 0, idr, 15));
    assert_false(is_idr(NULL, 0, NULL, 0));
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(told_by_length), cmocka_unit_test(told_by_start_code)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
