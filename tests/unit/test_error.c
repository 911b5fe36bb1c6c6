// SPDX-License-Identifier: Apache-2.0
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "core/error.h"

static void fills_status_and_text(void **state)
{
    (void)state;
    struct sl_error e = {0};
    assert_int_equal(sl_fail(&e, SL_ERR_OPEN, "cannot open %s", "a.mp4"), SL_ERR_OPEN);
    assert_int_equal(e.status, SL_ERR_OPEN);
    assert_string_equal(e.text, "cannot open a.mp4");
    assert_int_equal(sl_fail_at(&e, "source %d", 7), SL_ERR_OPEN);
    assert_string_equal(e.text, "source 7: cannot open a.mp4");
}

static void accepts_no_error_to_fill(void **state)
{
    (void)state;
    assert_int_equal(sl_fail(NULL, SL_ERR_IO, "x"), SL_ERR_IO);
    assert_int_equal(sl_fail_at(NULL, "x"), SL_ERR_INTERNAL);
}

static void keeps_one_line(void **state)
{
    (void)state;
    struct sl_error e = {0};
    sl_fail(&e, SL_ERR_OPEN, "%s", "two\nlines\x1b[31m\x7f");
    assert_null(strpbrk(e.text, "\n\x1b"));
    assert_memory_equal(e.text, "two?lines?", 10);
}

static void bounds_the_text(void **state)
{
    (void)state;
    struct sl_error e = {0};
    char longer[2000];
    memset(longer, 'a', sizeof longer);
    longer[sizeof longer - 1] = 0;
    sl_fail(&e, SL_ERR_OPEN, "%s", longer);
    assert_true(strlen(e.text) < sizeof e.text);
    sl_fail_at(&e, "%s", longer);
    assert_true(strlen(e.text) < sizeof e.text);
    assert_int_equal(e.status, SL_ERR_OPEN);
}

static void gives_each_cause_its_exit_code(void **state)
{
    (void)state;
    assert_int_equal(sl_exit_code(SL_OK), 0);
    assert_int_equal(sl_exit_code(SL_ERR_PARTIAL), 1);
    assert_int_equal(sl_exit_code(SL_ERR_DISK_FULL), 15);
    assert_int_equal(sl_exit_code(SL_ERR_INTERRUPTED), 130);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(fills_status_and_text),
        cmocka_unit_test(accepts_no_error_to_fill),
        cmocka_unit_test(keeps_one_line),
        cmocka_unit_test(bounds_the_text),
        cmocka_unit_test(gives_each_cause_its_exit_code),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
