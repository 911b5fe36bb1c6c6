// SPDX-License-Identifier: Apache-2.0
// Linear layers against float64: every path (few rows, many rows), kind of weights, epilogue and odd size.
#include "cpu/onednn.h"
#include "tests/unit/cpu_tools.h"

struct test_case {
    enum sl_dtype compute, weights, y;
    int64_t rows, in, out;
    int parts;
    enum sl_epilogue epilogue;
    int bias, residual; // residual 2: y itself
};

static double activation(enum sl_epilogue epilogue, double x)
{
    switch (epilogue) {
    case SL_EPILOGUE_GELU_TANH:
        return 0.5 * x * (1 + tanh(sqrt(2 / M_PI) * (x + 0.044715 * x * x * x)));
    case SL_EPILOGUE_GELU_ERF:
        return 0.5 * x * (1 + erf(x / sqrt(2)));
    case SL_EPILOGUE_SILU_GATE:
        return x / (1 + exp(-x));
    case SL_EPILOGUE_NONE:
        break;
    }
    return x;
}

// One output before its epilogue; weights rounded as the layer must hold them.
static double dot(const struct test_case *t, const struct sl_tensor *parts, const struct sl_tensor *bias,
                  const struct sl_tensor *x, int64_t row, int64_t column)
{
    double sum = bias ? get(bias, column) : 0;
    int part = 0;
    for (; column >= parts[part].shape[0]; part++) {
        column -= parts[part].shape[0];
    }
    for (int64_t k = 0; k < t->in; k++) {
        double w = at(&parts[part], column, k), a = at(x, row, k);
        if (t->compute == SL_BF16) {
            w = (double)of_bf16(to_bf16((float)w));
            a = (double)of_bf16(to_bf16((float)a));
        }
        sum += w * a;
    }
    return sum;
}

static void run(const struct test_case *t)
{
    struct sl_tensor parts[3], bias = random_vector(t->weights, t->out, 0.5);
    int64_t left = t->out, columns = t->epilogue == SL_EPILOGUE_SILU_GATE ? t->out / 2 : t->out;
    for (int i = 0; i < t->parts; i++) {
        int64_t rows = i == t->parts - 1 ? left : left / 2;
        parts[i] = random_tensor(t->weights, rows, t->in, 3 / sqrt((double)t->in));
        left -= rows;
    }
    struct sl_tensor x = random_tensor(t->compute, t->rows, t->in, 1);
    struct sl_tensor y = random_tensor(t->y, t->rows, columns, 1), residual = random_tensor(t->y, t->rows, columns, 1);
    struct sl_tensor *add = t->residual == 2 ? &y : t->residual ? &residual : NULL;
    double *wanted = malloc((size_t)(t->rows * columns) * sizeof *wanted);
    for (int64_t i = 0; i < t->rows * columns; i++) {
        int64_t row = i / columns, column = i % columns;
        double value = activation(t->epilogue, dot(t, parts, t->bias ? &bias : NULL, &x, row, column));
        if (t->epilogue == SL_EPILOGUE_SILU_GATE) {
            value *= dot(t, parts, t->bias ? &bias : NULL, &x, row, columns + column);
        }
        wanted[i] = value + (add ? get(add, i) : 0);
    }
    struct sl_linear *linear;
    struct sl_error error;
    assert_int_equal(
        device->ops->linear_create(device, parts, t->parts, t->bias ? &bias : NULL, t->compute, &linear, &error),
        SL_OK);
    device->ops->linear(stream, linear, &x, t->epilogue, add, &y);
    assert_no_failure();
    char what[160];
    snprintf(what, sizeof what, "%s: rows %d, in %d, out %d, %s, weights %s, epilogue %d",
             ((struct cpu_device *)device)->kernels->name, (int)t->rows, (int)t->in, (int)t->out,
             sl_dtype_name(t->compute), sl_dtype_name(t->weights), (int)t->epilogue);
    assert_near(&y, wanted, t->y == SL_BF16 ? 3e-3 : 3e-6, what);
    device->ops->linear_destroy(linear);
    for (int i = 0; i < t->parts; i++) {
        free(parts[i].data);
    }
    free(bias.data);
    free(x.data);
    free(y.data);
    free(residual.data);
    free(wanted);
}

static void all_rows(void)
{
    const int64_t rows[] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 15, 17, 24, 31, 32, 33, 48, 63, 64, 65, 100, 129};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        for (int bf16 = 0; bf16 < 2; bf16++) {
            enum sl_dtype type = bf16 ? SL_BF16 : SL_F32;
            run(&(struct test_case){type, type, SL_F32, rows[i], 90, 103, 1, SL_EPILOGUE_NONE, 1, 0});
            run(&(struct test_case){type, type, type, rows[i], 64, 50, 2, SL_EPILOGUE_SILU_GATE, 0, 2});
        }
    }
}

static void all_kinds(void)
{
    const enum sl_dtype weights[] = {SL_F32, SL_BF16, SL_F16};
    for (int i = 0; i < 2 * 3 * 4 * 2; i++) {
        enum sl_dtype compute = i % 2 ? SL_BF16 : SL_F32;
        int64_t rows = i / 24 ? 70 : 3;
        run(&(struct test_case){compute, weights[i / 2 % 3], i % 5 ? SL_F32 : compute, rows, 37 + i, 34, 1 + i % 3,
                                (enum sl_epilogue)(i / 6 % 4), i % 7 != 0, i % 3});
    }
}

