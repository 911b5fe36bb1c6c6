// SPDX-License-Identifier: Apache-2.0
// Two models side by side: one picture, one answer, one at a time. Each is measured in a process of its own, so that
// the memory that it takes is its own and nothing is left of the first when the second comes.
#ifndef SL_SRC_BENCH_COMPARE_H
#define SL_SRC_BENCH_COMPARE_H

#include "src/bench_model.h"

enum { SL_BENCH_COMPARED = 2 };

struct sl_bench_comparison {
    int64_t picture_width, picture_height, answer_tokens, repeat;
    struct sl_bench_figures model[SL_BENCH_COMPARED];
};

// `what`: folders, or config.json files for random weights. Of the options model_dir, shape and parts are not looked
// at. Call before the process has threads.
int sl_bench_compare(const struct sl_bench_options *options, const char *const what[SL_BENCH_COMPARED],
                     struct sl_bench_comparison *out, struct sl_error *error);

#endif
