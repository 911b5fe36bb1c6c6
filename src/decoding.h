// SPDX-License-Identifier: Apache-2.0
// How a run's media is decoded: by how many sessions side by side, and where. On a GPU each has a stream of its own.
#ifndef SL_SRC_DECODING_H
#define SL_SRC_DECODING_H

#include "decode/decode.h"
#include "src/pipeline.h"

struct sl_decoding {
    int count;
    struct sl_stream *stream[SL_LANES_MAX];
    void *native[SL_LANES_MAX];
    const struct sl_device_ops *ops;
};

// Fills in the options of a source for this job, but for its span and callbacks. They name `decoding`, which stays
// where it is until sl_decoding_close, behind the last source.
int sl_decoding_open(const struct sl_pipeline *job, struct sl_decoding *decoding, struct sl_source_options *options,
                     struct sl_error *error);
void sl_decoding_close(struct sl_decoding *decoding); // of a failed one, too

// What --decoder says.
int sl_decoding_read_decoder(const char *text, enum sl_decoder *out, struct sl_error *error);

#endif
