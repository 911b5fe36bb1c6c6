// SPDX-License-Identifier: Apache-2.0
// Copies between host and device, small ones through pinned memory of the stream's own, so that neither the host nor
// the device waits for the other.
#ifndef SL_CUDA_COPY_H
#define SL_CUDA_COPY_H

#include "cuda/internal.h"

#ifdef __cplusplus
extern "C" {
#endif

int cuda_ring_create(struct cuda_ring **out, struct sl_error *error);
void cuda_ring_destroy(struct cuda_ring *ring); // accepts NULL
// The stream is idle: hands what was downloaded to whoever asked for it.
void cuda_ring_deliver(struct cuda_ring *ring);

void cuda_upload(struct sl_stream *stream, void *to, const void *host, int64_t size_bytes);
void cuda_download(struct sl_stream *stream, void *host, const void *from, int64_t size_bytes);
void cuda_copy(struct sl_stream *stream, void *to, const void *from, int64_t size_bytes);
void cuda_zero(struct sl_stream *stream, void *to, int64_t size_bytes);

// The driver's context of this thread, NULL when there is none.
void *cuda_current_context(void);

#ifdef __cplusplus
}
#endif

#endif
