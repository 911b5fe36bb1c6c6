// SPDX-License-Identifier: Apache-2.0
// What this machine reaches alone: one matrix product, copying and reading memory. For `scenelog bench`.
#ifndef SL_SRC_REFERENCE_H
#define SL_SRC_REFERENCE_H

#include "core/device.h"

// Operations a second of x [rows, in] times w [out, in] transposed, in `compute` (f32 or bf16), by oneDNN with the
// weights in whichever layout it likes best; median of several. 0 in a build without oneDNN, or where it does not do
// the type.
double sl_reference_product(enum sl_dtype compute, int threads, int64_t rows, int64_t out, int64_t in);

// The same product by the device's own linear layer, bf16: for a GPU, where there is no library to compare with.
int sl_reference_device_product(struct sl_device *device, int64_t rows, int64_t out, int64_t in, double *flops,
                                struct sl_error *error);

// Bytes a second that the device reads and writes, both counted, when it copies within its memory.
int sl_reference_copy(struct sl_device *device, double *bytes_per_s, struct sl_error *error);

// Memory that no cache holds, and how many bytes a second all threads together read of it in one pass. The rate of a
// shared machine changes from second to second: take a pass beside each measurement that is held against it.
struct sl_reading;
struct sl_reading *sl_reading_create(int threads); // NULL when memory is out
double sl_reading_pass(struct sl_reading *reading);
void sl_reading_destroy(struct sl_reading *reading); // accepts NULL

#endif
