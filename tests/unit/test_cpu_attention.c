// SPDX-License-Identifier: Apache-2.0
// Rotary embedding, the paged cache and both attentions against float64: head sizes 64, 72, 80 and 128, ragged batches,
// scattered pages, 1 to 8 query heads a key head.
#include "tests/unit/cpu_tools.h"

static double tolerance(enum sl_dtype type)
{
    return type == SL_BF16 ? 6e-3 : 3e-6;
}

static struct sl_tensor integers(const int32_t *values, int64_t rows, int64_t columns)
{
    struct sl_tensor t = sl_tensor_2d(NULL, SL_I32, rows, columns);
    t.data = malloc((size_t)sl_tensor_bytes(&t) + 1);
    memcpy(t.data, values, (size_t)sl_tensor_bytes(&t));
    return t;
}

// --- vision ---

static void check_rope_2d(enum sl_dtype type, int64_t d)
{
    enum { ROWS = 23, HEADS = 3 };
    struct sl_tensor qkv = random_tensor(type, ROWS, 3 * HEADS * d, 1), before = copy_of(&qkv);
    int32_t where[2 * ROWS];
    for (int i = 0; i < 2 * ROWS; i++) {
        where[i] = (int32_t)below(50);
    }
    struct sl_tensor position = integers(where, ROWS, 2);
    double *wanted = malloc(ROWS * 3 * HEADS * (size_t)d * sizeof *wanted);
    for (int64_t i = 0; i < ROWS * 3 * HEADS * d; i++) {
        int64_t row = i / (3 * HEADS * d), j = i % d, half = d / 2, quarter = d / 4, pair = j % half;
        int is_value = i % (3 * HEADS * d) >= 2 * HEADS * d;
        double angle = where[2 * row + (pair >= quarter)] * pow(10000, -(double)(pair % quarter) / (double)quarter);
        double x = get(&before, i), other = j < half ? -get(&before, i + half) : get(&before, i - half);
        wanted[i] = is_value ? x : x * cos(angle) + other * sin(angle);
    }
    device->ops->rope_2d(stream, &qkv, HEADS, &position);
    assert_near(&qkv, wanted, tolerance(type), "rope_2d");
    free(qkv.data);
    free(before.data);
    free(position.data);
    free(wanted);
}

static void check_groups(enum sl_dtype type, int64_t d, const int32_t *start, int groups)
{
    enum { HEADS = 2 };
    int64_t rows = start[groups], n = HEADS * d;
    struct sl_tensor qkv = random_tensor(type, rows, 3 * n, 2), y = random_tensor(type, rows, n, 1);
    struct sl_tensor group_start = integers(start, groups + 1, 1);
    double *wanted = calloc((size_t)(rows * n), sizeof *wanted), *p = malloc((size_t)rows * sizeof *p);
    for (int g = 0; g < groups; g++) {
        for (int64_t i = start[g] * HEADS; i < start[g + 1] * HEADS; i++) {
            int64_t row = i / HEADS, h = i % HEADS;
            double sum = 0;
            for (int64_t k = start[g]; k < start[g + 1]; k++) {
                double s = 0;
                for (int64_t j = 0; j < d; j++) {
                    s += at(&qkv, row, h * d + j) * at(&qkv, k, n + h * d + j);
                }
                sum += p[k] = exp(s / sqrt((double)d));
            }
            for (int64_t k = start[g]; k < start[g + 1]; k++) {
                for (int64_t j = 0; j < d; j++) {
                    wanted[row * n + h * d + j] += p[k] / sum * at(&qkv, k, 2 * n + h * d + j);
                }
            }
        }
    }
    device->ops->attention_groups(stream, &qkv, HEADS, &group_start, groups, (int)rows, &y);
    assert_near(&y, wanted, tolerance(type), "attention_groups");
    free(qkv.data);
    free(y.data);
    free(group_start.data);
    free(wanted);
    free(p);
}

static void vision(void)
{
    const int64_t sizes[] = {64, 72, 80, 128, 4};
    for (int i = 0; i < 10; i++) {
        enum sl_dtype type = i % 2 ? SL_BF16 : SL_F32;
        check_rope_2d(type, sizes[i / 2]);
        check_groups(type, sizes[i / 2], (const int32_t[]){0, 5, 6, 23, 88}, 4);
        check_groups(type, sizes[i / 2], (const int32_t[]){0, 210}, 1);
    }
}

