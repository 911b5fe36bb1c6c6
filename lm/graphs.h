// SPDX-License-Identifier: Apache-2.0
// Decoding steps that were captured on the device and are launched again as a whole: the same operations on the same
// buffers, only what lies in them differs. One thread at a time, one stream.
#ifndef SL_LM_GRAPHS_H
#define SL_LM_GRAPHS_H

#include "core/device.h"

enum {
    SL_GRAPHS_MOST = 128,
    SL_GRAPHS_TRIES = 3, // captures of a step that may fail, as when something else on the device got in between
};

struct sl_graph_entry {
    int64_t rows, width;    // of the step, of its page table
    int64_t used;           // a clock that counts uses
    struct sl_graph *graph; // NULL: seen once, as plain operations, or not to be captured
    int failed;             // captures so far
};

struct sl_graphs {
    const struct sl_device_ops *ops;
    struct sl_graph_entry entries[SL_GRAPHS_MOST];
    int count;
    int64_t clock;
    int unsupported; // the device captures nothing
};

void sl_graphs_clear(struct sl_graphs *graphs); // the stream or a buffer is another one now

// Launches a step that was captured. Else runs `enqueue`, and from the second time on captures it: the first run sizes
// the stream's scratch and lets the device choose its algorithms.
void sl_graphs_run(struct sl_graphs *graphs, struct sl_stream *stream, int64_t rows, int64_t width,
                   void (*enqueue)(void *context), void *context);

#endif
