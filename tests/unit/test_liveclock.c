// SPDX-License-Identifier: Apache-2.0
// The wall time of simulated cameras, whose true time is known: drift, jitter, stalls, wrong rates, leaps, and sender
// reports that are right, wrong, or of a clock that is set.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "decode/liveclock.h"

#define SECOND INT64_C(1000000)
#define BEGIN  (INT64_C(1772366400) * SECOND)
#define DELAY  40000 // of the network, at least; the camera's truth is what arrival less this says

// A camera: picture n is taken at true time taken(n), says pts(n), arrives no earlier than the one before.
struct camera {
    double fps, declared_fps; // PTS count up by the declared one
    double ppm;               // how much too fast its media clock runs
    int64_t jitter_us, stall_at_us, stall_us, burst_us;
    int64_t lost_at_us, lost_us;         // pictures that never come
    int64_t leap_at_us, leap_us;         // of the PTS
    int report_counts;                   // its reports give the PTS again, whatever the time
    int64_t report_us;                   // between sender reports; 0: none
    int64_t report_off_us;               // the camera's wall clock is wrong by this,
    int64_t report_set_at_us, set_by_us; //   and by that from then on
    int64_t host_set_at_us, host_by_us;  // this machine's clock is set, which arrivals are read from
};

struct seen {
    int steps, shifts;
    int64_t worst_us, worst_late_us; // greatest error after the first 5 s; after the first minute
    int64_t last_error_us;           // mean of the last 10 s
    enum sl_live_origin origin;
};

static int64_t true_us(const struct camera *c, int64_t n)
{
    return (int64_t)((double)n / c->fps * 1e6);
}

static int64_t pts_us(const struct camera *c, int64_t n)
{
    int64_t at_us = true_us(c, n);
    double counted = c->declared_fps > 0 ? (double)n / c->declared_fps * 1e6 : (double)at_us * (1 + c->ppm * 1e-6);
    return 5000000 + (int64_t)counted + (c->leap_us != 0 && at_us >= c->leap_at_us ? c->leap_us : 0);
}

static int64_t wall_of_camera(const struct camera *c, int64_t at_us)
{
    return BEGIN + at_us + c->report_off_us + (c->set_by_us != 0 && at_us >= c->report_set_at_us ? c->set_by_us : 0);
}

static int64_t arrives_us(const struct camera *c, int64_t n, unsigned *random)
{
    int64_t at_us = true_us(c, n) + DELAY;
    at_us += c->jitter_us > 0 ? rand_r(random) % c->jitter_us : 0;
    if (c->burst_us > 0) { // a playlist: all of a part comes when the part is whole
        at_us = (true_us(c, n) / c->burst_us + 1) * c->burst_us + DELAY;
    }
    if (c->stall_us > 0 && at_us >= c->stall_at_us && at_us < c->stall_at_us + c->stall_us) {
        at_us = c->stall_at_us + c->stall_us;
    }
    return BEGIN + at_us;
}

// error_us: wall time given less the true one, as far as arrival can tell: the least delay is part of it.
static struct seen watch(const struct camera *c, int64_t length_us)
{
    struct sl_liveclock clock = {0};
    struct seen seen = {0};
    unsigned random = 1;
    int64_t last_us = 0, report_pts = 0, report_wall = SL_NO_TIME, next_report_us = c->report_us;
    double sum = 0;
    int64_t count = 0, host_us = 0;
    for (int64_t n = 0; true_us(c, n) < length_us; n++) {
        int64_t at_us = true_us(c, n), pts = pts_us(c, n), shift_us = 0;
        int64_t arrival_us = arrives_us(c, n, &random);
        if (at_us >= c->lost_at_us && at_us < c->lost_at_us + c->lost_us) {
            continue;
        }
        arrival_us = arrival_us > last_us ? arrival_us : last_us;
        last_us = arrival_us;
        if (c->report_us > 0 && at_us >= next_report_us) {
            next_report_us += c->report_us;
            report_pts = pts;
            report_wall = c->report_counts ? BEGIN + pts - pts_us(c, 0) : wall_of_camera(c, at_us);
        }
        if (c->host_by_us != 0 && at_us >= c->host_set_at_us && host_us == 0) {
            host_us = c->host_by_us;
            sl_liveclock_moved(&clock, host_us);
        }
        arrival_us += host_us;
        int64_t camera_us = report_wall == SL_NO_TIME ? SL_NO_TIME : report_wall + pts - report_pts;
        enum sl_liveclock_turn turn = sl_liveclock_packet(&clock, pts, arrival_us, 1, camera_us, &shift_us);
        seen.steps += turn == SL_LIVECLOCK_STEP;
        seen.shifts += turn == SL_LIVECLOCK_SHIFT;
        int64_t truth_us = clock.origin == SL_LIVE_CAMERA ? wall_of_camera(c, at_us) : BEGIN + at_us + DELAY + host_us;
        int64_t error_us = sl_liveclock_wall_us(&clock, pts) - truth_us;
        if (at_us > 5 * SECOND && llabs(error_us) > seen.worst_us) {
            seen.worst_us = llabs(error_us);
        }
        if (at_us > 60 * SECOND && llabs(error_us) > seen.worst_late_us) {
            seen.worst_late_us = llabs(error_us);
        }
        if (at_us > length_us - 10 * SECOND) {
            sum += (double)error_us;
            count++;
        }
    }
    seen.last_error_us = (int64_t)(sum / (double)count);
    seen.origin = clock.origin;
    return seen;
}

