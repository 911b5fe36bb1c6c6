// SPDX-License-Identifier: Apache-2.0
// Wall time of a live stream: which Unix time belongs to a time of the stream's own clock. Private to decode/. Pure: no
// clock is read here, so that hours can be tried in milliseconds.
//
// Two things tell, where nobody states the time (hls.h): when a packet arrives here, and what the camera says in its
// RTCP sender reports.
//   - Arrival minus PTS is the stream's offset plus the delay of the network, which is never negative: the lower
//     envelope of the last half minute counts, one point a second, with a slope only where the points show one beyond
//     doubt (a camera that declares 25 pictures a second and delivers 21 runs 16 % slow).
//   - The camera's word is taken once it has been steady for a while, is not absurdly far from arrival, and its own PTS
//     run at the rate of its wall clock; else arrival stays.
// The offset in use follows smoothly, so that time neither drifts nor jumps. What cannot be followed (PTS that leap or
// go back, a wall clock that steps) is a step: the caller begins a new segment.
#ifndef SL_DECODE_LIVECLOCK_H
#define SL_DECODE_LIVECLOCK_H

#include <stdint.h>

#include "decode/decode.h"

enum { SL_LIVECLOCK_POINTS = 32 };

struct sl_liveclock {
    int is_set;         // an offset is in use
    int is_provisional; // of packets that lay in a buffer: too late, for all alike
    enum sl_live_origin origin;
    double offset_us; // wall time - PTS, of the packet before
    int64_t pts_us, arrival_us;

    // Arrival: the least offset of each second, counted from anchor_us so that doubles stay exact.
    int64_t anchor_us;
    struct sl_liveclock_point {
        double at_s, least_us;
    } points[SL_LIVECLOCK_POINTS], open;
    int count, late;        // late: seconds in a row that were
    double slope, level_us; // offset = anchor + level + slope * seconds since the anchor
    int64_t anchor_pts_us;
    double spread_us; // of the points about the line

    // Camera.
    int camera_seen;
    double camera_us;             // its offset, of the packet before
    double camera_gap_us;         // from arrival, when it was taken
    int64_t camera_steady_us;     // arrival since when it has not leapt
    int64_t camera_distrusted_us; // arrival until when it is not taken
    int camera_leapt;             // while it was in use, at camera_leapt_us
    int64_t camera_leapt_us;
    // What was stated (a playlist's dates): counts until the PTS leap.
    int is_stated;
    int64_t stated_us; // wall time - PTS
    int64_t stated_pts_us, stated_error_us;
    enum sl_live_origin stated_origin;

    int was_moved;    // by this machine's clock
    int needs_report; // the PTS leapt: what the camera said before is about another clock
};

enum sl_liveclock_turn {
    SL_LIVECLOCK_ON,    // goes on
    SL_LIVECLOCK_SHIFT, // goes on, but something better is known now (what packets that are waited for tell; the
                        // camera's word): all of the segment was *shift_us off
    SL_LIVECLOCK_STEP,  // a new segment begins with this packet
};

// One packet. fresh: it was waited for, so that its arrival tells something. camera_us: its Unix time by the camera's
// reports, else SL_NO_TIME.
enum sl_liveclock_turn sl_liveclock_packet(struct sl_liveclock *clock, int64_t pts_us, int64_t arrival_us, int fresh,
                                           int64_t camera_us, int64_t *shift_us);
// Somebody who knows says at what wall time this PTS was, of the packet to be given next. Neither arrival nor reports
// count any more, until the PTS leap.
void sl_liveclock_state(struct sl_liveclock *clock, int64_t pts_us, int64_t wall_us, int64_t error_us,
                        enum sl_live_origin origin);
// This machine's clock was set by this much. A camera in use is not concerned; else the next packet makes a step.
void sl_liveclock_moved(struct sl_liveclock *clock, int64_t by_us);

int64_t sl_liveclock_wall_us(const struct sl_liveclock *clock, int64_t pts_us);
int64_t sl_liveclock_error_us(const struct sl_liveclock *clock); // plus or minus

#endif
