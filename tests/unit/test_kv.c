// SPDX-License-Identifier: Apache-2.0
// The page pool: promises, sharing, and giving back; over random histories its books always balance.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "lm/kv.h"
#include "tests/support/stub_device.h"

enum { PAGE = 4, PAGES = 23, SEQUENCES = 6, LAYERS = 2, HEADS = 3, DIM = 5 };

struct pool {
    struct sl_device *device;
    struct sl_stream *stream;
    struct sl_kv *kv;
};

static struct pool open_pool(void)
{
    struct pool pool = {.device = stub_create()};
    struct sl_error error;
    struct sl_kv_shape shape = {LAYERS, HEADS, DIM, SL_F32, PAGE, PAGES, SEQUENCES};
    assert_int_equal(sl_kv_create(pool.device, &shape, &pool.kv, &error), SL_OK);
    assert_int_equal(pool.device->ops->stream_create(pool.device, &pool.stream, &error), SL_OK);
    return pool;
}

static void close_pool(struct pool *pool)
{
    assert_int_equal(sl_kv_free_tokens(pool->kv), PAGE * PAGES);
    sl_kv_destroy(pool->kv);
    pool->device->ops->stream_destroy(pool->stream);
    assert_int_equal(stub_of(pool->device)->allocations, 0);
    pool->device->ops->destroy(pool->device);
}

static void promises_what_a_sequence_may_come_to_need(void **state)
{
    (void)state;
    struct pool pool = open_pool();
    struct sl_kv_sequence a = {0}, b = {0};
    struct sl_error error = {0};
    assert_int_equal(sl_kv_total_tokens(pool.kv), 92);
    assert_int_equal(sl_kv_start(pool.kv, 93, &a, &error), SL_ERR_BUSY);
    assert_int_equal(sl_kv_start(pool.kv, 81, &a, &error), SL_OK); // 21 pages
    assert_int_equal(sl_kv_free_tokens(pool.kv), 8);
    assert_int_equal(sl_kv_start(pool.kv, 9, &b, &error), SL_ERR_BUSY);
    assert_non_null(strstr(error.text, "8 free"));
    assert_int_equal(sl_kv_start(pool.kv, 8, &b, &error), SL_OK);
    sl_kv_grow(&a, 81);
    sl_kv_grow(&b, 8);
    assert_int_equal(a.page_count, 21);
    assert_int_equal(sl_kv_free_tokens(pool.kv), 0);
    sl_kv_finish(&a);
    assert_int_equal(sl_kv_free_tokens(pool.kv), 84);
    sl_kv_finish(&b);
    sl_kv_finish(&b); // not started: nothing
    close_pool(&pool);
}

static float *slot(const struct sl_tensor *t, int page, int head, int token)
{
    return (float *)t->data + page * t->stride[0] + head * t->stride[1] + token * t->stride[2];
}

static void forks_share_full_pages_and_copy_the_last(void **state)
{
    (void)state;
    struct pool pool = open_pool();
    struct sl_kv_sequence parent = {0}, child = {0};
    struct sl_error error = {0};
    assert_int_equal(sl_kv_start(pool.kv, 20, &parent, &error), SL_OK);
    sl_kv_grow(&parent, 10); // two full pages, one half full
    for (int layer = 0; layer < LAYERS; layer++) {
        const struct sl_kv_layer *l = sl_kv_layer(pool.kv, layer);
        slot(&l->k, parent.page[2], 1, 1)[3] = 100 + (float)layer;
        slot(&l->v, parent.page[2], 2, 0)[4] = 200 + (float)layer;
    }
    assert_int_equal(sl_kv_fork(pool.stream, &parent, 10, 16, &child, &error), SL_OK);
    assert_int_equal(child.length, 10);
    assert_int_equal(child.page_count, 3);
    assert_memory_equal(child.page, parent.page, 2 * sizeof *child.page);
    assert_int_not_equal(child.page[2], parent.page[2]);
    for (int layer = 0; layer < LAYERS; layer++) {
        const struct sl_kv_layer *l = sl_kv_layer(pool.kv, layer);
        assert_true(slot(&l->k, child.page[2], 1, 1)[3] == 100 + (float)layer);
        assert_true(slot(&l->v, child.page[2], 2, 0)[4] == 200 + (float)layer);
    }
    assert_int_equal(sl_kv_free_tokens(pool.kv), PAGE * (PAGES - 5 - 2)); // the shared pages count once
    sl_kv_finish(&parent);
    assert_int_equal(sl_kv_free_tokens(pool.kv), PAGE * (PAGES - 4));
    sl_kv_grow(&child, 6);
    sl_kv_finish(&child);
    close_pool(&pool);
}

static unsigned draw(unsigned *seed, unsigned n)
{
    *seed = *seed * 1664525u + 1013904223u;
    return (*seed >> 8) % n;
}

// No page is in two sequences but those that share its content; nobody runs dry; free pages are as told.
static void balances_over_random_histories(void **state)
{
    (void)state;
    struct pool pool = open_pool();
    struct sl_kv_sequence sequence[SEQUENCES] = {{0}};
    int64_t limit[SEQUENCES] = {0};
    struct sl_error error;
    unsigned seed = 7;
    int forks = 0, refused = 0;
    for (int step = 0; step < 20000; step++) {
        int i = (int)draw(&seed, SEQUENCES), j = (int)draw(&seed, SEQUENCES);
        int64_t tokens = 1 + draw(&seed, 40);
        if (!sequence[i].kv && sequence[j].kv && sequence[j].length) {
            int64_t shared = draw(&seed, (unsigned)sequence[j].length + 1);
            limit[i] = shared + tokens;
            int rc = sl_kv_fork(pool.stream, &sequence[j], shared, limit[i], &sequence[i], &error);
            assert_true(rc == SL_OK || (rc == SL_ERR_BUSY && !sequence[i].kv));
            forks += !rc;
        } else if (!sequence[i].kv) {
            limit[i] = tokens;
            refused += sl_kv_start(pool.kv, tokens, &sequence[i], &error) != SL_OK;
        } else if (sequence[i].length < limit[i] && draw(&seed, 5)) {
            sl_kv_grow(&sequence[i], 1 + draw(&seed, (unsigned)(limit[i] - sequence[i].length)));
        } else {
            sl_kv_finish(&sequence[i]);
        }
        int holders[PAGES] = {0}, held = 0;
        int64_t promised = 0;
        for (int s = 0; s < SEQUENCES; s++) {
            assert_true(sequence[s].page_count * PAGE >= sequence[s].length);
            promised += sequence[s].capacity - sequence[s].page_count;
            for (int64_t p = 0; p < sequence[s].page_count; p++) {
                held += holders[sequence[s].page[p]]++ == 0;
            }
        }
        assert_int_equal(sl_kv_free_tokens(pool.kv), PAGE * (PAGES - held - promised));
        assert_true(sl_kv_free_tokens(pool.kv) >= 0);
    }
    assert_true(forks > 500 && refused > 50);
    for (int s = 0; s < SEQUENCES; s++) {
        sl_kv_finish(&sequence[s]);
    }
    close_pool(&pool);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(promises_what_a_sequence_may_come_to_need),
        cmocka_unit_test(forks_share_full_pages_and_copy_the_last),
        cmocka_unit_test(balances_over_random_histories),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
