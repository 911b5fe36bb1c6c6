// SPDX-License-Identifier: Apache-2.0
// How near the operations of cpu/ come to what this machine can do, at the sizes of Qwen3-VL 2B. Products and attention
// are held against one bf16 product of oneDNN's of the size of the MLP's (our own, in a build without oneDNN), reading
// against a loop that only reads. Each measurement has its reference beside it, since other programs come and go.
//   bench_cpu [THREADS]
#include <math.h>
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "config.h"
#include "cpu/cpu.h"

#if SL_HAVE_ONEDNN
#include <dnnl.h>
#endif

enum {
    REPEATS = 7,
    TOKENS = 2048, // of the prompt
    PATCHES = 784, // of a pair of 448x448
    LAYERS = 6,    // with weights of their own, so that no cache holds them all
    PAGE = 64,
    WIDTH = 2048, // of the decoder
    INNER = 6144,
    HEADS = 16,
    KV_HEADS = 8,
    HEAD = 128,
    TOWER = 1024, // of the vision tower
    TOWER_INNER = 4096,
    TOWER_HEADS = 16,
};

static struct sl_device *device;
static const struct sl_device_ops *ops;
static struct sl_stream *stream;
static int threads;

static void must(int status, const char *what)
{
    if (status != SL_OK) {
        fprintf(stderr, "bench_cpu: %s failed\n", what);
        exit(1);
    }
}

