// SPDX-License-Identifier: Apache-2.0
#include "cpu/onednn.h"

#include "config.h"

#if SL_HAVE_ONEDNN
#include <dnnl.h>
#include <omp.h>
#include <stdlib.h>
#include <string.h>
#ifdef __x86_64__
#include <cpuid.h>
#endif

enum {
    ROWS = 512,  // of x in one call: bounds the f32 results that wait for their epilogue
    CACHED = 64, // primitives; to make one takes longer than many a product
};

// What a primitive was made for.
struct key {
    int bf16;
    int64_t m, n, k, x_stride, w_stride, y_stride;
};

struct entry {
    struct key key;
    dnnl_primitive_t primitive; // NULL: free
    int64_t last_use;
};

struct cpu_onednn {
    dnnl_engine_t engine;
    int64_t uses;
    struct entry entry[CACHED];
};

int cpu_onednn_pays(void)
{
#ifdef __x86_64__
    unsigned a, b, c, d;
    return __get_cpuid_count(7, 0, &a, &b, &c, &d) && (d >> 22 & 1) && (d >> 24 & 1); // AMX-BF16 and AMX-TILE
#else
    return 0;
#endif
}

struct cpu_onednn *cpu_onednn_create(void)
{
    struct cpu_onednn *onednn = calloc(1, sizeof *onednn);
    if (onednn && dnnl_engine_create(&onednn->engine, dnnl_cpu, 0) != dnnl_success) {
        free(onednn);
        return NULL;
    }
    return onednn;
}

void cpu_onednn_destroy(struct cpu_onednn *onednn)
{
    if (!onednn) {
        return;
    }
    for (int i = 0; i < CACHED; i++) {
        dnnl_primitive_destroy(onednn->entry[i].primitive);
    }
    dnnl_engine_destroy(onednn->engine);
    free(onednn);
}

static int describe(const struct key *key, dnnl_memory_desc_t *x, dnnl_memory_desc_t *w, dnnl_memory_desc_t *y)
{
    dnnl_dims_t x_shape = {key->m, key->k}, w_shape = {key->k, key->n}, y_shape = {key->m, key->n};
    dnnl_dims_t x_stride = {key->x_stride, 1}, w_stride = {1, key->w_stride}, y_stride = {key->y_stride, 1};
    dnnl_data_type_t type = key->bf16 ? dnnl_bf16 : dnnl_f32;
    return dnnl_memory_desc_init_by_strides(x, 2, x_shape, type, x_stride) == dnnl_success &&
           dnnl_memory_desc_init_by_strides(w, 2, w_shape, type, w_stride) == dnnl_success &&
           dnnl_memory_desc_init_by_strides(y, 2, y_shape, dnnl_f32, y_stride) == dnnl_success;
}

static dnnl_primitive_t make_primitive(dnnl_engine_t engine, const struct key *key)
{
    dnnl_memory_desc_t x, w, y;
    dnnl_matmul_desc_t matmul;
    dnnl_primitive_desc_t description = NULL;
    dnnl_primitive_t primitive = NULL;
    if (describe(key, &x, &w, &y) && dnnl_matmul_desc_init(&matmul, &x, &w, NULL, &y) == dnnl_success &&
        dnnl_primitive_desc_create(&description, &matmul, NULL, engine, NULL) == dnnl_success &&
        dnnl_primitive_create(&primitive, description) != dnnl_success) {
        primitive = NULL;
    }
    dnnl_primitive_desc_destroy(description);
    return primitive;
}

// The primitive for `key`, from the cache or made; the one longest unused gives way.
static dnnl_primitive_t primitive_for(struct cpu_onednn *onednn, const struct key *key)
{
    struct entry *oldest = onednn->entry;
    for (struct entry *e = onednn->entry; e < onednn->entry + CACHED; e++) {
        if (e->primitive && memcmp(&e->key, key, sizeof *key) == 0) {
            e->last_use = ++onednn->uses;
            return e->primitive;
        }
        if (e->last_use < oldest->last_use) {
            oldest = e;
        }
    }
    dnnl_primitive_destroy(oldest->primitive);
    oldest->key = *key;
    oldest->last_use = ++onednn->uses;
    oldest->primitive = make_primitive(onednn->engine, key);
    return oldest->primitive;
}

