// SPDX-License-Identifier: Apache-2.0
// Every 8-bit and 16-bit value, and every rounding point between two neighbours, against values computed by ldexp.
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "core/half.h"

struct format {
    int mantissa_bits, exponent_bits;
    float (*widen)(uint16_t half);
    uint16_t (*narrow)(float value);
};

static const struct format f16 = {10, 5, sl_f16_to_f32, sl_f16_from_f32};
static const struct format bf16 = {7, 8, sl_bf16_to_f32, sl_bf16_from_f32};

// What the bits of a finite, positive value mean, by the definition of the format.
static double meaning(const struct format *format, int bits)
{
    int bias = (1 << (format->exponent_bits - 1)) - 1;
    int exponent = bits >> format->mantissa_bits;
    int mantissa = bits & ((1 << format->mantissa_bits) - 1);
    if (exponent > 0) {
        mantissa += 1 << format->mantissa_bits;
    } else {
        exponent = 1;
    }
    return ldexp(mantissa, exponent - bias - format->mantissa_bits);
}

static int infinity_of(const struct format *format)
{
    return ((1 << format->exponent_bits) - 1) << format->mantissa_bits;
}

static void widens_every_value(void **state)
{
    const struct format *format = *state;
    for (int bits = 0; bits < infinity_of(format); bits++) {
        assert_true((double)format->widen((uint16_t)bits) == meaning(format, bits));
        assert_true((double)format->widen((uint16_t)(bits | 0x8000)) == -meaning(format, bits));
    }
    assert_true(format->widen((uint16_t)infinity_of(format)) == INFINITY);
    for (int bits = infinity_of(format) + 1; bits < 0x8000; bits++) {
        assert_true(isnan(format->widen((uint16_t)bits)));
    }
}

static void widens_every_byte(void **state)
{
    (void)state;
    const struct format f8 = {.mantissa_bits = 3, .exponent_bits = 4};
    for (int bits = 0; bits < 0x7f; bits++) {
        assert_true((double)sl_f8e4m3_to_f32((uint8_t)bits) == meaning(&f8, bits));
        assert_true((double)sl_f8e4m3_to_f32((uint8_t)(bits | 0x80)) == -meaning(&f8, bits));
    }
    assert_true(sl_f8e4m3_to_f32(0x7e) == 448);
    assert_true(signbit(sl_f8e4m3_to_f32(0x80)));
    assert_true(isnan(sl_f8e4m3_to_f32(0x7f)) && isnan(sl_f8e4m3_to_f32(0xff)));
}

static void rounds_to_nearest_even(void **state)
{
    const struct format *format = *state;
    for (int low = 0; low < infinity_of(format); low++) {
        float value = (float)meaning(format, low);
        float middle = (float)((meaning(format, low) + meaning(format, low + 1)) / 2);
        int even = low % 2 == 0 ? low : low + 1;
        assert_int_equal(format->narrow(value), low);
        assert_int_equal(format->narrow(nextafterf(middle, 0)), low);
        assert_int_equal(format->narrow(middle), even);
        assert_int_equal(format->narrow(-middle), even | 0x8000);
        assert_int_equal(format->narrow(nextafterf(middle, INFINITY)), low + 1);
    }
    assert_int_equal(format->narrow(INFINITY), infinity_of(format));
    assert_int_equal(format->narrow(-INFINITY), infinity_of(format) | 0x8000);
    assert_int_equal(format->narrow(-0.0f), 0x8000);
}

static void keeps_nan(void **state)
{
    const struct format *format = *state;
    const uint32_t patterns[] = {0x7f800001, 0x7fffffff, 0xff800001, 0xffffffff, 0x7fc00000};
    for (size_t i = 0; i < sizeof patterns / sizeof *patterns; i++) {
        assert_true(isnan(format->widen(format->narrow(sl_f32_from_bits(patterns[i])))));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_prestate(widens_every_value, (void *)&f16),
        cmocka_unit_test_prestate(widens_every_value, (void *)&bf16),
        cmocka_unit_test(widens_every_byte),
        cmocka_unit_test_prestate(rounds_to_nearest_even, (void *)&f16),
        cmocka_unit_test_prestate(rounds_to_nearest_even, (void *)&bf16),
        cmocka_unit_test_prestate(keeps_nan, (void *)&f16),
        cmocka_unit_test_prestate(keeps_nan, (void *)&bf16),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
