// SPDX-License-Identifier: Apache-2.0
#include "core/device.h"

int64_t sl_dtype_bytes(enum sl_dtype dtype)
{
    switch (dtype) {
    case SL_F32:
    case SL_I32:
        return 4;
    case SL_BF16:
    case SL_F16:
        return 2;
    case SL_U8:
    case SL_F8E4M3:
        return 1;
    }
    return 0;
}

const char *sl_dtype_name(enum sl_dtype dtype)
{
    switch (dtype) {
    case SL_F32:
        return "f32";
    case SL_I32:
        return "i32";
    case SL_BF16:
        return "bf16";
    case SL_F16:
        return "f16";
    case SL_U8:
        return "u8";
    case SL_F8E4M3:
        return "f8_e4m3";
    }
    return "?";
}

struct sl_tensor sl_tensor_4d(void *data, enum sl_dtype dtype, int64_t a, int64_t b, int64_t c, int64_t d)
{
    return (struct sl_tensor){
        .data = data, .dtype = dtype, .rank = 4, .shape = {a, b, c, d}, .stride = {b * c * d, c * d, d, 1}};
}

struct sl_tensor sl_tensor_3d(void *data, enum sl_dtype dtype, int64_t a, int64_t b, int64_t c)
{
    return (struct sl_tensor){
        .data = data, .dtype = dtype, .rank = 3, .shape = {a, b, c, 1}, .stride = {b * c, c, 1, 1}};
}

struct sl_tensor sl_tensor_2d(void *data, enum sl_dtype dtype, int64_t a, int64_t b)
{
    return (struct sl_tensor){.data = data, .dtype = dtype, .rank = 2, .shape = {a, b, 1, 1}, .stride = {b, 1, 1, 1}};
}

struct sl_tensor sl_tensor_1d(void *data, enum sl_dtype dtype, int64_t a)
{
    return (struct sl_tensor){.data = data, .dtype = dtype, .rank = 1, .shape = {a, 1, 1, 1}, .stride = {1, 1, 1, 1}};
}

static void *advance(const struct sl_tensor *t, int64_t elements)
{
    return (char *)t->data + elements * sl_dtype_bytes(t->dtype);
}

struct sl_tensor sl_tensor_rows(const struct sl_tensor *t, int64_t first, int64_t count)
{
    struct sl_tensor rows = *t;
    rows.data = advance(t, first * t->stride[0]);
    rows.shape[0] = count;
    return rows;
}

struct sl_tensor sl_tensor_columns(const struct sl_tensor *t, int64_t first, int64_t count)
{
    struct sl_tensor columns = *t;
    columns.data = advance(t, first);
    columns.shape[1] = count;
    return columns;
}

int64_t sl_tensor_elements(const struct sl_tensor *t)
{
    int64_t n = 1;
    for (int i = 0; i < t->rank; i++) {
        n *= t->shape[i];
    }
    return n;
}

int64_t sl_tensor_bytes(const struct sl_tensor *t)
{
    return sl_tensor_elements(t) * sl_dtype_bytes(t->dtype);
}
