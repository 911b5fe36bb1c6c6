// SPDX-License-Identifier: Apache-2.0
// Products by oneDNN, for processors whose matrix units our own kernels do not use (AMX). Elsewhere our own come within
// some per cent of it (tests/bench/bench_cpu.c), leave the weights as they are in the file, and save a pass over the
// results. Without oneDNN in the build: never there.
#ifndef SL_CPU_ONEDNN_H
#define SL_CPU_ONEDNN_H

#include "cpu/linear.h"

struct cpu_onednn;

int cpu_onednn_pays(void); // on this processor

// NULL when it cannot be had. Used under the device's turn.
struct cpu_onednn *cpu_onednn_create(void);
void cpu_onednn_destroy(struct cpu_onednn *onednn); // accepts NULL

void cpu_product_onednn(struct sl_stream *stream, const struct cpu_product *product);

#endif
