// SPDX-License-Identifier: Apache-2.0
#include "src/reference.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "config.h"
#include "src/timing.h"

enum { REPEATS = 7, CALLS = 4, READ_BYTES = 1 << 30, MAX_THREADS = 256 };

// ---- Product

#if SL_HAVE_ONEDNN
#include <dnnl.h>
#include <omp.h>

struct product {
    dnnl_engine_t engine;
    dnnl_stream_t stream;
    dnnl_primitive_desc_t description;
    dnnl_primitive_t primitive;
    dnnl_memory_t memory[3]; // x, w, y; oneDNN's own buffers
};

static const int arguments[3] = {DNNL_ARG_SRC, DNNL_ARG_WEIGHTS, DNNL_ARG_DST};

// A product whose speed depended on its values would be a poor measure: small numbers, no denormals.
static int fill(dnnl_memory_t memory, size_t size_bytes, int is_bf16)
{
    void *data = NULL;
    if (dnnl_memory_map_data(memory, &data) != dnnl_success) {
        return 0;
    }
    uint32_t state = 1;
    for (size_t i = 0; i < size_bytes / (is_bf16 ? 2 : 4); i++) {
        state = state * 1664525U + 1013904223U;
        uint32_t bits = 0x3c000000U | (state & 0x80ff0000U); // about +-0.01
        if (is_bf16) {
            ((uint16_t *)data)[i] = (uint16_t)(bits >> 16);
        } else {
            memcpy((char *)data + 4 * i, &bits, 4);
        }
    }
    return dnnl_memory_unmap_data(memory, data) == dnnl_success;
}

static int prepare(struct product *p, enum sl_dtype compute, int64_t rows, int64_t out, int64_t in)
{
    dnnl_data_type_t type = compute == SL_BF16 ? dnnl_bf16 : dnnl_f32;
    dnnl_dims_t shape[3] = {{rows, in}, {in, out}, {rows, out}};
    const dnnl_format_tag_t tag[3] = {dnnl_ab, dnnl_format_tag_any, dnnl_ab};
    dnnl_memory_desc_t d[3];
    dnnl_matmul_desc_t matmul;
    int right = dnnl_engine_create(&p->engine, dnnl_cpu, 0) == dnnl_success &&
                dnnl_stream_create(&p->stream, p->engine, dnnl_stream_default_flags) == dnnl_success;
    for (int i = 0; i < 3 && right; i++) {
        right = dnnl_memory_desc_init_by_tag(&d[i], 2, shape[i], type, tag[i]) == dnnl_success;
    }
    right = right && dnnl_matmul_desc_init(&matmul, &d[0], &d[1], NULL, &d[2]) == dnnl_success &&
            dnnl_primitive_desc_create(&p->description, &matmul, NULL, p->engine, NULL) == dnnl_success &&
            dnnl_primitive_create(&p->primitive, p->description) == dnnl_success;
    static const dnnl_query_t query[3] = {dnnl_query_src_md, dnnl_query_weights_md, dnnl_query_dst_md};
    for (int i = 0; i < 3 && right; i++) {
        const dnnl_memory_desc_t *chosen = dnnl_primitive_desc_query_md(p->description, query[i], 0);
        right = chosen != NULL &&
                dnnl_memory_create(&p->memory[i], chosen, p->engine, DNNL_MEMORY_ALLOCATE) == dnnl_success &&
                fill(p->memory[i], dnnl_memory_desc_get_size(chosen), compute == SL_BF16);
    }
    return right;
}

static void discard(struct product *p)
{
    for (int i = 0; i < 3; i++) {
        dnnl_memory_destroy(p->memory[i]);
    }
    dnnl_primitive_destroy(p->primitive);
    dnnl_primitive_desc_destroy(p->description);
    dnnl_stream_destroy(p->stream);
    dnnl_engine_destroy(p->engine);
}

