// SPDX-License-Identifier: Apache-2.0
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#include "core/time.h"

#define COUNT(array) (sizeof(array) / sizeof *(array))

static void reads_spans(void **state)
{
    (void)state;
    const struct {
        const char *text;
        int64_t us;
    } cases[] = {
        {"0", 0},
        {"90", 90000000},
        {"1:30", 90000000},
        {"01:02:03.250", 3723250000},
        {"2500ms", 2500000},
        {"300us", 300},
        {"-5", -5000000},
        {"-1:30.5", -90500000},
        {"2h30m", 9000000000},
        {"1h2m3.5s", 3723500000},
        {"1.5h", 5400000000},
        {"0.1", 100000},
        {"0.000001", 1},
        {"0.0000019", 1}, // finer than a microsecond: cut
        {"0.3", 300000},
        {"1.5ms", 1500},
        {"90:00", 5400000000}, // minutes may pass 59 when there are no hours
        {"100:00:00", 360000000000},
        {"12s", 12000000},
        {"1h5us", 3600000005},
        {"0.0000000000000000000000000001", 0},
        {"9223372036854.775807", INT64_MAX},
        {"2562047788h", 9223372036800000000},
    };
    for (size_t i = 0; i < COUNT(cases); i++) {
        int64_t us = 0;
        if (sl_time_parse_span(cases[i].text, &us, NULL) != SL_OK || us != cases[i].us) {
            fail_msg("'%s' gave %lld", cases[i].text, (long long)us);
        }
    }
}

static void refuses_what_is_no_span(void **state)
{
    (void)state;
    const char *cases[] = {"",
                           "-",
                           "abc",
                           "1:",
                           ":30",
                           "1:60",
                           "1:60:00",
                           "1:2:3:4",
                           "1.5:30",
                           "1h30",
                           "30m2h",
                           "1h1h",
                           "1.5h30m",
                           "5x",
                           "1 s",
                           " 1",
                           "1 ",
                           "+5",
                           "--5",
                           "5.",
                           ".5",
                           "1:-30",
                           "1e3",
                           "0x10",
                           "1:30s",
                           "5ms2",
                           "9223372036854.775808",
                           "99999999999999999999",
                           "2562047789h",
                           "9999999999999999:00:00"};
    for (size_t i = 0; i < COUNT(cases); i++) {
        int64_t us = 0;
        struct sl_error e = {0};
        if (sl_time_parse_span(cases[i], &us, &e) != SL_ERR_USAGE) {
            fail_msg("'%s' was taken for %lld", cases[i], (long long)us);
        }
    }
}

