// SPDX-License-Identifier: Apache-2.0
// Shared by the files of cuda/: the device, its streams, and what every operation does before and after a launch.
//
// An operation's host side: `if (!cuda_begin(stream)) return;`, launch on stream->native, `cuda_launched(stream,
// "name")`. Kernels are in *.cu, each with its operations; everything else is plain C.
#ifndef SL_CUDA_INTERNAL_H
#define SL_CUDA_INTERNAL_H

#include <cuda_runtime_api.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#include "core/device.h"

enum {
    CUDA_MAX_ROWS_FEW = 16, // up to here a product is read-bound, and our own kernels do it
    CUDA_COUNTERS = 65536,
};

// Scratch memory of a stream, one buffer for each use that may overlap another in one operation.
enum cuda_slot {
    CUDA_SLOT_A,
    CUDA_SLOT_B,
    CUDA_SLOT_C,
    CUDA_SLOT_BLAS,
    CUDA_SLOT_TRIAL,
    CUDA_SLOT_PICTURE,
    CUDA_SLOTS
};

// What CUDA_SLOT_PICTURE holds: the tables of the last resizing, which are those of the next one, too. See image.cu.
struct cuda_picture_tables {
    int in[2], out[2]; // across, down; 0: nothing
    int precision[2];
    enum sl_transfer transfer;
};

struct cuda_blas;    // cuBLASLt and the algorithms found so far (linear.c)
struct cuda_staging; // pinned memory that weights go through (weights.c)

struct cuda_device {
    struct sl_device base;
    int index;
    int multiprocessors;
    int64_t memory_bytes;
    char name[96];
    struct cuda_blas *blas;
    struct cuda_staging *staging;
};

struct cuda_ring;     // pinned memory for small copies in either direction (copy.c)
struct cuda_borrowed; // frames that an enqueued operation still reads (device.c)
struct cuda_retired;

struct sl_stream {
    struct cuda_device *device;
    cudaStream_t native;
    struct sl_error error; // the first failure
    int capturing;
    void *scratch[CUDA_SLOTS];
    int64_t scratch_bytes[CUDA_SLOTS];
    struct cuda_retired *retired; // scratch that was outgrown: captured graphs may still name it
    int32_t *counters;            // [CUDA_COUNTERS] device memory, zero between operations
    struct cuda_picture_tables picture;
    struct cuda_ring *ring;
    struct cuda_borrowed *borrowed;
};

// 1: the stream is well, and this thread speaks to its GPU. 0: it has failed before; do nothing.
int cuda_begin(struct sl_stream *stream);
// After launches: marks the stream as failed if one was refused. `what` names the operation.
void cuda_launched(struct sl_stream *stream, const char *what);
// Marks the stream as failed if `code` is an error; 1 if it is none.
int cuda_check(struct sl_stream *stream, cudaError_t code, const char *what);
void cuda_fail(struct sl_stream *stream, enum sl_status status, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
// At least size_bytes of device memory, 256-byte aligned, valid until the next call for the same slot; NULL after
// marking the stream. Its content is undefined.
void *cuda_scratch(struct sl_stream *stream, enum cuda_slot slot, int64_t size_bytes);
// Holds a reference on the frame until everything enqueued so far is done.
void cuda_borrow(struct sl_stream *stream, struct sl_frame *frame);

#ifdef __cplusplus
}
#endif

#endif