double sl_reference_product(enum sl_dtype compute, int threads, int64_t rows, int64_t out, int64_t in)
{
    struct product p = {0};
    double seconds[REPEATS];
    int before = omp_get_max_threads();
    omp_set_num_threads(threads); // of this host thread only
    int right = prepare(&p, compute, rows, out, in);
    for (int i = -1; i < REPEATS && right; i++) { // the first is the warm-up
        dnnl_exec_arg_t argument[3];
        for (int k = 0; k < 3; k++) {
            argument[k] = (dnnl_exec_arg_t){arguments[k], p.memory[k]};
        }
        double start = sl_timing_now_s();
        right = dnnl_primitive_execute(p.primitive, p.stream, 3, argument) == dnnl_success &&
                dnnl_stream_wait(p.stream) == dnnl_success;
        if (i >= 0) {
            seconds[i] = sl_timing_now_s() - start;
        }
    }
    omp_set_num_threads(before);
    discard(&p);
    return right ? 2.0 * (double)rows * (double)out * (double)in / sl_timing_median(seconds, REPEATS) : 0;
}

#else

double sl_reference_product(enum sl_dtype compute, int threads, int64_t rows, int64_t out, int64_t in)
{
    (void)compute, (void)threads, (void)rows, (void)out, (void)in;
    return 0;
}

#endif

// ---- On the device

// Seconds of `call` and all that it enqueues: median of REPEATS after one that warms up.
static int time_calls(struct sl_device *device, struct sl_stream *stream, void (*call)(void *), void *context,
                      double *seconds, struct sl_error *error)
{
    double each[REPEATS];
    int status = SL_OK;
    for (int i = -1; i < REPEATS && status == SL_OK; i++) {
        double start = sl_timing_now_s();
        call(context);
        status = device->ops->wait(stream, error);
        if (i >= 0) {
            each[i] = sl_timing_now_s() - start;
        }
    }
    *seconds = status == SL_OK ? sl_timing_median(each, REPEATS) : 0;
    return status;
}

struct device_call {
    const struct sl_device_ops *ops;
    struct sl_stream *stream;
    struct sl_linear *linear;
    struct sl_tensor x, y;
    void *from, *to;
    int64_t bytes;
};

static void call_linear(void *context)
{
    struct device_call *c = context;
    for (int i = 0; i < CALLS; i++) {
        c->ops->linear(c->stream, c->linear, &c->x, SL_EPILOGUE_NONE, NULL, &c->y);
    }
}

static void call_copy(void *context)
{
    struct device_call *c = context;
    for (int i = 0; i < CALLS; i++) {
        c->ops->copy(c->stream, c->to, c->from, c->bytes);
    }
}

static void release_call(struct sl_device *device, struct device_call *c)
{
    c->ops->linear_destroy(c->linear);
    c->ops->release(device, c->from);
    c->ops->release(device, c->to);
    if (c->stream != NULL) {
        c->ops->stream_destroy(c->stream);
    }
}

// Weights and rows alike are the bf16 values +-0.0078 to 0.0156, as the products of the CPU are measured with.
static uint16_t *make_values(int64_t count)
{
    uint16_t *values = malloc((size_t)count * sizeof *values);
    uint32_t state = 1;
    for (int64_t i = 0; i < count && values != NULL; i++) {
        state = state * 1664525U + 1013904223U;
        values[i] = (uint16_t)(0x3c00U | (state >> 16 & 0x807fU));
    }
    return values;
}

