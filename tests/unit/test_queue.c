// SPDX-License-Identifier: Apache-2.0
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "core/queue.h"

enum { PRODUCERS = 3, CONSUMERS = 3, ITEMS = 5000 };

static struct sl_fifo *make(int capacity, void (*drop)(void *item))
{
    struct sl_fifo *fifo = NULL;
    assert_int_equal(sl_fifo_create(capacity, drop, &fifo, NULL), SL_OK);
    return fifo;
}

static void keeps_order_and_drains_after_close(void **state)
{
    (void)state;
    struct sl_fifo *fifo = make(3, NULL);
    int values[5];
    void *item = NULL;
    for (int round = 0; round < 4; round++) { // more than once around the ring
        for (int i = 0; i < 2; i++) {
            assert_int_equal(sl_fifo_push(fifo, &values[i]), SL_OK);
        }
        for (int i = 0; i < 2; i++) {
            assert_int_equal(sl_fifo_pop(fifo, &item), SL_OK);
            assert_ptr_equal(item, &values[i]);
        }
    }
    assert_int_equal(sl_fifo_push(fifo, &values[4]), SL_OK);
    sl_fifo_close(fifo);
    assert_int_equal(sl_fifo_push(fifo, &values[0]), SL_END);
    assert_int_equal(sl_fifo_pop(fifo, &item), SL_OK);
    assert_ptr_equal(item, &values[4]);
    assert_int_equal(sl_fifo_pop(fifo, &item), SL_END);
    sl_fifo_destroy(fifo);
}

static void waits_for_a_while(void **state)
{
    (void)state;
    struct sl_fifo *fifo = make(2, NULL);
    int value = 0;
    void *item = NULL;
    assert_int_equal(sl_fifo_pop_within(fifo, 20, &item), SL_ERR_BUSY);
    assert_int_equal(sl_fifo_push(fifo, &value), SL_OK);
    assert_int_equal(sl_fifo_pop_within(fifo, 0, &item), SL_OK);
    assert_ptr_equal(item, &value);
    sl_fifo_close(fifo);
    assert_int_equal(sl_fifo_pop_within(fifo, 60000, &item), SL_END);
    sl_fifo_destroy(fifo);
}

static void refuses_no_capacity(void **state)
{
    (void)state;
    struct sl_fifo *fifo = NULL;
    assert_int_equal(sl_fifo_create(0, NULL, &fifo, NULL), SL_ERR_INTERNAL);
    sl_fifo_destroy(NULL);
}

struct crowd {
    struct sl_fifo *fifo;
    atomic_int seen[PRODUCERS * ITEMS];
    atomic_int next_producer;
    int numbers[PRODUCERS * ITEMS];
};

static void *produce(void *argument)
{
    struct crowd *crowd = argument;
    int first = atomic_fetch_add(&crowd->next_producer, 1) * ITEMS;
    for (int i = first; i < first + ITEMS; i++) {
        crowd->numbers[i] = i;
        if (sl_fifo_push(crowd->fifo, &crowd->numbers[i]) != SL_OK) {
            return crowd;
        }
    }
    return NULL;
}

static void *consume(void *argument)
{
    struct crowd *crowd = argument;
    void *item = NULL;
    int status;
    int last[PRODUCERS] = {0};
    while ((status = sl_fifo_pop(crowd->fifo, &item)) == SL_OK) {
        int number = *(int *)item;
        if (number + 1 <= last[number / ITEMS]) {
            return crowd; // one producer's items came out of order
        }
        last[number / ITEMS] = number + 1;
        atomic_fetch_add(&crowd->seen[number], 1);
    }
    return status == SL_END ? NULL : crowd;
}

static void hands_every_item_to_one_thread(void **state)
{
    (void)state;
    struct crowd *crowd = calloc(1, sizeof *crowd);
    assert_non_null(crowd);
    crowd->fifo = make(4, NULL);
    pthread_t producers[PRODUCERS], consumers[CONSUMERS];
    void *fault = NULL;
    for (int i = 0; i < PRODUCERS; i++) {
        assert_int_equal(pthread_create(&producers[i], NULL, produce, crowd), 0);
    }
    for (int i = 0; i < CONSUMERS; i++) {
        assert_int_equal(pthread_create(&consumers[i], NULL, consume, crowd), 0);
    }
    for (int i = 0; i < PRODUCERS; i++) {
        pthread_join(producers[i], &fault);
        assert_null(fault);
    }
    sl_fifo_close(crowd->fifo);
    for (int i = 0; i < CONSUMERS; i++) {
        pthread_join(consumers[i], &fault);
        assert_null(fault);
    }
    for (int i = 0; i < PRODUCERS * ITEMS; i++) {
        assert_int_equal(atomic_load(&crowd->seen[i]), 1);
    }
    sl_fifo_destroy(crowd->fifo);
    free(crowd);
}

static void *push_until_refused(void *argument)
{
    int status;
    void *item;
    do {
        item = malloc(1);
        status = sl_fifo_push(argument, item);
    } while (status == SL_OK);
    free(item); // refused: still ours
    return (void *)(intptr_t)status;
}

static void *pop_until_refused(void *argument)
{
    void *item = NULL;
    int status;
    while ((status = sl_fifo_pop(argument, &item)) == SL_OK) {
        free(item);
    }
    return (void *)(intptr_t)status;
}

// The leak checker of the sanitized build sees whether every item was freed once.
static void cancel_wakes_and_drops(void **state)
{
    (void)state;
    struct sl_fifo *full = make(2, free);
    struct sl_fifo *empty = make(2, free);
    pthread_t pusher, popper;
    void *status = NULL;
    assert_int_equal(pthread_create(&pusher, NULL, push_until_refused, full), 0);
    assert_int_equal(pthread_create(&popper, NULL, pop_until_refused, empty), 0);
    void *item = NULL;
    assert_int_equal(sl_fifo_pop(full, &item), SL_OK); // it runs
    free(item);
    sl_fifo_cancel(full);
    sl_fifo_cancel(empty);
    pthread_join(pusher, &status);
    assert_int_equal((intptr_t)status, SL_ERR_INTERRUPTED);
    pthread_join(popper, &status);
    assert_int_equal((intptr_t)status, SL_ERR_INTERRUPTED);
    assert_int_equal(sl_fifo_pop(full, &item), SL_ERR_INTERRUPTED);
    sl_fifo_destroy(full);
    sl_fifo_destroy(empty);
}

static void destroy_drops_what_is_left(void **state)
{
    (void)state;
    struct sl_fifo *fifo = make(2, free);
    assert_int_equal(sl_fifo_push(fifo, malloc(1)), SL_OK);
    sl_fifo_close(fifo);
    sl_fifo_destroy(fifo);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(keeps_order_and_drains_after_close), cmocka_unit_test(refuses_no_capacity),
        cmocka_unit_test(hands_every_item_to_one_thread),     cmocka_unit_test(cancel_wakes_and_drops),
        cmocka_unit_test(destroy_drops_what_is_left),         cmocka_unit_test(waits_for_a_while),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
