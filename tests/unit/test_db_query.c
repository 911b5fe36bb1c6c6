// SPDX-License-Identifier: Apache-2.0
// Asking the index: by time, wall time, source, task and words in several scripts.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "db/text.h"
#include "tests/support/dbworld.h"

static int setup(void **state)
{
    world_open(*state = malloc(sizeof(struct world)));
    return 0;
}

static int teardown(void **state)
{
    world_close(*state);
    free(*state);
    return 0;
}

static void assert_text(char *got, const char *expected)
{
    assert_string_equal(got, expected);
    free(got);
}

#define DONE(start_s, end_s, ...)                                                                                      \
    world_done(w, start_s, end_s, (struct said[]){__VA_ARGS__},                                                        \
               (int)(sizeof(struct said[]){__VA_ARGS__} / sizeof(struct said)))

static char *between(struct world *w, double from_s, double to_s)
{
    struct sl_db_query query = {.from_us = (int64_t)(from_s * 1e6), .to_us = (int64_t)(to_s * 1e6)};
    return world_events(w, &query);
}

static char *with_words(struct world *w, const char *first, const char *second)
{
    const char *words[2] = {first, second};
    struct sl_db_query query = {SL_NO_TIME, SL_NO_TIME, 0, NULL, words, second ? 2 : 1, 0, 0, 0};
    return world_events(w, &query);
}

static void test_overlap_is_half_open_in_every_class(void **state)
{
    struct world *w = *state;
    DONE(0, 3600, {100, 110, "a"}, {110, 120, "b"}, {50, 300, "c"}, {0, 3000, "d"}, {40, 100, "e"}, {120, 121, "f"});
    assert_text(between(w, 110, 120), "0-3000 d|50-300 c|110-120 b|");
    assert_text(between(w, 109.5, 110), "0-3000 d|50-300 c|100-110 a|");
    assert_text(between(w, 3000, 3600), "");
    assert_text(between(w, 299.5, 300), "0-3000 d|50-300 c|");
    assert_text(between(w, 99, 100), "0-3000 d|40-100 e|50-300 c|");
    struct sl_db_query query = {.from_us = SL_NO_TIME, .to_us = 50000000};
    assert_text(world_events(w, &query), "0-3000 d|40-100 e|");
    query = (struct sl_db_query){.from_us = 120000000, .to_us = SL_NO_TIME};
    assert_text(world_events(w, &query), "0-3000 d|50-300 c|120-121 f|");
    query.limit = 2;
    assert_text(world_events(w, &query), "0-3000 d|50-300 c|");
}

static unsigned next_random(unsigned *seed, unsigned below)
{
    *seed = *seed * 1664525u + 1013904223u;
    return (*seed >> 8) % below;
}

struct count {
    int64_t from_us, to_us;
    int rows, wrong;
    int64_t last_us;
};

static int count_row(const struct sl_db_event *event, void *user)
{
    struct count *count = user;
    count->rows++;
    count->wrong += !(event->start_us < count->to_us && event->end_us > count->from_us);
    count->wrong += event->start_us < count->last_us;
    count->last_us = event->start_us;
    return 0;
}

// Spans around the limits of the classes, against a plain look at each.
static void test_overlap_against_brute_force(void **state)
{
    static const int lengths[] = {1, 59, 60, 61, 300, 599, 600, 601, 2000};
    struct world *w = *state;
    struct sl_error e;
    struct said said[60];
    char texts[60][8];
    unsigned seed = 7;
    for (int i = 0; i < 60; i++) {
        snprintf(texts[i], sizeof texts[i], "e%d", i);
        int start = (int)next_random(&seed, 6000);
        said[i] = (struct said){start, start + lengths[i % 9], texts[i]};
    }
    world_done(w, 0, 10000, said, 60);
    for (int i = 0; i < 300; i++) {
        int from = (int)next_random(&seed, 8000), to = from + 1 + (int)next_random(&seed, 100), expected = 0;
        for (int k = 0; k < 60; k++)
            expected += said[k].start_s < to && said[k].end_s > from;
        struct count count = {from * 1000000LL, to * 1000000LL, 0, 0, 0};
        struct sl_db_query query = {.from_us = count.from_us, .to_us = count.to_us};
        assert_int_equal(sl_db_query(w->db, &query, count_row, &count, &e), SL_OK);
        assert_int_equal(count.rows, expected);
        assert_int_equal(count.wrong, 0);
    }
}

struct wall {
    int64_t start_us, end_us;
    int rows;
};

static int take_wall(const struct sl_db_event *event, void *user)
{
    struct wall *wall = user;
    wall->start_us = event->wall_start_us;
    wall->end_us = event->wall_end_us;
    wall->rows++;
    return 0;
}

