// SPDX-License-Identifier: Apache-2.0
// Mixtures of experts against float64: every layout, kind of weights, path (few and many rows) and odd size; routing
// with ties; and that experts to which no row goes are not so much as read.
#include <sys/mman.h>

#include "core/half.h"
#include "tests/unit/cpu_tools.h"

enum { MAX_MATRICES = 3 * 8 };

struct test_case {
    enum sl_experts_layout layout;
    enum sl_dtype compute, weights;
    int64_t rows, hidden, inner;
    int experts, top_k;
};

// Tensors of a source, and what they mean: gate, up and down [experts, out, in], as the layer must hold them.
struct world {
    const struct test_case *t;
    struct sl_tensor tensor[MAX_MATRICES], scale[MAX_MATRICES];
    int n;
    double *gate, *up, *down;
};

static int64_t blocks(int64_t n)
{
    return (n + 127) / 128;
}

static double held(const struct test_case *t, double x)
{
    return t->compute == SL_BF16 ? (double)of_bf16(to_bf16((float)x)) : x;
}

// [count, rows, columns]; count 0: a matrix. F8 bytes are any but NaN.
static void make_tensor(struct world *w, int64_t count, int64_t rows, int64_t columns)
{
    struct sl_tensor *t = &w->tensor[w->n], *scale = &w->scale[w->n];
    int64_t all = (count ? count : 1) * rows;
    w->n++;
    double size = 3 / sqrt((double)(rows + columns) / 2);
    if (w->t->weights != SL_F8E4M3) {
        *t = random_tensor(w->t->weights, all, columns, size);
    } else {
        *t = sl_tensor_2d(malloc((size_t)(all * columns)), SL_F8E4M3, all, columns);
        for (int64_t i = 0; i < all * columns; i++) {
            ((uint8_t *)t->data)[i] = (uint8_t)(below(127) | (below(2) << 7));
        }
        *scale =
            random_tensor(w->n % 2 ? SL_F32 : SL_BF16, (count ? count : 1) * blocks(rows), blocks(columns), size / 60);
    }
    if (count) {
        *t = sl_tensor_3d(t->data, t->dtype, count, rows, columns);
        *scale = sl_tensor_3d(scale->data, scale->dtype, count, blocks(rows), blocks(columns));
    }
    t->scale = w->t->weights == SL_F8E4M3 ? scale : NULL;
}

static double value(const struct world *w, int tensor, int64_t e, int64_t row, int64_t column)
{
    const struct sl_tensor *t = &w->tensor[tensor], *scale = t->scale;
    int64_t rows = t->shape[t->rank - 2], columns = t->shape[t->rank - 1], i = (e * rows + row) * columns + column;
    if (!scale) {
        return held(w->t, get(t, i));
    }
    float byte = sl_f8e4m3_to_f32(((const uint8_t *)t->data)[i]);
    float by = (float)get(scale, (e * blocks(rows) + row / 128) * blocks(columns) + column / 128);
    return held(w->t, (double)(byte * by));
}

// The value of matrix `which` (0 gate, 1 up, 2 down) of expert e for output o and input i.
static double weight_of(const struct world *w, int which, int64_t e, int64_t o, int64_t i)
{
    if (w->t->layout == SL_EXPERTS_SEPARATE) {
        return value(w, (int)(which < 2 ? 2 * e + which : 2 * w->t->experts + e), 0, o, i);
    }
    o += which == 1 ? w->t->inner : 0;
    return w->t->layout == SL_EXPERTS_OUTPUT_MAJOR ? value(w, which == 2, e, o, i) : value(w, which == 2, e, i, o);
}

static double *read_matrices(const struct world *w, int which)
{
    int64_t outputs = which == 2 ? w->t->hidden : w->t->inner, inputs = which == 2 ? w->t->inner : w->t->hidden;
    double *all = malloc(sizeof *all * (size_t)(w->t->experts * outputs * inputs)), *to = all;
    for (int64_t e = 0; e < w->t->experts; e++) {
        for (int64_t o = 0; o < outputs; o++) {
            for (int64_t i = 0; i < inputs; i++) {
                *to++ = weight_of(w, which, e, o, i);
            }
        }
    }
    return all;
}

