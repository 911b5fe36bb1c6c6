// SPDX-License-Identifier: Apache-2.0
// The device, its streams, fences and captured graphs, and the table of operations.
#include "cuda/cuda.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cuda/copy.h"
#include "cuda/linear.h"
#include "cuda/ops.h"
#include "cuda/weights.h"

struct sl_fence {
    cudaEvent_t event;
    struct cuda_device *device;
    struct sl_error error; // of the stream that it was recorded on
};

struct sl_graph {
    const struct cuda_device *device;
    cudaGraphExec_t exec;
};

// A frame stays until `event`, recorded behind the operation that reads it, is reached.
struct cuda_borrowed {
    struct cuda_borrowed *next;
    struct sl_frame *frame;
    cudaEvent_t event;
};

struct cuda_retired {
    struct cuda_retired *next;
    void *data;
};

// --- what the operations share ---

void cuda_fail(struct sl_stream *stream, enum sl_status status, const char *format, ...)
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

int cuda_check(struct sl_stream *stream, cudaError_t code, const char *what)
{
    if (code == cudaSuccess) {
        return 1;
    }
    (void)cudaGetLastError(); // or this thread's next launch would be blamed, on whatever stream
    cuda_fail(stream, code == cudaErrorMemoryAllocation ? SL_ERR_MEMORY : SL_ERR_DEVICE, "%s: %s: %s",
              stream->device->name, what, cudaGetErrorString(code));
    return 0;
}

int cuda_begin(struct sl_stream *stream)
{
    return stream->error.status == SL_OK && cuda_check(stream, cudaSetDevice(stream->device->index), "selecting");
}

void cuda_launched(struct sl_stream *stream, const char *what)
{
    cuda_check(stream, cudaGetLastError(), what);
}

void *cuda_scratch(struct sl_stream *stream, enum cuda_slot slot, int64_t size_bytes)
{
    if (stream->scratch[slot] != NULL && stream->scratch_bytes[slot] >= size_bytes) {
        return stream->scratch[slot];
    }
    struct cuda_retired *old = stream->scratch[slot] != NULL ? malloc(sizeof *old) : NULL;
    if (stream->scratch[slot] != NULL && old == NULL) {
        cuda_fail(stream, SL_ERR_MEMORY, "out of memory: scratch");
        return NULL;
    }
    if (old != NULL) {
        *old = (struct cuda_retired){.next = stream->retired, .data = stream->scratch[slot]};
        stream->retired = old;
    }
    stream->scratch[slot] = NULL;
    int64_t wanted = size_bytes > 2 * stream->scratch_bytes[slot] ? size_bytes : 2 * stream->scratch_bytes[slot];
    stream->scratch_bytes[slot] = 0;
    cudaError_t code = cudaMalloc(&stream->scratch[slot], (size_t)wanted);
    if (code == cudaErrorMemoryAllocation && wanted > size_bytes) { // then no more than what is needed
        wanted = size_bytes;
        code = cudaMalloc(&stream->scratch[slot], (size_t)wanted);
    }
    (void)cudaGetLastError(); // of the first try
    if (code == cudaErrorMemoryAllocation) {
        cuda_fail(stream, SL_ERR_MEMORY,
                  "%s: no %lld MiB are free for a step's intermediate results: a shorter --window, a lower "
                  "--max-tokens-per-pair or a smaller model would fit",
                  stream->device->name, (long long)(wanted >> 20));
    }
    if (!cuda_check(stream, code, "scratch memory")) {
        stream->scratch[slot] = NULL;
        return NULL;
    }
    stream->scratch_bytes[slot] = wanted;
    return stream->scratch[slot];
}

static void return_frames(struct sl_stream *stream, int all)
{
    struct cuda_borrowed **link = &stream->borrowed;
    while (*link != NULL) {
        struct cuda_borrowed *held = *link;
        if (!all && cudaEventQuery(held->event) == cudaErrorNotReady) {
            link = &held->next;
            continue;
        }
        *link = held->next;
        sl_frame_unref(held->frame);
        cudaEventDestroy(held->event);
        free(held);
    }
    (void)cudaGetLastError(); // "not ready" is no failure of the next launch
}

