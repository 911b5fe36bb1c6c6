// SPDX-License-Identifier: Apache-2.0
// y = epilogue(x W^T + bias) + residual. cuBLASLt counts in columns: its D is our y transposed, its A our weight
// transposed, its B our x. What it can fuse it fuses (bias, tanh-GELU, the residual as C); the rest is one more pass
// (finish.cu).
#include "cuda/linear.h"

#include <cublasLt.h>
#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cuda/few.h"
#include "cuda/finish.h"
#include "cuda/ops.h"
#include "cuda/weights.h"

enum { WORKSPACE_BYTES = 32 << 20, CANDIDATES = 6, TRIALS = 2, PLAN_BUCKETS = 1024 };

// --- cuBLASLt, opened when a GPU is first asked for ---

#define BLAS_FUNCTIONS(X)                                                                                              \
    X(Create)                                                                                                          \
    X(Destroy)                                                                                                         \
    X(Matmul)                                                                                                          \
    X(MatmulDescCreate)                                                                                                \
    X(MatmulDescDestroy)                                                                                               \
    X(MatmulDescSetAttribute)                                                                                          \
    X(MatrixLayoutCreate)                                                                                              \
    X(MatrixLayoutDestroy)                                                                                             \
    X(MatmulPreferenceCreate)                                                                                          \
    X(MatmulPreferenceDestroy)                                                                                         \
    X(MatmulPreferenceSetAttribute)                                                                                    \
    X(MatmulAlgoGetHeuristic)

#define DECLARE(name) __typeof__(&cublasLt##name) name;

// What an algorithm was found for. Rows are rounded up: neighbouring sizes share it. Not where results must repeat:
// then it would depend on which of them came first.
struct plan_key {
    int64_t out, in, rows, x_stride, y_stride;
    int32_t compute, y_type, epilogue, alignment;
    int32_t bias, residual;
};

struct plan {
    struct plan *next;
    struct plan_key key;
    cublasLtMatmulAlgo_t algorithm;
};

struct cuda_blas {
    void *library;
    BLAS_FUNCTIONS(DECLARE)
    cublasLtHandle_t handle;
    int tunes;            // tries the candidates on the real product; 0: takes the first, always the same
    pthread_mutex_t lock; // of the plans
    struct plan *plans[PLAN_BUCKETS];
};

static void *open_library(void)
{
    static const char *const names[] = {"libcublasLt.so.13", "libcublasLt.so.12",
                                        "/usr/local/cuda/lib64/libcublasLt.so.13",
                                        "/usr/local/cuda/lib64/libcublasLt.so.12"};
    void *library = NULL;
    for (size_t i = 0; i < sizeof names / sizeof names[0] && library == NULL; i++) {
        library = dlopen(names[i], RTLD_NOW | RTLD_LOCAL);
    }
    return library;
}

int cuda_blas_available(struct sl_error *why)
{
    void *library = open_library();
    if (library == NULL) {
        sl_fail(why, SL_ERR_DEVICE,
                "an NVIDIA GPU is here, but not cuBLASLt (libcublasLt.so.13 of the CUDA Toolkit): install it, or say "
                "where with LD_LIBRARY_PATH");
        return 0;
    }
    dlclose(library);
    return 1;
}

