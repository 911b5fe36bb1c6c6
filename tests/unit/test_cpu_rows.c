// SPDX-License-Identifier: Apache-2.0
// Norms, gathering, scattering, interpolation, and the conversion of weights, against float64.
#include "tests/unit/cpu_tools.h"

static const enum sl_dtype types[] = {SL_F32, SL_BF16};

static double tolerance(enum sl_dtype type)
{
    return type == SL_BF16 ? 3e-3 : 2e-6;
}

static void check_norm(enum sl_dtype type, enum sl_dtype weights, int64_t rows, int64_t n, int layer)
{
    struct sl_tensor x = random_tensor(type, rows, n + 3, 2), y = random_tensor(type, rows, n, 1);
    struct sl_tensor weight = random_vector(weights, n, 2), bias = random_vector(weights, n, 1);
    double *wanted = malloc((size_t)(rows * n) * sizeof *wanted);
    for (int64_t i = 0; i < rows * (n + 3); i++) {
        set(&x, i, get(&x, i) + 0.5);
    }
    struct sl_tensor part = sl_tensor_columns(&x, 2, n); // rows further apart than they are long
    for (int64_t r = 0; r < rows; r++) {
        double mean = 0, squares = 0;
        for (int64_t i = 0; layer && i < n; i++) {
            mean += at(&part, r, i) / (double)n;
        }
        for (int64_t i = 0; i < n; i++) {
            squares += (at(&part, r, i) - mean) * (at(&part, r, i) - mean) / (double)n;
        }
        for (int64_t i = 0; i < n; i++) {
            double value = (at(&part, r, i) - mean) / sqrt(squares + 1e-6) * get(&weight, i);
            wanted[r * n + i] = value + (layer ? get(&bias, i) : 0);
        }
    }
    if (layer) {
        device->ops->layernorm(stream, &part, &weight, &bias, 1e-6f, &y);
    } else {
        device->ops->rmsnorm(stream, &part, &weight, 1e-6f, &y);
    }
    assert_near(&y, wanted, tolerance(type), layer ? "layernorm" : "rmsnorm");
    free(x.data);
    free(y.data);
    free(weight.data);
    free(bias.data);
    free(wanted);
}

static void norms(void)
{
    const int64_t sizes[] = {1, 5, 64, 72, 300, 1152};
    for (int i = 0; i < 48; i++) {
        check_norm(types[i % 2], types[i / 2 % 2], i % 7 + 1, sizes[i / 8], i / 4 % 2);
    }
    check_norm(SL_F32, SL_F32, 130, 1024, 1); // enough for several threads
}

static void check_rows(enum sl_dtype type, enum sl_dtype other)
{
    enum { ROWS = 6, N = 21 };
    struct sl_tensor table = random_tensor(type, 9, N, 1), y = random_tensor(other, ROWS, N, 1);
    int32_t from[] = {8, 0, 3, 3, 7, 8}, to[] = {4, 8, 0, 1, 7, 2};
    struct sl_tensor from_rows = sl_tensor_1d(from, SL_I32, ROWS), to_rows = sl_tensor_1d(to, SL_I32, ROWS);
    double wanted[9 * N];
    for (int i = 0; i < ROWS * N; i++) {
        wanted[i] = at(&table, from[i / N], i % N);
    }
    device->ops->gather_rows(stream, &table, &from_rows, &y);
    assert_near(&y, wanted, type == other ? 0 : tolerance(SL_BF16), "gather_rows");
    for (int add = 0; add < 2; add++) {
        for (int i = 0; i < 9 * N; i++) {
            wanted[i] = get(&table, i);
        }
        for (int i = 0; i < ROWS * N; i++) {
            double *w = &wanted[to[i / N] * N + i % N];
            *w = get(&y, i) + (add ? *w : 0);
        }
        device->ops->scatter_rows(stream, &y, &to_rows, add, &table);
        assert_near(&table, wanted, tolerance(SL_BF16), "scatter_rows");
    }
    free(table.data);
    free(y.data);
}

