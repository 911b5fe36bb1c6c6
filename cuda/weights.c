// SPDX-License-Identifier: Apache-2.0
#include "cuda/weights.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

enum { STAGE_BYTES = 32 << 20, COPIERS = 4 };

struct cuda_staging {
    pthread_mutex_t lock; // one tensor at a time
    cudaStream_t stream;
    void *pinned[2], *raw[2]; // a piece on the host; on the device before it is converted
    cudaEvent_t emptied[2];
};

int cuda_staging_create(struct cuda_staging **out, struct sl_error *error)
{
    struct cuda_staging *s = calloc(1, sizeof *s);
    *out = s;
    if (s == NULL) {
        return sl_fail(error, SL_ERR_MEMORY, "out of memory: a device");
    }
    pthread_mutex_init(&s->lock, NULL);
    cudaError_t code = cudaStreamCreateWithFlags(&s->stream, cudaStreamNonBlocking);
    for (int i = 0; i < 2 && code == cudaSuccess; i++) {
        code = cudaMallocHost(&s->pinned[i], STAGE_BYTES);
        code = code == cudaSuccess ? cudaMalloc(&s->raw[i], STAGE_BYTES) : code;
        code = code == cudaSuccess ? cudaEventCreateWithFlags(&s->emptied[i], cudaEventDisableTiming) : code;
    }
    return code == cudaSuccess
               ? SL_OK
               : sl_fail(error, SL_ERR_MEMORY, "memory for loading weights: %s", cudaGetErrorString(code));
}

void cuda_staging_destroy(struct cuda_staging *s)
{
    if (s == NULL) {
        return;
    }
    for (int i = 0; i < 2; i++) {
        cudaFreeHost(s->pinned[i]);
        cudaFree(s->raw[i]);
        if (s->emptied[i] != NULL) {
            cudaEventDestroy(s->emptied[i]);
        }
    }
    if (s->stream != NULL) {
        cudaStreamDestroy(s->stream);
    }
    pthread_mutex_destroy(&s->lock);
    free(s);
}

// --- the host's copy, by several threads: one alone does not keep up with the bus ---

struct part {
    char *to;
    const char *from;
    size_t size;
};

static void *copy_part(void *argument)
{
    const struct part *part = argument;
    memcpy(part->to, part->from, part->size);
    return NULL;
}

static void copy_in_parts(char *to, const char *from, size_t size)
{
    struct part part[COPIERS];
    pthread_t thread[COPIERS];
    int started[COPIERS] = {0};
    size_t each = (size / COPIERS + 4095) / 4096 * 4096;
    for (int i = 0; i < COPIERS; i++) {
        size_t first = (size_t)i * each < size ? (size_t)i * each : size;
        size_t end = first + each < size && i < COPIERS - 1 ? first + each : size;
        part[i] = (struct part){to + first, from + first, end - first};
        started[i] = i > 0 && size > 4 << 20 && pthread_create(&thread[i], NULL, copy_part, &part[i]) == 0;
        if (!started[i]) {
            copy_part(&part[i]);
        }
    }
    for (int i = 0; i < COPIERS; i++) {
        if (started[i]) {
            pthread_join(thread[i], NULL);
        }
    }
}

static cudaError_t load(struct cuda_staging *s, const struct sl_tensor *host, enum sl_dtype dtype, char *to)
{
    size_t from_size = (size_t)sl_dtype_bytes(host->dtype), to_size = (size_t)sl_dtype_bytes(dtype);
    size_t total = (size_t)sl_tensor_elements(host), step = STAGE_BYTES / from_size;
    cudaError_t code = cudaSuccess;
    for (size_t at = 0, piece = 0; at < total && code == cudaSuccess; at += step, piece++) {
        int i = (int)(piece % 2);
        size_t count = total - at < step ? total - at : step;
        void *target = host->dtype == dtype ? to + at * to_size : s->raw[i];
        code = cudaEventSynchronize(s->emptied[i]); // at once where it was never recorded
        copy_in_parts(s->pinned[i], (const char *)host->data + at * from_size, count * from_size);
        if (code == cudaSuccess) {
            code = cudaMemcpyAsync(target, s->pinned[i], count * from_size, cudaMemcpyHostToDevice, s->stream);
        }
        if (code == cudaSuccess && host->dtype != dtype) {
            cuda_convert(s->stream, target, host->dtype, to + at * to_size, dtype, (int64_t)count);
            code = cudaGetLastError();
        }
        if (code == cudaSuccess) {
            code = cudaEventRecord(s->emptied[i], s->stream);
        }
    }
    cudaError_t ended = cudaStreamSynchronize(s->stream);
    return code == cudaSuccess ? ended : code;
}

int cuda_weights_load(struct cuda_device *device, const struct sl_tensor *host, enum sl_dtype dtype, void *to,
                      struct sl_error *error)
{
    struct cuda_staging *s = device->staging;
    pthread_mutex_lock(&s->lock);
    cudaError_t code = cudaSetDevice(device->index);
    code = code == cudaSuccess ? load(s, host, dtype, to) : code;
    pthread_mutex_unlock(&s->lock);
    return code == cudaSuccess
               ? SL_OK
               : sl_fail(error, SL_ERR_DEVICE, "%s: loading weights: %s", device->name, cudaGetErrorString(code));
}
