// SPDX-License-Identifier: Apache-2.0
// cuda-ops: runs every operation of core/device.h on a device against cpu/, on random inputs, and times it.
//
//   cuda-ops [--device cuda[:N]|cpu] [--only NAME] [--time] [--seed N]
//
// One line a case; "FAIL" lines say shape, first bad index, what was expected and what came. With --device cpu the
// device under test is a second CPU device: that tries the harness itself. Exit status: 0 all good, 1 a case failed,
// 2 wrong use, 77 no GPU here. --time measures instead of checking.
#include "tests/tools/cuda_ops.h"

#include <getopt.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/half.h"
#include "cpu/cpu.h"
#include "src/model.h"

enum { POOL = 1048583, GUARD_BYTES = 256 };

static void stop(const char *what)
{
    fprintf(stderr, "cuda-ops: %s\n", what);
    exit(1);
}

// --- memory of a case ---

struct bench_memory {
    struct bench_memory *next;
    void *host, *device;
};

static void remember(struct bench *b, void *host, void *device)
{
    struct bench_memory *memory = malloc(sizeof *memory);
    if (memory == NULL || (host == NULL && device == NULL)) {
        stop("out of host memory");
    }
    *memory = (struct bench_memory){b->memory, host, device};
    b->memory = memory;
}

void *bench_host(struct bench *b, int64_t size_bytes)
{
    size_t size = ((size_t)size_bytes + 127) / 64 * 64;
    void *data = aligned_alloc(64, size);
    remember(b, data, NULL);
    memset(data, 0, size);
    return data;
}

void *bench_device(struct bench *b, int64_t size_bytes)
{
    struct sl_error error = {0};
    void *data = NULL;
    if (b->dut->ops->alloc(b->dut, size_bytes, &data, &error) != SL_OK) {
        stop(error.text);
    }
    remember(b, NULL, data);
    return data;
}

void bench_clear(struct bench *b)
{
    b->dut->ops->wait(b->stream, NULL);
    while (b->memory != NULL) {
        struct bench_memory *next = b->memory->next;
        free(b->memory->host);
        b->dut->ops->release(b->dut, b->memory->device);
        free(b->memory);
        b->memory = next;
    }
}

int bench_is_wanted(const struct bench *b, const char *name)
{
    return b->only == NULL || strstr(name, b->only) != NULL;
}

// --- random numbers ---

double bench_uniform(struct bench *b)
{
    b->random = b->random * 6364136223846793005u + 1442695040888963407u;
    return (double)(b->random >> 11) * 0x1p-53;
}

int64_t bench_below(struct bench *b, int64_t n)
{
    return (int64_t)(bench_uniform(b) * (double)n);
}

static float *make_pool(struct bench *b)
{
    float *pool = malloc(POOL * sizeof *pool);
    for (int i = 0; pool != NULL && i < POOL; i++) {
        double sum = bench_uniform(b) + bench_uniform(b) + bench_uniform(b) + bench_uniform(b) - 2;
        pool[i] = (float)(sum * sqrt(3));
    }
    return pool;
}

void bench_fill(struct bench *b, const struct sl_tensor *host, double scale)
{
    int64_t n = sl_tensor_elements(host), at = bench_below(b, POOL);
    float factor = (float)scale;
    for (int64_t done = 0; done < n;) {
        int64_t run = POOL - at < n - done ? POOL - at : n - done;
        for (int64_t i = 0; i < run; i++) {
            float value = b->pool[at + i] * factor;
            if (host->dtype == SL_BF16) {
                ((uint16_t *)host->data)[done + i] = sl_bf16_from_f32(value);
            } else {
                ((float *)host->data)[done + i] = value;
            }
        }
        done += run;
        at = 0;
    }
}

// --- operands ---

static float value_at(const struct sl_tensor *host, int64_t i)
{
    return host->dtype == SL_BF16 ? sl_bf16_to_f32(((const uint16_t *)host->data)[i]) : ((const float *)host->data)[i];
}

static int is_float(enum sl_dtype dtype)
{
    return dtype == SL_F32 || dtype == SL_BF16;
}

