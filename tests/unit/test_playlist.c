// SPDX-License-Identifier: Apache-2.0
// HLS playlists: dates and places of segments, lists of variants, and lists that mean harm.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "core/frame.h"
#include "decode/playlist.h"

#define SECOND INT64_C(1000000)
#define NOON   (INT64_C(1772366400) * SECOND) // 2026-03-01T12:00:00Z

static const char dated[] = "#EXTM3U\r\n#EXT-X-VERSION:3\r\n#EXT-X-TARGETDURATION:6\r\n#EXT-X-MEDIA-SEQUENCE:7\r\n"
                            "#EXTINF:6.000,\r\n#EXT-X-PROGRAM-DATE-TIME:2026-03-01T12:00:00.250Z\r\nlive7.ts\r\n"
                            "#EXTINF:5.5,a title, with a comma\r\nlive8.ts?token=1\r\n"
                            "#EXT-X-DISCONTINUITY\r\n#EXTINF:4,\r\nhttp://other.host/x/live9.ts\r\n"
                            "#EXT-X-DISCONTINUITY-SEQUENCE:1\r\n#EXT-X-PROGRAM-DATE-TIME:2026-03-01T13:00:20+0100\r\n"
                            "#EXTINF:6,\r\nlive10.ts";

static struct sl_playlist_place find(const char *text, const char *url)
{
    struct sl_playlist_place place;
    assert_true(sl_playlist_find(text, url, &place));
    return place;
}

static void test_dates(void **state)
{
    (void)state;
    struct sl_playlist_place place = find(dated, "http://host/cam/live7.ts");
    assert_int_equal(place.date_us, NOON + 250000);
    assert_int_equal(place.behind_us, 21500000);
    assert_int_equal(place.target_us, 6 * SECOND);
    place = find(dated, "live8.ts?token=1"); // counts on from the date before
    assert_int_equal(place.date_us, NOON + 250000 + 6 * SECOND);
    assert_int_equal(place.behind_us, 15500000);
    assert_int_equal(find(dated, "http://cdn/y/live9.ts").date_us, SL_NO_TIME); // not over a discontinuity
    place = find(dated, "https://host/live10.ts");
    assert_int_equal(place.date_us, NOON + 20 * SECOND);
    assert_int_equal(place.behind_us, 6 * SECOND);
}

static void test_what_is_not_there(void **state)
{
    (void)state;
    struct sl_playlist_place place;
    assert_false(sl_playlist_find(dated, "http://host/live8.ts", &place)); // another query is another segment
    assert_false(sl_playlist_find(dated, "http://host/7.ts", &place));
    assert_false(sl_playlist_find("", "live7.ts", &place));
    assert_false(sl_playlist_find("#EXTM3U\n#EXTINF:4,\nlive7.ts\n#EXT-X-ENDLIST\n", "live7.ts", &place)); // a film
}

static void test_nonsense(void **state)
{
    (void)state;
    struct sl_playlist_place place = find("#EXT-X-TARGETDURATION:nan\n#EXTINF:-3,\na.ts\n#EXTINF:1e300\nb.ts\n"
                                          "#EXT-X-PROGRAM-DATE-TIME:now\n#EXTINF:inf\nc.ts\n#EXTINF:2\nd.ts\n",
                                          "c.ts");
    assert_int_equal(place.date_us, SL_NO_TIME);
    assert_int_equal(place.target_us, 0);
    assert_int_equal(place.behind_us, 2 * SECOND);
}

static void test_variants(void **state)
{
    (void)state;
    char url[64];
    const char *list = "#EXTM3U\n#EXT-X-MEDIA:TYPE=AUDIO,URI=\"a.m3u8\"\n#EXT-X-STREAM-INF:BANDWIDTH=1\n%s\n"
                       "#EXT-X-STREAM-INF:BANDWIDTH=2\nhigh.m3u8\n";
    const char *const uris[][2] = {{"low.m3u8", "http://h:80/a/low.m3u8"},
                                   {"b/low.m3u8?k=1", "http://h:80/a/b/low.m3u8?k=1"},
                                   {"/low.m3u8", "http://h:80/low.m3u8"},
                                   {"https://i/low.m3u8", "https://i/low.m3u8"}};
    for (size_t i = 0; i < sizeof uris / sizeof *uris; i++) {
        char text[400];
        snprintf(text, sizeof text, list, uris[i][0]);
        assert_true(sl_playlist_variant(text, "http://h:80/a/all.m3u8?t=x/y", url, sizeof url));
        assert_string_equal(url, uris[i][1]);
    }
    assert_false(sl_playlist_variant(dated, "http://h/all.m3u8", url, sizeof url));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_dates),
        cmocka_unit_test(test_what_is_not_there),
        cmocka_unit_test(test_nonsense),
        cmocka_unit_test(test_variants),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
