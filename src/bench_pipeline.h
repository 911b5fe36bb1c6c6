// SPDX-License-Identifier: Apache-2.0
// The real pipeline, file to index, with answers of a fixed number of tokens; and each of its stages alone, so that the
// one that binds has a name. For `scenelog bench --pipeline`.
#ifndef SL_SRC_BENCH_PIPELINE_H
#define SL_SRC_BENCH_PIPELINE_H

#include "src/pipeline.h"
#include "src/timing.h"

struct sl_bench_pipeline_options {
    const char *path;
    struct sl_model_options model; // pairs_per_window and max_new_tokens follow from `rules`
    struct sl_window_rules rules;
    int64_t from_us, to_us;
    enum sl_decoder decoder; // these three as in struct sl_pipeline
    int decode_lanes, decode_cpu_lanes, gpu_index, decode_all;
    int64_t repeat; // measurements of each stage alone
};

// The stages, in the order of the walk. The last three share the engine's thread.
enum sl_bench_stage {
    SL_STAGE_READ,    // container, decoding
    SL_STAGE_RESIZE,  // to the model's size
    SL_STAGE_VISION,  // patches, tower
    SL_STAGE_PREFILL, // of the text model
    SL_STAGE_DECODE,  // of its answer, as many windows at once as the pipeline has in flight
    SL_STAGES,
};

struct sl_bench_pipeline_figures {
    char model[128];
    struct sl_device_info device;
    const char *path;
    struct sl_window_rules rules;
    double load_s, total_s, media_s; // media_s: of the span that was indexed
    int64_t windows, windows_failed;
    int in_flight; // windows decoded at once
    int64_t prompt_tokens, generated_tokens;
    int64_t samples, on_device; // pictures shown to the model; of those, decoded into the GPU's memory
    int64_t pictures;           // decoded in all
    double cores;               // of the host, busy on average
    double stage_s[SL_STAGES];  // what the whole span would take, were there this stage alone
    enum sl_bench_stage binds;
};

const char *sl_bench_stage_name(enum sl_bench_stage stage);
int sl_bench_pipeline(const struct sl_bench_pipeline_options *options, struct sl_bench_pipeline_figures *out,
                      struct sl_error *error);

#endif
