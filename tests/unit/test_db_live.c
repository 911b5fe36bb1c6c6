// SPDX-License-Identifier: Apache-2.0
// Live sources in the index: connections, outages, going on after a kill, and forgetting what is old.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <sqlite3.h>

#include "tests/support/dbworld.h"

#define SECOND INT64_C(1000000)
#define BEGIN  (INT64_C(1772366400) * SECOND)

static int open_world(void **state)
{
    struct world *w = calloc(1, sizeof *w);
    if (w == NULL) {
        return -1;
    }
    world_open(w);
    *state = w;
    return 0;
}

static int close_world(void **state)
{
    world_close(*state);
    free(*state);
    return 0;
}

static void must(int status, const struct sl_error *e)
{
    if (status != SL_OK) {
        fail_msg("%s", e->text);
    }
}

// A connection whose segment begins `at_s` after BEGIN; the world's segment and claim are now its.
static void connect_at(struct world *w, const char *name, double at_s)
{
    struct sl_error e = {0};
    struct sl_db_segment segment = {
        .wall_start_us = BEGIN + (int64_t)(at_s * 1e6), .clock = SL_DB_CLOCK_ARRIVAL, .error_us = 200000};
    int64_t source;
    must(sl_db_source(w->db, name, &source, &e), &e);
    must(sl_db_connection(w->db, name, "rtsp://host/cam", &w->media, &e), &e);
    assert_int_equal(w->media.source, source);
    segment.media = w->media.media;
    must(sl_db_segment(w->db, &segment, &w->segment, &e), &e);
    if (w->claim.source != source) {
        must(sl_db_claim(w->db, source, w->task, &w->claim, &e), &e);
    }
}

static void outage(struct world *w, double from_s, double to_s, const char *cause)
{
    struct sl_error e = {0};
    must(sl_db_outage(w->db, w->media.source, BEGIN + (int64_t)(from_s * 1e6),
                      to_s < 0 ? SL_NO_TIME : BEGIN + (int64_t)(to_s * 1e6), cause, &e),
         &e);
}

static int print_span(const struct sl_db_span *span, void *user)
{
    static const char *const names[] = {"never", "dropped", "failed", "seen", "outage"};
    double from_s = (double)(span->wall_start_us - BEGIN) / 1e6;
    fprintf(user, "%s %g-%g%s%s|", names[span->seen], from_s, from_s + (double)(span->end_us - span->start_us) / 1e6,
            span->cause != NULL ? " " : "", span->cause != NULL ? span->cause : "");
    return 0;
}

// In seconds of wall time after BEGIN.
static void assert_covered(struct world *w, const char *expected)
{
    struct sl_error e = {0};
    char *text = NULL;
    size_t size = 0;
    FILE *file = open_memstream(&text, &size);
    assert_non_null(file);
    must(sl_db_coverage(w->db, w->media.source, w->task, print_span, file, &e), &e);
    fclose(file);
    assert_string_equal(text, expected);
    free(text);
}

static void end_at(struct world *w, double end_s)
{
    struct sl_error e = {0};
    must(sl_db_segment_end(w->db, w->segment, (int64_t)(end_s * 1e6), &e), &e);
}

static int64_t ask(struct world *w, const char *sql)
{
    sqlite3 *db;
    sqlite3_stmt *row;
    assert_int_equal(sqlite3_open(w->index, &db), SQLITE_OK);
    assert_int_equal(sqlite3_prepare_v2(db, sql, -1, &row, NULL), SQLITE_OK);
    assert_int_equal(sqlite3_step(row), SQLITE_ROW);
    int64_t value = sqlite3_column_int64(row, 0);
    sqlite3_finalize(row);
    sqlite3_close(db);
    return value;
}

static void test_outages_stand_between_connections(void **state)
{
    struct world *w = *state;
    connect_at(w, "cam", 5);
    outage(w, 0, -1, "connecting");
    outage(w, 0, 5, "refused"); // the same one, later
    world_done(w, 0, 10, NULL, 0);
    world_not_done(w, 10, 20, SL_DB_DROPPED, "behind");
    end_at(w, 20);
    outage(w, 25, 40, "cable");
    connect_at(w, "cam", 40);
    world_done(w, 0, 10, NULL, 0);
    end_at(w, 10);
    outage(w, 50, 60, "end");
    assert_covered(w,
                   "outage 0-5 refused|seen 5-15|dropped 15-25 behind|outage 25-40 cable|seen 40-50|outage 50-60 end|");
    world_assert_whole(w);
}

static int note_event(const struct sl_db_event *event, void *user)
{
    struct sl_db_event *noted = user;
    assert_int_equal(noted->id, 0); // there is one
    *noted = *event;
    noted->source = noted->text = noted->model = NULL; // gone after this call
    return 0;
}