static int execute(struct cpu_onednn *onednn, const struct key *key, const void *x, const void *w, float *y)
{
    dnnl_memory_desc_t description[3];
    dnnl_memory_t memory[3] = {NULL};
    void *data[3] = {(void *)x, (void *)w, y};
    dnnl_stream_t stream = NULL;
    dnnl_primitive_t primitive = primitive_for(onednn, key);
    int right = primitive && describe(key, &description[0], &description[1], &description[2]) &&
                dnnl_stream_create(&stream, onednn->engine, dnnl_stream_default_flags) == dnnl_success;
    for (int i = 0; right && i < 3; i++) {
        right = dnnl_memory_create(&memory[i], &description[i], onednn->engine, data[i]) == dnnl_success;
    }
    if (right) {
        dnnl_exec_arg_t arguments[3] = {
            {DNNL_ARG_SRC, memory[0]}, {DNNL_ARG_WEIGHTS, memory[1]}, {DNNL_ARG_DST, memory[2]}};
        right = dnnl_primitive_execute(primitive, stream, 3, arguments) == dnnl_success &&
                dnnl_stream_wait(stream) == dnnl_success;
    }
    for (int i = 0; i < 3; i++) {
        dnnl_memory_destroy(memory[i]);
    }
    dnnl_stream_destroy(stream);
    return right;
}

// The parts of w side by side: c[rows][out].
static int multiply(struct cpu_onednn *onednn, const struct cpu_product *p, int64_t row, int64_t rows, float *c)
{
    int64_t size = p->bf16 ? 2 : 4, column = 0;
    for (int i = 0; i < p->linear->n; i++) {
        const struct cpu_linear_part *part = &p->linear->part[i];
        struct key key;
        memset(&key, 0, sizeof key); // compared as bytes
        key.bf16 = p->bf16;
        key.m = rows;
        key.n = part->rows;
        key.k = p->k;
        key.x_stride = p->x_stride_bytes / size;
        key.w_stride = part->stride_bytes / size;
        key.y_stride = p->linear->out;
        if (part->rows && !execute(onednn, &key, p->x + row * p->x_stride_bytes, part->data, c + column)) {
            return 0;
        }
        column += part->rows;
    }
    return 1;
}

struct finishing {
    const struct cpu_product *product;
    const float *c;
    int64_t row; // of x, the first of c
};

static void finish_row(void *pointer, int64_t i, int worker)
{
    (void)worker;
    const struct finishing *f = pointer;
    int64_t out = f->product->linear->out, columns = f->product->columns;
    f->product->kernels->finish_rows(&f->product->finish, f->c + i * out, f->c + i * out + columns, out, f->row + i, 1,
                                     0, columns);
}

void cpu_product_onednn(struct sl_stream *stream, const struct cpu_product *product)
{
    int64_t out = product->linear->out, rows = product->rows < ROWS ? product->rows : ROWS;
    float *c = cpu_scratch(stream, CPU_SLOT_B, rows * out * 4);
    int threads = cpu_threads(stream, out * product->k / 64 * rows), before = omp_get_max_threads();
    omp_set_num_threads(threads); // of this host thread only: oneDNN has no other way to be told
    for (int64_t row = 0; c && row < product->rows; row += rows) {
        int64_t count = product->rows - row < rows ? product->rows - row : rows;
        if (!multiply(stream->device->onednn, product, row, count, c)) {
            cpu_fail(stream, SL_ERR_INTERNAL, "oneDNN failed at a product of %lld x %lld x %lld", (long long)count,
                     (long long)out, (long long)product->k);
            break;
        }
        struct finishing job = {.product = product, .c = c, .row = row};
        cpu_loop(stream, threads, count, finish_row, &job);
    }
    omp_set_num_threads(before);
}

#else

int cpu_onednn_pays(void)
{
    return 0;
}

struct cpu_onednn *cpu_onednn_create(void)
{
    return NULL;
}

void cpu_onednn_destroy(struct cpu_onednn *onednn)
{
    (void)onednn;
}

void cpu_product_onednn(struct sl_stream *stream, const struct cpu_product *product)
{
    cpu_product_many(stream, product);
}

#endif
