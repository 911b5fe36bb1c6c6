// SPDX-License-Identifier: Apache-2.0
// A model's speed on a device, at points that can be compared: the figures of `scenelog bench`, measured through the
// same engine, clip and tower that `index` uses.
#ifndef SL_SRC_BENCH_MODEL_H
#define SL_SRC_BENCH_MODEL_H

#include "src/bench_ask.h"
#include "src/model.h"

enum sl_bench_part {
    SL_BENCH_LOAD = 1,
    SL_BENCH_VISION = 2,
    SL_BENCH_PREFILL = 4,
    SL_BENCH_DECODE = 8,
    SL_BENCH_ANSWER = 16,
    SL_BENCH_CHUNK = 32,
};

enum {
    SL_BENCH_MAX_BATCHES = 16,
    SL_BENCH_ANSWER_TOKENS = 512,
    SL_BENCH_PICTURE_WIDTH = 1920,
    SL_BENCH_PICTURE_HEIGHT = 1080,
};

struct sl_bench_options {
    const char *model_dir;   // not looked at with `shape`
    const char *shape;       // a config.json; random weights
    const char *device;      // as sl_model_open_device() takes it
    int64_t threads, repeat; // repeat: measurements of each figure
    int parts;               // enum sl_bench_part, or-ed; 0: what the device makes sensible
    int64_t batch[SL_BENCH_MAX_BATCHES];
    int batch_count;
    // 0: what the device makes sensible
    int64_t context, pairs, prompt_tokens, prefill_rows;
    int64_t width, height;
    int64_t picture_width, picture_height, answer_tokens; // of SL_BENCH_ANSWER; 0: as above
};

struct sl_bench_decode {
    int batch;
    int fits;                // 0: not measured, memory is too small
    struct sl_spread step_s; // one token of each sequence
    double floor_s;          // all that it must read, at the memory's rate
};

// Chunks of 10 s as video search blueprints cut them: 40 pairs of 448x448, and a short answer.
enum { SL_BENCH_CHUNK_PAIRS = 40, SL_BENCH_CHUNK_SIDE = 448, SL_BENCH_CHUNK_SECONDS = 10, SL_BENCH_MAX_CHUNKS = 16 };
struct sl_bench_chunk {
    int batch, output_tokens;
    int64_t prompt_tokens;
    struct sl_spread seconds; // until all of the batch are answered
};

// Figures that were not measured are 0.
struct sl_bench_figures {
    struct sl_device_info device;
    enum sl_dtype compute;
    char model[128];
    int parts;                    // measured
    double memory_bytes_per_s;    // read by a CPU; read and written by a GPU that copies
    double product_flops;         // one matrix product of the MLP's size, alone
    double load_s, weights_bytes; // device opened; until the first request can be taken
    int64_t pairs;
    int width, height;                              // as the model sees them
    struct sl_spread vision_s;                      // the tower alone over all pairs at once
    double vision_flops, prefill_flops, text_flops; // operations of each
    int64_t prefill_tokens;                         // of a prompt with all pairs
    struct sl_spread prefill_s;                     // tower included
    int64_t text_tokens;
    struct sl_spread text_s;
    int64_t context;
    struct sl_bench_decode decode[SL_BENCH_MAX_BATCHES];
    int decode_count;
    int64_t answer_prompt_tokens;
    struct sl_spread first_token_s, answer_s; // of one pair of 1920x1080: resize, tower, prefill (and 512 tokens)
    struct sl_spread answer_rate;             // tokens a second from the first to the last
    struct sl_bench_chunk chunk[16];
    int chunk_count;
    int64_t peak_bytes;    // of the device's memory; of a CPU's process
    int64_t largest_batch; // sequences of `context` tokens that memory holds beside the weights
};

int sl_bench_model(const struct sl_bench_options *options, struct sl_bench_figures *out, struct sl_error *error);

#endif
