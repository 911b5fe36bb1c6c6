// SPDX-License-Identifier: Apache-2.0
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "core/zone.h"

struct reference {
    const char *zone;
    int64_t from, to;
};

#include "zone_reference.h"

static struct sl_zone *opened(const char *name)
{
    struct sl_zone *zone = NULL;
    struct sl_error e = {0};
    if (sl_zone_open(name, &zone, &e) != SL_OK) {
        fail_msg("%s", e.text);
    }
    return zone;
}

static void offsets_equal_the_reference(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof offsets / sizeof *offsets; i++) {
        struct sl_zone *zone = opened(offsets[i].zone);
        if (sl_zone_offset(zone, offsets[i].from) != offsets[i].to) {
            fail_msg("%s at %lld", offsets[i].zone, (long long)offsets[i].from);
        }
        sl_zone_close(zone);
    }
}

static void local_times_equal_the_reference(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof locals / sizeof *locals; i++) {
        struct sl_zone *zone = opened(locals[i].zone);
        if (sl_zone_to_unix(zone, locals[i].from) != locals[i].to) {
            fail_msg("%s at local %lld", locals[i].zone, (long long)locals[i].from);
        }
        sl_zone_close(zone);
    }
}

static int offset_in(const char *name, int64_t unix_s)
{
    struct sl_zone *zone = opened(name);
    int offset_s = sl_zone_offset(zone, unix_s);
    sl_zone_close(zone);
    return offset_s;
}

static void needs_no_file_for_fixed_offsets(void **state)
{
    (void)state;
    assert_int_equal(sl_zone_offset(NULL, 1700000000), 0);
    assert_int_equal(sl_zone_to_unix(NULL, 1700000000), 1700000000);
    assert_int_equal(offset_in("UTC", 1700000000), 0);
    assert_int_equal(offset_in("+05:30", 1700000000), 19800);
    assert_int_equal(offset_in("-03", 1700000000), -10800);
}

static void reads_posix_rules(void **state)
{
    (void)state;
    const char *berlin = "CET-1CEST,M3.5.0,M10.5.0/3";
    for (size_t i = 0; i < sizeof offsets / sizeof *offsets; i++) {
        if (strcmp(offsets[i].zone, "Europe/Berlin") == 0 && offsets[i].from > 1000000000) {
            assert_int_equal(offset_in(berlin, offsets[i].from), offsets[i].to);
        }
    }
    const int64_t march_1_2023 = 1677628800, march_1_2024 = 1709251200;             // noughth second, UTC
    const char *by_julian = "<S>0<D>,J60/0,J300/0", *by_day = "<S>0<D>,59/0,300/0"; // day 59 is Feb 29 in leap years
    assert_int_equal(offset_in(by_julian, march_1_2023 - 1), 0);
    assert_int_equal(offset_in(by_julian, march_1_2023), 3600);
    assert_int_equal(offset_in(by_julian, march_1_2024 - 1), 0);
    assert_int_equal(offset_in(by_julian, march_1_2024), 3600);
    assert_int_equal(offset_in(by_day, march_1_2023 - 1), 0);
    assert_int_equal(offset_in(by_day, march_1_2023), 3600);
    assert_int_equal(offset_in(by_day, march_1_2024 - 86401), 0);
    assert_int_equal(offset_in(by_day, march_1_2024 - 86400), 3600);
}

static void refuses_what_is_no_zone(void **state)
{
    (void)state;
    const char *names[] = {"",
                           "Mars/Olympus",
                           "../zoneinfo/UTC",
                           "/etc/passwd",
                           "Europe",
                           "zone.tab",
                           "+25",
                           "CET-1CEST,M13.1.0,",
                           "CET-1CEST,M3.5.0",
                           "<CET-1",
                           "+01:00foo",
                           "CET-1CEST,M3.5.7,J1",
                           "CET-1CEST,M3.5.0,366"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        struct sl_zone *zone = NULL;
        struct sl_error e = {0};
        if (sl_zone_open(names[i], &zone, &e) != SL_ERR_USAGE) {
            fail_msg("'%s' was taken", names[i]);
        }
    }
}

// A zone file cut or changed anywhere is refused or read, without harm (the sanitized build looks on).
static void bears_damaged_files(void **state)
{
    (void)state;
    uint8_t data[8192];
    FILE *file = fopen("/usr/share/zoneinfo/Europe/Berlin", "rb");
    assert_non_null(file);
    size_t size = fread(data, 1, sizeof data, file);
    fclose(file);
    assert_in_range(size, 100, sizeof data - 1);
    char path[] = "/tmp/test_zone.XXXXXX";
    int descriptor = mkstemp(path);
    assert_true(descriptor >= 0);
    setenv("TZ", path, 1);
    int opened_count = 0;
    for (size_t i = 0; i <= size; i++) {
        size_t kept = i < 60 || i + 60 > size ? i : size; // ends, then changed bytes
        uint8_t was = data[i];
        data[i] = kept == size ? (uint8_t)~data[i] : data[i];
        assert_int_equal(ftruncate(descriptor, 0), 0);
        assert_int_equal(pwrite(descriptor, data, kept, 0), kept);
        data[i] = was;
        struct sl_zone *zone = NULL;
        if (sl_zone_open(NULL, &zone, NULL) == SL_OK) {
            opened_count++;
            assert_in_range(sl_zone_offset(zone, 1700000000) + 30 * 3600, 0, 60 * 3600);
        }
        sl_zone_close(zone);
    }
    unsetenv("TZ");
    unlink(path);
    close(descriptor);
    assert_true(opened_count > 0 && opened_count < (int)size);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(offsets_equal_the_reference),     cmocka_unit_test(local_times_equal_the_reference),
        cmocka_unit_test(needs_no_file_for_fixed_offsets), cmocka_unit_test(reads_posix_rules),
        cmocka_unit_test(refuses_what_is_no_zone),         cmocka_unit_test(bears_damaged_files),
    };
    if (access("/usr/share/zoneinfo/Europe/Berlin", R_OK) != 0) {
        printf("no zone files here (Debian: tzdata)\n");
        return 77;
    }
    return cmocka_run_group_tests(tests, NULL, NULL);
}
