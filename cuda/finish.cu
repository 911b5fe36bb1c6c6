// SPDX-License-Identifier: Apache-2.0
#include "cuda/act.cuh"
#include "cuda/finish.h"
#include "cuda/launch.cuh"

struct matrix {
    void *data;
    int64_t stride;
    int is_f32;
};

static struct matrix matrix_of(const struct sl_tensor *t)
{
    struct matrix m = {t != NULL ? t->data : NULL, t != NULL ? t->stride[0] : 0, t != NULL && t->dtype == SL_F32};
    return m;
}

static __device__ float load(const struct matrix &m, int64_t row, int64_t column)
{
    int64_t at = row * m.stride + column;
    return m.is_f32 ? ((const float *)m.data)[at] : __bfloat162float(((const bf16 *)m.data)[at]);
}

static __global__ void finish_any(matrix x, matrix bias, matrix residual, matrix y, int64_t columns,
                                  enum sl_epilogue epilogue)
{
    int64_t row = blockIdx.y, column = (int64_t)blockIdx.x * blockDim.x + threadIdx.x;
    if (column >= columns) {
        return;
    }
    float value = load(x, row, column) + (bias.data != NULL ? load(bias, 0, column) : 0);
    if (epilogue == SL_EPILOGUE_SILU_GATE) {
        float up = load(x, row, columns + column) + (bias.data != NULL ? load(bias, 0, columns + column) : 0);
        value = silu(value) * up;
    } else {
        value = activate(epilogue, value);
    }
    if (residual.data != NULL) {
        value += load(residual, row, column);
    }
    int64_t at = row * y.stride + column;
    if (y.is_f32) {
        ((float *)y.data)[at] = value;
    } else {
        ((bf16 *)y.data)[at] = __float2bfloat16(value);
    }
}

// The common case by eight: bf16, rows of whole words, no residual.
static __global__ void finish_bf16(const bf16 *x, int64_t x_stride, bf16 *y, int64_t y_stride, int words,
                                   enum sl_epilogue epilogue)
{
    int word = (int)(blockIdx.x * blockDim.x + threadIdx.x);
    if (word >= words) {
        return;
    }
    const uint4 *from = (const uint4 *)(x + blockIdx.y * x_stride);
    eight a, b;
    a.word = from[word];
    if (epilogue == SL_EPILOGUE_SILU_GATE) {
        b.word = from[words + word];
    }
#pragma unroll
    for (int i = 0; i < 8; i++) {
        float value = __bfloat162float(a.value[i]);
        value =
            epilogue == SL_EPILOGUE_SILU_GATE ? silu(value) * __bfloat162float(b.value[i]) : activate(epilogue, value);
        a.value[i] = __float2bfloat16(value);
    }
    ((uint4 *)(y + blockIdx.y * y_stride))[word] = a.word;
}

static int is_words(const struct sl_tensor *t)
{
    return t->dtype == SL_BF16 && in_words(t->data, t->stride[0]);
}

void cuda_finish(struct sl_stream *stream, const struct sl_tensor *x, const void *bias, enum sl_dtype bias_type,
                 enum sl_epilogue epilogue, const struct sl_tensor *residual, const struct sl_tensor *y)
{
    int64_t rows = y->shape[0], columns = y->shape[1];
    matrix added_bias = {(void *)bias, 0, bias_type == SL_F32};
    const int64_t most_rows = 65535; // of a grid's y
    for (int64_t first = 0; first < rows; first += most_rows) {
        int64_t n = rows - first < most_rows ? rows - first : most_rows;
        struct sl_tensor from = sl_tensor_rows(x, first, n), to = sl_tensor_rows(y, first, n), added;
        if (residual != NULL) {
            added = sl_tensor_rows(residual, first, n);
        }
        if (residual == NULL && bias == NULL && columns % 8 == 0 && is_words(&from) && is_words(&to)) {
            int words = (int)(columns / 8);
            dim3 grid((unsigned)((words + 127) / 128), (unsigned)n);
            finish_bf16<<<grid, 128, 0, stream->native>>>((const bf16 *)from.data, from.stride[0], (bf16 *)to.data,
                                                          to.stride[0], words, epilogue);
        } else {
            dim3 grid((unsigned)((columns + 127) / 128), (unsigned)n);
            finish_any<<<grid, 128, 0, stream->native>>>(matrix_of(&from), added_bias,
                                                         matrix_of(residual != NULL ? &added : NULL), matrix_of(&to),
                                                         columns, epilogue);
        }
    }
}
