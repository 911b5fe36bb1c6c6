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
    void *scale; // of the tensor that is loaded, on the device
    size_t scale_size;
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
    cudaFree(s->scale);
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

// --- one tensor, piece by piece ---

// The scales of f8, as they are, to the device. What they were copied to lives until the next tensor's.
static cudaError_t bring_scale(struct cuda_staging *s, const struct sl_tensor *scale)
{
    size_t size = (size_t)sl_tensor_bytes(scale);
    cudaError_t code = cudaSuccess;
    if (size > s->scale_size) {
        cudaFree(s->scale);
        s->scale = NULL;
        s->scale_size = 0;
        code = cudaMalloc(&s->scale, size);
        s->scale_size = code == cudaSuccess ? size : 0;
    }
    return code == cudaSuccess ? cudaMemcpyAsync(s->scale, scale->data, size, cudaMemcpyHostToDevice, s->stream) : code;
}

// How many elements go at once from `at` on. Turned: whole rows of one matrix, 32 by 32 where there are so many.
static size_t piece_elements(const struct sl_tensor *host, int turned, size_t at)
{
    size_t step = STAGE_BYTES / (size_t)sl_dtype_bytes(host->dtype), left = (size_t)sl_tensor_elements(host) - at;
    if (turned) {
        size_t columns = (size_t)host->shape[host->rank - 1], matrix = (size_t)host->shape[host->rank - 2] * columns;
        size_t rows = step / columns;
        step = (rows > 32 ? rows - rows % 32 : rows) * columns;
        left = matrix - at % matrix;
    }
    return left < step ? left : step;
}

// What lies in s->raw[i] goes to its place.
static cudaError_t convert(struct cuda_staging *s, int i, const struct sl_tensor *host, size_t at, size_t count,
                           enum sl_dtype dtype, int turned, char *to)
{
    struct cuda_piece piece = {.data = s->raw[i],
                               .type = host->dtype,
                               .first = (int64_t)at,
                               .count = (int64_t)count,
                               .rows = host->rank > 1 ? host->shape[host->rank - 2] : 1,
                               .columns = host->shape[host->rank - 1]};
    if (host->scale != NULL) {
        piece.scale = s->scale;
        piece.scale_type = host->scale->dtype;
    }
    if (turned) {
        cuda_convert_turned(s->stream, &piece, to, dtype);
    } else {
        cuda_convert(s->stream, &piece, to, dtype);
    }
    return cudaGetLastError();
}

static cudaError_t load(struct cuda_staging *s, const struct sl_tensor *host, enum sl_dtype dtype, int turned, char *to)
{
    size_t size = (size_t)sl_dtype_bytes(host->dtype), total = (size_t)sl_tensor_elements(host), count;
    int as_it_is = host->dtype == dtype && !turned;
    cudaError_t code = host->scale != NULL ? bring_scale(s, host->scale) : cudaSuccess;
    for (size_t at = 0, piece = 0; at < total && code == cudaSuccess; at += count, piece++) {
        int i = (int)(piece % 2);
        count = piece_elements(host, turned, at);
        void *target = as_it_is ? to + at * size : s->raw[i];
        code = cudaEventSynchronize(s->emptied[i]); // at once where it was never recorded
        copy_in_parts(s->pinned[i], (const char *)host->data + at * size, count * size);
        if (code == cudaSuccess) {
            code = cudaMemcpyAsync(target, s->pinned[i], count * size, cudaMemcpyHostToDevice, s->stream);
        }
        if (code == cudaSuccess && !as_it_is) {
            code = convert(s, i, host, at, count, dtype, turned, to);
        }
        if (code == cudaSuccess) {
            code = cudaEventRecord(s->emptied[i], s->stream);
        }
    }
    cudaError_t ended = cudaStreamSynchronize(s->stream);
    return code == cudaSuccess ? ended : code;
}

int cuda_weights_load(struct cuda_device *device, const struct sl_tensor *host, enum sl_dtype dtype, int turned,
                      void *to, struct sl_error *error)
{
    struct cuda_staging *s = device->staging;
    if ((host->dtype == SL_F8E4M3) != (host->scale != NULL)) {
        return sl_fail(error, SL_ERR_INTERNAL, "%s: loading weights: f8 has a scale, nothing else has", device->name);
    }
    pthread_mutex_lock(&s->lock);
    cudaError_t code = cudaSetDevice(device->index);
    code = code == cudaSuccess ? load(s, host, dtype, turned, to) : code;
    pthread_mutex_unlock(&s->lock);
    return code == cudaSuccess
               ? SL_OK
               : sl_fail(error, SL_ERR_DEVICE, "%s: loading weights: %s", device->name, cudaGetErrorString(code));
}