int sl_reference_device_product(struct sl_device *device, int64_t rows, int64_t out, int64_t in, double *flops,
                                struct sl_error *error)
{
    struct device_call c = {.ops = device->ops};
    int64_t most = out > rows ? out : rows;
    uint16_t *values = make_values(most * in);
    if (values == NULL) {
        return sl_fail(error, SL_ERR_MEMORY, "out of memory");
    }
    struct sl_tensor weight = sl_tensor_2d(values, SL_BF16, out, in);
    int status = c.ops->stream_create(device, &c.stream, error);
    status = status == SL_OK ? c.ops->linear_create(device, &weight, 1, NULL, SL_BF16, &c.linear, error) : status;
    status = status == SL_OK ? c.ops->alloc(device, rows * in * 2, &c.from, error) : status;
    status = status == SL_OK ? c.ops->alloc(device, rows * out * 2, &c.to, error) : status;
    double seconds = 0;
    if (status == SL_OK) {
        c.x = sl_tensor_2d(c.from, SL_BF16, rows, in);
        c.y = sl_tensor_2d(c.to, SL_BF16, rows, out);
        c.ops->upload(c.stream, c.from, values, rows * in * 2);
        status = time_calls(device, c.stream, call_linear, &c, &seconds, error);
    }
    *flops = status == SL_OK ? 2.0 * (double)rows * (double)out * (double)in * CALLS / seconds : 0;
    release_call(device, &c);
    free(values);
    return status;
}

int sl_reference_copy(struct sl_device *device, double *bytes_per_s, struct sl_error *error)
{
    struct device_call c = {.ops = device->ops, .bytes = READ_BYTES};
    double seconds = 0;
    int status = c.ops->stream_create(device, &c.stream, error);
    status = status == SL_OK ? c.ops->alloc(device, c.bytes, &c.from, error) : status;
    status = status == SL_OK ? c.ops->alloc(device, c.bytes, &c.to, error) : status;
    if (status == SL_OK) {
        c.ops->zero(c.stream, c.from, c.bytes);
        status = time_calls(device, c.stream, call_copy, &c, &seconds, error);
    }
    *bytes_per_s = status == SL_OK ? 2.0 * (double)c.bytes * CALLS / seconds : 0;
    release_call(device, &c);
    return status;
}

// ---- Reading

struct sl_reading {
    int threads;
    uint64_t *words;
    uint64_t sum; // of all that was read, so that the reading cannot be left out
};

struct share {
    const uint64_t *words;
    int64_t count;
    uint64_t sum;
};

static void *read_words(void *pointer)
{
    struct share *r = pointer;
    uint64_t sum[8] = {0};
    for (int64_t i = 0; i + 8 <= r->count; i += 8) {
        __builtin_prefetch(r->words + i + 256); // 2 KiB ahead: processors alone do not run far enough
        for (int k = 0; k < 8; k++) {
            sum[k] += r->words[i + k];
        }
    }
    for (int k = 0; k < 8; k++) {
        r->sum += sum[k];
    }
    return NULL;
}

struct sl_reading *sl_reading_create(int threads)
{
    struct sl_reading *reading = calloc(1, sizeof *reading);
    uint64_t *words = malloc(READ_BYTES);
    if (reading == NULL || words == NULL) {
        free(reading);
        free(words);
        return NULL;
    }
    memset(words, 1, READ_BYTES);
    reading->words = words;
    reading->threads = threads < 1 ? 1 : threads > MAX_THREADS ? MAX_THREADS : threads;
    return reading;
}

double sl_reading_pass(struct sl_reading *reading)
{
    pthread_t thread[MAX_THREADS];
    struct share share[MAX_THREADS];
    int64_t count = READ_BYTES / 8 / reading->threads;
    int started = 0;
    double start = sl_timing_now_s();
    for (; started < reading->threads; started++) {
        share[started] = (struct share){.words = reading->words + started * count, .count = count};
        if (pthread_create(&thread[started], NULL, read_words, &share[started]) != 0) {
            break;
        }
    }
    for (int t = 0; t < started; t++) {
        pthread_join(thread[t], NULL);
        reading->sum += share[t].sum;
    }
    return (double)(started * count * 8) / (sl_timing_now_s() - start);
}

void sl_reading_destroy(struct sl_reading *reading)
{
    if (reading != NULL) {
        free(reading->words);
        free(reading);
    }
}