// Device memory with `offset` bytes before and a guard of 0xff bytes behind, both with the content of o->host.
static void send(struct bench *b, struct operand *o, int64_t offset)
{
    static const uint8_t guard[GUARD_BYTES] = {[0 ... GUARD_BYTES - 1] = 0xff};
    int64_t bytes = sl_tensor_bytes(&o->host);
    o->dut.data = (char *)bench_device(b, offset + bytes + GUARD_BYTES) + offset;
    b->dut->ops->upload(b->stream, o->dut.data, o->host.data, bytes);
    b->dut->ops->upload(b->stream, (char *)o->dut.data + bytes, guard, GUARD_BYTES);
}

static struct operand operand_of(struct bench *b, enum sl_dtype dtype, int64_t rows, int64_t columns)
{
    struct operand o;
    o.host = sl_tensor_2d(NULL, dtype, rows, columns);
    o.dut = o.host;
    o.ref = sl_tensor_2d(NULL, is_float(dtype) ? SL_F32 : dtype, rows, columns);
    o.host.data = bench_host(b, sl_tensor_bytes(&o.host));
    o.ref.data = o.host.data;
    if (is_float(dtype)) {
        o.ref.data = b->no_reference ? NULL : bench_host(b, sl_tensor_bytes(&o.ref));
    }
    return o;
}

static void host_to_reference(struct operand *o)
{
    int64_t n = sl_tensor_elements(&o->host);
    for (int64_t i = 0; is_float(o->host.dtype) && o->ref.data != NULL && i < n; i++) {
        ((float *)o->ref.data)[i] = value_at(&o->host, i);
    }
}

struct operand operand_random(struct bench *b, enum sl_dtype dtype, int64_t rows, int64_t columns, double scale)
{
    struct operand o = operand_of(b, dtype, rows, columns);
    bench_fill(b, &o.host, scale);
    host_to_reference(&o);
    send(b, &o, 0);
    return o;
}

static struct operand as_vector(struct operand o)
{
    int64_t n = sl_tensor_elements(&o.host);
    return operand_reshaped(&o, 1, &n);
}

struct operand operand_vector(struct bench *b, enum sl_dtype dtype, int64_t n, double middle, double scale)
{
    struct operand o = operand_of(b, dtype, 1, n);
    bench_fill(b, &o.host, scale);
    for (int64_t i = 0; i < n; i++) {
        float value = value_at(&o.host, i) + (float)middle;
        if (dtype == SL_BF16) {
            ((uint16_t *)o.host.data)[i] = sl_bf16_from_f32(value);
        } else {
            ((float *)o.host.data)[i] = value;
        }
    }
    host_to_reference(&o);
    send(b, &o, 0);
    return as_vector(o);
}

struct operand operand_output(struct bench *b, enum sl_dtype dtype, int64_t rows, int64_t columns)
{
    struct operand o = operand_of(b, dtype, rows, columns);
    memset(o.host.data, 0xff, (size_t)sl_tensor_bytes(&o.host));
    host_to_reference(&o);
    send(b, &o, 0);
    return o;
}

static struct operand operand_given(struct bench *b, enum sl_dtype dtype, const void *values, int64_t rows,
                                    int64_t columns, int64_t offset)
{
    struct operand o = operand_of(b, dtype, rows, columns);
    memcpy(o.host.data, values, (size_t)sl_tensor_bytes(&o.host));
    host_to_reference(&o);
    send(b, &o, offset);
    return o;
}

struct operand operand_ints(struct bench *b, const int32_t *values, int64_t rows, int64_t columns)
{
    struct operand o = operand_given(b, SL_I32, values, rows, columns, 4);
    return rows == 1 ? as_vector(o) : o;
}

struct operand operand_floats(struct bench *b, const float *values, int64_t rows, int64_t columns)
{
    struct operand o = operand_given(b, SL_F32, values, rows, columns, 0);
    return rows == 1 ? as_vector(o) : o;
}

struct operand operand_bytes(struct bench *b, const uint8_t *values, int64_t rows, int64_t columns)
{
    return operand_given(b, SL_U8, values, rows, columns, 0);
}