static void test_wall_time(void **state)
{
    struct world *w = *state;
    struct sl_error e;
    const int64_t wall_us = 1700000000000000;
    DONE(0, 100, {10, 20, "Early."}, {30, 40, "Late."});
    struct sl_db_query query = {.from_us = wall_us + 15000000, .to_us = wall_us + 25000000, .wall = 1};
    struct wall got = {0, 0, 0};
    assert_text(world_events(w, &query), ""); // no wall time is known yet
    struct sl_db_segment segment = {w->media.media, 0, wall_us, SL_DB_CLOCK_USER, SL_NO_TIME};
    assert_int_equal(sl_db_segment(w->db, &segment, &w->segment, &e), SL_OK);
    world_add_source(w, "no-clock.mp4");
    DONE(0, 100, {10, 20, "Elsewhere."});
    assert_int_equal(sl_db_query(w->db, &query, take_wall, &got, &e), SL_OK);
    assert_int_equal(got.rows, 1);
    assert_int_equal(got.start_us, wall_us + 10000000);
    assert_int_equal(got.end_us, wall_us + 20000000);
    query.from_us = SL_NO_TIME;
    query.to_us = SL_NO_TIME;
    assert_text(world_events(w, &query), "10-20 Early.|30-40 Late.|");
    assert_text(between(w, 12, 13), "10-20 Elsewhere.|10-20 Early.|");
}

static void test_sources_and_tasks(void **state)
{
    struct world *w = *state;
    struct sl_error e;
    DONE(0, 10, {1, 2, "First task."});
    int64_t first = w->task;
    assert_int_equal(sl_db_task(w->db, "another question", 1000000, &w->task, &e), SL_OK);
    assert_int_equal(sl_db_claim(w->db, w->media.source, w->task, &w->claim, &e), SL_OK);
    world_not_done(w, 0, 10, SL_DB_FAILED, "no JSON");
    assert_text(world_events(w, NULL), "1-2 First task.|"); // the other has answered nothing yet
    DONE(0, 10, {1, 2, "Second task."});
    assert_text(world_events(w, NULL), "1-2 Second task.|");
    struct sl_db_query query = {.from_us = SL_NO_TIME, .to_us = SL_NO_TIME, .task = first};
    assert_text(world_events(w, &query), "1-2 First task.|");
    query.task = 99;
    assert_text(world_events(w, &query), "");
    world_add_source(w, "gate camera");
    DONE(0, 10, {3, 4, "At the gate."});
    query = (struct sl_db_query){.from_us = SL_NO_TIME, .to_us = SL_NO_TIME, .source_glob = "gate*"};
    assert_text(world_events(w, &query), "3-4 At the gate.|");
    query.source_glob = "*";
    assert_text(world_events(w, &query), "1-2 Second task.|3-4 At the gate.|");
    world_assert_whole(w);
}

static void test_words(void **state)
{
    struct world *w = *state;
    DONE(0, 100, {1, 2, "The red light turns off."}, {3, 4, "A red car."}, {5, 6, "Café \"Zentral\" opens"},
         {7, 8, "The sign shows 4-7."}, {9, 10, "NOT a light"});
    assert_text(with_words(w, "red", NULL), "1-2 The red light turns off.|3-4 A red car.|");
    assert_text(with_words(w, "light", "RED"), "1-2 The red light turns off.|");
    assert_text(with_words(w, "turning", NULL), "1-2 The red light turns off.|"); // inflected
    assert_text(with_words(w, "red car", NULL), "3-4 A red car.|");               // a phrase
    assert_text(with_words(w, "cafe", NULL), "5-6 Café \"Zentral\" opens|");
    assert_text(with_words(w, "\"zentral\"", NULL), "5-6 Café \"Zentral\" opens|");
    assert_text(with_words(w, "4-7", NULL), "7-8 The sign shows 4-7.|");
    // What FTS5 would take for syntax is taken as it is.
    assert_text(with_words(w, "NOT", "light"), "9-10 NOT a light|");
    assert_text(with_words(w, "red*", NULL), "1-2 The red light turns off.|3-4 A red car.|");
    assert_text(with_words(w, "text:red", NULL), "");
    assert_text(with_words(w, "re", NULL), "");
    assert_text(with_words(w, "red", "!!!"), "1-2 The red light turns off.|3-4 A red car.|");
}

static void test_words_without_spaces(void **state)
{
    struct world *w = *state;
    DONE(0, 100, {1, 2, "一个红色的圆形出现在左边"}, {3, 4, "红灯亮了，车停下"}, {5, 6, "赤いボールが右へ動く"},
         {7, 8, "車が止まるとﾄﾞｱが開く"}, {9, 10, "빨간 공이 움직인다"}, {11, 12, "标志显示47"});
    assert_text(with_words(w, "红", NULL), "1-2 一个红色的圆形出现在左边|3-4 红灯亮了，车停下|");
    assert_text(with_words(w, "红色", NULL), "1-2 一个红色的圆形出现在左边|");
    assert_text(with_words(w, "色红", NULL), "");
    assert_text(with_words(w, "红灯", "车"), "3-4 红灯亮了，车停下|");
    assert_text(with_words(w, "ボール", NULL), "5-6 赤いボールが右へ動く|");
    assert_text(with_words(w, "ドア", NULL), "7-8 車が止まるとﾄﾞｱが開く|"); // half width and full width
    assert_text(with_words(w, "공", NULL), "9-10 빨간 공이 움직인다|");
    assert_text(with_words(w, "47", NULL), "11-12 标志显示47|");
    assert_text(with_words(w, "显示47", NULL), "11-12 标志显示47|");
    world_assert_whole(w);
}