static struct sl_experts_source make_world(struct world *w, const struct test_case *t)
{
    int turned = t->layout == SL_EXPERTS_OUTPUT_MAJOR, n = t->experts;
    *w = (struct world){.t = t};
    if (t->layout == SL_EXPERTS_SEPARATE) {
        for (int i = 0; i < 3 * n; i++) {
            make_tensor(w, 0, i < 2 * n ? t->inner : t->hidden, i < 2 * n ? t->hidden : t->inner);
        }
    } else {
        make_tensor(w, n, turned ? 2 * t->inner : t->hidden, turned ? t->hidden : 2 * t->inner);
        make_tensor(w, n, turned ? t->hidden : t->inner, turned ? t->inner : t->hidden);
    }
    w->gate = read_matrices(w, 0);
    w->up = read_matrices(w, 1);
    w->down = read_matrices(w, 2);
    return (struct sl_experts_source){.layout = t->layout,
                                      .experts = n,
                                      .hidden = (int)t->hidden,
                                      .intermediate = (int)t->inner,
                                      .gate_up = w->tensor,
                                      .down = w->tensor + (t->layout == SL_EXPERTS_SEPARATE ? 2 * n : 1)};
}

static void end_world(struct world *w)
{
    for (int i = 0; i < w->n; i++) {
        free(w->tensor[i].data);
        free(w->scale[i].data);
    }
    free(w->gate);
    free(w->up);
    free(w->down);
}

static double dot(const double *w, const double *x, int64_t n)
{
    double sum = 0;
    for (int64_t i = 0; i < n; i++) {
        sum += w[i] * x[i];
    }
    return sum;
}

static void add_expert(const struct world *w, int64_t e, double weight, const double *x, double *y)
{
    int64_t hidden = w->t->hidden, inner = w->t->inner;
    double *middle = malloc(sizeof *middle * (size_t)inner);
    for (int64_t i = 0; i < inner; i++) {
        double gate = dot(w->gate + (e * inner + i) * hidden, x, hidden);
        middle[i] = held(w->t, gate / (1 + exp(-gate)) * dot(w->up + (e * inner + i) * hidden, x, hidden));
    }
    for (int64_t i = 0; i < hidden; i++) {
        y[i] += weight * dot(w->down + (e * hidden + i) * inner, middle, inner);
    }
    free(middle);
}

// Distinct experts of each row. The last expert gets no row where there are enough others.
static struct sl_tensor choose(const struct test_case *t)
{
    struct sl_tensor expert = sl_tensor_2d(malloc(4 * (size_t)(t->rows * t->top_k)), SL_I32, t->rows, t->top_k);
    int64_t among = t->experts > t->top_k ? t->experts - 1 : t->experts;
    for (int64_t r = 0; r < t->rows; r++) {
        int64_t first = below(among);
        for (int64_t k = 0; k < t->top_k; k++) {
            ((int32_t *)expert.data)[r * t->top_k + k] = (int32_t)((first + k) % among);
        }
    }
    return expert;
}

