// SPDX-License-Identifier: Apache-2.0
// Private to the pipeline: the state of one run and its three stages, each a thread of its own (src/pipeline.h).
//
// Every field says which thread may touch it; what is not marked is set before the threads start and read-only then.
#ifndef SL_SRC_STAGES_H
#define SL_SRC_STAGES_H

#include <pthread.h>

#include "core/queue.h"
#include "decode/decode.h"
#include "src/pipeline.h"

// A stretch of media time that nobody has done yet; to_us may be SL_NO_TIME.
struct sl_stretch {
    int64_t from_us, to_us;
};

// What travels from the reader to the windower. A break: the stretch is over, its pictures end at end_us.
enum sl_item_kind { SL_ITEM_SAMPLE, SL_ITEM_HOLE, SL_ITEM_BREAK };
struct sl_item {
    enum sl_item_kind kind;
    struct sl_sample sample;
    struct sl_hole hole;
    int64_t end_us;
};

struct sl_run {
    const struct sl_pipeline *job;
    struct sl_pipeline_progress *progress; // atomics
    struct sl_choice choice;               // once the source's name is known
    struct sl_db_media media;
    int64_t segment;
    struct sl_db_claim claim;
    int64_t duration_us;   // of the media, as stated; SL_NO_TIME: not known
    int64_t wall_start_us; // Unix time of media time 0; SL_NO_TIME: not known
    int frames_per_window;
    struct sl_stretch *stretches;
    int stretch_count;
    int reaches_end; // the last stretch is open: its end is the media's end

    struct sl_fifo *samples; // reader -> windower: struct sl_item
    struct sl_fifo *windows; // windower -> writer: struct sl_window, in time order
    struct sl_fifo
        *clips; // writer -> windower: struct sl_clip that are free; their number bounds the windows in flight
    struct sl_clip **all_clips;
    int clip_count;

    struct sl_stream *stream; // windower's

    pthread_mutex_t lock;
    struct sl_error error; // under the lock: the first fault that stopped the run
    atomic_int stopping;
    atomic_int truncated;
    atomic_int written;     // the writer is done
    _Atomic int64_t end_us; // where the media ends, once the reader has seen it; SL_NO_TIME before
};

// Stops all stages soon; the first error is kept. Any thread.
void sl_run_stop(struct sl_run *run, const struct sl_error *error);
// 1 when the run is stopping, or the user wants it to. Any thread; the form is that of sl_source_options.interrupted.
int sl_run_must_stop(void *run);
// One line for people, with the path in front. Any thread.
void sl_run_note(void *run, const char *text);
void sl_item_drop(void *item);

// Which stretches are to be read. Before the threads start.
int sl_reader_plan(struct sl_run *run, struct sl_error *error);

// Threads; `run` is a struct sl_run.
void *sl_reader_thread(void *run);
void *sl_windower_thread(void *run);
void *sl_writer_thread(void *run);

#endif
