// SPDX-License-Identifier: Apache-2.0
// The figures of `scenelog bench` on standard output, as a table or as one JSON object (keys: `scenelog help bench`).
#ifndef SL_SRC_BENCH_REPORT_H
#define SL_SRC_BENCH_REPORT_H

#include "src/bench_compare.h"
#include "src/bench_pipeline.h"

void sl_bench_print_model(const struct sl_bench_figures *figures);
int sl_bench_print_model_json(const struct sl_bench_figures *figures, struct sl_error *error);
void sl_bench_print_comparison(const struct sl_bench_comparison *comparison);
int sl_bench_print_comparison_json(const struct sl_bench_comparison *comparison, struct sl_error *error);
void sl_bench_print_pipeline(const struct sl_bench_pipeline_figures *figures);
int sl_bench_print_pipeline_json(const struct sl_bench_pipeline_figures *figures, struct sl_error *error);

#endif