static void test_going_on_after_a_kill(void **state)
{
    struct world *w = *state;
    struct sl_error e = {0};
    connect_at(w, "cam", 0);
    must(sl_db_resume(w->db, w->media.source, BEGIN - 100 * SECOND, "not watching", &e), &e); // nothing before
    connect_at(w, "cam", 0); // resume has deleted the segment without windows
    world_done(w, 0, 10, (struct said[]){{8, 10, "A cat."}}, 1);
    assert_int_equal(ask(w, "SELECT open FROM event"), 1);
    connect_at(w, "cam", 30); // killed before its first window
    struct sl_db_event open = {0}, closed = {0}, none = {0};
    must(sl_db_open_events(w->db, w->media.source, note_event, &open, &e), &e);
    assert_true(open.id != 0 && open.open);
    assert_int_equal(open.wall_start_us, BEGIN + 8 * SECOND);
    must(sl_db_resume(w->db, w->media.source, BEGIN + 60 * SECOND, "not watching", &e), &e);
    must(sl_db_event(w->db, open.id, note_event, &closed, &e), &e);
    assert_true(closed.id == open.id && !closed.open && closed.revision > open.revision);
    must(sl_db_open_events(w->db, w->media.source, note_event, &none, &e), &e);
    must(sl_db_event(w->db, open.id + 1, note_event, &none, &e), &e);
    assert_int_equal(none.id, 0);
    assert_covered(w, "seen 0-10|outage 10-60 not watching|");
    must(sl_db_resume(w->db, w->media.source, BEGIN + 60 * SECOND, "not watching", &e), &e);
    outage(w, 60, -1, "refused"); // killed while there was nothing to see
    must(sl_db_resume(w->db, w->media.source, BEGIN + 90 * SECOND, "not watching", &e), &e);
    assert_covered(w, "seen 0-10|outage 10-60 not watching|outage 60-90 refused|");
    world_assert_whole(w);
}

static void test_old_windows_are_forgotten(void **state)
{
    struct world *w = *state;
    struct sl_error e = {0};
    int64_t forgotten;
    world_done(w, 0, 30, (struct said[]){{1, 2, "A film."}}, 1); // a file: stays
    connect_at(w, "cam", 0);
    world_done(w, 0, 10, (struct said[]){{1, 2, "A dog."}, {9, 10, "A cat."}}, 2);
    end_at(w, 10);
    outage(w, 10, 20, "cable");
    connect_at(w, "cam", 20);
    world_done(w, 0, 10, (struct said[]){{8, 10, "A bird."}}, 1);
    world_done(w, 10, 20, (struct said[]){{10, 20, "A bird."}}, 1);
    world_done(w, 20, 30, (struct said[]){{20, 22, "A bird."}, {25, 26, "A cow."}}, 2);
    must(sl_db_retain(w->db, BEGIN + 35 * SECOND, 0, &forgotten, &e), &e); // inside the second connection
    assert_int_equal(forgotten, 2);
    assert_covered(w, "seen 30-50|");
    world_assert_whole(w);
    char *events = world_events(w, &(struct sl_db_query){.from_us = SL_NO_TIME, .to_us = SL_NO_TIME});
    assert_string_equal(events, "1-2 A film.|10-22 A bird.|25-26 A cow.|"); // the bird's beginning is forgotten
    free(events);
    world_done(w, 30, 40, NULL, 0);
    end_at(w, 40);
    must(sl_db_retain(w->db, BEGIN + 100 * SECOND, 0, &forgotten, &e), &e);
    assert_int_equal(forgotten, 3);
    assert_covered(w, "");
    assert_int_equal(ask(w, "SELECT count(*) FROM event"), 1);
    world_assert_whole(w);
}

static void test_the_file_stays_small(void **state)
{
    struct world *w = *state;
    struct sl_error e = {0};
    char text[600];
    int64_t forgotten, all = 0;
    memset(text, 'x', sizeof text - 1);
    text[sizeof text - 1] = 0;
    connect_at(w, "cam", 0);
    for (int i = 0; i < 2000; i++) {
        snprintf(text, 16, "Event %d", i);
        text[strlen(text)] = ' ';
        world_done(w, 10 * i, 10 * i + 10, (struct said[]){{10 * i + 1, 10 * i + 2, text}}, 1);
        if (i % 100 == 99) {
            must(sl_db_retain(w->db, SL_NO_TIME, 500000, &forgotten, &e), &e);
            all += forgotten;
            assert_in_range(ask(w, "SELECT page_count * 4096 FROM pragma_page_count"), 0, 500000);
        }
    }
    assert_in_range(all, 1000, 1990);
    assert_int_equal(ask(w, "SELECT count(*) FROM window"), 2000 - all);
    world_assert_whole(w);
}

static void test_an_old_index_gets_the_table(void **state)
{
    struct world *w = *state;
    sqlite3 *db;
    sl_db_close(w->db);
    assert_int_equal(sqlite3_open(w->index, &db), SQLITE_OK);
    assert_int_equal(sqlite3_exec(db, "DROP TABLE outage; PRAGMA user_version = 1", NULL, NULL, NULL), SQLITE_OK);
    sqlite3_close(db);
    struct sl_error e = {0};
    assert_int_equal(sl_db_open(&w->db, w->index, SL_DB_READ, &e), SL_ERR_INDEX_VERSION);
    must(sl_db_open(&w->db, w->index, SL_DB_WRITE, &e), &e);
    connect_at(w, "cam", 5);
    outage(w, 0, 5, "connecting");
    assert_covered(w, "outage 0-5 connecting|");
    assert_int_equal(ask(w, "PRAGMA user_version"), 2);
}

#define IN_WORLD(test) cmocka_unit_test_setup_teardown(test, open_world, close_world)

int main(void)
{
    const struct CMUnitTest tests[] = {
        IN_WORLD(test_outages_stand_between_connections), IN_WORLD(test_going_on_after_a_kill),
        IN_WORLD(test_old_windows_are_forgotten),         IN_WORLD(test_the_file_stays_small),
        IN_WORLD(test_an_old_index_gets_the_table),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