static void run(const struct test_case *t)
{
    struct world w;
    struct sl_experts_source source = make_world(&w, t);
    struct sl_experts *experts = NULL;
    struct sl_error error = {0};
    assert_int_equal(device->ops->experts_create(device, &source, t->compute, &experts, &error), SL_OK);
    struct sl_tensor x = random_tensor(t->compute, t->rows, t->hidden, 1),
                     y = random_tensor(t->compute, t->rows, t->hidden, 1);
    struct sl_tensor expert = choose(t), weight = random_tensor(SL_F32, t->rows, t->top_k, 1);
    double *wanted = malloc(sizeof *wanted * (size_t)(t->rows * t->hidden)),
           *row = malloc(sizeof *row * (size_t)t->hidden);
    for (int64_t r = 0; r < t->rows; r++) {
        for (int64_t i = 0; i < t->hidden; i++) {
            wanted[r * t->hidden + i] = at(&y, r, i);
            row[i] = at(&x, r, i);
        }
        for (int64_t k = 0; k < t->top_k; k++) {
            add_expert(&w, ((int32_t *)expert.data)[r * t->top_k + k], at(&weight, r, k), row, wanted + r * t->hidden);
        }
    }
    device->ops->experts(stream, experts, &x, &expert, &weight, &y);
    char what[128];
    snprintf(what, sizeof what, "layout %d, %s as %s, %d rows, %d wide", (int)t->layout, sl_dtype_name(t->weights),
             sl_dtype_name(t->compute), (int)t->rows, (int)t->hidden);
    assert_near(&y, wanted, t->compute == SL_BF16 ? 6e-3 : 2e-6, what);
    device->ops->experts_destroy(experts);
    void *memory[] = {x.data, y.data, expert.data, weight.data, wanted, row};
    for (size_t i = 0; i < sizeof memory / sizeof *memory; i++) {
        free(memory[i]);
    }
    end_world(&w);
}

static void every_kind(void)
{
    const struct {
        enum sl_dtype compute, weights;
    } kinds[] = {{SL_F32, SL_F32},   {SL_F32, SL_BF16}, {SL_F32, SL_F8E4M3},
                 {SL_BF16, SL_BF16}, {SL_BF16, SL_F16}, {SL_BF16, SL_F8E4M3}};
    const struct {
        int64_t rows, hidden, inner;
        int experts, top_k;
    } sizes[] = {
        {1, 200, 150, 4, 2}, {7, 37, 19, 3, 3}, {40, 264, 136, 5, 1}, {70, 300, 150, 3, 2}, {90, 37, 19, 2, 1}};
    const enum sl_experts_layout layouts[] = {SL_EXPERTS_INPUT_MAJOR, SL_EXPERTS_OUTPUT_MAJOR, SL_EXPERTS_SEPARATE};
    for (size_t k = 0; k < sizeof kinds / sizeof *kinds; k++) {
        for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++) {
            for (size_t l = 0; l < sizeof layouts / sizeof *layouts; l++) {
                struct test_case t = {layouts[l],      kinds[k].compute, kinds[k].weights, sizes[s].rows,
                                      sizes[s].hidden, sizes[s].inner,   sizes[s].experts, sizes[s].top_k};
                run(&t);
            }
        }
    }
}

static void adds_what_the_experts_say(void **state)
{
    (void)state;
    for_all_kernels(every_kind);
}