#define assert_below(value, limit) assert_in_range((value), 0, (limit))

static void test_an_hour_of_drift_and_jitter(void **state)
{
    (void)state;
    struct camera camera = {.fps = 25, .ppm = 80, .jitter_us = 200000};
    struct seen seen = watch(&camera, 3600 * SECOND);
    assert_int_equal(seen.steps, 1);
    assert_int_equal(seen.origin, SL_LIVE_ARRIVAL);
    assert_below(seen.worst_us, 250000);
    assert_below(seen.worst_late_us, 50000);
    assert_below(llabs(seen.last_error_us), 30000); // 80 ppm would be 288 ms by now
}

static void test_declares_25_and_delivers_21(void **state)
{
    (void)state;
    struct camera camera = {.fps = 21, .declared_fps = 25};
    struct seen seen = watch(&camera, 1200 * SECOND);
    assert_int_equal(seen.steps, 1);
    assert_below(seen.worst_us, 500000);
    assert_below(seen.worst_late_us, 100000);
    camera.jitter_us = 100000;
    seen = watch(&camera, 1200 * SECOND);
    assert_below(seen.worst_us, 500000);
    assert_below(seen.worst_late_us, 150000);
    camera.report_us = 5 * SECOND; // reports that say the truth, between which its PTS go astray
    seen = watch(&camera, 1200 * SECOND);
    assert_below(seen.worst_late_us, 500000);
    camera.report_counts = 1; // reports that are made of them
    seen = watch(&camera, 1200 * SECOND);
    assert_int_equal(seen.origin, SL_LIVE_ARRIVAL);
    assert_below(seen.worst_us, 500000);
    assert_below(seen.worst_late_us, 150000);
}

static void test_slow_camera(void **state)
{
    (void)state;
    struct camera camera = {.fps = 0.5};
    struct seen seen = watch(&camera, 3600 * SECOND);
    assert_int_equal(seen.steps, 1);
    assert_below(seen.worst_us, 10000);
}

static void test_leaping_pts(void **state)
{
    (void)state;
    for (int sign = -1; sign <= 1; sign += 2) {
        struct camera camera = {.fps = 25, .leap_at_us = 100 * SECOND, .leap_us = sign * 5 * SECOND};
        struct seen seen = watch(&camera, 300 * SECOND);
        assert_int_equal(seen.steps, 2);
        assert_below(seen.worst_us, 10000);
        camera.report_us = 5 * SECOND; // and what the report before said is about another clock
        seen = watch(&camera, 300 * SECOND);
        assert_int_equal(seen.steps, 2);
        assert_below(seen.worst_us, 10000);
        assert_int_equal(seen.origin, SL_LIVE_CAMERA);
    }
}

static void test_stall_is_no_step(void **state)
{
    (void)state;
    struct camera camera = {.fps = 25, .jitter_us = 20000, .stall_at_us = 100 * SECOND, .stall_us = 8 * SECOND};
    struct seen seen = watch(&camera, 300 * SECOND);
    assert_int_equal(seen.steps, 1);
    assert_below(seen.worst_us, 60000);
}