static void test_words_within_a_span(void **state)
{
    struct world *w = *state;
    struct sl_error e;
    const char *word = "common", *rare = "rare";
    for (int i = 0; i < 40; i++) { // 2,400 events: beyond what is looked up one by one
        struct said said[60];
        char texts[60][32];
        for (int k = 0; k < 60; k++) {
            snprintf(texts[k], sizeof texts[k], "%s number %d", k == 30 ? "rare" : "common", i * 60 + k);
            said[k] = (struct said){i * 60 + k, i * 60 + k + 0.5, texts[k]};
        }
        world_done(w, i * 60, i * 60 + 60, said, 60);
    }
    struct count count = {100000000, 110000000, 0, 0, 0};
    struct sl_db_query query = {count.from_us, count.to_us, 0, NULL, &word, 1, 0, 0, 0};
    assert_int_equal(sl_db_query(w->db, &query, count_row, &count, &e), SL_OK);
    assert_int_equal(count.rows, 10);
    assert_int_equal(count.wrong, 0);
    count = (struct count){0, 2000000000, 0, 0, 0};
    query = (struct sl_db_query){count.from_us, count.to_us, 0, NULL, &rare, 1, 0, 0, 0};
    assert_int_equal(sl_db_query(w->db, &query, count_row, &count, &e), SL_OK);
    assert_int_equal(count.rows, 33); // at 30, 90, ... 1950 s
    assert_int_equal(count.wrong, 0);
}

static void test_nothing_to_search_for(void **state)
{
    struct world *w = *state;
    struct sl_error e;
    const char *words[] = {"?!", "\xff\xfe"};
    struct sl_db_query query = {SL_NO_TIME, SL_NO_TIME, 0, NULL, words, 1, 0, 0, 0};
    assert_int_equal(sl_db_query(w->db, &query, count_row, NULL, &e), SL_ERR_USAGE);
    query.words++;
    assert_int_equal(sl_db_query(w->db, &query, count_row, NULL, &e), SL_ERR_USAGE);
}

// --- Text alone ---

static int64_t key(const char *text)
{
    struct sl_error e;
    int64_t out;
    assert_int_equal(text_key(text, &out, &e), SL_OK);
    return out;
}

static void test_same_text(void **state)
{
    (void)state;
    assert_int_equal(key("The  LIGHT, turns off."), key("the light turns off"));
    assert_int_equal(key("Straße"), key("STRASSE"));
    assert_int_equal(key("Caf\u00e9"), key("cafe\u0301"));
    assert_int_equal(key("红灯，亮了。"), key("红灯亮了"));
    assert_int_equal(key("ﾄﾞｱ"), key("ドア"));
    assert_int_not_equal(key("shows 1.5"), key("shows 15"));
    assert_int_not_equal(key("red light"), key("redlight"));
    assert_int_not_equal(key("turns red"), key("turns green"));
    assert_int_not_equal(key("5 °C"), key("5 C"));
    assert_int_not_equal(key("cafe"), key("café"));
}

static void assert_words(const char *text, const char *expected)
{
    struct sl_error e;
    char *words;
    assert_int_equal(text_words(text, &words, &e), SL_OK);
    if (expected)
        assert_string_equal(words, expected);
    else
        assert_null(words);
    free(words);
}

static void test_text_for_the_word_index(void **state)
{
    (void)state;
    assert_words("The light.", NULL);
    assert_words("红灯", "红 灯");
    assert_words("A红灯b", "A 红 灯 b");
    assert_words("红 灯", NULL);
    assert_words("红灯，亮", "红 灯 , 亮"); // a comma of full width is a compatibility form
    assert_words("ﬁn", "fin");
    assert_words("", NULL);
}

int main(void)
{
#define IN_WORLD(test) cmocka_unit_test_setup_teardown(test, setup, teardown)
    const struct CMUnitTest tests[] = {
        IN_WORLD(test_overlap_is_half_open_in_every_class),
        IN_WORLD(test_overlap_against_brute_force),
        IN_WORLD(test_wall_time),
        IN_WORLD(test_sources_and_tasks),
        IN_WORLD(test_words),
        IN_WORLD(test_words_without_spaces),
        IN_WORLD(test_words_within_a_span),
        IN_WORLD(test_nothing_to_search_for),
        cmocka_unit_test(test_same_text),
        cmocka_unit_test(test_text_for_the_word_index),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