static void reads_absolute_times(void **state)
{
    (void)state;
    struct sl_zone *zone = NULL;
    assert_int_equal(sl_zone_open("+02:00", &zone, NULL), SL_OK);
    const struct {
        const char *text;
        const struct sl_zone *zone;
        int64_t us;
    } cases[] = {
        // seconds by GNU date -u -d TEXT +%s
        {"1970-01-01T00:00:00Z", NULL, 0},
        {"2026-03-01T12:00:00+01:00", NULL, 1772362800000000},
        {"2026-03-01t12:00:00.25z", NULL, 1772366400250000},
        {"2026-03-01 12:00:00-03:30", NULL, 1772379000000000},
        {"1969-12-31T23:59:59.999999Z", NULL, -1},
        {"2024-02-29T00:00:00Z", NULL, 1709164800000000},
        {"2016-12-31T23:59:60Z", NULL, 1483228800000000},
        {"0000-01-01T00:00:00Z", NULL, -62167219200000000},
        {"9999-12-31T23:59:59Z", NULL, 253402300799000000},
        {"2026-03-01T12:00:00", zone, 1772359200000000},
        {"2026-03-01 12:00", zone, 1772359200000000},
        {"2026-03-01", zone, 1772316000000000},
        {"1969-12-31T12:00:00.25", zone, -50399750000},
        {"2026-03-01T12:00:00Z", zone, 1772366400000000},
    };
    for (size_t i = 0; i < COUNT(cases); i++) {
        int64_t us = 0;
        if (sl_time_parse_absolute(cases[i].text, cases[i].zone, &us, NULL) != SL_OK || us != cases[i].us) {
            fail_msg("'%s' gave %lld", cases[i].text, (long long)us);
        }
    }
    const char *wrong[] = {"",
                           "2026",
                           "2026-13-01T00:00:00Z",
                           "2026-02-29T00:00:00Z",
                           "2026-04-31T00:00:00Z",
                           "2026-01-01T24:00:00Z",
                           "2026-01-01T00:00:00.Z",
                           "2026-01-01T00:00:00+1:00",
                           "2026-01-01T00:00:00Zx",
                           "2026-1-1T00:00:00Z",
                           "2026-01-01x",
                           "12:00"};
    for (size_t i = 0; i < COUNT(wrong); i++) {
        int64_t us = 0;
        assert_int_equal(sl_time_parse_absolute(wrong[i], NULL, &us, NULL), SL_ERR_USAGE);
        assert_int_equal(sl_time_parse_absolute(wrong[i], zone, &us, NULL), SL_ERR_USAGE);
    }
    int64_t us = 0;
    assert_int_equal(sl_time_parse_absolute("2026-03-01T12:00:00", NULL, &us, NULL), SL_ERR_USAGE); // whose clock?
    assert_int_equal(sl_time_parse_absolute("2026-03-01", NULL, &us, NULL), SL_ERR_USAGE);
    sl_zone_close(zone);
}

static void writes_media_times(void **state)
{
    (void)state;
    const struct {
        int64_t us;
        const char *clock, *minutes;
    } cases[] = {
        {0, "00:00:00.000", "00:00.00"},
        {3723250000, "01:02:03.250", "62:03.25"},
        {-90500000, "-00:01:30.500", "-01:30.50"},
        {359999999999, "99:59:59.999", "5999:59.99"},
        {360000000000, "100:00:00.000", "6000:00.00"},
        {-999, "00:00:00.000", "00:00.00"},
        {INT64_MIN, "-2562047788:00:54.775", "-153722867280:54.77"},
    };
    char text[SL_TIME_TEXT];
    for (size_t i = 0; i < COUNT(cases); i++) {
        sl_time_format_clock(cases[i].us, text);
        assert_string_equal(text, cases[i].clock);
        sl_time_format_minutes(cases[i].us, text);
        assert_string_equal(text, cases[i].minutes);
    }
}

static void writes_absolute_times(void **state)
{
    (void)state;
    char text[SL_TIME_TEXT];
    struct sl_zone *zone = NULL;
    assert_int_equal(sl_zone_open("-03:30", &zone, NULL), SL_OK);
    sl_time_format_absolute(1772366400250999, NULL, text);
    assert_string_equal(text, "2026-03-01T12:00:00.250Z");
    sl_time_format_absolute(1772366400250999, zone, text);
    assert_string_equal(text, "2026-03-01T08:30:00.250-03:30");
    sl_time_format_absolute(-1, NULL, text);
    assert_string_equal(text, "1969-12-31T23:59:59.999Z");
    sl_zone_close(zone);
}

// Every day of 1600 years against the C library.
static void counts_days(void **state)
{
    (void)state;
    for (int64_t days = -250000; days < 350000; days++) {
        time_t unix_s = (time_t)(days * 86400);
        struct tm tm;
        gmtime_r(&unix_s, &tm);
        int64_t year;
        int month, day;
        sl_time_date(days, &year, &month, &day);
        assert_true(year == tm.tm_year + 1900 && month == tm.tm_mon + 1 && day == tm.tm_mday);
        assert_true(sl_time_days(year, month, day) == days);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reads_spans),           cmocka_unit_test(refuses_what_is_no_span),
        cmocka_unit_test(reads_absolute_times),  cmocka_unit_test(writes_media_times),
        cmocka_unit_test(writes_absolute_times), cmocka_unit_test(counts_days),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
