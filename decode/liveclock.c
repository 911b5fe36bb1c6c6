// SPDX-License-Identifier: Apache-2.0
#include "decode/liveclock.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define SECOND 1000000.0

// PTS that move by this much more than time does, or back by it, are another clock. Reordered pictures are far below.
#define LEAP_US 1000000
// The offset in use moves towards the better one by at most this part of the time that passes.
#define SLEW 0.25
// A slope is believed from so many points on, and when all of its rise is so many times their scatter.
#define SLOPE_POINTS       4
#define SLOPE_SIGNIFICANCE 4.0
#define SLOPE_MOST         0.5
// Seconds that scatter more come in bursts (a playlist): no slope can be told.
#define UNEVEN_US 150000.0
#define LATE_US   1000000.0
// A camera that is steady for so long is taken; once it has leapt while in use, for the longer.
#define STEADY_US   1500000
#define CALM_US     20000000
#define DISTRUST_US 60000000
// A camera whose clock is further off than this has never been set.
#define CAMERA_PARTED_US 500000.0
// No clock is 1 % wrong: this much is a wrong rate.
#define SLOPE_OF_NO_CLOCK 10000.0
#define CAMERA_LIMIT_US   60000000
#define CAMERA_LEAP_US    500000.0
#define CAMERA_UNEVEN_US  100000.0
// Of RTP ticks and microseconds; more than that is a new report.
#define ROUNDING_US     30.0
#define CAMERA_SHIFT_US 1000000.0
// What nothing here can see: exposure, encoding, the way out of the camera.
#define CAMERA_ERROR_US  50000
#define ARRIVAL_ERROR_US 200000

// All that arrival told is as true as before, counted from another anchor.
void sl_liveclock_moved(struct sl_liveclock *clock, int64_t by_us)
{
    if (!clock->is_set || clock->is_provisional) {
        return;
    }
    clock->anchor_us += by_us;
    clock->arrival_us += by_us;
    clock->camera_steady_us += by_us;
    clock->camera_distrusted_us += by_us;
    clock->camera_leapt_us += by_us;
    clock->camera_us -= (double)by_us;
    clock->camera_gap_us -= (double)by_us;
    if (clock->origin == SL_LIVE_CAMERA) {
        clock->offset_us -= (double)by_us;
        return;
    }
    clock->was_moved = 1;
    clock->stated_us += by_us;
}

static double seconds(const struct sl_liveclock *clock, int64_t pts_us)
{
    return (double)(pts_us - clock->anchor_pts_us) / SECOND;
}

// ---- Arrival

static int by_size(const void *left, const void *right)
{
    double a = *(const double *)left, b = *(const double *)right;
    return (a > b) - (a < b);
}

static double median(double *values, int count)
{
    qsort(values, (size_t)count, sizeof *values, by_size);
    return count > 0 ? values[count / 2] : 0;
}

// The median of all slopes between two points, so that some late seconds do not count; 0 unless it stands out of the
// points' own scatter.
static double fit_slope(const struct sl_liveclock *clock)
{
    double values[SL_LIVECLOCK_POINTS * (SL_LIVECLOCK_POINTS - 1) / 2];
    const struct sl_liveclock_point *p = clock->points;
    int n = clock->count, pairs = 0;
    for (int i = 0; i < n; i++) {
        for (int k = 0; k < i; k++) {
            values[pairs++] = (p[i].least_us - p[k].least_us) / (p[i].at_s - p[k].at_s);
        }
    }
    double slope = median(values, pairs);
    for (int i = 0; i < n; i++) {
        values[i] = p[i].least_us - slope * p[i].at_s;
    }
    double level = median(values, n);
    for (int i = 0; i < n; i++) {
        values[i] = fabs(p[i].least_us - slope * p[i].at_s - level);
    }
    double scatter = median(values, n);
    double rise = n > 0 ? fabs(slope) * (p[n - 1].at_s - p[0].at_s) : 0;
    int is_real = n >= SLOPE_POINTS && scatter < UNEVEN_US && rise > SLOPE_SIGNIFICANCE * scatter &&
                  fabs(slope) < SLOPE_MOST * SECOND;
    return is_real ? slope : 0;
}

