// SPDX-License-Identifier: Apache-2.0
// One media file through all rooms: decode -> windows -> engine -> pieces -> index. The only place where they meet.
//
// Threads, joined by bounded queues; a file waits (back-pressure):
//   reader     decodes and hands samples on                          (decode/)
//   windower   resizes, cuts windows, asks the engine                (vision/ through the device, lm/)
//   [engine]   the model's own: vision, prefill, decode of many windows at once
//   writer     waits for the answers in time order, commits          (db/)
// The calling thread watches progress and signals until the writer is done.
#ifndef SL_SRC_PIPELINE_H
#define SL_SRC_PIPELINE_H

#include <stdatomic.h>

#include "db/db.h"
#include "src/window.h"

// What the watcher may read while the pipeline runs.
struct sl_pipeline_progress {
    _Atomic int64_t media_us;                                      // how far windows are committed
    _Atomic int64_t duration_us;                                   // of the span to be indexed; 0: not known
    _Atomic int64_t windows_done, windows_failed, windows_skipped; // skipped: done by an earlier run
    _Atomic int64_t events, generated_tokens, prompt_tokens;
};

enum sl_decoder { SL_DECODER_AUTO, SL_DECODER_CPU, SL_DECODER_NVDEC }; // auto: where the model runs

struct sl_pipeline {
    struct sl_model *model; // with its eye: takes all windows, unless `choose` says which on the same device do
    struct sl_eye *eye;
    struct sl_db *db; // used by the writer while the pipeline runs
    const struct sl_window_rules *rules;
    const char *path;        // file or URL
    const char *source_name; // NULL: the index decides
    int64_t from_us, to_us;  // media time; SL_NO_TIME: open
    int64_t wall_start_us;   // of media time 0; SL_NO_TIME: none
    int wall_from_metadata;  // 1: wall_start_us is the creation time that the container states
    int64_t task, run;
    int force;               // redo what is done
    int threads;             // decoder threads
    enum sl_decoder decoder; // where pictures are decoded
    int decode_lanes;        // sessions that decode one file side by side; 0: as many as suit the decoder
    int decode_cpu_lanes;    // beside those on the GPU, on the CPU
    int decode_all;          // 1: also pictures that no sample needs (for measuring)
    int gpu_index;           // the ordinal of the model's device, if that is a GPU
    void *context;
    struct sl_choice (*choose)(void *context, const char *source);       // may be NULL
    int (*interrupted)(void *context);                                   // any thread; nonzero: stop soon
    void (*note)(void *context, const char *text);                       // any thread; one line for people
    void (*tick)(void *context, const struct sl_pipeline_progress *now); // calling thread, several times a second
};

// Returns SL_OK; SL_ERR_PARTIAL when windows failed; SL_ERR_TRUNCATED when the file ends early (what there was is
// indexed); SL_ERR_INTERRUPTED (finished windows are committed, the rest is left for the next run); or what stopped it.
int sl_pipeline_run(const struct sl_pipeline *job, struct sl_pipeline_progress *progress, struct sl_error *error);

#endif