void cuda_borrow(struct sl_stream *stream, struct sl_frame *frame)
{
    struct cuda_borrowed *held = calloc(1, sizeof *held);
    return_frames(stream, 0);
    if (held == NULL || !cuda_check(stream, cudaEventCreateWithFlags(&held->event, cudaEventDisableTiming), "event")) {
        cudaStreamSynchronize(stream->native); // then it need not be held
        free(held);
        return;
    }
    held->frame = sl_frame_ref(frame);
    held->next = stream->borrowed;
    stream->borrowed = held;
    cuda_check(stream, cudaEventRecord(held->event, stream->native), "event");
}

// --- device ---

static int select_device(const struct cuda_device *device, struct sl_error *error)
{
    cudaError_t code = cudaSetDevice(device->index);
    return code == cudaSuccess ? SL_OK
                               : sl_fail(error, SL_ERR_DEVICE, "%s: %s", device->name, cudaGetErrorString(code));
}

static void destroy(struct sl_device *base)
{
    struct cuda_device *device = (struct cuda_device *)base;
    if (device != NULL) {
        (void)select_device(device, NULL);
        cuda_staging_destroy(device->staging);
        cuda_blas_destroy(device->blas);
        free(device);
    }
}

static void info(struct sl_device *base, struct sl_device_info *out)
{
    const struct cuda_device *device = (const struct cuda_device *)base;
    size_t free_bytes = 0, total = 0;
    *out = (struct sl_device_info){.compute = SL_BF16, .memory_bytes = device->memory_bytes, .threads = 0};
    if (select_device(device, NULL) == SL_OK && cudaMemGetInfo(&free_bytes, &total) == cudaSuccess) {
        out->free_bytes = (int64_t)free_bytes;
    }
    snprintf(out->name, sizeof out->name, "%s", device->name);
}

// The primary context, which the runtime uses, is what the driver calls the context of this thread.
static void *native_context(struct sl_device *base)
{
    struct cuda_device *device = (struct cuda_device *)base;
    return select_device(device, NULL) == SL_OK ? cuda_current_context() : NULL;
}

static void *native_stream(struct sl_stream *stream)
{
    return stream->native;
}

static int alloc(struct sl_device *base, int64_t size_bytes, void **out, struct sl_error *error)
{
    const struct cuda_device *device = (const struct cuda_device *)base;
    *out = NULL;
    int status = select_device(device, error);
    if (status != SL_OK) {
        return status;
    }
    cudaError_t code = cudaMalloc(out, size_bytes > 0 ? (size_t)size_bytes : 1);
    if (code == cudaSuccess) {
        return SL_OK;
    }
    size_t free_bytes = 0, total = 0;
    (void)cudaGetLastError();
    cudaMemGetInfo(&free_bytes, &total);
    *out = NULL;
    return sl_fail(error, code == cudaErrorMemoryAllocation ? SL_ERR_MEMORY : SL_ERR_DEVICE,
                   "%s: %lld MiB wanted, %lld of %lld MiB free: a shorter --window, a lower "
                   "--max-tokens-per-pair or a smaller model would fit",
                   device->name, (long long)(size_bytes >> 20), (long long)(free_bytes >> 20),
                   (long long)(total >> 20));
}

static void release(struct sl_device *base, void *data)
{
    if (data != NULL && select_device((struct cuda_device *)base, NULL) == SL_OK) {
        cudaFree(data);
    }
}

// --- streams ---

