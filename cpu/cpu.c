// SPDX-License-Identifier: Apache-2.0
#include "cpu/cpu.h"

#include <sched.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cpu/image.h"
#include "cpu/internal.h"
#include "cpu/kernels.h"
#include "cpu/onednn.h"
#include "cpu/ops.h"

#define ALIGNMENT 64

// On the CPU a fence is always reached; it carries the failure of the stream that it was recorded on.
struct sl_fence {
    struct sl_error error;
};

static void *aligned_bytes(int64_t size_bytes)
{
    size_t size = ((size_t)size_bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
    return aligned_alloc(ALIGNMENT, size ? size : ALIGNMENT);
}

// --- what the operations share ---

void cpu_turn_take(struct cpu_device *device)
{
    struct cpu_turn *turn = &device->turn;
    pthread_mutex_lock(&turn->mutex);
    uint64_t mine = turn->next++;
    while (turn->now != mine) {
        pthread_cond_wait(&turn->changed, &turn->mutex);
    }
    pthread_mutex_unlock(&turn->mutex);
}

void cpu_turn_give(struct cpu_device *device)
{
    struct cpu_turn *turn = &device->turn;
    pthread_mutex_lock(&turn->mutex);
    turn->now++;
    if (turn->now != turn->next) {
        pthread_cond_broadcast(&turn->changed);
    }
    pthread_mutex_unlock(&turn->mutex);
}

int cpu_begin(struct sl_stream *stream)
{
    if (stream->error.status != SL_OK) {
        return 0;
    }
    cpu_turn_take(stream->device);
    return 1;
}

void cpu_end(struct sl_stream *stream)
{
    cpu_turn_give(stream->device);
}

void cpu_fail(struct sl_stream *stream, enum sl_status status, const char *format, ...)
{
    if (stream->error.status != SL_OK) {
        return;
    }
    char text[sizeof stream->error.text];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    sl_fail(&stream->error, status, "%s", text);
}

void *cpu_scratch(struct sl_stream *stream, enum cpu_slot slot, int64_t size_bytes)
{
    if (stream->scratch[slot] && stream->scratch_bytes[slot] >= size_bytes) {
        return stream->scratch[slot];
    }
    free(stream->scratch[slot]);
    stream->scratch[slot] = aligned_bytes(size_bytes);
    stream->scratch_bytes[slot] = stream->scratch[slot] ? size_bytes : 0;
    if (!stream->scratch[slot]) {
        cpu_fail(stream, SL_ERR_MEMORY, "out of memory: %lld bytes of scratch", (long long)size_bytes);
    }
    return stream->scratch[slot];
}

int cpu_threads(const struct sl_stream *stream, int64_t work)
{
    int64_t useful = work / 16000; // to wake a thread takes some microseconds
    int threads = stream->device->threads;
    return useful < 1 ? 1 : useful < threads ? (int)useful : threads;
}

void cpu_loop(struct sl_stream *stream, int threads, int64_t count, cpu_task *task, void *job)
{
    cpu_pool_run(stream->device->pool, threads, count, task, job);
}

// --- device ---

static void destroy(struct sl_device *device)
{
    struct cpu_device *cpu = (struct cpu_device *)device;
    if (cpu) {
        while (cpu->owned) { // weights that were not released
            struct cpu_owned *next = cpu->owned->next;
            free(cpu->owned->data);
            free(cpu->owned);
            cpu->owned = next;
        }
        cpu_onednn_destroy(cpu->onednn);
        cpu_pool_destroy(cpu->pool);
        pthread_cond_destroy(&cpu->turn.changed);
        pthread_mutex_destroy(&cpu->turn.mutex);
        free(cpu);
    }
}

// What the kernel thinks that programs can still get; 0 when it does not say.
static int64_t available_bytes(void)
{
    long long kib = 0;
    char line[128];
    FILE *file = fopen("/proc/meminfo", "r");
    while (file != NULL && fgets(line, sizeof line, file) != NULL && sscanf(line, "MemAvailable: %lld kB", &kib) != 1) {
    }
    if (file != NULL) {
        fclose(file);
    }
    return kib * 1024;
}

static void info(struct sl_device *device, struct sl_device_info *out)
{
    const struct cpu_device *cpu = (const struct cpu_device *)device;
    memset(out, 0, sizeof *out);
    snprintf(out->name, sizeof out->name, "CPU, %s, %d thread%s", cpu->kernels->name, cpu->threads,
             cpu->threads == 1 ? "" : "s");
    out->compute = cpu->kernels->fast_bf16 ? SL_BF16 : SL_F32;
    out->memory_bytes = (int64_t)sysconf(_SC_PHYS_PAGES) * sysconf(_SC_PAGESIZE);
    out->free_bytes = available_bytes();
    out->threads = cpu->threads;
}

static void *no_context(struct sl_device *device)
{
    (void)device;
    return NULL;
}

static void *no_stream(struct sl_stream *stream)
{
    (void)stream;
    return NULL;
}

static int alloc(struct sl_device *device, int64_t size_bytes, void **out, struct sl_error *error)
{
    (void)device;
    *out = size_bytes < 0 ? NULL : aligned_bytes(size_bytes);
    return *out ? SL_OK : sl_fail(error, SL_ERR_MEMORY, "out of memory: %lld bytes", (long long)size_bytes);
}

static void release(struct sl_device *device, void *data)
{
    (void)device;
    free(data);
}

// --- streams, fences, graphs ---

static int stream_create(struct sl_device *device, struct sl_stream **out, struct sl_error *error)
{
    *out = calloc(1, sizeof **out);
    if (!*out) {
        return sl_fail(error, SL_ERR_MEMORY, "out of memory: a stream");
    }
    (*out)->device = (struct cpu_device *)device;
    return SL_OK;
}

static void stream_destroy(struct sl_stream *stream)
{
    if (!stream) {
        return;
    }
    for (int slot = 0; slot < CPU_SLOTS; slot++) {
        free(stream->scratch[slot]);
    }
    free(stream);
}

static int report(const struct sl_error *from, struct sl_error *error)
{
    return from->status == SL_OK ? SL_OK : sl_fail(error, from->status, "%s", from->text);
}

static int wait(struct sl_stream *stream, struct sl_error *error)
{
    return report(&stream->error, error);
}

static int fence_create(struct sl_device *device, struct sl_fence **out, struct sl_error *error)
{
    (void)device;
    *out = calloc(1, sizeof **out);
    return *out ? SL_OK : sl_fail(error, SL_ERR_MEMORY, "out of memory: a fence");
}

static void fence_destroy(struct sl_fence *fence)
{
    free(fence);
}

static void fence_record(struct sl_fence *fence, struct sl_stream *stream)
{
    fence->error = stream->error;
}

static void fence_enqueue_wait(struct sl_fence *fence, struct sl_stream *stream)
{
    if (stream->error.status == SL_OK) {
        stream->error = fence->error;
    }
}

static int fence_wait(struct sl_fence *fence, struct sl_error *error)
{
    return report(&fence->error, error);
}

static int graph_begin(struct sl_stream *stream)
{
    (void)stream;
    return 0;
}

static int graph_end(struct sl_stream *stream, struct sl_graph **out)
{
    (void)stream;
    *out = NULL;
    return 0;
}

static void graph_launch(struct sl_graph *graph, struct sl_stream *stream)
{
    (void)graph;
    cpu_fail(stream, SL_ERR_INTERNAL, "graph_launch: the CPU captures no graphs");
}

static void graph_destroy(struct sl_graph *graph)
{
    (void)graph;
}

// --- copies ---

static void copy(struct sl_stream *stream, void *to, const void *from, int64_t size_bytes)
{
    if (stream->error.status == SL_OK && size_bytes > 0) {
        memmove(to, from, (size_t)size_bytes);
    }
}

static void zero(struct sl_stream *stream, void *to, int64_t size_bytes)
{
    if (stream->error.status == SL_OK && size_bytes > 0) {
        memset(to, 0, (size_t)size_bytes);
    }
}

static const struct sl_device_ops operations = {
    .destroy = destroy,
    .info = info,
    .native_context = no_context,
    .native_stream = no_stream,
    .alloc = alloc,
    .release = release,
    .stream_create = stream_create,
    .stream_create_urgent = stream_create,
    .stream_destroy = stream_destroy,
    .wait = wait,
    .fence_create = fence_create,
    .fence_destroy = fence_destroy,
    .fence_record = fence_record,
    .fence_enqueue_wait = fence_enqueue_wait,
    .fence_wait = fence_wait,
    .graph_begin = graph_begin,
    .graph_end = graph_end,
    .graph_launch = graph_launch,
    .graph_destroy = graph_destroy,
    .upload = copy,
    .download = copy,
    .copy = copy,
    .zero = zero,
    .linear_create = cpu_linear_create,
    .linear_destroy = cpu_linear_destroy,
    .experts_create = cpu_experts_create,
    .experts_destroy = cpu_experts_destroy,
    .weight_create = cpu_weight_create,
    .weight_release = cpu_weight_release,
    .image_resize = cpu_image_resize,
    .pair_differences = cpu_pair_differences,
    .patchify = cpu_patchify,
    .linear = cpu_linear,
    .rmsnorm_linear = cpu_rmsnorm_linear,
    .route = cpu_route,
    .experts = cpu_experts,
    .rmsnorm_experts = cpu_rmsnorm_experts,
    .layernorm = cpu_layernorm,
    .rmsnorm = cpu_rmsnorm,
    .gather_rows = cpu_gather_rows,
    .scatter_rows = cpu_scatter_rows,
    .interpolate_rows = cpu_interpolate_rows,
    .rope_2d = cpu_rope_2d,
    .attention_groups = cpu_attention_groups,
    .qk_norm_rope_store = cpu_qk_norm_rope_store,
    .attention_paged = cpu_attention_paged,
    .sample = cpu_sample,
};

static int cores_of_process(void)
{
    cpu_set_t set;
    int cores = sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : (int)sysconf(_SC_NPROCESSORS_ONLN);
    return cores < 1 ? 1 : cores;
}

int sl_cpu_create(int threads, struct sl_device **out, struct sl_error *error)
{
    struct cpu_device *cpu = calloc(1, sizeof *cpu);
    *out = NULL;
    if (!cpu) {
        return sl_fail(error, SL_ERR_MEMORY, "out of memory: a device");
    }
    cpu->pool = cpu_pool_create(threads > 0 ? threads : cores_of_process());
    if (!cpu->pool) {
        free(cpu);
        return sl_fail(error, SL_ERR_MEMORY, "out of memory: a device");
    }
    pthread_mutex_init(&cpu->turn.mutex, NULL); // on Linux these two cannot fail
    pthread_cond_init(&cpu->turn.changed, NULL);
    cpu->base.ops = &operations;
    cpu->threads = cpu_pool_threads(cpu->pool);
    cpu->kernels = cpu_kernels_best();
    cpu->onednn = cpu_onednn_pays() ? cpu_onednn_create() : NULL;
    *out = &cpu->base;
    return SL_OK;
}
