// SPDX-License-Identifier: Apache-2.0
// Operations row by row: norms, gathering, scattering, the interpolated position embedding.
#include "cuda/launch.cuh"
#include "cuda/ops.h"

// --- norms ---

struct norm_job {
    const void *x, *weight, *bias; // bias NULL and is_rms: no mean is taken away
    void *y;
    int64_t x_stride, y_stride;
    int n, is_rms;
    float eps;
};

// A block for each row, any size.
template <typename T> static __global__ void norm_any(const norm_job a)
{
    __shared__ float shared[32];
    const T *x = (const T *)a.x + blockIdx.x * a.x_stride;
    T *y = (T *)a.y + blockIdx.x * a.y_stride;
    let_next_begin();
    wait_for_previous();
    float mean = 0, sum = 0;
    if (!a.is_rms) {
        for (int i = threadIdx.x; i < a.n; i += blockDim.x) {
            sum += to_float(x[i]);
        }
        mean = sum_of_block(sum, shared) / (float)a.n;
        sum = 0;
    }
    for (int i = threadIdx.x; i < a.n; i += blockDim.x) {
        float d = to_float(x[i]) - mean;
        sum += d * d;
    }
    float scale = rsqrtf(sum_of_block(sum, shared) / (float)a.n + a.eps);
    for (int i = threadIdx.x; i < a.n; i += blockDim.x) {
        float value = (to_float(x[i]) - mean) * scale * to_float(((const T *)a.weight)[i]);
        y[i] = T(value + (a.bias != NULL ? to_float(((const T *)a.bias)[i]) : 0.0f));
    }
}

// bf16, a row of up to 4 words for each thread in registers: read once.
static __global__ void norm_words(const norm_job a)
{
    enum { MOST = 4 };
    __shared__ float shared[32];
    const uint4 *x = (const uint4 *)((const bf16 *)a.x + blockIdx.x * a.x_stride);
    uint4 *y = (uint4 *)((bf16 *)a.y + blockIdx.x * a.y_stride);
    int words = a.n / 8;
    eight v[MOST];
    let_next_begin();
    wait_for_previous();
    float mean = 0, sum = 0;
#pragma unroll
    for (int k = 0; k < MOST; k++) {
        int w = threadIdx.x + k * blockDim.x;
        v[k].word = w < words ? x[w] : make_uint4(0, 0, 0, 0);
        for (int i = 0; i < 8; i++) {
            sum += __bfloat162float(v[k].value[i]);
        }
    }
    if (!a.is_rms) {
        mean = sum_of_block(sum, shared) / (float)a.n;
    }
    sum = 0;
#pragma unroll
    for (int k = 0; k < MOST; k++) {
        for (int i = 0; i < 8 && (int)(threadIdx.x + k * blockDim.x) < words; i++) {
            float d = __bfloat162float(v[k].value[i]) - mean;
            sum += d * d;
        }
    }
    float scale = rsqrtf(sum_of_block(sum, shared) / (float)a.n + a.eps);
#pragma unroll
    for (int k = 0; k < MOST; k++) {
        int w = threadIdx.x + k * blockDim.x;
        if (w < words) {
            eight weight, bias;
            weight.word = ((const uint4 *)a.weight)[w];
            bias.word = a.bias != NULL ? ((const uint4 *)a.bias)[w] : make_uint4(0, 0, 0, 0);
            for (int i = 0; i < 8; i++) {
                float value = (__bfloat162float(v[k].value[i]) - mean) * scale * __bfloat162float(weight.value[i]);
                v[k].value[i] = __float2bfloat16(value + __bfloat162float(bias.value[i]));
            }
            y[w] = v[k].word;
        }
    }
}

static void run_norm(struct sl_stream *stream, const struct sl_tensor *x, const struct sl_tensor *weight,
                     const struct sl_tensor *bias, float eps, const struct sl_tensor *y)
{
    if (x->shape[0] == 0 || !cuda_begin(stream)) {
        return;
    }
    norm_job a = {};
    a.x = x->data;
    a.weight = weight->data;
    a.bias = bias != NULL ? bias->data : NULL;
    a.y = y->data;
    a.x_stride = x->stride[0];
    a.y_stride = y->stride[0];
    a.n = (int)x->shape[1];
    a.is_rms = bias == NULL;
    a.eps = eps;
    dim3 grid((unsigned)x->shape[0]);
    int words = a.n / 8, threads = (words + 1) / 2;
    threads = (threads + 31) / 32 * 32;
    threads = threads > 1024 ? 1024 : threads;
    if (x->dtype == SL_F32) {
        launch_overlapping(stream, norm_any<float>, grid, 256, 0, a);
    } else if (a.n % 8 == 0 && words <= 4 * threads && in_words(a.x, a.x_stride) && in_words(a.y, a.y_stride)) {
        launch_overlapping(stream, norm_words, grid, threads, 0, a);
    } else {
        launch_overlapping(stream, norm_any<bf16>, grid, 256, 0, a);
    }
    cuda_launched(stream, "a norm");
}

void cuda_layernorm(struct sl_stream *stream, const struct sl_tensor *x, const struct sl_tensor *weight,
                    const struct sl_tensor *bias, float eps, const struct sl_tensor *y)
{
    run_norm(stream, x, weight, bias, eps, y);
}

void cuda_rmsnorm(struct sl_stream *stream, const struct sl_tensor *x, const struct sl_tensor *weight, float eps,
                  const struct sl_tensor *y)
{
    run_norm(stream, x, weight, NULL, eps, y);
}