// --- decoder ---

enum { PAGE = 16, PAGES = 64, MAX_PAGES = 24, SEQUENCES = 4 };

struct step {
    enum sl_dtype type;
    int64_t heads, kv_heads, d;
    struct sl_ragged ragged;
    struct sl_kv_layer kv;
    struct sl_tensor qkv;
    int32_t start[SEQUENCES + 1], length[SEQUENCES];
};

// Sequences of `rows` new tokens behind `before` cached ones, in pages that lie scattered.
static void make_step(struct step *s, const int32_t *rows, const int32_t *before)
{
    int32_t pages[SEQUENCES * MAX_PAGES], free_page = 0, position[3 * 512];
    s->start[0] = 0;
    memset(pages, 0xff, sizeof pages); // what is not used must not be read
    for (int b = 0; b < SEQUENCES; b++) {
        s->start[b + 1] = s->start[b] + rows[b];
        s->length[b] = before[b] + rows[b];
        for (int i = 0; i < (s->length[b] + PAGE - 1) / PAGE; i++) {
            pages[b * MAX_PAGES + i] = free_page++ * 37 % PAGES;
        }
    }
    assert_true(free_page <= PAGES);
    int32_t all = s->start[SEQUENCES];
    for (int i = 0; i < 3 * all; i++) {
        position[i] = (int32_t)below(3000);
    }
    s->kv.k = random_tensor(s->type, PAGES * s->kv_heads * PAGE, s->d, 2);
    s->kv.v = random_tensor(s->type, PAGES * s->kv_heads * PAGE, s->d, 1);
    s->kv.k = sl_tensor_4d(s->kv.k.data, s->type, PAGES, s->kv_heads, PAGE, s->d);
    s->kv.v = sl_tensor_4d(s->kv.v.data, s->type, PAGES, s->kv_heads, PAGE, s->d);
    s->qkv = random_tensor(s->type, all, (s->heads + 2 * s->kv_heads) * s->d, 2);
    s->ragged = (struct sl_ragged){.sequences = SEQUENCES,
                                   .rows = all,
                                   .row_start = integers(s->start, SEQUENCES + 1, 1),
                                   .kv_length = integers(s->length, SEQUENCES, 1),
                                   .page_table = integers(pages, SEQUENCES, MAX_PAGES),
                                   .position = integers(position, 3, all),
                                   .max_rows = all,
                                   .max_kv_length = MAX_PAGES * PAGE};
}

static void free_step(struct step *s)
{
    free(s->kv.k.data);
    free(s->kv.v.data);
    free(s->qkv.data);
    free(s->ragged.row_start.data);
    free(s->ragged.kv_length.data);
    free(s->ragged.page_table.data);
    free(s->ragged.position.data);
}

static int64_t cache_at(const struct step *s, int b, int64_t token, int64_t head)
{
    int32_t page = ((const int32_t *)s->ragged.page_table.data)[b * MAX_PAGES + token / PAGE];
    return ((page * s->kv_heads + head) * PAGE + token % PAGE) * s->d;
}

static void normed_and_rotated(const struct step *s, const struct sl_rope *rope, const struct sl_tensor *norm,
                               int64_t row, int64_t column, double eps, double *out)
{
    double squares = 0;
    for (int64_t j = 0; j < s->d; j++) {
        squares += at(&s->qkv, row, column + j) * at(&s->qkv, row, column + j);
    }
    double scale = 1 / sqrt(squares / (double)s->d + eps);
    const int32_t *axis = rope->axis.data, *position = s->ragged.position.data;
    for (int64_t j = 0, half = s->d / 2; j < half; j++) {
        // The angle is a product of two f32, as in the reference.
        float angle = (float)position[axis[j] * s->ragged.rows + row] * (float)get(&rope->inv_freq, j);
        double c = cos((double)angle) * (double)rope->scale, n = sin((double)angle) * (double)rope->scale;
        double a = at(&s->qkv, row, column + j) * scale * get(norm, j);
        double b = at(&s->qkv, row, column + j + half) * scale * get(norm, j + half);
        out[j] = a * c - b * n;
        out[j + half] = b * c + a * n;
    }
}