static void stream_destroy(struct sl_stream *stream)
{
    if (stream == NULL) {
        return;
    }
    (void)select_device(stream->device, NULL);
    if (stream->native != NULL) {
        cudaStreamSynchronize(stream->native);
    }
    return_frames(stream, 1);
    for (int slot = 0; slot < CUDA_SLOTS; slot++) {
        cudaFree(stream->scratch[slot]);
    }
    while (stream->retired != NULL) {
        struct cuda_retired *next = stream->retired->next;
        cudaFree(stream->retired->data);
        free(stream->retired);
        stream->retired = next;
    }
    cudaFree(stream->counters);
    cuda_ring_destroy(stream->ring);
    if (stream->native != NULL) {
        cudaStreamDestroy(stream->native);
    }
    free(stream);
}

static int create(struct sl_device *base, int urgent, struct sl_stream **out, struct sl_error *error)
{
    struct cuda_device *device = (struct cuda_device *)base;
    struct sl_stream *stream = calloc(1, sizeof *stream);
    *out = NULL;
    if (stream == NULL) {
        return sl_fail(error, SL_ERR_MEMORY, "out of memory: a stream");
    }
    stream->device = device;
    int status = select_device(device, error);
    int least = 0, most = 0;
    if (status == SL_OK &&
        (cudaDeviceGetStreamPriorityRange(&least, &most) != cudaSuccess ||
         cudaStreamCreateWithPriority(&stream->native, cudaStreamNonBlocking, urgent ? most : least) != cudaSuccess)) {
        status = sl_fail(error, SL_ERR_DEVICE, "%s: a stream cannot be made: %s", device->name,
                         cudaGetErrorString(cudaGetLastError()));
    }
    if (status == SL_OK) {
        status = cuda_ring_create(&stream->ring, error);
    }
    size_t counters = CUDA_COUNTERS * sizeof *stream->counters;
    // Zeroed on the stream itself: it does not wait for the default one.
    if (status == SL_OK && (cudaMalloc((void **)&stream->counters, counters) != cudaSuccess ||
                            cudaMemsetAsync(stream->counters, 0, counters, stream->native) != cudaSuccess)) {
        status = sl_fail(error, SL_ERR_MEMORY, "%s: no memory for a stream: %s", device->name,
                         cudaGetErrorString(cudaGetLastError()));
    }
    if (status != SL_OK) {
        stream_destroy(stream);
        return status;
    }
    *out = stream;
    return SL_OK;
}

static int stream_create(struct sl_device *base, struct sl_stream **out, struct sl_error *error)
{
    return create(base, 0, out, error);
}

static int stream_create_urgent(struct sl_device *base, struct sl_stream **out, struct sl_error *error)
{
    return create(base, 1, out, error);
}

static int report(const struct sl_error *from, struct sl_error *error)
{
    return from->status == SL_OK ? SL_OK : sl_fail(error, from->status, "%s", from->text);
}

static int wait(struct sl_stream *stream, struct sl_error *error)
{
    if (cuda_begin(stream) && cuda_check(stream, cudaStreamSynchronize(stream->native), "running")) {
        cuda_ring_deliver(stream->ring);
    }
    return_frames(stream, stream->error.status == SL_OK);
    return report(&stream->error, error);
}

// --- fences ---

static int fence_create(struct sl_device *base, struct sl_fence **out, struct sl_error *error)
{
    struct cuda_device *device = (struct cuda_device *)base;
    struct sl_fence *fence = calloc(1, sizeof *fence);
    *out = NULL;
    if (fence == NULL) {
        return sl_fail(error, SL_ERR_MEMORY, "out of memory: a fence");
    }
    int status = select_device(device, error);
    if (status == SL_OK && cudaEventCreateWithFlags(&fence->event, cudaEventDisableTiming) != cudaSuccess) {
        status = sl_fail(error, SL_ERR_DEVICE, "%s: an event cannot be made", device->name);
    }
    if (status != SL_OK) {
        free(fence);
        return status;
    }
    fence->device = device;
    *out = fence;
    return SL_OK;
}

static void fence_destroy(struct sl_fence *fence)
{
    if (fence != NULL) {
        (void)select_device(fence->device, NULL);
        cudaEventDestroy(fence->event);
        free(fence);
    }
}