static struct sl_tensor reshaped(const struct sl_tensor *from, int rank, const int64_t *shape)
{
    struct sl_tensor t = {.data = from->data, .dtype = from->dtype, .rank = rank, .shape = {1, 1, 1, 1}};
    int64_t stride = 1;
    for (int i = rank - 1; i >= 0; i--) {
        t.shape[i] = shape[i];
        t.stride[i] = stride;
        stride *= shape[i];
    }
    return t;
}

struct operand operand_reshaped(const struct operand *from, int rank, const int64_t *shape)
{
    return (struct operand){reshaped(&from->dut, rank, shape), reshaped(&from->ref, rank, shape),
                            reshaped(&from->host, rank, shape)};
}

void operand_fetch(struct bench *b, struct operand *o)
{
    struct sl_error error = {0};
    b->dut->ops->download(b->stream, o->host.data, o->dut.data, sl_tensor_bytes(&o->host));
    b->dut->ops->wait(b->stream, &error);
}

void operand_take_over(struct bench *b, struct operand *o)
{
    operand_fetch(b, o);
    host_to_reference(o);
}

struct sl_tensor operand_reference_rows(struct bench *b, const struct operand *o, const int64_t *row, int64_t count)
{
    int64_t columns = o->ref.shape[1], bytes = columns * (int64_t)sizeof(float);
    struct sl_tensor rows = sl_tensor_2d(bench_host(b, count * bytes), SL_F32, count, columns);
    for (int64_t i = 0; i < count; i++) {
        memcpy((char *)rows.data + i * bytes, (const char *)o->ref.data + row[i] * bytes, (size_t)bytes);
    }
    return rows;
}

// --- the verdict ---

const char *short_type(enum sl_dtype dtype)
{
    return dtype == SL_BF16 ? "bf16" : "f32";
}

// Rounding to bf16 alone gives about 1.7e-3; a second rounding on the way is allowed.
double bench_limit(enum sl_dtype output, enum sl_dtype compute)
{
    return output == SL_BF16 || compute == SL_BF16 ? 5e-3 : 2e-5;
}

void judge_plain(struct bench *b, int good, const char *what, const char *why)
{
    b->passed += good;
    b->failed += !good;
    printf("%s  %s%s%s\n", good ? "ok  " : "FAIL", what, good ? "" : ": ", good ? "" : why);
    fflush(stdout);
}

int bench_failed_stream(struct bench *b, const char *what)
{
    struct sl_error error = {0};
    if (b->dut->ops->wait(b->stream, &error) == SL_OK) {
        return 0;
    }
    judge_plain(b, 0, what, error.text);
    // The next case gets a new stream; if the device itself is broken that fails as well.
    struct sl_stream *fresh;
    if (b->dut->ops->stream_create(b->dut, &fresh, &error) != SL_OK) {
        stop(error.text);
    }
    b->dut->ops->stream_destroy(b->stream);
    b->stream = fresh;
    return 1;
}

static int guard_is_whole(struct bench *b, const struct operand *o)
{
    uint8_t guard[GUARD_BYTES];
    memset(guard, 0, sizeof guard);
    b->dut->ops->download(b->stream, guard, (const char *)o->dut.data + sl_tensor_bytes(&o->host), GUARD_BYTES);
    b->dut->ops->wait(b->stream, NULL);
    for (int i = 0; i < GUARD_BYTES; i++) {
        if (guard[i] != 0xff) {
            return 0;
        }
    }
    return 1;
}

struct verdict {
    double relative, worst_row;  // errors
    int64_t bad_row, bad_column; // the first; -1: none
    double expected, got;
};

// One row: its share of the sums; the first bad value.
static void compare_row(struct verdict *v, const struct sl_tensor *host, int64_t row, const float *ref, double limit,
                        double sums[2])
{
    int64_t n = host->shape[1];
    double difference = 0, size = 0;
    for (int64_t i = 0; i < n; i++) {
        double d = (double)value_at(host, row * n + i) - (double)ref[i];
        difference += d * d;
        size += (double)ref[i] * (double)ref[i];
    }
    double rms = sqrt(size / (double)n);
    for (int64_t i = 0; i < n && v->bad_row < 0; i++) {
        double got = value_at(host, row * n + i), wanted = ref[i];
        if (!(fabs(got - wanted) <= 6 * limit * (fabs(wanted) + rms))) {
            v->bad_row = row;
            v->bad_column = i;
            v->expected = wanted;
            v->got = got;
        }
    }
    double relative = sqrt(difference) / (sqrt(size) + 1e-30);
    v->worst_row = !(relative <= v->worst_row) ? relative : v->worst_row;
    sums[0] += difference;
    sums[1] += size;
}