static void fit(struct sl_liveclock *clock)
{
    clock->slope = fit_slope(clock);
    double least = INFINITY, most = -INFINITY;
    for (int i = 0; i < clock->count; i++) {
        double off = clock->points[i].least_us - clock->slope * clock->points[i].at_s;
        least = off < least ? off : least;
        most = off > most ? off : most;
    }
    // As long as no slope could have been told, the last second is the least wrong.
    clock->level_us = clock->count <= SLOPE_POINTS ? clock->points[clock->count - 1].least_us : least;
    clock->slope = clock->count <= SLOPE_POINTS ? 0 : clock->slope;
    clock->spread_us = most - least;
}

// A second that came late tells nothing of the camera, however many follow it; but if nothing else comes any more, all
// begins anew.
static int is_late(struct sl_liveclock *clock)
{
    double expected_us = clock->level_us + clock->slope * clock->open.at_s;
    if (clock->count < SLOPE_POINTS || clock->open.least_us - expected_us < LATE_US) {
        clock->late = 0;
        return 0;
    }
    if (++clock->late == SL_LIVECLOCK_POINTS) {
        clock->late = 0;
        clock->count = 0;
        return 0;
    }
    return 1;
}

static void keep_point(struct sl_liveclock *clock)
{
    if (is_late(clock)) {
        return;
    }
    if (clock->count == SL_LIVECLOCK_POINTS) {
        clock->count--;
        memmove(clock->points, clock->points + 1, (size_t)clock->count * sizeof clock->points[0]);
    }
    clock->points[clock->count++] = clock->open;
    fit(clock);
}

static void take_arrival(struct sl_liveclock *clock, int64_t pts_us, int64_t arrival_us)
{
    double at_s = seconds(clock, pts_us);
    double off_us = (double)(arrival_us - pts_us - clock->anchor_us);
    if (clock->open.least_us < INFINITY && at_s - clock->open.at_s >= 1) {
        keep_point(clock);
        clock->open.least_us = INFINITY;
    }
    if (clock->open.least_us == INFINITY) {
        clock->open = (struct sl_liveclock_point){at_s, off_us};
    } else if (off_us < clock->open.least_us) {
        clock->open.least_us = off_us;
    }
}

static void anchor(struct sl_liveclock *clock, int64_t pts_us, int64_t arrival_us)
{
    clock->is_set = 1;
    clock->origin = SL_LIVE_ARRIVAL;
    clock->anchor_us = arrival_us - pts_us;
    clock->anchor_pts_us = pts_us;
    clock->offset_us = 0;
    clock->count = clock->late = 0;
    clock->slope = clock->level_us = clock->spread_us = 0;
    clock->open = (struct sl_liveclock_point){0, INFINITY};
    clock->pts_us = pts_us;
    clock->arrival_us = arrival_us;
    clock->camera_seen = 0;
    take_arrival(clock, pts_us, arrival_us);
}

static double arrival_offset(const struct sl_liveclock *clock, int64_t pts_us)
{
    return clock->count > 0 ? clock->level_us + clock->slope * seconds(clock, pts_us) : 0;
}

// PTS that move on faster than time does. But when packets are read late, and some of them are lost, those after are
// only less late; they do not come before their time.
static int leaps_ahead(const struct sl_liveclock *clock, int64_t pts_us, int64_t arrival_us)
{
    int64_t passed_us = pts_us - clock->pts_us, waited_us = arrival_us - clock->arrival_us;
    double late_us = (double)(arrival_us - pts_us - clock->anchor_us) - arrival_offset(clock, pts_us);
    return passed_us - waited_us > LEAP_US && late_us < -LEAP_US / 2;
}

// ---- Camera