static int find_functions(struct cuda_blas *b)
{
    void *symbol = NULL;
#define FIND(name)                                                                                                     \
    symbol = dlsym(b->library, "cublasLt" #name);                                                                      \
    if (symbol == NULL) {                                                                                              \
        return 0;                                                                                                      \
    }                                                                                                                  \
    memcpy(&b->name, &symbol, sizeof symbol);
    BLAS_FUNCTIONS(FIND)
    return 1;
}

int cuda_blas_create(struct cuda_device *device, int deterministic, struct cuda_blas **out, struct sl_error *error)
{
    struct cuda_blas *b = calloc(1, sizeof *b);
    *out = b;
    if (b == NULL) {
        return sl_fail(error, SL_ERR_MEMORY, "out of memory: a device");
    }
    pthread_mutex_init(&b->lock, NULL);
    b->tunes = !deterministic;
    b->library = open_library();
    if (b->library == NULL || !find_functions(b)) {
        return sl_fail(error, SL_ERR_DEVICE, "%s: cuBLASLt is missing or too old", device->name);
    }
    cublasStatus_t code = b->Create(&b->handle);
    if (code != CUBLAS_STATUS_SUCCESS) {
        return sl_fail(error, SL_ERR_DEVICE, "%s: cuBLASLt does not start (status %d)", device->name, (int)code);
    }
    return SL_OK;
}

void cuda_blas_destroy(struct cuda_blas *b)
{
    if (b == NULL) {
        return;
    }
    for (int i = 0; i < PLAN_BUCKETS; i++) {
        while (b->plans[i] != NULL) {
            struct plan *next = b->plans[i]->next;
            free(b->plans[i]);
            b->plans[i] = next;
        }
    }
    if (b->handle != NULL) {
        b->Destroy(b->handle);
    }
    if (b->library != NULL) {
        dlclose(b->library);
    }
    pthread_mutex_destroy(&b->lock);
    free(b);
}

// --- one product ---

static cudaDataType_t data_type(enum sl_dtype dtype)
{
    return dtype == SL_F32 ? CUDA_R_32F : CUDA_R_16BF;
}

// One call of cuBLASLt: what it multiplies, in its own terms.
struct product {
    struct sl_stream *stream;
    struct cuda_blas *blas;
    const struct sl_linear *linear;
    const struct sl_tensor *x, *residual, *y;
    struct plan_key key;
    void *workspace;
    cublasLtMatmulDesc_t desc;
    cublasLtMatrixLayout_t a, b, c, d;
};

static int32_t alignment_of(const void *data, int64_t stride_bytes)
{
    uint64_t bits = (uint64_t)(uintptr_t)data | (uint64_t)stride_bytes | 16;
    return (int32_t)(bits & (~bits + 1));
}

// Up to 32 rows each multiple of 8, then in steps of a quarter to an eighth: to try algorithms takes time.
static int64_t rounded_rows(int64_t rows)
{
    int64_t step = 8;
    while (step * 8 < rows) {
        step *= 2;
    }
    return (rows + step - 1) / step * step;
}

static void describe_plan(struct product *p, cublasLtEpilogue_t epilogue)
{
    const struct sl_linear *l = p->linear;
    int64_t size = sl_dtype_bytes(l->compute), y_size = sl_dtype_bytes(p->y->dtype);
    int32_t alignment = alignment_of(p->x->data, p->x->stride[0] * size);
    int32_t other[3] = {alignment_of(p->y->data, p->y->stride[0] * y_size), alignment_of(l->weight, l->in * size),
                        p->residual ? alignment_of(p->residual->data, p->residual->stride[0] * y_size) : 16};
    for (int i = 0; i < 3; i++) {
        alignment = other[i] < alignment ? other[i] : alignment;
    }
    memset(&p->key, 0, sizeof p->key); // compared as bytes
    p->key.out = l->out;
    p->key.in = l->in;
    p->key.rows = p->blas->tunes ? rounded_rows(p->x->shape[0]) : p->x->shape[0];
    p->key.x_stride = p->x->stride[0];
    p->key.y_stride = p->y->stride[0];
    p->key.compute = (int32_t)l->compute;
    p->key.y_type = (int32_t)p->y->dtype;
    p->key.epilogue = (int32_t)epilogue;
    p->key.alignment = alignment;
    p->key.bias = l->bias != NULL;
    p->key.residual = p->residual != NULL;
}

static int set(const struct product *p, cublasLtMatmulDescAttributes_t what, const void *value, size_t size)
{
    return p->blas->MatmulDescSetAttribute(p->desc, what, value, size) == CUBLAS_STATUS_SUCCESS;
}

static int describe(struct product *p, cublasLtEpilogue_t epilogue)
{
    const struct sl_linear *l = p->linear;
    const struct cuda_blas *b = p->blas;
    cudaDataType_t in = data_type(l->compute), out = data_type(p->y->dtype);
    uint64_t m = (uint64_t)l->out, n = (uint64_t)p->x->shape[0], k = (uint64_t)l->in;
    int64_t c_stride = p->residual ? p->residual->stride[0] : p->y->stride[0];
    int made = b->MatmulDescCreate(&p->desc, CUBLAS_COMPUTE_32F, CUDA_R_32F) == CUBLAS_STATUS_SUCCESS &&
               b->MatrixLayoutCreate(&p->a, in, k, m, l->in) == CUBLAS_STATUS_SUCCESS &&
               b->MatrixLayoutCreate(&p->b, in, k, n, p->x->stride[0]) == CUBLAS_STATUS_SUCCESS &&
               b->MatrixLayoutCreate(&p->c, out, m, n, c_stride) == CUBLAS_STATUS_SUCCESS &&
               b->MatrixLayoutCreate(&p->d, out, m, n, p->y->stride[0]) == CUBLAS_STATUS_SUCCESS;
    cublasOperation_t transposed = CUBLAS_OP_T;
    made = made && set(p, CUBLASLT_MATMUL_DESC_TRANSA, &transposed, sizeof transposed) &&
           set(p, CUBLASLT_MATMUL_DESC_EPILOGUE, &epilogue, sizeof epilogue);
    if (made && (epilogue == CUBLASLT_EPILOGUE_BIAS || epilogue == CUBLASLT_EPILOGUE_GELU_BIAS)) {
        made = set(p, CUBLASLT_MATMUL_DESC_BIAS_POINTER, &l->bias, sizeof l->bias);
    }
    return made;
}

static void forget(struct product *p)
{
    const struct cuda_blas *b = p->blas;
    cublasLtMatrixLayout_t layout[] = {p->a, p->b, p->c, p->d};
    for (int i = 0; i < 4; i++) {
        if (layout[i] != NULL) {
            b->MatrixLayoutDestroy(layout[i]);
        }
    }
    if (p->desc != NULL) {
        b->MatmulDescDestroy(p->desc);
    }
}

static cublasStatus_t multiply(const struct product *p, const cublasLtMatmulAlgo_t *algorithm, void *to)
{
    float one = 1, beta = p->residual ? 1 : 0;
    const void *c = p->residual ? p->residual->data : to;
    return p->blas->Matmul(p->blas->handle, p->desc, &one, p->linear->weight, p->a, p->x->data, p->b, &beta, c, p->c,
                           to, p->d, algorithm, p->workspace, WORKSPACE_BYTES, p->stream->native);
}

// --- choosing an algorithm ---

static int candidates(const struct product *p, cublasLtMatmulHeuristicResult_t found[CANDIDATES])
{
    const struct cuda_blas *b = p->blas;
    cublasLtMatmulPreference_t preference = NULL;
    size_t workspace = WORKSPACE_BYTES;
    uint32_t alignment = (uint32_t)p->key.alignment;
    static const cublasLtMatmulPreferenceAttributes_t aligned[] = {
        CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES,
        CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES};
    int count = 0;
    if (b->MatmulPreferenceCreate(&preference) != CUBLAS_STATUS_SUCCESS) {
        return 0;
    }
    int set_up = b->MatmulPreferenceSetAttribute(preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &workspace,
                                                 sizeof workspace) == CUBLAS_STATUS_SUCCESS;
    for (int i = 0; i < 4 && set_up; i++) {
        set_up = b->MatmulPreferenceSetAttribute(preference, aligned[i], &alignment, sizeof alignment) ==
                 CUBLAS_STATUS_SUCCESS;
    }
    if (!set_up || b->MatmulAlgoGetHeuristic(b->handle, p->desc, p->a, p->b, p->c, p->d, preference, CANDIDATES, found,
                                             &count) != CUBLAS_STATUS_SUCCESS) {
        count = 0;
    }
    b->MatmulPreferenceDestroy(preference);
    return count;
}

// Milliseconds of the product by this algorithm, or a very large number.
static float time_of(const struct product *p, const cublasLtMatmulAlgo_t *algorithm, void *to, cudaEvent_t start,
                     cudaEvent_t end)
{
    float best = 1e9f, elapsed = 0;
    for (int i = 0; i <= TRIALS; i++) { // the first warms up
        int ran = cudaEventRecord(start, p->stream->native) == cudaSuccess &&
                  multiply(p, algorithm, to) == CUBLAS_STATUS_SUCCESS &&
                  cudaEventRecord(end, p->stream->native) == cudaSuccess && cudaEventSynchronize(end) == cudaSuccess &&
                  cudaEventElapsedTime(&elapsed, start, end) == cudaSuccess;
        if (!ran) {
            (void)cudaGetLastError();
            return 1e9f;
        }
        best = i > 0 && elapsed < best ? elapsed : best;
    }
    return best;
}

static int fastest(const struct product *p, cublasLtMatmulHeuristicResult_t *found, int count)
{
    // Not into y: it may be the residual, and is wanted once.
    void *to = cuda_scratch(p->stream, CUDA_SLOT_TRIAL, p->x->shape[0] * p->y->stride[0] * sl_dtype_bytes(p->y->dtype));
    cudaEvent_t start = NULL, end = NULL;
    int best = 0;
    if (to != NULL && cudaEventCreate(&start) == cudaSuccess && cudaEventCreate(&end) == cudaSuccess) {
        float least = 1e9f;
        for (int i = 0; i < count; i++) {
            float elapsed = time_of(p, &found[i].algo, to, start, end);
            if (elapsed < least) {
                least = elapsed;
                best = i;
            }
        }
    }
    if (start != NULL) {
        cudaEventDestroy(start);
    }
    if (end != NULL) {
        cudaEventDestroy(end);
    }
    if (to == NULL) {
        p->stream->error = (struct sl_error){0}; // no room to try them: the first will do
    }
    (void)cudaGetLastError(); // of an event that could not be made
    return best;
}

static uint64_t bucket_of(const struct plan_key *key)
{
    const unsigned char *bytes = (const unsigned char *)key;
    uint64_t hash = 0xcbf29ce484222325u;
    for (size_t i = 0; i < sizeof *key; i++) {
        hash = (hash ^ bytes[i]) * 0x100000001b3u;
    }
    return hash % PLAN_BUCKETS;
}

// Under the lock.
static struct plan *find_plan(const struct cuda_blas *b, const struct plan_key *key)
{
    struct plan *plan = b->plans[bucket_of(key)];
    while (plan != NULL && memcmp(&plan->key, key, sizeof *key) != 0) {
        plan = plan->next;
    }
    return plan;
}

// Finds an algorithm and remembers it. While a graph is captured nothing can be timed: the first is taken, and found
// again with more care when there is time.
static int make_plan(struct product *p, cublasLtMatmulAlgo_t *algorithm)
{
    cublasLtMatmulHeuristicResult_t found[CANDIDATES];
    int count = candidates(p, found);
    if (count == 0) {
        return 0;
    }
    int tune = p->blas->tunes && !p->stream->capturing && count > 1;
    *algorithm = found[tune ? fastest(p, found, count) : 0].algo;
    if (p->stream->capturing && p->blas->tunes) {
        return 1;
    }
    struct plan *plan = calloc(1, sizeof *plan);
    if (plan != NULL) {
        plan->key = p->key;
        plan->algorithm = *algorithm;
        pthread_mutex_lock(&p->blas->lock);
        struct plan **bucket = &p->blas->plans[bucket_of(&p->key)];
        plan->next = *bucket;
        *bucket = plan;
        pthread_mutex_unlock(&p->blas->lock);
    }
    return 1;
}

static int planned(const struct product *p, cublasLtMatmulAlgo_t *algorithm)
{
    pthread_mutex_lock(&p->blas->lock);
    const struct plan *plan = find_plan(p->blas, &p->key);
    if (plan != NULL) {
        *algorithm = plan->algorithm;
    }
    pthread_mutex_unlock(&p->blas->lock);
    return plan != NULL;
}

// y = x W^T, with what the epilogue fuses, + residual.
static void product(struct sl_stream *stream, const struct sl_linear *linear, const struct sl_tensor *x,
                    cublasLtEpilogue_t epilogue, const struct sl_tensor *residual, const struct sl_tensor *y)
{
    struct product p = {
        .stream = stream, .blas = linear->device->blas, .linear = linear, .x = x, .residual = residual, .y = y};
    p.workspace = cuda_scratch(stream, CUDA_SLOT_BLAS, WORKSPACE_BYTES);
    if (p.workspace == NULL) {
        return;
    }
    describe_plan(&p, epilogue);
    cublasLtMatmulAlgo_t algorithm;
    int ready = describe(&p, epilogue) && (planned(&p, &algorithm) || make_plan(&p, &algorithm));
    cublasStatus_t code = ready ? multiply(&p, &algorithm, y->data) : CUBLAS_STATUS_NOT_SUPPORTED;
    cublasLtMatmulHeuristicResult_t found[CANDIDATES];
    if (ready && code != CUBLAS_STATUS_SUCCESS && candidates(&p, found) > 0) { // a neighbour's plan does not do here
        code = multiply(&p, &found[0].algo, y->data);
    }
    if (code != CUBLAS_STATUS_SUCCESS) {
        cuda_fail(stream, SL_ERR_DEVICE, "%s: cuBLASLt refuses a product of %lld x %lld x %lld (status %d)",
                  stream->device->name, (long long)x->shape[0], (long long)linear->out, (long long)linear->in,
                  (int)code);
    }
    forget(&p);
}

// --- the operation ---

static cublasLtEpilogue_t bias_epilogue(const struct sl_linear *linear)
{
    return linear->bias != NULL ? CUBLASLT_EPILOGUE_BIAS : CUBLASLT_EPILOGUE_DEFAULT;
}

static int fits(struct sl_stream *stream, const struct sl_linear *linear, const struct sl_tensor *x,
                enum sl_epilogue epilogue, const struct sl_tensor *y)
{
    int64_t columns = epilogue == SL_EPILOGUE_SILU_GATE ? linear->out / 2 : linear->out;
    if (x->shape[1] == linear->in && y->shape[1] == columns && y->shape[0] == x->shape[0]) {
        return 1;
    }
    cuda_fail(stream, SL_ERR_INTERNAL, "a product of %lld inputs got %lld, or the wrong room for its result",
              (long long)linear->in, (long long)x->shape[1]);
    return 0;
}

void cuda_linear(struct sl_stream *stream, const struct sl_linear *linear, const struct sl_tensor *x,
                 enum sl_epilogue epilogue, const struct sl_tensor *residual, const struct sl_tensor *y)
{
    if (x->shape[0] == 0 || !cuda_begin(stream) || !fits(stream, linear, x, epilogue, y)) {
        return;
    }
    if (cuda_few_takes(linear, x)) {
        cuda_few(stream, linear, x, NULL, 0, epilogue, residual, y);
        return;
    }
    int same_type = y->dtype == linear->compute;
    if (epilogue == SL_EPILOGUE_NONE && same_type && (residual == NULL || residual->dtype == y->dtype)) {
        product(stream, linear, x, bias_epilogue(linear), residual, y);
    } else if (epilogue == SL_EPILOGUE_NONE && residual == NULL && linear->bias == NULL) {
        product(stream, linear, x, CUBLASLT_EPILOGUE_DEFAULT, NULL, y);
    } else if (epilogue == SL_EPILOGUE_GELU_TANH && same_type && residual == NULL && linear->compute == SL_BF16) {
        product(stream, linear, x, linear->bias ? CUBLASLT_EPILOGUE_GELU_BIAS : CUBLASLT_EPILOGUE_GELU, NULL, y);
    } else {
        // Rounded once, at the end: except for the large gated products, where the reference rounds here, too.
        enum sl_dtype type = same_type && residual == NULL ? linear->compute : SL_F32;
        void *middle = cuda_scratch(stream, CUDA_SLOT_A, x->shape[0] * linear->out * sl_dtype_bytes(type));
        if (middle != NULL) {
            struct sl_tensor whole = sl_tensor_2d(middle, type, x->shape[0], linear->out);
            int fused = type == linear->compute;
            product(stream, linear, x, fused ? bias_epilogue(linear) : CUBLASLT_EPILOGUE_DEFAULT, NULL, &whole);
            cuda_finish(stream, &whole, fused ? NULL : linear->bias, linear->compute, epilogue, residual, y);
        }
    }
    cuda_launched(stream, "a product");
}

void cuda_rmsnorm_linear(struct sl_stream *stream, const struct sl_tensor *x, const struct sl_tensor *norm, float eps,
                         const struct sl_tensor *normed, const struct sl_linear *linear, enum sl_epilogue epilogue,
                         const struct sl_tensor *y)
{
    if (x->shape[0] > 0 && cuda_few_takes_norm(linear, x) && cuda_begin(stream) &&
        fits(stream, linear, x, epilogue, y)) {
        cuda_few(stream, linear, x, norm, eps, epilogue, NULL, y);
        cuda_launched(stream, "a norm and product");
        return;
    }
    cuda_rmsnorm(stream, x, norm, eps, normed);
    cuda_linear(stream, linear, normed, epilogue, NULL, y);
}

// --- weights ---

static int load_parts(struct sl_linear *l, const struct sl_tensor *parts, int n, const struct sl_tensor *bias,
                      struct sl_error *error)
{
    const struct sl_device_ops *ops = l->device->base.ops;
    int64_t size = sl_dtype_bytes(l->compute);
    int status = ops->alloc(&l->device->base, l->out * l->in * size, &l->weight, error);
    char *to = l->weight;
    for (int i = 0; i < n && status == SL_OK; i++) {
        status = cuda_weights_load(l->device, &parts[i], l->compute, 0, to, error);
        to += sl_tensor_elements(&parts[i]) * size;
    }
    if (bias != NULL && status == SL_OK) {
        status = ops->alloc(&l->device->base, l->out * size, &l->bias, error);
        status = status == SL_OK ? cuda_weights_load(l->device, bias, l->compute, 0, l->bias, error) : status;
    }
    return status;
}

int cuda_linear_create(struct sl_device *device, const struct sl_tensor *parts, int n, const struct sl_tensor *bias,
                       enum sl_dtype compute, struct sl_linear **out, struct sl_error *error)
{
    struct sl_linear *l = calloc(1, sizeof *l);
    *out = NULL;
    if (l == NULL) {
        return sl_fail(error, SL_ERR_MEMORY, "out of memory: a linear layer");
    }
    l->device = (struct cuda_device *)device;
    l->compute = compute;
    l->in = parts[0].shape[1];
    for (int i = 0; i < n; i++) {
        l->out += parts[i].shape[0];
    }
    int status = load_parts(l, parts, n, bias, error);
    if (status != SL_OK) {
        cuda_linear_destroy(l);
        return status;
    }
    *out = l;
    return SL_OK;
}

void cuda_linear_destroy(struct sl_linear *linear)
{
    if (linear != NULL) {
        const struct sl_device_ops *ops = linear->device->base.ops;
        ops->release(&linear->device->base, linear->weight);
        ops->release(&linear->device->base, linear->bias);
        free(linear);
    }
}

int cuda_weight_create(struct sl_device *base, const struct sl_tensor *host, enum sl_dtype dtype, struct sl_tensor *out,
                       struct sl_error *error)
{
    struct cuda_device *device = (struct cuda_device *)base;
    *out = *host;
    out->dtype = dtype;
    out->data = NULL;
    out->scale = NULL;
    int status = base->ops->alloc(base, sl_tensor_bytes(out), &out->data, error);
    status = status == SL_OK ? cuda_weights_load(device, host, dtype, 0, out->data, error) : status;
    if (status != SL_OK) {
        cuda_weight_release(base, out);
    }
    return status;
}

void cuda_weight_release(struct sl_device *device, struct sl_tensor *weight)
{
    device->ops->release(device, weight->data);
    weight->data = NULL;
}