// Four experts, each of whole pages; two of them must not be touched.
static void leaves_other_experts_alone(void **state)
{
    (void)state;
    const enum sl_experts_layout layouts[] = {SL_EXPERTS_INPUT_MAJOR, SL_EXPERTS_OUTPUT_MAJOR};
    const int64_t experts = 4, hidden = 128, inner = 64, page = 4096;
    const int64_t each[2] = {hidden * 2 * inner * 2, hidden * inner * 2}; // bytes
    assert_int_equal(each[0] % page + each[1] % page, 0);
    for (int l = 0; l < 2; l++) {
        int turned = layouts[l] == SL_EXPERTS_OUTPUT_MAJOR;
        struct sl_tensor t[2] = {
            sl_tensor_3d(NULL, SL_BF16, experts, turned ? 2 * inner : hidden, turned ? hidden : 2 * inner),
            sl_tensor_3d(NULL, SL_BF16, experts, turned ? hidden : inner, turned ? inner : hidden)};
        for (int i = 0; i < 2; i++) {
            t[i].data = mmap(NULL, (size_t)(experts * each[i]), PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
            assert_true(t[i].data != MAP_FAILED);
            mprotect(t[i].data, (size_t)each[i], PROT_NONE);
            mprotect((char *)t[i].data + 2 * each[i], (size_t)each[i], PROT_NONE);
        }
        struct sl_experts_source source = {layouts[l], (int)experts, (int)hidden, (int)inner, &t[0], &t[1]};
        struct sl_experts *made = NULL;
        assert_int_equal(device->ops->experts_create(device, &source, SL_BF16, &made, NULL), SL_OK);
        for (int64_t rows = 1; rows <= 100; rows += 99) {
            struct sl_tensor x = random_tensor(SL_BF16, rows, hidden, 1), y = random_tensor(SL_BF16, rows, hidden, 1);
            struct sl_tensor weight = random_tensor(SL_F32, rows, 2, 1), expert = sl_tensor_2d(NULL, SL_I32, rows, 2);
            int32_t chosen[200];
            for (int64_t i = 0; i < 2 * rows; i++) {
                chosen[i] = i % 2 ? 1 : 3;
            }
            expert.data = chosen;
            device->ops->experts(stream, made, &x, &expert, &weight, &y);
            assert_no_failure();
            free(x.data);
            free(y.data);
            free(weight.data);
        }
        device->ops->experts_destroy(made);
        munmap(t[0].data, (size_t)(experts * each[0]));
        munmap(t[1].data, (size_t)(experts * each[1]));
    }
}

static void routes_rows(void **state)
{
    (void)state;
    float logits[3][5] = {{1, 3, 2, 3, -1}, {0, 0, 0, 0, 0}, {-80, 90, 5, 90, 89}};
    const int32_t wanted[3][3] = {{1, 3, 2}, {0, 1, 2}, {1, 3, 4}}; // of equals, the first
    for (int normalise = 0; normalise < 2; normalise++) {
        int32_t expert[3][3];
        float weight[3][3];
        struct sl_tensor l = sl_tensor_2d(logits, SL_F32, 3, 5), e = sl_tensor_2d(expert, SL_I32, 3, 3);
        struct sl_tensor w = sl_tensor_2d(weight, SL_F32, 3, 3);
        device->ops->route(stream, &l, normalise, &e, &w);
        assert_no_failure();
        assert_memory_equal(expert, wanted, sizeof wanted);
        for (int r = 0; r < 3; r++) {
            double all = 0, chosen = 0;
            for (int i = 0; i < 5; i++) {
                all += exp((double)logits[r][i] - 90);
            }
            for (int k = 0; k < 3; k++) {
                chosen += exp((double)logits[r][wanted[r][k]] - 90);
            }
            for (int k = 0; k < 3; k++) {
                double share = exp((double)logits[r][wanted[r][k]] - 90) / (normalise ? chosen : all);
                assert_true(fabs((double)weight[r][k] - share) < 1e-6);
            }
        }
    }
}

static void refuses_an_expert_that_is_not_there(void **state)
{
    (void)state;
    const struct test_case t = {SL_EXPERTS_OUTPUT_MAJOR, SL_F32, SL_F32, 1, 8, 4, 2, 1};
    struct world w;
    struct sl_experts_source source = make_world(&w, &t);
    struct sl_experts *experts = NULL;
    struct sl_stream *own = NULL;
    struct sl_error error = {0};
    assert_int_equal(device->ops->experts_create(device, &source, SL_F32, &experts, NULL), SL_OK);
    assert_int_equal(device->ops->stream_create(device, &own, NULL), SL_OK);
    float x[8] = {0}, y[8] = {0}, one = 1;
    int32_t index = 2;
    struct sl_tensor xt = sl_tensor_2d(x, SL_F32, 1, 8), yt = sl_tensor_2d(y, SL_F32, 1, 8);
    struct sl_tensor et = sl_tensor_2d(&index, SL_I32, 1, 1), wt = sl_tensor_2d(&one, SL_F32, 1, 1);
    device->ops->experts(own, experts, &xt, &et, &wt, &yt);
    assert_int_equal(device->ops->wait(own, &error), SL_ERR_INTERNAL);
    assert_non_null(strstr(error.text, "experts"));
    device->ops->stream_destroy(own);
    device->ops->experts_destroy(experts);
    end_world(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(adds_what_the_experts_say),
        cmocka_unit_test(leaves_other_experts_alone),
        cmocka_unit_test(routes_rows),
        cmocka_unit_test(refuses_an_expert_that_is_not_there),
    };
    return cmocka_run_group_tests(tests, open_device, close_device);
}