static void test_late_and_lost_is_no_step(void **state)
{
    (void)state;
    struct camera camera = {.fps = 25,
                            .stall_at_us = 100 * SECOND,
                            .stall_us = 3 * SECOND,
                            .lost_at_us = 100 * SECOND + 500000,
                            .lost_us = 1500000,
                            .report_us = 5 * SECOND};
    struct seen seen = watch(&camera, 200 * SECOND);
    assert_int_equal(seen.steps, 1);
    assert_int_equal(seen.origin, SL_LIVE_CAMERA);
    assert_below(seen.worst_us, DELAY + 5000);
    camera.report_us = 0;
    assert_int_equal(watch(&camera, 200 * SECOND).steps, 1);
}

static void test_playlist(void **state)
{
    (void)state;
    struct camera camera = {.fps = 25, .burst_us = 4 * SECOND};
    struct seen seen = watch(&camera, 600 * SECOND);
    assert_int_equal(seen.steps, 1);
    assert_below(seen.worst_late_us, 500000);
}

static void test_reports(void **state)
{
    (void)state;
    struct camera camera = {
        .fps = 25, .ppm = 100, .jitter_us = 200000, .report_us = 5 * SECOND, .report_off_us = 300000};
    struct seen seen = watch(&camera, 3600 * SECOND);
    assert_int_equal(seen.steps, 1);
    assert_int_equal(seen.shifts, 1);
    assert_int_equal(seen.origin, SL_LIVE_CAMERA);
    assert_below(seen.worst_late_us, 5000);
}

static void test_reports_of_a_clock_that_is_set(void **state)
{
    (void)state;
    struct camera camera = {
        .fps = 25, .report_us = 5 * SECOND, .report_set_at_us = 102 * SECOND, .set_by_us = 5 * SECOND};
    struct seen seen = watch(&camera, 300 * SECOND);
    assert_int_equal(seen.steps, 2); // within the next report
    assert_int_equal(seen.origin, SL_LIVE_CAMERA);
    assert_below(llabs(seen.last_error_us), 1000);
}

static void test_reports_that_go_mad(void **state)
{
    (void)state;
    struct camera camera = {
        .fps = 25, .report_us = 5 * SECOND, .report_set_at_us = 102 * SECOND, .set_by_us = -47721 * SECOND};
    struct seen seen = watch(&camera, 300 * SECOND);
    assert_int_equal(seen.origin, SL_LIVE_ARRIVAL);
    assert_below(llabs(seen.last_error_us), 1000);
    assert_int_equal(seen.steps, 2); // to arrival, at once, and never back
}

static void test_reports_of_a_clock_never_set(void **state)
{
    (void)state;
    struct camera camera = {.fps = 25, .report_us = 5 * SECOND, .report_off_us = -BEGIN + 90 * SECOND};
    struct seen seen = watch(&camera, 300 * SECOND);
    assert_int_equal(seen.steps, 1);
    assert_int_equal(seen.origin, SL_LIVE_ARRIVAL);
    assert_below(seen.worst_us, 10000);
}

static void test_this_machine_is_set(void **state)
{
    (void)state;
    struct camera camera = {.fps = 25, .jitter_us = 20000, .host_set_at_us = 100 * SECOND, .host_by_us = 5 * SECOND};
    for (int with_reports = 0; with_reports < 2; with_reports++) {
        for (int forward = 0; forward < 2; forward++) {
            camera.report_us = with_reports ? 5 * SECOND : 0;
            camera.host_by_us = forward ? 5 * SECOND : -5 * SECOND;
            struct seen seen = watch(&camera, 300 * SECOND);
            assert_int_equal(seen.steps, with_reports ? 1 : 2); // whom the camera tells, nobody else's clock concerns
            assert_int_equal(seen.origin, with_reports ? SL_LIVE_CAMERA : SL_LIVE_ARRIVAL);
            assert_below(seen.worst_us, 25000);
        }
    }
}

static void test_what_lay_in_a_buffer_tells_nothing(void **state)
{
    (void)state;
    struct sl_liveclock clock = {0};
    int64_t shift_us;
    for (int i = 0; i < 50; i++) { // two seconds of pictures, all at once
        assert_int_equal(sl_liveclock_packet(&clock, i * 40000, BEGIN + 2000000, 0, SL_NO_TIME, &shift_us),
                         i == 0 ? SL_LIVECLOCK_STEP : SL_LIVECLOCK_ON);
        assert_int_equal(sl_liveclock_wall_us(&clock, 0), BEGIN + 2000000); // for want of anything better
    }
    assert_int_equal(sl_liveclock_packet(&clock, 2000000, BEGIN + 2000000, 1, SL_NO_TIME, &shift_us),
                     SL_LIVECLOCK_SHIFT);
    assert_int_equal(shift_us, -2000000);
    assert_int_equal(sl_liveclock_wall_us(&clock, 0), BEGIN);
}

