// SPDX-License-Identifier: Apache-2.0
// How a run's media is decoded: by how many sessions side by side, and where. On a GPU each has a stream of its own.
#ifndef SL_SRC_LANES_H
#define SL_SRC_LANES_H

#include "decode/decode.h"
#include "src/pipeline.h"

struct sl_lanes {
    int count;
    struct sl_stream *stream[SL_LANES_MAX];
    void *native[SL_LANES_MAX];
    const struct sl_device_ops *ops;
};

// Fills in the options of a source for this job, but for its span and callbacks. They name `lanes`, which stays where
// it is until sl_lanes_close, behind the last source.
int sl_lanes_open(const struct sl_pipeline *job, struct sl_lanes *lanes, struct sl_source_options *options,
                  struct sl_error *error);
void sl_lanes_close(struct sl_lanes *lanes); // of a failed one, too

// What --decoder says.
int sl_lanes_read_decoder(const char *text, enum sl_decoder *out, struct sl_error *error);

#endif