static void check_interpolation(enum sl_dtype type)
{
    enum { ROWS = 11, N = 40 };
    struct sl_tensor table = random_tensor(type, 30, N, 1), y = random_tensor(type, ROWS, N, 1);
    struct sl_tensor weight = random_tensor(SL_F32, ROWS, 4, 1);
    int32_t from[4 * ROWS];
    double wanted[ROWS * N];
    for (int i = 0; i < 4 * ROWS; i++) {
        from[i] = (int32_t)below(30);
    }
    for (int i = 0; i < ROWS * N; i++) {
        wanted[i] = get(&y, i);
        for (int k = 0; k < 4; k++) {
            wanted[i] += at(&weight, i / N, k) * at(&table, from[i / N * 4 + k], i % N);
        }
    }
    struct sl_tensor index = sl_tensor_2d(from, SL_I32, ROWS, 4);
    device->ops->interpolate_rows(stream, &table, &index, &weight, &y);
    assert_near(&y, wanted, tolerance(type), "interpolate_rows");
    free(table.data);
    free(y.data);
    free(weight.data);
}

static void rows(void)
{
    for (int i = 0; i < 4; i++) {
        check_rows(types[i / 2], types[i % 2]);
        check_interpolation(types[i % 2]);
    }
}

static void conversions(void)
{
    for (int i = 0; i < 6; i++) {
        enum sl_dtype from = (enum sl_dtype[]){SL_F32, SL_BF16, SL_F16}[i / 2], to = types[i % 2];
        struct sl_tensor host = random_tensor(from, 7, 33, 1), weight;
        double wanted[7 * 33];
        for (int k = 0; k < 7 * 33; k++) {
            wanted[k] = get(&host, k);
        }
        assert_int_equal(device->ops->weight_create(device, &host, to, &weight, NULL), SL_OK);
        assert_int_equal(weight.dtype, to);
        assert_near(&weight, wanted, to == SL_BF16 && from != SL_BF16 ? 3e-3 : 0, "weight_create");
        assert_true((weight.data == host.data) == (from == to)); // the mapped file is not copied without need
        device->ops->weight_release(device, &weight);
        free(host.data);
    }
}

static void halves(void) // every f16, infinities and subnormals too
{
    struct sl_tensor host = sl_tensor_1d(malloc(65536 * 2), SL_F16, 65536), weight;
    for (int i = 0; i < 65536; i++) {
        ((uint16_t *)host.data)[i] = (uint16_t)i;
    }
    assert_int_equal(device->ops->weight_create(device, &host, SL_F32, &weight, NULL), SL_OK);
    for (int i = 0; i < 65536; i++) {
        double wanted = get(&host, i), got = get(&weight, i);
        assert_true(isnan(wanted) ? isnan(got) : wanted == got);
    }
    device->ops->weight_release(device, &weight);
    free(host.data);
}

static void test_norms(void **state)
{
    (void)state;
    for_all_kernels(norms);
}

static void test_rows(void **state)
{
    (void)state;
    for_all_kernels(rows);
}

static void test_weights(void **state)
{
    (void)state;
    for_all_kernels(conversions);
    for_all_kernels(halves);
}

static void test_bad_index(void **state)
{
    (void)state;
    struct sl_tensor table = random_tensor(SL_F32, 4, 4, 1), y = random_tensor(SL_F32, 1, 4, 1);
    int32_t bad[] = {4};
    struct sl_tensor index = sl_tensor_1d(bad, SL_I32, 1);
    struct sl_stream *other;
    assert_int_equal(device->ops->stream_create(device, &other, NULL), SL_OK);
    device->ops->gather_rows(other, &table, &index, &y);
    assert_int_equal(device->ops->wait(other, NULL), SL_ERR_INTERNAL);
    device->ops->stream_destroy(other);
    free(table.data);
    free(y.data);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_norms),
        cmocka_unit_test(test_rows),
        cmocka_unit_test(test_weights),
        cmocka_unit_test(test_bad_index),
    };
    return cmocka_run_group_tests(tests, open_device, close_device);
}
