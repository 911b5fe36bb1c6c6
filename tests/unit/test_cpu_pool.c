// SPDX-License-Identifier: Apache-2.0
// Every task exactly once, no two at once under one worker number, nothing lost however loops follow each other.
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#include "cpu/pool.h"

enum { THREADS = 4, TASKS = 1000 };

struct job {
    atomic_int runs[TASKS];
    atomic_int inside[THREADS];
    atomic_int faults;
    int64_t sum[THREADS]; // plain: one worker at a time
    int threads;
};

static void count_task(void *pointer, int64_t index, int worker)
{
    struct job *job = pointer;
    if (worker < 0 || worker >= job->threads || atomic_fetch_add(&job->inside[worker], 1) != 0) {
        atomic_fetch_add(&job->faults, 1);
    }
    atomic_fetch_add(&job->runs[index], 1);
    job->sum[worker] += index;
    atomic_fetch_sub(&job->inside[worker], 1);
}

static void check_loop(struct cpu_pool *pool, int threads, int64_t count)
{
    static struct job job;
    memset(&job, 0, sizeof job);
    job.threads = threads;
    cpu_pool_run(pool, threads, count, count_task, &job);
    int64_t sum = 0;
    for (int i = 0; i < TASKS; i++) {
        assert_int_equal(atomic_load(&job.runs[i]), i < count);
    }
    for (int i = 0; i < THREADS; i++) {
        sum += job.sum[i];
    }
    assert_int_equal(sum, count * (count - 1) / 2);
    assert_int_equal(atomic_load(&job.faults), 0);
}

static void test_loops_of_all_sizes(void **state)
{
    (void)state;
    struct cpu_pool *pool = cpu_pool_create(THREADS);
    assert_int_equal(cpu_pool_threads(pool), THREADS);
    for (int threads = 1; threads <= THREADS; threads++) {
        for (int64_t count = 0; count <= TASKS; count = count * 3 + 1) {
            check_loop(pool, threads, count);
        }
    }
    cpu_pool_destroy(pool);
}

// Workers are met awake, asleep, and on the way between.
static void test_many_loops_with_pauses(void **state)
{
    (void)state;
    struct cpu_pool *pool = cpu_pool_create(THREADS);
    for (int i = 0; i < 2000; i++) {
        check_loop(pool, THREADS, 7);
        if (i % 100 == 0) {
            nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
        }
    }
    cpu_pool_destroy(pool);
}

static void test_alone_and_unused(void **state)
{
    (void)state;
    struct cpu_pool *pool = cpu_pool_create(1);
    check_loop(pool, 1, 10);
    cpu_pool_destroy(pool);
    cpu_pool_destroy(cpu_pool_create(THREADS));
    cpu_pool_destroy(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_loops_of_all_sizes),
        cmocka_unit_test(test_many_loops_with_pauses),
        cmocka_unit_test(test_alone_and_unused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