// Keeps what the camera says; *leap_us is by how much it changed its mind.
static int take_camera(struct sl_liveclock *clock, int64_t pts_us, int64_t arrival_us, int64_t camera_us,
                       double *leap_us)
{
    // After PTS have leapt, a report from before is off by at least that much.
    double off_us = (double)(camera_us - pts_us - clock->anchor_us);
    *leap_us = clock->camera_seen ? off_us - clock->camera_us : 0;
    if (!clock->camera_seen || fabs(*leap_us) > CAMERA_UNEVEN_US) {
        clock->camera_steady_us = arrival_us;
    }
    if ((clock->camera_seen && fabs(*leap_us) > ROUNDING_US) ||
        fabs(off_us - arrival_offset(clock, pts_us)) < LEAP_US / 2) {
        clock->needs_report = 0;
    }
    clock->camera_seen = 1;
    clock->camera_us = off_us;
    return 1;
}

static int camera_is_good(const struct sl_liveclock *clock, int64_t arrival_us)
{
    return clock->camera_seen && !clock->needs_report && arrival_us >= clock->camera_distrusted_us &&
           clock->count > SLOPE_POINTS + 1 && fabs(clock->slope) < SLOPE_OF_NO_CLOCK &&
           arrival_us - clock->camera_steady_us >= (clock->camera_leapt ? CALM_US : STEADY_US) &&
           fabs(clock->camera_us) < CAMERA_LIMIT_US;
}

// What a camera in use says moves away from arrival: it derives its wall time from PTS that do not run at its rate.
static int parts_from_arrival(const struct sl_liveclock *clock, double arrival_offset_us)
{
    double parted_us = clock->camera_us - arrival_offset_us - clock->camera_gap_us;
    return fabs(clock->slope) >= SLOPE_OF_NO_CLOCK || fabs(parted_us) > CAMERA_PARTED_US;
}

static enum sl_liveclock_turn step(struct sl_liveclock *clock, double offset_us, enum sl_live_origin origin)
{
    clock->offset_us = offset_us;
    clock->origin = origin;
    clock->camera_gap_us = clock->camera_us - arrival_offset(clock, clock->pts_us);
    return SL_LIVECLOCK_STEP;
}

// The camera in use has changed its mind by leap_us.
static enum sl_liveclock_turn follow_leap(struct sl_liveclock *clock, int64_t arrival_us, double leap_us,
                                          double arrival_offset_us)
{
    int calm = !clock->camera_leapt || arrival_us - clock->camera_leapt_us >= CALM_US;
    clock->camera_leapt = 1;
    clock->camera_leapt_us = arrival_us;
    int is_sane = fabs(clock->camera_us - arrival_offset_us) < CAMERA_LIMIT_US;
    if (fabs(leap_us) >= CAMERA_LEAP_US && calm && is_sane) { // it was set
        return step(clock, clock->camera_us, SL_LIVE_CAMERA);
    }
    // From report to report the PTS go astray: they do not run at the rate of the camera's own wall clock.
    clock->camera_distrusted_us = arrival_us + DISTRUST_US;
    return step(clock, arrival_offset_us, SL_LIVE_ARRIVAL);
}

static void slew(struct sl_liveclock *clock, double wanted_us, double natural_us, int64_t passed_us)
{
    double most = SLEW * (double)(passed_us > 0 ? passed_us : 0);
    clock->offset_us += natural_us;
    double move = wanted_us - clock->offset_us;
    clock->offset_us += move > most ? most : move < -most ? -most : move;
}

// ---- What was stated

void sl_liveclock_state(struct sl_liveclock *clock, int64_t pts_us, int64_t wall_us, int64_t error_us,
                        enum sl_live_origin origin)
{
    clock->is_stated = 1;
    clock->is_provisional = 0;
    clock->stated_us = wall_us - pts_us;
    clock->stated_pts_us = pts_us;
    clock->stated_error_us = error_us;
    clock->stated_origin = origin;
}

static enum sl_liveclock_turn follow_stated(struct sl_liveclock *clock, int64_t passed_us)
{
    double wanted_us = (double)(clock->stated_us - clock->anchor_us);
    clock->origin = clock->stated_origin;
    if (fabs(wanted_us - clock->offset_us) > CAMERA_LEAP_US) {
        clock->offset_us = wanted_us;
        return SL_LIVECLOCK_STEP;
    }
    slew(clock, wanted_us, 0, passed_us);
    return SL_LIVECLOCK_ON;
}