static double now_s(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(double *times)
{
    qsort(times, REPEATS, sizeof *times, compare);
    return times[REPEATS / 2];
}

static struct sl_tensor random_tensor(enum sl_dtype dtype, int64_t rows, int64_t columns)
{
    struct sl_tensor t = sl_tensor_2d(NULL, dtype, rows, columns);
    must(ops->alloc(device, sl_tensor_bytes(&t), &t.data, NULL), "alloc");
    uint32_t state = 1;
    for (int64_t i = 0; i < rows * columns; i++) {
        state = state * 1664525u + 1013904223u;
        uint32_t bits = 0x3c000000u | (state & 0x80ff0000u); // about +-0.01
        if (dtype == SL_BF16) {
            ((uint16_t *)t.data)[i] = (uint16_t)(bits >> 16);
        } else {
            memcpy((float *)t.data + i, &bits, 4);
        }
    }
    return t;
}

static struct sl_linear *random_linear(int64_t out, int64_t in, int with_bias)
{
    struct sl_tensor w = random_tensor(SL_BF16, out, in), bias = random_tensor(SL_BF16, 1, out);
    struct sl_linear *linear;
    must(ops->linear_create(device, &w, 1, with_bias ? &bias : NULL, SL_BF16, &linear, NULL), "linear_create");
    return linear;
}

// --- what the machine can do ---

static struct sl_linear *reference_linear;
static struct sl_tensor reference_x, reference_y;

static void own_product(void)
{
    ops->linear(stream, reference_linear, &reference_x, SL_EPILOGUE_NONE, NULL, &reference_y);
}

#if SL_HAVE_ONEDNN
static dnnl_stream_t dnnl_queue;
static dnnl_primitive_t dnnl_product;
static dnnl_exec_arg_t dnnl_arguments[3];

static void prepare_reference(void)
{
    dnnl_engine_t engine;
    dnnl_memory_desc_t d[3];
    dnnl_matmul_desc_t matmul;
    dnnl_primitive_desc_t description;
    dnnl_dims_t shape[3] = {{TOKENS, WIDTH}, {WIDTH, INNER}, {TOKENS, INNER}};
    const dnnl_format_tag_t tag[3] = {dnnl_ab, dnnl_ba, dnnl_ab};
    const int argument[3] = {DNNL_ARG_SRC, DNNL_ARG_WEIGHTS, DNNL_ARG_DST};
    struct sl_tensor w = random_tensor(SL_BF16, INNER, WIDTH);
    void *data[3] = {reference_x.data, w.data, reference_y.data};
    must(dnnl_engine_create(&engine, dnnl_cpu, 0) || dnnl_stream_create(&dnnl_queue, engine, 0), "oneDNN");
    for (int i = 0; i < 3; i++) {
        dnnl_memory_t part = NULL;
        must(dnnl_memory_desc_init_by_tag(&d[i], 2, shape[i], dnnl_bf16, tag[i]) ||
                 dnnl_memory_create(&part, &d[i], engine, data[i]),
             "oneDNN memory");
        dnnl_arguments[i] = (dnnl_exec_arg_t){argument[i], part};
    }
    must(dnnl_matmul_desc_init(&matmul, &d[0], &d[1], NULL, &d[2]) ||
             dnnl_primitive_desc_create(&description, &matmul, NULL, engine, NULL) ||
             dnnl_primitive_create(&dnnl_product, description),
         "oneDNN matmul (has this processor bf16?)");
}

static void reference(void)
{
    omp_set_num_threads(threads);
    dnnl_primitive_execute(dnnl_product, dnnl_queue, 3, dnnl_arguments);
    dnnl_stream_wait(dnnl_queue);
}
#else
static void prepare_reference(void)
{
}

static void reference(void)
{
    own_product();
}
#endif

static const int64_t read_bytes = 768 << 20;
static uint64_t *memory, read_sum; // the sum is kept so that the loop is not dropped

static void read_memory(void)
{
    uint64_t sum = 0;
#pragma omp parallel for num_threads(threads) reduction(+ : sum) schedule(static)
    for (int64_t i = 0; i < read_bytes / 8; i++) {
        sum += memory[i];
    }
    read_sum += sum;
}

// --- measuring ---

struct timing {
    double work_s, beside_s;
};

static struct timing measure(void (*work)(void), void (*beside)(void))
{
    double w[REPEATS], b[REPEATS];
    work();
    for (int i = 0; i < REPEATS; i++) {
        double start = now_s();
        beside();
        double middle = now_s();
        work();
        b[i] = middle - start;
        w[i] = now_s() - middle;
    }
    must(ops->wait(stream, NULL), "an operation");
    return (struct timing){median(w), median(b)};
}

static void show_flops(const char *what, void (*work)(void), double flops)
{
    struct timing t = measure(work, reference);
    double rate = flops / t.work_s, ceiling = 2.0 * TOKENS * WIDTH * INNER / t.beside_s;
    printf("%-44s %9.3f ms %7.0f GFLOP/s %5.1f %% of %.0f\n", what, t.work_s * 1e3, rate * 1e-9, 100 * rate / ceiling,
           ceiling * 1e-9);
}

static void show_bytes(const char *what, void (*work)(void), double bytes)
{
    struct timing t = measure(work, read_memory);
    double rate = bytes / t.work_s, ceiling = (double)read_bytes / t.beside_s;
    printf("%-44s %9.3f ms %7.1f GB/s    %5.1f %% of %.1f\n", what, t.work_s * 1e3, rate * 1e-9, 100 * rate / ceiling,
           ceiling * 1e-9);
}

// --- products ---

static struct sl_linear *product_linear;
static struct sl_tensor product_x, product_y;
static enum sl_epilogue product_epilogue;

static void product(void)
{
    ops->linear(stream, product_linear, &product_x, product_epilogue, NULL, &product_y);
}

static void bench_products(void)
{
    static const struct {
        const char *what;
        int64_t rows, in, out;
        enum sl_epilogue epilogue;
    } list[] = {
        {"decoder: qkv", TOKENS, WIDTH, (HEADS + 2 * KV_HEADS) * HEAD, SL_EPILOGUE_NONE},
        {"decoder: attention output", TOKENS, WIDTH, WIDTH, SL_EPILOGUE_NONE},
        {"decoder: gate and up", TOKENS, WIDTH, 2 * INNER, SL_EPILOGUE_SILU_GATE},
        {"decoder: down", TOKENS, INNER, WIDTH, SL_EPILOGUE_NONE},
        {"tower: patches", PATCHES, 1536, TOWER, SL_EPILOGUE_NONE},
        {"tower: qkv", PATCHES, TOWER, 3 * TOWER, SL_EPILOGUE_NONE},
        {"tower: attention output", PATCHES, TOWER, TOWER, SL_EPILOGUE_NONE},
        {"tower: first of MLP, GELU", PATCHES, TOWER, TOWER_INNER, SL_EPILOGUE_GELU_TANH},
        {"tower: second of MLP", PATCHES, TOWER_INNER, TOWER, SL_EPILOGUE_NONE},
        {"merger: first, GELU", PATCHES / 4, 4 * TOWER, 4 * TOWER, SL_EPILOGUE_GELU_ERF},
    };
    for (size_t i = 0; i < sizeof list / sizeof *list; i++) {
        int64_t columns = list[i].epilogue == SL_EPILOGUE_SILU_GATE ? list[i].out / 2 : list[i].out;
        product_linear = random_linear(list[i].out, list[i].in, 1);
        product_x = random_tensor(SL_BF16, list[i].rows, list[i].in);
        product_y = random_tensor(SL_BF16, list[i].rows, columns);
        product_epilogue = list[i].epilogue;
        show_flops(list[i].what, product, 2.0 * (double)(list[i].rows * list[i].in * list[i].out));
        ops->linear_destroy(product_linear);
        ops->release(device, product_x.data);
        ops->release(device, product_y.data);
    }
}

// --- the tower ---

static struct {
    struct sl_linear *qkv, *out, *first, *second;
    struct sl_tensor x, normed, wide, qkv_rows, norm, group_start, position;
} tower;

static void tower_attention(void)
{
    ops->attention_groups(stream, &tower.qkv_rows, TOWER_HEADS, &tower.group_start, 1, PATCHES, &tower.normed);
}

static void tower_block(void)
{
    ops->layernorm(stream, &tower.x, &tower.norm, &tower.norm, 1e-6f, &tower.normed);
    ops->linear(stream, tower.qkv, &tower.normed, SL_EPILOGUE_NONE, NULL, &tower.qkv_rows);
    ops->rope_2d(stream, &tower.qkv_rows, TOWER_HEADS, &tower.position);
    tower_attention();
    ops->linear(stream, tower.out, &tower.normed, SL_EPILOGUE_NONE, &tower.x, &tower.x);
    ops->layernorm(stream, &tower.x, &tower.norm, &tower.norm, 1e-6f, &tower.normed);
    ops->linear(stream, tower.first, &tower.normed, SL_EPILOGUE_GELU_TANH, NULL, &tower.wide);
    ops->linear(stream, tower.second, &tower.wide, SL_EPILOGUE_NONE, &tower.x, &tower.x);
}

static struct sl_tensor vector_of(struct sl_tensor t)
{
    return sl_tensor_1d(t.data, t.dtype, t.shape[1]);
}

static void bench_tower(void)
{
    static int32_t start[2] = {0, PATCHES}, position[2 * PATCHES];
    for (int i = 0; i < 2 * PATCHES; i++) {
        position[i] = i / 2 * 37 % 28;
    }
    tower.qkv = random_linear(3 * TOWER, TOWER, 1);
    tower.out = random_linear(TOWER, TOWER, 1);
    tower.first = random_linear(TOWER_INNER, TOWER, 1);
    tower.second = random_linear(TOWER, TOWER_INNER, 1);
    tower.x = random_tensor(SL_BF16, PATCHES, TOWER);
    tower.normed = random_tensor(SL_BF16, PATCHES, TOWER);
    tower.wide = random_tensor(SL_BF16, PATCHES, TOWER_INNER);
    tower.qkv_rows = random_tensor(SL_BF16, PATCHES, 3 * TOWER);
    tower.norm = vector_of(random_tensor(SL_BF16, 1, TOWER));
    tower.group_start = sl_tensor_1d(start, SL_I32, 2);
    tower.position = sl_tensor_2d(position, SL_I32, PATCHES, 2);
    double attention = 4.0 * PATCHES * PATCHES * TOWER;
    double linears = 2.0 * PATCHES * TOWER * (4.0 * TOWER + 2.0 * TOWER_INNER);
    show_flops("tower: attention, one pair of 448x448", tower_attention, attention);
    show_flops("tower: a whole block (wanted: 70 %)", tower_block, linears + attention);
}

// --- the decoder ---

struct layer {
    struct sl_linear *qkv, *out, *gate_up, *down;
    struct sl_kv_layer kv;
};

static struct layer layers[LAYERS];
static struct {
    struct sl_ragged ragged;
    struct sl_rope rope;
    struct sl_tensor x, normed, wide, qkv, norm, head_norm;
    int layers;
} step;
static struct sl_linear *head;
static struct sl_tensor logits;

static void decoder_attention(void)
{
    ops->attention_paged(stream, &step.ragged, &step.qkv, HEADS, &layers[0].kv, &step.normed);
}

static void decoder_layers(void)
{
    for (int i = 0; i < step.layers; i++) {
        const struct layer *l = &layers[i];
        ops->rmsnorm(stream, &step.x, &step.norm, 1e-6f, &step.normed);
        ops->linear(stream, l->qkv, &step.normed, SL_EPILOGUE_NONE, NULL, &step.qkv);
        ops->qk_norm_rope_store(stream, &step.ragged, &step.qkv, HEADS, &step.head_norm, &step.head_norm, 1e-6f,
                                &step.rope, &l->kv);
        ops->attention_paged(stream, &step.ragged, &step.qkv, HEADS, &l->kv, &step.normed);
        ops->linear(stream, l->out, &step.normed, SL_EPILOGUE_NONE, &step.x, &step.x);
        ops->rmsnorm(stream, &step.x, &step.norm, 1e-6f, &step.normed);
        ops->linear(stream, l->gate_up, &step.normed, SL_EPILOGUE_SILU_GATE, NULL, &step.wide);
        ops->linear(stream, l->down, &step.wide, SL_EPILOGUE_NONE, &step.x, &step.x);
    }
}

static void head_product(void)
{
    ops->linear(stream, head, &step.x, SL_EPILOGUE_NONE, NULL, &logits);
}

static void make_layers(int64_t pages)
{
    for (int i = 0; i < LAYERS; i++) {
        struct sl_tensor k = random_tensor(SL_BF16, pages * PAGE, KV_HEADS * HEAD);
        struct sl_tensor v = random_tensor(SL_BF16, pages * PAGE, KV_HEADS * HEAD);
        layers[i].qkv = random_linear((HEADS + 2 * KV_HEADS) * HEAD, WIDTH, 0);
        layers[i].out = random_linear(WIDTH, HEADS * HEAD, 0);
        layers[i].gate_up = random_linear(2 * INNER, WIDTH, 0);
        layers[i].down = random_linear(WIDTH, INNER, 0);
        layers[i].kv.k = sl_tensor_4d(k.data, SL_BF16, pages, KV_HEADS, PAGE, HEAD);
        layers[i].kv.v = sl_tensor_4d(v.data, SL_BF16, pages, KV_HEADS, PAGE, HEAD);
    }
}

// `sequences` of `rows` new tokens each, `length` in the cache after them; all share the same pages.
static void make_step(int sequences, int rows, int length)
{
    static int32_t start[64], lengths[64], table[64 * TOKENS / PAGE], position[3 * TOKENS], axis[HEAD / 2];
    static float frequency[HEAD / 2];
    int64_t all = sequences * rows, pages = TOKENS / PAGE;
    for (int b = 0; b <= sequences; b++) {
        start[b] = b * rows;
        lengths[b] = length;
    }
    for (int64_t i = 0; i < sequences * pages; i++) {
        table[i] = (int32_t)(i * 7 % pages);
    }
    for (int i = 0; i < 3 * all; i++) {
        position[i] = i % TOKENS;
    }
    for (int j = 0; j < HEAD / 2; j++) {
        frequency[j] = powf(5e6f, -(float)j / (HEAD / 2));
        axis[j] = j % 3;
    }
    step.ragged = (struct sl_ragged){.sequences = sequences,
                                     .rows = (int)all,
                                     .row_start = sl_tensor_1d(start, SL_I32, sequences + 1),
                                     .kv_length = sl_tensor_1d(lengths, SL_I32, sequences),
                                     .page_table = sl_tensor_2d(table, SL_I32, sequences, pages),
                                     .position = sl_tensor_2d(position, SL_I32, 3, all),
                                     .max_rows = rows,
                                     .max_kv_length = length};
    step.rope = (struct sl_rope){sl_tensor_1d(frequency, SL_F32, HEAD / 2), sl_tensor_1d(axis, SL_I32, HEAD / 2), 1};
    step.x.shape[0] = step.normed.shape[0] = step.wide.shape[0] = step.qkv.shape[0] = all;
}

static void bench_decoder(void)
{
    const double values = (double)WIDTH * ((2 * HEADS + 2 * KV_HEADS) * HEAD + 3 * INNER);
    const double attention = 2.0 * TOKENS * (TOKENS + 1) * HEADS * HEAD; // the causal half
    make_layers(TOKENS / PAGE);
    step.x = random_tensor(SL_BF16, TOKENS, WIDTH);
    step.normed = random_tensor(SL_BF16, TOKENS, WIDTH);
    step.wide = random_tensor(SL_BF16, TOKENS, INNER);
    step.qkv = random_tensor(SL_BF16, TOKENS, (HEADS + 2 * KV_HEADS) * HEAD);
    step.norm = vector_of(random_tensor(SL_BF16, 1, WIDTH));
    step.head_norm = vector_of(random_tensor(SL_BF16, 1, HEAD));
    step.layers = 1;
    make_step(1, TOKENS, TOKENS);
    show_flops("decoder: attention, 2048 tokens", decoder_attention, attention);
    show_flops("decoder: a whole layer (wanted: 75 %)", decoder_layers, 2 * TOKENS * values + attention);
    printf("\n");
    step.layers = LAYERS;
    for (int sequences = 1; sequences <= 32; sequences *= 2) {
        char what[64];
        make_step(sequences, 1, 512);
        double keys = 512.0 * 2 * KV_HEADS * HEAD * sequences;
        snprintf(what, sizeof what, "decoding %d at 512 tokens, %d layers%s", sequences, LAYERS,
                 sequences == 1 ? " (wanted: 80 %)" : "");
        show_bytes(what, decoder_layers, 2 * LAYERS * (values + keys));
    }
    make_step(1, 1, TOKENS);
    show_bytes("decoding: attention alone, 2048 tokens", decoder_attention, 4.0 * TOKENS * KV_HEADS * HEAD);
    head = random_linear(151936, WIDTH, 0);
    logits = random_tensor(SL_F32, 1, 151936);
    show_bytes("decoding: the head", head_product, 2.0 * 151936 * WIDTH);
}

int main(int argc, char **argv)
{
    struct sl_error error;
    struct sl_device_info info;
    if (sl_cpu_create(argc > 1 ? atoi(argv[1]) : 0, &device, &error) != SL_OK) {
        fprintf(stderr, "bench_cpu: %s\n", error.text);
        return 1;
    }
    ops = device->ops;
    ops->info(device, &info);
    threads = info.threads;
    must(ops->stream_create(device, &stream, NULL), "stream_create");
    must(ops->alloc(device, read_bytes, (void **)&memory, NULL), "alloc");
    memset(memory, 1, (size_t)read_bytes);
    reference_linear = random_linear(INNER, WIDTH, 0);
    reference_x = random_tensor(SL_BF16, TOKENS, WIDTH);
    reference_y = random_tensor(SL_BF16, TOKENS, INNER);
    prepare_reference();
    printf("%s; the reference is %s\n\n", info.name,
           SL_HAVE_ONEDNN ? "a product of oneDNN's, 2048 x 6144 x 2048 in bf16" : "our own product");
    show_flops("our own product of that size", own_product, 2.0 * TOKENS * WIDTH * INNER);
    bench_products();
    bench_tower();
    bench_decoder();
    return 0;
}