static void check_store(struct step *s)
{
    const int32_t axes[] = {0, 1, 2};
    int64_t half = s->d / 2, n = s->heads + 2 * s->kv_heads, rows = s->ragged.rows;
    struct sl_tensor q_norm = random_vector(s->type, s->d, 2), k_norm = random_vector(SL_F32, s->d, 2);
    struct sl_rope rope = {random_vector(SL_F32, half, 1), random_vector(SL_F32, half, 1), 1.1f};
    for (int64_t j = 0; j < half; j++) {
        ((float *)rope.inv_freq.data)[j] = (float)pow(5e6, -(double)j / (double)half);
        ((int32_t *)rope.axis.data)[j] = axes[j % 3];
    }
    double *q = malloc((size_t)(rows * n * s->d) * sizeof *q), *k = malloc((size_t)sl_tensor_elements(&s->kv.k) * 8);
    double *v = malloc((size_t)sl_tensor_elements(&s->kv.v) * 8);
    for (int64_t i = 0; i < rows * n * s->d; i++) {
        q[i] = get(&s->qkv, i);
    }
    for (int64_t i = 0; i < sl_tensor_elements(&s->kv.k); i++) {
        k[i] = get(&s->kv.k, i);
        v[i] = get(&s->kv.v, i);
    }
    for (int b = 0; b < SEQUENCES; b++) {
        for (int64_t row = s->start[b]; row < s->start[b + 1]; row++) {
            for (int64_t h = 0; h < s->heads; h++) {
                normed_and_rotated(s, &rope, &q_norm, row, h * s->d, 1e-6, q + (row * n + h) * s->d);
            }
            for (int64_t h = 0; h < s->kv_heads; h++) {
                int64_t to = cache_at(s, b, s->length[b] - s->start[b + 1] + row, h), column = (s->heads + h) * s->d;
                normed_and_rotated(s, &rope, &k_norm, row, column, 1e-6, k + to);
                for (int64_t j = 0; j < s->d; j++) {
                    v[to + j] = at(&s->qkv, row, column + s->kv_heads * s->d + j);
                }
            }
        }
    }
    device->ops->qk_norm_rope_store(stream, &s->ragged, &s->qkv, (int)s->heads, &q_norm, &k_norm, 1e-6f, &rope, &s->kv);
    struct sl_tensor q_columns = s->qkv;
    for (int64_t row = 0; row < rows; row++) { // k and v columns need not be kept
        for (int64_t i = s->heads * s->d; i < n * s->d; i++) {
            set(&q_columns, row * n * s->d + i, 0);
            q[row * n * s->d + i] = 0;
        }
    }
    assert_near(&s->qkv, q, tolerance(s->type), "q");
    assert_near(&s->kv.k, k, tolerance(s->type), "k pages");
    assert_near(&s->kv.v, v, 0, "v pages");
    free(q_norm.data);
    free(k_norm.data);
    free(rope.inv_freq.data);
    free(rope.axis.data);
    free(q);
    free(k);
    free(v);
}

static void wanted_row(const struct step *s, int b, int64_t row, int64_t head, double *p, double *out)
{
    int64_t kv_head = head / (s->heads / s->kv_heads), seen = s->length[b] - s->start[b + 1] + row + 1;
    double sum = 0;
    for (int64_t t = 0; t < seen; t++) {
        int64_t from = cache_at(s, b, t, kv_head);
        double dot = 0;
        for (int64_t j = 0; j < s->d; j++) {
            dot += at(&s->qkv, row, head * s->d + j) * get(&s->kv.k, from + j);
        }
        sum += p[t] = exp(dot / sqrt((double)s->d));
    }
    for (int64_t j = 0; j < s->d; j++) {
        out[j] = 0;
        for (int64_t t = 0; t < seen; t++) {
            out[j] += p[t] / sum * get(&s->kv.v, cache_at(s, b, t, kv_head) + j);
        }
    }
}

