// SPDX-License-Identifier: Apache-2.0
#include "core/queue.h"

#include <pthread.h>
#include <stddef.h>
#include <stdlib.h>
#include <time.h>

struct sl_fifo {
    pthread_mutex_t lock;
    pthread_cond_t not_full, not_empty;
    int closed, cancelled;
    void (*drop)(void *item);
    int capacity, first, count; // a ring: items at first .. first + count - 1, modulo capacity
    void *items[];
};

int sl_fifo_create(int capacity, void (*drop)(void *item), struct sl_fifo **out, struct sl_error *error)
{
    if (capacity < 1) {
        return sl_fail(error, SL_ERR_INTERNAL, "queue of capacity %d", capacity);
    }
    struct sl_fifo *fifo = calloc(1, sizeof *fifo + (size_t)capacity * sizeof *fifo->items);
    if (fifo == NULL) {
        return sl_fail(error, SL_ERR_MEMORY, "no memory for a queue of %d", capacity);
    }
    // On Linux these cannot fail.
    pthread_condattr_t monotonic;
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_mutex_init(&fifo->lock, NULL);
    pthread_cond_init(&fifo->not_full, NULL);
    pthread_cond_init(&fifo->not_empty, &monotonic);
    pthread_condattr_destroy(&monotonic);
    fifo->capacity = capacity;
    fifo->drop = drop;
    *out = fifo;
    return SL_OK;
}

// The oldest item; the lock is held and there is one.
static void *take(struct sl_fifo *fifo)
{
    void *item = fifo->items[fifo->first];
    fifo->first = (fifo->first + 1) % fifo->capacity;
    fifo->count--;
    return item;
}

static void drop_all(struct sl_fifo *fifo)
{
    pthread_mutex_lock(&fifo->lock);
    while (fifo->count > 0) {
        void *item = take(fifo);
        if (fifo->drop != NULL) {
            pthread_mutex_unlock(&fifo->lock); // drop may take long, or call back
            fifo->drop(item);
            pthread_mutex_lock(&fifo->lock);
        }
    }
    pthread_mutex_unlock(&fifo->lock);
}

void sl_fifo_destroy(struct sl_fifo *fifo)
{
    if (fifo == NULL) {
        return;
    }
    drop_all(fifo);
    pthread_cond_destroy(&fifo->not_empty);
    pthread_cond_destroy(&fifo->not_full);
    pthread_mutex_destroy(&fifo->lock);
    free(fifo);
}

int sl_fifo_push(struct sl_fifo *fifo, void *item)
{
    int status = SL_OK;
    pthread_mutex_lock(&fifo->lock);
    while (fifo->count == fifo->capacity && !fifo->closed && !fifo->cancelled) {
        pthread_cond_wait(&fifo->not_full, &fifo->lock);
    }
    if (fifo->cancelled) {
        status = SL_ERR_INTERRUPTED;
    } else if (fifo->closed) {
        status = SL_END;
    } else {
        fifo->items[(fifo->first + fifo->count) % fifo->capacity] = item;
        fifo->count++;
        pthread_cond_signal(&fifo->not_empty);
    }
    pthread_mutex_unlock(&fifo->lock);
    return status;
}

// `until` NULL: for ever.
static int pop_until(struct sl_fifo *fifo, const struct timespec *until, void **item)
{
    int status = SL_OK;
    int late = 0;
    pthread_mutex_lock(&fifo->lock);
    while (fifo->count == 0 && !fifo->closed && !fifo->cancelled && !late) {
        late = until == NULL ? pthread_cond_wait(&fifo->not_empty, &fifo->lock)
                             : pthread_cond_timedwait(&fifo->not_empty, &fifo->lock, until);
    }
    if (fifo->cancelled) {
        status = SL_ERR_INTERRUPTED;
    } else if (fifo->count == 0) {
        status = fifo->closed ? SL_END : SL_ERR_BUSY;
    } else {
        *item = take(fifo);
        pthread_cond_signal(&fifo->not_full);
    }
    pthread_mutex_unlock(&fifo->lock);
    return status;
}

int sl_fifo_pop(struct sl_fifo *fifo, void **item)
{
    return pop_until(fifo, NULL, item);
}

int sl_fifo_pop_within(struct sl_fifo *fifo, int timeout_ms, void **item)
{
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_nsec += (long)(timeout_ms % 1000) * 1000000;
    until.tv_sec += timeout_ms / 1000 + until.tv_nsec / 1000000000;
    until.tv_nsec %= 1000000000;
    return pop_until(fifo, &until, item);
}

static void set_and_wake(struct sl_fifo *fifo, int *flag)
{
    pthread_mutex_lock(&fifo->lock);
    *flag = 1;
    pthread_cond_broadcast(&fifo->not_full);
    pthread_cond_broadcast(&fifo->not_empty);
    pthread_mutex_unlock(&fifo->lock);
}

void sl_fifo_close(struct sl_fifo *fifo)
{
    set_and_wake(fifo, &fifo->closed);
}

void sl_fifo_cancel(struct sl_fifo *fifo)
{
    set_and_wake(fifo, &fifo->cancelled);
    drop_all(fifo);
}