// A new beginning. What was stated of another PTS counts no more.
static enum sl_liveclock_turn begin(struct sl_liveclock *clock, int64_t pts_us, int64_t arrival_us)
{
    anchor(clock, pts_us, arrival_us);
    clock->is_stated = clock->is_stated && clock->stated_pts_us == pts_us;
    if (clock->is_stated) {
        clock->is_provisional = 0;
        clock->origin = clock->stated_origin;
        clock->offset_us = (double)(clock->stated_us - clock->anchor_us);
    }
    return SL_LIVECLOCK_STEP;
}

enum sl_liveclock_turn sl_liveclock_packet(struct sl_liveclock *clock, int64_t pts_us, int64_t arrival_us, int fresh,
                                           int64_t camera_us, int64_t *shift_us)
{
    *shift_us = 0;
    if (!clock->is_set) {
        clock->is_provisional = !fresh;
        return begin(clock, pts_us, arrival_us);
    }
    if (clock->is_provisional) {
        if (!fresh) {
            return SL_LIVECLOCK_ON;
        }
        *shift_us = arrival_us - pts_us - clock->anchor_us;
        anchor(clock, pts_us, arrival_us);
        clock->is_provisional = 0;
        return SL_LIVECLOCK_SHIFT;
    }
    int64_t passed_us = pts_us - clock->pts_us;
    if (passed_us < -LEAP_US || leaps_ahead(clock, pts_us, arrival_us)) {
        clock->needs_report = 1;
        return begin(clock, pts_us, arrival_us);
    }
    clock->arrival_us = arrival_us;
    clock->pts_us = pts_us;
    take_arrival(clock, pts_us, arrival_us);
    if (clock->was_moved) {
        clock->was_moved = 0;
        return SL_LIVECLOCK_STEP;
    }
    if (clock->is_stated) {
        return follow_stated(clock, passed_us);
    }
    double arrival_us_off = arrival_offset(clock, pts_us);
    double leap_us = 0;
    if (camera_us != SL_NO_TIME && take_camera(clock, pts_us, arrival_us, camera_us, &leap_us) &&
        clock->origin == SL_LIVE_CAMERA && fabs(leap_us) > CAMERA_UNEVEN_US) {
        return follow_leap(clock, arrival_us, leap_us, arrival_us_off);
    }
    if (clock->origin == SL_LIVE_CAMERA && parts_from_arrival(clock, arrival_us_off)) {
        clock->camera_distrusted_us = arrival_us + DISTRUST_US;
        return step(clock, arrival_us_off, SL_LIVE_ARRIVAL);
    }
    if (clock->origin == SL_LIVE_CAMERA) {
        slew(clock, clock->camera_us, 0, passed_us);
        return SL_LIVECLOCK_ON;
    }
    slew(clock, arrival_us_off, clock->slope * (double)passed_us / SECOND, passed_us);
    if (!camera_is_good(clock, arrival_us)) {
        return SL_LIVECLOCK_ON;
    }
    double shift = clock->camera_us - clock->offset_us;
    if (fabs(shift) > CAMERA_SHIFT_US) {
        return step(clock, clock->camera_us, SL_LIVE_CAMERA);
    }
    *shift_us = llround(shift);
    clock->offset_us += (double)*shift_us;
    clock->origin = SL_LIVE_CAMERA;
    clock->camera_gap_us = clock->camera_us - arrival_us_off;
    return SL_LIVECLOCK_SHIFT;
}

int64_t sl_liveclock_wall_us(const struct sl_liveclock *clock, int64_t pts_us)
{
    return pts_us + clock->anchor_us + llround(clock->offset_us);
}

int64_t sl_liveclock_error_us(const struct sl_liveclock *clock)
{
    if (clock->is_stated) {
        return clock->stated_error_us;
    }
    if (clock->origin == SL_LIVE_CAMERA) {
        return CAMERA_ERROR_US;
    }
    return ARRIVAL_ERROR_US + llround(clock->spread_us / 2);
}
