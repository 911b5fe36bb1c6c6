// SPDX-License-Identifier: Apache-2.0
// What this machine reaches alone: one matrix product by oneDNN, and reading memory. For `scenelog bench`.
#ifndef SL_SRC_REFERENCE_H
#define SL_SRC_REFERENCE_H

#include "core/device.h"

// Operations a second of x [rows, in] times w [out, in] transposed, in `compute` (f32 or bf16), by oneDNN with the
// weights in whichever layout it likes best; median of several. 0 in a build without oneDNN, or where it does not do
// the type.
double sl_reference_product(enum sl_dtype compute, int threads, int64_t rows, int64_t out, int64_t in);

// Bytes a second that all threads together read of memory that no cache holds; 0 when memory is out.
double sl_reference_reading(int threads);

#endif
