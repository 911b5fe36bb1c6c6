// SPDX-License-Identifier: Apache-2.0
#include "decode/liveclock.h"

#include <math.h>
#include <string.h>

#define SECOND 1000000.0

// PTS that move by this much more than time does, or back by it, are another clock. Reordered pictures are far below.
#define LEAP_US 1000000
// The offset in use moves towards the better one by at most this part of the time that passes.
#define SLEW 0.25
// A slope is believed from so many points on, and when it is so many times its own standard error.
#define SLOPE_POINTS       4
#define SLOPE_SIGNIFICANCE 4.0
#define SLOPE_MOST         0.5
#define STEADY_US          1500000
#define DISTRUST_US        60000000
// A camera whose clock is further off than this has never been set.
#define CAMERA_LIMIT_US  60000000
#define CAMERA_LEAP_US   500000.0
#define CAMERA_UNEVEN_US 100000.0
// Of RTP ticks and microseconds; more than that is a new report.
#define ROUNDING_US     30.0
#define CAMERA_SHIFT_US 1000000.0
// What nothing here can see: exposure, encoding, the way out of the camera.
#define CAMERA_ERROR_US  50000
#define ARRIVAL_ERROR_US 200000

static void anchor(struct sl_liveclock *clock, int64_t pts_us, int64_t arrival_us)
{
    clock->is_set = 1;
    clock->origin = SL_LIVE_ARRIVAL;
    clock->anchor_us = arrival_us - pts_us;
    clock->anchor_pts_us = pts_us;
    clock->offset_us = 0;
    clock->count = 0;
    clock->slope = clock->level_us = clock->spread_us = 0;
    clock->open = (struct sl_liveclock_point){0, INFINITY};
    clock->pts_us = pts_us;
    clock->arrival_us = arrival_us;
    clock->camera_seen = 0;
}

void sl_liveclock_restart(struct sl_liveclock *clock)
{
    clock->is_set = 0;
}

static double seconds(const struct sl_liveclock *clock, int64_t pts_us)
{
    return (double)(pts_us - clock->anchor_pts_us) / SECOND;
}

// ---- Arrival

// Least squares; the slope is 0 unless it stands out of the points' own scatter.
static double fit_slope(const struct sl_liveclock *clock)
{
    int n = clock->count;
    double mean_at = 0, mean = 0, across = 0, along = 0, rest = 0;
    for (int i = 0; i < n; i++) {
        mean_at += clock->points[i].at_s / n;
        mean += clock->points[i].least_us / n;
    }
    for (int i = 0; i < n; i++) {
        double at = clock->points[i].at_s - mean_at;
        along += at * at;
        across += at * (clock->points[i].least_us - mean);
    }
    if (n < SLOPE_POINTS || along <= 0) {
        return 0;
    }
    double slope = across / along;
    for (int i = 0; i < n; i++) {
        double off = clock->points[i].least_us - mean - slope * (clock->points[i].at_s - mean_at);
        rest += off * off;
    }
    double doubt = sqrt(rest / (n - 2) / along);
    int is_real = fabs(slope) > SLOPE_SIGNIFICANCE * doubt && fabs(slope) > 20 && fabs(slope) < SLOPE_MOST * SECOND;
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
    clock->level_us = least;
    clock->spread_us = most - least;
}

static void keep_point(struct sl_liveclock *clock)
{
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

static double arrival_offset(const struct sl_liveclock *clock, int64_t pts_us)
{
    return clock->count > 0 ? clock->level_us + clock->slope * seconds(clock, pts_us) : 0;
}

// ---- Camera

// Keeps what the camera says; *leap_us is by how much it changed its mind.
static int take_camera(struct sl_liveclock *clock, int64_t pts_us, int64_t arrival_us, int64_t camera_us,
                       double *leap_us)
{
    double off_us = (double)(camera_us - pts_us - clock->anchor_us);
    *leap_us = clock->camera_seen ? off_us - clock->camera_us : 0;
    if (!clock->camera_seen || fabs(*leap_us) > CAMERA_UNEVEN_US) {
        clock->camera_steady_us = arrival_us;
    }
    if (clock->camera_seen && fabs(*leap_us) > ROUNDING_US) {
        clock->needs_report = 0;
    }
    clock->camera_seen = 1;
    clock->camera_us = off_us;
    return 1;
}

static int camera_is_good(const struct sl_liveclock *clock, int64_t arrival_us)
{
    return clock->camera_seen && !clock->needs_report && arrival_us >= clock->camera_distrusted_us &&
           arrival_us - clock->camera_steady_us >= STEADY_US && fabs(clock->camera_us) < CAMERA_LIMIT_US;
}

static enum sl_liveclock_turn step(struct sl_liveclock *clock, double offset_us, enum sl_live_origin origin)
{
    clock->offset_us = offset_us;
    clock->origin = origin;
    return SL_LIVECLOCK_STEP;
}

// The camera in use has changed its mind by leap_us.
static enum sl_liveclock_turn follow_leap(struct sl_liveclock *clock, int64_t arrival_us, double leap_us,
                                          double arrival_offset_us)
{
    if (fabs(leap_us) >= CAMERA_LEAP_US) {
        clock->camera_steady_us = arrival_us;
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

enum sl_liveclock_turn sl_liveclock_packet(struct sl_liveclock *clock, int64_t pts_us, int64_t arrival_us, int fresh,
                                           int64_t camera_us, int64_t *shift_us)
{
    *shift_us = 0;
    if (!clock->is_set) {
        if (!fresh) {
            return SL_LIVECLOCK_WAIT;
        }
        anchor(clock, pts_us, arrival_us);
        take_arrival(clock, pts_us, arrival_us);
        return SL_LIVECLOCK_STEP;
    }
    int64_t passed_us = pts_us - clock->pts_us;
    int64_t waited_us = arrival_us - clock->arrival_us;
    if (passed_us < -LEAP_US || passed_us - waited_us > LEAP_US) {
        anchor(clock, pts_us, arrival_us);
        take_arrival(clock, pts_us, arrival_us);
        clock->needs_report = 1;
        return SL_LIVECLOCK_STEP;
    }
    clock->arrival_us = arrival_us;
    clock->pts_us = pts_us;
    take_arrival(clock, pts_us, arrival_us);
    double arrival_us_off = arrival_offset(clock, pts_us);
    double leap_us = 0;
    if (camera_us != SL_NO_TIME && take_camera(clock, pts_us, arrival_us, camera_us, &leap_us) &&
        clock->origin == SL_LIVE_CAMERA && fabs(leap_us) > CAMERA_UNEVEN_US) {
        return follow_leap(clock, arrival_us, leap_us, arrival_us_off);
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
    return SL_LIVECLOCK_SHIFT;
}

int64_t sl_liveclock_wall_us(const struct sl_liveclock *clock, int64_t pts_us)
{
    return pts_us + clock->anchor_us + llround(clock->offset_us);
}

int64_t sl_liveclock_error_us(const struct sl_liveclock *clock)
{
    if (clock->origin == SL_LIVE_CAMERA) {
        return CAMERA_ERROR_US;
    }
    return ARRIVAL_ERROR_US + llround(clock->spread_us / 2);
}
