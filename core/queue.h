// SPDX-License-Identifier: Apache-2.0
// A bounded first-in first-out queue of pointers between threads: how the pipeline's stages wait for each other.
//
// Any number of threads push and pop. close: no more items will come; what is inside is still handed out. cancel: stop
// now; what is inside is dropped. Both wake every waiter. An item that was not taken (push did not return SL_OK) stays
// the caller's; an item inside belongs to the queue; a popped one to whoever popped it.
#ifndef SL_CORE_QUEUE_H
#define SL_CORE_QUEUE_H

#include "core/error.h"

struct sl_fifo;

// drop: frees one item, for cancel and destroy; may be NULL. Called without the queue's lock held.
int sl_fifo_create(int capacity, void (*drop)(void *item), struct sl_fifo **out, struct sl_error *error);

// Drops what is left. No thread may be inside any call. Accepts NULL.
void sl_fifo_destroy(struct sl_fifo *fifo);

// Waits while the queue is full. SL_OK, SL_END after close, SL_ERR_INTERRUPTED after cancel.
int sl_fifo_push(struct sl_fifo *fifo, void *item);

// Waits while the queue is empty. SL_OK and *item, SL_END when closed and empty, SL_ERR_INTERRUPTED after cancel.
int sl_fifo_pop(struct sl_fifo *fifo, void **item);

// The same, but waits `timeout_ms` at most: SL_ERR_BUSY when there is nothing by then.
int sl_fifo_pop_within(struct sl_fifo *fifo, int timeout_ms, void **item);

void sl_fifo_close(struct sl_fifo *fifo);
void sl_fifo_cancel(struct sl_fifo *fifo);

#endif