static void find_holes(struct verdict *v, const struct sl_tensor *host)
{
    int64_t n = host->shape[1];
    for (int64_t i = 0; i < sl_tensor_elements(host) && v->bad_row < 0; i++) {
        if (!isfinite(value_at(host, i))) {
            *v = (struct verdict){v->relative, v->worst_row, i / n, i % n, 0, value_at(host, i)};
        }
    }
}

// The listed rows (NULL: the first `count`) against `ref`.
static struct verdict compare(const struct sl_tensor *host, const struct sl_tensor *ref, const int64_t *row,
                              int64_t count, double limit)
{
    struct verdict v = {.bad_row = -1, .bad_column = -1};
    double sums[2] = {0};
    for (int64_t i = 0; i < count; i++) {
        compare_row(&v, host, row ? row[i] : i, (const float *)ref->data + i * ref->shape[1], limit, sums);
    }
    v.relative = sqrt(sums[0]) / (sqrt(sums[1]) + 1e-30);
    return v;
}

static void pronounce(struct bench *b, const struct operand *o, const struct verdict *v, double limit, const char *what)
{
    int whole = guard_is_whole(b, o);
    int good = v->relative <= limit && v->worst_row <= 3 * limit && v->bad_row < 0 && whole;
    b->passed += good;
    b->failed += !good;
    b->worst = fmax(b->worst, v->relative / limit);
    printf("%s  %s: error %.1e, worst row %.1e, limit %.0e\n", good ? "ok  " : "FAIL", what, v->relative, v->worst_row,
           limit);
    if (v->bad_row >= 0) {
        printf("      first bad value: row %lld, column %lld: expected %.6g, got %.6g\n", (long long)v->bad_row,
               (long long)v->bad_column, v->expected, v->got);
    }
    if (!whole) {
        printf("      written beyond the end\n");
    }
    fflush(stdout);
}

void judge_rows(struct bench *b, struct operand *o, const struct sl_tensor *ref, const int64_t *row, int64_t count,
                double limit, const char *what)
{
    if (bench_failed_stream(b, what)) {
        return;
    }
    operand_fetch(b, o);
    struct verdict v = compare(&o->host, ref, row, count, limit);
    find_holes(&v, &o->host);
    pronounce(b, o, &v, limit, what);
}

void judge_some_rows(struct bench *b, struct operand *o, int64_t columns, const int64_t *row, int64_t count,
                     double limit, const char *what)
{
    if (bench_failed_stream(b, what)) {
        return;
    }
    struct operand rows = operand_reshaped(o, 2, (int64_t[]){sl_tensor_elements(&o->host) / columns, columns});
    operand_fetch(b, &rows);
    struct sl_tensor wanted = operand_reference_rows(b, &rows, row, count);
    struct verdict v = compare(&rows.host, &wanted, row, count, limit);
    pronounce(b, &rows, &v, limit, what);
}

void judge(struct bench *b, struct operand *o, double limit, const char *format, ...)
{
    char what[240];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(what, sizeof what, format, arguments);
    va_end(arguments);
    int64_t columns = o->host.shape[o->host.rank - 1], shape[2] = {sl_tensor_elements(&o->host) / columns, columns};
    struct operand flat = operand_reshaped(o, 2, shape);
    judge_rows(b, &flat, &flat.ref, NULL, shape[0], limit, what);
}

// --- the tool ---

