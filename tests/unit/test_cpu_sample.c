// SPDX-License-Identifier: Apache-2.0
// Sampling against a slow and obvious version: sort everything, keep, draw.
#include "tests/unit/cpu_tools.h"

enum { VOCAB = 777, WORDS = (VOCAB + 31) / 32 };

struct token {
    double value;
    int32_t id;
};

static int compare(const void *a, const void *b)
{
    const struct token *x = a, *y = b;
    return x->value != y->value ? (x->value < y->value ? 1 : -1) : x->id - y->id;
}

static int bit(const int32_t *bits, int32_t id)
{
    return (int)((uint32_t)bits[id / 32] >> (id % 32) & 1u);
}

static int32_t wanted_token(const float *logits, const struct sl_sample_row *row, const int32_t *allowed,
                            const int32_t *seen)
{
    struct token t[VOCAB];
    double p[VOCAB] = {0}, sum = 0, total = 0;
    int n = 0;
    for (int32_t id = 0; id < VOCAB; id++) {
        if (bit(allowed, id)) {
            double value = (double)(logits[id] - (bit(seen, id) ? row->presence : 0));
            t[n++] = (struct token){row->temperature > 0 ? value / (double)row->temperature : value, id};
        }
    }
    qsort(t, (size_t)n, sizeof *t, compare);
    if (row->temperature <= 0) {
        return t[0].id;
    }
    n = row->top_k > 0 && row->top_k < n ? row->top_k : n;
    for (int i = 0; i < n; i++) {
        total += exp(t[i].value - t[0].value);
    }
    for (int i = 0; i < n && sum < (double)row->top_p; i++) {
        p[t[i].id] = exp(t[i].value - t[0].value) / total;
        sum += p[t[i].id];
    }
    double left = (double)row->uniform * sum;
    int32_t last = -1;
    for (int32_t id = 0; id < VOCAB; id++) {
        if (p[id] > 0) {
            last = id;
            left -= p[id];
            if (left < 0) {
                return id;
            }
        }
    }
    return last;
}

static void draws(void)
{
    enum { ROWS = 300 };
    const int32_t top_k[] = {0, 1, 20, 500, 5000};
    struct sl_tensor logits = random_tensor(SL_F32, ROWS, VOCAB, 6), logprob = random_vector(SL_F32, ROWS, 1);
    int32_t allowed[ROWS * WORDS], seen[ROWS * WORDS], token[ROWS];
    struct sl_sample_row rows[ROWS];
    int different = 0;
    for (int i = 0; i < ROWS * WORDS; i++) {
        allowed[i] = i % 3 ? (int32_t)(uint32_t)below((int64_t)1 << 32) : 0;
        seen[i] = (int32_t)(uint32_t)below((int64_t)1 << 32);
    }
    for (int i = 0; i < ROWS; i++) {
        rows[i] = (struct sl_sample_row){.temperature = i % 4 ? 0.3f * (float)(i % 4) : 0,
                                         .top_p = i % 3 ? 0.8f : 1,
                                         .top_k = top_k[i % 5],
                                         .presence = i % 2 ? 1.5f : 0,
                                         .uniform = (float)uniform()};
    }
    struct sl_tensor allowed_bits = sl_tensor_2d(allowed, SL_I32, ROWS, WORDS),
                     tokens = sl_tensor_1d(token, SL_I32, ROWS);
    struct sl_tensor seen_bits = sl_tensor_2d(seen, SL_I32, ROWS, WORDS);
    device->ops->sample(stream, &logits, rows, &allowed_bits, &seen_bits, &tokens, &logprob);
    for (int i = 0; i < ROWS; i++) {
        const float *row = (const float *)logits.data + i * VOCAB;
        // A draw on the very border may fall to either side of it.
        different += token[i] != wanted_token(row, &rows[i], allowed + i * WORDS, seen + i * WORDS);
        double sum = 0;
        for (int id = 0; id < VOCAB; id++) {
            sum += exp((double)row[id]);
        }
        assert_true(bit(allowed + i * WORDS, token[i]));
        assert_true(fabs((double)row[token[i]] - log(sum) - get(&logprob, i)) < 1e-5);
    }
    assert_true(different <= 1);
    free(logits.data);
    free(logprob.data);
}

static void test_draws(void **state)
{
    (void)state;
    for_all_kernels(draws);
}

static int32_t draw_one(float *logits, int64_t vocab, struct sl_sample_row row)
{
    struct sl_tensor t = sl_tensor_2d(logits, SL_F32, 1, vocab);
    int32_t token = -7;
    float logprob;
    struct sl_tensor tokens = sl_tensor_1d(&token, SL_I32, 1), logprobs = sl_tensor_1d(&logprob, SL_F32, 1);
    device->ops->sample(stream, &t, &row, NULL, NULL, &tokens, &logprobs);
    assert_no_failure();
    return token;
}

static void test_ties_and_borders(void **state)
{
    (void)state;
    float equal[] = {1, 3, 3, 3};
    assert_int_equal(draw_one(equal, 4, (struct sl_sample_row){.temperature = 0, .top_p = 1}), 1);
    // Of equal tokens the first ids are kept.
    assert_int_equal(draw_one(equal, 4, (struct sl_sample_row){1, 1, 2, 0, 0.99f}), 2);
    assert_int_equal(draw_one(equal, 4, (struct sl_sample_row){1, 0.3f, 0, 0, 0.99f}), 1);
    assert_int_equal(draw_one(equal, 4, (struct sl_sample_row){1, 0, 0, 0, 0.5f}), 1);
    assert_int_equal(draw_one(equal, 4, (struct sl_sample_row){1, 1, 0, 0, 0}), 0);
}

// The frequencies of many draws are the probabilities.
static void test_frequencies(void **state)
{
    (void)state;
    enum { N = 20000 };
    float logits[] = {0, logf(2), logf(3), logf(4)};
    int count[4] = {0};
    for (int i = 0; i < N; i++) {
        count[draw_one(logits, 4, (struct sl_sample_row){1, 1, 0, 0, (float)uniform()})]++;
    }
    for (int i = 0; i < 4; i++) {
        assert_true(fabs(count[i] / (double)N - (i + 1) / 10.0) < 0.012);
    }
}

static void test_a_mask_that_allows_nothing(void **state)
{
    (void)state;
    struct sl_tensor logits = random_tensor(SL_F32, 1, 40, 1);
    int32_t token, allowed[2] = {0, 0};
    float logprob;
    struct sl_sample_row row = {.temperature = 0, .top_p = 1};
    struct sl_tensor bits = sl_tensor_2d(allowed, SL_I32, 1, 2), tokens = sl_tensor_1d(&token, SL_I32, 1);
    struct sl_tensor logprobs = sl_tensor_1d(&logprob, SL_F32, 1);
    struct sl_stream *other;
    assert_int_equal(device->ops->stream_create(device, &other, NULL), SL_OK);
    device->ops->sample(other, &logits, &row, &bits, NULL, &tokens, &logprobs);
    assert_int_equal(device->ops->wait(other, NULL), SL_ERR_INTERNAL);
    device->ops->stream_destroy(other);
    free(logits.data);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_draws),
        cmocka_unit_test(test_ties_and_borders),
        cmocka_unit_test(test_frequencies),
        cmocka_unit_test(test_a_mask_that_allows_nothing),
    };
    return cmocka_run_group_tests(tests, open_device, close_device);
}