static void large_blocks(void)
{
    run(&(struct test_case){SL_F32, SL_F32, SL_F32, 3, 2500, 70, 1, SL_EPILOGUE_NONE, 1, 1});
    run(&(struct test_case){SL_BF16, SL_BF16, SL_F32, 12, 2500, 70, 1, SL_EPILOGUE_SILU_GATE, 1, 1});
    run(&(struct test_case){SL_F32, SL_F32, SL_F32, 530, 300, 700, 3, SL_EPILOGUE_GELU_TANH, 1, 1});
    run(&(struct test_case){SL_BF16, SL_BF16, SL_F32, 530, 600, 402, 2, SL_EPILOGUE_SILU_GATE, 1, 1});
}

static void test_rows(void **state)
{
    (void)state;
    for_all_kernels(all_rows);
}

static void test_kinds(void **state)
{
    (void)state;
    for_all_kernels(all_kinds);
}

static void test_blocks(void **state)
{
    (void)state;
    for_all_kernels(large_blocks);
}

// The path of processors with AMX, here by other instructions.
static void test_onednn(void **state)
{
    (void)state;
    struct cpu_device *cpu = (struct cpu_device *)device;
    struct cpu_onednn *before = cpu->onednn;
    cpu->onednn = before ? before : cpu_onednn_create();
    if (!cpu->onednn) {
        skip();
    }
    all_rows();
    all_kinds();
    large_blocks();
    if (!before) {
        cpu_onednn_destroy(cpu->onednn);
    }
    cpu->onednn = before;
}

// In decoding, a sequence's numbers must not depend on its neighbours.
static void test_rows_do_not_depend_on_each_other(void **state)
{
    (void)state;
    struct sl_tensor w = random_tensor(SL_BF16, 210, 330, 1), x = random_tensor(SL_BF16, 32, 330, 1);
    struct sl_tensor all = random_tensor(SL_F32, 32, 210, 1), one = random_tensor(SL_F32, 1, 210, 1);
    struct sl_linear *linear;
    assert_int_equal(device->ops->linear_create(device, &w, 1, NULL, SL_BF16, &linear, NULL), SL_OK);
    device->ops->linear(stream, linear, &x, SL_EPILOGUE_NONE, NULL, &all);
    for (int64_t row = 0; row < 32; row++) {
        struct sl_tensor x_row = sl_tensor_rows(&x, row, 1), wanted = sl_tensor_rows(&all, row, 1);
        device->ops->linear(stream, linear, &x_row, SL_EPILOGUE_NONE, NULL, &one);
        assert_memory_equal(one.data, wanted.data, 210 * 4);
    }
    device->ops->linear_destroy(linear);
    free(w.data);
    free(x.data);
    free(all.data);
    free(one.data);
}

// Nor must any number depend on how many threads share the work.
static void test_threads_do_not_change_the_bits(void **state)
{
    (void)state;
    struct cpu_device *cpu = (struct cpu_device *)device;
    struct sl_tensor w = random_tensor(SL_BF16, 500, 330, 1), x = random_tensor(SL_BF16, 450, 330, 1);
    struct sl_tensor two = random_tensor(SL_F32, 450, 500, 1), other = random_tensor(SL_F32, 450, 500, 1);
    struct sl_linear *linear;
    assert_int_equal(device->ops->linear_create(device, &w, 1, NULL, SL_BF16, &linear, NULL), SL_OK);
    device->ops->linear(stream, linear, &x, SL_EPILOGUE_NONE, NULL, &two);
    for (int threads = 1; threads <= 7; threads += 3) {
        cpu->threads = threads;
        device->ops->linear(stream, linear, &x, SL_EPILOGUE_NONE, NULL, &other);
        assert_memory_equal(two.data, other.data, 450 * 500 * 4);
    }
    cpu->threads = 2;
    device->ops->linear_destroy(linear);
    free(w.data);
    free(x.data);
    free(two.data);
    free(other.data);
}

static void test_faults(void **state)
{
    (void)state;
    struct sl_tensor w = random_tensor(SL_F32, 4, 6, 1), x = random_tensor(SL_F32, 2, 5, 1), y = w;
    struct sl_tensor two[2] = {w, x};
    struct sl_linear *linear;
    struct sl_error error;
    struct sl_stream *other;
    assert_int_equal(device->ops->linear_create(device, two, 2, NULL, SL_F32, &linear, &error), SL_ERR_INTERNAL);
    assert_null(linear);
    assert_int_equal(device->ops->linear_create(device, &w, 1, &x, SL_F32, &linear, &error), SL_ERR_INTERNAL);
    assert_int_equal(device->ops->linear_create(device, &w, 1, NULL, SL_F32, &linear, &error), SL_OK);
    assert_int_equal(device->ops->stream_create(device, &other, &error), SL_OK);
    device->ops->linear(other, linear, &x, SL_EPILOGUE_NONE, NULL, &y);
    assert_int_equal(device->ops->wait(other, &error), SL_ERR_INTERNAL);
    device->ops->zero(other, w.data, 4);
    assert_true(get(&w, 0) != 0); // a failed stream does nothing more
    assert_int_equal(device->ops->wait(other, &error), SL_ERR_INTERNAL);
    device->ops->stream_destroy(other);
    device->ops->linear_destroy(linear);
    device->ops->linear_destroy(NULL);
    free(w.data);
    free(x.data);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_rows),
        cmocka_unit_test(test_kinds),
        cmocka_unit_test(test_blocks),
        cmocka_unit_test(test_onednn),
        cmocka_unit_test(test_rows_do_not_depend_on_each_other),
        cmocka_unit_test(test_threads_do_not_change_the_bits),
        cmocka_unit_test(test_faults),
    };
    return cmocka_run_group_tests(tests, open_device, close_device);
}