static const struct {
    const char *name;
    void (*run)(struct bench *b);
    int bf16_only; // pictures and plumbing do not depend on the type
} groups[] = {
    {"copies", check_copies, 1},
    {"fences", check_fences, 1},
    {"norms", check_norms, 0},
    {"rows", check_rows, 0},
    {"linear", check_linear, 0},
    {"rmsnorm_linear", check_rmsnorm_linear, 0},
    {"f8", check_f8, 0},
    {"experts_route", check_route, 1},
    {"experts", check_experts, 0},
    {"rmsnorm_experts", check_rmsnorm_experts, 0},
    {"rope_2d", check_rope_2d, 0},
    {"attention_groups", check_attention_groups, 0},
    {"paged", check_paged, 0},
    {"sample", check_sample, 1},
    {"image_resize", check_image_resize, 1},
    {"pair_differences", check_pair_differences, 1},
    {"patchify", check_patchify, 0},
    {"graphs", check_graphs, 0},
    {"errors", check_errors, 1},
};

static void run_group(struct bench *b, const char *name, void (*run)(struct bench *b))
{
    int passed = b->passed, failed = b->failed;
    b->worst = 0;
    run(b);
    bench_clear(b);
    printf("---- %s %s: %d passed, %d failed; the largest error is %.2f of its limit\n", name, short_type(b->type),
           b->passed - passed, b->failed - failed, b->worst);
}

static void check_all(struct bench *b)
{
    static const enum sl_dtype types[] = {SL_BF16, SL_F32};
    for (size_t i = 0; i < sizeof groups / sizeof *groups; i++) {
        for (int t = 0; t < 2 && bench_is_wanted(b, groups[i].name); t++) {
            b->type = types[t];
            if (t == 0 || !groups[i].bf16_only) {
                run_group(b, groups[i].name, groups[i].run);
            }
        }
    }
}

// 0, or the exit status.
static int open_devices(struct bench *b, const char *name)
{
    struct sl_error error = {0};
    int status = sl_cpu_create(0, &b->reference, &error);
    status = status == SL_OK ? sl_model_open_device(name, 0, 0, &b->dut, &error) : status;
    if (status == SL_ERR_DEVICE) {
        printf("%s\n", error.text);
        return 77;
    }
    status = status == SL_OK ? b->reference->ops->stream_create(b->reference, &b->reference_stream, &error) : status;
    status = status == SL_OK ? b->dut->ops->stream_create(b->dut, &b->stream, &error) : status;
    b->pool = make_pool(b);
    if (status != SL_OK || b->pool == NULL) {
        fprintf(stderr, "cuda-ops: %s\n", status != SL_OK ? error.text : "out of memory");
        return status == SL_ERR_USAGE ? 2 : 1;
    }
    return 0;
}

static void close_devices(struct bench *b)
{
    bench_clear(b);
    b->dut->ops->stream_destroy(b->stream);
    b->reference->ops->stream_destroy(b->reference_stream);
    b->dut->ops->destroy(b->dut);
    b->reference->ops->destroy(b->reference);
    free(b->pool);
}

int main(int argc, char **argv)
{
    static const struct option names[] = {
        {"device", 1, NULL, 'd'}, {"only", 1, NULL, 'o'}, {"time", 0, NULL, 't'}, {"seed", 1, NULL, 's'}, {0}};
    struct bench b = {.random = 1};
    const char *device = "cuda";
    int timing = 0;
    for (int option; (option = getopt_long(argc, argv, "", names, NULL)) != -1;) {
        switch (option) {
        case 'd':
            device = optarg;
            b.device_index = strchr(optarg, ':') != NULL ? atoi(strchr(optarg, ':') + 1) : 0;
            break;
        case 'o':
            b.only = optarg;
            break;
        case 't':
            timing = 1;
            break;
        case 's':
            b.random = strtoull(optarg, NULL, 10);
            break;
        default:
            return 2;
        }
    }
    int status = open_devices(&b, device);
    if (status != 0) {
        return status;
    }
    struct sl_device_info info, reference;
    b.dut->ops->info(b.dut, &info);
    b.reference->ops->info(b.reference, &reference);
    printf("%s against %s\n", info.name, reference.name);
    if (timing) {
        time_all(&b);
    } else {
        check_all(&b);
        printf("%d passed, %d failed\n", b.passed, b.failed);
    }
    close_devices(&b);
    return b.failed > 0 || (!timing && b.passed == 0);
}