static void check_paged(const struct step *s)
{
    int64_t n = s->heads * s->d;
    struct sl_tensor y = random_tensor(s->type, s->ragged.rows, n, 1);
    double *wanted = malloc((size_t)(s->ragged.rows * n) * sizeof *wanted), p[MAX_PAGES * PAGE];
    for (int b = 0; b < SEQUENCES; b++) {
        for (int64_t row = s->start[b]; row < s->start[b + 1]; row++) {
            for (int64_t h = 0; h < s->heads; h++) {
                wanted_row(s, b, row, h, p, wanted + row * n + h * s->d);
            }
        }
    }
    device->ops->attention_paged(stream, &s->ragged, &s->qkv, (int)s->heads, &s->kv, &y);
    assert_near(&y, wanted, tolerance(s->type), "attention_paged");
    free(y.data);
    free(wanted);
}

static void decoder(void)
{
    const int64_t sizes[] = {64, 72, 80, 128}, shared[] = {1, 2, 4, 8, 3};
    const int32_t rows[][SEQUENCES] = {{1, 1, 1, 1}, {70, 1, 3, 0}, {150, 17, 1, 2}, {1, 130, 0, 1}};
    const int32_t before[][SEQUENCES] = {{0, 40, 200, 7}, {0, 129, 30, 5}, {150, 0, 127, 60}, {300, 64, 0, 31}};
    for (int i = 0; i < 20; i++) {
        struct step s = {.type = i % 2 ? SL_BF16 : SL_F32, .kv_heads = 1 + i % 3, .d = sizes[i / 2 % 4]};
        s.heads = s.kv_heads * shared[i % 5];
        make_step(&s, rows[i % 4], before[i % 4]);
        check_store(&s);
        check_paged(&s);
        free_step(&s);
    }
}

static void test_vision(void **state)
{
    (void)state;
    for_all_kernels(vision);
}

static void test_decoder(void **state)
{
    (void)state;
    for_all_kernels(decoder);
}

// A decoded token's numbers must not depend on what else is in the batch.
static void test_sequences_do_not_depend_on_each_other(void **state)
{
    (void)state;
    struct step s = {.type = SL_BF16, .heads = 4, .kv_heads = 2, .d = 128};
    make_step(&s, (const int32_t[]){1, 20, 1, 1}, (const int32_t[]){140, 0, 77, 2});
    struct sl_tensor y = random_tensor(s.type, s.ragged.rows, 512, 1), alone = random_tensor(s.type, 1, 512, 1);
    device->ops->attention_paged(stream, &s.ragged, &s.qkv, 4, &s.kv, &y);
    struct sl_ragged one = s.ragged;
    int32_t start[] = {0, 1};
    one.sequences = one.rows = one.max_rows = 1;
    one.row_start = sl_tensor_1d(start, SL_I32, 2);
    one.kv_length = sl_tensor_rows(&s.ragged.kv_length, 2, 1);
    one.page_table = sl_tensor_rows(&s.ragged.page_table, 2, 1);
    struct sl_tensor row = sl_tensor_rows(&s.qkv, 21, 1), wanted = sl_tensor_rows(&y, 21, 1);
    device->ops->attention_paged(stream, &one, &row, 4, &s.kv, &alone);
    assert_no_failure();
    assert_memory_equal(alone.data, wanted.data, 512 * 2);
    free(y.data);
    free(alone.data);
    free_step(&s);
}

static void test_bad_page(void **state)
{
    (void)state;
    struct step s = {.type = SL_F32, .heads = 1, .kv_heads = 1, .d = 64};
    struct sl_stream *other;
    make_step(&s, (const int32_t[]){1, 1, 1, 1}, (const int32_t[]){0, 0, 20, 0});
    ((int32_t *)s.ragged.page_table.data)[2 * MAX_PAGES + 1] = PAGES;
    struct sl_tensor y = random_tensor(SL_F32, 4, 64, 1);
    assert_int_equal(device->ops->stream_create(device, &other, NULL), SL_OK);
    device->ops->attention_paged(other, &s.ragged, &s.qkv, 1, &s.kv, &y);
    assert_int_equal(device->ops->wait(other, NULL), SL_ERR_INTERNAL);
    device->ops->stream_destroy(other);
    free(y.data);
    free_step(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_vision),
        cmocka_unit_test(test_decoder),
        cmocka_unit_test(test_sequences_do_not_depend_on_each_other),
        cmocka_unit_test(test_bad_page),
    };
    return cmocka_run_group_tests(tests, open_device, close_device);
}