// --- moving rows ---

struct rows {
    const void *from;
    void *to;
    const int32_t *index;
    int64_t from_stride, to_stride; // in elements
    int columns;
};

// Rows of words, whatever they mean. GATHER: row i comes from index[i]; else it goes to index[i].
template <typename Word, bool GATHER> static __global__ void move_rows(const rows r)
{
    let_next_begin();
    wait_for_previous();
    int64_t i = blockIdx.x, j = r.index[i];
    const Word *from = (const Word *)r.from + (GATHER ? j : i) * r.from_stride;
    Word *to = (Word *)r.to + (GATHER ? i : j) * r.to_stride;
    for (int c = threadIdx.x; c < r.columns; c += blockDim.x) {
        to[c] = from[c];
    }
}

template <typename From, typename To, bool GATHER, bool ADD> static __global__ void convert_rows(const rows r)
{
    let_next_begin();
    wait_for_previous();
    int64_t i = blockIdx.x, j = r.index[i];
    const From *from = (const From *)r.from + (GATHER ? j : i) * r.from_stride;
    To *to = (To *)r.to + (GATHER ? i : j) * r.to_stride;
    for (int c = threadIdx.x; c < r.columns; c += blockDim.x) {
        to[c] = To(to_float(from[c]) + (ADD ? to_float(to[c]) : 0.0f));
    }
}

template <bool GATHER, bool ADD>
static void run_convert(struct sl_stream *stream, const rows &r, unsigned n, enum sl_dtype from, enum sl_dtype to)
{
    if (from == SL_F32 && to == SL_F32) {
        launch_overlapping(stream, convert_rows<float, float, GATHER, ADD>, dim3(n), 256, 0, r);
    } else if (from == SL_F32) {
        launch_overlapping(stream, convert_rows<float, bf16, GATHER, ADD>, dim3(n), 256, 0, r);
    } else if (to == SL_F32) {
        launch_overlapping(stream, convert_rows<bf16, float, GATHER, ADD>, dim3(n), 256, 0, r);
    } else {
        launch_overlapping(stream, convert_rows<bf16, bf16, GATHER, ADD>, dim3(n), 256, 0, r);
    }
}

template <bool GATHER>
static void run_rows(struct sl_stream *stream, const struct sl_tensor *from, const struct sl_tensor *index, int add,
                     const struct sl_tensor *to)
{
    unsigned n = (unsigned)index->shape[0];
    if (n == 0 || !cuda_begin(stream)) {
        return;
    }
    rows r = {from->data, to->data, (const int32_t *)index->data, from->stride[0], to->stride[0], (int)from->shape[1]};
    int in_eights = from->dtype == SL_BF16 && to->dtype == SL_BF16 && r.columns % 8 == 0 &&
                    in_words(r.from, r.from_stride) && in_words(r.to, r.to_stride);
    if (add) {
        run_convert<GATHER, true>(stream, r, n, from->dtype, to->dtype);
    } else if (in_eights) {
        r.columns /= 8;
        r.from_stride /= 8;
        r.to_stride /= 8;
        launch_overlapping(stream, move_rows<uint4, GATHER>, dim3(n), 128, 0, r);
    } else {
        run_convert<GATHER, false>(stream, r, n, from->dtype, to->dtype);
    }
    cuda_launched(stream, "moving rows");
}

void cuda_gather_rows(struct sl_stream *stream, const struct sl_tensor *table, const struct sl_tensor *index,
                      const struct sl_tensor *y)
{
    run_rows<true>(stream, table, index, 0, y);
}

void cuda_scatter_rows(struct sl_stream *stream, const struct sl_tensor *x, const struct sl_tensor *index, int add,
                       const struct sl_tensor *y)
{
    run_rows<false>(stream, x, index, add, y);
}

// --- the tower's position embedding ---

template <typename T>
static __global__ void interpolate(const T *table, int64_t table_stride, const int32_t *index, const float *weight,
                                   T *y, int64_t y_stride, int columns)
{
    int64_t row = blockIdx.x;
    const int32_t *corner = index + 4 * row;
    const float *w = weight + 4 * row;
    for (int c = threadIdx.x; c < columns; c += blockDim.x) {
        float sum = 0;
        for (int k = 0; k < 4; k++) {
            sum += w[k] * to_float(table[corner[k] * table_stride + c]);
        }
        y[row * y_stride + c] = T(to_float(y[row * y_stride + c]) + sum);
    }
}

void cuda_interpolate_rows(struct sl_stream *stream, const struct sl_tensor *table, const struct sl_tensor *index,
                           const struct sl_tensor *weight, const struct sl_tensor *y)
{
    unsigned n = (unsigned)index->shape[0];
    if (n == 0 || !cuda_begin(stream)) {
        return;
    }
    const int32_t *corner = (const int32_t *)index->data;
    const float *w = (const float *)weight->data;
    int columns = (int)table->shape[1];
    if (y->dtype == SL_F32) {
        interpolate<<<n, 256, 0, stream->native>>>((const float *)table->data, table->stride[0], corner, w,
                                                   (float *)y->data, y->stride[0], columns);
    } else {
        interpolate<<<n, 256, 0, stream->native>>>((const bf16 *)table->data, table->stride[0], corner, w,
                                                   (bf16 *)y->data, y->stride[0], columns);
    }
    cuda_launched(stream, "a position embedding");
}