static void fence_record(struct sl_fence *fence, struct sl_stream *stream)
{
    if (cuda_begin(stream)) {
        cuda_check(stream, cudaEventRecord(fence->event, stream->native), "event");
    }
    fence->error = stream->error;
}

static void fence_enqueue_wait(struct sl_fence *fence, struct sl_stream *stream)
{
    if (!cuda_begin(stream)) {
        return;
    }
    if (fence->error.status != SL_OK) {
        stream->error = fence->error;
        return;
    }
    cuda_check(stream, cudaStreamWaitEvent(stream->native, fence->event, 0), "event");
}

static int fence_wait(struct sl_fence *fence, struct sl_error *error)
{
    if (fence->error.status == SL_OK && select_device(fence->device, &fence->error) == SL_OK) {
        cudaError_t code = cudaEventSynchronize(fence->event);
        if (code != cudaSuccess) {
            sl_fail(&fence->error, SL_ERR_DEVICE, "%s: %s", fence->device->name, cudaGetErrorString(code));
        }
    }
    return report(&fence->error, error);
}

// --- graphs ---

// Relaxed: other threads may allocate memory meanwhile, and so may an operation's scratch, which stays for good.
static int graph_begin(struct sl_stream *stream)
{
    if (!cuda_begin(stream)) {
        return 0;
    }
    stream->capturing = cudaStreamBeginCapture(stream->native, cudaStreamCaptureModeRelaxed) == cudaSuccess;
    (void)cudaGetLastError(); // not to capture is no failure
    return stream->capturing;
}

// What fails while a graph is captured has not run: the stream is as well as before, but there is no graph. Another
// thread's call to the driver may be enough for that.
static int graph_end(struct sl_stream *stream, struct sl_graph **out)
{
    cudaGraph_t graph = NULL;
    *out = NULL;
    stream->capturing = 0;
    cudaError_t ended = cudaStreamEndCapture(stream->native, &graph);
    struct sl_graph *made = calloc(1, sizeof *made);
    int whole = ended == cudaSuccess && stream->error.status == SL_OK && made != NULL &&
                cudaGraphInstantiate(&made->exec, graph, 0) == cudaSuccess;
    if (graph != NULL) {
        cudaGraphDestroy(graph);
    }
    if (!whole) {
        free(made);
        made = NULL;
        stream->error = (struct sl_error){0};
        (void)cudaGetLastError();
    } else {
        made->device = stream->device;
    }
    *out = made;
    return whole;
}

static void graph_launch(struct sl_graph *graph, struct sl_stream *stream)
{
    if (cuda_begin(stream)) {
        cuda_check(stream, cudaGraphLaunch(graph->exec, stream->native), "launching a graph");
    }
}

static void graph_destroy(struct sl_graph *graph)
{
    if (graph != NULL) {
        (void)select_device(graph->device, NULL);
        cudaGraphExecDestroy(graph->exec);
        free(graph);
    }
}

static const struct sl_device_ops operations = {
    .destroy = destroy,
    .info = info,
    .native_context = native_context,
    .native_stream = native_stream,
    .alloc = alloc,
    .release = release,
    .stream_create = stream_create,
    .stream_create_urgent = stream_create_urgent,
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
    .upload = cuda_upload,
    .download = cuda_download,
    .copy = cuda_copy,
    .zero = cuda_zero,
    .linear_create = cuda_linear_create,
    .linear_destroy = cuda_linear_destroy,
    .experts_create = cuda_experts_create,
    .experts_destroy = cuda_experts_destroy,
    .weight_create = cuda_weight_create,
    .weight_release = cuda_weight_release,
    .image_resize = cuda_image_resize,
    .pair_differences = cuda_pair_differences,
    .patchify = cuda_patchify,
    .linear = cuda_linear,
    .rmsnorm_linear = cuda_rmsnorm_linear,
    .route = cuda_route,
    .experts = cuda_experts,
    .rmsnorm_experts = cuda_rmsnorm_experts,
    .layernorm = cuda_layernorm,
    .rmsnorm = cuda_rmsnorm,
    .gather_rows = cuda_gather_rows,
    .scatter_rows = cuda_scatter_rows,
    .interpolate_rows = cuda_interpolate_rows,
    .rope_2d = cuda_rope_2d,
    .attention_groups = cuda_attention_groups,
    .qk_norm_rope_store = cuda_qk_norm_rope_store,
    .attention_paged = cuda_attention_paged,
    .turn_and_attend = cuda_turn_and_attend,
    .sample = cuda_sample,
};

