// SPDX-License-Identifier: Apache-2.0
#include "cpu/pool.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>

// Between the loops of one step of a model lie microseconds: worth staying awake for. More is taken from others.
enum { SPINS = 2000 };

// The state of the loop at hand, in one word: how many workers are in it, whether more may enter, and its number.
// A worker that wakes too late finds it closed, so the caller waits for nobody who has not begun.
enum { OPEN = 1 << 30, INSIDE = OPEN - 1 };

struct cpu_pool {
    int workers; // besides the caller
    pthread_t *thread;

    // Written by the caller while the loop is closed and empty; read by workers that have entered.
    cpu_task *task;
    void *job;
    int64_t count;
    int threads;
    _Atomic int64_t next; // task

    _Atomic uint64_t loop; // number << 32 | OPEN | workers inside
    atomic_int stopping;

    pthread_mutex_t lock; // for sleeping and waking only
    pthread_cond_t wake;  // another loop
    pthread_cond_t done;  // nobody is inside
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

static uint32_t number_of(uint64_t loop)
{
    return (uint32_t)(loop >> 32);
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

static void await_loop(struct cpu_pool *pool, uint32_t seen)
{
    for (int i = 0; i < SPINS; i++) {
        if (number_of(atomic_load_explicit(&pool->loop, memory_order_relaxed)) != seen) {
            return;
        }
        pause_a_moment();
    }
    pthread_mutex_lock(&pool->lock);
    pool->sleepers++;
    while (number_of(atomic_load(&pool->loop)) == seen) {
        pthread_cond_wait(&pool->wake, &pool->lock);
    }
    pool->sleepers--;
    pthread_mutex_unlock(&pool->lock);
}

// 1: inside; the caller will wait for `leave`.
static int enter(struct cpu_pool *pool, uint32_t *seen)
{
    uint64_t loop = atomic_load(&pool->loop);
    while (loop & OPEN) {
        if (atomic_compare_exchange_weak(&pool->loop, &loop, loop + 1)) {
            break;
        }
    }
    *seen = number_of(loop);
    return (loop & OPEN) != 0;
}

static void leave(struct cpu_pool *pool)
{
    uint64_t before = atomic_fetch_sub(&pool->loop, 1);
    if ((before & OPEN) || (before & INSIDE) > 1) {
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
    uint32_t seen = 0;
    while (!atomic_load(&self.pool->stopping)) {
        await_loop(self.pool, seen);
        if (enter(self.pool, &seen)) {
            if (self.number < self.pool->threads) {
                take_tasks(self.pool, self.number);
            }
            leave(self.pool);
        }
    }
    return NULL;
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

static void begin_loop(struct cpu_pool *pool, uint64_t open)
{
    uint64_t number = number_of(atomic_load_explicit(&pool->loop, memory_order_relaxed)) + 1;
    atomic_store(&pool->loop, (uint64_t)(uint32_t)number << 32 | open);
    pthread_mutex_lock(&pool->lock);
    if (pool->sleepers > 0) {
        pthread_cond_broadcast(&pool->wake);
    }
    pthread_mutex_unlock(&pool->lock);
}

// Closes the loop and waits for those inside.
static void end_loop(struct cpu_pool *pool)
{
    atomic_fetch_and(&pool->loop, ~(uint64_t)OPEN);
    for (int i = 0; i < SPINS; i++) {
        if ((atomic_load(&pool->loop) & INSIDE) == 0) {
            return;
        }
        pause_a_moment();
    }
    pthread_mutex_lock(&pool->lock);
    pool->caller_sleeps = 1;
    while (atomic_load(&pool->loop) & INSIDE) {
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
    begin_loop(pool, OPEN);
    take_tasks(pool, 0);
    end_loop(pool);
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
    begin_loop(pool, 0);
    for (int i = 0; i < pool->workers; i++) {
        pthread_join(pool->thread[i], NULL);
    }
    pthread_mutex_destroy(&pool->lock);
    pthread_cond_destroy(&pool->wake);
    pthread_cond_destroy(&pool->done);
    free(pool->thread);
    free(pool);
}