// One picture of a stream that comes in bursts of 6 s; `at_us` is when it is handed out.
static enum sl_liveclock_turn burst_packet(struct sl_liveclock *clock, int64_t pts, int64_t at_us)
{
    int64_t shift_us;
    return sl_liveclock_packet(clock, pts, at_us, 1, SL_NO_TIME, &shift_us);
}

static void test_what_is_stated(void **state)
{
    (void)state;
    struct sl_liveclock clock = {0};
    const int64_t begin_pts = 900 * SECOND;
    int64_t pts = begin_pts;
    sl_liveclock_state(&clock, begin_pts, BEGIN - 15 * SECOND, SECOND, SL_LIVE_CAMERA);
    assert_int_equal(burst_packet(&clock, pts, BEGIN), SL_LIVECLOCK_STEP);
    for (int i = 1; i < 15000; i++) { // ten minutes
        pts += 40000;
        assert_int_equal(burst_packet(&clock, pts, BEGIN + (int64_t)(i / 150) * 6 * SECOND), SL_LIVECLOCK_ON);
        assert_int_equal(sl_liveclock_wall_us(&clock, pts), BEGIN - 15 * SECOND + pts - begin_pts);
    }
    assert_int_equal(clock.origin, SL_LIVE_CAMERA);
    assert_int_equal(sl_liveclock_error_us(&clock), SECOND);
    // Stated anew, 20 ms later: it is followed smoothly.
    sl_liveclock_state(&clock, pts + 40000, BEGIN - 15 * SECOND + pts - begin_pts + 60000, SECOND, SL_LIVE_CAMERA);
    for (int i = 0; i < 10; i++) {
        pts += 40000;
        assert_int_equal(burst_packet(&clock, pts, BEGIN + 600 * SECOND), SL_LIVECLOCK_ON);
    }
    assert_int_equal(sl_liveclock_wall_us(&clock, pts), BEGIN - 15 * SECOND + pts - begin_pts + 20000);
    // PTS that leap: what was stated counts no more, or, stated of them, from there.
    struct sl_liveclock other = clock;
    assert_int_equal(burst_packet(&other, 5 * SECOND, BEGIN + 601 * SECOND), SL_LIVECLOCK_STEP);
    assert_int_equal(sl_liveclock_wall_us(&other, 5 * SECOND), BEGIN + 601 * SECOND);
    assert_int_equal(other.origin, SL_LIVE_ARRIVAL);
    sl_liveclock_state(&clock, 5 * SECOND, BEGIN + 590 * SECOND, SECOND, SL_LIVE_CAMERA);
    assert_int_equal(burst_packet(&clock, 5 * SECOND, BEGIN + 601 * SECOND), SL_LIVECLOCK_STEP);
    assert_int_equal(sl_liveclock_wall_us(&clock, 5 * SECOND), BEGIN + 590 * SECOND);
    // A place in a list was read off this machine's clock, and moves with it.
    sl_liveclock_state(&clock, 6 * SECOND, BEGIN + 591 * SECOND, SECOND, SL_LIVE_ARRIVAL);
    assert_int_equal(burst_packet(&clock, 6 * SECOND, BEGIN + 602 * SECOND), SL_LIVECLOCK_ON);
    sl_liveclock_moved(&clock, 7 * SECOND);
    assert_int_equal(burst_packet(&clock, 6 * SECOND + 40000, BEGIN + 609 * SECOND), SL_LIVECLOCK_STEP);
    assert_int_equal(sl_liveclock_wall_us(&clock, 6 * SECOND), BEGIN + 598 * SECOND);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_an_hour_of_drift_and_jitter),
        cmocka_unit_test(test_declares_25_and_delivers_21),
        cmocka_unit_test(test_slow_camera),
        cmocka_unit_test(test_leaping_pts),
        cmocka_unit_test(test_stall_is_no_step),
        cmocka_unit_test(test_late_and_lost_is_no_step),
        cmocka_unit_test(test_playlist),
        cmocka_unit_test(test_reports),
        cmocka_unit_test(test_reports_of_a_clock_that_is_set),
        cmocka_unit_test(test_reports_that_go_mad),
        cmocka_unit_test(test_reports_of_a_clock_never_set),
        cmocka_unit_test(test_this_machine_is_set),
        cmocka_unit_test(test_what_is_stated),
        cmocka_unit_test(test_what_lay_in_a_buffer_tells_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