// --- opening ---

static int is_ours(int major, int minor)
{
    return major == 9 && minor == 0;
}

static int has_ours(int count)
{
    int found = 0;
    for (int i = 0; i < count && !found; i++) {
        int major = 0, minor = 0;
        found = cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, i) == cudaSuccess &&
                cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, i) == cudaSuccess &&
                is_ours(major, minor);
    }
    (void)cudaGetLastError();
    return found;
}

// A static runtime finds out at the first call whether there is a driver.
int sl_cuda_count(struct sl_error *why)
{
    int count = 0;
    cudaError_t code = cudaGetDeviceCount(&count);
    if (code != cudaSuccess || count < 1) {
        (void)cudaGetLastError();
        sl_fail(why, SL_ERR_DEVICE, "no NVIDIA GPU can be used: %s",
                code == cudaSuccess                   ? "there is none"
                : code == cudaErrorInsufficientDriver ? "the driver is missing, or older than this program's CUDA"
                                                      : cudaGetErrorString(code));
        return 0;
    }
    if (!has_ours(count)) {
        sl_fail(why, SL_ERR_DEVICE,
                "no NVIDIA GPU can be used: the kernels are built for compute capability 9.0 (H100, "
                "H200), and there is none such");
        return -1;
    }
    return cuda_blas_available(why) ? count : -1;
}

static int describe(struct cuda_device *device, struct sl_error *error)
{
    struct cudaDeviceProp prop;
    cudaError_t code = cudaGetDeviceProperties(&prop, device->index);
    if (code != cudaSuccess) {
        return sl_fail(error, SL_ERR_DEVICE, "cuda:%d: %s", device->index, cudaGetErrorString(code));
    }
    snprintf(device->name, sizeof device->name, "cuda:%d, %.80s", device->index, prop.name);
    device->multiprocessors = prop.multiProcessorCount;
    device->memory_bytes = (int64_t)prop.totalGlobalMem;
    if (!is_ours(prop.major, prop.minor)) {
        return sl_fail(error, SL_ERR_DEVICE, "%s: compute capability %d.%d; the kernels are built for 9.0 (H100, H200)",
                       device->name, prop.major, prop.minor);
    }
    return SL_OK;
}

int sl_cuda_create(int index, int deterministic, struct sl_device **out, struct sl_error *error)
{
    struct sl_error why = {0};
    int count = sl_cuda_count(&why);
    *out = NULL;
    if (index < 0 || index >= count) {
        return count <= 0 ? sl_fail(error, SL_ERR_DEVICE, "%s", why.text)
                          : sl_fail(error, SL_ERR_DEVICE, "cuda:%d: there are only %d GPUs, from 0 on", index, count);
    }
    struct cuda_device *device = calloc(1, sizeof *device);
    if (device == NULL) {
        return sl_fail(error, SL_ERR_MEMORY, "out of memory: a device");
    }
    device->base.ops = &operations;
    device->index = index;
    int status = describe(device, error);
    status = status == SL_OK ? select_device(device, error) : status;
    status = status == SL_OK ? cuda_blas_create(device, deterministic, &device->blas, error) : status;
    status = status == SL_OK ? cuda_staging_create(&device->staging, error) : status;
    if (status != SL_OK) {
        destroy(&device->base);
        return status;
    }
    *out = &device->base;
    return SL_OK;
}
