// SPDX-License-Identifier: Apache-2.0
// Threads that decode the parts of one file side by side, and the order of their pictures restored. Private to decode/.
//
// Lanes own their threads, inputs and decoders. All functions are for the one thread that uses the source.
#ifndef SL_DECODE_LANES_H
#define SL_DECODE_LANES_H

#include "decode/decode.h"
#include "decode/input.h"

struct sl_lanes;

// What follows from the lanes' side.
enum sl_lanes_turn {
    SL_LANES_SAMPLE,    // a sample
    SL_LANES_END,       // the last one is over
    SL_LANES_HAND_OVER, // something is odd: one session has to go on from here
};

// One sample: its picture stays the lanes' until the next call.
struct sl_lanes_sample {
    int64_t index;
    int64_t pts_us;
    AVFrame *picture;
    int is_new;    // not the picture of the sample before
    int is_beside; // by one of options->cpu_lanes
};

// From where a session goes on, so that it sees what it would have seen had it read all of the file.
struct sl_lanes_rest {
    int64_t index;                  // of the next sample
    int64_t seek_us;                // begin a part there; SL_NO_TIME: go to the start
    int64_t read_end_us;            // as in struct sl_input
    struct sl_source_counts counts; // of what lies before seek_us
    struct sl_error fault;          // the call that failed; SL_OK: none that says why
};

// Starts options->lanes lanes, one at least, and options->cpu_lanes over the file that `input` has open (with its index
// read), which is only looked at. `path` and `options` outlive them. *lanes is NULL on failure, and where the file
// cannot be cut into parts.
int sl_lanes_start(const char *path, const struct sl_source_options *options, const struct sl_input *input,
                   struct sl_lanes **lanes, struct sl_error *error);

// Stops and frees everything; waits for the threads, which look up at every packet. Accepts NULL.
void sl_lanes_stop(struct sl_lanes *lanes);

// Waits for the next sample. Returns SL_OK and fills *turn, or SL_ERR_INTERRUPTED.
int sl_lanes_next(struct sl_lanes *lanes, enum sl_lanes_turn *turn, struct sl_lanes_sample *sample,
                  struct sl_error *error);

// After SL_LANES_HAND_OVER.
struct sl_lanes_rest sl_lanes_rest(struct sl_lanes *lanes);
// After SL_LANES_END: where the pictures end.
int64_t sl_lanes_end_us(const struct sl_lanes *lanes);
// Of the parts that were handed out as a whole.
struct sl_source_counts sl_lanes_counts(const struct sl_lanes *lanes);

struct sl_source_counts sl_counts_sum(struct sl_source_counts a, struct sl_source_counts b);

#endif
