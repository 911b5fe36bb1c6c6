// SPDX-License-Identifier: Apache-2.0
#include "cuda/copy.h"

#include <stdlib.h>
#include <string.h>

#include <cuda.h>

enum {
    UP_HALF = 2 << 20,    // uploads of up to this size go through the ring; larger ones as the driver does it
    DOWN_BYTES = 1 << 20, // downloads between two waits, likewise
    DOWN_COUNT = 64
};

struct download {
    void *host;
    const void *pinned;
    size_t size;
};

// Uploads fill one half of `up` after the other; a half is written again when the copies out of it are done.
struct cuda_ring {
    char *up, *down;
    int half;
    size_t up_used, down_used;
    cudaEvent_t emptied[2];
    int in_use[2];
    struct download pending[DOWN_COUNT];
    int pending_count;
};

int cuda_ring_create(struct cuda_ring **out, struct sl_error *error)
{
    struct cuda_ring *ring = calloc(1, sizeof *ring);
    *out = ring;
    if (ring == NULL) {
        return sl_fail(error, SL_ERR_MEMORY, "out of memory: a stream");
    }
    cudaError_t code = cudaMallocHost((void **)&ring->up, 2 * (size_t)UP_HALF);
    code = code == cudaSuccess ? cudaMallocHost((void **)&ring->down, DOWN_BYTES) : code;
    for (int i = 0; i < 2 && code == cudaSuccess; i++) {
        code = cudaEventCreateWithFlags(&ring->emptied[i], cudaEventDisableTiming);
    }
    if (code != cudaSuccess) {
        return sl_fail(error, SL_ERR_MEMORY, "pinned memory for a stream: %s", cudaGetErrorString(code));
    }
    return SL_OK;
}

void cuda_ring_destroy(struct cuda_ring *ring)
{
    if (ring == NULL) {
        return;
    }
    cudaFreeHost(ring->up);
    cudaFreeHost(ring->down);
    for (int i = 0; i < 2; i++) {
        if (ring->emptied[i] != NULL) {
            cudaEventDestroy(ring->emptied[i]);
        }
    }
    free(ring);
}

void cuda_ring_deliver(struct cuda_ring *ring)
{
    for (int i = 0; i < ring->pending_count; i++) {
        memcpy(ring->pending[i].host, ring->pending[i].pinned, ring->pending[i].size);
    }
    ring->pending_count = 0;
    ring->down_used = 0;
}

// Room for one upload; NULL after marking the stream.
static char *take_up(struct sl_stream *stream, size_t size)
{
    struct cuda_ring *ring = stream->ring;
    if (ring->up_used + size > UP_HALF) {
        if (!cuda_check(stream, cudaEventRecord(ring->emptied[ring->half], stream->native), "uploading")) {
            return NULL;
        }
        ring->in_use[ring->half] = 1;
        ring->half ^= 1;
        ring->up_used = 0;
        if (ring->in_use[ring->half] &&
            !cuda_check(stream, cudaEventSynchronize(ring->emptied[ring->half]), "uploading")) {
            return NULL;
        }
    }
    char *room = ring->up + (size_t)ring->half * UP_HALF + ring->up_used;
    ring->up_used += (size + 255) / 256 * 256;
    return room;
}

void cuda_upload(struct sl_stream *stream, void *to, const void *host, int64_t size_bytes)
{
    size_t size = (size_t)size_bytes;
    if (size_bytes <= 0 || !cuda_begin(stream)) {
        return;
    }
    if (size <= UP_HALF) {
        char *room = take_up(stream, size);
        if (room == NULL) {
            return;
        }
        memcpy(room, host, size);
        host = room;
    }
    cuda_check(stream, cudaMemcpyAsync(to, host, size, cudaMemcpyHostToDevice, stream->native), "uploading");
    if (size > UP_HALF) {
        cuda_check(stream, cudaStreamSynchronize(stream->native), "uploading"); // the host bytes have been read
    }
}

void cuda_download(struct sl_stream *stream, void *host, const void *from, int64_t size_bytes)
{
    struct cuda_ring *ring = stream->ring;
    size_t size = (size_t)size_bytes;
    if (size_bytes <= 0 || !cuda_begin(stream)) {
        return;
    }
    void *to = host;
    if (ring->pending_count < DOWN_COUNT && ring->down_used + size <= DOWN_BYTES) {
        to = ring->down + ring->down_used;
        ring->pending[ring->pending_count++] = (struct download){host, to, size};
        ring->down_used += (size + 255) / 256 * 256;
    }
    cuda_check(stream, cudaMemcpyAsync(to, from, size, cudaMemcpyDeviceToHost, stream->native), "downloading");
}

void cuda_copy(struct sl_stream *stream, void *to, const void *from, int64_t size_bytes)
{
    if (size_bytes > 0 && cuda_begin(stream)) {
        cuda_check(stream, cudaMemcpyAsync(to, from, (size_t)size_bytes, cudaMemcpyDeviceToDevice, stream->native),
                   "copying");
    }
}

void cuda_zero(struct sl_stream *stream, void *to, int64_t size_bytes)
{
    if (size_bytes > 0 && cuda_begin(stream)) {
        cuda_check(stream, cudaMemsetAsync(to, 0, (size_t)size_bytes, stream->native), "zeroing");
    }
}

// Asked of the driver through the runtime, so that the program does not need the driver's library to start.
void *cuda_current_context(void)
{
    typedef CUresult (*get_current)(CUcontext *);
    void *symbol = NULL;
    enum cudaDriverEntryPointQueryResult found;
    if (cudaFree(NULL) != cudaSuccess || // makes the primary context current
        cudaGetDriverEntryPointByVersion("cuCtxGetCurrent", &symbol, 12000, cudaEnableDefault, &found) != cudaSuccess ||
        found != cudaDriverEntryPointSuccess) {
        return NULL;
    }
    CUcontext context = NULL;
    get_current ask;
    memcpy(&ask, &symbol, sizeof ask);
    return ask(&context) == CUDA_SUCCESS ? context : NULL;
}
