// SPDX-License-Identifier: Apache-2.0
#include "cpu/pool.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>

// Between the loops of one step of a model lie microseconds: worth staying awake for. More is taken from others.
enum { SPINS = 2000 };

struct cpu_pool {
    int workers; // besides the caller
    pthread_t *thread;

    // The loop at hand; written by the caller before `round` is raised, read by the workers after they have seen it.
    cpu_task *task;
    void *job;
    int64_t count;
    int threads;
    _Atomic int64_t next; // task

    _Atomic unsigned round; // counts loops
    atomic_int busy;        // workers that have not finished this round
    atomic_int stopping;

    pthread_mutex_t lock; // for sleeping and waking only
    pthread_cond_t wake;  // a new round
    pthread_cond_t done;  // busy is 0
    int sleepers;         // under the lock
    int caller_sleeps;    // under the lock
};

struct worker {
    struct cpu_pool *pool;
    int number; // 1..workers
};

static void pause_a_moment(void)
{
#if defined(__x86_64__)
    __builtin_ia32_pause();
#endif
}

static void take_tasks(struct cpu_pool *pool, int worker)
{
    for (;;) {
        int64_t index = atomic_fetch_add_explicit(&pool->next, 1, memory_order_relaxed);
        if (index >= pool->count) {
            return;
        }
        pool->task(pool->job, index, worker);
    }
}

static unsigned await_round(struct cpu_pool *pool, unsigned seen)
{
    for (int i = 0; i < SPINS; i++) {
        unsigned round = atomic_load_explicit(&pool->round, memory_order_acquire);
        if (round != seen) {
            return round;
        }
        pause_a_moment();
    }
    pthread_mutex_lock(&pool->lock);
    pool->sleepers++;
    while (atomic_load(&pool->round) == seen) {
        pthread_cond_wait(&pool->wake, &pool->lock);
    }
    pool->sleepers--;
    pthread_mutex_unlock(&pool->lock);
    return atomic_load(&pool->round);
}

static void finish_round(struct cpu_pool *pool)
{
    if (atomic_fetch_sub(&pool->busy, 1) > 1) {
        return;
    }
    pthread_mutex_lock(&pool->lock);
    if (pool->caller_sleeps) {
        pthread_cond_signal(&pool->done);
    }
    pthread_mutex_unlock(&pool->lock);
}

static void *work(void *pointer)
{
    struct worker self = *(struct worker *)pointer;
    free(pointer);
    unsigned seen = 0;
    for (;;) {
        seen = await_round(self.pool, seen);
        if (atomic_load(&self.pool->stopping)) {
            return NULL;
        }
        if (self.number < self.pool->threads) {
            take_tasks(self.pool, self.number);
        }
        finish_round(self.pool);
    }
}

static int start_worker(struct cpu_pool *pool)
{
    struct worker *worker = malloc(sizeof *worker);
    if (worker == NULL) {
        return 0;
    }
    *worker = (struct worker){.pool = pool, .number = pool->workers + 1};
    if (pthread_create(&pool->thread[pool->workers], NULL, work, worker) != 0) {
        free(worker);
        return 0;
    }
    pool->workers++;
    return 1;
}

struct cpu_pool *cpu_pool_create(int threads)
{
    struct cpu_pool *pool = calloc(1, sizeof *pool);
    pthread_t *thread = calloc((size_t)threads, sizeof *thread);
    if (pool == NULL || thread == NULL) {
        free(pool);
        free(thread);
        return NULL;
    }
    pool->thread = thread;
    pthread_mutex_init(&pool->lock, NULL);
    pthread_cond_init(&pool->wake, NULL);
    pthread_cond_init(&pool->done, NULL);
    while (pool->workers < threads - 1 && start_worker(pool)) {
    }
    return pool;
}

static void begin_round(struct cpu_pool *pool)
{
    atomic_store(&pool->busy, pool->workers);
    pthread_mutex_lock(&pool->lock);
    atomic_fetch_add(&pool->round, 1);
    if (pool->sleepers > 0) {
        pthread_cond_broadcast(&pool->wake);
    }
    pthread_mutex_unlock(&pool->lock);
}

static void await_workers(struct cpu_pool *pool)
{
    for (int i = 0; i < SPINS; i++) {
        if (atomic_load_explicit(&pool->busy, memory_order_acquire) == 0) {
            return;
        }
        pause_a_moment();
    }
    pthread_mutex_lock(&pool->lock);
    pool->caller_sleeps = 1;
    while (atomic_load(&pool->busy) > 0) {
        pthread_cond_wait(&pool->done, &pool->lock);
    }
    pool->caller_sleeps = 0;
    pthread_mutex_unlock(&pool->lock);
}

void cpu_pool_run(struct cpu_pool *pool, int threads, int64_t count, cpu_task *task, void *job)
{
    if (threads <= 1 || pool->workers == 0 || count <= 1) {
        for (int64_t i = 0; i < count; i++) {
            task(job, i, 0);
        }
        return;
    }
    pool->task = task;
    pool->job = job;
    pool->count = count;
    pool->threads = threads;
    atomic_store_explicit(&pool->next, 0, memory_order_relaxed);
    begin_round(pool);
    take_tasks(pool, 0);
    await_workers(pool);
}

int cpu_pool_threads(const struct cpu_pool *pool)
{
    return pool->workers + 1;
}

void cpu_pool_destroy(struct cpu_pool *pool)
{
    if (pool == NULL) {
        return;
    }
    atomic_store(&pool->stopping, 1);
    begin_round(pool);
    for (int i = 0; i < pool->workers; i++) {
        pthread_join(pool->thread[i], NULL);
    }
    pthread_mutex_destroy(&pool->lock);
    pthread_cond_destroy(&pool->wake);
    pthread_cond_destroy(&pool->done);
    free(pool->thread);
    free(pool);
}
